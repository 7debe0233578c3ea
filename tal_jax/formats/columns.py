"""Names of the columns of label tables, and the units in these names.

Case, spaces, brackets and underscores do not matter: "Start (s)", "start_s" and "StartS" are one
name. A column of time is a word of `_TIMES`, with any of `_BEFORE` before it and any of `_AFTER`
and a unit behind it, or with a unit before it ("frame_start").
"""

import dataclasses
import functools
import re
import unicodedata

# Units in a second. Milliseconds are divided by 1000: multiplying by 0.001 would round.
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
FRAMES = "frames"
_UNITS = {
    "s": ("s", "sec", "secs", "second", "seconds", "ss", "ssmsec"),
    "ms": ("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"),
    "us": ("us", "μs", "usec", "microsecond", "microseconds"),
    "ns": ("ns", "nsec", "nanosecond", "nanoseconds"),
    "min": ("min", "mins", "minute", "minutes"),
    FRAMES: (
        *("frame", "frames", "frameno", "framenr", "framenum", "framenumber"),
        *("frameidx", "frameindex", "frameid"),
    ),
}
# Recognised alone; others, such as "s" or "min", are names of other things as well.
_ALONE = (
    *("sec", "second", "seconds", "msec", "millis", "milliseconds", "ms"),
    *("frame", "frameno", "framenr", "framenum", "framenumber", "frameidx", "frameindex"),
)
_CLOCK = ("hhmmss", "hhmmssms", "hhmmssfff", "hms")  # "Start (hh:mm:ss)"

_EVENTS = ("event", "action", "activity", "segment", "annotation", "label", "instance")
_EVENTS += ("behavior", "behaviour")
_BEFORE = ("", "t", "time", "timestamp", *_EVENTS)
_AFTER = ("", "time", "timestamp", "at", "position")
_TIMES = {
    "start": ("start", "starts", "begin", "begins", "beginning", "onset", "from"),
    "end": ("end", "ends", "ending", "stop", "stops", "offset", "finish", "to"),
}
# These words mean an end only beside the word for the start.
PARTNERS = {"offset": "onset", "to": "from"}

_POINTS = (
    ("point", "points", "pointlabel", "pointtime", "timepoint", "click", "clicktime", "instant"),
    ("time", "times", "timestamp", "t", *(f"{event}time" for event in _EVENTS)),
)
_DURATIONS = ("duration", "dur")
_RECORDINGS = ("video", "recording", "media", "file", "clip", "total", "full")

# Names without a unit, in ranks: a later rank counts only where no earlier one is present.
_NAMES = {
    "recording": (
        (
            *("recording", "recordingname", "recordingid", "recordingfile"),
            *("video", "videoid", "videoname", "videofile", "videofilename", "videopath", "vid"),
            *("file", "filename", "filepath", "media", "mediafile", "mediafilename"),
            *("mediafilepath", "mediapath", "medianame", "videofilepath", "recordingfilename"),
            *("fileid", "mediaid", "videourl", "url"),
        ),
        ("name", "clip", "clipname", "clipid", "path", "session", "sessionid"),
    ),
    "label": (
        ("label", "labels", "labelname", "labeltext"),
        (
            *("class", "classname", "classlabel", "action", "actionname", "actionlabel"),
            *("actionclass", "activity", "activityname", "activitylabel"),
            *("behavior", "behaviour", "behaviorname", "behaviourname", "behaviors", "behaviours"),
        ),
        (
            *("event", "eventname", "eventtype", "eventlabel", "annotation", "annotations"),
            *("annotationvalue", "annotationlabel", "annotationtext", "category", "categoryname"),
            *("code", "tag", "gesture"),
        ),
    ),
    "subset": (("subset", "split", "partition"),),
    "score": (("score",),),
    "fps": (
        (
            *("fps", "framerate", "framespersecond", "fpsframes", "fpsframespersecond"),
            *("videofps", "videoframerate", "mediafps", "recordingfps", "filefps"),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Column:
    """What the name of a column means."""

    role: str  # a key of `_NAMES`, start, end, point, duration, event_duration, recording_duration
    unit: str | None = None  # None where the name has none: seconds
    rank: int = 0
    word: str = ""  # the word for a start or an end


def parse_name(name: str) -> Column | None:
    """Returns the meaning of a column's name, None if it is not known.

    >>> parse_name("Onset [ms]")
    Column(role='start', unit='ms', rank=0, word='onset')
    >>> parse_name("videoName").role, parse_name("frame_end").unit, parse_name("comment")
    ('recording', 'frames', None)
    """
    plain = unicodedata.normalize("NFKC", name).lower()
    return _known().get("".join(re.findall(r"[^\W_]+", plain)))


def seconds(number: float, unit: str | None, frame_rate: float | None = None) -> float:
    """Converts a number of a unit to seconds; frames need a rate."""
    if unit == FRAMES:
        assert frame_rate is not None
        return number / frame_rate
    return number * 60 if unit == "min" else number / _PER_SECOND[unit or "s"]


@functools.cache
def _known() -> dict[str, Column]:
    known: dict[str, Column] = {}

    def add(text: str, column: Column) -> None:
        known.setdefault(text, column)

    units = [(unit, text) for unit, texts in _UNITS.items() for text in texts]
    for role, ranks in _NAMES.items():
        for rank, names in enumerate(ranks):
            for name in names:
                add(name, Column(role, rank=rank))
    for role, words in _TIMES.items():
        for word in words:
            for before in _BEFORE:
                for after in _AFTER:
                    text = before + word + after
                    add(text, Column(role, word=word))
                    for clock in _CLOCK:
                        add(text + clock, Column(role, word=word))
                    for unit, spelled in units:
                        add(text + spelled, Column(role, unit, word=word))
            for unit, spelled in units:
                add(spelled + word, Column(role, unit, word=word))
    for rank, names in enumerate(_POINTS):
        for name in names:
            add(name, Column("point", rank=rank))
            for clock in _CLOCK:
                add(name + clock, Column("point", rank=rank))
            for unit, spelled in units:
                add(name + spelled, Column("point", unit, rank))
    for unit, spelled in units:
        if spelled in _ALONE:
            add(spelled, Column("point", unit, 1))
    for word in (*_DURATIONS, "length"):  # a bare "length" may be any text
        for prefixes, role in (
            (("",), "duration"),
            (_EVENTS, "event_duration"),
            (_RECORDINGS, "recording_duration"),
        ):
            for before in prefixes:
                if before + word != "length":
                    add(before + word, Column(role))
                for unit, spelled in units:
                    add(before + word + spelled, Column(role, unit))
    return known
