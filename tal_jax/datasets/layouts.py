"""Detects the folder layouts of public codebases by the names of their files.

The files, at any depth below the folder::

    train/rgb/<recording>.npy, train/flow/...     separate streams, [T, D/2] each (LACP)
    train/<recording>.npy                         joined streams, [T, D] (HR-Pro, ASM-Loc)
    <recording>.npy                               the same without folders of subsets
    features-0000-of-0064.arrow, ...              the same in shards (`tal_jax.data.shards`)
    one .npy and a folder *-Annotations/          an array of objects, one per recording (W-TALC)

    gt_full.json, gt.json, anet_anno_action.json  annotations, see `tal_jax.data.annotation_files`
    split_train.txt, split_test.txt               the recordings of each part
    point*.csv, or in a folder point*/            points, see `tal_jax.data.point_files`
    fps_dict.json                                 frame rates, the unit of the points
    Ambiguous_test.txt                            segments of ambiguous class (THUMOS14)
    grid.json                                     the clock, see `tal_jax.data.clock`

Of a folder in this project's layout (`tal_jax.datasets.own_layout`), only files at its top are
read. Nothing is renamed, and features stay in their files.
"""

import dataclasses
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import annotation_files
from tal_jax.data.annotations import Annotations
from tal_jax.data.clock import Grid
from tal_jax.data.manifest import Entry
from tal_jax.data.point_sets import known_frame_rates
from tal_jax.data.shards import ShardFeatures
from tal_jax.datasets.own_layout import (
    ANNOTATION_FILE,
    GRID_FILE,
    is_own,
    load_grid,
    open_sharded,
)
from tal_jax.datasets.selection import PARTS, choose_subsets

STREAMS = ("rgb", "flow")
KINDS = {
    "own": "one .npy a recording with grid.json (this project's layout)",
    "shards": "features in shards with grid.json (this project's layout)",
    "streams": "rgb and flow apart (LACP's layout)",
    "joined": "one .npy a recording (HR-Pro's and ASM-Loc's layout)",
    "object array": "one array of objects for all recordings (W-TALC's layout)",
}
# Names of annotation files, in order of preference.
_ANNOTATION_NAMES = ("gt_full.json", "gt.json", "anet_anno_action.json", ANNOTATION_FILE)
_DEPTH = 5
_RATES_FILE = "fps_dict.json"
AMBIGUOUS = "Ambiguous"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The files of a data set's folder; their content is not checked yet."""

    folder: Path
    kind: str  # a key of `KINDS`
    description: str  # of what was found, in one line
    # By recording and stream; "" without separate streams. Two files of one name are two entries.
    features: dict[str, dict[str, list[Path]]]
    parts: dict[str, str]  # "train", "test" or "validation", of recordings in such a folder
    array: Path | None  # W-TALC's single file of features
    array_names: tuple[str, ...]  # of its recordings, in its order, whichever annotations are read
    shards: dict[str, ShardFeatures]  # by recording, of features in shards
    annotations: Annotations  # with the names of the features
    names: dict[str, tuple[str, ...]]  # to "train" and to "test" on, with or without features
    point_files: tuple[Path, ...]  # all, or the chosen one
    point_file: str  # the chosen one, relative to the folder; "" if none is chosen
    frame_rates: dict[str, float]  # of the original videos, the unit of point files
    ambiguous: dict[str, tuple[tuple[float, float], ...]]  # segments in seconds, by recording
    grid: Grid  # the clock, of the folder or else of the config
    has_grid: bool  # whether the clock is that of the folder
    notes: tuple[str, ...] = ()

    @property
    def entries(self) -> dict[str, Entry]:
        """How features in shards were extracted, where that is known."""
        return {name: one.entry for name, one in self.shards.items() if one.entry is not None}


