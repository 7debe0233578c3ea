"""Folders of the field's codes: found by looking, loaded as they are, and examined.

The folders are written by `synthetic`, in the layouts that people have on their disks.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import synthetic

from tal_jax.config import folder_config, rsmp_config
from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
)
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import FeatureFiles
from tal_jax.datasets.doctor import fit_clock, format_diagnosis
from tal_jax.datasets.layouts import KINDS, find_layout
from tal_jax.datasets.load import examine, load_dataset
from tal_jax.datasets.selection import choose_subsets

GRID = Grid(fps=25, stride_frames=16, window_frames=16)
LAYOUTS = ("streams", "joined", "object array", "activitynet")
REAL = Path(os.environ.get("TAL_JAX_DATA") or "/nowhere") / "annotations"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason="TAL_JAX_DATA is not set")


def _recording(subset, duration_s, *instances):
    return RecordingAnnotation(subset, duration_s, tuple(Instance(*one) for one in instances))


def _annotations(train="Validation", test="Test"):
    dives = ("Diving", 20.0, 23.1), ("CliffDiving", 20.0, 23.1)
    return Annotations(
        classes=("CliffDiving", "Diving", "GolfSwing"),
        recordings={
            "video_1": _recording(train, 64.0, ("Diving", 3.0, 6.5), *dives),
            "video_2": _recording(train, 50.3, ("GolfSwing", 10.0, 12.0), ("Diving", 30.0, 33.0)),
            "video_3": _recording(train, 40.0, ("GolfSwing", 1.0, 4.0)),
            "video_4": _recording(test, 70.0, ("Diving", 5.0, 9.0), ("CliffDiving", 5.0, 9.0)),
            "video_5": _recording(test, 33.3, ("GolfSwing", 20.0, 30.0)),
        },
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of each layout, not to be changed."""
    folders = {}
    for layout in LAYOUTS:
        folders[layout] = tmp_path_factory.mktemp("layouts") / layout
        names = ("training", "validation") if layout == "activitynet" else ("Validation", "Test")
        synthetic.write_stand_in(
            folders[layout], _annotations(*names), layout=layout, grid=GRID, dim=8, report=_quiet
        )
    return folders


@pytest.fixture
def joined(written, tmp_path):
    """A folder of one layout, to be broken."""
    return Path(shutil.copytree(written["joined"], tmp_path / "joined"))


def _quiet(line):
    del line


def _config(folder, **settings):
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), points="file", **settings)
    return config


def _load(folder, **settings):
    return load_dataset(_config(folder, **settings))


def _notes(dataset):
    return "\n".join(dataset.notes)


# ---- reading


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_data_set(written, layout):
    folder = written[layout]
    points = "gaussian" if layout == "object array" else "file"
    config = _config(folder, allow_pickle=layout == "object array")
    config.data.points, config.data.seed = points, 0
    dataset = load_dataset(config)
    assert dataset.classes == ("CliffDiving", "Diving", "GolfSwing")
    assert [r.name for r in dataset.train] == ["video_1", "video_2", "video_3"]
    assert [r.name for r in dataset.test] == ["video_4", "video_5"]
    assert dataset.overlapping == ((0, 1),)
    features = dict(synthetic.synthesize(_annotations(), dim=8, grid=GRID, seed=0))
    for recording in (*dataset.train, *dataset.test):
        np.testing.assert_array_equal(np.asarray(recording.features), features[recording.name])
        assert recording.grid == GRID
        duration_s = _annotations().recordings[recording.name].duration_s
        told = GRID.to_seconds(len(recording.features)) if layout == "streams" else duration_s
        assert recording.duration_s == pytest.approx(told)
    for recording in dataset.train:
        instances = _annotations().recordings[recording.name].instances
        for point in recording.points:
            label = dataset.classes[point.label]
            assert any(
                one.label == label and one.start_s <= point.time_s < one.end_s for one in instances
            )
        assert len(recording.points) == len(instances)
    truth = dataset.ground_truth["database"]
    assert {one["label"] for one in truth["video_4"]["annotations"]} == {"Diving", "CliffDiving"}
    assert truth["video_5"]["annotations"] == [{"label": "GolfSwing", "segment": [20.0, 30.0]}]
    assert KINDS[find_layout(folder, grid=GRID, allow_pickle=True).kind] in dataset.notes[0]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "object array"])
