"""Detections against ground truth: ActivityNet mAP, recall of short and long instances, errors.

Plain NumPy in float64 on the host. Annotations and detections come as the dicts of ActivityNet's
json files; every time is in seconds. Whatever does not take part in a number is counted in
`DetectionMetrics.notes`.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tal_jax._errors import InputError

__all__ = [
    "DetectionMetrics",
    "average_over",
    "evaluate_detections",
    "explain_errors",
    "format_table",
    "found_instances",
    "without_ambiguous",
]

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
    levels = _check_tious(tious)
    short_s = _check_short(short_s)
    problem = _read_problem(ground_truth, predictions, subset)
    hits, found = _match(problem, levels)
    ap = _average_precision(hits, problem.det_class, problem.class_counts)
    map_ = _row_mean(ap)
    short = _is_short(problem, short_s)
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


def average_over(metrics: DetectionMetrics, low: float, high: float) -> float:
    """Mean mAP over the evaluated thresholds in [low, high].

    Args:
      metrics: What `evaluate_detections` returned.
      low: Smallest IoU threshold of the average.
      high: Largest IoU threshold of the average.

    Raises:
      ValueError: If there is no threshold in it.

    >>> truth = {"database": {"a": {"annotations": [{"label": "jump", "segment": [0.0, 6.0]}]}}}
    >>> found = {"results": {"a": [{"label": "jump", "score": 1.0, "segment": [0.0, 3.5]}]}}
    >>> metrics = evaluate_detections(truth, found, tious=[0.3, 0.4, 0.5, 0.6, 0.7])
    >>> average_over(metrics, 0.3, 0.7), average_over(metrics, 0.3, 0.5)
    (0.6, 1.0)
    """
    columns = _columns_between(metrics.tious, low, high)
    if not columns.any():
        raise ValueError(
            f"no tIoU between {low} and {high} was evaluated, only {metrics.tious.tolist()}"
        )
    return float(metrics.map[columns].mean())


def format_table(metrics: DetectionMetrics, per_class: bool = False) -> str:
    """The metrics as an aligned text table, in percent.

    Args:
      metrics: What `evaluate_detections` returned.
      per_class: Whether to add one row of AP for each class.

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
    if per_class:
        counts = zip(metrics.classes, metrics.class_counts, strict=True)
        rows += [(f"AP {c} (n={n})", metrics.ap[:, i]) for i, (c, n) in enumerate(counts)]
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
    levels = _check_tious([tiou])
    short_s = _check_short(short_s)
    problem = _read_problem(ground_truth, predictions, subset)
    best = np.flatnonzero(_rank_within(problem.det_class) < problem.class_counts[problem.det_class])
    best = best[np.argsort(problem.det_video[best], kind="stable")]  # a slice for every video
    problem = problem._replace(
        det_video=problem.det_video[best],
        det_class=problem.det_class[best],
        det_segments=problem.det_segments[best],
    )
    _, found = _match(problem, levels)
    left = np.flatnonzero(~found[0])
    short = _is_short(problem, short_s)[left]
    reasons = collections.Counter(_reason(problem, int(index), tiou) for index in left)
    return {
        "ground_truth": len(problem.gt_class),
        "matched": int(found.sum()),
        "missed_short": int(short.sum()),
        "missed_long": int((~short).sum()),
        **{
            reason: reasons[reason]
            for reason in ("split", "merged", "wrong_class", "badly_placed", "missed")
        },
    }


