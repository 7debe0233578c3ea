"""From score sequences to detections: runs above thresholds, scored by contrast, thinned."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tal_jax.data.recordings import Recording, labels_of
from tal_jax.data.score_files import RecordingScores, ScoreSequence
from tal_jax.ops import contrast, resampling
from tal_jax.ops import segments as segment_ops
from tal_jax.training import devices, methods
from tal_jax.training import timeline as timelines
from tal_jax.training.state import Scores


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detections:
    """Scored segments of one recording, class by class."""

    segments: jax.Array  # [C, N, 2] times in snippets
    scores: jax.Array  # [C, N]
    where: jax.Array  # [C, N] bool
    overflow: jax.Array  # [] int32: runs that did not fit; give a larger `max_runs` then


def threshold_runs(
    curve: jax.Array,
    thresholds: jax.Array,
    *,
    max_runs: int,
    where: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Stretches of time on which a curve lies above each of several thresholds, exactly.

    The curve is read as in `ops.curve_contrast`: straight between snippet centres, constant beyond
    the outermost ones. A stretch ends where the straight line crosses the threshold.

    >>> import jax.numpy as jnp
    >>> runs, exists, _ = threshold_runs(
    ...     jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array([0.5, 2.0]), max_runs=2)
    >>> print(runs[0], exists)
    [1. 3.] [ True False]

    Args:
      curve: `[T]`.
      thresholds: `[H]`.
      max_runs: N, how many runs the result holds (static).
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      Runs `[N, 2]` in snippets (threshold by threshold, then by time), `[N]` True for those that
      exist, and `[]` how many did not fit.
    """
    size = curve.shape[0]
    if not thresholds.size:
        return jnp.zeros((max_runs, 2), curve.dtype), jnp.zeros(max_runs, bool), jnp.int32(0)
    where = jnp.ones(size, bool) if where is None else where
    curve = jnp.where(where, curve, -jnp.inf)
    length = where.sum(dtype=curve.dtype)
    level = thresholds[:, None]
    above = curve[None, :] > level
    outside = jnp.full(1, -jnp.inf, curve.dtype)
    before = jnp.concatenate([outside, curve[:-1]])
    after = jnp.concatenate([curve[1:], outside])
    centre = jnp.arange(size, dtype=curve.dtype)[None, :] + 0.5

    def crossing(neighbour):
        """How far from each centre towards its neighbour the curve meets the threshold."""
        inside = jnp.isfinite(neighbour)[None, :] & above
        rise = jnp.where(inside, curve[None, :] - neighbour[None, :], 1)
        return jnp.where(inside, (curve[None, :] - level) / jnp.where(rise > 0, rise, 1), 0.5)

    begins = above & ~(before[None, :] > level)
    ends = above & ~(after[None, :] > level)
    start_times = centre - crossing(before)
    end_times = jnp.minimum(centre + crossing(after), length)
    total = begins.sum(dtype=jnp.int32)

    def compact(flags, times):
        return times.ravel()[jnp.nonzero(flags.ravel(), size=max_runs, fill_value=0)[0]]

    exists = jnp.arange(max_runs, dtype=jnp.int32) < total
    runs = jnp.stack([compact(begins, start_times), compact(ends, end_times)], axis=-1)
    return jnp.where(exists[:, None], runs, 0), exists, jnp.maximum(total - max_runs, 0)


