"""Tuning: chooses localization thresholds by the points of held-out training recordings alone.

The criterion is `point_criterion`: the mean over points of the score of the best proposal
that contains that point and no other. No start and no end enters it, so that it uses neither test
recordings nor labels beyond those of training. Two settings are compared fairly only if they

1. give the same segment the same score. `video_weight`, `delta` and `min_outer` are part of the
   score: they change the criterion without changing a segment. So does soft-NMS, which is therefore
   replaced by hard NMS here.
2. propose from equally many thresholds. The criterion counts the best proposal of each point and no
   wrong one. More thresholds, a lower `class_threshold` or a higher `iou_threshold` give more
   proposals, which can only raise it: it is highest at `iou_threshold=1`, which keeps every
   duplicate. Conversely, the strictest value that loses no held-out point may lose others.

This leaves the positions of the thresholds: for `thresholds` and then `foreground_thresholds`, as
many levels as before, evenly spaced between two bounds, are tried. A choice must be better than the
settings before by more than twice the standard error of the difference over the points, of which a
single one has none and changes nothing. Even so the
criterion is a weak guide: on `watch` it chose nothing that detected more (docs/results.md).
"""

import dataclasses
import itertools
import math
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from tal_jax._errors import InputError
from tal_jax.config import Config
from tal_jax.data import files
from tal_jax.data.predictions import RecordingPredictions
from tal_jax.data.recordings import Recording, check_dataset
from tal_jax.datasets.load import load_dataset
from tal_jax.evaluation.point_criterion import point_scores
from tal_jax.inference.localize import localize_predictions, proposal_options
from tal_jax.inference.predict import predict_mean
from tal_jax.runs import workdir as work
from tal_jax.runs.evaluate import localization_config
from tal_jax.training.prepare import hold_out

# The settings that are chosen, in this order.
_TUNED = ("thresholds", "foreground_thresholds")
# Confidences between which levels are spaced.
_BOUNDS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One value of a setting, tried with the settings that were chosen before it."""

    setting: str  # its key in the section `localization`
    value: tuple[float, ...]  # the levels
    criterion: float
    gain: float  # difference to the criterion of the setting before
    gain_error: float  # standard error of the gain over the points
    proposals: float  # how many there are in a recording, on average
    chosen: bool = False


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Chosen settings, and all that were tried."""

    options: Config  # the section `localization` of a config
    criterion: float
    criterion_before: float
    trials: tuple[Trial, ...]  # each setting's first one is the value before


def tune(
    predictions: Mapping[str, RecordingPredictions],
    recordings: Sequence[Recording],
    options: Config,
    classes: Sequence[str],
) -> Tuned:
    """Chooses thresholds, one setting after the other.

    Args:
      predictions: for the recordings, of networks that were not trained on them.
      recordings: held-out recordings with points.
      options: the section `localization` of a config, to begin with.
      classes: names of the classes.

    Raises:
      InputError: if no recording has a point.
    """
    if not any(recording.points for recording in recordings):
        raise InputError("tuning: the held-out recordings have no points, expected at least one")
    trials: list[Trial] = []
    for setting in _TUNED:
        if not options[setting]:
            continue
        tried = _try_values(setting, predictions, recordings, options, classes)
        best = _choose(tried)
        trials += [dataclasses.replace(trial, chosen=trial is best) for trial in tried]
        options = _replace(options, setting, best.value)
    return Tuned(options, best.criterion, trials[0].criterion, tuple(trials))


