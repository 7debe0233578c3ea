"""Timelines: what a round trains on, and the batches that updates read from it.

Proposals of the previous round lengthen short actions (the weights of inverse-transform sampling)
and become pseudo instances. Both are fixed during a round; the resampling itself happens inside the
compiled update, on the recordings of one batch.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tal_jax.ops import fusion, resampling
from tal_jax.ops import segments as segment_ops

# On the host, on a device, or a shape.
Array = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposals:
    """Scored segments of R recordings, of their video classes."""

    segments: Array  # [R, M, 2] times in snippets
    scores: Array  # [R, M]
    class_index: Array  # [R, M] int32, into the recording's video classes
    where: Array  # [R, M] bool


@dataclasses.dataclass(frozen=True)
class MostPoints:
    """The most points of one recording in an update: sizes of the lists of segments."""

    of_class: int = 0  # of one class
    of_all: int = 0  # of all classes
    unknown: int = 0  # stretches of unknown time before done ones, which split segments


NO_POINTS = MostPoints()  # of timelines that are not trained on


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Timeline:
    """R recordings of up to T snippets, with everything that a round trains on.

    Features are stored one recording after another, so that a long recording adds no padding to the
    others; all else has a padded row for each recording. The classes that a recording holds
    (its video-level labels) are listed, so that what is kept for each of them, such as its pseudo
    labels, does not grow with the number of classes of the data set.
    """

    features: Array  # [S, D] floating, then zeros; None where they stay in files
    first: Array  # [R] int32, the row of each recording's first snippet
    where: Array  # [R, T] bool, valid snippets
    point_times: Array  # [R, P] float32, in snippets
    point_class_index: Array  # [R, P] int32, into the recording's video classes
    point_where: Array  # [R, P] bool
    video_classes: Array  # [R, L] int32, labelled classes of the recording, then 0
    video_class_where: Array  # [R, L] bool
    negative_classes: Array  # [R, L, L] bool: points of class m are negatives for class l
    weights: Array  # [R, T] of the snippets, 1 on an uncompensated timeline
    counts: Array  # [R] int32, new snippets of each recording
    instances: Array  # [R, P, 2] old times of each point's (pseudo) instance, in snippets
    instance_where: Array  # [R, P] bool
    known: Array  # [R, P] bool, points whose instance is annotated: a true segment
    number: Array  # [R] int32, the recording's own, whichever rows are taken
    background_times: Array  # [R, Q] float32, background points in snippets
    background_where: Array  # [R, Q] bool
    done: Array  # [R, T] bool, snippets in which every action is labelled
    labelled: Array  # [R, T] bool, those and the snippets of points; the others are unknown
    most_points: MostPoints = dataclasses.field(default=NO_POINTS, metadata={"static": True})


class Lengths(NamedTuple):
    """Padded lengths of what the network reads, in snippets of the new timeline."""

    window: int  # of an update
    whole: tuple[int, ...]  # of whole timelines, rising; each is padded to the least that fits

    @property
    def windowed(self) -> bool:
        """Whether some timelines are longer than what an update reads of them."""
        return self.whole[-1] > self.window


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Recordings, or windows of them, on their new timeline: the input of networks and losses."""

    features: Array  # [B, N, D]
    where: Array  # [B, N] bool
    points: Array  # [B, N, L] bool, positive snippets of each video class
    instances: Array  # [B, N, L] bool, known instances, and pseudo ones of the previous round
    segments: Array  # [B, P, 2] the same one by one: times in new snippets, from the window's start
    segment_class_index: Array  # [B, P] int32, into the video classes
    segment_where: Array  # [B, P] bool
    video_classes: Array  # [B, L] int32
    video_class_where: Array  # [B, L] bool, labelled classes of the whole recording
    video_class_clicked: Array  # [B, L] bool, those with a point in the whole recording
    background: Array  # [B, N] bool, snippets of background points
    done: Array  # [B, N] bool, where every action is labelled: unlabelled is background only here
    negative_classes: Array  # [B, L, L] bool
    resampled: resampling.Resampled  # [B, …] leads times back to the old timeline; no features
    cut: Array  # [B] bool, True where a part of the recording is done and in the window
    most_points: MostPoints = dataclasses.field(default=NO_POINTS, metadata={"static": True})


