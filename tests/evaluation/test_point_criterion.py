"""The point criterion against values by hand and a plain loop."""

import numpy as np
import pytest

from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Point, Recording
from tal_jax.evaluation.point_criterion import point_criterion, point_scores

GRID, CLASSES = Grid(fps=1, stride_frames=1, window_frames=1), ("jump", "run")


def _recording(name, points, background_s=()):
    points = tuple(Point(time_s, label) for time_s, label in points)
    features = np.zeros((20, 1), np.float32)
    return Recording(name, features, GRID, 20.0, points, background_s=background_s)


def _entry(label, score, start_s, end_s):
    return {"label": label, "score": score, "segment": [start_s, end_s]}


def test_by_hand():
    recordings = [
        _recording("a", [(2.0, 0), (6.0, 0), (12.0, 1)], background_s=(9.0,)),
        _recording("empty", []),
        _recording("b", [(5.0, 1)]),
    ]
    results = {
        "a": [
            _entry("jump", 0.9, 1.0, 7.0),  # holds two points
            _entry("jump", 0.8, 2.0, 4.0),  # its start is the point: inside
            _entry("jump", 0.7, 1.0, 4.0),
            _entry("run", 0.6, 5.0, 7.0),  # another class
            _entry("jump", 0.5, 3.0, 6.0),  # its end is the point: outside
            _entry("run", 0.4, 8.0, 13.0),  # holds the background point
            _entry("run", 0.3, 9.5, 13.0),
            _entry("run", 0.2, 7.0, 9.0),  # holds no point
        ],
        "empty": [_entry("run", 1.0, 0.0, 20.0)],
        "b": [],
    }
    assert point_scores(results, recordings, CLASSES).tolist() == [0.8, 0.0, 0.3, 0.0]
    assert point_criterion(results, recordings, CLASSES) == pytest.approx(1.1 / 4)


def test_nothing_to_explain():
    assert point_scores({}, [], CLASSES).shape == (0,)
    assert point_criterion({}, [], CLASSES) == 0.0
    only = [_recording("a", [])]
    assert point_criterion({"a": [_entry("run", 1.0, 0.0, 1.0)]}, only, CLASSES) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_as_a_loop(seed):
    rng = np.random.default_rng(seed)
    times_s = rng.integers(0, 20, (2, 8)).astype(float)
    recording = _recording(
        "a", [(t, int(rng.integers(2))) for t in sorted(times_s[0])], tuple(sorted(times_s[1][:3]))
    )
    entries = []
    for score in rng.random(30):
        start_s, end_s = sorted(rng.integers(0, 21, 2).astype(float))
        entries.append(_entry(CLASSES[rng.integers(2)], float(score), start_s, end_s))
    want = []
    for point in recording.points:
        best = 0.0
        for entry in entries:
            start_s, end_s = entry["segment"]
            held = [one.time_s for one in recording.points] + list(recording.background_s)
            held = [time_s for time_s in held if start_s <= time_s < end_s]
            inside = start_s <= point.time_s < end_s and len(held) == 1
            if inside and entry["label"] == CLASSES[point.label]:
                best = max(best, entry["score"])
        want.append(best)
    assert point_scores({"a": entries}, [recording], CLASSES).tolist() == want
