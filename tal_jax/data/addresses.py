"""Recordings at addresses of other machines (`s3://`, `gs://`, `https://`, `zip://`, ...).

Such an address is a `UPath`, which has the interface of `pathlib.Path` and opens whatever fsspec
opens. Whoever reads a recording fetches it first, see `on_disk`.
"""

import contextlib
import email.utils
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError

# A path of this machine, or the address of a file of another one: a `UPath`.
Source = Any


def locate(source: str | os.PathLike | Source) -> Source:
    """The `Path` or `UPath` of a path or an address.

    >>> locate("clips/a.mp4")
    PosixPath('clips/a.mp4')

    Raises:
      InputError: if it is an address that cannot be opened.
    """
    if not isinstance(source, str | os.PathLike):
        return source  # a `UPath`
    if "://" not in os.fspath(source):
        return Path(source)
    try:
        import upath  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f'{source}: addresses need universal_pathlib; run pip install "tal_jax[ray]"'
        ) from error
    with reported(source):
        address = upath.UPath(source)
        local = address.protocol in ("file", "local")
        return Path(address.path) if local else address


def is_local(source: Source) -> bool:
    """Whether a recording is a file of this machine, or of a disk that it shares with others."""
    return isinstance(source, Path)


def is_folder(source: Source) -> bool:
    """Whether a path or an address is that of a folder."""
    if is_local(source):
        return source.is_dir()
    with reported(source):
        return source.is_dir()


@contextlib.contextmanager
def reported(source: Any) -> Iterator[None]:
    """Raises what goes wrong with an address as an InputError; each kind has its own exceptions."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise InputError(f"cannot read {source}: {kind}{reason}") from error


def status(source: str | os.PathLike | Source) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; 0 where an address lacks it."""
    if isinstance(source, str | os.PathLike):
        found = os.stat(source)
        return found.st_size, found.st_mtime_ns
    with reported(source):
        found = source.stat()
        return found.st_size, found.st_mtime_ns or _header_time_ns(found)


def _header_time_ns(found: Any) -> int:
    try:  # of HTTP
        return (
            int(email.utils.parsedate_to_datetime(found.as_info()["Last-Modified"]).timestamp())
            * 10**9
        )
    except (KeyError, TypeError, ValueError):
        return 0


@contextlib.contextmanager
def on_disk(source: Source) -> Iterator[Path]:
    """A recording as a file of this machine; one of another is fetched, and removed afterwards."""
    if is_local(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="tal_jax_") as scratch:
        yield fetch(source, Path(scratch))


def fetch(source: Source, folder: Path) -> Path:
    """Copies a file of another machine into a folder, with its name and time of last change.

    Raises:
      InputError: if it cannot be read, or not as a whole.
    """
    size, modified_ns = status(source)
    target = folder / source.name
    with reported(source):
        source.fs.get_file(source.path, os.fspath(target))
    if size and target.stat().st_size != size:
        raise InputError(
            f"cannot read {source}: {target.stat().st_size} bytes were fetched, expected {size}"
        )
    os.utime(target, ns=(modified_ns, modified_ns))
    return target
