"""The report: what is in the page and the picture, and what happens when parts are missing."""

import base64
import html.parser
import itertools
import json
import struct
import sys

import browsing
import numpy as np
import pytest

from tal_jax.data.annotations import Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.files import write_json, write_npz
from tal_jax.data.predictions import (
    Predictions,
    RecordingPredictions,
    read_predictions,
    write_predictions,
)
from tal_jax.report import html as report_html
from tal_jax.report.html import write_report
from tal_jax.report.pages import fill_template
from tal_jax.report.palette import class_colours
from tal_jax.report.pictures import write_picture
from tal_jax.report.workdir import (
    Round,
    Work,
    default_threshold,
    read_workdir,
    thresholds_of,
)

CLASSES = ["jump", "run", "sit"]
HOSTILE = "</script><b>&amp; <!-- 走る\u2028 $x_1$"


def _results(recordings, *, shift=0.0, score=0.8):
    return {
        "version": "1",
        "results": {
            name: [
                {"label": "jump", "score": score, "segment": [2.0 + shift, 5.0 + shift]},
                {"label": "run", "score": 0.3, "segment": [10.0, 14.0]},
                {"label": "sit", "score": 0.1, "segment": [15.0, 16.0]},
            ]
            for name in recordings
        },
        "external_data": {},
    }


def _evaluation(average):
    return {
        "tious": [0.3, 0.5, 0.7],
        "map": [average + 0.1, average, average - 0.1],
        "average_map": average,
        "ap": [[average, average, None]] * 3,
        "classes": CLASSES,
        "num_videos": 2,
        "num_ground_truth": 4,
        "num_detections": 6,
        "short_s": 4.0,
        "short_recall": [0.5, 0.5, 0.25],
        "long_recall": [float("nan")] * 3,
        "num_short": 2,
        "num_long": 2,
        "notes": ["1 detection in a recording without ground truth"],
    }


@pytest.fixture
def workdir(tmp_path):
    """A finished run of two rounds, with two test and two training recordings."""
    truth = [{"label": "jump", "segment": [2, 5]}, {"label": "run", "segment": ["9.5", "14.5"]}]
    points = [{"label": "jump", "point": 3.0}, {"label": "sit", "point": 11.0}]
    test = {name: {"subset": "test", "duration": 20.0, "annotations": truth} for name in ("a", "b")}
    train = {
        "c": {"subset": "train", "duration": 20.0, "annotations": points},
        "d": {"subset": "train", "duration": 20.0, "annotations": points},
    }
    write_json(tmp_path / "ground_truth.json", {"version": "1", "database": test})
    write_json(tmp_path / "train_points.json", {"version": "1", "database": train})
    data = {"name": "toy", "classes": CLASSES, "train_recordings": 2, "test_recordings": 2}
    write_json(tmp_path / "run.json", {"seed": 7, "data": data, "versions": {"jax": "1.2.3"}})
    write_json(tmp_path / "config.json", {"rounds": 1})
    log = []
    for number in range(2):
        folder = tmp_path / f"round_{number}"
        found = _results("ab", shift=1.0 - number, score=0.8 + 0.1 * number)
        write_json(folder / "detections_test.json", found)
        write_json(folder / "proposals_train.json", _results("cd"))
        (folder / "evaluation.json").write_text(json.dumps(_evaluation(0.5 + 0.1 * number)))
        _write_scores(folder, "ab")
        for step in (10, 20):
            log.append({"round": number, "step": step, "loss": 3.0 / step, "loss_vid": 1.0 / step})
        log.append({"round": number, "event": "evaluation", "average_map": 0.5})
    write_json(tmp_path / "detections.json", found)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return tmp_path


def _write_scores(folder, names):
    random = np.random.default_rng(0)

    def scores():
        values = random.random((40, 3)) * [1.0, 1.0, 0.01]  # no "sit"
        said = (values, random.random(40), values.max(axis=0), np.arange(41))
        sequence = Predictions(*(one.astype(np.float32) for one in said))
        return RecordingPredictions(Grid(50, 25, 75), 20.0, sequence, sequence)

    write_predictions(folder / "scores_test.npz", {name: scores() for name in names})


