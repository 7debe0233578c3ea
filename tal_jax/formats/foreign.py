"""Recognises exports of other tools that are not read, and names what to export instead."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError

_TABLE = "a table (.csv) with the columns recording, label, start and end"
_HEAD = 65536  # bytes that are looked at


def refuse(path: str | os.PathLike, text: str) -> None:
    """Raises an InputError for the text of a known export that no reader accepts."""
    found = _xml(text) if text.lstrip().startswith("<") else _text(text)
    if found:
        raise InputError(f"{path}: {found[0]}, which is not read; expected {found[1]}")


def refuse_json(path: str | os.PathLike, values: Any) -> None:
    """Raises an InputError for the JSON of a known export that no reader accepts."""
    found = _json(values)
    if found:
        raise InputError(f"{path}: {found[0]}, which is not read; expected {found[1]}")


def refuse_file(path: str | os.PathLike) -> None:
    """Raises an InputError for a file of an unknown suffix with the content of a known export."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_HEAD)
    except OSError:
        return
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(
            f"{path}: a spreadsheet or an archive, which is not read; expected a table saved as "
            "CSV (UTF-8)"
        )
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if utf_16 else "utf-8-sig", errors="replace")
    refuse(path, text)


def _json(values: Any) -> tuple[str, str] | None:
    if not isinstance(values, Mapping):
        return None
    keys = set(values)
    if {"images", "annotations"} <= keys:
        return "annotations of images in COCO's format", _TABLE
    if {"shapes", "imagePath"} <= keys:
        return "labels of an image by labelme", _TABLE
    return None


def _xml(text: str) -> tuple[str, str] | None:
    """Recognises XML by its first element."""
    root = re.search(r"<\s*([A-Za-z][\w:.-]*)", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    name = root[1] if root else ""
    if name == "annotations" and re.search(r"<(version|meta|image|track)\b", text):
        return "CVAT's boxes in images", _TABLE
    if name == "annotation" and re.search(r"<(head|body|specification)\b", text):
        return "annotations of Anvil", f"{_TABLE}, or an .eaf of ELAN"
    if name == "preferences":
        return "settings of ELAN", "its annotations, the .eaf beside them"
    if name in ("basic-transcription", "Trans"):
        return "a transcription of EXMARaLDA or Transcriber", "an .eaf of ELAN, which imports it"
    if name == "ANNOTATION_DOCUMENT":
        return "ELAN's annotations under another suffix", "the suffix .eaf"
    return None


def _names(line: str) -> list[str]:
    return [name.strip(' "').lower() for name in re.split("[,;\t]", line)]


def _text(text: str) -> tuple[str, str] | None:
    head = text.lstrip()[:4096]
    lines = [line for line in head.split("\n") if line.strip()]
    header = next((_names(line) for line in lines if not line.startswith("#")), [])
    if 'Object class = "TextGrid"' in head or head.startswith('File type = "ooTextFile'):
        return "a TextGrid of Praat", f"an .eaf of ELAN, which imports it, or {_TABLE}"
    if "VGG Image Annotator" in head or "temporal_coordinates" in head:
        return "a csv of VIA", "VIA 3's project, the .json of its Save button"
    if "region_shape_attributes" in header:
        return "a csv of VIA 2, which is for images", "a project of VIA 3's video annotator"
    if {"annotation_id", "lead_time"} <= set(header):
        return "Label Studio's csv", "its export JSON"
    if any(name.startswith("begin time -") for name in header):
        return "ELAN's tab-delimited text", "the .eaf that it was exported from"
    if head.startswith("WEBVTT"):
        return "WebVTT under another suffix", "the suffix .vtt"
    if re.match(r"\d+\n\d\d:\d\d:\d\d[,.]\d+ --> ", head):
        return "subtitles", f"WebVTT (.vtt), or {_TABLE}"
    return None
