"""Made-up features: what they depend on, how hard they are, and the files of every layout."""

import csv
import dataclasses
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from synthetic import LAYOUTS, split_subsets, synthesize, write_stand_in

from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.datasets.own_layout import load_folder

GRID = Grid(fps=25, stride_frames=16, window_frames=16)
CLASSES = ("dive", "jump", "run", "throw")
FEATURES = "Thumos14reduced-I3D-JOINTFeatures.npy"


def make(count=24, *, length=150, labels=CLASSES):
    """Recordings of one class each, every third to test on; instances of 8 snippets, every 24."""
    recordings = {}
    for number in range(count):
        label = labels[number % len(labels)]
        starts = range(4 + number % 7, length - 8, 24)
        instances = tuple(
            Instance(label, GRID.to_seconds(start + 0.25), GRID.to_seconds(start + 8.25))
            for start in starts
        )
        subset = "Test" if number % 3 == 0 else "Validation"
        duration_s = GRID.to_seconds(length + 0.0)
        recordings[f"video_{number}"] = RecordingAnnotation(subset, duration_s, instances)
    return Annotations(labels, recordings)


SMALL = Annotations(
    CLASSES,
    {
        "a": RecordingAnnotation(
            "Validation", 19.0, (Instance("run", 1.05, 4.02), Instance("jump", 6.7, 6.74))
        ),
        "b": RecordingAnnotation("Test", 7.04, (Instance("run", 2.0, 6.9),)),
        "c": RecordingAnnotation("Validation", 12.5),
        "d": RecordingAnnotation("Validation", 5.0, (Instance("dive", 0.0, 5.0),)),
    },
)


def draw(annotations, *, dim=32, seed=0):
    return dict(synthesize(annotations, dim=dim, grid=GRID, seed=seed))


def write(folder, layout, annotations=SMALL, **settings):
    settings = {"dim": 16, "grid": GRID} | settings
    write_stand_in(folder, annotations, layout=layout, report=lambda line: None, **settings)
    return folder


def snippet_labels(annotations, features):
    """Class of every snippet, −1 for background and −2 for those cut by a start or an end."""
    labels = {}
    for name, recording in annotations.recordings.items():
        centres = np.arange(len(features[name]))
        labels[name] = np.full(len(centres), -1)
        for instance in recording.instances:
            start, end = GRID.to_snippets(instance.start_s), GRID.to_snippets(instance.end_s)
            labels[name][(centres + 1 > start) & (centres < end)] = -2
            inside = (centres >= start) & (centres + 1 <= end)
            labels[name][inside] = annotations.classes.index(instance.label)
    return labels


def joined_by_split(annotations, features, labels):
    """Features and labels of the training and of the test recordings."""
    split = split_subsets(annotations)
    return {
        role: tuple(
            np.concatenate([values[name] for name in split if split[name] == role])
            for values in (features, labels)
        )
        for role in ("train", "test")
    }


def test_shapes_and_values():
    annotations = make()
    features = draw(annotations, dim=48)
    assert list(features) == list(annotations.recordings)
    for name, array in features.items():
        count = GRID.num_snippets(annotations.recordings[name].duration_s)
        assert array.shape == (count, 48) and array.dtype == np.float32
        assert np.isfinite(array).all() and (array >= 0).all()
    together = np.concatenate(list(features.values()))
    assert 0.2 < together.mean() < 0.4
    assert (together > 0).mean(axis=0).min() > 0.1  # no feature is dead


def test_depends_on_seed_and_name_alone():
    annotations = make(6)
    first = draw(annotations)
    kept = {name: annotations.recordings[name] for name in ("video_4", "video_1")}
    fewer = Annotations(("run", "other", "jump", "dive"), kept)
    for name, array in draw(fewer).items():
        np.testing.assert_array_equal(array, first[name])
    assert not np.array_equal(draw(annotations, seed=1)["video_1"], first["video_1"])
    renamed = {f"{name}_": recording for name, recording in annotations.recordings.items()}
    again = draw(dataclasses.replace(annotations, recordings=renamed))
    assert not np.array_equal(again["video_1_"], first["video_1"])


