"""`python -m tal_jax.studio.job KIND PROJECT`: extracts features or trains, in its own process.

It prints its progress, a JSON object a line, for `tal_jax.studio.runner`, and ends when its input
ends, that is with the server. What was stopped continues with the next job of its kind.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tal_jax._errors import InputError, one_line
from tal_jax.data import files, locks
from tal_jax.data.annotations import (
    Annotations,
    RecordingAnnotation,
    annotations_to_dict,
    classes_of,
    load_annotations,
)
from tal_jax.studio.project import (
    Project,
    Run,
    count_changes,
    has_labels,
    label_counts,
    now,
)
from tal_jax.studio.review import detections_of_run, labels_of_run, new_point_criterion

EXTRACT, TRAIN = "extract", "train"
_TERMINATED = 128 + signal.SIGTERM  # the exit code, as shells have it
_PATIENCE_S = 5.0
_CONFIG = "auto"


def main(arguments: Sequence[str]) -> int:
    """Runs a job; returns the exit code: 0, or 2 after a line on what is wrong."""
    kind, folder = arguments
    threading.Thread(target=_end_with_server, daemon=True).start()
    project = Project(folder)
    try:
        with _one_job(project):
            if kind == EXTRACT:
                # So that its processes end first. Training needs no such care, and may not come to
                # it for minutes, while a program is compiled.
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
                extract(project)
            else:
                train(project)
    except (InputError, OSError) as error:
        _send(error=one_line(error))
        return 2
    return 0


# --- features ---


def extract(project: Project) -> None:
    """Extracts the features that are missing."""
    from tal_jax import extraction

    content = project.file
    names = {
        path: source.name
        for source in project.sources()
        if (path := project.file_to_extract(source)) is not None
    }
    if not names:
        raise InputError(f"the backbone {content.backbone} reads none of the recordings")
    backbone = extraction.open_backbone(content.backbone, **content.options)
    parts: dict[str, float] = {}
    _send(progress={"phase": "features", "total": len(names)})
    began = time.monotonic()

    def progress(name: str, done: int, total: int) -> None:
        if name not in parts:
            _send(recording=name, state="running")
        parts[name] = done / max(total, 1)
        finished = sum(parts.values())
        rate = finished / max(time.monotonic() - began, 1e-9)
        left_s = (len(names) - finished) / rate if rate else None
        _send(progress={"done": finished, "rate": rate, "left_s": left_s})

    def report(line: str) -> None:
        name = line.partition(": ")[0]
        if name in names.values():
            parts[name] = 1.0
            _send(recording=name, state="ready")
        _send(progress={"line": line, "done": sum(parts.values())})

    found = extraction.extract_folder(
        list(names), project.features, backbone, progress=progress, report=report
    )
    reasons = [reason for _, reason in found.failed]
    for path, reason in found.failed:
        if (name := names.get(Path(path))) is not None:
            _send(recording=name, state="failed", note=reason)
    if reasons:
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        raise InputError(f"{reasons[0]}{more}")


# --- training ---


def train(project: Project) -> None:
    """Continues the run that was stopped, if there is one; then trains on labels that are newer.

    A retraining that was stopped is left for another one where labels changed since, which takes
    no longer than the rest of it.
    """
    # Before the labels are read: a class that is renamed meanwhile has its new name in them.
    stopped, run = project.unfinished(), project.next_run()
    labels = training_labels(project)
    newer = stopped is None or _are_newer(project, labels)
    if stopped is not None and newer and project.finished():
        stopped.card.failed = "left, since labels changed while it was stopped"
        stopped.write()
    elif stopped is not None:
        _finish(project, stopped)
    if newer:
        _begin(project, run, labels)
        _finish(project, run)


def _are_newer(project: Project, labels: Annotations) -> bool:
    before = project.trained_on
    assert before is not None
    return before.classes != labels.classes or count_changes(before, labels) > 0


def training_labels(project: Project) -> Annotations:
    """The labels of recordings with features; nothing is labelled in those without labels.

    Raises:
      InputError: if there are no features.
    """
    manifest, labels = project.manifest, load_annotations(project.annotations)
    known = {} if manifest is None else manifest.recordings
    recordings = {
        name: one for name, one in labels.recordings.items() if project.has_features(name)
    }
    if not any(map(has_labels, recordings.values())):
        raise InputError("no features of a recording with labels; extract them first")
    for name, entry in known.items():
        if name not in recordings and project.has_features(name):
            # Only predicted: there is nothing to learn from in it.
            recordings[name] = RecordingAnnotation("train", entry.duration_s, done_s=())
    used = set(classes_of(recordings))
    classes = tuple(label for label in labels.classes if label in used)
    pairs = tuple(pair for pair in labels.overlapping if used.issuperset(pair))
    return dataclasses.replace(labels, recordings=recordings, classes=classes, overlapping=pairs)


def _begin(project: Project, run: Run, labels: Annotations) -> None:
    """Writes the labels of a new run, then its card, which makes it one."""
    card, before = run.card, project.finished()
    card.labels = label_counts(labels)
    if before:
        card.criterion, card.new_points = new_point_criterion(
            labels_of_run(before[-1]), labels, detections_of_run(before[-1])
        )
    files.write_json(project.labels_of_training, annotations_to_dict(labels))
    run.write()


def _finish(project: Project, run: Run) -> None:
    """Trains a run, or what is left of it; a run that cannot be trained is not tried again."""
    try:
        _fit(project, run)
    except OSError:
        raise  # such as of a full disk: it may go on later
    except Exception as error:
        run.card.failed = one_line(error)
        run.write()
        raise
    _send(run=run.number)
    _remove_checkpoints(project)


def _fit(project: Project, run: Run) -> None:
    import ml_collections

    from tal_jax.config import Config, load_config, override
    from tal_jax.datasets.load import load_dataset
    from tal_jax.runs import fit, warm_start, workdir

    (source, renamed), path = _source(project, run), run.path
    config: Config
    if workdir.begun_settings(path):
        config = ml_collections.ConfigDict(workdir.read(path)[0].to_dict())
    elif source is not None:
        config = warm_start.retraining_config(source)
    else:
        config = load_config(_CONFIG)
        config.data.supervision = "mixed"
        for key, value in project.file.training.items():
            override(config, f"{key}={value}")
    _send(progress={"phase": "reads features", "total": 0, "done": 0})
    dataset = load_dataset(config, project.features)
    log = _Log(path)
    fitted = fit.fit(
        dataset, config, workdir=path, start_from=source, renamed=renamed, report=log.report
    )
    _send(progress={"phase": "predicts all recordings"})
    warm_start.predict_all(path, fitted, dataset)
    run.card.warnings = warm_start.warnings_of(path, dataset)
    run.card.threshold = workdir.threshold_of_run(path)
    run.card.classes = list(dataset.classes)
    run.card.finished_at = now()
    run.write()


def _remove_checkpoints(project: Project) -> None:
    """Removes what only resuming reads from the runs before the last two that ended well.

    Their parameters stay, so that each can still predict.
    """
    from tal_jax.runs import warm_start

    kept = [run.number for run in project.finished()[-2:]]
    for run in project.runs():
        if kept and run.number < kept[0]:
            for checkpoints in run.path.glob("*/checkpoints"):
                shutil.rmtree(checkpoints, ignore_errors=True)
            for arrays in (run.path / warm_start.START_FOLDER).glob("*.npz"):
                with contextlib.suppress(OSError):
                    arrays.unlink()


def _source(project: Project, run: Run) -> tuple[Path | None, dict[str, str]]:
    """The run to begin from, and which of its classes were renamed before the start of this one.

    Where this one has begun, the one that it began from, which is not read again.
    """
    from tal_jax.runs import warm_start

    began = run.path / warm_start.START_FOLDER / "start.json"
    if began.exists():
        return Path(files.read_json(began)["from"]), {}
    before = [one for one in project.finished() if one.number < run.number]
    return (before[-1].path, project.names_since(before[-1], run)) if before else (None, {})


class _Log:
    """Reports the progress of a training by its log."""

    def __init__(self, workdir: Path):
        self._workdir, self._offset = workdir, 0
        self._every: list[tuple[int, int]] = []

    def report(self, line: str) -> None:
        """Takes a line of the training."""
        progress: dict[str, Any] = {"line": line.splitlines()[0] if line else ""}
        total, before = self._sizes()
        found = self._new_lines()
        losses = []
        for one in found:
            stage = one.get("stage", "")
            at = before.get(stage or one["round"], 0) + one["step"]
            losses.append([at, one["loss"]])
            rate = one.get("steps_per_s")
            progress |= {
                "phase": stage
                or f"round {one['round'] + 1} of {len(before) - ('detector' in before)}",
                "done": at,
                "loss": one["loss"],
                "rate": rate,
                "left_s": (total - at) / rate if rate else None,
            }
        _send(progress={**progress, "total": total, "losses": losses})

    def _sizes(self) -> tuple[int, Mapping[Any, int]]:
        """The updates of all rounds and stages, and how many come before each."""
        path = self._workdir / "config.json"
        if not path.exists():
            return 0, {}
        config = files.read_json(path)
        steps = config["train"]["steps"]
        before: dict[Any, int] = {n: n * steps for n in range(config["train"]["rounds"])}
        total = config["train"]["rounds"] * steps
        if "detector" in config["stages"]:
            before["detector"] = total
            total += config["detector"]["steps"] or 0
        return total, before

    def _new_lines(self) -> list[dict[str, Any]]:
        """What was logged since; a log that was rewound is read anew."""
        path = self._workdir / "metrics.jsonl"
        if not path.exists():
            return []
        with open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) < self._offset:
                self._offset = 0
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                one = json.loads(line)
            except ValueError:
                continue  # being written when the run was stopped
            if "loss" in one and "step" in one:
                found.append(one)
        return found


# --- the process ---


@contextlib.contextmanager
def _one_job(project: Project) -> Iterator[None]:
    """Waits for the end of the job of a server that was killed, which takes seconds."""
    until = time.monotonic() + 3 * _PATIENCE_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                lock = locks.one_writer_of_file(project.folder / "job", "a job of the studio")
                stack.enter_context(lock)
                break
            except InputError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield


def _send(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def _end_with_server() -> NoReturn:
    """Waits for the end of the input, then ends this process and those that it started."""
    while sys.stdin.buffer.read(1 << 10):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(_TERMINATED)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        code = 1
    # Not by the end of the interpreter, which would wait for compilations.
    sys.stdout.flush()
    os._exit(code)
