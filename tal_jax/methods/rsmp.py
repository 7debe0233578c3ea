# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""RSMP as a method: representative-segment modelling from points.

Its pseudo labels are background seeds, optimal sequences and best segments, mined from the class
activation sequence and the points.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax import losses
from tal_jax.data import sliding_window
from tal_jax.data.predictions import Predictions
from tal_jax.data.timeline import Batch, Timeline
from tal_jax.losses import rsmp as rsmp_loss
from tal_jax.losses.rsmp import PseudoLabels
from tal_jax.methods.base import Config, Method, Metrics, apply_to_batch
from tal_jax.models import rsmp
from tal_jax.ops import _platform, pseudo_labels, reassignment


def make_model(config: Config, num_classes: int) -> rsmp.RSMP:
    """The network that a config describes."""
    model = config.model
    return rsmp.RSMP(
        num_classes=num_classes,
        widths=tuple(model.widths),
        dilations=tuple(model.dilations),
        dropout=model.dropout,
        num_prototypes=model.num_prototypes,
        gamma=model.gamma,
        omega=model.omega,
        num_iters=model.num_iters,
        closed_form=model.closed_form,
        dtype=jnp.dtype(model.precision),
    )


def no_pseudo_labels(timeline: Timeline, num_recordings: int, num_samples: int) -> PseudoLabels:
    """Pseudo labels before the first search."""
    shape = num_recordings, timeline.video_classes.shape[1], num_samples
    return PseudoLabels(
        background=jnp.zeros((num_recordings, num_samples), bool),
        sequences=jnp.zeros(shape, bool),
        best=jnp.zeros((*shape, 2), jnp.int32),
        contrasts=jnp.full(shape, -jnp.inf, jnp.float32),
        ready=jnp.zeros(num_recordings, bool),
    )


def loss(
    model: rsmp.RSMP,
    config: Config,
    params: Any,
    batch: Batch,
    pseudo: PseudoLabels,
    weights: Metrics,
    key: jax.Array,
) -> Metrics:
    """The loss of a batch and its parts."""
    outputs = apply_to_batch(model, params, batch, key)
    segments = rsmp_loss.sequence_segments(batch, pseudo)
    compared = rsmp_loss.compared_segments(batch, segments)
    parts = rsmp_loss.rsmp_losses(
        outputs.logits,
        rsmp.pool(outputs, compared.weights),
        batch,
        pseudo,
        segments,
        compared,
        topk_ratio=config.loss.topk_ratio,
        delta=config.loss.delta,
        select=config.loss.select,
        temperature=config.loss.temperature,
    )
    return rsmp_loss.weighted_sum(parts, weights)


def logits(
    model: rsmp.RSMP, config: Config, params: Any, features: jax.Array, where: jax.Array
) -> jax.Array:
    """Per-snippet logits `[B, N, C + 1]` of the branch that the config selects."""
    outputs: Any = model.apply({"params": params}, features, where=where)
    return rsmp.select_logits(outputs.logits, config.model.branch)


def predictions(config: Config, logits: jax.Array, where: jax.Array) -> Predictions:
    """Class activation sequence, actionness and video-level scores of B recordings."""
    cas, background = rsmp_loss.fuse(logits)
    pool = functools.partial(losses.topk_pool, topk_ratio=config.loss.topk_ratio)
    return Predictions(cas, 1 - background, jax.vmap(pool)(cas, where=where))


# --- long recordings ---


def sliding_logits(
    model: rsmp.RSMP, config: Config, params: Any, windows: sliding_window.Windows
) -> np.ndarray:
    """`logits` of one recording `[N, C + 1]`, read window by window.

    Reads the recording `num_iters + 1` times, and once more for the closed form.
    """
    prototypes = None
    if model.num_prototypes:
        prototypes = _sliding_prototypes(model, params, windows)
    return sliding_window.join(
        _window_logits(model, config.model.branch, params, prototypes, window) for window in windows
    )


def _sliding_prototypes(
    model: rsmp.RSMP, params: Any, windows: sliding_window.Windows
) -> tuple[jax.Array, jax.Array]:
    """Prototypes of the whole recording: to assign to, and to mix with."""

    def whole(prototypes: jax.Array) -> Any:
        sums = (_window_sums(model, params, prototypes, window) for window in windows)
        return functools.reduce(functools.partial(jax.tree.map, jnp.add), sums)

    assigned = mixed = params["prototypes"]
    for _ in range(model.num_iters):
        assigned = mixed
        mixed = reassignment.update_from_sums(whole(assigned), assigned, omega=model.omega)
    if model.closed_form:
        assigned = mixed
        mixed = reassignment.limit_from_sums(whole(assigned), assigned, omega=model.omega)
    return assigned, mixed


