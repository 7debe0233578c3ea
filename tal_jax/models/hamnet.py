# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""HAM-Net: hybrid attention mechanism network for weakly supervised action localization."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float
from tal_jax.models import layers
from tal_jax.ops import attention as attention_ops

VARIANTS = ("document", "published")
_ATTENTION_LAYERS = 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HAMNetOutput:
    """Class activation sequences (CAS) of a batch, one for each branch, and the attention.

    The last channel of the logits is the background. `soft` is None in the document variant, `hard`
    in the document variant outside training.
    """

    attention: jax.Array  # [B, T] soft attention (actionness)
    semi_attention: jax.Array  # [B, T] semi-soft attention
    base: jax.Array  # [B, T, C + 1] logits
    semi: jax.Array  # [B, T, C + 1] logits
    soft: jax.Array | None  # [B, T, C + 1] logits
    hard: jax.Array | None  # [B, T, C + 1] logits


class HAMNet(nn.Module):
    """HAM-Net: class activation sequences (CAS) with and without hybrid attention.

    Attributes:
      num_classes: number of action classes C.
      variant: `"document"` or `"published"`, see `ops.attention`.
      widths: features of the classifier's convolutions.
      attention_width: features of the published attention branch's convolutions.
      dropout: rate before the classifier's last layer.
      gamma: threshold of the published semi-soft and hard attention, relative to the maximum.
      low: lower threshold of the document's attentions.
      high: upper threshold of the document's attentions.
      drop_rate: share of the snippets that the document's hard attention masks.
      smoothing: snippets of the moving average of attention and logits, odd; 1 is none.
      dtype: of the convolutions; parameters, logits and attentions are float32.

    Source: Islam, Long & Radke, AAAI 2021 (`"published"`).
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
        """Receptive field: snippets on each side of one that its outputs depend on."""
        once = max(len(self.widths), _ATTENTION_LAYERS) + self.smoothing // 2
        # The document's attention comes from logits and weighs features that are classified again.
        return 2 * once

    @nn.compact
    def __call__(
        self,
        features: Float[ArrayLike, "B T D"],
        *,
        where: Bool[ArrayLike, "B T"],
        deterministic: bool = True,
    ) -> HAMNetOutput:
        """Predicts class activation sequences (CAS) and attention.

        Args:
          features: `[B, T, D]`.
          where: `[B, T]` True on the valid snippets.
          deterministic: False applies dropout and draws the document's hard attention, with the
            `"dropout"` random stream.

        Returns:
          Logits of each branch and the attentions; entries of masked snippets carry no meaning.

        Raises:
          ValueError: if `variant` is none of `VARIANTS`.
        """
        if self.variant not in VARIANTS:
            raise ValueError(f"variant={self.variant!r}; expected one of {', '.join(VARIANTS)}")
        features, where = jnp.asarray(features), jnp.asarray(where)
        classifier = Classifier(
            self.num_classes, self.widths, self.dropout, self.dtype, name="classifier"
        )

        def classify(features: Array) -> Array:
            logits = classifier(features, where=where, deterministic=deterministic)
            return smooth(logits, where, self.smoothing)

        base = classify(features)
        if self.variant == "published":
            return self._published(features, base, where)
        return self._document(features, base, where, classify, deterministic)

    def _document(
        self,
        features: Array,
        base: Array,
        where: Array,
        classify: Callable[[Array], Array],
        deterministic: bool,
    ) -> HAMNetOutput:
        soft = jax.vmap(attention_ops.soft_attention)(base, where=where)
        semi_of = functools.partial(attention_ops.semi_soft_attention, low=self.low, high=self.high)
        semi = jax.vmap(semi_of)(soft, where=where)
        hard = None
        if not deterministic:
            keys = jax.random.split(self.make_rng("dropout"), features.shape[0])
            hard_of = functools.partial(
                attention_ops.hard_attention, low=self.low, drop_rate=self.drop_rate
            )
            kept = jax.vmap(hard_of)(soft, keys, where=where)
            hard = classify(features * kept[..., None])
        return HAMNetOutput(soft, semi, base, classify(features * semi[..., None]), None, hard)

    def _published(self, features: Array, base: Array, where: Array) -> HAMNetOutput:
        attend = AttentionBranch(self.attention_width, self.dtype, name="attention")
        soft = attend(features, where=where)
        soft = smooth(soft[..., None], where, self.smoothing)[..., 0]
        semi, hard = (
            jax.vmap(functools.partial(function, gamma=self.gamma))(soft, where=where)
            for function in (
                attention_ops.published_semi_soft_attention,
                attention_ops.published_hard_attention,
            )
        )
        weigh = jax.vmap(attention_ops.attend)
        return HAMNetOutput(
            soft, semi, base, weigh(base, semi), soft[..., None] * base, weigh(base, hard)
        )


class Classifier(nn.Module):
    """Snippet classifier: temporal convolutions and a linear layer over classes and background."""

    num_classes: int
    widths: Sequence[int]
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "B T D"], *, where: Bool[Array, "B T"], deterministic: bool
    ) -> Float[Array, "B T C1"]:
        """Maps features `[B, T, D]` to logits `[B, T, C + 1]`."""
        hidden = _convolve(features, where, self.widths, self.dtype)
        hidden = layers.Dropout(self.dropout)(hidden, deterministic=deterministic)
        return layers.classifier(self.num_classes + 1, dtype=self.dtype)(hidden)


class AttentionBranch(nn.Module):
    """Soft attention (actionness) from features: two temporal convolutions and a sigmoid."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "B T D"], *, where: Bool[Array, "B T"]
    ) -> Float[Array, "B T"]:
        """Maps features `[B, T, D]` to attention `[B, T]` in [0, 1]; 0 where masked."""
        hidden = _convolve(features, where, (self.width,) * _ATTENTION_LAYERS, self.dtype)
        attention = jax.nn.sigmoid(layers.classifier(1, dtype=self.dtype)(hidden)[..., 0])
        return jnp.where(where, attention, 0)


def _convolve(features: Array, where: Array, widths: Sequence[int], dtype: Any) -> Array:
    """Convolutions with leaky ReLU, `[B, T, D]` to `[B, T, W]`, inside a module's `__call__`."""
    valid = where[..., None]
    hidden = jnp.where(valid, features, 0).astype(dtype)
    for width in widths:
        hidden = nn.leaky_relu(layers.TemporalConv(width, dtype=dtype)(hidden), 0.2)
        hidden = jnp.where(valid, hidden, 0)
    return hidden


def smooth(
    values: Float[Array, "B T N"], where: Bool[Array, "B T"], width: int
) -> Float[Array, "B T N"]:
    """Masked moving average over time.

    Args:
      values: `[B, T, N]`.
      where: `[B, T]` True on the valid snippets.
      width: snippets of the window, odd and static; 1 returns the values.

    Returns:
      `[B, T, N]`, means of the valid snippets of each window.
    """
    if width == 1:
        return values
    reach = width // 2

    def window_sum(values: Array) -> Array:
        padded = jnp.pad(values, ((0, 0), (reach, reach), (0, 0)))
        shifts = (
            jax.lax.slice_in_dim(padded, i, i + values.shape[1], axis=1) for i in range(width)
        )
        return functools.reduce(jnp.add, shifts)

    valid = where[..., None].astype(values.dtype)
    return window_sum(jnp.where(where[..., None], values, 0)) / jnp.maximum(window_sum(valid), 1)
