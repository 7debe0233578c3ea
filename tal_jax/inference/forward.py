"""Forward passes of trained networks over recordings of any length."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tal_jax import methods
from tal_jax.config import Config
from tal_jax.data import packing, sliding_window
from tal_jax.data import timeline as timelines
from tal_jax.data.detections import Results
from tal_jax.data.predictions import (
    Predictions,
    RecordingPredictions,
    read_predictions,
    write_predictions,
)
from tal_jax.data.recordings import Recording, check_recording
from tal_jax.data.timeline import Timeline
from tal_jax.inference import localize
from tal_jax.inference.detector import FittedDetector
from tal_jax.ops import resampling
from tal_jax.training import input_pipeline, processes, sharding, update
from tal_jax.training.prepare import compensate, given_short_s, prepare_plain

# Snippets of all recordings of a compiled call on each device.
_CHUNK_SNIPPETS = packing.CHUNK * sliding_window.MOST_SNIPPETS


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The trained networks of all rounds, and what is needed to use them."""

    params: tuple[Any, ...]  # of each round; trained on lengthened actions from round 1 on
    config: Config
    classes: tuple[str, ...]
    dim: int  # D of the features
    detector: FittedDetector | None = None  # of the second stage

    @property
    def model(self) -> Any:
        """The network."""
        return methods.method_of(self.config).make_model(self.config, len(self.classes))

    def with_round(self, params: Any) -> "Fitted":
        """These networks and that of one more round, with its parameters on every local device."""
        params = sharding.replicate(params, sharding.local_mesh())
        return dataclasses.replace(self, params=(*self.params, params))


def lengthens(fitted: Fitted, number: int) -> bool:
    """Whether a round predicts test recordings a second time, on lengthened timelines."""
    sampling = fitted.config.sampling
    return sampling.compensate and sampling.test_compensation and number > 0


def predict_recordings(
    fitted: Fitted, number: int, recordings: Sequence[Recording], *, lengthen: bool
) -> dict[str, RecordingPredictions]:
    """Predictions of one round's network; points of the recordings are ignored.

    `lengthen` adds a second pass over timelines on which short detections are lengthened.

    Raises:
      InputError: if features are bad or of another D than the networks were trained on.
    """
    for recording in recordings:
        check_recording(recording, dim=fitted.dim)
    bare = [dataclasses.replace(recording, points=()) for recording in recordings]
    found = {}
    for recording in processes.host_shard(one for one in bare if sliding_window.is_long(one)):
        found |= _predict_long(fitted, number, recording, lengthen=lengthen)
    groups = packing.length_groups(
        [one for one in bare if not sliding_window.is_long(one)],
        lambda recording: len(recording.features),
    )
    for length, group in processes.host_shard(groups):
        found |= _predict_group(fitted, number, group, length, lengthen=lengthen)
    found = _all_gather(found)
    return {recording.name: found[recording.name] for recording in recordings}


def _predict_group(fitted, number, recordings, length, *, lengthen):
    """`predict_recordings` for recordings that are padded to one length."""
    timeline = prepare_plain(recordings, length, fitted.config)
    predict = functools.partial(predict_timeline, fitted, number, recordings)
    return _in_passes(predict, timeline, recordings, fitted, lengthen)


def _in_passes(
    predict: Callable[..., dict[str, Predictions]],
    timeline: Timeline,
    recordings: Sequence[Recording],
    fitted: Fitted,
    lengthen: bool,
) -> dict[str, RecordingPredictions]:
    """`predict(timeline, num_samples=)` on the original timeline, then on a lengthened one."""
    original = predict(timeline, num_samples=timeline.weights.shape[1])
    found = {
        one.name: RecordingPredictions(one.grid, one.duration_s, *[original[one.name]] * 2)
        for one in recordings
    }
    if not lengthen:
        return found
    timeline, num_samples = _lengthen(timeline, recordings, found, fitted)
    last = predict(timeline, num_samples=num_samples)
    return {name: dataclasses.replace(one, last=last[name]) for name, one in found.items()}


def _lengthen(
    timeline: Timeline,
    recordings: Sequence[Recording],
    predictions: Mapping[str, RecordingPredictions],
    fitted: Fitted,
) -> tuple[Timeline, int]:
    """The timeline on which short detections are lengthened, and its padded length."""
    classes, config = fitted.classes, fitted.config
    options = localize.proposal_options(config.localization)
    found: Results = localize.localize_predictions(predictions, options, classes)
    class_of = {label: number for number, label in enumerate(classes)}
    labels = [
        sorted({class_of[entry["label"]] for entry in found[recording.name]})
        for recording in recordings
    ]
    video_classes, video_class_where = packing.pack_video_classes(labels)
    proposals = packing.pack_proposals(found, recordings, video_classes, video_class_where, classes)
    proposals = jax.jit(timelines.best_of_each_place)(proposals)
    labelled = dataclasses.replace(
        timeline, video_classes=video_classes, video_class_where=video_class_where
    )
    short_s = given_short_s(config.sampling)
    lengthened = compensate(labelled, proposals, recordings, config.sampling, short_s=short_s)
    timeline = dataclasses.replace(timeline, weights=lengthened.weights, counts=lengthened.counts)
    length = timeline.weights.shape[1]
    return timeline, localize.lengthened_size(int(timeline.counts.max()), length)


# --- recordings side by side ---


