"""Temporal action localization: score sequences to detections.

Threshold runs of class scores and of actionness are candidates; each is scored by outer-inner
contrast, and non-maximum suppression of a class's candidates leaves its detections.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from tal_jax.ops import _bits, contrast, resampling
from tal_jax.ops import segments as segment_ops


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """Scored segments of one recording, class by class."""

    segments: jax.Array  # [C, N, 2] times in snippets
    scores: jax.Array  # [C, N]
    where: jax.Array  # [C, N] bool
    overflow: jax.Array  # [] int32: by how much a larger `max_runs` is needed for all runs to fit


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
    curve, thresholds = jnp.asarray(curve), jnp.asarray(thresholds)
    size = curve.shape[0]
    if not thresholds.size:
        return jnp.zeros((max_runs, 2), curve.dtype), jnp.zeros(max_runs, bool), jnp.int32(0)
    where = jnp.ones(size, bool) if where is None else where
    curve = jnp.where(where, curve, -jnp.inf)
    length = where.sum(dtype=curve.dtype)
    above = curve[None, :] > thresholds[:, None]
    edge = jnp.zeros((thresholds.shape[0], 1), bool)

    def listed(flags):
        """Threshold and snippet of the flags, one a run, and how many there are."""
        place, count = _bits.first_flags(flags.ravel(), max_runs)
        return *jnp.divmod(jnp.minimum(place, flags.size - 1), size), count

    def crossing(row, snippet, step):
        """How far from each snippet's centre towards its neighbour the curve meets the threshold.

        Where it has no neighbour, half a snippet.
        """
        neighbour = snippet + step
        level, height = thresholds[row], curve[snippet]
        beside = jnp.where(
            (neighbour >= 0) & (neighbour < size), curve.at[neighbour].get(mode="clip"), -jnp.inf
        )
        crosses = (height > beside) & jnp.isfinite(beside)
        rise = jnp.where(crosses, height - beside, 1)
        return jnp.where(crosses, (height - level) / rise, 0.5)

    row, first, total = listed(above & ~jnp.concatenate([edge, above[:, :-1]], axis=1))
    start = first.astype(curve.dtype) + 0.5 - crossing(row, first, -1)
    row, last, _ = listed(above & ~jnp.concatenate([above[:, 1:], edge], axis=1))
    end = jnp.minimum(last.astype(curve.dtype) + 0.5 + crossing(row, last, 1), length)
    exists = jnp.arange(max_runs, dtype=jnp.int32) < total
    runs = jnp.where(exists[:, None], jnp.stack([start, end], axis=-1), 0)
    return runs, exists, jnp.maximum(total - max_runs, 0)


def localize(
    scores: jax.Array,
    foreground: jax.Array,
    video: jax.Array,
    *,
    thresholds: jax.Array,
    foreground_thresholds: jax.Array,
    max_runs: int,
    classes: jax.Array,
    video_weight: jax.typing.ArrayLike = 0.2,
    delta: jax.typing.ArrayLike = 0.25,
    min_outer: jax.typing.ArrayLike = 0.0,
    iou_threshold: jax.typing.ArrayLike = 0.7,
    soft_sigma: jax.typing.ArrayLike = 0.0,
    where: jax.Array | None = None,
) -> Detections:
    """Detects the actions of one recording.

    A class's candidates are the runs of its confidence above each of `thresholds` and the runs of
    the foreground above each of `foreground_thresholds`; a candidate's score is its contrast plus
    `video_weight` times the class's video score. Of overlapping ones the best is kept, or with
    `soft_sigma` all are, the others with lower scores, but for those that this lowers to less than
    a hundredth of the class's best score: duplicates, which cost room and rank below all else.

    Args:
      scores: `[T, C]` confidences of the classes.
      foreground: `[T]` how surely there is any action.
      video: `[C]` how surely the recording holds each class.
      thresholds: `[H]` for the confidences; may be empty.
      foreground_thresholds: `[G]` for the foreground; may be empty.
      max_runs: most runs of a class, and of the foreground (static).
      classes: `[C]` bool, the classes to look for; see `present_classes`.
      video_weight: share of the video score in the detections' scores.
      delta: see `ops.curve_contrast`.
      min_outer: see `ops.curve_contrast`.
      iou_threshold: a candidate that overlaps a better one this much is dropped.
      soft_sigma: more than 0 lowers scores by `ops.soft_nms` instead.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `Detections` with `N = 2 · max_runs`.
    """
    where = jnp.ones(scores.shape[0], bool) if where is None else where
    batch = (scores, foreground, video, classes, where)
    found = localize_batch(
        *(jnp.asarray(array)[None] for array in batch),
        thresholds=thresholds,
        foreground_thresholds=foreground_thresholds,
        max_runs=max_runs,
        video_weight=video_weight,
        delta=delta,
        min_outer=min_outer,
        iou_threshold=iou_threshold,
        soft_sigma=soft_sigma,
    )
    return _row(found, 0)


# Classes, of any recordings, that are localized at once.
_TOGETHER = 32


def localize_batch(
    scores,
    foreground,
    video,
    classes,
    where,
    *,
    thresholds,
    foreground_thresholds,
    max_runs,
    video_weight,
    delta,
    min_outer,
    iou_threshold,
    soft_sigma,
    resampled=None,
) -> Detections:
    """`localize` for B recordings, and back to the old timeline if they are resampled.

    Only the classes to look for cost time or memory, apart from their places in the result: these
    pairs of a recording and a class are taken up some at a time, whichever recordings they are of.
    """
    soft_sigma = jnp.asarray(soft_sigma, jnp.float32)
    num_recordings, num_classes = classes.shape
    num_pairs = num_recordings * num_classes
    # Without thresholds of a kind there is nothing to compute in its half of the result.
    empty = [0 if kind.size else max_runs for kind in (thresholds, foreground_thresholds)]
    runs_of = functools.partial(threshold_runs, max_runs=max_runs)
    shared = jax.vmap(lambda curve, where: runs_of(curve, foreground_thresholds, where=where))(
        foreground, where
    )

    def one_pair(pair):
        exists = pair < num_pairs
        row, column = jnp.divmod(jnp.minimum(pair, num_pairs - 1), num_classes)
        curve, valid = scores[row, :, column], where[row]
        own = runs_of(curve, thresholds, where=valid)
        halves = [
            runs
            for runs, nothing in zip((own, _row(shared, row)), empty, strict=True)
            if not nothing
        ]
        candidates = jnp.concatenate([runs for runs, _, _ in halves])
        exists = exists & jnp.concatenate([exists for _, exists, _ in halves])
        values = contrast.curve_contrast(
            curve, candidates, delta=delta, min_outer=min_outer, where=valid
        )
        values = values + video_weight * video[row, column]
        values, keep = jax.lax.cond(
            soft_sigma > 0,
            functools.partial(_lower, sigma=soft_sigma),
            functools.partial(_drop, iou_threshold=iou_threshold),
            *(candidates, values, exists),
        )
        if resampled is not None:
            candidates = resampling.old_times(candidates, _row(resampled, row))
        return Detections(
            jnp.pad(candidates, (empty, (0, 0))),
            jnp.pad(values, empty),
            jnp.pad(keep, empty),
            own[2],
        )

    together = min(_TOGETHER, num_pairs)
    pairs = jnp.nonzero(classes.ravel(), size=num_pairs + together, fill_value=num_pairs)[0]

    def next_pairs(state):
        done, found = state
        some = jax.lax.dynamic_slice(pairs, (done,), (together,))
        new = jax.vmap(one_pair)(some)
        found = jax.tree.map(lambda old, new: old.at[some].set(new, mode="drop"), found, new)
        return done + together, found

    size = (num_pairs, 2 * max_runs)
    nothing = Detections(
        jnp.zeros((*size, 2), scores.dtype),
        jnp.zeros(size, scores.dtype),
        jnp.zeros(size, bool),
        jnp.zeros(num_pairs, jnp.int32),
    )
    total = classes.sum(dtype=jnp.int32)
    _, found = jax.lax.while_loop(
        lambda state: state[0] < total, next_pairs, (jnp.int32(0), nothing)
    )
    found = jax.tree.map(lambda x: x.reshape(num_recordings, num_classes, *x.shape[1:]), found)
    return dataclasses.replace(found, overflow=jnp.maximum(found.overflow.max(axis=1), shared[2]))


def _drop(segments, scores, exists, *, iou_threshold):
    """Scores, and which candidates of a class stay, by hard NMS."""
    keep = segment_ops.nms(segments, scores, iou_threshold=iou_threshold, where=exists)
    return scores, keep


# The share of the best score below which a candidate that soft-NMS lowered is dropped. On HAPT,
# SHREC'21 and watch the average mAP is the same to 0.01 with 0 and with this, and detections are
# 2.5 times fewer.
_LEAST_SHARE = 0.01


def _lower(segments, scores, exists, *, sigma):
    """Scores, and which candidates of a class stay, by soft-NMS."""
    lowered = segment_ops.soft_nms(segments, scores, sigma=sigma, where=exists)
    best = jnp.where(exists, lowered, -jnp.inf).max(initial=-jnp.inf)
    return lowered, exists & ((lowered >= scores) | (lowered >= _LEAST_SHARE * best))


def present_classes(video: jax.Array, *, threshold: jax.typing.ArrayLike = 0.5) -> jax.Array:
    """`[C]` True for the classes whose video score reaches a threshold, and for the best one.

    >>> import jax.numpy as jnp
    >>> print(present_classes(jnp.array([0.2, 0.4, 0.1]), threshold=0.5))
    [False  True False]
    """
    best = jnp.arange(video.shape[0], dtype=jnp.int32) == video.argmax()
    return (video >= threshold) | best


def _row(values: Any, row: int) -> Any:
    return jax.tree.map(lambda array: array[row], values)
