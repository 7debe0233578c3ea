"""Tests of overlaps and suppression against plain Python loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.ops import segments as ops

_nms = jax.jit(ops.nms)
_soft_nms = jax.jit(ops.soft_nms)
_disjoint = jax.jit(ops.disjoint_segments)


def _random(seed, size=40):
    """Random segments; few distinct scores and ends, so that ties and zero lengths occur."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 20, size)
    segments = np.stack([start, start + rng.integers(0, 8, size)], axis=1).astype(np.float32)
    return segments, (rng.integers(1, 20, size) / 20).astype(np.float32), rng.random(size) < 0.8


def _iou(a, b):
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    total = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / total if shared > 0 else 0.0


def _reference_nms(segments, scores, where, threshold):
    left = [i for i in sorted(range(len(scores)), key=lambda i: -scores[i]) if where[i]]
    keep = np.zeros(len(scores), bool)
    while left:
        best = left.pop(0)
        keep[best] = True
        left = [i for i in left if _iou(segments[best], segments[i]) < threshold]
    return keep


def _reference_disjoint(segments, scores, where, max_share):
    keep = np.zeros(len(scores), bool)
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        start, end = segments[i]
        shares = [
            max(0.0, min(end, segments[j][1]) - max(start, segments[j][0]))
            - max_share * min(end - start, segments[j][1] - segments[j][0])
            for j in np.flatnonzero(keep)
        ]
        keep[i] = where[i] and all(share <= 0 for share in shares)
    return keep


def _reference_soft_nms(segments, scores, where, sigma):
    scores = np.where(where, scores, 0).astype(np.float64)
    left = [i for i in range(len(scores)) if where[i]]
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        left.remove(best)
        for i in left:
            scores[i] *= np.exp(-(_iou(segments[best], segments[i]) ** 2) / sigma)
    return scores


def test_iou_by_hand():
    a = jnp.array([[0.0, 4.0], [2.0, 2.0], [5.0, 3.0]])
    b = jnp.array([[0.0, 4.0], [2.0, 6.0], [4.0, 8.0], [2.0, 2.0], [-1.0, 7.0]])
    want = np.zeros((3, 5))
    want[0] = [1, 1 / 3, 0, 0, 0.5]
    np.testing.assert_allclose(ops.segment_iou(a, b), want, rtol=1e-6)


def test_iou_against_a_loop():
    a, b = _random(0)[0], _random(1, 25)[0]
    got = jax.jit(ops.segment_iou)(a, b)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [[_iou(x, y) for y in b] for x in a], rtol=1e-6)
    # Neither the unit nor the origin of time matters.
    np.testing.assert_allclose(ops.segment_iou(a * 4 + 8, b * 4 + 8), got, rtol=1e-6)


def test_iou_gradient_is_finite_where_nothing_overlaps():
    a = jnp.array([[0.0, 0.0], [0.0, 2.0]])
    gradient = jax.grad(lambda x: jnp.sum(ops.segment_iou(x, a)))(a)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_nms_against_a_loop(seed, threshold):
    segments, scores, where = _random(seed)
    got = _nms(segments, scores, iou_threshold=threshold, where=where)
    np.testing.assert_array_equal(got, _reference_nms(segments, scores, where, threshold))


def test_nms_removes_at_the_threshold_and_keeps_the_first_of_equals():
    segments = jnp.array([[0.0, 2.0], [0.0, 2.0], [0.0, 4.0]])
    assert _nms(segments, jnp.ones(3), iou_threshold=0.5).tolist() == [True, False, False]
    assert _nms(segments, jnp.ones(3), iou_threshold=0.51).tolist() == [True, False, True]


def test_nms_keeps_segments_of_any_score():
    segments = jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    scores = jnp.array([-jnp.inf, -3.0, -jnp.inf])
    assert _nms(segments, scores, iou_threshold=0.5).tolist() == [True, True, True]


