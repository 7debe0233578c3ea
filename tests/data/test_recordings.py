"""Recordings: what is refused, and what standardising does."""

import dataclasses

import numpy as np
import pytest

from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import (
    Dataset,
    Point,
    Recording,
    assemble,
    check_dataset,
    check_recording,
    class_notes,
    points_of,
    standardize,
)

GRID = Grid(fps=10, stride_frames=5, window_frames=5)


def make(name="r", length=8, dim=3, dtype=np.float32, points=(), seed=0):
    features = np.random.default_rng(seed).normal(size=(length, dim)).astype(dtype)
    return Recording(name, features, GRID, duration_s=GRID.to_seconds(length), points=points)


def make_dataset(**changes):
    entry = {"subset": "test", "duration": 4.0, "annotations": [{"label": "a", "segment": [0, 1]}]}
    dataset = Dataset(
        classes=("a", "b"),
        train=(make("r", points=(Point(0.5, 0), Point(2.0, 1))), make("s", length=5, seed=1)),
        test=(make("t", seed=2),),
        ground_truth={"database": {"t": entry}},
    )
    return dataclasses.replace(dataset, **changes)


@pytest.mark.parametrize("length", [1, 8, 20_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_good_recordings(length, dtype):
    check_recording(make(length=length, dtype=dtype, points=(Point(0.0, 1),)), dim=3, num_classes=2)


def replaced(index, value):
    recording = make()
    recording.features[index] = value
    return recording


BAD = {
    "empty": (make(length=0), r"of shape \[0, 3\]"),
    "no features": (make(dim=0), r"of shape \[8, 0\]"),
    "one dimension": (
        dataclasses.replace(make(), features=np.zeros(8, np.float32)),
        r"shape \[8\], expected \[T, D\]",
    ),
    "float64": (make(dtype=np.float64), "are float64, expected float32 or float16"),
    "NaN": (replaced((5, 2), np.nan), "feature 2 of snippet 5 is nan"),
    "infinity": (replaced((0, 1), -np.inf), "feature 1 of snippet 0 is -inf"),
    "dim": (make(dim=4), "D = 4, expected 3"),
    "duration": (dataclasses.replace(make(), duration_s=np.nan), "duration_s is nan"),
    "clock": (
        dataclasses.replace(make(), duration_s=6.0),
        "8 snippets of 0.5 s for a duration of 6 s, expected 12: a wrong clock",
    ),
    "point before": (make(points=(Point(-0.1, 0),)), r"point at -0.1 s, .* within \[0, 4\) s"),
    "point after": (make(points=(Point(4.0, 0),)), r"point at 4.0 s, .* within \[0, 4\) s"),
    "point NaN": (make(points=(Point(np.nan, 0),)), "point at nan s"),
    "segment apart": (make(points=(Point(1.0, 0, (1.5, 2.0)),)), r"segment \[1.5, 2.0\] s of the"),
    "segment after": (make(points=(Point(1.0, 0, (0.5, 4.5)),)), r"within \[0, 4\] s"),
    "segment NaN": (make(points=(Point(1.0, 0, (np.nan, 2.0)),)), "expected one around it"),
    "class": (
        make(points=(Point(1.0, 2),)),
        r"labels \(2,\), expected increasing indices from 0 below 2",
    ),
    "negative class": (make(points=(Point(1.0, -1),)), r"labels \(-1,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_recordings(case):
    recording, message = BAD[case]
    with pytest.raises(ValueError, match=f"^r: .*{message}"):
        check_recording(recording, dim=3, num_classes=2)


@pytest.mark.parametrize("length", [6, 10])
def test_a_small_drift_is_accepted(length):
    check_recording(dataclasses.replace(make(length=length), duration_s=4.0))


def test_good_dataset():
    check_dataset(make_dataset())
    check_dataset(make_dataset(test=(), ground_truth={"database": {}}))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train": ()}, "no training recording"),
        ({"train": (make("t"),)}, "recording 't' occurs 2 times"),
        ({"train": (make("r", dim=4),)}, "t: features have D = 3, expected 4"),
        ({"classes": ("a",)}, r"r: labels \(0, 1\), expected increasing indices from 0 below 1"),
        ({"test": ()}, "'t' is only one of test recording and ground truth"),
        ({"train_truth": {"r": (None,)}}, "train_truth has 1 segments for the 2 points of 'r'"),
        ({"train_truth": {"r": ()}}, "train_truth has 0 segments for the 2 points of 'r'"),
    ],
)
def test_bad_datasets(changes, message):
    with pytest.raises(ValueError, match=message):
        check_dataset(make_dataset(**changes))


def test_points_of_sorts_by_time():
    instances = (Instance("b", 2.0, 3.0, 2.5), Instance("a", point_s=1.0), Instance("b", 0, 1, 0.5))
    annotation = RecordingAnnotation("train", 4.0, instances)
    points, segments = points_of("r", annotation, {"a": 0, "b": 1})
    assert points == (Point(0.5, 1), Point(1.0, 0), Point(2.5, 1))
    assert segments == ((0, 1), None, (2.0, 3.0))


def test_points_of_tells_how_to_get_points():
    annotation = RecordingAnnotation("train", 4.0, (Instance("a", 1.0, 2.0),))
    with pytest.raises(ValueError, match=r"r: instance of 'a' at \[1.0, 2.0\) .*generate_points"):
        points_of("r", annotation, {"a": 0})


def test_assembled():
    """Points in order of time, or video classes alone; pairs of classes as pairs of labels."""
    instances = (Instance("c", 1.0, 2.0, 1.5), Instance("a", point_s=0.5), Instance("c", 2.0, 3.0))
    annotations = Annotations(
        ("a", "b", "c"),
        {"r": RecordingAnnotation("train", 4.0, instances[:2])},
        overlapping=(("c", "a"), ("a", "b")),
    )
    dataset = assemble(annotations, [make("r")], [], {"database": {}}, notes=["one"])
    assert dataset.overlapping == ((2, 0), (0, 1))
    assert dataset.train[0].points == (Point(0.5, 0), Point(1.5, 2))
    assert dataset.train[0].labels is None
    assert dataset.train_truth == {"r": (None, (1.0, 2.0))}
    assert [note.split(":")[0] for note in dataset.notes] == [
        "one",
        "class 'b' is in no training recording",
    ]
    every = dataclasses.replace(
        annotations, recordings={"r": RecordingAnnotation("train", 4.0, instances)}
    )
    labelled = assemble(every, [make("r")], [], {"database": {}}, labels_only=True)
    assert labelled.train[0].points == () and labelled.train[0].labels == (0, 2)
    assert labelled.train_truth is None
    with pytest.raises(ValueError, match="instance of 'c' .* has no point"):
        assemble(every, [make("r")], [], {"database": {}})


def test_class_notes():
    notes = class_notes(make_dataset(classes=("a", "b", "c")))
    assert len(notes) == 3
    assert "'b' has no test instance" in notes[0]
    assert "'c' is in no training recording" in notes[1]
    assert "'c' has no test instance" in notes[2]


def test_standardize():
    dataset = make_dataset()
    result = standardize(dataset)
    train = np.concatenate([recording.features for recording in result.train])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-6)
    # The test recording by hand, in float64, with the statistics of the 13 training snippets.
    raw = np.concatenate([r.features for r in dataset.train]).astype(np.float64)
    expected = (dataset.test[0].features - raw.mean(0)) / raw.std(0)
    np.testing.assert_allclose(result.test[0].features, expected, rtol=1e-5, atol=1e-6)
    assert {r.features.dtype for r in result.train + result.test} == {np.dtype(np.float32)}
    assert result.train[0].points == dataset.train[0].points
    assert result.ground_truth is dataset.ground_truth
    np.testing.assert_allclose(result.scaling.mean, raw.mean(0))
    np.testing.assert_allclose(result.scaling.scale, raw.std(0))
    np.testing.assert_array_equal(
        result.scaling.apply(dataset.test[0].features), result.test[0].features
    )


def test_standardize_ignores_the_test_set():
    dataset = make_dataset()
    other = make_dataset(test=(make("t", seed=9),))
    for one, two in zip(standardize(dataset).train, standardize(other).train, strict=True):
        np.testing.assert_array_equal(one.features, two.features)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_standardize_leaves_a_constant_feature_finite(value):
    dataset = make_dataset()
    for recording in dataset.train + dataset.test:
        recording.features[:, 1] = value
    for recording in standardize(dataset).train + standardize(dataset).test:
        np.testing.assert_allclose(recording.features[:, 1], 0, atol=1e-6 * max(value, 1))
        assert np.isfinite(recording.features).all()
