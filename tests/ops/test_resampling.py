"""Tests of action compensation sampling against formulas written out in float64 NumPy."""

import hypothesis
import hypothesis.extra.numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tal_jax.ops import resampling as ops

_cumulative_weights = jax.jit(ops.cumulative_weights)
_warp = jax.jit(ops.warp)
_unwarp = jax.jit(ops.unwarp)
_interpolate = jax.jit(ops.interpolate)
_interpolate_among = jax.jit(ops.interpolate_among)
_resample_points = jax.jit(ops.resample_points)
_new_times = jax.jit(ops.new_times)
_old_times = jax.jit(ops.old_times)
_resample = jax.jit(ops.resample, static_argnums=2)
_compensation_weights = jax.jit(ops.compensation_weights, static_argnums=1)


def _reference_weights(segments, length, tau, where):
    """W_i = max_j 1 + (tau / len_j - 1) * |[i, i + 1) n segment_j|, over short proposals."""
    weights = np.ones(length)
    for start, end in np.asarray(segments, np.float64)[where]:
        if end < start:
            continue
        if end - start < 1:
            start, end = (start + end - 1) / 2, (start + end + 1) / 2
        if end - start < tau:
            for i in range(length):
                covered = max(0.0, min(end, i + 1) - max(start, i))
                weights[i] = max(weights[i], 1 + (tau / (end - start) - 1) * covered)
    return weights


def _reference_unwarp(values, weights):
    cumulative = np.concatenate([[0.0], np.cumsum(np.asarray(weights, np.float64))])
    return np.interp(values, cumulative, np.arange(len(cumulative)))


def _random_features(seed, length, dim=3):
    return np.random.default_rng(seed).standard_normal((length, dim)).astype(np.float32)


# ---- weights


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0, 12.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_weights_against_the_formula(seed, tau):
    rng = np.random.default_rng(seed)
    start = rng.uniform(-4, 34, 25)
    segments = np.stack([start, start + rng.exponential(4, 25) - 0.2], axis=1).astype(np.float32)
    segments[:8] = np.round(segments[:8])
    where = rng.random(25) < 0.7
    spoiled = np.where(where[:, None], segments, np.nan)
    got = _compensation_weights(spoiled, 31, tau=tau, where=where)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, _reference_weights(segments, 31, tau, where), rtol=2e-5)


def test_weights_of_one_long_proposal_among_many_snippets():
    # Every length of whole snippets, at both ends of the recording and in the middle.
    for start, end in [(0, 1), (0, 37), (36, 37), (5, 6), (5, 12), (5, 13), (5, 14), (0, 32)]:
        got = _compensation_weights(np.array([[start, end]], np.float32), 37, tau=64.0)
        want = np.where((np.arange(37) >= start) & (np.arange(37) < end), 64 / (end - start), 1)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_weights_by_hand():
    segments = jnp.array([[2.0, 4.0], [3.5, 5.5], [7.2, 7.4], [8.0, 20.0]])
    got = ops.compensation_weights(segments, 10, tau=4.0)
    # The third is widened to [6.8, 7.8) and weighs 3 * 0.2 and 3 * 0.8 above 1; the last is long.
    np.testing.assert_allclose(got, [1, 1, 2, 2, 2, 1.5, 1.6, 3.4, 1, 1], rtol=1e-5)


def test_a_proposal_of_no_length_weighs_at_most_tau():
    got = _compensation_weights(jnp.array([[3.5, 3.5], [6.0, 6.0]]), 8, tau=5.0)
    np.testing.assert_allclose(got, [1, 1, 1, 5, 1, 3, 3, 1])


def test_weights_of_no_snippets():
    assert ops.compensation_weights(np.array([[0.0, 1.0]]), 0, tau=3.0).shape == (0,)


def test_weights_without_proposals_are_one():
    for segments in (np.zeros((0, 2)), np.array([[5.0, 3.0]]), np.array([[-9.0, -8.0], [99, 100]])):
        np.testing.assert_array_equal(_compensation_weights(segments, 6, tau=4.0), np.ones(6))
    got = ops.compensation_weights(np.ones((2, 2)), 6, tau=4.0, where=np.zeros(2, bool))
    np.testing.assert_array_equal(got, np.ones(6))


