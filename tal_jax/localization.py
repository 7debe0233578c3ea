"""From score sequences to detections: runs above thresholds, scored by contrast, thinned."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax.data.recordings import Recording
from tal_jax.ops import contrast, resampling
from tal_jax.ops import segments as segment_ops
from tal_jax.training import methods
from tal_jax.training import timeline as timelines
from tal_jax.training.state import Scores


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
    if not thresholds.size:
        return jnp.zeros((max_runs, 2), curve.dtype), jnp.zeros(max_runs, bool), jnp.int32(0)
    where = jnp.ones(size, bool) if where is None else where
    curve = jnp.where(where, curve, -jnp.inf)
    length = where.sum(dtype=curve.dtype)
    level = thresholds[:, None]
    above = curve[None, :] > level
    outside = jnp.full(1, -jnp.inf, curve.dtype)
    before = jnp.concatenate([outside, curve[:-1]])
    after = jnp.concatenate([curve[1:], outside])
    centre = jnp.arange(size, dtype=curve.dtype)[None, :] + 0.5

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
    soft_sigma: float = 0.0,
    where: jax.Array | None = None,
) -> Detections:
    """Detects the actions of one recording.

    A class's candidates are the runs of its confidence above each of `thresholds` and the runs of
    the foreground above each of `foreground_thresholds`; a candidate's score is its contrast plus
    `video_weight` times the class's video score. Of overlapping ones the best is kept, or with
    `soft_sigma` all are, the others with lower scores.

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
      soft_sigma: more than 0 lowers scores by `ops.soft_nms` instead (static).
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `Detections` with `N = 2 · max_runs`.
    """
    where = jnp.ones(scores.shape[0], bool) if where is None else where
    shared, shared_exists, shared_overflow = threshold_runs(
        foreground, foreground_thresholds, max_runs=max_runs, where=where
    )

    def one_class(curve, video_score, present):
        runs, exists, overflow = threshold_runs(curve, thresholds, max_runs=max_runs, where=where)
        candidates = jnp.concatenate([runs, shared])
        exists = jnp.concatenate([exists, shared_exists]) & present
        values = contrast.curve_contrast(
            curve, candidates, delta=delta, min_outer=min_outer, where=where
        )
        values = values + video_weight * video_score
        if soft_sigma:
            values = segment_ops.soft_nms(candidates, values, sigma=soft_sigma, where=exists)
            keep = exists
        else:
            keep = segment_ops.nms(candidates, values, iou_threshold=iou_threshold, where=exists)
        return candidates, values, keep, jnp.where(present, overflow, 0)

    found, values, keep, overflow = jax.vmap(one_class, in_axes=(1, 0, 0))(scores, video, classes)
    return Detections(found, values, keep, overflow.sum() + shared_overflow)


def present_classes(video: jax.Array, *, threshold: jax.typing.ArrayLike = 0.5) -> jax.Array:
    """`[C]` True for the classes whose video score reaches a threshold, and for the best one.

    >>> import jax.numpy as jnp
    >>> print(present_classes(jnp.array([0.2, 0.4, 0.1]), threshold=0.5))
    [False  True False]
    """
    best = jnp.arange(video.shape[0], dtype=jnp.int32) == video.argmax()
    return (video >= threshold) | best


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Located:
    """What the network finds in B recordings, times in snippets of their original timeline."""

    detections: Detections  # [B, C, …]
    scores: Scores  # on the timeline that the network saw


@functools.partial(jax.jit, static_argnames=("model", "config", "num_samples", "max_runs"))
def locate(
    params: Any,
    timeline: timelines.Timeline,
    own: jax.Array,
    *,
    model: Any,
    config: ml_collections.FrozenConfigDict,
    num_samples: int,
    max_runs: int,
) -> Located:
    """Runs network and localization on B recordings.

    Args:
      params: of the network.
      timeline: B recordings.
      own: `[]` bool: exactly the recordings' labelled classes are present, as in training ones.
      model: the network (static).
      config: the run's config (static).
      num_samples: N (static).
      max_runs: see `localize` (static).
    """
    batch = timelines.resample_batch(timeline, num_samples)
    said = methods.method_of(config).read_scores(model, config, params, batch)
    options = config.localization
    classes = jax.nn.one_hot(batch.slot_labels, said.scores.shape[-1]) * batch.slot_where[..., None]

    def one(said, where, classes, resampled):
        present = present_classes(said.video, threshold=options.class_threshold) & where.any()
        found = localize(
            said.scores,
            said.foreground,
            said.video,
            thresholds=jnp.asarray(options.thresholds, jnp.float32),
            foreground_thresholds=jnp.asarray(options.foreground_thresholds, jnp.float32),
            max_runs=max_runs,
            video_weight=options.video_weight,
            delta=options.delta,
            min_outer=options.min_outer,
            iou_threshold=options.iou_threshold,
            soft_sigma=options.soft_sigma,
            classes=jnp.where(own, classes.any(axis=0), present),
            where=where,
        )
        old = resampling.old_times(found.segments, resampled)
        return dataclasses.replace(found, segments=old)

    return Located(jax.vmap(one)(said, batch.where, classes, batch.resampled), said)


# How many runs of a class `locate_recordings` makes room for at first.
_MAX_RUNS = 512
# Recordings of one compiled call.
_CHUNK = 16

Results = dict[str, list[dict[str, Any]]]  # ActivityNet: {recording: [{label, score, segment}]}


def locate_recordings(
    params: Any,
    recordings: Sequence[Recording],
    timeline: timelines.Timeline,
    *,
    model: Any,
    config: ml_collections.FrozenConfigDict,
    classes: Sequence[str],
    num_samples: int,
    own: bool = False,
    scores: dict[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Results:
    """Runs `locate` over any number of recordings.

    Args:
      params: of the network.
      recordings: R recordings.
      timeline: the same R recordings, packed.
      model: the network.
      config: the run's config.
      classes: names of the classes.
      num_samples: padded length of the timeline that the network sees.
      own: look for exactly the recordings' labelled classes.
      scores: filled with each recording's confidences `[N, C]` and foreground `[N]`, if given.

    Returns:
      Each recording's detections, best first, with times in seconds.
    """
    results, max_runs = {}, _MAX_RUNS
    total = len(recordings)
    for first in range(0, total, _CHUNK):
        # The last chunk is filled up with repeats, so that one program serves all.
        rows = np.minimum(np.arange(first, first + min(_CHUNK, total)), total - 1)
        while True:
            found = locate(
                params,
                timelines.take(timeline, rows),
                jnp.asarray(own),
                model=model,
                config=config,
                num_samples=num_samples,
                max_runs=max_runs,
            )
            if not found.detections.overflow.any():
                break
            max_runs *= 2
        found = jax.tree.map(np.asarray, found)
        for row, recording in enumerate(recordings[first : first + _CHUNK]):
            one = jax.tree.map(lambda values, row=row: values[row], found)
            results[recording.name] = _as_results(one.detections, recording, classes)
            if scores is not None:
                size = int(min(timeline.counts[first + row], num_samples))
                said = one.scores
                scores[recording.name] = (said.scores[:size], said.foreground[:size])
    return results


def _as_results(
    found: Detections, recording: Recording, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """ActivityNet entries of one recording's detections, best first."""
    labels, columns = np.nonzero(found.where)
    values = found.scores[labels, columns]
    times_s = recording.grid.to_seconds(found.segments[labels, columns].astype(np.float64))
    times_s = np.clip(times_s, 0, recording.duration_s)
    order = np.argsort(-values, kind="stable")
    return [
        {
            "label": classes[labels[i]],
            "score": float(values[i]),
            "segment": [float(times_s[i, 0]), float(times_s[i, 1])],
        }
        for i in order
        if times_s[i, 1] > times_s[i, 0]
    ]
