"""Raven's selection tables and WebVTT in the layouts of their programs."""

import re

import filming
import pytest

from tal_jax import formats
from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation

HEADER = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Delta Time (s)\tAvg Power Density (dB FS/Hz)\tAnnotation\n"
)


def _labels(*instances):
    return Annotations((), {"clip": RecordingAnnotation(instances=instances)})


def _raven(tmp_path, text, name="clip.Table.1.selections.txt"):
    (tmp_path / name).write_text(text)
    return formats.read_labels(tmp_path / name)


def test_selections_in_several_views_count_once(tmp_path):
    rows = [
        (1, "Waveform 1", 1, "6.709509878", "15.096397225", ""),
        (1, "Spectrogram 1", 1, "6.709509878", "15.096397225", 'long "trill"'),
        (1, "Spectrogram 1", 2, "6.709509878", "15.096397225", 'long "trill"'),
        (2, "Spectrogram 1", 1, "29.5", "29.5", "click"),
        (3, "Spectrogram 1", 1, "40", "41", ""),
        (4, "Spectrogram 1", 1, "6.709509878", "15.096397225", "song"),  # another selection
    ]
    text = HEADER + "".join(
        f"{number}\t{view}\t{channel}\t{begin}\t{end}\t1739.012\t3798.813\t8.3869\t-75.9\t{label}\n"
        for number, view, channel, begin, end, label in rows
    )
    labels = _raven(tmp_path, text)
    assert labels.recordings["clip"].instances == (
        Instance('long "trill"', 6.709509878, 15.096397225),
        Instance("song", 6.709509878, 15.096397225),
        Instance("click", point_s=29.5),
    )
    assert labels.recordings["clip"].instances[0].extras == {
        "low_freq_hz": 1739.012,
        "high_freq_hz": 3798.813,
    }
    assert labels.notes == (f"{labels.source}: selections without an annotation, left out: 1",)


def test_selections_of_a_sequence_of_files(tmp_path):
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\t{}Species\n"
    rows = (
        "1\tSpectrogram 1\t1\t12\t13.5\ta.wav\t{}owl\n2\tSpectrogram 1\t1\t63\t64\tb.wav\t{}owl\n"
    )
    text = header.format("File Offset (s)\t") + rows.format("12\t", "3\t")
    labels = _raven(tmp_path, text)
    assert labels.recordings["a"].instances == (Instance("owl", 12.0, 13.5),)
    assert labels.recordings["b"].instances == (Instance("owl", 3.0, 4.0),)
    assert labels.notes == (f"{labels.source}: labels are those of the column 'species'",)
    with pytest.raises(InputError, match=r"of 2 files, .* expected the column File Offset"):
        _raven(tmp_path, header.format("") + rows.format("", ""))


