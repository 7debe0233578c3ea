"""Tables of samples: what is read, and what is refused in one line."""

import datetime
import sys

import numpy as np
import pytest

from tal_jax.extraction import Table, read_table, regular

TIMES_S = np.array([0.0, 0.02, 0.041, 0.06])
VALUES = np.array([[1.0, -2.0], [3.5, 4.0], [0.0, 1e-3], [7.0, 8.0]])


def write_csv(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def lines_of(times, name="time_s"):
    return [f"x,{name},y", *(f"{x},{t},{y}" for t, (x, y) in zip(times, VALUES, strict=True))]


def check(table, tolerance=1e-9):
    np.testing.assert_allclose(table.times_s, TIMES_S, atol=tolerance)
    assert table.times_s[0] == 0
    np.testing.assert_array_equal(table.values, VALUES)


@pytest.mark.parametrize(
    "name, factor",
    [
        ("time_s", 1),
        ("time", 1),
        ("T", 1),
        ("Seconds", 1),
        ("seconds_elapsed", 1),
        ("Timestamp [ms]", 1e3),
        ("time (us)", 1e6),
        ("t_ns", 1e9),
    ],
)
def test_csv_by_the_name_of_its_time(tmp_path, name, factor):
    path = write_csv(tmp_path / "Über uns.csv", lines_of((TIMES_S + 5) * factor, name))
    table = read_table(path)
    check(table)
    assert table.names == ("x", "y")


def test_nanoseconds_since_1970(tmp_path):
    since = 1_700_000_000_000_000_000
    times = [since + round(t * 1e9) for t in TIMES_S]
    check(read_table(write_csv(tmp_path / "a.csv", lines_of(times, "timestamp_ns"))), 1e-6)


@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
def test_dates(tmp_path, zone):
    first = datetime.datetime(2024, 2, 29, 23, 59, 59, 970000)
    times = [(first + datetime.timedelta(seconds=t)).isoformat() + zone for t in TIMES_S]
    check(read_table(write_csv(tmp_path / "a.csv", lines_of(times, "time"))))


def test_quotes_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    text = '\ufeff"time_s", x \n0,1\n\n"1","2"\n'
    path.write_text(text, encoding="utf-8")
    table = read_table(path)
    assert table.names == ("x",)
    np.testing.assert_array_equal(table.values, [[1], [2]])


def test_npy(tmp_path):
    np.save(tmp_path / "plain.npy", np.column_stack([TIMES_S + 3, VALUES]))
    table = read_table(tmp_path / "plain.npy")
    check(table)
    assert table.names == ("channel_1", "channel_2")

    fields = [("x", "<f4"), ("when_ms", "<i8"), ("y", "<f8")]
    records = np.zeros(4, [(name.replace("when", "time"), kind) for name, kind in fields])
    records["x"], records["y"] = VALUES.T
    records["time_ms"] = [7, 27, 48, 67]
    np.save(tmp_path / "named.NPY", records)
    (tmp_path / "named.NPY.npy").rename(tmp_path / "named.NPY")
    table = read_table(tmp_path / "named.NPY")
    np.testing.assert_allclose(table.times_s, TIMES_S, atol=1e-9)
    np.testing.assert_allclose(table.values, VALUES, rtol=1e-6)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    first = datetime.datetime(2024, 3, 1)
    dates = [first + datetime.timedelta(seconds=t) for t in TIMES_S]
    for times in (pyarrow.array(dates, pyarrow.timestamp("us", "UTC")), pyarrow.array(TIMES_S)):
        columns = {"time": times, "x": VALUES[:, 0], "y": VALUES[:, 1]}
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
        table = read_table(tmp_path / "a.parquet")
        check(table)
        assert table.names == ("x", "y")

    columns = {"time": TIMES_S, "x": pyarrow.array([1.0, None, 2.0, 3.0])}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column 'x', sample 2 is nan"):
        read_table(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(ValueError, match="cannot read .*a.parquet"):
        read_table(tmp_path / "a.parquet")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r'pip install "tal_jax\[tables\]"'):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "lines, message",
    [
        (["x,y", "1,2", "2,3"], "no column of time among x, y"),
        (["time,seconds,x", "1,1,1"], "several columns of time, time, seconds"),
        (["time_s", "1", "2"], "no columns beside 'time_s'"),
        (["time_s,x"], "0 samples, expected at least 2"),
        (["time_s,x", "1,1"], "1 samples, expected at least 2"),
        (["0,1", "1,2"], "the first line holds numbers"),
        ([""], "empty, expected"),
        (["t,x,x", "1,1,1"], "two columns are named 'x'"),
        (["t,x", "1,1", "2"], "sample 2 has 1 fields"),
        (["t,x", "1,1", "2,abc"], "column 'x', sample 2 is 'abc', expected a finite number"),
        (["t,x", "1,1", "2,"], "column 'x', sample 2 is ''"),
        (["t,x", "1,nan", "2,1"], "column 'x', sample 1 is nan"),
        (["t,x", "1,inf", "2,1"], "column 'x', sample 1 is inf"),
        (["t,x", "1,0", "oops,1"], "column 't', sample 2 is 'oops'"),
        (["t,x", "1,0", "nan,1"], "column 't', sample 2 is nan"),
        (["t,x", "1,0", "2,0", "1.5,0"], "decreases by 0.5 s at sample 3, 1.000 s after the first"),
        (["t,x", "1,0", "2,0", "2,0"], "does not increase at sample 3"),
        (["t,x", *(f"{i / 10},0" for i in (0, 1, 2, 12, 13))], "no samples for 1.000 s from 0.200"),
        (["time,x", "500000000000,0", "500000000300,0"], "too much for seconds"),
        (["time,x", "2024-01-01T00:00:00,0", "5,0"], "sample 2 is '5', expected a date"),
        (["time,x", "2024-01-01T00:00:00,0", "2024-01-01T00:00:01Z,0"], "expected a date"),
        (["t,x", '"1" 2,3'], "line 2: "),
    ],
)
def test_bad_csv(tmp_path, lines, message):
    path = write_csv(tmp_path / "bad.csv", lines)
    with pytest.raises(ValueError, match=f"bad.csv: .*{message}") as error:
        read_table(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros(5), r"shape \[5\]"),
        (np.zeros((5, 1)), r"shape \[5, 1\]"),
        (np.zeros((0, 3)), "0 samples"),
        (np.zeros((2, 2), [("t", "f8"), ("x", "f8")]), r"shape \[2, 2\]"),
        (np.ones(2, [("t", "f8"), ("x", "f8", 2)]), "column 'x' holds arrays"),
        (np.ones(2, [("t", "f8"), ("x", "M8[s]")]), "column 'x' holds dates"),
        (np.array([("NaT", 1)], [("t", "M8[s]"), ("x", "f8")]).repeat(2), "sample 1 is empty"),
    ],
)
def test_bad_npy(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=f"bad.npy: .*{message}"):
        read_table(tmp_path / "bad.npy")


