"""The command line: every command on the toy problem, and every mistake in one line."""

import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
import webbrowser
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest
import toy
import typecheck
from absl import logging

from tal_jax import cli, extraction, formats, studio
from tal_jax._errors import InputError
from tal_jax.cli import common
from tal_jax.data import files, locks, point_distributions
from tal_jax.data.annotations import load_annotations
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import read_predictions, write_predictions
from tal_jax.inference.events import select_events
from tal_jax.inference.localize import localize_predictions
from tal_jax.inference.predict import predict
from tal_jax.methods import rsmp
from tal_jax.ops.segments import nms
from tal_jax.runs import fit
from tal_jax.runs import workdir as work
from tal_jax.training import checkpoints


@pytest.fixture(autouse=True)
def _settings(monkeypatch, tmp_path):
    """Runs each test in its folder, and restores the logging that the command line changes."""
    monkeypatch.delenv("TAL_JAX_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)


@pytest.fixture
def config(toy_run, tmp_path):
    """The path of the toy problem's config."""
    path = tmp_path / "toy_config.py"
    path.write_text(
        f"import toy\ndef get_config():\n    return toy.config({str(toy_run.data)!r})\n"
    )
    return str(path)


@pytest.fixture
def workdir(toy_run, tmp_path):
    """A copy of the finished run."""
    return Path(shutil.copytree(toy_run.workdir, tmp_path / "run"))


def _succeed(capsys, *arguments) -> str:
    code = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def _fail(capsys, *arguments) -> str:
    """Runs a command that must fail, and returns its only line."""
    code = cli.main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("tal-jax: error: ") and error.endswith("\n") and error.count("\n") == 1
    return error.removeprefix("tal-jax: error: ").rstrip("\n")


# --- commands ---


def test_train(capsys, config, toy_run, tmp_path):
    settings = ["--set", "train.steps=15", "--set", "train.rounds=1"]
    out = _succeed(capsys, "train", "--config", config, "--workdir", tmp_path / "run", *settings)
    points = sum(len(one.points) for one in toy.dataset(toy_run.data).train)
    assert (
        f"folder: 6 training recordings with {points} points, 3 test recordings, 2 classes" in out
    )
    assert "update    15/15" in out
    assert f"report: {tmp_path}/run/report.html" in out
    assert re.search(r"mAP in % +@0\.1 .* average\nround 0 +\d", out)
    for name in ("report.html", "report.png", "run.json", "round_0/evaluation.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["train"]["steps"] == 15


def test_train_goes_on(capsys, config, workdir):
    """A finished run is only shown again."""
    out = _succeed(capsys, "train", "--config", config, "--workdir", workdir)
    assert "updates/s" not in out and "round 1" in out.split("mAP in %")[-1]


@pytest.mark.slow
def test_train_seeds(capsys, config, toy_run, tmp_path):
    """One seed was trained alone before; the table is over both."""
    shutil.copytree(toy_run.workdir, tmp_path / "runs" / "seed_0")
    arguments = ["--config", config, "--workdir", tmp_path / "runs", "--seeds", "0,1"]
    out = _succeed(capsys, "train", *arguments)
    assert "round 1 of 1  update    60/60" in out
    for seed in (0, 1):
        assert f"report: {tmp_path}/runs/seed_{seed}/report.html" in out
        assert (tmp_path / "runs" / f"seed_{seed}" / "round_1" / "evaluation.json").exists()
    table = (tmp_path / "runs" / "table.md").read_text()
    assert table in out and f"| {config} | 2 | " in table


@pytest.mark.parametrize(
    ("method", "variant", "supervision"),
    [("rsmp", None, "points"), ("hamnet", "document", "labels")],
)
def test_quickstart(capsys, monkeypatch, tmp_path, method, variant, supervision):
    """Trains on the embedded recordings with a config of the method; the result is tested apart."""
    runs, shown = [], []
    monkeypatch.setattr(fit, "fit", lambda *args, **kwargs: runs.append((*args, kwargs)))
    monkeypatch.setattr(common, "show_run", shown.append)
    arguments = ["--workdir", "w", "--method", method, "--set", "train.rounds=3"]
    out = _succeed(capsys, "quickstart", *arguments)
    ((dataset, config, options),) = runs
    assert (config.data.name, config.method, config.train.rounds) == ("watch", method, 3)
    assert config.model.get("variant") == variant
    assert options["workdir"] == Path("w") and shown == [Path("w")]
    assert len(dataset.train) > 0 and len(dataset.test) > 0
    assert re.match(
        rf"watch: {len(dataset.train)} training recordings with \d+ {supervision}, ", out
    )


def test_evaluate(capsys, workdir):
    before = json.loads((workdir / "evaluation.json").read_text())
    path = workdir / "round_1" / "detections_test.json"
    detections = json.loads(path.read_text())
    detections["results"] = {name: [] for name in detections["results"]}
    path.write_text(json.dumps(detections))
    out = _succeed(capsys, "evaluate", "--workdir", workdir)
    assert "recall short (n=" in out and "report: " in out
    first, second, together = (line.split() for line in out.strip().splitlines()[-3:])
    assert first[:2] == ["round", "0"] and float(first[-1]) > 80
    assert second == ["round", "1", *["0.0"] * 8]
    assert together[:2] == ["all", "rounds"] and float(together[-1]) > 80
    after = json.loads((workdir / "round_1" / "evaluation.json").read_text())
    assert after["average_map"] == 0 and after["tious"] == before["tious"]
    # Those of all rounds stand in a file of their own.
    assert json.loads((workdir / "evaluation.json").read_text()) == before
    (workdir / "detections.json").write_text(json.dumps(detections))
    assert re.search(r"all rounds( +0\.0){8}\n", _succeed(capsys, "evaluate", "--workdir", workdir))
    assert json.loads((workdir / "evaluation.json").read_text())["average_map"] == 0
    assert (workdir / "report.html").exists() and (workdir / "report.png").exists()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evaluate_scores(capsys, toy_run, tmp_path, monkeypatch):
    """The detections of the run again, without its network and without a trace."""
    monkeypatch.setattr(rsmp, "make_model", None)
    before, folder = _contents(toy_run.workdir), toy_run.workdir / "round_0"
    output = tmp_path / "found" / "again.json"
    out = _succeed(capsys, "evaluate", "--scores", folder / "scores_test.npz", "--output", output)
    assert files.read_json(output) == files.read_json(folder / "detections_test.json")
    average = files.read_json(folder / "evaluation.json")["average_map"]
    assert re.search(rf"mAP .* {100 * average:.2f}\n", out)
    assert _contents(toy_run.workdir) == before


def test_evaluate_scores_with_other_settings(capsys, toy_run, tmp_path):
    path = toy_run.workdir / "round_1" / "scores_test.npz"
    arguments = ["--thresholds", "0.4", "--foreground-thresholds", ""]
    arguments += ["--set", "localization.video_weight=0", "--output", tmp_path / "found.json"]
    _succeed(capsys, "evaluate", "--scores", path, *arguments)
    options = toy.config().localization
    options.update(thresholds=(0.4,), foreground_thresholds=(), video_weight=0.0)
    found = localize_predictions(read_predictions(path), options, toy.CLASSES)
    assert files.read_json(tmp_path / "found.json")["results"] == found
    before = files.read_json(path.parent / "detections_test.json")["results"]
    assert all(0 < len(found[name]) < len(before[name]) for name in before)


def _with_points_of_its_own(toy_run, tmp_path) -> tuple[Path, Path]:
    """The data with points in its file, and a copy of the run that says to have held out three."""
    data, workdir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(toy_run.data, data)
    shutil.copytree(toy_run.workdir, workdir)
    annotations = files.read_json(data / "annotations.json")
    for name, points in files.read_json(workdir / "train_points.json")["database"].items():
        instances = annotations["database"][name]["annotations"]
        for instance, point in zip(instances, points["annotations"], strict=True):
            assert instance["segment"][0] <= point["point"] < instance["segment"][1]
            instance["point"] = point["point"]
    files.write_json(data / "annotations.json", annotations)
    settings = files.read_json(workdir / "config.json")
    settings["data"] |= {"folder": str(data), "points": "file"}
    settings["train"]["holdout"] = 3
    files.write_json(workdir / "config.json", settings)
    return data, workdir


def test_tune(capsys, toy_run, tmp_path):
    data, workdir = _with_points_of_its_own(toy_run, tmp_path)
    before = _contents(workdir)
    start = ["--set", "localization.thresholds=" + ",".join(["0.8", "0.9"] * 5)]
    out = _succeed(capsys, "tune", "--workdir", workdir, *start)
    after = _contents(workdir)
    content = after.pop(str(workdir / "tuned.json"))
    assert after == before
    tuned = json.loads(content)
    options = toy.config().localization.to_dict()
    assert set(tuned) == {"localization", "criterion", "criterion_before", "stages"}
    assert set(tuned["localization"]) == set(options)
    assert tuned["criterion"] > tuned["criterion_before"]
    thresholds = tuned["localization"]["thresholds"]
    assert len(thresholds) == 10 and thresholds[0] < 0.8
    lines = out.splitlines()
    assert sum(line.endswith("chosen") for line in lines) == 2
    assert f"in {workdir}/tuned.json" in lines[-2] and "3 held-out recordings" in lines[-2]

    # The printed command uses what was chosen.
    command = lines[-1].split()
    assert command[:2] == ["tal-jax", "evaluate"] and "--set" in command
    _succeed(capsys, *command[1:], "--output", tmp_path / "found.json")
    options.update(tuned["localization"])
    scores = read_predictions(workdir / "scores_test.npz")
    found = localize_predictions(scores, ml_collections.ConfigDict(options), toy.CLASSES)
    assert files.read_json(tmp_path / "found.json")["results"] == found

    # Starts and ends have no say: other ones, the same points.
    annotations = files.read_json(data / "annotations.json")
    for recording in annotations["database"].values():
        if recording["subset"] == "train":
            for instance in recording["annotations"]:
                start_s, end_s = instance["segment"]
                middle_s = instance["point"] + 0.01
                instance["segment"] = [(start_s + instance["point"]) / 2, (end_s + middle_s) / 2]
    files.write_json(data / "annotations.json", annotations)
    (workdir / "tuned.json").unlink()
    assert _succeed(capsys, "tune", "--workdir", workdir, *start) == out
    assert (workdir / "tuned.json").read_bytes() == content


def test_tune_refuses(capsys, toy_run, workdir, tmp_path):
    line = _fail(capsys, "tune", "--workdir", workdir)
    assert "train.holdout=0" in line and "train with --set train.holdout=5" in line
    data, run = _with_points_of_its_own(toy_run, tmp_path / "other")
    line = _fail(capsys, "tune", "--workdir", run, "--set", "train.holdout=2")
    assert "setting 'train.holdout' is what the scores were made with" in line
    annotations = files.read_json(data / "annotations.json")
    annotations["database"]["train_5"]["annotations"].pop()
    files.write_json(data / "annotations.json", annotations)
    assert "holds a run on other data: other labels in training: 1 recording (train_5)" in _fail(
        capsys, "tune", "--workdir", run
    )
    assert not (run / "tuned.json").exists()


def test_predict(capsys, toy_run, tmp_path):
    file = toy_run.data / "test_0.npy"
    out = _succeed(capsys, "predict", file, "--workdir", toy_run.workdir)
    found = json.loads((tmp_path / "test_0.detections.json").read_text())
    assert set(found) == {"version", "results", "external_data", "threshold", "files"}
    test = toy.dataset(toy_run.data).test[:1]
    assert found["results"] == predict(toy_run.fitted, test)
    best = found["results"]["test_0"][0]
    start_s, end_s = best["segment"]
    shown = f"{start_s:9.2f} – {end_s:9.2f} s  {best['score']:6.3f}  {best['label']}"
    assert out.splitlines()[0] == shown
    output = tmp_path / "deep" / "er.json"
    _succeed(capsys, "predict", file, "--workdir", toy_run.workdir, "--output", output)
    assert json.loads(output.read_text())["results"] == found["results"]
    assert {path.name for path in output.parent.iterdir()} == {
        *("er.json", "er.html", "er.csv", "er.srt")
    }


def test_predict_writes_events(capsys, toy_run, tmp_path):
    file = toy_run.data / "test_0.npy"
    command = ["predict", file, "--workdir", toy_run.workdir, "--output", tmp_path / "a.json"]
    _succeed(capsys, *command)
    found = json.loads((tmp_path / "a.json").read_text())
    steps = {"merge_gap_s": 1.5, "min_duration_s": dict.fromkeys(toy.CLASSES, 0.5)}
    steps["min_duration_s"][toy.CLASSES[0]] = 3.0
    expected = select_events(found["results"]["test_0"], threshold=found["threshold"], **steps)
    options = ["--merge-gap", 1.5, "--min-duration", 0.5]
    options += ["--min-duration", f"{toy.CLASSES[0]}=3"]
    out = _succeed(capsys, *command, *options)
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["results"]["test_0"] == expected.entries
    assert 0 < len(expected.entries) < len(found["results"]["test_0"])
    counts = (expected.below, expected.merged, expected.short)
    for count, words in zip(
        counts, ("below the threshold", "merged into", "too short"), strict=True
    ):
        assert (f"{count} {words}" in out) == (count > 0)
    assert f"{len(expected.entries)} events" in out
    assert written["steps"]["merge_gap_s"] == 1.5
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert len(rows) == 1 + len(expected.entries)
    # The command on the file of detections gives the same.
    _succeed(capsys, *command)
    _succeed(capsys, "events", tmp_path / "a.json", "--output", tmp_path / "ev.csv", *options)
    table = [row.split(",") for row in (tmp_path / "ev.csv").read_text().splitlines()[1:]]
    again = sorted((float(row[2]), float(row[3]), row[1]) for row in table)
    assert again == [
        (pytest.approx(one["segment"][0], abs=1e-6), pytest.approx(one["segment"][1], abs=1e-6))
        + (one["label"],)
        for one in sorted(expected.entries, key=lambda one: (one["segment"], one["label"]))
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--merge-gap", "x"], "--merge-gap x: expected a number, or CLASS=S"),
        (["--min-duration", "nope=1"], "--min-duration nope=1: no class 'nope', expected one of"),
        (["--min-duration=-1"], "minimum duration -1.0, expected 0 or more seconds"),
        (["--threshold", "nan"], "threshold nan, expected a finite number"),
    ],
)
def test_predict_refuses_steps_first(capsys, toy_run, tmp_path, monkeypatch, option, message):
    monkeypatch.setattr("tal_jax.inference.predict_file.predict_file", None)
    command = ["predict", toy_run.data / "test_0.npy", "--workdir", toy_run.workdir]
    assert message in _fail(capsys, *command, *option)


def test_predict_replaces_no_file_that_was_not_named(capsys, toy_run, tmp_path, monkeypatch):
    file = toy_run.data / "test_0.npy"
    command = ["predict", file, "--workdir", toy_run.workdir]
    monkeypatch.setattr(work, "open_run", lambda workdir: pytest.fail("opened"))
    for name in ("rec7.csv", "rec7.srt", "test_0.detections.json"):
        Path(name).write_text("theirs")
    line = _fail(capsys, *command, "--output", "rec7.json")
    assert line.startswith("rec7.csv, rec7.srt: there already") and "--overwrite" in line
    assert _fail(capsys, *command).startswith("test_0.detections.json: there already")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"theirs"}
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    _succeed(capsys, *command, "--output", "rec7.json", "--overwrite")
    assert Path("rec7.csv").read_text().startswith("label,start_s,end_s,score\n")
    _succeed(capsys, *command, "--output", "rec7.json")
    Path("rec7.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\ncorrected\n")
    assert _fail(capsys, *command, "--output", "rec7.json").startswith("rec7.srt: there already")
    assert "corrected" in Path("rec7.srt").read_text()


