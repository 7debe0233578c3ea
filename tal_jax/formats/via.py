"""Projects of the VGG Image Annotator 3 (its video annotator), `.json`.

A label is a temporal segment `"z": [start, end]` in seconds whose attribute `"av"` tells the class.
VIA has no points of its own; here they are segments of no length, and a `"z": [time]` of others is
read as one.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tal_jax.data import files
from tal_jax.data.raw_annotations import RawRecording
from tal_jax.formats.labels import (
    Labels,
    collect,
    find_media,
    instances_of,
    is_video,
    losses,
    number,
    recording_name,
    spans_of,
)

_SEGMENT, _MARKER = "FILE1_Z2_XY0", "FILE1_Z1_XY0"  # what an attribute is anchored to
_CHECKBOX, _RADIO, _SELECT = 2, 3, 4  # types of attributes whose values are options
_VIDEO, _SOUND = 4, 8
_MICROSECONDS = 10**6


def read_via(values: Mapping[str, Any], path: str | os.PathLike, *, subset: str) -> Labels:
    """Reads what was read from a project's JSON.

    Args:
      values: the object.
      path: of the file, for messages.
      subset: of the recordings.

    Raises:
      ValueError: if a part is missing or a time is none.
    """
    source = str(path)
    parts = {
        key: files.get_value(values, key, Mapping, source)
        for key in ("attribute", "file", "metadata", "view")
    }
    attribute_id, others = _label_attribute(parts["attribute"], source)
    options = files.get_value(
        parts["attribute"][attribute_id], "options", Mapping, f"{source}: attribute"
    )
    names = _names(parts["view"], parts["file"], source)
    spans: dict[str, list[tuple[str, float, float]]] = {name: [] for name in names.values()}
    spatial = nameless = 0
    for key, entry in parts["metadata"].items():
        where = f"{source}: metadata {key}"
        z = files.get_value(entry, "z", list, where)
        if len(z) not in (1, 2) or entry.get("xy"):
            spatial += 1
            continue
        value = files.get_value(entry, "av", Mapping, where).get(attribute_id, "")
        labels = _labels(value, options, parts["attribute"][attribute_id].get("type"))
        nameless += not labels
        name = names.get(str(entry.get("vid")))
        if name is None:
            raise ValueError(f"{where}: no view {entry.get('vid')!r}, expected one of its file")
        start_s, end_s = (number(one, f"{where}: time") for one in (z[0], z[-1]))
        spans[name] += [(label, start_s, end_s) for label in labels]
    recordings, joined = {}, 0
    for name, found in spans.items():
        instances, count = instances_of(found, f"{source}: {name}")
        recordings[name], joined = RawRecording(subset=subset, instances=instances), joined + count
    counted = {
        "labels of regions or of whole files, left out": spatial,
        "temporal segments without a label, left out": nameless,
    }
    notes = [f"{words}: {count}" for words, count in counted.items() if count]
    notes += [f"attributes beside the first one, left out: {', '.join(others)}"] if others else []
    classes = [str(option) for option in options.values()]
    return collect("VIA 3", source, recordings, classes=classes, joined=joined, notes=notes)


def write_via(path: str | os.PathLike, labels: Labels, *, folder: Path) -> list[str]:
    """Writes labels as a VIA 3 project; returns what it has no place for, a line each.

    Args:
      path: the file.
      labels: what to write.
      folder: where recordings lie, whose files are then named with their suffixes.
    """
    raw = labels.annotations
    options = {str(index): label for index, label in enumerate(raw.classes)}
    option_of = {label: option for option, label in options.items()}
    media, metadata = {}, {}
    for index, (name, recording) in enumerate(raw.recordings.items(), start=1):
        file = find_media(folder, name)
        media[str(index)] = {
            "fid": str(index),
            "fname": file.name if file else name,
            "type": _VIDEO if file is None or is_video(file) else _SOUND,
            "loc": 1,  # a local file, which VIA asks for
            "src": "",
        }
        spans = spans_of(recording.instances, per_second=_MICROSECONDS)
        for span in sorted(spans, key=lambda span: (span.start, span.end)):
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
    files.write_json(path, project)
    return losses(labels, "classes", "empty")


def _label_attribute(attributes: Mapping[str, Any], source: str) -> tuple[str, list[str]]:
    """Returns the key of the first attribute of temporal segments, and the names of the others."""
    temporal = [
        key
        for key, attribute in attributes.items()
        if files.get_value(attribute, "anchor_id", str, f"{source}: attribute {key}")
        in (_SEGMENT, _MARKER)
    ]
    if not temporal:
        raise ValueError(f"{source}: no attribute of temporal segments, expected one for the class")
    return temporal[0], [str(attributes[key].get("aname", key)) for key in temporal[1:]]


def _names(views: Mapping[str, Any], media: Mapping[str, Any], source: str) -> dict[str, str]:
    """Returns the recording's name of each view."""
    names = {}
    for key, view in views.items():
        fids = files.get_value(view, "fid_list", list, f"{source}: view {key}")
        if len(fids) == 1 and str(fids[0]) in media:
            file = media[str(fids[0])]
            names[key] = recording_name(
                files.get_value(file, "fname", str, f"{source}: file {fids[0]}")
            )
    if len(set(names.values())) < len(names):
        raise ValueError(f"{source}: two files of one name, expected different recordings")
    return names


def _labels(value: Any, options: Mapping[str, Any], kind: Any) -> list[str]:
    """Returns the labels that an attribute's value tells; none where it is empty."""
    if kind == _CHECKBOX:
        chosen = [option for option in str(value).split(",") if option]
    else:
        chosen = [str(value)] if value else []
    if kind in (_CHECKBOX, _RADIO, _SELECT):
        chosen = [str(options.get(option, option)) for option in chosen]
    return [label.strip() for label in chosen if label.strip()]
