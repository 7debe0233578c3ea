"""Predictions of many recordings into a folder, in this process or by workers of a Ray cluster."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError, one_line
from tal_jax.data.addresses import Source
from tal_jax.data.ray_pool import Death, RayPool, RayWorkers
from tal_jax.extraction.backbones import is_network
from tal_jax.inference import export
from tal_jax.inference.predict_file import Network, Prediction, select_in_prediction
from tal_jax.inference.predict_files import Progress, predict_files
from tal_jax.report.prediction import write_prediction
from tal_jax.runs import workdir as work

_CPUS = 2.0  # of a worker without a GPU, unless a network computes the features


@dataclasses.dataclass(frozen=True)
class Task:
    """What to predict with, and where to."""

    workdir: Path  # of a run or an export
    digest: str  # of its network
    folder: Path  # for the files of all recordings
    options: Mapping[str, Any]  # of the backbone
    steps: Mapping[str, Any]  # from detections to events; none for detections
    overwrite: bool = False

    @property
    def made_from(self) -> dict[str, Any]:
        """What another prediction of a recording would be made from, were it another one."""
        return {"network": self.digest, "options": self.options, "steps": self.steps}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was written of one recording."""

    duration_s: float
    count: int  # of detections or events
    notes: tuple[str, ...]


def open_network(workdir: Path) -> Network:
    """Opens the network of a run or an export."""
    return export.open_export(workdir) if export.is_export(workdir) else work.open_run(workdir)


def predict_folder(
    paths: Sequence[Source],
    network: Network,
    task: Task,
    *,
    ray: RayWorkers | None = None,
    progress: Progress = lambda path, done, total: None,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Source, Outcome | str]]:
    """Predicts recordings, and writes the files of each into the folder of the task.

    Args:
      paths: as in `predict_files`.
      network: that of the task.
      task: with a folder that is locked.
      ray: workers of a Ray cluster, which open the network for themselves; one that dies is
        replaced, and its recording is predicted again.
      progress: as in `predict_files`; not called by workers of Ray.
      report: called with lines on these workers.

    Yields:
      Each path, in no certain order, and the outcome, or what is wrong with the recording.

    Raises:
      OSError: if a file cannot be written.
    """
    if ray is None:
        for path, result in predict_files(paths, network, options=task.options, progress=progress):
            yield path, _write(path, result, task)
        return
    start = functools.partial(_open, dataclasses.replace(task, folder=task.folder.absolute()))
    # The network is small; one that computes the features may need a machine of its own.
    heavy = network.manifest is not None and is_network(network.manifest.backbone)
    with RayPool(
        start, ray, task.folder, cpus=None if heavy else _CPUS, gpu=True, report=report
    ) as pool:
        for path in paths:
            pool.put(path, predict_one, path)
        for key, result in pool.results():
            yield key, f"{key}: {result.reason}" if isinstance(result, Death) else result


def predict_one(
    state: tuple[Network, Task], progress: Callable[[int, int], None], path: Source
) -> Outcome | str:
    """Predicts one recording, and writes its files; returns the outcome, or what is wrong."""
    network, task = state
    [(_, result)] = predict_files(
        [path], network, options=task.options, progress=lambda _, *counts: progress(*counts)
    )
    return _write(path, result, task)


def _write(path: Source, result: Prediction | InputError | OSError, task: Task) -> Outcome | str:
    if isinstance(result, Exception):
        reason = one_line(result)
        return reason if str(path) in reason else f"{path}: {reason}"
    if task.steps:
        result, _ = select_in_prediction(result, task.steps)
    write_prediction(result, folder=task.folder, made_from=task.made_from, overwrite=task.overwrite)
    return Outcome(result.duration_s, len(result.detections), result.notes)


def _open(task: Task) -> tuple[Network, Task]:
    """The network in a worker."""
    network = open_network(task.workdir)
    if network.digest != task.digest:
        raise InputError(
            f"{task.workdir}: another network in a worker of Ray; expected the same folder on all "
            "machines"
        )
    return network, task
