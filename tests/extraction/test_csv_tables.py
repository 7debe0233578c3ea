"""Dialects of .csv, and which of the columns are channels."""

import numpy as np
import pytest

from tal_jax.extraction import extract_file, open_backbone, read_table, regular

TIMES_S = np.array([0.0, 0.02, 0.04, 0.06])
X = np.array([1.5, -2.25, 1000.125, 4.0])
Y = np.array([0.5, 7.0, 8.5, -1.0])


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def lines(header, *, mark=",", point=".", end="", new="\n"):
    rows = [
        mark.join(f"{value:g}" if value != 1000.125 else "1000.125" for value in row) + end
        for row in zip(TIMES_S, X, Y, strict=True)
    ]
    return new.join([header, *(row.replace(".", point) for row in rows)]) + new


def check(path, names=("x", "y"), **options):
    table = read_table(path, **options)
    assert table.names == names
    np.testing.assert_allclose(table.times_s, TIMES_S, atol=1e-12)
    np.testing.assert_array_equal(table.values, np.column_stack([X, Y]))
    return table


# --- dialects ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "mark, point", [(",", "."), (";", "."), (";", ","), ("\t", ","), ("|", ".")]
)
@pytest.mark.parametrize("end", ["", "extra"])
@pytest.mark.parametrize("new", ["\n", "\r\n"])
def test_separators(tmp_path, encoding, mark, point, end, new):
    text = lines(f"time_s{mark}x{mark}y", mark=mark, point=point, end=end and mark, new=new)
    assert check(write(tmp_path / "a.csv", text, encoding)).left_out == ()


@pytest.mark.parametrize(
    "header, above",
    [
        ("time_s,x,y", "# logger 3\n# 50 Hz\n"),
        ("# time_s,x,y", ""),
        ("time_s,x,y", "% made by hand\n\n"),
        ("time_s,x,y", "Device: watch\nSubject,7\n\n"),
        ("time_s,x,y\ns,g,g", ""),
        ("time,x,y\n[s],[m/s^2],[m/s^2]", ""),
        ("time_s,x,y\n,CAL,CAL\ns,g,g", "\nVersion 3\n"),
        ('"time_s", "x", "y"', ""),
    ],
)
def test_lines_around_the_names(tmp_path, header, above):
    check(write(tmp_path / "a.csv", above + lines(header)))


def test_the_note_on_lines_above(tmp_path):
    table = check(write(tmp_path / "a.csv", "Device: watch\nSubject,7\n" + lines("time_s,x,y")))
    assert table.notes == ("2 lines above the column names skipped",)


def test_spaces_and_the_separator_of_excel(tmp_path):
    check(write(tmp_path / "a.csv", lines("time_s x y", mark="  ")))
    check(write(tmp_path / "b.csv", "sep=;\n" + lines("time_s;x;y", mark=";", point=",")))
    check(write(tmp_path / "c.csv", '"time_s","x","y"\n' + "\n".join(
        ",".join(f'"{value!s}"'.replace(".", ",") for value in map(float, row))
        for row in zip(TIMES_S, X, Y, strict=True)
    )))  # fmt: skip


def test_the_code_page_of_windows(tmp_path):
    path = write(tmp_path / "a.csv", lines("time_s,x (m/s²),y (°)"), "cp1252")
    check(path, ("x (m/s²)", "y (°)"))


def test_a_unit_in_the_second_line_counts(tmp_path):
    text = "time,x\nms,g\n0,1\n200,2\n400,3\n"  # without it, us would be plausible as well
    assert read_table(write(tmp_path / "a.csv", text)).times_s.tolist() == [0, 0.2, 0.4]


def test_phyphox(tmp_path):
    path = write(
        tmp_path / "a.csv",
        '"Time (s)";"Acceleration x (m/s^2)"\n1,000000000E-2;-2,5E0\n3,000000000E-2;1,0E-1\n',
    )
    table = read_table(path)
    np.testing.assert_allclose(table.times_s, [0, 0.02])
    assert table.values.ravel().tolist() == [-2.5, 0.1]


_ACTIGRAPH = """\
------------ Data File Created By ActiGraph GT3X+ ActiLife v6.13.3 Firmware v1.9.2 date format \
M/d/yyyy at 40 Hz  Filter Normal -----------
Serial Number: NEO1F18120387
Start Time 12:00:00
Start Date 12/6/2012
Epoch Period (hh:mm:ss) 00:00:00
Download Time 10:10:10
Download Date 12/9/2012
Current Memory Address: 0
Current Battery Voltage: 4.20     Mode = 12
--------------------------------------------------
"""