class _Page(html.parser.HTMLParser):
    """Every start tag, what is still open at the end, and the text of each script."""

    _VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.scripts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self._VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data


def _read_page(path):
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"] == [
        "application/json",
        None,
    ]
    return text, json.loads(page.scripts[0])


def test_page_holds_what_the_run_left(workdir):
    path = write_report(workdir)
    assert path == workdir / "report.html"
    _, data = _read_page(path)
    assert (data["name"], data["classes"], data["card"]["seed"]) == ("toy", CLASSES, 7)
    assert [one["name"] for one in data["rounds"]] == ["round 0", "round 1"]
    assert data["rounds"][1]["evaluation"]["average_map"] == 0.6
    assert data["rounds"][1]["evaluation"]["long_recall"] == [None] * 3  # JSON has no NaN
    assert [one["name"] for one in data["test"]] == ["a", "b"]
    assert data["test"][0]["truth"] == [0, 2000, 3000, 1, 9500, 5000]
    first, last = data["test"][0]["rounds"]
    assert first[:4] == [0, 3000, 3000, 800]
    assert last == [0, 2000, 3000, 900, 1, 10000, 4000, 300, 2, 15000, 1000, 100]
    assert data["train"][1]["points"] == [0, 3000, 2, 11000]
    assert data["train"][1]["truth"] == []
    assert data["instances"] == [[2, 3.0], [2, 5.0], [0, None]]
    assert data["thresholds"] == {"test": [0.3, 0.3], "train": [0.3, 0.3]}  # four spans each
    assert [one["name"] for one in data["losses"]] == ["round 0", "round 1"]
    assert [one["stage"] for one in data["losses"]] == ["", ""] and data["proposals"] == [
        "round 0",
        "round 1",
    ]
    assert all(one["pseudo"] == [] for one in data["train"])
    assert data["losses"][0]["steps"] == [10, 20]
    assert data["losses"][0]["parts"] == {"loss": [0.3, 0.15], "loss_vid": [0.1, 0.05]}


