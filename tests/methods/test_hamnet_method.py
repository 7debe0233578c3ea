"""Tests of HAM-Net as a method: losses against float64 NumPy, what it learns from labels alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax import losses, methods
from tal_jax.config import DEFAULTS, check_config, data_config, hamnet_config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Dataset, Recording
from tal_jax.inference.predict import predict
from tal_jax.losses.hamnet import hamnet_losses, video_labels
from tal_jax.methods import hamnet
from tal_jax.methods.base import apply_to_batch
from tal_jax.runs.fit import fit
from tal_jax.runs.results import evaluate
from tal_jax.runs.workdir import load_run

GRID = Grid(fps=10, stride_frames=5, window_frames=5)
NUM_CLASSES, LENGTH = 3, 16
LENGTHS, LABELS = (16, 11), ((0, 2), (1,))


def _config(variant, **loss):
    config = hamnet_config(variant)
    config.model.widths, config.model.attention_width = (16, 16), 8
    config.model.dropout = 0.1
    config.loss.topk_ratio = 4.0
    config.loss.update(loss)
    return config


def _batch(dim=5, done=(None, None)):
    rng = np.random.default_rng(0)
    recordings = [
        Recording(
            str(number),
            rng.normal(size=(length, dim)).astype(np.float32),
            GRID,
            GRID.to_seconds(float(length)),
            labels=labels,
            done_s=done_s,
        )
        for number, (length, labels, done_s) in enumerate(zip(LENGTHS, LABELS, done, strict=True))
    ]
    timeline = packing.pack_timeline(recordings, length=LENGTH)
    timeline = timelines.with_features(timeline, packing.pack_features(recordings))
    timeline = jax.tree.map(jnp.asarray, timeline)
    return timelines.resample_batch(timeline, LENGTH)


# ---- losses


def _reference_loss(logits, labels, background, topk_ratio):
    """Cross-entropy of one recording's valid logits, in float64."""
    k = max(1, int(len(logits) / topk_ratio))
    pooled = np.sort(logits.astype(np.float64), axis=0)[::-1][:k].mean(axis=0)
    log_softmax = pooled - np.log(np.exp(pooled - pooled.max()).sum()) - pooled.max()
    target = np.zeros(NUM_CLASSES + 1)
    target[list(labels)], target[-1] = 1, background
    return -(target / target.sum() * log_softmax).sum()


@pytest.mark.slow
def test_partly_done_recordings_are_pooled_where_they_are_done():
    """One in two stretches, one nowhere."""
    config, key = _config("document"), jax.random.key(1)
    batch = _batch(done=(((1.0, 3.0), (6.0, 8.0)), ()))
    model = hamnet.make_model(config, NUM_CLASSES)
    params = model.init(jax.random.key(0), batch.features, where=batch.where)["params"]
    weights = {name: jnp.float32(config.loss[name]) for name in hamnet.METHOD.loss_weights}
    parts = hamnet.loss(model, config, params, batch, (), weights, key)
    outputs = apply_to_batch(model, params, batch, key)
    done = [2, 3, 4, 5, 12, 13, 14, 15]
    for name, background in (("base", 1), ("semi", 0), ("hard", 1)):
        logits = np.asarray(getattr(outputs, name))[0, done]
        want = _reference_loss(logits, LABELS[0], background, 4) / 2
        np.testing.assert_allclose(parts[name], want, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["document", "published"])
