"""All rounds' networks as one: the mean of their score sequences.

Which round is best is a matter of chance, and no training point decides it. On the recordings' own
timelines the scores of all rounds stand snippet beside snippet, and their mean ranks detections
better than any one of them.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from tal_jax.data.predictions import RecordingScores, ScoreSequence


def mean_scores(rounds: Iterable[Mapping[str, RecordingScores]]) -> dict[str, RecordingScores]:
    """The mean over rounds of what their networks predict on the original timeline.

    Args:
      rounds: for each round the scores of the same recordings; read one after another.

    Returns:
      Score sequences of the same recordings, on the original timeline alone.

    Raises:
      ValueError: if the rounds differ in their recordings, or in the shape of one's scores.
    """
    sums: dict[str, ScoreSequence] = {}
    first: dict[str, RecordingScores] = {}
    count = 0
    for count, scores in enumerate(rounds, start=1):
        first = first or dict(scores)
        if scores.keys() != first.keys():
            name = min(scores.keys() ^ first.keys())
            raise ValueError(f"scores of {name!r} in some rounds, expected them in all")
        for name, one in scores.items():
            sums[name] = _add(name, sums[name], one.original) if count > 1 else one.original
    means = {name: _divide(total, np.float32(count)) for name, total in sums.items()}
    return {
        name: RecordingScores(one.grid, one.duration_s, means[name], means[name])
        for name, one in first.items()
    }


def _add(name: str, total: ScoreSequence, one: ScoreSequence) -> ScoreSequence:
    if total.scores.shape != one.scores.shape:
        raise ValueError(
            f"scores of {name!r} have shapes {total.scores.shape} and {one.scores.shape} in "
            "different rounds, expected the same"
        )
    return ScoreSequence(
        total.scores + one.scores,
        total.foreground + one.foreground,
        total.video + one.video,
        total.cumulative,
    )


def _divide(total: ScoreSequence, count: np.float32) -> ScoreSequence:
    return ScoreSequence(
        total.scores / count, total.foreground / count, total.video / count, total.cumulative
    )
