"""Weakly supervised temporal action localization in JAX.

Pure functions on the arrays of one recording (batch them with `jax.vmap`), and the system made of
them: `fit` and `predict`. Letters in shapes, the same everywhere:

    B  recordings     T  snippets       D  features     C  classes
    K  prototypes     N  segments or samples            P  points

Snippet `i` is the time `[i, i + 1)`, segments are half-open, masks are called `where` (True is
valid), and times carry their unit in their name (`_s`, `_snippets`, `_frames`).

Static arguments of the functions, which fix shapes, are their attribute `static_argnames`; `jit` is
`jax.jit` that knows them. Names are imported when they are first used, so that `import tal_jax`
costs nothing: the ops need jax alone, networks and training also flax, optax and orbax.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from tal_jax import _deprecation

if TYPE_CHECKING:
    from tal_jax._errors import InputError as InputError
    from tal_jax.config import (
        hamnet_config as hamnet_config,
        load_config as load_config,
        rsmp_config as rsmp_config,
    )
    from tal_jax.data.clock import Grid as Grid
    from tal_jax.data.point_distributions import generate_points as generate_points
    from tal_jax.data.recordings import Dataset as Dataset, Point as Point, Recording as Recording
    from tal_jax.datasets.load import load_dataset as load_dataset
    from tal_jax.evaluation.detection import (
        DetectionMetrics as DetectionMetrics,
        evaluate_detections as evaluate_detections,
    )
    from tal_jax.inference.events import Events as Events
    from tal_jax.inference.events import select_events as select_events
    from tal_jax.inference.forward import Fitted as Fitted
    from tal_jax.inference.predict import predict as predict
    from tal_jax.losses import (
        best_contrast_loss as best_contrast_loss,
        feature_contrast_loss as feature_contrast_loss,
        focal_loss as focal_loss,
        guide_loss as guide_loss,
        instance_loss as instance_loss,
        masked_mean as masked_mean,
        sequence_contrast_loss as sequence_contrast_loss,
        sparsity_loss as sparsity_loss,
        topk_count as topk_count,
        topk_pool as topk_pool,
        video_loss as video_loss,
        video_mil_loss as video_mil_loss,
    )
    from tal_jax.models.detector import Detector as Detector
    from tal_jax.models.hamnet import HAMNet as HAMNet
    from tal_jax.models.rsmp import RSMP as RSMP
    from tal_jax.ops._static import jit as jit
    from tal_jax.ops.anchors import (
        Anchors as Anchors,
        Targets as Targets,
        assign_anchors as assign_anchors,
        decode_segments as decode_segments,
        pyramid_anchors as pyramid_anchors,
        segment_diou as segment_diou,
    )
    from tal_jax.ops.attention import (
        attend as attend,
        hard_attention as hard_attention,
        published_hard_attention as published_hard_attention,
        published_semi_soft_attention as published_semi_soft_attention,
        semi_soft_attention as semi_soft_attention,
        soft_attention as soft_attention,
    )
    from tal_jax.ops.contrast import (
        contrast_map as contrast_map,
        curve_contrast as curve_contrast,
        inner_outer_contrast as inner_outer_contrast,
    )
    from tal_jax.ops.fusion import (
        Fused as Fused,
        PointSegments as PointSegments,
        fuse_detections as fuse_detections,
        point_segments as point_segments,
    )
    from tal_jax.ops.localization import (
        Detections as Detections,
        Runs as Runs,
        localize as localize,
        present_classes as present_classes,
        threshold_runs as threshold_runs,
    )
    from tal_jax.ops.pooling import topk_mean as topk_mean
    from tal_jax.ops.pseudo_labels import (
        BestSegment as BestSegment,
        Seeds as Seeds,
        Segmentation as Segmentation,
        SequenceSegments as SequenceSegments,
        best_segment as best_segment,
        mine_seeds as mine_seeds,
        optimal_sequence as optimal_sequence,
        sequence_segments as sequence_segments,
    )
    from tal_jax.ops.reassignment import (
        Reassigned as Reassigned,
        assign_prototypes as assign_prototypes,
        reassign as reassign,
        update_prototypes as update_prototypes,
    )
    from tal_jax.ops.resampling import (
        Resampled as Resampled,
        compensation_weights as compensation_weights,
        cumulative_weights as cumulative_weights,
        interpolate as interpolate,
        new_times as new_times,
        old_times as old_times,
        resample as resample,
        resample_points as resample_points,
        unwarp as unwarp,
        warp as warp,
    )
    from tal_jax.ops.segments import (
        disjoint_segments as disjoint_segments,
        nms as nms,
        segment_iou as segment_iou,
        soft_nms as soft_nms,
    )
    from tal_jax.runs.fit import fit as fit
    from tal_jax.runs.warm_start import retraining_config as retraining_config
    from tal_jax.runs.workdir import load_run as load_run

# The module of each public name; the imports above are the same for type checkers.
_MODULES = {
    "tal_jax._errors": "InputError",
    "tal_jax.config": "hamnet_config load_config rsmp_config",
    "tal_jax.data.clock": "Grid",
    "tal_jax.data.point_distributions": "generate_points",
    "tal_jax.data.recordings": "Dataset Point Recording",
    "tal_jax.datasets.load": "load_dataset",
    "tal_jax.evaluation.detection": "DetectionMetrics evaluate_detections",
    "tal_jax.inference.events": "Events select_events",
    "tal_jax.inference.forward": "Fitted",
    "tal_jax.inference.predict": "predict",
    "tal_jax.losses": (
        "best_contrast_loss feature_contrast_loss focal_loss guide_loss instance_loss masked_mean "
        "sequence_contrast_loss sparsity_loss topk_count topk_pool video_loss video_mil_loss"
    ),
    "tal_jax.models.detector": "Detector",
    "tal_jax.models.hamnet": "HAMNet",
    "tal_jax.models.rsmp": "RSMP",
    "tal_jax.ops._static": "jit",
    "tal_jax.ops.anchors": (
        "Anchors Targets assign_anchors decode_segments pyramid_anchors segment_diou"
    ),
    "tal_jax.ops.attention": (
        "attend hard_attention published_hard_attention published_semi_soft_attention "
        "semi_soft_attention soft_attention"
    ),
    "tal_jax.ops.contrast": "contrast_map curve_contrast inner_outer_contrast",
    "tal_jax.ops.fusion": "Fused PointSegments fuse_detections point_segments",
    "tal_jax.ops.localization": "Detections Runs localize present_classes threshold_runs",
    "tal_jax.ops.pooling": "topk_mean",
    "tal_jax.ops.pseudo_labels": (
        "BestSegment Seeds Segmentation SequenceSegments best_segment mine_seeds "
        "optimal_sequence sequence_segments"
    ),
    "tal_jax.ops.reassignment": "Reassigned assign_prototypes reassign update_prototypes",
    "tal_jax.ops.resampling": (
        "Resampled compensation_weights cumulative_weights interpolate new_times old_times "
        "resample resample_points unwarp warp"
    ),
    "tal_jax.ops.segments": "disjoint_segments nms segment_iou soft_nms",
    "tal_jax.runs.fit": "fit",
    "tal_jax.runs.warm_start": "retraining_config",
    "tal_jax.runs.workdir": "load_run",
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_LAZY)  # pyright: ignore[reportUnsupportedDunderAll]

_renamed = _deprecation.renamed(
    __name__,
    {
        "Sequence": "Segmentation",
        "classification_loss": "video_mil_loss",
        "dense_loss": "instance_loss",
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("tal_jax")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    return _renamed(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, "__version__"})
