"""Tables of labels as programs write them: names of columns, units, durations and dialects."""

import json

import numpy as np
import pytest

from tal_jax import formats
from tal_jax._errors import InputError
from tal_jax.data.annotations import Instance
from tal_jax.data.clock import Grid
from tal_jax.data.manifest import Entry, Manifest, write_manifest
from tal_jax.formats import columns

JUMP = Instance("jump", 3.0, 4.5)
POINT = Instance("jump", point_s=3.0)


def _read(folder, text, name="labels.csv", **options):
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(content)
    return formats.read_labels(folder / name, **options)


def _only(labels, name="clip1"):
    [instance] = labels.recordings[name].instances
    return instance


def _film(path, *, rate, seconds):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(rate * seconds):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())


def _refused(folder, text, *parts, **options):
    with pytest.raises(InputError) as caught:
        _read(folder, text, **options)
    message = str(caught.value)
    assert options.get("name", "labels.csv") in message and "\n" not in message
    for part in parts:
        assert part in message
    return message


# --- names and units ---


@pytest.mark.parametrize(
    ("start", "end", "times"),
    [
        ("start", "end", "3,4.5"),
        ("Start", "Stop", "3.0,4.5"),
        ("onset", "offset", "3,4.5"),
        ("begin", "finish", "3,4.5"),
        ("from", "to", "3,4.5"),
        ("start_sec", "end_sec", "3,4.5"),
        ("Start (s)", "Stop (s)", "3.000,4.500"),
        ("Start time", "End time", "3,4.5"),
        ("startTime", "endTime", "3,4.5"),
        ("t_start", "t_end", "3,4.5"),
        ("event start", "event end", "3,4.5"),
        ("start_seconds", "end_seconds", "3,4.5"),
        ("start_ms", "end_ms", "3000,4500"),
        ("Onset [ms]", "Offset [ms]", "3000,4500"),
        ("begin_time_msec", "end_time_msec", "3000,4500"),
        ("start_us", "end_us", "3000000,4500000"),
        ("start_min", "end_min", "0.05,0.075"),
        ("Start (hh:mm:ss)", "End (hh:mm:ss)", "00:00:03,00:00:04.5"),
        ("start", "end", "0:00:03.0,0:00:04.500"),
    ],
)
def test_starts_and_ends(tmp_path, start, end, times):
    labels = _read(tmp_path, f"video,label,{start},{end}\nclip1,jump,{times}\n")
    found = _only(labels)
    assert (found.start_s, found.end_s) == pytest.approx((3.0, 4.5), abs=1e-12)
    assert labels.notes == ()


@pytest.mark.parametrize(
    ("name", "time"),
    [
        *(("point", "3"), ("point_s", "3"), ("time", "3"), ("Time (s)", "3"), ("timestamp", "3")),
        *(("seconds", "3"), ("timestamp_ms", "3000"), ("Time [ms]", "3000"), ("event time", "3")),
        ("point_frame", "75"),
        ("frame", "75"),
    ],
)
def test_points(tmp_path, name, time):
    text = f"video,label,{name}\nclip1,jump,{time}\n"
    assert _only(_read(tmp_path, text, frame_rate=25.0)) == POINT


@pytest.mark.parametrize(
    "header",
    [
        *(
            "recording,label",
            "video,class",
            "Video ID,Behavior",
            "file,behaviour",
            "filename,event",
        ),
        *("File Name,annotation", "name,category", "media_file_name,Action", "clip,activity name"),
        "videoPath,labelName",
    ],
)
def test_recordings_and_labels(tmp_path, header):
    assert _only(_read(tmp_path, f"{header},start,end\nclip1,jump,3,4.5\n")) == JUMP


def test_every_name_has_one_meaning():
    """No word with a unit is another word, so that the order of the tables does not matter."""
    assert columns.parse_name("Start (s)") == columns.parse_name("START_S")
    assert columns.parse_name("stop [frames]").unit == "frames"
    unknown = ("comment", "Image index start", "Behavior type", "Start (h)", "Observation duration")
    assert [columns.parse_name(name) for name in unknown] == [None] * 5


