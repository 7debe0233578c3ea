"""Recordings of different lengths as arrays of fixed shapes, made on the host."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.detections import DetectionRows, rows_of
from tal_jax.data.recordings import (
    Recording,
    done_snippets,
    labelled_snippets,
    labels_of,
    read_features,
)
from tal_jax.data.timeline import NO_POINTS, Lengths, MostPoints, Proposals, Timeline

_T = TypeVar("_T")


def bucket(size: int, step: int) -> int:
    """The least multiple of `step` that holds `size`: few shapes, so few compilations."""
    return max(-(-size // step), 1) * step


def serving_length(size: int) -> int:
    """The least of 256, 512, 1,024 and then 1,536, 2,048, 3,072, ... that holds `size`.

    Recordings that come one after another share the programs of few lengths.

    >>> [serving_length(size) for size in (1, 257, 1025, 2048, 2049)]
    [256, 512, 1536, 2048, 3072]
    """
    power = 1 << max(size - 1, 255).bit_length()
    return power * 3 // 4 if power > 1024 and size <= power * 3 // 4 else power


def spacious(size: int) -> int:
    """Rounds up to limit recompilation (at most 1/16 padding).

    >>> spacious(8269), spacious(100)
    (8704, 100)
    """
    return bucket(size, 1 << max(size.bit_length() - 5, 0))


def snippet_counts(recordings: Sequence[Recording]) -> list[int]:
    """T of each recording."""
    return [len(recording.features) for recording in recordings]


def labelled_counts(recordings: Sequence[Recording]) -> list[int]:
    """The labelled ones among the T snippets of each recording."""
    return [int(labelled_snippets(recording).sum()) for recording in recordings]


# --- features ---


def feature_dtype(recordings: Sequence[Recording], precision: str = "float32") -> np.dtype:
    """The type of packed features: bfloat16 where the network multiplies in it, else their own."""
    if precision == "bfloat16":
        return np.dtype(jnp.bfloat16)
    return np.result_type(*{recording.features.dtype for recording in recordings})


def pack_features(
    recordings: Sequence[Recording], *, num_rows: int = 0, precision: str = "float32"
) -> np.ndarray:
    """Features of recordings, one after another: `[S, D]`; each recording is read once.

    Args:
      recordings: not empty.
      num_rows: S at least; grows to all snippets.
      precision: of the network's products, see `feature_dtype`.

    Raises:
      InputError: if features that come from a file hold NaN or infinity.
    """
    total, dim = sum(snippet_counts(recordings)), recordings[0].features.shape[1]
    features = np.zeros((max(num_rows, total), dim), feature_dtype(recordings, precision))
    first = 0
    for recording in recordings:
        size = len(recording.features)
        features[first : first + size] = read_features(recording)
        first += size
    return features


# --- timelines ---


def pack_timeline(
    recordings: Sequence[Recording],
    *,
    length: int,
    num_points: int = 0,
    num_background: int = 0,
    num_video_classes: int = 0,
    overlapping: Sequence[tuple[int, int]] = (),
    most_points: MostPoints = NO_POINTS,
) -> Timeline:
    """The uncompensated timeline of R recordings, in host arrays without features.

    Every snippet weighs 1, and instances are those that are known: points with a segment.

    Args:
      recordings: R recordings.
      length: T, in snippets, at least that of the longest recording.
      num_points: P at least; grows to the largest number of points.
      num_background: Q at least; grows to the largest number of background points.
      num_video_classes: L at least; grows to the largest number of labelled classes.
      overlapping: pairs of classes whose actions may overlap: no negatives of each other.
      most_points: from `most_points_of`, where the timeline is to be trained on.
    """
    sizes, labels = snippet_counts(recordings), [labels_of(recording) for recording in recordings]
    for recording, size in zip(recordings, sizes, strict=True):
        if size > length:
            raise ValueError(f"{recording.name}: {size} snippets; expected at most {length}")
    where = np.arange(length) < np.array(sizes)[:, None]
    num_points = max([1, num_points, *(len(recording.points) for recording in recordings)])
    point_times, point_where = _padded_rows(
        [_point_times(recording) for recording in recordings], num_points, np.float32
    )
    point_class_index, _ = _padded_rows(
        [
            [labels[row].index(point.label) for point in recording.points]
            for row, recording in enumerate(recordings)
        ],
        num_points,
        np.int32,
    )
    background_times, background_where = _padded_rows(
        [one.grid.to_snippets(np.array(one.background_s, np.float64)) for one in recordings],
        max([1, num_background, *(len(recording.background_s) for recording in recordings)]),
        np.float32,
    )
    video_classes, video_class_where = pack_video_classes(labels, num_video_classes)
    instances, known = _known_instances(recordings, num_points)
    # Until proposals give every point an instance, only recordings without unknown ones count: the
    # instance loss takes snippets outside of all instances for background.
    complete = (known == point_where).all(axis=1, keepdims=True)
    return Timeline(
        features=None,
        first=np.cumsum([0, *sizes[:-1]], dtype=np.int32),
        where=where,
        point_times=point_times,
        point_class_index=point_class_index,
        point_where=point_where,
        video_classes=video_classes,
        video_class_where=video_class_where,
        negative_classes=_negative_classes(video_classes, overlapping),
        weights=where.astype(np.float32),
        counts=np.array(sizes, np.int32),
        instances=instances,
        instance_where=known & complete,
        known=known,
        number=np.arange(len(recordings), dtype=np.int32),
        background_times=background_times,
        background_where=background_where,
        done=_padded_rows([done_snippets(one) for one in recordings], length, bool)[0],
        labelled=_padded_rows([labelled_snippets(one) for one in recordings], length, bool)[0],
        most_points=most_points,
    )


def pack_video_classes(
    labels: Sequence[Sequence[int]], num_video_classes: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Lists of class numbers as `[R, L]` int32, and `[R, L]` True where one is."""
    size = max([1, num_video_classes, *map(len, labels)])
    return _padded_rows(labels, size, np.int32)


