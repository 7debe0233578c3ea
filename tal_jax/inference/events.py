"""Events: the detections that are left after a score threshold, a merge gap and a minimum duration.

Detections rank everything that may be an action. What people count and cut out are events, made of
the detections of a recording in three steps, class by class and in this order:

1. **threshold**: detections with a lower score are left out;
2. **merge gap**: detections that overlap, or lie apart by at most the gap, become one;
3. **minimum duration**: shorter ones are left out.

Merging comes before the minimum duration: an action found in pieces is as long as all of them.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.detections import Entries, Results

# Times are differences of rounded numbers: 1.3 - 1.2 is more than 0.1 by 1e-16.
TOLERANCE_S = 1e-6

# One value for all classes, or a value for each of some classes; a step is left out for the others.
PerClass = float | Mapping[str, float] | None


@dataclasses.dataclass(frozen=True)
class Events:
    """The events of a recording, and what became of its other detections.

    Attributes:
      entries: `{label, score, segment}`, best first.
      below: detections below the threshold.
      merged: detections that became part of another one.
      short: detections, merged where they were, that were shorter than the minimum duration.
    """

    entries: Entries
    below: int
    merged: int
    short: int


def select_events(
    detections: Sequence[Mapping[str, Any]],
    *,
    threshold: PerClass = None,
    merge_gap_s: PerClass = None,
    min_duration_s: PerClass = None,
) -> Events:
    """Makes events of detections: score threshold, merge gap, minimum duration, in this order.

    A merged event lasts from the earliest start to the latest end and has the highest score of its
    parts: it is as certain as the best of them, whatever soft-NMS left to the others. Selecting
    once more with the same values changes nothing. Times are compared to a microsecond.

    >>> found = [
    ...     {"label": "jump", "score": 0.9, "segment": [1.0, 2.0]},
    ...     {"label": "jump", "score": 0.4, "segment": [2.5, 3.0]},
    ...     {"label": "jump", "score": 0.8, "segment": [7.0, 7.1]},
    ... ]
    >>> events = select_events(found, threshold=0.3, merge_gap_s=0.5, min_duration_s={"jump": 0.2})
    >>> events.entries
    [{'label': 'jump', 'score': 0.9, 'segment': [1.0, 3.0]}]
    >>> events.below, events.merged, events.short
    (0, 1, 1)

    Args:
      detections: `{label, score, segment}` of one recording, segments in seconds; a score of None
        passes every threshold.
      threshold: least score; a number, or `{class: number}` for some classes.
      merge_gap_s: largest gap between two detections of a class that become one, in seconds, at
        least 0; the same.
      min_duration_s: least duration of an event in seconds, at least 0; the same.

    Returns:
      `Events`. Without any step these are the detections, best first.

    Raises:
      InputError: if a value is not a finite number, or a gap or a duration is below 0.
    """
    _check(threshold, "threshold", -math.inf)
    _check(merge_gap_s, "merge gap", 0)
    _check(min_duration_s, "minimum duration", 0)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in detections:
        groups.setdefault(one["label"], []).append(one)
    entries: list[dict[str, Any]] = []
    below = merged = short = 0
    for label, group in groups.items():
        kept = _above(group, _of_class(threshold, label))
        whole = _merge(kept, _of_class(merge_gap_s, label))
        long = _longer(whole, _of_class(min_duration_s, label))
        below += len(group) - len(kept)
        merged += len(kept) - len(whole)
        short += len(whole) - len(long)
        entries += long
    entries.sort(key=lambda one: -math.inf if one["score"] is None else -one["score"])
    return Events(entries, below, merged, short)


def select_all(detections: Results, threshold: PerClass) -> Results:
    """The events of recordings above a threshold, see `select_events`."""
    return {
        name: select_events(entries, threshold=threshold).entries
        for name, entries in detections.items()
    }


def for_all(setting: PerClass, classes: Sequence[str], default: float | None) -> PerClass:
    """Completes a setting of some classes, or of none, by a default for the others.

    >>> for_all({"jump": 0.9}, ["jump", "run"], 0.5)
    {'jump': 0.9, 'run': 0.5}
    """
    if default is None or isinstance(setting, int | float):
        return setting
    return default if setting is None else dict.fromkeys(classes, default) | dict(setting)


def _above(group: Sequence[Mapping[str, Any]], threshold: float | None) -> list[dict[str, Any]]:
    return [
        dict(one)
        for one in group
        if threshold is None or one["score"] is None or one["score"] >= threshold
    ]


def _merge(group: Entries, gap_s: float | None) -> Entries:
    if gap_s is None or not group:
        return group
    group = sorted(group, key=lambda one: one["segment"])
    starts_s, ends_s = np.array([one["segment"] for one in group], np.float64).T
    reached_s = np.maximum.accumulate(ends_s)
    apart = starts_s[1:] - reached_s[:-1] > gap_s + TOLERANCE_S
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(group)]
    return [
        _union(group[first:last], float(reached_s[last - 1]))
        for first, last in zip(bounds, bounds[1:], strict=False)
    ]


def _union(parts: Entries, end_s: float) -> dict[str, Any]:
    scores = [one["score"] for one in parts if one["score"] is not None]
    segment = [parts[0]["segment"][0], end_s]
    return parts[0] | {"score": max(scores, default=None), "segment": segment}


def _longer(group: Entries, duration_s: float | None) -> Entries:
    if duration_s is None:
        return group
    return [
        one for one in group if one["segment"][1] - one["segment"][0] >= duration_s - TOLERANCE_S
    ]


def _of_class(setting: PerClass, label: str) -> float | None:
    return setting.get(label) if isinstance(setting, Mapping) else setting


def _check(setting: PerClass, name: str, least: float) -> None:
    values = setting.values() if isinstance(setting, Mapping) else [setting]
    for value in values:
        if value is not None and not (math.isfinite(value) and value >= least):
            expected = "a finite number" if least < 0 else "0 or more seconds"
            raise InputError(f"{name} {value!r}, expected {expected}")
