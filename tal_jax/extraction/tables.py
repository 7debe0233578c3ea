"""Tables of sensor samples with a column of time: csv, npy and parquet.

Phones, watches and loggers write what they measured as they measured it: with jitter, in some unit
of time, from some date on. Here the time becomes seconds from the first sample, and what would
silently move labels (gaps, time that runs backwards, a unit that is not told) is refused.
"""

import csv
import dataclasses
import datetime
import io
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tal_jax.data import files
from tal_jax.data.lazy_features import load_npy

SUFFIXES = (".csv", ".npy", ".parquet")

# What columns of time are called, apart from their unit.
_TIME_NAMES = {"", "time", "t", "timestamp", "timestamps", "ts", "elapsed", "datetime", "epoch"}
_UNITS_S = {
    1.0: ("s", "sec", "secs", "second", "seconds"),
    1e-3: ("ms", "msec", "millis", "millisecond", "milliseconds"),
    1e-6: ("us", "usec", "micros", "microsecond", "microseconds"),
    1e-9: ("ns", "nsec", "nanos", "nanosecond", "nanoseconds"),
}
_SECONDS_OF = {name: seconds for seconds, names in _UNITS_S.items() for name in names}
# Seconds since 1970 stay below this for three thousand years; milliseconds have long passed it.
_LONGEST_SECONDS = 1e11

# A hole in the samples: longer than the jitter of any device, and long enough to hide an action.
_GAP_STEPS = 3
_GAP_S = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The samples of one recording.

    Attributes:
      times_s: `[n]`, increasing, in seconds from the first sample.
      values: `[n, channels]` float64, finite.
      names: of the channels.
      start: the time of the first sample as the file tells it, for messages.
    """

    times_s: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    start: str


def read_table(path: str | os.PathLike) -> Table:
    """Reads a table with a column of time; all other columns are channels.

    The time is named `time`, `t`, `timestamp` or the like, with or without a unit behind
    (`time_s`, `timestamp_ms`, `t [us]`, `seconds`), and counts seconds where no unit is told. It
    may hold dates with a time of day (ISO 8601) instead of numbers.

    Args:
      path: a `.csv` whose first line names the columns; a `.npy` with named fields, or plain
        `[n, 1 + channels]` with the time in seconds first; or a `.parquet`.

    Returns:
      The samples, as they were taken: not yet on a regular clock.

    Raises:
      ValueError: if the file cannot be read, has no column of time or several, fewer than two
        samples, a column or value that is no finite number, time that stands still or runs
        backwards, or a gap (more than 3 usual steps and more than 0.5 s).
    """
    readers = {".csv": _read_csv, ".npy": _read_npy, ".parquet": _read_parquet}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: not a table; expected a name with {', '.join(SUFFIXES)}")
    columns = reader(path)
    time = _time_column(path, tuple(columns))
    names = tuple(name for name in columns if name != time)
    if not names:
        raise ValueError(f"{path}: no columns beside {time!r}, expected at least one channel")
    if len(columns[time]) < 2:
        raise ValueError(f"{path}: {len(columns[time])} samples, expected at least 2")
    times_s, start = _seconds(path, time, columns[time])
    values = np.stack([_numbers(path, name, columns[name]) for name in names], axis=1)
    _check_times(path, times_s)
    return Table(times_s, values, names, start)


def regular(table: Table, fps: float) -> np.ndarray:
    """Interpolates the channels linearly at the times `k / fps` from the first sample on.

    Nothing is smoothed: far below the rate of the recording, fast movements fold into slow ones.

    Args:
      table: the samples.
      fps: samples a second that are wanted.

    Returns:
      `[n, channels]` with as many times as the recording covers; it lasts `n / fps` seconds.

    Raises:
      ValueError: if `fps` is not a finite number above 0.

    >>> table = Table(np.array([0.0, 1.0]), np.array([[0.0], [4.0]]), ("x",), "0.0")
    >>> regular(table, 4.0).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps!r}, expected a finite number above 0")
    # A last sample that lies on the clock but for rounding counts as on it.
    clock_s = np.arange(int(table.times_s[-1] * fps + 1e-6) + 1) / fps
    return np.stack([np.interp(clock_s, table.times_s, v) for v in table.values.T], axis=1)


# --- formats: each gives the columns by their names ---


def _read_csv(path: str | os.PathLike) -> dict[str, Sequence]:
    numbers = _read_numbers(path)
    return _read_fields(path) if numbers is None else numbers


