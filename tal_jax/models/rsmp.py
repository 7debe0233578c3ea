# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""RSMP: representative-segment modelling from points, the point-supervised network."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float
from tal_jax.models import layers
from tal_jax.ops import reassignment


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RSMPOutput:
    """Class activation sequences (CAS) of a batch, and what its reassigned embedding consists of.

    S = 2 branches, first from the original, then from the reassigned embedding; S = 1 without
    reassignment. The reassigned embedding is a mixture of the original one and of few prototypes,
    and only linear maps follow it: so it is never materialised, see `_mix` and `pool`.
    """

    embedding: jax.Array  # [B, T, W] original
    logits: jax.Array  # [S, B, T, C + 1], the last channel is the background
    assignments: jax.Array | None = None  # [B, T, K] soft assignment to the prototypes
    prototypes: jax.Array | None = None  # [B, K, W] of each recording
    omega: float = dataclasses.field(default=0.0, metadata={"static": True})


class RSMP(nn.Module):
    """RSMP network: snippet embedding, feature reassignment, one classifier for both branches.

    Attributes:
      num_classes: number of action classes C.
      widths: features of the embedding's layers; the last one is W.
      dilations: snippets between the taps of each layer.
      dropout: rate after each layer.
      num_prototypes: K; 0 leaves reassignment out, and the reassigned branch is the original one.
      gamma: sharpness γ of the assignment's softmax.
      omega: weight ω of the new against the old in both steps of the reassignment.
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
        self,
        features: Float[ArrayLike, "B T D"],
        *,
        where: Bool[ArrayLike, "B T"],
        deterministic: bool = True,
    ) -> RSMPOutput:
        """Predicts the class activation sequence (CAS) of each branch.

        Args:
          features: `[B, T, D]`.
          where: `[B, T]` True on the valid snippets.
          deterministic: False applies dropout, with the `"dropout"` random stream.

        Returns:
          The original and the reassigned branch; with `num_prototypes=0` the original one alone.
        """
        features, where = jnp.asarray(features), jnp.asarray(where)
        embed, classify = self.layers()
        hidden = embed(features, where=where, deterministic=deterministic)
        logits = classify(hidden)
        if not self.num_prototypes:
            return RSMPOutput(hidden, logits[None])
        shape = (self.num_prototypes, hidden.shape[-1])
        shared = jnp.asarray(self.param("prototypes", nn.initializers.xavier_uniform(), shape))
        assignments, prototypes = self._reassign(hidden, shared, where)
        reassigned = _mix(logits, assignments, classify(prototypes), self.omega)
        logits = jnp.stack([logits, reassigned])
        return RSMPOutput(hidden, logits, assignments, prototypes, self.omega)

    @nn.nowrap
    def layers(self) -> tuple[layers.Embedding, nn.Dense]:
        """The embedding and the classifier, each applicable to its part of the parameters."""
        embed = layers.Embedding(
            self.widths, self.dilations, dropout=self.dropout, dtype=self.dtype, name="Embedding_0"
        )
        classify = layers.classifier(
            self.num_classes + 1, dtype=self.dtype, use_bias=False, name="classifier"
        )
        return embed, classify

    @property
    def reach(self) -> int:
        """Receptive field: snippets on each side of one that its embedding depends on."""
        return sum(self.dilations)

    def _reassign(self, hidden: Array, prototypes: Array, where: Array) -> tuple[Array, Array]:
        def one(hidden: Array, where: Array) -> tuple[Array, Array]:
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
    original: Float[Array, "... N M"],
    assignments: Float[Array, "... N K"],
    prototypes: Float[Array, "... K M"],
    omega: float,
) -> Float[Array, "... N M"]:
    """Applies a linear map to the reassigned embedding without materialising it.

    Args:
      original: `[…, N, M]` the map of the original embedding.
      assignments: `[…, N, K]`.
      prototypes: `[…, K, M]` the map of the prototypes.
      omega: the weight of the prototypes.
    """
    return omega * (assignments @ prototypes) + (1 - omega) * original


# --- sliding-window forward pass: prototypes of the whole recording, then logits by window ---


def embed_window(
    model: RSMP, params: Any, features: Float[Array, "T D"], *, where: Bool[Array, " T"]
) -> tuple[Float[Array, "T W"], Float[Array, "T C1"]]:
    """The snippet embeddings `[T, W]` of a window `[T, D]`, and the logits `[T, C + 1]` of these.

    Snippets nearer than `model.reach` to an end of the window that is none of the recording differ
    from those of a forward pass over the whole recording.
    """
    embed, classify = model.layers()
    hidden = _apply(
        embed, params["Embedding_0"], features[None], where=where[None], deterministic=True
    )[0]
    return hidden, _apply(classify, params["classifier"], hidden)


def window_logits(
    model: RSMP,
    params: Any,
    prototypes: tuple[Float[Array, "K W"], Float[Array, "K W"]] | None,
    features: Float[Array, "T D"],
    *,
    where: Bool[Array, " T"],
) -> Float[Array, "S T C1"]:
    """Class activation sequence (CAS) of one window, given the recording's prototypes.

    Args:
      model: the network.
      params: its parameters.
      prototypes: `[K, W]` each, those that snippets are assigned to and those that they are mixed
        with, of the whole recording; None where the network has none.
      features: `[T, D]` of the window.
      where: `[T]` True on the valid snippets.

    Returns:
      `[S, T, C + 1]` logits of each branch.
    """
    hidden, logits = embed_window(model, params, features, where=where)
    if prototypes is None:
        return logits[None]
    assigned, mixed = prototypes
    assignments = reassignment.assign_prototypes(hidden, assigned, gamma=model.gamma, where=where)
    _, classify = model.layers()
    classified = _apply(classify, params["classifier"], mixed)
    return jnp.stack([logits, _mix(logits, assignments, classified, model.omega)])


def _apply(module: nn.Module, params: Any, *args: Any, **options: Any) -> Array:
    outputs: Any = module.apply({"params": params}, *args, **options)
    return outputs


def pool(outputs: RSMPOutput, weights: Float[ArrayLike, "B N T"]) -> Float[Array, "S B N W"]:
    """Segment embeddings: weighted sums of snippet embeddings over time.

    Args:
      outputs: of the network.
      weights: `[B, N, T]` float32, a row for each segment.

    Returns:
      `[S, B, N, W]` float32, sums of each branch's embedding.
    """
    weights = jnp.asarray(weights)
    original = jnp.einsum(
        "bnt,btw->bnw",
        weights.astype(outputs.embedding.dtype),
        outputs.embedding,
        preferred_element_type=jnp.float32,
    )
    if outputs.assignments is None or outputs.prototypes is None:
        return original[None]
    shares = weights @ outputs.assignments
    return jnp.stack([original, _mix(original, shares, outputs.prototypes, outputs.omega)])


def select_logits(logits: Float[Array, "S ..."], branch: str) -> Float[Array, "..."]:
    """Class activation sequence (CAS) for seeds, optimal sequences, proposals and detections.

    Args:
      logits: `[S, …, C + 1]` of the branches.
      branch: `"original"`, `"reassigned"` or `"mean"` (the mean of both).

    Returns:
      `[…, C + 1]` logits.

    Raises:
      ValueError: if `branch` is none of these.
    """
    if branch not in ("original", "reassigned", "mean"):
        raise ValueError(f"branch={branch!r}; expected 'original', 'reassigned' or 'mean'")
    if branch == "mean":
        return logits.mean(axis=0)
    return logits[0 if branch == "original" else -1]
