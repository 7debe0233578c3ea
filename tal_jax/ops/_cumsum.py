# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Sums over many ranges of one sequence, from one cumulative sum that does not lose digits.

A range's sum is the difference of two entries of a cumulative sum. In plain float32 that difference
carries the rounding of the *whole* sum before it: at snippet 10,000 of a recording only three
digits of a short range are left. Here the cumulative sum runs in integers, which is exact in any
order of addition and on every backend, and float32 carries only what the integers leave over.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Float, Int, Mask, Real
from tal_jax.ops import _check, _cpu


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Cumulative sums of a sequence of T values, from `prefix_sum`, for `range_sum`.

    Attributes:
      whole: the sums in whole multiples of `unit`, one row per level; a level holds what the one
        before left over.
      unit: the size of one step of each level, a power of two.
      rest: the sums of what the last level left over. It carries the gradient of all values.
    """

    whole: Int[Array, "levels edges"]
    unit: Float[Array, " levels"]
    rest: Float[Array, " edges"]


def prefix_sum(
    values: Real[ArrayLike, " T"], *, where: Mask[ArrayLike, " T"] | None = None
) -> Prefix:
    """Returns the float32 cumulative sums of finite numbers, for any number of `range_sum` calls.

    The memory is 2 arrays of length T up to T = 32,768 and 3 up to a million. Masked values are 0.

    >>> prefix = prefix_sum(jnp.array([0.5, 2.0, 4.0]))
    >>> range_sum(prefix, 1, 3)
    Array(6., dtype=float32)

    Raises:
      ValueError: if the shapes do not fit.
    """
    sizes: dict[str, int] = {}
    values = _check.numbers(values, "values", "T", sizes)
    where = _check.mask(where, "where", "T", sizes)

    # T values of at most 2**value_bits steps each cannot overflow an int32. So many levels that
    # what they leave over, at most half a step a value, sums to no more than half of the largest
    # value.
    length_bits = (values.shape[0] - 1).bit_length()
    value_bits = 30 - length_bits
    levels = max(1, -(-length_bits // value_bits))

    rest = jnp.where(where, values, 0.0)
    exponent = _exponent(jnp.max(jnp.abs(jax.lax.stop_gradient(rest)), initial=0.0))
    whole: list[Array] = []
    units: list[Array] = []
    for level in range(1, levels + 1):
        unit = _power_of_two(exponent - level * value_bits)
        steps = jnp.round(jax.lax.stop_gradient(rest) / unit)
        rest = rest - steps * unit  # exact: a power of two times an integer of at most 24 bits
        whole.append(_cumulative(steps.astype(jnp.int32)))
        units.append(unit)
    return Prefix(whole=jnp.stack(whole), unit=jnp.stack(units), rest=_cumulative(rest))


def range_sum(
    prefix: Prefix, start: Int[ArrayLike, "*#shape"], end: Int[ArrayLike, "*#shape"]
) -> Float[Array, "*shape"]:
    """Returns the float32 sum of the values `[start, end)` of a sequence, for each range.

    The error is a few float32 roundings of the range's sum, plus about 1e-7 of the largest value,
    wherever in the sequence the range is. The gradient with respect to each value is exactly 1
    inside the range and 0 outside. Starts and ends are clipped to `[0, T]`; an end before its start
    gives minus the sum between them.

    >>> prefix = prefix_sum(jnp.array([0.5, 2.0, 4.0]), where=jnp.array([True, True, False]))
    >>> range_sum(prefix, jnp.array([0, 1, 1]), jnp.array([2, 3, 1]))
    Array([2.5, 2. , 0. ], dtype=float32)

    Raises:
      ValueError: if `start` or `end` are not integers.
    """
    start, end = jnp.asarray(start), jnp.asarray(end)
    for name, index in (("start", start), ("end", end)):
        if not jnp.issubdtype(index.dtype, jnp.integer):
            raise ValueError(f"{name} must hold integers, got {index.dtype}")

    def difference(sums: Real[Array, " edges"]) -> Real[Array, "..."]:
        return jnp.take(sums, end, mode="clip") - jnp.take(sums, start, mode="clip")

    # Smallest part first: each addition rounds once.
    total = difference(prefix.rest)
    for level in reversed(range(prefix.unit.shape[0])):
        total = total + difference(prefix.whole[level]).astype(jnp.float32) * prefix.unit[level]
    return total


def rebase(prefix: Prefix, index: Int[Array, ""]) -> Prefix:
    """Returns the same sums counted from another index in `[0, T]`, for the ranges around it.

    A sum then takes one difference instead of one a level, with an error of a few roundings of the
    sums between its ends and that index: for ranges that contain the index, or lie beside it, no
    larger than before.

    >>> prefix = rebase(prefix_sum(jnp.array([0.5, 2.0, 4.0])), jnp.int32(1))
    >>> prefix.rest
    Array([-0.5,  0. ,  2. ,  6. ], dtype=float32)
    """
    total = prefix.rest - prefix.rest[index]
    for level in reversed(range(prefix.unit.shape[0])):
        whole = prefix.whole[level]
        total = total + (whole - whole[index]).astype(jnp.float32) * prefix.unit[level]
    return Prefix(whole=prefix.whole[:0], unit=prefix.unit[:0], rest=total)


def _cumulative(values: Real[Array, " T"]) -> Real[Array, " T+1"]:
    """Returns the sums of the first 0, 1, ..., T values."""
    return jnp.pad(_cpu.cumsum(values), (1, 0))


# As operations on bits, because a power of two must be exact and `2.0**n` is not on every backend.
def _exponent(value: Float[Array, ""]) -> Int[Array, ""]:
    """Returns an integer e with `value < 2**e`, the smallest one for normal numbers."""
    return (jax.lax.bitcast_convert_type(value, jnp.int32) >> 23) - 126


def _power_of_two(exponent: Int[Array, ""]) -> Float[Array, ""]:
    """Returns `2.0**exponent`, and the smallest normal number below it."""
    return jax.lax.bitcast_convert_type((jnp.clip(exponent, -126, 127) + 127) << 23, jnp.float32)
