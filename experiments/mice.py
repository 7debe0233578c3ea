"""Writes tables of DeepLabCut for made-up mice with known actions, seen from above.

    python experiments/mice.py --output mice --train 12 --test 4

A mouse runs about and at times acts: `groom` (the snout swings from side to side four times a
second) or `dig` (the body stretches twice a second). Positions are off by half a pixel; 2 % of
them are wrong, at a low likelihood. 30 frames per second.

Writes tracks/<mouse>DLC_....csv, and truth.json with the start and end of each action. Training
uses points drawn from these only: see docs/keypoints.md.
"""

import argparse
from pathlib import Path

import numpy as np

from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
)

CLASSES = ("dig", "groom")
JOINTS = ("snout", "leftear", "rightear", "tailbase")
FPS = 30
_SCORER = "DLC_resnet50_openfieldOct30shuffle1_1030000"


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description="Writes tables of made-up mice.")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--train", type=int, default=12, help="mice; %(default)s")
    parser.add_argument("--test", type=int, default=4, help="mice; %(default)s")
    parser.add_argument("--seconds", type=float, default=90.0, help="of a table; %(default)s")
    arguments = parser.parse_args()
    (arguments.output / "tracks").mkdir(parents=True, exist_ok=True)
    recordings = {}
    for seed in range(arguments.train + arguments.test):
        name = f"mouse{seed:02d}"
        rng = np.random.default_rng(seed)
        positions = mouse(int(arguments.seconds * FPS), seed=seed)
        instances = act(positions, rng)
        write_table(arguments.output / "tracks" / f"{name}{_SCORER}.csv", positions, rng)
        subset = "training" if seed < arguments.train else "testing"
        recordings[name] = RecordingAnnotation(subset, arguments.seconds, instances)
    truth = annotations_to_dict(Annotations(CLASSES, recordings))
    files.write_json(arguments.output / "truth.json", truth)


def mouse(frames: int, fps: float = FPS, seed: int = 0) -> np.ndarray:
    """A mouse that runs about: snout, ears and tail base `[frames, 4, 2]` in pixels."""
    rng = np.random.default_rng(seed)
    turns = np.pad(rng.normal(size=frames), 30, mode="edge")
    turns = np.convolve(turns, np.ones(30) / 30, "same")[30:-30]
    heading = 0.3 * np.cumsum(turns)
    forward = np.stack([np.cos(heading), np.sin(heading)], 1)
    left = np.stack([-np.sin(heading), np.cos(heading)], 1)
    center = 300 + np.cumsum(forward, 0) * 40 / fps
    snout = center + 30 * forward + 5 * np.sin(np.arange(frames) / 7)[:, None] * left
    ears = [center + 20 * forward + sign * 8 * left for sign in (1, -1)]
    return np.stack([snout, *ears, center - 25 * forward], 1)


def act(positions: np.ndarray, rng: np.random.Generator) -> tuple[Instance, ...]:
    """Changes the positions where the mouse acts; returns the actions."""
    times_s = np.arange(len(positions)) / FPS
    instances, start_s = [], 4.0
    while start_s < times_s[-1] - 8:
        label = CLASSES[rng.integers(len(CLASSES))]
        end_s = start_s + rng.uniform(1.5, 4)
        at = (times_s >= start_s) & (times_s < end_s)
        snout, ears, tail = positions[at, 0], positions[at, 1:3], positions[at, 3]
        axis = snout - tail
        if label == "groom":
            across = np.stack([-axis[:, 1], axis[:, 0]], 1)
            swing = np.sin(2 * np.pi * 4 * times_s[at])[:, None]
            positions[at, 0] = tail + 0.7 * axis + 0.25 * swing * across
        else:
            stretch = 1 + 0.25 * np.sin(2 * np.pi * 2 * times_s[at])[:, None]
            positions[at, 0] = tail + stretch * axis
            positions[at, 1:3] = tail[:, None] + stretch[:, None] * (ears - tail[:, None])
        instances.append(Instance(label, round(start_s, 2), round(end_s, 2)))
        start_s = end_s + rng.uniform(3, 8)
    return tuple(instances)


def write_table(path: Path, positions: np.ndarray, rng: np.random.Generator) -> None:
    """Writes a table as DeepLabCut does."""
    tracked = positions + rng.normal(size=positions.shape) / 2
    likelihood = np.clip(rng.normal(0.97, 0.03, positions.shape[:2]), 0, 1)
    wrong = rng.uniform(size=likelihood.shape) < 0.02
    tracked[wrong] += rng.normal(scale=60, size=(wrong.sum(), 2))
    likelihood[wrong] = 0.05
    header = [
        ["scorer", *[_SCORER] * 3 * len(JOINTS)],
        ["bodyparts", *(joint for joint in JOINTS for _ in range(3))],
        ["coords", *["x", "y", "likelihood"] * len(JOINTS)],
    ]
    values = np.concatenate([tracked, likelihood[..., None]], -1).reshape(len(tracked), -1)
    rows = [[str(n), *(f"{v:.4f}" for v in row)] for n, row in enumerate(values.tolist())]
    files.write_csv(path, [*header, *rows])


if __name__ == "__main__":
    main()
