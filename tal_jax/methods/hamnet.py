"""HAM-Net as a method: its network, losses and scores. It learns from video-level labels alone.

What a method is made of is told in `tal_jax.training.methods`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax import losses
from tal_jax.data import sliding_window
from tal_jax.data import timeline as timelines
from tal_jax.models import hamnet
from tal_jax.training.state import Scores

Metrics = dict[str, jax.Array]

SUPERVISION = "labels"
WEIGHTS = (
    "lambda_base",
    "lambda_soft",
    "lambda_semi",
    "lambda_hard",
    "lambda_sparse",
    "lambda_guide",
)
SHOWN = {"base": "base", "semi": "semi-soft", "hard": "hard"}

# Whether a branch is to see background in every recording. Those under the full attention see none:
# that is what makes attention leave it out.
_BACKGROUND = {"base": 1.0, "soft": 0.0, "semi": 0.0, "hard": 1.0}


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> hamnet.HAMNet:
    """The network that a config describes."""
    model = config.model
    return hamnet.HAMNet(
        num_classes=num_classes,
        variant=model.variant,
        widths=tuple(model.widths),
        attention_width=model.attention_width,
        dropout=model.dropout,
        gamma=model.gamma,
        low=model.low,
        high=model.high,
        drop_rate=model.drop_rate,
        smoothing=model.smoothing,
        dtype=jnp.dtype(model.precision),
    )


def no_pseudo_labels(timeline: timelines.Timeline, num_recordings: int, num_samples: int) -> tuple:
    """There are none."""
    del timeline, num_recordings, num_samples
    return ()


def search(model, config, params, batch) -> tuple:
    """There is nothing to search for."""
    del model, config, params, batch
    return ()


def loss(
    model: hamnet.HAMNet,
    config: ml_collections.ConfigDict,
    params: Any,
    batch: timelines.Batch,
    pseudo: tuple,
    weights: Metrics,
    key: jax.Array,
) -> Metrics:
    """The loss of a batch and its parts."""
    del pseudo
    said = model.apply(
        {"params": params},
        batch.features,
        where=batch.where,
        deterministic=False,
        rngs={"dropout": key},
    )
    parts = batch_losses(said, batch, config)
    return parts | {"loss": sum(weights[f"lambda_{name}"] * part for name, part in parts.items())}


def batch_losses(
    said: hamnet.Attended, batch: timelines.Batch, config: ml_collections.ConfigDict
) -> Metrics:
    """The unweighted loss parts, means over the recordings of a batch."""

    def one(said, slot_labels, slot_where, where):
        num_classes = said.base.shape[-1] - 1
        labels = (jax.nn.one_hot(slot_labels, num_classes) * slot_where[:, None]).any(axis=0)
        parts = {
            name: losses.classification_loss(
                getattr(said, name),
                labels,
                background=background,
                topk_ratio=config.loss.topk_ratio,
                where=where,
            )
            for name, background in _BACKGROUND.items()
            if getattr(said, name) is not None
        }
        if config.model.variant == "published":
            background = jax.nn.softmax(said.base, axis=-1)[:, -1]
            parts["sparse"] = losses.sparsity_loss(said.attention, where=where)
            parts["guide"] = losses.guide_loss(said.attention, background, where=where)
        return parts

    parts = jax.vmap(one)(said, batch.slot_labels, batch.slot_where, batch.where)
    return jax.tree.map(lambda values: values.mean(axis=0), parts)


def read_logits(
    model: hamnet.HAMNet,
    config: ml_collections.ConfigDict,
    params: Any,
    features: jax.Array,
    where: jax.Array,
) -> dict[str, jax.Array]:
    """What the network says of every snippet without any randomness.

    The hard branch is for training only, and so is what the published reading erases of a
    recording's strongest snippets.
    """
    said = model.apply({"params": params}, features, where=where)
    if config.model.branch == "base":
        return {"base": said.base}
    if config.model.variant == "published":
        return {"soft": said.soft, "attention": said.attention}
    return {"base": said.base, "semi": said.semi, "attention": said.semi_attention}


def stream_logits(
    model: hamnet.HAMNet,
    config: ml_collections.ConfigDict,
    params: Any,
    windows: sliding_window.Windows,
) -> dict[str, np.ndarray]:
    """What `read_logits` says of a recording that is read window by window, once."""
    return sliding_window.join(_read_window(model, config, params, window) for window in windows)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def _read_window(model, config, params, window):
    said = read_logits(model, config, params, window.features[None], window.where[None])
    return jax.tree.map(lambda values: values[0], said), window.core


def scores_of(
    config: ml_collections.ConfigDict, said: dict[str, jax.Array], where: jax.Array
) -> Scores:
    """The scores that what `read_logits` says means.

    With `model.branch="base"` those of the classifier without any attention.
    """
    published = config.model.variant == "published"

    def video(logits, where):
        pooled = losses.topk_pool(logits, topk_ratio=config.loss.topk_ratio, where=where)
        return jax.nn.softmax(pooled)[:-1]

    video = jax.vmap(video)
    if config.model.branch == "base":
        softmax = jax.nn.softmax(said["base"])
        scores = said["base"] if published else softmax
        return Scores(scores[..., :-1], 1 - softmax[..., -1], video(said["base"], where))
    if published:
        return Scores(said["soft"][..., :-1], said["attention"], video(said["soft"], where))
    softmax = (jax.nn.softmax(said["base"]) + jax.nn.softmax(said["semi"])) / 2
    scores = said["attention"][..., None] * softmax[..., :-1]
    present = (video(said["base"], where) + video(said["semi"], where)) / 2
    return Scores(scores, said["attention"], present)