def test_actions_go_their_class_s_way_most_in_their_middle():
    """Measured along directions that are estimated on the training recordings."""
    annotations = make(48)
    features = draw(annotations, dim=64)
    labels = snippet_labels(annotations, features)
    train, train_labels = joined_by_split(annotations, features, labels)["train"]
    background = train[train_labels == -1].mean(axis=0)
    middle, ends, outside = [], [], []
    for name, role in split_subsets(annotations).items():
        if role == "train":
            continue
        recording = annotations.recordings[name]
        label = annotations.classes.index(recording.instances[0].label)
        direction = train[train_labels == label].mean(axis=0) - background
        along = (features[name] - background) @ direction / (direction @ direction)
        outside.append(along[labels[name] == -1])
        for instance in recording.instances:
            first = round(GRID.to_snippets(instance.start_s) + 0.75)
            middle.append(along[first + 2 : first + 5])
            ends.append(along[[first, first + 6]])
    middle, ends, outside = (np.concatenate(part).mean() for part in (middle, ends, outside))
    assert middle > ends + 0.2 > outside + 0.4


def test_a_snippet_counts_for_what_an_instance_covers_of_it():
    """The class's share of a snippet grows with the fraction; nothing is rounded to snippets."""
    shares = []
    for fraction in (0.0, 0.25, 0.5, 0.75):
        end_s = GRID.to_seconds(10 + fraction)
        instances = (Instance("run", GRID.to_seconds(4.0), end_s),)
        recordings = {
            f"r{i}": RecordingAnnotation("train", GRID.to_seconds(20.0), instances)
            for i in range(200)
        }
        features = np.stack(list(draw(Annotations(("run",), recordings)).values()))
        mean = features.mean(axis=0)
        direction = mean[7] - mean[[15, 16, 17, 18, 19]].mean(axis=0)
        shares.append((mean[10] - mean[15:].mean(axis=0)) @ direction / (direction @ direction))
    assert (np.diff(shares) > 0.04).all()
    assert abs(shares[0]) < 0.1


