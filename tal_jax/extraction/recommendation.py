"""Which backbone suits the files at hand."""

import dataclasses
import importlib.util
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tal_jax._errors import InputError
from tal_jax.extraction import body, keypoint_tables, tables, video

# A network whose licence allows any use, with weights in an open format (docs/extraction.md).
MODEL = "facebook/vjepa2-vitl-fpc64-256"

VIDEOS, SENSORS, KEYPOINTS = "videos", "sensor tables", "keypoint tables"


@dataclasses.dataclass(frozen=True)
class Choice:
    """The backbone for a kind of file.

    Attributes:
      backbone: its name.
      options: of it.
      extra: of this package, that installs what it needs.
      packages: of the extra.
    """

    backbone: str
    options: Mapping[str, str]
    extra: str
    packages: tuple[str, ...]

    @property
    def missing(self) -> bool:
        """Whether one of its packages is not installed."""
        return any(importlib.util.find_spec(package) is None for package in self.packages)

    @property
    def flags(self) -> str:
        """Its name and options, as `--backbone` takes them."""
        return " ".join([self.backbone, *(f"--set {k}={v}" for k, v in self.options.items())])


CHOICES = {
    VIDEOS: Choice(
        "transformers",
        {"model": MODEL, "window": "16"},
        "transformers",
        ("torch", "transformers"),
    ),
    SENSORS: Choice("signal", {}, "tables", ("pebble",)),
    KEYPOINTS: Choice("pose", {}, "tables", ("pebble",)),
}

_LEAST_JOINTS = 3
_SENSOR_WORDS = {
    *("acc", "accel", "acceleration", "accelerometer", "gyr", "gyro", "gyroscope", "mag", "magn"),
    *("magnetometer", "gravity", "linear", "imu", "channel", "sensor", "rotation", "quaternion"),
}


def recommend(paths: Sequence[str | os.PathLike], output: str | os.PathLike) -> str:
    """A line with the recordings that were found, the backbone for most of them, and its command.

    Args:
      paths: recordings, and folders of them.
      output: the folder for the features, for the command.
    """
    counts = dict.fromkeys(CHOICES, 0)
    of_suffix: dict[str, str] = {}
    for path in _files(paths):
        suffix = path.suffix.lower()
        if video.has_video_suffix(path):
            counts[VIDEOS] += 1
        elif suffix in (*tables.SUFFIXES, *keypoint_tables.SUFFIXES):
            if suffix not in of_suffix:  # the first one stands for the others
                of_suffix[suffix] = KEYPOINTS if holds_keypoints(path) else SENSORS
            counts[of_suffix[suffix]] += 1
    found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    places = shlex.join(map(str, paths))
    if not found:
        return (
            f"no video and no table in {places}; expected files "
            f"{', '.join((*video.SUFFIXES, *tables.SUFFIXES))}"
        )
    most = max(counts, key=lambda kind: counts[kind])
    choice = CHOICES[most]
    install = f'pip install "tal_jax[{choice.extra}]" && ' if choice.missing else ""
    others = " (pose for people, motion for a first try)" if most == VIDEOS else ""
    return (
        f"no --backbone given; found {found}; recommended for {most}: {choice.backbone}{others}: "
        f"{install}tal-jax extract {places} --output {shlex.quote(str(output))} "
        f"--backbone {choice.flags}"
    )


def _files(paths: Sequence[str | os.PathLike]) -> list[Path]:
    found = []
    for path in map(Path, paths):
        found += sorted(p for p in path.iterdir() if p.name[0] != ".") if path.is_dir() else [path]
    return [path for path in found if path.is_file()]


def holds_keypoints(path: str | os.PathLike) -> bool:
    """Whether a table holds joints rather than samples of sensors, which have x, y and z too."""
    try:
        found = keypoint_tables.read_keypoints(path, source_fps=1.0)
    except InputError:
        return False
    words = {word for joint in found.joints for word in body.words_of(joint)}
    given = bool((found.confidence[found.confidence > 0] < 1).any())  # else 1 throughout
    return given or (len(found.joints) >= _LEAST_JOINTS and not words & _SENSOR_WORDS)
