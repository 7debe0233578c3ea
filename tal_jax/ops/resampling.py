# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Action compensation sampling: a timeline on which short actions are longer.

Proposals give every snippet a weight, the cumulative weight is the new time, and features are
sampled at evenly spaced new times. Times are in snippets: snippet `i` is the time `[i, i + 1)`. A
*position* is a time minus one half, so that position `i` is the centre of snippet `i`. Outputs of a
network on the new timeline are mapped back by `old_times`. Times and weights are float32.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, PRNGKeyArray, Real
from tal_jax.ops import _axes, _check, _cumsum
from tal_jax.ops._static import static


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Resampled:
    """A recording sampled on its new timeline, or on a window of it.

    Attributes:
      features: the features of the new snippets; masked ones are 0. None from `sample_times`.
      positions: the position on the old timeline of each new snippet; masked ones are 0.
      cumulative: the cumulative weights that map times of the old timeline to the new.
      where: which new snippets are real; always a prefix.
      first: for a window, the int32 index of its first snippet; None for a whole timeline.
      count: for a window, the int32 number of snippets of the whole new timeline; None as above.
    """

    features: Float[Array, "N D"] | None
    positions: Float[Array, " N"]
    cumulative: Float[Array, " edges"]
    where: Bool[Array, " N"]
    first: Int[Array, ""] | None = None
    count: Int[Array, ""] | None = None


@static("length")
def compensation_weights(
    segments: Real[ArrayLike, "N 2"],
    length: int,
    *,
    tau: Real[ArrayLike, ""],
    where: Mask[ArrayLike, " N"] | None = None,
) -> Float[Array, " {length}"]:
    r"""Returns weights of snippets that lengthen short proposals to about `tau` snippets.

    A proposal of length $l < \tau$ gives the snippets that it covers the weight $\tau / l$, and
    those that it covers in part the same fraction of the excess over 1. Where proposals overlap the
    largest weight counts; elsewhere it is 1. A proposal shorter than one snippet is first widened
    about its middle to one, so no weight exceeds `tau`.

    >>> compensation_weights(jnp.array([[1.0, 2.5], [0.0, 5.0]]), 5, tau=3.0)
    Array([1. , 2. , 1.5, 1. , 1. ], dtype=float32)

    Args:
      segments: starts and ends of proposals, in snippets. Parts outside the recording are ignored,
        and so is a proposal whose end is before its start.
      length: the number of snippets T (static).
      tau: proposals shorter than this, in snippets, are short.
      where: any mask over proposals.

    Returns:
      float32 weights, at least 1.

    Raises:
      ValueError: if shapes or types do not fit, or a `tau` that is not traced is below 0.
    """
    sizes: dict[str, int] = {}
    segments = _check.numbers(segments, "segments", "N 2", sizes)
    where = _check.mask(where, "where", "N", sizes)
    length = _check.static_size(length, "length", least=0)
    tau = _check.setting(tau, "tau", least=0)
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
    def at_end(time: Float[Array, " N"]) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
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


