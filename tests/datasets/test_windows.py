"""Tests of training windows: every snippet once, labels and points of the window alone."""

import numpy as np
import pytest

from tal_jax.data.annotations import Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Point, Recording, check_recording
from tal_jax.datasets.windows import cut_recording

GRID = Grid(fps=50, stride_frames=25, window_frames=75)
CLASSES = ("walk", "sit", "fall")


def _recording(duration_s=60.0, points=(), name="r"):
    length = GRID.num_snippets(duration_s)
    features = np.arange(length, dtype=np.float32)[:, None]
    return Recording(name, features, GRID, duration_s, tuple(Point(*point) for point in points))


def _annotation(*instances, duration_s=60.0):
    return RecordingAnnotation("train", duration_s, tuple(Instance(*one) for one in instances))


def test_windows_follow_each_other():
    whole = _recording(301.3)
    windows = cut_recording(whole, _annotation(duration_s=301.3), CLASSES, cut_s=(20, 40), seed=1)
    joined = np.concatenate([window.features for window in windows])
    np.testing.assert_array_equal(joined, whole.features)
    durations = [window.duration_s for window in windows]
    assert sum(durations) == pytest.approx(301.3)
    assert all(20 <= duration <= 40 for duration in durations[:-1]) and 20 <= durations[-1] < 60
    assert len(set(durations)) > 5 and len({window.name for window in windows}) == len(windows)
    for window in windows:
        check_recording(window, num_classes=3)
        start_s = float(window.name.removeprefix("r@").removesuffix("s"))
        assert window.features[0, 0] == GRID.to_snippets(start_s)
    again = cut_recording(whole, _annotation(duration_s=301.3), CLASSES, cut_s=(20, 40), seed=1)
    assert [window.name for window in again] == [window.name for window in windows]
    other = cut_recording(whole, _annotation(duration_s=301.3), CLASSES, cut_s=(20, 40), seed=2)
    assert [window.name for window in other] != [window.name for window in windows]


def test_labels_and_points_of_each_window():
    instances = [
        ("walk", 0.0, 9.2),  # 0.8 s short of the first cut: not in the second window
        ("sit", 9.2, 12.0),  # 0.8 s in the first window, 2 s in the second
        ("fall", 29.6, 30.4),  # in none long enough, and in none as a whole
        ("fall", 44.0, 44.5),  # short, but as a whole
    ]
    whole = _recording(points=[(9.9, 1), (30.2, 2), (44.25, 2)])
    windows = cut_recording(whole, _annotation(*instances), CLASSES, cut_s=(10, 10), seed=0)
    assert [window.labels for window in windows] == [(0, 1), (1,), (), (2,), (2,), ()]
    points = [[(point.time_s, point.label) for point in window.points] for window in windows]
    want = [[(9.9, 1)], [], [], [(0.2, 2)], [(4.25, 2)], []]
    assert [len(row) for row in points] == [len(row) for row in want]
    np.testing.assert_allclose(sum(points, []), sum(want, []))


def test_a_short_recording_stays_whole():
    windows = cut_recording(_recording(12.0), _annotation(), CLASSES, cut_s=(30, 90), seed=0)
    assert [(len(window.features), window.duration_s) for window in windows] == [(24, 12.0)]


@pytest.mark.parametrize("cut_s", [(0, 10), (10, 5), (-1, 4)])
def test_bad_lengths(cut_s):
    with pytest.raises(ValueError, match="expected .shortest, longest. in seconds"):
        cut_recording(_recording(), _annotation(), CLASSES, cut_s=cut_s, seed=0)
