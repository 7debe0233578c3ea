"""`tal-jax events`: tables, summaries and clips of detections and labels."""

import csv
import json
from pathlib import Path

import filming
import numpy as np
import pytest
import toy

from tal_jax import cli, formats
from tal_jax.extraction import video
from tal_jax.inference.events import select_events
from tal_jax.report import event_clips
from tal_jax.runs.workdir import open_run


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _run(capsys, *arguments):
    code = cli.main(["events", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def _rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _detections(path, threshold=0.5, **results):
    content = {"version": "x", "results": results, "external_data": {}}
    content |= {} if threshold is None else {"threshold": threshold}
    Path(path).write_text(json.dumps(content))
    return path


def _one(label, start_s, end_s, score):
    return {"label": label, "score": score, "segment": [start_s, end_s]}


CLIP = [
    _one("jump", 1.0, 2.0, 0.9),
    _one("run/fast", 3.0, 3.5, 0.8),
    _one("jump", 2.3, 2.6, 0.6),
    _one("jump", 4.0, 4.2, 0.7),
    _one("jump", 0.0, 5.0, 0.1),
]


def test_tables(capsys):
    filming.film(Path("clip.mp4"), range(150))
    one = _detections("clip.detections.json", clip=CLIP)
    two = _detections("b.json", threshold=0.7, b=[_one("jump", 0.0, 1.0, 0.65)])
    command = (one, two, "--output", "out/ev.csv", "--merge-gap", 0.5)
    code, out = _run(capsys, *command, "--min-duration", "jump=0.5")
    assert code == 0, out
    assert "2 events; detections 2 below the threshold, 1 merged into others, 1 too short" in out
    assert "jump: 1 events in 1 of 2 recordings, 1.60 s in all, mean 1.60 s" in out
    assert "note: no duration of b: share and rate are empty" in out
    assert _rows("out/ev.csv") == [
        {
            **{"recording": "clip", "class": "jump", "start_s": "1.000000", "end_s": "2.600000"},
            **{"duration_s": "1.600000", "score": "0.9"},
        },
        {
            **{"recording": "clip", "class": "run/fast", "start_s": "3.000000"},
            **{"end_s": "3.500000", "duration_s": "0.500000", "score": "0.8"},
        },
    ]
    jump, fast, of_b, _ = _rows("out/ev.summary.csv")
    assert (jump["count"], jump["recording_s"]) == ("1", "6.000000")
    assert float(jump["share"]) == pytest.approx(1.6 / 6, abs=1e-6)
    assert float(fast["rate_per_min"]) == 10
    assert (of_b["count"], of_b["share"], of_b["latency_s"]) == ("0", "", "")
    # The table is one of detections, for `convert`.
    labels = formats.read_labels("out/ev.csv")
    assert labels.detections and labels.recordings["clip"].instances[0].score == 0.9
    assert labels.recordings["clip"].instances[0].segment == (1.0, 2.6)


def test_existing_files_are_kept(capsys):
    source = _detections("d.json", clip=CLIP)
    Path("ev.summary.csv").write_text("theirs")
    code, out = _run(capsys, source, "--output", "ev.csv")
    assert code == 2 and "ev.summary.csv: there already" in out and not Path("ev.csv").exists()
    assert _run(capsys, source, "--output", "ev.csv", "--overwrite")[0] == 0
    assert _run(capsys, source, "--output", "ev.csv")[0] == 0  # the same once more
    code, out = _run(capsys, source, "--output", "ev.csv", "--threshold", 0)
    assert code == 2 and "ev.csv, ev.summary.csv: there already" in out
    code, out = _run(capsys, source, "--output", "ev.json")
    assert code == 2 and "ev.json: expected a name that ends in .csv" in out


def test_labels_of_other_tools(capsys):
    Path("a.csv").write_text(
        "recording,label,start_s,end_s,point_s\nr,sit,1,2,\nr,sit,2.5,4,\nr,peck,,,3\nr,fall,,,\n"
    )
    code, out = _run(capsys, "a.csv", "--output", "ev.csv", "--merge-gap", "sit=0.5")
    assert code == 0 and "labels without a time, left out: 1" in out
    assert [(row["class"], row["start_s"], row["score"]) for row in _rows("ev.csv")] == [
        ("sit", "1.000000", ""),
        ("peck", "3.000000", ""),
    ]
    code, out = _run(capsys, "a.csv", "--output", "new.csv", "--threshold", 0.5)
    assert code == 2 and "--threshold: labels have no scores" in out
    _detections("d.json", threshold=None, clip=CLIP)
    code, out = _run(capsys, "d.json", "--output", "new.csv")
    assert code == 2 and "d.json: detections of any score" in out and "--threshold" in out
    assert not Path("new.csv").exists()


def test_detections_of_a_run(capsys, toy_run):
    source = toy_run.workdir / "detections.json"
    code, out = _run(capsys, source, "--output", "ev.csv", "--merge-gap", 0)
    assert code == 0, out
    threshold = open_run(toy_run.workdir).threshold
    results = json.loads(source.read_text())["results"]
    expected = {
        name: len(select_events(found, threshold=threshold, merge_gap_s=0).entries)
        for name, found in results.items()
    }
    rows = _rows("ev.csv")
    assert {name: sum(row["recording"] == name for row in rows) for name in results} == expected
    # Durations are those of the run's ground truth.
    truth = json.loads((toy_run.workdir / "ground_truth.json").read_text())["database"]
    for row in _rows("ev.summary.csv"):
        assert float(row["recording_s"]) == pytest.approx(truth[row["recording"]]["duration"])
    assert {row["class"] for row in rows} <= set(toy.CLASSES)


# --- clips ---


def test_clips(capsys):
    source = filming.film(Path("clip.mp4"), range(150), options={"g": "20", "bf": "2"})
    before = source.read_bytes()
    found = _detections("clip.detections.json", clip=[*CLIP, _one("jump", 1.0, 2.0, 0.6)])
    command = (found, "--output", "ev.csv", "--clips", "clips", "--padding", 0.3)
    code, out = _run(capsys, *command)
    assert code == 0, out
    rows = _rows("clips/clips.csv")
    assert [row["file"] for row in rows] == [
        "jump/clip_000001.000-000002.000.mp4",
        "jump/clip_000001.000-000002.000_2.mp4",
        "jump/clip_000002.300-000002.600.mp4",
        "run_fast/clip_000003.000-000003.500.mp4",
        "jump/clip_000004.000-000004.200.mp4",
    ]
    written = {path.relative_to("clips").as_posix() for path in Path("clips").rglob("*.*")}
    assert written == {row["file"] for row in rows} | {"clips.csv"}
    for row in rows:
        first_s, last_s = float(row["clip_start_s"]), float(row["clip_end_s"])
        assert first_s <= float(row["start_s"]) - 0.3 < float(row["end_s"]) + 0.3 <= last_s + 1e-6
        # The event is where the index says.
        times_s = np.array([float(row["start_s"]) + 0.01, float(row["end_s"]) - 0.01])
        shown, wanted = (
            [filming.number_of(one) for one in video.read_frames(path, at)]
            for path, at in ((f"clips/{row['file']}", times_s - first_s), ("clip.mp4", times_s))
        )
        assert shown == wanted
    assert source.read_bytes() == before
    code, out = _run(capsys, *command)
    assert code == 2 and "clip_000001.000-000002.000.mp4" in out and "there already" in out
    assert _run(capsys, *command, "--overwrite")[0] == 0


def test_clips_are_refused_before_any_work(capsys):
    found = _detections("d.json", clip=CLIP, other=[_one("jump", 0, 1, 0.9)])
    filming.film(Path("clip.mp4"), range(50))
    code, out = _run(capsys, found, "--output", "ev.csv", "--clips", "clips")
    assert code == 2 and "--clips: no video of other; expected --recordings" in out
    filming.film(Path("other.mp4"), range(50))
    code, out = _run(capsys, found, "--output", "ev.csv", "--clips", "clips")
    assert code == 2 and "clip: 'jump' starts at 2.3 s, after the 2 s of clip.mp4" in out
    code, out = _run(capsys, found, "--output", "ev.csv", "--clips", "clips", "--padding=-1")
    assert code == 2 and "--padding -1, expected 0 or more seconds" in out
    assert sorted(path.name for path in Path().iterdir()) == ["clip.mp4", "d.json", "other.mp4"]


def test_names_of_folders():
    labels = ["a/b", "a:b", "A_B", "..", "走 «x»"]
    assert event_clips._distinct(labels) == {
        "a/b": "a_b",
        "a:b": "a_b_2",
        "A_B": "A_B_3",
        "..": "_",
        "走 «x»": "走 _x_",
    }
