"""Tests of the losses: every one against loops in float64, under every kind of mask."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typecheck import unchecked

from tal_jax import losses
from tal_jax.losses import masked

# ---- references: loops in float64 without masks, the loss of each element


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -np.asarray(x, np.float64)))


def _cross_entropy(logits, targets):
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    return targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)


def _pooled(column, topk_ratio):
    k = max(1, int(len(column) // topk_ratio))
    return np.sort(np.asarray(column, np.float64))[::-1][:k].mean()


def _video(scores, labels, topk_ratio=3):
    values = []
    for column, label in zip(np.asarray(scores, np.float64).T, labels, strict=True):
        score = _pooled(column, topk_ratio) if label else column.mean()
        values.append(-np.log(score) if label else -np.log(1 - score))
    return np.array(values)


def _focal(logits, targets, exponent=2):
    p, losses = _sigmoid(logits), _cross_entropy(logits, targets)
    wrong = np.where(targets, 1 - p, p)  # targets are 0 or 1 here
    return (wrong**exponent * losses).sum(axis=1)


def _instance(logits, targets):
    return _cross_entropy(logits, targets).sum(axis=1)


def _lack(contrasts, action):
    return 1 - np.asarray(contrasts, np.float64)


def _best(contrasts):
    return (1 - np.asarray(contrasts, np.float64)) ** 2


def _feature(embeddings, labels, action, temperature=0.5):
    """NaN for segments that are no anchors."""
    unit = np.asarray(embeddings, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    values = np.full(len(unit), np.nan)
    for i in range(len(unit)):
        mates = against = 0.0
        for j in range(len(unit)):
            if i != j and labels[i] == labels[j]:
                similar = np.exp(unit[i] @ unit[j] / temperature)
                mates += similar * action[j]
                against += similar * (not action[j])
        if action[i] and mates:
            values[i] = -np.log(mates / (mates + against))
    return values


def _video_mil(logits, labels, background=1.0, topk_ratio=3):
    pooled = np.array([_pooled(column, topk_ratio) for column in np.asarray(logits).T])
    target = np.append(labels, background)
    return -target / target.sum() * (pooled - np.log(np.exp(pooled).sum()))


def _guide(attention, background):
    return np.abs(1 - np.asarray(attention, np.float64) - background)


def _over_all(reduce, terms, rows):
    terms = terms[~np.isnan(terms)]
    return reduce(terms) if len(terms) else 0.0


def _over_kinds(reduce, terms, rows):
    (action,) = rows
    return sum(reduce(terms[kind]) for kind in (action, ~action) if kind.any()) ** 2


# ---- the matrix


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss in the common form: differentiable values, what goes with each row, a mask."""

    loss: Callable  # (values, rows, where, **options) -> []
    terms: Callable  # (values, rows) -> [E] elements, nothing masked
    values: np.ndarray  # [N, ...]
    rows: tuple[Any, ...] = ()  # arrays of N rows
    reduce: Callable = np.mean  # of the formula
    total: Callable = _over_all  # (reduce, terms, rows) -> float
    per_row: bool = True  # whether an element is one of the rows that are masked

    def reference(self, values, rows, weights=1.0, reduce=None):
        terms = self.terms(values, rows) * weights
        return self.total(reduce or self.reduce, terms, rows)


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
    attention, background = rng.uniform(0, 1, (2, 9)).astype(np.float32)
    return {
        "video": Case(
            lambda x, r, w, **options: losses.video_loss(
                x, labels, topk_ratio=3, where=w, **options
            ),
            lambda x, r: _video(x, labels),
            scores,
            per_row=False,
        ),
        "focal": Case(_call(losses.focal_loss), _terms(_focal), logits, (hard,)),
        "instance": Case(_call(losses.instance_loss), _terms(_instance), logits, (soft,)),
        "sequence": Case(
            _call(losses.sequence_contrast_loss),
            _terms(_lack),
            contrasts,
            (action,),
            total=_over_kinds,
        ),
        "best": Case(_call(losses.best_contrast_loss), _terms(_best), contrasts),
        "feature": Case(
            _call(losses.feature_contrast_loss, temperature=0.5),
            _terms(_feature),
            embeddings,
            (classes, action),
        ),
        "video_mil": Case(
            lambda x, r, w, **options: losses.video_mil_loss(
                x, labels[:3], background=1.0, topk_ratio=3, where=w, **options
            ),
            lambda x, r: _video_mil(x, labels[:3]),
            logits,
            reduce=np.sum,
            per_row=False,
        ),
        "guide": Case(_call(losses.guide_loss), _terms(_guide), attention, (background,)),
        "sparsity": Case(_call(losses.sparsity_loss), _terms(np.float64), attention),
    }


