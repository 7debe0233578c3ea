"""Tables of one program, whose columns have fixed names; `dialects` reads those of any other."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

from tal_jax._errors import InputError

_LOOKED_AT = 200  # lines in which the names of the columns are looked for


@dataclasses.dataclass(frozen=True)
class NamedRows:
    """Rows by the names of their columns, which are in lower case.

    Attributes:
      rows: number of the line, and text by name; of equal names the first counts.
      before: rows before the names of the columns.
      columns: the names.
      decimal_comma: whether numbers may have a decimal comma: the columns have no commas between.
    """

    rows: list[tuple[int, dict[str, str]]]
    before: list[list[str]]
    columns: list[str]
    decimal_comma: bool


def has_columns(text: str, heads: Sequence[set[str]], delimiters: str) -> bool:
    """Whether one of the first lines has all the names of one of these sets."""
    return any(_find(text, heads, delimiter, True) for delimiter in delimiters)


def read_named_rows(
    source: str, text: str, heads: Sequence[set[str]], delimiters: str, *, quotes: bool = True
) -> NamedRows:
    """Reads a table from the line on that has all the names of one of these sets.

    Args:
      source: path, for messages.
      text: the content.
      heads: sets of names in lower case.
      delimiters: characters that may be between the columns.
      quotes: whether fields may be in quotes; otherwise a quote is a character like any other.

    Raises:
      InputError: if there is none, its quotes are wrong, or a row has more or fewer fields.
    """
    for delimiter in delimiters:
        found = _find(text, heads, delimiter, quotes)
        if found is not None:
            break
    else:
        raise InputError(f"{source}: no line with the names of the columns")
    reader = _reader(text, delimiter, quotes)
    before: list[list[str]] = []
    rows, columns = [], found[1]
    try:
        for number, fields in enumerate(reader):
            row = [field.strip() for field in fields]
            if number < found[0]:
                before.append(row)
            if number <= found[0] or not any(row):
                continue
            while len(row) > len(columns) and not row[-1]:
                row.pop()
            if len(row) != len(columns):
                raise InputError(
                    f"{source}: line {reader.line_num} has {len(row)} columns, expected "
                    f"{len(columns)} as in the line with their names"
                )
            named: dict[str, str] = {}
            for name, field in zip(columns, row, strict=True):
                named.setdefault(name, field)
            rows.append((reader.line_num, named))
    except csv.Error as error:
        reason = str(error).replace("\t", "tab")
        raise InputError(f"{source}: line {reader.line_num}: {reason}") from error
    return NamedRows(rows, before, columns, delimiter != ",")


def _reader(text: str, delimiter: str, quotes: bool) -> Any:
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    return csv.reader(io.StringIO(text), delimiter=delimiter, quoting=quoting, strict=True)


def _find(
    text: str, heads: Sequence[set[str]], delimiter: str, quotes: bool
) -> tuple[int, list[str]] | None:
    """The number of the row with the names of the columns, and these names."""
    try:
        for number, fields in enumerate(_reader(text, delimiter, quotes)):
            names = [field.strip().lower() for field in fields]
            if any(head <= set(names) for head in heads):
                while not names[-1]:
                    names.pop()
                return number, names
            if number >= _LOOKED_AT:
                break
    except csv.Error:
        pass
    return None
