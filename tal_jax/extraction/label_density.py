"""Proposes the clock of features from labels: short, dense actions need fine snippets."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import addresses
from tal_jax.data.annotations import Annotations, load_annotations
from tal_jax.data.clock import Grid
from tal_jax.datasets.own_layout import ANNOTATION_FILE
from tal_jax.datasets.selection import choose_subsets
from tal_jax.extraction.backbones import Backbone, grid_of

# Shares of a short action: a few snippets in it, and windows that lie inside it.
_STRIDE, _WINDOW = 0.25, 0.5
# A network's window of a fixed number of frames may span all of it. Faster than most videos, the
# frames of a window would only repeat.
_FIXED_WINDOW, _MOST_FPS = 1.0, 30.0
# A clock that differs by less is as good.
_TOLERANCE = 1.5


def find_annotations(paths: Iterable[str | os.PathLike], output: str | os.PathLike) -> Path | None:
    """The annotations in the folder for the features, or else beside the recordings."""
    folders, sources = [Path(output)], map(addresses.locate, paths)
    local = [path for path in sources if addresses.is_local(path)]
    folders += [path if path.is_dir() else path.parent for path in local]
    return next((f / ANNOTATION_FILE for f in folders if (f / ANNOTATION_FILE).is_file()), None)


def propose_clock(path: Path, backbone: Backbone) -> str | None:
    """A line that proposes stride and window where the labels ask for others than the backbone's.

    Args:
      path: annotations; those of the training recordings are read.
      backbone: whose clock is compared. Of a network with a fixed number of frames, their rate is
        proposed instead of the window.

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
    grid, fixed = grid_of(backbone), bool(getattr(backbone, "fixed_window", False))
    settings = _fixed_window_clock(grid, action_s) if fixed else _clock(grid, action_s)
    now_s = grid.stride_frames / grid.fps, grid.window_frames / grid.fps
    fps = settings.get("fps", grid.fps)
    new_s = settings["stride"] / fps, settings.get("window", grid.window_frames) / fps
    ratios = [new / now for new, now in zip(new_s, now_s, strict=True)]
    if all(1 / _TOLERANCE <= ratio <= _TOLERANCE for ratio in ratios):
        return None
    flags = " ".join(f"--set {key}={value:g}" for key, value in settings.items())
    return (
        f"{path}: {reason} {action_s:.3g} s; {flags} would make snippets {new_s[0]:.2g} s long and "
        f"windows {new_s[1]:.2g} s wide{' (of a fixed number of frames)' if fixed else ''}, now "
        f"{now_s[0]:.2g} s and {now_s[1]:.2g} s (stride {grid.stride_frames:g}, window "
        f"{grid.window_frames:g} at {grid.fps:g} a second)"
    )


def _clock(grid: Grid, action_s: float) -> dict[str, float]:
    return {
        "stride": max(round(_STRIDE * action_s * grid.fps), 1),
        # even, as networks need that take any number of pairs of frames
        "window": max(2 * round(_WINDOW * action_s * grid.fps / 2), 2),
    }


def _fixed_window_clock(grid: Grid, action_s: float) -> dict[str, float]:
    """A rate of frames at which their fixed number lies in an action, where it does not yet."""
    needed = math.ceil(grid.window_frames / (_FIXED_WINDOW * action_s))
    fps = min(max(needed, grid.fps), max(_MOST_FPS, grid.fps))
    rate = {} if fps == grid.fps else {"fps": fps}
    return {**rate, "stride": max(round(_STRIDE * action_s * fps), 1)}


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
