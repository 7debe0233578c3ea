"""BORIS: projects (`.boris`), read and written, and its tables of events, read.

A project is JSON. Its behaviors are points or states; an observation lists events `[time, subject,
behavior, modifiers, comment, frame]`, a state as two of them, its start and its stop. Events of one
subject, behavior and modifiers pair up in order of time.

Times of an observation count through the media files of its first player, one after another, and
its time offset is added to them. Here they become times in each file, which is the recording. The
other players show the same time from elsewhere.

Two tables have the same content: aggregated events, a row each, and tabular events, a row for each
start, stop or point. They name the files, but older ones not how long each is.
"""

import dataclasses
import datetime
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.extraction import video
from tal_jax.formats.labels import (
    RecordingNames,
    collect,
    find_media,
    join_points,
    losses,
    recording_name,
    spans_of,
    timed_instance,
)
from tal_jax.formats.media import Media
from tal_jax.formats.named_rows import NamedRows, has_columns, read_named_rows

_MILLISECONDS = 1000  # BORIS rounds times to these
_ROUNDING_S = 0.5 / _MILLISECONDS
_VERSION = "7.0"  # of projects of BORIS 7, 8 and 9
_NO_SUBJECT = "No focal subject"
_NONE = ("", "None")  # of modifiers that were not chosen
# A set of modifiers that keeps events of one class apart which overlap: BORIS pairs the start of a
# state with the next event of the same behavior.
_ROW = "tal_jax row"
_PLAYERS = 8
_SHOWN = 60

_AGGREGATED = {"observation id", "behavior", "behavior type", "start (s)", "stop (s)"}
_TABULAR = {"observation id", "behavior", "behavior type", "time"}
_TABULAR_7 = {"time", "media file path", "behavior", "status"}
_HEADS = (_AGGREGATED, _TABULAR, _TABULAR_7)
_DELIMITERS = ",\t;"


@dataclasses.dataclass
class _Event:
    label: str
    start_s: float
    stop_s: float
    extras: dict[str, Any]


@dataclasses.dataclass
class _Observation:
    """An observation in its own time, which counts through its media files."""

    name: str
    media: list[str]  # of the first player; none if it was live
    lengths_s: dict[str, float]  # of media files, where known
    offset_s: float = 0.0
    events: list[_Event] = dataclasses.field(default_factory=list)
    subset: str | None = None
    duration_s: float | None = None  # of its recording, where it has only one
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)


# --- projects ---


class _Project(msgspec.Struct):
    observations: dict[str, Any]
    behaviors_conf: dict[str, Any] = {}


class _Behavior(msgspec.Struct):
    code: str
    type: str
    modifiers: Any = None


class _Content(msgspec.Struct):
    type: str
    events: list[list[Any]]
    file: Any = None
    offset_s: files.Number = msgspec.field(name="time offset", default=0.0)
    media_info: dict[str, Any] | None = None
    independent_variables: dict[str, Any] | None = None
    description: Any = ""
    media_creation_date_as_offset: Any = False


def is_project(values: Any) -> bool:
    """Whether JSON content is a project."""
    return isinstance(values, Mapping) and {"observations", "behaviors_conf"} <= set(values)