def draw_windows(
    counts: jax.Array, window: int, keys: jax.Array, rows: Timeline | None = None
) -> jax.Array:
    """Where the windows of an update begin, in new snippets: `[B]` int32, 0 for those that fit.

    A window's middle is uniform over its timeline, and windows that would reach beyond an end are
    moved inside. So snippets at the ends are read at least half as often as others.

    Args:
      counts: `[B]` snippets of the timelines.
      window: N (static).
      keys: `[B]`.
      rows: B rows, where middles are to be drawn from labelled snippets only.
    """

    def one(count, key, row):
        share = jax.random.uniform(key)
        middle = share * count.astype(jnp.float32)
        if row is not None:
            partly = (row.where & ~row.labelled).any()
            middle = jnp.where(partly, _labelled_time(row, share), middle)
        first = jnp.floor(middle - window / 2).astype(jnp.int32)
        return jnp.clip(first, 0, jnp.maximum(count - window, 0))

    rows = None if rows is None else with_features(rows, None)
    return jax.vmap(one)(counts, keys, rows)


def _labelled_time(row: Timeline, share: jax.Array) -> jax.Array:
    """The new time before which there is this share of a recording's labelled new snippets."""
    chosen = jnp.where(row.labelled, row.weights, 0)
    sums = jnp.cumsum(chosen)
    rest = share * sums[-1]
    at = jnp.minimum(jnp.searchsorted(sums, rest, side="right"), len(sums) - 1)
    # The new time at the end of that snippet, less what is left of it.
    return jnp.cumsum(row.weights)[at] - (sums[at] - rest)


def at_random_speeds(
    timeline: Timeline, key: jax.Array, *, max_speed: float, longest: int
) -> Timeline:
    """The timeline with every recording faster or slower by a random factor, log-uniform.

    Actions of one kind last differently long; a network that reads them at several speeds does not
    take the lengths of the few clicked ones, or those that compensation made, for a property of
    the action.

    Args:
      timeline: R rows.
      key: of these speeds; a recording's own does not depend on which others are there.
      max_speed: the largest factor; the smallest is its inverse (static).
      longest: snippets that no timeline exceeds by being slowed down (static).
    """
    limit = math.log(max_speed)

    def factor(number):
        own = jax.random.fold_in(key, number)
        return jnp.exp(jax.random.uniform(own, minval=-limit, maxval=limit))

    fitting = longest / timeline.counts.astype(jnp.float32)
    factors = jnp.minimum(jax.vmap(factor)(timeline.number), jnp.maximum(fitting, 1.0))
    weights = timeline.weights * factors[:, None]
    counts = jnp.round(weights.sum(axis=1)).astype(jnp.int32)
    return dataclasses.replace(timeline, weights=weights, counts=counts)


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
    num_video_classes = timeline.video_classes.shape[1]
    length = timeline.weights.shape[1]

    def one(mine: Proposals, tau, valid):
        trusted = trusted_proposals(
            mine.scores,
            mine.class_index,
            num_video_classes=num_video_classes,
            alpha=alpha,
            where=mine.where,
        )
        reach = delta * (mine.segments[:, 1:] - mine.segments[:, :1])
        widened = mine.segments + jnp.concatenate([-reach, reach], axis=1)
        weights = resampling.compensation_weights(widened, length, tau=tau, where=trusted)
        return jnp.where(valid, weights, 0)

    weights = jax.vmap(one)(proposals, tau, timeline.where)
    counts = jnp.round(weights.sum(axis=1)).astype(jnp.int32)
    return dataclasses.replace(timeline, weights=weights, counts=counts)


def with_own_point(proposals: Proposals, timeline: Timeline) -> Proposals:
    """Leaves out proposals without a point of their class: every training instance has one.

    Those that hold a background point are left out, too.

    Without this the many weak proposals, whose scores still sum to most of a class's total, would
    make the trusted share meaningless and stretch the background.
    """

    def one(mine: Proposals, row: Timeline):
        inside = mine.segments[:, :1] <= row.point_times
        inside &= row.point_times < mine.segments[:, 1:]
        of_class = mine.class_index[:, None] == row.point_class_index
        wrong = _count_background(mine.segments, row) > 0
        return mine.where & (inside & row.point_where & of_class).any(axis=1) & ~wrong

    where = jax.vmap(one)(proposals, with_features(timeline, None))
    return dataclasses.replace(proposals, where=where)


def best_of_each_place(proposals: Proposals) -> Proposals:
    """Leaves out proposals that overlap a better one, of whichever class.

    It replaces `with_own_point` where there are no points: each action lengthens the timeline once,
    and wrong classes, which score less, not at all.
    """
    keep = jax.vmap(segment_ops.disjoint_segments)(
        proposals.segments, proposals.scores, where=proposals.where
    )
    return dataclasses.replace(proposals, where=keep)


