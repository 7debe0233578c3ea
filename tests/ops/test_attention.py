"""Tests of HAM-Net's attentions: values by hand at their thresholds, masks, padding, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.ops import attention as ops

KEY = jax.random.key(3)
# Every op that maps an attention [T] to another, with thresholds that the values below meet.
OPS = {
    "semi": functools.partial(ops.semi_soft_attention, low=0.25, high=0.75),
    "hard": lambda attention, where=None: ops.hard_attention(
        attention, KEY, low=0.25, drop_rate=1.0, where=where
    ),
    "published semi": functools.partial(ops.published_semi_soft_attention, gamma=0.5),
    "published hard": functools.partial(ops.published_hard_attention, gamma=0.5),
}
ATTENTION = np.array([0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0], np.float32)
# Equality included: up to `low` is background, `high` is action; strong is what reaches the share.
WANT = {
    "semi": [0, 0, 0, 0.375, 0.5, 1, 1],
    "hard": [1, 1, 0, 0, 0, 0, 0],
    "published semi": [0, 0.125, 0.25, 0.375, 0, 0, 0],
    "published hard": [1, 1, 1, 1, 0, 0, 0],
}


@pytest.mark.parametrize("name", OPS)
def test_by_hand(name):
    np.testing.assert_array_equal(jax.jit(OPS[name])(ATTENTION), np.float32(WANT[name]))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("filler", [1e30, np.nan])
def test_masked_snippets_are_zero_and_change_nothing(name, filler):
    where = np.arange(10) % 10 < 7
    padded = np.concatenate([ATTENTION, np.full(3, filler, np.float32)])
    got = jax.jit(lambda x: OPS[name](x, where=jnp.asarray(where)))(padded)
    np.testing.assert_array_equal(got, np.float32([*WANT[name], 0, 0, 0]))
    # Any mask, not only a prefix: without its last value the largest is 0.75.
    nothing = OPS[name](jnp.asarray(padded), where=jnp.zeros(10, bool))
    np.testing.assert_array_equal(nothing, np.zeros(10, np.float32))


def test_the_largest_is_that_of_the_valid_snippets():
    where = jnp.arange(7) != 6
    got = ops.published_hard_attention(jnp.asarray(ATTENTION), gamma=0.5, where=where)
    np.testing.assert_array_equal(got, np.float32([1, 1, 1, 0, 0, 0, 0]))


@pytest.mark.parametrize("name", OPS)
def test_vmap_and_gradients(name):
    rows = np.stack([ATTENTION, ATTENTION[::-1], 0 * ATTENTION])
    got = jax.vmap(OPS[name])(rows)
    np.testing.assert_array_equal(got, np.stack([OPS[name](jnp.asarray(row)) for row in rows]))
    # A snippet that stays soft passes the gradient on; sure, erased and random ones do not.
    want = {"semi": [0, 0, 0, 1, 1, 0, 0], "published semi": [1, 1, 1, 1, 0, 0, 0]}
    gradient = jax.grad(lambda x: OPS[name](x).sum())(jnp.asarray(ATTENTION))
    np.testing.assert_array_equal(gradient, np.float32(want.get(name, [0] * 7)))


def test_soft_attention():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 4
    weights = np.exp(logits.astype(np.float64))
    want = 1 - weights[:, -1] / weights.sum(axis=1)
    np.testing.assert_allclose(jax.jit(ops.soft_attention)(logits), want, rtol=1e-5)
    # Where background is all but sure, the rest is not rounded off.
    sure = ops.soft_attention(jnp.array([[0.0, 0.0, 30.0]]))
    np.testing.assert_allclose(sure, [2 * np.exp(-30.0)], rtol=1e-5)
    where = np.arange(5) < 3
    masked = ops.soft_attention(jnp.where(where[:, None], logits, jnp.nan), where=where)
    np.testing.assert_allclose(masked, np.where(where, want, 0), rtol=1e-5)
    gradient = jax.grad(lambda x: ops.soft_attention(x, where=where).sum())(jnp.asarray(logits))
    assert np.isfinite(gradient).all() and not gradient[3:].any() and gradient[:3].any()


def test_hard_attention_hides_at_random():
    attention = jnp.where(jnp.arange(20_000) % 2 == 0, 0.1, 0.9)
    draw = jax.jit(functools.partial(ops.hard_attention, low=0.25, drop_rate=0.8))
    seen = np.asarray(draw(attention, KEY))
    assert seen[::2].all()  # background always stays
    assert abs(seen[1::2].mean() - 0.2) < 0.02
    np.testing.assert_array_equal(draw(attention, KEY), seen)
    other = np.asarray(draw(attention, jax.random.key(4)))
    assert (other[1::2] != seen[1::2]).mean() > 0.2
    assert draw(attention, KEY, drop_rate=0.0).all()


def test_attend():
    logits = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    attention = np.array([0, 0.25, 0.5, 1, 1, 0], np.float32)
    got = jax.jit(ops.attend)(logits, attention)
    lowest = logits.min(axis=1, keepdims=True)
    np.testing.assert_allclose(got, attention[:, None] * (logits - lowest) + lowest, rtol=1e-6)
    np.testing.assert_allclose(got[3:5], logits[3:5], rtol=1e-6)
    np.testing.assert_array_equal(got[0], np.full(4, logits[0].min()))
