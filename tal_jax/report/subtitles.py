"""Writes detections as subtitles (SubRip), for video players, and as a table."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tal_jax.data import files

Detections = Sequence[Mapping[str, Any]]

# Players interpret these as markup: <i>, {\an8}, and the arrow between the times of a cue.
_LOOKALIKES = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


def write_srt(path: str | os.PathLike, detections: Detections, *, threshold: float) -> None:
    """Writes detections as subtitles (SubRip).

    A cue lists the classes of all detections at a time, by falling score, each class once. Line
    breaks and characters of markup (`<`, `>`, `{`, `}`) are replaced in the labels.

    Args:
      path: the `.srt`; a missing folder is created.
      detections: ActivityNet entries of one recording, `{"label", "score", "segment"}` with
        seconds from its start.
      threshold: least score of a detection.

    Raises:
      OSError: if the file cannot be written.
    """
    shown = [one for one in detections if one["score"] >= threshold]
    cues = [
        f"{number}\n{_clock(start_ms)} --> {_clock(end_ms)}\n{text}\n"
        for number, (start_ms, end_ms, text) in enumerate(_cues(shown), start=1)
    ]
    files.write_bytes(path, "\n".join(cues).encode())


def write_csv(path: str | os.PathLike, detections: Detections) -> None:
    """Writes all detections of one recording as `label,start_s,end_s,score`, in the given order.

    Args:
      path: the `.csv`; a missing folder is created.
      detections: ActivityNet entries as in `write_srt`. Times are rounded to microseconds, scores
        to float32.

    Raises:
      OSError: if the file cannot be written.
    """
    files.write_csv(path, [["label", "start_s", "end_s", "score"], *map(_row, detections)])


def table_of(results: Mapping[str, Detections]) -> bytes:
    """Detections of many recordings as `recording,label,start_s,end_s,score`, else `write_csv`."""
    rows = ([name, *_row(one)] for name, detections in results.items() for one in detections)
    return files.csv_bytes([["recording", "label", "start_s", "end_s", "score"], *rows])


def _row(detection: Mapping[str, Any]) -> list[str]:
    start_s, end_s = detection["segment"]
    return [detection["label"], f"{start_s:.6f}", f"{end_s:.6f}", f"{detection['score']:.9g}"]


def _cues(detections: Iterable[Mapping[str, Any]]) -> list[tuple[int, int, str]]:
    """The intervals, in ms, within which the set of detections is constant, with their texts."""
    best_first = sorted(detections, key=lambda one: -one["score"])
    changes: dict[int, list[int]] = {}
    for index, one in enumerate(best_first):
        start_ms, end_ms = (max(0, round(1000 * time_s)) for time_s in one["segment"])
        if start_ms < end_ms:
            changes.setdefault(start_ms, []).append(index)
            changes.setdefault(end_ms, []).append(index)
    cues: list[tuple[int, int, str]] = []
    active: set[int] = set()
    times_ms = sorted(changes)
    for time_ms, next_ms in zip(times_ms, times_ms[1:], strict=False):
        active ^= set(changes[time_ms])  # each starts once, then ends once
        if not active:
            continue
        text = _text([best_first[index] for index in sorted(active)])
        if cues and cues[-1][1:] == (time_ms, text):
            cues[-1] = (cues[-1][0], next_ms, text)
        else:
            cues.append((time_ms, next_ms, text))
    return cues


def _text(best_first: Detections) -> str:
    lines: dict[str, str] = {}
    for one in best_first:
        # With a score, a label of digits, or an empty one, is not taken for a cue number.
        lines.setdefault(one["label"], f"{_name(one['label'])} ({one['score']:.2f})".strip())
    return "\n".join(lines.values())


def _name(label: str) -> str:
    """The label on one line, without characters that end a cue or are markup.

    >>> _name("jump\\n\\n00:01 --> 00:02 <i>high</i>")
    'jump 00:01 → 00:02 ‹i›high‹/i›'
    """
    label = label.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8
    line = " ".join(label.replace("-->", "→").translate(_LOOKALIKES).split())
    return "".join(character for character in line if character.isprintable())


def _clock(time_ms: int) -> str:
    """Milliseconds as hours, minutes and seconds.

    >>> _clock(360_061_002)
    '100:01:01,002'
    """
    seconds, millis = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{millis:03}"