def test_features_stay_in_their_files(written, layout):
    dataset = _load(written[layout])
    assert all(isinstance(r.features, FeatureFiles) for r in (*dataset.train, *dataset.test))


def test_objects_are_not_unpickled_unasked(written):
    with pytest.raises(ValueError, match="can run code of .*data.allow_pickle=True"):
        _load(written["object array"])


def test_an_array_of_objects_is_named_by_its_own_file(written, tmp_path):
    """Whichever annotations are read, and whatever the order of theirs."""
    folder = Path(shutil.copytree(written["object array"], tmp_path / "theirs"))
    annotations = _annotations()
    ordered = dict(reversed(list(annotations.recordings.items())))
    given = dataclasses.replace(annotations, recordings=ordered)
    files.write_json(folder / "mine.json", annotations_to_dict(given))
    config = _config(folder, annotations="mine.json", allow_pickle=True)
    config.data.points = "center"
    dataset = load_dataset(config)
    assert dataset.recordings[0].name == "video_3"
    features = dict(synthetic.synthesize(_annotations(), dim=8, grid=GRID, seed=0))
    for recording in dataset.recordings:
        np.testing.assert_array_equal(np.asarray(recording.features), features[recording.name])
    config.data.allow_pickle = False
    with pytest.raises(ValueError, match="can run code of .*data.allow_pickle=True"):
        load_dataset(config)
    [names] = folder.rglob("videoname.npy")
    shutil.copytree(names.parent, folder / "Other-Annotations")
    config.data.allow_pickle = True
    with pytest.raises(ValueError, match=r"videoname.npy in .* and in .*, expected one"):
        load_dataset(config)


def test_starts_and_ends_cannot_be_reached_from_training(joined):
    """The same points in other segments make the same data set, in the json as in the csv."""
    before = _load(joined)
    truth = json.loads((joined / "gt_full.json").read_text())
    for recording in truth["database"].values():
        for one in recording["annotations"] if recording["subset"] == "Validation" else ():
            one["segment"] = [one["segment"][0] - 0.5, one["segment"][1] + 0.25]
    (joined / "gt_full.json").write_text(json.dumps(truth))
    table = joined / "point_labels" / "point_gaussian.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    starts = lines[0].index("start_frame")
    for line in lines[1:]:
        line[starts : starts + 2] = ["1.0", "2.0"]
    table.write_text("\n".join(map(",".join, lines)) + "\n")
    after = _load(joined)
    assert [r.points for r in after.train] == [r.points for r in before.train]
    assert repr(after.train) == repr(before.train)
    assert after.train_truth != before.train_truth  # for evaluation


@pytest.mark.parametrize("points", ["file", "uniform"])
def test_true_segments_of_the_points(written, points):
    """For evaluation: of a point file by class and time, and of drawn points."""
    config = _config(written["joined"])
    config.data.points = points
    dataset = load_dataset(config)
    assert dataset.train_truth == {
        "video_1": ((3.0, 6.5), (20.0, 23.1), (20.0, 23.1)),
        "video_2": ((10.0, 12.0), (30.0, 33.0)),
        "video_3": ((1.0, 4.0),),
    }
    for recording in dataset.train:
        truth = dataset.train_truth[recording.name]
        for point, (start_s, end_s) in zip(recording.points, truth, strict=True):
            assert start_s <= point.time_s < end_s


def test_a_point_in_several_segments_or_none_has_no_truth(joined):
    path = joined / "gt_full.json"
    truth = json.loads(path.read_text())
    golf = truth["database"]["video_3"]["annotations"]
    golf.append(golf[0] | {"segment": [0.5, 4.5]})
    truth["database"]["video_2"]["annotations"][0]["segment"] = [13.0, 14.0]
    path.write_text(json.dumps(truth))
    found = _load(joined).train_truth
    assert found["video_3"] == (None,)
    assert found["video_2"] == (None, (30.0, 33.0))


def test_video_level_labels(written):
    config = _config(written["joined"])
    config.data.points = "none"
    train = load_dataset(config).train
    assert [recording.labels for recording in train] == [(0, 1), (1, 2), (2,)]
    assert not any(recording.points for recording in train)


