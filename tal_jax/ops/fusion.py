# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Fusion of segments that several sources found for one action: rounds, or stages.

Segments are rows `[start, end)` of one class of one recording, in any unit of time. Of segments
that overlap enough the mean of the ends is more exact than the ends of the best one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real
from tal_jax.ops import _check
from tal_jax.ops import segments as segment_ops
from tal_jax.ops._static import static


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fused:
    """Fused segments, in the places of the best segment of each cluster.

    Attributes:
      segments: starts and ends.
      scores: larger is better; 0 where there is none.
      where: True for the segments that exist.
    """

    segments: Float[Array, "N 2"]
    scores: Float[Array, " N"]
    where: Bool[Array, " N"]


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
    scores = jnp.maximum(_check.numbers(scores, "scores", "N", sizes), 0.0)
    sources = jnp.asarray(sources)
    where = _check.mask(where, "where", "N", sizes)
    num_sources = _check.static_size(num_sources, "num_sources", least=1)
    threshold = _check.setting(iou_threshold, "iou_threshold", least=0, most=1)
    trust = _check.numbers(np.ones(num_sources) if trust is None else trust, "trust", "S")
    if trust.shape[0] != num_sources:
        raise ValueError(f"trust must have shape [{num_sources}], got {list(trust.shape)}")
    keep = segment_ops.nms(segments, scores, iou_threshold=threshold, where=where)
    owner = _owners(segments, scores, keep, threshold)
    at = jnp.arange(sizes["N"], dtype=jnp.int32)
    member = (owner[None, :] == at[:, None]) & where[None, :] & keep[:, None]  # [cluster, segment]
    # The lead weighs something even where all scores are 0.
    weights = jnp.where(member, (scores * trust[sources])[None, :], 0.0)
    weights = weights + jnp.where(jnp.diag(keep), 1e-6, 0.0)
    fused = _weighted_mean(weights, segments)
    of_source = sources[None, :] == jnp.arange(num_sources, dtype=sources.dtype)[:, None]
    best = jnp.where(member[None] & of_source[:, None, :], scores, 0.0).max(axis=-1, initial=0.0)
    return Fused(
        jnp.where(keep[:, None], fused, 0.0), jnp.where(keep, best.mean(axis=0), 0.0), keep
    )


def point_segments(
    segments: Real[ArrayLike, "N 2"],
    scores: Real[ArrayLike, " N"],
    candidates: Mask[ArrayLike, "P N"],
    *,
    iou_threshold: Real[ArrayLike, ""] = 0.25,
    temperature: Real[ArrayLike, ""] = 0.1,
) -> tuple[Float[Array, "P 2"], Bool[Array, " P"]]:
    r"""Fuses the proposals around each point label to its pseudo segment.

    The best candidate of a point and those that overlap it by more than the threshold are averaged,
    with weights $\exp(s_i / temperature)$. A mean of segments that contain a time contains it, and
    a mean of segments that end before another time does so, too: what the point label states stays
    true.

    >>> segments, exists = point_segments(
    ...     jnp.array([[0.0, 4.0], [0.0, 5.0], [9.0, 11.0]]), jnp.array([0.5, 0.5, 0.9]),
    ...     jnp.array([[True, True, False], [False, False, False]]))
    >>> print(segments[0], exists)
    [0.  4.5] [ True False]

    Args:
      segments: starts and ends of proposals.
      scores: larger is better.
      candidates: True for the proposals that may be the action of a point.
      iou_threshold: proposals that overlap the best by no more are of another action.
      temperature: above 0; smaller weighs the best more.

    Returns:
      The pseudo segment of each point, float32, and True for the points that have one.

    Raises:
      ValueError: if shapes or types do not fit, or a setting that is not traced is out of range.
    """
    sizes: dict[str, int] = {}
    segments = _check.numbers(segments, "segments", "N 2", sizes)
    scores = _check.numbers(scores, "scores", "N", sizes)
    candidates = _check.mask(candidates, "candidates", "P N", sizes)
    threshold = _check.setting(iou_threshold, "iou_threshold", least=0, most=1)
    temperature = _check.setting(temperature, "temperature", above=0)

    def one(candidate: Bool[Array, " N"]) -> tuple[Array, Array]:
        masked = jnp.where(candidate, scores, -jnp.inf)
        best = masked.argmax()
        overlaps = segment_ops.segment_iou(segments[best][None], segments)[0] > threshold
        chosen = candidate & (overlaps | (jnp.arange(len(scores)) == best))
        weights = jnp.where(chosen, jnp.exp((scores - scores[best]) / temperature), 0.0)
        return _weighted_mean(weights[None], segments)[0], candidate.any()

    found, where = jax.vmap(one)(candidates)
    return jnp.where(where[:, None], found, 0.0), where


def _owners(
    segments: Float[Array, "N 2"],
    scores: Float[Array, " N"],
    keep: Bool[Array, " N"],
    threshold: Float[Array, ""],
) -> Int[Array, " N"]:
    """The best kept segment that each one overlaps by the threshold; itself if it is kept."""
    size = scores.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    order = jnp.argsort(scores, descending=True, stable=True)
    rank = jnp.zeros(size, jnp.int32).at[order].set(at, unique_indices=True)
    near = keep[:, None] & (segment_ops.segment_iou(segments, segments) >= threshold)
    near = near | (jnp.diag(keep))
    return jnp.where(near, rank[:, None], size).argmin(axis=0).astype(jnp.int32)


def _weighted_mean(
    weights: Float[Array, "M N"], segments: Float[Array, "N 2"]
) -> Float[Array, "M 2"]:
    """Means of segments, computed from their distances to the mean of the row's first end."""
    total = weights.sum(axis=1, keepdims=True)
    shares = weights / jnp.where(total > 0, total, 1.0)
    return shares @ segments
