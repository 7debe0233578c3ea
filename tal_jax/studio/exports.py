"""Writes the events of a project into files of other tools, and cuts clips of them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax import formats
from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.detections import Entries
from tal_jax.datasets.convert import to_submission
from tal_jax.datasets.own_layout import recording_path
from tal_jax.report import event_tables, subtitles
from tal_jax.report.event_clips import cut_events, plan_clips
from tal_jax.studio.project import Project
from tal_jax.studio.recordings import Source
from tal_jax.studio.review import Review, durations
from tal_jax.studio.store import Store

# Besides `formats.KINDS`: subtitles, and the table of `tal-jax events` with its summary.
SUBTITLES, TABLES = "srt", "events"
TITLES = {
    **{"activitynet": "ActivityNet JSON", "csv": "Table of labels (csv)", "elan": "ELAN"},
    **{"label-studio": "Label Studio", "via": "VIA 3", "audacity": "Audacity", "boris": "BORIS"},
    **{"raven": "Raven", "webvtt": "WebVTT", SUBTITLES: "Subtitles (SRT)"},
    TABLES: "Table of events and summary (csv)",
}
FORMATS = (*formats.KINDS, SUBTITLES, TABLES)
_WITH_MEDIA = ("boris", "elan", "label-studio", "via")  # refer to files of one folder
_FILES = {
    **{"activitynet": "events.json", "csv": "labels.csv", "label-studio": "label-studio.json"},
    **{"via": "via.json", "boris": "events.boris"},
}


def export(
    project: Project,
    review: Review,
    store: Store,
    sources: Sequence[Source],
    kinds: Sequence[str],
    *,
    clips: bool = False,
) -> dict[str, Any]:
    """Writes the events of the last training with the settings of the project, into a new folder.

    Before there is a training, the labels are written.

    Args:
      project: whose `exports` the folder is in.
      review: of its runs.
      store: of its labels.
      sources: the recordings.
      kinds: formats, of `FORMATS`.
      clips: cut each event out of its video.

    Returns:
      "files", relative to the project, and "notes" on what a format cannot hold.

    Raises:
      InputError: if a format is unknown, or there is nothing to write.
      OSError: if a file cannot be written.
    """
    for kind in kinds:
        if kind not in FORMATS:
            raise InputError(f"format {kind!r}, expected one of {', '.join(FORMATS)}")
    if not kinds and not clips:
        raise InputError(f"no format given, expected some of {', '.join(FORMATS)}, or clips")
    labels, notes = store.annotations(), []
    lengths_s = durations(project, [source.name for source in sources], labels)
    if project.finished():
        if newer := project.count_answers(labels):
            missing = "answers since the last training that are not in these events"
            notes.append(f"{missing}: {newer}; train again")
        found = review.events(project.file.settings)
        events: dict[str, Entries] = {name: one.entries for name, one in found.items()}
        labels = _annotations(events, review.last().classes, lengths_s, sources)
    else:
        notes.append("no training has ended yet: these are the labels")
        events = {
            name: [_entry(one) for one in recording.instances if _has_time(one)]
            for name, recording in labels.recordings.items()
        }
    folder = project.exports / time.strftime("%Y-%m-%d_%H-%M-%S")
    while folder.exists():
        folder = folder.with_name(f"{folder.name}+")
    for kind in kinds:
        notes += _write(folder, kind, labels, events, lengths_s, sources)
    if clips:
        notes += _cut(folder / "clips", events, sources)
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "folder": str(folder),
        "files": [path.relative_to(project.folder).as_posix() for path in written],
        "notes": list(dict.fromkeys(notes)),
    }


def _write(
    folder: Path,
    kind: str,
    labels: Annotations,
    events: Mapping[str, Entries],
    lengths_s: Mapping[str, float | None],
    sources: Sequence[Source],
) -> list[str]:
    """Writes one format; returns what it cannot hold."""
    if kind == TABLES:
        summaries = event_tables.summarize(events, labels.classes, lengths_s)
        files.write_csv(folder / "events.csv", event_tables.event_rows(events))
        rows = event_tables.summary_rows(summaries)
        files.write_csv(folder / "events.summary.csv", rows)
        return []
    if kind == SUBTITLES:
        for name, entries in events.items():
            path = recording_path(folder / SUBTITLES, name, ".srt")
            subtitles.write_srt(path, [_scored(one) for one in entries], threshold=0.0)
        points = sum(
            one["segment"][0] == one["segment"][1] for entries in events.values() for one in entries
        )
        return [f"{kind}: points have no duration and are left out: {points}"] if points else []
    if kind == "activitynet" and labels.detections:
        submission = to_submission(formats.labels_to_results(labels))
        files.write_json(folder / _FILES[kind], submission)
        return []
    target = folder / _FILES[kind] if kind in _FILES else folder / kind
    places = {source.path.parent for source in sources}
    beside = places.pop() if len(places) == 1 else None
    notes = formats.write_labels(target, labels, kind=kind, recordings=beside)
    if beside is None and kind in _WITH_MEDIA:
        notes = [*notes, "without the files of the recordings, which are in several folders"]
    return [f"{kind}: {note}" for note in notes]


def _annotations(
    events: Mapping[str, Entries],
    classes: Sequence[str],
    lengths_s: Mapping[str, float | None],
    sources: Sequence[Source],
) -> Annotations:
    """Events as label files hold them."""
    names = {source.name for source in sources}
    recordings = {
        name: RecordingAnnotation(
            "",
            lengths_s.get(name),
            tuple(
                Instance(one["label"], *one["segment"], score=one["score"])
                for one in sorted(entries, key=lambda one: one["segment"])
            ),
        )
        for name, entries in events.items()
        if name in names
    }
    return Annotations(tuple(classes), recordings, detections=True, source="events")


def _has_time(one: Instance) -> bool:
    return one.segment is not None or one.point_s is not None


def _entry(one: Instance) -> dict[str, Any]:
    segment = one.segment or (one.point_s, one.point_s)
    return {"label": one.label, "score": None, "segment": list(segment)}


def _scored(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Labels are certain."""
    return {**entry, "score": 1.0 if entry["score"] is None else entry["score"]}


def _cut(folder: Path, events: Mapping[str, Entries], sources: Sequence[Source]) -> list[str]:
    """Cuts the events of videos; returns a note on recordings that are none."""
    videos = {source.name: source.path for source in sources if source.kind == "video"}
    timed = {
        name: [one for one in entries if one["segment"][1] > one["segment"][0]]
        for name, entries in events.items()
    }
    without = [name for name, entries in timed.items() if entries and name not in videos]
    plans = plan_clips(
        folder,
        {name: videos[name] for name, found in timed.items() if found and name in videos},
        timed,
    )
    cut_events(folder, plans)
    if not without:
        return []
    return [f"clips: {len(without)} recordings are no videos"]
