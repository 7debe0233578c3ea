# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Work-arounds for slow code of XLA on a CPU, each beside the plain form that other backends run.

Cumulative sums and maxima, `jnp.nonzero`, sorting and argmax take many times as long there as what
stands here in their place (see `_platform`). The results are the same, but for the rounding of
floating-point sums. Flags are counted in words of 32 bits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, Bool, Float, Int, Real
from tal_jax.ops import _axes, _platform

# --- sums, maxima, order ---


def cumsum(values: Real[Array, " T"]) -> Real[Array, " T"]:
    """Returns the sums of the first 1, 2, ..., T values, in their type.

    >>> print(cumsum(jnp.array([1, 2, 3])))
    [1 3 6]
    """
    plain = functools.partial(jnp.cumsum, dtype=values.dtype)
    return _platform.choose(values, cpu=cumsum_by_scan, default=plain)


def cumsum_by_scan(values: Real[Array, " T"]) -> Real[Array, " T"]:
    """`cumsum` one value after another: two to four times as fast as XLA's on a CPU."""

    def add(total: Real[Array, ""], value: Real[Array, ""]) -> tuple[Array, Array]:
        total = total + value
        return total, total

    zero = _axes.vary_like(jnp.zeros((), values.dtype), values)
    return jax.lax.scan(add, zero, values)[1]


def largest(
    ordered: Int[Array, "C T"], count: Int[Array, ""], where: Bool[Array, " T"]
) -> Bool[Array, "C T"]:
    """Marks the `count` largest valid values of each row; of equal ones the earlier.

    Valid values are above 0, and at least `count` of each row are valid.

    >>> values = jnp.array([[3, 9, 3, 5]], jnp.uint32)
    >>> print(largest(values, jnp.int32(2), jnp.array([True, False, True, True])).astype(int))
    [[1 0 0 1]]
    """
    ordered = jnp.where(where[None, :], ordered, jnp.zeros((), ordered.dtype))
    return _platform.choose(ordered, count, where, cpu=largest_by_bits, default=largest_by_sort)


def largest_by_bits(
    ordered: Int[Array, "C T"], count: Int[Array, ""], where: Bool[Array, " T"]
) -> Bool[Array, "C T"]:
    """`largest` by counting: the smallest of them is found bit by bit, in a pass over each bit."""
    num_bits, one = 8 * ordered.dtype.itemsize, jnp.ones((), ordered.dtype)

    def add_bit(step: Int[Array, ""], least: Int[Array, "C 1"]) -> Int[Array, "C 1"]:
        candidate = least | (one << (num_bits - 1 - step).astype(ordered.dtype))
        reach = jnp.sum(ordered >= candidate, axis=1, dtype=jnp.int32, keepdims=True)
        return jnp.where(reach >= count, candidate, least)

    none = jnp.zeros((ordered.shape[0], 1), ordered.dtype)
    least = jax.lax.fori_loop(0, num_bits, add_bit, _axes.vary_like(none, (ordered, count)))
    above, equal = ordered > least, (ordered == least) & where[None, :]
    missing = count - jnp.sum(above, axis=1, dtype=jnp.int32, keepdims=True)
    return above | (equal & (jnp.cumsum(equal, axis=1, dtype=jnp.int32) <= missing))


def largest_by_sort(
    ordered: Int[Array, "C T"], count: Int[Array, ""], where: Bool[Array, " T"]
) -> Bool[Array, "C T"]:
    """`largest` by the rank of each value."""
    order = jnp.argsort(ordered, axis=1, descending=True, stable=True)
    # In `jax.shard_map` the type of an argsort does not vary as that of its argument does.
    rank = jnp.argsort(_axes.vary_like(order, ordered), axis=1)
    rank = _axes.vary_like(rank, ordered).astype(jnp.int32)
    return (rank < count) & where[None, :]


# --- segment searches ---


class Search(NamedTuple):
    """How a segment search goes about its candidates.

    Attributes:
      ends: how many ends of candidates an iteration scores at once,
      starts: and how many starts.
      first_highest: the index of the highest value, the first of equal ones.
    """

    ends: int
    starts: int
    first_highest: Callable[[Array], Array]


def first_highest(values: Float[Array, " N"]) -> Int[Array, ""]:
    """Returns the int32 index of the highest value, the first of equal ones."""
    return jnp.argmax(values).astype(jnp.int32)


def first_highest_by_min(values: Float[Array, " N"]) -> Int[Array, ""]:
    """`first_highest` by a minimum over indices: many times as fast as argmax on a CPU."""
    size = values.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    return jnp.minimum(jnp.min(jnp.where(values == values.max(), at, size)), size - 1)


# On a CPU enough to amortise the loop's overhead, and so few that the usual gap between two points
# wastes little (with up to 32 starts XLA computes scores and maxima in one loop, which it does not
# vectorise). Elsewhere an iteration takes as long for few as for many.
SEARCH = Search(128, 128, first_highest)
CPU_SEARCH = Search(16, 40, first_highest_by_min)


