"""The point-supervised system as a method: its network, losses, pseudo labels and scores.

What a method is made of is told in `tal_jax.training.methods`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax import losses
from tal_jax.data import sliding_window
from tal_jax.data import timeline as timelines
from tal_jax.models import rsmp
from tal_jax.ops import _cumsum, contrast, pseudo_labels, reassignment
from tal_jax.training.state import PseudoLabels, Scores

Metrics = dict[str, jax.Array]

SUPERVISION = "points"
WEIGHTS = (
    "lambda_vid",
    "lambda_point",
    "lambda_pres",
    "lambda_ins",
    "action_weight",
    "feat_weight",
)
SHOWN = {"vid": "video", "point": "point", "pres": "representative", "ins": "instance"}


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> rsmp.RSMP:
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


def no_pseudo_labels(
    timeline: timelines.Timeline, num_recordings: int, num_samples: int
) -> PseudoLabels:
    """Those of so many recordings of a timeline before the first search."""
    return PseudoLabels.empty(num_recordings, timeline.recordings.slot_labels.shape[1], num_samples)


def loss(
    model: rsmp.RSMP,
    config: ml_collections.ConfigDict,
    params: Any,
    batch: timelines.Batch,
    pseudo: PseudoLabels,
    weights: Metrics,
    key: jax.Array,
) -> Metrics:
    """The loss of a batch and its parts."""
    branches = model.apply(
        {"params": params},
        batch.features,
        where=batch.where,
        deterministic=False,
        rngs={"dropout": key},
    )
    return total_loss(batch_losses(branches, batch, pseudo, config), weights)


def read_logits(
    model: rsmp.RSMP,
    config: ml_collections.ConfigDict,
    params: Any,
    features: jax.Array,
    where: jax.Array,
) -> jax.Array:
    """What the branch that the config selects says of every snippet, `[B, N, C + 1]`."""
    branches = model.apply({"params": params}, features, where=where)
    return rsmp.select_logits(branches.logits, config.model.branch)


def scores_of(config: ml_collections.ConfigDict, said: jax.Array, where: jax.Array) -> Scores:
    """The scores that logits `[B, N, C + 1]` mean."""
    scores, background = fuse(said)
    video = functools.partial(losses.topk_pool, topk_ratio=config.loss.topk_ratio)
    return Scores(scores, 1 - background, jax.vmap(video)(scores, where=where))


def stream_logits(
    model: rsmp.RSMP,
    config: ml_collections.ConfigDict,
    params: Any,
    windows: sliding_window.Windows,
) -> np.ndarray:
    """The logits `[N, C + 1]` of a recording that is read window by window.

    Reads it `num_iters + 1` times, and once more for the closed form.
    """
    prototypes = None
    if model.num_prototypes:
        prototypes = _stream_prototypes(model, params, windows)
    return sliding_window.join(
        _classify_window(model, config.model.branch, params, prototypes, window)
        for window in windows
    )


def _stream_prototypes(model, params, windows):
    """Prototypes of the whole recording: to assign to, and to mix with."""

    def whole(prototypes):
        sums = (_sum_window(model, params, prototypes, window) for window in windows)
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
def _sum_window(model, params, prototypes, window):
    return rsmp.sum_piece(
        model, params, prototypes, window.features, where=window.where, core=window.core
    )


@functools.partial(jax.jit, static_argnames=("model", "branch"))
def _classify_window(model, branch, params, prototypes, window):
    logits = rsmp.classify_piece(model, params, prototypes, window.features, where=window.where)
    return rsmp.select_logits(logits, branch), window.core


def fuse(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """From logits `[..., C + 1]` to confidences `P_c = p_c (1 − p_bg)` and to `p_bg`."""
    probabilities = jax.nn.sigmoid(logits)
    background = probabilities[..., -1]
    return probabilities[..., :-1] * (1 - background[..., None]), background


def slot_scores(scores: jax.Array, slot_labels: jax.Array) -> jax.Array:
    """Scores `[N, C]` of the labelled classes alone, `[L, N]`."""
    return scores.T[slot_labels]


# --- losses ---


def batch_losses(
    branches: rsmp.Branches,
    batch: timelines.Batch,
    pseudo: PseudoLabels,
    config: ml_collections.ConfigDict,
) -> Metrics:
    """The unweighted loss parts on a batch, means over the branches."""
    segments = jax.vmap(_sequence_segments)(batch, pseudo)
    weights, labels, action, where, feature_overflow = jax.vmap(_choose_segments)(segments, batch)

    def one_branch(logits, embeddings):
        parts = jax.vmap(functools.partial(_recording_losses, config=config))(
            logits, batch, pseudo, segments
        )
        feature = losses.feature_contrast_loss(
            embeddings.reshape(-1, embeddings.shape[-1]),
            *(values.ravel() for values in (labels, action)),
            temperature=config.loss.temperature,
            where=where.ravel(),
        )
        return jax.tree.map(lambda values: values.mean(axis=0), parts) | {"feat": feature}

    parts = jax.vmap(one_branch)(branches.logits, rsmp.pool(branches, weights))
    means = jax.tree.map(lambda values: values.mean(axis=0), parts)
    return means | {
        "segment_overflow": segments.overflow.sum().astype(jnp.float32),
        "feature_overflow": feature_overflow.sum().astype(jnp.float32),
    }


def _sequence_segments(batch, pseudo) -> pseudo_labels.SequenceSegments:
    """The segments of one recording's optimal sequences, none before the first search.

    A class has as many action segments as points at most. In a window two more may begin or end
    outside of it; sequences without any action in the window are left out.
    """
    most = batch.most_points.of_class + 2
    found = jax.vmap(
        lambda labels: pseudo_labels.sequence_segments(
            labels, num_segments=2 * most + 1, where=batch.where
        )
    )(pseudo.sequences)
    searched = _searched(batch, pseudo)
    return dataclasses.replace(
        found,
        where=found.where & searched[:, None],
        overflow=jnp.where(searched, found.overflow, 0),
    )


def _searched(batch, pseudo) -> jax.Array:
    """`[L]` True for the slots whose optimal sequence has any action in the batch's snippets."""
    return pseudo.ready & batch.slot_where & pseudo.sequences.any(axis=1)


