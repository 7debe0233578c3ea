"""Files of points: the one clicked instant of each action, without its start and its end.

Two layouts are in use::

    point_gaussian.csv      class,class_index,start_frame,stop_frame,video_id,point
                            Billiards,2,2025,2277,video_validation_0000051,2151

    THUMOS1.txt             video_validation_0000051,68.900356,Billiards

The table (SF-Net's, LACP's and HR-Pro's) counts in frames of the original video, not of the one
that features were extracted from; the columns of the class's index, the start and the stop may be
missing, and the latter two are never looked at. The list of clicks is in seconds, with or without
a first line `video,seconds,label`.
"""

import csv
import dataclasses
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance

_COLUMNS = ("class", "class_index", "start_frame", "stop_frame", "video_id", "point")
_NEEDED = ("class", "video_id", "point")
_HEADER = ["video", "seconds", "label"]


@dataclasses.dataclass(frozen=True)
class Click:
    """One point of a file.

    Attributes:
      recording: name of the recording.
      label: name of the class.
      time: in the file's unit.
      label_index: the file's number of the class, where it gives one.
    """

    recording: str
    label: str
    time: float
    label_index: int | None = None


@dataclasses.dataclass(frozen=True)
class PointFile:
    """What a point file says.

    Attributes:
      kind: "point csv" or "click list".
      source: the path, for messages.
      unit: of the times: "frames" of the original video, or "seconds".
      clicks: in the file's order.
    """

    kind: str
    source: str
    unit: str
    clicks: tuple[Click, ...]


def read_point_file(path: str | os.PathLike) -> PointFile:
    """Reads a table of points, or a list of clicks.

    Raises:
      ValueError: if the file cannot be read, a column is missing, a line has another number of
        fields, or a time is not a finite number.
    """
    source, text = str(path), files.read_text(path)
    header = text.partition("\n")[0].split(",")
    if set(header) & set(_NEEDED):
        clicks = [_table_click(row, source) for row in files.read_csv(path, _NEEDED)]
        return PointFile("point csv", source, "frames", tuple(clicks))
    return PointFile("click list", source, "seconds", tuple(_list_clicks(text, source)))


def clicks_by_recording(
    points: PointFile, frame_rates: Mapping[str, float]
) -> dict[str, tuple[Instance, ...]]:
    """Sorts clicks by their recordings, in seconds.

    Args:
      points: what a file says.
      frame_rates: frames a second of each original video; needed where the file counts in frames.

    Returns:
      Instances with a label and a point, in the file's order.

    Raises:
      ValueError: if a frame rate is needed and missing.

    >>> points = PointFile("point csv", "a.csv", "frames", (Click("r", "jump", 45.0),))
    >>> clicks_by_recording(points, {"r": 30.0})["r"][0].point_s
    1.5
    """
    recordings = {}
    for click in points.clicks:
        time_s = click.time
        if points.unit == "frames":
            if click.recording not in frame_rates:
                raise ValueError(
                    f"{points.source}: {click.recording}: no frame rate to turn frames into "
                    "seconds with, expected it in a file like fps_dict.json or as 'fps' in the "
                    "annotations"
                )
            time_s = click.time / frame_rates[click.recording]
        recordings.setdefault(click.recording, []).append(Instance(click.label, point_s=time_s))
    return {name: tuple(instances) for name, instances in recordings.items()}


def write_point_csv(
    path: str | os.PathLike, annotations: Annotations, frame_rates: Mapping[str, float]
) -> None:
    """Writes the points as a table, in frames of the original videos.

    Reading it gives the same seconds again, or their neighbours where no number of frames gives
    them. Starts and stops are empty where they are unknown; instances without a point have no line.

    Args:
      path: the file.
      annotations: annotations with points.
      frame_rates: frames a second of each recording with a point.

    Raises:
      ValueError: if a frame rate is missing.
      OSError: if the file cannot be written.
    """
    rows = [_COLUMNS]
    for name, instance in _pointed(annotations):
        if name not in frame_rates:
            raise ValueError(
                f"{path}: {name}: no frame rate to turn seconds into frames with, expected it in a "
                "file like fps_dict.json or as 'fps' in the annotations"
            )
        times = (instance.start_s, instance.end_s, instance.point_s)
        start, stop, point = (_frames(time_s, frame_rates[name]) for time_s in times)
        index = annotations.classes.index(instance.label)
        rows.append((instance.label, index, start, stop, name, point))
    files.write_csv(path, rows)


def write_click_list(path: str | os.PathLike, annotations: Annotations) -> None:
    """Writes the points as a list of clicks, in seconds; reading it gives the same floats.

    Raises OSError if the file cannot be written. Instances without a point have no line.
    """
    rows = [(name, instance.point_s, instance.label) for name, instance in _pointed(annotations)]
    files.write_csv(path, rows)


