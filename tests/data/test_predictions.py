"""Score sequences in a file: what is written comes back bit by bit, what is broken is refused."""

import json
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import (
    Predictions,
    RecordingPredictions,
    activitynet_json,
    join_rows,
    read_predictions,
    read_results,
    rows_of,
    write_predictions,
    write_results,
)

GRID = Grid(fps=30000 / 1001, stride_frames=16, window_frames=24)


def _sequence(length, cumulative, seed=0):
    rng = np.random.default_rng(seed)
    said = rng.normal(size=(length, 3)), rng.random(length), rng.random(3), cumulative
    return Predictions(*(values.astype(np.float32) for values in said))


def _recording(long=False):
    original = _sequence(7, np.arange(8))
    last = _sequence(9, np.array([0, 1, 2, 4, 6, 7, 8, 9]), seed=1) if long else original
    return RecordingPredictions(GRID, 3.7, original, last)


def test_round_trip(tmp_path):
    written = {"a": _recording(), "b/c": _recording(long=True), "b": _recording()}
    write_predictions(tmp_path / "s.npz", written)
    found = read_predictions(tmp_path / "s.npz")
    assert list(found) == list(written)
    for name, one in written.items():
        assert found[name].grid == one.grid and found[name].duration_s == one.duration_s
        assert (found[name].last is found[name].original) == (one.last is one.original)
        for timeline in ("original", "last"):
            left, right = getattr(found[name], timeline), getattr(one, timeline)
            for part in ("cas", "actionness", "video_scores", "cumulative"):
                value = getattr(left, part)
                assert value.dtype == np.float32
                np.testing.assert_array_equal(value, getattr(right, part))


def test_layout(tmp_path):
    """As the module says; other programs read it, too."""
    write_predictions(tmp_path / "s.npz", {"x/y": _recording(long=True)})
    shapes = {name: array.shape for name, array in files.read_npz(tmp_path / "s.npz").items()}
    assert shapes == {
        "x/y/clock": (4,),
        **{"x/y/scores": (7, 3), "x/y/foreground": (7,), "x/y/video": (3,)},
        **{"x/y/long_scores": (9, 3), "x/y/long_foreground": (9,), "x/y/long_video": (3,)},
        "x/y/cumulative": (8,),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a/video": None}, "no array 'a/video'; expected predictions that tal_jax saved"),
        ({"a/clock": None}, "no array 'a/clock'"),
        ({"a/cumulative": None}, "no array 'a/cumulative'"),
        ({"a/long_video": None}, "no array 'a/long_video'"),
        ({"scores": np.zeros(3)}, "no array '/clock'"),
        ({"a/scores": np.zeros((7, 3))}, "a/scores is float64 [7, 3], not float32 [any, any]"),
        ({"a/scores": np.zeros((0, 3), np.float32)}, "a/scores is float32 [0, 3], not "),
        ({"a/foreground": np.zeros(6, np.float32)}, "a/foreground is float32 [6], not float32 [7]"),
        ({"a/long_scores": np.zeros((9, 2), np.float32)}, "[9, 2], not float32 [any, 3]"),
        ({"a/cumulative": np.zeros(9, np.float32)}, "a/cumulative is float32 [9], not float32 [8]"),
        ({"a/video": np.full(3, np.nan, np.float32)}, "a/video holds NaN or infinity"),
        ({"a/clock": np.zeros(4)}, "grid: fps is 0.0, expected a finite number above 0"),
    ],
)
def test_broken_files_are_refused(tmp_path, change, message):
    path = tmp_path / "s.npz"
    write_predictions(path, {"a": _recording(long=True)})
    arrays = files.read_npz(path) | change
    files.write_npz(path, {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.npz"):
        read_predictions(tmp_path / "none.npz")


# --- detections ---


def _results():
    rng = np.random.default_rng(0)
    return {
        name: [
            {
                "label": str(rng.choice(["jump", "ж"])),
                "score": float(rng.normal()),
                "segment": np.sort(rng.uniform(0, 9, 2)).tolist(),
            }
            for _ in range(size)
        ]
        for name, size in {"a": 3, 'b "c\n': 0, "d": 1}.items()
    }


def test_detections_in_a_file(tmp_path):
    path, results = tmp_path / "d.json", _results()
    write_results(path, results)
    assert json.loads(path.read_text()) == activitynet_json(results)
    found = read_results(path)
    assert found == results and list(found) == list(results)
    assert max(map(len, path.read_text().splitlines())) < 120
    write_results(path, found)  # rows
    assert read_results(path) == results
    # However it is laid out, and whatever else is in it.
    for text in (
        json.dumps({"x": [1, {"results": 3}], "results": results, "y": None}),
        " " + json.dumps(activitynet_json(results), indent=7, ensure_ascii=False) + "\n\n",
    ):
        path.write_text(text)
        assert read_results(path) == results
    write_results(path, {})
    assert read_results(path) == {}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, {"a": [{"score": math.nan}]})
    assert read_results(path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting|expected an object"),
        ("[]", "no ActivityNet detections, expected an object with 'results'"),
        ("{}", "no ActivityNet detections, expected an object with 'results'"),
        ('{"results": []}', "no ActivityNet detections, expected an object with 'results'"),
        ('{"results": {"a": []}', "Expecting ','"),
        ('{"results": {"a": []}} x', "Expecting ''"),
        ('{"results": {"a": [], "a": []}}', "key 'a' occurs twice"),
        ('{"results": {}, "results": {}}', "key 'results' occurs twice"),
        ('{"results": {"a": [{"label": "x", "label": "y"}]}}', "key 'label' occurs twice"),
        ('{"results": {"a": [],}}', "Expecting a name"),
        ('{"results": {"a" []}}', "Expecting ':'"),
        ('{"results": {a: []}}', "Expecting a name"),
        ('{"results": {"a": 3}}', "a: got 3, expected a list"),
        ('{"results": {"a": [{"label": "x", "segment": [0, 1]}]}}', "missing key 'score'"),
        ('{"results": {"a": [{"label": "x", "segment": [0], "score": 1}]}}', "segment"),
    ],
)
def test_what_is_no_file_of_detections(tmp_path, text, message):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}: ")


@hypothesis.given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    ),
    st.sampled_from([None, 1]),
)
def test_members_are_those_that_json_reads(tmp_path_factory, value, indent):
    path = tmp_path_factory.getbasetemp() / "members.json"
    path.write_text(json.dumps({"first": value, "key": value, "last": 0}, indent=indent))
    found = list(files.read_members(path, "key", "thing"))
    assert found == list(value.items())


def test_rows_take_the_place_of_a_list():
    entries = _results()["a"]
    rows = rows_of(entries)
    assert rows == entries and entries == list(rows) and rows != entries[:2] and len(rows) == 3
    assert rows[1:] == entries[1:] and rows[-1] == entries[-1] and repr(rows) == repr(entries)
    assert rows_of(rows) is rows and rows_of([]) == [] and not rows_of([])
    assert json.loads(json.dumps(rows[0])) == entries[0]
    other = _results()["d"]
    assert join_rows([entries, [], rows_of(other), rows]) == [*entries, *other, *entries]
    assert join_rows([]) == join_rows([[]]) == []