def test_detections_of_birdnet(tmp_path):
    text = (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
        "Common Name\tSpecies Code\tConfidence\tBegin Path\tFile Offset (s)\n"
        "1\tSpectrogram 1\t1\t3.0\t6.0\t0\t15000\tTawny Owl\ttawowl1\t0.8723\t/d/a.wav\t3.0\n"
    )
    labels = _raven(tmp_path, text, name="a.BirdNET.selection.table.txt")
    assert labels.detections
    assert labels.recordings["a"].instances == (Instance("Tawny Owl", 3.0, 6.0, score=0.8723),)


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("clip.Table.1.selections.txt", "clip"),
        ("clip.BirdNET.selections.txt", "clip"),
        ("clip.selections.txt", "clip"),
        ("clip.txt", "clip"),
        ("selections.txt", "selections"),
    ],
)
def test_names_of_tables(tmp_path, name, recording):
    assert list(_raven(tmp_path, HEADER, name=name).recordings) == [recording]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("\tAnnotation", ""), "without a column of annotations, found 'selection'"),
        (HEADER + "1\tS\t1\tx\t2\t1\t2\t3\t4\towl\n", r"line 2: begin time \(s\) is 'x', expected"),
        (HEADER + "1\tS\t1\t3\t2\t1\t2\t3\t4\towl\n", "line 2: 'owl' is from 3.0 to 2.0 s"),
        (HEADER + "1\tS\t1\t3\n", "line 2 has 4 columns, expected 10"),
    ],
)
def test_refused_tables(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        _raven(tmp_path, text)


def test_written_selections(tmp_path):
    filming.record_sound(tmp_path / "clip.m4a")  # 8,000 samples a second
    owl = Instance("owl", 1.25, 2.0, score=0.75)
    jay = Instance("jay", 0.5, 1.0, score=0.5, extras={"low_freq_hz": 500, "high_freq_hz": 900.5})
    labels = Annotations(
        ("owl", "jay"), {"clip": RecordingAnnotation(instances=(owl, jay))}, detections=True
    )
    path = tmp_path / "clip.Table.1.selections.txt"
    assert formats.write_labels(path, labels) == []
    assert path.read_text() == (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
        "Score\tAnnotation\n"
        "1\tSpectrogram 1\t1\t0.500000\t1.000000\t500.000\t900.500\t0.5\tjay\n"
        "2\tSpectrogram 1\t1\t1.250000\t2.000000\t0.000\t4000.000\t0.75\towl\n"
    )
    again = formats.read_labels(path)
    assert again.detections and again.recordings["clip"].instances == (jay, owl)
    for label in ("a\tb", "a\nb", " a"):
        wrong = Annotations(
            (label,), {"clip": RecordingAnnotation(instances=(Instance(label, 1, 2),))}
        )
        with pytest.raises(InputError, match="expected one line in Raven, without tabs"):
            formats.write_labels(path, wrong)


# --- WebVTT ---


def _webvtt(tmp_path, text, name="clip.vtt"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return formats.read_labels(tmp_path / name)


def test_cues(tmp_path):
    text = """\ufeffWEBVTT - some title
Kind: metadata
Language: en

NOTE
a comment --- of two lines

STYLE
::cue { color: lime }

00:01.000 --> 00:04.500
jump

intro 7
00:00:02.250 --> 01:00:03.000 line:0 align:start
<v Ann>run &amp; hide</v>
<c.loud>jump</c>

NOTE 00:00 one line

point 4
00:00:06.000 --> 00:00:06.001
&lt;fall&gt;
"""
    labels = _webvtt(tmp_path, text.replace("\n", "\r\n"))
    assert labels.recordings["clip"].instances == (
        Instance("jump", 1.0, 4.5),
        Instance("run & hide", 2.25, 3603.0),
        Instance("jump", 2.25, 3603.0),
        Instance("<fall>", point_s=6.0),
    )
    assert labels.notes == ()
    shifted = text.replace("Kind: metadata", "X-TIMESTAMP-MAP=LOCAL:00:00.000,MPEGTS:900000")
    assert "X-TIMESTAMP-MAP" in _webvtt(tmp_path, shifted).notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00:01.000 --> 00:02.000\njump\n", "expected WEBVTT at its start"),
        ("WEBVTT\n\n00:01,000 --> 00:02,000\njump\n", "line 3 is '00:01,000"),
        ("WEBVTT\n\n1\n00:01.000 -> 00:02.000\njump\n", "line 4 is '00:01.000 -> 00:02.000'"),
        ("WEBVTT\n\n00:03.000 --> 00:02.000\njump\n", "line 3: a cue that ends before it begins"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n<i></i>\n", "line 3: a cue without text"),
        ("WEBVTT\n\nstray\n", "line 4 is 'stray'"),
    ],
)
def test_refused_cues(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        _webvtt(tmp_path, text)


def test_written_cues(tmp_path):
    instances = (Instance("a <b> & c", 3599.9996, 7200.5), Instance("run", point_s=1.5))
    path = tmp_path / "clip.vtt"
    formats.write_labels(path, _labels(*instances))
    assert path.read_text() == (
        "WEBVTT\n\npoint 1\n00:00:01.500 --> 00:00:01.501\nrun\n\n"
        "segment 2\n01:00:00.000 --> 02:00:00.500\na &lt;b&gt; &amp; c\n"
    )
    again = formats.read_labels(path).recordings["clip"].instances
    assert again == (Instance("a <b> & c", 3600.0, 7200.5), Instance("run", point_s=1.5))
    # The text is what HTML makes of it, so that a label that looks escaped comes back as it was.
    formats.write_labels(path, _labels(Instance("&amp;", 1, 2)))
    assert formats.read_labels(path).recordings["clip"].instances == (Instance("&amp;", 1, 2),)
    for label in ("a\nb", " a"):
        wrong = Annotations(
            (label,), {"clip": RecordingAnnotation(instances=(Instance(label, 1, 2),))}
        )
        with pytest.raises(InputError, match="expected one line in WebVTT"):
            formats.write_labels(path, wrong)
