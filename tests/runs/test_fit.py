"""Fit, predict and resume on a problem of seconds."""

import collections
import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from tal_jax.config import check_config
from tal_jax.data.clock import Grid
from tal_jax.data.detections import activitynet_json
from tal_jax.data.fingerprint import fingerprint
from tal_jax.data.predictions import read_predictions, write_predictions
from tal_jax.data.recordings import Dataset, Point, Recording
from tal_jax.datasets.load import load_dataset
from tal_jax.evaluation.point_criterion import point_criterion
from tal_jax.inference.localize import localize_predictions
from tal_jax.inference.predict import predict, predict_round
from tal_jax.runs import fit as fit_module
from tal_jax.runs import workdir as work
from tal_jax.runs.fit import fit
from tal_jax.runs.results import evaluate
from tal_jax.runs.workdir import load_run
from tal_jax.training import loop
from tal_jax.training.prepare import hold_out, prepare_round


def _fit(toy_run, workdir, dataset=None, report=lambda line: None, **settings):
    """Fits the toy problem with some of `config.train` changed."""
    config = toy.config(toy_run.data)
    config.train.update(settings)
    dataset = toy.dataset(toy_run.data) if dataset is None else dataset
    return fit(dataset, config, workdir=workdir, report=report)


def _assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def _read(path: Path):
    return json.loads(path.read_text())


def _read_log(workdir: Path):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _copy(toy_run, tmp_path) -> Path:
    return Path(shutil.copytree(toy_run.workdir, tmp_path / "run"))


def _forget_last_round(workdir: Path) -> None:
    shutil.rmtree(workdir / "round_1")


# --- what a run finds and leaves behind ---


def test_learns(toy_run):
    evaluation = _read(toy_run.workdir / "evaluation.json")
    assert evaluation["map"][evaluation["tious"].index(0.5)] > 0.9
    assert evaluation["average_map"] > 0.8
    assert evaluation["num_videos"] == 3


def test_work_directory(toy_run):
    names = {
        str(path.relative_to(toy_run.workdir))
        for path in toy_run.workdir.rglob("*")
        if path.is_file() and "checkpoints" not in path.parts
    }
    each = {
        "params.npz",
        "proposals_train.json",
        "detections_test.json",
        "evaluation.json",
        "scores_test.npz",
    }
    assert names == {
        *("config.json", "run.json", "metrics.jsonl", "train_points.json", "ground_truth.json"),
        *("fingerprint.json", "detections.json", "evaluation.json", "scores_test.npz"),
        *(f"round_{number}/{name}" for number in range(2) for name in each),
    }
    lines = _read_log(toy_run.workdir)
    steps = [(line["round"], line["step"]) for line in lines if "step" in line]
    assert steps == [(number, step) for number in range(2) for step in range(5, 61, 5)]
    assert [line["round"] for line in lines if line.get("event") == "evaluation"] == [0, 1]
    assert [line["round"] for line in lines if line.get("event") == "pseudo_segments"] == [0, 1]
    together = [line for line in lines if line.get("event") == "evaluation_of_all_rounds"]
    assert [line["round"] for line in together] == [1]
    assert together[0]["average_map"] == _read(toy_run.workdir / "evaluation.json")["average_map"]
    points = _read(toy_run.workdir / "train_points.json")["database"]
    instances = [one for recording in points.values() for one in recording["annotations"]]
    assert instances and all(set(one) == {"label", "point"} for one in instances)


