"""What the label files of all tools have in common: spans of time, a list for each recording."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tal_jax.data.annotations import Instance
from tal_jax.data.point_sets import join_clicks
from tal_jax.data.raw_annotations import RawAnnotations, RawRecording
from tal_jax.extraction import tables, video

_SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus")
_MEDIA = (*video.SUFFIXES, *tables.SUFFIXES, *_SOUNDS)


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a label file says.

    Attributes:
      annotations: the instances of each recording; durations and subsets where the file tells them.
      scores: a score for each instance of each recording, where these are detections.
      notes: what was left out or is not as it was, a line each.
    """

    annotations: RawAnnotations
    scores: dict[str, tuple[float, ...]] | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Span:
    """A label in whole units of a format's time; one of no length is a point."""

    label: str
    start: int
    end: int
    score: float | None = None


def spans_of(
    instances: Sequence[Instance],
    *,
    per_second: float,
    scores: Sequence[float] | None = None,
    shortest: int = 1,
) -> list[Span]:
    """Rounds instances to whole units; one with a segment and a point becomes two spans.

    Args:
      instances: those without any time become nothing.
      per_second: units in a second.
      scores: of the instances.
      shortest: units of the shortest segment.

    >>> spans_of([Instance("jump", 1.0, 2.5, 1.25)], per_second=1000)
    [Span(label='jump', start=1000, end=2500, score=None), \
Span(label='jump', start=1250, end=1250, score=None)]
    """
    spans = []
    for index, instance in enumerate(instances):
        score = None if scores is None else scores[index]
        low, high = 0, math.inf
        if instance.start_s is not None:
            low = round(instance.start_s * per_second)
            high = max(round(instance.end_s * per_second), low + shortest)
            spans.append(Span(instance.label, low, high, score))
        if instance.point_s is not None:
            # Rounding must not move a point out of its segment.
            point = min(max(round(instance.point_s * per_second), low), high - 1)
            spans.append(Span(instance.label, point, point, score))
    return spans


def instances_of(
    spans: Iterable[tuple[str, float, float]], source: str
) -> tuple[tuple[Instance, ...], int]:
    """Makes instances of `(label, start_s, end_s)`; points go into segments of their class.

    Returns:
      The instances, and how many points went into segments.

    Raises:
      ValueError: if a span begins before 0 or ends before it begins, or a label is empty.

    >>> instances_of([("jump", 1.0, 2.5), ("jump", 1.25, 1.25), ("jump", 9.0, 9.0)], "a.txt")[0]
    (Instance(label='jump', start_s=1.0, end_s=2.5, point_s=1.25), \
Instance(label='jump', start_s=None, end_s=None, point_s=9.0))
    """
    segments, clicks = [], []
    for label, start_s, end_s in spans:
        if not 0 <= start_s <= end_s:
            raise ValueError(
                f"{source}: {label!r} is from {start_s!r} to {end_s!r} s, expected 0 <= start and "
                "start <= end"
            )
        if not label:
            raise ValueError(f"{source}: the label at {start_s:g} s is empty, expected a class")
        if start_s < end_s:
            segments.append(Instance(label, start_s, end_s))
        else:
            clicks.append(Instance(label, point_s=start_s))
    instances = join_clicks(clicks, segments)
    return instances, len(segments) + len(clicks) - len(instances)


def collect(
    kind: str,
    source: str,
    recordings: Mapping[str, RawRecording],
    *,
    classes: Iterable[str] = (),
    joined: int = 0,
    notes: Iterable[str] = (),
) -> Labels:
    """Puts together what a reader has found.

    Args:
      kind: of the file.
      source: the path.
      recordings: by name.
      classes: the file's own list; those that it lacks come behind, sorted.
      joined: number of points that went into segments.
      notes: a line each.
    """
    occurring = {i.label for recording in recordings.values() for i in recording.instances}
    listed = tuple(dict.fromkeys(classes))
    lines = [f"{source}: {note}" for note in notes]
    if joined:
        lines.append(f"{source}: points put into the segment of their class around them: {joined}")
    raw = RawAnnotations(
        kind=kind,
        source=source,
        recordings=dict(recordings),
        classes=(*listed, *sorted(occurring - set(listed))),
    )
    return Labels(raw, notes=tuple(lines))


def losses(labels: Labels, *keeps: str) -> list[str]:
    """Tells what a format has no place for.

    Args:
      labels: what is to be written.
      keeps: what the format can hold of "subsets", "durations", "classes", "empty", "labels",
        "both" and "scores".

    Returns:
      A line each of what is there and would not be read again.
    """
    raw = labels.annotations
    every = [i for recording in raw.recordings.values() for i in recording.instances]
    found = {
        "subsets": (len({r.subset for r in raw.recordings.values()}) > 1, "subsets"),
        "durations": (any(r.duration_s for r in raw.recordings.values()), "durations"),
        "classes": (
            set(raw.classes) != {instance.label for instance in every},
            "classes without an instance",
        ),
        "empty": (
            any(not recording.instances for recording in raw.recordings.values()),
            "recordings without an instance",
        ),
        "labels": (
            any(i.start_s is None and i.point_s is None for i in every),
            "instances without a time",
        ),
        "scores": (labels.scores is not None, "scores"),
    }
    lost = [words for key, (is_there, words) in found.items() if is_there and key not in keeps]
    if raw.overlapping:
        lost.append("pairs of classes that may overlap")
    if raw.point_law is not None:
        lost.append("how the points were drawn")
    lines = [f"left out, for the format has no place for them: {', '.join(lost)}"] if lost else []
    both = sum(i.start_s is not None and i.point_s is not None for i in every)
    if both and "both" not in keeps:
        lines.append(
            f"instances written as a segment and a point, which are joined when read here: {both}"
        )
    return lines


def recording_name(path: str) -> str:
    """Returns the name of a recording's file or address without folder and suffix.

    >>> recording_name("file:///C:/videos/clip.one.mp4")
    'clip.one'
    >>> recording_name("clip.one")
    'clip.one'
    """
    name = PurePosixPath(path.replace("\\", "/")).name
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in _MEDIA else name


def find_media(folder: str | Path, name: str) -> Path | None:
    """Returns the video, table or sound of a recording in a folder, if one lies there."""
    for suffix in _MEDIA:
        for spelled in (suffix, suffix.upper()):
            path = Path(folder) / f"{name}{spelled}"
            try:
                if path.is_file():
                    return path
            except OSError:  # no name of a file, such as one of a thousand letters
                return None
    return None


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in video.SUFFIXES


def number(value: Any, what: str) -> float:
    """Returns a number of seconds that a file spells as a number or as text.

    Raises:
      ValueError: if it is not a finite number.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{what} is {value!r}, expected a finite number of seconds")
    return found
