"""Detections against ground truth: ActivityNet mAP, recall of short and long instances.

Plain NumPy in float64 on the host. Annotations and detections come as the dicts of ActivityNet's
json files; every time is in seconds. Whatever does not take part in a number is counted in
`DetectionMetrics.notes`.
"""

import contextlib
import dataclasses
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.detection_columns import Columns
from tal_jax.evaluation.matching import (
    Tally,
    check_short,
    check_tious,
    is_short,
    match,
    read_columns,
    read_truth,
    to_problem,
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
    predictions: Mapping[str, Any] | Iterator[Columns],
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
      predictions: `{"results": {video: [{"label", "score", "segment"}]}}`, or an iterator of
        columns, such as `data.detection_columns.read_detections`. These are matched batch by batch
        and ranked class by class, from temporary files: detections need not fit into memory.
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
    truth = read_truth(ground_truth, subset)
    tally, found = Tally(truth), np.zeros((len(levels), len(truth.gt_class)), bool)
    batched = isinstance(predictions, Iterator)
    with tempfile.TemporaryDirectory() if batched else contextlib.nullcontext() as folder:
        ranked = _Ranked(len(levels), folder)
        for columns in predictions if batched else [read_columns(predictions)]:
            tally.add(columns)
            problem = to_problem(truth, columns)
            hits, taken = match(problem, levels)
            found |= taken
            ranked.add(problem.det_class, problem.det_scores, hits)
        of_classes = [
            [_average_precision(hits, count) for hits in ranked.hits_of(number)]
            for number, count in enumerate(truth.class_counts.tolist())
        ]
    ap = np.array(of_classes, np.float64).reshape(-1, len(levels)).T
    map_ = _row_mean(ap)
    short = is_short(truth, short_s)
    long = ~short if short_s is not None else short
    return DetectionMetrics(
        tious=levels,
        map=map_,
        average_map=float(map_.mean()),
        ap=ap,
        classes=truth.classes,
        class_counts=truth.class_counts,
        num_videos=len(truth.videos),
        num_ground_truth=len(truth.gt_class),
        num_detections=ranked.num_detections,
        short_s=short_s,
        short_recall=_row_mean(found[:, short]),
        long_recall=_row_mean(found[:, long]),
        num_short=int(short.sum()),
        num_long=int(long.sum()),
        notes=tuple(tally.notes()),
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
            touches = _touches([one["segment"] for one in found], ambiguous[video])
            pairs = zip(found, touches, strict=True)
            kept[video] = [one for one, touched in pairs if not touched]
    return kept


def columns_without_ambiguous(
    columns: Columns, ambiguous: Mapping[str, Sequence[Sequence[float]]]
) -> Columns:
    """`without_ambiguous` for columns."""
    owner = np.repeat(np.arange(len(columns.sizes)), columns.sizes)
    kept = np.ones(len(owner), bool)
    ends = np.cumsum(columns.sizes)
    for row, video in enumerate(columns.recordings):
        if video in ambiguous:
            own = slice(ends[row] - columns.sizes[row], ends[row])
            kept[own] = ~_touches(columns.segments[own], ambiguous[video])
    return columns._replace(
        sizes=np.bincount(owner[kept], minlength=len(columns.sizes)),
        labels=columns.labels[kept],
        scores=columns.scores[kept],
        segments=columns.segments[kept],
    )


def _touches(segments: Any, others: Sequence[Sequence[float]]) -> np.ndarray:
    """Which segments [N, 2] touch any of others: [N]."""
    starts, ends = np.array(others, np.float64).reshape(-1, 2).T
    times = np.asarray(segments, np.float64).reshape(-1, 2)
    return np.any((times[:, :1] < ends) & (starts < times[:, 1:]), axis=1)


class _Ranked:
    """Scores and hits of detections by class: in memory or, with a folder, in a file a class."""

    def __init__(self, num_levels: int, folder: str | None) -> None:
        self.num_levels, self.folder, self.num_detections = num_levels, folder, 0
        self.held: dict[int, np.ndarray] = {}
        # A bit for each threshold.
        self.kind = np.dtype([("score", np.float64), ("hits", np.uint8, (-(-num_levels // 8),))])

    def add(self, det_class: np.ndarray, scores: np.ndarray, hits: np.ndarray) -> None:
        """Adds detections [N] that are ordered by class, and their hits [n, N]."""
        rows = np.empty(len(scores), self.kind)
        rows["score"], rows["hits"] = scores, np.packbits(hits, axis=0).T
        self.num_detections += len(rows)
        first = np.flatnonzero(np.diff(det_class, prepend=-1))
        for low, high in itertools.pairwise([*first.tolist(), len(rows)]):
            self._put(int(det_class[low]), rows[low:high])

    def hits_of(self, number: int) -> Iterator[np.ndarray]:
        """Yields the hits [N] of a class at each threshold, from the highest score down."""
        rows = self._get(number)
        # Equal scores stay in input order.
        bits = rows["hits"][np.argsort(-rows["score"], kind="stable")]
        for level in range(self.num_levels):
            yield bits[:, level // 8] & (128 >> level % 8) != 0

    def _put(self, number: int, rows: np.ndarray) -> None:
        if self.folder is None:
            self.held[number] = rows
        else:
            with open(self._path(number), "ab") as file:
                rows.tofile(file)

    def _get(self, number: int) -> np.ndarray:
        if self.folder is None:
            return self.held.get(number, np.empty(0, self.kind))
        path = self._path(number)
        return np.fromfile(path, self.kind) if path.exists() else np.empty(0, self.kind)

    def _path(self, number: int) -> Path:
        return Path(str(self.folder)) / str(number)


def _average_precision(hits: np.ndarray, num_instances: int) -> float:
    """Interpolated AP of one class from the hits [N] of its detections, best first.

    Recall rises at hits only, by one over the number of instances, and the precision there is
    replaced by the highest one at this or a later hit.
    """
    at = np.flatnonzero(hits)
    precision = np.arange(1, len(at) + 1) / (at + 1)
    return float(np.maximum.accumulate(precision[::-1]).sum()) / num_instances


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
