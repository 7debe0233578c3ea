"""Times of samples in seconds, from a column of numbers, dates or times of day.

Numbers whose unit is not written anywhere are judged by the rate of samples that would follow:
sensors take between 1 and 10,000 samples per second.
"""

import dataclasses
import datetime
import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax._errors import InputError

# Values of the option `time_unit`, in seconds.
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "days": 86400.0}
_SPELLINGS = {
    "s": ("s", "sec", "secs", "second", "seconds"),
    "ms": ("ms", "msec", "millis", "millisecond", "milliseconds"),
    "us": ("us", "µs", "μs", "usec", "micros", "microsecond", "microseconds"),
    "ns": ("ns", "nsec", "nanos", "nanosecond", "nanoseconds"),
    "days": ("days",),
}
_SECONDS_OF = {word: TIME_UNITS[unit] for unit, words in _SPELLINGS.items() for word in words}

# Names of columns of time, without their unit.
_NAMES = {"", "time", "t", "timestamp", "timestamps", "ts", "elapsed", "datetime", "epoch"}
# Names that count only where none of these is there.
_OTHER_NAMES = {
    *("date_time", "date_and_time", "time_stamp", "epoc", "epoch_time", "elapsed_time"),
    *("time_elapsed", "unix", "unixtime", "unix_time", "unix_timestamp", "uptime", "utc"),
    *("utc_time", "local_time", "system_time", "sensor_time", "recording_time", "relative_time"),
    *("time_since_start", "time_since_boot", "time_since_epoch", "boot_time"),
    *("zeit", "zeitstempel", "temps", "tiempo", "tempo"),
}

# Rates of sensors in Hz; the margin is for clocks that are slightly off.
_LOWEST_HZ, _HIGHEST_HZ, _MARGIN = 1.0, 10_000.0, 1.1
# Larger than seconds since 1970 will be for three thousand years, smaller than milliseconds are.
_LONGEST_SECONDS = 1e11
# The years 2000 to 2100 in seconds since 1970, and in days of Excel and of MATLAB.
_RECENT_S = (946_684_800.0, 4_102_444_800.0)
_RECENT_DAYS = ((36_526.0, 73_051.0), (730_486.0, 767_011.0))
# Two columns of time agree if they differ by no more than half a step, within these bounds.
_LEAST_AGREEMENT_S, _MOST_AGREEMENT_S = 1.5e-3, 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Times:
    """The times of the samples."""

    name: str  # of their column
    times_s: np.ndarray  # [n] float64, in seconds from the first sample
    notes: tuple[str, ...]  # what the names of the columns leave open
    others: tuple[str, ...]  # further columns of time, which agree


def find_times(
    path: str | os.PathLike,
    columns: Mapping[str, np.ndarray],
    *,
    time: str = "",
    time_unit: str = "",
    units: Mapping[str, str] | None = None,
) -> Times:
    """Finds the column of time by its name, and converts it to seconds from the first sample.

    Of several columns that agree, the first with a unit in its name is taken, else the first.

    Args:
      path: the file, for messages.
      columns: all columns by name.
      time: name of the column, where it is not found by itself.
      time_unit: a key of `TIME_UNITS`; it replaces the unit in the name, if a rate of sensors
        follows.
      units: units of columns that are written elsewhere, such as in a second line of the header.

    Raises:
      InputError: if there is no column of time, several disagree, or the unit is not certain.
    """
    units = units or {}
    if time:
        if time not in columns:
            raise InputError(f"{path}: no column {time!r} among {', '.join(columns)}")
        names = [time]
    else:
        names = [name for name in columns if unit_of(name) is not None] or [
            name for name in columns if unit_of(name, _OTHER_NAMES) is not None
        ]
    if not names:
        raise InputError(
            f"{path}: no column of time among {', '.join(columns)}; expected a name such as "
            "time_s, timestamp_ms or time, or --set time=NAME"
        )
    count = len(columns[names[0]])
    if len(names) == 1:
        if count < 2:
            raise InputError(f"{path}: {count} samples, expected at least 2")
        times_s, notes = _convert(path, names[0], columns[names[0]], time_unit, units)
        return Times(names[0], times_s, notes, ())
    return _choose(path, columns, names, time_unit, units)