def find_layout(
    folder: str | os.PathLike,
    *,
    grid: Grid,
    annotations: str = "",
    point_file: str = "",
    train_subset: str = "",
    test_subset: str = "",
    split: str = "files",
    allow_pickle: bool = False,
) -> Layout:
    """Detects the layout of a folder, without reading any features.

    Args:
      folder: the folder of a data set.
      grid: the clock of the features, where the folder has none.
      annotations: the annotation file (or W-TALC's folder), relative to `folder`; "" searches one.
      point_file: the point file, relative to `folder`; "" for the only one.
      train_subset: see `choose_subsets`.
      test_subset: see `choose_subsets`.
      split: "files" uses split files where there are any, "subsets" does not.
      allow_pickle: see `annotation_files.read_annotations`.

    Raises:
      InputError: if there are no features or no annotations, a file cannot be read, or recordings
        cannot be assigned to training or testing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected features and annotations in it")
    check_split(split)
    own = not annotations and is_own(folder)
    files = _own_files(folder) if own else list(_walk(folder))
    arrays = [path for path in files if path.suffix == ".npy"]
    wtalc = sorted({path.parent for path in arrays if path.name == "videoname.npy" and not own})
    arrays = [path for path in arrays if path.parent not in wtalc]
    one = arrays[0] if wtalc and len(arrays) == 1 else None
    if annotations:
        source = folder / annotations
    elif one:
        source = wtalc[0]
    else:
        source = _find_annotations(folder, files, wtalc)
    read = annotation_files.read_annotations(source, allow_pickle=allow_pickle)
    if one and not allow_pickle:
        raise InputError(
            f"{one}: holds Python objects, and reading them can run code of whoever made them; "
            "where you trust the source, allow it by --set data.allow_pickle=True"
        )
    array_names = _array_names(folder, source, wtalc) if one else ()
    shards, notes = open_sharded(folder)
    features, parts = ({}, {}) if one or shards else _by_recording(folder, arrays)
    features |= {name: {} for name in shards}  # without paths
    if not features and one is None:
        raise InputError(f"{folder}: no features, expected {', or '.join(KINDS.values())}")
    streams = any(stream in STREAMS for paths in features.values() for stream in paths)
    ours = source.name == ANNOTATION_FILE and (folder / GRID_FILE).is_file()
    kind = "object array" if one else "streams" if streams else "own" if ours else "joined"
    kind = "shards" if shards else kind
    present = {path.name: path for path in reversed(files)}  # the one nearest to the top
    read, ambiguous = _named_as(read, [*features, *array_names]), {}
    if not own:
        read, ambiguous = _without_ambiguous(read)
    if "Ambiguous_test.txt" in present:
        ambiguous |= annotation_files.read_ambiguous(present["Ambiguous_test.txt"])
    splits = {part: f"split_{part}.txt" for part in ("train", "test")}
    splits = {part: present[name] for part, name in splits.items() if name in present}
    points = tuple(path for path in files if _is_point_file(path, folder))
    found = [f"{len(features) or len(array_names)} recordings", source.name]
    found += [path.name for path in splits.values()]
    found += [str(path.relative_to(folder)) for path in points]
    return Layout(
        folder=folder,
        kind=kind,
        description=f"{KINDS[kind]}: {', '.join(found)}",
        features=features,
        parts=parts,
        array=one,
        array_names=array_names,
        shards=shards,
        annotations=read,
        names=_split(
            folder, read, parts, splits if split == "files" else {}, train_subset, test_subset
        ),
        point_files=(folder / point_file,) if point_file else points,
        point_file=point_file,
        frame_rates=known_frame_rates(read, present.get(_RATES_FILE)),
        ambiguous=ambiguous,
        grid=load_grid(present[GRID_FILE]) if GRID_FILE in present else grid,
        has_grid=GRID_FILE in present,
        notes=tuple(notes),
    )


def check_split(split: str) -> None:
    """Raises an InputError for another `data.split` than "files" or "subsets"."""
    if split not in ("files", "subsets"):
        raise InputError(f"config: data.split={split!r}; expected 'files' or 'subsets'")


def paths_of(layout: Layout, name: str) -> tuple[Path, ...]:
    """Returns the files of a recording in the order of their columns, possibly none.

    Raises:
      InputError: if a stream is missing, or two files have the same name.
    """
    streams = layout.features.get(name, {})
    for paths in streams.values():
        if len(paths) > 1:
            raise InputError(f"{name}: {paths[0]} and {paths[1]}; expected one file")
    if layout.kind != "streams" or not streams:
        return tuple(paths[0] for paths in streams.values())
    for stream in STREAMS:
        if stream not in streams:
            there = next(iter(streams.values()))[0]
            raise InputError(f"{name}: {there} without {stream}, expected both streams")
    return tuple(streams[stream][0] for stream in STREAMS)


def load_object_array(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads W-TALC's single file of features into memory: an array of objects cannot be mapped.

    Reading can run code in the file; `find_layout` refuses such a file without `allow_pickle`.
    """
    array = annotation_files.load_array(path, allow_pickle=True)
    if not array.ndim or len(array) != len(names):
        size = len(array) if array.ndim else "no"
        raise InputError(f"{path}: {size} arrays, expected one for each of {len(names)} names")
    # Float64 comes from joining streams; networks use float32.
    arrays = (np.asarray(one) for one in array)
    return {
        name: one.astype(np.float32) if one.dtype == np.float64 else one
        for name, one in zip(names, arrays, strict=True)
    }


# --- search ---


