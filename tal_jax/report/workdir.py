"""Reads the files of a work directory for the report; each of them may be missing."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotation_files import read_annotations
from tal_jax.data.annotations import RecordingAnnotation
from tal_jax.data.detections import Results, read_results
from tal_jax.data.predictions import RecordingPredictions, read_predictions
from tal_jax.runs.round_folders import (
    ALL_STAGES,
    DETECTOR,
    DETECTOR_FOLDER,
    detections_path,
    result_folders,
    round_folders,
)


@dataclasses.dataclass(frozen=True)
class Round:
    """The results of a round, of the ensemble of all rounds, of the detector, or of all stages."""

    name: str
    detections: Results
    evaluation: Mapping[str, Any] | None  # evaluation.json
    pseudo_segments: Mapping[str, Any] | None = None  # their quality, of metrics.jsonl


@dataclasses.dataclass(frozen=True)
class Work:
    """The contents of a work directory.

    Attributes:
      path: the directory.
      name: name of the data set, or else of the directory.
      classes: names of the classes, in the order of the scores, then labels outside them.
      card: `run.json`, or empty.
      config: `config.json`, or empty.
      test: the test recordings, those with detections only included.
      train: the training recordings.
      rounds: each round, then the ensemble, the detector and all stages, where there are any: the
        last are the result of the run; or a single `detections.json`.
      proposals: on the training recordings, of the rounds and of all stages, by their names.
      pseudo_segments: annotations of the training recordings that the detector learns from, with
        the source of each.
      scores: scores of the test recordings in the last of `rounds` that has any, at most 1.
      metrics: the lines of `metrics.jsonl`.
      notes: what could not be read.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    card: Mapping[str, Any]
    config: Mapping[str, Any]
    test: Mapping[str, RecordingAnnotation]
    train: Mapping[str, RecordingAnnotation]
    rounds: tuple[Round, ...]
    proposals: Mapping[str, Results]
    pseudo_segments: Results
    scores: Mapping[str, RecordingPredictions]
    metrics: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def read_workdir(workdir: str | os.PathLike) -> Work:
    """Reads a work directory.

    Args:
      workdir: the folder of a run, or a folder with a `detections.json`.

    Raises:
      InputError: if the folder is missing or holds nothing to show, or a file in it is broken.
    """
    path = Path(workdir)
    if not path.is_dir():
        raise InputError(f"work directory {str(path)!r} does not exist")
    notes: list[str] = []
    card, config = _read_object(path / "run.json"), _read_object(path / "config.json")
    data = card.get("data", {})
    metrics = _read_metrics(path / "metrics.jsonl", notes)
    folders = _folders(path)
    proposals = _read_proposals(path)
    rounds = [_read_round(name, folder, path, metrics) for name, folder in folders.items()]
    rounds = [one for one in rounds if one.detections or one.evaluation or one.name in proposals]
    test, train = (
        dict(read_annotations(path / name).recordings) if (path / name).exists() else {}
        for name in ("ground_truth.json", "train_points.json")
    )
    if not (test or train or rounds or metrics):
        raise InputError(
            f"nothing to show in {str(path)!r}: expected detections.json, ground_truth.json, "
            "round_*/detections_test.json, train_points.json or metrics.jsonl"
        )
    detections = [one.detections for one in rounds]
    pseudo_segments = _read_pseudo_segments(path / DETECTOR_FOLDER / "pseudo_segments.json")
    annotations, results = [*test.values(), *train.values()], [*detections, pseudo_segments]
    classes = _classes(data.get("classes", ()), annotations, results)
    scores = _read_scores(list(folders.values()), len(data.get("classes", classes)), notes)
    return Work(
        path=path,
        name=data.get("name") or path.resolve().name,
        classes=classes,
        card=card,
        config=config,
        test=_with_durations(test, detections, scores),
        train=_with_durations(train, list(proposals.values()), {}),
        rounds=tuple(rounds),
        proposals=proposals,
        pseudo_segments=pseudo_segments,
        scores=scores,
        metrics=metrics,
        notes=tuple(notes),
    )


def default_threshold(results: Results, count: int) -> float:
    """Returns the least score that is shown at first.

    Args:
      results: the detections or proposals of a round.
      count: the number of instances or points annotated in these recordings.

    Returns:
      The score that as many detections reach as are annotated; without annotations, half of the
      highest score.
    """
    scores = sorted((one["score"] for found in results.values() for one in found), reverse=True)
    if not scores:
        return 0.0
    return scores[min(count, len(scores)) - 1] if count else scores[0] / 2


def thresholds_of(results: Mapping[str, Results], count: int) -> list[float]:
    """Returns the least score that is shown at first, of each round and stage.

    Rounds share that of the last result of them, since their scores mean the same; the scores of
    the detector and of all stages are others.

    Args:
      results: detections or proposals by the name of the round or stage.
      count: see `default_threshold`.
    """
    own = {name: default_threshold(found, count) for name, found in results.items()}
    stages = {name: value for name, value in own.items() if name in (DETECTOR, ALL_STAGES)}
    of_rounds = [value for name, value in own.items() if name not in stages]
    return [stages.get(name, of_rounds[-1] if of_rounds else 0.0) for name in own]


