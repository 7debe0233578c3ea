"""Exported networks against the runs that they come from."""

import dataclasses
import hashlib
import json
import sys

import jax
import numpy as np
import pytest
import toy
import typecheck

from tal_jax import methods
from tal_jax.config import DEFAULTS, detector_config
from tal_jax.data import files
from tal_jax.data.projection import Projection
from tal_jax.data.recordings import Scaling
from tal_jax.inference import export
from tal_jax.inference.detector import FittedDetector
from tal_jax.inference.forward import Fitted
from tal_jax.inference.localize import localize_predictions
from tal_jax.inference.predict import predict_mean
from tal_jax.inference.predict_file import predict_file
from tal_jax.inference.predict_files import predict_files
from tal_jax.runs.workdir import export_run, open_run
from tal_jax.training import update

# A training, and programs of three platforms.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _symbolic_sizes():
    """Exports trace with sizes that are symbols, which annotations do not know."""
    with typecheck.unchecked():
        yield


@pytest.fixture(scope="module")
def exported(toy_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_run(toy_run.workdir, folder)
    return folder


def test_predicts_what_the_run_does(toy_run, exported):
    networks = open_run(toy_run.workdir), export.open_export(exported)
    for name in ("test_0", "test_1"):
        path = toy_run.data / f"{name}.npy"
        want, got = (predict_file(path, network) for network in networks)
        assert got.threshold == want.threshold and got.duration_s == want.duration_s
        _assert_close(got.predictions.original, want.predictions.original)
        # Both localize in the same way; rounding may decide which of two comes first.
        options = toy_run.fitted.config.localization
        for one in (got, want):
            found = localize_predictions({name: one.predictions}, options, toy.CLASSES)[name]
            assert one.detections == found and len(found) > 5


def test_one_program_for_recordings_of_about_the_same_length(toy_run, exported, tmp_path):
    features = np.load(toy_run.data / "test_0.npy")
    paths = [tmp_path / f"{size}.npy" for size in (180, 90, 140)]
    for path in paths:
        np.save(path, features[: int(path.stem)])
    with toy.compilations() as compiled:
        found = [one for _, one in predict_files(paths, export.open_export(exported))]
    assert compiled.count("jit(call)") == 1 and compiled.count("jit(localize_compiled)") <= 1
    assert [len(one.predictions.original.cas) for one in found] == [180, 90, 140]


def _assert_close(got, want):
    for part in ("cas", "actionness", "video_scores"):
        np.testing.assert_allclose(getattr(got, part), getattr(want, part), rtol=1e-4, atol=1e-5)


def test_card_and_parameters(toy_run, exported):
    card = json.loads((exported / "card.json").read_text())
    assert card["classes"] == list(toy.CLASSES) and card["platforms"] == ["cpu", "cuda", "tpu"]
    assert card["data"]["train_recordings"] == 6 and card["rounds"] == 2
    assert card["scores"] == json.loads((toy_run.workdir / "evaluation.json").read_text())
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    params = files.read_npz(exported / "params.npz")
    for number, one in enumerate(toy_run.fitted.params):
        kernel = params[f"round_{number}/classifier/kernel"]
        np.testing.assert_array_equal(kernel, one["classifier"]["kernel"])
    assert len(params) == len(jax.tree.leaves(toy_run.fitted.params))


def test_runs_without_this_library(toy_run, exported):
    """As somebody else would use the file: several recordings, any length, masks."""
    model = jax.export.deserialize(bytearray((exported / "model.jax_export").read_bytes()))
    test = toy.dataset(toy_run.data).test[:2]
    sizes = [len(recording.features) for recording in test]
    features = np.full((2, max(sizes) + 3, toy.DIM), 7, np.float32)
    for row, recording in enumerate(test):
        features[row, : sizes[row]] = recording.features
    where = np.arange(features.shape[1]) < np.array(sizes)[:, None]
    said = model.call(features, where)
    scores = predict_mean(toy_run.fitted, test)
    for row, recording in enumerate(test):
        want = scores[recording.name].original
        np.testing.assert_allclose(
            said["scores"][row, : sizes[row]], want.cas, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(said["video"][row], want.video_scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method, settings", [
    ("rsmp", {"closed_form": True}),
    ("rsmp", {"num_prototypes": 0, "precision": "bfloat16"}),
    ("hamnet", {"variant": "document"}),
    ("hamnet", {"variant": "published"}),
])  # fmt: skip
def test_every_network_can_be_exported(method, settings):
    config = DEFAULTS[method]()
    config.model.update({"widths": (16,) if method == "rsmp" else (16, 16)} | settings)
    module, compiled = methods.METHODS[method], update.compiled_config(config)
    model = module.make_model(compiled, 3)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 11, 6)).astype(np.float32)
    where = np.arange(11) < np.array([[11], [7]])
    params = model.init(jax.random.key(0), features, where=where)["params"]
    params = (params, jax.tree.map(lambda leaf: 0.5 * leaf, params))
    fitted = Fitted(params, config, ("a", "b", "c"), 6)
    scaling = Scaling(rng.normal(size=6), rng.uniform(1, 2, size=6))
    serialized = export._serialize(fitted, scaling, ("cpu",))
    got = jax.export.deserialize(bytearray(serialized)).call(features, where)
    of_rounds = [
        module.predictions(
            compiled,
            module.logits(model, compiled, one, scaling.apply(features), where),
            where,
        )
        for one in params
    ]
    tolerance = 2e-2 if settings.get("precision") else 1e-5
    parts = {"scores": "cas", "foreground": "actionness", "video": "video_scores"}
    for name, part in parts.items():
        want = np.mean([getattr(one, part) for one in of_rounds], axis=0)
        np.testing.assert_allclose(got[name], want, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def exported_detector(detector_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported_detector")
    export_run(detector_run.workdir, folder)
    return folder


def test_both_stages_predict_what_the_run_does(detector_run, exported_detector):
    networks = open_run(detector_run.workdir), export.open_export(exported_detector)
    for name in ("test_0", "test_1"):
        path = detector_run.data / f"{name}.npy"
        want, got = (predict_file(path, network) for network in networks)
        assert got.threshold == want.threshold
        _assert_close(got.predictions.original, want.predictions.original)
        assert [one["label"] for one in got.detections] == [one["label"] for one in want.detections]
        for key in ("score", "segment"):
            values = ([one[key] for one in found.detections] for found in (got, want))
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-3)
        options = detector_run.fitted.config.localization
        alone = localize_predictions({name: got.predictions}, options, toy.CLASSES)[name]
        assert len(alone) > 5 and got.detections != alone


def test_the_card_describes_the_detector(detector_run, exported_detector, exported):
    card = files.read_json(exported_detector / "card.json")
    assert card["version"] == 3
    levels = detector_run.fitted.detector.model.num_levels
    assert card["detector"] == {"num_levels": levels, "width": 16, "components": 8}
    assert files.read_json(exported / "card.json")["detector"] is None
    params = files.read_npz(exported_detector / "params.npz")
    projection = detector_run.fitted.detector.projection
    np.testing.assert_array_equal(params["projection/components"], projection.components)
    kernel = detector_run.fitted.detector.params["classifier"]["kernel"]
    np.testing.assert_array_equal(params["detector/classifier/kernel"], kernel)


@pytest.mark.parametrize("levels", [3, 10])
def test_outputs_of_the_detector(levels):
    """At every anchor, for lengths that are no multiple of the coarsest stride too."""
    rng = np.random.default_rng(0)
    config = DEFAULTS["rsmp"]()
    config.model.update(widths=(4,), num_prototypes=0)
    config.detector.width = 4
    projection = Projection(rng.normal(size=6), rng.normal(size=(6, 3)))
    own = FittedDetector(None, detector_config(config, levels), projection, ("a", "b"))
    features = rng.normal(size=(2, 11, 6)).astype(np.float32)
    where = np.arange(11) < np.array([[11], [7]])
    init = own.model.init(jax.random.key(0), projection.apply(features), where=where)
    own = dataclasses.replace(own, params=init["params"])
    model = methods.METHODS["rsmp"].make_model(update.compiled_config(config), 2)
    params = model.init(jax.random.key(0), features, where=where)["params"]
    scaling = Scaling(rng.normal(size=6), rng.uniform(1, 2, size=6))
    fitted = Fitted((params,), config, ("a", "b"), 6, own)
    serialized = export._serialize(fitted, scaling, ("cpu",))
    got = jax.export.deserialize(bytearray(serialized)).call(features, where)
    standardised = scaling.apply(features.reshape(-1, 6)).reshape(features.shape)
    scaled = projection.apply(standardised.astype(np.float32))
    want = own.model.apply({"params": own.params}, scaled, where=where)
    length = -(-11 // 2 ** (levels - 1)) * 2 ** (levels - 1)
    assert got["logits"].shape == (2, sum(length >> level for level in range(levels)), 2)
    np.testing.assert_array_equal(got["anchor_where"], want.where)
    np.testing.assert_allclose(got["logits"], want.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["offsets"], want.offsets, rtol=1e-3, atol=1e-4)


def test_recordings_are_read_once(toy_run, tmp_path):
    """Also where each round reads them lengthened: the rounds' mean is on their own timeline."""
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(toy_run.workdir, workdir)
    config = files.read_json(workdir / "config.json")
    config["sampling"] |= {"compensate": True, "test_compensation": True}
    files.write_json(workdir / "config.json", config)
    export_run(workdir, tmp_path / "exported", platforms=("cpu",))
    networks = open_run(workdir), export.open_export(tmp_path / "exported")
    want, got = (predict_file(toy_run.data / "test_0.npy", network) for network in networks)
    for one in (got, want):
        assert one.predictions.last is one.predictions.original
    _assert_close(got.predictions.original, want.predictions.original)


def test_changed_files_are_refused(exported, tmp_path):
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(exported, folder)
    content = bytearray((folder / "model.jax_export").read_bytes())
    content[100] ^= 1
    (folder / "model.jax_export").write_bytes(bytes(content))
    with pytest.raises(ValueError, match="model.jax_export: not the file that card.json describes"):
        export.open_export(folder)
    (folder / "model.jax_export").unlink()
    with pytest.raises(ValueError, match="cannot read .*model.jax_export: No such file"):
        export.open_export(folder)
    whole = files.read_json(folder / "card.json")
    for card in ({"version": 0}, {"version": 2}, []):
        files.write_json(folder / "card.json", card)
        with pytest.raises(ValueError, match="no card of an exported network"):
            export.open_export(folder)
    files.write_json(folder / "card.json", whole | {"version": 1})
    with pytest.raises(ValueError, match="version 1, expected 3; export the run again"):
        export.open_export(folder)


def test_missing_package(toy_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ValueError, match=r'pip install "tal_jax\[export\]"'):
        export_run(toy_run.workdir, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_files_of_somebody_else_are_not_replaced(toy_run, tmp_path):
    """A folder is one of exports by its card; without one, only `overwrite` replaces files."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / export.PARAMS_FILE).write_text("theirs")
    with pytest.raises(ValueError, match=r"params.npz: there already, and not written by tal_jax"):
        export_run(toy_run.workdir, theirs)
    assert [path.name for path in theirs.iterdir()] == [export.PARAMS_FILE]
    assert (theirs / export.PARAMS_FILE).read_text() == "theirs"
    export_run(toy_run.workdir, theirs, platforms=("cpu",), overwrite=True)
    export_run(toy_run.workdir, theirs, platforms=("cpu",))  # now it is one of exports
    assert set(files.read_npz(theirs / export.PARAMS_FILE))