def tune_run(
    workdir: str | Path,
    assignments: Iterable[str] = (),
    *,
    data: str | os.PathLike | None = None,
    print_line: Callable[[str], None] = print,
) -> None:
    """Chooses localization settings, for the mean of all rounds, by the points that a run held out.

    Writes `tuned.json`. A detector has no such settings and takes no part. The settings to begin
    with are those of the run, changed by `assignments`; `data` is as in `load_dataset`.

    Raises:
      InputError: if the run held out no points, its data or network cannot be read, or a setting is
        refused.
      OSError: if the file cannot be written.
    """
    workdir = Path(workdir)
    config, _ = work.read(workdir)
    if not config.train.holdout:
        raise InputError(
            f"{workdir}: train.holdout=0, so that no recording is left to tune on; train with "
            "--set train.holdout=5, or as many as can be spared"
        )
    options = localization_config(config, assignments).localization
    fitted = work.load_run(workdir)
    dataset = load_dataset(config, data)
    check_dataset(dataset)
    work.check_same(workdir, config, dataset)
    _, held_out = hold_out(dataset, config)
    predictions = predict_mean(fitted, held_out)
    tuned = tune(predictions, held_out, options, fitted.classes)
    content = {
        "localization": tuned.options.to_dict(),
        "stages": ["rounds"],  # that the settings and the criterion are of
        "criterion": tuned.criterion,
        "criterion_before": tuned.criterion_before,
    }
    files.write_json(workdir / "tuned.json", content)
    print_line(format_table(tuned))
    points = sum(len(recording.points) for recording in held_out)
    print_line(
        f"criterion {tuned.criterion_before:.4f} before, {tuned.criterion:.4f} now, on {points} "
        f"points of {len(held_out)} held-out recordings; in {workdir / 'tuned.json'}"
    )
    if fitted.detector is not None:
        print_line(
            "note: the thresholds and criteria are those of the rounds alone; the detector of the "
            "run has no thresholds, and the command below evaluates without it"
        )
    command = ["tal-jax", "evaluate", "--scores", str(workdir / "scores_test.npz")]
    for assignment in _assignments(config.localization, tuned.options):
        command += ["--set", assignment]
    print_line(shlex.join(command))


def format_table(tuned: Tuned) -> str:
    """A line for each value that was tried; the chosen ones are marked."""
    lines = [f"{'setting':22}{'levels':>18}{'criterion':>11}{'gain':>18}{'proposals':>11}"]
    for trial in tuned.trials:
        levels = f"{len(trial.value)}: {min(trial.value):g} to {max(trial.value):g}"
        gain = f"{trial.gain:+.4f} ± {trial.gain_error:.4f}"
        lines.append(
            f"{trial.setting:22}{levels:>18}{trial.criterion:11.4f}{gain:>18}"
            f"{trial.proposals:11.1f}{'  chosen' if trial.chosen else ''}"
        )
    return "\n".join(lines)


def _try_values(setting, predictions, recordings, options, classes) -> list[Trial]:
    """A trial of the value before, then of every other."""
    trials, before = [], None
    for value in dict.fromkeys([tuple(options[setting]), *_level_sets(len(options[setting]))]):
        tried = proposal_options(_replace(options, setting, value))
        found = localize_predictions(predictions, tried, classes)
        values = point_scores(found, recordings, classes)
        before = values if before is None else before
        gains = values - before
        trials.append(
            Trial(
                setting=setting,
                value=value,
                criterion=float(values.mean()),
                gain=float(gains.mean()),
                gain_error=_standard_error(gains),
                proposals=float(np.mean([len(entries) for entries in found.values()])),
            )
        )
    return trials


def _standard_error(values: np.ndarray) -> float:
    """Of the mean of a sample; infinite for a single value, whose spread nobody knows."""
    if len(values) < 2:
        return math.inf
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _level_sets(count: int) -> list[tuple[float, ...]]:
    """Sets of `count` levels, evenly spaced between two bounds."""
    return [
        tuple(np.linspace(low, high, count).round(6).tolist())
        for low, high in itertools.combinations(_BOUNDS, 2)
    ]


def _choose(trials: Sequence[Trial]) -> Trial:
    """The best trial, or the first one unless the best is better by two standard errors."""
    best = max(trials, key=lambda trial: trial.criterion)
    return best if best.gain > 2 * best.gain_error else trials[0]


def _replace(options: Config, setting: str, value: tuple[float, ...]) -> Config:
    return ml_collections.FrozenConfigDict(options.to_dict() | {setting: value})


def _assignments(before: Config, after: Config) -> list[str]:
    """Assignments for `--set` that turn one section `localization` into another."""

    def text(value):
        # Shells would ask for quotes around parentheses.
        return str(value).replace(" ", "").removeprefix("(").removesuffix(")") or "()"

    return [
        f"localization.{key}={text(value)}" for key, value in after.items() if value != before[key]
    ]
