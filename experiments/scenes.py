"""Writes short synthetic videos with known actions, for tests from raw videos on.

    python experiments/scenes.py --output scenes --train 8 --test 3

Three small figures stand before a cluttered background that changes at a cut. At times a figure
acts: `slide` (from side to side), `jump` (up and down) or `blink` (light and dark, in place). The
others move slightly. The frame rate is 29.97 or 25 a second, or varies within the video.

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
    options = parser.parse_args()
    write_scenes(
        options.output,
        num_train=options.train,
        num_test=options.test,
        seconds=options.seconds,
        seed=options.seed,
    )


def write_scenes(
    folder: Path, *, num_train: int, num_test: int, seconds: float = 60.0, seed: int = 0
) -> Annotations:
    """Writes films and their annotations into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    recordings = {}
    for subset, count in (("train", num_train), ("test", num_test)):
        for number in range(count):
            name = f"{subset}_{number}"
            ticks = frame_ticks(rng, number, seconds)
            actions = _draw_actions(rng, seconds)
            write_film(folder / f"{name}.mp4", ticks, _Stage(rng, seconds), actions)
            recordings[name] = RecordingAnnotation(subset, float(seconds), tuple(actions))
    truth = Annotations(CLASSES, recordings)
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


def _draw_actions(rng: np.random.Generator, seconds: float) -> list[Instance]:
    """Actions of 2 to 6 seconds, with pauses between."""
    actions, at_s = [], float(rng.uniform(2, 5))
    while True:
        end_s = at_s + float(rng.uniform(2, 6))
        if end_s > seconds - 1:
            return actions
        label = CLASSES[int(rng.integers(len(CLASSES)))]
        actions.append(Instance(label, round(at_s, 3), round(end_s, 3)))
        at_s = end_s + float(rng.uniform(2, 6))


class _Stage:
    """Backgrounds, the times of the cuts between them, and three figures."""

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


def write_film(path: Path, ticks: np.ndarray, stage: _Stage, actions: list[Instance]) -> None:
    """Encodes a film with given presentation times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
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
