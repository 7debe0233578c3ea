"""Retraining: what is taken from another run, for the labels as they are now."""

import dataclasses
import functools
import json
import math
import shutil

import jax
import numpy as np
import pytest
import toy

from tal_jax import cli, methods
from tal_jax._errors import InputError
from tal_jax.config import check_config, flatten, hamnet_config, load_config, override
from tal_jax.data import files
from tal_jax.data.detections import read_results, with_names
from tal_jax.data.recordings import Dataset, Point, Recording, Scaling, restandardize, standardize
from tal_jax.datasets.load import load_dataset
from tal_jax.methods import detector
from tal_jax.runs import warm_start
from tal_jax.runs import workdir as work
from tal_jax.runs.fit import fit
from tal_jax.training import automatic, update

KEY = jax.random.key(3)


def _models():
    hamnet = hamnet_config("document")
    hamnet.model.update(widths=(16, 16))
    rsmp = toy.config()
    plain = {"width": 16, "num_levels": 3, "dropout": 0.0, "precision": "float32"}
    rsmp_of = functools.partial(methods.method_of(rsmp).make_model, rsmp)
    hamnet_of = functools.partial(methods.method_of(hamnet).make_model, hamnet)
    second = dataclasses.make_dataclass("Config", ["model"])(
        dataclasses.make_dataclass("Model", plain)(**plain)
    )
    detector_of = functools.partial(detector.make_model, second)
    return {"rsmp": rsmp_of, "hamnet": hamnet_of, "detector": detector_of}


def _logits(name, model, params, features):
    """Of HAM-Net the base: the document's attention depends on all classes together."""
    where = np.ones(features.shape[:2], bool)
    outputs = model.apply({"params": params}, features, where=where)
    return np.asarray(outputs.base if name == "hamnet" else outputs.logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rsmp", "hamnet", "detector"])
def test_logits_of_classes_that_stay_are_bitwise_the_same(name):
    """With a class added in front, one in between dropped, and the order changed."""
    model_of = _models()[name]
    before, now = ("b", "gone", "c"), ("a", "c", "b")
    params = jax.device_get(update.init_params(model_of(3), toy.DIM, KEY))
    # Nothing that initialisation could give again.
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.25), params)
    found = warm_start.with_classes(
        params, model_of, toy.DIM, before=before, now=now, key=jax.random.key(0)
    )
    features = np.random.default_rng(0).normal(size=(2, 16, toy.DIM)).astype(np.float32)
    old = _logits(name, model_of(3), params, features)
    new = _logits(name, model_of(3), found, features)
    same = {0: 2, 2: 1}  # b, c
    for of_old, of_new in same.items():
        np.testing.assert_array_equal(new[..., of_new], old[..., of_old])
    if name != "detector":
        np.testing.assert_array_equal(new[..., 3], old[..., 3])  # the background
    assert not np.array_equal(new[..., 0], old[..., 1])


@pytest.mark.slow
def test_more_classes_keep_the_logits():
    """The last layer is wider then, and its products the same."""
    model_of = _models()["rsmp"]
    params = jax.device_get(update.init_params(model_of(2), toy.DIM, KEY))
    found = warm_start.with_classes(
        params, model_of, toy.DIM, before=("bump", "dip"), now=("bump", "dip", "hop"), key=KEY
    )
    features = np.random.default_rng(1).normal(size=(2, 32, toy.DIM)).astype(np.float32)
    old = _logits("rsmp", model_of(2), params, features)
    new = _logits("rsmp", model_of(3), found, features)
    np.testing.assert_array_equal(new[..., [0, 1, 3]], old)
    kernel = found["classifier"]["kernel"]
    assert kernel.shape == (16, 4) and np.ptp(kernel[:, 2]) > 0


def test_other_widths_are_refused():
    model_of = _models()["rsmp"]
    params = jax.device_get(update.init_params(model_of(2), toy.DIM + 1, KEY))
    with pytest.raises(InputError, match=r"its network has Embedding_0.* of shape \(27, 16\)"):
        warm_start.with_classes(
            params,
            model_of,
            toy.DIM,
            before=("a", "b"),
            now=("a", "b"),
            key=KEY,
            source="runs/a: its network",
        )


