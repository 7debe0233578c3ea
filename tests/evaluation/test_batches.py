"""Evaluation batch by batch gives what evaluation at once gives."""

import os
import tracemalloc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tal_jax._errors import InputError
from tal_jax.data.detection_columns import Columns, columns_of, read_detections, write_detections
from tal_jax.evaluation.detection import (
    columns_without_ambiguous,
    evaluate_detections,
    without_ambiguous,
)

LABELS = ("a", "b", "c", "d")  # no truth has "d"; "c" is often empty

# Few times and scores, so that scores, overlaps and thresholds tie.
TIMES = st.tuples(st.integers(0, 6), st.integers(0, 4)).map(lambda t: [t[0] / 2, (t[0] + t[1]) / 2])
SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, -1.0]), st.floats(-2, 2))


def _items(scored, labels):
    keys = {"label": st.sampled_from(labels), "segment": TIMES}
    return st.lists(st.fixed_dictionaries(keys | ({"score": SCORES} if scored else {})), max_size=8)


@st.composite
def problems(draw):
    """Ground truth, results, and how many recordings each batch has."""
    truth, results = {}, {}
    for name in ("u", "v", "w", "x"):
        subset = draw(st.sampled_from(["test", "test", "train"]))
        annotations = draw(_items(False, LABELS[:3]))
        truth[name] = {"subset": subset, "annotations": annotations}
    truth["y"] = {"subset": "test", "annotations": []}
    for name in draw(st.permutations(["u", "v", "w", "x", "y", "unknown"])):
        if draw(st.booleans()):
            results[name] = draw(_items(True, LABELS))
    return {"database": truth}, results, draw(st.integers(1, 4))


def _batches(results, size):
    names = list(results)
    for first in range(0, len(names), size):
        yield columns_of({name: results[name] for name in names[first : first + size]}, LABELS)


def _assert_same(one, other):
    for field in ("tious", "map", "ap", "short_recall", "long_recall", "average_map"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=0, atol=1e-9)
    for field in ("classes", "num_videos", "num_ground_truth", "num_detections", "notes"):
        assert getattr(one, field) == getattr(other, field)
    np.testing.assert_array_equal(one.class_counts, other.class_counts)


@hypothesis.given(problems(), st.integers(1, 20), st.sampled_from([None, "test"]))
def test_batches_give_what_all_at_once_gives(problem, levels, subset):
    ground_truth, results, size = problem
    options = {"tious": np.linspace(0.05, 1, levels), "subset": subset, "short_s": 1.0}
    if not any(one["subset"] == subset for one in ground_truth["database"].values()):
        options["subset"] = None
    whole = evaluate_detections(ground_truth, {"results": results}, **options)
    parts = evaluate_detections(ground_truth, _batches(results, size), **options)
    _assert_same(parts, whole)


@hypothesis.given(problems(), st.lists(TIMES, max_size=3))
def test_ambiguous_segments_are_left_out_in_both(problem, segments):
    ground_truth, results, size = problem
    ambiguous = {"u": segments, "v": [[0.5, 1.0]]}
    kept = without_ambiguous(results, ambiguous)
    whole = evaluate_detections(ground_truth, {"results": kept}, tious=[0.3, 0.5])
    parts = (columns_without_ambiguous(one, ambiguous) for one in _batches(results, size))
    _assert_same(evaluate_detections(ground_truth, parts, tious=[0.3, 0.5]), whole)


def test_from_a_file(tmp_path):
    ground_truth, results = _made_up(50, 20)
    write_detections(tmp_path / "a.arrow", results.items(), LABELS)
    whole = evaluate_detections(ground_truth, {"results": results}, tious=[0.1, 0.5])
    assert 0.01 < whole.average_map < 0.99
    parts = evaluate_detections(
        ground_truth, read_detections(tmp_path / "a.arrow"), tious=[0.1, 0.5]
    )
    _assert_same(parts, whole)


def test_a_recording_in_two_batches_is_refused():
    one = {"label": "a", "score": 1.0, "segment": [0.0, 1.0]}
    truth = {"database": {"u": {"annotations": [{"label": "a", "segment": [0.0, 1.0]}]}}}
    for name in ("u", "unknown"):
        batches = iter([columns_of({name: [one]}, LABELS)] * 2)
        with pytest.raises(InputError, match=f"detections of '{name}' at two places"):
            evaluate_detections(truth, batches, tious=[0.5])


def test_memory_does_not_grow_with_detections(tmp_path, monkeypatch):
    """That of one batch and of the largest class remains."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def peak(batches, classes=20, size=20_000):
        rng, names = np.random.default_rng(0), [str(number) for number in range(classes)]
        annotations = [{"label": name, "segment": [0.0, 1.0]} for name in names]
        truth = {"database": {"u": {"annotations": annotations}}}

        def made_up():
            for number in range(batches):
                # Every batch is of one class, so that no class grows.
                starts = rng.uniform(0, 9, size)
                segments = np.stack([starts, starts + 1], axis=1)
                labels = np.full(size, number)
                yield Columns([f"r{number}"], np.array([size]), names, labels, starts, segments)

        tracemalloc.start()
        evaluate_detections(truth, made_up(), tious=[0.5])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(20) < 1.2 * peak(2)
    assert not os.listdir(tmp_path)


def _made_up(count, each):
    rng = np.random.default_rng(count)

    def segments(size):
        starts = rng.uniform(0, 20, size)
        return np.stack([starts, starts + rng.gamma(2, 3, size)], axis=1).tolist()

    truth = {
        f"r{n}": {"annotations": [{"label": "abc"[n % 3], "segment": one} for one in segments(3)]}
        for n in range(count)
    }
    results = {
        f"r{n}": [
            {"label": str(rng.choice(LABELS)), "score": float(rng.normal()), "segment": one}
            for one in segments(each)
        ]
        for n in range(count)
    }
    return {"database": truth}, results
