# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The assembled loss of HAM-Net, from video-level labels alone.

    loss = sum over branches of lambda_branch (multiple-instance learning loss of the branch)
           + lambda_sparse sparse + lambda_guide guide

`hamnet_losses` computes the unweighted parts on a batch, `weighted_sum` adds them up.
"""

from collections.abc import Mapping
from typing import Any

import jax

from tal_jax._typing import Array, Bool, Float, Int
from tal_jax.losses import masked

# The label of background in each branch. Under the full attention there is none: that is what makes
# attention leave background out.
BACKGROUND = {"base": 1.0, "soft": 0.0, "semi": 0.0, "hard": 1.0}


def hamnet_losses(
    logits: Mapping[str, Float[Array, "B N C1"]],
    attention: Float[Array, "B N"] | None,
    labels: Bool[Array, "B C"],
    *,
    topk_ratio: float,
    guide_stop_gradient: bool = False,
    where: Bool[Array, "B N"],
) -> dict[str, Float[Array, ""]]:
    """The unweighted parts of the loss, means over the recordings of a batch.

    Args:
      logits: `[B, N, C + 1]` of the branches, background last.
      attention: `[B, N]` for the guide and sparsity losses of the published variant; None without.
      labels: `[B, C]` True for the classes that a recording holds.
      topk_ratio: top-k pooling uses k = max(1, ⌊N / topk_ratio⌋).
      guide_stop_gradient: see `masked.guide_loss` (static).
      where: `[B, N]` valid snippets in which every action is labelled.

    Returns:
      A part for each branch, and with `attention` also `sparse` and `guide`; all `[]`.
    """

    def one(
        logits: Mapping[str, Array], attention: Array | None, labels: Array, where: Array
    ) -> dict[str, Array]:
        parts = {
            name: masked.video_mil_loss(
                values, labels, background=BACKGROUND[name], topk_ratio=topk_ratio, where=where
            )
            for name, values in logits.items()
        }
        if attention is not None:
            background = jax.nn.softmax(logits["base"], axis=-1)[:, -1]
            parts["sparse"] = masked.sparsity_loss(attention, where=where)
            parts["guide"] = masked.guide_loss(
                attention, background, stop_gradient=guide_stop_gradient, where=where
            )
        return parts

    parts = jax.vmap(one)(logits, attention, labels, where)
    return jax.tree.map(lambda values: values.mean(axis=0), parts)


def video_labels(
    video_classes: Int[Array, "B L"], video_class_where: Bool[Array, "B L"], num_classes: int
) -> Bool[Array, "B C"]:
    """Video-level labels `[B, C]` from the lists of labelled classes `[B, L]`."""
    one_hot = jax.nn.one_hot(video_classes, num_classes, dtype=bool)
    return (one_hot & video_class_where[..., None]).any(axis=-2)


def weighted_sum(
    parts: Mapping[str, Float[Array, ""]], weights: Mapping[str, Float[Array, ""]]
) -> dict[str, Float[Array, ""]]:
    """Adds the total `loss` to the parts of `hamnet_losses`."""
    total: Any = sum(weights[f"lambda_{name}"] * part for name, part in parts.items())
    return {**parts, "loss": total}
