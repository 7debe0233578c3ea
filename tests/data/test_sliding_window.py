"""Recordings read window by window, against the same read at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from tal_jax import methods
from tal_jax.config import DEFAULTS
from tal_jax.data import sliding_window
from tal_jax.data.recordings import Recording
from tal_jax.inference import forward, localize
from tal_jax.inference.localize import localize_predictions
from tal_jax.inference.predict import predict, predict_mean
from tal_jax.ops import resampling
from tal_jax.training import update

LENGTH, DIM, NUM_CLASSES = 53, 6, 3


def _features(length=LENGTH, dim=DIM):
    return np.random.default_rng(0).standard_normal((length, dim)).astype(np.float32)


def _windows(features, *, size, reach):
    return sliding_window.Windows("r", features, size, reach, np.dtype(np.float32))


@pytest.mark.parametrize("size, reach", [(53, 0), (53, 4), (100, 4), (17, 4), (9, 20), (1, 1)])
def test_windows_cover_every_snippet_once(size, reach):
    features = _features()
    windows = _windows(features, size=size, reach=reach)
    shapes = set()
    for window in windows:
        shapes.add(window.features.shape)
        assert not window.features[~window.where].any()
        inner = np.flatnonzero(window.core)
        assert reach <= inner[0] and inner[-1] < len(window.where) - reach
    assert len(shapes) == 1  # so that one program serves all
    joined = sliding_window.join((window.features, window.core) for window in windows)
    np.testing.assert_array_equal(joined, features)


def test_windows_are_checked_as_they_are_read():
    features = _features()
    features[40, 2] = np.inf
    with pytest.raises(ValueError, match="r: feature 2 of snippet 40 is inf"):
        list(_windows(features, size=9, reach=2))


@pytest.mark.parametrize("rows", [slice(0, 40), slice(11, 12), slice(30, 40)])
def test_interpolated_is_the_operation(rows):
    features = _features()
    positions = np.sort(np.random.default_rng(1).uniform(-2, LENGTH + 1, 40)).astype(np.float32)
    positions[7] = 5.0
    got = sliding_window.Interpolated(features, positions)
    want = resampling.interpolate(features, positions)
    assert got.shape == want.shape and len(got) == 40
    np.testing.assert_allclose(got[rows], want[rows], rtol=1e-5, atol=1e-6)


_RSMP = [
    {"num_prototypes": 0},
    {"num_iters": 0},
    {"num_iters": 1, "branch": "reassigned"},
    {"num_iters": 3, "gamma": 2.0, "omega": 0.3},
    {"closed_form": True},
    {"widths": (12, 16), "dilations": (1, 3), "branch": "original"},
]
_HAMNET = [
    {"variant": "document"},
    {"variant": "published"},
    {"variant": "document", "smoothing": 5, "branch": "base"},
    {"variant": "published", "smoothing": 3},
    {"variant": "document", "smoothing": 3, "widths": (8, 8, 8)},
]


@pytest.mark.parametrize("method, settings", [
    *(("rsmp", settings) for settings in _RSMP),
    *(("hamnet", settings) for settings in _HAMNET),
])  # fmt: skip
@pytest.mark.slow
def test_streamed_network_is_the_whole_one(method, settings):
    config = DEFAULTS[method]()
    config.model.update({"widths": (16,) if method == "rsmp" else (16, 16)} | settings)
    method = methods.method_of(config)
    config = update.compiled_config(config)
    model = method.make_model(config, NUM_CLASSES)
    features, where = _features(), np.ones((1, LENGTH), bool)
    params = model.init(jax.random.key(0), features[None], where=where)["params"]
    whole = method.logits(model, config, params, jnp.asarray(features[None]), where)
    # Cores shorter than the network's reach, and a last one that is not full.
    got = method.sliding_logits(
        model, config, params, _windows(features, size=7, reach=model.reach)
    )
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want[0], rtol=1e-5, atol=1e-5), got, whole
    )
    # Without neighbours it would not be.
    short = _windows(features, size=7, reach=0)
    near = method.sliding_logits(model, config, params, short)
    differences = jax.tree.map(lambda near, got: np.abs(near - got).max(), near, got)
    assert max(jax.tree.leaves(differences)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("lengthen", [False, True])
def test_long_recording_is_read_as_a_short_one(toy_run, monkeypatch, lengthen):
    fitted, recordings = toy_run.fitted, [_toy_recording()]
    # What is lengthened is given: by rounding a network might find one action more in one of both.
    found = [
        {"label": "bump", "score": 1.0, "segment": [10.0, 12.0]},
        {"label": "dip", "score": 0.5, "segment": [44.5, 55.25]},
    ]
    monkeypatch.setattr(localize, "localize_predictions", lambda one, *_: dict.fromkeys(one, found))
    whole = forward.predict_recordings(fitted, 1, recordings, lengthen=lengthen)
    monkeypatch.setattr(sliding_window, "MOST_SNIPPETS", 64)
    pieces = forward.predict_recordings(fitted, 1, recordings, lengthen=lengthen)
    for name, one in whole.items():
        assert (len(one.last.cas) > len(one.original.cas)) == lengthen
        for part in ("original", "last"):
            got, want = getattr(pieces[name], part), getattr(one, part)
            for key in ("cas", "actionness", "video_scores", "cumulative"):
                np.testing.assert_allclose(
                    getattr(got, key), getattr(want, key), rtol=1e-4, atol=1e-5
                )


@pytest.mark.slow
def test_detections_of_a_long_recording_are_those_of_its_scores(toy_run, monkeypatch):
    monkeypatch.setattr(sliding_window, "MOST_SNIPPETS", 64)
    found = predict(toy_run.fitted, [_toy_recording()])
    scores = predict_mean(toy_run.fitted, [_toy_recording()])
    options = toy_run.fitted.config.localization
    assert found == localize_predictions(scores, options, toy.CLASSES)
    # The dip is where it is; the bumps are too short for their class to seem present.
    assert found["r"][0]["label"] == "dip"
    want = toy.GRID.to_seconds(np.array([90, 110]))
    np.testing.assert_allclose(found["r"][0]["segment"], want, atol=1.0)


def _toy_recording():
    rng = np.random.default_rng(3)
    features = rng.normal(0, 0.3, (200, toy.DIM)).astype(np.float32)
    features[20:24, :4] += 1
    features[90:110, 4:] += 1
    features[150:153, :4] += 1
    duration_s = toy.GRID.to_seconds(float(len(features)))
    return Recording("r", features, toy.GRID, duration_s)