def unit_of(name: str, names: set[str] = _NAMES) -> float | str | None:
    """Returns the unit in seconds of a column of time, "" without a unit; None for other columns.

    >>> unit_of("Time [ms]"), unit_of("time"), unit_of("gain")
    (0.001, '', None)
    """
    words = re.findall(r"[^\W_]+", name.lower())
    units = [word for word in words if word in _SECONDS_OF]
    rest = "_".join(word for word in words if word not in _SECONDS_OF)
    if not words or rest not in names or len(units) > 1:
        return None
    # `s` or `ms` alone may as well be the name of a channel, and `days` a count of them.
    if not rest and (len(units[0]) <= 2 or units[0] == "days"):
        return None
    return _SECONDS_OF[units[0]] if units else ""


def is_time(name: str) -> bool:
    """Whether a column's name is that of a column of time."""
    return unit_of(name) is not None or unit_of(name, _OTHER_NAMES) is not None


def is_date(value: str) -> bool:
    """Whether a text is a date or a time of day."""
    return _date(value) is not None or _split_date(value) is not None or bool(_CLOCK.match(value))


def is_number(value: Any) -> bool:
    """Whether a value, or the text of a field, is a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def to_numbers(path: str | os.PathLike, name: str, column: np.ndarray) -> np.ndarray:
    """Converts a column to finite float64.

    Raises:
      InputError: with the first sample that is no finite number.
    """
    expected = "expected a finite number"
    if column.dtype.kind in "mM":
        raise InputError(f"{path}: column {name!r} holds dates, {expected} a sample")
    try:
        numbers = np.asarray(column, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        sample = next((n for n, value in enumerate(column) if not is_number(value)), 0)
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


# --- several columns of time ---


def _choose(
    path: str | os.PathLike,
    columns: Mapping[str, np.ndarray],
    names: Sequence[str],
    time_unit: str,
    units: Mapping[str, str],
) -> Times:
    refusal = f"{path}: several columns of time, {', '.join(names)}"
    expected = "expected one, or --set time=NAME to choose it"
    if len(columns[names[0]]) < 2:
        raise InputError(f"{refusal}; {expected}")
    read = {}
    for name in names:
        # The option decides where the names do not.
        unit = "" if unit_of(name) else time_unit
        try:
            read[name] = _convert(path, name, columns[name], unit, units)
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise InputError(f"{refusal}; {expected} ({reason})") from error
    chosen = next((name for name in names if unit_of(name)), names[0])
    times_s, notes = read[chosen]
    step_s = float(np.median(np.abs(np.diff(times_s))))
    tolerated_s = min(max(step_s / 2, _LEAST_AGREEMENT_S), _MOST_AGREEMENT_S)
    others = tuple(name for name in names if name != chosen)
    for name in others:
        apart_s = float(np.abs(read[name][0] - times_s).max())
        if not apart_s <= tolerated_s:
            raise InputError(
                f"{refusal}; {chosen} and {name} differ by up to {apart_s:.4g} s, {expected}"
            )
    agree = f"time from {chosen}, with which {', '.join(others)} agree{'s' * (len(others) == 1)}"
    return Times(chosen, times_s, (*notes, agree), others)


# --- one column ---


def _convert(
    path: str | os.PathLike,
    name: str,
    column: np.ndarray,
    time_unit: str,
    units: Mapping[str, str],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns seconds from the first sample, and notes."""
    if column.dtype.kind == "m":
        column = column.astype("timedelta64[ns]")
        _check_no_gap_in(path, name, column)
        return (column - column[0]).astype(np.int64) * 1e-9, ()
    for read in (_dates, _other_dates, _times_of_day):
        times_s = read(path, name, column)
        if times_s is not None:
            return times_s, ()
    numbers = to_numbers(path, name, column)
    with np.errstate(over="ignore"):
        offsets = _from_first(column, numbers)
        steps = np.diff(offsets)
    if not np.isfinite(steps).all():
        raise InputError(f"{path}: column {name!r} holds numbers that are too large for times")
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    unit = _SECONDS_OF.get(units.get(name, "")) or unit_of(name) or unit_of(name, _OTHER_NAMES)
    rates = {one: _rate(step * one) if step else 1.0 for one in TIME_UNITS.values()}
    if time_unit:
        chosen = TIME_UNITS[time_unit]
        if not isinstance(unit, float) or unit == chosen:
            return offsets * chosen, _note_odd(name, rates[chosen])
        if not _plausible(rates[chosen]):
            raise InputError(
                f"{path}: column {name!r} has {rates[unit]:.4g} samples per second by its name, "
                f"and {rates[chosen]:.4g} by time_unit={time_unit}; expected a unit that gives a "
                "rate of sensors, with --set time_unit=UNIT"
            )
        return offsets * chosen, (f"{name} read in {time_unit}: {rates[chosen]:.4g} Hz",)
    if isinstance(unit, float):
        return offsets * unit, _note_odd(name, rates[unit])
    if not step:  # reported with the place where the times stand still
        return offsets, ()
    unit, notes = _judge(path, name, float(numbers[0]), step, column[0])
    return offsets * TIME_UNITS[unit], notes


