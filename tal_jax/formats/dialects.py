"""Dialects of tables: delimiters, comments, and the line that names the columns.

Python's `csv.Sniffer` guesses from how often characters occur. Here the names of the columns
decide: the delimiter is the one that gives the most known names.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tal_jax._errors import InputError
from tal_jax.formats import columns
from tal_jax.formats.columns import Column

# The columns that `label_table.to_label_table` writes; the last one for detections only.
OWN = ("recording", "subset", "duration_s", "label", "start_s", "end_s", "point_s", "score")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SHOWN = 60  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a table, and what the names of its columns mean."""

    source: str  # path, for messages
    header: list[str]
    known: dict[int, Column]  # by index
    rows: list[tuple[int, list[str]]]  # number of the line, fields without space around them
    delimiter: str
    is_own: bool  # whether the columns are those that `to_label_table` writes
    comments: int  # lines among the rows that are left out

    def name(self, index: int) -> str:
        """Returns the name of a column, for messages."""
        return repr(self.header[index][:SHOWN])

    def listed(self) -> str:
        """Returns the names of all columns, for messages."""
        names = [repr(name[:SHOWN]) for name in self.header if name]
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        return (", ".join(names[:12]) or "none")[:400] + more


@dataclasses.dataclass(frozen=True)
class Head:
    """The names of the columns, and the text that follows the lines before them."""

    body: str  # the text from the columns' names on, or from the first row on
    skipped: int  # lines before it
    in_comment: bool  # whether the names are in a comment, so that the body begins with a row
    delimiter: str
    header: list[str]
    known: dict[int, Column]


def read_head(text: str) -> Head:
    """Finds the first line that is no comment, and the delimiter of its columns."""
    lines = text.split("\n")
    first, named = 0, re.fullmatch(r"\s*sep=(.)\s*", lines[0])
    first += named is not None
    comment = ""
    while first < len(lines) and (not lines[first].strip() or lines[first].startswith("#")):
        comment = lines[first] if lines[first].strip() else comment
        first += 1
    body, delimiters = "\n".join(lines[first:]), [named[1]] if named else list(_DELIMITERS)
    delimiter, header = _header(body, delimiters)
    known = _columns(header)
    if comment and not _is_header(known):
        # The names of the columns may be in a comment, as NumPy writes them.
        at, names = _header(comment.lstrip("# "), delimiters)
        if _is_header(_columns(names)):
            return Head(body, first, True, at, names, _columns(names))
    return Head(body, first, False, delimiter, header, known)


def open_table(source: str, text: str) -> Table:
    """Splits a text into rows of fields.

    Raises:
      InputError: if a row has more or fewer fields than there are columns, or its quotes are wrong.
    """
    if "\0" in text:
        raise InputError(
            f"{source}: contains NUL characters; expected text in UTF-8, or in UTF-16 with a byte "
            "order mark"
        )
    head = read_head(text)
    delimiter, header = head.delimiter, head.header
    is_own = tuple(name.lower() for name in header) in (OWN, OWN[:-1])
    rows, comments = [], 0
    reader = _reader(head.body, delimiter)
    try:
        if not head.in_comment:
            next(reader, None)
        for fields in reader:
            line, row = head.skipped + reader.line_num, [field.strip() for field in fields]
            if not any(row):
                continue
            if row[0].startswith("#") and not is_own:
                comments += 1
                continue
            while len(row) > len(header) and not row[-1]:
                row.pop()
            if len(row) != len(header):
                raise InputError(_unequal(source, line, len(row), len(header), delimiter))
            rows.append((line, row))
    except csv.Error as error:
        reason = str(error).replace("\t", "tab")
        raise InputError(f"{source}: line {head.skipped + reader.line_num}: {reason}") from error
    return Table(source, header, head.known, rows, delimiter, is_own, comments)


def _reader(text: str, delimiter: str) -> Any:
    lines = io.StringIO(text)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def _header(text: str, delimiters: Iterable[str]) -> tuple[str, list[str]]:
    """Returns the delimiter that gives the most known columns, then the most columns."""
    best: tuple[int, int] = (-1, -1)
    delimiter, header = ",", [""]
    for candidate in delimiters:
        try:
            found = [name.strip() for name in next(_reader(text, candidate), [])]
        except (csv.Error, ValueError, TypeError):
            continue
        score = (len({column.role for column in _columns(found).values()}), len(found))
        if score > best:
            best, delimiter, header = score, candidate, found
    return delimiter, header


def _columns(header: Sequence[str]) -> dict[int, Column]:
    known = {index: columns.parse_name(name) for index, name in enumerate(header)}
    found = {index: column for index, column in known.items() if column is not None}
    words = {column.word for column in found.values()}
    return {
        index: column
        for index, column in found.items()
        if columns.PARTNERS.get(column.word, column.word) in words
    }


def _is_header(known: dict[int, Column]) -> bool:
    roles = {column.role for column in known.values()}
    return "recording" in roles or "label" in roles


def _unequal(source: str, line: int, found: int, expected: int, delimiter: str) -> str:
    text = (
        f"{source}: line {line} has {found} columns between {_DELIMITERS.get(delimiter, 'them')}, "
        f"expected {expected} as in the first line"
    )
    if delimiter == "," and found > expected:
        text += "; numbers with decimal commas need semicolons or tabs between columns, or quotes"
    return text
