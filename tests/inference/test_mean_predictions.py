"""The mean over rounds against NumPy, and what is refused."""

import numpy as np
import pytest

from tal_jax.data.clock import Grid
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.inference.predict import mean_predictions

GRID = Grid(fps=1, stride_frames=1, window_frames=1)


def _sequence(rng, size, length=None):
    cumulative = np.linspace(0, size, (length or size) + 1, dtype=np.float32)
    draw = [rng.uniform(size=shape).astype(np.float32) for shape in ((size, 3), (size,), (3,))]
    return Predictions(*draw, cumulative)


def _scores(rng, sizes):
    """The last predictions are on a lengthened timeline, and do not count."""
    return {
        name: RecordingPredictions(
            GRID, float(size), _sequence(rng, size), _sequence(rng, size + 3, size)
        )
        for name, size in sizes.items()
    }


def test_the_mean_is_on_the_original_timeline():
    rng = np.random.default_rng(0)
    rounds = [_scores(rng, {"a": 5, "b": 9}) for _ in range(3)]
    found = mean_predictions(iter(rounds))
    assert list(found) == ["a", "b"]
    for name, one in found.items():
        assert one.last is one.original and one.duration_s == rounds[0][name].duration_s
        np.testing.assert_array_equal(one.original.cumulative, np.arange(int(one.duration_s) + 1))
        for part in ("cas", "actionness", "video_scores"):
            parts = [getattr(scores[name].original, part) for scores in rounds]
            want = np.mean(np.array(parts, np.float64), axis=0)
            got = getattr(one.original, part)
            np.testing.assert_allclose(got, want, rtol=1e-6)
            assert got.dtype == np.float32


def test_one_round_is_its_own_mean():
    scores = _scores(np.random.default_rng(1), {"a": 4})
    found = mean_predictions([scores])["a"].original
    np.testing.assert_array_equal(found.cas, scores["a"].original.cas)


def test_rounds_that_differ_are_refused():
    rng = np.random.default_rng(2)
    first = _scores(rng, {"a": 4, "b": 6})
    with pytest.raises(ValueError, match="predictions for 'b' in some rounds, expected"):
        mean_predictions([first, _scores(rng, {"a": 4})])
    with pytest.raises(ValueError, match=r"predictions for 'b' have shapes \(6, 3\) and \(7, 3\)"):
        mean_predictions([first, _scores(rng, {"a": 4, "b": 7})])
