"""The files of a prediction: what they hold, and which existing files they replace."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.extraction import Table
from tal_jax.inference.predict_file import Prediction
from tal_jax.report.prediction import output_files, write_prediction


def _prediction(path, **changes):
    """One detection in a recording of four snippets."""
    values = np.full((4, 2), 0.5, np.float32)
    sequence = Predictions(values, values[:, 0], values[0], np.arange(5, dtype=np.float32))
    scores = RecordingPredictions(Grid(10, 5, 5), 2.0, sequence, sequence)
    detections = [{"label": "sit", "score": 0.5, "segment": [0.25, 1.5]}]
    one = Prediction(path.stem, path, 2.0, detections, scores, 0.25, ("walk", "sit"))
    return dataclasses.replace(one, **changes)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "waik in the párk.csv"
    path.write_text("time_s,ax\n0,1\n1,2\n")
    return path


def test_files_of_a_prediction(table, tmp_path):
    film = tmp_path / "film.mp4"
    signals = Table(np.arange(2.0), np.ones((2, 1)), ("ax",))
    for file, source in ((film, {"media": film}), (table, {"signals": signals})):
        found = _prediction(file, **source)
        written = write_prediction(found, tmp_path / "out" / f"{file.stem}.json")
        assert [path.suffix for path in written] == [".json", ".html", ".csv", ".srt"]
        results = json.loads(written[0].read_text())["results"]
        assert results == {file.stem: found.detections}
        page = written[1].read_text()
        assert ("film.mp4" in page) == (file == film)
        with open(written[2], newline="") as lines:
            (row,) = csv.DictReader(lines)
        assert (row["label"], float(row["start_s"]), float(row["end_s"])) == ("sit", 0.25, 1.5)
        assert "00:00:00,250 --> 00:00:01,500\nsit" in written[3].read_text()
    with pytest.raises(ValueError, match="film.mp4: expected a name that ends in .json"):
        write_prediction(found, film)


def test_a_recording_is_never_replaced(table, tmp_path):
    content = table.read_bytes()
    found = _prediction(table)
    with pytest.raises(ValueError, match="csv: the recording itself"):
        write_prediction(found, table.with_suffix(".json"))
    (tmp_path / "link.srt").symlink_to(table)
    with pytest.raises(ValueError, match="link.srt: the recording itself"):
        write_prediction(found, tmp_path / "link.json")
    assert table.read_bytes() == content
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("suffixes", [(".csv",), (".srt",), (".html",), (".html", ".csv", ".srt")])
def test_files_beside_the_named_one_are_not_replaced(table, tmp_path, suffixes):
    found = _prediction(table)
    results = tmp_path / "out" / "rec7.json"
    results.parent.mkdir()
    results.write_text("named")
    others = [results.with_suffix(suffix) for suffix in suffixes]
    for path in others:
        path.write_text("theirs")
    with pytest.raises(ValueError) as caught:
        write_prediction(found, results)
    assert str(caught.value).startswith(f"{', '.join(map(str, others))}: there already")
    assert results.read_text() == "named" and {path.read_text() for path in others} == {"theirs"}
    assert set(results.parent.iterdir()) == {results, *others}
    for path in write_prediction(found, results, overwrite=True):
        assert path.read_text() not in ("named", "theirs")


def test_an_earlier_prediction_is_replaced_unless_it_was_changed(table, tmp_path):
    found = _prediction(table)
    less = dataclasses.replace(found, detections=[])
    outputs = write_prediction(found, tmp_path / "out" / "rec7.json")
    write_prediction(less, outputs[0])
    write_prediction(found, outputs[0])
    for path in outputs[1:]:
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        with pytest.raises(ValueError, match=f"^{path}: there already"):
            write_prediction(less, outputs[0])
        assert path.read_bytes() == content + b"\n"
        path.write_bytes(content)
    write_prediction(less, outputs[0])
    assert files.read_json(outputs[0])["results"] == {table.stem: []}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": []}', '{"files": {"rec7.csv": 1, "rec7.srt": null}}']
)
def test_files_beside_a_json_of_others_are_not_replaced(table, tmp_path, content):
    outputs = [tmp_path / f"rec7{suffix}" for suffix in (".json", ".csv", ".srt")]
    for path in outputs:
        path.write_text(content)
    with pytest.raises(ValueError, match="rec7.csv, .*rec7.srt: there already"):
        output_files(outputs[0], table)
    assert [path.read_text() for path in outputs] == [content] * 3


def test_all_files_of_the_default_name_are_checked(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = _prediction(table)
    outputs = write_prediction(found)
    assert outputs[0].name == f"{table.stem}.detections.json"
    write_prediction(found)
    content = outputs[0].read_text()
    # Another layout holds the same; another score, or one that JSON does not have, is an edit.
    outputs[0].write_text(json.dumps(json.loads(content)))
    write_prediction(found)
    for score in ("0.75", "NaN"):
        edited = content.replace('"score": 0.5', f'"score": {score}')
        outputs[0].write_text(edited)
        with pytest.raises(ValueError, match=f"^{outputs[0]}: there already"):
            write_prediction(found)
        assert outputs[0].read_text() == edited != content
    write_prediction(found, overwrite=True)
    assert outputs[0].read_text() == content


def test_nothing_is_written_where_a_folder_is_in_the_way(table, tmp_path):
    found = _prediction(table)
    (tmp_path / "out" / "x.html").mkdir(parents=True)
    with pytest.raises(ValueError, match="x.html: a folder"):
        write_prediction(found, tmp_path / "out" / "x.json")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.html"]
