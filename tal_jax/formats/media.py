"""Durations and frame rates of recordings, from their files or from a manifest of features."""

import math
import os
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.manifest import MANIFEST_FILE, Manifest, read_manifest
from tal_jax.datasets.own_layout import GRID_FILE
from tal_jax.extraction.tables import SUFFIXES, read_table
from tal_jax.extraction.video import has_video_suffix, probe
from tal_jax.formats.labels import find_media


class Media:
    """The recordings of label files: a folder of videos and sensor tables, and one of features.

    Attributes:
      given_rate: frames per second that the user named; None otherwise.
      notes: one line for each table whose duration cannot be read.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        features: str | os.PathLike | None = None,
        labels: str | os.PathLike | None = None,
        frame_rate: float | None = None,
    ):
        """Opens the folders.

        Args:
          folder: of the recordings.
          features: of features that were extracted from them; its manifest has their durations.
          labels: the label file, which is not one of the tables.
          frame_rate: frames per second of the videos.

        Raises:
          InputError: if the frame rate is not a finite number above 0.
        """
        if frame_rate is not None and not 0 < frame_rate < math.inf:
            raise InputError(f"frame rate {frame_rate}, expected frames per second above 0")
        self.folder, self.given_rate = Path(folder), frame_rate
        self.notes: list[str] = []
        self._labels = labels
        self._found: dict[str, tuple[float | None, float | None]] = {}
        folders = [self.folder] if features is None else [Path(features), self.folder]
        self._manifests = [one for one in map(_manifest, folders) if one is not None]

    def path(self, name: str) -> Path | None:
        """Returns the file of a recording, if there is one."""
        return find_media(self.folder, name)

    def duration_s(self, name: str) -> float | None:
        """Returns the duration of a recording; None if it is unknown."""
        return self._look(name)[0]

    def video_rate(self, name: str) -> float | None:
        """Returns frames per second of a recording's video; None if there is none."""
        return self._look(name)[1]

    def frame_rate(self, name: str) -> float | None:
        """Returns the rate that the user named, or that of the video."""
        return self.given_rate or self.video_rate(name)

    def _look(self, name: str) -> tuple[float | None, float | None]:
        if name not in self._found:
            self._found[name] = self._probe(name)
        return self._found[name]

    def _probe(self, name: str) -> tuple[float | None, float | None]:
        path = self.path(name)
        if path is not None and has_video_suffix(path):
            try:
                info = probe(path)
                return info.duration_s, info.frame_rate
            except ValueError:  # PyAV is missing, or cannot read it
                pass
        for manifest in self._manifests:
            if name in manifest.recordings:
                return manifest.recordings[name].duration_s, None
        if path is not None and path.suffix.lower() in SUFFIXES and self._is_table(path):
            try:
                times_s = read_table(path).times_s
                # The last sample lasts as long as the others.
                return float(times_s[-1] + np.median(np.diff(times_s))), None
            except ValueError as error:
                self.notes.append(f"no duration of {name} from its table: {error}")
        return None, None

    def _is_table(self, path: Path) -> bool:
        if self._labels is not None and path.resolve() == Path(self._labels).resolve():
            return False
        # Arrays beside a clock or a manifest are features.
        beside = (path.with_name(GRID_FILE), path.with_name(MANIFEST_FILE))
        return path.suffix.lower() != ".npy" or not any(one.exists() for one in beside)


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except ValueError:  # another program's file of that name
        return None
