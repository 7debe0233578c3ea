"""Action compensation sampling: a timeline on which short actions are longer.

Proposals give every snippet a weight, the cumulative weight is the new time, and features are read
at evenly spaced new times. Times are in snippets: snippet `i` is the time `[i, i + 1)`. A
*position* is a time minus one half, so that position `i` is the centre of snippet `i`. Everything
that leaves the network on the new timeline comes back through `old_times`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tal_jax.ops import _cumsum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Resampled:
    """A recording read on its new timeline, or on a window of it.

    Attributes:
      features: the features of the new snippets; masked ones are 0. None from `sample_times`.
      positions: where on the old timeline each new snippet was read; masked ones are 0.
      cumulative: the cumulative weights that carry times from the old timeline to the new.
      where: which new snippets are real; always a prefix.
      first: for a window, the new snippet that it begins with; None for a whole timeline.
      count: for a window, the number of new snippets of the whole timeline; None as above.
    """

    features: jax.Array | None  # [N, D]
    positions: jax.Array  # [N] float32
    cumulative: jax.Array  # [T + 1] float32
    where: jax.Array  # [N] bool
    first: jax.Array | None = None  # [] int32
    count: jax.Array | None = None  # [] int32


def compensation_weights(
    segments: jax.Array,
    length: int,
    *,
    tau: jax.typing.ArrayLike,
    where: jax.Array | None = None,
) -> jax.Array:
    """Returns the weight of each snippet that makes short proposals about `tau` snippets long.

    A proposal of length l < tau weighs the snippets that it covers by `tau / l`, and those that it
    covers in part by the same fraction of the excess over 1. Where proposals overlap the largest
    weight counts; elsewhere it is 1. A proposal shorter than one snippet is first widened about its
    middle to one, so no weight exceeds `tau`.

    >>> compensation_weights(jnp.array([[1.0, 2.5], [0.0, 5.0]]), 5, tau=3.0)
    Array([1. , 2. , 1.5, 1. , 1. ], dtype=float32)

    Args:
      segments: `[N, 2]` starts and ends of proposals, in snippets. Parts outside the recording are
        ignored, and so is a proposal whose end lies before its start.
      length: the number of snippets T; static.
      tau: proposals shorter than this, in snippets, are short.
      where: `[N]` bool, any mask over proposals.

    Returns:
      `[length]` float32 weights, at least 1.

    Raises:
      ValueError: if the shapes do not fit.
    """
    segments, tau = jnp.asarray(segments, jnp.float32), jnp.asarray(tau, jnp.float32)
    if segments.ndim != 2 or segments.shape[1] != 2:
        raise ValueError(f"segments must have shape [N, 2], got {segments.shape}")
    where = _cumsum.mask_or_all(where, segments.shape[0])
    segments = jnp.where(where[:, None], segments, 0.0)
    start, end = segments[:, 0], segments[:, 1]

    size = jnp.maximum(end - start, 1.0)
    widened = end - start < 1.0
    middle = start + 0.5 * (end - start)
    start, end = (
        jnp.clip(jnp.where(widened, middle - 0.5, start), 0.0, length),
        jnp.clip(jnp.where(widened, middle + 0.5, end), 0.0, length),
    )
    short = where & (segments[:, 1] >= segments[:, 0]) & (size < tau)
    excess = jnp.where(short, tau / size - 1.0, 0.0)

    # A proposal adds `excess` to the snippets inside it, and a fraction of that to the two at its
    # ends. The largest of many values over many ranges is a sparse table filled backwards, in
    # O((N + T) log T). It holds ranks, not values, so that the gradient is that of one gather.
    def at_end(time):
        snippet = jnp.floor(time)
        covered = jnp.minimum(end, snippet + 1.0) - jnp.maximum(start, snippet)
        return snippet.astype(jnp.int32), excess * jnp.maximum(covered, 0.0)

    first, excess_first = at_end(start)
    last, excess_last = at_end(end)
    values = jnp.concatenate([excess, excess_first, excess_last])
    order = jnp.argsort(values)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(1, order.shape[0] + 1, dtype=order.dtype))
    inside, rank_first, rank_last = jnp.split(rank, 3)
    best = _max_over_ranges(
        inside, jnp.ceil(start).astype(jnp.int32), jnp.floor(end).astype(jnp.int32), length
    )
    best = best.at[first].max(rank_first, mode="drop").at[last].max(rank_last, mode="drop")
    return 1.0 + jnp.pad(values[order], (1, 0))[best]


def cumulative_weights(weights: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """Returns the cumulative weight at the times 0, 1, ..., T: the new time of each old one.

    It never decreases, and it is exactly flat over weights of 0 and beyond the valid snippets.

    >>> cumulative_weights(jnp.array([1.0, 3.0, 0.5]), where=jnp.array([True, True, False]))
    Array([0., 1., 4., 4.], dtype=float32)

    Args:
      weights: `[T]` finite weights of at least 0.
      where: `[T]` bool, True for valid snippets; a masked snippet weighs 0.

    Returns:
      `[T + 1]` float32, each entry within a rounding or two of the exact sum.

    Raises:
      ValueError: if the shapes do not fit.
    """
    weights = jnp.asarray(weights, jnp.float32)
    (length,) = weights.shape
    weights = jnp.where(_cumsum.mask_or_all(where, length), weights, 0.0)
    sums = _cumsum.prefix_sum(weights)
    cumulative = _cumsum.range_sum(sums, 0, jnp.arange(length + 1, dtype=jnp.int32))

    # Rounding can leave neighbours one unit in the last place out of order, and a flat part one
    # unit off itself.
    weighs = jnp.pad(weights > 0, (1, 0))
    steps = jnp.where(weighs, jax.lax.stop_gradient(cumulative), 0.0)
    ordered = jax.lax.cummax(steps)
    return cumulative + jax.lax.stop_gradient(ordered - cumulative)


def warp(times: jax.Array, cumulative: jax.Array) -> jax.Array:
    """Returns the cumulative weight at times of the old timeline, linear inside each snippet.

    >>> warp(jnp.array([-1.0, 0.5, 1.5, 9.0]), jnp.array([0.0, 1.0, 4.0]))
    Array([0. , 0.5, 2.5, 4. ], dtype=float32)

    Args:
      times: old times in snippets, of any shape; clamped to `[0, T]`.
      cumulative: `[T + 1]` from `cumulative_weights`.

    Returns:
      float32 cumulative weights in the shape of `times`.

    Raises:
      ValueError: if `cumulative` is not one-dimensional with at least two entries.
    """
    cumulative = _checked_cumulative(cumulative)
    length = cumulative.shape[0] - 1
    times = jnp.clip(jnp.asarray(times, jnp.float32), 0.0, length)
    snippet = jnp.minimum(jnp.floor(times), length - 1)
    index = snippet.astype(jnp.int32)
    below, above = cumulative[index], cumulative[index + 1]
    return below + (times - snippet) * (above - below)


def unwarp(values: jax.Array, cumulative: jax.Array) -> jax.Array:
    """Returns the old times at which cumulative weights are reached; the inverse of `warp`.

    >>> unwarp(jnp.array([0.5, 2.5, 9.0]), jnp.array([0.0, 1.0, 4.0]))
    Array([0.5, 1.5, 2. ], dtype=float32)

    Args:
      values: cumulative weights, of any shape; clamped to those that the recording reaches.
      cumulative: `[T + 1]` from `cumulative_weights`.

    Returns:
      float32 old times in snippets, in the shape of `values`. Where the cumulative weight is flat,
      the leftmost time.

    Raises:
      ValueError: if `cumulative` is not one-dimensional with at least two entries.
    """
    cumulative = _checked_cumulative(cumulative)
    values = jnp.clip(jnp.asarray(values, jnp.float32), cumulative[0], cumulative[-1])
    # The first snippet that ends at or above the value.
    above = jnp.searchsorted(cumulative, values, side="left")
    index = jnp.maximum(above, 1) - 1
    below = cumulative[index]
    weight = cumulative[index + 1] - below
    # A weight of 0 is met only where nothing lies to the left of the value: time 0.
    return index.astype(jnp.float32) + (values - below) / jnp.where(weight > 0, weight, 1.0)


def interpolate(
    features: jax.Array, positions: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Returns the features at positions between snippets, by linear interpolation.

    >>> interpolate(jnp.array([[0.0], [4.0], [6.0]]), jnp.array([-0.5, 0.25, 2.0]))
    Array([[0.],
           [1.],
           [6.]], dtype=float32)

    Args:
      features: `[T, D]`.
      positions: `[N]` times minus one half, in snippets; clamped to the centres of the first and
        last valid snippet.
      where: `[T]` bool, a prefix: True for valid snippets.

    Returns:
      `[N, D]` in the floating type of `features`; 0 if no snippet is valid.

    Raises:
      ValueError: if the shapes do not fit.
    """
    where = _cumsum.mask_or_all(where, jnp.shape(features)[0])
    return interpolate_among(features, 0, positions, where=where)


