"""Annotations in ActivityNet's JSON, with an optional point in each instance.

What a file looks like; the keys marked optional are additions to ActivityNet's::

    {
      "version": "VERSION 1.3",
      "classes": ["jump", "run"],                       optional: otherwise those that occur, sorted
      "overlapping": [["jump", "run"]],                 optional: pairs that may happen at once
      "points": {"law": "uniform", "seed": 0},          optional: how the points were drawn
      "database": {
        "recording_1": {
          "subset": "train",
          "duration": 61.2,                             seconds; or "duration_second"
          "annotations": [
            {"label": "jump", "segment": [3.1, 4.0], "point": 3.4},
            {"label": "run", "point": 20.2},            enough for training
            {"label": "fall"}                           enough for video-level labels
          ]
        }
      }
    }

Other keys are ignored. Segments are half-open, and every time is in seconds.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tal_jax.data import files

# Durations are often cut to whole frames: a segment that ends later by no more is cut as well.
_ROUNDING_S = 0.1


@dataclasses.dataclass(frozen=True)
class Instance:
    """One action: what it is, when it is, and where it was clicked.

    Attributes:
      label: name of its class.
      start_s: when it starts; None where that is not known.
      end_s: when it ends; None where that is not known.
      point_s: a time within it, where there is one.
    """

    label: str
    start_s: float | None = None
    end_s: float | None = None
    point_s: float | None = None


@dataclasses.dataclass(frozen=True)
class RecordingAnnotation:
    """What is known of one recording: its part of the data set, its duration, its instances."""

    subset: str
    duration_s: float
    instances: tuple[Instance, ...] = ()


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What is known of a set of recordings.

    Attributes:
      classes: names of the classes.
      recordings: annotation of each recording, by its name.
      overlapping: pairs of classes whose instances may overlap; a point of one says nothing against
        the other.
      point_law: how the points were drawn, `{"law": ..., "seed": ...}`, where they were drawn.
    """

    classes: tuple[str, ...]
    recordings: dict[str, RecordingAnnotation]
    overlapping: tuple[tuple[str, str], ...] = ()
    point_law: dict[str, Any] | None = None


def load_annotations(path: str | os.PathLike) -> Annotations:
    """Reads an annotation file.

    Raises:
      ValueError: if the file cannot be read, names a recording twice, or holds what
        `parse_annotations` refuses.
    """
    return parse_annotations(files.read_json(path), source=str(path))


def parse_annotations(values: Mapping[str, Any], *, source: str = "annotations") -> Annotations:
    """Reads an ActivityNet dictionary.

    Args:
      values: the dictionary; the module's description shows one.
      source: where it comes from, for messages.

    Raises:
      ValueError: if a key is missing, a number is not a finite number, a class is unknown, a
        segment is empty, backwards or outside its recording, or a point is outside its segment or
        recording.

    >>> jump = {"label": "jump", "segment": [3.0, 4.0], "point": 3.5}
    >>> recording = {"subset": "train", "duration": 9.0, "annotations": [jump]}
    >>> annotations = parse_annotations({"database": {"r": recording}})
    >>> annotations.classes
    ('jump',)
    >>> annotations.recordings["r"].instances[0]
    Instance(label='jump', start_s=3.0, end_s=4.0, point_s=3.5)
    """
    database = files.get_value(values, "database", Mapping, source)
    recordings = {
        name: _parse_recording(entry, f"{source}: {name}") for name, entry in database.items()
    }
    labels = {
        instance.label for recording in recordings.values() for instance in recording.instances
    }
    classes = _parse_classes(values, labels, source)
    for name, recording in recordings.items():
        for instance in recording.instances:
            _check_label(instance.label, classes, f"{source}: {name}")
    point_law = files.get_value(values, "points", Mapping, source) if "points" in values else None
    return Annotations(
        classes=classes,
        recordings=recordings,
        overlapping=_parse_overlapping(values, classes, source),
        point_law=None if point_law is None else dict(point_law),
    )


def annotations_to_dict(annotations: Annotations) -> dict[str, Any]:
    """Returns the ActivityNet dictionary that `parse_annotations` reads as these annotations."""
    values: dict[str, Any] = {"version": "VERSION 1.3", "classes": list(annotations.classes)}
    if annotations.overlapping:
        values["overlapping"] = [list(pair) for pair in annotations.overlapping]
    if annotations.point_law is not None:
        values["points"] = dict(annotations.point_law)
    values["database"] = {
        name: {
            "subset": recording.subset,
            "duration": recording.duration_s,
            "annotations": [_instance_to_dict(instance) for instance in recording.instances],
        }
        for name, recording in annotations.recordings.items()
    }
    return values


