"""Label files of other tools: what they write is read, what we write is read again and by them."""

import errno
import json
import math
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from tal_jax import cli, formats
from tal_jax._errors import InputError
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    load_annotations,
)
from tal_jax.formats.labels import recording_name

JUMP = Instance("jump", 3.1, 4.0, 3.4)
RUN = Instance("run", point_s=20.2)
FALL = Instance("fall, «hard» & <fast> 跳", 5.0, 7.25)
KINDS_OF_ONE = ["elan", "audacity", "raven", "webvtt"]


def _labels(instances=(JUMP, RUN, FALL), **more) -> Annotations:
    classes = tuple(dict.fromkeys(instance.label for instance in instances))
    recording = RecordingAnnotation("train", 61.2, tuple(instances))
    return Annotations(classes, {"clip": recording, **more})


def _round_trip(path, labels, **options):
    notes = formats.write_labels(path, labels, **options)
    return formats.read_labels(path), notes


def _sorted(labels, name="clip"):
    instances = labels.recordings[name].instances
    return sorted(instances, key=lambda i: (i.start_s if i.point_s is None else i.point_s, i.label))


# --- round trips ---


@pytest.mark.parametrize("kind", formats.KINDS)
def test_every_kind_keeps_labels(tmp_path, kind):
    path = tmp_path / f"clip{formats._SUFFIXES[kind]}"
    again, notes = _round_trip(path, _labels(), kind=kind)
    assert _sorted(again) == [JUMP, FALL, RUN]
    both = kind in ("activitynet", "csv")
    assert any("a segment and a point" in note for note in notes) is not both
    assert any("put into the segment" in note for note in again.notes) is not both
    assert again.recordings["clip"].subset == "train"
    if kind not in ("audacity", "via", "raven", "webvtt"):
        assert again.recordings["clip"].duration_s == 61.2
    else:
        assert any("durations" in note for note in notes)


@pytest.mark.parametrize("kind", ["activitynet", "csv", "label-studio", "via", "boris"])
def test_kinds_with_many_recordings(tmp_path, kind):
    labels = _labels(
        **{
            "quiet": RecordingAnnotation("train", 30.0),
            "video.v2": RecordingAnnotation("train", 9.5),
        }
    )
    again, _ = _round_trip(tmp_path / f"all{formats._SUFFIXES[kind]}", labels, kind=kind)
    assert list(again.recordings) == ["clip", "quiet", "video.v2"]
    assert again.recordings["quiet"].instances == ()


@pytest.mark.parametrize("kind", KINDS_OF_ONE)
def test_one_recording_a_file(tmp_path, kind):
    labels = _labels(**{"video.v2": RecordingAnnotation("train", 9.5, (RUN,))})
    suffix = formats._SUFFIXES[kind]
    with pytest.raises(ValueError, match=f"all{suffix}: 2 recordings, but {kind} holds one"):
        formats.write_labels(tmp_path / f"all{suffix}", labels)
    assert not list(tmp_path.iterdir())
    formats.write_labels(tmp_path / "all", labels, kind=kind)
    paths = sorted((tmp_path / "all").iterdir())
    assert [path.name for path in paths] == [f"clip{suffix}", f"video.v2{suffix}"]
    merged = formats.merge_labels([formats.read_labels(path) for path in paths])
    assert list(merged.recordings) == ["clip", "video.v2"]
    with pytest.raises(ValueError, match="'clip' is in .*clip.* and in .*clip"):
        formats.merge_labels([formats.read_labels(paths[0])] * 2)
    with pytest.raises(ValueError, match="recording name '../clip'"):
        formats.write_labels(
            tmp_path / "all", _labels(**{"../clip": RecordingAnnotation()}), kind=kind
        )


RESOLUTION_S = {"elan": 1e-3, "audacity": 1e-6, "via": 1e-6, "label-studio": 1e-6, "csv": 0.0}
RESOLUTION_S |= {"boris": 1e-3, "raven": 1e-6, "webvtt": 1e-3}
TIMES = st.floats(0, 36_000, allow_subnormal=False)
INSTANCES = st.one_of(
    st.builds(lambda time: Instance("a", point_s=time), TIMES),
    st.builds(lambda time: Instance("b", point_s=time), TIMES),
    st.builds(
        lambda start, length: Instance("c", start, start + length), TIMES, st.floats(1e-2, 50.0)
    ),
)


