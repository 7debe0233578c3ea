"""The timeline that a round trains on: what its proposals make of the recordings.

Proposals of the previous round lengthen short actions (weights of the inverse-transform sampling)
and give pseudo instances. Both are fixed while a round lasts; the resampling itself happens inside
the compiled step, on the recordings of one update.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax.data.packing import PackedRecordings, bucket
from tal_jax.data.recordings import Recording
from tal_jax.ops import resampling
from tal_jax.ops import segments as segment_ops


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposals:
    """Scored segments of R recordings, of their labelled classes."""

    segments: jax.Array  # [R, M, 2] times in snippets
    scores: jax.Array  # [R, M]
    slots: jax.Array  # [R, M] int32
    where: jax.Array  # [R, M] bool


@dataclasses.dataclass(frozen=True)
class MostPoints:
    """How many points an update meets at most in one recording: what lists have to hold."""

    of_class: int = 0  # of one class
    of_all: int = 0  # of all classes together


NO_POINTS = MostPoints()  # of what is not trained on


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Timeline:
    """R recordings with everything that a round knows of them."""

    recordings: PackedRecordings
    weights: jax.Array  # [R, T] of the snippets, 1 on an uncompensated timeline
    counts: jax.Array  # [R] int32, new snippets of each recording
    rivals: jax.Array  # [R, L, L] bool: the points of slot m are negatives for slot l
    instances: jax.Array  # [R, P, 2] old times of each point's pseudo instance, in snippets
    instance_where: jax.Array  # [R, P] bool
    most_points: MostPoints = dataclasses.field(default=NO_POINTS, metadata={"static": True})


class Lengths(NamedTuple):
    """Padded lengths of what the network reads, in snippets of the new timeline."""

    window: int  # of an update
    whole: tuple[int, ...]  # of whole timelines, rising: the shortest that one fits in is its own

    @property
    def windowed(self) -> bool:
        """Whether some timelines are longer than what an update reads of them."""
        return self.whole[-1] > self.window


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Recordings, or windows of them, on their new timeline: the input of networks and losses."""

    features: jax.Array  # [B, N, D]
    where: jax.Array  # [B, N] bool
    points: jax.Array  # [B, N, L] bool, positive snippets of each slot
    instances: jax.Array  # [B, N, L] bool, pseudo instances of the previous round
    slot_labels: jax.Array  # [B, L] int32
    slot_where: jax.Array  # [B, L] bool, labelled classes of the whole recording
    slot_clicked: jax.Array  # [B, L] bool, those with a point in the whole recording
    rivals: jax.Array  # [B, L, L] bool
    resampled: resampling.Resampled  # [B, …] leads times back to the old timeline; no features
    cut: jax.Array  # [B] bool, True where a window shows a part of the recording
    most_points: MostPoints = dataclasses.field(default=NO_POINTS, metadata={"static": True})


def identity_timeline(
    recordings: PackedRecordings, overlapping: jax.Array, *, most_points: MostPoints = NO_POINTS
) -> Timeline:
    """The timeline without proposals: every snippet weighs 1, there are no pseudo instances.

    Args:
      recordings: R recordings.
      overlapping: `[C, C]` True for pairs of classes that are no negatives of each other.
      most_points: from `most_points_of`, where the timeline is to be trained on (static).
    """
    where = recordings.where
    return Timeline(
        recordings=recordings,
        weights=where.astype(jnp.float32),
        counts=where.sum(axis=1, dtype=jnp.int32),
        rivals=~overlapping[recordings.slot_labels[:, :, None], recordings.slot_labels[:, None, :]]
        & ~jnp.eye(recordings.slot_labels.shape[1], dtype=bool)[None],
        instances=jnp.zeros((*recordings.point_times.shape, 2), jnp.float32),
        instance_where=jnp.zeros_like(recordings.point_where),
        most_points=most_points,
    )


def most_points_of(recordings: Sequence[Recording], window: int) -> MostPoints:
    """The most points of one class, and of all, in any `window` snippets of one recording.

    A lengthened timeline has as many or fewer in a window of that many new snippets.
    """
    of_class = of_all = 0
    for recording in recordings:
        times_s = np.array([point.time_s for point in recording.points], np.float64)
        times = recording.grid.to_snippets(times_s)
        labels = np.array([point.label for point in recording.points], int)
        of_all = max(of_all, _most_within(times, window))
        for label in np.unique(labels):
            of_class = max(of_class, _most_within(times[labels == label], window))
    return MostPoints(of_class, of_all)


def _most_within(times: np.ndarray, window: float) -> int:
    times = np.sort(times)
    # Inclusive: the snippets of both ends may be touched.
    ends = np.searchsorted(times, times + window, side="right")
    return int((ends - np.arange(len(times))).max(initial=0))


