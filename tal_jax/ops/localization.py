# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Temporal action localization: class activation sequences to detections.

Runs of the class scores and of the actionness above thresholds are proposals; each has an outer-
inner contrast (OIC) score, and non-maximum suppression (NMS) of a class's proposals leaves its
detections. Times and scores are float32.
"""

import dataclasses
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real
from tal_jax.ops import _axes, _check, _cpu, contrast, resampling
from tal_jax.ops import segments as segment_ops
from tal_jax.ops._static import static


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """Scored segments of one recording, class by class.

    Attributes:
      segments: start and end times in snippets.
      scores: larger is better.
      where: True for the detections that exist.
      overflow: by how much a larger `max_runs` is needed for all runs to fit, int32.
    """

    segments: Float[Array, "*B C N 2"]
    scores: Float[Array, "*B C N"]
    where: Bool[Array, "*B C N"]
    overflow: Int[Array, "*B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Runs:
    """Proposals by thresholds, from `threshold_runs`.

    Unpacking into three is deprecated.

    Attributes:
      segments: start and end times in snippets; threshold by threshold, then by time.
      where: True for the runs that exist.
      overflow: number of runs that did not fit, int32.
    """

    segments: Float[Array, "N 2"]
    where: Bool[Array, " N"]
    overflow: Int[Array, ""]

    def __iter__(self) -> Iterator[Array]:
        message = "threshold_runs returns `Runs`; unpacking it goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return iter((self.segments, self.where, self.overflow))


@static("max_runs")
def threshold_runs(
    curve: Real[ArrayLike, " T"],
    thresholds: Real[ArrayLike, " H"],
    *,
    max_runs: int,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Runs:
    """Returns proposals: the runs of a score sequence above each of several thresholds, exactly.

    The scores are a curve as in `curve_contrast`: straight between snippet centres, constant beyond
    the outermost ones. A run ends where the straight line crosses the threshold.

    >>> import jax.numpy as jnp
    >>> runs = threshold_runs(
    ...     jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array([0.5, 2.0]), max_runs=2)
    >>> print(runs.segments[0], runs.where)
    [1. 3.] [ True False]

    Args:
      curve: one class's sequence of the class activation sequence (CAS), or actionness.
      thresholds: levels; may be empty.
      max_runs: N, the number of runs in the result (static).
      where: True on the valid snippets, a prefix; default all.

    Returns:
      `Runs`.

    Raises:
      ValueError: if shapes or types do not fit, or `max_runs` is below 1.
    """
    sizes: dict[str, int] = {}
    curve = _check.numbers(curve, "curve", "T", sizes)
    thresholds = _check.numbers(thresholds, "thresholds", "H")
    where = _check.mask(where, "where", "T", sizes)
    max_runs = _check.static_size(max_runs, "max_runs", least=1)
    size = sizes["T"]
    if not thresholds.size:
        none = jnp.zeros((max_runs, 2), jnp.float32)
        return Runs(none, jnp.zeros(max_runs, bool), jnp.zeros((), jnp.int32))
    thresholds = _axes.vary_like(thresholds, curve)
    curve = jnp.where(where, curve, -jnp.inf)
    length = where.sum(dtype=jnp.float32)
    above = curve[None, :] > thresholds[:, None]
    edge = jnp.zeros((thresholds.shape[0], 1), bool)

    # The first and the last snippet of each run, both in one: half the program to compile.
    first = above & ~jnp.concatenate([edge, above[:, :-1]], axis=1)
    last = above & ~jnp.concatenate([above[:, 1:], edge], axis=1)
    flags = jnp.stack([first.ravel(), last.ravel()])
    index, count = jax.vmap(functools.partial(_cpu.first_flags, size=max_runs))(flags)
    row, snippet = jnp.divmod(jnp.minimum(index, thresholds.shape[0] * size - 1), size)
    # On the way to its neighbour outside of the run the curve crosses the threshold at this
    # distance from the snippet's centre: half a snippet where it has no neighbour.
    outward = jnp.array([[-1], [1]], jnp.int32)
    neighbour = snippet + outward
    level, height = thresholds[row], curve[snippet]
    beside = jnp.where(
        (neighbour >= 0) & (neighbour < size), curve.at[neighbour].get(mode="clip"), -jnp.inf
    )
    crosses = (height > beside) & jnp.isfinite(beside)
    rise = jnp.where(crosses, height - beside, 1)
    distance = jnp.where(crosses, (height - level) / rise, 0.5)
    start, end = snippet.astype(jnp.float32) + 0.5 + outward.astype(jnp.float32) * distance
    end, total = jnp.minimum(end, length), count[0]
    exists = jnp.arange(max_runs, dtype=jnp.int32) < total
    runs = jnp.where(exists[:, None], jnp.stack([start, end], axis=-1), 0)
    return Runs(runs, exists, jnp.maximum(total - max_runs, 0))


@static("max_runs")
def localize(
    scores: Real[ArrayLike, "T C"],
    foreground: Real[ArrayLike, " T"],
    video: Real[ArrayLike, " C"],
    *,
    thresholds: Real[ArrayLike, " H"],
    foreground_thresholds: Real[ArrayLike, " G"],
    max_runs: int,
    classes: Mask[ArrayLike, " C"],
    video_weight: Real[ArrayLike, ""] = 0.2,
    delta: Real[ArrayLike, ""] = 0.25,
    min_outer: Real[ArrayLike, ""] = 0.0,
    iou_threshold: Real[ArrayLike, ""] = 0.7,
    soft_sigma: Real[ArrayLike, ""] = 0.0,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Detections:
    """Localizes the actions of one recording: class activation sequence (CAS) to detections.

    A class's proposals are the runs of its scores above each of `thresholds` and the runs of the
    actionness above each of `foreground_thresholds`; a proposal's score is its outer-inner contrast
    (OIC) plus `video_weight` times the class's video score. Of overlapping ones NMS keeps the best;
    with `soft_sigma`, soft-NMS keeps all and lowers the scores of the others, except for those that
    it lowers to less than a hundredth of the class's best score: duplicates, which take memory and
    rank below all else.

    >>> import jax.numpy as jnp
    >>> cas = jnp.array([[0.0, 0.0], [0.9, 0.0], [0.9, 0.0], [0.0, 0.0]])
    >>> found = localize(
    ...     cas, cas[:, 0], jnp.array([0.9, 0.0]), classes=jnp.array([True, False]),
    ...     thresholds=jnp.array([0.45]), foreground_thresholds=jnp.array([]), max_runs=1)
    >>> print(found.segments[0, 0], found.where[:, 0])
    [1. 3.] [ True False]

    Args:
      scores: the class activation sequence (CAS), confidences of the classes.
      foreground: actionness, the class-agnostic score of each snippet.
      video: video-level scores of the classes.
      thresholds: for the CAS; may be empty.
      foreground_thresholds: for the actionness; may be empty.
      max_runs: most runs of a class, and of the actionness (static).
      classes: the classes to localize; see `present_classes`.
      video_weight: factor of the video score in the detections' scores.
      delta: see `curve_contrast`.
      min_outer: see `curve_contrast`, in snippets.
      iou_threshold: tIoU with a better proposal from which on a proposal is removed, 0 to 1.
      soft_sigma: above 0, scores are lowered by `soft_nms` instead.
      where: True on the valid snippets, a prefix; default all.

    Returns:
      `Detections` with `N = 2 · max_runs`.

    Raises:
      ValueError: if shapes or types do not fit, or a setting that is not traced is out of range.
    """
    sizes: dict[str, int] = {}
    batch = (
        _check.numbers(scores, "scores", "T C", sizes),
        _check.numbers(foreground, "foreground", "T", sizes),
        _check.numbers(video, "video", "C", sizes),
        _check.mask(classes, "classes", "C", sizes),
        _check.mask(where, "where", "T", sizes),
    )
    found = localize_batch(
        *(array[None] for array in batch),
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


# Pairs of a recording and a class that are localized in one iteration.
_PAIRS_AT_ONCE = 32


@static("max_runs")
def localize_batch(
    scores: Real[ArrayLike, "B T C"],
    foreground: Real[ArrayLike, "B T"],
    video: Real[ArrayLike, "B C"],
    classes: Mask[ArrayLike, "B C"],
    where: Mask[ArrayLike, "B T"],
    *,
    thresholds: Real[ArrayLike, " H"],
    foreground_thresholds: Real[ArrayLike, " G"],
    max_runs: int,
    video_weight: Real[ArrayLike, ""],
    delta: Real[ArrayLike, ""],
    min_outer: Real[ArrayLike, ""],
    iou_threshold: Real[ArrayLike, ""],
    soft_sigma: Real[ArrayLike, ""],
    resampled: resampling.Resampled | None = None,
) -> Detections:
    """Localizes, as `localize` does, in B recordings, on the old timeline if they are resampled.

    The cost follows the number of classes to localize: pairs of a recording and a class are
    processed some at a time, across recordings. The arguments are those of `localize` with a
    leading batch axis; `resampled` is of the B recordings, or None.
    """
    sizes: dict[str, int] = {}
    scores = _check.numbers(scores, "scores", "B T C", sizes)
    foreground = _check.numbers(foreground, "foreground", "B T", sizes)
    video = _check.numbers(video, "video", "B C", sizes)
    classes = _check.mask(classes, "classes", "B C", sizes)
    where = _check.mask(where, "where", "B T", sizes)
    thresholds = _check.numbers(thresholds, "thresholds", "H")
    foreground_thresholds = _check.numbers(foreground_thresholds, "foreground_thresholds", "G")
    max_runs = _check.static_size(max_runs, "max_runs", least=1)
    video_weight = _check.setting(video_weight, "video_weight")
    delta = _check.setting(delta, "delta", least=0)
    min_outer = _check.setting(min_outer, "min_outer", least=0)
    iou_threshold = _check.setting(iou_threshold, "iou_threshold", least=0, most=1)
    soft_sigma = _check.setting(soft_sigma, "soft_sigma", least=0)
    settings = (thresholds, foreground_thresholds, video_weight, delta, min_outer, iou_threshold)
    arrays = (scores, foreground, video, classes, where, resampled)
    arrays = _axes.vary_like(arrays, (arrays, settings, soft_sigma))
    scores, foreground, video, classes, where, resampled = arrays
    num_recordings, num_classes = classes.shape
    num_pairs = num_recordings * num_classes
    # Without thresholds of a kind there is nothing to compute in its half of the result.
    empty = tuple(0 if kind.size else max_runs for kind in (thresholds, foreground_thresholds))
    runs_of = functools.partial(threshold_runs, max_runs=max_runs)
    shared = jax.vmap(functools.partial(runs_of, thresholds=foreground_thresholds))(
        foreground, where=where
    )

    def one_pair(pair: Int[Array, ""]) -> Detections:
        exists = pair < num_pairs
        row, column = jnp.divmod(jnp.minimum(pair, num_pairs - 1), num_classes)
        curve, valid = scores[row, :, column], where[row]
        own = runs_of(curve, thresholds, where=valid)
        halves = [
            runs
            for runs, nothing in zip((own, _row(shared, row)), empty, strict=True)
            if not nothing
        ]
        candidates = jnp.concatenate([runs.segments for runs in halves])
        exists = exists & jnp.concatenate([runs.where for runs in halves])
        # A peak that is barely above a threshold crosses it twice at one time.
        exists &= candidates[:, 0] < candidates[:, 1]
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
            own.overflow,
        )

    at_once = min(_PAIRS_AT_ONCE, num_pairs)
    pairs = jnp.nonzero(classes.ravel(), size=num_pairs + at_once, fill_value=num_pairs)[0]

    def next_pairs(state: tuple[Array, Detections]) -> tuple[Array, Detections]:
        done, found = state
        some = jax.lax.dynamic_slice(pairs, (done,), (at_once,))
        new = jax.vmap(one_pair)(some)
        found = jax.tree.map(lambda old, new: old.at[some].set(new, mode="drop"), found, new)
        return done + at_once, found

    size = (num_pairs, 2 * max_runs)
    nothing = Detections(
        jnp.zeros((*size, 2), jnp.float32),
        jnp.zeros(size, jnp.float32),
        jnp.zeros(size, bool),
        jnp.zeros(num_pairs, jnp.int32),
    )
    state = _axes.vary_like((jnp.zeros((), jnp.int32), nothing), (arrays, settings))
    total = classes.sum(dtype=jnp.int32)
    _, found = jax.lax.while_loop(lambda state: state[0] < total, next_pairs, state)
    found = jax.tree.map(lambda x: x.reshape(num_recordings, num_classes, *x.shape[1:]), found)
    overflow = jnp.maximum(found.overflow.max(axis=1), shared.overflow)
    return dataclasses.replace(found, overflow=overflow)


def _drop(
    segments: Float[Array, "N 2"],
    scores: Float[Array, " N"],
    exists: Bool[Array, " N"],
    *,
    iou_threshold: Float[Array, ""],
) -> tuple[Float[Array, " N"], Bool[Array, " N"]]:
    """Scores of a class's proposals, and which are kept, by NMS."""
    keep = segment_ops.nms(segments, scores, iou_threshold=iou_threshold, where=exists)
    return scores, keep


