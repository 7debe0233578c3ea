"""Recordings become a folder of features, many at a time.

What lies in the folder::

    grid.json            the clock of the features
    manifest.json        what made them: backbone, version, options, and the source of each
    recording_1.npy      [T, D] float32
    ...

Every file is whole or not there, and the manifest is written anew as recordings are done, so that
the same call goes on where another one was stopped.
"""

import collections
import contextlib
import dataclasses
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import load_npy
from tal_jax.data.manifest import (
    MANIFEST_FILE,
    Entry,
    Manifest,
    check_same_backbone,
    read_manifest,
    write_manifest,
)
from tal_jax.data.signals import cut_windows
from tal_jax.datasets.own_layout import GRID_FILE, feature_path
from tal_jax.extraction import tables, video
from tal_jax.extraction.backbones import TABLE, VIDEO, Backbone, grid_of, with_channels

# Thousands of short recordings would spend their time on writing the manifest of all.
_WRITE_EVERY_S = 1.0
# What a process gets to take its unfinished file away when all is stopped.
_PATIENCE_S = 10.0
_SUFFIXES = {VIDEO: video.SUFFIXES, TABLE: tables.SUFFIXES}

Progress = Callable[[str, int, int], None]  # a recording's name, snippets done, snippets in all


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `extract_folder` did.

    Attributes:
      done: names of the recordings that it described.
      skipped: names of those whose features were there.
      failed: files that it could not describe, and why, in a line that names the file.
      notes: what it did not look at.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


