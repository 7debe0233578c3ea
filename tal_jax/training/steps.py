"""The compiled part of training: losses of a batch, one update, the search for pseudo labels."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from tal_jax import losses
from tal_jax.models import rsmp
from tal_jax.ops import contrast, prefix, pseudo_labels
from tal_jax.training import timeline as timelines
from tal_jax.training.state import PseudoLabels, TrainState

Metrics = dict[str, jax.Array]


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
    )


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam with L2 added to the gradient, before the moments."""
    return optax.chain(
        optax.add_decayed_weights(config.train.l2), optax.adam(config.train.learning_rate)
    )


def init_state(
    model: rsmp.RSMP,
    config: ml_collections.ConfigDict,
    timeline: timelines.Timeline,
    num_samples: int,
    key: jax.Array,
    params: Any = None,
) -> TrainState:
    """A fresh state for a round; `params` are given for a warm start."""
    recordings = timeline.recordings
    if params is None:
        features = jnp.zeros((1, 1, recordings.features.shape[-1]), jnp.float32)
        params = jax.jit(model.init)(key, features, where=jnp.ones((1, 1), bool))["params"]
    return TrainState(
        params=params,
        opt_state=make_optimizer(config).init(params),
        step=jnp.zeros((), jnp.int32),
        pseudo=PseudoLabels.empty(
            timeline.counts.shape[0], recordings.slot_labels.shape[1], num_samples
        ),
    )


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
    parts = jax.vmap(functools.partial(_branch_losses, config=config), in_axes=(0, 0, None, None))(
        branches.embedding, branches.logits, batch, pseudo
    )
    return jax.tree.map(lambda values: values.mean(axis=0), parts)


def _branch_losses(embedding, logits, batch, pseudo, *, config) -> Metrics:
    parts = jax.vmap(functools.partial(_recording_losses, config=config, ready=pseudo.ready))(
        embedding, logits, batch, pseudo.background, pseudo.sequences, pseudo.best
    )
    segments = parts.pop("segments")
    overflow = parts.pop("segment_overflow").sum()
    means = jax.tree.map(lambda values: values.mean(axis=0), parts)
    embeddings, labels, action, where = (x.reshape(-1, *x.shape[2:]) for x in segments)
    feature = losses.feature_contrast_loss(
        embeddings, labels, action, temperature=config.loss.temperature, where=where
    )
    return means | {"feat": feature, "segment_overflow": overflow.astype(jnp.float32)}


def _recording_losses(
    embedding, logits, batch, background, sequences, best, *, config, ready
) -> dict[str, Any]:
    loss = config.loss
    num_classes = logits.shape[-1] - 1
    # One row a slot; empty slots have no class, so their rows are zero.
    classes = jax.nn.one_hot(batch.slot_labels, num_classes + 1) * batch.slot_where[:, None]
    probabilities = jax.nn.sigmoid(logits)
    positive = batch.points.any(axis=1)
    fused, _ = fuse(logits)
    scores = slot_scores(fused, batch.slot_labels)
    found = jax.vmap(
        lambda labels: pseudo_labels.sequence_segments(
            labels, num_segments=loss.max_segments, where=batch.where
        )
    )(sequences)
    searched = ready & batch.slot_where
    found_where = found.where & searched[:, None]
    return {
        "vid": losses.video_loss(
            probabilities[:, :num_classes],
            classes[:, :num_classes].any(axis=0),
            topk_ratio=loss.topk_ratio,
            where=batch.where,
        ),
        "point_action": losses.focal_loss(
            logits, jnp.minimum(batch.points @ classes, 1), where=positive
        ),
        "point_background": losses.focal_loss(
            logits,
            jax.nn.one_hot(jnp.full(logits.shape[0], num_classes), num_classes + 1),
            where=background & ready,
        ),
        "score": _score_loss(scores, found, found_where, best, searched, batch, config),
        "ins": losses.dense_loss(
            logits,
            _instance_targets(batch.instances @ classes),
            where=batch.where & batch.instances.any(),
        ),
        "segments": _pooled_segments(embedding, found, found_where, batch, loss.max_feat_segments),
        "segment_overflow": jnp.where(searched, found.overflow, 0).sum(),
    }


