"""Detections and proposals of recordings as ActivityNet has them, without JAX."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files

# {recording: [{label, score, segment in seconds}]}, best first.
Entries = list[dict[str, Any]]
Results = dict[str, Entries]


def to_entries(
    labels: np.ndarray,
    scores: np.ndarray,
    segments: np.ndarray,
    recording: Any,
    classes: Sequence[str],
) -> Entries:
    """Segments of one recording as ActivityNet has them, without those that are empty.

    Args:
      labels: `[N]` indices into `classes`.
      scores: `[N]`.
      segments: `[N, 2]` in snippets; clipped to the recording.
      recording: with `grid` and `duration_s`.
      classes: names of the classes.
    """
    times_s = recording.grid.to_seconds(segments.astype(np.float64))
    times_s = np.clip(times_s, 0, recording.duration_s)
    return [
        {"label": classes[int(label)], "score": float(score), "segment": segment_s.tolist()}
        for label, score, segment_s in zip(labels, scores, times_s, strict=True)
        if segment_s[1] > segment_s[0]
    ]


def activitynet_json(results: Results) -> dict[str, Any]:
    """Detections in the layout of ActivityNet's JSON."""
    return {"version": "tal_jax", "results": results, "external_data": {"used": False}}


class _Detection(msgspec.Struct):
    label: str
    segment: tuple[files.Number, files.Number]
    score: files.Number


def parse_results(results: Any, source: str) -> Results:
    """Checks detections or proposals, `{recording: [{label, score, segment}]}`.

    Raises:
      InputError: naming the source, the field and what was expected.
    """
    found = files.convert_each(results, list[_Detection], source, strict=False)
    return {
        name: [
            {"label": one.label, "score": one.score, "segment": list(one.segment)}
            for one in detections
        ]
        for name, detections in found.items()
    }


def read_results(path: str | os.PathLike) -> Results:
    """Reads detections or proposals from an ActivityNet file.

    Raises:
      InputError: if the file cannot be read or is none, naming what is wrong.
    """
    values = files.read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("results"), dict):
        raise InputError(f"{path}: no ActivityNet detections, expected an object with 'results'")
    return parse_results(values["results"], str(path))
