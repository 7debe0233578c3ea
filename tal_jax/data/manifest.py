"""What made a folder of features: `manifest.json` beside them, and the run card's copy of it."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tal_jax.data import files
from tal_jax.data.clock import Grid

MANIFEST_FILE = "manifest.json"
_VERSION = 1
# Options that say where something lies, not what it is: the backbone's version says that.
_PLACES = ("path",)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the manifest tells of one recording.

    Attributes:
      source: its file, the whole path.
      sha256: of that file.
      bytes: its size.
      modified_ns: when it was last changed, as the file system counts.
      duration_s: how long the recording is.
      snippets: T.
      dim: D.
      notes: what of the recording was left out.
    """

    source: str
    sha256: str
    bytes: int
    modified_ns: int
    duration_s: float
    snippets: int
    dim: int
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What made a folder of features; `open_backbone(backbone, **options)` makes more of them.

    Attributes:
      backbone: its name.
      version: the backbone's.
      options: the backbone's.
      dim: number of features D, where the backbone tells it.
      grid: the clock of the features.
      recordings: by their names.
    """

    backbone: str
    version: str
    options: Mapping[str, Any]
    dim: int | None
    grid: Grid
    recordings: Mapping[str, Entry] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `manifest.json` holds."""
        return {
            "version": _VERSION,
            "backbone": {
                "name": self.backbone,
                "version": self.version,
                "options": dict(self.options),
                "dim": self.dim,
            },
            "grid": self.grid.to_dict(),
            "recordings": {
                name: dataclasses.asdict(entry) for name, entry in sorted(self.recordings.items())
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Manifest":
        """Reads what `to_dict` returned; raises ValueError if it is nothing of the kind."""
        try:
            if values["version"] != _VERSION:
                raise ValueError(f"version {values['version']!r}, expected {_VERSION}")
            recordings = {
                name: Entry(**{**entry, "notes": tuple(entry["notes"])})
                for name, entry in values["recordings"].items()
            }
            name, version, options, dim = (
                values["backbone"][key] for key in ("name", "version", "options", "dim")
            )
            return cls(
                name, version, dict(options), dim, Grid.from_dict(values["grid"]), recordings
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no manifest of features ({error})") from error


def read_manifest(folder: str | os.PathLike) -> Manifest | None:
    """Reads what `extract_folder` wrote of a folder; None where it did not write one.

    Raises:
      ValueError: if the file cannot be read, or is not such a manifest.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.exists():
        return None
    values = files.read_json(path)
    try:
        return Manifest.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_same_backbone(one: Manifest, other: Manifest, where: str) -> None:
    """Raises ValueError telling in what two backbones differ, if they do.

    Where weights lie does not matter: the version tells which they are.

    Args:
      one: what is there.
      other: what is wanted.
      where: the place of the former, for the message.
    """
    settings = [_settings(manifest) for manifest in (one, other)]
    differ = [
        f"{key} is {settings[0].get(key)}, not {settings[1].get(key)}"
        for key in dict.fromkeys([*settings[0], *settings[1]])
        if settings[0].get(key) != settings[1].get(key)
    ]
    if differ:
        raise ValueError(f"{where}: features of another kind: {'; '.join(differ)}")


def _settings(manifest: Manifest) -> dict[str, Any]:
    grid = manifest.grid
    options = {key: value for key, value in manifest.options.items() if key not in _PLACES}
    return options | {
        "backbone": manifest.backbone,
        "version": manifest.version,
        "dim": manifest.dim,
        "fps": grid.fps,
        "stride": grid.stride_frames,
        "window": grid.window_frames,
    }


def write_manifest(output: Path, manifest: Manifest) -> None:
    """Writes a folder's manifest, whole or not at all."""
    files.write_json(output / MANIFEST_FILE, manifest.to_dict())