def _score_loss(scores, found, found_where, best, searched, batch, config):
    loss = config.loss
    length = batch.where.sum(dtype=jnp.int32)

    def one_slot(scores, found, found_where, best):
        sums = prefix.prefix_sum(scores, where=batch.where)
        if loss.select == "best":
            segments, inverted = best[None, :], jnp.zeros(1, bool)
        else:
            segments, inverted = found.segments, ~found.action
        contrasts = contrast.contrast_between(
            sums,
            segments[:, 0],
            segments[:, 1],
            delta=loss.delta,
            length=length,
            inverted=inverted,
        )
        if loss.select == "best":
            return losses.best_contrast_loss(contrasts)
        return losses.sequence_contrast_loss(contrasts, found.action, where=found_where)

    values = jax.vmap(one_slot)(scores, found, found_where, best)
    return jnp.where(searched, values, 0).sum() / jnp.maximum(searched.sum(), 1)


def _instance_targets(classes: jax.Array) -> jax.Array:
    """Targets `[N, C + 1]` of rows with sum 1, background where no instance is."""
    classes = jnp.minimum(classes, 1)
    total = classes.sum(axis=-1, keepdims=True)
    background = jax.nn.one_hot(classes.shape[-1] - 1, classes.shape[-1])
    return jnp.where(total > 0, classes / jnp.maximum(total, 1), background)


def _pooled_segments(embedding, found, where, batch, most):
    """Mean embeddings of up to `most` action and `most` background segments of a recording."""
    size = embedding.shape[0]
    labels = jnp.broadcast_to(batch.slot_labels[:, None], where.shape)

    def pick(kind):
        chosen = (where & kind).ravel()
        index = jnp.nonzero(chosen, size=most, fill_value=chosen.shape[0] - 1)[0]
        exists = jnp.arange(most) < chosen.sum()
        return found.segments.reshape(-1, 2)[index], labels.ravel()[index], exists

    (segments_a, labels_a, where_a), (segments_b, labels_b, where_b) = (
        pick(found.action),
        pick(~found.action),
    )
    segments = jnp.concatenate([segments_a, segments_b])
    exists = jnp.concatenate([where_a, where_b])
    at = jnp.arange(size)
    inside = (at >= segments[:, :1]) & (at < segments[:, 1:]) & exists[:, None]
    shares = inside / jnp.maximum(inside.sum(axis=1, keepdims=True), 1)
    action = jnp.arange(2 * most) < most
    return shares @ embedding, jnp.concatenate([labels_a, labels_b]), action, exists


def total_loss(parts: Metrics, weights: Metrics) -> Metrics:
    """Weighs the parts: adds `point`, `pres` and the total `loss`."""
    point = weights["action"] * parts["point_action"] + parts["point_background"]
    pres = parts["score"] + weights["feat"] * parts["feat"]
    total = (
        weights["vid"] * parts["vid"]
        + weights["point"] * point
        + weights["pres"] * pres
        + weights["ins"] * parts["ins"]
    )
    return parts | {"point": point, "pres": pres, "loss": total}


def loss_weights(config: ml_collections.ConfigDict) -> Metrics:
    """The weights of the loss parts as arrays, which change without another compilation."""
    loss = config.loss
    weights = {
        "vid": loss.lambda_vid,
        "point": loss.lambda_point,
        "pres": loss.lambda_pres,
        "ins": loss.lambda_ins,
        "action": loss.action_weight,
        "feat": loss.feat_weight,
    }
    return {name: jnp.asarray(weight, jnp.float32) for name, weight in weights.items()}


def compiled_config(config: ml_collections.ConfigDict) -> ml_collections.FrozenConfigDict:
    """What compiled programs depend on: runs that differ elsewhere share them."""
    values = config.to_dict()
    kept = {name: values[name] for name in ("model", "seeds", "loss", "localization")}
    for name in [name for name in kept["loss"] if name.startswith("lambda_")]:
        del kept["loss"][name]
    del kept["loss"]["action_weight"], kept["loss"]["feat_weight"]
    train = ("batch_size", "learning_rate", "l2", "search_every", "jitter")
    kept["train"] = {name: values["train"][name] for name in train}
    return ml_collections.FrozenConfigDict(kept)


# --- the compiled block ---


