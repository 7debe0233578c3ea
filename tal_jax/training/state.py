"""What training carries from one update to the next."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """Labels that the network's own scores and the points give, for B recordings."""

    background: jax.Array  # [B, N] bool, background seeds
    sequences: jax.Array  # [B, L, N] bool, optimal sequence of each slot
    best: jax.Array  # [B, L, N, 2] int32, of each slot's positive snippets the best segment
    contrasts: jax.Array  # [B, L, N] of these, -inf elsewhere: see `pseudo_labels.best_segments`
    ready: jax.Array  # [B] bool, False until the first search

    @classmethod
    def empty(cls, num_recordings: int, num_slots: int, length: int) -> "PseudoLabels":
        """Labels before the first search."""
        return cls(
            background=jnp.zeros((num_recordings, length), bool),
            sequences=jnp.zeros((num_recordings, num_slots, length), bool),
            best=jnp.zeros((num_recordings, num_slots, length, 2), jnp.int32),
            contrasts=jnp.full((num_recordings, num_slots, length), -jnp.inf, jnp.float32),
            ready=jnp.zeros(num_recordings, bool),
        )

    def window(self, first: jax.Array, size: int) -> "PseudoLabels":
        """What a window of `size` snippets (static) of each recording shows, from `first` `[B]`."""

        def one(labels, first):
            def cut(values, axis):
                return jax.lax.dynamic_slice_in_dim(values, first, size, axis=axis)

            return PseudoLabels(
                background=cut(labels.background, 0),
                sequences=cut(labels.sequences, 1),
                best=cut(labels.best, 1) - first,
                contrasts=cut(labels.contrasts, 1),
                ready=labels.ready,
            )

        return jax.vmap(one)(self, first)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """What a network says of B recordings: all that localization needs."""

    scores: jax.Array  # [B, N, C] confidence of every class
    foreground: jax.Array  # [B, N] how surely there is any action
    video: jax.Array  # [B, C] how surely the recording holds the class


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimiser, and the number of updates made."""

    params: Any
    opt_state: Any
    step: jax.Array  # [] int32
