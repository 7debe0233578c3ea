"""Decisions on hand-made data sets, worked out by hand; and that they depend on nothing else."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_jax.config import check_config, load_config, override
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Dataset, Point, Recording
from tal_jax.training import automatic


def _recording(name, size, times, labels, *, dim, window=2.0, stride_s=0.5):
    """A recording of `size` snippets with points at `times` in snippets."""
    grid = Grid(fps=10, stride_frames=10 * stride_s, window_frames=10 * stride_s * window)
    features = np.broadcast_to(np.float32(0), (size, dim))
    points = (Point(time * stride_s, label) for time, label in zip(times, labels, strict=True))
    return Recording(name, features, grid, size * stride_s, tuple(points))


def _dataset(*recordings):
    classes = {point.label for one in recordings for point in one.points}
    named = tuple(map(str, range(max(classes, default=0) + 1)))
    return Dataset(named, recordings, (), {"database": {}})


def _regular(count, size, gap, num_classes, **settings):
    """Recordings with a point every `gap` snippets, whose classes take turns."""
    times = np.arange(gap / 2, size, gap)
    labels = [number % num_classes for number in range(len(times))]
    return _dataset(*(_recording(f"r{n}", size, times, labels, **settings) for n in range(count)))


def _decided(dataset, *assignments):
    config = load_config("auto")
    for assignment in assignments:
        override(config, assignment)
    decided, decisions = automatic.decide(config, dataset)
    check_config(decided)
    assert not automatic.undecided(decided)
    return decided, {one.key: one.reason for one in decisions}


def test_one_long_recording():
    """33 minutes of .25 s with a gesture every 50 snippets: windows, several in a batch."""
    dataset = _regular(1, 7810, 50, 11, dim=60, stride_s=0.25)
    config, reasons = _decided(dataset)
    assert config.train.length == 1024 and "windows of recordings" in reasons["train.length"]
    # Of 8 windows 8 would be all of them in every update.
    assert config.train.batch_size == 4 and "of 8 windows" in reasons["train.batch_size"]
    # The receptive fields are 7, 15 and 31; two windows are 4.
    assert config.model.dilations == (1, 2)
    # sqrt(60 features * 156 points) / 2 = 48; the nearest power of two is 64 at least.
    assert config.model.widths == (64, 64) and config.model.dropout == 0.2
    # A short action: sqrt(2 windows of 2 * 50) = 14.1 snippets; the 8 windows of 976 snippets hold
    # some gesture once.
    assert config.loss.topk_ratio == round(7810 / 8 / np.sqrt(4 * 50))
    assert config.train.learning_rate == 3e-3 and config.train.steps == 200
    assert config.localization.min_outer == 4


def test_a_long_recording_of_which_little_is_done():
    """Two stretches of 400 snippets, a gesture every 50 in them; one point between them."""
    times = [*np.arange(25, 400, 50), 2000, *np.arange(4025, 4400, 50)]
    labels = [number % 11 for number in range(len(times))]
    recording = _recording("r", 7810, times, labels, dim=60, stride_s=0.25)
    stretches = (0.0, 100.0), (1000.0, 1100.0)  # in seconds
    partly = dataclasses.replace(recording, done_s=stretches)
    # The gaps are 50 snippets, those across unknown time do not count: a short action has 14.1.
    # A class is once in 400 done snippets, of a window of 976.
    config, reasons = _decided(_dataset(partly))
    assert config.loss.topk_ratio == round(400 / np.sqrt(4 * 50))
    assert "1 windows" in reasons["train.steps"]  # 801 labelled snippets of 1024
    config, reasons = _decided(_dataset(recording))
    assert config.loss.topk_ratio == round(7810 / 8 / np.sqrt(4 * 50))
    assert "8 windows" in reasons["train.steps"]
    # Everything done is what it is without the key, and nothing done can be trained on.
    whole = dataclasses.replace(recording, done_s=((0.0, recording.duration_s),))
    assert _decided(_dataset(whole)) == (config, reasons)
    _decided(_dataset(dataclasses.replace(recording, done_s=())))


def test_tiny():
    """Two recordings of one point each: nothing to measure distances by, and nothing fails."""
    dataset = _dataset(_recording("a", 40, [20], [0], dim=6), _recording("b", 30, [3], [0], dim=6))
    config, _ = _decided(dataset)
    assert config.train.length == 64  # 1.25 * 40 = 50, in steps of 64
    assert config.train.batch_size == 4  # both, on two timelines
    assert config.model.widths[0] == 64 and config.model.dropout == 0.5
    assert config.train.steps == 200 == config.train.checkpoint_every


@pytest.mark.parametrize(
    ("recordings", "batch_size", "steps"), [(4, 4, 200), (9, 4, 200), (11, 4, 200), (12, 8, 100)]
)
def test_few_recordings_are_read_in_smaller_updates(recordings, batch_size, steps):
    """Of 1,024 snippets 8 fit into an update, which is more than two thirds of 11 recordings."""
    config, _ = _decided(_regular(recordings, 800, 20, 3, dim=12))
    assert config.train.length == 1024
    assert (config.train.batch_size, config.train.steps) == (batch_size, steps)


def test_syllables():
    """Actions of a few snippets, one after another: a small field, no room beyond the ends."""
    dataset = _regular(32, 2000, 4, 11, dim=80, stride_s=0.02, window=1.5)
    config, reasons = _decided(dataset)
    assert config.train.length == 1024 and config.train.batch_size == 8
    assert config.model.dilations == (1, 2)
    assert config.localization.min_outer == 3  # two windows of 1.5; points are 4 apart
    # sqrt(80 * 16,000) / 2 = 566, but hardly wider than the features are many.
    assert config.model.widths == (128, 128)
    # 32 recordings of two windows: 20 passes are 160 updates.
    assert config.train.steps == 160
    # Eleven classes in turn have at least 22 of the 250 points in a window of 1,000 snippets; a
    # short action has sqrt(3 * 4) snippets.
    assert config.loss.topk_ratio == round(1000 / 22 / np.sqrt(12))
    wide, reasons = _decided(_regular(2, 2000, 4, 11, dim=80, window=3.0))
    assert wide.localization.min_outer == 0 and "as near as 4" in reasons["localization.min_outer"]


def test_features_of_a_large_network():
    """200 videos of D 2048 with 3,000 points: wide, slow, long training; windows do not overlap."""
    dataset = _regular(200, 330, 22, 20, dim=2048, stride_s=0.64, window=1.0)
    config, reasons = _decided(dataset)
    assert config.train.length == 448 and config.train.batch_size == 16
    # sqrt(2048 * 3000) / 2 = 1239.
    assert config.model.widths == (1024, 1024) and config.model.dropout == 0.7
    assert config.train.learning_rate == 3.8e-4
    assert 500 < config.train.steps <= 1200
    assert config.localization.min_outer == 0 and "do not overlap" in str(reasons)
    few, _ = _decided(_regular(14, 330, 22, 20, dim=2048, window=1.0))
    assert few.model.widths[0] == 256 and few.train.steps < config.train.steps


@pytest.mark.parametrize(
    ("window", "gap", "dilations"),
    [
        (1, 90, (1, 2)),
        (3, 90, (1, 2)),
        (7.5, 90, (1, 2, 4)),
        (16, 90, (1, 2, 4, 8)),
        (16, 5, (1, 2)),
    ],
)
def test_receptive_field_grows_with_the_rate(window, gap, dilations):
    """The same window at higher rates; no wider than points are apart."""
    config, _ = _decided(_regular(4, 900, gap, 3, dim=12, window=window))
    assert config.model.dilations == dilations


def test_actions_far_apart_get_longer_windows():
    """A point every 300 snippets: a window holds eight of them, though 1,024 snippets do not."""
    config, _ = _decided(_regular(1, 20000, 300, 3, dim=12))
    assert config.train.length == 2432  # 8 * 300, in steps of 64
    assert _decided(_regular(1, 40000, 3000, 3, dim=12))[0].train.length == 4096


def test_given_settings_stay():
    dataset = _regular(4, 300, 20, 3, dim=12)
    given = ("train.length=200", "model.widths=(8, 8, 8, 8)", "sampling.tau_s=3")
    config, reasons = _decided(dataset, *given)
    assert config.train.length == 200 and config.model.widths == (8, 8, 8, 8)
    assert config.sampling.tau_s == 3.0
    assert config.model.dilations == (1, 2, 4, 8)  # as many as layers
    assert not {"train.length", "model.widths"} & set(reasons)
    assert _decided(dataset, "model.dilations=(1, 3)")[0].model.widths == (64, 64)


def test_other_configs_stay_as_they_are():
    dataset = _regular(4, 300, 20, 3, dim=12)
    for name in ("hapt_rsmp", "thumos14_rsmp", "watch_hamnet"):
        config = load_config(name)
        decided, decisions = automatic.decide(config, dataset)
        assert decided.to_dict() == config.to_dict() and not decisions


def test_no_points_are_refused():
    dataset = _dataset(_recording("a", 40, [], [], dim=6))
    with pytest.raises(ValueError, match="no training recording with points"):
        automatic.decide(load_config("auto"), dataset)


def test_recordings_that_are_held_out_decide_nothing():
    """Settings are of what is trained on; the points of the others are for the criterion."""
    few, long = (
        _regular(3, 100, 20, 2, dim=12),
        _recording("long", 900, range(900), [0] * 900, dim=12),
    )
    whole = dataclasses.replace(few, train=(*few.train, long))
    assert _decided(whole)[0].train.length != _decided(few)[0].train.length
    kept, reasons = _decided(whole, "train.holdout=1")
    assert kept.train.holdout == 1
    kept.train.holdout = 0
    assert (kept.to_dict(), reasons) == (_decided(few)[0].to_dict(), _decided(few)[1])
    config = load_config("auto")
    config.train.holdout = 1
    bare = dataclasses.replace(few.train[0], points=())
    for train, message in (
        ((bare, long), "no training recording with points but those of train.holdout=1"),
        ((long,), "train.holdout=1; expected fewer than the 1"),
    ):
        with pytest.raises(ValueError, match=message):
            automatic.decide(config, dataclasses.replace(few, train=train))


def test_open_settings_are_refused_without_a_decision():
    with pytest.raises(ValueError, match="None; expected a value; `training.automatic.decide`"):
        check_config(load_config("auto"))


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=5),
    dim=st.sampled_from([1, 12, 88, 400, 2048]),
    window=st.sampled_from([0.5, 1.0, 3.0, 20.0]),
    seed=st.integers(0, 100),
)
def test_any_data_set_can_be_trained_on(sizes, dim, window, seed):
    """Whatever the data: a config that passes the checks, the same for the same points.

    The order of recordings, their features and the test recordings make no difference.
    """
    rng = np.random.default_rng(seed)
    recordings = []
    for number, size in enumerate(sizes):
        times = np.sort(rng.uniform(0, size, rng.integers(1, 40)))
        labels = rng.integers(0, 4, len(times))
        recordings.append(_recording(f"{number}", size, times, labels, dim=dim, window=window))
    dataset = _dataset(*recordings)
    config, _ = _decided(dataset)
    other = [
        dataclasses.replace(one, features=np.ones_like(one.features), name=f"x{one.name}")
        for one in reversed(recordings)
    ]
    tested = dataclasses.replace(_dataset(*other), test=(recordings[0],))
    assert _decided(tested)[0].to_dict() == config.to_dict()
    assert config.train.length >= 64
    assert config.train.batch_size <= 2 * max(sum(sizes), len(sizes))
    assert config.train.steps >= 100
