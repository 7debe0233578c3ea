"""Backbones that need no weights, and how options become one."""

import json

import numpy as np
import pytest

from tal_jax.data import signals
from tal_jax.extraction import BACKBONES, grid_of, open_backbone


def parts(features):
    """`[N, 160]` of `motion` by what they describe: name to `[N, 4, 4]`."""
    names = "grey red blue edges change unrest x size_x y size_y".split()
    return {n: f.reshape(-1, 4, 4) for n, f in zip(names, np.split(features, 10, 1), strict=True)}


def moving(dx, dy, window=6):
    """A smooth pattern of brightness that moves by `(dx, dy)` pixels a frame."""
    y, x = np.mgrid[:64, :64].astype(float)
    frames = []
    for n in range(window):
        u, v = x - n * dx, y - n * dy
        frames.append(128 + 50 * np.sin(u / 4) * np.cos(v / 5) + 30 * np.sin((u + v) / 7))
    return np.repeat(np.array(frames)[None, ..., None].round().astype(np.uint8), 3, -1)


@pytest.mark.parametrize("dx, dy", [(0.5, 0.0), (0.0, -0.5), (0.6, 0.4), (0.0, 0.0)])
def test_flow_of_a_known_movement(dx, dy):
    got = parts(open_backbone("motion", window=6)(moving(dx, dy)))
    np.testing.assert_allclose(got["x"], dx, atol=0.12)
    np.testing.assert_allclose(got["y"], dy, atol=0.12)
    np.testing.assert_allclose(got["x"].mean(), dx, atol=0.03)
    np.testing.assert_allclose(got["y"].mean(), dy, atol=0.03)


def test_appearance_of_a_field():
    frames = np.zeros((1, 3, 64, 64, 3), np.uint8)
    frames[:, :, 16:32, 48:64] = (255, 0, 0)
    got = parts(open_backbone("motion", window=3)(frames))
    at = np.zeros((4, 4), bool)
    at[1, 3] = True
    np.testing.assert_allclose(got["grey"][0], np.where(at, 0.299, 0), atol=1e-6)
    np.testing.assert_allclose(got["red"][0], np.where(at, 1, 0), atol=1e-6)
    np.testing.assert_allclose(got["blue"][0], np.where(at, -0.299, 0), atol=1e-6)
    np.testing.assert_allclose(got["change"], np.log(1e-3), rtol=1e-5)
    for name in ("x", "y", "size_x", "size_y"):
        np.testing.assert_allclose(got[name], 0, atol=1e-6)


def test_change_where_something_blinks():
    frames = np.zeros((1, 4, 64, 64, 3), np.uint8)
    frames[:, 1::2, :16, :16] = 51  # a fifth of white, on and off
    got = parts(open_backbone("motion", window=4)(frames))
    assert got["change"][0, 0, 0] == pytest.approx(np.log(0.2 + 1e-3), rel=1e-4)
    np.testing.assert_allclose(got["change"][0, 2:], np.log(1e-3), rtol=1e-5)


def test_windows_are_described_one_by_one():
    windows = np.concatenate([moving(0.5, 0), moving(0, 0.5), moving(0, 0)])
    backbone = open_backbone("motion", window=6)
    features = backbone(windows)
    assert features.shape == (3, backbone.dim) and features.dtype == np.float32
    for one, row in zip(windows, features, strict=True):
        np.testing.assert_allclose(backbone(one[None])[0], row, rtol=1e-4, atol=1e-5)


def test_signal_is_what_the_loaders_of_sensors_compute():
    signal = np.random.default_rng(0).normal(size=(200, 6))
    want, grid = signals.window_features(signal, fps=50, stride_s=0.5, window_s=1.5)
    backbone = open_backbone("signal", channels="a,b,c,d,e,f")
    assert grid_of(backbone) == grid
    got = backbone(signals.cut_windows(signal, grid, 0, len(want)))
    np.testing.assert_array_equal(got, want)
    assert backbone.dim == want.shape[1]


@pytest.mark.parametrize("name", ["signal", "motion"])
def test_options_make_the_same_one_again(name):
    backbone = open_backbone(name, fps="12.5", window="20", stride=7)
    assert (backbone.fps, backbone.window, backbone.stride) == (12.5, 20, 7.0)
    again = open_backbone(name, **json.loads(json.dumps(backbone.options)))
    assert again == backbone
    assert name in BACKBONES


def test_channels_from_text():
    backbone = open_backbone("signal", channels="x, y,z")
    assert backbone.channels == ("x", "y", "z")
    assert open_backbone("signal").dim is None


@pytest.mark.parametrize(
    "name, options, message",
    [
        (
            "i3d",
            {},
            "backbone 'i3d'; expected one of signal, pose, motion, transformers, videoprism",
        ),
        ("motion", {"rate": 3}, "backbone motion: option 'rate'; expected fps, window, stride"),
        ("motion", {"fps": "fast"}, "fps is 'fast', expected a number above 0"),
        ("motion", {"fps": 0}, "fps is 0, expected a number above 0"),
        ("motion", {"fps": "nan"}, "fps is 'nan'"),
        ("motion", {"stride": -1}, "stride is -1"),
        ("motion", {"window": 2.5}, "window is 2.5, expected a whole number"),
        ("motion", {"window": 1}, "window=1; expected at least 2"),
        ("signal", {"window": 1}, "window=1"),
        ("signal", {"stride": 0.5}, "stride=0.5"),
        ("signal", {"channels": "x,y"}, "channels x, y; expected different ones in triples"),
        ("signal", {"channels": "x,y,x"}, "channels x, y, x; expected different"),
        ("transformers", {}, "expected model=NAME of a model on the Hugging Face hub"),
        ("videoprism", {}, "backbone videoprism: needs the option path"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        open_backbone(name, **options)
