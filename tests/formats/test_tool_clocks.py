"""Clocks of other tools: origins and units of ELAN, frame rates of Label Studio."""

import json

import pytest

from tal_jax import formats
from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation

MEDIA = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///D:/v/{}" MIME_TYPE="video/mp4"{}/>'


def _eaf(media, *, units="milliseconds", times=(3000, 4500), version="3.0", properties=""):
    slots = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="ts{number}" TIME_VALUE="{time}"/>'
        for number, time in enumerate(times, start=1)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T10:00:00+01:00" FORMAT="{version}">
<HEADER MEDIA_FILE="" TIME_UNITS="{units}">{"".join(media)}{properties}</HEADER>
<TIME_ORDER>{slots}</TIME_ORDER>
<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="act"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>jump</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""


def _read(folder, content, name="mine.eaf", **options):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return formats.read_labels(path, **options)


def _media(name, origin=None):
    return MEDIA.format(name, "" if origin is None else f' TIME_ORIGIN="{origin}"')


@pytest.mark.parametrize(
    ("media", "name", "start", "end"),
    [
        ([_media("clip.mp4", 5000)], "clip", 8.0, 9.5),
        ([_media("clip.mp4", 0)], "clip", 3.0, 4.5),
        ([_media("cam1.mp4"), _media("cam2.mp4", 2500)], "cam1", 3.0, 4.5),
        ([_media("cam1.mp4", 2500), _media("cam2.mp4")], "cam1", 5.5, 7.0),
        ([_media("cam1.mp4", 2500), _media("cam2.mp4", 100)], "cam1", 5.5, 7.0),
        ([_media("clip.mp4", -1000)], "clip", 2.0, 3.5),
    ],
)
def test_time_origin_of_elan(tmp_path, media, name, start, end):
    """Times count from the start of the file that names the recording."""
    labels = _read(tmp_path, _eaf(media))
    assert labels.recordings[name].instances == (Instance("jump", start, end),)
    assert any("TIME_ORIGIN" in note for note in labels.notes) is (start != 3.0)


def test_origin_of_the_named_recording(tmp_path):
    """The file that a property names is the recording, wherever it is listed."""
    media = [_media("cam1.mp4", 1000), _media("cam2.mp4", 2500)]
    name = '<PROPERTY NAME="tal_jax:recording">cam2</PROPERTY>'
    labels = _read(tmp_path, _eaf(media, properties=name))
    assert labels.recordings["cam2"].instances == (Instance("jump", 5.5, 7.0),)
    [note] = labels.notes
    assert "'cam2', which begins 2.5 s before the timeline" in note


@pytest.mark.parametrize(
    ("units", "start", "end"),
    [
        ("PAL-frames", 3.0, 4.52),
        ("PAL-50-frames", 1.5, 2.26),
        ("NTSC-frames", 75 * 1001 / 30000, 113 * 1001 / 30000),
    ],
)
def test_time_units_of_elan(tmp_path, units, start, end):
    labels = _read(tmp_path, _eaf([_media("clip.mp4")], units=units, times=(75, 113)))
    [found] = labels.recordings["clip"].instances
    assert (found.start_s, found.end_s) == pytest.approx((start, end), abs=1e-12)
    assert f"times in {units}, converted at" in labels.notes[0]
    labels = _read(tmp_path, _eaf([_media("clip.mp4", 5000)], units=units, times=(75, 113)))
    [found] = labels.recordings["clip"].instances
    assert found.start_s == pytest.approx(start + 5.0, abs=1e-12) and len(labels.notes) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_eaf([], units="samples"), "times in 'samples', expected one of milliseconds, PAL-frames"),
        (_eaf([_media("a.mp4", "x")]), "TIME_ORIGIN is 'x', expected a finite number"),
        (_eaf([], version="9.1"), "version '9.1' of EAF, expected 2 or 3"),
        (_eaf([]).replace("UTF-8", "UT-8"), "cannot read .*unknown encoding: UT-8; expected ELAN"),
        (_eaf([]).replace("UTF-8", "idna"), "cannot read .*; expected ELAN's XML"),
        (_eaf([]).replace("UTF-8", "utf-7"), "cannot read .*; expected ELAN's XML"),
        (_eaf([]).replace("UTF-8", "base64"), "cannot read .*; expected ELAN's XML"),
        (_eaf([]).replace("UTF-8", "shift_jis"), "cannot read .*; expected ELAN's XML"),
    ],
)
def test_eaf_that_cannot_be_read(tmp_path, content, message):
    with pytest.raises(InputError, match=f"mine.eaf.*{message}|{message}") as caught:
        _read(tmp_path, content)
    assert "mine.eaf" in str(caught.value)


