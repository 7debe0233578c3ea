"""Annotation files of other people's: what is read, and what is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tal_jax.data.annotation_files import (
    read_ambiguous,
    read_annotations,
    read_frame_rates,
    read_split,
)
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.files import write_json


def activitynet(*annotations, top=None, **recording):
    return {"database": {"r": {"annotations": list(annotations), **recording}}, **(top or {})}


def write_activitynet(folder, *annotations, **keys):
    write_json(folder / "gt.json", activitynet(*annotations, **keys))
    return folder / "gt.json"


def write_bmn(folder, entry=None, table="video,numFrame,fps,subset\nv_1,2067,30.0,training\n"):
    entry = entry or {
        "duration_second": 82.5,
        "duration_frame": 2062.5,
        "annotations": [{"segment": [6.25, 77], "label": "Ballet"}],
        "feature_frame": 2048,
    }
    write_json(folder / "anet_anno_action.json", {"v_1": entry})
    if table is not None:
        (folder / "video_info_new.csv").write_text(table)
    return folder / "anet_anno_action.json"


def objects(*entries):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


WTALC = {
    "videoname": np.array([b"val_1", b"test_1"]),
    "subset": np.array([b"validation", b"test"]),
    "duration": np.array([[20.0], [9.5]]),
    "original_fps": np.array([30.0, 29.97]),
    "extracted_fps": np.array([10, 10]),
    "classlist": np.array([b"Diving", b"Billiards"]),
    "labels": objects(["Billiards", "Diving"], []),
    "segments": objects([[1.5, 2], [30.0, 29.0]], []),
}


def write_wtalc(folder, **changes):
    for name, array in {**WTALC, **changes}.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return folder


# --- what is read ---


def test_lacp(tmp_path):
    """Segments as strings, and no durations."""
    path = write_activitynet(tmp_path, {"segment": ["18.6", "24.8"], "label": "Dip"}, subset="test")
    assert read_annotations(path) == Annotations(
        recordings={"r": RecordingAnnotation("test", instances=(Instance("Dip", 18.6, 24.8),))},
        classes=("Dip",),
    )


def test_our_own(tmp_path):
    path = write_activitynet(
        tmp_path,
        {"label": "run", "segment": [1, 2.5], "point": 1.5},
        {"label": "run", "point": 3},
        {"label": "dip"},
        subset="train",
        duration=9.0,
        fps=25,
        top={
            "classes": ["run", "dip"],
            "overlapping": [["run", "dip"]],
            "points": {"law": "uniform", "seed": 1},
        },
    )
    raw = read_annotations(path)
    assert raw.recordings["r"] == RecordingAnnotation(
        "train",
        9.0,
        (Instance("run", 1.0, 2.5, 1.5), Instance("run", point_s=3.0), Instance("dip")),
        25.0,
    )
    assert raw.classes == ("run", "dip")
    assert raw.overlapping == (("run", "dip"),)
    assert raw.point_distribution == {"law": "uniform", "seed": 1}


def test_activitynet(tmp_path):
    """The file of the challenge, whose test videos have no annotations."""
    keys = {"url": "https://", "resolution": "320x240"}
    path = write_activitynet(
        tmp_path, subset="testing", duration=8.5, **keys, top={"version": "1.3", "taxonomy": [{}]}
    )
    raw = read_annotations(path)
    assert raw.recordings == {"r": RecordingAnnotation("testing", 8.5)} and raw.classes == ()


def test_the_file_may_say_little(tmp_path):
    assert read_annotations(write_activitynet(tmp_path)).recordings == {"r": RecordingAnnotation()}
    path = write_activitynet(tmp_path, duration_second=3)
    assert read_annotations(path).recordings["r"].duration_s == 3.0


@pytest.mark.parametrize("segment", [[3, 3], [3, 2], [-1, 2], [8, 99]])
def test_times_are_not_judged(tmp_path, segment):
    path = write_activitynet(tmp_path, {"label": "run", "segment": segment}, duration=9)
    instance = read_annotations(path).recordings["r"].instances[0]
    assert [instance.start_s, instance.end_s] == segment


def test_bmn(tmp_path):
    raw = read_annotations(write_bmn(tmp_path))
    assert raw.source == str(tmp_path / "anet_anno_action.json") and raw.classes == ("Ballet",)
    instances = (Instance("Ballet", 6.25, 77.0),)
    assert raw.recordings == {"v_1": RecordingAnnotation("training", 82.5, instances, 25.0)}


def test_wtalc(tmp_path):
    raw = read_annotations(write_wtalc(tmp_path), allow_pickle=True)
    assert raw == Annotations(
        recordings={
            "val_1": RecordingAnnotation(
                "validation",
                20.0,
                (Instance("Billiards", 1.5, 2.0), Instance("Diving", 30.0, 29.0)),
                30.0,
            ),
            "test_1": RecordingAnnotation("test", 9.5, frame_rate=29.97),
        },
        classes=("Diving", "Billiards"),
    )


def test_wtalc_without_rates(tmp_path):
    raw = read_annotations(write_wtalc(tmp_path, original_fps=None), allow_pickle=True)
    assert {recording.frame_rate for recording in raw.recordings.values()} == {None}


def test_wtalc_of_plain_arrays(tmp_path):
    """Where each video has as many instances, the lists are arrays, and nothing is pickled."""
    labels = np.array([["Diving"], ["Billiards"]])
    segments = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    raw = read_annotations(write_wtalc(tmp_path, labels=labels, segments=segments))
    assert raw.recordings["test_1"].instances == (Instance("Billiards", 3.0, 4.0),)


def test_wtalc_of_arrays_in_lists(tmp_path):
    segments = objects([np.float32([1.5, 2]), (np.int64(3), 4)], np.zeros((0, 2)))
    raw = read_annotations(write_wtalc(tmp_path, segments=segments), allow_pickle=True)
    starts = [instance.start_s for instance in raw.recordings["val_1"].instances]
    assert starts == [1.5, 3.0] and raw.recordings["test_1"].instances == ()


# --- pickles ---


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("name", ["videoname", "subset", "duration", "original_fps", "classlist"])
def test_other_arrays_are_never_unpickled(tmp_path, name, allow_pickle):
    trap = tmp_path / "trap"
    write_wtalc(tmp_path, **{name: objects(Evil(str(trap)))})
    with pytest.raises(ValueError, match="npy: (Object arrays|.* hold Python objects)"):
        read_annotations(tmp_path, allow_pickle=allow_pickle)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["labels", "segments"])
def test_pickles_need_a_permission(tmp_path, name):
    trap = tmp_path / "trap"
    plain = {"labels": np.zeros((2, 0), "S1"), "segments": np.zeros((2, 0))}
    write_wtalc(tmp_path, **{**plain, name: objects(Evil(str(trap)), [])})
    message = "hold Python objects, and reading them can run code .* --set data.allow_pickle=True"
    with pytest.raises(ValueError, match=f"{name}.npy: .*{message}"):
        read_annotations(tmp_path)
    assert not trap.exists()
    with pytest.raises(ValueError, match="val_1: .* expected two lists"):
        read_annotations(tmp_path, allow_pickle=True)
    assert trap.exists()  # which is why it is asked


# --- what is refused ---


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segment": [1, 2]}, "r: annotations.0.: missing key 'label'"),
        ({"label": 3}, "r: annotations.0..label is 3, expected a string"),
        (["run", 1, 2], "r: annotations.0. is .'run', 1, 2., expected an object"),
        ({"label": "run", "segment": [1]}, r"segment is \[1\], expected a list of length 2"),
        ({"label": "run", "segment": "12"}, "segment is '12', expected"),
        ({"label": "run", "segment": ["1", "x"]}, "is 'x', expected a finite number"),
        ({"label": "run", "segment": ["1", "nan"]}, "is 'nan', expected a finite number"),
        ({"label": "run", "segment": [1, None]}, "is None, expected a finite number"),
        ({"label": "run", "segment": [1, 10**400]}, "expected a finite number"),
        ({"label": "run", "point": True}, "point is True, expected a finite number"),
    ],
)
def test_bad_instances(tmp_path, annotation, message):
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(write_activitynet(tmp_path, annotation))
    assert str(error.value).startswith(f"{tmp_path}/gt.json: r: ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"duration": "long"}, "r: duration is 'long', expected a finite number"),
        ({"fps": 0}, "r: fps is 0, expected a finite number above 0"),
        ({"subset": 3}, "r: subset is 3, expected a string"),
        ({"annotations": {}}, "r: annotations is {}, expected a list"),
        ({"top": {"classes": "run"}}, "gt.json: classes is 'run', expected a list"),
        ({"top": {"classes": ["dip"]}}, "r: unknown class 'run', expected one of dip"),
        ({"top": {"database": [1]}}, "gt.json: database is .1., expected an object"),
    ],
)
def test_bad_recordings(tmp_path, keys, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(write_activitynet(tmp_path, {"label": "run"}, **keys))


@pytest.mark.parametrize("values", [{}, [], {"r": {"annotations": []}}, 3])
def test_unknown_layout(tmp_path, values):
    write_json(tmp_path / "a.json", values)
    with pytest.raises(ValueError, match="a.json: expected ActivityNet's annotations, .* or BMN's"):
        read_annotations(tmp_path / "a.json")


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="cannot read .*a.json: No such file"):
        read_annotations(tmp_path / "a.json")
    with pytest.raises(ValueError, match="no videoname.npy, expected a folder of W-TALC's arrays"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("entry", "table", "message"),
    [
        (None, None, "cannot read .*video_info_new.csv: No such file.* for the subsets"),
        (None, "video,fps\nv_1,3\n", "video_info_new.csv: no column 'subset', expected .* video"),
        (None, "", "video_info_new.csv: no column 'video'"),
        (None, "video,subset\nv_1\n", "line 2 does not have 2 fields"),
        (None, "video,subset\nv_1,a,b\n", "line 2 does not have 2 fields"),
        (None, "video,subset\nv_1,a\nv_1,b\n", "'v_1' occurs twice"),
        (None, "video,subset\nv_2,a\n", "v_1: not in .*video_info_new.csv"),
        ({"duration_frame": 1}, "video,subset\nv_1,a\n", "v_1: missing key 'duration_second'"),
    ],
)
def test_bad_bmn(tmp_path, entry, table, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(write_bmn(tmp_path, entry, table))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subset": np.array([b"test"])}, "subset.npy: 1 entries, expected one .* the 2 of"),
        ({"subset": np.array([1, 2])}, "subset.npy: .0. is 1, expected a string"),
        ({"videoname": np.array([b"a", b"a"])}, "videoname.npy: 'a' occurs twice, expected once"),
        ({"videoname": np.array([b"\xff", b"a"])}, r"\[0\] is b'\\xff', expected a string"),
        ({"duration": np.array([1, np.nan])}, "test_1: duration is nan"),
        (
            {"original_fps": np.array([0.0, 1])},
            "val_1: fps is 0.0, expected a finite number above 0",
        ),
        (
            {"labels": objects(["Diving"], [])},
            "val_1: labels are .* expected two lists of one length",
        ),
        ({"labels": objects(["Diving", "dip"], [])}, "val_1: unknown class 'dip', expected one of"),
        (
            {"labels": objects(["Diving", 3], [])},
            "val_1: annotations.1..label is 3, expected a string",
        ),
        ({"segments": objects([[1, 2], [3]], [])}, r"val_1: annotations\[1\].segment is \[3\]"),
        ({"segments": objects([[1, 2], ["a", 3]], [])}, "is 'a', expected a finite number"),
        ({"classlist": None}, "cannot read .*classlist.npy: No such file"),
    ],
)
def test_bad_wtalc(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(write_wtalc(tmp_path, **changes), allow_pickle=True)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_broken_arrays(tmp_path):
    write_wtalc(tmp_path)
    content = (tmp_path / "labels.npy").read_bytes()
    for broken in (content[:-10], content[:9], b"", b"text", pickle.dumps([1])):
        (tmp_path / "labels.npy").write_bytes(broken)
        with pytest.raises(ValueError, match="labels.npy"):
            read_annotations(tmp_path, allow_pickle=True)


# --- what lies beside ---


def test_frame_rates(tmp_path):
    write_json(tmp_path / "fps_dict.json", {"a": 30, "b": 29.97})
    assert read_frame_rates(tmp_path / "fps_dict.json") == {"a": 30.0, "b": 29.97}
    for values, message in (
        ([30], "got .30., expected an object"),
        ({"a": -1}, "a: got -1, expected a finite number above 0"),
        ({"a": None}, "a: got None, expected a finite number"),
    ):
        write_json(tmp_path / "fps_dict.json", values)
        with pytest.raises(ValueError, match=f"fps_dict.json: {message}"):
            read_frame_rates(tmp_path / "fps_dict.json")


def test_split(tmp_path):
    path = tmp_path / "split_train.txt"
    path.write_bytes(b"\xef\xbb\xbfa_1\r\nb 2\r\n\r\nc")  # as an editor on Windows leaves it
    assert read_split(path) == ("a_1", "b 2", "c")
    path.write_text("a\nb\na \n")
    with pytest.raises(ValueError, match="split_train.txt: 'a' occurs twice"):
        read_split(path)


def test_ambiguous(tmp_path):
    path = tmp_path / "Ambiguous_test.txt"
    path.write_text("a  0.0 1.4\nb 3 4\na  95.7 97.2\n")
    assert read_ambiguous(path) == {"a": ((0.0, 1.4), (95.7, 97.2)), "b": ((3.0, 4.0),)}
    for line in ("a 1", "a 1 2 3", "a 1 x"):
        path.write_text(f"a 0 1\n{line}\n")
        with pytest.raises(ValueError, match="Ambiguous_test.txt: line 2: a: segment"):
            read_ambiguous(path)


# --- real files ---

COUNTS = {
    "THUMOS14/gt.json": {"train": (200, 3007), "test": (210, 3311)},
    "THUMOS14/gt_full.json": {"Validation": (200, 3007), "Test": (212, 3358)},
    "THUMOS14_wtalc": {"validation": (200, 3007), "test": (212, 3358)},
    "GTEA/gt_full.json": {"training": (21, 367), "validation": (7, 130)},
    "BEOID/gt_full.json": {"training": (46, 594), "validation": (12, 148)},
    "ActivityNet1.3/anet_anno_action.json": {
        "training": (9649, 14859),
        "validation": (4728, 7293),
        "testing": (4851, 0),
    },
}
CLASSES = {"THUMOS14": 20, "THUMOS14_wtalc": 20, "GTEA": 7, "BEOID": 34, "ActivityNet1.3": 200}


@pytest.mark.skipif(not os.environ.get("TAL_JAX_DATA"), reason="TAL_JAX_DATA is not set")
@pytest.mark.parametrize("name", COUNTS)
def test_real_files(name):
    folder = Path(os.environ["TAL_JAX_DATA"]) / "annotations"
    raw = read_annotations(folder / name, allow_pickle=True)
    counts = {}
    for recording in raw.recordings.values():
        videos, segments = counts.get(recording.subset, (0, 0))
        counts[recording.subset] = (videos + 1, segments + len(recording.instances))
    assert counts == COUNTS[name]
    assert len(raw.classes) == CLASSES[name.split("/")[0]]


@pytest.mark.skipif(not os.environ.get("TAL_JAX_DATA"), reason="TAL_JAX_DATA is not set")
def test_real_files_agree():
    """The same segments in three layouts, and the names of the splits."""
    folder = Path(os.environ["TAL_JAX_DATA"]) / "annotations"
    full = read_annotations(folder / "THUMOS14/gt_full.json").recordings
    for name in ("THUMOS14/gt.json", "THUMOS14_wtalc"):
        other = read_annotations(folder / name, allow_pickle=True).recordings
        for video, recording in other.items():
            assert sorted(recording.instances, key=str) == sorted(full[video].instances, key=str)
    lacp = read_annotations(folder / "THUMOS14/gt.json").recordings
    for subset in ("train", "test"):
        names = read_split(folder / f"THUMOS14/split_{subset}.txt")
        assert set(names) == {name for name, r in lacp.items() if r.subset == subset}
    rates = read_frame_rates(folder / "THUMOS14/fps_dict.json")
    assert set(full) <= set(rates)
    ambiguous = read_ambiguous(folder / "THUMOS14/Ambiguous_test.txt")
    assert len(ambiguous) == 37 and sum(map(len, ambiguous.values())) == 99
