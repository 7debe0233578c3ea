# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Detector: an anchor-free network on a temporal feature pyramid, for pseudo or true segments."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Shaped
from tal_jax.models import layers

# Score that every class starts with: nearly all anchors are background.
_PRIOR = 0.01
# Layers of each head.
_HEAD_LAYERS = 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DetectorOutput:
    """Outputs at the A anchors of a batch, see `ops.pyramid_anchors`."""

    logits: jax.Array  # [B, A, C] of the classes, independent of each other
    offsets: jax.Array  # [B, A, 2] distances to start and end in strides, above 0
    where: jax.Array  # [B, A] bool, anchors within the recording


class Detector(nn.Module):
    """Convolutional feature pyramid with a classification and a regression head on every level.

    Attributes:
      num_classes: number of action classes C.
      width: features of every layer.
      num_levels: levels of the pyramid, each of half as many positions.
      dropout: rate on the input and after the layers of the heads.
      dtype: of the products; parameters and outputs are float32.
    """

    num_classes: int
    width: int = 128
    num_levels: int = 5
    dropout: float = 0.3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[ArrayLike, "B T D"],
        *,
        where: Bool[ArrayLike, "B T"],
        deterministic: bool = True,
    ) -> DetectorOutput:
        """Predicts at every anchor.

        Args:
          features: `[B, T, D]`.
          where: `[B, T]` True on the valid snippets.
          deterministic: False applies dropout, with the `"dropout"` random stream.

        Returns:
          `DetectorOutput` over T rounded up to a multiple of the coarsest stride.
        """
        features, where = _padded(jnp.asarray(features), jnp.asarray(where), self.multiple)
        hidden = jnp.where(where[..., None], features, 0).astype(self.dtype)
        hidden = layers.Dropout(self.dropout)(hidden, deterministic=deterministic)
        hidden = _Layer(self.width, self.dtype)(hidden, where)
        hidden = _Layer(self.width, self.dtype)(hidden, where)
        heads = (
            _Head(self.width, self.dropout, self.dtype, name="classes"),
            _Head(self.width, self.dropout, self.dtype, name="ends"),
        )
        classify = layers.classifier(
            self.num_classes,
            dtype=self.dtype,
            bias_init=nn.initializers.constant(math.log(_PRIOR / (1 - _PRIOR))),
            name="classifier",
        )
        regress = layers.classifier(2, dtype=self.dtype, name="regressor")
        levels, masks = [hidden], [where]
        for _ in range(1, self.num_levels):
            hidden, where = _halve(levels[-1], masks[-1])
            levels.append(hidden + _Layer(self.width, self.dtype)(hidden, where))
            masks.append(where)
        # The heads are the same on all levels, so these follow each other on one line.
        joined, mask = _join(levels), _join([mask[..., None] for mask in masks])[..., 0]
        of_classes, of_ends = (head(joined, mask, deterministic=deterministic) for head in heads)
        scale = self.param("scale", nn.initializers.zeros, (self.num_levels,))
        sizes = [mask.shape[1] for mask in masks]
        scales = _join(
            [jnp.broadcast_to(one, (1, n, 1)) for one, n in zip(scale, sizes, strict=True)]
        )
        # Between e^-4 and e^4 strides, so that a wrong start does not overflow.
        offsets = jnp.exp(jnp.clip(regress(of_ends) + scales, -4.0, 4.0))
        outputs = (_split(x, sizes) for x in (classify(of_classes), offsets, mask[..., None]))
        logits, offsets, mask = outputs
        return DetectorOutput(logits, offsets, mask[..., 0])

    @property
    def multiple(self) -> int:
        """The coarsest stride, in snippets."""
        return 1 << (self.num_levels - 1)

    @property
    def reach(self) -> int:
        """Snippets on each side of its time that an output depends on.

        A multiple of the coarsest stride.
        """
        # Of an anchor of the coarsest level, in its strides: half of its own, one of the level's
        # layer, the heads. Finer levels add less than one more, the sum of their strides.
        return (1 + 1 + _HEAD_LAYERS + 1) * self.multiple


class _Layer(nn.Module):
    """Temporal convolution, layer normalization and ReLU, 0 where masked."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, hidden: Float[Array, "B T D"], where: Bool[Array, "B T"]) -> Array:
        hidden = layers.TemporalConv(self.width, dtype=self.dtype)(hidden)
        hidden = nn.relu(nn.LayerNorm(dtype=self.dtype)(hidden))
        return jnp.where(where[..., None], hidden, 0)


class _Head(nn.Module):
    """The layers of a head, shared by all levels."""

    width: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B T D"], where: Bool[Array, "B T"], *, deterministic: bool
    ) -> Array:
        for _ in range(_HEAD_LAYERS):
            hidden = _Layer(self.width, self.dtype)(hidden, where)
        return layers.Dropout(self.dropout)(hidden, deterministic=deterministic)


def _padded(features: Array, where: Array, multiple: int) -> tuple[Array, Array]:
    room = -features.shape[1] % multiple
    return jnp.pad(features, ((0, 0), (0, room), (0, 0))), jnp.pad(where, ((0, 0), (0, room)))


def _join(levels: Sequence[Shaped[Array, "B _ W"]]) -> Shaped[Array, "B N W"]:
    """Levels one after the other, each followed by a gap of one: a convolution mixes none."""
    gaps = [jnp.pad(level, ((0, 0), (0, 1), (0, 0))) for level in levels]
    return jnp.concatenate(gaps, axis=1)


def _split(joined: Shaped[Array, "B N W"], sizes: Sequence[int]) -> Shaped[Array, "B A W"]:
    """What `_join` joined, without the gaps."""
    # Not by NumPy: sizes are symbols where the network is exported.
    firsts = itertools.accumulate((size + 1 for size in sizes[:-1]), initial=0)
    parts = [joined[:, first : first + n] for first, n in zip(firsts, sizes, strict=True)]
    return jnp.concatenate(parts, axis=1)


def _halve(
    hidden: Float[Array, "B T W"], where: Bool[Array, "B T"]
) -> tuple[Float[Array, "B half W"], Bool[Array, "B half"]]:
    """The larger of each two neighbours; hidden features are at least 0, and 0 where masked."""
    # Not `max`, whose gradient divides by the number of equal values: where a compiler computes a
    # value twice, and rounds it in two ways, there is none.
    pairs = jnp.where(hidden[:, ::2] >= hidden[:, 1::2], hidden[:, ::2], hidden[:, 1::2])
    return pairs, where[:, ::2] | where[:, 1::2]
