import jax
import numpy as np
import pytest

from tal_jax.ops import _bits

LENGTHS = [1, 31, 32, 33, 64, 500]
SHARES = (0, 0.02, 0.5, 1)


@pytest.mark.parametrize("length", LENGTHS)
def test_first_flags_are_those_of_nonzero(length):
    rng = np.random.default_rng(length)
    found = jax.jit(_bits.first_flags, static_argnums=1)
    for share in SHARES:
        flags = rng.random(length) < share
        for size in (1, 40, length):
            places, count = found(flags, size)
            want = np.append(np.flatnonzero(flags), np.full(size, length))[:size]
            np.testing.assert_array_equal(places, want)
            assert count == flags.sum()


@pytest.mark.parametrize("length", LENGTHS)
def test_last_and_next_flags_are_those_of_a_walk(length):
    rng = np.random.default_rng(length)
    last_flag, next_flag = jax.jit(_bits.last_flag), jax.jit(_bits.next_flag)
    for share in SHARES:
        flags = rng.random(length) < share
        places = np.flatnonzero(flags)
        last = [max(places[places <= t], default=-1) for t in range(length)]
        following = [min(places[places >= t], default=length) for t in range(length)]
        np.testing.assert_array_equal(last_flag(flags), last)
        np.testing.assert_array_equal(next_flag(flags), following)
        assert last_flag(flags).dtype == next_flag(flags).dtype == np.int32


def test_vmap_changes_nothing():
    flags = np.random.default_rng(0).random((5, 70)) < 0.1
    for function in (_bits.last_flag, _bits.next_flag):
        np.testing.assert_array_equal(jax.vmap(function)(flags), [function(row) for row in flags])
