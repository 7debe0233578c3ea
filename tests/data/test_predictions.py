"""Score sequences in a file: what is written comes back bit by bit, what is broken is refused."""

import numpy as np
import pytest

from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import (
    Predictions,
    RecordingPredictions,
    read_predictions,
    write_predictions,
)

GRID = Grid(fps=30000 / 1001, stride_frames=16, window_frames=24)


def _sequence(length, cumulative, seed=0):
    rng = np.random.default_rng(seed)
    said = rng.normal(size=(length, 3)), rng.random(length), rng.random(3), cumulative
    return Predictions(*(values.astype(np.float32) for values in said))


def _recording(long=False):
    original = _sequence(7, np.arange(8))
    last = _sequence(9, np.array([0, 1, 2, 4, 6, 7, 8, 9]), seed=1) if long else original
    return RecordingPredictions(GRID, 3.7, original, last)


def test_round_trip(tmp_path):
    written = {"a": _recording(), "b/c": _recording(long=True), "b": _recording()}
    write_predictions(tmp_path / "s.npz", written)
    found = read_predictions(tmp_path / "s.npz")
    assert list(found) == list(written)
    for name, one in written.items():
        assert found[name].grid == one.grid and found[name].duration_s == one.duration_s
        assert (found[name].last is found[name].original) == (one.last is one.original)
        for timeline in ("original", "last"):
            left, right = getattr(found[name], timeline), getattr(one, timeline)
            for part in ("cas", "actionness", "video_scores", "cumulative"):
                value = getattr(left, part)
                assert value.dtype == np.float32
                np.testing.assert_array_equal(value, getattr(right, part))


def test_layout(tmp_path):
    """As the module says; other programs read it, too."""
    write_predictions(tmp_path / "s.npz", {"x/y": _recording(long=True)})
    shapes = {name: array.shape for name, array in files.read_npz(tmp_path / "s.npz").items()}
    assert shapes == {
        "x/y/clock": (4,),
        **{"x/y/scores": (7, 3), "x/y/foreground": (7,), "x/y/video": (3,)},
        **{"x/y/long_scores": (9, 3), "x/y/long_foreground": (9,), "x/y/long_video": (3,)},
        "x/y/cumulative": (8,),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a/video": None}, "no array 'a/video'; expected predictions that tal_jax saved"),
        ({"a/clock": None}, "no array 'a/clock'"),
        ({"a/cumulative": None}, "no array 'a/cumulative'"),
        ({"a/long_video": None}, "no array 'a/long_video'"),
        ({"scores": np.zeros(3)}, "no array '/clock'"),
        ({"a/scores": np.zeros((7, 3))}, "a/scores is float64 [7, 3], not float32 [any, any]"),
        ({"a/scores": np.zeros((0, 3), np.float32)}, "a/scores is float32 [0, 3], not "),
        ({"a/foreground": np.zeros(6, np.float32)}, "a/foreground is float32 [6], not float32 [7]"),
        ({"a/long_scores": np.zeros((9, 2), np.float32)}, "[9, 2], not float32 [any, 3]"),
        ({"a/cumulative": np.zeros(9, np.float32)}, "a/cumulative is float32 [9], not float32 [8]"),
        ({"a/video": np.full(3, np.nan, np.float32)}, "a/video holds NaN or infinity"),
        ({"a/clock": np.zeros(4)}, "grid: fps is 0.0, expected a finite number above 0"),
    ],
)
def test_broken_files_are_refused(tmp_path, change, message):
    path = tmp_path / "s.npz"
    write_predictions(path, {"a": _recording(long=True)})
    arrays = files.read_npz(path) | change
    files.write_npz(path, {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_names_that_are_no_unicode(tmp_path):
    with pytest.raises(ValueError, match=r"s.npz: 'caf\\udce9' is no Unicode, .*; rename it"):
        write_predictions(tmp_path / "s.npz", {"caf\udce9": _recording()})


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.npz"):
        read_predictions(tmp_path / "none.npz")
