"""Features of body pose: joints relative to the body's centre, axes and size, and their motion.

Where the recording was made, which way the body faces and how far it is from the camera do not
change them; nor does the unit of the positions. Velocities are per second, at any frame rate.
"""

import dataclasses
import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.keypoints import Keypoints
from tal_jax.extraction import body as bodies
from tal_jax.extraction import landmarks
from tal_jax.extraction.backbones import KEYPOINTS, VIDEO, hash_files
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
_NOTED_PART = 0.01  # of the frames, in which a joint is missing
_NOTED_PLACES = 3


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
    """How long each joint is missing around each instant: `[len(clock_s), J]` seconds."""
    gaps = np.full((len(clock_s), found.shape[1]), np.inf)
    for joint in np.flatnonzero(found.any(0)):
        own = np.concatenate([[-np.inf], times_s[found[:, joint]], [np.inf]])
        after = np.searchsorted(own, clock_s - 1e-6)
        exact = np.abs(own[after] - clock_s) < 1e-6
        gaps[:, joint] = np.where(exact, 0.0, own[after] - own[after - 1])
    return gaps


# --- the frame of a body ---


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    """The frame of a body over time."""

    center: np.ndarray  # [n, dims]
    axes: np.ndarray  # [n, dims, dims], rows are the axes
    turning: np.ndarray  # [n, 1 or 3], of the body itself, in radians per second
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
    """The frame of a body whose joints `[n, J, dims]` are all known."""
    center = _role(positions, joints, body.center)
    axis, side = (_direction(positions, joints, ends) for ends in (body.axis, body.side))
    if axis is not None:
        size = float(np.median(np.linalg.norm(axis, axis=-1)))
    else:
        spread = positions - positions.mean(1, keepdims=True)
        size = float(np.median(np.sqrt((spread**2).sum(-1).mean(1))))
    up = vertical(body.up, positions.shape[-1])
    axis, side = (None if v is None else _steady(v, fps) for v in (axis, side))
    axes = _axes(axis, side, up, positions)
    turning = _turning(axes, fps)
    if body.turn == "recording":
        axes = np.broadcast_to(_mean_axes(axes), axes.shape)
    if body.turn == bodies.NONE:
        axes = np.broadcast_to(np.eye(axes.shape[-1]), axes.shape)
    return _Frame(center, axes, turning, size or 1.0)


def _axes(
    axis: np.ndarray | None,
    side: np.ndarray | None,
    up: np.ndarray | None,
    positions: np.ndarray,
) -> np.ndarray:
    """Orthonormal axes `[n, dims, dims]` that turn about the vertical, if any, or in any way."""
    count, _, dims = positions.shape
    fixed = np.broadcast_to(np.eye(dims), (count, dims, dims))
    if dims == 2:
        along = axis if axis is not None else side
        if along is None:
            return fixed
        forward = _unit(along)
        return np.stack([forward, np.stack([-forward[:, 1], forward[:, 0]], -1)], 1)
    if up is not None:
        level = side if side is not None else axis
        if level is None:
            return fixed
        first = _unit(level - (level @ up)[:, None] * up)
        upward = np.broadcast_to(up, first.shape)
        return np.stack([first, np.cross(upward, first), upward], 1)
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


def _mean_axes(axes: np.ndarray) -> np.ndarray:
    """The rotation nearest to the mean of axes `[n, dims, dims]` (polar decomposition)."""
    left, _, right = np.linalg.svd(axes.mean(0))
    return left @ right


# --- signals of one recording ---


