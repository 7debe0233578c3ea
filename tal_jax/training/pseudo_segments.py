"""Pseudo segments of training points, fused from the proposals of all rounds.

They are written as an annotation file, which a person can look at, correct and train on::

    {"label": "jump", "segment": [3.1, 4.0], "point": 3.4, "source": "fused"}

with the source "annotated" for a segment that was known, "fused" for a mean of proposals, and
"median" for a point without proposals, around which the class's median length was taken.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tal_jax._errors import InputError
from tal_jax.config import Config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.annotations import labels_of_time
from tal_jax.data.detections import Results, join_rows
from tal_jax.data.recordings import Dataset, Recording
from tal_jax.data.timeline import Timeline
from tal_jax.training.prepare import common_sizes

# Where the segment of a point comes from.
ANNOTATED, FUSED, MEDIAN = "annotated", "fused", "median"
SOURCES = (ANNOTATED, FUSED, MEDIAN)

# How far a segment reaches beyond its point at the very end of a recording.
_LEAST_SNIPPETS = 0.1

# Of a recording, one entry for each of its points, in their order.
PseudoSegments = dict[str, list[dict[str, Any]]]


def fuse_rounds(dataset: Dataset, config: Config, rounds: Sequence[Results]) -> PseudoSegments:
    """One pseudo segment for each point of the training recordings.

    Args:
      dataset: training recordings with points.
      config: of the run.
      rounds: proposals of each round, in seconds.
    """
    sizes = common_sizes([dataset], config)
    plain = packing.pack_timeline(dataset.train, overlapping=dataset.overlapping, **sizes)
    merged = {one.name: join_rows([found[one.name] for found in rounds]) for one in dataset.train}
    proposals = packing.pack_proposals(
        merged, dataset.train, plain.video_classes, plain.video_class_where, dataset.classes
    )
    fused = jax.device_get(jax.jit(timelines.fuse_instances)(plain, proposals))
    stride_s = np.array([one.grid.stride_s for one in dataset.train])
    ends = np.array([one.grid.to_snippets(one.duration_s) for one in dataset.train])
    segments, where = _completed(fused, stride_s, ends)
    return {
        recording.name: [
            {
                "label": dataset.classes[point.label],
                "segment": _to_seconds(segments[row, index], recording),
                "point": point.time_s,
                "source": ANNOTATED
                if fused.known[row, index]
                else (FUSED if where[row, index] else MEDIAN),
            }
            for index, point in enumerate(recording.points)
        ]
        for row, recording in enumerate(dataset.train)
    }


def _to_seconds(segment: np.ndarray, recording: Recording) -> list[float]:
    """Within the recording: its last snippet may reach beyond the end."""
    segment_s = recording.grid.to_seconds(segment)
    return np.clip(segment_s, 0.0, recording.duration_s).tolist()


def _completed(
    timeline: Timeline, stride_s: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`[R, P, 2]` segments of all points in snippets, and `[R, P]` True for those that had one.

    The others get the median length of their class, or of all classes, around their point, and end
    before the next point, of background, too. Features may end before the recording, and a point
    lie between the two. `stride_s` `[R]` are the strides in seconds, `ends` `[R]` those of the
    recordings in snippets.
    """
    segments = np.array(timeline.instances, np.float64)
    exists = np.array(timeline.instance_where)
    labels = np.take_along_axis(timeline.video_classes, timeline.point_class_index, axis=1)
    lengths_s = (segments[..., 1] - segments[..., 0]) * stride_s[:, None]
    for row, index in zip(*np.nonzero(timeline.point_where & ~exists), strict=True):
        alike = exists & (labels == labels[row, index])
        alike = alike if alike.any() else exists
        half = np.median(lengths_s[alike]) / stride_s[row] / 2 if alike.any() else 0.5
        time = timeline.point_times[row, index]
        others = np.concatenate(
            [
                timeline.point_times[row][timeline.point_where[row]],
                timeline.background_times[row][timeline.background_where[row]],
            ]
        )
        before = others[others < time].max(initial=0.0)
        last = max(float(ends[row]), float(time) + _LEAST_SNIPPETS)
        after = others[others > time].min(initial=last)
        segments[row, index] = max(time - half, before), min(time + half, after)
    return segments, exists


def to_json(pseudo: PseudoSegments, dataset: Dataset) -> dict[str, Any]:
    """The annotation file of pseudo segments."""
    database = {
        one.name: {
            "subset": "train",
            "duration": one.duration_s,
            **labels_of_time(one.background_s, one.done_s),
            "annotations": pseudo[one.name],
        }
        for one in dataset.train
    }
    return {"version": "tal_jax", "classes": list(dataset.classes), "database": database}


def check(document: Mapping[str, Any], recordings: Sequence[Recording], path: Path) -> None:
    """Checks a document from `to_json`, which a person may have edited.

    Args:
      document: read from `path`.
      recordings: training recordings with points.
      path: for messages.

    Raises:
      InputError: if it does not hold one segment around each point, in their order.
    """
    for recording in recordings:
        name = recording.name
        entries = document.get("database", {}).get(name, {}).get("annotations", [])
        if len(entries) != len(recording.points):
            raise InputError(
                f"{path}: {len(entries)} annotations of {name!r}; expected one for each of its "
                f"{len(recording.points)} points, in their order"
            )
        room = recording.grid.stride_s  # the times of proposals are rounded to float32
        for entry, point in zip(entries, recording.points, strict=True):
            start_s, end_s = entry.get("segment") or (0.0, 0.0)
            around = start_s < end_s and start_s - room < point.time_s < end_s + room
            if entry.get("point") != point.time_s or not around:
                raise InputError(
                    f"{path}: segment {entry.get('segment')} of the point at {entry.get('point')} "
                    f"s of {name!r}; expected one around the point at {point.time_s!r} s"
                )


def with_segments(
    timeline: Timeline, document: Mapping[str, Any], recordings: Sequence[Recording]
) -> Timeline:
    """A timeline on the host with the segments that `to_json` wrote for its recordings' points."""
    segments, where = np.array(timeline.instances), np.array(timeline.instance_where)
    for row, recording in enumerate(recordings):
        entries = document["database"][recording.name]["annotations"]
        times_s = np.array([entry["segment"] for entry in entries], np.float64).reshape(-1, 2)
        segments[row, : len(entries)] = recording.grid.to_snippets(times_s)
        where[row, : len(entries)] = True
    return dataclasses.replace(timeline, instances=segments, instance_where=where)
