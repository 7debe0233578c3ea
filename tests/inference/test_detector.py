"""Detections of a detector with random parameters: windows, classes, order."""

import dataclasses

import jax
import numpy as np
import pytest
import toy

from tal_jax.config import check_config, detector_config
from tal_jax.data import sliding_window
from tal_jax.data.projection import principal_components
from tal_jax.data.recordings import Recording
from tal_jax.inference import detector

# Half a minute of compilation.
pytestmark = pytest.mark.slow

CLASSES = ("a", "b", "c")


def _recording(name, length, seed=0):
    features = np.random.default_rng(seed).normal(size=(length, 6)).astype(np.float32)
    return Recording(name, features, toy.GRID, float(toy.GRID.to_seconds(length)) - 0.2)


@pytest.fixture(scope="module")
def fitted():
    """Two levels, so that all windows begin at a multiple of the coarsest stride of 2."""
    config = toy.config()
    config.detector.update(width=16, components=5)
    own = detector_config(check_config(config), num_levels=2)
    projection = principal_components([_recording("train", 50, seed=9)], 5)
    made = detector.FittedDetector(None, own, projection, CLASSES)
    where = np.ones((1, 8), bool)
    params = made.model.init(jax.random.key(0), np.zeros((1, 8, 5), np.float32), where=where)
    leaves, structure = jax.tree.flatten(params["params"])
    rng = np.random.default_rng(1)
    leaves = [0.4 * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return dataclasses.replace(made, params=jax.tree.unflatten(structure, leaves))


def _rows(entries):
    return sorted((e["label"], *e["segment"], e["score"]) for e in entries)


def test_windows_are_one_pass(fitted, monkeypatch):
    """A recording of three windows and a rest: the candidates of all anchors are the same."""
    recording = _recording("long", 110)
    monkeypatch.setattr(detector, "_LEAST_CANDIDATES", 1024)  # all
    want = detector.detect(fitted, [recording], soft_sigma=0.5)["long"]
    monkeypatch.setattr(sliding_window, "MOST_SNIPPETS", 32)
    assert fitted.model.reach % fitted.model.multiple == 0
    got = detector.detect(fitted, [recording], soft_sigma=0.5)["long"]
    assert len(got) > 20
    np.testing.assert_allclose(
        [row[1:] for row in _rows(got)], [row[1:] for row in _rows(want)], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("num_levels", range(1, 11))
def test_windows_begin_at_a_multiple_of_every_stride(num_levels):
    """Else the pyramid of a window would be another one than that of the recording."""
    config = detector_config(check_config(toy.config()), num_levels)
    model = detector.detector.make_model(config, 2)
    assert sliding_window.MOST_SNIPPETS % model.multiple == 0 == model.reach % model.multiple


def test_wanted_classes_order_and_ends(fitted):
    recordings = [_recording("x", 40, 1), _recording("y", 70, 2), _recording("z", 40, 3)]
    found = detector.detect(fitted, recordings, soft_sigma=0.5)
    assert list(found) == ["x", "y", "z"]
    for recording in recordings:
        entries = found[recording.name]
        assert {entry["label"] for entry in entries} == set(CLASSES)
        scores = [entry["score"] for entry in entries]
        assert scores == sorted(scores, reverse=True) and 0 < scores[-1] <= scores[0] <= 1
        for entry in entries:
            start_s, end_s = entry["segment"]
            assert 0 <= start_s < end_s <= recording.duration_s
    wanted = {"x": (0, 2), "y": (1,), "z": ()}
    some = detector.detect(fitted, recordings, soft_sigma=0.5, wanted=wanted)
    for name, labels in wanted.items():
        own = [e for e in found[name] if CLASSES.index(e["label"]) in labels]
        # The worst of a recording are left out by its best.
        assert _rows(some[name])[: len(own)] == _rows(own) or len(some[name]) >= len(own)
        assert {e["label"] for e in some[name]} == {CLASSES[label] for label in labels}
    alone = detector.detect(fitted, recordings[1:2], soft_sigma=0.5)["y"]
    np.testing.assert_allclose(
        [row[1:] for row in _rows(alone)], [row[1:] for row in _rows(found["y"])], rtol=1e-4
    )
    assert detector.detect(fitted, [], soft_sigma=0.5) == {}
