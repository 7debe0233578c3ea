"""What `import tal_jax` gives, and what it does not import."""

import inspect
import subprocess
import sys

import pytest

import tal_jax as tal

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
        "background, points, *, action_threshold, background_threshold, force_between, where"
    ),
    "optimal_sequence": "scores, action_seeds, background_seeds, *, delta, where",
    "segment_iou": "a, b",
    "nms": "segments, scores, *, iou_threshold, where",
    "soft_nms": "segments, scores, *, sigma, where",
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


def test_every_public_name_is_there_and_explained():
    assert list(tal.__all__) == sorted(set(tal.__all__))
    assert set(tal.__all__) <= set(dir(tal))
    for name in tal.__all__:
        assert inspect.getdoc(getattr(tal, name)), name


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'resampel'"):
        _ = tal.resampel


def test_import_is_light():
    heavy = ("jax", "flax", "optax", "orbax", "matplotlib", "ml_collections", "absl", "seglearn")
    later = {"orbax", "matplotlib", "seglearn", "tensorflow", "av", "pyarrow", "transformers"}
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
