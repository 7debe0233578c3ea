"""Point files: point labels without segments, in the layouts of public codebases.

Two text layouts are in use, besides ActivityNet's JSON::

    point_gaussian.csv      class,class_index,start_frame,stop_frame,video_id,point
                            Billiards,2,2025,2277,video_validation_0000051,2151

    THUMOS1.txt             video_validation_0000051,68.900356,Billiards

Times in the table (SF-Net, LACP, HR-Pro) are frames of the original video, not of the video that
features were extracted from. The columns of the class's index, the start and the stop are optional
and not used. Times in the list of points are seconds, with or without a first line
`video,seconds,label`.
"""

import csv
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotation_files import read_annotations
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
    classes_of,
)

_COLUMNS = ("class", "class_index", "start_frame", "stop_frame", "video_id", "point")
_NEEDED = ("class", "video_id", "point")
_HEADER = ["video", "seconds", "label"]


def read_points(
    path: str | os.PathLike,
    *,
    frame_rates: Mapping[str, float],
    annotations: Annotations | None = None,
) -> tuple[Annotations, dict[str, int]]:
    """Reads point labels: ActivityNet's `.json`, a table in frames, or a list in seconds.

    Args:
      path: the file.
      frame_rates: frames per second of the original videos, for a table.
      annotations: annotations of the recordings; points of other recordings are left out, with a
        note, since their frame rates are unknown.

    Returns:
      Instances with a label and a point, a `.json`'s background points and done stretches, and the
      number of points of each recording left out.

    Raises:
      InputError: if the file is malformed, or a frame rate is needed and missing.
    """
    source, distribution = str(path), None
    recordings: dict[str, list[Instance]] = {}
    left_out: dict[str, int] = {}
    labelled: dict[str, RecordingAnnotation] = {}
    if Path(path).suffix == ".json":
        read = read_annotations(path)
        labelled, distribution = read.recordings, read.point_distribution
        points = ((name, one, time_s, "seconds") for name, one, time_s in _pointed(read))
    else:
        points = _read_lines(source)
    for name, instance, time, unit in points:
        if annotations is not None and name not in annotations.recordings:
            left_out[name] = left_out.get(name, 0) + 1
            continue
        if unit == "frames":
            time /= _rate(name, frame_rates, source)
        recordings.setdefault(name, []).append(dataclasses.replace(instance, point_s=time))
    notes = ()
    if annotations is not None and left_out:
        notes = (
            f"{source}: points of recordings that {annotations.source} lacks, left out: "
            f"{sum(left_out.values())}",
        )
    for name, one in labelled.items():
        if annotations is None or name in annotations.recordings:
            if one.background_s or one.done_s is not None:
                recordings.setdefault(name, [])
    found = {}
    for name, instances in recordings.items():
        one = labelled.get(name, RecordingAnnotation())
        found[name] = RecordingAnnotation(
            instances=tuple(instances), background_s=one.background_s, done_s=one.done_s
        )
    points = Annotations(
        classes_of(found), found, point_distribution=distribution, source=source, notes=notes
    )
    return points, left_out


def is_point_table(text: str) -> bool:
    """Whether text is a table of points in frames, or a list of points with a first line."""
    fields = _first_fields(text)
    return set(_NEEDED) <= set(fields) or fields == _HEADER


def annotations_bytes(path: str | os.PathLike, annotations: Annotations) -> bytes:
    """Returns the content of an annotation file; `path` is for messages.

    Raises:
      InputError: if a key that was kept from another file holds NaN, infinity or text that is no
        Unicode, which are no JSON.
    """
    return files.kept_bytes(path, annotations_to_dict(annotations), annotations.source)


def write_points(
    path: str | os.PathLike,
    annotations: Annotations,
    frame_rates: Mapping[str, float],
    *,
    overwrite: bool = True,
) -> None:
    """Writes annotations with points, in the layout of the suffix.

    A `.json` holds everything. The table (`.csv`) and the list (`.txt`) hold neither recordings nor
    instances without points, nor how the points were drawn. A table gives the same seconds when
    read again, or their neighbours where no number of frames gives them; a list the same floats.

    Args:
      path: the file.
      annotations: annotations with points.
      frame_rates: frames per second of the original videos, for a table.
      overwrite: whether to replace an existing file of another content.

    Raises:
      InputError: if the suffix is unknown, a frame rate is missing, or an existing file must not be
        replaced.
    """
    path = Path(path)
    if path.suffix == ".json":
        content = annotations_bytes(path, annotations)
    elif path.suffix == ".csv":
        content = files.csv_bytes(_table(annotations, frame_rates, str(path)))
    elif path.suffix == ".txt":
        content = files.csv_bytes(
            (name, time_s, one.label) for name, one, time_s in _pointed(annotations)
        )
    else:
        raise InputError(f"{path}: unknown suffix, expected .json, .csv or .txt")
    if not overwrite:
        files.refuse_replacing([path], ours=lambda present: present.read_bytes() == content)
    files.write_bytes(path, content)


