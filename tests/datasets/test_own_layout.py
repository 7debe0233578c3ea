"""Folders of features: what is read, noted and refused."""

import dataclasses
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from tal_jax.config import folder_config, rsmp_config
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.fingerprint import fingerprint
from tal_jax.data.lazy_features import FeatureFiles, load_npy
from tal_jax.data.recordings import Point
from tal_jax.data.shards import open_shard, shard_path, split_names, write_shard
from tal_jax.datasets.load import examine, load_dataset, open_layout
from tal_jax.datasets.own_layout import load_folder, load_grid, write_folder

GRID = Grid(fps=25, stride_frames=16, window_frames=16)
TRAIN = RecordingAnnotation(
    "train", 6.4, (Instance("run", 1.0, 2.0, 1.5), Instance("jump", point_s=0.5))
)
TEST = RecordingAnnotation("test", 3.2, (Instance("jump", 1.0, 2.0), Instance("run", 0.0, 1.0)))
ANNOTATIONS = Annotations(("jump", "run"), {"a": TRAIN, "b": TEST}, overlapping=(("run", "jump"),))


def features(length=10, dim=4, dtype=np.float32):
    return np.random.default_rng(length).normal(size=(length, dim)).astype(dtype)


def arrays():
    return {"a": features(10), "b": features(5)}


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "f", arrays(), grid=GRID, annotations=ANNOTATIONS)
    return tmp_path / "f"


def change_annotations(folder, recordings, **changes):
    annotations = dataclasses.replace(ANNOTATIONS, recordings=recordings, **changes)
    write_folder(folder, {}, grid=GRID, annotations=annotations)


def test_reads_what_was_written(folder):
    dataset = load_folder(folder)
    assert dataset.classes == ("jump", "run")
    assert dataset.overlapping == ((1, 0),)
    assert dataset.notes == ()
    (train,), (test,) = dataset.train, dataset.test
    assert (train.name, train.grid, train.duration_s) == ("a", GRID, 6.4)
    assert train.points == (Point(0.5, 0), Point(1.5, 1))
    assert test.points == ()
    assert list(dataset.ground_truth["database"]) == ["b"]
    assert dataset.ground_truth["database"]["b"]["annotations"][0] == {
        "label": "jump",
        "segment": [1.0, 2.0],
    }
    np.testing.assert_array_equal(train.features, features(10))


def test_features_stay_on_disk(folder):
    assert isinstance(load_folder(folder).train[0].features, FeatureFiles)


def test_training_segments_cannot_be_reached(folder):
    """The segments change what the run is evaluated against, and nothing else."""
    before = load_folder(folder)
    moved = dataclasses.replace(
        TRAIN, instances=(Instance("run", 0.7, 3.3, 1.5), TRAIN.instances[1])
    )
    change_annotations(folder, {"a": moved, "b": TEST})
    after = load_folder(folder)
    assert before.train_truth != after.train_truth == {"a": (None, (0.7, 3.3))}
    without = (dataclasses.replace(one, train_truth=None) for one in (before, after))
    assert len(set(map(repr, without))) == 1
    assert fingerprint(after) == fingerprint(before)


def test_annotations_are_needed(folder):
    (folder / "annotations.json").unlink()
    with pytest.raises(ValueError, match="cannot read .*annotations.json: No such file"):
        load_folder(folder)


def test_points_can_be_generated(folder):
    segments = dataclasses.replace(TRAIN, instances=(Instance("run", 1.0, 2.0),))
    change_annotations(folder, {"a": segments, "b": TEST})
    with pytest.raises(ValueError, match="a: instance of 'run' .*generate_points"):
        load_folder(folder)
    dataset = load_folder(folder, points="center")
    assert dataset.train[0].points == (Point(1.5, 1),)


def test_names_of_subsets(folder):
    change_annotations(
        folder,
        {
            "a": dataclasses.replace(TRAIN, subset="Validation"),
            "b": dataclasses.replace(TEST, subset="Test"),
        },
    )
    dataset = load_folder(folder, train_subset="Validation", test_subset="Test")
    assert [r.name for r in dataset.train + dataset.test] == ["a", "b"]
    assert dataset.ground_truth["database"]["b"]["subset"] == "test"
    with pytest.raises(ValueError, match="no recording of subset 'train' .* have Test, Validation"):
        load_folder(folder, train_subset="train")
    with pytest.raises(ValueError, match="'Validation' is both trained and tested on"):
        load_folder(folder, train_subset="Validation", test_subset="Validation")


def test_nothing_to_test_on(folder):
    change_annotations(folder, {"a": TRAIN})
    (folder / "b.npy").unlink()
    dataset = load_folder(folder)
    assert dataset.test == ()
    assert dataset.notes == ("no recording to test on, the annotations have train",)


