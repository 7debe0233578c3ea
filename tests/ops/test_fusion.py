"""Tests of fused segments against plain Python loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.ops import fusion as ops
from tal_jax.ops import segments as segment_ops

_fuse = jax.jit(ops.fuse_detections, static_argnames="num_sources")
_of_points = jax.jit(ops.point_segments)


def _random(seed, size=40, num_sources=3):
    """Random segments; few distinct scores and ends, so that ties and zero lengths occur."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 20, size)
    segments = np.stack([start, start + rng.integers(0, 8, size)], axis=1).astype(np.float32)
    scores = (rng.integers(0, 20, size) / 20).astype(np.float32)
    sources = rng.integers(0, num_sources, size).astype(np.int32)
    return segments, scores, sources, rng.random(size) < 0.8


def _iou(a, b):
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / ((a[1] - a[0]) + (b[1] - b[0]) - shared) if shared > 0 else 0.0


def _reference(segments, scores, sources, num_sources, threshold, where, trust=None):
    segments, scores = np.asarray(segments, np.float64), np.asarray(scores, np.float64)
    fused, mean = np.zeros_like(segments), np.zeros(len(scores))
    exists, clusters = np.zeros(len(scores), bool), np.arange(len(scores))
    left = [i for i in sorted(range(len(scores)), key=lambda i: -scores[i]) if where[i]]
    while left:
        best = left[0]
        own = [i for i in left if i == best or _iou(segments[best], segments[i]) >= threshold]
        left = [i for i in left if i not in own]
        weights = [scores[i] * (1 if trust is None else trust[sources[i]]) for i in own]
        total = sum(weights)
        exists[best], clusters[own] = True, best
        fused[best] = segments[best]
        if total > 0:
            fused[best] = sum(w * segments[i] for w, i in zip(weights, own, strict=True)) / total
        for source in range(num_sources):
            of_source = [scores[i] for i in own if sources[i] == source]
            mean[best] += max(of_source, default=0.0) / num_sources
    return fused, mean, exists, clusters


