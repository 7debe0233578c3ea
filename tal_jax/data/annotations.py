"""Annotations of recordings: the types, and ActivityNet's JSON with an optional point per instance.

The layout of a file; the keys marked optional are additions to ActivityNet's::

    {
      "version": "VERSION 1.3",
      "classes": ["jump", "run"],                       optional: otherwise those that occur, sorted
      "overlapping": [["jump", "run"]],                 optional: pairs that may occur at once
      "points": {"law": "uniform", "seed": 0},          optional: how the points were drawn
      "database": {
        "recording_1": {
          "subset": "train",
          "duration": 61.2,                             seconds; or "duration_second"
          "background": [12.5, 40.1],                   optional: background points
          "done": [[0.0, 30.0]],                        optional: done stretches; without the
                                                        key the recording is wholly done
          "annotations": [
            {"label": "jump", "segment": [3.1, 4.0], "point": 3.4},
            {"label": "run", "point": 20.2},            enough for training
            {"label": "fall"}                           enough for video-level labels
          ]
        }
      }
    }

At a background point there is no action of any class; within a done stretch every action is
labelled. Time that is in neither is unknown: unlabelled is not background.

Other keys are kept as `extras` and written again. Segments are half-open, and every time is in
seconds.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tal_jax._errors import InputError
from tal_jax.data import files

# Durations are often cut to whole frames: a segment that ends later by no more is cut as well.
ROUNDING_S = 0.1


@dataclasses.dataclass(frozen=True)
class Instance:
    """One action instance: its class, its segment, its point, and the score of a detection.

    Attributes:
      label: name of its class.
      start_s: start of its segment; None where unknown.
      end_s: end of its segment, not included; None where unknown.
      point_s: a time within it, where one is annotated.
      score: confidence, where the instance is a detection.
      extras: other keys of the file.
    """

    label: str
    start_s: float | None = None
    end_s: float | None = None
    point_s: float | None = None
    score: float | None = None
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def segment(self) -> tuple[float, float] | None:
        """Start and end in seconds; None where unknown."""
        if self.start_s is None or self.end_s is None:
            return None
        return self.start_s, self.end_s


@dataclasses.dataclass(frozen=True)
class RecordingAnnotation:
    """Annotation of one recording.

    Attributes:
      subset: the part of the data set, as the file spells it; "" where the file names none.
      duration_s: None where the file has none.
      instances: in the file's order.
      frame_rate: frames per second of the original video, the unit of point files in frames; None
        where the file has none.
      background_s: background points, times at which there is no action of any class.
      done_s: done stretches, starts and ends between which every action is labelled; None for the
        whole recording.
      extras: other keys of the file, among them "fps" where it has one.
    """

    subset: str = ""
    duration_s: float | None = None
    instances: tuple[Instance, ...] = ()
    frame_rate: float | None = None
    background_s: tuple[float, ...] = ()
    done_s: tuple[tuple[float, float], ...] | None = None
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Annotations of a set of recordings, from any kind of file.

    Attributes:
      classes: names of the classes.
      recordings: annotation of each recording, by its name.
      overlapping: pairs of classes whose instances may overlap: a point of one is no negative of
        the other.
      point_distribution: `{"law": ..., "seed": ...}` of drawn points; None for any others.
      detections: whether the instances are detections, with scores.
      source: path of the file, for messages.
      notes: one line for each thing that a reader left out or changed.
      extras: other keys of the file, at its top level.
    """

    classes: tuple[str, ...]
    recordings: dict[str, RecordingAnnotation]
    overlapping: tuple[tuple[str, str], ...] = ()
    point_distribution: dict[str, Any] | None = None
    detections: bool = False
    source: str = dataclasses.field(default="annotations", compare=False)
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def instances(self) -> list[Instance]:
        """The instances of all recordings."""
        return [one for recording in self.recordings.values() for one in recording.instances]


def load_annotations(path: str | os.PathLike) -> Annotations:
    """Reads an annotation file for training, see `parse_annotations`."""
    return parse_annotations(files.read_json(path), source=str(path))


