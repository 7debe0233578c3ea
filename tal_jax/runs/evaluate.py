"""Finished runs: evaluate them again, and compare their rounds and seeds."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import ml_collections
import numpy as np

from tal_jax._errors import InputError
from tal_jax.config import Config, check_config, override
from tal_jax.data import files, locks
from tal_jax.data.detections import read_results, write_results
from tal_jax.data.predictions import read_predictions
from tal_jax.evaluation import detection
from tal_jax.inference.localize import localize_predictions
from tal_jax.runs import workdir as work
from tal_jax.runs.results import evaluate, evaluated_short_s
from tal_jax.runs.round_folders import (
    ALL_STAGES,
    detections_path,
    has_detector,
    result_folders,
    round_folders,
)


def evaluate_run(workdir: str | Path, *, print_line: Callable[[str], None] = print) -> None:
    """Evaluates the saved detections of every finished round, of all rounds and stages, again.

    Raises:
      InputError: if the directory holds no finished round, or a file in it cannot be read.
      OSError: if a file cannot be written.
    """
    workdir = Path(workdir)
    config, _ = work.read(workdir)
    with locks.one_writer(workdir, "evaluating"):
        _evaluate_rounds(workdir, config, print_line)
    for note in work.note_changes(workdir):
        print_line(f"note: {note}")


def _evaluate_rounds(workdir: Path, config: Config, print_line: Callable[[str], None]) -> None:
    ground_truth = files.read_json(workdir / "ground_truth.json")
    rounds = round_folders(workdir, "detections_test.json")
    if not rounds:
        raise InputError(f"{workdir}: no round with detections_test.json; nothing to evaluate")
    folders = result_folders(workdir, "detections_test.json")
    scored = {
        title: evaluate(
            read_results(detections_path(workdir, folder)),
            ground_truth,
            config,
            short_s=evaluated_short_s(folder),
        )
        for title, folder in folders.items()
    }
    for title, metrics in scored.items():
        print_line(f"{title}\n{detection.format_table(metrics)}")
        files.write_json(folders[title] / "evaluation.json", metrics.to_dict())
    if workdir not in folders.values():
        files.write_json(workdir / "evaluation.json", metrics.to_dict())


def evaluate_scores(
    path: str | Path,
    assignments: Iterable[str] = (),
    *,
    output: str | Path | None = None,
    print_line: Callable[[str], None] = print,
) -> None:
    """Localizes again in saved scores, without the networks, and scores the result.

    Nothing in the run changes.

    Args:
      path: the `scores_test.npz` of a round, or of all rounds, in the work directory of its run.
      assignments: changes to the run's settings, such as `"localization.delta=0.5"`.
      output: a file for the detections.
      print_line: prints a line.

    Raises:
      InputError: if a file cannot be read or does not fit the run, or a setting is refused.
      OSError: if the output cannot be written.
    """
    folder = Path(path).absolute().parent
    workdir = folder if (folder / "config.json").exists() else folder.parent
    config, data = work.read(workdir)
    config = localization_config(config, assignments)
    ground_truth = files.read_json(workdir / "ground_truth.json")
    predictions = read_predictions(path)
    for name, one in predictions.items():
        if len(one.last.video_scores) != len(data["classes"]):
            raise InputError(
                f"{path}: {len(one.last.video_scores)} classes in {name!r}; expected the "
                f"{len(data['classes'])} of the run in {workdir}"
            )
    found = localize_predictions(predictions, config.localization, data["classes"])
    short_s = evaluated_short_s(Path(path).absolute().parent)
    metrics = evaluate(found, ground_truth, config, short_s=short_s)
    missing = sorted(set(ground_truth["database"]) - set(predictions))
    if missing:
        raise InputError(f"{path}: no scores of {missing[0]!r}; expected every test recording")
    if output is not None:
        write_results(output, found)
    print_line(detection.format_table(metrics))
    if has_detector(workdir):
        print_line(
            "note: this is what the rounds detect alone, without the detector of the run; that of "
            f"{ALL_STAGES} is in {workdir / 'evaluation.json'}"
        )


def compare_rounds(workdir: str | Path) -> str:
    """A table with the mAP of each evaluated round, of all rounds and of the stages, in percent.

    Empty where there is none.
    """
    rows = []
    for title, folder in result_folders(workdir, "evaluation.json").items():
        metrics = detection.DetectionMetrics.from_dict(files.read_json(folder / "evaluation.json"))
        if not rows:
            thresholds = "".join(f"{f'@{tiou:g}':>7}" for tiou in metrics.tious.round(6))
            rows.append(f"{'mAP in %':10}{thresholds}{'average':>10}")
        values = "".join(f"{100 * value:7.1f}" for value in metrics.map)
        rows.append(f"{title:10}{values}{100 * metrics.average_map:10.1f}")
    return "\n".join(rows)


def format_seeds(rows: Mapping[str, Iterable[Path]]) -> str:
    """A Markdown table of scores in percent, mean ± standard deviation over seeds.

    The rows have a title and the `evaluation.json` of each seed; files that are not there are left
    out, and so are rows without any. Thresholds that were not evaluated have a dash.

    Raises:
      InputError: if a file cannot be read.
    """
    lines = [
        "mAP in %, mean ± standard deviation over the seeds, last update, all rounds and stages",
        "",
        "| setting | seeds | .1 | .3 | .5 | .7 | average | recall of short at .5 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, paths in rows.items():
        scores = np.array([_scores_in(path) for path in paths if path.exists()])
        if not len(scores):
            continue
        deviations = scores.std(axis=0, ddof=min(1, len(scores) - 1))
        cells = [
            f"{100 * mean:.1f} ± {100 * deviation:.1f}" if np.isfinite(mean) else "-"
            for mean, deviation in zip(scores.mean(axis=0), deviations, strict=True)
        ]
        lines.append(f"| {title} | {len(scores)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _scores_in(path: Path) -> list[float]:
    """The columns of `format_seeds`; NaN at thresholds that were not evaluated."""
    metrics = detection.DetectionMetrics.from_dict(files.read_json(path))

    def at(values: np.ndarray, tiou: float) -> float:
        found = values[np.abs(metrics.tious - tiou) < 1e-6]
        return float(found[0]) if len(found) else np.nan

    scores = [at(metrics.map, tiou) for tiou in (0.1, 0.3, 0.5, 0.7)]
    return [*scores, metrics.average_map, at(metrics.short_recall, 0.5)]


def localization_config(config: Config, assignments: Iterable[str]) -> Config:
    """The run's config with changes to what comes after the network."""
    config = ml_collections.ConfigDict(config.to_dict())
    for assignment in assignments:
        override(config, assignment)
        key = assignment.partition("=")[0]
        if not key.startswith("localization."):
            raise InputError(
                f"setting {key!r} is what the scores were made with; expected one of "
                f"{', '.join(f'localization.{name}' for name in config.localization)}"
            )
    return check_config(config)