# --- one recording ---


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file is a video: by its name, or where that says nothing, by looking into it."""
    suffix = Path(path).suffix.lower()
    if suffix in video.SUFFIXES or suffix in tables.SUFFIXES:
        return suffix in video.SUFFIXES
    try:
        video.probe(path)
    except ValueError:
        return False
    return True


def stream_features(
    path: str | os.PathLike, backbone: Backbone, *, batch: int = 16
) -> Iterator[np.ndarray]:
    """Describes a recording piece by piece, however long it is.

    Args:
      path: a video or a table of samples, as the backbone reads.
      backbone: from `open_backbone`, or one's own.
      batch: windows that the backbone gets at once. Of a video no more than these are held.

    Yields:
      float32 `[n, D]` of snippets that follow each other, T in all. The window of a snippet is
      centred on it; beyond the recording it sees the first or last frame.

    Raises:
      ValueError: if the recording cannot be read, or the backbone gives what it should not.
    """
    yield from _open_source(path, backbone, batch).features()


def extract_file(
    path: str | os.PathLike,
    output: str | os.PathLike,
    backbone: Backbone,
    *,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Entry:
    """Writes the features of one recording, without holding them.

    Args:
      path: the recording.
      output: the `.npy` to write; it appears when it is whole.
      backbone: from `open_backbone`, or one's own.
      batch: windows that the backbone gets at once.
      progress: is told how many snippets are done, of how many.

    Returns:
      What the manifest tells of it.

    Raises:
      ValueError: as `stream_features` does.
      OSError: if the features cannot be written.
    """
    source = _open_source(path, backbone, batch)
    identity = _identify(path)  # before: a file that changes from now on is another one later

    def parts() -> Iterator[np.ndarray]:
        done = 0
        for part in source.features():
            yield part
            done += len(part)
            if progress is not None:
                progress(done, source.snippets)

    shape = (source.snippets, source.backbone.dim)
    files.write_npy_rows(output, parts(), shape)
    return Entry(*identity, source.duration_s, *shape, source.notes)


@dataclasses.dataclass(frozen=True)
class _Source:
    """A recording that is about to be described."""

    path: str | os.PathLike
    backbone: Backbone
    duration_s: float
    snippets: int
    windows: Iterator[np.ndarray]
    notes: tuple[str, ...] = ()

    def features(self) -> Iterator[np.ndarray]:
        for windows in self.windows:
            features = np.asarray(self.backbone(windows), np.float32)
            expected = (len(windows), self.backbone.dim)
            if features.shape != expected or not np.isfinite(features).all():
                raise ValueError(
                    f"{self.path}: the backbone {self.backbone.name} gave features of shape "
                    f"{list(features.shape)}, expected finite ones of {list(expected)}"
                )
            yield features


def _open_source(path: str | os.PathLike, backbone: Backbone, batch: int) -> _Source:
    grid = grid_of(backbone)
    if backbone.kind == TABLE:
        return _open_table(path, backbone, grid, batch)
    duration_s = video.probe(path).duration_s
    snippets = grid.num_snippets(duration_s)
    windows = _video_windows(path, grid, backbone.size, snippets, batch)
    return _Source(path, backbone, duration_s, snippets, windows)


def _open_table(path: str | os.PathLike, backbone: Backbone, grid: Grid, batch: int) -> _Source:
    table = tables.read_table(path)
    try:
        backbone = with_channels(backbone, table.names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    channels = getattr(backbone, "channels", table.names)
    missing = [name for name in channels if name not in table.names]
    if missing:
        raise ValueError(
            f"{path}: no column {missing[0]!r} among {', '.join(table.names)}; the features are "
            f"made of {', '.join(channels)}"
        )
    columns = [table.names.index(name) for name in channels]
    samples = tables.regular(table, grid.fps)[:, columns]
    unused = [name for name in table.names if name not in channels]
    notes = (f"columns left out: {', '.join(unused)}",) if unused else ()
    duration_s = float(grid.frames_to_seconds(len(samples)))
    snippets = grid.num_snippets(duration_s)
    windows = (
        cut_windows(samples, grid, start, min(start + batch, snippets))
        for start in range(0, snippets, batch)
    )
    return _Source(path, backbone, duration_s, snippets, windows, notes)


def _video_windows(
    path: str | os.PathLike,
    grid: Grid,
    size: tuple[int, int] | None,
    snippets: int,
    batch: int,
) -> Iterator[np.ndarray]:
    """Windows uint8 `[n, window, H, W, 3]`, holding only the frames that some of them still see."""
    window = int(grid.window_frames)
    starts = grid.first_frames(snippets).tolist()
    times_s = (grid.frames_to_seconds(frame) for frame in _seen(starts, window))
    frames = zip(_seen(starts, window), video.read_frames(path, times_s, size=size), strict=False)
    held, cut = {}, []
    for start in starts:
        held = {frame: pixels for frame, pixels in held.items() if frame >= start}
        while start + window - 1 not in held:
            frame, pixels = next(frames)
            held[frame] = pixels
        cut.append(np.stack([held[frame] for frame in range(start, start + window)]))
        if len(cut) == batch:
            yield np.stack(cut)
            cut = []
    if cut:
        yield np.stack(cut)


def _seen(starts: Sequence[int], window: int) -> Iterator[int]:
    """Numbers of the frames that some window sees, each once, in their order.

    >>> list(_seen([-1, 1, 7], 3))
    [-1, 0, 1, 2, 3, 7, 8, 9]
    """
    following = starts[0]
    for start in starts:
        yield from range(max(start, following), start + window)
        following = start + window


def _identify(path: str | os.PathLike) -> tuple[str, str, int, int]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.fstat(file.fileno())
    return os.path.abspath(path), digest, status.st_size, status.st_mtime_ns


# --- many recordings ---


def extract_folder(
    paths: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    backbone: Backbone,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Summary:
    """Describes many recordings in parallel processes.

    A recording is named after its file, without folder and ending. One whose features are there,
    made by this backbone of this very file, is left as it is. One that cannot be described is
    reported, and the others are done; a process that dies loses the recording it was at.

    The processes are started anew ("spawn"), so a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
      paths: recordings, and folders of which all files with an ending of the backbone's kind are
        taken (not those in folders inside).
      output: folder for the features; made where missing.
      backbone: from `open_backbone`, or one's own that can be pickled.
      workers: processes; by default as many as there are processors, one for networks.
      progress: is told of each recording how far it is.
      report: is told a line for each recording that is done or failed.

    Returns:
      What was done. The caller tells of the failed ones.

    Raises:
      ValueError: if there is nothing to describe, two recordings have one name, an input would be
        overwritten, or the folder holds features that were made otherwise.
      OSError: if the folder cannot be written to.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, expected 1 or more")
    output, say = Path(output), report or (lambda line: None)
    sources, notes = _find(list(paths), backbone.kind)
    targets, failed = _name(sources, output)
    there = read_manifest(output)
    backbone = _settle_channels(backbone, sources, there)
    manifest = _begin(output, backbone, there)
    skipped = {name for name in targets if _is_there(output, name, targets[name], manifest)}
    jobs = {name: path for name, path in targets.items() if name not in skipped}
    for _, reason in failed:
        say(f"FAILED {reason}")
    if workers is None:
        # A network takes all of a processor or of a GPU's memory by itself.
        workers = 1 if "path" in backbone.options else os.cpu_count() or 1
    entries, done, written_s = dict(manifest.recordings), [], time.monotonic()

    def write() -> None:
        write_manifest(output, dataclasses.replace(manifest, recordings=entries))

    with contextlib.closing(_work_off(jobs, output, backbone, workers)) as told:
        try:
            for name, kind, value in told:
                if kind == _PROGRESS:
                    if progress is not None:
                        progress(name, *value)
                elif kind == _FAILED:
                    path = str(jobs[name])
                    reason = value if path in value else f"{path}: {value}"
                    failed.append((path, reason))
                    say(f"FAILED {reason}")
                else:
                    entries[name] = value
                    done.append(name)
                    notes_of = "".join(f" ({note})" for note in value.notes)
                    say(f"{name}: {value.duration_s:.1f} s, {value.snippets} snippets{notes_of}")
                    if time.monotonic() - written_s > _WRITE_EVERY_S:
                        write()
                        written_s = time.monotonic()
        finally:
            write()
    return Summary(tuple(done), tuple(sorted(skipped)), tuple(failed), notes)