def test_weights_gradient():
    def total(segments, tau, where):
        return jnp.sum(_compensation_weights(segments, 8, tau=tau, where=where))

    segments = jnp.array([[1.0, 3.0], [1.5, 2.5], [6.0, 6.0]])
    to_segments, to_tau = jax.grad(total, (0, 1))(segments, 4.0, np.array([True, False, True]))
    assert np.all(np.isfinite(to_segments)) and not np.any(to_segments[1])
    np.testing.assert_allclose(to_tau, 2.0)  # each proposal grows to tau snippets
    gradients = jax.grad(total, (0, 1))(segments * jnp.nan, 4.0, np.zeros(3, bool))
    assert not any(np.any(g) for g in gradients)


def test_weights_vmap_equals_a_loop():
    segments = np.random.default_rng(4).uniform(0, 20, (3, 5, 2)).astype(np.float32)
    segments.sort(axis=2)
    tau = np.array([2.0, 5.0, 9.0], np.float32)
    op = lambda s, t: _compensation_weights(s, 20, tau=t)  # noqa: E731
    one_by_one = [op(s, t) for s, t in zip(segments, tau, strict=True)]
    np.testing.assert_allclose(jax.vmap(op)(segments, tau), one_by_one, rtol=1e-6)


# ---- times


@pytest.mark.parametrize("length", [1, 10_000])
def test_cumulative_weights_are_rounded_sums(length):
    rng = np.random.default_rng(length)
    weights = (12 * rng.random(length) ** 8).astype(np.float32)  # many smaller than a rounding
    weights[rng.random(length) < 0.3] = 0
    where = np.arange(length) < length - length // 10
    got = np.asarray(_cumulative_weights(np.where(where, weights, np.nan), where=where))
    assert got.dtype == np.float32
    want = np.concatenate([[0.0], np.cumsum(np.where(where, weights, 0), dtype=np.float64)])
    np.testing.assert_allclose(got, want, rtol=2e-7)
    assert np.all(np.diff(got) >= 0)
    np.testing.assert_array_equal(np.diff(got)[~where | (weights == 0)], 0)


def test_cumulative_weights_gradient_counts_every_valid_snippet():
    weights = jnp.array([0.0, 0.3, 0.0, 0.7, 2.0])
    where = jnp.arange(5) < 4
    jacobian = jax.jacobian(lambda w: _cumulative_weights(w, where=where))(weights)
    np.testing.assert_array_equal(jacobian, np.tri(6, 5, -1) * np.asarray(where))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, 64, elements=st.floats(0.125, 12, width=32)),
    hypothesis.extra.numpy.arrays(np.float32, 32, elements=st.floats(0, 64, width=32)),
    st.integers(1, 64),
)
def test_times_come_back(weights, times, num_valid):
    cumulative = _cumulative_weights(weights, where=np.arange(64) < num_valid)
    values = np.asarray(_warp(times, cumulative))
    back = np.asarray(_unwarp(values, cumulative))
    inside = np.minimum(times, num_valid)  # times clamp to the valid snippets
    np.testing.assert_array_less(np.abs(back - inside), 2e-5 * (1 + inside))
    order = np.argsort(times)
    assert np.all(np.diff(values[order]) >= 0) and np.all(np.diff(back[order]) >= 0)
    assert back.min() >= 0 and back.max() <= num_valid


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, 64, elements=st.sampled_from([0.0, 1.0, 2.5])),
    hypothesis.extra.numpy.arrays(np.float32, 32, elements=st.floats(-5, 170, width=32)),
)
def test_values_come_back_and_flat_parts_give_the_leftmost_time(weights, values):
    cumulative = _cumulative_weights(weights)
    times = np.asarray(_unwarp(values, cumulative))
    clipped = np.clip(values, 0, cumulative[-1])
    np.testing.assert_allclose(_warp(times, cumulative), clipped, rtol=1e-6, atol=1e-5)
    flat = np.asarray(_unwarp(cumulative, cumulative))
    leftmost = np.searchsorted(np.asarray(cumulative), np.asarray(cumulative), side="left")
    np.testing.assert_array_equal(flat, leftmost)


