"""A run is bound to its data, its folder to one writer, and other files in it are left alone."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import toy

from tal_jax._errors import InputError
from tal_jax.data import locks
from tal_jax.data.recordings import Point
from tal_jax.runs import fit
from tal_jax.runs import workdir as work


@pytest.fixture
def data(tmp_path):
    return toy.write(tmp_path / "data", num_train=3, num_test=2)


@pytest.fixture
def begun(data, tmp_path):
    """A run that has not trained yet."""
    workdir = tmp_path / "run"
    assert work.start(workdir, toy.config(data), toy.dataset(data)) == []
    return workdir


def _edit(data, change):
    path = data / "annotations.json"
    values = json.loads(path.read_text())
    change(values["database"])
    path.write_text(json.dumps(values))


def _refused(begun, data, expected):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(InputError) as caught:
        fit.fit(toy.dataset(data), toy.config(data), workdir=begun, report=lambda line: None)
    assert str(caught.value) == (
        f"{begun} holds a run on other data: {expected}. Choose another work directory for the "
        "data as they are now, or delete this one"
    )
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_the_same_data_go_on(begun, data, tmp_path):
    assert work.start(begun, toy.config(data), toy.dataset(data)) == []
    moved = shutil.copytree(data, tmp_path / "moved")
    config = toy.config(data)
    assert work.start(begun, config, toy.dataset(moved)) == []


def test_a_run_from_before_a_setting_goes_on(begun, data):
    """With what was done before there was one, and with nothing else."""
    path = begun / "config.json"
    settings = json.loads(path.read_text())
    del settings["sampling"]["own_point"]
    path.write_text(json.dumps(settings))
    assert work.start(begun, toy.config(data), toy.dataset(data)) == []
    assert work.read(begun)[0].sampling.own_point is True
    config = toy.config(data)
    config.sampling.own_point = False
    with pytest.raises(InputError, match="sampling.own_point = True, not False"):
        work.start(begun, config, toy.dataset(data))


def test_moved_points(begun, data):
    """The same number of points, and the same sum of their times."""

    def move(database):
        one, other = database["train_1"]["annotations"][:2]
        one["segment"], other["segment"] = ([t + d for t in s["segment"]] for s, d in (
            (one, 0.5), (other, -0.5)))  # fmt: skip

    _edit(data, move)
    _refused(begun, data, "other labels in training: 1 recording (train_1)")


def test_swapped_classes(begun, data):
    def swap(database):
        for name in ("train_0", "train_1", "train_2"):
            for one in database[name]["annotations"]:
                one["label"] = {"bump": "dip", "dip": "bump"}[one["label"]]

    _edit(data, swap)
    _refused(begun, data, "other labels in training: 3 recordings (train_0, train_1, train_2)")


def test_corrected_test_segments(begun, data):
    def correct(database):
        database["test_1"]["annotations"][0]["segment"][1] += 0.25

    _edit(data, correct)
    _refused(begun, data, "other labels in test: 1 recording (test_1)")


def test_features_of_another_extraction(begun, data):
    features = np.load(data / "train_2.npy")
    np.save(data / "train_2.npy", features + np.float32(0.01))
    _refused(begun, data, "other features in training: 1 recording (train_2)")


def test_a_recording_more(begun, data):
    def copy(database):
        database["train_3"] = database["train_0"]

    shutil.copy(data / "train_0.npy", data / "train_3.npy")
    _edit(data, copy)
    _refused(begun, data, "added to training: 1 recording (train_3)")


def test_a_data_set_from_python(begun, data):
    """What a script passes counts as what is in files does."""
    dataset = toy.dataset(data)
    first = dataclasses.replace(dataset.train[0], points=(Point(1.0, 0),))
    dataset = dataclasses.replace(dataset, train=(first, *dataset.train[1:]))
    with pytest.raises(InputError, match=r"other labels in training: 1 recording \(train_0\)"):
        work.check_same(begun, toy.config(data), dataset)


def test_a_run_without_a_fingerprint(begun, data):
    (begun / "fingerprint.json").unlink()
    with pytest.raises(InputError, match="fingerprint.json: .*this version of tal_jax wrote"):
        work.check_same(begun, toy.config(data), toy.dataset(data))


def test_other_versions_are_noted(begun, data):
    card = json.loads((begun / "run.json").read_text())
    card["versions"]["tal_jax"] = "0.0.1"
    (begun / "run.json").write_text(json.dumps(card))
    (note,) = work.start(begun, toy.config(data), toy.dataset(data))
    assert note.startswith(f"{begun} began with other versions: tal_jax 0.0.1 before, ")


# --- results of a run whose data changed ---


def test_results_of_old_data_are_noted(begun, data):
    assert work.note_changes(begun) == []

    def correct(database):
        database["test_1"]["annotations"][0]["segment"][1] += 0.25

    _edit(data, correct)
    (note,) = work.note_changes(begun)
    assert note.startswith(f"the data in {data} changed since this run: other labels in test")
    (data / "annotations.json").write_text("{")
    (note,) = work.note_changes(begun)
    assert "cannot be compared with this run's: " in note


def test_a_run_that_travelled_alone_is_not_compared(begun, data):
    card = json.loads((begun / "run.json").read_text())
    card["data"]["root"] = "/nowhere"
    (begun / "run.json").write_text(json.dumps(card))
    assert work.note_changes(begun) == []


# --- one writer, and other people's files ---


def test_a_second_training_is_refused(data, tmp_path):
    workdir = tmp_path / "run"
    with locks.one_writer(workdir, "training"):
        with pytest.raises(InputError, match=f"{workdir} is in use by training, process"):
            fit.fit(toy.dataset(data), toy.config(data), workdir=workdir, report=print)
    assert not workdir.exists()


_TWO = """
import sys
import toy
from tal_jax.runs import fit, workdir as work
from tal_jax.data import locks

