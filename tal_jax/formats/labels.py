"""Functions shared by the label formats: spans of time, and the files of recordings."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    classes_of,
    lost_labels,
)
from tal_jax.data.point_sets import join_clicks
from tal_jax.extraction import tables, video

_SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus")
_MEDIA = (*video.SUFFIXES, *tables.SUFFIXES, *_SOUNDS)


@dataclasses.dataclass(frozen=True)
class Span:
    """A label in integer units of a format's time; one without length is a point."""

    label: str
    start: int
    end: int
    score: float | None = None


def spans_of(instances: Sequence[Instance], *, per_second: float, shortest: int = 1) -> list[Span]:
    """Rounds instances to integer units, in order of time; a segment has `shortest` at least.

    An instance with a segment and a point becomes two spans, one without any time none.

    >>> for span in spans_of([Instance("jump", 1.0, 2.5, 1.25)], per_second=1000):
    ...     print(span.label, span.start, span.end)
    jump 1000 2500
    jump 1250 1250
    """
    spans = []
    for instance in instances:
        low, high = 0, math.inf
        if instance.start_s is not None and instance.end_s is not None:
            low = round(instance.start_s * per_second)
            high = max(round(instance.end_s * per_second), low + shortest)
            spans.append(Span(instance.label, low, high, instance.score))
        if instance.point_s is not None:
            # Rounding must not move a point out of its segment.
            point = min(max(round(instance.point_s * per_second), low), high - 1)
            spans.append(Span(instance.label, int(point), int(point), instance.score))
    return sorted(spans, key=lambda span: (span.start, span.end))


def from_zero(labels: Annotations) -> tuple[Annotations, list[str]]:
    """Cuts segments that begin before 0 s, and leaves out times that formats cannot hold.

    Those are points and segments before 0 s, and segments that end before they start. Returns the
    labels, and a note for each of both with the count.
    """
    recordings, cut, left_out = {}, 0, 0
    for name, recording in labels.recordings.items():
        kept = []
        for one in recording.instances:
            new = _from_zero(one)
            lost = (one.segment is not None) - (new.segment is not None)
            lost += (one.point_s is not None) - (new.point_s is not None)
            left_out += lost
            cut += new.segment is not None and new.segment != one.segment
            if not lost or new.segment is not None or new.point_s is not None:
                kept.append(new)
        recordings[name] = dataclasses.replace(recording, instances=tuple(kept))
    notes = [f"segments that begin before 0 s, cut there: {cut}"] if cut else []
    if left_out:
        notes.append(
            f"times before 0 s, or segments that end before they start, left out: {left_out}"
        )
    return dataclasses.replace(labels, recordings=recordings), notes


def _from_zero(instance: Instance) -> Instance:
    start_s, end_s, point_s = instance.start_s, instance.end_s, instance.point_s
    if start_s is not None and end_s is not None:
        if end_s < start_s or end_s <= 0 > start_s:
            start_s = end_s = None
        else:
            start_s = max(start_s, 0.0)
    point_s = None if point_s is not None and point_s < 0 else point_s
    return dataclasses.replace(instance, start_s=start_s, end_s=end_s, point_s=point_s)


def instances_of(
    spans: Iterable[tuple[str, float, float]], source: str
) -> tuple[tuple[Instance, ...], int]:
    """Makes instances of `(label, start_s, end_s)`, and counts the points put into segments.

    >>> instances, joined = instances_of(
    ...     [("jump", 1.0, 2.5), ("jump", 1.25, 1.25), ("jump", 9.0, 9.0)], "a.txt"
    ... )
    >>> [(one.start_s, one.end_s, one.point_s) for one in instances], joined
    ([(1.0, 2.5, 1.25), (None, None, 9.0)], 1)
    """
    return join_points([timed_instance(*span, source=source) for span in spans])


def timed_instance(
    label: str,
    start_s: float,
    end_s: float,
    *,
    source: str,
    score: float | None = None,
    extras: Mapping[str, Any] | None = None,
) -> Instance:
    """Makes an instance of a label, a point where it has no length; raises as `collect` does."""
    if not 0 <= start_s <= end_s:
        raise InputError(
            f"{source}: {label[:60]!r} is from {start_s!r} to {end_s!r} s, expected 0 <= start and "
            "start <= end"
        )
    if not label:
        raise InputError(f"{source}: the label at {start_s:g} s is empty, expected a class")
    if start_s < end_s:
        return Instance(label, start_s, end_s, score=score, extras=extras or {})
    return Instance(label, point_s=start_s, score=score, extras=extras or {})


def join_points(instances: Sequence[Instance]) -> tuple[tuple[Instance, ...], int]:
    """Puts points into the segments of their class around them, and counts them."""
    segments = [one for one in instances if one.segment is not None]
    joined = join_clicks([one for one in instances if one.segment is None], segments)
    return joined, len(instances) - len(joined)


