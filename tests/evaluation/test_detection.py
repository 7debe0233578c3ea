"""Tests of the detection mAP against a slow reimplementation and hand-computed values."""

import dataclasses
import json

import numpy as np
import pytest

from tal_jax.evaluation import detection, errors, matching

TIOUS = np.linspace(0.1, 0.7, 7)


def _database(videos, subset="test"):
    """{video: [(label, start, end), ...]} as an ActivityNet ground truth."""
    return {
        "database": {
            video: {
                "subset": subset,
                "duration": 100.0,
                "annotations": [{"label": c, "segment": [s, e]} for c, s, e in rows],
            }
            for video, rows in videos.items()
        }
    }


def _results(videos):
    """{video: [(label, score, start, end), ...]} as ActivityNet results."""
    return {
        "results": {
            video: [{"label": c, "score": p, "segment": [s, e]} for c, p, s, e in rows]
            for video, rows in videos.items()
        }
    }


def _slow_iou(a, b):
    shared = max(min(a[1], b[1]) - max(a[0], b[0]), 0.0)
    union = (b[1] - b[0]) + (a[1] - a[0]) - shared
    return shared / union if union > 0 else 0.0


def _slow_match(truth, found, tiou):
    """Walks down one class's detections. Returns hit or not of each, and the taken ground truth.

    truth: (video, start, end); found: (video, score, start, end), both in input order.
    """
    taken, hits = set(), []
    for video, _, start, end in sorted(found, key=lambda d: -d[1]):  # sorted() is stable
        best, best_iou = None, tiou
        for i, (other, *segment) in enumerate(truth):
            iou = _slow_iou((start, end), segment) if other == video else -1.0
            if i not in taken and iou >= best_iou:
                best, best_iou = i, iou
        hits.append(best is not None)
        taken.add(best)
    return hits, taken - {None}


def _slow_ap(hits, num_truth):
    """Area below the precision-recall curve made monotone, as a sum over all of its points."""
    precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    recall = [sum(hits[: i + 1]) / num_truth for i in range(len(hits))]
    area, before = 0.0, 0.0
    for i in range(len(hits)):
        area += (recall[i] - before) * max(precision[i:])
        before = recall[i]
    return area


def _slow_evaluation(ground_truth, predictions, tious, subset, short_s):
    """(ap [n, C], short recall [n], long recall [n]) by loops over everything."""
    inside = {
        v: e["annotations"] for v, e in ground_truth["database"].items() if e["subset"] == subset
    }
    truth, found = {}, {}
    for video, rows in inside.items():
        for row in rows:
            truth.setdefault(row["label"], []).append((video, *row["segment"]))
    for video, rows in predictions["results"].items():
        for row in rows:
            found.setdefault(row["label"], []).append((video, row["score"], *row["segment"]))
    ap, recalls = [], ([], [])
    for tiou in tious:
        matches = {c: _slow_match(truth[c], found.get(c, []), tiou) for c in sorted(truth)}
        ap.append([_slow_ap(hits, len(truth[c])) for c, (hits, _) in matches.items()])
        for is_short, recall in zip((True, False), recalls, strict=True):
            flags = [
                i in matches[c][1]
                for c in truth
                for i, (_, start, end) in enumerate(truth[c])
                if (end - start < short_s) == is_short
            ]
            recall.append(sum(flags) / len(flags) if flags else np.nan)
    return np.array(ap), np.array(recalls[0]), np.array(recalls[1])