# The share of the best score below which a proposal that soft-NMS lowered is dropped. On HAPT,
# SHREC'21 and watch the average mAP is the same to 0.01 with 0 and with this, and detections are
# 2.5 times fewer.
_LEAST_SHARE = 0.01


def _lower(
    segments: Float[Array, "N 2"],
    scores: Float[Array, " N"],
    exists: Bool[Array, " N"],
    *,
    sigma: Float[Array, ""],
) -> tuple[Float[Array, " N"], Bool[Array, " N"]]:
    """Scores of a class's proposals, and which are kept, by soft-NMS."""
    lowered = segment_ops.soft_nms(segments, scores, sigma=sigma, where=exists)
    best = jnp.where(exists, lowered, -jnp.inf).max(initial=-jnp.inf)
    return lowered, exists & ((lowered >= scores) | (lowered >= _LEAST_SHARE * best))


def present_classes(
    video: Real[ArrayLike, "*batch C"], *, threshold: Real[ArrayLike, ""] = 0.5
) -> Bool[Array, "*batch C"]:
    """Returns the classes whose video score reaches a threshold, and the best one in any case.

    >>> import jax.numpy as jnp
    >>> print(present_classes(jnp.array([0.2, 0.4, 0.1]), threshold=0.5))
    [False  True False]

    Args:
      video: video-level scores of the classes; leading axes are batch axes.
      threshold: a score from which on a class is present.

    Returns:
      True for the classes present.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    video = _check.numbers(video, "video", "... C")
    at = jax.lax.broadcasted_iota(jnp.int32, video.shape, video.ndim - 1)
    best = at == video.argmax(axis=-1, keepdims=True).astype(jnp.int32)
    return (video >= _check.setting(threshold, "threshold")) | best


def _row(values: Any, row: Int[ArrayLike, ""]) -> Any:
    return jax.tree.map(lambda array: array[row], values)
