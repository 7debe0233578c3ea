"""Extracts the features of many recordings into a folder, in parallel.

The files of the folder::

    grid.json            the clock of the features
    manifest.json        backbone, version, options, and the source of each recording
    recording_1.npy      [T, D] float32
    ...

or, with `shards`, the files of `tal_jax.data.shards`, which hold the entries of the manifest, too.
Then a recording is a file `.npy` only until all others of its shard are done.

Files are written atomically, and the manifest is updated as recordings are done, so that the same
call resumes an interrupted one.
"""

import dataclasses
import errno
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import addresses, files
from tal_jax.data.addresses import Source
from tal_jax.data.clock import Grid
from tal_jax.data.identity import FileIdentity, identify, is_same
from tal_jax.data.keypoints import Keypoints
from tal_jax.data.lazy_features import load_npy
from tal_jax.data.locks import one_writer
from tal_jax.data.manifest import (
    MANIFEST_FILE,
    Entry,
    Manifest,
    check_same_backbone,
    read_manifest,
    write_manifest,
)
from tal_jax.data.ray_pool import Death, RayPool, RayWorkers
from tal_jax.data.shards import (
    ShardFeatures,
    check_count,
    count_shards,
    open_shards,
    pack_shard,
    shard_of,
    shard_path,
    split_names,
)
from tal_jax.data.signals import cut_windows
from tal_jax.datasets.own_layout import GRID_FILE, recording_path
from tal_jax.extraction import cost, keypoint_tables, landmarks, tables, video
from tal_jax.extraction.backbones import (
    KEYPOINTS,
    TABLE,
    VIDEO,
    Backbone,
    grid_of,
    with_options,
)
from tal_jax.extraction.pose import Pose
from tal_jax.extraction.process_pool import ProcessPool

# With thousands of short recordings, writing the manifest after each would take most of the time;
# with many more, a longer manifest is written more seldom.
_WRITE_EVERY_S, _WRITE_SHARE = 1.0, 0.05
_BATCH = 16  # windows per call of a backbone
_TRIED = 3  # recordings of which the first readable one is measured
_SUFFIXES = {
    VIDEO: video.SUFFIXES,
    TABLE: tables.SUFFIXES,
    KEYPOINTS: keypoint_tables.SUFFIXES,
}
_TABLES = (*tables.SUFFIXES, *keypoint_tables.SUFFIXES)
_ALL_SUFFIXES = (*video.SUFFIXES, *_TABLES)

Progress = Callable[[str, int, int], None]  # a recording's name, snippets done, snippets in all
Counted = Callable[[int, int], None]  # recordings done or failed, and to do in all


@dataclasses.dataclass(frozen=True)
class Summary:
    """Result of `extract_folder`."""

    done: tuple[str, ...]  # names of the extracted recordings
    skipped: tuple[str, ...]  # names of those whose features existed
    failed: tuple[tuple[str, str], ...]  # files, and a line with the file and the reason
    notes: tuple[str, ...] = ()  # what was ignored


