"""This project's layout of a data set: a folder of features, their clock and their annotations.

The files of the folder::

    grid.json            {"fps": 25, "stride_frames": 16, "window_frames": 16}
    annotations.json     see `tal_jax.data.annotations`
    recording_1.npy      [T, D] float32 or float16
    recording_2.npy      ...

or, instead of a file a recording, the shards of `tal_jax.data.shards`. Features are read when
needed.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    annotations_to_dict,
    ground_truth_of,
    load_annotations,
)
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import open_features
from tal_jax.data.manifest import read_manifest
from tal_jax.data.point_distributions import (
    NO_POINTS,
    POINTS_OF_FILE,
    fill_points,
    generate_points,
)
from tal_jax.data.recordings import Dataset, Recording, assemble, count_names
from tal_jax.data.shards import ShardFeatures, open_shards
from tal_jax.datasets.selection import (
    choose_subsets,
    notes_of,
    overlapping_classes,
    select_recordings,
)

GRID_FILE = "grid.json"
ANNOTATION_FILE = "annotations.json"
_NOT_IN_NAMES = frozenset("/\\\0:")


def load_folder(
    folder: str | os.PathLike,
    *,
    points: str = POINTS_OF_FILE,
    seed: int = 0,
    train_subset: str = "",
    test_subset: str = "",
    overlapping: Sequence[str] = (),
    segments_suffice: bool = False,
) -> Dataset:
    """Loads a folder of features and the annotations of its recordings.

    Args:
      folder: the folder.
      points: "file" for the points of the annotations, one of `POINT_DISTRIBUTIONS` to draw them,
        "none" for video classes alone, which need neither points nor segments.
      seed: of drawn points.
      train_subset: see `choose_subsets`.
      test_subset: see `choose_subsets`. Each instance of a test recording needs a segment.
      overlapping: pairs of classes that occur at once, in addition to those of the annotations, see
        `overlapping_classes`.
      segments_suffice: whether a training instance may have a segment and no point; its middle is
        then the point.

    Returns:
      The data set. Annotated recordings without features, features without annotations, and a test
      subset without recordings are left out and named in the notes.

    Raises:
      InputError: if a file cannot be read, a subset that has recordings has none with features, an
        instance lacks what its subset needs, or the features are refused by `check_dataset`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder, expected <recording>.npy files and {GRID_FILE}"
        )
    grid = load_grid(folder / GRID_FILE)
    annotations, notes = load_annotations(folder / ANNOTATION_FILE), []
    pairs = overlapping_classes(annotations, overlapping)
    annotations = dataclasses.replace(annotations, overlapping=pairs)
    present = {r.subset for r in annotations.recordings.values() if r.instances}
    train_subset, test_subset = choose_subsets(sorted(present), train_subset, test_subset)
    if points not in (POINTS_OF_FILE, NO_POINTS):
        train = [r for r in annotations.recordings.values() if r.subset == train_subset]
        replaced = sum(one.point_s is not None for r in train for one in r.instances)
        if replaced:
            notes.append(
                f"{replaced} points of the annotations were replaced by drawn ones; train on them "
                f"with data.points={POINTS_OF_FILE!r}"
            )
        annotations = generate_points(
            annotations, distribution=points, seed=seed, subset=train_subset
        )
    names = {
        part: [name for name, r in annotations.recordings.items() if r.subset == subset]
        for part, subset in (("train", train_subset), ("test", test_subset))
    }
    if segments_suffice:
        annotations, filled = fill_points(annotations, names["train"])
        notes += filled
    sharded, left = open_sharded(folder)
    notes += left
    for name in (*names["train"], *names["test"]):
        check_name(name)
    subsets = ", ".join(sorted({recording.subset for recording in annotations.recordings.values()}))
    if not names["train"]:
        raise InputError(
            f"{folder}: no recording of subset {train_subset!r} to train on, the annotations have "
            f"{subsets or 'none'}"
        )
    selected, findings = select_recordings(
        names,
        annotated=annotations.recordings,
        features=sharded or (path.stem for path in folder.glob("*.npy")),
        required=[part for part, listed in names.items() if listed],
    )
    notes += notes_of(folder, findings)
    if not names["test"]:
        of_subset = f" of subset {test_subset!r}" if test_subset else ""
        notes.append(f"no recording{of_subset} to test on, the annotations have {subsets}")

    def load(name: str) -> Recording:
        duration_s = annotations.recordings[name].duration_s
        assert duration_s is not None  # `parse_annotations` requires it
        features = sharded[name] if sharded else open_features([recording_path(folder, name)])
        return Recording(name, features, grid, duration_s)

    partly = [name for name in selected["test"] if annotations.recordings[name].done_s is not None]
    if partly:
        names_of = count_names(partly)
        notes.append(
            f"test: partly done, detections in the rest of them count as wrong: {names_of}"
        )
    dataset = assemble(
        annotations,
        map(load, selected["train"]),
        map(load, selected["test"]),
        ground_truth_of(annotations, selected["test"]),
        labels_only=points == NO_POINTS,
        notes=notes,
    )
    manifest = read_manifest(folder)
    if manifest is not None:
        manifest = dataclasses.replace(manifest, recordings={})
    return dataclasses.replace(dataset, manifest=manifest)


def is_own(folder: str | os.PathLike) -> bool:
    """Whether a folder is in this project's layout: its clock and annotations are at the top."""
    return all((Path(folder) / name).is_file() for name in (GRID_FILE, ANNOTATION_FILE))


def open_sharded(folder: str | os.PathLike) -> tuple[dict[str, ShardFeatures], list[str]]:
    """Opens the features in the shards of a folder, with notes on other files."""
    sharded = open_shards(folder)
    beside = sorted(path.stem for path in Path(folder).glob("*.npy")) if sharded else []
    if not beside:
        return sharded, []
    text = "`tal-jax extract` with the same --output moves into shards what it made"
    return sharded, [f"features beside shards are not read; {text}: {count_names(beside)}"]


def load_grid(path: str | os.PathLike) -> Grid:
    """Reads a `grid.json`; an InputError names the file."""
    try:
        return Grid.from_dict(files.read_json(path))
    except ValueError as error:
        raise InputError(error if str(path) in str(error) else f"{path}: {error}") from error


def recording_path(folder: str | os.PathLike, name: str, suffix: str = ".npy") -> Path:
    """Returns a recording's file in a folder.

    Raises:
      InputError: as `check_name`.
    """
    check_name(name)
    return Path(folder) / f"{name}{suffix}"


def check_name(name: str) -> None:
    """Raises an InputError if a name is no file's name in UTF-8, or leads out of its folder."""
    if name in ("", ".", "..") or not _NOT_IN_NAMES.isdisjoint(name):
        raise InputError(f"recording name {name!r}: expected a file's name without a folder")
    files.check_text(name, "recording name")


def write_folder(
    folder: str | os.PathLike,
    features: Mapping[str, np.ndarray],
    *,
    grid: Grid,
    annotations: Annotations,
) -> None:
    """Writes a folder that `load_folder` reads: features `[T, D]` by name, clock, annotations."""
    folder = Path(folder)
    paths = {name: recording_path(folder, name) for name in features}
    for name, path in paths.items():
        files.write_npy(path, features[name])
    files.write_json(folder / GRID_FILE, grid.to_dict())
    files.write_json(folder / ANNOTATION_FILE, annotations_to_dict(annotations))
