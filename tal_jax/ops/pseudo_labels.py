"""From points and scores to dense labels: seeds, the optimal sequence, the best segment."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tal_jax.ops import _bits, _cumsum, contrast


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seeds:
    """Snippets whose label is taken as known."""

    action: jax.Array  # [T, C] bool, grown from the points
    background: jax.Array  # [T] bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sequence:
    """An alternating segmentation into background and one class's action."""

    labels: jax.Array  # [T] bool, True on action
    score: jax.Array  # [] mean contrast of the segments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SequenceSegments:
    """The segments of a sequence, in temporal order."""

    segments: jax.Array  # [N, 2] int32, half-open snippets
    action: jax.Array  # [N] bool, True for action segments
    where: jax.Array  # [N] bool, True for the segments that exist
    overflow: jax.Array  # [] int32, segments beyond the first N


def mine_seeds(
    background: jax.Array,
    points: jax.Array,
    *,
    action_threshold: jax.typing.ArrayLike = 0.1,
    background_threshold: jax.typing.ArrayLike = 0.95,
    force_between: str = "any",
    where: jax.Array | None = None,
) -> Seeds:
    """Background between the points, action around them.

    Between two neighbouring points, everything between the outermost snippets of
    `p_bg ≥ background_threshold` is background; where fewer than two are, the one of largest `p_bg`
    is. Before the first and after the last point it is everything beyond the innermost such
    snippet. Action grows from each point while `p_bg ≤ action_threshold` and not background.

    `force_between="same"` serves recordings whose different actions abut: only two points of one
    class must have background between them; elsewhere only `p_bg ≥ background_threshold` counts,
    and two growths that meet share the stretch half and half.

    >>> import jax.numpy as jnp
    >>> points = jnp.array([[0, 1, 0, 0, 0, 0, 1, 0]], bool).T
    >>> background = jnp.array([0.3, 0.0, 0.1, 0.5, 0.9, 0.2, 0.0, 0.4])
    >>> seeds = mine_seeds(background, points)
    >>> print(seeds.background.astype(int), seeds.action[:, 0].astype(int))
    [1 0 0 0 1 0 0 1] [0 1 1 0 0 0 1 0]

    Args:
      background: `[T]` background probabilities `p_bg`.
      points: `[T, C]` True on the positive snippets of the points.
      action_threshold: largest `p_bg` into which action grows.
      background_threshold: least `p_bg` that is background by itself.
      force_between: `"any"` or `"same"` (static), see above.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `Seeds`. Without any point, every valid snippet is background.

    Raises:
      ValueError: if the shapes do not fit or `force_between` is neither.

    Source: Lee & Byun 2021 (learning action completeness from points); "same" is ours.
    """
    if force_between not in ("any", "same"):
        raise ValueError(f"force_between={force_between!r}; expected 'any' or 'same'")
    if background.ndim != 1 or points.ndim != 2 or points.shape[0] != background.shape[0]:
        raise ValueError(
            f"background has shape {background.shape}, points {points.shape}; "
            "expected [T] and [T, C]"
        )
    size = background.shape[0]
    where = jnp.ones(size, bool) if where is None else where
    points = points & where[:, None]
    is_point = points.any(axis=1)
    stretches = _Stretches.between(is_point, where)
    background_seeds = _background_seeds(
        jax.lax.stop_gradient(background), points, stretches, background_threshold, force_between
    )
    open_ = where & ~is_point & ~background_seeds & (background <= action_threshold)
    return Seeds(_grow(points, open_, stretches), background_seeds)


