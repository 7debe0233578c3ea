"""Where to label next: places in recordings that a person is asked about, most useful first.

An answer is short: a point of a class, a background point, for a detection its segment, confirmed
or corrected, or for a stretch that all of it is labelled. Two kinds of places take turns, each with
its most useful place first:

- `unconfirmed`: a detection without any label in it. Classes with few labels come first, and of a
  class the detections nearest to the threshold, above it and then below.
- `complete`: a stretch without such a detection above the threshold. Either all in it is labelled,
  and one answer makes it a done stretch, or the answer is a point of an action that was missed.

What answers a place of the others is often only a background point, which teaches little, so these
come when there are no more of those, and take turns among themselves:

- `uncertain`: the network is undecided between action and background, or between two classes.
- `disagreement`: the networks of several rounds or members score a place differently.
- `far`: the middle of the longest stretch without any label.

Before there is a network the only kind is `spread`: places that halve what is not labelled again
and again, so that nobody has to search. Each is a short stretch, to be completed like the others,
since a moment alone seldom meets a short action.

No place is in a done stretch, in a labelled segment, or within a feature window of a point.
"""

import bisect
import dataclasses
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import merge_stretches
from tal_jax.data.detections import Results
from tal_jax.data.recordings import Recording, Segment, centres_of, snippets_within
from tal_jax.inference.events import select_all

UNCONFIRMED, UNCERTAIN, DISAGREEMENT = "unconfirmed", "uncertain", "disagreement"
COMPLETE, FAR, SPREAD = "complete", "far", "spread"
# How many detections below the threshold are asked about, of each class.
_BELOW = 100
# The longest stretch that is asked about at once, in lengths of an event.
_EVENTS = 3


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
      time_s: the time asked about; of a detection or a stretch its middle.
      segment_s: start and end of the detection that is to be confirmed, or, without a label, of the
        stretch that may be complete; None for other kinds.
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
    >>> [(place.segment_s, place.reason) for place in suggest([film], ["jump"], count=1)]
    [((4.0, 8.0), 'spread')]

    Args:
      recordings: with their labels: points, of which some have segments, background points and done
        stretches (None: all of it is done; () where nothing is). Features are not read.
      classes: names of the classes.
      scores: for each recording the score sequences of rounds, or of other networks, on the
        original timeline; recordings may be missing.
      detections: `{label, score, segment}` of each recording; recordings may be missing.
      threshold: least score of a detection that is an event; None for all.
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
    scores, asked = dict(scores or {}), askable(detections or {}, threshold)
    found = select_all(asked, threshold)
    _check(recordings, classes, scores)
    usual_s = _usual_spacing(recordings, found)
    length_s = _EVENTS * usual_s
    if spacing_s is None:
        spacing_s = usual_s
    known = {recording.name: labelled_stretches(recording) for recording in recordings}
    unlabelled: Results = {
        one.name: _unlabelled(one, asked.get(one.name, ()), known[one.name]) for one in recordings
    }
    stretches = {} if detections is None else select_all(unlabelled, threshold)
    if not (scores or detections is not None):
        return _take_turns([[_spread(recordings, known, length_s)]], count, spacing_s)
    kinds = [
        _unconfirmed(recordings, classes, unlabelled, threshold),
        _complete(recordings, stretches, found, length_s),
    ]
    others = [
        _by_snippet(UNCERTAIN, _uncertainty, recordings, classes, scores, known),
        _by_snippet(DISAGREEMENT, _disagreement, recordings, classes, scores, known),
        _far(recordings, classes, scores, known),
    ]
    return _take_turns([kinds, others], count, spacing_s)


def askable(detections: Results, threshold: float | None) -> Results:
    """The detections that may be asked about: events, and of each class the best ones below."""
    if threshold is None:
        return detections
    below: dict[str, list[tuple[float, str, int]]] = {}
    for name, entries in detections.items():
        for index, entry in enumerate(entries):
            if entry["score"] < threshold:
                below.setdefault(entry["label"], []).append((-entry["score"], name, index))
    best = {
        (name, index)
        for those in below.values()
        for _, name, index in heapq.nsmallest(_BELOW, those)
    }
    return {
        name: [
            entry
            for index, entry in enumerate(entries)
            if entry["score"] >= threshold or (name, index) in best
        ]
        for name, entries in detections.items()
    }


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


def _take_turns(
    groups: Sequence[Sequence[Iterator[Place]]], count: int, spacing_s: float
) -> list[Place]:
    """The next place of each kind of a group, round after round, then those of the next group.

    Places that are near one before them are left out.
    """
    chosen: list[Place] = []
    of_recording: dict[str, list[Place]] = {}
    rank = 0
    for kinds in groups:
        open_kinds = list(kinds)
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
    """Whether one answer may be one to both: one place is near the other, or within its segment."""
    return abs(one.time_s - other.time_s) < spacing_s or any(
        segment_s is not None and segment_s[0] <= time_s < segment_s[1]
        for segment_s, time_s in ((one.segment_s, other.time_s), (other.segment_s, one.time_s))
    )


def _is_in(time_s: float, merged: Sequence[Segment]) -> bool:
    """Whether a time is in one of some stretches, which are in order and apart."""
    at = bisect.bisect_right(merged, (time_s, math.inf)) - 1  # the last one that has begun
    return at >= 0 and time_s < merged[at][1]


# --- the kinds: their places, most useful first ---


