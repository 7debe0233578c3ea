"""This project's layout of a data set: a folder of features, their clock and their annotations.

The files of the folder::

    grid.json            {"fps": 25, "stride_frames": 16, "window_frames": 16}
    annotations.json     see `tal_jax.data.annotations`
    recording_1.npy      [T, D] float32 or float16
    recording_2.npy      ...

Features are read when needed.
"""

import os
from collections.abc import Mapping
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
from tal_jax.data.recordings import Dataset, Recording, assemble
from tal_jax.datasets.findings import notes_of, select_recordings

GRID_FILE = "grid.json"
ANNOTATION_FILE = "annotations.json"


def load_folder(
    folder: str | os.PathLike,
    *,
    annotations: Annotations | str | os.PathLike | None = None,
    train_subset: str = "train",
    test_subset: str = "test",
    labels_only: bool = False,
) -> Dataset:
    """Loads a folder of features and the annotations of its recordings.

    Args:
      folder: the folder of the features and their `grid.json`.
      annotations: an annotation file, or annotations, such as those with points of
        `generate_points`; `annotations.json` in the folder by default.
      train_subset: subset of the training recordings. Each of their instances needs a point.
      test_subset: subset of the test recordings. Each of their instances needs a segment. Published
        files differ: GTEA, BEOID and ActivityNet test on "validation", THUMOS14 trains on
        "Validation" and tests on "Test".
      labels_only: training recordings get their video classes and no points; their instances need
        neither a point nor a segment.

    Returns:
      The data set. Annotated recordings without features, features without annotations, and a test
      subset without recordings are left out and named in the notes.

    Raises:
      InputError: if a file cannot be read, a subset that has recordings has none with features, an
        instance lacks what its subset needs, or the features are refused by `check_dataset`.
    """
    if train_subset == test_subset:
        raise InputError(f"subset {test_subset!r} is both trained and tested on, expected two")
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder, expected <recording>.npy files and {GRID_FILE}"
        )
    grid = load_grid(folder / GRID_FILE)
    if annotations is None:
        annotations = folder / ANNOTATION_FILE
    if not isinstance(annotations, Annotations):
        annotations = load_annotations(annotations)

    names = {
        part: [name for name, r in annotations.recordings.items() if r.subset == subset]
        for part, subset in (("train", train_subset), ("test", test_subset))
    }
    paths = {name: recording_path(folder, name) for listed in names.values() for name in listed}
    subsets = ", ".join(sorted({recording.subset for recording in annotations.recordings.values()}))
    if not names["train"]:
        raise InputError(
            f"{folder}: no recording of subset {train_subset!r} to train on, the annotations have "
            f"{subsets or 'none'}"
        )
    selected, findings = select_recordings(
        names,
        annotated=annotations.recordings,
        features=(path.stem for path in folder.glob("*.npy")),
        required=[part for part, listed in names.items() if listed],
    )
    notes = notes_of(folder, findings)
    if not names["test"]:
        of_subset = f" of subset {test_subset!r}" if test_subset else ""
        notes.append(f"no recording{of_subset} to test on, the annotations have {subsets}")

    def load(name: str) -> Recording:
        duration_s = annotations.recordings[name].duration_s
        assert duration_s is not None  # `parse_annotations` requires it
        return Recording(name, open_features([paths[name]]), grid, duration_s)

    return assemble(
        annotations,
        map(load, selected["train"]),
        map(load, selected["test"]),
        ground_truth_of(annotations, selected["test"]),
        labels_only=labels_only,
        notes=notes,
    )


def load_grid(path: str | os.PathLike) -> Grid:
    """Reads a `grid.json`; an InputError names the file."""
    try:
        return Grid.from_dict(files.read_json(path))
    except ValueError as error:
        raise InputError(error if str(path) in str(error) else f"{path}: {error}") from error


def recording_path(folder: str | os.PathLike, name: str, suffix: str = ".npy") -> Path:
    """Returns a recording's file in a folder.

    Raises:
      InputError: if the name is no file's name, or would be outside the folder.
    """
    if not name or name in (".", "..") or set(name) & set("/\\\0:"):
        raise InputError(f"recording name {name!r}: expected a file's name without a folder")
    return Path(folder) / f"{name}{suffix}"


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