def test_predict_finds_an_output_that_cannot_be_written_first(
    capsys, toy_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("tal_jax.inference.predict_file.predict_file", None)
    command = ["predict", toy_run.data / "test_0.npy", "--workdir", toy_run.workdir]
    line = _fail(capsys, *command, "--output", "file/found.json")
    assert "cannot write file/found.json: Not a directory; nothing was changed" in line
    (tmp_path / "found.html").mkdir()
    assert "found.html: a folder" in _fail(capsys, *command, "--output", "found.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "found.html"]


def test_predict_from_an_export(capsys, toy_run, tmp_path):
    with typecheck.unchecked():  # annotations do not know symbolic sizes
        out = _succeed(capsys, "export", "--workdir", toy_run.workdir, "--output", "exported")
    assert "model.jax_export, params.npz and card.json; runs on cpu, cuda, tpu" in out
    file = toy_run.data / "test_0.npy"
    shown = [
        _succeed(capsys, "predict", file, "--workdir", source)
        for source in (toy_run.workdir, "exported")
    ]
    assert shown[0].splitlines()[0] == shown[1].splitlines()[0]
    line = _fail(
        capsys, "predict", file, "--workdir", "exported", "--set", "fps=3", "--output", "x"
    )
    assert "x: expected a name that ends in .json" in line


def test_predict_standardises_as_in_training(capsys, toy_run, workdir, tmp_path):
    features = np.load(toy_run.data / "test_0.npy")
    mean, scale = np.full(8, 3.0), np.full(8, 4.0)  # powers of two: undone without rounding
    files.write_npz(workdir / "scaling.npz", {"mean": mean, "scale": scale})
    # In float64, since float32 would round what is added and subtracted again.
    np.save("test_0.npy", features.astype(np.float64) * 4 + 3)
    _succeed(capsys, "predict", "test_0.npy", "--workdir", workdir)
    found = json.loads((tmp_path / "test_0.detections.json").read_text())["results"]["test_0"]
    expected = predict(toy_run.fitted, toy.dataset(toy_run.data).test[:1])["test_0"]
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["segment"], two["segment"], atol=1e-4)
        np.testing.assert_allclose(one["score"], two["score"], atol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "scaling.npz: "),
        ({"mean": np.zeros(8)}, "scaling.npz: no array 'scale'; expected mean and scale of a run"),
    ],
)
def test_predict_refuses_a_broken_scaling(capsys, toy_run, workdir, arrays, message):
    if arrays is None:
        (workdir / "scaling.npz").write_bytes(b"PK nothing")
    else:
        files.write_npz(workdir / "scaling.npz", arrays)
    assert message in _fail(capsys, "predict", toy_run.data / "test_0.npy", "--workdir", workdir)


