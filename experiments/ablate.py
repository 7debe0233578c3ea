r"""What each module of a method adds, what is lost without it, and how settings compare.

Every setting is trained with several seeds at once; a table gives mean ± standard deviation of the
last round's scores. Settings that begin with the same rounds share them, and a stopped run goes on
where it was.

    python experiments/ablate.py --config configs/hapt_rsmp.py --workdir /tmp/ablate
    python experiments/ablate.py --config configs/hapt_hamnet.py:document --workdir /tmp/sweep \
        --vary "model.low=0.1|0.2|0.3" --vary "model.high=0.7|0.8"

With `--vary` the settings are all combinations of the values that it lists. The table covers the
seeds that are there, so several processes may each train some of them, and a last call with
`--seeds ""` prints all.
"""

import dataclasses
import itertools
import shutil
from pathlib import Path

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from tal_jax.config import override
from tal_jax.data import files
from tal_jax.datasets.load import load_dataset
from tal_jax.runs import seeds
from tal_jax.runs.fit import fit_many

_CONFIG = config_flags.DEFINE_config_file("config", None, "The full system's config.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where runs and tables are kept.", required=True)
_DATA = flags.DEFINE_string("data", None, "Where data sets lie; default TAL_JAX_DATA.")
_SEEDS = flags.DEFINE_list("seeds", list("01234"), "Seeds; processes may share them out.")
_SETTINGS = flags.DEFINE_list("settings", None, "Names of the settings to run; default all.")
_VARY = flags.DEFINE_multi_string("vary", [], "section.key=value|value: settings of your own.")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table."""

    title: str
    overrides: dict
    shares: str | None = None  # the setting whose round 0 is the same


_NO_PROTOTYPES = {"model.num_prototypes": 0}
_NO_REPRESENTATIVES = {"loss.lambda_pres": 0.0}
_ONE_ROUND = {"train.rounds": 1}

# A round 0 sees no proposals, so what is done with those does not tell settings apart there.
RSMP = {
    "points": Setting("points only", _NO_PROTOTYPES | _NO_REPRESENTATIVES | _ONE_ROUND),
    "reassign": Setting("+ ② reassignment", _NO_REPRESENTATIVES | _ONE_ROUND),
    "represent": Setting("+ ③ representative segments", _ONE_ROUND),
    "rounds": Setting("+ ④ rounds (L_ins only)", {"sampling.compensate": False}, "represent"),
    "full": Setting("+ ① compensation = full", {}, "represent"),
    "no_reassign": Setting("full − ②", _NO_PROTOTYPES),
    "no_represent": Setting("full − ③", _NO_REPRESENTATIVES, "reassign"),
    "no_ins": Setting("full − L_ins", {"loss.lambda_ins": 0.0}, "represent"),
}


def _without(*parts: str, branch: str = "attended") -> dict:
    return {f"loss.lambda_{part}": 0.0 for part in parts} | {"model.branch": branch}


# Without the loss under semi-soft attention nothing teaches the document's second pass, so only the
# first one is read.
HAMNET = {
    "document": {
        "base": Setting("base branch alone", _without("semi", "hard", branch="base")),
        "no_semi": Setting("complete − semi-soft", _without("semi", branch="base")),
        "no_hard": Setting("complete − hard", _without("hard")),
        "complete": Setting("complete", {}),
    },
    "published": {
        "base": Setting(
            "base branch alone", _without("soft", "semi", "hard", "sparse", "guide", branch="base")
        ),
        "no_soft": Setting("complete − soft", _without("soft")),
        "no_semi": Setting("complete − semi-soft", _without("semi")),
        "no_hard": Setting("complete − hard", _without("hard")),
        "complete": Setting("complete", {}),
    },
}


def main(argv: list[str]) -> None:
    """Runs what is missing, then prints and writes the table."""
    del argv
    logging.set_verbosity(logging.WARNING)  # below, Orbax tells of every file that it writes
    root = Path(_WORKDIR.value)
    settings = chosen_settings(_CONFIG.value, _SETTINGS.value, _VARY.value)
    configs = [_with_seed(_CONFIG.value, int(seed)) for seed in _SEEDS.value if seed]
    datasets = [load_dataset(config, _DATA.value) for config in configs]
    for name, setting in settings.items():
        run_setting(root, name, setting, configs, datasets)
    table = format_table(root, settings, _CONFIG.value.train.rounds)
    files.write_bytes(root / "table.md", table.encode())
    print(table, flush=True)


def chosen_settings(config, names: list[str] | None, vary: list[str]) -> dict[str, Setting]:
    """The method's own settings, or the combinations of the values that `vary` lists."""
    if vary:
        return combinations(config, vary)
    known = RSMP if config.method == "rsmp" else HAMNET[config.model.variant]
    unknown = set(names or ()) - set(known)
    if unknown:
        raise ValueError(f"--settings {min(unknown)}; expected some of {', '.join(known)}")
    return {name: known[name] for name in names or known}


