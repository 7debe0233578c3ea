"""A problem that is easy to solve: two kinds of bumps in noise, as a folder of files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import ml_collections
import numpy as np

from tal_jax.config import folder_config, rsmp_config
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Dataset
from tal_jax.datasets.load import load_dataset
from tal_jax.datasets.own_layout import write_folder

DIM = 8
CLASSES = ("bump", "dip")
GRID = Grid(fps=10, stride_frames=5, window_frames=15)


def write(folder: Path, *, seed: int = 0, num_train: int = 6, num_test: int = 3) -> Path:
    """Writes the recordings: `train_0` …, `test_0` …, each of 195 to 235 snippets."""
    rng = np.random.default_rng(seed)
    features, recordings = {}, {}
    for subset, count in (("train", num_train), ("test", num_test)):
        for number in range(count):
            name = f"{subset}_{number}"
            features[name], recordings[name] = _recording(rng, subset)
    write_folder(folder, features, grid=GRID, annotations=Annotations(CLASSES, recordings))
    return folder


def config(folder: Path | str = "") -> ml_collections.ConfigDict:
    """A run of seconds, but for compilation, which all tests share."""
    config = rsmp_config()
    config.data = folder_config(folder=str(folder))
    config.sampling.tau_s = 10.0
    config.sampling.keep_original = True
    config.model.widths = (16,)
    config.model.dropout = 0.2
    config.model.num_prototypes = 4
    config.loss.topk_ratio = 8
    config.train.rounds = 2
    config.train.steps = 60
    config.train.batch_size = 4
    config.train.learning_rate = 1e-2
    config.train.l2 = 1e-4
    config.train.search_every = 5
    # Lengthened timelines fit, too: those that are cut into windows are tested where that is said.
    config.train.length = 448
    config.train.log_every = 5
    config.train.checkpoint_every = 15
    return config


def dataset(folder: Path) -> Dataset:
    """The data set in a folder that `write` wrote."""
    return load_dataset(config(folder))


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Yields a list that the name of every function that is compiled meanwhile is added to."""
    names = []

    def listen(event: str, duration_s: float, **details) -> None:
        del duration_s
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _recording(rng: np.random.Generator, subset: str) -> tuple[np.ndarray, RecordingAnnotation]:
    length = int(rng.integers(195, 235))
    features = rng.normal(0, 0.3, (length, DIM)).astype(np.float32)
    instances, at = [], int(rng.integers(3, 12))
    while at + 20 < length:
        label, end = int(rng.integers(2)), at + int(rng.integers(4, 16))
        features[at:end, 4 * label : 4 * label + 4] += 1
        instances.append(Instance(CLASSES[label], GRID.to_seconds(at), GRID.to_seconds(end)))
        at = end + int(rng.integers(5, 20))
    return features, RecordingAnnotation(subset, GRID.to_seconds(length), tuple(instances))
