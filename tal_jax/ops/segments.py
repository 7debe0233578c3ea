# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Temporal IoU of segments, and non-maximum suppression (NMS) of duplicate detections.

A segment is a row `[start, end)`, in any unit of time. A segment of length zero, or whose end lies
before its start, overlaps nothing. Times are computed in float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real
from tal_jax.ops import _axes, _check
from tal_jax.ops._static import static

_State = tuple[Int[Array, " N"] | Float[Array, " N"], Bool[Array, " N"]]  # of loops


def segment_iou(a: Real[ArrayLike, "N 2"], b: Real[ArrayLike, "M 2"]) -> Float[Array, "N M"]:
    """Returns the temporal intersection over union (tIoU) of all pairs of two sets of segments.

    >>> segment_iou(jnp.array([[0.0, 2.0], [5.0, 5.0]]), jnp.array([[1.0, 2.0], [5.0, 5.0]]))
    Array([[0.5, 0. ],
           [0. , 0. ]], dtype=float32)

    Args:
      a: starts and ends.
      b: starts and ends.

    Returns:
      float32 in [0, 1].

    Raises:
      ValueError: if shapes or types do not fit.
    """
    a, b = _check.numbers(a, "a", "N 2"), _check.numbers(b, "b", "M 2")
    return jax.vmap(_iou, in_axes=(0, None))(a, b)


@static("legacy_plus_one")
def nms(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    *,
    iou_threshold: Real[ArrayLike, ""],
    legacy_plus_one: bool = False,
    where: Mask[ArrayLike, " N"] | None = None,
) -> Bool[Array, " N"]:
    """Returns which segments greedy non-maximum suppression (NMS) keeps.

    The best segment left is kept and those that overlap it by the threshold or more are removed,
    until none is left. Of equal scores the earlier comes first. Takes as many steps as segments are
    kept, and memory of O(N).

    >>> segments = jnp.array([[0.0, 4.0], [0.0, 5.0], [4.0, 6.0]])
    >>> nms(segments, jnp.array([0.5, 0.9, 0.3]), iou_threshold=0.7)
    Array([False,  True,  True], dtype=bool)

    Args:
      segments: starts and ends, of one class.
      scores: larger is better.
      iou_threshold: a tIoU from which on the worse segment is removed, 0 to 1.
      legacy_plus_one: see `soft_nms` (static).
      where: any mask; a masked segment is not kept and removes nothing.

    Returns:
      True for the segments kept.

    Raises:
      ValueError: if shapes or types do not fit, or a threshold that is not traced is out of range.
    """
    segments, scores, where = _checked(segments, scores, where, legacy_plus_one)
    iou_threshold = _check.setting(iou_threshold, "iou_threshold", least=0, most=1)
    clusters = _cluster_greedily(
        segments, scores, where, lambda best, others: _iou(best, others) < iou_threshold
    )
    return where & _is_best(clusters)


def nms_clusters(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    *,
    iou_threshold: Real[ArrayLike, ""],
    where: Mask[ArrayLike, " N"] | None = None,
) -> Int[Array, " N"]:
    """Returns which segment removes each one in greedy non-maximum suppression (NMS).

    >>> segments = jnp.array([[0.0, 4.0], [0.0, 5.0], [4.0, 6.0]])
    >>> nms_clusters(segments, jnp.array([0.5, 0.9, 0.3]), iou_threshold=0.7)
    Array([1, 1, 2], dtype=int32)

    Args:
      segments: starts and ends, of one class.
      scores: larger is better.
      iou_threshold: see `nms`.
      where: any mask; a masked segment removes nothing.

    Returns:
      The index of the best segment of each one's cluster, int32; of segments that are kept or
      masked, their own.

    Raises:
      ValueError: if shapes or types do not fit, or a threshold that is not traced is out of range.
    """
    segments, scores, where = _checked(segments, scores, where)
    iou_threshold = _check.setting(iou_threshold, "iou_threshold", least=0, most=1)
    return _cluster_greedily(
        segments, scores, where, lambda best, others: _iou(best, others) < iou_threshold
    )


def disjoint_segments(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    *,
    max_share: Real[ArrayLike, ""] = 0.3,
    where: Mask[ArrayLike, " N"] | None = None,
) -> Bool[Array, " N"]:
    """Returns which segments non-maximum suppression (NMS) by shared length keeps.

    The best segment left is kept and those that share more than `max_share` of the shorter one's
    length with it are removed, until none is left: unlike in `nms`, a short segment inside a long
    one competes with it. Of equal scores the earlier comes first.

    >>> segments = jnp.array([[0.0, 9.0], [2.0, 3.0], [8.0, 12.0]])
    >>> disjoint_segments(segments, jnp.array([0.9, 0.5, 0.3]))
    Array([ True, False,  True], dtype=bool)

    Args:
      segments: starts and ends, of any classes.
      scores: larger is better.
      max_share: the largest fraction of the shorter of two segments that the other may cover, 0 to
        1.
      where: any mask; a masked segment is not kept and removes nothing.

    Returns:
      True for the segments kept.

    Raises:
      ValueError: if shapes or types do not fit, or a share that is not traced is out of range.
    """
    segments, scores, where = _checked(segments, scores, where)
    max_share = _check.setting(max_share, "max_share", least=0, most=1)

    def fits(best: Float[Array, "2"], others: Float[Array, "N 2"]) -> Bool[Array, " N"]:
        lengths = jnp.maximum(others[:, 1] - others[:, 0], 0.0)
        shorter = jnp.minimum(jnp.maximum(best[1] - best[0], 0.0), lengths)
        return _shared(best, others) <= max_share * shorter

    return where & _is_best(_cluster_greedily(segments, scores, where, fits))


