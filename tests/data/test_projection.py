"""Principal components against NumPy's singular values."""

import dataclasses

import numpy as np
import pytest

from tal_jax.data import projection
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import open_features
from tal_jax.data.projection import principal_components
from tal_jax.data.recordings import Recording, read_features

GRID = Grid(fps=1, stride_frames=1, window_frames=1)


def _recordings(sizes=(30, 1, 45), dim=6, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dim, dim))
    features = [(rng.normal(size=(size, dim)) @ mix + 3).astype(np.float32) for size in sizes]
    return [Recording(str(i), one, GRID, float(len(one))) for i, one in enumerate(features)]


@pytest.mark.parametrize("most", [2, 6, 100])
def test_components_are_those_of_the_singular_values(most):
    recordings = _recordings()
    found = principal_components(recordings, most)
    snippets = np.concatenate([one.features for one in recordings]).astype(np.float64)
    centred = snippets - snippets.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    size = min(most, 6)
    want = centred @ directions[:size].T
    want /= np.sqrt((singular[:size] ** 2 / len(snippets)).mean())
    got = np.concatenate([one.features for one in found.apply_to(recordings)])
    assert got.dtype == np.float32 and got.shape == (len(snippets), size)
    np.testing.assert_allclose(np.abs(got), np.abs(want), rtol=1e-4, atol=1e-4)
    # One scale: the mean variance is 1, and components keep their proportions, largest first.
    variances = got.astype(np.float64).var(axis=0)
    assert variances.mean() == pytest.approx(1, rel=1e-5) and np.all(np.diff(variances) < 0)


def test_signs_are_determined():
    """Whatever sign a library gives to an eigenvector, its largest entry is above 0."""
    recordings = _recordings(seed=1)
    components = principal_components(recordings, 4).components
    largest = np.abs(components).argmax(axis=0)
    assert np.all(components[largest, np.arange(4)] > 0)
    moved = [dataclasses.replace(one, features=6 - one.features) for one in recordings]
    np.testing.assert_allclose(principal_components(moved, 4).components, components, atol=1e-5)


def test_features_in_files_are_projected_when_read(tmp_path):
    recordings = _recordings()
    in_files = []
    for one in recordings:
        np.save(tmp_path / f"{one.name}.npy", one.features)
        features = open_features([tmp_path / f"{one.name}.npy"])
        in_files.append(dataclasses.replace(one, features=features))
    found, again = principal_components(recordings, 3), principal_components(in_files, 3)
    np.testing.assert_array_equal(found.components, again.components)
    pairs = zip(found.apply_to(in_files), found.apply_to(recordings), strict=True)
    for lazy, array in pairs:
        assert lazy.features.shape == array.features.shape and lazy.features.dtype == np.float32
        np.testing.assert_array_equal(read_features(lazy), array.features)
        np.testing.assert_array_equal(lazy.features[1:4], array.features[1:4])


def test_every_third_snippet_of_many(monkeypatch):
    """Counted over all recordings, as if these were one."""
    recordings = _recordings()
    monkeypatch.setattr(projection, "_MOST_SNIPPETS", 30)
    found = principal_components(recordings, 6)
    snippets = np.concatenate([one.features for one in recordings])[::3]
    alone = Recording("alone", snippets, GRID, float(len(snippets)))
    want = principal_components([alone], 6)
    np.testing.assert_allclose(found.mean, want.mean)
    np.testing.assert_allclose(found.components, want.components)


def test_constant_features_stay_finite():
    one = Recording("one", np.full((9, 3), 5.3, np.float32), GRID, 9.0)
    found = principal_components([one], 2)
    assert np.all(np.abs(found.apply(one.features)) < 1e-3)
    assert np.all(np.abs(found.apply(one.features + np.float32(1))) < 10)
