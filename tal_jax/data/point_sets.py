"""Sets of points over annotations as they are on disk: made, read, and put into instances.

The annotations are those of `data.raw_annotations`, whose times nobody has judged. What cannot be
done for some of them is told in notes, a line each.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
)
from tal_jax.data.point_distributions import draw_point
from tal_jax.data.point_files import (
    clicks_by_recording,
    read_point_file,
    write_click_list,
    write_point_csv,
)
from tal_jax.data.raw_annotations import RawAnnotations, read_frame_rates, read_raw


@dataclasses.dataclass(frozen=True)
class PointSet:
    """The points of a file, in seconds.

    Attributes:
      source: the path, for messages.
      recordings: instances of each recording; those with a point count.
      law: how the points were drawn, where the file says so.
      notes: what was left out, and why.
    """

    source: str
    recordings: dict[str, tuple[Instance, ...]]
    law: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def make_points(
    raw: RawAnnotations, *, law: str, seed: int, subset: str | None = None
) -> tuple[Annotations, list[str]]:
    """Draws one point in every instance, in the part of it that lies inside its recording.

    Args:
      raw: annotations with segments.
      law: "uniform", "gaussian" or "center", see `generate_points`.
      seed: 0 or more.
      subset: draw in the recordings of this subset alone; those of the others get no points.

    Returns:
      The annotations with these points in place of those that were there, and notes.

    Raises:
      ValueError: if the law or the seed is refused by `generate_points`, or no recording is of the
        subset.
    """
    subsets = {recording.subset for recording in raw.recordings.values()}
    if subset is not None and subset not in subsets:
        raise ValueError(
            f"{raw.source}: no recording of subset {subset!r}, expected one of "
            f"{', '.join(map(repr, sorted(subsets)))}"
        )
    annotations, notes = with_durations(raw)
    recordings, pointless = {}, 0
    for name, recording in annotations.recordings.items():
        if subset in (None, recording.subset):
            points = _draw(name, recording, law=law, seed=seed)
            pointless += points.count(None)
        else:
            points = [None] * len(recording.instances)
        recordings[name] = dataclasses.replace(
            recording,
            instances=tuple(
                dataclasses.replace(instance, point_s=point_s)
                for instance, point_s in zip(recording.instances, points, strict=True)
            ),
        )
    if pointless:
        notes.append(
            f"{raw.source}: instances without a point, their segment being missing, empty, "
            f"backwards or outside the recording: {pointless}"
        )
    point_law = {"law": law, "seed": seed}
    return dataclasses.replace(annotations, recordings=recordings, point_law=point_law), notes


def known_frame_rates(
    raw: RawAnnotations | None, path: str | os.PathLike | None = None
) -> dict[str, float]:
    """Collects frames a second of original videos.

    Args:
      raw: annotations that may tell some.
      path: a file like LACP's `fps_dict.json`, which goes before the annotations.

    Raises:
      ValueError: if the file is refused by `read_frame_rates`.
    """
    recordings = {} if raw is None else raw.recordings
    told = {name: r.frame_rate for name, r in recordings.items() if r.frame_rate is not None}
    return told if path is None else {**told, **read_frame_rates(path)}


def read_points(
    path: str | os.PathLike,
    *,
    frame_rates: Mapping[str, float],
    raw: RawAnnotations | None = None,
) -> PointSet:
    """Reads points of any kind of file: ActivityNet's `.json`, a table, or a list of clicks.

    Args:
      path: the file.
      frame_rates: frames a second of original videos, for a table.
      raw: annotations of the recordings. Points of recordings that they lack are left out, which a
        note tells.

    Raises:
      ValueError: if the file is refused by its reader, or a frame rate is needed and missing.
    """
    source, law = str(path), None
    if Path(path).suffix == ".json":
        points = read_raw(path)
        law = points.point_law
        every = {name: _pointed(r.instances) for name, r in points.recordings.items()}
        known = {name: found for name, found in every.items() if _is_known(name, raw)}
        lost = sum(map(len, every.values())) - sum(map(len, known.values()))
    else:
        points = read_point_file(path)
        # Before frames become seconds: nobody can tell the frame rate of an unknown recording.
        clicks = tuple(click for click in points.clicks if _is_known(click.recording, raw))
        known = clicks_by_recording(dataclasses.replace(points, clicks=clicks), frame_rates)
        lost = len(points.clicks) - len(clicks)
    notes = ()
    if lost:
        notes = (f"{source}: points of recordings that {raw.source} lacks, left out: {lost}",)
    return PointSet(source, known, law, notes)


def place_points(points: PointSet, raw: RawAnnotations) -> PointSet:
    """Puts each point into the instance of its recording and class that contains it.

    Args:
      points: points of recordings that the annotations have.
      raw: annotations with segments; points in them do not count.

    Returns:
      All recordings of the annotations, with instances as `join_clicks` makes them.
    """
    placed = {
        name: join_clicks(points.recordings.get(name, ()), recording.instances)
        for name, recording in raw.recordings.items()
    }
    loose = sum(len(placed[name]) - len(r.instances) for name, r in raw.recordings.items())
    notes = points.notes
    if loose:
        notes += (
            f"{points.source}: points in no instance of their class, or in one with another "
            f"point, kept without a segment: {loose}",
        )
    return dataclasses.replace(points, recordings=placed, notes=notes)


def convert_points(points: PointSet, raw: RawAnnotations) -> tuple[Annotations, list[str]]:
    """Makes annotations of points and of the instances that they lie in.

    Args:
      points: points of recordings that the annotations have.
      raw: annotations with segments; points in them do not count.

    Returns:
      The annotations, and notes.
    """
    placed = place_points(points, raw)
    recordings = {
        name: dataclasses.replace(recording, instances=placed.recordings[name])
        for name, recording in raw.recordings.items()
    }
    labels = {i.label for instances in placed.recordings.values() for i in instances}
    new = tuple(sorted(labels - set(raw.classes)))
    joined = dataclasses.replace(
        raw, recordings=recordings, classes=raw.classes + new, point_law=points.law
    )
    annotations, notes = with_durations(joined)
    if new:
        notes.insert(0, f"{raw.source}: classes that only the points have: {', '.join(new)}")
    return annotations, [*placed.notes, *notes]


def join_clicks(clicks: Iterable[Instance], instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Puts the clicks of a recording into its instances, at most one into each.

    Args:
      clicks: instances of which the label and the point count.
      instances: instances of which the label and the segment count.

    Returns:
      The instances with as many of the clicks as can be placed, then the other clicks, without a
      segment.

    >>> jumps = [Instance("jump", 1.0, 4.0), Instance("jump", 2.0, 3.0)]
    >>> clicks = [Instance("jump", point_s=time_s) for time_s in (2.5, 3.5, 9.0)]
    >>> [instance.point_s for instance in join_clicks(clicks, jumps)]
    [3.5, 2.5, 9.0]
    """
    joined = [dataclasses.replace(instance, point_s=None) for instance in instances]
    loose = []
    for click in sorted(clicks, key=lambda click: click.point_s):
        free = [i for i, instance in enumerate(joined) if _contains(instance, click)]
        if not free:
            loose.append(Instance(click.label, point_s=click.point_s))
            continue
        # In the order of time, later clicks miss the instance that ends first least.
        first = min(free, key=lambda i: joined[i].end_s)
        joined[first] = dataclasses.replace(joined[first], point_s=click.point_s)
    return (*joined, *loose)


