"""Reads videos by the presentation times of their frames.

The time of a frame is its presentation time in the file, not its number divided by a rate: videos
of phones and screen recorders have variable rates. Time 0 is that of the first frame or the first
sound, whichever is earlier, as in players; what a file holds before its own time 0, which players
skip, comes before it. The frame at a time is the one on screen, that is the last one shown at or
before it::

    shown at   0.00      0.04      0.08                          0.30
               |--- 0 ---|--- 1 ---|------------- 2 -------------|--- 3 ---
    asked for  ^    ^                  ^           ^          ^
    is frame   0    0                  2           2          2
"""

import contextlib
import dataclasses
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.files import reason_of

if TYPE_CHECKING:
    import av.container
    import av.stream

SUFFIXES = tuple(".mp4 .m4v .mov .mkv .webm .avi .mts .m2ts .ts .mpg .mpeg .wmv .flv .3gp".split())

# A file's clock rounds the times of frames by up to half a tick; Matroska's tick is 1 ms. Frames
# that are late by no more count as in time; otherwise a constant rate would repeat some of them.
_MAX_ROUNDING_S = Fraction(1, 2000)
# Pictures and sound of one recording rarely start within less than this of each other.
_NOTED_S = 0.01
# Headers round the duration, and include that of the last frame.
_TOLERATED_S = 0.25


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """Properties of a video."""

    duration_s: float  # from time 0 to the end of the last frame
    frame_rate: float  # frames per second, on average
    num_frames: int
    first_s: float = 0.0  # time of the first frame: above 0 if the sound starts earlier
    origin_s: float = 0.0  # timestamp in the file that is time 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on a clock that differs from that of most files."""
        notes = []
        if self.first_s >= _NOTED_S:
            notes.append(f"first frame {self.first_s:.3f} s after the start of the sound")
        if self.first_s <= -_NOTED_S:
            notes.append(f"first frame {-self.first_s:.3f} s before time 0 of the file")
        if self.origin_s >= _NOTED_S:
            notes.append(f"time 0 is {self.origin_s:.3f} s in the file's timestamps")
        return tuple(notes)


def has_video_suffix(path: str | os.PathLike) -> bool:
    """Whether a file's name ends like that of a video."""
    return Path(path).suffix.lower() in SUFFIXES


def probe(path: str | os.PathLike) -> VideoInfo:
    """Measures a video by the times of all frames, decoding only the first one.

    Raises:
      InputError: if PyAV is not installed, or the file is missing, not a video, has only sound or
        no frames, is truncated, or has no times.
    """
    with open_video(path) as (container, stream):
        try:
            frame = next(container.decode(stream), None)
        except import_av().FFmpegError as error:
            raise InputError(f"{path}: its first frame is broken ({reason_of(error)})") from error
        if frame is None:
            raise InputError(f"{path}: a video without frames")
    return _scan(path)


def sound_rate(path: str | os.PathLike) -> int | None:
    """Returns the sampling rate of the sound of a video or sound file; None if there is none.

    Raises:
      InputError: if PyAV is not installed, or the file cannot be read.
    """
    av = import_av()
    try:
        with av.open(os.path.abspath(path)) as container:
            return container.streams.audio[0].rate if container.streams.audio else None
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error


def header_duration_s(path: str | os.PathLike) -> float:
    """The duration in a video's header, without reading further; 0 if it holds none.

    Raises:
      InputError: if the file cannot be opened as a video.
    """
    with open_video(path) as (container, stream):
        if container.duration:
            return container.duration / 1e6
        return float((stream.duration or 0) * tick_of(stream))


