"""Every public op with every type of numbers, under every transformation and on meshes.

The reference of a type is the same op on the same numbers in float32, without any transformation;
that of float32 is what the other files of this folder test.
"""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import tal_jax as tal
from tal_jax.ops import attention, reassignment, resampling

# Minutes of compilation.
pytestmark = pytest.mark.slow

B, T, C, D, K, N = 2, 24, 3, 4, 2, 5
TYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64, jnp.int32]


def _numbers(shape, seed, low=0, high=64):
    """Whole multiples of 1/64, which all types with a fraction hold exactly up to 4."""
    return np.random.default_rng(seed).integers(low, high, (B, *shape)) / 64


def _segments(seed):
    return np.sort(np.random.default_rng(seed).integers(0, T, (B, N, 2)), axis=-1) * 1.0


def _flags(shape, seed, share=0.2):
    return np.random.default_rng(seed).random((B, *shape)) < share


_CUMULATIVE = np.concatenate([np.zeros((B, 1)), np.cumsum(_numbers((T,), 1), axis=1)], axis=1)
_WHERE = np.arange(T) < np.array([[T - 3], [T]])
_SCORES, _CAS, _FEATURES = _numbers((T,), 2), _numbers((T, C), 3), _numbers((T, D), 4, -64)
_PROTOTYPES = _numbers((K, D), 5, -64)
_THRESHOLDS = np.array([0.25, 0.5])


