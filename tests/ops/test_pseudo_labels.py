"""Tests of seeds, optimal sequences and best segments against plain Python and brute force."""

import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tal_jax.ops import pseudo_labels as ops


def _jit(op, *static, **defaults):
    """Compiles an op that returns NumPy arrays, since reading slices of others compiles again."""
    compiled = jax.jit(op, static_argnames=static)
    return lambda *args, **kwargs: jax.tree.map(np.asarray, compiled(*args, **defaults | kwargs))


_mine_seeds = _jit(ops.mine_seeds, "force_between", force_between="any")
_optimal_sequence = _jit(ops.optimal_sequence, delta=0.25)
_best = _jit(ops.best_segment, delta=0.25)
_best_of_each = _jit(ops.best_segments, delta=0.25)
_sequence_segments = _jit(ops.sequence_segments, "num_segments")


def _best_segment(*args, **kwargs):
    best = _best(*args, **kwargs)
    return best.segment, best.contrast


def _best_segments(*args, **kwargs):
    best = _best_of_each(*args, **kwargs)
    return best.segment, best.contrast


# ---- references


def _contrast(scores, start, end, delta=0.25, background=False):
    """Spec: mean inside less mean of `ceil(δ·len − 1e-4)` snippets each side; float64."""
    scores = np.asarray(scores, np.float64)
    scores = 1 - scores if background else scores
    width = math.ceil(delta * (end - start) - 1e-4)
    outside = np.concatenate([scores[max(start - width, 0) : start], scores[end : end + width]])
    return scores[start:end].mean() - (outside.mean() if outside.size else 0.0)


def _runs(labels):
    """Maximal runs of equal labels: start, end, label."""
    start, runs = 0, []
    for label, group in itertools.groupby(labels):
        end = start + len(list(group))
        runs.append((start, end, bool(label)))
        start = end
    return runs


def _sequence_score(scores, labels, delta=0.25):
    runs = _runs(labels)
    return sum(_contrast(scores, s, e, delta, background=not a) for s, e, a in runs) / len(runs)


def _reference_seeds(background, points, force_between, low=0.1, high=0.95):
    """The rules of `mine_seeds` one stretch and one point after the other."""
    size, num_classes = points.shape
    marked = [i for i in range(size) if points[i].any()]
    is_background = np.zeros(size, bool)
    for left, right in itertools.pairwise([-1, *marked, size]):
        inside = range(left + 1, right)
        sure = [i for i in inside if background[i] >= high]
        if not inside:
            continue
        peak = max(inside, key=lambda i: background[i])  # the first of equals
        if left < 0 and right == size:
            chosen = inside
        elif left < 0:
            chosen = range(max(sure, default=peak) + 1)
        elif right == size:
            chosen = range(min(sure, default=peak), size)
        elif len(sure) >= 2:
            chosen = range(sure[0], sure[-1] + 1)
        elif force_between == "any" or (points[left] & points[right]).any():
            chosen = [peak]
        else:
            chosen = sure
        is_background[list(chosen)] = True

    def reach(point, step):
        """Where growth from a point comes to a halt, and whether at another point."""
        i = point + step
        while 0 <= i < size and i not in marked:
            if is_background[i] or background[i] > low:
                return i, False
            i += step
        return i, 0 <= i < size

    action = points.copy()
    for point in marked:
        for step in (-1, 1):
            halt, met = reach(point, step)
            for i in range(point + step, halt, step):
                own, other = abs(i - point), abs(halt - i)
                nearer = own < other or (own == other and step > 0)  # the middle to the earlier
                if not met or nearer:
                    action[i] |= points[point]
    return action, is_background


