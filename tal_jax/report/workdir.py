"""Reads what a run left in its work directory, whatever there is of it, into plain structures."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tal_jax.data.files import read_json
from tal_jax.data.predictions import read_predictions
from tal_jax.runs.workdir import has_all_rounds

ALL_ROUNDS = "all rounds"
FLAT_CURVE = 0.05  # the score curve of a class that never gets here is not worth drawing


class Span(NamedTuple):
    """A stretch of one recording: an annotated instance (score NaN), a detection or a proposal."""

    label: int  # index into the classes
    start_s: float
    end_s: float
    score: float = math.nan


class Point(NamedTuple):
    """A labelled instant of one recording."""

    label: int  # index into the classes
    time_s: float


@dataclasses.dataclass(frozen=True)
class Recording:
    """What was annotated in one recording: instances where it is for testing, else points."""

    name: str
    duration_s: float
    instances: tuple[Span, ...] = ()
    points: tuple[Point, ...] = ()


@dataclasses.dataclass(frozen=True)
class Curves:
    """The scores of one recording: `classes[i, c]` and `background[i]` are those of snippet `i`."""

    classes: np.ndarray  # [T, C]
    background: np.ndarray  # [T]
    stride_s: float


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round found, by recording, and its `evaluation.json` where there is one.

    Of several rounds the last entry are all together, which have detections and no proposals.
    """

    name: str
    detections: Mapping[str, tuple[Span, ...]]
    proposals: Mapping[str, tuple[Span, ...]] | None
    evaluation: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Work:
    """A work directory.

    Attributes:
      path: the directory.
      name: the data set's name, or the directory's where none was written down.
      classes: the class names that every `label` indexes.
      card: `run.json`; empty where missing.
      config: `config.json`; empty where missing.
      test: the test recordings, those that only have detections included.
      train: the training recordings.
      rounds: one entry a round, in order, then one for all together; a lone `detections.json`
        makes one.
      curves: the scores of the last of these, by test recording.
      metrics: the lines of `metrics.jsonl`, in order.
      notes: what could not be read and is therefore not in here.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    card: Mapping[str, Any]
    config: Mapping[str, Any]
    test: tuple[Recording, ...]
    train: tuple[Recording, ...]
    rounds: tuple[Round, ...]
    curves: Mapping[str, Curves]
    metrics: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def read_workdir(workdir: str | os.PathLike) -> Work:
    """Reads a work directory; every file in it is optional, as long as there is something to show.

    Args:
      workdir: the folder that a run wrote, or one with a `detections.json` alone.

    Returns:
      All of it, with class names turned into indices; labels that `run.json` does not know are
      appended to its classes.

    Raises:
      ValueError: if the folder is missing or holds nothing to show, or a file in it is broken.
    """
    path = Path(workdir)
    if not path.is_dir():
        raise ValueError(f"work directory {str(path)!r} does not exist")
    notes: list[str] = []
    card, config = _read_object(path / "run.json"), _read_object(path / "config.json")
    folders = _round_folders(path)
    columns = _known_classes(path, folders, card)
    index = {name: i for i, name in enumerate(columns)}
    test = _read_recordings(path / "ground_truth.json", index)
    train = _read_recordings(path / "train_points.json", index)
    rounds = tuple(_read_round(folder, name, index) for name, folder in folders.items())
    rounds = tuple(one for one in rounds if one.detections or one.proposals or one.evaluation)
    metrics = _read_metrics(path / "metrics.jsonl", notes)
    if not (test or train or rounds or metrics):
        raise ValueError(
            f"nothing to show in {str(path)!r}: expected detections.json, ground_truth.json, "
            "round_*/detections_test.json, train_points.json or metrics.jsonl"
        )
    curves = _read_curves(list(folders.values()), len(columns), notes)
    return Work(
        path=path,
        name=_data_name(card, config) or path.resolve().name,
        classes=tuple(index),  # complete now
        card=card,
        config=config,
        test=_with_unannotated(test, [one.detections for one in rounds], curves),
        train=_with_unannotated(train, proposals_of(rounds), {}),
        rounds=rounds,
        curves=curves,
        metrics=metrics,
        notes=tuple(notes),
    )


def proposals_of(rounds: Iterable[Round]) -> list[Mapping[str, tuple[Span, ...]]]:
    """The proposals of each round, in order."""
    return [one.proposals for one in rounds if one.proposals is not None]


def shown_threshold(found: Mapping[str, tuple[Span, ...]], count: int) -> float:
    """Picks the score from which on spans are shown at first.

    Args:
      found: the detections or proposals of a round, by recording.
      count: how many instances or points were annotated in those recordings.

    Returns:
      The score that leaves as many spans as were annotated; where nothing was, half of the best
      score.
    """
    scores = sorted((span.score for spans in found.values() for span in spans), reverse=True)
    if not scores:
        return 0.0
    return scores[min(count, len(scores)) - 1] if count else scores[0] / 2


def match_detections(
    instances: Iterable[Span], detections: Iterable[Span], *, tiou: float = 0.5
) -> dict[int, int]:
    """Pairs detections with the instances that they find, as the evaluation does.

    Args:
      instances: the annotated instances of one recording.
      detections: detections in the same recording.
      tiou: least temporal IoU of a pair.

    Returns:
      `{index of the instance: index of its detection}`: best score first, each detection takes the
      instance of its class with the highest IoU among those still free.

    >>> match_detections([Span(0, 1.0, 3.0)], [Span(0, 1.0, 2.5, 0.9), Span(1, 1.0, 3.0, 0.8)])
    {0: 0}
    """
    instances, detections = list(instances), list(detections)
    found: dict[int, int] = {}
    for j in sorted(range(len(detections)), key=lambda j: -detections[j].score):
        free = [
            i
            for i, one in enumerate(instances)
            if one.label == detections[j].label and i not in found
        ]
        best = max(free, key=lambda i: span_iou(instances[i], detections[j]), default=None)
        if best is not None and span_iou(instances[best], detections[j]) >= tiou:
            found[best] = j
    return found


def span_iou(a: Span, b: Span) -> float:
    """Temporal IoU of two spans, 0 where both are empty."""
    inside = max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
    union = (a.end_s - a.start_s) + (b.end_s - b.start_s) - inside
    return inside / union if union > 0 else 0.0


def _label(index: dict[str, int], name: Any) -> int:
    """The index of a class name; a new name goes behind the known ones."""
    return index.setdefault(str(name), len(index))


def _round_folders(path: Path) -> dict[str, Path]:
    """The rounds in order, and the directory itself for what they detect together.

    The directory alone where only its `detections.json` is there.
    """
    numbered = [
        (int(folder.name[6:]), folder)
        for folder in path.glob("round_*")
        if folder.is_dir() and folder.name[6:].isdecimal()
    ]
    folders = {f"round {number}": folder for number, folder in sorted(numbered)}
    finished = [one for one in folders.values() if (one / "detections_test.json").exists()]
    if not finished and (path / "detections.json").exists():
        return {"detections": path}
    return folders | {ALL_ROUNDS: path} if has_all_rounds(path) else folders


def _known_classes(
    path: Path, folders: Mapping[str, Path], card: Mapping[str, Any]
) -> tuple[str, ...]:
    """The class names in the order of the score columns: from the run card or an evaluation.

    Where neither is there, the labels of the instances or else of the detections, sorted.
    """
    evaluations = (_read_object(one / "evaluation.json") for one in (path, *folders.values()))
    for names in (_dig(card, "data", "classes"), *(one.get("classes") for one in evaluations)):
        if names:
            return tuple(map(str, names))
    index: dict[str, int] = {}
    _read_recordings(path / "ground_truth.json", index)
    if not index:
        for name, folder in folders.items():
            _read_results(_detections_path(name, folder), index)
    return tuple(sorted(index))


def _data_name(card: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    places = (("data", "name"), ("data", "dataset"), ("dataset",), ("data",))
    found = (_dig(source, *keys) for source in (card, config) for keys in places)
    return next((name for name in found if isinstance(name, str) and name), None)


def _read_recordings(path: Path, index: dict[str, int]) -> list[Recording]:
    database = _read_object(path).get("database", {})
    with _blaming(path, "an ActivityNet database"):
        return [_parse_recording(name, entry, index) for name, entry in database.items()]


def _parse_recording(name: str, entry: Mapping[str, Any], index: dict[str, int]) -> Recording:
    spans, points = [], []
    for one in [*entry.get("annotations", ()), *entry.get("points", ())]:
        label = _label(index, one["label"])
        if "segment" in one:
            spans.append(Span(label, *_finite(one["segment"], count=2)))
        if one.get("point") is not None:
            points.append(Point(label, *_finite([one["point"]], count=1)))
    last = [span.end_s for span in spans] + [point.time_s for point in points]
    duration_s = float(entry.get("duration") or max(last, default=0.0))
    return Recording(str(name), duration_s, tuple(spans), tuple(points))


def _read_round(folder: Path, name: str, index: dict[str, int]) -> Round:
    return Round(
        name=name,
        detections=_read_results(_detections_path(name, folder), index),
        proposals=None
        if name == ALL_ROUNDS
        else _read_results(folder / "proposals_train.json", index),
        evaluation=_read_object(folder / "evaluation.json") or None,
    )


def _detections_path(name: str, folder: Path) -> Path:
    of_all = name in ("detections", ALL_ROUNDS)
    return folder / ("detections.json" if of_all else "detections_test.json")


def _read_results(path: Path, index: dict[str, int]) -> dict[str, tuple[Span, ...]]:
    results = _read_object(path).get("results", {})
    with _blaming(path, "ActivityNet results"):
        return {
            str(name): tuple(_parse_detection(one, index) for one in entries)
            for name, entries in results.items()
        }


def _parse_detection(entry: Mapping[str, Any], index: dict[str, int]) -> Span:
    times_and_score = _finite([*entry["segment"], entry["score"]], count=3)
    return Span(_label(index, entry["label"]), *times_and_score)


def _read_curves(folders: list[Path], num_classes: int, notes: list[str]) -> dict[str, Curves]:
    """The scores of the last of some folders that has any."""
    folder = next((one for one in reversed(folders) if (one / "scores_test.npz").exists()), None)
    if folder is None:
        return {}
    curves = {}
    for name, one in read_predictions(folder / "scores_test.npz").items():
        scores, foreground = one.original.cas, one.original.actionness
        if scores.shape[1] != num_classes:
            notes.append(f"scores of {name}: {list(scores.shape)}, expected [T, {num_classes}]")
            continue
        curves[name] = Curves(scores, 1 - foreground, one.grid.stride_s)
    return _within_one(curves, notes)


def _within_one(curves: dict[str, Curves], notes: list[str]) -> dict[str, Curves]:
    """Scales scores that are no probabilities to at most 1, the same for all recordings."""
    top = max((float(one.classes.max()) for one in curves.values()), default=0.0)
    if not 1 < top < np.inf:
        return curves
    notes.append(f"score curves are drawn divided by {top:.4g}, the largest score")
    return {
        name: dataclasses.replace(one, classes=one.classes / np.float32(top))
        for name, one in curves.items()
    }


def _read_metrics(path: Path, notes: list[str]) -> tuple[Mapping[str, Any], ...]:
    """The log, where a resumed run's second account of a step replaces the first."""
    if not path.exists():
        return ()
    lines, broken = {}, 0
    for number, text in enumerate(path.read_text(errors="replace").splitlines()):
        try:
            line = json.loads(text)
            key = (line["round"], line.get("event", ""), line.get("step", number))
        except (ValueError, TypeError, KeyError):
            broken += bool(text.strip())  # a killed run leaves half a line
            continue
        lines.pop(key, None)
        lines[key] = line
    if broken:
        notes.append(f"unreadable lines of metrics.jsonl: {broken}")
    return tuple(lines.values())


