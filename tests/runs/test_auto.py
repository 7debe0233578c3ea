"""Runs whose settings are decided from the data: begun, continued, evaluated, several at once."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy

from tal_jax import cli
from tal_jax.config import check_config, load_config, override
from tal_jax.data import files
from tal_jax.datasets.load import load_dataset
from tal_jax.evaluation import detection
from tal_jax.runs import evaluate
from tal_jax.runs import fit as fit_module
from tal_jax.runs.fit import fit, fit_many
from tal_jax.runs.workdir import load_run
from tal_jax.training import automatic
from tal_jax.training.prepare import prepare_round

# Of seconds: what costs time is given, all else is decided.
_GIVEN = (
    *("model.widths=(16,)", "train.steps=40", "train.learning_rate=0.01", "train.rounds=2"),
    *("data.points=uniform", "model.num_prototypes=4", "stages=rounds"),
)


def _config(data: Path, *assignments):
    config = load_config("auto")
    for assignment in (f"data.folder={data}", *_GIVEN, *assignments):
        override(config, assignment)
    return config


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run of `auto`; to be read, not to be changed."""

    data: Path
    workdir: Path
    lines: list[str]


@pytest.fixture(scope="module")
def run(toy_run, tmp_path_factory):
    workdir, lines = tmp_path_factory.mktemp("auto") / "run", []
    config = _config(toy_run.data)
    fit(load_dataset(config), config, workdir=workdir, report=lines.append)
    return Run(toy_run.data, workdir, lines)


