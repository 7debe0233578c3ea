"""Annotation files of published data sets: ActivityNet's JSON, BMN's JSON, W-TALC's arrays.

The three layouts, under the names that their authors gave them::

    gt.json                         ActivityNet's, see `tal_jax.data.annotations`; LACP's variant
                                    has segments as strings and no durations

    anet_anno_action.json           BMN's {video: {"duration_second", "duration_frame",
    video_info_new.csv              "annotations"}}, and the table of subsets

    Thumos14reduced-Annotations/    W-TALC's arrays of N videos
      videoname.npy                 [N] names
      subset.npy                    [N]
      duration.npy                  [N, 1] seconds
      original_fps.npy              [N] frames per second of the video; not in every copy
      classlist.npy                 [C] names
      labels.npy, segments.npy      [N] lists: the names, and the [start, end] in seconds

W-TALC's `extracted_fps.npy` is not read. It is not the clock of the features: its value is 10, for
features computed from 16 frames at 25 frames per second.

A reader checks the form of a file, not its times, see `parse_annotations(..., strict=False)`.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    RecordingAnnotation,
    check_classes,
    classes_of,
    parse_annotations,
    parse_recording,
)

_BMN_TABLE = "video_info_new.csv"


def read_annotations(path: str | os.PathLike, *, allow_pickle: bool = False) -> Annotations:
    """Reads annotations of any of the three layouts, without checking times.

    Args:
      path: a `.json` file, or a folder of W-TALC's arrays.
      allow_pickle: read W-TALC's `labels.npy` and `segments.npy` although they hold Python objects.
        Such a file can run code while it is read.

    Raises:
      InputError: if a file cannot be read, or a value in it is not what its layout requires.
    """
    path = Path(path)
    if path.is_dir():
        return _read_wtalc(path, allow_pickle)
    values = files.read_json(path)
    if isinstance(values, Mapping) and "database" in values:
        return parse_annotations(values, source=str(path), strict=False)
    if isinstance(values, Mapping) and any(
        isinstance(entry, Mapping) and "duration_frame" in entry for entry in values.values()
    ):
        return _read_bmn(values, path)
    raise InputError(
        f"{path}: expected ActivityNet's annotations, which have the key 'database', or BMN's, "
        "where each video has 'duration_second', 'duration_frame' and 'annotations'"
    )


def read_frame_rates(path: str | os.PathLike) -> dict[str, float]:
    """Reads frames per second of each video, `{video: rate}` (LACP's `fps_dict.json`)."""
    return files.convert_each(files.read_json(path), files.Positive, str(path), strict=False)


def read_split(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads the names of recordings, one per line (`split_train.txt`), none of them twice."""
    names = [name for _, name in _lines(path)]
    _check_unique(names, str(path))
    return tuple(names)


def read_ambiguous(path: str | os.PathLike) -> dict[str, tuple[tuple[float, float], ...]]:
    """Reads the segments that THUMOS14 calls ambiguous (`Ambiguous_test.txt`).

    The lines are `video start end`, in seconds. Returns `(start_s, end_s)` of each such video.
    """
    segments = {}
    for number, line in _lines(path):
        name, *times = line.split()
        source = f"{path}: line {number}: {name}: segment"
        segment = files.convert(times, tuple[files.Number, files.Number], source, strict=False)
        segments.setdefault(name, []).append(segment)
    return {name: tuple(pairs) for name, pairs in segments.items()}


def read_video_names(folder: Path) -> list[str]:
    """Reads the names of W-TALC's videos, in the order of its arrays, none of them twice."""
    names = _read_texts(folder / "videoname.npy")
    _check_unique(names, f"{folder}: videoname.npy")
    return names


# --- BMN ---


class _Durations(msgspec.Struct):
    duration_second: files.Number
    duration_frame: files.Number


def _read_bmn(values: Mapping[str, Any], path: Path) -> Annotations:
    table = path.with_name(_BMN_TABLE)
    try:
        rows = files.read_csv(table, ["video", "subset"])
    except ValueError as error:
        raise InputError(f"{error}; {path.name} needs it in its folder, for the subsets") from error
    _check_unique([row["video"] for row in rows], str(table))
    subsets = {row["video"]: row["subset"] for row in rows}
    recordings = {}
    for name, entry in values.items():
        source = f"{path}: {name}"
        if name not in subsets:
            raise InputError(f"{source}: not in {table}, expected a line with its subset")
        lengths = files.convert(entry, _Durations, source, strict=False)
        frames, duration_s = lengths.duration_frame, lengths.duration_second
        recordings[name] = dataclasses.replace(
            parse_recording(entry, source, strict=False),
            subset=subsets[name],
            # The clock of HR-Pro's published points: the table's rfps, not its rounded fps.
            frame_rate=frames / duration_s if frames > 0 and duration_s > 0 else None,
        )
    return Annotations(classes_of(recordings), recordings, source=str(path))


# --- W-TALC ---


def _read_wtalc(folder: Path, allow_pickle: bool) -> Annotations:
    if not (folder / "videoname.npy").is_file():
        raise InputError(
            f"{folder}: no videoname.npy, expected a folder of W-TALC's arrays or a .json file"
        )
    names = read_video_names(folder)
    columns = {
        "subset.npy": _read_texts(folder / "subset.npy"),
        "duration.npy": load_array(folder / "duration.npy").reshape(-1).tolist(),
        "labels.npy": _read_lists(folder / "labels.npy", allow_pickle),
        "segments.npy": _read_lists(folder / "segments.npy", allow_pickle),
        "original_fps.npy": [None] * len(names),
    }
    rates = folder / "original_fps.npy"
    if rates.is_file():
        columns[rates.name] = load_array(rates).reshape(-1).tolist()
    for file, column in columns.items():
        if len(column) != len(names):
            raise InputError(
                f"{folder / file}: {len(column)} entries, expected one for each of the "
                f"{len(names)} of videoname.npy"
            )
    recordings = {
        name: _recording(f"{folder}: {name}", *row)
        for name, *row in zip(names, *columns.values(), strict=True)
    }
    classes = tuple(_read_texts(folder / "classlist.npy"))
    annotations = Annotations(classes, recordings, source=str(folder))
    check_classes(annotations)
    return annotations


def _recording(
    source: str, subset: str, duration_s: Any, labels: Any, segments: Any, rate: Any
) -> RecordingAnnotation:
    lists = isinstance(labels, list) and isinstance(segments, list)
    if not lists or len(labels) != len(segments):
        raise InputError(
            f"{source}: labels are {labels!r:.200} and segments {segments!r:.200}, expected two "
            "lists of one length"
        )
    pairs = zip(labels, segments, strict=True)
    entry = {
        "subset": subset,
        "duration": duration_s,
        "fps": rate,
        "annotations": [{"label": label, "segment": segment} for label, segment in pairs],
    }
    return parse_recording(entry, source, strict=False)


def _read_texts(path: Path) -> list[str]:
    return files.convert(_plain(load_array(path).reshape(-1)), list[str], str(path))


def _read_lists(path: Path, allow_pickle: bool) -> list[Any]:
    return _plain(np.atleast_1d(load_array(path, allow_pickle=allow_pickle)))


def _plain(value: Any) -> Any:
    """Turns arrays into lists and bytes into text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value  # refused where text is expected


def load_array(path: Path, *, allow_pickle: bool = False) -> np.ndarray:
    """Reads one of W-TALC's arrays; `allow_pickle` also those of Python objects."""
    try:
        # Python 2 wrote these; its strings need an encoding.
        array = np.load(path, allow_pickle=allow_pickle, encoding="latin1")
    except Exception as error:  # unpickling may raise anything
        if "Object arrays" in str(error) and path.name in ("labels.npy", "segments.npy"):
            raise InputError(
                f"{path}: labels.npy and segments.npy hold Python objects, and reading them can "
                "run code of whoever made them; where you trust the source, allow it by "
                "--set data.allow_pickle=True (or --allow-pickle, where a command has it)"
            ) from error
        reason = files.reason_of(error)
        raise InputError(f"cannot read {path}: {reason}; expected an .npy file") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"cannot read {path}: it holds no array; expected an .npy file")
    return array


# --- lines ---


def _check_unique(names: Sequence[str], source: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}: {twice!r} occurs twice, expected once")


def _lines(path: str | os.PathLike) -> list[tuple[int, str]]:
    """Returns the lines that are not empty, with their numbers."""
    lines = enumerate(files.read_text(path).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]
