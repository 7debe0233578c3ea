"""Writes `report.html`: one file with everything in it, to be opened in a browser without a network."""

import base64
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.data.files import write_bytes
from tal_jax.report.pictures import class_colours
from tal_jax.report.workdir import Curves, Recording, Span, Work, read_workdir, shown_threshold

# What keeps the page under 5 MB. Whatever these leave out is said in the page.
_MOST_RECORDINGS = 200
_MOST_SPANS = 80_000
_MOST_SPANS_OF_A_RECORDING = 300
_MOST_CURVE_BYTES = 2_000_000
_MOST_LOSS_STEPS = 400
_FLAT_CURVE = 0.05  # the curve of a class that never gets here is not drawn

_EVALUATION_KEYS = (
    *("tious", "map", "average_map", "ap", "classes", "num_videos", "num_ground_truth", "num_detections"),
    *("short_recall", "long_recall", "num_short", "num_long", "short_s", "notes"),
)


def write_report(workdir: str | os.PathLike) -> Path:
    """Writes the report of a work directory.

    Args:
      workdir: the folder of a run, or one with a `detections.json` alone; parts that are missing are left out.

    Returns:
      The path of the page, `report.html` in that folder.

    Raises:
      ValueError: if there is nothing to show or a file is broken.
      OSError: if the page cannot be written.
    """
    work = read_workdir(workdir)
    path = work.path / "report.html"
    write_bytes(path, _page(_report_data(work)).encode())
    return path


def _page(data: Mapping[str, Any]) -> str:
    """Puts the data into the template as JSON that no name in it can end or leave."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII only
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    template = resources.files("tal_jax.report").joinpath("template.html").read_text(encoding="utf-8")
    return template.replace("{{data}}", text)


def _report_data(work: Work) -> dict[str, Any]:
    """All that the page shows; the template's script says how it reads it."""
    notes = list(work.notes)
    test = _first("test", work.test, notes)
    train = _first("training", work.train, notes)
    detections, proposals = [one.detections for one in work.rounds], [one.proposals for one in work.rounds]
    most = _most_spans(len(work.rounds) * (len(test) + len(train)))
    curves = _pack_curves({one.name: work.curves[one.name] for one in test if one.name in work.curves}, test, notes)
    data = {
        "name": work.name,
        "classes": work.classes,
        "colours": class_colours(len(work.classes)),
        "card": work.card,
        "config": work.config,
        "rounds": [{"name": one.name, "evaluation": _evaluation(one.evaluation)} for one in work.rounds],
        "test": [
            _recording(one, detections, most) | ({"curves": curves[one.name]} if one.name in curves else {})
            for one in test
        ],
        "train": [_recording(one, proposals, most) for one in train],
        "thresholds": {
            "test": shown_threshold(detections[-1], _count(work.test, "instances")) if detections else 0,
            "train": shown_threshold(proposals[-1], _count(work.train, "points")) if proposals else 0,
        },
        "losses": _losses(work.metrics, notes),
        "notes": notes,
    }
    _note_left_out("detections", test, detections, most, notes)
    _note_left_out("proposals", train, proposals, most, notes)
    return _plain(data)


def _first(kind: str, recordings: Sequence[Recording], notes: list[str]) -> Sequence[Recording]:
    if len(recordings) > _MOST_RECORDINGS:
        notes.append(f"{_MOST_RECORDINGS} of {len(recordings)} {kind} recordings are shown, the first ones")
    return recordings[:_MOST_RECORDINGS]


