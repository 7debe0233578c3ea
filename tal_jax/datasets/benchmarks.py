"""The field's data sets, loaded from whatever folder they lie in.

A recording's features decide what can be known of it: its files are read as they are, its clock is
the folder's or the config's, and what its annotations say is checked against both. Whatever is left
out or mended is told in the data set's notes.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax.data import point_files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
)
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import FeatureFiles, open_features
from tal_jax.data.point_sets import cut_instance, make_points
from tal_jax.data.raw_annotations import RawAnnotations, RawRecording
from tal_jax.data.recordings import (
    MAX_DRIFT_SNIPPETS,
    Dataset,
    Recording,
    check_dataset,
    class_notes,
    count_names,
    label_pairs,
    points_of,
)
from tal_jax.datasets import layouts
from tal_jax.datasets.layouts import Layout

# `data.points` where the points come from a file, and where there are to be none.
POINTS_OF_FILE = "file"
NO_POINTS = "none"
# So many recordings off their clock, or points off their recordings, are no exceptions any more.
MAX_ODD_SHARE = 0.1

Features = FeatureFiles | np.ndarray


def load_field(
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
    """Loads a data set of the field.

    Args:
      layout: of its folder, from `layouts.find_layout`.
      points: "file" for those in the annotations or in a point file, a law of
        `point_labels.LAWS` to draw them in the annotated segments, "none" for labels alone.
      seed: of drawn points.
      grid: the clock of the features, where the folder holds none.
      train_subset: see `layouts.choose_subsets`.
      test_subset: see `layouts.choose_subsets`.
      split: see `layouts.split_names`.
      point_file: the file of points, from the folder on; "" takes the only one.
      overlapping: pairs of classes that happen at once, "CliffDiving/Diving"; those that the data
        set does not have are ignored.

    Returns:
      The data set. Training recordings hold points or labels, never a start or an end.

    Raises:
      ValueError: if recordings cannot be told apart, a file is unreadable, the clock is wrong for
        more than a tenth of the recordings, or points lie outside of theirs as often.
    """
    grid = layout.grid or grid
    said = f"of {layouts.GRID_FILE}" if layout.grid else "of the config"
    notes = [
        f"read as {layout.describe()}; the clock {said}, {grid.fps:g} fps and "
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
    dataset = Dataset(
        classes=annotations.classes,
        train=tuple(
            _labelled(one, annotations) if points == NO_POINTS else _clicked(one, annotations)
            for one in train.values()
        ),
        test=tuple(test.values()),
        ground_truth=ground_truth,
        overlapping=label_pairs(annotations),
    )
    check_dataset(dataset)
    return dataclasses.replace(dataset, notes=(*notes, *class_notes(dataset)))


def open_recordings(
    layout: Layout, *, grid: Grid, train_subset: str = "", test_subset: str = "", split: str
) -> tuple[dict[str, Recording], dict[str, Recording], list[str]]:
    """Opens the recordings to train on and to test on, without points.

    Args:
      layout: of the folder.
      grid: the clock.
      train_subset: see `layouts.choose_subsets`.
      test_subset: see `layouts.choose_subsets`.
      split: see `layouts.split_names`.

    Returns:
      Both by name, and notes about what was left out or mended.

    Raises:
      ValueError: as `load_field`.
    """
    names = layouts.split_names(
        layout, train_subset=train_subset, test_subset=test_subset, split=split
    )
    features = open_all(layout, [*names["train"], *names["test"]])
    names, left_out = _with_features(layout, names, features)
    recordings, odd = _recordings(layout, names, features, grid)
    train, test = ({name: recordings[name] for name in names[part]} for part in ("train", "test"))
    return train, test, [*left_out, *odd]


def open_all(layout: Layout, names: Sequence[str]) -> dict[str, Features]:
    """Opens the features of those recordings that have some.

    Raises:
      ValueError: if a file is no file of features.
    """
    if layout.array is not None:
        arrays = layouts.load_object_array(layout.array, list(layout.annotations.recordings))
        return {name: arrays[name] for name in names if name in arrays}
    paths = {name: layouts.paths_of(layout, name) for name in names}
    return {name: open_features(found) for name, found in paths.items() if found}


def is_on_clock(length: int, duration_s: float, grid: Grid) -> bool:
    """Whether features of `length` snippets can be of a recording that lasts so long."""
    return abs(length - grid.num_snippets(duration_s)) <= MAX_DRIFT_SNIPPETS


# --- recordings ---


def _with_features(layout: Layout, names: Mapping[str, Sequence[str]], features) -> tuple:
    """Leaves out what has no features or no annotations, and says so."""
    kept, notes, known = {}, [], layout.annotations.recordings
    for part, listed in names.items():
        kept[part] = tuple(name for name in listed if name in features and name in known)
        for what, missing in (
            ("without features", [name for name in listed if name not in features]),
            ("without annotations", [name for name in listed if name not in known]),
        ):
            if missing:
                notes.append(f"{part}: left out {count(missing)}: {what}")
    if not kept["train"]:
        raise ValueError(
            f"{layout.folder}: none of the {len(names['train'])} recordings to train on has both "
            "features and annotations"
        )
    unused = sorted(set(layout.features) - {*names["train"], *names["test"]})
    if unused:
        notes.append(f"left out {count(unused)}: features of no recording to train or test on")
    return kept, notes


def _recordings(
    layout: Layout, names: Mapping[str, Sequence[str]], features: Mapping[str, Features], grid: Grid
) -> tuple[dict[str, Recording], list[str]]:
    """Recordings without points; the duration of those off the clock is that of their features."""
    recordings, odd, silent = {}, [], 0
    for name in (*names["train"], *names["test"]):
        length = len(features[name])
        told_s = layout.annotations.recordings[name].duration_s
        fits = told_s is not None and told_s > 0 and is_on_clock(length, told_s, grid)
        if told_s is None:
            silent += 1
        elif not fits:
            odd.append(name)
        duration_s = told_s if fits else grid.to_seconds(float(length))
        recordings[name] = Recording(name, features[name], grid, duration_s)
    notes = []
    if len(odd) > MAX_ODD_SHARE * len(recordings):
        first = odd[0]
        raise ValueError(
            f"{layout.folder}: {len(odd)} of {len(recordings)} recordings do not fit the clock of "
            f"{grid.fps:g} fps and {grid.stride_frames:g} frames a snippet: {first} has "
            f"{len(features[first])} snippets for "
            f"{layout.annotations.recordings[first].duration_s:g} s; `tal-jax doctor` tells which "
            "clock fits; grid.json, or data.fps and data.stride_frames, set it"
        )
    if odd:
        notes.append(f"duration taken from the features, not the annotations: {count(odd)}")
    if silent:
        notes.append(
            f"duration taken from the features of {silent} recordings: "
            f"{layout.annotations.source} tells none"
        )
    return recordings, notes


# --- training: points and labels ---


def _training_annotations(
    layout: Layout, train: Mapping[str, Recording], points: str, seed: int, point_file: str
) -> tuple[Annotations, list[str]]:
    """What training may know: classes, and points or labels."""
    raw = layout.annotations
    durations_s = {name: recording.duration_s for name, recording in train.items()}
    if points == POINTS_OF_FILE:
        instances, notes = _points_of_files(layout, train, point_file)
    elif points == NO_POINTS:
        instances, notes = {name: raw.recordings[name].instances for name in train}, []
    else:
        instances, notes = _drawn(raw, durations_s, law=points, seed=seed), []
    kept, beyond = {}, 0
    for name, duration_s in durations_s.items():
        fitting = [fit_instance(one, duration_s) for one in instances[name]]
        kept[name] = tuple(one for one in fitting if one is not None)
        beyond += len(fitting) - len(kept[name])
    total = sum(map(len, instances.values()))
    if beyond:
        notes.append(
            f"train: left out {beyond} of {total} instances: empty, or outside of their recording"
        )
    if points == POINTS_OF_FILE and beyond > MAX_ODD_SHARE * total:
        raise ValueError(
            f"{layout.folder}: {beyond} of {total} points lie outside of their recordings; "
            "a frame rate is wrong, or the points are of other recordings"
        )
    recordings = {
        name: RecordingAnnotation("train", durations_s[name], kept[name]) for name in train
    }
    return Annotations(raw.classes, recordings), notes


def _drawn(
    raw: RawAnnotations, durations_s: Mapping[str, float], *, law: str, seed: int
) -> dict[str, tuple[Instance, ...]]:
    """Instances with drawn points; where none can be drawn, `fit_instance` will find nothing."""
    recordings = {
        name: RawRecording("train", duration_s, instances=raw.recordings[name].instances)
        for name, duration_s in durations_s.items()
    }
    drawn, _ = make_points(dataclasses.replace(raw, recordings=recordings), law=law, seed=seed)
    return {name: recording.instances for name, recording in drawn.recordings.items()}


def fit_instance(instance: Instance, duration_s: float) -> Instance | None:
    """The part of an instance that lies in its recording; None where nothing does."""
    if instance.start_s is not None:
        instance = cut_instance(instance, duration_s)
        if instance is None:
            return None
    if instance.point_s is not None and not 0 <= instance.point_s < duration_s:
        return None
    return instance


def _points_of_files(
    layout: Layout, train: Mapping[str, Recording], point_file: str
) -> tuple[dict[str, tuple[Instance, ...]], list[str]]:
    """The points that came with the data set, without any start or end."""
    raw = {name: layout.annotations.recordings[name] for name in train}
    if not point_file and any(one.point_s is not None for r in raw.values() for one in r.instances):
        return {name: tuple(map(_bare, one.instances)) for name, one in raw.items()}, []
    clicks, strangers = read_clicks(layout, point_file)
    unknown = {one.label for listed in clicks.values() for one in listed}
    unknown -= set(layout.annotations.classes)
    if unknown:
        raise ValueError(
            f"{layout.folder}: points of class {min(unknown)!r}, which is none of the annotations' "
            f"{len(layout.annotations.classes)} classes"
        )
    elsewhere = sorted(set(clicks) - set(train))
    notes = []
    if strangers:
        notes.append(f"points of {count(strangers)} are not used: without annotations")
    if elsewhere:
        notes.append(f"points of {count(elsewhere)} are not used: no training recording")
    bare = [name for name in train if name not in clicks]
    if bare:
        notes.append(f"train: no point in {count(bare)}")
    return {name: clicks.get(name, ()) for name in train}, notes


def read_clicks(
    layout: Layout, point_file: str = ""
) -> tuple[dict[str, tuple[Instance, ...]], list[str]]:
    """Reads the point file of a folder.

    Args:
      layout: of the folder.
      point_file: from the folder on; "" takes the only one.

    Returns:
      The points of each recording, in seconds, and which recordings have points and no annotations.

    Raises:
      ValueError: if there is none, several to choose from, or it cannot be read.
    """
    found = [layout.folder / point_file] if point_file else layout.point_files
    if len(found) != 1:
        listed = ", ".join(str(path.relative_to(layout.folder)) for path in found)
        raise ValueError(
            f"{layout.folder}: {f'points in {listed}' if found else 'no point file'}; name one by "
            "data.point_file, or draw points by data.points=uniform"
        )
    points, known = point_files.read_point_file(found[0]), layout.annotations.recordings
    strangers = sorted({click.recording for click in points.clicks} - set(known))
    clicks = tuple(click for click in points.clicks if click.recording in known)
    points = dataclasses.replace(points, clicks=clicks)
    return point_files.clicks_by_recording(points, layout.frame_rates), strangers


def _bare(instance: Instance) -> Instance:
    if instance.point_s is None:
        return instance  # `points_of` tells that it is missing
    return Instance(instance.label, point_s=instance.point_s)


def _clicked(recording: Recording, annotations: Annotations) -> Recording:
    annotation = annotations.recordings[recording.name]
    points = points_of(recording.name, annotation, annotations.classes)
    return dataclasses.replace(recording, points=points)


def _labelled(recording: Recording, annotations: Annotations) -> Recording:
    held = {one.label for one in annotations.recordings[recording.name].instances}
    labels = tuple(sorted(annotations.classes.index(label) for label in held))
    return dataclasses.replace(recording, labels=labels)


def overlapping_classes(
    pairs: Iterable[str], classes: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Splits pairs "class/class", of which those count whose classes there are.

    Raises:
      ValueError: if one is no pair.
    """
    split = []
    for pair in pairs:
        names = tuple(pair.split("/"))
        if len(names) != 2:
            raise ValueError(f"config: data.overlapping has {pair!r}; expected 'class/class'")
        if set(names) <= set(classes):
            split.append(names)
    return tuple(split)


