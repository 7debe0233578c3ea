# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
r"""The assembled loss of the detector, from pseudo or true segments.

$$L = L_{classification} + \lambda_{ends} L_{ends}$$

Source: the losses of ActionFormer (Zhang et al. 2022): the focal loss (Lin et al. 2017) and the
distance-IoU loss (Zheng et al. 2020).
"""

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, Bool, Float, Int
from tal_jax.losses import masked
from tal_jax.ops import anchors as anchor_ops
from tal_jax.ops.anchors import Anchors

# Of the focal loss: the weight of positives (that of negatives is the rest), and the exponent.
_POSITIVE_WEIGHT, _EXPONENT = 0.25, 2.0
# Ends this many snippets outside of the window still count as shown: those of the recording's own
# actions may lie there by rounding.
_MARGIN = 1


def detector_losses(
    logits: Float[Array, "B A C"],
    offsets: Float[Array, "B A 2"],
    anchors: Anchors,
    segments: Float[Array, "B P 2"],
    classes: Int[Array, "B P"],
    *,
    segment_where: Bool[Array, "B P"],
    where: Bool[Array, "B A"],
    background: Bool[Array, "B A"],
    length: Int[Array, " B"],
) -> dict[str, Float[Array, ""]]:
    """The unweighted parts of the loss on a batch.

    An anchor that learns a segment is positive for its class and regresses its ends, unless one of
    these lies outside of the window, where nothing shows it. Of the others, those of `background`
    are background, and the rest learns nothing: there may be an action without a label.

    Args:
      logits: `[B, A, C]` of the classes.
      offsets: `[B, A, 2]` distances to start and end in strides.
      anchors: of the batch.
      segments: `[B, P, 2]` starts and ends in snippets.
      classes: `[B, P]` their classes.
      segment_where: `[B, P]` True for the segments that exist.
      where: `[B, A]` anchors within the recording.
      background: `[B, A]` anchors that are background unless they learn a segment.
      length: `[B]` valid snippets of the window.

    Returns:
      `classification`, the focal loss summed over anchors and classes, and `ends`, one minus the
      distance-IoU (DIoU) summed over positive anchors, both divided by the number of positive
      anchors of the batch; `[]`.
    """

    def one(
        logits: Array,
        offsets: Array,
        segments: Array,
        classes: Array,
        segment_where: Array,
        where: Array,
        background: Array,
        length: Array,
    ) -> tuple[Array, Array, Array]:
        targets = anchor_ops.assign_anchors(anchors, segments, where=segment_where)
        positive = targets.positive & where
        num_classes = logits.shape[-1]
        labels = jax.nn.one_hot(classes[targets.index], num_classes, dtype=bool)
        labels = (labels & positive[:, None]).reshape(-1, 1)
        focal = masked.focal_loss(
            logits.reshape(-1, 1),
            labels,
            exponent=_EXPONENT,
            where=jnp.repeat(where & (positive | background), num_classes),
            weights=jnp.where(labels[:, 0], _POSITIVE_WEIGHT, 1 - _POSITIVE_WEIGHT),
            reduce_fn=jnp.sum,
        )
        last = length.astype(jnp.float32) + _MARGIN
        whole = (segments[:, 0] > -_MARGIN) & (segments[:, 1] < last)
        shown = positive & whole[targets.index]
        # Elsewhere two empty segments: what stands there has no part, not even in the gradient.
        found = anchor_ops.decode_segments(anchors, offsets)
        found = jnp.where(shown[:, None], found, 0.0)
        learnt = jnp.where(shown[:, None], segments[targets.index], 0.0)
        ends = (1 - anchor_ops.segment_diou(found, learnt)).sum(where=shown)
        return focal, ends, positive.sum(dtype=jnp.float32)

    focal, ends, positives = jax.vmap(one)(
        logits, offsets, segments, classes, segment_where, where, background, length
    )
    total = jnp.maximum(positives.sum(), 1.0)
    return {"classification": focal.sum() / total, "ends": ends.sum() / total}
