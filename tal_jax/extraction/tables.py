"""Reads tables of sensor samples with a column of time: csv, npy and parquet.

Samples of phones, watches and loggers have jitter, any unit of time, and any start. The times of a
table are seconds from the first sample; whatever would silently shift labels (gaps, decreasing
times, an uncertain unit) is an error.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.lazy_features import load_npy
from tal_jax.extraction.csv_tables import Columns, check_unique, read_columns
from tal_jax.extraction.time_columns import (
    Times,
    counts_samples,
    find_times,
    is_number,
    to_numbers,
)

SUFFIXES = (".csv", ".npy", ".parquet")

# A gap in the samples: longer than jitter, and long enough to contain an action.
_GAP_STEPS = 3
_GAP_S = 0.5
# A regular clock with more bytes than this has to be near the rate of the samples.
_LARGE_BYTES, _LARGE_RATIO = 2**28, 20

# Names that programs give to the number of a row, and that devices give to that of a sample.
_INDEX_NAME = re.compile(
    r"unnamed:? ?\d+(\.\d+)*|\.\.\.\d+|(__index_)?level_\d+(__)?", re.IGNORECASE
)
_COUNTER_NAME = re.compile(
    r"index|idx|id|no|nr|n|#|seq|sequence|row|line|record|sample|packet|frame|counter|count",
    re.IGNORECASE,
)
_BLANK = "blank"
_BLANKS = {"", "na", "n/a", "nan", "null", "none", "-", "?"}


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The samples of one recording."""

    times_s: np.ndarray  # [n], increasing, in seconds from the first sample
    values: np.ndarray  # [n, channels] float64, finite
    names: tuple[str, ...]  # of the channels
    left_out: tuple[tuple[str, str], ...] = ()  # other columns, each with a reason or ""
    notes: tuple[str, ...] = ()  # what was read from the numbers, not from a name


def read_table(
    path: str | os.PathLike,
    *,
    channels: Sequence[str] = (),
    time: str = "",
    time_unit: str = "",
) -> Table:
    """Reads a table with a column of time; all other columns of numbers are channels.

    The column of time is named `time`, `t`, `timestamp` or similar, optionally followed by a unit
    (`time_s`, `timestamp_ms`, `t [us]`, `seconds`). It contains numbers, dates with a time of day,
    or times of day. Without a unit, seconds are taken if the samples then come at a rate of
    sensors (1 Hz to 10 kHz), else the only one of ms, us, ns and days that gives such a rate.

    Args:
      path: a `.csv` with the names of the columns; a `.npy` with named fields, or plain
        `[n, 1 + channels]` with the time first; or a `.parquet`.
      channels: names of the columns to read; by default all but those of text, those with blanks,
        those without a name, and those that count the samples.
      time: name of the column of time, where there are several or none is found.
      time_unit: "s", "ms", "us", "ns" or "days"; replaces what the column's name says.

    Returns:
      The samples at their original times, not on a regular clock.

    Raises:
      InputError: if the file cannot be read, has no column of time or several that differ, times of
        an uncertain unit, fewer than two samples, a value that is no finite number, times that do
        not increase, or a gap (more than 3 median steps and more than 0.5 s).
    """
    columns = read_table_columns(path, time=time)
    times = find_times(path, columns.values, time=time, time_unit=time_unit, units=columns.units)
    others = tuple(name for name in columns.values if name != times.name)
    if not others:
        raise InputError(f"{path}: no columns beside {times.name!r}, expected at least one channel")
    if channels:
        missing = [name for name in channels if name not in others]
        if missing:
            raise InputError(
                f"{path}: no column {missing[0]!r} among {', '.join(others)}; the features are "
                f"computed from {', '.join(channels)}"
            )
        left_out = {
            name: _why_no_channel(columns, times, name) for name in others if name not in channels
        }
        numbers = [to_numbers(path, name, columns.values[name]) for name in channels]
        names = tuple(channels)
    else:
        names, numbers, left_out = _find_channels(path, columns, times)
    values = np.stack(numbers, axis=1)
    _check_times(path, times.times_s)
    notes = (*columns.notes, *times.notes)
    return Table(times.times_s, values, names, tuple(left_out.items()), notes)


