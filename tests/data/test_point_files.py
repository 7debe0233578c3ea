"""Files of points: read, written, compared."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_jax import formats
from tal_jax.data.annotation_files import read_annotations, read_frame_rates
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.point_files import (
    compare_points,
    format_comparison,
    paired_differences,
    read_points,
    write_points,
)

TABLE = """class,class_index,start_frame,stop_frame,video_id,point
Golf Swing,2,30.5,90,video_1,60
Diving,0,0,1,video_2,7.25
"""


def write(folder, text, name="points.csv"):
    (folder / name).write_text(text)
    return folder / name


def read(path, **frame_rates):
    """The points of each recording."""
    points, left_out = read_points(path, frame_rates=frame_rates)
    assert left_out == {} and points.source == str(path)
    return {name: recording.instances for name, recording in points.recordings.items()}


# --- reading ---


def test_table(tmp_path):
    path = write(tmp_path, TABLE)
    assert read(path, video_1=30.0, video_2=29.0) == {
        "video_1": (Instance("Golf Swing", point_s=2.0),),
        "video_2": (Instance("Diving", point_s=0.25),),
    }


def test_starts_and_stops_are_not_used(tmp_path):
    """Training must not learn from them, not even whether they make sense."""
    broken = write(tmp_path, TABLE.replace("30.5,90", "secret,"), "broken.csv")
    rates = {"video_1": 30.0, "video_2": 29.0}
    assert read(broken, **rates) == read(write(tmp_path, TABLE), **rates)


def test_table_of_the_least_columns(tmp_path):
    path = write(tmp_path, "point,video_id,class\n48,S1,take\n\n")
    assert read(path, S1=24.0) == {"S1": (Instance("take", point_s=2.0),)}


@pytest.mark.parametrize("header", ["", "video,seconds,label\n", "\ufeff"])
def test_list(tmp_path, header):
    path = write(tmp_path, f"{header}v_1,68.9,Golf Swing\n\n v_1, 3 ,dip\nv_2,-1e-3,dip", "a.txt")
    assert read(path) == {
        "v_1": (Instance("Golf Swing", point_s=68.9), Instance("dip", point_s=3.0)),
        "v_2": (Instance("dip", point_s=-1e-3),),
    }


def test_names_of_columns_as_names_of_classes(tmp_path):
    path = write(tmp_path, "class,4.5,point\nv_1,3,dip\n", "a.txt")
    assert list(read(path)) == ["class", "v_1"] and read(path)["class"][0].label == "point"
    assert list(formats.read_labels(path).recordings) == ["class", "v_1"]


def test_quoted_columns(tmp_path):
    header, _, rows = TABLE.partition("\n")
    quoted = ",".join(f'"{column}"' for column in header.split(","))
    rates = {"video_1": 30.0, "video_2": 29.0}
    path = write(tmp_path, f"{quoted}\n{rows}", "quoted.csv")
    assert read(path, **rates) == read(write(tmp_path, TABLE), **rates)
    path = write(tmp_path, '"video","seconds","label"\nv_1,3,dip\n', "a.txt")
    assert list(formats.read_labels(path).recordings) == ["v_1"]


def test_points_of_unknown_recordings_are_left_out(tmp_path):
    """Without their frame rates, which nobody knows."""
    annotations = Annotations((), {"video_2": RecordingAnnotation()}, source="gt.json")
    path = write(tmp_path, TABLE)
    points, left_out = read_points(path, frame_rates={"video_2": 29.0}, annotations=annotations)
    assert list(points.recordings) == ["video_2"] and left_out == {"video_1": 1}
    assert points.notes == (f"{path}: points of recordings that gt.json lacks, left out: 1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,video_id\nrun,v\n", "no column 'point', expected the columns class, video_id"),
        ("class,video_id,point\nrun,v\n", "line 2 does not have 3 fields"),
        ("class,video_id,point\nrun,v,\n", "v: point of 'run' is '', expected a finite number"),
        ("class,video_id,point\nrun,v,inf\n", "v: point of 'run' is 'inf', expected a finite"),
        ("class,class_index,video_id,point\nrun,1.5,v,3\n", "v: class_index is '1.5', expected"),
        ("v,1,run\nv,2\n", "line 2 is 'v,2', expected video,seconds,label"),
        ("v,1,run\nv,2,\n", "line 2 is 'v,2,', expected video,seconds,label"),
        ("v,1,run,fast\n", "line 1 is 'v,1,run,fast', expected video,seconds,label"),
        ("v,1,run\nvideo,seconds,label\n", "line 2: time is 'seconds', expected a finite number"),
        ("v,nan,run\n", "line 1: time is 'nan', expected a finite number"),
        ('v,1,"run\n', "line 1: unexpected end"),
        (None, "cannot read .*points.csv: No such file"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "points.csv" if text is None else write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_points(path, frame_rates={"v": 30.0})
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_frame_rate(tmp_path):
    with pytest.raises(ValueError, match="points.csv: video_2: no frame rate .* fps_dict.json"):
        read(write(tmp_path, TABLE), video_1=30.0)


# --- writing ---


def annotations_of(instances):
    return Annotations(("b c", "a"), {"r": RecordingAnnotation("train", 1e5, tuple(instances))})


def test_written_table(tmp_path):
    annotations = annotations_of(
        [Instance("a", 1.0, 3.0, 2.0), Instance("b c", point_s=1 / 3), Instance("a", 7.0, 8.0)]
    )
    write_points(tmp_path / "a.csv", annotations, {"r": 30.0})
    assert (tmp_path / "a.csv").read_text() == (
        "class,class_index,start_frame,stop_frame,video_id,point\na,1,30,90,r,60\nb c,0,,,r,10\n"
    )
    with pytest.raises(ValueError, match="b.csv: r: no frame rate"):
        write_points(tmp_path / "b.csv", annotations, {})
    assert not (tmp_path / "b.csv").exists()


times = st.floats(min_value=0, max_value=1e4)
labels = st.sampled_from(["a", "b c"])


@given(st.lists(st.tuples(labels, times), min_size=1))
def test_list_round_trip(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("list") / "a.txt"
    instances = tuple(Instance(label, point_s=time) for label, time in pairs)
    write_points(path, annotations_of(instances), {})
    assert read(path) == {"r": instances}


@given(st.lists(st.integers(0, 10**6), min_size=1), st.sampled_from([30, 29.97, 30.00003000003]))
def test_table_round_trip_of_whole_frames(tmp_path_factory, frames, rate):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    instances = tuple(Instance("a", point_s=frame / rate) for frame in frames)
    write_points(path, annotations_of(instances), {"r": rate})
    assert [int(line.split(",")[-1]) for line in path.read_text().split()[1:]] == frames
    assert read(path, r=rate) == {"r": instances}


@given(st.lists(times, min_size=1), st.floats(1, 120))
def test_table_round_trip(tmp_path_factory, seconds, rate):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    write_points(path, annotations_of(Instance("a", point_s=s) for s in seconds), {"r": rate})
    again = read(path, r=rate)["r"]
    np.testing.assert_array_max_ulp(np.array([i.point_s for i in again]), np.array(seconds), 1)


def test_comma_in_a_name(tmp_path):
    annotations = Annotations(
        ('say "a, b"',),
        {"r, 1": RecordingAnnotation("train", 9.0, (Instance('say "a, b"', point_s=2.0),))},
    )
    expected = {"r, 1": (Instance('say "a, b"', point_s=2.0),)}
    write_points(tmp_path / "a.txt", annotations, {})
    write_points(tmp_path / "a.csv", annotations, {"r, 1": 25.0})
    for name in ("a.txt", "a.csv"):
        assert read(tmp_path / name, **{"r, 1": 25.0}) == expected


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


def clicked(recordings):
    recordings = {name: RecordingAnnotation(instances=r) for name, r in recordings.items()}
    return Annotations(("a", "b", "c"), recordings)


def test_compared_by_hand():
    first = {
        "r": (*points(1.0, 5.0, 9.0), *points(2.0, label="b"), Instance("a", 0.0, 1.0)),
        "s": points(4.0),
    }
    second = {"r": (*points(9.5, 5.1), *points(7.0, label="c")), "t": points(4.0)}
    comparison = compare_points(clicked(first), clicked(second))
    assert comparison.counts == {"a": (4, 3), "b": (1, 0), "c": (0, 1)}
    assert comparison.num_matched == 2 and comparison.num_unmatched == (3, 2)
    assert comparison.median_s == pytest.approx(0.3)
    assert comparison.percentile_90_s == pytest.approx(0.46)
    assert comparison.largest_s == pytest.approx(0.5)
    assert comparison.num_positions == (0, 0) and math.isnan(comparison.mean_position[0])


def test_positions():
    first = {"r": (Instance("a", 1.0, 3.0, 1.5), Instance("a", 4.0, 8.0, 7.0))}
    second = {"r": (Instance("a", 1.0, 3.0, 2.0), Instance("a", 5.0, 5.0, 5.0))}
    comparison = compare_points(clicked(first), clicked(second))
    assert comparison.num_positions == (2, 1)
    assert comparison.mean_position == (0.5, 0.5) and comparison.position_deviation == (0.25, 0.0)


def test_table_of_a_comparison():
    first = {"r": (Instance("a", 1.0, 3.0, 1.5), *points(7.0, label="golf swing"))}
    text = format_comparison(
        compare_points(clicked(first), clicked({"r": points(2.5)})), ("one.csv", "b")
    )
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
    assert (
        format_comparison(compare_points(clicked({}), clicked({}))).splitlines()[-1] == "pairs: 0"
    )


# --- real files ---


@pytest.fixture
def real():
    if not os.environ.get("TAL_JAX_DATA"):
        pytest.skip("TAL_JAX_DATA is not set")
    return Path(os.environ["TAL_JAX_DATA"]) / "annotations"


class EveryRate(dict):
    """A frame rate for whatever recording there may be."""

    def __contains__(self, name):
        return True

    def __missing__(self, name):
        return 30.0


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
    points, _ = read_points(real / name, frame_rates=EveryRate())
    assert len(points.instances) == count


def test_real_points_of_unknown_videos(real):
    annotations = read_annotations(real / "ActivityNet1.3/anet_anno_action.json")
    path = real / "ActivityNet1.3/point_labels/point_gaussian.csv"
    _, left_out = read_points(path, frame_rates=EveryRate(), annotations=annotations)
    assert sum(left_out.values()) == 18


def test_real_points_lie_in_their_segments(real):
    """On the original videos' clock; on another they would not."""
    recordings = read_annotations(real / "THUMOS14/gt_full.json").recordings
    rates = read_frame_rates(real / "THUMOS14/fps_dict.json")
    path = real / "THUMOS14/point_gaussian/point_labels.csv"
    for name, instances in read(path, **rates).items():
        for click in instances:
            assert any(
                segment.label == click.label and segment.start_s <= click.point_s < segment.end_s
                for segment in recordings[name].instances
            )
