"""The port and the token of a page's address, kept for the next start.

A page that is open when the program ends has labels that are not saved yet; it can save them once
the program listens under the same address again.
"""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import msgspec

_LONGEST = 1000  # bytes of the file
_SHORTEST_TOKEN = 32


class Address(msgspec.Struct, frozen=True):
    """What of an address differs from one start to another."""

    port: int
    token: str


def read_address(path: Path) -> Address | None:
    """Reads what `write_address` wrote; None where others could have read or written it."""
    # Neither through a link, nor waiting for somebody to write into a pipe.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            if not _is_private(file.fileno()):
                return None
            found = msgspec.json.decode(file.read(_LONGEST), type=Address)
    except (OSError, ValueError):
        return None
    return found if len(found.token) >= _SHORTEST_TOKEN and found.token.isascii() else None


def write_address(path: Path, address: Address) -> None:
    """Keeps an address where only the user can read it; elsewhere it is not kept."""
    with contextlib.suppress(OSError):  # such as a folder that is made with the first label
        descriptor, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                if _is_private(descriptor):  # not all file systems have permissions
                    file.write(msgspec.json.encode(address))
                    file.close()
                    os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _is_private(descriptor: int) -> bool:
    """Whether a file belongs to the user, and nobody else can read or write it."""
    status = os.fstat(descriptor)
    alone = stat.S_ISREG(status.st_mode) and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return alone and status.st_uid == os.geteuid()
