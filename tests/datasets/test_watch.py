"""The embedded data set: real signals, joins of ours that keep their promises."""

import importlib.machinery
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_jax.datasets import watch


@pytest.fixture(scope="module")
def recorded():
    return watch.read_recordings()


@pytest.fixture(scope="module")
def dataset():
    return watch.load(seed=0)


def fake_recorded(people):
    """Recordings whose samples tell where they come from."""
    return {
        (person, arm, exercise): np.stack(
            [np.full(1700, person), np.full(1700, i), np.full(1700, j), *[np.arange(1700)] * 3], 1
        )
        for person in people
        for i, arm in enumerate(watch.ARMS)
        for j, exercise in enumerate(watch.EXERCISES)
    }


@given(st.integers(1, 20_000), st.integers(0, 100))
def test_cuts(num_samples, seed):
    ranges = watch.cut(num_samples, np.random.default_rng(seed))
    assert ranges[0][0] == 0 and ranges[-1][1] == num_samples
    assert all(one[1] == two[0] for one, two in zip(ranges[:-1], ranges[1:], strict=True))
    lengths_s = [(last - first) / watch.FPS for first, last in ranges]
    if len(lengths_s) > 1:
        assert min(lengths_s) >= 1.5
    assert max(lengths_s) < 20 + 1.5 + 0.02


def test_cuts_are_log_uniform():
    ranges = watch.cut(50 * 20_000, np.random.default_rng(0))
    logs = np.log([(last - first) / watch.FPS for first, last in ranges[:-1]])
    counts = np.histogram(logs, 4, (np.log(1.49), np.log(20.01)))[0]
    np.testing.assert_allclose(counts, len(logs) / 4, rtol=0.12)


@given(st.lists(st.sampled_from("abcd"), max_size=25), st.integers(0, 1000))
def test_arrangements(labels, seed):
    order = watch.arrange(labels, np.random.default_rng(seed))
    arranged = [labels[i] for i in order]
    assert all(one != two for one, two in zip(arranged[:-1], arranged[1:], strict=True))
    assert len(set(order)) == len(order)
    # Left out: only what cannot be kept apart, which is what passes one more than all others.
    surplus = sum(max(0, 2 * n - len(labels) - 1) for n in Counter(labels).values())
    assert len(order) == len(labels) - surplus


def test_arrangements_differ():
    orders = {tuple(watch.arrange("aabbcc", np.random.default_rng(i))) for i in range(50)}
    assert len(orders) > 40


def test_streams_keep_their_promises():
    people = (1, 2, 3)
    streams = watch.compose(
        fake_recorded(people), people, seed=0, distribution="uniform", shuffles=4
    )
    assert len(streams) == 3 * 2 * 4
    clicks = {}
    for name, stream in streams.items():
        person, arm, shuffle = name.removeprefix("person").split("_")
        exercises = [bout.exercise for bout in stream]
        assert all(one != two for one, two in zip(exercises[:-1], exercises[1:], strict=True))
        assert set(watch.BACKGROUND) <= set(exercises)
        assert 1 <= len(set(exercises) - set(watch.BACKGROUND)) <= 4
        other = {"left": "right", "right": "left"}[arm]
        rest = {bout.exercise for bout in streams[f"person{person}_{other}_{shuffle}"]}
        assert rest & set(exercises) == set(watch.BACKGROUND)
        assert rest | set(exercises) == set(watch.EXERCISES)
        for bout in stream:
            assert len(set(map(tuple, bout.signal[:, :3]))) == 1  # one recording
            assert tuple(bout.signal[0, :2]) == (int(person), watch.ARMS.index(arm))
            assert watch.EXERCISES[bout.signal[0, 2]] == bout.exercise
            assert 0 <= bout.point_s < bout.duration_s
            # One bout, one click, however many streams it is in.
            clicks.setdefault(tuple(bout.signal[0]), set()).add((bout.point_s, len(bout.signal)))
    assert {len(points) for points in clicks.values()} == {1}


def test_two_shuffles_use_each_recording_of_a_class_once():
    streams = watch.compose(fake_recorded([1]), [1], seed=3, distribution="center", shuffles=2)
    starts = [
        tuple(bout.signal[0])
        for stream in streams.values()
        for bout in stream
        if bout.exercise in watch.CLASSES
    ]
    assert len(set(starts)) == len(starts)
    assert {start[1:3] for start in starts} == {(i, j) for i in (0, 1) for j in range(1, 6)}