def _random_problem(seed):
    """Ground truth and detections full of special cases.

    Odd seeds: whole-numbered times and coarse scores, so that scores, IoUs and thresholds tie.
    """
    rng = np.random.default_rng(seed)
    whole = seed % 2 == 1

    def times():
        start, length = rng.uniform(0, 30), rng.gamma(2.0, 3.0)
        return (
            (float(round(start)), float(round(start) + round(length)))  # may have no length
            if whole
            else (start, start + length)
        )

    def score():
        return rng.integers(0, 4) / 4 if whole else rng.normal()

    labels = [f"c{i}" for i in range(5)]
    truth = {f"v{i}": [] for i in range(6)}
    for video in list(truth)[:-1]:  # the last one has no ground truth
        for _ in range(rng.integers(1, 7)):
            truth[video].append((rng.choice(labels), *times()))
        truth[video].append(truth[video][0])  # annotated twice
    found = {video: [] for video in rng.permutation([*truth, "unknown"])}
    for video in found:
        for _ in range(rng.integers(0, 25)):
            label = rng.choice([*labels[1:], "strange"])  # c0 is never detected
            found[video].append((str(label), score(), *times()))
        found[video] += found[video][:2]
    ground_truth, predictions = _database(truth), _results(found)
    ground_truth["database"] |= _database({"other": [("c1", 0.0, 5.0)]}, "train")["database"]
    predictions["results"] |= _results({"other": [("c1", 9.0, 0.0, 5.0)]})["results"]
    return ground_truth, predictions