def collect(
    source: str,
    recordings: Mapping[str, RecordingAnnotation],
    *,
    spans: Mapping[str, Iterable[tuple[str, float, float]]] | None = None,
    classes: Iterable[str] = (),
    left_out: Mapping[str, int] | None = None,
    joined: int = 0,
    notes: Iterable[str] = (),
    detections: bool = False,
) -> Annotations:
    """Makes annotations of what a reader found.

    Args:
      source: the path.
      recordings: by name.
      spans: `(label, start_s, end_s)` of recordings without instances, by name.
      classes: classes listed in the file; others that occur follow, sorted.
      left_out: what was left out, and how often.
      joined: points of `recordings` that were put into segments.
      notes: one line each.
      detections: whether the instances are detections, with scores.

    Raises:
      InputError: if a span begins before 0 or ends before it begins, a label is empty, or a label
        or a name is no Unicode.
    """
    recordings = dict(recordings)
    for name, found in (spans or {}).items():
        instances, count = instances_of(found, f"{source}: {name}")
        recordings[name] = dataclasses.replace(recordings[name], instances=instances)
        joined += count
    lines = [f"{what}, left out: {count}" for what, count in (left_out or {}).items() if count]
    lines += notes
    if joined:
        lines.append(f"points put into the segment of their class around them: {joined}")
    listed = tuple(dict.fromkeys(classes))
    others = tuple(label for label in classes_of(recordings) if label not in listed)
    for text in (*listed, *others, *recordings):
        files.check_text(text, source)
    return Annotations(
        classes=(*listed, *others),
        recordings=recordings,
        detections=detections,
        source=source,
        notes=tuple(f"{source}: {line}" for line in lines),
    )


def losses(labels: Annotations, *keeps: str) -> list[str]:
    """Lists what a format cannot hold, a line each.

    `keeps` is what it can hold of "subsets", "durations", "classes", "empty", "labels", "both" and
    "scores".
    """
    every, recordings = labels.instances, labels.recordings.values()
    found = {
        "subsets": (len({r.subset for r in recordings}) > 1, "subsets"),
        "durations": (any(r.duration_s for r in recordings), "durations"),
        "classes": (
            set(labels.classes) != {instance.label for instance in every},
            "classes without an instance",
        ),
        "empty": (any(not r.instances for r in recordings), "recordings without an instance"),
        "labels": (
            any(i.start_s is None and i.point_s is None for i in every),
            "instances without a time",
        ),
        "scores": (labels.detections, "scores"),
    }
    lost = [words for key, (present, words) in found.items() if present and key not in keeps]
    if labels.overlapping:
        lost.append("pairs of classes that may overlap")
    if labels.point_distribution is not None:
        lost.append("how the points were drawn")
    others = [] if labels.detections else other_keys(labels)
    if others:
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        lost.append(f"other keys ({', '.join(others[:8])}{more})")
    lost += lost_labels(labels)
    lines = [f"left out, since the format cannot hold it: {', '.join(lost)}"] if lost else []
    both = sum(i.start_s is not None and i.point_s is not None for i in every)
    if both and "both" not in keeps:
        lines.append(
            f"instances written as a segment and a point, which are joined when read here: {both}"
        )
    return lines


def other_keys(labels: Annotations) -> list[str]:
    """Returns the keys of an annotation file that only this format keeps, without its version."""
    found = dict.fromkeys(key for key in labels.extras if key != "version")
    for recording in labels.recordings.values():
        found |= dict.fromkeys(recording.extras)
        for one in recording.instances:
            found |= dict.fromkeys(one.extras)
    return [ascii(key[:40])[1:-1] for key in found]


def address_path(text: str) -> str:
    """Returns the path of an address (a URL); any other text is returned as it is.

    >>> address_path("https://example.com/a/my%20clip.mp4?raw=1")
    '/a/my clip.mp4'
    >>> address_path("100%25.mp4")
    '100%25.mp4'
    """
    if "://" not in text:
        return text
    try:
        return unquote(urlsplit(text).path)
    except ValueError:  # such as a bracket that is not closed
        return text


class RecordingNames:
    """Names of recordings as a file has them: with or without folder, suffix and address."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def find(self, given: str, source: str) -> str:
        """Returns the name of a recording.

        Raises:
          InputError: if it is empty, or if another file would be the same recording.
        """
        name = recording_name(address_path(given))
        if not name:
            raise InputError(f"{source}: no name of a recording")
        other = self._given.setdefault(name, given)
        if other == name:
            self._given[name] = given
        elif given not in (other, name):
            raise InputError(
                f"{source}: {other[:60]!r} and {given[:60]!r} would both be the recording "
                f"{name[:60]!r}, expected different names"
            )
        return name


def recording_name(path: str) -> str:
    """Returns the name of a recording's file or address without folder and suffix.

    >>> recording_name("file:///C:/videos/clip.one.mp4")
    'clip.one'
    >>> recording_name("clip.one")
    'clip.one'

    Raises:
      InputError: if it is no Unicode.
    """
    name = PurePosixPath(path.replace("\\", "/")).name
    files.check_text(name, "recording name")
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in _MEDIA else name


def find_media(folder: str | Path, name: str) -> Path | None:
    """Returns the video, table or sound file of a recording in a folder, if there is one."""
    for suffix in _MEDIA:
        for spelled in (suffix, suffix.upper()):
            path = Path(folder) / f"{name}{spelled}"
            try:
                if path.is_file():
                    return path
            except OSError:  # no valid file name, such as one of a thousand letters
                return None
    return None