def lengths_of(counts: np.ndarray, window: int) -> Lengths:
    """What to pad timelines to, so that few programs serve all and little is padding.

    >>> lengths_of(np.array([500, 700, 5000]), 640)
    Lengths(window=640, whole=(640, 1280, 5120))
    >>> lengths_of(np.array([500, 700]), 640)
    Lengths(window=640, whole=(800,))

    Args:
      counts: `[R]` snippets of the timelines.
      window: snippets of an update.
    """
    doubled = {
        window << (max(-(-int(count) // window), 1) - 1).bit_length() for count in np.unique(counts)
    }
    *shorter, last = sorted(doubled)
    if last > window:
        # In steps of an eighth, so that rounds of about the same lengths share programs.
        last = bucket(int(np.max(counts)), last // 8)
    # Another program would cost more than this padding.
    shorter = [length for length in shorter if 1.5 * length < last]
    return Lengths(window, (*shorter, last))


def rows_to_draw(timeline: Timeline, lengths: Lengths) -> np.ndarray:
    """The rows that updates draw from: each as often as it holds windows.

    So a long recording is visited in proportion to its length, and one that is alone fills a batch.
    By the lengths of the recordings themselves, the same in all rounds.

    Args:
      timeline: R recordings.
      lengths: to train with.

    Returns:
      `[S]` int32, each row at least once; the rows alone where none is long.
    """
    rows = np.arange(len(timeline.counts), dtype=np.int32)
    if not lengths.windowed:
        return rows
    sizes = np.asarray(timeline.recordings.where).sum(axis=1)
    return np.repeat(rows, num_windows(sizes, lengths.window))


def num_windows(sizes: np.ndarray, window: int) -> np.ndarray:
    """How many windows recordings of `sizes` `[R]` snippets hold, rounded, at least 1: `[R]`.

    >>> num_windows(np.array([100, 640, 7810]), 640)
    array([ 1,  1, 12])
    """
    return np.maximum(np.round(sizes / window), 1).astype(int)


def draw_windows(counts: jax.Array, window: int, keys: jax.Array) -> jax.Array:
    """Where the windows of an update begin, in new snippets.

    A window's middle is uniform over its timeline, and windows that would reach beyond an end are
    moved inside. So snippets at the ends are read at least half as often as others.

    Args:
      counts: `[B]` snippets of the timelines.
      window: N (static).
      keys: `[B]`.

    Returns:
      `[B]` int32; 0 for timelines that fit.
    """

    def one(count, key):
        middle = jax.random.uniform(key) * count.astype(jnp.float32)
        first = jnp.floor(middle - window / 2).astype(jnp.int32)
        return jnp.clip(first, 0, jnp.maximum(count - window, 0))

    return jax.vmap(one)(counts, keys)


def compensate(
    timeline: Timeline,
    proposals: Proposals,
    *,
    tau: jax.Array,
    delta: float,
    alpha: float,
) -> Timeline:
    """Lengthens the short ones among the trusted proposals.

    Args:
      timeline: an uncompensated timeline.
      proposals: of the previous round.
      tau: `[R]` widened proposals shorter than this, in snippets, are short.
      delta: proposals are widened by this share of their length on each side.
      alpha: a class's proposals are trusted, best first, while their scores (clipped at 0) sum to
        at most this share of the total; the best one always is.
    """
    num_slots = timeline.recordings.slot_labels.shape[1]
    length = timeline.weights.shape[1]

    def one(segments, scores, slots, where, tau, valid):
        trusted = trusted_proposals(scores, slots, num_slots=num_slots, alpha=alpha, where=where)
        reach = delta * (segments[:, 1:] - segments[:, :1])
        widened = segments + jnp.concatenate([-reach, reach], axis=1)
        weights = resampling.compensation_weights(widened, length, tau=tau, where=trusted)
        return jnp.where(valid, weights, 0)

    weights = jax.vmap(one)(
        proposals.segments,
        proposals.scores,
        proposals.slots,
        proposals.where,
        tau,
        timeline.recordings.where,
    )
    counts = jnp.round(weights.sum(axis=1)).astype(jnp.int32)
    return dataclasses.replace(timeline, weights=weights, counts=counts)


def with_own_point(proposals: Proposals, recordings: PackedRecordings) -> Proposals:
    """Leaves out proposals without a point of their class: every training instance has one.

    Without this the many weak proposals, whose scores still sum to most of a class's total, would
    make the trusted share meaningless and stretch the background.
    """

    def one(segments, slots, where, times, point_slots, point_where):
        inside = (segments[:, :1] <= times) & (times < segments[:, 1:])
        return where & (inside & point_where & (slots[:, None] == point_slots)).any(axis=1)

    where = jax.vmap(one)(
        proposals.segments,
        proposals.slots,
        proposals.where,
        recordings.point_times,
        recordings.point_slots,
        recordings.point_where,
    )
    return dataclasses.replace(proposals, where=where)


def best_of_each_place(proposals: Proposals) -> Proposals:
    """Leaves out proposals that lie where a better one is, of whichever class.

    What points do for training recordings (`with_own_point`) this does where there are none: each
    action lengthens the timeline once, and wrong classes, which score less, not at all.
    """
    keep = jax.vmap(segment_ops.disjoint_segments)(
        proposals.segments, proposals.scores, where=proposals.where
    )
    return dataclasses.replace(proposals, where=keep)


def trusted_proposals(
    scores: jax.Array,
    slots: jax.Array,
    *,
    num_slots: int,
    alpha: float,
    where: jax.Array,
) -> jax.Array:
    """`[M]` True for each slot's best proposals that hold a share `alpha` of its score.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.5, 0.3, 0.2, 0.1])
    >>> slots = jnp.array([0, 0, 0, 1])
    >>> print(trusted_proposals(scores, slots, num_slots=2, alpha=0.8, where=scores > 0))
    [ True  True False  True]
    """

    def one_slot(slot):
        mine = where & (slots == slot)
        order = jnp.argsort(jnp.where(mine, -scores, jnp.inf), stable=True)
        clipped = jnp.where(mine, jnp.maximum(scores, 0), 0)[order]
        sums = jnp.cumsum(clipped)
        # A margin for rounding, so that alpha = 1 means all.
        kept = sums <= alpha * sums[-1] * (1 + 1e-6)
        kept = kept.at[0].set(True)
        return jnp.zeros_like(mine).at[order].set(kept) & mine

    return jax.vmap(one_slot)(jnp.arange(num_slots, dtype=slots.dtype)).any(axis=0)


def assign_instances(timeline: Timeline, proposals: Proposals) -> Timeline:
    """Gives each point the proposal that most likely is its action.

    That is the best-scoring proposal of its class that contains it and no rival class's point, or
    else the one that contains the fewest of those.
    """

    def one(times, point_slots, point_where, rivals, segments, scores, slots, where):
        inside = (segments[None, :, 0] <= times[:, None]) & (times[:, None] < segments[None, :, 1])
        inside = inside & point_where[:, None]
        foreign = (inside & rivals[slots][:, point_slots].T).sum(axis=0, dtype=jnp.int32)
        candidate = inside & where[None, :] & (slots[None, :] == point_slots[:, None])
        fewest = jnp.where(candidate, foreign[None, :], jnp.iinfo(jnp.int32).max)
        candidate = candidate & (foreign[None, :] == fewest.min(axis=1, keepdims=True))
        chosen = jnp.where(candidate, scores[None, :], -jnp.inf).argmax(axis=1)
        return segments[chosen], candidate.any(axis=1)

    recordings = timeline.recordings
    instances, where = jax.vmap(one)(
        recordings.point_times,
        recordings.point_slots,
        recordings.point_where,
        timeline.rivals,
        proposals.segments,
        proposals.scores,
        proposals.slots,
        proposals.where,
    )
    return dataclasses.replace(timeline, instances=instances, instance_where=where)


def take(timeline: Timeline, rows: jax.Array) -> Timeline:
    """The rows `[B]` of a timeline, one recording each; the features stay where they are."""
    features = timeline.recordings.features
    chosen = jax.tree.map(lambda values: values[rows], with_features(timeline, None))
    return with_features(chosen, features)


def join(first: Timeline, second: Timeline) -> Timeline:
    """The rows of two timelines of the same recordings, one set after the other."""
    features = first.recordings.features
    rows = jax.tree.map(
        lambda *values: jnp.concatenate(values),
        with_features(first, None),
        with_features(second, None),
    )
    return with_features(rows, features)


def with_features(timeline: Timeline, features: jax.Array | None) -> Timeline:
    """The timeline with other features, or none: all else has a row for each recording."""
    recordings = dataclasses.replace(timeline.recordings, features=features)
    return dataclasses.replace(timeline, recordings=recordings)


def resample_batch(
    timeline: Timeline,
    num_samples: int,
    *,
    keys: jax.Array | None = None,
    first: jax.Array | None = None,
) -> Batch:
    """Reads recordings on their new timeline.

    Args:
      timeline: B recordings.
      num_samples: N, the padded length of the new timeline (static).
      keys: `[B]` move every sample within its own cell; None reads the centres.
      first: `[B]` where the windows of N snippets begin that are read, from `draw_windows`; None
        reads whole timelines, and spreads N samples over those that are longer.
    """
    features = timeline.recordings.features

    def one(row: Timeline, key, first):
        recordings = row.recordings
        resampled = resampling.sample_times(
            row.weights,
            num_samples,
            count=jnp.minimum(row.counts, num_samples) if first is None else row.counts,
            where=recordings.where,
            key=key,
            first=first,
        )
        read = resampling.interpolate_among(
            features, recordings.first, resampled.positions, where=recordings.where
        )
        num_slots = recordings.slot_labels.shape[0]
        slots = jnp.arange(num_slots, dtype=jnp.int32)
        is_slot = slots[None, :] == recordings.point_slots[:, None]
        positive = resampling.resample_points(
            recordings.point_times, resampled, where=recordings.point_where
        )
        new = resampling.new_times(row.instances, resampled)
        centre = jnp.arange(num_samples, dtype=jnp.float32)[:, None] + 0.5
        covered = (new[None, :, 0] <= centre) & (centre < new[None, :, 1])
        covered = (covered | positive) & row.instance_where[None, :]
        covered = covered & resampled.where[:, None]
        return Batch(
            features=jnp.where(resampled.where[:, None], read.astype(jnp.float32), 0),
            where=resampled.where,
            points=_by_slot(positive, is_slot),
            instances=_by_slot(covered, is_slot),
            slot_labels=recordings.slot_labels,
            slot_where=recordings.slot_where,
            slot_clicked=(is_slot & recordings.point_where[:, None]).any(axis=0),
            rivals=row.rivals,
            resampled=resampled,
            cut=jnp.bool_(False) if first is None else row.counts > num_samples,
            most_points=row.most_points,
        )

    rows = with_features(timeline, None)
    in_axes = (0, None if keys is None else 0, None if first is None else 0)
    return jax.vmap(one, in_axes=in_axes)(rows, keys, first)


def _by_slot(covered: jax.Array, is_slot: jax.Array) -> jax.Array:
    """From `[N, P]` and `[P, L]` to `[N, L]`: covered by any point of the slot."""
    counts = covered.astype(jnp.float32) @ is_slot.astype(jnp.float32)
    return counts > 0


def proposals_of(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    recordings: Sequence[Recording],
    slot_labels: np.ndarray,
    slot_where: np.ndarray,
    classes: Sequence[str],
) -> Proposals:
    """Reads ActivityNet results as proposals of R recordings.

    Args:
      results: `{recording: [{label, score, segment in seconds}]}`; may come from any model.
      recordings: R recordings.
      slot_labels: `[R, L]` as in `PackedRecordings`.
      slot_where: `[R, L]`.
      classes: names of the classes.

    Raises:
      ValueError: if a recording is missing or a proposal is malformed or of an unknown class.
    """
    entries = [_checked_proposals(results, recording, classes) for recording in recordings]
    # In powers of two, so that rounds of about as many proposals share a program.
    most = 1 << max(max(map(len, entries)) - 1, 0).bit_length()
    shape = (len(recordings), most)
    segments = np.zeros((*shape, 2), np.float32)
    scores, slots = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    where = np.zeros(shape, bool)
    for row, (recording, rows) in enumerate(zip(recordings, entries, strict=True)):
        labelled = slot_labels[row][slot_where[row]]
        slot_of = {int(label): slot for slot, label in enumerate(labelled)}
        # Proposals of classes that the recording is not labelled with are no use to it.
        rows = [entry for entry in rows if entry[0] in slot_of]
        size = len(rows)
        if size:
            labels, values, times_s = map(np.asarray, zip(*rows, strict=True))
            slots[row, :size] = [slot_of[label] for label in labels]
            scores[row, :size] = values
            segments[row, :size] = recording.grid.to_snippets(times_s.astype(np.float64))
            where[row, :size] = True
    return Proposals(segments, scores, slots, where)


def _checked_proposals(results, recording, classes):
    """`(label, score, segment)` of one recording's proposals."""
    if recording.name not in results:
        raise ValueError(f"proposals: none for {recording.name!r}; expected an entry, maybe empty")
    rows = []
    for entry in results[recording.name]:
        label, score, segment = entry.get("label"), entry.get("score"), entry.get("segment")
        if label not in classes:
            raise ValueError(f"proposals of {recording.name!r}: unknown class {label!r}")
        numbers = np.asarray([score, *(segment or [])], np.float64)
        # A proposal of zero length is allowed: sampling widens it to one snippet.
        if numbers.shape != (3,) or not np.isfinite(numbers).all() or segment[1] < segment[0]:
            raise ValueError(
                f"proposals of {recording.name!r}: score {score!r}, segment {segment!r}; expected "
                "finite numbers, and an end that is not before the start"
            )
        rows.append((classes.index(label), score, segment))
    return rows
