"""Videos of a person become features of pose, with a stand-in for MediaPipe's networks."""

import dataclasses
import json
import runpy
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import stand_in_mediapipe

from tal_jax import cli, extraction
from tal_jax.data.manifest import Manifest, read_manifest
from tal_jax.extraction import extract_file, grid_of, open_backbone, pose, reopen_backbone
from tal_jax.extraction.keypoint_tables import read_keypoints
from tal_jax.inference.predict_file import Network, predict_file

SCENES = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "scenes.py"))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Three short films of a person, at 29.97, at 25 and at varying rates."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("people")
    SCENES["write_scenes"](folder, num_train=3, num_test=0, seconds=6.0, person=True)
    return folder


def write_task(path, content=b"networks"):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("pose_landmarks_detector.tflite", content)
    return path


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A `.task`, and a package for it that worker processes import too."""
    stand_in_mediapipe.install(tmp_path / "packages")
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield write_task(tmp_path / "pose.task")
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        del sys.modules[name]


def extract(films, task, output, *settings):
    command = ["extract", str(films), "--output", str(output), "--backbone", "pose"]
    sets = [part for one in (f"path={task}", *settings) for part in ("--set", one)]
    return cli.main([*command, *sets, "--workers", "1"])


def test_from_films_to_features_and_landmarks(films, task, tmp_path, capsys):
    output = tmp_path / "out"
    assert extract(films, task, output, "fps=10", "window=10", "stride=4") == 0
    shown = capsys.readouterr()
    assert "3 recordings of 18 s: about " in shown.out and "3 recordings extracted" in shown.out
    # 180 frames at 29.97 a second are 6.006 s, and so the 61st frame at 10 a second is in them.
    assert "train_0: 6.0 s, 16 snippets (bodies found in 61 of 61 frames)" in shown.out
    names = [f"train_{n}{end}" for n in range(3) for end in (".npy", "_keypoints.csv")]
    assert sorted(p.name for p in output.iterdir()) == ["grid.json", "manifest.json", *names]

    manifest = read_manifest(output)
    assert manifest.version.startswith(f"{pose.VERSION} mediapipe 9.9.9 sha256:")
    assert manifest.options["people"] == 1 and manifest.options["path"] == str(task)
    assert manifest.grid.to_dict() == {"fps": 10, "stride_frames": 4, "window_frames": 10}
    backbone = reopen_backbone(manifest.backbone, manifest.options, {})
    assert (backbone.dim, backbone.version) == (manifest.dim, manifest.version)
    for name, entry in manifest.recordings.items():
        info = extraction.probe(films / f"{name}.mp4")
        # The same clock as of every backbone of videos.
        assert entry.duration_s == info.duration_s
        assert entry.snippets == grid_of(backbone).num_snippets(info.duration_s)
        features = np.load(output / f"{name}.npy")
        assert features.shape == (entry.snippets, manifest.dim) and features.std(0).any()

    # The landmarks are those of the person, and give the same features as a table.
    found = read_keypoints(output / "train_1_keypoints.csv")
    truth = read_keypoints(films / "keypoints" / "train_1.csv")
    middle = [keypoints.positions[:, 0].mean(1) for keypoints in (found, truth)]
    nearest = np.searchsorted(truth.times_s, found.times_s + 1e-6) - 1
    assert np.abs(middle[0] - middle[1][nearest]).max() < 25
    options = {key: v for key, v in manifest.options.items() if key not in ("path", "people")}
    table = open_backbone("pose", **options)
    entry = extract_file(output / "train_1_keypoints.csv", tmp_path / "again.npy", table)
    again, features = np.load(tmp_path / "again.npy"), np.load(output / "train_1.npy")
    assert abs(entry.snippets - len(features)) <= 1
    rows = min(entry.snippets, len(features)) - 2
    np.testing.assert_allclose(again[:rows], features[:rows], atol=0.15)

    # What is there is kept; other networks are another backbone.
    assert extract(films, task, output, "fps=10", "window=10", "stride=4") == 0
    assert "0 recordings extracted, 3 unchanged" in capsys.readouterr().out
    other = write_task(tmp_path / "other.task", b"other networks")
    assert extract(films, other, output, "fps=10", "window=10", "stride=4") == 2
    assert "features of another kind: version is" in capsys.readouterr().err


def test_a_new_film_is_described_as_in_training(films, task, tmp_path):
    backbone, seen = open_backbone("pose", path=task, fps=10, window=10, stride=4), []

    class Stop(Exception):
        pass

    def predict(recording):
        seen.append((np.array(recording.features), recording.duration_s))
        raise Stop

    grid = grid_of(backbone)
    manifest = Manifest("pose", backbone.version, backbone.options, backbone.dim, grid)
    # As in an export, the options have gone through JSON.
    manifest = Manifest.from_dict(json.loads(json.dumps(manifest.to_dict())))
    network = Network(
        tmp_path, predict, ("wave",), backbone.dim, grid, manifest, scaling=None, threshold=0.3
    )
    with pytest.raises(Stop):
        predict_file(films / "train_2.mp4", network)
    extract_file(films / "train_2.mp4", tmp_path / "a.npy", backbone)
    np.testing.assert_array_equal(seen[0][0], np.load(tmp_path / "a.npy"))
    assert seen[0][1] == extraction.probe(films / "train_2.mp4").duration_s
    moved = task.rename(tmp_path / "moved.task")
    with pytest.raises(ValueError, match="pose.task: no such file"):
        predict_file(films / "train_2.mp4", network)
    with pytest.raises(Stop):
        predict_file(films / "train_2.mp4", network, options={"path": str(moved)})


def test_progress_is_that_of_the_detection(films, task, tmp_path):
    backbone, told = open_backbone("pose", path=task, fps=5, window=10, stride=5), []
    extract_file(
        films / "train_0.mp4", tmp_path / "a.npy", backbone, progress=lambda *n: told.append(n)
    )
    assert told[0] == (0, 7) and told[-1] == (7, 7) and len(told) > 30


def test_all_videos_have_one_frame_of_the_body_and_options_change_it(task):
    backbone = open_backbone("pose", path=task)
    assert backbone.center == "left_shoulder,right_shoulder" and len(backbone.joints) == 19
    assert backbone.dim == open_backbone("pose", path=task, people=1).dim
    two = open_backbone("pose", path=task, people=2)
    assert two.animals == ("body_1", "body_2") and two.dim > 2 * backbone.dim
    assert open_backbone("pose", path=task, center="nose").center == "nose"
    again = open_backbone("pose", **json.loads(json.dumps(two.options)))
    assert again == two == dataclasses.replace(two)


def test_a_film_without_people_fails_alone(films, task, tmp_path, capsys):
    import filming

    folder = tmp_path / "films"
    folder.mkdir()
    filming.film(folder / "empty.mp4", [0] * 20)
    (folder / "train_0.mp4").symlink_to(films / "train_0.mp4")
    assert extract(folder, task, tmp_path / "out", "fps=10") == 1
    assert "empty.mp4: no bodies found in 8 frames" in capsys.readouterr().err
    assert set(read_manifest(tmp_path / "out").recordings) == {"train_0"}


@pytest.mark.parametrize(
    "settings, message",
    [
        (["path=none.task"], "none.task: no such file; expected pose_landmarker_full.task"),
        (["center=tail"], "center names the joint 'tail'"),
        (["people=0"], "people is '0', expected a whole number above 0"),
    ],
)
def test_refused_in_one_line_before_anything_is_written(
    films, task, tmp_path, capsys, settings, message
):
    assert extract(films, task, tmp_path / "out", *settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


def test_without_the_package_or_with_an_old_one(task, tmp_path, monkeypatch):
    path = tmp_path / "packages" / "mediapipe-9.9.9.dist-info" / "METADATA"
    path.write_text(path.read_text().replace("9.9.9", "0.10.21"))
    with pytest.raises(ValueError, match="mediapipe 0.10.21 is installed, expected 1.0 or later"):
        open_backbone("pose", path=task)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ValueError, match=r'need mediapipe; run pip install "tal_jax\[pose\]"'):
        open_backbone("pose", path=task)


def test_videos_without_networks(films, tmp_path, capsys):
    for given in (films, films / "train_0.mp4"):
        command = ["extract", str(given), "--output", str(tmp_path / "out"), "--backbone", "pose"]
        assert cli.main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "pose needs the networks of MediaPipe for videos" in line
        assert "curl -LO https://" in line and not (tmp_path / "out").exists()
