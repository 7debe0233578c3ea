"""Runs of both stages on the toy problem: files, resuming, several runs, predictions."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from tal_jax._errors import InputError
from tal_jax.data.detections import activitynet_json
from tal_jax.data.recordings import Dataset
from tal_jax.datasets.load import load_dataset
from tal_jax.inference.predict import predict
from tal_jax.runs.fit import fit, fit_many
from tal_jax.runs.round_folders import result_folders
from tal_jax.runs.workdir import load_run

pytestmark = pytest.mark.slow


def _config(data: Path, seed: int = 0):
    config = toy.config(data)
    config.seed = seed
    config.stages = ("rounds", "detector")
    config.train.update(rounds=2, steps=30)
    config.detector.update(components=6, width=16, steps=45, batch_size=4, learning_rate=5e-3)
    return config


def _fit(data: Path, workdir: Path, report=lambda line: None):
    config = _config(data)
    return fit(load_dataset(config), config, workdir=workdir, report=report)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The data, a finished run on them, its networks, what was compiled, and what was printed."""
    data = toy.write(tmp_path_factory.mktemp("toy") / "data")
    workdir, lines = data.parent / "run", []
    jax.clear_caches()  # other tests train the same networks
    with toy.compilations() as compiled:
        fitted = _fit(data, workdir, lines.append)
    return data, workdir, fitted, compiled, lines


def _read(path: Path):
    return json.loads(path.read_text())


def _contents(workdir: Path):
    """All files but checkpoints, whose chunks have random names, and clocks."""
    found = {}
    for path in workdir.rglob("*"):
        if path.is_dir() or "checkpoints" in path.parts or path.name in ("run.json", "lock"):
            continue
        content = path.read_bytes()
        if path.name == "metrics.jsonl":
            lines = map(json.loads, content.splitlines())
            clocks = ("steps_per_s", "eta_s")
            content = [{k: v for k, v in line.items() if k not in clocks} for line in lines]
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                content = {name: arrays[name].tobytes() for name in arrays}
        found[str(path.relative_to(workdir))] = content
    return found


def _assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_files_of_the_stage(run):
    data, workdir, _, _, lines = run
    assert {path.name for path in (workdir / "detector").iterdir()} == {
        "pseudo_segments.json",
        "config.json",
        "projection.npz",
        "checkpoints",
        "params.npz",
        "proposals_train.json",
        "detections_test.json",
        "evaluation.json",
    }
    titles = ["round 0", "round 1", "all rounds", "detector", "all stages"]
    assert list(result_folders(workdir, "evaluation.json")) == titles
    dataset = toy.dataset(data)
    document = _read(workdir / "detector" / "pseudo_segments.json")
    for recording in dataset.train:
        entries = document["database"][recording.name]["annotations"]
        assert [entry["point"] for entry in entries] == [p.time_s for p in recording.points]
    events = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    of_stage = [line for line in events if line.get("stage") == "detector"]
    steps = [line["step"] for line in of_stage if "step" in line]
    assert steps == list(range(5, 50, 5))
    assert any("segments to learn from" in line for line in lines)


def test_learns_ends(run):
    """Random detections of both classes score near 0."""
    _, workdir, *_ = run
    for folder in (workdir, workdir / "detector"):
        assert _read(folder / "evaluation.json")["average_map"] > 0.3


def test_predictions_are_those_in_the_work_directory(run):
    data, workdir, fitted, *_ = run
    loaded = load_run(workdir)
    _assert_same(loaded.detector.params, fitted.detector.params)
    for one in (loaded, fitted):
        found = activitynet_json(predict(one, toy.dataset(data).test))
        assert found == _read(workdir / "detections.json")


def test_one_program_for_each_shape(run):
    """That of the rounds and that of the stage; all recordings are padded to one length."""
    compiled = run[3]
    assert compiled.count("jit(run)") == 2
    assert compiled.count("jit(_detect)") == 2  # six training and three test recordings


def test_a_stopped_stage_goes_on(run, tmp_path):
    """Stopped at its second checkpoint: bitwise the same, files and parameters."""
    data, workdir, fitted, *_ = run

    def stop(line):
        if line.startswith("detector") and "update    35/45" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(data, tmp_path / "run", stop)
    stopped = tmp_path / "run" / "detector"
    assert (stopped / "pseudo_segments.json").exists()
    assert not (stopped / "proposals_train.json").exists()
    lines = []
    again = _fit(data, tmp_path / "run", lines.append)
    assert not any("update    30/45" in line for line in lines)
    assert any("update    35/45" in line for line in lines)
    _assert_same(again.detector.params, fitted.detector.params)
    assert _contents(tmp_path / "run") == _contents(workdir)


def test_a_finished_run_computes_nothing(run, tmp_path):
    data, workdir, fitted, *_ = run
    copy = Path(shutil.copytree(workdir, tmp_path / "run"))
    before = _contents(copy)
    again = _fit(data, copy)
    _assert_same(again.detector.params, fitted.detector.params)
    assert _contents(copy) == before


def test_results_that_were_not_all_written_are_written_again(run, tmp_path):
    """Stopped between the files of the evaluation."""
    data, workdir, *_ = run
    copy = Path(shutil.copytree(workdir, tmp_path / "run"))
    for name in ("detector/evaluation.json", "detector/detections_test.json", "evaluation.json"):
        (copy / name).unlink()
    _fit(data, copy)
    assert _contents(copy) == _contents(workdir)


def test_several_runs_are_as_alone(run, tmp_path):
    data, workdir, fitted, *_ = run
    configs = [_config(data, seed) for seed in (0, 1)]
    together = fit_many(
        [load_dataset(config) for config in configs],
        configs,
        workdirs=[tmp_path / "0", tmp_path / "1"],
        report=lambda line: None,
    )
    _assert_same(together[0].detector.params, fitted.detector.params)
    for name in ("detector/pseudo_segments.json", "detections.json", "evaluation.json"):
        assert _read(tmp_path / "0" / name) == _read(workdir / name)
    one, other = (jax.tree.leaves(each.detector.params)[0] for each in together)
    assert np.any(np.asarray(one) != np.asarray(other))


def test_an_edited_file_that_is_broken_is_refused(run, tmp_path):
    data, workdir, *_ = run
    copy = Path(shutil.copytree(workdir, tmp_path / "run"))
    path = copy / "detector" / "pseudo_segments.json"
    document = _read(path)
    document["database"]["train_0"]["annotations"].pop()
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"pseudo_segments.json: .* annotations of 'train_0'"):
        _fit(data, copy)


def test_a_data_set_without_points_is_refused(tmp_path):
    config = _config(tmp_path)
    dataset = toy.dataset(toy.write(tmp_path / "data"))
    train = tuple(
        type(one)(one.name, one.features, one.grid, one.duration_s, (), (0,))
        for one in dataset.train
    )
    bare = Dataset(dataset.classes, train, dataset.test, dataset.ground_truth)
    with pytest.raises(InputError, match="the detector learns from points"):
        fit(bare, config, workdir=tmp_path / "run", report=lambda line: None)
    assert not (tmp_path / "run").exists()