def _reference_sequence(scores, action_seeds, background_seeds, delta=0.25):
    """Score of the best segmentation by dynamic programming in float64, O(T²) a run."""
    scores = np.asarray(scores, np.float64)
    size = len(scores)
    seeds = [(i, bool(a)) for i, a in enumerate(action_seeds) if a or background_seeds[i]]
    runs = [[first, first, kind] for first, kind in seeds[:1]]
    for i, kind in seeds[1:]:
        if kind == runs[-1][2]:
            runs[-1][1] = i
        else:
            runs.append([i, i, kind])
    sums = {
        kind: np.concatenate([[0], np.cumsum(scores if kind else 1 - scores)])
        for kind in (False, True)
    }
    value, starts = np.zeros(1), np.zeros(1, int)
    for (_, last, kind), following in itertools.zip_longest(runs, runs[1:]):
        ends = np.arange(last + 1, following[0] + 1) if following else np.array([size])
        start, end = starts[:, None], ends[None, :]
        width = np.ceil(delta * (end - start) - 1e-4).astype(int)
        left, right = np.maximum(start - width, 0), np.minimum(end + width, size)
        total = sums[kind]
        inner = (total[end] - total[start]) / (end - start)
        outside = (start - left) + (right - end)
        outer = total[start] - total[left] + total[right] - total[end]
        contrast = inner - np.where(outside > 0, outer / np.maximum(outside, 1), 0)
        value, starts = (value[:, None] + contrast).max(axis=0), ends
    return value[0] / len(runs)


def _beam_search(scores, action_seeds, background_seeds, width=25, delta=0.25):
    """The literature's search: the best partial segmentations of each boundary, by their sum."""
    size = len(scores)
    runs = _runs([a for a, b in zip(action_seeds, background_seeds, strict=True) if a or b])
    seeds = np.flatnonzero(action_seeds | background_seeds)
    beam = [(0.0, (0,))]
    for _, last, kind in runs:
        low, high = seeds[last - 1] + 1, seeds[last] if last < len(seeds) else size
        ends = range(low, high + 1) if last < len(seeds) else [size]
        grown = [
            (value + _contrast(scores, cuts[-1], end, delta, background=not kind), (*cuts, end))
            for value, cuts in beam
            for end in ends
        ]
        beam = sorted(grown, reverse=True)[:width]
    return beam[0][0] / len(runs)


def _random_seeds(rng, size, num_seeds):
    seeds = np.sort(rng.choice(size, num_seeds, replace=False))
    kinds = rng.random(num_seeds) < 0.5
    kinds[rng.integers(num_seeds)] = True
    action, background = np.zeros(size, bool), np.zeros(size, bool)
    action[seeds[kinds]], background[seeds[~kinds]] = True, True
    return action, background


def _reference_seeds_partly(background, points, force_between, done, clicked):
    """The rules of `mine_seeds` where some of the time is unknown, stretch by stretch."""
    size = len(points)
    is_point = points.any(axis=1)
    bounds = [i for i in range(size) if is_point[i] or not done[i]]
    is_background, action = clicked & ~is_point, points.copy()
    for left, right in itertools.pairwise([-1, *bounds, size]):
        inside = range(left + 1, right)
        if not inside:
            continue
        kinds = [
            "edge" if bound in (-1, size) else "point" if is_point[bound] else "unknown"
            for bound in (left, right)
        ]
        sure = [i for i in inside if background[i] >= 0.95 or clicked[i]]
        forced = force_between == "any" or "edge" in kinds or (points[left] & points[right]).any()
        if not sure and forced and "unknown" not in kinds:
            sure = [max(inside, key=lambda i: background[i])]
        if kinds == ["edge", "edge"]:
            sure = list(inside)
        if sure:
            first = inside[0] if kinds[0] == "edge" else sure[0]
            last = inside[-1] if kinds[1] == "edge" else sure[-1]
            is_background[first : last + 1] = True
        open_ = [i for i in inside if not is_background[i] and background[i] <= 0.1]
        joined = len(open_) == len(inside) and kinds == ["point", "point"]
        for bound, kind, step in ((left, kinds[0], 1), (right, kinds[1], -1)):
            i = bound + step
            while kind == "point" and i in open_:
                own, other = abs(i - bound), abs((right if step > 0 else left) - i)
                if not joined or own < other or (own == other and step > 0):
                    action[i] |= points[bound]
                i += step
    return action, is_background