# --- one recording ---


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file is a video, by its suffix, or by its content if the suffix is unknown."""
    if video.has_video_suffix(path) or Path(path).suffix.lower() in _TABLES:
        return video.has_video_suffix(path)
    try:
        video.probe(path)
    except ValueError:
        return False
    return True


def stream_features(
    path: str | os.PathLike, backbone: Backbone, *, batch: int = _BATCH
) -> Iterator[np.ndarray]:
    """Extracts the features of a recording in parts, in bounded memory.

    Args:
      path: a video or a table of samples or keypoints, depending on the backbone.
      backbone: from `open_backbone`, or any other `Backbone`.
      batch: windows per call of the backbone. Of a video, no more than these are in memory.

    Yields:
      float32 `[n, D]` of consecutive snippets, T in all. The window of a snippet is centred on it;
      beyond the recording, it repeats the first or last frame.

    Raises:
      InputError: if the recording cannot be read, or the backbone returns other shapes or values.
    """
    yield from _open_source(path, backbone, batch).features()


def extract_file(
    path: str | os.PathLike,
    output: str | os.PathLike,
    backbone: Backbone,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Entry:
    """Extracts the features of one recording into an `.npy`, in bounded memory.

    Args:
      path: the recording.
      output: the file to write, atomically.
      backbone: from `open_backbone`, or any other `Backbone`.
      progress: called with the number of snippets done, and of all.

    Returns:
      The recording's entry in the manifest.
    """
    source = _open_source(path, backbone, _BATCH, progress)
    identity = identify(path)  # before reading: a later change makes it another file

    def parts() -> Iterator[np.ndarray]:
        done = 0
        for part in source.features():
            yield part
            done += len(part)
            if progress is not None:
                progress(done, source.snippets)

    assert source.backbone.dim is not None  # a table's channels are known by now
    shape = (source.snippets, source.backbone.dim)
    files.write_npy_rows(output, parts(), shape)
    if source.landmarks is not None:
        landmarks.write_table(landmarks_path(output), source.landmarks)
    return Entry(
        os.path.abspath(path),
        identity.sha256,
        identity.bytes,
        identity.modified_ns,
        source.duration_s,
        *shape,
        source.notes,
    )


@dataclasses.dataclass(frozen=True)
class _Source:
    """A recording, and the windows of its snippets."""

    path: str | os.PathLike
    backbone: Backbone
    duration_s: float
    snippets: int
    windows: Iterator[np.ndarray]
    notes: tuple[str, ...] = ()
    landmarks: Keypoints | None = None  # that were found in a video

    def features(self) -> Iterator[np.ndarray]:
        for windows in self.windows:
            features = np.asarray(self.backbone(windows), np.float32)
            expected = (len(windows), self.backbone.dim)
            if features.shape != expected or not np.isfinite(features).all():
                raise InputError(
                    f"{self.path}: the backbone {self.backbone.name} returned features of shape "
                    f"{list(features.shape)}, expected finite ones of {list(expected)}"
                )
            yield features


def _open_source(
    path: str | os.PathLike,
    backbone: Backbone,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> _Source:
    grid = grid_of(backbone)
    if backbone.kind == TABLE:
        return _open_table(path, backbone, grid, batch)
    if backbone.kind == KEYPOINTS:
        return _open_keypoints(path, backbone, grid, batch)
    if isinstance(backbone, Pose):
        return _open_landmarks(path, backbone, grid, batch, progress)
    info = video.probe(path)
    snippets = grid.num_snippets(info.duration_s)
    windows = _video_windows(path, grid, backbone.size, snippets, batch)
    return _Source(path, backbone, info.duration_s, snippets, windows, info.notes)


def read_samples(path: str | os.PathLike, backbone: Any) -> tables.Table:
    """Reads the channels of a table that a backbone uses, all if it has not settled on some."""
    return tables.read_table(
        path,
        channels=getattr(backbone, "channels", ()),
        time=getattr(backbone, "time", ""),
        time_unit=getattr(backbone, "time_unit", ""),
    )


def _open_table(path: str | os.PathLike, backbone: Backbone, grid: Grid, batch: int) -> _Source:
    table = read_samples(path, backbone)
    left_out = tables.describe_left_out(table.left_out)
    notes = (f"columns left out: {left_out}",) if left_out else ()
    try:
        backbone = with_options(backbone, {"channels": table.names})
        samples = tables.regular(table, grid.fps)
    except InputError as error:
        raise InputError("; ".join([f"{path}: {error}", *notes])) from error
    return _of_samples(path, backbone, samples, grid, batch, (*notes, *table.notes))


def read_keypoints(path: str | os.PathLike, backbone: Any) -> Keypoints:
    """Reads a table of keypoints as a backbone's options have it."""
    return keypoint_tables.read_keypoints(
        path, source_fps=backbone.source_fps, time=backbone.time, time_unit=backbone.time_unit
    )


