"""Tests of the HAM-Net module: masks, randomness, inputs of each branch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.models import hamnet
from tal_jax.ops import attention

VARIANTS = hamnet.VARIANTS


def _model(variant, **settings):
    small = dict(num_classes=3, widths=(8, 8), attention_width=4, dropout=0.5)
    return hamnet.HAMNet(variant=variant, **small | settings)


def _inputs(length=12, valid=(12, 7)):
    features = np.random.default_rng(0).normal(size=(2, length, 5)).astype(np.float32)
    where = np.arange(length) < np.array(valid)[:, None]
    return features, where


@pytest.fixture(params=VARIANTS)
def built(request):
    model, (features, where) = _model(request.param), _inputs()
    return model, model.init(jax.random.key(0), features, where=where), features, where


def test_shapes_and_range(built):
    model, params, features, where = built
    outputs = model.apply(params, features, where=where)
    assert outputs.base.shape == outputs.semi.shape == (2, 12, 4)
    assert outputs.attention.shape == outputs.semi_attention.shape == (2, 12)
    assert (outputs.attention >= 0).all() and (outputs.attention <= 1).all()
    assert not np.asarray(outputs.attention)[~where].any()
    assert (outputs.soft is None) == (model.variant == "document")
    assert (outputs.hard is None) == (model.variant == "document")  # drawn in training only


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("smoothing", [1, 5])
def test_padding_changes_nothing(variant, smoothing):
    model, (features, where) = _model(variant, smoothing=smoothing), _inputs()
    params = model.init(jax.random.key(0), features, where=where)
    outputs = model.apply(params, features, where=where)
    spoiled = np.pad(np.where(where[..., None], features, 1e6), ((0, 0), (0, 9), (0, 0)))
    padded = model.apply(params, spoiled, where=np.pad(where, ((0, 0), (0, 9))))
    for name in ("attention", "semi_attention", "base", "semi"):
        one, other = np.asarray(getattr(outputs, name)), np.asarray(getattr(padded, name))[:, :12]
        np.testing.assert_allclose(other[where], one[where], rtol=1e-5, atol=1e-6, err_msg=name)


def test_published_branches_are_attended_logits():
    model, (features, where) = _model("published", gamma=0.9), _inputs()
    params = model.init(jax.random.key(1), features, where=where)
    outputs = model.apply(params, features, where=where)
    np.testing.assert_allclose(outputs.soft, outputs.attention[..., None] * outputs.base, rtol=1e-6)
    for row in range(2):
        weak = outputs.attention[row] < 0.9 * outputs.attention[row].max()
        weak = np.asarray(weak) & where[row]
        lowest = np.asarray(outputs.base[row]).min(axis=1, keepdims=True)
        want = np.where(weak[:, None], outputs.base[row], lowest)
        np.testing.assert_allclose(outputs.hard[row], want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            outputs.semi_attention[row], np.where(weak, outputs.attention[row], 0), rtol=1e-6
        )


def test_document_branches_classify_weighed_features():
    model, (features, where) = _model("document", low=0.5, high=0.75, dropout=0.0), _inputs()
    params = model.init(jax.random.key(2), features, where=where)
    outputs = model.apply(params, features, where=where)
    soft = jax.vmap(lambda x, w: attention.soft_attention(x, where=w))(outputs.base, where)
    np.testing.assert_allclose(outputs.attention, soft, rtol=1e-6)
    weighed = features * np.asarray(outputs.semi_attention)[..., None]
    np.testing.assert_allclose(
        outputs.semi, model.apply(params, weighed, where=where).base, rtol=1e-5, atol=1e-6
    )


def test_document_draws_another_mask_each_time():
    model, (features, where) = _model("document", low=0.0, dropout=0.0), _inputs()
    params = model.init(jax.random.key(3), features, where=where)

    def hard(seed):
        key = {"dropout": jax.random.key(seed)}
        outputs = model.apply(params, features, where=where, deterministic=False, rngs=key)
        return np.asarray(outputs.hard)

    np.testing.assert_array_equal(hard(0), hard(0))
    assert (hard(0) != hard(1)).any()


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_finite_and_reach_all_parameters(variant):
    model, (features, where) = _model(variant, low=0.1, high=0.9), _inputs()
    params = model.init(jax.random.key(4), features, where=where)

    def total(params, where):
        rngs = {"dropout": jax.random.key(5)}
        outputs = model.apply(params, features, where=where, deterministic=False, rngs=rngs)
        parts = [x for x in jax.tree.leaves(outputs)]
        return sum(jnp.where(where.reshape(2, 12, *[1] * (x.ndim - 2)), x, 0).sum() for x in parts)

    gradients = jax.tree.leaves(jax.grad(total)(params, where))
    assert all(np.isfinite(g).all() and np.any(g) for g in gradients)
    nothing = jax.tree.leaves(jax.grad(total)(params, np.zeros_like(where)))
    assert all(np.isfinite(g).all() for g in nothing)


def test_smooth_by_hand():
    values = jnp.array([[[1.0], [2.0], [6.0], [100.0]]])
    where = jnp.array([[True, True, True, False]])
    got = hamnet.smooth(values, where, 3)[0, :3, 0]
    np.testing.assert_allclose(got, [1.5, 3, 4])


def test_unknown_variant_is_refused():
    features, where = _inputs()
    with pytest.raises(ValueError, match="variant='publishd'; expected one of document, published"):
        _model("publishd").init(jax.random.key(0), features, where=where)