@pytest.mark.parametrize("seed", range(24))
def test_agrees_with_the_slow_loops(seed):
    ground_truth, predictions = _random_problem(seed)
    tious = [0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0]
    metrics = detection.evaluate_detections(
        ground_truth, predictions, tious=tious, subset="test", short_s=4.0
    )
    ap, short, long = _slow_evaluation(ground_truth, predictions, tious, "test", 4.0)
    np.testing.assert_allclose(metrics.ap, ap, rtol=0, atol=1e-9)
    np.testing.assert_allclose(metrics.map, ap.mean(axis=1), rtol=0, atol=1e-9)
    np.testing.assert_allclose(metrics.average_map, ap.mean(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(metrics.short_recall, short, rtol=0, atol=1e-9)
    np.testing.assert_allclose(metrics.long_recall, long, rtol=0, atol=1e-9)
    assert metrics.num_ground_truth == metrics.num_short + metrics.num_long
    assert metrics.num_ground_truth == metrics.class_counts.sum()


def test_average_precision_by_hand():
    truth = _database({"a": [("x", 0.0, 10.0), ("x", 20.0, 30.0), ("y", 40.0, 50.0)]})
    found = _results(
        {
            "a": [
                ("x", 0.9, 60.0, 70.0),  # wrong
                ("x", 0.8, 0.0, 10.0),  # right: precision 1/2, raised to 2/3 by the next one
                ("x", 0.7, 20.0, 30.0),  # right: precision 2/3
                ("x", 0.6, 20.0, 30.0),  # a second time: wrong
                ("y", 0.5, 40.0, 46.0),  # IoU 0.6
            ]
        }
    )
    metrics = detection.evaluate_detections(truth, found, tious=[0.5, 0.7])
    assert metrics.classes == ("x", "y")
    np.testing.assert_allclose(metrics.ap, [[2 / 3, 1.0], [2 / 3, 0.0]], rtol=1e-12)
    np.testing.assert_allclose(metrics.map, [5 / 6, 1 / 3], rtol=1e-12)
    assert metrics.average_map == pytest.approx(7 / 12)
    assert (metrics.num_videos, metrics.num_ground_truth, metrics.num_detections) == (1, 3, 5)
    assert metrics.ap.dtype == np.float64
    assert metrics.notes == ()


def test_perfect_detections_reach_exactly_one():
    rows = {f"v{i}": [(f"c{j}", 10.0 * j, 10.0 * j + i + 1) for j in range(5)] for i in range(4)}
    found = {v: [(c, 0.1 * i, s, e) for i, (c, s, e) in enumerate(r)] for v, r in rows.items()}
    metrics = detection.evaluate_detections(
        _database(rows), _results(found), tious=[0.5, 1.0], short_s=3.0
    )
    assert (metrics.ap == 1.0).all() and (metrics.map == 1.0).all()
    assert (metrics.short_recall == 1.0).all() and (metrics.long_recall == 1.0).all()
    assert (metrics.num_short, metrics.num_long) == (10, 10)


@pytest.mark.parametrize("results", [{}, {"a": []}])
def test_no_detections_give_zero(results):
    truth = _database({"a": [("x", 0.0, 2.0)]})
    metrics = detection.evaluate_detections(truth, {"results": results}, tious=TIOUS, short_s=5)
    assert (metrics.map == 0).all() and (metrics.short_recall == 0).all()
    assert np.isnan(metrics.long_recall).all() and metrics.num_long == 0
    assert metrics.notes == (
        "1 video without detections: a",
        "1 label without detections (AP 0): x",
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("videos", [{}, {"a": []}])
def test_no_ground_truth_gives_nan_and_says_so(videos):
    found = _results({"a": [("x", 0.9, 0.0, 1.0)]})
    metrics = detection.evaluate_detections(_database(videos), found, tious=[0.5], short_s=1.0)
    assert np.isnan(metrics.map).all() and np.isnan(metrics.average_map)
    assert metrics.ap.shape == (1, 0) and metrics.classes == ()
    assert "no ground-truth segments: mAP is undefined" in metrics.notes
    again = detection.DetectionMetrics.from_dict(json.loads(json.dumps(metrics.to_dict())))
    assert again.ap.shape == (1, 0)
    assert "-" in detection.format_table(metrics)


def test_takes_the_best_free_ground_truth():
    # The first detection fits [1, 10] better; the second would fit that too and has to move on.
    truth = _database({"a": [("x", 0.0, 10.0), ("x", 1.0, 10.0)]})
    found = _results({"a": [("x", 0.9, 1.0, 10.0), ("x", 0.8, 2.0, 10.0)]})
    metrics = detection.evaluate_detections(truth, found, tious=[0.8, 0.85])
    np.testing.assert_allclose(metrics.map, [1.0, 0.5])


def test_equal_ious_take_the_last_annotated():
    # [5, 15] overlaps both by 1/3. Taking the last leaves the first to [4, 10] (IoU 0.6).
    truth = {"a": [("x", 0.0, 10.0), ("x", 10.0, 20.0)]}
    found = _results({"a": [("x", 0.9, 5.0, 15.0), ("x", 0.8, 4.0, 10.0)]})
    metrics = detection.evaluate_detections(_database(truth), found, tious=[0.3])
    assert metrics.map.tolist() == [1.0]
    truth = {"a": truth["a"][::-1]}
    metrics = detection.evaluate_detections(_database(truth), found, tious=[0.3])
    assert metrics.map.tolist() == [0.5]


def test_iou_equal_to_the_threshold_counts():
    truth = _database({"a": [("x", 0.0, 2.0)]})
    found = _results({"a": [("x", 0.9, 0.0, 1.0)]})
    metrics = detection.evaluate_detections(truth, found, tious=[0.5, np.nextafter(0.5, 1)])
    assert metrics.map.tolist() == [1.0, 0.0]


def test_thresholds_are_matched_separately():
    # At 0.5 the first detection takes the instance, at 0.9 only the second one can.
    truth = _database({"a": [("x", 0.0, 10.0)]})
    found = _results({"a": [("x", 0.9, 0.0, 6.0), ("x", 0.8, 0.0, 10.0)]})
    metrics = detection.evaluate_detections(truth, found, tious=[0.9, 0.5])
    assert metrics.map.tolist() == [0.5, 1.0]


def test_equal_scores_keep_the_input_order():
    truth = _database({"a": [("x", 0.0, 10.0)], "b": []})
    right, wrong = ("x", 0.5, 0.0, 10.0), ("x", 0.5, 50.0, 60.0)

    def score(videos):
        found = _results(videos)
        return detection.evaluate_detections(truth, found, tious=[0.5]).map.item()

    assert score({"a": [right, wrong]}) == 1.0
    assert score({"a": [wrong, right]}) == 0.5
    assert score({"a": [right], "b": [wrong]}) == 1.0  # order of the results, not of the names
    assert score({"b": [wrong], "a": [right]}) == 0.5


@pytest.mark.parametrize("seed", [0, 2])
def test_only_the_order_of_scores_matters(seed):
    ground_truth, predictions = _random_problem(seed)
    first = detection.evaluate_detections(ground_truth, predictions, tious=TIOUS, subset="test")
    results = {
        v: [{**d, "score": np.exp(3 * d["score"])} for d in reversed(rows)]
        for v, rows in reversed(predictions["results"].items())
    }
    second = detection.evaluate_detections(
        ground_truth, {"results": results}, tious=TIOUS[::-1], subset="test"
    )
    np.testing.assert_array_equal(first.ap, second.ap[::-1])


def test_segments_without_length_overlap_nothing():
    truth = _database({"a": [("x", 3.0, 3.0), ("x", 5.0, 6.0)]})
    found = _results({"a": [("x", 0.9, 3.0, 3.0), ("x", 0.8, 5.0, 6.0), ("x", 0.7, 5.5, 5.5)]})
    metrics = detection.evaluate_detections(truth, found, tious=[1e-9])
    assert metrics.map.tolist() == [0.25]
    assert metrics.notes == ("1 ground-truth segment without length, which nothing can match",)


def test_detections_where_nothing_was_annotated():
    truth = _database({"a": [("x", 0.0, 10.0)], "bare": []})
    truth["database"] |= _database({"elsewhere": [("x", 0.0, 10.0)]}, "train")["database"]
    right, wrong = ("x", 0.1, 0.0, 10.0), ("x", 0.9, 0.0, 10.0)
    strange = ("z", 0.9, 0.0, 10.0)  # of no class, so no false positive either

    def evaluate(videos, subset="test"):
        return detection.evaluate_detections(truth, _results(videos), tious=[0.5], subset=subset)

    silent = "1 video without ground truth, with 0 detections counted as false positives: bare"
    only = evaluate({"a": [right], "bare": []})
    assert only.map.item() == 1.0
    assert only.notes == (silent, "1 video without detections: bare")

    bare = evaluate({"a": [right], "bare": [wrong]})
    assert bare.map.item() == 0.5
    assert bare.notes == (silent.replace("0 detections", "1 detection"),)

    unknown = evaluate(
        {"a": [right], "nowhere": [wrong, wrong, strange], "neither": [wrong], "none": []}
    )
    assert unknown.map.item() == 0.25
    assert (
        "3 detections counted as false positives, in 2 videos that are not in the ground truth: "
        "nowhere, neither"
    ) in unknown.notes

    other = evaluate({"a": [right], "bare": [], "elsewhere": [wrong, strange]})
    assert other.map.item() == 0.5 and other.num_detections == 2 and other.num_videos == 2
    assert other.notes[0] == (
        "1 detection counted as false positives, in 1 video outside subset 'test': elsewhere"
    )
    everything = evaluate({"a": [right], "bare": [], "elsewhere": [wrong]}, subset=None)
    assert everything.map.item() == 1.0 and everything.num_ground_truth == 2


def test_labels_without_ground_truth_are_noted_only():
    truth = _database({"a": [("x", 0.0, 10.0)]})
    rows = [("x", 0.5, 0.0, 10.0)] + [(f"z{i}", 0.9, 0.0, 10.0) for i in range(7)]
    metrics = detection.evaluate_detections(truth, _results({"a": rows}), tious=[0.5])
    assert metrics.map.item() == 1.0 and metrics.num_detections == 1 and metrics.classes == ("x",)
    assert metrics.notes == (
        "7 detections left out, of 7 labels without ground truth: z0, z1, z2, z3, z4 and 2 more",
    )


def test_recall_of_short_and_long_instances():
    truth = _database({"a": [("x", 0.0, 1.9), ("y", 10.0, 12.0)], "b": [("x", 0.0, 1.0)]})
    found = _results({"a": [("x", 0.1, 0.0, 1.9), ("y", 0.9, 10.0, 11.2)]})
    metrics = detection.evaluate_detections(truth, found, tious=[0.5, 0.7], short_s=2.0)
    assert (metrics.num_short, metrics.num_long) == (2, 1)  # 2.0 s is not short
    assert metrics.short_recall.tolist() == [0.5, 0.5]
    assert metrics.long_recall.tolist() == [1.0, 0.0]
    metrics = detection.evaluate_detections(truth, found, tious=[0.5, 0.7])
    assert np.isnan(metrics.short_recall).all() and np.isnan(metrics.long_recall).all()
    assert (metrics.short_s, metrics.num_short, metrics.num_long) == (None, 0, 0)


def test_reads_times_written_as_strings():
    truth = {"database": {"a": {"annotations": [{"label": "x", "segment": ["0.5", "2.5"]}]}}}
    found = {"results": {"a": ({"label": "x", "score": 1, "segment": (0.5, 2.5)},)}}
    assert detection.evaluate_detections(truth, found, tious=[1.0]).map.item() == 1.0


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"segment": [5.0, 2.0]}, "[5.0, 2.0]"),
        ({"segment": [float("nan"), 2.0]}, "[nan, 2.0]"),
        ({"segment": [0.0, float("inf")]}, "[0.0, inf]"),
        ({"segment": [0.0, 1.0, 2.0]}, "[0.0, 1.0, 2.0]"),
        ({"segment": ["a", "b"]}, "['a', 'b']"),
        ({"segment": "12"}, "'12'"),
        ({"segment": None}, "None"),
        ({"score": float("nan")}, "nan"),
        ({"score": float("-inf")}, "-inf"),
        ({"score": None}, "None"),
        ({"score": [0.5]}, "[0.5]"),
        ({"label": 3}, "3"),
        ({"label": ["x"]}, "['x']"),
    ],
)
def test_malformed_items_are_named(changes, value):
    truth = _database({"a": [("x", 0.0, 1.0)], "b": [("x", 0.0, 1.0)]})
    found = _results({"b": [("x", 0.5, 0.0, 1.0)], "a": [("x", 0.5, 0.0, 1.0)] * 2})
    cases = [("detection", found["results"]["a"])]
    if "score" not in changes:
        cases.append(("annotation", truth["database"]["a"]["annotations"]))
    for what, rows in cases:
        good, rows[-1] = rows[-1], rows[-1] | changes
        with pytest.raises(ValueError) as error:
            detection.evaluate_detections(truth, found, tious=[0.5])
        rows[-1] = good
        message = str(error.value)
        assert f"video 'a', {what} {len(rows) - 1}: " in message
        assert value in message and "\n" not in message