def combinations(config, vary: list[str]) -> dict[str, Setting]:
    """One setting for each combination of the values in `"section.key=value|value"` texts."""
    choices = []
    for text in vary:
        key, _, values = text.partition("=")
        choices.append([f"{key}={value}" for value in values.split("|")])
    settings = {}
    for assignments in itertools.product(*choices):
        changed = ml_collections.ConfigDict(config.to_dict())
        for assignment in assignments:
            override(changed, assignment)
        keys = [assignment.partition("=")[0] for assignment in assignments]
        overrides = {key: _value(changed, key) for key in keys}
        name = ",".join(assignments)
        settings[name] = Setting(name, overrides)
    return settings


def _value(config, key: str):
    for part in key.split("."):
        config = config[part]
    return config


def _with_seed(config, seed: int) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(config.to_dict())
    config.seed = seed
    return config


def run_setting(root: Path, name: str, setting: Setting, configs, datasets) -> None:
    """Trains one setting with all seeds at once, or what is left of that."""
    left = []
    for config, dataset in zip(configs, datasets, strict=True):
        workdir = root / name / f"seed_{config.seed}"
        if last_evaluation(workdir, setting, config.train.rounds).exists():
            continue
        if setting.shares is not None:
            copy_round(root / setting.shares / workdir.name / "round_0", workdir / "round_0")
        config = _with_seed(config, config.seed)
        config.update_from_flattened_dict(setting.overrides)
        left.append((dataset, config, workdir))
    if left:
        seeds = ", ".join(str(config.seed) for _, config, _ in left)
        print(f"== {setting.title}, seeds {seeds}", flush=True)
        datasets, configs, workdirs = zip(*left, strict=True)
        fit_many(datasets, configs, workdirs=workdirs)


def last_evaluation(workdir: Path, setting: Setting, rounds: int) -> Path:
    """The scores of a cell's last round, which are there once the cell is finished."""
    last = setting.overrides.get("train.rounds", rounds) - 1
    return workdir / f"round_{last}" / "evaluation.json"


def copy_round(source: Path, target: Path) -> None:
    """Takes over a finished round of another setting, if it is there."""
    if (source / "evaluation.json").exists() and not target.exists():
        part = target.with_name("copying")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        part.rename(target)


def format_table(root: Path, settings: dict[str, Setting], rounds: int) -> str:
    """The table of all rounds together over the seeds that are finished."""

    def result(workdir, setting):
        last, together = last_evaluation(workdir, setting, rounds), workdir / "evaluation.json"
        return together if last.exists() and together.exists() else last

    rows = {
        setting.title: [result(path, setting) for path in sorted((root / name).glob("seed_*"))]
        for name, setting in settings.items()
    }
    return seeds.format_seeds(rows)


if __name__ == "__main__":
    app.run(main)
