"""Identity of a file: whether it is the one that an earlier call read."""

import hashlib
import os

import msgspec

from tal_jax.data.addresses import Source, status


class FileIdentity(msgspec.Struct, frozen=True):
    """Content, size and time of the last change of a file."""

    sha256: str
    bytes: int
    modified_ns: int


def identify(path: str | os.PathLike) -> FileIdentity:
    """The identity of a file, which is read as a whole."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        found = os.fstat(file.fileno())
    return FileIdentity(digest, found.st_size, found.st_mtime_ns)


def is_same(path: str | os.PathLike | Source, before: FileIdentity) -> bool:
    """Whether a file is still the same; it is read only where size or time changed.

    One of another machine is not fetched for that: with another time, it is another one.
    """
    if status(path) == (before.bytes, before.modified_ns):
        return True
    return isinstance(path, str | os.PathLike) and identify(path).sha256 == before.sha256
