# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Leading batch axes, and loops inside of functions that are split over devices."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, Int, Real, Shaped

Tree = TypeVar("Tree")


def over_leading_axes(
    function: Callable[..., Tree], arrays: tuple[Shaped[Array, "..."], ...], cores: tuple[int, ...]
) -> Tree:
    """Applies a function of arrays to each element of their leading axes, by `jax.vmap`.

    The function takes the last `cores[i]` axes of array i. Leading axes are aligned at the right;
    an array that lacks one is shared along it.

    >>> over_leading_axes(jnp.dot, (jnp.ones((2, 3)), jnp.ones(3)), (1, 1))
    Array([3., 3.], dtype=float32)
    """
    extra = [array.ndim - core for array, core in zip(arrays, cores, strict=True)]
    if max(extra) == 0:
        return function(*arrays)
    axes = tuple(0 if count == max(extra) else None for count in extra)
    rest = jax.vmap(lambda *arrays: over_leading_axes(function, arrays, cores), in_axes=axes)
    return rest(*arrays)


def vary_like(tree: Tree, inputs: Any) -> Tree:
    """Returns the same values, in types that are split over devices as those of the inputs are.

    A loop whose first carry is a constant needs this inside of `jax.shard_map` (the carry has to
    vary over the axes of the mesh as what is added to it does), and under `jax.vmap` over an axis
    that is split over an explicit mesh. Compilers remove it.

    >>> vary_like(jnp.zeros(2), jnp.ones(3))
    Array([0., 0.], dtype=float32)
    """
    never = functools.reduce(
        jnp.logical_or, [jnp.any(leaf != leaf) for leaf in jax.tree.leaves(inputs)]
    ) & jnp.zeros((), bool)
    return jax.tree.map(lambda value: jnp.where(never, value, value), tree)


def searchsorted(ordered: Real[Array, " N"], values: Real[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Returns the index of the first number that is not below each value, N if there is none.

    `jnp.searchsorted` has a loop whose first carry is a constant; see `vary_like`.

    >>> print(searchsorted(jnp.array([1.0, 2.0, 2.0]), jnp.array([2.0, 3.0])))
    [1 3]
    """
    size = ordered.shape[0]

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        below = ordered[jnp.minimum(middle, size - 1)] < values
        return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

    low = jnp.zeros(values.shape, jnp.int32)
    bounds = vary_like((low, jnp.full_like(low, size)), (ordered, values))
    return jax.lax.fori_loop(0, size.bit_length(), halve, bounds)[1]
