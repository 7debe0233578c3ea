"""BORIS: projects and tables in its layouts, and written projects paired up as BORIS does."""

import json

import filming
import hypothesis
import hypothesis.strategies as st
import pytest

from tal_jax import cli, formats
from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation


def _behavior(code, kind, **sets):
    """An entry of the ethogram, as BORIS 8 writes it."""
    modifiers = {
        str(index): {"name": name, "description": "", "type": 0, "values": values}
        for index, (name, values) in enumerate(sets.items())
    }
    entry = {"type": f"{kind} event", "key": code[0], "code": code, "description": ""}
    return entry | {"color": "", "category": "", "modifiers": modifiers, "excluded": ""}


def _observation(events, queue=("v/a.mp4",), lengths=(60.0,), **more):
    players = {str(player): [] for player in range(1, 9)} | {"1": list(queue)}
    media = {"length": dict(zip(queue, lengths, strict=True)), "offset": {"1": 0.0}}
    entry = {"file": players, "type": "MEDIA", "date": "2024-05-01T10:00:00", "description": ""}
    entry |= {"time offset": 0.0, "events": events, "observation time interval": [0, 0]}
    return entry | {"independent_variables": {}, "media_info": media} | more


def _project(path, **observations):
    behaviors = [
        _behavior("sit", "State", posture=["low", "high"], where=["tree"]),
        _behavior("call", "Point"),
        _behavior("walk", "State"),
    ]
    content = {
        "time_format": "hh:mm:ss",
        "project_format_version": "7.0",
        "subjects_conf": {"0": {"key": "1", "name": "Ada", "description": ""}},
        "behaviors_conf": {str(index): one for index, one in enumerate(behaviors)},
        "observations": observations,
        "behavioral_categories": [],
    }
    path.write_text(json.dumps(content))
    return path


def _instances(labels, name="a"):
    return [
        (one.label, one.start_s, one.end_s, one.point_s, dict(one.extras))
        for one in labels.recordings[name].instances
    ]


# --- projects ---


def test_states_and_points(tmp_path):
    events = [
        [2.0, "Ada", "sit", "low|None", "first", 50],
        [3.0, "Ada", "sit", "high|tree", "", 75],  # another pair: other modifiers
        [4.0, "Bob", "sit", "low|None", "", 100],  # another subject
        [5.0, "Ada", "sit", "low|None", "last", 125],
        [6.5, "", "call", "", "", "NA"],
        [7.0, "Bob", "sit", "low|None", "", 175],
        [8.0, "Ada", "sit", "high|tree", "", 200],
        [9.0, "", "walk", "", "", 225],  # never stopped
    ]
    variables = {"subset": "test", "weather": "rain", "moon": ""}
    other = {"independent_variables": variables, "description": "a dry day"}
    path = _project(tmp_path / "a.boris", morning=_observation(events, **other))
    labels = formats.read_labels(path)
    assert labels.classes == ("sit", "call", "walk")
    assert _instances(labels) == [
        (
            *("sit", 2.0, 5.0, None),
            {"subject": "Ada", "modifiers": "low|None", "comment": "first", "comment_stop": "last"},
        ),
        ("sit", 4.0, 7.0, None, {"subject": "Bob", "modifiers": "low|None"}),
        ("sit", 3.0, 8.0, None, {"subject": "Ada", "modifiers": "high|tree"}),
        ("call", None, None, 6.5, {}),
    ]
    recording = labels.recordings["a"]
    assert (recording.subset, recording.duration_s) == ("test", 60.0)
    assert recording.extras == {
        "observation": "morning",
        "independent_variables": {"weather": "rain"},
        "description": "a dry day",
    }
    assert labels.notes == (f"{path}: states without a stop, left out: 1",)


