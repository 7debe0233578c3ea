"""From score sequences to detections: runs above thresholds, scored by contrast, without doubles."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax.data import batches
from tal_jax.data.recordings import Recording
from tal_jax.losses import topk_count
from tal_jax.models import rsmp
from tal_jax.ops import contrast, pooling, resampling
from tal_jax.ops import segments as segment_ops
from tal_jax.training import steps
from tal_jax.training import timeline as timelines


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """Scored segments of one recording, class by class."""

    segments: jax.Array  # [C, N, 2] times in snippets
    scores: jax.Array  # [C, N]
    where: jax.Array  # [C, N] bool
    overflow: jax.Array  # [] int32: runs that did not fit; give a larger `max_runs` then


def threshold_runs(
    curve: jax.Array,
    thresholds: jax.Array,
    *,
    max_runs: int,
    where: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Stretches of time on which a curve lies above each of several thresholds, exactly.

    The curve is read as in `ops.curve_contrast`: straight between snippet centres, constant beyond
    the outermost ones. A stretch ends where the straight line crosses the threshold.

    >>> import jax.numpy as jnp
    >>> runs, exists, _ = threshold_runs(
    ...     jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array([0.5, 2.0]), max_runs=2)
    >>> print(runs[0], exists)
    [1. 3.] [ True False]

    Args:
      curve: `[T]`.
      thresholds: `[H]`.
      max_runs: N, how many runs the result holds (static).
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      Runs `[N, 2]` in snippets (threshold by threshold, then by time), `[N]` True for those that
      exist, and `[]` how many did not fit.
    """
    size = curve.shape[0]
    where = jnp.ones(size, bool) if where is None else where
    curve = jnp.where(where, curve, -jnp.inf)
    length = where.sum(dtype=curve.dtype)
    level = thresholds[:, None]
    above = curve[None, :] > level
    outside = jnp.full(1, -jnp.inf, curve.dtype)
    before = jnp.concatenate([outside, curve[:-1]])
    after = jnp.concatenate([curve[1:], outside])
    centre = jnp.arange(size, dtype=curve.dtype) + 0.5

    def crossing(neighbour):
        """How far from each centre towards its neighbour the curve meets the threshold."""
        inside = jnp.isfinite(neighbour)[None, :] & above
        rise = jnp.where(inside, curve[None, :] - neighbour[None, :], 1)
        return jnp.where(inside, (curve[None, :] - level) / jnp.where(rise > 0, rise, 1), 0.5)

    begins = above & ~(before[None, :] > level)
    ends = above & ~(after[None, :] > level)
    start_times = centre - crossing(before)
    end_times = jnp.minimum(centre + crossing(after), length)
    total = begins.sum(dtype=jnp.int32)

    def compact(flags, times):
        return times.ravel()[jnp.nonzero(flags.ravel(), size=max_runs, fill_value=0)[0]]

    exists = jnp.arange(max_runs, dtype=jnp.int32) < total
    runs = jnp.stack([compact(begins, start_times), compact(ends, end_times)], axis=-1)
    return jnp.where(exists[:, None], runs, 0), exists, jnp.maximum(total - max_runs, 0)


