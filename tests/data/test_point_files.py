"""Files of points: read, written, compared."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.point_files import (
    Click,
    PointFile,
    clicks_by_recording,
    compare_points,
    format_comparison,
    paired_differences,
    read_point_file,
    write_click_list,
    write_point_csv,
)
from tal_jax.data.raw_annotations import read_frame_rates, read_raw

TABLE = """class,class_index,start_frame,stop_frame,video_id,point
Golf Swing,2,30.5,90,video_1,60
Diving,0,0,1,video_2,7.25
"""


def write(folder, text, name="points.csv"):
    (folder / name).write_text(text)
    return folder / name


# --- reading ---


def test_table(tmp_path):
    path = write(tmp_path, TABLE)
    clicks = (Click("video_1", "Golf Swing", 60.0, 2), Click("video_2", "Diving", 7.25, 0))
    points = read_point_file(path)
    assert points == PointFile("point csv", str(path), "frames", clicks)
    assert clicks_by_recording(points, {"video_1": 30.0, "video_2": 29.0}) == {
        "video_1": (Instance("Golf Swing", point_s=2.0),),
        "video_2": (Instance("Diving", point_s=0.25),),
    }


def test_starts_and_stops_are_not_looked_at(tmp_path):
    """Training must not learn from them, not even whether they make sense."""
    broken = TABLE.replace("30.5,90", "secret,")
    assert read_point_file(write(tmp_path, broken, "broken.csv")).clicks == (
        read_point_file(write(tmp_path, TABLE)).clicks
    )


def test_table_of_the_least_columns(tmp_path):
    path = write(tmp_path, "point,video_id,class\n48,S1,take\n\n")
    assert read_point_file(path).clicks == (Click("S1", "take", 48.0),)


@pytest.mark.parametrize("header", ["", "video,seconds,label\n", "\ufeff"])
def test_list(tmp_path, header):
    path = write(tmp_path, f"{header}v_1,68.9,Golf Swing\n\n v_1, 3 ,dip\nv_2,-1e-3,dip", "a.txt")
    points = read_point_file(path)
    clicks = (
        Click("v_1", "Golf Swing", 68.9),
        Click("v_1", "dip", 3.0),
        Click("v_2", "dip", -1e-3),
    )
    assert points == PointFile("click list", str(path), "seconds", clicks)
    assert clicks_by_recording(points, {})["v_1"] == (
        Instance("Golf Swing", point_s=68.9),
        Instance("dip", point_s=3.0),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,video_id\nrun,v\n", "no column 'point', expected the columns class, video_id"),
        ("class,video_id,point\nrun,v\n", "line 2 does not have 3 fields"),
        ("class,video_id,point\nrun,v,\n", "v: point of 'run' is '', expected a finite number of"),
        ("class,video_id,point\nrun,v,inf\n", "v: point of 'run' is 'inf', expected a finite"),
        ("class,class_index,video_id,point\nrun,1.5,v,3\n", "v: class_index is '1.5', expected"),
        ("v,1,run\nv,2\n", "line 2 is 'v,2', expected video,seconds,label"),
        ("v,1,run\nv,2,\n", "line 2 is 'v,2,', expected video,seconds,label"),
        ("v,1,run,fast\n", "line 1 is 'v,1,run,fast', expected video,seconds,label"),
        ("v,1,run\nvideo,seconds,label\n", "line 2: time is 'seconds', expected a finite number"),
        ("v,nan,run\n", "line 1: time is 'nan', expected a finite number of seconds"),
        ('v,1,"run\n', "line 1: unexpected end"),
        (None, "cannot read .*points.csv: No such file"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "points.csv" if text is None else write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_point_file(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_frame_rate(tmp_path):
    points = read_point_file(write(tmp_path, TABLE))
    with pytest.raises(ValueError, match="points.csv: video_2: no frame rate .* fps_dict.json"):
        clicks_by_recording(points, {"video_1": 30.0})


# --- writing ---


def annotations_of(instances):
    return Annotations(("b c", "a"), {"r": RecordingAnnotation("train", 1e5, tuple(instances))})


def test_written_table(tmp_path):
    annotations = annotations_of(
        [Instance("a", 1.0, 3.0, 2.0), Instance("b c", point_s=1 / 3), Instance("a", 7.0, 8.0)]
    )
    write_point_csv(tmp_path / "a.csv", annotations, {"r": 30.0})
    assert (tmp_path / "a.csv").read_text() == (
        "class,class_index,start_frame,stop_frame,video_id,point\na,1,30,90,r,60\nb c,0,,,r,10\n"
    )
    with pytest.raises(ValueError, match="b.csv: r: no frame rate"):
        write_point_csv(tmp_path / "b.csv", annotations, {})
    assert not (tmp_path / "b.csv").exists()


times = st.floats(min_value=0, max_value=1e4)
labels = st.sampled_from(["a", "b c"])


@given(st.lists(st.tuples(labels, times), min_size=1))
def test_list_round_trip(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("list") / "a.txt"
    instances = tuple(Instance(label, point_s=time) for label, time in pairs)
    write_click_list(path, annotations_of(instances))
    assert clicks_by_recording(read_point_file(path), {}) == {"r": instances}


@given(st.lists(st.integers(0, 10**6), min_size=1), st.sampled_from([30, 29.97, 30.00003000003]))
def test_table_round_trip_of_whole_frames(tmp_path_factory, frames, rate):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    instances = tuple(Instance("a", point_s=frame / rate) for frame in frames)
    write_point_csv(path, annotations_of(instances), {"r": rate})
    assert [int(line.split(",")[-1]) for line in path.read_text().split()[1:]] == frames
    assert clicks_by_recording(read_point_file(path), {"r": rate}) == {"r": instances}


@given(st.lists(times, min_size=1), st.floats(1, 120))
def test_table_round_trip(tmp_path_factory, seconds, rate):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    write_point_csv(path, annotations_of(Instance("a", point_s=s) for s in seconds), {"r": rate})
    again = clicks_by_recording(read_point_file(path), {"r": rate})["r"]
    np.testing.assert_array_max_ulp(np.array([i.point_s for i in again]), np.array(seconds), 1)


def test_comma_in_a_name(tmp_path):
    annotations = Annotations(
        ('say "a, b"',),
        {"r, 1": RecordingAnnotation("train", 9.0, (Instance('say "a, b"', point_s=2.0),))},
    )
    expected = {"r, 1": (Instance('say "a, b"', point_s=2.0),)}
    write_click_list(tmp_path / "a.txt", annotations)
    write_point_csv(tmp_path / "a.csv", annotations, {"r, 1": 25.0})
    for name in ("a.txt", "a.csv"):
        assert clicks_by_recording(read_point_file(tmp_path / name), {"r, 1": 25.0}) == expected


# --- comparing ---


def points(*times, label="a"):
    return tuple(Instance(label, point_s=time) for time in times)


def least_sum(first, second):
    """The least sum of differences over all one-to-one pairings, by trying them."""
    few, many = sorted([first, second], key=len)
    return min(
        sum(abs(a - b) for a, b in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )


small = st.lists(st.integers(0, 12), max_size=5)


@given(small, small)
def test_pairs_have_the_least_sum(first, second):
    differences = paired_differences(first, second)
    assert len(differences) == min(len(first), len(second))
    assert sum(differences) == least_sum(first, second)
    assert sorted(differences) == sorted(paired_differences(second, first))


def test_compared_by_hand():
    first = {
        "r": (*points(1.0, 5.0, 9.0), *points(2.0, label="b"), Instance("a", 0.0, 1.0)),
        "s": points(4.0),
    }
    second = {"r": (*points(9.5, 5.1), *points(7.0, label="c")), "t": points(4.0)}
    comparison = compare_points(first, second)
    assert comparison.counts == {"a": (4, 3), "b": (1, 0), "c": (0, 1)}
    assert comparison.num_matched == 2 and comparison.num_unmatched == (3, 2)
    assert comparison.median_s == pytest.approx(0.3)
    assert comparison.percentile_90_s == pytest.approx(0.46)
    assert comparison.largest_s == pytest.approx(0.5)
    assert comparison.num_positions == (0, 0) and math.isnan(comparison.mean_position[0])


def test_positions():
    first = {"r": (Instance("a", 1.0, 3.0, 1.5), Instance("a", 4.0, 8.0, 7.0))}
    second = {"r": (Instance("a", 1.0, 3.0, 2.0), Instance("a", 5.0, 5.0, 5.0))}
    comparison = compare_points(first, second)
    assert comparison.num_positions == (2, 1)
    assert comparison.mean_position == (0.5, 0.5) and comparison.position_deviation == (0.25, 0.0)


def test_table_of_a_comparison():
    first = {"r": (Instance("a", 1.0, 3.0, 1.5), *points(7.0, label="golf swing"))}
    text = format_comparison(compare_points(first, {"r": points(2.5)}), ("one.csv", "b"))
    assert text.splitlines() == [
        "                    one.csv    b",
        "a                         1    1",
        "golf swing                1    0",
        "all classes               2    1",
        "unmatched                 1    0",
        "in a known segment        1    0",
        "mean position         0.250  nan",
        "its deviation         0.000  nan",
        "pairs: 1, apart by 1.000 s (median), 1.000 s (90th percentile), 1.000 s (largest)",
    ]
    assert format_comparison(compare_points({}, {})).splitlines()[-1] == "pairs: 0"


# --- real files ---


@pytest.fixture
def real():
    if "TAL_JAX_DATA" not in os.environ:
        pytest.skip("TAL_JAX_DATA is not set")
    return Path(os.environ["TAL_JAX_DATA"]) / "annotations"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("THUMOS14/point_gaussian/point_labels.csv", 3003),
        ("GTEA/point_labels/point_gaussian.csv", 367),
        ("BEOID/point_labels/point_gaussian.csv", 594),
        ("ActivityNet1.3/point_labels/point_gaussian.csv", 13904),
    ],
)
def test_real_points(real, name, count):
    points = read_point_file(real / name)
    assert points.kind == "point csv" and len(points.clicks) == count
    assert all((click.label_index is not None) == ("THUMOS14" in name) for click in points.clicks)


def test_real_points_of_unknown_videos(real):
    known = read_raw(real / "ActivityNet1.3/anet_anno_action.json").recordings
    points = read_point_file(real / "ActivityNet1.3/point_labels/point_gaussian.csv")
    assert sum(click.recording not in known for click in points.clicks) == 18


def test_real_points_lie_in_their_segments(real):
    """On the original videos' clock; on another they would not."""
    recordings = read_raw(real / "THUMOS14/gt_full.json").recordings
    points = read_point_file(real / "THUMOS14/point_gaussian/point_labels.csv")
    rates = read_frame_rates(real / "THUMOS14/fps_dict.json")
    for name, instances in clicks_by_recording(points, rates).items():
        for click in instances:
            assert any(
                segment.label == click.label and segment.start_s <= click.point_s < segment.end_s
                for segment in recordings[name].instances
            )
