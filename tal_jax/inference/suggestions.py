"""Where to label next: places in recordings that a person is asked about, most useful first.

An answer is short: a point of a class, a background point, or for a detection its segment,
confirmed or corrected. Four kinds of places take turns, each with its most useful place first:

- `unconfirmed`: a detection without any label in it. Classes with few labels come first, and of a
  class the detections nearest to the threshold.
- `uncertain`: the network is undecided between action and background, or between two classes.
- `disagreement`: the networks of several rounds or members score a place differently.
- `far`: the middle of the longest stretch without any label. Before there is a network this is the
  only kind, `spread`: it halves what is not labelled again and again, so that nobody has to search.

No place is in a done stretch, in a labelled segment, or within a feature window of a point.
"""

import dataclasses
import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import merge_stretches
from tal_jax.data.detections import Results
from tal_jax.data.recordings import Recording, Segment, centres_of, snippets_within
from tal_jax.inference.events import select_all

UNCONFIRMED, UNCERTAIN, DISAGREEMENT = "unconfirmed", "uncertain", "disagreement"
FAR, SPREAD = "far", "spread"


class Scores(Protocol):
    """Score sequences of a recording, such as `data.predictions.Predictions`."""

    @property
    def cas(self) -> Any:
        """`[T, C]` class activation sequence (CAS)."""
        ...

    @property
    def actionness(self) -> Any:
        """`[T]` class-agnostic confidence that there is an action."""
        ...


@dataclasses.dataclass(frozen=True)
class Place:
    """A place to ask a person about.

    Attributes:
      recording: its name.
      time_s: the time asked about; of a detection its middle.
      segment_s: start and end of the detection that is to be confirmed; None for other kinds.
      label: the proposed class; None where no action is.
      reason: the kind, one of the words that the module lists.
      priority: 1 for the most useful place of its kind, 1/2 for the second, and so on.
    """

    recording: str
    time_s: float
    segment_s: Segment | None
    label: str | None
    reason: str
    priority: float


def suggest(
    recordings: Sequence[Recording],
    classes: Sequence[str],
    *,
    scores: Mapping[str, Sequence[Scores]] | None = None,
    detections: Results | None = None,
    threshold: float | None = None,
    count: int = 50,
    spacing_s: float | None = None,
) -> list[Place]:
    """Ranks places to label next, from a run's predictions and the labels that there are.

    >>> import numpy as np
    >>> from tal_jax import Grid
    >>> grid = Grid(fps=10, stride_frames=5, window_frames=10)
    >>> film = Recording("film", np.zeros((16, 2), np.float32), grid, 8.0, done_s=((0.0, 4.0),))
    >>> [(place.time_s, place.reason) for place in suggest([film], ["jump"], count=1)]
    [(6.0, 'spread')]

    Args:
      recordings: with their labels: points, of which some have segments, background points and done
        stretches (None: all of it is done; () where nothing is). Features are not read.
      classes: names of the classes.
      scores: for each recording the score sequences of rounds, or of other networks, on the
        original timeline; recordings may be missing.
      detections: `{label, score, segment}` of each recording; recordings may be missing.
      threshold: least score of a detection to be asked about; None for all.
      count: the most places to return.
      spacing_s: least time between two places of a recording; None for the median length of the
        detections above the threshold, but at least two feature windows.

    Returns:
      At most `count` places by falling priority; those of one priority in the order of the kinds
      above. The same arguments always give the same places.

    Raises:
      InputError: if scores are of other snippets or classes than their recording, or `count` or
        `spacing_s` is negative.
    """
    if count < 0 or (spacing_s is not None and not spacing_s >= 0):
        raise InputError(f"count={count}, spacing_s={spacing_s}; expected at least 0")
    scores, found = dict(scores or {}), select_all(detections or {}, threshold)
    _check(recordings, classes, scores)
    if spacing_s is None:
        spacing_s = _usual_spacing(recordings, found)
    known = {recording.name: labelled_stretches(recording) for recording in recordings}
    predicted = scores or detections is not None
    kinds = [
        _unconfirmed(recordings, classes, found, known, threshold),
        _by_snippet(UNCERTAIN, _uncertainty, recordings, classes, scores, known),
        _by_snippet(DISAGREEMENT, _disagreement, recordings, classes, scores, known),
        _far(FAR if predicted else SPREAD, recordings, classes, scores, known),
    ]
    return _take_turns(kinds, count, spacing_s)


