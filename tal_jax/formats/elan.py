"""ELAN's `.eaf`, an XML file a recording: annotations in tiers, in milliseconds.

Tiers cannot hold annotations that overlap, and annotations must last. So segments stand in the tier
"actions" and, where they overlap, in "actions 2" and so on; points stand in tiers of the
linguistic type "point", as annotations of one millisecond. The label is the value of the
annotation, or the name of the tier where the value is empty. The classes are a controlled
vocabulary, so that ELAN offers them; the name, the duration and the subset of the recording are
properties of the document.

A file ends in a comment with the sha256 of the bytes before it. ELAN drops comments when it saves,
and an edit of the text changes the digest: without a comment that matches, a file was changed or
comes from elsewhere.
"""

import datetime
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.parsers import expat

from tal_jax.data.raw_annotations import RawRecording
from tal_jax.formats.labels import (
    Labels,
    Span,
    collect,
    instances_of,
    is_video,
    number,
    recording_name,
    spans_of,
)

_PROPERTY = "tal_jax:"
_MILLISECONDS = 1000  # in a second
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_MARK = b"<!-- tal_jax: sha256 of the above: "
_POINT, _SEGMENT, _CLASSES = "point", "segment", "classes"


def read_elan(
    path: str | os.PathLike, *, tiers: Sequence[str] = (), subset: str = "train"
) -> Labels:
    """Reads an `.eaf` file.

    Args:
      path: the file.
      tiers: names of the tiers to read; all that are aligned with time by default.
      subset: of the recording, where the file does not tell it.

    Raises:
      ValueError: if the file cannot be read, is not ELAN's, has a DOCTYPE, lacks one of the tiers,
        or a time in it is none.
    """
    root = _parse(path)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(f"{path}: <{root.tag}>, expected ELAN's <ANNOTATION_DOCUMENT>")
    names = [tier.get("TIER_ID", "") for tier in root.iter("TIER")]
    missing = [name for name in tiers if name not in names]
    if missing:
        raise ValueError(
            f"{path}: no tier {missing[0]!r}, expected one of {', '.join(map(repr, names))}"
        )
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    spans, unaligned, used = [], 0, []
    for tier in root.iter("TIER"):
        if tiers and tier.get("TIER_ID") not in tiers:
            continue
        found, without = _read_tier(tier, times, str(path))
        spans += found
        unaligned += without
        used += [tier.get("TIER_ID", "")] if found else []
    instances, joined = instances_of(spans, str(path))
    told = _properties(root)
    duration = told.get("duration_s")
    recording = RawRecording(
        subset=told.get("subset", subset),
        duration_s=None if duration is None else number(duration, f"{path}: duration"),
        instances=instances,
    )
    notes = []
    if unaligned:
        notes.append(f"annotations without a time of their own, left out: {unaligned}")
    if len(used) > 1 and not set(map(_stem, used)) <= {"actions", "points"}:
        notes.append(f"labels of several tiers together: {', '.join(used)}")
    name = told.get("recording") or _media_name(root) or Path(path).stem
    return collect(
        "ELAN", str(path), {name: recording}, classes=_classes(root), joined=joined, notes=notes
    )


