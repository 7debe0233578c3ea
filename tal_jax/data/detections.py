"""Detections and proposals of recordings as ActivityNet has them, without JAX."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec
import numpy as np

from tal_jax.data import files

# Detections as ActivityNet has them: {recording: [{label, score, segment in seconds}]}, best first.
Entries = Sequence[dict[str, Any]]
Results = dict[str, Entries]


class DetectionRows(Sequence[dict[str, Any]]):
    """Detections of one recording, kept as arrays in place of a list of dictionaries.

    A dictionary takes some 600 bytes, a row 28: what is kept of many recordings at once is rows.

    >>> rows = DetectionRows(["jump"], np.array([0]), np.array([0.5]), np.array([[1.0, 2.0]]))
    >>> rows[0]
    {'label': 'jump', 'score': 0.5, 'segment': [1.0, 2.0]}
    """

    def __init__(
        self, classes: Sequence[str], labels: Any, scores: np.ndarray, segments: np.ndarray
    ) -> None:
        self.classes = classes
        self.labels = np.asarray(labels, np.int32)  # [N] indices into `classes`
        self.scores = np.asarray(scores, np.float64)  # [N]
        self.segments = np.asarray(segments, np.float64).reshape(-1, 2)  # [N, 2] in seconds

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.labels[index], self.scores[index], self.segments[index]
        return (
            DetectionRows(self.classes, *chosen)
            if isinstance(index, slice)
            else _entry(self.classes[int(chosen[0])], *chosen[1:])
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = [self.classes[int(label)] for label in self.labels]
        return map(_entry, names, self.scores, self.segments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))


def _entry(label: str, score: np.ndarray, segment: np.ndarray) -> dict[str, Any]:
    return {"label": label, "score": float(score), "segment": segment.tolist()}


def rows_of(entries: Entries) -> DetectionRows:
    """Entries as rows; those that are rows already are not copied."""
    if isinstance(entries, DetectionRows):
        return entries
    index: dict[str, int] = {}
    labels = [index.setdefault(one["label"], len(index)) for one in entries]
    scores = np.array([one["score"] for one in entries], np.float64)
    segments = np.array([one["segment"] for one in entries], np.float64)
    return DetectionRows(list(index), np.array(labels, np.int32), scores, segments)


def with_names(entries: Entries, names: Mapping[str, str]) -> Entries:
    """Entries with other names of classes, as far as `names` has one.

    >>> with_names([{"label": "jump", "score": 0.5, "segment": [1.0, 2.0]}], {"jump": "leap"})
    [{'label': 'leap', 'score': 0.5, 'segment': [1.0, 2.0]}]
    """
    if not names:
        return entries
    rows = rows_of(entries)
    classes = [names.get(label, label) for label in rows.classes]
    return DetectionRows(classes, rows.labels, rows.scores, rows.segments)


def join_rows(parts: Sequence[Entries]) -> DetectionRows:
    """The detections of several lists of one recording, one list after the other."""
    parts_of = [rows_of(part) for part in parts]
    index: dict[str, int] = {}
    labels = [
        np.array([index.setdefault(label, len(index)) for label in one.classes], np.int32)[
            one.labels
        ]
        for one in parts_of
        if len(one)
    ]
    scores, segments = ([getattr(p, k) for p in parts_of] for k in ("scores", "segments"))
    joined = np.concatenate([np.zeros(0, np.int32), *labels])
    return DetectionRows(
        list(index),
        joined,
        np.concatenate([np.zeros(0), *scores]),
        np.concatenate([np.zeros((0, 2)), *segments]),
    )


def to_rows(
    labels: np.ndarray,
    scores: np.ndarray,
    segments: np.ndarray,
    recording: Any,
    classes: Sequence[str],
) -> DetectionRows:
    """Segments of one recording in seconds, without those that are empty.

    Args:
      labels: `[N]` indices into `classes`.
      scores: `[N]`.
      segments: `[N, 2]` in snippets; clipped to the recording.
      recording: with `grid` and `duration_s`.
      classes: names of the classes.
    """
    times_s = recording.grid.to_seconds(segments.astype(np.float64))
    times_s = np.clip(times_s, 0, recording.duration_s)
    kept = times_s[:, 1] > times_s[:, 0]
    return DetectionRows(classes, labels[kept], scores[kept], times_s[kept])


def activitynet_json(results: Results) -> dict[str, Any]:
    """Detections in the layout of ActivityNet's JSON, rows as lists."""
    plain = {name: list(entries) for name, entries in results.items()}
    return {"version": "tal_jax", "results": plain, "external_data": {"used": False}}


def write_results(path: str | os.PathLike, results: Results) -> None:
    """Writes `activitynet_json`, a line for each detection; raises as `files.write_json`."""
    encode = json.JSONEncoder(allow_nan=False).encode

    def fill(file: IO[bytes]) -> None:
        file.write(b'{\n "version": "tal_jax",\n "results": {')
        for number, (name, entries) in enumerate(results.items()):
            lines = ",\n   ".join(map(encode, entries))
            found = f"\n   {lines}\n  " if lines else ""
            file.write(f"{',' if number else ''}\n  {encode(name)}: [{found}]".encode())
        file.write(b'\n },\n "external_data": {"used": false}\n}\n')

    files.write_filled(path, fill)


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
    """Reads detections or proposals from an ActivityNet file, as `DetectionRows`.

    Raises:
      InputError: if the file cannot be read or is none, naming what is wrong.
    """
    found: Results = {}
    index: dict[str, int] = {}  # one for all, and a list of names that grows with it
    classes: list[str] = []
    for name, value in files.read_members(path, "results", "ActivityNet detections"):
        entries = files.convert(value, list[_Detection], f"{path}: {name}", strict=False)
        for one in entries:
            if one.label not in index:
                index[one.label] = len(index)
                classes.append(one.label)
        found[name] = DetectionRows(
            classes,
            np.array([index[one.label] for one in entries], np.int32),
            np.array([one.score for one in entries], np.float64),
            np.array([one.segment for one in entries], np.float64),
        )
    return found
