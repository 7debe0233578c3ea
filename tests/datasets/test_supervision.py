"""What training may use: segments of all instances, of some recordings, points or labels."""

import dataclasses
import json

import numpy as np
import pytest
import toy

from tal_jax.config import data_config, folder_config, rsmp_config
from tal_jax.data.recordings import Dataset, Point, Recording
from tal_jax.datasets import hapt, watch
from tal_jax.datasets.load import examine, load_dataset
from tal_jax.datasets.supervision import Supervision, supervise


@pytest.fixture
def folder(tmp_path):
    """The toy problem; its annotations have segments and no points."""
    return toy.write(tmp_path / "data")


def _config(folder, **settings):
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), **settings)
    return config


def _load(folder, **settings):
    return load_dataset(_config(folder, **settings))


def _segments(dataset):
    return {
        recording.name: tuple(point.segment_s for point in recording.points)
        for recording in dataset.train
    }


def _change(folder, change):
    path = folder / "annotations.json"
    values = json.loads(path.read_text())
    for name, recording in values["database"].items():
        recording["annotations"] = change(name, recording["annotations"])
    path.write_text(json.dumps(values))


def test_points_alone_by_default(folder):
    dataset = _load(folder)
    assert {segment for each in _segments(dataset).values() for segment in each} == {None}
    assert not any("supervision" in note for note in dataset.notes)


@pytest.mark.parametrize("kind", ["segments", "mixed"])
def test_segments_of_drawn_points(folder, kind):
    points, dataset = _load(folder), _load(folder, supervision=kind)
    assert _segments(dataset) == points.train_truth == dataset.train_truth
    for one, other in zip(points.train, dataset.train, strict=True):
        bare = tuple(dataclasses.replace(point, segment_s=None) for point in other.points)
        assert bare == one.points  # the same points
    total = sum(len(recording.points) for recording in dataset.train)
    note = f"supervision: {total} of {total} training instances have a segment, in 6 of 6"
    assert any(note in one for one in dataset.notes)


def test_the_middle_is_the_point_of_segments_alone(folder):
    with pytest.raises(ValueError, match="has no point to train on.*data.supervision='mixed'"):
        _load(folder, points="file")
    dataset = _load(folder, points="file", supervision="segments")
    for recording in dataset.train:
        for point in recording.points:
            assert point.time_s == sum(point.segment_s) / 2
    total = sum(len(recording.points) for recording in dataset.train)
    notes = [note for note in dataset.notes if "middle of the segment" in note]
    assert len(notes) == 1 and f"the point of {total} instances" in notes[0]


def test_every_segment_counts_in_mixed(folder):
    """One recording with segments, one with half of them, others with points alone."""

    def click(name, instances):
        if name == "train_0" or name.startswith("test"):
            return instances
        kept = 2 if name == "train_1" else 0
        clicks = [
            {"label": one["label"], "point": one["segment"][0] + 0.25} for one in instances[kept:]
        ]
        return instances[:kept] + clicks

    _change(folder, click)
    segments = _segments(_load(folder, points="file", supervision="mixed"))
    assert all(segments["train_0"])
    assert [one is not None for one in segments["train_1"]][:3] == [True, True, False]
    assert not any(any(segments[f"train_{number}"]) for number in range(2, 6))
    with pytest.raises(ValueError, match="train_1: the instance of .* has no segment.*'mixed'"):
        _load(folder, points="file", supervision="segments")
    for kind in ("points", "segments", "mixed"):  # the doctor refuses what training refuses
        config = _config(folder, points="file", supervision=kind)
        assert examine(config).wrong == (kind != "mixed")


def test_share_of_the_recordings(folder):
    def kept(share, seed=0):
        config = _config(folder, supervision="mixed", segments_share=share)
        config.data.seed = seed
        segments = _segments(load_dataset(config))
        # Whole recordings.
        assert all(all(one) or not any(one) for one in segments.values())
        return {name for name, one in segments.items() if any(one)}

    assert [len(kept(share)) for share in (0.0, 0.01, 0.5, 0.51, 1.0)] == [0, 1, 3, 4, 6]
    assert kept(0.01) < kept(0.5) < kept(0.51)
    assert len({frozenset(kept(0.5, seed)) for seed in range(5)}) > 1


