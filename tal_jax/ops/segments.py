"""Overlap of segments, and the removal of duplicate detections.

A segment is a row `[start, end)`, in any unit of time. A segment of length zero, or whose end lies
before its start, overlaps nothing.
"""

import jax
import jax.numpy as jnp

from tal_jax.ops import _cumsum


def segment_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the intersection over union of every segment of one set with every one of another.

    >>> segment_iou(jnp.array([[0.0, 2.0], [5.0, 5.0]]), jnp.array([[1.0, 2.0], [5.0, 5.0]]))
    Array([[0.5, 0. ],
           [0. , 0. ]], dtype=float32)

    Args:
      a: `[N, 2]` starts and ends.
      b: `[M, 2]` starts and ends.

    Returns:
      `[N, M]` float32 in [0, 1].

    Raises:
      ValueError: if the shapes do not fit.
    """
    a, b = _checked_segments(a, "a"), _checked_segments(b, "b")
    return jax.vmap(_iou, in_axes=(0, None))(a, b)


def nms(
    segments: jax.Array,
    scores: jax.Array,
    *,
    iou_threshold: jax.typing.ArrayLike,
    where: jax.Array | None = None,
) -> jax.Array:
    """Returns which segments greedy non-maximum suppression keeps.

    The best segment left is kept and those that overlap it by the threshold or more are removed,
    until none is left. Of equal scores the earlier comes first. Takes as many steps as segments are
    kept, and memory of O(N).

    >>> segments = jnp.array([[0.0, 4.0], [0.0, 5.0], [4.0, 6.0]])
    >>> nms(segments, jnp.array([0.5, 0.9, 0.3]), iou_threshold=0.7)
    Array([False,  True,  True], dtype=bool)

    Args:
      segments: `[N, 2]` starts and ends, of one class.
      scores: `[N]`.
      iou_threshold: an overlap from which on the worse segment is removed, 0 to 1.
      where: `[N]` bool, any mask; a masked segment is not kept and removes nothing.

    Returns:
      `[N]` bool.

    Raises:
      ValueError: if the shapes do not fit, or a threshold that is not traced is out of range.
    """
    segments, scores, where = _checked(segments, scores, where)
    if isinstance(iou_threshold, int | float) and not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be from 0 to 1, got {iou_threshold}")
    return _keep_greedily(
        segments, scores, where, lambda best, others: _iou(best, others) < iou_threshold
    )


def disjoint_segments(
    segments: jax.Array,
    scores: jax.Array,
    *,
    max_share: jax.typing.ArrayLike = 0.3,
    where: jax.Array | None = None,
) -> jax.Array:
    """Returns which segments to keep so that the best ones have their place to themselves.

    The best segment left is kept and those that share more than `max_share` of the shorter one's
    length with it are removed, until none is left: unlike in `nms`, a short segment inside a long
    one competes with it. Of equal scores the earlier comes first.

    >>> segments = jnp.array([[0.0, 9.0], [2.0, 3.0], [8.0, 12.0]])
    >>> disjoint_segments(segments, jnp.array([0.9, 0.5, 0.3]))
    Array([ True, False,  True], dtype=bool)

    Args:
      segments: `[N, 2]` starts and ends, of any classes.
      scores: `[N]`.
      max_share: how much of the shorter of two segments may lie in the other, 0 to 1.
      where: `[N]` bool, any mask; a masked segment is not kept and removes nothing.

    Returns:
      `[N]` bool.

    Raises:
      ValueError: if the shapes do not fit, or a share that is not traced is out of range.
    """
    segments, scores, where = _checked(segments, scores, where)
    if isinstance(max_share, int | float) and not 0 <= max_share <= 1:
        raise ValueError(f"max_share must be from 0 to 1, got {max_share}")

    def fits(best, others):
        lengths = jnp.maximum(others[:, 1] - others[:, 0], 0.0)
        shorter = jnp.minimum(jnp.maximum(best[1] - best[0], 0.0), lengths)
        return _shared(best, others) <= max_share * shorter

    return _keep_greedily(segments, scores, where, fits)


def _keep_greedily(segments, scores, where, fits):
    """Keeps the best segment left and those that `fits(best, others)` says fit beside it, etc."""
    size = scores.shape[0]
    if size == 0:
        return where
    segments, scores = jax.lax.stop_gradient((segments, scores))
    order = jnp.argsort(scores, descending=True, stable=True)
    # From here on in falling order, so that the best is the first one left: a plain minimum, where
    # an argmax takes many times as long on a CPU.
    segments, left = segments[order], where[order]
    at = jnp.arange(size, dtype=jnp.int32)

    def keep_next(state):
        kept, left = state
        best = jnp.min(jnp.where(left, at, size - 1))
        is_best = at == best
        return kept | is_best, left & fits(segments[best], segments) & ~is_best

    kept, _ = jax.lax.while_loop(
        lambda state: jnp.any(state[1]), keep_next, (jnp.zeros_like(left), left)
    )
    return jnp.zeros_like(where).at[order].set(kept, unique_indices=True)


def soft_nms(
    segments: jax.Array,
    scores: jax.Array,
    *,
    sigma: jax.typing.ArrayLike,
    where: jax.Array | None = None,
) -> jax.Array:
    """Returns scores lowered by the overlap with better segments.

    The best segment left keeps its score, and each other one left is multiplied by `exp(-iou**2 /
    sigma)`, until none is left. Of equal scores the earlier comes first. Takes as many steps as
    segments are valid, and memory of O(N). Gradients reach the scores alone.

    >>> segments = jnp.array([[0.0, 4.0], [0.0, 4.0], [4.0, 6.0]])
    >>> scores = soft_nms(segments, jnp.array([0.5, 0.9, 0.3]), sigma=1 / jnp.log(2.0))
    >>> (100 * scores).round()
    Array([25., 90., 30.], dtype=float32)

    Args:
      segments: `[N, 2]` starts and ends, of one class.
      scores: `[N]` finite numbers. A score below 0 stays: the factor would raise it.
      sigma: how far the overlap may go before a score falls; larger is softer.
      where: `[N]` bool, any mask; a masked segment scores 0 and lowers nothing.

    Returns:
      `[N]` float32 scores, in the order given.

    Raises:
      ValueError: if the shapes do not fit, or a `sigma` that is not traced is not positive.

    Source: the Gaussian form of soft non-maximum suppression.
    """
    segments, scores, where = _checked(segments, scores, where)
    if isinstance(sigma, int | float) and not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    if scores.shape[0] == 0:
        return scores

    # Which segment lowers which is a matter of order: a score's gradient is its factor.
    fixed, bounds = jax.lax.stop_gradient((scores, segments))

    def lower(state):
        factors, left = state
        best = jnp.argmax(jnp.where(left, fixed * factors, -jnp.inf))
        left = left.at[best].set(False)
        factor = jnp.exp(-jnp.square(_iou(bounds[best], bounds)) / sigma)
        return jnp.where(left & (fixed > 0), factors * factor, factors), left

    factors, _ = jax.lax.while_loop(
        lambda state: jnp.any(state[1]), lower, (jnp.ones_like(fixed), where)
    )
    return scores * factors


def _iou(segment: jax.Array, others: jax.Array) -> jax.Array:
    """Returns the intersection over union of one segment `[2]` with others `[N, 2]`."""
    start, end = others[:, 0], others[:, 1]
    shared = _shared(segment, others)
    total = jnp.maximum(segment[1] - segment[0], 0.0) + jnp.maximum(end - start, 0.0) - shared
    return jnp.where(shared > 0, shared / jnp.where(shared > 0, total, 1.0), 0.0)


def _shared(segment: jax.Array, others: jax.Array) -> jax.Array:
    """Returns how long one segment `[2]` and others `[N, 2]` overlap."""
    shared = jnp.minimum(segment[1], others[:, 1]) - jnp.maximum(segment[0], others[:, 0])
    return jnp.maximum(shared, 0.0)


def _checked_segments(segments: jax.Array, name: str) -> jax.Array:
    segments = jnp.asarray(segments, jnp.float32)
    if segments.ndim != 2 or segments.shape[1] != 2:
        raise ValueError(f"{name} must have shape [N, 2], got {segments.shape}")
    return segments


def _checked(segments, scores, where):
    """Returns the arguments as arrays, with masked segments and scores set to 0."""
    segments, scores = _checked_segments(segments, "segments"), jnp.asarray(scores, jnp.float32)
    if scores.shape != segments.shape[:1]:
        raise ValueError(f"scores must have shape {segments.shape[:1]}, got {scores.shape}")
    where = _cumsum.mask_or_all(where, scores.shape[0])
    return jnp.where(where[:, None], segments, 0.0), jnp.where(where, scores, 0.0), where
