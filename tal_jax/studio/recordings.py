"""The recordings to label: their files, durations, frame rates and signals."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.keypoints import Keypoints
from tal_jax.extraction import keypoint_tables, tables
from tal_jax.extraction.recommendation import holds_keypoints
from tal_jax.extraction.tables import Table, read_table
from tal_jax.extraction.video import has_video_suffix, probe

_TABLES = tuple(dict.fromkeys((*tables.SUFFIXES, *keypoint_tables.SUFFIXES)))


@dataclasses.dataclass(frozen=True)
class Source:
    """A recording's file.

    Attributes:
      name: of the recording: the file's name without its suffix; of a table of keypoints without
        what trackers append, too.
      path: the file that is played or plotted.
      keypoints: the table of keypoints, which may be that file; None where there is none.
    """

    name: str
    path: Path
    keypoints: Path | None = None

    @property
    def kind(self) -> str:
        """Either "video" or "signal"."""
        return "video" if has_video_suffix(self.path) else "signal"


@dataclasses.dataclass(frozen=True)
class Details:
    """Properties of a recording's file.

    Attributes:
      duration_s: its duration.
      frame_rate: frames, or samples, per second.
      envelope: of a signal; None for a video.
      origin_s: timestamp of a video that is time 0.
      notes: what the file leaves open.
    """

    duration_s: float
    frame_rate: float
    envelope: "Envelope | None" = None
    origin_s: float = 0.0
    notes: tuple[str, ...] = ()


def find_sources(paths: Iterable[str | os.PathLike]) -> tuple[Source, ...]:
    """Finds the recordings among files and folders.

    A table of keypoints belongs to the video that it was computed from, where that is there.

    Args:
      paths: files and folders; of a folder, all videos and tables, sorted by name.

    Raises:
      InputError: if a file is missing or of an unknown kind, a folder contains no recording, or two
        files have the same recording name.
    """
    found = []
    for path in map(Path, paths):
        files = sorted(filter(_is_recording, path.iterdir())) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no recordings in it, expected {_expected()}")
        for file in files:
            if not file.is_file():
                raise InputError(f"cannot read {file}: No such file or directory")
            if not _is_recording(file):
                raise InputError(f"{file}: unknown suffix, expected {_expected()}")
        found += files
    found = list(dict.fromkeys(found))
    joints = _keypoint_tables(found)
    sources: dict[str, Source] = {}
    for path in found:
        if path in joints:
            continue
        if (same := sources.get(path.stem)) is not None:
            raise InputError(
                f"{same.path} and {path} would both be the recording {path.stem!r}, expected "
                "different names"
            )
        sources[path.stem] = Source(path.stem, path)
    for path in keypoint_tables.prefer(joints)[0]:
        name = keypoint_tables.recording_name(path)
        beside = sources.get(name)
        if beside is not None and beside.kind != "video":
            raise InputError(
                f"{beside.path} and {path} would both be the recording {name!r}, expected "
                "different names"
            )
        sources[name] = Source(name, path if beside is None else beside.path, path)
    order = {path: number for number, path in enumerate(found)}
    return tuple(sorted(sources.values(), key=lambda source: order[source.path]))


def list_files(paths: Iterable[str | os.PathLike]) -> dict[Path, tuple[int, int]]:
    """The files that `find_sources` reads, with their sizes and times of change; opens none.

    Args:
      paths: files and folders; those that are gone are left out.
    """
    found = {}
    for path in map(Path, paths):
        with contextlib.suppress(OSError):  # gone meanwhile
            inside = sorted(filter(_is_recording, path.iterdir())) if path.is_dir() else [path]
            for file in filter(Path.is_file, inside):
                status = file.stat()
                found[file] = status.st_size, status.st_mtime_ns
    return found


def read_details(source: Source, *, source_fps: float = 0.0) -> Details:
    """Reads the header of a video, or a table.

    Args:
      source: the recording.
      source_fps: frames per second of a table of keypoints without times.

    Raises:
      InputError: if the file cannot be read.
    """
    if source.kind == "video":
        info = probe(source.path)
        return Details(info.duration_s, info.frame_rate, origin_s=info.origin_s, notes=info.notes)
    if source.keypoints is not None:
        table = _table_of(keypoint_tables.read_keypoints(source.path, source_fps=source_fps))
    else:
        table = read_table(source.path)
    step_s = float(np.median(np.diff(table.times_s)))
    duration_s = float(table.times_s[-1]) + step_s
    return Details(duration_s, 1 / step_s, Envelope(table), notes=table.notes)


class Envelope:
    """Minima and maxima of a signal over the bins of any window.

    Attributes:
      names: of the channels.
      ranges: `(minimum, maximum)` of each channel.
    """

    def __init__(self, table: Table):
        """Stores the samples channel after channel, where reductions over time are fast."""
        self.names = table.names
        self._times_s = table.times_s
        self._values = np.ascontiguousarray(table.values.T, np.float32)
        self.ranges = [(float(one.min()), float(one.max())) for one in self._values]

    def window(
        self, start_s: float, end_s: float, bins: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns minima and maxima of the signal within a window, for drawing.

        Args:
          start_s: start of the window.
          end_s: its end.
          bins: number of bins; up to twice as many samples are returned unchanged.

        Returns:
          The start times `[m]` of the bins, their minima and their maxima `[m, channels]`.
        """
        count = len(self._times_s)
        # One sample more on each side, so that lines reach the edges.
        first = max(int(np.searchsorted(self._times_s, start_s, "right")) - 1, 0)
        last = min(int(np.searchsorted(self._times_s, end_s, "left")) + 1, count)
        last = max(last, first + 1)
        times_s, values = self._times_s[first:last], self._values[:, first:last]
        if last - first <= 2 * bins:
            return times_s, values.T, values.T
        edges = np.linspace(0, last - first, bins + 1).astype(int)[:-1]
        low, high = (of.reduceat(values, edges, axis=1).T for of in (np.minimum, np.maximum))
        return times_s[edges], low, high


def _table_of(keypoints: Keypoints) -> Table:
    """The coordinates of joints as channels of a signal; missing ones are interpolated."""
    names = [
        f"{joint}_{axis}" if len(keypoints.animals) == 1 else f"{animal}_{joint}_{axis}"
        for animal in keypoints.animals
        for joint in keypoints.joints
        for axis in "xyz"[: keypoints.dims]
    ]
    values = keypoints.positions.reshape(len(keypoints.times_s), -1).astype(np.float32)
    for column in values.T:
        known = np.isfinite(column)
        column[~known] = (
            np.interp(np.flatnonzero(~known), np.flatnonzero(known), column[known])
            if known.any()
            else 0.0
        )
    return Table(keypoints.times_s, values, tuple(names), notes=keypoints.notes)


def _keypoint_tables(paths: Iterable[Path]) -> list[Path]:
    """The tables of keypoints; of each folder and suffix the first table stands for the others."""
    kinds: dict[tuple[Path, str], bool] = {}
    found = []
    for path in paths:
        suffix = path.suffix.lower()
        if has_video_suffix(path) or suffix not in keypoint_tables.SUFFIXES:
            continue
        group = path.parent, suffix
        if group not in kinds:
            kinds[group] = suffix not in tables.SUFFIXES or holds_keypoints(path)
        if kinds[group]:
            found.append(path)
    return found


def _is_recording(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and (path.suffix.lower() in _TABLES or has_video_suffix(path))


def _expected() -> str:
    return f"videos (.mp4, .webm, .mov, ...) or tables ({', '.join(_TABLES)})"
