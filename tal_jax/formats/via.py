"""Projects of the VGG Image Annotator 3 (its video annotator), `.json`.

A label is a temporal segment `"z": [start, end]` in seconds; its attribute `"av"` holds the class.
VIA has no points: they are written as segments without length, and `"z": [time]` is read as one.
"""

import os
import re
import time
from pathlib import Path
from typing import Any

import msgspec

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, RecordingAnnotation
from tal_jax.extraction.video import has_video_suffix
from tal_jax.formats.labels import (
    collect,
    find_media,
    losses,
    recording_name,
    spans_of,
)

_SEGMENT, _MARKER = "FILE1_Z2_XY0", "FILE1_Z1_XY0"  # anchors of attributes
_CHECKBOX, _RADIO, _SELECT = 2, 3, 4  # types of attributes whose values are options
_VIDEO, _SOUND = 4, 8
_MICROSECONDS = 10**6


class _Project(msgspec.Struct):
    attribute: dict[str, Any]
    file: dict[str, Any]
    metadata: dict[str, Any]
    view: dict[str, Any]


class _Attribute(msgspec.Struct):
    anchor_id: str
    aname: Any = None
    type: Any = None
    options: dict[str, Any] = {}


class _File(msgspec.Struct):
    fname: str


class _Metadata(msgspec.Struct):
    z: list[files.Number]
    av: dict[str, Any] = {}
    vid: Any = None
    xy: Any = None


class _View(msgspec.Struct):
    fid_list: list[Any]


def read_via(values: Any, path: str | os.PathLike, *, subset: str) -> Annotations:
    """Parses the JSON of a project; `subset` is that of its recordings."""
    source = str(path)
    project = files.convert(values, _Project, source)
    attributes = files.convert_each(project.attribute, _Attribute, f"{source}: attribute")
    temporal = [key for key, one in attributes.items() if one.anchor_id in (_SEGMENT, _MARKER)]
    if not temporal:
        raise InputError(f"{source}: no attribute of temporal segments, expected one for the class")
    attribute = attributes[temporal[0]]
    names = _names(project, source)
    spans: dict[str, list[tuple[str, float, float]]] = {name: [] for name in names.values()}
    spatial = unlabelled = 0
    where = f"{source}: metadata"
    for key, one in files.convert_each(project.metadata, _Metadata, where, strict=False).items():
        if len(one.z) not in (1, 2) or one.xy:
            spatial += 1
            continue
        labels = _labels(one.av.get(temporal[0], ""), attribute)
        unlabelled += not labels
        name = names.get(str(one.vid))
        if name is None:
            raise InputError(f"{where}: {key}: no view {one.vid!r}, expected one of its file")
        spans[name] += [(label, one.z[0], one.z[-1]) for label in labels]
    others = [str(attributes[key].aname or key) for key in temporal[1:]]
    return collect(
        source,
        {name: RecordingAnnotation(subset) for name in spans},
        spans=spans,
        classes=map(str, attribute.options.values()),
        left_out={
            "labels of regions or of whole files": spatial,
            "temporal segments without a label": unlabelled,
        },
        notes=[f"attributes beside the first one, left out: {', '.join(others)}"] if others else [],
    )


def to_via(
    path: str | os.PathLike, labels: Annotations, *, folder: Path
) -> tuple[bytes, list[str]]:
    """Returns the content of a VIA 3 project, and what the format cannot hold, a line each.

    The project refers to the files of the recordings in `folder`.
    """
    options = {str(index): label for index, label in enumerate(labels.classes)}
    option_of = {label: option for option, label in options.items()}
    media, metadata = {}, {}
    for index, (name, recording) in enumerate(labels.recordings.items(), start=1):
        file = find_media(folder, name)
        media[str(index)] = {
            "fid": str(index),
            "fname": file.name if file else name,
            "type": _VIDEO if file is None or has_video_suffix(file) else _SOUND,
            "loc": 1,  # a local file, which VIA asks for
            "src": "",
        }
        for span in spans_of(recording.instances, per_second=_MICROSECONDS):
            metadata[f"{index}_{len(metadata):08d}"] = {
                "vid": str(index),
                "flg": 0,
                "z": [span.start / _MICROSECONDS, span.end / _MICROSECONDS],
                "xy": [],
                "av": {"1": option_of[span.label]},
            }
    project = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": Path(path).stem,
            "creator": "tal_jax",
            "created": int(time.time() * 1000),
            "data_format_version": "3.1.1",
            "vid_list": list(media),
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": True,
                "temporal_segment_metadata_editor_visible": True,
                "spatial_region_label_attribute_id": "",
                "gtimeline_visible_row_count": "4",
            },
        },
        "attribute": {
            "1": {
                "aname": "action",
                "anchor_id": _SEGMENT,
                "type": _SELECT,
                "desc": "class of the action",
                "options": options,
                "default_option_id": "",
            }
        },
        "file": media,
        "metadata": metadata,
        "view": {key: {"fid_list": [key]} for key in media},
    }
    return files.json_bytes(project), losses(labels, "classes", "empty")


def is_same(one: bytes, other: bytes) -> bool:
    """Whether two projects differ in the time of their creation at most."""
    created = rb'"created": \d+'
    return re.sub(created, b"", one) == re.sub(created, b"", other)


def _names(project: _Project, source: str) -> dict[str, str]:
    """Returns the recording's name of each view."""
    media = files.convert_each(project.file, _File, f"{source}: file")
    names = {}
    for key, view in files.convert_each(project.view, _View, f"{source}: view").items():
        if len(view.fid_list) == 1 and str(view.fid_list[0]) in media:
            names[key] = recording_name(media[str(view.fid_list[0])].fname)
    if len(set(names.values())) < len(names):
        raise InputError(f"{source}: two files of one name, expected different recordings")
    return names


def _labels(value: Any, attribute: _Attribute) -> list[str]:
    """Returns the labels of an attribute's value, none if it is empty."""
    if attribute.type == _CHECKBOX:
        chosen = [option for option in str(value).split(",") if option]
    else:
        chosen = [str(value)] if value else []
    if attribute.type in (_CHECKBOX, _RADIO, _SELECT):
        chosen = [str(attribute.options.get(option, option)) for option in chosen]
    return [label.strip() for label in chosen if label.strip()]