def write_points(
    path: str | os.PathLike, annotations: Annotations, frame_rates: Mapping[str, float]
) -> None:
    """Writes annotations with points, in the layout that the suffix names.

    Args:
      path: a `.json` gets everything; a `.csv` the table of points and a `.txt` the list of clicks,
        which have no place for recordings without points, nor for how the points were drawn.
      annotations: annotations with points.
      frame_rates: frames a second of original videos, for a table.

    Raises:
      ValueError: if the suffix is another, or a frame rate is needed and missing.
      OSError: if the file cannot be written.
    """
    suffix = Path(path).suffix
    if suffix == ".json":
        files.write_json(path, annotations_to_dict(annotations))
    elif suffix == ".csv":
        write_point_csv(path, annotations, frame_rates)
    elif suffix == ".txt":
        write_click_list(path, annotations)
    else:
        raise ValueError(f"{path}: unknown suffix, expected .json, .csv or .txt")


def with_durations(raw: RawAnnotations) -> tuple[Annotations, list[str]]:
    """Gives each recording a duration: the end of its last instance where the file tells none."""
    recordings, guessed, unknown = {}, 0, []
    for name, recording in raw.recordings.items():
        duration_s = recording.duration_s
        if duration_s is None:
            duration_s = _last_time(recording.instances)
            guessed += duration_s is not None
        if duration_s is None:
            unknown.append(name)
            continue
        recordings[name] = RecordingAnnotation(recording.subset, duration_s, recording.instances)
    notes = []
    if guessed:
        notes.append(
            f"{raw.source}: recordings without a duration, taken to end with their last instance: "
            f"{guessed}"
        )
    if unknown:
        notes.append(
            f"{raw.source}: recordings with neither a duration nor a time in it, left out: "
            f"{len(unknown)} ({', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''})"
        )
    return Annotations(raw.classes, recordings, raw.overlapping, raw.point_law), notes


def _last_time(instances: Sequence[Instance]) -> float | None:
    ends = [instance.end_s for instance in instances if instance.end_s is not None]
    # Just after a point, for recordings are half-open.
    ends += [math.nextafter(instance.point_s, math.inf) for instance in _pointed(instances)]
    return max(ends, default=None)


def _draw(name: str, recording: RecordingAnnotation, *, law: str, seed: int) -> list[float | None]:
    points = []
    for index, instance in enumerate(recording.instances):
        inside = cut_instance(instance, recording.duration_s)
        # The index is that of the file, so that an instance without a point moves no other's.
        points.append(
            None if inside is None else draw_point(name, index, inside, law=law, seed=seed)
        )
    return points


def cut_instance(instance: Instance, duration_s: float) -> Instance | None:
    """Returns the instance cut to its recording, or None where nothing is left of it."""
    if instance.start_s is None:
        return None
    start_s, end_s = max(instance.start_s, 0.0), min(instance.end_s, duration_s)
    return dataclasses.replace(instance, start_s=start_s, end_s=end_s) if start_s < end_s else None


def _contains(instance: Instance, click: Instance) -> bool:
    """Whether the click can be that of the instance, which has none."""
    return (
        instance.label == click.label
        and instance.point_s is None
        and instance.start_s is not None
        and instance.start_s <= click.point_s < instance.end_s
    )


def _pointed(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    return tuple(instance for instance in instances if instance.point_s is not None)


def _is_known(name: str, raw: RawAnnotations | None) -> bool:
    return raw is None or name in raw.recordings
