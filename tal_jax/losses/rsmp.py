# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The assembled loss of the point-supervised system (RSMP).

    loss = lambda_vid vid + lambda_point (action_weight point_action + point_background)
           + lambda_pres (score + feat_weight feat) + lambda_ins ins

`rsmp_losses` computes the unweighted parts on a batch, `weighted_sum` adds them up. Both are pure
functions of arrays: neither parameters nor a network enter.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, Bool, Float, Int
from tal_jax.losses import masked
from tal_jax.ops import _cpu, _cumsum, contrast, pseudo_labels

if TYPE_CHECKING:
    from tal_jax.data.timeline import Batch
else:
    Batch = Any  # losses import nothing of `data`

# Most action segments of a recording, and most background segments, whose features are compared:
# the comparison takes the square of their number in memory, over a whole batch.
_MOST_COMPARED = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """Pseudo labels of B recordings, mined from the network's scores and the points."""

    background: jax.Array  # [B, N] bool, background seeds
    sequences: jax.Array  # [B, L, N] bool, optimal sequence of each video class
    best: jax.Array  # [B, L, N, 2] int32, the best segment of each positive snippet
    contrasts: jax.Array  # [B, L, N] OIC scores of these, -inf where there is no point
    ready: jax.Array  # [B] bool, False until the first search

    def window(self, first: jax.Array, size: int) -> "PseudoLabels":
        """Those of a window of `size` snippets (static) of each recording, from `first` `[B]`."""

        def one(labels: PseudoLabels, first: Array) -> PseudoLabels:
            def cut(values: Array, axis: int) -> Array:
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
class ComparedSegments:
    """Action and background segments of each recording whose features are compared."""

    weights: jax.Array  # [B, S, N] of the snippets in a segment's mean
    labels: jax.Array  # [B, S] int32 classes
    action: jax.Array  # [B, S] bool
    where: jax.Array  # [B, S] bool
    overflow: jax.Array  # [B] int32, segments for which there is no room


def fuse(logits: Float[Array, "... C1"]) -> tuple[Float[Array, "... C"], Float[Array, "..."]]:
    """Class activation sequence (CAS) and background probability from logits.

    $$P_c = p_c (1 - p_{bg})$$

    with sigmoid probabilities p.

    Args:
      logits: `[..., C + 1]`, the last one of background.

    Returns:
      `[..., C]` the class activation sequence, and `[...]` the background probability.
    """
    probabilities = jax.nn.sigmoid(logits)
    background = probabilities[..., -1]
    return probabilities[..., :-1] * (1 - background[..., None]), background


def video_class_scores(
    scores: Float[Array, "N C"], video_classes: Int[Array, " L"]
) -> Float[Array, "L N"]:
    """A class activation sequence (CAS) `[N, C]` of the video classes alone, `[L, N]`."""
    return scores.T[video_classes]


def weighted_sum(
    parts: Mapping[str, Float[Array, ""]], weights: Mapping[str, Float[Array, ""]]
) -> dict[str, Float[Array, ""]]:
    """Adds `point`, `pres` and the total `loss` to the parts of `rsmp_losses`."""
    point = weights["action_weight"] * parts["point_action"] + parts["point_background"]
    pres = parts["score"] + weights["feat_weight"] * parts["feat"]
    total = (
        weights["lambda_vid"] * parts["vid"]
        + weights["lambda_point"] * point
        + weights["lambda_pres"] * pres
        + weights["lambda_ins"] * parts["ins"]
    )
    return {**parts, "point": point, "pres": pres, "loss": total}


def rsmp_losses(
    logits: Float[Array, "M B N C1"],
    embeddings: Float[Array, "M B S W"],
    batch: Batch,
    pseudo: PseudoLabels,
    segments: pseudo_labels.SequenceSegments,
    compared: ComparedSegments,
    *,
    topk_ratio: float,
    delta: float,
    select: str,
    temperature: float,
) -> dict[str, Float[Array, ""]]:
    """The unweighted parts of the loss on a batch, means over the branches of the network.

    Args:
      logits: `[M, B, N, C + 1]` of M branches, background last.
      embeddings: `[M, B, S, W]` means of features over `compared`.
      batch: labels of B recordings, or of windows of them, with L video classes each.
      pseudo: pseudo labels.
      segments: of the optimal sequences, from `sequence_segments`.
      compared: from `compared_segments`.
      topk_ratio: see `video_loss`.
      delta: share of a segment's length that its outer parts have in the OIC score.
      select: "all" segments of the optimal sequences count in `score`, or the "best" one (static).
      temperature: of `feat`.

    Returns:
      `vid`, `point_action`, `point_background`, `score`, `feat` and `ins`, all `[]`, and how many
      segments there is no room for, `segment_overflow` and `feature_overflow`.
    """
    one_recording = functools.partial(
        _recording_losses, topk_ratio=topk_ratio, delta=delta, select=select
    )

    def one_branch(logits: Array, embeddings: Array) -> dict[str, Array]:
        parts = jax.vmap(one_recording)(logits, batch, pseudo, segments)
        feature = masked.feature_contrast_loss(
            embeddings.reshape(-1, embeddings.shape[-1]),
            compared.labels.ravel(),
            compared.action.ravel(),
            temperature=temperature,
            where=compared.where.ravel(),
        )
        return jax.tree.map(lambda values: values.mean(axis=0), parts) | {"feat": feature}

    parts = jax.vmap(one_branch)(logits, embeddings)
    return jax.tree.map(lambda values: values.mean(axis=0), parts) | {
        "segment_overflow": segments.overflow.sum().astype(jnp.float32),
        "feature_overflow": compared.overflow.sum().astype(jnp.float32),
    }


