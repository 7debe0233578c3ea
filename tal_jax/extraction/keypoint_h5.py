"""Reads keypoints from the .h5 files of DeepLabCut (pandas) and SLEAP, with h5py alone.

The column names of a pandas table are text in pickle's oldest format. They are read token by
token: texts, numbers, tuples and lists, and nothing else, so that no code of a file is ever run.
"""

import os
import pickletools
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files

_AS_CSV = {
    "DeepLabCut": "deeplabcut.analyze_videos_converth5_to_csv writes the same table as .csv",
    "SLEAP": "export the analysis again, as HDF5 or CSV",
}


def open_h5(path: str | os.PathLike) -> Any:
    """Opens an HDF5 file for reading.

    Raises:
      InputError: if h5py is not installed or the file is none.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f'{path}: reading .h5 needs h5py; run pip install "tal_jax[h5]"'
        ) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"cannot read {path}: {files.reason_of(error)}; expected HDF5") from error


def find_pandas(file: Any) -> Any | None:
    """The first group that pandas wrote; None without one."""
    groups = [file[name] for name in file if hasattr(file[name], "keys")]
    return next((group for group in groups if "pandas_type" in group.attrs), None)


def read_pandas(
    path: str | os.PathLike, group: Any
) -> tuple[list[tuple[str, ...]], np.ndarray, np.ndarray]:
    """Reads the names of the columns (a tuple of levels each), the values and the index.

    Raises:
      InputError: if a column holds anything but numbers, or names cannot be read safely.
    """
    try:
        if "table" in group:
            return _read_table(group)
        return _read_fixed(group)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}: a table of pandas that cannot be read without unpickling it ({error}); "
            f"expected numbers under names of text: {_AS_CSV['DeepLabCut']}"
        ) from error


def _read_table(group: Any) -> tuple[list[tuple[str, ...]], np.ndarray, np.ndarray]:
    rows = group["table"][()]
    blocks = [name for name in rows.dtype.names if name.startswith("values_block_")]
    names, values = [], []
    for block in blocks:
        kind = group["table"].attrs[f"{block}_kind"]
        names += [tuple(map(str, name)) for name in read_literal(bytes(kind))]
        values.append(np.asarray(rows[block], np.float64).reshape(len(rows), -1))
    return names, np.concatenate(values, axis=1), rows["index"]


def _read_fixed(group: Any) -> tuple[list[tuple[str, ...]], np.ndarray, np.ndarray]:
    names, values = [], []
    for block in range(int(group.attrs["nblocks"])):
        prefix = f"block{block}_items"
        levels = int(group.attrs[f"{prefix}_nlevels"])
        columns = []
        for level in range(levels):
            texts = group[f"{prefix}_level{level}"]
            if texts.dtype.kind != "S":
                raise ValueError("names that are no text")
            labels = group[f"{prefix}_label{level}"][()]
            columns.append([texts[()][label].decode() for label in labels])
        names += list(zip(*columns, strict=True))
        block_values = group[f"block{block}_values"]
        if block_values.dtype.kind not in "fiu":
            raise ValueError("a column without numbers")
        values.append(np.asarray(block_values[()], np.float64))
    index = group["axis1"]
    numbers = index[()] if index.dtype.kind in "iuf" else np.arange(len(values[0]))
    return names, np.concatenate(values, axis=1), numbers


def read_literal(text: bytes) -> Any:
    r"""Reads lists, tuples, texts and numbers from pickle's text format, and nothing else.

    >>> read_literal(b"(lp0\n(Va\np1\nI1\ntp2\na.")
    [('a', 1)]

    Raises:
      ValueError: for any other token.
    """
    mark = object()
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = max(i for i, value in enumerate(stack) if value is mark)
        values = stack[at + 1 :]
        del stack[at:]
        return values

    argument: Any
    for code, argument, _ in pickletools.genops(text):
        match code.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(mark)
            case "LIST":
                stack.append(since_mark())
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(code.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "NONE":
                stack.append(None)
            case _ if code.name in _LITERALS:
                stack.append(argument)
            case "STOP":
                return stack.pop()
            case _:
                raise ValueError(f"the token {code.name}")
    raise ValueError("no end")


_LITERALS = {
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
}


def read_sleap(
    path: str | os.PathLike, file: Any
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Reads SLEAP's analysis: positions `[n, A, J, 2]`, scores `[n, A, J]`, joints and tracks.

    SLEAP writes the axes in reverse (tracks, 2, nodes, frames), as MATLAB reads them; files that
    were written in the order (frames, nodes, 2, tracks) are read as well.

    Raises:
      InputError: if the shapes do not fit the names.
    """
    joints = _texts(path, file["node_names"])
    names = _texts(path, file["track_names"]) if "track_names" in file else ()
    tracks = np.asarray(file["tracks"][()], np.float64)
    scores = np.asarray(file["point_scores"][()], np.float64) if "point_scores" in file else None
    tail = (2, len(joints))
    orders = {
        (1, 2): (3, 0, 2, 1),  # tracks, 2, nodes, frames
        (2, 1): (0, 3, 1, 2),  # frames, nodes, 2, tracks
    }
    for (two, nodes), order in orders.items():
        if tracks.ndim == 4 and (tracks.shape[two], tracks.shape[nodes]) == tail:
            if names and tracks.shape[order[1]] != len(names):
                continue
            positions = tracks.transpose(order)
            if scores is not None:
                reverse = order[0] == 3
                scores = scores.transpose((2, 0, 1) if reverse else (0, 2, 1))
            break
    else:
        raise InputError(
            f"{path}: tracks of shape {list(tracks.shape)} for {len(joints)} nodes and "
            f"{len(names)} tracks; expected [tracks, 2, nodes, frames] of SLEAP's analysis"
        )
    animals = names or tuple(f"track_{i}" for i in range(positions.shape[1]))
    if scores is None or scores.shape != positions.shape[:3]:
        scores = np.full(positions.shape[:3], np.nan)
    return positions, scores, joints, animals


def _texts(path: str | os.PathLike, values: Any) -> tuple[str, ...]:
    texts = [v.decode() if isinstance(v, bytes) else v for v in np.ravel(values[()]).tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: {values.name} holds no texts; {_AS_CSV['SLEAP']}")
    return tuple(texts)
