"""Many recordings in a row: few programs, one read ahead, in order, resumed."""

import shutil
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from tal_jax import cli
from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.data.shards import shard_path, split_names, write_shard
from tal_jax.inference import predict_files as module
from tal_jax.inference.predict_file import Network, predict_file
from tal_jax.inference.predict_files import find_files, predict_files
from tal_jax.report import prediction as report
from tal_jax.report.summary import write_summary
from tal_jax.runs.workdir import open_run


@pytest.fixture
def recordings(toy_run, tmp_path):
    """Features of recordings of several lengths, in an order that is not that of their names."""
    features = np.load(toy_run.data / "test_0.npy")
    paths = []
    for number, size in ((3, 190), (0, 140), (2, 60), (1, 170)):
        paths.append(tmp_path / "in" / f"r{number}.npy")
        files.write_npy(paths[-1], features[:size])
    return paths


@pytest.mark.slow  # compiles
def test_the_same_detections_as_one_by_one_with_one_program(toy_run, recordings):
    network = open_run(toy_run.workdir)
    jax.clear_caches()
    with toy.compilations() as compiled:
        found = dict(predict_files(recordings, network))
    assert list(found) == recordings
    for name in ("forward", "localize_compiled"):
        assert compiled.count(f"jit({name})") == 1
    # And nothing else that compiles anew for every length.
    assert len(compiled) < 7
    for path in recordings[:2]:
        one = predict_file(path, network)
        assert found[path].detections == one.detections and found[path].name == path.stem
        assert found[path].identity.bytes == path.stat().st_size


def test_the_next_recording_is_described_while_the_network_reads(monkeypatch, recordings):
    described, waiting = [], threading.Event()

    def describe(path, network, folder, options, progress):
        described.append(path)
        if path == recordings[1]:
            waiting.set()
        return module.Described(path, path, None, 0.0, None, (), identity="known")

    def detect(one, network):
        # Only because the second one is described meanwhile does the first one end.
        assert waiting.wait(60)
        return one.source

    monkeypatch.setattr(module, "describe", describe)
    monkeypatch.setattr(module, "detect", detect)
    results = predict_files(recordings, None)
    assert next(results) == (recordings[0], recordings[0])
    assert recordings[3] not in described
    assert [path for path, _ in results] == recordings[1:]
    assert described == recordings


def test_a_read_ahead_ends_when_nobody_waits_for_it(monkeypatch, recordings):
    ended = threading.Event()

    def describe(path, network, folder, options, progress):
        if path == recordings[0]:
            return module.Described(path, path, None, 0.0, None, (), identity="known")
        try:
            while True:
                progress(1, 2)
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(module, "describe", describe)
    monkeypatch.setattr(module, "detect", lambda one, network: one.source)
    results = predict_files(recordings, None)
    next(results)
    results.close()
    assert ended.is_set()


def test_an_error_ends_no_other_recording(toy_run, recordings):
    recordings[1].write_bytes(b"no array")
    files.write_npy(recordings[2], np.zeros((9, 3), np.float32))
    found = [result for _, result in predict_files(recordings, open_run(toy_run.workdir))]
    assert [isinstance(one, InputError) for one in found] == [False, True, True, False]
    assert "cannot read" in str(found[1]) and "D = 3, expected 8" in str(found[2])


def test_two_recordings_of_one_name_are_refused(toy_run, recordings, tmp_path):
    network = open_run(toy_run.workdir)
    assert find_files([recordings[0].parent], network)[0] == sorted(recordings)
    files.write_npy(tmp_path / "r3.npy", np.zeros((9, 8), np.float32))
    with pytest.raises(InputError, match=r"in/r3.npy and .*/r3.npy: two recordings of one name"):
        find_files([*recordings, tmp_path / "r3.npy"], network)
    with pytest.raises(InputError, match="no recording in .*expected files .npy"):
        find_files([toy_run.workdir], network)


# --- the command ---


