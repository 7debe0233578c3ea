"""Features that are read when needed: those in `.npy` files, and what all such have in common."""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.files import reason_of

# The header that NumPy writes for a matrix of floats, padded with spaces to 128 bytes.
_USUAL_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00\{'descr': '<f(?P<bytes>[248])', 'fortran_order': False, "
    rb"'shape': \((?P<T>\d+), (?P<D>\d+)\), \} *\n$"
)
# Separately extracted streams of one recording differ by the window at the end.
_MAX_STREAM_DRIFT = 2
# Larger features are hashed in part: features that were computed anew differ everywhere.
_MOST_BYTES, _NUM_PARTS = 2**26, 16


class LazyFeatures:
    """Features `[T, D]` that are read, or computed, by slices and by `np.asarray`, every time."""

    shape: Any  # (T, D)
    dtype: np.dtype
    ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        raise NotImplementedError

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        del copy  # an array that was just read is always a copy
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


@dataclasses.dataclass(frozen=True)
class FeatureFiles(LazyFeatures):
    """The features `[T, D]` of one recording in files: one `.npy`, or one per stream, concatenated.

    An object holds neither the array nor an open file, so that a data set of any size can be
    listed.
    """

    paths: tuple[Path, ...]  # in the order of their columns
    shape: tuple[int, int]  # T of the shortest stream, and D
    dtype: np.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        streams = [load_npy(path) for path in self.paths]
        # Of other dimensions, no shape is as it was.
        sizes = [stream.shape if stream.ndim == 2 else (-1, -1) for stream in streams]
        shape = (min(length for length, _ in sizes), sum(width for _, width in sizes))
        dtype = np.result_type(*(stream.dtype for stream in streams))
        if (shape, dtype) != (self.shape, self.dtype):
            raise InputError(
                f"{' and '.join(map(str, self.paths))}: was changed since it was opened: "
                f"{dtype} {list(shape)}, expected {self.dtype} {list(self.shape)}"
            )
        return np.concatenate([stream[: len(self)][rows] for stream in streams], axis=1)


def open_features(paths: Sequence[str | os.PathLike]) -> FeatureFiles:
    """Opens the feature files of a recording, `[T, D_i]` each, reading only their headers.

    Raises:
      InputError: if a file cannot be read, does not hold `[T, D]`, or the streams differ in length
        by more than two snippets.
    """
    shapes, dtypes = zip(*map(_read_header, paths), strict=True)
    for path, shape in zip(paths, shapes, strict=True):
        if len(shape) != 2:
            raise InputError(f"{path}: shape {list(shape)}, expected [T, D]")
    lengths = [length for length, _ in shapes]
    if max(lengths) - min(lengths) > _MAX_STREAM_DRIFT:
        files = " and ".join(f"{path} ({size})" for path, size in zip(paths, lengths, strict=True))
        raise InputError(f"{files}: streams of one recording, expected equal lengths")
    shape = (min(lengths), sum(width for _, width in shapes))
    return FeatureFiles(tuple(map(Path, paths)), shape, np.result_type(*dtypes))


def _read_header(path: str | os.PathLike) -> tuple[tuple[int, ...], np.dtype]:
    """Returns shape and type of an `.npy` file's array, ten times as fast as mapping it."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        header, size = file.read(128), os.fstat(file.fileno()).st_size
        match = _USUAL_HEADER.match(header)
        if match is not None:
            dtype = np.dtype(f"<f{int(match['bytes'])}")
            shape = int(match["T"]), int(match["D"])
            if size == len(header) + dtype.itemsize * shape[0] * shape[1]:
                return shape, dtype
    array = load_npy(path)  # any other header, or an error with its cause
    return array.shape, array.dtype


def load_npy(path: str | os.PathLike) -> np.ndarray:
    """Memory-maps the array of an `.npy` file; Python objects in it are refused."""
    expected = "expected an .npy file of numbers [T, D]"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses a header as Python, which fails in many ways
        known = isinstance(error, OSError | ValueError | EOFError)
        reason = reason_of(error) if known else f"its header is damaged ({reason_of(error)})"
        raise InputError(f"cannot read {path}: {reason}; {expected}") from error
    if not isinstance(array, np.ndarray):  # a renamed .npz
        array.close()
        raise InputError(f"cannot read {path}: it holds several arrays; {expected}")
    return array


def digest_of(features: Any) -> str:
    """Hashes features by shape, type and bytes: all, or parts of those beyond 64 MiB."""
    num_rows, width = features.shape
    row_bytes = max(width * features.dtype.itemsize, 1)
    digest = hashlib.sha256(f"{num_rows} {width} {features.dtype}".encode())
    whole = num_rows * row_bytes <= _MOST_BYTES
    size = max((2**22 if whole else _MOST_BYTES // _NUM_PARTS) // row_bytes, 1)
    last = max(num_rows - size, 0)
    starts = range(0, num_rows, size) if whole else np.linspace(0, last, _NUM_PARTS).astype(int)
    for start in starts:
        digest.update(np.ascontiguousarray(features[start : start + size]).tobytes())
    return digest.hexdigest()[:16]
