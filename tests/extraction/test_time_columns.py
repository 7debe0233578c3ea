"""Columns of time: units that are written, units that follow from the rate, dates."""

import datetime
import tracemalloc

import numpy as np
import pytest

from tal_jax.extraction import open_backbone, read_table, regular, stream_features

# Twenty samples at 50 Hz, the third of which is late by 3 ms.
TIMES_S = np.arange(20) / 50
TIMES_S[2] += 0.003


def write(path, columns):
    """Writes columns of text or numbers by name."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def with_times(path, times, name="time"):
    return write(path, {name: times, "x": np.arange(len(times)) % 7})


def check(table, tolerance=1e-9, notes=()):
    np.testing.assert_allclose(table.times_s, TIMES_S, atol=tolerance)
    assert table.times_s[0] == 0 and table.names == ("x",)
    assert len(table.notes) == len(notes)
    assert all(part in line for part, line in zip(notes, table.notes, strict=True))


def whole(start, factor):
    """Whole numbers in a unit, from a start on."""
    return [start + round(t * factor) for t in TIMES_S]


# --- without a unit ---


@pytest.mark.parametrize(
    "times, note, tolerance",
    [
        ([float(t) for t in TIMES_S], None, 1e-9),
        ([float(t) + 1.7e9 for t in TIMES_S], None, 1e-6),  # seconds since 1970
        (whole(0, 1e3), "read in ms: 50 Hz", 1e-9),
        (whole(1_700_000_000_000, 1e3), "read in ms: 50 Hz", 1e-9),  # since 1970
        (whole(83_000_000, 1e6), "read in us: 50 Hz", 1e-9),  # since boot
        (whole(1_700_000_000_000_000, 1e6), "read in us: 50 Hz", 1e-6),
        (whole(60_000_000_000, 1e9), "read in ns: 50 Hz", 1e-9),
        (whole(1_700_000_000_000_000_000, 1e9), "read in ns: 50 Hz", 1e-6),
        # Dates of Excel are exact to 1 µs, those of MATLAB to 10 µs.
        ([f"{45292.416666 + t / 86400:.12f}" for t in TIMES_S], "read in days: 50 Hz", 2e-6),
        ([f"{739253.416666 + t / 86400:.12f}" for t in TIMES_S], "read in days: ", 2e-5),
        ([f"{t / 86400:.15f}" for t in TIMES_S], "read in days: 50 Hz", 1e-9),
    ],
)
def test_the_only_unit_that_gives_a_rate_of_sensors(tmp_path, times, note, tolerance):
    table = read_table(with_times(tmp_path / "a.csv", times))
    check(table, tolerance, [] if note is None else [f"time has no unit, {note}"])


@pytest.mark.parametrize(
    "step, unit, rate",
    [
        (1e-4, "s", 10_000),
        (0.5, "s", 2),
        (1.0, "s", 1),
        (1.05, "s", 1 / 1.05),  # the clock of a logger at 1 Hz
        (2.0, "ms", 500),
        (50.0, "ms", 20),
        (20_000.0, "us", 50),
        (4e6, "ns", 250),
        (1e-7, "days", 1 / 0.00864),
    ],
)
def test_units_by_the_step(tmp_path, step, unit, rate):
    table = read_table(with_times(tmp_path / "a.csv", [repr(7 + step * i) for i in range(9)]))
    assert 1 / np.diff(table.times_s) == pytest.approx(np.full(8, rate), rel=1e-5)
    assert bool(table.notes) == (unit != "s" or rate <= 1.1)
    assert all(f"read in {unit}" in note for note in table.notes)


@pytest.mark.parametrize(
    "step, first, message",
    [
        (200.0, 0, r"0.005 samples per second if in seconds; plausible are ms \(5\) and us \(5000"),
        (1e6, 0, r"1e-06 samples .*plausible are us \(1\) and ns \(1000\)"),
        (1e-12, 0, "no other unit fits either"),
        (1e12, 0, "no other unit fits either"),
        (300, 5e11, "begins with .*, too much for seconds; plausible are ms"),
    ],
)
def test_a_unit_that_is_not_certain(tmp_path, step, first, message):
    path = with_times(tmp_path / "a.csv", [repr(first + step * i) for i in range(9)])
    with pytest.raises(ValueError, match=f"a.csv: column 'time' .*{message}") as error:
        read_table(path)
    assert "--set time_unit=ms (or s, us, ns, days)" in str(error.value)
    assert "time_ms" in str(error.value) and "\n" not in str(error.value)
    for unit, seconds in {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "days": 86400}.items():
        if step * seconds > 0.4:
            continue  # a gap
        found = read_table(path, time_unit=unit)
        np.testing.assert_allclose(found.times_s, np.arange(9) * step * seconds, rtol=1e-4)


def test_a_date_decides_between_two_units(tmp_path):
    """200 ms since 1970 are 5 Hz in 2023; 200 us are 5 kHz in January 1970."""
    times = [1_700_000_000_000 + 200 * i for i in range(9)]
    table = read_table(with_times(tmp_path / "a.csv", times))
    np.testing.assert_allclose(table.times_s, np.arange(9) / 5)
    assert "read in ms: 5 Hz" in table.notes[0]


@pytest.mark.parametrize("kind", ["<i8", "<u8", "<f8", "<i4"])
def test_units_of_arrays(tmp_path, kind):
    start = 1_700_000_000_000_000_000 if kind in ("<i8", "<u8") else 1000
    times = np.array(whole(start, 1e9), kind)
    records = np.zeros(20, [("timestamp", kind), ("x", "f8")])
    records["timestamp"] = times
    np.save(tmp_path / "a.npy", records)
    check(read_table(tmp_path / "a.npy"), 1e-12, ["read in ns: 50 Hz"])
    if kind == "<f8":
        np.save(tmp_path / "b.npy", np.column_stack([TIMES_S * 1e3, np.ones(20)]))
        table = read_table(tmp_path / "b.npy")
        np.testing.assert_allclose(table.times_s, TIMES_S)
        assert "read in ms" in table.notes[0]


def test_durations_of_arrays(tmp_path):
    records = np.zeros(20, [("time", "m8[us]"), ("x", "f8")])
    records["time"] = np.round(TIMES_S * 1e6).astype("m8[us]")
    np.save(tmp_path / "a.npy", records)
    check(read_table(tmp_path / "a.npy"))


# --- written units, and the option ---


def test_an_implausible_rate_of_a_written_unit_is_noted(tmp_path):
    table = read_table(with_times(tmp_path / "a.csv", [0, 60, 120], "time_s"))
    assert table.times_s.tolist() == [0, 60, 120]
    assert table.notes == ("time_s gives 0.01667 samples per second",)


def test_the_option_and_the_name(tmp_path):
    path = with_times(tmp_path / "a.csv", whole(0, 1e3), "time_us")
    table = read_table(path, time_unit="ms")
    check(table, 1e-9, ["time_us read in ms: 50 Hz"])
    path = with_times(tmp_path / "a.csv", TIMES_S, "time_s")
    with pytest.raises(ValueError, match="50 samples per second by its name, and 5e.04 by time_un"):
        read_table(path, time_unit="ms")
    with pytest.raises(ValueError, match="time_unit is 'minutes', expected one of s, ms, us, ns"):
        open_backbone("signal", time_unit="minutes")


def test_no_memory_is_taken_before_the_rate_is_judged(tmp_path):
    """60 s in ns, named us: 60,000 s at 50 Hz would be 144 MB; named s, 24 TB."""
    rows = {"x": np.zeros(3000), "y": np.zeros(3000), "z": np.zeros(3000)}
    for name in ("time_s", "time_ms"):
        path = write(tmp_path / "a.csv", {name: np.arange(3000) * 20_000_000, **rows})
        tracemalloc.start()
        with pytest.raises(ValueError, match="a.csv: 3000 samples over .* at 50 Hz; expected fps"):
            list(stream_features(path, open_backbone("signal")))
        assert tracemalloc.get_traced_memory()[1] < 30e6
        tracemalloc.stop()
    # A slow logger of a month is read.
    slow = write(tmp_path / "b.csv", {"time_s": np.arange(3000) * 900, **rows})
    assert len(regular(read_table(slow), 1 / 900)) == 3000


# --- several columns of time ---


def test_columns_that_agree(tmp_path):
    columns = {"time": whole(1_700_000_000_000, 1e3), "seconds_elapsed": TIMES_S, "x": TIMES_S}
    table = read_table(write(tmp_path / "a.csv", columns))
    assert table.names == ("x",) and table.left_out == (("time", "time"),)
    np.testing.assert_array_equal(table.times_s, TIMES_S)
    assert table.notes == ("time from seconds_elapsed, with which time agrees",)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"timestamp": TIMES_S, "time_s": TIMES_S * 1.3}, "differ by up to 0.114 s"),
        ({"timestamp": TIMES_S, "time_s": ["?"] * 20}, "column 'time_s', sample 1 is '?'"),
        ({"timestamp": TIMES_S, "t": np.arange(20) * 200}, "column 't' has no unit"),
    ],
)
def test_columns_that_disagree(tmp_path, columns, message):
    path = write(tmp_path / "a.csv", {**columns, "x": np.arange(20) % 7})
    names = ", ".join(columns)
    with pytest.raises(ValueError, match=f"several columns of time, {names}.*--set time=NAME"):
        read_table(path)
    with pytest.raises(ValueError) as error:
        read_table(path)
    assert message in str(error.value)
    table = read_table(path, time="timestamp", channels=["x"])
    np.testing.assert_array_equal(table.times_s, TIMES_S)


def test_the_column_by_its_name(tmp_path):
    columns = {"clock": whole(0, 1e3), "x": np.arange(20) % 7}
    path = write(tmp_path / "a.csv", columns)
    with pytest.raises(ValueError, match="no column of time among clock, x; .*--set time=NAME"):
        read_table(path)
    check(read_table(path, time="clock"), notes=["clock has no unit, read in ms"])
    check(read_table(path, time="clock", time_unit="ms"))
    with pytest.raises(ValueError, match="no column 'watch' among clock, x"):
        read_table(path, time="watch")


@pytest.mark.parametrize("name", ["unix_timestamp", "Elapsed Time (s)", "Zeit (s)", "Epoch Time"])
def test_other_names(tmp_path, name):
    check(read_table(with_times(tmp_path / "a.csv", TIMES_S, name)))
    # They do not compete with the usual ones.
    columns = {name: TIMES_S * 2, "time_s": TIMES_S, "x": np.arange(20) % 7}
    assert read_table(write(tmp_path / "a.csv", columns)).times_s[-1] == TIMES_S[-1]


# --- dates ---

FIRST = datetime.datetime(2024, 12, 31, 11, 59, 59, 900_000)


def written_as(pattern, digits=3, first=FIRST, steps=TIMES_S):
    """Dates of the samples, with %f cut to some digits."""
    dates = [first + datetime.timedelta(seconds=float(t)) for t in steps]
    return [
        date.strftime(pattern.replace("%f", f"{date.microsecond:06}"[:digits])) for date in dates
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        "%d.%m.%Y %H:%M:%S.%f",
        "%d.%m.%y %H:%M:%S:%f",
        "%d/%m/%Y %H:%M:%S.%f",
        "%m/%d/%Y %I:%M:%S.%f %p",
        "%m-%d-%Y %H:%M:%S.%f",
        "%Y/%m/%d %H:%M:%S.%f",
        "%Y.%m.%d %H:%M:%S.%f",
        "%d-%b-%Y %H:%M:%S.%f",
        '"%b %d, %Y %I:%M:%S.%f %p"',
        "%Y-%m-%d %H:%M:%S.%f UTC",
        "%Y/%m/%d %H:%M:%S.%f+01:00",
        "%H:%M:%S.%f",
        "%I:%M:%S.%f %p",
        "0 days %H:%M:%S.%f",
    ],
)
def test_dates_of_other_forms(tmp_path, pattern):
    check(read_table(with_times(tmp_path / "a.csv", written_as(pattern))))


def test_whole_minutes(tmp_path):
    times = [f"12/31/2024 {1 + i // 60}:{i % 60:02} PM" for i in range(90)]
    assert read_table(with_times(tmp_path / "a.csv", times)).times_s[-1] == 89 * 60


@pytest.mark.parametrize("pattern", ["%d/%m/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S.%f"])
def test_day_and_month_that_may_be_swapped(tmp_path, pattern):
    """On one day the order does not matter; at midnight the next day decides."""
    times = written_as(pattern, first=datetime.datetime(2024, 5, 6, 10))
    check(read_table(with_times(tmp_path / "a.csv", times)))
    times = written_as(pattern, first=datetime.datetime(2024, 5, 6, 23, 59, 59, 900_000))
    check(read_table(with_times(tmp_path / "a.csv", times)))
    daily = [datetime.datetime(2024, 2, 1 + i).strftime(pattern[:8]) for i in range(9)]
    with pytest.raises(ValueError, match="begins with '0./0./2024', where day and month are not"):
        read_table(with_times(tmp_path / "a.csv", daily))


@pytest.mark.parametrize(
    "times, message",
    [
        (["31.12.2024 13:00:00", "1.1.2025"], None),
        (["31.12.2024 13:00:00", "soon"], "sample 2 is 'soon', expected a date"),
        (["32.12.2024 13:00:00", "32.12.2024 13:00:01"], "day and month are not certain"),
        (["13:00:00", "13:00:61"], "sample 2 is '13:00:61', expected a date"),
        (["23:59:59", "00:00:00"], "decreases by 86399 s"),
        (["13:00", "13:01"], "hours or minutes are not certain"),
        (["01:02.5", "01:02.6"], "hours or minutes are not certain"),
    ],
)
def test_bad_dates(tmp_path, times, message):
    path = with_times(tmp_path / "a.csv", times)
    if message is None:
        assert read_table(path).times_s[1] == 11 * 3600
        return
    with pytest.raises(ValueError, match=f"a.csv: .*{message}"):
        read_table(path)
