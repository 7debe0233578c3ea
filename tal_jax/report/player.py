"""Writes the page of a prediction: the video, or the signals, above its detections."""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np

from tal_jax.data.files import write_bytes
from tal_jax.extraction.tables import Table
from tal_jax.report.pages import Curves, fill_template, pack_curves
from tal_jax.report.palette import class_colours

# These keep the page under 3 MB. The page lists whatever they leave out.
_MOST_DETECTIONS = 10_000
_MOST_CHANNELS = 32
_MOST_SIGNAL_BYTES = 1_000_000
_MOST_CURVE_BYTES = 500_000


def write_player(
    path: str | os.PathLike,
    *,
    name: str,
    classes: Sequence[str],
    detections: Sequence[Mapping[str, Any]],
    duration_s: float,
    threshold: float,
    media: str | os.PathLike | None = None,
    media_origin_s: float = 0.0,
    signals: Table | None = None,
    curves: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> None:
    """Writes a page that plays a recording above the timeline of its detections.

    The page contains all data except the video, to which it links.

    Args:
      path: the `.html`; a missing folder is created.
      name: of the recording.
      classes: names of all classes, in the order of the curves.
      detections: ActivityNet entries, `{"label", "score", "segment"}` with seconds from the start
        of the recording, by falling score.
      duration_s: of the recording.
      threshold: the least score that is shown at first.
      media: the video; the link is relative, so both files can be moved together.
      media_origin_s: timestamp of the video that is time 0, see `extraction.VideoInfo`.
      signals: the samples of a sensor recording, drawn if there is no video.
      curves: `times_s` `[T]`, the equally spaced centres of the snippets, class activation sequence
        `[T, classes]` and actionness `[T]`, both from 0 to 1.

    Raises:
      ValueError: if the class of a detection is unknown, or the shapes of the curves disagree.
      OSError: if the page cannot be written.
    """
    left_out: list[str] = []
    shown = _detections(detections, classes, left_out)
    data = {
        "name": name,
        "classes": list(classes),
        "colours": class_colours(len(classes)),
        "duration": float(duration_s),
        "threshold": float(threshold),
        "detections": shown,
        "media": None if media is None else _url(Path(media), Path(path).parent),
        "mediaOrigin": float(media_origin_s),
        "mediaName": None if media is None else Path(media).name,
        "signals": None if signals is None else _signals(signals, left_out),
        "curves": None
        if curves is None
        else _curves(*curves, set(map(int, shown[::4])), classes, left_out),
        "leftOut": left_out,
    }
    write_bytes(path, fill_template("player.html", data).encode())


def _url(media: Path, folder: Path) -> str:
    """The URL from the page's folder to the video, with any character in its name escaped."""
    try:
        relative = Path(os.path.relpath(media, folder))
    except ValueError:  # another drive of Windows
        return media.absolute().as_uri()
    return quote_from_bytes(os.fsencode(relative.as_posix()))


def _detections(
    detections: Sequence[Mapping[str, Any]], classes: Sequence[str], left_out: list[str]
) -> list[float]:
    """Class, start and end in seconds, and score of each detection, as one list."""
    labels = {label: index for index, label in enumerate(classes)}
    if len(detections) > _MOST_DETECTIONS:
        left_out.append(
            f"{len(detections) - _MOST_DETECTIONS:,} of {len(detections):,} detections, "
            "those with the lowest scores"
        )
    numbers: list[float] = []
    for one in detections[:_MOST_DETECTIONS]:
        if one["label"] not in labels:
            raise ValueError(f"a detection has the unknown class {one['label']!r}")
        start_s, end_s = one["segment"]
        # The score is not rounded, so that the page counts the detections of the subtitles.
        numbers += [labels[one["label"]], round(start_s, 3), round(end_s, 3), float(one["score"])]
    return numbers


def _signals(signals: Table, left_out: list[str]) -> dict[str, Any]:
    """Minimum and maximum of the samples of each time step, as one byte each within `ranges`."""
    count, channels = signals.values.shape
    if channels > _MOST_CHANNELS:
        left_out.append(f"{channels - _MOST_CHANNELS:,} of {channels:,} channels, the last ones")
    values = signals.values[:, :_MOST_CHANNELS].astype(np.float64)
    steps = min(count, _MOST_SIGNAL_BYTES // (2 * values.shape[1]))
    step_s = float(signals.times_s[-1]) / steps
    if steps < count:
        left_out.append(f"samples, except the minimum and maximum of each {step_s:.3g} s")
    # A step without a sample (clock jitter) shows the next sample.
    starts = np.searchsorted(signals.times_s, np.arange(steps) * step_s).clip(max=count - 1)
    low, high = values.min(axis=0), values.max(axis=0)
    ends = np.stack([of.reduceat(values, starts) for of in (np.minimum, np.maximum)])
    parts = (ends - low) / np.where(high > low, high - low, 1)  # [2, steps, channels]
    parts[:, :, high == low] = 0.5
    rounded = np.round(parts * 255).astype(np.uint8).transpose(2, 0, 1)
    return {
        "names": list(signals.names[:_MOST_CHANNELS]),
        "ranges": np.stack([low, high], axis=1).tolist(),
        "step": step_s,
        "data": base64.b64encode(rounded.tobytes()).decode(),
    }


def _curves(
    times_s: np.ndarray,
    scores: np.ndarray,
    foreground: np.ndarray,
    detected: set[int],
    classes: Sequence[str],
    left_out: list[str],
) -> dict[str, Any] | None:
    if scores.shape != (len(times_s), len(classes)) or foreground.shape != times_s.shape:
        raise ValueError(
            f"curves of shapes {times_s.shape}, {scores.shape} and {foreground.shape}, expected "
            f"[T], [T, {len(classes)}] and [T]"
        )
    if not len(times_s):
        return None
    stride_s = float(times_s[-1] - times_s[0]) / max(1, len(times_s) - 1)
    curves = Curves(scores, foreground, float(times_s[0]), stride_s, detected)
    return pack_curves({"": curves}, _MOST_CURVE_BYTES, "classes without a detection", left_out)[""]
