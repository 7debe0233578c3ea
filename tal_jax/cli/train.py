"""`tal-jax quickstart` and `tal-jax train`."""

import argparse
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal_jax._errors import InputError
from tal_jax.cli import common, interrupts
from tal_jax.config import Config, config_names

if TYPE_CHECKING:
    from tal_jax.data.recordings import Dataset

_QUICKSTART = """\
The recordings are accelerations measured at the wrist, concatenated into streams. Training uses one
timestamp (point label) an action, no start or end. Prints the mAP of each round and writes
report.html.

  tal-jax quickstart --workdir runs/quickstart
  tal-jax quickstart --workdir runs/try --set data.points=center --set seed=1
  tal-jax quickstart --workdir runs/hamnet --method hamnet
"""

# The HAM-Net variant with the higher mAP on these recordings.
_QUICKSTARTS = {"rsmp": "quickstart", "hamnet": "watch_hamnet:document"}

_LOST = "tal-jax: error: another process of this run ended; begin all of them again to go on"

_CONFIGS = (
    "configs: {configs}, or the path of a .py file that defines get_config(arg=None). The text "
    "after a colon is its argument: `hapt_rsmp:quick` is a short run that checks the installation."
)

_TRAIN = """\
  tal-jax train --data ~/features --workdir runs/mine
  tal-jax train --config hapt_rsmp --data ~/data --workdir runs/hapt
  tal-jax train --config hapt_rsmp --data ~/data --workdir runs/hapt1 --set seed=1
  tal-jax train --config configs/hapt_rsmp.py:quick --data ~/data --workdir runs/try \\
      --set "model.widths=(64, 64)" --set model.dilations=1,2
  tal-jax train --config hapt_rsmp --data ~/data --workdir runs/seeds --seeds 0,1,2,3,4
  tal-jax train --data ~/features --workdir runs/second --from runs/mine

Writes into the work directory: config.json, run.json, metrics.jsonl; round_*/ with proposals,
detections and checkpoints of each round; detections.json, the result, and report.html. With a
second stage (stages=rounds,detector; --set stages=rounds leaves it out) also detector/ with the
pseudo segments that it learns from, its detections and checkpoints, and all_rounds/ with what the
rounds detect without it; detections.json then has the detections of both, fused.
To resume a stopped run, repeat the command.

--from retrains after labels were added, moved or corrected: one round of few updates that begins
from the networks of another run, with its settings. Classes may have been added. Writes also
changes.json (events gained and lost by class, warnings), detections_all.json and scores_all.npz
(of all recordings), and start/ with what was taken from that run, which is not read again.
"""


def add_commands(commands: Any) -> None:
    """Adds `quickstart` and `train`."""
    title = "train on the embedded smartwatch recordings"
    quickstart = common.add_parser(commands, "quickstart", title, _QUICKSTART, _quickstart)
    common.add_shared(quickstart, "--workdir", "--set")
    quickstart.add_argument(
        "--method",
        choices=_QUICKSTARTS,
        default="rsmp",
        help="rsmp uses point labels, hamnet uses video-level class labels; default %(default)s",
    )

    known = textwrap.fill(_CONFIGS.format(configs=", ".join(config_names())), 100)
    title = "train all rounds and stages of a config"
    train = common.add_parser(commands, "train", title, f"{known}\n\n{_TRAIN}", _train)
    title = "name of a config, or path of a .py file"
    title = f"{title}; default {common.CONFIG}, which decides settings"
    common.add_shared(train, "--config", required=False, help=title)
    common.add_shared(train, "--data", "--set", "--workdir")
    train.add_argument(
        "--processes",
        metavar="WHERE",
        help="for a run of several processes, HOST:PORT,COUNT,INDEX of this one, or auto on a "
        "cluster that JAX detects (Slurm, TPU)",
    )
    train.add_argument(
        "--seeds",
        metavar="N,N,...",
        help="train several seeds at once, each into its own folder W/seed_N",
    )
    train.add_argument(
        "--from",
        dest="start_from",
        metavar="RUN",
        type=Path,
        help="retrain: begin from the networks of the run in this work directory",
    )


