"""What changed from one training to the next: events gained and lost, warnings of a collapse."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax.data.annotations import merge_stretches
from tal_jax.data.detections import Entries, Results
from tal_jax.evaluation.matching import iou_of

# A class that fills more of the time than this is found everywhere.
MOST_TIME = 0.9


@dataclasses.dataclass(frozen=True)
class ClassChanges:
    """Events of one class before and now, over all recordings.

    Attributes:
      before: number of events before.
      now: number of events now.
      gained: `{recording, segment, score}` of those now that match none before.
      lost: the same of those before that match none now.
      time_share: the share of all time that the events fill now.
    """

    before: int
    now: int
    gained: list[dict[str, Any]]
    lost: list[dict[str, Any]]
    time_share: float


def compare_events(
    before: Results,
    now: Results,
    *,
    classes: Sequence[str],
    durations_s: Mapping[str, float],
    tiou: float = 0.5,
) -> dict[str, ClassChanges]:
    """Matches the events of two trainings, class by class: what was gained, and what was lost.

    An event is the same as before if both overlap with a tIoU of at least `tiou`. Each matches at
    most one other; as many as possible match, and of equally many the ones that overlap most.

    >>> jump = {"label": "jump", "score": 0.9, "segment": [1.0, 3.0]}
    >>> changes = compare_events({"r": [jump]}, {"r": [jump | {"segment": [5.0, 6.0]}]},
    ...     classes=["jump"], durations_s={"r": 10.0})
    >>> changes["jump"].gained, changes["jump"].time_share
    ([{'recording': 'r', 'segment': [5.0, 6.0], 'score': 0.9}], 0.1)

    Args:
      before: events `{label, score, segment}` of each recording, in seconds.
      now: the same; recordings that one of both lacks have no events there.
      classes: of now; events of other classes, which there were before, count as lost.
      durations_s: of the recordings that are compared.
      tiou: least tIoU of a match, above 0.

    Returns:
      The changes of each class: those of `classes`, then others that had events.
    """
    others = {entry["label"] for name in durations_s for entry in before.get(name, ())}
    total_s = sum(durations_s.values())
    changes = {}
    for label in (*classes, *sorted(others - set(classes))):
        gained, lost, num_before, num_now, filled_s = [], [], 0, 0, 0.0
        for name in durations_s:
            old, new = (
                [entry for entry in those.get(name, ()) if entry["label"] == label]
                for those in (before, now)
            )
            of_old, of_new = _matched(old, new, tiou)
            lost += _unmatched(name, old, of_old)
            gained += _unmatched(name, new, of_new)
            num_before, num_now = num_before + len(old), num_now + len(new)
            stretches = merge_stretches([tuple(entry["segment"]) for entry in new])
            filled_s += sum(end_s - start_s for start_s, end_s in stretches)
        share = filled_s / total_s if total_s else 0.0
        changes[label] = ClassChanges(num_before, num_now, gained, lost, share)
    return changes


def collapse_warnings(
    changes: Mapping[str, ClassChanges], *, labelled: Collection[str]
) -> list[str]:
    """Returns a line for each class that vanished, or that fills nearly all of the time.

    Args:
      changes: from `compare_events`.
      labelled: classes with training labels; others may have no events.
    """
    lines = []
    for label, one in changes.items():
        if not one.now and (one.before or label in labelled):
            had = f"{one.before} before" if one.before else "but it has labels"
            lines.append(f"class {label!r} vanished: no events now, {had}")
        if one.time_share > MOST_TIME:
            lines.append(f"class {label!r} fills {one.time_share:.0%} of the time")
    return lines


def format_table(changes: Mapping[str, ClassChanges]) -> str:
    """Events of each class before and now, gained and lost."""
    width = max((len(label) for label in changes), default=0)
    width = max(width, len("events"))
    columns = ("before", "now", "gained", "lost", "% of time")
    rows = [f"{'events':{width}}" + "".join(f"{name:>10}" for name in columns)]
    for label, one in changes.items():
        values = (one.before, one.now, len(one.gained), len(one.lost))
        counts = "".join(f"{value:10}" for value in values)
        rows.append(f"{label:{width}}{counts}{100 * one.time_share:10.1f}")
    return "\n".join(rows)


def _matched(old: Entries, new: Entries, tiou: float) -> tuple[np.ndarray, np.ndarray]:
    """Which events of either side match one of the other."""
    found = np.zeros(len(old), bool), np.zeros(len(new), bool)
    if not old or not new:
        return found
    # JAX requires it, too; imported here, since it takes half a second.
    from scipy.optimize import linear_sum_assignment

    one, other = (
        np.array([entry["segment"] for entry in those], np.float64) for those in (old, new)
    )
    overlap = iou_of(one[:, None], other[None])
    enough = overlap >= tiou
    # A match counts more than all tIoUs together.
    worth = np.where(enough, 1 + overlap / (1 + min(overlap.shape)), 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    chosen = enough[rows, columns]
    found[0][rows[chosen]] = found[1][columns[chosen]] = True
    return found


def _unmatched(name: str, entries: Entries, matched: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"recording": name, "segment": list(entry["segment"]), "score": entry["score"]}
        for entry, found in zip(entries, matched, strict=True)
        if not found
    ]