def test_frames_need_a_rate(tmp_path):
    text = "video,label,start_frame,end_frame\nclip1,jump,75,113\nclip1,run,250,300\n"
    _refused(tmp_path, text, "line 2: column 'start_frame' is in frames", "--fps", "column fps")
    found = _read(tmp_path, text, frame_rate=25.0).recordings["clip1"].instances
    assert found == (Instance("jump", 3.0, 4.52), Instance("run", 10.0, 12.0))
    text = "video,label,StartFrame,EndFrame,FPS\nclip1,jump,75,113,25\nclip2,jump,75,113,50\n"
    labels = _read(tmp_path, text)
    assert _only(labels) == Instance("jump", 3.0, 4.52)
    assert _only(labels, "clip2") == Instance("jump", 1.5, 2.26)
    _refused(tmp_path, text.replace(",50\n", ",0\n"), "line 3: fps is '0', expected a number above")


def test_frames_at_the_rate_of_the_video(tmp_path):
    _film(tmp_path / "clip1.mp4", rate=20, seconds=6)
    labels = _read(tmp_path, "file,label,Start frame,End frame\nclip1.mp4,jump,60,90\n")
    assert _only(labels) == JUMP
    assert "converted at 20 a second, the rate of the video; --fps N" in labels.notes[0]
    assert labels.recordings["clip1"].duration_s == pytest.approx(6.0)


def test_two_columns_of_one_thing(tmp_path):
    """Columns that agree are one; seconds win over frames; others are refused."""
    both = "video,label,start,start_s,end,Stop (s)\nclip1,jump,3,3.0,4.5,4.5\n"
    assert _only(_read(tmp_path, both)) == JUMP
    _refused(
        tmp_path,
        both.replace("3,3.0", "3,9"),
        "line 2: columns 'start' and 'start_s' differ, '3' and '9'",
    )
    frames = "video,label,start_s,end_s,start_frame,end_frame\nclip1,jump,3,4.5,75,113\n"
    labels = _read(tmp_path, frames)
    assert _only(labels) == JUMP
    assert "column 'start_s' is the start, not used: 'start_frame'" in labels.notes[0]
    # Without a unit, and the numbers of the column of frames: frames.
    frames = "video,label,start,end,start_frame,end_frame\nclip1,jump,75,113,75,113\n"
    assert _only(_read(tmp_path, frames, frame_rate=25.0)) == Instance("jump", 3.0, 4.52)
    text = "video,label,start_s,end_s,start_ms,end_ms\nclip1,jump,3,4.5,3000,4501\n"
    assert _only(_read(tmp_path, text)) == JUMP
    _refused(tmp_path, text.replace("4501", "5000"), "'end_s' and 'end_ms' differ")
    names = "video,filename,label,start,end\n{},a/clip1.avi,jump,3,4.5\n"
    assert _only(_read(tmp_path, names.format("clip1"))) == JUMP
    _refused(tmp_path, names.format("7"), "'video' and 'filename' differ, '7' and 'a/clip1.avi'")
    labels = _read(tmp_path, "video,category,label,start,end\nclip1,sport,jump,3,4.5\n")
    assert _only(labels) == JUMP
    assert "column 'category' is not used, 'label' is the label" in labels.notes[0]
    _refused(tmp_path, "video,class,action,start,end\na,x,y,1,2\n", "'class' and 'action' differ")


def test_a_time_beside_starts_and_ends(tmp_path):
    text = "video,label,start,end,time\nclip1,jump,3,4.5,{}\n"
    assert _only(_read(tmp_path, text.format(4))) == Instance("jump", 3.0, 4.5, 4.0)
    for other in ("2024-01-01 10:00", "99", ""):
        labels = _read(tmp_path, text.format(other))
        assert _only(labels) == JUMP and "column 'time' is not used" in labels.notes[0]
    text = "video,label,start,end,point\nclip1,jump,3,4.5,9\n"
    _refused(tmp_path, text, "line 2: 'jump' is from 3 to 4.5 s, and 9 s of column 'point'")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("video,label\nclip1,jump\n", ["labels without a column of times", "'video', 'label'"]),
        (
            "video,label,Start (h),ticks\na,b,1,2\n",
            ["found 'video', 'label', 'Start (h)', 'ticks'", "start_frame"],
        ),
        ("video,label,start\na,b,1\n", ["column 'start' without one of ends", "duration"]),
        ("video,label,onset,comment\na,b,1,c\n", ["column 'onset' without one of ends"]),
        ("video,label,stop\na,b,1\n", ["column 'stop' without one of starts"]),
        ("video,label,offset\na,b,1\n", ["labels without a column of times"]),
        ("video,label,start,end\na,b,1,2\na,,3,4\n", ["line 3: a time without a label"]),
        ("video,label,start,end\na,b,1,2\n\na,c,3,\n", ["line 4: a start without an end"]),
        ("video,label,start,end\na,b,4,2\n", ["line 2: 'b' is from 4 to 2 s"]),
        ("video,label,start,end\na,b,-1,2\n", ["line 2: 'b' is from -1 to 2 s"]),
        ("video,label,point\na,b,-1\n", ["line 2: 'b' is at -1 s"]),
        ("video,label,start,end\na,b,1:30,2:00\n", ["line 2: start_s is '1:30'"]),
        ("video,label,start,end\na,b,1700000000,1700000002\n", ["not a date"]),
        ("video,label,start_ms,end_ms\na,b,1700000000000,1700000002000\n", ["not a date"]),
        (
            "video,label,time,status\na,b,1,START\na,b,2,STOP\n",
            ["'status' makes each row a start or a stop", "one row per event"],
        ),
        ("video,start,end\na,1,2\n", ["no column 'label'", "'video', 'start', 'end'"]),
        ("Label,Start,End\na,1,2\n", ["no column 'recording'", "'Label', 'Start', 'End'"]),
    ],
)
def test_what_would_lose_labels_is_refused(tmp_path, text, parts):
    _refused(tmp_path, text, *parts)


