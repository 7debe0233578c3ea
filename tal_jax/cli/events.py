"""`tal-jax events`."""

import argparse
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal_jax._errors import InputError
from tal_jax.cli import common

if TYPE_CHECKING:
    from tal_jax.data.annotations import Annotations
    from tal_jax.data.detections import Entries
    from tal_jax.inference.events import Events
    from tal_jax.report.event_clips import Plan

_EVENTS = """\
FILE is a file of detections (of `predict`, or of a run) or of labels, of any kind that `convert`
reads. Of detections those of the threshold count: that of --threshold, else that of the prediction
or the run which the file belongs to. The steps are threshold, merge gap, minimum duration, in this
order.

Writes a table of events (recording, class, start_s, end_s, duration_s, score) and beside it, as
NAME.summary.csv, for each recording and class: count, total, mean and standard deviation of the
durations, share of the recording's time, events a minute, time of the first, and the mean interval
between them. `convert` turns the table into the files of other tools.

With --clips, cuts each event out of its video, into a folder for each class, without encoding it
again: a clip begins at the last keyframe before the event. clips.csv in that folder has the start
and the end of each clip and of its event.

  tal-jax events clip.detections.json --output events.csv
  tal-jax events runs/mine/detections.json --recordings videos --merge-gap 1 --min-duration 0.5 \\
      --min-duration jump=0.2 --output events.csv
  tal-jax events clip.detections.json --output events.csv --clips clips --padding 1
"""


def add_commands(commands: Any) -> None:
    """Adds `events`."""
    title = "write tables and clips of events"
    events = common.add_parser(commands, "events", title, _EVENTS, _events)
    events.add_argument("files", metavar="FILE", type=Path, nargs="+", help="detections or labels")
    events.add_argument("--output", metavar="CSV", type=Path, required=True, help="a .csv")
    common.add_steps(events)
    events.add_argument(
        "--recordings", metavar="DIR", help="folder of the recordings; default: beside the file"
    )
    events.add_argument("--clips", metavar="DIR", type=Path, help="folder for clips of the events")
    events.add_argument(
        "--padding",
        metavar="S",
        type=float,
        default=0.0,
        help="seconds of a clip before and after its event; default 0",
    )
    common.add_shared(events, "--overwrite")


def _events(arguments: argparse.Namespace) -> None:
    from tal_jax import formats
    from tal_jax.data import files
    from tal_jax.report import event_tables as tables
    from tal_jax.report.event_clips import INDEX_FILE, cut_events

    output = arguments.output
    if output.suffix.lower() != ".csv":
        raise InputError(f"{output}: expected a name that ends in .csv")
    labels, thresholds, durations_s = _read(arguments)
    found = _select(arguments, labels, thresholds)
    events = {name: one.entries for name, one in found.items()}
    summaries = tables.summarize(events, labels.classes, durations_s)
    contents = {
        output: files.csv_bytes(tables.event_rows(events)),
        output.with_suffix(".summary.csv"): files.csv_bytes(tables.summary_rows(summaries)),
    }
    if not arguments.overwrite:
        formats.refuse_replacing(contents)
    files.check_writable(contents)
    clips = _plan_clips(arguments, events) if arguments.clips else None
    for path, content in contents.items():
        files.write_bytes(path, content)
    for note in _notes(labels, durations_s):
        common.echo(f"note: {note}")
    common.echo(_describe(found))
    common.echo(tables.format_summary(summaries))
    common.echo(f"{', '.join(map(str, contents))}: events and their summary")
    if clips is not None:
        count = cut_events(arguments.clips, clips)
        common.echo(f"{arguments.clips / INDEX_FILE}: {count} clips")


# --- reading ---


def _read(
    arguments: argparse.Namespace,
) -> "tuple[Annotations, dict[str, float | None], dict[str, float | None]]":
    """Labels of all files; by recording the threshold, None of labels, and the duration."""
    from tal_jax import formats

    parts, thresholds, durations_s = [], {}, {}
    for path in arguments.files:
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected detections or labels")
        part = formats.read_labels(path, recordings=arguments.recordings)
        threshold, of_run = _of_source(path, part)
        for name, recording in part.recordings.items():
            thresholds[name] = threshold if part.detections else None
            durations_s[name] = recording.duration_s or of_run.get(name)
        if part.detections and threshold is None and not arguments.threshold:
            raise InputError(
                f"{path}: detections of any score, and neither a prediction nor a run with a "
                "threshold; expected --threshold"
            )
        # Keys of predictions, such as their threshold, count for their own file.
        parts.append(dataclasses.replace(part, extras={}))
    return formats.merge_labels(parts), thresholds, durations_s