def test_classes_can_be_told_apart_but_not_perfectly():
    """The nearest mean of a class, background being one, on recordings that it has not seen."""
    annotations = make(60, labels=tuple(f"class {i}" for i in range(10)))
    features = draw(annotations, dim=64)
    parts = joined_by_split(annotations, features, snippet_labels(annotations, features))
    train, train_labels = parts["train"]
    test, test_labels = parts["test"]
    means = np.stack([train[train_labels == label].mean(axis=0) for label in range(-1, 10)])
    nearest = ((test[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1) - 1
    recalls = [(nearest[test_labels == label] == label).mean() for label in range(-1, 10)]
    assert 0.55 < np.mean(recalls) < 0.9  # chance is 1 in 11; scenes alone give 0.4
    # Actions are not merely told from background by how much of anything there is.
    action = test_labels >= 0
    assert 0.5 < (nearest[action] == test_labels[action]).mean() < 0.97


def test_some_background_looks_like_an_action_of_the_recording():
    """The strongest background is stronger in the class that the recording holds than in others."""
    annotations = make(48)
    features = draw(annotations, dim=64)
    labels = snippet_labels(annotations, features)
    # Differences within recordings leave the scenes out.
    outside = {name: features[name][labels[name] == -1] for name in features}
    centred = {name: outside[name] - np.median(outside[name], axis=0) for name in features}
    directions = np.zeros((len(CLASSES), 64))
    for name, recording in annotations.recordings.items():
        label = CLASSES.index(recording.instances[0].label)
        directions[label] += features[name][labels[name] == label].mean(axis=0)
        directions[label] -= outside[name].mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    own, other = [], []
    for name, recording in annotations.recordings.items():
        strongest = np.quantile(centred[name] @ directions.T, 0.97, axis=0)
        label = CLASSES.index(recording.instances[0].label)
        own.append(strongest[label])
        other.append(np.delete(strongest, label).mean())
    assert np.mean(own) > 1.15 * np.mean(other)


def test_scenes_go_with_classes():
    annotations = make(40, labels=("run", "jump"))
    features = draw(annotations, dim=64)
    labels = snippet_labels(annotations, features)
    scenes = np.stack([features[name][labels[name] == -1].mean(axis=0) for name in features])
    scenes -= scenes.mean(axis=0)
    scenes /= np.linalg.norm(scenes, axis=1, keepdims=True)
    alike = scenes @ scenes.T
    same = np.equal.outer(np.arange(40) % 2, np.arange(40) % 2)
    off = ~np.eye(40, dtype=bool)
    assert alike[same & off].mean() > alike[~same].mean() + 0.2


def test_memory_is_that_of_one_recording():
    annotations = make(40, length=200)
    one = 200 * 128 * 4
    tracemalloc.start()
    total = sum(array.nbytes for _, array in synthesize(annotations, dim=128, grid=GRID))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 40 * one and peak < 10 * one


def test_writing_streams_too(tmp_path):
    annotations = make(40, length=200)
    tracemalloc.start()
    write(tmp_path / "f", "joined", annotations, dim=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 200 * 128 * 4


def test_split():
    def roles(*subsets):
        recordings = {str(i): RecordingAnnotation(s, 1.0) for i, s in enumerate(subsets)}
        return list(split_subsets(Annotations((), recordings)).values())

    assert roles("Validation", "Test") == ["train", "test"]
    assert roles("training", "validation") == ["train", "test"]
    assert roles("train", "test") == ["train", "test"]
    with pytest.raises(ValueError, match="1: subset 'testing', expected one of train, training"):
        roles("training", "testing")


def test_own(tmp_path):
    folder = write(tmp_path / "f", "own")
    dataset = load_folder(folder, train_subset="Validation", test_subset="Test")
    drawn = draw(SMALL, dim=16)
    assert [recording.name for recording in dataset.train] == ["a", "c", "d"]
    for recording in (*dataset.train, *dataset.test):
        assert recording.grid == GRID
        np.testing.assert_array_equal(recording.features, drawn[recording.name])
    assert [len(recording.points) for recording in dataset.train] == [2, 0, 1]


def test_streams(tmp_path):
    folder = write(tmp_path / "f", "streams")
    for role, names in (("train", "acd"), ("test", "b")):
        for name in names:
            streams = [np.load(folder / f"features/{role}/{s}/{name}.npy") for s in ("rgb", "flow")]
            assert [stream.shape[1] for stream in streams] == [8, 8]
            np.testing.assert_array_equal(np.hstack(streams), draw(SMALL, dim=16)[name])
        assert (folder / f"split_{role}.txt").read_text().split() == list(names)
    truth = json.loads((folder / "gt.json").read_text())["database"]
    assert truth["a"] == {
        "subset": "train",
        "annotations": [
            {"segment": ["1.05", "4.02"], "label": "run"},
            {"segment": ["6.7", "6.74"], "label": "jump"},
        ],
    }
    assert {name: entry["subset"] for name, entry in truth.items()}["b"] == "test"
    fps = json.loads((folder / "fps_dict.json").read_text())
    assert fps == dict.fromkeys("abcd", 30.0)
    rows = read_csv(folder / "point_gaussian" / "point_labels.csv")
    columns = "class class_index start_frame stop_frame video_id point".split()
    assert list(rows[0]) == columns
    assert [(row["class"], row["class_index"]) for row in rows] == [
        ("run", "2"),
        ("jump", "1"),
        ("dive", "0"),
    ]
    assert [(row["start_frame"], row["stop_frame"]) for row in rows] == [
        ("32", "121"),  # 31.5 goes to the even one
        ("201", "202"),
        ("0", "150"),
    ]
    check_points(rows, fps=30.0)


def test_joined(tmp_path):
    folder = write(tmp_path / "f", "joined")
    check_arrays(folder / "features")
    values = json.loads((folder / "gt_full.json").read_text())
    assert values["database"]["a"] == {
        "subset": "Validation",
        "duration": 19.0,
        "fps": 30.0,
        "annotations": [
            {"label": "run", "segment": [1.05, 4.02]},
            {"label": "jump", "segment": [6.7, 6.74]},
        ],
    }
    assert list(values["database"]) == list("abcd")
    assert (folder / "split_test.txt").read_text() == "b\n"
    check_hr_pro_points(folder)


def test_activitynet(tmp_path):
    folder = write(tmp_path / "f", "activitynet")
    check_arrays(folder)
    values = json.loads((folder / "anet_anno_action.json").read_text())
    assert values["d"] == {
        "duration_second": 5.0,
        "duration_frame": 150,
        "annotations": [{"label": "dive", "segment": [0.0, 5.0]}],
        "feature_frame": 144,
    }
    rows = read_csv(folder / "video_info_new.csv")
    assert [row["video"] for row in rows] == list("abcd")
    assert rows[1] == {
        "video": "b",
        "numFrame": "211",
        "seconds": "7.04",
        "fps": "30.0",
        "rfps": "30.0",
        "subset": "validation",
        "featureFrame": "208",
    }
    assert rows[0]["subset"] == "training"
    check_hr_pro_points(folder)


def test_object_array(tmp_path):
    folder = write(tmp_path / "f", "object array")
    features = np.load(folder / FEATURES, allow_pickle=True)
    known = load_arrays(folder / "Thumos14reduced-Annotations")
    assert known["videoname"].tolist() == [b"a", b"b", b"c", b"d"]
    assert features.shape == (4,) and features.dtype == object
    for name, array in zip("abcd", features, strict=True):
        np.testing.assert_array_equal(array, draw(SMALL, dim=16)[name])
    assert known["subset"].tolist() == [b"validation", b"test", b"validation", b"validation"]
    assert known["duration"].tolist() == [[19.0], [7.04], [12.5], [5.0]]
    assert known["classlist"].tolist() == [label.encode() for label in CLASSES]
    assert known["extracted_fps"].tolist() == [10] * 4
    assert known["original_fps"].tolist() == [30.0] * 4
    assert known["labels"].tolist() == [["run", "jump"], ["run"], [], ["dive"]]
    assert known["labels_all"].tolist() == [["jump", "run"], ["run"], [], ["dive"]]
    assert known["segments"].tolist() == [
        [[1.05, 4.02], [6.7, 6.74]],
        [[2.0, 6.9]],
        [],
        [[0.0, 5.0]],
    ]


def test_object_array_of_recordings_of_one_length(tmp_path):
    folder = write(tmp_path / "f", "object array", make(3, length=30))
    features = np.load(folder / FEATURES, allow_pickle=True)
    assert features.shape == (3,) and features[0].shape == (30, 16)
    known = load_arrays(folder / "Thumos14reduced-Annotations")
    assert known["segments"].shape == (3,)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_that_it_is_no_result(layout, tmp_path):
    folder = write(tmp_path / "f", layout, dtype=np.float16)
    assert "Nothing measured on them is a result" in (folder / "STAND_IN.txt").read_text()
    arrays = [np.load(path, allow_pickle=True) for path in folder.rglob("*.npy")]
    assert all(array.dtype != np.float32 for array in arrays)


def test_reports_how_far_it_is(tmp_path):
    lines = []
    annotations = make(51, length=10)
    write_stand_in(tmp_path / "f", annotations, layout="own", grid=GRID, dim=2, report=lines.append)
    assert lines == ["50 of 51 recordings", "51 of 51 recordings"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"layout": "other"}, "unknown layout 'other', expected one of own, streams, "),
        ({"dim": 1}, "dim is 1, expected a whole number, 2 or more"),
        ({"dim": 2.5}, "dim is 2.5, expected a whole number"),
        ({"dim": 7}, "dim is 7, expected an even number"),
        ({"seed": -1}, "seed is -1, expected a whole number, 0 or more"),
        ({"dtype": np.int32}, "dtype is int32, expected float32 or float16"),
        ({"annotations": {"a": Instance("run", point_s=1.0)}}, "a: instance of 'run' has no segm"),
        ({"annotations": {"a/b": Instance("run", 1.0, 2.0)}}, "recording name 'a/b'"),
        ({"subset": "held out"}, "a: subset 'held out', expected one of train, training, test"),
    ],
)
def test_refused(changes, message, tmp_path):
    instances = changes.pop("annotations", {"a": Instance("run", 1.0, 2.0)})
    subset = changes.pop("subset", "train")
    recordings = {
        name: RecordingAnnotation(subset, 9.0, (instance,)) for name, instance in instances.items()
    }
    settings = {"layout": "streams", "annotations": Annotations(CLASSES, recordings)} | changes
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "f", **settings)
    assert not list(tmp_path.iterdir())


