"""Detections of several sources fused: of stages, of rounds, or of other programs."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax.data import packing
from tal_jax.data.detections import Entries, Results
from tal_jax.ops import fusion
from tal_jax.ops import segments as segment_ops

# Detections overlap by this tIoU where two stages, and where neighbouring anchors of one network
# found the same action.
OF_STAGES, OF_ANCHORS = 0.6, 0.7
# The detector regresses ends, the rounds read them from where score sequences cross thresholds. On
# HAPT the detector's are better, on SHREC'21 the rounds': leaning to the detector suits both.
_TRUST = (1.0, 2.0)
# Detections below this share of a recording's best score are left out.
_LEAST_SHARE = 0.005
_STEP = 64

_Row = tuple[float, float, float, int]  # start, end and score of a detection, and its source


def fuse_results(
    sources: Sequence[Results],
    *,
    iou_threshold: float,
    soft_sigma: float,
    trust: Sequence[float] | None = None,
) -> Results:
    """Fuses detections class by class, then lowers the scores of duplicates by soft-NMS.

    Args:
      sources: detections or proposals of the same recordings; the scores of all mean the same.
      iou_threshold: see `ops.fuse_detections`.
      trust: see `ops.fuse_detections`.
      soft_sigma: see `ops.soft_nms`; 0 leaves the scores.

    Returns:
      Detections of every recording of any source, best first, without those that score less than
      0.005 of the recording's best: duplicates, or next to impossible.
    """
    # One source is fused as two of which one found nothing, so that both cases share a program.
    num_sources = max(len(sources), 2)
    weights = np.ones(num_sources)
    weights[: len(sources)] = trust or 1.0
    groups = _groups(sources)
    fused: dict[tuple[str, str], Entries] = {}
    for size, keys in _by_size(groups):
        rows, where = _stack([groups[key] for key in keys], size)
        # On a device times are float32: they count from the first detection.
        first_s = rows[:, :1, :2].min(axis=-1, keepdims=True)
        found = _fuse(
            (rows[..., :2] - first_s).astype(np.float32),
            rows[..., 2].astype(np.float32),
            rows[..., 3].astype(np.int32),
            where,
            np.float32(iou_threshold),
            np.float32(soft_sigma),
            weights.astype(np.float32),
            np.float32(num_sources / len(sources)),
            num_sources=num_sources,
        )
        # The last groups of a part are padding.
        of_groups = zip(keys, rows, *map(np.asarray, found), strict=False)
        for key, row, clusters, scores in of_groups:
            fused[key] = _fused_entries(key[1], row, clusters, scores, weights)
    results: dict[str, list] = {name: [] for source in sources for name in source}
    for name, label in groups:
        results[name] += fused[name, label]
    return {name: _best_first(entries) for name, entries in results.items()}


def _fused_entries(
    label: str, rows: np.ndarray, clusters: np.ndarray, scores: np.ndarray, trust: np.ndarray
) -> Entries:
    """Detections of one class: the means of `ops.fuse_detections` in float64.

    In float32 the times of a day have steps of 8 ms.
    """
    weights = np.maximum(rows[:, 2], 0) * trust[rows[:, 3].astype(int)]
    total, sums = np.zeros(len(rows)), np.zeros((len(rows), 2))
    np.add.at(total, clusters, weights)
    np.add.at(sums, clusters, weights[:, None] * rows[:, :2])
    exists = np.flatnonzero(scores > 0)
    segments_s = sums[exists] / total[exists, None]
    return [
        {"label": label, "score": float(score), "segment": segment_s.tolist()}
        for segment_s, score in zip(segments_s, scores[exists], strict=True)
        if segment_s[1] > segment_s[0]
    ]


def fuse_stages(rounds: Results, detector: Results, *, soft_sigma: float) -> Results:
    """Detections of the rounds and of the detector, fused."""
    sources = [rounds, detector]
    return fuse_results(sources, iou_threshold=OF_STAGES, soft_sigma=soft_sigma, trust=_TRUST)


def _best_first(entries: Entries) -> Entries:
    best = max((entry["score"] for entry in entries), default=0.0)
    kept = [entry for entry in entries if entry["score"] >= _LEAST_SHARE * best]
    return sorted(kept, key=lambda entry: -entry["score"])


def _groups(
    sources: Sequence[Results],
) -> dict[tuple[str, str], list[_Row]]:
    """Start, end, score and source of the detections of each recording and class."""
    groups: dict[tuple[str, str], list[_Row]] = {}
    for number, results in enumerate(sources):
        for name, entries in results.items():
            for entry in entries:
                row = (*entry["segment"], entry["score"], number)
                groups.setdefault((name, entry["label"]), []).append(row)
    return groups


def _by_size(
    groups: Mapping[tuple[str, str], Sequence],
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Up to `CHUNK` keys of groups of about the same size, and what to pad these to: few shapes."""
    keys = sorted(groups, key=lambda key: -len(groups[key]))
    for first in range(0, len(keys), packing.CHUNK):
        size = _STEP
        while size < len(groups[keys[first]]):
            size *= 4
        yield size, keys[first : first + packing.CHUNK]


def _stack(groups: Sequence[Sequence[_Row]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """`[CHUNK, size, 4]` rows of groups, and `[CHUNK, size]` True where one is."""
    rows = np.zeros((packing.CHUNK, size, 4))
    where = np.zeros(rows.shape[:2], bool)
    for number, group in enumerate(groups):
        rows[number, : len(group)] = group
        where[number, : len(group)] = True
    return rows, where


@functools.partial(jax.jit, static_argnames="num_sources")
def _fuse(
    segments, scores, sources, where, iou_threshold, soft_sigma, trust, scale, *, num_sources
):
    def one(given):
        segments, scores, sources, where = given
        fused = fusion.fuse_detections(
            segments,
            scores,
            sources,
            num_sources=num_sources,
            iou_threshold=iou_threshold,
            trust=trust,
            where=where,
        )
        sigma = jnp.where(soft_sigma > 0, soft_sigma, 1.0)
        # Exact: by 2 where there is one source, else by 1.
        scores = scale * fused.scores
        lowered = segment_ops.soft_nms(fused.segments, scores, sigma=sigma, where=fused.where)
        scores = jnp.where(soft_sigma > 0, lowered, scores)
        return fused.clusters, jnp.where(fused.where, scores, 0.0)

    return jax.lax.map(one, (segments, scores, sources, where))