def found_instances(
    ground_truth: Mapping[str, Any], predictions: Mapping[str, Any], *, tiou: float = 0.5
) -> dict[str, list[bool]]:
    """Returns which ground-truth instances of each video are matched by a detection.

    The matching is that of `evaluate_detections`.

    Args:
      ground_truth: As in `evaluate_detections`.
      predictions: As in `evaluate_detections`.
      tiou: Least tIoU of a match, in (0, 1].

    Returns:
      For each video, a flag for each of its annotations, in their order.

    Raises:
      InputError: As `evaluate_detections`.

    >>> truth = {"database": {"a": {"annotations": [
    ...     {"label": "jump", "segment": [0.0, 4.0]}, {"label": "jump", "segment": [6.0, 9.0]}]}}}
    >>> found = {"results": {"a": [{"label": "jump", "score": 1.0, "segment": [6.0, 8.0]}]}}
    >>> found_instances(truth, found)
    {'a': [False, True]}
    """
    problem = _read_problem(ground_truth, predictions, None)
    flags = np.zeros(len(problem.gt_class), bool)
    flags[problem.gt_order] = _match(problem, _check_tious([tiou]))[1][0]
    sizes = [len(entry["annotations"]) for entry in ground_truth["database"].values()]
    parts = np.split(flags, np.cumsum(sizes))
    return {
        video: part.tolist() for video, part in zip(ground_truth["database"], parts, strict=False)
    }


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


class _Problem(NamedTuple):
    """Everything that takes part in the metric, as flat arrays.

    Detections are ordered by class, then by falling score, then by input order; ground truth by
    video, then class, then input order. Detections in videos that are not in the ground truth
    have the video index `num_videos`.
    """

    classes: tuple[str, ...]  # C
    class_counts: np.ndarray  # [C]
    num_videos: int
    gt_order: np.ndarray  # [G] indices into the annotations of all videos, in input order
    gt_video: np.ndarray  # [G]
    gt_class: np.ndarray  # [G]
    gt_segments: np.ndarray  # [G, 2]
    det_video: np.ndarray  # [N]
    det_class: np.ndarray  # [N]
    det_segments: np.ndarray  # [N, 2]
    notes: tuple[str, ...]


class _Rows(NamedTuple):
    """The items of `{video: [item, ...]}`, one row each."""

    owner: np.ndarray  # [n] which video, counted in the order of the dict
    labels: list[str]  # n
    segments: np.ndarray  # [n, 2]
    scores: np.ndarray  # [n], zeros where there are none


def _read_problem(
    ground_truth: Mapping[str, Any], predictions: Mapping[str, Any], subset: str | None
) -> _Problem:
    """Checks both dicts and brings them into order."""
    annotations, other_videos = _split_database(ground_truth, subset)
    results = _lookup(predictions, "results", Mapping, "the predictions")
    results = {v: _lookup(results, v, Sequence, "the results") for v in results}
    truth = _flatten(annotations, "annotation")
    found = _flatten(results, "detection")

    classes = tuple(sorted(set(truth.labels)))
    class_index = {label: i for i, label in enumerate(classes)}
    gt_class = np.array([class_index[label] for label in truth.labels], np.intp)
    gt_order = np.lexsort((gt_class, truth.owner))  # stable, as is every sort in this module

    video_index = {video: i for i, video in enumerate(annotations)}
    found_index = np.array([video_index.get(v, len(annotations)) for v in results], np.intp)
    det_class = np.array([class_index.get(label, -1) for label in found.labels], np.intp)
    known = np.flatnonzero(det_class >= 0)
    det_order = known[np.lexsort((-found.scores[known], det_class[known]))]
    return _Problem(
        classes=classes,
        class_counts=np.bincount(gt_class, minlength=len(classes)),
        num_videos=len(annotations),
        gt_order=gt_order,
        gt_video=truth.owner[gt_order],
        gt_class=gt_class[gt_order],
        gt_segments=truth.segments[gt_order],
        det_video=found_index[found.owner[det_order]],
        det_class=det_class[det_order],
        det_segments=found.segments[det_order],
        notes=tuple(_notes(annotations, other_videos, results, truth, found, subset)),
    )


def _split_database(
    ground_truth: Mapping[str, Any], subset: str | None
) -> tuple[dict[str, Sequence], set[str]]:
    """The annotations of each video of the subset, and the names of the other videos."""
    database = _lookup(ground_truth, "database", Mapping, "the ground truth")
    inside = list(database)
    if subset is not None:
        subsets = {v: _lookup(e, "subset", str, f"video {v!r}") for v, e in database.items()}
        inside = [video for video in database if subsets[video] == subset]
        if not inside:
            raise InputError(
                f"subset is {subset!r}, expected one of {sorted(set(subsets.values()))}"
            )
    annotations = {v: _lookup(database[v], "annotations", Sequence, f"video {v!r}") for v in inside}
    return annotations, set(database).difference(inside)


