"""Points made for and put into annotations that nobody has judged."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_jax.data.annotation_files import read_annotations
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    load_annotations,
)
from tal_jax.data.files import write_json
from tal_jax.data.point_distributions import POINT_DISTRIBUTIONS, generate_points
from tal_jax.data.point_files import read_points, write_points
from tal_jax.data.point_sets import (
    convert_points,
    join_clicks,
    known_frame_rates,
)


def raw_of(classes=("a", "b"), **recordings):
    return Annotations(classes, recordings, source="gt.json")


def recording(*instances, subset="train", duration_s=10.0, frame_rate=None):
    return RecordingAnnotation(subset, duration_s, instances, frame_rate)


def make_points(annotations, **options):
    return generate_points(annotations, strict=False, **options)


def times(annotations, name):
    return [instance.point_s for instance in annotations.recordings[name].instances]


# --- making ---


@pytest.mark.parametrize("law", POINT_DISTRIBUTIONS)
def test_sound_annotations_get_the_points_of_the_generator(law):
    instances = (Instance("a", 1.0, 2.0, 1.9), Instance("b", 3.0, 9.0))
    made = make_points(raw_of(r=recording(*instances)), distribution=law, seed=3)
    sound = Annotations(("a", "b"), {"r": RecordingAnnotation("train", 10.0, instances)})
    assert made == generate_points(sound, distribution=law, seed=3) and made.notes == ()


@pytest.mark.parametrize(
    "segment", [(4.0, 4.0), (4.0, 3.0), (10.0, 11.0), (-2.0, 0.0), (None, None)]
)
def test_instances_without_a_point(segment):
    """They keep what they have otherwise, and move no other's point."""
    first, last = Instance("a", 1.0, 2.0), Instance("b", 3.0, 9.0)
    bad = raw_of(r=recording(first, Instance("a", *segment, point_s=1.0), last))
    made = make_points(bad, distribution="uniform", seed=0)
    good = raw_of(r=recording(first, Instance("a", 1.0, 5.0), last))
    expected = times(make_points(good, distribution="uniform", seed=0), "r")
    assert times(made, "r") == [expected[0], None, expected[2]]
    assert made.recordings["r"].instances[1] == Instance("a", *segment)
    assert list(made.notes) == [
        "gt.json: instances without a point, their segment being missing, empty, reversed or "
        "outside the recording: 1"
    ]


def test_segments_that_reach_out():
    raw = raw_of(r=recording(Instance("a", -1.0, 1.0), Instance("a", 8.0, 99.0)))
    made = make_points(raw, distribution="center", seed=0)
    assert times(made, "r") == [0.5, 9.0] and made.notes == ()
    assert made.recordings["r"].instances[1].end_s == 99.0


def test_one_subset():
    old = Instance("a", 1.0, 3.0, 1.1)
    raw = raw_of(r=recording(old), s=recording(old, subset="Test"), t=recording(subset="Test"))
    made = make_points(raw, distribution="center", seed=0, subset="train")
    assert times(made, "r") == [2.0] and times(made, "s") == [None] and made.notes == ()
    assert made.point_distribution == {"law": "center", "seed": 0}
    with pytest.raises(ValueError, match="gt.json: no recording of subset 'test', .* 'Test', 'tr"):
        make_points(raw, distribution="center", seed=0, subset="test")


def test_missing_durations():
    raw = raw_of(
        r=recording(Instance("a", 1.0, 3.0), Instance("a", 0.0, 2.0), duration_s=None),
        s=recording(Instance("a"), duration_s=None),
        t=recording(),
    )
    made = make_points(raw, distribution="center", seed=0)
    assert {name: r.duration_s for name, r in made.recordings.items()} == {"r": 3.0, "t": 10.0}
    assert list(made.notes) == [
        "gt.json: recordings without a duration, taken to end with their last instance: 1",
        "gt.json: recordings with neither a duration nor a time in it, left out: 1 (s)",
    ]


def test_bad_seed():
    with pytest.raises(ValueError, match="seed is -1"):
        make_points(raw_of(r=recording(Instance("a", 0.0, 1.0))), distribution="center", seed=-1)


# --- putting clicks into instances ---

small_segments = st.tuples(st.integers(0, 6), st.integers(0, 6))


@given(st.lists(small_segments, max_size=4), st.lists(st.integers(0, 6), max_size=4))
def test_as_many_clicks_as_can_be_placed(segments, points):
    instances = tuple(Instance("a", *segment) for segment in segments)
    joined = join_clicks([Instance("a", point_s=point) for point in points], instances)
    placed, loose = joined[: len(segments)], joined[len(segments) :]
    assert [(i.start_s, i.end_s) for i in placed] == segments
    assert sorted(i.point_s for i in joined if i.point_s is not None) == sorted(points)
    found = [i for i in placed if i.point_s is not None]
    assert all(i.start_s <= i.point_s < i.end_s for i in found)
    assert all(i.start_s is None for i in loose)
    # By trying every assignment of the points to the segments, or to nothing.
    places = [*range(len(segments)), *[None] * len(points)]
    assert len(found) == max(
        sum(
            place is not None and segments[place][0] <= point < segments[place][1]
            for point, place in zip(points, assignment, strict=True)
        )
        for assignment in itertools.permutations(places, len(points))
    )


def test_clicks_of_other_classes():
    joined = join_clicks([Instance("b", point_s=1.0)], [Instance("a", 0.0, 2.0, 1.5)])
    assert joined == (Instance("a", 0.0, 2.0), Instance("b", point_s=1.0))


