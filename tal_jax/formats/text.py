"""Audacity's label track, `.txt`: lines of start, end and label between tabs, of one recording.

::

    3.100000	4.000000	jump
    20.200000	20.200000	run
"""

import os
import re
from pathlib import Path

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, RecordingAnnotation
from tal_jax.formats.labels import collect, recording_name, spans_of

_MICROSECONDS = 10**6  # in a second: Audacity writes six digits


def read_audacity(path: Path, content: str, *, subset: str) -> Annotations:
    """Parses Audacity's label track, lines of start, end and label between tabs."""
    spans = []
    for line, text in enumerate(content.splitlines(), start=1):
        source = f"{path}: line {line}"
        # A line that begins with a backslash has the frequencies of the label before it.
        if not text.strip() or text.startswith("\\"):
            continue
        fields = text.split("\t", 2)
        if len(fields) < 3:
            raise InputError(f"{source} is {text!r}, expected start, end and label between tabs")
        # Some versions write the decimal separator of the user's language.
        times = (re.sub(r"^(\d+),(\d+)$", r"\1.\2", field.strip()) for field in fields[:2])
        start_s, end_s = (files.to_number(time, f"{source}: time") for time in times)
        spans.append((fields[2].strip(), start_s, end_s))
    name = recording_name(path.stem)
    return collect(str(path), {name: RecordingAnnotation(subset)}, spans={name: spans})


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
    """Whether text is Audacity's, rather than a list of points or a table."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "\t" in first
