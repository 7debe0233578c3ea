"""Losses: masked ones of single recordings, and the assembled loss of each method."""

from tal_jax.losses.masked import (
    best_contrast_loss,
    classification_loss,
    dense_loss,
    feature_contrast_loss,
    focal_loss,
    guide_loss,
    sequence_contrast_loss,
    sparsity_loss,
    topk_count,
    topk_pool,
    video_loss,
)

__all__ = [
    "best_contrast_loss",
    "classification_loss",
    "dense_loss",
    "feature_contrast_loss",
    "focal_loss",
    "guide_loss",
    "sequence_contrast_loss",
    "sparsity_loss",
    "topk_count",
    "topk_pool",
    "video_loss",
]