def _add_quality(workdir):
    none = {"instances": 0, "missing": 0, "mean_iou": None, "recall_50": None, "recall_70": None}
    for number in range(2):
        total = {"instances": 7, "missing": 2, "mean_iou": 0.625 + 0.1 * number, "recall_50": 0.75}
        total |= {"recall_70": 0.5, "length_ratio": 1.875 - number}
        short = total | {"shortest_s": 0.0, "longest_s": 1.5}
        long = none | {"shortest_s": 1.5, "longest_s": None, "length_ratio": None}
        line = {"round": number, "event": "pseudo_segments", "bins": [short, long]}
        line["total"] = total | {"shortest_s": 0.0, "longest_s": None}
        with open(workdir / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def test_quality_of_pseudo_segments(workdir):
    _, data = _read_page(write_report(workdir))
    assert [one["pseudo_segments"] for one in data["rounds"]] == [None, None]
    _add_quality(workdir)
    _, data = _read_page(write_report(workdir))
    assert [one["pseudo_segments"]["total"]["mean_iou"] for one in data["rounds"]] == [0.625, 0.725]


@browsing.needs_browser
def test_quality_of_pseudo_segments_in_a_browser(workdir):
    _add_quality(workdir)
    errors = []
    with browsing.open_browser() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(write_report(workdir).as_uri())
        table = page.locator(".card", has_text="Pseudo segments of the points").locator("table")
        rows = [row.split() for row in table.locator("tr").all_inner_texts()]
    assert errors == []
    assert rows[2] == "round 0 .625 – .625 1.88 – 1.88 .750 .500 2".split()
    assert rows[3] == "round 1 .725 – .725 0.88 – 0.88 .750 .500 2".split()


def test_curves_keep_their_values(workdir):
    _, data = _read_page(write_report(workdir))
    curves = data["test"][0]["curves"]
    assert curves["stride"] == 0.5
    assert curves["classes"] == [0, 1, -1]  # "sit" is neither annotated nor ever above nothing
    values = np.frombuffer(base64.b64decode(curves["data"]), np.uint8).reshape(3, 40) / 255
    with np.load(workdir / "round_1" / "scores_test.npz") as arrays:
        np.testing.assert_allclose(values[:2].T, arrays["a/scores"][:, :2], atol=0.51 / 255)
        np.testing.assert_allclose(values[2], 1 - arrays["a/foreground"], atol=0.51 / 255)
    assert any("2 score curves" in note for note in data["notes"])


def test_scores_beyond_one_are_drawn_to_scale(workdir):
    """Logits, which some methods localize with."""
    path = workdir / "round_1" / "scores_test.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    top = max(values.max() for name, values in arrays.items() if name.endswith("/scores"))
    for name in ("a/scores", "b/scores"):
        arrays[name] = arrays[name] * np.float32(8)
    write_npz(path, arrays)
    _, data = _read_page(write_report(workdir))
    curves = data["test"][0]["curves"]
    values = np.frombuffer(base64.b64decode(curves["data"]), np.uint8).reshape(-1, 40) / 255
    want = arrays["a/scores"][:, :2].T / (8 * float(top))
    np.testing.assert_allclose(values[:2], want, atol=0.51 / 255 + 1e-3)
    assert any("drawn divided by" in note for note in data["notes"])


def test_page_needs_no_network(workdir):
    text, _ = _read_page(write_report(workdir))
    for external in ("http:", "https:", "//cdn", "@import", "url(", "src=", "fetch(", "import("):
        assert external not in text
    assert "default-src 'none'" in text
    assert "{{" not in text


def test_hostile_names_stay_text(workdir):
    for path in workdir.rglob("*.json"):
        text = path.read_text().replace('"jump"', json.dumps(HOSTILE))
        path.write_text(text.replace('"a"', json.dumps(HOSTILE)))
    for number in range(2):
        _write_scores(workdir / f"round_{number}", [HOSTILE, "b"])
    clean = _Page(write_report(_minimal(workdir / "clean")).read_text())
    path = write_report(workdir)
    text, data = _read_page(path)
    assert data["classes"][0] == HOSTILE
    assert data["test"][0]["name"] == HOSTILE
    assert len(_Page(text).tags) == len(clean.tags)
    assert text.isascii() or HOSTILE not in text
    assert write_picture(workdir, recording=HOSTILE).stat().st_size > 10_000


def _minimal(folder):
    write_json(folder / "detections.json", _results(["walk"]))
    return folder


@pytest.mark.parametrize(
    "missing",
    [
        ["metrics.jsonl"],
        ["round_1/scores_test.npz", "round_0/scores_test.npz"],
        ["run.json", "config.json"],
        ["ground_truth.json"],
        ["train_points.json", "round_0/proposals_train.json", "round_1/proposals_train.json"],
        ["round_0/evaluation.json", "round_1/evaluation.json"],
    ],
)
def test_missing_parts_are_left_out(workdir, missing):
    for name in missing:
        (workdir / name).unlink()
    _, data = _read_page(write_report(workdir))
    assert len(data["rounds"]) == 2
    assert sorted(data["classes"]) == CLASSES
    assert len(data["test"]) == 2
    assert write_picture(workdir, path=workdir / "other.png").read_bytes()[:4] == b"\x89PNG"


def test_detections_alone(tmp_path):
    _, data = _read_page(write_report(_minimal(tmp_path)))
    assert data["name"] == tmp_path.name
    assert [one["name"] for one in data["rounds"]] == ["detections"]
    assert data["test"][0]["duration"] == 16.0  # the last end
    assert data["classes"] == CLASSES
    assert data["thresholds"]["test"] == [0.4]
    assert write_picture(tmp_path).exists()


def test_all_rounds_stand_behind_the_last(toy_run):
    """With their detections and scores, and without proposals, of which they make none."""
    work = read_workdir(toy_run.workdir)
    assert [one.name for one in work.rounds] == ["round 0", "round 1", "all rounds"]
    last = work.rounds[-1]
    assert list(work.proposals) == ["round 0", "round 1"] and all(work.proposals.values())
    want = json.loads((toy_run.workdir / "detections.json").read_text())["results"]
    assert {name: len(spans) for name, spans in last.detections.items()} == {
        name: len(entries) for name, entries in want.items()
    }
    assert last.evaluation == json.loads((toy_run.workdir / "evaluation.json").read_text())
    together = read_predictions(toy_run.workdir / "scores_test.npz")
    assert set(work.scores) == set(together)
    for name, one in work.scores.items():
        np.testing.assert_array_equal(one.original.cas, together[name].original.cas)
    data = report_html._report_data(work)
    assert [one["name"] for one in data["rounds"]] == ["round 0", "round 1", "all rounds"]
    assert {len(one["rounds"]) for one in data["test"]} == {3}
    assert {len(one["rounds"]) for one in data["train"]} == {2}


def _add_detector(workdir):
    """What a second stage adds to the run of two rounds."""
    for name, score, average in (("all_rounds", 0.9, 0.6), ("detector", 0.3, 0.65)):
        write_json(workdir / name / "detections_test.json", _results("ab", score=score))
        (workdir / name / "evaluation.json").write_text(json.dumps(_evaluation(average)))
    write_json(workdir / "detections.json", _results("ab", score=0.7))
    (workdir / "evaluation.json").write_text(json.dumps(_evaluation(0.75)))
    _write_scores(workdir, "ab")
    write_json(workdir / "detector" / "proposals_train.json", _results("cd", score=0.6))
    annotations = [
        {"label": "jump", "segment": [2.5, 4.0], "point": 3.0, "source": "fused"},
        {"label": "sit", "segment": [10.0, 12.0], "point": 11.0, "source": "median"},
    ]
    database = {name: {"annotations": annotations} for name in "cd"}
    write_json(workdir / "detector" / "pseudo_segments.json", {"database": database})
    total = {"shortest_s": 0.0, "longest_s": None, "instances": 4, "missing": 0, "mean_iou": 0.875}
    total |= {"recall_50": 1.0, "recall_70": 0.75, "length_ratio": 1.25}
    place = {"round": 2, "stage": "detector"}
    lines = [place | {"step": step, "loss": 8.0 / step, "loss_ends": 4.0 / step} for step in (4, 8)]
    lines.append(place | {"event": "pseudo_segments", "bins": [total], "total": total})
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


STAGES = ["round 0", "round 1", "all rounds", "detector", "all stages"]


def test_stages_follow_the_rounds(workdir):
    _add_detector(workdir)
    _, data = _read_page(write_report(workdir))
    assert [one["name"] for one in data["rounds"]] == STAGES
    averages = [one["evaluation"]["average_map"] for one in data["rounds"]]
    assert averages == [0.5, 0.6, 0.6, 0.65, 0.75]
    best = [spans[3] for spans in data["test"][0]["rounds"]]  # score of the first
    assert best == [800, 900, 900, 300, 700]
    # What keeps four detections: the second of each recording, on the scale of each stage.
    assert data["thresholds"]["test"] == [0.3, 0.3, 0.3, 0.3, 0.3]
    assert data["proposals"] == ["round 0", "round 1", "all stages"]
    assert [spans[3] for spans in data["train"][0]["rounds"]] == [800, 800, 600]
    assert data["train"][0]["pseudo"] == [0, 2500, 1500, 1, 2, 10000, 2000, 2]
    quality = [one["pseudo_segments"] for one in data["rounds"]]
    assert quality[:3] == [None] * 3 and quality[4] is None
    assert quality[3]["total"]["mean_iou"] == 0.875
    assert [(one["name"], one["stage"]) for one in data["losses"]] == [
        ("round 0", ""),
        ("round 1", ""),
        ("detector", "detector"),
    ]
    assert data["losses"][2]["steps"] == [4, 8]
    assert data["losses"][2]["parts"] == {"loss": [2.0, 1.0], "loss_ends": [1.0, 0.5]}
    # The curves are those of the rounds' mean.
    assert data["test"][0]["curves"]["stride"] == 0.5
    assert write_picture(workdir).exists()


def test_a_stage_that_has_not_ended(workdir):
    """The result is still that of the rounds; what the stage learns from is shown."""
    _add_detector(workdir)
    _write_scores(workdir, "ab")
    for name in ("evaluation.json", "detections_test.json", "proposals_train.json"):
        (workdir / "detector" / name).unlink()
    _, data = _read_page(write_report(workdir))
    assert [one["name"] for one in data["rounds"]] == STAGES[:3]
    assert data["proposals"] == STAGES[:2]
    assert len(data["train"][0]["pseudo"]) == 8


def test_scores_of_stages_have_thresholds_of_their_own():
    found = {
        name: {"a": [{"score": score}]} for name, score in zip(STAGES, (9, 8, 7, 1, 4), strict=True)
    }
    assert thresholds_of(found, 1) == [7, 7, 7, 1, 4]
    assert thresholds_of(dict(list(found.items())[:2]), 1) == [8, 8]
    assert thresholds_of({}, 1) == []


def test_broken_pseudo_segments_are_one_clear_line(workdir):
    _add_detector(workdir)
    path = workdir / "detector" / "pseudo_segments.json"
    text = path.read_text()
    # An entry that a person wrote has no source.
    path.write_text(text.replace('"source": "median"', '"note": "seen"'))
    _, data = _read_page(write_report(workdir))
    assert data["train"][0]["pseudo"][3::4] == [1, 0]
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"pseudo_segments.json: expected annotations"):
        write_report(workdir)


