"""Detections in many files: the features of the next one are computed meanwhile."""

import dataclasses
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tal_jax import extraction
from tal_jax._errors import InputError
from tal_jax.data.addresses import Source, is_local, locate
from tal_jax.data.identity import identify
from tal_jax.data.shards import open_shards
from tal_jax.extraction import keypoint_tables, tables, video
from tal_jax.inference.predict_file import (
    Described,
    Network,
    Prediction,
    describe,
    detect,
    reads_tables,
)

# A path, snippets done, and in all.
Progress = Callable[[Source, int, int], None]


def find_files(
    paths: Sequence[str | Path | Source], network: Network
) -> tuple[list[Source], tuple[str, ...]]:
    """Finds the recordings that a network reads, in files and folders; with notes.

    Of a folder those are used whose names end as videos, tables or features do, whichever the
    network was trained on, and features in its shards, named as if they were files.

    Raises:
      InputError: if there is no recording, or two have the same name.
    """
    suffixes: tuple[str, ...] = (".npy",)
    if network.manifest is not None:
        of_kind = keypoint_tables if network.manifest.backbone == "pose" else tables
        described = of_kind.SUFFIXES if reads_tables(network) else video.SUFFIXES
        suffixes = tuple(dict.fromkeys((*described, ".npy")))
    paths = [locate(path) for path in paths]
    folders = [path for path in paths if is_local(path) and path.is_dir()]
    sharded = [folder / f"{name}.npy" for folder in folders for name in sorted(open_shards(folder))]
    found, notes = extraction.find_recordings([*paths, *sharded], suffixes, "recording")
    named: dict[str, Source] = {}
    for path in found:
        other = named.setdefault(path.stem, path)
        if other is not path:
            raise InputError(
                f"{other} and {path}: two recordings of one name, expected different ones; rename "
                "one, or use different outputs"
            )
    return found, notes


def predict_files(
    paths: Sequence[Source],
    network: Network,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Progress = lambda path, done, total: None,
) -> Iterator[tuple[Source, Prediction | InputError | OSError]]:
    """Detects actions in recordings, one after another.

    A thread computes the features of the next recording while the network reads this one, so two
    recordings are on the disk at most.

    Args:
      paths: as in `predict_file`.
      network: as in `predict_file`.
      options: as in `predict_file`, for all of them.
      progress: called from the thread, with the path, the number of snippets done, and of all.

    Yields:
      In the order of `paths`, each path and its prediction with the identity of the file, or the
      error that `predict_file` raises for it.
    """
    stopped = threading.Event()

    def read(path: Source, folder: Path) -> Described:
        def watch(done: int, total: int) -> None:
            if stopped.is_set():
                raise InputError(f"{path}: stopped")  # nobody waits for the result any more
            progress(path, done, total)

        folder.mkdir()
        described = describe(path, network, folder, options, watch)
        if described.identity is None:
            described = dataclasses.replace(described, identity=identify(path))
        return described

    with (
        tempfile.TemporaryDirectory(prefix="tal_jax_") as scratch,
        ThreadPoolExecutor(max_workers=1) as reader,
    ):
        folders = [Path(scratch) / str(number) for number in range(len(paths))]
        awaited: list[Future[Described]] = []
        try:
            for number, path in enumerate(paths):
                for ahead in range(number + len(awaited), min(number + 2, len(paths))):
                    awaited.append(reader.submit(read, paths[ahead], folders[ahead]))
                found: Prediction | InputError | OSError
                try:
                    found = detect(awaited.pop(0).result(), network)
                except (InputError, OSError) as error:
                    found = error
                shutil.rmtree(folders[number])
                yield path, found
        finally:
            stopped.set()
