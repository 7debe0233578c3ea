"""Label Studio's tasks, `.json` (its export "JSON", not "JSON-MIN").

Three kinds of labels are read: `TimelineLabels` of videos, in frames, `TimeSeriesLabels` and
`Labels` of sound, in seconds. Label Studio counts frames from 1 and both ends of a range belong to
it: a range of one frame, which is what a single click makes, is a point in the middle of its frame.
Recordings whose frame rate is known are written as `TimelineLabels`, others as `TimeSeriesLabels`.
Detections are written as predictions.
"""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tal_jax.data import files
from tal_jax.data.annotations import Instance
from tal_jax.data.raw_annotations import RawRecording
from tal_jax.formats.labels import (
    Labels,
    Span,
    collect,
    find_media,
    instances_of,
    losses,
    number,
    recording_name,
    spans_of,
)

_MICROSECONDS = 10**6
_TYPES = ("timelinelabels", "timeserieslabels", "labels")
_RESULTS = ("annotations", "completions")  # the latter until version 1.0
_LONGEST_S = 1e8  # three years; what lies beyond is a date

FrameRate = Callable[[str], float | None]


def is_tasks(values: Any) -> bool:
    """Whether what was read from JSON is a list of tasks, or one task."""
    tasks = values if isinstance(values, list) else [values]
    return bool(tasks) and all(
        isinstance(task, Mapping) and ("data" in task or "id" in task) for task in tasks
    )


def read_label_studio(
    values: Any, path: str | os.PathLike, *, frame_rate: FrameRate, subset: str
) -> Labels:
    """Reads what was read from an export.

    Args:
      values: a list of tasks, or one.
      path: of the file, for messages.
      frame_rate: frames a second of a recording, None where nobody knows.
      subset: of recordings where a task does not tell it.

    Raises:
      ValueError: if a part is missing, a time is none, or a frame rate is needed and not known.
    """
    source, recordings, joined = str(path), {}, 0
    counts = {
        "annotations beside the first one of a task, left out": 0,
        "predictions, left out": 0,
        "results that are no labels of time, left out": 0,
    }
    several, predictions, others = counts
    for index, task in enumerate(values if isinstance(values, list) else [values]):
        where = f"{source}: task {task.get('id', index + 1)}"
        if not any(key in task for key in (*_RESULTS, "predictions")):
            raise ValueError(
                f"{where}: no 'annotations', expected Label Studio's export JSON, not JSON-MIN"
            )
        data = files.get_value(task, "data", Mapping, where)
        name = _name(data, task, where)
        if name in recordings:
            raise ValueError(f"{where}: {name!r} once more, expected one task a recording")
        rate = _told(data, "frame_rate", where)
        done = [
            one
            for key in _RESULTS
            for one in task.get(key) or []
            if isinstance(one, Mapping) and not one.get("was_cancelled")
        ]
        counts[several] += max(len(done) - 1, 0)
        counts[predictions] += len(task.get("predictions") or [])
        results = files.get_value(done[0], "result", list, where) if done else []
        spans, lengths = [], [_told(data, "duration_s", where)]
        for result in results:
            kind = files.get_value(result, "type", str, where)
            if kind not in _TYPES:
                counts[others] += 1
                continue
            lengths.append(_told(result, "original_length", where))
            if kind == "timelinelabels":
                rate = rate or frame_rate(name)
            spans += _spans(result, kind, rate, f"{where}: {name}")
        instances, count = instances_of(spans, f"{where}: {name}")
        joined += count
        recordings[name] = RawRecording(
            subset=str(data.get("subset", subset)),
            duration_s=next((length for length in lengths if length is not None), None),
            frame_rate=rate,
            instances=instances,
        )
    notes = [f"{words}: {count}" for words, count in counts.items() if count]
    return collect("Label Studio", source, recordings, joined=joined, notes=notes)


