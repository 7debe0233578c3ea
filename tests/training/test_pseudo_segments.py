"""Pseudo segments of points: fused, annotated, or of the median length; the file and its checks."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import toy

from tal_jax._errors import InputError
from tal_jax.config import check_config
from tal_jax.data import packing
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Dataset, Point, Recording, check_dataset
from tal_jax.training import pseudo_segments

GRID = Grid(fps=10, stride_frames=5, window_frames=5)  # half a second
FAST = Grid(fps=10, stride_frames=1, window_frames=1)


def _recording(name, size, points, grid=GRID):
    features = np.zeros((size, 2), np.float32)
    points = tuple(Point(*point) for point in points)
    return Recording(name, features, grid, grid.to_seconds(float(size)) - 0.04, points)


# Class 0 has fused segments of 2 and 4 s, class 1 one that is known, class 2 none at all.
RECORDINGS = (
    _recording("x", 40, [(2.0, 0), (8.0, 0), (12.0, 1, (11.0, 12.5)), (19.0, 0)]),
    _recording("y", 90, [(1.0, 1), (4.0, 0), (4.5, 2), (8.8, 0)], FAST),
)
DATASET = Dataset(("a", "b", "c"), RECORDINGS, (), {"database": {}})


def _entry(label, start_s, end_s, score=0.5):
    return {"label": label, "segment": [start_s, end_s], "score": score}


ROUNDS = [
    {"x": [_entry("a", 1.0, 3.0), _entry("a", 6.0, 9.5)], "y": []},
    {"x": [_entry("a", 1.0, 3.0), _entry("a", 5.0, 9.5), _entry("a", 1.0, 9.0, 0.9)], "y": []},
]


def _fused():
    return pseudo_segments.fuse_rounds(DATASET, check_config(toy.config()), ROUNDS)


def test_every_point_has_a_segment():
    found = _fused()
    assert [[e["source"] for e in found[name]] for name in "xy"] == [
        ["fused", "fused", "annotated", "median"],
        ["median"] * 4,
    ]
    assert [e["label"] for e in found["y"]] == ["b", "a", "c", "a"]
    assert [e["point"] for e in found["x"]] == [2.0, 8.0, 12.0, 19.0]
    segments = [e["segment"] for name in "xy" for e in found[name]]
    # The proposal with two points is of neither; a median is one of seconds, on every clock.
    half = np.median([2.0, 4.0]) / 2
    every = np.median([2.0, 4.0, 1.5]) / 2
    want = [
        [1.0, 3.0],
        [5.5, 9.5],
        [11.0, 12.5],
        [19.0 - half, 19.96],  # the end of the recording
        [0.25, 1.75],  # of its class, in another recording
        [4.0 - half, 4.5],  # never past the next point
        [4.0, 4.5 + every],  # nor the one before; of all classes
        [8.8 - half, 8.96],
    ]
    np.testing.assert_allclose(segments, want, atol=1e-4)


def test_without_any_segment_a_point_gets_a_snippet():
    rounds = [{"x": [], "y": []}]
    bare = tuple(
        dataclasses.replace(one, points=tuple(Point(p.time_s, p.label) for p in one.points))
        for one in RECORDINGS
    )
    dataset = dataclasses.replace(DATASET, train=bare)
    found = pseudo_segments.fuse_rounds(dataset, check_config(toy.config()), rounds)
    np.testing.assert_allclose(found["x"][0]["segment"], [1.75, 2.25], atol=1e-5)
    np.testing.assert_allclose(found["y"][0]["segment"], [0.95, 1.05], atol=1e-5)


def test_a_point_after_the_last_snippet_has_a_segment_around_it():
    """Features may be two snippets shorter than their recording."""
    late = _recording("x", 38, [(2.0, 0), (19.5, 0), (19.9, 1)])
    late = dataclasses.replace(late, duration_s=19.96)
    dataset = Dataset(("a", "b"), (late,), (), {"database": {}})
    check_dataset(dataset)
    rounds = [{"x": [_entry("a", 1.0, 3.0)]}]
    found = pseudo_segments.fuse_rounds(dataset, check_config(toy.config()), rounds)
    segments = [entry["segment"] for entry in found["x"]]
    np.testing.assert_allclose(segments, [[1, 3], [18.5, 19.9], [19.5, 19.96]], atol=1e-5)
    document = pseudo_segments.to_json(found, dataset)
    pseudo_segments.check(document, dataset.train, Path("pseudo_segments.json"))


def test_the_file_comes_back():
    document = json.loads(json.dumps(pseudo_segments.to_json(_fused(), DATASET)))
    pseudo_segments.check(document, RECORDINGS, Path("pseudo_segments.json"))
    plain = packing.pack_timeline(RECORDINGS, length=96)
    got = pseudo_segments.with_segments(plain, document, RECORDINGS)
    assert got.instance_where.all() and not plain.instance_where.all()
    for row, recording in enumerate(RECORDINGS):
        entries = document["database"][recording.name]["annotations"]
        want = [recording.grid.to_snippets(np.array(entry["segment"])) for entry in entries]
        np.testing.assert_allclose(got.instances[row], want, rtol=1e-6)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda entries: entries.pop(), "3 annotations of 'x'; expected one for each of its 4"),
        (lambda entries: entries.reverse(), "the point at 19.0 s of 'x'; expected .* at 2.0 s"),
        (lambda entries: entries[0].update(segment=[4, 5]), r"segment \[4, 5\] of the point at 2"),
        (lambda entries: entries[1].pop("segment"), "segment None of the point at 8.0 s of 'x'"),
    ],
)
def test_a_broken_file_is_refused(edit, message):
    document = pseudo_segments.to_json(_fused(), DATASET)
    edit(document["database"]["x"]["annotations"])
    with pytest.raises(InputError, match=f"pseudo.json: .*{message}"):
        pseudo_segments.check(document, RECORDINGS, Path("pseudo.json"))


def test_a_corrected_segment_is_taken():
    document = pseudo_segments.to_json(_fused(), DATASET)
    document["database"]["x"]["annotations"][0]["segment"] = [0.5, 3.5]
    pseudo_segments.check(document, RECORDINGS, Path("pseudo.json"))
    plain = packing.pack_timeline(RECORDINGS, length=96)
    got = pseudo_segments.with_segments(plain, document, RECORDINGS)
    np.testing.assert_allclose(got.instances[0, 0], [1, 7], rtol=1e-6)
