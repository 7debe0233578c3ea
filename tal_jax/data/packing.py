"""Recordings of different lengths as one set of fixed-shape arrays.

What is large, the features, lies one recording after another, so that a long recording makes no
room for itself in the others; what is small is padded.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax.data.recordings import Recording, labels_of, read_features


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedRecordings:
    """R recordings of up to T snippets; on the host or on a device.

    A recording's labelled classes are listed in *slots*, so that what is kept for each labelled
    class (its pseudo labels, say) does not grow with the number of classes of the data set.
    """

    features: jax.Array | None  # [S, D] floating, one recording after another, then zeros
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
) -> PackedRecordings:
    """Puts recordings into arrays, reading each once.

    Args:
      recordings: R recordings.
      length: T, in snippets, at least that of the longest recording.
      num_rows: S at least; grows to all snippets together.
      num_points: P at least; grows to the largest number of points.
      num_slots: L at least; grows to the largest number of labelled classes.

    Returns:
      Host arrays.

    Raises:
      ValueError: if a recording is longer than `length`, or features that come from a file hold
        NaN or infinity.
    """
    packed = pack_labels(recordings, length=length, num_points=num_points, num_slots=num_slots)
    return dataclasses.replace(packed, features=pack_features(recordings, num_rows=num_rows))


def feature_dtype(recordings: Sequence[Recording], precision: str = "float32") -> np.dtype:
    """What features are packed in: their own type, or bfloat16 where products are in that."""
    if precision == "bfloat16":
        return np.dtype(jnp.bfloat16)
    return np.result_type(*{recording.features.dtype for recording in recordings})


def pack_features(
    recordings: Sequence[Recording], *, num_rows: int = 0, precision: str = "float32"
) -> np.ndarray:
    """The features alone: `[S, D]` as in `pack`, S being `num_rows` or all snippets together.

    Args:
      recordings: to read.
      num_rows: S at least.
      precision: of the products, see `feature_dtype`.

    Raises:
      ValueError: if features that come from a file hold NaN or infinity.
    """
    total, dim = sum(snippet_counts(recordings)), recordings[0].features.shape[1]
    dtype = feature_dtype(recordings, precision)
    features = np.zeros((max(num_rows, total), dim), dtype)
    first = 0
    for recording in recordings:
        size = len(recording.features)
        features[first : first + size] = read_features(recording)
        first += size
    return features


def pack_labels(
    recordings: Sequence[Recording], *, length: int, num_points: int = 0, num_slots: int = 0
) -> PackedRecordings:
    """All but the features, which stay where they are: see `pack`."""
    labels = [labels_of(recording) for recording in recordings]
    num_points = max([1, num_points, *(len(r.points) for r in recordings)])
    num_slots = max([1, num_slots, *map(len, labels)])
    count, sizes = len(recordings), snippet_counts(recordings)
    packed = PackedRecordings(
        features=None,
        first=np.cumsum([0, *sizes[:-1]], dtype=np.int32),
        where=np.zeros((count, length), bool),
        point_times=np.zeros((count, num_points), np.float32),
        point_slots=np.zeros((count, num_points), np.int32),
        point_where=np.zeros((count, num_points), bool),
        slot_labels=np.zeros((count, num_slots), np.int32),
        slot_where=np.zeros((count, num_slots), bool),
    )
    for row, recording in enumerate(recordings):
        size = sizes[row]
        if size > length:
            raise ValueError(f"{recording.name}: {size} snippets; expected at most {length}")
        packed.where[row, :size] = True
        points = recording.points
        times_s = np.array([point.time_s for point in points], np.float64)
        packed.point_times[row, : len(points)] = recording.grid.to_snippets(times_s)
        packed.point_slots[row, : len(points)] = [labels[row].index(p.label) for p in points]
        packed.point_where[row, : len(points)] = True
        packed.slot_labels[row, : len(labels[row])] = labels[row]
        packed.slot_where[row, : len(labels[row])] = True
    return packed


def snippet_counts(recordings: Sequence[Recording]) -> list[int]:
    """T of each recording."""
    return [len(recording.features) for recording in recordings]
