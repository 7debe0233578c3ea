"""Reads and writes label files of other tools.

================  =====================================================  ==========================
kind              content                                                detected by
================  =====================================================  ==========================
``activitynet``   `tal_jax.data.annotations`; also ActivityNet's results  `.json` with "database"
``csv``           a table in seconds, see `text`                         `.csv`
``elan``          ELAN's `.eaf`, one file per recording                  `.eaf`
``label-studio``  Label Studio's tasks                                   `.json`, a list of tasks
``via``           a project of VIA 3                                     `.json` with "project"
``audacity``      Audacity's label track, one file per recording         `.txt` with tabs
================  =====================================================  ==========================

A label without length is a point, any other a segment. An instance with both becomes two labels in
formats that cannot hold both; reading joins them again.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
    parse_annotations,
    with_durations,
)
from tal_jax.data.point_files import read_points
from tal_jax.data.predictions import parse_results
from tal_jax.datasets.own_layout import recording_path
from tal_jax.extraction.video import has_video_suffix, probe
from tal_jax.formats import elan, label_studio, text, via
from tal_jax.formats.labels import collect, find_media, losses

_SUFFIXES = {
    "activitynet": ".json",
    "csv": ".csv",
    "elan": ".eaf",
    "label-studio": ".json",
    "via": ".json",
    "audacity": ".txt",
}
KINDS = tuple(_SUFFIXES)
_ONE_A_FILE = ("elan", "audacity")


def read_labels(
    path: str | os.PathLike,
    *,
    recordings: str | os.PathLike | None = None,
    frame_rate: float | None = None,
    subset: str = "train",
    tiers: Sequence[str] = (),
) -> Annotations:
    """Reads a label file of any kind.

    Args:
      path: the file.
      recordings: the folder of the recordings, for durations and frame rates that the file does not
        contain; the file's folder by default.
      frame_rate: frames per second of the videos, for a kind in frames.
      subset: of recordings where the file has none.
      tiers: names of ELAN's tiers to read; all by default.

    Raises:
      InputError: if the file cannot be read, is of no known kind, or is refused by its reader.
    """
    path = Path(path)
    folder = path.parent if recordings is None else Path(recordings)
    rate = _rates(folder, frame_rate)
    suffix = path.suffix.lower()
    if suffix == ".eaf":
        labels = elan.read_elan(path, tiers=tiers, subset=subset)
    elif suffix == ".csv":
        labels = text.read_csv_labels(path, subset=subset)
    elif suffix == ".txt":
        labels = _read_text(path, subset)
    elif suffix == ".json":
        labels = _read_json(path, rate, subset)
    else:
        raise InputError(f"{path}: unknown suffix, expected .json, .csv, .eaf or .txt")
    return _with_media(labels, folder)


def merge_labels(parts: Sequence[Annotations]) -> Annotations:
    """Merges the recordings of several files, all of them detections or none.

    Raises:
      InputError: if two of them have a recording of the same name.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    recordings: dict[str, RecordingAnnotation] = {}
    sources: dict[str, str] = {}
    for part in parts:
        for name, recording in part.recordings.items():
            if name in recordings:
                raise InputError(
                    f"{name!r} is in {sources[name]} and in {part.source}, expected every "
                    "recording once"
                )
            recordings[name], sources[name] = recording, part.source
    if len({part.detections for part in parts}) > 1:
        raise InputError("both detections and labels, expected files of one kind")
    source = f"{first.source} and {len(parts) - 1} more"
    notes = [note for part in parts for note in part.notes]
    if any(part.point_distribution is not None for part in parts):
        notes.append(f"{source}: how the points were drawn is left out")
    merged = collect(
        source,
        recordings,
        classes=[label for part in parts for label in part.classes],
        detections=first.detections,
    )
    overlapping = dict.fromkeys(pair for part in parts for pair in part.overlapping)
    return dataclasses.replace(merged, overlapping=tuple(overlapping), notes=tuple(notes))


