"""Data sets by name, and their settings."""

import json

import numpy as np
import pytest
import toy

from tal_jax._errors import InputError
from tal_jax.config import data_config, folder_config, override, rsmp_config
from tal_jax.datasets import hapt, load, watch
from tal_jax.datasets.load import load_dataset


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch):
    monkeypatch.delenv("TAL_JAX_DATA", raising=False)


def _config(name, **settings):
    config = rsmp_config()
    config.data = data_config(name, **settings)
    return config


def _folder_config(folder="", **settings):
    subsets = dict(train_subset="train", test_subset="test") | settings
    config = rsmp_config()
    config.data = folder_config(folder=str(folder), **subsets)
    return config


def _points(dataset):
    return [point.time_s for recording in dataset.train for point in recording.points]


def test_folder(tmp_path):
    toy.write(tmp_path / "toy")
    dataset = load_dataset(_folder_config(tmp_path / "toy"))
    assert dataset.classes == toy.CLASSES
    assert (len(dataset.train), len(dataset.test)) == (6, 3)
    assert _points(dataset) == _points(load_dataset(_folder_config("toy"), tmp_path))
    assert _points(dataset) == _points(load_dataset(_folder_config(), tmp_path / "toy"))


def test_folder_from_the_environment(tmp_path, monkeypatch):
    toy.write(tmp_path / "toy")
    monkeypatch.setenv("TAL_JAX_DATA", str(tmp_path))
    assert load_dataset(_folder_config("toy")).classes == toy.CLASSES
    with pytest.raises(ValueError, match="no such folder"):
        load_dataset(_folder_config("toy"), tmp_path / "elsewhere")


def test_points_follow_the_distribution_and_the_seed(tmp_path):
    toy.write(tmp_path)
    config = _folder_config(tmp_path)
    first = _points(load_dataset(config))
    config.seed = 1
    other = _points(load_dataset(config))
    assert len(first) == len(other) and first != other
    config.data.seed = 0  # the points' own seed
    assert _points(load_dataset(config)) == first
    config.data.points = "center"
    middles = _points(load_dataset(config))
    entries = json.loads((tmp_path / "annotations.json").read_text())["database"]
    segments = [one["segment"] for name in sorted(entries) for one in entries[name]["annotations"]]
    train = [np.mean(segment) for segment in segments[-len(middles) :]]  # "test_…" comes first
    assert middles == pytest.approx(train)


def test_points_of_the_file(tmp_path):
    """Are used where they are asked for, and never replaced in silence."""
    toy.write(tmp_path)
    path = tmp_path / "annotations.json"
    annotations = json.loads(path.read_text())
    for recording in annotations["database"].values():
        for one in recording["annotations"]:
            one["point"] = one["segment"][0] + 0.25
    path.write_text(json.dumps(annotations))
    config = _folder_config(tmp_path)
    drawn = load_dataset(config)
    count = len(_points(drawn))
    assert f"{count} points of the annotations were replaced by drawn ones" in drawn.notes[0]
    config.data.points = "file"
    clicked = load_dataset(config)
    assert not any("replaced" in note for note in clicked.notes)
    starts = {
        one["point"]
        for recording in annotations["database"].values()
        for one in recording["annotations"]
    }
    assert set(_points(clicked)) <= starts

    for recording in annotations["database"].values():
        if recording["subset"] == "train":
            for one in recording["annotations"]:
                del one["segment"]
    path.write_text(json.dumps(annotations))
    assert _points(load_dataset(config)) == _points(clicked)
    config.data.points = "uniform"
    with pytest.raises(ValueError, match="no segment to draw .* or data.points='file'"):
        load_dataset(config)


def test_other_data_sets_get_their_settings(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(watch, "load", lambda **settings: calls.append(settings))
    monkeypatch.setattr(hapt, "load", lambda *args, **settings: calls.append((*args, settings)))
    config = _config("watch", shuffles=3, stride_s=0.25, window_s=2.0)
    config.seed, config.data.points = 4, "gaussian"
    load_dataset(config)
    common = dict(seed=4, points="gaussian", stride_s=0.25, window_s=2.0)
    assert calls.pop() == common | {"shuffles": 3}
    config = _config("hapt", stride_s=0.25, window_s=2.0)
    config.data.seed, config.data.points = 4, "gaussian"
    load_dataset(config, tmp_path)
    assert calls.pop() == (tmp_path / "hapt", common | {"cut_s": ()})
    (tmp_path / "RawData").mkdir()
    load_dataset(config, tmp_path)
    assert calls.pop() == (tmp_path, common | {"cut_s": ()})


def test_shipped_configs_name_all_settings(tmp_path, monkeypatch):
    from tal_jax.config import config_names, load_config

    loaded = []
    monkeypatch.setattr(watch, "load", lambda **settings: loaded.append("watch"))
    monkeypatch.setattr(hapt, "load", lambda *args, **settings: loaded.append("hapt"))
    toy.write(tmp_path)
    for name in config_names():
        config = load_config(name)
        if config.data.name == "folder":
            config.data.points = "center"  # the toy problem comes without points
            load_dataset(config, tmp_path)
        else:
            load_dataset(config, tmp_path)
            assert loaded.pop() == config.data.name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_config("wach"), "data.name='wach'; did you mean 'watch'?"),
        (
            _config("watch", shufles=2, stride_s=0.5, window_s=1.5),
            "data.shufles is no setting of the data set 'watch'; did you mean data.shuffles?",
        ),
        (_config("watch", stride_s=0.5, window_s=1.5), "data.shuffles is missing"),
        (_config("hapt", stride_s=0.5, window_s=1.5), "hapt: no folder given"),
        (_folder_config(), "folder: none given"),
        (_folder_config("/nowhere"), "/nowhere: no such folder"),
    ],
)
def test_refusals(config, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as caught:
        load_dataset(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["seed", "data.seed"])
def test_negative_seeds(tmp_path, key):
    config = _folder_config(str(toy.write(tmp_path, num_train=1, num_test=1)))
    override(config, f"{key}=-1")
    with pytest.raises(InputError, match=f"^config: {key}=-1; expected at least 0$"):
        load_dataset(config)


def test_unknown_distribution(tmp_path):
    toy.write(tmp_path)
    config = _folder_config(tmp_path)
    config.data.points = "central"
    with pytest.raises(ValueError, match="data.points='central'; expected one of uniform"):
        load_dataset(config)


def test_names():
    assert set(load.LOADERS) == {"watch", "hapt", "folder"}


def test_video_level_labels_alone(tmp_path):
    """Neither points nor segments are needed to train, nor can they be reached."""
    toy.write(tmp_path)
    path = tmp_path / "annotations.json"
    annotations = json.loads(path.read_text())
    for recording in annotations["database"].values():
        if recording["subset"] == "train":
            recording["annotations"] = [{"label": label} for label in ("dip", "bump", "dip")]
    annotations["database"]["train_0"]["annotations"] = [{"label": "dip"}]
    path.write_text(json.dumps(annotations))
    config = _folder_config(tmp_path)
    config.data.points = "none"
    dataset = load_dataset(config)
    assert [recording.labels for recording in dataset.train] == [(1,), *[(0, 1)] * 5]
    assert not any(recording.points for recording in dataset.train)
    config.data.points = "file"
    with pytest.raises(ValueError, match="learn from labels alone"):
        load_dataset(config)
