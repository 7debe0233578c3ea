"""Writes `report.html`: one file with everything in it, which a browser shows without a network."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.data.files import write_bytes
from tal_jax.report.pages import fill_template, pack_curves
from tal_jax.report.pictures import class_colours
from tal_jax.report.workdir import (
    FLAT_CURVE,
    Curves,
    Recording,
    Span,
    Work,
    proposals_of,
    read_workdir,
    shown_threshold,
)

# What keeps the page under 5 MB. Whatever these leave out is said in the page.
_MOST_RECORDINGS = 200
_MOST_SPANS = 80_000
_MOST_SPANS_OF_A_RECORDING = 300
_MOST_CURVE_BYTES = 2_000_000
_MOST_LOSS_STEPS = 400

_EVALUATION_KEYS = (
    *("tious", "map", "average_map", "ap", "classes", "num_videos", "num_ground_truth"),
    *("num_detections", "short_recall", "long_recall", "num_short", "num_long", "short_s", "notes"),
)


def write_report(workdir: str | os.PathLike) -> Path:
    """Writes the report of a work directory.

    Args:
      workdir: the folder of a run, or one with a `detections.json` alone; parts that are missing
        are left out of the page.

    Returns:
      The path of the page, `report.html` in that folder.

    Raises:
      ValueError: if there is nothing to show or a file is broken.
      OSError: if the page cannot be written.
    """
    work = read_workdir(workdir)
    path = work.path / "report.html"
    write_bytes(path, fill_template("template.html", _report_data(work)).encode())
    return path


def _report_data(work: Work) -> dict[str, Any]:
    """All that the page shows; the template's script says how it reads it."""
    notes = list(work.notes)
    test = _first("test", work.test, notes)
    train = _first("training", work.train, notes)
    detections = [one.detections for one in work.rounds]
    proposals = proposals_of(work.rounds)
    most = _most_spans(len(work.rounds) * (len(test) + len(train)))
    curves = _pack_curves(work.curves, test, notes)
    data = {
        "name": work.name,
        "classes": work.classes,
        "colours": class_colours(len(work.classes)),
        "card": work.card,
        "config": work.config,
        "rounds": [
            {"name": one.name, "evaluation": _evaluation(one.evaluation)} for one in work.rounds
        ],
        "test": [
            _recording(one, detections, most) | {"curves": curves.get(one.name)} for one in test
        ],
        "train": [_recording(one, proposals, most) for one in train],
        "instances": _instances(work),
        "thresholds": {
            "test": _threshold(detections, [one.instances for one in work.test]),
            "train": _threshold(proposals, [one.points for one in work.train]),
        },
        "losses": _losses(work.metrics, notes),
        "notes": notes,
    }
    _note_left_out("detections", test, detections, most, notes)
    _note_left_out("proposals", train, proposals, most, notes)
    return data


def _first(kind: str, recordings: Sequence[Recording], notes: list[str]) -> Sequence[Recording]:
    if len(recordings) > _MOST_RECORDINGS:
        left_out = len(recordings) - _MOST_RECORDINGS
        notes.append(
            f"{left_out:,} of {len(recordings):,} {kind} recordings, those behind the first"
        )
    return recordings[:_MOST_RECORDINGS]


