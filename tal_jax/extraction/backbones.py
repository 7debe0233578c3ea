"""Backbones: functions from a window of frames or samples to the features of a snippet.

A backbone is any object with the attributes of `Backbone`. Three need no weights: `signal` for
sensors, `pose` for keypoints and `motion` for videos. Those with weights, `transformers` from a hub
or a folder, `videoprism` from a file, and `pose` where it finds the keypoints of videos, import
their packages when chosen.
"""

import dataclasses
import hashlib
import importlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import signals
from tal_jax.data.clock import Grid
from tal_jax.extraction.time_columns import TIME_UNITS

VIDEO, TABLE, KEYPOINTS = "video", "table", "keypoint table"


class Backbone(Protocol):
    """The interface that `extract_folder` requires."""

    name: str  # of the method
    version: str  # changes whenever the features of the same recording change
    kind: str  # "video", "table" or "keypoint table", its input
    fps: float  # frames or samples per second that recordings are resampled to
    window: int  # frames of the window of a snippet's features
    stride: float  # frames from one snippet's start to the next one's
    dim: int | None  # number of features D; None where it depends on the channels of a table
    size: tuple[int, int] | None  # height and width that frames are scaled to
    options: Mapping[str, Any]  # of `open_backbone(name, **options)`, for the same backbone

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Maps windows, uint8 `[N, window, H, W, 3]` or `[N, window, channels]`, to `[N, D]`."""
        ...


def open_backbone(name: str, **options: Any) -> Backbone:
    """Opens a backbone by its name; weights are checked, and loaded with the first window.

    Args:
      name: "signal", "pose", "motion", "transformers" or "videoprism".
      **options: `fps`, `window` (frames) and `stride` (frames), and the other attributes of the
        backbone's class. Values may be text from a command line.

    Raises:
      InputError: if there is no such backbone or option, a value is invalid, or a package or
        weights are missing.
    """
    if name not in _BACKBONES:
        raise InputError(f"backbone {name!r}; expected one of {', '.join(_BACKBONES)}")
    module, class_name = _BACKBONES[name]
    kind = getattr(importlib.import_module(module), class_name)
    known = [field.name for field in dataclasses.fields(kind)]
    required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    for key in options:
        if key not in known:
            raise InputError(f"backbone {name}: option {key!r}; expected {', '.join(known)}")
    for key in required:
        if key not in options:
            raise InputError(f"backbone {name}: needs the option {key}")
    backbone = kind(**{key: _parse(name, key, value) for key, value in options.items()})
    try:
        grid_of(backbone)
    except ValueError as error:
        raise InputError(f"backbone {name}: {error}") from error
    return backbone


def reopen_backbone(name: str, recorded: Mapping[str, Any], changes: Mapping[str, Any]) -> Backbone:
    """Opens the backbone of a manifest, with some options changed.

    A new `path` or `model` of `transformers` replaces the place where its weights were before;
    whether they are the same weights, the version shows.
    """
    if name == "transformers" and {"path", "model"} & changes.keys():
        recorded = {k: v for k, v in recorded.items() if k not in ("path", "model", "revision")}
    return open_backbone(name, **{**recorded, **changes})


def grid_of(backbone: Backbone) -> Grid:
    """Returns the clock of a backbone's features."""
    return Grid(fps=backbone.fps, stride_frames=backbone.stride, window_frames=backbone.window)


def options_of(backbone: Any) -> dict[str, Any]:
    """Returns the fields of a backbone that is a dataclass, as options for `open_backbone`."""
    options = {f.name: getattr(backbone, f.name) for f in dataclasses.fields(backbone)}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}


def hash_files(paths: Iterable[Path]) -> str:
    """Returns a short hash of the content of files, for the version of a backbone."""
    whole = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{whole.hexdigest()[:16]}"


