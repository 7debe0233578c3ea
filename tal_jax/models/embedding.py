"""Temporal convolutions that embed snippet features."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class TemporalConv(nn.Module):
    """Convolution over time, written as one matrix product of gathered neighbours.

    Inside compiled loops on a CPU this is many times faster than XLA's convolution, which leaves
    its fast path there; elsewhere it runs at the speed of the matrix product.

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
        length = inputs.shape[1]
        reach = self.kernel_size // 2 * self.dilation
        padded = jnp.pad(inputs, ((0, 0), (reach, reach), (0, 0)))
        taps = [
            jax.lax.slice_in_dim(padded, first, first + length, axis=1)
            for first in range(0, 2 * reach + 1, self.dilation)
        ]
        gathered = jnp.concatenate(taps, axis=-1)
        kernel_init = nn.initializers.he_normal()
        return nn.Dense(self.features, dtype=self.dtype, kernel_init=kernel_init)(gathered)


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
