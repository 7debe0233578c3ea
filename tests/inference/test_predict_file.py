"""One recording in, timeline out: what a file is, how it is described, what is written."""

import dataclasses
import math
import shutil

import ml_collections
import numpy as np
import pytest
import toy

from tal_jax import extraction
from tal_jax.data import files, recordings, signals
from tal_jax.data.clock import Grid
from tal_jax.data.manifest import Manifest, write_manifest
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.data.recordings import Dataset, Recording, Scaling
from tal_jax.datasets.own_layout import write_folder
from tal_jax.inference.predict import predict
from tal_jax.inference.predict_file import Network, _open_features, predict_file
from tal_jax.runs.workdir import open_run, shown_threshold

CLASSES = ("walk", "sit")


@pytest.fixture
def table(tmp_path):
    """Ten seconds at 20 Hz, in milliseconds."""
    rng = np.random.default_rng(0)
    times = np.arange(201) * 50
    rows = np.concatenate([times[:, None], rng.normal(size=(201, 3)).round(4)], axis=1)
    path = tmp_path / "waik in the párk.csv"
    np.savetxt(path, rows, delimiter=",", header="time_ms,ax,ay,az", comments="")
    return path


@pytest.fixture
def film(tmp_path):
    """Two seconds of noise at 10 frames a second."""
    import av

    path, rng = tmp_path / "film.mp4", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            pixels = rng.integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _network(backbone, seen=None, **changes):
    """A network that only keeps what it is given, and finds one action."""

    def predict(recording):
        if seen is not None:
            seen.append(dataclasses.replace(recording, features=np.asarray(recording.features)))
        total = len(recording.features)
        sequence = Predictions(
            np.zeros((total, 2), np.float32),
            np.zeros(total, np.float32),
            np.zeros(2, np.float32),
            np.arange(total + 1, dtype=np.float32),
        )
        said = RecordingPredictions(recording.grid, recording.duration_s, sequence, sequence)
        return [{"label": "sit", "score": 0.5, "segment": [0.25, 1.5]}], said

    grid = extraction.grid_of(backbone)
    manifest = Manifest(backbone.name, backbone.version, backbone.options, backbone.dim, grid)
    network = Network(
        "a_run", predict, CLASSES, backbone.dim, grid, manifest, scaling=None, threshold=0.3
    )
    return dataclasses.replace(network, **changes)


def _signal(**options):
    options = {"fps": 20, "window": 20, "stride": 10, "channels": "ax,ay,az"} | options
    return extraction.open_backbone("signal", **options)


def _motion(**options):
    return extraction.open_backbone("motion", **({"fps": 10, "window": 4, "stride": 4} | options))


def test_table_is_described_as_in_training(table, tmp_path):
    backbone, seen, told = _signal(), [], []
    scaling = Scaling(np.full(44, 2.0), np.full(44, 4.0))
    found = predict_file(
        table,
        _network(backbone, seen, scaling=scaling),
        progress=lambda done, total: told.append((done, total)),
    )
    extraction.extract_folder([table], tmp_path / "features", backbone, workers=1)
    features = np.load(tmp_path / "features" / f"{table.stem}.npy")
    np.testing.assert_allclose(seen[0].features, (features - 2) / 4, rtol=1e-6)
    # 201 samples at 20 Hz; a snippet is half a second.
    assert seen[0].name == found.name == table.stem
    assert seen[0].duration_s == found.duration_s == pytest.approx(10.05)
    assert len(features) == 21 and told[-1] == (21, 21)
    assert found.signals.names == ("ax", "ay", "az") and found.media is None
    assert found.threshold == 0.3


def test_video_is_described_as_in_training(film, tmp_path):
    backbone, seen = _motion(), []
    found = predict_file(film, _network(backbone, seen))
    extraction.extract_folder([film], tmp_path / "features", backbone, workers=1)
    np.testing.assert_array_equal(seen[0].features, np.load(tmp_path / "features" / "film.npy"))
    assert found.duration_s == pytest.approx(2.0) and found.media == film


