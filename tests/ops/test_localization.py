"""Tests of the way from score sequences to detections, on curves that can be read off by eye."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.config import rsmp_config
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.inference.localize import localize_group
from tal_jax.ops import localization


def _jit(op, *static, **defaults):
    """Compiles a function that returns NumPy arrays, since reading slices compiles as well."""
    compiled = jax.jit(op, static_argnames=static)
    return lambda *args, **kwargs: jax.tree.map(np.asarray, compiled(*args, **defaults | kwargs))


_runs = _jit(localization.threshold_runs, "max_runs")


def _threshold_runs(*args, **kwargs):
    runs = _runs(*args, **kwargs)
    return runs.segments, runs.where, runs.overflow


_localize = _jit(localization.localize, "max_runs", max_runs=8)
_present_classes = _jit(localization.present_classes)


def _curve(*values):
    return np.array(values, np.float32)


# ---- runs


def _upsampled_runs(curve, threshold, factor=1000):
    """The literature's way: the curve as an array many times longer."""
    times = (np.arange(len(curve) * factor) + 0.5) / factor
    above = np.interp(times, np.arange(len(curve)) + 0.5, curve) > threshold
    edges = np.diff(np.pad(above, 1).astype(int))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1) / factor


@pytest.mark.parametrize("length", [1, 2, 9, 14])
def test_runs_against_upsampling(length):
    thresholds = np.array([0.05, 0.33, 0.55, 0.95, 1.2, -0.4], np.float32)
    where = np.arange(14) < length
    for seed in range(5):
        rng = np.random.default_rng([length, seed])
        curve = (rng.integers(0, 11, 14) / 10).astype(np.float32)
        spoiled = np.where(where, curve, np.nan)
        runs, exists, overflow = _threshold_runs(spoiled, thresholds, max_runs=40, where=where)
        want = np.concatenate([_upsampled_runs(curve[:length], h) for h in thresholds])
        assert exists.sum() == len(want) and exists[: len(want)].all() and overflow == 0
        np.testing.assert_allclose(runs[: len(want)], want, atol=1.1e-3)
        assert not np.any(runs[len(want) :])
        assert runs.dtype == np.float32


RUNS = {
    "first snippet only": ([1, 0, 0, 0, 0, 0], 0.5, [[0, 1]]),
    "last snippet only": ([0, 0, 0, 0, 0, 1], 0.25, [[4.75, 6]]),
    "both ends": ([1, 1, 1, 1, 1, 1], 0.5, [[0, 6]]),
    "both ends and a gap": ([1, 1, 0, 0, 1, 1], 0.5, [[0, 2], [4, 6]]),
    "never above": ([0.5, 0.4, 0.3, 0.2, 0.1, 0], 0.5, []),
    "equal is not above": ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 0.5, []),
    "from equal to equal": ([0, 0.5, 1, 0.5, 0, 0], 0.5, [[1.5, 3.5]]),
    "falls to equal between two runs": ([0, 1, 0.5, 1, 0, 0], 0.5, [[1, 2.5], [2.5, 4]]),
    "above zero": ([0, 0, 0.2, 0, 0, 0], 0, [[1.5, 3.5]]),
    "all at zero": ([0, 0, 0, 0, 0, 0], 0, []),
    "a quarter of the way": ([0, 0, 0.8, 0.8, 0, 0], 0.2, [[1.75, 4.25]]),
    "a peak of little height": ([0, 0.5, 0.51, 0.5, 0, 0], 0.5, [[1.5, 3.5]]),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_by_hand(name):
    curve, threshold, want = RUNS[name]
    runs, exists, _ = _threshold_runs(_curve(*curve), _curve(threshold), max_runs=3)
    np.testing.assert_allclose(runs[exists], np.reshape(want, (-1, 2)), atol=1e-6)


def test_runs_go_threshold_by_threshold():
    curve = _curve(0, 1, 0, 0.5, 0, 1)
    runs, exists, overflow = _threshold_runs(curve, _curve(0.75, 0.25), max_runs=9)
    assert exists.sum() == 5 and overflow == 0
    want = [[1.25, 1.75], [5.25, 6], [0.75, 2.25], [3, 4], [4.75, 6]]
    np.testing.assert_allclose(runs[:5], want, atol=1e-6)


def test_runs_that_do_not_fit_are_counted():
    curve = _curve(0, 1, 0, 0.5, 0, 1)
    runs, exists, overflow = _threshold_runs(curve, _curve(0.75, 0.25), max_runs=3)
    assert exists.all() and overflow == 2
    np.testing.assert_allclose(runs, [[1.25, 1.75], [5.25, 6], [0.75, 2.25]], atol=1e-6)