@pytest.mark.parametrize("key", ["label", "score", "segment"])
def test_missing_keys_are_named(key):
    truth, found = _database({"a": [("x", 0.0, 1.0)]}), _results({"a": [("x", 0.5, 0.0, 1.0)]})
    del found["results"]["a"][0][key]
    with pytest.raises(ValueError, match=f"video 'a', detection 0: no '{key}' in"):
        detection.evaluate_detections(truth, found, tious=[0.5])


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        ({}, {"results": {}}, "the ground truth: no 'database'"),
        ({"database": {}}, {"a": []}, "the predictions: no 'results' among the keys a"),
        (
            {"database": {}},
            [],
            r"the predictions: expected a dict with the key 'results', got \[\]",
        ),
        ({"database": {}}, {"results": {"a": None}}, "the results: expected 'a' .* got None"),
        ({"database": {}}, {"results": {"a": [7]}}, "video 'a', detection 0: .* got 7"),
        ({"database": {"a": {"annotations": []}}}, {"results": {}}, "video 'a': no 'subset'"),
        ({"database": {"a": {"subset": "test"}}}, {"results": {}}, "video 'a': no 'annotations'"),
        (
            _database({"a": []}, "val"),
            {"results": {}},
            r"subset is 'test', expected one of \['val'",
        ),
    ],
)
def test_wrong_structure_is_named(truth, found, message):
    subset = "test" if truth.get("database") else None
    with pytest.raises(ValueError, match=message):
        detection.evaluate_detections(truth, found, tious=[0.5], subset=subset)