def _run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_resumes(capsys, toy_run, recordings, tmp_path):
    command = ["predict", recordings[0].parent, "--workdir", toy_run.workdir, "--output", "out"]
    (tmp_path / "in" / "notes.txt").write_text("")
    good = recordings[2].read_bytes()
    recordings[2].write_bytes(b"no array")
    code, out, err = _run(capsys, *command)
    assert code == 1 and err.count("\n") == 1 and f"cannot read {recordings[2]}" in err
    assert "note: 1 other files are no recordings by their names: notes.txt" in out
    assert "out: 3 recordings predicted, 0 unchanged, 1 failed" in out
    outputs = {path.name for path in Path("out").iterdir()}
    assert outputs == {"detections.json", "detections.csv"} | {
        f"r{number}.detections.{suffix}"
        for number in (0, 1, 3)
        for suffix in ("json", "html", "csv", "srt")
    }
    before = {name: Path("out", name).read_bytes() for name in outputs}

    recordings[2].write_bytes(good)
    code, out, _ = _run(capsys, *command)
    assert code == 0 and "out: 1 recordings predicted, 3 unchanged, 0 failed" in out
    assert all(
        Path("out", name).read_bytes() == before[name]
        for name in outputs - {"detections.json", "detections.csv"}
    )
    results = files.read_json(Path("out/detections.json"))["results"]
    assert list(results) == ["r0", "r1", "r2", "r3"]
    for name, entries in results.items():
        assert entries == files.read_json(Path(f"out/{name}.detections.json"))["results"][name]
    rows = files.read_csv(Path("out/detections.csv"), ["recording", "label", "score"])
    assert [row["recording"] for row in rows] == [n for n, e in results.items() for _ in e]

    # Another recording under the name, and an edited table.
    files.write_npy(recordings[0], np.load(recordings[0])[:100])
    code, out, _ = _run(capsys, *command)
    assert code == 0 and "out: 1 recordings predicted, 3 unchanged" in out
    table = Path("out/r1.detections.csv")
    table.write_text(table.read_text() + "dip,1,2,1\n")
    edited = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    code, _, err = _run(capsys, *command)
    assert code == 2 and "out/r1.detections.csv: there already" in err
    assert edited == {path.name: path.read_bytes() for path in Path("out").iterdir()}
    code, out, _ = _run(capsys, *command, "--overwrite")
    assert code == 0 and "out: 1 recordings predicted, 3 unchanged" in out


def test_the_recordings_of_a_folder_of_shards(tmp_path):
    def predict(recording):
        total = len(recording.features)
        sequence = Predictions(np.zeros((total, 1)), np.zeros(total), np.zeros(1))
        found = RecordingPredictions(recording.grid, recording.duration_s, sequence, sequence)
        return [{"label": "dip", "score": 0.5, "segment": [0.0, float(total)]}], found

    network = Network("run", predict, ("dip",), 2, Grid(1, 1, 1), None, None, 0.3)
    sizes = {name: 4 + number for number, name in enumerate("dbca")}

    def write(**changed):
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for number, names in enumerate(split_names(sizes, 2)):
            arrays = {name: np.ones((sizes[name], 2), np.float32) for name in names}
            arrays |= {name: value for name, value in changed.items() if name in names}
            write_shard(shard_path(folder, number, 2), arrays)
        return find_files([folder], network)[0]

    paths = write()
    assert [path.name for path in paths] == ["a.npy", "b.npy", "c.npy", "d.npy"]
    for path, one in predict_files(paths, network):
        assert one.detections[0]["segment"] == [0.0, sizes[path.stem]]
        report.write_prediction(one, folder=tmp_path / "out", made_from={})
    # Written again, they are the same recordings; with another number in it, one is another.
    assert all(report.is_done(path, tmp_path / "out", {}) for path in write())
    paths = write(c=np.full((sizes["c"], 2), 2, np.float32))
    assert [report.is_done(path, tmp_path / "out", {}) for path in paths] == [
        True,
        True,
        False,
        True,
    ]
    write_summary(paths, tmp_path / "out", overwrite=False)
    results = files.read_json(tmp_path / "out" / "detections.json")["results"]
    assert {name: one[0]["segment"][1] for name, one in results.items()} == sizes


def test_another_network_predicts_anew(capsys, toy_run, recordings, tmp_path):
    shutil.copytree(toy_run.workdir, tmp_path / "run")
    command = ["predict", *recordings[:2], "--workdir", "run", "--output", "out"]
    assert "2 recordings predicted, 0 unchanged" in _run(capsys, *command)[1]
    settings = files.read_json(Path("run/config.json"))
    settings["localization"]["video_weight"] = 0.5
    files.write_json(Path("run/config.json"), settings)
    assert "2 recordings predicted, 0 unchanged" in _run(capsys, *command)[1]


@pytest.mark.parametrize("arguments, message", [
    (["in", "--output", "x.json"], "x.json: expected a folder, for the results of several"),
    (["in/r0.npy", "in/r9.npy"], "in/r9.npy: no such file or folder, expected recordings"),
    (["empty"], "no recording in empty; expected files .npy"),
])  # fmt: skip
def test_what_cannot_be_predicted_is_refused(
    capsys, toy_run, recordings, tmp_path, arguments, message
):
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, _, err = _run(capsys, "predict", *arguments, "--workdir", toy_run.workdir)
    assert code == 2 and message in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