def cumulative_weights(
    weights: Real[ArrayLike, " T"], *, where: Mask[ArrayLike, " T"] | None = None
) -> Float[Array, " T+1"]:
    """Returns the cumulative weight at the times 0, 1, ..., T: the new time of each old one.

    It never decreases, and it is exactly flat over weights of 0 and beyond the valid snippets.

    >>> cumulative_weights(jnp.array([1.0, 3.0, 0.5]), where=jnp.array([True, True, False]))
    Array([0., 1., 4., 4.], dtype=float32)

    Args:
      weights: finite weights of at least 0.
      where: any mask, True on the valid snippets; a masked snippet has weight 0.

    Returns:
      float32, each entry within a rounding or two of the exact sum.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    sizes: dict[str, int] = {}
    weights = _check.numbers(weights, "weights", "T", sizes)
    weights = jnp.where(_check.mask(where, "where", "T", sizes), weights, 0.0)
    sums = _cumsum.prefix_sum(weights)
    cumulative = _cumsum.range_sum(sums, 0, jnp.arange(sizes["T"] + 1, dtype=jnp.int32))

    # Rounding can leave neighbours one unit in the last place out of order, and a flat part one
    # unit off itself.
    weighs = jnp.pad(weights > 0, (1, 0))
    steps = jnp.where(weighs, jax.lax.stop_gradient(cumulative), 0.0)
    ordered = jax.lax.cummax(steps)
    return cumulative + jax.lax.stop_gradient(ordered - cumulative)


def warp(
    times: Real[ArrayLike, "*shape"], cumulative: Real[ArrayLike, " edges"]
) -> Float[Array, "*shape"]:
    """Returns the cumulative weight at times of the old timeline, linear inside each snippet.

    >>> warp(jnp.array([-1.0, 0.5, 1.5, 9.0]), jnp.array([0.0, 1.0, 4.0]))
    Array([0. , 0.5, 2.5, 4. ], dtype=float32)

    Args:
      times: old times in snippets, of any shape; clamped to `[0, T]`.
      cumulative: from `cumulative_weights`.

    Returns:
      float32 cumulative weights.

    Raises:
      ValueError: if types do not fit, or `cumulative` is not one-dimensional with at least two
        entries.
    """
    cumulative = _checked_cumulative(cumulative)
    length = cumulative.shape[0] - 1
    times = jnp.clip(_check.numbers(times, "times", "..."), 0.0, length)
    snippet = jnp.minimum(jnp.floor(times), length - 1)
    index = snippet.astype(jnp.int32)
    below, above = cumulative[index], cumulative[index + 1]
    return below + (times - snippet) * (above - below)


def unwarp(
    values: Real[ArrayLike, "*shape"], cumulative: Real[ArrayLike, " edges"]
) -> Float[Array, "*shape"]:
    """Returns the old times at which cumulative weights are reached; the inverse of `warp`.

    >>> unwarp(jnp.array([0.5, 2.5, 9.0]), jnp.array([0.0, 1.0, 4.0]))
    Array([0.5, 1.5, 2. ], dtype=float32)

    Args:
      values: cumulative weights, of any shape; clamped to those that the recording reaches.
      cumulative: from `cumulative_weights`.

    Returns:
      float32 old times in snippets. Where the cumulative weight is flat, the leftmost time.

    Raises:
      ValueError: if types do not fit, or `cumulative` is not one-dimensional with at least two
        entries.
    """
    cumulative = _checked_cumulative(cumulative)
    values = jnp.clip(_check.numbers(values, "values", "..."), cumulative[0], cumulative[-1])
    # The first snippet that ends at or above the value.
    above = _axes.searchsorted(cumulative, values)
    index = jnp.maximum(above, 1) - 1
    below = cumulative[index]
    weight = cumulative[index + 1] - below
    # A weight of 0 is met only where nothing lies to the left of the value: time 0.
    return index.astype(jnp.float32) + (values - below) / jnp.where(weight > 0, weight, 1.0)


def interpolate(
    features: Real[ArrayLike, "T D"],
    positions: Real[ArrayLike, " N"],
    *,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Float[Array, "N D"]:
    """Returns the features at positions between snippets, by linear interpolation.

    >>> interpolate(jnp.array([[0.0], [4.0], [6.0]]), jnp.array([-0.5, 0.25, 2.0]))
    Array([[0.],
           [1.],
           [6.]], dtype=float32)

    Args:
      features: of snippets.
      positions: times minus one half, in snippets; clamped to the centres of the first and last
        valid snippet.
      where: True on the valid snippets, a prefix; default all.

    Returns:
      Features in the floating type of `features` (float32 for integers), computed in float32 at
      least; 0 if no snippet is valid.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    sizes: dict[str, int] = {}
    features = _check.numbers(features, "features", "T D", sizes, dtype=None)
    where = _check.mask(where, "where", "T", sizes)
    return interpolate_among(features, 0, positions, where=where)


