"""What `import tal_jax` gives, and what it does not import."""

import ast
import configparser
import importlib
import inspect
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typecheck import unchecked

import tal_jax as tal
from tal_jax import losses

# Names of the design, with their arguments; * stands before those that need their keyword.
SIGNATURES = {
    "compensation_weights": "segments, length, *, tau, where",
    "cumulative_weights": "weights, *, where",
    "warp": "times, cumulative",
    "unwarp": "values, cumulative",
    "interpolate": "features, positions, *, where",
    "resample": "features, weights, num_samples, *, count, where, key",
    "assign_prototypes": "features, prototypes, *, gamma, where",
    "update_prototypes": "features, assignments, prototypes, *, omega, where",
    "reassign": "features, prototypes, *, gamma, omega, num_iters, closed_form, where",
    "inner_outer_contrast": "scores, segments, *, delta, where",
    "contrast_map": "scores, max_length, *, delta, where",
    "topk_mean": "scores, k, *, where",
    "mine_seeds": (
        "background, points, *, action_threshold, background_threshold, force_between, where, "
        "done, background_points"
    ),
    "optimal_sequence": "scores, action_seeds, background_seeds, *, delta, where",
    "segment_iou": "a, b",
    "nms": "segments, scores, *, iou_threshold, legacy_plus_one, where",
    "soft_nms": "segments, scores, *, sigma, legacy_plus_one, where",
    "fuse_detections": "segments, scores, sources, *, num_sources, iou_threshold, trust, where",
    "point_segments": "segments, scores, candidates, *, iou_threshold, temperature",
    "pyramid_anchors": "length, *, num_levels",
    "assign_anchors": "anchors, segments, *, where",
    "decode_segments": "anchors, offsets",
    "segment_diou": "a, b",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    parameters = inspect.signature(getattr(tal, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    shown = ", ".join([*positional, *(["*", *keywords] if keywords else [])])
    assert shown == SIGNATURES[name]


def test_evaluation_signature():
    parameters = inspect.signature(tal.evaluate_detections).parameters
    assert list(parameters)[:4] == ["ground_truth", "predictions", "tious", "subset"]


# Of the design: reachable by these names, whatever module they are in.
NAMES = """
    threshold_runs localize present_classes soft_attention semi_soft_attention hard_attention
    published_semi_soft_attention published_hard_attention rsmp_config hamnet_config RSMP HAMNet
    generate_points fit predict load_run evaluate_detections jit Detector
""".split()


def test_every_public_name_is_there_and_explained():
    assert list(tal.__all__) == sorted(set(tal.__all__))
    assert {*tal.__all__, "__version__"} <= set(dir(tal))
    assert {*NAMES, *SIGNATURES, *losses.__all__} <= set(tal.__all__)
    for name in tal.__all__:
        assert inspect.getdoc(getattr(tal, name)), name


def test_type_checkers_get_the_same_names():
    tree = ast.parse(inspect.getsource(tal))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        name.asname: f"{node.module}.{name.name}" for node in block.body for name in node.names
    }
    assert imported == {name: f"{module}.{name}" for name, module in tal._LAZY.items()}


def test_version_is_that_of_setup_cfg():
    settings = configparser.ConfigParser()
    settings.read(pathlib.Path(tal.__file__).parents[1] / "setup.cfg")
    assert tal.__version__ == settings["metadata"]["version"]


@pytest.mark.parametrize("module", ["tal_jax", "tal_jax.ops.pseudo_labels"])
def test_old_names_work_with_a_warning(module):
    module = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match="Sequence is now .*Segmentation"):
        assert module.Sequence is tal.Segmentation


@pytest.mark.slow
def test_old_unpacking_of_runs_works_with_a_warning():
    runs = tal.threshold_runs(jnp.array([0.0, 1.0, 0.0]), jnp.array([0.5]), max_runs=1)
    with pytest.warns(DeprecationWarning, match="unpacking"):
        segments, where, overflow = runs
    assert segments is runs.segments and where is runs.where and overflow is runs.overflow


# Arguments of one call each, some of them static.
STATIC = {
    "compensation_weights": ((jnp.ones((2, 2)), 3), {"tau": 2.0}),
    "contrast_map": ((jnp.ones(4), 2), {}),
    "fuse_detections": (
        (jnp.ones((3, 2)), jnp.ones(3), jnp.zeros(3, jnp.int32)),
        {"num_sources": 2, "iou_threshold": 0.5},
    ),
    "localize": (
        (jnp.ones((4, 2)), jnp.ones(4), jnp.ones(2)),
        {
            "thresholds": jnp.ones(1) / 2,
            "foreground_thresholds": jnp.ones(1) / 2,
            "max_runs": 2,
            "classes": jnp.ones(2, bool),
        },
    ),
    "mine_seeds": ((jnp.ones(4), jnp.ones((4, 1), bool)), {"force_between": "same"}),
    "pyramid_anchors": ((4,), {"num_levels": 2}),
    "reassign": ((jnp.ones((4, 2)), jnp.ones((1, 2))), {"num_iters": 1, "closed_form": True}),
    "resample": ((jnp.ones((4, 2)), jnp.ones(4), 3), {}),
    "sequence_segments": ((jnp.ones(4, bool),), {"num_segments": 2}),
    "threshold_runs": ((jnp.ones(4), jnp.ones(1) / 2), {"max_runs": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STATIC)
def test_static_arguments_are_known_to_jit(name):
    op, (args, kwargs) = getattr(tal, name), STATIC[name]
    got, want = tal.jit(op)(*args, **kwargs), op(*args, **kwargs)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert set(op.static_argnames) <= set(inspect.signature(op).parameters)
    assert all(argument in op.__doc__ for argument in op.static_argnames)
    with unchecked(), pytest.raises((ValueError, TypeError)):
        jax.jit(op)(*args, **kwargs)


def test_every_op_with_static_arguments_is_marked():
    """Those whose annotation is an int, a str or a bool."""
    for name in tal.__all__:
        if "tal_jax.ops." in tal._LAZY[name] and inspect.isfunction(op := getattr(tal, name)):
            parameters = inspect.signature(op).parameters.values()
            static = {p.name for p in parameters if p.annotation in (int, str, bool)}
            assert set(getattr(op, "static_argnames", ())) == static, name


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'resampel'"):
        _ = tal.resampel


def test_import_is_light():
    heavy = ("jax", "flax", "optax", "orbax", "matplotlib", "ml_collections", "absl", "seglearn")
    later = {
        "orbax",
        "matplotlib",
        "seglearn",
        "tensorflow",
        "av",
        "pyarrow",
        "transformers",
        "ray",
    }
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import tal_jax\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        f"print(sorted(new & set({heavy!r})))\n"
        "import tal_jax.cli\n"
        f"print(sorted({later!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["[]", "[]", ""]