def _rate(step_s: float) -> float:
    return 1 / step_s if step_s > 1e-300 else np.inf


def _note_odd(name: str, rate: float) -> tuple[str, ...]:
    return () if _plausible(rate) else (f"{name} gives {rate:.4g} samples per second",)


def _from_first(column: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Subtracts the first value, exactly: nanoseconds since 1970 have 61 bits."""
    if column.dtype.kind in "iu" and numbers.max() < 2.0**62 and numbers.min() > -(2.0**62):
        whole = column.astype(np.int64)
        return (whole - whole[0]).astype(np.float64)
    return numbers - numbers[0]


def _plausible(rate_hz: float) -> bool:
    return _LOWEST_HZ / _MARGIN <= rate_hz <= _HIGHEST_HZ * _MARGIN


def _judge(
    path: str | os.PathLike, name: str, first: float, step: float, shown: object
) -> tuple[str, tuple[str, ...]]:
    """Returns the only unit that gives a rate of sensors, and a note if it is not seconds."""
    rate = _rate(step)
    if abs(first) > _LONGEST_SECONDS:
        problem = f"begins with {shown}, too much for seconds"
    elif not _plausible(rate):
        problem = f"has no unit, and would have {rate:.4g} samples per second if in seconds"
    else:
        # 1, 2, 3, ... may also count milliseconds or samples.
        doubtful = rate <= _LOWEST_HZ * _MARGIN
        return "s", (f"{name} has no unit, read in s: {rate:.4g} Hz",) if doubtful else ()
    rates = {unit: _rate(step * TIME_UNITS[unit]) for unit in ("ms", "us", "ns", "days")}
    fitting = [unit for unit, rate in rates.items() if _plausible(rate)]
    recent = [unit for unit in fitting if _is_recent(first, unit)]
    if len(fitting) > 1 and len(recent) == 1:
        fitting = recent
    if len(fitting) == 1:
        unit = fitting[0]
        return unit, (f"{name} has no unit, read in {unit}: {rates[unit]:.4g} Hz",)
    which = " and ".join(f"{unit} ({rates[unit]:.4g})" for unit in fitting)
    fits = f"plausible are {which}" if fitting else "no other unit fits either"
    raise InputError(
        f"{path}: column {name!r} {problem}; {fits}: expected --set time_unit=ms (or "
        f"{', '.join(unit for unit in TIME_UNITS if unit != 'ms')}), or the unit in its name: "
        f"{name}_ms"
    )


def _is_recent(first: float, unit: str) -> bool:
    """Whether a value is a date between 2000 and 2100."""
    if unit == "days":
        return any(low <= first <= high for low, high in _RECENT_DAYS)
    low, high = _RECENT_S
    return low <= first * TIME_UNITS[unit] <= high


# --- dates ---


def _check_no_gap_in(path: str | os.PathLike, name: str, column: np.ndarray) -> None:
    if np.isnat(column).any():
        sample = int(np.flatnonzero(np.isnat(column))[0]) + 1
        raise InputError(f"{path}: column {name!r}, sample {sample} is empty")


def _dates(path: str | os.PathLike, name: str, column: np.ndarray) -> np.ndarray | None:
    """Parses dates of ISO 8601 with a time of day; None if the column does not begin with one."""
    if column.dtype.kind == "M":
        _check_no_gap_in(path, name, column)
        dates = column.astype("datetime64[ns]")
    else:
        first = _date(column[0])
        if first is None:
            return None
        parsed = []
        for sample, date in enumerate(map(_date, column), start=1):
            if date is None or (date.tzinfo is None) != (first.tzinfo is None):
                raise _unlike_first(path, name, column, sample)
            utc = date if date.tzinfo is None else date.astimezone(datetime.UTC)
            parsed.append(utc.replace(tzinfo=None))
        dates = np.array(parsed, "datetime64[us]")
    return (dates - dates[0]).astype("timedelta64[ns]").astype(np.int64) * 1e-9


def _unlike_first(
    path: str | os.PathLike, name: str, column: np.ndarray, sample: int
) -> InputError:
    return InputError(
        f"{path}: column {name!r}, sample {sample} is {column[sample - 1]!r}, expected a "
        f"date with a time of day like the first, {column[0]}"
    )


def _date(value: object) -> datetime.datetime | None:
    if not isinstance(value, str) or is_number(value):
        return None
    try:
        return datetime.datetime.fromisoformat(value.strip())
    except (ValueError, OverflowError):
        return None


_MONTHS = {
    name: f"{month:02}"
    for month, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}
_TIME = (
    r"(?P<hours>\d{1,2}):(?P<minutes>\d{2})(?::(?P<seconds>\d{2})(?:[.,:](?P<part>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
)
_DATE = re.compile(
    r"\s*(?P<a>\d{1,4})(?P<mark>[-/.])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{4}|\d{2})"
    rf"(?:[ T,]+{_TIME})?\s*(?P<zone>Z|UTC|GMT|[+-]\d{{2}}:?\d{{2}})?\s*",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    r"\s*(?:(?P<days>\d+) days?,? )?(?P<hours>\d+):(?P<minutes>\d{2}):(?P<seconds>\d{2})"
    r"(?:[.,:](?P<part>\d{1,9}))?\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*$"
)
_SHORT_CLOCK = re.compile(r"\s*\d+:\d{2}(?:[.,]\d+)?\s*$")
_DAY_NAMED = re.compile(r"\s*(\d{1,2})[- ]([A-Za-z]{3})[A-Za-z]*\.?[- ,]+(\d{4})(.*)", re.DOTALL)
_MONTH_NAMED = re.compile(r"\s*([A-Za-z]{3})[A-Za-z]*\.? (\d{1,2}),? +(\d{4})(.*)", re.DOTALL)

_Parts = tuple[tuple[str, str, str], str, int]  # three numbers, the mark between them, nanoseconds


def _split_date(value: object) -> _Parts | None:
    """Splits a date that is not ISO 8601 into its three numbers, and the time of day in UTC."""
    if not isinstance(value, str):
        return None
    for pattern, day, month in ((_DAY_NAMED, 1, 2), (_MONTH_NAMED, 2, 1)):
        named = pattern.fullmatch(value)
        if named and named[month].lower() in _MONTHS:
            value = f"{named[day]}.{_MONTHS[named[month].lower()]}.{named[3]}{named[4]}"
            break
    match = _DATE.fullmatch(value)
    nanoseconds = match and _nanoseconds(match)
    if match is None or nanoseconds is None:
        return None
    zone = (match["zone"] or "").replace(":", "").upper()
    if zone[:1] in ("+", "-"):
        minutes = int(zone[1:3]) * 60 + int(zone[3:])
        nanoseconds -= int(f"{zone[0]}1") * minutes * 60 * 10**9
    return (match["a"], match["b"], match["c"]), match["mark"], nanoseconds


def _nanoseconds(match: re.Match[str]) -> int | None:
    """The time of day of a match; None if there is no such time."""
    hours, minutes, seconds = (int(match[key] or 0) for key in ("hours", "minutes", "seconds"))
    half = (match["half"] or "").lower()[:1]
    if minutes > 59 or seconds > 59 or (half and not 1 <= hours <= 12):
        return None
    if half:
        hours = hours % 12 + 12 * (half == "p")
    part = (match["part"] or "").ljust(9, "0")
    return ((hours * 60 + minutes) * 60 + seconds) * 10**9 + int(part)


def _other_dates(path: str | os.PathLike, name: str, column: np.ndarray) -> np.ndarray | None:
    """Parses dates of which the order of day and month follows from the dates themselves."""
    if _split_date(column[0]) is None:
        return None
    found = []
    for sample, value in enumerate(column, start=1):
        parts = _split_date(value)
        if parts is None:
            raise _unlike_first(path, name, column, sample)
        found.append(parts)
    numbers, mark = found[0][0], found[0][1]
    if len(numbers[0]) > 2:
        orders = ["ymd"]
    elif mark == ".":
        orders = ["dmy"]
    else:
        orders = ["dmy", "mdy"] + ["ymd"] * (len(numbers[2]) == 2)
    readings = []
    for order in orders:
        times_s = _read_in_order(found, order)
        if times_s is not None and not any(np.array_equal(times_s, one) for one in readings):
            readings.append(times_s)
    if len(readings) > 1:  # midnight passes: only one order continues with the next day
        readings = [one for one in readings if 0 < np.diff(one).min() <= np.diff(one).max() < 86400]
    if len(readings) == 1:
        return readings[0]
    raise InputError(
        f"{path}: column {name!r} begins with {column[0]!r}, where day and month are not certain; "
        "expected dates such as 2024-12-31 13:00:00.020"
    )


def _read_in_order(found: Sequence[_Parts], order: str) -> np.ndarray | None:
    times = []
    for numbers, _, nanoseconds in found:
        day = _ordinal(tuple(numbers[order.index(letter)] for letter in "ymd"))
        if day is None:
            return None
        times.append(day * 86400 * 10**9 + nanoseconds)
    return np.array([time - times[0] for time in times], np.float64) * 1e-9


@functools.lru_cache(maxsize=64)
def _ordinal(numbers: tuple[str, ...]) -> int | None:
    year, month, day = map(int, numbers)
    try:
        return datetime.date(year + 2000 * (len(numbers[0]) <= 2), month, day).toordinal()
    except (ValueError, OverflowError):
        return None


def _times_of_day(path: str | os.PathLike, name: str, column: np.ndarray) -> np.ndarray | None:
    """Parses times such as 13:00:00.020; None if the column does not begin with one."""
    if not isinstance(column[0], str):
        return None
    if _SHORT_CLOCK.match(column[0]):
        raise InputError(
            f"{path}: column {name!r} begins with {column[0]!r}, hours or minutes are not certain; "
            "expected times such as 13:00:00.020"
        )
    if not _CLOCK.match(column[0]):
        return None
    times = []
    for sample, value in enumerate(column, start=1):
        match = _CLOCK.match(value) if isinstance(value, str) else None
        nanoseconds = match and _nanoseconds(match)
        if match is None or nanoseconds is None:
            raise _unlike_first(path, name, column, sample)
        times.append(int(match["days"] or 0) * 86400 * 10**9 + nanoseconds)
    return np.array([time - times[0] for time in times], np.float64) * 1e-9


def counts_samples(column: np.ndarray) -> bool:
    """Whether a column counts 0, 1, 2, ... from any start; a counter may wrap around."""
    try:
        numbers = np.asarray(column, np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    if numbers.ndim != 1 or len(numbers) < 3 or not np.isfinite(numbers).all():
        return False
    steps = np.diff(numbers)
    wraps = steps < 0
    return bool(np.all((steps == 1) | wraps) and wraps.sum() * 16 < len(steps))
