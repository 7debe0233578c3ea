"""The point-supervised network: embedding, feature reassignment, one shared classifier."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tal_jax.models import layers
from tal_jax.ops import reassignment


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Branches:
    """What the network says of a batch: S = 2, first from the original, then from the reassigned
    embedding; S = 1 without reassignment.

    The reassigned embedding is a mixture of the original one and of few prototypes, and all that
    reads it is linear: so it is never built, see `_mix` and `pool`.
    """

    embedding: jax.Array  # [B, T, W] original
    logits: jax.Array  # [S, B, T, C + 1], the last channel is the background
    assignments: jax.Array | None = None  # [B, T, K]
    prototypes: jax.Array | None = None  # [B, K, W] of each recording
    omega: float = dataclasses.field(default=0.0, metadata={"static": True})


class RSMP(nn.Module):
    """Embeds snippets, reassigns the embeddings over prototypes, classifies both.

    Attributes:
      num_classes: number of action classes C.
      widths: features of the embedding's layers; the last one is W.
      dilations: snippets between the taps of each layer.
      dropout: rate after each layer.
      num_prototypes: K; 0 leaves reassignment out, and the reassigned branch is the original one.
      gamma: sharpness of the assignment.
      omega: weight of the new against the old in both steps of the reassignment.
      num_iters: E/M iterations.
      closed_form: whether to iterate to the fixed point, see `ops.reassign`.
      dtype: of the products and the embedding; parameters and logits are float32.
    """

    num_classes: int
    widths: Sequence[int] = (2048,)
    dilations: Sequence[int] = (1,)
    dropout: float = 0.7
    num_prototypes: int = 8
    gamma: float = 5.0
    omega: float = 0.5
    num_iters: int = 2
    closed_form: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, *, where: jax.Array, deterministic: bool = True
    ) -> Branches:
        """Classifies every snippet.

        Args:
          features: `[B, T, D]`.
          where: `[B, T]` True on the valid snippets.
          deterministic: False applies dropout, with the `"dropout"` random stream.

        Returns:
          The original and the reassigned branch; with `num_prototypes=0` the original one alone.
        """
        embed, classify = self.layers()
        hidden = embed(features, where=where, deterministic=deterministic)
        logits = classify(hidden)
        if not self.num_prototypes:
            return Branches(hidden, logits[None])
        shape = (self.num_prototypes, hidden.shape[-1])
        shared = self.param("prototypes", nn.initializers.xavier_uniform(), shape)
        assignments, prototypes = self._reassign(hidden, shared, where)
        reassigned = _mix(logits, assignments, classify(prototypes), self.omega)
        logits = jnp.stack([logits, reassigned])
        return Branches(hidden, logits, assignments, prototypes, self.omega)

    @nn.nowrap
    def layers(self) -> tuple[nn.Module, nn.Module]:
        """The embedding and the classifier; each may be applied to its own part of the params."""
        embed = layers.Embedding(
            self.widths, self.dilations, dropout=self.dropout, dtype=self.dtype, name="Embedding_0"
        )
        classify = layers.classifier(
            self.num_classes + 1, dtype=self.dtype, use_bias=False, name="classifier"
        )
        return embed, classify

    @property
    def reach(self) -> int:
        """Snippets on each side of one that its embedding depends on."""
        return sum(self.dilations)

    def _reassign(self, hidden: jax.Array, prototypes: jax.Array, where: jax.Array):
        def one(hidden, where):
            found = reassignment.reassign(
                hidden,
                prototypes,
                gamma=self.gamma,
                omega=self.omega,
                num_iters=self.num_iters,
                closed_form=self.closed_form,
                where=where,
            )
            return found.assignments, found.prototypes

        return jax.vmap(one)(hidden, where)


def _mix(
    original: jax.Array, assignments: jax.Array, prototypes: jax.Array, omega: float
) -> jax.Array:
    """What a linear map makes of the reassigned embedding.

    Args:
      original: `[B, N, M]` what it makes of the original embedding.
      assignments: `[B, N, K]`.
      prototypes: `[B, K, M]` what it makes of the prototypes.
      omega: the weight of the prototypes.
    """
    return omega * (assignments @ prototypes) + (1 - omega) * original


def embed_piece(
    model: RSMP, params: Any, features: jax.Array, *, where: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Embeds a piece of a recording, `[T, D]`; returns `[T, W]` and the logits `[T, C + 1]`.

    Snippets nearer than `model.reach` to an end of the piece that is none of the recording are not
    those of the whole.
    """
    embed, classify = model.layers()
    hidden = embed.apply(
        {"params": params["Embedding_0"]}, features[None], where=where[None], deterministic=True
    )[0]
    return hidden, classify.apply({"params": params["classifier"]}, hidden)


def sum_piece(
    model: RSMP,
    params: Any,
    prototypes: jax.Array,
    features: jax.Array,
    *,
    where: jax.Array,
    core: jax.Array,
) -> reassignment.Sums:
    """What updating the prototypes needs of the snippets `core` `[T]` of a piece."""
    hidden, _ = embed_piece(model, params, features, where=where)
    return reassignment.sum_piece(hidden, prototypes, gamma=model.gamma, where=core)


def classify_piece(
    model: RSMP,
    params: Any,
    prototypes: tuple[jax.Array, jax.Array] | None,
    features: jax.Array,
    *,
    where: jax.Array,
) -> jax.Array:
    """Logits `[S, T, C + 1]` of a piece.

    Args:
      model: the network.
      params: its parameters.
      prototypes: those that snippets are assigned to, and those that they are mixed with, of the
        whole recording; None where the network has none.
      features: `[T, D]`.
      where: `[T]`.
    """
    hidden, logits = embed_piece(model, params, features, where=where)
    if prototypes is None:
        return logits[None]
    assigned, mixed = prototypes
    assignments = reassignment.assign_prototypes(hidden, assigned, gamma=model.gamma, where=where)
    _, classify = model.layers()
    classified = classify.apply({"params": params["classifier"]}, mixed)
    return jnp.stack([logits, _mix(logits, assignments, classified, model.omega)])


def pool(branches: Branches, weights: jax.Array) -> jax.Array:
    """Weighted sums of embedded snippets.

    Args:
      branches: what the network returned.
      weights: `[B, N, T]` float32.

    Returns:
      `[S, B, N, W]` float32, sums of each branch's embedding.
    """
    original = jnp.einsum(
        "bnt,btw->bnw",
        weights.astype(branches.embedding.dtype),
        branches.embedding,
        preferred_element_type=jnp.float32,
    )
    if branches.assignments is None:
        return original[None]
    shares = weights @ branches.assignments
    return jnp.stack([original, _mix(original, shares, branches.prototypes, branches.omega)])


def select_logits(logits: jax.Array, branch: str) -> jax.Array:
    """Logits `[…, C + 1]` that seeds, search, proposals and detections read.

    Args:
      logits: `[S, …, C + 1]` of the branches.
      branch: `"original"`, `"reassigned"` or `"mean"` (the mean of both).

    Raises:
      ValueError: if `branch` is none of these.
    """
    if branch not in ("original", "reassigned", "mean"):
        raise ValueError(f"branch={branch!r}; expected 'original', 'reassigned' or 'mean'")
    if branch == "mean":
        return logits.mean(axis=0)
    return logits[0 if branch == "original" else -1]
