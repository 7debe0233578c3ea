"""Clips of events: a folder for each class, and a table of all clips."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.detections import Entries
from tal_jax.extraction.clips import Clip, cut_clips
from tal_jax.extraction.video import probe

INDEX_FILE = "clips.csv"  # in the folder of the clips
_COLUMNS = "file recording class start_s end_s score clip_start_s clip_end_s".split()


@dataclasses.dataclass(frozen=True)
class Plan:
    """The events of a recording and their clips, in the same order."""

    recording: str
    video: Path
    entries: Entries
    clips: list[Clip]


def plan_clips(
    folder: Path,
    videos: Mapping[str, Path],
    events: Mapping[str, Entries],
    *,
    padding_s: float = 0.0,
) -> list[Plan]:
    """The clips of each video, without writing anything.

    Args:
      folder: for the clips.
      videos: the video of each recording whose events are cut out.
      events: `{label, score, segment}` of each recording.
      padding_s: seconds of a clip before and after its event.

    Raises:
      InputError: if a video cannot be read, or an event starts after its end.
    """
    labels = sorted({one["label"] for found in events.values() for one in found})
    folders, taken = _distinct(labels), set()
    return [
        _plan(folder, name, video, events[name], folders, taken, padding_s)
        for name, video in videos.items()
    ]


def cut_events(folder: Path, plans: Sequence[Plan]) -> int:
    """Cuts the clips, and writes their table; returns how many there are.

    Raises:
      InputError: as `cut_clips`.
      OSError: if a file cannot be written.
    """
    rows: list[Sequence[Any]] = [_COLUMNS]
    for plan in plans:
        bounds_s = cut_clips(plan.video, plan.clips)
        for one, clip, bound_s in zip(plan.entries, plan.clips, bounds_s, strict=True):
            times = [f"{time_s:.6f}" for time_s in (*one["segment"], *bound_s)]
            score = "" if one["score"] is None else f"{one['score']:.9g}"
            path = clip.target.relative_to(folder).as_posix()
            rows.append((path, plan.recording, one["label"], *times[:2], score, *times[2:]))
    files.write_csv(folder / INDEX_FILE, rows)
    return len(rows) - 1


def _plan(
    folder: Path,
    name: str,
    video: Path,
    entries: Entries,
    folders: Mapping[str, str],
    taken: set[str],
    padding_s: float,
) -> Plan:
    """The clips of one video; adds their names to those that are taken."""
    duration_s = probe(video).duration_s
    entries = sorted(entries, key=lambda one: one["segment"])
    clips = []
    for one in entries:
        start_s, end_s = one["segment"]
        if start_s >= duration_s:
            raise InputError(
                f"{name}: {one['label']!r} starts at {start_s:g} s, after the {duration_s:g} s of "
                f"{video}"
            )
        stem = f"{folders[one['label']]}/{_file_name(name)}_{start_s:010.3f}-{end_s:010.3f}"
        number, relative = 1, f"{stem}{video.suffix}"
        while relative.lower() in taken:
            number, relative = number + 1, f"{stem}_{number + 1}{video.suffix}"
        taken.add(relative.lower())
        first_s, last_s = start_s - padding_s, end_s + padding_s
        clips.append(Clip(folder / relative, max(first_s, 0.0), min(last_s, duration_s)))
    return Plan(name, video, entries, clips)


def _distinct(labels: Sequence[str]) -> dict[str, str]:
    """Names of folders for classes, different ones also where case does not count."""
    names: dict[str, str] = {}
    for label in labels:
        name, number = _file_name(label), 1
        while name.lower() in {other.lower() for other in names.values()}:
            number += 1
            name = f"{_file_name(label)}_{number}"
        names[label] = name
    return names


def _file_name(text: str) -> str:
    """A name that is valid for a file or a folder on every system."""
    return re.sub(r"[^\w\- .]+", "_", text).strip(" .")[:80] or "_"