def _unlabelled(
    recording: Recording,
    found: Sequence[Mapping[str, Any]],
    known: tuple[Segment, ...],
) -> list[dict[str, Any]]:
    """The detections of a recording in which there is no label."""
    times_s = sorted([*(point.time_s for point in recording.points), *recording.background_s])
    entries = []
    for entry in found:
        (start_s, end_s), middle_s = _segment(entry)
        label = bisect.bisect_left(times_s, start_s)  # the first one from its start on
        labelled = label < len(times_s) and times_s[label] < end_s
        if not labelled and not _is_in(middle_s, known):
            entries.append(dict(entry))
    return entries


def _unconfirmed(
    recordings: Sequence[Recording],
    classes: Sequence[str],
    open_events: Mapping[str, Sequence[Mapping[str, Any]]],
    threshold: float | None,
) -> Iterator[Place]:
    labels = [classes[point.label] for one in recordings for point in one.points]
    of_class: dict[str, list[tuple[bool, float, int, Place]]] = {label: [] for label in classes}
    for number, recording in enumerate(recordings):
        for entry in open_events[recording.name]:
            segment_s, middle_s = _segment(entry)
            margin = entry["score"] - (threshold or 0.0)
            place = Place(recording.name, middle_s, segment_s, entry["label"], UNCONFIRMED, 0.0)
            values = (margin < 0, abs(margin), number, place)
            of_class.setdefault(entry["label"], []).append(values)
    ranked = []
    for order, (label, places) in enumerate(of_class.items()):
        places.sort(key=lambda one: (*one[:3], one[3].time_s))
        had = labels.count(label)
        ranked += [(had + index, order, place) for index, (*_, place) in enumerate(places)]
    ranked.sort(key=lambda one: one[:2])
    yield from (place for _, _, place in ranked)


def _complete(
    recordings: Sequence[Recording],
    open_events: Mapping[str, Sequence[Mapping[str, Any]]],
    found: Results,
    longest_s: float,
) -> Iterator[Place]:
    """What lies between the detections without a label, in parts, the longest first."""
    ranked = []
    for row, recording in enumerate(recordings):
        if recording.name not in open_events or recording.done_s is None:
            continue
        shortest_s = recording.grid.window_frames / recording.grid.fps
        taken = [_segment(entry)[0] for entry in open_events[recording.name]]
        known = [point.segment_s for point in recording.points if point.segment_s is not None]
        events = merge_stretches(
            [*known, *(_segment(entry)[0] for entry in found.get(recording.name, ()))]
        )
        gaps = stretches_between([*taken, *recording.done_s], recording.duration_s)
        for stretch in gaps:
            for part_s in _parts(stretch, events, longest_s):
                if part_s[1] - part_s[0] >= shortest_s:
                    ranked.append((part_s[0] - part_s[1], row, part_s))
    for _, row, part_s in sorted(ranked):
        yield Place(recordings[row].name, sum(part_s) / 2, part_s, None, COMPLETE, 0.0)


def stretches_between(stretches: Iterable[Segment], whole_s: float) -> list[Segment]:
    """The rest of a recording that is `whole_s` seconds long, in order."""
    merged = merge_stretches(stretches)
    ends_s = [0.0, *(end_s for _, end_s in merged)]
    starts_s = [*(start_s for start_s, _ in merged), whole_s]
    pairs = zip(ends_s, starts_s, strict=True)
    return [(start_s, end_s) for start_s, end_s in pairs if start_s < end_s]


def _parts(stretch: Segment, events: Sequence[Segment], longest_s: float) -> Iterator[Segment]:
    """A stretch in parts of about a length, none of which ends within one of the merged events."""
    start_s, end_s = stretch
    while start_s < end_s:
        cut_s = start_s + longest_s
        at = bisect.bisect_left(events, (cut_s,)) - 1  # the last event that begins before
        if at >= 0 and cut_s < events[at][1]:
            cut_s = events[at][0] if events[at][0] > start_s else events[at][1]
        cut_s = min(cut_s, end_s)
        yield start_s, cut_s
        start_s = cut_s


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
    recordings: Sequence[Recording],
    classes: Sequence[str],
    scores: Mapping[str, Sequence[Scores]],
    known: Mapping[str, tuple[Segment, ...]],
) -> Iterator[Place]:
    """Middles of the longest stretches without a label."""
    for recording, _, middle_s in _halves(recordings, known):
        label = _proposed(recording, classes, scores, middle_s)
        yield Place(recording.name, middle_s, None, label, FAR, 0.0)


def _spread(
    recordings: Sequence[Recording], known: Mapping[str, tuple[Segment, ...]], length_s: float
) -> Iterator[Place]:
    """Short stretches around the middles of the longest ones without a label."""
    for recording, (start_s, end_s), middle_s in _halves(recordings, known):
        segment_s = max(start_s, middle_s - length_s / 2), min(end_s, middle_s + length_s / 2)
        yield Place(recording.name, middle_s, segment_s, None, SPREAD, 0.0)


def _halves(
    recordings: Sequence[Recording], known: Mapping[str, tuple[Segment, ...]]
) -> Iterator[tuple[Recording, Segment, float]]:
    """The longest stretches without a label and their middles, which halve them for the next."""
    heap = []
    for row, recording in enumerate(recordings):
        gaps = stretches_between(known[recording.name], recording.duration_s)
        heap += [(start_s - end_s, row, start_s, end_s) for start_s, end_s in gaps]
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
        yield recording, (start_s, end_s), middle_s
