# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The detector as a second stage: boundaries learned from pseudo or true segments."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tal_jax.data.timeline import Batch
from tal_jax.losses import detector as detector_loss
from tal_jax.methods.base import Config, Metrics, Trainable, apply_to_batch
from tal_jax.models import detector
from tal_jax.ops import anchors as anchor_ops


def make_model(config: Config, num_classes: int) -> detector.Detector:
    """The network that a config describes."""
    model = config.model
    return detector.Detector(
        num_classes=num_classes,
        width=model.width,
        num_levels=model.num_levels,
        dropout=model.dropout,
        dtype=jnp.dtype(model.precision),
    )


def loss(
    model: detector.Detector,
    config: Config,
    params: Any,
    batch: Batch,
    pseudo: tuple[()],
    weights: Metrics,
    key: jax.Array,
) -> Metrics:
    """The loss of a batch and its parts."""
    del config, pseudo
    outputs = apply_to_batch(model, params, batch, key)
    classes = jnp.take_along_axis(batch.video_classes, batch.segment_class_index, axis=1)
    parts = detector_loss.detector_losses(
        outputs.logits,
        outputs.offsets,
        anchors_of_outputs(model, outputs.logits),
        batch.segments,
        classes,
        segment_where=batch.segment_where,
        where=outputs.where,
        background=_background_anchors(model, batch),
        length=batch.where.sum(axis=1, dtype=jnp.int32),
    )
    total = parts["classification"] + weights["lambda_ends"] * parts["ends"]
    return {**parts, "loss": total}


def anchors_of_outputs(model: detector.Detector, logits: jax.Array) -> anchor_ops.Anchors:
    """The anchors that the network's logits `[B, A, C]` belong to."""
    # T + T / 2 + ... = A, and T is a multiple of the coarsest stride.
    length = logits.shape[1] * model.multiple // (2 * model.multiple - 1)
    return anchor_ops.pyramid_anchors(length, num_levels=model.num_levels)


def _background_anchors(model: detector.Detector, batch: Batch) -> jax.Array:
    """`[B, A]` True for the anchors that are background unless they learn a segment.

    Those with a background point in their stride, and those whose whole stride is known: done,
    beyond the recording's end, or within a segment, in which no other action begins.
    """
    room = -batch.where.shape[1] % model.multiple
    over_strides = functools.partial(anchor_ops.all_of_strides, num_levels=model.num_levels)

    def padded(flags: jax.Array) -> jax.Array:
        return jnp.pad(flags, ((0, 0), (0, room)), constant_values=True)

    snippet = jnp.arange(batch.where.shape[1])[:, None]
    start, end = jnp.moveaxis(batch.segments[:, None], -1, 0)  # [B, 1, S]
    inside = (start <= snippet) & (snippet + 1 <= end) & batch.segment_where[:, None]
    known = over_strides(padded(batch.done | ~batch.where | inside.any(axis=-1)))
    return known | ~over_strides(padded(~batch.background))


METHOD = Trainable(
    loss_weights=("lambda_ends",),
    progress_terms={"classification": "classification", "ends": "ends"},
    make_model=make_model,
    no_pseudo_labels=lambda timeline, num_recordings, num_samples: (),
    search=lambda model, config, params, batch: (),
    loss=loss,
)