@pytest.mark.parametrize("number", [0, 1])
def test_quality_of_pseudo_segments(toy_run, number):
    """From the saved proposals: the best one of its class around each point and no other's."""
    dataset = toy.dataset(toy_run.data)
    proposals = _read(toy_run.workdir / f"round_{number}" / "proposals_train.json")["results"]
    ious, ratios = [], []
    for recording in dataset.train:
        truth = dataset.train_truth[recording.name]
        for point, (low, high) in zip(recording.points, truth, strict=True):
            around = []
            for one in proposals[recording.name]:
                start, end = one["segment"]
                if one["label"] != toy.CLASSES[point.label] or not start <= point.time_s < end:
                    continue
                inside = [other for other in recording.points if start <= other.time_s < end]
                foreign = sum(other.label != point.label for other in inside)
                around.append((-foreign, one["score"], start, end))
            if around:
                *_, start, end = max(around)
                inner = max(min(end, high) - max(start, low), 0)
                ious.append(inner / (max(end, high) - min(start, low)) if inner else 0.0)
                ratios.append((end - start) / (high - low))
            else:
                ious.append(0.0)
    lines = [line for line in _read_log(toy_run.workdir) if line.get("event") == "pseudo_segments"]
    total, bins = lines[number]["total"], lines[number]["bins"]
    assert total["instances"] == len(ious) == sum(one["instances"] for one in bins)
    assert total["missing"] == len(ious) - len(ratios)
    assert total["mean_iou"] == pytest.approx(np.mean(ious), abs=1e-5)
    assert total["recall_50"] == pytest.approx(np.mean(np.array(ious) >= 0.5), abs=0.01)
    assert total["length_ratio"] == pytest.approx(np.median(ratios), abs=1e-4)
    assert total["mean_iou"] > 0.7  # the toy problem is easy
    printed = [line for line in toy_run.lines if f"round {number}, pseudo segments" in line]
    assert len(printed) == 1 and f"{total['mean_iou']:.2f}" in printed[0].splitlines()[-1]


def test_saved_network_finds_the_saved_detections(toy_run):
    fitted = load_run(toy_run.workdir)
    _assert_same(fitted.params, toy_run.fitted.params)
    test = toy.dataset(toy_run.data).test
    found = predict(fitted, test)
    assert activitynet_json(found) == _read(toy_run.workdir / "detections.json")
    for recording in test:
        segments = np.array([entry["segment"] for entry in found[recording.name]])
        assert (segments[:, 0] < segments[:, 1]).all()
        assert segments.min() >= 0 and segments.max() <= recording.duration_s
        scores = [entry["score"] for entry in found[recording.name]]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("number", [0, 1])
def test_saved_scores_give_the_saved_detections(toy_run, number):
    """Without the network, and exactly: same program, same numbers."""
    folder = toy_run.workdir / f"round_{number}"
    scores = read_predictions(folder / "scores_test.npz")
    with toy.compilations() as compiled:
        found = localize_predictions(scores, toy_run.fitted.config.localization, toy.CLASSES)
    assert activitynet_json(found) == _read(folder / "detections_test.json")
    assert list(found) == [recording.name for recording in toy.dataset(toy_run.data).test]
    assert not {"jit(forward)", "jit(localize_compiled)"} & set(compiled)


def test_all_rounds_are_the_mean_of_each(toy_run):
    """By hand, from the scores that the rounds saved."""
    of_rounds = [
        read_predictions(toy_run.workdir / f"round_{number}" / "scores_test.npz")
        for number in (0, 1)
    ]
    together = read_predictions(toy_run.workdir / "scores_test.npz")
    for name, one in together.items():
        first, second = (scores[name].original for scores in of_rounds)
        for part in ("cas", "actionness", "video_scores"):
            want = (np.float64(getattr(first, part)) + getattr(second, part)) / 2
            np.testing.assert_allclose(getattr(one.original, part), want, rtol=1e-6)
    found = localize_predictions(together, toy_run.fitted.config.localization, toy.CLASSES)
    assert activitynet_json(found) == _read(toy_run.workdir / "detections.json")


def test_every_program_is_compiled_once(toy_run):
    counts = collections.Counter(toy_run.compiled)
    assert counts["jit(run)"] == 1  # for both rounds, none inside the loop over steps
    # One for the shape of the training recordings, one for that of the test recordings.
    assert counts["jit(forward)"] == counts["jit(localize_compiled)"] == 2
    assert counts["jit(compensate)"] == 1
    # One for each round's number of proposals, whose quality is measured.
    assert 1 <= counts["jit(assign_instances)"] <= 2


def test_a_second_run_compiles_nothing_large(toy_run, tmp_path):
    with toy.compilations() as compiled:
        _fit(toy_run, tmp_path, steps=15, rounds=1)
    assert not {"jit(run)", "jit(forward)", "jit(localize_compiled)"} & set(compiled)


