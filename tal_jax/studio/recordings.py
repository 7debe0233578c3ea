"""The recordings to label: their files, durations, frame rates and signals."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.extraction import tables
from tal_jax.extraction.tables import Table, read_table
from tal_jax.extraction.video import has_video_suffix, probe


@dataclasses.dataclass(frozen=True)
class Source:
    """A recording's file.

    Attributes:
      name: of the recording: the file's name without its suffix.
      path: the file.
    """

    name: str
    path: Path

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

    Args:
      paths: files and folders; of a folder, all videos and tables, sorted by name.

    Raises:
      InputError: if a file is missing or of an unknown kind, a folder contains no recording, or two
        files have the same recording name.
    """
    found: dict[str, Source] = {}
    for path in map(Path, paths):
        files = sorted(filter(_is_recording, path.iterdir())) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: no recordings in it, expected {_expected()}")
        for file in files:
            if not file.is_file():
                raise InputError(f"cannot read {file}: No such file or directory")
            if not _is_recording(file):
                raise InputError(f"{file}: unknown suffix, expected {_expected()}")
            if file.stem in found and found[file.stem].path != file:
                raise InputError(
                    f"{found[file.stem].path} and {file} would both be the recording "
                    f"{file.stem!r}, expected different names"
                )
            found[file.stem] = Source(file.stem, file)
    return tuple(found.values())


def read_details(source: Source) -> Details:
    """Reads the header of a video, or a table.

    Raises:
      InputError: if the file cannot be read.
    """
    if source.kind == "video":
        info = probe(source.path)
        return Details(info.duration_s, info.frame_rate, origin_s=info.origin_s, notes=info.notes)
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


def _is_recording(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and (path.suffix.lower() in tables.SUFFIXES or has_video_suffix(path))


def _expected() -> str:
    return f"videos (.mp4, .webm, .mov, ...) or tables ({', '.join(tables.SUFFIXES)})"