def optimal_sequence(
    scores: jax.Array,
    action_seeds: jax.Array,
    background_seeds: jax.Array,
    *,
    delta: jax.typing.ArrayLike = 0.25,
    where: jax.Array | None = None,
) -> Sequence:
    """The segmentation that agrees with all seeds and contrasts most, exactly.

    Consecutive seeds of one kind are one segment, so the seeds fix the number and the kinds of the
    segments; only the boundaries between them are free. A segment's contrast depends on its own two
    ends alone, hence dynamic programming over the boundaries finds the best mean contrast among all
    segmentations (action segments on the scores, background segments on `1 − scores`). The work is
    the sum over segments of their start candidates times their end candidates.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.8, 0.9, 0.7, 0.1, 0.0])
    >>> seeds = jnp.arange(6)
    >>> sequence = optimal_sequence(scores, seeds == 2, (seeds == 0) | (seeds == 5))
    >>> print(sequence.labels.astype(int), f"{sequence.score:.3f}")
    [0 1 1 1 0 0] 0.683

    Args:
      scores: `[T]` one class's confidences.
      action_seeds: `[T]` True where the class's action is known; wins over a background seed.
      background_seeds: `[T]` True where another label is known.
      delta: width of the outer region as in `inner_outer_contrast`.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `Sequence`. The score is differentiable in `scores` at fixed labels. Without an action seed
      everything is background and the score 0.

    Raises:
      ValueError: if the shapes differ.

    Source: optimal sequence search of Lee & Byun 2021, there a beam search.
    """
    if not scores.shape == action_seeds.shape == background_seeds.shape or scores.ndim != 1:
        raise ValueError(
            f"scores, action_seeds and background_seeds have shapes {scores.shape}, "
            f"{action_seeds.shape} and {background_seeds.shape}; expected [T] each"
        )
    size = scores.shape[0]
    where = jnp.ones(size, bool) if where is None else where
    action_seeds = action_seeds & where

    def search():
        sums = _cumsum.prefix_sum(scores, where=where)
        labels, starts = _best_runs(
            jax.lax.stop_gradient(sums), action_seeds, background_seeds & where, delta, where
        )
        return Sequence(labels, _mean_contrast(sums, labels, starts, delta, where))

    # Of the slots for a recording's classes, many are empty.
    nothing = Sequence(jnp.zeros(size, bool), jnp.zeros((), jnp.float32))
    return jax.lax.cond(action_seeds.any(), search, lambda: nothing)


def sequence_segments(
    labels: jax.Array, *, num_segments: int, where: jax.Array | None = None
) -> SequenceSegments:
    """Lists the maximal runs of equal labels.

    >>> import jax.numpy as jnp
    >>> runs = sequence_segments(jnp.array([0, 1, 1, 0], bool), num_segments=4)
    >>> print(runs.segments.tolist(), runs.action.astype(int), runs.where.astype(int))
    [[0, 1], [1, 3], [3, 4], [0, 0]] [0 1 0 0] [1 1 1 0]

    Args:
      labels: `[T]` bool.
      num_segments: length of the lists (static); more segments than that are counted as overflow.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      `SequenceSegments` with `N = num_segments`.
    """
    size = labels.shape[0]
    where = jnp.ones(size, bool) if where is None else where
    length = where.sum(dtype=jnp.int32)
    begins = where & jnp.concatenate([jnp.ones(1, bool), labels[1:] != labels[:-1]])
    total = begins.sum(dtype=jnp.int32)
    starts = jnp.nonzero(begins, size=num_segments + 1, fill_value=size)[0].astype(jnp.int32)
    starts = jnp.minimum(starts, length)
    exists = jnp.arange(num_segments, dtype=jnp.int32) < total
    segments = jnp.where(exists[:, None], jnp.stack([starts[:-1], starts[1:]], axis=-1), 0)
    action = exists & labels[jnp.minimum(segments[:, 0], size - 1)]
    return SequenceSegments(segments, action, exists, jnp.maximum(total - num_segments, 0))


