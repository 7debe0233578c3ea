# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""What a method provides: everything else is shared by all methods."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax

from tal_jax.config import Config
from tal_jax.data.predictions import Predictions
from tal_jax.data.sliding_window import Windows
from tal_jax.data.timeline import Batch, Timeline

Metrics = dict[str, jax.Array]


def apply_to_batch(model: Any, params: Any, batch: Batch, key: jax.Array) -> Any:
    """Outputs of a network in training, with dropout from `key`."""
    return model.apply(
        {"params": params},
        batch.features,
        where=batch.where,
        deterministic=False,
        rngs={"dropout": key},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainable:
    """A network with its loss and pseudo labels, as pure functions: all that an update needs.

    `model` is the Flax module, `config` a run's config (static under `jit`), `params` the module's
    parameters.

    Attributes:
      loss_weights: names of the values in `config.loss` that weigh the parts of the loss.
      progress_terms: parts of the loss on the progress line, with their titles.
      make_model: `(config, num_classes) -> model`.
      no_pseudo_labels: `(timeline, num_recordings, num_samples) -> pseudo labels` before the first
        search; a pytree whose leaves have a leading axis of recordings.
      search: `(model, config, params, batch) -> pseudo labels`.
      loss: `(model, config, params, batch, pseudo labels, weights, key) -> parts` and "loss".
    """

    loss_weights: tuple[str, ...]
    progress_terms: Mapping[str, str]
    make_model: Callable[[Config, int], Any]
    no_pseudo_labels: Callable[[Timeline, int, int], Any]
    search: Callable[[Any, Config, Any, Batch], Any]
    loss: Callable[[Any, Config, Any, Batch, Any, Metrics, jax.Array], Metrics]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Trainable):
    """What learns from weak labels, and predicts per-snippet scores.

    Its model has a `reach`: the number of snippets on each side that an output depends on, apart
    from what `sliding_logits` sums over the whole recording.

    Attributes:
      supervision: what the method learns from. Points are known for a window of a recording;
        video-level labels are known for the whole only, so such a method samples long recordings.
      logits: `(model, config, params, features [B, N, D], where [B, N]) -> per-snippet logits`, a
        pytree of arrays `[B, N, …]`.
      sliding_logits: `(model, config, params, windows) -> logits` of one long recording, read
        window by window; host arrays `[N, …]`.
      predictions: `(config, logits, where) -> Predictions`.
    """

    supervision: Literal["points", "labels"]
    logits: Callable[[Any, Config, Any, jax.Array, jax.Array], Any]
    sliding_logits: Callable[[Any, Config, Any, Windows], Any]
    predictions: Callable[[Config, Any, jax.Array], Predictions]