# ---- seeds


def _mine(background, points, length=16, **kwargs):
    """Seeds of a short list of probabilities and `{snippet: classes}`, padded to one shape."""
    size = len(background)
    marked = np.zeros((length, 2), bool)
    for snippet, classes in points.items():
        marked[snippet, list(classes)] = True
    padded = np.pad(np.array(background, np.float32), (0, length - size), constant_values=1)
    seeds = _mine_seeds(padded, marked, where=np.arange(length) < size, **kwargs)
    assert not np.any(seeds.background[size:]) and not np.any(seeds.action[size:])
    action = np.array([".", "a", "b", "x"])[seeds.action @ np.array([1, 2])]  # x: both classes
    background = np.where(seeds.background, "#", ".")
    return "".join(action[:size]), "".join(background[:size])


A, B = (0,), (1,)
SEEDS = {
    # name: background, points, force_between, action, background seeds
    "two sure: all between the outermost": (
        [0, 0.3, 0.96, 0.2, 0.95, 0.3, 0], {0: A, 6: A}, "any", "a.....a", "..###..",
    ),
    "one sure: it alone": ([0, 0.3, 0.96, 0.2, 0.3, 0], {0: A, 5: A}, "any", "a....a", "..#..."),
    "none sure: the largest": ([0, 0.3, 0.2, 0.6, 0.4, 0], {0: A, 5: A}, "any", "a....a", "...#.."),
    "none sure, equal: the first of the largest": (
        [0, 0.6, 0.2, 0.6, 0], {0: A, 4: A}, "any", "a...a", ".#...",
    ),
    "left of the first: beyond the innermost sure": (
        [0.2, 0.99, 0.5, 0.97, 0.4, 0, 0.5], {5: A}, "any", ".....a.", "####..#",
    ),
    "right of the last: beyond the innermost sure": (
        [0.5, 0, 0.4, 0.97, 0.5, 0.99, 0.2], {1: A}, "any", ".a.....", "#..####",
    ),
    "none sure outside: beyond the largest": (
        [0.2, 0.5, 0.3, 0, 0.3, 0.6, 0.4], {3: A}, "any", "...a...", "##...##",
    ),
    "growth up to what is not low, exactly at the threshold": (
        [0.9, 0.11, 0.1, 0, 0.1, 0.05, 0.2, 0, 0.9], {3: A}, "any", "..aaaa...", "#.......#",
    ),
    "growth stops at background, low as it is": (
        [0.05, 0.02, 0.05, 0.08, 0.05, 0.01, 0.05], {1: A, 5: B}, "any", ".aa.bb.", "#..#..#",
    ),
    "points at both ends": ([0.7, 0.05, 0.9, 0.2, 0.9], {0: A, 4: B}, "any", "aa..b", "..#.."),
    "adjacent points have nothing between": (
        [0.9, 0.3, 0.3, 0.9], {1: A, 2: A}, "any", ".aa.", "#..#",
    ),
    "a point is no background, sure as it may be": (
        [0.99, 0.99, 0.99], {1: A}, "any", ".a.", "#.#",
    ),
    "no points": ([0, 0.3, 0.99], {}, "any", "...", "###"),
    "one snippet": ([0.99], {0: B}, "any", "b", "."),
    "two classes at one snippet": (
        [0.6, 0.05, 0.02, 0.05, 0.6], {2: (0, 1)}, "any", ".xxx.", "#...#",
    ),
    "same: forced between points of one class": (
        [0.9, 0, 0.05, 0.08, 0.05, 0, 0.9], {1: A, 5: A}, "same", ".aa.aa.", "#..#..#",
    ),
    "same: different classes share half and half": (
        [0.9, 0, 0.05, 0.08, 0.05, 0.05, 0, 0.9], {1: A, 6: B}, "same", ".aaabbb.", "#......#",
    ),
    "same: the middle of an odd stretch goes to the earlier": (
        [0.9, 0, 0.05, 0.08, 0.05, 0, 0.9], {1: B, 5: A}, "same", ".bbbaa.", "#.....#",
    ),
    "same: different classes that do not meet": (
        [0.9, 0, 0.05, 0.6, 0.7, 0.05, 0, 0.9], {1: A, 6: B}, "same", ".aa..bb.", "#......#",
    ),
    "same: sure snippets count between different classes": (
        [0.9, 0, 0.05, 0.96, 0.05, 0, 0.9], {1: A, 5: B}, "same", ".aa.bb.", "#..#..#",
    ),
    "same: one class in common is the same class": (
        [0.9, 0, 0.05, 0.04, 0, 0.9], {1: (0, 1), 4: B}, "same", ".x.bb.", "#.#..#",
    ),
    "same: the outer stretches are forced as ever": (
        [0.3, 0.4, 0, 0.2, 0.3], {2: A}, "same", "..a..", "##..#",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_by_hand(name):
    background, points, force_between, action, seeds = SEEDS[name]
    assert _mine(background, points, force_between=force_between) == (action, seeds)


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from(["any", "same"]))
def test_seeds_against_the_reference(seed, force_between):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 33))
    levels = np.array([0, 0.05, 0.1, 0.5, 0.9, 0.95, 1], np.float32)
    background = rng.choice(levels, 32, p=np.array([4, 4, 4, 1, 1, 1, 1]) / 16)
    points = rng.random((32, 3)) < rng.choice([0.01, 0.05, 0.3])
    where = np.arange(32) < length
    spoiled = np.where(where, background, np.nan)
    got = _mine_seeds(spoiled, points, force_between=force_between, where=where)
    action, seeds = _reference_seeds(background[:length], points[:length], force_between)
    np.testing.assert_array_equal(got.background, np.pad(seeds, (0, 32 - length)))
    np.testing.assert_array_equal(got.action, np.pad(action, ((0, 32 - length), (0, 0))))
    # Whatever happens: points keep their classes and background is nobody's action.
    assert not np.any(got.background & got.action.any(axis=1))
    assert np.all(got.action[:length] >= points[:length])


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from(["any", "same"]))
def test_seeds_in_partly_done_recordings_against_the_reference(seed, force_between):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 33))
    levels = np.array([0, 0.05, 0.1, 0.5, 0.9, 0.95, 1], np.float32)
    background = rng.choice(levels, 32, p=np.array([4, 4, 4, 1, 1, 1, 1]) / 16)
    points = rng.random((32, 3)) < rng.choice([0.01, 0.05, 0.3])
    clicked = rng.random(32) < rng.choice([0, 0.1])
    done = np.repeat(rng.random(8) < rng.choice([0, 0.5, 0.8, 1]), 4)
    where = np.arange(32) < length
    got = _mine_seeds(
        np.where(where, background, np.nan),
        points,
        force_between=force_between,
        where=where,
        done=done,
        background_points=clicked,
    )
    given = (values[:length] for values in (done, clicked))
    action, seeds = _reference_seeds_partly(
        background[:length], points[:length], force_between, *given
    )
    np.testing.assert_array_equal(got.background, np.pad(seeds, (0, 32 - length)))
    np.testing.assert_array_equal(got.action, np.pad(action, ((0, 32 - length), (0, 0))))
    # In unknown time there is nothing but what was clicked.
    unknown = where & ~done
    np.testing.assert_array_equal(got.action[unknown], points[unknown])
    clicks = clicked & ~points.any(axis=1)
    np.testing.assert_array_equal(got.background[unknown], clicks[unknown])


