"""Several runs in one program, each as if it were alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from tal_jax import methods
from tal_jax.config import check_config
from tal_jax.data.detections import activitynet_json
from tal_jax.datasets.load import load_dataset
from tal_jax.inference.predict import predict
from tal_jax.runs.fit import fit, fit_many
from tal_jax.runs.workdir import load_run
from tal_jax.training import loop
from tal_jax.training.prepare import prepare_round, round_lengths

# Seed, learning rate and a weight of the loss of each member.
MEMBERS = ((0, 1e-2, 1.0), (1, 1e-2, 1.0), (2, 3e-3, 0.5))

# One file of its own, since its runs are shared: minutes of compilation.
pytestmark = pytest.mark.slow


def _config(data: Path, seed=0, learning_rate=1e-2, lambda_vid=1.0, **settings):
    config = toy.config(data)
    config.seed = seed
    config.train.learning_rate = learning_rate
    config.loss.lambda_vid = lambda_vid
    config.train.update(steps=30, **settings)
    return config


def _fit_many(configs, workdirs, report=lambda line: None):
    datasets = [load_dataset(config) for config in configs]
    return fit_many(datasets, configs, workdirs=workdirs, report=report)


@dataclasses.dataclass(frozen=True)
class Runs:
    """The same runs trained together and alone; to be read, not to be changed."""

    configs: list
    together: list[Path]
    alone: list[Path]
    fitted: list
    compiled: list[str]
    lines: list[str]


@pytest.fixture(scope="module")
def runs(toy_run, tmp_path_factory):
    root, lines = tmp_path_factory.mktemp("together"), []
    configs = [_config(toy_run.data, *member) for member in MEMBERS]
    beside, alone = (
        [root / kind / f"seed_{config.seed}" for config in configs]
        for kind in ("together", "alone")
    )
    with toy.compilations() as compiled:
        fitted = _fit_many(configs, beside, lines.append)
    for config, workdir in zip(configs, alone, strict=True):
        fit(load_dataset(config), config, workdir=workdir, report=lambda line: None)
    return Runs(configs, beside, alone, fitted, compiled, lines)


def _log(workdir: Path):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _assert_same(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_members_learn_what_they_learn_alone(runs):
    """Bitwise, where they take turns."""
    for workdir, alone in zip(runs.together, runs.alone, strict=True):
        assert _without_clocks(workdir) == _without_clocks(alone)
        _assert_same(load_run(workdir).params, load_run(alone).params)
    losses = [_log(workdir)[0]["loss"] for workdir in runs.together]
    assert len(set(losses)) == len(losses)


def _without_clocks(workdir: Path):
    clocks = ("steps_per_s", "eta_s")
    return [{k: v for k, v in line.items() if k not in clocks} for line in _log(workdir)]


def test_work_directories_have_the_same_files(runs):
    def contents(workdir):
        paths = (path.relative_to(workdir) for path in workdir.rglob("*"))
        # Checkpoints name their chunks at random.
        return {str(path) for path in paths if "d" not in path.parts}

    for workdir, alone in zip(runs.together, runs.alone, strict=True):
        assert contents(workdir) == contents(alone)
        for path in workdir.rglob("*.json"):
            if "checkpoints" not in path.parts:
                assert path.read_bytes() == (alone / path.relative_to(workdir)).read_bytes()


def test_notes_are_told_once(runs, tmp_path):
    datasets = [
        dataclasses.replace(load_dataset(config), notes=("odd", f"of seed {config.seed}"))
        for config in runs.configs
    ]
    lines, workdirs = [], [tmp_path / path.name for path in runs.together]

    def report(line):
        lines.append(line)
        if "timelines" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_many(datasets, runs.configs, workdirs=workdirs, report=report)
    assert lines[:-1] == ["note: odd", *(f"note: of seed {seed}" for seed in range(3))]


def test_networks_are_those_in_the_work_directories(runs, toy_run):
    test = toy.dataset(toy_run.data).test
    for fitted, workdir in zip(runs.fitted, runs.together, strict=True):
        loaded = load_run(workdir)
        _assert_same(loaded.params, fitted.params)
        found = activitynet_json(predict(loaded, test))
        assert found == json.loads((workdir / "detections.json").read_text())


def test_no_program_of_their_own(runs):
    """The toy run's serves them, in all rounds."""
    assert not {"jit(run)", "jit(forward)", "jit(localize_compiled)", "jit(init)"} & set(
        runs.compiled
    )