def _find(paths: Sequence[str | os.PathLike], kind: str) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the recordings, and what else lies in the folders."""
    found, others = [], []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        visible = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
        of_kind = [p for p in visible if p.suffix.lower() in _SUFFIXES[kind]]
        found += of_kind
        others += [p.name for p in visible if p not in of_kind]
    if not found:
        looked = ", ".join(map(str, paths)) or "nothing"
        raise ValueError(f"no {kind} in {looked}; expected files {', '.join(_SUFFIXES[kind])}")
    some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    notes = (f"{len(others)} other files are no {kind}s by their names: {some}",) if others else ()
    return list(dict.fromkeys(found)), notes


def _name(sources: Sequence[Path], output: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Returns the recordings by their names, and those that cannot have one."""
    named, failed = {}, []
    for path in sources:
        try:
            str(path).encode()
            target = feature_path(output, path.stem)
        except ValueError as error:  # a name that is no text in Unicode, or with a colon
            shown = ascii(str(path))
            failed.append((shown, f"{shown}: {error}"))
            continue
        if path.stem in named:
            raise ValueError(
                f"{named[path.stem]} and {path}: two recordings of one name, expected different "
                "ones; rename one, or give them different outputs"
            )
        if target.resolve() in {other.resolve() for other in sources}:
            raise ValueError(f"{target} would be overwritten; expected another output folder")
        named[path.stem] = path
    return named, failed


def _settle_channels(
    backbone: Backbone, sources: Sequence[Path], there: Manifest | None
) -> Backbone:
    """The backbone with the channels of earlier features or else of the first good table."""
    if backbone.kind != TABLE:
        return backbone
    if there is not None and there.recordings and there.backbone == backbone.name:
        return with_channels(backbone, there.options.get("channels", ()))
    for path in sources:
        try:
            return _open_table(path, backbone, grid_of(backbone), batch=1).backbone
        except ValueError:
            pass  # it will be told of when its turn comes
    return backbone