def test_labels_without_times_in_some_rows(tmp_path):
    labels = _read(tmp_path, "video,label,start,end\na,b,1,2\na,c,,\nempty,,,\n")
    assert labels.recordings["a"].instances == (Instance("b", 1.0, 2.0), Instance("c"))
    assert labels.recordings["empty"].instances == ()
    assert "rows with a label and without a time: 1" in labels.notes[0]


# --- names of recordings ---


@pytest.mark.parametrize("name", ["clip1.mp4", "folder/clip1.avi", "C:\\v\\clip1.MOV", "a/clip1"])
def test_files_name_recordings(tmp_path, name):
    assert _only(_read(tmp_path, f"file,label,start,end\n{name},jump,3,4.5\n")) == JUMP


def test_two_files_of_one_name(tmp_path):
    text = "video,label,start,end\na/clip1.mp4,jump,1,2\n{},jump,3,4\n"
    for other in ("b/clip1.mp4", "a/clip1.avi", "clip1.mp4"):
        _refused(tmp_path, text.format(other), "line 3", "would both be the recording 'clip1'")
    for same in ("a/clip1.mp4", "clip1"):
        assert len(_read(tmp_path, text.format(same)).recordings["clip1"].instances) == 2


def test_files_name_recordings_in_other_text_files(tmp_path):
    labels = _read(tmp_path, "a/clip1.mp4,3,jump\nclip1,5,jump\n", name="clicks.txt")
    found = [one.point_s for one in labels.recordings["clip1"].instances]
    assert found == [3.0, 5.0]
    _refused(tmp_path, "a/clip1.mp4,3,x\nb/clip1.mp4,5,x\n", "would both be", name="clicks.txt")
    labels = _read(tmp_path, "3.0\t4.5\tjump\n", name="clip1.mp4.txt")
    assert _only(labels) == JUMP


# --- durations ---


def test_durations_of_events(tmp_path):
    """An event's duration is none of the recording, whatever the rounding."""
    text = (
        "video,label,start,end,duration\nclip1,jump,3.0,4.5,1.5\nclip1,run,10,12.333,2.33\n"
        "clip1,look,9,9,0\n"
    )
    recording = _read(tmp_path, text).recordings["clip1"]
    assert recording.duration_s is None
    assert recording.instances == (
        *(JUMP, Instance("run", 10.0, 12.333)),
        Instance("look", point_s=9.0),
    )
    text = "video,label,onset,duration\nclip1,jump,3.0,1.5\n"
    assert _only(_read(tmp_path, text)) == JUMP
    text = "video,label,start_ms,Duration (ms)\nclip1,jump,3000,1500\n"
    assert _only(_read(tmp_path, text)) == JUMP
    text = "video,label,start_frame,duration_frames\nclip1,jump,75,38\n"
    assert _only(_read(tmp_path, text, frame_rate=25.0)) == Instance("jump", 3.0, 4.52)
    text = "video,video_duration,label,start,end,duration\nclip1,60,jump,3,4.5,1.5\n"
    labels = _read(tmp_path, text)
    assert _only(labels) == JUMP and labels.recordings["clip1"].duration_s == 60.0
    text = "video,label,start,end,event_duration\nclip1,jump,3,4.5,3\n"
    _refused(tmp_path, text, "line 2: the event is from 3 to 4.5 s and lasts 3 s")


