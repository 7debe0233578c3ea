"""Pseudo segments of training points, fused from the proposals of all rounds.

They are written as an annotation file, which a person can look at, correct and train on::

    {"label": "jump", "segment": [3.1, 4.0], "point": 3.4, "source": "fused"}

with the source "annotated" for a segment that was known, "fused" for a mean of proposals, and
"median" for a point without proposals, around which the class's median length was taken.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax.config import Config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.predictions import Results
from tal_jax.data.recordings import Dataset, Recording
from tal_jax.data.timeline import Timeline
from tal_jax.training.prepare import common_sizes

# Where the segment of a point comes from.
ANNOTATED, FUSED, MEDIAN = "annotated", "fused", "median"
SOURCES = (ANNOTATED, FUSED, MEDIAN)

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
    merged = {
        one.name: [entry for found in rounds for entry in found[one.name]] for one in dataset.train
    }
    proposals = packing.pack_proposals(
        merged, dataset.train, plain.video_classes, plain.video_class_where, dataset.classes
    )
    timeline = jax.tree.map(jnp.asarray, plain)
    fused = jax.device_get(jax.jit(timelines.fuse_instances)(timeline, proposals))
    segments, where = _completed(fused)
    return {
        recording.name: [
            {
                "label": dataset.classes[point.label],
                "segment": recording.grid.to_seconds(segments[row, index]).tolist(),
                "point": point.time_s,
                "source": ANNOTATED
                if fused.known[row, index]
                else (FUSED if where[row, index] else MEDIAN),
            }
            for index, point in enumerate(recording.points)
        ]
        for row, recording in enumerate(dataset.train)
    }


def _completed(timeline: Timeline) -> tuple[np.ndarray, np.ndarray]:
    """`[R, P, 2]` segments of all points, and `[R, P]` True for those that had one.

    The others get the median length of their class, or of all classes, around their point, and end
    before the next point.
    """
    segments = np.array(timeline.instances, np.float64)
    exists = np.array(timeline.instance_where)
    labels = np.take_along_axis(timeline.video_classes, timeline.point_class_index, axis=1)
    lengths = segments[..., 1] - segments[..., 0]
    for row, index in zip(*np.nonzero(timeline.point_where & ~exists), strict=True):
        alike = exists & (labels == labels[row, index])
        alike = alike if alike.any() else exists
        half = np.median(lengths[alike]) / 2 if alike.any() else 0.5
        time = timeline.point_times[row, index]
        others = timeline.point_times[row][timeline.point_where[row]]
        before = others[others < time].max(initial=0.0)
        after = others[others > time].min(initial=timeline.where[row].sum())
        segments[row, index] = max(time - half, before), min(time + half, after)
    return segments, exists


def to_json(pseudo: PseudoSegments, dataset: Dataset) -> dict[str, Any]:
    """The annotation file of pseudo segments."""
    database = {
        one.name: {
            "subset": "train",
            "duration": one.duration_s,
            "annotations": pseudo[one.name],
        }
        for one in dataset.train
    }
    return {"version": "tal_jax", "classes": list(dataset.classes), "database": database}


def with_segments(
    timeline: Timeline,
    document: Mapping[str, Any],
    recordings: Sequence[Recording],
) -> Timeline:
    """A timeline on the host with the segments that `to_json` wrote for its recordings' points."""
    segments, where = np.array(timeline.instances), np.array(timeline.instance_where)
    for row, recording in enumerate(recordings):
        entries = document["database"][recording.name]["annotations"]
        times_s = np.array([entry["segment"] for entry in entries], np.float64).reshape(-1, 2)
        segments[row, : len(entries)] = recording.grid.to_snippets(times_s)
        where[row, : len(entries)] = True
    return dataclasses.replace(timeline, instances=segments, instance_where=where)