def _of_source(path: Path, labels: "Annotations") -> tuple[float | None, Mapping[str, float]]:
    """The threshold that a file of detections comes with, and durations of its recordings."""
    from tal_jax.data.annotations import load_annotations
    from tal_jax.data.files import to_number

    if "threshold" in labels.extras:
        return to_number(labels.extras["threshold"], f"{path}: threshold"), {}
    folder = path.parent
    if not labels.detections or not (folder / "run.json").exists():
        return None, {}
    from tal_jax.runs.workdir import threshold_of_run

    truth, durations_s = folder / "ground_truth.json", {}
    if truth.exists():
        recordings = load_annotations(truth).recordings
        durations_s = {name: one.duration_s for name, one in recordings.items() if one.duration_s}
    return threshold_of_run(folder), durations_s


def _select(
    arguments: argparse.Namespace, labels: "Annotations", thresholds: Mapping[str, float | None]
) -> "dict[str, Events]":
    """Events of each recording; of labels, points as events without length."""
    from tal_jax.inference.events import for_all, select_events

    steps = common.read_steps(arguments, labels.classes)
    given = steps.pop("threshold", None)
    if given is not None and not labels.detections:
        raise InputError("--threshold: labels have no scores, expected detections")
    found = {}
    for name, recording in labels.recordings.items():
        threshold = for_all(given, labels.classes, thresholds[name])
        segments: list[dict[str, Any]] = []
        points: list[dict[str, Any]] = []
        for one in recording.instances:
            if one.segment is not None:
                segments.append(_entry(one.label, one.score, *one.segment))
            elif one.point_s is not None:
                points.append(_entry(one.label, one.score, one.point_s, one.point_s))
        events = select_events(segments, threshold=threshold, **steps)
        found[name] = dataclasses.replace(events, entries=[*events.entries, *points])
    return found


def _entry(label: str, score: float | None, start_s: float, end_s: float) -> dict[str, Any]:
    return {"label": label, "score": score, "segment": [start_s, end_s]}


def _notes(labels: "Annotations", durations_s: Mapping[str, float | None]) -> list[str]:
    notes = list(labels.notes)
    timeless = sum(one.start_s is None and one.point_s is None for one in labels.instances)
    if timeless:
        notes.append(f"labels without a time, left out: {timeless}")
    unknown = [name for name, duration_s in durations_s.items() if duration_s is None]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        notes.append(
            f"no duration of {', '.join(unknown[:3])}{more}: share and rate are empty; "
            "--recordings names the folder of the recordings"
        )
    return notes


def _describe(found: "Mapping[str, Events]") -> str:
    from tal_jax.inference.events import Events

    every = found.values()
    return common.describe_events(
        Events(
            [entry for one in every for entry in one.entries],
            *(sum(getattr(one, key) for one in every) for key in ("below", "merged", "short")),
        )
    )


# --- clips ---


def _plan_clips(arguments: argparse.Namespace, events: "Mapping[str, Entries]") -> "list[Plan]":
    """The clips of each video; checks all that can be checked before any work."""
    from tal_jax.data import files
    from tal_jax.report.event_clips import INDEX_FILE, plan_clips

    if not 0 <= arguments.padding < math.inf:
        raise InputError(f"--padding {arguments.padding:g}, expected 0 or more seconds")
    videos = _videos(arguments, events)
    plans = plan_clips(arguments.clips, videos, events, padding_s=arguments.padding)
    targets = [clip.target for plan in plans for clip in plan.clips]
    targets.append(arguments.clips / INDEX_FILE)
    if not arguments.overwrite:
        files.refuse_replacing(targets, ours=lambda path: False)
    files.check_writable(targets)
    return plans


def _videos(arguments: argparse.Namespace, events: "Mapping[str, Entries]") -> dict[str, Path]:
    """The videos of recordings with events."""
    from tal_jax.extraction.video import has_video_suffix
    from tal_jax.formats.labels import find_media

    folders = [arguments.recordings] if arguments.recordings else None
    folders = folders or dict.fromkeys(path.parent for path in arguments.files)
    videos, without = {}, []
    for name in (name for name, entries in events.items() if entries):
        video = next((path for folder in folders if (path := find_media(folder, name))), None)
        if video is None or not has_video_suffix(video):
            without.append(name)
        else:
            videos[name] = video
    if without:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        raise InputError(
            f"--clips: no video of {', '.join(without[:3])}{more}; expected --recordings, the "
            "folder of the videos"
        )
    return videos
