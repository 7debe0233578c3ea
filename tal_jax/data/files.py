"""File input and output: strict JSON and csv, atomic writing, errors of one line."""

import codecs
import contextlib
import csv
import errno
import functools
import io
import json
import math
import os
import re
import shutil
import socket
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

import msgspec
import numpy as np

from tal_jax._errors import InputError

_NAMED = 5  # files in a message
_NO_SPACE = re.compile(r"[ \t\n\r]*")
# What `write_filled` fills: a target, its checksum, and the machine and process that write it.
_TEMPORARY = re.compile(
    r"\..{1,40}\.[0-9a-f]{8}\.(?P<machine>[0-9a-f]{8})\.(?P<process>\d{1,18})\.tmp", re.DOTALL
)

T = TypeVar("T")

# Numbers in JSON. The bounds exclude NaN and infinity, which Python's JSON lets through.
_MOST = sys.float_info.max
Number = Annotated[float, msgspec.Meta(ge=-_MOST, le=_MOST)]
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=_MOST)]
_KINDS = {
    "float": "a finite number",
    "int": "a whole number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def read_text(path: str | os.PathLike, *, allow_utf_16: bool = False) -> str:
    """Reads a text file in UTF-8; if allowed, also in UTF-16 with a byte order mark.

    Raises:
      InputError: if it is missing or in another encoding.
    """
    try:
        return decode_text(Path(path).read_bytes(), allow_utf_16=allow_utf_16)
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        expected = "UTF-8, or UTF-16 with a byte order mark" if allow_utf_16 else "UTF-8"
        raise InputError(
            f"cannot read {path}: {reason_of(error)}; expected text in {expected}"
        ) from error


def decode_text(content: bytes, *, allow_utf_16: bool) -> str:
    """Decodes a text file as `read_text` does; raises UnicodeDecodeError for another encoding."""
    utf_16 = allow_utf_16 and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # Programs on Windows write a byte order mark, which is no part of the text.
    text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_csv(path: str | os.PathLike, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads comma-separated values whose first line names the columns; a dictionary per line.

    Raises:
      InputError: if the file cannot be read, one of the required columns is missing, or a line has
        more or fewer fields than there are columns.
    """
    lines = read_csv_lines(path)
    _, header = next(lines, (0, []))
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(
            f"{path}: no column {missing[0]!r}, expected the columns {', '.join(columns)}"
        )
    rows = []
    for number, fields in lines:
        if len(fields) != len(header):
            raise InputError(
                f"{path}: line {number} does not have {len(header)} fields, as the first line does"
            )
        rows.append(dict(zip(header, fields, strict=True)))
    return rows


def read_csv_lines(
    path: str | os.PathLike, *, skipinitialspace: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the fields of each line that is not empty; raises as `read_csv`."""
    text = io.StringIO(read_text(path))
    reader = csv.reader(text, skipinitialspace=skipinitialspace, strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from error


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: if the file is missing, is not JSON, or an object in it has the same key twice
        (Python's parser alone would keep the last).
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_object_of_unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error


def read_members(path: str | os.PathLike, key: str, what: str) -> Iterator[tuple[str, Any]]:
    """Yields the members of one object in the object of a JSON file, parsed one after another.

    So a file of many recordings takes the memory of its text, and of one of them.

    Args:
      path: the file.
      key: of the object in the file's object.
      what: that is, for messages.

    Raises:
      InputError: as `read_json`, or if there is no object of that key.
    """
    scanner, found = _Scanner(read_text(path)), False
    try:
        if scanner.peek() == "{":
            for name in scanner.members():
                if name == key and scanner.peek() == "{":
                    found = True
                    for member in scanner.members():
                        yield member, scanner.value()
                else:
                    scanner.value()
            scanner.take("")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error
    if not found:
        raise InputError(f"{path}: no {what}, expected an object with {key!r}")


class _Scanner:
    """A place in a JSON text."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.decoder = json.JSONDecoder(object_pairs_hook=_object_of_unique_keys)

    def peek(self) -> str:
        """Returns the next character that is no space; "" at the end."""
        self.at = _NO_SPACE.match(self.text, self.at).end()  # pyright: ignore[reportOptionalMemberAccess]
        return self.text[self.at : self.at + 1]

    def take(self, character: str) -> None:
        """Passes a character."""
        if self.peek() != character:
            raise json.JSONDecodeError(f"Expecting {character!r}", self.text, self.at)
        self.at += len(character)

    def value(self) -> Any:
        """Parses a value, and passes it."""
        self.peek()
        value, self.at = self.decoder.raw_decode(self.text, self.at)
        return value

    def members(self) -> Iterator[str]:
        """Yields the names of an object; meanwhile the caller passes their values."""
        self.take("{")
        seen: set[str] = set()
        while self.peek() != "}":
            if seen:
                self.take(",")
            if self.peek() != '"':
                raise json.JSONDecodeError("Expecting a name", self.text, self.at)
            name = self.value()
            if name in seen:
                raise InputError(f"key {name!r} occurs twice in one object, expected once")
            seen.add(name)
            self.take(":")
            yield name
        self.take("}")


def convert(values: Any, kind: type[T] | Any, source: str, *, strict: bool = True) -> T:
    """Converts what was read from JSON to a type, such as a `msgspec.Struct`.

    With `strict=False`, strings that spell numbers are numbers. An InputError contains the source,
    the field, its value and what was expected.

    >>> convert([[1.5, 2], [3, "x"]], list[list[Number]], "b.json")
    Traceback (most recent call last):
    ...
    tal_jax._errors.InputError: b.json: [1][1] is 'x', expected a finite number
    """
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {_explain(values, str(error))}") from error


def convert_each(
    values: Any, kind: type[T] | Any, source: str, *, strict: bool = True
) -> dict[str, T]:
    """Converts each value of an object, see `convert`; messages name its key."""
    values = convert(values, dict[str, Any], source)
    return {
        key: convert(value, kind, f"{source}: {key}", strict=strict)
        for key, value in values.items()
    }


def to_number(value: Any, what: str) -> float:
    """Converts a number, or text that spells one; `what` names it in messages.

    Raises:
      InputError: if it is not a finite number.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{what} is {value!r}, expected a finite number")
    return number


def is_number(text: str) -> bool:
    """Whether text spells a finite number."""
    try:
        to_number(text, "")
    except InputError:
        return False
    return True


def without_nan(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _explain(values: Any, text: str) -> str:
    """Rephrases msgspec's "PROBLEM - at `$.field[0]`", with the value that is there."""
    problem, _, path = text.partition(" - at `$")
    place = path.rstrip("`").removeprefix(".")
    for name, index in re.findall(r"\.([^.[`]+)|\[(\d+|\.\.\.)\]", path):
        # msgspec does not name the keys of mappings: there the value remains unknown.
        values = ... if index == "..." or values is ... else values[name or int(index)]
    key = re.match(r"Object (missing|contains unknown).*`(.*)`", problem)
    if key:
        fault = f"{'missing' if key[1] == 'missing' else 'unknown'} key {key[2]!r}"
        return f"{place}: {fault}" if place else fault
    wanted = re.match(r"(?:Expected `(\w+)|Number out of range)[^`]*`?(.*?)(?:, got .*)?$", problem)
    if not wanted:  # raised by a class's own checks
        return problem
    above = " above 0" if wanted[2] == " > 0.0" else ""
    length = wanted[2] if "length" in wanted[2] else ""
    expected = f"{_KINDS.get(wanted[1] or 'float', wanted[1])}{length}{above}"
    if values is ...:
        return f"{place}: expected {expected}"
    found = f"{place} is {values!r:.200}" if place else f"got {values!r:.200}"
    return f"{found}, expected {expected}"


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as JSON; NumPy's numbers and arrays are converted.

    Raises:
      ValueError: if the value holds NaN or infinity, which are no JSON; an InputError if it holds
        text that is no Unicode.
      TypeError: if the value holds anything else that is no JSON.
      OSError: if the file cannot be written, in one line; an existing file is not changed.
    """
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns the bytes that `write_json` writes; raises ValueError and TypeError as it does."""
    # Python's own indentation takes several times as long.
    content = json.dumps(value, allow_nan=False, default=_plain).encode()
    try:
        return msgspec.json.format(content, indent=1) + b"\n"
    except msgspec.DecodeError:
        _encode(json.dumps(value, ensure_ascii=False, default=_plain))
        raise


def kept_bytes(path: str | os.PathLike, value: Any, source: str) -> bytes:
    """Returns the bytes of JSON with keys that were kept from another file, the source.

    Raises:
      InputError: if one of them holds NaN, infinity or text that is no Unicode; names both files.
    """
    try:
        return json_bytes(value)
    except ValueError as error:
        raise InputError(
            f"{path}: cannot write the keys of {source}: {reason_of(error)}; expected finite "
            "numbers and Unicode in them"
        ) from error


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes bytes; raises OSError as `write_json` does."""
    write_filled(path, lambda file: file.write(content))


def write_csv(path: str | os.PathLike, rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows of comma-separated values; raises as `csv_bytes`, and OSError as `write_json`."""
    write_bytes(path, csv_bytes(rows))


def csv_bytes(rows: Iterable[Sequence[Any]]) -> bytes:
    """Returns the bytes that `write_csv` writes; an InputError if text in it is no Unicode."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return _encode(text.getvalue())


def check_text(text: str, source: str) -> None:
    """Raises an InputError for text that is no Unicode, such as a file's name in Latin-1."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{source}: {ascii(text)} is no Unicode, expected a name in UTF-8; rename it"
        ) from None


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        near = ascii(text[max(error.start - 30, 0) : error.end + 30])
        raise InputError(f"cannot write {near}: no Unicode, expected text in UTF-8") from None


def write_npy(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes an array of numbers as `.npy`; raises OSError as `write_json` does."""
    write_filled(path, lambda file: np.save(file, array, allow_pickle=False))


def write_npy_rows(
    path: str | os.PathLike, parts: Iterable[np.ndarray], shape: tuple[int, int]
) -> None:
    """Writes a float32 matrix of a known shape as `.npy`, in parts `[n, D]`, in order.

    An error in computing the parts leaves no file; raises OSError as `write_json` does.
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

    write_filled(path, fill)


def write_npz(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], *, compress: bool = True
) -> None:
    """Writes named arrays as one `.npz`; raises OSError as `write_json` does."""
    write_bytes(path, npz_bytes(arrays, compress=compress))


def npz_bytes(arrays: Mapping[str, np.ndarray], *, compress: bool = True) -> bytes:
    """Returns the bytes that `write_npz` writes."""
    content = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(content, allow_pickle=False, **arrays)
    return content.getvalue()


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the named arrays of an `.npz`; Python objects in it are refused."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # Damaged archives raise many kinds of errors, such as one for an unknown compression.
    except Exception as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}; expected an .npz") from error


def import_pyarrow(path: str | os.PathLike) -> Any:
    """Returns the module `pyarrow`, or raises an InputError that names the file and what to do."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise InputError(
            f'{path}: Arrow files need pyarrow; run pip install "tal_jax[tables]"'
        ) from error
    return pyarrow


def refuse_replacing(paths: Iterable[Path], *, ours: Callable[[Path], bool]) -> None:
    """Raises an InputError with the existing files that this library did not write.

    `ours` returns whether it wrote an existing file, which was not changed since; a file that
    cannot be read (OSError) counts as another's.
    """

    def is_ours(path: Path) -> bool:
        try:
            return ours(path)
        except OSError:
            return False

    # A broken link counts as a file: its target may be on an unmounted disk.
    others = [str(path) for path in paths if os.path.lexists(path) and not is_ours(path)]
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        raise InputError(
            f"{', '.join(others[:_NAMED])}{more}: there already, and not written by tal_jax or "
            "changed since; expected another --output, or --overwrite to replace what is there"
        )


def write_filled(path: str | os.PathLike, fill: Callable[[IO[bytes]], Any]) -> None:
    """Fills a temporary file in the target's folder, then replaces the target atomically.

    A symbolic link stays one, and the file that it leads to is replaced; a replaced file keeps its
    mode.

    What killed processes of this machine left in the folder is removed, once in a process: listing
    a folder for each of its 10⁵ files would take most of the time. An error of the function leaves
    no file; raises OSError as `write_json` does.
    """
    path, target = Path(path), Path(os.path.realpath(path))
    # The process id keeps two processes that write one file apart. A name near the file system's
    # limit has no room for the suffix, so it is shortened.
    short = f"{target.name[:40]}.{zlib.crc32(os.fsencode(target.name)):08x}.{_machine()}"
    temporary = target.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(os.path.abspath(target.parent), os.getpid())
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())  # a full disk may be reported only here
        with contextlib.suppress(OSError):  # there is none yet, or the disk has no modes
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        message = f"cannot write {path}: {reason_of(error)}; nothing was changed"
        raise OSError(error.errno or errno.EIO, message) from error
    finally:
        # Missing after the replacement; left over if filling failed.
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass


@functools.cache
def _machine() -> str:
    """A short hash of what gives process ids their meaning: the host and its container."""
    try:
        container = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        container = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {container}'.encode()):08x}"


@functools.lru_cache(maxsize=1024)
def _remove_left_over(folder: str, process: int) -> None:
    """Removes temporary files of processes of this machine that have ended."""
    del process  # a fork has its own cache
    for name in os.listdir(folder):
        match = _TEMPORARY.fullmatch(name)
        if match and match["machine"] == _machine() and _has_ended(int(match["process"])):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def remove_temporary(folder: str | os.PathLike) -> None:
    """Removes the temporary files of all machines in a folder of which the caller has the lock."""
    for name in os.listdir(folder):
        if _TEMPORARY.fullmatch(name):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it belongs to another user
        return False
    return False


def check_writable(paths: Iterable[str | os.PathLike]) -> None:
    """Raises an OSError, in one line, if a file could not be written; leaves nothing behind."""
    checked = set()
    for path in map(Path, paths):
        folder = path.parent
        try:
            while not os.path.lexists(folder):  # its parents are created later
                folder = folder.parent
            if folder not in checked:
                with tempfile.TemporaryFile(dir=folder) as file:
                    file.write(b"1")
                    file.flush()
                    os.fsync(file.fileno())  # a full disk may be reported only here
                checked.add(folder)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            message = f"cannot write {path}: {reason_of(error)}; nothing was changed"
            raise OSError(error.errno or errno.EIO, message) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} {value!r} as JSON")


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise InputError(f"key {twice!r} occurs twice in one object, expected once")
    return values


def reason_of(error: Exception) -> str:
    """Returns the reason of an error in one line, without the file's name."""
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]