def test_times_come_back_on_long_recordings():
    length, rng = 10_000, np.random.default_rng(0)
    weights = np.where(rng.random(length) < 0.8, 1, rng.uniform(1, 12, length)).astype(np.float32)
    times = np.concatenate([rng.uniform(0, length, 2000), [0, 1e-6, length - 0.25, length]])
    times = times.astype(np.float32)
    cumulative = _cumulative_weights(weights)
    back = _unwarp(_warp(times, cumulative), cumulative)
    np.testing.assert_array_less(np.abs(back - times), 2e-5 * (1 + times))
    values = rng.uniform(0, weights.sum(), 2000).astype(np.float32)
    want = _reference_unwarp(values, weights)
    np.testing.assert_array_less(np.abs(_unwarp(values, cumulative) - want), 2e-5 * (1 + want))


def test_times_of_any_shape_and_weights_of_one_are_exact():
    cumulative = _cumulative_weights(np.ones(3000, np.float32))
    times = np.random.default_rng(0).uniform(0, 3000, (20, 5)).astype(np.float32)
    np.testing.assert_array_equal(_warp(times, cumulative), times)
    np.testing.assert_array_equal(_unwarp(times, cumulative), times)
    assert _warp(1.5, cumulative) == 1.5


@pytest.mark.slow
def test_times_of_a_recording_with_nothing_valid():
    cumulative = ops.cumulative_weights(jnp.ones(4), where=jnp.zeros(4, bool))
    for op in (_warp, _unwarp):
        assert op(jnp.array([0.0, 3.0]), cumulative).tolist() == [0.0, 0.0]
        gradients = jax.grad(lambda t, c, op=op: jnp.sum(op(t, c)), (0, 1))(
            jnp.array([-1.0, 0.0, 0.5, 9.0]), cumulative
        )
        assert all(np.all(np.isfinite(g)) for g in gradients)


# ---- interpolation


