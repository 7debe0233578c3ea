"""Tests of the inner-outer contrast against means and quadrature in float64 NumPy."""

import math

import hypothesis
import hypothesis.extra.numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tal_jax.ops import _cumsum
from tal_jax.ops import contrast as ops

_inner_outer = jax.jit(ops.inner_outer_contrast)
_contrast_map = jax.jit(ops.contrast_map, static_argnums=1)
_curve_contrast = jax.jit(ops.curve_contrast)
_outer_width = jax.jit(ops.outer_width)


def _scores(seed, length):
    return np.random.default_rng(seed).random(length).astype(np.float32)


def _mean(values):
    return values.mean() if values.size else 0.0


def _reference(scores, start, end, delta):
    """Contrast of snippets `[start, end)` of the valid scores; no cumulative sums."""
    scores = np.asarray(scores, np.float64)
    start, end = (min(max(time, 0), len(scores)) for time in (start, end))
    if end <= start:
        return 0.0
    width = math.ceil(delta * (end - start) - 1e-4)
    outside = [scores[max(start - width, 0) : start], scores[end : end + width]]
    return _mean(scores[start:end]) - _mean(np.concatenate(outside))


def _quadrature(scores, start, end, points=4000):
    """Integral of the curve by the midpoint rule; constant beyond the outermost centres."""
    times = start + (np.arange(points) + 0.5) / points * (end - start)
    centres = np.arange(len(scores)) + 0.5
    return np.interp(times, centres, np.asarray(scores, np.float64)).mean() * (end - start)


def _reference_curve(scores, start, end, delta, min_outer=0.0):
    length = len(scores)
    start, end = (min(max(float(time), 0.0), length) for time in (start, end))
    if end <= start:
        return 0.0
    width = max(delta * (end - start), min_outer)
    left, right = max(start - width, 0), min(end + width, length)
    outer = _quadrature(scores, left, start) + _quadrature(scores, end, right)
    outside = (start - left) + (right - end)
    return _quadrature(scores, start, end) / (end - start) - (outer / outside if outside else 0.0)


def _segments(seed, length, count=200):
    """Random snippet segments: empty, backwards and partly outside ones as well."""
    rng = np.random.default_rng(seed)
    start = rng.integers(-5, length + 3, count)
    return np.stack([start, start + rng.integers(-2, 25, count)], axis=1).astype(np.int32)


# ---- whole snippets


@pytest.mark.parametrize("delta", [0.0, 0.1, 0.25, 0.5, 1.0, 10.0])
def test_against_numpy(delta):
    scores, segments = _scores(0, 40), _segments(1, 33)
    where = np.arange(40) < 33
    got = _inner_outer(np.where(where, scores, np.nan), segments, delta=delta, where=where)
    assert got.dtype == jnp.float32
    want = [_reference(scores[:33], start, end, delta) for start, end in segments]
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.slow
def test_by_hand_without_jit():
    scores = jnp.array([0.0, 0.2, 1.0, 1.0, 0.6, 0.0])
    segments = jnp.array([[2, 4], [0, 6], [0, 1], [1, 5], [5, 6], [2, 2], [4, 2], [9, 12]])
    got = ops.inner_outer_contrast(scores, segments)
    # One snippet each side; no outside; one on the right; one each side; one on the left; empty.
    want = [1 - 0.4, 2.8 / 6, 0 - 0.2, 0.7 - 0, 0 - 0.6, 0, 0, 0]
    np.testing.assert_allclose(got, want, atol=1e-6)
    # A quarter of five snippets is rounded up to two, and of eight it is two exactly.
    got = ops.inner_outer_contrast(jnp.arange(12.0), jnp.array([[3, 8], [2, 10]]))
    np.testing.assert_allclose(got, [5 - (1 + 2 + 8 + 9) / 4, 5.5 - (0 + 1 + 10 + 11) / 4])


@pytest.mark.parametrize("hundredths", range(0, 121, 5))
def test_outer_width_rounds_up_but_keeps_whole_products(hundredths):
    length = np.arange(1, 1700)
    got = _outer_width(length.astype(np.int32), hundredths / 100)
    np.testing.assert_array_equal(got, -(-(hundredths * length) // 100))


# BUG (fails): where the product is rounded before the margin of 1e-4 is taken off (without jit;
# with it both may be one instruction), the margin is less than half a float32 step of products
# above 2,048, and whole ones are rounded up: 0.6 * 5,125 = 3,075 gives 3,076.
def test_outer_width_of_very_long_segments():
    length, delta = jnp.array([4275, 5125, 2400]), jnp.array([0.72, 0.6, 1.07])
    np.testing.assert_array_equal(ops.outer_width(length, delta), [3078, 3075, 2568])


@pytest.mark.parametrize("delta", [0.25, 0.4])
def test_map_against_numpy_for_every_segment(delta):
    scores, num_valid, max_length = _scores(2, 30), 26, 28
    where = np.arange(30) < num_valid
    got = _contrast_map(np.where(where, scores, np.inf), max_length, delta=delta, where=where)
    assert got.shape == (30, max_length) and got.dtype == jnp.float32
    got = np.asarray(got)
    for start in range(30):
        for length in range(1, max_length + 1):
            entry, end = float(got[start, length - 1]), start + length
            if end > num_valid:
                assert entry == -np.inf
            else:
                want = _reference(scores[:num_valid], start, end, delta)
                assert entry == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "constant", "high"])
