"""Score sequences in a file: enough to localize again, without the network that they come from.

A file `scores_test.npz` holds, for every recording NAME,

    NAME/clock       [4] float64: fps, stride_frames, window_frames and duration_s
    NAME/scores      [T, C] float32: confidences of the classes, snippet by snippet
    NAME/foreground  [T] float32: how surely there is any action
    NAME/video       [C] float32: how surely the recording holds each class

and, where the network read the recording a second time on a lengthened timeline, what it said
then, which is what the detections were made from, and what leads its times back:

    NAME/long_scores      [N, C] float32
    NAME/long_foreground  [N] float32
    NAME/long_video       [C] float32
    NAME/cumulative       [T + 1] float32, see `ops.resampling.cumulative_weights`
"""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from tal_jax.data import files
from tal_jax.data.clock import Grid


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreSequence:
    """What a network said of one recording of T snippets, on a timeline of N."""

    scores: np.ndarray  # [N, C] confidence of every class
    foreground: np.ndarray  # [N] how surely there is any action
    video: np.ndarray  # [C] how surely the recording holds the class
    cumulative: np.ndarray  # [T + 1] leads times from the N snippets back to the T


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingScores:
    """What a network said of one recording, with its clock.

    Attributes:
      grid: the clock of the recording's features.
      duration_s: duration of the recording in seconds.
      original: on the recording's own timeline, N = T.
      last: what the detections were made from; another sequence than `original` where the network
        read a lengthened timeline.
    """

    grid: Grid
    duration_s: float
    original: ScoreSequence
    last: ScoreSequence


def write_scores(path: str | os.PathLike, recordings: Mapping[str, RecordingScores]) -> None:
    """Writes score sequences; see the module for the layout.

    Raises:
      OSError: as `files.write_npz` does.
    """
    arrays = {}
    for name, one in recordings.items():
        clock = [*dataclasses.astuple(one.grid), one.duration_s]
        arrays[f"{name}/clock"] = np.array(clock, np.float64)
        arrays |= _arrays(f"{name}/", one.original)
        if one.last is not one.original:
            arrays |= _arrays(f"{name}/long_", one.last)
            arrays[f"{name}/cumulative"] = one.last.cumulative
    files.write_npz(path, arrays)


def read_scores(path: str | os.PathLike) -> dict[str, RecordingScores]:
    """Reads what `write_scores` wrote.

    Raises:
      ValueError: if the file cannot be read, or an array of a recording is missing or malformed.
    """
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, array in files.read_npz(path).items():
        name, _, part = key.rpartition("/")
        parts.setdefault(name, {})[part] = array
    try:
        return {name: _parse_recording(name, arrays) for name, arrays in parts.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected scores that tal_jax saved") from error


def _arrays(prefix: str, sequence: ScoreSequence) -> dict[str, np.ndarray]:
    return {
        f"{prefix}{part}": getattr(sequence, part) for part in ("scores", "foreground", "video")
    }


def _parse_recording(name: str, arrays: Mapping[str, np.ndarray]) -> RecordingScores:
    def read(part: str, *shape: int | None, dtype: type = np.float32) -> np.ndarray:
        if part not in arrays:
            raise ValueError(f"no array {f'{name}/{part}'!r}")
        array = arrays[part]
        fits = array.ndim == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
        )
        if not fits or not array.size or array.dtype != dtype:
            wanted = f"{np.dtype(dtype)} {list(shape)}".replace("None", "any")
            raise ValueError(f"{name}/{part} is {array.dtype} {list(array.shape)}, not {wanted}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}/{part} holds NaN or infinity")
        return array

    def read_pass(prefix: str, num_classes: int | None = None) -> list[np.ndarray]:
        scores = read(f"{prefix}scores", None, num_classes)
        length, num_classes = scores.shape
        return [scores, read(f"{prefix}foreground", length), read(f"{prefix}video", num_classes)]

    *grid, duration_s = read("clock", 4, dtype=np.float64).tolist()
    arrays_of_pass = read_pass("")
    length, num_classes = arrays_of_pass[0].shape
    # On the recording's own timeline every snippet weighs 1.
    original = ScoreSequence(*arrays_of_pass, np.arange(length + 1, dtype=np.float32))
    last = original
    if "long_scores" in arrays:
        last = ScoreSequence(*read_pass("long_", num_classes), read("cumulative", length + 1))
    return RecordingScores(Grid(*grid), duration_s, original, last)