def test_nothing_is_left_out_silently(folder):
    recordings = {
        "a": TRAIN,
        "c": TRAIN,
        "b": TEST,
        "d": TEST,
        "e": TEST,
        "f": dataclasses.replace(TEST, subset="extra"),
    }
    change_annotations(folder, recordings)
    np.save(folder / "f.npy", features(5))
    for i in range(7):
        np.save(folder / f"x{i}.npy", features())
    dataset = load_folder(folder)
    assert [r.name for r in dataset.train + dataset.test] == ["a", "b"]
    assert list(dataset.ground_truth["database"]) == ["b"]
    assert [note.replace(str(folder), "F") for note in dataset.notes] == [
        "train: left out, without features: 1 recording (c)",
        "test: left out, without features: 2 recordings (d, e)",
        "left out, features of no recording to train or test on: 8 recordings (f, x0, x1, ...)",
    ]


def test_all_of_a_subset_missing(folder):
    (folder / "b.npy").unlink()
    with pytest.raises(ValueError, match="none of the 1 recordings to test on has both features"):
        load_folder(folder)


def test_class_without_an_instance_is_noted(folder):
    change_annotations(folder, ANNOTATIONS.recordings, classes=("jump", "run", "walk"))
    assert [note.split(":")[0] for note in load_folder(folder).notes] == [
        "class 'walk' is in no training recording",
        "class 'walk' has no test instance",
    ]


@pytest.mark.parametrize(
    "array, message",
    [
        (features(0), "a: features are empty"),
        (features(10, 5), "b: features have D = 4, expected 5"),
        (features(10, dtype=np.float64), "a: features are float64"),
        (features(40), "a: 40 snippets of 0.64 s .* expected 10: a wrong clock"),
    ],
)
def test_bad_features(folder, array, message):
    np.save(folder / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        load_folder(folder)


@pytest.mark.parametrize("length", [1, 20_000])
def test_extreme_lengths(folder, length):
    np.save(folder / "a.npy", features(length))
    annotation = RecordingAnnotation(
        "train", GRID.to_seconds(length), (Instance("run", point_s=0.3),)
    )
    change_annotations(folder, {"a": annotation, "b": TEST})
    assert len(load_folder(folder).train[0].features) == length


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"text", npy(features())[:100], npy(np.array([{}])), pickle.dumps([1]), npz()],
    ids=["empty", "text", "cut short", "objects", "pickle", "npz"],
)
def test_files_that_are_not_features(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="cannot read .*a.npy: .* expected an .npy file") as error:
        load_npy(tmp_path / "a.npy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../a", "x/a", "/a", "..", "", "x\\a"])
def test_names_that_lead_elsewhere(folder, name):
    change_annotations(folder, {name: TRAIN})
    with pytest.raises(ValueError, match="expected a file's name without a folder"):
        load_folder(folder)
    with pytest.raises(ValueError, match="expected a file's name without a folder"):
        write_folder(folder, {name: features()}, grid=GRID, annotations=ANNOTATIONS)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"fps": 25}', "grid.json: grid: missing key 'stride_frames'"),
        ("[]", r"grid.json: grid: got \[\], expected an object"),
        ("{", "grid.json: Expecting"),
        (json.dumps({**GRID.to_dict(), "fps": -1}), "grid.json: grid: fps is -1"),
    ],
)
def test_bad_grids(folder, text, message):
    (folder / "grid.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_folder(folder)
    assert str(error.value).count("grid.json") == 1


def test_missing_files(folder, tmp_path):
    (folder / "grid.json").unlink()
    with pytest.raises(ValueError, match="cannot read .*grid.json: No such file"):
        load_grid(folder / "grid.json")
    with pytest.raises(ValueError, match="no such folder"):
        load_folder(tmp_path / "nowhere")


def test_partly_labelled_recordings(folder):
    """They are read, counted by the doctor, and refused where they contradict themselves."""
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), points="file")
    instances = (Instance("run", 1.0, 2.0, 1.5), Instance("jump", 0.0, 1.0, 0.5))
    train = dataclasses.replace(
        TRAIN, instances=instances, background_s=(3.0, 5.0), done_s=((0.0, 2.5), (4.0, 6.0))
    )
    change_annotations(folder, {"a": train, "b": dataclasses.replace(TEST, done_s=((0.0, 1.0),))})
    dataset = load_dataset(config)
    assert dataset.train[0].background_s == (3.0, 5.0)
    assert dataset.train[0].done_s == ((0.0, 2.5), (4.0, 6.0))
    assert dataset.test[0].done_s is None
    assert "done" not in dataset.ground_truth["database"]["b"]
    found = examine(config)
    assert not found.wrong
    assert found.counts["train"]["background_points"] == 2
    assert found.counts["train"]["partly_done"] == found.counts["test"]["partly_done"] == 1
    texts = [(finding.level, finding.text) for finding in found.findings]
    assert ("note", "train: 2 background points") in texts
    assert (
        "note",
        "train: partly done, 2 done stretches of 4.5 s; the rest is unknown",
    ) in texts
    assert any(level == "warning" and "test: partly done" in text for level, text in texts)
    # In the snippet of the point at .5 s, but in no segment.
    point = dataclasses.replace(train, instances=(Instance("jump", point_s=0.5),))
    point = dataclasses.replace(point, background_s=(0.51,))
    change_annotations(folder, {"a": point, "b": TEST})
    with pytest.raises(ValueError, match="a: background point at 0.51 s is in the snippet"):
        load_dataset(config)
    assert examine(config).wrong


