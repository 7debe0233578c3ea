"""Raven's selection tables, `.txt`: lines between tabs, the selections of one sound.

::

    Selection  View           Channel  Begin Time (s)  End Time (s)  Low Freq (Hz)  ...  Annotation
    1          Spectrogram 1  1        3.100000        4.000000      0.000          ...  jump

A selection may stand there once for each view and channel. Times count from the start of the open
sound; where that is a sequence of files, "Begin File" and "File Offset (s)" have the file and the
time in it. Annotations are columns that users name.
"""

import os
import re
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.extraction import video
from tal_jax.formats.labels import (
    RecordingNames,
    collect,
    join_points,
    recording_name,
    spans_of,
    timed_instance,
)
from tal_jax.formats.named_rows import has_columns, read_named_rows

SUFFIX = ".Table.1.selections.txt"  # as Raven names them: clip.Table.1.selections.txt
_HEADS = (
    {"selection", "begin time (s)", "end time (s)"},
    {"view", "begin time (s)", "end time (s)"},
)
_MICROSECONDS = 10**6
# Columns of annotations, the first one that has any text; "Annotation" is Raven's own name.
_LABELS = (
    *("annotation", "annotations", "species", "common name", "label", "class", "call type", "call"),
    *("behavior", "behaviour", "species code", "tag", "tag 1", "type", "sound", "notes"),
)
_SCORES = ("score", "confidence")
_FREQUENCIES = {"low freq (hz)": "low_freq_hz", "high freq (hz)": "high_freq_hz"}
_HIGHEST_HZ = 22050.0  # of the sound of a CD, where the rate is unknown
_SHOWN = 60


def is_raven(text: str) -> bool:
    """Whether a text is a selection table."""
    return has_columns(text.split("\n", 1)[0], _HEADS, "\t")


def read_raven(path: Path, content: str, *, subset: str) -> Annotations:
    """Parses a selection table; with scores, as of detectors, its selections are detections.

    Raises:
      InputError: if there is no column of annotations, a time is no number, or selections of
        several files have no time in them.
    """
    source = str(path)
    table = read_named_rows(source, content, _HEADS, "\t", quotes=False)
    label = _label_column(table.rows, table.columns, source)
    score = next((name for name in _SCORES if _is_numeric(table.rows, name)), None)
    name_of_file = _name(path)
    selections: dict[tuple[Any, ...], dict[str, str]] = {}
    for line, row in table.rows:
        # Rows of one selection, in several views and channels, agree in these.
        own = row.get("selection") or line
        key = (_file(row), own, row["begin time (s)"], row["end time (s)"])
        first = selections.setdefault(key, row | {"line": str(line)})
        if not first[label]:
            first[label] = row[label]
    _check_files(table.columns, {key[0] for key in selections}, source)
    names, unlabelled = RecordingNames(), 0
    found: dict[str, list[Instance]] = {}
    for row in selections.values():
        where = f"{source}: line {row['line']}"
        name = names.find(_file(row), where) if _file(row) else name_of_file
        found.setdefault(name, [])
        unlabelled += not row[label]
        if row[label]:
            found[name].append(_instance(row, label, score, where))
    joined, recordings = 0, {}
    for name, instances in (found or {name_of_file: []}).items():
        if score is None:
            instances, count = join_points(instances)
            joined += count
        recordings[name] = RecordingAnnotation(subset, instances=tuple(instances))
    return collect(
        source,
        recordings,
        left_out={"selections without an annotation": unlabelled},
        joined=joined,
        notes=[] if label == "annotation" else [f"labels are those of the column {label!r}"],
        detections=score is not None,
    )


