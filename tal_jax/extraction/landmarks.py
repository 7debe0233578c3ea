"""Landmarks of bodies and hands in videos, by MediaPipe's networks, as keypoints."""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.files import reason_of
from tal_jax.data.keypoints import Keypoints
from tal_jax.extraction import mediapipe_wheel, video

# A picture, uint8 [H, W, 3], and its time in milliseconds, which increases, give the bodies or
# hands in it: each `[J, 3]` of x and y in pixels and a confidence from 0 to 1.
Detector = Callable[[np.ndarray, int], list[np.ndarray]]

BODY = (
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer "
    "left_ear right_ear mouth_left mouth_right left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb "
    "left_hip right_hip left_knee right_knee left_ankle right_ankle left_heel right_heel "
    "left_foot_index right_foot_index"
).split()
HAND = (
    "wrist thumb_cmc thumb_mcp thumb_ip thumb_tip index_finger_mcp index_finger_pip "
    "index_finger_dip index_finger_tip middle_finger_mcp middle_finger_pip middle_finger_dip "
    "middle_finger_tip ring_finger_mcp ring_finger_pip ring_finger_dip ring_finger_tip pinky_mcp "
    "pinky_pip pinky_dip pinky_tip"
).split()
# The network that a file has to hold, and what its landmarks are called.
_KINDS = {"pose_landmarks_detector.tflite": "body", "hand_landmarks_detector.tflite": "hand"}
_JOINTS = {"body": tuple(BODY), "hand": tuple(HAND)}

# The frames for features: fixed, so that all videos have the same ones. Shoulders and ears are in
# most pictures of people, from any side; hips out of the picture are guesses.
_LIMBS = {
    "arm": ("shoulder", "elbow", "wrist", "index"),
    "leg": ("shoulder", "hip", "knee", "ankle", "foot_index"),
}
_FINGERS = ("thumb", "index_finger", "middle_finger", "ring_finger", "pinky")


def _chain(names: Sequence[str]) -> list[str]:
    return [f"{a}>{b}" for a, b in itertools.pairwise(names)]


FRAMES: dict[str, dict[str, Any]] = {
    "body": {
        "joints": tuple(
            name
            for name in BODY
            if not re.search("eye|mouth|left_pinky|right_pinky|thumb|heel", name)
        ),
        "center": "left_shoulder,right_shoulder",
        "axis": "left_shoulder,right_shoulder>left_ear,right_ear",
        "side": "left_shoulder>right_shoulder",
        "up": "none",
        "turn": "none",
        "bones": tuple(
            bone
            for side in ("left", "right")
            for limb in _LIMBS.values()
            for bone in _chain([f"{side}_{name}" for name in limb])
        ),
        "ends": ("nose", "left_wrist", "right_wrist", "left_ankle", "right_ankle"),
    },
    "hand": {
        "joints": tuple(HAND),
        "center": "wrist",
        "axis": "wrist>middle_finger_mcp",
        "side": "index_finger_mcp>pinky_mcp",
        "up": "none",
        "turn": "recording",
        "bones": tuple(
            bone
            for finger in _FINGERS
            for bone in _chain(["wrist", *(name for name in HAND if name.startswith(finger))])
        ),
        "ends": ("wrist", *(f"{finger}_tip" for finger in _FINGERS)),
    },
}

HOW_TO_GET = (
    'pip install "tal_jax[pose]" && curl -LO https://storage.googleapis.com/mediapipe-models/'
    "pose_landmarker/pose_landmarker_full/float16/latest/pose_landmarker_full.task, then "
    "--set path=pose_landmarker_full.task"
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A file of MediaPipe's networks."""

    path: str
    kind: str  # "body" or "hand"

    @property
    def joints(self) -> tuple[str, ...]:
        """The names of its landmarks."""
        return _JOINTS[self.kind]


def open_task(path: str | os.PathLike) -> Task:
    """Finds what a file of networks detects, without loading them.

    Args:
      path: a `.task` for poses or hands, or the wheel of mediapipe 0.10.21, which carries the
        networks for poses.

    Raises:
      InputError: if it is neither.
    """
    path = Path(path).expanduser().absolute()
    expected = "expected pose_landmarker_full.task or hand_landmarker.task of MediaPipe"
    try:
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {expected}: {HOW_TO_GET}") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no networks ({reason_of(error)}); {expected}") from error
    if mediapipe_wheel.holds_networks(names):
        return Task(str(path), "body")
    for name, kind in _KINDS.items():
        if name in names:
            return Task(str(path), kind)
    raise InputError(f"{path}: holds {', '.join(sorted(names)[:3])}; {expected}")