def truth_of(recording: RecordingAnnotation) -> list[dict[str, Any]]:
    """Returns the instances that have a segment, as ActivityNet annotations."""
    return [
        {"label": one.label, "segment": [one.start_s, one.end_s]}
        for one in recording.instances
        if one.start_s is not None
    ]


def _folders(path: Path) -> dict[str, Path]:
    """The folders with results by title, the last that of the run's own result."""
    finished = round_folders(path, "detections_test.json")
    if not finished and (path / "detections.json").exists():
        return {"detections": path}
    return result_folders(path)


def _read_round(
    name: str, folder: Path, workdir: Path, metrics: Sequence[Mapping[str, Any]]
) -> Round:
    measured = [line for line in metrics if line.get("event") == "pseudo_segments"]
    return Round(
        name=name,
        detections=_read_results(detections_path(workdir, folder)),
        evaluation=_read_object(folder / "evaluation.json") or None,
        pseudo_segments=next((line for line in measured if title_of(line) == name), None),
    )


def title_of(line: Mapping[str, Any]) -> str:
    """Returns the name of the round or stage that a line of the log is about."""
    return line.get("stage") or f"round {line['round']}"


def _read_proposals(path: Path) -> dict[str, Results]:
    """Proposals on the training recordings of each round and, fused, of all stages."""
    name = "proposals_train.json"
    folders = {one.name.replace("_", " "): one for one in round_folders(path, name)}
    if (path / DETECTOR_FOLDER / name).exists():
        folders[ALL_STAGES] = path / DETECTOR_FOLDER
    return {title: read_results(folder / name) for title, folder in folders.items()}


def _read_pseudo_segments(path: Path) -> Results:
    """The segments that the detector learns from; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        database = _read_object(path)["database"]
        return {name: list(one["annotations"]) for name, one in database.items()}
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: expected annotations as of a run's detector") from None


def _read_results(path: Path) -> Results:
    return read_results(path) if path.exists() else {}


def _classes(
    known: Sequence[str], recordings: Sequence[RecordingAnnotation], results: Sequence[Results]
) -> tuple[str, ...]:
    labels = {one.label for recording in recordings for one in recording.instances}
    labels |= {one["label"] for each in results for found in each.values() for one in found}
    return (*known, *sorted(labels - set(known)))


def _read_scores(
    folders: Sequence[Path], num_classes: int, notes: list[str]
) -> dict[str, RecordingPredictions]:
    """The scores in the last of the folders that has them, divided by the largest if above 1."""
    paths = [folder / "scores_test.npz" for folder in folders]
    path = next((path for path in reversed(paths) if path.exists()), None)
    scores = {} if path is None else read_predictions(path)
    for name in list(scores):
        shape = scores[name].original.cas.shape
        if shape[1] != num_classes:
            notes.append(f"scores of {name}: {list(shape)}, expected [T, {num_classes}]")
            del scores[name]
    top = max((float(one.original.cas.max()) for one in scores.values()), default=0.0)
    if not 1 < top < np.inf:
        return scores
    notes.append(f"score curves are drawn divided by {top:.4g}, the largest score")
    for name, one in scores.items():
        scaled = dataclasses.replace(one.original, cas=one.original.cas / np.float32(top))
        scores[name] = dataclasses.replace(one, original=scaled)
    return scores


def _read_metrics(path: Path, notes: list[str]) -> tuple[Mapping[str, Any], ...]:
    """The lines of the log; of a step that a resumed run repeated, the last."""
    if not path.exists():
        return ()
    lines, broken = {}, 0
    for number, text in enumerate(path.read_text(errors="replace").splitlines()):
        try:
            line = json.loads(text)
            key = (line["round"], line.get("event", ""), line.get("step", number))
        except (ValueError, TypeError, KeyError):
            broken += bool(text.strip())  # the last line of a killed run is incomplete
            continue
        lines.pop(key, None)
        lines[key] = line
    if broken:
        notes.append(f"unreadable lines of metrics.jsonl: {broken}")
    return tuple(lines.values())


def _with_durations(
    recordings: Mapping[str, RecordingAnnotation],
    results: Sequence[Results],
    scores: Mapping[str, RecordingPredictions],
) -> dict[str, RecordingAnnotation]:
    """Adds recordings without annotations, and missing durations: the last known time."""
    names = dict.fromkeys([*recordings, *(name for each in results for name in each), *scores])
    complete = {}
    for name in names:
        one = recordings.get(name, RecordingAnnotation())
        if not one.duration_s:
            ends = [found["segment"][1] for each in results for found in each.get(name, ())]
            ends += [end for i in one.instances for end in (i.end_s, i.point_s) if end is not None]
            ends += [scores[name].duration_s] if name in scores else []
            one = dataclasses.replace(one, duration_s=float(max(ends, default=0.0)))
        complete[name] = one
    return complete


def _read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty if the file is missing."""
    return files.convert(files.read_json(path), dict, str(path)) if path.exists() else {}
