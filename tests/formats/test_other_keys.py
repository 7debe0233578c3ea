"""Keys of annotation files that nothing here uses survive, or a note names them; so do files."""

import json

import pytest

from tal_jax import cli, formats
from tal_jax._errors import InputError
from tal_jax.data.annotations import ground_truth_of, parse_annotations

INSTANCE = {"label": "x", "segment": [10.0, 20.0], "id": 7, "who": ["me"]}
ENTRY = {"subset": "training", "duration": 60.0, "url": "http://x", "resolution": "640x480"}
ENTRY |= {"fps": 29.97, "annotations": [INSTANCE]}
FILE = {
    "version": "1.3",
    "taxonomy": [{"nodeName": "x"}],
    "license": None,
    "database": {"a": ENTRY},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gt.json").write_text(json.dumps(FILE))
    return tmp_path


def _run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_conversion_keeps_all_keys(folder, capsys):
    assert _run(capsys, "convert", "gt.json", "--output", "out.json")[0] == 0
    assert json.loads((folder / "out.json").read_text()) == FILE | {"classes": ["x"]}


def test_points_keep_all_keys(folder, capsys):
    make = ("points", "make", "gt.json", "--law", "center", "--seed", 0, "--output", "p.json")
    assert _run(capsys, *make)[0] == 0
    made = json.loads((folder / "p.json").read_text())
    entry = ENTRY | {"annotations": [INSTANCE | {"point": 15.0}]}
    points = {"law": "center", "seed": 0}
    assert made == FILE | {"classes": ["x"], "points": points, "database": {"a": entry}}
    # The rate is what a table in frames needs.
    convert = ("points", "make", "out.json", "--law", "center", "--seed", 0, "--output", "p.csv")
    _run(capsys, "convert", "gt.json", "--output", "out.json")
    assert (
        _run(capsys, *convert)[0] == 0 and ",299.7,599.4,a,449.5" in (folder / "p.csv").read_text()
    )
    _run(capsys, "points", "convert", "p.csv", "--annotations", "gt.json", "--output", "q.json")
    again = json.loads((folder / "q.json").read_text())
    assert again["taxonomy"] == FILE["taxonomy"] and again["database"]["a"]["url"] == "http://x"
    assert again["database"]["a"]["annotations"][0]["id"] == 7


@pytest.mark.parametrize("output", ["a.csv", "a.eaf", "a.txt"])
def test_formats_without_other_keys_name_them(folder, capsys, output):
    code, out = _run(capsys, "convert", "gt.json", "--output", output)
    assert code == 0
    assert "other keys (taxonomy, license, url, resolution, fps, id, who)" in out


def test_several_files(folder, capsys):
    other = FILE | {"license": "CC0", "database": {"b": ENTRY}}
    (folder / "other.json").write_text(json.dumps(other))
    code, out = _run(capsys, "convert", "gt.json", "other.json", "--output", "all.json")
    assert code == 0 and "keys that differ between the files, left out: license" in out
    written = json.loads((folder / "all.json").read_text())
    assert written["taxonomy"] == FILE["taxonomy"] and "license" not in written
    assert written["database"] == {"a": ENTRY, "b": ENTRY}
    (folder / "b.csv").write_text("video,label,start,end\nb,x,1,2\n")
    assert _run(capsys, "convert", "gt.json", "b.csv", "--output", "two.json")[0] == 0
    assert json.loads((folder / "two.json").read_text())["taxonomy"] == FILE["taxonomy"]


def test_the_folder_of_the_recordings_must_exist(folder, capsys):
    code, out = _run(capsys, "convert", "gt.json", "--output", "o.json", "--recordings", "vidoes")
    assert code == 2 and "vidoes: no such folder" in out and not (folder / "o.json").exists()


def test_strict_readers_and_the_ground_truth():
    annotations = parse_annotations(FILE)
    assert annotations.recordings["a"].extras["url"] == "http://x"
    truth = ground_truth_of(annotations, ["a"])
    assert truth["database"]["a"] == {
        "subset": "test",
        "duration": 60.0,
        "annotations": [{"label": "x", "segment": [10.0, 20.0]}],
    }
    assert "taxonomy" not in truth


def test_keys_that_are_no_json(folder):
    (folder / "gt.json").write_text(json.dumps(FILE | {"threshold": float("nan")}))
    with pytest.raises(InputError, match=r"out.json: cannot write the keys of .*gt.json"):
        formats.write_labels(folder / "out.json", formats.read_labels(folder / "gt.json"))


def test_submissions_keep_external_data(folder, capsys):
    found = {"a": [{"label": "x", "score": 0.5, "segment": [1.0, 2.0]}]}
    used = {"used": True, "details": "clips"}
    (folder / "d.json").write_text(json.dumps({"results": found, "external_data": used}))
    assert _run(capsys, "convert", "d.json", "--output", "s.json")[0] == 0
    assert json.loads((folder / "s.json").read_text())["external_data"] == used


# --- existing files ---


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("x.json", "activitynet"),
        ("x.json", "label-studio"),
        ("x.json", "via"),
        ("x.csv", "csv"),
        ("x.eaf", "elan"),
        ("x.txt", "audacity"),
        ("gt.json", "activitynet"),
    ],
)
def test_existing_files_are_not_replaced(folder, capsys, output, kind):
    if output != "gt.json":
        (folder / output).write_text("theirs")
    before = (folder / output).read_bytes()
    command = ("convert", "gt.json", "--output", output, "--to", kind)
    code, out = _run(capsys, *command)
    assert code == 2 and f"{output}: there already" in out and "--overwrite" in out
    assert (folder / output).read_bytes() == before
    assert _run(capsys, *command, "--overwrite")[0] == 0
    assert (folder / output).read_bytes() != before
    assert len(formats.read_labels(folder / output).instances) == 1
    # What was written may be written again.
    assert _run(capsys, *command)[0] == 0


@pytest.mark.parametrize("output", ["p.json", "p.csv", "p.txt", "gt.json"])
@pytest.mark.parametrize("command", ["make", "convert"])
def test_existing_points_are_not_replaced(folder, capsys, output, command):
    if output != "gt.json":
        (folder / output).write_text("theirs")
    (folder / "clicks.txt").write_text("a,12.5,x\n")
    before = (folder / output).read_bytes()
    if command == "make":
        arguments = ["points", "make", "gt.json", "--law", "center", "--seed", 0]
    else:
        arguments = ["points", "convert", "clicks.txt", "--annotations", "gt.json"]
    arguments += ["--output", output]
    code, out = _run(capsys, *arguments)
    assert code == 2 and f"{output}: there already" in out
    assert (folder / output).read_bytes() == before
    assert _run(capsys, *arguments, "--overwrite")[0] == 0
    assert (folder / output).read_bytes() != before


def test_an_existing_submission_is_not_replaced(folder, capsys):
    found = {"a": [{"label": "x", "score": 0.5, "segment": [1.0, 2.0]}]}
    (folder / "d.json").write_text(json.dumps({"results": found}))
    code, out = _run(capsys, "convert", "d.json", "--output", "gt.json")
    assert code == 2 and "gt.json: there already" in out
    assert json.loads((folder / "gt.json").read_text()) == FILE