def best_segment(
    scores: jax.Array,
    points: jax.Array,
    blocked: jax.Array,
    *,
    delta: jax.typing.ArrayLike = 0.25,
    where: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The segment of highest contrast that contains a point and nothing blocked.

    All such segments compete, whatever their length.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.8, 0.9, 0.7, 0.1, 1.0])
    >>> position = jnp.arange(6)
    >>> segment, contrast = best_segment(scores, position == 2, position == 5)
    >>> print(segment, f"{contrast:.3f}")
    [1 4] 0.700

    Args:
      scores: `[T]` one class's confidences.
      points: `[T]` True on the positive snippets of the class.
      blocked: `[T]` True on other classes' points and on background seeds.
      delta: width of the outer region as in `inner_outer_contrast`.
      where: `[T]` True on the valid snippets, a prefix; default all.

    Returns:
      The segment `[2]` (half-open snippets) and its contrast `[]`; `[0, 0]` and −inf without any.
    """
    segments, contrasts = best_segments(scores, points, blocked, delta=delta, where=where)
    winner = contrasts.argmax()
    return segments[winner], contrasts[winner]


def best_segments(
    scores: jax.Array,
    points: jax.Array,
    blocked: jax.Array,
    *,
    delta: jax.typing.ArrayLike = 0.25,
    where: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`best_segment` for each point: among the segments whose first point it is.

    Every segment has one first point, so the work is the number of candidates, and the best of
    these is the best of all.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.8, 0.9, 0.1, 0.6, 0.2])
    >>> at = jnp.arange(6)
    >>> segments, contrasts = best_segments(scores, (at == 2) | (at == 4), at == 3)
    >>> print(segments[2], segments[4], jnp.isfinite(contrasts).astype(int))
    [1 3] [4 5] [0 0 1 0 1 0]

    Args:
      scores: `[T]` as in `best_segment`, as the others.
      points: `[T]`.
      blocked: `[T]`.
      delta: width of the outer region.
      where: `[T]`.

    Returns:
      Segments `[T, 2]` int32 and contrasts `[T]`; `[0, 0]` and −inf where no point is.
    """
    size = scores.shape[0]
    where = jnp.ones(size, bool) if where is None else where
    points = points & where & ~blocked
    at = jnp.arange(size, dtype=jnp.int32)
    closed = blocked | ~where
    low = jnp.maximum(_bits.last_flag(closed), _last_before(points)) + 1
    rectangles = _Rectangles(
        exists=points,
        starts=(low, at),
        ends=(at + 1, _bits.next_flag(closed)),
    )
    sums = _cumsum.prefix_sum(jax.lax.stop_gradient(scores), where=where)
    length = where.sum(dtype=jnp.int32)

    def keep_best(best, point, starts, ends, is_start, is_end):
        values = contrast.contrast_between(
            _cumsum.seen_from(sums, point),
            starts[None, :],
            ends[:, None],
            delta=delta,
            length=length,
        )
        values = jnp.where(is_start[None, :] & is_end[:, None], values, -jnp.inf).ravel()
        winner = _first_highest(values)
        row, column = jnp.divmod(winner, len(starts))
        segments, contrasts = best
        # Elsewhere nothing is written.
        place = jnp.where(values[winner] > contrasts[point], point, size)
        segment = jnp.stack([starts[column], ends[row]])
        return (
            segments.at[place].set(segment, mode="drop"),
            contrasts.at[place].set(values[winner], mode="drop"),
        )

    nothing = (jnp.zeros((size, 2), jnp.int32), jnp.full(size, -jnp.inf, scores.dtype))
    return _for_each_tile(rectangles, keep_best, nothing)


# --- seeds ---


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Stretches:
    """The stretches between neighbouring points, and which one every snippet lies in."""

    index: jax.Array  # [T] int32: how many points are at or before the snippet; 0: before the first
    inside: jax.Array  # [T] bool: valid and no point itself
    before: jax.Array  # [T] int32: the last point at or before the snippet, −1 if none
    after: jax.Array  # [T] int32: the first point at or after it, T if none

    @classmethod
    def between(cls, is_point: jax.Array, where: jax.Array) -> "_Stretches":
        return cls(
            index=jnp.cumsum(is_point, dtype=jnp.int32),
            inside=where & ~is_point,
            before=_bits.last_flag(is_point),
            after=_bits.next_flag(is_point),
        )