def _walk(folder: Path) -> Iterator[Path]:
    """Yields all relevant files, by depth and then by name."""
    level = [folder]
    for _ in range(_DEPTH):
        below = []
        for parent in level:
            with os.scandir(parent) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            # Names with these endings count as files: a call of is_file for each is slow.
            endings = (".npy", ".json", ".csv", ".txt")
            yield from (parent / e.name for e in found if e.name.endswith(endings))
            below += [
                parent / e.name
                for e in found
                if not e.name.endswith(endings) and not e.name.startswith(".") and e.is_dir()
            ]
        level = below


def _own_files(folder: Path) -> list[Path]:
    """What is read of a folder in this project's layout, besides shards and a named point file."""
    names = ("*.npy", ANNOTATION_FILE, GRID_FILE, _RATES_FILE)
    return [path for name in names for path in sorted(folder.glob(name))]


def _find_annotations(folder: Path, files: Sequence[Path], wtalc: Sequence[Path]) -> Path:
    known = [path for name in _ANNOTATION_NAMES for path in files if path.name == name]
    known += [path for path in files if path.match("activity_net*.json")]
    known += wtalc
    if not known:
        raise InputError(
            f"{folder}: no annotations, expected {', '.join(_ANNOTATION_NAMES)}, "
            "activity_net*.json or a folder with videoname.npy; name a file by data.annotations"
        )
    return known[0]


def _array_names(folder: Path, source: Path, wtalc: Sequence[Path]) -> tuple[str, ...]:
    """The names in the order of W-TALC's single file of features, beside its annotations."""
    if source not in wtalc and len(wtalc) > 1:
        raise InputError(
            f"{folder}: videoname.npy in {' and in '.join(path.name for path in wtalc)}, expected "
            "one, since its names are in the order of the array of features"
        )
    folder = source if source in wtalc else wtalc[0]
    return tuple(annotation_files.read_video_names(folder))


def _split(
    folder: Path,
    annotations: Annotations,
    parts: Mapping[str, str],
    splits: Mapping[str, Path],
    train_subset: str,
    test_subset: str,
) -> dict[str, tuple[str, ...]]:
    """Returns the names to train and to test on, from split files, else from subsets or folders."""
    chosen = {part: annotation_files.read_split(path) for part, path in splits.items()}
    if len(chosen) < 2:
        recordings = annotations.recordings
        subset_of = {name: r.subset or parts.get(name, "") for name, r in recordings.items()}
        present = sorted({subset_of[n] for n, one in recordings.items() if one.instances} - {""})
        subsets = choose_subsets(present, train_subset, test_subset)
        for part, subset in zip(("train", "test"), subsets, strict=True):
            names = tuple(name for name in recordings if subset_of[name] == subset and subset)
            chosen.setdefault(part, names)
    both = set(chosen["train"]) & set(chosen["test"])
    if both:
        raise InputError(f"{folder}: {min(both)!r} is both trained and tested on")
    return chosen


def _by_recording(
    folder: Path, arrays: Sequence[Path]
) -> tuple[dict[str, dict[str, list[Path]]], dict[str, str]]:
    features: dict[str, dict[str, list[Path]]] = {}
    parts = {}
    for path in arrays:
        above = [part.casefold() for part in path.relative_to(folder).parts[:-1]]
        stream = next((part for part in above if part in STREAMS), "")
        features.setdefault(path.stem, {}).setdefault(stream, []).append(path)
        part = next((PARTS[part] for part in above if part in PARTS), "")
        if part:
            parts[path.stem] = part
    return features, parts


def _is_point_file(path: Path, folder: Path) -> bool:
    near = path.relative_to(folder).parts[-2:]
    named = any(re.search("(?<!key)(?<!check)point", part.casefold()) for part in near)
    return path.suffix in (".csv", ".txt") and named


def _named_as(annotations: Annotations, features: Collection[str]) -> Annotations:
    """Adds the prefix "v_" of ActivityNet's video files, which its annotation file lacks."""
    names = annotations.recordings
    if any(n in features for n in names) or not any(f"v_{n}" in features for n in names):
        return annotations
    recordings = {f"v_{name}": one for name, one in names.items()}
    return dataclasses.replace(annotations, recordings=recordings)


def _without_ambiguous(
    annotations: Annotations,
) -> tuple[Annotations, dict[str, tuple[tuple[float, float], ...]]]:
    """Separates instances of the class "Ambiguous", which is no class to learn."""
    if AMBIGUOUS not in annotations.classes:
        return annotations, {}
    apart, recordings = {}, {}
    for name, recording in annotations.recordings.items():
        kept = [one for one in recording.instances if one.label != AMBIGUOUS]
        other = [one for one in recording.instances if one.label == AMBIGUOUS]
        if other:
            apart[name] = tuple((one.start_s, one.end_s) for one in other)
        recordings[name] = dataclasses.replace(recording, instances=tuple(kept))
    classes = tuple(label for label in annotations.classes if label != AMBIGUOUS)
    return dataclasses.replace(annotations, recordings=recordings, classes=classes), apart
