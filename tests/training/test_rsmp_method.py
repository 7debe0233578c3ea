"""Tests of what is particular to the point-supervised method."""

import functools

import jax
import numpy as np

from tal_jax.training import rsmp


def test_video_scores_by_hand():
    scores = np.array([[0.1, 0.0], [0.9, 0.0], [0.5, 0.0], [0.3, 0.4], [1, 1], [1, 1]], np.float32)
    where = np.arange(6) < 4
    video_scores = jax.jit(functools.partial(rsmp.video_scores))
    np.testing.assert_allclose(video_scores(scores, topk_ratio=2.0, where=where), [0.7, 0.2])
    np.testing.assert_allclose(video_scores(scores, topk_ratio=8.0, where=where), [0.9, 0.4])
    everything = video_scores(scores, topk_ratio=1.0, where=np.ones(6, bool))
    np.testing.assert_allclose(everything, scores.mean(0), rtol=1e-6)
