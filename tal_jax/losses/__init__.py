# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Losses: masked ones of single recordings, and the assembled loss of each method."""

from tal_jax._deprecation import renamed
from tal_jax.losses.masked import (
    best_contrast_loss,
    feature_contrast_loss,
    focal_loss,
    guide_loss,
    instance_loss,
    masked_mean,
    sequence_contrast_loss,
    sparsity_loss,
    topk_count,
    topk_pool,
    video_loss,
    video_mil_loss,
)

__getattr__ = renamed(
    __name__, {"classification_loss": "video_mil_loss", "dense_loss": "instance_loss"}
)

__all__ = [
    "best_contrast_loss",
    "feature_contrast_loss",
    "focal_loss",
    "guide_loss",
    "instance_loss",
    "masked_mean",
    "sequence_contrast_loss",
    "sparsity_loss",
    "topk_count",
    "topk_pool",
    "video_loss",
    "video_mil_loss",
]