def read_table_columns(path: str | os.PathLike, *, time: str = "") -> Columns:
    """Reads all columns of a table, whatever they hold, by the file's suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: not a table; expected a name with {', '.join(SUFFIXES)}")
    if suffix == ".csv":
        return read_columns(path, time=time)
    return (_read_npy if suffix == ".npy" else _read_parquet)(path)


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
    samples, channels = table.values.shape
    # The tolerance keeps a last sample that is on the clock up to rounding.
    rows = int(min(table.times_s[-1] * fps + 1e-6, 2.0**60)) + 1
    if rows * channels * 8 > _LARGE_BYTES and rows > _LARGE_RATIO * samples:
        rate = (samples - 1) / table.times_s[-1]
        raise InputError(
            f"{samples} samples over {table.times_s[-1]:.4g} s are {rate:.3g} per second, and "
            f"would become {rows} at {fps:g} Hz; expected fps near that rate, or another unit of "
            "time (--set time_unit=ms)"
        )
    clock_s = np.arange(rows) / fps
    return np.stack([np.interp(clock_s, table.times_s, v) for v in table.values.T], axis=1)


# --- formats: each returns the columns by name ---


def _read_npy(path: str | os.PathLike) -> Columns:
    array = load_npy(path)
    if array.dtype.names is not None and array.ndim == 1:
        return Columns({name: array[name] for name in array.dtype.names})
    if array.dtype.names is not None or array.ndim != 2 or array.shape[1] < 2:
        raise InputError(
            f"{path}: shape {list(array.shape)}, expected named fields, or [samples, 1 + channels] "
            "with the time first"
        )
    names = ["time", *(f"channel_{number}" for number in range(1, array.shape[1]))]
    return Columns(dict(zip(names, array.T, strict=True)))


def _read_parquet(path: str | os.PathLike) -> Columns:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f'{path}: reading parquet needs pyarrow; run pip install "tal_jax[tables]"'
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        check_unique(path, table.column_names)
        columns = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            if pyarrow.types.is_timestamp(column.type):
                column = column.cast(pyarrow.timestamp("ns", column.type.tz))
            columns[name] = column.to_numpy()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {files.reason_of(error)}") from error
    return Columns(columns)


# --- channels ---


def _find_channels(
    path: str | os.PathLike, columns: Columns, times: Times
) -> tuple[tuple[str, ...], list[np.ndarray], dict[str, str]]:
    """Returns the columns that hold measurements, and the others with the reason of each."""
    found, left_out = {}, {}
    for name, column in columns.values.items():
        if name == times.name:
            continue
        left_out[name] = _why_no_channel(columns, times, name)
        if not left_out[name]:
            found[name] = to_numbers(path, name, column)
            del left_out[name]
    if not found:
        for name, reason in left_out.items():
            if reason in ("text", "dates") or reason.startswith(_BLANK):
                to_numbers(path, name, columns.values[name])  # raises: the reason with its place
        raise InputError(
            f"{path}: no channel beside {times.name!r}: {describe_left_out(left_out)}; expected "
            "--set channels=NAME,NAME,NAME"
        )
    return tuple(found), list(found.values()), left_out


def _why_no_channel(columns: Columns, times: Times, name: str) -> str:
    """Why a column holds no measurements; "" for one that does, or would if it were not damaged."""
    names, column = list(columns.values), columns.values[name]
    if name in times.others:
        return "time"
    if name in columns.nameless or _INDEX_NAME.fullmatch(name):
        return "no name"
    before_time = names.index(name) < names.index(times.name)
    if (before_time or _is_counter_name(name)) and counts_samples(column):
        return "counts the samples"
    return _text_or_blanks(column)


def _is_counter_name(name: str) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|#", name)
    return bool(words) and all(
        _COUNTER_NAME.fullmatch(word) or word.lower() in ("of", "number", "num") for word in words
    )


def _text_or_blanks(column: np.ndarray) -> str:
    """Whether a column holds text, dates or blanks; "" for numbers, even with some damage."""
    kind = column.dtype.kind
    if kind in "biu" or column.ndim != 1:
        return ""
    if kind == "f":
        blank = np.isnan(column)
    else:
        blank = np.array([is_blank(value) for value in column], bool)
        # Some words among numbers are damage, which is refused with its place.
        words = sum(not is_number(value) for value in column[~blank])
        if kind in "mM" or 2 * words > len(column) - blank.sum():
            return "dates" if kind in "mM" else "text"
        if words:
            return ""
    if not blank.any():
        return ""
    return _BLANK if blank.all() else f"{_BLANK} at sample {int(np.flatnonzero(blank)[0]) + 1}"


def is_blank(value: object) -> bool:
    """Whether a field holds nothing, or a word for it."""
    if isinstance(value, str):
        return value.strip().lower() in _BLANKS
    return value is None or value != value


def describe_left_out(left_out: "dict[str, str] | Sequence[tuple[str, str]]") -> str:
    """Lists columns that are no channels, with the reasons."""
    pairs = left_out.items() if isinstance(left_out, dict) else left_out
    return ", ".join(f"{name} ({reason})" if reason else name for name, reason in pairs)


# --- times ---


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
