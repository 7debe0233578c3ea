"""Detections against ground truth: ActivityNet mAP, recall of short and long instances.

Plain NumPy in float64 on the host. Annotations and detections come as the dicts of ActivityNet's
json files; every time is in seconds. Whatever does not take part in a number is counted in
`DetectionMetrics.notes`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.evaluation.matching import (
    check_short,
    check_tious,
    is_short,
    match,
    rank_within,
    read_problem,
)

__all__ = ["DetectionMetrics", "evaluate_detections", "format_table", "without_ambiguous"]

# Thresholds arrive as 0.1 * 3 or np.linspace values: which ones an average covers is decided with
# this slack. The matching itself compares with the thresholds exactly as given.
_TIOU_SLACK = 1e-6
# The averages the field reports, each shown where all of its thresholds were evaluated.
_USUAL_AVERAGES = ((0.1, 0.5), (0.3, 0.7), (0.1, 0.7))


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionMetrics:
    """Detection metrics: mAP at tIoU thresholds, recall, and notes.

    Attributes:
      tious: IoU thresholds.
      map: Mean over the classes of `ap`, as a fraction; NaN without ground truth.
      average_map: Mean of `map`.
      ap: Interpolated average precision of every class.
      classes: Labels that have ground truth, sorted: the columns of `ap`.
      class_counts: Ground-truth segments of every class.
      num_videos: Videos of the evaluated subset.
      num_ground_truth: Ground-truth segments in them.
      num_detections: Detections that took part in `ap`; the others are counted in `notes`.
      short_s: Instances shorter than this many seconds are short; None: not distinguished.
      short_recall: Share of the short instances that a detection took, NaN when there are none.
      long_recall: The same for the other instances.
      num_short: Number of short instances (0 when `short_s` is None).
      num_long: Number of long instances (0 when `short_s` is None).
      notes: What was left out or stands out, one line each.
    """

    tious: np.ndarray  # [n]
    map: np.ndarray  # [n]
    average_map: float
    ap: np.ndarray  # [n, C]
    classes: tuple[str, ...]  # C
    class_counts: np.ndarray  # [C]
    num_videos: int
    num_ground_truth: int
    num_detections: int
    short_s: float | None
    short_recall: np.ndarray  # [n]
    long_recall: np.ndarray  # [n]
    num_short: int
    num_long: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as values that every json reader takes (NaN becomes None)."""
        return {f.name: _to_json(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectionMetrics":
        """Rebuilds metrics from `to_dict`'s values.

        Args:
          values: All of the fields and nothing else.

        Raises:
          InputError: If a field is missing or unknown.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if names != set(values):
            raise InputError(
                f"these are no detection metrics: missing {sorted(names - set(values))}, "
                f"unknown {sorted(set(values) - names)}"
            )
        fields = dict(values)
        for name in ("tious", "map", "ap", "short_recall", "long_recall"):
            fields[name] = np.array(fields[name], np.float64)  # None becomes NaN
        fields["average_map"] = float(np.array(fields["average_map"], np.float64))
        fields["class_counts"] = np.array(fields["class_counts"], np.int64)
        fields["classes"], fields["notes"] = tuple(fields["classes"]), tuple(fields["notes"])
        return cls(**fields)


def evaluate_detections(
    ground_truth: Mapping[str, Any],
    predictions: Mapping[str, Any],
    *,
    tious: Sequence[float],
    subset: str | None = None,
    short_s: float | None = None,
) -> DetectionMetrics:
    """Detection mAP as ActivityNet defines it, with recall of short and long instances.

    Per class and threshold, detections are visited from the highest score down over all videos,
    equal scores in input order (videos as in the results, then position in the list). Each takes,
    among the ground truth of its class and video that is still free and overlaps it with an
    IoU >= the threshold, the one of highest IoU (of equal ones the last annotated); finding none it
    is a false positive. AP is the area under the interpolated precision-recall curve, mAP its mean
    over the classes that have ground truth in the subset.

    Detections in videos without ground truth of the subset are false positives, be they of the
    subset, of another one, or not in the ground truth at all; those of a label without ground
    truth belong to no AP. `notes` counts all four.

    Args:
      ground_truth: `{"database": {video: {"subset", "annotations": [{"label", "segment"}]}}}`, a
        segment being `[start_s, end_s]`. Other keys are ignored.
      predictions: `{"results": {video: [{"label", "score", "segment"}]}}`.
      tious: IoU thresholds, each in (0, 1].
      subset: Evaluate the videos of this subset; None: all videos.
      short_s: Ground truth shorter than this many seconds counts as short in the recalls.

    Returns:
      The metrics. A segment without length is allowed and overlaps nothing.

    Raises:
      InputError: If a threshold is outside (0, 1], the subset has no videos, a key is missing, a
        segment ends before it starts, or a time or score is not finite; the message names the video
        and the value.

    Source: the detection task of the ActivityNet challenge; equal scores, in arbitrary order there,
    are taken in input order here.

    >>> truth = {"database": {"a": {"subset": "test", "annotations": [
    ...     {"label": "jump", "segment": [2.0, 4.0]}, {"label": "jump", "segment": [6.0, 9.0]}]}}}
    >>> found = {"results": {"a": [
    ...     {"label": "jump", "score": 0.9, "segment": [2.0, 4.5]},
    ...     {"label": "jump", "score": 0.2, "segment": [5.0, 9.0]}]}}
    >>> metrics = evaluate_detections(truth, found, tious=[0.5, 0.7, 0.8], subset="test", short_s=3)
    >>> metrics.map.tolist(), metrics.short_recall.tolist(), metrics.long_recall.tolist()
    ([1.0, 1.0, 0.5], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0])
    """
    levels = check_tious(tious)
    short_s = check_short(short_s)
    problem = read_problem(ground_truth, predictions, subset)
    hits, found = match(problem, levels)
    ap = _average_precision(hits, problem.det_class, problem.class_counts)
    map_ = _row_mean(ap)
    short = is_short(problem, short_s)
    long = ~short if short_s is not None else short
    return DetectionMetrics(
        tious=levels,
        map=map_,
        average_map=float(map_.mean()),
        ap=ap,
        classes=problem.classes,
        class_counts=problem.class_counts,
        num_videos=problem.num_videos,
        num_ground_truth=len(problem.gt_class),
        num_detections=len(problem.det_class),
        short_s=short_s,
        short_recall=_row_mean(found[:, short]),
        long_recall=_row_mean(found[:, long]),
        num_short=int(short.sum()),
        num_long=int(long.sum()),
        notes=problem.notes,
    )


def format_table(metrics: DetectionMetrics) -> str:
    """The metrics as an aligned text table, in percent.

    Returns:
      Lines without a newline at the end: one column a threshold, then the averages .1-.5, .3-.7 and
      .1-.7 whose thresholds were all evaluated, and the plain average if it is none of these;
      below them the counts and the notes.
    """
    averages = _average_columns(metrics.tious)
    header = [f"{t:g}" for t in metrics.tious.round(6)] + list(averages)
    rows = [("mAP", metrics.map)]
    if metrics.short_s is not None:
        rows.append((f"recall short (n={metrics.num_short})", metrics.short_recall))
        rows.append((f"recall long (n={metrics.num_long})", metrics.long_recall))
    cells = [
        [_percent(v) for v in values] + [_percent(values[c].mean()) for c in averages.values()]
        for _, values in rows
    ]
    names = ["tIoU (values in %)"] + [name for name, _ in rows]
    left = max(map(len, names))
    width = max(len(cell) for row in [header, *cells] for cell in row) + 2
    lines = [
        name.ljust(left) + "".join(cell.rjust(width) for cell in row)
        for name, row in zip(names, [header, *cells], strict=True)
    ]
    counts = (
        f"videos {metrics.num_videos}, ground-truth segments {metrics.num_ground_truth}, "
        f"detections {metrics.num_detections}, classes {len(metrics.classes)}"
    )
    if metrics.short_s is not None:
        counts += f", short: under {metrics.short_s:g} s"
    return "\n".join([*lines, counts, *(f"note: {note}" for note in metrics.notes)])


def without_ambiguous(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    ambiguous: Mapping[str, Sequence[Sequence[float]]],
) -> dict[str, list[Mapping[str, Any]]]:
    """Leaves out detections that touch a segment of no clear class, as some codes do on THUMOS14.

    >>> found = {"a": [{"segment": [0.0, 2.0]}, {"segment": [2.0, 3.0]}]}
    >>> without_ambiguous(found, {"a": [[1.5, 2.0]]})
    {'a': [{'segment': [2.0, 3.0]}]}

    Args:
      results: `{video: [{label, score, segment}]}`.
      ambiguous: `{video: [[start_s, end_s]]}`.
    """
    kept = {}
    for video, found in results.items():
        kept[video] = list(found)
        if video in ambiguous and found:
            starts, ends = np.array(ambiguous[video], np.float64).T
            times = np.array([one["segment"] for one in found], np.float64)
            touches = (times[:, :1] < ends) & (starts < times[:, 1:])
            pairs = zip(found, touches.any(axis=1), strict=True)
            kept[video] = [one for one, touched in pairs if not touched]
    return kept


def _average_precision(
    hits: np.ndarray, det_class: np.ndarray, class_counts: np.ndarray
) -> np.ndarray:
    """Interpolated AP [n, C] from hits [n, N] of detections ordered by class, then score.

    Recall rises at hits only, by one over the number of instances, and the precision there is
    replaced by the highest one at this or a later hit.
    """
    num_classes = len(class_counts)
    at, det = np.nonzero(hits)
    cell = at * num_classes + det_class[det]  # rises along the arrays
    precision = (rank_within(cell) + 1) / (rank_within(det_class) + 1)[det]
    # One running maximum from the right over all cells. On integers, the ranks of the values, an
    # offset from cell to cell keeps them apart without rounding anything.
    values, level = np.unique(precision, return_inverse=True)
    offset = cell * len(values)
    best = np.maximum.accumulate((level - offset)[::-1])[::-1] + offset
    area = np.bincount(cell, weights=values[best], minlength=len(hits) * num_classes)
    return area.reshape(len(hits), num_classes) / class_counts


def _row_mean(values: np.ndarray) -> np.ndarray:
    """Mean of every row of [n, m]; NaN, without a warning, if m is 0."""
    rows, size = values.shape
    return values.sum(axis=1) / size if size else np.full(rows, np.nan)


def _average_columns(tious: np.ndarray) -> dict[str, np.ndarray]:
    """The averages to show: a heading, and the thresholds that it covers [n]."""
    averages = {}
    for low, high in _USUAL_AVERAGES:
        columns = (tious >= low - _TIOU_SLACK) & (tious <= high + _TIOU_SLACK)
        steps = np.arange(round(low * 10), round(high * 10) + 1) / 10
        if columns.sum() == len(steps) and np.allclose(np.sort(tious[columns]), steps):
            averages[f"{low:g}-{high:g}"] = columns
    if not any(columns.all() for columns in averages.values()):
        averages["average"] = np.ones(len(tious), bool)
    return averages


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_to_json(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