def _assert_fused(got, want):
    np.testing.assert_allclose(got.segments, want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.scores, want[1], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(got.where, want[2])
    np.testing.assert_array_equal(got.clusters, want[3])


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("num_sources", [1, 2, 3])
def test_fused_against_a_loop(num_sources, threshold):
    for seed in range(3):
        segments, scores, sources, where = _random(seed, num_sources=num_sources)
        got = _fuse(
            segments,
            scores,
            sources,
            num_sources=num_sources,
            iou_threshold=threshold,
            where=where,
        )
        assert got.segments.dtype == got.scores.dtype == jnp.float32
        want = _reference(segments, scores, sources, num_sources, threshold, where)
        _assert_fused(got, want)


def test_fused_by_hand():
    """Two sources agree on one action, one of them alone has another; a score below 0 is 0."""
    segments = jnp.array([[0.0, 4.0], [1.0, 5.0], [8.0, 9.0], [0.0, 4.0]])
    scores = jnp.array([0.6, 0.2, 0.4, -1.0])
    sources = jnp.array([0, 1, 1, 0])
    got = _fuse(segments, scores, sources, num_sources=2, iou_threshold=0.6)
    np.testing.assert_allclose(got.segments, [[0.25, 4.25], [0, 0], [8, 9], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(got.scores, [0.4, 0, 0.2, 0], rtol=1e-6)
    assert got.clusters.tolist() == [0, 0, 2, 0]


def test_trust_weighs_the_ends_and_not_the_scores():
    segments, scores, sources, where = _random(4, num_sources=2)
    options = dict(num_sources=2, iou_threshold=0.25, where=where)
    got = _fuse(segments, scores, sources, trust=jnp.array([1.0, 4.0]), **options)
    _assert_fused(got, _reference(segments, scores, sources, 2, 0.25, where, (1, 4)))
    with pytest.raises(ValueError, match=r"trust must have shape \[S\] with S = 2, got \[3\]"):
        ops.fuse_detections(segments, scores, sources, trust=jnp.ones(3), **options)


def test_segments_without_a_score_stay_as_they_are():
    segments = jnp.array([[1.0, 3.0], [1.0, 3.5], [7.0, 7.0]])
    sources = jnp.zeros(3, jnp.int32)
    got = _fuse(segments, jnp.zeros(3), sources, num_sources=1, iou_threshold=0.5)
    np.testing.assert_array_equal(got.segments, [[1, 3], [0, 0], [7, 7]])
    assert got.where.tolist() == [True, False, True] and not np.any(got.scores)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_a_masked_segment_may_hold_anything(spoiled):
    segments, scores, sources, where = _random(5)
    want = _reference(segments, scores, sources, 3, 0.5, where)
    given = np.where(where[:, None], segments, spoiled), np.where(where, scores, spoiled)
    options = dict(num_sources=3, iou_threshold=0.5)
    _assert_fused(_fuse(*given, sources, where=where, **options), want)
    nothing = _fuse(*given, sources, where=np.zeros_like(where), **options)
    assert not np.any(nothing.segments) and not np.any(nothing.scores) and not np.any(nothing.where)


def test_times_of_a_day_are_exact():
    """The mean is of what segments differ by: products of late times would round."""
    late = 2.0**16
    segments = jnp.array([[late, late + 4.0], [late + 1.0, late + 5.0]])
    got = _fuse(
        segments, jnp.array([0.6, 0.2]), jnp.array([0, 0]), num_sources=1, iou_threshold=0.5
    )
    np.testing.assert_array_equal(got.segments[0], [late + 0.25, late + 4.25])


def test_nothing_to_fuse():
    none = jnp.zeros((0, 2)), jnp.zeros(0), jnp.zeros(0, jnp.int32)
    got = ops.fuse_detections(*none, num_sources=2, iou_threshold=0.5)
    assert got.segments.shape == (0, 2) and got.where.shape == (0,)
    got = ops.point_segments(*none[:2], jnp.zeros((3, 0), bool))
    assert got.segments.shape == (3, 2) and not got.where.any()


def test_gradients_of_fused_segments():
    """By hand: means move with their segments, scores with the best of each source."""
    segments = jnp.array([[0.0, 4.0], [1.0, 5.0], [1.0, 4.5]])
    scores, sources = jnp.array([0.6, 0.2, 0.1]), jnp.array([0, 1, 1])

    def fused(segments, scores):
        return ops.fuse_detections(segments, scores, sources, num_sources=2, iou_threshold=0.5)

    by_segments = jax.grad(lambda s: fused(s, scores).segments[0, 1])(segments)
    want = np.array([[0, 0.6], [0, 0.2], [0, 0.1]]) / 0.9
    np.testing.assert_allclose(by_segments, want, rtol=1e-5, atol=1e-7)
    by_scores = jax.grad(lambda x: fused(segments, x).scores[0])(scores)
    np.testing.assert_allclose(by_scores, [0.5, 0.5, 0.0], rtol=1e-6)


def test_clusters_are_those_of_nms():
    segments, scores, _, where = _random(3)
    clusters = segment_ops.nms_clusters(segments, scores, iou_threshold=0.5, where=where)
    keep = segment_ops.nms(segments, scores, iou_threshold=0.5, where=where)
    np.testing.assert_array_equal(keep, where & (clusters == np.arange(len(scores))))
    for index, best in enumerate(np.asarray(clusters)):
        if where[index] and best != index:
            assert keep[best] and scores[best] >= scores[index]
            assert _iou(segments[best], segments[index]) >= 0.5


# ---- pseudo segments of points


def _reference_points(segments, scores, candidates, threshold, temperature):
    segments, scores = np.asarray(segments, np.float64), np.asarray(scores, np.float64)
    found = np.zeros((len(candidates), 2))
    for row, candidate in enumerate(candidates):
        own = [i for i in range(len(scores)) if candidate[i]]
        if own:
            best = max(own, key=lambda i: (scores[i], -i))
            own = [i for i in own if i == best or _iou(segments[best], segments[i]) > threshold]
            weights = [np.exp(scores[i] / temperature) for i in own]
            found[row] = sum(w * segments[i] for w, i in zip(weights, own, strict=True))
            found[row] /= sum(weights)
    return found


@pytest.mark.parametrize("threshold, temperature", [(0.0, 0.1), (0.25, 0.1), (0.5, 2.0)])
def test_point_segments_against_a_loop(threshold, temperature):
    for seed in range(3):
        segments, scores, _, _ = _random(seed)
        candidates = np.random.default_rng(seed).random((7, len(scores))) < 0.3
        candidates[2] = False
        got = _of_points(
            segments, scores, candidates, iou_threshold=threshold, temperature=temperature
        )
        want = _reference_points(segments, scores, candidates, threshold, temperature)
        np.testing.assert_allclose(got.segments, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(got.where, candidates.any(axis=1))


def test_point_segments_contain_what_their_parts_contain():
    rng = np.random.default_rng(0)
    times = rng.uniform(5, 15, 6).astype(np.float32)
    segments = times[rng.integers(0, 6, 60)][:, None] + rng.uniform([-4, 0.1], [0, 4], (60, 2))
    segments = segments.astype(np.float32)
    inside = (segments[None, :, 0] <= times[:, None]) & (times[:, None] < segments[None, :, 1])
    got = _of_points(segments, rng.random(60).astype(np.float32), inside)
    found = np.asarray(got.segments)
    assert np.all(got.where)
    assert np.all((found[:, 0] <= times) & (times < found[:, 1]))


def test_what_is_no_candidate_may_hold_anything():
    segments, scores, _, _ = _random(1)
    candidates = np.zeros((2, len(scores)), bool)
    candidates[0, 5:20] = True
    want = _of_points(segments, scores, candidates)
    some = candidates.any(axis=0)
    for spoiled in (np.nan, np.inf):
        given = np.where(some[:, None], segments, spoiled), np.where(some, scores, spoiled)
        got = _of_points(*given, candidates)
        np.testing.assert_array_equal(got.segments, want.segments)
    # A much better segment of another point overflows neither the result nor the gradient.
    scores = np.where(some, scores, 1e4).astype(np.float32)
    candidates[1, 25:] = True

    def total(segments, scores):
        return ops.point_segments(segments, scores, candidates).segments.sum()

    for gradient in jax.grad(total, argnums=(0, 1))(segments, scores):
        assert np.all(np.isfinite(gradient))