def _read(path: Path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_decisions_are_printed_and_saved(run):
    config = _config(run.data)
    decided, decisions = automatic.decide(config, load_dataset(config))
    assert run.lines[: len(decisions)] == automatic.format_decisions(decisions).splitlines()
    assert not any(line.startswith("train.steps") for line in run.lines)
    saved = _read(run.workdir / "config.json")
    assert saved == json.loads(json.dumps(decided.to_dict()))
    assert saved["train"]["length"] and saved["sampling"]["tau_s"] is None
    assert load_run(run.workdir).config.train.length == decided.train.length


@pytest.mark.slow
def test_actions_under_the_lower_quartile_are_lengthened(run):
    """Round 1 names the quartile of the lengths that its points were given, and evaluates by it."""
    config = _config(run.data)
    dataset = load_dataset(config)
    config = automatic.decide(config, dataset)[0]
    results = _read(run.workdir / "round_0" / "proposals_train.json")["results"]
    lengths_s = []
    for recording in dataset.train:
        for point in recording.points:
            label = dataset.classes[point.label]
            others = [one.time_s for one in recording.points if one.label != point.label]
            # The best proposal of its class that contains it and fewest points of other classes.
            found = [
                (
                    sum(start <= time_s < end for time_s in others),
                    -np.float32(entry["score"]),
                    end - start,
                )
                for entry in results[recording.name]
                for start, end in [entry["segment"]]
                if entry["label"] == label and start <= point.time_s < end
            ]
            lengths_s += [min(found)[2]] if found else []
    quartile = float(np.quantile(lengths_s, 0.25))
    prepared = prepare_round(dataset, check_config(config), results)
    assert prepared.short_s == pytest.approx(quartile, rel=1e-3)
    assert prepare_round(dataset, check_config(config), None).short_s is None
    line = next(line for line in run.lines if line.startswith("round 1: 12 timelines"))
    assert f"(actions under {prepared.short_s:.3g} s)" in line
    first, second = (_read(run.workdir / f"round_{n}" / "evaluation.json") for n in range(2))
    assert first["short_s"] is None and second["short_s"] == prepared.short_s
    assert second["num_short"] > 0
    assert _read(run.workdir / "evaluation.json")["short_s"] == prepared.short_s


@pytest.mark.slow
def test_a_given_tau_is_used(run):
    config = _config(run.data, "sampling.tau_s=3")
    dataset = load_dataset(config)
    config = check_config(automatic.decide(config, dataset)[0])
    results = _read(run.workdir / "round_0" / "proposals_train.json")["results"]
    assert prepare_round(dataset, config, results).short_s == 1.5  # widened to twice the length


@pytest.mark.slow
def test_evaluating_again_changes_nothing(run, tmp_path):
    workdir = Path(shutil.copytree(run.workdir, tmp_path / "run"))
    before = {path: _read(path) for path in workdir.rglob("evaluation.json")}
    evaluate.evaluate_run(workdir, print_line=lambda line: None)
    assert len(before) == 3
    assert {path: _read(path) for path in workdir.rglob("evaluation.json")} == before
    lines = []
    evaluate.evaluate_scores(workdir / "scores_test.npz", print_line=lines.append)
    assert f"short: under {before[workdir / 'evaluation.json']['short_s']:g} s" in lines[0]
    table = evaluate.format_seeds({"round 0": [workdir / "round_0" / "evaluation.json"]})
    assert table.rstrip().endswith("| - |") and "nan" not in table


@pytest.mark.slow
def test_a_run_goes_on_with_what_it_began_with(run, tmp_path, monkeypatch):
    """Even if other settings would be decided now; what is given otherwise is refused."""
    workdir = Path(shutil.copytree(run.workdir, tmp_path / "run"))
    shutil.rmtree(workdir / "round_1")
    for name in ("evaluation.json", "detections.json", "scores_test.npz"):
        (workdir / name).unlink()
    monkeypatch.setitem(automatic._RULES, "train.length", lambda config, facts: (64, "another"))
    config, lines = _config(run.data), []
    fit(load_dataset(config), config, workdir=workdir, report=lines.append)
    assert not any(line.startswith("train.length") for line in lines)
    for name in ("config.json", "evaluation.json", "round_1/evaluation.json"):
        assert _read(workdir / name) == _read(run.workdir / name)
    config = _config(run.data, "train.length=128")
    with pytest.raises(ValueError, match=r"a run with train.length = \d+, not 128"):
        fit(load_dataset(config), config, workdir=workdir)


@pytest.mark.slow
def test_seeds_share_decisions_and_go_on_alone(run, tmp_path):
    """Points differ by seed: the first one's decide, also for a run that then goes on by itself."""
    configs = [_config(run.data, f"seed={seed}", "train.rounds=1") for seed in range(2)]
    datasets = [load_dataset(config) for config in configs]
    workdirs = [tmp_path / f"seed_{seed}" for seed in range(2)]
    lines = []
    fit_many(datasets, configs, workdirs=workdirs, report=lines.append)
    assert sum(line.startswith("loss.topk_ratio") for line in lines) == 1
    saved = [_read(workdir / "config.json") for workdir in workdirs]
    assert [one.pop("seed") for one in saved] == [0, 1]
    assert saved[0] == saved[1]
    fit(datasets[1], configs[1], workdir=workdirs[1], report=lines.append)


@pytest.mark.slow
def test_train_without_a_config(capsys, toy_run, tmp_path):
    given = [part for one in (*_GIVEN, "train.rounds=1") for part in ("--set", one)]
    workdir = tmp_path / "w"
    command = ["train", "--data", toy_run.data, "--workdir", workdir, *given]
    assert cli.main(list(map(str, command))) == 0
    out = capsys.readouterr().out
    assert "train.length" in out and "all recordings fit" in out and "all rounds" not in out
    assert files.read_json(workdir / "config.json")["train"]["batch_size"] > 0


def test_what_the_rounds_decide_stays_open_beside_a_run_with_a_value(tmp_path):
    data = toy.write(tmp_path / "data")
    configs = [_config(data, "sampling.tau_s=5"), _config(data, "train.length=64")]
    datasets = [toy.dataset(data)] * 2
    folders = [tmp_path / "a", tmp_path / "b"]
    decided = fit_module._decide(datasets, configs, folders, None, {}, lambda line: None)
    assert [one.sampling.tau_s for one in decided] == [5.0, None]
    assert [one.data.seed for one in decided] == [None, None]
    assert decided[1].train.length == 64
    assert not any(map(automatic.undecided, decided))
    assert decided[0].loss.topk_ratio == decided[1].loss.topk_ratio


def _evaluation(tmp_path, tious):
    """The `evaluation.json` of a detection that has an IoU of .62."""
    truth = {"label": "a", "segment": [0.0, 10.0]}
    recordings = {"x": {"subset": "test", "duration": 20.0, "annotations": [truth]}}
    document = {"version": "1", "database": recordings, "classes": ["a"]}
    found = {"x": [{"label": "a", "segment": [0.0, 6.2], "score": 1.0}]}
    metrics = detection.evaluate_detections(document, {"results": found}, tious=tious, short_s=20)
    files.write_json(tmp_path / "evaluation.json", metrics.to_dict())
    return tmp_path / "evaluation.json"


def test_thresholds_that_were_not_evaluated_have_a_dash(tmp_path):
    tious = tuple(np.arange(0.5, 1, 0.05))
    table = evaluate.format_seeds({"x": [_evaluation(tmp_path, tious)]})
    row = "| x | 1 | - | - | 100.0 ± 0.0 | 0.0 ± 0.0 | 30.0 ± 0.0 | 100.0 ± 0.0 |"
    assert table.splitlines()[-1] == row
    table = evaluate.format_seeds({"x": [_evaluation(tmp_path, (0.1, 0.3))]})
    row = "| x | 1 | 100.0 ± 0.0 | 100.0 ± 0.0 | - | - | 100.0 ± 0.0 | - |"
    assert table.splitlines()[-1] == row


def test_short_actions_of_test_recordings_need_a_length(tmp_path):
    data = toy.write(tmp_path / "data")
    config = _config(data, "sampling.test_compensation=True")
    decided = automatic.decide(config, toy.dataset(data))[0]
    with pytest.raises(ValueError, match="test_compensation=True; expected False without a value"):
        check_config(decided)
