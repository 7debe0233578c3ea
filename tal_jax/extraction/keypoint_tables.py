"""Reads tables of keypoints: DeepLabCut, SLEAP, Anipose, and plain columns of joints.

What a table leaves open is read from its numbers with a note, or asked for: the rate of frames
that have numbers and no time, percent for confidence, zeros for joints that are not there.
"""

import csv
import dataclasses
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.keypoints import Keypoints
from tal_jax.data.lazy_features import load_npy
from tal_jax.extraction import keypoint_h5, tables, video
from tal_jax.extraction.csv_tables import Columns
from tal_jax.extraction.keypoint_columns import AXES, find_joints, is_frame_number
from tal_jax.extraction.time_columns import find_times, is_number, is_time, to_numbers

SUFFIXES = (".csv", ".h5", ".hdf5", ".npy", ".parquet")

# Programs append their name to that of the video.
_APPENDED = re.compile(r"(DLC_?[A-Za-z0-9]*_.*|\.analysis|\.predictions|_keypoints|_pose|_3d)$")
_PERCENT = 1.5  # a confidence above this is no part of 1
_SAME_RATE = 0.01  # relative: 29.97 is written as 30
_ANIMAL = "animal"


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """What a file holds; either the numbers of its frames or their times."""

    positions: np.ndarray  # [n, A, J, dims]
    confidence: np.ndarray  # [n, A, J], NaN where not given
    joints: tuple[str, ...]
    animals: tuple[str, ...]
    frames: np.ndarray | None = None  # [n]
    times_s: np.ndarray | None = None  # [n]
    notes: tuple[str, ...] = ()


def recording_name(path: str | os.PathLike) -> str:
    """The name of the recording: that of the file without what trackers append to the video's.

    >>> recording_name("m3DLC_resnet50_openfieldOct30shuffle1_1030000.csv")
    'm3'
    """
    stem = Path(path).stem
    return _APPENDED.sub("", stem) or stem