def read_project(
    values: Any,
    path: str | os.PathLike,
    *,
    media: Media,
    subset: str,
    observations: Sequence[str] = (),
) -> Annotations:
    """Parses the JSON of a project.

    Args:
      values: the JSON.
      path: of the file, for messages.
      media: for lengths of media files that the project does not have.
      subset: of observations without an independent variable of that name.
      observations: names of those to read; all by default.

    Raises:
      InputError: if the project is malformed, several observations are of one recording and were
        not named, or a time cannot be placed in its media file.
    """
    source = str(path)
    project = files.convert(values, _Project, source)
    where = f"{source}: behaviors_conf"
    behaviors = files.convert_each(project.behaviors_conf, _Behavior, where)
    kinds = {one.code: "state" in one.type.lower() for one in behaviors.values()}
    rows = {one.code for one in behaviors.values() if _has_rows(one)}
    found, tally = [], _Tally()
    for name, content in project.observations.items():
        if observations and name not in observations:
            continue
        where = f"{source}: observation {name[:_SHOWN]!r}"
        one = files.convert(content, _Content, where, strict=False)
        if one.type.upper() == "IMAGES":
            tally.left_out["observations of pictures"] += 1
            continue
        observation = _open_observation(name, one, where, tally)
        observation.events = _pair(_marks(one, kinds, rows, where, tally), tally)
        found.append(observation)
    _check_names(observations, project.observations, source)
    classes = [one.code for one in behaviors.values()]
    return _to_annotations(
        found, classes, source, media=media, subset=subset, tally=tally, named=bool(observations)
    )


