"""Localization on the host: predictions of recordings to detections in seconds."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tal_jax.config import Config
from tal_jax.data import packing
from tal_jax.data.detections import DetectionRows, Results, to_rows
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.ops import resampling
from tal_jax.ops.localization import Detections, localize_batch, present_classes
from tal_jax.training import processes, sharding

# Room for threshold runs of a class, at first.
MAX_RUNS = 512


def proposal_options(options: Config) -> Config:
    """The section `localization` for proposals: hard NMS, so that scores are OIC scores.

    Soft-NMS ranks better, but its scores depend on the other candidates, and what trusts, assigns
    or counts proposals by their scores would count duplicates.
    """
    return ml_collections.FrozenConfigDict(options.to_dict() | {"soft_sigma": 0.0})


def localize_predictions(
    predictions: Mapping[str, RecordingPredictions], options: Config, classes: Sequence[str]
) -> Results:
    """Detects actions in predictions, best first, without the networks that they come from.

    With the settings of the run, its section `localization`, these are its detections. Where
    predictions are of a lengthened timeline, it stays the one that the run's own settings gave,
    whatever `options` are.
    """

    def length_of(name):
        return len(predictions[name].last.cumulative) - 1

    results, max_runs = {}, MAX_RUNS
    for length, names in packing.length_groups(list(predictions), length_of):
        longest = max(len(predictions[name].last.cas) for name in names)
        found, max_runs = localize_group(
            {name: predictions[name] for name in names},
            options,
            classes,
            length=length,
            num_samples=lengthened_size(longest, length),
            max_runs=max_runs,
        )
        results |= found
    return {name: results[name] for name in predictions}


def localize_in_processes(
    predictions: Mapping[str, RecordingPredictions], options: Config, classes: Sequence[str]
) -> Results:
    """`localize_predictions`, each process its share; the results in all."""
    own = {name: predictions[name] for name in processes.host_shard(predictions)}
    results = processes.all_gather(localize_predictions(own, options, classes))
    return {name: results[name] for name in predictions}


def lengthened_size(longest: int, length: int) -> int:
    """Padded length of lengthened timelines of recordings that are padded to `length`."""
    # Coarse, to limit recompilation.
    return max(length, packing.bucket(longest, max(length // 4, packing.LENGTH_STEP)))


def localize_group(
    recordings: Mapping[str, RecordingPredictions],
    options: Config,
    classes: Sequence[str],
    *,
    length: int,
    num_samples: int,
    wanted: Mapping[str, Collection[int]] | None = None,
    max_runs: int = MAX_RUNS,
) -> tuple[Results, int]:
    """Detects actions in predictions of some recordings, in one compiled call.

    Args:
      recordings: predictions; the detections are made from `last`.
      options: the section `localization` of a config.
      classes: names of the classes.
      length: padded length of the recordings, in snippets.
      num_samples: padded length of the timelines of `last`.
      wanted: the classes to detect in each recording; by default those that are present by their
        video-level scores.
      max_runs: room for threshold runs of a class, at first.

    Returns:
      Each recording's detections, best first, and the room that their runs needed.
    """
    mesh = sharding.local_mesh()
    names = list(recordings)
    # Every device takes as many; the last recording fills up.
    padded = names + [names[-1]] * (-len(names) % sharding.num_shards(mesh))
    stacked = _stack([recordings[name].last for name in padded], length, num_samples)
    present = None
    if wanted is not None:
        present = np.zeros((len(padded), len(classes)), bool)
        for row, name in enumerate(padded):
            present[row, list(wanted[name])] = True
    settings = settings_of(options)
    # Long recordings have more runs, and too little room costs another compilation.
    max_runs = max(max_runs, 1 << (num_samples // 8).bit_length())
    while True:
        found = localize_compiled(stacked, settings, present, max_runs=max_runs, mesh=mesh)
        found = jax.device_get(found)
        if not found.overflow.any():
            break
        # In powers of two, to limit recompilation.
        max_runs = 1 << (max_runs + int(found.overflow.max()) - 1).bit_length()
    results: Results = {
        name: _rows(jax.tree.map(lambda array, row=row: array[row], found), one, classes)
        for row, (name, one) in enumerate(recordings.items())
    }
    return results, max_runs


def settings_of(options: Config) -> dict[str, np.ndarray]:
    """The section `localization` of a config as arrays, which change without a recompilation."""
    return {name: np.asarray(value, np.float32) for name, value in options.items()}


@functools.partial(jax.jit, static_argnames=("max_runs", "mesh"))
def localize_compiled(
    predictions: Predictions,
    settings: Mapping[str, Any],
    classes: Any = None,
    *,
    max_runs: int,
    mesh: Mesh | None = None,
) -> Detections:
    """Detections `[B, C, …]` in B recordings, each device its share, in old snippets.

    Args:
      predictions: with `cumulative` and `where`.
      settings: from `settings_of`.
      classes: `[B, C]` bool, the classes to detect; None: those that are present by their
        video-level scores.
      max_runs: see `ops.localize` (static).
      mesh: devices that share the recordings (static).
    """

    def one_shard(predictions, classes, settings):
        options = {name: value for name, value in settings.items() if name != "class_threshold"}
        where = predictions.where
        if classes is None:
            threshold = settings["class_threshold"]
            classes = present_classes(predictions.video_scores, threshold=threshold)
            classes = classes & where.any(axis=1, keepdims=True)
        # Neither features nor positions are needed to map times back.
        unused: Any = None
        resampled = resampling.Resampled(unused, unused, predictions.cumulative, where)
        return localize_batch(
            predictions.cas,
            predictions.actionness,
            predictions.video_scores,
            classes,
            where,
            max_runs=max_runs,
            resampled=resampled,
            **options,
        )

    shard = P(sharding.DATA)
    localize = sharding.map_shards(one_shard, mesh, (shard, shard, P()), shard)
    return localize(predictions, classes, settings)


def padded(values: np.ndarray, size: int, **mode: Any) -> np.ndarray:
    """Values `[N, …]` continued to `[size, …]`, by zeros or by another mode of `np.pad`."""
    return np.pad(values, [(0, size - len(values)), *[(0, 0)] * (values.ndim - 1)], **mode)


def _stack(recordings: Sequence[Predictions], length: int, num_samples: int) -> Predictions:
    """Predictions of recordings, padded and stacked."""
    rows = [
        Predictions(
            padded(one.cas, num_samples),
            padded(one.actionness, num_samples),
            one.video_scores,
            # Beyond a recording's end no weight is added.
            padded(one.cumulative, length + 1, mode="edge"),
            np.arange(num_samples) < len(one.cas),
        )
        for one in recordings
    ]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *rows)


def _rows(found: Any, recording: RecordingPredictions, classes: Sequence[str]) -> DetectionRows:
    """One recording's `Detections`, on the host, best first."""
    labels, columns = np.nonzero(found.where)
    values, segments = found.scores[labels, columns], found.segments[labels, columns]
    order = np.argsort(-values, kind="stable")
    return to_rows(labels[order], values[order], segments[order], recording, classes)
