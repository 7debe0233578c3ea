"""Converts public layouts to this project's, and detections to ActivityNet's submission format."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
)
from tal_jax.data.point_sets import join_clicks
from tal_jax.data.recordings import Recording, read_features
from tal_jax.datasets import benchmarks
from tal_jax.datasets.layouts import Layout
from tal_jax.datasets.load import clock_of
from tal_jax.datasets.own_layout import ANNOTATION_FILE, GRID_FILE, feature_path


def to_own_layout(
    layout: Layout,
    settings: Any,
    output: str | Path,
    *,
    report: Callable[[str], None] = print,
) -> list[str]:
    """Writes a data set in the layout of `tal_jax.datasets.own_layout`.

    Training recordings keep their segments and get the point labels of the data set. The subsets
    are "train" and "test".

    Args:
      layout: of the folder to read.
      settings: the section `data` of a config.
      output: the folder to write, empty or new.
      report: prints a line.

    Returns:
      Notes on what was left out or corrected.

    Raises:
      InputError: if the folder is not empty, or the data set is refused by `load_benchmark`.
      OSError: if a file cannot be written.
    """
    output = Path(output)
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output}: not empty, expected a new folder to write into")
    grid = layout.grid or clock_of(settings)
    train, test, notes = benchmarks.open_recordings(
        layout,
        grid=grid,
        train_subset=settings.train_subset,
        test_subset=settings.test_subset,
        split=settings.split,
    )
    clicks, more = _clicks(layout, settings.point_file)
    recordings, beyond = {}, 0
    for subset, part in (("train", train), ("test", test)):
        for name, recording in part.items():
            known = layout.annotations.recordings[name].instances
            if name in clicks and subset == "train":
                known = join_clicks(clicks[name], known)
            kept = benchmarks.fit_instances(known, recording.duration_s)
            beyond += len(known) - len(kept)
            recordings[name] = RecordingAnnotation(subset, recording.duration_s, kept)
    if beyond:
        more.append(
            f"{beyond} segments are left out: empty, or outside of their recording. Among test "
            "recordings these would have counted as missed"
        )
    _write_features(output, {**train, **test}, report)
    files.write_json(output / GRID_FILE, grid.to_dict())
    annotations = Annotations(
        classes=layout.annotations.classes,
        recordings=recordings,
        overlapping=benchmarks.overlapping_classes(
            settings.overlapping, layout.annotations.classes
        ),
    )
    files.write_json(output / ANNOTATION_FILE, annotations_to_dict(annotations))
    return [*notes, *more]


def to_submission(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Converts detections to ActivityNet's submission format, whose names lack the prefix "v_".

    >>> found = {"v_abc": [{"label": "Surfing", "score": 0.9, "segment": [1.0, 2.0]}]}
    >>> to_submission(found)["results"]
    {'abc': [{'label': 'Surfing', 'score': 0.9, 'segment': [1.0, 2.0]}]}

    Args:
      results: `{recording: [{label, score, segment in seconds}]}`.

    Raises:
      InputError: if two names differ only in that prefix.
    """
    named = {name.removeprefix("v_"): list(found) for name, found in results.items()}
    if len(named) < len(results):
        twice = next(name for name in results if f"v_{name}" in results)
        raise InputError(f"detections of {twice!r} and 'v_{twice}', expected one of them")
    return {"version": "VERSION 1.3", "results": named, "external_data": {"used": False}}


def _clicks(layout: Layout, point_file: str) -> tuple[dict[str, tuple[Instance, ...]], list[str]]:
    if not point_file and not layout.point_files:
        return {}, []
    clicks, strangers = benchmarks.read_clicks(layout, point_file)
    lost = f"points of {benchmarks.count(strangers)} are left out: without annotations"
    return clicks, [lost] if strangers else []


def _write_features(output: Path, recordings: Mapping[str, Recording], report) -> None:
    paths = {name: feature_path(output, name) for name in recordings}
    for done, (name, recording) in enumerate(recordings.items(), start=1):
        files.write_npy(paths[name], read_features(recording))
        if done % 100 == 0 or done == len(recordings):
            report(f"{done} of {len(recordings)} recordings written")
