"""Subtitles and tables of detections, by hand."""

import csv

import pytest

from tal_jax.report import subtitles


def _one(label, start_s, end_s, score):
    return {"label": label, "score": score, "segment": [start_s, end_s]}


def _cues(path):
    return [block.split("\n") for block in path.read_text().strip().split("\n\n")]


def test_overlaps_are_cut_at_their_ends(tmp_path):
    path = tmp_path / "deep" / "a.srt"
    found = [_one("run", 2, 6, 0.9), _one("jump", 1, 3, 0.8), _one("sit", 0, 9, 0.2)]
    subtitles.write_srt(path, found, threshold=0.5)
    assert _cues(path) == [
        ["1", "00:00:01,000 --> 00:00:02,000", "jump (0.80)"],
        ["2", "00:00:02,000 --> 00:00:03,000", "run (0.90)", "jump (0.80)"],
        ["3", "00:00:03,000 --> 00:00:06,000", "run (0.90)"],
    ]


def test_a_class_that_overlaps_itself_stands_there_once(tmp_path):
    path = tmp_path / "a.srt"
    subtitles.write_srt(path, [_one("a", 0, 4, 0.9), _one("a", 1, 2, 0.7)], threshold=0)
    assert _cues(path) == [["1", "00:00:00,000 --> 00:00:04,000", "a (0.90)"]]


def test_long_recordings_and_odd_labels(tmp_path):
    path = tmp_path / "a.srt"
    odd = "a\n\n2\n00:00:00,000 --> 00:00:09,000\n<b>{x}"
    subtitles.write_srt(path, [_one(odd, 359_999.9994, 360_000.5, 1.0)], threshold=0)
    (cue,) = _cues(path)
    assert cue[1] == "99:59:59,999 --> 100:00:00,500" and len(cue) == 3
    assert "-->" not in cue[2] and "<" not in cue[2] and "{" not in cue[2]


def test_nothing_to_show(tmp_path):
    subtitles.write_srt(tmp_path / "a.srt", [_one("a", 0, 1, 0.1)], threshold=0.5)
    assert (tmp_path / "a.srt").read_text() == ""


def test_the_table_holds_all(tmp_path):
    found = [_one('a, "b"', 1 / 3, 1234.5678901, 0.123456789), _one("ä", 0, 0.0004, -0.5)]
    subtitles.write_csv(tmp_path / "a.csv", found)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "start_s", "end_s", "score"] and len(rows) == 2
    for row, one in zip(rows, found, strict=True):
        assert row["label"] == one["label"]
        assert float(row["start_s"]) == pytest.approx(one["segment"][0], abs=1e-6)
        assert float(row["end_s"]) == pytest.approx(one["segment"][1], abs=1e-6)
        assert float(row["score"]) == pytest.approx(one["score"], rel=1e-8)