# --- stopping and going on ---

_TRAIN = """
import pathlib, sys
import toy
from tal_jax.runs.fit import fit
data, workdir = map(pathlib.Path, sys.argv[1:])
fit(toy.dataset(data), toy.config(data), workdir=workdir)
"""


@pytest.mark.slow
def test_killed_at_random_ends_the_same(toy_run, tmp_path):
    workdir, log = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    # There is a line every block of updates, 12 a round, and two a round for its evaluation.
    drawn = random.Random(0)
    lines, pause_s = drawn.randint(1, 25), drawn.uniform(0, 0.1)
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAIN, str(toy_run.data), str(workdir)],
        cwd=Path(toy.__file__).parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and _num_lines(log) < lines:
        time.sleep(0.002)
    time.sleep(pause_s)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    print(f"killed {pause_s:.3f} s after line {lines}")  # shown where the test fails
    assert process.returncode == -signal.SIGKILL, errors
    fitted = _fit(toy_run, workdir)
    _assert_same(fitted.params, toy_run.fitted.params)
    _assert_same(load_run(workdir).params, toy_run.fitted.params)
    assert _read(workdir / "detections.json") == _read(toy_run.workdir / "detections.json")
    before, after = _read_log(toy_run.workdir), _read_log(workdir)
    for line in before + after:
        for clock in ("steps_per_s", "eta_s"):
            line.pop(clock, None)
    assert after == before


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_true_segments_are_for_evaluation_alone(toy_run, tmp_path):
    """Wrong ones change their line in the log; without them there is none."""
    dataset = toy.dataset(toy_run.data)
    wrong = {
        name: tuple((start_s + 1, end_s + 9) for start_s, end_s in segments)
        for name, segments in dataset.train_truth.items()
    }
    proposals, lines = [], []
    for name, truth in (("none", None), ("wrong", wrong)):
        other = dataclasses.replace(dataset, train_truth=truth)
        _fit(toy_run, tmp_path / name, dataset=other, steps=15, rounds=1)
        proposals.append((tmp_path / name / "round_0" / "proposals_train.json").read_bytes())
        log = _read_log(tmp_path / name)
        lines.append([line for line in log if line.get("event") == "pseudo_segments"])
    assert proposals[0] == proposals[1]
    assert [len(one) for one in lines] == [0, 1]
    assert fingerprint(other) == fingerprint(dataset)


def test_segments_of_some_recordings(toy_run, tmp_path):
    """They are instances from round 0 on; pseudo segments of the others are measured."""
    config = toy.config(toy_run.data)
    config.train.update(steps=15, rounds=1)
    config.data.update(supervision="mixed", segments_share=0.5)
    dataset, lines = load_dataset(config), []
    fit(dataset, config, workdir=tmp_path, report=lines.append)
    points = [point for recording in dataset.train for point in recording.points]
    known = [point for point in points if point.segment_s is not None]
    assert 0 < len(known) < len(points)
    # Every recording is there twice (`keep_original`).
    assert any(f", {2 * len(known)} known instances" in line for line in lines)
    assert not any("pseudo instances" in line for line in lines)
    log = _read_log(tmp_path)
    (quality,) = (line for line in log if line.get("event") == "pseudo_segments")
    assert quality["total"]["instances"] == len(points) - len(known)
    assert all(line["loss_ins"] > 0 for line in log if "step" in line)
    without = [line for line in _read_log(toy_run.workdir) if line["round"] == 0]
    assert all(line["loss_ins"] == 0 for line in without if "step" in line)
    saved = _read(tmp_path / "train_points.json")["database"]
    segments = [one.get("segment") for each in saved.values() for one in each["annotations"]]
    assert [one for one in segments if one] == [list(point.segment_s) for point in known]


def test_a_log_without_the_quality_gets_it_once(toy_run, tmp_path):
    """As where a run was killed between its proposals and that line."""
    workdir = _copy(toy_run, tmp_path)
    log = workdir / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if "pseudo_segments" not in line))
    for _ in range(2):
        _fit(toy_run, workdir)
        assert sorted(log.read_text().splitlines(keepends=True)) == sorted(lines)