def test_durations_of_recordings(tmp_path):
    text = "video,duration,label,start,end\nclip1,60,jump,3,4.5\nclip1,60,run,59,60.05\n"
    recording = _read(tmp_path, text).recordings["clip1"]
    assert recording.duration_s == 60.0 and len(recording.instances) == 2
    _refused(
        tmp_path,
        text.replace("60.05", "61"),
        "line 3: 'run' ends at 61 s, after 60 s of column 'duration'",
    )
    text = "video,video_duration,label,start,end\nclip1,4,jump,3,4.5\n"
    _refused(tmp_path, text, "line 2: 'jump' ends at 4.5 s, after its recording of 4 s")
    text = "video,duration,label,start,end\nclip1,60,jump,3,4.5\nclip1,50,run,9,10\n"
    _refused(tmp_path, text, "line 3: clip1: another subset or duration than further up")


def test_durations_beside_points(tmp_path):
    """A duration that a point exceeds is that of events; another one is noted."""
    labels = _read(tmp_path, "video,label,time,duration\nclip1,jump,3.0,1.5\n")
    assert _only(labels) == POINT and labels.recordings["clip1"].duration_s is None
    assert "durations of events are not used" in labels.notes[0]
    labels = _read(tmp_path, "video,label,time,duration\nclip1,jump,3.0,20\n")
    assert labels.recordings["clip1"].duration_s == 20.0
    assert "column 'duration' is taken as the duration of the recordings" in labels.notes[0]
    labels = _read(tmp_path, "video,label,time,duration\nclip1,jump,3,20\nclip1,run,5,8\n")
    assert labels.recordings["clip1"].duration_s is None


def test_durations_that_are_not_those_of_the_files(tmp_path):
    """A column that may be something else gives way; one of the recordings is kept and noted."""
    _table(tmp_path / "clip1.csv")
    text = "video,{},label,start,end\nclip1,1500,jump,3,4.5\n"
    labels = _read(tmp_path, text.format("duration"))
    assert labels.recordings["clip1"].duration_s == pytest.approx(20.0, abs=1e-6)
    assert "recordings' files, replaced: clip1 (1500, not 20 s)" in labels.notes[0]
    labels = _read(tmp_path, text.format("video_duration"))
    assert labels.recordings["clip1"].duration_s == 1500.0
    assert "recordings' files, kept: clip1 (1500, not 20 s)" in labels.notes[0]
    labels = _read(tmp_path, text.format("duration").replace("1500", "20.2"))
    assert labels.recordings["clip1"].duration_s == 20.2 and labels.notes == ()


def _table(path, *, rate=50, seconds=20):
    times = np.arange(rate * seconds) / rate
    rows = np.stack([times, np.sin(times)], axis=1)
    if path.suffix == ".npy":
        np.save(path, rows)
    else:
        np.savetxt(path, rows, delimiter=",", header="time_s,x", comments="", fmt="%.5f")


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_durations_of_sensor_tables(tmp_path, suffix):
    (tmp_path / "tables").mkdir()
    _table(tmp_path / "tables" / f"clip1{suffix}")
    text = "recording,label,start,end\nclip1,jump,3,4.5\n"
    labels = _read(tmp_path, text, recordings=tmp_path / "tables")
    assert labels.recordings["clip1"].duration_s == pytest.approx(20.0, abs=1e-6)
    assert labels.notes == ()
    late = _read(tmp_path, text.replace("4.5", "4500"), recordings=tmp_path / "tables")
    assert "labels after the end of their recording" in late.notes[0]
    assert "in clip1: check the unit of time" in late.notes[0]


def test_durations_of_a_manifest(tmp_path):
    grid = Grid(50.0, 25.0, 75.0)
    entry = Entry("/data/clip1.csv", "ab" * 32, 1234, 10**18, 17.5, 35, 24)
    (tmp_path / "feats").mkdir()
    write_manifest(tmp_path / "feats", Manifest("signal", "1", {}, 24, grid, {"clip1": entry}))
    text = "recording,label,start,end\nclip1,jump,3,4.5\nother,jump,3,4.5\n"
    labels = _read(tmp_path, text, features=tmp_path / "feats")
    assert labels.recordings["clip1"].duration_s == 17.5
    assert labels.recordings["other"].duration_s is None
    assert _read(tmp_path, text, recordings=tmp_path / "feats").recordings["clip1"].duration_s
    # Features are no tables, and another program's manifest is none.
    np.save(tmp_path / "feats" / "other.npy", np.array([[0.0, 1.0], [1.0, 2.0]]))
    (tmp_path / "manifest.json").write_text("{}")
    labels = _read(tmp_path, text, recordings=tmp_path / "feats")
    assert labels.recordings["other"].duration_s is None