def test_thresholds_are_arguments():
    background = [0.7, 0.3, 0, 0.3, 0.5, 0.7]
    got = _mine(background, {2: A}, action_threshold=0.4, background_threshold=0.5)
    assert got == (".aaa..", "#...##")


def test_nothing_valid_has_no_seeds():
    got = _mine_seeds(
        np.full(32, np.nan, np.float32), np.ones((32, 3), bool), where=np.zeros(32, bool)
    )
    assert not np.any(got.background) and not np.any(got.action)


def test_seeds_of_a_batch():
    rng = np.random.default_rng(0)
    background = rng.random((3, 16)).astype(np.float32) ** 3
    points = rng.random((3, 16, 2)) < 0.1
    batched = _jit(jax.vmap(ops.mine_seeds))(background, points)
    for row in range(3):
        one = _mine_seeds(background[row], points[row])
        np.testing.assert_array_equal(batched.action[row], one.action)
        np.testing.assert_array_equal(batched.background[row], one.background)


# ---- optimal sequence

SIZE = 11


def _all_labelings(action_seeds, background_seeds):
    """All labelings that agree with the seeds and have as many segments as their runs."""
    labelings = np.array(list(itertools.product([False, True], repeat=len(action_seeds))))
    background_seeds = background_seeds & ~action_seeds
    agrees = labelings[:, action_seeds].all(axis=1) & ~labelings[:, background_seeds].any(axis=1)
    seeded = action_seeds | background_seeds
    count = 1 + np.sum(np.diff(action_seeds[seeded].astype(int)) != 0)
    segments = 1 + np.sum(labelings[:, 1:] != labelings[:, :-1], axis=1)
    return labelings[agrees & (segments == count)]