def test_held_out_recordings_keep_no_truth(toy_run):
    config = toy.config(toy_run.data)
    config.train.holdout = 2
    kept, held_out = hold_out(toy.dataset(toy_run.data), config)
    assert list(kept.train_truth) == [recording.name for recording in kept.train]
    assert not {recording.name for recording in held_out} & kept.train_truth.keys()


def test_finished_run_is_left_alone(toy_run, tmp_path):
    workdir = _copy(toy_run, tmp_path)
    proposals = (workdir / "round_1" / "proposals_train.json").stat().st_mtime_ns
    fitted = _fit(toy_run, workdir)
    _assert_same(fitted.params, toy_run.fitted.params)
    assert (workdir / "round_1" / "proposals_train.json").stat().st_mtime_ns == proposals
    assert _num_lines(workdir / "metrics.jsonl") == _num_lines(toy_run.workdir / "metrics.jsonl")


def test_other_config_or_data_is_refused(toy_run, tmp_path):
    with pytest.raises(ValueError, match="train.steps = 60, not 30"):
        _fit(toy_run, toy_run.workdir, steps=30)
    dataset = toy.dataset(toy.write(tmp_path / "data", num_test=2))
    with pytest.raises(ValueError, match="other data: left out of test: 1 recording"):
        _fit(toy_run, toy_run.workdir, dataset=dataset)


def test_loss_that_is_not_finite(toy_run, tmp_path, monkeypatch):
    """Stops with a message, and the run goes on from the last good state."""
    good = toy.dataset(toy_run.data)

    def stop(line):
        if "update    40/60" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(toy_run, tmp_path, dataset=good, report=stop)
    huge = tuple(
        dataclasses.replace(one, features=np.full_like(one.features, 1e38)) for one in good.train
    )
    # Other data would be refused.
    with monkeypatch.context() as patch:
        patch.setattr(work, "changes_of_data", lambda workdir, dataset: [])
        with pytest.raises(ValueError, match=r"round 0: the loss became (nan|inf)") as caught:
            _fit(toy_run, tmp_path, dataset=dataclasses.replace(good, train=huge))
    assert "\n" not in str(caught.value)
    folder = tmp_path / "round_0" / "checkpoints"
    assert [path.name for path in folder.iterdir() if path.name.isdigit()] == ["30"]
    _assert_same(_fit(toy_run, tmp_path, dataset=good).params, toy_run.fitted.params)