def labelled_stretches(recording: Recording) -> tuple[Segment, ...]:
    """The time in which nothing is asked: done stretches, segments, and a window around points."""
    whole_s, grid = recording.duration_s, recording.grid
    if recording.done_s is None:
        return ((0.0, whole_s),)
    reach_s = grid.window_frames / grid.fps
    stretches = list(recording.done_s)
    times_s = [*recording.background_s]
    for point in recording.points:
        times_s.append(point.time_s)
        stretches += [] if point.segment_s is None else [point.segment_s]
    stretches += [
        (max(time_s - reach_s, 0.0), min(time_s + reach_s, whole_s)) for time_s in times_s
    ]
    return merge_stretches(stretches)


def _check(
    recordings: Sequence[Recording],
    classes: Sequence[str],
    scores: Mapping[str, Sequence[Scores]],
) -> None:
    for recording in recordings:
        shape = len(recording.features), len(classes)
        for one in scores.get(recording.name, ()):
            if np.shape(one.cas) != shape:
                raise InputError(
                    f"{recording.name}: scores of shape {list(np.shape(one.cas))}, expected "
                    f"{list(shape)}: its snippets and the classes"
                )


def _usual_spacing(recordings: Sequence[Recording], found: Results) -> float:
    windows_s = [2 * one.grid.window_frames / one.grid.fps for one in recordings]
    lengths_s = [
        entry["segment"][1] - entry["segment"][0] for entries in found.values() for entry in entries
    ]
    return max(max(windows_s, default=0.0), float(np.median(lengths_s)) if lengths_s else 0.0)


def _take_turns(kinds: Sequence[Iterator[Place]], count: int, spacing_s: float) -> list[Place]:
    """The next place of each kind, round after round, without those that are near another one."""
    chosen: list[Place] = []
    of_recording: dict[str, list[Place]] = {}
    rank, open_kinds = 0, list(kinds)
    while open_kinds and len(chosen) < count:
        rank += 1
        for kind in tuple(open_kinds):
            for place in kind:
                others = of_recording.setdefault(place.recording, [])
                if any(_near(place, other, spacing_s) for other in others):
                    continue
                chosen.append(dataclasses.replace(place, priority=1 / rank))
                others.append(chosen[-1])
                break
            else:
                open_kinds.remove(kind)
    return chosen[:count]


def _near(one: Place, other: Place, spacing_s: float) -> bool:
    start_s, end_s = other.segment_s or (math.inf, -math.inf)
    return abs(one.time_s - other.time_s) < spacing_s or start_s <= one.time_s < end_s


def _is_in(time_s: float, stretches: Sequence[Segment]) -> bool:
    return any(start_s <= time_s < end_s for start_s, end_s in stretches)


# --- the kinds: their places, most useful first ---


def _unconfirmed(
    recordings: Sequence[Recording],
    classes: Sequence[str],
    found: Results,
    known: Mapping[str, tuple[Segment, ...]],
    threshold: float | None,
) -> Iterator[Place]:
    labels = [classes[point.label] for one in recordings for point in one.points]
    of_class: dict[str, list[tuple[float, int, Place]]] = {label: [] for label in classes}
    for number, recording in enumerate(recordings):
        times_s = [point.time_s for point in recording.points] + list(recording.background_s)
        for entry in found.get(recording.name, ()):
            segment_s, middle_s = _segment(entry)
            labelled = _is_in(middle_s, known[recording.name])
            if labelled or any(_is_in(time_s, [segment_s]) for time_s in times_s):
                continue
            margin = abs(entry["score"] - (threshold or 0.0))
            place = Place(recording.name, middle_s, segment_s, entry["label"], UNCONFIRMED, 0.0)
            of_class.setdefault(entry["label"], []).append((margin, number, place))
    ranked = []
    for order, (label, places) in enumerate(of_class.items()):
        places.sort(key=lambda one: (one[0], one[1], one[2].time_s))
        had = labels.count(label)
        ranked += [(had + index, order, place) for index, (_, _, place) in enumerate(places)]
    ranked.sort(key=lambda one: one[:2])
    yield from (place for _, _, place in ranked)


def _segment(entry: Mapping[str, Any]) -> tuple[Segment, float]:
    start_s, end_s = map(float, entry["segment"])
    return (start_s, end_s), (start_s + end_s) / 2


