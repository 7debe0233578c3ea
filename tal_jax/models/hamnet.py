"""HAM-Net in both readings: a classifier of snippets, and attentions that hide what is easy."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tal_jax.models import layers
from tal_jax.ops import attention as attention_ops

VARIANTS = ("document", "published")
_ATTENTION_LAYERS = 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attended:
    """What the network says of a batch: one set of logits a branch, the last channel background."""

    attention: jax.Array  # [B, T] soft
    semi_attention: jax.Array  # [B, T]
    base: jax.Array  # [B, T, C + 1]
    semi: jax.Array  # [B, T, C + 1]
    soft: jax.Array | None  # [B, T, C + 1], published only
    hard: jax.Array | None  # [B, T, C + 1]; None in the document's reading outside training


class HAMNet(nn.Module):
    """Classifies snippets once with and several times under attention.

    Attributes:
      num_classes: number of action classes C.
      variant: `"document"` or `"published"`, see `ops.attention`.
      widths: features of the classifier's convolutions.
      attention_width: features of the published attention branch's convolutions.
      dropout: rate before the classifier's last layer.
      gamma: of the published attentions.
      low: of the document's attentions.
      high: of the document's attentions.
      drop_rate: of the document's hard attention.
      smoothing: snippets over which attention and logits are averaged, odd; 1 leaves them.
      dtype: of the convolutions; parameters, logits and attentions are float32.
    """

    num_classes: int
    variant: str = "published"
    widths: Sequence[int] = (2048, 2048)
    attention_width: int = 512
    dropout: float = 0.7
    gamma: float = 0.2
    low: float = 0.2
    high: float = 0.8
    drop_rate: float = 0.8
    smoothing: int = 1
    dtype: Any = jnp.float32

    @property
    def reach(self) -> int:
        """Snippets on each side of one that what is said of it depends on."""
        once = max(len(self.widths), _ATTENTION_LAYERS) + self.smoothing // 2
        # The document's attention is read from the logits, and weighs what is then read again.
        return 2 * once

    @nn.compact
    def __call__(
        self, features: jax.Array, *, where: jax.Array, deterministic: bool = True
    ) -> Attended:
        """Classifies every snippet.

        Args:
          features: `[B, T, D]`.
          where: `[B, T]` True on the valid snippets.
          deterministic: False applies dropout and draws the document's hard attention, with the
            `"dropout"` random stream.
        """
        if self.variant not in VARIANTS:
            raise ValueError(f"variant={self.variant!r}; expected one of {', '.join(VARIANTS)}")
        classifier = Classifier(
            self.num_classes, self.widths, self.dropout, self.dtype, name="classifier"
        )

        def classify(features):
            logits = classifier(features, where=where, deterministic=deterministic)
            return smooth(logits, where, self.smoothing)

        base = classify(features)
        if self.variant == "published":
            return self._published(features, base, where)
        return self._document(features, base, where, classify, deterministic)

    def _document(self, features, base, where, classify, deterministic) -> Attended:
        soft = jax.vmap(_masked(attention_ops.soft_attention))(base, where)
        semi_of = functools.partial(attention_ops.semi_soft_attention, low=self.low, high=self.high)
        semi = jax.vmap(_masked(semi_of))(soft, where)
        hard = None
        if not deterministic:
            keys = jax.random.split(self.make_rng("dropout"), features.shape[0])
            seen = jax.vmap(
                lambda attention, key, where: attention_ops.hard_attention(
                    attention, key, low=self.low, drop_rate=self.drop_rate, where=where
                )
            )(soft, keys, where)
            hard = classify(features * seen[..., None])
        return Attended(soft, semi, base, classify(features * semi[..., None]), None, hard)

    def _published(self, features, base, where) -> Attended:
        attend = AttentionBranch(self.attention_width, self.dtype, name="attention")
        soft = attend(features, where=where)
        soft = smooth(soft[..., None], where, self.smoothing)[..., 0]
        semi, hard = (
            jax.vmap(_masked(functools.partial(function, gamma=self.gamma)))(soft, where)
            for function in (
                attention_ops.published_semi_soft_attention,
                attention_ops.published_hard_attention,
            )
        )
        weigh = jax.vmap(attention_ops.attend)
        return Attended(
            soft, semi, base, weigh(base, semi), soft[..., None] * base, weigh(base, hard)
        )


class Classifier(nn.Module):
    """Two temporal convolutions and a linear layer over classes and background."""

    num_classes: int
    widths: Sequence[int]
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, where: jax.Array, deterministic: bool) -> jax.Array:
        """Maps `[B, T, D]` to logits `[B, T, C + 1]`."""
        hidden = _convolve(features, where, self.widths, self.dtype)
        hidden = layers.Dropout(self.dropout)(hidden, deterministic=deterministic)
        return layers.classifier(self.num_classes + 1, dtype=self.dtype)(hidden)


class AttentionBranch(nn.Module):
    """Two temporal convolutions and a sigmoid."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, where: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T]` in [0, 1]; 0 where masked."""
        hidden = _convolve(features, where, (self.width,) * _ATTENTION_LAYERS, self.dtype)
        attention = jax.nn.sigmoid(layers.classifier(1, dtype=self.dtype)(hidden)[..., 0])
        return jnp.where(where, attention, 0)


def _convolve(
    features: jax.Array, where: jax.Array, widths: Sequence[int], dtype: Any
) -> jax.Array:
    """Convolutions with leaky ReLU, `[B, T, D]` to `[B, T, W]`, inside a module's `__call__`."""
    valid = where[..., None]
    hidden = jnp.where(valid, features, 0).astype(dtype)
    for width in widths:
        hidden = nn.leaky_relu(layers.TemporalConv(width, dtype=dtype)(hidden), 0.2)
        hidden = jnp.where(valid, hidden, 0)
    return hidden


def smooth(values: jax.Array, where: jax.Array, width: int) -> jax.Array:
    """Averages `[B, T, N]` over the `width` valid snippets around each; `width` is odd."""
    if width == 1:
        return values
    reach = width // 2

    def window_sum(values):
        padded = jnp.pad(values, ((0, 0), (reach, reach), (0, 0)))
        taps = (jax.lax.slice_in_dim(padded, i, i + values.shape[1], axis=1) for i in range(width))
        return sum(taps)

    valid = where[..., None].astype(values.dtype)
    return window_sum(jnp.where(where[..., None], values, 0)) / jnp.maximum(window_sum(valid), 1)


def _masked(function):
    """Takes the mask by position, for `vmap`."""
    return lambda values, where: function(values, where=where)