@pytest.mark.parametrize("kind", RESOLUTION_S)
@hypothesis.given(instances=st.lists(INSTANCES, max_size=12))
@hypothesis.settings(max_examples=30)
def test_times_are_exact_to_the_resolution(tmp_path_factory, kind, instances):
    path = tmp_path_factory.mktemp(kind) / f"clip{formats._SUFFIXES[kind]}"
    again, _ = _round_trip(path, _labels(instances), kind=kind)
    half = RESOLUTION_S[kind] / 2 * (1 + 1e-6)
    for label in "abc":
        # Rounding may swap neighbours, so times are compared in their own order.
        before, after = (
            sorted(
                (i.start_s, i.end_s) if i.point_s is None else (i.point_s, i.point_s)
                for i in group
                if i.label == label
            )
            for group in (instances, again.recordings["clip"].instances)
        )
        assert len(before) == len(after)
        for column in (0, 1):
            for one, same in zip(
                sorted(b[column] for b in before), sorted(a[column] for a in after), strict=True
            ):
                assert abs(one - same) <= half
    # What was read once is read the same again.
    twice, _ = _round_trip(path, again, kind=kind)
    assert _sorted(twice) == _sorted(again)


def test_frames_of_label_studio(tmp_path):
    """Ranges count from 1 and hold both ends; a single frame is a point."""
    instances = (
        Instance("jump", 1.0, 2.0),
        Instance("jump", point_s=4.0),
        Instance("run", 5.0, 5.01),
    )
    path = tmp_path / "tasks.json"
    again, _ = _round_trip(path, _labels(instances), kind="label-studio", frame_rate=25.0)
    results = json.loads(path.read_text())[0]["annotations"][0]["result"]
    assert [one["value"]["ranges"] for one in results] == [
        [{"start": 26, "end": 50}],
        [{"start": 101, "end": 101}],
        [{"start": 126, "end": 127}],
    ]
    assert _sorted(again) == [
        instances[0],
        Instance("jump", point_s=4.02),
        Instance("run", 5.0, 5.08),
    ]
    again_and_again, _ = _round_trip(path, again, kind="label-studio")
    assert _sorted(again_and_again) == _sorted(again)


@pytest.mark.parametrize("rate", [24.0, 25.0, 30000 / 1001, 59.94])
def test_a_point_stays_on_its_frame(tmp_path, rate):
    instances = tuple(Instance("a", point_s=frame / rate) for frame in range(0, 2000, 7))
    again, _ = _round_trip(
        tmp_path / "tasks.json", _labels(instances), kind="label-studio", frame_rate=rate
    )
    found = [i.point_s * rate for i in again.recordings["clip"].instances]
    assert found == pytest.approx([frame + 0.5 for frame in range(0, 2000, 7)])


