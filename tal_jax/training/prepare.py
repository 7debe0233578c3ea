"""Data of a round, prepared: recordings on a timeline, and the lengths that it is padded to."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tal_jax import methods
from tal_jax._errors import InputError
from tal_jax.config import Config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.detections import Results
from tal_jax.data.recordings import Dataset, Recording, labels_of
from tal_jax.data.timeline import Lengths, Proposals, Timeline
from tal_jax.training import input_pipeline


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Recordings on a timeline, and what it is padded to."""

    timeline: Timeline
    lengths: Lengths
    short_s: float | None = None  # shorter actions were lengthened; None where none were


def prepare_round(
    dataset: Dataset,
    config: Config,
    proposals: Results | None,
    *,
    sizes: Mapping[str, Any] | None = None,
    features: jax.Array | None = None,
) -> Prepared:
    """The timeline of a round: compensated by the proposals of the previous one, if there is one.

    Where the features are read block by block it is on the host, without them.

    With `sampling.keep_original` every recording follows once more on its original timeline, so
    that the network is trained on actions at the speed that they have in test recordings, too.

    Args:
      dataset: the data set.
      config: of the run.
      proposals: of the previous round.
      sizes: from `common_sizes`; by default those of the data set.
      features: packed features that are on the device already.
    """
    sizes = sizes or common_sizes([dataset], config)
    plain = jax.device_put(
        packing.pack_timeline(dataset.train, overlapping=dataset.overlapping, **sizes)
    )
    timeline, short_s = plain, None
    if proposals is not None:
        found, plain = _with_instances(plain, proposals, dataset, config.sampling)
        timeline = plain
        if config.sampling.compensate:
            short_s = _short_s(plain, dataset.train, config.sampling)
            timeline = compensate(plain, found, dataset.train, config.sampling, short_s=short_s)
    if config.sampling.keep_original:
        # Where nothing is compensated, too: all rounds and settings then share compiled programs.
        timeline = jax.jit(timelines.join)(timeline, plain)
    lengths = round_lengths(config, [timeline])
    if input_pipeline.streams(config, dataset.train):
        return Prepared(jax.device_get(timeline), lengths, short_s)
    if features is None:
        num_rows = packing.spacious(sum(packing.snippet_counts(dataset.train)))
        features = device_features(dataset.train, num_rows, config)
    return Prepared(timelines.with_features(timeline, features), lengths, short_s)


def pseudo_instances(dataset: Dataset, config: Config, proposals: Results) -> Timeline:
    """The original timeline with the pseudo instance that each point gets from proposals."""
    sizes = common_sizes([dataset], config)
    plain = packing.pack_timeline(dataset.train, overlapping=dataset.overlapping, **sizes)
    return _with_instances(jax.device_put(plain), proposals, dataset, config.sampling)[1]


def prepare_plain(recordings: Sequence[Recording], length: int, config: Config) -> Timeline:
    """Recordings on their original timeline with features, padded to `length`."""
    timeline = jax.device_put(packing.pack_timeline(recordings, length=length))
    features = device_features(recordings, length * len(recordings), config)
    return timelines.with_features(timeline, features)


def device_features(recordings: Sequence[Recording], num_rows: int, config: Config) -> jax.Array:
    """All features of recordings, on the device."""
    precision = config.model.precision
    return jax.device_put(packing.pack_features(recordings, num_rows=num_rows, precision=precision))


def compensate(
    timeline: Timeline,
    proposals: Proposals,
    recordings: Sequence[Recording],
    sampling: Config,
    *,
    short_s: float | None,
) -> Timeline:
    """Lengthens trusted proposals shorter than `short_s`, by the settings of a run; None: none."""
    tau_s = (short_s or 0.0) * (2 * sampling.delta + 1)  # proposals are widened before
    tau = [tau_s / recording.grid.stride_s for recording in recordings]
    return jax.jit(timelines.compensate)(
        timeline,
        proposals,
        tau=np.asarray(tau, np.float32),
        delta=sampling.delta,
        alpha=sampling.alpha,
    )


def given_short_s(sampling: Config) -> float | None:
    """Actions shorter than this are short by the settings of a run; None where rounds decide."""
    return None if sampling.tau_s is None else sampling.tau_s / (2 * sampling.delta + 1)


def _short_s(timeline: Timeline, recordings: Sequence[Recording], sampling: Config) -> float | None:
    """The length below which an action is short, in seconds.

    By `sampling.tau_s` or, where that is None, the lower quartile of the pseudo instances' lengths:
    a quarter of the actions are lengthened, however long actions are. None without any instance.
    """
    if sampling.tau_s is not None:
        return given_short_s(sampling)
    lengths = np.diff(np.asarray(timeline.instances, np.float64))[..., 0]
    stride_s = np.array([recording.grid.stride_s for recording in recordings])
    lengths_s = (lengths * stride_s[:, None])[np.asarray(timeline.instance_where)]
    return float(np.quantile(lengths_s, 0.25)) if lengths_s.size else None


def _with_instances(
    timeline: Timeline, proposals: Results, dataset: Dataset, sampling: Config
) -> tuple[Proposals, Timeline]:
    """The proposals that may lengthen the timeline, and the timeline with its pseudo instances."""
    found = packing.pack_proposals(
        proposals,
        dataset.train,
        np.asarray(timeline.video_classes),
        np.asarray(timeline.video_class_where),
        dataset.classes,
    )
    own = jax.jit(timelines.with_own_point)(found, timeline)
    timeline = jax.jit(timelines.assign_instances)(timeline, own)
    return own if sampling.own_point else found, timeline


# --- sizes ---


def common_sizes(datasets: Sequence[Dataset], config: Config) -> dict[str, Any]:
    """Arguments of `pack_timeline` that the training recordings of every data set fit in."""
    recordings = [recording for dataset in datasets for recording in dataset.train]
    return {
        "length": packing.bucket(max(packing.snippet_counts(recordings)), packing.LENGTH_STEP),
        "num_points": max(len(recording.points) for recording in recordings),
        "num_background": max(len(recording.background_s) for recording in recordings),
        "num_video_classes": max(len(labels_of(recording)) for recording in recordings),
        "most_points": packing.most_points_of(recordings, config.train.length),
    }


def round_lengths(config: Config, of_runs: Sequence[Timeline]) -> Lengths:
    """The lengths to train on timelines with, the same for all runs.

    The points of a window are known. Video-level labels are known for a whole recording only, so a
    method that learns from them samples long recordings instead.
    """
    window = config.train.length
    if methods.method_of(config).supervision != "points":
        return Lengths(window, (window,))
    counts = np.concatenate([np.asarray(timeline.counts) for timeline in of_runs])
    return packing.lengths_of(counts, window)


def hold_out(dataset: Dataset, config: Config) -> tuple[Dataset, tuple[Recording, ...]]:
    """Sets the last `config.train.holdout` training recordings aside."""
    holdout = config.train.holdout
    if holdout >= len(dataset.train):
        raise InputError(
            f"train.holdout={holdout}; expected fewer than the {len(dataset.train)} training "
            "recordings"
        )
    cut = len(dataset.train) - holdout
    kept, truth = dataset.train[:cut], dataset.train_truth
    if truth is not None:  # kept with its recordings, for evaluation
        kept_names = {recording.name for recording in kept}
        truth = {name: segments for name, segments in truth.items() if name in kept_names}
    return dataclasses.replace(dataset, train=kept, train_truth=truth), dataset.train[cut:]