@pytest.mark.slow
def test_info(capsys, config, toy_run):
    out = _succeed(capsys, "info", "--config", config, "--data", "/")
    assert re.search(r"training set: +6 recordings of up to 256 snippets, D 8, 2 classes", out)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(toy_run.fitted.params[0]))
    assert re.search(rf"parameters: +{parameters}\n", out)
    assert re.search(r"FLOPs: +0\.\d\d G an update", out)
    assert re.search(r"peak memory: +[1-9]\d* MB", out)


@pytest.mark.slow
def test_info_without_data(capsys, config):
    sizes = "--recordings 4 --snippets 256 --dim 8 --classes 2 --points 32".split()
    out = _succeed(capsys, "info", "--config", config, *sizes)
    assert "4 recordings of up to 256 snippets, D 8, 2 classes" in out


COMMANDS = ["", "quickstart", "train", "evaluate", "tune", "predict", "export", "doctor", "convert"]
COMMANDS += ["info", "extract", "label", "studio", "events"]
COMMANDS += ["points", "points make", "points convert", "points compare"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(capsys, command):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command.split(), "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"  tal-jax {command}" in out.split("options:")[1]  # an example
    if command == "train":
        assert "activitynet13_rsmp, auto, beoid_rsmp, " in " ".join(out.split())


def test_help_does_not_load_jax():
    program = (
        "import contextlib, sys\n"
        "from tal_jax import cli\n"
        f"for command in {COMMANDS}:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli.main([*command.split(), '--help'])\n"
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_commands_without_a_network_do_not_load_jax(tmp_path):
    """They start in a fraction of a second."""
    one = {"label": "jump", "segment": [0.5, 1.5]}
    database = {"a": {"subset": "train", "duration": 2.0, "annotations": [one]}}
    Path("gt.json").write_text(json.dumps({"database": database}))
    Path("found.json").write_text(json.dumps({"results": {"a": [one | {"score": 0.5}]}}))
    Path("a.csv").write_text("time_s,ax\n0,1\n1,2\n2,1\n")
    commands = (
        *(f"convert gt.json --to {kind} --output {kind}" for kind in ("audacity", "csv", "via")),
        "convert found.json --output submission.json",
        "points make gt.json --law center --seed 0 --output points.json",
        "label a.csv --no-browser",
        "studio a.csv --no-browser --project p",
    )
    program = (
        "import sys\n"
        "from tal_jax import cli\n"
        "from tal_jax.studio import StudioServer\n"
        "def stop(server): raise KeyboardInterrupt\n"
        "StudioServer.serve_forever = stop\n"
        f"for command in {commands!r}:\n"
        "    assert cli.main(command.split()) == 0, command\n"
        "heavy = 'jax jaxlib flax optax orbax torch matplotlib'.split()\n"
        "print([name for name in heavy if name in sys.modules], len(sys.modules) < 700)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.decode().splitlines()[-1] == "[] True"


@pytest.mark.slow  # the programs are compiled, and JAX is imported, in another process
def test_predict_loads_nothing_that_only_training_needs(toy_run, tmp_path):
    command = ["predict", str(toy_run.data / "test_0.npy"), "--workdir", str(toy_run.workdir)]
    command += ["--output", str(tmp_path / "found.json")]
    program = (
        "import sys\n"
        "from tal_jax import cli\n"
        f"assert cli.main({command!r}) == 0\n"
        "heavy = 'orbax tensorstore optax pandas scipy matplotlib torch pyarrow ray av'.split()\n"
        "print([name for name in heavy if name in sys.modules], len(sys.modules) < 1200)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.decode().splitlines()[-1] == "[] True"


def test_choices_are_those_of_the_library():
    assert cli.data.LABEL_KINDS == formats.KINDS
    assert cli.extract.BACKBONES == tuple(extraction.BACKBONES)
    assert cli.points.DISTRIBUTIONS == point_distributions.POINT_DISTRIBUTIONS


WRONG = ["", "trian", "train", "predict x.npy", "points"]
WRONG += ["evaluate", "evaluate --workdir w --scores s"]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments.split())
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture
def gt(tmp_path):
    """Annotations as people have them: no duration here, a segment beyond the end there."""
    database = {
        "v_1": {"subset": "train", "annotations": [{"label": "dip", "segment": ["1.0", "3.0"]}]},
        "v_2": {
            "subset": "test",
            "duration": 9,
            "fps": 20,
            "annotations": [
                {"label": "golf swing", "segment": [2, 4]},
                {"label": "dip", "segment": [10, 12]},
            ],
        },
    }
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    (tmp_path / "fps_dict.json").write_text('{"v_1": 30}')
    return tmp_path / "gt.json"


def test_points_make(capsys, gt):
    make = ["points", "make", gt, "--law", "center", "--seed", 0, "--output"]
    out = _succeed(capsys, *make, "points.json")
    assert out.splitlines() == [
        f"{gt}: recordings without a duration, taken to end with their last instance: 1",
        f"{gt}: instances without a point, their segment being missing, empty, reversed or "
        "outside the recording: 1",
        "points.json: 2 of 3 instances have a point",
    ]
    made = json.loads(Path("points.json").read_text())
    assert made["points"] == {"law": "center", "seed": 0}
    assert made["database"]["v_2"]["annotations"][0]["point"] == 3.0
    _succeed(capsys, *make, "points.txt")
    assert Path("points.txt").read_text() == "v_1,2.0,dip\nv_2,3.0,golf swing\n"
    _succeed(capsys, *make, "points.csv", "--fps-file", "fps_dict.json", "--subset", "train")
    assert Path("points.csv").read_text().splitlines()[1:] == ["dip,0,30,90,v_1,60"]


def test_points_convert(capsys, gt):
    Path("points.csv").write_text("class,video_id,point\ndip,v_1,45\ndip,v_1,99\ndip,v_3,1\n")
    convert = ["points", "convert", "points.csv", "--annotations", gt, "--output", "a/points.json"]
    out = _succeed(capsys, *convert, "--fps-file", "fps_dict.json")
    assert f"points.csv: points of recordings that {gt} lacks, left out: 1\n" in out
    assert "point, kept without a segment: 1\n" in out
    assert out.endswith("a/points.json: 2 of 4 instances have a point\n")
    database = json.loads(Path("a/points.json").read_text())["database"]
    assert database["v_1"]["annotations"] == [
        {"label": "dip", "segment": [1.0, 3.0], "point": 1.5},
        {"label": "dip", "point": 3.3},
    ]


def test_points_compare(capsys, gt):
    Path("one.csv").write_text("class,video_id,point\ndip,v_1,45\n")
    Path("two.txt").write_text("v_1,2.5,dip\nv_2,3,golf swing\n")
    compare = ["points", "compare", "one.csv", "two.txt", "--fps-file", "fps_dict.json"]
    out = _succeed(capsys, *compare)
    assert out.splitlines()[0].split() == ["one.csv", "two.txt"]
    assert out.splitlines()[-1].startswith("pairs: 1, apart by 1.000 s (median)")
    assert "mean position" not in out
    out = _succeed(capsys, *compare, "--annotations", gt)
    assert re.search(r"mean position +0\.250 +0\.625\n", out)


def test_points_of_pickled_annotations(capsys, tmp_path):
    arrays = {"videoname": ["v"], "subset": ["train"], "duration": [[9.0]], "classlist": ["dip"]}
    for name, values in arrays.items():
        np.save(f"{name}.npy", np.array(values))
    for name, values in {"labels": ["dip"], "segments": [[1.0, 3.0]]}.items():
        np.save(f"{name}.npy", np.array([values, None], dtype=object)[:1])
    make = ["points", "make", tmp_path, "--law", "center", "--seed", 0, "--output", "points.txt"]
    assert "reading them can run code of whoever made them" in _fail(capsys, *make)
    assert not Path("points.txt").exists()
    _succeed(capsys, *make, "--allow-pickle")
    assert Path("points.txt").read_text() == "v,2.0,dip\n"


def test_interrupted(capsys, config, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "fit", interrupt)
    assert cli.main(["train", "--config", config, "--workdir", str(tmp_path / "run")]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fault",
    [
        lambda: jax.numpy.zeros((2, 3)).reshape(5, 5),
        lambda: np.zeros(2) + np.zeros(3),
        lambda: list(zip([1], [], strict=True)),
        lambda: nms(np.zeros((2, 3)), np.zeros(2), iou_threshold=0.5),
    ],
)
def test_bugs_keep_their_traceback(config, tmp_path, monkeypatch, fault):
    """Only an InputError is shown as one line; a ValueError of any other origin is a bug."""
    monkeypatch.setattr(fit, "fit", lambda *args, **kwargs: fault())
    with pytest.raises((TypeError, ValueError)) as caught:
        cli.main(["train", "--config", config, "--workdir", str(tmp_path / "run")])
    assert not isinstance(caught.value, InputError)


def test_exit_code_of_a_bug(tmp_path):
    (tmp_path / "bug.py").write_text("def get_config():\n    raise ValueError('a bug')\n")
    command = [sys.executable, "-m", "tal_jax.cli", "train", "--config", "bug.py", "--workdir", "w"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr and "a bug" in done.stderr


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.stps=5"], "config has no key 'train.stps'; did you mean 'train.steps'?"),
        (["--set", "train.steps=many"], "config: train.steps=many; expected a whole number"),
        (["--set", "train.steps=7"], "train.steps=7; expected a multiple of train.search_every=5"),
        (["--set", "loss.select=bset"], "loss.select='bset'; expected 'all' or 'best'"),
        (["--set", "data.name=wach"], "data.name='wach'; did you mean 'watch'?"),
        (["--config", "hapt"], "unknown config 'hapt'; did you mean 'hapt_rsmp'?"),
        (["--config", "no.py"], "config no.py: no such file"),
        (["--config", "hapt_rsmp"], "hapt: no folder given"),
        (["--config", "hapt_rsmp", "--data", "."], "no acc_exp*_user*.txt"),
        (["--set", "data.folder=/nowhere"], "/nowhere: no such folder"),
        (["--seeds", "0,1,0"], "--seeds 0,1,0; expected different whole numbers, such as 0,1,2"),
        (["--seeds", "0,-1"], "--seeds 0,-1; expected different whole numbers"),
        (["--seeds", "0,1", "--set", "train.holdout=1"], "train.holdout=1; expected 0, since runs"),
    ],
)
def test_train_refuses(capsys, config, tmp_path, arguments, message):
    workdir = tmp_path / "run"
    line = _fail(capsys, "train", "--config", config, "--workdir", workdir, *arguments)
    assert message in line
    assert not workdir.exists()


def _broken(toy_run, tmp_path, change) -> Path:
    """A copy of the data with changed annotations or features."""
    folder = Path(shutil.copytree(toy_run.data, tmp_path / "broken"))
    annotations = json.loads((folder / "annotations.json").read_text())
    change(folder, annotations)
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return folder


def _first(annotations):
    return annotations["database"]["train_0"]["annotations"][0]


def _nan(folder, annotations):
    features = np.load(folder / "train_2.npy")
    features[7, 3] = np.nan
    np.save(folder / "train_2.npy", features)


def _other_dim(folder, annotations):
    np.save(folder / "test_1.npy", np.load(folder / "test_1.npy")[:, :5])


def _empty(folder, annotations):
    np.save(folder / "train_1.npy", np.zeros((0, toy.DIM), np.float32))


def _point_outside(folder, annotations):
    _first(annotations).update(point=1e4)


def _unknown_class(folder, annotations):
    _first(annotations).update(label="jmp")


def _backwards(folder, annotations):
    _first(annotations).update(segment=[5.0, 4.0])


def _no_grid(folder, annotations):
    (folder / "grid.json").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan, "train_2: feature 3 of snippet 7 is nan, expected finite numbers"),
        (_other_dim, "test_1: features have D = 5, expected 8"),
        (_empty, "train_1: features are empty"),
        (_point_outside, "train_0: point of "),
        (_unknown_class, "train_0: unknown class 'jmp', expected one of bump, dip"),
        (_backwards, "train_0: segment is [5.0, 4.0] s, expected 0 <= start < end"),
        (_no_grid, "grid.json"),
    ],
)
def test_bad_data(capsys, config, toy_run, tmp_path, change, message):
    folder, workdir = _broken(toy_run, tmp_path, change), tmp_path / "run"
    line = _fail(
        capsys, "train", "--config", config, "--workdir", workdir, "--set", f"data.folder={folder}"
    )
    assert message in line
    assert not workdir.exists()