def test_converted():
    raw = raw_of(
        r=recording(Instance("a", 1.0, 3.0, 1.5), Instance("b", 1.0, 3.0)),
        s=recording(subset="test", duration_s=None),
        t=recording(Instance("a", 0.0, 1.0), duration_s=None),
    )
    clicks = (
        Instance("b", point_s=2.0),
        Instance("b", point_s=2.5),
        Instance("a", point_s=9.0),
    )
    points = Annotations(
        ("a", "b", "c"),
        {"r": recording(*clicks), "s": recording(Instance("c", point_s=4.0))},
        point_distribution={"law": "uniform", "seed": 0},
        source="clicks.txt",
        notes=("a note",),
    )
    converted = convert_points(points, raw)
    assert (
        converted.classes == ("a", "b", "c")
        and converted.point_distribution == points.point_distribution
    )
    assert converted.recordings["r"].instances == (
        Instance("a", 1.0, 3.0),
        Instance("b", 1.0, 3.0, 2.0),
        Instance("b", point_s=2.5),
        Instance("a", point_s=9.0),
    )
    assert 4.0 < converted.recordings["s"].duration_s < 4.0001  # a point lies before the end
    assert converted.recordings["t"].duration_s == 1.0
    assert list(converted.notes) == [
        "a note",
        "clicks.txt: points in no instance of their class, or in one with another point, kept "
        "without a segment: 3",
        "gt.json: points replaced by those of clicks.txt: 1",
        "gt.json: classes that only the points have: c",
        "gt.json: recordings without a duration, taken to end with their last instance: 2",
    ]


def test_points_without_a_segment_are_replaced():
    """They leave no label without a time; labels without a time stay."""
    label = Instance("b")
    raw = raw_of(r=recording(Instance("a", point_s=3.0), label), s=recording(Instance("a", 1, 2)))
    points = raw_of(r=recording(Instance("a", point_s=5.0)))
    converted = convert_points(points, raw)
    assert converted.recordings["r"].instances == (label, Instance("a", point_s=5.0))
    assert converted.notes[-1] == "gt.json: points replaced by those of gt.json: 1"


# --- reading and writing ---


def test_frame_rates(tmp_path):
    write_json(tmp_path / "fps.json", {"r": 25, "x": 10})
    raw = raw_of(r=recording(frame_rate=30.0), s=recording(frame_rate=24.0), t=recording())
    assert known_frame_rates(raw) == {"r": 30.0, "s": 24.0}
    assert known_frame_rates(raw, tmp_path / "fps.json") == {"r": 25.0, "s": 24.0, "x": 10.0}
    assert known_frame_rates(None, tmp_path / "fps.json") == {"r": 25.0, "x": 10.0}


@pytest.mark.parametrize("suffix", [".json", ".csv", ".txt"])
def test_round_trip(tmp_path, suffix):
    raw = raw_of(
        r=recording(Instance("a", 1.0, 3.0), Instance("b", 1.0, 3.0), Instance("b")),
        s=recording(Instance("a", 2.0, 2.5)),
    )
    made = make_points(raw, distribution="uniform", seed=0)
    path, rates = tmp_path / f"points{suffix}", {"r": 30.0, "s": 29.97}
    write_points(path, made, rates)
    points, left_out = read_points(path, frame_rates=rates, annotations=raw)
    assert points.source == str(path) and points.notes == () and left_out == {}
    assert points.point_distribution == (
        {"law": "uniform", "seed": 0} if suffix == ".json" else None
    )
    converted = convert_points(points, raw)
    for name in "rs":
        assert times(converted, name) == pytest.approx(times(made, name), abs=1e-12)
    known = raw_of(r=recording())
    some, left_out = read_points(path, frame_rates={"r": 30.0}, annotations=known)
    assert list(some.recordings) == ["r"] and len(some.instances) == 2
    assert left_out == {"s": 1}
    assert some.notes == (f"{path}: points of recordings that gt.json lacks, left out: 1",)


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match="a.tsv: unknown suffix, expected .json, .csv or .txt"):
        write_points(tmp_path / "a.tsv", Annotations((), {}), {})


def test_written_json_can_be_trained_on(tmp_path):
    made = make_points(raw_of(r=recording(Instance("a", 1.0, 3.0))), distribution="uniform", seed=0)
    write_points(tmp_path / "a.json", made, {})
    assert load_annotations(tmp_path / "a.json") == made


# --- real files ---


@pytest.fixture
def real():
    if not os.environ.get("TAL_JAX_DATA"):
        pytest.skip("TAL_JAX_DATA is not set")
    return Path(os.environ["TAL_JAX_DATA"]) / "annotations"


def test_real_points_find_their_instances(real):
    """All that published points leave out are the four instances beyond the end of their video."""
    raw = read_annotations(real / "THUMOS14/gt_full.json")
    rates = known_frame_rates(raw, real / "THUMOS14/fps_dict.json")
    points, _ = read_points(
        real / "THUMOS14/point_gaussian/point_labels.csv", frame_rates=rates, annotations=raw
    )
    converted = convert_points(points, raw)
    assert converted.notes == ()
    made = make_points(raw, distribution="gaussian", seed=0, subset="Validation")
    assert made.notes[0].endswith(": 4")
    for name, recording in converted.recordings.items():
        if recording.subset == "Validation":
            assert [t is None for t in times(converted, name)] == [
                t is None for t in times(made, name)
            ]


def test_real_points_without_their_video(real):
    raw = read_annotations(real / "ActivityNet1.3/anet_anno_action.json")
    points, left_out = read_points(
        real / "ActivityNet1.3/point_labels/point_gaussian.csv",
        frame_rates=known_frame_rates(raw),
        annotations=raw,
    )
    assert len(points.instances) == 13904 - 18 and sum(left_out.values()) == 18
    assert len(points.notes) == 1 and points.notes[0].endswith("lacks, left out: 18")
