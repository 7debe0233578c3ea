"""Reads tables of sensor samples with a column of time: csv, npy and parquet.

Samples of phones, watches and loggers have jitter, any unit of time, and any start. The times of a
table are seconds from the first sample; whatever would silently shift labels (gaps, decreasing
times, an unknown unit) is an error.
"""

import csv
import dataclasses
import datetime
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.lazy_features import load_npy

SUFFIXES = (".csv", ".npy", ".parquet")

# Names of columns of time, without their unit.
_TIME_NAMES = {"", "time", "t", "timestamp", "timestamps", "ts", "elapsed", "datetime", "epoch"}
_UNITS_S = {
    1.0: ("s", "sec", "secs", "second", "seconds"),
    1e-3: ("ms", "msec", "millis", "millisecond", "milliseconds"),
    1e-6: ("us", "usec", "micros", "microsecond", "microseconds"),
    1e-9: ("ns", "nsec", "nanos", "nanosecond", "nanoseconds"),
}
_SECONDS_OF = {name: seconds for seconds, names in _UNITS_S.items() for name in names}
# Larger than seconds since 1970 will be for three thousand years, smaller than milliseconds are.
_LONGEST_SECONDS = 1e11

# A gap in the samples: longer than jitter, and long enough to contain an action.
_GAP_STEPS = 3
_GAP_S = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The samples of one recording."""

    times_s: np.ndarray  # [n], increasing, in seconds from the first sample
    values: np.ndarray  # [n, channels] float64, finite
    names: tuple[str, ...]  # of the channels


def read_table(path: str | os.PathLike) -> Table:
    """Reads a table with a column of time; all other columns are channels.

    The column of time is named `time`, `t`, `timestamp` or similar, optionally followed by a unit
    (`time_s`, `timestamp_ms`, `t [us]`, `seconds`); the default unit is seconds. It contains
    numbers, or dates with a time of day (ISO 8601).

    Args:
      path: a `.csv` whose first line names the columns; a `.npy` with named fields, or plain
        `[n, 1 + channels]` with the time in seconds first; or a `.parquet`.

    Returns:
      The samples at their original times, not on a regular clock.

    Raises:
      InputError: if the file cannot be read, has no column of time or several, fewer than two
        samples, a value that is no finite number, times that do not increase, or a gap (more than 3
        median steps and more than 0.5 s).
    """
    readers = {".csv": _read_csv, ".npy": _read_npy, ".parquet": _read_parquet}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise InputError(f"{path}: not a table; expected a name with {', '.join(SUFFIXES)}")
    columns = reader(path)
    time = _time_column(path, tuple(columns))
    names = tuple(name for name in columns if name != time)
    if not names:
        raise InputError(f"{path}: no columns beside {time!r}, expected at least one channel")
    if len(columns[time]) < 2:
        raise InputError(f"{path}: {len(columns[time])} samples, expected at least 2")
    times_s = _seconds(path, time, columns[time])
    values = np.stack([_numbers(path, name, columns[name]) for name in names], axis=1)
    _check_times(path, times_s)
    return Table(times_s, values, names)


def regular(table: Table, fps: float) -> np.ndarray:
    """Resamples the channels linearly at the times `k / fps` from the first sample on.

    There is no low-pass filter: far below the rate of the recording, the signal is aliased.
    Returns `[n, channels]` with all times within the recording; its duration is `n / fps` seconds.

    >>> table = Table(np.array([0.0, 1.0]), np.array([[0.0], [4.0]]), ("x",))
    >>> regular(table, 4.0).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if not (np.isfinite(fps) and fps > 0):
        raise InputError(f"fps is {fps!r}, expected a finite number above 0")
    # The tolerance keeps a last sample that is on the clock up to rounding.
    clock_s = np.arange(int(table.times_s[-1] * fps + 1e-6) + 1) / fps
    return np.stack([np.interp(clock_s, table.times_s, v) for v in table.values.T], axis=1)


# --- formats: each returns the columns by name ---


def _read_csv(path: str | os.PathLike) -> dict[str, np.ndarray]:
    numbers = _read_numbers(path)
    return _read_fields(path) if numbers is None else numbers


