"""Features of many recordings in a few files: shards in the Arrow IPC format.

A folder with N shards, whatever the number of its recordings::

    features-0000-of-0064.arrow
    ...
    features-0063-of-0064.arrow

A shard is an Arrow IPC file with one column, `features`, fixed-size lists of D float32 or float16.
A record batch holds the T rows of one recording, uncompressed, and is mapped into memory alone. The
metadata of the schema, `tal_jax`, is the index as JSON: for each batch, in their order, the name,
T, a digest, and where it is known the entry of the manifest. So an index cannot disagree with its
data, opening reads the index only, and fingerprints need no features.

The name of a recording decides its shard, so that the same recordings make the same files,
whichever was extracted first.
"""

import contextlib
import dataclasses
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.addresses import Source, is_local, locate
from tal_jax.data.identity import FileIdentity
from tal_jax.data.lazy_features import LazyFeatures, digest_of, open_features
from tal_jax.data.manifest import Entry
from tal_jax.data.recordings import check_finite

MOST_SHARDS = 9999
_NAME = re.compile(r"features-(\d{4})-of-(\d{4})\.arrow")
_KEY = b"tal_jax"
_VERSION = 1
_EXPECTED = "expected a shard of features that tal_jax wrote"


class _Indexed(msgspec.Struct, frozen=True):
    """One recording in the index of a shard."""

    name: str
    snippets: int
    digest: str
    entry: Entry | None = None


class _Index(msgspec.Struct, frozen=True):
    version: int
    recordings: list[_Indexed]


