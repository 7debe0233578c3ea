"""Files appear whole or not at all."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tal_jax._errors import InputError
from tal_jax.data import files


def test_json_round_trip(tmp_path):
    value = {
        "a": [1, 2.5, None, True],
        "\u00fc": np.float32(0.5),
        "n": np.arange(3),
        "s": np.int64(3),
    }
    files.write_json(tmp_path / "new" / "a.json", value)
    assert files.read_json(tmp_path / "new" / "a.json") == {
        "a": [1, 2.5, None, True],
        "\u00fc": 0.5,
        "n": [0, 1, 2],
        "s": 3,
    }


@pytest.mark.parametrize("sizes", [[5], [2, 3], [1, 0, 4]])
def test_rows_part_by_part(tmp_path, sizes):
    matrix = np.arange(15, dtype=np.float64).reshape(5, 3)
    parts = np.split(matrix, np.cumsum(sizes)[:-1])
    files.write_npy_rows(tmp_path / "new" / "a.npy", iter(parts), (5, 3))
    np.save(tmp_path / "whole.npy", matrix.astype(np.float32))
    assert (tmp_path / "new" / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("rows, columns", [(4, 3), (6, 3), (5, 2)])
def test_rows_of_another_shape(tmp_path, rows, columns):
    with pytest.raises(ValueError, match=r"a.npy: parts up to \d rows, expected \[5, 3\] in all"):
        files.write_npy_rows(tmp_path / "a.npy", [np.zeros((rows, columns))], (5, 3))
    assert os.listdir(tmp_path) == []


def test_rows_that_cannot_be_made(tmp_path):
    def parts():
        yield np.zeros((2, 3))
        raise ValueError("broken after 2 rows")

    (tmp_path / "a.npy").write_bytes(b"what lay there before")
    with pytest.raises(ValueError, match="broken after 2 rows"):
        files.write_npy_rows(tmp_path / "a.npy", parts(), (5, 3))
    assert os.listdir(tmp_path) == ["a.npy"]
    assert (tmp_path / "a.npy").read_bytes() == b"what lay there before"


def test_arrays_round_trip(tmp_path):
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    files.write_npy(tmp_path / "a.npy", array)
    files.write_npz(tmp_path / "a.npz", {"x/scores": array, "y": array[0]})
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
    with np.load(tmp_path / "a.npz") as loaded:
        assert set(loaded) == {"x/scores", "y"}
        np.testing.assert_array_equal(loaded["x/scores"], array)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "a.npz"]


def test_files_are_readable_by_others(tmp_path):
    files.write_bytes(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("value", [float("nan"), [np.inf], {"a": np.array([np.nan])}])
def test_json_without_nan(tmp_path, value):
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", value)
    assert os.listdir(tmp_path) == []


def test_json_of_something_else(tmp_path):
    with pytest.raises(TypeError, match="cannot write object"):
        files.write_json(tmp_path / "a.json", {"a": object()})


def test_values_below_keys_that_are_not_named():
    with pytest.raises(InputError, match=r"^x: \[\.\.\.\]\[0\]: expected a string$"):
        files.convert({"1": [5]}, dict[str, list[str]], "x")
    with pytest.raises(InputError, match=r"^x: \[\.\.\.\]: expected a finite number above 0$"):
        files.convert({"1": -1}, dict[str, files.Positive], "x")


def test_text_that_is_no_unicode(tmp_path):
    """Such as the name of a file that another system wrote in Latin-1."""
    name = os.fsdecode(b"caf\xe9")
    for write in (lambda path: files.write_json(path, {name: 1}), _write_name):
        with pytest.raises(InputError, match=r"'.*caf\\udce9.*: no Unicode, expected text in UTF"):
            write(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    files.write_json(tmp_path / "a", "\U0001f600")
    assert files.read_json(tmp_path / "a") == "\U0001f600"


def _write_name(path):
    files.write_csv(path, [["a", os.fsdecode(b"caf\xe9")]])


def test_a_link_and_the_mode_of_a_file_stay(tmp_path):
    (tmp_path / "shared").mkdir()
    file, link = tmp_path / "shared" / "a.json", tmp_path / "a.json"
    file.write_text("{}")
    file.chmod(0o640)
    link.symlink_to("shared/a.json")
    files.write_json(link, [1])
    assert link.is_symlink() and file.read_text() == link.read_text() == "[\n 1\n]\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "shared") == ["a.json"]
    # A link to a folder that is not mounted is neither replaced nor is the folder made.
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere" / "a.json")
    with pytest.raises(OSError, match=r"cannot write .*a.json: No such file or directory; nothing"):
        files.write_json(link, [2])
    assert link.is_symlink() and not (tmp_path / "elsewhere").exists()


def test_object_arrays_are_refused(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        files.write_npy(tmp_path / "a.npy", np.array([{}], dtype=object))
    assert os.listdir(tmp_path) == []


def test_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, 1)

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="cannot write .*a.json: No space left on device") as error:
        files.write_json(path, 2)
    assert error.value.errno == errno.ENOSPC
    assert "\n" not in str(error.value)
    assert json.loads(path.read_text()) == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_disk_full_while_an_array_is_written(tmp_path, monkeypatch):
    def save(file, array, **kwargs):
        file.write(b"half")
        raise OSError("6 requested and 2 written")  # NumPy's, which has no number

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(OSError, match="cannot write .*a.npy: 6 requested and 2 written"):
        files.write_npy(tmp_path / "a.npy", np.zeros(6))
    assert os.listdir(tmp_path) == []


def test_unwritable_folder(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):  # a mode would not stop root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError, match="cannot write .*a.json: Permission denied"):
        files.write_json(tmp_path / "a.json", 1)


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="cannot write .*a.json"):
        files.write_json(tmp_path / "file" / "a.json", 1)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", "a.json: Expecting"),
        (b"\xff\xfe", "cannot read .*a.json: 'utf-8'"),
        (b'{"x": {"k": 1, "k": 2}}', "a.json: key 'k' occurs twice"),
        (b"[" * 100_000, "a.json: maximum recursion"),
    ],
)
def test_bad_json(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        files.read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_missing_json(tmp_path):
    with pytest.raises(ValueError, match="cannot read .*a.json: No such file"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["missing", "cut short", "an .npy", "text"])
def test_npz_that_cannot_be_read(tmp_path, kind):
    path = tmp_path / "arrays.npz"
    files.write_npz(path, {"a": np.arange(1000)})
    np.testing.assert_array_equal(files.read_npz(path)["a"], np.arange(1000))
    content = path.read_bytes()
    path.unlink()
    if kind == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "an .npy":
        files.write_npy(path, np.arange(3))
    elif kind == "text":
        path.write_text("no arrays")
    with pytest.raises(ValueError, match=r"cannot read .*arrays\.npz: .*expected an \.npz"):
        files.read_npz(path)


def test_files_that_are_not_ours_are_not_replaced(tmp_path):
    paths = [tmp_path / f"{index}.csv" for index in range(8)]
    files.refuse_replacing(paths, ours=lambda path: False)  # none exists
    for path in paths[1:]:
        path.write_text("ours" if path == paths[2] else "theirs")
    with pytest.raises(ValueError) as caught:
        files.refuse_replacing(paths, ours=lambda path: path.read_text() == "ours")
    named = ", ".join(str(paths[index]) for index in (1, 3, 4, 5, 6))
    assert str(caught.value).startswith(f"{named} and 1 more: there already, and not written by ")
    files.refuse_replacing(paths, ours=lambda path: True)


def test_what_cannot_be_read_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "not mounted")
    for name in ("folder", "link"):
        with pytest.raises(ValueError, match=f"{name}: there already"):
            files.refuse_replacing([tmp_path / name], ours=lambda path: not path.read_bytes())


def test_text_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf\xc3\xbc\r\nb\n")
    assert files.read_text(tmp_path / "a.txt") == "\u00fc\nb\n"


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('name,time\n"a, b",1\n\nc,\n')
    assert files.read_csv(path, ["time"]) == [
        {"name": "a, b", "time": "1"},
        {"name": "c", "time": ""},
    ]


@pytest.mark.parametrize(
    "content, message",
    [
        ("name,time\na,1\n", "no column 'point', expected the columns name, point"),
        ("", "no column 'name', expected the columns name, point"),
        ("name,point\na\n", "line 2 does not have 2 fields"),
        ("name,point\na,1\nb,2,3\n", "line 3 does not have 2 fields"),
        ('name,point\n"a" b,1\n', "line 2: "),
    ],
)
def test_bad_csv(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=f"a.csv: {message}"):
        files.read_csv(tmp_path / "a.csv", ["name", "point"])


def _gone():
    """A process id that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_left_over_temporary_files_of_ended_processes_are_removed(tmp_path, monkeypatch):
    names = {}
    for name in ("a.json", "b" * 200 + ".json"):
        monkeypatch.setattr(os, "replace", lambda source, target: names.update({target: source}))
        files.write_json(tmp_path / name, 1)
        monkeypatch.undo()
    mine, other = (path.name for path in names.values())
    gone = str(_gone())

    def by(process, name=mine):
        return name.replace(f".{os.getpid()}.", f".{process}.")

    # Of processes that ended, of this target and another; of a live one, of another host; and no
    # number at all.
    host = mine.split(".")[-3]
    left = [by(gone), by(gone, other)]
    kept = [by(os.getppid()), by(gone).replace(host, "0" * 8), by("x"), "mine.tmp"]
    for name in (*left, *kept):
        (tmp_path / name).write_text("half")
    write = "import sys; from tal_jax.data import files; files.write_json(sys.argv[1], 2)"
    subprocess.run([sys.executable, "-c", write, tmp_path / "a.json"], check=True)
    assert sorted(os.listdir(tmp_path)) == sorted(["a.json", *kept])
    assert files.read_json(tmp_path / "a.json") == 2

    files.remove_temporary(tmp_path)  # of all processes and hosts
    assert sorted(os.listdir(tmp_path)) == sorted(["a.json", by("x"), "mine.tmp"])


def test_a_folder_is_listed_once_for_many_files(tmp_path, monkeypatch):
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    for number in range(20):
        files.write_json(tmp_path / f"{number}.json", number)
    assert listed == [str(tmp_path)]


def test_writable(tmp_path):
    files.check_writable([tmp_path / "a.json", tmp_path / "new" / "deep" / "a.json"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="cannot write .*file/a.json: Not a directory"):
        files.check_writable([tmp_path / "a.json", tmp_path / "file" / "a.json"])
    with pytest.raises(OSError, match="cannot write .*: Is a directory"):
        files.check_writable([tmp_path])
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("method", [97, 9])
def test_an_npz_of_another_compression(tmp_path, method):
    path = tmp_path / "a.npz"
    files.write_npz(path, {"x": np.arange(3)})
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = content.index(signature) + at
        content[place : place + 2] = method.to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read .*a.npz: .*expected an .npz") as error:
        files.read_npz(path)
    assert "\n" not in str(error.value)