def trusted_proposals(
    scores: jax.Array,
    class_index: jax.Array,
    *,
    num_video_classes: int,
    alpha: float,
    where: jax.Array,
) -> jax.Array:
    """`[M]` True for each class's best proposals that hold a share `alpha` of its score.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.5, 0.3, 0.2, 0.1])
    >>> class_index = jnp.array([0, 0, 0, 1])
    >>> where = jnp.ones(4, bool)
    >>> print(trusted_proposals(scores, class_index, num_video_classes=2, alpha=0.8, where=where))
    [ True  True False  True]
    """

    def one_class(index):
        mine = where & (class_index == index)
        order = jnp.argsort(jnp.where(mine, -scores, jnp.inf), stable=True)
        clipped = jnp.where(mine, jnp.maximum(scores, 0), 0)[order]
        sums = jnp.cumsum(clipped)
        # A margin for rounding, so that alpha = 1 means all.
        kept = sums <= alpha * sums[-1] * (1 + 1e-6)
        kept = kept.at[0].set(True)
        return jnp.zeros_like(mine).at[order].set(kept) & mine

    return jax.vmap(one_class)(jnp.arange(num_video_classes, dtype=class_index.dtype)).any(axis=0)


def assign_instances(timeline: Timeline, proposals: Proposals) -> Timeline:
    """Gives each point whose segment is not known the proposal that most likely is its action.

    That is the best-scoring proposal of its class that contains it and no point of a negative
    class or of background, or else the one that contains the fewest of those.
    """

    def one(row: Timeline, mine: Proposals):
        times, segments = row.point_times[:, None], mine.segments[None]
        inside = (segments[..., 0] <= times) & (times < segments[..., 1])
        inside = inside & row.point_where[:, None]
        negative = row.negative_classes[mine.class_index][:, row.point_class_index].T
        foreign = (inside & negative).sum(axis=0, dtype=jnp.int32)
        foreign = foreign + _count_background(mine.segments, row)
        of_class = mine.class_index[None, :] == row.point_class_index[:, None]
        candidate = inside & mine.where[None, :] & of_class
        fewest = jnp.where(candidate, foreign[None, :], jnp.iinfo(jnp.int32).max)
        candidate = candidate & (foreign[None, :] == fewest.min(axis=1, keepdims=True))
        chosen = jnp.where(candidate, mine.scores[None, :], -jnp.inf).argmax(axis=1)
        instances = jnp.where(row.known[:, None], row.instances, mine.segments[chosen])
        return instances, row.known | candidate.any(axis=1)

    instances, where = jax.vmap(one)(with_features(timeline, None), proposals)
    return dataclasses.replace(timeline, instances=instances, instance_where=where)


def fuse_instances(timeline: Timeline, proposals: Proposals) -> Timeline:
    """Gives each point whose segment is not known the mean of the proposals that are its action.

    Those are proposals of its class, of any number of rounds, that contain it and no other point of
    its class, of a negative class or of background. Points without any have no instance.
    """

    def one(row: Timeline, mine: Proposals):
        times, segments = row.point_times[:, None], mine.segments[None]
        inside = (segments[..., 0] <= times) & (times < segments[..., 1])
        inside = inside & row.point_where[:, None]
        of_class = mine.class_index[None, :] == row.point_class_index[:, None]
        negative = row.negative_classes[mine.class_index][:, row.point_class_index].T
        others = (inside & (of_class | negative)).sum(axis=0, dtype=jnp.int32)
        others = others + _count_background(mine.segments, row)
        candidate = inside & mine.where[None, :] & of_class & (others == 1)[None, :]
        found = fusion.point_segments(mine.segments, mine.scores, candidate)
        instances = jnp.where(row.known[:, None], row.instances, found.segments)
        return instances, row.known | found.where

    instances, where = jax.vmap(one)(with_features(timeline, None), proposals)
    return dataclasses.replace(timeline, instances=instances, instance_where=where)


def _count_background(segments: jax.Array, row: Timeline) -> jax.Array:
    """`[M]` int32: the background points of a recording in each of the segments `[M, 2]`."""
    times = row.background_times[None, :]
    inside = (segments[:, :1] <= times) & (times < segments[:, 1:])
    return (inside & row.background_where).sum(axis=1, dtype=jnp.int32)


def take(timeline: Timeline, rows: Array) -> Timeline:
    """The rows `[B]` of a timeline, one recording each; the features stay where they are."""
    features = timeline.features
    chosen = jax.tree.map(lambda values: values[rows], with_features(timeline, None))
    return with_features(chosen, features)