def prefer(paths: Sequence[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Takes one table of each recording in a folder: filtered before raw, .csv before .h5.

    Returns the tables in order, and notes on the others.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        groups.setdefault((path.parent, recording_name(path)), []).append(path)
    notes = []
    for (_, name), group in groups.items():
        group.sort(key=lambda path: ("filtered" not in path.stem, path.suffix.lower() != ".csv"))
        if len(group) > 1:
            others = ", ".join(path.name for path in group[1:])
            notes.append(f"{name}: read from {group[0].name}, not from {others}")
    return [group[0] for group in groups.values()], tuple(notes)


def read_keypoints(
    path: str | os.PathLike, *, source_fps: float = 0.0, time: str = "", time_unit: str = ""
) -> Keypoints:
    """Reads the joints of a recording from a table.

    Args:
      path: `.csv` or `.h5` of DeepLabCut (one animal or several) or SLEAP (analysis); or a `.csv`,
        `.npy` or `.parquet` with columns such as `nose_x, nose_y, nose_z, nose_likelihood`. A
        `.npy` may hold plain positions `[n, J, 2 or 3]` or `[n, animals, J, 2 or 3]`.
      source_fps: frames per second, where frames have numbers and no times; by default that of a
        video beside the table, of the same name.
      time: name of the column of time, as in `tables.read_table`.
      time_unit: unit of that column.

    Raises:
      InputError: if the file cannot be read, has no joints, its times do not increase, or frames
        have no times and there is no rate.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: no table of keypoints; expected a name with {', '.join(SUFFIXES)}"
        )
    if suffix in (".h5", ".hdf5"):
        found = _read_h5(path)
    elif suffix == ".csv" and (header := _deeplabcut_header(path)):
        found = _read_deeplabcut_csv(path, header)
    else:
        found = _read_plain(path, time, time_unit)
    times_s, time_notes = _times(path, found, source_fps)
    positions, zero_notes = _without_zeros(found)
    confidence, confidence_notes = _unit_confidence(path, found)
    notes = (*found.notes, *time_notes, *zero_notes, *confidence_notes)
    try:
        return Keypoints(times_s, positions, confidence, found.joints, found.animals, notes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


# --- DeepLabCut ---

_LEVELS = ("scorer", "individuals", "bodyparts", "coords")


def _deeplabcut_header(path: Path) -> list[list[str]]:
    """The rows of a DeepLabCut header, by their first fields; empty for another file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [row for row, _ in zip(reader, range(5), strict=False)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []  # the reader of plain tables finds the error, or another encoding
    header = []
    for row in rows:
        if not row or row[0].strip().lower() not in _LEVELS:
            break
        header.append([field.strip() for field in row])
    levels = {row[0].lower() for row in header}
    return header if {"bodyparts", "coords"} <= levels else []


def _read_deeplabcut_csv(path: Path, header: list[list[str]]) -> _Found:
    levels = [row[0].lower() for row in header]
    names = list(zip(*(row[1:] for row in header), strict=False))
    if len({len(row) for row in header}) > 1:
        raise InputError(f"{path}: the rows of the header differ in length; expected the same")
    values = _numbers_below(path, len(header), 1 + len(names))
    return _deeplabcut(path, levels, names, values[:, 1:], values[:, 0])


def _numbers_below(path: Path, skip: int, width: int) -> np.ndarray:
    """Reads the numbers `[n, width]` below a header; empty fields are NaN, and so are paths of
    pictures, which stand for frames in tables of labelled ones."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = np.loadtxt(file, delimiter=",", skiprows=skip, ndmin=2, comments=None)
        if rows.shape[1] == width:
            return rows
    except (OSError, ValueError):
        pass  # empty fields, or an error that is found below
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))[skip:]
    out = np.full((len(lines), width), np.nan)
    for number, line in enumerate(lines):
        if len(line) != width:
            raise InputError(
                f"{path}: line {skip + number + 1} has {len(line)} fields, expected {width}"
            )
        for k, field in enumerate(line):
            if k == 0 and not is_number(field):
                out[number, 0] = number
            elif field.strip():
                out[number, k] = _number(path, field, f"line {skip + number + 1}, field {k + 1}")
    return out


def _number(path: Path, field: str, where: str) -> float:
    try:
        return float(field)
    except ValueError as error:
        raise InputError(f"{path}: {where} is {field!r}, expected a number") from error


def _deeplabcut(
    path: Path,
    levels: Sequence[str],
    names: Sequence[tuple[str, ...]],
    values: np.ndarray,
    index: np.ndarray,
) -> _Found:
    """Arranges columns with the names of all levels."""
    of = {level: k for k, level in enumerate(levels)}
    if not {"bodyparts", "coords"} <= of.keys():
        raise InputError(
            f"{path}: columns with the levels {', '.join(levels)}; expected scorer, bodyparts and "
            "coords of DeepLabCut"
        )
    scorers = {name[of["scorer"]] for name in names} if "scorer" in of else set()
    if len(scorers) > 1:
        raise InputError(f"{path}: scorers {', '.join(sorted(scorers))}; expected one")
    individuals = "individuals" in of
    animals, joints, at = [], [], {}
    notes = []
    for column, name in enumerate(names):
        animal = name[of["individuals"]] if individuals else _ANIMAL
        joint, coordinate = name[of["bodyparts"]], name[of["coords"]].lower()
        at[animal, joint, "confidence" if coordinate == "likelihood" else coordinate] = column
        animals.append(animal)
        joints.append(joint)
    if individuals and "single" in animals and len(set(animals)) > 1:
        # Marks of the arena, which belong to no animal.
        marks = dict.fromkeys(j for a, j in zip(animals, joints, strict=True) if a == "single")
        notes.append(f"left out, since they belong to no animal: {', '.join(marks)}")
        keep = [a != "single" for a in animals]
        animals = [a for a, k in zip(animals, keep, strict=True) if k]
        joints = [j for j, k in zip(joints, keep, strict=True) if k]
    frames = np.arange(len(values)) if np.isnan(index).any() else index
    animals, joints = tuple(dict.fromkeys(animals)), tuple(dict.fromkeys(joints))
    dims = 3 if any(key[2] == "z" for key in at) else 2
    positions, confidence = _arrange(values, at, animals, joints, dims)
    return _Found(positions, confidence, joints, animals, frames=frames, notes=tuple(notes))


def _arrange(
    values: np.ndarray,
    at: dict[tuple[str, str, str], int],
    animals: Sequence[str],
    joints: Sequence[str],
    dims: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Arranges columns to positions `[n, A, J, dims]` and confidence `[n, A, J]`."""
    positions = np.full((len(values), len(animals), len(joints), dims), np.nan)
    confidence = np.full(positions.shape[:3], np.nan)
    for a, animal in enumerate(animals):
        for j, joint in enumerate(joints):
            for k, axis in enumerate(AXES[:dims]):
                if (animal, joint, axis) in at:
                    positions[:, a, j, k] = values[:, at[animal, joint, axis]]
            if (animal, joint, "confidence") in at:
                confidence[:, a, j] = values[:, at[animal, joint, "confidence"]]
    return positions, confidence


def _read_h5(path: Path) -> _Found:
    with keypoint_h5.open_h5(path) as file:
        if "tracks" in file and "node_names" in file:
            positions, scores, joints, animals = keypoint_h5.read_sleap(path, file)
            return _Found(positions, scores, joints, animals, frames=np.arange(len(positions)))
        group = keypoint_h5.find_pandas(file)
        if group is None:
            raise InputError(
                f"{path}: holds {', '.join(list(file)[:5]) or 'nothing'}; expected a table of "
                "DeepLabCut, or SLEAP's analysis with tracks and node_names"
            )
        names, values, index = keypoint_h5.read_pandas(path, group)
    levels = {3: ("scorer", "bodyparts", "coords"), 4: _LEVELS}.get(len(names[0]) if names else 0)
    if levels is None:
        raise InputError(
            f"{path}: columns {names[:3]}; expected three or four levels of DeepLabCut"
        )
    index = index if np.asarray(index).dtype.kind in "iuf" else np.arange(len(values))
    return _deeplabcut(path, levels, names, values, np.asarray(index, np.float64))


# --- SLEAP's csv ---


def _read_sleap_csv(path: Path, columns: Columns) -> _Found:
    """Arranges the rows of SLEAP, one for each frame and track."""
    values = columns.values
    joints = [name.removesuffix(".x") for name in values if name.endswith(".x")]
    frames = to_numbers(path, "frame_idx", values["frame_idx"]).astype(int)
    tracks = [str(track).strip() for track in values["track"]]
    tracks = ["" if track == "nan" else track for track in tracks]
    animals = tuple(sorted(set(tracks), key=_natural))
    numbers, row = np.unique(frames, return_inverse=True)
    column = np.array([animals.index(track) for track in tracks])
    cells, counts = np.unique(np.stack([row, column]), axis=1, return_counts=True)
    if (counts > 1).any():
        twice = cells[:, np.argmax(counts > 1)]
        raise InputError(
            f"{path}: frame {numbers[twice[0]]} has {counts.max()} instances of track "
            f"{animals[twice[1]]!r}; expected one of each track, track the animals first"
        )
    positions = np.full((len(numbers), len(animals), len(joints), 2), np.nan)
    confidence = np.full(positions.shape[:3], np.nan)
    for j, joint in enumerate(joints):
        for k, axis in enumerate("xy"):
            positions[row, column, j, k] = _floats(
                path, f"{joint}.{axis}", values[f"{joint}.{axis}"]
            )
        if f"{joint}.score" in values:
            confidence[row, column, j] = _floats(path, f"{joint}.score", values[f"{joint}.score"])
    if animals == ("",):
        animals = (_ANIMAL,)
    return _Found(positions, confidence, tuple(joints), animals, frames=numbers.astype(float))


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts track_2 before track_10."""
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", name) if p]


# --- plain tables ---


def _read_plain(path: Path, time: str, time_unit: str) -> _Found:
    if path.suffix.lower() == ".npy":
        array = load_npy(path)
        if array.dtype.names is None and array.ndim in (3, 4):
            return _from_array(path, array)
    columns = tables.read_table_columns(path, time=time)
    names = columns.values
    if {"track", "frame_idx"} <= names.keys() and any(name.endswith(".x") for name in names):
        return _read_sleap_csv(path, columns)
    times = None
    if time or any(map(is_time, names)):
        times = find_times(path, names, time=time, time_unit=time_unit, units=columns.units)
    timing = {times.name, *times.others} if times is not None else set()
    counters = [
        name
        for name in names
        if name not in timing and (is_frame_number(name) or name in columns.nameless)
    ]
    found = find_joints([name for name in names if name not in timing and name not in counters])
    if found is None:
        raise InputError(
            f"{path}: no joints among the columns {_some(list(names))}; expected names such as "
            "nose_x, nose_y, nose_likelihood"
        )
    used = {column: _floats(path, column, names[column]) for column in found.columns.values()}
    order = list(used)
    values = np.stack([used[name] for name in order], axis=1)
    at = {key: order.index(column) for key, column in found.columns.items()}
    positions, confidence = _arrange(values, at, found.animals, found.joints, found.dims)
    notes = (*columns.notes, *(times.notes if times is not None else ()))
    if found.others:
        notes += (f"columns that are no joints: {_some(found.others)}",)
    frames = None
    if times is None:
        frames = _frame_numbers(path, names, counters, len(positions))
    return _Found(
        positions,
        confidence,
        found.joints,
        found.animals,
        frames=frames,
        times_s=None if times is None else times.times_s,
        notes=notes,
    )


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")


def _from_array(path: Path, array: np.ndarray) -> _Found:
    if array.dtype.kind not in "fiu" or array.shape[-1] not in (2, 3):
        raise InputError(
            f"{path}: shape {list(array.shape)}; expected positions [frames, joints, 2 or 3] or "
            "[frames, animals, joints, 2 or 3]"
        )
    positions = np.asarray(array, np.float64)
    positions = positions[:, None] if positions.ndim == 3 else positions
    animals = tuple(f"animal_{i}" for i in range(positions.shape[1]))
    joints = tuple(f"joint_{i}" for i in range(positions.shape[2]))
    confidence = np.full(positions.shape[:3], np.nan)
    frames = np.arange(len(positions))
    return _Found(
        positions, confidence, joints, animals if len(animals) > 1 else (_ANIMAL,), frames
    )


def _floats(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    """Converts a column to float64, NaN for blanks."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    try:
        return np.array([float(v) for v in column], np.float64)
    except (TypeError, ValueError):
        blank = [tables.is_blank(value) for value in column]
        return np.array(
            [
                np.nan if empty else _number(path, str(value), f"column {name!r}, row {row + 1}")
                for row, (value, empty) in enumerate(zip(column, blank, strict=True))
            ],
            np.float64,
        )


def _frame_numbers(
    path: Path, names: dict[str, np.ndarray], counters: Sequence[str], count: int
) -> np.ndarray:
    """The numbers of the frames; 0, 1, 2, ... without a column of them."""
    for name in sorted(counters, key=is_frame_number, reverse=True):
        try:
            numbers = to_numbers(path, name, names[name])
        except InputError:
            continue  # a column without a name, of something else
        if is_frame_number(name) or (np.diff(numbers) > 0).all():
            return numbers
    if path.suffix.lower() == ".csv" and _EMPTY_ROW.search(path.read_bytes()):
        raise InputError(
            f"{path}: rows without values and no numbers of frames; expected a column such as frame"
        )
    return np.arange(count, dtype=np.float64)


# A line of separators alone: readers of tables skip it, and later frames would move forward.
_EMPTY_ROW = re.compile(rb"^[ \t]*[,;\t][\s,;]*$", re.MULTILINE)


# --- times ---


def _times(path: Path, found: _Found, source_fps: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """The times of the frames in seconds from the start, with notes on how they were found."""
    if found.times_s is not None:
        _check_increasing(path, found.times_s, "time")
        return found.times_s, ()
    frames = np.asarray(found.frames, np.float64)
    _check_increasing(path, frames, "number of the frame")
    notes: tuple[str, ...] = ()
    count = int(frames[-1]) + 1 if len(frames) else 0
    source_fps, notes = _rate(path, count, source_fps)
    # Programs count from 0, some from 1; later numbers are those of a part of a video.
    if len(frames) and frames[0] == 1:
        frames = frames - 1
        notes += ("frames count from 1",)
    elif len(frames) and frames[0] > 1:
        notes += (f"the first frame is {frames[0]:g}: time 0 is that of frame 0",)
    return frames / source_fps, notes


def _check_increasing(path: Path, values: np.ndarray, what: str) -> None:
    bad = np.flatnonzero(~(np.diff(values) > 0))
    if len(bad):
        at = int(bad[0])
        raise InputError(
            f"{path}: the {what} is {values[at + 1]:g} after {values[at]:g} in row {at + 2}; "
            "expected increasing ones"
        )


def video_beside(path: Path) -> Path | None:
    """The video of a table's name in the same folder; None without one."""
    stems = dict.fromkeys([path.stem, recording_name(path)])
    names = (path.with_name(stem + suffix) for stem in stems for suffix in video.SUFFIXES)
    return next((name for name in names if name.is_file()), None)


def _rate(path: Path, count: int, given: float) -> tuple[float, tuple[str, ...]]:
    """Frames per second: what is given, else that of the video beside a table."""
    beside = video_beside(path)
    if beside is None:
        if given:
            return given, ()
        raise InputError(
            f"{path}: frames without times; expected the rate of the recording with "
            "--set source_fps=30, or its video beside the table"
        )
    try:
        info = video.probe(beside)
    except InputError:
        if given:
            return given, ()
        raise
    notes: tuple[str, ...] = ()
    if count != info.num_frames:
        notes += (f"frames up to number {count} of the {info.num_frames} in {beside.name}",)
    rate = f"{info.frame_rate:.5g} frames per second"
    if not given:
        return info.frame_rate, (f"{rate}, as in {beside.name} beside it", *notes)
    if abs(given / info.frame_rate - 1) > _SAME_RATE:
        notes += (f"source_fps is {given:g}, where {beside.name} has {rate}",)
    return given, notes


# --- confidence ---


def _without_zeros(found: _Found) -> tuple[np.ndarray, tuple[str, ...]]:
    """Removes positions of 0, 0, which programs write for joints that they do not find.

    A joint at 0 in all frames is the origin of the coordinates.
    """
    zero = (found.positions == 0).all(-1)
    finite = np.isfinite(found.positions).all(-1)
    zero &= ~(zero | ~finite).all(0)
    if not zero.any():
        return found.positions, ()
    positions = np.array(found.positions)
    positions[zero] = np.nan
    return positions, (f"positions of 0 count as missing: {zero.sum() / zero.size:.1%}",)


def _unit_confidence(path: Path, found: _Found) -> tuple[np.ndarray, tuple[str, ...]]:
    """Confidence from 0 to 1; 1 where a position has none."""
    confidence = np.array(found.confidence, np.float64)
    given = np.isfinite(confidence)
    notes: tuple[str, ...] = ()
    if not given.any():
        return np.ones_like(confidence), ("no confidence: every position counts",)
    low, high = float(confidence[given].min()), float(confidence[given].max())
    if low < 0 or high > 100:
        raise InputError(
            f"{path}: confidence from {low:g} to {high:g}; expected 0 to 1, or percent"
        )
    if high == 2 and np.isin(confidence[given], (0, 1, 2)).all():
        confidence, notes = confidence / 2, ("confidence 0, 1, 2 (lost, inferred, tracked)",)
    elif high > _PERCENT:
        confidence, notes = confidence / 100, ("confidence is in percent",)
    confidence[~given] = 1.0
    return np.clip(confidence, 0, 1), notes