def test_work_directory_that_cannot_be_written(capsys, config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = _fail(capsys, "train", "--config", config, "--workdir", tmp_path / "file" / "run")
    assert f"cannot write {tmp_path}/file/run/" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "toy_config.py"]


def test_work_directory_of_another_run(capsys, config, workdir):
    before = (workdir / "config.json").read_text()
    line = _fail(capsys, "train", "--config", config, "--workdir", workdir, "--set", "seed=1")
    assert "holds a run with seed = 0, not 1" in line
    assert (workdir / "config.json").read_text() == before


def test_disk_that_is_full(capsys, config, tmp_path, monkeypatch):
    """While a checkpoint is written; what the run had stays, and it goes on."""
    save = checkpoints.Checkpoints.save

    def full(self, step, state, **kwargs):
        if step == 30:
            raise OSError(28, "No space left on device")
        save(self, step, state, **kwargs)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", full)
    arguments = ["train", "--config", config, "--workdir", tmp_path / "run"]
    arguments += ["--set", "train.rounds=1", "--set", "train.steps=30"]
    assert "No space left on device" in _fail(capsys, *arguments)
    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    out = _succeed(capsys, *arguments)
    assert "update    20/30" in out and "update    15/30" not in out


def test_corrupted_checkpoint(capsys, config, workdir, toy_run):
    for path in (workdir / "round_1" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (workdir / "round_1" / "params.npz").unlink()  # as in a run of an older version
    for command in (
        ["train", "--config", config, "--workdir", workdir],
        ["predict", toy_run.data / "test_0.npy", "--workdir", workdir],
    ):
        line = _fail(capsys, *command)
        assert "cannot restore this checkpoint" in line and "round_1/checkpoints" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "no.json", *"--law center --seed 0".split()], "cannot read no.json: No such"),
        (["make", "gt.json", *"--law center --seed -1".split()], "seed is -1, expected a whole"),
        (["make", "gt.json", *"--law center --seed 0 --subset val".split()], "no recording of"),
        (["convert", "a.csv", "--annotations", "gt.json"], "a.csv: v_1: no frame rate to convert"),
        (["convert", "a.txt", "--annotations", "gt.json"], "a.txt: line 1 is 'v_1;2', expected"),
        (["convert", "gt.json", "--annotations", "gt.json", "--output", "out.md"], "out.md: unkn"),
    ],
)
def test_points_refuses(capsys, gt, tmp_path, arguments, message):
    Path("a.csv").write_text("class,video_id,point\ndip,v_1,45\n")
    Path("a.txt").write_text("v_1;2\n")
    before = sorted(tmp_path.iterdir())
    output = [] if "--output" in arguments else ["--output", "out.csv"]
    assert message in _fail(capsys, "points", *arguments, *output)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((20, 5), np.float32), "stream: features have D = 5, expected 8"),
        (np.full((20, 8), np.nan, np.float32), "stream: feature 0 of snippet 0 is nan"),
        (np.full((20, 8), np.inf, np.float32), "stream: feature 0 of snippet 0 is inf"),
        (np.zeros((0, 8), np.float32), "stream: features are empty"),
        (np.zeros(8, np.float32), "stream: features have shape [8], expected [T, D]"),
        (np.float32(3), "stream: features have shape [], expected [T, D]"),
        (np.zeros((20, 8), np.int64), "stream: features are int64, expected float32"),
        (None, "stream.npy: no such file, expected a video, a table or features"),
        (b"not an array", "cannot read stream.npy"),
    ],
)
def test_predict_refuses(capsys, toy_run, tmp_path, features, message):
    if isinstance(features, bytes):
        Path("stream.npy").write_bytes(features)
    elif features is not None:
        np.save("stream.npy", features)
    line = _fail(capsys, "predict", "stream.npy", "--workdir", toy_run.workdir)
    assert message in line
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("command", ["evaluate", "tune", "predict"])
def test_work_directory_without_a_run(capsys, tmp_path, command):
    np.save("stream.npy", np.zeros((20, 8), np.float32))
    file = ["stream.npy"] if command == "predict" else []
    line = _fail(capsys, command, *file, "--workdir", tmp_path / "nothing")
    assert line.startswith(f"cannot read {tmp_path}/nothing/config.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ground_truth.json", "{", "ground_truth.json: "),
        ("ground_truth.json", '{"database": 3}', "database"),
        ("round_0/detections_test.json", "[]", "no ActivityNet detections"),
        ("round_0/detections_test.json", '{"results": {"test_0": [{"label": "dip"}]}}', "test_0"),
        ("config.json", "null", "config.json: missing all; expected a file that this version"),
        ("config.json", '{"train": {"steps": 60}}', "config.json: missing method"),
        ("config.json", '{"method": "sft"}', "config.json: unknown method 'sft'"),
        ("config.json", '{"method": "rsmp"}', "config.json: missing detector.batch_size"),
        ("run.json", '{"data": {"classes": []}}', "run.json: missing data.dim"),
    ],
)
def test_evaluate_refuses(capsys, workdir, name, content, message):
    (workdir / name).write_text(content)
    before = (workdir / "evaluation.json").read_text()
    assert message in _fail(capsys, "evaluate", "--workdir", workdir)
    assert (workdir / "evaluation.json").read_text() == before