# --- segments ---


def sequence_segments(batch: Batch, pseudo: PseudoLabels) -> pseudo_labels.SequenceSegments:
    """The segments of the optimal sequences, with leading axes `[B, L]`; none before a search.

    A class has as many action segments as points at most. In a window two more may begin or end
    outside of it. Segments end where unknown time begins, which may split background. Sequences
    without any action in the done part of the window have none.
    """
    most = batch.most_points
    num_segments = 2 * (most.of_class + 2) + 1 + most.unknown

    def one(batch: Batch, pseudo: PseudoLabels) -> pseudo_labels.SequenceSegments:
        found = jax.vmap(
            lambda labels: pseudo_labels.sequence_segments(
                labels, num_segments=num_segments, where=batch.done
            )
        )(pseudo.sequences)
        searched = _searched(batch, pseudo)
        return dataclasses.replace(
            found,
            where=found.where & searched[:, None],
            overflow=jnp.where(searched, found.overflow, 0),
        )

    return jax.vmap(one)(batch, pseudo)


def compared_segments(batch: Batch, segments: pseudo_labels.SequenceSegments) -> ComparedSegments:
    """The action and the background segments of each recording whose features are compared."""
    num_classes, points = batch.video_class_where.shape[1], batch.most_points
    most = points.of_all + (3 + points.unknown) * num_classes
    most = min(most, _MOST_COMPARED, segments.where[0].size)
    return jax.vmap(functools.partial(_compared, most=most))(segments, batch)


def _compared(
    found: pseudo_labels.SequenceSegments, batch: Batch, *, most: int
) -> ComparedSegments:
    labels = jnp.broadcast_to(batch.video_classes[:, None], found.where.shape)

    def in_turns(values: Array) -> Array:
        """The first segment of each class, then the second: classes overflow alike."""
        return jnp.swapaxes(values, 0, 1).reshape(-1, *values.shape[2:])

    def pick(kind: Array) -> tuple[tuple[Array, Array, Array], Array]:
        chosen = in_turns(found.where & kind)
        total = chosen.sum(dtype=jnp.int32)
        index = jnp.nonzero(chosen, size=most, fill_value=chosen.shape[0] - 1)[0]
        exists = jnp.arange(most) < total
        kept = in_turns(found.segments)[index], in_turns(labels)[index], exists
        return kept, jnp.maximum(total - most, 0)

    actions, more_actions = pick(found.action)
    backgrounds, more_backgrounds = pick(~found.action)
    segments, labels, exists = map(jnp.concatenate, zip(actions, backgrounds, strict=True))
    at = jnp.arange(batch.where.shape[0])[None, :]
    inside = (at >= segments[:, :1]) & (at < segments[:, 1:]) & exists[:, None]
    inside = inside.astype(jnp.float32)
    weights = inside / jnp.maximum(inside.sum(axis=1, keepdims=True), 1)
    action = jnp.arange(2 * most) < most
    return ComparedSegments(weights, labels, action, exists, more_actions + more_backgrounds)


def _searched(batch: Batch, pseudo: PseudoLabels) -> Bool[Array, "..."]:
    """`[L]` True for the video classes whose optimal sequence has an action in the window.

    In its done part, that is: elsewhere there are no sequences.
    """
    found = (pseudo.sequences & batch.done[None, :]).any(axis=1)
    return pseudo.ready & batch.video_class_where & found


# --- one recording ---


