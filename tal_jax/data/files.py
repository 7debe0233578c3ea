"""Reads JSON and tables strictly, writes files whole or not at all; errors are one line each."""

import csv
import errno
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

_NAMED = 5  # files in a message


def read_text(path: str | os.PathLike) -> str:
    """Reads a file of text; raises ValueError if it is missing or not UTF-8."""
    try:
        # Editors on Windows put a byte order mark in front, which is no part of the text.
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {_reason(error)}") from error


def read_csv(path: str | os.PathLike, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads a table of comma-separated values whose first line names the columns.

    Args:
      path: the file.
      columns: names of columns that it must have.

    Returns:
      A dictionary a line, of all columns.

    Raises:
      ValueError: if the file cannot be read, a column is missing, or a line has more or fewer
        fields than there are columns.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    rows = []
    try:
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path}: no column {missing[0]!r}, expected the columns {', '.join(columns)}"
            )
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}: line {reader.line_num} does not have {len(reader.fieldnames)} "
                    "fields, as the first line does"
                )
            rows.append(row)
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.reader.line_num}: {error}") from error
    return rows


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      ValueError: if the file is missing, is not JSON, or an object in it has the same key twice (of
        which Python would silently keep the last).
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_object_of_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def get_value(values: Any, key: str, kind: type, source: str) -> Any:
    """Returns the value of a key in what was read from JSON.

    Args:
      values: what should be an object.
      key: that it should have.
      kind: `Mapping`, `list`, `str`, or `object` for any.
      source: where the values come from, for messages.

    Raises:
      ValueError: if the values are no object, the key is missing or its value of another kind.
    """
    names = {Mapping: "an object", list: "a list", str: "a string"}
    if not isinstance(values, Mapping) or key not in values:
        raise ValueError(f"{source}: missing key {key!r}")
    if not isinstance(values[key], kind):
        raise ValueError(f"{source}: {key} is {values[key]!r}, expected {names[kind]}")
    return values[key]


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as JSON.

    Args:
      path: the file; its folder is made where missing.
      value: dictionaries, lists, strings, finite numbers (NumPy's included), booleans and None.

    Raises:
      ValueError: if the value holds NaN or infinity, which JSON has no words for.
      TypeError: if the value holds something else.
      OSError: if the file cannot be written, in one line; what lay there before still does.
    """
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes; raises ValueError and TypeError as it does."""
    return (json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n").encode()


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes bytes; raises OSError as `write_json` does."""
    _write(path, lambda file: file.write(content))


def write_csv(path: str | os.PathLike, rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows of comma-separated values; raises OSError as `write_json` does."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_npy(path: str | os.PathLike, array: np.ndarray, *, allow_pickle: bool = False) -> None:
    """Writes an array as `.npy`; raises OSError as `write_json` does.

    Args:
      path: the file; its folder is made where missing.
      array: an array of numbers, or of Python objects where `allow_pickle` says so.
      allow_pickle: for formats that demand arrays of objects; nothing of this library reads them
        without being told to.
    """
    _write(path, lambda file: np.save(file, array, allow_pickle=allow_pickle))


def write_npy_rows(
    path: str | os.PathLike, parts: Iterable[np.ndarray], shape: tuple[int, int]
) -> None:
    """Writes a float32 matrix as `.npy`, part by part; raises OSError as `write_json` does.

    Args:
      path: the file; its folder is made where missing.
      parts: rows of the matrix `[n, D]`, in order. An error in making them leaves no file.
      shape: of the whole matrix.

    Raises:
      ValueError: if the parts are not of that shape together.
    """

    def fill(file: IO[bytes]) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        rows = 0
        for part in parts:
            rows += len(part)
            if part.shape[1:] != shape[1:] or rows > shape[0]:
                break
            file.write(np.ascontiguousarray(part, "<f4").data)
        else:
            if rows == shape[0]:
                return
        raise ValueError(f"{path}: parts up to {rows} rows, expected {list(shape)} in all")

    _write(path, fill)


def write_npz(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as one compressed `.npz`; raises OSError as `write_json` does."""
    _write(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the named arrays of an `.npz`.

    Raises:
      ValueError: if the file is missing, broken, or holds Python objects.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {_reason(error)}; expected an .npz") from error


def refuse_replacing(paths: Iterable[Path], *, ours: Callable[[Path], bool]) -> None:
    """Refuses to write where files lie that are not ours.

    Args:
      paths: of the files to write.
      ours: whether a file that exists was written by this library and not changed since. One that
        it cannot read (OSError) is not.

    Raises:
      ValueError: naming the files.
    """

    def is_ours(path: Path) -> bool:
        try:
            return ours(path)
        except OSError:
            return False

    # A broken link counts as a file: its target may be on a disk that is not mounted.
    others = [str(path) for path in paths if os.path.lexists(path) and not is_ours(path)]
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        raise ValueError(
            f"{', '.join(others[:_NAMED])}{more}: there already, and not written by tal_jax or "
            "changed since; expected another --output, or --overwrite to replace what is there"
        )


def _write(path: str | os.PathLike, fill: Callable[[IO[bytes]], Any]) -> None:
    """Fills a temporary file beside the target, then puts it in the target's place in one step."""
    path = Path(path)
    # The process in the name keeps two runs that write one file from mixing their bytes; of a name
    # that is nearly too long there is no room for all.
    short = f"{path.name[:40]}.{zlib.crc32(os.fsencode(path.name)):08x}"
    temporary = path.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())  # a full disk may only show here
        os.replace(temporary, path)
    except OSError as error:
        message = f"cannot write {path}: {_reason(error)}; nothing was changed"
        raise OSError(error.errno or errno.EIO, message) from error
    finally:
        # Gone after the replacement; left over where filling failed.
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} {value!r} as JSON")


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"key {twice!r} occurs twice in one object, expected once")
    return values


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