@pytest.mark.parametrize("tious", [[], [0.0], [1.1], [float("nan")], 0.5, [[0.5]]])
def test_thresholds_are_checked(tious):
    with pytest.raises(ValueError, match="tious"):
        detection.evaluate_detections(_database({"a": []}), _results({}), tious=tious)


@pytest.mark.parametrize("short_s", [0.0, -1.0, float("nan"), float("inf")])
def test_short_s_is_checked(short_s):
    with pytest.raises(ValueError, match=f"short_s is {short_s}"):
        detection.evaluate_detections(
            _database({"a": []}), _results({}), tious=[0.5], short_s=short_s
        )


def _metrics(seed=0, tious=TIOUS, short_s=4.0):
    return detection.evaluate_detections(
        *_random_problem(seed), tious=tious, subset="test", short_s=short_s
    )


@pytest.mark.parametrize("short_s", [None, 4.0])
def test_metrics_survive_json(short_s):
    metrics = _metrics(short_s=short_s)
    text = json.dumps(metrics.to_dict(), allow_nan=False)
    again = detection.DetectionMetrics.from_dict(json.loads(text))
    for field in dataclasses.fields(metrics):
        value, copy = getattr(metrics, field.name), getattr(again, field.name)
        assert type(value) is type(copy), field.name
        np.testing.assert_array_equal(value, copy)
        if isinstance(value, np.ndarray):
            assert value.dtype == copy.dtype and value.shape == copy.shape