def test_drawn_points_follow_the_distribution(written):
    config = _config(written["joined"])
    config.data.points = "center"
    times = [[p.time_s for p in recording.points] for recording in load_dataset(config).train]
    assert times[1:] == [[11.0, 31.5], [2.5]]


def test_subsets():
    assert choose_subsets(["train", "test"]) == ("train", "test")
    assert choose_subsets(["training", "validation"]) == ("training", "validation")
    assert choose_subsets(["Train", "Val", "Test"]) == ("Train", "Test")
    assert choose_subsets(["a", "b"], train="b", test="a") == ("b", "a")
    assert choose_subsets(["train"]) == ("train", "")
    with pytest.raises(ValueError, match="subsets 'a', 'b': none to train on"):
        choose_subsets(["a", "b"])
    with pytest.raises(ValueError, match="both trained and tested on"):
        choose_subsets(["train"], test="train")


def test_split_files_choose_and_subsets_can(joined):
    (joined / "split_test.txt").write_text("video_5\n")
    assert [r.name for r in _load(joined).test] == ["video_5"]
    assert [r.name for r in _load(joined, split="subsets").test] == ["video_4", "video_5"]
    assert find_layout(joined, grid=GRID).names["test"] == ("video_5",)
    with pytest.raises(ValueError, match="data.split='names'; expected 'files' or 'subsets'"):
        find_layout(joined, grid=GRID, split="names")


def test_names_with_and_without_v(written, tmp_path):
    """ActivityNet's own file names videos without the "v_" of the features' files."""
    folder = Path(shutil.copytree(written["joined"], tmp_path / "v"))
    for path in folder.glob("features/*/*.npy"):
        path.rename(path.with_name(f"v_{path.name}"))
    for name in ("split_train.txt", "split_test.txt"):
        (folder / name).unlink()
    shutil.rmtree(folder / "point_labels")
    config = _config(folder)
    config.data.points = "center"
    assert [r.name for r in load_dataset(config).test] == ["v_video_4", "v_video_5"]


def test_ambiguous_segments(joined):
    (joined / "Ambiguous_test.txt").write_text("video_4  1.0 2.5\nvideo_9 0 1\n")
    truth = _load(joined).ground_truth
    assert truth["ambiguous"] == {"video_4": [[1.0, 2.5]]}


def test_instances_called_ambiguous_are_no_class(joined):
    path = joined / "gt_full.json"
    truth = json.loads(path.read_text())
    ambiguous = {"label": "Ambiguous", "segment": [50.0, 55.0]}
    truth["database"]["video_4"]["annotations"].append(ambiguous)
    path.write_text(json.dumps(truth))
    dataset = _load(joined)
    assert "Ambiguous" not in dataset.classes
    assert dataset.ground_truth["ambiguous"] == {"video_4": [[50.0, 55.0]]}
    assert len(dataset.ground_truth["database"]["video_4"]["annotations"]) == 2


def test_overlapping_classes_can_be_rivals(written):
    assert _load(written["joined"], overlapping=()).overlapping == ()
    with pytest.raises(ValueError, match="data.overlapping has 'Diving'; expected 'class/class'"):
        _load(written["joined"], overlapping=("Diving",))


# ---- nothing is left out silently


def test_missing_features_are_noted(joined):
    (joined / "features" / "train" / "video_3.npy").unlink()
    (joined / "features" / "test" / "video_4.npy").unlink()
    dataset = _load(joined)
    assert (len(dataset.train), len(dataset.test)) == (2, 1)
    assert list(dataset.ground_truth["database"]) == ["video_5"]
    assert "train: left out, without features: 1 recording (video_3)" in _notes(dataset)
    assert "test: left out, without features: 1 recording (video_4)" in _notes(dataset)