def test_runs_of_nothing_valid():
    curve, where = np.full(6, np.nan, np.float32), np.zeros(6, bool)
    runs, exists, overflow = _threshold_runs(curve, _curve(0.5, -1), max_runs=3, where=where)
    assert not np.any(runs) and not np.any(exists) and overflow == 0


# ---- classes


def test_present_classes():
    def present(video, threshold):
        return _present_classes(video, threshold=threshold).tolist()

    video = _curve(0.2, 0.75, 0.5, 0.49)
    assert present(video, 0.5) == [False, True, True, False]  # reached is enough
    assert present(video, 0.1) == [True] * 4
    assert present(video, 0.9) == [False, True, False, False]  # the best one always
    assert present(video * 0, 0.9) == [True, False, False, False]  # one, even so
    rows = present(np.stack([video, video * 0]), 0.9)
    assert rows == [[False, True, False, False], [True, False, False, False]]


# ---- detections


def _contrast(curve, start, end, delta=0.25):
    """Contrast of a curve by the midpoint rule in float64."""

    def integral(start, end):
        times = start + (np.arange(4000) + 0.5) / 4000 * (end - start)
        curve64 = np.asarray(curve, np.float64)
        return np.interp(times, np.arange(len(curve)) + 0.5, curve64).mean() * (end - start)

    width = delta * (end - start)
    left, right = max(start - width, 0), min(end + width, len(curve))
    outside = (start - left) + (right - end)
    outer = integral(left, start) + integral(end, right)
    return integral(start, end) / (end - start) - (outer / outside if outside else 0)


BUMP = _curve(0, 0, 0, 0.5, 1, 1, 1, 0.5, 0, 0, 0, 0)
LATE = _curve(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.6, 0.8)
THRESHOLDS = {"thresholds": _curve(0, 0.25), "foreground_thresholds": _curve(0.5)}


def _detect(scores, foreground, classes, video=(1.0, 1.4 / 3), **kwargs):
    options = {"where": np.ones(12, bool)} | THRESHOLDS | kwargs
    return _localize(scores, foreground, _curve(*video), classes=np.array(classes), **options)


def test_a_bump_is_found_with_its_exact_ends():
    scores, foreground = np.stack([BUMP, LATE], axis=1), np.maximum(BUMP, LATE)
    found = _detect(scores, foreground, [True, True])
    assert found.segments.shape == (2, 16, 2) and found.overflow == 0
    candidates = {
        0: [(2.5, 8.5), (3, 8), (3.5, 7.5), (10 + 1 / 3, 12)],
        1: [(9.5, 12), (9.5 + 0.25 / 0.6, 12), (3.5, 7.5), (10 + 1 / 3, 12)],
    }
    for label, (curve, video) in enumerate([(BUMP, 1.0), (LATE, 1.4 / 3)]):
        kept = found.segments[label][found.where[label]]
        values = {c: _contrast(curve, *c) + 0.2 * video for c in candidates[label]}
        best = max(values, key=values.get)
        np.testing.assert_allclose(kept[found.scores[label][found.where[label]].argmax()], best)
        for segment, value in zip(kept, found.scores[label][found.where[label]], strict=True):
            match = min(values, key=lambda c: abs(c[0] - segment[0]) + abs(c[1] - segment[1]))
            np.testing.assert_allclose(segment, match, atol=1e-5)
            np.testing.assert_allclose(value, values[match], atol=1e-4)
        overlap = _iou(kept[:, None], kept[None]) - np.eye(len(kept))
        assert overlap.max() < 0.7


def _iou(a, b):
    shared = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    shared = np.maximum(shared, 0)
    return shared / (a[..., 1] - a[..., 0] + b[..., 1] - b[..., 0] - shared)


def test_only_the_classes_asked_for_are_found():
    scores, foreground = np.stack([BUMP, LATE], axis=1), BUMP
    both = _detect(scores, foreground, [True, True])
    one = _detect(scores, foreground, [False, True])
    assert both.where[0].any() and not one.where[0].any()
    np.testing.assert_array_equal(one.where[1], both.where[1])
    np.testing.assert_array_equal(one.scores[1], both.scores[1])
    assert not _detect(scores, foreground, [False, False]).where.any()


def test_a_higher_overlap_keeps_more():
    scores, foreground = np.stack([BUMP, LATE], axis=1), np.maximum(BUMP, LATE)
    strict = _detect(scores, foreground, [True, True], iou_threshold=0.3)
    loose = _detect(scores, foreground, [True, True], iou_threshold=1.0)
    assert strict.where[0].sum() == 2  # the bump and the other class's foreground
    assert loose.where[0].sum() == 4


