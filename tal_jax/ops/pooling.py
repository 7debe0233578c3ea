"""Masked top-k pooling: the score of a recording from the scores of its snippets."""

import jax
import jax.numpy as jnp

from tal_jax.ops import _cumsum


def topk_mean(
    scores: jax.Array, k: jax.typing.ArrayLike, *, where: jax.Array | None = None
) -> jax.Array:
    """Returns the mean of the k largest scores over time, for each class.

    The gradient reaches exactly the k snippets chosen; of equal scores the earlier is chosen.

    >>> scores = jnp.array([[0.5, 0.0], [1.0, 0.5], [9.0, 9.0]])
    >>> topk_mean(scores, 1, where=jnp.array([True, True, False]))
    Array([1. , 0.5], dtype=float32)
    >>> jax.grad(lambda x: topk_mean(x, 2)[0])(scores)
    Array([[0. , 0. ],
           [0.5, 0. ],
           [0.5, 0. ]], dtype=float32)

    Args:
      scores: `[T, C]`.
      k: how many snippets count, an integer; may be traced. Clipped to at least 1 and at most the
        number of valid snippets.
      where: `[T]` bool, any mask.

    Returns:
      `[C]` in the type of `scores`; 0 if no snippet is valid.

    Raises:
      ValueError: if the shapes do not fit or k is not an integer.
    """
    scores, k = jnp.asarray(scores), jnp.asarray(k)
    if scores.ndim != 2 or k.ndim != 0:
        raise ValueError(
            f"scores must have shape [T, C] and k [], got {scores.shape} and {k.shape}"
        )
    if not jnp.issubdtype(k.dtype, jnp.integer):
        raise ValueError(f"k must be an integer, got {k.dtype}")
    where = _cumsum.mask_or_all(where, scores.shape[0])
    count = jnp.maximum(jnp.minimum(k.astype(jnp.int32), jnp.sum(where, dtype=jnp.int32)), 1)

    chosen = _largest(scores, count, where)
    total = jnp.sum(jnp.where(chosen, scores, 0), axis=0, dtype=jnp.float32)
    return (total / count.astype(jnp.float32)).astype(scores.dtype)


def _largest(scores: jax.Array, count: jax.Array, where: jax.Array) -> jax.Array:
    """Marks the `count` largest valid scores of each class, `[T, C]`; of equal ones the earlier.

    The smallest of them is found bit by bit, by counting: 32 passes over the scores, many times
    faster than sorting them on every backend.
    """
    # Time last: counting along the last axis is several times faster on a CPU.
    bits = jax.lax.bitcast_convert_type(
        jax.lax.stop_gradient(scores).astype(jnp.float32).T, jnp.int32
    )
    # Unsigned numbers in the order of the floats: negative ones have all bits flipped.
    ordered = jnp.where(bits < 0, ~bits, bits | jnp.int32(-(2**31)))
    ordered = jax.lax.bitcast_convert_type(ordered, jnp.uint32)
    ordered = jnp.where(where[None, :], ordered, jnp.uint32(0))  # below every valid score

    def add_bit(step, least):
        candidate = least | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        reach = jnp.sum(ordered >= candidate, axis=1, dtype=jnp.int32, keepdims=True)
        return jnp.where(reach >= count, candidate, least)

    least = jax.lax.fori_loop(0, 32, add_bit, jnp.zeros((scores.shape[1], 1), jnp.uint32))
    above, equal = ordered > least, (ordered == least) & where[None, :]
    missing = count - jnp.sum(above, axis=1, dtype=jnp.int32, keepdims=True)
    return (above | (equal & (jnp.cumsum(equal, axis=1, dtype=jnp.int32) <= missing))).T
