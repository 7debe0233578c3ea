"""The detections of many recordings in one JSON and one table."""

import hashlib
import json
from pathlib import Path

import pytest

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.detections import activitynet_json
from tal_jax.report.subtitles import table_of
from tal_jax.report.summary import summary_files, write_summary

NAMES = ["b", 'a "quoted"\\name', "ü, comma", "empty"]


def detections(name):
    times = range(0 if name == "empty" else len(name))
    return [{"label": f"é{s}", "score": 1 / (s + 3), "segment": [s + 0.5, s + 0.75]} for s in times]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_as_if_all_were_written_at_once(tmp_path, count):
    results = {name: detections(name) for name in NAMES[:count]}
    for name, entries in results.items():
        files.write_json(tmp_path / f"{name}.detections.json", activitynet_json({name: entries}))
    written = write_summary([Path(f"in/{name}.mp4") for name in results], tmp_path, overwrite=False)
    assert written == [tmp_path / "detections.json", tmp_path / "detections.csv"]
    table, rest = table_of(results), files.json_bytes(activitynet_json(results))
    digests = [hashlib.sha256(one).hexdigest() for one in (rest, table)]
    named = dict(zip(["detections.json", "detections.csv"], digests, strict=True))
    assert written[0].read_bytes() == files.json_bytes(activitynet_json(results) | {"files": named})
    assert written[1].read_bytes() == table
    assert json.loads(written[0].read_text())["results"] == results


def test_only_unchanged_files_are_replaced(tmp_path):
    files.write_json(tmp_path / "b.detections.json", activitynet_json({"b": detections("b")}))
    for _ in range(2):
        write_summary([Path("b.mp4")], tmp_path, overwrite=False)
    for path in summary_files(tmp_path):
        good = path.read_bytes()
        for bad in (good[:20] + b"9" + good[21:], good[:-9], b"", b"[1]", b'{"files": 1}'):
            path.write_bytes(bad)
            with pytest.raises(InputError, match=f"{path.name}.*: there already, and not written"):
                summary_files(tmp_path)
            assert len(summary_files(tmp_path, overwrite=True)) == 2
        path.write_bytes(good)
        summary_files(tmp_path)
    (tmp_path / "detections.csv").unlink()  # stopped before the table
    summary_files(tmp_path)
