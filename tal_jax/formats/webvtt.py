"""WebVTT, `.vtt`: the labels of one recording as cues, which browsers and players show.

::

    WEBVTT

    segment 1
    00:00:03.100 --> 00:00:04.000
    jump

    point 2
    00:00:20.200 --> 00:00:20.201
    run

Each line of a cue is a label; several at a time are several cues, which overlap. A cue has to have
a length: a point lasts a millisecond, and its identifier marks it.
"""

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, RecordingAnnotation
from tal_jax.formats.labels import collect, recording_name, spans_of

_MILLISECONDS = 1000  # in a second
_TIME = r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
_TIMING = re.compile(rf"\s*{_TIME}[ \t]+-->[ \t]+{_TIME}(?:[ \t].*)?")
# Blocks that are no cues: comments, styles and regions of the screen.
_OTHER = re.compile(r"(NOTE|STYLE|REGION)(?=\s|$)")
_SHOWN = 60  # characters of a line in a message


def is_webvtt(text: str) -> bool:
    """Whether a text has the signature of WebVTT."""
    return re.match(r"WEBVTT(?=[ \t\n]|$)", text) is not None


def read_webvtt(path: Path, content: str, *, subset: str) -> Annotations:
    """Parses the cues of a recording.

    Raises:
      InputError: if a cue has no valid times, ends before it begins, or has no text.
    """
    source = str(path)
    if not is_webvtt(content):
        raise InputError(f"{source}: expected WEBVTT at its start")
    spans: list[tuple[str, float, float]] = []
    notes = []
    header, *blocks = _blocks(content)
    if any(line.startswith("X-TIMESTAMP-MAP") for line in header[1]):
        notes.append("X-TIMESTAMP-MAP, a shift of the times in a stream, is not applied")
    for number, lines in blocks:
        if _OTHER.match(lines[0]) and "-->" not in lines[0]:
            continue
        name = "" if "-->" in lines[0] else lines.pop(0)
        line = number + bool(name)
        timing = _TIMING.fullmatch(lines[0]) if lines else None
        if timing is None:
            found = lines[0][:_SHOWN] if lines else name[:_SHOWN]
            raise InputError(
                f"{source}: line {line} is {found!r}, expected times such as "
                "00:00:03.100 --> 00:00:04.000"
            )
        start_ms, end_ms = _milliseconds(timing.groups()[:4]), _milliseconds(timing.groups()[4:])
        if start_ms > end_ms:
            raise InputError(f"{source}: line {line}: a cue that ends before it begins")
        is_point = re.fullmatch(r"point \d+", name) and end_ms - start_ms <= 1
        labels = [label for text in lines[1:] if (label := _plain(text))]
        if not labels:
            raise InputError(f"{source}: line {line}: a cue without text, expected a label")
        end_ms = start_ms if is_point else end_ms
        spans += [(label, start_ms / _MILLISECONDS, end_ms / _MILLISECONDS) for label in labels]
    name = recording_name(path.stem)
    recordings = {name: RecordingAnnotation(subset)}
    return collect(source, recordings, spans={name: spans}, notes=notes)


def to_webvtt(path: str | os.PathLike, recording: RecordingAnnotation) -> bytes:
    """Returns the content of the cues of one recording.

    Raises:
      InputError: if a label is not one line of text.
    """
    blocks = ["WEBVTT\n"]
    for number, span in enumerate(spans_of(recording.instances, per_second=_MILLISECONDS), start=1):
        if len(span.label.splitlines()) != 1 or _plain(_escaped(span.label)) != span.label:
            raise InputError(
                f"{path}: label {span.label[:_SHOWN]!r}, expected one line in WebVTT, without "
                "space around it"
            )
        kind = "segment" if span.start < span.end else "point"
        times = f"{_clock(span.start)} --> {_clock(max(span.end, span.start + 1))}"
        blocks.append(f"{kind} {number}\n{times}\n{_escaped(span.label)}\n")
    return "\n".join(blocks).encode()


def _blocks(content: str) -> Iterator[tuple[int, list[str]]]:
    """Yields blocks between empty lines, with the number of their first line; the header first."""
    block: list[str] = []
    lines = content.split("\n")
    for number, line in enumerate([*lines, ""], start=1):
        if line:
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _milliseconds(parts: tuple[str | None, ...]) -> int:
    hours, minutes, seconds, millis = (int(part or 0) for part in parts)
    return ((hours * 60 + minutes) * 60 + seconds) * _MILLISECONDS + millis


def _plain(text: str) -> str:
    """The text of a line of a cue, without tags.

    >>> _plain("<v Ann><i>jump &amp; run</i>")
    'jump & run'
    """
    return html.unescape(re.sub(r"<[^>]*>", "", text)).strip()


def _escaped(label: str) -> str:
    return label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(time_ms: int) -> str:
    """Milliseconds as hours, minutes and seconds.

    >>> _clock(360_061_002)
    '100:01:01.002'
    """
    seconds, millis = divmod(time_ms, _MILLISECONDS)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{millis:03}"