def test_a_table_that_cannot_be_read_is_noted(tmp_path):
    (tmp_path / "clip1.csv").write_text("time_s,x\n0,1\n9,2\n9.1,2\n9.2,3\n")
    labels = _read(tmp_path, "recording,label,start,end\nclip1,jump,3,4.5\n")
    assert "no duration of clip1 from its table" in labels.notes[0]


# --- dialects ---

PLAIN = "video,label,start,end\nclip1,jump,3.0,4.5\n"


@pytest.mark.parametrize(
    "content",
    [
        "video;label;start;end\nclip1;jump;3,0;4,5\n",
        "video;label;start;end\nclip1;jump;3.0;4.5\n",
        "video\tlabel\tstart\tend\nclip1\tjump\t3,0\t4,5\n",
        "video|label|start|end\nclip1|jump|3.0|4.5\n",
        "sep=;\nvideo;label;start;end\nclip1;jump;3;4,5\n",
        'video,label,start,end\nclip1,jump,"3,0","4,5"\n',
        'video;"label";start;end\n"clip1";"jump";"3,0";"4,5"\n',
        "# made by me\n# 2024, 1\n" + PLAIN,
        "# video,label,start,end\nclip1,jump,3.0,4.5\n",
        "\n\nvideo, label, start, end\n clip1 , jump , 3.0 , 4.5\n\n,,,\n",
        "video,label,start,end,,\nclip1,jump,3.0,4.5,,\n",
        "video,label,start,end\nclip1,jump,3.0,4.5,,,\n",
        "video;label;comment;start;end\nclip1;jump;well, yes, fine;3;4,5\n",
        "video;label;start;end\nclip1;jump;3,000;4,500\n",
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
    ],
)
def test_dialects(tmp_path, content):
    for name in ("labels.csv", "labels.tsv"):
        labels = _read(tmp_path, content, name=name)
        assert _only(labels) == JUMP and labels.notes == ()


def test_decimal_commas_of_audacity(tmp_path):
    labels = _read(tmp_path, "3,000000\t4,500000\tjump\n", name="clip1.txt")
    assert _only(labels) == JUMP


@pytest.mark.parametrize("content", [PLAIN, PLAIN.replace(",", "\t"), PLAIN.replace(",", ";")])
def test_tables_in_text_files(tmp_path, content):
    assert _only(_read(tmp_path, content, name="labels.txt")) == JUMP


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (
            "video,label,start,end\nclip1,jump,3,0,4,5\n",
            ["line 2 has 6 columns between commas, expected 4", "need semicolons or tabs"],
        ),
        (
            "video;label;start;end\nclip1;jump;3,0;4.5\n",
            ["line 2: the number '3,0' has a decimal comma, others have decimal points"],
        ),
        (
            'video,label,start,end\nclip1,jump,"3,000","4,500"\n',
            ["line 2: the number '3,000' has a decimal comma or separates thousands"],
        ),
        (
            "video;label;start_ms;end_ms\nclip1;jump;3,000;4,500\n",
            ["the number '3,000' has a decimal comma or separates thousands"],
        ),
        ("video;label;start;end\nclip1;jump;1.234,5;2.000,5\n", ["others have decimal points"]),
        ("video;label;start;end\nclip1;jump;1\n", ["line 2 has 3 columns between semicolons"]),
        (PLAIN.encode("utf-16-le"), ["NUL characters; expected text in UTF-8, or in UTF-16"]),
        (PLAIN.replace("jump", "gehört").encode("latin-1"), ["expected text in UTF-8"]),
        ('video,label,start,end\nclip1,"jump,3,4\n', ["line "]),
    ],
)
def test_dialects_that_may_mean_several_things(tmp_path, content, parts):
    _refused(tmp_path, content, *parts)


