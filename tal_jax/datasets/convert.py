"""Converts public layouts to this project's, and detections to ActivityNet's submission format."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, cut_labels
from tal_jax.data.manifest import Entry, read_manifest, write_manifest
from tal_jax.data.point_sets import join_clicks
from tal_jax.data.recordings import Recording, read_features
from tal_jax.data.shards import check_count, shard_path, split_names, write_shard
from tal_jax.datasets import benchmarks
from tal_jax.datasets.layouts import Layout
from tal_jax.datasets.own_layout import recording_path, write_folder
from tal_jax.datasets.selection import notes_of, overlapping_classes


def to_own_layout(
    layout: Layout,
    output: str | Path,
    *,
    overlapping: Sequence[str],
    shards: int | None = None,
    report: Callable[[str], None] = print,
) -> list[str]:
    """Writes a data set into a new folder, in the layout of `own_layout`; returns notes.

    Training recordings keep their segments and get the point labels of the data set. The subsets
    are "train" and "test". Pairs of overlapping classes are those of `load_benchmark`; features are
    distributed among `shards` files, or written one file a recording; `report` prints a line.
    """
    output = Path(output)
    if shards is not None:
        check_count(shards)
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output}: not empty, expected a new folder to write into")
    train, test, notes = benchmarks.open_recordings(layout)
    clicks = {}
    if layout.point_files and not benchmarks.has_own_points(layout, list(train)):
        clicks, found = benchmarks.read_clicks(layout, list(train))
        notes += notes_of(layout.folder, found)
    recordings, beyond = {}, 0
    for subset, part in (("train", train), ("test", test)):
        for name, recording in part.items():
            annotated = layout.annotations.recordings[name]
            known = annotated.instances
            if name in clicks and subset == "train":
                known = join_clicks(clicks[name], known)
            kept = benchmarks.fit_instances(known, recording.duration_s)
            beyond += len(known) - len(kept)
            annotated = cut_labels(annotated, recording.duration_s)
            recordings[name] = dataclasses.replace(
                annotated, subset=subset, instances=kept, frame_rate=None
            )
    if beyond:
        notes.append(
            f"{beyond} segments are left out: empty, or outside of their recording. Among test "
            "recordings these would have counted as missed"
        )
    opened = {**train, **test}
    paths = {name: recording_path(output, name) for name in opened}
    manifest = read_manifest(layout.folder) if layout.kind in ("own", "shards") else None
    entries = (
        dict(layout.entries) if manifest is None else {**layout.entries, **manifest.recordings}
    )
    entries = {name: entry for name, entry in entries.items() if name in opened}
    if shards is not None:
        _write_shards(output, opened, entries, shards, report)
        entries = {}  # those of the shards are in them
    else:
        for done, (name, path) in enumerate(paths.items(), start=1):
            files.write_npy(path, read_features(opened[name]))
            if done % 100 == 0 or done == len(paths):
                report(f"{done} of {len(paths)} recordings written")
    if manifest is not None:
        write_manifest(output, dataclasses.replace(manifest, recordings=entries))
    annotations = Annotations(
        classes=layout.annotations.classes,
        recordings=recordings,
        overlapping=overlapping_classes(layout.annotations, overlapping),
        point_distribution=None if clicks else layout.annotations.point_distribution,
        extras=layout.annotations.extras,
    )
    write_folder(output, {}, grid=layout.grid, annotations=annotations)
    return notes


def _write_shards(
    output: Path,
    recordings: Mapping[str, Recording],
    entries: Mapping[str, Entry],
    count: int,
    report: Callable[[str], None],
) -> None:
    done = 0
    for number, names in enumerate(split_names(recordings, count)):
        write_shard(
            shard_path(output, number, count),
            {name: recordings[name].features for name in names},
            {name: entries[name] for name in names if name in entries},
        )
        done += len(names)
        report(f"{done} of {len(recordings)} recordings written")


def to_submission(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Converts detections to ActivityNet's submission format, whose names lack the prefix "v_".

    >>> found = {"v_abc": [{"label": "Surfing", "score": 0.9, "segment": [1.0, 2.0]}]}
    >>> to_submission(found)["results"]
    {'abc': [{'label': 'Surfing', 'score': 0.9, 'segment': [1.0, 2.0]}]}

    Raises:
      InputError: if two names differ only in that prefix.
    """
    named = {name.removeprefix("v_"): list(found) for name, found in results.items()}
    if len(named) < len(results):
        twice = next(name for name in results if f"v_{name}" in results)
        raise InputError(f"detections of {twice!r} and 'v_{twice}', expected one of them")
    return {"version": "VERSION 1.3", "results": named, "external_data": {"used": False}}