def parse_annotations(
    values: Any, *, source: str = "annotations", strict: bool = True
) -> Annotations:
    """Parses an ActivityNet dictionary.

    Args:
      values: the dictionary; the module's description has an example.
      source: its origin, for messages.
      strict: whether subsets, durations and consistent times are required. Otherwise only the form
        is checked: segments may be empty, reversed or outside their recording, as some published
        ones are, and numbers may be strings.

    Raises:
      InputError: if a key is missing, a value is of the wrong type, a number is not finite, or a
        class is unknown; if strict, also if a segment or a done stretch is empty, reversed or
        outside its recording, a point is outside its segment or recording, or a background point
        is in a segment.

    >>> jump = {"label": "jump", "segment": [3.0, 4.0], "point": 3.5}
    >>> recording = {"subset": "train", "duration": 9.0, "annotations": [jump]}
    >>> annotations = parse_annotations({"database": {"r": recording}})
    >>> annotations.classes
    ('jump',)
    >>> annotations.recordings["r"].instances[0]
    Instance(label='jump', start_s=3.0, end_s=4.0, point_s=3.5, score=None)
    """
    document = files.convert(values, _Document, source)
    recordings = {
        name: parse_recording(entry, f"{source}: {name}", strict=strict)
        for name, entry in document.database.items()
    }
    annotations = Annotations(
        classes=classes_of(recordings) if document.classes is None else tuple(document.classes),
        recordings=recordings,
        overlapping=tuple(document.overlapping),
        point_distribution=document.points,
        source=source,
        extras=_others(values, _Document),
    )
    check_classes(annotations)
    return annotations


def parse_recording(entry: Any, source: str, *, strict: bool) -> RecordingAnnotation:
    """Parses one entry of a "database", see `parse_annotations`."""
    if isinstance(entry, Mapping) and "duration" not in entry and "duration_second" in entry:
        entry = {**entry, "duration": entry["duration_second"]}
    parsed = files.convert(entry, _StrictEntry if strict else _Entry, source, strict=strict)
    instances = []
    for one, given in zip(parsed.annotations, entry["annotations"], strict=True):
        start_s, end_s = one.segment or (None, None)
        extras = _others(given, _Item)
        instances.append(Instance(one.label, start_s, end_s, one.point, extras=extras))
    background_s = tuple(sorted(set(parsed.background)))
    done_s = None if parsed.done is None else tuple(parsed.done)
    if isinstance(parsed, _StrictEntry):
        instances = [_checked(one, parsed.duration, source) for one in instances]
        _check_background(background_s, instances, parsed.duration, source)
        done_s = done_s and _checked_stretches(done_s, parsed.duration, source)
    extras = _others(entry, type(parsed))
    extras.pop("duration_second", None)  # written as "duration"
    if parsed.fps is not None:
        extras["fps"] = parsed.fps if isinstance(entry["fps"], str) else entry["fps"]
    return RecordingAnnotation(
        parsed.subset,
        parsed.duration,
        tuple(instances),
        parsed.fps,
        background_s,
        done_s,
        extras=extras,
    )


def classes_of(recordings: Mapping[str, RecordingAnnotation]) -> tuple[str, ...]:
    """Returns the classes that occur in recordings, sorted."""
    return tuple(sorted({i.label for one in recordings.values() for i in one.instances}))


def check_classes(annotations: Annotations) -> None:
    """Checks names, that classes are distinct, and that labels and pairs are among them.

    Raises:
      InputError: if not.
    """
    classes, source = annotations.classes, annotations.source
    for text in (*classes, *annotations.recordings):
        files.check_text(text, source)
    if len(set(classes)) < len(classes):
        raise InputError(f"{source}: classes are {list(classes)}, expected different strings")
    known = set(classes)
    for name, recording in annotations.recordings.items():
        for instance in recording.instances:
            if instance.label not in known:
                _check_label(instance.label, classes, f"{source}: {name}")
    for pair in annotations.overlapping:
        if pair[0] == pair[1]:
            raise InputError(
                f"{source}: overlapping holds {list(pair)}, expected a pair of different classes"
            )
        for label in pair:
            _check_label(label, classes, f"{source}: overlapping")


def with_durations(annotations: Annotations) -> Annotations:
    """Gives each recording a duration: the end of its last label where the file has none."""
    recordings, guessed, unknown = {}, 0, []
    for name, recording in annotations.recordings.items():
        duration_s = recording.duration_s
        if duration_s is None:
            duration_s = _last_time(recording)
            guessed += duration_s is not None
        if duration_s is None:
            unknown.append(name)
            continue
        recordings[name] = dataclasses.replace(recording, duration_s=duration_s)
    notes = list(annotations.notes)
    if guessed:
        notes.append(
            f"{annotations.source}: recordings without a duration, taken to end with their last "
            f"instance: {guessed}"
        )
    if unknown:
        notes.append(
            f"{annotations.source}: recordings with neither a duration nor a time in it, left out: "
            f"{len(unknown)} ({', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''})"
        )
    return dataclasses.replace(annotations, recordings=recordings, notes=tuple(notes))


