r"""Ablations of a method, or a grid of settings: mAP as mean ± standard deviation over seeds.

Each setting is trained with several seeds at once. Settings whose first rounds are equal share
them, and a repeated call resumes a stopped one.

    python experiments/ablate.py --config auto:hapt --workdir /tmp/ablate
    python experiments/ablate.py --config auto --set data.folder=FOLDER --workdir /tmp/ablate
    python experiments/ablate.py --config hapt_hamnet:document --workdir /tmp/sweep \
        --vary "model.low=0.1|0.2|0.3" --vary "model.high=0.7|0.8"

With `--vary` the settings are all combinations of the listed values. The table covers all finished
seeds, so several processes may each train some of them; a last call with `--seeds ""` prints it.
"""

import argparse
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import jax
import ml_collections

from tal_jax.config import load_config, override
from tal_jax.data import files
from tal_jax.datasets.load import load_dataset
from tal_jax.runs import evaluate
from tal_jax.runs.fit import fit_many
from tal_jax.runs.round_folders import ALL_ROUNDS_FOLDER, DETECTOR, DETECTOR_FOLDER


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table."""

    title: str
    overrides: dict
    shares: str | None = None  # the setting with an equal round 0


_NO_PROTOTYPES = {"model.num_prototypes": 0}
_NO_REPRESENTATIVES = {"loss.lambda_pres": 0.0}
_ONE_ROUND = {"train.rounds": 1}

# Each part removed from the complete system. Round 0 has no proposals, so settings that differ in
# their use share it. What the second stage adds is in every row: the table has all rounds, too.
RSMP = {
    "full": Setting("complete", {}),
    "no_compensation": Setting("− ① compensation", {"sampling.compensate": False}, "full"),
    "no_reassignment": Setting("− ② reassignment", _NO_PROTOTYPES),
    "no_representatives": Setting("− ③ representative segments", _NO_REPRESENTATIVES),
    "no_instances": Setting("− `L_ins`", {"loss.lambda_ins": 0.0}, "full"),
    "one_round": Setting("− ④ rounds", _ONE_ROUND, "full"),
    "points": Setting("− ①, ②, ③, ④", _NO_PROTOTYPES | _NO_REPRESENTATIVES | _ONE_ROUND),
}


def _without(*parts: str, branch: str = "attended") -> dict:
    return {f"loss.lambda_{part}": 0.0 for part in parts} | {"model.branch": branch}


# Without the loss on semi-soft attention the second pass of the document's variant is not trained,
# so the base branch is localized.
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


def main() -> None:
    """Trains the settings that are not finished, then prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="config of the complete method")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of runs and tables")
    parser.add_argument("--data", help="folder of data sets; default $TAL_JAX_DATA")
    parser.add_argument("--set", action="append", default=[], help="section.key=value; repeatable")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="default %(default)s")
    parser.add_argument("--settings", help="names of the settings, with commas; default all")
    parser.add_argument(
        "--vary", action="append", default=[], help="section.key=value|value|...; repeatable"
    )
    arguments = parser.parse_args()
    base = load_config(arguments.config)
    for assignment in arguments.set:
        override(base, assignment)
    names = arguments.settings.split(",") if arguments.settings else None
    settings = chosen_settings(base, names, arguments.vary)
    configs = [_with_seed(base, int(seed)) for seed in arguments.seeds.split(",") if seed]
    datasets = [load_dataset(config, arguments.data) for config in configs]
    for name, setting in settings.items():
        run_setting(arguments.workdir, name, setting, configs, datasets)
        # The programs of many trainings are more memory maps than a process may have.
        jax.clear_caches()
    table = format_table(arguments.workdir, settings, base)
    files.write_bytes(arguments.workdir / "table.md", table.encode())
    print(table, flush=True)