def localize(
    scores: jax.Array,
    foreground: jax.Array,
    video: jax.Array,
    *,
    thresholds: jax.Array,
    foreground_thresholds: jax.Array,
    max_runs: int,
    classes: jax.Array,
    video_weight: jax.typing.ArrayLike = 0.2,
    delta: jax.typing.ArrayLike = 0.25,
    min_outer: jax.typing.ArrayLike = 0.0,
    iou_threshold: jax.typing.ArrayLike = 0.7,
    soft_sigma: float = 0.0,
    where: jax.Array | None = None,
) -> Detections:
    """Detects the actions of one recording.

    A class's candidates are the runs of its confidence above each of `thresholds` and the runs of
    the foreground above each of `foreground_thresholds`; a candidate's score is its contrast plus
    `video_weight` times the class's video score. Of overlapping ones the best is kept, or with
    `soft_sigma` all are, the others with lower scores.

    Args:
      scores: `[T, C]` confidences of the classes.
      foreground: `[T]` how surely there is any action.
      video: `[C]` how surely the recording holds each class.
      thresholds: `[H]` for the confidences; may be empty.
      foreground_thresholds: `[G]` for the foreground; may be empty.
      max_runs: most runs of a class, and of the foreground (static).
      classes: `[C]` bool, the classes to look for; see `present_classes`.
      video_weight: share of the video score in the detections' scores.
      delta: see `ops.curve_contrast`.
      min_outer: see `ops.curve_contrast`.
      iou_threshold: a candidate that overlaps a better one this much is dropped.
      soft_sigma: more than 0 lowers scores by `ops.soft_nms` instead (static).
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `Detections` with `N = 2 · max_runs`.
    """
    where = jnp.ones(scores.shape[0], bool) if where is None else where
    shared, shared_exists, shared_overflow = threshold_runs(
        foreground, foreground_thresholds, max_runs=max_runs, where=where
    )

    def one_class(curve, video_score, present):
        runs, exists, overflow = threshold_runs(curve, thresholds, max_runs=max_runs, where=where)
        candidates = jnp.concatenate([runs, shared])
        exists = jnp.concatenate([exists, shared_exists]) & present
        values = contrast.curve_contrast(
            curve, candidates, delta=delta, min_outer=min_outer, where=where
        )
        values = values + video_weight * video_score
        if soft_sigma:
            values = segment_ops.soft_nms(candidates, values, sigma=soft_sigma, where=exists)
            keep = exists
        else:
            keep = segment_ops.nms(candidates, values, iou_threshold=iou_threshold, where=exists)
        return candidates, values, keep, jnp.where(present, overflow, 0)

    found, values, keep, overflow = jax.vmap(one_class, in_axes=(1, 0, 0))(scores, video, classes)
    return Detections(found, values, keep, overflow.sum() + shared_overflow)


def present_classes(video: jax.Array, *, threshold: jax.typing.ArrayLike = 0.5) -> jax.Array:
    """`[C]` True for the classes whose video score reaches a threshold, and for the best one.

    >>> import jax.numpy as jnp
    >>> print(present_classes(jnp.array([0.2, 0.4, 0.1]), threshold=0.5))
    [False  True False]
    """
    best = jnp.arange(video.shape[0], dtype=jnp.int32) == video.argmax()
    return (video >= threshold) | best


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
        said = methods.method_of(config).read_scores(model, config, params, batch)
        return Reading(said, dataclasses.replace(batch.resampled, features=None, positions=None))

    lane = P(devices.DATA)
    read_lanes = devices.per_lane(one_lane, mesh, (P(), P(), lane), lane)
    rows = timelines.with_features(timeline, None)
    return read_lanes(params, timeline.recordings.features, rows)


def settings_of(options: ml_collections.ConfigDict) -> dict[str, jax.Array]:
    """A config's section `localization` as arrays, which change without another compilation."""
    return {
        name: jnp.asarray(value, jnp.float32)
        for name, value in options.items()
        if name != "soft_sigma"
    }


@functools.partial(jax.jit, static_argnames=("soft_sigma", "max_runs", "mesh"))
def locate(
    reading: Reading,
    settings: dict[str, jax.Array],
    classes: jax.Array | None = None,
    *,
    soft_sigma: float,
    max_runs: int,
    mesh: Mesh | None = None,
) -> Detections:
    """Localizes in what the network says: all that happens after it.

    Args:
      reading: of B recordings.
      settings: from `settings_of`.
      classes: `[B, C]` bool, the classes to look for; None: those that seem present.
      soft_sigma: see `localize` (static).
      max_runs: see `localize` (static).
      mesh: devices that share the recordings out (static).

    Returns:
      Detections `[B, C, …]`, times in snippets of the recordings' original timeline.
    """

    def one(said, resampled, classes, options):
        where = resampled.where
        if classes is None:
            threshold = options["class_threshold"]
            classes = present_classes(said.video, threshold=threshold) & where.any()
        found = localize(
            said.scores,
            said.foreground,
            said.video,
            classes=classes,
            soft_sigma=soft_sigma,
            max_runs=max_runs,
            where=where,
            **{name: value for name, value in options.items() if name != "class_threshold"},
        )
        old = resampling.old_times(found.segments, resampled)
        return dataclasses.replace(found, segments=old)

    lane = P(devices.DATA)
    locate_lanes = devices.per_lane(
        jax.vmap(one, in_axes=(0, 0, 0, None)), mesh, (lane, lane, lane, P()), lane
    )
    return locate_lanes(reading.scores, reading.resampled, classes, settings)


