"""Damaged files: a reader gives a result or one line that names the file, and writes nothing."""

import json
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tal_jax import formats
from tal_jax._errors import InputError
from tal_jax.data.annotation_files import read_annotations, read_frame_rates
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import open_features
from tal_jax.data.manifest import Entry, Manifest, read_manifest, write_manifest
from tal_jax.data.point_files import annotations_bytes, read_points
from tal_jax.data.predictions import (
    Predictions,
    RecordingPredictions,
    read_predictions,
    write_predictions,
)
from tal_jax.datasets.own_layout import load_grid
from tal_jax.extraction.tables import read_table

# Damaged inputs of each kind; over 10,000 in all.
COUNT = 450
GRID = Grid(50.0, 25.0, 75.0)
# What stands in for a number or a word.
WORDS = (
    *("", "nan", "-inf", "1e999", "-1", "0", "1e-320", "99999999999999999999", "None", "true"),
    *("[]", "{}", '""', "é", "\x00", "\ufeff", "‮", "0x1f", "1,5", "1;5", "00:01:02", "a" * 2000),
)
# Bytes that mean something in one of the formats.
BYTES = b"\x00\xff\n\r\t,;\"'<>&/\\{}[]:()=-+.eE0159 \xc3\xef\xbb\xbf\x93NUMPY"


def _labels() -> Annotations:
    jump, run = Instance("jump", 3.1, 4.0, 3.4), Instance("run", point_s=20.2)
    recording = RecordingAnnotation("train", 61.2, (jump, run, Instance("fall & 跳", 5.0, 7.25)))
    return Annotations(("jump", "run", "fall & 跳"), {"clip": recording})


def _written(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        formats.write_labels(path, _labels(), kind=kind, frame_rate=25.0)

    return write


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf-8")


def _npy(array: np.ndarray) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, array)

    return write


def _structured(path: Path) -> None:
    table = np.zeros(40, [("time_s", "f8"), ("x", "f4"), ("y", "f4")])
    table["time_s"] = np.arange(40) / 50
    _npy(table)(path)


def _parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    times = np.arange(40) / 50
    parquet.write_table(pyarrow.table({"time_s": times, "x": np.sin(times)}), path)


def _predictions(path: Path) -> None:
    rng = np.random.default_rng(0)
    cas, actionness = rng.random((9, 2), np.float32), rng.random(9, np.float32)
    outputs = Predictions(cas, actionness, rng.random(2, np.float32))
    write_predictions(path, {"clip": RecordingPredictions(GRID, 9.0, outputs, outputs)})


def _manifest(path: Path) -> None:
    entry = Entry("/data/clip.csv", "ab" * 32, 1234, 10**18, 5.5, 10, 24)
    manifest = Manifest("signal", "1", {"channels": ["x", "y", "z"]}, 24, GRID, {"clip": entry})
    write_manifest(path.parent, manifest)


_TABLE = "time_s,acc_x,acc_y\n" + "\n".join(f"{i / 50},{i % 7},{-i}" for i in range(40))
_TABLE_SEMICOLONS = "Zeit (s);acc x;acc y\n" + "\n".join(
    f"{i / 50};{i % 7 + 0.5};{-i}".replace(".", ",") for i in range(40)
)
_TABLE_UNITS = "# logger 3\ntime\tacc_x\tacc_y\nms\tg\tg\n" + "\n".join(
    f"{i * 20}\t{i % 7}\t{-i}" for i in range(40)
)
_TABLE_CLOCK = "No,Date,Time,x\n" + "\n".join(
    f"{i},31.12.2024,13:00:{i // 50:02}.{i % 50 * 20:03},{-i}" for i in range(60)
)
_TABLE_EMPATICA = "1544027337.0,1544027337.0\n32.0,32.0\n" + "\n".join(
    f"{i % 7},{-i}" for i in range(40)
)
_TABLE_ACTIGRAPH = (
    "---- Data File Created By ActiGraph GT3X+ at 40 Hz  Filter Normal ----\n"
    + "\n".join(
        ["Epoch Period (hh:mm:ss) 00:00:00", "-----", "Accelerometer X,Accelerometer Y"]
        + [f"{i % 7},{-i}" for i in range(40)]
    )
)
_DETECTIONS = json.dumps(
    {"version": "1", "results": {"clip": [{"label": "a", "score": 0.5, "segment": [1.0, 2.0]}]}}
)
_GRID = json.dumps(GRID.to_dict())
_FRAMES = "class,class_index,start_frame,stop_frame,video_id,point\njump,0,90,120,clip,101\n"
_SECONDS = "video,seconds,label\nclip,3.4,jump\nclip,20.2,run\n"


