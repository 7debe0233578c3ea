"""Loads THUMOS14, GTEA, BEOID and ActivityNet from the layouts of public codebases.

Feature files are read unchanged, and annotations are checked against the clock. The data set's
notes list whatever is left out or corrected.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    cut_instance,
    cut_labels,
    ground_truth_of,
)
from tal_jax.data.lazy_features import LazyFeatures, open_features
from tal_jax.data.point_distributions import (
    NO_POINTS,
    POINTS_OF_FILE,
    fill_points,
    generate_points,
)
from tal_jax.data.point_files import read_points
from tal_jax.data.recordings import Dataset, Recording, assemble, fits_clock
from tal_jax.datasets import layouts
from tal_jax.datasets.layouts import Layout
from tal_jax.datasets.selection import (
    Finding,
    notes_of,
    overlapping_classes,
    select_recordings,
)

# A larger share of recordings off their clock, or of points outside recordings, is an error.
MAX_ODD_SHARE = 0.1

Features = LazyFeatures | np.ndarray
Clicks = dict[str, tuple[Instance, ...]]  # the points of each recording


def load_benchmark(
    layout: Layout,
    *,
    points: str,
    seed: int,
    overlapping: Sequence[str] = (),
    segments_suffice: bool = False,
) -> Dataset:
    """Loads a benchmark data set.

    Args:
      layout: of its folder, from `layouts.find_layout`.
      points: "file" for point labels in the annotations or in a point file, one of
        `POINT_DISTRIBUTIONS` to draw them in the annotated segments, "none" for video-level labels.
      seed: of drawn points.
      overlapping: pairs of classes that occur at once, in addition to those of the annotations, see
        `overlapping_classes`.
      segments_suffice: whether a training instance may have a segment and no point; its middle is
        then the point.

    Raises:
      InputError: if a file is unreadable, the clock is wrong for more than a tenth of the
        recordings, or a tenth of the points is outside of theirs.
    """
    grid = layout.grid
    origin = f"of {layouts.GRID_FILE}" if layout.has_grid else "of the config"
    notes = [
        f"read as {layout.description}; the clock {origin}, {grid.fps:g} fps and "
        f"{grid.stride_frames:g} frames a snippet"
    ]
    train, test, found = open_recordings(layout)
    annotations, more = _training_annotations(layout, train, points, seed, segments_suffice)
    pairs = overlapping_classes(layout.annotations, overlapping)
    ground_truth, unusual = _ground_truth(layout, test, pairs)
    return assemble(
        dataclasses.replace(annotations, overlapping=pairs),
        train.values(),
        test.values(),
        ground_truth,
        labels_only=points == NO_POINTS,
        notes=[*notes, *found, *more, *unusual],
    )


def open_recordings(
    layout: Layout,
) -> tuple[dict[str, Recording], dict[str, Recording], list[str]]:
    """Opens the training and the test recordings by name, without points, with notes."""
    features = open_all(layout, [*layout.names["train"], *layout.names["test"]])
    names, found = select_recordings(
        layout.names,
        annotated=layout.annotations.recordings,
        features={*features, *layout.features},
        required=("train",),
    )
    notes = [*layout.notes, *notes_of(layout.folder, found)]
    recordings, odd = _recordings(layout, [*names["train"], *names["test"]], features)
    train, test = ({name: recordings[name] for name in names[part]} for part in ("train", "test"))
    return train, test, [*notes, *odd]


def open_all(layout: Layout, names: Sequence[str]) -> dict[str, Features]:
    """Opens the features of those recordings that have any."""
    if layout.array is not None:
        arrays = layouts.load_object_array(layout.array, layout.array_names)
        return {name: arrays[name] for name in names if name in arrays}
    if layout.shards:
        return {name: layout.shards[name] for name in names if name in layout.shards}
    paths = {name: layouts.paths_of(layout, name) for name in names}
    return {name: open_features(found) for name, found in paths.items() if found}


# --- recordings ---


def _recordings(
    layout: Layout, names: Sequence[str], features: Mapping[str, Features]
) -> tuple[dict[str, Recording], list[str]]:
    """Makes recordings without points; those off the clock get the duration of their features."""
    grid, recordings, odd, unknown = layout.grid, {}, [], 0
    for name in names:
        length = len(features[name])
        annotated_s = layout.annotations.recordings[name].duration_s
        duration_s = grid.to_seconds(float(length))
        if annotated_s is None:
            unknown += 1
        elif annotated_s > 0 and fits_clock(length, annotated_s, grid):
            duration_s = annotated_s
        else:
            odd.append(name)
        recordings[name] = Recording(name, features[name], grid, duration_s)
    notes = []
    if len(odd) > MAX_ODD_SHARE * len(recordings):
        first = odd[0]
        raise InputError(
            f"{layout.folder}: {len(odd)} of {len(recordings)} recordings do not fit the clock of "
            f"{grid.fps:g} fps and {grid.stride_frames:g} frames a snippet: {first} has "
            f"{len(features[first])} snippets for "
            f"{layout.annotations.recordings[first].duration_s:g} s; `tal-jax doctor` finds "
            "the clock that fits; grid.json, or data.fps and data.stride_frames, set it"
        )
    if odd:
        text = "duration taken from the features, not the annotations"
        notes.append(str(Finding("warning", text, tuple(odd))))
    if unknown:
        notes.append(
            f"duration taken from the features of {unknown} recordings: "
            f"{layout.annotations.source} has none"
        )
    return recordings, notes


# --- training: points and labels ---


def _training_annotations(
    layout: Layout,
    train: Mapping[str, Recording],
    points: str,
    seed: int,
    segments_suffice: bool,
) -> tuple[Annotations, list[str]]:
    """Returns the annotations to train on: classes, and points or labels."""
    classes, notes = layout.annotations.classes, []
    entries = {
        name: dataclasses.replace(
            cut_labels(layout.annotations.recordings[name], recording.duration_s), subset="train"
        )
        for name, recording in train.items()
    }
    if points == POINTS_OF_FILE:
        clicks, found = read_clicks(layout, list(train), segments_suffice=segments_suffice)
        notes = notes_of(layout.folder, found)
        entries = {
            name: dataclasses.replace(one, instances=clicks.get(name, ()))
            for name, one in entries.items()
        }
    elif points != NO_POINTS:
        drawn = Annotations(classes, entries)
        entries = generate_points(drawn, distribution=points, seed=seed, strict=False).recordings
    fitted = {
        name: dataclasses.replace(
            one, instances=fit_instances(one.instances, train[name].duration_s)
        )
        for name, one in entries.items()
    }
    total, kept = (sum(len(one.instances) for one in r.values()) for r in (entries, fitted))
    beyond = total - kept
    if beyond:
        notes.append(
            f"train: left out {beyond} of {total} instances: empty, or outside of their recording"
        )
    if points == POINTS_OF_FILE and beyond > MAX_ODD_SHARE * total:
        raise InputError(
            f"{layout.folder}: {beyond} of {total} points are outside their recordings; "
            "a frame rate is wrong, or the points are of other recordings"
        )
    annotations = Annotations(classes, fitted)
    if segments_suffice:
        annotations, filled = fill_points(annotations, fitted)
        notes += filled
    return annotations, notes


def fit_instances(instances: Iterable[Instance], duration_s: float) -> tuple[Instance, ...]:
    """Cuts instances to their recording; those outside of it are left out."""
    kept = []
    for instance in instances:
        cut = instance if instance.segment is None else cut_instance(instance, duration_s)
        if cut is not None and (cut.point_s is None or 0 <= cut.point_s < duration_s):
            kept.append(cut)
    return tuple(kept)


def read_clicks(
    layout: Layout, names: Sequence[str], *, segments_suffice: bool = False
) -> tuple[Clicks, list[Finding]]:
    """Reads the points of training recordings: those of the annotations, or of a point file.

    Returns instances with a point in seconds, and with the annotated segment that it lies in, if
    there is exactly one. Annotations may also hold instances without a point, which cannot be
    trained on unless `segments_suffice`: then annotated segments that contain no point of a point
    file are returned, too.

    Raises:
      InputError: if there are no points where segments do not suffice, several point files, or one
        cannot be read.
    """
    known = layout.annotations.recordings
    own = {name: tuple(map(_around_its_point, known[name].instances)) for name in names}
    without_file = segments_suffice and not layout.point_file and not layout.point_files
    if has_own_points(layout, names) or without_file:
        return own, []
    if len(layout.point_files) != 1:
        listed = ", ".join(str(path.relative_to(layout.folder)) for path in layout.point_files)
        raise InputError(
            f"{layout.folder}: {f'points in {listed}' if listed else 'no point file'}; name one by "
            "data.point_file, draw points by data.points=uniform, train on segments, too, by "
            "data.supervision=mixed, or use labels alone by data.points=none"
        )
    points, strangers = read_points(
        layout.point_files[0], frame_rates=layout.frame_rates, annotations=layout.annotations
    )
    clicks = {name: one.instances for name, one in points.recordings.items()}
    findings = [
        Finding(level, text, tuple(found))
        for level, text, found in (
            ("warning", "points without annotations, not used", sorted(strangers)),
            ("note", "points of no training recording, not used", sorted({*clicks} - {*names})),
            ("warning", "train: no point", [name for name in names if name not in clicks]),
        )
        if found
    ]
    unknown = {one.label for r in clicks.values() for one in r} - {*layout.annotations.classes}
    if unknown:
        text = (
            f"points of class {min(unknown)!r}, which is none of the annotations' "
            f"{len(layout.annotations.classes)} classes"
        )
        findings.append(Finding("error", text))
    found = {}
    for name in names:
        annotated = known[name].instances
        instances = [_with_segment(one, annotated) for one in clicks.get(name, ())]
        if segments_suffice:
            instances += _unclicked(annotated, instances)
        if name in clicks or instances:
            found[name] = tuple(instances)
    return found, findings


def has_own_points(layout: Layout, names: Iterable[str]) -> bool:
    """Whether the points of training recordings are those of the annotations, not of a file."""
    known = layout.annotations.recordings
    points = (one.point_s for name in names for one in known[name].instances)
    return not layout.point_file and any(point_s is not None for point_s in points)


def _unclicked(annotated: Iterable[Instance], clicks: Sequence[Instance]) -> list[Instance]:
    """The annotated segments that no point of their class lies in, without a point."""
    return [
        Instance(one.label, one.start_s, one.end_s)
        for one in annotated
        if one.segment
        and not any(
            click.label == one.label and _holds(one.segment, click.point_s) for click in clicks
        )
    ]


def _around_its_point(instance: Instance) -> Instance:
    """The instance, without its segment where the point is outside of that."""
    if instance.point_s is None:
        return instance  # `points_of` raises
    return _with_segment(Instance(instance.label, point_s=instance.point_s), [instance])


def _with_segment(click: Instance, annotated: Iterable[Instance]) -> Instance:
    """The point with the only annotated segment of its class that it lies in, if there is one."""
    around = [
        one.segment
        for one in annotated
        if one.label == click.label and one.segment and _holds(one.segment, click.point_s)
    ]
    start_s, end_s = around[0] if len(around) == 1 else (None, None)
    return Instance(click.label, start_s, end_s, click.point_s)


def _holds(segment: tuple[float, float], time_s: float | None) -> bool:
    return time_s is not None and segment[0] <= time_s < segment[1]


# --- testing ---


def _ground_truth(
    layout: Layout,
    recordings: Mapping[str, Recording],
    overlapping: tuple[tuple[str, str], ...],
) -> tuple[dict[str, Any], list[str]]:
    """Returns the test recordings' segments unchanged, except for reversed ones, and notes."""
    database, unreachable, reversed_ = {}, 0, 0
    for name in recordings:
        duration_s, kept = recordings[name].duration_s, []
        for one in layout.annotations.recordings[name].instances:
            if one.segment is None:
                continue
            start_s, end_s = one.segment
            if end_s < start_s:
                reversed_ += 1
                continue
            unreachable += start_s >= duration_s
            kept.append(one)
        database[name] = RecordingAnnotation("test", duration_s, tuple(kept))
    classes = layout.annotations.classes
    truth = ground_truth_of(Annotations(classes, database, overlapping), database)
    ambiguous = {name: layout.ambiguous[name] for name in recordings if name in layout.ambiguous}
    if ambiguous:
        truth["ambiguous"] = {name: [list(one) for one in ambiguous[name]] for name in ambiguous}
    notes = []
    if reversed_:
        notes.append(f"test: left out {reversed_} segments that end before they start")
    if unreachable:
        notes.append(
            f"test: {unreachable} segments are beyond the end of their recording and cannot be "
            "detected; they count as missed"
        )
    return truth, notes