# --- comparing ---


@dataclasses.dataclass(frozen=True)
class PointComparison:
    """How two sets of points differ; what comes in pairs is of the first set and of the second.

    Attributes:
      counts: number of points of each class.
      num_matched: pairs of points of one recording and one class.
      num_unmatched: points that the other set has no counterpart of.
      median_s: median of the time between the points of a pair; NaN where there is no pair.
      percentile_90_s: 90th percentile of it.
      largest_s: the largest of it.
      num_positions: points in instances whose segment is known.
      mean_position: mean of their position, 0 at the start and 1 at the end; NaN without any.
      position_deviation: standard deviation of it.
    """

    counts: dict[str, tuple[int, int]]
    num_matched: int
    num_unmatched: tuple[int, int]
    median_s: float
    percentile_90_s: float
    largest_s: float
    num_positions: tuple[int, int]
    mean_position: tuple[float, float]
    position_deviation: tuple[float, float]


def compare_points(
    first: Mapping[str, Sequence[Instance]], second: Mapping[str, Sequence[Instance]]
) -> PointComparison:
    """Compares two sets of points.

    They are paired by `paired_differences` in each recording and class.

    Args:
      first: instances of each recording; those without a point do not count.
      second: the other set's.

    >>> first = {"r": [Instance("jump", 2.0, 4.0, 3.0), Instance("jump", point_s=9.0)]}
    >>> comparison = compare_points(first, {"r": [Instance("jump", point_s=3.5)]})
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
    return PointComparison(
        counts=dict(sorted(counts.items())),
        num_matched=len(differences),
        num_unmatched=(totals[0] - len(differences), totals[1] - len(differences)),
        median_s=float(median_s),
        percentile_90_s=float(percentile_90_s),
        largest_s=float(largest_s),
        num_positions=(len(positions[0]), len(positions[1])),
        mean_position=tuple(float(np.mean(side or [np.nan])) for side in positions),
        position_deviation=tuple(float(np.std(side or [np.nan])) for side in positions),
    )


def paired_differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Pairs as many times as possible, one to one, with the least sum of differences.

    Returns:
      The differences of the pairs.

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
    """Returns a comparison as lines of text."""
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


def _times(recordings: Mapping[str, Sequence[Instance]]) -> dict[tuple[str, str], list[float]]:
    times = {}
    for name, instances in recordings.items():
        for instance in instances:
            if instance.point_s is not None:
                times.setdefault((name, instance.label), []).append(instance.point_s)
    return times


def _positions(recordings: Mapping[str, Sequence[Instance]]) -> list[float]:
    return [
        (instance.point_s - instance.start_s) / (instance.end_s - instance.start_s)
        for instances in recordings.values()
        for instance in instances
        if None not in (instance.point_s, instance.start_s) and instance.start_s < instance.end_s
    ]


# --- lines ---


def _table_click(row: Mapping[str, str], source: str) -> Click:
    name, label = row["video_id"], row["class"]
    index = row.get("class_index")
    if index and not index.isdecimal():
        raise ValueError(f"{source}: {name}: class_index is {index!r}, expected a whole number")
    time = _number(row["point"], f"{source}: {name}: point of {label!r}", "frames")
    return Click(name, label, time, int(index) if index else None)


def _list_clicks(text: str, source: str) -> Iterable[Click]:
    reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    try:
        for row in reader:
            fields, line = [field.strip() for field in row], f"{source}: line {reader.line_num}"
            if not any(fields) or (reader.line_num == 1 and fields == _HEADER):
                continue
            if len(fields) != 3 or not all(fields):
                raise ValueError(f"{line} is {','.join(row)!r}, expected video,seconds,label")
            name, time, label = fields
            yield Click(name, label, _number(time, f"{line}: time", "seconds"))
    except csv.Error as error:
        raise ValueError(f"{source}: line {reader.line_num}: {error}") from error


def _number(value: str, what: str, unit: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} is {value!r}, expected a finite number of {unit}")
    return number


def _frames(time_s: float | None, rate: float) -> float | int | None:
    """Returns the roundest number of frames that makes these seconds, an integer where one does."""
    if time_s is None:
        return None
    frames = time_s * rate
    for digits in range(16):
        if round(frames, digits) / rate == time_s:
            frames = round(frames, digits)
            break
    return int(frames) if frames.is_integer() else frames


def _pointed(annotations: Annotations) -> list[tuple[str, Instance]]:
    return [
        (name, instance)
        for name, recording in annotations.recordings.items()
        for instance in recording.instances
        if instance.point_s is not None
    ]
