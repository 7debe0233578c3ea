"""The simulated person: its answers, and a short session on the toy problem."""

import csv
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simulated_person
import toy

from tal_jax.data.recordings import Point, Recording, check_recording
from tal_jax.inference.suggestions import Place

ACTIONS = [(0, (2.0, 6.0)), (1, (10.0, 14.0))]


def _recording(**labels):
    features = np.zeros((40, 2), np.float32)
    return Recording("r", features, toy.GRID, 20.0, done_s=(), **labels)


def _answer(recording, time_s, segment_s=None, label=None):
    place = Place("r", time_s, segment_s, label, "far", 1.0)
    kind, found = simulated_person.answer(place, recording, ACTIONS, toy.CLASSES)
    check_recording(found, num_classes=2)
    return kind, found


@pytest.mark.parametrize(
    ("segment_s", "label", "kind", "point"),
    [
        (None, None, "click", Point(11.0, 1)),
        ((9.5, 13.5), "dip", "confirm", Point(11.5, 1, (9.5, 13.5))),
        ((9.0, 13.0), "dip", "nudge", Point(12.0, 1, (10.0, 14.0))),
        ((10.5, 11.5), "dip", "nudge", Point(12.0, 1, (10.0, 14.0))),
        ((10.0, 12.0), "bump", "click", Point(11.0, 1)),  # of another class
    ],
)
def test_what_is_answered(segment_s, label, kind, point):
    found = _answer(_recording(), 11.0, segment_s, label)
    assert found[0] == kind and found[1].points == (point,)


def test_a_stretch_is_done_or_something_is_missing():
    place = Place("r", 8.0, (4.0, 12.0), None, "complete", 1.0)

    def answer(*points):
        recording = _recording(points=points)
        kind, found = simulated_person.answer(place, recording, ACTIONS, toy.CLASSES)
        check_recording(found, num_classes=2)
        return kind, found

    # Both actions reach into it; another class at the same time is no label of theirs.
    kind, found = answer(Point(3.0, 1))
    assert kind == "click" and len(found.points) == 2 and found.done_s == ()
    assert found.points[1].label == 0 and 4.0 <= found.points[1].time_s < 6.0
    kind, found = answer(Point(3.0, 0))
    assert kind == "click" and found.points[1].label == 1 and 10.0 <= found.points[1].time_s < 12.0
    # A label outside of the stretch is one, too.
    kind, found = answer(Point(3.0, 0), Point(13.0, 1))
    assert kind == "done" and found.done_s == ((4.0, 12.0),) and len(found.points) == 2


def test_where_there_is_nothing():
    kind, found = _answer(_recording(background_s=(1.0,)), 8.0, (7.0, 9.0), "bump")
    assert kind == "background" and found.background_s == (1.0, 8.0) and not found.points


def test_a_segment_replaces_what_it_holds():
    """The point of the same action, and a background point that a sloppy confirmation covers."""
    recording = _recording(points=(Point(3.0, 0), Point(13.8, 1)), background_s=(9.6,))
    kind, found = _answer(recording, 11.0, (9.5, 13.5), "dip")
    assert kind == "confirm" and found.background_s == ()
    assert found.points == (Point(3.0, 0), Point(11.5, 1, (9.5, 13.5)), Point(13.8, 1))
    kind, found = _answer(recording, 13.0, (12.8, 13.2), "dip")
    assert kind == "nudge"
    assert found.points == (Point(3.0, 0), Point(12.0, 1, (10.0, 14.0)))


def test_the_table_names_when_it_is_enough():
    rows = [{"order": "all", "seed": 0, "answers": 40, "average_map": 0.8}]
    for order, scores in (("suggested", (0.5, 0.77)), ("random", (0.3, 0.4))):
        rows += [
            {"order": order, "seed": 0, "answers": 10 * (index + 1), "average_map": score}
            for index, score in enumerate(scores)
        ]
    text = simulated_person.format_table(rows)
    assert "| 20 | - | 77.0 ± 0.0 (1) | 40.0 ± 0.0 (1) |" in text
    assert "of all 40 clicks, suggested: 20 answers, 50%" in text
    assert "random: not reached" in text


@pytest.mark.slow
def test_a_short_session(toy_run, tmp_path):
    config = tmp_path / "toy_config.py"
    config.write_text(
        f"import toy\n\ndef get_config():\n    return toy.config({str(toy_run.data)!r})\n"
    )
    script = Path(simulated_person.__file__)
    options = ["--seeds", "0", "--answers", "24", "--every", "12", "--set", "train.rounds=1"]
    options += ["--set", "train.steps=20", "--workdir", str(tmp_path / "person")]
    done = subprocess.run(
        [sys.executable, str(script), "--config", str(config), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "person" / "answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # A queue may be shorter than asked for.
    assert [order for order, _ in itertools.groupby(row["order"] for row in rows)] == [
        *("all", "suggested", "random")
    ]
    for order in ("suggested", "random"):
        counts = [int(row["answers"]) for row in rows if row["order"] == order]
        assert counts == sorted(set(counts)) and counts[-1] == 24
    for row in rows:
        kinds = sum(int(row[kind]) for kind in ("confirm", "nudge", "click", "background", "done"))
        assert kinds == int(row["answers"]) and 0 <= float(row["average_map"]) <= 1
    assert "clicks, suggested" in done.stdout
    second = tmp_path / "person" / "suggested" / "seed_0" / "answers_0024"
    assert (second / "changes.json").exists() and (second / "start" / "start.json").exists()