def test_short_segments_at_the_end_of_a_long_recording(kind):
    length = 10_000
    scores = {
        "uniform": _scores(4, length),
        "constant": np.full(length, 0.7, np.float32),
        "high": 1 - 1e-4 * _scores(5, length),
    }[kind]
    start = np.concatenate([np.arange(length - 60, length), np.arange(5000, 5020)])
    segments = np.stack([start, np.minimum(start + start % 7 + 1, length)], axis=1)
    want = [_reference(scores, start, end, 0.25) for start, end in segments]
    np.testing.assert_allclose(_inner_outer(scores, segments), want, rtol=0, atol=1e-5)
    got = np.asarray(_contrast_map(scores, 3))
    want = [_reference(scores, s - 4, s - 1, 0.25) for s in start]
    np.testing.assert_allclose(got[start - 4, 2], want, rtol=0, atol=1e-5)


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, 30, elements=st.floats(0, 1, width=32)),
    st.sampled_from([0.0, 0.25, 0.7, 3.0]),
)
def test_stays_within_one_and_turns_with_the_scores(scores, delta):
    everything = np.ones(30, bool)
    values = np.asarray(_contrast_map(scores, 28, delta=delta, where=everything))
    inverse = np.asarray(_contrast_map(1 - scores, 28, delta=delta, where=everything))
    valid = np.isfinite(values)
    assert np.all(np.abs(values[valid]) <= 1 + 1e-6)
    both = values[valid] + inverse[valid]
    # The sign turns, unless there is nothing outside: then both are means that sum to 1.
    assert np.all(np.isclose(both, 0, atol=1e-5) | np.isclose(both, 1, atol=1e-5))
    if delta >= 0.25:
        np.testing.assert_allclose(values[1:-2, 0] + inverse[1:-2, 0], 0, atol=1e-5)


def test_inverted_is_the_contrast_of_one_minus_the_scores():
    scores, segments = _scores(6, 20), _segments(7, 20)
    segments = np.clip(segments, 0, 20)
    segments.sort(axis=1)
    inverted = np.arange(len(segments)) % 2 == 0
    got = jax.jit(
        lambda scores, start, end: ops.contrast_between(
            _cumsum.prefix_sum(scores),
            start,
            end,
            delta=0.25,
            length=jnp.asarray(20),
            inverted=inverted,
        )
    )(scores, segments[:, 0], segments[:, 1])
    nonempty = segments[:, 1] > segments[:, 0]
    want = [
        _reference(1 - scores.astype(np.float64) if turn else scores, start, end, 0.25)
        for turn, (start, end) in zip(inverted, segments, strict=True)
    ]
    np.testing.assert_allclose(np.asarray(got)[nonempty], np.array(want)[nonempty], atol=1e-6)


def test_gradient_is_the_weight_of_each_mean():
    where = np.arange(12) < 10
    spoiled = np.where(where, _scores(8, 12), np.nan)
    segments = np.array([[7, 10], [4, 4], [0, 10]])
    got = jax.jit(jax.jacobian(lambda s: _inner_outer(s, segments, where=where)))(spoiled)
    want = np.zeros((3, 12))
    want[0, 7:10], want[0, 6] = 1 / 3, -1
    want[2, :10] = 0.1
    np.testing.assert_allclose(got, want, rtol=1e-6)


# ---- curves