def read_frames(
    path: str | os.PathLike,
    times_s: Iterable[float],
    *,
    size: tuple[int, int] | None = None,
) -> Iterator[np.ndarray]:
    """Reads the frames on screen at given times, with one decoded frame in memory at a time.

    Args:
      path: a video.
      times_s: seconds, not decreasing; may be infinite. Times before the first frame give the
        first, times after the last one the last.
      size: height and width to scale the displayed frame to, without keeping its aspect ratio; None
        for the original size.

    Yields:
      uint8 `[H, W, 3]`, red, green and blue, rotated for display; the same array while the same
      frame is on screen.

    Raises:
      InputError: as `probe` does, and at the time at which the video is broken or truncated, or its
        times decrease.
    """
    with open_video(path) as (container, stream):
        shown = _shown_frames(path, container, stream)
        frame, _ = next(shown)
        following = next(shown, None)
        pixels = None
        for time_s in times_s:
            while following is not None and following[1] <= time_s:
                (frame, _), pixels = following, None
                following = next(shown, None)
            if pixels is None:
                pixels = _pixels(frame, size)
            yield pixels


def _shown_frames(
    path: str | os.PathLike, container: "av.container.InputContainer", stream: "av.VideoStream"
) -> Iterator[tuple["av.VideoFrame", float]]:
    """Yields decoded frames and the times from which on they are shown; at least one."""
    extent, decoded = _Extent(), container.decode(stream)
    rounding, origin = min(tick_of(stream) / 2, _MAX_ROUNDING_S), None
    while True:
        reached_s = float((extent.last - extent.first) * tick_of(stream))
        place = f" {reached_s:.3f} s after its first frame" if extent.count else ""
        try:
            frame = next(decoded, None)
        except import_av().FFmpegError as error:
            raise InputError(
                f"{path}: broken{place or ' from the start'} ({reason_of(error)})"
            ) from error
        if frame is None:
            break
        if frame.pts is None:
            raise InputError(f"{path}: a frame without presentation time{place}")
        if extent.count and frame.pts < extent.last:
            raise InputError(f"{path}: presentation times decrease{place}")
        extent.add(frame.pts, frame.duration or 0)
        if origin is None:
            origin = _origin(container, frame.pts * tick_of(stream))
        yield frame, float(frame.pts * tick_of(stream) - origin - rounding)
    if not extent.count:
        raise InputError(f"{path}: a video without frames")
    _check_end(path, container, {stream: extent})


def _pixels(frame: "av.VideoFrame", size: tuple[int, int] | None) -> np.ndarray:
    turns = round(frame.rotation / 90) % 4  # counterclockwise, for display
    scaled = {}
    if size is not None:
        height, width = size[::-1] if turns % 2 else size
        scaled = {"height": height, "width": width, "interpolation": "AREA"}
    pixels = frame.to_ndarray(format="rgb24", **scaled)
    return np.ascontiguousarray(np.rot90(pixels, turns))


# --- packets, without decoding ---


@dataclasses.dataclass
class _Extent:
    """The time covered by packets or frames of one stream, in ticks of its clock."""

    count: int = 0
    first: int = 0
    last: int = 0  # start of the last one
    end: int = 0

    def add(self, start: int, duration: int) -> None:
        if not self.count:
            self.first, self.last, self.end = start, start, start
        self.count += 1
        self.first = min(self.first, start)
        self.last = max(self.last, start)
        self.end = max(self.end, start + duration)


def _origin(container: "av.container.InputContainer", first: Fraction) -> Fraction:
    """Returns the timestamp of time 0, from that of the first frame."""
    sounds = [
        one.start_time * tick_of(one)
        for one in container.streams.audio
        if one.start_time is not None
    ]
    # Encoders of sound need some samples before the first one, with timestamps below 0.
    return max(Fraction(0), min([first, *sounds]))