_SEMICOLONS = "Video;Behavior;Start (s);Stop (s);Duration\n" + "".join(
    f"v/clip.mp4;jump {k};{k},25;{k + 1},5;1,25\n" for k in range(8)
)
_START_FRAMES = "# frames\nfile\tlabel\tstart_frame\tend_frame\tfps\n" + "".join(
    f"clip.mp4\tjump\t{25 * k}\t{25 * k + 30}\t25\n" for k in range(8)
)
_BORIS = "Observation id,Behavior,Behavior type,Start (s),Stop (s),Duration (s),Media file name\n"
_BORIS += "obs,jump,STATE,3.0,4.5,1.5,clip.mp4\nobs,look,POINT,20.0,20.0,NA,clip.mp4\n"
_BORIS_QUEUE = (
    "Observation id\tSource\tTime offset (s)\tMedia duration (s)\tSubject\tBehavior\tModifier #1\t"
    "Behavior type\tTime\tMedia file name\tComment\n"
) + "".join(
    f"obs\tplayer #1:v/clip.mp4;v/clip2.mp4\t5.0\t30.000;30.000\t\tjump\t\t{status}\t{time}\t"
    f"v/clip{'' if time < 35 else '2'}.mp4\t\n"
    for time in range(6, 60, 6)
    for status, time in (("START", time), ("STOP", time + 3))
)
_BORIS_7 = (
    "Observation id,clip,,,,,,,\n,,,,,,,,\nMedia file(s),,,,,,,,\nPlayer #1,clip.mp4,,,,,,,\n"
    "Time offset (s),0.0,,,,,,,\nTime,Media file path,Total length,FPS,Subject,Behavior,"
    "Behavioral category,Comment,Status\n"
    + "".join(
        f"{3 * k}.300,clip.mp4,60.000,25.0,me,{label},,,{status}\n"
        for k, (label, status) in enumerate(
            [("jump", "START"), ("look", "POINT"), ("jump", "STOP"), ("look", "POINT")] * 3
        )
    )
)
_BORIS_PROJECT = json.dumps(
    {
        "project_format_version": "7.0",
        "behaviors_conf": {
            "0": {"code": "jump", "type": "State event", "modifiers": {}},
            "1": {"code": "look", "type": "Point event", "modifiers": {}},
        },
        "observations": {
            "clip": {
                "type": "MEDIA",
                "file": {"1": ["v/a.mp4", "v/clip.mp4"], "2": ["v/c.mp4"]},
                "time offset": 2.0,
                "media_info": {"length": {"v/a.mp4": 30.0, "v/clip.mp4": 20.0}},
                "independent_variables": {"subset": "test", "weather": "rain"},
                "description": "",
                "events": [
                    [3.0, "me", "jump", "", "", 25],
                    [9.5, "me", "jump", "", "", "NA"],
                    [35.0, "", "look", "a|b", "unsure", 825],
                ],
            }
        },
    },
    indent=1,
)
_RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tAnnotation\n" + (
    "".join(
        f"{k}\t{view}\t1\t{k}.709\t{k + 1}.096\t1739.012\tjump\n"
        for k in range(1, 9)
        for view in ("Waveform 1", "Spectrogram 1")
    )
)
_WEBVTT = "WEBVTT - title\nKind: captions\n\nNOTE\nby hand\n\nSTYLE\n::cue { color: red }\n\n" + (
    "".join(
        f"cue {k}\n00:{k:02}.000 --> 00:{k + 1:02}.500 align:start\n<i>jump</i> &amp; {k}\nrun\n\n"
        for k in range(9)
    )
)
_EXTRAS = json.dumps(
    {
        "version": "1.3",
        "taxonomy": [{"nodeName": "jump", "parent": None}],
        "database": {
            "clip": {
                "subset": "train",
                "duration": 61.2,
                "fps": 29.97,
                "url": "http://x",
                "annotations": [{"label": "jump", "segment": [3.1, 4.0], "id": 7}],
            }
        },
    }
)
_FRAME_RANGES = json.dumps(
    [
        {
            "id": 7,
            "data": {"video": "/data/clip.mp4"},
            "annotations": [
                {
                    "result": [
                        {
                            "original_length": 60.0,
                            "type": "timelinelabels",
                            "value": {
                                "framesCount": 1500,
                                "ranges": [{"start": 75, "end": 113}],
                                "timelinelabels": ["jump"],
                            },
                        }
                    ]
                }
            ],
        }
    ]
)


def _elan_origin(path: Path) -> None:
    formats.write_labels(path, _labels(), kind="elan")
    media = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///v/clip.mp4" TIME_ORIGIN="5000" />'
    text = path.read_text(encoding="utf-8").replace('"milliseconds">', f'"PAL-frames">{media}')
    path.write_text(text, encoding="utf-8")


def _read_and_write(path: Path) -> None:
    """Whatever is read can be written."""
    labels = formats.read_labels(path)
    annotations_bytes(path, labels)


def _read_points(path: Path) -> object:
    return read_points(path, frame_rates={"clip": 30.0})