def _last_time(recording: RecordingAnnotation) -> float | None:
    ends = [one.segment[1] for one in recording.instances if one.segment is not None]
    ends += [end_s for _, end_s in recording.done_s or ()]
    # Just after a point, since recordings are half-open.
    points = [one.point_s for one in recording.instances if one.point_s is not None]
    points += recording.background_s
    ends += [math.nextafter(point_s, math.inf) for point_s in points]
    return max(ends, default=None)


def cut_instance(instance: Instance, duration_s: float) -> Instance | None:
    """Returns the instance cut to its recording, or None where nothing is left of it."""
    if instance.segment is None:
        return None
    start_s, end_s = max(instance.segment[0], 0.0), min(instance.segment[1], duration_s)
    return dataclasses.replace(instance, start_s=start_s, end_s=end_s) if start_s < end_s else None


def cut_labels(annotation: RecordingAnnotation, duration_s: float) -> RecordingAnnotation:
    """Cuts background points and done stretches to a recording of another duration."""
    if not annotation.background_s and not annotation.done_s:
        if annotation.duration_s == duration_s:
            return annotation
    background_s = tuple(time_s for time_s in annotation.background_s if 0 <= time_s < duration_s)
    done_s = annotation.done_s
    if done_s is not None:
        cut = ((max(start_s, 0.0), min(end_s, duration_s)) for start_s, end_s in done_s)
        done_s = merge_stretches([stretch for stretch in cut if stretch[0] < stretch[1]])
    return dataclasses.replace(
        annotation, duration_s=duration_s, background_s=background_s, done_s=done_s
    )


def merge_stretches(
    stretches: Iterable[tuple[float, float]],
) -> tuple[tuple[float, float], ...]:
    """Sorts stretches of time, and merges those that overlap or touch.

    >>> merge_stretches([(5.0, 9.0), (0.0, 2.0), (2.0, 3.0)])
    ((0.0, 3.0), (5.0, 9.0))
    """
    merged: list[tuple[float, float]] = []
    for start_s, end_s in sorted(stretches):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return tuple(merged)


def annotations_to_dict(annotations: Annotations) -> dict[str, Any]:
    """Returns the ActivityNet dictionary that `parse_annotations` parses to these annotations."""
    values: dict[str, Any] = {"version": "VERSION 1.3", "classes": list(annotations.classes)}
    if annotations.overlapping:
        values["overlapping"] = [list(pair) for pair in annotations.overlapping]
    if annotations.point_distribution is not None:
        values["points"] = dict(annotations.point_distribution)
    values |= annotations.extras
    values["database"] = {
        name: {
            "subset": recording.subset,
            "duration": recording.duration_s,
            **labels_of_time(recording.background_s, recording.done_s),
            **recording.extras,
            "annotations": [_instance_to_dict(instance) for instance in recording.instances],
        }
        for name, recording in annotations.recordings.items()
    }
    return values


def ground_truth_of(annotations: Annotations, names: Iterable[str]) -> dict[str, Any]:
    """Returns the ActivityNet dictionary to evaluate detections of some recordings against.

    Args:
      annotations: annotations of these recordings and possibly others.
      names: the recordings to test on.

    Returns:
      Segments without points and without other keys; every subset is "test".

    Raises:
      InputError: if an instance has no segment.
    """
    recordings = {}
    for name in names:
        recording = annotations.recordings[name]
        for instance in recording.instances:
            if instance.start_s is None:
                raise InputError(
                    f"{name}: instance of {instance.label!r} (point: {instance.point_s}) has no "
                    "segment, expected one in every instance of a test recording"
                )
        instances = tuple(
            Instance(one.label, one.start_s, one.end_s) for one in recording.instances
        )
        recordings[name] = RecordingAnnotation("test", recording.duration_s, instances)
    return annotations_to_dict(
        dataclasses.replace(annotations, recordings=recordings, point_distribution=None, extras={})
    )


def lost_labels(annotations: Annotations) -> list[str]:
    """Counts the background points and done stretches, which other formats do not hold."""
    recordings = annotations.recordings.values()
    background = sum(len(recording.background_s) for recording in recordings)
    partly = [recording for recording in recordings if recording.done_s is not None]
    lost = [f"{background} background points"] if background else []
    if partly:
        stretches = sum(len(recording.done_s or ()) for recording in partly)
        lost.append(f"{stretches} done stretches of {len(partly)} partly done recordings")
    return lost


