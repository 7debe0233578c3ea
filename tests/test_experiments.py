"""The scripts do what the command line does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy

# Processes that compile.
pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[1] / "experiments"


def _run(script: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )


@pytest.fixture
def config(toy_run, tmp_path):
    path = tmp_path / "toy_config.py"
    text = f"import toy\n\ndef get_config():\n    return toy.config({str(toy_run.data)!r})\n"
    path.write_text(text)
    return path


def test_train(toy_run, config, tmp_path):
    workdir = tmp_path / "run"
    settings = ["--set", "train.steps=15", "--set", "train.rounds=1"]
    done = _run("train.py", "--config", config, "--workdir", workdir, *settings)
    assert done.returncode == 0, done.stderr
    assert "checkpoint" not in done.stderr
    assert "update    15/15" in done.stdout and "mAP in %" in done.stdout
    assert (workdir / "report.html").exists()


def test_partial_labels(config, tmp_path):
    settings = ["--set", "train.steps=15", "--set", "train.rounds=1", "--seeds", "0"]
    arguments = ("--config", config, "--workdir", tmp_path / "runs", *settings)
    done = _run("partial_labels.py", *arguments)
    assert done.returncode == 0, done.stderr
    points = [int(line.split()[-2]) for line in done.stdout.splitlines() if line.startswith("==")]
    assert len(points) == 3 and points[0] > points[1] == points[2] > 0
    for row in (
        "everything labelled",
        "33% of each recording, the rest unknown",
        "rest background",
    ):
        assert row in done.stdout
    # Of finished trainings only the table is left to print.
    again = _run("partial_labels.py", *arguments)
    assert "==" not in again.stdout and done.stdout.endswith(again.stdout)


def test_supervision(config, tmp_path):
    """Clicks cost 3 seconds, segments 12; the table names the minutes."""
    settings = ["--set", "train.steps=15", "--set", "train.rounds=1", "--seeds", "0"]
    kinds = ("clicks", "clicks_as_people", "mixed_30", "segments")
    arguments = ("--config", config, "--workdir", tmp_path / "runs", *settings)
    done = _run("supervision.py", *arguments, "--kinds", ",".join(kinds))
    assert done.returncode == 0, done.stderr
    truth = [
        json.loads((tmp_path / "runs" / kind / "seed_0" / "train_points.json").read_text())
        for kind in kinds
    ]
    points = [
        [one for recording in labels["database"].values() for one in recording["annotations"]]
        for labels in truth
    ]
    segments = [sum("segment" in one for one in own) for own in points]
    assert segments[:2] == [0, 0] < segments[2:3] < segments[3:] == [len(points[3])]
    assert len(points[1]) <= len(points[0]) == len(points[2])
    for kind, own, known in zip(kinds, points, segments, strict=True):
        minutes = json.loads((tmp_path / "runs" / kind / "seed_0" / "minutes.json").read_text())
        assert minutes["minutes"] == pytest.approx((3 * (len(own) - known) + 12 * known) / 60)
    assert done.stdout.count(" min) | 1 |") == 4
    again = _run("supervision.py", *arguments, "--kinds", ",".join(kinds))
    assert "==" not in again.stdout and done.stdout.endswith(again.stdout)


def test_clicks_as_people_click(toy_run):
    """A share is missing, a share lies near its instance but outside; all else is as it was."""
    import supervision

    whole = toy.dataset(toy_run.data)
    total = missing = outside = 0
    for seed in range(40):
        clicked = supervision.as_people_click(whole, seed)
        for before, after in zip(whole.train, clicked.train, strict=True):
            total += len(before.points)
            missing += len(before.points) - len(after.points)
            for point, (start_s, end_s) in zip(
                after.points, clicked.train_truth[after.name], strict=True
            ):
                assert 0 <= point.time_s < after.duration_s
                if not start_s <= point.time_s <= end_s:
                    outside += 1
                    away_s = max(start_s - point.time_s, point.time_s - end_s)
                    assert away_s <= (end_s - start_s) / 2
                else:
                    assert point in before.points
    assert missing / total == pytest.approx(0.04, abs=0.015)
    assert outside / total == pytest.approx(0.03, abs=0.015)


def test_train_refuses_unknown_settings(config, tmp_path):
    settings = ["--set", "train.stps=15"]
    done = _run("train.py", "--config", config, "--workdir", tmp_path / "run", *settings)
    assert done.returncode != 0 and "did you mean 'train.steps'" in done.stderr


def test_evaluate(toy_run, tmp_path):
    workdir = Path(shutil.copytree(toy_run.workdir, tmp_path / "run"))
    before = json.loads((workdir / "evaluation.json").read_text())
    (workdir / "evaluation.json").unlink()
    done = _run("evaluate.py", "--workdir", workdir, "--tiou", "0.97")
    assert done.returncode == 0, done.stderr
    assert "matched" in done.stdout and "mAP in %" in done.stdout
    # So strict that instances of either length are missed.
    counts = dict(line.split() for line in done.stdout.splitlines() if line.startswith("missed_"))
    assert int(counts["missed_short"]) > 0 and int(counts["missed_long"]) > 0
    assert json.loads((workdir / "evaluation.json").read_text()) == before


@pytest.mark.slow
def test_ablate(config, tmp_path):
    """Settings that share round 0, one of which was left unfinished by an earlier call."""
    folder, names = tmp_path / "ablation", "full,no_compensation,one_round"
    arguments = ["--config", config, "--workdir", folder, "--settings", names]
    arguments += ["--set", "train.steps=15", "--seeds", "3"]
    done = _run("ablate.py", *arguments)
    assert done.returncode == 0, done.stderr
    shared = [folder / name / "seed_3" / "round_0" for name in ("full", "no_compensation")]
    first, second = ((path / "proposals_train.json").read_bytes() for path in shared)
    assert first == second
    log = (folder / "no_compensation" / "seed_3" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    # Round 0 was taken over.
    assert {line["round"] for line in lines if "loss" in line} == {1}
    table = (folder / "table.md").read_text()
    for title in ("complete", "− ① compensation", "− ④ rounds"):
        assert f"| {title} | 1 | " in table
    quality = table.splitlines()[-2].split(" | ")
    assert quality[0] == "| − ① compensation" and 0 < float(quality[1]) <= 1
    shutil.rmtree(folder / "no_compensation" / "seed_3" / "round_1")
    again = _run("ablate.py", *arguments)
    assert again.returncode == 0, again.stderr
    assert "== − ①" in again.stdout and "== complete" not in again.stdout
    assert (folder / "table.md").read_text() == table


@pytest.mark.slow
def test_ablate_varies_settings(config, tmp_path):
    """Every combination is a row, and a last call without seeds prints what is there."""
    folder = tmp_path / "sweep"
    arguments = ["--config", config, "--workdir", folder, "--set", "train.steps=15"]
    arguments += ["--set", "train.rounds=1", "--vary", "localization.video_weight=0.0|0.2"]
    arguments += ["--vary", "localization.delta=0.25"]
    done = _run("ablate.py", *arguments, "--seeds", "3")
    assert done.returncode == 0, done.stderr
    table = (folder / "table.md").read_text()
    for weight in ("0.0", "0.2"):
        name = f"localization.video_weight={weight},localization.delta=0.25"
        assert f"| {name} | 1 | " in table
        run = json.loads((folder / name / "seed_3" / "config.json").read_text())
        assert run["localization"]["video_weight"] == float(weight)
    again = _run("ablate.py", *arguments, "--seeds", "")
    assert again.returncode == 0 and "==" not in again.stdout
    assert (folder / "table.md").read_text() == table


def test_prototypes(toy_run, tmp_path):
    done = _run("prototypes.py", "--workdir", toy_run.workdir)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert {row[0] for row in rows} >= {"bump", "dip"}
    for row in rows:
        received, uniform, spread = (float(row[-5]), float(row[-3]), float(row[-1]))
        assert 0 <= received <= 100 and 0 < uniform < 100 and 1 <= spread <= 4


def test_stand_in(tmp_path):
    """Instances that begin after the end of their recording are left out, with a line."""
    instances = [{"label": "run", "segment": segment} for segment in ([1.0, 3.0], [6.4, 7.0])]
    recording = {"subset": "Validation", "duration": 6.4, "annotations": instances}
    path = tmp_path / "gt_full.json"
    path.write_text(json.dumps({"database": {"r": recording}}))
    settings = ["--layout=joined", "--out", tmp_path / "out", "--dim=4"]
    done = _run("stand_in.py", "--annotations", path, *settings)
    assert done.returncode == 0, done.stderr
    assert "r: left out 1 of 2 instances, which begin after its end at 6.4 s" in done.stdout
    assert "1 of 1 recordings" in done.stdout and "synthetic" in done.stdout
    assert np.load(tmp_path / "out/features/train/r.npy").shape == (10, 4)
    written = json.loads((tmp_path / "out/gt_full.json").read_text())
    assert written["database"]["r"]["annotations"] == instances[:1]


def test_joined(tmp_path):
    """The streams of `watch` follow one another: as many snippets, points at the shifted times."""
    from tal_jax.datasets import own_layout, watch

    done = _run("joined.py", "--output", tmp_path / "joined", "--shuffles", "1")
    assert done.returncode == 0, done.stderr
    joined = own_layout.load_folder(tmp_path / "joined")
    apart = watch.load(seed=0, shuffles=1)
    for (whole,), parts in ((joined.train, apart.train), (joined.test, apart.test)):
        starts_s = np.cumsum([0.0, *(part.duration_s for part in parts)])
        np.testing.assert_allclose(whole.duration_s, starts_s[-1])
        points = [
            (start_s + point.time_s, point.label)
            for part, start_s in zip(parts, starts_s[:-1], strict=True)
            for point in part.points
        ]
        assert [point.label for point in whole.points] == [label for _, label in points]
        np.testing.assert_allclose(
            [point.time_s for point in whole.points], [time_s for time_s, _ in points]
        )
    assert len(joined.train[0].points) > 100 and not joined.test[0].points
    assert _run("joined.py", "--output", tmp_path / "joined").returncode != 0  # it exists