def test_what_is_no_table(tmp_path):
    for name, content in [("a.txt", b""), ("b.npy", b"nonsense"), ("c.csv", b"\xff\xfe\x00")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_table(tmp_path / name)
    with pytest.raises(ValueError, match="missing.csv"):
        read_table(tmp_path / "missing.csv")


def test_jitter_and_slow_loggers_are_no_gaps(tmp_path):
    times = [0, 0.02, 0.04, 0.3, 0.32]  # 13 steps missing, but no action fits in
    slow = [0, 1, 2, 4.9, 6]  # less than three steps
    for name, column in (("fast", times), ("slow", slow)):
        path = write_csv(tmp_path / f"{name}.csv", ["t,x", *(f"{t},1" for t in column)])
        assert len(read_table(path).times_s) == 5


def test_regular_is_exact_on_lines():
    times_s = np.cumsum([0, *np.random.default_rng(0).uniform(0.001, 0.04, 500)])
    values = np.stack([3 * times_s - 1, -times_s], axis=1)
    table = Table(times_s, values, ("a", "b"))
    for fps in (7.3, 50.0, 400.0):
        samples = regular(table, fps)
        clock_s = np.arange(len(samples)) / fps
        np.testing.assert_allclose(samples, np.stack([3 * clock_s - 1, -clock_s], 1), atol=1e-12)
        assert clock_s[-1] <= times_s[-1] < clock_s[-1] + 1 / fps


def test_regular_keeps_a_regular_clock():
    values = np.random.default_rng(0).normal(size=(301, 3))
    table = Table(np.arange(301) / 30, values, ("a", "b", "c"))
    np.testing.assert_allclose(regular(table, 30), values, atol=1e-9)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_regular_wants_a_rate(fps):
    table = Table(np.array([0.0, 1.0]), np.zeros((2, 1)), ("x",))
    with pytest.raises(ValueError, match="fps is"):
        regular(table, fps)