def ground_truth_of(annotations: Annotations, names: Iterable[str]) -> dict[str, Any]:
    """Returns the ActivityNet dictionary to evaluate detections of some recordings against.

    Args:
      annotations: annotations of these recordings and maybe others.
      names: the recordings to test on.

    Returns:
      Segments without points, in the subset "test" whatever the file called it.

    Raises:
      ValueError: if an instance has no segment.
    """
    recordings = {}
    for name in names:
        recording = annotations.recordings[name]
        for instance in recording.instances:
            if instance.start_s is None:
                raise ValueError(
                    f"{name}: instance of {instance.label!r} (point: {instance.point_s}) has no "
                    "segment, expected one in every instance of a test recording"
                )
        instances = tuple(
            dataclasses.replace(instance, point_s=None) for instance in recording.instances
        )
        recordings[name] = dataclasses.replace(recording, subset="test", instances=instances)
    return annotations_to_dict(
        dataclasses.replace(annotations, recordings=recordings, point_law=None)
    )


def _instance_to_dict(instance: Instance) -> dict[str, Any]:
    values: dict[str, Any] = {"label": instance.label}
    if instance.start_s is not None:
        values["segment"] = [instance.start_s, instance.end_s]
    if instance.point_s is not None:
        values["point"] = instance.point_s
    return values


def _parse_recording(entry: Any, source: str) -> RecordingAnnotation:
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"{source}: got {entry!r}, expected an object with 'subset', 'duration' and "
            "'annotations'"
        )
    key = (
        "duration_second" if "duration" not in entry and "duration_second" in entry else "duration"
    )
    duration_s = _number(files.get_value(entry, key, object, source), f"{source}: {key}")
    if duration_s <= 0:
        raise ValueError(f"{source}: {key} is {duration_s!r}, expected seconds above 0")
    instances = files.get_value(entry, "annotations", list, source)
    return RecordingAnnotation(
        subset=files.get_value(entry, "subset", str, source),
        duration_s=duration_s,
        instances=tuple(_parse_instance(instance, duration_s, source) for instance in instances),
    )


def _parse_instance(values: Any, duration_s: float, source: str) -> Instance:
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{source}: annotation {values!r}, expected an object with 'label', 'segment' and "
            "'point'"
        )
    label = files.get_value(values, "label", str, source)
    segment, point = values.get("segment"), values.get("point")
    start_s = end_s = point_s = None
    if segment is not None:
        start_s, end_s = _parse_segment(segment, duration_s, source)
    if point is not None:
        point_s = _number(point, f"{source}: point of {label!r}")
        low, high = (0.0, duration_s) if start_s is None else (start_s, end_s)
        if not low <= point_s < high:
            raise ValueError(
                f"{source}: point of {label!r} is {point_s!r} s, expected a time within "
                f"[{low}, {high})"
            )
    return Instance(label, start_s, end_s, point_s)


def _parse_segment(segment: Any, duration_s: float, source: str) -> tuple[float, float]:
    if not isinstance(segment, Sequence) or isinstance(segment, str) or len(segment) != 2:
        raise ValueError(f"{source}: segment is {segment!r}, expected [start, end] in seconds")
    start_s, end_s = (_number(value, f"{source}: segment {segment!r}") for value in segment)
    if not 0 <= start_s < end_s:
        raise ValueError(f"{source}: segment is {[start_s, end_s]} s, expected 0 <= start < end")
    if end_s > duration_s + _ROUNDING_S or start_s >= duration_s:
        raise ValueError(
            f"{source}: segment is {[start_s, end_s]} s, expected it within the recording's "
            f"{duration_s:g} s"
        )
    return start_s, min(end_s, duration_s)


def _parse_classes(values: Mapping[str, Any], labels: set[str], source: str) -> tuple[str, ...]:
    if "classes" not in values:
        return tuple(sorted(labels))
    classes = tuple(files.get_value(values, "classes", list, source))
    if not all(isinstance(label, str) for label in classes) or len(set(classes)) < len(classes):
        raise ValueError(f"{source}: classes are {list(classes)}, expected different strings")
    return classes


def _parse_overlapping(
    values: Mapping[str, Any], classes: tuple[str, ...], source: str
) -> tuple[tuple[str, str], ...]:
    pairs = files.get_value(values, "overlapping", list, source) if "overlapping" in values else []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(
                f"{source}: overlapping holds {pair!r}, expected a pair of different classes"
            )
        for label in pair:
            _check_label(label, classes, f"{source}: overlapping")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _check_label(label: Any, classes: tuple[str, ...], source: str) -> None:
    if label not in classes:
        raise ValueError(f"{source}: unknown class {label!r}, expected one of {', '.join(classes)}")


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} is {value!r}, expected a finite number of seconds")
    return float(value)