def test_features_of_the_embedded_data_sets_are_those_of_their_tables(tmp_path):
    """What a run on `watch` or `hapt` remembers describes a table as their loaders do."""
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(300, 6))
    features, grid = signals.window_features(samples, fps=50, stride_s=0.5, window_s=1.5)
    one = Recording("r", features, grid, 6.0)
    dataset = signals.with_manifest(Dataset(("a",), (one,), (), {"database": {}}))
    seen = []
    network = _network(_signal(), seen, dim=features.shape[1], grid=grid, manifest=dataset.manifest)
    path = tmp_path / "t.npy"
    np.save(path, np.concatenate([np.arange(300)[:, None] / 50, samples], axis=1))
    predict_file(path, network)
    np.testing.assert_allclose(seen[0].features, features, rtol=1e-4, atol=1e-4)


def test_features_stay_in_their_file(toy_run, tmp_path):
    network = open_run(toy_run.workdir)
    found = predict_file(toy_run.data / "test_0.npy", network)
    test = toy.dataset(toy_run.data).test[0]
    assert found.detections == predict(toy_run.fitted, [test])["test_0"]
    assert found.classes == toy.CLASSES and network.manifest is None
    opened = _open_features(toy_run.data / "test_0.npy", network)
    scaled = Scaling(np.zeros(8), np.full(8, 2.0)).apply(opened.features)
    assert isinstance(scaled, recordings.ScaledFeatures) and scaled.shape == opened.features.shape
    np.testing.assert_array_equal(scaled[5:9], np.load(toy_run.data / "test_0.npy")[5:9] / 2)


@pytest.mark.parametrize("changes, message", [
    ({"fps": 25}, "fps is 25.0, not 20.0"),
    ({"stride": 5}, "stride is 5.0, not 10.0"),
    ({"window": 10}, "window is 10.0, not 20.0"),
])  # fmt: skip
def test_other_clocks_are_refused(table, changes, message):
    with pytest.raises(ValueError, match=f"features of another kind: .*{message}"):
        predict_file(table, _network(_signal()), options=changes)


def test_other_versions_are_refused(film):
    network = _network(_motion())
    network = dataclasses.replace(
        network, manifest=dataclasses.replace(network.manifest, version="0")
    )
    with pytest.raises(ValueError, match="film.mp4: .*version is 1, not 0"):
        predict_file(film, network)


def test_wrong_files_are_refused(table, film, tmp_path):
    with pytest.raises(ValueError, match="film.mp4: a video; .* trained on tables"):
        predict_file(film, _network(_signal()))
    with pytest.raises(ValueError, match="csv: no video; .* trained on videos"):
        predict_file(table, _network(_motion()))
    with pytest.raises(ValueError, match="without a manifest.json.*T, 44"):
        predict_file(table, _network(_signal(), manifest=None))
    with pytest.raises(ValueError, match="nothing.mp4: no such file"):
        predict_file(tmp_path / "nothing.mp4", _network(_motion()))
    shutil.copy(table, tmp_path / "renamed.mp4")
    with pytest.raises(ValueError, match="cannot read .*renamed.mp4"):
        predict_file(tmp_path / "renamed.mp4", _network(_motion()))


def test_features_beside_another_clock_are_refused(tmp_path):
    backbone, features = _motion(), np.zeros((5, 160), np.float32)
    network = _network(backbone)
    write_folder(
        tmp_path / "f",
        {"r": features},
        grid=Grid(10, 5, 4),
        annotations=toy.Annotations(CLASSES, {}),
    )
    path = tmp_path / "f" / "r.npy"
    with pytest.raises(ValueError, match="stride_frames is 5 in the grid.json .* expected 4"):
        predict_file(path, network)
    other = _motion(fps=20)
    made = Manifest(other.name, other.version, other.options, other.dim, extraction.grid_of(other))
    write_manifest(tmp_path / "f", made)
    with pytest.raises(ValueError, match="r.npy: .*fps is 20.0, not 10.0"):
        predict_file(path, network)


