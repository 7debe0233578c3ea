"""Recordings side by side: what is packed, and where."""

import dataclasses

import jax
import numpy as np
import pytest

from tal_jax.data import timeline as timelines
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import open_features
from tal_jax.data.packing import bucket, pack_features, pack_timeline, spacious
from tal_jax.data.recordings import Point, Recording

GRID = Grid(fps=10, stride_frames=5, window_frames=10)  # two snippets a second


def make(name, length, points=(), dtype=np.float32):
    features = np.random.default_rng(length).normal(size=(length, 3)).astype(dtype)
    return Recording(name, features, GRID, length / 2, points)


RECORDINGS = (
    make("a", 4, (Point(0.3, 7), Point(0.9, 2), Point(1.75, 7))),
    make("b", 6),
    make("c", 1, (Point(0.0, 5),), np.float16),
)


def pack(recordings, *, num_rows=0, **sizes):
    features = pack_features(recordings, num_rows=num_rows)
    return timelines.with_features(pack_timeline(recordings, **sizes), features)


@pytest.mark.parametrize(
    "size, step, expected", [(0, 8, 8), (1, 8, 8), (8, 8, 8), (9, 8, 16), (750, 1, 750)]
)
def test_bucket(size, step, expected):
    assert bucket(size, step) == expected


@pytest.mark.parametrize("size", [1, 17, 100, 8269, 65_000, 1_000_000])
def test_spacious_has_room_but_not_much(size):
    assert size <= spacious(size) <= size * 17 / 16


def test_sets_of_similar_size_share_a_shape():
    assert len({spacious(size) for size in range(8_200, 8_700)}) == 1


def test_features_lie_one_recording_after_another():
    packed = pack(RECORDINGS, length=6, num_rows=14)
    assert packed.features.shape == (14, 3) and packed.features.dtype == np.float32
    assert packed.where.sum(axis=1).tolist() == [4, 6, 1]
    assert packed.first.tolist() == [0, 4, 10]
    for first, recording in zip(packed.first, RECORDINGS, strict=True):
        rows = packed.features[first : first + len(recording.features)]
        np.testing.assert_array_equal(rows, recording.features)
    assert not packed.features[11:].any()
    assert packed.where.all(axis=1).tolist() == [False, True, False]


def test_known_segments():
    """In snippets; all of them are known, and count where no point of the recording lacks one."""
    all_known = (Point(0.3, 7, (0.0, 0.75)), Point(0.9, 2, (0.8, 2.0)))
    some_known = (Point(0.3, 7), Point(0.9, 2, (0.8, 2.0)))
    recordings = make("a", 4, all_known), make("b", 6, some_known), make("c", 5), RECORDINGS[0]
    packed = pack_timeline(recordings, length=6)
    assert packed.known.tolist() == [[True, True, False], [False, True, False], *2 * [[False] * 3]]
    assert packed.instance_where.tolist() == [[True, True, False], *3 * [[False] * 3]]
    want = np.zeros((4, 3, 2), np.float32)
    want[0, :2] = (0.0, 1.5), (1.6, 4.0)
    want[1, 1] = 1.6, 4.0
    np.testing.assert_array_equal(packed.instances, want)


def test_half_precision_stays_half():
    assert pack(RECORDINGS[2:], length=6).features.dtype == np.float16


def test_what_files_hold_is_checked_when_it_is_read(tmp_path):
    values = np.zeros((4, 3), np.float32)
    values[2, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    recording = dataclasses.replace(RECORDINGS[0], features=open_features([tmp_path / "a.npy"]))
    with pytest.raises(ValueError, match="a: feature 1 of snippet 2 is nan"):
        pack([recording], length=6)


def test_points_become_snippets_and_video_classes():
    packed = pack(RECORDINGS, length=6)
    # Classes in order: 2 has index 0, 7 index 1.
    assert packed.video_classes.tolist() == [[2, 7], [0, 0], [5, 0]]
    assert packed.video_class_where.tolist() == [[True, True], [False, False], [True, False]]
    np.testing.assert_allclose(packed.point_times, [[0.6, 1.8, 3.5], [0] * 3, [0] * 3], rtol=1e-6)
    assert packed.point_class_index.tolist() == [[1, 0, 1], [0] * 3, [0] * 3]
    assert packed.point_where.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    labels = np.take_along_axis(packed.video_classes, packed.point_class_index, axis=1)
    assert labels[packed.point_where].tolist() == [7, 2, 7, 5]


def test_types_are_those_of_the_device():
    packed = pack(RECORDINGS, length=6)
    types = {"features": "float32", "point_times": "float32"}
    types |= {"point_class_index": "int32", "video_classes": "int32", "first": "int32"}
    for name in ("where", "point_where", "video_class_where"):
        types[name] = "bool"
    assert {name: getattr(packed, name).dtype.name for name in types} == types


def test_room_for_more_is_left_empty():
    packed = pack(RECORDINGS, length=9, num_points=5, num_video_classes=4)
    assert packed.features.shape == (11, 3) and packed.where.shape == (3, 9)
    assert packed.point_times.shape == packed.point_where.shape == (3, 5)
    assert packed.video_classes.shape == packed.video_class_where.shape == (3, 4)
    tight = pack(RECORDINGS, length=6)
    np.testing.assert_array_equal(packed.point_times[:, :3], tight.point_times)
    np.testing.assert_array_equal(packed.video_classes[:, :2], tight.video_classes)
    assert packed.point_where.sum() == 4 and packed.video_class_where.sum() == 3
    # Too little room grows.
    assert pack(RECORDINGS, length=6, num_points=1, num_video_classes=1).point_times.shape == (3, 3)


def test_recordings_without_points_keep_one_empty_place():
    packed = pack(RECORDINGS[1:2], length=6)
    assert packed.point_times.shape == packed.video_classes.shape == (1, 1)
    assert not packed.point_where.any() and not packed.video_class_where.any()


def test_timelines_are_a_pytree():
    doubled = jax.tree.map(lambda values: values * 2, pack(RECORDINGS, length=6))
    assert isinstance(doubled, timelines.Timeline)
    assert doubled.first.tolist() == [0, 8, 20]


def test_too_long():
    with pytest.raises(ValueError, match="b: 6 snippets; expected at most 5"):
        pack(RECORDINGS, length=5)