# --- comparing ---


@dataclasses.dataclass(frozen=True)
class PointComparison:
    """Differences of two sets of points; tuples hold a value of the first set and of the second."""

    counts: dict[str, tuple[int, int]]  # points of each class
    num_matched: int  # pairs of points of one recording and one class
    num_unmatched: tuple[int, int]
    median_s: float  # time between the points of a pair; NaN without pairs
    percentile_90_s: float
    largest_s: float
    num_positions: tuple[int, int]  # points in instances whose segment is known
    mean_position: tuple[float, float]  # in the segment, 0 at the start, 1 at the end; NaN if none
    position_deviation: tuple[float, float]


def compare_points(first: Annotations, second: Annotations) -> PointComparison:
    """Compares two sets of points, paired by `paired_differences` in each recording and class.

    Instances without a point do not count.

    >>> def annotations(*instances):
    ...     return Annotations(("jump",), {"r": RecordingAnnotation(instances=instances)})
    >>> first = annotations(Instance("jump", 2.0, 4.0, 3.0), Instance("jump", point_s=9.0))
    >>> comparison = compare_points(first, annotations(Instance("jump", point_s=3.5)))
    >>> comparison.num_matched, comparison.num_unmatched, comparison.median_s
    (1, (1, 0), 0.5)
    >>> comparison.mean_position
    (0.5, nan)
    """
    times = _times(first), _times(second)
    differences, counts = [], {}
    for name, label in sorted(set(times[0]) | set(times[1])):
        pair = [side.get((name, label), []) for side in times]
        differences += paired_differences(*pair)
        before = counts.get(label, (0, 0))
        counts[label] = (before[0] + len(pair[0]), before[1] + len(pair[1]))
    totals = [sum(count[side] for count in counts.values()) for side in (0, 1)]
    median_s, percentile_90_s, largest_s = np.percentile(differences or [np.nan], [50, 90, 100])
    positions = _positions(first), _positions(second)
    means = [float(np.mean(side or [np.nan])) for side in positions]
    deviations = [float(np.std(side or [np.nan])) for side in positions]
    return PointComparison(
        counts=dict(sorted(counts.items())),
        num_matched=len(differences),
        num_unmatched=(totals[0] - len(differences), totals[1] - len(differences)),
        median_s=float(median_s),
        percentile_90_s=float(percentile_90_s),
        largest_s=float(largest_s),
        num_positions=(len(positions[0]), len(positions[1])),
        mean_position=(means[0], means[1]),
        position_deviation=(deviations[0], deviations[1]),
    )