def test_overlapping_classes_of_the_file_and_of_the_config(folder):
    """Both count, whichever reads the folder."""
    change_annotations(folder, ANNOTATIONS.recordings, classes=("jump", "rest", "run"))
    for annotations in ("", "annotations.json"):
        config = rsmp_config()
        settings = {"annotations": annotations, "overlapping": ("jump/run", "rest/jump")}
        config.data = folder_config(folder=str(folder), points="file", **settings)
        dataset = load_dataset(config)
        assert dataset.overlapping == ((2, 0), (1, 0))
        assert dataset.ground_truth["overlapping"] == [["run", "jump"], ["rest", "jump"]]
    config.data.overlapping = ("jump/jump",)
    with pytest.raises(ValueError, match="data.overlapping has 'jump/jump'; expected"):
        load_dataset(config)


def test_only_files_at_the_top_are_read(folder):
    """By the doctor and by `convert` as by training, whatever else is in the folder."""
    before = load_folder(folder)
    for below in ("backup", "other"):
        (folder / below).mkdir()
        shutil.copy(folder / "a.npy", folder / below / "a.npy")
    for name in ("gt.json", "backup/grid.json", "videoname.npy"):
        (folder / name).write_text("not read")
    (folder / "split_train.txt").write_text("b\n")
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), points="file")
    layout = open_layout(config)
    assert layout.kind == "own" and layout.grid == GRID and not layout.point_files
    assert list(layout.names["train"]) == [one.name for one in before.train]
    assert not examine(config).wrong


def test_names_that_are_no_unicode(folder):
    name = os.fsdecode(b"caf\xe9")
    message = r"^recording name: 'caf\\udce9' is no Unicode, .*; rename it$"
    with pytest.raises(ValueError, match=message):
        write_folder(folder, {name: features()}, grid=GRID, annotations=ANNOTATIONS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"point_file": "no.csv"},
            "data.point_file='no.csv', but points are read from annotations",
        ),
        ({"split": "file"}, "data.split='file'; expected 'files' or 'subsets'"),
        ({"fps": 30.0}, "data.fps=30, but grid.json has 25; expected one clock"),
    ],
)
def test_settings_without_effect_are_refused(folder, setting, message):
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), points="file", **setting)
    with pytest.raises(ValueError, match=message):
        load_dataset(config)
    assert examine(config).wrong


def test_the_doctor_reports_what_loading_refuses(folder):
    """A segment beyond the recording: refused in this layout, left out in those of codebases."""
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), points="file")
    instances = (Instance("run", 1.0, 2.0, 1.5), Instance("jump", 0.0, 1.0, 0.5))
    train = dataclasses.replace(TRAIN, instances=instances)
    change_annotations(folder, {"a": train, "b": TEST})
    assert not examine(config).wrong
    late = dataclasses.replace(TEST, instances=(Instance("jump", 9.0, 9.5),))
    change_annotations(folder, {"a": train, "b": late})
    with pytest.raises(ValueError, match="expected it within the recording's 3.2 s") as refused:
        load_dataset(config)
    assert examine(config).wrong
    assert examine(config).findings[0].text == str(refused.value)


# --- shards ---


@pytest.fixture
def sharded(folder):
    for number, names in enumerate(split_names(arrays(), 3)):
        write_shard(shard_path(folder, number, 3), {name: arrays()[name] for name in names})
    for name in arrays():
        (folder / f"{name}.npy").unlink()
    return folder


def test_shards_are_read_like_files(sharded):
    dataset = load_folder(sharded)
    assert dataset.notes == ()
    for one in (*dataset.train, *dataset.test):
        np.testing.assert_array_equal(np.asarray(one.features), arrays()[one.name])


def test_the_doctor_reads_shards(sharded):
    config = rsmp_config()
    config.data = folder_config(folder=str(sharded), points="file")
    found = examine(config)
    assert not found.wrong and "features in shards" in found.layout
    assert "2 recordings of 5 to 10 snippets, D 4, float32, 0.00 GB" == found.features
    # A flipped bit of a number is a number: the digest finds it.
    path = next(p for p in sorted(sharded.glob("*.arrow")) if open_shard(p))
    content, values = path.read_bytes(), arrays()[next(iter(open_shard(path)))].tobytes()
    place = content.index(values) + 1
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    found = examine(config)
    assert found.wrong and "are damaged: another digest" in str(found.findings[0])
    path.write_bytes(content[:-30])
    found = examine(config)
    assert found.wrong and "expected a shard of features" in str(found.findings[0])
    with pytest.raises(ValueError, match="expected a shard of features"):
        load_dataset(config)


def test_files_beside_shards_are_noted(sharded):
    np.save(sharded / "extra.npy", features())
    (note,) = load_folder(sharded).notes
    assert note.startswith("features beside shards are not read") and note.endswith("(extra)")


def test_a_missing_shard_is_no_smaller_data_set(sharded):
    next(sharded.glob("*.arrow")).unlink()
    with pytest.raises(ValueError, match="1 of 3 shards are missing"):
        load_folder(sharded)