@pytest.mark.parametrize("delta", [0.25, 0.6])
@pytest.mark.parametrize("num_seeds", [1, 2, 3, 4, 6])
def test_sequence_is_the_best_of_all(num_seeds, delta):
    for seed in range(3):
        rng = np.random.default_rng([num_seeds, seed])
        scores = rng.random(SIZE).astype(np.float32)
        action, background = _random_seeds(rng, SIZE, num_seeds)
        got = _optimal_sequence(scores, action, background, delta=delta)
        labelings = _all_labelings(action, background)
        values = [_sequence_score(scores, labels, delta) for labels in labelings]
        assert float(got.score) == pytest.approx(max(values), abs=1e-6)
        assert any((got.labels == labels).all() for labels in labelings)
        assert float(got.score) == pytest.approx(
            _sequence_score(scores, got.labels, delta), abs=1e-6
        )
        assert got.score.dtype == jnp.float32


def _one(*snippets, size=SIZE):
    return np.isin(np.arange(size), snippets)


def test_sequence_by_hand():
    scores = _one(2, 3, 4, 6).astype(np.float32)
    got = _optimal_sequence(scores, _one(3), _one(0, 7))
    np.testing.assert_array_equal(got.labels, _one(2, 3, 4))
    # Background [0, 2) beside one 1; action beside two 0; background of six with a 1 in it, beside
    # two 1.
    np.testing.assert_allclose(got.score, (1 + 1 + 5 / 6) / 3, rtol=1e-6)


def test_action_wins_over_background():
    scores = np.linspace(0, 1, SIZE, dtype=np.float32)
    want = _optimal_sequence(scores, _one(5), _one(0, 9))
    got = _optimal_sequence(scores, _one(5), _one(0, 5, 9))
    np.testing.assert_array_equal(got.labels, want.labels)
    assert got.labels[5] and got.score == want.score


def test_no_action_seed_is_all_background_and_scores_zero():
    scores = np.random.default_rng(1).random(SIZE).astype(np.float32)
    for background in (_one(), _one(2, 7)):
        got = _optimal_sequence(scores, _one(), background)
        assert not np.any(got.labels) and got.score == 0


def test_only_action_seeds_are_one_segment_of_everything():
    scores = np.random.default_rng(2).random(SIZE).astype(np.float32)
    got = _optimal_sequence(scores, _one(2, 8), _one())
    assert np.all(got.labels)
    np.testing.assert_allclose(got.score, scores.mean(), rtol=1e-6)  # nothing is outside


def test_seeds_everywhere_leave_no_choice():
    action = _one(0, 3, 4, 8, 10)
    got = _optimal_sequence(np.full(SIZE, 0.5, np.float32), action, ~action)
    np.testing.assert_array_equal(got.labels, action)
    np.testing.assert_allclose(got.score, 0, atol=1e-6)


