"""ActivityNet's JSON: what is read, written and refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
    ground_truth_of,
    load_annotations,
    parse_annotations,
)
from tal_jax.data.files import write_json


def document(*annotations, subset="train", duration=10.0, **top):
    recording = {"subset": subset, "duration": duration, "annotations": list(annotations)}
    return {"version": "VERSION 1.3", **top, "database": {"r": recording}}


def test_reads_everything():
    values = document(
        {"label": "jump", "segment": [1, 2.5], "point": 1.5, "id": 7},
        {"label": "run", "point": 9},
        {"label": "jump", "segment": [3.0, 4.0]},
        overlapping=[["run", "jump"]],
        points={"law": "uniform", "seed": 3},
        taxonomy=[],
    )
    assert parse_annotations(values) == Annotations(
        classes=("jump", "run"),
        recordings={
            "r": RecordingAnnotation(
                "train",
                10.0,
                (
                    Instance("jump", 1.0, 2.5, 1.5),
                    Instance("run", None, None, 9.0),
                    Instance("jump", 3.0, 4.0, None),
                ),
            )
        },
        overlapping=(("run", "jump"),),
        point_distribution={"law": "uniform", "seed": 3},
    )


def test_given_classes_keep_their_order():
    values = document({"label": "run", "point": 1}, classes=["run", "jump"])
    assert parse_annotations(values).classes == ("run", "jump")


def test_other_spelling_of_the_duration():
    values = document()
    values["database"]["r"]["duration_second"] = values["database"]["r"].pop("duration")
    assert parse_annotations(values).recordings["r"].duration_s == 10.0


def test_end_rounded_up_is_cut_to_the_duration():
    values = document({"label": "run", "segment": [8.0, 10.06]})
    assert parse_annotations(values).recordings["r"].instances[0].end_s == 10.0


numbers = st.floats(min_value=0, max_value=100)


@st.composite
def instances(draw):
    start, point, end = sorted(draw(st.tuples(numbers, numbers, numbers)))
    label = draw(st.sampled_from(["jump", "run", "\u00fc \"'"]))
    if start == end or point == end:
        return Instance(label, None, None, min(point, 99.0))
    return Instance(label, start, end, draw(st.sampled_from([point, None])))


@given(st.lists(instances(), max_size=4), st.sampled_from([None, {"law": "center", "seed": 1}]))
def test_round_trip_through_json(instances, law):
    annotations = Annotations(
        classes=("run", "jump", "\u00fc \"'"),
        recordings={"a": RecordingAnnotation("train", 100.0, tuple(instances))},
        overlapping=(("run", "jump"),),
        point_distribution=law,
    )
    text = json.dumps(annotations_to_dict(annotations), allow_nan=False)
    assert parse_annotations(json.loads(text)) == annotations


BAD_RECORDINGS = {
    "backwards": ({"label": "run", "segment": [3, 2]}, "expected 0 <= start < end"),
    "empty": ({"label": "run", "segment": [3, 3]}, "expected 0 <= start < end"),
    "negative": ({"label": "run", "segment": [-1, 2]}, "expected 0 <= start < end"),
    "after the end": ({"label": "run", "segment": [3, 12]}, "within the recording's 10 s"),
    "all after the end": ({"label": "run", "segment": [10, 10.05]}, "the recording's 10 s"),
    "NaN": ({"label": "run", "segment": [math.nan, 2]}, "expected a finite number"),
    "string": ({"label": "run", "segment": ["1", "2"]}, "expected a finite number"),
    "one number": (
        {"label": "run", "segment": [1]},
        r"segment is \[1\], expected a list of length 2",
    ),
    "no list": ({"label": "run", "segment": "12"}, "segment is '12', expected a list"),
    "point before": ({"label": "run", "segment": [3, 4], "point": 2}, r"within \[3.0, 4.0\)"),
    "point at the end": ({"label": "run", "segment": [3, 4], "point": 4}, r"within \[3.0, 4.0\)"),
    "point outside": ({"label": "run", "point": 10}, r"within \[0.0, 10.0\)"),
    "point NaN": ({"label": "run", "point": math.nan}, "expected a finite number"),
    "no label": ({"segment": [1, 2]}, "missing key 'label'"),
    "label": ({"label": 3, "segment": [1, 2]}, "label is 3, expected a string"),
    "no object": (["run", 1, 2], "expected an object"),
}


@pytest.mark.parametrize("case", BAD_RECORDINGS)
def test_bad_instances(case):
    annotation, message = BAD_RECORDINGS[case]
    with pytest.raises(ValueError, match=message) as error:
        parse_annotations(document(annotation), source="file.json")
    assert str(error.value).startswith("file.json: r: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["subset", "duration", "annotations"])
def test_missing_keys(key):
    values = document()
    del values["database"]["r"][key]
    with pytest.raises(ValueError, match=f"r: missing key '{key}'"):
        parse_annotations(values)


@pytest.mark.parametrize("duration", [0, -1, math.nan, math.inf, "10", None])
def test_bad_durations(duration):
    with pytest.raises(ValueError, match="r: duration is"):
        parse_annotations(document(duration=duration))


@pytest.mark.parametrize(
    "top, message",
    [
        ({"classes": ["jump"]}, "r: unknown class 'run', expected one of jump"),
        ({"classes": ["run", "run"]}, "expected different strings"),
        ({"classes": "run"}, "expected a list"),
        ({"overlapping": [["run", "walk"]]}, "overlapping: unknown class 'walk'"),
        ({"overlapping": [["run", "run"]]}, "expected a pair of different classes"),
        ({"points": "uniform"}, "expected an object"),
    ],
)
def test_bad_top_level(top, message):
    with pytest.raises(ValueError, match=message):
        parse_annotations(document({"label": "run", "point": 1}, **top))


@pytest.mark.parametrize("values", [{}, [], {"database": []}, {"database": {"r": 3}}])
def test_no_database(values):
    with pytest.raises(ValueError, match="annotations: "):
        parse_annotations(values)


def test_recording_named_twice(tmp_path):
    path = tmp_path / "a.json"
    entry = '"r": {"subset": "train", "duration": 1, "annotations": []}'
    path.write_text(f'{{"database": {{{entry}, {entry}}}}}')
    with pytest.raises(ValueError, match="a.json: key 'r' occurs twice"):
        load_annotations(path)


def test_errors_name_the_file(tmp_path):
    write_json(tmp_path / "a.json", document({"label": "run", "segment": [3, 2]}))
    with pytest.raises(ValueError, match="a.json: r: segment"):
        load_annotations(tmp_path / "a.json")


def test_ground_truth():
    values = document(
        {"label": "run", "segment": [1, 2], "point": 1.5}, subset="Validation", points={"seed": 0}
    )
    values["database"]["other"] = {"subset": "Test", "duration": 1.0, "annotations": []}
    assert ground_truth_of(parse_annotations(values), ["r"]) == {
        "version": "VERSION 1.3",
        "classes": ["run"],
        "database": {
            "r": {
                "subset": "test",
                "duration": 10.0,
                "annotations": [{"label": "run", "segment": [1.0, 2.0]}],
            }
        },
    }


def test_ground_truth_needs_segments():
    annotations = parse_annotations(document({"label": "run", "point": 1}))
    with pytest.raises(ValueError, match="r: instance of 'run' .point: 1.0. has no segment"):
        ground_truth_of(annotations, ["r"])


@pytest.mark.parametrize("place", ["name", "label"])
def test_names_and_labels_are_unicode(place):
    text = {"name": "clip", "label": "jump"} | {place: "caf\udce9"}
    jump = {"label": text["label"], "segment": [1.0, 2.0], "point": 1.5}
    entry = {"subset": "train", "duration": 9.0, "annotations": [jump]}
    with pytest.raises(ValueError, match=r"^a: 'caf\\udce9' is no Unicode, .* UTF-8; rename it$"):
        parse_annotations({"database": {text["name"]: entry}}, source="a")