def labels_of_time(
    background_s: Iterable[float], done_s: Iterable[tuple[float, float]] | None
) -> dict[str, Any]:
    """Returns the keys of a recording's background points and done stretches, where it has any."""
    values: dict[str, Any] = {"background": list(background_s)}
    if done_s is not None:
        values["done"] = [list(stretch) for stretch in done_s]
    return {key: value for key, value in values.items() if value or key == "done"}


def _instance_to_dict(instance: Instance) -> dict[str, Any]:
    values: dict[str, Any] = {"label": instance.label}
    if instance.start_s is not None:
        values["segment"] = [instance.start_s, instance.end_s]
    if instance.point_s is not None:
        values["point"] = instance.point_s
    return values | dict(instance.extras)


# --- the JSON's types, and checks between fields ---


class _Document(msgspec.Struct):
    database: dict[str, Any]
    classes: list[str] | None = None
    overlapping: list[tuple[str, str]] = []
    points: dict[str, Any] | None = None


class _Item(msgspec.Struct):
    label: str
    segment: tuple[files.Number, files.Number] | None = None
    point: files.Number | None = None


class _AnyEntry(msgspec.Struct, kw_only=True):
    annotations: list[_Item]
    fps: files.Positive | None = None
    background: list[files.Number] = []
    done: list[tuple[files.Number, files.Number]] | None = None


class _Entry(_AnyEntry, kw_only=True):
    subset: str = ""
    duration: files.Number | None = None


class _StrictEntry(_AnyEntry, kw_only=True):
    subset: str
    duration: files.Positive


_FIELDS: dict[type[msgspec.Struct], frozenset[str]] = {
    kind: frozenset(kind.__struct_fields__) for kind in (_Document, _Item, _Entry, _StrictEntry)
}


def _others(values: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns the keys that a type does not have."""
    if values.keys() <= _FIELDS[kind]:  # nearly always, of many
        return {}
    return {key: value for key, value in values.items() if key not in kind.__struct_fields__}


def _checked(instance: Instance, duration_s: float, source: str) -> Instance:
    """Checks times against each other; cuts an end that rounding put after the recording's."""
    low, high, point_s = 0.0, duration_s, instance.point_s
    if instance.segment is not None:
        low, high = instance.segment
        if not 0 <= low < high:
            raise InputError(f"{source}: segment is {[low, high]} s, expected 0 <= start < end")
        if high > duration_s + ROUNDING_S or low >= duration_s:
            raise InputError(
                f"{source}: segment is {[low, high]} s, expected it within the recording's "
                f"{duration_s:g} s"
            )
        if high > duration_s:
            high = duration_s
            instance = dataclasses.replace(instance, end_s=high)
    if point_s is not None and not low <= point_s < high:
        raise InputError(
            f"{source}: point of {instance.label!r} is {point_s!r} s, expected a time within "
            f"[{low}, {high})"
        )
    return instance


def _check_background(
    background_s: Iterable[float], instances: Sequence[Instance], duration_s: float, source: str
) -> None:
    for time_s in background_s:
        if not 0 <= time_s < duration_s:
            raise InputError(
                f"{source}: background point is {time_s!r} s, expected a time within "
                f"[0, {duration_s:g})"
            )
        for one in instances:
            low, high = one.segment or (one.point_s, one.point_s)
            if low is not None and high is not None and (low <= time_s < high or time_s == low):
                raise InputError(
                    f"{source}: background point at {time_s!r} s is in the instance of "
                    f"{one.label!r} at {low:g} s; remove one of them"
                )


def _checked_stretches(
    done_s: Sequence[tuple[float, float]], duration_s: float, source: str
) -> tuple[tuple[float, float], ...]:
    """Checks done stretches; cuts an end that rounding put after the recording's; merges them."""
    for start_s, end_s in done_s:
        if not 0 <= start_s < end_s <= duration_s + ROUNDING_S or start_s >= duration_s:
            raise InputError(
                f"{source}: done stretch is {[start_s, end_s]} s, expected 0 <= start < end, "
                f"within the recording's {duration_s:g} s"
            )
    return merge_stretches((start_s, min(end_s, duration_s)) for start_s, end_s in done_s)


def _check_label(label: str, classes: Sequence[str], source: str) -> None:
    if label not in classes:
        raise InputError(f"{source}: unknown class {label!r}, expected one of {', '.join(classes)}")