def _background_seeds(background, points, stretches, threshold, force_between):
    size = background.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    has_before, has_after = stretches.before >= 0, stretches.after < size

    def per_stretch(reduce, values, chosen, empty):
        chosen = chosen & stretches.inside
        reduced = reduce(jnp.where(chosen, values, empty), stretches.index, num_segments=size + 1)
        return reduced[stretches.index]

    sure = stretches.inside & (background >= threshold)
    first_sure = per_stretch(jax.ops.segment_min, at, sure, size)
    last_sure = per_stretch(jax.ops.segment_max, at, sure, -1)
    highest = per_stretch(jax.ops.segment_max, background, stretches.inside, -jnp.inf)
    peak = per_stretch(jax.ops.segment_min, at, background == highest, size)
    forced = ~has_before | ~has_after
    if force_between == "any":
        forced = jnp.ones_like(forced)
    else:
        classes_before = points[jnp.maximum(stretches.before, 0)]
        classes_after = points[jnp.minimum(stretches.after, size - 1)]
        forced = forced | (classes_before & classes_after).any(axis=1)
    # With no sure snippet the peak stands for both ends, or nothing does where none is forced.
    first = jnp.where(last_sure >= 0, first_sure, jnp.where(forced, peak, size))
    last = jnp.where(last_sure >= 0, last_sure, jnp.where(forced, peak, -1))
    # Outside the outermost points the background reaches to the recording's end.
    beyond_left = ~has_before | (at >= first)
    beyond_right = ~has_after | (at <= last)
    outside = ~has_before & ~has_after
    return stretches.inside & (outside | (beyond_left & beyond_right))


def _grow(points, open_, stretches):
    """Spreads each point's classes over the open snippets that connect to it."""
    size = open_.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    shut = stretches.inside & ~open_
    last_shut, next_shut = _bits.last_flag(shut), _bits.next_flag(shut)
    from_before = open_ & (stretches.before >= 0) & (last_shut < stretches.before)
    from_after = open_ & (stretches.after < size) & (next_shut > stretches.after)
    nearer_before = at - stretches.before <= stretches.after - at
    meet = from_before & from_after
    from_before, from_after = (
        from_before & (~meet | nearer_before),
        from_after & (~meet | ~nearer_before),
    )
    classes_before = points[jnp.maximum(stretches.before, 0)] & from_before[:, None]
    classes_after = points[jnp.minimum(stretches.after, size - 1)] & from_after[:, None]
    return points | classes_before | classes_after


# --- the dynamic programme ---


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Rectangles:
    """Segment candidates: all pairs of a start and an end range, some pairs of ranges.

    Each stands at one snippet, and they are visited in the order of time.
    """

    exists: jax.Array  # [T] bool
    starts: tuple[jax.Array, jax.Array]  # [T] int32 each: the first and the last start, inclusive
    ends: tuple[jax.Array, jax.Array]  # and end


def _tile() -> tuple[int, int]:
    """Ends × starts that one iteration of the segment searches scores at once.

    On a CPU enough to amortise the loop's overhead, and so few that the usual stretch between two
    points wastes little (with up to 32 starts XLA computes scores and maxima in one loop, which it
    does not vectorise); an accelerator takes as long for many as for few.
    """
    return (16, 40) if jax.default_backend() == "cpu" else (128, 128)


