"""From other layouts to our own, and back to what others read."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic

from tal_jax.config import folder_config, rsmp_config
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.fingerprint import fingerprint
from tal_jax.data.manifest import Entry, Manifest, read_manifest, write_manifest
from tal_jax.data.shards import open_shards
from tal_jax.datasets import convert
from tal_jax.datasets.load import load_dataset, open_layout
from tal_jax.datasets.own_layout import write_folder

GRID = Grid(fps=25, stride_frames=16, window_frames=16)
ANNOTATIONS = Annotations(
    ("CliffDiving", "Diving"),
    {
        "a": RecordingAnnotation(
            "train", 64.0, (Instance("Diving", 3.0, 6.5), Instance("CliffDiving", 20.0, 23.0))
        ),
        "b": RecordingAnnotation("train", 50.0, (Instance("Diving", 30.0, 33.0),)),
        "c": RecordingAnnotation("test", 40.0, (Instance("CliffDiving", 1.0, 4.0),)),
    },
)


def _config(folder, **settings):
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), points="file", **settings)
    return config


def _convert(source, output, *, annotations="", **options):
    config = _config(source, allow_pickle=True, annotations=annotations)
    lines = []
    layout = open_layout(config)
    notes = convert.to_own_layout(
        layout, output, overlapping=config.data.overlapping, report=lines.append, **options
    )
    return notes, lines


@pytest.mark.parametrize("layout", ["streams", "joined", "activitynet"])
def test_the_data_set_stays_the_same(tmp_path, layout):
    synthetic.write_stand_in(
        tmp_path / "theirs", ANNOTATIONS, layout=layout, grid=GRID, dim=6, report=len
    )
    notes, lines = _convert(tmp_path / "theirs", tmp_path / "ours")
    assert lines == ["3 of 3 recordings written"]
    assert not [note for note in notes if "left out" in note]
    before, after = (
        load_dataset(_config(tmp_path / "theirs")),
        load_dataset(_config(tmp_path / "ours")),
    )
    assert after.classes == before.classes and after.overlapping == before.overlapping
    assert after.ground_truth == before.ground_truth
    for one, same in zip((*before.train, *before.test), (*after.train, *after.test), strict=True):
        assert (one.name, one.duration_s, one.grid) == (same.name, same.duration_s, same.grid)
        np.testing.assert_array_equal(np.asarray(one.features), np.asarray(same.features))
        assert sorted(one.points, key=repr) == sorted(same.points, key=repr)


def test_shards_hold_the_same_data_set(tmp_path):
    synthetic.write_stand_in(
        tmp_path / "theirs", ANNOTATIONS, layout="joined", grid=GRID, dim=6, report=len
    )
    _convert(tmp_path / "theirs", tmp_path / "ours")
    labels = files.read_json(tmp_path / "ours" / "annotations.json")
    name = next(n for n, one in labels["database"].items() if one["subset"] == "train")
    labels["database"][name] |= {"background": [49.5], "done": [[0.0, 40.0], [49.0, 50.0]]}
    files.write_json(tmp_path / "ours" / "annotations.json", labels)
    manifest = Manifest("motion", "1", {}, 6, GRID, {"b": Entry("/b.mp4", "0", 1, 2, 50.0, 78, 6)})
    write_manifest(tmp_path / "ours", manifest)
    _, lines = _convert(tmp_path / "ours", tmp_path / "shards", shards=2)
    assert lines[-1] == "3 of 3 recordings written"
    names = ["annotations.json", "features-0000-of-0002.arrow", "features-0001-of-0002.arrow"]
    assert sorted(one.name for one in (tmp_path / "shards").iterdir()) == [
        *names,
        "grid.json",
        "manifest.json",
    ]
    before, after = (load_dataset(_config(tmp_path / folder)) for folder in ("ours", "shards"))
    assert fingerprint(after) == fingerprint(before) and after.notes == before.notes
    (one,) = (one for one in after.train if one.name == name)
    assert one.background_s == (49.5,) and one.done_s == ((0.0, 40.0), (49.0, 50.0))
    assert after.manifest == before.manifest and after.manifest.recordings == {}
    assert open_shards(tmp_path / "shards")["b"].entry == manifest.recordings["b"]
    for one, same in zip((*before.train, *before.test), (*after.train, *after.test), strict=True):
        np.testing.assert_array_equal(np.asarray(one.features), np.asarray(same.features))

    # And back, and to another number of shards.
    _convert(tmp_path / "shards", tmp_path / "files")
    assert fingerprint(load_dataset(_config(tmp_path / "files"))) == fingerprint(before)
    assert read_manifest(tmp_path / "files") == manifest
    _convert(tmp_path / "files", tmp_path / "again", shards=2)
    for name in names:
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "shards" / name).read_bytes()


def test_own_annotations_are_kept(tmp_path):
    """With points beside them that are not read, overlapping classes, and how points were drawn."""
    points = (Instance("Diving", point_s=12.0), Instance("Diving", 3.0, 6.5, 5.0))
    recordings = dict(ANNOTATIONS.recordings)
    recordings |= {name: replace(recordings[name], instances=points) for name in "ab"}
    annotations = replace(
        ANNOTATIONS,
        recordings=recordings,
        overlapping=(("Diving", "CliffDiving"),),
        point_distribution={"law": "uniform", "seed": 3},
    )
    features = dict(synthetic.synthesize(ANNOTATIONS, dim=6, grid=GRID))
    write_folder(tmp_path / "ours", features, grid=GRID, annotations=annotations)
    (tmp_path / "ours" / "keypoints").mkdir()
    for name in ("keypoints/a.csv", "points.txt"):
        (tmp_path / "ours" / name).write_text("a,4.5,Diving\n")
    _convert(tmp_path / "ours", tmp_path / "again")
    again, given = (
        files.read_json(tmp_path / one / "annotations.json") for one in ("again", "ours")
    )
    assert again == given
    # The same where the annotations are named, so that other files are searched for points.
    _convert(tmp_path / "ours", tmp_path / "named", annotations="annotations.json")
    assert files.read_json(tmp_path / "named" / "annotations.json") == given


def test_arrays_of_objects_become_files(tmp_path):
    synthetic.write_stand_in(
        tmp_path / "theirs", ANNOTATIONS, layout="object array", grid=GRID, dim=6, report=len
    )
    _convert(tmp_path / "theirs", tmp_path / "ours")
    config = _config(tmp_path / "ours")
    config.data.points = "center"
    after = load_dataset(config)
    assert [point.time_s for point in after.train[0].points] == [4.75, 21.5]
    features = dict(synthetic.synthesize(ANNOTATIONS, dim=6, grid=GRID))
    np.testing.assert_array_equal(np.asarray(after.test[0].features), features["c"])


def test_a_folder_in_use_is_not_written_into(tmp_path):
    synthetic.write_stand_in(
        tmp_path / "theirs", ANNOTATIONS, layout="joined", grid=GRID, dim=6, report=len
    )
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="ours: not empty"):
        _convert(tmp_path / "theirs", tmp_path / "ours")
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["mine.txt"]


def test_submission():
    found = [{"label": "Surfing", "score": 0.5, "segment": [1.0, 2.5]}]
    submission = convert.to_submission({"v_-abc": found, "other": []})
    assert submission["results"] == {"-abc": found, "other": []}
    assert submission["version"] == "VERSION 1.3"
    assert submission["external_data"] == {"used": False}
    with pytest.raises(ValueError, match="detections of 'a' and 'v_a'"):
        convert.to_submission({"a": [], "v_a": []})
