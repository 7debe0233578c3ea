r"""Labels as lines of text: a table of comma-separated values, or Audacity's label track.

::

    recording,subset,duration_s,label,start_s,end_s,point_s       a table
    clip,train,61.2,jump,3.1,4.0,3.4
    clip,train,61.2,run,,,20.2
    quiet,train,30.0,,,,                                          without any instance

    3.100000	4.000000	jump                      a label track of one recording
    20.200000	20.200000	run

Tables of other origin need the columns of the recording and of the label, and times in seconds;
`_COLUMNS` lists the accepted names.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.formats.labels import collect, losses, spans_of

_COLUMNS = {
    "recording": ("recording", "video", "video_id", "file", "filename", "name"),
    "subset": ("subset", "split"),
    "duration_s": ("duration_s", "duration"),
    "label": ("label", "class", "action", "category"),
    "start_s": ("start_s", "start", "start_time", "begin"),
    "end_s": ("end_s", "end", "end_time", "stop"),
    "point_s": ("point_s", "point", "seconds", "time_s", "time"),
    "score": ("score",),
}
_MICROSECONDS = 10**6  # in a second: Audacity writes six digits


def read_csv_labels(path: str | os.PathLike, *, subset: str) -> Annotations:
    """Reads a table of labels, or of detections where it has a column of scores."""
    rows, columns = files.read_csv(path, ()), _find_columns(path)
    details: dict[str, tuple[str, float | None]] = {}
    instances: dict[str, list[Instance]] = {}
    for line, row in enumerate(rows, start=2):
        source = f"{path}: line {line}"
        values = {key: row[name].strip() for key, name in columns.items()}
        name = values["recording"]
        if not name:
            raise InputError(f"{source}: no name of a recording")
        found = (values.get("subset") or subset, _number(values, "duration_s", source))
        if details.setdefault(name, found) != found:
            raise InputError(f"{source}: {name}: another subset or duration than further up")
        instances.setdefault(name, [])
        if values["label"]:
            instances[name].append(_instance(values, source))
    recordings = {
        name: RecordingAnnotation(*details[name], tuple(found)) for name, found in instances.items()
    }
    return collect(str(path), recordings, detections="score" in columns)


def write_csv_labels(path: str | os.PathLike, labels: Annotations) -> list[str]:
    """Writes labels as a table; returns what the format cannot hold, a line each."""
    keys = [key for key in _COLUMNS if key != "score" or labels.detections]
    rows: list[Sequence[Any]] = [keys]
    for name, recording in labels.recordings.items():
        first = (name, recording.subset, recording.duration_s)
        for one in recording.instances:
            row = (*first, one.label, one.start_s, one.end_s, one.point_s, one.score)
            rows.append(row[: len(keys)])
        if not recording.instances:
            rows.append((*first, *[""] * (len(keys) - 3)))
    files.write_csv(path, rows)
    return losses(labels, "subsets", "durations", "empty", "labels", "both", "scores")


def read_audacity(path: Path, *, subset: str) -> Annotations:
    """Reads Audacity's label track, lines of start, end and label between tabs."""
    spans = []
    for line, text in enumerate(files.read_text(path).splitlines(), start=1):
        source = f"{path}: line {line}"
        # A line that begins with a backslash has the frequencies of the label before it.
        if not text.strip() or text.startswith("\\"):
            continue
        fields = text.split("\t", 2)
        if len(fields) < 3:
            raise InputError(f"{source} is {text!r}, expected start, end and label between tabs")
        start_s, end_s = (files.to_number(field, f"{source}: time") for field in fields[:2])
        spans.append((fields[2].strip(), start_s, end_s))
    recording = {path.stem: RecordingAnnotation(subset)}
    return collect(str(path), recording, spans={path.stem: spans})


def to_audacity(path: str | os.PathLike, recording: RecordingAnnotation) -> bytes:
    """Returns the content of the label track of one recording."""
    lines = []
    for span in spans_of(recording.instances, per_second=_MICROSECONDS):
        if len(span.label.splitlines()) != 1:
            raise InputError(
                f"{path}: label {span.label!r} has a line break, expected one line in Audacity"
            )
        times = (
            f"{time // _MICROSECONDS}.{time % _MICROSECONDS:06}" for time in (span.start, span.end)
        )
        lines.append("\t".join((*times, span.label)) + "\n")
    return "".join(lines).encode()


def is_label_track(text: str) -> bool:
    """Whether text is Audacity's, rather than a list of points."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "\t" in first


def _find_columns(path: str | os.PathLike) -> dict[str, str]:
    _, header = next(files.read_csv_lines(path), (0, []))
    if {"class", "video_id", "point"} <= set(header):
        raise InputError(
            f"{path}: a table of points in frames, which `tal-jax points convert` reads; expected "
            "columns in seconds"
        )
    known: Mapping[str, str] = {name.strip().lower(): name for name in reversed(header)}
    columns = {}
    for key, spellings in _COLUMNS.items():
        spelled = next((spelling for spelling in spellings if spelling in known), None)
        if spelled is not None:
            columns[key] = known[spelled]
    for key in ("recording", "label"):
        if key not in columns:
            raise InputError(
                f"{path}: no column {key!r}, expected a first line like "
                "recording,label,start_s,end_s,point_s"
            )
    return columns


def _instance(values: Mapping[str, str], source: str) -> Instance:
    start_s, end_s, point_s = (
        _number(values, key, source) for key in ("start_s", "end_s", "point_s")
    )
    score = files.to_number(values["score"], f"{source}: score") if "score" in values else None
    if (start_s is None) != (end_s is None):
        raise InputError(f"{source}: a start without an end or the reverse, expected both or none")
    if start_s is not None and start_s == end_s and point_s is None:
        start_s, end_s, point_s = None, None, start_s
    return Instance(values["label"], start_s, end_s, point_s, score)


def _number(values: Mapping[str, str], key: str, source: str) -> float | None:
    return files.to_number(values[key], f"{source}: {key}") if values.get(key) else None