@browsing.needs_browser
def test_stages_in_a_browser(workdir):
    _add_detector(workdir)
    errors = []
    with browsing.open_browser() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(write_report(workdir).as_uri())
        lanes = "explorers[{}].timelines[{}].lanes.map((lane) => lane.label)"
        browsing.until(
            page, lambda: page.evaluate("explorers.every((one) => one.timelines[0].lanes.length)")
        )
        of_test, of_train = (page.evaluate(lanes.format(*one)) for one in ((0, 1), (1, 0)))
        headline = page.locator(".headline b").inner_text()
        headings = page.locator("h3").all_inner_texts()
        # Of the detector's lane, whose scores are lower, as many are shown.
        notes = page.evaluate("explorers[0].timelines[1].lanes.map((lane) => lane.note)")
    assert errors == []
    assert of_test == ["ground truth", *STAGES]
    assert of_train == ["points", *STAGES[:2], "pseudo segments", "all stages"]
    assert headline == ".750"
    assert any(one.startswith("Class by class, all stages") for one in headings)
    assert "detector" in headings and "L_ends" in headings
    assert notes[0] == "2 instances" and notes[4] == notes[5] == "2 of 2 found, 0 extra"


def test_nothing_detected(tmp_path):
    write_json(tmp_path / "detections.json", {"results": {"quiet": []}})
    _, data = _read_page(write_report(tmp_path))
    assert data["test"][0]["rounds"] == [[]]
    assert write_picture(tmp_path).exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("run.json", "{}", "nothing to show"),
        ("detections.json", "{", "detections.json"),
        ("detections.json", "[]", "expected an object"),
        (
            "detections.json",
            '{"results": {"a": [{"label": "x", "score": 1}]}}',
            "a: .0.: missing key 'segment'",
        ),
        (
            "detections.json",
            '{"results": {"a": [{"label": "x", "score": NaN, "segment": [0, 1]}]}}',
            "score is nan, expected a finite number",
        ),
        ("detections.json", '{"results": {"a": 3}}', "a: got 3, expected a list"),
        ("ground_truth.json", '{"database": {"a": {"annotations": [3]}}}', "ground_truth.json"),
        ("ground_truth.json", '{"database": 3}', "ground_truth.json"),
        ("metrics.jsonl", '{"round": 0, "st', "nothing to show"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=says) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no page