def test_a_recording_off_the_clock_keeps_its_features(joined):
    """One of many is a wrong duration, many are a wrong clock."""
    _set(joined, "video_1", duration=30.0)
    folder = joined / "features" / "train"
    for number in range(10, 20):
        shutil.copy(folder / "video_3.npy", folder / f"video_{number}.npy")
        _set(joined, f"video_{number}", like="video_3")
    with open(joined / "split_train.txt", "a") as file:
        file.writelines(f"video_{number}\n" for number in range(10, 20))
    dataset = _load(joined)
    assert "duration taken from the features, not the annotations: 1 recording (video_1)" in _notes(
        dataset
    )
    assert dataset.train[0].duration_s == pytest.approx(64.0)
    with pytest.raises(ValueError, match="15 of 15 .* do not fit the clock of 30 fps .* doctor"):
        _load(joined, fps=30.0)


def _set(folder, name, *, like=None, **values):
    path = folder / "gt_full.json"
    truth = json.loads(path.read_text())
    if like is not None:
        truth["database"][name] = dict(truth["database"][like], annotations=[])
    truth["database"][name] |= values
    path.write_text(json.dumps(truth))


def test_segments_beyond_the_end_count_as_missed(joined):
    truth = json.loads((joined / "gt_full.json").read_text())
    late = {"label": "Diving", "segment": [80.0, 81.0]}
    backwards = {"label": "Diving", "segment": [5.0, 4.0]}
    _set(
        joined,
        "video_4",
        annotations=[*truth["database"]["video_4"]["annotations"], late, backwards],
    )
    dataset = _load(joined)
    assert late in dataset.ground_truth["database"]["video_4"]["annotations"]
    assert "1 segments are beyond the end of their recording" in _notes(dataset)
    assert "left out 1 segments that end before they start" in _notes(dataset)


def test_points_of_unknown_classes_are_refused(joined):
    table = joined / "point_labels" / "point_gaussian.csv"
    table.write_text(table.read_text().replace("GolfSwing", "Golf"))
    with pytest.raises(ValueError, match="points of class 'Golf', which is none of .* 3 classes"):
        _load(joined)


def test_points_with_a_wrong_frame_rate_are_refused(joined):
    for name in ("video_1", "video_2", "video_3"):
        _set(joined, name, fps=5.0)
    with pytest.raises(ValueError, match="of 6 points are outside their recordings"):
        _load(joined)


def test_several_point_files_need_a_choice(joined):
    folder = joined / "point_labels"
    shutil.copy(folder / "point_gaussian.csv", folder / "point_uniform.csv")
    with pytest.raises(ValueError, match="point_gaussian.csv, .*name one by data.point_file"):
        _load(joined)
    assert _load(joined, point_file="point_labels/point_uniform.csv").train[0].points


@pytest.mark.parametrize("name", ["keypoints/video_1.csv", "checkpoints.txt"])
def test_other_words_with_point_are_no_point_file(joined, name):
    before = find_layout(joined, grid=GRID).point_files
    (joined / name).parent.mkdir(exist_ok=True)
    (joined / name).write_text("frame,x,y\n")
    assert len(before) == 1 and find_layout(joined, grid=GRID).point_files == before


def test_one_stream_alone_is_refused(written, tmp_path):
    folder = Path(shutil.copytree(written["streams"], tmp_path / "s"))
    (folder / "features" / "train" / "flow" / "video_2.npy").unlink()
    with pytest.raises(ValueError, match="video_2: .*rgb.* without flow, expected both streams"):
        _load(folder)


def test_folders_without_anything(tmp_path):
    with pytest.raises(ValueError, match="no annotations, expected gt_full.json"):
        find_layout(tmp_path, grid=GRID)
    (tmp_path / "gt.json").write_text('{"database": {}}')
    with pytest.raises(ValueError, match="no features, expected .* rgb and flow apart"):
        find_layout(tmp_path, grid=GRID)
    with pytest.raises(ValueError, match="no such folder"):
        find_layout(tmp_path / "nowhere", grid=GRID)


# ---- the doctor


def _examine(folder, **settings):
    return examine(_config(folder, **settings))


