r"""How time and memory grow with the number of recordings, part by part.

    python experiments/benchmarks/scale.py --json scale.json
    python experiments/benchmarks/scale.py --recordings 1000 --parts open,evaluation

Made-up recordings of ActivityNet's lengths, features of a few numbers, and 200 detections each. A
part has a process of its own, which reads what the parts before it wrote, so that its peak memory
is its own. Compilation is counted apart. The table has the seconds of CPU time and the
peak memory of each part at each size, and the exponents of their growth from the smallest to the
largest: 1 is linear, 0 does not grow.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tal_jax.config import check_config, folder_config, rsmp_config
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation, annotations_to_dict
from tal_jax.data.clock import Grid
from tal_jax.data.detection_columns import Columns, read_detections, write_detections
from tal_jax.data.detections import read_results, write_results
from tal_jax.data.fingerprint import fingerprint
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.data.recordings import Dataset
from tal_jax.data.shards import open_shards, shard_path, split_names, write_shard
from tal_jax.datasets.load import load_dataset
from tal_jax.datasets.own_layout import ANNOTATION_FILE, GRID_FILE
from tal_jax.evaluation.detection import evaluate_detections
from tal_jax.inference import localize
from tal_jax.inference.forward import Fitted
from tal_jax.inference.predict import propose
from tal_jax.training import input_pipeline, update
from tal_jax.training.prepare import prepare_round

GRID = Grid(fps=25, stride_frames=16, window_frames=16)
TIOUS = np.linspace(0.5, 0.95, 10)
TEST_SHARE = 0.33  # of ActivityNet's 14,950 recordings with labels, 4,926 are for validation
GROUP = 1000  # recordings whose predictions are in memory at once


def main() -> None:
    """Parses the sizes, runs every part at each, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", default="1000,10000,100000", help="%(default)s")
    parser.add_argument("--parts", default=",".join(PARTS), help="%(default)s")
    for name, default in (("dim", 16), ("width", 16), ("classes", 200), ("detections", 200)):
        parser.add_argument(f"--{name}", type=int, default=default, help="%(default)s")
    parser.add_argument("--shards", type=int, default=64, help="%(default)s")
    parser.add_argument("--folder", help="to keep the recordings in; default: a temporary one")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    sizes = [int(size) for size in options.recordings.split(",")]
    figures: dict[str, dict[int, dict[str, float]]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for part in ["write", *options.parts.split(",")]:
                found = in_a_process(part, size, options, Path(folder))
                figures.setdefault(part, {})[size] = found
                print(f"{size:8d}  {part:14s} " + as_line(found), flush=True)
    print(as_table(figures))
    if options.json:
        content = {"figures": figures, "exponents": exponents(figures)}
        content |= {"sizes": vars(options), "machine": machine()}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)


# --- measuring ---


def in_a_process(part: str, size: int, options, folder: Path) -> dict[str, float]:
    """Runs a part in a new process; its seconds and its peak memory."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, part, size, options, folder))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _measured(sender, part: str, size: int, options, folder: Path) -> None:
    sender.send(measure(part, size, options, folder))
    sender.close()


def measure(part: str, size: int, options, folder: Path) -> dict[str, float]:
    """Runs a part here: seconds of CPU and of the clock, GB at the peak, and own figures."""
    compiling: list[float] = []

    def listen(event: str, duration_s: float, **details) -> None:
        del details
        if event == "/jax/core/compile/backend_compile_duration":
            compiling.append(duration_s)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        work = PARTS[part](size, options, folder) if part in PARTS else write(size, options, folder)
        before_gb = peak_gb()
        begin, cpu = time.perf_counter(), time.process_time()
        own = work() or {}
        seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - begin}
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    memory = {"peak_gb": peak_gb(), "before_gb": before_gb}
    return seconds | memory | {"compiling_s": sum(compiling)} | own


def peak_gb() -> float:
    """The most memory that this process had resident, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


# --- parts: each prepares, and returns the function that is measured ---

Part = Callable[[int, Any, Path], Callable[[], dict | None]]


def write(size: int, options, folder: Path) -> Callable[[], dict]:
    """Writes the recordings into shards, a shard in memory at a time."""

    def work():
        lengths = dict(zip(names_of(size), lengths_of(size).tolist(), strict=True))
        noise = np.random.default_rng(0).standard_normal((1024, options.dim), np.float32)
        for number, names in enumerate(split_names(lengths, options.shards)):
            features = {name: noise[: lengths[name]] for name in names}
            write_shard(shard_path(folder, number, options.shards), features)
        files.write_json(folder / GRID_FILE, GRID.to_dict())
        content = annotations_to_dict(annotations_of(lengths, options))
        files.write_json(folder / ANNOTATION_FILE, content)
        return {"features_gb": sum(one.stat().st_size for one in folder.glob("*.arrow")) / 1e9}

    return work


def open_features(size: int, options, folder: Path) -> Callable[[], None]:
    """Opens the features: the indices of the shards."""
    return lambda: use(open_shards(folder), size)


