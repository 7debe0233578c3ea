"""The manifest of a folder of features: the backbone, its options, and the source recordings.

It is `manifest.json` in the folder, and part of the card of a run that trains on the features.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.clock import Grid

MANIFEST_FILE = "manifest.json"
_VERSION = 1
# Options that are locations, whose content the backbone's version identifies, and those by which
# one table is read; neither makes features of another kind.
_NOT_COMPARED = ("path", "model", "revision", "time", "time_unit", "source_fps")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One recording in the manifest."""

    source: str  # absolute path of its file
    sha256: str  # of that file
    bytes: int  # size of that file
    modified_ns: int  # time of its last change, in the file system's nanoseconds
    duration_s: float
    snippets: int  # T
    dim: int  # D
    notes: tuple[str, ...] = ()  # what of the recording was left out


@dataclasses.dataclass(frozen=True)
class Manifest:
    """How a folder of features was made; `open_backbone(backbone, **options)` makes more."""

    backbone: str  # its name
    version: str
    options: Mapping[str, Any]
    dim: int | None  # D; None where it depends on the channels of a table
    grid: Grid  # the clock of the features
    recordings: Mapping[str, Entry] = dataclasses.field(default_factory=dict)
    # Usual names of the channels, where the recordings had none: those of a table are taken by
    # these names or, if it has none of them, by their places.
    channels: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `manifest.json`."""
        return {
            "version": _VERSION,
            "backbone": {
                "name": self.backbone,
                "version": self.version,
                "options": dict(self.options),
                "dim": self.dim,
                **({"channels": list(self.channels)} if self.channels else {}),
            },
            "grid": self.grid.to_dict(),
            "recordings": {
                name: dataclasses.asdict(entry) for name, entry in sorted(self.recordings.items())
            },
        }

    @classmethod
    def from_dict(cls, values: Any) -> "Manifest":
        """Parses what `to_dict` returned; raises InputError if it is no such dictionary."""
        try:
            content = files.convert(values, _Content, "manifest")
            if content.version != _VERSION:
                raise InputError(f"version {content.version}, expected {_VERSION}")
            recordings = files.convert_each(content.recordings, Entry, "recordings")
            return cls(
                **msgspec.structs.asdict(content.backbone),
                grid=Grid.from_dict(content.grid),
                recordings=recordings,
            )
        except ValueError as error:
            raise InputError(f"no manifest of features ({error})") from error


class _Backbone(msgspec.Struct):
    backbone: str = msgspec.field(name="name")
    version: str
    options: dict[str, Any]
    dim: int | None
    channels: tuple[str, ...] = ()


class _Content(msgspec.Struct):
    version: int
    backbone: _Backbone
    grid: Any
    recordings: dict[str, Any]


def read_manifest(folder: str | os.PathLike) -> Manifest | None:
    """Reads the manifest that `extract_folder` wrote; None for a folder without one."""
    path = Path(folder) / MANIFEST_FILE
    if not path.exists():
        return None
    values = files.read_json(path)
    try:
        return Manifest.from_dict(values)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def check_same_backbone(one: Manifest, other: Manifest, where: str) -> None:
    """Raises an InputError with the differences between the backbone at `where` and another.

    The location of weights (a path, or a model of a hub) is not compared: the version identifies
    them; nor is how the time of a table is found.
    """
    settings = [_settings(manifest) for manifest in (one, other)]
    differ = [
        f"{key} is {settings[0].get(key)}, not {settings[1].get(key)}"
        for key in dict.fromkeys([*settings[0], *settings[1]])
        if settings[0].get(key) != settings[1].get(key)
    ]
    if differ:
        raise InputError(f"{where}: features of another kind: {'; '.join(differ)}")


def _settings(manifest: Manifest) -> dict[str, Any]:
    grid = manifest.grid
    options = {key: value for key, value in manifest.options.items() if key not in _NOT_COMPARED}
    return options | {
        "backbone": manifest.backbone,
        "version": manifest.version,
        "dim": manifest.dim,
        "fps": grid.fps,
        "stride": grid.stride_frames,
        "window": grid.window_frames,
    }


def write_manifest(output: Path, manifest: Manifest) -> None:
    """Writes a folder's manifest, atomically."""
    files.write_json(output / MANIFEST_FILE, manifest.to_dict())
