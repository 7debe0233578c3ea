"""The clock (grid) of features: the one place that converts between snippets and seconds.

Snippet `i` of a recording covers the half-open time `[i, i + 1)` in snippets, which is

    [i * stride_frames / fps, (i + 1) * stride_frames / fps)   seconds,

and its features were computed from `window_frames` frames centred on it::

    frames    0        stride     2 stride   3 stride
              |----0----|----1----|----2----|         snippets, half-open
                        |    ^    |
                    |------window------|              the input of snippet 1's features

A `Grid` travels with the features it belongs to (as `grid.json` in a folder of features); no other
module multiplies or divides by a frame rate.
"""

import contextlib
import dataclasses
import math
import numbers
from typing import Any, TypeVar

import msgspec
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files

Times = TypeVar("Times", float, np.ndarray)

# A duration that exceeds a snippet's end by less is rounding, not another snippet.
_ROUNDING_SNIPPETS = 1e-6


@dataclasses.dataclass(frozen=True)
class Grid:
    """The clock of features: a grid of snippets.

    Attributes:
      fps: frames (or sensor samples) per second.
      stride_frames: frames from one snippet's start to the next one's.
      window_frames: frames that the features of one snippet were computed from.

    Raises:
      InputError: if one of them is not a finite number above 0.

    >>> grid = Grid(fps=25, stride_frames=16, window_frames=16)
    >>> grid.to_seconds(2.0), grid.to_snippets(1.28), grid.num_snippets(1.3)
    (1.28, 2.0, 3)
    """

    fps: float
    stride_frames: float
    window_frames: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            number = math.nan
            if isinstance(value, numbers.Real) and not isinstance(value, bool):
                with contextlib.suppress(OverflowError):  # a whole number of 400 digits
                    number = float(value)
            if not 0 < number < math.inf:
                raise InputError(
                    f"grid: {field.name} is {value!r:.200}, expected a finite number above 0"
                )
            object.__setattr__(self, field.name, number)

    @property
    def stride_s(self) -> float:
        """Seconds from one snippet's start to the next one's."""
        return self.stride_frames / self.fps

    def to_seconds(self, times_snippets: Times) -> Times:
        """Converts times in snippets (floats or an array of them) to seconds."""
        return times_snippets * self.stride_frames / self.fps

    def to_snippets(self, times_s: Times) -> Times:
        """Converts times in seconds (floats or an array of them) to snippets, with fractions.

        The time `t` lies in snippet `floor(to_snippets(t))`.
        """
        return times_s * self.fps / self.stride_frames

    def num_snippets(self, duration_s: float) -> int:
        """Counts the snippets that cover a recording, the last of which may reach beyond its end.

        The least count whose snippets cover the duration; `num_snippets(to_seconds(n)) == n`.

        Raises:
          InputError: if the duration is negative, infinite or not a number, or its count is.
        """
        if not (math.isfinite(duration_s) and duration_s >= 0):
            raise InputError(
                f"duration_s is {duration_s!r}, expected a finite number of seconds, 0 or more"
            )
        snippets = self.to_snippets(float(duration_s))
        if not math.isfinite(snippets):
            raise InputError(f"duration_s is {duration_s!r}, too long for {self}")
        count = math.ceil(snippets - _ROUNDING_SNIPPETS)
        return max(count, 1) if duration_s > 0 else 0

    def first_frames(self, count: int) -> np.ndarray:
        """Returns the first frame of the window of the first snippets: `[count]` whole numbers.

        The `window_frames` frames from there on are centred on the snippet. Negative where the
        window starts before the recording.

        >>> Grid(fps=25, stride_frames=16, window_frames=32).first_frames(3).tolist()
        [-8, 8, 24]
        """
        centres = (np.arange(count) + 0.5) * self.stride_frames
        return np.round(centres - self.window_frames / 2).astype(int)

    def frames_to_seconds(self, frames: Times) -> Times:
        """Converts numbers of frames, at the grid's rate, to seconds."""
        return frames / self.fps

    def to_dict(self) -> dict[str, float]:
        """Returns the content of `grid.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Grid":
        """Parses what `to_dict` returned.

        Raises:
          InputError: if a key is missing or unknown, or a value is not a finite number above 0.
        """
        return cls(**msgspec.structs.asdict(files.convert(values, _Keys, "grid")))


class _Keys(msgspec.Struct, forbid_unknown_fields=True):
    fps: Any
    stride_frames: Any
    window_frames: Any
