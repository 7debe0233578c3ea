"""Tables of events: each event, and a summary of each recording and class.

The summary has what reports of behaviour give of a class: how often it occurs, how long, when first
and at what distances.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tal_jax.data.detections import Entries

EVENT_COLUMNS = ("recording", "class", "start_s", "end_s", "duration_s", "score")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the events of one class in one recording add up to; None where it is undefined.

    Attributes:
      recording: its name.
      label: the class.
      count: number of events.
      total_s: sum of their durations; None where all are points.
      mean_s: mean duration.
      sd_s: standard deviation of the durations (n − 1), of two or more.
      share: share of the recording's time that any of them covers.
      rate_per_min: events a minute of the recording.
      latency_s: time of the first start.
      mean_interval_s: mean time from the end of an event to the start of the next, 0 where they
        overlap, of two or more.
      recording_s: duration of the recording.
    """

    recording: str
    label: str
    count: int
    total_s: float | None = None
    mean_s: float | None = None
    sd_s: float | None = None
    share: float | None = None
    rate_per_min: float | None = None
    latency_s: float | None = None
    mean_interval_s: float | None = None
    recording_s: float | None = None


def summarize(
    events: Mapping[str, Entries],
    classes: Sequence[str],
    durations_s: Mapping[str, float | None],
) -> list[Summary]:
    """Summarizes the events of every recording and class, also of classes without any.

    >>> jumps = [{"label": "jump", "score": 1.0, "segment": [s, s + 2.0]} for s in (5.0, 10.0)]
    >>> one = summarize({"clip": jumps}, ["jump"], {"clip": 40.0})[0]
    >>> one.count, one.total_s, one.share, one.rate_per_min, one.latency_s, one.mean_interval_s
    (2, 4.0, 0.1, 3.0, 5.0, 3.0)

    Args:
      events: `{label, score, segment}` by recording; a point starts and ends at its time.
      classes: in the order of the summary.
      durations_s: of the recordings; None where unknown.
    """
    return [
        _summarize(
            name,
            label,
            sorted(one["segment"] for one in entries if one["label"] == label),
            durations_s.get(name),
        )
        for name, entries in events.items()
        for label in classes
    ]


def event_rows(events: Mapping[str, Entries]) -> Iterable[Sequence[Any]]:
    """Rows of the table of events, with the names of the columns, in order of time."""
    yield EVENT_COLUMNS
    for name, entries in events.items():
        for one in sorted(entries, key=lambda one: one["segment"]):
            start_s, end_s = one["segment"]
            score = "" if one["score"] is None else f"{one['score']:.9g}"
            times = (f"{time_s:.6f}" for time_s in (start_s, end_s, end_s - start_s))
            yield (name, one["label"], *times, score)


def summary_rows(summaries: Iterable[Summary]) -> Iterable[Sequence[Any]]:
    """Rows of the summary, with the names of the columns; undefined values are empty."""
    names = [field.name for field in dataclasses.fields(Summary)]
    yield ["class" if name == "label" else name for name in names]
    for one in summaries:
        yield [_cell(value) for value in dataclasses.astuple(one)]


def format_summary(summaries: Iterable[Summary]) -> str:
    """The summary over all recordings, a line a class: events, total and mean duration."""
    groups: dict[str, list[Summary]] = {}
    for one in summaries:
        groups.setdefault(one.label, []).append(one)
    lines = []
    for label, group in groups.items():
        count, total_s = sum(one.count for one in group), sum(one.total_s or 0 for one in group)
        with_any = sum(one.count > 0 for one in group)
        mean = f", mean {total_s / count:.2f} s" if total_s else ""
        lines.append(
            f"{label}: {count} events in {with_any} of {len(group)} recordings, "
            f"{total_s:.2f} s in all{mean}"
        )
    return "\n".join(lines)


def _summarize(
    recording: str, label: str, segments: Sequence[Sequence[float]], recording_s: float | None
) -> Summary:
    # Points have no durations.
    durations = [end_s - start_s for start_s, end_s in segments if end_s > start_s]
    covered_s, intervals, reached_s = 0.0, [], -math.inf
    for start_s, end_s in segments:
        if reached_s > -math.inf:
            intervals.append(max(start_s - reached_s, 0.0))
        covered_s += max(end_s - max(start_s, reached_s), 0.0)
        reached_s = max(reached_s, end_s)
    known, timed = recording_s or None, bool(durations) or not segments
    return Summary(
        recording,
        label,
        len(segments),
        total_s=math.fsum(durations) if timed else None,
        mean_s=statistics.fmean(durations) if durations else None,
        sd_s=statistics.stdev(durations) if len(durations) > 1 else None,
        share=covered_s / known if known and timed else None,
        rate_per_min=60 * len(segments) / known if known else None,
        latency_s=segments[0][0] if segments else None,
        mean_interval_s=statistics.fmean(intervals) if intervals else None,
        recording_s=recording_s,
    )


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else value
