"""Synthetic features for annotated recordings whose features are not available.

A stand-in has the recordings, durations and instances of real annotations, and random features, in
the file layouts of public codebases. It tests a system from the files to the detections at full
size; no result can be measured on it, which every folder states in `STAND_IN.txt`.

The classes are not trivially separable. Each snippet of an action contains the direction of its
class, strongest in the middle of the action, and perturbed and scaled in each instance. All
snippets of a recording contain the direction of its scene, which correlates with its classes. Some
background contains a part of a class's direction, and all features drift. All of this lies in a
subspace of few dimensions, so that the difficulty does not depend on D through the white noise.

Layouts, with `<v>` for the name of a recording::

    own            <v>.npy, grid.json, annotations.json          see `tal_jax.datasets.own_layout`
    streams        features/{train,test}/{rgb,flow}/<v>.npy, gt.json, split_{train,test}.txt,
                   fps_dict.json, point_gaussian/point_labels.csv                   as for LACP
    joined         features/{train,test}/<v>.npy, gt_full.json, split_{train,test}.txt,
                   point_labels/point_gaussian.csv                   as for HR-Pro and ASM-Loc
    object array   Thumos14reduced-I3D-JOINTFeatures.npy,
                   Thumos14reduced-Annotations/*.npy                              as for W-TALC
    activitynet    {train,test}/<v>.npy, anet_anno_action.json, video_info_new.csv,
                   point_labels/point_gaussian.csv                                as for HR-Pro
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
)
from tal_jax.data.clock import Grid
from tal_jax.data.point_distributions import generate_points
from tal_jax.datasets.own_layout import ANNOTATION_FILE, GRID_FILE, recording_path

Drawn = Iterable[tuple[str, np.ndarray]]  # each recording's name and features

LAYOUTS = ("own", "streams", "joined", "object array", "activitynet")

NOTICE_FILE = "STAND_IN.txt"
_NOTICE = (
    "The features in this folder are made up (synthetic): a stand-in that shows that "
    "a system runs. Nothing measured on them is a result.\n"
)

# Frames of the videos; also a clock.
_FPS = 30.0
_FRAMES = Grid(fps=_FPS, stride_frames=1, window_frames=1)

# Root mean square of each component of a feature; the mean of their sum is about 0.3.
_CLASS = 0.6
_SCENE = 0.25
_DRIFT = 0.35
_JITTER = 0.35
_WHITE = 0.25
_OFFSET = 0.1

_DIRECTIONS = 24  # dimensions of the subspace of all components but white noise
_END_STRENGTH = 0.35  # of an instance at its ends, relative to its middle
_BEND = 0.5  # of the perturbation of an instance, relative to its class's direction
_HARD_STRENGTH = 0.6  # of hard background, relative to an instance
_HARD_RATE = 0.5  # segments of hard background per instance
_DRIFT_SNIPPETS = 16  # between the nodes of the drift
_REPORT_EVERY = 50


def synthesize(
    annotations: Annotations, *, dim: int = 2048, grid: Grid, seed: int = 0
) -> Iterator[tuple[str, np.ndarray]]:
    """Draws the features of annotated recordings, one recording at a time.

    The features of a recording depend on the seed, its name and its annotation only, not on other
    recordings or classes.

    Args:
      annotations: annotations with a segment in every instance.
      dim: features of a snippet, D; 2 or more.
      grid: the clock of the features.
      seed: 0 or more.

    Returns:
      An iterator over each recording's name and its `[T, D]` float32 features, 0 or more, where T
      is `grid.num_snippets` of its duration. Memory is that of one recording.

    Raises:
      ValueError: if an instance has no segment, or `dim` or the seed is out of range.

    >>> recording = RecordingAnnotation("train", 6.4, (Instance("jump", 3.0, 4.0),))
    >>> annotations = Annotations(("jump",), {"r": recording})
    >>> grid = Grid(fps=25, stride_frames=16, window_frames=16)
    >>> [(name, features.shape) for name, features in synthesize(annotations, dim=8, grid=grid)]
    [('r', (10, 8))]
    """
    _check(annotations, dim, seed)
    directions = _rng(seed, "directions").standard_normal((_DIRECTIONS, dim), dtype=np.float32)
    return (
        (name, _draw_features(name, recording, directions, grid=grid, seed=seed))
        for name, recording in annotations.recordings.items()
    )


def write_stand_in(
    folder: str | os.PathLike,
    annotations: Annotations,
    *,
    layout: str,
    grid: Grid,
    dim: int = 2048,
    seed: int = 0,
    dtype: type = np.float32,
    report: Callable[[str], None] = print,
) -> None:
    """Writes synthetic features with the annotation files of a layout.

    Every layout except "object array", which has no points, gets points of the "gaussian" point
    distribution of `generate_points` with the same seed. Frame numbers in the files are at 30
    frames a second. Memory is that of one recording; for "object array", a pickle, that of all.

    Args:
      folder: where to; must not exist or be empty.
      annotations: annotations with a segment in every instance, as `split_subsets` expects them.
      layout: one of `LAYOUTS`; the module's description lists their files.
      grid: the clock of the features; only the layout "own" has a place for it.
      dim: features of a snippet, D; 2 or more, and even for "streams", which halves them.
      seed: 0 or more.
      dtype: of the features, float32 or float16.
      report: prints a line.

    Raises:
      ValueError: if the layout is unknown, the folder holds something, an instance has no segment,
        a recording's name cannot be a file's name, or `dim`, the seed, the dtype or a subset is
        refused; before anything is written.
      OSError: if a file cannot be written.
    """
    folder = Path(folder)
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if np.dtype(dtype) not in (np.float32, np.float16):
        raise ValueError(f"dtype is {np.dtype(dtype)}, expected float32 or float16")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: already holds something, expected a new or an empty folder")
    drawn = synthesize(annotations, dim=dim, grid=grid, seed=seed)
    if layout == "streams" and dim % 2:
        raise ValueError(f"dim is {dim!r}, expected an even number to halve into two streams")
    annotations = generate_points(annotations, distribution="gaussian", seed=seed)
    split = split_subsets(annotations)
    for name in split:
        recording_path(folder, name)  # refuses what cannot be a file's name

    features = _reported(drawn, len(split), dtype, report)
    files.write_bytes(folder / NOTICE_FILE, _NOTICE.encode())
    match layout:
        case "own":
            _write_own(folder, annotations, grid, features)
        case "streams":
            _write_streams(folder, annotations, split, features)
        case "joined":
            _write_joined(folder, annotations, split, features)
        case "object array":
            _write_object_array(folder, annotations, split, features)
        case "activitynet":
            _write_activitynet(folder, annotations, split, features)


def split_subsets(annotations: Annotations) -> dict[str, str]:
    """Returns the role of each recording, whatever the name of its subset.

    The case is ignored. "validation" is for testing if there is a subset "train" or "training"
    (GTEA, BEOID, ActivityNet), and for training otherwise (THUMOS14).

    Returns:
      "train" or "test" for each recording's name.

    Raises:
      ValueError: if a recording's subset is none of these.

    >>> subsets = {"a": "Validation", "b": "Test"}
    >>> recordings = {name: RecordingAnnotation(subsets[name], 9.0) for name in subsets}
    >>> split_subsets(Annotations((), recordings))
    {'a': 'train', 'b': 'test'}
    """
    subsets = {name: r.subset.casefold() for name, r in annotations.recordings.items()}
    roles = {"train": "train", "training": "train", "test": "test"}
    trained = not {"train", "training"}.isdisjoint(subsets.values())
    roles["validation"] = "test" if trained else "train"
    for name, subset in subsets.items():
        if subset not in roles:
            raise ValueError(
                f"{name}: subset {annotations.recordings[name].subset!r}, expected one of "
                f"{', '.join(roles)}"
            )
    return {name: roles[subset] for name, subset in subsets.items()}


def _check(annotations: Annotations, dim: int, seed: int) -> None:
    for what, value, least in (("dim", dim, 2), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{what} is {value!r}, expected a whole number, {least} or more")
    for name, recording in annotations.recordings.items():
        for instance in recording.instances:
            if instance.start_s is None or instance.end_s is None:
                raise ValueError(
                    f"{name}: instance of {instance.label!r} has no segment, expected one in every "
                    "instance"
                )


def _draw_features(
    name: str, recording: RecordingAnnotation, directions: np.ndarray, *, grid: Grid, seed: int
) -> np.ndarray:
    """Features `[T, D]` of one recording."""
    rng = _rng(seed, f"recording/{name}")
    mixture = _draw_mixture(rng, recording, grid=grid, seed=seed)
    features = rng.standard_normal((len(mixture), directions.shape[1]), dtype=np.float32)
    features *= np.float32(_WHITE)
    features += mixture.astype(np.float32) @ directions
    features += np.float32(_OFFSET)
    return np.maximum(features, 0, out=features)


def _draw_mixture(
    rng: np.random.Generator, recording: RecordingAnnotation, *, grid: Grid, seed: int
) -> np.ndarray:
    """All components except white noise, as coordinates in the subspace, `[T, K]`."""
    length = grid.num_snippets(recording.duration_s)
    labels = [instance.label for instance in recording.instances]
    mixture = _draw_scene(rng, sorted(set(labels)), seed=seed) + _draw_drift(rng, length)
    if not labels:
        return mixture
    codes = np.stack([_code(seed, f"class/{label}") for label in labels])
    segments = grid.to_snippets(np.array([(i.start_s, i.end_s) for i in recording.instances]))

    # Hard background: segments with the length and class of an instance, outside all instances.
    like = rng.integers(len(labels), size=rng.poisson(_HARD_RATE * len(labels)))
    spans = np.diff(segments[like])
    starts = rng.uniform(size=spans.shape) * (length - spans)
    hard = np.concatenate([starts, starts + spans], axis=1)
    outside = 1 - _coverage(segments, length).sum(axis=1, keepdims=True).clip(max=1)

    mixture += _draw_actions(rng, segments, codes, length)
    return mixture + _HARD_STRENGTH * outside * _draw_actions(rng, hard, codes[like], length)


def _draw_actions(
    rng: np.random.Generator, segments: np.ndarray, codes: np.ndarray, length: int
) -> np.ndarray:
    """The components `[T, K]` of segments `[N, 2]` in snippets with class codes `[N, K]`."""
    bent = _unit(codes + _BEND * _unit(rng.standard_normal(codes.shape)))
    strength = _CLASS * rng.uniform(0.7, 1.3, size=len(codes))
    return (_coverage(segments, length) * _profile(segments, length) * strength) @ bent


def _draw_scene(rng: np.random.Generator, held: Iterable[str], *, seed: int) -> np.ndarray:
    """A direction `[K]` halfway between that of the recording and those of its classes' scenes."""
    own = _unit(rng.standard_normal(_DIRECTIONS))
    scenes = [_code(seed, f"scene/{label}") for label in held]
    return _SCENE * _unit(own + np.mean(scenes, axis=0) if scenes else own)