def interpolate_among(
    features: jax.Array, first: jax.typing.ArrayLike, positions: jax.Array, *, where: jax.Array
) -> jax.Array:
    """`interpolate` for a recording that lies among others, one after another.

    >>> features = jnp.array([[9.0], [0.0], [4.0], [9.0]])
    >>> interpolate_among(features, 1, jnp.array([0.25, 2.0]), where=jnp.ones(2, bool))[:, 0]
    Array([1., 4.], dtype=float32)

    Args:
      features: `[S, D]` of all recordings.
      first: the row of this one's first snippet.
      positions: `[N]` as in `interpolate`, counted from that row.
      where: `[T]` bool, a prefix: the valid snippets of this one.

    Returns:
      `[N, D]` as from `interpolate`.

    Raises:
      ValueError: if the shapes do not fit.
    """
    features, positions = jnp.asarray(features), jnp.asarray(positions, jnp.float32)
    if features.ndim != 2 or features.shape[0] < 1 or positions.ndim != 1:
        raise ValueError(
            "features must have shape [T, D], T at least 1, and positions [N], "
            f"got {features.shape} and {positions.shape}"
        )
    first = jnp.asarray(first, jnp.int32)
    last = jnp.maximum(jnp.sum(where, dtype=jnp.int32) - 1, 0)
    positions = jnp.clip(positions, 0.0, last.astype(jnp.float32))
    snippet = jnp.floor(positions)
    index = snippet.astype(jnp.int32)

    def rows(index):
        return jnp.where(where[0], features[first + index].astype(jnp.float32), 0.0)

    left, right = rows(index), rows(jnp.minimum(index + 1, last))
    floating = jnp.issubdtype(features.dtype, jnp.floating)
    result = left + (positions - snippet)[:, None] * (right - left)
    return result.astype(features.dtype if floating else jnp.float32)