def _recording_losses(logits, batch, pseudo, segments, *, config) -> Metrics:
    loss = config.loss
    num_classes = logits.shape[-1] - 1
    # One row a slot; empty slots have no class, so their rows are zero.
    classes = jax.nn.one_hot(batch.slot_labels, num_classes + 1) * batch.slot_where[:, None]
    probabilities = jax.nn.sigmoid(logits)
    positive = batch.points.any(axis=1)
    fused, _ = fuse(logits)
    scores = slot_scores(fused, batch.slot_labels)
    present, unsure = _classes_in_view(batch, pseudo)

    def any_of(slots):
        return (classes[:, :num_classes] * slots[:, None]).any(axis=0)

    return {
        "vid": losses.video_loss(
            probabilities[:, :num_classes],
            any_of(present),
            topk_ratio=loss.topk_ratio,
            where=batch.where,
            counted=~any_of(unsure),
        ),
        "point_action": losses.focal_loss(
            logits, jnp.minimum(batch.points @ classes, 1), where=positive
        ),
        "point_background": losses.focal_loss(
            logits,
            jax.nn.one_hot(jnp.full(logits.shape[0], num_classes), num_classes + 1),
            where=pseudo.background & pseudo.ready,
        ),
        "score": _score_loss(scores, segments, pseudo, batch, config),
        "ins": losses.dense_loss(
            logits,
            _instance_targets(batch.instances @ classes),
            where=batch.where & batch.instances.any(),
        ),
    }


def _classes_in_view(batch, pseudo) -> tuple[jax.Array, jax.Array]:
    """`[L]` each: the slots whose class a batch's recording holds, and those that it may hold.

    A whole recording holds its labelled classes. A window holds those with a point in it; others
    of which a pseudo label reaches into it, or that have no point at all, are neither taught nor
    ruled out.
    """
    clicked = batch.points.any(axis=0)
    reaches = batch.instances.any(axis=0) | _searched(batch, pseudo)
    present = batch.slot_where & (clicked | ~batch.cut)
    return present, batch.slot_where & ~present & (reaches | ~batch.slot_clicked)


def _score_loss(scores, segments, pseudo, batch, config):
    loss = config.loss
    length = batch.where.sum(dtype=jnp.int32)

    def one_slot(scores, segments, best, contrasts):
        contrast_of = functools.partial(
            contrast.contrast_between,
            _cumsum.prefix_sum(scores, where=batch.where),
            delta=loss.delta,
            length=length,
        )
        if loss.select == "best":
            # Of the best segments of all points those that lie in the window as a whole.
            inside = (best[:, 0] >= 0) & (best[:, 1] <= length)
            contrasts = jnp.where(inside, contrasts, -jnp.inf)
            winner = contrasts.argmax()
            start, end = best[winner][:, None]
            lost = losses.best_contrast_loss(contrast_of(start, end))
            return lost, jnp.isfinite(contrasts[winner])
        starts, ends = segments.segments.T
        contrasts = contrast_of(starts, ends, inverted=~segments.action)
        lost = losses.sequence_contrast_loss(contrasts, segments.action, where=segments.where)
        return lost, jnp.bool_(True)

    values, exists = jax.vmap(one_slot)(scores, segments, pseudo.best, pseudo.contrasts)
    counted = _searched(batch, pseudo) & exists
    return jnp.where(counted, values, 0).sum() / jnp.maximum(counted.sum(), 1)


def _instance_targets(classes: jax.Array) -> jax.Array:
    """Targets `[N, C + 1]` of rows with sum 1, background where no instance is."""
    classes = jnp.minimum(classes, 1)
    total = classes.sum(axis=-1, keepdims=True)
    background = jax.nn.one_hot(classes.shape[-1] - 1, classes.shape[-1])
    return jnp.where(total > 0, classes / jnp.maximum(total, 1), background)


