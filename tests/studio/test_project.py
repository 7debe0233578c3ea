"""The project folder: what it holds, that it can be moved, what is refused."""

import base64
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import projects
import pytest

from tal_jax import cli, studio
from tal_jax.data import locks
from tal_jax.data.annotations import parse_annotations
from tal_jax.studio.project import Project, check_settings, count_changes, label_counts
from tal_jax.studio.recordings import find_sources, read_details


def test_it_can_be_read_and_moved(tmp_path):
    """With its recordings around it, and opened by another path."""
    project = projects.make(tmp_path / "a", training={"train.steps": "20"}, options={"fps": "25"})
    values = json.loads((tmp_path / "a" / "studio" / "project.json").read_text())
    assert values["recordings"] == [".."] and values["backbone"] == "signal"
    assert values["options"] == {"fps": "25"} and values["training"] == {"train.steps": "20"}
    projects.add_features(project, ["rec0"])
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = Project(tmp_path / "b" / "studio")
    assert [source.name for source in moved.sources()] == ["rec0", "rec1", "rec2"]
    assert moved.sources()[0].path.resolve() == (tmp_path / "b" / "rec0.npy").resolve()
    assert moved.has_features("rec0") and not moved.has_features("rec1")


def test_a_project_elsewhere_names_its_recordings(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    projects.write_tables(folder, ["rec0"])
    project, _ = studio.open_project(tmp_path / "work" / "p", [folder])
    assert project.file.recordings == [str(folder)]
    # The next call may name others; settings stay.
    project.write(auto=5)
    (tmp_path / "more").mkdir()
    projects.write_tables(tmp_path / "more", ["rec0", "rec1"])
    project, _ = studio.open_project(tmp_path / "work" / "p", [tmp_path / "more"])
    assert project.file.auto == 5 and len(project.sources()) == 2


def test_what_is_refused(tmp_path):
    project = projects.make(tmp_path)
    projects.add_features(project, ["rec0"])
    with pytest.raises(ValueError, match="features of the backbone signal, not motion; expected"):
        studio.open_project(project.folder, [tmp_path], backbone="motion")
    (project.folder / "project.json").write_text('{"format": 9, "recordings": [], "backbone": "x"}')
    with pytest.raises(ValueError, match="project.json: format 9, expected 1"):
        studio.open_project(project.folder, [tmp_path])
    (project.folder / "project.json").write_text("{")
    with pytest.raises(ValueError, match="project.json: Expecting property name"):
        Project(project.folder)
    (tmp_path / "other" / "runs").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds runs without a project.json; expected a new"):
        studio.open_project(tmp_path / "other", [tmp_path])
    assert not (tmp_path / "other" / "project.json").exists()


@pytest.mark.parametrize(
    ("names", "installed", "backbone"),
    [
        (["a.mp4", "b.mp4"], True, "transformers"),
        (["a.mp4", "b.mp4"], False, "motion"),
        (["a.npy"], True, "signal"),
    ],
)
def test_the_backbone_is_the_recommended_one(tmp_path, monkeypatch, names, installed, backbone):
    for name in names:
        if name.endswith("npy"):
            projects.write_tables(tmp_path, ["rec0"])
        else:
            (tmp_path / name).write_bytes(b"")
    found = object() if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    project, notes = studio.open_project(tmp_path / "studio", [tmp_path])
    assert project.file.backbone == backbone
    assert bool(notes) == (backbone == "motion") and all("pip install" in one for one in notes)


def test_keypoints_belong_to_their_video(tmp_path):
    header = "scorer,d,d,d,d,d,d\nbodyparts,nose,nose,nose,tail,tail,tail\n"
    header += "coords,x,y,likelihood,x,y,likelihood\n"
    rows = "".join(f"{i},{i}.0,2.0,0.9,{i}.5,3.0,0.8\n" for i in range(30))
    for name in ("mouseDLC_resnet50_x", "catDLC_resnet50_x"):
        (tmp_path / f"{name}.csv").write_text(header + rows)
    (tmp_path / "mouse.mp4").write_bytes(b"")
    cat, mouse = find_sources([tmp_path])
    assert (cat.name, cat.kind, cat.keypoints) == ("cat", "signal", cat.path)
    assert (mouse.name, mouse.kind) == ("mouse", "video")
    assert mouse.keypoints is not None and mouse.keypoints.name == "mouseDLC_resnet50_x.csv"
    details = read_details(cat, source_fps=10)
    assert details.duration_s == pytest.approx(3.0)
    assert details.envelope is not None
    assert details.envelope.names == ("nose_x", "nose_y", "tail_x", "tail_y")
    project, _ = studio.open_project(tmp_path / "studio", [tmp_path], options={"source_fps": "10"})
    assert project.file.backbone == "pose"
    assert project.file_to_extract(mouse) == mouse.keypoints
    with studio.open_studio(project) as server:
        skeleton = server.session.skeleton(0, 0.45, 0.75)
    points = np.frombuffer(base64.b64decode(skeleton["points"]), "<f4")
    np.testing.assert_allclose(skeleton["times"], [0.4, 0.5, 0.6, 0.7, 0.8])
    np.testing.assert_allclose(points.reshape(5, 2, 2)[0], [[4.0, 2.0], [4.5, 3.0]])
    assert skeleton["joints"] == ["nose", "tail"] and skeleton["edges"] == [[0, 1]]
    assert skeleton["bounds"] == [[0.0, 29.5], [2.0, 3.0]]


def test_counts_of_labels():
    jump = {"label": "jump", "point": 3.0}
    entries = {
        "a": projects.entry(jump, {"label": "jump", "segment": [5.0, 6.0]}, done=[(0, 15.0)]),
        "b": projects.entry(background=[1.0], done=None),
    }
    before = parse_annotations({"database": entries})
    assert label_counts(before) == {
        **{"points": 1, "background": 1, "segments": 1},
        "done_share": pytest.approx(75 / 120),
    }
    entries["a"]["annotations"] = [{**jump, "point": 3.5}]
    entries["b"]["background"] = [1.0, 2.0]
    # A point moved (one out, one in), a segment gone, a background point added.
    assert count_changes(before, parse_annotations({"database": entries})) == 2
    assert count_changes(before, before) == 0


@pytest.mark.parametrize(
    ("renamed", "names"),
    [
        ([("jump", "leap"), ("leap", "hop")], {"jump": "hop"}),
        ([("jump", "leap"), ("leap", "jump")], {}),
        # Another class was called jump later.
        ([("jump", "leap"), ("jump", "hop")], {"jump": "leap"}),
    ],
)
def test_names_of_classes_are_followed(tmp_path, renamed, names):
    project = projects.make(tmp_path)
    run = projects.add_run(project, {}, {})
    for before, now in renamed:
        project.rename_class(before, now)
    assert project.runs()[0].names == names and project.runs()[0].number == run.number


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": "x"}, "settings: threshold is 'x', expected"),
        ({"min_duration_s": -1}, "minimum duration -1"),
        ({"merge_gap_s": {"jump": -0.5}}, "merge gap -0.5"),
        ({"padding": 1}, "settings: unknown key 'padding'"),
        ([], "settings: got \\[\\], expected an object"),
    ],
)
def test_settings_that_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_settings(values)