def interpolate_among(
    features: Real[ArrayLike, "S D"],
    first: Int[ArrayLike, ""],
    positions: Real[ArrayLike, " N"],
    *,
    where: Mask[ArrayLike, " T"],
) -> Float[Array, "N D"]:
    """Interpolates, as `interpolate` does, in one of several recordings that share an array.

    >>> features = jnp.array([[9.0], [0.0], [4.0], [9.0]])
    >>> interpolate_among(features, 1, jnp.array([0.25, 2.0]), where=jnp.ones(2, bool))[:, 0]
    Array([1., 4.], dtype=float32)

    Args:
      features: of all snippets of all recordings, one recording after another.
      first: the row of this recording's first snippet.
      positions: as in `interpolate`, counted from that row.
      where: the valid snippets of this recording, a prefix.

    Returns:
      Features as from `interpolate`.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    features = _check.numbers(features, "features", "T D", dtype=None)
    positions = _check.numbers(positions, "positions", "N")
    where = _check.mask(where, "where", "T")
    if not features.shape[0]:
        raise ValueError("features must have at least one snippet, got none")
    first = jnp.asarray(first, jnp.int32)
    last = jnp.maximum(jnp.sum(where, dtype=jnp.int32) - 1, 0)
    positions = jnp.clip(positions, 0.0, last.astype(jnp.float32))
    snippet = jnp.floor(positions)
    index = snippet.astype(jnp.int32)

    wide = _check.wide(features.dtype)

    def rows(index: Int[Array, " N"]) -> Float[Array, "N D"]:
        return jnp.where(where[0], features[first + index].astype(wide), 0.0)

    left, right = rows(index), rows(jnp.minimum(index + 1, last))
    result = left + (positions - snippet)[:, None].astype(wide) * (right - left)
    return result.astype(features.dtype)


@static("num_samples")
def resample(
    features: Real[ArrayLike, "T D"],
    weights: Real[ArrayLike, " T"],
    num_samples: int,
    *,
    count: Int[ArrayLike, ""] | None = None,
    where: Mask[ArrayLike, " T"] | None = None,
    key: PRNGKeyArray | None = None,
) -> Resampled:
    r"""Returns a recording on its new timeline, by inverse-transform sampling of its weights.

    The new timeline has M = `count` cells of equal cumulative weight. With W the cumulative weight
    (`cumulative_weights`, linear inside a snippet), new snippet n is the recording at the time

    $$t_n = W^{-1} \left( \frac{n + \frac{1}{2}}{M} \, W(T) \right)$$

    Weights of 1 and as many samples as snippets give the features back unchanged.

    >>> resampled = resample(jnp.array([[0.0], [1.0]]), jnp.array([1.0, 4.0]), 5)
    >>> resampled.positions + 0.5
    Array([0.5  , 1.125, 1.375, 1.625, 1.875], dtype=float32)
    >>> resampled.features[:, 0]
    Array([0.   , 0.625, 0.875, 1.   , 1.   ], dtype=float32)

    Args:
      features: of snippets.
      weights: of snippets, at least 0, as from `compensation_weights`.
      num_samples: the number of new snippets N (static).
      count: how many of them are real; at most `num_samples`, which is the default. May be traced.
        The rounded sum of the weights keeps an unweighted snippet one sample wide.
      where: True on the valid snippets, a prefix; default all.
      key: a random key moves each sample to a uniformly random time inside its cell; without one
        samples are at the centres.

    Returns:
      The new snippets as `Resampled`, features in the floating type of `features` (float32 for
      integers). If no valid snippet has any weight, none is real.

    Raises:
      ValueError: if shapes or types do not fit, or `num_samples` or a `count` that is not traced is
        out of range.

    Source: inverse-transform sampling with cell centres, so that nothing moves by half a snippet.
    """
    sizes: dict[str, int] = {}
    features = _check.numbers(features, "features", "T D", sizes, dtype=None)
    weights = _check.numbers(weights, "weights", "T", sizes)
    where = _check.mask(where, "where", "T", sizes)
    timeline = sample_times(weights, num_samples, count=count, where=where, key=key)
    sampled = interpolate(features, timeline.positions, where=where)
    sampled = jnp.where(timeline.where[:, None], sampled, jnp.zeros_like(sampled))
    return dataclasses.replace(timeline, features=sampled)


@static("num_samples")
def sample_times(
    weights: Real[ArrayLike, " T"],
    num_samples: int,
    *,
    count: Int[ArrayLike, ""] | None = None,
    where: Mask[ArrayLike, " T"] | None = None,
    key: PRNGKeyArray | None = None,
    first: Int[ArrayLike, ""] | None = None,
) -> Resampled:
    """Returns the new timeline of `resample` without features, for those stored elsewhere.

    >>> sample_times(jnp.array([1.0, 4.0]), 5).positions + 0.5
    Array([0.5  , 1.125, 1.375, 1.625, 1.875], dtype=float32)

    With `first` only a window of the new timeline is sampled: the timeline has `count` snippets,
    the window `num_samples` of them from `first` on.

    >>> sample_times(jnp.array([1.0, 4.0]), 2, count=5, first=jnp.int32(1)).positions + 0.5
    Array([1.125, 1.375], dtype=float32)

    Args:
      weights: see `resample`, as for the other arguments.
      num_samples: the number of new snippets N (static).
      count: number of real samples; needed with `first`, where it may exceed `num_samples`.
      where: a prefix.
      key: a random key.
      first: the first new snippet of the window; None for the whole timeline.

    Returns:
      `Resampled` without features; `interpolate` gives those at its positions.

    Raises:
      ValueError: as `resample`.
    """
    num_samples = _check.static_size(num_samples, "num_samples", least=1)
    cumulative = cumulative_weights(weights, where=where)
    if first is not None and count is None:
        raise ValueError("a window needs the count of the whole timeline's snippets")
    if first is None and count is not None and not isinstance(count, jax.Array):
        if not 0 <= int(np.asarray(count)) <= num_samples:
            raise ValueError(f"count must be between 0 and {num_samples = }, got {count}")
    end = jnp.asarray(num_samples if count is None else count, jnp.int32)
    begin = jnp.asarray(0 if first is None else first, jnp.int32)
    if first is None:
        end = jnp.clip(end, 0, num_samples)
    samples = begin + jnp.arange(num_samples, dtype=jnp.int32)
    real = (samples < end) & (cumulative[-1] > 0)

    offset = 0.5 if key is None else jax.random.uniform(key, (num_samples,), jnp.float32)
    cells = samples.astype(jnp.float32) + offset
    times = unwarp(cells * _cell_weight(cumulative, end), cumulative)
    return Resampled(
        features=None,
        positions=jnp.where(real, times - 0.5, 0.0),
        cumulative=cumulative,
        where=real,
        first=None if first is None else begin,
        count=None if first is None else end,
    )


def new_times(times: Real[ArrayLike, "*shape"], resampled: Resampled) -> Float[Array, "*shape"]:
    """Returns old times on the new timeline, as float32 times in new snippets.

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