def chosen_settings(config, names: list[str] | None, vary: list[str]) -> dict[str, Setting]:
    """The ablations of the method, or all combinations of the values that `vary` lists."""
    if vary:
        return combinations(config, vary)
    known = RSMP if config.method == "rsmp" else HAMNET[config.model.variant]
    unknown = set(names or ()) - set(known)
    if unknown:
        raise ValueError(f"--settings {min(unknown)}; expected some of {', '.join(known)}")
    return {name: known[name] for name in names or known}


def combinations(config, vary: list[str]) -> dict[str, Setting]:
    """One setting for each combination of the values of `"section.key=value|value"` strings."""
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
    """Trains the unfinished seeds of a setting at once."""
    left = []
    for config, dataset in zip(configs, datasets, strict=True):
        workdir = root / name / f"seed_{config.seed}"
        if last_evaluation(workdir, setting, config).exists():
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


def last_evaluation(workdir: Path, setting: Setting, config) -> Path:
    """The evaluation of the last round or stage, which exists once the run is finished."""
    if DETECTOR in config.stages:
        return workdir / DETECTOR_FOLDER / "evaluation.json"
    last = setting.overrides.get("train.rounds", config.train.rounds) - 1
    return workdir / f"round_{last}" / "evaluation.json"


def copy_round(source: Path, target: Path) -> None:
    """Copies a finished round of another setting, if there is one.

    Its evaluation is left out: it marks a round as finished, and the results of all rounds, which
    are written before it, are still missing in the target.
    """
    done = "evaluation.json"
    if (source / done).exists() and not target.exists():
        part = target.with_name("copying")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part, ignore=shutil.ignore_patterns(done))
        part.rename(target)


def format_table(root: Path, settings: dict[str, Setting], config) -> str:
    """Tables over the finished seeds: detections of all stages, of all rounds; pseudo segments."""
    finished = {
        setting.title: [
            workdir
            for workdir in sorted((root / name).glob("seed_*"))
            if last_evaluation(workdir, setting, config).exists()
        ]
        for name, setting in settings.items()
    }

    def results(folder: str) -> str:
        rows = {
            title: [workdir / folder / "evaluation.json" for workdir in workdirs]
            for title, workdirs in finished.items()
        }
        return evaluate.format_seeds(rows)

    tables = [results("")]
    if DETECTOR in config.stages:
        tables.append(f"All rounds, without the detector:\n\n{results(ALL_ROUNDS_FOLDER)}")
    if quality := format_quality(finished):
        tables.append(quality)
    return "\n".join(tables)


def format_quality(finished: dict[str, list[Path]]) -> str:
    """The last pseudo segments of the training points, mean over seeds; "" where none is known."""
    lines = []
    for title, workdirs in finished.items():
        found = [quality for workdir in workdirs if (quality := last_quality(workdir))]
        if not found:
            continue
        if not lines:
            bins = [_seconds(row) for row in found[0]["bins"]]
            ratios = " | ".join(f"length ratio, {name}" for name in bins)
            lines += [
                "Last pseudo segments of the training points, mean over the seeds:",
                "",
                f"| setting | mean tIoU | R@.5 | R@.7 | {ratios} |",
                f"|---|---|---|---|{'---|' * len(bins)}",
            ]
        totals = [[one["total"][key] for one in found] for key in _QUALITY]
        ratios = [
            [one["bins"][index]["length_ratio"] for one in found]
            for index in range(len(found[0]["bins"]))
        ]
        lines.append(f"| {title} | {' | '.join(map(_mean, totals + ratios))} |")
    return "\n".join([*lines, ""]) if lines else ""


_QUALITY = ("mean_iou", "recall_50", "recall_70")


def last_quality(workdir: Path) -> dict | None:
    """The last quality of pseudo segments in a run's log."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return next((one for one in reversed([*lines]) if one.get("event") == "pseudo_segments"), None)


def _seconds(row: dict) -> str:
    if row["longest_s"] is None:
        return f"from {row['shortest_s']:g} s"
    return f"{row['shortest_s']:g} to {row['longest_s']:g} s"


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"


if __name__ == "__main__":
    main()