def write_labels(
    path: str | os.PathLike,
    labels: Annotations,
    *,
    kind: str | None = None,
    recordings: str | os.PathLike | None = None,
    frame_rate: float | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Writes a label file.

    Args:
      path: the file, which is replaced if it exists. For a kind with one recording per file it may
        be a folder, that is, have no suffix; every recording then gets a file with its name.
      labels: the labels.
      kind: one of `KINDS`; that of the suffix by default.
      recordings: the folder of the recordings, which the files refer to; that of `path` by default.
      frame_rate: frames per second of the videos, for a kind in frames.
      overwrite: whether to replace files in a folder that this library did not write, or that were
        changed since.

    Returns:
      What was left out or changed, a line each.

    Raises:
      InputError: if the kind is unknown, cannot hold several recordings or a label, the file has
        the name of a video, or files in a folder must not be replaced; nothing is written.
      OSError: if a file cannot be written.
    """
    path = Path(path)
    kind = kind or kind_of(path)
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}, expected one of {', '.join(KINDS)}")
    refuse_videos(path)
    folder = path.parent if recordings is None else Path(recordings)
    rate = _rates(folder, frame_rate)
    if kind in _ONE_A_FILE:
        return _write_each(path, labels, kind, folder, overwrite)
    if kind == "csv":
        return text.write_csv_labels(path, labels)
    if kind == "via":
        return via.write_via(path, labels, folder=folder)
    if kind == "label-studio":
        return label_studio.write_label_studio(path, labels, folder=folder, frame_rate=rate)
    annotations = with_durations(dataclasses.replace(labels, notes=()))
    files.write_json(path, annotations_to_dict(annotations))
    return [*annotations.notes, *(["left out: scores"] if labels.detections else [])]


def refuse_videos(path: str | os.PathLike) -> None:
    """Raises a ValueError for a path with the suffix of a video, where labels are to be written."""
    if has_video_suffix(path):
        raise InputError(f"{path}: the name of a video, expected that of a file of labels")


def kind_of(path: str | os.PathLike) -> str:
    """Returns the kind of a file's suffix.

    >>> kind_of("clip.eaf")
    'elan'
    """
    for kind, suffix in _SUFFIXES.items():
        if Path(path).suffix.lower() == suffix:
            return kind
    raise InputError(
        f"{path}: unknown suffix, expected .json, .csv, .eaf or .txt, or a kind: {', '.join(KINDS)}"
    )


def labels_to_results(labels: Annotations) -> dict[str, Any]:
    """Returns detections as `{recording: [{label, score, segment}]}`."""
    results = {}
    for name, recording in labels.recordings.items():
        results[name] = []
        for one in recording.instances:
            if one.start_s is None:
                raise InputError(
                    f"{labels.source}: {name}: detection of {one.label!r} without a segment"
                )
            segment = [one.start_s, one.end_s]
            results[name].append({"label": one.label, "score": one.score, "segment": segment})
    return results


def _read_results(results: Any, source: str) -> Annotations:
    """Parses what `labels_to_results` returned."""
    recordings = {}
    for name, detections in parse_results(results, source).items():
        instances = [
            Instance(one["label"], *one["segment"], score=one["score"]) for one in detections
        ]
        recordings[name] = RecordingAnnotation(instances=tuple(instances))
    return collect(source, recordings, detections=True)


def _read_json(path: Path, rate: label_studio.FrameRate, subset: str) -> Annotations:
    values = files.read_json(path)
    if isinstance(values, Mapping):
        if "database" in values:
            return parse_annotations(values, source=str(path), strict=False)
        if isinstance(values.get("results"), Mapping):
            return _read_results(values["results"], str(path))
        if "project" in values and "metadata" in values:
            return via.read_via(values, path, subset=subset)
        if any(key.startswith("_via_") for key in values) or any(
            isinstance(entry, Mapping) and "regions" in entry for entry in values.values()
        ):
            raise InputError(
                f"{path}: a project of VIA 2, which is for images; expected one of VIA 3's video "
                "annotator"
            )
    if label_studio.is_tasks(values):
        return label_studio.read_label_studio(values, path, frame_rate=rate, subset=subset)
    raise InputError(
        f"{path}: no known labels, expected ActivityNet's json ('database' or 'results'), "
        "Label Studio's list of tasks, or a project of VIA 3"
    )


def _read_text(path: Path, subset: str) -> Annotations:
    content = files.read_text(path)
    # A track without labels is an empty file.
    if text.is_label_track(content) or not content.strip():
        return text.read_audacity(path, subset=subset)
    points, _ = read_points(path, frame_rates={})
    recordings = {
        name: dataclasses.replace(one, subset=subset) for name, one in points.recordings.items()
    }
    return dataclasses.replace(points, recordings=recordings)


def _write_each(
    path: Path, labels: Annotations, kind: str, folder: Path, overwrite: bool
) -> list[str]:
    into_folder = not path.suffix or path.is_dir()
    if into_folder:
        paths = {name: recording_path(path, name, _SUFFIXES[kind]) for name in labels.recordings}
    elif len(labels.recordings) == 1:
        paths = dict.fromkeys(labels.recordings, path)
    else:
        raise InputError(
            f"{path}: {len(labels.recordings)} recordings, but {kind} holds one per file; expected "
            "a folder to write into"
        )
    contents = {}
    for name, target in paths.items():
        recording = labels.recordings[name]
        if kind == "audacity":
            contents[target] = text.to_audacity(target, recording)
        else:
            media = find_media(folder, name)
            contents[target] = elan.to_elan(
                target, name, recording, classes=labels.classes, media=media
            )

    def is_ours(target: Path) -> bool:
        present = target.read_bytes()
        # A label track cannot hold a mark: only the same content is known to be ours.
        return present == contents[target] or (kind == "elan" and elan.is_unchanged(present))

    if into_folder and not overwrite:
        files.refuse_replacing(contents, ours=is_ours)
    for target, content in contents.items():
        files.write_bytes(target, content)
    if kind == "elan":
        return losses(labels, "subsets", "durations", "classes", "empty")
    return losses(labels, "empty")


def _rates(folder: Path, frame_rate: float | None) -> label_studio.FrameRate:
    if frame_rate is not None and not 0 < frame_rate < math.inf:
        raise InputError(f"frame rate {frame_rate}, expected frames per second above 0")
    return lambda name: frame_rate or _look(folder, name)[1]


def _with_media(labels: Annotations, folder: Path) -> Annotations:
    """Adds durations of the recordings' files where the labels have none."""
    recordings = {}
    for name, recording in labels.recordings.items():
        if recording.duration_s is None:
            duration_s, rate = _look(folder, name)
            recording = dataclasses.replace(
                recording, duration_s=duration_s, frame_rate=recording.frame_rate or rate
            )
        recordings[name] = recording
    return dataclasses.replace(labels, recordings=recordings)


def _look(folder: Path, name: str) -> tuple[float | None, float | None]:
    """Returns duration and frame rate of a recording whose video is in a folder."""
    path = find_media(folder, name)
    if path is None or not has_video_suffix(path):
        return None, None
    try:
        info = probe(path)
    except ValueError:  # PyAV is missing, or cannot read it
        return None, None
    return info.duration_s, info.frame_rate