def old_times(times: Real[ArrayLike, "*shape"], resampled: Resampled) -> Float[Array, "*shape"]:
    """Returns new times on the old timeline, as float32 times in old snippets.

    The inverse of `new_times`.

    >>> resampled = resample(jnp.zeros((2, 1)), jnp.array([1.0, 3.0]), 8)
    >>> old_times(jnp.array([1.0, 2.0, 8.0]), resampled)
    Array([0.5, 1. , 2. ], dtype=float32)

    Args:
      times: new times in snippets, of any shape; clamped to the recording.
      resampled: the new timeline, from `resample`.
    """
    times = _check.numbers(times, "times", "...")
    if resampled.first is not None:
        times = times + resampled.first.astype(jnp.float32)
    return unwarp(times * _cell_weight_of(resampled), resampled.cumulative)


def resample_points(
    times: Real[ArrayLike, " P"],
    resampled: Resampled,
    *,
    where: Mask[ArrayLike, " P"] | None = None,
) -> Bool[Array, "N P"]:
    """Returns which new snippets are positive for which point labels.

    A new snippet is positive for a point inside it, and for a point in whose *old* snippet it was
    sampled: a point inside a lengthened action becomes several positives.

    >>> resampled = resample(jnp.zeros((3, 1)), jnp.array([1.0, 2.0, 1.0]), 4)
    >>> resample_points(jnp.array([1.2, 3.0]), resampled)
    Array([[False, False],
           [ True, False],
           [ True, False],
           [False,  True]], dtype=bool)

    Args:
      times: old times in snippets. A point at or beyond the end of the recording belongs to the
        last snippet.
      resampled: the new timeline, from `resample`.
      where: any mask over points.

    Returns:
      True for positives; False wherever the new snippet or the point is masked.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    sizes: dict[str, int] = {}
    times = _check.numbers(times, "times", "P", sizes)
    where = _check.mask(where, "where", "P", sizes)
    cumulative, real = resampled.cumulative, resampled.where

    new = jnp.floor(new_times(times, resampled)).astype(jnp.int32)
    last_new = _count_of(resampled) - 1
    new = jnp.minimum(new, last_new if resampled.first is None else last_new - resampled.first)
    contains = new[None, :] == jnp.arange(real.shape[0], dtype=jnp.int32)[:, None]

    last = jnp.sum(cumulative < cumulative[-1], dtype=jnp.int32) - 1

    def old_snippet(times: Float[Array, " M"]) -> Int[Array, " M"]:
        return jnp.clip(jnp.floor(times).astype(jnp.int32), 0, last)

    same_old = old_snippet(times)[None, :] == old_snippet(resampled.positions + 0.5)[:, None]
    return (contains | same_old) & real[:, None] & where[None, :]


def _max_over_ranges(
    values: Int[Array, " N"], start: Int[Array, " N"], end: Int[Array, " N"], length: int
) -> Int[Array, " {length}"]:
    """Returns the largest of the values whose range [start, end) covers each element, or 0.

    A range is the union of two overlapping ranges whose length is a power of two. Row p of the
    table holds the ranges of length 2**p by their start; from the top down each splits into its two
    halves.
    """
    num_rows = max(length.bit_length(), 1)
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


def _cell_weight(cumulative: Float[Array, " edges"], count: Int[Array, ""]) -> Float[Array, ""]:
    """Returns the cumulative weight of one new snippet; exactly 1 if all weights were 1."""
    total, count = cumulative[-1], jnp.maximum(count, 1).astype(jnp.float32)
    weight = total / count
    # Division is not exactly rounded on every backend, and n / n must be 1 for the identity.
    error = jnp.where(total == count, 1.0 - weight, 0.0)
    return weight + jax.lax.stop_gradient(error)


def _count_of(resampled: Resampled) -> Int[Array, ""]:
    """The number of new snippets of the whole timeline."""
    if resampled.count is None:
        return jnp.sum(resampled.where, dtype=jnp.int32)
    return resampled.count


def _cell_weight_of(resampled: Resampled) -> Float[Array, ""]:
    return _cell_weight(resampled.cumulative, _count_of(resampled))


def _checked_cumulative(cumulative: Real[ArrayLike, " edges"]) -> Float[Array, " edges"]:
    cumulative = _check.numbers(cumulative, "cumulative", "T+1")
    if cumulative.shape[0] < 2:
        raise ValueError(f"cumulative must have at least two entries, got {cumulative.shape[0]}")
    return cumulative
