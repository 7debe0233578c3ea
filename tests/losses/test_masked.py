"""Tests of the losses: every one against loops in float64, under every kind of mask."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax import losses
from tal_jax.losses import masked


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


# ---- references: plain loops, no masks


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -np.asarray(x, np.float64)))


def _cross_entropy(logits, targets):
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    return targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)


def _video(scores, labels, topk_ratio=3):
    values = []
    for column, label in zip(np.asarray(scores, np.float64).T, labels, strict=True):
        k = max(1, int(len(column) // topk_ratio))
        score = np.sort(column)[::-1][:k].mean() if label else column.mean()
        values.append(-np.log(score) if label else -np.log(1 - score))
    return np.mean(values)


def _focal(logits, targets, exponent=2):
    p, losses = _sigmoid(logits), _cross_entropy(logits, targets)
    wrong = np.where(targets, 1 - p, p)  # targets are 0 or 1 here
    return (wrong**exponent * losses).sum(axis=1).mean()


def _dense(logits, targets):
    return _cross_entropy(logits, targets).sum(axis=1).mean()


def _sequence(contrasts, action):
    lack = 1 - np.asarray(contrasts, np.float64)
    parts = [lack[kind].mean() if kind.any() else 0 for kind in (action, ~action)]
    return sum(parts) ** 2


def _best(contrasts):
    return np.mean((1 - np.asarray(contrasts, np.float64)) ** 2)


def _feature(embeddings, labels, action, temperature=0.5):
    unit = np.asarray(embeddings, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    values = []
    for i in range(len(unit)):
        mates = against = 0.0
        for j in range(len(unit)):
            if i != j and labels[i] == labels[j]:
                similar = np.exp(unit[i] @ unit[j] / temperature)
                mates += similar * action[j]
                against += similar * (not action[j])
        if action[i] and mates:
            values.append(-np.log(mates / (mates + against)))
    return np.mean(values) if values else 0.0


# ---- the matrix


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss in the common form: differentiable values, what goes with each row, a mask."""

    loss: Callable  # (values, rows, where) -> []
    reference: Callable  # (values, rows) -> float, nothing masked
    values: np.ndarray  # [N, ...]
    rows: tuple[Any, ...]  # arrays of N rows


def _cases():
    rng = np.random.default_rng(0)
    labels = np.array([True, False, True, False])
    scores = rng.uniform(0.05, 0.95, (9, 4)).astype(np.float32)
    logits = rng.normal(0, 2, (9, 4)).astype(np.float32)
    hard = (rng.random((9, 4)) < 0.4).astype(np.float32)
    soft = rng.dirichlet(np.ones(4), 9).astype(np.float32)
    contrasts = rng.uniform(-1, 1, 9).astype(np.float32)
    action = np.arange(9) % 3 > 0
    classes = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2], np.int32)
    embeddings = rng.normal(0, 3, (9, 5)).astype(np.float32)
    return {
        "video": Case(
            lambda x, r, w: losses.video_loss(x, labels, topk_ratio=3, where=w),
            lambda x, r: _video(x, labels),
            scores,
            (),
        ),
        "focal": Case(
            lambda x, r, w: losses.focal_loss(x, *r, where=w), _call(_focal), logits, (hard,)
        ),
        "dense": Case(
            lambda x, r, w: losses.dense_loss(x, *r, where=w), _call(_dense), logits, (soft,)
        ),
        "sequence": Case(
            lambda x, r, w: losses.sequence_contrast_loss(x, *r, where=w),
            _call(_sequence),
            contrasts,
            (action,),
        ),
        "best": Case(
            lambda x, r, w: losses.best_contrast_loss(x, where=w), _call(_best), contrasts, ()
        ),
        "feature": Case(
            lambda x, r, w: losses.feature_contrast_loss(x, *r, temperature=0.5, where=w),
            _call(_feature),
            embeddings,
            (classes, action),
        ),
    }


def _call(reference):
    return lambda values, rows: reference(values, *rows)


CASES = _cases()
WHERE = np.array([1, 1, 1, 0, 1, 1, 1, 0, 1], bool)
_VALUE_AND_GRAD = {name: jax.jit(jax.value_and_grad(case.loss)) for name, case in CASES.items()}


def _take(rows, where):
    return tuple(row[where] for row in rows)


def _differences(function, values, step=1e-5):
    """Gradient by central differences."""
    gradient = np.zeros(values.shape)
    for index in np.ndindex(values.shape):
        high, low = values.astype(np.float64), values.astype(np.float64)
        high[index] += step
        low[index] -= step
        gradient[index] = (function(high) - function(low)) / (2 * step)
    return gradient


