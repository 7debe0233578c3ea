"""Loads THUMOS14, GTEA, BEOID and ActivityNet from the layouts of public codebases.

Feature files are read unchanged; the clock is that of the folder or of the config, and annotations
are checked against both. The data set's notes list whatever is left out or corrected.
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
    annotations_to_dict,
    cut_instance,
)
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import FeatureFiles, open_features
from tal_jax.data.point_distributions import generate_points
from tal_jax.data.point_files import read_points
from tal_jax.data.recordings import (
    MAX_DRIFT_SNIPPETS,
    Dataset,
    Recording,
    assemble,
    count_names,
    select_recordings,
)
from tal_jax.datasets import layouts
from tal_jax.datasets.layouts import Layout

# Values of `data.points`: points of a file, and no points.
POINTS_OF_FILE = "file"
NO_POINTS = "none"
# A larger share of recordings off their clock, or of points outside recordings, is an error.
MAX_ODD_SHARE = 0.1

Features = FeatureFiles | np.ndarray


def load_benchmark(
    layout: Layout,
    *,
    points: str,
    seed: int,
    grid: Grid,
    train_subset: str = "",
    test_subset: str = "",
    split: str = "files",
    point_file: str = "",
    overlapping: Sequence[str] = (),
) -> Dataset:
    """Loads a benchmark data set.

    Args:
      layout: of its folder, from `layouts.find_layout`.
      points: "file" for point labels in the annotations or in a point file, one of
        `POINT_DISTRIBUTIONS` to draw them in the annotated segments, "none" for video-level labels.
      seed: of drawn points.
      grid: the clock of the features, where the folder has none.
      train_subset: see `layouts.choose_subsets`.
      test_subset: see `layouts.choose_subsets`.
      split: see `layouts.split_names`.
      point_file: the point file, relative to the folder; "" for the only one.
      overlapping: pairs of classes that occur at once, "CliffDiving/Diving"; pairs of other data
        sets' classes are ignored.

    Returns:
      The data set. Training recordings hold points or labels, no segments.

    Raises:
      InputError: if recordings cannot be assigned, a file is unreadable, the clock is wrong for
        more than a tenth of the recordings, or a tenth of the points is outside of theirs.
    """
    grid = layout.grid or grid
    origin = f"of {layouts.GRID_FILE}" if layout.grid else "of the config"
    notes = [
        f"read as {layout.describe()}; the clock {origin}, {grid.fps:g} fps and "
        f"{grid.stride_frames:g} frames a snippet"
    ]
    train, test, found = open_recordings(
        layout, grid=grid, train_subset=train_subset, test_subset=test_subset, split=split
    )
    notes += found
    annotations, more = _training_annotations(layout, train, points, seed, point_file)
    annotations = dataclasses.replace(
        annotations, overlapping=overlapping_classes(overlapping, annotations.classes)
    )
    notes += more
    ground_truth, unusual = _ground_truth(layout, test, annotations.overlapping)
    notes += unusual
    return assemble(
        annotations,
        train.values(),
        test.values(),
        ground_truth,
        labels_only=points == NO_POINTS,
        notes=notes,
    )


def open_recordings(
    layout: Layout, *, grid: Grid, train_subset: str = "", test_subset: str = "", split: str
) -> tuple[dict[str, Recording], dict[str, Recording], list[str]]:
    """Opens the training and the test recordings, without points.

    Args:
      layout: of the folder.
      grid: the clock.
      train_subset: see `layouts.choose_subsets`.
      test_subset: see `layouts.choose_subsets`.
      split: see `layouts.split_names`.

    Returns:
      Both by name, and notes on what was left out or corrected.

    Raises:
      InputError: as `load_benchmark`.
    """
    names = layouts.split_names(
        layout, train_subset=train_subset, test_subset=test_subset, split=split
    )
    features = open_all(layout, [*names["train"], *names["test"]])
    names, left_out = select_recordings(
        layout.folder,
        names,
        annotated=layout.annotations.recordings,
        features={*features, *layout.features},
    )
    recordings, odd = _recordings(layout, names, features, grid)
    train, test = ({name: recordings[name] for name in names[part]} for part in ("train", "test"))
    return train, test, [*left_out, *odd]


def open_all(layout: Layout, names: Sequence[str]) -> dict[str, Features]:
    """Opens the features of those recordings that have any.

    Raises:
      InputError: if a file is no feature file.
    """
    if layout.array is not None:
        arrays = layouts.load_object_array(layout.array, list(layout.annotations.recordings))
        return {name: arrays[name] for name in names if name in arrays}
    paths = {name: layouts.paths_of(layout, name) for name in names}
    return {name: open_features(found) for name, found in paths.items() if found}


def is_on_clock(length: int, duration_s: float, grid: Grid) -> bool:
    """Whether `length` snippets match a duration up to `MAX_DRIFT_SNIPPETS`."""
    return abs(length - grid.num_snippets(duration_s)) <= MAX_DRIFT_SNIPPETS


# --- recordings ---


def _recordings(
    layout: Layout, names: Mapping[str, Sequence[str]], features: Mapping[str, Features], grid: Grid
) -> tuple[dict[str, Recording], list[str]]:
    """Makes recordings without points; those off the clock get the duration of their features."""
    recordings, odd, unknown = {}, [], 0
    for name in (*names["train"], *names["test"]):
        length = len(features[name])
        annotated_s = layout.annotations.recordings[name].duration_s
        duration_s = grid.to_seconds(float(length))
        if annotated_s is None:
            unknown += 1
        elif annotated_s > 0 and is_on_clock(length, annotated_s, grid):
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
        notes.append(f"duration taken from the features, not the annotations: {count(odd)}")
    if unknown:
        notes.append(
            f"duration taken from the features of {unknown} recordings: "
            f"{layout.annotations.source} has none"
        )
    return recordings, notes


# --- training: points and labels ---


def _training_annotations(
    layout: Layout, train: Mapping[str, Recording], points: str, seed: int, point_file: str
) -> tuple[Annotations, list[str]]:
    """Returns the annotations to train on: classes, and points or labels."""
    recordings = {
        name: RecordingAnnotation(
            "train", recording.duration_s, layout.annotations.recordings[name].instances
        )
        for name, recording in train.items()
    }
    annotations, notes = Annotations(layout.annotations.classes, recordings), []
    if points == POINTS_OF_FILE:
        annotations, notes = _points_of_files(layout, annotations, point_file)
    elif points != NO_POINTS:
        annotations = generate_points(annotations, distribution=points, seed=seed, strict=False)
    total = len(annotations.instances)
    annotations = _with_instances(
        annotations,
        {
            name: fit_instances(annotations.recordings[name].instances, recording.duration_s)
            for name, recording in train.items()
        },
    )
    beyond = total - len(annotations.instances)
    if beyond:
        notes.append(
            f"train: left out {beyond} of {total} instances: empty, or outside of their recording"
        )
    if points == POINTS_OF_FILE and beyond > MAX_ODD_SHARE * total:
        raise InputError(
            f"{layout.folder}: {beyond} of {total} points are outside their recordings; "
            "a frame rate is wrong, or the points are of other recordings"
        )
    return annotations, notes


def fit_instances(instances: Iterable[Instance], duration_s: float) -> tuple[Instance, ...]:
    """Cuts instances to their recording; those outside of it are left out."""
    kept = []
    for instance in instances:
        cut = instance if instance.segment is None else cut_instance(instance, duration_s)
        if cut is not None and (cut.point_s is None or 0 <= cut.point_s < duration_s):
            kept.append(cut)
    return tuple(kept)


def _with_instances(
    annotations: Annotations, instances: Mapping[str, tuple[Instance, ...]]
) -> Annotations:
    recordings = {
        name: dataclasses.replace(recording, instances=instances.get(name, ()))
        for name, recording in annotations.recordings.items()
    }
    return dataclasses.replace(annotations, recordings=recordings)


def _points_of_files(
    layout: Layout, train: Annotations, point_file: str
) -> tuple[Annotations, list[str]]:
    """Returns the point labels that come with the data set, without segments."""
    if not point_file and any(one.point_s is not None for one in train.instances):
        bare = {name: tuple(map(_bare, r.instances)) for name, r in train.recordings.items()}
        return _with_instances(train, bare), []
    clicks, strangers = read_clicks(layout, point_file)
    unknown = {one.label for listed in clicks.values() for one in listed} - set(train.classes)
    if unknown:
        raise InputError(
            f"{layout.folder}: points of class {min(unknown)!r}, which is none of the annotations' "
            f"{len(train.classes)} classes"
        )
    notes = [
        f"{text}: {count(names)}"
        for text, names in (
            ("points without annotations, not used", strangers),
            ("points of no training recording, not used", sorted({*clicks} - {*train.recordings})),
            ("train: no point", [name for name in train.recordings if name not in clicks]),
        )
        if names
    ]
    return _with_instances(train, clicks), notes


def read_clicks(
    layout: Layout, point_file: str = ""
) -> tuple[dict[str, tuple[Instance, ...]], list[str]]:
    """Reads the point file of a folder.

    Args:
      layout: of the folder.
      point_file: relative to the folder; "" for the only one.

    Returns:
      The points of each recording, in seconds, and the recordings with points but no annotations.

    Raises:
      InputError: if there is none, there are several, or it cannot be read.
    """
    found = [layout.folder / point_file] if point_file else layout.point_files
    if len(found) != 1:
        listed = ", ".join(str(path.relative_to(layout.folder)) for path in found)
        raise InputError(
            f"{layout.folder}: {f'points in {listed}' if found else 'no point file'}; name one by "
            "data.point_file, or draw points by data.points=uniform"
        )
    points, strangers = read_points(
        found[0], frame_rates=layout.frame_rates, annotations=layout.annotations
    )
    return {name: one.instances for name, one in points.recordings.items()}, sorted(strangers)


def _bare(instance: Instance) -> Instance:
    if instance.point_s is None:
        return instance  # `points_of` raises
    return Instance(instance.label, point_s=instance.point_s)


def overlapping_classes(
    pairs: Iterable[str], classes: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Splits pairs "class/class"; pairs with unknown classes are left out.

    Raises:
      InputError: if one is no pair.
    """
    split = []
    for pair in pairs:
        names = tuple(pair.split("/"))
        if len(names) != 2:
            raise InputError(f"config: data.overlapping has {pair!r}; expected 'class/class'")
        if set(names) <= set(classes):
            split.append(names)
    return tuple(split)


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
            kept.append(dataclasses.replace(one, point_s=None))
        database[name] = RecordingAnnotation("test", duration_s, tuple(kept))
    classes = layout.annotations.classes
    truth = annotations_to_dict(Annotations(classes, database, overlapping))
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


def count(names: Sequence[str]) -> str:
    """Formats names as `count_names` does, shorter, since a folder has many notes."""
    return count_names(names, most=3)