@pytest.mark.parametrize("header", ["", "Accelerometer X,Accelerometer Y,Accelerometer Z\n"])
def test_actigraph(tmp_path, header):
    path = write(tmp_path / "a.csv", f"{_ACTIGRAPH}{header}0.1,0.2,-1\n0.3,0.1,-1\n0,0.5,-2\n")
    table = read_table(path)
    assert table.times_s.tolist() == [0, 0.025, 0.05] and len(table.names) == 3
    assert table.names[0] == ("Accelerometer X" if header else "channel_1")
    assert table.values[1].tolist() == [0.3, 0.1, -1] and "ActiGraph: 40 Hz" in table.notes
    with_time = "Timestamp,X\n12/6/2012 12:00:00.000,1\n12/6/2012 12:00:00.050,2\n"
    table = read_table(write(tmp_path / "b.csv", _ACTIGRAPH + with_time))
    np.testing.assert_allclose(table.times_s, [0, 0.05])


def test_actigraph_without_a_rate(tmp_path):
    path = write(tmp_path / "a.csv", _ACTIGRAPH.replace("at 40 Hz", "") + "1,2,3\n1,2,3\n")
    with pytest.raises(ValueError, match="a.csv: a file of ActiGraph whose lines .* give no rate"):
        read_table(path)
    path = write(tmp_path / "b.csv", _ACTIGRAPH.replace("00:00:00\nD", "00:01:00\nD") + "1\n2\n")
    assert read_table(path).times_s.tolist() == [0, 60]  # counts of each minute


def test_empatica(tmp_path):
    text = "1544027337.0, 1544027337.0, 1544027337.0\n32.0, 32.0, 32.0\n-29,16,56\n-28,15,54\n1,2,3"
    table = read_table(write(tmp_path / "ACC.csv", text))
    assert table.times_s.tolist() == [0, 1 / 32, 2 / 32]
    assert table.values.tolist() == [[-29, 16, 56], [-28, 15, 54], [1, 2, 3]]
    assert table.names == ("channel_1", "channel_2", "channel_3")
    assert table.notes == ("Empatica: 32 Hz",)
    table = read_table(write(tmp_path / "BVP.csv", "1544027337.0\n64.0\n-0.5\n1.0\n2.0\n"))
    assert table.times_s.tolist() == [0, 1 / 64, 2 / 64] and table.names == ("channel_1",)


_LABCHART = """\
Interval=\t0.02 s
ExcelDateTime=\t4.3831e+04\t1/1/2020 10:00:00
TimeFormat=\tStartOfBlock
ChannelTitle=\tx\ty
Range=\t10 V\t5 V
"""


def test_labchart(tmp_path):
    check(write(tmp_path / "a.csv", _LABCHART + lines("", mark="\t").lstrip("\n")))
    again = _LABCHART + "0\t1\t2\n0.02\t1\t2\n" + _LABCHART + "0\t1\t2\n"
    with pytest.raises(ValueError, match="a.csv: a file of LabChart with a second block in line 8"):
        read_table(write(tmp_path / "a.csv", again))


@pytest.mark.parametrize(
    "text, message",
    [
        ("t,x\n0,0,1,5\n0,02,1,6\n", "sample 1 has 4 fields, .* decimal commas need semicolons"),
        ("t;x\n0;1,234\n1;2,345\n", "the comma in 1,234 may mark decimals or thousands"),
        ("t;x\n0;1,5\n1;2.5\n", "1,5 and numbers with a decimal point in one column"),
        ("0,0,1\n0.1,1,2\n0.2,1,2\n", "the first line holds numbers"),
        ("1,2\n0,1\nt,x\n3,1\n", "line 1 holds numbers above the column names in line 3"),
        ("t,x\n0,1\n1,2\nt,x\n0,1\n", "column 't', sample 3 is 't'"),
        ("# nothing\n", "empty, expected"),
    ],
)
def test_what_can_be_read_in_two_ways(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=f"a.csv: .*{message}") as error:
        read_table(path)
    assert "\n" not in str(error.value)


# --- channels ---