@dataclasses.dataclass(frozen=True)
class Signal:
    """Statistics and spectra of sensor signals, see `tal_jax.data.signals.window_features`."""

    fps: float = 50.0  # rate that the table is resampled to
    window: int = 75  # samples of the window of a snippet's features
    stride: float = 25.0  # samples between snippets
    # Names of the columns, in triples (x, y, z of one sensor); all by default.
    channels: tuple[str, ...] = ()
    # Name of the column of time, and its unit, where the table leaves them open.
    time: str = ""
    time_unit: str = ""

    name: ClassVar[str] = "signal"
    version: ClassVar[str] = signals.VERSION
    kind: ClassVar[str] = TABLE
    size: ClassVar[None] = None

    @property
    def options(self) -> dict[str, Any]:
        """The options, of `time` and `time_unit` those that are set."""
        options = options_of(self)
        return {key: v for key, v in options.items() if v or key not in ("time", "time_unit")}

    def __post_init__(self) -> None:
        if self.time_unit and self.time_unit not in TIME_UNITS:
            raise InputError(
                f"backbone signal: time_unit is {self.time_unit!r}, expected one of "
                f"{', '.join(TIME_UNITS)}"
            )
        if len(self.channels) % 3 or len(set(self.channels)) < len(self.channels):
            raise InputError(
                f"backbone signal: channels {', '.join(self.channels)}; expected different ones "
                "in triples (x, y, z of a sensor): choose them with channels=ax,ay,az"
            )
        if self.window < 2 or self.stride < 1:
            raise InputError(
                f"backbone signal: window={self.window} and stride={self.stride:g}; expected at "
                "least 2 samples and 1"
            )

    @property
    def dim(self) -> int | None:
        """The number of features D; None if the channels are unknown."""
        if not self.channels:
            return None
        return self(np.zeros((1, self.window, len(self.channels)))).shape[1]

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Computes the features `[N, D]` of windows `[N, window, channels]`."""
        return signals.describe_windows(windows, self.fps)


@dataclasses.dataclass(frozen=True)
class Motion:
    """Appearance and motion statistics of a video in each field of a 4 × 4 grid, without weights.

    Sufficient to try the library on a video, and for actions that differ in brightness, colour or
    motion. It does not represent objects or people; for results, use the features of a network.

    The features of a field are the mean of brightness and of two colour differences, the strength
    of edges, the mean and standard deviation of the difference of successive frames, and the
    optical flow (pixels per frame, mean and mean magnitude, to the right and downwards) of one step
    of Lucas and Kanade.
    """

    fps: float = 25.0
    window: int = 16  # frames of the window of a snippet's features
    stride: float = 8.0  # frames between snippets

    name: ClassVar[str] = "motion"
    version: ClassVar[str] = "1"
    kind: ClassVar[str] = VIDEO
    size: ClassVar[tuple[int, int]] = (64, 64)
    fields: ClassVar[int] = 4  # to either side
    dim: ClassVar[int] = 10 * fields**2
    options = property(options_of)

    def __post_init__(self) -> None:
        if self.window < 2:
            raise InputError(f"backbone motion: window={self.window}; expected at least 2 frames")

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Computes the features `[N, 160]` of windows, uint8 `[N, window, H, W, 3]`."""
        pixels = windows.astype(np.float32) / 255
        red, green, blue = np.moveaxis(pixels, -1, 0)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        down, right = np.gradient(grey, axis=(2, 3))
        change = np.diff(grey, axis=1)
        # Gradients between two frames are the mean of their gradients.
        down_between, right_between = ((g[:, 1:] + g[:, :-1]) / 2 for g in (down, right))
        flow_x, flow_y = self._flow(right_between, down_between, change)
        size = self._pool(np.abs(change))
        parts = [
            *(self._pool(plane).mean(1) for plane in (grey, red - green, blue - grey)),
            _log(self._pool(np.hypot(right, down)).mean(1)),
            _log(size.mean(1)),
            _log(size.std(1)),
            *(part for flow in (flow_x, flow_y) for part in (flow.mean(1), np.abs(flow).mean(1))),
        ]
        return np.concatenate([part.reshape(len(windows), -1) for part in parts], axis=1)

    def _pool(self, planes: np.ndarray) -> np.ndarray:
        """Averages over fields: `[N, window, H, W]` to `[N, window, fields, fields]`."""
        count, window, height, width = planes.shape
        n = self.fields
        return planes.reshape(count, window, n, height // n, n, width // n).mean((3, 5))

    def _flow(self, right: np.ndarray, down: np.ndarray, change: np.ndarray) -> tuple:
        """Returns the optical flow (x, y) of each field by least squares."""
        products = right * right, right * down, down * down, right * change, down * change
        xx, xy, yy, xt, yt = map(self._pool, products)
        # Without edges the flow is undetermined: the regularisation makes it zero.
        xx, yy = xx + _NO_EDGES, yy + _NO_EDGES
        determinant = xx * yy - xy * xy
        return (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant


_NO_EDGES = 1e-5


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(values + 1e-3)


# Modules and classes, imported when chosen.
_BACKBONES = {
    "signal": (__name__, "Signal"),
    "pose": ("tal_jax.extraction.pose", "Pose"),
    "motion": (__name__, "Motion"),
    "transformers": ("tal_jax.extraction.transformers", "Transformers"),
    "videoprism": ("tal_jax.extraction.videoprism", "VideoPrism"),
}


BACKBONES = tuple(_BACKBONES)


def is_network(name: str) -> bool:
    """Whether a backbone is a network, which uses all processors or a GPU."""
    return name in ("transformers", "videoprism")


def _parse(name: str, key: str, value: Any) -> Any:
    """Converts the value of an option to its type."""
    try:
        if key in ("fps", "stride", "source_fps"):
            number = float(value)
            if math.isfinite(number) and number > 0:
                return number
        elif key == "min_confidence":
            number = float(value)
            if 0 <= number <= 1:
                return number
        elif key in ("window", "dims", "people"):
            number = float(value)
            if number >= 1 and number == int(number):
                return int(number)
        elif key in ("channels", "joints", "animals", "bones", "ends"):
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(str(part).strip() for part in parts)
        else:
            return str(value)
    except (TypeError, ValueError, OverflowError):
        pass
    expected = {
        "window": "a whole number of frames above 0",
        "people": "a whole number above 0",
        "min_confidence": "a number from 0 to 1",
    }.get(key, "a number above 0")
    raise InputError(f"backbone {name}: {key} is {value!r}, expected {expected}")


# Options that name the content of tables: settled by the first one, and the same for all.
_SETTLED = (
    *("channels", "joints", "animals", "dims"),
    *("center", "axis", "side", "up", "turn", "bones", "ends"),
)


def with_options(backbone: Any, options: Mapping[str, Any]) -> Any:
    """Gives the backbone the names of channels or joints that it does not have yet."""
    if not dataclasses.is_dataclass(backbone):
        return backbone
    open_ = [key for key in _SETTLED if not getattr(backbone, key, True) and options.get(key)]
    new = {key: options[key] for key in open_}
    new = {key: v if isinstance(v, str | int) else tuple(v) for key, v in new.items()}
    return dataclasses.replace(backbone, **new) if new else backbone  # pyright: ignore