def library_version() -> str:
    """The version of the package mediapipe, on which landmarks depend.

    Raises:
      InputError: if it is missing, or older than its present interface.
    """
    try:
        found = importlib.metadata.version("mediapipe")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            'backbone pose: poses in videos need mediapipe; run pip install "tal_jax[pose]"'
        ) from error
    if int(found.split(".")[0]) < 1:
        raise InputError(
            f"backbone pose: mediapipe {found} is installed, expected 1.0 or later; run pip "
            'install --upgrade "tal_jax[pose]"'
        )
    return found


@contextlib.contextmanager
def open_detector(task: Task, most: int) -> Iterator[Detector]:
    """Loads the networks of a file, for the frames of one video in their order.

    Args:
      task: from `open_task`.
      most: bodies or hands in a picture.

    Raises:
      InputError: if MediaPipe refuses the file.
    """
    import mediapipe  # pyright: ignore[reportMissingImports]
    from mediapipe.tasks.python import BaseOptions, vision  # pyright: ignore[reportMissingImports]

    with zipfile.ZipFile(task.path) as file:
        wheel = mediapipe_wheel.holds_networks(set(file.namelist()))
    content = mediapipe_wheel.pose_task(task.path) if wheel else Path(task.path).read_bytes()
    shared: dict[str, Any] = {
        "base_options": BaseOptions(model_asset_buffer=content),
        "running_mode": vision.RunningMode.VIDEO,
    }
    try:
        with _quiet():
            if task.kind == "body":
                options = vision.PoseLandmarkerOptions(num_poses=most, **shared)
                landmarker = vision.PoseLandmarker.create_from_options(options)
            else:
                options = vision.HandLandmarkerOptions(num_hands=most, **shared)
                landmarker = vision.HandLandmarker.create_from_options(options)
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{task.path}: refused by MediaPipe ({reason_of(error)})") from error

    seen = False  # until a first body is found, networks are loaded

    def detect(pixels: np.ndarray, time_ms: int) -> list[np.ndarray]:
        nonlocal seen
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        with contextlib.nullcontext() if seen else _quiet():
            result = landmarker.detect_for_video(image, time_ms)
        scale = np.array([pixels.shape[1], pixels.shape[0], 1.0])
        if task.kind == "body":
            bodies = [[(p.x, p.y, p.visibility) for p in one] for one in result.pose_landmarks]
        else:  # without a visibility of single joints, the hand's own score counts for all
            bodies = [
                [(p.x, p.y, side[0].score) for p in one]
                for one, side in zip(result.hand_landmarks, result.handedness, strict=True)
            ]
        seen = seen or bool(bodies)
        return [np.array(body, np.float64) * scale for body in bodies]

    try:
        yield detect
    finally:
        with _quiet():
            landmarker.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what MediaPipe prints as it loads and ends: tens of lines that no setting turns off."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def follow(
    frames: Iterable[np.ndarray], fps: float, detect: Detector, *, joints: int, people: int
) -> Iterator[np.ndarray]:
    """Detects bodies in successive frames and keeps each in its place.

    A body takes the place whose last one was nearest; new ones take free places, the largest
    first. A frame that is on screen for longer is detected once.

    Args:
      frames: uint8 `[H, W, 3]`, at times k / fps; the same array while the same frame is on screen.
      fps: frames per second.
      detect: see `Detector`.
      joints: J.
      people: A, places.

    Yields:
      `[A, J, 3]` of x, y in pixels and confidence; NaN in a place without a body.
    """
    centers = np.full((people, 2), np.nan)
    before, out = None, np.full((people, joints, 3), np.nan)
    for number, pixels in enumerate(frames):
        if pixels is before:
            yield out
            continue
        bodies = detect(pixels, round(1000 * number / fps))
        before, out = pixels, np.full((people, joints, 3), np.nan)
        for place, body in _assign(bodies, centers):
            out[place], centers[place] = body, body[:, :2].mean(0)
        yield out