def test_unsorted_events_and_unknown_behaviors(tmp_path):
    events = [
        [8.0, "", "walk", "", ""],  # five fields, as BORIS 7 writes them
        [1.0, "", "walk", "", ""],
        [9.0, "", "dig", "", ""],
        ["NA", "", "call", "", ""],
    ]
    labels = formats.read_labels(_project(tmp_path / "a.boris", o=_observation(events)))
    assert [one[:4] for one in _instances(labels)] == [
        ("walk", 1.0, 8.0, None),
        ("dig", None, None, 9.0),
    ]
    assert any("not in the ethogram, read as points: dig" in note for note in labels.notes)
    assert any("events without a time, left out: 1" in note for note in labels.notes)


def test_queue_of_media_files(tmp_path):
    """Times count through the files of player 1, after the offset; other players show the same."""
    events = [
        [1002.0, "", "walk", "", ""],
        [1004.0, "", "walk", "", ""],
        [1029.0, "", "sit", "", ""],  # 1 s before the end of a.mp4, until 2 s into b.mp4
        [1032.0, "", "sit", "", ""],
        [1030.0, "", "call", "", ""],  # the first instant of b.mp4
        [1052.5, "", "call", "", ""],  # 2.5 s into c.mp4, whose length is not needed
    ]
    observation = _observation(
        events,
        ("v/a.mp4", "v/b.mp4", "C:\\v\\c.mp4"),
        (30.0, 20.0, 0),
        **{"time offset": 1000.0},
    )
    observation["file"]["2"] = ["v/side.mp4"]
    labels = formats.read_labels(_project(tmp_path / "a.boris", o=observation))
    assert list(labels.recordings) == ["a", "b", "c"]
    assert [one[:4] for one in _instances(labels)] == [
        ("walk", 2.0, 4.0, None),
        ("sit", 29.0, 30.0, None),
    ]
    assert [one[:4] for one in _instances(labels, "b")] == [
        ("sit", 0.0, 2.0, None),
        ("call", None, None, 0.0),
    ]
    assert [one[:4] for one in _instances(labels, "c")] == [("call", None, None, 2.5)]
    assert [one.duration_s for one in labels.recordings.values()] == [30.0, 20.0, None]
    found = "\n".join(labels.notes)
    assert "media files of further players, left out: 1" in found
    assert "states that go on in the next media file, split: 1" in found
    assert "time offset of 'o' subtracted: 1000 s" in found


def test_lengths_of_the_queue_are_needed(tmp_path):
    events = [[1.5, "", "call", "", ""]]
    path = _project(tmp_path / "a.boris", o=_observation(events, ("a.mp4", "b.mp4"), (0, 2)))
    with pytest.raises(InputError, match=r"the length of 'a\.mp4' is not known; expected the file"):
        formats.read_labels(path)
    filming.film(tmp_path / "a.mp4", range(25))
    assert _instances(formats.read_labels(path), "b")[0][:4] == ("call", None, None, 0.5)


def test_other_kinds_of_observations(tmp_path):
    live = _observation([[12.0, "", "call", "", ""]], (), (), **{"time offset": 2.0})
    live |= {"type": "LIVE", "file": []}
    pictures = _observation([], (), ()) | {"type": "IMAGES", "file": {}}
    dated = _observation([[86402.0, "", "call", "", ""]], media_creation_date_as_offset=True)
    dated["media_info"]["media_creation_time"] = {"v/a.mp4": 86400.0}
    path = _project(tmp_path / "a.boris", field=live, photos=pictures, dated=dated)
    labels = formats.read_labels(path)
    assert list(labels.recordings) == ["field", "a"]
    assert labels.recordings["field"].instances == (Instance("call", point_s=10.0),)
    assert _instances(labels)[0][3] == 2.0
    assert any("observations of pictures, left out: 1" in note for note in labels.notes)


