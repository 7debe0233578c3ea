"""Reads .csv files of sensor loggers: columns by name, whatever separates and surrounds them.

Read are commas, semicolons, tabs and spaces between fields, decimal commas, comments and other
lines above the column names, a second line with units, and the files of ActiGraph, Empatica and
LabChart, which write times in a way of their own.
"""

import csv
import dataclasses
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.extraction.time_columns import is_date, is_number, is_time

_DELIMITERS = (",", ";", "\t", "|")
_COMMENTS = ("#", "%", "//")
_SAMPLE_LINES = 200  # that the delimiter is found from
_HEADER_LINES = 100  # among which the column names are looked for
_UNIT_LINES = 3

_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(?:,\d{3})+\s*")
_ACTIGRAPH_RATE = re.compile(r"\bat (\d+(?:[.,]\d+)?) ?Hz", re.IGNORECASE)
_ACTIGRAPH_EPOCH = re.compile(r"epoch period[^\d]*(\d+):(\d+):(\d+)", re.IGNORECASE)
_SETTING = re.compile(r"(\w+)=\s*(.*)")  # of LabChart
# The start of a recording of Empatica in seconds since 1970: the years 2000 to 2100.
_START_S = (946_684_800.0, 4_102_444_800.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a table."""

    values: dict[str, np.ndarray]  # by name, in order
    units: dict[str, str] = dataclasses.field(default_factory=dict)  # of a second header line
    nameless: frozenset[str] = frozenset()  # columns whose name stands for an empty one
    notes: tuple[str, ...] = ()


Rows = list[tuple[int, list[str]]]  # number of the line, fields


def read_columns(path: str | os.PathLike, *, time: str = "") -> Columns:
    """Reads the columns of a `.csv`, as numbers where a column holds nothing else.

    Args:
      path: the file.
      time: name of the column of time, where it is not found by itself.

    Raises:
      InputError: if the file cannot be read, has no names of columns, or is written in a way that
        can be read in two.
    """
    plain = _read_plain(path, time)
    return _read_text(path, time) if plain is None else plain


def _read_plain(path: str | os.PathLike, time: str) -> Columns | None:
    """Reads columns of numbers alone, in a tenth of the time and memory of fields; else None."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about no samples, which is an error later
            header = _strip(next(csv.reader(file, strict=True), []))
            if len(header) < 2 or not any(name == time or is_time(name) for name in header):
                return None
            rows = np.loadtxt(file, delimiter=",", comments=None, quotechar='"', ndmin=2)
    except (OSError, ValueError, csv.Error):
        return None  # reading fields finds dates, other dialects, or the error
    if rows.shape[1] != len(header) or len(set(header)) < len(header):
        return None
    names, nameless = _named(header)
    return Columns(dict(zip(names, rows.T, strict=True)), nameless=nameless)


def _read_text(path: str | os.PathLike, time: str) -> Columns:
    text = _decode(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: empty, expected a line of column names and samples")
    delimiter = None
    written = re.fullmatch(r'"?sep=(.)"?', lines[0][1].strip("\n"), re.IGNORECASE)
    if written:  # for Excel
        delimiter, lines = written[1], lines[1:]
    if lines and lines[0][1].startswith("---") and "ActiGraph" in lines[0][1]:
        return _read_actigraph(path, lines, time)
    comments = [line for _, line in lines if line.lstrip().startswith(_COMMENTS)]
    lines = [one for one in lines if not one[1].lstrip().startswith(_COMMENTS)]
    delimiter = delimiter or _find_delimiter([line for _, line in lines])
    rows = _split(path, lines, delimiter)
    if not rows:
        raise InputError(f"{path}: empty, expected a line of column names and samples")
    if _is_labchart(rows):
        return _read_labchart(path, rows)
    if _is_empatica(rows):
        return _read_empatica(path, rows)
    if _all_numbers(rows[0][1]) and comments:  # NumPy writes the names as a comment
        names = _split(path, [(0, comments[-1].lstrip().lstrip("#%/ "))], delimiter)
        rows = names + rows
    return _build(path, rows, time)


def _decode(path: str | os.PathLike) -> str:
    """Decodes UTF-8, UTF-16 with a byte order mark, and the code page of Windows in the West."""
    try:
        content = Path(path).read_bytes()
        try:
            return files.decode_text(content, allow_utf_16=True)
        except UnicodeDecodeError as error:
            # Only names and units hold such letters; control characters are no text.
            if min(content) < 9:
                raise error
            return content.decode("cp1252").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {files.reason_of(error)}") from error


# --- lines and fields ---


def _find_delimiter(lines: Sequence[str]) -> str:
    """Returns what separates the same number of fields, mostly numbers, in most lines."""
    sample, best = lines[:_SAMPLE_LINES], (",", (0.0, 0.0))
    for delimiter in _DELIMITERS:
        quality = _quality(sample, delimiter)
        if quality > best[1]:
            best = delimiter, quality
    if best[1][0] > 0:
        return best[0]
    return " " if _quality(sample, " ")[0] == 1.0 and len(sample) > 1 else ","


def _quality(lines: Sequence[str], delimiter: str) -> tuple[float, float]:
    """The part of the lines with the usual number of fields, and that of numbers in them."""
    try:
        rows = [row for line in lines for row in _fields([line], delimiter)]
    except csv.Error:
        return 0.0, 0.0
    counts = [len(row) for row in rows]
    usual = max(set(counts), key=lambda count: (counts.count(count), count), default=0)
    if usual < 2:
        return 0.0, 0.0
    fields = [field for row in rows if len(row) == usual for field in row]
    numbers = sum(
        is_number(field) or (delimiter != "," and _DECIMAL_COMMA.fullmatch(field) is not None)
        for field in fields
    )
    return counts.count(usual) / len(counts), numbers / len(fields)


def _fields(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=delimiter, strict=True))


def _split(path: str | os.PathLike, lines: Sequence[tuple[int, str]], delimiter: str) -> Rows:
    if delimiter == " ":
        return [(number, line.split()) for number, line in lines]
    reader = csv.reader([f"{line}\n" for _, line in lines], delimiter=delimiter, strict=True)
    rows = []
    try:
        for fields in reader:
            rows.append((lines[reader.line_num - 1][0], fields))
    except csv.Error as error:
        at = lines[min(reader.line_num, len(lines)) - 1][0] if lines else 1
        raise InputError(f"{path}: line {at}: {error}") from error
    return [(number, fields) for number, fields in rows if any(map(str.strip, fields))]


def _strip(names: Sequence[str]) -> list[str]:
    """Removes spaces, and the quotes that are none to csv because of a space before them."""
    return [name.strip().strip('"').strip() for name in names]


def _all_numbers(fields: Sequence[str]) -> bool:
    return bool(fields) and all(_number_like(field) for field in fields if field.strip())


def _number_like(field: str) -> bool:
    return is_number(field) or _DECIMAL_COMMA.fullmatch(field) is not None


# --- from rows to columns ---


def _build(
    path: str | os.PathLike, rows: Rows, time: str, *, extra: np.ndarray | None = None
) -> Columns:
    """Returns the columns below the line of names; `extra` replaces a missing column of time."""
    at = _find_header(path, rows, time)
    header = _strip(rows[at][1])
    notes = (f"{at} line{'s' * (at > 1)} above the column names skipped",) if at else ()
    if _all_numbers(header):
        raise InputError(f"{path}: the first line holds numbers, expected the columns' names")
    body = rows[at + 1 :]
    units, body = _take_units(header, body)
    header, body = _even(header, body)
    for number, (_, row) in enumerate(body, start=1):
        if len(row) != len(header):
            hint = ""
            if len(row) == 2 * len(header):
                hint = "; decimal commas need semicolons or tabs between the fields"
            raise InputError(
                f"{path}: sample {number} has {len(row)} fields, the first line has "
                f"{len(header)}{hint}"
            )
    fields = np.array([row for _, row in body], object).reshape(-1, len(header))
    columns = list(fields.T)
    blank = [
        not name and not any(map(str.strip, c)) for name, c in zip(header, columns, strict=True)
    ]
    header = [name for name, empty in zip(header, blank, strict=True) if not empty]
    columns = [column for column, empty in zip(columns, blank, strict=True) if not empty]
    check_unique(path, header)
    names, nameless = _named(header)
    values = dict(zip(names, _decimal_points(path, columns), strict=True))
    if extra is not None and not any(map(is_time, values)):
        values = {"time_s": extra[: len(body)], **values}
    return Columns(values, units, nameless, notes)


def _find_header(path: str | os.PathLike, rows: Rows, time: str) -> int:
    """Returns the index of the row with the names: the first with a column of time, else 0."""
    for at, (number, fields) in enumerate(rows[:_HEADER_LINES]):
        names = _strip(fields)
        if len(names) < 2 or not any(name == time or is_time(name) for name in names):
            continue
        if any(map(_number_like, filter(None, names))):
            continue
        above = [row for row in rows[:at] if len(row[1]) == len(names) and _all_numbers(row[1])]
        if above:
            raise InputError(
                f"{path}: line {above[0][0]} holds numbers above the column names in line "
                f"{number}; expected names in the first line"
            )
        return at
    return 0


def _take_units(header: Sequence[str], body: Rows) -> tuple[dict[str, str], Rows]:
    """Splits off lines of units, or other words, between the names and the first sample."""
    count = 0
    while count < min(_UNIT_LINES, len(body)) and not any(
        map(_is_value, filter(str.strip, body[count][1]))
    ):
        count += 1
    if count == len(body) or not any(map(_is_value, body[count][1])):
        return {}, body
    units: dict[str, str] = {}
    for _, row in body[:count]:
        for name, field in zip(header, row, strict=False):
            units[name] = units.get(name) or field.strip().strip("[]()").strip().lower()
    return units, body[count:]


def _is_value(field: str) -> bool:
    return _number_like(field) or is_date(field)


def _even(header: list[str], body: Rows) -> tuple[list[str], Rows]:
    """Mends lines that all end with a delimiter, and row names of R, which have no name."""
    widths = {len(row) for _, row in body}
    if len(widths) != 1:
        return header, body
    extra = widths.pop() - len(header)
    if extra == 1 and not any(row[-1].strip() for _, row in body):
        return [*header, ""], body
    if extra == 1 and [row[0].strip() for _, row in body] == list(
        map(str, range(1, len(body) + 1))
    ):
        return ["", *header], body
    if extra == -1 and not header[-1]:
        return header[:-1], body
    return header, body


def check_unique(path: str | os.PathLike, names: Sequence[str]) -> None:
    """Raises an InputError if two columns have the same name."""
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns are named {twice[0]!r}")


def _named(header: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """Gives columns without a name, such as an index that pandas wrote, one by their place."""
    names = [name or f"column {number}" for number, name in enumerate(header, start=1)]
    nameless = {name for name, written in zip(names, header, strict=True) if not written}
    return names, frozenset(nameless)


def _decimal_points(path: str | os.PathLike, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Replaces decimal commas, unless they may be marks of thousands."""
    with_commas, example, certain = [], "", False
    for index, column in enumerate(columns):
        marked = [value for value in column if "," in value]
        if marked and all(map(_DECIMAL_COMMA.fullmatch, marked)):
            if any(map(_is_with_point, column)):
                raise InputError(
                    f"{path}: {marked[0].strip()} and numbers with a decimal point in one column; "
                    "expected points alone"
                )
            with_commas.append(index)
            example = example or marked[0].strip()
            certain |= not all(map(_THOUSANDS.fullmatch, marked))
    if with_commas and not certain:
        raise InputError(
            f"{path}: the comma in {example} may mark decimals or thousands; expected decimal "
            "points"
        )
    changed = set(with_commas)
    return [
        np.array([value.replace(",", ".") for value in column], object) if i in changed else column
        for i, column in enumerate(columns)
    ]


def _is_with_point(value: str) -> bool:
    return "." in value and is_number(value)


# --- files of devices ---


def _read_actigraph(
    path: str | os.PathLike, lines: Sequence[tuple[int, str]], time: str
) -> Columns:
    """Reads a file of ActiLife: ten lines about the device, then samples at a constant rate."""
    ends = [i for i, (_, line) in enumerate(lines[1:_HEADER_LINES], 1) if line.startswith("---")]
    about = " ".join(line for _, line in lines[: ends[0] + 1]) if ends else lines[0][1]
    rate = _ACTIGRAPH_RATE.search(about)
    epoch = _ACTIGRAPH_EPOCH.search(about)
    step_s = 0.0
    if epoch:
        hours, minutes, seconds = map(int, epoch.groups())
        step_s = float((hours * 60 + minutes) * 60 + seconds)
    if not step_s and rate and float(rate[1].replace(",", ".")) > 0:
        step_s = 1 / float(rate[1].replace(",", "."))
    if not ends or not step_s:
        raise InputError(
            f"{path}: a file of ActiGraph whose lines about the device give no rate (at 30 Hz) or "
            "are incomplete; expected the .csv that ActiLife exports"
        )
    below = lines[ends[0] + 1 :]
    delimiter = _find_delimiter([line for _, line in below])
    rows = _split(path, below, delimiter)
    if not rows:
        raise InputError(f"{path}: a file of ActiGraph without samples")
    if _all_numbers(rows[0][1]):
        names = [f"channel_{number}" for number in range(1, len(rows[0][1]) + 1)]
        rows = [(0, names), *rows]
    columns = _build(path, rows, time, extra=np.arange(len(rows)) * step_s)
    note = f"ActiGraph: {1 / step_s:.4g} Hz"
    return dataclasses.replace(columns, notes=(note, *columns.notes))


def _is_empatica(rows: Rows) -> bool:
    """Whether the first line is the start, in every column, and the second the rate."""
    if len(rows) < 4 or not all(_all_numbers(row) for _, row in rows[:3]):
        return False
    starts, rates = ({field.strip() for field in row} for _, row in rows[:2])
    if len(starts) != 1 or len(rates) != 1 or "" in starts | rates:
        return False
    if not all(is_number(field) for field in starts | rates):
        return False
    start_s, rate = float(starts.pop()), float(rates.pop())
    return _START_S[0] <= start_s <= _START_S[1] and 0.1 <= rate <= 10_000


def _read_empatica(path: str | os.PathLike, rows: Rows) -> Columns:
    rate = float(rows[1][1][0])
    names = [f"channel_{number}" for number in range(1, len(rows[0][1]) + 1)]
    times_s = np.arange(len(rows)) / rate
    columns = _build(path, [(0, names), *rows[2:]], "", extra=times_s)
    return dataclasses.replace(columns, notes=(f"Empatica: {rate:.4g} Hz", *columns.notes))


def _is_labchart(rows: Rows) -> bool:
    return any(row[0].startswith("ChannelTitle=") for _, row in rows[:_HEADER_LINES])


def _read_labchart(path: str | os.PathLike, rows: Rows) -> Columns:
    """Reads one block of LabChart: settings, then times in seconds and the channels."""
    count = next((i for i, (_, row) in enumerate(rows) if not _SETTING.match(row[0])), len(rows))
    settings = {_SETTING.match(row[0])[1]: row for _, row in rows[:count]}  # pyright: ignore
    if "ChannelTitle" not in settings:
        raise InputError(f"{path}: a file of LabChart without ChannelTitle above the samples")
    titles = [name.strip() for name in settings["ChannelTitle"][1:]]
    again = [number for number, row in rows[count:] if _SETTING.match(row[0])]
    if again:
        raise InputError(
            f"{path}: a file of LabChart with a second block in line {again[0]}; expected one, "
            "export the blocks separately"
        )
    width = len(rows[count][1]) if count < len(rows) else 0
    names = ["time", *(title or f"channel_{i}" for i, title in enumerate(titles, 1))][:width]
    columns = _build(path, [(0, names), *rows[count:]], "")
    return dataclasses.replace(columns, notes=("LabChart", *columns.notes))