def _by_snippet(
    reason: str,
    usefulness: Callable[[Sequence[Scores]], np.ndarray],
    recordings: Sequence[Recording],
    classes: Sequence[str],
    scores: Mapping[str, Sequence[Scores]],
    known: Mapping[str, tuple[Segment, ...]],
) -> Iterator[Place]:
    """Snippets by a measure `[T]` of their scores; those where it is 0 are left out."""
    values, rows, snippets = [], [], []
    for row, recording in enumerate(recordings):
        rounds = scores.get(recording.name, ())
        if not rounds:
            continue
        useful = usefulness(rounds) * ~snippets_within(recording, known[recording.name])
        chosen = np.flatnonzero(useful > 0)
        values.append(useful[chosen])
        rows.append(np.full(len(chosen), row))
        snippets.append(chosen)
    if not values:
        return
    value, row, snippet = (np.concatenate(parts) for parts in (values, rows, snippets))
    centres_s = {recording.name: centres_of(recording) for recording in recordings}
    for index in np.lexsort((snippet, row, -value)):
        recording = recordings[int(row[index])]
        time_s = float(centres_s[recording.name][snippet[index]])
        label = _proposed(recording, classes, scores, time_s)
        yield Place(recording.name, time_s, None, label, reason, 0.0)


def _uncertainty(rounds: Sequence[Scores]) -> np.ndarray:
    """`[T]` in [0, 1]: 1 where action and background, or two classes, are equally likely."""
    cas, actionness = _mean(rounds)
    undecided = 4 * actionness * (1 - actionness)
    if cas.shape[1] < 2:
        return undecided
    second, best = np.sort(cas, axis=1)[:, -2:].T
    ratio = np.where(best > 0, np.maximum(second, 0) / np.maximum(best, 1e-9), 0.0)
    return np.maximum(undecided, actionness * ratio)


def _disagreement(rounds: Sequence[Scores]) -> np.ndarray:
    """`[T]`: the largest standard deviation over rounds, of the classes and of the actionness."""
    cas = np.stack([np.asarray(one.cas, np.float64) for one in rounds])
    actionness = np.stack([np.asarray(one.actionness, np.float64) for one in rounds])
    return np.maximum(cas.std(axis=0).max(axis=1, initial=0.0), actionness.std(axis=0))


def _mean(rounds: Sequence[Scores]) -> tuple[np.ndarray, np.ndarray]:
    cas = np.mean([np.asarray(one.cas, np.float64) for one in rounds], axis=0)
    actionness = np.mean([np.asarray(one.actionness, np.float64) for one in rounds], axis=0)
    return cas, np.clip(actionness, 0.0, 1.0)


def _proposed(
    recording: Recording,
    classes: Sequence[str],
    scores: Mapping[str, Sequence[Scores]],
    time_s: float,
) -> str | None:
    """The class at a time, if there is more likely an action than none."""
    rounds = scores.get(recording.name, ())
    if not rounds:
        return None
    snippet = min(int(recording.grid.to_snippets(time_s)), len(recording.features) - 1)
    actionness = np.mean([one.actionness[snippet] for one in rounds])
    if actionness < 0.5:
        return None
    return classes[int(np.mean([one.cas[snippet] for one in rounds], axis=0).argmax())]


def _far(
    reason: str,
    recordings: Sequence[Recording],
    classes: Sequence[str],
    scores: Mapping[str, Sequence[Scores]],
    known: Mapping[str, tuple[Segment, ...]],
) -> Iterator[Place]:
    """Middles of the longest stretches without a label, which a place halves."""
    heap = []
    for row, recording in enumerate(recordings):
        ends_s = [0.0, *(end_s for _, end_s in known[recording.name])]
        starts_s = [*(start_s for start_s, _ in known[recording.name]), recording.duration_s]
        heap += [
            (start_s - end_s, row, start_s, end_s)
            for start_s, end_s in zip(ends_s, starts_s, strict=True)
            if start_s < end_s
        ]
    heapq.heapify(heap)
    while heap:
        _, row, start_s, end_s = heapq.heappop(heap)
        recording, middle_s = recordings[row], (start_s + end_s) / 2
        if not start_s < middle_s < end_s:  # nothing is left to halve
            continue
        # Shorter ones than a snippet are one place.
        if middle_s - start_s > recording.grid.stride_s:
            heapq.heappush(heap, (start_s - middle_s, row, start_s, middle_s))
            heapq.heappush(heap, (middle_s - end_s, row, middle_s, end_s))
        label = _proposed(recording, classes, scores, middle_s)
        yield Place(recording.name, middle_s, None, label, reason, 0.0)