def test_corrupted_checkpoint(toy_run, tmp_path):
    workdir = _copy(toy_run, tmp_path)
    for path in (workdir / "round_1" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # Predicting needs the parameters alone.
    _assert_same(load_run(workdir).params, toy_run.fitted.params)
    (workdir / "round_1" / "params.npz").unlink()
    for run in (lambda: load_run(workdir), lambda: _fit(toy_run, workdir)):
        with pytest.raises(ValueError, match="cannot restore this checkpoint") as caught:
            run()
        assert "\n" not in str(caught.value) and "round_1/checkpoints" in str(caught.value)


def test_a_run_of_an_older_version_without_files_of_parameters(toy_run, tmp_path):
    workdir = _copy(toy_run, tmp_path)
    for path in workdir.glob("round_*/params.npz"):
        path.unlink()
    _assert_same(load_run(workdir).params, toy_run.fitted.params)
    _fit(toy_run, workdir)  # adds them, without training
    assert len(list(workdir.glob("round_*/params.npz"))) == 2
    _assert_same(load_run(workdir).params, toy_run.fitted.params)


def test_no_finished_round(toy_run, tmp_path):
    workdir = _copy(toy_run, tmp_path)
    _forget_last_round(workdir)
    assert load_run(workdir).classes == toy.CLASSES  # that of round 0
    shutil.rmtree(workdir / "round_0")
    with pytest.raises(ValueError, match="no round is finished"):
        load_run(workdir)


# --- rounds ---


def test_proposals_may_be_edited(toy_run, tmp_path):
    """The file is the only way from one round to the next; nothing in it may break the run."""
    workdir = _copy(toy_run, tmp_path)
    _forget_last_round(workdir)
    path = workdir / "round_0" / "proposals_train.json"
    proposals = _read(path)
    name, entries = next(iter(proposals["results"].items()))
    entries.append(dict(entries[0], segment=[entries[0]["segment"][0]] * 2))  # of zero length
    proposals["results"]["train_1"] = []
    path.write_text(json.dumps(proposals))
    _fit(toy_run, workdir)
    _forget_last_round(workdir)
    for wrong, message in (
        (dict(entries[0], label="jump"), f"proposals of {name!r}: unknown class 'jump'"),
        (dict(entries[0], segment=[3.0, 2.0]), "an end that is not before the start"),
        (dict(entries[0], score=None), "expected a finite number"),
    ):
        proposals["results"][name] = [wrong]
        path.write_text(json.dumps(proposals))
        with pytest.raises(ValueError, match=message):
            _fit(toy_run, workdir)


def test_rounds_without_what_they_came_from_are_refused(toy_run, tmp_path):
    workdir = _copy(toy_run, tmp_path)
    (workdir / "round_0" / "proposals_train.json").unlink()
    with pytest.raises(ValueError, match="round_1 is there, but round 0 has no proposals_train"):
        _fit(toy_run, workdir)
    shutil.rmtree(workdir / "round_1")
    _assert_same(_fit(toy_run, workdir).params, toy_run.fitted.params)


@pytest.mark.parametrize("keep_original", [False, True])
@pytest.mark.parametrize("compensate", [False, True])
def test_pack_training(toy_run, compensate, keep_original):
    dataset, config = toy.dataset(toy_run.data), toy.config(toy_run.data)
    config.sampling.update(compensate=compensate, keep_original=keep_original)
    proposals = _read(toy_run.workdir / "round_0" / "proposals_train.json")["results"]
    first = prepare_round(dataset, check_config(config), None).timeline
    later = prepare_round(dataset, check_config(config), proposals).timeline
    # The same shapes in all rounds, so one program.
    assert jax.tree.map(np.shape, first) == jax.tree.map(np.shape, later)
    lengths = [len(recording.features) for recording in dataset.train]
    assert first.counts.tolist() == lengths * (2 if keep_original else 1)
    counts = later.counts.tolist()
    assert all(a >= b for a, b in zip(counts, lengths, strict=False))
    assert (counts[: len(lengths)] != lengths) == compensate
    assert not keep_original or counts[len(lengths) :] == lengths
    assert not np.asarray(first.instances).any() and np.asarray(later.instances).any()


@pytest.mark.parametrize("warm_start", [False, True])
def test_warm_start(toy_run, tmp_path, monkeypatch, warm_start):
    given = []
    train_round = loop.train_round

    def spy(model, members, **kwargs):
        given.append(jax.tree.map(np.array, members[0].params))
        states = train_round(model, members, **kwargs)
        given.append(jax.tree.map(np.array, states[0].params))
        return states

    monkeypatch.setattr(loop, "train_round", spy)
    _fit(toy_run, tmp_path, warm_start=warm_start, steps=15)
    assert given[0] is None
    if warm_start:
        _assert_same(given[2], given[1])
    else:
        assert given[2] is None


def test_holdout_and_patience(toy_run, tmp_path, monkeypatch):
    """The best state, not the last one, is returned, and the round ends early, resumed or not."""
    dataset = toy.dataset(toy_run.data)
    names = ["held_0", "held_1", "held_2"]
    held = [dataclasses.replace(dataset.train[0], name=name) for name in names]
    dataset = dataclasses.replace(dataset, train=(*dataset.train, *held))
    seen, values = [], iter([0.5, 0.7, 0.6, 0.9])

    def criterion(results, recordings, classes):
        seen.append([recording.name for recording in recordings])
        assert list(results) == names
        return next(values)

    monkeypatch.setattr(fit_module, "point_criterion", criterion)
    settings = dict(dataset=dataset, rounds=1, holdout=3, patience=1)

    def stop(line):
        if "update    40/60" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(toy_run, tmp_path, report=stop, **settings)
    lines = []
    fitted = _fit(toy_run, tmp_path, report=lines.append, **settings)
    assert seen == [names] * 3 and any("stopped early" in line for line in lines)
    steps = {path.name for path in (tmp_path / "round_0" / "checkpoints").iterdir()}
    assert {"30", "45"} <= steps and "15" not in steps  # the best and the latest
    _assert_same(load_run(tmp_path).params, fitted.params)
    _assert_same(_fit(toy_run, tmp_path, **settings).params, fitted.params)  # and stays stopped
    proposals = _read(tmp_path / "round_0" / "proposals_train.json")["results"]
    assert not set(names) & set(proposals)
    with pytest.raises(ValueError, match="train.holdout=9"):
        _fit(toy_run, tmp_path / "other", dataset=dataset, holdout=9)


def _held_out_refused(workdir, dataset, message, **settings):
    config = toy.config()
    config.train.update(settings)
    with pytest.raises(ValueError, match=message) as caught:
        fit(dataset, config, workdir=workdir)
    assert "\n" not in str(caught.value)
    assert not workdir.exists() or not any(workdir.iterdir())


def test_what_cannot_be_held_out_is_refused_before_anything_is_written(tmp_path):
    dataset = toy.dataset(toy.write(tmp_path / "data", num_train=3, num_test=1))
    first, *_, last = dataset.train
    bare = [dataclasses.replace(one, points=(), labels=None) for one in (first, last)]
    workdir = tmp_path / "run"
    _held_out_refused(workdir, dataset, "train.holdout=3; expected fewer than the 3", holdout=3)
    without = dataclasses.replace(dataset, train=(first, bare[1]), train_truth=None)
    message = "train.patience=2: the recordings that train.holdout=1 .* no points to stop by"
    _held_out_refused(workdir, without, message, holdout=1, patience=2)
    without = dataclasses.replace(dataset, train=(bare[0], last), train_truth=None)
    message = "train.holdout=1: the recordings that are left have no points to learn from"
    _held_out_refused(workdir, without, message, holdout=1)


def test_point_criterion_by_hand():
    grid = Grid(fps=1, stride_frames=1, window_frames=1)
    points = (Point(2.0, 0), Point(5.0, 1), Point(8.0, 0))
    recording = Recording("r", np.zeros((10, 1), np.float32), grid, 10.0, points)
    found = [
        {"label": "a", "segment": [1.0, 3.0], "score": 0.5},
        {"label": "a", "segment": [1.0, 4.0], "score": 0.7},
        {"label": "a", "segment": [0.0, 9.0], "score": 0.9},  # holds every point
        {"label": "a", "segment": [4.0, 6.0], "score": 0.8},  # of another class than its point
        {"label": "b", "segment": [5.0, 8.0], "score": 0.2},  # half-open
    ]
    value = point_criterion({"r": found}, [recording], ("a", "b"))
    assert value == pytest.approx((0.7 + 0.2 + 0.0) / 3)
    assert point_criterion({}, [], ("a",)) == 0


# --- prediction ---


@pytest.mark.slow
def test_test_compensation(toy_run, tmp_path):
    config = toy.config(toy_run.data)
    config.sampling.test_compensation = True
    fitted = dataclasses.replace(toy_run.fitted, config=check_config(config))
    dataset = toy.dataset(toy_run.data)
    found, scores = predict_round(fitted, 1, dataset.test)
    plain = [predict_round(toy_run.fitted, number, dataset.test)[0] for number in (0, 1)]
    assert found != plain[1]
    # Round 0 met no compensated timelines.
    assert predict_round(fitted, 0, dataset.test)[0] == plain[0]
    metrics = evaluate(found, dataset.ground_truth, fitted.config)
    assert metrics.map[4] > 0.9
    for recording in dataset.test:
        assert all(entry["segment"][1] <= recording.duration_s for entry in found[recording.name])
    # The scores of the lengthened timeline are saved, too, and lead back exactly.
    write_predictions(tmp_path / "scores.npz", scores)
    saved = read_predictions(tmp_path / "scores.npz")
    assert all(len(one.last.cas) > len(one.original.cas) for one in saved.values())
    assert localize_predictions(saved, fitted.config.localization, fitted.classes) == found


def test_points_of_test_recordings_are_not_read(toy_run):
    test = toy.dataset(toy_run.data).test
    told = [dataclasses.replace(one, points=(Point(1.0, 0), Point(9.0, 1))) for one in test]
    assert predict(toy_run.fitted, told) == predict(toy_run.fitted, test)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 20_000])
