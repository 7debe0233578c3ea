"""Weakly supervised temporal action localization in JAX.

Pure functions on the arrays of one recording (batch them with `jax.vmap`), and the system made of
them: `fit` and `predict`. Letters in shapes, the same everywhere:

    B  recordings     T  snippets       D  features     C  classes
    K  prototypes     N  segments or samples            P  points

Snippet `i` is the time `[i, i + 1)`, segments are half-open, masks are called `where` (True is
valid), and times carry their unit in their name (`_s`, `_snippets`, `_frames`).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tal_jax._errors import InputError
    from tal_jax.config import load_config, rsmp_config
    from tal_jax.data.clock import Grid
    from tal_jax.data.recordings import Dataset, Point, Recording
    from tal_jax.datasets.load import load_dataset
    from tal_jax.evaluation.detection import DetectionMetrics, evaluate_detections
    from tal_jax.inference.forward import Fitted
    from tal_jax.inference.predict import predict
    from tal_jax.ops.contrast import contrast_map, curve_contrast, inner_outer_contrast
    from tal_jax.ops.pooling import topk_mean
    from tal_jax.ops.pseudo_labels import (
        Seeds,
        Sequence,
        SequenceSegments,
        best_segment,
        mine_seeds,
        optimal_sequence,
        sequence_segments,
    )
    from tal_jax.ops.reassignment import Reassigned, assign_prototypes, reassign, update_prototypes
    from tal_jax.ops.resampling import (
        Resampled,
        compensation_weights,
        cumulative_weights,
        interpolate,
        new_times,
        old_times,
        resample,
        resample_points,
        unwarp,
        warp,
    )
    from tal_jax.ops.segments import disjoint_segments, nms, segment_iou, soft_nms
    from tal_jax.runs.fit import fit
    from tal_jax.runs.workdir import load_run

# The module of each public name. Names are imported when they are first used, so that neither
# `import tal_jax` nor the help of the command line loads JAX.
_MODULES = {
    "_errors": "InputError",
    "config": "load_config rsmp_config",
    "data.clock": "Grid",
    "data.recordings": "Dataset Point Recording",
    "datasets.load": "load_dataset",
    "evaluation.detection": "DetectionMetrics evaluate_detections",
    "inference.forward": "Fitted",
    "inference.predict": "predict",
    "ops.contrast": "contrast_map curve_contrast inner_outer_contrast",
    "ops.pooling": "topk_mean",
    "ops.pseudo_labels": "Seeds Sequence SequenceSegments best_segment mine_seeds "
    "optimal_sequence sequence_segments",
    "ops.reassignment": "Reassigned assign_prototypes reassign update_prototypes",
    "ops.resampling": "Resampled compensation_weights cumulative_weights interpolate new_times "
    "old_times resample resample_points unwarp warp",
    "ops.segments": "disjoint_segments nms segment_iou soft_nms",
    "runs.fit": "fit",
    "runs.workdir": "load_run",
}
_LAZY = {name: f"tal_jax.{home}" for home, names in _MODULES.items() for name in names.split()}

__all__ = [
    "Dataset",
    "DetectionMetrics",
    "Fitted",
    "Grid",
    "InputError",
    "Point",
    "Reassigned",
    "Recording",
    "Resampled",
    "Seeds",
    "Sequence",
    "SequenceSegments",
    "assign_prototypes",
    "best_segment",
    "compensation_weights",
    "contrast_map",
    "cumulative_weights",
    "curve_contrast",
    "disjoint_segments",
    "evaluate_detections",
    "fit",
    "inner_outer_contrast",
    "interpolate",
    "load_config",
    "load_dataset",
    "load_run",
    "mine_seeds",
    "new_times",
    "nms",
    "old_times",
    "optimal_sequence",
    "predict",
    "reassign",
    "resample",
    "resample_points",
    "rsmp_config",
    "segment_iou",
    "sequence_segments",
    "soft_nms",
    "topk_mean",
    "unwarp",
    "update_prototypes",
    "warp",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tal_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