def test_synthesize_refuses_at_once():
    """Not only when the first recording is asked for."""
    with pytest.raises(ValueError, match="dim is 0"):
        synthesize(SMALL, dim=0, grid=GRID)


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="already holds something, expected a new or an empty"):
            write(folder, "own")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "own")


@pytest.mark.skipif(not os.environ.get("TAL_JAX_DATA"), reason="needs the published annotations")
def test_files_are_shaped_as_the_published_ones(tmp_path):
    published = Path(os.environ["TAL_JAX_DATA"]) / "annotations"

    def columns(path):
        return path.read_text().splitlines()[0].split(",")

    def keys(path):
        """Those of the file, of its first recording, and of that one's first instance."""
        values = json.loads(path.read_text())
        recording = next(iter(values.get("database", values).values()))
        return values.keys() - values.get("database", values).keys(), *(
            set(entry) for entry in (recording, recording["annotations"][0])
        )

    streams = write(tmp_path / "streams", "streams")
    for path in ("point_gaussian/point_labels.csv",):
        assert columns(streams / path) == columns(published / "THUMOS14" / path)
    assert keys(streams / "gt.json") == keys(published / "THUMOS14" / "gt.json")

    joined = write(tmp_path / "joined", "joined")
    for path in ("point_labels/point_gaussian.csv",):
        assert columns(joined / path) == columns(published / "GTEA" / path)
    ours, theirs = (keys(folder / "gt_full.json") for folder in (joined, published / "THUMOS14"))
    assert ours[:2] == theirs[:2] and ours[2] <= theirs[2]

    activitynet = write(tmp_path / "activitynet", "activitynet")
    for path in ("point_labels/point_gaussian.csv", "video_info_new.csv"):
        assert columns(activitynet / path) == columns(published / "ActivityNet1.3" / path)
    paths = (
        folder / "anet_anno_action.json" for folder in (activitynet, published / "ActivityNet1.3")
    )
    ours, theirs = map(keys, paths)
    assert ours == theirs

    write(tmp_path / "objects", "object array")
    ours = load_arrays(tmp_path / "objects" / "Thumos14reduced-Annotations")
    theirs = load_arrays(published / "THUMOS14_wtalc")
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        assert array.dtype.kind == theirs[key].dtype.kind, key
        assert array.ndim == theirs[key].ndim, key
        if array.dtype == object:
            assert type(array[0]) is type(theirs[key][0]) is list
            assert type(array[0][0]) is type(theirs[key][0][0])


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def load_arrays(folder):
    return {path.stem: np.load(path, allow_pickle=True) for path in folder.glob("*.npy")}


