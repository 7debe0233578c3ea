"""The matching of detections with ground truth at tIoU thresholds, and the check of both."""

import collections
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.detection_columns import Columns


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
    problem = read_problem(ground_truth, predictions, None)
    flags = np.zeros(len(problem.gt_class), bool)
    flags[problem.gt_order] = match(problem, check_tious([tiou]))[1][0]
    sizes = [len(entry["annotations"]) for entry in ground_truth["database"].values()]
    parts = np.split(flags, np.cumsum(sizes))
    return {
        video: part.tolist() for video, part in zip(ground_truth["database"], parts, strict=False)
    }


class Truth(NamedTuple):
    """Ground truth as flat arrays, ordered by video, then class, then input order."""

    classes: tuple[str, ...]  # C
    class_counts: np.ndarray  # [C]
    videos: dict[str, int]  # index of each video of the subset
    other_videos: set[str]  # names of those outside of the subset
    subset: str | None
    gt_order: np.ndarray  # [G] indices into the annotations of all videos, in input order
    gt_video: np.ndarray  # [G]
    gt_class: np.ndarray  # [G]
    gt_segments: np.ndarray  # [G, 2]


class Problem(NamedTuple):
    """Ground truth, and detections of all or some of its videos, as flat arrays.

    Detections are ordered by class, then by falling score, then by input order. Detections in
    videos that are not in the ground truth have the video index `num_videos`.
    """

    classes: tuple[str, ...]  # C
    class_counts: np.ndarray  # [C]
    num_videos: int
    gt_order: np.ndarray  # [G] as in `Truth`
    gt_video: np.ndarray  # [G]
    gt_class: np.ndarray  # [G]
    gt_segments: np.ndarray  # [G, 2]
    det_video: np.ndarray  # [N]
    det_class: np.ndarray  # [N]
    det_segments: np.ndarray  # [N, 2]
    det_scores: np.ndarray  # [N]


def read_problem(
    ground_truth: Mapping[str, Any], predictions: Mapping[str, Any], subset: str | None
) -> Problem:
    """Checks both dicts and brings them into order."""
    return to_problem(read_truth(ground_truth, subset), read_columns(predictions))


def read_truth(ground_truth: Mapping[str, Any], subset: str | None) -> Truth:
    """Checks the ground truth and brings it into order."""
    annotations, other_videos = _split_database(ground_truth, subset)
    rows = _flatten(annotations, "annotation")
    classes = tuple(sorted(rows.classes))
    index = {label: number for number, label in enumerate(classes)}
    gt_class = np.array([index[label] for label in rows.classes], np.intp)[rows.labels]
    gt_video = np.repeat(np.arange(len(annotations)), rows.sizes)
    order = np.lexsort((gt_class, gt_video))  # stable, as is every sort in this module
    return Truth(
        classes=classes,
        class_counts=np.bincount(gt_class, minlength=len(classes)),
        videos={video: number for number, video in enumerate(annotations)},
        other_videos=other_videos,
        subset=subset,
        gt_order=order,
        gt_video=gt_video[order],
        gt_class=gt_class[order],
        gt_segments=rows.segments[order],
    )


def read_columns(predictions: Mapping[str, Any]) -> Columns:
    """Checks detections, `{"results": {video: [...]}}`, and returns them as columns."""
    results = _lookup(predictions, "results", Mapping, "the predictions")
    return _flatten({v: _lookup(results, v, Sequence, "the results") for v in results}, "detection")


