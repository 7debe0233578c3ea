"""Label Studio's tasks, `.json` (its export "JSON", not "JSON-MIN").

Three kinds of labels are read: `TimelineLabels` of videos, in frames, and `TimeSeriesLabels` and
`Labels` of sound, in seconds. Label Studio counts frames from 1 and includes both ends of a range:
a range of one frame, the result of a single click, is a point in the middle of its frame. Its
frames are those of the attribute `frameRate` of the project's `Video` tag, 24 a second by default,
whatever the rate of the video; `_rate` finds it.
Recordings with a known frame rate are written as `TimelineLabels`, others as `TimeSeriesLabels`,
and detections as predictions.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.formats.labels import (
    Span,
    collect,
    losses,
    recording_name,
    spans_of,
)
from tal_jax.formats.media import Media

_MICROSECONDS = 10**6
_TYPES = ("timelinelabels", "timeserieslabels", "labels")
_LONGEST_S = 1e8  # three years; larger values are dates
_DEFAULT_RATE = 24.0  # frames a second of a Video tag without `frameRate`
_RATE_KEYS = ("frame_rate", "frameRate", "framerate", "fps")
_SLACK_S = 1.0  # frames are counted, durations measured

_Spans = list[tuple[str, float, float]]


class _Data(msgspec.Struct):
    subset: Any = None
    duration_s: files.Number | None = None


class _Done(msgspec.Struct):
    result: list[dict[str, Any]]


class _Task(msgspec.Struct):
    data: dict[str, Any]
    annotations: list[Any] | None = None
    completions: list[Any] | None = None  # the name of annotations until version 1.0
    predictions: list[Any] | None = None


class _Range(msgspec.Struct):
    start: files.Number
    end: files.Number


class _Frames(msgspec.Struct):
    ranges: list[_Range]
    timelinelabels: list[Any]


class _Seconds(_Range):
    timeserieslabels: list[Any] | None = None
    labels: list[Any] | None = None


class _Result(msgspec.Struct):
    value: dict[str, Any]
    original_length: files.Number | None = None


def is_tasks(values: Any) -> bool:
    """Whether JSON content is a list of tasks, or one task."""
    tasks = values if isinstance(values, list) else [values]
    return bool(tasks) and all(
        isinstance(task, Mapping) and ("data" in task or "id" in task) for task in tasks
    )


def read_label_studio(
    values: Any, path: str | os.PathLike, *, media: Media, subset: str
) -> Annotations:
    """Parses the JSON of an export; `subset` is for recordings whose task has none."""
    taken: dict[str, list[str]] = {}
    source, recordings, spans = str(path), {}, {}
    several = predictions = others = 0
    for index, content in enumerate(values if isinstance(values, list) else [values]):
        where = f"{source}: task {content.get('id', index + 1)}"
        if not {"annotations", "completions", "predictions"} & set(content):
            raise InputError(
                f"{where}: no 'annotations', expected Label Studio's export JSON, not JSON-MIN"
            )
        task = files.convert(content, _Task, where)
        data = files.convert(task.data, _Data, where, strict=False)
        name = _name(task.data, "file_upload" in content, where)
        if name in recordings:
            raise InputError(f"{where}: {name!r} once more, expected one task per recording")
        done = [
            one
            for one in (*(task.annotations or ()), *(task.completions or ()))
            if isinstance(one, Mapping) and not one.get("was_cancelled")
        ]
        several += max(len(done) - 1, 0)
        predictions += len(task.predictions or ())
        results = files.convert(done[0], _Done, where).result if done else []
        spans[name], duration_s = [], data.duration_s
        rate = None
        for holder in (task.data, content, content.get("meta")):
            rate = rate or _rate_key(holder, f"{where}: {name}")
        if any(one.get("type") == "timelinelabels" for one in results):
            rate, why = _rate(task.data, results, rate, name, media, f"{where}: {name}")
            if why:
                taken.setdefault(f"{rate:.6g} a second, {why}", []).append(name)
        for one in results:
            kind = one.get("type")
            if kind not in _TYPES:
                others += 1
                continue
            result = files.convert(one, _Result, f"{where}: {name}", strict=False)
            spans[name] += _spans(result.value, kind, rate, f"{where}: {name}")
            if duration_s is None:
                duration_s = result.original_length
        subset_of = subset if data.subset is None else str(data.subset)
        recordings[name] = RecordingAnnotation(subset_of, duration_s, frame_rate=rate)
    left_out = {
        "annotations beside the first one of a task": several,
        "predictions": predictions,
        "results that are no labels of time": others,
    }
    notes = [
        f"frames converted at {reason}: {_listed(names)}; if frameRate of the project's Video tag "
        "differs, pass it as --fps"
        for reason, names in taken.items()
    ]
    return collect(source, recordings, spans=spans, left_out=left_out, notes=notes)


def to_label_studio(labels: Annotations, *, media: Media) -> tuple[bytes, list[str]]:
    """Returns the JSON of tasks to import, and what the format cannot hold, a line each.

    The tasks refer to the files of the recordings in the folder of `media`.
    """
    tasks, rates = [], set()
    for index, (name, recording) in enumerate(labels.recordings.items()):
        file = media.path(name)
        rate = media.given_rate or recording.frame_rate or media.video_rate(name)
        rates |= {rate} - {None}
        results = [
            {"id": f"{index}_{number}", **_result(span, rate)}
            for number, span in enumerate(_ordered(recording, rate))
        ]
        data = {
            "video" if rate else "csv": f"/data/local-files/?d={file.name if file else name}",
            "recording": name,
            "subset": recording.subset,
            "duration_s": recording.duration_s,
            "frame_rate": rate,
        }
        task: dict[str, Any] = {"data": {k: v for k, v in data.items() if v is not None}}
        if labels.detections:
            task["predictions"] = [{"model_version": "tal_jax", "result": results}]
        else:
            task["annotations"] = [{"result": results}]
        tasks.append(task)
    notes = losses(labels, "subsets", "durations", "empty", "scores")
    if rates - {_DEFAULT_RATE}:
        shown = ", ".join(f"{rate:.6g}" for rate in sorted(rates)[:3])
        notes.append(
            f"ranges are frames at {shown} a second, and Label Studio counts "
            f'{_DEFAULT_RATE:g}: set frameRate="$frame_rate" in the Video tag of the project, or '
            f"pass --fps {_DEFAULT_RATE:g}"
        )
    return files.json_bytes(tasks), notes


def _rate(
    data: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    rate: float | None,
    name: str,
    media: Media,
    source: str,
) -> tuple[float, str]:
    """Returns the rate that Label Studio counted the frames of a task at, and why if uncertain.

    That is the rate of the user, else of a key of the task, its results or their values, else the
    number of frames over the duration. Otherwise it is Label Studio's default or the video's,
    whichever is first that puts no label after the end.
    """
    if media.given_rate is not None:
        return media.given_rate, ""
    frames, lengths = 0.0, []
    for one in results:
        value = one.get("value")
        value = value if isinstance(value, Mapping) else {}
        for holder in (value, one, one.get("meta"), data.get("meta")):
            rate = rate or _rate_key(holder, source)
        count = _positive(value.get("framesCount"))
        length_s = _positive(value.get("duration")) or _positive(one.get("original_length"))
        lengths += [length_s] if length_s else []
        if not rate and count and length_s:
            return count / length_s, f"from {count:g} frames in {length_s:g} s"
        if one.get("type") == "timelinelabels":
            value = files.convert(value, _Frames, source, strict=False)
            frames = max([frames, *(span.end for span in value.ranges)])
    if rate:
        return rate, ""
    video_rate = media.video_rate(name)
    length_s = max(lengths, default=None) or (media.duration_s(name) if video_rate else None)
    if length_s is None:
        raise InputError(
            f"{source}: frames without a frame rate to convert them to seconds, expected --fps: "
            f"frameRate of the project's Video tag, {_DEFAULT_RATE:g} where it has none"
        )
    of_video = f" (the video has {video_rate:.6g})" if video_rate else ""
    for candidate, why in (
        (_DEFAULT_RATE, f"the default of Label Studio's Video tag{of_video}"),
        (video_rate, "the rate of the video, since Label Studio's 24 puts labels after its end"),
    ):
        if candidate is not None and frames / candidate <= length_s + _SLACK_S:
            return candidate, why
    raise InputError(
        f"{source}: a label ends at frame {frames:g}, after the {length_s:g} s of the recording at "
        f"{_DEFAULT_RATE:g} frames a second; expected --fps: frameRate of the project's Video tag"
    )


def _rate_key(values: Any, source: str) -> float | None:
    """Returns the frame rate among the keys of an object."""
    for key in _RATE_KEYS if isinstance(values, Mapping) else ():
        if values.get(key) is not None:
            rate = files.to_number(values[key], f"{source}: {key}")
            if not rate > 0:
                raise InputError(f"{source}: {key} is {rate:g}, expected a number above 0")
            return rate
    return None


def _positive(value: Any) -> float | None:
    try:
        number = files.to_number(value, "")
    except InputError:
        return None
    return number if number > 0 else None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(ascii(name[:60])[1:-1] for name in names[:3]) + more


def _ordered(recording: RecordingAnnotation, rate: float | None) -> list[Span]:
    if rate is None:
        return spans_of(recording.instances, per_second=_MICROSECONDS)
    # A point is in the frame on screen at its time; a segment of one frame would be a point.
    instances = [_on_frame(one, rate) for one in recording.instances]
    return spans_of(instances, per_second=rate, shortest=2)


def _on_frame(instance: Instance, rate: float) -> Instance:
    if instance.point_s is None:
        return instance
    # The sum is for times at a frame's start that rounding moved before it.
    frame = math.floor(instance.point_s * rate + 1e-6)
    return dataclasses.replace(instance, point_s=frame / rate)


def _result(span: Span, rate: float | None) -> dict[str, Any]:
    if rate is None:
        kind, name, target = "timeserieslabels", "label", "ts"
        value: dict[str, Any] = {
            "start": span.start / _MICROSECONDS,
            "end": span.end / _MICROSECONDS,
            "instant": span.start == span.end,
        }
    else:
        kind, name, target = "timelinelabels", "videoLabels", "video"
        value = {"ranges": [{"start": span.start + 1, "end": max(span.end, span.start + 1)}]}
    value[kind] = [span.label]
    score = {} if span.score is None else {"score": span.score}
    return {"from_name": name, "to_name": target, "type": kind, "value": value} | score


def _spans(content: Mapping[str, Any], kind: str, rate: float | None, source: str) -> _Spans:
    if kind != "timelinelabels":
        value = files.convert(content, _Seconds, source, strict=False)
        if value.end > _LONGEST_S:
            raise InputError(
                f"{source}: a label ends at {value.end:g}, expected seconds since the start"
            )
        labels = getattr(value, kind)
        if labels is None:
            raise InputError(f"{source}: missing key {kind!r}")
        return [(str(label), value.start, value.end) for label in labels]
    assert rate is not None
    spans, value = [], files.convert(content, _Frames, source, strict=False)
    for one in value.ranges:
        ends = ((one.start - 1) / rate, one.end / rate)
        if one.start == one.end:
            ends = ((one.start - 0.5) / rate,) * 2
        spans += [(str(label), *ends) for label in value.timelinelabels]
    return spans


def _name(data: Mapping[str, Any], is_upload: bool, source: str) -> str:
    """Returns the recording's name, or that of its file without the id of an upload."""
    if isinstance(data.get("recording"), str):
        return data["recording"]
    known = ("video", "video_url", "audio", "csv", "ts", "timeseries")
    texts = [data[key] for key in (*known, *data) if isinstance(data.get(key), str)]
    if not texts:
        raise InputError(f"{source}: no address of a recording in its data")
    try:
        parts = urlsplit(texts[0])
    except ValueError as error:  # such as a bracket that is not closed
        raise InputError(f"{source}: address {texts[0][:200]!r}: {error}") from error
    local = parse_qs(parts.query).get("d")
    name = recording_name(local[0] if local else unquote(parts.path))
    if is_upload or "/upload/" in parts.path:
        name = re.sub(r"^[0-9a-f]{8}-", "", name)
    return name
