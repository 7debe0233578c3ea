"""Sliding windows over one recording that is too long for a single forward pass."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from tal_jax.data.lazy_features import LazyFeatures
from tal_jax.data.recordings import Recording, check_finite

# Longer recordings are read window by window.
MOST_SNIPPETS = 8192


def is_long(recording: Recording) -> bool:
    """Whether a recording is too long for a single forward pass."""
    return len(recording.features) > MOST_SNIPPETS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """A window of a recording, padded to a length that all its windows share.

    Its inner snippets are its core; the outer ones are context that the outputs of the core depend
    on. Every snippet of a recording is in the core of exactly one window.
    """

    features: Any  # [L, D]
    where: Any  # [L] bool, snippets of the recording
    core: Any  # [L] bool


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """The windows of a recording, in order; can be iterated over any number of times."""

    name: str  # of the recording, for messages
    features: Any  # [T, D], an array or `LazyFeatures`
    size: int  # snippets of a core
    reach: int  # snippets on each side that an output depends on
    dtype: np.dtype  # of the windows' features

    def __iter__(self) -> Iterator[Window]:
        total, reach = len(self.features), self.reach
        # A recording that fits into one window needs no more.
        size = min(self.size, total)
        for first in range(0, total, size):
            begin, end = max(first - reach, 0), min(first + size + reach, total)
            read = np.asarray(self.features[begin:end])
            check_finite(self.name, read, first=begin)
            features = np.zeros((size + 2 * reach, read.shape[1]), self.dtype)
            offset = begin - (first - reach)
            features[offset : offset + len(read)] = read
            at = np.arange(len(features)) + first - reach
            yield Window(
                features=features,
                where=(at >= 0) & (at < total),
                core=(at >= first) & (at < min(first + size, total)),
            )


def join(pieces: Iterable[tuple[Any, jax.Array]]) -> Any:
    """Concatenates the cores of windows, of arrays `[L, …]` and `core`, to host arrays `[T, …]`."""

    def core_of(values, core):
        return jax.tree.map(lambda array: np.asarray(array)[np.asarray(core)], values)

    cores = [core_of(values, core) for values, core in pieces]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *cores)


@dataclasses.dataclass(frozen=True, eq=False)
class Interpolated(LazyFeatures):
    """Features interpolated at positions, `[N, D]`: `ops.interpolate` on the host.

    For recordings that do not fit on a device.
    """

    features: Any  # [T, D], an array or `LazyFeatures`
    positions: np.ndarray  # [N] increasing, in snippets; a snippet's centre is a whole number

    dtype = np.dtype(np.float32)
    shape = property(lambda self: (len(self.positions), self.features.shape[1]))

    def __getitem__(self, rows: slice) -> np.ndarray:
        last = len(self.features) - 1
        positions = np.clip(np.asarray(self.positions[rows], np.float32), 0, last)
        left = np.floor(positions).astype(int)
        right = np.minimum(left + 1, last)
        begin = left[0]
        read = np.asarray(self.features[begin : right[-1] + 1], np.float32)
        share = (positions - left)[:, None]
        return read[left - begin] + share * (read[right - begin] - read[left - begin])
