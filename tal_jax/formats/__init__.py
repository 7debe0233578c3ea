"""Label files of other tools: read, and written.

================  =====================================================  ==========================
kind              what it is                                             told by
================  =====================================================  ==========================
``activitynet``   `tal_jax.data.annotations`; also ActivityNet's results  `.json` with "database"
``csv``           a table in seconds, see `tables`                       `.csv`
``elan``          ELAN's `.eaf`, a file a recording                      `.eaf`
``label-studio``  Label Studio's tasks                                   `.json`, a list of tasks
``via``           a project of VIA 3                                     `.json` with "project"
``audacity``      Audacity's label track, a file a recording             `.txt` with tabs
================  =====================================================  ==========================

A label of no length is a point, one with a length a segment. Where a format has no place for both
in one instance, it gets two labels, which are joined again when they are read.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax.data import files
from tal_jax.data.annotations import Instance, annotations_to_dict
from tal_jax.data.point_files import clicks_by_recording, read_point_file
from tal_jax.data.point_sets import with_durations
from tal_jax.data.raw_annotations import RawAnnotations, RawRecording, read_raw
from tal_jax.extraction.video import probe
from tal_jax.formats import elan, label_studio, tables, via
from tal_jax.formats.labels import Labels, collect, find_media, is_video, losses

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
) -> Labels:
    """Reads a label file of any kind.

    Args:
      path: the file.
      recordings: the folder where the recordings lie, which tell durations and frame rates that the
        file does not; the file's own folder by default.
      frame_rate: frames a second of the videos, for a kind that counts in frames.
      subset: of recordings where the file does not tell it.
      tiers: names of ELAN's tiers to read; all by default.

    Raises:
      ValueError: if the file cannot be read, is of no known kind, or is refused by its reader.
    """
    path = Path(path)
    folder = path.parent if recordings is None else Path(recordings)
    _check_rate(frame_rate)

    def rate(name: str) -> float | None:
        return frame_rate or _look(folder, name)[1]

    suffix = path.suffix.lower()
    if suffix == ".eaf":
        labels = elan.read_elan(path, tiers=tiers, subset=subset)
    elif suffix == ".csv":
        labels = tables.read_table(path, subset=subset)
    elif suffix == ".txt":
        labels = _read_text(path, subset)
    elif suffix == ".json":
        labels = _read_json(path, rate, subset)
    else:
        raise ValueError(f"{path}: unknown suffix, expected .json, .csv, .eaf or .txt")
    return _with_media(labels, folder)


def merge_labels(parts: Sequence[Labels]) -> Labels:
    """Puts the recordings of several files together.

    Raises:
      ValueError: if two of them have a recording of one name, or some but not all have scores.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    recordings: dict[str, RawRecording] = {}
    sources: dict[str, str] = {}
    for part in parts:
        for name, recording in part.annotations.recordings.items():
            if name in recordings:
                raise ValueError(
                    f"{name!r} is in {sources[name]} and in {part.annotations.source}, expected "
                    "every recording once"
                )
            recordings[name], sources[name] = recording, part.annotations.source
    if len({part.scores is None for part in parts}) > 1:
        raise ValueError("detections and labels together, expected files of one kind")
    raw = first.annotations
    merged = collect(
        raw.kind,
        f"{raw.source} and {len(parts) - 1} more",
        recordings,
        classes=[label for part in parts for label in part.annotations.classes],
    )
    overlapping = dict.fromkeys(pair for part in parts for pair in part.annotations.overlapping)
    scores = None
    if first.scores is not None:
        scores = {name: found for part in parts for name, found in part.scores.items()}
    notes = [note for part in parts for note in part.notes]
    if any(part.annotations.point_law is not None for part in parts):
        notes.append(f"{merged.annotations.source}: how the points were drawn is left out")
    return Labels(
        dataclasses.replace(merged.annotations, overlapping=tuple(overlapping)),
        scores,
        tuple(notes),
    )