def test_soft_suppression_keeps_all_with_lower_scores():
    scores, foreground = np.stack([BUMP, LATE], axis=1), np.maximum(BUMP, LATE)
    loose = _detect(scores, foreground, [True, True], iou_threshold=1.0)
    soft = _detect(scores, foreground, [True, True], soft_sigma=0.3)
    np.testing.assert_array_equal(soft.where, loose.where | soft.where)
    assert soft.where[0].sum() == 4  # two runs of its own, two of the foreground
    for label in range(2):
        kept = soft.where[label]
        before = _detect(scores, foreground, [True, True], soft_sigma=1e6).scores[label][kept]
        after = soft.scores[label][kept]
        assert after.max() == pytest.approx(before.max()) and (after <= before + 1e-6).all()
        assert (after < before - 1e-3).any()


def test_duplicates_below_a_hundredth_of_the_best_are_dropped():
    """By hand: each duplicate is lowered by all that are better, by exp(-2) each time."""
    segments = np.array([[0, 10]] * 4 + [[20, 30], [0, 9]], np.float32)
    scores = np.array([1.0, 0.9, 0.9, 0.9, 0.005, -0.2], np.float32)
    lower = jax.jit(localization._lower)
    lowered, keep = lower(segments, scores, np.ones(6, bool), sigma=0.5)
    want = [1.0, 0.9 * np.exp(-2), 0.9 * np.exp(-4), 0.9 * np.exp(-6), 0.005, -0.2]
    np.testing.assert_allclose(lowered, want, rtol=1e-5)
    # The fourth scores 0.002. What no better one overlaps stays, however little it scores, and so
    # does what soft-NMS does not lower.
    assert keep.tolist() == [True, True, True, False, True, True]
    masked = np.array([False, True, True, True, True, False])
    _, keep = lower(segments, scores, masked, sigma=0.5)
    assert keep.tolist() == masked.tolist()


@pytest.mark.slow
def test_either_kind_of_threshold_alone():
    scores, foreground = np.stack([BUMP, LATE], axis=1), np.maximum(BUMP, LATE)
    none = np.zeros(0, np.float32)
    own = _detect(scores, foreground, [True, True], foreground_thresholds=none)
    shared = _detect(scores, foreground, [True, True], thresholds=none)
    assert not own.where[:, 8:].any() and own.where[:, :8].any(axis=1).all()
    assert not shared.where[:, :8].any() and shared.where[:, 8:].sum(axis=1).tolist() == [2, 2]


def test_a_peak_that_barely_crosses_a_threshold_is_no_detection():
    peak = np.full(12, 0.1, np.float32)
    peak[5] = np.nextafter(np.float32(0.5), np.float32(1))
    runs = _threshold_runs(peak, _curve(0.5), where=np.ones(12, bool), max_runs=4)
    assert runs[1].sum() == 1 and np.diff(runs[0][np.asarray(runs[1])]) == 0
    found = _detect(np.stack([peak, BUMP], axis=1), peak, [True, True], thresholds=_curve(0.5))
    assert not np.any(found.where[0])
    lengths = np.diff(found.segments[1])[np.asarray(found.where[1])]
    assert lengths.size and np.all(lengths > 0)


def test_what_does_not_fit_is_counted_for_the_classes_asked_for():
    comb = _curve(*[1, 0] * 6)
    scores = np.stack([comb, comb], axis=1)
    # Six runs above each of two thresholds a class, six of the foreground.
    for classes, overflow in (([True, True], 10), ([False, True], 10), ([False] * 2, 4)):
        assert _detect(scores, comb, classes, max_runs=2).overflow == overflow


def test_padding_and_vmap_change_nothing():
    rng = np.random.default_rng(0)
    scores = rng.random((3, 12, 2)).astype(np.float32) ** 2
    foreground = scores.max(axis=2)
    classes = np.array([[True, True], [False, True], [True, False]])
    one_by_one = [_detect(*row) for row in zip(scores, foreground, classes, strict=True)]
    where = np.arange(19) < 12

    def localize(scores, foreground, classes):
        video, options = _curve(1.0, 1.4 / 3), THRESHOLDS | dict(max_runs=8, where=where)
        return localization.localize(scores, foreground, video, classes=classes, **options)

    batched = _jit(jax.vmap(localize))(
        np.pad(scores, ((0, 0), (0, 7), (0, 0)), constant_values=np.nan),
        np.pad(foreground, ((0, 0), (0, 7)), constant_values=np.nan),
        classes,
    )
    for row, one in enumerate(one_by_one):
        np.testing.assert_array_equal(batched.where[row], one.where)
        np.testing.assert_allclose(batched.segments[row], one.segments, rtol=1e-5)
        kept = one.where
        np.testing.assert_allclose(
            batched.scores[row][kept], one.scores[kept], rtol=1e-5, atol=1e-6
        )
        assert batched.overflow[row] == one.overflow