def by_platform(function: Callable[..., Any], *args: Any) -> Any:
    """Returns `function(search, *args)` with the `Search` of the platform."""
    return _platform.choose(
        *args,
        cpu=functools.partial(function, CPU_SEARCH),
        default=functools.partial(function, SEARCH),
    )


# --- flags ---


def first_flags(flags: Bool[Array, " T"], size: int) -> tuple[Int[Array, " N"], Int[Array, ""]]:
    """Returns where the first `size` (static) True flags are, and how many there are in all.

    The index is T where there are no more.

    >>> first_flags(jnp.array([False, True, True, False]), 3)
    (Array([1, 2, 4], dtype=int32), Array(2, dtype=int32))
    """

    def plain(flags: Bool[Array, " T"]) -> tuple[Int[Array, " N"], Int[Array, ""]]:
        found = jnp.nonzero(flags, size=size, fill_value=len(flags))[0]
        return found.astype(jnp.int32), jnp.sum(flags, dtype=jnp.int32)

    by_words = functools.partial(first_flags_by_words, size=size)
    return _platform.choose(flags, cpu=by_words, default=plain)


def last_flag(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
    """Returns the int32 index of the last True flag at or before each place, −1 if there is none.

    >>> print(last_flag(jnp.array([False, True, False, True, False])))
    [-1  1  1  3  3]
    """

    def plain(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
        return jax.lax.cummax(jnp.where(flags, jnp.arange(len(flags), dtype=jnp.int32), -1))

    return _platform.choose(flags, cpu=last_flag_by_words, default=plain)


def next_flag(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
    """Returns the int32 index of the first True flag at or after each place, T if there is none.

    >>> print(next_flag(jnp.array([False, True, False, True, False])))
    [1 1 3 3 5]
    """

    def plain(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
        size = len(flags)
        at = jnp.where(flags, jnp.arange(size, dtype=jnp.int32), size)
        return jax.lax.cummin(at, reverse=True)

    return _platform.choose(flags, cpu=next_flag_by_words, default=plain)


def first_flags_by_words(
    flags: Bool[Array, " T"], size: int
) -> tuple[Int[Array, " N"], Int[Array, ""]]:
    """`first_flags`, by the word that each one is in and then by halves of that word."""
    (length,) = flags.shape
    words = _words(flags)
    counts = jnp.cumsum(_num_bits(words), dtype=jnp.int32)
    number = jnp.arange(1, size + 1, dtype=jnp.int32)
    index = jnp.minimum(_axes.searchsorted(counts, number), len(words) - 1).astype(jnp.int32)
    # Inside a word by halves: past the lower half if the flag is not among those set there.
    word = words[index]
    left = number - (counts[index] - _num_bits(word))
    place = 32 * index
    for half in (16, 8, 4, 2, 1):
        below = _num_bits(word & jnp.uint32(2**half - 1))
        beyond = left > below
        left = jnp.where(beyond, left - below, left)
        place = jnp.where(beyond, place + half, place)
        word = jnp.where(beyond, word >> half, word)
    return jnp.where(number <= counts[-1], place, length), counts[-1]


def last_flag_by_words(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
    """`last_flag`, by a running maximum over words."""
    words = _words(flags)
    start = 32 * jnp.arange(len(words), dtype=jnp.int32)
    own = jnp.where(words > 0, start + _highest(words), -1)
    earlier = jnp.pad(jax.lax.cummax(own), (1, 0), constant_values=-1)[:-1]
    up_to = words[:, None] & (jnp.uint32(0xFFFFFFFF) >> (31 - _bits()))
    last = jnp.where(up_to > 0, start[:, None] + _highest(up_to), earlier[:, None])
    return last.ravel()[: len(flags)]


def next_flag_by_words(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
    """`next_flag`, by a running minimum over words."""
    (length,) = flags.shape
    words = _words(flags)
    start = 32 * jnp.arange(len(words), dtype=jnp.int32)
    own = jnp.where(words > 0, start + _lowest(words), length)
    later = jnp.pad(jax.lax.cummin(own, reverse=True), (0, 1), constant_values=length)[1:]
    onward = words[:, None] & (jnp.uint32(0xFFFFFFFF) << _bits())
    following = jnp.where(onward > 0, start[:, None] + _lowest(onward), later[:, None])
    return following.ravel()[:length]


def _words(flags: Bool[Array, " T"]) -> Int[Array, " W"]:
    """`[⌈T / 32⌉]` uint32: the first flag is the lowest bit of the first word."""
    bits = jnp.pad(flags, (0, -len(flags) % 32)).reshape(-1, 32).astype(jnp.uint32)
    return jnp.sum(bits << _bits(), axis=1, dtype=jnp.uint32)


def _bits() -> Int[Array, "1 32"]:
    return jnp.arange(32, dtype=jnp.uint32)[None, :]


def _num_bits(words: Int[Array, "..."]) -> Int[Array, "..."]:
    return jax.lax.population_count(words).astype(jnp.int32)


def _highest(words: Int[Array, "..."]) -> Int[Array, "..."]:
    return 31 - jax.lax.clz(words).astype(jnp.int32)


def _lowest(words: Int[Array, "..."]) -> Int[Array, "..."]:
    return _highest(words & -words)