@pytest.mark.parametrize("action", [False, True])
def test_one_snippet(action):
    got = _optimal_sequence(np.full(1, 0.7, np.float32), np.array([action]), np.array([not action]))
    assert got.labels.tolist() == [action]
    np.testing.assert_allclose(got.score, 0.7 if action else 0, rtol=1e-6)


@pytest.mark.parametrize("num_seeds", [3, 6, 60])
def test_long_sequences_are_exact(num_seeds):
    rng = np.random.default_rng(num_seeds)
    scores = np.clip(np.convolve(rng.random(2040) * 2 - 0.5, np.ones(41) / 41, "valid"), 0, 1)
    scores = scores.astype(np.float32)
    action, background = _random_seeds(rng, 2000, num_seeds)
    got = _optimal_sequence(scores, action, background)
    assert np.all(got.labels[action]) and not np.any(got.labels[background])
    want = _reference_sequence(scores, action, background)
    assert float(got.score) == pytest.approx(want, abs=2e-6)
    assert float(got.score) == pytest.approx(_sequence_score(scores, got.labels), abs=2e-6)


@pytest.mark.parametrize("seed", range(3))
def test_never_below_a_beam_search(seed):
    rng = np.random.default_rng(seed)
    scores = rng.random(60).astype(np.float32)
    action, background = _random_seeds(rng, 60, 9)
    got = _optimal_sequence(scores, action, background)
    assert float(got.score) >= _beam_search(scores, action, background) - 1e-6
    assert float(got.score) == pytest.approx(
        _reference_sequence(scores, action, background), abs=1e-6
    )


def test_sequence_padding_and_vmap_change_nothing():
    rng = np.random.default_rng(3)
    scores = rng.random((4, SIZE)).astype(np.float32)
    seeds = [_random_seeds(rng, SIZE, n) for n in (1, 3, 5)]
    seeds.append((np.zeros(SIZE, bool), seeds[0][0]))  # no action
    action, background = (np.stack(x) for x in zip(*seeds, strict=True))
    one_by_one = [_optimal_sequence(*row) for row in zip(scores, action, background, strict=True)]
    where = np.arange(SIZE + 8) < SIZE

    def pad(values, filler):
        return np.pad(values, ((0, 0), (0, 8)), constant_values=filler)

    batched = _jit(jax.vmap(lambda *x: ops.optimal_sequence(*x, where=where)))
    got = batched(pad(scores, np.nan), pad(action, True), pad(background, True))
    for row, one in enumerate(one_by_one):
        np.testing.assert_array_equal(got.labels[row, :SIZE], one.labels)
        np.testing.assert_allclose(got.score[row], one.score, rtol=1e-5)
    assert not np.any(got.labels[:, SIZE:])


def test_sequence_gradient_matches_differences_at_fixed_labels():
    rng = np.random.default_rng(4)
    scores, where = rng.random(SIZE).astype(np.float32), np.arange(SIZE) < 9
    action, background = _one(3, 7), _one(0, 5)
    spoiled = np.where(where, scores, np.nan)

    def score(scores, where):
        found = ops.optimal_sequence(scores, action, background, where=where)
        return found.score, found.labels

    function = _jit(jax.value_and_grad(score, has_aux=True))
    (_, labels), gradient = function(spoiled, where)
    want = np.zeros(SIZE)
    for i in range(9):
        high, low = scores[:9].astype(np.float64), scores[:9].astype(np.float64)
        high[i] += 1e-4
        low[i] -= 1e-4
        difference = _sequence_score(high, labels[:9]) - _sequence_score(low, labels[:9])
        want[i] = difference / 2e-4
    np.testing.assert_allclose(gradient, want, atol=1e-5)
    (score, labels), gradient = function(np.full(SIZE, np.nan, np.float32), np.zeros(SIZE, bool))
    assert score == 0 and not np.any(labels)
    np.testing.assert_array_equal(gradient, np.zeros(SIZE))