# How many runs of a class `locate_recordings` makes room for at first.
_MAX_RUNS = 512
# Recordings of one compiled call, on each device.
_CHUNK = 16

Results = dict[str, list[dict[str, Any]]]  # ActivityNet: {recording: [{label, score, segment}]}


def locate_recordings(
    params: Any,
    recordings: Sequence[Recording],
    chunk_of: Callable[[np.ndarray], timelines.Timeline],
    *,
    model: Any,
    config: ml_collections.FrozenConfigDict,
    options: ml_collections.FrozenConfigDict,
    classes: Sequence[str],
    num_samples: int,
    own: bool = False,
) -> tuple[Results, dict[str, ScoreSequence]]:
    """Runs `read` and `locate` over any number of recordings.

    Args:
      params: of the network.
      recordings: R recordings.
      chunk_of: gives the timeline of some of them, packed, by their rows `[B]`.
      model: the network.
      config: from `steps.compiled_config`.
      options: the section `localization` of the run's config.
      classes: names of the classes.
      num_samples: padded length of the timeline that the network sees.
      own: look for exactly the recordings' labelled classes.

    Returns:
      Each recording's detections, best first, with times in seconds, and what the network says of
      it.
    """
    results, scores, max_runs = {}, {}, _MAX_RUNS
    total, mesh = len(recordings), devices.local_mesh()
    params = devices.replicate(params, mesh)
    size = _chunk_size(total, devices.num_lanes(mesh))
    labelled = np.zeros((total, len(classes)), bool)
    for row, recording in enumerate(recordings):
        labelled[row, list(labels_of(recording))] = True
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
        wanted = jnp.asarray(labelled[rows]) if own else None
        found, max_runs = _locate_all(reading, options, wanted, max_runs, mesh)
        reading = jax.tree.map(np.asarray, reading)
        for row, recording in enumerate(recordings[first : first + size]):
            results[recording.name] = _as_results(_row(found, row), recording, classes)
            scores[recording.name] = _as_sequence(_row(reading, row), len(recording.features))
    return results, scores


def locate_scores(
    recordings: Mapping[str, RecordingScores],
    *,
    options: ml_collections.ConfigDict,
    classes: Sequence[str],
    length: int,
    num_samples: int,
) -> Results:
    """Runs `locate` over the saved scores of some recordings, all at once.

    Args:
      recordings: what a network said of them.
      options: the section `localization` of a config.
      classes: names of the classes.
      length: padded length of the recordings, in snippets.
      num_samples: padded length of the timelines that the network saw.

    Returns:
      Each recording's detections, best first, with times in seconds.
    """
    sequences = [one.last for one in recordings.values()]
    reading = _as_reading(sequences, length, num_samples)
    found, _ = _locate_all(reading, options, None, _MAX_RUNS)
    return {
        name: _as_results(_row(found, row), one, classes)
        for row, (name, one) in enumerate(recordings.items())
    }


def _locate_all(
    reading: Reading,
    options: ml_collections.ConfigDict,
    classes: jax.Array | None,
    max_runs: int,
    mesh: Mesh | None = None,
) -> tuple[Detections, int]:
    """Detections on the host, and the room for runs that they needed, at least `max_runs`."""
    settings, soft_sigma = settings_of(options), options.soft_sigma
    while True:
        found = locate(
            reading, settings, classes, soft_sigma=soft_sigma, max_runs=max_runs, mesh=mesh
        )
        if not found.overflow.any():
            return jax.tree.map(np.asarray, found), max_runs
        max_runs *= 2


def _chunk_size(total: int, lanes: int) -> int:
    """Recordings of a compiled call: as many on each device, no more than there are."""
    return lanes * min(_CHUNK, -(-total // lanes))


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

    def padded(values, size, **mode):
        return np.pad(values, [(0, size - len(values)), *[(0, 0)] * (values.ndim - 1)], **mode)

    rows = [
        Reading(
            Scores(padded(one.scores, num_samples), padded(one.foreground, num_samples), one.video),
            resampling.Resampled(
                features=None,
                positions=None,
                # Beyond a recording's end no weight is added.
                cumulative=padded(one.cumulative, length + 1, mode="edge"),
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