def _scan(path: str | os.PathLike) -> VideoInfo:
    """Counts the frames and measures their times."""
    with open_video(path) as (container, video):
        extents: dict[Any, _Extent] = {
            stream: _Extent() for stream in (video, *container.streams.audio)
        }
        extent, tick, cut, untimed = extents[video], tick_of(video), False, False
        try:
            for packet in container.demux(*extents):
                # Without reordering, some files have only decoding times.
                start = packet.dts if packet.pts is None else packet.pts
                if packet.size:
                    cut = packet.is_corrupt  # of the last one: the file ends within it
                    untimed |= start is None
                    if start is not None and not packet.is_discard:
                        extents[packet.stream].add(start, packet.duration or 0)
        except import_av().FFmpegError as error:
            reached_s = float((extent.end - extent.first) * tick)
            raise InputError(
                f"{path}: broken after {reached_s:.3f} s ({reason_of(error)})"
            ) from error
        if not extent.count:
            what = "presentation times, such as a raw stream" if untimed else "frames"
            raise InputError(f"{path}: a video without {what}; expected such as .mp4 or .mkv")
        _check_end(path, container, extents, cut=cut)
        origin = _origin(container, extent.first * tick)
    step = Fraction(extent.last - extent.first, max(extent.count - 1, 1))
    # Without a duration of its own, the last frame gets the mean of the others.
    ticks = extent.end - extent.first + (step if extent.end == extent.last else 0)
    if ticks <= 0 or (extent.count > 1 and step == 0):
        raise InputError(
            f"{path}: its {extent.count} frames are shown at one instant, expected a rate above 0"
        )
    first, end = extent.first * tick, (extent.first + ticks) * tick
    if end <= origin:
        raise InputError(f"{path}: all frames come before time 0 of the file, expected some after")
    rate = float(extent.count / (end - first))
    return VideoInfo(float(end - origin), rate, extent.count, float(first - origin), float(origin))


def _check_end(
    path: str | os.PathLike,
    container: "av.container.InputContainer",
    extents: Mapping[Any, _Extent],
    *,
    cut: bool = False,
) -> None:
    """Raises a ValueError for a file that ends within a frame, or well before its header's end."""
    ends_s, promises_s = [], []
    for stream, extent in extents.items():
        if extent.count:
            ends_s.append(float(extent.end * tick_of(stream)))
            if stream.duration:
                promised = (stream.start_time or 0) + stream.duration
                promises_s.append(float(promised * tick_of(stream)))
    # Matroska has a duration only of the whole file, where subtitles may outlast the frames.
    if not promises_s and container.duration and len(extents) == len(container.streams):
        promises_s.append(container.duration / 1e6)
    if cut or max(promises_s, default=0.0) > max(ends_s) + _TOLERATED_S:
        promised = f", of {max(promises_s):.3f} s in its header" if promises_s else ""
        raise InputError(f"{path}: cut short, it ends after {max(ends_s):.3f} s{promised}")


# --- PyAV ---


def tick_of(stream: Any) -> Fraction:
    """Returns the unit of a stream's clock in seconds, which an open stream has."""
    return stream.time_base


@contextlib.contextmanager
def open_video(
    path: str | os.PathLike,
) -> Iterator[tuple["av.container.InputContainer", "av.VideoStream"]]:
    """Opens a video and its first stream of pictures; raises an InputError if there is none."""
    av = import_av()
    try:
        # An absolute path is never an address, with any colons in it.
        container = av.open(os.path.abspath(path))
    except (av.FFmpegError, OSError) as error:
        expected = "expected a whole video file"
        raise InputError(f"cannot read {path}: {reason_of(error)}; {expected}") from error
    with container:
        # For FFmpeg, the cover picture in a music file is a video stream.
        cover = av.stream.Disposition.attached_pic
        videos = [s for s in container.streams.video if not s.disposition & cover]
        if not videos:
            found = "only sound" if container.streams.audio else "neither pictures nor sound"
            raise InputError(f"{path}: no video in it, {found}")
        videos[0].thread_type = "AUTO"
        yield container, videos[0]


def import_av() -> types.ModuleType:
    """Imports PyAV, when a video is read."""
    try:
        import av
    except ImportError as error:
        raise InputError('reading videos needs PyAV; run pip install "tal_jax[video]"') from error
    return av
