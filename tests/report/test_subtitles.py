"""Subtitles and tables of detections, read back as players and spreadsheets read them."""

import csv
import re

import hypothesis
import hypothesis.strategies as st
import numpy as np

from tal_jax.report.subtitles import write_csv, write_srt


def _detection(label, start_s, end_s, score):
    return {"label": label, "score": score, "segment": [start_s, end_s]}


def _read_srt(path):
    """Cues as (start_ms, end_ms, lines), by the rules of the format alone."""
    text = path.read_text(encoding="utf-8")
    cues = []
    for number, block in enumerate(filter(None, text.split("\n\n")), start=1):
        head, times, *lines = block.rstrip("\n").split("\n")
        assert head == str(number)
        match = re.fullmatch(
            r"(\d\d+):(\d\d):(\d\d),(\d{3}) --> (\d\d+):(\d\d):(\d\d),(\d{3})", times
        )
        numbers = np.array(match.groups(), int).reshape(2, 4) @ [3_600_000, 60_000, 1000, 1]
        cues.append((*numbers.tolist(), lines))
    return cues


def test_overlaps_are_split_at_the_boundaries(tmp_path):
    detections = [
        _detection("run", 2.0, 6.0, 0.9),
        _detection("jump", 1.0, 4.0, 0.7),
        _detection("run", 5.0, 7.0, 0.6),
        _detection("sit", 0.0, 9.0, 0.2),
    ]
    write_srt(tmp_path / "a.srt", detections, threshold=0.6)
    assert _read_srt(tmp_path / "a.srt") == [
        (1000, 2000, ["jump (0.70)"]),
        (2000, 4000, ["run (0.90)", "jump (0.70)"]),
        (4000, 6000, ["run (0.90)"]),  # one that overlaps itself stands there once
        (6000, 7000, ["run (0.60)"]),
    ]


def test_the_file_itself(tmp_path):
    detections = [_detection("a", 3599.9996, 360_061.0, 1.0), _detection("b", 1.0, 1.0002, 1.0)]
    write_srt(tmp_path / "new" / "a.srt", detections, threshold=0.0)
    text = (tmp_path / "new" / "a.srt").read_bytes()
    assert text == b"1\n01:00:00,000 --> 100:01:01,000\na (1.00)\n"
    write_srt(tmp_path / "b.srt", detections, threshold=2.0)
    assert (tmp_path / "b.srt").read_bytes() == b""


def test_no_label_breaks_the_format(tmp_path):
    labels = [
        "a\n\n2\n00:00:01,000 --> 00:00:02,000\nb",
        "",
        "7",
        "<b>{\\an8}走\u2028x\x00",
        "\ud800",
    ]
    detections = [_detection(label, 0.0, 1.0, 0.5) for label in labels]
    write_srt(tmp_path / "a.srt", detections, threshold=0.5)
    assert _read_srt(tmp_path / "a.srt") == [
        (
            *(0, 1000),
            [
                "a 2 00:00:01,000 → 00:00:02,000 b (0.50)",
                *("(0.50)", "7 (0.50)", "‹b›(\\an8)走 x (0.50)", "? (0.50)"),
            ],
        )
    ]


_spans = st.tuples(
    st.sampled_from("abc"), st.integers(0, 30), st.integers(1, 9), st.integers(0, 9)
).map(lambda one: _detection(one[0], one[1] / 10, (one[1] + one[2]) / 10, one[3] / 9))


@hypothesis.given(st.lists(_spans, max_size=12))
def test_each_time_shows_what_covers_it(tmp_path_factory, detections):
    path = tmp_path_factory.getbasetemp() / "property.srt"
    write_srt(path, detections, threshold=0.3)
    cues = _read_srt(path)
    assert all(a[1] <= b[0] for a, b in zip(cues, cues[1:], strict=False))
    for time_ms in range(50, 4000, 100):
        shown = [lines for start, end, lines in cues if start <= time_ms < end]
        best = {}
        for one in detections:
            start, end = one["segment"]
            if one["score"] >= 0.3 and start * 1000 <= time_ms < end * 1000:
                best[one["label"]] = max(best.get(one["label"], 0), one["score"])
        expected = sorted(f"{label} ({score:.2f})" for label, score in best.items())
        assert sorted(shown[0] if shown else []) == expected
        scores = [float(line[3:-1]) for line in (shown[0] if shown else [])]
        assert scores == sorted(scores, reverse=True)


def test_table_holds_all_and_rounds_nothing_away(tmp_path):
    score = float(np.float32(0.123456789))
    detections = [
        _detection('a, "b"\nc', 1.0000004, 12345.678901, score),
        _detection("d", 0, 1, 1e-9),
    ]
    write_csv(tmp_path / "a.csv", detections)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["label", "start_s", "end_s", "score"]
    assert rows[1][:3] == ['a, "b"\nc', "1.000000", "12345.678901"]
    assert np.float32(rows[1][3]) == np.float32(score)
    assert rows[2] == ["d", "0.000000", "1.000000", "1e-09"]