def test_interpolation_against_numpy():
    features = _random_features(0, 20)
    positions = np.random.default_rng(1).uniform(-3, 22, 50).astype(np.float32)
    where = np.arange(20) < 15
    spoiled = np.where(where[:, None], features, np.nan)
    got = _interpolate(spoiled, positions, where=where)
    want = [np.interp(positions, np.arange(15), column[:15]) for column in features.T]
    np.testing.assert_allclose(got, np.stack(want, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(_interpolate(features, np.arange(20.0)), features)
    assert not np.any(_interpolate(features * np.nan, positions, where=np.zeros(20, bool)))


def test_interpolation_keeps_the_type():
    features = jnp.asarray(_random_features(2, 5), jnp.bfloat16)
    assert _interpolate(features, np.array([0.5])).dtype == jnp.bfloat16
    assert _interpolate(np.arange(5)[:, None], np.array([0.5])).tolist() == [[0.5]]


def test_interpolation_among_other_recordings():
    """Several recordings one after another: each is read as if it were alone."""
    features = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    where = np.arange(16) < 9
    positions = np.linspace(-2, 20, 40).astype(np.float32)
    for first in (0, 7, 21):
        alone = _interpolate(features[first : first + 9], positions)
        among = _interpolate_among(features, first, positions, where=where)
        np.testing.assert_array_equal(among, alone)
    nothing = _interpolate_among(features * np.nan, 3, positions, where=where & False)
    assert not np.any(nothing)


def test_interpolation_gradient():
    features = _random_features(3, 6, 1)
    positions = jnp.array([-1.0, 0.25, 3.5, 9.0])

    def total(features, positions, where):
        return jnp.sum(_interpolate(features, positions, where=where))

    gradients = jax.grad(total, (0, 1))(features, positions, np.arange(6) < 4)
    np.testing.assert_allclose(gradients[0][:, 0], [1.75, 0.25, 0, 2, 0, 0])
    slope = features[1, 0] - features[0, 0]
    np.testing.assert_allclose(gradients[1], [0, slope, 0, 0], rtol=1e-6)
    gradients = jax.grad(total, (0, 1))(features * np.nan, positions, np.zeros(6, bool))
    assert not any(np.any(g) for g in gradients)


# ---- the whole operation


@pytest.mark.parametrize("length", [1, 3001])
def test_weights_of_one_are_the_identity_exactly(length):
    features = _random_features(length, length)
    got = _resample(features, np.ones(length, np.float32), length)
    np.testing.assert_array_equal(got.features, features)
    np.testing.assert_array_equal(got.positions, np.arange(length))
    assert np.all(got.where)
    # So it is in a larger bucket, and on a padded recording.
    padded = np.pad(features, ((0, 5), (0, 0)), constant_values=np.nan)
    where = np.arange(length + 5) < length
    got = _resample(
        padded, np.full(length + 5, 1, np.float32), length + 9, count=length, where=where
    )
    np.testing.assert_array_equal(got.features[:length], features)
    assert not np.any(got.features[length:]) and not np.any(got.positions[length:])
    np.testing.assert_array_equal(got.where, np.arange(length + 9) < length)


@pytest.mark.parametrize("count", [1, 13, 40, 64])
def test_samples_lie_at_the_centres_of_cells_of_equal_weight(count):
    rng = np.random.default_rng(count)
    features, weights = _random_features(1, 40), rng.uniform(0.2, 9, 40).astype(np.float32)
    where = np.arange(40) < 35
    got = _resample(features, weights, 64, count=count, where=where)
    quantiles = (np.arange(count) + 0.5) / count
    valid = weights[:35].astype(np.float64)
    positions = _reference_unwarp(quantiles * valid.sum(), valid) - 0.5
    np.testing.assert_allclose(got.positions[:count], positions, rtol=2e-5, atol=2e-5)
    want = [np.interp(positions, np.arange(35), column[:35]) for column in features.T]
    np.testing.assert_allclose(got.features[:count], np.stack(want, axis=1), atol=1e-3)
    assert np.sum(got.where) == count and not np.any(got.features[count:])


def test_whole_weights_repeat_snippets():
    weights = jnp.array([1.0, 3.0, 1.0, 2.0])
    got = ops.resample(jnp.arange(4.0)[:, None], weights, 10, count=7)
    times = np.asarray(got.positions[:7]) + 0.5
    np.testing.assert_array_equal(np.floor(times), [0, 1, 1, 1, 2, 3, 3])
    np.testing.assert_allclose(times, [0.5, 7 / 6, 1.5, 11 / 6, 2.5, 3.25, 3.75], rtol=1e-6)


def test_jitter_stays_inside_its_cell():
    weights = np.random.default_rng(6).uniform(0.5, 5, 30).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 200)
    op = jax.jit(jax.vmap(lambda k: ops.resample(weights[:, None], weights, 24, count=20, key=k)))
    got = op(keys)
    samples = _warp(got.positions + 0.5, got.cumulative[0]) * 20 / weights.sum(dtype=np.float64)
    inside = np.asarray(samples)[:, :20] - np.arange(20)
    assert inside.min() > -1e-4 and inside.max() < 1 + 1e-4
    np.testing.assert_allclose(inside.mean(axis=0), 0.5, atol=0.1)  # uniform: 0.29 / sqrt(200)
    np.testing.assert_allclose(inside.std(axis=0), 12**-0.5, atol=0.06)
    assert not np.any(got.where[:, 20:])


def test_padding_and_vmap_change_nothing():
    rng = np.random.default_rng(7)
    features = rng.standard_normal((2, 30, 3)).astype(np.float32)
    weights, count = rng.uniform(1, 5, (2, 30)).astype(np.float32), np.array([40, 11], np.int32)
    one_by_one = [_resample(features[b], weights[b], 48, count=count[b]) for b in range(len(count))]
    one_by_one = jax.tree.map(lambda *x: np.stack(x), *one_by_one)
    batched = jax.vmap(lambda f, w, c: _resample(f, w, 48, count=c))(features, weights, count)
    where = np.arange(41) < 30
    padded = jax.vmap(lambda f, w, c: _resample(f, w, 48, count=c, where=where))(
        np.pad(features, ((0, 0), (0, 11), (0, 0)), constant_values=np.nan),
        np.pad(weights, ((0, 0), (0, 11)), constant_values=3),
        count,
    )
    for got in (batched, padded):
        np.testing.assert_allclose(got.features, one_by_one.features, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(got.positions, one_by_one.positions, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(got.where, one_by_one.where)


def test_nothing_valid_gives_nothing():
    features = np.full((6, 2), np.nan, np.float32)
    for where, weights in ((np.zeros(6, bool), np.ones(6)), (np.arange(6) < 3, np.zeros(6))):
        clean = np.where(where[:, None], 1, features).astype(np.float32)
        got = _resample(clean, weights.astype(np.float32), 8, count=5, where=where)
        assert not np.any(got.where) and not np.any(got.features) and not np.any(got.positions)
        points = _resample_points(np.array([0.0, 5.0]), got)
        assert not np.any(points)
        assert _new_times(np.array([2.0]), got) == _old_times(np.array([2.0]), got) == 0
    got = _resample(np.ones((6, 2), np.float32), np.ones(6, np.float32), 8, count=0)
    assert not np.any(got.where) and not np.any(got.features)


def test_gradients():
    features, rng = _random_features(8, 12), np.random.default_rng(8)
    weights = rng.uniform(1, 4, 12).astype(np.float32)

    def loss(features, weights, where):
        got = ops.resample(features, weights, 16, count=14, where=where)
        return jnp.sum(jnp.sin(got.features)) + jnp.sum(jnp.cos(got.positions))

    gradients = jax.jit(jax.grad(loss, (0, 1)))
    where = np.arange(12) < 10
    to_features, to_weights = gradients(features, weights, where)
    assert not np.any(to_features[10:]) and not np.any(to_weights[10:])

    def reference(step):
        valid = weights[:10] + step
        quantiles = (np.arange(14) + 0.5) / 14
        positions = _reference_unwarp(quantiles * valid.sum(), valid) - 0.5
        columns = [np.interp(positions, np.arange(10), column[:10]) for column in features.T]
        return np.sum(np.sin(columns)) + np.sum(np.cos(positions)) + 2  # the masked cos(0)

    direction = rng.standard_normal(10)
    difference = (reference(1e-6 * direction) - reference(-1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(np.sum(to_weights[:10] * direction), difference, rtol=2e-3)
    for extreme in (np.zeros(12, np.float32), np.ones(12, np.float32)):
        for where in (np.zeros(12, bool), np.ones(12, bool)):
            assert all(np.all(np.isfinite(g)) for g in gradients(features, extreme, where))


# ---- points


def test_points_keep_their_snippet_without_compensation():
    got = _resample(np.zeros((9, 1), np.float32), np.ones(9, np.float32), 12, count=9)
    times = np.array([0.0, 0.99, 1.0, 4.5, 8.999, 9.0])
    want = np.zeros((12, 6), bool)
    want[[0, 0, 1, 4, 8, 8], range(6)] = True
    np.testing.assert_array_equal(_resample_points(times, got), want)
    np.testing.assert_allclose(_new_times(times, got), times)


def test_points_by_hand():
    weights = jnp.array([1.0, 3.0, 1.0, 1.0])
    got = _resample(jnp.zeros((4, 1)), weights, 8, count=6)
    # Snippet 1 became the new snippets 1, 2 and 3; the point at 4 is the very end.
    times, where = jnp.array([1.9, 2.5, 4.0, 0.5]), jnp.array([True, True, True, False])
    positive = _resample_points(times, got, where=where)
    want = np.zeros((8, 4), bool)
    want[[1, 2, 3], 0] = want[4, 1] = want[5, 2] = True
    np.testing.assert_array_equal(positive, want)


@pytest.mark.parametrize("count", [5, 30, 77, 80])
def test_points_against_the_definition(count):
    rng = np.random.default_rng(count)
    weights = rng.uniform(1, 4, 40).astype(np.float32)
    where = np.arange(40) < 33
    times = np.concatenate([rng.uniform(0, 33, 60), [33.0, 0.0]]).astype(np.float32)
    got = _resample(_random_features(9, 40), weights, 80, count=count, where=where)
    positive = np.asarray(_resample_points(times, got))
    total = weights[:33].sum(dtype=np.float64)
    cumulative = np.concatenate([[0.0], np.cumsum(weights[:33], dtype=np.float64)])
    new = np.interp(times, np.arange(34), cumulative) * count / total
    read_from = _reference_unwarp((np.arange(count) + 0.5) / count * total, weights[:33])
    for p, time in enumerate(times):
        contains = np.arange(count) == min(int(new[p]), count - 1)
        want = contains | (np.floor(read_from) == min(np.floor(time), 32))
        np.testing.assert_array_equal(positive[:count, p], want)
        assert np.any(want)
    assert not np.any(positive[count:])


def test_new_and_old_times_are_inverse():
    rng = np.random.default_rng(10)
    weights = rng.uniform(1, 8, 500).astype(np.float32)
    where = np.arange(500) < 420
    got = _resample(_random_features(10, 500, 1), weights, 900, count=800, where=where)
    times = rng.uniform(0, 420, 300).astype(np.float32)
    new = np.asarray(_new_times(times, got))
    assert new.min() >= 0 and new.max() <= 800
    np.testing.assert_array_less(np.abs(_old_times(new, got) - times), 2e-5 * (1 + times))
    centres = np.arange(800, dtype=np.float32) + 0.5
    np.testing.assert_allclose(_old_times(centres, got), got.positions[:800] + 0.5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 7, 25])
def test_a_window_is_a_part_of_the_whole(first):
    """Positions, positive snippets and times on both timelines; the last window is not full."""
    rng = np.random.default_rng(first)
    weights = rng.uniform(0.5, 3, 20).astype(np.float32)
    times = np.sort(rng.uniform(0, 20, 12)).astype(np.float32)
    count, size = 32, 10

    @jax.jit
    def read(first):
        whole = ops.sample_times(weights, 40, count=count)
        window = ops.sample_times(weights, size, count=count, first=first)
        back = jnp.arange(size, dtype=jnp.float32) + 0.25
        return (
            (whole, ops.resample_points(times, whole), ops.new_times(times, whole)),
            (window, ops.resample_points(times, window), ops.new_times(times, window)),
            ops.old_times(back + first.astype(jnp.float32), whole),
            ops.old_times(back, window),
        )

    (whole, points, new), (window, some, shifted), old, old_again = read(jnp.int32(first))
    real = max(0, min(size, count - first))
    assert window.where.tolist() == [True] * real + [False] * (size - real)
    kept = slice(first, first + real)
    np.testing.assert_array_equal(window.positions[:real], whole.positions[kept])
    np.testing.assert_array_equal(some[:real], points[kept])
    assert not some[real:].any()
    np.testing.assert_allclose(shifted, np.asarray(new) - first, atol=1e-5)
    np.testing.assert_allclose(old_again, old, atol=1e-5)


def test_a_batch_of_one():
    """Which XLA's compiler for CPUs made a crash of, where the row was gathered in the program."""
    weights = np.repeat(np.arange(6, dtype=np.float32)[None], 3, axis=0)

    @jax.jit
    def gathered(weights, where, rows):
        cumulative = jax.vmap(lambda w, where: ops.cumulative_weights(w, where=where))
        return cumulative(weights[rows], where[rows])

    got = gathered(weights, weights < 5, np.array([1]))
    np.testing.assert_array_equal(got[0], [0, 0, 1, 3, 6, 10, 10])
