"""ELAN's `.eaf`, one XML file per recording: annotations in tiers, in milliseconds.

Annotations of a tier cannot overlap and must have a length. So segments are in the tier "actions"
and, where they overlap, in "actions 2" and so on; points are in tiers of the linguistic type
"point", as annotations of one millisecond. The label is the value of the annotation, or the name of
the tier where the value is empty. The classes are a controlled vocabulary, which ELAN offers for
input; the name, the duration and the subset of the recording are properties of the document.

The timeline may begin later than a media file that was synchronised with others: its `TIME_ORIGIN`
is added to the times, which then count from the start of the file that names the recording. Times
in frames (`TIME_UNITS`) become milliseconds.

A written file ends in a comment with the sha256 of the bytes before it. ELAN drops comments when it
saves, and an edit of the text changes the digest: a file without a matching comment was changed or
has another origin.
"""

import datetime
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, RecordingAnnotation
from tal_jax.data.files import reason_of, to_number
from tal_jax.extraction.video import has_video_suffix
from tal_jax.formats.labels import Span, collect, recording_name, spans_of

_PROPERTY = "tal_jax:"
_MILLISECONDS = 1000  # in a second
# Milliseconds of a unit of time slots.
_UNITS = {
    "milliseconds": 1.0,
    "PAL-frames": 40.0,
    "PAL-50-frames": 20.0,
    "NTSC-frames": 1001 / 30,
}
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_MARK = b"<!-- tal_jax: sha256 of the above: "
_POINT, _SEGMENT, _CLASSES = "point", "segment", "classes"


def read_elan(path: str | os.PathLike, *, tiers: Sequence[str], subset: str) -> Annotations:
    """Reads the named tiers of an `.eaf` file, or all; `subset` is for a file without one."""
    root = _parse(path)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise InputError(f"{path}: <{root.tag}>, expected ELAN's <ANNOTATION_DOCUMENT>")
    version = root.get("FORMAT") or root.get("VERSION") or "3.0"
    if version.partition(".")[0] not in ("2", "3"):
        raise InputError(
            f"{path}: version {version[:20]!r} of EAF, expected 2 or 3; ELAN can save as EAF 2.7 "
            "or 3.0"
        )
    names = [tier.get("TIER_ID", "") for tier in root.iter("TIER")]
    missing = [name for name in tiers if name not in names]
    if missing:
        raise InputError(
            f"{path}: no tier {missing[0]!r}, expected one of {', '.join(map(repr, names))}"
        )
    properties = _properties(root)
    media = _media(root, properties.get("recording"))
    name = properties.get("recording") or (media[0] if media else "")
    name = name or recording_name(Path(path).stem)
    notes = []
    times = _slots(root, media, str(path), notes)
    spans, unaligned, used = [], 0, []
    for tier in root.iter("TIER"):
        if tiers and tier.get("TIER_ID") not in tiers:
            continue
        found, without = _read_tier(tier, times, str(path))
        spans += found
        unaligned += without
        used += [tier.get("TIER_ID", "")] if found else []
    duration = properties.get("duration_s")
    recording = RecordingAnnotation(
        subset=properties.get("subset", subset),
        duration_s=None if duration is None else to_number(duration, f"{path}: duration"),
    )
    if len(used) > 1 and not set(map(_stem, used)) <= {"actions", "points"}:
        notes.append(f"labels of several tiers, merged: {', '.join(used)}")
    return collect(
        str(path),
        {name: recording},
        spans={name: spans},
        classes=_classes(root),
        left_out={"annotations without a time": unaligned},
        notes=notes,
    )