def test_elan_tiers_hold_no_overlap(tmp_path):
    """Overlapping annotations in one tier would make ELAN refuse or mend the file."""
    instances = [Instance("a", k / 2, k / 2 + 1.2) for k in range(6)] + [
        Instance("b", point_s=1.0)
    ] * 2
    formats.write_labels(tmp_path / "clip.eaf", _labels(instances))
    root = ElementTree.parse(tmp_path / "clip.eaf").getroot()
    times = {
        slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")
    }
    assert list(times.values()) == sorted(times.values())
    tiers = {}
    for tier in root.iter("TIER"):
        spans = [
            (times[one.get("TIME_SLOT_REF1")], times[one.get("TIME_SLOT_REF2")])
            for one in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        tiers[tier.get("TIER_ID")] = len(spans)
        assert all(start < end for start, end in spans)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert tiers == {"actions": 2, "actions 2": 2, "actions 3": 2, "points": 1, "points 2": 1}
    order = list(dict.fromkeys(child.tag for child in root))
    assert order == [
        *("HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "LANGUAGE", "CONTROLLED_VOCABULARY")
    ]
    assert len({one.get("ANNOTATION_ID") for one in root.iter("ALIGNABLE_ANNOTATION")}) == 8


def test_the_order_of_classes_stays(tmp_path):
    raw = Annotations(("run", FALL.label, "jump", "z"), _labels().recordings)
    for kind in ("elan", "via", "activitynet"):
        path = tmp_path / f"clip{formats._SUFFIXES[kind]}"
        again, _ = _round_trip(path, raw, kind=kind)
        assert again.classes == raw.classes


@pytest.mark.parametrize(
    "kind", [one for one in formats.KINDS if one not in ("activitynet", "csv")]
)
def test_times_before_zero_and_reversed_segments(tmp_path, kind):
    labels = _labels((
        Instance("jump", -0.5, 1.0),
        Instance("jump", 5.0, 3.0),
        Instance("run", -3.0, -1.0),
        Instance("run", point_s=-2.0),
        Instance("run", 8.0, 7.0, 9.0),
    ))  # fmt: skip
    path = tmp_path / f"clip{formats._SUFFIXES[kind]}"
    again, notes = _round_trip(path, labels, kind=kind)
    assert _sorted(again) == [Instance("jump", 0.0, 1.0), Instance("run", point_s=9.0)]
    assert notes[:2] == [
        "segments that begin before 0 s, cut there: 1",
        "times before 0 s, or segments that end before they start, left out: 4",
    ]


def test_names_and_labels_that_are_no_unicode(tmp_path):
    path = tmp_path / f"{os.fsdecode(bytes([0xE9]))}.txt"
    path.write_text("1.0\t2.0\tjump\n")
    with pytest.raises(ValueError, match=r"^recording name: '\\udce9' is no Unicode, .*; rename"):
        formats.read_labels(path)
    task = {"data": {"video": "a.mp4"}, "annotations": [{"result": [
        {"type": "labels", "value": {"start": 1, "end": 2, "labels": ["\ud83d"]}},
    ]}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps([task]))
    with pytest.raises(ValueError, match=r"a.json: '\\ud83d' is no Unicode, .*; rename it"):
        formats.read_labels(tmp_path / "a.json")


def test_a_duration_holds_every_label(tmp_path):
    entry = {"annotations": [{"label": "a", "point": 1.0}], "background": [5.0]}
    other = {"annotations": [], "done": [[0.0, 7.0]]}
    (tmp_path / "a.json").write_text(json.dumps({"database": {"r": entry, "s": other}}))
    formats.write_labels(tmp_path / "b.json", formats.read_labels(tmp_path / "a.json"))
    written = load_annotations(tmp_path / "b.json").recordings
    assert written["r"].background_s == (5.0,) and 5 < written["r"].duration_s < 5.001
    assert written["s"].duration_s == 7.0


def test_nan_in_kept_keys_is_refused(tmp_path):
    event = [1.0, "", "jump", "", ""]
    observation = {"type": "LIVE", "events": [event], "independent_variables": {"x": math.nan}}
    project = {
        "observations": {"o": observation},
        "behaviors_conf": {"0": {"code": "jump", "type": "Point event"}},
    }
    detections = {"results": {"a": [{"label": "x", "score": 1, "segment": [1, 2]}]}, "t": math.nan}
    for content, name in ((project, "a.boris"), (detections, "a.json")):
        (tmp_path / name).write_text(json.dumps(content))
        output = tmp_path / f"out{Path(name).suffix}"
        assert cli.main(["convert", str(tmp_path / name), "--output", str(output)]) == 2
        assert not output.exists()


def test_addresses_that_are_none(tmp_path):
    task = {"id": 1, "data": {"video": "http://[x"}, "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    with pytest.raises(InputError, match=r"a.json: .*address 'http://\[x'"):
        formats.read_labels(tmp_path / "a.json")


def test_losses_are_told(tmp_path):
    raw = Annotations(
        ("a", "jump", "never"),
        {
            "clip": RecordingAnnotation("train", 9.0, (Instance("a"), JUMP)),
            "b": RecordingAnnotation("test"),
        },
        (("a", "jump"),),
        {"law": "uniform", "seed": 0},
    )
    notes = formats.write_labels(tmp_path / "out", raw, kind="audacity")
    assert notes == [
        "left out, since the format cannot hold it: subsets, durations, classes without an "
        "instance, instances without a time, pairs of classes that may overlap, how the points "
        "were drawn",
        "instances written as a segment and a point, which are joined when read here: 1",
    ]
    assert formats.write_labels(tmp_path / "out.csv", raw) == [
        "left out, since the format cannot hold it: classes without an instance, pairs of "
        "classes that may overlap, how the points were drawn"
    ]


@pytest.mark.parametrize("kind", ["csv", "elan", "label-studio", "via", "audacity"])
def test_background_points_and_done_stretches_that_are_lost_are_counted(tmp_path, kind):
    recording = RecordingAnnotation("train", 9.0, (JUMP,), None, (8.0, 8.5), ((0.0, 4.0),))
    path = tmp_path / f"clip{formats._SUFFIXES[kind]}"
    notes = formats.write_labels(path, Annotations(("jump",), {"clip": recording}), kind=kind)
    want = "2 background points, 1 done stretches of 1 partly done recordings"
    assert any(want in note for note in notes)


def test_activitynet_keeps_background_points_and_done_stretches(tmp_path):
    recording = RecordingAnnotation("train", 9.0, (JUMP,), None, (8.0, 8.5), ((0.0, 4.0),))
    labels = Annotations(("jump",), {"clip": recording})
    assert formats.write_labels(tmp_path / "a.json", labels) == []
    assert formats.read_labels(tmp_path / "a.json").recordings["clip"] == recording


# --- files as the tools write them ---


def test_audacity(tmp_path):
    text = "0.500000\t0.500000\tjump\n1.25\t2.75\tlong run\n\\\t1200.0\t3400.0\n\n"
    (tmp_path / "walk.txt").write_text(text)
    labels = formats.read_labels(tmp_path / "walk.txt", subset="test")
    recording = labels.recordings["walk"]
    assert recording.instances == (
        Instance("long run", 1.25, 2.75),
        Instance("jump", point_s=0.5),
    )
    assert recording.subset == "test" and recording.duration_s is None
    formats.write_labels(tmp_path / "again.txt", labels)
    assert (tmp_path / "again.txt").read_text() == (
        "0.500000\t0.500000\tjump\n1.250000\t2.750000\tlong run\n"
    )


def test_click_list(tmp_path):
    (tmp_path / "clicks.txt").write_text("walk,2.5,jump\nrun,3,fall\n")
    found = formats.read_labels(tmp_path / "clicks.txt").recordings
    assert found["walk"].instances == (Instance("jump", point_s=2.5),)


EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-03-24T18:09:00-06:00" FORMAT="3.0" VERSION="3.0">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/My%20videos/session%201.mp4" MIME_TYPE="video/mp4"
      RELATIVE_MEDIA_URL="./session%201.mp4"/>
    <PROPERTY NAME="lastUsedAnnotationId">4</PROPERTY>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="500"/>
    <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1250"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/><TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="3000"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="behaviour">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>jump</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE>fall</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="sitting">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE/></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="notes" PARENT_REF="behaviour" TIER_ID="notes">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>high</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""


def test_elan(tmp_path):
    path = tmp_path / "mine.eaf"
    path.write_text(EAF)
    labels = formats.read_labels(path)
    assert labels.recordings["session 1"].instances == (
        Instance("jump", 0.5, 1.25),
        Instance("sitting", 1.25, 3.0),
    )
    assert labels.notes == (
        f"{path}: annotations without a time, left out: 2",
        f"{path}: labels of several tiers, merged: behaviour, sitting",
    )
    one = formats.read_labels(path, tiers=["behaviour"])
    assert one.classes == ("jump",)
    with pytest.raises(ValueError, match="no tier 'x', expected one of 'behaviour', 'sitting'"):
        formats.read_labels(path, tiers=["x"])


BOMB = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize("doctype", [BOMB, '<!DOCTYPE a SYSTEM "file:///etc/passwd">'])
def test_xml_with_a_doctype_is_refused(tmp_path, doctype):
    path = tmp_path / "mine.eaf"
    path.write_text(EAF.replace("<ANNOTATION_DOCUMENT", f"{doctype}<ANNOTATION_DOCUMENT"))
    with pytest.raises(ValueError, match="mine.eaf: has a DOCTYPE"):
        formats.read_labels(path)


def test_label_studio(tmp_path):
    """As exports of Label Studio look: videos in frames, series and sound in seconds."""

    def result(kind, **value):
        return {"id": "x", "from_name": "l", "to_name": "v", "type": kind, "value": value}

    tasks = [
        {
            "id": 7,
            "file_upload": "1a2b3c4d-clip one.mp4",
            "data": {"video": "/data/upload/3/1a2b3c4d-clip%20one.mp4"},
            "annotations": [
                {"was_cancelled": True, "result": []},
                {
                    "result": [
                        result(
                            "timelinelabels",
                            ranges=[{"start": 1, "end": 50}],
                            timelinelabels=["Moving"],
                        ),
                        result("choices", choices=["good"]),
                    ]
                },
            ],
            "predictions": [{"result": []}],
        },
        {
            "id": 8,
            "data": {"csv": "/data/local-files/?d=week%201/walk.csv"},
            "annotations": [
                {
                    "result": [
                        result(
                            "timeserieslabels",
                            start=2.5,
                            end=2.5,
                            instant=True,
                            timeserieslabels=["Jump"],
                        )
                    ]
                },
                {"result": []},
            ],
        },
        {
            "id": 9,
            "data": {"audio": "https://example.com/a/talk.wav?x=1"},
            "completions": [
                {
                    "result": [
                        {
                            **result("labels", start=0.5, end=1.5, channel=0, labels=["Voice"]),
                            "original_length": 12.25,
                        }
                    ]
                }
            ],
        },
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    with pytest.raises(ValueError, match=r"task 7: clip one: frames without a frame rate"):
        formats.read_labels(path)
    labels = formats.read_labels(path, frame_rate=25)
    found = labels.recordings
    assert found["clip one"].instances == (Instance("Moving", 0.0, 2.0),)
    assert found["walk"].instances == (Instance("Jump", point_s=2.5),)
    assert found["talk"].instances == (Instance("Voice", 0.5, 1.5),)
    assert found["talk"].duration_s == 12.25
    assert [note.removeprefix(f"{path}: ") for note in labels.notes] == [
        "annotations beside the first one of a task, left out: 1",
        "predictions, left out: 1",
        "results that are no labels of time, left out: 1",
    ]


def _via(**changes):
    def segment(z, av, **more):
        return {"vid": "1", "flg": 0, "z": z, "xy": [], "av": av, **more}

    return {
        "project": {"pid": "__VIA_PROJECT_ID__", "vid_list": ["1"]},
        "config": {},
        "attribute": {
            "1": {
                "aname": "TEMPORAL-SEGMENTS",
                "anchor_id": "FILE1_Z2_XY0",
                "type": 4,
                "desc": "",
                "options": {"default": "Default", "0": "jump"},
                "default_option_id": "",
            },
            "2": {"aname": "who", "anchor_id": "FILE1_Z2_XY0", "type": 1, "options": {}},
            "3": {"aname": "box", "anchor_id": "FILE1_Z1_XY1", "type": 1, "options": {}},
        },
        "file": {"1": {"fid": 1, "fname": "a clip.mp4", "type": 4, "loc": 1, "src": ""}},
        "metadata": {
            "1_aaaaaaaa": segment([1.5, 2.125], {"1": "0", "2": "me"}),
            "1_bbbbbbbb": segment([3.0], {"1": "default"}),
            "1_cccccccc": segment([4.0, 5.0], {"1": ""}),
            "1_dddddddd": segment([4.0], {"3": "x"}, xy=[2, 1, 1, 5, 5]),
        },
        "view": {"1": {"fid_list": [1]}},
    } | changes


def test_via(tmp_path):
    path = tmp_path / "via.json"
    path.write_text(json.dumps(_via()))
    labels = formats.read_labels(path)
    assert labels.recordings["a clip"].instances == (
        Instance("jump", 1.5, 2.125),
        Instance("Default", point_s=3.0),
    )
    assert [note.removeprefix(f"{path}: ") for note in labels.notes] == [
        "labels of regions or of whole files, left out: 1",
        "temporal segments without a label, left out: 1",
        "attributes beside the first one, left out: who",
    ]


def test_tables_of_others(tmp_path):
    (tmp_path / "a.csv").write_text(
        "\ufeffVideo, Start,End,Label,extra\nclip,1,2.5,jump,x\nclip,3,3,run,\nb,,,,\n"
    )
    found = formats.read_labels(tmp_path / "a.csv").recordings
    assert found["clip"].instances == (Instance("jump", 1.0, 2.5), Instance("run", point_s=3.0))
    assert found["b"].instances == ()


def test_detections(tmp_path):
    results = {"clip": [{"label": "jump", "score": 0.75, "segment": [1.0, 2.5]}]}
    (tmp_path / "detections.json").write_text(json.dumps({"results": results}))
    labels = formats.read_labels(tmp_path / "detections.json")
    assert formats.write_labels(tmp_path / "found.csv", labels) == []
    assert (tmp_path / "found.csv").read_text() == (
        "recording,subset,duration_s,label,start_s,end_s,point_s,score\nclip,,,jump,1.0,2.5,,0.75\n"
    )
    again = formats.read_labels(tmp_path / "found.csv")
    assert again.detections and [one.score for one in again.instances] == [0.75]
    assert formats.write_labels(tmp_path / "tasks.json", labels, kind="label-studio") == []
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    [result] = task["predictions"][0]["result"]
    assert result["score"] == 0.75 and "annotations" not in task
    notes = formats.write_labels(tmp_path / "clip.eaf", labels)
    assert notes == ["left out, since the format cannot hold it: scores"]


# --- what is refused ---

TASK = {"data": {"csv": "/a.csv"}, "annotations": [{"result": []}]}
SERIES = {
    "type": "timeserieslabels",
    "value": {"start": 1592250751951.8, "end": 1592251071946.6, "timeserieslabels": ["Run"]},
}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.xls", "", "unknown suffix, expected .json, .csv, .eaf, .txt, .boris or .vtt"),
        ("a.json", "{", "a.json: Expecting property name"),
        ("a.json", "[1]", "no known labels, expected ActivityNet's json"),
        ("a.json", "[]", "no known labels"),
        ("a.json", {"_via_settings": {}, "_via_img_metadata": {}}, "VIA 2, which is for images"),
        ("a.json", {"x.jpg1": {"filename": "x.jpg", "regions": []}}, "VIA 2"),
        ("a.json", [{"id": 1, "video": "a", "l": []}], "export JSON, not JSON-MIN"),
        ("a.json", [TASK, TASK], "'a' once more, expected one task per recording"),
        (
            "a.json",
            [TASK | {"annotations": [{"result": [SERIES]}]}],
            "expected seconds since the start",
        ),
        (
            "a.json",
            [{"data": {"recording": "é"}, "annotations": [{"result": [{"type": "labels"}]}]}],
            "é: missing key 'value'",
        ),
        ("a.json", _via(attribute={}), "no attribute of temporal segments"),
        ("a.json", _via(view={}), "metadata: 1_aaaaaaaa: no view '1'"),
        ("a.json", {"results": {"a": [{"label": "b"}]}}, "a: [0]: missing key 'segment'"),
        ("a.txt", "1.0\t2.0\n", "line 1 is '1.0\\t2.0', expected start, end and label"),
        ("a.txt", "x\t2.0\tjump\n", "line 1: time is 'x', expected a finite number"),
        ("a.txt", "3\t2\tjump\n", "'jump' is from 3.0 to 2.0 s, expected"),
        ("a.txt", "3\t4\t\n", "the label at 3 s is empty"),
        ("a.csv", "video,start,end\n", "no column 'label'"),
        ("a.csv", "", "no column 'recording'"),
        ("a.csv", "class,video_id,point\n", "in frames, which `tal-jax points convert` reads"),
        ("a.csv", "video,label,start,end\na,b,1,\n", "line 2: a start without an end"),
        ("a.csv", "video,label,start,end\na,b,1,nan\n", "line 2: end_s is 'nan'"),
        ("a.csv", "video,label,split\na,b,x\na,b,y\n", "line 3: a: another subset or duration"),
        ("a.csv", "video,label\n,b\n", "line 2: no name of a recording"),
        ("a.eaf", "", "a.eaf: no element found"),
        ("a.eaf", "<a>", "a.eaf: no element found"),
        ("a.eaf", "<a/>", "<a>, expected ELAN's <ANNOTATION_DOCUMENT>"),
        ("a.eaf", EAF.replace('"500"', '"x"'), "tier 'behaviour': time is 'x'"),
    ],
)
def test_refused(tmp_path, file, content, message):
    path = tmp_path / file
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError) as caught:
        formats.read_labels(path)
    assert message in str(caught.value) and file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    for suffix in (".json", ".csv", ".txt", ".eaf"):
        with pytest.raises(ValueError, match="cannot read .*No such file"):
            formats.read_labels(tmp_path / f"none{suffix}")
        (tmp_path / f"some{suffix}").write_bytes(b"\xff\xfe\x00\x01")
        with pytest.raises(ValueError, match=f"some{suffix}"):
            formats.read_labels(tmp_path / f"some{suffix}")


def test_labels_that_a_format_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="label 'a\\\\nb' has a line break"):
        formats.write_labels(tmp_path / "clip.txt", _labels([Instance("a\nb", point_s=1.0)]))
    with pytest.raises(
        ValueError, match="clip: a name or a label contains a character that XML does not allow"
    ):
        formats.write_labels(tmp_path / "clip.eaf", _labels([Instance("a\x01b", point_s=1.0)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS_OF_ONE)
def test_files_in_a_folder_are_not_replaced(tmp_path, kind):
    """Of several recordings, none is written where one file is in the way."""
    labels = _labels(a=RecordingAnnotation("train", 9.5, (RUN,)))
    path = tmp_path / f"clip{formats._SUFFIXES[kind]}"
    theirs = EAF if kind == "elan" else "0.5\t0.5\tmine\n"
    path.write_text(theirs)
    with pytest.raises(ValueError, match=f"^{path}: there already, and not written by tal_jax"):
        formats.write_labels(tmp_path, labels, kind=kind)
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == theirs
    formats.write_labels(tmp_path, labels, kind=kind, overwrite=True)
    assert _sorted(formats.read_labels(path)) == [JUMP, FALL, RUN]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS_OF_ONE)
def test_a_named_file_is_replaced(tmp_path, kind):
    path = tmp_path / f"clip{formats._SUFFIXES[kind]}"
    path.write_text("theirs")
    formats.write_labels(path, _labels())
    assert _sorted(formats.read_labels(path)) == [JUMP, FALL, RUN]


def test_elan_files_of_ours_are_replaced_unless_they_were_changed(tmp_path):
    path = tmp_path / "clip.eaf"
    formats.write_labels(tmp_path, _labels(), kind="elan")
    formats.write_labels(tmp_path, _labels([JUMP]), kind="elan")
    assert _sorted(formats.read_labels(path)) == [JUMP]
    ours = path.read_text()
    mark = ours[ours.rindex("<!--") :]
    changes = {
        "edited": ours.replace(">jump<", ">leap<"),
        "without its comment": ours.removesuffix(mark),
        "with more behind it": ours + "<!-- mine -->\n",
        "of another file": EAF + mark,
    }
    for change, content in changes.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=r"clip\.eaf: there already"):
            formats.write_labels(tmp_path, _labels(), kind="elan")
        assert path.read_text() == content, change
        formats.read_labels(path)


def test_audacity_files_are_replaced_by_the_same_only(tmp_path):
    formats.write_labels(tmp_path, _labels(), kind="audacity")
    formats.write_labels(tmp_path, _labels(), kind="audacity")
    with pytest.raises(ValueError, match=r"clip\.txt: there already"):
        formats.write_labels(tmp_path, _labels([JUMP]), kind="audacity")


@pytest.mark.parametrize("kind", formats.KINDS)
def test_long_names_and_a_full_disk(tmp_path, kind, monkeypatch):
    suffix = formats._SUFFIXES[kind]
    name = "录像🎬" * 40
    labels = Annotations(("run",), {name: RecordingAnnotation("train", 9.0, (RUN,))})
    (tmp_path / "out").mkdir()
    if kind in KINDS_OF_ONE:
        with pytest.raises(OSError, match="cannot write .*File name too long; nothing was changed"):
            formats.write_labels(tmp_path / "out", labels, kind=kind)
    again, _ = _round_trip(tmp_path / f"x{suffix}", labels, kind=kind)
    assert list(again.recordings) == ["x" if kind in ("audacity", "raven", "webvtt") else name]

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = (tmp_path / f"x{suffix}").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=f"cannot write .*x{suffix}: No space left on device; nothing"
    ):
        formats.write_labels(tmp_path / f"x{suffix}", labels, kind=kind)
    assert (tmp_path / f"x{suffix}").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_durations_of_a_whole_annotation_file(tmp_path):
    (tmp_path / "walk.txt").write_text("0.5\t0.5\tjump\n1.25\t2.75\trun\n")
    labels = formats.read_labels(tmp_path / "walk.txt")
    notes = formats.write_labels(tmp_path / "a.json", labels)
    assert "taken to end with their last instance: 1" in notes[0]
    assert load_annotations(tmp_path / "a.json").recordings["walk"].duration_s == 2.75


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.mp4", "a"),
        ("a.v2", "a.v2"),
        ("x/b.c.MOV", "b.c"),
        ("C:\\x\\d.csv", "d"),
        (".mp4", ".mp4"),
    ],
)
def test_recording_name(path, name):
    assert recording_name(path) == name


