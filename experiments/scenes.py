"""Writes short synthetic videos with known actions, for tests from raw videos on.

    python experiments/scenes.py --output scenes --train 8 --test 3
    python experiments/scenes.py --output people --train 8 --test 3 --person

Three small figures stand before a cluttered background that changes at a cut. At times a figure
acts: `slide` (from side to side), `jump` (up and down) or `blink` (light and dark, in place). The
others move slightly. The frame rate is 29.97 or 25 a second, or varies within the video.

With `--person`, a single person stands there instead, who is idle, or acts: `squat`, `walk` or
`wave`. keypoints/<film>.csv has the true joints in pixels.

Writes <film>.mp4, and truth.json with the start and end of each action. Training uses points drawn
from these only: see docs/own_recordings.md.
"""

import argparse
import fractions
from pathlib import Path

import av
import numpy as np

from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
)

CLASSES = ("blink", "jump", "slide")
HEIGHT, WIDTH = 72, 96
PERSON_CLASSES = ("squat", "walk", "wave")
PERSON_HEIGHT, PERSON_WIDTH = 144, 192
_TICKS = 30_000  # a second; a frame at 29.97 a second lasts a whole number
_FIGURE = 14  # pixels to a side


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--train", type=int, default=8, help="films; %(default)s")
    parser.add_argument("--test", type=int, default=3, help="films; %(default)s")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a film; %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="%(default)s")
    parser.add_argument("--person", action="store_true", help="a person instead of figures")
    options = parser.parse_args()
    write_scenes(
        options.output,
        num_train=options.train,
        num_test=options.test,
        seconds=options.seconds,
        seed=options.seed,
        person=options.person,
    )