def test_two_observations_of_one_recording(tmp_path):
    path = _project(
        tmp_path / "a.boris",
        rater1=_observation([[1.0, "", "call", "", ""]]),
        rater2=_observation([[2.0, "", "call", "", ""]]),
        rater3=_observation([[3.0, "", "call", "", ""]]),
    )
    with pytest.raises(
        InputError, match=r"'rater2': of the recording 'a', as observation 'rater1'"
    ):
        formats.read_labels(path)
    labels = formats.read_labels(path, tiers=["rater2"])
    assert [one[3] for one in _instances(labels)] == [2.0]
    labels = formats.read_labels(path, tiers=["rater1", "rater3"])
    assert [one[3] for one in _instances(labels)] == [1.0, 3.0]
    with pytest.raises(InputError, match="no observation 'rater4', expected one of 'rater1', 'rat"):
        formats.read_labels(path, tiers=["rater4"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": [[1.0, "x"]]}, r"event 1: expected time, subject, behavior"),
        ({"events": [["soon", "", "call", "", ""]]}, "event 1: time is 'soon', expected a finite"),
        ({"events": [[-3.0, "", "call", "", ""]]}, "'call' is from -3.0 to -3.0 s"),
        ({"file": ["v/a.mp4"]}, "file: got"),
        ({"time offset": "x"}, "time offset is 'x', expected a finite number"),
    ],
)
def test_refused_projects(tmp_path, change, message):
    path = _project(tmp_path / "a.boris", o=_observation([]) | change)
    with pytest.raises(InputError, match=message) as caught:
        formats.read_labels(path)
    assert "a.boris: observation 'o'" in str(caught.value)


# --- written projects ---


def _paired_by_boris(project):
    """BORIS's rule: an event is a stop if an odd number of the same ones stand before it."""
    kinds = {one["code"]: one["type"] for one in project["behaviors_conf"].values()}
    found = {}
    for name, observation in project["observations"].items():
        events, spans, begun = observation["events"], [], {}
        assert [one[0] for one in events] == sorted(one[0] for one in events)
        for index, (time_s, subject, code, modifiers, *_) in enumerate(events):
            key = (subject, code, modifiers)
            before = sum(tuple(one[1:4]) == key for one in events[:index])
            if kinds[code] == "Point event":
                spans.append((code, time_s, time_s))
            elif before % 2:
                spans.append((code, begun.pop(key), time_s))
            else:
                begun[key] = time_s
        assert not begun
        found[name] = sorted(spans)
    return found


_MS = st.integers(0, 40)
_WRITTEN = st.lists(
    st.one_of(
        st.builds(lambda time: Instance("peck", point_s=time / 8), _MS),
        st.builds(lambda time: Instance("sit", point_s=time / 8), _MS),
        st.builds(
            lambda label, start, length, who: Instance(
                label, start / 8, (start + length) / 8, extras={"subject": who} if who else {}
            ),
            st.sampled_from(["sit", "walk"]),
            _MS,
            st.integers(1, 20),
            st.sampled_from(["", "Ada"]),
        ),
    ),
    max_size=10,
)


@hypothesis.given(_WRITTEN)
@hypothesis.settings(max_examples=60)
def test_boris_pairs_what_is_written(tmp_path_factory, instances):
    path = tmp_path_factory.mktemp("boris") / "a.boris"
    recording = RecordingAnnotation("train", 60.0, tuple(instances))
    labels = Annotations(("peck", "sit", "walk"), {"a": recording})
    formats.write_labels(path, labels)
    expected = sorted(
        (one.label, *((one.point_s, one.point_s) if one.segment is None else one.segment))
        for one in instances
    )
    assert _paired_by_boris(json.loads(path.read_text())) == {"a": expected}
    again = formats.read_labels(path).recordings["a"].instances
    found = [(one.label, *one.segment) for one in again if one.segment is not None]
    found += [(one.label, one.point_s, one.point_s) for one in again if one.point_s is not None]
    assert sorted(found) == expected
    subjects = sorted(one.extras["subject"] for one in instances if one.extras)
    assert sorted(one.extras["subject"] for one in again if one.extras) == subjects