def _best_runs(sums, action, background, delta, where):
    """The best segmentation: `[T]` bool labels, and where the run of each snippet starts `[T]`.

    Boundaries lie after the last seed of one run of like seeds and not after the first seed of the
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
    rectangles = _Rectangles(
        exists=begins,
        starts=(low, high),
        ends=tuple(jnp.where(is_last, length, bound[after]) for bound in (low, high)),
    )

    def totals(value, place, starts, ends, valid):
        contrasts = contrast.contrast_between(
            _cumsum.seen_from(sums, place),  # the first seed of the run, which all candidates hold
            starts,
            ends,
            delta=delta,
            length=length,
            inverted=~action[place],
        )
        return jnp.where(valid, value[starts] + contrasts, -jnp.inf)

    def relax(value, place, starts, ends, is_start, is_end):
        # Starts go down the rows, because a CPU finds maxima of columns faster.
        best = totals(value, place, starts[:, None], ends[None, :], is_start[:, None]).max(axis=0)
        # Ranges of different boundaries are disjoint, so `value` is final once it is read.
        places = jnp.where(is_end, ends, size + 1)
        return value.at[places].set(jnp.maximum(best, value[ends]), mode="drop")

    value = jnp.full(size + 1, -jnp.inf, sums.rest.dtype).at[0].set(0)
    value = _for_each_tile(rectangles, relax, value)

    # Backwards, each run looks again for the start that its end came from: so only the values need
    # to be kept, and an iteration needs no argmax, which is slow.
    within = jnp.arange(_tile()[1], dtype=jnp.int32)

    def look_back(state):
        place, first, end, best, start, marks = state
        starts, last = low[place] + first + within, high[place]
        values = totals(value, place, jnp.minimum(starts, last), end, starts <= last)
        winner = _first_highest(values)
        better = values[winner] > best
        best, start = (
            jnp.where(better, values[winner], best),
            jnp.where(better, starts[winner], start),
        )
        done = starts[-1] >= last
        kind = jnp.where(action[place], 2, 1)
        marks = marks.at[jnp.where(done, start, size)].set(kind, mode="drop")
        return (
            jnp.where(done, earlier[place], place),
            jnp.where(done, 0, first + len(within)),
            jnp.where(done, start, end),
            jnp.where(done, -jnp.inf, best),
            start,
            marks,
        )

    earlier = _last_before(begins)
    state = (
        _bits.last_flag(begins)[-1],
        jnp.zeros((), jnp.int32),
        length,
        jnp.asarray(-jnp.inf, value.dtype),
        jnp.zeros((), jnp.int32),
        jnp.zeros(size, jnp.int32),
    )
    marks = jax.lax.while_loop(lambda state: state[0] >= 0, look_back, state)[-1]
    # A mark tells the kind of the run that starts there.
    starts = _bits.last_flag(marks > 0)
    return (marks[starts] == 2) & where, starts


def _mean_contrast(sums, labels, starts, delta, where):
    """The mean over the runs; the last snippet of each speaks for it."""
    length = where.sum(dtype=jnp.int32)
    ends = 1 + jnp.arange(labels.shape[0], dtype=jnp.int32)
    speaks = where & ((jnp.append(starts[1:], -1) != starts) | (ends == length))
    contrasts = contrast.contrast_between(
        sums, starts, ends, delta=delta, length=length, inverted=~labels
    )
    return jnp.where(speaks, contrasts, 0).sum() / jnp.maximum(speaks.sum(dtype=jnp.float32), 1)


def _first_after(flags):
    """`[T]` int32: the first True flag behind each place, T if there is none."""
    return jnp.append(_bits.next_flag(flags), flags.shape[0])[1:]


def _last_before(flags):
    """`[T]` int32: the last True flag before each place, −1 if there is none."""
    return jnp.pad(_bits.last_flag(flags), (1, 0), constant_values=-1)[:-1]


def _first_highest(values):
    """Index of the highest of some values, as argmax, but many times as fast on a CPU."""
    size = values.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    return jnp.minimum(jnp.min(jnp.where(values == values.max(), at, size)), size - 1)


def _for_each_tile(rectangles: _Rectangles, visit: Callable, state):
    """Calls `state = visit(state, place, starts, ends, is_start, is_end)` on tiles covering all.

    The last two tell which of a tile's starts and ends belong to its rectangle. The rectangles come
    in order, so that one may read what earlier ones wrote. The number of iterations follows their
    sizes, not the length of the recording.
    """
    size = rectangles.exists.shape[0]
    num_ends, num_starts = _tile()
    within_starts = jnp.arange(num_starts, dtype=jnp.int32)
    within_ends = jnp.arange(num_ends, dtype=jnp.int32)
    following = _first_after(rectangles.exists)

    def body(carry):
        place, past_ends, past_starts, state = carry
        first_start, last_start = (bound[place] for bound in rectangles.starts)
        first_end, last_end = (bound[place] for bound in rectangles.ends)
        starts, ends = (
            first_start + past_starts + within_starts,
            first_end + past_ends + within_ends,
        )
        state = visit(
            state,
            place,
            jnp.minimum(starts, last_start),
            jnp.minimum(ends, last_end),
            starts <= last_start,
            ends <= last_end,
        )
        past_starts = past_starts + num_starts
        row_done = first_start + past_starts > last_start
        past_starts = jnp.where(row_done, 0, past_starts)
        past_ends = past_ends + jnp.where(row_done, num_ends, 0)
        done = first_end + past_ends > last_end
        return (
            jnp.where(done, following[place], place),
            jnp.where(done, 0, past_ends),
            past_starts,
            state,
        )

    zero = jnp.zeros((), jnp.int32)
    carry = (_bits.next_flag(rectangles.exists)[0], zero, zero, state)
    return jax.lax.while_loop(lambda carry: carry[0] < size, body, carry)[3]