def _is_best(clusters: Int[Array, " N"]) -> Bool[Array, " N"]:
    return clusters == jnp.arange(clusters.shape[0], dtype=jnp.int32)


def _cluster_greedily(
    segments: Float[Array, "N 2"],
    scores: Float[Array, " N"],
    where: Bool[Array, " N"],
    fits: Callable[[Array, Array], Array],
) -> Int[Array, " N"]:
    """Keeps the best segment left, removes those where `fits(best, others)` is False, and so on.

    Returns the index of the segment that each one was removed by; its own if it was kept or masked.
    """
    size = scores.shape[0]
    if size == 0:
        return jnp.zeros(0, jnp.int32)
    segments, scores = jax.lax.stop_gradient((segments, scores))
    where = _axes.vary_like(where, (segments, scores))
    order = jnp.argsort(scores, descending=True, stable=True).astype(jnp.int32)
    # From here on in falling order, so that the best is the first one left: a plain minimum.
    segments, left = segments[order], where[order]
    at = jnp.arange(size, dtype=jnp.int32)

    def keep_next(state: _State) -> _State:
        clusters, left = state
        best = jnp.min(jnp.where(left, at, size - 1))
        removed = left & (~fits(segments[best], segments) | (at == best))
        return jnp.where(removed, best, clusters), left & ~removed

    state = _axes.vary_like(at, left), left
    clusters, _ = jax.lax.while_loop(lambda state: jnp.any(state[1]), keep_next, state)
    return jnp.zeros_like(order).at[order].set(order[clusters], unique_indices=True)


@static("legacy_plus_one")
def soft_nms(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    *,
    sigma: Real[ArrayLike, ""],
    legacy_plus_one: bool = False,
    where: Mask[ArrayLike, " N"] | None = None,
) -> Float[Array, " N"]:
    r"""Returns scores lowered by soft non-maximum suppression (soft-NMS), the Gaussian form.

    The best segment left, b, keeps its score, and that of each other one left is lowered,

    $$s_i \leftarrow s_i \exp \left( -\frac{\mathrm{tIoU}(b, i)^2}{\sigma} \right)$$

    until none is left. Of equal scores the earlier comes first. Takes as many steps as segments are
    valid, and memory of O(N). Gradients reach the scores alone.

    >>> segments = jnp.array([[0.0, 4.0], [0.0, 4.0], [4.0, 6.0]])
    >>> scores = soft_nms(segments, jnp.array([0.5, 0.9, 0.3]), sigma=1 / jnp.log(2.0))
    >>> (100 * scores).round()
    Array([25., 90., 30.], dtype=float32)

    Args:
      segments: starts and ends, of one class.
      scores: finite numbers. A score below 0 stays: the factor would raise it.
      sigma: σ, above 0; larger is softer.
      legacy_plus_one: for parity with public code, which adds 1 to every length, as for pixels. In
        seconds that inflates the tIoU of short segments (static).
      where: any mask; a masked segment scores 0 and lowers nothing.

    Returns:
      float32 scores, in the order given.

    Raises:
      ValueError: if shapes or types do not fit, or a `sigma` that is not traced is not above 0.

    Source: the Gaussian form of soft non-maximum suppression.
    """
    segments, scores, where = _checked(segments, scores, where, legacy_plus_one)
    sigma = _check.setting(sigma, "sigma", above=0)
    if scores.shape[0] == 0:
        return scores

    # Which segment lowers which is a matter of order: a score's gradient is its factor.
    fixed, bounds = jax.lax.stop_gradient((scores, segments))

    def lower(state: _State) -> _State:
        factors, left = state
        best = jnp.argmax(jnp.where(left, fixed * factors, -jnp.inf))
        left = left.at[best].set(False)
        factor = jnp.exp(-jnp.square(_iou(bounds[best], bounds)) / sigma)
        return jnp.where(left & (fixed > 0), factors * factor, factors), left

    state = _axes.vary_like((jnp.ones_like(fixed), where), (fixed, bounds))
    factors, _ = jax.lax.while_loop(lambda state: jnp.any(state[1]), lower, state)
    return scores * factors


def _iou(segment: Float[Array, "2"], others: Float[Array, "N 2"]) -> Float[Array, " N"]:
    """Returns the tIoU of one segment with others."""
    start, end = others[:, 0], others[:, 1]
    shared = _shared(segment, others)
    total = jnp.maximum(segment[1] - segment[0], 0.0) + jnp.maximum(end - start, 0.0) - shared
    return jnp.where(shared > 0, shared / jnp.where(shared > 0, total, 1.0), 0.0)


def _shared(segment: Float[Array, "2"], others: Float[Array, "N 2"]) -> Float[Array, " N"]:
    """Returns the length of the overlap of one segment with others."""
    shared = jnp.minimum(segment[1], others[:, 1]) - jnp.maximum(segment[0], others[:, 0])
    return jnp.maximum(shared, 0.0)


def _checked(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    where: Mask[ArrayLike, " N"] | None,
    legacy_plus_one: bool = False,
) -> tuple[Float[Array, "N 2"], Float[Array, " N"], Bool[Array, " N"]]:
    """Returns the arguments as arrays, with masked segments and scores set to 0."""
    sizes: dict[str, int] = {}
    segments = _check.numbers(segments, "segments", "N 2", sizes)
    scores = _check.numbers(scores, "scores", "N", sizes)
    where = _check.mask(where, "where", "N", sizes)
    if legacy_plus_one:
        segments = segments + jnp.array([[0.0, 1.0]])
    return jnp.where(where[:, None], segments, 0.0), jnp.where(where, scores, 0.0), where