def _read_numbers(path: str | os.PathLike) -> dict[str, np.ndarray] | None:
    """The columns where all are numbers: a day of samples takes a tenth of the time and memory."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of no samples, which is told of later
            header = [name.strip() for name in next(csv.reader(file, strict=True), [])]
            rows = np.loadtxt(file, delimiter=",", comments=None, quotechar='"', ndmin=2)
    except (OSError, ValueError, csv.Error):
        return None  # fields one by one find dates, or what is wrong
    plain = rows.shape[1] == len(set(header)) == len(header) and not all(map(_is_number, header))
    return dict(zip(header, rows.T, strict=True)) if plain else None


def _read_fields(path: str | os.PathLike) -> dict[str, Sequence[str]]:
    reader = csv.reader(io.StringIO(files.read_text(path)), strict=True)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from error
    if not rows:
        raise ValueError(f"{path}: empty, expected a line of column names and samples")
    header = [name.strip() for name in rows[0]]
    if all(_is_number(name) for name in header):
        raise ValueError(f"{path}: the first line holds numbers, expected the columns' names")
    _check_unique(path, header)
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise ValueError(
                f"{path}: sample {number} has {len(row)} fields, the first line has {len(header)}"
            )
    columns = zip(*rows[1:], strict=True) if len(rows) > 1 else ([] for _ in header)
    return dict(zip(header, columns, strict=True))


def _read_npy(path: str | os.PathLike) -> dict[str, np.ndarray]:
    array = load_npy(path)
    if array.dtype.names is not None and array.ndim == 1:
        return {name: array[name] for name in array.dtype.names}
    if array.dtype.names is not None or array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(
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
        raise ValueError(
            f'{path}: reading parquet needs pyarrow; run pip install "tal_jax[tables]"'
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
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
        raise ValueError(f"{path}: two columns are named {twice[0]!r}")


# --- columns ---


def _time_column(path: str | os.PathLike, names: Sequence[str]) -> str:
    found = [name for name in names if _unit_of(name) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{path}: several columns of time, {', '.join(found)}; expected one")
    raise ValueError(
        f"{path}: no column of time among {', '.join(names)}; expected a name such as time_s, "
        "timestamp_ms or time"
    )


def _unit_of(name: str) -> float | str | None:
    """Seconds in the unit that a column of time names, "" where it names none; None: no time.

    >>> _unit_of("Timestamp [ms]"), _unit_of("time"), _unit_of("gain")
    (0.001, '', None)
    """
    words = re.findall(r"[^\W_]+", name.lower())
    units = [word for word in words if word in _SECONDS_OF]
    rest = "_".join(word for word in words if word not in _SECONDS_OF)
    if not words or rest not in _TIME_NAMES or len(units) > 1:
        return None
    # A lone `s` or `ms` is as likely a channel of the user's.
    if not rest and len(units[0]) <= 2:
        return None
    return _SECONDS_OF[units[0]] if units else ""


def _seconds(path: str | os.PathLike, name: str, column: Sequence) -> tuple[np.ndarray, str]:
    """The times in seconds from the first one, and how the file writes the first one."""
    start = str(column[0])
    dates = _dates(path, name, column)
    if dates is not None:
        return (dates - dates[0]).astype("timedelta64[ns]").astype(np.int64) * 1e-9, start
    numbers, unit = _numbers(path, name, column), _unit_of(name)
    if unit == "" and abs(numbers[0]) > _LONGEST_SECONDS:
        raise ValueError(
            f"{path}: column {name!r} begins with {start}, too much for seconds; expected its "
            f"unit in its name: {name}_ms, {name}_us or {name}_ns"
        )
    return (numbers - numbers[0]) * (unit or 1.0), start


def _dates(path: str | os.PathLike, name: str, column: Sequence) -> np.ndarray | None:
    """The column as dates with a time of day, or None where it does not begin with one."""
    column = column if isinstance(column, np.ndarray) else np.asarray(column, object)
    if column.dtype.kind == "M":
        if np.isnat(column).any():
            sample = int(np.flatnonzero(np.isnat(column))[0]) + 1
            raise ValueError(f"{path}: column {name!r}, sample {sample} is empty")
        return column.astype("datetime64[ns]")
    if column.dtype.kind not in "OU" or _date(column[0]) is None:
        return None
    dates = [_date(value) for value in column]
    for sample, date in enumerate(dates, start=1):
        if date is None or (date.tzinfo is None) != (dates[0].tzinfo is None):
            raise ValueError(
                f"{path}: column {name!r}, sample {sample} is {column[sample - 1]!r}, expected a "
                f"date with a time of day like the first, {column[0]}"
            )
    utc = [date if date.tzinfo is None else date.astimezone(datetime.UTC) for date in dates]
    return np.array([date.replace(tzinfo=None) for date in utc], "datetime64[us]")


def _date(value: object) -> datetime.datetime | None:
    if not isinstance(value, str) or _is_number(value):
        return None
    try:
        return datetime.datetime.fromisoformat(value.strip())
    except ValueError:
        return None


def _numbers(path: str | os.PathLike, name: str, column: Sequence) -> np.ndarray:
    expected = "expected a finite number"
    if isinstance(column, np.ndarray) and column.dtype.kind in "mM":
        raise ValueError(f"{path}: column {name!r} holds dates, {expected} a sample")
    try:
        numbers = np.asarray(column, np.float64)
    except (TypeError, ValueError) as error:
        sample = next((n for n, value in enumerate(column) if not _is_number(value)), 0)
        raise ValueError(
            f"{path}: column {name!r}, sample {sample + 1} is {column[sample]!r}, {expected}"
        ) from error
    if numbers.ndim != 1:
        raise ValueError(f"{path}: column {name!r} holds arrays, {expected} a sample")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise ValueError(
            f"{path}: column {name!r}, sample {bad[0] + 1} is {column[bad[0]]}, {expected}"
        )
    return numbers


def _is_number(value: object) -> bool:
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
        how = "stands still" if steps[n] == 0 else f"goes back by {-steps[n]:g} s"
        raise ValueError(
            f"{path}: the time {how} at sample {n + 2}, {times_s[n]:.3f} s after the first; "
            "expected increasing times"
        )
    usual = float(np.median(steps))
    gaps = np.flatnonzero((steps > _GAP_STEPS * usual) & (steps > _GAP_S))
    if len(gaps):
        n = int(gaps[0])
        raise ValueError(
            f"{path}: no samples for {steps[n]:.3f} s from {times_s[n]:.3f} s on, where steps are "
            f"usually {usual:.4g} s ({len(gaps)} such gaps); expected none, cut the recording there"
        )