def test_losses_against_numpy(variant):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 2, LENGTH, NUM_CLASSES + 1)).astype(np.float32) * 3
    attention = rng.random((2, LENGTH)).astype(np.float32)
    where = np.arange(LENGTH) < np.array(LENGTHS)[:, None]
    logits[:, ~where], attention[~where] = 1e4, 7  # what lies beyond the end changes nothing
    base, semi, soft, hard = logits
    outputs = {"base": base, "semi": semi, "hard": hard}
    if variant == "published":
        outputs["soft"] = soft
    batch = _batch()
    labels = video_labels(batch.video_classes, batch.video_class_where, NUM_CLASSES)
    parts = jax.jit(hamnet_losses, static_argnames="topk_ratio")(
        outputs,
        attention if variant == "published" else None,
        labels,
        topk_ratio=4.0,
        where=batch.where,
    )
    branches = {"base": (base, 1), "semi": (semi, 0), "hard": (hard, 1)}
    if variant == "published":
        branches["soft"] = (soft, 0)
    want = {
        name: np.mean(
            [
                _reference_loss(values[row][:length], LABELS[row], background, 4)
                for row, length in enumerate(LENGTHS)
            ]
        )
        for name, (values, background) in branches.items()
    }
    if variant == "published":
        valid = [(attention[row][:n], base[row][:n]) for row, n in enumerate(LENGTHS)]
        want["sparse"] = np.mean([a.astype(np.float64).mean() for a, _ in valid])
        weights = [np.exp(b.astype(np.float64)) for _, b in valid]
        p_bg = [w[:, -1] / w.sum(axis=1) for w in weights]
        guide = [np.abs(1 - a - p).mean() for (a, _), p in zip(valid, p_bg, strict=True)]
        want["guide"] = np.mean(guide)
    assert set(parts) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_total_is_the_weighted_sum():
    """And each weight is traced: no other program for other weights."""
    config, batch = _config("published"), _batch()
    model = hamnet.make_model(config, NUM_CLASSES)
    params = model.init(jax.random.key(0), batch.features, where=batch.where)["params"]
    compute = jax.jit(
        lambda weights: hamnet.loss(model, config, params, batch, (), weights, jax.random.key(1))
    )
    weights = {name: jnp.float32(i + 1) for i, name in enumerate(hamnet.METHOD.loss_weights)}
    parts = compute(weights)
    want = sum(
        float(weights[f"lambda_{name}"]) * float(value)
        for name, value in parts.items()
        if name != "loss"
    )
    np.testing.assert_allclose(parts["loss"], want, rtol=1e-5)
    compute({name: weight * 0 for name, weight in weights.items()})
    assert compute._cache_size() == 1


def test_nothing_to_learn_from_costs_nothing():
    loss = functools.partial(losses.video_mil_loss, background=0.0, topk_ratio=2)
    logits = jnp.full((4, 3), jnp.nan)
    where = jnp.zeros(4, bool)
    value, gradient = jax.value_and_grad(lambda x: loss(x, jnp.array([1, 0]), where=where))(logits)
    assert value == 0 and not gradient.any()
    assert loss(jnp.ones((4, 3)), jnp.zeros(2, bool)) == 0  # no label
    assert losses.guide_loss(logits[:, 0], logits[:, 1], where=where) == 0
    assert losses.sparsity_loss(logits[:, 0], where=where) == 0


@pytest.mark.parametrize("stop, of_background", [(False, [0.5, -0.5]), (True, [0, 0])])
def test_attention_is_guided_and_the_background_too_unless_stopped(stop, of_background):
    guide = functools.partial(losses.guide_loss, stop_gradient=stop)
    gradients = jax.grad(guide, (0, 1))(jnp.array([0.9, 0.2]), jnp.array([0.5, 0.1]))
    np.testing.assert_allclose(gradients[0], [0.5, -0.5])
    np.testing.assert_allclose(gradients[1], of_background)


@pytest.mark.parametrize("variant, stopped", [("published", False), ("mended", True)])
@pytest.mark.slow
def test_the_guide_loss_of_a_variant(variant, stopped):
    """Whether it reaches the classifier: the only part here whose weight is not zero."""
    config, batch = _config(variant), _batch()
    model = hamnet.make_model(config, NUM_CLASSES)
    params = model.init(jax.random.key(0), batch.features, where=batch.where)["params"]
    weights = {name: jnp.float32(0) for name in hamnet.METHOD.loss_weights}
    weights["lambda_guide"] = jnp.float32(1)

    def total(params):
        parts = hamnet.loss(model, config, params, batch, (), weights, jax.random.key(1))
        return parts["loss"]

    of_classifier = jax.grad(total)(params)
    names = [name for name in of_classifier if "attention" not in name.lower()]
    largest = max(float(abs(x).max()) for x in jax.tree.leaves([of_classifier[n] for n in names]))
    assert (largest == 0) == stopped


# ---- the whole method


