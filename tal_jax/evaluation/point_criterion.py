"""The point criterion: how well proposals explain points, without any start or end."""

from collections.abc import Sequence

import numpy as np

from tal_jax.data.detections import Results
from tal_jax.data.recordings import Recording


def point_criterion(
    results: Results, recordings: Sequence[Recording], classes: Sequence[str]
) -> float:
    """The mean of `point_scores`; 0 where there is no point."""
    scores = point_scores(results, recordings, classes)
    return float(scores.mean()) if len(scores) else 0.0


def point_scores(
    results: Results, recordings: Sequence[Recording], classes: Sequence[str]
) -> np.ndarray:
    """`[P]`: for each point the score of the best proposal of its class that holds no other point.

    Background points are others, too. 0 where there is none; the points of the recordings in order.
    """
    class_of = {label: number for number, label in enumerate(classes)}
    scores = [np.zeros(0)]
    for recording in recordings:
        entries, points = results[recording.name], recording.points
        segments = np.array([entry["segment"] for entry in entries]).reshape(-1, 2)
        labels = np.array([class_of[entry["label"]] for entry in entries], int)
        values = np.array([entry["score"] for entry in entries])
        times_s = np.array([point.time_s for point in points])
        inside = (segments[:, :1] <= times_s) & (times_s < segments[:, 1:])
        background_s = np.array(recording.background_s, float)
        others = (segments[:, :1] <= background_s) & (background_s < segments[:, 1:])
        alone = inside.sum(axis=1, keepdims=True) + others.sum(axis=1, keepdims=True) == 1
        own = labels[:, None] == np.array([point.label for point in points], int)
        best = np.where(inside & alone & own, values[:, None], 0).max(axis=0, initial=0)
        scores.append(best)
    return np.concatenate(scores)