def join(first: Timeline, second: Timeline) -> Timeline:
    """The rows of two timelines of the same recordings, one set after the other."""
    features = first.features
    rows = jax.tree.map(
        lambda *values: jnp.concatenate(values),
        with_features(first, None),
        with_features(second, None),
    )
    return with_features(rows, features)


def with_features(timeline: Timeline, features: Array) -> Timeline:
    """The timeline with other features, or none: all else has a row for each recording."""
    return dataclasses.replace(timeline, features=features)


def resample_batch(
    timeline: Timeline,
    num_samples: int,
    *,
    keys: jax.Array | None = None,
    nearest: bool = False,
    first: jax.Array | None = None,
) -> Batch:
    """Reads recordings on their new timeline.

    Args:
      timeline: B row.
      num_samples: N, the padded length of the new timeline (static).
      keys: `[B]` move every sample within its own cell; None reads the centres.
      nearest: whether a sample is the snippet that its time lies in (static); else features are
        interpolated.
      first: `[B]` where the windows of N snippets begin that are read, from `draw_windows`; None
        reads whole timelines, and spreads N samples over those that are longer.
    """
    features = timeline.features

    def one(row: Timeline, key, first):
        read, resampled = _read(features, row, num_samples, key=key, nearest=nearest, first=first)
        num_video_classes = row.video_classes.shape[0]
        class_index = jnp.arange(num_video_classes, dtype=jnp.int32)
        of_class = class_index[None, :] == row.point_class_index[:, None]
        positive = resampling.resample_points(row.point_times, resampled, where=row.point_where)
        background = resampling.resample_points(
            row.background_times, resampled, where=row.background_where
        )
        background = background.any(axis=1) & ~positive.any(axis=1)
        at = jnp.floor(resampled.positions + 0.5).astype(jnp.int32)
        last = jnp.maximum(row.where.sum(dtype=jnp.int32) - 1, 0)
        done = row.done[jnp.clip(at, 0, last)] & resampled.where
        partly_done = (row.where & ~row.done).any()
        new = resampling.new_times(row.instances, resampled)
        centre = jnp.arange(num_samples, dtype=jnp.float32)[:, None] + 0.5
        covered = (new[None, :, 0] <= centre) & (centre < new[None, :, 1])
        covered = (covered | positive) & row.instance_where[None, :]
        covered = covered & (resampled.where & ~background)[:, None]
        return Batch(
            features=read,
            where=resampled.where,
            points=_by_video_class(positive, of_class),
            instances=_by_video_class(covered, of_class),
            segments=new,
            segment_class_index=row.point_class_index,
            segment_where=row.instance_where,
            video_classes=row.video_classes,
            video_class_where=row.video_class_where,
            video_class_clicked=(of_class & row.point_where[:, None]).any(axis=0),
            background=background,
            done=done,
            negative_classes=row.negative_classes,
            resampled=resampled,
            cut=partly_done if first is None else partly_done | (row.counts > num_samples),
            most_points=row.most_points,
        )

    rows = with_features(timeline, None)
    in_axes = (0, None if keys is None else 0, None if first is None else 0)
    return jax.vmap(one, in_axes=in_axes)(rows, keys, first)


def resample_features(
    timeline: Timeline, num_samples: int
) -> tuple[jax.Array, resampling.Resampled]:
    """Features `[B, N, D]` on the new timeline, and that: of `resample_batch`, without labels."""
    features = timeline.features
    read = functools.partial(_read, features, num_samples=num_samples)
    return jax.vmap(read)(with_features(timeline, None))


def _read(
    features: Array,
    row: Timeline,
    num_samples: int,
    *,
    key: jax.Array | None = None,
    nearest: bool = False,
    first: jax.Array | None = None,
) -> tuple[jax.Array, resampling.Resampled]:
    """One recording's features `[N, D]` on its new timeline, see `resample_batch`."""
    resampled = resampling.sample_times(
        row.weights,
        num_samples,
        count=jnp.minimum(row.counts, num_samples) if first is None else row.counts,
        where=row.where,
        key=key,
        first=first,
    )
    positions = resampled.positions
    if nearest:
        positions = jnp.floor(positions + 0.5)
    read = resampling.interpolate_among(features, row.first, positions, where=row.where)
    return jnp.where(resampled.where[:, None], read.astype(jnp.float32), 0), resampled


def _by_video_class(covered: jax.Array, of_class: jax.Array) -> jax.Array:
    """From `[N, P]` and `[P, L]` to `[N, L]`: covered by any point of the class."""
    counts = covered.astype(jnp.float32) @ of_class.astype(jnp.float32)
    return counts > 0