def test_another_standardisation_is_applied():
    rng = np.random.default_rng(0)
    raw = rng.normal(3, 2, (50, 4)).astype(np.float32)
    recording = Recording("r", raw, toy.GRID, toy.GRID.to_seconds(50))
    other = dataclasses.replace(recording, name="other", features=raw + 1)
    dataset = Dataset(("a",), (recording,), (), {"database": {}}, unlabelled=(other,))
    dataset = standardize(dataset)
    scaling = Scaling(np.array([1.0, 2, 3, 4]), np.array([0.5, 1, 2, 4]))
    found = restandardize(dataset, scaling)
    expected = (raw.astype(np.float64) - scaling.mean) / scaling.scale
    np.testing.assert_allclose(found.train[0].features, expected, rtol=1e-5, atol=1e-5)
    again = (raw.astype(np.float64) + 1 - scaling.mean) / scaling.scale
    np.testing.assert_allclose(found.unlabelled[0].features, again, rtol=1e-5, atol=1e-5)
    assert found.scaling is scaling and found.train[0].features.dtype == np.float32
    assert restandardize(dataset, dataset.scaling) is dataset


def _begun(folder, config, dataset):
    """A run of which nothing is trained, and its config."""
    decided = automatic.decide(config, dataset)[0]
    work.start(folder, check_config(decided), dataset, automatic.undecided(config))
    return decided


def test_what_was_decided_is_decided_again_but_for_shapes(tmp_path):
    config = load_config("auto")
    override(config, f"data.folder={toy.write(tmp_path / 'data')}")
    override(config, "data.points=uniform")
    override(config, "stages=rounds")
    override(config, "model.dropout=0.3")
    dataset = load_dataset(config)
    few = dataclasses.replace(dataset, train=dataset.train[:1])
    before = _begun(tmp_path / "a", config, few)
    again = warm_start.retraining_config(tmp_path / "a")
    again.train.rounds = 1  # though there are many more labels
    assert again.model.dropout == 0.3
    for name in ("widths", "dilations"):
        assert again.model[name] == before.model[name]
    assert set(automatic.undecided(again)) == {
        *automatic.undecided(config),
    } - {"model.widths", "model.dilations"}
    decided, decisions = warm_start.decide(again, tmp_path / "a", dataset)
    assert not automatic.undecided(decided) and decided.train.warm_start
    again.model.update(widths=before.model.widths)
    whole = automatic.decide(again, dataset)[0]
    assert decided.train.batch_size == whole.train.batch_size > before.train.batch_size
    # Nearly all of the labels are new, but not those of the first recording.
    old, count = (sum(len(one.points) for one in those.train) for those in (few, dataset))
    share = (count - old) / count
    assert decided.train.steps == math.ceil(share * whole.train.steps / 20) * 20
    assert f"{share:.0%} of {whole.train.steps}" in decisions[-1].reason

    # A retraining of the retraining decides the same again, and one with given updates does not.
    for name, steps in (("b", None), ("c", 40)):
        own = warm_start.retraining_config(tmp_path / "a")
        own.train.rounds = 1
        if steps:
            own.train.steps = steps
        kept = warm_start.still_decided(tmp_path / "a", own)
        assert ("train.steps" in kept) == (steps is None)
        decided = warm_start.decide(own, tmp_path / "a", dataset)[0]
        assert steps in (None, decided.train.steps)
        work.start(tmp_path / name, check_config(decided), dataset, kept)
        files.write_json(
            tmp_path / name / "start" / "start.json",
            {"whole_updates": {"steps": 300, "detector_steps": 400}},
        )
        # Of an earlier version, which did not write how many labels there were.
        third = warm_start.retraining_config(tmp_path / name)
        assert not warm_start.begins_anew(third, tmp_path / name, dataset)
        # Its own retraining writes the same again.
        files.write_json(tmp_path / "again.json", warm_start._whole_training(tmp_path / name))
        assert third.model.widths == before.model.widths and third.train.steps is None
        decided = warm_start.decide(third, tmp_path / name, dataset)[0]
        quarter = (whole.train.steps if steps is None else 300) / 4
        assert decided.train.steps == math.ceil(quarter / 20) * 20