def check_arrays(folder):
    for role, names in (("train", "acd"), ("test", "b")):
        assert sorted(path.name for path in (folder / role).iterdir()) == [
            f"{name}.npy" for name in names
        ]
        for name in names:
            array = np.load(folder / role / f"{name}.npy")
            np.testing.assert_array_equal(array, draw(SMALL, dim=16)[name])


def check_hr_pro_points(folder):
    rows = read_csv(folder / "point_labels" / "point_gaussian.csv")
    assert list(rows[0]) == "class start_frame stop_frame video_id point".split()
    for row, (_, instance) in zip(rows, train_instances(), strict=True):
        assert float(row["start_frame"]) / 30 == pytest.approx(instance.start_s)
        assert float(row["stop_frame"]) / 30 == pytest.approx(instance.end_s)
    check_points(rows, fps=30.0)


def check_points(rows, *, fps):
    """One in each training instance, in whole frames where the instance holds one."""
    for row, (name, instance) in zip(rows, train_instances(), strict=True):
        assert (row["video_id"], row["class"]) == (name, instance.label)
        assert instance.start_s <= float(row["point"]) / fps < instance.end_s
        assert row["point"].isdigit() or instance.end_s - instance.start_s < 2 / fps


def train_instances():
    return [
        (name, instance)
        for name, recording in SMALL.recordings.items()
        if recording.subset == "Validation"
        for instance in recording.instances
    ]
