"""Error analysis: why detections miss ground truth."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from tal_jax.evaluation.matching import (
    Problem,
    check_short,
    check_tious,
    iou_of,
    is_short,
    match,
    overlap_of,
    rank_within,
    read_problem,
)

_REASONS = ("split", "merged", "wrong_class", "badly_placed", "missed")


def explain_errors(
    ground_truth: Mapping[str, Any],
    predictions: Mapping[str, Any],
    *,
    tiou: float = 0.5,
    subset: str | None = None,
    short_s: float | None = None,
) -> dict[str, int]:
    """Counts why ground truth was not found.

    Looks at one operating point: of each class the n best detections, n being its
    number of ground-truth segments (where precision equals recall). They are matched as in
    `evaluate_detections`; every instance left over gets the first reason that fits.

    Args:
      ground_truth: As in `evaluate_detections`.
      predictions: As in `evaluate_detections`.
      tiou: IoU from which a detection counts as right, in (0, 1].
      subset: As in `evaluate_detections`.
      short_s: Instances shorter than this many seconds are short; None: all are long.

    Returns:
      `ground_truth` and `matched`; `missed_short` and `missed_long`, which together are the
      instances left over; and these instances again by reason:
      `split`: several detections of its class lie mostly inside it, none reaches the threshold, and
        together they cover at least the share `tiou` of it;
      `merged`: the best detection of its class overlaps another instance of the class too;
      `wrong_class`: a detection of another class reaches the threshold;
      `badly_placed`: a detection of its class overlaps it, but less than the threshold;
      `missed`: no detection of its class touches it.

    Raises:
      InputError: As `evaluate_detections`.

    >>> truth = {"database": {"a": {"annotations": [{"label": "jump", "segment": [0.0, 4.0]}]}}}
    >>> found = {"results": {"a": [{"label": "jump", "score": 1.0, "segment": [3.0, 7.0]}]}}
    >>> {k: n for k, n in explain_errors(truth, found).items() if n}
    {'ground_truth': 1, 'missed_long': 1, 'badly_placed': 1}
    """
    levels = check_tious([tiou])
    short_s = check_short(short_s)
    problem = read_problem(ground_truth, predictions, subset)
    best = np.flatnonzero(rank_within(problem.det_class) < problem.class_counts[problem.det_class])
    best = best[np.argsort(problem.det_video[best], kind="stable")]  # a slice for every video
    problem = problem._replace(
        det_video=problem.det_video[best],
        det_class=problem.det_class[best],
        det_segments=problem.det_segments[best],
        det_scores=problem.det_scores[best],
    )
    _, found = match(problem, levels)
    left = np.flatnonzero(~found[0])
    short = is_short(problem, short_s)[left]
    reasons = collections.Counter(_reason(problem, int(index), tiou) for index in left)
    return {
        "ground_truth": len(problem.gt_class),
        "matched": int(found.sum()),
        "missed_short": int(short.sum()),
        "missed_long": int((~short).sum()),
        **{reason: reasons[reason] for reason in _REASONS},
    }


def _reason(problem: Problem, index: int, tiou: float) -> str:
    """Why ground truth `index` was not matched; see `explain_errors`. Detections lie by video."""
    segment, of_class = problem.gt_segments[index], problem.gt_class[index]
    video = problem.gt_video[index]
    low, high = np.searchsorted(problem.det_video, [video, video + 1])
    segments, same_class = problem.det_segments[low:high], problem.det_class[low:high] == of_class
    own, others = segments[same_class], segments[~same_class]
    own = own[overlap_of(own, segment[None]) > 0]
    iou = iou_of(own, segment[None])
    if _is_split(own, iou, segment, tiou):
        return "split"
    if len(own):
        low, high = np.searchsorted(problem.gt_video, [video, video + 1])
        mates = problem.gt_class[low:high] == of_class
        mates[index - low] = False
        best = own[iou.argmax()]
        if (overlap_of(problem.gt_segments[low:high][mates], best[None]) > 0).any():
            return "merged"
    if (iou_of(others, segment[None]) >= tiou).any():
        return "wrong_class"
    return "badly_placed" if len(own) else "missed"


def _is_split(own: np.ndarray, iou: np.ndarray, segment: np.ndarray, tiou: float) -> bool:
    """Whether several pieces [n, 2], each below the threshold, cover the segment together."""
    overlap = overlap_of(own, segment[None])
    pieces = own[overlap > 0.5 * (own[:, 1] - own[:, 0])].clip(*segment)
    if len(pieces) < 2 or iou.max() >= tiou:
        return False
    pieces = pieces[np.argsort(pieces[:, 0], kind="stable")]
    covered_to = np.maximum.accumulate(np.r_[segment[0], pieces[:, 1]])
    covered = np.maximum(pieces[:, 1] - np.maximum(pieces[:, 0], covered_to[:-1]), 0.0).sum()
    return bool(covered >= tiou * (segment[1] - segment[0]))
