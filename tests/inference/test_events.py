"""Steps from detections to events, against pairwise merging until nothing changes."""

import hypothesis
import hypothesis.strategies as st
import pytest

import tal_jax as tal
from tal_jax.inference.events import select_events


def _one(label, start_s, end_s, score):
    return {"label": label, "score": score, "segment": [start_s, end_s]}


def _brute_force(detections, threshold, gap, shortest):
    """In integers, one pair at a time: events, and the three counts."""
    kept = [d for d in detections if d["score"] >= threshold[d["label"]]]
    merged, changed = [dict(d) for d in kept], True
    while changed:
        changed = False
        for a in merged:
            for b in merged:
                if a is b or a["label"] != b["label"] or changed:
                    continue
                (s, e), (t, f) = a["segment"], b["segment"]
                if max(s, t) - min(e, f) <= gap[a["label"]]:
                    a["segment"] = [min(s, t), max(e, f)]
                    a["score"] = max(a["score"], b["score"])
                    merged = [one for one in merged if one is not b]
                    changed = True
    long = [d for d in merged if d["segment"][1] - d["segment"][0] >= shortest[d["label"]]]
    counts = len(detections) - len(kept), len(kept) - len(merged), len(merged) - len(long)
    return long, counts


_DETECTIONS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(1, 9), st.integers(0, 9)).map(
        lambda d: _one(d[0], d[1], d[1] + d[2], d[3])
    ),
    max_size=14,
)
_SETTINGS = st.fixed_dictionaries({label: st.integers(0, 6) for label in "ab"})


def _sorted(entries):
    return sorted((d["label"], *d["segment"], d["score"]) for d in entries)


@hypothesis.given(_DETECTIONS, _SETTINGS, _SETTINGS, _SETTINGS)
def test_against_brute_force(detections, threshold, gap, shortest):
    expected, counts = _brute_force(detections, threshold, gap, shortest)
    # Tenths of a second: differences of such floats are not exact.
    in_s = [d | {"segment": [t / 10 for t in d["segment"]]} for d in detections]
    options = {
        "threshold": threshold,
        "merge_gap_s": {label: value / 10 for label, value in gap.items()},
        "min_duration_s": {label: value / 10 for label, value in shortest.items()},
    }
    found = select_events(in_s, **options)
    in_tenths = [d | {"segment": [round(t * 10, 6) for t in d["segment"]]} for d in found.entries]
    assert _sorted(in_tenths) == _sorted(expected)
    assert (found.below, found.merged, found.short) == counts
    scores = [d["score"] for d in found.entries]
    assert scores == sorted(scores, reverse=True)
    again = select_events(found.entries, **options)
    assert _sorted(again.entries) == _sorted(found.entries)
    assert (again.below, again.merged, again.short) == (0, 0, 0)


@hypothesis.given(_DETECTIONS)
def test_without_steps_nothing_changes(detections):
    found = select_events(detections)
    assert _sorted(found.entries) == _sorted(detections)
    assert (found.below, found.merged, found.short) == (0, 0, 0)


def test_by_hand():
    detections = [
        _one("jump", 10.0, 12.0, 0.9),
        _one("jump", 0.0, 5.0, 0.5),
        _one("jump", 1.0, 2.0, 0.7),  # within the one before: its end does not count
        _one("jump", 5.5, 6.0, 0.3),  # 0.5 s after the end of the first, not of the second
        _one("run", 5.0, 5.5, 0.8),
        _one("run", 20.0, 21.0, 0.1),
    ]
    before = [dict(one) for one in detections]
    found = tal.select_events(
        detections, threshold={"run": 0.2}, merge_gap_s=0.5, min_duration_s={"jump": 2.0, "run": 1}
    )
    assert found.entries == [_one("jump", 10.0, 12.0, 0.9), _one("jump", 0.0, 6.0, 0.7)]
    assert (found.below, found.merged, found.short) == (1, 2, 1)
    assert detections == before  # the input is not changed
    # Pieces count as one action: merging comes before the minimum duration.
    pieces = [_one("jump", 0.0, 0.6, 0.4), _one("jump", 0.7, 1.3, 0.6)]
    found = select_events(pieces, merge_gap_s=0.1, min_duration_s=1.0)
    assert found.entries == [_one("jump", 0.0, 1.3, 0.6)]
    assert select_events(pieces, min_duration_s=1.0).entries == []
    # Labels have no scores.
    labels = [_one("jump", 0.0, 1.0, None), _one("jump", 1.0, 2.0, None)]
    found = select_events(labels, threshold=0.5, merge_gap_s=0)
    assert found.entries == [_one("jump", 0.0, 2.0, None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": float("nan")}, "threshold nan, expected a finite number"),
        ({"merge_gap_s": -1}, "merge gap -1, expected 0 or more seconds"),
        ({"min_duration_s": {"a": float("inf")}}, "minimum duration inf, expected 0 or more"),
    ],
)
def test_refused(options, message):
    with pytest.raises(tal.InputError, match=message):
        select_events([], **options)