def test_from_dict_names_wrong_fields():
    values = _metrics().to_dict()
    values["mean"] = values.pop("map")
    with pytest.raises(ValueError, match=r"missing \['map'\], unknown \['mean'\]"):
        detection.DetectionMetrics.from_dict(values)


def test_table():
    metrics = _metrics()
    table = detection.format_table(metrics)
    header, *rows = table.splitlines()
    assert header.split()[-10:] == (
        ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.1-0.5", "0.3-0.7", "0.1-0.7"]
    )
    assert len({len(line) for line in [header, *rows[:3]]}) == 1  # aligned
    values = [f"{100 * v:.2f}" for v in metrics.map]
    values += [f"{100 * part.mean():.2f}" for part in (metrics.map[:5], metrics.map[2:])]
    assert rows[0].split() == ["mAP", *values, f"{100 * metrics.average_map:.2f}"]
    assert rows[1].startswith(f"recall short (n={metrics.num_short})")
    assert rows[2].startswith(f"recall long (n={metrics.num_long})")
    assert rows[3] == (
        f"videos 6, ground-truth segments {metrics.num_ground_truth}, "
        f"detections {metrics.num_detections}, classes 5, short: under 4 s"
    )
    assert rows[4:] == [f"note: {note}" for note in metrics.notes]


@pytest.mark.parametrize(
    ("tious", "averages"),
    [
        (np.linspace(0.1, 0.5, 5), ["0.1-0.5"]),
        (np.linspace(0.3, 0.7, 5), ["0.3-0.7"]),
        (np.linspace(0.5, 0.95, 10), ["average"]),
        (np.linspace(0.1, 0.9, 9), ["0.1-0.5", "0.3-0.7", "0.1-0.7", "average"]),
        ([0.1, 0.3, 0.5, 0.7], ["average"]),
    ],
)
def test_table_shows_the_averages_there_are(tious, averages):
    metrics = _metrics(tious=tious, short_s=None)
    header, row, counts, *_ = detection.format_table(metrics).splitlines()
    assert header.split()[3:] == ["%)"] + [f"{t:g}" for t in np.round(tious, 6)] + averages
    assert row.split()[-1] == f"{100 * metrics.average_map:.2f}"  # the last covers all
    assert "short" not in counts


def _errors(truth, found, **kwargs):
    counts = errors.explain_errors(
        _database({"a": truth}), _results({"a": found}), short_s=3.0, **kwargs
    )
    return {name: count for name, count in counts.items() if count and name != "ground_truth"}


def test_every_kind_of_error_is_told_apart():
    far = ("x", 70.0, 80.0)  # lets a second detection of x into the count
    assert _errors([("x", 0.0, 4.0)], [("x", 1.0, 0.0, 4.0)]) == {"matched": 1}
    assert _errors([("x", 0.0, 4.0)], []) == {"missed_long": 1, "missed": 1}
    assert _errors([("x", 0.0, 2.0)], []) == {"missed_short": 1, "missed": 1}
    assert _errors([("x", 0.0, 4.0)], [("x", 1.0, 3.0, 8.0)]) == {
        "missed_long": 1,
        "badly_placed": 1,
    }
    assert _errors([("x", 0.0, 10.0), far], [("x", 1.0, 0.0, 4.0), ("x", 0.9, 5.0, 9.0)]) == {
        "missed_long": 2,
        "split": 1,
        "missed": 1,
    }
    assert _errors(  # the two pieces cover the same, too small part
        [("x", 0.0, 10.0), far], [("x", 1.0, 0.0, 4.0), ("x", 0.9, 0.5, 4.5)]
    ) == {"missed_long": 2, "badly_placed": 1, "missed": 1}
    assert _errors([("x", 0.0, 4.0), ("x", 5.0, 9.0)], [("x", 1.0, 0.0, 9.0)]) == {
        "missed_long": 2,
        "merged": 2,
    }
    assert _errors([("x", 0.0, 4.0), ("y", 20.0, 30.0)], [("y", 1.0, 0.0, 3.5)]) == {
        "missed_long": 2,
        "wrong_class": 1,
        "missed": 1,
    }


