"""Tests of feature reassignment against float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.ops import reassignment as ops

_reassign = jax.jit(ops.reassign, static_argnames=("num_iters", "closed_form"))


def _random(seed, length=30, dim=6, num_prototypes=4):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((length, dim)).astype(np.float32)
    prototypes = rng.standard_normal((num_prototypes, dim)).astype(np.float32)
    return features, prototypes, rng.random(length) < 0.7


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _reference_assign(features, prototypes, gamma):
    shares = np.exp(gamma * _unit(features) @ _unit(prototypes).T)
    return shares / shares.sum(axis=1, keepdims=True)


def _reference(features, prototypes, gamma, omega, num_iters):
    """The valid snippets only; returns the features, the prototypes and the assignments."""
    features, mu = features.astype(np.float64), prototypes.astype(np.float64)
    shares = _reference_assign(features, mu, gamma)
    for _ in range(num_iters):
        shares = _reference_assign(features, mu, gamma)
        mu = omega * (shares / shares.sum(axis=0)).T @ features + (1 - omega) * mu
    return omega * shares @ mu + (1 - omega) * features, mu, shares


def _alternate(features, prototypes, gamma, omega, num_iters, steps):
    """Repeats the pair (M, output) after the iterations, and assigns no more."""
    _, mu, _ = _reference(features, prototypes, gamma, omega, num_iters)
    shares = _reference_assign(features, mu, gamma)
    normalised = (shares / shares.sum(axis=0)).T
    mixed = features.astype(np.float64)
    for _ in range(steps):
        new = omega * normalised @ mixed + (1 - omega) * mu
        mixed = omega * shares @ new + (1 - omega) * features
    return mixed, new, shares


def _solve_over_time(features, prototypes, gamma, omega, num_iters):
    """The same fixed point as one system of T unknowns."""
    _, mu, _ = _reference(features, prototypes, gamma, omega, num_iters)
    shares = _reference_assign(features, mu, gamma)
    system = np.eye(len(features)) - omega**2 * shares @ (shares / shares.sum(axis=0)).T
    return (1 - omega) * np.linalg.solve(system, omega * shares @ mu + features)


def _assert_close(got, want, where, tolerance=2e-5):
    features, prototypes, assignments = want
    np.testing.assert_allclose(got.features[where], features, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got.prototypes, prototypes, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got.assignments[where], assignments, rtol=tolerance, atol=tolerance)
    assert not np.any(got.features[~where]) and not np.any(got.assignments[~where])


@pytest.mark.parametrize("num_iters", [0, 1, 2, 5])
def test_against_numpy_on_the_valid_snippets(num_iters):
    features, prototypes, where = _random(num_iters)
    spoiled = np.where(where[:, None], features, np.nan)
    got = _reassign(spoiled, prototypes, gamma=3.0, omega=0.3, num_iters=num_iters, where=where)
    _assert_close(got, _reference(features[where], prototypes, 3.0, 0.3, num_iters), where)
    assert got.features.dtype == got.prototypes.dtype == got.assignments.dtype == jnp.float32
    np.testing.assert_allclose(np.sum(got.assignments, axis=1), where, atol=1e-6)


def test_defaults_are_those_of_the_method():
    features, prototypes, _ = _random(7)
    got = ops.reassign(features, prototypes)
    _assert_close(got, _reference(features, prototypes, 5.0, 0.5, 2), np.ones(30, bool))


def test_parts_are_those_of_the_whole():
    features, prototypes, where = _random(8)
    assignments = ops.assign_prototypes(features, prototypes, where=where)
    updated = ops.update_prototypes(features, assignments, prototypes, where=where)
    got = _reassign(features, prototypes, num_iters=1, where=where)
    # A softmax of logits up to γ: programs that round them differently differ by a few γ·ε.
    np.testing.assert_allclose(got.assignments, assignments, rtol=5e-6)
    np.testing.assert_allclose(got.prototypes, updated, rtol=1e-5, atol=1e-6)


def test_update_by_hand():
    features = jnp.array([[4.0], [8.0], [np.nan]])
    assignments = jnp.array([[0.75, 0.0], [0.25, 0.0], [1.0, 1.0]])
    where = jnp.array([True, True, False])
    prototypes = jnp.array([[1.0], [6.0]])
    got = ops.update_prototypes(features, assignments, prototypes, omega=0.5, where=where)
    np.testing.assert_allclose(got, [[0.5 * 5 + 0.5], [3.0]])


@pytest.mark.parametrize("omega", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_iters", [0, 2])
def test_closed_form_is_the_limit_of_the_alternation(omega, num_iters):
    features, prototypes, where = _random(11)
    got = _reassign(
        features, prototypes, omega=omega, num_iters=num_iters, closed_form=True, where=where
    )
    valid = features[where]
    limit = _alternate(valid, prototypes, 5.0, omega, num_iters, steps=200)
    _assert_close(got, limit, where, tolerance=1e-4)
    over_time = _solve_over_time(valid, prototypes, 5.0, omega, num_iters)
    np.testing.assert_allclose(got.features[where], over_time, rtol=1e-4, atol=1e-4)


def test_omega_zero_returns_the_features_and_one_only_prototypes():
    features, prototypes, _ = _random(12)
    np.testing.assert_array_equal(_reassign(features, prototypes, omega=0.0).features, features)
    got = _reassign(features, prototypes, omega=1.0)
    np.testing.assert_allclose(got.features, got.assignments @ got.prototypes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_assignments_do_not_depend_on_the_scale(scale):
    features, prototypes, _ = _random(13)
    want = ops.assign_prototypes(features, prototypes)
    got = ops.assign_prototypes(features * np.float32(scale), prototypes / np.float32(scale))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_sharp_assignments_choose_the_nearest_prototype():
    features, prototypes, _ = _random(14)
    got = ops.assign_prototypes(features, prototypes, gamma=1e6)
    nearest = np.argmax(_unit(features) @ _unit(prototypes).T, axis=1)
    np.testing.assert_array_equal(got, np.eye(4)[nearest])
    # A prototype that no snippet chose keeps its part of the old, and the rest counts 0.
    nothing = np.zeros((30, 4), np.float32)
    updated = ops.update_prototypes(features, nothing, prototypes, omega=0.25)
    np.testing.assert_allclose(updated, 0.75 * prototypes, rtol=1e-6)


@pytest.mark.parametrize("closed_form", [False, True])
def test_gradients_are_finite_and_masked_snippets_get_none(closed_form):
    features, prototypes, where = _random(15)
    features[3] = 0.0  # no direction
    prototypes[1] = 0.0

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradients(features, prototypes, where):
        result = ops.reassign(features, prototypes, closed_form=closed_form, where=where)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(result))

    for valid in (where, np.ones(30, bool), np.zeros(30, bool)):
        to_features, to_prototypes = gradients(features, prototypes, valid)
        assert np.all(np.isfinite(to_features)) and np.all(np.isfinite(to_prototypes))
        assert not np.any(to_features[~valid])
        assert np.max(np.abs(to_prototypes)) < 1e3  # rows of zeros do not blow up
        assert not np.any(valid) or np.all(np.any(to_features[valid] != 0, axis=1))


def test_gradient_against_finite_differences():
    features, prototypes, where = _random(16, length=8, dim=3, num_prototypes=2)
    direction = np.random.default_rng(0).standard_normal(features.shape)

    def loss(features, **kwargs):
        return jnp.sum(_reassign(features, prototypes, where=where, **kwargs).features ** 2)

    def reference(epsilon):
        mixed, _, _ = _reference((features + epsilon * direction)[where], prototypes, 5.0, 0.5, 2)
        return np.sum(mixed**2)

    got = np.sum(np.asarray(jax.grad(loss)(features)) * direction)
    np.testing.assert_allclose(got, (reference(1e-5) - reference(-1e-5)) / 2e-5, rtol=1e-4)


def test_nothing_valid_gives_zero():
    features, prototypes, where = _random(17)
    for closed_form in (False, True):
        got = _reassign(
            features * np.nan, prototypes, closed_form=closed_form, where=np.zeros_like(where)
        )
        assert not np.any(got.features) and not np.any(got.assignments)
        assert np.all(np.isfinite(got.prototypes))


@pytest.mark.parametrize("closed_form", [False, True])
def test_pieces_of_a_recording_give_the_prototypes_of_the_whole(closed_form):
    """Also where a piece, or all of them, have nothing valid."""
    features, prototypes, where = _random(17)
    for valid in (where, where & (np.arange(len(where)) < 10), np.zeros_like(where)):
        pieces = [
            ops.sum_piece(features[part], prototypes, where=valid[part])
            for part in (slice(10), slice(10, 30))
        ]
        sums = jax.tree.map(jnp.add, *pieces)
        update = ops.limit_from_sums if closed_form else ops.update_from_sums
        got = update(sums, prototypes, omega=0.5)
        options = {"gamma": 5.0, "omega": 0.5, "closed_form": closed_form}
        options["num_iters"] = 0 if closed_form else 1
        whole = _reassign(features, prototypes, where=valid, **options)
        np.testing.assert_allclose(got, whole.prototypes, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("closed_form", [False, True])
def test_padding_and_vmap_change_nothing(closed_form):
    features, prototypes, where = _random(18)
    op = functools.partial(_reassign, closed_form=closed_form)
    want = op(features, prototypes, where=where)
    padded = np.pad(features, ((0, 12), (0, 0)), constant_values=3)
    got = op(padded, prototypes, where=np.pad(where, (0, 12)))
    np.testing.assert_allclose(got.features[:30], want.features, rtol=1e-5, atol=1e-6)
    batched = jax.vmap(lambda f: op(f, prototypes, where=where))(np.stack([features, -features]))
    for row, f in enumerate((features, -features)):
        np.testing.assert_allclose(
            batched.features[row],
            op(f, prototypes, where=where).features,
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("closed_form", [False, True])
def test_half_precision_features(closed_form):
    features, prototypes, _ = _random(19)
    features = jnp.asarray(features, jnp.bfloat16)
    got = _reassign(features, prototypes, closed_form=closed_form)
    assert got.features.dtype == jnp.bfloat16
    assert got.prototypes.dtype == got.assignments.dtype == jnp.float32
    want = _reassign(features.astype(jnp.float32), prototypes, closed_form=closed_form)
    np.testing.assert_allclose(got.features.astype(jnp.float32), want.features, atol=0.05)