def test_many_more_labels_ask_for_new_parameters(tmp_path):
    """And what their shapes follow from is decided again, too."""
    config = load_config("auto")
    override(config, f"data.folder={toy.write(tmp_path / 'data')}")
    override(config, "data.points=uniform")
    dataset = load_dataset(config)
    few = dataclasses.replace(dataset, train=dataset.train[:2])
    override(config, "train.rounds=3")
    _begun(tmp_path / "a", config, few)
    given = warm_start.retraining_config(tmp_path / "a")
    given.model.widths = (16,)
    assert warm_start.reopened(given, tmp_path / "a", tmp_path / "b", few) is given
    decided, decisions = warm_start.decide(given, tmp_path / "a", few)
    assert (decided.train.rounds, decided.train.warm_start) == (1, True)
    assert decisions[0].reason == "begins from the networks of the run"

    given.detector.num_levels = 7
    opened = warm_start.reopened(given, tmp_path / "a", tmp_path / "b", dataset)
    decided, decisions = warm_start.decide(opened, tmp_path / "a", dataset)
    plain = automatic.decide(config, dataset)[0]
    assert check_config(decided) == check_config(plain)
    old = sum(len(one.points) for one in few.train)
    whys = {one.key: one.reason for one in decisions}
    expected = f"new parameters: {old} labels at the last training from new ones"
    assert whys["train.rounds"] == whys["train.warm_start"] == expected
    assert "train.steps" in whys and "model.widths" in whys

    # Once begun it goes on with what was decided, whatever is given again.
    kept = warm_start.still_decided(tmp_path / "a", given)
    work.start(tmp_path / "b", check_config(decided), dataset, kept)
    about = {"anew": True, "whole_updates": warm_start._size(decided, 10)}
    files.write_json(tmp_path / "b" / "start" / "start.json", about)
    again = warm_start.reopened(given, tmp_path / "gone", tmp_path / "b", dataset)
    again = automatic.with_values(again, work.begun_settings(tmp_path / "b"))
    assert check_config(again) == check_config(decided)

    # The limit: as many labels as 1.2 times those of before.
    def labelled(count):
        points = dataset.train[0].points * 40
        times_s = np.linspace(0.1, dataset.train[0].duration_s - 0.1, count)
        points = [dataclasses.replace(p, time_s=t) for p, t in zip(points, times_s, strict=False)]
        one = dataclasses.replace(dataset.train[0], points=tuple(points))
        return dataclasses.replace(dataset, train=(one,), train_truth=None)

    least = math.ceil(1.2 * old)
    for count, anew in ((least - 1, False), (least, True)):
        assert warm_start.begins_anew(given, tmp_path / "a", labelled(count)) == anew


# --- retrainings of the toy run ---


def _relabelled(dataset):
    """Two points fewer, and a segment and a background point more, as after corrections."""
    first, *others = dataset.train
    start_s, end_s = dataset.train_truth[first.name][2]
    points = [*first.points[2:3], *first.points[3:]]
    points[0] = dataclasses.replace(points[0], segment_s=(start_s, end_s))
    others[0] = dataclasses.replace(others[0], background_s=(others[0].duration_s - 0.2,))
    train = (dataclasses.replace(first, points=tuple(points)), *others)
    return dataclasses.replace(dataset, train=train, train_truth=None)


def _retrain(toy_run, workdir, dataset, lines, **changes):
    config = warm_start.retraining_config(toy_run.workdir)
    config.update(changes)
    return fit(dataset, config, workdir=workdir, start_from=toy_run.workdir, report=lines.append)


def test_labels_are_counted_by_their_times(tmp_path):
    def dataset(*points, background_s=(), done_s=None):
        recording = Recording(
            "r", np.zeros((8, 2), np.float32), toy.GRID, 4.0, points, None, background_s, done_s
        )
        return Dataset(toy.CLASSES, (recording,), (), {"database": {}})

    before = dataset(Point(1.0, 0), Point(2.0, 1), background_s=(3.0,), done_s=())
    files.write_json(tmp_path / "train_points.json", work.labels_document(before))
    assert warm_start.changed_labels(tmp_path, before) == (0, 3)
    moved = dataset(Point(1.1, 0), Point(2.0, 1), background_s=(3.0,), done_s=())
    assert warm_start.changed_labels(tmp_path, moved) == (1, 3)
    more = dataset(Point(1.0, 0), Point(2.0, 0), Point(3.5, 1, (3.2, 3.9)), done_s=((0.0, 1.5),))
    assert warm_start.changed_labels(tmp_path, more) == (3, 4)
    fewer = dataset(Point(1.0, 0), done_s=())
    assert warm_start.changed_labels(tmp_path, fewer) == (1, 1)