def load_folder(size: int, options, folder: Path) -> Callable[[], None]:
    """Loads the data set: features, annotations, and the checks of all; no features are read."""
    return lambda: use(load(options, folder), size)


def fingerprints(size: int, options, folder: Path) -> Callable[[], None]:
    """Hashes the data set."""
    dataset = load(options, folder)
    return lambda: use(fingerprint(dataset), size)


def prepare(size: int, options, folder: Path) -> Callable[[], None]:
    """The timeline of the first round."""
    dataset = load(options, folder)
    return lambda: use(prepare_round(dataset, config_of(options, folder), None), size)


def block(size: int, options, folder: Path) -> Callable[[], dict]:
    """One block of updates with features in files; its first call compiles."""
    dataset, config = load(options, folder), config_of(options, folder)
    prepared = prepare_round(dataset, config, None)
    fitted, key = untrained(dataset, config), jax.random.key(0)
    state = update.init_state(fitted.model, config, fitted.dim, key)
    pipeline = input_pipeline.open_pipeline(
        fitted.model, config, prepared.timeline, dataset.train, prepared.lengths, key
    )

    def work():
        with pipeline as advance:
            begin = time.perf_counter()
            first = jax.block_until_ready(advance(state, 0, 1))[0]
            compiled = time.perf_counter()
            jax.block_until_ready(advance(first, config.train.search_every, 1))
        return {"first_s": compiled - begin, "block_s": time.perf_counter() - compiled}

    return work


def proposals(size: int, options, folder: Path) -> Callable[[], dict]:
    """Proposals on the training recordings, written and read as between two rounds."""
    dataset, config = load(options, folder), config_of(options, folder)
    prepared, fitted = prepare_round(dataset, config, None), untrained(dataset, config)

    def work():
        rows = range(len(dataset.train))
        lengths = prepared.lengths
        found = propose(fitted, 0, dataset.train, rows, prepared.timeline, lengths)
        begin = time.perf_counter()
        write_results(folder / "proposals.json", found)
        kept = read_results(folder / "proposals.json")
        return {"segments": sum(map(len, kept.values())), "file_s": time.perf_counter() - begin}

    return work


def localization(size: int, options, folder: Path) -> Callable[[], dict]:
    """Localizes in made-up score sequences, and writes the detections as columns."""
    options_of = config_of(options, folder).localization
    classes = classes_of(options)

    def work():
        count = 0

        def found():
            nonlocal count
            for group in predictions_of(size, options):
                results = localize.localize_predictions(group, options_of, classes)
                count += sum(map(len, results.values()))
                yield from results.items()

        write_detections(folder / "localized.arrow", found(), classes)
        return {"segments": count}

    return work


def evaluation(size: int, options, folder: Path) -> Callable[[], dict]:
    """Evaluates detections from a file of columns, all recordings being test recordings."""
    truth = {"database": {}}
    rng, classes = np.random.default_rng(1), classes_of(options)
    for name, length in zip(names_of(size), lengths_of(size).tolist(), strict=True):
        start_s = rng.uniform(0, 0.5) * length * GRID.stride_s
        segment = [start_s, start_s + 0.3 * length * GRID.stride_s]
        label = classes[len(truth["database"]) % len(classes)]
        truth["database"][name] = {"annotations": [{"label": label, "segment": segment}]}
    path = folder / "made_up.arrow"
    write_detections(path, made_up_detections(truth["database"], options), classes)

    def work():
        metrics = evaluate_detections(truth, read_detections(path), tious=TIOUS)
        return {"detections": metrics.num_detections, "map": metrics.average_map}

    return work


PARTS: dict[str, Part] = {
    "open": open_features,
    "load": load_folder,
    "fingerprint": fingerprints,
    "prepare": prepare,
    "block": block,
    "proposals": proposals,
    "localization": localization,
    "evaluation": evaluation,
}


# --- what is made up ---


def names_of(size: int) -> list[str]:
    """Names like those of ActivityNet."""
    return [f"v_{number:011d}" for number in range(size)]


def lengths_of(size: int) -> np.ndarray:
    """Snippets: ActivityNet's recordings last 117 s on average, and 240 s at most but for a few."""
    rng = np.random.default_rng(2)
    seconds = 240 * rng.beta(1.6, 1.7, size) + 2
    return np.array([GRID.num_snippets(one) for one in seconds.tolist()])


def classes_of(options) -> tuple[str, ...]:
    """Names of the classes."""
    return tuple(f"class {number:03d}" for number in range(options.classes))


def annotations_of(lengths: dict[str, int], options) -> Annotations:
    """One or two instances of one class, as in most of ActivityNet's recordings."""
    recordings, classes, test = {}, classes_of(options), int(1 / TEST_SHARE)
    for number, (name, length) in enumerate(lengths.items()):
        duration_s, label = GRID.to_seconds(length), classes[number % options.classes]
        edges = [0.1, 0.4, 0.6, 0.9][: 2 + 2 * (number % 2)]
        times_s = [share * duration_s for share in edges]
        instances = [
            Instance(label, start_s, end_s, (start_s + end_s) / 2)
            for start_s, end_s in zip(times_s[::2], times_s[1::2], strict=True)
        ]
        subset = "train" if number % test else "test"
        recordings[name] = RecordingAnnotation(subset, duration_s, tuple(instances))
    return Annotations(classes, recordings)