# Name of the file, its good content, its reader.
CASES: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    **{
        f"labels-{kind}": (f"clip{formats._SUFFIXES[kind]}", _written(kind), formats.read_labels)
        for kind in formats.KINDS
    },
    "detections": ("clip.json", _text(_DETECTIONS), formats.read_labels),
    "annotations": ("annotations.json", _written("activitynet"), read_annotations),
    "frame-rates": ("rates.json", _text('{"clip": 29.97, "other": 25}'), read_frame_rates),
    "labels-semicolons": ("clip.csv", _text(_SEMICOLONS), formats.read_labels),
    "labels-frames": ("clip.tsv", _text(_START_FRAMES), formats.read_labels),
    "labels-boris-table": ("clip.csv", _text(_BORIS), formats.read_labels),
    "labels-boris-project": ("clip.boris", _text(_BORIS_PROJECT), formats.read_labels),
    "labels-boris-queue": ("clip.tsv", _text(_BORIS_QUEUE), formats.read_labels),
    "labels-boris-7": ("clip.csv", _text(_BORIS_7), formats.read_labels),
    "labels-raven-views": ("clip.txt", _text(_RAVEN), formats.read_labels),
    "labels-webvtt-others": ("clip.vtt", _text(_WEBVTT), formats.read_labels),
    "labels-utf-16": (
        "clip.csv",
        lambda path: path.write_text(_SEMICOLONS, encoding="utf-16"),
        formats.read_labels,
    ),
    "labels-elan-origin": ("clip.eaf", _elan_origin, formats.read_labels),
    "labels-frame-ranges": ("clip.json", _text(_FRAME_RANGES), formats.read_labels),
    "labels-extras": ("clip.json", _text(_EXTRAS), _read_and_write),
    "points-json": ("points.json", _written("activitynet"), _read_points),
    "points-frames": ("points.csv", _text(_FRAMES), _read_points),
    "points-seconds": ("points.txt", _text(_SECONDS), _read_points),
    "table-csv": ("clip.csv", _text(_TABLE), read_table),
    "table-semicolons": ("clip.csv", _text(_TABLE_SEMICOLONS), read_table),
    "table-units": ("clip.csv", _text(_TABLE_UNITS), read_table),
    "table-times-of-day": ("clip.csv", _text(_TABLE_CLOCK), read_table),
    "table-empatica": ("clip.csv", _text(_TABLE_EMPATICA), read_table),
    "table-actigraph": ("clip.csv", _text(_TABLE_ACTIGRAPH), read_table),
    "table-npy": ("clip.npy", _structured, read_table),
    "table-parquet": ("clip.parquet", _parquet, read_table),
    "features": (
        "clip.npy",
        _npy(np.ones((20, 3), np.float32)),
        lambda path: open_features([path])[:],
    ),
    "predictions": ("scores.npz", _predictions, read_predictions),
    "grid": ("grid.json", _text(_GRID), load_grid),
    "manifest": ("manifest.json", _manifest, lambda path: read_manifest(path.parent)),
}


def _damage(content: bytes, rng: random.Random) -> bytes:
    """Up to three changes: bytes, words, lines, order, length."""
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(content) + 1), rng.randrange(8)
        span = at + rng.choice((1, 2, 5, 20, len(content)))
        if kind == 0:
            content = content[:at] + bytes([rng.choice(BYTES)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + bytes(rng.choices(BYTES, k=3)) + content[at:]
        elif kind == 2:
            content = content[:at] + content[span:]
        elif kind == 3:
            content = content[:at] + content[at:span] * 2 + content[span:]
        elif kind == 4:
            content = content[:at]
        elif kind == 5:
            content = _replace_word(content, rng)
        elif kind == 6:
            lines = content.split(b"\n")
            rng.shuffle(lines)
            content = b"\n".join(lines)
        else:
            number = struct.pack("<q", rng.choice((0, -1, 2**31, 2**62)))
            content = content[:at] + number + content[at + 8 :]
    return content


def _replace_word(content: bytes, rng: random.Random) -> bytes:
    """A number or a word becomes another one."""
    places, start = [], None
    for at, byte in enumerate(content + b" "):
        inside = chr(byte).isalnum() or byte in b"._-"
        if inside and start is None:
            start = at
        elif not inside and start is not None:
            places.append((start, at))
            start = None
    if not places:
        return content
    start, end = rng.choice(places)
    return content[:start] + rng.choice(WORDS).encode() + content[end:]


@pytest.mark.parametrize("name", CASES)
def test_damaged_files(tmp_path, name):
    file_name, write, read = CASES[name]
    path, rng = tmp_path / file_name, random.Random(name)
    write(path)
    read(path)  # the good one
    good, refused = path.read_bytes(), 0
    for _ in range(COUNT):
        path.write_bytes(_damage(good, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read(path)
        except (InputError, OSError) as error:
            refused += 1
            message = str(error)
            assert "\n" not in message and message.isprintable(), message
            assert len(message) < 1000, message
            assert path.stem in message or isinstance(error, OSError), message
        assert [one.name for one in tmp_path.iterdir()] == [file_name]
    assert refused > COUNT / 10
