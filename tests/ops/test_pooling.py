"""Tests of top-k pooling against sorting in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.ops import pooling

_topk_mean = jax.jit(pooling.topk_mean)


def _reference(scores, k, where):
    valid = np.sort(np.asarray(scores, np.float64)[where], axis=0)[::-1]
    return valid[: max(k, 1)].mean(axis=0) if len(valid) else np.zeros(scores.shape[1])


@pytest.mark.parametrize("k", [-1, 0, 1, 4, 9, 10, 1000])
@pytest.mark.parametrize("num_valid", [0, 1, 9, 30])
def test_against_sorting(k, num_valid):
    rng = np.random.default_rng(num_valid)
    scores = rng.standard_normal((30, 3)).astype(np.float32)
    where = rng.permutation(30) < num_valid
    spoiled = np.where(where[:, None], scores, np.nan)
    got = _topk_mean(spoiled, k, where=where)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, _reference(scores, k, where), rtol=1e-5, atol=1e-6)


def test_value_by_hand_without_jit():
    scores = jnp.array([[1.0, -5.0], [3.0, -1.0], [2.0, -3.0]])
    assert pooling.topk_mean(scores, 2).tolist() == [2.5, -2.0]


def test_extreme_scores():
    scores = jnp.array([[-jnp.inf], [1e30], [3e30]])
    np.testing.assert_allclose(_topk_mean(scores, 2), [2e30])
    assert _topk_mean(scores, 3).tolist() == [-jnp.inf]
    # A masked snippet does not stand in for a valid one that is minus infinity.
    assert _topk_mean(scores, 2, where=jnp.array([True, False, True])).tolist() == [-jnp.inf]


def test_gradient_reaches_exactly_k_snippets_even_in_ties():
    where = jnp.arange(6) > 0
    gradient = jax.grad(lambda s: jnp.sum(_topk_mean(s, 2, where=where)))(jnp.ones((6, 2)))
    np.testing.assert_array_equal(gradient, np.array([0, 0.5, 0.5, 0, 0, 0])[:, None] * np.ones(2))
    gradient = jax.grad(lambda s: jnp.sum(_topk_mean(s, 2, where=where)))(jnp.eye(6, 2, 1 - 3))
    assert np.all(np.sum(np.asarray(gradient) > 0, axis=0) == 2)


def test_k_of_a_small_integer_type():
    assert _topk_mean(jnp.ones((300, 1)), jnp.uint8(200)).tolist() == [1.0]


def test_gradient_when_nothing_is_valid():
    where = jnp.zeros(6, bool)
    scores = jnp.full((6, 2), jnp.nan)
    gradient = jax.grad(lambda s: jnp.sum(_topk_mean(s, 2, where=where)))(scores)
    np.testing.assert_array_equal(gradient, np.zeros((6, 2)))


def test_padding_and_vmap_change_nothing():
    rng = np.random.default_rng(5)
    scores = rng.random((4, 20, 3)).astype(np.float32)
    k = np.array([1, 3, 8, 20], np.int32)
    one_by_one = jnp.stack([_topk_mean(s, n) for s, n in zip(scores, k, strict=True)])
    np.testing.assert_allclose(jax.vmap(_topk_mean)(scores, k), one_by_one, rtol=1e-6)
    padded = np.pad(scores, ((0, 0), (0, 9), (0, 0)), constant_values=7)
    got = jax.vmap(lambda s, n: _topk_mean(s, n, where=jnp.arange(29) < 20))(padded, k)
    np.testing.assert_allclose(got, one_by_one, rtol=1e-5)


def test_half_precision_is_summed_in_float32():
    scores = jnp.full((4096, 1), 0.1, jnp.bfloat16)
    got = _topk_mean(scores, 4096)
    assert got.dtype == jnp.bfloat16
    assert got[0] == scores[0, 0]