def _dataset(parts=((8, 0, 4, 1.0),), gaps=(8, 14)):
    """Two classes of bumps, of which each recording holds one.

    A bump is made of `parts` that follow each other: snippets, first and last of the class's four
    channels, height.
    """
    rng = np.random.default_rng(0)
    length = sum(part[0] for part in parts)
    recordings, database = [], {}
    for number in range(18):
        label, features = number % 2, rng.normal(0, 0.3, (64, 8)).astype(np.float32)
        instances, start = [], int(rng.integers(3, 8))
        while start + length + 4 < 64:
            at = start
            for size, first, last, height in parts:
                features[at : at + size, 4 * label + first : 4 * label + last] += height
                at += size
            segment = [GRID.to_seconds(float(start)), GRID.to_seconds(float(at))]
            instances.append({"label": "ab"[label], "segment": segment})
            start = at + int(rng.integers(*gaps))
        name = f"r{number}"
        recordings.append(Recording(name, features, GRID, 32.0, labels=(label,)))
        database[name] = {"subset": "test", "annotations": instances}
    test = tuple(dataclasses.replace(one, labels=None) for one in recordings[12:])
    truth = {"database": {one.name: database[one.name] for one in test}}
    return Dataset(("a", "b"), tuple(recordings[:12]), test, truth)


def _learn(config, dataset, workdir, **settings):
    """Trains a while; the network and what it finds."""
    config.data = data_config("folder")
    config.train.update(steps=200, batch_size=6, learning_rate=3e-3, length=64, search_every=20)
    config.train.update(l2=1e-4, log_every=100, checkpoint_every=200, jitter=False)
    fitted = fit(dataset, config, workdir=workdir, **settings)
    found = predict(fitted, dataset.test)
    return fitted, evaluate(found, dataset.ground_truth, check_config(config))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["document", "published"])
def test_learns_from_labels_alone(variant, tmp_path):
    lines = []
    workdir = tmp_path / "run"
    fitted, metrics = _learn(_config(variant), _dataset(), workdir, report=lines.append)
    assert metrics.map[2] > 0.6  # at tIoU .3
    assert any("base" in line and "semi-soft" in line for line in lines)
    again = load_run(workdir)
    assert predict(again, _dataset().test) == predict(fitted, _dataset().test)


@pytest.mark.slow
def test_only_attention_finds_the_whole_action(tmp_path):
    """Of an action's ten snippets three are so striking that a classifier looks at nothing else."""
    dataset = _dataset(parts=((3, 0, 2, 2.0), (7, 2, 4, 1.0)))
    config = _config("document", topk_ratio=16.0)
    _, complete = _learn(config, dataset, tmp_path / "complete")
    config = _config("document", topk_ratio=16.0, lambda_semi=0.0, lambda_hard=0.0)
    config.model.branch = "base"
    _, base = _learn(config, dataset, tmp_path / "base")
    assert complete.map[3] > 0.8  # at tIoU .4
    assert base.map[3] < 0.3


@pytest.mark.slow
def test_stopped_run_ends_the_same(tmp_path):
    """With the random masks of the document's hard attention, which must go on where they were."""

    def train(workdir, report=lambda line: None):
        return fit(_dataset(), config, workdir=workdir, report=report).params

    def stop(line):
        if "update    40/60" in line:
            raise KeyboardInterrupt

    config = _config("document")
    config.data = data_config("folder")
    config.train.update(steps=60, batch_size=6, length=64, search_every=10, jitter=False)
    config.train.update(log_every=10, checkpoint_every=30, learning_rate=3e-3)
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stop)
    jax.tree.map(np.testing.assert_array_equal, train(tmp_path / "stopped"), whole)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["document", "published"])
def test_base_branch_reads_no_attention(variant):
    config, batch = _config(variant), _batch()
    model = hamnet.make_model(config, NUM_CLASSES)
    params = model.init(jax.random.key(0), batch.features, where=batch.where)["params"]
    base = model.apply({"params": params}, batch.features, where=batch.where).base
    config.model.branch = "base"
    said = hamnet.logits(model, config, params, batch.features, batch.where)
    read = hamnet.predictions(config, said, batch.where)
    softmax = jax.nn.softmax(base)
    expected = (softmax if variant == "document" else base)[..., :-1]
    np.testing.assert_allclose(read.cas, expected, atol=1e-6)
    np.testing.assert_allclose(read.actionness, softmax[..., :-1].sum(-1), atol=1e-6)


def test_every_method_is_complete():
    for name, method in methods.METHODS.items():
        defaults = DEFAULTS[name]().loss
        assert method.loss_weights and set(method.loss_weights) <= set(defaults)
        assert method.progress_terms and method.supervision in ("points", "labels")
