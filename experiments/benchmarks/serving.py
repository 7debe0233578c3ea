r"""How fast `tal-jax predict` reads recordings: seconds of recording per second, and where they go.

    python experiments/benchmarks/serving.py --json serving.json

Writes made-up recordings into a temporary folder and predicts one after another, as the command
does, with an untrained network of the default size: tables of six channels, features as of I3D
(2,048 a snippet), and videos. The first recording of a kind pays for compilation, the others are
steady: medians. Seconds are those of the CPU, of all threads, so that other work on the machine
counts little. The command computes the features of the next recording meanwhile; here the parts
follow each other.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from step_time import machine

from tal_jax import extraction
from tal_jax.config import check_config, rsmp_config
from tal_jax.data.clock import Grid
from tal_jax.data.manifest import Manifest
from tal_jax.inference import predict
from tal_jax.inference.forward import Fitted
from tal_jax.inference.predict_file import Network, describe, detect
from tal_jax.report.prediction import write_prediction
from tal_jax.training import update

PARTS = ("decoding", "features", "network", "localization", "files")
CLASSES = tuple(f"class {number}" for number in range(5))
CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
I3D = Grid(fps=25, stride_frames=16, window_frames=16)

Spent = Counter[str]  # CPU seconds of each part


def main() -> None:
    """Parses the sizes, times each kind, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS), help="%(default)s")
    for name, default in (("seconds", 120), ("recordings", 6), ("dim", 2048), ("width", 512)):
        parser.add_argument(f"--{name}", type=int, default=default, help="%(default)s")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    figures = {kind: serve(kind, options) for kind in options.kinds.split(",")}
    print(as_table(figures))
    if options.json:
        content = {"kinds": figures, "machine": machine(), "sizes": vars(options)}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)


def serve(kind: str, options: argparse.Namespace) -> dict:
    """Figures of one kind: seconds of recording per CPU second, and the share of each part."""
    jax.clear_caches()  # of the kinds before
    with tempfile.TemporaryDirectory() as folder:
        paths, network, backbone = KINDS[kind](Path(folder), options)
        spent = [predict_one(path, network, backbone, Path(folder)) for path in paths]
    totals = [one.total() for one in spent]
    steady = statistics.median(totals[1:])
    shares = {part: statistics.median(one[part] for one in spent[1:]) / steady for part in PARTS}
    return {
        "recording_s": options.seconds,
        "first_cpu_s": totals[0],
        "steady_cpu_s": steady,
        "first": options.seconds / totals[0],
        "steady": options.seconds / steady,
        "shares": shares,
    }


def as_table(figures: dict) -> str:
    """A table of Markdown, a line for each kind."""
    head = ["recordings", "first", "steady", *PARTS]
    lines = [head, ["---"] * len(head)]
    for kind, one in figures.items():
        shares = [f"{100 * one['shares'][part]:.0f} %" for part in PARTS]
        lines.append([kind, f"{one['first']:,.0f} ×", f"{one['steady']:,.0f} ×", *shares])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- what is timed ---


def predict_one(path: Path, network: Network, backbone: type | None, folder: Path) -> Spent:
    """CPU seconds of the parts of one prediction."""
    spent: Spent = Counter()
    output = folder / "out" / f"{path.stem}.json"
    with contextlib.ExitStack() as stack:
        if backbone is not None:
            call = timed(backbone.__call__, "features", spent)
            stack.enter_context(mock.patch.object(backbone, "__call__", call))
        for name, part in (("predict_mean", "network"), ("predict_stages", "localization")):
            call = timed(getattr(predict, name), part, spent)
            stack.enter_context(mock.patch.object(predict, name, call))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with part_of(spent, "decoding"):
            described = describe(path, network, scratch)
        prediction = detect(described, network)
        with part_of(spent, "files"):
            write_prediction(prediction, output)
    spent["decoding"] -= spent["features"]  # which are computed on the way
    return spent


@contextlib.contextmanager
def part_of(spent: Spent, part: str) -> Iterator[None]:
    """Counts the CPU seconds of what stands inside, of all threads."""
    begin = time.process_time()
    yield
    spent[part] += time.process_time() - begin


def timed(function: Callable, part: str, spent: Spent) -> Callable:
    """A function whose CPU seconds are counted."""

    def call(*args, **kwargs):
        with part_of(spent, part):
            return function(*args, **kwargs)

    return call


# --- recordings and networks ---


def tables(folder: Path, options) -> tuple[list[Path], Network, type]:
    """Tables at 50 Hz, described by `signal` every half second."""
    backbone = extraction.open_backbone("signal", channels=",".join(CHANNELS))
    rng, times_s = np.random.default_rng(0), np.arange(50 * options.seconds) / 50
    paths = [folder / f"table_{number}.csv" for number in range(options.recordings)]
    for path in paths:
        values = rng.normal(size=(len(times_s), len(CHANNELS))).cumsum(axis=0) / 50
        rows = np.column_stack([times_s, values])
        header = ",".join(["time_s", *CHANNELS])
        np.savetxt(path, rows, "%.5f", delimiter=",", header=header, comments="")
    return paths, untrained(backbone.dim, backbone, options), type(backbone)


def features(folder: Path, options) -> tuple[list[Path], Network, None]:
    """Features of `dim` a snippet in float16, on the clock of I3D."""
    rng, size = np.random.default_rng(0), I3D.num_snippets(options.seconds)
    paths = [folder / f"features_{number}.npy" for number in range(options.recordings)]
    for path in paths:
        np.save(path, rng.normal(size=(size, options.dim)).astype(np.float16))
    return paths, untrained(options.dim, None, options), None


def videos(folder: Path, options) -> tuple[list[Path], Network, type]:
    """Videos of 320 × 240 at 25 frames a second: a brighter field that moves over noise."""
    import av

    backbone, rng = extraction.open_backbone("motion"), np.random.default_rng(0)
    noise = rng.integers(0, 64, size=(240, 320, 3), dtype=np.uint8)
    paths = [folder / f"video_{number}.mp4" for number in range(options.recordings)]
    for path in paths:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for number in range(25 * options.seconds):
                pixels, left = noise.copy(), 2 * number % 280
                pixels[100:140, left : left + 40] = 200
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return paths, untrained(backbone.dim, backbone, options), type(backbone)


def untrained(dim: int, backbone, options) -> Network:
    """A network of two rounds with random parameters."""
    config = rsmp_config()
    config.model.widths = (options.width,)
    config = check_config(config)
    fitted = Fitted((), config, CLASSES, dim)
    rounds = (update.init_state(fitted.model, config, dim, jax.random.key(n)) for n in range(2))
    for state in rounds:
        fitted = fitted.with_round(state.params)
    grid, manifest = I3D, None
    if backbone is not None:
        grid = extraction.grid_of(backbone)
        manifest = Manifest(backbone.name, backbone.version, backbone.options, dim, grid)

    def run(recording):
        found = predict.predict_mean(fitted, [recording])
        results = predict.predict_stages(fitted, [recording], found)
        return results[recording.name], found[recording.name]

    return Network(
        Path("untrained"), run, CLASSES, dim, grid, manifest, scaling=None, threshold=None
    )


KINDS = {"tables": tables, "features": features, "videos": videos}

if __name__ == "__main__":
    main()