def write_label_studio(
    path: str | os.PathLike, labels: Labels, *, folder: Path, frame_rate: FrameRate
) -> list[str]:
    """Writes labels as tasks to import; returns what they have no place for, a line each.

    Args:
      path: the file.
      labels: what to write; detections, with scores, become predictions.
      folder: where recordings lie, whose files are then named with their suffixes.
      frame_rate: frames a second of a recording, None where nobody knows.
    """
    tasks = []
    for index, (name, recording) in enumerate(labels.annotations.recordings.items()):
        file = find_media(folder, name)
        rate = recording.frame_rate or frame_rate(name)
        scores = None if labels.scores is None else labels.scores[name]
        results = [
            {"id": f"{index}_{number}", **_result(span, rate)}
            for number, span in enumerate(_ordered(recording.instances, rate, scores))
        ]
        told = {
            "recording": name,
            "subset": recording.subset,
            "duration_s": recording.duration_s,
            "frame_rate": rate,
        }
        address = f"/data/local-files/?d={file.name if file else name}"
        tasks.append(
            {
                "data": {
                    "video" if rate else "csv": address,
                    **{key: value for key, value in told.items() if value is not None},
                },
                **(
                    {"annotations": [{"result": results}]}
                    if scores is None
                    else {"predictions": [{"model_version": "tal_jax", "result": results}]}
                ),
            }
        )
    files.write_json(path, tasks)
    return losses(labels, "subsets", "durations", "empty", "scores")


def _ordered(
    instances: Sequence[Instance], rate: float | None, scores: Sequence[float] | None
) -> list[Span]:
    if rate is None:
        spans = spans_of(instances, per_second=_MICROSECONDS, scores=scores)
    else:
        # A point is on the frame that is on screen then; segments of one frame would be points.
        floored = [one if one.point_s is None else _on_frame(one, rate) for one in instances]
        spans = spans_of(floored, per_second=rate, scores=scores, shortest=2)
    return sorted(spans, key=lambda span: (span.start, span.end))


def _on_frame(instance: Instance, rate: float) -> Instance:
    # The sum is for times that were meant to be a frame's start and fell short of it by rounding.
    frame = math.floor(instance.point_s * rate + 1e-6)
    return Instance(instance.label, instance.start_s, instance.end_s, frame / rate)


def _result(span: Span, rate: float | None) -> dict[str, Any]:
    score = {} if span.score is None else {"score": span.score}
    if rate is None:
        value = {
            "start": span.start / _MICROSECONDS,
            "end": span.end / _MICROSECONDS,
            "instant": span.start == span.end,
            "timeserieslabels": [span.label],
        }
        return {
            "from_name": "label",
            "to_name": "ts",
            "type": "timeserieslabels",
            "value": value,
        } | score
    frames = {"start": span.start + 1, "end": max(span.end, span.start + 1)}
    value = {"ranges": [frames], "timelinelabels": [span.label]}
    return {
        "from_name": "videoLabels",
        "to_name": "video",
        "type": "timelinelabels",
        "value": value,
    } | score


def _spans(
    result: Mapping[str, Any], kind: str, rate: float | None, source: str
) -> list[tuple[str, float, float]]:
    value = files.get_value(result, "value", Mapping, source)
    labels = files.get_value(value, kind, list, source)
    if kind != "timelinelabels":
        start_s, end_s = (number(value.get(key), f"{source}: {key}") for key in ("start", "end"))
        if end_s > _LONGEST_S:
            raise ValueError(
                f"{source}: a label ends at {end_s:g}, expected seconds since the start"
            )
        return [(str(label), start_s, end_s) for label in labels]
    if rate is None:
        raise ValueError(
            f"{source}: frames, and no frame rate to turn them into seconds with, expected --fps "
            "or the video beside the file"
        )
    spans = []
    for one in files.get_value(value, "ranges", list, source):
        first, last = (
            number(files.get_value(one, key, object, source), f"{source}: frame")
            for key in ("start", "end")
        )
        ends = ((first - 0.5) / rate,) * 2 if first == last else ((first - 1) / rate, last / rate)
        spans += [(str(label), *ends) for label in labels]
    return spans


def _name(data: Mapping[str, Any], task: Mapping[str, Any], source: str) -> str:
    """Returns the name that was written here, or that of the file, without the upload's id."""
    if isinstance(data.get("recording"), str):
        return data["recording"]
    known = ("video", "video_url", "audio", "csv", "ts", "timeseries")
    texts = [data[key] for key in (*known, *data) if isinstance(data.get(key), str)]
    if not texts:
        raise ValueError(f"{source}: no address of a recording in its data")
    parts = urlsplit(texts[0])
    local = parse_qs(parts.query).get("d")
    name = recording_name(local[0] if local else unquote(parts.path))
    if "file_upload" in task or "/upload/" in parts.path:
        name = re.sub(r"^[0-9a-f]{8}-", "", name)
    return name


def _told(values: Mapping[str, Any], key: str, source: str) -> float | None:
    return None if values.get(key) is None else number(values[key], f"{source}: {key}")