@functools.partial(jax.jit, static_argnames="model")
def _window_sums(
    model: rsmp.RSMP, params: Any, prototypes: jax.Array, window: sliding_window.Window
) -> Any:
    hidden, _ = rsmp.embed_window(model, params, window.features, where=window.where)
    return reassignment.sum_piece(hidden, prototypes, gamma=model.gamma, where=window.core)


@functools.partial(jax.jit, static_argnames=("model", "branch"))
def _window_logits(
    model: rsmp.RSMP, branch: str, params: Any, prototypes: Any, window: sliding_window.Window
) -> tuple[jax.Array, jax.Array]:
    logits = rsmp.window_logits(model, params, prototypes, window.features, where=window.where)
    return rsmp.select_logits(logits, branch), window.core


# --- pseudo labels ---


def search(model: rsmp.RSMP, config: Config, params: Any, batch: Batch) -> PseudoLabels:
    """Seeds, optimal sequences and best segments of a batch from the network's predictions."""
    found = logits(model, config, params, batch.features, batch.where)
    cas, background = rsmp_loss.fuse(found)
    search_one = functools.partial(search_recording, config=config)
    return PseudoLabels(
        *_of_each(search_one, cas, background, batch), ready=jnp.ones(len(batch.where), bool)
    )


def _of_each(function: Callable[..., Any], *arrays: Any) -> Any:
    """`vmap` on accelerators, `lax.map` on a CPU.

    Under `vmap` a loop of data-dependent length runs as long as the longest needs, and a CPU gains
    nothing from width.
    """
    return _platform.choose(
        arrays,
        cpu=lambda arrays: jax.lax.map(lambda args: function(*args), arrays),
        default=lambda arrays: jax.vmap(function)(*arrays),
    )


def search_recording(
    scores: jax.Array,
    background: jax.Array,
    batch: Batch,
    config: Config,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Pseudo labels of one recording of a batch.

    A segment of an optimal sequence holds a point of its class and nothing that is blocked, so it
    is among those that compete for the best segment. Segments stay in done stretches: to
    them, unknown time is blocked, and a point in it has none.

    Returns:
      Background seeds `[N]`, and of its video classes the optimal sequences `[L, N]`, the best
      segment of each positive snippet `[L, N, 2]` and its OIC score `[L, N]`.
    """
    seeds = pseudo_labels.mine_seeds(
        background,
        batch.points,
        action_threshold=config.seeds.action_threshold,
        background_threshold=config.seeds.background_threshold,
        force_between=config.seeds.force_between,
        where=batch.where,
        done=batch.done,
        background_points=batch.background,
    )
    unknown = batch.where & ~batch.done

    def one_class(
        scores: jax.Array, action: jax.Array, points: jax.Array, negative: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        others = (batch.points & negative).any(axis=1) & ~points
        known = seeds.background | others | unknown
        options = {"delta": config.loss.delta, "where": batch.where}
        sequence = pseudo_labels.optimal_sequence(scores, action, known, **options)
        best = pseudo_labels.best_segments(scores, points, known, **options)
        return sequence.labels, best.segment, best.contrast

    sequences, best, contrasts = _of_each(
        one_class,
        rsmp_loss.video_class_scores(scores, batch.video_classes),
        seeds.action.T & ~unknown,
        batch.points.T,
        batch.negative_classes,
    )
    return seeds.background, sequences & batch.video_class_where[:, None], best, contrasts


METHOD = Method(
    supervision="points",
    loss_weights=(
        "lambda_vid",
        "lambda_point",
        "lambda_pres",
        "lambda_ins",
        "action_weight",
        "feat_weight",
    ),
    progress_terms={
        "vid": "video",
        "point": "point",
        "pres": "representative",
        "ins": "instance",
    },
    make_model=make_model,
    no_pseudo_labels=no_pseudo_labels,
    search=search,
    loss=loss,
    logits=logits,
    sliding_logits=sliding_logits,
    predictions=predictions,
)