def to_problem(truth: Truth, columns: Columns) -> Problem:
    """Brings detections into order; those of labels without ground truth are left out."""
    class_index = {label: number for number, label in enumerate(truth.classes)}
    class_of = np.array([class_index.get(label, -1) for label in columns.classes], np.intp)
    det_class = class_of[columns.labels]
    known = np.flatnonzero(det_class >= 0)
    order = known[np.lexsort((-columns.scores[known], det_class[known]))]
    video = [truth.videos.get(name, len(truth.videos)) for name in columns.recordings]
    det_video = np.repeat(np.array(video, np.intp), columns.sizes)
    return Problem(
        classes=truth.classes,
        class_counts=truth.class_counts,
        num_videos=len(truth.videos),
        gt_order=truth.gt_order,
        gt_video=truth.gt_video,
        gt_class=truth.gt_class,
        gt_segments=truth.gt_segments,
        det_video=det_video[order],
        det_class=det_class[order],
        det_segments=columns.segments[order],
        det_scores=columns.scores[order],
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


def _flatten(items: Mapping[str, Sequence], what: str) -> Columns:
    """Reads the labels, segments and (of detections) scores of all videos."""
    index: dict[str, int] = {}
    labels, numbers = [], []
    for video, listed in items.items():
        for position, item in enumerate(listed):
            try:
                label, *row = _parse(item, scored=what == "detection")
            except InputError as error:
                raise InputError(f"video {video!r}, {what} {position}: {error}") from None
            labels.append(index.setdefault(label, len(index)))
            numbers.append(row)
    table = np.array(numbers, np.float64).reshape(-1, 3)
    sizes = np.array([len(listed) for listed in items.values()], np.intp)
    numbered = np.array(labels, np.intp)
    return Columns(list(items), sizes, list(index), numbered, table[:, 2], table[:, :2])


def _parse(item: Any, *, scored: bool) -> tuple[str, float, float, float]:
    """The label, start, end and score of an annotation, which has the score 0, or a detection."""
    keys = ("label", "segment", "score") if scored else ("label", "segment")
    if not isinstance(item, Mapping):
        raise InputError(f"expected a dict with the keys {keys}, got {item!r}")
    for key in keys:
        if key not in item:
            raise InputError(f"no {key!r} in {dict(item)!r}")
    label, segment = item["label"], item["segment"]
    if not isinstance(label, str):
        raise InputError(f"label is {label!r}, expected a string")
    try:
        start_s, end_s = [] if isinstance(segment, str) else list(map(float, segment))
    except (TypeError, ValueError, OverflowError):
        start_s = end_s = math.nan
    if not -math.inf < start_s <= end_s < math.inf:
        raise InputError(f"segment is {segment!r}, expected finite [start_s, end_s], start <= end")
    return label, start_s, end_s, files.to_number(item["score"], "score") if scored else 0.0


class Tally:
    """Counts what is left out of the metrics or easily overlooked, batch by batch."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        size = len(truth.videos)
        self.seen = np.zeros(size, bool)
        self.total = np.zeros(size, np.int64)  # detections of each video
        self.counted = np.zeros(size, np.int64)  # those of a label with ground truth
        self.outside: dict[str, int] = {}  # the latter in videos outside that have detections
        self.labels: collections.Counter[str] = collections.Counter()

    def add(self, columns: Columns) -> None:
        """Counts detections; raises an InputError if a recording was there before."""
        known = np.array([label in self.truth.classes for label in columns.classes], bool)
        owner = np.repeat(np.arange(len(columns.sizes)), columns.sizes)
        counted = np.bincount(owner[known[columns.labels]], minlength=len(columns.sizes))
        of_labels = np.bincount(columns.labels, minlength=len(columns.classes)).tolist()
        self.labels.update({k: n for k, n in zip(columns.classes, of_labels, strict=True) if n})
        for name, total, size in zip(
            columns.recordings, columns.sizes.tolist(), counted.tolist(), strict=True
        ):
            video = self.truth.videos.get(name)
            if self.seen[video] if video is not None else name in self.outside:
                raise InputError(f"detections of {name!r} at two places, expected them at one")
            if video is not None:
                self.seen[video], self.total[video], self.counted[video] = True, total, size
            elif total:
                self.outside[name] = size

    def notes(self) -> Iterator[str]:
        """One line for everything that is left out or easily overlooked."""
        truth, names = self.truth, list(self.truth.videos)
        if not truth.classes:
            yield "no ground-truth segments: mAP is undefined"
        other = [video for video in self.outside if video in truth.other_videos]
        unknown = [video for video in self.outside if video not in truth.other_videos]
        places = (
            (other, f"outside subset {truth.subset!r}"),
            (unknown, "that are not in the ground truth"),
        )
        for videos, place in places:
            if videos:
                counted = sum(self.outside[video] for video in videos)
                yield (
                    f"{_count(counted, 'detection')} counted as false positives, in "
                    f"{_count(len(videos), 'video')} {place}: {_some(videos)}"
                )
        bare = np.setdiff1d(np.arange(len(names)), truth.gt_video)
        if len(bare):
            counted = _count(int(self.counted[bare].sum()), "detection")
            yield (
                f"{_count(len(bare), 'video')} without ground truth, with {counted} counted as "
                f"false positives: {_some([names[video] for video in bare])}"
            )
        silent = np.flatnonzero(self.total == 0)
        if len(silent):
            some = _some([names[video] for video in silent])
            yield f"{_count(len(silent), 'video')} without detections: {some}"
        strange = {k: n for k, n in self.labels.items() if k not in truth.classes}
        if strange:
            yield (
                f"{_count(sum(strange.values()), 'detection')} left out, of "
                f"{_count(len(strange), 'label')} without ground truth: {_some(sorted(strange))}"
            )
        unseen = [label for label in truth.classes if label not in self.labels]
        if unseen:
            yield f"{_count(len(unseen), 'label')} without detections (AP 0): {_some(unseen)}"
        empty = int((truth.gt_segments[:, 0] == truth.gt_segments[:, 1]).sum())
        if empty:
            yield f"{_count(empty, 'ground-truth segment')} without length, which nothing can match"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def iou_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of the segments `a` [..., 2] and `b` [..., 2], 0 for those without length."""
    overlap = overlap_of(a, b)
    union = (b[..., 1] - b[..., 0]) + (a[..., 1] - a[..., 0]) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def overlap_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The seconds that the segments `a` [..., 2] and `b` [..., 2] share; leading axes broadcast."""
    shared = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    return np.maximum(shared, 0.0)


def rank_within(groups: np.ndarray) -> np.ndarray:
    """How many earlier elements of `groups` [n] (all >= 0) have the same value."""
    order = np.argsort(groups, kind="stable")
    position = np.arange(len(groups))
    first = np.diff(groups[order], prepend=-1) != 0
    rank = np.empty_like(position)
    rank[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    return rank


def _overlapping_pairs(problem: Problem, tiou: float) -> tuple[np.ndarray, ...]:
    """All (detection, ground truth) of one video and class with IoU >= tiou: indices and IoU."""
    num_classes = len(problem.classes)
    gt_group = problem.gt_video * num_classes + problem.gt_class
    det_group = problem.det_video * num_classes + problem.det_class
    starts = np.searchsorted(gt_group, det_group)  # ground truth is ordered by these groups
    repeats = np.searchsorted(gt_group, det_group, side="right") - starts
    det = np.repeat(np.arange(len(det_group)), repeats)
    within = np.arange(len(det)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    gt = starts[det] + within
    iou = iou_of(problem.det_segments[det], problem.gt_segments[gt])
    keep = iou >= tiou
    return det[keep], gt[keep], iou[keep]


def match(problem: Problem, tious: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    turn = rank_within(groups)[of_pair]
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


def is_short(problem: Problem | Truth, short_s: float | None) -> np.ndarray:
    """Which ground truth is short: none if `short_s` is None."""
    durations = problem.gt_segments[:, 1] - problem.gt_segments[:, 0]
    return durations < (0.0 if short_s is None else short_s)


def check_tious(tious: Sequence[float]) -> np.ndarray:
    """The thresholds as float64; raises InputError if there are none, or one is not in (0, 1]."""
    values = np.array(tious, np.float64)
    if values.ndim != 1 or not len(values) or not ((values > 0) & (values <= 1)).all():
        raise InputError(f"tious are {tious!r}, expected numbers in (0, 1]")
    return values


def check_short(short_s: float | None) -> float | None:
    """The length as a float or None; raises InputError if it is not positive and finite."""
    if short_s is not None and not (math.isfinite(short_s) and short_s > 0):
        raise InputError(f"short_s is {short_s!r}, expected a positive number of seconds or None")
    return None if short_s is None else float(short_s)
