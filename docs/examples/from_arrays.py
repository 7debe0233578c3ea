"""Trains on arrays and detects in new ones; docs/training.md shows the middle, a test runs it."""

import sys
import tempfile

import numpy as np

import tal_jax as tal


def made_up_recording(seed: int) -> tuple[np.ndarray, list[float]]:
    """Noise `[T, D]` with three bumps, and a time in seconds inside each of them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 0.3, (96, 8)).astype(np.float32)
    starts = np.array([10, 40, 70]) + rng.integers(0, 10, 3)
    for start in starts:
        features[start : start + 8, :4] += 1.0
    return features, [float(start + 4) * 0.64 for start in starts]


def main(workdir: str) -> dict:
    """Three recordings to train on, one to detect in."""
    config = tal.load_config("auto:quick")
    config.train.rounds = 1
    arrays = {name: made_up_recording(seed) for seed, name in enumerate("abcd")}

    # --8<-- [start:fit]
    grid = tal.Grid(fps=25, stride_frames=16, window_frames=16)  # snippet i: [0.64 i, 0.64 (i+1)) s
    train = tuple(
        tal.Recording(
            name,
            features,  # [T, D] float32 or float16
            grid,
            duration_s=61.4,
            points=tuple(tal.Point(time_s, label=0) for time_s in clicks),
        )
        for name, (features, clicks) in list(arrays.items())[:3]
    )
    dataset = tal.Dataset(classes=("jump",), train=train, test=(), ground_truth={"database": {}})
    fitted = tal.fit(dataset, config, workdir=workdir)

    new = tal.Recording("d", arrays["d"][0], grid, duration_s=61.4)
    detections = tal.predict(fitted, [new])
    detections["d"][0]  # {"label": "jump", "score": ..., "segment": [start_s, end_s]}
    # --8<-- [end:fit]
    return detections


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())["d"][:3])