@pytest.mark.parametrize("share_features", [True, False])
def test_side_by_side_is_the_same(runs, tmp_path, share_features):
    """As accelerators train them: each update of all at once, in one program for all rounds."""
    configs = [check_config(config) for config in runs.configs]
    datasets = [load_dataset(config) for config in configs]
    model = methods.method_of(configs[0]).make_model(configs[0], len(toy.CLASSES))
    workdirs = [tmp_path / path.name for path in runs.together]
    proposals = [
        json.loads((path / "round_0" / "proposals_train.json").read_text())["results"]
        for path in runs.alone
    ]

    def stop(line):
        if "update    15/30" in line:
            raise KeyboardInterrupt

    with toy.compilations() as compiled:
        for number, found in ((0, [None] * len(configs)), (1, proposals)):
            first = prepare_round(datasets[0], configs[0], found[0])
            shared = first.timeline.features if share_features else None
            packed = [first] + [
                prepare_round(dataset, config, proposals, features=shared)
                for dataset, config, proposals in zip(
                    datasets[1:], configs[1:], found[1:], strict=True
                )
            ]
            with pytest.raises(KeyboardInterrupt):
                loop.train_round(
                    model,
                    [
                        loop.Member(config, one.timeline, dataset.train, workdir)
                        for config, one, dataset, workdir in zip(
                            configs, packed, datasets, workdirs, strict=True
                        )
                    ],
                    number=number,
                    lengths=round_lengths(configs[0], [one.timeline for one in packed]),
                    vectorize=True,
                    report=stop,
                )
    assert compiled.count("jit(many)") == 1
    for workdir, alone in zip(workdirs, runs.alone, strict=True):
        theirs = [line for line in _log(alone) if line.get("step", 99) <= 15]
        for one, other in zip(_log(workdir), theirs, strict=True):
            for name in (key for key in one if key.startswith("loss")):
                np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-6)


def test_features_lie_on_the_device_once(runs, toy_run):
    dataset, config = toy.dataset(toy_run.data), check_config(runs.configs[0])
    path = runs.alone[0] / "round_0" / "proposals_train.json"
    proposals = json.loads(path.read_text())["results"]
    first = prepare_round(dataset, config, None).timeline
    features = first.features
    later = prepare_round(dataset, config, proposals, features=features).timeline
    assert later.features is features
    own = prepare_round(dataset, config, proposals).timeline
    _assert_same(own, later)


def test_stopped_runs_go_on(runs, tmp_path):
    """One member was stopped a checkpoint behind the others, and one was begun alone."""
    workdirs = [tmp_path / path.name for path in runs.together]

    def stop(line):
        if "update    20/30" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit_many(runs.configs, workdirs, stop)
    # As if the process had been killed between two members' checkpoints.
    shutil.rmtree(workdirs[1] / "round_0" / "checkpoints" / "15")
    shutil.rmtree(workdirs[2])
    shutil.copytree(runs.alone[2], workdirs[2])
    fitted = _fit_many(runs.configs, workdirs)
    assert _without_clocks(workdirs[0]) == _without_clocks(runs.together[0])
    _assert_same(fitted[0].params, runs.fitted[0].params)
    steps_made = [(line["round"], line.get("step")) for line in _log(runs.together[1])]
    assert [(line["round"], line.get("step")) for line in _log(workdirs[1])] == steps_made
    _assert_same(fitted[2].params, load_run(runs.alone[2]).params)


def test_fit_ends_what_was_begun_together(runs, tmp_path):
    workdir = Path(shutil.copytree(runs.together[1], tmp_path / "run"))
    config = runs.configs[1]
    fitted = fit(load_dataset(config), config, workdir=workdir, report=lambda line: None)
    _assert_same(fitted.params, runs.fitted[1].params)


def test_loss_that_is_not_finite_names_its_run(runs, tmp_path):
    datasets = [load_dataset(config) for config in runs.configs]
    huge = tuple(
        dataclasses.replace(one, features=np.full_like(one.features, 1e38))
        for one in datasets[1].train
    )
    datasets[1] = dataclasses.replace(datasets[1], train=huge)  # features of its own, too
    workdirs = [tmp_path / path.name for path in runs.together]
    with pytest.raises(ValueError, match="round 0: the loss became .*seed_1/round_0") as caught:
        fit_many(datasets, runs.configs, workdirs=workdirs, report=lambda line: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.num_prototypes": 8}, r"model.num_prototypes is 4 for .*a and 8 for .*b"),
        ({"train.steps": 60}, "train.steps is 30 for .*a and 60 for .*b"),
        ({"sampling.keep_original": False}, "sampling.keep_original is True"),
        ({"train.schedule": "cosine"}, "train.schedule is 'constant' for .*a and 'cosine' for .*b"),
        ({"train.holdout": 2}, "b: train.holdout=2; expected 0"),
        ({"method": "x"}, "method='x'"),
    ],
)
def test_configs_that_differ_in_what_is_compiled_are_refused(toy_run, tmp_path, settings, message):
    configs = [_config(toy_run.data), _config(toy_run.data, seed=1)]
    configs[1].update_from_flattened_dict(settings)
    workdirs = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ValueError, match=message):
        fit_many([toy.dataset(toy_run.data)] * 2, configs, workdirs=workdirs)
    assert not any(tmp_path.iterdir())


def test_data_of_other_shapes_and_shared_folders_are_refused(toy_run, tmp_path):
    configs = [_config(toy_run.data), _config(toy_run.data, seed=1)]
    dataset = toy.dataset(toy_run.data)
    fewer = dataclasses.replace(dataset, train=dataset.train[1:])
    named = [tmp_path / "a", tmp_path / "b"]
    for datasets, workdirs, message in (
        ([dataset, fewer], named, "number of training recordings differ, 6 for .*a and 5 for"),
        ([dataset] * 2, named[:1] * 2, "a: the work directory of two runs"),
        ([dataset] * 2, named[:1], "2 configs and 1 work directories"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_many(datasets, configs, workdirs=workdirs)
    assert not any(tmp_path.iterdir())
