"""Runs on partly labelled recordings."""

import dataclasses

import jax
import numpy as np
import pytest
import toy

from tal_jax.runs.fit import fit

# They compile.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return toy.dataset(toy.write(tmp_path_factory.mktemp("toy") / "data", num_train=4, num_test=1))


def _config(length):
    config = toy.config()
    config.train.rounds, config.train.steps, config.train.checkpoint_every = 1, 10, 10
    config.train.length = length
    # The second stage compiles the same for both lengths.
    config.stages = ("rounds", "detector") if length == 448 else ("rounds",)
    config.detector.steps, config.detector.num_levels = 10, 3
    return config


def _with_done(dataset, stretches_of):
    train = [
        dataclasses.replace(recording, done_s=stretches_of(recording))
        for recording in dataset.train
    ]
    return dataclasses.replace(dataset, train=tuple(train))


@pytest.mark.parametrize("length", [448, 96])
def test_wholly_done_by_the_key_is_bitwise_the_same(dataset, tmp_path, length):
    """And needs no other program. With whole recordings, and with windows of them."""
    plain = fit(dataset, _config(length), workdir=tmp_path / "plain")
    whole = _with_done(dataset, lambda recording: ((0.0, recording.duration_s),))
    with toy.compilations() as compiled:
        again = fit(whole, _config(length), workdir=tmp_path / "again")
    assert not {"jit(run)", "jit(block)", "jit(forward)"} & set(compiled)
    detectors = [getattr(one.detector, "params", None) for one in (plain, again)]
    for one, other in ((plain.params, again.params), detectors):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_partly_done_recordings_are_trained_on(dataset, tmp_path):
    """Labels in unknown time that were never seen change nothing; the loss learns from the rest."""

    def third(recording):
        return ((0.2 * recording.duration_s, 0.55 * recording.duration_s),)

    partly = _with_done(dataset, third)
    train = []
    for recording in partly.train:
        (start_s, end_s), points = recording.done_s[0], recording.points
        inside = tuple(one for one in points if start_s <= one.time_s < end_s)
        lone = tuple(one for one in points if one.time_s >= end_s)[-1:]
        background_s = (recording.points[0].time_s - 1.0,) if recording.points[0].time_s > 1 else ()
        train.append(
            dataclasses.replace(recording, points=inside + lone, background_s=background_s)
        )
    partly = dataclasses.replace(partly, train=tuple(train), train_truth=None)
    lines = []
    fitted = fit(partly, _config(448), workdir=tmp_path / "partly", report=lines.append)
    assert any("of them labelled" in line for line in lines)
    for leaf in jax.tree.leaves((fitted.params, fitted.detector.params)):
        assert np.isfinite(leaf).all()
