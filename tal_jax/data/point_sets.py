"""Assigns point labels to the instances that contain them."""

import dataclasses
import os
from collections.abc import Iterable, Sequence

from tal_jax.data.annotation_files import read_frame_rates
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    with_durations,
)


def known_frame_rates(
    annotations: Annotations | None, path: str | os.PathLike | None = None
) -> dict[str, float]:
    """Collects frames per second of the original videos.

    A file like LACP's `fps_dict.json` takes precedence over the annotations.
    """
    recordings = {} if annotations is None else annotations.recordings
    rates = {name: r.frame_rate for name, r in recordings.items() if r.frame_rate is not None}
    return rates if path is None else {**rates, **read_frame_rates(path)}


def place_points(points: Annotations, annotations: Annotations) -> Annotations:
    """Puts each point into the instance of its recording and class that contains it.

    Both have the same recordings; points in the annotations do not count. Returns all recordings of
    the annotations, with instances as `join_clicks` makes them, the background points of both, the
    done stretches of the points or else of the annotations, and notes.
    """
    recordings, loose = {}, 0
    for name, recording in annotations.recordings.items():
        found = points.recordings.get(name, RecordingAnnotation())
        instances = join_clicks(found.instances, recording.instances)
        recordings[name] = dataclasses.replace(
            recording,
            instances=instances,
            background_s=tuple(sorted({*recording.background_s, *found.background_s})),
            done_s=recording.done_s if found.done_s is None else found.done_s,
        )
        loose += sum(one.point_s is not None and one.segment is None for one in instances)
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
    """Places points as `place_points`, and adds their classes, and durations, if missing."""
    placed = place_points(points, annotations)
    new = tuple(sorted({one.label for one in placed.instances} - set(placed.classes)))
    notes = placed.notes
    replaced = sum(one.point_s is not None for one in annotations.instances)
    if replaced:
        notes += (f"{annotations.source}: points replaced by those of {points.source}: {replaced}",)
    if new:
        notes += (f"{placed.source}: classes that only the points have: {', '.join(new)}",)
    return with_durations(dataclasses.replace(placed, classes=placed.classes + new, notes=notes))


def join_clicks(clicks: Iterable[Instance], instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Puts the points of a recording into its instances, at most one into each.

    Uses label and point of the clicks, label and segment of the instances: the points replace those
    of the instances, of which any without a segment are left out. Returns the instances with as
    many of the points as can be placed, then the other points, without a segment.

    >>> jumps = [Instance("jump", 1.0, 4.0), Instance("jump", 2.0, 3.0)]
    >>> clicks = [Instance("jump", point_s=time_s) for time_s in (2.5, 3.5, 9.0)]
    >>> [instance.point_s for instance in join_clicks(clicks, jumps)]
    [3.5, 2.5, 9.0]
    """
    joined = [
        dataclasses.replace(instance, point_s=None)
        for instance in instances
        if instance.segment is not None or instance.point_s is None
    ]
    loose = []
    points = [(one.point_s, one) for one in clicks if one.point_s is not None]
    for point_s, click in sorted(points, key=lambda point: point[0]):
        free = [
            (one.segment[1], index)
            for index, one in enumerate(joined)
            if one.label == click.label and one.point_s is None and one.segment is not None
            if one.segment[0] <= point_s < one.segment[1]
        ]
        if not free:
            loose.append(Instance(click.label, point_s=point_s, extras=click.extras))
            continue
        # In the order of time, later points need the instance that ends first least.
        _, first = min(free)
        joined[first] = dataclasses.replace(joined[first], point_s=point_s)
    return (*joined, *loose)