def to_elan(
    path: str | os.PathLike,
    name: str,
    recording: RecordingAnnotation,
    *,
    classes: Sequence[str],
    media: Path | None,
) -> bytes:
    """Returns the content of the `.eaf` of one recording.

    The classes become the controlled vocabulary. ELAN opens the media, the recording's video or
    sound, by its path relative to that of the file.
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
    order = SubElement(root, "TIME_ORDER")
    count = 0
    for tier_name, type_name, spans in tiers:
        tier = SubElement(root, "TIER", LINGUISTIC_TYPE_REF=type_name, TIER_ID=tier_name)
        for span in spans:
            count += 1
            ids = [f"ts{2 * count - 1}", f"ts{2 * count}"]
            for slot, time in zip(ids, (span.start, _end(span)), strict=True):
                SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(time))
            annotation = SubElement(
                SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{count}",
                TIME_SLOT_REF1=ids[0],
                TIME_SLOT_REF2=ids[1],
            )
            SubElement(annotation, "ANNOTATION_VALUE").text = span.label
    # ELAN expects slots in order of time.
    order[:] = sorted(order, key=lambda slot: int(slot.get("TIME_VALUE", 0)))
    for type_name in (_SEGMENT, _POINT):
        SubElement(
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
    except ElementTree.ParseError as error:
        raise InputError(
            f"{path}: {name}: a name or a label contains a character that XML does not allow"
        ) from error
    return content + _mark(content)


def is_unchanged(content: bytes) -> bool:
    """Whether the content of an `.eaf` was written by this module and not changed since."""
    before, start, _ = content.rpartition(_MARK)
    return start != b"" and content == before + _mark(before)


def _mark(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return b"%b%b -->\n" % (_MARK, digest.encode())


def _tiers(spans: Sequence[Span]) -> list[tuple[str, str, list[Span]]]:
    """Distributes spans over tiers, `(name, type, spans)`, without overlap in any of them."""
    tiers = []
    for name, type_name in (("actions", _SEGMENT), ("points", _POINT)):
        rows: list[list[Span]] = [[]]
        of_type = [span for span in spans if (span.start < span.end) == (type_name == _SEGMENT)]
        for span in of_type:
            free = [row for row in rows if not row or _end(row[-1]) <= span.start]
            if free:
                free[0].append(span)
            else:
                rows.append([span])
        tiers += [
            (f"{name} {index}" if index > 1 else name, type_name, row)
            for index, row in enumerate(rows, start=1)
        ]
    return tiers


def _end(span: Span) -> int:
    return max(span.end, span.start + 1)


def _read_tier(
    tier: ElementTree.Element, times: Mapping[str | None, float | str | None], source: str
) -> tuple[list[tuple[str, float, float]], int]:
    """Returns `(label, start_s, end_s)` of the tier's annotations, and the number without time."""
    name, spans, unaligned = tier.get("TIER_ID", ""), [], 0
    for annotation in tier.iter("ANNOTATION"):
        aligned = annotation.find("ALIGNABLE_ANNOTATION")
        refs = ("TIME_SLOT_REF1", "TIME_SLOT_REF2")
        slots = [None if aligned is None else times.get(aligned.get(ref)) for ref in refs]
        if aligned is None or None in slots:
            unaligned += 1
            continue
        start_s, end_s = (
            to_number(slot, f"{source}: tier {name!r}: time") / _MILLISECONDS for slot in slots
        )
        is_point = tier.get("LINGUISTIC_TYPE_REF") == _POINT
        label = (aligned.findtext("ANNOTATION_VALUE") or "").strip() or name
        spans.append((label, start_s, start_s if is_point else end_s))
    return spans, unaligned


def _add_header(
    root: ElementTree.Element,
    name: str,
    recording: RecordingAnnotation,
    media: Path | None,
    path: str | os.PathLike,
) -> None:
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if media is not None:
        relative = Path(os.path.relpath(media, Path(path).parent)).as_posix()
        SubElement(
            header,
            "MEDIA_DESCRIPTOR",
            MEDIA_URL=media.resolve().as_uri(),
            MIME_TYPE="video/mp4" if has_video_suffix(media) else "audio/x-wav",
            RELATIVE_MEDIA_URL=f"./{relative}",
        )
    properties = {"recording": name, "subset": recording.subset, "duration_s": recording.duration_s}
    for key, value in properties.items():
        if value is not None:
            SubElement(header, "PROPERTY", NAME=f"{_PROPERTY}{key}").text = str(value)