def _lookup(values: Any, key: str, kind: type, name: str) -> Any:
    """`values[key]`, a `kind`; `name` says in the error what `values` is."""
    if not isinstance(values, Mapping):
        raise InputError(f"{name}: expected a dict with the key {key!r}, got {values!r}")
    if key not in values:
        raise InputError(f"{name}: no {key!r} among the keys {_some(map(str, values))}")
    if not isinstance(values[key], kind):
        raise InputError(f"{name}: expected {key!r} to be a {kind.__name__}, got {values[key]!r}")
    return values[key]


def _flatten(items: Mapping[str, Sequence], what: str) -> _Rows:
    """Reads the segments, labels and (of detections) scores of all videos."""
    rows = list(itertools.chain.from_iterable(items.values()))
    scored = what == "detection"
    try:
        labels = [row["label"] for row in rows]
        segments = np.array([row["segment"] for row in rows] or np.empty((0, 2)), np.float64)
        scores = np.array([row["score"] if scored else 0.0 for row in rows], np.float64)
        sound = (
            all(isinstance(label, str) for label in set(labels))
            and segments.shape == (len(rows), 2)
            and scores.shape == (len(rows),)
            and bool(np.isfinite(segments).all() and np.isfinite(scores).all())
            and bool((segments[:, 0] <= segments[:, 1]).all())
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        sound = False
    if not sound:  # only now look at them one by one
        raise InputError(_first_fault(items, what))
    sizes = np.array([len(listed) for listed in items.values()], np.intp)
    owner = np.repeat(np.arange(len(items)), sizes)
    return _Rows(owner, labels, segments, scores)


def _first_fault(items: Mapping[str, Sequence], what: str) -> str:
    """One line about the first malformed item."""
    for video, listed in items.items():
        for position, item in enumerate(listed):
            fault = _fault(item, scored=what == "detection")
            if fault:
                return f"video {video!r}, {what} {position}: {fault}"
    raise AssertionError(f"the {what}s cannot be read together, but each of them can")


def _fault(item: Any, *, scored: bool) -> str | None:
    """What is wrong with one annotation or detection, None if nothing is."""
    keys = ("label", "segment", "score") if scored else ("label", "segment")
    if not isinstance(item, Mapping):
        return f"expected a dict with the keys {keys}, got {item!r}"
    for key in keys:
        if key not in item:
            return f"no {key!r} in {dict(item)!r}"
    if not isinstance(item["label"], str):
        return f"label is {item['label']!r}, expected a string"
    segment = _floats(item["segment"])
    if segment.shape != (2,) or not np.isfinite(segment).all() or segment[0] > segment[1]:
        return f"segment is {item['segment']!r}, expected finite [start_s, end_s], start <= end"
    score = _floats(item["score"] if scored else 0.0)
    if score.shape or not np.isfinite(score):
        return f"score is {item['score']!r}, expected a finite number"
    return None


def _floats(value: Any) -> np.ndarray:
    """The value as float64, a lone NaN if it is no number or array of numbers."""
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array(np.nan)


def _notes(
    annotations: Mapping[str, Sequence],
    other_videos: set[str],
    results: Mapping[str, Sequence],
    truth: _Rows,
    found: _Rows,
    subset: str | None,
) -> Iterable[str]:
    """One line for everything that is left out or easily overlooked."""
    labels = set(truth.labels)

    def counted(video: str) -> int:
        return sum(row["label"] in labels for row in results.get(video, ()))

    if not truth.labels:
        yield "no ground-truth segments: mAP is undefined"
    other = {v: counted(v) for v, r in results.items() if v in other_videos and r}
    if other:
        yield (
            f"{_count(sum(other.values()), 'detection')} counted as false positives, in "
            f"{_count(len(other), 'video')} outside subset {subset!r}: {_some(other)}"
        )
    database = other_videos.union(annotations)
    unknown = {v: counted(v) for v, r in results.items() if v not in database and r}
    if unknown:
        yield (
            f"{_count(sum(unknown.values()), 'detection')} counted as false positives, in "
            f"{_count(len(unknown), 'video')} that are not in the ground truth: {_some(unknown)}"
        )
    bare = {v: counted(v) for v, a in annotations.items() if not a}
    if bare:
        yield (
            f"{_count(len(bare), 'video')} without ground truth, with "
            f"{_count(sum(bare.values()), 'detection')} counted as false positives: {_some(bare)}"
        )
    silent = [video for video in annotations if not results.get(video)]
    if silent:
        yield f"{_count(len(silent), 'video')} without detections: {_some(silent)}"
    strange = collections.Counter(label for label in found.labels if label not in labels)
    if strange:
        yield (
            f"{_count(strange.total(), 'detection')} left out, of "
            f"{_count(len(strange), 'label')} without ground truth: {_some(sorted(strange))}"
        )
    unseen = sorted(labels.difference(found.labels))
    if unseen:
        yield f"{_count(len(unseen), 'label')} without detections (AP 0): {_some(unseen)}"
    empty = int((truth.segments[:, 0] == truth.segments[:, 1]).sum())
    if empty:
        yield f"{_count(empty, 'ground-truth segment')} without length, which nothing can match"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of the rows of `a` [n, 2] and `b` [n, 2], 0 for segments without length."""
    overlap = _overlap(a, b)
    union = (b[:, 1] - b[:, 0]) + (a[:, 1] - a[:, 0]) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(a[:, 1], b[:, 1]) - np.maximum(a[:, 0], b[:, 0]), 0.0)


def _rank_within(groups: np.ndarray) -> np.ndarray:
    """How many earlier elements of `groups` [n] (all >= 0) have the same value."""
    order = np.argsort(groups, kind="stable")
    position = np.arange(len(groups))
    first = np.diff(groups[order], prepend=-1) != 0
    rank = np.empty_like(position)
    rank[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    return rank


def _overlapping_pairs(problem: _Problem, tiou: float) -> tuple[np.ndarray, ...]:
    """All (detection, ground truth) of one video and class with IoU >= tiou: indices and IoU."""
    num_classes = len(problem.classes)
    gt_group = problem.gt_video * num_classes + problem.gt_class
    det_group = problem.det_video * num_classes + problem.det_class
    counts = np.bincount(gt_group, minlength=(problem.num_videos + 1) * num_classes)
    starts = np.cumsum(counts) - counts
    repeats = counts[det_group]
    det = np.repeat(np.arange(len(det_group)), repeats)
    within = np.arange(len(det)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    gt = starts[det_group[det]] + within
    iou = _iou(problem.det_segments[det], problem.gt_segments[gt])
    keep = iou >= tiou
    return det[keep], gt[keep], iou[keep]


def _match(problem: _Problem, tious: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matching at every threshold: which detections hit, which ground truth was taken.

    Videos, classes and thresholds do not influence each other, so turn r decides about the r-th
    best detection of every (video, class) at every threshold at once.

    Returns:
      Booleans [n, N] and [n, G].
    """
    det, gt, iou = _overlapping_pairs(problem, tious.min())
    # Turns count the detections that have a pair at all; the others are false positives anyway.
    candidates, of_pair = np.unique(det, return_inverse=True)
    groups = problem.det_video[candidates] * len(problem.classes) + problem.det_class[candidates]
    turn = _rank_within(groups)[of_pair]
    # Within a detection the best pair first; of equal ones the last annotated, as in the original.
    order = np.lexsort((-gt, -iou, det, turn))
    det, gt, turn = det[order], gt[order], turn[order]
    enough = iou[order] >= tious[:, None]

    hits = np.zeros((len(tious), len(problem.det_class)), bool)
    found = np.zeros((len(tious), len(problem.gt_class)), bool)
    bounds = np.searchsorted(turn, np.arange(turn[-1] + 2 if len(turn) else 1))
    for low, high in itertools.pairwise(bounds):
        at, pair = np.nonzero(enough[:, low:high] & ~found[:, gt[low:high]])
        pair += low
        # The first pair of each (threshold, detection): nonzero lists by threshold, then in order.
        first = np.ones(len(at), bool)
        first[1:] = (at[1:] != at[:-1]) | (det[pair[1:]] != det[pair[:-1]])
        at, pair = at[first], pair[first]
        hits[at, det[pair]] = True
        found[at, gt[pair]] = True
    return hits, found


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
    precision = (_rank_within(cell) + 1) / (_rank_within(det_class) + 1)[det]
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


def _is_short(problem: _Problem, short_s: float | None) -> np.ndarray:
    """Which ground truth is short: none if `short_s` is None."""
    durations = problem.gt_segments[:, 1] - problem.gt_segments[:, 0]
    return durations < (0.0 if short_s is None else short_s)


def _reason(problem: _Problem, index: int, tiou: float) -> str:
    """Why ground truth `index` was not matched; see `explain_errors`. Detections lie by video."""
    segment, of_class = problem.gt_segments[index], problem.gt_class[index]
    video = problem.gt_video[index]
    low, high = np.searchsorted(problem.det_video, [video, video + 1])
    segments, same_class = problem.det_segments[low:high], problem.det_class[low:high] == of_class
    own, others = segments[same_class], segments[~same_class]
    own = own[_overlap(own, segment[None]) > 0]
    iou = _iou(own, segment[None])
    if _is_split(own, iou, segment, tiou):
        return "split"
    if len(own):
        low, high = np.searchsorted(problem.gt_video, [video, video + 1])
        mates = problem.gt_class[low:high] == of_class
        mates[index - low] = False
        best = own[iou.argmax()]
        if (_overlap(problem.gt_segments[low:high][mates], best[None]) > 0).any():
            return "merged"
    if (_iou(others, segment[None]) >= tiou).any():
        return "wrong_class"
    return "badly_placed" if len(own) else "missed"


def _is_split(own: np.ndarray, iou: np.ndarray, segment: np.ndarray, tiou: float) -> bool:
    """Whether several pieces [n, 2], each below the threshold, cover the segment together."""
    overlap = _overlap(own, segment[None])
    pieces = own[overlap > 0.5 * (own[:, 1] - own[:, 0])].clip(*segment)
    if len(pieces) < 2 or iou.max() >= tiou:
        return False
    pieces = pieces[np.argsort(pieces[:, 0], kind="stable")]
    covered_to = np.maximum.accumulate(np.r_[segment[0], pieces[:, 1]])
    covered = np.maximum(pieces[:, 1] - np.maximum(pieces[:, 0], covered_to[:-1]), 0.0).sum()
    return bool(covered >= tiou * (segment[1] - segment[0]))


def _check_tious(tious: Sequence[float]) -> np.ndarray:
    values = np.array(tious, np.float64)
    if values.ndim != 1 or not len(values) or not ((values > 0) & (values <= 1)).all():
        raise InputError(f"tious are {tious!r}, expected numbers in (0, 1]")
    return values


def _check_short(short_s: float | None) -> float | None:
    if short_s is not None and not (math.isfinite(short_s) and short_s > 0):
        raise InputError(f"short_s is {short_s!r}, expected a positive number of seconds or None")
    return None if short_s is None else float(short_s)


def _columns_between(tious: np.ndarray, low: float, high: float) -> np.ndarray:
    return (tious >= low - _TIOU_SLACK) & (tious <= high + _TIOU_SLACK)


def _average_columns(tious: np.ndarray) -> dict[str, np.ndarray]:
    """The averages to show: a heading, and the thresholds that it covers [n]."""
    averages = {}
    for low, high in _USUAL_AVERAGES:
        columns = _columns_between(tious, low, high)
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
