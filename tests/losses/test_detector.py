"""The detector's loss on a batch of two windows, against float64 loops over anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.losses import detector
from tal_jax.ops import anchors as anchor_ops

LENGTH, LEVELS, CLASSES = 32, 3, 3
VALID = (32, 21)
ANCHORS = anchor_ops.pyramid_anchors(LENGTH, num_levels=LEVELS)
SIZE = len(ANCHORS.times)
# Classes that overlap, a segment cut by the window's end, one at the recording's; a masked one.
SEGMENTS = np.array(
    [
        [[2, 12], [5, 8], [25, 40], [20.2, 20.6]],
        [[1, 6], [14, 21.5], [3, 9], [0, 0]],
    ],
    np.float32,
)
LABELS = np.array([[0, 2, 1, 0], [2, 0, 1, 0]], np.int32)
EXISTS = np.array([[True] * 4, [True, True, True, False]])


def _outputs():
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 2, (2, SIZE, CLASSES)).astype(np.float32)
    offsets = np.exp(rng.normal(0, 1, (2, SIZE, 2))).astype(np.float32)
    ends = np.asarray(ANCHORS.times - ANCHORS.strides / 2)
    return logits, offsets, ends[None] < np.array(VALID)[:, None]


@jax.jit
def _losses(logits, offsets, where, segments=SEGMENTS, exists=EXISTS, background=None):
    return detector.detector_losses(
        logits,
        offsets,
        ANCHORS,
        jnp.asarray(segments),
        jnp.asarray(LABELS),
        segment_where=jnp.asarray(exists),
        where=where,
        background=jnp.ones((2, SIZE), bool) if background is None else background,
        length=jnp.array(VALID, jnp.int32),
    )


def _learnt(row, at):
    """The number of the segment that an anchor learns, or None; by the rules one by one."""
    time, stride = float(ANCHORS.times[at]), float(ANCHORS.strides[at])
    least, most = (2 * stride if stride > 1 else 0), (4 * stride if stride < 4 else np.inf)
    found = []
    for number in range(4):
        start, end = (float(x) for x in SEGMENTS[row, number])
        middle, half = (start + end) / 2, (end - start) / 2
        sampled = start < time < end and abs(time - middle) < 1.5 * stride
        sampled = sampled and least <= max(time - start, end - time) < most
        holds = abs(time - middle) <= stride / 2 and least <= half < most
        if EXISTS[row, number] and (sampled or holds):
            found.append((end - start, number))
    return min(found)[1] if found else None


def _diou(a, b):
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    hull = max(a[1], b[1]) - min(a[0], b[0])
    middles = (sum(a) - sum(b)) / 2
    return shared / (a[1] - a[0] + b[1] - b[0] - shared) - (middles / hull) ** 2


@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
def test_losses_against_loops(share):
    """Where it is unknown whether an anchor is background, it counts if it learns a segment."""
    logits, offsets, where = _outputs()
    background = np.random.default_rng(1).random((2, SIZE)) < share
    focal = ends = positives = cut = 0
    for row in range(2):
        for at in range(SIZE):
            if not where[row, at]:
                continue
            learnt = _learnt(row, at)
            if learnt is None and not background[row, at]:
                continue
            for label in range(CLASSES):
                score = 1 / (1 + np.exp(-float(logits[row, at, label])))
                if learnt is not None and label == LABELS[row, learnt]:
                    focal -= 0.25 * (1 - score) ** 2 * np.log(score)
                else:
                    focal -= 0.75 * score**2 * np.log(1 - score)
            if learnt is None:
                continue
            positives += 1
            start, end = (float(x) for x in SEGMENTS[row, learnt])
            if start <= -1 or end >= VALID[row] + 1:
                cut += 1
                continue
            time, stride = float(ANCHORS.times[at]), float(ANCHORS.strides[at])
            before, after = (float(x) for x in offsets[row, at])
            found = time - stride * before, time + stride * after
            ends += 1 - _diou(found, (start, end))
    assert cut and positives > 15
    got = _losses(logits, offsets, where, background=background)
    np.testing.assert_allclose(got["classification"], focal / positives, rtol=1e-5)
    np.testing.assert_allclose(got["ends"], ends / positives, rtol=1e-5)


@pytest.mark.parametrize("spoiled", [7.0, np.nan, np.inf])
def test_what_is_masked_has_no_part(spoiled):
    """Neither in the losses nor in their gradients."""
    logits, offsets, where = _outputs()

    @jax.jit
    def total(logits, offsets, segments):
        return sum(_losses(logits, offsets, where, segments).values())

    gradients = jax.value_and_grad(total, argnums=(0, 1))
    want, (of_logits, of_offsets) = gradients(logits, offsets, SEGMENTS)
    assert not np.any(np.asarray(of_logits)[~where]) and np.any(of_offsets)
    spoil = np.where(where[..., None], 0, spoiled).astype(np.float32)
    segments = np.where(EXISTS[..., None], SEGMENTS, spoiled).astype(np.float32)
    got, again = gradients(logits + spoil, offsets + spoil, segments)
    assert got == want
    for one, other in zip(again, (of_logits, of_offsets), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_to_learn():
    """Without any segment all is background; without any anchor the loss is 0."""
    logits, offsets, where = _outputs()
    got = _losses(logits, offsets, where, exists=np.zeros_like(EXISTS))
    scores = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    want = (-0.75 * scores**2 * np.log(1 - scores))[where].sum()
    np.testing.assert_allclose(got["classification"], want, rtol=1e-5)
    assert got["ends"] == 0
    nothing = _losses(logits, offsets, np.zeros_like(where))
    assert nothing["classification"] == nothing["ends"] == 0
