"""Network outputs of recordings, and the detections that they give."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tal_jax import methods
from tal_jax.data import sliding_window
from tal_jax.data import timeline as timelines
from tal_jax.data.predictions import RecordingScores, ScoreSequence
from tal_jax.data.recordings import Recording
from tal_jax.ops import resampling
from tal_jax.ops.localization import Detections, localize_batch, present_classes
from tal_jax.training import sharding
from tal_jax.training.state import Scores


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reading:
    """What a network says of B recordings, and the timeline that it says it of."""

    scores: Scores
    resampled: resampling.Resampled  # without features and positions: leads times back


@functools.partial(jax.jit, static_argnames=("model", "config", "num_samples", "mesh"))
def read(
    params: Any,
    timeline: timelines.Timeline,
    *,
    model: Any,
    config: ml_collections.FrozenConfigDict,
    num_samples: int,
    mesh: Mesh | None = None,
) -> Reading:
    """Runs the network on B recordings.

    Args:
      params: of the network.
      timeline: B recordings.
      model: the network (static).
      config: from `steps.compiled_config` (static).
      num_samples: N (static).
      mesh: devices that share the recordings out (static).
    """

    def one_lane(params, features, rows):
        batch = timelines.resample_batch(timelines.with_features(rows, features), num_samples)
        method = methods.method_of(config)
        said = method.read_logits(model, config, params, batch.features, batch.where)
        said = method.scores_of(config, said, batch.where)
        return Reading(said, dataclasses.replace(batch.resampled, features=None, positions=None))

    lane = P(sharding.DATA)
    read_lanes = sharding.per_lane(one_lane, mesh, (P(), P(), lane), lane)
    rows = timelines.with_features(timeline, None)
    return read_lanes(params, timeline.recordings.features, rows)


def read_windows(
    params: Any,
    windows: sliding_window.Windows,
    cumulative: np.ndarray,
    *,
    model: Any,
    config: ml_collections.FrozenConfigDict,
    num_samples: int,
) -> ScoreSequence:
    """Runs the network on one recording of any length, window by window.

    Args:
      params: of the network.
      windows: N snippets of the recording, on whatever timeline.
      cumulative: `[T + 1]` leads times back from that timeline.
      model: the network.
      config: from `steps.compiled_config`.
      num_samples: length to pad the scores to, so that recordings share programs.

    Returns:
      What `read` says of the whole, on the host.

    Raises:
      ValueError: if features hold NaN or infinity.
    """
    said = methods.method_of(config).stream_logits(model, config, params, windows)
    length = len(windows.features)

    said = jax.tree.map(lambda values: _padded(values, num_samples)[None], said)
    where = (np.arange(num_samples) < length)[None]
    scores = _row(jax.device_get(_scores_of(config, said, where)), 0)
    return ScoreSequence(
        scores.scores[:length], scores.foreground[:length], scores.video, cumulative
    )


@functools.partial(jax.jit, static_argnames="config")
def _scores_of(config, said, where):
    return methods.method_of(config).scores_of(config, said, where)


def settings_of(options: ml_collections.ConfigDict) -> dict[str, jax.Array]:
    """A config's section `localization` as arrays, which change without another compilation."""
    return {name: jnp.asarray(value, jnp.float32) for name, value in options.items()}


def proposal_options(options: ml_collections.FrozenConfigDict) -> ml_collections.FrozenConfigDict:
    """The section `localization` for proposals: duplicates are dropped, and scores are contrasts.

    Soft-NMS ranks better, but what a proposal scores then depends on the others, and what trusts,
    assigns or counts proposals by their scores would count duplicates.
    """
    return ml_collections.FrozenConfigDict(options.to_dict() | {"soft_sigma": 0.0})


@functools.partial(jax.jit, static_argnames=("max_runs", "mesh"))
def locate(
    reading: Reading,
    settings: dict[str, jax.Array],
    classes: jax.Array | None = None,
    *,
    max_runs: int,
    mesh: Mesh | None = None,
) -> Detections:
    """Localizes in what the network says: all that happens after it.

    Args:
      reading: of B recordings.
      settings: from `settings_of`.
      classes: `[B, C]` bool, the classes to look for; None: those that seem present.
      max_runs: see `localize` (static).
      mesh: devices that share the recordings out (static).

    Returns:
      Detections `[B, C, …]`, times in snippets of the recordings' original timeline.
    """

    def one_lane(said, resampled, classes, settings):
        options = {name: value for name, value in settings.items() if name != "class_threshold"}
        where = resampled.where
        if classes is None:
            present = functools.partial(present_classes, threshold=settings["class_threshold"])
            classes = jax.vmap(present)(said.video) & where.any(axis=1, keepdims=True)
        return localize_batch(
            said.scores,
            said.foreground,
            said.video,
            classes,
            where,
            max_runs=max_runs,
            resampled=resampled,
            **options,
        )

    lane = P(sharding.DATA)
    locate_lanes = sharding.per_lane(one_lane, mesh, (lane, lane, lane, P()), lane)
    return locate_lanes(reading.scores, reading.resampled, classes, settings)


# How many runs of a class there is room for at first.
MAX_RUNS = 512
# Recordings of one compiled call on each device, and the snippets that they have together at most.
_CHUNK, _CHUNK_SNIPPETS = 16, 16 * 8192

Results = dict[str, list[dict[str, Any]]]  # ActivityNet: {recording: [{label, score, segment}]}


