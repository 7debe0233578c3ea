"""What a fingerprint notices of a data set, and what it does not mind."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tal_jax.data import fingerprint as module
from tal_jax.data import lazy_features
from tal_jax.data.clock import Grid
from tal_jax.data.fingerprint import Fingerprint, differences, fingerprint
from tal_jax.data.lazy_features import open_features
from tal_jax.data.recordings import Dataset, Point, Recording, Scaling

GRID = Grid(25.0, 10.0, 20.0)


def _recording(name, seed=0, features=None, **more):
    if features is None:
        features = np.random.default_rng(seed).normal(size=(50, 4)).astype(np.float32)
    return Recording(name, features, GRID, 20.0, **more)


def _dataset(**changes):
    truth = {
        "c": {"subset": "test", "duration": 20.0, "annotations": [
            {"label": "jump", "segment": [1.0, 2.0]},
        ]},
    }  # fmt: skip
    dataset = Dataset(
        classes=("jump", "run"),
        train=(
            _recording("a", points=(Point(3.0, 0), Point(8.0, 1))),
            _recording("b", seed=1, points=(Point(5.5, 1),)),
        ),
        test=(_recording("c", seed=2),),
        ground_truth={"database": truth},
    )
    return dataclasses.replace(dataset, **changes)


def _changes(**changes):
    return differences(fingerprint(_dataset()), fingerprint(_dataset(**changes)))


def test_overlapping_classes():
    """They count, whatever their order, but not against runs that did not record them."""
    before, after = fingerprint(_dataset()), fingerprint(_dataset(overlapping=((1, 0),)))
    assert differences(before, after) == ["overlapping classes were none, now jump/run"]
    assert differences(after, fingerprint(_dataset(overlapping=((0, 1),)))) == []
    assert Fingerprint.from_dict(json.loads(json.dumps(after.to_dict()))) == after
    older = after.to_dict()
    del older["overlapping"]
    assert differences(Fingerprint.from_dict(older), after) == []


def test_known_segments():
    """They count by their values; where there are none, the hashes are those of points alone."""

    def with_segment(segment_s):
        points = Point(3.0, 0, segment_s), Point(8.0, 1)
        return _dataset(train=(_recording("a", points=points), _dataset().train[1]))

    none, some, other = map(with_segment, (None, (2.0, 4.0), (2.0, 4.5)))
    expected = ["other labels in training: 1 recording (a)"]
    assert differences(fingerprint(none), fingerprint(some)) == expected
    assert differences(fingerprint(some), fingerprint(other)) == expected
    assert fingerprint(none).train["a"].labels == "000e780fe0f95f74"


def test_the_same_data_are_the_same():
    assert _changes() == []
    again = Fingerprint.from_dict(json.loads(json.dumps(fingerprint(_dataset()).to_dict())))
    assert differences(again, fingerprint(_dataset())) == []


@pytest.mark.parametrize("points", [
    (Point(3.0, 0),),  # one fewer
    (Point(3.0, 0), Point(8.25, 1)),  # one moved
    (Point(3.0, 1), Point(8.0, 0)),  # swapped: the same counts and sums
])  # fmt: skip
def test_points(points):
    train = (_recording("a", points=points), _dataset().train[1])
    assert _changes(train=train) == ["other labels in training: 1 recording (a)"]


def test_video_classes_and_durations():
    first, second = _dataset().train
    train = (dataclasses.replace(first, labels=(0,)), dataclasses.replace(second, duration_s=19.5))
    assert _changes(train=train) == ["other labels in training: 2 recordings (a, b)"]


def test_names_of_classes():
    line = "classes were jump, run, now jump, walk"
    labels = "other labels in training: 2 recordings (a, b)"
    assert _changes(classes=("jump", "walk")) == [line, labels]


def test_test_segments():
    truth = json.loads(json.dumps(_dataset().ground_truth))
    truth["database"]["c"]["annotations"][0]["segment"][1] = 2.5
    assert _changes(ground_truth=truth) == ["other labels in test: 1 recording (c)"]


def test_features_of_the_same_length():
    other = _recording("c", seed=3)
    assert _changes(test=(other,)) == ["other features in test: 1 recording (c)"]
    last = _dataset().test[0].features.copy()
    last[-1, -1] = np.nextafter(last[-1, -1], np.float32(9))
    assert _changes(test=(_recording("c", features=last),)) == [
        "other features in test: 1 recording (c)"
    ]


def test_recordings_that_come_and_go():
    train = (_dataset().train[0], _recording("d", seed=4, points=(Point(1.0, 0),)))
    assert _changes(train=train) == [
        "added to training: 1 recording (d)",
        "left out of training: 1 recording (b)",
    ]


def test_where_features_are_does_not_matter(tmp_path):
    """In memory, in a file, in a copy of it, standardised or not."""
    array = _dataset().test[0].features
    np.save(tmp_path / "c.npy", array)
    shutil.copy(tmp_path / "c.npy", tmp_path / "copy.npy")
    for name in ("c.npy", "copy.npy"):
        features = open_features([tmp_path / name])
        assert _changes(test=(_recording("c", features=features),)) == []
    scaled = Scaling(np.zeros(4), np.full(4, 2.0)).apply(features)
    assert _changes(test=(_recording("c", features=scaled),)) == []


@pytest.mark.parametrize("row", [0, 4321, 9999])
def test_large_features_are_hashed_in_part(monkeypatch, row):
    """All parts together reach everywhere here; what matters is that both ends count."""
    monkeypatch.setattr(lazy_features, "_MOST_BYTES", 9_000 * 16)
    monkeypatch.setattr(lazy_features, "_NUM_PARTS", 9)
    array = np.random.default_rng(5).normal(size=(10_000, 4)).astype(np.float32)
    anew = array.copy()
    anew[row] += 1
    hashes = [module._of_features(one) for one in (array, array.copy(), anew)]
    assert hashes[0] == hashes[1]
    if row in (0, 9999):
        assert hashes[0] != hashes[2]
    assert hashes[0] != module._of_features(array + np.float32(1e-3))