def _assign(bodies: list[np.ndarray], centers: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Pairs of places and bodies: the nearest first, then free places by the size of bodies."""
    bodies = sorted(bodies, key=lambda body: -np.prod(np.ptp(body[:, :2], axis=0)))
    now = np.array([body[:, :2].mean(0) for body in bodies]).reshape(-1, 2)
    distances = np.linalg.norm(centers[:, None] - now[None], axis=-1)
    pairs, places, left = [], set(range(len(centers))), dict(enumerate(bodies))
    for flat in np.argsort(distances, axis=None):  # NaN, of places never taken, comes last
        place, body = (int(k) for k in np.unravel_index(flat, distances.shape))
        if np.isfinite(distances[place, body]) and place in places and body in left:
            places.remove(place)
            pairs.append((place, left.pop(body)))
    never = [place for place in sorted(places) if np.isnan(centers[place]).any()]
    pairs += list(zip(never, left.values(), strict=False))
    return pairs


def stream_landmarks(
    path: str | os.PathLike, task: Task, *, fps: float, people: int
) -> Iterator[np.ndarray]:
    """Detects the landmarks of a video at times k / fps, frame by frame.

    Args:
      path: the video.
      task: from `open_task`.
      fps: of the landmarks, which need not be that of the video.
      people: bodies (or hands) to follow.

    Yields:
      `[A, J, 3]`, see `follow`.

    Raises:
      InputError: if the video or the networks cannot be read.
    """
    times_s = frame_times_s(path, fps)
    with open_detector(task, people) as detect:
        frames = video.read_frames(path, times_s.tolist())
        yield from follow(frames, fps, detect, joints=len(task.joints), people=people)


def frame_times_s(path: str | os.PathLike, fps: float) -> np.ndarray:
    """The times k / fps in a video, the first one at least."""
    return np.arange(max(int(np.ceil(video.probe(path).duration_s * fps - 1e-9)), 1)) / fps


def find_landmarks(
    path: str | os.PathLike,
    task: Task,
    *,
    fps: float,
    people: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Keypoints:
    """Detects the landmarks of a video, see `stream_landmarks`.

    Args:
      path: the video.
      task: from `open_task`.
      fps: of the landmarks.
      people: bodies (or hands) to follow.
      progress: called with the number of frames done, and of all.

    Returns:
      The landmarks in pixels, missing where no body was found, with a note on how often.

    Raises:
      InputError: as `stream_landmarks` does, and if no frame has a body.
    """
    times_s, found = frame_times_s(path, fps), []
    for one in stream_landmarks(path, task, fps=fps, people=people):
        found.append(one)
        progress(len(found), len(times_s))
    return to_keypoints(path, times_s, np.stack(found), task)


def place_names(task: Task, people: int) -> tuple[str, ...]:
    """The names of the bodies or hands that are followed."""
    return tuple(f"{task.kind}_{n + 1}" for n in range(people))


def to_keypoints(
    path: str | os.PathLike, times_s: np.ndarray, found: np.ndarray, task: Task
) -> Keypoints:
    """Makes keypoints of `[n, A, J, 3]` in the order of `follow`."""
    seen = np.any(np.isfinite(found).all((2, 3)), axis=1)
    what = {"body": "bodies", "hand": "hands"}[task.kind]
    if not seen.any():
        raise InputError(f"{path}: no {what} found in {len(times_s)} frames; expected some in view")
    names = place_names(task, found.shape[1])
    note = f"{what} found in {int(seen.sum())} of {len(times_s)} frames"
    return Keypoints(times_s, found[..., :2], found[..., 2], task.joints, names, (note,))


def write_table(path: str | os.PathLike, keypoints: Keypoints) -> None:
    """Writes keypoints as a table that `read_keypoints` reads, atomically."""
    names = [f"{animal}_{joint}" for animal in keypoints.animals for joint in keypoints.joints]
    axes = "xyz"[: keypoints.dims]
    digits = [1] * keypoints.dims + [3]
    values = np.concatenate([keypoints.positions, keypoints.confidence[..., None]], axis=-1)

    def rows() -> Iterator[list[str]]:
        yield ["time_s", *(f"{name}_{axis}" for name in names for axis in (*axes, "confidence"))]
        for time_s, joints in zip(keypoints.times_s, values, strict=True):
            pairs = zip(joints.ravel(), digits * len(names), strict=True)
            fields = [f"{value:.{places}f}" for value, places in pairs]
            yield [f"{time_s:.6f}", *("" if field == "nan" else field for field in fields)]

    files.write_csv(path, rows())
