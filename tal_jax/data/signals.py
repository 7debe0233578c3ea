"""Snippet features of sensor signals: statistics and spectra of sliding windows."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.clock import Grid
from tal_jax.data.manifest import Manifest
from tal_jax.data.recordings import Dataset

# Edges of the octave bands (Hz) whose log energies are features: human motion at a wrist or a waist
# is below about 15 Hz.
BANDS_HZ = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# Of accelerometer and gyroscope, as the embedded data sets have them.
MOTION_CHANNELS = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")
# Changes whenever the features of the same signal change.
VERSION = "1"


def window_features(
    signal: np.ndarray, *, fps: float, stride_s: float, window_s: float
) -> tuple[np.ndarray, Grid]:
    """Computes the features of every snippet of a multi-channel signal, from its centred window.

    The channels are triples (x, y, z of one sensor); the magnitude of each triple is added as a
    channel, since it does not depend on the sensor's orientation. The features of each channel are
    its mean, standard deviation, minimum, maximum, trend (mean of the second half minus that of the
    first), mean absolute difference of neighbouring samples, and log energies in octave bands.

    Args:
      signal: `[samples, channels]`, channels a multiple of 3.
      fps: samples per second.
      stride_s: seconds between snippets.
      window_s: seconds of the window of a snippet's features, centred on the snippet; beyond its
        ends, the signal is extended by its first and last sample.

    Returns:
      Features `[T, D]` (float32) with `T = ceil(samples / (stride_s · fps))`, and their `Grid`.

    Raises:
      InputError: for an empty signal, non-finite samples, a number of channels that is no
        multiple of 3, a stride below one sample, or a window below two.
    """
    signal = np.asarray(signal, np.float64)
    if signal.ndim != 2 or signal.shape[0] == 0 or signal.shape[1] % 3:
        raise InputError(
            f"signal has shape {signal.shape}; expected [samples, channels] with at least one "
            "sample and channels in triples (x, y, z)"
        )
    if not np.isfinite(signal).all():
        raise InputError("signal holds NaN or infinite samples; expected finite numbers")
    stride, window = stride_s * fps, round(window_s * fps)
    if stride < 1 or window < 2:
        raise InputError(
            f"stride_s={stride_s} and window_s={window_s} are {stride:g} and {window} samples at "
            f"{fps:g} Hz; expected at least 1 and 2"
        )
    grid = Grid(fps=fps, stride_frames=stride, window_frames=window)
    length = grid.num_snippets(len(signal) / fps)
    return describe_windows(cut_windows(signal, grid, 0, length), fps), grid


def with_manifest(dataset: Dataset, channels: Sequence[str] = ()) -> Dataset:
    """Adds the manifest of features that `window_features` computed, for later recordings.

    Args:
      dataset: whose recordings `window_features` described.
      channels: names of the channels, by which those of a later table are found.
    """
    grid, dim = dataset.train[0].grid, dataset.train[0].features.shape[1]
    options = {
        "fps": grid.fps,
        "window": int(grid.window_frames),
        "stride": grid.stride_frames,
        "channels": [],
    }
    manifest = Manifest("signal", VERSION, options, dim, grid, channels=tuple(channels))
    return dataclasses.replace(dataset, manifest=manifest)


def cut_windows(signal: np.ndarray, grid: Grid, start: int, end: int) -> np.ndarray:
    """Cuts out the windows `[end - start, window, channels]` of the snippets from `start` to `end`.

    Args:
      signal: `[samples, channels]` at the grid's rate, extended by its first and last sample.
      grid: clock of the snippets, with a whole number of frames in a window.
      start: first snippet.
      end: snippet after the last one.
    """
    first = grid.first_frames(end)[start:]
    samples = first[:, None] + np.arange(int(grid.window_frames))
    return signal[np.clip(samples, 0, len(signal) - 1)]


def describe_windows(windows: np.ndarray, fps: float) -> np.ndarray:
    """Features `[N, D]` float32 of windows `[N, window, channels]`, see `window_features`."""
    windows = np.asarray(windows, np.float64)
    count, window, channels = windows.shape
    magnitudes = np.linalg.norm(windows.reshape(count, window, channels // 3, 3), axis=-1)
    windows = np.moveaxis(np.concatenate([windows, magnitudes], axis=-1), 1, -1)
    mean = windows.mean(-1)
    half = windows.shape[-1] // 2
    parts = [
        mean,
        windows.std(-1),
        windows.min(-1),
        windows.max(-1),
        windows[..., -half:].mean(-1) - windows[..., :half].mean(-1),
        np.abs(np.diff(windows, axis=-1)).mean(-1),
    ]
    # A Hann window keeps the energy of slow drifts out of the higher bands.
    centred = (windows - mean[..., None]) * np.hanning(windows.shape[-1])
    power = np.abs(np.fft.rfft(centred, axis=-1)) ** 2 / windows.shape[-1]
    frequency = np.fft.rfftfreq(windows.shape[-1], 1 / fps)
    for low, high in zip(BANDS_HZ[:-1], BANDS_HZ[1:], strict=True):
        band = (frequency >= low) & (frequency < high)
        parts.append(np.log(1e-4 + power[..., band].sum(-1)))
    return np.concatenate(parts, axis=-1).astype(np.float32)
