"""Tests of what proposals make of a recording: weights, new snippets, pseudo instances."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Point, Recording
from tal_jax.ops import resampling


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


GRID = Grid(fps=1, stride_frames=1, window_frames=1)  # a snippet a second
LENGTH = 10
NUM_CLASSES = 4


def _numpy(tree):
    return jax.tree.map(np.asarray, tree)


_compensate = jax.jit(timelines.compensate)
_with_own_point = jax.jit(timelines.with_own_point)
_assign_instances = jax.jit(timelines.assign_instances)
_resample_batch = jax.jit(timelines.resample_batch, static_argnums=1)
_trusted = jax.jit(timelines.trusted_proposals, static_argnames="num_video_classes")


def _recording(name, length, points):
    features = np.random.default_rng(length).normal(size=(length, 3)).astype(np.float32)
    points = tuple(Point(*point) for point in points)
    return Recording(name, features, GRID, float(length), points)


def _timeline(*recordings, overlapping=()):
    """The untouched timeline of `(length, [(time, label, segment), ...])` recordings."""
    made = [_recording(str(i), *r) for i, r in enumerate(recordings)]
    timeline = packing.pack_timeline(
        made, length=LENGTH, num_points=3, num_video_classes=2, overlapping=overlapping
    )
    timeline = timelines.with_features(timeline, packing.pack_features(made))
    return jax.tree.map(jnp.asarray, timeline)


def _proposals(*recordings, room=4):
    """Proposals of recordings, each a list of `(start, end, score, index)`."""
    shape = (len(recordings), room)
    segments, scores = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32)
    class_index, where = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, listed in enumerate(recordings):
        for column, (start, end, score, index) in enumerate(listed):
            segments[row, column], scores[row, column] = (start, end), score
            class_index[row, column], where[row, column] = index, True
    return timelines.Proposals(segments, scores, class_index, where)


# Two recordings: classes 1 and 3 at 2.2 and 6.5; class 2 alone in a short one.
RECORDINGS = ((9, [(2.2, 1), (6.5, 3)]), (5, [(4.4, 2)]))
PROPOSALS = (
    [(2, 3, 0.9, 0), (5, 7, 0.1, 0), (6, 7.5, 0.2, 1)],
    [(0, 4.5, 0.5, 0)],
)


# ---- the untouched timeline


def test_identity_timeline():
    timeline = _numpy(_timeline(*RECORDINGS))
    np.testing.assert_array_equal(timeline.weights, np.arange(LENGTH) < np.array([[9], [5]]))
    assert timeline.weights.dtype == np.float32
    assert timeline.counts.tolist() == [9, 5] and timeline.counts.dtype == np.int32
    assert not timeline.instances.any() and not timeline.instance_where.any()
    assert timeline.negative_classes[0].tolist() == [[False, True], [True, False]]


def test_overlapping_classes_are_no_rivals():
    for pair in ((1, 3), (3, 1)):
        assert not np.any(
            np.asarray(_timeline(*RECORDINGS, overlapping=[pair]).negative_classes)[0]
        )
    assert np.any(np.asarray(_timeline(*RECORDINGS, overlapping=[(1, 2)]).negative_classes)[0])


def test_the_untouched_timeline_reads_the_recordings_as_they_are():
    timeline = _timeline(*RECORDINGS)
    batch = _numpy(_resample_batch(timeline, 12))
    packed = _numpy(timeline)
    for row, (length, _) in enumerate(RECORDINGS):
        want = packed.features[packed.first[row] :][:length]
        np.testing.assert_array_equal(batch.features[row, :length], want)
        assert not batch.features[row, length:].any()
    np.testing.assert_array_equal(batch.where[:, :LENGTH], packed.where)
    assert not batch.features[:, LENGTH:].any() and not batch.where[:, LENGTH:].any()
    want = np.zeros((2, 12, 2), bool)
    want[0, 2, 0] = want[0, 6, 1] = want[1, 4, 0] = True
    np.testing.assert_array_equal(batch.points, want)
    assert not batch.instances.any()
    np.testing.assert_array_equal(batch.video_classes, packed.video_classes)
    np.testing.assert_array_equal(batch.negative_classes, timeline.negative_classes)


# ---- speeds


def test_random_speeds_stretch_recordings_and_all_that_is_on_them():
    """Segments and counts scale by the same factor, within the limits."""
    timeline = _timeline((8, [(2.5, 0)]), (4, [(1.5, 1)]), (6, [(3.0, 0)]))
    segments = np.array([[[2.0, 4.0]] * 3, [[1.0, 3.0]] * 3, [[0.0, 6.0]] * 3], np.float32)
    timeline = dataclasses.replace(timeline, instances=jnp.asarray(segments))
    sizes, seen = np.array([8, 4, 6]), []
    for seed in range(20):
        other = timelines.at_random_speeds(
            timeline, jax.random.key(seed), max_speed=1.5, longest=LENGTH
        )
        factors = np.asarray(other.weights).max(axis=1)
        assert (factors <= 1.5 + 1e-6).all() and (factors >= 1 / 1.5 - 1e-6).all()
        np.testing.assert_array_equal(other.counts, np.round(factors * sizes))
        assert (np.asarray(other.counts) <= LENGTH).all()
        batch = _numpy(_resample_batch(other, LENGTH))
        # A whole number of new snippets covers the recording: lengths scale by count / size.
        scaled = segments[:, 0] * (np.asarray(other.counts) / sizes)[:, None]
        np.testing.assert_allclose(batch.segments[:, 0], scaled, rtol=1e-5)
        assert batch.points.any(axis=(1, 2)).all()  # no point is lost
        seen.append(factors)
    logs = np.log(np.array(seen)[:, 1])
    assert logs.min() < -0.2 and logs.max() > 0.2  # faster and slower


def test_random_speeds_are_the_recordings_own():
    timeline = _timeline((8, []), (4, []), (6, []))
    given = {"key": jax.random.key(4), "max_speed": 2.0, "longest": 100}
    whole = timelines.at_random_speeds(timeline, **given)
    part = timelines.at_random_speeds(timelines.take(timeline, jnp.array([2, 0])), **given)
    np.testing.assert_array_equal(part.weights, np.asarray(whole.weights)[[2, 0]])
    assert len(set(np.asarray(whole.weights)[:, 0].tolist())) == 3


# ---- known segments

# Of the two recordings, one point of the first and all of the second.
KNOWN = ((9, [(2.2, 1, (1.5, 4.0)), (6.5, 3)]), (5, [(4.4, 2, (3.0, 5.0))]))


def test_known_segments_outlast_all_proposals():
    timeline = _timeline(*KNOWN)
    assert timeline.instance_where.tolist() == [[False] * 3, [True, False, False]]
    found = _numpy(_assign_instances(timeline, _proposals(*PROPOSALS)))
    assert found.instance_where.tolist() == [[True, True, False], [True, False, False]]
    np.testing.assert_array_equal(found.instances[0, :2], [(1.5, 4.0), (6.0, 7.5)])
    np.testing.assert_array_equal(found.instances[1, 0], (3.0, 5.0))
    assert found.known.tolist() == [[True, False, False], [True, False, False]]
    without = _numpy(_assign_instances(_timeline(*RECORDINGS), _proposals(*PROPOSALS)))
    np.testing.assert_array_equal(without.instances[0, :2], [(2.0, 3.0), (6.0, 7.5)])


def test_batches_hold_the_segments_one_by_one():
    """In snippets of the new timeline, from the start of the window."""
    timeline = _timeline(*KNOWN)
    batch = _numpy(_resample_batch(timeline, 12))
    np.testing.assert_array_equal(batch.segment_where, timeline.instance_where)
    np.testing.assert_array_equal(batch.segment_class_index, timeline.point_class_index)
    np.testing.assert_allclose(batch.segments[1, 0], (3.0, 5.0), atol=1e-6)
    assert batch.instances[1, :, 0].tolist() == [3 <= at < 5 for at in range(12)]
    # The second half of the first recording twice as slow: what was at 6 to 7.5 begins at 8.
    slow = np.where(np.arange(LENGTH) < 4, 1, 2) * np.asarray(timeline.where)
    assigned = _assign_instances(timeline, _proposals(*PROPOSALS))
    slow = dataclasses.replace(
        assigned,
        weights=jnp.asarray(slow, jnp.float32),
        counts=jnp.asarray(slow.sum(axis=1), jnp.int32),
    )
    whole = _numpy(_resample_batch(slow, 16))
    np.testing.assert_allclose(whole.segments[0, :2], [(1.5, 4.0), (8.0, 11.0)], atol=1e-5)
    window = _numpy(_resample_batch(slow, 6, first=jnp.array([5, 0], jnp.int32)))
    np.testing.assert_allclose(window.segments[0, :2], [(-3.5, -1.0), (3.0, 6.0)], atol=1e-5)
    assert window.instances[0, :, 1].tolist() == [False] * 3 + [True] * 3
    assert not window.instances[0, :, 0].any()


# ---- compensation


def _compensated():
    timeline, proposals = _timeline(*RECORDINGS), _proposals(*PROPOSALS)
    timeline = _compensate(
        timeline, proposals, tau=np.array([6, 4], np.float32), delta=0.5, alpha=0.7
    )
    return _assign_instances(timeline, proposals)


def test_compensation_by_hand():
    timeline = _numpy(_compensated())
    # [2, 3) widened to [1.5, 3.5) weighs 6/2, half of the excess at its ends. [5, 7) is not
    # trusted: it would pass 0.7 of its class's score. [6, 7.5) widened to [5.25, 8.25) weighs 6/3.
    # In the other recording [0, 4.5) is long.
    want = [1, 2, 3, 2, 1, 1.75, 2, 2, 1.25, 0]
    np.testing.assert_allclose(timeline.weights[0], want, rtol=1e-6)
    np.testing.assert_array_equal(timeline.weights[1], np.arange(LENGTH) < 5)
    assert timeline.counts.tolist() == [16, 5]


def test_a_proposal_widened_beyond_the_recording_keeps_its_length():
    got = _compensate(
        _timeline((8, [(7, 0)])),
        _proposals([(6, 8, 1.0, 0)]),
        tau=np.full(1, 6, np.float32),
        delta=0.5,
        alpha=0.7,
    )
    # [5, 9) weighs 6/4, though the recording ends at 8.
    np.testing.assert_allclose(got.weights[0], [1] * 5 + [1.5] * 3 + [0] * 2, rtol=1e-6)


def test_the_new_timeline_by_hand():
    timeline = _compensated()
    batch = _numpy(_resample_batch(timeline, 18))
    assert batch.where.sum(axis=1).tolist() == [16, 5]
    old = [0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8]
    times = batch.resampled.positions[0, :16] + 0.5
    assert np.floor(times).astype(int).tolist() == old
    np.testing.assert_allclose(times[3:6], [2 + 1 / 6, 2.5, 2 + 5 / 6], rtol=1e-5)
    features = np.asarray(timeline.features)[:9]
    want = [np.interp(times - 0.5, np.arange(9), column) for column in features.T]
    np.testing.assert_allclose(batch.features[0, :16].T, want, rtol=1e-4, atol=1e-5)
    # Every new snippet read from a point's old snippet is positive.
    assert np.flatnonzero(batch.points[0, :, 0]).tolist() == [3, 4, 5]
    assert np.flatnonzero(batch.points[0, :, 1]).tolist() == [11, 12]
    # Instances are [2, 3) and [6, 7.5) on the old timeline, not widened.
    assert np.flatnonzero(batch.instances[0, :, 0]).tolist() == [3, 4, 5]
    assert np.flatnonzero(batch.instances[0, :, 1]).tolist() == [11, 12, 13]
    # The second recording is untouched: its point at 4.4, its instance [0, 4.5) by centres.
    assert np.flatnonzero(batch.points[1, :, 0]).tolist() == [4]
    assert np.flatnonzero(batch.instances[1, :, 0]).tolist() == [0, 1, 2, 3, 4]


def test_times_come_back_from_the_new_timeline():
    resampled = _resample_batch(_compensated(), 18).resampled
    times = np.array([[0, 1.7, 2.2, 3.4, 6.5, 9.0], [0, 0.3, 1, 2.5, 4.4, 5]], np.float32)
    back = jax.jit(jax.vmap(lambda t, r: resampling.old_times(resampling.new_times(t, r), r)))(
        times, resampled
    )
    np.testing.assert_allclose(back, times, atol=2e-5 * 9)


def test_too_few_samples_still_span_the_recording():
    batch = _numpy(_resample_batch(_compensated(), 6))
    assert batch.where.sum(axis=1).tolist() == [6, 5]
    cumulative = np.array([0, 1, 3, 6, 8, 9, 10.75, 12.75, 14.75, 16])
    want = np.interp((np.arange(6) + 0.5) * 16 / 6, cumulative, np.arange(10)) - 0.5
    np.testing.assert_allclose(batch.resampled.positions[0], want, rtol=1e-5)
    # Each point still has a snippet.
    assert batch.points[0].any(axis=0).all() and batch.points[1, :, 0].any()


def test_jitter_moves_samples_within_their_cells_but_no_point():
    timeline = _numpy(timelines.take(_numpy(_compensated()), np.array([0, 1, 1])))
    centred = _numpy(_resample_batch(timeline, 18))
    jitter = jax.jit(
        lambda key: timelines.resample_batch(
            timeline, 18, keys=jax.random.split(key, len(timeline.counts))
        )
    )
    one, same, other = (_numpy(jitter(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.features, same.features)
    assert np.abs(one.features - other.features).max() > 0.01
    np.testing.assert_array_equal(one.where, centred.where)
    np.testing.assert_array_equal(one.instances, centred.instances)
    shift = np.abs(one.resampled.positions - centred.resampled.positions)
    assert 0.05 < shift.max() <= 0.5 + 1e-5  # weights are at least 1
    # The recordings of a batch are moved each on its own.
    assert np.abs(shift[1] - shift[2]).max() > 0.01


def test_whole_snippets_are_drawn_one_from_each_cell():
    """And unblurred: what a sample is interpolated from has a smaller variance."""
    rng = np.random.default_rng(0)
    length, size = 40, 10
    features = rng.normal(size=(length, 1)).astype(np.float32)
    recording = Recording("a", features, GRID, GRID.to_seconds(float(length)), labels=(0,))
    timeline = packing.pack_timeline([recording], length=length)
    timeline = timelines.with_features(timeline, packing.pack_features([recording]))
    read = jax.jit(
        lambda key: timelines.resample_batch(timeline, size, keys=key[None], nearest=True)
    )
    seen = set()
    for seed in range(100):
        batch = _numpy(read(jax.random.key(seed)))
        drawn = [
            np.flatnonzero(features[:, 0] == value).item() for value in batch.features[0, :, 0]
        ]
        assert [place // 4 for place in drawn] == list(range(size))
        seen.update(drawn)
    assert seen == set(range(length))


def test_a_masked_proposal_and_a_long_one_change_nothing():
    timeline = _timeline(*RECORDINGS)
    proposals = _proposals([(2, 3, 0.9, 0), (1, 7, 0.5, 1)], [])
    where = proposals.where.copy()
    where[0, 0] = False
    got = _compensate(
        timeline,
        dataclasses.replace(proposals, where=where),
        tau=np.array([6, 6], np.float32),
        delta=0.5,
        alpha=0.7,
    )
    np.testing.assert_array_equal(got.weights, timeline.weights)
    np.testing.assert_array_equal(got.counts, timeline.counts)


# ---- windows


@pytest.mark.parametrize("first", [0, 3, 9])
def test_a_window_shows_a_part_of_the_compensated_timeline(first):
    timeline, size = _compensated(), 4
    whole = _numpy(_resample_batch(timeline, 24))
    window = jax.jit(lambda timeline, first: timelines.resample_batch(timeline, size, first=first))
    firsts = np.minimum(first, np.maximum(np.asarray(timeline.counts) - size, 0)).astype(np.int32)
    batch = _numpy(window(timeline, firsts))
    for row, begin in enumerate(firsts):
        for name in ("features", "where", "points", "instances"):
            want = getattr(whole, name)[row, begin : begin + size]
            np.testing.assert_allclose(getattr(batch, name)[row], want, atol=1e-6)
    assert batch.cut.tolist() == (np.asarray(timeline.counts) > size).tolist()
    assert not whole.cut.any()


def test_windows_cover_the_timeline_and_its_ends():
    """Whatever is drawn lies inside; the first snippet is read half as often as one amid."""
    counts = np.repeat(np.array([100, 30, 40], np.int32), 4000)
    keys = jax.random.split(jax.random.key(0), len(counts))
    draw = jax.jit(timelines.draw_windows, static_argnums=1)
    first = np.asarray(draw(counts, 40, keys)).reshape(3, -1)
    assert first[0].min() == 0 and first[0].max() == 60
    assert not first[1:].any()

    def share(snippet):
        return np.mean((first[0] <= snippet) & (snippet < first[0] + 40))

    assert share(50) == pytest.approx(0.4, abs=0.03)
    assert share(0) == pytest.approx(0.2, abs=0.03)
    assert share(99) == pytest.approx(0.2, abs=0.03)
    np.testing.assert_array_equal(first, np.asarray(draw(counts, 40, keys)).reshape(3, -1))


@pytest.mark.parametrize(("counts", "whole"), [
    ([5, 640], (640,)),
    ([5, 641], (800,)),  # another program would cost more than padding all to that
    ([500, 1000, 7810], (640, 1280, 8960)),
    ([7810], (8960,)),
    ([500, 1281, 1300], (640, 1600)),
])  # fmt: skip
def test_lengths(counts, whole):
    """The longest timeline fits, with a quarter too much at most."""
    lengths = packing.lengths_of(np.array(counts), 640)
    assert lengths == (640, whole) and lengths.windowed == (max(counts) > 640)
    assert max(counts) <= whole[-1] < 1.25 * max(max(counts), 640)


def test_long_timelines_are_drawn_as_often_as_they_hold_windows():
    timeline = _timeline((9, []), (3, []), (5, []))
    draw = packing.rows_to_draw
    assert draw(timeline, timelines.Lengths(2, (10,))).tolist() == [0] * 4 + [1, 1, 2, 2]
    assert draw(timeline, timelines.Lengths(4, (10,))).tolist() == [0, 0, 1, 2]
    assert draw(timeline, timelines.Lengths(10, (10,))).tolist() == [0, 1, 2]


def test_most_points_of_any_window():
    """Against a loop over all windows that begin at a point."""
    rng = np.random.default_rng(0)
    listed = [
        _recording(str(number), 60, [(rng.uniform(0, 60), rng.integers(3)) for _ in range(30)])
        for number in range(3)
    ]
    for window in (5, 20, 60):
        of_class = of_all = 0
        for recording in listed:
            for start in recording.points:
                inside = [
                    point.label
                    for point in recording.points
                    if start.time_s <= point.time_s <= start.time_s + window
                ]
                of_all = max(of_all, len(inside))
                of_class = max(of_class, *np.bincount(inside))
        found = packing.most_points_of(listed, window)
        assert found == timelines.MostPoints(of_class, of_all)
    assert packing.most_points_of([_recording("none", 4, [])], 4) == timelines.MostPoints(0, 0)


# ---- rows


def test_take_picks_rows():
    timeline = _numpy(_compensated())
    got = timelines.take(timeline, np.array([1, 1, 0]))
    assert got.counts.tolist() == [5, 5, 16]
    np.testing.assert_array_equal(got.weights[2], timeline.weights[0])
    assert got.first.tolist() == [9, 9, 0]
    assert got.features is timeline.features


def test_join_repeats_the_rows_and_not_the_features():
    plain, longer = _numpy(_timeline(*RECORDINGS)), _numpy(_compensated())
    got = timelines.join(longer, plain)
    assert got.counts.tolist() == [16, 5, 9, 5]
    assert got.first.tolist() == [0, 9, 0, 9]
    assert got.features is longer.features
    batch = _numpy(_resample_batch(got, 18))
    np.testing.assert_array_equal(batch.features[2:], _resample_batch(plain, 18).features)
    np.testing.assert_array_equal(batch.features[:2], _resample_batch(longer, 18).features)


# ---- trusted proposals


def _reference_trusted(scores, class_index, num_video_classes, alpha, where):
    trusted = np.zeros(len(scores), bool)
    for index in range(num_video_classes):
        mine = [i for i in range(len(scores)) if where[i] and class_index[i] == index]
        mine.sort(key=lambda i: -scores[i])
        clipped = [max(float(scores[i]), 0) for i in mine]
        for rank, i in enumerate(mine):
            within = sum(clipped[: rank + 1]) <= alpha * sum(clipped) + 1e-6
            trusted[i] = rank == 0 or within
    return trusted


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_trusted_proposals_against_a_loop(alpha):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scores = rng.normal(0.3, 0.5, 20).astype(np.float32)
        class_index, where = rng.integers(0, 3, 20).astype(np.int32), rng.random(20) < 0.8
        spoiled = np.where(where, scores, np.nan)
        got = _trusted(spoiled, class_index, num_video_classes=4, alpha=alpha, where=where)
        np.testing.assert_array_equal(got, _reference_trusted(scores, class_index, 4, alpha, where))


TRUSTED = {
    # name: scores, alpha, trusted
    "a share of the score": ([0.5, 0.3, 0.2], 0.8, [1, 1, 0]),
    "whatever the order": ([0.2, 0.5, 0.3], 0.8, [0, 1, 1]),
    "the best one always": ([0.9, 0.1, 0.0], 0.7, [1, 0, 0]),
    "one is all of them": ([0.3, 0.1, 0.0], 1.0, [1, 1, 1]),
    "one is all, below zero as well": ([0.3, -0.1, -0.9], 1.0, [1, 1, 1]),
    "scores below zero take no share from others": ([0.4, 0.4, -0.8], 0.5, [1, 0, 0]),
    "below zero comes last": ([-0.1, 0.6, 0.4], 0.7, [0, 1, 0]),
    "of equals the earlier": ([0.5, 0.5, 0.5], 0.7, [1, 1, 0]),
    # 0 is within any share of 0.
    "nothing above zero": ([-0.1, -0.2, 0.0], 0.7, [1, 1, 1]),
}


@pytest.mark.parametrize("name", TRUSTED)
def test_trusted_proposals_by_hand(name):
    scores, alpha, want = TRUSTED[name]
    scores, class_index = np.array(scores, np.float32), np.zeros(3, np.int32)
    got = _trusted(scores, class_index, num_video_classes=2, alpha=alpha, where=np.ones(3, bool))
    np.testing.assert_array_equal(got, np.array(want, bool))


def test_one_share_adds_up_in_any_rounding():
    scores = np.random.default_rng(0).random(300).astype(np.float32)
    everything = np.ones(300, bool)
    got = _trusted(
        scores, np.zeros(300, np.int32), num_video_classes=1, alpha=1.0, where=everything
    )
    assert np.all(got)


def test_with_own_point():
    # Points of index 0 at 2.2 and of index 1 at 6.5.
    proposals = _proposals(
        [(2, 3, 0.1, 0), (6, 8, 0.9, 0), (6.5, 7, 0.5, 1), (5, 6.5, 0.5, 1), (0, 9, 0.5, 1)], room=6
    )
    packed = _timeline(RECORDINGS[0])
    got = _numpy(_with_own_point(proposals, packed))
    assert got.where[0].tolist() == [True, False, True, False, True, False]
    np.testing.assert_array_equal(got.segments, proposals.segments)
    # Nothing comes back that was masked, and empty places hold no point at 0.
    masked = dataclasses.replace(proposals, where=np.zeros_like(proposals.where))
    assert not np.any(_with_own_point(masked, packed).where)
    at_zero = _proposals([(0, 1, 0.5, 0)], room=6)
    assert not np.any(_with_own_point(at_zero, packed).where)


def test_best_of_each_place():
    """Across classes: the wrong class, scoring less, goes; neighbours and other recordings stay."""
    proposals = _proposals(
        [(0, 6, 0.9, 0), (1, 3, 0.5, 1), (5.5, 8, 0.6, 1), (0, 6.5, 0.8, 1)], [(1, 3, 0.5, 1)]
    )
    got = _numpy(jax.jit(timelines.best_of_each_place)(proposals))
    assert got.where.tolist() == [[True, False, True, False], [True, False, False, False]]


# ---- pseudo instances

# Points of class 0 (index 0) at 3.5 and of class 1 (index 1) at 8.5.
POINTS = [(3.5, 0), (8.5, 1)]
INSTANCES = {
    # name: proposals, instance of the first point
    "the best": ([(3, 5, 0.4, 0), (2, 6, 0.6, 0), (3, 4, 0.5, 0)], (2, 6)),
    "a clean one before a better one": ([(3, 5, 0.4, 0), (0, 10, 0.9, 0)], (3, 5)),
    "clean, however bad": ([(3, 5, -0.4, 0), (0, 10, 0.9, 0)], (3, 5)),
    "for want of a clean one": ([(0, 10, 0.9, 0), (5, 6, 0.95, 0)], (0, 10)),
    "another class's proposal is none": ([(3, 5, 0.9, 1)], None),
    "one beside the point is none": ([(4, 6, 0.9, 0)], None),
    "the start is inside": ([(3.5, 6, 0.9, 0)], (3.5, 6)),
    "the end is outside": ([(2, 3.5, 0.9, 0)], None),
    "no proposal": ([], None),
}


def _first_instance(timeline, proposals):
    got = _numpy(_assign_instances(timeline, _proposals(proposals)))
    assert not got.instance_where[0, 2]  # no third point
    return tuple(got.instances[0, 0].tolist()) if got.instance_where[0, 0] else None


@pytest.mark.parametrize("name", INSTANCES)
def test_instances_by_hand(name):
    proposals, want = INSTANCES[name]
    assert _first_instance(_timeline((10, POINTS)), proposals) == want


def test_points_of_overlapping_classes_do_not_spoil_a_proposal():
    timeline = _timeline((10, POINTS), overlapping=[(0, 1)])
    assert _first_instance(timeline, INSTANCES["clean, however bad"][0]) == (0, 10)


def test_points_of_its_own_class_do_not_spoil_a_proposal():
    timeline = _timeline((10, [(3.5, 0), (5.5, 0), (8.5, 1)]))
    proposals = _proposals([(3, 7, 0.9, 0), (3, 5, 0.4, 0), (5, 9, 0.95, 0)])
    got = _numpy(_assign_instances(timeline, proposals))
    assert got.instance_where[0].tolist() == [True, True, False]
    assert got.instances[0, :2].tolist() == [[3, 7], [3, 7]]


def test_the_fewest_foreign_points_come_before_the_score():
    timeline = _timeline((10, [(3.5, 0), (5.5, 1), (8.5, 1)]))
    proposals = [(3, 7, 0.2, 0), (3, 10, 0.9, 0)]  # one foreign point, two
    assert _first_instance(timeline, proposals) == (3, 7)


def test_masked_proposals_are_no_instances():
    proposals = _proposals([(3, 5, 0.9, 0), (2, 5, 0.1, 0)])
    where = proposals.where.copy()
    where[0, 0] = False
    proposals = dataclasses.replace(proposals, where=where)
    got = _numpy(_assign_instances(_timeline((10, POINTS)), proposals))
    assert got.instances[0, 0].tolist() == [2, 5]


def test_points_without_an_instance_have_none_on_the_new_timeline():
    timeline = _assign_instances(_timeline((10, POINTS)), _proposals([(3, 5, 0.9, 0)]))
    batch = _numpy(_resample_batch(timeline, 12))
    assert np.flatnonzero(batch.instances[0, :, 0]).tolist() == [3, 4]
    assert not batch.instances[0, :, 1].any()


def test_an_instance_between_two_centres_still_holds_its_point():
    timeline = _assign_instances(_timeline((10, [(3.8, 0)])), _proposals([(3.6, 4.2, 0.9, 0)]))
    batch = _numpy(_resample_batch(timeline, 12))
    assert np.flatnonzero(batch.instances[0, :, 0]).tolist() == [3]


# ---- proposals of a file

CLASSES = ("walk", "run", "jump", "sit")
SLOTS = np.array([[1, 3], [2, 0]], np.int32), np.array([[True, True], [True, False]])


def _entry(label, start, end, score):
    return {"label": label, "score": score, "segment": [start, end]}


def _read(results, grid=GRID):
    recordings = [dataclasses.replace(_recording(name, 9, ()), grid=grid) for name in ("r", "s")]
    return packing.pack_proposals(results, recordings, *SLOTS, CLASSES)


def test_proposals_of_a_file():
    results = {
        "r": [
            _entry("sit", 1.0, 2.5, 0.5),
            _entry("walk", 0.0, 1.0, 0.9),  # the recording is not labelled with it
            _entry("run", 4.0, 4.0, -0.25),
        ],
        "s": [],
        "other": [_entry("run", 0, 1, 1)],
    }
    got = _read(results, Grid(fps=10, stride_frames=5, window_frames=5))
    assert got.where.tolist() == [[True, True, False, False], [False] * 4]
    assert got.class_index[0, :2].tolist() == [1, 0]
    assert got.segments[0, :2].tolist() == [[2, 5], [8, 8]]  # two snippets a second
    assert got.scores[0, :2].tolist() == [0.5, -0.25]
    assert (
        got.segments.dtype == got.scores.dtype == np.float32 and got.class_index.dtype == np.int32
    )


@pytest.mark.parametrize("count, room", [(0, 1), (1, 1), (2, 2), (3, 4), (8, 8), (9, 16)])
def test_room_for_proposals_is_a_power_of_two(count, room):
    got = _read({"r": [_entry("run", 0, 1, 1)] * count, "s": []})
    assert got.where.shape == (2, room) and got.where.sum() == count


@pytest.mark.parametrize(
    "entries, message",
    [
        ([_entry("fly", 0, 1, 1)], "proposals of 'r': unknown class 'fly'"),
        ([_entry("run", 2, 1, 1)], r"segment \[2, 1\]; expected finite numbers"),
        ([_entry("run", 0, np.nan, 1)], "expected finite numbers"),
        ([_entry("run", 0, 1, np.inf)], "score inf"),
        ([_entry("run", 0, 1, None)], "score None"),
        ([{"label": "run", "score": 1}], "segment None"),
        ([{"label": "run", "score": 1, "segment": [0, 1, 2]}], r"segment \[0, 1, 2\]"),
        (None, "proposals: none for 'r'"),
    ],
)
def test_bad_proposals(entries, message):
    results = {"s": []} if entries is None else {"r": entries, "s": []}
    with pytest.raises(ValueError, match=message):
        _read(results)


# ---- instances fused from the proposals of several rounds


def _fused_by_loops(recording, proposals, labels, overlapping=()):
    """Each point in turn, and each proposal."""
    found = []
    for time, label, *segment in recording:
        if segment:
            found.append(segment[0])
            continue
        own = []
        for start, end, score, index in proposals:
            inside = [other for at, other, *_ in recording if start <= at < end]
            apart = [
                other
                for other in inside
                if other != label and {other, label} not in map(set, overlapping)
            ]
            mine = labels[index] == label and start <= time < end
            if mine and inside.count(label) == 1 and not apart:
                own.append((score, start, end))
        if not own:
            found.append(None)
            continue
        best = max(own, key=lambda one: one[0])
        total = sums = 0.0
        for score, start, end in own:
            shared = max(0.0, min(end, best[2]) - max(start, best[1]))
            if shared / (max(end, best[2]) - min(start, best[1])) > 0.25:
                weight = np.exp(score / 0.1)
                total, sums = total + weight, sums + weight * np.array([start, end])
        found.append(sums / total)
    return found


@pytest.mark.parametrize("overlapping", [(), ((1, 3),)])
def test_fused_instances_against_loops(overlapping):
    rng, fuse = np.random.default_rng(0), jax.jit(timelines.fuse_instances)
    fused = 0
    for _ in range(10):
        points = [(2.2, 1), (4.3, 1), (6.5, 3)]
        if rng.random() < 0.5:
            points[1] = (4.3, 1, (3.5, 5.0))
        proposals = []
        for _ in range(12):
            start, end = np.sort(rng.integers(0, 19, 2) / 2)
            proposals.append((start, end, rng.random(), int(rng.integers(2))))
        timeline = _timeline((9, points), overlapping=overlapping)
        got = _numpy(fuse(timeline, _proposals(proposals, room=16)))
        want = _fused_by_loops(points, proposals, (1, 3), overlapping)
        fused += sum(one is not None for one in want)
        for index, segment in enumerate(want):
            assert got.instance_where[0, index] == (segment is not None)
            if segment is not None:
                np.testing.assert_allclose(got.instances[0, index], segment, rtol=1e-5)
    assert fused > 10
