"""Cuts long training recordings into windows with their own video-level labels.

Where every recording contains nearly every class, video-level labels of whole recordings are no
supervision.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import RecordingAnnotation
from tal_jax.data.recordings import Recording

# A person who labels a window notices an action of about this length.
MIN_VISIBLE_S = 1.0


def cut_recording(
    recording: Recording,
    annotation: RecordingAnnotation,
    classes: Sequence[str],
    *,
    cut_s: Sequence[float],
    seed: int,
) -> list[Recording]:
    """Cuts a training recording into consecutive windows, named after their first second.

    A window is labelled with a class if it contains at least `MIN_VISIBLE_S` of one of its
    instances, or all of a shorter one.

    Args:
      recording: with its points, if any.
      annotation: its instances with segments, used only for the labels of the windows.
      classes: names of the classes.
      cut_s: shortest and longest window in seconds; lengths are uniform between. A shorter
        remainder is joined to the previous window.
      seed: of the cuts, which also depend on the recording's name.
    """
    low_s, high_s = cut_s
    if not 0 < low_s <= high_s:
        raise InputError(f"cut_s={cut_s}; expected (shortest, longest) in seconds, above 0")
    rng = np.random.default_rng([seed, *recording.name.encode()])
    stride_s, length = recording.grid.stride_s, len(recording.features)
    edges = [0]
    while edges[-1] < length:
        size = max(round(rng.uniform(low_s, high_s) / stride_s), 1)
        edges.append(min(edges[-1] + size, length))
    if len(edges) > 2 and (edges[-1] - edges[-2]) * stride_s < low_s:
        del edges[-2]
    pairs = zip(edges[:-1], edges[1:], strict=True)
    return [_window(recording, annotation, classes, first, last) for first, last in pairs]


def _window(
    recording: Recording,
    annotation: RecordingAnnotation,
    classes: Sequence[str],
    first: int,
    last: int,
) -> Recording:
    start_s = float(recording.grid.to_seconds(float(first)))
    at_end = last == len(recording.features)
    end_s = recording.duration_s if at_end else float(recording.grid.to_seconds(float(last)))
    labels = set()
    for instance in annotation.instances:
        if instance.segment is None:
            continue
        low_s, high_s = instance.segment
        visible_s = min(high_s, end_s) - max(low_s, start_s)
        if visible_s > 0 and visible_s >= min(MIN_VISIBLE_S, high_s - low_s):
            labels.add(classes.index(instance.label))
    points = tuple(
        dataclasses.replace(point, time_s=point.time_s - start_s)
        for point in recording.points
        if start_s <= point.time_s < end_s
    )
    return Recording(
        name=f"{recording.name}@{start_s:g}s",
        features=recording.features[first:last],
        grid=recording.grid,
        duration_s=end_s - start_s,
        points=points,
        labels=tuple(sorted(labels | {point.label for point in points})),
    )