def test_nothing_to_evaluate(capsys, workdir):
    for number in range(2):
        (workdir / f"round_{number}" / "detections_test.json").unlink()
    assert "nothing to evaluate" in _fail(capsys, "evaluate", "--workdir", workdir)


# --- data sets of the field ---


@pytest.fixture
def golf(tmp_path):
    """A folder as HR-Pro's code lays it out."""
    import synthetic

    from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation

    recordings = {
        name: RecordingAnnotation(subset, 40.0, (Instance("golf", 4.0, 9.0),))
        for name, subset in (("a", "training"), ("b", "training"), ("c", "validation"))
    }
    synthetic.write_stand_in(
        tmp_path / "golf",
        Annotations(("golf",), recordings),
        layout="joined",
        grid=Grid(25, 16, 16),
        dim=4,
        report=len,
    )
    return tmp_path / "golf"


def test_doctor_of_a_good_folder(capsys, golf):
    out = _succeed(capsys, "doctor", golf)
    assert "explains 3 of 3 recordings" in out and "\nready to train\n" in out
    # 63 snippets each: 1.25 times as many, in steps of 64.
    assert re.search(r"train.length +=\s128 +all recordings fit: the longest has 63 snippets", out)
    found = json.loads(_succeed(capsys, "doctor", golf, "--json"))
    assert found["wrong"] is False and found["counts"]["train"]["points"] == 2
    assert found["decisions"]["train.length"] == 128
    chosen = _succeed(capsys, "doctor", golf, "--config", "thumos14_rsmp", "--json")
    assert json.loads(chosen)["decisions"] == {}


