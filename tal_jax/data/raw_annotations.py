"""Annotation files as they lie on people's disks.

Three layouts are read, under the names that their authors gave them::

    gt.json                         ActivityNet's, see `tal_jax.data.annotations`; LACP's, with
                                    segments as strings and without durations, is one of them

    anet_anno_action.json           BMN's {video: {"duration_second", "duration_frame",
    video_info_new.csv              "annotations"}}, and the table that tells the subsets

    Thumos14reduced-Annotations/    W-TALC's arrays of N videos
      videoname.npy                 [N] names
      subset.npy                    [N]
      duration.npy                  [N, 1] seconds
      original_fps.npy              [N] frames a second of the video; not in every copy
      classlist.npy                 [C] names
      labels.npy, segments.npy      [N] lists: the names, and the [start, end] in seconds

W-TALC's `extracted_fps.npy` is not read. It looks like the clock of the features, and is not: it
says 10, of features that were made of 16 frames at 25 frames a second.

A reader here checks the form of a file and not the times that it tells: a segment may be empty,
backwards, or beyond the recording's end, as some published ones are.
"""

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.data import files
from tal_jax.data.annotations import Instance, parse_annotations

_BMN_TABLE = "video_info_new.csv"


@dataclasses.dataclass(frozen=True)
class RawRecording:
    """What a file says of one recording.

    Attributes:
      subset: as the file spells it; "" where it says nothing.
      duration_s: None where the file says nothing.
      frame_rate: frames a second of the original video, which point files count in; None where the
        file says nothing.
      instances: in the file's order.
    """

    subset: str = ""
    duration_s: float | None = None
    frame_rate: float | None = None
    instances: tuple[Instance, ...] = ()


@dataclasses.dataclass(frozen=True)
class RawAnnotations:
    """What an annotation file says, whether or not it can be true.

    Attributes:
      kind: "ActivityNet json", "BMN json + csv" or "W-TALC arrays".
      source: the path, for messages.
      recordings: by name, in the file's order.
      classes: the file's own list where it has one, else those that occur, sorted.
      overlapping: pairs of classes whose instances may overlap.
      point_law: how the points were drawn, where the file says so.
    """

    kind: str
    source: str
    recordings: dict[str, RawRecording]
    classes: tuple[str, ...]
    overlapping: tuple[tuple[str, str], ...] = ()
    point_law: dict[str, Any] | None = None


def read_raw(path: str | os.PathLike, *, allow_pickle: bool = False) -> RawAnnotations:
    """Reads annotations of any of the three layouts.

    Args:
      path: a `.json` file, or a folder of W-TALC's arrays.
      allow_pickle: read W-TALC's `labels.npy` and `segments.npy` although they hold Python objects.
        Such a file can run code while it is read.

    Raises:
      ValueError: if something cannot be read, has none of the layouts, or a value in it has not the
        form that its layout asks for.
    """
    path = Path(path)
    if path.is_dir():
        return _read_wtalc(path, allow_pickle)
    values = files.read_json(path)
    if isinstance(values, Mapping) and "database" in values:
        return _read_activitynet(values, str(path))
    if isinstance(values, Mapping) and any(
        isinstance(entry, Mapping) and "duration_frame" in entry for entry in values.values()
    ):
        return _read_bmn(values, path)
    raise ValueError(
        f"{path}: expected ActivityNet's annotations, which have the key 'database', or BMN's, "
        "where each video has 'duration_second', 'duration_frame' and 'annotations'"
    )


def read_frame_rates(path: str | os.PathLike) -> dict[str, float]:
    """Reads frames a second of each video, `{video: rate}` (LACP's `fps_dict.json`).

    Raises:
      ValueError: if the file cannot be read, or a rate is not a number above 0.
    """
    values = files.read_json(path)
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: got {type(values).__name__}, expected an object {{video: rate}}")
    return {name: _rate(value, f"{path}: {name}: rate") for name, value in values.items()}