@functools.lru_cache(maxsize=8)
def make_block(
    model: rsmp.RSMP, config: ml_collections.FrozenConfigDict, num_samples: int
) -> Callable[[TrainState, timelines.Timeline, Metrics, jax.Array], tuple[TrainState, Metrics]]:
    """Compiles `search_every` updates followed by one search.

    Args:
      model: the network.
      config: from `compiled_config`.
      num_samples: padded length of the timeline.

    Returns:
      `block(state, timeline, weights, key) -> (state, metrics)` with the weights from
      `loss_weights`; the state is donated, the metrics are means over the block's updates.
    """
    optimizer = make_optimizer(config)

    def loss_fn(params, batch, pseudo, weights, key):
        branches = model.apply(
            {"params": params},
            batch.features,
            where=batch.where,
            deterministic=False,
            rngs={"dropout": key},
        )
        parts = total_loss(batch_losses(branches, batch, pseudo, config), weights)
        return parts["loss"], parts

    def update(state, timeline, weights, key):
        key = jax.random.fold_in(key, state.step)
        choose_key, sample_key, dropout_key = jax.random.split(key, 3)
        num_recordings = timeline.counts.shape[0]
        rows = jax.random.permutation(choose_key, num_recordings)[: config.train.batch_size]
        batch = timelines.resample_batch(
            timelines.take(timeline, rows),
            num_samples,
            key=sample_key if config.train.jitter else None,
        )
        pseudo = jax.tree.map(lambda x: x[rows] if x.ndim else x, state.pseudo)
        gradients, parts = jax.grad(loss_fn, has_aux=True)(
            state.params, batch, pseudo, weights, dropout_key
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.pseudo), parts

    def block(state, timeline, weights, key):
        state, metrics = jax.lax.scan(
            lambda state, _: update(state, timeline, weights, key),
            state,
            length=config.train.search_every,
        )
        pseudo = search(model, config, state.params, timeline, num_samples)
        state = TrainState(state.params, state.opt_state, state.step, pseudo)
        return state, jax.tree.map(jnp.mean, metrics)

    return jax.jit(block, donate_argnums=0)


def search(
    model: rsmp.RSMP,
    config: ml_collections.ConfigDict,
    params: Any,
    timeline: timelines.Timeline,
    num_samples: int,
) -> PseudoLabels:
    """Seeds, optimal sequences and best segments of all recordings from the network's scores."""

    def one_chunk(rows):
        batch = timelines.resample_batch(timelines.take(timeline, rows), num_samples)
        scores, background = score_batch(model, config, params, batch)
        return jax.vmap(functools.partial(search_recording, config=config))(
            scores, background, batch
        )

    # Whole chunks only, the last one filled up with repeats, so that one program serves all.
    total = timeline.counts.shape[0]
    size = min(config.train.batch_size, total)
    rows = jnp.minimum(jnp.arange(-(-total // size) * size), total - 1).reshape(-1, size)
    found = jax.lax.map(one_chunk, rows)
    background, sequences, best = jax.tree.map(
        lambda values: values.reshape(-1, *values.shape[2:])[:total], found
    )
    return PseudoLabels(background, sequences, best, jnp.ones((), bool))


def score_batch(
    model: rsmp.RSMP, config: ml_collections.ConfigDict, params: Any, batch: timelines.Batch
) -> tuple[jax.Array, jax.Array]:
    """Confidences `[B, N, C]` and background `[B, N]` of the branch that the config selects."""
    branches = model.apply({"params": params}, batch.features, where=batch.where)
    return fuse(rsmp.select_logits(branches, config.model.branch))


def search_recording(
    scores: jax.Array,
    background: jax.Array,
    batch: timelines.Batch,
    config: ml_collections.ConfigDict,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pseudo labels of one recording.

    Args:
      scores: `[N, C]` confidences.
      background: `[N]` background probabilities.
      batch: one recording of a batch.
      config: see `compiled_config`.

    Returns:
      Background seeds `[N]`, optimal sequences `[L, N]` and best segments `[L, 2]` of its slots.
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
        sequence = pseudo_labels.optimal_sequence(
            scores, action, known, delta=config.loss.delta, where=batch.where
        )
        segment, value = pseudo_labels.best_segment(
            scores, points, known, delta=config.loss.delta, where=batch.where
        )
        own = pseudo_labels.sequence_segments(
            sequence.labels, num_segments=config.loss.max_segments, where=batch.where
        )
        own_values = contrast.inner_outer_contrast(
            scores, own.segments, delta=config.loss.delta, where=batch.where
        )
        own_values = jnp.where(own.where & own.action, own_values, -jnp.inf)
        own_best = own_values.argmax()
        segment = jnp.where(own_values[own_best] > value, own.segments[own_best], segment)
        return sequence.labels, segment

    sequences, best = jax.vmap(one_slot)(
        slot_scores(scores, batch.slot_labels), seeds.action.T, batch.points.T, batch.rivals
    )
    return seeds.background, sequences & batch.slot_where[:, None], best
