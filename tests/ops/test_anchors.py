"""Tests of anchors, their targets and distance-IoU against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.ops import anchors as ops

_assign = jax.jit(ops.assign_anchors)
_diou = jax.jit(ops.segment_diou)


def _list_anchors(length, num_levels):
    """`(time, stride, nearest, farthest)` of every anchor."""
    found = []
    for level in range(num_levels):
        stride = 2**level
        for number in range(length // stride):
            found.append(
                (
                    (number + 0.5) * stride,
                    stride,
                    2 * stride if level else 0,
                    4 * stride if level < num_levels - 1 else np.inf,
                )
            )
    return found


@pytest.mark.parametrize("length, num_levels", [(1, 1), (7, 1), (12, 3), (64, 5)])
def test_anchors_against_a_loop(length, num_levels):
    anchors = ops.pyramid_anchors(length, num_levels=num_levels)
    got = [anchors.times, anchors.strides, anchors.nearest, anchors.farthest]
    assert all(array.dtype == jnp.float32 for array in got)
    np.testing.assert_array_equal(np.transpose(got), _list_anchors(length, num_levels))


def test_flags_of_strides_against_a_loop():
    flags = np.random.default_rng(0).random((2, 24)) < 0.8
    got = ops.all_of_strides(flags, num_levels=4)
    for row in range(2):
        want = [
            flags[row, int(time - stride / 2) : int(time + stride / 2)].all()
            for time, stride, *_ in _list_anchors(24, 4)
        ]
        assert got[row].tolist() == want
    with pytest.raises(ValueError, match="T must be a multiple of 16, got 24"):
        ops.all_of_strides(flags, num_levels=5)


def test_a_length_that_is_no_multiple_is_refused():
    with pytest.raises(ValueError, match="length must be a multiple of 4, got 6"):
        ops.pyramid_anchors(6, num_levels=3)


def _reference(length, num_levels, segments, where):
    """Every anchor and every segment in turn."""
    index, positive = [], []
    for time, stride, nearest, farthest in _list_anchors(length, num_levels):
        learnt = []
        for number, (start, end) in enumerate(np.asarray(segments, np.float64)):
            middle = (start + end) / 2
            far = max(time - start, end - time)
            sampled = start < time < end and abs(time - middle) < 1.5 * stride
            sampled = sampled and nearest <= far < farthest
            holds = time - stride / 2 <= middle < time + stride / 2
            holds = holds and nearest <= (end - start) / 2 < farthest
            if where[number] and (sampled or holds):
                learnt.append((end - start, number))
        positive.append(bool(learnt))
        index.append(min(learnt)[1] if learnt else 0)
    return index, positive


def _segments(rng, size, length):
    """Of all lengths, on whole and half snippets: ties, and ends on the borders of levels."""
    lengths = 2.0 ** rng.uniform(-2, np.log2(length), size)
    start = rng.uniform(0, np.maximum(length - lengths, 0.1))
    return (np.round(2 * np.stack([start, start + lengths], axis=1)) / 2).astype(np.float32)


@pytest.mark.parametrize("num_levels", [1, 3, 5])
def test_targets_against_loops(num_levels):
    rng, length = np.random.default_rng(num_levels), 64
    anchors = ops.pyramid_anchors(length, num_levels=num_levels)
    for _ in range(5):
        segments, where = _segments(rng, 9, length), rng.random(9) < 0.8
        got = _assign(anchors, segments, where=where)
        index, positive = _reference(length, num_levels, segments, where)
        np.testing.assert_array_equal(got.positive, positive)
        np.testing.assert_array_equal(got.index, index)
        assert got.index.dtype == jnp.int32
        assert set(np.asarray(got.index)[np.asarray(got.positive)]) <= set(np.flatnonzero(where))


@pytest.mark.parametrize("num_levels", [1, 2, 4, 6])
def test_every_segment_is_learnt(num_levels):
    """By itself, wherever it lies and however short or long it is."""
    rng, length = np.random.default_rng(0), 96
    anchors = ops.pyramid_anchors(length, num_levels=num_levels)
    for _ in range(50):
        size = 2.0 ** rng.uniform(-6, np.log2(length))
        start = rng.uniform(0, length - size)
        segment = np.array([[start, start + size]], np.float32)
        assert _assign(anchors, segment).positive.any()


def test_disjoint_short_segments_are_all_learnt():
    """Shorter than a snippet, beside actions of all lengths."""
    anchors = ops.pyramid_anchors(64, num_levels=4)
    segments = np.array([[3.1, 3.3], [4.0, 4.0], [10, 14], [20, 60], [15.2, 15.9]], np.float32)
    got = _assign(anchors, segments)
    assert set(np.asarray(got.index)[np.asarray(got.positive)]) == set(range(5))


def test_segments_outside_of_the_window_are_not_learnt():
    """Times are counted from the window's start; of those cut by it, anchors outside learn none."""
    anchors = ops.pyramid_anchors(64, num_levels=4)
    outside = np.array([[-20, -10], [-0.9, -0.1], [64.5, 90], [64, 64.4], [500, 900]], np.float32)
    assert not np.any(_assign(anchors, outside).positive)
    cut = np.array([[-50.0, 3.0]], np.float32)
    assert not np.any(np.asarray(_assign(anchors, cut).positive) & (np.asarray(anchors.times) >= 3))