# --- Label Studio ---


def _task(*, ranges=((75, 113),), data=None, value=None, result=None, **task):
    results = [
        {
            "type": "timelinelabels",
            "value": {
                "ranges": [{"start": start, "end": end}],
                "timelinelabels": ["jump"],
                **(value or {}),
            },
            **(result or {}),
        }
        for start, end in ranges
    ]
    data = {"video": "/data/clip1.mp4", **(data or {})}
    return [{"id": 7, "data": data, "annotations": [{"result": results}], **task}]


def _times(labels):
    [one] = labels.recordings["clip1"].instances
    return one.start_s, one.end_s


@pytest.mark.parametrize(
    ("more", "rate"),
    [
        ({"data": {"fps": 30}}, 30.0),
        ({"data": {"frameRate": "29.97"}}, 29.97),
        ({"data": {"meta": {"framerate": 50}}}, 50.0),
        ({"value": {"frameRate": 30}}, 30.0),
        ({"result": {"meta": {"fps": 30}}}, 30.0),
        ({"value": {"framesCount": 1800, "duration": 60.0}}, 30.0),
        ({"value": {"framesCount": 1500}, "result": {"original_length": 60.0}}, 25.0),
        ({"result": {"original_length": 60.0}}, 24.0),
    ],
)
def test_frame_rates_of_label_studio(tmp_path, more, rate):
    """Ranges count from 1 and hold both ends: frames 75 to 113 are [74, 113) of `rate`."""
    labels = _read(tmp_path, _task(**more), "ls.json")
    assert _times(labels) == pytest.approx((74 / rate, 113 / rate), abs=1e-9)
    uncertain = "original_length" in more.get("result", {}) or "framesCount" in more.get(
        "value", {}
    )
    assert len(labels.notes) == uncertain
    if rate == 24.0:
        assert (
            "converted at 24 a second, the default of Label Studio's Video tag: clip1"
            in (labels.notes[0])
        )
    given = _read(tmp_path, _task(**more), "ls.json", frame_rate=10.0)
    assert _times(given) == pytest.approx((7.4, 11.3), abs=1e-9) and given.notes == ()


def test_frames_that_no_rate_fits(tmp_path):
    long = _task(ranges=[(1, 1440), (1441, 1600)], result={"original_length": 60.0})
    with pytest.raises(InputError, match=r"task 7: clip1: a label ends at frame 1600.*--fps"):
        _read(tmp_path, long, "ls.json")
    assert len(_read(tmp_path, long, "ls.json", frame_rate=30.0).instances) == 2
    with pytest.raises(InputError, match="fps is 0, expected a number above 0"):
        _read(tmp_path, _task(data={"fps": 0}), "ls.json")


def test_the_rate_of_the_video_where_the_default_does_not_fit(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip1.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=50)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(200):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    labels = _read(tmp_path, _task(ranges=[(25, 72)]), "ls.json")
    assert _times(labels) == (1.0, 3.0) and "at 24 a second" in labels.notes[0]
    labels = _read(tmp_path, _task(ranges=[(51, 150)]), "ls.json")
    assert _times(labels) == pytest.approx((1.0, 3.0)) and "at 50 a second" in labels.notes[0]


def test_rates_that_are_written(tmp_path):
    """Label Studio counts 24 frames a second unless the project is told otherwise."""
    recording = RecordingAnnotation("train", 9.0, (Instance("jump", 1.0, 2.0),))
    labels = Annotations(("jump",), {"clip1": recording})
    path = tmp_path / "ls.json"
    options = {"kind": "label-studio", "overwrite": True}
    assert formats.write_labels(path, labels, frame_rate=24.0, **options) == []
    [note] = formats.write_labels(path, labels, frame_rate=50.0, **options)
    assert 'set frameRate="$frame_rate" in the Video tag' in note and "pass --fps 24" in note
    again = formats.read_labels(path)
    assert _times(again) == (1.0, 2.0) and again.notes == ()