def to_elan(
    path: str | os.PathLike,
    name: str,
    recording: RawRecording,
    *,
    classes: Sequence[str],
    media: Path | None = None,
) -> bytes:
    """The content of the `.eaf` of one recording.

    Args:
      path: of the file, to which the media is given relatively.
      name: of the recording.
      recording: what is known of it.
      classes: all classes, which become the controlled vocabulary.
      media: its video or sound, which ELAN opens.

    Raises:
      ValueError: if a label holds a character that XML cannot.
    """
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "tal_jax",
            "DATE": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    _add_header(root, name, recording, media, path)
    tiers = _tiers(spans_of(recording.instances, per_second=_MILLISECONDS))
    order = _add(root, "TIME_ORDER")
    slots = count = 0
    for tier_name, type_name, spans in tiers:
        tier = _add(root, "TIER", LINGUISTIC_TYPE_REF=type_name, TIER_ID=tier_name)
        for span in spans:
            ids = [f"ts{slots + 1}", f"ts{slots + 2}"]
            slots, count = slots + 2, count + 1
            for slot, time in zip(ids, (span.start, max(span.end, span.start + 1)), strict=True):
                _add(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(time))
            annotation = _add(
                _add(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{count}",
                TIME_SLOT_REF1=ids[0],
                TIME_SLOT_REF2=ids[1],
            )
            _add(annotation, "ANNOTATION_VALUE").text = span.label
    # Slots stand in the order of time.
    order[:] = sorted(order, key=lambda slot: int(slot.get("TIME_VALUE")))
    for type_name in (_SEGMENT, _POINT):
        _add(
            root,
            "LINGUISTIC_TYPE",
            CONTROLLED_VOCABULARY_REF=_CLASSES,
            GRAPHIC_REFERENCES="false",
            LINGUISTIC_TYPE_ID=type_name,
            TIME_ALIGNABLE="true",
        )
    _add_vocabulary(root, classes)
    ElementTree.indent(root, "    ")
    text = ElementTree.tostring(root, encoding="unicode")
    content = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()
    try:
        _parse_bytes(content)
    except expat.ExpatError as error:
        raise ValueError(f"{path}: {name}: a name or a label holds what XML cannot") from error
    return content + _mark(content)


def is_unchanged(content: bytes) -> bool:
    """Whether the content of an `.eaf` is as it was written here."""
    before, start, _ = content.rpartition(_MARK)
    return start != b"" and content == before + _mark(before)


def _mark(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return b"%b%b -->\n" % (_MARK, digest.encode())


def _tiers(spans: Iterable[Span]) -> list[tuple[str, str, list[Span]]]:
    """Spreads spans over tiers, `(name, type, spans)`, so that none overlap in one of them."""
    tiers = []
    for name, type_name in (("actions", _SEGMENT), ("points", _POINT)):
        rows: list[list[Span]] = [[]]
        of_type = [span for span in spans if (span.start < span.end) == (type_name == _SEGMENT)]
        for span in sorted(of_type, key=lambda span: (span.start, span.end)):
            free = (row for row in rows if not row or _end(row[-1]) <= span.start)
            row = next(free, None)
            if row is None:
                row = []
                rows.append(row)
            row.append(span)
        tiers += [
            (f"{name} {index}" if index > 1 else name, type_name, row)
            for index, row in enumerate(rows, start=1)
        ]
    return tiers


def _end(span: Span) -> int:
    return max(span.end, span.start + 1)


def _read_tier(
    tier: ElementTree.Element, times: dict[str | None, str | None], source: str
) -> tuple[list[tuple[str, float, float]], int]:
    """Returns `(label, start_s, end_s)` of the tier's annotations, and how many have no time."""
    name, spans, unaligned = tier.get("TIER_ID", ""), [], 0
    for annotation in tier.iter("ANNOTATION"):
        aligned = annotation.find("ALIGNABLE_ANNOTATION")
        refs = ("TIME_SLOT_REF1", "TIME_SLOT_REF2")
        slots = [None if aligned is None else times.get(aligned.get(ref)) for ref in refs]
        if None in slots:
            unaligned += 1
            continue
        start_s, end_s = (
            number(slot, f"{source}: tier {name!r}: time") / _MILLISECONDS for slot in slots
        )
        is_point = tier.get("LINGUISTIC_TYPE_REF") == _POINT
        label = (aligned.findtext("ANNOTATION_VALUE") or "").strip() or name
        spans.append((label, start_s, start_s if is_point else end_s))
    return spans, unaligned


def _add_header(
    root: ElementTree.Element,
    name: str,
    recording: RawRecording,
    media: Path | None,
    path: str | os.PathLike,
) -> None:
    header = _add(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if media is not None:
        relative = Path(os.path.relpath(media, Path(path).parent)).as_posix()
        _add(
            header,
            "MEDIA_DESCRIPTOR",
            MEDIA_URL=media.resolve().as_uri(),
            MIME_TYPE="video/mp4" if is_video(media) else "audio/x-wav",
            RELATIVE_MEDIA_URL=f"./{relative}",
        )
    told = {"recording": name, "subset": recording.subset, "duration_s": recording.duration_s}
    for key, value in told.items():
        if value is not None:
            _add(header, "PROPERTY", NAME=f"{_PROPERTY}{key}").text = str(value)


def _add_vocabulary(root: ElementTree.Element, classes: Sequence[str]) -> None:
    language = "und"
    _add(
        root,
        "LANGUAGE",
        LANG_DEF="http://cdb.iso.org/lg/CDB-00130975-001",
        LANG_ID=language,
        LANG_LABEL="undetermined (und)",
    )
    vocabulary = _add(root, "CONTROLLED_VOCABULARY", CV_ID=_CLASSES)
    _add(vocabulary, "DESCRIPTION", LANG_REF=language)
    for index, label in enumerate(classes):
        entry = _add(vocabulary, "CV_ENTRY_ML", CVE_ID=f"cveid{index}")
        _add(entry, "CVE_VALUE", DESCRIPTION="", LANG_REF=language).text = label


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _classes(root: ElementTree.Element) -> list[str]:
    """The classes of a file that was written here, in their order."""
    for vocabulary in root.iter("CONTROLLED_VOCABULARY"):
        if vocabulary.get("CV_ID") == _CLASSES:
            return [value.text for value in vocabulary.iter("CVE_VALUE") if value.text]
    return []


def _properties(root: ElementTree.Element) -> dict[str, str]:
    return {
        one.get("NAME", "").removeprefix(_PROPERTY): one.text or ""
        for one in root.iter("PROPERTY")
        if one.get("NAME", "").startswith(_PROPERTY)
    }


def _media_name(root: ElementTree.Element) -> str:
    for media in root.iter("MEDIA_DESCRIPTOR"):
        url = media.get("MEDIA_URL") or media.get("RELATIVE_MEDIA_URL") or ""
        return recording_name(unquote(urlsplit(url).path))
    return ""


def _stem(tier: str) -> str:
    return tier.rstrip("0123456789 ")


def _parse(path: str | os.PathLike) -> ElementTree.Element:
    try:
        return _parse_bytes(Path(path).read_bytes())
    except (OSError, expat.ExpatError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot read {path}: {reason}; expected ELAN's XML") from error
    except _Doctype:
        raise ValueError(
            f"{path}: has a DOCTYPE, which ELAN's files do not have and which can hide harm"
        ) from None


class _Doctype(Exception):
    """Met in XML; without one there are no entities to expand and no other file to read."""


def _parse_bytes(content: bytes) -> ElementTree.Element:
    def refuse(*_):
        raise _Doctype

    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(content, True)
    return builder.close()