def table_of(path, **columns):
    """A table of 20 samples; a column of None gets random numbers."""
    rng = np.random.default_rng(0)
    filled = {
        name.replace("_0", ""): rng.normal(size=20).round(3) if column is None else column
        for name, column in columns.items()
    }
    rows = zip(*filled.values(), strict=True)
    text = "\n".join([",".join(filled), *(",".join(map(str, row)) for row in rows)])
    return write(path, text)


TIME = [i / 50 for i in range(20)]
SPARSE = [71 if i % 5 == 0 else "" for i in range(20)]


@pytest.mark.parametrize(
    "name, column, left",
    [
        ("", range(20), "column 1 (no name)"),
        ("Unnamed: 0", range(20), "Unnamed: 0 (no name)"),
        ("", range(300, 320), "column 1 (no name)"),
        ("i", range(1, 21), "i (counts the samples)"),
        ("record", [float(i) for i in range(20)], "record (counts the samples)"),
        ("PacketCounter", [(250 + i) % 256 for i in range(20)], "PacketCounter (counts the sampl"),
    ],
)
def test_an_index_is_no_channel(tmp_path, name, column, left):
    columns = {name: list(column), "time_s": TIME, "x": None, "y": None, "z": None}
    entry = extract_file(
        table_of(tmp_path / "a.csv", **columns), tmp_path / "a.npy", open_backbone("signal")
    )
    assert entry.notes[0].startswith(f"columns left out: {left}") and entry.dim == 44
    named = read_table(tmp_path / "a.csv", channels=["z", "x"])
    assert named.names == ("z", "x")


def test_a_counter_behind_the_time_goes_by_its_name(tmp_path):
    path = table_of(tmp_path / "a.csv", time_s=TIME, ramp=range(20), counter=range(20), x=None)
    table = read_table(path)
    assert table.names == ("ramp", "x") and dict(table.left_out) == {
        "counter": "counts the samples"
    }


@pytest.mark.parametrize(
    "column, reason",
    [
        (["walk"] * 20, "text"),
        (["walk"] * 10 + [""] * 10, "text"),
        ([""] * 10 + ["walk"] * 10, "text"),
        (SPARSE, "blank at sample 2"),
        (["1"] * 19 + ["NaN"], "blank at sample 20"),
        (["NA"] * 20, "blank"),
        (["2024-01-01 10:00:00"] * 20, "text"),
    ],
)
def test_text_and_blanks_are_left_out(tmp_path, column, reason):
    path = table_of(tmp_path / "a.csv", time_s=TIME, x=None, other=column, y=None, z=None)
    table = read_table(path)
    assert table.names == ("x", "y", "z") and table.left_out == (("other", reason),)
    entry = extract_file(path, tmp_path / "a.npy", open_backbone("signal"))
    assert entry.notes == (f"columns left out: other ({reason})",)
    # Where the channels are named, the rest does not matter.
    chosen = open_backbone("signal", channels="z,y,x")
    assert extract_file(path, tmp_path / "b.npy", chosen).notes == entry.notes
    needed = open_backbone("signal", channels="x,y,other")
    with pytest.raises(ValueError, match="a.csv: column 'other', sample .*expected a finite"):
        extract_file(path, tmp_path / "c.npy", needed)


def test_damage_among_numbers_is_no_text(tmp_path):
    path = table_of(tmp_path / "a.csv", time_s=TIME, x=None, y=["1"] * 7 + ["l"] + ["1"] * 12)
    with pytest.raises(ValueError, match="column 'y', sample 8 is 'l', expected a finite number"):
        read_table(path)
    assert read_table(path, channels=["x"]).names == ("x",)


def test_blanks_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"time_s": TIME, "x": TIME, "hr": [None if i % 5 else 70 for i in range(20)]}
    columns["what"] = ["walk"] * 20
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table.names == ("x",)
    assert dict(table.left_out) == {"hr": "blank at sample 2", "what": "text"}


def test_columns_that_make_no_triples(tmp_path):
    path = table_of(tmp_path / "a.csv", _0=range(20), time_s=TIME, x=None, y=None, hr=SPARSE)
    with pytest.raises(ValueError, match=r"channels x, y; .*channels=ax,ay,az; columns left out: "):
        extract_file(path, tmp_path / "a.npy", open_backbone("signal"))


def test_regular_of_chosen_channels(tmp_path):
    path = table_of(tmp_path / "a.csv", time_s=TIME, x=None, y=None)
    both, one = read_table(path), read_table(path, channels=["y"])
    np.testing.assert_array_equal(regular(one, 25)[:, 0], regular(both, 25)[:, 1])
