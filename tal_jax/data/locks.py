"""One writer at a time: a lock on a work directory, a folder of features or an annotation file.

The lock is `flock` on a small file that names its holder. The operating system releases it when the
holder ends, however that happens, so a lock never outlives its process; a file left behind by a
killed one is taken over.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError

_NAME = ".tal_jax.lock"
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def one_writer(folder: str | os.PathLike, what: str) -> contextlib.AbstractContextManager[None]:
    """Holds the lock of a folder, which is created if missing, and removed if it stays empty.

    Args:
      folder: a work directory, or a folder of features.
      what: what the holder does, such as "training", for the message that others get.

    Raises:
      InputError: if another process holds the lock, naming it.
      OSError: if the lock's file cannot be written.
    """
    return _hold(Path(folder) / _NAME, Path(folder), what)


def one_writer_of_file(
    path: str | os.PathLike, what: str
) -> contextlib.AbstractContextManager[None]:
    """Holds the lock of one file, whether it exists or not: as `one_writer` does.

    A folder of such files has the lock of a folder.
    """
    path = Path(path)
    if path.is_dir():
        return one_writer(path, what)
    return _hold(path.with_name(f".{path.name}.lock"), path, what)


def read_holder(folder: str | os.PathLike) -> str:
    """What the file of a folder's lock contains; the same on all machines that share the folder."""
    try:
        return (Path(folder) / _NAME).read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def _hold(lock: Path, path: Path, what: str) -> Iterator[None]:
    existed = lock.parent.exists()
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(lock, path)
    except OSError as error:
        message = f"cannot write {lock}: {error.strerror}; nothing was changed"
        raise OSError(error.errno, message) from error
    try:
        holder = {
            "what": what,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        with contextlib.suppress(OSError):  # of a full disk; the lock holds without a name too
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        # Before the lock is released: who opens the name from here on makes another file.
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)
        if not existed:
            with contextlib.suppress(OSError):  # something was written into it
                lock.parent.rmdir()


def _acquire(lock: Path, path: Path) -> int:
    """Opens the lock's file and locks it; one that was unlinked meanwhile does not count."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(descriptor, path)
            if _is_at(descriptor, lock):
                return descriptor
        except BlockingIOError:
            holder = _describe(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise InputError(
                f"{path} is in use by {holder}; wait for that process to end, or stop it"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        print(
            f"tal-jax: note: the file system of {path} has no locks; make sure that no other "
            "process writes there",
            file=sys.stderr,
        )


def _is_at(descriptor: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _describe(content: bytes) -> str:
    try:
        holder: dict[str, Any] = json.loads(content)
        return (
            f"{holder['what']}, process {holder['pid']} on {holder['host']} since {holder['since']}"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"
