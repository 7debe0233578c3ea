"""Features of body pose: joints relative to the body's centre, axes and size, and their motion.

Where the recording was made, which way the body faces and how far it is from the camera do not
change them; nor does the unit of the positions. Velocities are per second, at any frame rate.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tal_jax.extraction.body import Body, vertical

# Changes whenever the features of the same keypoints change.
VERSION = "1"

# A joint that is missing for no longer than this is interpolated where the camera saw it last and
# next; for longer, relative to its body. A body of which fewer than this part of the joints is
# found for longer has no features.
_MAX_GAP_S = 1.0
_LEAST_PART = 0.25
# The axes of a body are averaged over this time: trackers jitter by a pixel or two.
_STEADY_S = 0.1


def interpolate(values: np.ndarray, times_s: np.ndarray, clock_s: np.ndarray) -> np.ndarray:
    """Interpolates `[n, ...]` linearly in time over missing frames (NaN); the ends are held.

    What is never found stays NaN.
    """
    flat = values.reshape(len(values), -1)
    out = np.full((len(clock_s), flat.shape[1]), np.nan)
    valid = np.isfinite(flat)
    for column in np.flatnonzero(valid.any(0)):
        own = valid[:, column]
        out[:, column] = np.interp(clock_s, times_s[own], flat[own, column])
    return out.reshape(len(clock_s), *values.shape[1:])


def _gaps(found: np.ndarray, times_s: np.ndarray, clock_s: np.ndarray) -> np.ndarray:
    """`[len(clock_s), J]`: the time between the frames with a joint around each instant."""
    after = np.full(found.shape[1:], np.inf)
    edges = np.empty((2, len(clock_s), found.shape[1]))
    for joint in range(found.shape[1]):
        own = times_s[found[:, joint]]
        if not len(own):
            edges[:, :, joint] = [[-np.inf], [np.inf]]
            continue
        padded = np.concatenate([[own[0] - np.inf], own, [np.inf]])
        at = np.searchsorted(own, clock_s + 1e-9, "right")
        edges[0, :, joint], edges[1, :, joint] = padded[at], padded[at + 1]
    del after
    exact = np.abs(clock_s[:, None] - edges[0]) < 1e-6
    return np.where(exact, 0.0, edges[1] - edges[0])


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    """The frame of a body over time."""

    center: np.ndarray  # [n, dims]
    axes: np.ndarray  # [n, dims, dims], rows are the axes
    size: float


def _role(positions: np.ndarray, joints: Sequence[str], names: Sequence[str]) -> np.ndarray:
    return positions[:, [joints.index(name) for name in names]].mean(1)


def _direction(positions, joints, direction) -> np.ndarray | None:
    if direction is None:
        return None
    return _role(positions, joints, direction[1]) - _role(positions, joints, direction[0])


def _steady(vectors: np.ndarray, fps: float) -> np.ndarray:
    """Averages over a short time, so that a vector that vanishes for a moment has a direction."""
    half = int(round(_STEADY_S * fps / 2))
    if half < 1:
        return vectors
    padded = np.concatenate([vectors[:1].repeat(half, 0), vectors, vectors[-1:].repeat(half, 0)])
    sums = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0)
    width = 2 * half + 1
    return (sums[width:] - sums[:-width]) / width


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors; where one vanishes, that of the nearest time before, else after."""
    length = np.linalg.norm(vectors, axis=-1)
    good = np.flatnonzero(length > 1e-9 * max(float(np.nanmax(length, initial=0)), 1e-300))
    if not len(good):
        fallback = np.zeros_like(vectors)
        fallback[:, 0] = 1
        return fallback
    at = good[np.clip(np.searchsorted(good, np.arange(len(vectors)), "right") - 1, 0, None)]
    return vectors[at] / length[at, None]


def _frame(positions: np.ndarray, joints: Sequence[str], body: Body, fps: float) -> _Frame:
    dims = positions.shape[-1]
    center = _role(positions, joints, body.center)
    axis, side = (_direction(positions, joints, d) for d in (body.axis, body.side))
    if axis is not None:
        size = float(np.median(np.linalg.norm(axis, axis=-1)))
    else:
        rms = np.sqrt(((positions - positions.mean(1, keepdims=True)) ** 2).sum(-1).mean(1))
        size = float(np.median(rms))
    up = vertical(body.up, dims)
    axis, side = (None if v is None else _steady(v, fps) for v in (axis, side))
    return _Frame(center, _axes(axis, side, up, len(positions), dims), size)


def _axes(axis, side, up, count: int, dims: int) -> np.ndarray:
    """Orthonormal axes `[n, dims, dims]`."""
    fixed = np.broadcast_to(np.eye(dims), (count, dims, dims))
    if dims == 2:
        if up is not None or (axis is None and side is None):
            return fixed
        forward = _unit(axis if axis is not None else side)
        return np.stack([forward, np.stack([-forward[:, 1], forward[:, 0]], -1)], 1)
    if up is not None:
        level = side if side is not None else axis
        if level is None:
            return fixed
        first = _unit(level - (level @ up)[:, None] * up)
        vertical_ = np.broadcast_to(up, first.shape)
        return np.stack([first, np.cross(vertical_, first), vertical_], 1)
    if axis is None or side is None:
        return fixed
    first = _unit(axis)
    second = _unit(side - (side * first).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], 1)


def _turning(axes: np.ndarray, fps: float) -> np.ndarray:
    """The rotation of the axes `[n, 1 or 3]` in radians per second, in the body's own axes."""
    count, dims = len(axes), axes.shape[-1]
    if count < 2:
        return np.zeros((count, 1 if dims == 2 else 3))
    before, after = axes[:-1], axes[1:]
    relative = after @ before.swapaxes(1, 2)  # the new axes in the old ones
    if dims == 2:
        angle = np.arctan2(relative[:, 0, 1], relative[:, 0, 0])[:, None]
    else:
        vector = np.stack(
            [
                relative[:, 1, 2] - relative[:, 2, 1],
                relative[:, 2, 0] - relative[:, 0, 2],
                relative[:, 0, 1] - relative[:, 1, 0],
            ],
            -1,
        )
        trace = np.clip((relative.trace(axis1=1, axis2=2) - 1) / 2, -1, 1)
        sine = np.linalg.norm(vector, axis=-1, keepdims=True) / 2
        angle = (
            vector / 2 * (np.arctan2(sine[:, 0], trace) / np.maximum(sine[:, 0], 1e-12))[:, None]
        )
    rate = angle * fps
    return np.concatenate([rate[:1], (rate[1:] + rate[:-1]) / 2, rate[-1:]])