# Most action segments of a recording, and most background segments, that features are compared of:
# the comparison takes the square of their number in memory, over a whole batch.
_MOST_COMPARED = 256


def _choose_segments(found, batch):
    """The action and the background segments of a recording whose features are compared.

    Returns:
      The weights of the snippets in their means `[N, T]`, labels, whether they are actions, and
      whether they exist, `[N]` each, and `[]` how many more there are than `_MOST_COMPARED`.
    """
    num_slots = len(batch.slot_where)
    most = min(batch.most_points.of_all + 3 * num_slots, _MOST_COMPARED, found.where.size)
    labels = jnp.broadcast_to(batch.slot_labels[:, None], found.where.shape)

    def in_turns(values):
        """One of each class, then the next of each, so that what does not fit is of all alike."""
        return jnp.swapaxes(values, 0, 1).reshape(-1, *values.shape[2:])

    def pick(kind):
        chosen = in_turns(found.where & kind)
        total = chosen.sum(dtype=jnp.int32)
        index = jnp.nonzero(chosen, size=most, fill_value=chosen.shape[0] - 1)[0]
        exists = jnp.arange(most) < total
        kept = in_turns(found.segments)[index], in_turns(labels)[index], exists
        return kept, jnp.maximum(total - most, 0)

    actions, more_actions = pick(found.action)
    backgrounds, more_backgrounds = pick(~found.action)
    segments, labels, exists = map(jnp.concatenate, zip(actions, backgrounds, strict=True))
    at = jnp.arange(batch.where.shape[0])
    inside = (at >= segments[:, :1]) & (at < segments[:, 1:]) & exists[:, None]
    weights = inside / jnp.maximum(inside.sum(axis=1, keepdims=True), 1)
    action = jnp.arange(2 * most) < most
    return weights, labels, action, exists, more_actions + more_backgrounds


def total_loss(parts: Metrics, weights: Metrics) -> Metrics:
    """Weighs the parts: adds `point`, `pres` and the total `loss`."""
    point = weights["action_weight"] * parts["point_action"] + parts["point_background"]
    pres = parts["score"] + weights["feat_weight"] * parts["feat"]
    total = (
        weights["lambda_vid"] * parts["vid"]
        + weights["lambda_point"] * point
        + weights["lambda_pres"] * pres
        + weights["lambda_ins"] * parts["ins"]
    )
    return parts | {"point": point, "pres": pres, "loss": total}


# --- pseudo labels ---


def search(
    model: rsmp.RSMP, config: ml_collections.ConfigDict, params: Any, batch: timelines.Batch
) -> PseudoLabels:
    """Seeds, optimal sequences and best segments of a batch from the network's scores."""
    scores, background = fuse(read_logits(model, config, params, batch.features, batch.where))
    found = _of_each(functools.partial(search_recording, config=config), scores, background, batch)
    return PseudoLabels(*found, ready=jnp.ones(len(batch.where), bool))


def _of_each(function, *arrays):
    """`vmap`, for functions with loops as long as their data want.

    Side by side, all wait for the longest. On a CPU, which gains nothing from width, they go one
    after another instead.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda args: function(*args), arrays)
    return jax.vmap(function)(*arrays)


def search_recording(
    scores: jax.Array,
    background: jax.Array,
    batch: timelines.Batch,
    config: ml_collections.ConfigDict,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Pseudo labels of one recording.

    A segment of an optimal sequence holds a point of its class and nothing that is blocked, so it
    is among those that compete for the best segment.

    Args:
      scores: `[N, C]` confidences.
      background: `[N]` background probabilities.
      batch: one recording of a batch.
      config: see `compiled_config`.

    Returns:
      Background seeds `[N]`, and of its slots optimal sequences `[L, N]`, the best segment of each
      positive snippet `[L, N, 2]` and its contrast `[L, N]`.
    """
    seeds = pseudo_labels.mine_seeds(
        background,
        batch.points,
        action_threshold=config.seeds.action_threshold,
        background_threshold=config.seeds.background_threshold,
        force_between=config.seeds.force_between,
        where=batch.where,
    )

    def one_slot(scores, action, points, rivals):
        others = (batch.points & rivals).any(axis=1) & ~points
        known = seeds.background | others
        options = {"delta": config.loss.delta, "where": batch.where}
        sequence = pseudo_labels.optimal_sequence(scores, action, known, **options)
        best, contrasts = pseudo_labels.best_segments(scores, points, known, **options)
        return sequence.labels, best, contrasts

    sequences, best, contrasts = _of_each(
        one_slot,
        slot_scores(scores, batch.slot_labels),
        seeds.action.T,
        batch.points.T,
        batch.rivals,
    )
    return seeds.background, sequences & batch.slot_where[:, None], best, contrasts