def test_masked_segments_teach_nothing():
    anchors = ops.pyramid_anchors(16, num_levels=2)
    segments = np.array([[2, 5], [np.nan, np.inf], [8, 15]], np.float32)
    where = np.array([True, False, True])
    got, want = _assign(anchors, segments, where=where), _assign(anchors, segments[[0, 2]])
    np.testing.assert_array_equal(got.positive, want.positive)
    np.testing.assert_array_equal(got.index, 2 * np.asarray(want.index))
    nothing = _assign(anchors, segments, where=np.zeros(3, bool))
    assert not np.any(nothing.positive) and not np.any(nothing.index)
    none = _assign(anchors, np.zeros((1, 2), np.float32), where=np.zeros(1, bool))
    assert not np.any(none.positive)
    empty = _assign(anchors, np.zeros((0, 2), np.float32))
    assert empty.positive.shape == got.positive.shape and not np.any(empty.positive)
    assert empty.index.dtype == got.index.dtype and not np.any(empty.index)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_decoded_segments(dtype):
    anchors = ops.pyramid_anchors(8, num_levels=2)
    offsets = jnp.asarray(np.random.default_rng(0).integers(1, 9, (2, 12, 2)) / 4, dtype)
    got = ops.decode_segments(anchors, offsets)
    assert got.dtype == jnp.float32 and got.shape == (2, 12, 2)
    for row in range(2):
        for at, (time, stride, _, _) in enumerate(_list_anchors(8, 2)):
            before, after = (float(one) for one in offsets[row, at])
            np.testing.assert_array_equal(
                got[row, at], [time - before * stride, time + after * stride]
            )
    np.testing.assert_array_equal(ops.decode_segments(anchors, offsets[1]), got[1])
    with pytest.raises(Exception, match="offsets|shape"):
        ops.decode_segments(anchors, offsets[:, :5])


# ---- distance-IoU


def _reference_diou(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    hull = max(a[1], b[1]) - min(a[0], b[0])
    iou = shared / union if union > 0 else 0.0
    return iou - (((a.sum() - b.sum()) / 2 / hull) ** 2 if hull > 0 else 0.0)


def test_diou_against_its_formula():
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.integers(0, 20, (2, 60, 2)), axis=-1).astype(np.float32)
    b[:5] = a[:5]
    b[5] = a[5] = 3.0
    got = _diou(a, b)
    assert got.dtype == jnp.float32
    want = [_reference_diou(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(got) <= 1)
    np.testing.assert_allclose(_diou(a * 1e-4, b * 1e-4), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(_diou(a[0], b), [_reference_diou(a[0], y) for y in b], atol=1e-6)


def test_gradient_of_diou_against_differences():
    a = np.array([[2.0, 5.0], [0.0, 2.0], [1.0, 9.0], [7.0, 8.0]], np.float32)
    b = np.array([[3.0, 7.5], [4.0, 9.0], [2.0, 4.0], [1.0, 2.5]], np.float32)
    got = jax.grad(lambda x: _diou(x, b).sum())(jnp.asarray(a))
    for row in range(len(a)):
        for end in range(2):
            step = np.zeros(2)
            step[end] = 1e-5
            before, after = (_reference_diou(a[row] + sign * step, b[row]) for sign in (-1, 1))
            np.testing.assert_allclose(got[row, end], (after - before) / 2e-5, atol=1e-4)
    # Segments apart: as a whole, one still moves towards the other.
    assert got[1].sum() > 0 and got[3].sum() < 0


def test_gradient_of_empty_segments_is_finite():
    empty = jnp.zeros((2, 2))
    assert np.all(np.isfinite(jax.grad(lambda x: ops.segment_diou(x, empty).sum())(empty)))
