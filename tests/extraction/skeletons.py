"""A made-up person whose motion is known; `experiments/mice.py` has an animal."""

import numpy as np

KINECT = (
    "HipCenter Spine ShoulderCenter Head ShoulderLeft ElbowLeft WristLeft HandLeft ShoulderRight "
    "ElbowRight WristRight HandRight HipLeft KneeLeft AnkleLeft FootLeft HipRight KneeRight "
    "AnkleRight FootRight"
).split()


def _smooth(values, width):
    padded = np.pad(values, (width, width), mode="edge")
    return np.convolve(padded, np.ones(width) / width, "same")[width:-width]


def person(frames=600, fps=30.0, seed=0, noise=0.005):
    """A person who turns, walks, bends and moves the arms: `[n, 20, 3]` in metres, y upwards."""
    rng, time = np.random.default_rng(seed), np.arange(frames) / fps
    heading = np.cumsum(_smooth(rng.normal(size=frames), 30)) * 0.3
    zero = 0 * heading
    upward = np.stack([zero, zero + 1, zero], 1)
    forward = np.stack([np.sin(heading), zero, np.cos(heading)], 1)
    left = np.stack([np.cos(heading), zero, -np.sin(heading)], 1)

    def at(leftward, up, ahead):
        parts = zip((leftward, up, ahead), (left, upward, forward), strict=True)
        return sum(np.broadcast_to(a, (frames,))[:, None] * axis for a, axis in parts)

    bend = 1.5 * _smooth(np.maximum(0, np.sin(time / 2) - 0.6), 20)

    def trunk(leftward, height):
        return at(leftward, 0.95 + height * np.cos(bend), height * np.sin(bend))

    joints = {
        "HipCenter": at(0, 0.95, 0),
        "Spine": trunk(0, 0.25),
        "ShoulderCenter": trunk(0, 0.5),
        "Head": trunk(0, 0.7),
    }
    for side, sign in (("Left", 1), ("Right", -1)):
        raised, out = (3 * _smooth(rng.normal(size=frames), 25) for _ in range(2))
        arm = at(0.3 * sign * np.sin(out), -np.cos(raised), np.sin(raised))
        joints[f"Shoulder{side}"] = trunk(0.18 * sign, 0.48)
        joints[f"Elbow{side}"] = joints[f"Shoulder{side}"] + 0.28 * arm
        arm = at(0.3 * sign * np.sin(out), -np.cos(raised + out**2), np.sin(raised + out**2))
        joints[f"Wrist{side}"] = joints[f"Elbow{side}"] + 0.25 * arm
        joints[f"Hand{side}"] = joints[f"Wrist{side}"] + 0.08 * arm
        swing = 0.4 * np.sin(5.6 * time + np.pi * (sign < 0))
        joints[f"Hip{side}"] = at(0.09 * sign, 0.9, 0)
        thigh, shin = (at(0, -np.cos(a), np.sin(a)) for a in (swing, swing / 2))
        joints[f"Knee{side}"] = joints[f"Hip{side}"] + 0.42 * thigh
        joints[f"Ankle{side}"] = joints[f"Knee{side}"] + 0.4 * shin
        joints[f"Foot{side}"] = joints[f"Ankle{side}"] + at(0, -0.04, 0.15)
    positions = np.stack([joints[name] for name in KINECT], 1)
    positions += np.cumsum(forward * 0.6 / fps, 0)[:, None]
    return positions + noise * rng.normal(size=positions.shape)
