# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The assembled loss of the detector, from pseudo or true segments.

loss = classification + lambda_ends ends
"""

import jax
import jax.numpy as jnp
import optax

from tal_jax._typing import Array, Bool, Float, Int
from tal_jax.ops import anchors as anchor_ops
from tal_jax.ops.anchors import Anchors


def detector_losses(
    logits: Float[Array, "B A C"],
    offsets: Float[Array, "B A 2"],
    anchors: Anchors,
    segments: Float[Array, "B P 2"],
    classes: Int[Array, "B P"],
    *,
    segment_where: Bool[Array, "B P"],
    where: Bool[Array, "B A"],
    length: Int[Array, " B"],
) -> dict[str, Float[Array, ""]]:
    """The unweighted parts of the loss on a batch.

    An anchor that learns a segment is positive for its class and regresses its ends, unless one of
    these lies outside of the window, where nothing shows it. All others are background.

    Args:
      logits: `[B, A, C]` of the classes.
      offsets: `[B, A, 2]` distances to start and end in strides.
      anchors: of the batch.
      segments: `[B, P, 2]` starts and ends in snippets.
      classes: `[B, P]` their classes.
      segment_where: `[B, P]` True for the segments that exist.
      where: `[B, A]` anchors within the recording.
      length: `[B]` valid snippets of the window.

    Returns:
      `classification`, the focal loss summed over anchors and classes, and `ends`, one minus the
      distance-IoU (DIoU) summed over anchors, both divided by the number of positive anchors of the
      batch; `[]`.
    """

    def one(
        logits: Array,
        offsets: Array,
        segments: Array,
        classes: Array,
        segment_where: Array,
        where: Array,
        length: Array,
    ) -> tuple[Array, Array, Array]:
        targets = anchor_ops.assign_anchors(anchors, segments, where=segment_where)
        positive = targets.positive & where
        labels = jax.nn.one_hot(classes[targets.index], logits.shape[-1]) * positive[:, None]
        focal = optax.losses.sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=2.0)
        focal = jnp.where(where[:, None], focal, 0.0).sum()
        whole = (segments[:, 0] > -1) & (segments[:, 1] < length + 1)
        learnt = segments[targets.index]
        found = anchor_ops.decode_segments(anchors, offsets)
        ends = 1 - anchor_ops.segment_diou(found, learnt)
        ends = jnp.where(positive & whole[targets.index], ends, 0.0).sum()
        return focal, ends, positive.sum(dtype=jnp.float32)

    focal, ends, positives = jax.vmap(one)(
        logits, offsets, segments, classes, segment_where, where, length
    )
    total = jnp.maximum(positives.sum(), 1.0)
    return {"classification": focal.sum() / total, "ends": ends.sum() / total}