def test_comments_among_the_rows_are_noted(tmp_path):
    labels = _read(tmp_path, PLAIN + "# clip1,jump,9,10\n#end\n")
    assert _only(labels) == JUMP
    assert "lines that begin with #, left out: 2" in labels.notes[0]


def test_names_that_begin_with_a_hash_survive(tmp_path):
    labels = _read(tmp_path, "recording,label,start,end\nclip1,#jump,3,4.5\n")
    renamed = {"#1": labels.recordings["clip1"]}
    formats.write_labels(tmp_path / "a.csv", type(labels)(labels.classes, renamed))
    again = formats.read_labels(tmp_path / "a.csv")
    assert _only(again, "#1") == Instance("#jump", 3.0, 4.5) and again.notes == ()


# --- exports of other tools ---

BORIS = (
    "Observation id,Observation date,Observation duration,Time offset (s),Media duration (s),"
    "FPS (frame/s),Subject,Behavior,Behavioral category,Behavior type,Start (s),Stop (s),"
    "Duration (s),Media file name,Image index start,Image index stop\n"
    "obs1,2024-01-01,60.0,0.0,60.0,25.0,me,jump,,STATE,3.0,4.5,1.5,v/clip1.mp4,75,113\n"
    "obs1,2024-01-01,60.0,0.0,60.0,25.0,me,look,,POINT,20.0,20.0,NA,v/clip1.mp4,500,500\n"
)


def test_aggregated_events_of_boris(tmp_path):
    for text in (BORIS, BORIS.replace(",", "\t")):
        labels = _read(tmp_path, text, name="boris.tsv")
        recording = labels.recordings["clip1"]
        assert recording.instances == (JUMP, Instance("look", point_s=20.0))
        assert recording.duration_s == 60.0 and labels.notes == ()
    other = BORIS.replace("NA,v/clip1.mp4", "NA,v/clip2.mp4")
    _refused(tmp_path, other, "line 3: observation 'obs1' has several media files")


VIA_3 = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
"1_a","[""clip1.mp4""]",0,"[3.0,4.5]","[]","{""1"":""jump""}"
"""


@pytest.mark.parametrize(
    ("name", "content", "found", "expected"),
    [
        ("a.csv", VIA_3, "a csv of VIA", "VIA 3's project"),
        ("a.csv", "filename,region_id,region_shape_attributes\na,0,{}\n", "VIA 2", "VIA 3's"),
        (
            "a.csv",
            "annotation_id,id,lead_time,video,videoLabels\n1,2,3,a,b\n",
            "Label Studio",
            "JSON",
        ),
        ("a.txt", "Tier\tBegin Time - ss.msec\tjump\nA\t3\tx\n", "ELAN's tab-delim", "the .eaf"),
        ("a.json", '{"images": [], "annotations": [], "categories": []}', "COCO", "a table"),
        (
            "a.xml",
            "<?xml version='1.0'?><annotations><version>1.1</version></annotations>",
            "CVAT",
            "",
        ),
        ("a.anvil", "<?xml version='1.0'?><annotation><head/></annotation>", "Anvil", "a table"),
        ("a.TextGrid", 'File type = "ooTextFile"\nObject class = "TextGrid"\n', "Praat", "ELAN"),
        ("a.TextGrid", 'File type = "ooTextFile"\n'.encode("utf-16"), "Praat", "ELAN"),
        ("a.srt", "1\n00:00:00,000 --> 00:00:01,000\njump\n", "subtitles", "WebVTT"),
        ("a.csv", "WEBVTT\n\n00:00.000 --> 00:01.000\njump\n", "another suffix", ".vtt"),
        ("a.xlsx", b"PK\x03\x04rest", "a spreadsheet", "CSV"),
        ("a.xml", "<ANNOTATION_DOCUMENT/>", "ELAN's annotations under another suffix", ".eaf"),
    ],
)
def test_exports_that_are_not_read(tmp_path, name, content, found, expected):
    message = _refused(tmp_path, content, found, expected, name=name)
    assert "not read" in message


def test_a_sound_table_reads_as_json_too(tmp_path):
    """The commands write what was read."""
    labels = _read(tmp_path, "Video;Behavior;Onset [ms];Offset [ms]\nclip1.mp4;jump;3000;4500\n")
    formats.write_labels(tmp_path / "a.json", labels)
    [entry] = json.loads((tmp_path / "a.json").read_text())["database"].values()
    assert entry["annotations"] == [{"label": "jump", "segment": [3.0, 4.5]}]
