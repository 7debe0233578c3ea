"""What features cost: measured on the first windows of a recording, for all that are left."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.addresses import Source, is_local, status
from tal_jax.extraction import video
from tal_jax.extraction.backbones import VIDEO

# Windows per timed call: networks take as many at once.
BATCH = 4
_ENOUGH_S = 1.0  # of timed calls


def time_snippet(parts: Iterator[np.ndarray]) -> float:
    """Seconds that one snippet takes, from the first parts of a recording's features.

    The first part loads or compiles a network; it counts only where it is the only one.
    """
    start_s = time.perf_counter()
    first = len(next(parts))
    loaded_s, count = time.perf_counter(), 0
    while time.perf_counter() < loaded_s + _ENOUGH_S and (part := next(parts, None)) is not None:
        count += len(part)
    end_s = time.perf_counter()
    return (end_s - loaded_s) / count if count else (loaded_s - start_s) / first


def durations_s(paths: Sequence[Source], kind: str, measured: tuple[Source, float]) -> list[float]:
    """About how long recordings are, without reading them.

    Of videos, by their headers; of tables, and of files of other machines, by their sizes and the
    length of the measured one. 0 for files that cannot be opened.
    """
    path, duration_s = measured
    per_byte = duration_s / max(_size(path), 1)
    return [
        _header_s(path) if kind == VIDEO and is_local(path) else per_byte * _size(path)
        for path in paths
    ]


def _header_s(path: Path) -> float:
    try:
        return video.header_duration_s(path)
    except InputError:  # reported when it is extracted
        return 0.0


def _size(path: Source) -> int:
    try:
        return status(path)[0]
    except (OSError, InputError):
        return 0


def describe(
    jobs: Mapping[str, Source],
    kind: str,
    measured: tuple[Source, float],
    per_minute_s: float,
    processes: int,
) -> str:
    """A line with the length of the recordings, the cost of a minute, and that of all.

    Args:
      jobs: recordings by name.
      kind: "video" or "table".
      measured: the recording that was measured, and its length in seconds.
      per_minute_s: seconds that one process takes for a minute of recording.
      processes: that extract at the same time.
    """
    minutes = sum(durations_s(list(jobs.values()), kind, measured)) / 60
    minutes = max(minutes, measured[1] / 60)  # where a header holds no duration
    total_s = minutes * per_minute_s / processes
    count = "1 recording" if len(jobs) == 1 else f"{len(jobs)} recordings"
    at_once = "" if processes == 1 else f" with {processes} processes"
    return (
        f"{count} of {_time(60 * minutes)}: about {per_minute_s:.2g} s per minute of recording, "
        f"{_time(total_s)} in all{at_once}"
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.3g} hours"
