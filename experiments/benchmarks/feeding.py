r"""What it costs to train on features that stay in their files, and how much of that is hidden.

    python experiments/benchmarks/feeding.py --json feeding.json

Writes made-up features into a temporary folder and trains some blocks on them: resident on the
device, streamed, and streamed without reading ahead. The files were just written, so they are read
from the system's cache, as those of any data set are that fits into the machine's memory. On a CPU
the reading thread and the training share its cores.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from tal_jax.config import check_config, rsmp_config
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import open_features
from tal_jax.data.recordings import Dataset, Point, Recording
from tal_jax.methods import rsmp
from tal_jax.training import input_pipeline, update
from tal_jax.training.prepare import prepare_round

GRID = Grid(fps=25, stride_frames=16, window_frames=16)
CLASSES = 20


def main() -> None:
    """Parses the sizes, trains each way, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("recordings", 64), ("snippets", 2000), ("dim", 512), ("width", 512)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("length", 750), ("batch", 4), ("search-every", 5), ("blocks", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = made_up(options, Path(folder))
        seconds = time_ways(options, dataset)
    rest = seconds["streamed"] - seconds["resident"]
    hidden = float(np.clip(1 - rest / seconds["reading alone"], 0, 1))
    for name, value in seconds.items():
        print(f"{name:32s} {value:8.3f} s a block")
    print(f"{100 * hidden:.0f} % of the reading is hidden")
    if options.json:
        figures = {"seconds_a_block": seconds, "hidden": hidden}
        figures |= {"sizes": vars(options), "machine": machine()}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


def time_ways(options, dataset: Dataset) -> dict[str, float]:
    """Median seconds of a block, each way, and of reading what a block needs."""
    reading = []
    seconds = {
        "resident": time_blocks(options, dataset, "resident"),
        "streamed": time_blocks(options, dataset, "streamed"),
    }
    with mock.patch.object(
        input_pipeline.futures, "ThreadPoolExecutor", lambda **_: Inline(reading)
    ):
        seconds["streamed, not read ahead"] = time_blocks(options, dataset, "streamed")
    return seconds | {"reading alone": float(np.median(reading[1:]))}


def time_blocks(options, dataset: Dataset, features: str) -> float:
    """Median seconds of a block with `train.features` as given."""
    config = rsmp_config()
    config.model.widths = (options.width,)
    config.train.features, config.train.search_every = features, options.search_every
    config.train.steps = (options.blocks + 1) * options.search_every
    config.train.log_every = config.train.checkpoint_every = config.train.steps
    config.train.batch_size, config.train.length = options.batch, options.length
    config = check_config(config)
    packed = prepare_round(dataset, config, None)
    model, key = rsmp.make_model(config, CLASSES), jax.random.key(0)
    state = update.init_state(model, config, options.dim, key)
    way = input_pipeline.streamed if features == "streamed" else input_pipeline.resident
    feed = way(model, config, packed.timeline, dataset.train, lengths=packed.lengths, key=key)
    times = []
    with feed as advance:
        for step in range(0, config.train.steps, options.search_every):
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(advance(state, step, 1))
            times.append(time.perf_counter() - begin)
    return float(np.median(times[1:]))  # the first one is compiled


class Inline:
    """In place of a thread: work is done, and timed, when its result is asked for."""

    def __init__(self, seconds: list[float]):
        self.seconds = seconds

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, work, *arguments):
        def result():
            begin = time.perf_counter()
            done = jax.block_until_ready(work(*arguments))
            self.seconds.append(time.perf_counter() - begin)
            return done

        return mock.Mock(result=result)


def made_up(options, folder: Path) -> Dataset:
    """Noise of the wanted size in files, with evenly spread points."""
    rng = np.random.default_rng(0)
    recordings = []
    for number in range(options.recordings):
        path = folder / f"noise_{number}.npy"
        np.save(path, rng.normal(size=(options.snippets, options.dim)).astype(np.float32))
        times_s = GRID.to_seconds(np.linspace(0, options.snippets, 17)[1:-1])
        labels = [(number + i % 2) % CLASSES for i in range(len(times_s))]
        points = tuple(Point(float(t), label) for t, label in zip(times_s, labels, strict=True))
        duration_s = float(GRID.to_seconds(options.snippets))
        recordings.append(Recording(path.stem, open_features([path]), GRID, duration_s, points))
    classes = tuple(map(str, range(CLASSES)))
    return Dataset(classes, tuple(recordings), (), {"version": "", "database": {}})


def machine() -> str:
    """What the figures were measured on."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{platform.machine()}, {', '.join(kinds)}, jax {jax.__version__}"


if __name__ == "__main__":
    main()
