# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Layers that both networks share: temporal convolution, dropout, embedding and classifier."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float
from tal_jax.models import _cpu
from tal_jax.ops import _platform


class TemporalConv(nn.Module):
    """Temporal convolution (1-D, over snippets), written as matrix products.

    A matrix product over gathered neighbours is as fast as a convolution on accelerators, and many
    times faster inside compiled loops on a CPU. Wide float32 layers of three taps go through
    `_cpu.paired_convolution` there.

    Attributes:
      features: number of output features W.
      kernel_size: number of taps, odd.
      dilation: snippets between taps.
      dtype: of the products and the outputs.
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[ArrayLike, "B T D"]) -> Float[Array, "B T W"]:
        """Maps `[B, T, D]` to `[B, T, W]`; zeros stand outside the sequence."""
        inputs = jnp.asarray(inputs, self.dtype)
        width = inputs.shape[-1]
        parameters = _Linear(self.kernel_size * width, self.features, name="Dense_0")()
        kernel, bias = (jnp.asarray(array, self.dtype) for array in parameters)
        kernel = kernel.reshape(self.kernel_size, width, self.features)
        convolve = functools.partial(temporal_convolution, dilation=self.dilation)
        wide = min(width, self.features) >= _cpu.WIDE
        if wide and self.kernel_size == 3 and inputs.dtype == jnp.float32:
            paired = functools.partial(_cpu.paired_convolution, dilation=self.dilation)
            outputs = _platform.choose(inputs, kernel, cpu=paired, default=convolve)
        else:
            outputs = convolve(inputs, kernel)
        return outputs + bias[None, None, :]


class _Linear(nn.Module):
    """The parameters of a linear map."""

    inputs: int
    outputs: int

    @nn.compact
    def __call__(self) -> tuple[Float[ArrayLike, "I W"], Float[ArrayLike, " W"]]:
        kernel = self.param("kernel", nn.initializers.he_normal(), (self.inputs, self.outputs))
        return kernel, self.param("bias", nn.initializers.zeros, (self.outputs,))


def temporal_convolution(
    inputs: Float[Array, "B T D"], kernel: Float[Array, "taps D W"], *, dilation: int
) -> Float[Array, "B T W"]:
    """Temporal convolution as one matrix product over gathered neighbours.

    Args:
      inputs: `[B, T, D]`.
      kernel: `[taps, D, W]`, an odd number of taps.
      dilation: snippets between taps.

    Returns:
      `[B, T, W]`; zeros stand outside the sequence.
    """
    taps, length = len(kernel), inputs.shape[1]
    reach = taps // 2 * dilation
    padded = jnp.pad(inputs, ((0, 0), (reach, reach), (0, 0)))
    views = [
        jax.lax.slice_in_dim(padded, first, first + length, axis=1)
        for first in range(0, 2 * reach + 1, dilation)
    ]
    return jnp.concatenate(views, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


class Dropout(nn.Module):
    """Dropout; on a CPU its mask is a hash of each element's index, see `_cpu.hashed_bits`.

    Attributes:
      rate: share of the elements set to 0; the others are scaled by `1 / (1 − rate)`.
    """

    rate: float

    @nn.compact
    def __call__(
        self, inputs: Float[ArrayLike, "..."], *, deterministic: bool
    ) -> Float[Array, "..."]:
        """Applies dropout with the `"dropout"` random stream; the identity if `deterministic`."""
        inputs = jnp.asarray(inputs)
        if deterministic or self.rate == 0:
            return inputs
        threshold = jnp.uint32(min(self.rate, 1) * (2**32 - 1))
        words = _platform.choose(
            self.make_rng("dropout"),
            cpu=lambda key: _cpu.hashed_bits(key, inputs.shape),
            default=lambda key: jax.random.bits(key, inputs.shape, jnp.uint32),
        )
        return jnp.where(words >= threshold, inputs / (1 - self.rate), jnp.zeros_like(inputs))


class Embedding(nn.Module):
    """Snippet embedding: a stack of temporal convolutions, each with ReLU and dropout.

    Attributes:
      widths: features of each layer; the last one is W.
      dilations: snippets between the taps of each layer; one entry a layer.
      dropout: rate after every layer.
      dtype: of the products and the embedding.
    """

    widths: Sequence[int] = (2048,)
    dilations: Sequence[int] = (1,)
    dropout: float = 0.7
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[ArrayLike, "B T D"],
        *,
        where: Bool[ArrayLike, "B T"],
        deterministic: bool,
    ) -> Float[Array, "B T W"]:
        """Embeds snippet features.

        Masked snippets are zeroed before every layer, so that padding acts as the end of the
        recording.

        Args:
          features: `[B, T, D]`.
          where: `[B, T]` True on the valid snippets.
          deterministic: False applies dropout, with the `"dropout"` random stream.

        Returns:
          `[B, T, W]`, 0 where masked.

        Raises:
          ValueError: if `widths` and `dilations` differ in length.
        """
        if len(self.widths) != len(self.dilations):
            raise ValueError(
                f"widths={tuple(self.widths)} and dilations={tuple(self.dilations)} differ in "
                "length; expected one dilation a layer"
            )
        valid = jnp.asarray(where)[..., None]
        hidden = jnp.where(valid, features, 0).astype(self.dtype)
        for width, dilation in zip(self.widths, self.dilations, strict=True):
            hidden = TemporalConv(width, dilation=dilation, dtype=self.dtype)(hidden)
            hidden = jnp.where(valid, nn.relu(hidden), 0)
            hidden = Dropout(self.dropout)(hidden, deterministic=deterministic)
        return hidden


def classifier(num_outputs: int, *, dtype: Any, **options: Any) -> nn.Dense:
    """Snippet classifier: a linear layer with float32 logits, whatever the type of its products."""
    product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    return nn.Dense(num_outputs, dtype=dtype, dot_general=product, **options)