def _begin(output: Path, backbone: Backbone, there: Manifest | None) -> Manifest:
    """Returns the manifest to go on with, after making sure that the folder is one for it."""
    manifest = Manifest(
        backbone.name, backbone.version, backbone.options, backbone.dim, grid_of(backbone)
    )
    if there is not None and there.recordings:
        check_same_backbone(there, manifest, str(output))
        manifest = dataclasses.replace(manifest, recordings=there.recordings)
    elif there is None and ((output / GRID_FILE).exists() or any(output.glob("*.npy"))):
        raise ValueError(
            f"{output}: holds features without a {MANIFEST_FILE}; expected a new folder, or one "
            "that this command began"
        )
    write_manifest(output, manifest)
    files.write_json(output / GRID_FILE, manifest.grid.to_dict())
    return manifest


def _is_there(output: Path, name: str, path: Path, manifest: Manifest) -> bool:
    """Whether the features of this very file lie in the folder."""
    entry = manifest.recordings.get(name)
    if entry is None:
        return False
    try:
        shape = load_npy(feature_path(output, name)).shape
        status = path.stat()
        same = (status.st_size, status.st_mtime_ns) == (entry.bytes, entry.modified_ns)
        return shape == (entry.snippets, entry.dim) and (same or _identify(path)[1] == entry.sha256)
    except (OSError, ValueError):
        return False


# --- processes ---

_PROGRESS, _DONE, _FAILED = "progress", "done", "failed"


def _work_off(
    jobs: Mapping[str, Path], output: Path, backbone: Backbone, workers: int
) -> Iterator[tuple[str, str, Any]]:
    """Describes recordings in processes of their own, and tells what they tell.

    Each process does one recording after the other, so that a model is loaded once; where one dies,
    the pipe to it ends, only its recording is lost, and another process takes its place.
    """
    waiting, busy = collections.deque(jobs), {}

    def start(process: Any, connection: Any) -> None:
        name = waiting.popleft()
        with contextlib.suppress(BrokenPipeError):  # dead already: the end of the pipe tells
            connection.send((jobs[name], feature_path(output, name)))
        busy[connection] = process, name

    try:
        for _ in range(min(workers, len(jobs))):
            start(*_start_process(backbone))
        while busy:
            for connection in multiprocessing.connection.wait(list(busy)):
                process, name = busy[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    kind, value = _FAILED, _death(process.exitcode)
                    process = None
                yield name, kind, value
                if kind == _PROGRESS:
                    continue
                del busy[connection]
                if waiting:
                    start(*((process, connection) if process else _start_process(backbone)))
                else:
                    connection.close()  # upon which the process ends
    finally:
        for connection, (process, _) in busy.items():
            connection.close()  # nobody listens any more: one that would go on finds out
            process.terminate()
        for process, _ in busy.values():
            process.join(_PATIENCE_S)
            process.kill()
            process.join()


def _start_process(backbone: Backbone) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, backbone), daemon=True)
    process.start()
    there.close()
    return process, here


def _death(exitcode: int) -> str:
    if exitcode < 0:
        return f"its process was killed (signal {-exitcode}); too little memory may be why"
    return f"its process ended with code {exitcode}"


def _serve(connection: Any, backbone: Backbone) -> None:
    """What each process does, until nobody is at the other end."""
    # The process that the user stops ends this one, which then takes its unfinished file away.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    while True:
        try:
            path, target = connection.recv()
        except EOFError:
            return
        try:
            entry = extract_file(
                path, target, backbone, progress=lambda *done: connection.send((_PROGRESS, done))
            )
            connection.send((_DONE, entry))
        except BrokenPipeError:
            return
        except Exception as error:  # whatever is wrong with one recording, the others are done
            expected = isinstance(error, ValueError | OSError)
            kind = "" if expected else f"{type(error).__name__}: "
            connection.send((_FAILED, kind + " ".join(str(error).split())))
