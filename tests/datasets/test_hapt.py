"""HAPT, from small files of its format, and from the real ones where they are."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tal_jax.data.signals import window_features
from tal_jax.datasets import hapt

# experiment, user, class from 1, first and last sample from 1
LABELS = [
    (1, 1, 5, 1, 100),  # standing
    (1, 1, 7, 101, 150),  # stand_to_sit, right after
    (1, 1, 4, 201, 400),  # sitting
    (2, 21, 1, 51, 250),  # the last training user
    (3, 22, 1, 1, 50),  # the first test user
    (3, 22, 7, 51, 60),
]
SAMPLES = {(1, 1): 400, (2, 21): 260, (3, 22): 60}


def signal(experiment, sensor, samples):
    seed = [experiment, sensor == "gyro"]
    return np.random.default_rng(seed).normal(size=(samples, 3))


@pytest.fixture
def folder(tmp_path):
    raw = tmp_path / "hapt" / "RawData"
    raw.mkdir(parents=True)
    for (experiment, user), samples in SAMPLES.items():
        for sensor in ("acc", "gyro"):
            name = f"{sensor}_exp{experiment:02d}_user{user:02d}.txt"
            np.savetxt(raw / name, signal(experiment, sensor, samples), fmt="%.18g")
    np.savetxt(raw / "labels.txt", LABELS, fmt="%d")
    return tmp_path / "hapt"


def write_labels(folder, rows):
    np.savetxt(folder / "RawData" / "labels.txt", rows, fmt="%d")


def test_recordings_are_split_by_user(folder):
    dataset = hapt.load(folder)
    assert [recording.name for recording in dataset.train] == ["exp01_user01", "exp02_user21"]
    assert [recording.name for recording in dataset.test] == ["exp03_user22"]
    assert dataset.classes == hapt.CLASSES and dataset.overlapping == ()
    for recording in dataset.train + dataset.test:
        assert recording.features.dtype == np.float32
        assert recording.grid.stride_s == 0.5 and recording.grid.fps == 50
        assert len(recording.features) == recording.grid.num_snippets(recording.duration_s)
    assert [recording.duration_s for recording in dataset.train] == [8.0, 5.2]


def test_labels_become_seconds(folder):
    # Samples are counted from 1 and the last one belongs to the instance.
    database = hapt.load(folder).ground_truth["database"]
    assert database == {
        "exp03_user22": {
            "subset": "test",
            "duration": 1.2,
            "annotations": [
                {"label": "walking", "segment": [0.0, 1.0]},
                {"label": "stand_to_sit", "segment": [1.0, 1.2]},
            ],
        }
    }


def test_points_lie_in_their_instances(folder):
    for seed in range(5):
        first, second = hapt.load(folder, seed=seed).train
        assert [point.label for point in first.points] == [4, 6, 3]
        spans = [(0, 2), (2, 3), (4, 8)]
        for point, (start, end) in zip(first.points, spans, strict=True):
            assert start <= point.time_s < end
        assert [point.label for point in second.points] == [0]
    assert [point.time_s for point in hapt.load(folder, points="center").train[0].points] == [
        1.0,
        2.5,
        6.0,
    ]
    one, same, other = (hapt.load(folder, seed=seed).train[0].points for seed in (1, 1, 2))
    assert one == same != other
    assert not hapt.load(folder).test[0].points


def test_features_are_those_of_both_sensors_standardised_by_the_training_set(folder):
    dataset = hapt.load(folder, stride_s=0.4, window_s=2.0)
    raw = {
        experiment: window_features(
            np.concatenate([signal(experiment, sensor, n) for sensor in ("acc", "gyro")], axis=1),
            fps=50,
            stride_s=0.4,
            window_s=2.0,
        )[0].astype(np.float64)
        for (experiment, _), n in SAMPLES.items()
    }
    train = np.concatenate([raw[1], raw[2]])
    for recording, experiment in zip(dataset.train + dataset.test, (1, 2, 3), strict=True):
        want = (raw[experiment] - train.mean(0)) / train.std(0)
        np.testing.assert_allclose(recording.features, want, rtol=1e-4, atol=1e-4)


def test_notes_name_the_classes_that_are_missing(folder):
    notes = hapt.load(folder).notes
    assert any("'laying' is in no training recording" in note for note in notes)
    assert any("'laying' has no test instance" in note for note in notes)
    assert not any("'walking'" in note for note in notes)


def test_no_recordings(tmp_path):
    with pytest.raises(ValueError, match="RawData: no acc_exp.*expected the RawData folder"):
        hapt.load(tmp_path)


def test_missing_gyroscope(folder):
    (folder / "RawData" / "gyro_exp02_user21.txt").unlink()
    with pytest.raises(ValueError, match="gyro_exp02_user21.txt"):
        hapt.load(folder)


def test_missing_labels(folder):
    (folder / "RawData" / "labels.txt").unlink()
    with pytest.raises(ValueError, match="labels.txt"):
        hapt.load(folder)


def test_gyroscope_of_another_length(folder):
    np.savetxt(folder / "RawData" / "gyro_exp02_user21.txt", np.zeros((259, 3)))
    message = "gyro_exp02_user21.txt: 259 samples; expected 260, as in acc_exp02_user21.txt"
    with pytest.raises(ValueError, match=message):
        hapt.load(folder)


def test_wrong_columns(folder):
    np.savetxt(folder / "RawData" / "acc_exp03_user22.txt", np.zeros((60, 4)))
    with pytest.raises(ValueError, match="acc_exp03_user22.txt: 4 columns; expected 3"):
        hapt.load(folder)


def test_text_among_the_numbers(folder):
    (folder / "RawData" / "acc_exp03_user22.txt").write_text("0 1 2\n0 x 2\n")
    with pytest.raises(ValueError, match="acc_exp03_user22.txt: .*x"):
        hapt.load(folder)


def test_samples_that_are_no_numbers(folder):
    signal = np.zeros((60, 3))
    signal[7, 1] = np.nan
    np.savetxt(folder / "RawData" / "acc_exp03_user22.txt", signal)
    with pytest.raises(ValueError, match="NaN or infinite"):
        hapt.load(folder)


@pytest.mark.parametrize(
    "row", [(9, 1, 5, 1, 10), (1, 2, 5, 1, 10), (1, 1, 0, 1, 10), (1, 1, 13, 1, 10)]
)
def test_labels_of_unknown_recordings_or_classes(folder, row):
    write_labels(folder, [*LABELS, row])
    with pytest.raises(ValueError, match=f"row {' '.join(map(str, row))}; expected a recording"):
        hapt.load(folder)


# BUG (fails): rows whose samples run backwards or leave the recording are taken as they are. In a
# test recording they reach the ground truth.
@pytest.mark.parametrize("row", [(3, 22, 5, 40, 30), (3, 22, 5, 50, 70), (3, 22, 5, 0, 10)])
def test_labels_outside_their_recording(folder, row):
    write_labels(folder, [*LABELS, row])
    with pytest.raises(ValueError, match=f"labels.txt.*{' '.join(map(str, row))}"):
        hapt.load(folder)


def test_unknown_distribution(folder):
    with pytest.raises(ValueError, match="unknown distribution 'middle'"):
        hapt.load(folder, points="middle")


@pytest.mark.skipif(not os.environ.get("TAL_JAX_DATA"), reason="TAL_JAX_DATA is not set")
def test_the_real_data_set():
    dataset = hapt.load(Path(os.environ["TAL_JAX_DATA"]) / "hapt")
    assert len(dataset.train) == 43 and len(dataset.test) == 18
    assert len(dataset.classes) == 12 and dataset.notes == ()
    test = [
        instance
        for video in dataset.ground_truth["database"].values()
        for instance in video["annotations"]
    ]
    points = [point for recording in dataset.train for point in recording.points]
    assert len(points) + len(test) == 1214
    assert {point.label for point in points} == set(range(12))
    assert set(Counter(instance["label"] for instance in test)) == set(hapt.CLASSES)
    snippets = np.concatenate([recording.features for recording in dataset.train])
    np.testing.assert_allclose(snippets.mean(0), 0, atol=1e-3)


def test_windows_with_labels_of_their_own(folder):
    dataset = hapt.load(folder, cut_s=(2.0, 3.0))
    whole = hapt.load(folder)
    assert len(dataset.train) > len(whole.train) and len(dataset.test) == len(whole.test)
    joined = np.concatenate([window.features for window in dataset.train])
    np.testing.assert_array_equal(joined, np.concatenate([one.features for one in whole.train]))
    first = dataset.train[0]
    assert first.name == "exp01_user01@0s" and first.labels[0] == hapt.CLASSES.index("standing")
