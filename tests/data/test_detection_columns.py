"""Detections as columns, and in Arrow files."""

import numpy as np
import pyarrow
import pytest

from tal_jax._errors import InputError
from tal_jax.data import detection_columns
from tal_jax.data.detection_columns import Columns, columns_of, read_detections, write_detections

CLASSES = ("jump", "run", "ж")


def results(count=7, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"r{number}": [
            {
                "label": str(rng.choice(CLASSES)),
                "score": float(rng.normal()),
                "segment": np.sort(rng.uniform(0, 9, 2)).tolist(),
            }
            for _ in range(rng.integers(0, 5) * (number != 2))
        ]
        for number in range(count)
    }


def as_results(batches):
    found = {}
    for one in batches:
        ends = np.cumsum(one.sizes)
        for name, end, size in zip(one.recordings, ends, one.sizes, strict=True):
            found[name] = [
                {
                    "label": one.classes[one.labels[i]],
                    "score": one.scores[i],
                    "segment": one.segments[i].tolist(),
                }
                for i in range(end - size, end)
            ]
    return found


@pytest.mark.parametrize("rows", [1, 4, 2**18])
def test_what_is_read_is_what_was_written(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(detection_columns, "_ROWS", rows)
    written = results()
    write_detections(tmp_path / "a.arrow", iter(written.items()), CLASSES)
    batches = list(read_detections(tmp_path / "a.arrow"))
    assert as_results(batches) == written
    assert list(as_results(batches)) == list(written)
    assert (len(batches) == 1) == (rows == 2**18)
    # Columns are written as they are.
    write_detections(tmp_path / "b.arrow", [columns_of(written, CLASSES)], CLASSES)
    assert as_results(read_detections(tmp_path / "b.arrow")) == written


def test_no_detections(tmp_path):
    write_detections(tmp_path / "a.arrow", [], CLASSES)
    assert list(read_detections(tmp_path / "a.arrow")) == []
    write_detections(tmp_path / "a.arrow", [("a", [])], ())
    (one,) = read_detections(tmp_path / "a.arrow")
    assert one.recordings == ["a"] and one.sizes.tolist() == [0] and one.segments.shape == (0, 2)


def test_other_tools_read_it(tmp_path):
    write_detections(tmp_path / "a.arrow", results().items(), CLASSES)
    table = pyarrow.ipc.open_file(tmp_path / "a.arrow").read_all().to_pydict()
    assert table["recording"] == list(results())
    assert table["label"] == [[one["label"] for one in found] for found in results().values()]


def test_what_is_refused(tmp_path):
    path = tmp_path / "a.arrow"
    wrong = [{"label": "fly", "score": 1.0, "segment": [0.0, 1.0]}]
    with pytest.raises(InputError, match="label 'fly', expected one of jump, run"):
        write_detections(path, [("a", wrong)], CLASSES)
    assert not path.exists()
    for score, segment in ((np.nan, (0, 1)), (1, (1, 0)), (1, (0, np.inf))):
        columns = Columns(
            ["x", "y", "z"],
            np.array([1, 0, 2]),
            CLASSES,
            np.array([0, 0, 1]),
            np.array([1.0, 1.0, score]),
            np.array([(0, 1), (0, 1), segment], float),
        )
        write_detections(path, [columns], CLASSES)
        with pytest.raises(InputError, match=r"a\.arrow: video 'z', detection 1: segment is"):
            list(read_detections(path))
    for table in (pyarrow.table({"x": [1]}), pyarrow.table({"recording": ["a"], "label": [["b"]]})):
        with pyarrow.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(InputError, match=r"cannot read .*a\.arrow: .*expected detections that"):
            list(read_detections(path))
    for content in (b"", b"ARROW1 no", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot read .*a\.arrow: .*expected detections that"):
            list(read_detections(path))
    with pytest.raises(InputError, match=r"none\.arrow"):
        list(read_detections(tmp_path / "none.arrow"))