def _found(diagnosis, level):
    return [finding for finding in diagnosis.findings if finding.level == level]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_good_folder_is_good(written, layout):
    config = _config(written[layout], allow_pickle=True)
    config.data.points = "file" if layout != "object array" else "uniform"
    diagnosis = examine(config)
    assert not diagnosis.wrong and not _found(diagnosis, "error")
    assert diagnosis.counts["train"]["recordings"] == 3
    assert diagnosis.counts["train"]["segments"] == 6
    assert diagnosis.counts["train"]["points"] == (0 if layout == "object array" else 6)
    assert diagnosis.counts["test"]["segments"] == 3
    assert diagnosis.counts["test"]["hours"] == pytest.approx(103.3 / 3600, rel=1e-2)
    text = format_diagnosis(diagnosis)
    assert "ready to train" in text and len(text.splitlines()) < 25
    files.write_json(written[layout].parent / f"{layout}.json", diagnosis.to_dict())


def _spoil(path, change):
    values = np.load(path)
    np.save(path, change(values))


def _with_nan(values):
    values[3, 2] = np.nan
    return values


PLANTED = {
    "video_5: feature 2 of snippet 3 is nan": lambda folder: _spoil(
        folder / "features/test/video_5.npy", _with_nan
    ),
    "the same features in every snippet": lambda folder: _spoil(
        folder / "features/train/video_1.npy", np.zeros_like
    ),
    "video_1: features have D = 4, expected 8": lambda folder: _spoil(
        folder / "features/train/video_1.npy", lambda values: values[:, :4]
    ),
    "video_1: features are float64, expected float32 or float16": lambda folder: _spoil(
        folder / "features/train/video_1.npy", lambda values: values.astype(np.float64)
    ),
    "video_1: features are empty": lambda folder: _spoil(
        folder / "features/train/video_1.npy", lambda values: values[:0]
    ),
    "expected an .npy file of numbers": lambda folder: (
        folder / "features/train/video_2.npy"
    ).write_bytes(b"no array"),
    "none of the 3 recordings to train on has both features": lambda folder: shutil.rmtree(
        folder / "features/train"
    ),
    "are outside their recording": lambda folder: _set(folder, "video_2", fps=10.0),
    "are in no segment of their class": lambda folder: _set(
        folder,
        "video_1",
        annotations=[{"label": name, "segment": [40, 41]} for name in ("Diving", "CliffDiving")],
    ),
    "points of class 'Golf', which is none of the annotations' 3 classes": lambda folder: _replace(
        folder / "point_labels/point_gaussian.csv", "GolfSwing", "Golf"
    ),
    "test: 1 segments end before they start": lambda folder: _set(
        folder, "video_5", annotations=[{"label": "GolfSwing", "segment": [20, 10]}]
    ),
    "classes of test recordings without a training instance: Running": lambda folder: _set(
        folder, "video_5", annotations=[{"label": "Running", "segment": [10, 20]}]
    ),
    "lengths do not fit the clock; best of those tried: data.fps=10": lambda folder: [
        _spoil(path, lambda values: values[: round(len(values) / 2.5)])
        for path in folder.glob("features/*/*.npy")
    ],
    "every recording has 20 snippets": lambda folder: [
        _spoil(path, lambda values: values[:20]) for path in folder.glob("features/*/*.npy")
    ],
    "is both trained and tested on": lambda folder: (folder / "split_test.txt").write_text(
        "video_1\n"
    ),
    "no annotations, expected gt_full.json": lambda folder: (folder / "gt_full.json").unlink(),
    "unknown class 'Diving', expected one of Golf": lambda folder: _replace(
        folder / "gt_full.json", '"database"', '"classes": ["Golf"], "database"'
    ),
    "no point file": lambda folder: shutil.rmtree(folder / "point_labels"),
}


def _replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("text", PLANTED)
def test_errors_are_found(joined, text):
    PLANTED[text](joined)
    diagnosis = _examine(joined)
    assert any(text in finding.text for finding in _found(diagnosis, "error")), diagnosis.findings
    assert diagnosis.wrong
    assert format_diagnosis(diagnosis).endswith("training on this would be wrong")