def test_nothing_valid_gives_nothing():
    scores, foreground = np.full((12, 2), np.nan, np.float32), np.full(12, np.nan, np.float32)
    found = _detect(scores, foreground, [True, True], where=np.zeros(12, bool))
    assert not found.where.any() and found.overflow == 0
    assert np.all(np.isfinite(found.segments))


def test_a_recording_full_of_action():
    everything = np.ones((12, 2), np.float32)
    found = _detect(everything, np.ones(12, np.float32), [True, True], video=(1, 1))
    np.testing.assert_array_equal(found.where.sum(axis=1), [1, 1])
    kept = found.segments[found.where]
    np.testing.assert_allclose(kept, [[0, 12]] * 2)
    # Nothing is outside: the mean, plus the video score's share.
    np.testing.assert_allclose(found.scores[found.where], [1.2, 1.2], rtol=1e-6)
    assert found.scores.dtype == jnp.float32


# ---- saved scores


def _saved(cumulative, video=(1.0, 1.4 / 3)):
    """The scores of twelve new snippets, a second each, of a recording as long as it takes."""
    scores, foreground = np.stack([BUMP, LATE], axis=1), np.maximum(BUMP, LATE)
    sequence = Predictions(scores, foreground, _curve(*video), _curve(*cumulative))
    return RecordingPredictions(Grid(1, 1, 1), len(cumulative) - 1.0, sequence, sequence)


def _localize_group(recordings, *, max_runs, **changes):
    options = rsmp_config().localization
    options.soft_sigma = 0.0
    options.update({name: tuple(levels.tolist()) for name, levels in THRESHOLDS.items()} | changes)
    padded = dict(length=16, num_samples=14)
    found, room = localize_group(recordings, options, "ab", max_runs=max_runs, **padded)
    assert room > max_runs
    return found


def _assert_entries(found, label, want, keep, stretch=1.0):
    """The entries of a class are what `localize` finds."""
    entries = [entry for entry in found if entry["label"] == "ab"[label]]
    order = np.argsort(-want.scores[label][keep], kind="stable")
    assert len(entries) == len(order)
    got = np.array([[*entry["segment"], entry["score"]] for entry in entries])
    np.testing.assert_allclose(
        got[:, :2], want.segments[label][keep][order] * stretch, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(got[:, 2], want.scores[label][keep][order], atol=1e-5)


def test_saved_scores_are_localized_as_fresh_ones():
    recordings = {
        "plain": _saved(range(13)),
        # Six snippets, of which every one was read twice: times come back halved.
        "long/er": _saved(range(0, 14, 2)),
        "one class": _saved(range(13), video=(0.3, 0.6)),
    }
    scores, foreground = np.stack([BUMP, LATE], axis=1), np.maximum(BUMP, LATE)
    found = _localize_group(recordings, max_runs=1, class_threshold=0.4)  # room is made for more
    want = _detect(scores, foreground, [True, True])
    for label in range(2):
        _assert_entries(found["plain"], label, want, want.where[label])
        _assert_entries(found["long/er"], label, want, want.where[label], stretch=0.5)
    want = _detect(scores, foreground, [False, True], video=(0.3, 0.6))
    assert {entry["label"] for entry in found["one class"]} == {"b"}
    _assert_entries(found["one class"], 1, want, want.where[1])


def test_other_settings_change_what_is_found_in_saved_scores():
    recordings = {name: _saved(range(13)) for name in ("plain", "long/er", "one class")}
    changes = dict(thresholds=(0.1, 0.6), iou_threshold=0.3, video_weight=0.1, delta=0.5)
    found = _localize_group(recordings, max_runs=1, **changes)
    assert found != _localize_group(recordings, max_runs=1)
    scores, foreground = np.stack([BUMP, LATE], axis=1), np.maximum(BUMP, LATE)
    changes["thresholds"] = _curve(0.1, 0.6)
    want = _detect(scores, foreground, [True, False], **changes)
    for entries in found.values():
        _assert_entries(entries, 0, want, want.where[0])