def _follow(joints: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Interpolates joints `[n, J, dims]` in their body over long gaps; 0 if never found."""
    steps = np.arange(len(joints), dtype=np.float64)
    known = np.where((gaps <= _MAX_GAP_S)[..., None], joints, np.nan)
    return np.nan_to_num(interpolate(known, steps, steps))


def _angles(joints: np.ndarray, names: Sequence[str], bones: Sequence[tuple[str, str]]):
    """Angles in radians `[n, m]` between successive bones at each joint with two or more."""
    out = []
    for j, name in enumerate(names):
        others = [b if a == name else a for a, b in bones if name in (a, b)]
        to = [joints[:, names.index(other)] - joints[:, j] for other in others]
        for first, second in zip(to[:-1], to[1:], strict=True):
            lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
            cosine = (first * second).sum(-1) / np.maximum(lengths, 1e-9)
            out.append(np.arccos(np.clip(cosine, -1, 1)))
    return np.stack(out, 1) if out else np.zeros((len(joints), 0))


def _distances(joints: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """Distances `[n, m(m-1)/2]` between the joints at some places."""
    ends = joints[:, list(at)]
    first, second = np.triu_indices(len(at), 1)
    return np.linalg.norm(ends[:, first] - ends[:, second], axis=-1)


def _rate(values: np.ndarray, fps: float) -> np.ndarray:
    """The change of `[n, ...]` per second."""
    return np.gradient(values, axis=0) * fps if len(values) > 1 else np.zeros_like(values)


def _own_signals(
    frame: _Frame,
    positions: np.ndarray,
    gaps: np.ndarray,
    body: Body,
    names: Sequence[str],
    fps: float,
) -> list[np.ndarray]:
    """What one body does, by itself: a list of `[n, m]`."""
    relative = (positions - frame.center[:, None]) / frame.size
    joints = _follow(np.einsum("njd,ned->nje", relative, frame.axes), gaps)
    velocity = _rate(frame.center / frame.size, fps)
    return [
        joints.reshape(len(joints), -1),
        np.einsum("nd,ned->ne", velocity, frame.axes),
        frame.turning,
        _distances(joints, [names.index(end) for end in body.ends]),
        _angles(joints, names, body.bones),
    ]


def _pair_signals(one: _Frame, other: _Frame, fps: float) -> list[np.ndarray]:
    """What one body does with respect to another: a list of `[n, m]`."""
    size = (one.size + other.size) / 2
    between = (other.center - one.center) / size
    distance = np.linalg.norm(between, axis=-1, keepdims=True)
    toward = between / np.maximum(distance, 1e-9)
    ahead, facing = (frame.axes[:, 0] for frame in (one, other))
    return [
        distance,
        _rate(distance, fps),
        np.einsum("nd,ned->ne", toward, one.axes),
        np.einsum("nd,ned->ne", -toward, other.axes),
        (ahead * facing).sum(-1, keepdims=True),
    ]


def count_signals(body: Body, joints: Sequence[str], animals: int, dims: int) -> int:
    """The number S of signals that `body_signals` returns."""
    places = np.arange(len(joints) * dims, dtype=np.float64).reshape(1, 1, len(joints), dims)
    positions = np.broadcast_to(places, (2, animals, *places.shape[2:]))
    keypoints = Keypoints(
        np.arange(2.0),
        positions,
        np.ones(positions.shape[:3]),
        tuple(joints),
        tuple(map(str, range(animals))),
    )
    return body_signals(keypoints, body, 1.0)[0].shape[1]


def body_signals(
    keypoints: Keypoints, body: Body, fps: float, *, min_confidence: float = 0.0
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Describes the pose and the motion of every body at the times `k / fps`.

    Of each animal: its joints relative to its centre, in its axes and sizes; the velocity of its
    centre in these axes, and how the body turns; distances between the ends of the body, and angles
    between bones. Of each pair of animals: their distance and its rate, where each is
    as the other faces, and whether they face the same way.

    Args:
      keypoints: the joints of a recording.
      body: the roles of the joints, from `body.choose_body`.
      fps: signals per second.
      min_confidence: positions below are missing.

    Returns:
      `[n, S]` float64, zero where an animal is not found, and notes on missing joints and on
      animals that swap places.

    Raises:
      InputError: if a role's joint is missing in all frames, or no animal is ever found.
    """
    times_s, joints = keypoints.times_s, list(keypoints.joints)
    clock_s = np.arange(int(times_s[-1] * fps + 1e-6) + 1) / fps
    found = np.isfinite(keypoints.positions).all(-1) & (keypoints.confidence >= min_confidence)
    if not found.any():
        raise InputError("no joint is found in any frame with the confidence that is expected")
    notes = _missing_notes(found, keypoints)
    frames: list[_Frame] = []
    present, parts = [], []
    for a, animal in enumerate(keypoints.animals):
        known = np.where(found[:, a, :, None], keypoints.positions[:, a], np.nan)
        gaps = _gaps(found[:, a], times_s, clock_s)
        here = (gaps <= _MAX_GAP_S).mean(1) >= _LEAST_PART
        positions = interpolate(known, times_s, clock_s)
        if not found[:, a].any():
            positions, here = np.zeros_like(positions), np.zeros(len(clock_s), bool)
        _check_roles(positions, joints, body)
        notes += _absent_note(here, fps, animal if len(keypoints.animals) > 1 else "")
        frame = _frame(np.nan_to_num(positions), joints, body, fps)
        own = np.concatenate(_own_signals(frame, positions, gaps, body, joints, fps), axis=1)
        parts.append(own * here[:, None])
        frames.append(frame)
        present.append(here)
    for a, one in enumerate(frames):
        for b, other in enumerate(frames[:a]):
            both = present[a] & present[b]
            parts.append(np.concatenate(_pair_signals(other, one, fps), axis=1) * both[:, None])
    return np.concatenate(parts, axis=1), notes + _swap_notes(keypoints, found, body)


def describe_pose(windows: np.ndarray) -> np.ndarray:
    """Features `[N, D]` float32 of windows `[N, window, S]` of signals.

    Of each signal: mean, standard deviation, and the mean of the second half minus that of the
    first.
    """
    half = max(windows.shape[1] // 2, 1)
    parts = [
        windows.mean(1),
        windows.std(1),
        windows[:, -half:].mean(1) - windows[:, :half].mean(1),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


# --- what is noted, and what is refused ---


def _check_roles(positions: np.ndarray, joints: Sequence[str], body: Body) -> None:
    for what, ends in (("center", (body.center, ())), ("axis", body.axis), ("side", body.side)):
        for name in () if ends is None else ends[0] + ends[1]:
            if not np.isfinite(positions[:, joints.index(name)]).all():
                raise InputError(
                    f"the joint {name!r}, which gives the {what} of the body, is missing in all "
                    f"frames; expected it, or other joints with --set {what}=..."
                )


def _missing_notes(found: np.ndarray, keypoints: Keypoints) -> tuple[str, ...]:
    """The share of frames in which joints are missing and interpolated, the worst first."""
    share = 1 - found.mean((0, 1))
    worst = [j for j in np.argsort(-share, kind="stable") if share[j] >= _NOTED_PART]
    if not worst:
        return ()
    named = ", ".join(f"{keypoints.joints[j]} {share[j]:.0%}" for j in worst[:5])
    rest = f", {len(worst) - 5} more" if len(worst) > 5 else ""
    return (f"joints missing or of low confidence, interpolated: {named}{rest}",)


def _absent_note(here: np.ndarray, fps: float, animal: str) -> tuple[str, ...]:
    """Where a body is not found for long."""
    if here.all():
        return ()
    edges = np.flatnonzero(np.diff(np.concatenate([[1], here.astype(int), [1]])))
    places = [f"{a / fps:.1f} to {b / fps:.1f} s" for a, b in zip(*[iter(edges)] * 2, strict=True)]
    some = ", ".join(places[:_NOTED_PLACES]) + (", ..." if len(places) > _NOTED_PLACES else "")
    who = f"{animal} is" if animal else "most joints are"
    return (f"{who} missing for {1 - here.mean():.1%} of the time, features are 0 there: {some}",)


def _swap_notes(keypoints: Keypoints, found: np.ndarray, body: Body) -> tuple[str, ...]:
    """Where two animals exchange their places from one frame to the next."""
    if len(keypoints.animals) < 2:
        return ()
    positions = np.where(found[..., None], keypoints.positions, np.nan)
    at = [keypoints.joints.index(name) for name in body.center]
    centers = positions[:, :, at].mean(2)  # [n, A, dims]
    notes: tuple[str, ...] = ()
    for a in range(centers.shape[1]):
        for b in range(a):
            one, other = centers[:, a], centers[:, b]
            stay = sum(np.linalg.norm(np.diff(c, axis=0), axis=-1) for c in (one, other))
            cross = np.linalg.norm(one[1:] - other[:-1], axis=-1)
            cross = cross + np.linalg.norm(other[1:] - one[:-1], axis=-1)
            apart = np.linalg.norm(one - other, axis=-1)[1:]
            swaps = np.flatnonzero((cross < stay / 4) & (stay > apart))
            if len(swaps):
                times = ", ".join(f"{keypoints.times_s[i + 1]:.2f} s" for i in swaps[:3])
                more = f" and {len(swaps) - 3} more times" if len(swaps) > 3 else ""
                names = f"{keypoints.animals[b]} and {keypoints.animals[a]}"
                notes += (f"{names} seem to swap places at {times}{more}",)
    return notes


# --- the backbone ---


@dataclasses.dataclass(frozen=True)
class Pose:
    """Pose and motion of tracked bodies, see `body_signals`, over sliding windows.

    The recordings are tables of keypoints or, with `path`, videos.
    """

    fps: float = 30.0  # rate that the keypoints are resampled to
    window: int = 30  # frames of the window of a snippet's features
    stride: float = 10.0  # frames between snippets
    # Names of the joints and animals, which all recordings have; those of the first by default.
    joints: tuple[str, ...] = ()
    animals: tuple[str, ...] = ()
    # The frame of the body, see `body.choose_body`; chosen from the first recording by default.
    center: str = ""
    axis: str = ""
    side: str = ""
    up: str = ""
    turn: str = ""
    bones: tuple[str, ...] = ()  # `a>b`
    ends: tuple[str, ...] = ()
    dims: int = 0  # coordinates of a position, 2 or 3
    min_confidence: float = 0.3
    # How a table is read that leaves its times open.
    source_fps: float = 0.0
    time: str = ""
    time_unit: str = ""
    # The networks of MediaPipe (`landmarks.open_task`) that find the joints in videos, and the
    # number of bodies or hands that are followed.
    path: str = ""
    people: int = 0

    name: ClassVar[str] = "pose"
    size: ClassVar[None] = None

    @property
    def kind(self) -> str:
        """What the recordings are."""
        return VIDEO if self.path else KEYPOINTS

    @functools.cached_property
    def version(self) -> str:
        """That of the features, and of the networks that find the joints."""
        if not self.path:
            return VERSION
        networks = hash_files([Path(self.path)])
        return f"{VERSION} mediapipe {landmarks.library_version()} {networks}"

    @functools.cached_property
    def task(self) -> landmarks.Task:
        """What finds the joints in videos."""
        return landmarks.open_task(self.path)

    def __post_init__(self) -> None:
        if self.path:
            self._settle_for_videos()
        elif self.people:
            raise InputError(
                "backbone pose: people= counts those in videos, which need the networks of "
                f"MediaPipe: {landmarks.HOW_TO_GET}"
            )
        if self.window < 2 or self.stride < 1:
            raise InputError(
                f"backbone pose: window={self.window} and stride={self.stride:g}; expected at "
                "least 2 frames and 1"
            )

    def _settle_for_videos(self) -> None:
        """Sets what the networks fix, except where an option is given."""
        settings = {"path": self.task.path, "people": self.people or 1}
        object.__setattr__(self, "people", settings["people"])
        names = landmarks.place_names(self.task, self.people)
        for key, value in {**landmarks.FRAMES[self.task.kind], "animals": names, "dims": 2}.items():
            if not getattr(self, key):
                settings[key] = value
        for key, value in settings.items():
            object.__setattr__(self, key, value)
        bodies.check_roles(self.body.center, self.body, self.joints)
        _ = self.version

    @property
    def options(self) -> dict[str, Any]:
        """The options that are set."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        options = {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}
        return {key: v for key, v in options.items() if v or key == "min_confidence"}

    @property
    def body(self) -> Body:
        """The roles of the joints, once they are settled."""
        return Body(
            self.joints if self.center == "all" else bodies.split_names(self.center),
            bodies.parse_direction(self.axis, "axis"),
            bodies.parse_direction(self.side, "side"),
            self.up,
            self.turn,
            tuple((a, b) for a, _, b in (bone.partition(">") for bone in self.bones)),
            self.ends,
        )

    @property
    def description(self) -> str:
        """The line on the frame of the body, "" before it is settled."""
        return bodies.describe_body(self.body, self.joints) if self.dims else ""

    @functools.cached_property
    def dim(self) -> int | None:
        """The number of features D; None before the joints are settled."""
        if not self.dims:
            return None
        signals = count_signals(self.body, self.joints, len(self.animals), self.dims)
        return describe_pose(np.zeros((1, 2, signals))).shape[1]

    def settle(self, keypoints: Keypoints) -> "Pose":
        """Chooses the joints, the animals and the frame of the body from a recording."""
        if self.dims:
            return self
        keypoints = select(keypoints, self.joints, self.animals)
        roles = {key: getattr(self, key) for key in ("center", "axis", "side", "up", "turn")}
        certain = keypoints.confidence[..., None] >= self.min_confidence
        known = np.where(certain, keypoints.positions, np.nan)
        body, _ = bodies.choose_body(dataclasses.replace(keypoints, positions=known), **roles)
        return dataclasses.replace(
            self,
            joints=keypoints.joints,
            animals=keypoints.animals,
            center="all" if body.center == keypoints.joints else ",".join(body.center),
            axis=bodies.direction_text(body.axis),
            side=bodies.direction_text(body.side),
            up=body.up,
            turn=body.turn,
            bones=tuple(">".join(bone) for bone in body.bones),
            ends=body.ends,
            dims=keypoints.dims,
        )

    def signals(self, keypoints: Keypoints) -> tuple[np.ndarray, tuple[str, ...]]:
        """Describes a recording at the rate of the features: `[n, S]`, and notes."""
        chosen = select(keypoints, self.joints, self.animals)
        if chosen.dims != self.dims:
            raise InputError(
                f"positions with {chosen.dims} coordinates; the features are computed from "
                f"{self.dims}"
            )
        signals, notes = body_signals(
            chosen, self.body, self.fps, min_confidence=self.min_confidence
        )
        return signals, (*keypoints.notes, *notes)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Computes the features `[N, D]` of windows `[N, window, S]`."""
        return describe_pose(windows)


def select(keypoints: Keypoints, joints: Sequence[str], animals: Sequence[str]) -> Keypoints:
    """Takes joints by their names, and animals by theirs or, with other names, by their order.

    Raises:
      InputError: if a joint is missing, or the number of animals differs.
    """
    for name in joints:
        if name not in keypoints.joints:
            like = difflib.get_close_matches(name, keypoints.joints, 1, 0.6)
            hint = f" ({like[0]!r} may be its new name)" if like else ""
            raise InputError(
                f"no joint {name!r} among {', '.join(keypoints.joints)}{hint}; expected the joints "
                f"of the other recordings"
            )
    at = [keypoints.joints.index(name) for name in joints or keypoints.joints]
    rows = list(range(len(keypoints.animals)))
    notes = keypoints.notes
    if animals and set(animals) <= set(keypoints.animals):
        rows = [keypoints.animals.index(name) for name in animals]
    elif animals:
        if len(animals) != len(keypoints.animals):
            raise InputError(
                f"{len(keypoints.animals)} animals, {', '.join(keypoints.animals)}; expected "
                f"{len(animals)} as in the other recordings, choose them with --set animals=a,b"
            )
        if len(animals) > 1:
            pairs = zip(keypoints.animals, animals, strict=True)
            notes += (
                f"takes animals by their order: {', '.join(f'{a} as {b}' for a, b in pairs)}",
            )
    return dataclasses.replace(
        keypoints,
        positions=keypoints.positions[:, rows][:, :, at],
        confidence=keypoints.confidence[:, rows][:, :, at],
        joints=tuple(keypoints.joints[i] for i in at),
        animals=tuple(keypoints.animals[i] for i in rows),
        notes=notes,
    )