def test_one_studio_at_a_time(capsys, tmp_path):
    project = projects.make(tmp_path)
    for lock in (
        locks.one_writer(project.folder, "the studio"),
        locks.one_writer_of_file(project.annotations, "labelling"),
    ):
        with lock:
            assert cli.main(["studio", str(tmp_path), "--no-browser"]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert "is in use by " in line


def test_the_command_sets_up_a_project(capsys, tmp_path, monkeypatch):
    projects.write_tables(tmp_path, ["rec0"])
    monkeypatch.setattr(studio.StudioServer, "serve_forever", lambda self: None)
    arguments = ["--classes", "jump, run", "--auto", "--set", "fps=25", "--set", "stages=rounds"]
    assert cli.main(["studio", str(tmp_path), "--no-browser", *arguments]) == 0
    content = Project(tmp_path / "studio").file
    assert content.auto == 20 and content.options == {"fps": "25"}
    assert content.training == {"stages": "rounds"}
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert cli.main(["studio", str(tmp_path), "--no-browser", "--auto", "0"]) == 2
    assert cli.main(["studio", str(tmp_path / "none"), "--no-browser"]) == 2
    assert not (tmp_path / "none").exists()
    assert {path.name for path in Path(tmp_path / "studio").iterdir()} == {
        "project.json",
        ".address",
    }