def to_project(
    path: str | os.PathLike, labels: Annotations, *, media: Media
) -> tuple[bytes, list[str]]:
    """Returns the content of a project, and what it cannot hold, a line each.

    Classes with any segment are states, others points. Recordings without a video or a sound in the
    folder of `media` become live observations.
    """
    states = {one.label for one in labels.instances if one.segment is not None}
    states |= set(labels.classes) - {one.label for one in labels.instances}
    layout = _layout(labels, states)
    now = datetime.datetime.now().isoformat(timespec="seconds")
    observations, live = {}, []
    for name, recording in labels.recordings.items():
        content = _media_content(path, name, recording, layout.rows[name], media)
        given = _text(recording.extras.get("observation"))
        is_free = given and given not in labels.recordings and given not in observations
        is_live = content["type"] == "LIVE"
        live += [name] if is_live else []
        variables = recording.extras.get("independent_variables")
        content |= {
            "date": now,
            "description": _text(recording.extras.get("description")),
            "time offset": 0.0,
            "independent_variables": {
                **(variables if isinstance(variables, dict) else {}),
                "subset": recording.subset,
                "duration_s": "" if recording.duration_s is None else str(recording.duration_s),
            },
            "events": _event_rows(layout.rows[name], content, layout),
        }
        observations[given if is_free and not is_live else name] = content
    project = {
        "time_format": "hh:mm:ss",
        "project_date": now,
        "project_name": Path(path).stem,
        "project_description": "written by tal_jax",
        "project_format_version": _VERSION,
        "subjects_conf": _numbered(_subjects(labels)),
        "behaviors_conf": _behaviors(labels, layout),
        "observations": observations,
        "behavioral_categories": [],
        "behavioral_categories_config": {},
        "independent_variables": _numbered(_variables(observations)),
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    notes = losses(_without_own(labels), "subsets", "durations", "classes", "empty", "scores")
    if labels.detections:
        notes.append("scores are written as comments")
    if live:
        more = f" and {len(live) - 3} more" if len(live) > 3 else ""
        notes.append(
            f"no video or sound of {', '.join(live[:3])}{more} in {media.folder}: written as live "
            "observations; --recordings names the folder"
        )
    return files.kept_bytes(path, project, labels.source), notes


def is_same(one: bytes, other: bytes) -> bool:
    """Whether two projects differ in the time of their creation at most."""
    date = rb'"(project_)?date": "[-\d]+T[:\d]+"'
    return re.sub(date, b"", one) == re.sub(date, b"", other)


# --- tables ---


def is_table(text: str) -> bool:
    """Whether a text is a table of aggregated or of tabular events."""
    return has_columns(text, _HEADS, _DELIMITERS)


def read_table(
    path: str | os.PathLike,
    text: str,
    *,
    media: Media,
    subset: str,
    observations: Sequence[str] = (),
) -> Annotations:
    """Parses a table of aggregated or of tabular events; arguments and errors as `read_project`."""
    source = str(path)
    table = read_named_rows(source, text, _HEADS, _DELIMITERS)
    tally, found = _Tally(), {}
    marks: dict[str, list[_Mark]] = {}
    block = _Block(table.before)
    for line, row in table.rows:
        where = f"{source}: line {line}"
        name = row.get("observation id") or block.name or recording_name(Path(path).stem)
        if observations and name not in observations:
            continue
        if name not in found:
            found[name] = _of_row(name, row, block, where, table)
        observation = found[name]
        _add_media(observation, row, where)
        label, extras = row["behavior"], _row_extras(row)
        if not label:
            raise InputError(f"{where}: an event without a behavior")
        if _AGGREGATED <= set(table.columns):
            start_s = _seconds(row["start (s)"], where, "start (s)", table)
            stop_s = _seconds(row["stop (s)"], where, "stop (s)", table)
            if start_s is None or stop_s is None:
                tally.left_out["events without a time"] += 1
            else:
                observation.events.append(_Event(label, start_s, stop_s, extras))
            continue
        status = (row.get("behavior type") or row.get("status") or "").upper()
        time_s = _seconds(row["time"], where, "time", table)
        if time_s is None:
            tally.left_out["events without a time"] += 1
            continue
        if status not in ("START", "STOP", "POINT"):
            raise InputError(f"{where}: {status[:_SHOWN]!r}, expected START, STOP or POINT")
        key = (row.get("subject", ""), label, _row_modifiers(row))
        mark = _Mark(time_s, label, None if status == "POINT" else key, extras)
        marks.setdefault(name, []).append(mark)
    for name, of_observation in marks.items():
        found[name].events = _pair(of_observation, tally)
    if not found and block.name and not observations:
        found[block.name] = _of_row(block.name, {}, block, source, table)
    _check_names(
        observations, {row.get("observation id", block.name) for _, row in table.rows}, source
    )
    return _to_annotations(
        list(found.values()),
        (),
        source,
        media=media,
        subset=subset,
        tally=tally,
        named=bool(observations),
    )


class _Block:
    """The lines before the columns' names in tabular events of BORIS 7."""

    def __init__(self, rows: Sequence[Sequence[str]]):
        values = [(row[0], row[1]) for row in rows if len(row) > 1 and row[1]]
        named = {key.lower(): value for key, value in reversed(values)}
        self.name = named.get("observation id", "")
        self.offset = named.get("time offset (s)", "")
        self.media = [value for key, value in values if key.lower() == "player #1"]


def _of_row(
    name: str, row: Mapping[str, str], block: _Block, source: str, table: NamedRows
) -> _Observation:
    """An observation with what its first row, or the lines before the table, have of it."""
    offset = row.get("time offset (s)") or block.offset
    offset_s = _seconds(offset, source, "time offset (s)", table) if offset else 0.0
    queue = re.search(r"player #1:([^|]*)", row.get("source", ""))
    media = [one.strip() for one in queue[1].split(";") if one.strip()] if queue else block.media
    lengths = row.get("media duration (s)", "").partition("|")[0].split(";")
    if not queue and len(lengths) == 1:
        media = media or [one for one in [_media_of(row)] if one]
    lengths_s = {}
    if len(lengths) == len(media):
        for one, text in zip(media, lengths, strict=True):
            length_s = _seconds(text, source, "media duration (s)", table) if text else None
            lengths_s |= {one: length_s} if length_s else {}
    total = row.get("total length") if len(media) == 1 else None
    duration_s = _seconds(total, source, "total length", table) if total else None
    found = _Observation(name, list(media), lengths_s, offset_s or 0.0)
    found.duration_s = duration_s or None
    return found


def _media_of(row: Mapping[str, str]) -> str:
    """The file that an event is in; "" where the observation was live."""
    for key in ("media file name", "media file path", "media file"):
        name = row.get(key, "")
        if name.upper() not in ("", "NA", "LIVE", "LIVE OBSERVATION", "NOT FOUND"):
            return name
    return ""


def _add_media(observation: _Observation, row: Mapping[str, str], source: str) -> None:
    """Checks that the file of an event is known, which says how times count."""
    name = _media_of(row)
    if name and observation.media and name not in observation.media:
        raise InputError(
            f"{source}: observation {observation.name[:_SHOWN]!r} has several media files, BORIS "
            "counts its time through all of them, and this table does not list them; expected the "
            "project (.boris), or a table with the column Source"
        )


def _row_extras(row: Mapping[str, str]) -> dict[str, str]:
    subject = row.get("subject", "")
    return _extras(
        "" if subject == _NO_SUBJECT else subject,
        _row_modifiers(row),
        row.get("comment start") or row.get("comment", ""),
        row.get("comment stop", ""),
    )


def _row_modifiers(row: Mapping[str, str]) -> str:
    """The modifiers of a row, between bars as in a project."""
    chosen = [value for key, value in row.items() if re.fullmatch(r"modifiers?( ?#?\d+)?", key)]
    return "|".join(chosen).strip("|")


def _seconds(text: str, source: str, name: str, table: NamedRows) -> float | None:
    """A time in seconds, or in hours, minutes and seconds; None where it is not known."""
    if text.upper() in ("NA", "NAN"):
        return None
    plain = text.replace(",", ".", 1) if table.decimal_comma else text
    clock = re.fullmatch(r"(-?)(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)", plain)
    if clock:
        seconds = int(clock[2][:9]) * 3600 + int(clock[3]) * 60 + float(clock[4])
        return -seconds if clock[1] else seconds
    return files.to_number(plain[:_SHOWN], f"{source}: {name}")


# --- from observations to recordings ---


class _Tally:
    """What was left out or changed, for notes."""

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {
            "observations of pictures": 0,
            "events without a time": 0,
            "states without a stop": 0,
            "media files of further players": 0,
        }
        self.unlisted: dict[str, None] = {}
        self.split = 0


@dataclasses.dataclass
class _Mark:
    """A point, or the start or the stop of a state with this key."""

    time_s: float
    label: str
    key: tuple[str, ...] | None
    extras: dict[str, Any]


def _pair(marks: Sequence[_Mark], tally: _Tally) -> list[_Event]:
    """Pairs starts and stops of states, as BORIS does: the next one of the same key is the stop."""
    events: list[_Event] = []
    begun: dict[tuple[str, ...], _Mark] = {}
    for mark in sorted(marks, key=lambda mark: mark.time_s):
        if mark.key is None:
            events.append(_Event(mark.label, mark.time_s, mark.time_s, mark.extras))
        elif mark.key in begun:
            start = begun.pop(mark.key)
            comment = {"comment_stop": mark.extras["comment"]} if "comment" in mark.extras else {}
            events.append(_Event(mark.label, start.time_s, mark.time_s, start.extras | comment))
        else:
            begun[mark.key] = mark
    tally.left_out["states without a stop"] += len(begun)
    return events


def _to_annotations(
    observations: Sequence[_Observation],
    classes: Sequence[str],
    source: str,
    *,
    media: Media,
    subset: str,
    tally: _Tally,
    named: bool,
) -> Annotations:
    found: dict[str, list[Instance]] = {}
    recordings: dict[str, RecordingAnnotation] = {}
    owners: dict[str, str] = {}
    names, notes = RecordingNames(), []
    for one in observations:
        where = f"{source}: observation {one.name[:_SHOWN]!r}"
        for name, duration_s, instances in _place(one, where, names, media, tally):
            if name in found and not named:
                raise InputError(
                    f"{where}: of the recording {name[:_SHOWN]!r}, as observation "
                    f"{owners[name][:_SHOWN]!r}; expected one of them, or both named: "
                    "--tier OBSERVATION, repeatable"
                )
            if name in found:
                notes.append(f"observations merged into {name[:_SHOWN]!r}")
            owners.setdefault(name, one.name)
            found.setdefault(name, []).extend(instances)
            extras = one.extras | ({"observation": one.name} if one.name != name else {})
            recordings.setdefault(
                name, RecordingAnnotation(one.subset or subset, duration_s, extras=extras)
            )
        if one.offset_s:
            notes.append(f"time offset of {one.name[:_SHOWN]!r} subtracted: {one.offset_s:g} s")
    joined = 0
    for name, instances in found.items():
        ordered, count = join_points(instances)
        joined += count
        recordings[name] = dataclasses.replace(recordings[name], instances=ordered)
    if tally.unlisted:
        listed = ", ".join(ascii(name[:_SHOWN])[1:-1] for name in list(tally.unlisted)[:5])
        notes.append(f"behaviors that are not in the ethogram, read as points: {listed}")
    if tally.split:
        notes.append(f"states that go on in the next media file, split: {tally.split}")
    return collect(
        source,
        recordings,
        classes=classes,
        left_out=tally.left_out,
        joined=joined,
        notes=[ascii(note)[1:-1] for note in notes],
    )


_Placed = tuple[str, float | None, list[Instance]]


def _place(
    one: _Observation, source: str, names: RecordingNames, media: Media, tally: _Tally
) -> list[_Placed]:
    """The name, the duration and the instances of each media file of an observation."""
    if not one.media:
        own = [(event, event.start_s, event.stop_s) for event in one.events]
        return [(one.name, one.duration_s, _instances(own, one.offset_s, source))]
    recordings = [names.find(file, source) for file in one.media]
    if len(set(recordings)) < len(recordings):
        raise InputError(f"{source}: one media file twice, expected different ones")
    lengths_s = [
        one.lengths_s.get(file) or media.duration_s(name)
        for file, name in zip(one.media, recordings, strict=True)
    ]
    bounds_s = [0.0]
    for file, length_s in zip(one.media[:-1], lengths_s, strict=False):
        if not length_s:
            raise InputError(
                f"{source}: times count through its {len(one.media)} media files, and the length "
                f"of {file[:_SHOWN]!r} is not known; expected the file in --recordings"
            )
        bounds_s.append(bounds_s[-1] + length_s)
    spans: list[list[tuple[_Event, float, float]]] = [[] for _ in recordings]
    for event in one.events:
        start_s, stop_s = event.start_s - one.offset_s, event.stop_s - one.offset_s
        parts = _parts(start_s, stop_s, bounds_s)
        tally.split += len(parts) > 1
        for index, first_s, last_s in parts:
            spans[index].append((event, first_s, last_s))
    last = len(recordings) - 1
    return [
        (
            name,
            (None if last else one.duration_s) or lengths_s[index],
            _instances(spans[index], bounds_s[index], source),
        )
        for index, name in enumerate(recordings)
    ]


def _parts(
    start_s: float, stop_s: float, bounds_s: Sequence[float]
) -> list[tuple[int, float, float]]:
    """The index of each file that a span is in, and the part of the span in it."""
    ends_s = [*bounds_s[1:], float("inf")]
    parts = []
    for index, (low_s, high_s) in enumerate(zip(bounds_s, ends_s, strict=True)):
        first_s, last_s = max(start_s, low_s) if index else start_s, min(stop_s, high_s)
        starts_here = start_s < high_s and (start_s >= low_s or not index)
        # A rounded time may be just beyond the end of a file.
        if starts_here or last_s - first_s > _ROUNDING_S:
            parts.append((index, first_s, last_s))
    if len(parts) > 1 and parts[0][2] - parts[0][1] <= _ROUNDING_S:
        return parts[1:]
    return parts


def _instances(
    spans: Sequence[tuple[_Event, float, float]], zero_s: float, source: str
) -> list[Instance]:
    instances = []
    for event, start_s, stop_s in spans:
        start_s, stop_s = start_s - zero_s, stop_s - zero_s
        if -_ROUNDING_S <= start_s < 0:
            start_s, stop_s = 0.0, max(stop_s, 0.0)
        instances.append(
            timed_instance(event.label, start_s, stop_s, source=source, extras=event.extras)
        )
    return instances


def _check_names(names: Sequence[str], known: Any, source: str) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        listed = ", ".join(repr(name[:_SHOWN]) for name in list(known)[:8])
        raise InputError(f"{source}: no observation {missing[0]!r}, expected one of {listed}")


# --- reading projects ---


def _open_observation(name: str, one: _Content, source: str, tally: _Tally) -> _Observation:
    players = files.convert(one.file or {}, dict[str, list[str]], f"{source}: file")
    queue = players.get("1", []) if one.type.upper() != "LIVE" else []
    tally.left_out["media files of further players"] += sum(
        len(queued) for player, queued in players.items() if player != "1"
    )
    info = one.media_info or {}
    lengths = info.get("length")
    lengths_s = {
        file: files.to_number(lengths[file], f"{source}: length")
        for file in queue
        if isinstance(lengths, Mapping) and lengths.get(file) is not None
    }
    found = _Observation(name, queue, lengths_s, one.offset_s)
    if one.media_creation_date_as_offset is True:
        found.offset_s += _creation_time(queue, info, source)
    variables = dict(one.independent_variables or {})
    given = variables.pop("subset", "")
    found.subset = given if isinstance(given, str) and given else None
    if variables.get("duration_s"):
        found.duration_s = files.to_number(variables["duration_s"], f"{source}: duration_s")
    variables.pop("duration_s", None)
    filled = {key: value for key, value in variables.items() if value not in ("", None)}
    found.extras |= {"independent_variables": filled} if filled else {}
    found.extras |= {"description": one.description} if one.description else {}
    return found


def _creation_time(queue: Sequence[str], info: Mapping[str, Any], source: str) -> float:
    """The time of day or the date that BORIS added to the times of an observation."""
    times = info.get("media_creation_time")
    if len(queue) != 1 or not isinstance(times, Mapping) or times.get(queue[0]) is None:
        raise InputError(
            f"{source}: times count from the creation of the media, expected one media file and "
            "its media_creation_time"
        )
    return files.to_number(times[queue[0]], f"{source}: media_creation_time")


def _marks(
    one: _Content, kinds: Mapping[str, bool], rows: set[str], source: str, tally: _Tally
) -> list[_Mark]:
    marks = []
    for number, event in enumerate(one.events, start=1):
        where = f"{source}: event {number}"
        if len(event) < 3 or not isinstance(event[2], str):
            raise InputError(f"{where}: expected time, subject, behavior, modifiers and comment")
        if event[0] is None or str(event[0]).upper() in ("NA", "NAN"):
            tally.left_out["events without a time"] += 1
            continue
        given = event[0][:_SHOWN] if isinstance(event[0], str) else event[0]
        time_s = files.to_number(given, f"{where}: time")
        label = event[2]
        subject, modifiers, comment = (
            _text(event[index]) if index < len(event) else "" for index in (1, 3, 4)
        )
        if label not in kinds:
            tally.unlisted[label] = None
        key = (subject, label, modifiers) if kinds.get(label) else None
        shown = modifiers.rpartition("|")[0] if label in rows else modifiers
        marks.append(_Mark(time_s, label, key, _extras(subject, shown, comment)))
    return marks


def _extras(subject: str, modifiers: str, comment: str, comment_stop: str = "") -> dict[str, str]:
    """Other keys of an instance, without those that say nothing."""
    chosen = modifiers if any(one not in _NONE for one in modifiers.split("|")) else ""
    found = {"subject": subject, "modifiers": chosen}
    found |= {"comment": comment, "comment_stop": comment_stop}
    return {key: value for key, value in found.items() if value}


def _has_rows(behavior: _Behavior) -> bool:
    sets = behavior.modifiers
    if not isinstance(sets, Mapping) or not sets:
        return False
    last = list(sets.values())[-1]
    return isinstance(last, Mapping) and last.get("name") == _ROW


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# --- writing projects ---


@dataclasses.dataclass(frozen=True)
class _Row:
    """A span in milliseconds, and the row that it is in: those of one row do not overlap."""

    label: str
    start: int
    end: int
    number: int
    instance: Instance


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How labels become behaviors and events.

    Attributes:
      states: classes that are states, not points.
      rows: of each recording, in order of time.
      numbers: how many rows a class needs.
      sets: how many sets of modifiers the events of a class have.
    """

    states: set[str]
    rows: dict[str, list[_Row]]
    numbers: dict[str, int]
    sets: dict[str, int]


def _layout(labels: Annotations, states: set[str]) -> _Layout:
    rows = {name: _rows(recording, states) for name, recording in labels.recordings.items()}
    layout = _Layout(states, rows, {}, {})
    for row in (row for of_recording in rows.values() for row in of_recording):
        chosen = _text(row.instance.extras.get("modifiers"))
        count = len(chosen.split("|")) if chosen else 0
        layout.numbers[row.label] = max(layout.numbers.get(row.label, 1), row.number)
        layout.sets[row.label] = max(layout.sets.get(row.label, 0), count)
    return layout


def _rows(recording: RecordingAnnotation, states: set[str]) -> list[_Row]:
    """Distributes states of one class, subject and modifiers over rows without overlap."""
    spans = [
        (span.start, span.end, number, instance)
        for number, instance in enumerate(recording.instances)
        for span in spans_of([instance], per_second=_MILLISECONDS)
    ]
    rows: list[_Row] = []
    ends: dict[tuple[str, str, str], list[int]] = {}
    for start, end, _, instance in sorted(spans, key=lambda span: span[:3]):
        extras, number = instance.extras, 1
        if instance.label in states:
            key = (instance.label, _text(extras.get("subject")), _text(extras.get("modifiers")))
            of_key = ends.setdefault(key, [])
            free = [index for index, until in enumerate(of_key) if until <= start]
            number = (free[0] if free else len(of_key)) + 1
            of_key[number - 1 : number] = [end]
        rows.append(_Row(instance.label, start, end, number, instance))
    return rows


def _event_rows(
    rows: Sequence[_Row], content: Mapping[str, Any], layout: _Layout
) -> list[list[Any]]:
    """Events as a project lists them, in order of time."""
    rates = content.get("media_info", {}).get("fps", {})
    rate = next(iter(rates.values()), 0.0)
    events: list[list[Any]] = []
    for row in rows:
        extras, chosen = row.instance.extras, _modifiers(row, layout)
        comment = _text(extras.get("comment"))
        if not comment and row.instance.score is not None:
            comment = f"score {row.instance.score:.3f}"
        times = [(row.start, comment)]
        if row.label in layout.states:
            times.append((row.end, _text(extras.get("comment_stop"))))
        for time, remark in times:
            event = [time / _MILLISECONDS, _text(extras.get("subject")), row.label, chosen, remark]
            if content["type"] == "MEDIA":
                event.append(int(time * rate / _MILLISECONDS) if rate else "NA")
            events.append(event)
    return sorted(events, key=lambda event: event[0])


def _modifiers(row: _Row, layout: _Layout) -> str:
    chosen = _text(row.instance.extras.get("modifiers"))
    if layout.numbers[row.label] == 1:
        return chosen
    parts = chosen.split("|") if chosen else []
    parts += ["None"] * (layout.sets[row.label] - len(parts))
    return "|".join([*parts, str(row.number)])


def _media_content(
    path: str | os.PathLike,
    name: str,
    recording: RecordingAnnotation,
    rows: Sequence[_Row],
    media: Media,
) -> dict[str, Any]:
    """The part of an observation that describes its media file."""
    file = find_media(media.folder, name)
    is_video = file is not None and video.has_video_suffix(file)
    try:
        has_sound = file is not None and video.sound_rate(file) is not None
    except InputError:  # PyAV is missing, or it is a table
        has_sound = False
    if file is None or not (is_video or has_sound):
        return {
            "file": {},
            "type": "LIVE",
            "scan_sampling_time": 0,
            "start_from_current_time": False,
            "start_from_current_epoch_time": False,
        }
    listed = Path(os.path.relpath(file, Path(path).parent)).as_posix()
    ends_s = [row.end / _MILLISECONDS for row in rows]
    length_s = media.duration_s(name) or recording.duration_s or max(ends_s, default=0.0)
    rate = media.frame_rate(name) or recording.frame_rate or 0.0
    return {
        "file": {str(player): [listed] if player == 1 else [] for player in range(1, _PLAYERS + 1)},
        "type": "MEDIA",
        "observation time interval": [0, 0],
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {listed: length_s},
            "fps": {listed: rate},
            "hasVideo": {listed: is_video},
            "hasAudio": {listed: has_sound},
            "offset": {"1": 0.0},
        },
    }


def _behaviors(labels: Annotations, layout: _Layout) -> dict[str, Any]:
    """The ethogram: a behavior for each class."""
    keys = "abcdefghijklmnopqrstuvwxyz0123456789"
    instances: dict[str, list[Instance]] = {label: [] for label in labels.classes}
    for one in labels.instances:
        instances[one.label].append(one)
    behaviors = []
    for index, (label, of_class) in enumerate(instances.items()):
        modifiers = _modifier_sets(of_class, layout.sets.get(label, 0))
        rows = layout.numbers.get(label, 1)
        if rows > 1:
            numbers = [str(number) for number in range(1, rows + 1)]
            modifiers.append(_modifier_set(_ROW, numbers))
        behaviors.append(
            {
                "type": "State event" if label in layout.states else "Point event",
                "key": keys[index] if index < len(keys) else "",
                "code": label,
                "description": "",
                "color": "",
                "category": "",
                "modifiers": _numbered(modifiers),
                "excluded": "",
                "coding map": "",
            }
        )
    return _numbered(behaviors)


def _modifier_sets(instances: Sequence[Instance], count: int) -> list[dict[str, Any]]:
    """Sets with the modifiers that occur, as BORIS needs them to show them."""
    values: list[dict[str, None]] = [{} for _ in range(count)]
    for one in instances:
        chosen = _text(one.extras.get("modifiers")).split("|")
        for known, value in zip(values, chosen, strict=False):
            known |= {value: None} if value not in _NONE else {}
    return [_modifier_set("", list(known)) for known in values]


def _modifier_set(name: str, values: list[str]) -> dict[str, Any]:
    return {"name": name, "description": "", "type": 0, "ask at stop": False, "values": values}


def _subjects(labels: Annotations) -> list[dict[str, str]]:
    names = dict.fromkeys(_text(one.extras.get("subject")) for one in labels.instances)
    return [{"key": "", "name": name, "description": ""} for name in names if name]


def _variables(observations: Mapping[str, Any]) -> list[dict[str, str]]:
    found: dict[str, None] = {}
    for one in observations.values():
        found |= dict.fromkeys(one["independent_variables"])
    return [
        {
            "label": label,
            "description": "",
            "type": "numeric" if label == "duration_s" else "text",
            "default value": "",
            "possible values": "",
        }
        for label in found
    ]


def _numbered(values: Sequence[Any]) -> dict[str, Any]:
    return {str(index): value for index, value in enumerate(values)}


def _without_own(labels: Annotations) -> Annotations:
    """Labels without the other keys that a project holds."""
    kept = ("subject", "modifiers", "comment", "comment_stop")
    of_recording = ("observation", "description", "independent_variables")
    recordings = {
        name: dataclasses.replace(
            recording,
            extras={k: v for k, v in recording.extras.items() if k not in of_recording},
            instances=tuple(
                dataclasses.replace(
                    one, extras={k: v for k, v in one.extras.items() if k not in kept}
                )
                for one in recording.instances
            ),
        )
        for name, recording in labels.recordings.items()
    }
    return dataclasses.replace(labels, recordings=recordings)
