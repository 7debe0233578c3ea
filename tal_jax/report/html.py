"""Writes `report.html`, a page that contains all of its data and needs no network."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.data.annotations import RecordingAnnotation
from tal_jax.data.detections import Results
from tal_jax.data.files import write_bytes
from tal_jax.report.pages import Curves, fill_template, pack_curves
from tal_jax.report.palette import class_colours
from tal_jax.report.workdir import Work, read_workdir, thresholds_of, title_of, truth_of
from tal_jax.training.pseudo_segments import ANNOTATED, SOURCES

# These keep the page under 5 MB. The page lists whatever they leave out.
_MOST_RECORDINGS = 200
_MOST_SPANS = 80_000
_MOST_SPANS_OF_A_RECORDING = 300
_MOST_CURVE_BYTES = 2_000_000
_MOST_LOSS_STEPS = 400


def write_report(workdir: str | os.PathLike) -> Path:
    """Writes the report of a work directory.

    Args:
      workdir: the folder of a run, or a folder with a `detections.json`; the page omits parts whose
        files are missing.

    Returns:
      The path of the page, `report.html` in that folder.

    Raises:
      InputError: if there is nothing to show, or a file is broken.
      OSError: if the page cannot be written.
    """
    work = read_workdir(workdir)
    path = work.path / "report.html"
    write_bytes(path, fill_template("template.html", _report_data(work)).encode())
    return path


def _report_data(work: Work) -> dict[str, Any]:
    """The data of the page, in the form that the script of the template describes."""
    notes = list(work.notes)
    index = {name: i for i, name in enumerate(work.classes)}
    test = _first("test", work.test, notes)
    train = _first("training", work.train, notes)
    detections = [one.detections for one in work.rounds]
    proposals = list(work.proposals.values())
    rows = len(work.rounds) * (len(test) + len(train))
    most = min(_MOST_SPANS_OF_A_RECORDING, _MOST_SPANS // max(rows, 1))
    curves = {}
    for name in filter(work.scores.__contains__, test):
        scores, stride_s = work.scores[name].original, work.scores[name].grid.stride_s
        annotated = {index[one.label] for one in test[name].instances}
        background = 1 - scores.actionness
        curves[name] = Curves(scores.cas, background, stride_s / 2, stride_s, annotated)
    kind = "classes that are not annotated in the recording"
    packed = pack_curves(curves, _MOST_CURVE_BYTES, kind, notes)
    data = {
        "name": work.name,
        "classes": work.classes,
        "colours": class_colours(len(work.classes)),
        "card": work.card,
        "config": work.config,
        "rounds": [
            {
                "name": one.name,
                "evaluation": one.evaluation,
                "pseudo_segments": one.pseudo_segments,
            }
            for one in work.rounds
        ],
        "test": [
            _recording(name, one, detections, index, most) | {"curves": packed.get(name)}
            for name, one in test.items()
        ],
        "train": [
            _recording(name, one, proposals, index, most)
            | {"pseudo": _pseudo_segments(work.pseudo_segments.get(name, ()), index)}
            for name, one in train.items()
        ],
        "proposals": list(work.proposals),
        "instances": _instances(work),
        "thresholds": {
            "test": _thresholds({one.name: one.detections for one in work.rounds}, work.test),
            "train": _thresholds(work.proposals, _with_proposals(work)),
        },
        "losses": _losses(work.metrics, notes),
        "notes": notes,
    }
    _note_left_out("detections", test, detections, most, notes)
    _note_left_out("proposals", train, proposals, most, notes)
    return data


def _first(
    kind: str, recordings: Mapping[str, RecordingAnnotation], notes: list[str]
) -> Mapping[str, RecordingAnnotation]:
    left_out = len(recordings) - _MOST_RECORDINGS
    if left_out > 0:
        notes.append(f"{left_out:,} of {len(recordings):,} {kind} recordings, the last ones")
    return dict(list(recordings.items())[:_MOST_RECORDINGS])


def _instances(work: Work) -> list[tuple[int, float | None]]:
    """The number of test instances of each class, and their median length in seconds."""
    lengths: dict[str, list[float]] = {label: [] for label in work.classes}
    for recording in work.test.values():
        for one in truth_of(recording):
            start_s, end_s = one["segment"]
            lengths[one["label"]].append(end_s - start_s)
    return [
        (len(of_class), float(np.median(of_class)) if of_class else None)
        for of_class in lengths.values()
    ]


def _with_proposals(work: Work) -> dict[str, RecordingAnnotation]:
    """The training recordings but those that were held out, which have no proposals."""
    names = {name for found in work.proposals.values() for name in found}
    return {name: one for name, one in work.train.items() if name in names}


def _thresholds(
    results: Mapping[str, Results], recordings: Mapping[str, RecordingAnnotation]
) -> list[float]:
    """Least scores shown at first, rounded down as the page's scores are rounded.

    The last is the initial value of the page's slider.
    """
    count = sum(len(one.instances) for one in recordings.values())
    return [math.floor(1000 * value) / 1000 for value in thresholds_of(results, count)]


def _recording(
    name: str,
    recording: RecordingAnnotation,
    results: Sequence[Results],
    index: Mapping[str, int],
    most: int,
) -> dict[str, Any]:
    points = [(one.label, one.point_s) for one in recording.instances if one.point_s is not None]
    best = [sorted(each.get(name, ()), key=lambda one: -one["score"])[:most] for each in results]
    return {
        "name": name,
        "duration": recording.duration_s,
        "truth": _flat(truth_of(recording), index),
        "points": [number for label, at_s in points for number in (index[label], _milli(at_s))],
        "rounds": [_flat(found, index) for found in best],
    }


def _flat(entries: Iterable[Mapping[str, Any]], index: Mapping[str, int]) -> list[int]:
    """Class, start and length in ms and, of detections, score in thousandths, one by one."""
    numbers = []
    for one in entries:
        start, end = (_milli(float(time_s)) for time_s in one["segment"])
        numbers += [index[one["label"]], start, end - start]
        numbers += [_milli(one["score"])] if "score" in one else []
    return numbers


def _pseudo_segments(entries: Iterable[Mapping[str, Any]], index: Mapping[str, int]) -> list[int]:
    """Class, start and length in ms, and the number of the source, one by one.

    An entry without a source is a person's.
    """
    numbers = []
    for one in entries:
        numbers += [*_flat([one], index), SOURCES.index(one.get("source", ANNOTATED))]
    return numbers


def _milli(value: float) -> int:
    return round(value * 1000)


def _note_left_out(
    kind: str, recordings: Iterable[str], results: Sequence[Results], most: int, notes: list[str]
) -> None:
    counts = [len(each.get(name, ())) for each in results for name in recordings]
    left_out = sum(max(0, count - most) for count in counts)
    if left_out:
        notes.append(
            f"{left_out:,} of {sum(counts):,} {kind}, those with the lowest scores: "
            f"the {most} best of each round or stage in each recording are kept"
        )


def _losses(metrics: Iterable[Mapping[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The loss and its parts: {"name", "stage", "steps", "parts": {name: values}}.

    Of each round, whose stage is "", and of each stage after the rounds.
    """
    rounds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in metrics:
        if "event" not in line and "step" in line:
            rounds.setdefault((title_of(line), line.get("stage", "")), []).append(line)
    pool = math.ceil(max(map(len, rounds.values()), default=0) / _MOST_LOSS_STEPS)
    if pool > 1:
        notes.append(f"losses, except the mean of every {pool} logged steps")
    return [
        {"name": name, "stage": stage} | _loss_curves(lines, max(pool, 1))
        for (name, stage), lines in rounds.items()
    ]


def _loss_curves(lines: Sequence[Mapping[str, Any]], pool: int) -> dict[str, Any]:
    starts = range(0, len(lines), pool)
    names = dict.fromkeys(key for line in lines for key in line if key.startswith("loss"))

    def means(key: str) -> list[float | None]:
        chunks = [[line.get(key) for line in lines[i : i + pool]] for i in starts]
        chunks = [[value for value in chunk if _is_number(value)] for chunk in chunks]
        return [float(f"{sum(chunk) / len(chunk):.7g}") if chunk else None for chunk in chunks]

    return {"steps": means("step"), "parts": {name: means(name) for name in names}}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
