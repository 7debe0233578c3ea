"""Reads and writes label files of other tools.

================  =====================================================  ==========================
kind              content                                                detected by
================  =====================================================  ==========================
``activitynet``   `tal_jax.data.annotations`; also ActivityNet's results  `.json` with "database"
``csv``           a table, see `label_table`                             `.csv`, `.tsv`
``elan``          ELAN's `.eaf`, one file per recording                  `.eaf`
``label-studio``  Label Studio's tasks                                   `.json`, a list of tasks
``via``           a project of VIA 3                                     `.json` with "project"
``audacity``      Audacity's label track, one file per recording         `.txt` with tabs
``boris``         a project of BORIS; read also its tables of events     `.boris`
``raven``         Raven's selection table, one file per recording        `.txt` with its columns
``webvtt``        cues, one file per recording                           `.vtt`
================  =====================================================  ==========================

A label without length is a point, any other a segment. An instance with both becomes two labels in
formats that cannot hold both; reading joins them again.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import (
    ROUNDING_S,
    Annotations,
    Instance,
    RecordingAnnotation,
    parse_annotations,
    with_durations,
)
from tal_jax.data.detections import parse_results
from tal_jax.data.point_files import annotations_bytes, is_point_table, read_points
from tal_jax.datasets.own_layout import recording_path
from tal_jax.extraction.video import has_video_suffix
from tal_jax.formats import (
    boris,
    elan,
    foreign,
    label_studio,
    label_table,
    raven,
    text,
    via,
    webvtt,
)
from tal_jax.formats.labels import RecordingNames, collect, find_media, from_zero, losses
from tal_jax.formats.media import Media

_SUFFIXES = {
    "activitynet": ".json",
    "csv": ".csv",
    "elan": ".eaf",
    "label-studio": ".json",
    "via": ".json",
    "audacity": ".txt",
    "boris": ".boris",
    "raven": raven.SUFFIX,
    "webvtt": ".vtt",
}
KINDS = tuple(_SUFFIXES)
_ONE_A_FILE = ("elan", "audacity", "raven", "webvtt")
_KNOWN = ".json, .csv, .eaf, .txt, .boris or .vtt"


def read_labels(
    path: str | os.PathLike,
    *,
    recordings: str | os.PathLike | None = None,
    frame_rate: float | None = None,
    subset: str = "train",
    tiers: Sequence[str] = (),
    features: str | os.PathLike | None = None,
) -> Annotations:
    """Reads a label file of any kind.

    Args:
      path: the file.
      recordings: the folder of the recordings, for durations and frame rates that the file does not
        contain; the file's folder by default.
      frame_rate: frames per second of the videos, for a kind in frames.
      subset: of recordings where the file has none.
      tiers: names of ELAN's tiers, or of BORIS's observations, to read; all by default.
      features: a folder of features of the recordings, whose manifest has their durations.

    Raises:
      InputError: if the file cannot be read, is of no known kind, or is refused by its reader.
    """
    path = Path(path)
    folder = _folder(path, recordings)
    media = Media(folder, features=features, labels=path, frame_rate=frame_rate)
    suffix = path.suffix.lower()
    if suffix == ".eaf":
        labels = elan.read_elan(path, tiers=tiers, subset=subset)
    elif suffix in (".csv", ".tsv", ".tab"):
        labels = _read_table(path, subset, media, tiers)
    elif suffix == ".txt":
        labels = _read_text(path, subset, media, tiers)
    elif suffix == ".vtt":
        labels = webvtt.read_webvtt(path, files.read_text(path), subset=subset)
    elif suffix in (".json", ".boris"):
        labels = _read_json(path, subset, media, tiers)
    else:
        foreign.refuse_file(path)
        raise InputError(f"{path}: unknown suffix, expected {_KNOWN}")
    return _with_media(labels, media)


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
    extras: dict[str, Any] = {}
    lost: dict[str, None] = {}
    for part in parts:
        for key, value in part.extras.items():
            if extras.setdefault(key, value) != value:
                lost[key] = None
    extras = {key: value for key, value in extras.items() if key not in lost}
    lost.pop("version", None)
    if lost:
        notes.append(
            f"{source}: keys that differ between the files, left out: "
            f"{', '.join(ascii(key[:40])[1:-1] for key in lost)}"
        )
    merged = collect(
        source,
        recordings,
        classes=[label for part in parts for label in part.classes],
        detections=first.detections,
    )
    overlapping = dict.fromkeys(pair for part in parts for pair in part.overlapping)
    return dataclasses.replace(
        merged, overlapping=tuple(overlapping), notes=tuple(notes), extras=extras
    )


def write_labels(
    path: str | os.PathLike,
    labels: Annotations,
    *,
    kind: str | None = None,
    recordings: str | os.PathLike | None = None,
    frame_rate: float | None = None,
    overwrite: bool | None = None,
) -> list[str]:
    """Writes a label file.

    Args:
      path: the file. For a kind with one recording per file it may be a folder, that is, have no
        suffix; every recording then gets a file with its name.
      labels: the labels.
      kind: one of `KINDS`; that of the suffix by default.
      recordings: the folder of the recordings, which the files refer to; that of `path` by default.
      frame_rate: frames per second of the videos, for a kind in frames.
      overwrite: whether to replace existing files that this library did not write, or that were
        changed since; by default only the file that `path` names.

    Returns:
      What was left out or changed, a line each.

    Raises:
      InputError: if the kind is unknown, cannot hold several recordings or a label, the file has
        the name of a video, or an existing file must not be replaced; nothing is written.
      OSError: if a file cannot be written.
    """
    path = Path(path)
    kind = kind or kind_of(path)
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}, expected one of {', '.join(KINDS)}")
    refuse_videos(path)
    folder = _folder(path, recordings)
    media = Media(folder, frame_rate=frame_rate)
    labels, changes = (labels, []) if kind in ("activitynet", "csv") else from_zero(labels)
    if kind in _ONE_A_FILE:
        return [*changes, *_write_each(path, labels, kind, folder, overwrite)]
    if kind == "csv":
        content, notes = label_table.to_label_table(labels)
    elif kind == "via":
        content, notes = via.to_via(path, labels, folder=folder)
    elif kind == "boris":
        content, notes = boris.to_project(path, labels, media=media)
    elif kind == "label-studio":
        content, notes = label_studio.to_label_studio(labels, media=media)
    else:
        annotations = with_durations(dataclasses.replace(labels, notes=()))
        content = annotations_bytes(path, annotations)
        notes = [*annotations.notes, *(["left out: scores"] if labels.detections else [])]
    if overwrite is False:
        refuse_replacing({path: content})
    files.write_bytes(path, content)
    return [*changes, *notes]


def refuse_replacing(contents: Mapping[Path, bytes]) -> None:
    """Raises an InputError with the existing files that must not be replaced by these contents.

    A file that this library wrote may be replaced. Only `.eaf` files are marked: of the other
    kinds, only a file with the same content is known to be one.
    """

    def is_ours(path: Path) -> bool:
        present, content = path.read_bytes(), contents[path]
        same = (present == content, via.is_same(present, content), boris.is_same(present, content))
        return any(same) or elan.is_unchanged(present)

    files.refuse_replacing(contents, ours=is_ours)


def refuse_videos(path: str | os.PathLike) -> None:
    """Raises a ValueError for a path with the suffix of a video, where labels are to be written."""
    if has_video_suffix(path):
        raise InputError(f"{path}: the name of a video, expected that of a file of labels")


def kind_of(path: str | os.PathLike) -> str:
    """Returns the kind of a file's suffix.

    >>> kind_of("clip.eaf")
    'elan'
    """
    # That of Raven ends like that of Audacity.
    if Path(path).name.lower().endswith(".selections.txt"):
        return "raven"
    for kind, suffix in _SUFFIXES.items():
        if Path(path).suffix.lower() == suffix:
            return kind
    raise InputError(f"{path}: unknown suffix, expected {_KNOWN}, or a kind: {', '.join(KINDS)}")


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


def _read_json(path: Path, subset: str, media: Media, tiers: Sequence[str]) -> Annotations:
    values = files.read_json(path)
    if boris.is_project(values):
        return boris.read_project(values, path, media=media, subset=subset, observations=tiers)
    if isinstance(values, Mapping):
        if "database" in values:
            return parse_annotations(values, source=str(path), strict=False)
        if isinstance(values.get("results"), Mapping):
            extras = {key: one for key, one in values.items() if key != "results"}
            return dataclasses.replace(_read_results(values["results"], str(path)), extras=extras)
        if "project" in values and "metadata" in values:
            return via.read_via(values, path, subset=subset)
        if any(key.startswith("_via_") for key in values) or any(
            isinstance(entry, Mapping) and "regions" in entry for entry in values.values()
        ):
            raise InputError(
                f"{path}: a project of VIA 2, which is for images; expected one of VIA 3's video "
                "annotator"
            )
    foreign.refuse_json(path, values)
    if label_studio.is_tasks(values):
        return label_studio.read_label_studio(values, path, media=media, subset=subset)
    raise InputError(
        f"{path}: no known labels, expected ActivityNet's json ('database' or 'results'), "
        "Label Studio's list of tasks, or a project of VIA 3 or BORIS"
    )


def _read_table(path: Path, subset: str, media: Media, tiers: Sequence[str]) -> Annotations:
    content = files.read_text(path, allow_utf_16=True)
    if boris.is_table(content):
        return boris.read_table(path, content, media=media, subset=subset, observations=tiers)
    foreign.refuse(path, content)
    return label_table.read_label_table(path, content, subset=subset, media=media)


def _read_text(path: Path, subset: str, media: Media, tiers: Sequence[str]) -> Annotations:
    content = files.read_text(path, allow_utf_16=True)
    if raven.is_raven(content):
        return raven.read_raven(path, content, subset=subset)
    if boris.is_table(content):
        return boris.read_table(path, content, media=media, subset=subset, observations=tiers)
    foreign.refuse(path, content)
    if label_table.is_label_table(content) and not is_point_table(content):
        return label_table.read_label_table(path, content, subset=subset, media=media)
    # A track without labels is an empty file.
    if text.is_label_track(content) or not content.strip():
        return text.read_audacity(path, content, subset=subset)
    points, _ = read_points(path, frame_rates={})
    recordings: dict[str, RecordingAnnotation] = {}
    named = RecordingNames()
    for given, one in points.recordings.items():
        name = named.find(given, str(path))
        found = recordings[name].instances if name in recordings else ()
        recordings[name] = RecordingAnnotation(subset, instances=(*found, *one.instances))
    return dataclasses.replace(points, recordings=recordings)


def _write_each(
    path: Path, labels: Annotations, kind: str, folder: Path, overwrite: bool | None
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
        media = find_media(folder, name)
        if kind == "audacity":
            contents[target] = text.to_audacity(target, recording)
        elif kind == "webvtt":
            contents[target] = webvtt.to_webvtt(target, recording)
        elif kind == "raven":
            contents[target] = raven.to_raven(
                target, recording, media=media, scores=labels.detections
            )
        else:
            contents[target] = elan.to_elan(
                target, name, recording, classes=labels.classes, media=media
            )

    if overwrite is False or (overwrite is None and into_folder):
        refuse_replacing(contents)
    for target, content in contents.items():
        files.write_bytes(target, content)
    if kind == "elan":
        return losses(labels, "subsets", "durations", "classes", "empty")
    return losses(labels, "empty", *(["scores"] if kind == "raven" else []))


def _folder(path: Path, recordings: str | os.PathLike | None) -> Path:
    """Returns the folder of the recordings."""
    if recordings is None:
        return path.parent
    if not Path(recordings).is_dir():
        raise InputError(f"{recordings}: no such folder, expected that of the recordings")
    return Path(recordings)


def _with_media(labels: Annotations, media: Media) -> Annotations:
    """Adds durations of the recordings' files where the labels have none."""
    recordings, late = {}, []
    for name, recording in labels.recordings.items():
        if recording.duration_s is None:
            duration_s = media.duration_s(name)
            recording = dataclasses.replace(
                recording,
                duration_s=duration_s,
                frame_rate=recording.frame_rate or media.video_rate(name),
            )
            if duration_s is not None:
                beyond = sum(_end(one) > duration_s + ROUNDING_S for one in recording.instances)
                late += [ascii(name[:60])[1:-1]] if beyond else []
        recordings[name] = recording
    notes = [f"{labels.source}: {note}" for note in media.notes]
    if late:
        more = f" and {len(late) - 3} more" if len(late) > 3 else ""
        notes.append(
            f"{labels.source}: labels after the end of their recording, as its file or manifest "
            f"has it, in {', '.join(late[:3])}{more}: check the unit of time"
        )
    return dataclasses.replace(labels, recordings=recordings, notes=(*labels.notes, *notes))


def _end(instance: Instance) -> float:
    times = (instance.start_s, instance.end_s, instance.point_s)
    return max((time for time in times if time is not None), default=0.0)
