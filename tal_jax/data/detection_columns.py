"""Detections of many recordings as columns, in memory and in Arrow IPC files.

A detection takes 28 bytes in a file, some 600 as a dictionary. A file is read some recordings at a
time, and has a row for each recording::

    recording  string
    label      list of dictionary(int32, string)
    score      list of double
    start_s    list of double
    end_s      list of double
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.detections import Entries

_ROWS = 2**18  # detections of a record batch, unless one recording has more
_NUMBERS = ("score", "start_s", "end_s")
_EXPECTED = "expected detections that tal_jax wrote"


class Columns(NamedTuple):
    """Detections of R recordings, those of the first one first."""

    recordings: Sequence[str]  # R names
    sizes: np.ndarray  # [R] numbers of detections
    classes: Sequence[str]
    labels: np.ndarray  # [N] indices into `classes`
    scores: np.ndarray  # [N] float64
    segments: np.ndarray  # [N, 2] float64, start and end in seconds


def write_detections(
    path: str | os.PathLike,
    detections: Iterable[tuple[str, Entries]] | Iterable[Columns],
    classes: Sequence[str],
) -> None:
    """Writes detections as an Arrow file, atomically, a part of them in memory at a time.

    Args:
      path: of the file.
      detections: of each recording, or of some recordings at once, in the order of evaluation.
      classes: names of all their labels.

    Raises:
      InputError: if a label is none of the classes, or pyarrow is not installed.
      OSError: if the file cannot be written.
    """
    arrow = files.import_pyarrow(path)
    names = arrow.array(list(classes), arrow.string())
    kinds = {"label": arrow.dictionary(arrow.int32(), arrow.string())}
    kinds |= dict.fromkeys(_NUMBERS, arrow.float64())
    schema = arrow.schema(
        [("recording", arrow.string()), *((key, arrow.list_(kind)) for key, kind in kinds.items())]
    )

    def fill(file: IO[bytes]) -> None:
        with arrow.ipc.new_file(file, schema) as writer:
            for one in _batches(detections, classes):
                offsets = arrow.array(np.cumsum([0, *one.sizes]).astype(np.int32))
                label = arrow.DictionaryArray.from_arrays(one.labels.astype(np.int32), names)
                numbers = map(arrow.array, (one.scores, *np.ascontiguousarray(one.segments.T)))
                lists = [arrow.ListArray.from_arrays(offsets, part) for part in (label, *numbers)]
                recordings = arrow.array(list(one.recordings), arrow.string())
                writer.write_batch(arrow.record_batch([recordings, *lists], schema=schema))

    files.write_filled(path, fill)


def read_detections(path: str | os.PathLike) -> Iterator[Columns]:
    """Yields the detections of a file that `write_detections` wrote, some recordings at a time.

    Raises:
      InputError: if the file cannot be read, or a detection's numbers are no score and segment.
    """
    arrow = files.import_pyarrow(path)
    try:
        with arrow.OSFile(os.fspath(path)) as file:
            reader = arrow.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                columns = _parse(reader.get_batch(number))
                check_columns(columns, str(path))
                yield columns
    except (OSError, KeyError, TypeError, AttributeError, arrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {files.reason_of(error)}; {_EXPECTED}") from error


def columns_of(results: Mapping[str, Entries], classes: Sequence[str]) -> Columns:
    """Detections `{recording: [{label, score, segment}]}` as columns; raises as `write_detections`.

    >>> one = {"label": "jump", "score": 0.5, "segment": [1.0, 2.0]}
    >>> found = columns_of({"a": [one]}, ["jump"])
    >>> found.sizes, found.labels, found.segments
    (array([1]), array([0]), array([[1., 2.]]))
    """
    index = {label: number for number, label in enumerate(classes)}
    rows = [one for found in results.values() for one in found]
    try:
        labels = np.array([index[one["label"]] for one in rows], np.intp)
    except KeyError as error:
        raise InputError(f"label {error}, expected one of {', '.join(classes)}") from None
    return Columns(
        list(results),
        np.array([len(found) for found in results.values()], np.intp),
        classes,
        labels,
        np.array([one["score"] for one in rows], np.float64),
        np.array([one["segment"] for one in rows], np.float64).reshape(-1, 2),
    )


def check_columns(columns: Columns, source: str) -> None:
    """Raises an InputError for the first detection with times or a score that cannot be."""
    start_s, end_s = columns.segments.T
    right = np.isfinite(start_s) & np.isfinite(end_s) & (start_s <= end_s)
    wrong = np.flatnonzero(~(right & np.isfinite(columns.scores)))
    if not len(wrong):
        return
    ends = np.cumsum(columns.sizes)
    row = int(np.searchsorted(ends, wrong[0], side="right"))
    position = int(wrong[0] - ends[row] + columns.sizes[row])
    segment, score = columns.segments[wrong[0]].tolist(), float(columns.scores[wrong[0]])
    raise InputError(
        f"{source}: video {columns.recordings[row]!r}, detection {position}: segment is {segment} "
        f"and score {score!r}, expected finite numbers, start <= end"
    )


def _batches(detections: Iterable[Any], classes: Sequence[str]) -> Iterator[Columns]:
    held: dict[str, Entries] = {}
    size = 0
    for one in detections:
        if isinstance(one, Columns):
            yield one
            continue
        held[one[0]] = one[1]
        size += len(one[1])
        if size >= _ROWS:
            yield columns_of(held, classes)
            held, size = {}, 0
    if held:
        yield columns_of(held, classes)


def _parse(batch: Any) -> Columns:
    lists = {key: batch.column(key) for key in ("label", *_NUMBERS)}
    sizes = np.diff(lists["label"].offsets.to_numpy()).astype(np.intp)
    flat = {key: one.flatten() for key, one in lists.items()}
    score, start_s, end_s = (flat[key].to_numpy() for key in _NUMBERS)
    labels = flat["label"].indices.to_numpy()
    if not len(labels) == len(score) == len(start_s) == len(end_s) == sizes.sum():
        raise TypeError("columns of different lengths")
    return Columns(
        batch.column("recording").to_pylist(),
        sizes,
        flat["label"].dictionary.to_pylist(),
        labels,
        score,
        np.stack([start_s, end_s], axis=1),
    )
