"""Inner-outer contrast: how much higher a curve is inside a segment than just outside it."""

import jax
import jax.numpy as jnp

from tal_jax.ops import _cumsum


def outer_width(length: jax.Array, delta: jax.typing.ArrayLike) -> jax.Array:
    """Snippets of the outer region on each side of segments of `length` snippets (int32).

    The small margin, never less than what float32 rounds off, keeps products `δ · length` that are
    whole numbers from being rounded up.
    """
    product = jnp.asarray(delta, jnp.float32) * length.astype(jnp.float32)
    return jnp.ceil(product - jnp.maximum(1e-4, 2e-7 * product)).astype(jnp.int32)


def contrast_between(
    prefix: _cumsum.Prefix,
    start: jax.Array,
    end: jax.Array,
    *,
    delta: jax.typing.ArrayLike,
    length: jax.Array,
    inverted: jax.typing.ArrayLike = False,
) -> jax.Array:
    """Contrast of segments `[start, end)` from the prefix sums of a curve.

    The constant-time core of everything in this module; `inner_outer_contrast` is its plain form.

    Args:
      prefix: prefix sums of the scores, zeros from `length` on.
      start: first snippets, any shape.
      end: one past the last snippets, same shape.
      delta: width of the outer region on each side as a fraction of the segment.
      length: number of valid snippets `[]`.
      inverted: where True, the contrast of `1 − scores` instead; broadcasts against `start`.

    Returns:
      Contrasts in [−1, 1] for scores in [0, 1], shaped like `start`.
    """
    inside = jnp.maximum(end - start, 0)
    width = outer_width(inside, delta)
    left = jnp.maximum(start - width, 0)
    right = jnp.minimum(end + width, length)
    outside = (start - left) + (right - end)
    outer_sum = _cumsum.range_sum(prefix, left, start) + _cumsum.range_sum(prefix, end, right)
    inner = _mean(_cumsum.range_sum(prefix, start, end), inside)
    outer = _mean(outer_sum, outside)
    # An empty region counts 0 in either orientation, hence not simply the negated contrast.
    one_minus_inner = jnp.where(inside > 0, 1 - inner, 0)
    one_minus_outer = jnp.where(outside > 0, 1 - outer, 0)
    return jnp.where(inverted, one_minus_inner - one_minus_outer, inner - outer)


def inner_outer_contrast(
    scores: jax.Array,
    segments: jax.Array,
    *,
    delta: jax.typing.ArrayLike = 0.25,
    where: jax.Array | None = None,
) -> jax.Array:
    """Mean score inside each segment minus the mean score of its surroundings.

    The surroundings are the `ceil(δ · length − 1e-4)` snippets on each side, taken together as one
    region and clipped to the recording; an empty region counts 0. Differentiable in the scores.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.0, 0.2, 1.0, 1.0, 0.6, 0.0])
    >>> print(inner_outer_contrast(scores, jnp.array([[2, 4], [2, 2]])))
    [0.6 0. ]

    Args:
      scores: `[T]` one class's confidences.
      segments: `[N, 2]` half-open snippet indices; clipped to the recording.
      delta: width of the outer region on each side as a fraction of the segment's length.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `[N]` contrasts, within [−1, 1] for scores in [0, 1]; 0 for an empty segment.

    Raises:
      ValueError: if the shapes do not fit.

    Source: outer-inner contrast (AutoLoc, Shou et al. 2018), here with both sides as one mean.
    """
    _check_scores(scores, where)
    if segments.ndim != 2 or segments.shape[1] != 2:
        raise ValueError(f"segments have shape {segments.shape}; expected [N, 2]")
    length = _valid_length(scores, where)
    segments = jnp.clip(segments.astype(jnp.int32), 0, length)
    start, end = segments[:, 0], jnp.maximum(segments[:, 0], segments[:, 1])
    contrast = contrast_between(
        _cumsum.prefix_sum(scores, where=where), start, end, delta=delta, length=length
    )
    return jnp.where(end > start, contrast, 0)


def contrast_map(
    scores: jax.Array,
    max_length: int,
    *,
    delta: jax.typing.ArrayLike = 0.25,
    where: jax.Array | None = None,
) -> jax.Array:
    """Contrast of every segment of up to `max_length` snippets.

    >>> import jax.numpy as jnp
    >>> print(contrast_map(jnp.array([0.0, 1.0, 0.0]), 2, delta=0.5))
    [[-1.   0.5]
     [ 1.   0.5]
     [-1.  -inf]]

    Args:
      scores: `[T]` one class's confidences.
      max_length: longest segment, in snippets (static); memory grows as `T · max_length`.
      delta: as in `inner_outer_contrast`.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `[T, max_length]`: entry `[s, l − 1]` is segment `[s, s + l)`; −inf where it leaves the
      recording.

    Raises:
      ValueError: if the shapes do not fit or `max_length < 1`.
    """
    _check_scores(scores, where)
    if max_length < 1:
        raise ValueError(f"max_length={max_length}; expected at least 1")
    length = _valid_length(scores, where)
    start = jnp.arange(scores.shape[0], dtype=jnp.int32)[:, None]
    end = start + jnp.arange(1, max_length + 1, dtype=jnp.int32)[None, :]
    inside = end <= length
    contrast = contrast_between(
        _cumsum.prefix_sum(scores, where=where),
        jnp.where(inside, start, 0),
        jnp.where(inside, end, 0),
        delta=delta,
        length=length,
    )
    return jnp.where(inside, contrast, -jnp.inf)


