"""Windows of signals, against one window after the other by hand."""

import numpy as np
import pytest

from tal_jax.data.signals import BANDS_HZ, window_features

NUM_STATISTICS = 6
PER_CHANNEL = NUM_STATISTICS + len(BANDS_HZ) - 1


def noise(samples, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, channels))


def parts(features, channels):
    """`[T, D]` features by what they describe: name to `[T, channels]`."""
    names = ["mean", "std", "min", "max", "trend", "change", *BANDS_HZ[:-1]]
    blocks = np.split(features, len(names), axis=1)
    assert all(block.shape[1] == channels for block in blocks)
    return dict(zip(names, blocks, strict=True))


def reference(signal, fps, stride, window):
    """The statistics of each window, cut from the signal sample by sample."""
    magnitude = [np.sqrt((signal[:, i : i + 3] ** 2).sum(1)) for i in range(0, signal.shape[1], 3)]
    channels = np.column_stack([signal, *magnitude])
    found = {name: [] for name in ("mean", "std", "min", "max", "trend", "change", *BANDS_HZ[:-1])}
    for snippet in range(int(np.ceil(len(signal) / stride - 1e-6))):
        first = int(np.round((snippet + 0.5) * stride - window / 2))
        at = np.clip(np.arange(first, first + window), 0, len(signal) - 1)
        cut = channels[at]
        half = window // 2
        found["mean"].append(cut.sum(0) / window)
        found["std"].append(((cut - cut.sum(0) / window) ** 2).mean(0) ** 0.5)
        found["min"].append(cut.min(0))
        found["max"].append(cut.max(0))
        found["trend"].append(cut[window - half :].mean(0) - cut[:half].mean(0))
        found["change"].append(np.abs(cut[1:] - cut[:-1]).mean(0))
        taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))
        tapered = (cut - cut.mean(0)) * taper[:, None]
        for low, high in zip(BANDS_HZ[:-1], BANDS_HZ[1:], strict=True):
            total = np.zeros(channels.shape[1])
            for bin_ in range(window // 2 + 1):  # a slow Fourier transform
                if low <= bin_ * fps / window < high:
                    wave = np.exp(-2j * np.pi * bin_ * np.arange(window) / window)
                    total += np.abs(wave @ tapered) ** 2 / window
            found[low].append(np.log(1e-4 + total))
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.parametrize(
    "samples, channels, stride, window",
    [(200, 6, 25, 75), (137, 3, 20, 20), (60, 3, 7, 31), (1, 3, 25, 75), (26, 3, 25, 60)],
)
def test_against_windows_by_hand(samples, channels, stride, window):
    signal = noise(samples, channels)
    features, grid = window_features(signal, fps=50, stride_s=stride / 50, window_s=window / 50)
    assert features.dtype == np.float32
    assert features.shape == (-(-samples // stride), channels * 4 // 3 * PER_CHANNEL)
    got = parts(features, channels * 4 // 3)
    for name, want in reference(signal, 50, stride, window).items():
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5, err_msg=str(name))
    clock = (grid.fps, grid.stride_frames, grid.window_frames)
    assert clock == pytest.approx((50, stride, window))


@pytest.mark.parametrize("samples", [1, 24, 25, 26, 100, 101])
def test_length_is_that_of_the_clock(samples):
    features, grid = window_features(noise(samples), fps=50, stride_s=0.5, window_s=1.5)
    assert len(features) == grid.num_snippets(samples / 50) == -(-samples // 25)
    assert grid.stride_s == 0.5


def test_stride_of_a_fraction_of_a_sample():
    features, grid = window_features(noise(1000), fps=30, stride_s=0.25, window_s=1.0)
    assert grid.stride_frames == 7.5 and len(features) == 134  # 133.3 strides


# BUG (fails): where the stride is longer than the window, the last window lies beyond the padding
# of one window and `windows[first + window]` raises IndexError.
@pytest.mark.parametrize("samples", [1, 11, 14, 20])
def test_windows_shorter_than_the_stride(samples):
    signal = noise(samples)
    features, _ = window_features(signal, fps=10, stride_s=1.0, window_s=0.2)
    got = parts(features, 4)
    np.testing.assert_allclose(got["mean"], reference(signal, 10, 10, 2)["mean"], rtol=1e-5)


def test_a_constant_signal_has_no_rhythm():
    signal = np.tile([3.0, 0.0, 4.0], (200, 1))
    got = parts(window_features(signal, fps=50, stride_s=0.5, window_s=1.5)[0], 4)
    np.testing.assert_allclose(got["mean"], np.tile([3, 0, 4, 5], (8, 1)))  # and the magnitude
    for name in ("std", "trend", "change"):
        np.testing.assert_allclose(got[name], 0, atol=1e-6)
    for low in BANDS_HZ[:-1]:
        np.testing.assert_allclose(got[low], np.log(1e-4), rtol=1e-5)


@pytest.mark.parametrize(
    "frequency, band", [(0.7, 0.5), (1.4, 1.0), (3.0, 2.0), (6.0, 4.0), (12.0, 8.0)]
)
def test_a_rhythm_shows_in_its_band(frequency, band):
    times = np.arange(1000) / 50
    signal = np.stack([np.sin(2 * np.pi * frequency * times)] * 3, axis=1)
    got = parts(window_features(signal, fps=50, stride_s=1.0, window_s=4.0)[0], 4)
    middle = {low: got[low][8, 0] for low in BANDS_HZ[:-1]}
    assert max(middle, key=middle.get) == band


def test_a_ramp_has_its_slope():
    signal = np.tile(np.arange(400.0)[:, None], (1, 3))
    got = parts(window_features(signal, fps=50, stride_s=0.5, window_s=1.2)[0], 4)
    np.testing.assert_allclose(got["change"][4, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(got["trend"][4, 0], 30, rtol=1e-6)  # half of 60 samples
    # The window is centred on its snippet: samples 100 to 124 of snippet 4.
    np.testing.assert_allclose(got["mean"][4, 0], 112, atol=0.5)


def test_a_snippet_sees_its_window_and_nothing_else():
    signal = noise(500)
    other = signal.copy()
    other[250] += 5
    change = np.abs(
        window_features(signal, fps=50, stride_s=0.5, window_s=1.5)[0]
        - window_features(other, fps=50, stride_s=0.5, window_s=1.5)[0]
    ).max(axis=1)
    # Sample 250 is the first of snippet 10; a window of 75 reaches one snippet to either side.
    assert np.flatnonzero(change).tolist() == [9, 10, 11]


def test_the_magnitude_does_not_depend_on_how_the_sensor_is_worn():
    signal = noise(200)
    rotation, _ = np.linalg.qr(noise(3, seed=1))
    one = parts(window_features(signal, fps=50, stride_s=0.5, window_s=1.0)[0], 4)
    two = parts(window_features(signal @ rotation, fps=50, stride_s=0.5, window_s=1.0)[0], 4)
    for name in one:
        np.testing.assert_allclose(one[name][:, 3], two[name][:, 3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "signal, message",
    [
        (np.zeros((0, 3)), r"signal has shape \(0, 3\)"),
        (np.zeros(9), r"signal has shape \(9,\)"),
        (np.zeros((9, 4)), "channels in triples"),
        (np.full((9, 3), np.nan), "NaN or infinite"),
        (np.full((9, 3), -np.inf), "NaN or infinite"),
    ],
)
def test_bad_signals(signal, message):
    with pytest.raises(ValueError, match=message):
        window_features(signal, fps=50, stride_s=0.5, window_s=1.5)


@pytest.mark.parametrize("stride_s, window_s", [(0.01, 1.0), (0.5, 0.02), (-1.0, 1.0), (0.5, 0.0)])
def test_strides_and_windows_of_less_than_a_sample(stride_s, window_s):
    with pytest.raises(ValueError, match=f"stride_s={stride_s} and window_s={window_s} are"):
        window_features(noise(100), fps=50, stride_s=stride_s, window_s=window_s)
