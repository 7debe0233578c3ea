"""Sums over many ranges of one sequence, from one cumulative sum that does not lose digits.

A range's sum is the difference of two entries of a cumulative sum. In plain float32 that difference
carries the rounding of the *whole* sum before it: at snippet 10,000 of a recording only three
digits of a short range are left. Here the cumulative sum runs in integers, which is exact in any
order of addition and on every backend, and float32 carries only what the integers leave over.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Cumulative sums of one sequence of T values; read it with `range_sum`.

    Attributes:
      whole: the sums in whole multiples of `unit`, one row per level; a level holds what the one
        before left over.
      unit: the size of one step of each level, a power of two.
      rest: the sums of what the last level left over. It carries the gradient of all values.
    """

    whole: jax.Array  # [levels, T + 1] int32
    unit: jax.Array  # [levels] float32
    rest: jax.Array  # [T + 1] float32


def prefix_sum(values: jax.Array, *, where: jax.Array | None = None) -> Prefix:
    """Returns the cumulative sums of a sequence, for any number of `range_sum` calls.

    >>> prefix = prefix_sum(jnp.array([0.5, 2.0, 4.0]))
    >>> range_sum(prefix, 1, 3)
    Array(6., dtype=float32)

    Args:
      values: `[T]` finite numbers; computed in float32.
      where: `[T]` bool, any mask; a masked value counts 0.

    Returns:
      The sums as a `Prefix`. The memory is 2 arrays of length T up to T = 32,768 and 3 up to a
      million.

    Raises:
      ValueError: if the shapes do not fit.
    """
    values = jnp.asarray(values, jnp.float32)
    if values.ndim != 1:
        raise ValueError(f"values must have shape [T], got {values.shape}")
    where = mask_or_all(where, values.shape[0])

    # T values of at most 2**value_bits steps each cannot overflow an int32. So many levels that
    # what they leave over, at most half a step a value, sums to no more than half of the largest
    # value.
    length_bits = (values.shape[0] - 1).bit_length()
    value_bits = 30 - length_bits
    levels = max(1, -(-length_bits // value_bits))

    rest = jnp.where(where, values, 0.0)
    exponent = _exponent(jnp.max(jnp.abs(jax.lax.stop_gradient(rest)), initial=0.0))
    whole, units = [], []
    for level in range(1, levels + 1):
        unit = _power_of_two(exponent - level * value_bits)
        steps = jnp.round(jax.lax.stop_gradient(rest) / unit)
        rest = rest - steps * unit  # exact: a power of two times an integer of at most 24 bits
        whole.append(_cumulative(steps.astype(jnp.int32)))
        units.append(unit)
    return Prefix(whole=jnp.stack(whole), unit=jnp.stack(units), rest=_cumulative(rest))


def range_sum(prefix: Prefix, start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns the sum of the values `[start, end)` of a sequence, for each range.

    The error is a few float32 roundings of the range's own sum, plus about 1e-7 of the largest
    value, wherever the range lies. The gradient with respect to each value is exactly 1 inside the
    range and 0 outside.

    >>> prefix = prefix_sum(jnp.array([0.5, 2.0, 4.0]), where=jnp.array([True, True, False]))
    >>> range_sum(prefix, jnp.array([0, 1, 1]), jnp.array([2, 3, 1]))
    Array([2.5, 2. , 0. ], dtype=float32)

    Args:
      prefix: the cumulative sums, from `prefix_sum`.
      start: integers of any shape, the first value of each range; clipped to `[0, T]`.
      end: integers of the same shape or a scalar, one past the last value; clipped likewise. An end
        before its start gives minus the sum between them.

    Returns:
      float32 sums in the shape of `start` and `end`.

    Raises:
      ValueError: if `start` or `end` are not integers.
    """
    start, end = jnp.asarray(start), jnp.asarray(end)
    for name, index in (("start", start), ("end", end)):
        if not jnp.issubdtype(index.dtype, jnp.integer):
            raise ValueError(f"{name} must hold integers, got {index.dtype}")

    def difference(sums):
        return jnp.take(sums, end, mode="clip") - jnp.take(sums, start, mode="clip")

    # Smallest part first: each addition rounds once.
    total = difference(prefix.rest)
    for level in reversed(range(prefix.unit.shape[0])):
        total = total + difference(prefix.whole[level]).astype(jnp.float32) * prefix.unit[level]
    return total


def seen_from(prefix: Prefix, place: jax.Array) -> Prefix:
    """Returns the same sums counted from one place, for the ranges around it.

    A sum then takes one difference instead of one a level, with an error of a few roundings of the
    sums between its ends and that place: for ranges that hold the place, or lie beside it, none
    worse than before.

    >>> prefix = seen_from(prefix_sum(jnp.array([0.5, 2.0, 4.0])), jnp.int32(1))
    >>> prefix.rest
    Array([-0.5,  0. ,  2. ,  6. ], dtype=float32)

    Args:
      prefix: the cumulative sums, from `prefix_sum`.
      place: `[]` integer in `[0, T]`.
    """
    total = prefix.rest - prefix.rest[place]
    for level in reversed(range(prefix.unit.shape[0])):
        whole = prefix.whole[level]
        total = total + (whole - whole[place]).astype(jnp.float32) * prefix.unit[level]
    return Prefix(whole=prefix.whole[:0], unit=prefix.unit[:0], rest=total)


def mask_or_all(where: jax.Array | None, length: int) -> jax.Array:
    """Returns `where` as a bool array of shape `[length]`; all True when it is None.

    >>> mask_or_all(None, 2)
    Array([ True,  True], dtype=bool)

    Args:
      where: `[length]` bool, or None.
      length: the number of elements masked.

    Raises:
      ValueError: if `where` has another shape or is not boolean.
    """
    if where is None:
        return jnp.ones(length, bool)
    where = jnp.asarray(where)
    if where.shape != (length,) or where.dtype != bool:
        raise ValueError(f"where must be bool [{length}], got {where.dtype} {list(where.shape)}")
    return where


def _cumulative(values: jax.Array) -> jax.Array:
    """Returns `[T + 1]` sums of the first 0, 1, ..., T values."""
    if jax.default_backend() == "cpu":
        # XLA's `cumsum` there is two to four times as slow as to add one value after another.
        zero = jnp.zeros((), values.dtype)
        sums = jax.lax.scan(lambda sum_, value: (sum_ + value,) * 2, zero, values)[1]
    else:
        sums = jnp.cumsum(values, dtype=values.dtype)
    return jnp.pad(sums, (1, 0))


# Read and written as bits, because a power of two must be exact and `2.0**n` is not on every
# backend.
def _exponent(value: jax.Array) -> jax.Array:
    """Returns an integer e with `value < 2**e`, the smallest one for normal numbers."""
    return (jax.lax.bitcast_convert_type(value, jnp.int32) >> 23) - 126


def _power_of_two(exponent: jax.Array) -> jax.Array:
    """Returns `2.0**exponent`, and the smallest normal number below it."""
    return jax.lax.bitcast_convert_type((jnp.clip(exponent, -126, 127) + 127) << 23, jnp.float32)