def test_missing_folder_and_broken_scores(workdir):
    with pytest.raises(ValueError, match="'nowhere' does not exist"):
        write_report("nowhere")
    (workdir / "round_1" / "scores_test.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match=r"scores_test\.npz"):
        write_report(workdir)


def test_scores_of_other_classes_are_noted(workdir):
    card = json.loads((workdir / "run.json").read_text())
    card["data"]["classes"] = [*CLASSES, "fall"]
    write_json(workdir / "run.json", card)
    _, data = _read_page(write_report(workdir))
    assert data["test"][0]["curves"] is None
    assert any("[40, 3]" in note and "[T, 4]" in note for note in data["notes"])


def test_log_of_a_resumed_run(workdir):
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('{"round": 1, "step": 20, "loss": 0.25}\n{"round": 1, "st')
    _, data = _read_page(write_report(workdir))
    assert data["losses"][1]["steps"] == [10, 20]
    assert data["losses"][1]["parts"]["loss"] == [0.3, 0.25]  # the second account counts
    assert data["losses"][1]["parts"]["loss_vid"] == [0.1, None]
    assert "unreadable lines of metrics.jsonl: 1" in data["notes"]


def test_what_is_left_out_is_said(workdir, monkeypatch):
    monkeypatch.setattr(report_html, "_MOST_SPANS_OF_A_RECORDING", 2)
    monkeypatch.setattr(report_html, "_MOST_RECORDINGS", 1)
    monkeypatch.setattr(report_html, "_MOST_CURVE_BYTES", 50)
    monkeypatch.setattr(report_html, "_MOST_LOSS_STEPS", 1)
    _, data = _read_page(write_report(workdir))
    assert [one["name"] for one in data["test"]] == ["a"]
    assert data["test"][0]["rounds"][1] == [0, 2000, 3000, 900, 1, 10000, 4000, 300]
    curves = data["test"][0]["curves"]
    assert curves["stride"] == 0.5 * 3  # 40 x 3 bytes in at most 50
    assert len(base64.b64decode(curves["data"])) == 3 * 14
    with np.load(workdir / "round_1" / "scores_test.npz") as arrays:
        highest = round(255 * float(arrays["a/scores"][:3, 0].max()))
    assert base64.b64decode(curves["data"])[0] == highest
    assert data["losses"][0]["steps"] == [15]
    assert data["losses"][0]["parts"]["loss"] == [pytest.approx(0.225)]
    notes = " ".join(data["notes"])
    assert "1 of 2 test recordings" in notes
    assert "1 of 2 training recordings" in notes
    assert "2 of 6 detections" in notes
    assert "2 of 6 proposals" in notes
    assert "every 3 snippets" in notes
    assert "every 2 logged steps" in notes


def test_large_page_stays_below_5_mb(tmp_path):
    random = np.random.default_rng(0)
    names = [f"recording_{i}" for i in range(60)]
    classes = tuple(f"class {i}" for i in range(12))
    found = [
        {"label": classes[label], "segment": [start, start + 9], "score": score}
        for label, start, score in zip(
            random.integers(0, 12, 400).tolist(),
            random.uniform(0, 740, 400).tolist(),
            random.random(400).tolist(),
            strict=True,
        )
    ]
    truth = tuple(Instance(one["label"], *one["segment"]) for one in found[:30])
    results = dict.fromkeys(names, found)
    values = random.random((1500, 12)), random.random(1500), random.random(12), np.arange(1501)
    sequence = Predictions(*values)
    work = Work(
        path=tmp_path,
        name="large",
        classes=classes,
        card={},
        config={},
        test=dict.fromkeys(names, RecordingAnnotation("test", 750.0, instances=truth)),
        train=dict.fromkeys(names, RecordingAnnotation("train", 750.0)),
        rounds=tuple(Round(f"round {i}", results, None) for i in range(4)),
        proposals={f"round {i}": results for i in range(4)},
        pseudo_segments={},
        scores=dict.fromkeys(
            names, RecordingPredictions(Grid(50, 25, 75), 750.0, sequence, sequence)
        ),
        metrics=(),
        notes=(),
    )
    page = fill_template("template.html", report_html._report_data(work))
    assert 2e6 < len(page) < 5e6


def test_threshold_shows_as_many_as_were_annotated():
    found = {"a": [{"score": 0.9}, {"score": 0.2}], "b": [{"score": 0.5}]}
    assert default_threshold(found, 2) == 0.5
    assert default_threshold(found, 99) == 0.2
    assert default_threshold(found, 0) == 0.45
    assert default_threshold({}, 3) == 0.0


def test_points_of_recordings_that_were_held_out_do_not_count(workdir):
    """These have no proposals: the threshold would show too many of the others."""
    path = workdir / "train_points.json"
    document = json.loads(path.read_text())
    held = {"subset": "train", "duration": 90.0}
    held["annotations"] = [{"label": "sit", "point": 1.0 + number} for number in range(80)]
    document["database"]["held"] = held
    write_json(path, document)
    _, data = _read_page(write_report(workdir))
    assert data["thresholds"]["train"] == [0.3, 0.3]
    assert len(data["train"][-1]["points"]) == 160


def test_colours_are_different():
    colours = class_colours(200)
    assert len(set(colours)) == 200
    assert class_colours(5) == colours[:5]
    parts = [[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in colours[:12]]
    distances = [np.linalg.norm(np.subtract(a, b)) for a, b in itertools.combinations(parts, 2)]
    assert min(distances) > 50
    assert class_colours(0) == []


def _png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_picture(workdir):
    path = write_picture(workdir)
    assert path == workdir / "report.png"
    width, height = _png_size(path)
    assert width == 1600
    assert 400 < height < 1600
    other = write_picture(workdir, path=workdir / "b.png", recording="b")
    assert other.read_bytes() != path.read_bytes()  # the title names it
    with pytest.raises(ValueError, match="no test recording 'z'"):
        write_picture(workdir, recording="z")


def test_picture_takes_the_recording_with_the_most_classes(workdir):
    truth = json.loads((workdir / "ground_truth.json").read_text())
    truth["database"]["b"]["annotations"].append({"label": "sit", "segment": [15.0, 16.0]})
    write_json(workdir / "ground_truth.json", truth)
    chosen = write_picture(workdir).read_bytes()
    named = write_picture(workdir, path=workdir / "b.png", recording="b").read_bytes()
    assert chosen == named


def test_picture_needs_recordings_and_matplotlib(workdir, monkeypatch):
    (workdir / "empty").mkdir()
    (workdir / "empty" / "metrics.jsonl").write_text('{"round": 0, "step": 1, "loss": 1.0}\n')
    assert read_workdir(workdir / "empty").metrics[0]["loss"] == 1.0
    with pytest.raises(ValueError, match="no test recordings"):
        write_picture(workdir / "empty")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"tal_jax\[demo\]"):
        write_picture(workdir)


@browsing.needs_browser
def test_timelines_in_a_browser(workdir):
    """Pointing shows values; dragging pans, Ctrl + wheel and keys zoom, a click hides a class."""
    errors = []
    with browsing.open_browser() as browser:
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(write_report(workdir).as_uri())
        timeline, view = page.locator(".timeline").first, "explorers[0].view"
        timeline.scroll_into_view_if_needed()
        box = timeline.bounding_box()
        left, width = box["x"] + 172, box["width"] - 172

        def point(time_s, y):
            page.mouse.move(left + time_s / 20 * width, box["y"] + y)

        point(3.0, 24 + 8)  # the instance of "jump", in the lane below the axis
        assert page.inner_text("#tip").startswith("jump · ground truth")
        assert "tIoU 1.00, score .90" in page.inner_text("#tip")
        point(10.0, 24 + 50)  # between the bars: the curves of all classes
        assert page.inner_text("#tip").startswith("score at 0:10.0")
        page.keyboard.down("Control")
        page.mouse.wheel(0, -50)
        page.keyboard.up("Control")
        browsing.until(page, lambda: page.evaluate(f"{view}.end - {view}.start < 19"))
        start, end = page.evaluate(f"[{view}.start, {view}.end]")
        assert start < 10 < end
        page.mouse.down()
        point(9.0, 24 + 50)
        page.mouse.up()
        shift = (end - start) / 20  # a second of the whole is less of the zoomed window
        assert page.evaluate(f"{view}.start") == pytest.approx(start + shift, abs=0.02)
        timeline.focus()
        page.keyboard.press("0")
        assert page.evaluate(view) == {"start": 0, "end": 20}
        lanes = "explorers[0].timelines[0].lanes.map((lane) => lane.label)"
        assert page.evaluate(lanes) == ["jump", "run", "background"]
        page.click(".legend >> nth=0 >> text=jump")
        browsing.until(page, lambda: page.evaluate(f"{lanes}.length === 2"))
    assert errors == []