@pytest.mark.slow
def test_a_retraining_takes_few_updates_and_reports_what_changed(toy_run, tmp_path):
    dataset, lines = _relabelled(toy.dataset(toy_run.data)), []
    new = dataclasses.replace(dataset.test[0], name="new", done_s=())
    dataset = dataclasses.replace(dataset, unlabelled=(new,))
    _retrain(toy_run, tmp_path / "b", dataset, lines)
    config = files.read_json(tmp_path / "b" / "config.json")
    assert config["train"]["rounds"] == 1 and config["train"]["steps"] == 15  # a quarter of 60
    assert any(line.startswith("train.steps") and "25% of 60" in line for line in lines)
    changes = files.read_json(tmp_path / "b" / "changes.json")
    assert set(changes["classes"]) == set(toy.CLASSES)
    found = files.read_json(tmp_path / "b" / "detections_all.json")["results"]
    assert set(found) == {one.name for one in (*dataset.train, *dataset.test, new)}
    assert found["new"] == found[dataset.test[0].name]
    for one in changes["classes"].values():
        kept = one["now"] - len(one["gained"])
        assert kept == one["before"] - len(one["lost"]) > 0
    # In fewer updates about what two rounds of four times as many came to.
    fresh = files.read_json(toy_run.workdir / "evaluation.json")["average_map"]
    again = files.read_json(tmp_path / "b" / "evaluation.json")["average_map"]
    assert again > fresh - 0.05

    # A retraining of the retraining knows how many updates a whole round has.
    config = warm_start.retraining_config(tmp_path / "b")
    decided, _ = warm_start.decide(config, tmp_path / "b", dataset)
    assert decided.train.steps == 15


@pytest.mark.slow
def test_with_many_more_labels_it_is_a_training_from_the_beginning(toy_run, tmp_path):
    """The same parameters as without another run, bitwise, and it still tells what changed."""
    dataset = toy.dataset(toy_run.data)
    few = dataclasses.replace(dataset, train=dataset.train[:2], train_truth=None)
    config = toy.config(toy_run.data)
    config.train.update(rounds=2, steps=10, checkpoint_every=10)
    fit(few, config, workdir=tmp_path / "few", report=lambda line: None)
    plain = fit(dataset, config, workdir=tmp_path / "plain", report=lambda line: None)
    lines, source = [], tmp_path / "few"
    given = warm_start.retraining_config(source)
    found = fit(dataset, given, workdir=tmp_path / "b", start_from=source, report=lines.append)
    assert len(found.params) == 2
    jax.tree.map(np.testing.assert_array_equal, found.params, plain.params)
    assert any(line.startswith(f"begins anew, after {source}") for line in lines)
    start = files.read_json(tmp_path / "b" / "start" / "start.json")
    count = sum(len(one.points) for one in dataset.train)
    assert start["anew"] and start["whole_updates"]["labels"] == count
    assert start["whole_updates"]["rounds"] == 2
    assert not list((tmp_path / "b" / "start").glob("*.npz"))
    changes = files.read_json(tmp_path / "b" / "changes.json")
    assert changes["from"] == str(source.resolve())
    # The next one begins from these networks.
    again = warm_start.retraining_config(tmp_path / "b")
    assert not warm_start.begins_anew(again, tmp_path / "b", dataset)


@pytest.mark.slow
def test_a_stopped_retraining_continues_without_its_source(toy_run, tmp_path):
    source = shutil.copytree(toy_run.workdir, tmp_path / "a")
    run = dataclasses.replace(toy_run, workdir=source)
    dataset, lines = _relabelled(toy.dataset(toy_run.data)), []
    whole = _retrain(run, tmp_path / "whole", dataset, lines)
    config = warm_start.retraining_config(source)

    def stop(line):
        if "update    10/15" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(dataset, config, workdir=tmp_path / "b", start_from=source, report=stop)
    shutil.rmtree(source)
    again = work.read(tmp_path / "b")[0]
    fitted = fit(dataset, again, workdir=tmp_path / "b", start_from=source)
    jax.tree.map(np.testing.assert_array_equal, fitted.params, whole.params)
    for name in ("changes.json", "detections_all.json"):
        one, other = (files.read_json(tmp_path / part / name) for part in ("whole", "b"))
        assert one == other
    with pytest.raises(InputError, match=r"began from .*/a, not .*other"):
        fit(dataset, again, workdir=tmp_path / "b", start_from=tmp_path / "other")
    with pytest.raises(InputError, match=r"began from .*/a, not None"):
        fit(dataset, again, workdir=tmp_path / "b")
    with pytest.raises(InputError, match="did not begin from another one"):
        fit(dataset, again, workdir=toy_run.workdir, start_from=tmp_path / "b")