def test_everything_of_a_project_comes_back(tmp_path):
    events = [
        [2.0, "Ada", "sit", "low|None", "first", 50],
        [3.0, "Ada", "sit", "low|tree", "", 75],
        [5.0, "Ada", "sit", "low|None", "last", 125],
        [6.5, "", "call", "", "far", 162],
        [8.0, "Ada", "sit", "low|tree", "", 200],
    ]
    (tmp_path / "v").mkdir()
    filming.film(tmp_path / "v" / "a.mp4", range(250), sound=True)
    variables = {"subset": "train", "weather": "rain"}
    observation = _observation(
        events, lengths=(10.0,), independent_variables=variables, description="dry"
    )
    path = _project(tmp_path / "a.boris", morning=observation)
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "b.boris"
    labels = formats.read_labels(path, recordings=tmp_path / "v")
    assert formats.write_labels(copy, labels, recordings=tmp_path / "v") == []
    again = formats.read_labels(copy, recordings=tmp_path / "v")
    assert again == labels and _instances(again) == _instances(labels)
    assert again.recordings["a"].extras == labels.recordings["a"].extras
    written = json.loads(copy.read_text())
    one = written["observations"]["morning"]
    assert one["file"]["1"] == ["../v/a.mp4"] and one["type"] == "MEDIA"
    info = one["media_info"]
    assert info["length"] == {"../v/a.mp4": pytest.approx(10.0)}
    assert info["fps"]["../v/a.mp4"] == pytest.approx(25.0)
    assert info["hasAudio"]["../v/a.mp4"] and info["hasVideo"]["../v/a.mp4"]
    assert [event[5] for event in one["events"]] == [50, 75, 125, 162, 200]
    assert [set(one["values"]) for one in written["behaviors_conf"]["0"]["modifiers"].values()] == [
        {"low"},
        {"tree"},
    ]
    # Written once more, only the dates differ: the file may be replaced.
    formats.write_labels(copy, labels, recordings=tmp_path / "v", overwrite=False)