# ---- segments of a sequence


def test_segments_against_groupby():
    rng = np.random.default_rng(5)
    for length in (1, 7, 30):
        labels, where = rng.random(30) < 0.5, np.arange(30) < length
        got = _sequence_segments(labels, num_segments=30, where=where)
        runs = _runs(labels[:length])
        np.testing.assert_array_equal(got.segments[: len(runs)], [run[:2] for run in runs])
        np.testing.assert_array_equal(got.action[: len(runs)], [run[2] for run in runs])
        np.testing.assert_array_equal(got.where, np.arange(30) < len(runs))
        assert not np.any(got.segments[len(runs) :]) and not np.any(got.action[len(runs) :])
        assert got.overflow == 0


def test_segments_end_with_what_is_valid():
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 0], bool)
    where = np.array([1, 1, 1, 0, 1, 1, 0, 1], bool)
    got = _sequence_segments(labels, num_segments=6, where=where)
    want = [[0, 2], [2, 3], [4, 5], [5, 6], [7, 8], [0, 0]]
    assert got.segments.tolist() == want
    assert got.action.tolist() == [False, True, True, False, False, False]
    assert got.where.tolist() == [True] * 5 + [False] and got.overflow == 0


def test_segments_that_do_not_fit_are_counted():
    labels = np.arange(9) % 2 == 1
    got = _sequence_segments(labels, num_segments=4)
    assert got.segments.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert got.where.all() and got.action.tolist() == [False, True, False, True]
    assert got.overflow == 5
    assert _sequence_segments(labels, num_segments=9).overflow == 0
    got = _sequence_segments(labels, num_segments=4, where=np.zeros(9, bool))
    assert not np.any(got.where) and not np.any(got.segments) and got.overflow == 0


# ---- best segment


def _reference_best(scores, points, blocked, delta=0.25):
    best = -np.inf
    for start in range(len(scores)):
        for end in range(start + 1, len(scores) + 1):
            if points[start:end].any() and not blocked[start:end].any():
                best = max(best, _contrast(scores, start, end, delta))
    return best


@pytest.mark.parametrize("size, num_points, num_blocked", [(12, 2, 2), (12, 4, 1), (90, 3, 2)])
def test_best_segment_is_the_best_of_all(size, num_points, num_blocked):
    for seed in range(3):
        rng = np.random.default_rng([size, num_points, seed])
        # A slow wave, so that among 90 snippets the best segment is long.
        wave = np.sin(np.arange(size) / 9 + seed) / 2 + 0.5
        scores = (0.7 * wave + 0.3 * rng.random(size)).astype(np.float32)
        points = _one(*rng.choice(size, num_points, replace=False), size=size)
        blocked = _one(*rng.choice(size, num_blocked, replace=False), size=size)
        segment, value = _best_segment(scores, points, blocked, delta=0.4)
        start, end = segment.tolist()
        want = _reference_best(scores, points, blocked, delta=0.4)
        assert float(value) == pytest.approx(want, abs=1e-6)
        if np.isfinite(want):
            assert points[start:end].any() and not blocked[start:end].any()
            assert _contrast(scores, start, end, 0.4) == pytest.approx(want, abs=1e-6)


