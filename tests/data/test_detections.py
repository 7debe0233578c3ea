"""Detections as rows and in files: what is written comes back, what is no such file is refused."""

import json
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.detections import (
    activitynet_json,
    join_rows,
    read_results,
    rows_of,
    write_results,
)


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
