"""The detections of many recordings as one JSON and one table, one recording in memory at once."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from tal_jax.data import files
from tal_jax.data.addresses import Source
from tal_jax.data.detections import Results, activitynet_json, read_results
from tal_jax.report import subtitles
from tal_jax.report.prediction import output_files

_RESULTS = '"results": {'
_FILES = ',\n "files": '
_MOST_FILES_BYTES = 4096  # at the end of the JSON


def summary_files(folder: str | Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Returns the paths that `write_summary` writes: JSON and table.

    Raises:
      InputError: if one exists, unless it is an unchanged file of an earlier call.
    """
    outputs = Path(folder) / "detections.json", Path(folder) / "detections.csv"
    if not overwrite:
        files.refuse_replacing(outputs, ours=lambda output: _is_unchanged(output, outputs[0]))
    return outputs


def write_summary(
    recordings: Iterable[Source], folder: str | Path, *, overwrite: bool
) -> list[Path]:
    """Writes the detections of all recordings as one ActivityNet JSON and one table.

    Reads them from the files that `write_prediction` wrote into the folder.

    Raises:
      InputError: as `summary_files`, or if such a file cannot be read.
      OSError: if a file cannot be written.
    """
    outputs = summary_files(folder, overwrite=overwrite)
    each = (
        read_results(output_files(None, source, folder=folder, overwrite=True)[0])
        for source in recordings
    )
    with tempfile.TemporaryFile(dir=folder) as table:

        def fill(file: IO[bytes]) -> None:
            digest = hashlib.sha256()
            for part in _parts(each, table):
                digest.update(part)
                file.write(part)
            end = _text({})[1]
            digest.update(end.encode())
            digests = [digest.hexdigest(), _digest(table)]
            named = dict(zip((path.name for path in outputs), digests, strict=True))
            file.write(_text({"files": named})[1].encode())

        # First, so that the table is known even if this call is stopped before it.
        files.write_filled(outputs[0], fill)
        table.seek(0)
        files.write_filled(outputs[1], lambda file: shutil.copyfileobj(table, file))
    return list(outputs)


def _parts(each: Iterable[Results], table: IO[bytes]) -> Iterator[bytes]:
    """The text of the JSON up to the end of its results; also writes the rows of the table."""
    yield _text({})[0].encode()
    table.write(subtitles.table_of({}))
    count, header = 0, len(subtitles.table_of({}))
    for results in each:
        table.write(subtitles.table_of(results)[header:])
        for name, entries in results.items():
            # As `write_json` writes it, a level deeper.
            lines = files.json_bytes({name: list(entries)}).decode().split("\n")[1:-2]
            yield (",\n " if count else "\n ").encode() + "\n ".join(lines).encode()
            count += 1
    yield b"\n }" if count else b"}"


def _text(more: dict[str, Any]) -> tuple[str, str]:
    """What comes before and after the results."""
    begin, _, end = files.json_bytes(activitynet_json({}) | more).decode().partition(_RESULTS)
    return begin + _RESULTS, end.removeprefix("}")


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


def _is_unchanged(output: Path, results: Path) -> bool:
    """Whether a file still has the digest at the end of the JSON, of which no more is parsed."""
    with open(results, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _MOST_FILES_BYTES, 0))
        rest, found, end = file.read().rpartition(_FILES.encode())
        try:
            digests = json.loads(b'{"files": ' + end)["files"] if found else {}
            wanted = digests[output.name]
        except (ValueError, KeyError, TypeError):  # not a JSON of this module
            return False
        if output != results:
            with open(output, "rb") as other:
                return _digest(other) == wanted
        return _digest_before(file, size - len(found + end)) == wanted


def _digest_before(file: IO[bytes], size: int) -> str:
    """The digest of a JSON without the key "files", which begins after so many bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        part = file.read(min(size, 2**20))
        digest.update(part)
        size -= len(part)
    digest.update(b"\n}\n")
    return digest.hexdigest()
