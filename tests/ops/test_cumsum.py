"""Tests of range sums against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.ops import _cumsum


def _range_sums(values, start, end, where=None):
    return _cumsum.range_sum(_cumsum.prefix_sum(values, where=where), start, end)


def _reference(values, start, end):
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
    return sums[end] - sums[start]


@pytest.mark.slow
@pytest.mark.parametrize(
    "length, kind",
    [
        (1, "uniform"),
        (750, "signed"),
        (10_000, "constant"),
        (10_000, "uniform"),
        (1_000_000, "constant"),
    ],
)
def test_short_ranges_keep_their_digits_at_the_very_end(length, kind):
    rng = np.random.default_rng(0)
    values = {
        "uniform": rng.random(length),
        "signed": rng.standard_normal(length),
        "constant": np.full(length, 0.3),
    }[kind].astype(np.float32)
    start = np.concatenate([rng.integers(0, length, 500), np.arange(max(length - 500, 0), length)])
    end = np.minimum(start + rng.integers(1, 40, start.shape), length)
    got = _range_sums(values, start, end)
    assert got.dtype == jnp.float32
    want = _reference(values, start, end)
    tolerance = 2e-7 * _reference(np.abs(values), start, end) + 1e-7 * np.abs(values).max()
    assert np.all(np.abs(np.asarray(got, np.float64) - want) <= tolerance)
    whole = np.asarray(_range_sums(values, 0, length), np.float64)
    np.testing.assert_allclose(
        whole, values.sum(dtype=np.float64), rtol=3e-7, atol=3e-7 * length**0.5
    )


def test_plain_float32_sums_would_fail_the_same_tolerance():
    values = np.full(1_000_000, 0.3, np.float32)
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.float32)])
    assert abs((sums[-1] - sums[-11]) / 3.0 - 1) > 1e-3
    np.testing.assert_allclose(_range_sums(values, 999_990, 1_000_000), 3.0, rtol=1e-7)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_extreme_magnitudes(scale):
    values = np.array([1.0, -0.5, 0.25, 3.0], np.float32) * np.float32(scale)
    got = _range_sums(values, np.array([0, 1, 2]), np.array([4, 3, 2]))
    np.testing.assert_allclose(got, np.array([3.75, -0.25, 0.0]) * scale, rtol=1e-6)


def test_integers_are_exact_and_shapes_broadcast():
    values = jnp.arange(6.0)
    start, end = jnp.array([[0, 1], [2, 6]]), jnp.array([[6, 1], [4, 9]])
    assert _range_sums(values, start, end).tolist() == [[15.0, 0.0], [5.0, 0.0]]
    assert _range_sums(values, 0, jnp.array([3, 6])).tolist() == [3.0, 15.0]
    assert _range_sums(values, 4, 1) == -6.0
    assert _range_sums(values, -3, 2) == 1.0


def test_mask_equals_removing_and_hides_what_is_not_finite():
    values = np.random.default_rng(1).standard_normal(20).astype(np.float32)
    where = np.arange(20) % 3 > 0
    spoiled = np.where(where, values, [np.nan, np.inf] * 10).astype(np.float32)
    got = _range_sums(spoiled, np.array([0, 4]), np.array([20, 15]), where)
    cleaned = np.where(where, values, 0)
    np.testing.assert_allclose(got, [cleaned.sum(), cleaned[4:15].sum()], rtol=1e-6, atol=1e-6)
    assert _range_sums(spoiled, 0, 20, np.zeros(20, bool)) == 0.0


@pytest.mark.parametrize("length", [40, 40_000])
@pytest.mark.slow
def test_gradient_is_exactly_one_inside_and_zero_outside(length):
    values = np.random.default_rng(2).random(length).astype(np.float32)
    where = np.arange(length) != 8
    gradient = jax.grad(lambda v: _range_sums(v, 5, length - 3, where))(values)
    inside = (np.arange(length) >= 5) & (np.arange(length) < length - 3) & where
    np.testing.assert_array_equal(gradient, inside)
    gradient = jax.grad(lambda v: _range_sums(v, 5, 20, np.zeros(length, bool)))(values)
    np.testing.assert_array_equal(gradient, np.zeros(length))


def test_vmap_and_jit_change_nothing():
    values = np.random.default_rng(3).random((3, 50)).astype(np.float32)
    start, end = jnp.array([0, 10, 49]), jnp.array([50, 12, 50])
    one_by_one = jnp.stack([_range_sums(row, start, end) for row in values])
    batched = jax.jit(jax.vmap(lambda row: _range_sums(row, start, end)))(values)
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-7)


def test_padding_changes_nothing():
    values = np.random.default_rng(4).random(100).astype(np.float32)
    start, end = np.array([0, 50, 99]), np.array([100, 52, 100])
    padded = _range_sums(np.pad(values, (0, 40)), start, end, np.arange(140) < 100)
    np.testing.assert_allclose(padded, _range_sums(values, start, end), rtol=1e-6)


def test_rebased_sums_are_exact_around_the_index():
    values = np.random.default_rng(0).random(20000).astype(np.float32)
    sums = jax.jit(_cumsum.prefix_sum)(values)
    place = 15000
    near = _cumsum.rebase(sums, jnp.int32(place))
    starts, ends = place - np.array([0, 1, 7, 90]), place + np.array([1, 3, 5, 200])
    got = _cumsum.range_sum(near, starts, ends)
    want = [values[a:b].sum(dtype=np.float64) for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-6)
