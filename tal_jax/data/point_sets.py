"""Point labels over annotations: drawn, and put into the instances that contain them.

The annotations are those of `tal_jax.data.annotation_files`, whose times are not checked. A note
reports what cannot be done for some of them.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence

from tal_jax.data.annotation_files import read_frame_rates
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.point_distributions import draw_point


def make_points(
    annotations: Annotations, *, distribution: str, seed: int, subset: str | None = None
) -> Annotations:
    """Draws one point in every instance, in the part of it that lies inside its recording.

    Args:
      annotations: annotations with segments.
      distribution: "uniform", "gaussian" or "center", see `generate_points`.
      seed: 0 or more.
      subset: draw in the recordings of this subset alone; those of the others get no points.

    Returns:
      The annotations with these points in place of any others, all with durations, and notes.

    Raises:
      ValueError: if the distribution or the seed is refused by `generate_points`, or no recording
        is of the subset.
    """
    subsets = {recording.subset for recording in annotations.recordings.values()}
    if subset is not None and subset not in subsets:
        raise ValueError(
            f"{annotations.source}: no recording of subset {subset!r}, expected one of "
            f"{', '.join(map(repr, sorted(subsets)))}"
        )
    annotations, pointless = with_durations(annotations), 0
    recordings = {}
    for name, recording in annotations.recordings.items():
        instances = []
        for index, instance in enumerate(recording.instances):
            point_s, inside = None, cut_instance(instance, recording.duration_s)
            if subset in (None, recording.subset):
                # The index is that of the file: an instance without a point moves no other's.
                if inside is not None:
                    point_s = draw_point(name, index, inside, distribution=distribution, seed=seed)
                pointless += inside is None
            instances.append(dataclasses.replace(instance, point_s=point_s))
        recordings[name] = dataclasses.replace(recording, instances=tuple(instances))
    notes = annotations.notes
    if pointless:
        notes += (
            f"{annotations.source}: instances without a point, their segment being missing, empty, "
            f"backwards or outside the recording: {pointless}",
        )
    return dataclasses.replace(
        annotations,
        recordings=recordings,
        point_distribution={"law": distribution, "seed": seed},
        notes=notes,
    )


def known_frame_rates(
    annotations: Annotations | None, path: str | os.PathLike | None = None
) -> dict[str, float]:
    """Collects frames per second of the original videos.

    Args:
      annotations: annotations with some frame rates.
      path: a file like LACP's `fps_dict.json`, which takes precedence over the annotations.

    Raises:
      ValueError: if the file is refused by `read_frame_rates`.
    """
    recordings = {} if annotations is None else annotations.recordings
    rates = {name: r.frame_rate for name, r in recordings.items() if r.frame_rate is not None}
    return rates if path is None else {**rates, **read_frame_rates(path)}


def place_points(points: Annotations, annotations: Annotations) -> Annotations:
    """Puts each point into the instance of its recording and class that contains it.

    Args:
      points: points of recordings that the annotations have.
      annotations: annotations with segments; points in them do not count.

    Returns:
      All recordings of the annotations, with instances as `join_clicks` makes them, and notes.
    """
    recordings, loose = {}, 0
    for name, recording in annotations.recordings.items():
        found = points.recordings.get(name, RecordingAnnotation()).instances
        instances = join_clicks(found, recording.instances)
        recordings[name] = dataclasses.replace(recording, instances=instances)
        loose += len(instances) - len(recording.instances)
    notes = points.notes
    if loose:
        notes += (
            f"{points.source}: points in no instance of their class, or in one with another "
            f"point, kept without a segment: {loose}",
        )
    return dataclasses.replace(
        annotations,
        recordings=recordings,
        point_distribution=points.point_distribution,
        notes=notes,
    )


def convert_points(points: Annotations, annotations: Annotations) -> Annotations:
    """Makes annotations of points and of the instances that contain them.

    Args:
      points: points of recordings that the annotations have.
      annotations: annotations with segments; points in them do not count.

    Returns:
      The annotations, all with durations, and notes.
    """
    placed = place_points(points, annotations)
    new = tuple(sorted({one.label for one in placed.instances} - set(placed.classes)))
    notes = placed.notes
    if new:
        notes += (f"{placed.source}: classes that only the points have: {', '.join(new)}",)
    return with_durations(dataclasses.replace(placed, classes=placed.classes + new, notes=notes))


def join_clicks(clicks: Iterable[Instance], instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Puts the points of a recording into its instances, at most one into each.

    Args:
      clicks: instances, whose label and point are used.
      instances: instances, whose label and segment are used.

    Returns:
      The instances with as many of the points as can be placed, then the other points, without a
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


def with_durations(annotations: Annotations) -> Annotations:
    """Gives each recording a duration: the end of its last instance where the file has none."""
    recordings, guessed, unknown = {}, 0, []
    for name, recording in annotations.recordings.items():
        duration_s = recording.duration_s
        if duration_s is None:
            duration_s = _last_time(recording.instances)
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


def _last_time(instances: Sequence[Instance]) -> float | None:
    ends = [instance.end_s for instance in instances if instance.end_s is not None]
    # Just after a point, since recordings are half-open.
    points = [instance.point_s for instance in instances if instance.point_s is not None]
    ends += [math.nextafter(point_s, math.inf) for point_s in points]
    return max(ends, default=None)


def cut_instance(instance: Instance, duration_s: float) -> Instance | None:
    """Returns the instance cut to its recording, or None where nothing is left of it."""
    if instance.start_s is None:
        return None
    start_s, end_s = max(instance.start_s, 0.0), min(instance.end_s, duration_s)
    return dataclasses.replace(instance, start_s=start_s, end_s=end_s) if start_s < end_s else None


def _contains(instance: Instance, click: Instance) -> bool:
    """Whether the instance has no point yet and contains the click."""
    return (
        instance.label == click.label
        and instance.point_s is None
        and instance.start_s is not None
        and instance.start_s <= click.point_s < instance.end_s
    )