def config_of(options, folder: Path):
    """A config with features in files and a small network."""
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), points="file")
    config.model.widths, config.train.features = (options.width,), "streamed"
    config.train.update(steps=10, search_every=5, batch_size=8, length=400, rounds=1)
    config.train.log_every = config.train.checkpoint_every = 5
    return check_config(config)


def load(options, folder: Path) -> Dataset:
    """The data set in the folder."""
    return load_dataset(config_of(options, folder))


def untrained(dataset: Dataset, config) -> Fitted:
    """A network as it is before training."""
    dim = dataset.train[0].features.shape[1]
    fitted = Fitted((), config, dataset.classes, dim)
    return fitted.with_round(update.init_state(fitted.model, config, dim, jax.random.key(0)).params)


def predictions_of(size: int, options) -> Iterator[dict[str, RecordingPredictions]]:
    """Score sequences of a few classes that are present, some recordings at a time."""
    rng = np.random.default_rng(3)
    held: dict[str, RecordingPredictions] = {}
    for name, length in zip(names_of(size), lengths_of(size).tolist(), strict=True):
        cas = np.zeros((length, options.classes), np.float32)
        present = rng.choice(options.classes, 2, replace=False)
        smooth = np.cumsum(rng.standard_normal((length, 2)), axis=0, dtype=np.float32)
        cas[:, present] = 1 / (1 + np.exp(-smooth))
        video = np.zeros(options.classes, np.float32)
        video[present] = (0.9, 0.4)
        cumulative = np.arange(length + 1, dtype=np.float32)
        one = Predictions(cas, cas.max(axis=1), video, cumulative=cumulative)
        held[name] = RecordingPredictions(GRID, GRID.to_seconds(length), one, one)
        if len(held) == GROUP:
            yield held
            held = {}
    if held:
        yield held


def made_up_detections(database: dict[str, Any], options) -> Iterator[Columns]:
    """Detections of some recordings at a time: a quarter near an instance, the others anywhere."""
    rng, names, classes = np.random.default_rng(4), list(database), classes_of(options)
    each, index = options.detections, {label: number for number, label in enumerate(classes)}
    for first in range(0, len(names), GROUP):
        group = names[first : first + GROUP]
        truth = [database[name]["annotations"][0] for name in group]
        own = np.repeat([index[one["label"]] for one in truth], each)
        segments = np.repeat([one["segment"] for one in truth], each, axis=0)
        size, near = len(own), rng.random(len(own)) < 0.25
        length = np.diff(segments, axis=1)[:, 0]
        noise = rng.normal(0, np.where(near, 0.1, 1.0), (2, size)) * length
        segments = np.sort(segments + noise.T, axis=1)
        labels = np.where(near, own, rng.integers(0, len(classes), size))
        scores = rng.random(size) + 0.5 * near
        yield Columns(group, np.full(len(group), each), classes, labels, scores, segments)


# --- reporting ---


def use(value: Any, size: int) -> None:
    """Keeps a result until its part is measured."""
    assert value is not None and size


def exponents(figures: dict[str, dict[int, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Growth of each figure from the smallest to the largest size: log ratio over log ratio."""
    found: dict[str, dict[str, float]] = {}
    for part, of_sizes in figures.items():
        low, high = min(of_sizes), max(of_sizes)
        if low < high:
            ratio = math.log(high / low)
            found[part] = {
                name: math.log(of_sizes[high][name] / max(of_sizes[low][name], 1e-9)) / ratio
                for name in ("cpu_s", "peak_gb")
            }
    return found


def as_line(found: dict[str, float]) -> str:
    """The figures of a part."""
    return "  ".join(f"{name} {value:.4g}" for name, value in found.items())


def as_table(figures: dict[str, dict[int, dict[str, float]]]) -> str:
    """CPU seconds and peak GB of each part at each size, and how they grow, as Markdown."""
    sizes = sorted({size for of_sizes in figures.values() for size in of_sizes})
    heads = [f"{size:,} recordings" for size in sizes]
    lines = [f"| part | {' | '.join(heads)} | time grows as | memory grows as |"]
    lines.append("|---" * (len(sizes) + 3) + "|")
    growth = exponents(figures)
    for part, of_sizes in figures.items():
        cells = [
            f"{of_sizes[size]['cpu_s']:.2f} s, {of_sizes[size]['peak_gb']:.2f} GB"
            if size in of_sizes
            else "-"
            for size in sizes
        ]
        powers = [f"N^{value:.2f}" for value in growth.get(part, {}).values()] or ["-", "-"]
        lines.append(f"| {part} | {' | '.join([*cells, *powers])} |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = jax.devices()[0].device_kind
    return {"cores": os.cpu_count(), "device": device, "cpu": platform.machine()}


if __name__ == "__main__":
    main()