def read_recordings(
    params: Any,
    recordings: Sequence[Recording],
    chunk_of: Callable[[np.ndarray], timelines.Timeline],
    *,
    model: Any,
    config: ml_collections.FrozenConfigDict,
    num_samples: int,
) -> dict[str, ScoreSequence]:
    """Runs `read` over any number of recordings.

    Args:
      params: of the network.
      recordings: R recordings.
      chunk_of: gives the timeline of some of them, packed, by their rows `[B]`.
      model: the network.
      config: from `steps.compiled_config`.
      num_samples: padded length of the timeline that the network sees.

    Returns:
      The scores of each recording, on that timeline.
    """
    scores, total, mesh = {}, len(recordings), sharding.local_mesh()
    params = sharding.replicate(params, mesh)
    size = _chunk_size(total, sharding.num_lanes(mesh), num_samples)
    for first in range(0, total, size):
        # The last chunk is filled up with repeats, so that one program serves all.
        rows = np.minimum(np.arange(first, first + size), total - 1)
        reading = read(
            params,
            chunk_of(rows),
            model=model,
            config=config,
            num_samples=num_samples,
            mesh=mesh,
        )
        reading = jax.tree.map(np.asarray, reading)
        for row, recording in enumerate(recordings[first : first + size]):
            scores[recording.name] = _as_sequence(_row(reading, row), len(recording.features))
    return scores


def locate_scores(
    recordings: Mapping[str, RecordingScores],
    *,
    options: ml_collections.ConfigDict,
    classes: Sequence[str],
    length: int,
    num_samples: int,
    wanted: Mapping[str, Collection[int]] | None = None,
    max_runs: int = MAX_RUNS,
) -> tuple[Results, int]:
    """Runs `locate` over the scores of some recordings, all at once.

    Args:
      recordings: scores of networks; the detections are made from `last`.
      options: the section `localization` of a config.
      classes: names of the classes.
      length: padded length of the recordings, in snippets.
      num_samples: padded length of the timelines that the network saw.
      wanted: the classes to look for in each recording; by default those that seem present.
      max_runs: of a class that there is room for at first.

    Returns:
      Each recording's detections, best first, with times in seconds, and the room for runs that
      they needed, at least `max_runs`.
    """
    mesh = sharding.local_mesh()
    lanes = sharding.num_lanes(mesh)
    names = list(recordings)
    # Every device takes as many; the last recording fills up.
    padded = names + [names[-1]] * (-len(names) % lanes)
    reading = _as_reading([recordings[name].last for name in padded], length, num_samples)
    present = None
    if wanted is not None:
        flags = np.zeros((len(padded), len(classes)), bool)
        for row, name in enumerate(padded):
            flags[row, list(wanted[name])] = True
        present = jnp.asarray(flags)
    settings = settings_of(options)
    # Long recordings have more runs, and room that does not suffice costs another compilation.
    max_runs = max(max_runs, 1 << (num_samples // 8).bit_length())
    while True:
        found = locate(reading, settings, present, max_runs=max_runs, mesh=mesh)
        if not found.overflow.any():
            break
        # In powers of two, since every other number is another program.
        max_runs = 1 << (max_runs + int(found.overflow.max()) - 1).bit_length()
    found = jax.tree.map(np.asarray, found)
    results = {
        name: _as_results(_row(found, row), recordings[name], classes)
        for row, name in enumerate(names)
    }
    return results, max_runs


def _chunk_size(total: int, lanes: int, num_samples: int) -> int:
    """Recordings of a compiled call: as many on each device, no more than there are."""
    fitting = min(_CHUNK, max(_CHUNK_SNIPPETS // num_samples, 1))
    return lanes * min(fitting, -(-total // lanes))


def _padded(values: np.ndarray, size: int, **mode: str) -> np.ndarray:
    """Values `[N, …]` continued to `[size, …]`, by zeros unless `np.pad` is told otherwise."""
    return np.pad(values, [(0, size - len(values)), *[(0, 0)] * (values.ndim - 1)], **mode)


def _row(values: Any, row: int) -> Any:
    return jax.tree.map(lambda array: array[row], values)


def _as_sequence(reading: Reading, length: int) -> ScoreSequence:
    """One recording's scores without padding."""
    said, resampled = reading.scores, reading.resampled
    size = resampled.where.sum()
    return ScoreSequence(
        said.scores[:size], said.foreground[:size], said.video, resampled.cumulative[: length + 1]
    )


def _as_reading(sequences: Sequence[ScoreSequence], length: int, num_samples: int) -> Reading:
    """Recordings side by side; the inverse of `_as_sequence`."""
    rows = [
        Reading(
            Scores(
                _padded(one.scores, num_samples), _padded(one.foreground, num_samples), one.video
            ),
            resampling.Resampled(
                features=None,
                positions=None,
                # Beyond a recording's end no weight is added.
                cumulative=_padded(one.cumulative, length + 1, mode="edge"),
                where=np.arange(num_samples) < len(one.scores),
            ),
        )
        for one in sequences
    ]
    return jax.tree.map(lambda *arrays: jnp.asarray(np.stack(arrays)), *rows)


def _as_results(
    found: Detections, recording: Recording | RecordingScores, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """ActivityNet entries of one recording's detections, best first."""
    labels, columns = np.nonzero(found.where)
    values = found.scores[labels, columns]
    times_s = recording.grid.to_seconds(found.segments[labels, columns].astype(np.float64))
    times_s = np.clip(times_s, 0, recording.duration_s)
    order = np.argsort(-values, kind="stable")
    return [
        {
            "label": classes[labels[i]],
            "score": float(values[i]),
            "segment": [float(times_s[i, 0]), float(times_s[i, 1])],
        }
        for i in order
        if times_s[i, 1] > times_s[i, 0]
    ]