def localize(
    scores: jax.Array,
    background: jax.Array,
    *,
    thresholds: jax.Array,
    background_thresholds: jax.Array,
    max_runs: int,
    topk_ratio: jax.typing.ArrayLike = 8,
    class_threshold: jax.typing.ArrayLike = 0.5,
    video_weight: jax.typing.ArrayLike = 0.2,
    delta: jax.typing.ArrayLike = 0.25,
    iou_threshold: jax.typing.ArrayLike = 0.7,
    classes: jax.Array | None = None,
    where: jax.Array | None = None,
) -> Detections:
    """Detects the actions of one recording.

    A class is present if its video score (mean of the top `T_valid / topk_ratio` confidences)
    reaches `class_threshold`; the best class always is. Its candidates are the runs of its
    confidence above each of `thresholds` and the runs of `1 − p_bg` above each of
    `background_thresholds`; a candidate's score is its contrast plus `video_weight` times the video
    score, and of overlapping ones the best is kept.

    Args:
      scores: `[T, C]` confidences `P_c = p_c (1 − p_bg)`.
      background: `[T]` background probabilities `p_bg`.
      thresholds: `[H]` for the confidences.
      background_thresholds: `[G]` for `1 − p_bg`.
      max_runs: most runs of a class, and of the background (static).
      topk_ratio: see `losses.video_loss`.
      class_threshold: least video score of a class that is present.
      video_weight: share of the video score in the detections' scores.
      delta: see `ops.curve_contrast`.
      iou_threshold: a candidate that overlaps a better one this much is dropped.
      classes: `[C]` bool: exactly these classes are present; default as described.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `Detections` with `N = 2 · max_runs`.
    """
    size, num_classes = scores.shape
    where = jnp.ones(size, bool) if where is None else where
    count = topk_count(where.sum(dtype=jnp.int32), topk_ratio)
    video = pooling.topk_mean(scores, count, where=where)
    if classes is None:
        best = jnp.arange(num_classes, dtype=jnp.int32) == video.argmax()
        classes = ((video >= class_threshold) | best) & where.any()
    foreground, foreground_exists, foreground_overflow = threshold_runs(
        1 - background, background_thresholds, max_runs=max_runs, where=where
    )

    def one_class(curve, video_score, present):
        runs, exists, overflow = threshold_runs(curve, thresholds, max_runs=max_runs, where=where)
        candidates = jnp.concatenate([runs, foreground])
        exists = jnp.concatenate([exists, foreground_exists]) & present
        values = contrast.curve_contrast(curve, candidates, delta=delta, where=where)
        values = values + video_weight * video_score
        keep = segment_ops.nms(candidates, values, iou_threshold=iou_threshold, where=exists)
        return candidates, values, keep, jnp.where(present, overflow, 0)

    found, values, keep, overflow = jax.vmap(one_class, in_axes=(1, 0, 0))(scores, video, classes)
    return Detections(found, values, keep, overflow.sum() + foreground_overflow)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Located:
    """What the network finds in B recordings, times in snippets of their original timeline."""

    detections: Detections  # [B, C, …]
    scores: jax.Array  # [B, N, C] on the timeline that the network saw
    background: jax.Array  # [B, N]


@functools.partial(jax.jit, static_argnames=("model", "config", "num_samples", "max_runs", "own"))
def locate(
    params: Any,
    timeline: timelines.Timeline,
    *,
    model: rsmp.RSMP,
    config: ml_collections.FrozenConfigDict,
    num_samples: int,
    max_runs: int,
    own: bool,
) -> Located:
    """Runs network and localization on B recordings.

    Args:
      params: of the network.
      timeline: B recordings.
      model: the network (static).
      config: the run's config (static).
      num_samples: N (static).
      max_runs: see `localize` (static).
      own: only the recordings' labelled classes are present, as for training recordings (static).
    """
    batch = timelines.resample_batch(timeline, num_samples)
    scores, background = steps.score_batch(model, config, params, batch)
    options = config.localization
    classes = jax.nn.one_hot(batch.slot_labels, scores.shape[-1]) * batch.slot_where[..., None]

    def one(scores, background, where, classes, resampled):
        found = localize(
            scores,
            background,
            thresholds=jnp.asarray(options.thresholds, jnp.float32),
            background_thresholds=jnp.asarray(options.background_thresholds, jnp.float32),
            max_runs=max_runs,
            topk_ratio=config.loss.topk_ratio,
            class_threshold=options.class_threshold,
            video_weight=options.video_weight,
            delta=config.loss.delta,
            iou_threshold=options.iou_threshold,
            classes=classes.any(axis=0) if own else None,
            where=where,
        )
        old = resampling.old_times(found.segments, resampled)
        return dataclasses.replace(found, segments=old)

    found = jax.vmap(one)(scores, background, batch.where, classes, batch.resampled)
    return Located(found, scores, background)