@pytest.mark.slow
def test_a_class_is_added_and_one_dropped(toy_run, tmp_path):
    """A few of the dips are hops now, and there are no bumps."""
    dataset, lines = toy.dataset(toy_run.data), []

    def relabelled(recording, number):
        points = [
            dataclasses.replace(point, label=int(number == 0))
            for point in recording.points
            if point.label == 1
        ]
        return dataclasses.replace(recording, points=tuple(points))

    train = tuple(relabelled(one, number) for number, one in enumerate(dataset.train))
    changed = dataclasses.replace(
        dataset, classes=("dip", "hop"), train=train, train_truth=None, test=(),
        ground_truth={"database": {}},
    )  # fmt: skip
    fitted = _retrain(toy_run, tmp_path / "b", changed, lines)
    assert fitted.classes == ("dip", "hop")
    assert "note: classes that are new to the network: hop" in lines
    assert "note: classes that the data no longer have, dropped: bump" in lines
    start = files.read_json(tmp_path / "b" / "start" / "proposals_train.json")["results"]
    assert start[train[0].name] == [] and all(start[one.name] for one in train[1:])
    assert any("class 'bump' vanished" in line for line in lines)


@pytest.mark.slow
def test_a_renamed_class_keeps_its_rows(toy_run, tmp_path):
    """As if it had the same name: no label changed, and what was detected has the new name."""
    dataset, source, names = toy.dataset(toy_run.data), toy_run.workdir, {"bump": "lump"}
    other = dataclasses.replace(
        dataset, classes=tuple(names.get(label, label) for label in dataset.classes)
    )
    assert other.classes != dataset.classes
    assert warm_start.changed_labels(source, other)[0] > 0
    assert warm_start.changed_labels(source, other, names)[0] == 0
    lines, started = [], {}
    for name, data, renamed in (("a", dataset, {}), ("b", other, names)):
        config = warm_start.retraining_config(source)
        config = warm_start.decide(config, source, data, renamed)[0]
        warm_start.begin(tmp_path / name, source, config, data, renamed, lines.append)
        folder = tmp_path / name / "start"
        found = read_results(folder / "detections_all.json")
        proposals = read_results(folder / "proposals_train.json")
        started[name] = files.read_npz(folder / "network.npz"), found, proposals
    (network, *results), (again, *others) = started["a"], started["b"]
    jax.tree.map(np.testing.assert_array_equal, network, again)
    for before, now in zip(results, others, strict=True):
        assert now == {name: with_names(one, names) for name, one in before.items()} != before
    assert not any("classes that" in line for line in lines)


@pytest.mark.slow
def test_a_detector_is_trained_further(detector_run, tmp_path):
    dataset, lines = _relabelled(toy.dataset(detector_run.data)), []
    _retrain(detector_run, tmp_path / "b", dataset, lines)
    config = files.read_json(tmp_path / "b" / "config.json")
    assert config["detector"]["steps"] == 15
    begun, was = (
        files.read_npz(path)
        for path in (
            tmp_path / "b" / "detector" / "projection.npz",
            detector_run.workdir / "detector" / "projection.npz",
        )
    )
    np.testing.assert_array_equal(begun["components"], was["components"])
    start = files.read_npz(tmp_path / "b" / "start" / "detector.npz")
    for name, array in flatten(detector_run.fitted.detector.params).items():
        np.testing.assert_array_equal(start[name], array)
    fresh, again = (
        files.read_json(path / "evaluation.json")["average_map"]
        for path in (detector_run.workdir, tmp_path / "b")
    )
    assert again > fresh - 0.05


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_anything_is_written(toy_run, tmp_path):
    dataset = toy.dataset(toy_run.data)

    def refused(match, dataset=dataset, source=toy_run.workdir, **model):
        config = warm_start.retraining_config(toy_run.workdir)
        config.model.update(model)
        with pytest.raises(InputError, match=match):
            fit(dataset, config, workdir=tmp_path / "b", start_from=source)
        assert not (tmp_path / "b").exists()

    refused("its network has Embedding_0", widths=(32,))
    refused("cannot read", source=tmp_path / "nowhere")
    narrow = [
        dataclasses.replace(one, features=np.asarray(one.features)[:, :4])
        for one in (*dataset.train, *dataset.test)
    ]
    count = len(dataset.train)
    other = dataclasses.replace(dataset, train=tuple(narrow[:count]), test=tuple(narrow[count:]))
    refused(r"features of D = 8; the data have 4", dataset=other)
    refused("expected the same of the data set", dataset=standardize(dataset))


@pytest.mark.slow
def test_the_command(toy_run, tmp_path, capsys):
    data, workdir = str(toy_run.data), tmp_path / "b"
    command = ["train", "--data", data, "--workdir", str(workdir), "--from", str(toy_run.workdir)]
    assert cli.main([*command, "--set", "train.steps=5"]) == 0
    out = capsys.readouterr().out
    assert "events before" in out and "report.html" in out
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 5
    assert cli.main(command) == 0  # nothing is left to do
    assert cli.main([*command, "--config", "auto"]) == 2
    assert "--config auto with --from" in capsys.readouterr().err
