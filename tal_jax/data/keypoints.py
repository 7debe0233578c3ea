"""Keypoints: the positions of named body joints over time, from a tracker or a pose network."""

import dataclasses

import numpy as np

from tal_jax._errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Keypoints:
    """The joints of one recording, at the times of its frames.

    Attributes:
      times_s: `[n]` float64, increasing, in seconds from the start of the recording.
      positions: `[n, A, J, dims]` float64 with dims 2 (pixels) or 3; NaN where a joint is missing.
      confidence: `[n, A, J]` float64 from 0 to 1; 0 where a joint is missing.
      joints: J names.
      animals: A names, of people or animals.
      notes: what was read from the numbers rather than from a name, or changed.

    Raises:
      InputError: if the shapes do not fit, there are no frames, joints or animals, names repeat,
        or the times do not increase.
    """

    times_s: np.ndarray
    positions: np.ndarray
    confidence: np.ndarray
    joints: tuple[str, ...]
    animals: tuple[str, ...] = ("animal",)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times_s = np.asarray(self.times_s, np.float64)
        positions = np.array(self.positions, np.float64)
        expected = (len(times_s), len(self.animals), len(self.joints))
        if (
            positions.ndim != 4
            or positions.shape[:3] != expected
            or positions.shape[3] not in (2, 3)
        ):
            raise InputError(
                f"positions have shape {list(positions.shape)}; expected [{expected[0]} frames, "
                f"{expected[1]} animals, {expected[2]} joints, 2 or 3]"
            )
        confidence = np.array(self.confidence, np.float64)
        if confidence.shape != expected:
            raise InputError(
                f"confidence has shape {list(confidence.shape)}, expected {list(expected)}"
            )
        if not all(expected):
            raise InputError(f"{expected} frames, animals and joints; expected at least one each")
        for what, names in (("joints", self.joints), ("animals", self.animals)):
            if len(set(names)) < len(names):
                raise InputError(f"{what} {', '.join(names)}; expected different names")
        if not (np.isfinite(times_s).all() and (np.diff(times_s) > 0).all()):
            raise InputError("the times of the frames do not increase; expected increasing seconds")
        # A joint is missing in all of its coordinates, and then nothing is known of it.
        missing = ~np.isfinite(positions).all(-1)
        positions[missing] = np.nan
        confidence[missing | ~np.isfinite(confidence)] = 0.0
        object.__setattr__(self, "times_s", times_s)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "confidence", confidence)

    @property
    def dims(self) -> int:
        """The number of coordinates of a joint, 2 or 3."""
        return self.positions.shape[-1]
