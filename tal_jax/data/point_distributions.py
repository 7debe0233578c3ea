"""Draws the single click of each instance, by a law and a seed that anyone can repeat."""

import dataclasses
import hashlib
import math

import numpy as np

from tal_jax.data.annotations import Annotations, Instance

LAWS = ("uniform", "gaussian", "center")

# Clicks of people fall almost in the middle: mean and deviation of the relative position.
_GAUSSIAN_MEAN = 0.48
_GAUSSIAN_DEVIATION = 0.035


def generate_points(annotations: Annotations, *, law: str, seed: int) -> Annotations:
    """Draws one point in every instance, in place of those that are there.

    The point of an instance depends on the seed, the recording's name and the instance's index in
    it, and on nothing else: adding, leaving out or reordering recordings moves no point.

    Args:
      annotations: annotations with a segment in every instance.
      law: where in the instance: "uniform" draws anywhere in it, "gaussian" almost in its middle
        (relative position of mean 0.48 and deviation 0.035), "center" takes its middle.
      seed: 0 or more.

    Returns:
      The annotations with points, law and seed.

    Raises:
      ValueError: if the law is unknown, the seed is not a whole number of 0 or more, or an instance
        has no segment.

    >>> from tal_jax.data.annotations import parse_annotations
    >>> jump = {"label": "jump", "segment": [3.0, 4.0]}
    >>> recording = {"subset": "train", "duration": 9.0, "annotations": [jump]}
    >>> annotations = parse_annotations({"database": {"r": recording}})
    >>> annotations = generate_points(annotations, law="center", seed=0)
    >>> annotations.recordings["r"].instances[0].point_s
    3.5
    """
    _check(law, seed)
    recordings = {}
    for name, recording in annotations.recordings.items():
        instances = tuple(
            dataclasses.replace(
                instance, point_s=draw_point(name, index, instance, law=law, seed=int(seed))
            )
            for index, instance in enumerate(recording.instances)
        )
        recordings[name] = dataclasses.replace(recording, instances=instances)
    return dataclasses.replace(
        annotations, recordings=recordings, point_law={"law": law, "seed": int(seed)}
    )


def draw_point(name: str, index: int, instance: Instance, *, law: str, seed: int) -> float:
    """Draws the point of one instance, the `index`-th of the recording `name`.

    Raises ValueError as `generate_points` does, which tells the rest.
    """
    _check(law, seed)
    if instance.start_s is None or instance.end_s is None:
        raise ValueError(
            f"{name}: instance of {instance.label!r} has no segment to draw a point in"
        )
    digest = hashlib.sha256(f"{index}/{name}".encode()).digest()
    rng = np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
    if law == "uniform":
        position = rng.uniform()
    elif law == "gaussian":
        position = rng.normal(_GAUSSIAN_MEAN, _GAUSSIAN_DEVIATION)
    else:
        position = 0.5
    time_s = instance.start_s + float(position) * (instance.end_s - instance.start_s)
    # Half-open: the end itself belongs to no instance, and rounding may reach it.
    return min(max(time_s, instance.start_s), math.nextafter(instance.end_s, -math.inf))


def _check(law: str, seed: int) -> None:
    if law not in LAWS:
        raise ValueError(f"points: unknown law {law!r}, expected one of {', '.join(LAWS)}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"points: seed is {seed!r}, expected a whole number, 0 or more")