def _recording_losses(
    logits: Array,
    batch: Batch,
    pseudo: PseudoLabels,
    segments: pseudo_labels.SequenceSegments,
    *,
    topk_ratio: float,
    delta: float,
    select: str,
) -> dict[str, Array]:
    num_classes = logits.shape[-1] - 1
    # A row for each video class; those of padding are zero.
    classes = jax.nn.one_hot(batch.video_classes, num_classes + 1)
    classes = jnp.where(batch.video_class_where[:, None], classes, 0)
    probabilities = jax.nn.sigmoid(logits)
    fused, _ = fuse(logits)
    scores = video_class_scores(fused, batch.video_classes)
    present, unsure = _classes_in_view(batch, pseudo)

    def any_of(chosen: Array) -> Array:
        return jnp.where(chosen[:, None], classes[:, :num_classes], 0).any(axis=0)

    def by_class(flags: Array) -> Array:
        return jnp.minimum(flags.astype(classes.dtype) @ classes, 1)

    return {
        "vid": masked.video_loss(
            probabilities[:, :num_classes],
            any_of(present),
            topk_ratio=topk_ratio,
            where=batch.done,
            counted=~any_of(unsure),
        ),
        "point_action": masked.focal_loss(
            logits, by_class(batch.points), where=batch.points.any(axis=1)
        ),
        "point_background": masked.focal_loss(
            logits,
            jax.nn.one_hot(jnp.full(logits.shape[0], num_classes), num_classes + 1),
            where=(pseudo.background & pseudo.ready) | batch.background,
        ),
        "score": _score_loss(scores, segments, pseudo, batch, delta=delta, select=select),
        "ins": masked.instance_loss(
            logits,
            _instance_targets(by_class(batch.instances)),
            where=_dense(batch) & _instances_known(batch),
        ),
    }


def _classes_in_view(batch: Batch, pseudo: PseudoLabels) -> tuple[Array, Array]:
    """`[L]` each: video classes that are present in what is in view, and those that may be.

    A whole recording holds its labelled classes. A window, or the done part of a recording, holds
    those with a point in it. Others of which a point is beside it, or a pseudo label reaches into
    it, or that have no point at all, are neither positive nor negative.
    """
    clicked = (batch.points & batch.done[:, None]).any(axis=0)
    reaches = batch.points.any(axis=0) | batch.instances.any(axis=0) | _searched(batch, pseudo)
    present = batch.video_class_where & (clicked | ~batch.cut)
    unsure = batch.video_class_where & ~present & (reaches | ~batch.video_class_clicked)
    return present, unsure


def _instances_known(batch: Batch) -> Array:
    """`[]` whether the instances of the whole recording are known: not before the first proposals.

    Then a window without any is background, and so is a recording without labelled classes always.
    """
    return jnp.logical_or(batch.segment_where.any(), ~batch.video_class_where.any())


def _dense(batch: Batch) -> Array:
    """`[N]` True where it is certain, or a pseudo instance claims, what a snippet is."""
    certain = jnp.logical_or(batch.done, batch.background)
    return jnp.logical_or(certain, batch.instances.any(axis=1))


def _score_loss(
    scores: Array,
    segments: pseudo_labels.SequenceSegments,
    pseudo: PseudoLabels,
    batch: Batch,
    *,
    delta: float,
    select: str,
) -> Array:
    """Representative-segment loss: OIC scores of the sequences' segments, or of the best one."""
    length = batch.where.sum(dtype=jnp.int32)
    # The done stretch of each snippet: outer regions end with it, like those at the recording's.
    begin, end_of = _cpu.last_flag(~batch.done) + 1, _cpu.next_flag(~batch.done)

    def one_class(
        scores: Array,
        segments: pseudo_labels.SequenceSegments,
        best: Array,
        contrasts: Array,
    ) -> tuple[Array, Array]:
        sums = _cumsum.prefix_sum(scores, where=batch.done)

        def contrast_of(start: Array, end: Array, inverted: Any = False) -> Array:
            at = jnp.clip(start, 0, scores.shape[0] - 1)
            return contrast.contrast_between(
                sums, start, end, delta=delta, first=begin[at], length=end_of[at], inverted=inverted
            )

        if select == "best":
            # Of the best segments of all points, those that are whole in the window.
            inside = (best[:, 0] >= 0) & (best[:, 1] <= length)
            contrasts = jnp.where(inside, contrasts, -jnp.inf)
            winner = contrasts.argmax()
            start, end = best[winner][:, None]
            lost = masked.best_contrast_loss(contrast_of(start, end))
            return lost, jnp.isfinite(contrasts[winner])
        starts, ends = segments.segments.T
        contrasts = contrast_of(starts, ends, inverted=~segments.action)
        lost = masked.sequence_contrast_loss(contrasts, segments.action, where=segments.where)
        return lost, jnp.bool_(True)

    values, exists = jax.vmap(one_class)(scores, segments, pseudo.best, pseudo.contrasts)
    counted = _searched(batch, pseudo) & exists
    return masked.masked_mean(values, where=counted)


def _instance_targets(classes: Float[Array, "N C1"]) -> Float[Array, "N C1"]:
    """Targets `[N, C + 1]` of rows with sum 1, background where no instance is."""
    total = classes.sum(axis=-1, keepdims=True)
    background = jax.nn.one_hot(classes.shape[-1] - 1, classes.shape[-1])
    return jnp.where(total > 0, classes / jnp.maximum(total, 1), background)
