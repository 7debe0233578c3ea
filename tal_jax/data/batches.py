"""Recordings of different lengths as one set of fixed-shape arrays.

What is large, the features, lies one recording after another, so that a long recording makes no
room for itself in the others; what is small is padded.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from tal_jax.data.recordings import Recording, labels_of, read_features


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedRecordings:
    """R recordings of up to T snippets; on the host or on a device.

    A recording's labelled classes are listed in *slots*, so that what is kept for each labelled
    class (its pseudo labels, say) does not grow with the number of classes of the data set.
    """

    features: jax.Array  # [S, D] float16 or float32, one recording after another, then zeros
    first: jax.Array  # [R] int32, the row of each recording's first snippet
    where: jax.Array  # [R, T] bool, True on the valid snippets
    point_times: jax.Array  # [R, P] float32, in snippets
    point_slots: jax.Array  # [R, P] int32, which slot's class the point belongs to
    point_where: jax.Array  # [R, P] bool
    slot_labels: jax.Array  # [R, L] int32, the class of each slot; 0 in empty ones
    slot_where: jax.Array  # [R, L] bool


def bucket(size: int, step: int) -> int:
    """The least multiple of `step` that holds `size`: few different shapes, so few compilations."""
    return max(-(-size // step), 1) * step


def spacious(size: int) -> int:
    """Room for `size`, a sixteenth too much at most: sets of similar size share programs.

    >>> spacious(8269), spacious(100)
    (8704, 100)
    """
    return bucket(size, 1 << max(size.bit_length() - 5, 0))


def pack(
    recordings: Sequence[Recording],
    *,
    length: int,
    num_rows: int = 0,
    num_points: int = 0,
    num_slots: int = 0,
    features: jax.Array | None = None,
) -> PackedRecordings:
    """Puts recordings into arrays, reading each once.

    Args:
      recordings: R recordings.
      length: T, in snippets, at least that of the longest recording.
      num_rows: S at least; grows to all snippets together.
      num_points: P at least; grows to the largest number of points.
      num_slots: L at least; grows to the largest number of labelled classes.
      features: what this would make of the features, where it is there already; none is read.

    Returns:
      Host arrays, but for `features` if given.

    Raises:
      ValueError: if a recording is longer than `length`, or features that come from a file hold
        NaN or infinity.
    """
    labels = [labels_of(recording) for recording in recordings]
    num_points = max([1, num_points, *(len(r.points) for r in recordings)])
    num_slots = max([1, num_slots, *map(len, labels)])
    count, dim = len(recordings), recordings[0].features.shape[1]
    sizes = [len(recording.features) for recording in recordings]
    num_rows = max(num_rows, sum(sizes))
    dtype = np.result_type(*{recording.features.dtype for recording in recordings})
    packed = PackedRecordings(
        features=np.zeros((num_rows, dim), dtype) if features is None else features,
        first=np.cumsum([0, *sizes[:-1]], dtype=np.int32),
        where=np.zeros((count, length), bool),
        point_times=np.zeros((count, num_points), np.float32),
        point_slots=np.zeros((count, num_points), np.int32),
        point_where=np.zeros((count, num_points), bool),
        slot_labels=np.zeros((count, num_slots), np.int32),
        slot_where=np.zeros((count, num_slots), bool),
    )
    for row, recording in enumerate(recordings):
        size, first = sizes[row], packed.first[row]
        if size > length:
            raise ValueError(f"{recording.name}: {size} snippets; expected at most {length}")
        if features is None:
            packed.features[first : first + size] = read_features(recording)
        packed.where[row, :size] = True
        points = recording.points
        times_s = np.array([point.time_s for point in points], np.float64)
        packed.point_times[row, : len(points)] = recording.grid.to_snippets(times_s)
        packed.point_slots[row, : len(points)] = [labels[row].index(p.label) for p in points]
        packed.point_where[row, : len(points)] = True
        packed.slot_labels[row, : len(labels[row])] = labels[row]
        packed.slot_where[row, : len(labels[row])] = True
    return packed