def to_raven(
    path: str | os.PathLike, recording: RecordingAnnotation, *, media: Path | None, scores: bool
) -> bytes:
    """Returns the content of the selection table of one recording.

    Selections have the frequencies of their extras, else those of the whole sound.

    Raises:
      InputError: if a label is not one line of text.
    """
    highest_hz = _highest_hz(media)
    header = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"]
    header += ["Low Freq (Hz)", "High Freq (Hz)", *(["Score"] if scores else []), "Annotation"]
    lines = [header]
    spans = [
        (span, instance.extras)
        for instance in recording.instances
        for span in spans_of([instance], per_second=_MICROSECONDS)
    ]
    spans.sort(key=lambda one: (one[0].start, one[0].end))
    for number, (span, extras) in enumerate(spans, start=1):
        if (
            len(span.label.splitlines()) != 1
            or span.label != span.label.strip()
            or "\t" in span.label
        ):
            raise InputError(
                f"{path}: label {span.label[:_SHOWN]!r}, expected one line in Raven, without tabs"
            )
        low_hz, high_hz = (
            value if isinstance(value := extras.get(key), int | float) else default
            for key, default in (("low_freq_hz", 0.0), ("high_freq_hz", highest_hz))
        )
        times = [
            f"{time // _MICROSECONDS}.{time % _MICROSECONDS:06}" for time in (span.start, span.end)
        ]
        score = [f"{span.score:.9g}"] if scores else []
        lines.append(
            [str(number), "Spectrogram 1", "1", *times, f"{low_hz:.3f}", f"{high_hz:.3f}"]
            + [*score, span.label]
        )
    return "".join("\t".join(line) + "\n" for line in lines).encode()


def _label_column(rows: list[tuple[int, dict[str, str]]], columns: list[str], source: str) -> str:
    present = [name for name in _LABELS if name in columns]
    filled = [name for name in present if any(row[name] for _, row in rows)]
    if not present:
        raise InputError(
            f"{source}: a selection table without a column of annotations, found "
            f"{', '.join(repr(name[:_SHOWN]) for name in columns[:12])}; expected Annotation"
        )
    return (filled or present)[0]


def _is_numeric(rows: list[tuple[int, dict[str, str]]], name: str) -> bool:
    return bool(rows) and all(files.is_number(row.get(name, "")) for _, row in rows)


def _file(row: dict[str, str]) -> str:
    """The file of a selection; "" where the table has none."""
    return row.get("begin file") or row.get("begin path") or ""


def _check_files(columns: list[str], found: set[str], source: str) -> None:
    if len(found) > 1 and "file offset (s)" not in columns:
        raise InputError(
            f"{source}: selections of {len(found)} files, and Begin Time counts through all of "
            "them; expected the column File Offset (s) (Raven: Choose Measurements)"
        )


def _instance(row: dict[str, str], label: str, score: str | None, source: str) -> Instance:
    begin_s, end_s = (_number(row, f"{key} time (s)", source) for key in ("begin", "end"))
    start_s = begin_s
    if _file(row) and row.get("file offset (s)"):
        start_s = _number(row, "file offset (s)", source)
    extras = {
        key: _number(row, name, source) for name, key in _FREQUENCIES.items() if row.get(name)
    }
    return timed_instance(
        row[label],
        start_s,
        # The length of the selection, without rounding where the file is the whole sound.
        end_s if start_s == begin_s else start_s + (end_s - begin_s),
        source=source,
        score=None if score is None else _number(row, score, source),
        extras=extras,
    )


def _number(row: dict[str, str], name: str, source: str) -> float:
    text = row[name][:_SHOWN]
    return files.to_number(re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", text), f"{source}: {name}")


def _name(path: Path) -> str:
    """The recording of a table that names none: clip of clip.Table.1.selections.txt."""
    stem = re.sub(
        r"(\.table\.\d+)?(\.birdnet)?(\.selections)?(\.table)?$", "", path.stem, flags=re.IGNORECASE
    )
    return recording_name(stem or path.stem)


def _highest_hz(media: Path | None) -> float:
    """Half of the sampling rate of a recording's sound."""
    if media is None:
        return _HIGHEST_HZ
    try:
        rate = video.sound_rate(media)
    except InputError:  # PyAV is missing, or cannot read it
        rate = None
    return _HIGHEST_HZ if rate is None else rate / 2