def test_errors_are_counted_where_precision_equals_recall():
    # Only as many detections as instances: the right one comes too late.
    assert _errors([("x", 0.0, 4.0)], [("x", 0.9, 50.0, 60.0), ("x", 0.8, 0.0, 4.0)]) == {
        "missed_long": 1,
        "missed": 1,
    }
    assert _errors([("x", 0.0, 10.0)], [("x", 0.9, 0.0, 6.0)], tiou=0.7) == {
        "missed_long": 1,
        "badly_placed": 1,
    }


@pytest.mark.parametrize("seed", range(6))
def test_error_counts_add_up(seed):
    counts = errors.explain_errors(*_random_problem(seed), tiou=0.3, subset="test", short_s=4.0)
    left = counts["missed_short"] + counts["missed_long"]
    assert counts["matched"] + left == counts["ground_truth"]
    reasons = ("split", "merged", "wrong_class", "badly_placed", "missed")
    assert sum(counts[reason] for reason in reasons) == left
    assert all(type(count) is int for count in counts.values())
    # The matching itself, once more by the slow loops on the best detections of each class.
    ground_truth, predictions = _random_problem(seed)
    truth, found = {}, {}
    for video, entry in ground_truth["database"].items():
        for row in entry["annotations"] if entry["subset"] == "test" else ():
            truth.setdefault(row["label"], []).append((video, *row["segment"]))
    for video, rows in predictions["results"].items():
        for row in rows:
            found.setdefault(row["label"], []).append((video, row["score"], *row["segment"]))
    matched = 0
    for label, rows in truth.items():
        best = sorted(found.get(label, []), key=lambda d: -d[1])[: len(rows)]
        matched += len(_slow_match(rows, best, 0.3)[1])
    assert counts["matched"] == matched


def test_detections_that_touch_ambiguous_segments_are_left_out():
    """As W-TALC's evaluation does; touching ends share no time."""
    found = _results(
        {
            "a": [("x", 0.9, 0, 2), ("y", 0.8, 3, 4), ("x", 0.7, 4, 9)],
            "b": [("x", 1, 0, 9)],
            "c": [],
        }
    )["results"]
    kept = detection.without_ambiguous(found, {"a": [[2, 3], [5, 6]], "c": [[0, 1]], "d": [[0, 1]]})
    assert [one["segment"] for one in kept["a"]] == [[0, 2], [3, 4]]
    assert kept["b"] == found["b"] and kept["c"] == []
    assert detection.without_ambiguous(found, {}) == found


@pytest.mark.parametrize(
    ("tiou", "flags"), [(0.5, [True, False, True]), (0.85, [False, False, True])]
)
def test_found_instances_keep_the_order_of_the_annotations(tiou, flags):
    truth = {"b": [("run", 0, 10), ("jump", 40, 50), ("jump", 0, 10)], "a": []}
    truth["c"] = [("run", 1, 2)]
    found = {
        "b": [
            ("jump", 0.5, 0, 9),  # tIoU .9, but the next one takes the instance where .8 is enough
            ("jump", 0.6, 2, 10),
            ("jump", 0.9, 20, 30),
            ("run", 0.1, 0, 5),  # tIoU .5 is enough
        ],
        "d": [("run", 0.9, 1, 2)],
    }
    got = matching.found_instances(_database(truth), _results(found), tiou=tiou)
    assert got == {"b": flags, "a": [], "c": [False]}