def _call(loss, **settings):
    return lambda x, rows, where, **options: loss(x, *rows, where=where, **settings, **options)


def _terms(reference):
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
def test_weights_multiply_the_terms(name):
    case, rows = CASES[name], _take(CASES[name].rows, WHERE)
    count = 9 if case.per_row else len(case.terms(case.values, case.rows))
    weights = np.random.default_rng(1).uniform(0, 2, count).astype(np.float32)
    kept = weights[WHERE] if case.per_row else weights

    def reference(values):
        return case.reference(values, rows, kept)

    @jax.jit
    @jax.value_and_grad
    def loss(values, weights):
        return case.loss(values, case.rows, WHERE, weights=weights)

    value, gradient = loss(case.values, weights)
    np.testing.assert_allclose(value, reference(case.values[WHERE]), rtol=2e-5)
    want = np.zeros(case.values.shape)
    want[WHERE] = _differences(reference, case.values[WHERE])
    np.testing.assert_allclose(gradient, want, rtol=1e-3, atol=1e-5)
    if case.per_row:
        spoiled = np.where(WHERE, weights, np.float32(np.nan))
        got, got_gradient = loss(case.values, spoiled)
        assert got == value
        np.testing.assert_array_equal(got_gradient, gradient)


@pytest.mark.parametrize("name", CASES)
def test_unreduced(name):
    """The elements' losses; masked ones are 0 and pass no gradient."""
    case, rows = CASES[name], _take(CASES[name].rows, WHERE)
    spoiled = np.where(WHERE.reshape(-1, *[1] * (case.values.ndim - 1)), case.values, np.nan)

    @jax.jit
    def unreduced(values):
        terms = case.loss(values, case.rows, WHERE, reduce_fn=None)
        return terms, jax.grad(lambda x: case.loss(x, case.rows, WHERE, reduce_fn=None).sum())(
            values
        )

    terms, gradient = unreduced(spoiled.astype(np.float32))
    want = np.nan_to_num(case.terms(case.values[WHERE], rows))
    if case.per_row:
        assert terms.shape == (9,) and not np.any(terms[~WHERE])
        terms = terms[WHERE]
    np.testing.assert_allclose(terms, want, rtol=2e-5, atol=1e-6)
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[~WHERE])


@pytest.mark.parametrize("name", CASES)
def test_other_reductions(name):
    case, rows = CASES[name], _take(CASES[name].rows, WHERE)
    for reduce, reference in ((jnp.sum, np.sum), (jnp.mean, np.mean)):
        got = case.loss(case.values, case.rows, WHERE, reduce_fn=reduce)
        want = case.reference(case.values[WHERE], rows, reduce=reference)
        np.testing.assert_allclose(got, want, rtol=2e-5)


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
def test_masked_elements_change_nothing(name, filler):
    case = CASES[name]
    want = _VALUE_AND_GRAD[name](case.values, case.rows, WHERE)
    spoiled = np.where(WHERE.reshape(-1, *[1] * (case.values.ndim - 1)), case.values, filler)
    rows = tuple(row.copy() for row in case.rows)
    for row in rows:
        row[~WHERE] = filler if row.dtype == np.float32 else row[0]
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


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("scale", [-1e4, -50.0, 50.0, 1e4])
@pytest.mark.parametrize("name", ["focal", "instance", "feature"])
def test_extreme_values(name, scale, dtype):
    case, where = CASES[name], np.ones(9, bool)
    values = (np.sign(case.values) * np.float32(scale)).astype(dtype)
    value, gradient = _VALUE_AND_GRAD[name](values, case.rows, where)
    reference = case.reference(values.astype(np.float64), case.rows)
    np.testing.assert_allclose(value, reference, rtol=1e-5)
    assert gradient.dtype == dtype and np.all(np.isfinite(gradient.astype(np.float32)))