def write_scenes(
    folder: Path,
    *,
    num_train: int,
    num_test: int,
    seconds: float = 60.0,
    seed: int = 0,
    person: bool = False,
) -> Annotations:
    """Writes films and their annotations into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    classes, make_stage = (PERSON_CLASSES, Person) if person else (CLASSES, _Stage)
    recordings = {}
    for subset, count in (("train", num_train), ("test", num_test)):
        for number in range(count):
            name = f"{subset}_{number}"
            ticks = frame_ticks(rng, number, seconds)
            actions = _draw_actions(rng, seconds, classes)
            stage = make_stage(rng, seconds)
            write_film(folder / f"{name}.mp4", ticks, stage, actions)
            if isinstance(stage, Person):
                write_joints(folder / "keypoints" / f"{name}.csv", ticks, stage, actions)
            recordings[name] = RecordingAnnotation(subset, float(seconds), tuple(actions))
    truth = Annotations(classes, recordings)
    files.write_json(folder / "truth.json", annotations_to_dict(truth))
    return truth


def frame_ticks(rng: np.random.Generator, number: int, seconds: float) -> np.ndarray:
    """The presentation times of the frames of a film, in ticks."""
    end = round(seconds * _TICKS)
    if number % 3 == 0:
        return np.arange(0, end, 1001)
    if number % 3 == 1:
        return np.arange(0, end, _TICKS // 25)
    # A variable rate, as of phones: fast, then slow (in the dark), with dropped frames.
    steps = np.where(np.arange(end // 1000) * 1000 < end / 2, 1000, 3000)
    steps = steps * rng.choice([1, 2], size=len(steps), p=[0.9, 0.1])
    ticks = np.concatenate([[0], np.cumsum(steps)])
    return ticks[ticks < end]


def _draw_actions(
    rng: np.random.Generator, seconds: float, classes: tuple[str, ...]
) -> list[Instance]:
    """Actions of 2 to 6 seconds, with pauses between."""
    actions, at_s = [], float(rng.uniform(2, 5))
    while True:
        end_s = at_s + float(rng.uniform(2, 6))
        if end_s > seconds - 1:
            return actions
        label = classes[int(rng.integers(len(classes)))]
        actions.append(Instance(label, round(at_s, 3), round(end_s, 3)))
        at_s = end_s + float(rng.uniform(2, 6))


class _Stage:
    """Backgrounds, the times of the cuts between them, and three figures."""

    size = HEIGHT, WIDTH

    def __init__(self, rng: np.random.Generator, seconds: float):
        self.cuts_s = np.sort(rng.uniform(5, seconds, size=2))
        coarse = rng.uniform(40, 120, size=(3, HEIGHT // 8, WIDTH // 8, 3))
        self.grounds = coarse.repeat(8, axis=1).repeat(8, axis=2)
        self.homes = np.stack([rng.uniform(18, 40, 3), np.array([8.0, 41.0, 70.0])], axis=1)
        self.colours = rng.uniform(150, 230, size=(3, 3))
        self.phases = rng.uniform(0, 6, size=3)
        self.noise = np.random.default_rng(int(rng.integers(2**31)))
        self.actor_of = rng.integers(3, size=1000)

    def frame(self, time_s: float, actions: list[Instance]) -> np.ndarray:
        """The picture at a time, uint8 `[H, W, 3]`."""
        image = self.grounds[np.searchsorted(self.cuts_s, time_s)].copy()
        for figure in range(3):
            y, x = self.homes[figure] + 0.8 * np.sin(
                3 * time_s + self.phases[figure] + np.arange(2)
            )
            light = 1.0
            for number, action in enumerate(actions):
                if self.actor_of[number] == figure and action.start_s <= time_s < action.end_s:
                    swing = np.sin(2 * np.pi * 1.5 * (time_s - action.start_s))
                    x += 9 * swing * (action.label == "slide")
                    y += 12 * swing * (action.label == "jump")
                    light -= 0.6 * (swing > 0) * (action.label == "blink")
            top, left = int(np.clip(y, 0, HEIGHT - _FIGURE)), int(np.clip(x, 0, WIDTH - _FIGURE))
            image[top : top + _FIGURE, left : left + _FIGURE] = self.colours[figure] * light
        image += self.noise.normal(0, 4, size=(HEIGHT, WIDTH, 1))
        return np.clip(image, 0, 255).astype(np.uint8)


# The joints of COCO, and the limbs between them.
JOINTS = (
    "nose",
    *(
        f"{side}_{part}"
        for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)
_LIMBS = [
    *((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (
        ("shoulder", "elbow"), ("elbow", "wrist"), ("shoulder", "hip"), ("hip", "knee"),
        ("knee", "ankle"),
    )),
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
]  # fmt: skip


class Person:
    """A person before a background, seen from the front; lengths are in pixels."""

    size = PERSON_HEIGHT, PERSON_WIDTH

    def __init__(self, rng: np.random.Generator, seconds: float):
        height, width = self.size
        wall, floor = rng.uniform(70, 120, size=(2, 3))
        self.ground = np.broadcast_to(wall, (height, width, 3)).copy()
        self.ground[int(0.8 * height) :] = floor
        self.home = np.array([rng.uniform(0.4, 0.6) * width, 0.93 * height])  # between the feet
        self.scale = rng.uniform(0.75, 0.9)
        self.side = int(rng.integers(2))  # of the arm that waves
        self.skin, self.clothes = np.array([225.0, 180.0, 150.0]), rng.uniform(140, 230, size=3)
        self.noise = np.random.default_rng(int(rng.integers(2**31)))

    def joints(self, time_s: float, actions: list[Instance]) -> np.ndarray:
        """The joints at a time, `[17, 2]` in pixels, in the order of `JOINTS`."""
        action = next((a for a in actions if a.start_s <= time_s < a.end_s), None)
        label = action.label if action else "idle"
        since_s = time_s - action.start_s if action else 0.0
        depth = 0.5 - 0.5 * np.cos(2 * np.pi * 0.6 * since_s) if label == "squat" else 0.0
        step = np.sin(2 * np.pi * 0.9 * since_s) if label == "walk" else 0.0
        middle = np.array([0.6 * np.sin(1.3 * time_s), 0.0])
        if action and label == "walk":  # to one side, to the other, and back
            middle[0] += 40 * np.sin(2 * np.pi * since_s / (action.end_s - action.start_s))
        at = {}
        hips = middle + [0, -64 + 24 * depth]
        neck = hips + [0, -46]
        at["nose"] = neck + [0, -16]
        for k, side in enumerate(("left", "right")):
            out = 1 - 2 * k  # the left of the person is to the right in the picture
            at[f"{side}_eye"], at[f"{side}_ear"] = (neck + [out * x, -18] for x in (3, 7))
            swing = out * step
            hip, ankle = hips + [8 * out, 0], middle + [8 * out + 12 * swing, 4 * min(swing, 0)]
            at[f"{side}_hip"], at[f"{side}_ankle"] = hip, ankle
            at[f"{side}_knee"] = _bend(hip, ankle, 33.0, out)
            shoulder = neck + [14 * out, 0]
            upper, lower = 0.15 - 0.5 * out * swing, 0.1 - 0.5 * out * swing  # from hanging down
            if label == "wave" and k == self.side:
                upper, lower = 1.9, 2.9 + 0.6 * np.sin(2 * np.pi * 1.7 * since_s)
            at[f"{side}_shoulder"] = shoulder
            at[f"{side}_elbow"] = shoulder + 22 * np.array([out * np.sin(upper), np.cos(upper)])
            hand = 22 * np.array([out * np.sin(lower), np.cos(lower)])
            at[f"{side}_wrist"] = at[f"{side}_elbow"] + hand
        return self.home + self.scale * np.stack([at[name] for name in JOINTS])

    def frame(self, time_s: float, actions: list[Instance]) -> np.ndarray:
        """The picture at a time, uint8 `[H, W, 3]`."""
        joints = dict(zip(JOINTS, self.joints(time_s, actions), strict=True))
        image = self.ground.copy()
        for one, other in _LIMBS:
            colour = self.skin if one.endswith("elbow") else self.clothes
            _draw_limb(image, joints[one], joints[other], 4.5 * self.scale, colour)
        neck, hips = ((joints[f"left_{x}"] + joints[f"right_{x}"]) / 2 for x in ("shoulder", "hip"))
        _draw_limb(image, neck, hips, 11 * self.scale, self.clothes)
        _draw_limb(image, neck, joints["nose"], 3 * self.scale, self.skin)
        _draw_limb(image, joints["nose"], joints["nose"] - [0, 5], 9 * self.scale, self.skin)
        for name in ("left_eye", "right_eye"):
            _draw_limb(image, joints[name], joints[name], 1.5 * self.scale, 0.2 * self.skin)
        image += self.noise.normal(0, 4, size=(*self.size, 1))
        return np.clip(image, 0, 255).astype(np.uint8)


def _bend(start: np.ndarray, end: np.ndarray, length: float, side: int) -> np.ndarray:
    """The joint between two limbs of one length, to one side."""
    half = (end - start) / 2
    across = np.array([half[1], -half[0]]) / max(float(np.linalg.norm(half)), 1e-9)
    across *= side * np.sign(across[0] or 1.0)
    return start + half + across * np.sqrt(max(length**2 - float(half @ half), 0.0))


def _draw_limb(
    image: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float, colour: np.ndarray
) -> None:
    """Draws all places within a radius of the line between two points (x, y)."""
    low = np.maximum(np.floor(np.minimum(start, end) - radius), 0).astype(int)
    high = np.maximum(np.ceil(np.maximum(start, end) + radius), 0).astype(int)
    part = image[low[1] : high[1] + 1, low[0] : high[0] + 1]
    y, x = np.indices(part.shape[:2])
    places = np.stack([x + low[0], y + low[1]], axis=-1) - start
    along = end - start
    share = np.clip(places @ along / max(float(along @ along), 1e-9), 0, 1)
    part[np.linalg.norm(places - share[..., None] * along, axis=-1) < radius] = colour


def write_joints(path: Path, ticks: np.ndarray, person: Person, actions: list[Instance]) -> None:
    """Writes the true joints of every frame as a table."""
    rows: list[list[str]] = [["time_s", *(f"{name}_{axis}" for name in JOINTS for axis in "xy")]]
    for tick in ticks:
        joints = person.joints(tick / _TICKS, actions)
        rows.append([f"{(tick - ticks[0]) / _TICKS:.6f}", *(f"{x:.2f}" for x in joints.ravel())])
    files.write_csv(path, rows)


def write_film(
    path: Path, ticks: np.ndarray, stage: _Stage | Person, actions: list[Instance]
) -> None:
    """Encodes a film with given presentation times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        (stream.height, stream.width), stream.pix_fmt = stage.size, "yuv420p"
        time_base = fractions.Fraction(1, _TICKS)
        stream.codec_context.time_base = time_base
        for tick in ticks:
            pixels = stage.frame(tick / _TICKS, actions)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(tick), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