@pytest.mark.parametrize("name", CASES)
def test_mask_equals_removing(name):
    case = CASES[name]
    value, gradient = _VALUE_AND_GRAD[name](case.values, case.rows, WHERE)
    assert value.dtype == gradient.dtype == jnp.float32 and value.shape == ()
    rows = _take(case.rows, WHERE)
    np.testing.assert_allclose(value, case.reference(case.values[WHERE], rows), rtol=2e-5)
    want = np.zeros(case.values.shape)
    want[WHERE] = _differences(lambda x: case.reference(x, rows), case.values[WHERE])
    np.testing.assert_allclose(gradient, want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_nothing_masked_and_no_mask_are_one(name):
    case = CASES[name]
    value, _ = _VALUE_AND_GRAD[name](case.values, case.rows, np.ones(9, bool))
    np.testing.assert_allclose(value, case.reference(case.values, case.rows), rtol=2e-5)
    rows = jax.tree.map(jnp.asarray, case.rows)
    unmasked = case.loss(jnp.asarray(case.values), rows, None)  # without jit
    np.testing.assert_allclose(unmasked, value, rtol=1e-5)


@pytest.mark.parametrize("filler", [1e30, np.nan])
@pytest.mark.parametrize("name", CASES)
def test_what_is_masked_changes_nothing(name, filler):
    case = CASES[name]
    want = _VALUE_AND_GRAD[name](case.values, case.rows, WHERE)
    spoiled = np.where(WHERE.reshape(-1, *[1] * (case.values.ndim - 1)), case.values, filler)
    rows = tuple(row.copy() for row in case.rows)
    for row in rows:
        row[~WHERE] = row[0]
    value, gradient = _VALUE_AND_GRAD[name](spoiled.astype(np.float32), rows, WHERE)
    np.testing.assert_allclose(value, want[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, want[1], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_all_masked_gives_zero_and_no_gradient(name):
    case = CASES[name]
    value, gradient = _VALUE_AND_GRAD[name](case.values, case.rows, np.zeros(9, bool))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(case.values.shape))


@pytest.mark.parametrize("name", CASES)
def test_padding_and_vmap_change_nothing(name):
    case = CASES[name]
    where = np.stack([WHERE, ~WHERE, np.ones(9, bool)])
    want = [_VALUE_AND_GRAD[name](case.values, case.rows, w)[0] for w in where]

    def pad(values):
        padded = np.pad(values, [(0, 4)] + [(0, 0)] * (values.ndim - 1), mode="edge")
        return np.stack([padded] * 3)

    rows = tuple(pad(row) for row in case.rows)
    got = jax.jit(jax.vmap(case.loss))(pad(case.values), rows, np.pad(where, ((0, 0), (0, 4))))
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("scale", [-1e4, -50.0, 50.0, 1e4])
@pytest.mark.parametrize("name", ["focal", "dense", "feature"])
def test_extreme_values(name, scale):
    case, where = CASES[name], np.ones(9, bool)
    values = np.sign(case.values) * np.float32(scale)
    value, gradient = _VALUE_AND_GRAD[name](values, case.rows, where)
    np.testing.assert_allclose(value, case.reference(values, case.rows), rtol=1e-5)
    assert np.all(np.isfinite(gradient))


# ---- one by one


def test_video_loss_by_hand():
    scores = jnp.array([[0.5, 0.1], [0.9, 0.2], [0.7, 0.6], [0.1, 0.3]])
    got = losses.video_loss(scores, jnp.array([True, False]), topk_ratio=2)
    # The two largest of the labelled class, the mean of the other.
    np.testing.assert_allclose(got, -(np.log(0.8) + np.log(1 - 0.3)) / 2, rtol=1e-6)


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("label", [False, True])
def test_video_loss_of_probabilities_of_zero_and_one(probability, label):
    function = jax.jit(jax.value_and_grad(losses.video_loss))
    value, gradient = function(np.full((4, 2), probability, np.float32), np.full(2, label))
    assert np.all(np.isfinite(gradient))
    right = probability == label
    assert 0 <= value < 1e-5 if right else 13 < value < 15  # −log of the margin


def test_video_loss_without_a_label():
    scores = np.full((5, 3), 0.25, np.float32)
    got = jax.jit(losses.video_loss)(scores, np.zeros(3, bool))
    np.testing.assert_allclose(got, -np.log(0.75), rtol=1e-6)


@pytest.mark.parametrize(
    "length, ratio, count", [(0, 8, 1), (7, 8, 1), (16, 8, 2), (23, 8, 2), (750, 100, 7), (5, 1, 5)]
)
def test_topk_count(length, ratio, count):
    got = losses.topk_count(jnp.asarray(length, jnp.int32), ratio)
    assert got == count and got.dtype == jnp.int32


def test_focal_loss_by_hand():
    logits = np.log(np.array([[3.0, 1 / 3]], np.float32))  # probabilities 3/4 and 1/4
    got = jax.jit(losses.focal_loss)(logits, np.array([[1.0, 1.0]], np.float32))
    want = 0.25**2 * -np.log(0.75) + 0.75**2 * -np.log(0.25)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_focal_loss_of_exponent_zero_is_the_dense_loss():
    case = CASES["focal"]
    got = jax.jit(losses.focal_loss)(case.values, *case.rows, exponent=0.0)
    np.testing.assert_allclose(got, _dense(case.values, *case.rows), rtol=1e-5)


def test_targets_of_any_type():
    case, where = CASES["focal"], np.ones(9, bool)
    want, _ = _VALUE_AND_GRAD["focal"](case.values, case.rows, where)
    for dtype in (bool, np.int32):
        got = jax.jit(losses.focal_loss)(case.values, case.rows[0].astype(dtype))
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_dense_loss_is_least_at_its_targets():
    targets = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    logits = np.array([[0, -np.log(3), -np.log(3)], [60, -60, -60]], np.float32)
    gradient = jax.jit(jax.grad(losses.dense_loss))(logits, targets)
    np.testing.assert_allclose(gradient, np.zeros((2, 3)), atol=1e-6)


@pytest.mark.parametrize("action", [False, True])
def test_sequence_loss_of_one_kind_only(action):
    contrasts = jnp.array([0.5, 0.1])
    got = losses.sequence_contrast_loss(contrasts, jnp.full(2, action))
    np.testing.assert_allclose(got, 0.7**2, rtol=1e-6)


def test_perfect_contrasts_cost_nothing():
    ones = jnp.ones(3)
    assert losses.sequence_contrast_loss(ones, jnp.array([True, False, True])) == 0
    assert losses.best_contrast_loss(ones) == 0


def test_feature_loss_by_hand():
    # Two mates at right angles, background along the first; another class does not matter.
    embeddings = jnp.array([[3.0, 0.0], [0.0, 0.5], [1.0, 0.0], [9.0, 9.0]])
    labels, action = jnp.array([4, 4, 4, 7]), jnp.array([True, True, False, True])
    got = losses.feature_contrast_loss(embeddings, labels, action, temperature=1.0)
    first, second = -np.log(1 / (1 + np.e)), -np.log(1 / 2)
    np.testing.assert_allclose(got, (first + second) / 2, rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_feature_loss_of_many_segments_some_at_a_time(monkeypatch, share):
    """Lists too long for one matrix, in part empty: the same value and gradient."""
    rng = np.random.default_rng(int(10 * share))
    embeddings = rng.normal(size=(23, 4)).astype(np.float32)
    labels, action = rng.integers(3, size=23), rng.uniform(size=23) < 0.5
    where = rng.uniform(size=23) < share

    def both():
        # A new function each time: what is compiled reads the sizes when it is traced.
        loss = jax.value_and_grad(lambda *given: losses.feature_contrast_loss(*given, where=where))
        return jax.jit(loss)(embeddings, labels, action)

    want, want_gradient = both()
    monkeypatch.setattr(masked, "_MOST_AT_ONCE", 4)
    monkeypatch.setattr(masked, "_ANCHORS_AT_ONCE", 5)
    got, gradient = both()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)
    assert share == 0 or got > 0


def test_feature_loss_without_anchors_or_background():
    embeddings = CASES["feature"].values
    function = jax.jit(jax.value_and_grad(losses.feature_contrast_loss))
    at = np.arange(9, dtype=np.int32)
    for labels, action in (
        (at, np.ones(9, bool)),  # no mates
        (at * 0, np.zeros(9, bool)),  # no action
        (at // 2, at % 2 == 0),  # one action segment a class
        (at * 0, np.ones(9, bool)),  # mates alone: nothing to tell them from
    ):
        value, gradient = function(embeddings, labels, action)
        np.testing.assert_allclose(value, 0, atol=1e-6)
        np.testing.assert_allclose(gradient, np.zeros_like(embeddings), atol=1e-6)


def test_feature_loss_does_not_depend_on_lengths_and_takes_zeros():
    case, where = CASES["feature"], np.ones(9, bool)
    scale = np.random.default_rng(1).uniform(0.1, 10, (9, 1)).astype(np.float32)
    want, _ = _VALUE_AND_GRAD["feature"](case.values, case.rows, where)
    got, _ = _VALUE_AND_GRAD["feature"](case.values * scale, case.rows, where)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    value, gradient = _VALUE_AND_GRAD["feature"](case.values * 0, case.rows, where)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_video_scores_by_hand():
    scores = np.array([[0.1, 0.0], [0.9, 0.0], [0.5, 0.0], [0.3, 0.4], [1, 1], [1, 1]], np.float32)
    where = np.arange(6) < 4
    video_scores = jax.jit(losses.topk_pool)
    np.testing.assert_allclose(video_scores(scores, topk_ratio=2.0, where=where), [0.7, 0.2])
    np.testing.assert_allclose(video_scores(scores, topk_ratio=8.0, where=where), [0.9, 0.4])
    everything = video_scores(scores, topk_ratio=1.0, where=np.ones(6, bool))
    np.testing.assert_allclose(everything, scores.mean(0), rtol=1e-6)
