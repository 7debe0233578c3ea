r"""What each module of the point-supervised system adds, and what is lost without it.

Every setting is trained with several seeds; a table gives mean ± standard deviation of the last
round's scores. Settings that begin with the same rounds share them, and a stopped run goes on where
it was.

    python experiments/ablate.py --config configs/hapt_rsmp.py --workdir /tmp/ablate

The table covers the seeds that are there, so several processes may each train some of them, and a
last call without `--seeds` prints all.
"""

import dataclasses
import shutil
from pathlib import Path

import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from tal_jax import evaluation, pipeline
from tal_jax.data import datasets, files

_CONFIG = config_flags.DEFINE_config_file("config", None, "The full system's config.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where runs and tables are kept.", required=True)
_DATA = flags.DEFINE_string("data", None, "Where data sets lie; default TAL_JAX_DATA.")
_SEEDS = flags.DEFINE_list("seeds", list("01234"), "Seeds; processes may share them out.")
_SETTINGS = flags.DEFINE_list("settings", None, "Names of the settings to run; default all.")


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
SETTINGS = {
    "points": Setting("points only", _NO_PROTOTYPES | _NO_REPRESENTATIVES | _ONE_ROUND),
    "reassign": Setting("+ ② reassignment", _NO_REPRESENTATIVES | _ONE_ROUND),
    "represent": Setting("+ ③ representative segments", _ONE_ROUND),
    "rounds": Setting("+ ④ rounds (L_ins only)", {"sampling.compensate": False}, "represent"),
    "full": Setting("+ ① compensation = full", {}, "represent"),
    "no_reassign": Setting("full − ②", _NO_PROTOTYPES),
    "no_represent": Setting("full − ③", _NO_REPRESENTATIVES, "reassign"),
    "no_ins": Setting("full − L_ins", {"loss.lambda_ins": 0.0}, "represent"),
}


def main(argv: list[str]) -> None:
    """Runs what is missing, then prints and writes the table."""
    del argv
    logging.set_verbosity(logging.WARNING)  # below, Orbax tells of every file that it writes
    root = Path(_WORKDIR.value)
    names = _SETTINGS.value or list(SETTINGS)
    for seed in map(int, _SEEDS.value):
        config = ml_collections.ConfigDict(_CONFIG.value.to_dict())
        config.seed = seed
        dataset = datasets.load_dataset(config, _DATA.value)
        for name in names:
            run_cell(root, name, seed, config, dataset)
    table = format_table(root, names, _CONFIG.value.train.rounds)
    files.write_bytes(root / "table.md", table.encode())
    print(table, flush=True)


def run_cell(root: Path, name: str, seed: int, config, dataset) -> None:
    """Trains one setting with one seed, or what is left of it."""
    setting, workdir = SETTINGS[name], root / name / f"seed_{seed}"
    if last_evaluation(workdir, name, config.train.rounds).exists():
        return
    print(f"== {setting.title}, seed {seed}", flush=True)
    config = ml_collections.ConfigDict(config.to_dict())
    config.update_from_flattened_dict(setting.overrides)
    if setting.shares is not None:
        copy_round(root / setting.shares / f"seed_{seed}" / "round_0", workdir / "round_0")
    pipeline.fit(dataset, config, workdir=workdir)


def last_evaluation(workdir: Path, name: str, rounds: int) -> Path:
    """The scores of a cell's last round, which are there once the cell is finished."""
    last = SETTINGS[name].overrides.get("train.rounds", rounds) - 1
    return workdir / f"round_{last}" / "evaluation.json"


def copy_round(source: Path, target: Path) -> None:
    """Takes over a finished round of another setting, if it is there."""
    if (source / "evaluation.json").exists() and not target.exists():
        part = target.with_name("copying")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        part.rename(target)


def format_table(root: Path, names: list[str], rounds: int) -> str:
    """A Markdown table of the last rounds, in percent, over the seeds that are finished."""
    lines = [
        "mAP in %, mean ± standard deviation over the seeds, last update of all rounds",
        "",
        "| setting | seeds | .1 | .3 | .5 | .7 | average | recall of short at .5 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        paths = [last_evaluation(path, name, rounds) for path in (root / name).glob("seed_*")]
        rows = np.array([_cell(path) for path in paths if path.exists()])
        if not len(rows):
            continue
        deviations = rows.std(axis=0, ddof=min(1, len(rows) - 1))
        cells = [
            f"{100 * mean:.1f} ± {100 * deviation:.1f}"
            for mean, deviation in zip(rows.mean(axis=0), deviations, strict=True)
        ]
        lines.append(f"| {SETTINGS[name].title} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(path: Path) -> list[float]:
    metrics = evaluation.DetectionMetrics.from_dict(files.read_json(path))
    columns = [int(np.argmin(np.abs(metrics.tious - tiou))) for tiou in (0.1, 0.3, 0.5, 0.7)]
    return [*metrics.map[columns], metrics.average_map, metrics.short_recall[columns[2]]]


if __name__ == "__main__":
    app.run(main)
