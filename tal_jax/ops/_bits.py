"""Where the True flags of a sequence are, counted in words of 32 bits.

The plain ways, `jnp.nonzero` and running maxima over the places, take many times as long on a CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np

_BITS = np.arange(32, dtype=np.uint32)[None, :]
_UP_TO = np.uint32(0xFFFFFFFF) >> (31 - _BITS)  # all bits up to each one
_FROM = np.uint32(0xFFFFFFFF) << _BITS  # and from each one on


def first_flags(flags: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns where the first True flags are, and how many there are.

    >>> first_flags(jnp.array([False, True, True, False]), 3)
    (Array([1, 2, 4], dtype=int32), Array(2, dtype=int32))

    Args:
      flags: `[T]` bool.
      size: N, how many are looked for; static.

    Returns:
      `[N]` int32 places, T where there are no more, and `[]` int32 the number of all.
    """
    (length,) = flags.shape
    words = _words(flags)
    counts = jnp.cumsum(jax.lax.population_count(words).astype(jnp.int32))
    number = jnp.arange(1, size + 1, dtype=jnp.int32)
    index = jnp.minimum(jnp.searchsorted(counts, number), len(words) - 1).astype(jnp.int32)
    # Inside a word by halves: past the lower half if the flag is not among those set there.
    word = words[index]
    left = number - (counts[index] - jax.lax.population_count(word).astype(jnp.int32))
    place = 32 * index
    for half in (16, 8, 4, 2, 1):
        below = jax.lax.population_count(word & jnp.uint32(2**half - 1)).astype(jnp.int32)
        beyond = left > below
        left = jnp.where(beyond, left - below, left)
        place = jnp.where(beyond, place + half, place)
        word = jnp.where(beyond, word >> half, word)
    return jnp.where(number <= counts[-1], place, length), counts[-1]


def last_flag(flags: jax.Array) -> jax.Array:
    """Returns the last True flag at or before each place, −1 where there is none.

    >>> print(last_flag(jnp.array([False, True, False, True, False])))
    [-1  1  1  3  3]

    Args:
      flags: `[T]` bool.

    Returns:
      `[T]` int32 places.
    """
    words = _words(flags)
    start = 32 * jnp.arange(len(words), dtype=jnp.int32)
    own = jnp.where(words > 0, start + _highest(words), -1)
    earlier = jnp.pad(jax.lax.cummax(own), (1, 0), constant_values=-1)[:-1]
    seen = words[:, None] & _UP_TO
    last = jnp.where(seen > 0, start[:, None] + _highest(seen), earlier[:, None])
    return last.ravel()[: len(flags)]


def next_flag(flags: jax.Array) -> jax.Array:
    """Returns the first True flag at or after each place, T where there is none.

    >>> print(next_flag(jnp.array([False, True, False, True, False])))
    [1 1 3 3 5]

    Args:
      flags: `[T]` bool.

    Returns:
      `[T]` int32 places.
    """
    (length,) = flags.shape
    words = _words(flags)
    start = 32 * jnp.arange(len(words), dtype=jnp.int32)
    own = jnp.where(words > 0, start + _lowest(words), length)
    later = jnp.pad(jax.lax.cummin(own, reverse=True), (0, 1), constant_values=length)[1:]
    seen = words[:, None] & _FROM
    following = jnp.where(seen > 0, start[:, None] + _lowest(seen), later[:, None])
    return following.ravel()[:length]


def _words(flags: jax.Array) -> jax.Array:
    """`[⌈T / 32⌉]` uint32: the first flag is the lowest bit of the first word."""
    bits = jnp.pad(flags, (0, -len(flags) % 32)).reshape(-1, 32).astype(jnp.uint32)
    return jnp.sum(bits << _BITS, axis=1, dtype=jnp.uint32)


def _highest(words: jax.Array) -> jax.Array:
    return 31 - jax.lax.clz(words).astype(jnp.int32)


def _lowest(words: jax.Array) -> jax.Array:
    return _highest(words & -words)