def test_the_threshold_leaves_as_many_proposals_as_points(tmp_path):
    """Of proposals that overlap, all but the best count with what soft-NMS leaves of them."""

    def proposal(label, score, start):
        return {"label": label, "score": score, "segment": [start, start + 1]}

    found = [proposal("a", 0.9, 0), proposal("a", 0.2, 3), proposal("b", 0.4, 0)]
    proposals = {"r": [*found, proposal("a", 0.8, 0)], "s": [], "t": [proposal("a", 0.6, 0)]}
    files.write_json(tmp_path / "round_1" / "proposals_train.json", {"results": proposals})
    lowered = 0.8 * math.exp(-1 / 0.5)
    for sigma, count, expected in (
        (0.5, 3, 0.4), (0.5, 5, lowered), (0.5, 9, lowered), (0.0, 3, 0.6), (0.5, 0, None),
    ):  # fmt: skip
        points = {"r": {"annotations": [{}] * count}}
        files.write_json(tmp_path / "train_points.json", {"database": points})
        options = ml_collections.FrozenConfigDict({"soft_sigma": sigma})
        assert shown_threshold(tmp_path, 1, options) == pytest.approx(expected)
    # Those of recordings that were held out do not count: they have no proposals.
    points = {"r": {"annotations": [{}]}, "held": {"annotations": [{}] * 9}}
    files.write_json(tmp_path / "train_points.json", {"database": points})
    assert shown_threshold(tmp_path, 1, options) == pytest.approx(0.9)


def test_features_that_a_manifest_tells_of_are_no_table(film, tmp_path):
    extraction.extract_folder([film], tmp_path / "features", _motion(), workers=1)
    with pytest.raises(ValueError, match="film.npy: features of another kind"):
        predict_file(tmp_path / "features" / "film.npy", _network(_signal()))


def test_settings_of_a_backbone_are_refused_with_features(tmp_path):
    np.save(tmp_path / "walk.npy", np.zeros((9, 160), np.float32))
    with pytest.raises(ValueError, match="walk.npy holds features already; .* got path"):
        predict_file(tmp_path / "walk.npy", _network(_motion()), options={"path": "x"})


@pytest.mark.parametrize("kind", ["complex64", "U3"])
def test_features_that_are_no_real_numbers_are_refused(kind, tmp_path):
    np.save(tmp_path / "odd.npy", np.zeros((9, 160), kind))
    network = _network(_motion(), scaling=Scaling(np.zeros(160), np.ones(160)))
    with pytest.raises(ValueError, match="odd: features are .*, expected float32 or float16"):
        predict_file(tmp_path / "odd.npy", network)


# --- which column is which channel ---

SIX = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")


@pytest.fixture
def write(tmp_path):
    """Writes the same six signals in any order and by any names; ten seconds at 20 Hz."""
    samples = dict(zip(SIX, np.random.default_rng(0).normal(size=(6, 200)).round(4), strict=True))

    def write(name, order, names=None, **others):
        columns = {"time_s": np.arange(200) / 20, **others}
        renamed = dict(zip(order, names or order, strict=True))
        columns |= {renamed[channel]: samples[channel] for channel in order}
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    return write


def _six(seen, *, named=True, usual=SIX):
    """A network on six channels, which have names, usual names or none."""
    network = _network(_signal(channels=",".join(SIX)), seen)
    if named:
        return network
    options = {**network.manifest.options, "channels": []}
    manifest = dataclasses.replace(network.manifest, options=options, channels=usual)
    return dataclasses.replace(network, manifest=manifest)


@pytest.mark.parametrize("named", [True, False])
def test_channels_are_found_by_their_names(write, named):
    seen = []
    orders = [SIX, SIX[3:] + SIX[:3], SIX[::-1]]
    others = {"heart": np.arange(200) ** 2, "what": ["walk"] * 200, "": range(200)}
    for number, order in enumerate(orders):
        found = predict_file(write(f"{number}.csv", order), _six(seen, named=named))
        assert found.notes == () and found.signals.names == order
    found = predict_file(write("more.csv", SIX, **others), _six(seen, named=named))
    assert found.notes[0].startswith("columns left out: heart, what (text), column 4 (no name)")
    for one in seen[1:]:
        np.testing.assert_array_equal(one.features, seen[0].features)


