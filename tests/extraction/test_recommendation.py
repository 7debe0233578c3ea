"""What is recommended for the files of a folder, and nothing is written."""

import shlex
from pathlib import Path

import pytest

from tal_jax import cli
from tal_jax.extraction import BACKBONES, recommend, recommendation


def _folder(tmp_path, *names):
    folder = tmp_path / "my recordings"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("time_s,acc_x,acc_y,acc_z\n0,1,2,3\n")
    return folder


def _refused(capsys, folder, tmp_path):
    assert cli.main(["extract", str(folder), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not (tmp_path / "out").exists()
    return line


def test_tables_of_sensors(tmp_path, capsys):
    folder = _folder(tmp_path, "a.csv", "b.csv", "notes.txt", ".hidden.csv")
    line = _refused(capsys, folder, tmp_path)
    assert "found 2 sensor tables; recommended for sensor tables: signal" in line
    command = shlex.split(line[line.index("tal-jax extract") :])
    # The command works as it is given.
    (folder / "a.csv").write_text("t,x,y,z\n" + "".join(f"{i / 50},1,2,3\n" for i in range(200)))
    (folder / "b.csv").unlink()
    assert cli.main([*command[1:], "--workers", "1"]) == 0


def test_tables_of_keypoints(tmp_path, capsys):
    folder = _folder(tmp_path)
    for name in "ab":
        header = "time_s,nose_x,nose_y,left_hip_x,left_hip_y,tail_x,tail_y"
        (folder / f"{name}.csv").write_text(f"{header}\n0,1,2,3,4,5,6\n0.04,1,2,3,4,5,6\n")
    line = _refused(capsys, folder, tmp_path)
    assert "found 2 keypoint tables; recommended for keypoint tables: pose: " in line
    assert line.endswith("--backbone pose")


@pytest.mark.parametrize(
    "header, expected",
    [
        ("scorer,D,D,D\nbodyparts,a,a,a\ncoords,x,y,likelihood\n0,1,2,.9", True),
        ("time_s,nose_x,nose_y,nose_likelihood\n0,1,2,.9\n1,1,2,.9", True),
        ("time_s,acc_x,acc_y,acc_z,gyr_x,gyr_y,gyr_z,mag_x,mag_y,mag_z" + "\n0" + ",1" * 9, False),
        ("time_s,x,y,z\n0,1,2,3\n1,1,2,3", False),
        ("time_s,temperature\n0,1\n1,1", False),
        ("", False),
    ],
)
def test_joints_or_sensors(tmp_path, header, expected):
    (tmp_path / "a.csv").write_text(header + "\n")
    assert recommendation.holds_keypoints(tmp_path / "a.csv") == expected


@pytest.mark.parametrize("installed", [True, False])
def test_videos(tmp_path, capsys, monkeypatch, installed):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    folder = _folder(tmp_path, "a.mp4", "b.MOV", "c.csv")
    line = _refused(capsys, folder, tmp_path)
    assert "found 2 videos, 1 sensor tables; recommended for videos: transformers" in line
    assert ('pip install "tal_jax[transformers]" && ' in line) == (not installed)
    command = shlex.split(line[line.index("tal-jax extract") :])
    assert command[2] == str(folder) and "--backbone transformers --set model=" in line


def test_no_recordings(tmp_path):
    folder = _folder(tmp_path, "notes.txt")
    assert recommend([folder], "out").startswith("no video and no table in ")


def test_what_is_recommended_exists():
    for choice in recommendation.CHOICES.values():
        assert choice.backbone in BACKBONES
        assert f"\n{choice.extra} =\n" in (Path(__file__).parents[2] / "setup.cfg").read_text()