def _with_unannotated(
    recordings: list[Recording],
    found: list[Mapping[str, tuple[Span, ...]]],
    curves: Mapping[str, Curves],
) -> tuple[Recording, ...]:
    """Adds the recordings that only have detections or scores, and durations where missing."""
    known = {recording.name: recording for recording in recordings}
    for name in dict.fromkeys([name for spans in found for name in spans] + list(curves)):
        known.setdefault(name, Recording(name, 0.0))
    return tuple(
        recording
        if recording.duration_s > 0
        else dataclasses.replace(
            recording, duration_s=_seen_duration(recording.name, found, curves)
        )
        for recording in known.values()
    )


def _seen_duration(
    name: str, found: list[Mapping[str, tuple[Span, ...]]], curves: Mapping[str, Curves]
) -> float:
    ends = [span.end_s for spans in found for span in spans.get(name, ())]
    if name in curves:
        ends.append(len(curves[name].background) * curves[name].stride_s)
    return max(ends, default=0.0)


def _read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; empty where the file is missing."""
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def _finite(values: Iterable[Any], *, count: int) -> Iterator[float]:
    numbers = [float(value) for value in values]  # some annotation files hold times as strings
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"got {numbers}, expected {count} finite numbers")
    return iter(numbers)


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@contextlib.contextmanager
def _blaming(path: Path, expected: str) -> Iterator[None]:
    """Turns whatever goes wrong inside into one ValueError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        problem = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: {problem}; expected {expected}") from error
