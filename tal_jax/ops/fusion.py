# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Fusion of segments that several sources found for one action: rounds, or stages.

Segments are rows `[start, end)` of one class of one recording, in any unit of time. Of segments
that overlap enough the mean of the ends is more exact than the ends of the best one.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real
from tal_jax.ops import _check
from tal_jax.ops import segments as segment_ops
from tal_jax.ops._static import static


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fused:
    """Fused segments, in the places of the best segment of each cluster.

    Attributes:
      segments: starts and ends; 0 where there is none.
      scores: larger is better; 0 where there is none.
      where: True for the segments that exist.
      clusters: the place of the fused segment that each given one is part of; of masked ones, their
        own.
    """

    segments: Float[Array, "N 2"]
    scores: Float[Array, " N"]
    where: Bool[Array, " N"]
    clusters: Int[Array, " N"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PointSegments:
    """The pseudo segments of P point labels.

    Attributes:
      segments: starts and ends; 0 where there is none.
      where: True for the points that have one.
    """

    segments: Float[Array, "P 2"]
    where: Bool[Array, " P"]


@static("num_sources")
def fuse_detections(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    sources: Int[ArrayLike, " N"],
    *,
    num_sources: int,
    iou_threshold: Real[ArrayLike, ""],
    trust: Real[ArrayLike, " S"] | None = None,
    where: Mask[ArrayLike, " N"] | None = None,
) -> Fused:
    r"""Fuses the detections of several sources (late fusion, weighted segment fusion).

    Clusters are those of non-maximum suppression (NMS): the best segment left and all that overlap
    it by the threshold, until none is left. A cluster's ends are the means of its segments' ends,
    weighted by their scores times the trust in their sources; its score is the mean over sources of
    the source's best score,

    $$s = \frac{1}{S} \sum_s \max_{i \in \mathrm{cluster}, \mathrm{source}_i = s} s_i$$

    with 0 for a source that has none: what only one source detects ranks below what all do.

    >>> fused = fuse_detections(
    ...     jnp.array([[0.0, 4.0], [0.0, 5.0], [8.0, 9.0]]), jnp.array([0.9, 0.3, 0.4]),
    ...     jnp.array([0, 1, 1]), num_sources=2, iou_threshold=0.6)
    >>> print(fused.segments[0], fused.scores)
    [0.   4.25] [0.6 0.  0.2]

    Args:
      segments: starts and ends, of one class.
      scores: larger is better; those below 0 count as 0.
      sources: the source of each segment, from 0.
      num_sources: S, the number of sources (static).
      iou_threshold: a tIoU from which on a segment belongs to a better one, 0 to 1.
      trust: how exact the ends of each source are, relative to the others; default alike.
      where: any mask; a masked segment belongs to no cluster.

    Returns:
      `Fused`, in float32.

    Raises:
      ValueError: if shapes or types do not fit, or a threshold that is not traced is out of range.

    Source: weighted boxes fusion (Solovyev et al., arXiv 1910.13302), for segments.
    """
    sizes: dict[str, int] = {}
    segments = _check.numbers(segments, "segments", "N 2", sizes)
    scores = _check.numbers(scores, "scores", "N", sizes)
    sources = _check.numbers(sources, "sources", "N", sizes, dtype=jnp.int32)
    where = _check.mask(where, "where", "N", sizes)
    num_sources = _check.static_size(num_sources, "num_sources", least=1)
    trust = _check.numbers(
        jnp.ones(num_sources) if trust is None else trust, "trust", "S", {"S": num_sources}
    )
    segments = jnp.where(where[:, None], segments, 0.0)
    scores = jnp.where(where, jnp.maximum(scores, 0.0), 0.0)
    clusters = segment_ops.nms_clusters(segments, scores, iou_threshold=iou_threshold, where=where)
    kept = where & (clusters == jnp.arange(sizes["N"], dtype=jnp.int32))

    def total(values: Float[Array, "N ..."]) -> Float[Array, "N ..."]:
        return jnp.zeros_like(values).at[clusters].add(values)

    # The means of what the others differ from the best by: exact for late times, too.
    weights = (scores * trust[sources])[:, None]
    moved, sums = total(weights * (segments - segments[clusters])), total(weights)
    fused = segments + moved / jnp.where(sums > 0, sums, 1.0)
    best = _best_of_sources(scores, sources, clusters, num_sources)
    return Fused(
        jnp.where(kept[:, None], fused, 0.0),
        jnp.where(kept, best.mean(axis=0), 0.0),
        kept,
        clusters,
    )


def point_segments(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    candidates: Mask[ArrayLike, "P N"],
    *,
    iou_threshold: Real[ArrayLike, ""] = 0.25,
    temperature: Real[ArrayLike, ""] = 0.1,
) -> PointSegments:
    r"""Fuses the proposals around each point label to its pseudo segment.

    The best candidate of a point and those that overlap it by more than the threshold are averaged,
    with weights $\exp(s_i / \tau)$, $\tau$ being the temperature. A mean of segments that contain a
    time contains it, and a mean of segments that end before another time does so, too: what the
    point label states stays true.

    >>> pseudo = point_segments(
    ...     jnp.array([[0.0, 4.0], [0.0, 5.0], [9.0, 11.0]]), jnp.array([0.5, 0.5, 0.9]),
    ...     jnp.array([[True, True, False], [False, False, False]]))
    >>> print(pseudo.segments[0], pseudo.where)
    [0.  4.5] [ True False]

    Args:
      segments: starts and ends of proposals.
      scores: larger is better.
      candidates: True for the proposals that may be the action of a point.
      iou_threshold: proposals that overlap the best by no more are of another action.
      temperature: above 0; smaller weighs the best more.

    Returns:
      `PointSegments`, in float32.

    Raises:
      ValueError: if shapes or types do not fit, or a setting that is not traced is out of range.
    """
    sizes: dict[str, int] = {}
    segments = _check.numbers(segments, "segments", "N 2", sizes)
    scores = _check.numbers(scores, "scores", "N", sizes)
    candidates = _check.mask(candidates, "candidates", "P N", sizes)
    threshold = _check.setting(iou_threshold, "iou_threshold", least=0, most=1)
    temperature = _check.setting(temperature, "temperature", above=0)
    if sizes["N"] == 0:
        return PointSegments(jnp.zeros((sizes["P"], 2)), jnp.zeros(sizes["P"], bool))
    # What is no candidate of any point counts as masked: it may hold anything.
    some = candidates.any(axis=0)
    segments, scores = jnp.where(some[:, None], segments, 0.0), jnp.where(some, scores, 0.0)

    def one(candidate: Bool[Array, " N"]) -> PointSegments:
        best = jnp.where(candidate, scores, -jnp.inf).argmax()
        near = segment_ops.segment_iou(segments[best][None], segments)[0] > threshold
        near = candidate & near.at[best].set(True)
        weights = jnp.where(
            near, jnp.exp(jnp.where(near, scores - scores[best], 0.0) / temperature), 0.0
        )
        moved = (weights[:, None] * (segments - segments[best][None])).sum(axis=0)
        total = weights.sum()
        found = segments[best] + moved / jnp.where(total > 0, total, 1.0)
        return PointSegments(jnp.where(candidate.any(), found, 0.0), candidate.any())

    return jax.vmap(one)(candidates)


def _best_of_sources(
    scores: Float[Array, " N"],
    sources: Int[Array, " N"],
    clusters: Int[Array, " N"],
    num_sources: int,
) -> Float[Array, "S N"]:
    """The best score of each source in each cluster, 0 where it has none."""
    size = scores.shape[0]
    order = jnp.argsort(jax.lax.stop_gradient(scores), descending=True, stable=True)
    order = order.astype(jnp.int32)
    rank = (
        jnp.zeros_like(order).at[order].set(jnp.arange(size, dtype=jnp.int32), unique_indices=True)
    )
    none = jnp.broadcast_to(jnp.full_like(rank, size), (num_sources, size))
    first = none.at[sources, clusters].min(rank)
    return scores[order].at[first].get(mode="fill", fill_value=0.0)