def _read_numbers(path: str | os.PathLike) -> dict[str, np.ndarray] | None:
    """Reads columns of numbers alone, in a tenth of the time and memory of fields; else None."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about no samples, which is an error later
            header = [name.strip() for name in next(csv.reader(file, strict=True), [])]
            rows = np.loadtxt(file, delimiter=",", comments=None, quotechar='"', ndmin=2)
    except (OSError, ValueError, csv.Error):
        return None  # reading fields finds dates, or the error
    plain = rows.shape[1] == len(set(header)) == len(header) and not all(map(_is_number, header))
    return dict(zip(header, rows.T, strict=True)) if plain else None


def _read_fields(path: str | os.PathLike) -> dict[str, np.ndarray]:
    rows = [row for _, row in files.read_csv_lines(path)]
    if not rows:
        raise InputError(f"{path}: empty, expected a line of column names and samples")
    header = [name.strip() for name in rows[0]]
    if all(_is_number(name) for name in header):
        raise InputError(f"{path}: the first line holds numbers, expected the columns' names")
    _check_unique(path, header)
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise InputError(
                f"{path}: sample {number} has {len(row)} fields, the first line has {len(header)}"
            )
    fields = np.array(rows[1:], object).reshape(-1, len(header))
    return dict(zip(header, fields.T, strict=True))


def _read_npy(path: str | os.PathLike) -> dict[str, np.ndarray]:
    array = load_npy(path)
    if array.dtype.names is not None and array.ndim == 1:
        return {name: array[name] for name in array.dtype.names}
    if array.dtype.names is not None or array.ndim != 2 or array.shape[1] < 2:
        raise InputError(
            f"{path}: shape {list(array.shape)}, expected named fields, or [samples, 1 + channels] "
            "with the time in seconds first"
        )
    names = ["time_s", *(f"channel_{number}" for number in range(1, array.shape[1]))]
    return dict(zip(names, array.T, strict=True))


def _read_parquet(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f'{path}: reading parquet needs pyarrow; run pip install "tal_jax[tables]"'
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {files.reason_of(error)}") from error
    _check_unique(path, table.column_names)
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pyarrow.types.is_timestamp(column.type):
            column = column.cast(pyarrow.timestamp("ns", column.type.tz))
        columns[name] = column.to_numpy()
    return columns


def _check_unique(path: str | os.PathLike, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns are named {twice[0]!r}")


# --- columns ---


def _time_column(path: str | os.PathLike, names: Sequence[str]) -> str:
    found = [name for name in names if _unit_of(name) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{path}: several columns of time, {', '.join(found)}; expected one")
    raise InputError(
        f"{path}: no column of time among {', '.join(names)}; expected a name such as time_s, "
        "timestamp_ms or time"
    )


def _unit_of(name: str) -> float | str | None:
    """Returns the unit in seconds of a column of time, "" without a unit; None for other columns.

    >>> _unit_of("Timestamp [ms]"), _unit_of("time"), _unit_of("gain")
    (0.001, '', None)
    """
    words = re.findall(r"[^\W_]+", name.lower())
    units = [word for word in words if word in _SECONDS_OF]
    rest = "_".join(word for word in words if word not in _SECONDS_OF)
    if not words or rest not in _TIME_NAMES or len(units) > 1:
        return None
    # `s` or `ms` alone may as well be the name of a channel.
    if not rest and len(units[0]) <= 2:
        return None
    return _SECONDS_OF[units[0]] if units else ""


def _seconds(path: str | os.PathLike, name: str, column: np.ndarray) -> np.ndarray:
    """Returns the times in seconds from the first one."""
    dates = _dates(path, name, column)
    if dates is not None:
        return (dates - dates[0]).astype("timedelta64[ns]").astype(np.int64) * 1e-9
    numbers, unit = _numbers(path, name, column), _unit_of(name)
    if unit == "" and abs(numbers[0]) > _LONGEST_SECONDS:
        raise InputError(
            f"{path}: column {name!r} begins with {column[0]}, too much for seconds; expected its "
            f"unit in its name: {name}_ms, {name}_us or {name}_ns"
        )
    return (numbers - numbers[0]) * (unit or 1.0)


def _dates(path: str | os.PathLike, name: str, column: np.ndarray) -> np.ndarray | None:
    """Parses dates with a time of day; None if the column does not begin with one."""
    if column.dtype.kind == "M":
        if np.isnat(column).any():
            sample = int(np.flatnonzero(np.isnat(column))[0]) + 1
            raise InputError(f"{path}: column {name!r}, sample {sample} is empty")
        return column.astype("datetime64[ns]")
    first = _date(column[0])
    if first is None:
        return None
    dates = []
    for sample, date in enumerate(map(_date, column), start=1):
        if date is None or (date.tzinfo is None) != (first.tzinfo is None):
            raise InputError(
                f"{path}: column {name!r}, sample {sample} is {column[sample - 1]!r}, expected a "
                f"date with a time of day like the first, {column[0]}"
            )
        utc = date if date.tzinfo is None else date.astimezone(datetime.UTC)
        dates.append(utc.replace(tzinfo=None))
    return np.array(dates, "datetime64[us]")


def _date(value: object) -> datetime.datetime | None:
    if not isinstance(value, str) or _is_number(value):
        return None
    try:
        return datetime.datetime.fromisoformat(value.strip())
    except ValueError:
        return None


def _numbers(path: str | os.PathLike, name: str, column: np.ndarray) -> np.ndarray:
    expected = "expected a finite number"
    if column.dtype.kind in "mM":
        raise InputError(f"{path}: column {name!r} holds dates, {expected} a sample")
    try:
        numbers = np.asarray(column, np.float64)
    except (TypeError, ValueError) as error:
        sample = next((n for n, value in enumerate(column) if not _is_number(value)), 0)
        raise InputError(
            f"{path}: column {name!r}, sample {sample + 1} is {column[sample]!r}, {expected}"
        ) from error
    if numbers.ndim != 1:
        raise InputError(f"{path}: column {name!r} holds arrays, {expected} a sample")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise InputError(
            f"{path}: column {name!r}, sample {bad[0] + 1} is {column[bad[0]]}, {expected}"
        )
    return numbers


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _check_times(path: str | os.PathLike, times_s: np.ndarray) -> None:
    steps = np.diff(times_s)
    back = np.flatnonzero(steps <= 0)
    if len(back):
        n = int(back[0])
        how = "does not increase" if steps[n] == 0 else f"decreases by {-steps[n]:g} s"
        raise InputError(
            f"{path}: the time {how} at sample {n + 2}, {times_s[n]:.3f} s after the first; "
            "expected increasing times"
        )
    usual = float(np.median(steps))
    gaps = np.flatnonzero((steps > _GAP_STEPS * usual) & (steps > _GAP_S))
    if len(gaps):
        n = int(gaps[0])
        raise InputError(
            f"{path}: no samples for {steps[n]:.3f} s from {times_s[n]:.3f} s on, where the median "
            f"step is {usual:.4g} s ({len(gaps)} such gaps); expected none, cut the recording there"
        )
