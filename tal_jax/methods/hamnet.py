# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""HAM-Net as a method: hybrid attention, learned from video-level labels alone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax import losses
from tal_jax.data import sliding_window
from tal_jax.data.predictions import Predictions
from tal_jax.data.timeline import Batch
from tal_jax.losses import hamnet as hamnet_loss
from tal_jax.methods.base import Config, Method, Metrics, apply_to_batch
from tal_jax.models import hamnet


def make_model(config: Config, num_classes: int) -> hamnet.HAMNet:
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


def loss(
    model: hamnet.HAMNet,
    config: Config,
    params: Any,
    batch: Batch,
    pseudo: tuple[()],
    weights: Metrics,
    key: jax.Array,
) -> Metrics:
    """The loss of a batch and its parts."""
    del pseudo
    outputs = apply_to_batch(model, params, batch, key)
    branches = {name: getattr(outputs, name) for name in hamnet_loss.BACKGROUND}
    parts = hamnet_loss.hamnet_losses(
        {name: logits for name, logits in branches.items() if logits is not None},
        outputs.attention if config.model.variant == "published" else None,
        hamnet_loss.video_labels(batch.video_classes, batch.video_class_where, model.num_classes),
        topk_ratio=config.loss.topk_ratio,
        guide_stop_gradient=config.loss.guide_stop_gradient,
        where=batch.done,
    )
    return hamnet_loss.weighted_sum(parts, weights)


def logits(
    model: hamnet.HAMNet, config: Config, params: Any, features: jax.Array, where: jax.Array
) -> dict[str, jax.Array]:
    """Per-snippet logits `[B, N, C + 1]` of the branches that predict, and attention `[B, N]`.

    The hard branch is for training only, and so is the erasing of a recording's strongest snippets
    in the published variant.
    """
    outputs: Any = model.apply({"params": params}, features, where=where)
    if config.model.branch == "base":
        return {"base": outputs.base}
    if config.model.variant == "published":
        return {"soft": outputs.soft, "attention": outputs.attention}
    return {"base": outputs.base, "semi": outputs.semi, "attention": outputs.semi_attention}


def sliding_logits(
    model: hamnet.HAMNet, config: Config, params: Any, windows: sliding_window.Windows
) -> dict[str, np.ndarray]:
    """`logits` of one recording `[N, …]`, read window by window, once."""
    return sliding_window.join(_window_logits(model, config, params, window) for window in windows)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def _window_logits(
    model: hamnet.HAMNet, config: Config, params: Any, window: sliding_window.Window
) -> tuple[dict[str, jax.Array], jax.Array]:
    found = logits(model, config, params, window.features[None], window.where[None])
    return jax.tree.map(lambda values: values[0], found), window.core


def predictions(config: Config, logits: dict[str, jax.Array], where: jax.Array) -> Predictions:
    """Class activation sequence, actionness and video-level scores of B recordings.

    With `model.branch="base"` those of the classifier without any attention.
    """
    published = config.model.variant == "published"

    def one_video(logits: jax.Array, where: jax.Array) -> jax.Array:
        pooled = losses.topk_pool(logits, topk_ratio=config.loss.topk_ratio, where=where)
        return jax.nn.softmax(pooled)[:-1]

    video = jax.vmap(one_video)
    if config.model.branch == "base":
        softmax = jax.nn.softmax(logits["base"])
        cas = logits["base"] if published else softmax
        return Predictions(cas[..., :-1], 1 - softmax[..., -1], video(logits["base"], where))
    attention = logits["attention"]
    if published:
        return Predictions(logits["soft"][..., :-1], attention, video(logits["soft"], where))
    softmax = (jax.nn.softmax(logits["base"]) + jax.nn.softmax(logits["semi"])) / 2
    cas = attention[..., None] * softmax[..., :-1]
    video_scores = (video(logits["base"], where) + video(logits["semi"], where)) / 2
    return Predictions(cas, attention, video_scores)


METHOD = Method(
    supervision="labels",
    loss_weights=(
        "lambda_base",
        "lambda_soft",
        "lambda_semi",
        "lambda_hard",
        "lambda_sparse",
        "lambda_guide",
    ),
    progress_terms={"base": "base", "semi": "semi-soft", "hard": "hard"},
    make_model=make_model,
    # Video-level labels are the only ones.
    no_pseudo_labels=lambda timeline, num_recordings, num_samples: (),
    search=lambda model, config, params, batch: (),
    loss=loss,
    logits=logits,
    sliding_logits=sliding_logits,
    predictions=predictions,
)
