r"""A whole run at the size of THUMOS14, timed part by part, on whatever device is here.

    python experiments/benchmarks/thumos_size.py --json thumos_size.json            # a GPU
    python experiments/benchmarks/thumos_size.py --recordings 8 --test 8 --rounds 2 --steps 20 \
        --dim 64 --width 32 --precision float32                                     # a laptop

Four rounds of 2,000 updates with all searches, proposals of every round and the evaluation of every
round, on made-up recordings of THUMOS14's number and lengths: the time is that of real ones, the
mAP means nothing. Compilation counts apart. `--profile DIR` traces the last round and lists what
the device spent its time on.
"""

import argparse
import collections
import contextlib
import functools
import glob
import json
import platform
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from tal_jax.config import load_config
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Dataset, Point, Recording
from tal_jax.evaluation import detection
from tal_jax.runs import fit as runs_fit
from tal_jax.training import checkpoints, loop

GRID = Grid(fps=25, stride_frames=16, window_frames=16)


def main() -> None:
    """Makes the recordings up, runs everything, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = dict(recordings=200, test=210, rounds=4, steps=2000, dim=2048, width=2048, classes=20)
    for name, default in (sizes | dict(length=750, batch=16)).items():
        parser.add_argument(f"--{name}", type=int, default=default, help="%(default)s")
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device in this precision")
    parser.add_argument("--profile", metavar="DIR", help="where to trace the last round to")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    dataset = made_up(options)
    with tempfile.TemporaryDirectory() as folder:
        figures = timed_run(dataset, options, Path(folder) / "run")
    for name, value in figures.items():
        print(f"{name:40s} {value if isinstance(value, str) else f'{value:12,.3f}'}")
    if options.profile:
        for name, seconds in kernels(options.profile):
            print(f"{1000 * seconds:12.2f} ms  {name}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"sizes": vars(options), "figures": figures}, file, indent=1)


def timed_run(dataset: Dataset, options, workdir: Path) -> dict:
    """Seconds of the whole run and of its parts, and how busy the matrix units were."""
    config = load_config("thumos14_rsmp")
    config.model.widths, config.model.precision = (options.width,), options.precision
    config.train.update(
        rounds=options.rounds,
        steps=options.steps,
        batch_size=options.batch,
        length=options.length,
        log_every=min(config.train.log_every, options.steps),
        checkpoint_every=options.steps,
    )
    seconds = collections.Counter()
    with contextlib.ExitStack() as stack:
        compiling = stack.enter_context(compile_seconds())
        for module, name, title in (
            (runs_fit, "prepare_round", "features to the device, timelines"),
            (loop, "train_round", "training"),
            (runs_fit, "_propose", "proposals on the training recordings"),
            (runs_fit, "predict_round", "detections in the test recordings"),
            (detection, "evaluate_detections", "evaluation"),
            (checkpoints.Checkpoints, "save", "checkpoints (within training)"),
        ):
            last = options.profile if name == "train_round" else None
            watch = stopwatch(module, name, seconds, title, compiling, last, options.rounds - 1)
            stack.enter_context(watch)
        begin = time.perf_counter()
        runs_fit.fit(dataset, config, workdir=workdir, report=print)
        seconds["all"] = time.perf_counter() - begin
    seconds["all, compilation"] = sum(compiling)
    updates = options.rounds * options.steps
    training = seconds["training"] - seconds["checkpoints (within training)"]
    training -= seconds["training, compilation"]
    products = updates * product_flops(options, config.train.search_every)
    figures = dict(seconds) | {
        "ms an update, searches included": 1000 * training / updates,
        "TFLOP/s of the embedding's products": products / training / 1e12,
        "device": f"{machine()}, {options.precision}",
    }
    if options.peak:
        figures["share of peak in %"] = products / training / 1e10 / options.peak
    return figures


def product_flops(options, search_every: int) -> float:
    """FLOPs of the embedding's products in an update and its share of a search."""
    forward = 2 * options.batch * options.length * 3 * options.dim * options.width
    rows = options.recordings
    visited = rows * (1 - (1 - min(options.batch / rows, 1)) ** search_every)
    # Forward and the weights' gradient; a search reads each visited recording once.
    return 2 * forward + forward * visited / options.batch / search_every


@contextlib.contextmanager
def stopwatch(owner, name, seconds, title, compiling, trace=None, traced=None):
    """Adds the time that calls of a function take, and how much of it compiles; traces a round."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def timed(*args, **kwargs):
        begin, known = time.perf_counter(), len(compiling)
        traces = trace is not None and kwargs["number"] == traced
        with jax.profiler.trace(trace) if traces else contextlib.nullcontext():
            result = function(*args, **kwargs)
            jax.block_until_ready(jax.tree.leaves(result))
        seconds[title] += time.perf_counter() - begin
        seconds[f"{title}, compilation"] += sum(compiling[known:])
        return result

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, function)


@contextlib.contextmanager
def compile_seconds():
    """Yields a list that the time of each compilation is added to."""
    durations = []

    def listen(event: str, duration_s: float, **details) -> None:
        del details
        if event == "/jax/core/compile/backend_compile_duration":
            durations.append(duration_s)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield durations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def kernels(folder: str, most: int = 25) -> list[tuple[str, float]]:
    """What the traced device spent most of its time on, with seconds."""
    totals = collections.Counter()
    for path in glob.glob(f"{folder}/**/*.xplane.pb", recursive=True):
        for plane in jax.profiler.ProfileData.from_file(path).planes:
            if "GPU" in plane.name or "TPU" in plane.name or plane.name == "/host:CPU":
                for line in plane.lines:
                    for event in line.events:
                        totals[event.name[:90]] += event.duration_ns / 1e9
    return totals.most_common(most)


def made_up(options) -> Dataset:
    """Recordings with THUMOS14's numbers and lengths: noise, with a pattern where an action is."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(options.classes, options.dim)).astype(np.float32)
    train, test, database = [], [], {}
    for number in range(options.recordings + options.test):
        # THUMOS14's validation set: 200 recordings, 65,415 snippets, a few of several thousand.
        length = int(np.clip(rng.lognormal(5.35, 0.9), 24, 2800))
        label = number % options.classes
        features = rng.standard_normal((length, options.dim), np.float32)
        points, annotations, at = [], [], int(rng.integers(2, 8))
        while at + 4 < length and len(points) < 60:
            end = min(at + int(rng.integers(2, 12)), length)
            features[at:end] += patterns[label]
            start_s, end_s = (float(GRID.to_seconds(time)) for time in (at, end))
            points.append(Point(float(rng.uniform(start_s, end_s)), label))
            annotations.append({"label": f"class_{label}", "segment": [start_s, end_s]})
            at = end + int(rng.integers(4, 30))
        name, duration_s = f"made_up_{number}", float(GRID.to_seconds(length))
        if number < options.recordings:
            train.append(Recording(name, features, GRID, duration_s, tuple(points)))
        else:
            test.append(Recording(name, features, GRID, duration_s))
            database[name] = {"subset": "test", "duration": duration_s, "annotations": annotations}
    classes = tuple(f"class_{label}" for label in range(options.classes))
    return Dataset(classes, tuple(train), tuple(test), {"database": database})


def machine() -> str:
    """What the figures were measured on."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{len(jax.devices())} x {', '.join(kinds)}, {platform.machine()}, jax {jax.__version__}"


if __name__ == "__main__":
    main()