def predict_timeline(
    fitted: Fitted,
    number: int,
    recordings: Sequence[Recording],
    timeline: Timeline,
    *,
    num_samples: int,
) -> dict[str, Predictions]:
    """Predictions of one round's network for this process's recordings, see `predict_chunks`."""
    found = {}
    for chunk in predict_chunks(fitted, number, recordings, timeline, num_samples=num_samples):
        found |= chunk
    return found


def predict_chunks(
    fitted: Fitted,
    number: int,
    recordings: Sequence[Recording],
    timeline: Timeline,
    *,
    num_samples: int,
) -> Iterator[dict[str, Predictions]]:
    """Yields predictions of one round's network for some recordings after the other.

    The features of their timeline, which is padded to `num_samples`, may stay in files. Host arrays
    without padding.
    """
    config, total, mesh = fitted.config, len(recordings), sharding.local_mesh()
    chunk_of = input_pipeline.chunks(timeline, recordings, config.model.precision)
    # As many recordings on each device, no more than there are.
    shards = sharding.num_shards(mesh)
    fitting = min(packing.CHUNK, max(_CHUNK_SNIPPETS // num_samples, 1))
    size = shards * min(fitting, -(-total // shards))
    for first in range(0, total, size):
        # The last chunk is filled up with repeats, so that one program serves all.
        rows = np.minimum(np.arange(first, first + size), total - 1)
        outputs = forward(
            fitted.params[number],
            chunk_of(rows),
            model=fitted.model,
            config=update.compiled_config(config),
            num_samples=num_samples,
            mesh=mesh,
        )
        outputs, found = jax.device_get(outputs), {}
        for row, recording in enumerate(recordings[first : first + size]):
            own = jax.tree.map(lambda array, row=row: array[row], outputs)
            real, length = own.where.sum(), len(recording.features)
            found[recording.name] = Predictions(
                own.cas[:real],
                own.actionness[:real],
                own.video_scores,
                own.cumulative[: length + 1],
            )
        yield found


@functools.partial(jax.jit, static_argnames=("model", "config", "num_samples", "mesh"))
def forward(
    params: Any,
    timeline: Timeline,
    *,
    model: Any,
    config: Config,
    num_samples: int,
    mesh: Mesh | None = None,
) -> Predictions:
    """The network's predictions for the B recordings of a timeline, each device its share.

    `config` is from `update.compiled_config`, `num_samples` the N of the predictions.
    """

    def one_shard(params, features, rows):
        timeline = timelines.with_features(rows, features)
        features, resampled = timelines.resample_features(timeline, num_samples)
        method = methods.method_of(config)
        logits = method.logits(model, config, params, features, resampled.where)
        predictions = method.predictions(config, logits, resampled.where)
        return dataclasses.replace(
            predictions, cumulative=resampled.cumulative, where=resampled.where
        )

    shard = P(sharding.DATA)
    run = sharding.map_shards(one_shard, mesh, (P(), P(), shard), shard)
    return run(params, timeline.features, timelines.with_features(timeline, None))


# --- one long recording ---


def _predict_long(fitted, number, recording, *, lengthen) -> dict[str, RecordingPredictions]:
    """`predict_recordings` for a recording of which only the predictions are held as a whole."""
    method, config = methods.method_of(fitted.config), update.compiled_config(fitted.config)
    model, params = fitted.model, fitted.params[number]
    dtype = packing.feature_dtype([recording], fitted.config.model.precision)
    total = len(recording.features)
    padded = packing.serving_length(total)
    plain = jax.device_put(packing.pack_timeline([recording], length=padded))

    def predict(timeline, *, num_samples):
        features, cumulative = recording.features, np.arange(total + 1, dtype=np.float32)
        if timeline is not plain:
            resampled = _sample_times(input_pipeline.take(timeline, 0), num_samples)
            positions = np.asarray(resampled.positions)[np.asarray(resampled.where)]
            features = sliding_window.Interpolated(recording.features, positions)
            cumulative = np.asarray(resampled.cumulative)[: total + 1]
        length = len(features)
        windows = sliding_window.Windows(
            recording.name, features, sliding_window.MOST_SNIPPETS, model.reach, dtype
        )
        logits = method.sliding_logits(model, config, params, windows)
        size = packing.serving_length(length)
        logits = jax.tree.map(lambda values: localize.padded(values, size)[None], logits)
        found = jax.device_get(_predictions(config, logits, (np.arange(size) < length)[None]))
        cas, actionness = found.cas[0, :length], found.actionness[0, :length]
        return {recording.name: Predictions(cas, actionness, found.video_scores[0], cumulative)}

    return _in_passes(predict, plain, [recording], fitted, lengthen)


@functools.partial(jax.jit, static_argnums=1)
def _sample_times(row: Timeline, num_samples: int) -> resampling.Resampled:
    count = jnp.minimum(row.counts, num_samples)
    return resampling.sample_times(row.weights, num_samples, count=count, where=row.where)


@functools.partial(jax.jit, static_argnames="config")
def _predictions(config, logits, where):
    return methods.method_of(config).predictions(config, logits, where)


def _all_gather(found: dict[str, RecordingPredictions]) -> dict[str, RecordingPredictions]:
    """The union of all processes' predictions."""
    if processes.count() == 1:
        return found
    merged = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.npz"
        write_predictions(path, found)
        for payload in processes.all_gather_bytes(path.read_bytes()):
            path.write_bytes(payload)
            merged |= read_predictions(path)
    return merged
