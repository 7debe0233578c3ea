"""Draws the point label of each instance from a point distribution, reproducibly."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, Instance, cut_instance, with_durations

POINT_DISTRIBUTIONS = ("uniform", "gaussian", "center")
# Other values of `data.points`: points of a file, and no points.
POINTS_OF_FILE = "file"
NO_POINTS = "none"

# People click near the middle: mean and deviation of the relative position.
_GAUSSIAN_MEAN = 0.48
_GAUSSIAN_DEVIATION = 0.035


def generate_points(
    annotations: Annotations,
    *,
    distribution: str,
    seed: int,
    subset: str | None = None,
    strict: bool = True,
) -> Annotations:
    """Draws one point label in every instance, in place of any others.

    The point of an instance depends only on the distribution, the seed, the recording's name and
    the instance's index in it: adding, leaving out or reordering recordings moves no point.

    Args:
      annotations: annotations with segments.
      distribution: the point distribution: "uniform" over the instance, "gaussian" near its middle
        (relative position of mean 0.48 and deviation 0.035), or its "center".
      seed: 0 or more.
      subset: draw in the recordings of this subset alone; those of the others get no points.
      strict: whether every instance needs a segment. Otherwise points are drawn in the part inside
        the recording, an instance without one gets no point, recordings get durations, and notes
        report that.

    Returns:
      The annotations with points, and with the distribution and the seed.

    Raises:
      InputError: if the distribution is unknown, the seed is not a whole number of 0 or more, there
        is no recording of the subset, or `strict` and an instance has no segment.

    >>> from tal_jax.data.annotations import parse_annotations
    >>> jump = {"label": "jump", "segment": [3.0, 4.0]}
    >>> recording = {"subset": "train", "duration": 9.0, "annotations": [jump]}
    >>> annotations = parse_annotations({"database": {"r": recording}})
    >>> annotations = generate_points(annotations, distribution="center", seed=0)
    >>> annotations.recordings["r"].instances[0].point_s
    3.5
    """
    if distribution not in POINT_DISTRIBUTIONS:
        expected = ", ".join(POINT_DISTRIBUTIONS)
        raise InputError(
            f"points: unknown distribution {distribution!r}, expected one of {expected}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"points: seed is {seed!r}, expected a whole number, 0 or more")
    subsets = {recording.subset for recording in annotations.recordings.values()}
    if subset is not None and subset not in subsets:
        raise InputError(
            f"{annotations.source}: no recording of subset {subset!r}, expected one of "
            f"{', '.join(map(repr, sorted(subsets)))}"
        )
    annotations = annotations if strict else with_durations(annotations)
    recordings, pointless = {}, 0
    for name, recording in annotations.recordings.items():
        instances = []
        for index, instance in enumerate(recording.instances):
            point_s, inside = None, instance
            if not strict and recording.duration_s is not None:
                inside = cut_instance(instance, recording.duration_s)
            if subset in (None, recording.subset):
                # The index is that of the file: an instance without a point moves no other's.
                if inside is not None:
                    point_s = _draw(name, index, inside, distribution=distribution, seed=int(seed))
                pointless += inside is None
            instances.append(dataclasses.replace(instance, point_s=point_s))
        recordings[name] = dataclasses.replace(recording, instances=tuple(instances))
    notes = annotations.notes
    if pointless:
        notes += (
            f"{annotations.source}: instances without a point, their segment being missing, empty, "
            f"reversed or outside the recording: {pointless}",
        )
    return dataclasses.replace(
        annotations,
        recordings=recordings,
        point_distribution={"law": distribution, "seed": int(seed)},
        notes=notes,
    )


def fill_points(annotations: Annotations, names: Iterable[str]) -> tuple[Annotations, list[str]]:
    """Gives each instance of some recordings with a segment but no point its middle as the point.

    Args:
      annotations: of these recordings and possibly others.
      names: the recordings.

    Returns:
      The annotations, and a note with the number of these points if there are any.

    >>> from tal_jax.data.annotations import parse_annotations
    >>> jump = {"label": "jump", "segment": [3.0, 4.0]}
    >>> recording = {"subset": "train", "duration": 9.0, "annotations": [jump]}
    >>> annotations, notes = fill_points(parse_annotations({"database": {"r": recording}}), ["r"])
    >>> annotations.recordings["r"].instances[0].point_s, notes
    (3.5, ['the middle of the segment is the point of 1 instances that have a segment alone'])
    """
    recordings, filled = dict(annotations.recordings), 0
    for name in names:
        instances = []
        for one in recordings[name].instances:
            if one.point_s is None and one.segment is not None:
                one = dataclasses.replace(one, point_s=sum(one.segment) / 2)
                filled += 1
            instances.append(one)
        recordings[name] = dataclasses.replace(recordings[name], instances=tuple(instances))
    text = f"the middle of the segment is the point of {filled} instances that have a segment alone"
    return dataclasses.replace(annotations, recordings=recordings), [text] if filled else []


def _draw(name: str, index: int, instance: Instance, *, distribution: str, seed: int) -> float:
    """Draws the point of one instance, the `index`-th of the recording `name`."""
    if instance.start_s is None or instance.end_s is None:
        raise InputError(
            f"{name}: instance of {instance.label!r} has no segment to draw a point in, expected "
            f"one, or data.points={POINTS_OF_FILE!r} for the points in the annotations"
        )
    digest = hashlib.sha256(f"{index}/{name}".encode()).digest()
    rng = np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
    if distribution == "uniform":
        position = rng.uniform()
    elif distribution == "gaussian":
        position = rng.normal(_GAUSSIAN_MEAN, _GAUSSIAN_DEVIATION)
    else:
        position = 0.5
    time_s = instance.start_s + float(position) * (instance.end_s - instance.start_s)
    # Half-open: the end itself belongs to no instance, and rounding may reach it.
    return min(max(time_s, instance.start_s), math.nextafter(instance.end_s, -math.inf))
