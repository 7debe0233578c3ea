"""Predictions of networks: score sequences and video-level scores, on the device and in files.

A file `scores_test.npz` holds, for every recording NAME,

    NAME/clock       [4] float64: fps, stride_frames, window_frames and duration_s
    NAME/scores      [T, C] float32: class activation sequence (CAS)
    NAME/foreground  [T] float32: actionness
    NAME/video       [C] float32: video-level class scores

and, where a second forward pass covered a lengthened timeline, its outputs, which the detections
are made from, and the map of its times back to the original timeline:

    NAME/long_scores      [N, C] float32
    NAME/long_foreground  [N] float32
    NAME/long_video       [C] float32
    NAME/cumulative       [T + 1] float32, see `ops.resampling.cumulative_weights`
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.clock import Grid


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs of a network on a timeline of N snippets: all that localization needs.

    Of one recording, or of B with a leading axis. Without `cumulative` the timeline is the original
    one; without `where` all of its snippets are valid.
    """

    cas: Any  # [N, C] class activation sequence (CAS)
    actionness: Any  # [N] class-agnostic confidence that there is an action
    video_scores: Any  # [C] video-level class scores
    cumulative: Any = None  # [T + 1] maps times of the N snippets back to the original T
    where: Any = None  # [N] bool, valid snippets


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingPredictions:
    """Predictions for one recording, with its clock; host arrays without padding."""

    grid: Grid
    duration_s: float
    original: Predictions  # on the original timeline, N = T
    # Those that detections are made from: other ones where a second forward pass covered a
    # lengthened timeline.
    last: Predictions


def write_predictions(
    path: str | os.PathLike, recordings: Mapping[str, RecordingPredictions]
) -> None:
    """Writes predictions; see the module for the layout. Names have to be Unicode."""
    arrays = {}
    for name, one in recordings.items():
        files.check_text(name, str(path))
        clock = [*dataclasses.astuple(one.grid), one.duration_s]
        arrays[f"{name}/clock"] = np.array(clock, np.float64)
        arrays |= _arrays(f"{name}/", one.original)
        if one.last is not one.original:
            arrays |= _arrays(f"{name}/long_", one.last)
            arrays[f"{name}/cumulative"] = one.last.cumulative
    files.write_npz(path, arrays)


def read_predictions(path: str | os.PathLike) -> dict[str, RecordingPredictions]:
    """Reads what `write_predictions` wrote.

    Raises:
      InputError: if the file cannot be read, or an array of a recording is missing or malformed.
    """
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, array in files.read_npz(path).items():
        name, _, part = key.rpartition("/")
        parts.setdefault(name, {})[part] = array
    try:
        return {name: _parse_recording(name, arrays) for name, arrays in parts.items()}
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected predictions that tal_jax saved") from error


def _arrays(prefix: str, one: Predictions) -> dict[str, np.ndarray]:
    parts = {"scores": one.cas, "foreground": one.actionness, "video": one.video_scores}
    return {f"{prefix}{part}": array for part, array in parts.items()}


def _parse_recording(name: str, arrays: Mapping[str, np.ndarray]) -> RecordingPredictions:
    def read(part: str, *shape: int | None, dtype: type = np.float32) -> np.ndarray:
        if part not in arrays:
            raise InputError(f"no array {f'{name}/{part}'!r}")
        array = arrays[part]
        fits = array.ndim == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
        )
        if not fits or not array.size or array.dtype != dtype:
            wanted = f"{np.dtype(dtype)} {list(shape)}".replace("None", "any")
            raise InputError(f"{name}/{part} is {array.dtype} {list(array.shape)}, not {wanted}")
        if not np.isfinite(array).all():
            raise InputError(f"{name}/{part} holds NaN or infinity")
        return array

    def read_pass(prefix: str, num_classes: int | None = None) -> list[np.ndarray]:
        scores = read(f"{prefix}scores", None, num_classes)
        length, num_classes = scores.shape
        return [scores, read(f"{prefix}foreground", length), read(f"{prefix}video", num_classes)]

    *grid, duration_s = read("clock", 4, dtype=np.float64).tolist()
    arrays_of_pass = read_pass("")
    length, num_classes = arrays_of_pass[0].shape
    original = Predictions(*arrays_of_pass, cumulative=np.arange(length + 1, dtype=np.float32))
    last = original
    if "long_scores" in arrays:
        last = Predictions(
            *read_pass("long_", num_classes), cumulative=read("cumulative", length + 1)
        )
    return RecordingPredictions(Grid(*grid), duration_s, original, last)