@pytest.mark.parametrize("sigma", [0.1, 0.5, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_soft_nms_against_a_loop(seed, sigma):
    segments, scores, where = _random(seed)
    got = _soft_nms(segments, scores, sigma=sigma, where=where)
    assert got.dtype == jnp.float32
    want = _reference_soft_nms(segments, scores, where, sigma)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)


def test_soft_nms_by_hand():
    segments = jnp.array([[0.0, 4.0], [2.0, 4.0], [9.0, 9.0], [2.0, 4.0]])
    got = _soft_nms(segments, jnp.array([1.0, 0.8, 0.7, -0.5]), sigma=0.5)
    np.testing.assert_allclose(got, [1.0, 0.8 * np.exp(-0.5), 0.7, -0.5], rtol=1e-6)


@pytest.mark.parametrize("max_share", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_disjoint_against_a_loop(seed, max_share):
    segments, scores, where = _random(seed)
    got = _disjoint(segments, scores, max_share=max_share, where=where)
    want = _reference_disjoint(segments, scores, where, max_share)
    np.testing.assert_array_equal(got, want)


def test_disjoint_by_hand():
    """Inside a better one, sharing just as much as is allowed, sharing more, of no length."""
    segments = jnp.array([[0.0, 8.0], [2.0, 3.0], [7.0, 11.0], [6.0, 10.0], [4.0, 4.0]])
    scores = jnp.array([0.9, 0.8, 0.7, 0.75, 0.1])
    got = _disjoint(segments, scores, max_share=0.25)
    assert got.tolist() == [True, False, True, False, True]


OPS = {_nms: {"iou_threshold": 0.5}, _soft_nms: {"sigma": 0.5}, _disjoint: {"max_share": 0.25}}


@pytest.mark.parametrize("op", OPS)
def test_mask_equals_removing_and_hides_what_is_not_finite(op):
    kwargs = OPS[op]
    segments, scores, where = _random(7)
    want = np.zeros(len(scores), np.float32 if op is _soft_nms else bool)
    want[where] = op(segments[where], scores[where], **kwargs)
    spoiled = np.where(where[:, None], segments, np.nan), np.where(where, scores, np.inf)
    np.testing.assert_allclose(op(*spoiled, where=where, **kwargs), want, rtol=1e-6)
    assert not np.any(op(*spoiled, where=np.zeros_like(where), **kwargs))
    assert op(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), **kwargs).shape == (0,)


def test_vmap_equals_a_loop():
    segments, scores, where = (np.stack(x) for x in zip(*map(_random, range(3)), strict=True))
    for op, kwargs in OPS.items():

        def call(segments, scores, where, op=op, kwargs=kwargs):
            return op(segments, scores, where=where, **kwargs)

        one_by_one = np.stack([call(*row) for row in zip(segments, scores, where, strict=True)])
        np.testing.assert_allclose(jax.vmap(call)(segments, scores, where), one_by_one, rtol=1e-6)


def test_without_jit():
    segments, scores, where = _random(9, 8)
    got = ops.nms(segments, scores, iou_threshold=0.5, where=where)
    np.testing.assert_array_equal(got, _reference_nms(segments, scores, where, 0.5))
    got = ops.soft_nms(segments, scores, sigma=0.5, where=where)
    np.testing.assert_allclose(got, _reference_soft_nms(segments, scores, where, 0.5), rtol=1e-5)


def test_gradients_are_finite():
    segments, scores, where = _random(5, 12)

    def kept(segments, scores, where):
        return jnp.sum(jnp.where(_nms(segments, scores, iou_threshold=0.5, where=where), scores, 0))

    def lowered(segments, scores, where):
        return jnp.sum(_soft_nms(segments, scores, sigma=0.5, where=where))

    for function in (kept, lowered):
        for valid in (where, np.zeros_like(where)):
            gradients = jax.grad(function, (0, 1))(segments, scores, valid)
            assert all(np.all(np.isfinite(g)) for g in gradients)
            assert not np.any(gradients[1][~valid])


def _legacy_iou(a, b):
    """As in the public code of the field: 1 is added to every length."""
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]) + 1)
    return shared / ((a[1] - a[0] + 1) + (b[1] - b[0] + 1) - shared)


def test_legacy_plus_one(monkeypatch):
    """Suppression as with that overlap; by default it is another one."""
    segments, scores, where = _random(3)
    options = {"where": where, "legacy_plus_one": True}
    hard = ops.nms(segments, scores, iou_threshold=0.4, **options)
    soft = ops.soft_nms(segments, scores, sigma=0.5, **options)
    assert np.any(hard != ops.nms(segments, scores, iou_threshold=0.4, where=where))
    monkeypatch.setitem(globals(), "_iou", _legacy_iou)
    np.testing.assert_array_equal(hard, _reference_nms(segments, scores, where, 0.4))
    want = _reference_soft_nms(segments, scores, where, 0.5)
    np.testing.assert_allclose(soft, want, rtol=1e-4, atol=1e-6)
