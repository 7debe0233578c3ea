"""A run with a second stage: what it writes, prints, continues, predicts and evaluates."""

import json
import shutil

import numpy as np
import pytest
import toy

import tal_jax
from tal_jax._errors import InputError
from tal_jax.data import files, sliding_window
from tal_jax.data.detections import read_results
from tal_jax.inference import detector as inference
from tal_jax.inference.localize import localize_predictions
from tal_jax.inference.predict import predict, predict_mean
from tal_jax.inference.predict_file import predict_file
from tal_jax.report.workdir import read_workdir
from tal_jax.runs import results, tuning
from tal_jax.runs.evaluate import compare_rounds, evaluate_run, evaluate_scores
from tal_jax.runs.fit import fit
from tal_jax.runs.workdir import load_run, open_run, refuse_orphans, shown_threshold

# A training of both stages, which the tests of a process share.
pytestmark = pytest.mark.slow


def _log(run):
    return [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_log_of_a_stage_that_was_resumed(toy_run, detector_run):
    """No line is lost or doubled, and those of the rounds are as they were."""
    before, lines = _log(toy_run), _log(detector_run)
    assert lines[: len(before)] == before
    of_stage = lines[len(before) :]
    assert {line["round"] for line in of_stage} == {2}
    steps = [line["step"] for line in of_stage if "step" in line]
    assert steps == list(range(5, 61, 5))
    assert [line["event"] for line in of_stage if "event" in line] == [
        "pseudo_segments",
        "evaluation_of_all_stages",
        "evaluation_of_detector",
    ]
    assert all(line["stage"] == "detector" for line in of_stage if "step" in line)
    stopped, resumed = "detector  update    40/60", "detector  update    35/60"
    printed = "\n".join(detector_run.lines)
    assert printed.index(stopped) < printed.rindex(resumed)  # it went on from update 30


def test_a_stage_that_has_begun_keeps_its_settings(detector_run):
    """Until then it may be added to a finished run: the fixture does that."""
    assert files.read_json(detector_run.workdir / "config.json")["detector"]["width"] == 16
    dataset, config = toy.dataset(detector_run.data), toy.config(detector_run.data)
    config.stages = ("rounds", "detector")
    config.detector.update(components=8, width=32, steps=60)
    with pytest.raises(InputError, match=r"holds a run with detector.width = 16, not 32"):
        fit(dataset, config, workdir=detector_run.workdir)
    config = toy.config(detector_run.data)
    with pytest.raises(InputError, match="detector.components"):
        fit(dataset, config, workdir=detector_run.workdir)


def test_quality_of_the_pseudo_segments(detector_run):
    """Of the segments in the file, against the truth, by hand."""
    dataset = toy.dataset(detector_run.data)
    document = files.read_json(detector_run.workdir / "detector" / "pseudo_segments.json")
    ious, ratios = [], []
    for recording in dataset.train:
        entries = document["database"][recording.name]["annotations"]
        truth = dataset.train_truth[recording.name]
        for entry, (low, high) in zip(entries, truth, strict=True):
            start, end = entry["segment"]
            inner = max(min(end, high) - max(start, low), 0)
            ious.append(inner / (max(end, high) - min(start, low)))
            ratios.append((end - start) / (high - low))
    lines = [line for line in _log(detector_run) if line.get("event") == "pseudo_segments"]
    assert [line.get("stage") for line in lines] == [None, None, "detector"]
    total = lines[-1]["total"]
    assert (total["instances"], total["missing"]) == (len(ious), 0)
    assert total["mean_iou"] == pytest.approx(np.mean(ious), abs=1e-5)
    assert total["recall_70"] == pytest.approx(np.mean(np.array(ious) >= 0.7))
    assert total["length_ratio"] == pytest.approx(np.median(ratios), abs=1e-5)
    tables = [line for line in detector_run.lines if "pseudo segments of the training" in line]
    assert [line.splitlines()[0] for line in tables] == [
        "detector, pseudo segments of the training points"
    ]


def test_annotated_segments_are_no_pseudo_segments():
    """Those whose segment training uses, and those that a person wrote, are not measured."""
    entries = [{"segment": [0.0, 1.0], "source": source} for source in ("fused", "annotated")]
    document = {"database": {"a": {"annotations": [*entries, {"segment": [2.0, 3.0]}]}}}
    recording = tal_jax.Recording("a", np.zeros((4, 1), np.float32), toy.GRID, 2.0)
    dataset = tal_jax.Dataset(classes=("x",), train=(recording,), test=(), ground_truth={})
    segments, used = results.segments_of_document(dataset, document)
    assert segments.tolist() == [[0, 1], [0, 1], [2, 3]] and used.tolist() == [False, True, True]


def test_files_are_predicted_as_the_test_recordings_were(detector_run):
    """By both stages: the saved detections, and what `predict` returns."""
    dataset, network = toy.dataset(detector_run.data), open_run(detector_run.workdir)
    saved = read_results(detector_run.workdir / "detections.json")
    rounds = read_results(detector_run.workdir / "all_rounds" / "detections_test.json")
    predicted = predict(load_run(detector_run.workdir), dataset.test)
    for name in saved:
        found = predict_file(detector_run.data / f"{name}.npy", network).detections
        assert saved[name] != rounds[name]
        for other in (saved[name], predicted[name]):
            assert [one["label"] for one in found] == [one["label"] for one in other]
            np.testing.assert_allclose(
                [(*one["segment"], one["score"]) for one in found],
                [(*one["segment"], one["score"]) for one in other],
                rtol=1e-4,
                atol=1e-4,
            )


def test_the_threshold_is_on_the_scale_of_both_stages(detector_run):
    """It leaves as many fused proposals as there are points."""
    threshold = open_run(detector_run.workdir).threshold
    proposals = read_results(detector_run.workdir / "detector" / "proposals_train.json")
    points = sum(len(one.points) for one in toy.dataset(detector_run.data).train)
    scores = [one["score"] for entries in proposals.values() for one in entries]
    assert sum(score >= threshold for score in scores) == points
    options = detector_run.fitted.config.localization
    assert threshold == shown_threshold(detector_run.workdir, 1, options)


def test_a_long_recording_is_read_window_by_window(detector_run, monkeypatch):
    fitted = detector_run.fitted.detector
    # All candidates count; the best of each window would be more than the best of the recording.
    monkeypatch.setattr(inference, "_LEAST_CANDIDATES", 4096)
    recording = toy.dataset(detector_run.data).test[0]
    whole = inference.detect(fitted, [recording], soft_sigma=0.5)[recording.name]
    monkeypatch.setattr(sliding_window, "MOST_SNIPPETS", 64)
    parts = inference.detect(fitted, [recording], soft_sigma=0.5)[recording.name]
    assert len(whole) > 20
    best = [(one["label"], *one["segment"], one["score"]) for one in whole[:20]]
    other = [(one["label"], *one["segment"], one["score"]) for one in parts[:20]]
    assert [one[0] for one in best] == [one[0] for one in other]
    np.testing.assert_allclose(
        [one[1:] for one in best], [one[1:] for one in other], rtol=1e-3, atol=1e-3
    )


def test_results_of_every_stage_are_evaluated_again(detector_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(detector_run.workdir, workdir)
    folders = [workdir / name for name in ("round_0", "round_1", "all_rounds", "detector")]
    names = [folder / "evaluation.json" for folder in (*folders, workdir)]
    before = [files.read_json(name) for name in names]
    files.write_json(workdir / "detector" / "detections_test.json", {"results": {}})
    lines = []
    evaluate_run(workdir, print_line=lines.append)
    titles = ["round 0", "round 1", "all rounds", "detector", "all stages"]
    assert [line.splitlines()[0] for line in lines] == titles
    after = [files.read_json(name) for name in names]
    assert after[3]["average_map"] == 0 < before[3]["average_map"]
    assert [*after[:3], after[4]] == [*before[:3], before[4]]
    rows = [line[:10].strip() for line in compare_rounds(workdir).splitlines()]
    assert rows == ["mAP in %", *titles]


def test_saved_scores_are_those_of_the_rounds(detector_run):
    lines = []
    evaluate_scores(detector_run.workdir / "scores_test.npz", print_line=lines.append)
    assert "this is what the rounds detect alone, without the detector" in lines[-1]
    metrics = files.read_json(detector_run.workdir / "all_rounds" / "evaluation.json")
    assert f"{100 * metrics['map'][-1]:.2f}" in lines[0]


def test_tuning_is_of_the_rounds(detector_run, tmp_path, monkeypatch):
    """Its criterion is that of the rounds' mean, and it writes so."""
    dataset = toy.dataset(detector_run.data)
    workdir = tmp_path / "run"
    shutil.copytree(detector_run.workdir, workdir)
    config = files.read_json(workdir / "config.json")
    config["train"]["holdout"] = 1
    files.write_json(workdir / "config.json", config)
    given = []

    def tune(predictions, recordings, options, classes):
        given.append(localize_predictions(predictions, options, classes))
        return tuning.Tuned(options, 0.5, 0.25, ())

    monkeypatch.setattr(tuning, "tune", tune)
    lines = []
    tuning.tune_run(workdir, print_line=lines.append)
    assert files.read_json(workdir / "tuned.json")["stages"] == ["rounds"]
    assert any("those of the rounds alone; the detector of the run has no" in one for one in lines)
    (name,) = given[0]
    held_out = [one for one in dataset.train if one.name == name]
    mean = predict_mean(detector_run.fitted, held_out)
    options = detector_run.fitted.config.localization
    assert given[0] == localize_predictions(mean, options, toy.CLASSES)


def test_a_round_that_the_stage_came_from_is_missed(detector_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(detector_run.workdir, workdir)
    refuse_orphans(workdir, 1)
    (workdir / "round_1" / "proposals_train.json").unlink()
    with pytest.raises(ValueError, match="detector is there, but round 1 has no proposals_train"):
        refuse_orphans(workdir, 1)


def test_the_report_has_every_stage(detector_run):
    work = read_workdir(detector_run.workdir)
    names = ["round 0", "round 1", "all rounds", "detector", "all stages"]
    assert [one.name for one in work.rounds] == names
    assert list(work.proposals) == ["round 0", "round 1", "all stages"]
    for one, path in zip(
        work.rounds[2:],
        (
            "all_rounds/detections_test.json",
            "detector/detections_test.json",
            "detections.json",
        ),
        strict=True,
    ):
        assert one.detections == read_results(detector_run.workdir / path)
    points = sum(len(one.points) for one in toy.dataset(detector_run.data).train)
    assert sum(map(len, work.pseudo_segments.values())) == points
    assert work.rounds[3].pseudo_segments["stage"] == "detector"
    assert set(work.scores) == set(work.test)