def test_share_counts_recordings_with_segments_alone():
    def recording(name):
        return Recording(name, np.zeros((4, 2), np.float32), toy.GRID, 2.0, (Point(1.0, 0),))

    names = [f"r{number}" for number in range(100)]
    truth = {name: ((0.5, 1.5) if index < 10 else None,) for index, name in enumerate(names)}
    dataset = Dataset(("a",), tuple(map(recording, names)), (), {}, train_truth=truth)
    segments = _segments(supervise(dataset, Supervision("mixed", 0.7)))
    kept = [name for name in names if any(segments[name])]
    assert len(kept) == 7 and set(kept) <= set(names[:10])
    nothing = dataclasses.replace(dataset, train_truth=None)
    assert not any(map(any, _segments(supervise(nothing, Supervision("mixed"))).values()))
    with pytest.raises(ValueError, match="r0: the instance of 'a' at 1 s has no segment"):
        supervise(nothing, Supervision("segments"))


def test_labels(folder):
    """As without points; points and segments need not be there."""
    without = _load(folder, points="none")
    _change(folder, lambda name, instances: [
        one if name.startswith("test") else {"label": one["label"]} for one in instances
    ])  # fmt: skip
    dataset = _load(folder, supervision="labels")
    assert [(one.points, one.labels) for one in dataset.train] == [
        ((), recording.labels) for recording in without.train
    ]
    assert dataset.train_truth is None
    assert not examine(_config(folder, supervision="labels")).wrong
    assert examine(_config(folder, supervision="points")).wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(supervision="boxes"), "data.supervision='boxes'; expected one of labels, points"),
        (dict(supervision="mixed", points="none"), "='mixed' with data.points='none'.*one of them"),
        (dict(supervision="segments", points="none"), "='segments' with data.points='none'"),
        (dict(supervision="mixed", segments_share=1.5), "segments_share=1.5; .* from 0 to 1"),
        (dict(segments_share=0.5), "segments_share=0.5 with data.supervision='points'"),
    ],
)
def test_refusals(folder, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        _load(folder, **settings)
    assert "\n" not in str(caught.value)
    assert examine(_config(folder, **settings)).wrong


def test_labels_without_points_are_no_conflict(folder):
    assert _load(folder, supervision="labels", points="none").train[0].labels


def test_configs_without_the_settings(folder):
    """Of runs that were begun before there were any."""
    config = _config(folder)
    del config.data["supervision"], config.data["segments_share"]
    assert repr(load_dataset(config)) == repr(_load(folder))


def test_every_data_set(monkeypatch, tmp_path):
    """Whatever their loaders return, with the seed of the data."""
    dataset = toy.dataset(toy.write(tmp_path))
    monkeypatch.setattr(watch, "load", lambda **settings: dataset)
    monkeypatch.setattr(hapt, "load", lambda *args, **settings: dataset)
    for name, more in (("watch", {"shuffles": 2}), ("hapt", {})):
        config = rsmp_config()
        config.data = data_config(name, stride_s=0.5, window_s=1.5, **more)
        config.data.supervision = "segments"
        assert _segments(load_dataset(config, tmp_path)) == dataset.train_truth
        config.data.supervision = "labels"
        assert not any(one.points for one in load_dataset(config, tmp_path).train)
        assert all(one.labels for one in load_dataset(config, tmp_path).train)
    config.data = data_config("hapt", stride_s=0.5, window_s=1.5, cut_s=(30.0, 60.0))
    config.data.supervision = "mixed"
    with pytest.raises(ValueError, match=r"data.cut_s=\(30.0, 60.0\) .*cuts go through instances"):
        load_dataset(config, tmp_path)
