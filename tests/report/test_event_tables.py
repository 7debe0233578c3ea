"""Tables of events against sums by hand and on a grid of time."""

import statistics

import hypothesis
import hypothesis.strategies as st
import pytest

from tal_jax.report.event_tables import (
    EVENT_COLUMNS,
    event_rows,
    format_summary,
    summarize,
    summary_rows,
)


def _one(label, start_s, end_s, score=None):
    return {"label": label, "score": score, "segment": [start_s, end_s]}


EVENTS = {
    "walk": [
        _one("jump", 30.0, 31.0, 0.9),
        _one("jump", 10.0, 12.5, 0.5),
        _one("jump", 15.0, 15.5, 0.7),
        _one("look", 40.0, 40.0),  # points
        _one("look", 20.0, 20.0),
    ],
    "quiet": [],
}


def test_summary_by_hand():
    jump, look, fall, *quiet = summarize(
        EVENTS, ["jump", "look", "fall"], {"walk": 80.0, "quiet": None}
    )
    assert (jump.recording, jump.label, jump.count, jump.recording_s) == ("walk", "jump", 3, 80.0)
    assert jump.total_s == 4.0 and jump.mean_s == pytest.approx(4 / 3)
    # Deviations from 4/3: 7/6, -5/6, -1/3; squares add up to 13/6, over n - 1 = 2.
    assert jump.sd_s == pytest.approx((13 / 12) ** 0.5)
    assert (jump.share, jump.rate_per_min, jump.latency_s) == (0.05, 2.25, 10.0)
    assert jump.mean_interval_s == (2.5 + 14.5) / 2
    assert (look.count, look.rate_per_min, look.latency_s, look.mean_interval_s) == (2, 1.5, 20, 20)
    assert look.total_s is look.mean_s is look.sd_s is look.share is None
    assert (fall.count, fall.total_s, fall.share, fall.rate_per_min) == (0, 0.0, 0.0, 0.0)
    assert fall.mean_s is fall.sd_s is fall.latency_s is fall.mean_interval_s is None
    assert [(one.count, one.share, one.rate_per_min) for one in quiet] == [(0, None, None)] * 3


def test_rows():
    assert list(event_rows(EVENTS)) == [
        EVENT_COLUMNS,
        ("walk", "jump", "10.000000", "12.500000", "2.500000", "0.5"),
        ("walk", "jump", "15.000000", "15.500000", "0.500000", "0.7"),
        ("walk", "look", "20.000000", "20.000000", "0.000000", ""),
        ("walk", "jump", "30.000000", "31.000000", "1.000000", "0.9"),
        ("walk", "look", "40.000000", "40.000000", "0.000000", ""),
    ]
    header, jump, quiet = summary_rows(summarize(EVENTS, ["jump"], {"walk": 80.0}))
    assert header == [
        *("recording", "class", "count", "total_s", "mean_s", "sd_s", "share", "rate_per_min"),
        *("latency_s", "mean_interval_s", "recording_s"),
    ]
    assert jump[:6] == ["walk", "jump", 3, "4.000000", "1.333333", "1.040833"]
    assert quiet == ["quiet", "jump", 0, "0.000000", *[""] * 7]
    assert format_summary(summarize(EVENTS, ["jump", "look"], {})) == (
        "jump: 3 events in 1 of 2 recordings, 4.00 s in all, mean 1.33 s\n"
        "look: 2 events in 1 of 2 recordings, 0.00 s in all"
    )


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 20)), min_size=2, max_size=12)
)
def test_overlaps_on_a_grid(spans):
    """The share counts each instant once; intervals are the stretches between events."""
    entries = [_one("a", float(start), float(start + length)) for start, length in spans]
    (one,) = summarize({"r": entries}, ["a"], {"r": 200.0})
    covered = {t for start, length in spans for t in range(start, start + length)}
    assert one.share == pytest.approx(len(covered) / 200)
    assert one.total_s == sum(length for _, length in spans)
    assert one.sd_s == pytest.approx(statistics.stdev(float(length) for _, length in spans))
    low, high = min(covered), max(covered)
    free = sum(t not in covered for t in range(low, high))
    assert one.mean_interval_s == pytest.approx(free / (len(spans) - 1))
