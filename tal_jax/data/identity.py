"""Identity of a file: whether it is the one that an earlier call read."""

import hashlib
import os

import msgspec


class FileIdentity(msgspec.Struct, frozen=True):
    """Content, size and time of the last change of a file."""

    sha256: str
    bytes: int
    modified_ns: int


def identify(path: str | os.PathLike) -> FileIdentity:
    """The identity of a file, which is read as a whole."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.fstat(file.fileno())
    return FileIdentity(digest, status.st_size, status.st_mtime_ns)


def is_same(path: str | os.PathLike, before: FileIdentity) -> bool:
    """Whether a file is still the same; it is read only where size or time changed."""
    status = os.stat(path)
    if (status.st_size, status.st_mtime_ns) == (before.bytes, before.modified_ns):
        return True
    return identify(path).sha256 == before.sha256
