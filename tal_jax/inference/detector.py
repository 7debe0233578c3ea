"""Detections of the second stage's network."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tal_jax.config import Config
from tal_jax.data import packing, sliding_window
from tal_jax.data.detections import Entries, Results, to_rows
from tal_jax.data.projection import Projection
from tal_jax.data.recordings import Recording
from tal_jax.inference.fusion import OF_ANCHORS, fuse_results
from tal_jax.methods import detector
from tal_jax.ops import anchors as anchor_ops
from tal_jax.training import processes, sharding

# Candidates of a recording or window, by its snippets: several anchors find the same action.
_LEAST_CANDIDATES = 256
# A lower score is that of background.
_LEAST_SCORE = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class FittedDetector:
    """A trained detector, and what is needed to use it."""

    params: Any
    config: Config  # from `config.detector_config`
    projection: Projection  # of the features that the rounds' networks read
    classes: tuple[str, ...]

    @property
    def model(self) -> Any:
        """The network."""
        return detector.make_model(self.config, len(self.classes))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Candidates:
    """The M best candidates of a recording or window, over all classes, best first."""

    segments: Any  # [M, 2] in snippets
    scores: Any  # [M]
    classes: Any  # [M] int32
    times: Any  # [M] of their anchors, in snippets


def detect(
    fitted: FittedDetector,
    recordings: Sequence[Recording],
    *,
    soft_sigma: float,
    wanted: Mapping[str, Collection[int]] | None = None,
) -> Results:
    """Detects actions in recordings; points are ignored.

    Args:
      fitted: trained detector.
      recordings: with the features that the rounds' networks read.
      soft_sigma: see `ops.soft_nms`.
      wanted: the classes to detect in each recording; by default all.

    Returns:
      Detections of each recording, best first.
    """
    projected = fitted.projection.apply_to(recordings)
    own: Results = {}
    for recording in processes.host_shard(
        [one for one in projected if sliding_window.is_long(one)]
    ):
        windows = _candidates_of_windows(fitted, recording)
        own[recording.name] = _entries(windows, recording, fitted.classes, wanted)
    groups = packing.length_groups(
        [one for one in projected if not sliding_window.is_long(one)], lambda one: len(one.features)
    )
    for length, group in processes.host_shard(groups):
        found = _candidates(fitted, group, length)
        for row, recording in enumerate(group):
            one = jax.tree.map(lambda array, row=row: array[row], found)
            own[recording.name] = _entries([one], recording, fitted.classes, wanted)
    found = processes.all_gather(_fused(own, soft_sigma))
    return {recording.name: found[recording.name] for recording in recordings}


def decode(
    model: Any,
    outputs: Mapping[str, Any],
    recording: Recording,
    classes: Sequence[str],
    *,
    soft_sigma: float,
) -> Entries:
    """The detections of one recording, as `detect` has them, best first.

    Args:
      model: the network, of which only the levels count.
      outputs: its "logits" `[1, A, C]`, "offsets" `[1, A, 2]` and "where" `[1, A]`.
      recording: that was read.
      classes: names of the C classes.
      soft_sigma: see `ops.soft_nms`.
    """
    most = _most(len(recording.features))
    arrays = [outputs[name] for name in ("logits", "offsets", "where")]
    candidates = jax.device_get(_decode(*arrays, model=model, most=most))
    one = jax.tree.map(lambda array: array[0], candidates)
    entries = {recording.name: _entries([one], recording, classes, None)}
    return _fused(entries, soft_sigma)[recording.name]


@functools.partial(jax.jit, static_argnames=("model", "most"))
def _decode(logits: Any, offsets: Any, where: Any, *, model: Any, most: int) -> _Candidates:
    return best_candidates(model, logits, offsets, where, most=most)


def _fused(results: Results, soft_sigma: float) -> Results:
    """Candidates of neighbouring anchors fused, of every recording."""
    if not results:
        return {}
    return fuse_results([results], iou_threshold=OF_ANCHORS, soft_sigma=soft_sigma)


def _most(length: int) -> int:
    """Candidates of a recording or window of so many snippets."""
    return max(_LEAST_CANDIDATES, 1 << (length - 1).bit_length())


def _candidates(fitted: FittedDetector, group: Sequence[Recording], length: int) -> _Candidates:
    """Of recordings padded to one length; host arrays `[B, M]`."""
    mesh = sharding.local_mesh()
    # Every device takes as many; the last recording fills up.
    rows = [*group, *[group[-1]] * (-len(group) % sharding.num_shards(mesh))]
    dim = group[0].features.shape[1]
    features = np.zeros((len(rows), length, dim), np.float32)
    where = np.zeros((len(rows), length), bool)
    for row, recording in enumerate(rows):
        size = len(recording.features)
        features[row, :size], where[row, :size] = recording.features[:], True
    most = _most(length)
    found = _detect(fitted.params, features, where, model=fitted.model, most=most, mesh=mesh)
    return jax.device_get(found)


@functools.partial(jax.jit, static_argnames=("model", "most", "mesh"))
def _detect(
    params: Any, features: Any, where: Any, *, model: Any, most: int, mesh: Mesh | None = None
) -> _Candidates:
    def one_shard(params, features, where):
        outputs = model.apply({"params": params}, features, where=where)
        return best_candidates(model, outputs.logits, outputs.offsets, outputs.where, most=most)

    shard = P(sharding.DATA)
    return sharding.map_shards(one_shard, mesh, (P(), shard, shard), shard)(params, features, where)


def best_candidates(model: Any, logits: Any, offsets: Any, where: Any, *, most: int) -> _Candidates:
    """The best of all anchors and classes of B recordings, `[B, M]`."""
    anchors = detector.anchors_of_outputs(model, logits)
    segments = anchor_ops.decode_segments(anchors, offsets)
    scores = jnp.where(where[..., None], jax.nn.sigmoid(logits), 0.0)
    num_classes = scores.shape[-1]
    flat = scores.reshape(len(scores), -1)
    best, index = jax.lax.top_k(flat, min(most, flat.shape[1]))
    at, label = jnp.divmod(index, num_classes)
    chosen = jnp.take_along_axis(segments, at[..., None], axis=1)
    return _Candidates(chosen, best, label.astype(jnp.int32), anchors.times[at])


def _candidates_of_windows(fitted: FittedDetector, recording: Recording) -> list[_Candidates]:
    """Of a long recording: those of each window whose anchor lies in its core."""
    model, reach = fitted.model, fitted.model.reach
    dtype = np.dtype(np.float32)
    windows = sliding_window.Windows(
        recording.name, recording.features, sliding_window.MOST_SNIPPETS, reach, dtype
    )
    found = []
    for number, window in enumerate(windows):
        one = jax.device_get(
            _detect(
                fitted.params,
                window.features[None],
                window.where[None],
                model=model,
                most=_most(sliding_window.MOST_SNIPPETS),
            )
        )
        one = jax.tree.map(lambda array: array[0], one)
        inside = (reach <= one.times) & (one.times < reach + sliding_window.MOST_SNIPPETS)
        one = jax.tree.map(lambda array, inside=inside: array[inside], one)
        shift = number * sliding_window.MOST_SNIPPETS - reach
        found.append(dataclasses.replace(one, segments=one.segments + np.float64(shift)))
    return found


def _entries(
    parts: Sequence[_Candidates],
    recording: Recording,
    classes: Sequence[str],
    wanted: Mapping[str, Collection[int]] | None,
) -> Entries:
    """Candidates on the host as ActivityNet has them."""
    segments, scores, labels = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("segments", "scores", "classes")
    )
    kept = scores >= _LEAST_SCORE
    if wanted is not None:
        kept &= np.isin(labels, list(wanted[recording.name]))
    return to_rows(labels[kept], scores[kept], segments[kept], recording, classes)
