"""Temporal convolutions that embed snippet features."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# The width from which a CPU convolves snippets in pairs. Narrow layers gain little by it (a fifth
# at 64) and are not what an update waits for.
_WIDE = 256


class TemporalConv(nn.Module):
    """Convolution over time, written as matrix products.

    Inside compiled loops on a CPU this is many times faster than XLA's convolution, which leaves
    its fast path there; elsewhere it runs at the speed of the matrix product. Wide layers of three
    taps go through `paired_convolution` on a CPU, all others through one product of gathered
    neighbours.

    Attributes:
      features: number of output features.
      kernel_size: number of taps, odd.
      dilation: snippets between taps.
      dtype: of the product and the outputs; it is summed in float32.
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, features]`; zeros stand outside the sequence."""
        width = inputs.shape[-1]
        parameters = _Linear(self.kernel_size * width, self.features, name="Dense_0")()
        inputs, kernel, bias = (array.astype(self.dtype) for array in (inputs, *parameters))
        kernel = kernel.reshape(self.kernel_size, width, self.features)
        # Sums of neighbours would lose digits in bfloat16, and in the float32 of accelerators.
        exact = jax.default_backend() == "cpu" and inputs.dtype == jnp.float32
        if exact and self.kernel_size == 3 and min(width, self.features) >= _WIDE:
            return paired_convolution(inputs, kernel, self.dilation) + bias[None, None, :]
        return gathered_convolution(inputs, kernel, self.dilation) + bias[None, None, :]


class _Linear(nn.Module):
    """The parameters of a linear map."""

    inputs: int
    outputs: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", nn.initializers.he_normal(), (self.inputs, self.outputs))
        return kernel, self.param("bias", nn.initializers.zeros, (self.outputs,))


def gathered_convolution(inputs: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Convolves `[B, T, D]` with `[taps, D, W]` to `[B, T, W]` in one product; taps are odd."""
    taps, length = len(kernel), inputs.shape[1]
    reach = taps // 2 * dilation
    padded = jnp.pad(inputs, ((0, 0), (reach, reach), (0, 0)))
    views = [
        jax.lax.slice_in_dim(padded, first, first + length, axis=1)
        for first in range(0, 2 * reach + 1, dilation)
    ]
    return jnp.concatenate(views, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def paired_convolution(inputs: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Convolves `[B, T, D]` with `[3, D, W]` to `[B, T, W]`, two snippets in four products.

    Two snippets side by side need six products with a tap each; four are enough, of sums of
    snippets with sums of taps, and the same holds for the gradients. The result is that of
    `gathered_convolution` up to a few float32 roundings.

    Source: Winograd's minimal filtering F(2, 3), as in Lavin & Gray 2016.
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


class Dropout(nn.Module):
    """Dropout whose mask is a hash of each element's number, fused into the surrounding program.

    Drawing a mask of independent random words costs more on a CPU than a layer's matrix product; a
    hash keyed by one draw a call is as good for this purpose and nearly free.

    Attributes:
      rate: share of the elements set to 0; the others are scaled by `1 / (1 − rate)`.
    """

    rate: float

    @nn.compact
    def __call__(self, inputs: jax.Array, *, deterministic: bool) -> jax.Array:
        """Applies dropout with the `"dropout"` stream, or nothing if `deterministic`."""
        if deterministic or self.rate == 0:
            return inputs
        words = hashed_bits(self.make_rng("dropout"), inputs.shape)
        keep = words >= jnp.uint32(min(self.rate, 1) * (2**32 - 1))
        return jnp.where(keep, inputs / (1 - self.rate), jnp.zeros_like(inputs))


def hashed_bits(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """One 32-bit word an element: a keyed avalanche hash (lowbias32) of the element's number."""
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


class Embedding(nn.Module):
    """A stack of temporal convolutions with ReLU, then dropout.

    Attributes:
      widths: features of each layer.
      dilations: snippets between the taps of each layer; one entry a layer.
      kernel_size: taps of every layer.
      dropout: rate after every layer.
      dtype: of the products and of what is embedded.
    """

    widths: Sequence[int] = (2048,)
    dilations: Sequence[int] = (1,)
    kernel_size: int = 3
    dropout: float = 0.7
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, where: jax.Array, deterministic: bool) -> jax.Array:
        """Embeds `[B, T, D]` as `[B, T, W]`; `where` `[B, T]` marks the valid snippets.

        Masked snippets are zeroed before every layer, so that padding reads like the recording's
        end.
        """
        if len(self.widths) != len(self.dilations):
            raise ValueError(
                f"widths={tuple(self.widths)} and dilations={tuple(self.dilations)} differ in "
                "length; expected one dilation a layer"
            )
        valid = where[..., None]
        hidden = jnp.where(valid, features, 0).astype(self.dtype)
        for width, dilation in zip(self.widths, self.dilations, strict=True):
            hidden = TemporalConv(width, self.kernel_size, dilation, self.dtype)(hidden)
            hidden = jnp.where(valid, nn.relu(hidden), 0)
            hidden = Dropout(self.dropout)(hidden, deterministic=deterministic)
        return hidden


def classifier(num_outputs: int, *, dtype: Any, **options: Any) -> nn.Dense:
    """A linear layer whose logits are float32, whatever its products are in."""
    product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    return nn.Dense(num_outputs, dtype=dtype, dot_general=product, **options)
