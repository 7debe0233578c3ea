"""`tal-jax evaluate` and `tal-jax tune`."""

import argparse
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.cli import common

_EVALUATE = """\
Computes the detection mAP of round_*/detections_test.json and of detections.json (the ensemble of
all rounds) against ground_truth.json. Of a run with a detector, also that of all_rounds/ and
detector/detections_test.json; detections.json is then of all stages. The files may have been edited
or replaced. Rewrites evaluation.json and the report.

  tal-jax evaluate --workdir runs/hapt

With --scores, localizes again in the saved class activation sequences (CAS) of the ensemble, or of
a round, without running the networks, and prints the mAP of the rounds alone, without a detector.
The run is not changed.

  tal-jax evaluate --scores runs/hapt/scores_test.npz --thresholds 0.1,0.2,0.3
  tal-jax evaluate --scores runs/hapt/round_3/scores_test.npz --set localization.delta=0.5 \\
      --output detections.json
"""

_TUNE = """\
For runs trained with held-out recordings, such as `--set train.holdout=5`. Chooses the localization
thresholds by the point labels of these recordings, without any start or end, where the gain exceeds
twice its standard error. Prints every candidate and writes tuned.json. The thresholds are those of
the rounds; a detector has none.

  tal-jax tune --workdir runs/hapt --data ~/data
  tal-jax tune --workdir runs/hapt --data ~/data --set localization.iou_threshold=0.5
"""


def add_commands(commands: Any) -> None:
    """Adds `evaluate` and `tune`."""
    title = "compute the detection mAP of a run again"
    evaluate = common.add_parser(commands, "evaluate", title, _EVALUATE, _evaluate)
    source = evaluate.add_mutually_exclusive_group(required=True)
    common.add_shared(source, "--workdir", required=False)
    source.add_argument("--scores", metavar="NPZ", type=Path, help="a scores_test.npz of a run")
    for name in ("thresholds", "foreground_thresholds"):
        title = f"short for --set localization.{name}"
        evaluate.add_argument(f"--{name.replace('_', '-')}", metavar="A,B,...", help=title)
    common.add_shared(evaluate, "--set")
    evaluate.add_argument(
        "--output", metavar="JSON", type=Path, help="file for the detections of --scores"
    )

    title = "choose localization thresholds by held-out point labels"
    tune = common.add_parser(commands, "tune", title, _TUNE, _tune)
    common.add_shared(tune, "--workdir", "--data", "--set")


def _evaluate(arguments: argparse.Namespace) -> None:
    from tal_jax.runs import evaluate

    assignments = list(arguments.set)
    for key in ("thresholds", "foreground_thresholds"):
        levels = getattr(arguments, key)
        if levels is not None:
            assignments.append(f"localization.{key}=({levels}{',' if levels else ''})")
    if arguments.scores is not None:
        evaluate.evaluate_scores(
            arguments.scores, assignments, output=arguments.output, print_line=common.echo
        )
        return
    if assignments or arguments.output is not None:
        raise InputError(
            "--workdir evaluates the saved detections, which no setting changes; settings and "
            "--output go with --scores, not with --workdir"
        )
    evaluate.evaluate_run(arguments.workdir, print_line=common.echo)
    common.show_run(arguments.workdir)


def _tune(arguments: argparse.Namespace) -> None:
    from tal_jax.runs import tuning

    tuning.tune_run(arguments.workdir, arguments.set, data=arguments.data, print_line=common.echo)