# --- testing ---


def _ground_truth(
    layout: Layout,
    recordings: Mapping[str, Recording],
    overlapping: tuple[tuple[str, str], ...],
) -> tuple[dict[str, Any], list[str]]:
    """The test recordings' segments just as they are told, but for those that run backwards."""
    database, unreachable, backwards = {}, 0, 0
    for name in recordings:
        instances = _without_points(layout.annotations.recordings[name])
        kept = tuple(one for one in instances if one.end_s >= one.start_s)
        backwards += len(instances) - len(kept)
        unreachable += sum(one.start_s >= recordings[name].duration_s for one in kept)
        database[name] = RecordingAnnotation("test", recordings[name].duration_s, kept)
    classes = layout.annotations.classes
    truth = annotations_to_dict(Annotations(classes, database, overlapping))
    ambiguous = {name: layout.ambiguous[name] for name in recordings if name in layout.ambiguous}
    if ambiguous:
        truth["ambiguous"] = {name: [list(one) for one in ambiguous[name]] for name in ambiguous}
    notes = []
    if backwards:
        notes.append(f"test: left out {backwards} segments that end before they start")
    if unreachable:
        notes.append(
            f"test: {unreachable} segments lie beyond the end of their recording and cannot be "
            "found; they count as missed"
        )
    return truth, notes


def _without_points(recording: RawRecording) -> list[Instance]:
    bare = [dataclasses.replace(one, point_s=None) for one in recording.instances]
    return [one for one in bare if one.start_s is not None]


def count(names: Sequence[str]) -> str:
    """`count_names` in few words, since a folder's notes are many."""
    return count_names(names, most=3)
