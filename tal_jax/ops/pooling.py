# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Masked top-k pooling, as in multiple-instance learning: class scores of a recording."""

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real
from tal_jax.ops import _axes, _check, _cpu


def topk_mean(
    scores: Real[ArrayLike, "*batch T C"],
    k: Int[ArrayLike, ""],
    *,
    where: Mask[ArrayLike, "*#batch T"] | None = None,
) -> Float[Array, "*batch C"]:
    """Returns top-k pooled class scores: the mean of the k largest over time (MIL pooling).

    The gradient reaches exactly the k snippets chosen; of equal scores the earlier is chosen.

    >>> scores = jnp.array([[0.5, 0.0], [1.0, 0.5], [9.0, 9.0]])
    >>> topk_mean(scores, 1, where=jnp.array([True, True, False]))
    Array([1. , 0.5], dtype=float32)
    >>> jax.grad(lambda x: topk_mean(x, 2)[0])(scores)
    Array([[0. , 0. ],
           [0.5, 0. ],
           [0.5, 0. ]], dtype=float32)

    Args:
      scores: the class activation sequence (CAS), scores or logits; leading axes are batch axes.
      k: how many snippets count, an integer; may be traced. Clipped to at least 1 and at most the
        number of valid snippets.
      where: any mask, True on the valid snippets; default all.

    Returns:
      Means in the floating type of `scores` (float32 for integers), summed in float32 at least; 0
      if no snippet is valid.

    Raises:
      ValueError: if shapes or types do not fit or k is not an integer.
    """
    sizes: dict[str, int] = {}
    scores = _check.numbers(scores, "scores", "... T C", sizes, dtype=None)
    where = _check.mask(where, "where", "... T", sizes)
    k = jnp.asarray(k)
    if k.ndim or not jnp.issubdtype(k.dtype, jnp.integer):
        raise ValueError(f"k must be an integer, got {k.dtype} {list(k.shape)}")
    return _axes.over_leading_axes(
        lambda scores, where: _topk_mean(scores, k.astype(jnp.int32), where),
        (scores, where),
        (2, 1),
    )


def _topk_mean(
    scores: Float[Array, "T C"], k: Int[Array, ""], where: Bool[Array, " T"]
) -> Float[Array, " C"]:
    count = jnp.maximum(jnp.minimum(k, jnp.sum(where, dtype=jnp.int32)), 1)
    # Time last: counting along the last axis is several times faster on a CPU.
    ordered = _in_order(jax.lax.stop_gradient(scores).T)
    chosen = _cpu.largest(ordered, count, where).T
    wide = _check.wide(scores.dtype)
    total = jnp.sum(jnp.where(chosen, scores, 0), axis=0, dtype=wide)
    return (total / count.astype(wide)).astype(scores.dtype)


def _in_order(scores: Float[Array, "C T"]) -> Int[Array, "C T"]:
    """Returns unsigned integers in the order of floating-point numbers, all larger than 0."""
    wide = scores.astype(_check.wide(scores.dtype))
    signed = jnp.int64 if wide.dtype == jnp.float64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(wide, signed)
    # Negative numbers have all bits flipped, the others their sign.
    ordered = jnp.where(bits < 0, ~bits, bits | jnp.iinfo(signed).min)
    return jax.lax.bitcast_convert_type(ordered, f"uint{8 * wide.dtype.itemsize}")