def test_doctor_and_train_agree_without_config(capsys, golf, tmp_path):
    """Segments without points: both refuse them, and name what would do."""
    _succeed(capsys, "convert", golf, "--output", tmp_path / "ours")
    path = tmp_path / "ours" / "annotations.json"
    content = json.loads(path.read_text())
    for recording in content["database"].values():
        for instance in recording["annotations"]:
            instance.pop("point", None)
    path.write_text(json.dumps(content))
    assert cli.main(["doctor", str(tmp_path / "ours")]) == 1
    assert "draw points by data.points=uniform" in capsys.readouterr().out
    train = ("train", "--data", tmp_path / "ours", "--workdir", tmp_path / "run")
    assert "has no point to train on" in _fail(capsys, *train)
    for setting in ("data.points=uniform", "data.supervision=mixed"):
        assert "ready to train" in _succeed(capsys, "doctor", tmp_path / "ours", "--set", setting)


def test_doctor_of_a_broken_folder_exits_with_1(capsys, golf):
    (golf / "features" / "train" / "a.npy").write_bytes(b"")
    assert cli.main(["doctor", str(golf)]) == 1
    assert "a.npy" in capsys.readouterr().out


def test_doctor_knows_the_settings(capsys, golf):
    assert cli.main(["doctor", str(golf), "--set", "data.fps=50"]) == 1
    assert "data.fps=25 and data.stride_frames=16" in capsys.readouterr().out
    assert "no such folder" in _fail(capsys, "doctor", golf / "nothing")
    assert "expected 'folder'" in _fail(capsys, "doctor", golf, "--config", "hapt_rsmp")