@pytest.mark.parametrize("usual", [SIX, ()])
def test_channels_without_names_are_taken_by_their_order(write, usual):
    seen, names = [], ("ax", "ay", "az", "gx", "gy", "gz")
    predict_file(write("a.csv", SIX), _six(seen))
    found = predict_file(write("b.csv", SIX, names), _six(seen, named=False, usual=usual))
    last = "gyr_z" if usual else "channel 6"
    assert found.notes[0].startswith("takes columns by their order: ax as ")
    assert found.notes[0].endswith(f"gz as {last}")
    np.testing.assert_array_equal(seen[1].features, seen[0].features)


def test_columns_that_are_named_for_the_channels(write):
    seen = []
    predict_file(write("a.csv", SIX), _six(seen))
    names = ("gz", "gy", "gx", "az", "ay", "ax")
    path = write("b.csv", SIX[::-1], names)
    for named in (True, False):
        found = predict_file(
            path, _six(seen, named=named), options={"channels": "ax,ay,az,gx,gy,gz"}
        )
        assert "ax as acc_x, ay as acc_y" in found.notes[0]
        np.testing.assert_array_equal(seen[-1].features, seen[0].features)
    with pytest.raises(ValueError, match="3 columns, ax, ay, az; .* trained on 6, acc_x"):
        predict_file(path, _six(seen), options={"channels": "ax,ay,az"})


@pytest.mark.parametrize("named", [True, False])
def test_a_missing_channel_is_named(write, named):
    path = write("a.csv", SIX[:5])
    with pytest.raises(ValueError, match="a.csv: no column 'gyr_z' among .*--set channels=NAME"):
        predict_file(path, _six([], named=named))
    path = write("b.csv", SIX, ("foo", *SIX[1:]))
    with pytest.raises(ValueError, match="b.csv: no column 'acc_x' among foo"):
        predict_file(path, _six([], named=named))
    path = write("c.csv", SIX[:3], ("u", "v", "w"))
    message = "no column 'acc_x' among u" if named else "3 columns, u, v, w; .* trained on 6"
    with pytest.raises(ValueError, match=f"c.csv: {message}"):
        predict_file(path, _six([], named=named))


def test_the_time_of_training_is_a_default(write, tmp_path):
    """A run on tables whose unit had to be set reads others by the units in their names."""
    rows = np.column_stack([np.arange(200) * 200, np.random.default_rng(0).normal(size=(200, 3))])
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="time,ax,ay,az", comments="")
    with pytest.raises(ValueError, match="--set time_unit=ms"):
        predict_file(tmp_path / "a.csv", _network(_signal()))
    found = predict_file(tmp_path / "a.csv", _network(_signal()), options={"time_unit": "ms"})
    assert found.duration_s == pytest.approx(39.85)
    trained = _network(_signal(time_unit="ms"))
    assert predict_file(tmp_path / "a.csv", trained).duration_s == pytest.approx(39.85)
    rows[:, 0] /= 10_000  # 50 Hz
    np.savetxt(tmp_path / "b.csv", rows, delimiter=",", header="time_s,ax,ay,az", comments="")
    for options in ({}, {"time_unit": "s"}):
        found = predict_file(tmp_path / "b.csv", trained, options=options)
        assert found.duration_s == pytest.approx(4.0) and found.notes == ()


def test_the_manifest_keeps_usual_names():
    one = Recording("r", np.zeros((4, 88), np.float32), Grid(50, 25, 75), 2.0)
    dataset = Dataset(("a",), (one,), (), {"database": {}})
    manifest = signals.with_manifest(dataset, SIX).manifest
    assert Manifest.from_dict(manifest.to_dict()) == manifest and manifest.channels == SIX
    plain = signals.with_manifest(dataset).manifest.to_dict()
    assert "channels" not in plain["backbone"]
    assert Manifest.from_dict(plain).channels == ()


def test_features_in_a_shard(film, tmp_path):
    backbone, seen = _motion(), []
    for folder, shards in (("files", None), ("shards", 3)):
        extraction.extract_folder([film], tmp_path / folder, backbone, workers=1, shards=shards)
        found = predict_file(tmp_path / folder / "film.npy", _network(backbone, seen))
        assert found.name == "film" and found.duration_s == 2.0
    np.testing.assert_array_equal(seen[0].features, seen[1].features)
    with pytest.raises(ValueError, match="other.npy: no such file"):
        predict_file(tmp_path / "shards" / "other.npy", _network(backbone))
