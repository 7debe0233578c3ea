"""Tests of what the networks compute in another way on CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.models import _cpu, layers


def _random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- convolution in pairs


@pytest.mark.parametrize("length, dilation", [(1, 1), (8, 1), (9, 1), (10, 2), (11, 4)])
def test_convolution_in_pairs_is_the_plain_one(length, dilation):
    inputs, kernel = _random(0, 2, length, 5), _random(1, 3, 5, 4)
    cotangent = _random(2, 2, length, 4)

    def with_gradients(convolve):
        @jax.jit
        def run(inputs, kernel):
            out, backward = jax.vjp(lambda *x: convolve(*x, dilation=dilation), inputs, kernel)
            return out, *backward(jnp.asarray(cotangent))

        return run(inputs, kernel)

    got, want = (
        with_gradients(convolve)
        for convolve in (_cpu.paired_convolution, layers.temporal_convolution)
    )
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_wide_layers_are_exact_to_float32():
    params, inputs = _wide_layer()
    padded = np.pad(inputs[0].astype(np.float64), ((1, 1), (0, 0)))
    taps = np.concatenate([padded[tap : tap + 21] for tap in range(3)], axis=1)
    want = taps @ params["params"]["Dense_0"]["kernel"].astype(np.float64)
    got = np.asarray(jax.jit(layers.TemporalConv(256).apply)(params, inputs))[0]
    assert np.abs(got - want).max() < 3e-6 * np.abs(want).max()


# ---- which platform computes how


# Operands of products: four for two snippets; three taps side by side.
PAIRED, PLAIN = "tensor<4x11x256xf32>", "tensor<1x21x768xf32>"


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_cpus_convolve_in_pairs(platform):
    """In what is lowered for one platform, and in the gradient."""
    params, inputs = _wide_layer()
    apply = layers.TemporalConv(256).apply

    def total(params, inputs):
        return jnp.sum(apply(params, inputs) ** 2)

    for function in (apply, jax.grad(total)):
        products = _products(_lowered(function, (params, inputs), (platform,)))
        assert (PAIRED in products) == (platform == "cpu")
        assert (PLAIN in products) == (platform != "cpu")


def test_an_export_for_all_platforms_contains_both():
    """With free batch and length, as `tal_jax.inference.export` writes it."""
    params, _ = _wide_layer()
    b, t = jax.export.symbolic_shape("b, t")
    inputs = jax.ShapeDtypeStruct((b, t, 256), jnp.float32)
    apply = layers.TemporalConv(256).apply
    for platforms in (("cpu", "cuda", "tpu"), ("cpu",), ("cuda",), ("tpu",)):
        products = _products(_lowered(apply, (params, inputs), platforms))
        assert ("tensor<4x?x256xf32>" in products) == ("cpu" in platforms)
        assert ("tensor<?x?x768xf32>" in products) == (platforms != ("cpu",))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_cpus_hash_for_dropout(platform):
    def drop(inputs, key):
        layer = layers.Dropout(0.5)
        return layer.apply({}, inputs, deterministic=False, rngs={"dropout": key})

    program = _lowered(drop, (np.ones((2, 9, 5), np.float32), jax.random.key(0)), (platform,))
    assert (str(0x846CA68B) in program) == (platform == "cpu")


def test_compiled_programs_have_no_branches():
    params, inputs = _wide_layer()
    compiled = jax.jit(jax.grad(lambda *given: layers.TemporalConv(256).apply(*given).sum()))
    assert "conditional" not in compiled.lower(params, inputs).compile().as_text()


def test_an_export_for_all_platforms_runs_without_branches():
    """What is for other platforms is left out when it is compiled."""
    params, inputs = _wide_layer()
    convolve = jax.jit(layers.TemporalConv(256).apply)
    exported = jax.export.export(convolve, platforms=("cpu", "cuda", "tpu"))(params, inputs)
    assert "stablehlo.case" in exported.mlir_module()
    compiled = jax.jit(exported.call).lower(params, inputs).compile().as_text()
    assert "f32[4,11,256]" in compiled
    assert "conditional" not in compiled and "f32[1,21,768]" not in compiled


def _wide_layer():
    inputs, kernel = _random(0, 1, 21, 256), _random(1, 3 * 256, 256)
    return {"params": {"Dense_0": {"kernel": kernel, "bias": np.zeros(256, np.float32)}}}, inputs


def _lowered(function, given, platforms):
    return jax.export.export(jax.jit(function), platforms=platforms)(*given).mlir_module()


def _products(program):
    return "\n".join(line for line in program.splitlines() if "dot_general" in line)


# ---- hashed dropout


def _bits(seed, shape):
    return np.asarray(jax.jit(_cpu.hashed_bits, static_argnums=1)(jax.random.key(seed), shape))


def test_hashed_bits_are_uniform():
    words = _bits(0, (64, 8, 128))
    assert words.dtype == np.uint32 and words.shape == (64, 8, 128)
    size = words.size  # 65,536
    assert len(np.unique(words)) == size  # the hash is one-to-one
    assert words.mean() / 2**32 == pytest.approx(0.5, abs=5 * 12**-0.5 * size**-0.5)
    counts = np.bincount((words >> 24).ravel(), minlength=256)
    np.testing.assert_allclose(counts, size / 256, atol=5.5 * (size / 256) ** 0.5)
    bits = (words.ravel()[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=5 * 0.5 * size**-0.5)
    # Neighbours along every axis agree in half of their bits.
    for axis in range(3):
        shape = np.moveaxis(words, axis, 0)
        change = np.bitwise_count(shape[1:] ^ shape[:-1]).mean()
        assert change == pytest.approx(16, abs=0.2)


def test_hashed_bits_of_other_keys_and_shapes():
    one, other = (_bits(seed, (8, 64)) for seed in (0, 1))
    assert np.bitwise_count(one ^ other).mean() == pytest.approx(16, abs=0.5)
    # An element's word depends on its number alone.
    np.testing.assert_array_equal(_bits(0, (512,)), one.ravel())