def _draw_drift(rng: np.random.Generator, length: int) -> np.ndarray:
    """A component that is smooth in time plus one that is white in time, `[T, K]`."""
    knots = rng.standard_normal((length // _DRIFT_SNIPPETS + 2, _DIRECTIONS))
    before, within = np.divmod(np.arange(length), _DRIFT_SNIPPETS)
    after = within[:, None] / _DRIFT_SNIPPETS
    smooth = (1 - after) * knots[before] + after * knots[before + 1]
    jitter = rng.standard_normal((length, _DIRECTIONS))
    return (_DRIFT * smooth + _JITTER * jitter) / math.sqrt(_DIRECTIONS)


def _coverage(segments: np.ndarray, length: int) -> np.ndarray:
    """The fraction of each snippet `[i, i + 1)` that each segment covers, `[T, N]`."""
    first, last = _overlaps(segments, length)
    return np.maximum(last - first, 0)


def _profile(segments: np.ndarray, length: int) -> np.ndarray:
    """The strength of each action in the middle of its part of each snippet, `[T, N]`."""
    first, last = _overlaps(segments, length)
    position = ((first + last) / 2 - segments[:, 0]) / np.diff(segments)[:, 0]
    return _END_STRENGTH + (1 - _END_STRENGTH) * np.sin(np.pi * position.clip(0, 1))


def _overlaps(segments: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the part of each segment in each snippet; end before start if none."""
    snippets = np.arange(length)[:, None]
    return np.maximum(segments[:, 0], snippets), np.minimum(segments[:, 1], snippets + 1)


def _code(seed: int, what: str) -> np.ndarray:
    """The direction `[K]` of a class or a scene, of length 1."""
    return _unit(_rng(seed, what).standard_normal(_DIRECTIONS))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _rng(seed: int, what: str) -> np.random.Generator:
    digest = hashlib.sha256(what.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def _reported(
    drawn: Drawn,
    count: int,
    dtype: type,
    report: Callable[[str], None],
) -> Iterator[tuple[str, np.ndarray]]:
    for number, (name, features) in enumerate(drawn, start=1):
        yield name, features.astype(dtype, copy=False)
        if number % _REPORT_EVERY == 0 or number == count:
            report(f"{number} of {count} recordings")


def _write_own(
    folder: Path,
    annotations: Annotations,
    grid: Grid,
    features: Drawn,
) -> None:
    for name, array in features:
        files.write_npy(recording_path(folder, name), array)
    files.write_json(folder / GRID_FILE, grid.to_dict())
    files.write_json(folder / ANNOTATION_FILE, annotations_to_dict(annotations))


def _write_streams(
    folder: Path,
    annotations: Annotations,
    split: Mapping[str, str],
    features: Drawn,
) -> None:
    for name, array in features:
        for stream, half in zip(("rgb", "flow"), np.split(array, 2, axis=1), strict=True):
            files.write_npy(recording_path(folder / "features" / split[name] / stream, name), half)
    database = {
        name: {
            "subset": split[name],
            "annotations": [
                {"segment": [str(instance.start_s), str(instance.end_s)], "label": instance.label}
                for instance in recording.instances
            ],
        }
        for name, recording in annotations.recordings.items()
    }
    files.write_json(folder / "gt.json", {"database": database})
    files.write_json(folder / "fps_dict.json", dict.fromkeys(split, _FPS))
    _write_split(folder, split)
    header = ("class", "class_index", "start_frame", "stop_frame", "video_id", "point")
    rows = [
        (
            instance.label,
            annotations.classes.index(instance.label),
            round(_FRAMES.to_snippets(instance.start_s)),
            round(_FRAMES.to_snippets(instance.end_s)),
            name,
            _point_frame(instance),
        )
        for name, instance in _train_instances(annotations, split)
    ]
    files.write_csv(folder / "point_gaussian" / "point_labels.csv", [header, *rows])


def _write_joined(
    folder: Path,
    annotations: Annotations,
    split: Mapping[str, str],
    features: Drawn,
) -> None:
    for name, array in features:
        files.write_npy(recording_path(folder / "features" / split[name], name), array)
    database = {
        name: {
            "subset": recording.subset,
            "duration": recording.duration_s,
            "fps": _FPS,
            "annotations": _plain_segments(recording),
        }
        for name, recording in annotations.recordings.items()
    }
    files.write_json(folder / "gt_full.json", {"version": "stand-in", "database": database})
    _write_split(folder, split)
    _write_points(folder, annotations, split)


def _write_object_array(
    folder: Path,
    annotations: Annotations,
    split: Mapping[str, str],
    features: Drawn,
) -> None:
    recordings = annotations.recordings.values()
    labels = [[instance.label for instance in r.instances] for r in recordings]
    segments = [[[i.start_s, i.end_s] for i in r.instances] for r in recordings]
    subset = {"train": b"validation", "test": b"test"}
    arrays = {
        "videoname": np.array([name.encode() for name in split], dtype=bytes),
        "subset": np.array([subset[role] for role in split.values()]),
        "duration": np.array([[r.duration_s] for r in recordings]),
        "original_fps": np.full(len(split), _FPS),
        "extracted_fps": np.full(len(split), 10),  # what the published files say, whatever the grid
        "classlist": np.array([label.encode() for label in annotations.classes]),
        "labels": _object_array(labels),
        "labels_all": _object_array([sorted(set(held)) for held in labels]),
        "segments": _object_array(segments),
    }
    joined = _object_array([array for _, array in features])
    (folder / "Thumos14reduced-Annotations").mkdir(parents=True)
    np.save(folder / "Thumos14reduced-I3D-JOINTFeatures.npy", joined, allow_pickle=True)
    for key, array in arrays.items():
        path = folder / "Thumos14reduced-Annotations" / f"{key}.npy"
        np.save(path, array, allow_pickle=array.dtype == object)


def _write_activitynet(
    folder: Path,
    annotations: Annotations,
    split: Mapping[str, str],
    features: Drawn,
) -> None:
    for name, array in features:
        files.write_npy(recording_path(folder / split[name], name), array)
    values, rows = {}, []
    for name, recording in annotations.recordings.items():
        frames = round(_FRAMES.to_snippets(recording.duration_s))
        whole = max(frames // 16, 1) * 16  # frames that the published features were made of
        values[name] = {
            "duration_second": recording.duration_s,
            "duration_frame": frames,
            "annotations": _plain_segments(recording),
            "feature_frame": whole,
        }
        subset = {"train": "training", "test": "validation"}[split[name]]
        rows.append((name, frames, recording.duration_s, _FPS, _FPS, subset, whole))
    files.write_json(folder / "anet_anno_action.json", values)
    header = ("video", "numFrame", "seconds", "fps", "rfps", "subset", "featureFrame")
    files.write_csv(folder / "video_info_new.csv", [header, *rows])
    _write_points(folder, annotations, split)


def _plain_segments(recording: RecordingAnnotation) -> list[dict[str, Any]]:
    return [{"label": i.label, "segment": [i.start_s, i.end_s]} for i in recording.instances]


def _write_split(folder: Path, split: Mapping[str, str]) -> None:
    for role in ("train", "test"):
        lines = [f"{name}\n" for name in split if split[name] == role]
        files.write_bytes(folder / f"split_{role}.txt", "".join(lines).encode())


def _write_points(folder: Path, annotations: Annotations, split: Mapping[str, str]) -> None:
    """Writes the points in the format of HR-Pro."""
    header = ("class", "start_frame", "stop_frame", "video_id", "point")
    rows = [
        (
            instance.label,
            _FRAMES.to_snippets(instance.start_s),
            _FRAMES.to_snippets(instance.end_s),
            name,
            _point_frame(instance),
        )
        for name, instance in _train_instances(annotations, split)
    ]
    files.write_csv(folder / "point_labels" / "point_gaussian.csv", [header, *rows])


def _train_instances(
    annotations: Annotations, split: Mapping[str, str]
) -> Iterator[tuple[str, Instance]]:
    for name, recording in annotations.recordings.items():
        if split[name] == "train":
            yield from ((name, instance) for instance in recording.instances)


def _point_frame(instance: Instance) -> float:
    """The frame of a point: whole, unless no whole frame of the instance precedes the point."""
    exact = _FRAMES.to_snippets(instance.point_s)
    whole = math.floor(exact)
    return whole if _FRAMES.to_seconds(whole) >= instance.start_s else exact


def _object_array(values: Sequence[Any]) -> np.ndarray:
    """One entry a value; NumPy would make more dimensions of values of one length."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array
