"""The clock: values by hand, round trips, order, and bad grids."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_jax._errors import InputError
from tal_jax.data.clock import Grid

I3D = Grid(fps=25, stride_frames=16, window_frames=16)

positive = st.floats(min_value=1e-2, max_value=1e4)
grids = st.builds(Grid, fps=positive, stride_frames=positive, window_frames=positive)
times = st.floats(min_value=0, max_value=1e6)


def test_values_by_hand():
    assert I3D.stride_s == 0.64
    assert I3D.to_seconds(10) == 6.4
    assert I3D.to_snippets(6.4) == 10
    # Half a second at 50 Hz.
    grid = Grid(fps=50, stride_frames=25, window_frames=75)
    np.testing.assert_array_equal(grid.to_seconds(np.array([0.0, 1.0, 2.5])), [0.0, 0.5, 1.25])
    np.testing.assert_array_equal(grid.to_snippets(np.array([0.0, 0.5, 1.25])), [0.0, 1.0, 2.5])


@pytest.mark.parametrize(
    "duration_s, count",
    [(0, 0), (1e-9, 1), (0.01, 1), (0.64, 1), (0.65, 2), (1.28, 2), (12_800.0, 20_000)],
)
def test_num_snippets_by_hand(duration_s, count):
    assert I3D.num_snippets(duration_s) == count


def test_arrays_keep_their_type():
    times = np.arange(3, dtype=np.float32)
    assert I3D.to_seconds(times).dtype == np.float32
    assert I3D.to_snippets(times).dtype == np.float32


@given(grids, times)
def test_round_trip_of_times(grid, time):
    assert grid.to_snippets(grid.to_seconds(time)) == pytest.approx(time, rel=1e-12)
    assert grid.to_seconds(grid.to_snippets(time)) == pytest.approx(time, rel=1e-12)


@given(grids, times, times)
def test_order_is_kept(grid, first, second):
    first, second = sorted([first, second])
    assert grid.to_seconds(first) <= grid.to_seconds(second)
    assert grid.to_snippets(first) <= grid.to_snippets(second)
    assert grid.num_snippets(first) <= grid.num_snippets(second)


@given(grids, st.integers(min_value=0, max_value=1_000_000))
def test_round_trip_of_counts(grid, count):
    assert grid.num_snippets(grid.to_seconds(count)) == count
    assert grid.num_snippets(grid.to_seconds(count + 0.5)) == count + 1


@given(grids, st.floats(min_value=1e-3, max_value=1e5))
def test_count_is_the_least_that_covers(grid, duration_s):
    count = grid.num_snippets(duration_s)
    exact = Fraction(duration_s) * Fraction(grid.fps) / Fraction(grid.stride_frames)
    rounding = Fraction(2, 1_000_000)
    assert count >= 1
    assert count >= exact - rounding
    assert count == 1 or count - 1 < exact + rounding


@pytest.mark.parametrize(
    "stride, window, first",
    [(16, 16, [0, 16, 32]), (16, 32, [-8, 8, 24]), (2.5, 4, [-1, 2, 4]), (8, 1, [4, 12, 20])],
)
def test_windows_are_centred_on_their_snippets(stride, window, first):
    grid = Grid(fps=10, stride_frames=stride, window_frames=window)
    assert grid.first_frames(3).tolist() == first
    centres = grid.frames_to_seconds(grid.first_frames(50) + window / 2)
    np.testing.assert_allclose(centres, grid.to_seconds(np.arange(50) + 0.5), atol=0.0501)
    assert grid.first_frames(0).tolist() == []


@given(grids)
def test_round_trip_of_dictionaries(grid):
    assert Grid.from_dict(grid.to_dict()) == grid


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "25", None, True])
@pytest.mark.parametrize("name", ["fps", "stride_frames", "window_frames"])
def test_bad_values(name, value):
    values = {"fps": 25, "stride_frames": 16, "window_frames": 16, name: value}
    with pytest.raises(ValueError, match=f"grid: {name} is .* expected a finite number above 0"):
        Grid.from_dict(values)


def test_bad_dictionaries():
    with pytest.raises(ValueError, match="missing key 'stride_frames'"):
        Grid.from_dict({"fps": 25, "window_frames": 16})
    with pytest.raises(ValueError, match="unknown key 'stride'"):
        Grid.from_dict({**I3D.to_dict(), "stride": 16})
    with pytest.raises(ValueError, match=r"got \[25, 16, 16\], expected an object"):
        Grid.from_dict([25, 16, 16])


@pytest.mark.parametrize("duration_s", [-1.0, math.nan, math.inf])
def test_bad_durations(duration_s):
    with pytest.raises(ValueError, match="duration_s is"):
        I3D.num_snippets(duration_s)


def test_numbers_beyond_a_float_are_refused():
    values = {"fps": 10**400, "stride_frames": 1, "window_frames": 1}
    with pytest.raises(InputError, match="grid: fps is 10+, expected a finite number above 0"):
        Grid.from_dict(values)
    with pytest.raises(InputError, match=r"duration_s is 1e\+308, too long for Grid\(fps=25"):
        I3D.num_snippets(1e308)