def paired_differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Differences of as many times as can be paired one to one, with the least sum.

    >>> paired_differences([1.0, 5.0], [5.5, 9.0, 2.0])
    [1.0, 0.5]
    """
    few, many = (np.sort(times) for times in sorted([first, second], key=len))
    # Some best pairing keeps the order, so the least cost of pairing the first i of the few within
    # the first j of the many follows from those of one fewer.
    costs = [np.zeros(len(many) + 1)]
    for time in few:
        best = np.minimum.accumulate(costs[-1][:-1] + np.abs(time - many))
        costs.append(np.concatenate([[np.inf], best]))
    differences, end = [], len(many)
    for row in range(len(few), 0, -1):
        while costs[row][end - 1] == costs[row][end]:
            end -= 1
        end -= 1
        differences.append(float(abs(few[row - 1] - many[end])))
    return differences[::-1]


def format_comparison(
    comparison: PointComparison, names: tuple[str, str] = ("first", "second")
) -> str:
    """Formats a comparison as lines of text."""
    totals = [sum(count[side] for count in comparison.counts.values()) for side in (0, 1)]
    rows = [
        ("", *names),
        *((label, *count) for label, count in comparison.counts.items()),
        ("all classes", *totals),
        ("unmatched", *comparison.num_unmatched),
    ]
    if any(comparison.num_positions):
        rows += [
            ("in a known segment", *comparison.num_positions),
            ("mean position", *(f"{mean:.3f}" for mean in comparison.mean_position)),
            ("its deviation", *(f"{value:.3f}" for value in comparison.position_deviation)),
        ]
    widths = [max(len(str(row[column])) for row in rows) for column in range(3)]
    lines = [
        f"{label:<{widths[0]}}  {one!s:>{widths[1]}}  {two!s:>{widths[2]}}"
        for label, one, two in rows
    ]
    lines.append(f"pairs: {comparison.num_matched}")
    if comparison.num_matched:
        lines[-1] += (
            f", apart by {comparison.median_s:.3f} s (median), {comparison.percentile_90_s:.3f} s "
            f"(90th percentile), {comparison.largest_s:.3f} s (largest)"
        )
    return "\n".join(lines)


def _times(annotations: Annotations) -> dict[tuple[str, str], list[float]]:
    times = {}
    for name, instance, time_s in _pointed(annotations):
        times.setdefault((name, instance.label), []).append(time_s)
    return times


def _positions(annotations: Annotations) -> list[float]:
    found = [(time_s, one.segment) for _, one, time_s in _pointed(annotations)]
    return [
        (time_s - segment[0]) / (segment[1] - segment[0])
        for time_s, segment in found
        if segment is not None and segment[0] < segment[1]
    ]


# --- lines ---


def _read_lines(source: str) -> Iterator[tuple[str, Instance, float, str]]:
    """Yields the recording, the instance without its point, the point, and its unit."""
    first = _first_fields(files.read_text(source))
    # A class or a recording may have the name of a column.
    if set(first) & set(_NEEDED) and not (len(first) == 3 and files.is_number(first[1])):
        for row in files.read_csv(source, _NEEDED):
            name, label, index = row["video_id"], row["class"], row.get("class_index")
            if index and not index.isdecimal():
                raise InputError(
                    f"{source}: {name}: class_index is {index!r}, expected a whole number"
                )
            time = files.to_number(row["point"], f"{source}: {name}: point of {label!r}")
            yield name, Instance(label), time, "frames"
        return
    for number, row in files.read_csv_lines(source, skipinitialspace=True):
        fields, line = [field.strip() for field in row], f"{source}: line {number}"
        if not any(fields) or (number == 1 and fields == _HEADER):
            continue
        if len(fields) != 3 or not all(fields):
            raise InputError(f"{line} is {','.join(row)!r}, expected video,seconds,label")
        name, time, label = fields
        yield name, Instance(label), files.to_number(time, f"{line}: time"), "seconds"


def _first_fields(text: str) -> list[str]:
    """The fields of the first line, quoted or not."""
    try:
        fields = next(csv.reader([text.partition("\n")[0]], skipinitialspace=True), [])
    except csv.Error:
        return []  # refused where the lines are read
    return [field.strip() for field in fields]


def _table(
    annotations: Annotations, frame_rates: Mapping[str, float], source: str
) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [_COLUMNS]
    for name, instance, point_s in _pointed(annotations):
        rate = _rate(name, frame_rates, source)
        times = (instance.start_s, instance.end_s, point_s)
        start, stop, point = (_frames(time_s, rate) for time_s in times)
        index = annotations.classes.index(instance.label)
        rows.append((instance.label, index, start, stop, name, point))
    return rows


def _rate(name: str, frame_rates: Mapping[str, float], source: str) -> float:
    if name not in frame_rates:
        raise InputError(
            f"{source}: {name}: no frame rate to convert between frames and seconds, expected it "
            "in a file like fps_dict.json or as 'fps' in the annotations"
        )
    return frame_rates[name]


def _frames(time_s: float | None, rate: float) -> float | int | None:
    """Returns the roundest number of frames that gives these seconds, an integer if one does."""
    if time_s is None:
        return None
    frames = time_s * rate
    for digits in range(16):
        if round(frames, digits) / rate == time_s:
            frames = round(frames, digits)
            break
    return int(frames) if frames.is_integer() else frames


def _pointed(annotations: Annotations) -> list[tuple[str, Instance, float]]:
    return [
        (name, instance, instance.point_s)
        for name, recording in annotations.recordings.items()
        for instance in recording.instances
        if instance.point_s is not None
    ]
