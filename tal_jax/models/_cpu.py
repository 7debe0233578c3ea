# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""What the networks compute in another way on CPUs, where XLA compiles the plain way slowly.

Chosen by `ops._platform`, so that an exported program contains the way of each platform, whichever
machine exports it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, Float, PRNGKeyArray, Shaped

# The width from which convolving snippets in pairs pays. Narrow layers gain little by it (a fifth
# at 64) and are not what an update waits for.
WIDE = 128


def paired_convolution(
    inputs: Float[Array, "B T D"], kernel: Float[Array, "3 D W"], *, dilation: int
) -> Float[Array, "B T W"]:
    """Temporal convolution with three taps by Winograd's minimal filtering F(2, 3).

    Two neighbouring outputs need six products with a tap each; four are enough, of sums of inputs
    with sums of taps, and the same holds for the gradients. The result is that of
    `layers.temporal_convolution` up to a few float32 roundings. Sums of neighbours would lose
    digits in bfloat16, and in the products of accelerators.

    Source: Lavin & Gray 2016, section 3.
    """
    batch, length, dim = inputs.shape
    period = 2 * dilation
    pairs = -(-length // period)
    room = (period, (pairs + 1) * period - length)
    padded = jnp.pad(inputs, ((0, 0), room, (0, 0))).reshape(batch, pairs + 2, 2, dilation, dim)
    firsts, seconds = padded[:, :, 0], padded[:, :, 1]
    before, first, second, after = seconds[:, :-2], firsts[:, 1:-1], seconds[:, 1:-1], firsts[:, 2:]
    left, middle, right = kernel
    outer = (left + right) / 2
    sums = jnp.stack([before - second, first + second, second - first, first - after])
    kernels = jnp.stack([left, outer + middle / 2, outer - middle / 2, right])
    products = jnp.matmul(sums.reshape(4, -1, dim), kernels)
    products = products.reshape(4, batch, pairs, dilation, kernel.shape[-1])
    pair = jnp.stack(
        [products[0] + products[1] + products[2], products[1] - products[2] - products[3]], axis=2
    )
    return pair.reshape(batch, -1, kernel.shape[-1])[:, :length]


def hashed_bits(key: PRNGKeyArray, shape: Sequence[int]) -> Shaped[Array, "..."]:
    """Random uint32 words for dropout: a keyed avalanche hash (lowbias32) of each element's index.

    Independent random words cost more on a CPU than a layer's matrix product; a hash keyed by one
    draw a call is as good for this purpose, and fuses into the surrounding program.
    """
    before, after = jax.random.bits(key, (2,), jnp.uint32)
    word = jnp.zeros(shape, jnp.uint32)
    step = 1
    for axis in reversed(range(len(shape))):
        index = jax.lax.broadcasted_iota(jnp.uint32, tuple(shape), axis)
        word = word + index * jnp.uint32(step)
        step = step * shape[axis] % 2**32
    word = word ^ before
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return (word ^ (word >> 16)) ^ after
