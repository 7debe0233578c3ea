# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Pseudo labels from points and scores: seeds, optimal sequences, pseudo instances."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from tal_jax import _deprecation
from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real
from tal_jax.ops import _axes, _check, _cpu, _cumsum, contrast
from tal_jax.ops._static import static


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seeds:
    """Snippets with a label that is certain, from `mine_seeds`.

    Attributes:
      action: action seeds of each class, grown from the points.
      background: background seeds.
    """

    action: Bool[Array, "T C"]
    background: Bool[Array, " T"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segmentation:
    """An alternating segmentation into background and one class's action.

    Attributes:
      labels: True on action.
      score: mean OIC score of the segments, float32.
    """

    labels: Bool[Array, " T"]
    score: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SequenceSegments:
    """The segments of a sequence, in temporal order.

    Attributes:
      segments: half-open ranges of snippets, int32.
      action: True for action segments.
      where: True for the segments that exist.
      overflow: number of segments beyond the first N, int32.
    """

    segments: Int[Array, "N 2"]
    action: Bool[Array, " N"]
    where: Bool[Array, " N"]
    overflow: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BestSegment:
    """The segment of highest OIC score, or such a segment for each of T snippets.

    Attributes:
      segment: a half-open range of snippets, int32; `[0, 0]` if there is none.
      contrast: its OIC score, float32; −inf if there is none.
    """

    segment: Int[Array, "*T 2"]
    contrast: Float[Array, "*T"]


__getattr__ = _deprecation.renamed(__name__, {"Sequence": "Segmentation"})


@static("force_between")
def mine_seeds(
    background: Real[ArrayLike, " T"],
    points: Mask[ArrayLike, "T C"],
    *,
    action_threshold: Real[ArrayLike, ""] = 0.1,
    background_threshold: Real[ArrayLike, ""] = 0.95,
    force_between: str = "any",
    where: Mask[ArrayLike, " T"] | None = None,
    done: Mask[ArrayLike, " T"] | None = None,
    background_points: Mask[ArrayLike, " T"] | None = None,
) -> Seeds:
    """Mines seeds from point labels: background between the points, action around them.

    Between two neighbouring points, everything between the outermost snippets of
    `p_bg ≥ background_threshold` is background; where fewer than two are, the one of largest `p_bg`
    is. Before the first and after the last point it is everything beyond the innermost such
    snippet. Action grows from each point while `p_bg ≤ action_threshold` and not background.

    `force_between="same"` serves recordings whose different actions abut: only two points of one
    class must have background between them; elsewhere only `p_bg ≥ background_threshold` counts,
    and two actions that grow into each other meet in the middle.

    Outside of `done` time is unknown, because actions may be unlabelled. A gap that reaches unknown
    time ends there: it has background between its outermost sure snippets alone, since an action
    may reach in from outside. No action grows into unknown time.

    >>> import jax.numpy as jnp
    >>> points = jnp.array([[0, 1, 0, 0, 0, 0, 1, 0]], bool).T
    >>> background = jnp.array([0.3, 0.0, 0.1, 0.5, 0.9, 0.2, 0.0, 0.4])
    >>> seeds = mine_seeds(background, points)
    >>> print(seeds.background.astype(int), seeds.action[:, 0].astype(int))
    [1 0 0 0 1 0 0 1] [0 1 1 0 0 0 1 0]

    Args:
      background: background probabilities `p_bg`.
      points: True on the positive snippets of the points.
      action_threshold: largest `p_bg` into which action grows.
      background_threshold: least `p_bg` that is background by itself.
      force_between: `"any"` or `"same"` (static), see above.
      where: True on the valid snippets, a prefix; default all.
      done: True where every action is labelled, any mask; default all.
      background_points: True on snippets that are labelled as background: they are background seeds
        everywhere, and sure like those of `p_bg ≥ background_threshold`; default none.

    Returns:
      `Seeds`. Without any point, every valid snippet is background where all is done.

    Raises:
      ValueError: if shapes or types do not fit or `force_between` is neither.

    Source: Lee & Byun 2021 (learning action completeness from points); "same" is an addition.
    """
    if force_between not in ("any", "same"):
        raise ValueError(
            f"force_between must be 'any' or 'same', and is static (compile with tal_jax.jit), "
            f"got {force_between!r}"
        )
    sizes: dict[str, int] = {}
    background = _check.numbers(background, "background", "T", sizes)
    points = _check.mask(points, "points", "T C", sizes)
    where = _check.mask(where, "where", "T", sizes)
    action_threshold = _check.setting(action_threshold, "action_threshold")
    background_threshold = _check.setting(background_threshold, "background_threshold")
    done = _check.mask(done, "done", "T", sizes)
    if background_points is None:
        background_points = jnp.zeros(sizes["T"], bool)
    background_points = _check.mask(background_points, "background_points", "T", sizes)
    points = points & where[:, None]
    is_point = points.any(axis=1)
    background_points = background_points & where & ~is_point
    gaps = _Gaps.between(is_point, where, done)
    sure = (jax.lax.stop_gradient(background) >= background_threshold) | background_points
    background_seeds = background_points | _background_seeds(
        jax.lax.stop_gradient(background), sure, points, gaps, force_between
    )
    open_ = gaps.inside & ~background_seeds & (background <= action_threshold)
    return Seeds(_grow(points, open_, gaps), background_seeds)


def optimal_sequence(
    scores: Real[ArrayLike, " T"],
    action_seeds: Mask[ArrayLike, " T"],
    background_seeds: Mask[ArrayLike, " T"],
    *,
    delta: Real[ArrayLike, ""] = 0.25,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Segmentation:
    r"""Returns the optimal sequence: the segmentation of highest OIC score that fits all seeds.

    Among the segmentations $(s_1, e_1), \dots, (s_M, e_M)$ into action and background that agree
    with the seeds it is, exactly, the one of highest mean contrast,

    $$\max \frac{1}{M} \sum_{m=1}^{M} R(s_m, e_m),$$

    with R of `inner_outer_contrast`, for background segments on `1 − scores`. Consecutive seeds of
    one kind are one segment, so the seeds fix the number and the kinds of the segments; only the
    boundaries between them are free. A segment's contrast depends on its two ends alone, hence
    dynamic programming over the boundaries finds the maximum. The work is the sum over segments of
    their start candidates times their end candidates.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.8, 0.9, 0.7, 0.1, 0.0])
    >>> seeds = jnp.arange(6)
    >>> sequence = optimal_sequence(scores, seeds == 2, (seeds == 0) | (seeds == 5))
    >>> print(sequence.labels.astype(int), f"{sequence.score:.3f}")
    [0 1 1 1 0 0] 0.683

    Args:
      scores: one class's sequence of the class activation sequence (CAS).
      action_seeds: True where the class's action is certain; wins over a background seed.
      background_seeds: True where another label is certain.
      delta: width of the outer region as in `inner_outer_contrast`.
      where: True on the valid snippets, a prefix; default all.

    Returns:
      `Segmentation`. The score is differentiable in `scores` at fixed labels (batched over an axis
      of a mesh with explicit axes, under `jax.sharding.auto_axes` only). Without an action seed
      everything is background and the score 0.

    Raises:
      ValueError: if shapes or types do not fit, or a `delta` that is not traced is below 0.

    Source: optimal sequence search of Lee & Byun 2021, there a beam search.
    """
    sizes: dict[str, int] = {}
    scores = _check.numbers(scores, "scores", "T", sizes)
    action_seeds = _check.mask(action_seeds, "action_seeds", "T", sizes)
    background_seeds = _check.mask(background_seeds, "background_seeds", "T", sizes)
    where = _check.mask(where, "where", "T", sizes)
    delta = _check.setting(delta, "delta", least=0)
    inputs = (scores, action_seeds, background_seeds, where, delta)
    where, delta = _axes.vary_like((where, delta), inputs)
    action_seeds = action_seeds & where

    def search() -> Segmentation:
        sums = _cumsum.prefix_sum(scores, where=where)
        labels, starts = _best_runs(
            jax.lax.stop_gradient(sums), action_seeds, background_seeds & where, delta, where
        )
        return Segmentation(labels, _mean_contrast(sums, labels, starts, delta, where))

    # Recordings have room for several video classes, and many of those are empty.
    nothing = Segmentation(jnp.zeros(sizes["T"], bool), jnp.zeros((), jnp.float32))
    nothing = _axes.vary_like(nothing, inputs)
    return jax.lax.cond(action_seeds.any(), search, lambda: nothing)


@static("num_segments")
def sequence_segments(
    labels: Mask[ArrayLike, " T"], *, num_segments: int, where: Mask[ArrayLike, " T"] | None = None
) -> SequenceSegments:
    """Returns the segments of a sequence of labels: its maximal runs of equal labels.

    >>> import jax.numpy as jnp
    >>> runs = sequence_segments(jnp.array([0, 1, 1, 0], bool), num_segments=4)
    >>> print(runs.segments.tolist(), runs.action.astype(int), runs.where.astype(int))
    [[0, 1], [1, 3], [3, 4], [0, 0]] [0 1 0 0] [1 1 1 0]

    Args:
      labels: True on action, as from `optimal_sequence`.
      num_segments: length of the lists (static); more segments than that are counted as overflow.
      where: any mask, True on the valid snippets, at which runs end as well; default all.

    Returns:
      `SequenceSegments` with `N = num_segments`.

    Raises:
      ValueError: if shapes or types do not fit, or `num_segments` is negative.
    """
    sizes: dict[str, int] = {}
    labels = _check.mask(labels, "labels", "T", sizes)
    where = _check.mask(where, "where", "T", sizes)
    num_segments = _check.static_size(num_segments, "num_segments", least=0)
    size = sizes["T"]
    changes = (labels[1:] != labels[:-1]) | (where[1:] != where[:-1])
    begins = where & jnp.concatenate([jnp.ones(1, bool), changes])
    finishes = where & jnp.concatenate([changes, jnp.ones(1, bool)])
    total = begins.sum(dtype=jnp.int32)
    # The first begins and the first finishes belong together.
    starts, lasts = (
        jnp.nonzero(flags, size=num_segments, fill_value=size)[0].astype(jnp.int32)
        for flags in (begins, finishes)
    )
    exists = jnp.arange(num_segments, dtype=jnp.int32) < total
    segments = jnp.where(exists[:, None], jnp.stack([starts, lasts + 1], axis=-1), 0)
    action = exists & labels[jnp.minimum(segments[:, 0], size - 1)]
    return SequenceSegments(segments, action, exists, jnp.maximum(total - num_segments, 0))


def best_segment(
    scores: Real[ArrayLike, " T"],
    points: Mask[ArrayLike, " T"],
    blocked: Mask[ArrayLike, " T"],
    *,
    delta: Real[ArrayLike, ""] = 0.25,
    where: Mask[ArrayLike, " T"] | None = None,
) -> BestSegment:
    """Returns the pseudo instance of highest OIC score with a point and nothing blocked inside.

    All such segments compete, whatever their length.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.8, 0.9, 0.7, 0.1, 1.0])
    >>> position = jnp.arange(6)
    >>> best = best_segment(scores, position == 2, position == 5)
    >>> print(best.segment, f"{best.contrast:.3f}")
    [1 4] 0.700

    Args:
      scores: one class's sequence of the class activation sequence (CAS).
      points: True on the positive snippets of the class.
      blocked: True on other classes' points and on background seeds.
      delta: width of the outer region as in `inner_outer_contrast`.
      where: True on the valid snippets, a prefix; default all.

    Returns:
      One `BestSegment`.

    Raises:
      ValueError: if shapes or types do not fit, or a `delta` that is not traced is below 0.
    """
    best = best_segments(scores, points, blocked, delta=delta, where=where)
    winner = best.contrast.argmax()
    return BestSegment(best.segment[winner], best.contrast[winner])


def best_segments(
    scores: Real[ArrayLike, " T"],
    points: Mask[ArrayLike, " T"],
    blocked: Mask[ArrayLike, " T"],
    *,
    delta: Real[ArrayLike, ""] = 0.25,
    where: Mask[ArrayLike, " T"] | None = None,
) -> BestSegment:
    """Returns the pseudo instance of each point: the `best_segment` whose first point it is.

    Every segment has one first point, so the work is the number of candidates, and the best of
    these is the best of all.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.8, 0.9, 0.1, 0.6, 0.2])
    >>> at = jnp.arange(6)
    >>> best = best_segments(scores, (at == 2) | (at == 4), at == 3)
    >>> print(best.segment[2], best.segment[4], jnp.isfinite(best.contrast).astype(int))
    [1 3] [4 5] [0 0 1 0 1 0]

    Args:
      scores: as in `best_segment`, as for the other arguments.
      points: True on the positive snippets of the class.
      blocked: True on other classes' points and on background seeds.
      delta: width of the outer region.
      where: a prefix.

    Returns:
      A `BestSegment` for each snippet; `[0, 0]` and −inf for those that are no point.

    Raises:
      ValueError: as `best_segment`.
    """
    sizes: dict[str, int] = {}
    scores = _check.numbers(scores, "scores", "T", sizes)
    points = _check.mask(points, "points", "T", sizes)
    blocked = _check.mask(blocked, "blocked", "T", sizes)
    where = _check.mask(where, "where", "T", sizes)
    delta = _check.setting(delta, "delta", least=0)
    points = points & where & ~blocked
    at = jnp.arange(sizes["T"], dtype=jnp.int32)
    closed = blocked | ~where
    low = jnp.maximum(_cpu.last_flag(closed), _last_before(points)) + 1
    candidates = _Candidates(
        exists=points,
        following=_first_after(points),
        starts=(low, at),
        ends=(at + 1, _cpu.next_flag(closed)),
    )
    sums = _cumsum.prefix_sum(jax.lax.stop_gradient(scores), where=where)
    length = where.sum(dtype=jnp.int32)
    return _cpu.by_platform(_best_of_candidates, candidates, sums, length, delta)


def _best_of_candidates(
    search: _cpu.Search,
    candidates: "_Candidates",
    sums: _cumsum.Prefix,
    length: Int[Array, ""],
    delta: Float[Array, ""],
) -> BestSegment:
    size = candidates.exists.shape[0]

    def keep_best(best: BestSegment, point: Array, block: _Block) -> BestSegment:
        values = contrast.contrast_between(
            _cumsum.rebase(sums, point),
            block.starts[None, :],
            block.ends[:, None],
            delta=delta,
            length=length,
        )
        valid = block.is_start[None, :] & block.is_end[:, None]
        values = jnp.where(valid, values, -jnp.inf).ravel()
        winner = search.first_highest(values)
        row, column = jnp.divmod(winner, search.starts)
        # Elsewhere nothing is written.
        index = jnp.where(values[winner] > best.contrast[point], point, size)
        segment = jnp.stack([block.starts[column], block.ends[row]])
        return BestSegment(
            best.segment.at[index].set(segment, mode="drop"),
            best.contrast.at[index].set(values[winner], mode="drop"),
        )

    nothing = BestSegment(jnp.zeros((size, 2), jnp.int32), jnp.full(size, -jnp.inf, jnp.float32))
    nothing = _axes.vary_like(nothing, (candidates, sums, length, delta))
    return _for_each_block(search, candidates, keep_best, nothing)


# --- seeds ---


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Gaps:
    """The gaps between neighbouring bounds, which are points and unknown snippets, by snippet.

    Attributes:
      index: the number of bounds at or before the snippet, int32; 0 before the first.
      inside: valid and no bound.
      before: the last bound at or before the snippet, int32, −1 if none.
      after: the first bound at or after it, int32, T if none.
      follows_point: whether the bound before is a point.
      precedes_point: whether the bound after is.
    """

    index: Int[Array, " T"]
    inside: Bool[Array, " T"]
    before: Int[Array, " T"]
    after: Int[Array, " T"]
    follows_point: Bool[Array, " T"]
    precedes_point: Bool[Array, " T"]

    @classmethod
    def between(
        cls, is_point: Bool[Array, " T"], where: Bool[Array, " T"], done: Bool[Array, " T"]
    ) -> "_Gaps":
        size = is_point.shape[0]
        bounds = is_point | (where & ~done)
        before, after = _cpu.last_flag(bounds), _cpu.next_flag(bounds)
        return cls(
            index=jnp.cumsum(bounds, dtype=jnp.int32),
            inside=where & ~bounds,
            before=before,
            after=after,
            follows_point=(before >= 0) & is_point[jnp.maximum(before, 0)],
            precedes_point=(after < size) & is_point[jnp.minimum(after, size - 1)],
        )


def _background_seeds(
    background: Float[Array, " T"],
    sure: Bool[Array, " T"],
    points: Bool[Array, "T C"],
    gaps: _Gaps,
    force_between: str,
) -> Bool[Array, " T"]:
    size = background.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    has_before, has_after = gaps.before >= 0, gaps.after < size

    def per_gap(
        reduce: Callable[..., Array],
        values: Real[Array, " T"],
        chosen: Bool[Array, " T"],
        empty: int | float,
    ) -> Real[Array, " T"]:
        chosen = chosen & gaps.inside
        reduced = reduce(jnp.where(chosen, values, empty), gaps.index, num_segments=size + 1)
        return reduced[gaps.index]

    sure = gaps.inside & sure
    first_sure = per_gap(jax.ops.segment_min, at, sure, size)
    last_sure = per_gap(jax.ops.segment_max, at, sure, -1)
    highest = per_gap(jax.ops.segment_max, background, gaps.inside, -jnp.inf)
    peak = per_gap(jax.ops.segment_min, at, background == highest, size)
    forced = ~has_before | ~has_after
    if force_between == "any":
        forced = jnp.ones_like(forced)
    else:
        classes_before = points[jnp.maximum(gaps.before, 0)]
        classes_after = points[jnp.minimum(gaps.after, size - 1)]
        forced = forced | (classes_before & classes_after).any(axis=1)
    # An action may cover all of a gap that unknown time bounds.
    forced = forced & (~has_before | gaps.follows_point) & (~has_after | gaps.precedes_point)
    # With no sure snippet the peak stands for both ends, or nothing does where none is forced.
    first = jnp.where(last_sure >= 0, first_sure, jnp.where(forced, peak, size))
    last = jnp.where(last_sure >= 0, last_sure, jnp.where(forced, peak, -1))
    # Outside the outermost points the background reaches to the recording's end.
    beyond_left = ~has_before | (at >= first)
    beyond_right = ~has_after | (at <= last)
    outside = ~has_before & ~has_after
    return gaps.inside & (outside | (beyond_left & beyond_right))


def _grow(points: Bool[Array, "T C"], open_: Bool[Array, " T"], gaps: _Gaps) -> Bool[Array, "T C"]:
    """Spreads each point's classes over the open snippets that connect to it."""
    size = open_.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    shut = gaps.inside & ~open_
    last_shut, next_shut = _cpu.last_flag(shut), _cpu.next_flag(shut)
    from_before = open_ & gaps.follows_point & (last_shut < gaps.before)
    from_after = open_ & gaps.precedes_point & (next_shut > gaps.after)
    nearer_before = at - gaps.before <= gaps.after - at
    meet = from_before & from_after
    from_before, from_after = (
        from_before & (~meet | nearer_before),
        from_after & (~meet | ~nearer_before),
    )
    classes_before = points[jnp.maximum(gaps.before, 0)] & from_before[:, None]
    classes_after = points[jnp.minimum(gaps.after, size - 1)] & from_after[:, None]
    return points | classes_before | classes_after


# --- the dynamic programme ---


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Candidates:
    """Segment candidates of some snippets: all pairs of a start and an end of two ranges.

    Snippets are visited in the order of time. Ranges are int32, the first and the last of each,
    inclusive.

    Attributes:
      exists: True for the snippets that have candidates.
      following: the next such snippet after each one, int32, T if none.
      starts: ranges of starts.
      ends: ranges of ends.
    """

    exists: Bool[Array, " T"]
    following: Int[Array, " T"]
    starts: tuple[Int[Array, " T"], Int[Array, " T"]]
    ends: tuple[Int[Array, " T"], Int[Array, " T"]]


@dataclasses.dataclass(frozen=True)
class _Block:
    """Some candidates of one snippet, which are scored at once.

    Attributes:
      starts: first snippets.
      ends: one past the last snippets.
      is_start: True for the starts that are in the range of candidates.
      is_end: True for such ends.
    """

    starts: Int[Array, " S"]
    ends: Int[Array, " E"]
    is_start: Bool[Array, " S"]
    is_end: Bool[Array, " E"]


def _best_runs(
    sums: _cumsum.Prefix,
    action: Bool[Array, " T"],
    background: Bool[Array, " T"],
    delta: Float[Array, ""],
    where: Bool[Array, " T"],
) -> tuple[Bool[Array, " T"], Int[Array, " T"]]:
    """The best segmentation: labels, and the int32 start of the run of each snippet.

    A boundary is after the last seed of one run of like seeds and not after the first seed of the
    next one; the first run begins where the recording does, and the last one ends where it ends.
    """
    size = action.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    length = where.sum(dtype=jnp.int32)
    seeded = action | background
    previous = _last_before(seeded)
    begins = seeded & ((previous < 0) | (action != action[previous]))
    low, high = jnp.where(previous < 0, 0, previous + 1), jnp.where(previous < 0, 0, at)
    following = _first_after(begins)
    is_last = following >= size
    after = jnp.minimum(following, size - 1)
    candidates = _Candidates(
        exists=begins,
        following=following,
        starts=(low, high),
        ends=(jnp.where(is_last, length, low[after]), jnp.where(is_last, length, high[after])),
    )
    last, earlier = _cpu.last_flag(begins)[-1], _last_before(begins)
    marks = _cpu.by_platform(_marked_starts, candidates, sums, action, earlier, last, length, delta)
    starts = _cpu.last_flag(marks > 0)
    return (marks[starts] == 2) & where, starts


def _marked_starts(
    search: _cpu.Search,
    candidates: _Candidates,
    sums: _cumsum.Prefix,
    action: Bool[Array, " T"],
    earlier: Int[Array, " T"],
    last: Int[Array, ""],
    length: Int[Array, ""],
    delta: Float[Array, ""],
) -> Int[Array, " T"]:
    """Where the runs of the best segmentation start: 1 for background, 2 for action, else 0.

    `candidates` are of the first seed of each run, `earlier` is the first seed of the last run that
    begins before each snippet (−1 if none), and `last` that of the last run.
    """
    size = action.shape[0]
    low, high = candidates.starts
    inputs = (candidates, sums, action, length, delta)

    def totals(
        value: Float[Array, " edges"],
        seed: Int[Array, ""],
        starts: Int[Array, "*#shape"],
        ends: Int[Array, "*#shape"],
        valid: Bool[Array, "*#shape"],
    ) -> Float[Array, "*shape"]:
        contrasts = contrast.contrast_between(
            _cumsum.rebase(sums, seed),  # all candidates contain it
            starts,
            ends,
            delta=delta,
            length=length,
            inverted=~action[seed],
        )
        return jnp.where(valid, value[starts] + contrasts, -jnp.inf)

    def relax(
        value: Float[Array, " edges"], seed: Int[Array, ""], block: _Block
    ) -> Float[Array, " edges"]:
        # Starts go down the rows, because a CPU finds maxima of columns faster.
        starts, ends, valid = block.starts[:, None], block.ends[None, :], block.is_start[:, None]
        best = totals(value, seed, starts, ends, valid).max(axis=0)
        # Ranges of different boundaries are disjoint, so `value` is final before it is used.
        index = jnp.where(block.is_end, block.ends, size + 1)
        return value.at[index].set(jnp.maximum(best, value[block.ends]), mode="drop")

    value = _axes.vary_like(jnp.full(size + 1, -jnp.inf, jnp.float32).at[0].set(0), inputs)
    value = _for_each_block(search, candidates, relax, value)

    # Backwards, each run looks again for the start that its end came from: so only the values need
    # to be kept, and an iteration needs no argmax.
    within = jnp.arange(search.starts, dtype=jnp.int32)

    def look_back(state: tuple[Array, ...]) -> tuple[Array, ...]:
        seed, first, end, best, start, marks = state
        starts, final = low[seed] + first + within, high[seed]
        values = totals(value, seed, jnp.minimum(starts, final), end, starts <= final)
        winner = search.first_highest(values)
        better = values[winner] > best
        best, start = (
            jnp.where(better, values[winner], best),
            jnp.where(better, starts[winner], start),
        )
        done = starts[-1] >= final
        kind = jnp.where(action[seed], 2, 1)
        marks = marks.at[jnp.where(done, start, size)].set(kind, mode="drop")
        return (
            jnp.where(done, earlier[seed], seed),
            jnp.where(done, 0, first + len(within)),
            jnp.where(done, start, end),
            jnp.where(done, -jnp.inf, best),
            start,
            marks,
        )

    zero, nothing = jnp.zeros((), jnp.int32), jnp.asarray(-jnp.inf, jnp.float32)
    state = (last, zero, length, nothing, zero, jnp.zeros(size, jnp.int32))
    state = _axes.vary_like(state, (inputs, earlier, last))
    return jax.lax.while_loop(lambda state: state[0] >= 0, look_back, state)[-1]


def _mean_contrast(
    sums: _cumsum.Prefix,
    labels: Bool[Array, " T"],
    starts: Int[Array, " T"],
    delta: Float[Array, ""],
    where: Bool[Array, " T"],
) -> Float[Array, ""]:
    """The mean over the runs, each of which counts at its last snippet."""
    length = where.sum(dtype=jnp.int32)
    ends = 1 + jnp.arange(labels.shape[0], dtype=jnp.int32)
    last_of_run = where & (
        (jnp.pad(starts[1:], (0, 1), constant_values=-1) != starts) | (ends == length)
    )
    contrasts = contrast.contrast_between(
        sums, starts, ends, delta=delta, length=length, inverted=~labels
    )
    total = jnp.where(last_of_run, contrasts, 0).sum()
    return total / jnp.maximum(last_of_run.sum(dtype=jnp.float32), 1)


def _first_after(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
    """The int32 index of the first True flag after each snippet, T if there is none."""
    return jnp.pad(_cpu.next_flag(flags), (0, 1), constant_values=flags.shape[0])[1:]


def _last_before(flags: Bool[Array, " T"]) -> Int[Array, " T"]:
    """The int32 index of the last True flag before each snippet, −1 if there is none."""
    return jnp.pad(_cpu.last_flag(flags), (1, 0), constant_values=-1)[:-1]


_State = TypeVar("_State")


def _for_each_block(
    search: _cpu.Search,
    candidates: _Candidates,
    visit: Callable[[_State, Array, _Block], _State],
    state: _State,
) -> _State:
    """Calls `state = visit(state, snippet, block)` on blocks that cover all candidates.

    Snippets come in order, so that one may use what earlier ones have written. The number of
    iterations follows the sizes of the ranges, not the length of the recording.
    """
    size = candidates.exists.shape[0]
    candidates = _axes.vary_like(candidates, candidates)
    within_starts = jnp.arange(search.starts, dtype=jnp.int32)
    within_ends = jnp.arange(search.ends, dtype=jnp.int32)

    def body(carry: tuple[Array, Array, Array, _State]) -> tuple[Array, Array, Array, _State]:
        snippet, past_ends, past_starts, state = carry
        first_start, last_start = (bound[snippet] for bound in candidates.starts)
        first_end, last_end = (bound[snippet] for bound in candidates.ends)
        starts, ends = (
            first_start + past_starts + within_starts,
            first_end + past_ends + within_ends,
        )
        block = _Block(
            starts=jnp.minimum(starts, last_start),
            ends=jnp.minimum(ends, last_end),
            is_start=starts <= last_start,
            is_end=ends <= last_end,
        )
        state = visit(state, snippet, block)
        past_starts = past_starts + search.starts
        row_done = first_start + past_starts > last_start
        past_starts = jnp.where(row_done, 0, past_starts)
        past_ends = past_ends + jnp.where(row_done, search.ends, 0)
        done = first_end + past_ends > last_end
        return (
            jnp.where(done, candidates.following[snippet], snippet),
            jnp.where(done, 0, past_ends),
            past_starts,
            state,
        )

    first = candidates.following[0]
    first = jnp.where(candidates.exists[0], 0, first)
    zero = jnp.zeros((), jnp.int32)
    carry = (first, *_axes.vary_like((zero, zero), candidates), state)
    return jax.lax.while_loop(lambda carry: carry[0] < size, body, carry)[3]