def test_durations_and_frame_rates_of_videos(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(50):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    (tmp_path / "clip.txt").write_text("0.5\t1.0\tjump\n")
    labels = formats.read_labels(tmp_path / "clip.txt")
    assert labels.recordings["clip"].duration_s == pytest.approx(2.0)
    assert labels.recordings["clip"].frame_rate == pytest.approx(25.0)
    assert formats.write_labels(tmp_path / "a.json", labels) == []
    formats.write_labels(tmp_path / "tasks.json", labels, kind="label-studio")
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["video"] == "/data/local-files/?d=clip.mp4"
    [result] = task["annotations"][0]["result"]
    assert result["type"] == "timelinelabels"
    # 0.5 s is 12.5 frames, which rounds to 12: frame 13, counted from 1.
    assert result["value"]["ranges"] == [{"start": 13, "end": 25}]


def test_media_beside_the_file(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip.MP4").write_bytes(b"no video at all")
    formats.write_labels(tmp_path / "clip.eaf", _labels(), recordings=tmp_path / "videos")
    [media] = ElementTree.parse(tmp_path / "clip.eaf").getroot().iter("MEDIA_DESCRIPTOR")
    assert media.get("MEDIA_URL") == (tmp_path / "videos" / "clip.MP4").as_uri()
    assert media.get("RELATIVE_MEDIA_URL") == "./videos/clip.MP4"
    assert media.get("MIME_TYPE") == "video/mp4"
    assert list(formats.read_labels(tmp_path / "clip.eaf").recordings) == ["clip"]
    assert (
        Path(tmp_path / "clip.eaf").read_text().startswith('<?xml version="1.0" encoding="UTF-8"?>')
    )


@pytest.mark.parametrize("kind", formats.KINDS)
def test_labels_never_replace_a_video(kind, tmp_path):
    (tmp_path / "walk.txt").write_text("1.0\t2.0\tstep\n")
    (tmp_path / "walk.mp4").write_bytes(b"frames")
    labels = formats.read_labels(tmp_path / "walk.txt")
    with pytest.raises(ValueError, match="walk.mp4: the name of a video"):
        formats.write_labels(tmp_path / "walk.mp4", labels, kind=kind)
    assert (tmp_path / "walk.mp4").read_bytes() == b"frames"