def test_convert(capsys, golf, tmp_path):
    out = _succeed(capsys, "convert", golf, "--output", tmp_path / "ours")
    assert "3 of 3 recordings written" in out
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [
        "a.npy",
        "annotations.json",
        "b.npy",
        "c.npy",
        "grid.json",
    ]
    assert "ready to train" in _succeed(capsys, "doctor", tmp_path / "ours")
    assert "not empty" in _fail(capsys, "convert", golf, "--output", tmp_path / "ours")


def test_label(capsys, tmp_path, monkeypatch):
    """The command serves until it is interrupted; an answer in time tells that it did."""
    np.save("walk.npy", np.stack([np.arange(100) / 50, np.zeros(100)], 1))
    opened, answers = [], []

    serve = studio.StudioServer.serve_forever

    def interrupted(server):
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        answers.append(urllib.request.urlopen(f"{server.url}state", timeout=10).read())
        server.shutdown()
        thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(studio.StudioServer, "serve_forever", interrupted)
    out = _succeed(capsys, "label", "walk.npy", "--output", "a.json", "--classes", "jump, run")
    assert opened == [out.splitlines()[0]] and opened[0].startswith("http://127.0.0.1:")
    assert json.loads(answers[0])["classes"] == ["jump", "run"]
    assert out.endswith("labels are in a.json; the same command goes on from here\n")
    _succeed(capsys, "label", "walk.npy", "--no-browser")
    assert len(opened) == 1 and not Path("a.json").exists()


@pytest.mark.parametrize("command", ["label", "studio"])
def test_the_page_needs_an_extra(tmp_path, command):
    program = (
        "import sys\n"
        "sys.modules['uvicorn'] = None\n"
        "from tal_jax import cli\n"
        f"sys.exit(cli.main(['{command}', 'walk.npy', '--no-browser']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        'tal-jax: error: the page needs starlette and uvicorn; run pip install "tal_jax[studio]"\n'
    )
    assert not list(Path().iterdir())


@pytest.mark.parametrize("command", [
    ["convert", "labels.csv", "--output", "a.json", "--overwrite"],
    ["points", "make", "b.json", "--law", "center", "--seed", "0", "--output", "a.json",
     "--overwrite"],
    ["label", "labels.csv", "--output", "a.json", "--no-browser"],
])  # fmt: skip
def test_an_annotation_file_has_one_writer(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("recording,label,start,end\nclip,jump,1,2\n")
    _succeed(capsys, "convert", "labels.csv", "--output", "a.json")
    _succeed(capsys, "convert", "labels.csv", "--output", "b.json")
    before = (tmp_path / "a.json").read_bytes()
    with locks.one_writer_of_file("a.json", "labelling"):
        assert "a.json is in use by labelling, process" in _fail(capsys, *command)
    assert (tmp_path / "a.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4"], "cannot read none.mp4: No such file"),
        (["b.json"], "b.json: unknown suffix, expected videos"),
        (["bad.mp4"], "bad.mp4"),
        (["walk.npy", "--output", "b.json"], "b.json: missing key 'database'"),
        (["walk.npy", "--port", "99999"], "cannot listen on port 99999"),
    ],
)
def test_label_refuses(capsys, tmp_path, arguments, message):
    np.save("walk.npy", np.stack([np.arange(100) / 50, np.zeros(100)], 1))
    Path("b.json").write_text("{}")
    Path("bad.mp4").write_bytes(b"no video at all")
    assert message in _fail(capsys, "label", *arguments, "--no-browser")
    assert Path("b.json").read_text() == "{}"


