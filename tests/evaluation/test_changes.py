"""Events gained and lost between two trainings, against a search over all matchings."""

import itertools

import numpy as np
import pytest

from tal_jax.evaluation.changes import collapse_warnings, compare_events, format_table


def _tiou(one, other):
    shared = max(min(one[1], other[1]) - max(one[0], other[0]), 0.0)
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)


def _most_matches(old, new, tiou):
    """The largest number of pairs, by trying every order of the longer side."""
    short, long = sorted((old, new), key=len)
    return max(
        (
            sum(_tiou(one, other) >= tiou for one, other in zip(short, order, strict=False))
            for order in itertools.permutations(long, len(short))
        ),
        default=0,
    )


def _events(rng, count, label):
    # Close together, so that an event has several partners.
    starts = rng.integers(0, 6, count)
    ends = starts + rng.integers(1, 7, count)
    return [
        {"label": label, "score": float(rng.random()), "segment": [float(start), float(end)]}
        for start, end in zip(starts, ends, strict=True)
    ]


@pytest.mark.parametrize("seed", range(30))
def test_as_many_events_match_as_can(seed):
    rng = np.random.default_rng(seed)
    names, classes, tiou = ("r", "s"), ("jump", "run"), float(rng.choice([0.3, 0.5, 0.7]))
    before, now = (
        {
            name: [
                event for label in classes for event in _events(rng, int(rng.integers(5)), label)
            ]
            for name in names
        }
        for _ in range(2)
    )
    durations_s = dict.fromkeys(names, 12.0)
    changes = compare_events(before, now, classes=classes, durations_s=durations_s, tiou=tiou)
    assert list(changes) == list(classes)
    for label, one in changes.items():
        matches, filled = 0, np.zeros(24, bool)
        counts = [0, 0]
        for index, name in enumerate(names):
            old, new = (
                [event["segment"] for event in those[name] if event["label"] == label]
                for those in (before, now)
            )
            matches += _most_matches(old, new, tiou)
            counts = [counts[0] + len(old), counts[1] + len(new)]
            for start, end in new:  # whole seconds
                filled[12 * index + int(start) : 12 * index + int(end)] = True
        assert [one.before, one.now] == counts
        assert len(one.lost) == one.before - matches
        assert len(one.gained) == one.now - matches
        assert one.time_share == pytest.approx(filled.mean())
        for event in one.gained:
            same = {"label": label, "score": event["score"], "segment": event["segment"]}
            assert same in now[event["recording"]]


def test_the_best_overlap_decides_which_one_is_new():
    event = {"label": "jump", "score": 1.0, "segment": [0.0, 4.0]}
    worse, same = event | {"segment": [0.0, 3.0]}, dict(event)
    changes = compare_events(
        {"r": [event]}, {"r": [worse, same]}, classes=["jump"], durations_s={"r": 8.0}
    )
    assert [one["segment"] for one in changes["jump"].gained] == [[0.0, 3.0]]


def test_a_collapse_is_reported():
    def event(label, start, end):
        return {"label": label, "score": 1.0, "segment": [start, end]}

    before = {"r": [event("jump", 0, 1), event("run", 2, 3), event("gone", 4, 5)]}
    now = {"r": [event("run", 0, 5), event("run", 4, 9.5)], "elsewhere": [event("jump", 0, 1)]}
    changes = compare_events(
        before, now, classes=["jump", "run", "hop", "rest"], durations_s={"r": 10.0}
    )
    assert list(changes) == ["jump", "run", "hop", "rest", "gone"]
    lines = collapse_warnings(changes, labelled={"jump", "run", "hop"})
    assert len(lines) == 4
    assert lines[0] == "class 'jump' vanished: no events now, 1 before"
    assert lines[1] == "class 'run' fills 95% of the time"
    assert "'hop' vanished" in lines[2] and "it has labels" in lines[2]
    assert "'gone' vanished" in lines[3]
    assert format_table(changes).splitlines()[2].split() == ["run", "1", "2", "2", "1", "95.0"]


def test_a_class_that_fills_nine_tenths_is_no_collapse():
    event = {"label": "run", "score": 1.0, "segment": [0.0, 9.0]}
    found = {"r": [event]}
    changes = compare_events(found, found, classes=["run"], durations_s={"r": 10.0})
    assert collapse_warnings(changes, labelled={"run"}) == []
    assert changes["run"].gained == changes["run"].lost == []