def resample(
    features: jax.Array,
    weights: jax.Array,
    num_samples: int,
    *,
    count: jax.typing.ArrayLike | None = None,
    where: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Resampled:
    """Returns a recording read at evenly spaced times of its new timeline.

    The new timeline has `count` cells of equal cumulative weight, and each is read at its centre.
    Weights of 1 and as many samples as snippets give the features back unchanged.

    >>> resampled = resample(jnp.array([[0.0], [1.0]]), jnp.array([1.0, 4.0]), 5)
    >>> resampled.positions + 0.5
    Array([0.5  , 1.125, 1.375, 1.625, 1.875], dtype=float32)
    >>> resampled.features[:, 0]
    Array([0.   , 0.625, 0.875, 1.   , 1.   ], dtype=float32)

    Args:
      features: `[T, D]`.
      weights: `[T]` weights of the snippets, at least 0, as from `compensation_weights`.
      num_samples: the number of new snippets N; static.
      count: how many of them are real; at most `num_samples`, which is the default. May be traced.
        The rounded sum of the weights keeps an unweighted snippet one sample wide.
      where: `[T]` bool, a prefix: True for valid snippets.
      key: a random key moves each sample to a uniformly random time inside its own cell; None reads
        the centres.

    Returns:
      The new snippets as `Resampled`. If no valid snippet has any weight, none is real.

    Raises:
      ValueError: if the shapes do not fit, or `num_samples` or a `count` that is not traced is out
        of range.

    Source: inverse-transform sampling with cell centres, so that nothing moves by half a snippet.
    """
    features, weights = jnp.asarray(features), jnp.asarray(weights, jnp.float32)
    if features.ndim != 2 or weights.shape != features.shape[:1]:
        raise ValueError(
            "features must have shape [T, D] and weights [T], "
            f"got {features.shape} and {weights.shape}"
        )
    timeline = sample_times(weights, num_samples, count=count, where=where, key=key)
    sampled = interpolate(features, timeline.positions, where=where)
    sampled = jnp.where(timeline.where[:, None], sampled, jnp.zeros_like(sampled))
    return dataclasses.replace(timeline, features=sampled)


def sample_times(
    weights: jax.Array,
    num_samples: int,
    *,
    count: jax.typing.ArrayLike | None = None,
    where: jax.Array | None = None,
    key: jax.Array | None = None,
    first: jax.Array | None = None,
) -> Resampled:
    """Returns where `resample` reads, without reading: for features that lie elsewhere.

    >>> sample_times(jnp.array([1.0, 4.0]), 5).positions + 0.5
    Array([0.5  , 1.125, 1.375, 1.625, 1.875], dtype=float32)

    With `first` only a window of the new timeline is sampled: the timeline has `count` snippets,
    of which those from `first` on are read.

    >>> sample_times(jnp.array([1.0, 4.0]), 2, count=5, first=jnp.int32(1)).positions + 0.5
    Array([1.125, 1.375], dtype=float32)

    Args:
      weights: see `resample`, as the others.
      num_samples: static.
      count: of real samples; needed with `first`, where it may exceed `num_samples`.
      where: `[T]` bool, a prefix.
      key: a random key.
      first: `[]` int32, the new snippet that the window begins with; None for the whole timeline.

    Returns:
      `Resampled` whose features are None; `interpolate` reads them at its positions.

    Raises:
      ValueError: as `resample`.
    """
    weights = jnp.asarray(weights, jnp.float32)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    cumulative = cumulative_weights(weights, where=where)
    if first is None:
        if isinstance(count, int) and not 0 <= count <= num_samples:
            raise ValueError(
                f"count must be between 0 and num_samples = {num_samples}, got {count}"
            )
        whole = jnp.asarray(num_samples if count is None else count, jnp.int32)
        count, begin = jnp.clip(whole, 0, num_samples), jnp.int32(0)
    elif count is None:
        raise ValueError("a window needs the count of the whole timeline's snippets")
    else:
        count, begin = jnp.asarray(count, jnp.int32), jnp.asarray(first, jnp.int32)
    samples = begin + jnp.arange(num_samples, dtype=jnp.int32)
    real = (samples < count) & (cumulative[-1] > 0)

    offset = 0.5 if key is None else jax.random.uniform(key, (num_samples,), jnp.float32)
    cells = samples.astype(jnp.float32) + offset
    times = unwarp(cells * _cell_weight(cumulative, count), cumulative)
    positions = jnp.where(real, times - 0.5, 0.0)
    window = {} if first is None else {"first": begin, "count": count}
    return Resampled(
        features=None, positions=positions, cumulative=cumulative, where=real, **window
    )


def new_times(times: jax.Array, resampled: Resampled) -> jax.Array:
    """Returns old times on the new timeline, in new snippets.

    >>> resampled = resample(jnp.zeros((2, 1)), jnp.array([1.0, 3.0]), 8)
    >>> new_times(jnp.array([0.5, 1.0, 2.0]), resampled)
    Array([1., 2., 8.], dtype=float32)

    Args:
      times: old times in snippets, of any shape; clamped to the recording.
      resampled: the new timeline, from `resample`. On a window of it, times outside of the window
        come out below 0 or beyond its end.
    """
    weight = _cell_weight_of(resampled)
    new = warp(times, resampled.cumulative) / jnp.where(weight > 0, weight, 1.0)
    return new if resampled.first is None else new - resampled.first.astype(jnp.float32)


def old_times(times: jax.Array, resampled: Resampled) -> jax.Array:
    """Returns new times on the old timeline, in old snippets; the inverse of `new_times`.

    >>> resampled = resample(jnp.zeros((2, 1)), jnp.array([1.0, 3.0]), 8)
    >>> old_times(jnp.array([1.0, 2.0, 8.0]), resampled)
    Array([0.5, 1. , 2. ], dtype=float32)

    Args:
      times: new times in snippets, of any shape; clamped to the recording.
      resampled: the new timeline, from `resample`.
    """
    times = jnp.asarray(times, jnp.float32)
    if resampled.first is not None:
        times = times + resampled.first.astype(jnp.float32)
    return unwarp(times * _cell_weight_of(resampled), resampled.cumulative)


def resample_points(
    times: jax.Array, resampled: Resampled, *, where: jax.Array | None = None
) -> jax.Array:
    """Returns which new snippets are positive for which labelled points.

    A new snippet is positive for a point that lies inside it, and for a point whose *old* snippet
    it was read from: a point inside a lengthened action becomes several positives.

    >>> resampled = resample(jnp.zeros((3, 1)), jnp.array([1.0, 2.0, 1.0]), 4)
    >>> resample_points(jnp.array([1.2, 3.0]), resampled)
    Array([[False, False],
           [ True, False],
           [ True, False],
           [False,  True]], dtype=bool)

    Args:
      times: `[P]` old times in snippets. A point at or beyond the end of the recording belongs to
        the last snippet.
      resampled: the new timeline, from `resample`.
      where: `[P]` bool, any mask over points.

    Returns:
      `[N, P]` bool; False wherever the new snippet or the point is masked.

    Raises:
      ValueError: if the shapes do not fit.
    """
    times = jnp.asarray(times, jnp.float32)
    if times.ndim != 1:
        raise ValueError(f"times must have shape [P], got {times.shape}")
    where = _cumsum.mask_or_all(where, times.shape[0])
    cumulative, real = resampled.cumulative, resampled.where

    new = jnp.floor(new_times(times, resampled)).astype(jnp.int32)
    last_new = _count_of(resampled) - 1
    new = jnp.minimum(new, last_new if resampled.first is None else last_new - resampled.first)
    contains = new[None, :] == jnp.arange(real.shape[0], dtype=jnp.int32)[:, None]

    last = jnp.sum(cumulative < cumulative[-1], dtype=jnp.int32) - 1

    def old_snippet(times):
        return jnp.clip(jnp.floor(times).astype(jnp.int32), 0, last)

    read_from = old_snippet(times)[None, :] == old_snippet(resampled.positions + 0.5)[:, None]
    return (contains | read_from) & real[:, None] & where[None, :]


def _max_over_ranges(values: jax.Array, start: jax.Array, end: jax.Array, length: int) -> jax.Array:
    """Returns the largest of the values whose range [start, end) covers each element, or 0.

    A range is the union of two overlapping ranges whose length is a power of two. Row p of the
    table holds the ranges of length 2**p by their start; from the top down each splits into its two
    halves.
    """
    num_rows = length.bit_length()
    size = end - start
    row = 31 - jax.lax.clz(jnp.maximum(size, 1))  # the integer logarithm to base 2
    row = jnp.where(size > 0, row, num_rows)  # an empty range falls off the table
    table = jnp.zeros((num_rows, length), values.dtype)
    table = table.at[row, start].max(values, mode="drop")
    table = table.at[row, end - (1 << row)].max(values, mode="drop")
    covered = table[num_rows - 1]
    for p in reversed(range(num_rows - 1)):
        half = 2**p
        shifted = jnp.pad(covered, (half, 0))[:length]
        covered = jnp.maximum(table[p], jnp.maximum(covered, shifted))
    return covered


def _cell_weight(cumulative: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the cumulative weight of one new snippet; exactly 1 if all weights were 1."""
    total, count = cumulative[-1], jnp.maximum(count, 1).astype(jnp.float32)
    weight = total / count
    # Division is not exactly rounded on every backend, and n / n must be 1 for the identity.
    error = jnp.where(total == count, 1.0 - weight, 0.0)
    return weight + jax.lax.stop_gradient(error)


def _count_of(resampled: Resampled) -> jax.Array:
    """How many new snippets the whole timeline has."""
    if resampled.count is None:
        return jnp.sum(resampled.where, dtype=jnp.int32)
    return resampled.count


def _cell_weight_of(resampled: Resampled) -> jax.Array:
    return _cell_weight(resampled.cumulative, _count_of(resampled))


def _checked_cumulative(cumulative: jax.Array) -> jax.Array:
    cumulative = jnp.asarray(cumulative, jnp.float32)
    if cumulative.ndim != 1 or cumulative.shape[0] < 2:
        raise ValueError(f"cumulative must have shape [T + 1], got {cumulative.shape}")
    return cumulative