# Name: op of one recording; numbers, whose type is varied; masks and seeds; by what the result in
# float16 or bfloat16 may differ; whether the first argument has a gradient.
OPS = {
    "compensation_weights": (
        lambda s: tal.compensation_weights(s, T, tau=4.0), [_segments(6)], [], 0, True),
    "cumulative_weights": (
        lambda w, where: tal.cumulative_weights(w, where=where), [_SCORES], [_WHERE], 0, True),
    "warp": (tal.warp, [_numbers((N,), 7, 0, 256), _CUMULATIVE.round()], [], 0, True),
    "unwarp": (tal.unwarp, [_numbers((N,), 7, 0, 256), _CUMULATIVE.round()], [], 0, True),
    "interpolate": (
        lambda x, p, where: tal.interpolate(x, p, where=where),
        [_FEATURES, _numbers((N,), 8, 0, 256)], [_WHERE], 0.01, True),
    "resample": (
        lambda x, w, where: tal.resample(x, w, T + 3, count=T, where=where),
        [_FEATURES, _SCORES], [_WHERE], 0.01, True),
    "resample_points": (
        lambda p, w: tal.resample_points(p, resampling.sample_times(w, T)),
        [_numbers((N,), 8, 0, 256), _SCORES], [], 0, False),
    "assign_prototypes": (
        lambda x, p, where: tal.assign_prototypes(x, p, where=where),
        [_FEATURES, _PROTOTYPES], [_WHERE], 0.02, True),
    "update_prototypes": (
        lambda x, z, p, where: tal.update_prototypes(x, z, p, where=where),
        [_FEATURES, _numbers((T, K), 9), _PROTOTYPES], [_WHERE], 0.02, True),
    "reassign": (
        lambda x, p, where: tal.reassign(x, p, closed_form=True, where=where),
        [_FEATURES, _PROTOTYPES], [_WHERE], 0.05, True),
    "sum_piece": (
        lambda x, p, where: reassignment.sum_piece(x, p, where=where),
        [_FEATURES, _PROTOTYPES], [_WHERE], 0.2, True),
    "inner_outer_contrast": (
        lambda x, s, where: tal.inner_outer_contrast(x, s, where=where),
        [_SCORES, _segments(10)], [_WHERE], 0, True),
    "contrast_map": (
        lambda x, where: tal.contrast_map(x, 5, where=where), [_SCORES], [_WHERE], 0, True),
    "curve_contrast": (
        lambda x, s, where: tal.curve_contrast(x, s, min_outer=1.0, where=where),
        [_SCORES, _segments(11)], [_WHERE], 0, True),
    "topk_mean": (
        lambda x, where: tal.topk_mean(x, 4, where=where), [_CAS], [_WHERE], 0.01, True),
    "mine_seeds": (
        lambda x, p, where: tal.mine_seeds(x, p, force_between="same", where=where),
        [_SCORES], [_flags((T, C), 12), _WHERE], 0, False),
    "optimal_sequence": (
        lambda x, a, b, where: tal.optimal_sequence(x, a, b, where=where),
        [_SCORES], [_flags((T,), 13), _flags((T,), 14), _WHERE], 0, True),
    "sequence_segments": (
        lambda x, where: tal.sequence_segments(x, num_segments=8, where=where),
        [], [_flags((T,), 15, 0.5), _WHERE], 0, False),
    "best_segment": (
        lambda x, p, b, where: tal.best_segment(x, p, b, where=where),
        [_SCORES], [_flags((T,), 13), _flags((T,), 14), _WHERE], 0, False),
    "segment_iou": (tal.segment_iou, [_segments(16), _segments(17)], [], 0, True),
    "nms": (
        lambda s, x: tal.nms(s, x, iou_threshold=0.5),
        [_segments(16), _numbers((N,), 18)], [], 0, False),
    "soft_nms": (
        lambda x, s: tal.soft_nms(s, x, sigma=0.5), [_numbers((N,), 18), _segments(16)], [], 0,
        True),
    "disjoint_segments": (
        tal.disjoint_segments, [_segments(16), _numbers((N,), 18)], [], 0, False),
    "fuse_detections": (
        lambda s, x: tal.fuse_detections(
            s, x, jnp.arange(N, dtype=jnp.int32) % 2, num_sources=2, iou_threshold=0.25),
        [_segments(16), _numbers((N,), 18)], [], 0, True),
    "point_segments": (
        lambda s, x, c: tal.point_segments(s, x, c, temperature=32.0),
        [_segments(16), _numbers((N,), 18)], [_flags((K, N), 20, 0.6)], 0.01, True),
    "assign_anchors": (
        lambda s: tal.assign_anchors(tal.pyramid_anchors(T, num_levels=3), s),
        [_segments(17)], [], 0, False),
    "decode_segments": (
        lambda x: tal.decode_segments(tal.pyramid_anchors(T, num_levels=3), x),
        [_numbers((T + T // 2 + T // 4, 2), 21)], [], 0, True),
    "segment_diou": (tal.segment_diou, [_segments(16), _segments(17)], [], 0, True),
    "threshold_runs": (
        lambda x, where: tal.threshold_runs(x, _THRESHOLDS, max_runs=9, where=where),
        [_SCORES], [_WHERE], 0, True),
    "localize": (
        lambda x, a, v, where: tal.localize(
            x, a, v, classes=v > 0, thresholds=_THRESHOLDS, foreground_thresholds=_THRESHOLDS,
            max_runs=6, soft_sigma=0.3, where=where),
        [_CAS, _SCORES, _numbers((C,), 19)], [_WHERE], 0, False),
    "present_classes": (tal.present_classes, [_numbers((C,), 19)], [], 0, False),
    "soft_attention": (
        lambda x, where: attention.soft_attention(x, where=where), [_CAS], [_WHERE], 0.01, True),
    "semi_soft_attention": (
        lambda x, where: attention.semi_soft_attention(x, low=0.25, high=0.75, where=where),
        [_SCORES], [_WHERE], 0, True),
    "hard_attention": (
        lambda x, where: attention.hard_attention(x, jax.random.key(0), low=0.25, where=where),
        [_SCORES], [_WHERE], 0, False),
    "published_semi_soft_attention": (
        lambda x, where: attention.published_semi_soft_attention(x, gamma=0.5, where=where),
        [_SCORES], [_WHERE], 0, True),
    "published_hard_attention": (
        lambda x, where: attention.published_hard_attention(x, gamma=0.5, where=where),
        [_SCORES], [_WHERE], 0, False),
    "attend": (attention.attend, [_CAS, _SCORES], [], 0.02, True),
}  # fmt: skip


def _arguments(name, dtype=jnp.float32, mask_dtype=bool):
    """The arguments of B recordings; integers are all numbers times 64."""
    _, numbers, masks, _, _ = OPS[name]
    return [*(_as(array, dtype) for array in numbers), *(m.astype(mask_dtype) for m in masks)]


def _as(array, dtype):
    whole = np.all(array == array.round())
    scaled = array * 64 if dtype == jnp.int32 and not whole else array
    return jnp.asarray(scaled, dtype)


def _row(arguments, row=0):
    return [array[row] for array in arguments]


def _assert_close(got, want, tolerance=0.0):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        np.testing.assert_allclose(one, other, rtol=max(tolerance, 1e-5), atol=tolerance + 2e-6)


@functools.cache
def _compiled(name):
    return jax.jit(OPS[name][0])


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", OPS)
def test_types(name, dtype):
    """Seeds and masks are 0/1 integers where numbers are not float32."""
    op, _, _, tolerance, _ = OPS[name]
    with jax.enable_x64(dtype == jnp.float64):
        mask_dtype = bool if dtype == jnp.float32 else np.int8
        got = jax.jit(op)(*_row(_arguments(name, dtype, mask_dtype)))
        for leaf in jax.tree.leaves(got):
            assert leaf.dtype in (bool, jnp.int32, jnp.float32, dtype), leaf.dtype
        # The same numbers in float32, which for integers are whole.
        same = [x if x.dtype == bool else x.astype(jnp.float32) for x in _arguments(name, dtype)]
    _assert_close(got, _compiled(name)(*_row(same)), tolerance if dtype != jnp.float32 else 0)


@pytest.mark.parametrize("name", OPS)
def test_transformations(name):
    op = OPS[name][0]
    arguments = _arguments(name)
    want = [_compiled(name)(*_row(arguments, row)) for row in range(B)]
    _assert_close(jax.checkpoint(op)(*_row(arguments)), want[0])
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *want)
    _assert_close(jax.jit(jax.vmap(op))(*arguments), stacked)
    _, scanned = jax.lax.scan(lambda carry, rows: (carry, op(*rows)), 0, arguments)
    _assert_close(scanned, stacked)


def _loss(op, *arguments):
    leaves = jax.tree.leaves(op(*arguments))
    leaves = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum(jnp.where(jnp.isfinite(leaf), leaf, 0).astype(jnp.float32).sum() for leaf in leaves)


@pytest.mark.parametrize("name", [name for name in OPS if OPS[name][4]])
def test_gradients(name):
    """That of bfloat16 is that of float32, and comes through `checkpoint`, `vmap` and `scan`."""
    op, _, _, tolerance, _ = OPS[name]
    gradient = jax.grad(functools.partial(_loss, op))
    arguments = _arguments(name)
    want = jax.jit(jax.vmap(gradient))(*arguments)
    assert np.all(np.isfinite(want))
    again = jax.grad(jax.checkpoint(functools.partial(_loss, op)))
    _assert_close(
        jax.jit(lambda *rows: jax.lax.map(lambda row: again(*row), rows))(*arguments), want
    )
    half = jax.jit(jax.vmap(gradient))(*_arguments(name, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    scale = max(np.abs(want).max(), 1)
    half = np.asarray(half.astype(jnp.float32))
    _assert_close(half / scale, np.asarray(want) / scale, 3 * tolerance + 0.02)


# A vectorized `cond` has a gradient whose branches are not split alike: see the op's docstring.
NO_EXPLICIT_GRADIENT = ("optimal_sequence",)


def _on_meshes(name):
    """The results in `jax.shard_map` and on an explicit mesh, beside those of `jax.vmap`."""
    op, differentiable = OPS[name][0], OPS[name][4]
    functions = [jax.vmap(op)]
    if differentiable:
        functions.append(jax.vmap(jax.grad(functools.partial(_loss, op))))
    devices = jax.device_count()
    for function in functions:
        arguments = _arguments(name)
        want = jax.jit(function)(*arguments)
        auto = jax.make_mesh((devices,), ("b",), axis_types=(AxisType.Auto,))
        split = jax.shard_map(function, mesh=auto, in_specs=P("b"), out_specs=P("b"))
        _assert_close(jax.jit(split)(*arguments), want)
        explicit = jax.make_mesh((devices,), ("b",), axis_types=(AxisType.Explicit,))
        if function is not functions[0] and name in NO_EXPLICIT_GRADIENT:
            continue
        with jax.set_mesh(explicit):
            placed = [jax.device_put(array, P("b")) for array in arguments]
            _assert_close(jax.jit(function)(*placed), want)


@pytest.mark.parametrize("name", OPS)
def test_meshes(name):
    """On the devices of this process; their types are checked alike on one and on several."""
    _on_meshes(name)


def test_meshes_of_two_devices():
    """In another process: the tests of training see the devices of a plain machine."""
    program = (
        "import jax\n"
        "jax.config.update('jax_num_cpu_devices', 2)\n"
        "import test_matrix\n"
        "for name in ('optimal_sequence', 'localize', 'reassign', 'topk_mean', 'resample'):\n"
        "    test_matrix._on_meshes(name)\n"
        "print(jax.device_count())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=__file__.rpartition("/")[0], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "2", done.stderr


def test_a_recording_split_over_an_explicit_mesh_is_refused():
    explicit = jax.make_mesh((1,), ("b",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(explicit):
        scores = jax.device_put(jnp.zeros(T), P("b"))
        with pytest.raises(ValueError, match="scores is split over mesh axis 'b' along T"):
            tal.contrast_map(scores, 3)
        attention.published_hard_attention(scores)  # elementwise but for one maximum


def test_leading_axes_are_batch_axes():
    features = jnp.asarray(np.stack([_FEATURES, 2 * _FEATURES]), jnp.float32)  # [2, B, T, D]
    prototypes = jnp.asarray(_PROTOTYPES[0], jnp.float32)  # [K, D], shared
    where = jnp.asarray(_WHERE)
    got = tal.reassign(features, prototypes, where=where)
    shares = tal.assign_prototypes(features, prototypes, where=where)
    moved = tal.update_prototypes(features, shares, prototypes, where=where)
    pooled = tal.topk_mean(features, 3, where=where)
    for i in range(2):
        for j in range(B):
            row = features[i, j]
            want = tal.reassign(row, prototypes, where=where[j])
            _assert_close(jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], got), want)
            one = tal.assign_prototypes(row, prototypes, where=where[j])
            _assert_close(shares[i, j], one)
            _assert_close(moved[i, j], tal.update_prototypes(row, one, prototypes, where=where[j]))
            _assert_close(pooled[i, j], tal.topk_mean(row, 3, where=where[j]))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_integer_seeds_are_those_of_bools(dtype):
    scores = jnp.asarray(_SCORES[0], jnp.float32)
    action, background = _flags((T,), 13)[0], _flags((T,), 14)[0]
    want = tal.optimal_sequence(scores, action, background)
    got = tal.optimal_sequence(scores, action.astype(dtype), background.astype(dtype))
    np.testing.assert_array_equal(got.labels, want.labels)
    assert 0 < want.labels.sum() < T
