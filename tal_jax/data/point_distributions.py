"""Draws the point label of each instance from a point distribution, reproducibly."""

import dataclasses
import hashlib
import math

import numpy as np

from tal_jax.data.annotations import Annotations, Instance

POINT_DISTRIBUTIONS = ("uniform", "gaussian", "center")

# People click near the middle: mean and deviation of the relative position.
_GAUSSIAN_MEAN = 0.48
_GAUSSIAN_DEVIATION = 0.035


def generate_points(annotations: Annotations, *, distribution: str, seed: int) -> Annotations:
    """Draws one point label in every instance, in place of any others.

    The point of an instance depends only on the distribution, the seed, the recording's name and
    the instance's index in it: adding, leaving out or reordering recordings moves no point.

    Args:
      annotations: annotations with a segment in every instance.
      distribution: the point distribution: "uniform" over the instance, "gaussian" near its middle
        (relative position of mean 0.48 and deviation 0.035), or its "center".
      seed: 0 or more.

    Returns:
      The annotations with points, and with the distribution and the seed.

    Raises:
      ValueError: if the distribution is unknown, the seed is not a whole number of 0 or more, or an
        instance has no segment.

    >>> from tal_jax.data.annotations import parse_annotations
    >>> jump = {"label": "jump", "segment": [3.0, 4.0]}
    >>> recording = {"subset": "train", "duration": 9.0, "annotations": [jump]}
    >>> annotations = parse_annotations({"database": {"r": recording}})
    >>> annotations = generate_points(annotations, distribution="center", seed=0)
    >>> annotations.recordings["r"].instances[0].point_s
    3.5
    """
    _check(distribution, seed)
    recordings = {}
    for name, recording in annotations.recordings.items():
        instances = tuple(
            dataclasses.replace(
                instance,
                point_s=draw_point(
                    name, index, instance, distribution=distribution, seed=int(seed)
                ),
            )
            for index, instance in enumerate(recording.instances)
        )
        recordings[name] = dataclasses.replace(recording, instances=instances)
    return dataclasses.replace(
        annotations,
        recordings=recordings,
        point_distribution={"law": distribution, "seed": int(seed)},
    )


def draw_point(name: str, index: int, instance: Instance, *, distribution: str, seed: int) -> float:
    """Draws the point of one instance, the `index`-th of the recording `name`.

    See `generate_points`, also for the errors raised.
    """
    _check(distribution, seed)
    if instance.start_s is None or instance.end_s is None:
        raise ValueError(
            f"{name}: instance of {instance.label!r} has no segment to draw a point in"
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


def _check(distribution: str, seed: int) -> None:
    if distribution not in POINT_DISTRIBUTIONS:
        expected = ", ".join(POINT_DISTRIBUTIONS)
        raise ValueError(
            f"points: unknown distribution {distribution!r}, expected one of {expected}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"points: seed is {seed!r}, expected a whole number, 0 or more")
