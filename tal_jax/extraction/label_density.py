"""Proposes the clock of features from labels: short, dense actions need fine snippets."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, load_annotations
from tal_jax.datasets.own_layout import ANNOTATION_FILE
from tal_jax.datasets.selection import choose_subsets
from tal_jax.extraction.backbones import Backbone, grid_of

# Shares of a short action: a few snippets in it, and windows that lie inside it.
_STRIDE, _WINDOW = 0.25, 0.5
# A clock that differs by less is as good.
_TOLERANCE = 1.5


def find_annotations(paths: Iterable[str | os.PathLike], output: str | os.PathLike) -> Path | None:
    """The annotations in the folder for the features, or else beside the recordings."""
    folders = [Path(output)]
    folders += [path if path.is_dir() else path.parent for path in map(Path, paths)]
    return next((f / ANNOTATION_FILE for f in folders if (f / ANNOTATION_FILE).is_file()), None)


def propose_clock(path: Path, backbone: Backbone) -> str | None:
    """A line that proposes stride and window where the labels ask for others than the backbone's.

    Args:
      path: annotations; those of the training recordings are read.
      backbone: whose clock is compared; a network's window is its own and not changed.

    Returns:
      The line, or None where the clock suits the labels, or these do not tell.
    """
    try:
        found = short_action_s(load_annotations(path))
    except InputError:  # `doctor` and `train` report it; features need no labels
        return None
    if found is None:
        return None
    action_s, reason = found
    grid = grid_of(backbone)
    now = {"stride": grid.stride_frames, "window": grid.window_frames}
    frames = {
        "stride": max(round(_STRIDE * action_s * grid.fps), 1),
        "window": max(round(_WINDOW * action_s * grid.fps), 2),
    }
    if "path" in backbone.options:
        del frames["window"]
    if all(1 / _TOLERANCE <= frames[key] / now[key] <= _TOLERANCE for key in frames):
        return None
    flags = " ".join(f"--set {key}={value}" for key, value in frames.items())
    return (
        f"{path}: {reason} {action_s:.3g} s; {flags} would make snippets a quarter of that "
        f"{'and windows half of it ' if 'window' in frames else ''}(chosen here: stride "
        f"{now['stride']:g}, window {now['window']:g} at {grid.fps:g} a second)"
    )


def short_action_s(annotations: Annotations) -> tuple[float, str] | None:
    """The length of a short action among the training labels, and how it was found.

    The 10 % quantile of the segments' lengths; where there are points alone, half of that of the
    time between neighbours, which are an action and some background apart. None without either.
    """
    present = sorted({r.subset for r in annotations.recordings.values() if r.instances})
    try:
        train, _ = choose_subsets(present, "", "")
    except InputError:
        return None
    labelled = [r.instances for r in annotations.recordings.values() if r.subset == train]
    segments = [one.segment for row in labelled for one in row if one.segment is not None]
    if segments:
        lengths_s = [end_s - start_s for start_s, end_s in segments]
        return float(np.quantile(lengths_s, 0.1)), "short actions last about"
    rows = [sorted(one.point_s for one in row if one.point_s is not None) for row in labelled]
    gaps_s = np.concatenate([np.diff(row) for row in rows]) if rows else np.zeros(0)
    if not len(gaps_s):
        return None
    half_gap_s = float(np.quantile(gaps_s, 0.1)) / 2
    return half_gap_s, "by the distance of points, short actions last up to"
