"""Wrong arguments of ops: one line that says what is wrong and what was expected."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typecheck import unchecked

import tal_jax as tal
from tal_jax.ops import _check, _cumsum, reassignment, resampling

T, C, D, K, N = 6, 2, 3, 2, 4
SCORES, CAS, FEATURES, PROTOTYPES = (jnp.ones(s) for s in ((T,), (T, C), (T, D), (K, D)))
SEGMENTS, VALUES, FLAGS = jnp.ones((N, 2)), jnp.ones(N), jnp.ones(T, bool)
ATTENTIONS = ("semi_soft_attention", "published_semi_soft_attention", "published_hard_attention")

# By op: its arguments; which of them is a mask, and over what.
CALLS = {
    "compensation_weights": (dict(segments=SEGMENTS, length=T, tau=2.0), {"where": N}),
    "cumulative_weights": (dict(weights=SCORES), {"where": T}),
    "interpolate": (dict(features=FEATURES, positions=VALUES), {"where": T}),
    "resample": (dict(features=FEATURES, weights=SCORES, num_samples=3), {"where": T}),
    "assign_prototypes": (dict(features=FEATURES, prototypes=PROTOTYPES), {"where": T}),
    "update_prototypes": (
        dict(features=FEATURES, assignments=jnp.ones((T, K)), prototypes=PROTOTYPES),
        {"where": T},
    ),
    "reassign": (dict(features=FEATURES, prototypes=PROTOTYPES), {"where": T}),
    "inner_outer_contrast": (dict(scores=SCORES, segments=SEGMENTS), {"where": T}),
    "contrast_map": (dict(scores=SCORES, max_length=2), {"where": T}),
    "curve_contrast": (dict(scores=SCORES, segments=SEGMENTS), {"where": T}),
    "topk_mean": (dict(scores=CAS, k=1), {"where": T}),
    "mine_seeds": (dict(background=SCORES, points=jnp.ones((T, C), bool)), {"where": T}),
    "optimal_sequence": (
        dict(scores=SCORES, action_seeds=FLAGS, background_seeds=FLAGS),
        {"where": T, "action_seeds": T, "background_seeds": T},
    ),
    "sequence_segments": (dict(labels=FLAGS, num_segments=2), {"where": T}),
    "best_segment": (
        dict(scores=SCORES, points=FLAGS, blocked=FLAGS), {"where": T, "points": T, "blocked": T}
    ),
    "nms": (dict(segments=SEGMENTS, scores=VALUES, iou_threshold=0.5), {"where": N}),
    "soft_nms": (dict(segments=SEGMENTS, scores=VALUES, sigma=0.5), {"where": N}),
    "disjoint_segments": (dict(segments=SEGMENTS, scores=VALUES), {"where": N}),
    "threshold_runs": (dict(curve=SCORES, thresholds=VALUES, max_runs=2), {"where": T}),
    "localize": (
        dict(
            scores=CAS, foreground=SCORES, video=jnp.ones(C), classes=jnp.ones(C, bool),
            thresholds=VALUES, foreground_thresholds=VALUES, max_runs=2,
        ),
        {"where": T, "classes": C},
    ),
    "soft_attention": (dict(logits=CAS), {"where": T}),
    "hard_attention": (dict(attention=SCORES, key=jax.random.key(0)), {"where": T}),
    **{name: (dict(attention=SCORES), {"where": T}) for name in ATTENTIONS},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_installed():
    with unchecked():
        yield


@pytest.mark.parametrize("name", CALLS)
def test_masks(name):
    arguments, masks = CALLS[name]
    for mask, size in masks.items():
        message = f"{mask} must be bool or 0/1 integers, got float32"
        with pytest.raises(ValueError, match=message):
            getattr(tal, name)(**arguments | {mask: np.ones(size, np.float32)})
        with pytest.raises(ValueError, match=rf"must have shape .* got \[{size + 1}\]"):
            getattr(tal, name)(**arguments | {mask: np.ones(size + 1, bool)})


@pytest.mark.parametrize("name", CALLS)
def test_shapes_and_types_of_numbers(name):
    """Another number of axes, truth values and complex numbers; traced as well."""
    arguments, masks = CALLS[name]
    op = getattr(tal, name)
    arrays = {
        key: value
        for key, value in arguments.items()
        if key not in {*masks, "labels", "points", "key"} and isinstance(value, jax.Array)
    }
    for key, value in arrays.items():
        scalar = jnp.zeros(())
        with pytest.raises(ValueError, match=rf"{key} must have shape \[.*\].*, got \[\]"):
            jax.eval_shape(lambda x, key=key: op(**arguments | {key: x}), scalar)
        for wrong in (value.astype(bool), value.astype(jnp.complex64)):
            with pytest.raises(ValueError, match=f"{key} must hold numbers, got {wrong.dtype}"):
                op(**arguments | {key: wrong})


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.array])
@pytest.mark.parametrize(
    "name, setting, value, message",
    [
        ("inner_outer_contrast", "delta", -0.5, "delta must be at least 0, got -0.5"),
        ("contrast_map", "delta", -0.5, "delta must be at least 0, got -0.5"),
        ("curve_contrast", "min_outer", -1, "min_outer must be at least 0, got -1"),
        ("optimal_sequence", "delta", float("nan"), "delta must be at least 0, got nan"),
        ("best_segment", "delta", -0.5, "delta must be at least 0, got -0.5"),
        ("nms", "iou_threshold", 1.5, "iou_threshold must be from 0 to 1, got 1.5"),
        ("disjoint_segments", "max_share", 30, "max_share must be from 0 to 1, got 30"),
        ("soft_nms", "sigma", 0, "sigma must be above 0, got 0"),
        ("update_prototypes", "omega", 1.5, "omega must be from 0 to 1, got 1.5"),
        ("reassign", "omega", -0.5, "omega must be from 0 to 1, got -0.5"),
        ("compensation_weights", "tau", -1, "tau must be at least 0, got -1"),
        ("hard_attention", "drop_rate", 2, "drop_rate must be from 0 to 1, got 2"),
        ("localize", "iou_threshold", 70, "iou_threshold must be from 0 to 1, got 70"),
        ("localize", "soft_sigma", -1, "soft_sigma must be at least 0, got -1"),
    ],
)
def test_settings(name, setting, value, message, kind):
    with pytest.raises(ValueError, match=message):
        getattr(tal, name)(**CALLS[name][0] | {setting: kind(value)})


@pytest.mark.parametrize(
    "name, size, least",
    [
        ("reassign", "num_iters", 0),
        ("contrast_map", "max_length", 1),
        ("resample", "num_samples", 1),
        ("sequence_segments", "num_segments", 0),
        ("threshold_runs", "max_runs", 1),
        ("localize", "max_runs", 1),
        ("compensation_weights", "length", 0),
    ],
)
def test_static_sizes(name, size, least):
    arguments, _ = CALLS[name]
    op = getattr(tal, name)
    with pytest.raises(ValueError, match=f"{size} must be an integer of at least {least}, got -1"):
        op(**arguments | {size: -1})
    with pytest.raises(ValueError, match=f"{size} is static: compile with tal_jax.jit"):
        jax.jit(lambda n: op(**arguments | {size: n}))(3)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: tal.mine_seeds(SCORES, jnp.ones((T, 1), bool), force_between="all"),
            "force_between must be 'any' or 'same'.* got 'all'",
        ),
        (
            lambda: tal.reassign(FEATURES, PROTOTYPES, omega=1, closed_form=True),
            "closed_form needs omega < 1, got 1",
        ),
        (lambda: tal.topk_mean(CAS, jnp.array(1.5)), "k must be an integer, got float32"),
        (lambda: tal.contrast_map(jnp.zeros(0), 1), "scores must have at least one snippet"),
        (
            lambda: tal.reassign(FEATURES, PROTOTYPES[:, :2]),
            r"prototypes must have shape \[..., K, D\] with D = 3, got \[2, 2\]",
        ),
        (
            lambda: resampling.sample_times(SCORES, 2, first=jnp.int32(1)),
            "a window needs the count",
        ),
        (
            lambda: tal.resample(FEATURES, SCORES, 4, count=5),
            "between 0 and num_samples = 4, got 5",
        ),
        (lambda: tal.warp(SCORES, jnp.zeros(1)), "cumulative must have at least two entries"),
        (
            lambda: tal.resample_points(1.0, tal.resample(FEATURES, SCORES, 4)),
            r"times must have shape \[P\], got \[\]",
        ),
        (lambda: tal.segment_iou(SCORES, SEGMENTS), r"a must have shape \[N, 2\], got \[6\]"),
        (
            lambda: _cumsum.range_sum(_cumsum.prefix_sum(SCORES), 0, jnp.array(1.5)),
            "end must hold integers, got float32",
        ),
        (
            lambda: reassignment.update_from_sums(
                reassignment.sum_piece(FEATURES, PROTOTYPES), PROTOTYPES, omega=2
            ),
            "omega must be from 0 to 1, got 2",
        ),
        (lambda: _check.setting(np.ones(2), "delta"), r"delta must have shape \[\], got \[2\]"),
    ],
)
def test_others(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_traced_is_not_looked_into():
    iou = jax.jit(lambda sigma: tal.soft_nms(SEGMENTS, VALUES, sigma=sigma))
    assert np.all(np.isfinite(iou(0.5)))
    assert not np.all(np.isfinite(iou(0.0)))


def _documented():
    """The functions of all modules of ops whose docstrings have arguments."""
    for module in pkgutil.iter_modules(tal.ops.__path__, "tal_jax.ops."):
        for name, op in vars(importlib.import_module(module.name)).items():
            own = inspect.isfunction(op) and op.__module__ == module.name
            if own and not name.startswith("_") and "Args:" in (op.__doc__ or ""):
                yield pytest.param(op, id=name)


@pytest.mark.parametrize("op", [*_documented()])
def test_static_arguments_are_those_of_the_docstring(op):
    """An op compiles by `tal_jax.jit`: what is documented as static is declared so."""
    # Python 3.13 strips the indentation of docstrings by itself: `getdoc` does everywhere.
    arguments = (inspect.getdoc(op) or "").partition("Args:")[2].partition("\n\nReturns:")[0]
    documented = {
        argument.split(":")[0].strip()
        for argument in arguments.replace("\n    ", " ").splitlines()
        if "(static)" in argument
    }
    assert documented == set(getattr(op, "static_argnames", ()))