@dataclasses.dataclass(frozen=True)
class ShardFeatures(LazyFeatures):
    """The features `[T, D]` of one recording in a shard; neither the array nor an open file."""

    path: Path  # the shard
    batch: int  # number of its record batch
    name: str
    shape: tuple[int, int]
    dtype: np.dtype
    digest: str  # see `digest_of`
    entry: Entry | None  # how they were extracted, where that is known

    @property
    def identity(self) -> FileIdentity:
        """In place of that of a file; a shard that is written again keeps it."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return FileIdentity(self.digest, size, 0)

    def __getitem__(self, rows: slice) -> np.ndarray:
        with _opened(self.path) as reader:
            if self.batch < reader.num_record_batches:
                batch, own = reader.get_batch_with_custom_metadata(self.batch)
                values = batch.column(0).flatten().to_numpy().reshape(len(batch), -1)
                named = own is not None and own.get(b"name") == self.name.encode()
                if named and (values.shape, values.dtype) == (self.shape, self.dtype):
                    return np.array(values[rows])
        raise InputError(f"{self.path}: was changed since it was opened: {self.name!r} moved")


def shard_of(name: str, count: int) -> int:
    """The number of the shard, of `count`, that a recording belongs to.

    >>> shard_of("video_1", 64), shard_of("video_2", 64)
    (61, 7)
    """
    return zlib.crc32(name.encode()) % count


def split_names(names: Iterable[str], count: int) -> list[list[str]]:
    """The names of each of `count` shards, in order."""
    split: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(names):
        split[shard_of(name, count)].append(name)
    return split


def shard_path(folder: str | os.PathLike, number: int, count: int) -> Path:
    """The file of a shard."""
    return Path(folder) / f"features-{number:04d}-of-{count:04d}.arrow"


def check_count(count: int) -> int:
    """The number of shards; raises an InputError if it is out of range."""
    if not 1 <= count <= MOST_SHARDS:
        raise InputError(f"shards is {count}, expected 1 to {MOST_SHARDS}")
    return count


def count_shards(folder: str | os.PathLike) -> int:
    """How many shards the features of a folder have by their names; 0 in a folder without shards.

    Raises:
      InputError: if shards of different numbers are mixed.
    """
    matches = (_NAME.fullmatch(path.name) for path in Path(folder).glob("features-*.arrow"))
    counts = sorted({int(match[2]) for match in matches if match})
    if len(counts) > 1:
        raise InputError(
            f"{folder}: shards of {counts[0]} and of {counts[1]}, expected those of one number"
        )
    return counts[0] if counts else 0


def open_shards(folder: str | os.PathLike, *, complete: bool = True) -> dict[str, ShardFeatures]:
    """Opens the features in the shards of a folder, by recording, reading only their indices.

    Args:
      folder: with shards, or without any: then there are no features in them.
      complete: refuse a folder that lacks some of its shards.

    Raises:
      InputError: if a shard is missing or damaged, or pyarrow is not installed.
    """
    count = count_shards(folder)
    paths = [shard_path(folder, number, count) for number in range(count)]
    missing = [path.name for path in paths if not path.exists()]
    if missing and complete:
        raise InputError(
            f"{folder}: {len(missing)} of {count} shards are missing, such as {missing[0]}; repeat "
            "the command that wrote the others, or restore them"
        )
    return {
        name: one
        for path in paths
        if path.name not in set(missing)
        for name, one in open_shard(path).items()
    }


def find_in_shards(path: str | os.PathLike | Source) -> ShardFeatures | None:
    """The features of a recording `FOLDER/NAME.npy` that is not there, in the shards of FOLDER.

    Reads the index of one shard. None where the file exists, or there are no such features.

    Raises:
      InputError: if the shard is damaged, or pyarrow is not installed.
    """
    file = locate(path)
    if not is_local(file) or file.suffix != ".npy" or file.exists():
        return None
    count = count_shards(file.parent)
    shard = shard_path(file.parent, shard_of(file.stem, count), count) if count else file
    return open_shard(shard).get(file.stem) if shard.exists() else None


def open_shard(path: str | os.PathLike) -> dict[str, ShardFeatures]:
    """Opens the features in one shard by recording; raises as `open_shards`."""
    path = Path(path)
    with _opened(path) as reader:
        schema, batches = reader.schema, reader.num_record_batches
    content = (schema.metadata or {}).get(_KEY)
    if content is None:
        raise InputError(f"cannot read {path}: it has no index; {_EXPECTED}")
    try:
        index = msgspec.json.decode(content, type=_Index)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: its index is damaged ({error})") from error
    if index.version != _VERSION:
        raise InputError(f"{path}: version {index.version}, expected {_VERSION}")
    if len(index.recordings) != batches:
        raise InputError(
            f"{path}: {batches} recordings and {len(index.recordings)} in the index; {_EXPECTED}"
        )
    rows = schema.field(0).type
    dim, dtype = rows.list_size, np.dtype(rows.value_type.to_pandas_dtype())
    return {
        one.name: ShardFeatures(
            path, number, one.name, (one.snippets, dim), dtype, one.digest, one.entry
        )
        for number, one in enumerate(index.recordings)
    }


def write_shard(
    path: str | os.PathLike,
    features: Mapping[str, Any],
    entries: Mapping[str, Entry] | None = None,
) -> None:
    """Writes a shard of recordings, in the order of their names, atomically, one in memory at once.

    Args:
      path: of the shard, from `shard_path`.
      features: `[T, D]` by name, arrays or `LazyFeatures`; of one D and type. Each is read twice.
      entries: of the manifest, by name, where they are known.

    Raises:
      InputError: if features differ in D or type, cannot be read, or hold NaN or infinity.
      OSError: if the file cannot be written.
    """
    arrow, entries = files.import_pyarrow(path), entries or {}
    names = sorted(features)
    dim, dtype = _common(path, features)
    index = _Index(
        _VERSION,
        [
            _Indexed(name, len(features[name]), digest_of(features[name]), entries.get(name))
            for name in names
        ],
    )
    rows = arrow.list_(arrow.from_numpy_dtype(dtype), dim)
    schema = arrow.schema(
        [arrow.field("features", rows, nullable=False)],
        metadata={_KEY: msgspec.json.encode(index)},
    )

    def fill(file: IO[bytes]) -> None:
        with arrow.ipc.new_file(file, schema) as writer:
            for name in names:
                values = np.ascontiguousarray(features[name], dtype)
                check_finite(name, values)
                values = values.reshape(-1)
                column = arrow.FixedSizeListArray.from_arrays(arrow.array(values), type=rows)
                batch = arrow.record_batch([column], schema=schema)
                writer.write_batch(batch, {"name": name})

    files.write_filled(path, fill)


def pack_shard(folder: Path, number: int, count: int, entries: Mapping[str, Entry]) -> None:
    """Moves the `.npy` files of recordings into their shard, beside those that are in it.

    A call that was interrupted is repeated with the same result: files are removed last, and one
    that is missing was moved already.
    """
    path = shard_path(folder, number, count)
    known: dict[str, Any] = dict(open_shard(path)) if path.exists() else {}
    all_entries = {name: one.entry for name, one in known.items() if one.entry} | dict(entries)
    moved = {name: folder / f"{name}.npy" for name in entries}
    moved = {name: one for name, one in moved.items() if one.exists() or name not in known}
    write_shard(path, known | {name: open_features([moved[name]]) for name in moved}, all_entries)
    for one in moved.values():
        one.unlink()


def _common(path: str | os.PathLike, features: Mapping[str, Any]) -> tuple[int, np.dtype]:
    """D and type of all; 1 and float32 of none."""
    if not features:
        return 1, np.dtype(np.float32)
    first = min(features)
    dim, dtype = features[first].shape[-1], features[first].dtype
    for name, one in features.items():
        if one.dtype not in (np.float32, np.float16) or one.ndim != 2:
            raise InputError(
                f"{name}: features are {one.dtype} {list(one.shape)}, expected float32 or float16 "
                "[T, D]"
            )
        if (one.shape[1], one.dtype) != (dim, dtype):
            raise InputError(
                f"{path}: features of {name!r} are {one.dtype} with D = {one.shape[1]}, those of "
                f"{first!r} {dtype} with D = {dim}; expected one kind"
            )
    return dim, dtype


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A reader of a shard that is mapped into memory; what is wrong with it is an InputError."""
    arrow = files.import_pyarrow(path)
    try:
        with arrow.memory_map(os.fspath(path)) as mapped:
            yield arrow.ipc.open_file(mapped)
    except (OSError, arrow.ArrowException) as error:
        reason = files.reason_of(error)
        raise InputError(f"cannot read {path}: {reason}; {_EXPECTED}") from error