def _quickstart(arguments: argparse.Namespace) -> None:
    arguments.config = _QUICKSTARTS[arguments.method]
    arguments.data = arguments.seeds = arguments.processes = arguments.start_from = None
    _train(arguments)


def _train(arguments: argparse.Namespace) -> None:
    from tal_jax.training import processes

    config = _load_config(arguments)
    if arguments.processes is not None:
        processes.initialize(arguments.processes)
    try:
        _train_config(config, arguments)
    except Exception as error:
        if not processes.is_death_of_another(error):
            raise
        print(_LOST, file=sys.stderr)
        # The end of the interpreter would wait for the other process.
        interrupts.end(2)


def _load_config(arguments: argparse.Namespace) -> Config:
    """The config of `--config`, or of the run that a retraining begins from, with `--set`."""
    if arguments.start_from is None:
        arguments.config = arguments.config or common.CONFIG
        return common.load_config(arguments)
    for flag in ("config", "seeds", "processes"):
        if getattr(arguments, flag) is not None:
            raise InputError(
                f"--{flag} {getattr(arguments, flag)} with --from, which continues one run with "
                "its own settings; leave it out, and change settings by --set"
            )
    import ml_collections

    from tal_jax.config import override
    from tal_jax.runs import warm_start, workdir

    if workdir.begun_settings(arguments.workdir):  # it needs the other run no more
        config = ml_collections.ConfigDict(workdir.read(arguments.workdir)[0].to_dict())
    else:
        config = warm_start.retraining_config(arguments.start_from)
    for assignment in arguments.set:
        override(config, assignment)
    return config


def _train_config(config: Config, arguments: argparse.Namespace) -> None:
    from tal_jax.runs import fit
    from tal_jax.training import processes

    began = time.monotonic()
    echo = common.echo if processes.is_primary() else lambda line: None
    if arguments.seeds is None:
        dataset = _load_data(config, arguments)
        echo(_describe(config, dataset))
        start = arguments.start_from
        fit.fit(dataset, config, workdir=arguments.workdir, start_from=start, report=echo)
        if processes.is_primary():
            common.show_run(arguments.workdir)
    else:
        _train_seeds(config, arguments)
    echo(f"{time.monotonic() - began:.0f} s in total")


def _train_seeds(config: Config, arguments: argparse.Namespace) -> None:
    """Trains all seeds at once, each into its own folder, and writes a table of their mAP."""
    import ml_collections

    from tal_jax.data import files
    from tal_jax.runs import evaluate, fit

    configs = []
    for seed in _parse_seeds(arguments.seeds):
        configs.append(ml_collections.ConfigDict(config.to_dict()))
        configs[-1].seed = seed
    datasets = [_load_data(config, arguments) for config in configs]
    common.echo(_describe(config, datasets[0]))
    workdirs = [arguments.workdir / f"seed_{config.seed}" for config in configs]
    fit.fit_many(datasets, configs, workdirs=workdirs, report=common.echo)
    for workdir in workdirs:
        common.echo(f"{workdir}:")
        common.show_run(workdir)
    evaluations = [workdir / "evaluation.json" for workdir in workdirs]
    table = evaluate.format_seeds({arguments.config: evaluations})
    files.write_bytes(arguments.workdir / "table.md", table.encode())
    common.echo(table)


def _parse_seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if len(set(parts)) < len(parts) or not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text}; expected different whole numbers, such as 0,1,2")
    return list(map(int, parts))


def _load_data(config: Config, arguments: argparse.Namespace) -> "Dataset":
    from tal_jax.datasets.load import load_dataset

    return load_dataset(config, arguments.data)


def _describe(config: Config, dataset: "Dataset") -> str:
    """One line with the sizes of the data set and the number of its training labels."""
    from tal_jax.data.recordings import labels_of
    from tal_jax.methods import method_of

    supervision = method_of(config).supervision
    targets = {"points": lambda recording: recording.points, "labels": labels_of}[supervision]
    count = sum(len(targets(recording)) for recording in dataset.train)
    return (
        f"{config.data.name}: {len(dataset.train)} training recordings with {count} {supervision}, "
        f"{len(dataset.test)} test recordings, {len(dataset.classes)} classes"
    )
