"""Pseudo labels of one recording against every labelling and every segment there is."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from tal_jax.config import rsmp_config
from tal_jax.data.timeline import Batch, MostPoints
from tal_jax.methods import rsmp
from tal_jax.ops.resampling import Resampled

LENGTH, PADDED, DELTA = 13, 16, 0.25
CLASSES = (1, 0)  # the video classes, in an order of their own; class 2 is not in the recording
# Snippets of the points of each video class.
POINTS = ((3, 10), (6,))
SURE = (1, 8, 12)  # snippets with a background probability above the threshold
BACKGROUND = (0, *SURE)  # and what lies before the first of them, in front of all points


def _batch(overlap):
    points, where = np.zeros((PADDED, 2), bool), np.arange(PADDED) < LENGTH
    for index, snippets in enumerate(POINTS):
        points[list(snippets), index] = True
    return Batch(
        features=np.zeros((PADDED, 1), np.float32),
        where=where,
        points=points,
        instances=np.zeros((PADDED, 2), bool),
        segments=np.zeros((0, 2), np.float32),
        segment_class_index=np.zeros(0, np.int32),
        segment_where=np.zeros(0, bool),
        video_classes=np.array(CLASSES, np.int32),
        video_class_where=np.ones(2, bool),
        video_class_clicked=np.ones(2, bool),
        background=np.zeros_like(where),
        done=where,
        negative_classes=np.zeros((2, 2), bool) if overlap else ~np.eye(2, dtype=bool),
        resampled=Resampled(None, None, np.arange(PADDED + 1, dtype=np.float32), where),
        cut=np.bool_(False),
        most_points=MostPoints(2, 3),
    )


def _scores(seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 0.95, (PADDED, 3)).astype(np.float32)
    background = np.full(PADDED, 0.5, np.float32)
    background[list(SURE)] = 0.99
    return scores, background


@jax.jit
def _compiled_search(scores, background, batch):
    config = rsmp_config()
    config.seeds.action_threshold = 0.0
    config.seeds.background_threshold = 0.95
    config.seeds.force_between = "same"
    config.loss.delta = DELTA
    return rsmp.search_recording(scores, background, batch, config)


def _search(seed, overlap):
    return jax.tree.map(np.asarray, _compiled_search(*_scores(seed), _batch(overlap)))


def _contrast(scores, start, end):
    width = int(np.ceil(DELTA * (end - start) - 1e-4))
    outside = np.concatenate([scores[max(start - width, 0) : start], scores[end : end + width]])
    return scores[start:end].mean() - (outside.mean() if len(outside) else 0)


def _blocked(index, overlap):
    """Background seeds, and points of the other class where both exclude each other."""
    return set(BACKGROUND) | (set() if overlap else set(POINTS[1 - index]))


def _runs(labels):
    bounds = [0, *(np.flatnonzero(np.diff(labels)) + 1), len(labels)]
    return list(itertools.pairwise(bounds))


def _best_sequence(scores, points, blocked):
    """Of all labellings that agree with the seeds, with one segment for each run of seeds."""
    known = sorted([(at, True) for at in points] + [(at, False) for at in blocked])
    num_runs = len(list(itertools.groupby(known, key=lambda one: one[1])))
    best = -np.inf, None
    for labels in itertools.product((False, True), repeat=LENGTH):
        runs = _runs(labels)
        if len(runs) != num_runs or any(labels[at] != action for at, action in known):
            continue
        values = [
            _contrast(scores if labels[start] else 1 - scores, start, end) for start, end in runs
        ]
        best = max(best, (np.mean(values), labels))
    return np.array(best[1])


def _best_segment(scores, point, blocked):
    segments = [
        (start, end)
        for start in range(point + 1)
        for end in range(point + 1, LENGTH + 1)
        if not blocked & set(range(start, end))
    ]
    return max(segments, key=lambda segment: _contrast(scores, *segment))


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_against_everything_there_is(seed, overlap):
    background, sequences, best, contrasts = _search(seed, overlap)
    assert list(np.flatnonzero(background)) == list(BACKGROUND)
    for index, label in enumerate(CLASSES):
        scores = _scores(seed)[0][:LENGTH, label].astype(np.float64)
        blocked = _blocked(index, overlap)
        want = _best_sequence(scores, POINTS[index], blocked)
        np.testing.assert_array_equal(sequences[index, :LENGTH], want)
        assert not sequences[index, LENGTH:].any()
        for point in POINTS[index]:
            want = _best_segment(scores, point, blocked)
            assert tuple(best[index, point]) == want
            assert contrasts[index, point] == pytest.approx(_contrast(scores, *want), abs=1e-6)
        without = np.delete(contrasts[index], list(POINTS[index]))
        assert np.all(without == -np.inf)


def test_the_search_stays_in_done_stretches():
    """A point in unknown time has no segment; the others' end at the latest where that begins."""
    done = np.arange(PADDED) < 8  # all but the second point of the first class
    batch = dataclasses.replace(_batch(overlap=False), done=done & _batch(False).where)
    scores = _scores(0)[0][:LENGTH].astype(np.float64)
    background, sequences, best, contrasts = jax.tree.map(
        np.asarray, _compiled_search(*_scores(0), batch)
    )
    # Snippet 8 is sure, and unknown: no background seed.
    assert list(np.flatnonzero(background)) == [0, 1]
    unknown = set(range(8, LENGTH))
    for index, point in enumerate((3, 6)):
        blocked = {0, 1} | unknown | set(POINTS[1 - index])
        want = _best_segment(scores[:, CLASSES[index]], point, blocked)
        assert tuple(best[index, point]) == want
        assert sequences[index, point] and not sequences[index, 8:].any()
    assert contrasts[0, 10] == -np.inf


def test_the_sequences_own_segments_compete():
    """Inside an overlap the best segment is never worse than that of the optimal sequence."""
    for seed in range(20):
        _, sequences, _, contrasts = _search(seed, overlap=True)
        for index, label in enumerate(CLASSES):
            scores = _scores(seed)[0][:LENGTH, label].astype(np.float64)
            labels = sequences[index, :LENGTH]
            own = [_contrast(scores, a, b) for a, b in _runs(labels) if labels[a]]
            assert contrasts[index].max() >= max(own) - 1e-6
