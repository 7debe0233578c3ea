"""Tables of labels: comma-separated values and their dialects, with columns recognised by name.

::

    recording,subset,duration_s,label,start_s,end_s,point_s       as this module writes it
    clip,train,61.2,jump,3.1,4.0,3.4
    clip,train,61.2,run,,,20.2
    quiet,train,30.0,,,,                                          without any instance

    Video;Behavior;Onset [ms];Offset [ms]                         as other programs write it
    clip.mp4;jump;3100;4000

Columns are separated by commas, semicolons, tabs or bars, whichever gives the most known names in
the first line that is no comment. `columns` has the names and the units. Whatever would lose or
move a label is an error that names the line.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import ROUNDING_S, Annotations, Instance, RecordingAnnotation
from tal_jax.formats import columns
from tal_jax.formats.columns import FRAMES
from tal_jax.formats.dialects import OWN, SHOWN, Table, open_table, read_head
from tal_jax.formats.labels import (
    RecordingNames,
    address_path,
    collect,
    losses,
    recording_name,
)
from tal_jax.formats.media import Media

_LONGEST_S = 1e8  # three years; larger values are dates
_EMPTY = ("", "na", "n/a")  # of columns that are not needed in every row
# Values of a column that makes rows the starts and the stops of events.
_STARTS = {"start", "begin", "onset", "state start"}
_STOPS = {"stop", "end", "offset", "state stop"}
_OTHERS = {"", "point", "event", "state"}
_NUMBERS = ("start", "end", "point", "duration", "event_duration", "recording_duration")


def read_label_table(
    path: str | os.PathLike, text: str, *, subset: str, media: Media
) -> Annotations:
    """Parses a table of labels, or of detections where it has a column of scores.

    Args:
      path: of the file, for messages.
      text: its content.
      subset: of recordings where the table has none.
      media: for the frame rates of times in frames.

    Raises:
      InputError: if a column that is needed is missing or may mean several things, a row would lose
        its label or its time, times do not fit each other or their recording, or two files would be
        one recording.
    """
    table = open_table(str(path), text)
    return _Reader(table, media).read(subset)


def is_label_table(text: str) -> bool:
    """Whether the first line of a text names the columns of a table of labels."""
    head = read_head(text)
    roles = {column.role for column in head.known.values()}
    return {"recording", "label"} <= roles and bool(roles & {"start", "end", "point"})


def to_label_table(labels: Annotations) -> tuple[bytes, list[str]]:
    """Returns the content of a table of labels, and what it cannot hold, a line each."""
    keys = [key for key in OWN if key != "score" or labels.detections]
    rows: list[Sequence[Any]] = [keys]
    for name, recording in labels.recordings.items():
        first = (name, recording.subset, recording.duration_s)
        for one in recording.instances:
            row = (*first, one.label, one.start_s, one.end_s, one.point_s, one.score)
            rows.append(row[: len(keys)])
        if not recording.instances:
            rows.append((*first, *[""] * (len(keys) - 3)))
    lost = losses(labels, "subsets", "durations", "empty", "labels", "both", "scores")
    return files.csv_bytes(rows), lost


# --- rows ---


@dataclasses.dataclass
class _Row:
    """A row of the table, times in seconds."""

    line: int
    name: str
    label: str
    rate: float | None = None  # frames per second, where the table is in frames
    start_s: float | None = None
    end_s: float | None = None
    point_s: float | None = None
    event_s: float | None = None
    recording_s: float | None = None
    duration_s: float | None = None  # of the event or of the recording
    digits: int = 9  # after the decimal point of the shortest number
    fields: Sequence[str] = ()


class _Reader:
    def __init__(self, table: Table, media: Media):
        self.table, self.media, self.source = table, media, table.source
        self.notes: list[str] = []
        self.rates: dict[str, None] = {}  # those of videos, for a note
        self._named = RecordingNames()
        if {"class", "video_id", "point"} <= set(table.header):
            raise InputError(
                f"{self.source}: a table of points in frames, which `tal-jax points convert` "
                "reads; expected columns in seconds"
            )
        for role in ("recording", "label"):
            if not self._of(role):
                raise InputError(
                    f"{self.source}: no column {role!r}, found {table.listed()}; expected a first "
                    "line like recording,label,start_s,end_s,point_s"
                )
        self.decimal_comma = self._decimal_comma()
        self.recording = self._choose(
            "recording", lambda row, i: recording_name(address_path(row[i]))
        )
        self.label = self._choose("label")
        self.subset = self._choose("subset")
        self.score = self._choose("score")
        self.fps = self._choose("fps", self._plain_number)
        self.rows = [row for row in map(self._names, table.rows) if row is not None]
        self.times = {role: self._choose_time(role) for role in _NUMBERS}
        self._drop_other_times()

    def read(self, subset: str) -> Annotations:
        rows = self.rows
        for row in rows:
            self._fill(row)
        self._check_columns()
        self._resolve_durations()
        details: dict[str, tuple[str, float | None]] = {}
        rates: dict[str, set[float | None]] = {}
        instances: dict[str, list[Instance]] = {}
        beyond = 0
        for row in rows:
            where = f"{self.source}: line {row.line}"
            given = self._field(row.fields, self.subset)
            found = (given or subset, row.recording_s)
            if details.setdefault(row.name, found) != found:
                raise InputError(
                    f"{where}: {row.name[:SHOWN]}: another subset or duration than further up"
                )
            rates.setdefault(row.name, set()).add(row.rate)
            instances.setdefault(row.name, [])
            if row.label:
                instance = self._instance(row, where)
                beyond += self._check_instance(row, instance, where)
                instances[row.name].append(instance)
        self._compare_durations(details)
        if beyond:
            self.notes.append(f"instances that end after their recording: {beyond}")
        recordings = {}
        for name, found in instances.items():
            [rate] = rates[name] if len(rates[name]) == 1 else [None]
            recordings[name] = RecordingAnnotation(*details[name], tuple(found), rate)
        self._check_times([one for found in instances.values() for one in found])
        if self.rates:
            self.notes.append(
                f"times in frames, converted at {', '.join(list(self.rates)[:3])}; --fps N sets "
                "another rate"
            )
        if self.table.comments:
            self.notes.append(f"lines that begin with #, left out: {self.table.comments}")
        return collect(self.source, recordings, detections=self.score is not None, notes=self.notes)

    # --- columns ---

    def _of(self, role: str) -> list[int]:
        return [index for index, column in self.table.known.items() if column.role == role]

    def _choose(
        self, role: str, value: Callable[[Sequence[str], int], Any] | None = None
    ) -> int | None:
        """Returns the column of a role; others of its rank must agree with it in all rows."""
        found = sorted(self._of(role), key=lambda index: self.table.known[index].rank)
        if not found:
            return None
        value = value or (lambda row, index: row[index])
        chosen = found[0]
        for other in found[1:]:
            for line, row in self.table.rows:
                if value(row, chosen) == value(row, other):
                    continue
                names = f"columns {self.table.name(chosen)} and {self.table.name(other)}"
                if self.table.known[other].rank == self.table.known[chosen].rank:
                    raise InputError(
                        f"{self.source}: line {line}: {names} differ, {row[chosen][:SHOWN]!r} and "
                        f"{row[other][:SHOWN]!r}, and both may be the {role}; expected one of them"
                    )
                self.notes.append(
                    f"column {self.table.name(other)} is not used, {self.table.name(chosen)} is "
                    f"the {role}"
                )
                break
        return chosen

    def _choose_time(self, role: str) -> int | None:
        """Returns the column of a time: seconds rather than frames; others must agree with it."""
        found, known = self._of(role), self.table.known
        best = min((known[index].rank for index in found), default=0)
        weaker = [index for index in found if known[index].rank > best]
        found = [index for index in found if known[index].rank == best]
        # A column without a unit that holds the numbers of one with a unit has its unit.
        for plain in [index for index in found if known[index].unit is None]:
            others = [index for index in found if known[index].unit is not None]
            if any(self._same_numbers(plain, other) for other in others):
                found.remove(plain)
        in_frames = [index for index in found if known[index].unit == FRAMES]
        in_seconds = [index for index in found if index not in in_frames]
        unused = [*weaker, *(in_frames if in_seconds else [])]
        candidates = in_seconds or in_frames
        for row in self.rows:
            if len(candidates) < 2:
                break
            first, *rest = (self._seconds(row, index) for index in candidates)
            for index, other in zip(candidates[1:], rest, strict=True):
                if (first is None) != (other is None) or (
                    first is not None and other is not None and abs(first - other) > 0.0015
                ):
                    raise InputError(
                        f"{self.source}: line {row.line}: columns {self.table.name(candidates[0])} "
                        f"and {self.table.name(index)} differ, "
                        f"{row.fields[candidates[0]][:SHOWN]!r} and "
                        f"{row.fields[index][:SHOWN]!r}, and both may be the {role}; expected one "
                        "of them"
                    )
        chosen = candidates[0] if candidates else None
        if unused and chosen is not None:
            self.notes.append(
                f"column {self.table.name(chosen)} is the {role}, not used: "
                f"{', '.join(map(self.table.name, unused))}"
            )
        return chosen

    def _drop_other_times(self) -> None:
        """Beside starts and ends, a column "time" or "timestamp" may be anything else."""
        start, end, point = (self.times[role] for role in ("start", "end", "point"))
        if start is None or end is None or point is None or not self.table.known[point].rank:
            return
        for row in self.rows:
            try:
                low, high, time = (self._seconds(row, index) for index in (start, end, point))
            except InputError:
                time, low, high = None, 0.0, 0.0
            if low is None or high is None:
                continue
            if time is None or not low <= time <= high:
                self.notes.append(
                    f"column {self.table.name(point)} is not used, it is outside of the events"
                )
                self.times["point"] = None
                return

    def _same_numbers(self, one: int, other: int) -> bool:
        pairs = [(row[one], row[other]) for _, row in self.table.rows if row[one] or row[other]]
        return bool(pairs) and all(a == b for a, b in pairs)

    def _check_columns(self) -> None:
        start, end = self.times["start"], self.times["end"]
        if start is not None and end is None:
            if self.times["event_duration"] is None and self.times["duration"] is None:
                raise InputError(
                    f"{self.source}: column {self.table.name(start)} without one of ends, found "
                    f"{self.table.listed()}; expected end, stop, offset or duration, or the name "
                    "point for single instants"
                )
        elif end is not None and start is None:
            raise InputError(
                f"{self.source}: column {self.table.name(end)} without one of starts, found "
                f"{self.table.listed()}; expected start, begin or onset"
            )
        if start is None and self.times["point"] is not None:
            self._refuse_starts_and_stops()

    def _refuse_starts_and_stops(self) -> None:
        for index in range(len(self.table.header)):
            values = {row[index].lower() for _, row in self.table.rows}
            if index == self.label or not values <= _STARTS | _STOPS | _OTHERS:
                continue
            if values & _STARTS and values & _STOPS:
                raise InputError(
                    f"{self.source}: column {self.table.name(index)} makes each row a start or a "
                    "stop; expected one row per event with its start and its end"
                )

    def _compare_durations(self, details: dict[str, tuple[str, float | None]]) -> None:
        """Notes durations that are not those of the recordings' files.

        A column that may as well be something else gives way to the files.
        """
        if self.table.is_own:
            return
        other, explicit = [], self.times["recording_duration"] is not None
        for name, (subset, duration_s) in details.items():
            media_s = None if duration_s is None else self.media.duration_s(name)
            if duration_s is not None and media_s is not None:
                if abs(duration_s - media_s) > max(0.5, 0.02 * media_s):
                    other.append(f"{name[:SHOWN]} ({duration_s:g}, not {media_s:g} s)")
                    details[name] = (subset, duration_s if explicit else media_s)
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            self.notes.append(
                "durations that are not those of the recordings' files, "
                f"{'kept' if explicit else 'replaced'}: {', '.join(other[:3])}{more}"
            )

    def _check_times(self, instances: Sequence[Instance]) -> None:
        timeless = sum(one.start_s is None and one.point_s is None for one in instances)
        if self.table.is_own or not timeless:
            return
        if all(self.times[role] is None for role in ("start", "point")):
            raise InputError(
                f"{self.source}: labels without a column of times, found {self.table.listed()}; "
                "expected start and end, or point, with a unit such as start_s, start_ms or "
                "start_frame; for labels of whole recordings, add empty columns start and end"
            )
        self.notes.append(f"rows with a label and without a time: {timeless}")

    # --- fields ---

    def _field(self, fields: Sequence[str], index: int | None) -> str:
        return "" if index is None else fields[index]

    def _names(self, numbered: tuple[int, list[str]]) -> _Row:
        line, fields = numbered
        assert self.recording is not None and self.label is not None
        name = self._named.find(fields[self.recording], f"{self.source}: line {line}")
        return _Row(line, name, fields[self.label], fields=fields)

    def _decimal_comma(self) -> bool:
        """Whether numbers have decimal commas; refuses what may as well be thousands."""
        known = {
            index: column
            for index, column in self.table.known.items()
            if column.role in (*_NUMBERS, "fps", "score")
        }
        found = [
            (line, row[index], column.unit)
            for line, row in self.table.rows
            for index, column in known.items()
        ]
        commas = [one for one in found if "," in one[1]]
        if not commas:
            return False
        line, value, _ = commas[0]
        where = f"{self.source}: line {line}: the number {value[:SHOWN]!r}"
        if any("." in one[1] for one in found):
            raise InputError(
                f"{where} has a decimal comma, others have decimal points; expected one of them"
            )
        thousands = [re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", one[1]) for one in commas]
        whole = any(unit not in (None, "s", "min") for _, _, unit in commas)
        if all(thousands) and (self.table.delimiter == "," or whole):
            raise InputError(
                f"{where} has a decimal comma or separates thousands; expected a decimal point, or "
                "no separator"
            )
        return True

    def _number(self, row: _Row, index: int | None, what: str) -> float | None:
        """Reads a number; times may be hours, minutes and seconds between colons."""
        text = self._field(row.fields, index)
        if index is None or not text:
            return None
        column = self.table.known[index]
        if "duration" in column.role and text.lower() in _EMPTY:
            return None
        plain = text.replace(",", ".", 1) if self.decimal_comma else text
        clock = re.fullmatch(r"(\d+):([0-5]?\d):([0-5]?\d(?:\.\d+)?)", plain)
        if clock and column.unit in (None, "s") and column.role in _NUMBERS:
            return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
        if ":" in text and column.role in _NUMBERS:
            raise InputError(
                f"{self.source}: line {row.line}: {what} is {text[:SHOWN]!r}, expected a number, "
                "or h:mm:ss in a column of seconds"
            )
        point = plain.rpartition(".")
        row.digits = min(row.digits, len(point[2]) if point[1] else 0)
        source = f"{self.source}: line {row.line}: {what}"
        return files.to_number(plain if len(text) <= SHOWN else text[:SHOWN], source)

    def _plain_number(self, fields: Sequence[str], index: int) -> Any:
        try:
            return float(fields[index].replace(",", "."))
        except ValueError:
            return fields[index]

    def _seconds(self, row: _Row, index: int | None) -> float | None:
        if index is None:
            return None
        column = self.table.known[index]
        what = {"recording_duration": "duration_s"}.get(column.role, f"{column.role}_s")
        number = self._number(row, index, what)
        if number is None:
            return None
        if column.unit == FRAMES:
            row.rate = row.rate or self._rate(row, index)
        found = columns.seconds(number, column.unit, row.rate)
        if abs(found) > _LONGEST_S and not self.table.is_own:
            raise InputError(
                f"{self.source}: line {row.line}: {what} is {row.fields[index][:SHOWN]!r}, "
                "expected a time from the start of the recording, not a date"
            )
        return found

    def _rate(self, row: _Row, index: int) -> float:
        source = f"{self.source}: line {row.line}"
        if self.media.given_rate is not None:
            return self.media.given_rate
        text = self._field(row.fields, self.fps)
        if text.lower() not in _EMPTY:
            rate = files.to_number(self._plain_number(row.fields, self.fps or 0), f"{source}: fps")
            if not rate > 0:
                raise InputError(f"{source}: fps is {text!r}, expected a number above 0")
            return rate
        rate = self.media.video_rate(row.name)
        if rate is None:
            raise InputError(
                f"{source}: column {self.table.name(index)} is in frames, and the frame rate of "
                f"{row.name[:SHOWN]!r} is not known; expected --fps, a column fps, or the video "
                "in the folder of the file or of --recordings"
            )
        self.rates[f"{rate:.6g} a second, the rate of the video"] = None
        return rate

    # --- times ---

    def _fill(self, row: _Row) -> None:
        times = self.times
        row.start_s = self._seconds(row, times["start"])
        row.end_s = self._seconds(row, times["end"])
        row.point_s = self._seconds(row, times["point"])
        row.event_s = self._seconds(row, times["event_duration"])
        row.recording_s = self._seconds(row, times["recording_duration"])
        row.duration_s = self._seconds(row, times["duration"])
        anywhere = (row.start_s, row.end_s, row.point_s, row.event_s)
        if not row.label and any(time is not None for time in anywhere):
            raise InputError(f"{self.source}: line {row.line}: a time without a label")

    def _resolve_durations(self) -> None:
        """Decides whether durations are those of events or of recordings; adds missing ends."""
        column = self.times["duration"]
        if column is not None:
            if self.table.is_own:
                is_event = False
            elif self.times["recording_duration"] is not None:
                is_event = any(row.duration_s != row.recording_s for row in self.rows)
            else:
                is_event = self._is_of_events(column)
            for row in self.rows:
                if not is_event:
                    row.recording_s = row.duration_s
                elif row.event_s is None:
                    row.event_s = row.duration_s
        if self.times["start"] is None:
            if any(row.event_s is not None for row in self.rows):
                self.notes.append("durations of events are not used, since the rows have no starts")
            return
        for row in self.rows:
            if row.start_s is None or row.event_s is None:
                continue
            if self.times["end"] is None:
                row.end_s = row.start_s + row.event_s
            elif row.end_s is not None and not self._is_length(row, row.event_s):
                raise InputError(
                    f"{self.source}: line {row.line}: the event is from {row.start_s:g} to "
                    f"{row.end_s:g} s and lasts {row.event_s:g} s, expected end - start"
                )

    def _is_of_events(self, column: int) -> bool:
        rows = [row for row in self.rows if row.duration_s is not None]
        if self.times["start"] is not None and self.times["end"] is None:
            return True
        segments = [row for row in rows if row.start_s is not None and row.end_s is not None]
        if segments and all(self._is_length(row, row.duration_s) for row in segments):
            return True
        late = next((row for row in rows if _last(row) > (row.duration_s or 0) + ROUNDING_S), None)
        if segments and late:
            raise InputError(
                f"{self.source}: line {late.line}: {late.label[:SHOWN]!r} ends at "
                f"{_last(late):g} s, after {late.duration_s:g} s of column "
                f"{self.table.name(column)}; expected the duration of the recording, or end - "
                "start of the event in every row"
            )
        if segments or self.times["point"] is None:
            return False
        lengths: dict[str, set[float | None]] = {}
        for row in rows:
            lengths.setdefault(row.name, set()).add(row.duration_s)
        if late or any(len(found) > 1 for found in lengths.values()):
            return True
        for name, found in lengths.items():
            media_s = self.media.duration_s(name)
            if media_s is not None and abs(media_s - (next(iter(found)) or 0)) > 0.5:
                return True
        if rows:
            self.notes.append(
                f"column {self.table.name(column)} is taken as the duration of the recordings"
            )
        return False

    def _is_length(self, row: _Row, duration_s: float | None) -> bool:
        assert row.start_s is not None and row.end_s is not None and duration_s is not None
        # Durations are often rounded, and may count the last frame.
        tolerance_s = min(0.5 * 10.0**-row.digits, 0.05) + 0.002
        if row.rate is not None:
            tolerance_s += 1.0 / row.rate
        return abs(row.end_s - row.start_s - duration_s) <= tolerance_s

    def _instance(self, row: _Row, where: str) -> Instance:
        score = None
        if self.score is not None:
            text = row.fields[self.score].replace(",", ".", 1 if self.decimal_comma else 0)
            score = files.to_number(text[:SHOWN], f"{where}: score")
        start_s, end_s, point_s = row.start_s, row.end_s, row.point_s
        if (start_s is None) != (end_s is None):
            raise InputError(
                f"{where}: a start without an end or the reverse, expected both or none"
            )
        if start_s is not None and start_s == end_s and point_s is None:
            start_s, end_s, point_s = None, None, start_s
        return Instance(row.label, start_s, end_s, point_s, score)

    def _check_instance(self, row: _Row, instance: Instance, where: str) -> bool:
        """Checks times of tables from elsewhere; returns whether an instance ends too late."""
        last_s = _last(row)
        late = row.recording_s is not None and last_s > row.recording_s + ROUNDING_S
        if self.table.is_own:
            return late
        label = f"{where}: {instance.label[:SHOWN]!r}"
        if late:
            raise InputError(
                f"{label} ends at {last_s:g} s, after its recording of {row.recording_s:g} s; "
                "expected times within the recording"
            )
        low, high = row.start_s, row.end_s
        if low is not None and high is not None and not 0 <= low <= high:
            raise InputError(
                f"{label} is from {low:g} to {high:g} s, expected 0 <= start and start <= end"
            )
        if row.point_s is not None and row.point_s < 0:
            raise InputError(f"{label} is at {row.point_s:g} s, expected a time of 0 or more")
        point = self.times["point"]
        if low is not None and high is not None and row.point_s is not None and point is not None:
            if not low <= row.point_s <= high:
                raise InputError(
                    f"{label} is from {low:g} to {high:g} s, and {row.point_s:g} s of column "
                    f"{self.table.name(point)} is outside; expected a point within the event"
                )
        return False


def _last(row: _Row) -> float:
    times: Iterable[float | None] = (row.start_s, row.end_s, row.point_s)
    return max((time for time in times if time is not None and row.label), default=0.0)