def _add_vocabulary(root: ElementTree.Element, classes: Sequence[str]) -> None:
    language = "und"
    SubElement(
        root,
        "LANGUAGE",
        LANG_DEF="http://cdb.iso.org/lg/CDB-00130975-001",
        LANG_ID=language,
        LANG_LABEL="undetermined (und)",
    )
    vocabulary = SubElement(root, "CONTROLLED_VOCABULARY", CV_ID=_CLASSES)
    SubElement(vocabulary, "DESCRIPTION", LANG_REF=language)
    for index, label in enumerate(classes):
        entry = SubElement(vocabulary, "CV_ENTRY_ML", CVE_ID=f"cveid{index}")
        SubElement(entry, "CVE_VALUE", DESCRIPTION="", LANG_REF=language).text = label


def _classes(root: ElementTree.Element) -> list[str]:
    """Returns the classes of a file that this module wrote, in their order."""
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


def _media(root: ElementTree.Element, recording: str | None) -> tuple[str, str] | None:
    """Returns the name and the origin of a recording's media file, that of the first if unknown."""
    found = []
    for media in root.iter("MEDIA_DESCRIPTOR"):
        url = media.get("MEDIA_URL") or media.get("RELATIVE_MEDIA_URL") or ""
        try:
            name = recording_name(unquote(urlsplit(url).path))
        except ValueError:  # such as a bracket that is not closed
            name = recording_name(url)
        found.append((name, media.get("TIME_ORIGIN") or "0"))
    return next((one for one in found if one[0] == recording), found[0] if found else None)


def _slots(
    root: ElementTree.Element, media: tuple[str, str] | None, source: str, notes: list[str]
) -> dict[str | None, float | str | None]:
    """Returns the milliseconds of each time slot in the media file; adds notes on changes."""
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    header = root.find("HEADER")
    unit = "milliseconds" if header is None else header.get("TIME_UNITS") or "milliseconds"
    if unit not in _UNITS:
        raise InputError(f"{source}: times in {unit[:40]!r}, expected one of {', '.join(_UNITS)}")
    origin = 0.0 if media is None else to_number(media[1], f"{source}: TIME_ORIGIN")
    if unit != "milliseconds":
        rate = _MILLISECONDS / _UNITS[unit]
        notes.append(f"times in {unit}, converted at {rate:.6g} frames a second")
    if media is not None and origin:
        notes.append(
            f"times count from the start of {media[0][:80]!r}, which begins "
            f"{origin / _MILLISECONDS:g} s before the timeline (TIME_ORIGIN)"
        )
    if unit == "milliseconds" and not origin:
        return dict(slots)
    return {
        key: None if value is None else to_number(value, f"{source}: time") * _UNITS[unit] + origin
        for key, value in slots.items()
    }


def _stem(tier: str) -> str:
    return tier.rstrip("0123456789 ")


def _parse(path: str | os.PathLike) -> ElementTree.Element:
    try:
        return _parse_bytes(Path(path).read_bytes())
    except _Doctype:
        raise InputError(
            f"{path}: has a DOCTYPE, which ELAN's files do not have and which can be harmful"
        ) from None
    except Exception as error:  # the parser raises others than its own, as for an unknown encoding
        raise InputError(f"cannot read {path}: {reason_of(error)}; expected ELAN's XML") from error


class _Doctype(Exception):
    """A DOCTYPE in XML; without one, there are no entities to expand and no other files to read."""


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, *_: str | None) -> None:
        raise _Doctype


def _parse_bytes(content: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(content, ElementTree.XMLParser(target=_Builder()))