def write_labels(
    path: str | os.PathLike,
    labels: Labels,
    *,
    kind: str | None = None,
    recordings: str | os.PathLike | None = None,
    frame_rate: float | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Writes a label file.

    Args:
      path: the file, which is replaced where it exists. For a kind that has one recording a file it
        may be a folder, that is, have no suffix; every recording then gets a file named after it.
      labels: what to write.
      kind: one of `KINDS`; told by the suffix by default.
      recordings: the folder where the recordings lie, which the files then name; that of `path` by
        default.
      frame_rate: frames a second of the videos, for a kind that counts in frames.
      overwrite: whether existing files in a folder are replaced even if they were not written here,
        or changed since.

    Returns:
      What was left out or changed, a line each.

    Raises:
      ValueError: if the kind is not known, or has no place for several recordings or for a label,
        the file would be a video, or files in a folder must not be replaced; nothing is written.
      OSError: if a file cannot be written.
    """
    path = Path(path)
    kind = kind or kind_of(path)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}, expected one of {', '.join(KINDS)}")
    refuse_videos(path)
    folder = path.parent if recordings is None else Path(recordings)
    _check_rate(frame_rate)
    if kind in _ONE_A_FILE:
        return _write_each(path, labels, kind, folder, overwrite)
    if kind == "csv":
        return tables.write_table(path, labels)
    if kind == "via":
        return via.write_via(path, labels, folder=folder)
    if kind == "label-studio":
        return label_studio.write_label_studio(
            path,
            labels,
            folder=folder,
            frame_rate=lambda name: frame_rate or _look(folder, name)[1],
        )
    annotations, notes = with_durations(labels.annotations)
    files.write_json(path, annotations_to_dict(annotations))
    return notes + (["left out: scores"] if labels.scores is not None else [])


def refuse_videos(path: str | os.PathLike) -> None:
    """Raises a ValueError where labels would be written in the place of a video."""
    if is_video(Path(path)):
        raise ValueError(f"{path}: the name of a video, expected that of a file of labels")


def kind_of(path: str | os.PathLike) -> str:
    """Returns the kind that a file's suffix stands for.

    Raises:
      ValueError: if it stands for none.

    >>> kind_of("clip.eaf")
    'elan'
    """
    for kind, suffix in _SUFFIXES.items():
        if Path(path).suffix.lower() == suffix:
            return kind
    raise ValueError(
        f"{path}: unknown suffix, expected .json, .csv, .eaf or .txt, or a kind: {', '.join(KINDS)}"
    )


def results_to_labels(results: Mapping[str, Any], source: str) -> Labels:
    """Makes labels with scores of detections, `{recording: [{label, score, segment}]}`.

    Raises:
      ValueError: if one is no detection.
    """
    recordings, scores = {}, {}
    for name, found in results.items():
        where = f"{source}: {name}"
        if not isinstance(found, list):
            raise ValueError(f"{where}: detections are {found!r}, expected a list")
        instances = []
        for one in found:
            segment = files.get_value(one, "segment", list, where)
            if len(segment) != 2:
                raise ValueError(f"{where}: segment is {segment!r}, expected [start, end]")
            times = (tables.number(time, f"{where}: segment") for time in segment)
            instances.append(Instance(files.get_value(one, "label", str, where), *times))
        recordings[name] = RawRecording(instances=tuple(instances))
        scores[name] = tuple(
            tables.number(files.get_value(one, "score", object, where), f"{where}: score")
            for one in found
        )
    return Labels(collect("detections", source, recordings).annotations, scores)


def labels_to_results(labels: Labels) -> dict[str, Any]:
    """The reverse of `results_to_labels`.

    Raises:
      ValueError: if an instance has no segment.
    """
    results = {}
    for name, recording in labels.annotations.recordings.items():
        results[name] = []
        for one, score in zip(recording.instances, labels.scores[name], strict=True):
            if one.start_s is None:
                raise ValueError(
                    f"{labels.annotations.source}: {name}: detection of {one.label!r} without a "
                    "segment"
                )
            segment = [one.start_s, one.end_s]
            results[name].append({"label": one.label, "score": score, "segment": segment})
    return results


def _read_json(path: Path, rate: label_studio.FrameRate, subset: str) -> Labels:
    values = files.read_json(path)
    if isinstance(values, Mapping):
        if "database" in values:
            return Labels(read_raw(path))
        if isinstance(values.get("results"), Mapping):
            return results_to_labels(values["results"], str(path))
        if "project" in values and "metadata" in values:
            return via.read_via(values, path, subset=subset)
        if any(key.startswith("_via_") for key in values) or any(
            isinstance(entry, Mapping) and "regions" in entry for entry in values.values()
        ):
            raise ValueError(
                f"{path}: a project of VIA 2, which is for images; expected one of VIA 3's video "
                "annotator"
            )
    if label_studio.is_tasks(values):
        return label_studio.read_label_studio(values, path, frame_rate=rate, subset=subset)
    raise ValueError(
        f"{path}: no labels known here, expected ActivityNet's json ('database' or 'results'), "
        "Label Studio's list of tasks, or a project of VIA 3"
    )


def _read_text(path: Path, subset: str) -> Labels:
    text = files.read_text(path)
    # A track that holds nothing yet is an empty file.
    if tables.is_label_track(text) or not text.strip():
        return tables.read_audacity(path, recording=path.stem, subset=subset)
    found = clicks_by_recording(read_point_file(path), {})
    recordings = {
        name: RawRecording(subset=subset, instances=clicks) for name, clicks in found.items()
    }
    return collect("click list", str(path), recordings)


def _write_each(path: Path, labels: Labels, kind: str, folder: Path, overwrite: bool) -> list[str]:
    raw = labels.annotations
    into_folder = not path.suffix or path.is_dir()
    if into_folder:
        paths = {name: path / _file_name(name, _SUFFIXES[kind]) for name in raw.recordings}
    elif len(raw.recordings) == 1:
        paths = dict.fromkeys(raw.recordings, path)
    else:
        raise ValueError(
            f"{path}: {len(raw.recordings)} recordings, of which {kind} holds one a file; expected "
            "a folder to write into"
        )
    contents = {target: _content(target, raw, name, kind, folder) for name, target in paths.items()}

    def is_ours(target: Path) -> bool:
        present = target.read_bytes()
        # A label track has no place for a mark: only the same content is known to be ours.
        return present == contents[target] or (kind == "elan" and elan.is_unchanged(present))

    if into_folder and not overwrite:
        files.refuse_replacing(contents, ours=is_ours)
    for target, content in contents.items():
        files.write_bytes(target, content)
    if kind == "elan":
        return losses(labels, "subsets", "durations", "classes", "empty")
    return losses(labels, "empty")


def _content(path: Path, raw: RawAnnotations, name: str, kind: str, folder: Path) -> bytes:
    recording = raw.recordings[name]
    if kind == "audacity":
        return tables.to_audacity(path, recording)
    media = find_media(folder, name)
    return elan.to_elan(path, name, recording, classes=raw.classes, media=media)


def _check_rate(frame_rate: float | None) -> None:
    if frame_rate is not None and not 0 < frame_rate < math.inf:
        raise ValueError(f"frame rate {frame_rate}, expected frames a second above 0")


def _file_name(name: str, suffix: str) -> str:
    if not name or set(name) & set("/\\\0:"):
        raise ValueError(f"recording name {name!r}: expected a file's name without a folder")
    return name + suffix


def _with_media(labels: Labels, folder: Path) -> Labels:
    """Fills in durations that the recordings' own files tell and the labels do not."""
    recordings = {}
    for name, recording in labels.annotations.recordings.items():
        if recording.duration_s is None:
            duration_s, rate = _look(folder, name)
            recording = dataclasses.replace(
                recording, duration_s=duration_s, frame_rate=recording.frame_rate or rate
            )
        recordings[name] = recording
    raw = dataclasses.replace(labels.annotations, recordings=recordings)
    return dataclasses.replace(labels, annotations=raw)


def _look(folder: Path, name: str) -> tuple[float | None, float | None]:
    """Returns duration and frame rate of a recording whose video lies in a folder."""
    path = find_media(folder, name)
    if path is None or not is_video(path):
        return None, None
    try:
        info = probe(path)
    except ValueError:  # no reader of videos here, or none that it can read
        return None, None
    return info.duration_s, info.frame_rate