def test_convert_what_is_not_there(capsys, tmp_path):
    output = tmp_path / "labels.csv"
    told = _fail(capsys, "convert", tmp_path / "nothing.json", "--output", output)
    assert "nothing.json: no such file or folder" in told and not output.exists()


def test_convert_labels(capsys, tmp_path):
    """Labels of other tools to our own annotations, and on to others."""
    Path("walk.txt").write_text("0.5\t0.5\tjump\n1.25\t2.75\trun\n")
    Path("sit.txt").write_text("3.0\t4.0\tfall\n")
    out = _succeed(capsys, "convert", "walk.txt", "sit.txt", "--output", "all.json")
    assert out.startswith("note: walk.txt and 1 more: recordings without a duration")
    assert out.endswith("all.json: 3 labels in 2 recordings, activitynet\n")
    assert load_annotations("all.json").classes == ("jump", "run", "fall")
    _succeed(capsys, "convert", "all.json", "--to", "elan", "--output", "elan")
    _succeed(capsys, "convert", "elan/walk.eaf", "--output", "walk_again.txt")
    assert Path("walk_again.txt").read_text() == (
        "0.500000\t0.500000\tjump\n1.250000\t2.750000\trun\n"
    )
    out = _succeed(capsys, "convert", "all.json", "--to", "via", "--output", "via.json")
    assert "note: left out, since the format cannot hold it: durations" in out
    for output, line in (
        ("all.eaf", "2 recordings, but elan holds one per file"),
        ("all.xls", "unknown suffix, expected .json, .csv, .eaf, .txt, .boris or .vtt, or a kind"),
    ):
        assert line in _fail(capsys, "convert", "all.json", "--output", output)
    assert "frame rate 0.0" in _fail(
        capsys, "convert", "all.json", "--output", "all.csv", "--fps", "0"
    )


@pytest.mark.parametrize(("kind", "suffix"), [("elan", ".eaf"), ("audacity", ".txt")])
def test_convert_replaces_no_file_that_was_not_named(capsys, tmp_path, kind, suffix):
    Path("labels.csv").write_text("recording,label,start,end\na,jump,1,2\nsession1,run,3,4\n")
    Path(f"session1{suffix}").write_text("theirs")
    command = ["convert", "labels.csv", "--to", kind, "--output"]
    line = _fail(capsys, *command, ".")
    assert line.startswith(f"session1{suffix}: there already") and "--overwrite" in line
    assert Path(f"session1{suffix}").read_text() == "theirs" and not Path(f"a{suffix}").exists()
    _succeed(capsys, *command, ".", "--overwrite")
    assert "run" in Path(f"session1{suffix}").read_text()
    _succeed(capsys, *command, ".")


def test_convert_detections_to_labels(capsys, workdir):
    _succeed(capsys, "convert", workdir / "detections.json", "--output", "found.csv")
    count = sum(map(len, json.loads((workdir / "detections.json").read_text())["results"].values()))
    assert len(Path("found.csv").read_text().splitlines()) == 1 + count
    for source in (workdir / "detections.json", "found.csv"):
        _succeed(capsys, "convert", source, "--output", f"{Path(source).stem}.sub.json")
    assert Path("found.sub.json").read_text() == Path("detections.sub.json").read_text()


def test_convert_detections(capsys, workdir, tmp_path):
    out = _succeed(
        capsys, "convert", workdir / "detections.json", "--output", tmp_path / "submission.json"
    )
    written = json.loads((tmp_path / "submission.json").read_text())
    detections = json.loads((workdir / "detections.json").read_text())
    assert written["results"] == detections["results"]
    assert written["version"] == "VERSION 1.3"
    assert f"{sum(map(len, written['results'].values()))} detections in" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.steps=5"], "setting 'train.steps' is what the scores were made with"),
        (["--set", "data.seed=1"], "setting 'data.seed' is what the scores were made with"),
        (["--set", "localization.dleta=1"], "did you mean 'localization.delta'?"),
        (["--thresholds", "0.1,b"], "localization.thresholds=(0.1,b,); expected values in paren"),
        (["--foreground-thresholds", "a"], "localization.foreground_thresholds=(a,); expected"),
        (["--set", "localization.iou_threshold=2"], "iou_threshold=2.0; expected from 0 to 1"),
        (["--thresholds", "", "--foreground-thresholds", ""], "expected some, or some"),
    ],
)
def test_evaluate_scores_refuses_settings(capsys, toy_run, tmp_path, arguments, message):
    path = toy_run.workdir / "round_1" / "scores_test.npz"
    output = tmp_path / "found.json"
    line = _fail(capsys, "evaluate", "--scores", path, "--output", output, *arguments)
    assert message in line and not output.exists()


def test_evaluate_scores_refuses_files(capsys, workdir, tmp_path):
    path, output = workdir / "round_1" / "scores_test.npz", tmp_path / "found.json"

    def fail(path=path):
        line = _fail(capsys, "evaluate", "--scores", path, "--output", output)
        assert not output.exists()
        return line

    assert fail(workdir).startswith(f"cannot read {tmp_path.parent}/config.json")
    shutil.copy(path, tmp_path / "alone.npz")
    assert fail("alone.npz").startswith(f"cannot read {tmp_path.parent}/config.json")
    assert fail(workdir / "round_1" / "none.npz").startswith(f"cannot read {workdir}/round_1/none")
    scores = read_predictions(path)
    write_predictions(path, {name: one for name, one in scores.items() if name != "test_1"})
    assert f"{path}: no scores of 'test_1'; expected every test recording" in fail()
    arrays = files.read_npz(path)
    arrays["test_0/scores"] = arrays["test_0/scores"][:, :1]
    arrays["test_0/video"] = arrays["test_0/video"][:1]
    files.write_npz(path, arrays)
    assert f"{path}: 1 classes in 'test_0'; expected the 2 of the run" in fail()
    path.write_bytes(b"PK nothing")
    assert f"cannot read {path}" in fail()


@pytest.mark.parametrize("arguments", [["--output", "x.json"], ["--thresholds", "0.1"]])
def test_settings_do_not_go_with_saved_detections(capsys, workdir, arguments):
    line = _fail(capsys, "evaluate", "--workdir", workdir, *arguments)
    assert "settings and --output go with --scores, not with --workdir" in line
