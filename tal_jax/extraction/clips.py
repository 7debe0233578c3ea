"""Cuts clips out of videos without encoding them again (stream copy).

A decoder can begin at keyframes only. So a clip begins at the last keyframe at or before the time
that was asked for, and its first picture may be some seconds early; where it begins and ends is
returned. Sound is kept; subtitles and other streams are left out.
"""

import array
import bisect
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.extraction import video

# The container of each suffix of a video, as FFmpeg names it.
_CONTAINERS = {
    **dict.fromkeys((".mp4", ".m4v"), "mp4"),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), "mpegts"),
    **dict.fromkeys((".mpg", ".mpeg"), "vob"),
    **{".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"},
    **{".wmv": "asf", ".flv": "flv", ".3gp": "3gp"},
}
# Sound may be stored that much earlier or later than the pictures that it belongs to.
_INTERLEAVED_S = 2


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip to cut: its file, and the time that it has to contain, in seconds of the video."""

    target: Path
    start_s: float
    end_s: float


def cut_clips(source: str | os.PathLike, clips: Sequence[Clip]) -> list[tuple[float, float]]:
    """Cuts clips out of a video, each into a file of the video's container.

    Args:
      source: the video; never written to.
      clips: targets have the suffix of the source; missing folders are created, existing files
        replaced. Times are cut to those of the video.

    Returns:
      Start and end of each clip in seconds of the video: the time that its pictures cover.

    Raises:
      InputError: if the video cannot be read, a clip begins after its end or is the video itself,
        or its streams cannot be copied without encoding; clips before that one are written.
      OSError: if a file cannot be written.
    """
    source = Path(source)
    if source.suffix.lower() not in _CONTAINERS:
        known = ", ".join(_CONTAINERS)
        raise InputError(f"{source}: no suffix of a video, expected one of {known}")
    info = video.probe(source)
    origin = Fraction(info.origin_s).limit_denominator(10**9)
    for clip in clips:
        if clip.start_s >= info.duration_s:
            raise InputError(
                f"{source}: a clip from {clip.start_s:g} s, expected a start within the video's "
                f"{info.duration_s:g} s"
            )
        if clip.target.exists() and clip.target.samefile(source):
            raise InputError(f"{clip.target}: the video itself, which would be replaced")
    pictures = _pictures(source)
    found = []
    for clip in clips:
        start, end = (Fraction(time_s) + origin for time_s in (clip.start_s, clip.end_s))
        first = pictures.keyframe(start)
        following = pictures.after(_write(source, clip.target, first, end))
        end_s = info.duration_s if following is None else float(following - origin)
        found.append((float(first - origin), end_s))
    return found


def _write(source: Path, target: Path, first: Fraction, end: Fraction) -> Fraction:
    last: list[Fraction] = []
    files.write_filled(target, lambda file: last.append(_copy(source, file, first, end)))
    return last[0]


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """Times of all pictures of a video and of its keyframes, in ticks, sorted."""

    tick: Fraction
    shown: array.array
    keyframes: array.array

    def keyframe(self, time: Fraction) -> Fraction:
        """Returns the time of the last keyframe at or before a time, else of the first."""
        index = bisect.bisect_right(self.keyframes, time / self.tick) - 1
        return self.keyframes[max(index, 0)] * self.tick

    def after(self, time: Fraction) -> Fraction | None:
        """Returns the time of the next picture after a time."""
        index = bisect.bisect_right(self.shown, time / self.tick)
        return self.shown[index] * self.tick if index < len(self.shown) else None


def _pictures(source: Path) -> _Pictures:
    shown, keyframes = array.array("q"), array.array("q")
    with video.open_video(source) as (container, stream):
        tick = video.tick_of(stream)
        for packet in _demux(source, container, [stream]):
            ticks = packet.dts if packet.pts is None else packet.pts
            if ticks is not None:
                shown.append(ticks)
                if packet.is_keyframe:
                    keyframes.append(ticks)
    if not keyframes:
        raise InputError(f"{source}: no keyframe, expected one where a clip can begin")
    return _Pictures(tick, array.array("q", sorted(shown)), array.array("q", sorted(keyframes)))


class _Sink:
    """A file that keeps its error: PyAV prints the errors of a file that it writes to."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        self._try(lambda: self._file.write(content))
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._try(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def _try(self, call: Callable[[], int]) -> int:
        try:
            return 0 if self.error else call()
        except OSError as error:
            self.error = error
            return 0


def _copy(source: Path, file: IO[bytes], first: Fraction, end: Fraction) -> Fraction:
    """Copies packets from a keyframe to an end; returns the time of the last picture."""
    av, last, sink = video.import_av(), first, _Sink(file)
    with video.open_video(source) as (container, pictures):
        try:
            with av.open(sink, "w", format=_CONTAINERS[source.suffix.lower()]) as output:
                copies = {
                    one.index: output.add_stream_from_template(one)
                    for one in (pictures, *container.streams.audio)
                }
                for packet, shown in _packets(source, first, end):
                    if sink.error is not None:
                        break
                    if packet.stream.index == pictures.index:
                        last = max(last, shown)
                    shift = round(first / packet.time_base)
                    packet.pts = round(shown / packet.time_base) - shift
                    if packet.dts is not None:
                        packet.dts -= shift
                    packet.stream = copies[packet.stream.index]
                    output.mux(packet)
        except InputError:
            raise
        except (av.FFmpegError, ValueError) as error:  # what PyAV raises for a codec
            raise InputError(
                f"{source}: cannot be cut without encoding it again ({files.reason_of(error)}); "
                "expected streams that its container can hold, such as H.264 and AAC in .mp4"
            ) from error
    if sink.error is not None:
        raise sink.error
    return last


def _packets(source: Path, first: Fraction, end: Fraction) -> Iterator[tuple[Any, Fraction]]:
    """Packets of pictures from a keyframe to an end, and of sound in that time; with times."""
    for seek in (True, False):
        with video.open_video(source) as (container, pictures):
            if seek and not _seek(container, pictures, first - _INTERLEAVED_S):
                continue
            begun = False
            for found in _between(source, container, pictures, first, end):
                begun = True
                yield found
        if begun:
            return
    raise InputError(f"{source}: its keyframe at {float(first):.3f} s was not found again")


def _seek(container: Any, pictures: Any, time: Fraction) -> bool:
    """Moves a container to a keyframe before a time; returns whether it can."""
    start = pictures.start_time or 0
    at = int(time / video.tick_of(pictures))
    if at <= start:
        return True  # it begins there
    try:
        container.seek(at, stream=pictures)
    except video.import_av().FFmpegError:
        return False
    return True


def _between(
    source: Path, container: Any, pictures: Any, first: Fraction, end: Fraction
) -> Iterator[tuple[Any, Fraction]]:
    """As `_packets`, from where the container is; nothing if that is after the keyframe."""
    streams = [pictures, *container.streams.audio]
    waiting: list[tuple[Any, Fraction]] = []  # sound that is stored before its pictures
    begun, done, last = False, set(), first
    for packet in _demux(source, container, streams):
        shown, is_picture = _time(packet), packet.stream is pictures
        if shown is None:
            continue
        # Pictures may be stored, that is decoded, before others that are shown earlier. Some files
        # have no time of decoding for their first pictures.
        decoded = first if packet.dts is None else packet.dts * packet.time_base
        is_late = min(decoded, shown) >= end and not (
            begun and is_picture and first <= shown < last
        )
        if is_late:
            done.add(packet.stream.index)
            if len(done) == len(streams) or decoded >= end + _INTERLEAVED_S:
                return
        elif is_picture and not begun:
            if packet.is_keyframe and shown > first:
                return
            if packet.is_keyframe and shown == first:
                begun = True
                yield from [(packet, shown), *waiting]
        elif shown < first:
            continue  # earlier sound, or a picture that depends on others before the keyframe
        elif begun:
            last = max(last, shown) if is_picture else last
            yield packet, shown
        else:
            waiting.append((packet, shown))


def _demux(source: Path, container: Any, streams: Sequence[Any]) -> Iterator[Any]:
    try:
        for packet in container.demux(*streams):
            if packet.size and not packet.is_discard:
                yield packet
    except video.import_av().FFmpegError as error:
        raise InputError(f"{source}: broken ({files.reason_of(error)})") from error


def _time(packet: Any) -> Fraction | None:
    """When a packet is shown; where the file has no such times, when it is decoded."""
    ticks = packet.dts if packet.pts is None else packet.pts
    return None if ticks is None else ticks * packet.time_base