def _padded_rows(rows, size, dtype) -> tuple[np.ndarray, np.ndarray]:
    values, where = np.zeros((len(rows), size), dtype), np.zeros((len(rows), size), bool)
    for row, content in enumerate(rows):
        values[row, : len(content)] = content
        where[row, : len(content)] = True
    return values, where


def _point_times(recording: Recording) -> np.ndarray:
    """`[P]` in snippets."""
    times_s = np.array([point.time_s for point in recording.points], np.float64)
    return recording.grid.to_snippets(times_s)


def _known_instances(
    recordings: Sequence[Recording], num_points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Annotated segments of points in snippets `[R, P, 2]`, and which points have one `[R, P]`."""
    instances = np.zeros((len(recordings), num_points, 2), np.float32)
    known = np.zeros(instances.shape[:2], bool)
    for row, recording in enumerate(recordings):
        for index, point in enumerate(recording.points):
            if point.segment_s is not None:
                instances[row, index] = recording.grid.to_snippets(np.array(point.segment_s))
                known[row, index] = True
    return instances, known


def _negative_classes(video_classes, overlapping) -> np.ndarray:
    num_rows, size = video_classes.shape
    negative = np.broadcast_to(~np.eye(size, dtype=bool), (num_rows, size, size)).copy()
    one, other = video_classes[:, :, None], video_classes[:, None, :]
    for first, second in overlapping:
        overlaps = (one == first) & (other == second) | (one == second) & (other == first)
        negative &= ~overlaps
    return negative


# --- lengths ---


def most_points_of(recordings: Sequence[Recording], window: int) -> MostPoints:
    """The most points of one class, and of all, in any `window` snippets of one recording.

    Also the most stretches of unknown time. A lengthened timeline has as many or fewer in a window
    of that many new snippets.
    """
    of_class = of_all = unknown = 0
    for recording in recordings:
        times = _point_times(recording)
        labels = np.array([point.label for point in recording.points], int)
        of_all = max(of_all, _most_within(times, window))
        for label in np.unique(labels):
            of_class = max(of_class, _most_within(times[labels == label], window))
        begins = np.flatnonzero(np.diff(done_snippets(recording).astype(int)) == 1)
        unknown = max(unknown, _most_within(begins, window))
    return MostPoints(of_class, of_all, unknown)


def _most_within(times: np.ndarray, window: float) -> int:
    times = np.sort(times)
    # Inclusive: the snippets of both ends may be touched.
    ends = np.searchsorted(times, times + window, side="right")
    return int((ends - np.arange(len(times))).max(initial=0))


def lengths_of(counts: np.ndarray, window: int) -> Lengths:
    """Padded lengths of timelines: few, to limit recompilation, with little padding.

    >>> lengths_of(np.array([500, 700, 5000]), 640)
    Lengths(window=640, whole=(640, 1280, 5120))
    >>> lengths_of(np.array([500, 700]), 640)
    Lengths(window=640, whole=(800,))

    Args:
      counts: `[R]` snippets of the timelines.
      window: snippets of an update.
    """
    doubled = {
        window << (max(-(-int(count) // window), 1) - 1).bit_length() for count in np.unique(counts)
    }
    *shorter, last = sorted(doubled)
    if last > window:
        # In steps of an eighth, so that rounds of about the same lengths share programs.
        last = bucket(int(np.max(counts)), last // 8)
    # Another program would cost more than this padding.
    shorter = [length for length in shorter if 1.5 * length < last]
    return Lengths(window, (*shorter, last))


def rows_to_draw(timeline: Timeline, lengths: Lengths) -> np.ndarray:
    """The rows that updates draw from, each as often as it holds windows: `[S]` int32.

    So a long recording is visited in proportion to its labelled length, and a single one fills a
    batch. The lengths are those of the original timeline, the same in all rounds.
    """
    rows = np.arange(len(timeline.counts), dtype=np.int32)
    if not lengths.windowed:
        return rows
    sizes = np.asarray(timeline.labelled).sum(axis=1)
    return np.repeat(rows, num_windows(sizes, lengths.window))


def num_windows(sizes: np.ndarray, window: int) -> np.ndarray:
    """How many windows recordings of `sizes` `[R]` snippets hold, rounded, at least 1: `[R]`.

    >>> num_windows(np.array([100, 640, 7810]), 640)
    array([ 1,  1, 12])
    """
    return np.maximum(np.round(sizes / window), 1).astype(int)


# --- proposals ---


def pack_proposals(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    recordings: Sequence[Recording],
    video_classes: np.ndarray,
    video_class_where: np.ndarray,
    classes: Sequence[str],
) -> Proposals:
    """Reads ActivityNet results as proposals of R recordings.

    Args:
      results: `{recording: [{label, score, segment in seconds}]}`; may come from any model.
      recordings: R recordings.
      video_classes: `[R, L]` as in `Timeline`.
      video_class_where: `[R, L]`.
      classes: names of the classes.

    Raises:
      InputError: if a recording is missing or a proposal is malformed or of an unknown class.
    """
    class_of = {label: number for number, label in enumerate(classes)}
    entries = [_checked_proposals(results, recording, class_of) for recording in recordings]
    # In powers of two, so that rounds of about as many proposals share a program.
    most = 1 << max(max(len(rows) for rows, _ in entries) - 1, 0).bit_length()
    shape = (len(recordings), most)
    segments = np.zeros((*shape, 2), np.float32)
    scores, class_index = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    where = np.zeros(shape, bool)
    index_of = np.full(len(classes), -1)
    for row, (recording, (rows, labels)) in enumerate(zip(recordings, entries, strict=True)):
        labelled = video_classes[row][video_class_where[row]]
        index_of[labelled] = np.arange(len(labelled))
        # Proposals of classes that the recording is not labelled with are left out.
        kept = index_of[labels] >= 0
        size = int(kept.sum())
        class_index[row, :size] = index_of[labels[kept]]
        scores[row, :size] = rows.scores[kept]
        segments[row, :size] = recording.grid.to_snippets(rows.segments[kept])
        where[row, :size] = True
        index_of[labelled] = -1
    return Proposals(segments, scores, class_index, where)


def _checked_proposals(results, recording, class_of):
    """One recording's proposals, and their class numbers `[N]`."""
    if recording.name not in results:
        raise InputError(f"proposals: none for {recording.name!r}; expected an entry, maybe empty")
    entries = results[recording.name]
    for entry in () if isinstance(entries, DetectionRows) else entries:
        numbers = np.asarray([entry.get("score"), *(entry.get("segment") or [])], np.float64)
        if entry.get("label") not in class_of or numbers.shape != (3,):
            _refuse_proposal(recording, class_of, entry)
    rows = rows_of(entries)
    numbers = np.array([class_of.get(label, -1) for label in rows.classes], np.intp)
    labels = numbers[rows.labels] if len(rows) else np.zeros(0, np.intp)
    # A proposal of zero length is allowed: sampling widens it to one snippet.
    right = np.isfinite(rows.scores) & np.isfinite(rows.segments).all(axis=1)
    right &= (rows.segments[:, 0] <= rows.segments[:, 1]) & (labels >= 0)
    for place in np.flatnonzero(~right)[:1]:
        _refuse_proposal(recording, class_of, entries[int(place)])
    return rows, labels


def _refuse_proposal(recording, class_of, entry):
    label, score, segment = entry.get("label"), entry.get("score"), entry.get("segment")
    if label not in class_of:
        raise InputError(f"proposals of {recording.name!r}: unknown class {label!r}")
    raise InputError(
        f"proposals of {recording.name!r}: score {score!r}, segment {segment!r}; expected "
        "finite numbers, and an end that is not before the start"
    )


# --- groups ---

# Recordings that are processed, and held in memory, at once.
CHUNK = 16
# Lengths of recordings are rounded up to a multiple of this, to limit recompilation.
LENGTH_STEP = 64


def length_groups(
    items: Sequence[_T], length_of: Callable[[_T], int]
) -> Iterator[tuple[int, Sequence[_T]]]:
    """Groups of at most `CHUNK` items, and the length to pad each to.

    Lengths double from one kind of group to the next, so that padding stays small; below 1,024
    snippets another compilation would cost more than it saves. They are multiples of `LENGTH_STEP`,
    for an item alone those of `serving_length`.
    """
    kinds: dict[int, list[_T]] = {}
    for item in items:
        size = max(length_of(item), 1023)
        kinds.setdefault(size.bit_length(), []).append(item)
    for alike in kinds.values():
        longest = max(map(length_of, alike))
        length = bucket(longest, LENGTH_STEP) if len(alike) > 1 else serving_length(longest)
        for group in equal_parts(alike):
            yield length, group


def equal_parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Parts of at most `CHUNK`, all of one size, so that one program serves all."""
    size = min(CHUNK, len(items))
    for first in range(0, len(items), size):
        # The last part is filled up with some of the part before it.
        first = min(first, len(items) - size)
        yield items[first : first + size]