def test_draws_are_independent():
    def sketch(streams):
        return {
            name: [(bout.exercise, len(bout.signal), bout.point_s) for bout in stream]
            for name, stream in streams.items()
        }

    recorded = fake_recorded((1, 2))
    every = sketch(watch.compose(recorded, (1, 2), seed=0, distribution="uniform", shuffles=3))
    assert every == sketch(
        watch.compose(recorded, (1, 2), seed=0, distribution="uniform", shuffles=3)
    )
    some = sketch(watch.compose(recorded, (2,), seed=0, distribution="uniform", shuffles=1))
    assert all(every[name] == stream for name, stream in some.items())
    centre = sketch(watch.compose(recorded, (2,), seed=0, distribution="center", shuffles=1))
    for name, stream in centre.items():
        assert [bout[:2] for bout in stream] == [bout[:2] for bout in some[name]]
        assert all(point == pytest.approx(length / 100) for _, length, point in stream)
    other = sketch(watch.compose(recorded, (2,), seed=1, distribution="uniform", shuffles=1))
    assert all(other[name] != stream for name, stream in some.items())


def test_annotations_say_where_the_bouts_lie():
    streams = watch.compose(fake_recorded([8]), [8], seed=0, distribution="uniform", shuffles=1)
    annotations = watch.annotate(streams, subset="test")
    for name, stream in streams.items():
        samples = np.concatenate([bout.signal for bout in stream])
        recording = annotations.recordings[name]
        assert recording.duration_s == len(samples) / 50
        exercise_of = np.array(watch.EXERCISES)[samples[:, 2]]
        inside = np.full(len(samples), "", exercise_of.dtype)
        for instance in recording.instances:
            inside[round(instance.start_s * 50) : round(instance.end_s * 50)] = instance.label
        np.testing.assert_array_equal(
            inside, np.where(np.isin(exercise_of, watch.BACKGROUND), "", exercise_of)
        )


def test_recordings_are_those_of_the_package(recorded):
    assert len(recorded) == 140
    assert {key[0] for key in recorded} == set(watch.TRAIN_PEOPLE + watch.TEST_PEOPLE)
    assert {signal.shape[1] for signal in recorded.values()} == {6}
    assert sum(map(len, recorded.values())) / watch.FPS == pytest.approx(4882, abs=1)
    assert "seglearn" not in sys.modules


def test_loaded_dataset(dataset):
    assert dataset.classes == watch.CLASSES and len(dataset.classes) == 5
    assert dataset.notes == ()
    assert len(dataset.train) == 28 and len(dataset.test) == 6
    assert {name[:8] for name in dataset.ground_truth["database"]} == {
        "person08",
        "person09",
        "person10",
    }
    for recording in dataset.train + dataset.test:
        assert recording.features.dtype == np.float32
        assert len(recording.features) == recording.grid.num_snippets(recording.duration_s)
        assert recording.grid.stride_s == 0.5
    assert all(recording.points for recording in dataset.train)
    assert not any(recording.points for recording in dataset.test)
    snippets = np.concatenate([recording.features for recording in dataset.train])
    np.testing.assert_allclose(snippets.mean(0), 0, atol=1e-4)
    label_sets = [{point.label for point in recording.points} for recording in dataset.train]
    assert {len(labels) for labels in label_sets} == {1, 2, 3, 4}


def test_points_lie_in_their_bouts(recorded, dataset):
    streams = watch.compose(
        recorded, watch.TRAIN_PEOPLE, seed=0, distribution="uniform", shuffles=2
    )
    annotations = watch.annotate(streams, subset="train")
    for recording in dataset.train:
        instances = annotations.recordings[recording.name].instances
        for instance, point in zip(instances, recording.points, strict=True):
            assert instance.start_s <= point.time_s < instance.end_s
            assert instance.label == dataset.classes[point.label]


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "seglearn", None)
    with pytest.raises(ValueError, match=r'pip install "tal_jax\[demo\]"'):
        watch.load()


@pytest.mark.parametrize("content", [None, b"\x80\x04other"])
def test_other_file(tmp_path, monkeypatch, content):
    spec = importlib.machinery.ModuleSpec("seglearn", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    if content is not None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "watch_dataset.npy").write_bytes(content)
    message = (
        "cannot read .*watch_dataset.npy" if content is None else "has sha256 .* expected eb12"
    )
    with pytest.raises(ValueError, match=message):
        watch.read_recordings()


def test_bad_arguments():
    with pytest.raises(ValueError, match="shuffles is 0, expected 1 or more"):
        watch.load(shuffles=0)
    with pytest.raises(ValueError, match="unknown distribution 'middle'"):
        watch.load(points="middle")