# ---- types, transformations, devices

DTYPES = [np.float16, jnp.bfloat16, np.float32, np.int32]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=[np.dtype(dtype).name for dtype in DTYPES])
@pytest.mark.parametrize("name", CASES)
def test_every_type_under_every_transformation(name, dtype):
    """All equal the float32 loss of the same, rounded numbers; only gradients are rounded again."""
    case = CASES[name]
    values = case.values.astype(dtype)
    exact = values.astype(np.float32)
    value, gradient = _VALUE_AND_GRAD[name](exact, case.rows, WHERE)
    direction = np.random.default_rng(2).normal(size=values.shape).astype(dtype)
    assert np.any(gradient) or dtype == np.int32

    def loss(values):
        return case.loss(values, case.rows, WHERE)

    @jax.jit
    def transformed(values):
        batch = jnp.stack([values, values])
        found = [
            loss(values),
            jax.vmap(loss)(batch)[1],
            jax.lax.map(jax.checkpoint(loss), batch)[0],
        ]
        if jnp.issubdtype(values.dtype, jnp.floating):
            found += [*jax.value_and_grad(loss)(values), *jax.jvp(loss, (values,), (direction,))]
        return found

    first, *others = transformed(jnp.asarray(values))
    assert first.dtype == jnp.float32
    for other in others[:2]:
        assert other.dtype == jnp.float32
        np.testing.assert_allclose(other, first, rtol=1e-6)
    np.testing.assert_allclose(first, value, rtol=1e-6)
    np.testing.assert_allclose(loss(values), value, rtol=2e-6)  # NumPy, without jit
    if others[2:]:
        again, reverse, primal, tangent = others[2:]
        np.testing.assert_allclose([again, primal], [value, value], rtol=1e-6)
        assert reverse.dtype == dtype and tangent.dtype == jnp.float32
        tolerance = 2 * float(jnp.finfo(dtype).eps)
        close = dict(rtol=tolerance, atol=tolerance * np.abs(gradient).max())
        np.testing.assert_allclose(reverse.astype(np.float32), gradient, **close)
        want = np.vdot(gradient, direction.astype(np.float32))
        np.testing.assert_allclose(tangent, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_float64(name):
    case = CASES[name]
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(case.loss)(
            jnp.asarray(case.values, jnp.float64), case.rows, WHERE
        )
        assert value.dtype == gradient.dtype == jnp.float64
        half = case.loss(case.values.astype(np.float16), case.rows, WHERE)
        assert half.dtype == jnp.float32
    rows = _take(case.rows, WHERE)
    np.testing.assert_allclose(value, case.reference(case.values[WHERE], rows), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", ["shard_map", "Explicit", "Auto"])
@pytest.mark.parametrize("name", CASES)
def test_recordings_on_several_devices(name, axis_type):
    """Value and gradient of each recording of a batch that is split over devices."""
    case = CASES[name]
    size = len(jax.devices())
    axis = jax.sharding.AxisType[axis_type if axis_type != "shard_map" else "Auto"]
    mesh = jax.make_mesh((size,), ("b",), axis_types=(axis,))
    spec = jax.sharding.PartitionSpec("b")
    batch = jax.tree.map(lambda x: np.stack([x] * size), (case.values, case.rows, WHERE))
    batch = jax.device_put(batch, jax.sharding.NamedSharding(mesh, spec))
    function = jax.vmap(jax.value_and_grad(case.loss))
    if axis_type == "shard_map":
        function = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec)
    with jax.set_mesh(mesh):
        value, gradient = jax.jit(function)(*batch)
    want = _VALUE_AND_GRAD[name](case.values, case.rows, WHERE)
    np.testing.assert_allclose(value, np.stack([want[0]] * size), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.stack([want[1]] * size), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_second_derivatives(name):
    """Forward over reverse mode, forward mode twice, and linearized gradients."""
    case, rows = CASES[name], _take(CASES[name].rows, WHERE)

    def loss(values):
        return case.loss(values, case.rows, WHERE)

    @jax.jit
    def hessians(values):
        _, along = jax.linearize(jax.grad(loss), values)
        return jax.hessian(loss)(values), along(values)

    # XLA compiles forward over forward mode of a vector's norm wrongly on CPUs: 2.5 off for unit
    # vectors whose second derivatives are at most 3 (jax 0.10.2).
    forward = jax.jacfwd(jax.jacfwd(loss))
    forward = (forward if name == "feature" else jax.jit(forward))(jnp.asarray(case.values))

    def gradient(values):
        found = np.zeros(values.shape)
        found[WHERE] = _differences(lambda x: case.reference(x, rows), values[WHERE], step=1e-4)
        return found

    want = np.zeros(case.values.shape * 2)
    for index in np.ndindex(case.values.shape):
        step = np.zeros(case.values.shape)
        step[index] = 1e-4
        difference = gradient(case.values + step) - gradient(case.values - step)
        want[(..., *index)] = difference / 2e-4
    hessian, along = hessians(case.values)
    np.testing.assert_allclose(hessian, want, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(forward, hessian, rtol=1e-4, atol=1e-5)
    product = np.tensordot(hessian, case.values, case.values.ndim)
    np.testing.assert_allclose(along, product, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_focal_derivatives_of_every_exponent(exponent):
    """Also at logits of 0 and where they saturate; exponents are traced."""
    logits = np.array([[-200, -20, -1, 0, 0, 1, 20, 200]] * 2, np.float32)
    targets = np.array([[0] * 8, [1] * 8], np.float32)
    usual = np.abs(logits) <= 1

    @jax.jit
    def derivatives(logits, exponent):
        def gradient(logits):
            return jax.grad(
                lambda x: losses.focal_loss(x, targets, exponent=exponent, reduce_fn=jnp.sum)
            )(logits)

        ones = jnp.ones_like(logits)
        return gradient(logits), jax.jvp(gradient, (logits,), (ones,))[1]

    first, second = derivatives(logits, exponent)
    assert np.all(np.isfinite(first)) and np.all(np.isfinite(second))

    def elementwise(x):
        wrong = np.where(targets, _sigmoid(-x), _sigmoid(x))
        return wrong**exponent * _cross_entropy(x, targets)

    x, step = logits.astype(np.float64), 1e-4
    middle, low, high = elementwise(x), elementwise(x - step), elementwise(x + step)
    np.testing.assert_allclose(first, (high - low) / (2 * step), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        second[usual], ((high + low - 2 * middle) / step**2)[usual], rtol=1e-3, atol=1e-5
    )


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


@pytest.mark.parametrize("logit", [-10.0, -13.9, -15.0])
def test_video_loss_can_raise_a_vanished_class(logit):
    """Beyond the clip the value stays, the gradient is that of the logarithm at its margin."""
    labels = np.array([True, False])

    def loss(logits):
        return losses.video_loss(jax.nn.sigmoid(logits), labels)

    logits = np.array([[logit, -logit]] * 3, np.float32)
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    probability = float(_sigmoid(logit))
    np.testing.assert_allclose(value, -np.log(max(probability, 1e-6)), rtol=1e-2)
    # One of three snippets is in the top k; the other class is as wrong, all its snippets count.
    slope = probability * (1 - probability) / max(probability, 1e-6) / 2
    np.testing.assert_allclose(gradient[:, 0], [-slope, 0, 0], rtol=1e-3)
    np.testing.assert_allclose(gradient[:, 1], np.full(3, slope / 3), rtol=0.2)


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


def test_focal_loss_of_exponent_zero_is_the_instance_loss():
    case = CASES["focal"]
    got = jax.jit(losses.focal_loss)(case.values, *case.rows, exponent=0.0)
    np.testing.assert_allclose(got, _instance(case.values, *case.rows).mean(), rtol=1e-5)


def test_targets_of_any_type():
    case, where = CASES["focal"], np.ones(9, bool)
    want, _ = _VALUE_AND_GRAD["focal"](case.values, case.rows, where)
    for dtype in (bool, np.int32):
        got = jax.jit(losses.focal_loss)(case.values, case.rows[0].astype(dtype))
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_instance_loss_is_least_at_its_targets():
    targets = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    logits = np.array([[0, -np.log(3), -np.log(3)], [60, -60, -60]], np.float32)
    gradient = jax.jit(jax.grad(losses.instance_loss))(logits, targets)
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


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_feature_loss_of_many_segments_some_at_a_time(monkeypatch, share):
    """Lists too long for one matrix, in part empty: the same value and gradient."""
    rng = np.random.default_rng(int(10 * share))
    embeddings = rng.normal(size=(23, 4)).astype(np.float32)
    labels, action = rng.integers(3, size=23), rng.uniform(size=23) < 0.5
    where = rng.uniform(size=23) < share

    weights = rng.uniform(size=23).astype(np.float32)

    def every_form():
        # A new function each time: the sizes are read when it is traced.
        def loss(embeddings, **options):
            return losses.feature_contrast_loss(
                embeddings, labels, action, where=where, weights=weights, **options
            )

        value_and_grad = jax.value_and_grad(loss)
        return jax.jit(lambda x: (*value_and_grad(x), loss(x, reduce_fn=None)))(embeddings)

    want, want_gradient, want_terms = every_form()
    monkeypatch.setattr(masked, "_MOST_AT_ONCE", 4)
    monkeypatch.setattr(masked, "_ANCHORS_AT_ONCE", 5)
    got, gradient, terms = every_form()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(terms, want_terms, rtol=1e-5, atol=1e-7)
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
    assert np.isfinite(value) and not np.any(gradient)
    # One embedding of zeros among others has no direction to be turned to.
    values = case.values.copy()
    values[0] = 0
    _, gradient = _VALUE_AND_GRAD["feature"](values, case.rows, where)
    assert not np.any(gradient[0]) and 0 < np.abs(gradient).max() < 1e3


def test_wrong_shapes_and_types_are_refused():
    scores = np.zeros((5, 3), np.float32)
    for call, message in (
        (lambda: losses.focal_loss(scores, scores[:4]), "targets"),
        (lambda: losses.focal_loss(scores[0], scores[0]), "logits must have shape"),
        (lambda: losses.sparsity_loss(scores[:, 0], where=np.ones(4, bool)), "where must"),
        (lambda: losses.sparsity_loss(scores[:, 0], where=scores[:, 0]), "where must be bool"),
        (lambda: losses.guide_loss(scores[:, 0], scores[:4, 0]), "background"),
        (lambda: losses.video_loss(scores, np.ones(2, bool)), "labels must"),
        (lambda: losses.video_mil_loss(scores, np.ones(3, bool), background=1.0), "labels must"),
        (lambda: losses.best_contrast_loss(scores[0], weights=scores[:, 0]), "weights must"),
    ):
        with unchecked(), pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    "old, new", [("dense_loss", "instance_loss"), ("classification_loss", "video_mil_loss")]
)
def test_old_names_work_for_one_release(old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is now .*{new}"):
        assert getattr(losses, old) is getattr(losses, new)
    with pytest.raises(AttributeError, match="no_loss"):
        _ = losses.no_loss


def test_video_scores_by_hand():
    scores = np.array([[0.1, 0.0], [0.9, 0.0], [0.5, 0.0], [0.3, 0.4], [1, 1], [1, 1]], np.float32)
    where = np.arange(6) < 4
    video_scores = jax.jit(losses.topk_pool)
    np.testing.assert_allclose(video_scores(scores, topk_ratio=2.0, where=where), [0.7, 0.2])
    np.testing.assert_allclose(video_scores(scores, topk_ratio=8.0, where=where), [0.9, 0.4])
    everything = video_scores(scores, topk_ratio=1.0, where=np.ones(6, bool))
    np.testing.assert_allclose(everything, scores.mean(0), rtol=1e-6)
