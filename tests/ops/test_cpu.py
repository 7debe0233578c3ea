"""The forms of other backends, and the work-arounds for those of a CPU, which are to be equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tal_jax as tal
from tal_jax.ops import _cpu

LENGTHS = [1, 31, 32, 33, 64, 500]
SHARES = (0, 0.02, 0.5, 1)


@pytest.fixture(params=["cpu", "default"])
def form(request, monkeypatch):
    """Either form of each function, whatever the platform of the tests."""

    def choose(*args, **forms):
        return forms[request.param](*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
def test_first_flags_are_those_of_nonzero(length, form):
    rng = np.random.default_rng(length)
    found = jax.jit(lambda flags, size: _cpu.first_flags(flags, size), static_argnums=1)
    for share in SHARES:
        flags = rng.random(length) < share
        for size in (1, 40, length):
            places, count = found(flags, size)
            want = np.append(np.flatnonzero(flags), np.full(size, length))[:size]
            np.testing.assert_array_equal(places, want)
            assert count == flags.sum()


@pytest.mark.parametrize("length", LENGTHS)
def test_last_and_next_flags_are_those_of_a_walk(length, form):
    rng = np.random.default_rng(length)
    last_flag = jax.jit(lambda flags: _cpu.last_flag(flags))
    next_flag = jax.jit(lambda flags: _cpu.next_flag(flags))
    for share in SHARES:
        flags = rng.random(length) < share
        places = np.flatnonzero(flags)
        last = [max(places[places <= t], default=-1) for t in range(length)]
        following = [min(places[places >= t], default=length) for t in range(length)]
        np.testing.assert_array_equal(last_flag(flags), last)
        np.testing.assert_array_equal(next_flag(flags), following)
        assert last_flag(flags).dtype == next_flag(flags).dtype == np.int32


def test_vmap_changes_nothing(form):
    flags = jnp.asarray(np.random.default_rng(0).random((5, 70)) < 0.1)
    for function in (_cpu.last_flag, _cpu.next_flag):
        np.testing.assert_array_equal(jax.vmap(function)(flags), [function(row) for row in flags])


def test_cumulative_sums_are_those_of_numpy(form):
    values = np.random.default_rng(1).integers(-9, 9, 100, np.int32)
    np.testing.assert_array_equal(_cpu.cumsum(jnp.asarray(values)), np.cumsum(values))


def test_the_largest_values_are_those_of_a_sort(form):
    rng = np.random.default_rng(2)
    values, where = rng.integers(1, 9, (3, 40), np.uint32), rng.random(40) < 0.7
    got = _cpu.largest(jnp.asarray(values), jnp.int32(5), jnp.asarray(where))
    for row, found in zip(values.astype(int), got, strict=True):
        order = sorted(np.flatnonzero(where), key=lambda t, row=row: (-row[t], t))
        np.testing.assert_array_equal(np.flatnonzero(found), sorted(order[:5]))


@pytest.mark.slow
def test_searches_find_the_same_by_either_form(monkeypatch):
    rng = np.random.default_rng(3)
    scores = jnp.asarray(rng.random(200), jnp.float32)
    action, background = rng.random(200) < 0.03, rng.random(200) < 0.03
    found = {}
    for form in ("cpu", "default"):
        monkeypatch.setattr(
            jax.lax, "platform_dependent", lambda *args, form=form, **forms: forms[form](*args)
        )
        ops = (tal.optimal_sequence, tal.best_segment)
        found[form] = [jax.jit(lambda *x, op=op: op(*x))(scores, action, background) for op in ops]
    for one, other in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found["cpu"][0].labels.any() and found["cpu"][1].contrast > 0