def _most_spans(num_lanes: int) -> int:
    """The spans shown of one round in one recording."""
    return min(_MOST_SPANS_OF_A_RECORDING, _MOST_SPANS // max(num_lanes, 1))


def _instances(work: Work) -> list[tuple[int, float | None]]:
    """How many test instances each class has, and their median length in seconds."""
    lengths: list[list[float]] = [[] for _ in work.classes]
    for recording in work.test:
        for span in recording.instances:
            lengths[span.label].append(span.end_s - span.start_s)
    return [
        (len(of_class), float(np.median(of_class)) if of_class else None) for of_class in lengths
    ]


def _threshold(
    found: Sequence[Mapping[str, Sequence[Span]]], annotated: Sequence[Sequence[Any]]
) -> float:
    """Where the page's slider starts, rounded down as the page's scores are rounded."""
    if not found:
        return 0.0
    return math.floor(1000 * shown_threshold(found[-1], sum(map(len, annotated)))) / 1000


def _recording(
    recording: Recording, found: Sequence[Mapping[str, Sequence[Span]]], most: int
) -> dict[str, Any]:
    return {
        "name": recording.name,
        "duration": recording.duration_s,
        "truth": _flat(recording.instances),
        "points": [
            number for label, time_s in recording.points for number in (label, _milli(time_s))
        ],
        "rounds": [_flat(_best(spans.get(recording.name, ()), most)) for spans in found],
    }


def _best(spans: Sequence[Span], most: int) -> list[Span]:
    return sorted(spans, key=lambda span: -span.score)[:most]


def _flat(spans: Iterable[Span]) -> list[int]:
    """Spans as label, start and length in ms and, unless annotated, the score in thousandths."""
    numbers = []
    for label, start_s, end_s, score in spans:
        numbers += [label, _milli(start_s), _milli(end_s) - _milli(start_s)]
        numbers += [] if math.isnan(score) else [_milli(score)]
    return numbers


def _milli(value: float) -> int:
    return round(value * 1000)


def _note_left_out(
    what: str,
    recordings: Sequence[Recording],
    found: Sequence[Mapping[str, Sequence[Span]]],
    most: int,
    notes: list[str],
) -> None:
    counts = [len(spans.get(recording.name, ())) for spans in found for recording in recordings]
    left_out = sum(max(0, count - most) for count in counts)
    if left_out:
        notes.append(
            f"{left_out:,} of {sum(counts):,} {what}, those with the lowest scores: "
            f"the {most} best of each round in each recording are kept"
        )


def _pack_curves(
    curves: Mapping[str, Curves], recordings: Sequence[Recording], notes: list[str]
) -> dict[str, dict[str, Any]]:
    """Curves as one byte a snippet, class after class; the background is class -1."""
    kept = {one.name: _raised(curves[one.name], one) for one in recordings if one.name in curves}
    num_flat = sum(curves[name].classes.shape[1] - len(labels) for name, labels in kept.items())
    num_bytes = sum(len(curves[name].background) * (1 + len(kept[name])) for name in kept)
    pool = max(1, math.ceil(num_bytes / _MOST_CURVE_BYTES))
    if num_flat:
        notes.append(
            f"{num_flat:,} score curves of classes that a recording neither contains nor reaches "
            f"{FLAT_CURVE} of; the other curves are rounded to 1/255"
        )
    if pool > 1:
        notes.append(f"score curves but for the highest of every {pool} snippets")
    return {
        name: {
            "stride": curves[name].stride_s * pool,
            "classes": [*labels, -1],
            "data": _curve_bytes(curves[name], labels, pool),
        }
        for name, labels in kept.items()
    }


def _raised(curves: Curves, recording: Recording) -> list[int]:
    """The classes whose curves are worth their bytes: annotated ones, and those that ever rise."""
    annotated = {span.label for span in recording.instances}
    rising = (curves.classes >= FLAT_CURVE).any(axis=0)
    return [label for label, rises in enumerate(rising) if rises or label in annotated]


def _curve_bytes(curves: Curves, labels: Sequence[int], pool: int) -> str:
    columns = np.column_stack([curves.classes[:, labels], curves.background])  # [T, labels + 1]
    return pack_curves(columns, pool)


def _evaluation(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not evaluation:
        return None
    return {key: evaluation[key] for key in _EVALUATION_KEYS if key in evaluation}


def _losses(metrics: Iterable[Mapping[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The loss and its parts by round: {"round", "steps", "parts": {name: values}}."""
    rounds: dict[Any, list[Mapping[str, Any]]] = {}
    for line in metrics:
        if "event" not in line and "step" in line:
            rounds.setdefault(line["round"], []).append(line)
    pool = math.ceil(max(map(len, rounds.values()), default=0) / _MOST_LOSS_STEPS)
    if pool > 1:
        notes.append(f"losses but for the mean of every {pool} logged steps")
    return [_loss_curves(number, lines, max(pool, 1)) for number, lines in rounds.items()]


def _loss_curves(number: Any, lines: Sequence[Mapping[str, Any]], pool: int) -> dict[str, Any]:
    starts = range(0, len(lines), pool)
    names = dict.fromkeys(key for line in lines for key in line if key.startswith("loss"))

    def means(key: str) -> list[float | None]:
        chunks = [[line.get(key) for line in lines[i : i + pool]] for i in starts]
        chunks = [[value for value in chunk if _is_number(value)] for chunk in chunks]
        return [float(f"{sum(chunk) / len(chunk):.7g}") if chunk else None for chunk in chunks]

    return {"round": number, "steps": means("step"), "parts": {name: means(name) for name in names}}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