def _most_spans(num_lanes: int) -> int:
    """The spans shown of one round in one recording."""
    return min(_MOST_SPANS_OF_A_RECORDING, _MOST_SPANS // max(num_lanes, 1))


def _count(recordings: Iterable[Recording], what: str) -> int:
    return sum(len(getattr(recording, what)) for recording in recordings)


def _recording(recording: Recording, found: Sequence[Mapping[str, Sequence[Span]]], most: int) -> dict[str, Any]:
    return {
        "name": recording.name,
        "duration": recording.duration_s,
        "truth": _flat(recording.instances),
        "points": [number for label, time_s in recording.points for number in (label, _milli(time_s))],
        "rounds": [_flat(_best(spans.get(recording.name, ()), most)) for spans in found],
    }


def _best(spans: Sequence[Span], most: int) -> list[Span]:
    return sorted(spans, key=lambda span: -span.score)[:most]


def _flat(spans: Iterable[Span]) -> list[int]:
    """Spans as label, start and length in ms, score in thousandths (left out of annotated instances), and on."""
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
            f"the {most} best {what} of each round in each recording are shown; "
            f"{left_out:,} of {sum(counts):,}, the lowest scored, are left out"
        )


def _pack_curves(
    curves: Mapping[str, Curves], recordings: Sequence[Recording], notes: list[str]
) -> dict[str, dict[str, Any]]:
    """Curves as one byte a snippet, of the classes that are annotated or ever rise; the background is class −1."""
    kept = {}
    for recording in recordings:
        if recording.name not in curves:
            continue
        scores = curves[recording.name].classes
        annotated = {span.label for span in recording.instances}
        rising = [c for c in range(scores.shape[1]) if c in annotated or (scores[:, c] >= _FLAT_CURVE).any()]
        columns = np.concatenate([scores[:, rising], curves[recording.name].background[:, None]], axis=1)
        kept[recording.name] = ([*rising, -1], np.nan_to_num(columns).clip(0, 1))
    pool = math.ceil(sum(columns.size for _, columns in kept.values()) / _MOST_CURVE_BYTES)
    if kept:
        notes.append(f"score curves of classes that are not annotated in a recording and stay below {_FLAT_CURVE}")
        notes[-1] += " are left out of it; the others are rounded to 1/255"
    if pool > 1:
        notes.append(f"score curves show the highest of every {pool} snippets")
    return {
        name: {
            "stride": curves[name].stride_s * max(pool, 1),
            "classes": labels,
            "data": base64.b64encode(np.round(_pooled(columns, pool) * 255).astype(np.uint8).T.tobytes()).decode(),
        }
        for name, (labels, columns) in kept.items()
    }


def _pooled(columns: np.ndarray, pool: int) -> np.ndarray:
    """The largest of every `pool` rows; [T, C] to [ceil(T / pool), C]."""
    return np.maximum.reduceat(columns, np.arange(0, len(columns), pool)) if pool > 1 and len(columns) else columns


def _evaluation(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {key: evaluation[key] for key in _EVALUATION_KEYS if key in evaluation} if evaluation else None


def _losses(metrics: Iterable[Mapping[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The loss and its parts by round: {"round", "steps", "parts": {name: values}}."""
    rounds: dict[Any, list[Mapping[str, Any]]] = {}
    for line in metrics:
        if "event" not in line and "step" in line:
            rounds.setdefault(line["round"], []).append(line)
    pool = math.ceil(max(map(len, rounds.values()), default=0) / _MOST_LOSS_STEPS)
    if pool > 1:
        notes.append(f"loss curves show the mean of every {pool} logged steps")
    return [_loss_curves(number, lines, max(pool, 1)) for number, lines in rounds.items()]


def _loss_curves(number: Any, lines: Sequence[Mapping[str, Any]], pool: int) -> dict[str, Any]:
    starts = range(0, len(lines), pool)
    names = dict.fromkeys(key for line in lines for key in line if key.startswith("loss"))

    def means(key: str) -> list[float | None]:
        chunks = ([line[key] for line in lines[i : i + pool] if _is_number(line.get(key))] for i in starts)
        return [float(f"{sum(chunk) / len(chunk):.5g}") if chunk else None for chunk in chunks]

    return {"round": number, "steps": means("step"), "parts": {name: means(name) for name in names}}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """The same value with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