def test_detections_and_live_observations(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {"label": "sit", "score": 0.8766, "segment": [1.0, 2.0]}
    (tmp_path / "d.json").write_text(json.dumps({"results": {"a": [found], "b": []}}))
    assert cli.main(["convert", "d.json", "--output", "p.boris"]) == 0
    out = capsys.readouterr().out
    assert "note: scores are written as comments" in out
    assert "note: no video or sound of a, b in .: written as live observations" in out
    observations = json.loads((tmp_path / "p.boris").read_text())["observations"]
    assert observations["a"]["type"] == "LIVE"
    assert observations["a"]["events"] == [
        [1.0, "", "sit", "", "score 0.877"],
        [2.0, "", "sit", "", ""],
    ]


# --- tables ---

AGGREGATED = (
    "Observation id\tObservation date\tDescription\tObservation type\tSource\tTime offset (s)\t"
    "Coding duration\tMedia duration (s)\tFPS (frame/s)\tSubject\t"
    "Observation duration by subject by observation\tBehavior\tBehavioral category\tModifier #1\t"
    "Modifier #2\tBehavior type\tStart (s)\tStop (s)\tDuration (s)\tMedia file name\t"
    "Image index start\tImage index stop\tImage file path start\tImage file path stop\t"
    "Comment start\tComment stop\n"
)


def _aggregated(behavior, kind, start, stop, file, *, subject="No focal subject", more=""):
    duration = "NA" if kind == "POINT" else f"{stop - start:.3f}"
    return (
        f"morning\t2024-05-01 10:00:00\tdry\tMedia file\tplayer #1:v/a.mp4;v/b.mp4|player #2:s.mp4"
        f"\t10.0\t50.000\t30.000;20.000|50.000\t25.000;25.000|25.000\t{subject}\t9.0\t{behavior}\t"
        f"Not defined\t{more or chr(9)}\t{kind}\t{start:.3f}\t{stop:.3f}\t{duration}\t{file}\t"
        "50\t125\tNA\tNA\twell\t\n"
    )


def test_aggregated_events_through_several_files(tmp_path):
    (tmp_path / "t.tsv").write_text(
        AGGREGATED
        + _aggregated("sit", "STATE", 12.0, 15.0, "v/a.mp4", subject="Ada", more="low\ttree")
        + _aggregated("call", "POINT", 41.25, 41.25, "v/b.mp4")
        + _aggregated("walk", "STATE", 38.0, 43.0, "v/a.mp4")
    )
    labels = formats.read_labels(tmp_path / "t.tsv")
    extras = {"subject": "Ada", "modifiers": "low|tree", "comment": "well"}
    assert _instances(labels) == [
        ("sit", 2.0, 5.0, None, extras),
        ("walk", 28.0, 30.0, None, {"comment": "well"}),
    ]
    assert [one[:4] for one in _instances(labels, "b")] == [
        ("walk", 0.0, 3.0, None),
        ("call", None, None, 1.25),
    ]
    assert [one.duration_s for one in labels.recordings.values()] == [30.0, 20.0]


def test_tabular_events(tmp_path):
    header = (
        "Observation id,Observation date,Description,Observation duration,Observation type,Source,"
        "Time offset (s),Media duration (s),FPS,Subject,Behavior,Behavioral category,Modifier #1,"
        "Behavior type,Time,Media file name,Image index,Image file path,Comment\n"
    )
    row = (
        "o,2024-05-01 10:00:00,,60.000,Media file(s),player #1:v/a.mp4,0.0,60.000,25.000,"
        "{},{},,{},{},{},v/a.mp4,50,NA,\n"
    )
    rows = [
        ("Ada", "sit", "low", "START", "2.000"),
        ("Bob", "sit", "low", "START", "3.000"),
        ("Ada", "sit", "low", "STOP", "4.500"),
        ("", "call", "", "POINT", "00:00:05.250"),
        ("Bob", "sit", "low", "STOP", "6.000"),
    ]
    (tmp_path / "o.csv").write_text(header + "".join(row.format(*one) for one in rows))
    labels = formats.read_labels(tmp_path / "o.csv")
    assert [one[:4] for one in _instances(labels)] == [
        ("sit", 2.0, 4.5, None),
        ("sit", 3.0, 6.0, None),
        ("call", None, None, 5.25),
    ]
    assert labels.recordings["a"].duration_s == 60.0


def test_tabular_events_of_boris_7(tmp_path):
    block = [
        *("Observation id,o", "", "Media file(s)", "", "Player #1,v/a.mp4", ""),
        *(
            "Observation date,2024-05-01 10:00:00",
            "",
            "Description,",
            "",
            "Time offset (s),1.5",
            "",
        ),
        *("independent variables", "variable,value", "weather,rain", ""),
        "Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status",
        "3.500,v/a.mp4,60.000,25.0,Ada,sit,,,START",
        "7.750,v/a.mp4,60.000,25.0,Ada,sit,,good,STOP",
        "9.000,v/a.mp4,60.000,25.0,,call,,,POINT",
    ]
    width = len(block[-1].split(","))
    text = "".join(line + "," * (width - 1 - line.count(",")) + "\n" for line in block)
    for name, content in (("o.csv", text), ("o.tsv", text.replace(",", "\t"))):
        (tmp_path / name).write_text(content)
        labels = formats.read_labels(tmp_path / name)
        assert _instances(labels) == [
            ("sit", 2.0, 6.25, None, {"subject": "Ada", "comment_stop": "good"}),
            ("call", None, None, 7.5, {}),
        ]
        assert labels.recordings["a"].duration_s == 60.0
    (tmp_path / "o.csv").write_text(text.replace("POINT", "point in time"))
    with pytest.raises(InputError, match="line 20: 'POINT IN TIME', expected START, STOP or POINT"):
        formats.read_labels(tmp_path / "o.csv")


def test_files_that_a_table_does_not_list(tmp_path):
    header = (
        "Observation id,Media file,Total length,Subject,Behavior,Behavior type,Start (s),Stop (s)\n"
    )
    text = header + "o,a.mp4,60.0,,sit,STATE,1.0,2.0\no,b.mp4,60.0,,sit,STATE,41.0,42.0\n"
    (tmp_path / "o.csv").write_text(text)
    with pytest.raises(InputError, match="line 3: observation 'o' has several media files"):
        formats.read_labels(tmp_path / "o.csv")