def _open_keypoints(path: str | os.PathLike, backbone: Any, grid: Grid, batch: int) -> _Source:
    keypoints = read_keypoints(path, backbone)
    try:
        backbone = backbone.settle(keypoints)
        signals, notes = backbone.signals(keypoints)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return _of_samples(path, backbone, signals, grid, batch, notes)


def landmarks_path(features: str | os.PathLike) -> Path:
    """The table of the landmarks of a video, beside its features."""
    features = Path(features)
    return features.with_name(f"{features.stem}_keypoints.csv")


def _open_landmarks(
    path: str | os.PathLike,
    backbone: Any,  # Pose
    grid: Grid,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> _Source:
    """Finds the landmarks of a video, which takes nearly all of the time, and describes them."""
    info = video.probe(path)
    snippets = grid.num_snippets(info.duration_s)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(snippets * done // total, snippets)

    found = landmarks.find_landmarks(
        path, backbone.task, fps=backbone.fps, people=backbone.people, progress=report
    )
    try:
        signals, notes = backbone.signals(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    source = _of_samples(path, backbone, signals, grid, batch, (*info.notes, *notes))
    # The last frame may reach beyond the end of the video.
    return dataclasses.replace(
        source, duration_s=info.duration_s, snippets=snippets, landmarks=found
    )


def _of_samples(
    path: str | os.PathLike,
    backbone: Backbone,
    samples: np.ndarray,
    grid: Grid,
    batch: int,
    notes: tuple[str, ...],
) -> _Source:
    """The windows of samples `[n, channels]` at the rate of the features."""
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
    """Yields windows uint8 `[n, window, H, W, 3]`; frames are dropped after their last window."""
    window = int(grid.window_frames)
    starts = grid.first_frames(snippets).tolist()
    times_s = (grid.frames_to_seconds(frame) for frame in _frames_of(starts, window))
    frames = zip(
        _frames_of(starts, window), video.read_frames(path, times_s, size=size), strict=False
    )
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


def _frames_of(starts: Sequence[int], window: int) -> Iterator[int]:
    """Yields the numbers of the frames in some window, each once, in order.

    >>> list(_frames_of([-1, 1, 7], 3))
    [-1, 0, 1, 2, 3, 7, 8, 9]
    """
    following = starts[0]
    for start in starts:
        yield from range(max(start, following), start + window)
        following = start + window


# --- one recording among many: calls of a pool, whose state is the backbone ---


def extract_one(
    backbone: Backbone, progress: Callable[[int, int], None], source: Source, target: Path
) -> Entry | str:
    """Extracts a recording, which may be on another machine; returns its entry or what is wrong."""
    copy = None
    try:
        with addresses.on_disk(source) as copy:
            entry = extract_file(copy, target, backbone, progress=progress)
        return entry if copy is source else dataclasses.replace(entry, source=str(source))
    except Exception as error:  # whatever is wrong with one recording, the others are extracted
        kind = "" if isinstance(error, InputError | OSError) else f"{type(error).__name__}: "
        reason = kind + " ".join(str(error).split())
        return reason if copy is None else reason.replace(str(copy), str(source))


def measure_one(
    backbone: Backbone, _: Callable[[int, int], None], source: Source
) -> tuple[float, float] | None:
    """Seconds for a minute of a recording, and its duration in seconds; None if it fails."""
    try:
        with addresses.on_disk(source) as path:
            return _measure(backbone, path)
    except Exception:  # reported when it is extracted
        return None


def _measure(backbone: Backbone, path: Path) -> tuple[float, float]:
    if isinstance(backbone, Pose) and backbone.kind == VIDEO:
        found = landmarks.stream_landmarks(
            path, backbone.task, fps=backbone.fps, people=backbone.people
        )
        per_frame_s = cost.time_snippet(one[None] for one in found)
        return per_frame_s * backbone.fps * 60, video.probe(path).duration_s
    start_s = time.perf_counter()
    source = _open_source(path, backbone, cost.BATCH)
    opened_s = time.perf_counter() - start_s
    snippets_s = source.snippets * cost.time_snippet(source.features())
    return (opened_s + snippets_s) * 60 / source.duration_s, source.duration_s


def pack_one(
    _: Backbone,
    __: Callable[[int, int], None],
    folder: Path,
    number: int,
    count: int,
    entries: Mapping[str, Entry],
) -> None:
    """Moves the features of recordings into their shard."""
    pack_shard(folder, number, count, entries)


# --- many recordings ---


def extract_folder(
    paths: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    backbone: Backbone,
    *,
    workers: int | None = None,
    ray: RayWorkers | None = None,
    shards: int | None = None,
    progress: Progress | None = None,
    counted: Counted | None = None,
    report: Callable[[str], None] | None = None,
) -> Summary:
    """Extracts the features of many recordings in parallel, in processes or on a Ray cluster.

    A recording's name is `recording_name` of its file. Recordings whose features
    exist, from this backbone and the same file, are skipped. Recordings that fail are reported, and
    the others are extracted; a process that dies fails only its current recording.

    The processes are started by "spawn", so a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
      paths: recordings, and folders, of which all files with a suffix of the backbone's kind are
        used (without subfolders). They may be addresses that fsspec opens, such as `s3://…`.
      output: folder for the features, which is created if missing.
      backbone: from `open_backbone`, or any other `Backbone` that can be pickled.
      workers: number of processes; by default that of processors, or one for networks.
      ray: workers of a Ray cluster instead, which write into the folder themselves; one that dies
        is replaced, and its recording is extracted again.
      shards: number of files to distribute features among; by default as in the folder, a file a
        recording in a new one. A folder of such files is moved into shards.
      progress: called with a recording's name, its number of snippets done, and of all; not by Ray.
      counted: called with the number of recordings that are done or failed, and of all to be done.
      report: called with a line for each recording that is done or failed.

    Returns:
      The summary, including failed recordings.

    Raises:
      InputError: if there is no recording, two recordings have the same name, an input would be
        overwritten, the folder contains features of another backbone, or another process extracts
        into it.
      OSError: if the folder cannot be written to.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, expected 1 or more")
    if shards is not None:
        check_count(shards)
    output, report = Path(output), report or (lambda line: None)
    if ray is not None:  # which may have workers in another folder
        output = output.absolute()
    sources, notes = find_recordings(list(paths), _SUFFIXES[backbone.kind], backbone.kind)
    if backbone.kind == KEYPOINTS:
        sources, beside = keypoint_tables.prefer(sources)
        notes += beside
    targets, failed = _name(sources, output, backbone.kind)
    features = [recording_path(output, name) for name in targets]
    files.check_writable([output / MANIFEST_FILE, output / GRID_FILE, *features])
    with one_writer(output, "extracting features"):
        before, count = read_manifest(output), _settle_shards(output, shards)
        packed = open_shards(output, complete=False)
        backbone = _settle_channels(backbone, sources, before, packed)
        folder = _Folder(output, _continue(output, backbone, before, packed), count, packed)
        # Features of a table whose time is now read in another way are computed again.
        same = before is None or _time_options(before.options) == _time_options(backbone.options)
        skipped = {name for name in targets if same and folder.has(name, targets[name])}
        jobs = {name: path for name, path in targets.items() if name not in skipped}
        done: list[str] = []
        if jobs or folder.expect(()):
            progress = progress or (lambda *counts: None)
            with _open_pool(backbone, workers, ray, len(jobs), output, progress, report) as pool:
                folder.begin()
                for _, reason in failed:
                    report(f"FAILED {reason}")
                if body := getattr(backbone, "description", ""):
                    report(body)
                done = _extract_all(jobs, failed, folder, backbone, pool, counted, report)
            files.remove_temporary(output)  # of processes that died
        else:
            folder.begin()
    summary = Summary(tuple(done), tuple(sorted(skipped)), tuple(failed))
    return dataclasses.replace(summary, notes=notes)


def _open_pool(
    backbone: Backbone,
    workers: int | None,
    ray: RayWorkers | None,
    most: int,
    output: Path,
    progress: Progress,
    report: Callable[[str], None],
) -> ProcessPool | RayPool:
    """Processes of this machine, or workers of a cluster, that hold the backbone."""
    # One network uses all processors, or the memory of a GPU.
    network = bool(getattr(backbone, "one_process", False))
    if ray is not None:
        start = functools.partial(_hold, backbone)
        cpus = None if network else 1.0
        return RayPool(start, ray, output, cpus=cpus, gpu=network, report=report)
    workers = workers or (1 if network else os.cpu_count() or 1)
    # Keys that are no names are shards, without progress.
    return ProcessPool(backbone, min(workers, most or 1), lambda key, *n: progress(str(key), *n))


def _hold(backbone: Backbone) -> Backbone:
    return backbone


def _extract_all(
    jobs: Mapping[str, Source],
    failed: list[tuple[str, str]],
    folder: "_Folder",
    backbone: Backbone,
    pool: ProcessPool | RayPool,
    counted: Counted | None,
    report: Callable[[str], None],
) -> list[str]:
    """Extracts recordings by a pool; returns those that are done, and adds to those that failed.

    Before it begins, it reports what the first windows cost.
    """
    if line := _describe_cost(pool, jobs, backbone.kind):
        report(line)
    names = list(jobs)
    if folder.count:
        names = [name for group in split_names(jobs, folder.count) for name in group]
    for number in folder.expect(names):
        folder.begin_shard(number, pool)
    for name in names:
        pool.put(name, extract_one, jobs[name], recording_path(folder.path, name))
    done, ended, channels = [], 0, _describe_channels(backbone)
    try:
        for key, result in pool.results():
            if isinstance(key, Path):
                folder.end_shard(key, result)
                continue
            name, ended = str(key), ended + 1
            if isinstance(result, Death | str):
                path = str(jobs[name])
                reason = result.reason if isinstance(result, Death) else result
                reason = reason if path in reason else f"{path}: {reason}"
                failed.append((path, reason))
                report(f"FAILED {reason}")
            else:
                done.append(name)
                notes_of = "".join(f" ({note})" for note in result.notes)
                length = f"{result.duration_s:.1f} s, {result.snippets} snippets"
                report(f"{name}: {length}{notes_of}{channels}")
            full = folder.add(name, result if isinstance(result, Entry) else None)
            if full is not None:
                folder.begin_shard(full, pool)
            if counted is not None:
                counted(ended, len(jobs))
    finally:
        folder.write()
    return done


def _describe_cost(
    pool: ProcessPool | RayPool, jobs: Mapping[str, Source], kind: str
) -> str | None:
    """A line on the cost of all recordings, by the first one of a few that can be read."""
    for path in list(jobs.values())[:_TRIED]:
        pool.put(str(path), measure_one, path)
        [(_, found)] = pool.results()
        if isinstance(found, Death):  # another process would die as well
            return None
        if found:
            per_minute_s, duration_s = found
            return cost.describe(jobs, kind, (path, duration_s), per_minute_s, pool.workers)
    return None  # why, is reported when they are extracted


class _Folder:
    """The folder of an extraction: its manifest, and its shards if it has any."""

    def __init__(
        self, path: Path, manifest: Manifest, count: int, packed: Mapping[str, ShardFeatures]
    ) -> None:
        self.path, self.manifest, self.count, self.packed = path, manifest, count, packed
        self.entries = dict(manifest.recordings)  # without those of shards
        if count:  # an entry may be left over of a file that was just moved into a shard
            self.entries = {n: e for n, e in self.entries.items() if self._file(n).exists()}
        self.expected: Counter[int] = Counter()  # recordings to come of each shard
        self.moving: dict[Path, list[str]] = {}  # recordings that get into shards now
        self.next_write_s = 0.0

    def _file(self, name: str) -> Path:
        return recording_path(self.path, name)

    def has(self, name: str, source: Source) -> bool:
        """Whether the folder contains the features of this file, unchanged."""
        try:
            if name in self.entries:
                entry, shape = self.entries[name], load_npy(self._file(name)).shape
            elif name in self.packed:
                entry, shape = self.packed[name].entry, self.packed[name].shape
            else:
                return False
            if entry is None or shape != (entry.snippets, entry.dim):
                return False
            return is_same(source, FileIdentity(entry.sha256, entry.bytes, entry.modified_ns))
        except (OSError, ValueError):
            return False

    def begin(self) -> None:
        """Writes the clock and the manifest."""
        self.write()
        files.write_json(self.path / GRID_FILE, self.manifest.grid.to_dict())

    def expect(self, names: Iterable[str]) -> list[int]:
        """Announces the recordings to come; returns the shards to write that get none of them."""
        if not self.count:
            return []
        self.expected.update(shard_of(name, self.count) for name in names)
        waiting = {shard_of(name, self.count) for name in self.entries}
        rest = {*range(self.count)} - {*self.expected}
        return [n for n in sorted(rest) if n in waiting or not self._shard(n).exists()]

    def add(self, name: str, entry: Entry | None) -> int | None:
        """Adds a recording whose features were written; None for one that failed.

        Returns the number of its shard, if that is to be written now.
        """
        if entry is not None:
            self.entries[name] = entry
        if time.monotonic() > self.next_write_s:
            self.write()
        if not self.count:
            return None
        number = shard_of(name, self.count)
        self.expected[number] -= 1
        return None if self.expected[number] else number

    def write(self) -> None:
        """Writes the manifest."""
        begin_s = time.monotonic()
        write_manifest(self.path, dataclasses.replace(self.manifest, recordings=self.entries))
        now_s = time.monotonic()
        self.next_write_s = now_s + max(_WRITE_EVERY_S, (now_s - begin_s) / _WRITE_SHARE)

    def begin_shard(self, number: int, pool: ProcessPool | RayPool) -> None:
        """Lets the pool move files into a shard, if it is missing or files are there for it."""
        own = {n: entry for n, entry in self.entries.items() if shard_of(n, self.count) == number}
        path = self._shard(number)
        if own or not path.exists():
            self.write()  # what is killed while it moves files finds them again
            self.moving[path] = list(own)
            pool.put(path, pack_one, self.path, number, self.count, own)

    def end_shard(self, path: Path, result: Death | None) -> None:
        """Removes what was moved into a shard from the manifest."""
        if isinstance(result, Death):
            raise OSError(errno.EIO, f"cannot write {path}: {result.reason}")
        for name in self.moving.pop(path):
            del self.entries[name]

    def _shard(self, number: int) -> Path:
        return shard_path(self.path, number, self.count)


def _settle_shards(output: Path, wanted: int | None) -> int:
    """The number of shards of a folder; 0 for a file a recording."""
    present = count_shards(output)
    if present and wanted not in (None, present):
        raise InputError(
            f"{output}: has {present} shards; expected --shards {present}, or another output"
        )
    return wanted or present


def _time_options(options: Mapping[str, Any]) -> list[Any]:
    return [options.get(key, "") for key in ("time", "time_unit", "source_fps")]


def _describe_channels(backbone: Any) -> str:
    """Names the channels of a table, in the triples that `signal` computes with."""
    names = getattr(backbone, "channels", ())
    triples = [f"({', '.join(names[i : i + 3])})" for i in range(0, len(names), 3)]
    return f" of {', '.join(triples)}" if triples else ""


def find_recordings(
    paths: Sequence[str | os.PathLike], suffixes: Sequence[str], kind: str
) -> tuple[list[Source], tuple[str, ...]]:
    """Finds recordings in files and folders (without subfolders).

    Args:
      paths: files, which are taken whatever their names are, and folders.
      suffixes: of the files that are taken from a folder.
      kind: what they are, for messages.

    Returns:
      The recordings, each once, and notes on other files in the folders.

    Raises:
      InputError: if there is none.
    """
    found, others = [], []
    for path in map(addresses.locate, paths):
        of_folder = _files_of(path)
        if of_folder is None:
            found.append(path)
            continue
        for one in of_folder:
            if one.suffix.lower() in suffixes:
                found.append(one)
            else:
                others.append(one.name)
    if kind == KEYPOINTS and any(map(video.has_video_suffix, found or others)):
        raise InputError(f"pose needs the networks of MediaPipe for videos: {landmarks.HOW_TO_GET}")
    if not found:
        searched = ", ".join(map(str, paths)) or "nothing"
        raise InputError(f"no {kind} in {searched}; expected files {', '.join(suffixes)}")
    some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    notes = (f"{len(others)} other files are no {kind}s by their names: {some}",) if others else ()
    return list(dict.fromkeys(found)), notes


def _files_of(folder: Source) -> list[Source] | None:
    """The files in a folder, in order, without hidden ones; None for a file."""
    # No question to a server for each of many files.
    of_file = not addresses.is_local(folder) and folder.suffix.lower() in _ALL_SUFFIXES
    if of_file or not addresses.is_folder(folder):
        return None
    with addresses.reported(folder):
        return sorted(
            (p for p in folder.iterdir() if p.name and p.name[0] != "." and p.is_file()), key=str
        )


def recording_name(path: str | os.PathLike | Source, kind: str) -> str:
    """The name of a recording: that of its file, without folder and suffix.

    A table of keypoints is named as the video that it was computed from.
    """
    located = addresses.locate(path)
    return keypoint_tables.recording_name(located.name) if kind == KEYPOINTS else located.stem


def _name(
    sources: Sequence[Source], output: Path, kind: str
) -> tuple[dict[str, Source], list[tuple[str, str]]]:
    """Returns the recordings by name, and those whose file name cannot be one."""
    named, failed = {}, []
    inputs = {path.resolve() for path in sources if addresses.is_local(path)}
    for path in sources:
        try:
            str(path).encode()
            name = recording_name(path, kind)
            target = recording_path(output, name)
        except ValueError as error:  # no valid Unicode, or a colon in it
            shown = ascii(str(path))
            failed.append((shown, f"{shown}: {error}"))
            continue
        if name in named:
            raise InputError(
                f"{named[name]} and {path}: two recordings of one name, expected different "
                "ones; rename one, or use different outputs"
            )
        if target.resolve() in inputs:
            raise InputError(f"{target} would be overwritten; expected another output folder")
        named[name] = path
    return named, failed


def _settle_channels(
    backbone: Backbone,
    sources: Sequence[Source],
    before: Manifest | None,
    packed: Mapping[str, ShardFeatures],
) -> Backbone:
    """Gives the backbone the channels or joints of existing features, else of the first readable
    table."""
    if backbone.kind == VIDEO:
        return backbone
    present = before is not None and (before.recordings or packed)
    if before is not None and present and before.backbone == backbone.name:
        return with_options(backbone, before.options)
    for source in sources:
        try:
            with addresses.on_disk(source) as path:
                return _open_source(path, backbone, batch=1).backbone
        except InputError:
            pass  # it is reported when it is extracted
    return backbone


def _continue(
    output: Path,
    backbone: Backbone,
    before: Manifest | None,
    packed: Mapping[str, ShardFeatures],
) -> Manifest:
    """Returns the manifest to continue, after checking that the folder matches it."""
    manifest = Manifest(
        backbone.name, backbone.version, backbone.options, backbone.dim, grid_of(backbone)
    )
    if before is not None and (before.recordings or packed):
        check_same_backbone(before, manifest, str(output))
        manifest = dataclasses.replace(manifest, recordings=before.recordings)
    elif before is None and ((output / GRID_FILE).exists() or packed or any(output.glob("*.npy"))):
        raise InputError(
            f"{output}: contains features without a {MANIFEST_FILE}; expected a new folder, or one "
            "of this command"
        )
    return manifest