config = toy.config(sys.argv[1])
config.seed = int(sys.argv[3])
fit._fit_rounds = lambda runs, report: [input()]
fit.fit(toy.dataset(sys.argv[1]), config, workdir=sys.argv[2])
"""


@pytest.mark.slow
def test_two_trainings_at_the_same_instant(data, tmp_path):
    """One of them is told; the folder is that of the other."""
    folder = os.path.dirname(toy.__file__)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(data), str(tmp_path / "run"), str(seed)],
            cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    codes = set()
    while len(codes) < 1:  # the one that is refused ends first
        codes = {index for index, one in enumerate(running) if one.poll() is not None}
    (refused,) = codes
    _, errors = running[refused].communicate()
    _, rest = running[1 - refused].communicate("\n")
    assert "is in use by training, process" in errors and running[1 - refused].returncode == 0, rest
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    assert config["seed"] == card["seed"] == 1 - refused


@pytest.mark.parametrize("name", ["report.html", "metrics.jsonl", "run.json"])
def test_a_folder_with_other_files_of_these_names_is_refused(data, tmp_path, name):
    workdir = tmp_path / "mine"
    workdir.mkdir()
    (workdir / name).write_text("[1, 2]")
    (workdir / "notes.txt").write_text("free")
    expected = f"{workdir} is not the folder of a run, but has {name}; choose another"
    with pytest.raises(InputError, match=expected):
        work.start(workdir, toy.config(data), toy.dataset(data))
    assert {path.name for path in workdir.iterdir()} == {name, "notes.txt"}


def test_a_run_that_was_killed_before_its_config_was_written(begun, data):
    (begun / "config.json").unlink()
    before = (begun / "run.json").read_bytes()
    assert work.start(begun, toy.config(data), toy.dataset(data)) == []
    assert (begun / "config.json").exists() and (begun / "run.json").read_bytes() == before