PLANTED_WARNINGS = {
    "test: left out, without features": lambda folder: (
        folder / "features/test/video_4.npy"
    ).unlink(),
    "train: left out, without annotations": lambda folder: _append(
        folder / "split_train.txt", "video_8"
    ),
    "in another part's folder": lambda folder: (folder / "features/train/video_3.npy").rename(
        folder / "features/test/video_3.npy"
    ),
    "train: no point": lambda folder: _drop_points(folder, "video_2"),
    "points without annotations": lambda folder: _append(
        folder / "point_labels/point_gaussian.csv", "Diving,1,2,video_77,1"
    ),
    "segments begin after the end of their recording: they cannot be detected": lambda folder: _set(
        folder, "video_5", annotations=[{"label": "GolfSwing", "segment": [90, 91]}]
    ),
    "segments are empty": lambda folder: _set(
        folder, "video_5", annotations=[{"label": "GolfSwing", "segment": [9, 9]}]
    ),
    "segments occur twice": lambda folder: _set(
        folder, "video_5", annotations=[{"label": "GolfSwing", "segment": [9, 10]}] * 2
    ),
    "recordings without an annotation": lambda folder: _set(folder, "video_5", annotations=[]),
}


def _append(path, line):
    path.write_text(path.read_text().rstrip("\n") + f"\n{line}\n")


def _drop_points(folder, name):
    path = folder / "point_labels/point_gaussian.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if name not in line) + "\n")


@pytest.mark.parametrize("text", PLANTED_WARNINGS)
def test_warnings_are_found(joined, text):
    PLANTED_WARNINGS[text](joined)
    diagnosis = _examine(joined)
    assert any(text in finding.text for finding in _found(diagnosis, "warning")), diagnosis.findings


def test_choices_are_told(joined):
    (joined / "Ambiguous_test.txt").write_text("video_4 1.0 2.5\n")
    _set(joined, "video_test_0000270", like="video_5")
    notes = [finding.text for finding in _found(_examine(joined), "note")]
    assert any("every CliffDiving is a Diving as well" in note for note in notes)
    assert any("evaluation.drop_ambiguous=True" in note for note in notes)
    assert any("here 0 of 1 are tested on" in note for note in notes)


def test_unused_features_are_told(joined):
    shutil.copy(joined / "features/test/video_4.npy", joined / "features/test/video_44.npy")
    notes = _found(_examine(joined), "note")
    assert [n.names for n in notes if "no recording to train" in n.text] == [("video_44",)]


@pytest.mark.parametrize(("fps", "stride"), [(25, 16), (30, 16), (15, 8), (29.97, 16), (25, 4)])
def test_the_clock_that_made_the_lengths_is_found(fps, stride):
    grid = Grid(fps, stride, stride)
    rng = np.random.default_rng(0)
    durations_s = {str(i): float(rng.uniform(30, 400)) for i in range(60)}
    # Extractors drop the snippet that is not whole.
    lengths = {name: int(grid.to_snippets(s)) for name, s in durations_s.items()}
    best, share = fit_clock(lengths, durations_s)
    assert best.stride_s == pytest.approx(grid.stride_s, rel=1e-6)
    assert share == 1.0


# ---- the real annotations, with features of their true lengths


@needs_real_files
@pytest.mark.parametrize(
    ("folder", "train", "test", "classes"),
    [
        ("GTEA", (21, 367, 367), (7, 130), 7),
        ("BEOID", (46, 594, 594), (12, 148), 34),
        ("THUMOS14", (200, 3003, 3007), (210, 3311), 20),
    ],
)
def test_counts_of_real_annotations(tmp_path, folder, train, test, classes):
    for path in (REAL / folder).iterdir():
        (tmp_path / path.name).symlink_to(path)
    if folder == "THUMOS14":
        (tmp_path / "gt.json").unlink()  # the other tells the durations
    truth = json.loads((tmp_path / "gt_full.json").read_text())["database"]
    for name, recording in truth.items():
        part = "train" if recording["subset"].lower() in ("training",) else "test"
        path = tmp_path / "features" / part / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        length = GRID.num_snippets(recording["duration"])
        np.save(path, np.random.default_rng(length).normal(size=(length, 2)).astype(np.float32))
    dataset = _load(tmp_path)
    assert len(dataset.classes) == classes
    assert len(dataset.train) == train[0]
    assert sum(len(recording.points) for recording in dataset.train) == train[1]
    segments = dataset.ground_truth["database"].values()
    assert (len(segments), sum(len(one["annotations"]) for one in segments)) == test
    diagnosis = _examine(tmp_path)
    assert diagnosis.counts["train"]["segments"] == train[2]
    assert not diagnosis.wrong, diagnosis.findings
