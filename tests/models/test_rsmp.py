"""Tests of the RSMP network and the layers."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.models import layers, rsmp


def _random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _where(*lengths, size):
    return np.arange(size)[None, :] < np.array(lengths)[:, None]


# ---- convolution


@pytest.mark.parametrize("kernel_size, dilation", [(1, 1), (3, 1), (3, 4), (5, 2)])
def test_convolution_is_that_of_jax(kernel_size, dilation):
    inputs = _random(0, 2, 7, 3)
    layer = layers.TemporalConv(4, kernel_size, dilation)
    kernel, bias = _random(1, kernel_size * 3, 4), _random(2, 4)
    got = jax.jit(layer.apply)({"params": {"Dense_0": {"kernel": kernel, "bias": bias}}}, inputs)
    want = jax.lax.conv_general_dilated(
        inputs,
        kernel.reshape(kernel_size, 3, 4),
        window_strides=(1,),
        padding="SAME",
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    np.testing.assert_allclose(got, np.asarray(want) + bias, rtol=1e-4, atol=1e-5)


def test_convolution_by_hand():
    layer = layers.TemporalConv(1, 3, 2)
    kernel = np.array([[1], [10], [100]], np.float32)
    params = {"Dense_0": {"kernel": kernel, "bias": np.ones(1, np.float32)}}
    inputs = np.arange(1, 5, dtype=np.float32)[None, :, None]
    got = jax.jit(layer.apply)({"params": params}, inputs)
    # Two before, itself, two after; zeros outside; the bias.
    np.testing.assert_allclose(np.ravel(got), [311, 421, 32, 43])


# ---- dropout


@functools.partial(jax.jit, static_argnums=0)
def _compiled_drop(rate, inputs, key):
    layer = layers.Dropout(rate)
    return layer.apply({}, inputs, deterministic=False, rngs={"dropout": key})


def _drop(rate, inputs, seed):
    return np.asarray(_compiled_drop(rate, inputs.astype(np.float32), jax.random.key(seed)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7])
def test_dropout_rate_and_scale(rate):
    got = _drop(rate, np.full((100, 4, 50), 3.0), 0)
    np.testing.assert_allclose(np.unique(got), [0, 3 / (1 - rate)], rtol=1e-6)
    # Five standard deviations of 20,000 draws.
    tolerance = 5 * (rate * (1 - rate) / got.size) ** 0.5
    assert (got == 0).mean() == pytest.approx(rate, abs=tolerance)
    for axis in ((0, 1), (0, 2), (1, 2)):  # no feature, recording or snippet is special
        share = (got == 0).mean(axis=axis)
        count = got.size / share.size
        np.testing.assert_allclose(share, rate, atol=5 * (rate * (1 - rate) / count) ** 0.5)


def test_dropout_follows_its_key():
    one, again, other = (_drop(0.5, np.ones((100, 4, 50)), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one == other).mean() == pytest.approx(0.5, abs=0.05)


def test_dropout_gradient_is_its_mask():
    key, inputs = jax.random.key(0), _random(3, 30, 2)
    got, pullback = jax.vjp(lambda x: _compiled_drop(0.5, x, key), inputs)
    (gradient,) = pullback(np.ones((30, 2), np.float32))
    np.testing.assert_allclose(gradient, np.where(np.asarray(got) == 0, 0, 2))


def test_dropout_of_rate_zero_and_without_randomness_is_nothing():
    inputs = jnp.asarray(_random(4, 5, 2))
    assert layers.Dropout(0.7).apply({}, inputs, deterministic=True) is inputs
    assert layers.Dropout(0.0).apply({}, inputs, deterministic=False) is inputs


# ---- embedding


def _variables(model, features, where):
    """Parameters without zeros: biases, too, which would show in padding."""
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), features, where=where, deterministic=True)
    )
    leaves, structure = jax.tree.flatten(shapes)
    values = [0.5 * _random(i, *leaf.shape) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


def test_layers_drop_differently():
    model = layers.Embedding((64, 64), (1, 1), dropout=0.5)
    features, where = np.ones((1, 40, 2), np.float32), np.ones((1, 40), bool)
    variables = _variables(model, features, where)

    @jax.jit
    def outputs(variables):
        _, state = model.apply(
            variables,
            features,
            where=where,
            deterministic=False,
            rngs={"dropout": jax.random.key(0)},
            capture_intermediates=lambda module, _: isinstance(module, layers.Dropout),
        )
        drops = state["intermediates"]
        return [drops[f"Dropout_{i}"]["__call__"][0] for i in range(2)]

    # Only positive parameters, so that nothing but dropout makes zeros.
    first, second = (np.asarray(x) == 0 for x in outputs(jax.tree.map(np.abs, variables)))
    assert first.mean() == pytest.approx(0.5, abs=0.05)
    assert (first == second).mean() == pytest.approx(0.5, abs=0.05)


def test_embedding_refuses_widths_without_dilations():
    model = layers.Embedding((8, 8), (1,))
    with pytest.raises(ValueError, match=r"widths=\(8, 8\) and dilations=\(1,\) differ in length"):
        _variables(model, np.ones((1, 5, 2)), np.ones((1, 5), bool))


# ---- the network


def _network(**kwargs):
    options = {"widths": (16, 12), "dilations": (1, 2), "num_prototypes": 4} | kwargs
    return rsmp.RSMP(num_classes=3, **options)


def _network_and_variables(**kwargs):
    model = _network(**kwargs)
    return model, _variables(model, np.zeros((1, 9, 5), np.float32), np.ones((1, 9), bool))


def _embeddings(branches):
    """The embedding of each branch, `[S, B, T, W]`."""
    num_recordings, length, _ = branches.embedding.shape
    each = np.broadcast_to(np.eye(length, dtype=np.float32), (num_recordings, length, length))
    return np.asarray(rsmp.pool(branches, each))


def test_parameters():
    features, where = np.zeros((2, 9, 5), np.float32), np.ones((2, 9), bool)
    variables = jax.jit(_network().init)(jax.random.key(0), features, where=where)
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables["params"])
    layers = shapes.pop("Embedding_0")
    # One classifier for both branches, without a bias; prototypes for all recordings.
    assert shapes == {"classifier": {"kernel": (12, 4)}, "prototypes": (4, 12)}
    assert layers == {
        "TemporalConv_0": {"Dense_0": {"kernel": (15, 16), "bias": (16,)}},
        "TemporalConv_1": {"Dense_0": {"kernel": (48, 12), "bias": (12,)}},
    }
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    limit = (6 / (4 + 12)) ** 0.5  # Xavier
    assert 0.5 * limit < np.abs(np.asarray(variables["params"]["prototypes"])).max() <= limit


def test_both_branches_go_through_one_classifier():
    model, variables = _network_and_variables()
    features, where = _random(5, 2, 9, 5), _where(9, 6, size=9)
    got = jax.jit(model.apply)(variables, features, where=where)
    assert got.embedding.shape == (2, 9, 12) and got.logits.shape == (2, 2, 9, 4)
    assert got.logits.dtype == got.embedding.dtype == jnp.float32
    embeddings = _embeddings(got)
    kernel = variables["params"]["classifier"]["kernel"]
    np.testing.assert_allclose(got.logits, embeddings @ kernel, rtol=1e-4, atol=1e-4)
    original, reassigned = embeddings
    np.testing.assert_allclose(original, got.embedding, rtol=1e-6)
    assert np.abs(original - reassigned).max() > 0.1


def test_pooling_is_linear():
    model, variables = _network_and_variables()
    got = jax.jit(model.apply)(variables, _random(5, 2, 9, 5), where=_where(9, 6, size=9))
    weights = np.abs(_random(6, 2, 3, 9))
    want = weights @ _embeddings(got)
    np.testing.assert_allclose(rsmp.pool(got, weights), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("closed_form", [False, True])
def test_reassignment_is_that_of_the_formula(closed_form):
    model, variables = _network_and_variables(
        num_iters=1, gamma=3.0, omega=0.4, closed_form=closed_form
    )
    got = jax.jit(model.apply)(variables, _random(6, 1, 8, 5), where=np.ones((1, 8), bool))
    features, reassigned = _embeddings(got).astype(np.float64)[:, 0]
    mu = variables["params"]["prototypes"].astype(np.float64)

    def assign(mu):
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, mu)]
        shares = np.exp(3 * unit[0] @ unit[1].T)
        shares /= shares.sum(axis=1, keepdims=True)
        return shares, (shares / shares.sum(axis=0)).T

    shares, normalised = assign(mu)
    new = 0.4 * normalised @ features + 0.6 * mu
    mixed = 0.4 * shares @ new + 0.6 * features
    if closed_form:
        shares, normalised = assign(new)
        mu = new
        for _ in range(60):
            new = 0.4 * normalised @ mixed + 0.6 * mu
            mixed = 0.4 * shares @ new + 0.6 * features
    np.testing.assert_allclose(reassigned, mixed, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("num_prototypes, closed_form", [(0, False), (4, False), (4, True)])
def test_padding_changes_nothing(num_prototypes, closed_form):
    model, variables = _network_and_variables(
        num_prototypes=num_prototypes, closed_form=closed_form
    )
    apply = jax.jit(model.apply)
    features, lengths = _random(7, 3, 14, 5), (9, 6, 1)
    where = _where(*lengths, size=14)
    short = apply(variables, features[:, :9], where=where[:, :9])
    spoiled = np.where(where[..., None], features, np.nan)
    padded = apply(variables, spoiled, where=where)
    for read in (_embeddings, lambda found: np.asarray(found.logits)):
        got, want = read(padded), read(short)
        np.testing.assert_allclose(got[:, :, :9], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
        assert not np.any(got[:, ~where])


def test_gradients_reach_everything_and_are_finite_with_nothing_valid():
    model, variables = _network_and_variables()
    features = _random(8, 2, 9, 5)

    def total(variables, features, where):
        return jnp.sum(model.apply(variables, features, where=where).logits ** 2)

    function = jax.jit(jax.grad(total, (0, 1)))
    gradients = function(variables, features, _where(9, 5, size=9))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))
    assert not np.any(np.asarray(gradients[1])[1, 5:])
    nothing = function(variables, features * np.nan, np.zeros((2, 9), bool))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(nothing))


def test_dropout_needs_its_key_and_changes_the_outputs():
    model, variables = _network_and_variables(dropout=0.5)
    features, where = _random(9, 1, 9, 5), np.ones((1, 9), bool)

    @jax.jit
    def logits(key):
        rngs = {"dropout": key}
        return model.apply(variables, features, where=where, deterministic=False, rngs=rngs).logits

    one, again, other = (np.asarray(logits(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        model.apply(variables, features, where=where, deterministic=False)


def test_without_prototypes_there_is_one_branch():
    model, variables = _network_and_variables(num_prototypes=0)
    assert set(variables["params"]) == {"Embedding_0", "classifier"}
    got = jax.jit(model.apply)(variables, _random(10, 1, 9, 5), where=np.ones((1, 9), bool))
    assert got.logits.shape == (1, 1, 9, 4)
    for branch in ("original", "reassigned", "mean"):
        np.testing.assert_allclose(rsmp.select_logits(got.logits, branch), got.logits[0])


def test_selection_of_a_branch():
    logits = jnp.array([1.0, 3.0])[:, None, None, None]
    for branch, want in (("original", 1), ("reassigned", 3), ("mean", 2)):
        assert rsmp.select_logits(logits, branch).tolist() == [[[want]]]
    with pytest.raises(ValueError, match="branch='both'; expected 'original', 'reassigned' or"):
        rsmp.select_logits(logits, "both")