@pytest.mark.parametrize(
    ("delta", "min_outer"),
    [(0.0, 0.0), (0.25, 0.0), (1.0, 0.0), (50.0, 0.0), (0.0, 0.3), (0.25, 2.5), (0.25, 100.0)],
)
def test_curve_against_quadrature(delta, min_outer):
    rng = np.random.default_rng(9)
    scores, num_valid = _scores(10, 24), 17
    segments = np.sort(rng.uniform(-2, 20, (60, 2)), axis=1).astype(np.float32)
    # Inside half a snippet, the ends of the recording, empty, and one backwards.
    extra = [[0, 0.4], [16.6, 17], [0, 17], [0.5, 16.5], [3, 3], [5, 4], [-3, -1], [18, 20], [3, 9]]
    segments = np.concatenate([segments, np.array(extra, np.float32)])
    where = np.arange(24) < num_valid
    spoiled, options = np.where(where, scores, np.nan), dict(delta=delta, min_outer=min_outer)
    got = _curve_contrast(spoiled, segments, **options, where=where)
    assert got.dtype == jnp.float32
    valid = scores[:num_valid]
    want = [_reference_curve(valid, start, end, **options) for start, end in segments]
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_curve_by_hand():
    scores = np.array([0.0, 1.0, 1.0, 0.0], np.float32)
    segments = np.array([[1.5, 2.5], [1.0, 3.0], [0.0, 4.0], [0.0, 0.5]], np.float32)
    got = _curve_contrast(scores, segments, delta=0.5)
    # On the plateau, beside it half a snippet down the slopes: 1 − ½; then 7/8 − 1/8 (the foot of
    # the slope and the constant end); everything; the constant end, beside the first of the slope.
    want = [1 - 0.75, 0.875 - 0.125, 2 / 4, 0 - 0.125]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_curve_of_a_segment_that_ends_before_it_starts():
    """As empty as one that ends where it starts."""
    scores = jnp.array([0.1, 0.9, 0.2, 0.7, 0.3])
    got = ops.curve_contrast(scores, jnp.array([[3.0, 1.0], [3.0, 3.0]]), min_outer=1.0)
    assert got.tolist() == [0.0, 0.0]


def test_curve_of_one_snippet_is_constant():
    got = _curve_contrast(np.full(1, 0.6, np.float32), np.array([[0.0, 1.0], [0.25, 0.75]]))
    np.testing.assert_allclose(got, [0.6, 0.0], atol=1e-6)


def test_curve_at_the_end_of_a_long_recording():
    scores = _scores(11, 5000)
    start = np.arange(4960, 4996) + 0.25
    segments = np.stack([start, start + 3.5], axis=1).astype(np.float32)
    want = [_reference_curve(scores, start, end, 0.25) for start, end in segments]
    # A time has a resolution of 2⁻¹¹ snippets here; the segments' own ends are exact.
    np.testing.assert_allclose(_curve_contrast(scores, segments), want, atol=3e-4)


def test_curve_gradient_is_finite_and_matches_differences():
    scores = _scores(12, 10)
    segments = np.array([[2.25, 6.5], [0.0, 10.0], [4.0, 4.0], [-1.0, 0.2]], np.float32)
    to_scores, to_segments = map(
        np.asarray, jax.jit(jax.jacobian(_curve_contrast, (0, 1)))(scores, segments)
    )
    assert np.all(np.isfinite(to_scores)) and np.all(np.isfinite(to_segments))
    step = 1e-4
    for i in range(10):
        high, low = scores.astype(np.float64), scores.astype(np.float64)
        high[i] += step
        low[i] -= step
        for row, (start, end) in enumerate(segments):
            want = _reference_curve(high, start, end, 0.25) - _reference_curve(
                low, start, end, 0.25
            )
            assert to_scores[row, i] == pytest.approx(want / (2 * step), abs=1e-4)
    for column in range(2):
        high, low = segments[0].astype(np.float64), segments[0].astype(np.float64)
        high[column] += 1e-3
        low[column] -= 1e-3
        want = _reference_curve(scores, *high, 0.25) - _reference_curve(scores, *low, 0.25)
        assert to_segments[0, 0, column] == pytest.approx(want / 2e-3, abs=1e-3)


# ---- both forms

OPS = {"inner_outer": _inner_outer, "curve": _curve_contrast}


@pytest.mark.parametrize("name", OPS)
def test_all_masked_gives_zero_and_no_gradient(name):
    segments = np.array([[0, 6], [2, 3], [5, 9]], np.float32)
    scores = np.full(6, np.nan, np.float32)

    def total(scores, segments):
        return jnp.sum(OPS[name](scores, segments, where=jnp.zeros(6, bool)))

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(scores, segments)
    assert value == 0
    assert not any(np.any(gradient) for gradient in gradients)


def test_map_of_nothing_valid():
    got = _contrast_map(np.full(30, np.nan, np.float32), 28, where=np.zeros(30, bool))
    assert np.all(np.isneginf(got))


@pytest.mark.parametrize("name", OPS)
def test_padding_vmap_and_a_traced_delta_change_nothing(name):
    op = OPS[name]
    scores = np.stack([_scores(seed, 20) for seed in range(3)])
    segments = np.sort(np.random.default_rng(13).uniform(0, 20, (3, 8, 2)), axis=2)
    segments = segments.astype(np.float32)
    delta = np.array([0.0, 0.25, 2.0], np.float32)
    rows = zip(scores, segments, delta, strict=True)
    one_by_one = [op(x, s, delta=float(d)) for x, s, d in rows]
    padded = np.pad(scores, ((0, 0), (0, 13)), constant_values=9)
    where = jnp.arange(33) < 20
    batched = jax.jit(jax.vmap(lambda x, s, d: op(x, s, delta=d, where=where)))
    got = batched(padded, segments, delta)
    np.testing.assert_allclose(got, one_by_one, rtol=1e-5, atol=1e-6)