def read_split(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads the names of recordings, one a line (`split_train.txt`).

    Raises:
      ValueError: if the file cannot be read, or names a recording twice.
    """
    names = [name for _, name in _lines(path)]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: {_twice(names)!r} stands there twice, expected once")
    return tuple(names)


def read_ambiguous(path: str | os.PathLike) -> dict[str, tuple[tuple[float, float], ...]]:
    """Reads the segments that THUMOS14 calls ambiguous (`Ambiguous_test.txt`).

    Args:
      path: a file of lines `video start end`, in seconds.

    Returns:
      The segments `(start_s, end_s)` of each video that has some, in the file's order.

    Raises:
      ValueError: if the file cannot be read, or a line is not such a line.
    """
    segments = {}
    for number, line in _lines(path):
        name, *times = line.split()
        segments.setdefault(name, []).append(_segment(times, f"{path}: line {number}: {name}"))
    return {name: tuple(pairs) for name, pairs in segments.items()}


# --- ActivityNet, and BMN's form of it ---


def _read_activitynet(values: Mapping[str, Any], source: str) -> RawAnnotations:
    database = files.get_value(values, "database", Mapping, source)
    recordings = {name: _recording(entry, f"{source}: {name}") for name, entry in database.items()}
    # The keys beside the database have one parser, which may as well believe that it is empty.
    beside = {"classes": _labels(recordings), **values, "database": {}}
    top = parse_annotations(beside, source=source)
    _check_labels(recordings, top.classes, source)
    return RawAnnotations(
        kind="ActivityNet json",
        source=source,
        recordings=recordings,
        classes=top.classes,
        overlapping=top.overlapping,
        point_law=top.point_law,
    )


def _recording(entry: Any, source: str) -> RawRecording:
    instances = files.get_value(entry, "annotations", list, source)
    duration_s = entry.get("duration", entry.get("duration_second"))
    rate = entry.get("fps")
    return RawRecording(
        subset=files.get_value(entry, "subset", str, source) if "subset" in entry else "",
        duration_s=None if duration_s is None else _number(duration_s, f"{source}: duration"),
        frame_rate=None if rate is None else _rate(rate, f"{source}: fps"),
        instances=tuple(_instance(instance, source) for instance in instances),
    )


def _instance(values: Any, source: str) -> Instance:
    label = files.get_value(values, "label", str, source)
    segment, point = values.get("segment"), values.get("point")
    start_s, end_s = (None, None) if segment is None else _segment(segment, source)
    point_s = None if point is None else _number(point, f"{source}: point of {label!r}")
    return Instance(label, start_s, end_s, point_s)


def _read_bmn(values: Mapping[str, Any], path: Path) -> RawAnnotations:
    table = path.with_name(_BMN_TABLE)
    try:
        rows = files.read_csv(table, ["video", "subset"])
    except ValueError as error:
        raise ValueError(f"{error}; {path.name} needs it beside itself, for the subsets") from error
    subsets = {row["video"]: row["subset"] for row in rows}
    if len(subsets) < len(rows):
        twice = _twice([row["video"] for row in rows])
        raise ValueError(f"{table}: {twice!r} stands there twice, expected once")
    recordings = {}
    for name, entry in values.items():
        source = f"{path}: {name}"
        if name not in subsets:
            raise ValueError(f"{source}: not in {table}, expected a line that tells its subset")
        duration_s = _number(
            files.get_value(entry, "duration_second", object, source), f"{source}: duration"
        )
        frames = _number(
            files.get_value(entry, "duration_frame", object, source), f"{source}: duration_frame"
        )
        recordings[name] = dataclasses.replace(
            _recording(entry, source),
            subset=subsets[name],
            # The clock of the points that HR-Pro publishes: the table's rfps, not its rounded fps.
            frame_rate=frames / duration_s if frames > 0 and duration_s > 0 else None,
        )
    classes = tuple(_labels(recordings))
    return RawAnnotations("BMN json + csv", str(path), recordings, classes)


# --- W-TALC ---


def _read_wtalc(folder: Path, allow_pickle: bool) -> RawAnnotations:
    if not (folder / "videoname.npy").is_file():
        raise ValueError(
            f"{folder}: no videoname.npy, expected a folder of W-TALC's arrays or a .json file"
        )
    columns = {
        "videoname.npy": _texts(folder / "videoname.npy"),
        "subset.npy": _texts(folder / "subset.npy"),
        "duration.npy": _values(folder / "duration.npy"),
        "labels.npy": _lists(folder / "labels.npy", allow_pickle),
        "segments.npy": _lists(folder / "segments.npy", allow_pickle),
    }
    names = columns["videoname.npy"]
    has_rates = (folder / "original_fps.npy").is_file()
    columns["original_fps.npy"] = (
        _values(folder / "original_fps.npy") if has_rates else [None] * len(names)
    )
    for file, column in columns.items():
        if len(column) != len(names):
            raise ValueError(
                f"{folder / file}: {len(column)} entries, expected one for each of the "
                f"{len(names)} of videoname.npy"
            )
    recordings = {}
    for name, subset, duration_s, labels, segments, rate in zip(*columns.values(), strict=True):
        source = f"{folder}: {name}"
        if name in recordings:
            raise ValueError(f"{source}: stands in videoname.npy twice, expected once")
        recordings[name] = RawRecording(
            subset=subset,
            duration_s=_number(duration_s, f"{source}: duration"),
            frame_rate=None if rate is None else _rate(rate, f"{source}: original_fps"),
            instances=_pair(labels, segments, source),
        )
    classes = tuple(_texts(folder / "classlist.npy"))
    _check_labels(recordings, classes, str(folder))
    return RawAnnotations("W-TALC arrays", str(folder), recordings, classes)


def _pair(labels: Any, segments: Any, source: str) -> tuple[Instance, ...]:
    if not isinstance(labels, list) or not isinstance(segments, list):
        raise ValueError(
            f"{source}: labels are {labels!r} and segments {segments!r}, expected two lists"
        )
    if len(labels) != len(segments):
        raise ValueError(
            f"{source}: {len(labels)} labels and {len(segments)} segments, expected one of each "
            "an instance"
        )
    return tuple(
        Instance(_text(label, f"{source}: label"), *_segment(segment, source))
        for label, segment in zip(labels, segments, strict=True)
    )


def _texts(path: Path) -> list[str]:
    return [_text(value, f"{path}: entry") for value in _values(path)]


def _values(path: Path) -> list[Any]:
    return _load(path, allow_pickle=False).reshape(-1).tolist()


def _lists(path: Path, allow_pickle: bool) -> list[Any]:
    array = _load(path, allow_pickle=allow_pickle)
    entries = array if array.ndim else [array]
    return [entry.tolist() if isinstance(entry, np.ndarray) else entry for entry in entries]


def _load(path: Path, *, allow_pickle: bool) -> np.ndarray:
    try:
        # Python 2 wrote these; its strings need to be told an encoding.
        array = np.load(path, allow_pickle=allow_pickle, encoding="latin1")
    except Exception as error:  # objects may fail to be made in any way
        if "Object arrays" in str(error) and path.name in ("labels.npy", "segments.npy"):
            raise ValueError(
                f"{path}: labels.npy and segments.npy hold Python objects, and reading them can "
                "run code of whoever made them; where you trust the source, allow it by "
                "--set data.allow_pickle=True (or --allow-pickle, where a command has it)"
            ) from error
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ValueError(f"cannot read {path}: {reason}; expected an .npy file") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"cannot read {path}: it holds no array; expected an .npy file")
    return array


# --- values ---


def _labels(recordings: Mapping[str, RawRecording]) -> list[str]:
    return sorted({i.label for recording in recordings.values() for i in recording.instances})


def _check_labels(
    recordings: Mapping[str, RawRecording], classes: Sequence[str], source: str
) -> None:
    for name, recording in recordings.items():
        for instance in recording.instances:
            if instance.label not in classes:
                raise ValueError(
                    f"{source}: {name}: unknown class {instance.label!r}, expected one of "
                    f"{', '.join(classes)}"
                )


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def _lines(path: str | os.PathLike) -> list[tuple[int, str]]:
    """Returns the lines that are not empty, with their numbers."""
    lines = enumerate(files.read_text(path).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _segment(segment: Any, source: str) -> tuple[float, float]:
    if isinstance(segment, np.ndarray):
        segment = segment.tolist()
    if not isinstance(segment, list | tuple) or len(segment) != 2:
        raise ValueError(f"{source}: segment is {segment!r}, expected [start, end] in seconds")
    start_s, end_s = (_number(value, f"{source}: segment {segment!r}") for value in segment)
    return start_s, end_s


def _text(value: Any, what: str) -> str:
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        text = None
    if not isinstance(text, str):
        raise ValueError(f"{what} is {value!r}, expected text")
    return text


def _rate(value: Any, what: str) -> float:
    rate = _number(value, what)
    if rate <= 0:
        raise ValueError(f"{what} is {value!r}, expected frames a second above 0")
    return rate


def _number(value: Any, what: str) -> float:
    """Reads a number, which some files spell as a string."""
    try:
        good = isinstance(value, numbers.Real | str) and not isinstance(value, bool)
        number = float(value) if good else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} is {value!r}, expected a finite number")
    return number