def curve_contrast(
    scores: jax.Array,
    segments: jax.Array,
    *,
    delta: jax.typing.ArrayLike = 0.25,
    min_outer: jax.typing.ArrayLike = 0.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Contrast of segments with real-valued ends, by exact integrals.

    The scores are read as a curve: snippet `i`'s score stands at time `i + ½`, straight lines in
    between, constant before the first and after the last centre. Each side of the outer region is
    `max(δ · length, min_outer)` long, clipped to the recording.

    >>> import jax.numpy as jnp
    >>> print(curve_contrast(jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array([[1.0, 3.0]])))
    [0.625]

    Args:
      scores: `[T]` one class's confidences.
      segments: `[N, 2]` start and end times in snippets.
      delta: width of the outer region on each side as a fraction of the segment's length.
      min_outer: least width of each side in snippets. Features that see a window longer than their
        snippet smear a short action over its neighbours; only beyond that can the outer region see
        what lies outside.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `[N]` contrasts; 0 for an empty segment.

    Raises:
      ValueError: if the shapes do not fit.
    """
    _check_scores(scores, where)
    if segments.ndim != 2 or segments.shape[1] != 2:
        raise ValueError(f"segments have shape {segments.shape}; expected [N, 2]")
    length = _valid_length(scores, where)
    extent = length.astype(scores.dtype)
    segments = jnp.clip(segments.astype(scores.dtype), 0, extent)
    start, end = segments[:, 0], jnp.maximum(segments[:, 0], segments[:, 1])
    width = jnp.maximum(jnp.asarray(delta, scores.dtype) * (end - start), min_outer)
    left, right = jnp.maximum(start - width, 0), jnp.minimum(end + width, extent)
    integrate = _curve_integral(scores, length, where)
    inner = _mean(integrate(start, end), end - start)
    outer = _mean(integrate(left, start) + integrate(end, right), (start - left) + (right - end))
    return jnp.where(end > start, inner - outer, 0)


def _curve_integral(scores: jax.Array, length: jax.Array, where: jax.Array | None):
    """Returns `integrate(a, b)` for times `a ≤ b` in `[0, length]` of the interpolated curve."""
    size = scores.shape[0]
    last = jnp.maximum(length - 1, 0)
    if where is not None:
        scores = jnp.where(where, scores, 0)
    # Piece k runs from centre k−1 to centre k, i.e. times [k − ½, k + ½); pieces 0 and `length` are
    # the constant ends, half a snippet of which lies inside the recording.
    heights = jnp.concatenate([scores[:1], scores, scores[-1:]])
    heights = jnp.where(jnp.arange(size + 2) <= length, heights, scores[last])
    areas = (heights[:-1] + heights[1:]) / 2
    areas = jnp.where(jnp.arange(size + 1) <= length, areas, 0)
    prefix = _cumsum.prefix_sum(areas)

    def locate(time):
        piece = jnp.clip(jnp.floor(time + 0.5).astype(jnp.int32), 0, length)
        offset = time + 0.5 - piece.astype(time.dtype)
        low, high = heights[piece], heights[piece + 1]
        return piece, offset * (low + offset * (high - low) / 2)

    def integrate(a, b):
        piece_a, part_a = locate(a)
        piece_b, part_b = locate(b)
        return _cumsum.range_sum(prefix, piece_a, piece_b) + part_b - part_a

    return integrate


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """`total / count`, and 0 where the count is 0."""
    count = count.astype(total.dtype)
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)


def _valid_length(scores: jax.Array, where: jax.Array | None) -> jax.Array:
    if where is None:
        return jnp.asarray(scores.shape[0], jnp.int32)
    return where.sum(dtype=jnp.int32)


def _check_scores(scores: jax.Array, where: jax.Array | None) -> None:
    if scores.ndim != 1 or scores.shape[0] == 0:
        raise ValueError(f"scores have shape {scores.shape}; expected [T] with T ≥ 1")
    if where is not None and where.shape != scores.shape:
        raise ValueError(f"where has shape {where.shape}; expected {scores.shape}, like scores")