def test_shortest_and_longest_recording(toy_run, length):
    features = np.zeros((length, toy.DIM), np.float32)
    features[length // 2 : length // 2 + 10, :4] += 1
    recording = Recording("r", features, toy.GRID, toy.GRID.to_seconds(float(length)))
    found = predict(toy_run.fitted, [recording])["r"]
    best = found[0]
    assert best["label"] == "bump"
    want = toy.GRID.to_seconds(np.array([length // 2, min(length // 2 + 10, length)]))
    np.testing.assert_allclose(best["segment"], want, atol=1.0)


def test_bad_features_are_refused(toy_run):
    grid = toy.GRID
    good = np.zeros((4, toy.DIM), np.float32)
    nan = good.copy()
    nan[2, 3] = np.nan
    for features, message in (
        (nan, "feature 3 of snippet 2 is nan"),
        (good[:, :5], "D = 5, expected 8"),
        (good[:0], "features are empty"),
    ):
        duration_s = grid.to_seconds(float(len(features)))
        with pytest.raises(ValueError, match=message):
            predict(toy_run.fitted, [Recording("r", features, grid, duration_s)])


@pytest.mark.slow
def test_odd_recordings_train(toy_run, tmp_path):
    """One snippet, more points than snippets, no point at all; the shapes are the toy problem's."""
    rng = np.random.default_rng(0)

    def recording(name, length, points=()):
        features = rng.normal(size=(length, toy.DIM)).astype(np.float32)
        duration_s = toy.GRID.to_seconds(float(length))
        return Recording(name, features, toy.GRID, duration_s, tuple(points))

    most = max(len(one.points) for one in toy.dataset(toy_run.data).train)
    train = (
        recording("one", 1, [Point(0.1, 0)]),
        recording("crowded", 3, [Point(1.5 * i / most, i % 2) for i in range(most)]),
        recording("silent", 20),
        recording("single", 230, [Point(10.0, 1)]),
        recording("twice", 100, [Point(10.0, 1), Point(10.0, 1)]),
        recording("at the end", 100, [Point(49.9, 0)]),
    )
    dataset = Dataset(toy.CLASSES, train, (), {"version": "", "database": {}})
    lines = []
    fitted = _fit(
        toy_run,
        tmp_path,
        dataset=dataset,
        report=lines.append,
        steps=10,
        checkpoint_every=10,
        length=224,
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
    assert any("2 timelines exceed train.length=224" in line for line in lines)
    proposals = _read(tmp_path / "round_1" / "proposals_train.json")["results"]
    assert list(proposals) == [one.name for one in train] and proposals["silent"] == []


@pytest.mark.slow
def test_windows_are_the_same_streamed_and_after_a_stop(toy_run, tmp_path):
    """Which windows are read follows from the step alone: bitwise the same network."""
    settings = dict(length=96, steps=30, checkpoint_every=15, rounds=1)
    whole = _fit(toy_run, tmp_path / "whole", **settings).params
    streamed = _fit(toy_run, tmp_path / "streamed", features="streamed", **settings).params
    _assert_same(streamed, whole)

    def stop(line):
        if "update    25/30" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(toy_run, tmp_path / "stopped", report=stop, **settings)
    _assert_same(_fit(toy_run, tmp_path / "stopped", **settings).params, whole)


def test_ambiguous_segments_are_dropped_where_that_is_asked_for():
    segment = {"label": "bump", "segment": [1.0, 2.0]}
    truth = {
        "database": {"a": {"subset": "test", "annotations": [segment]}},
        "ambiguous": {"a": [[5.0, 6.0]]},
    }
    wrong = {"label": "bump", "score": 0.9, "segment": [5.5, 7.0]}
    found = {"a": [wrong, segment | {"score": 0.5}]}
    config = toy.config()
    assert evaluate(found, truth, config).average_map == 0.5
    config.evaluation.drop_ambiguous = True
    assert evaluate(found, truth, config).average_map == 1.0