def test_each_point_has_the_best_of_the_segments_that_it_begins():
    """Against all segments: grouped by their first point, and limited to any window."""
    rng = np.random.default_rng(5)
    for _ in range(10):
        scores = rng.uniform(size=14).astype(np.float32)
        points, blocked = np.zeros(14, bool), np.zeros(14, bool)
        points[rng.choice(14, 3, replace=False)] = True
        blocked[rng.choice(np.flatnonzero(~points), 2, replace=False)] = True
        segments, contrasts = map(np.asarray, _best_segments(scores, points, blocked))
        assert np.isfinite(contrasts).tolist() == points.tolist()
        allowed = [
            (start, end)
            for start in range(14)
            for end in range(start + 1, 15)
            if points[start:end].any() and not blocked[start:end].any()
        ]
        for low, high in ((0, 14), (2, 11), (5, 9)):
            window = [one for one in allowed if low <= one[0] and one[1] <= high]
            want = max((_contrast(scores, *one) for one in window), default=-np.inf)
            inside = (segments[:, 0] >= low) & (segments[:, 1] <= high)
            # The best of a point may reach out of the window where a worse one does not.
            got = np.where(inside, contrasts, -np.inf).max()
            assert got <= want + 1e-6
            if (low, high) == (0, 14):
                np.testing.assert_allclose(got, want, atol=1e-6)
        for place in np.flatnonzero(points):
            own = [one for one in allowed if one[0] + points[slice(*one)].argmax() == place]
            want = max(_contrast(scores, *one) for one in own)
            np.testing.assert_allclose(contrasts[place], want, atol=1e-6)
            np.testing.assert_allclose(_contrast(scores, *segments[place]), want, atol=1e-6)


def test_segments_of_the_sequence_are_among_those_that_compete():
    """So that the search for the best segment need not look at the sequence again."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        size = 24
        scores, background = rng.uniform(size=(2, size)).astype(np.float32)
        points = np.zeros((size, 2), bool)
        for label in range(2):
            points[rng.choice(size, 2, replace=False), label] = True
        seeds = _mine_seeds(background, points, force_between="same", action_threshold=0.4)
        known = np.asarray(seeds.background) | (points[:, 1] & ~points[:, 0])
        labels = _optimal_sequence(scores, seeds.action[:, 0], known).labels
        _, best = _best_segment(scores, points[:, 0], known)
        for start, end, action in _runs(np.asarray(labels)):
            if action:
                assert points[start:end, 0].any() and not known[start:end].any()
                assert _contrast(scores, start, end) <= best + 1e-6


def test_best_segment_crosses_points_of_its_own_class():
    scores = np.array([0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0, 0, 0, 0, 0], np.float32)
    segment, value = _best_segment(scores, _one(2, 4, size=12), _one(8, size=12))
    assert segment.tolist() == [1, 6]
    # ceil(5 / 4) = 2 outside on the right, one on the left.
    np.testing.assert_allclose(value, 0.9 - 0.2 / 3, rtol=1e-6)


def test_no_best_segment_without_a_free_point():
    scores = np.full(12, 0.5, np.float32)
    for points, blocked in (
        (_one(size=12), _one(3, size=12)),
        (_one(3, size=12), _one(3, size=12)),
    ):
        segment, value = _best_segment(scores, points, blocked)
        assert segment.tolist() == [0, 0] and value == -np.inf


def test_best_segment_ends_with_the_recording():
    # A segment that went on into the padding would have no outside and contrast more.
    scores = np.pad(np.array([0, 0, 0, 0.9, 0.3], np.float32), (0, 7))
    where, blocked = np.arange(12) < 5, _one(3, size=12)
    segment, value = _best_segment(scores, _one(4, size=12), blocked, where=where)
    assert segment.tolist() == [4, 5]
    np.testing.assert_allclose(value, 0.3 - 0.9, rtol=1e-6)


def test_best_segment_padding_and_vmap_change_nothing():
    rng = np.random.default_rng(6)
    scores = rng.random((3, 12)).astype(np.float32)
    points, blocked = rng.random((3, 12)) < 0.2, rng.random((3, 12)) < 0.1
    points[2] = False
    one_by_one = [_best_segment(*row) for row in zip(scores, points, blocked, strict=True)]
    where = np.arange(19) < 12
    batched = _jit(jax.vmap(lambda *x: ops.best_segment(*x, where=where)))
    best = batched(
        np.pad(scores, ((0, 0), (0, 7)), constant_values=np.nan),
        np.pad(points, ((0, 0), (0, 7)), constant_values=True),
        np.pad(blocked, ((0, 0), (0, 7))),
    )
    np.testing.assert_array_equal(best.segment, [segment for segment, _ in one_by_one])
    np.testing.assert_allclose(best.contrast, [value for _, value in one_by_one], rtol=1e-5)
