"""Tests of the detector's network: masks, padding, levels, reach, types."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.models import detector
from tal_jax.ops import anchors as anchor_ops

# Half a minute of compilation.
pytestmark = pytest.mark.slow

DIM, CLASSES, WIDTH = 5, 3, 16


@functools.cache
def _model(num_levels=3, dtype=jnp.float32):
    return detector.Detector(CLASSES, WIDTH, num_levels, dtype=dtype)


@functools.cache
def _params(num_levels=3):
    """Parameters without zeros: biases, too, which would show in padding."""
    model = _model(num_levels)
    features, where = jnp.zeros((1, 8, DIM)), jnp.ones((1, 8), bool)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), features, where=where))
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(num_levels)
    values = [0.3 * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, values)


def _features(length, seed=0, batch=1):
    return np.random.default_rng(seed).standard_normal((batch, length, DIM)).astype(np.float32)


@functools.cache
def _applied(num_levels=3, dtype=jnp.float32):
    model = _model(num_levels, dtype)
    return jax.jit(lambda features, where: model.apply(_params(num_levels), features, where=where))


def _by_level(array, num_levels):
    """The parts of `[A, …]` of each level."""
    length = len(array) * 2 ** (num_levels - 1) // (2**num_levels - 1)
    firsts = np.cumsum([length >> level for level in range(num_levels)])[:-1]
    return np.split(np.asarray(array), firsts)


def test_outputs_stand_at_the_anchors():
    where = np.arange(24)[None] < np.array([[24], [9]])
    outputs = _applied()(_features(24, batch=2), where)
    anchors = anchor_ops.pyramid_anchors(24, num_levels=3)
    size = len(anchors.times)
    assert outputs.logits.shape == (2, size, CLASSES) and outputs.offsets.shape == (2, size, 2)
    assert np.all(np.asarray(outputs.offsets) > 0)
    first = np.asarray(anchors.times - anchors.strides / 2)
    np.testing.assert_array_equal(outputs.where, first[None] < np.array([[24], [9]]))


@pytest.mark.parametrize("num_levels", [1, 3])
@pytest.mark.parametrize("length", [8, 13])
def test_padding_and_masked_features_change_nothing(num_levels, length):
    want = _applied(num_levels)(_features(length), np.ones((1, length), bool))
    for room, filled in ((8, 0.0), (19, np.nan)):
        padded = np.full((1, length + room, DIM), filled, np.float32)
        padded[:, :length] = _features(length)
        got = _applied(num_levels)(padded, np.arange(length + room)[None] < length)
        for name in ("logits", "offsets"):
            parts = zip(
                _by_level(getattr(got, name)[0], num_levels),
                _by_level(got.where[0], num_levels),
                _by_level(getattr(want, name)[0], num_levels),
                _by_level(want.where[0], num_levels),
                strict=True,
            )
            for one, valid, other, also in parts:
                np.testing.assert_allclose(one[valid], other[also], rtol=1e-5, atol=1e-6)
    assert all(np.all(np.isfinite(got.logits)) for got in (want, got))


@pytest.mark.parametrize("num_levels", [1, 2, 4])
def test_reach(num_levels):
    """A snippet farther from an anchor's time than the reach has no part in its outputs.

    How far one has a part is the reach of the receptive field, half a stride of the coarsest level
    less; at every level.
    """
    model, length = _model(num_levels), 16 * 2 ** (num_levels - 1)
    where = np.ones((1, length), bool)
    features = _features(length)
    want = _applied(num_levels)(features, where)
    anchors = anchor_ops.pyramid_anchors(length, num_levels=num_levels)
    times, strides = np.asarray(anchors.times), np.asarray(anchors.strides)
    farthest = np.zeros(len(times))
    for snippet in range(length):
        for amount in (-20.0, 20.0):
            changed = features.copy()
            changed[0, snippet] += amount
            got = _applied(num_levels)(changed, where)
            differs = np.any(np.asarray(got.logits != want.logits)[0], axis=-1)
            # From the anchor to the farther border of the snippet.
            off = np.abs(times - (snippet + 0.5)) + 0.5
            assert np.all(off[differs] <= model.reach)
            farthest = np.where(differs, np.maximum(farthest, off), farthest)
    for stride in np.unique(strides):
        # Two layers of the finest level, one of each coarser one, two of the heads, and a half.
        assert farthest[strides == stride].max() == 4.5 * stride
    assert model.reach == 5 * model.multiple


def test_levels_do_not_leak_into_each_other():
    """They follow each other on one line: the last snippets of one, the first of the next.

    Heads see a recording's first snippets as its first ones, whatever its last ones are.
    """
    length, where = 64, np.ones((1, 64), bool)
    changed = _features(length)
    changed[0, -1] += 20.0
    got, want = _applied()(changed, where), _applied()(_features(length), where)
    for one, other in zip(_by_level(got.logits[0], 3), _by_level(want.logits[0], 3), strict=True):
        np.testing.assert_array_equal(one[: len(one) // 2], other[: len(one) // 2])
        assert np.any(one[-1] != other[-1])


def test_half_precision_has_outputs_in_float32():
    features, where = _features(24), np.ones((1, 24), bool)
    want = _applied()(features, where)
    with jax.numpy_dtype_promotion("standard"):  # for flax's layer normalization
        got = _applied(dtype=jnp.bfloat16)(features, where)
    assert got.logits.dtype == got.offsets.dtype == jnp.float32
    scale = np.abs(want.logits).max()
    np.testing.assert_allclose(got.logits / scale, want.logits / scale, atol=0.05)


def test_offsets_never_overflow():
    outputs = _applied()(1e6 * _features(24), np.ones((1, 24), bool))
    assert np.all(np.isfinite(outputs.offsets)) and np.max(outputs.offsets) < 55


@pytest.mark.parametrize("level", [0, 3])
def test_gradients_are_finite_and_reach_every_parameter(level):
    """However the compiler rounds what it computes twice."""
    model, params = _model(), _params()
    where = np.arange(24)[None] < np.array([[24], [0]])

    @jax.jit
    @jax.grad
    def gradient(params):
        outputs = model.apply(params, _features(24, batch=2), where=where)
        return jnp.sum(outputs.logits) + jnp.sum(outputs.offsets)

    compiled = gradient.lower(params).compile({"xla_backend_optimization_level": level})
    for path, leaf in jax.tree_util.tree_leaves_with_path(compiled(params)):
        assert np.all(np.isfinite(leaf)) and np.any(leaf), path


def test_all_classes_start_improbable():
    model = _model()
    features, where = _features(8), np.ones((1, 8), bool)
    params = model.init(jax.random.key(0), features, where=where)
    bias = params["params"]["classifier"]["bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias), 0.01, rtol=1e-5)
