"""Results of a run's rounds: predictions, detections and their evaluation, written once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.config import Config
from tal_jax.data import files
from tal_jax.data.detections import Results, write_results
from tal_jax.data.predictions import RecordingPredictions, read_predictions, write_predictions
from tal_jax.data.recordings import Dataset
from tal_jax.evaluation import detection, pseudo_segments
from tal_jax.inference.forward import Fitted
from tal_jax.inference.localize import localize_predictions
from tal_jax.inference.predict import mean_predictions
from tal_jax.runs.workdir import round_folder
from tal_jax.training import metrics_log
from tal_jax.training.prepare import given_short_s, pseudo_instances
from tal_jax.training.pseudo_segments import ANNOTATED


def titled(report: Callable[[str], None], title: str) -> Callable[[str], None]:
    """Prints lines with the title of one of several runs before them; a single run has none."""
    return (lambda line: report(f"{title}: {line}")) if title else report


def evaluate(
    results: Results,
    ground_truth: dict[str, Any],
    config: Config,
    *,
    short_s: float | None = None,
) -> detection.DetectionMetrics:
    """Evaluates detections by a config; "short" actions are those that compensation lengthens.

    Where rounds decide which these are (`sampling.tau_s` is None), those shorter than `short_s`.
    """
    kept: Any = results
    if config.evaluation.drop_ambiguous:
        kept = detection.without_ambiguous(results, ground_truth.get("ambiguous", {}))
    return detection.evaluate_detections(
        ground_truth,
        {"results": kept},
        tious=config.evaluation.tious,
        short_s=short_s if config.sampling.tau_s is None else given_short_s(config.sampling),
    )


def evaluated_short_s(folder: Path) -> float | None:
    """Below which length actions were short when `evaluation.json` was written; None without it."""
    path = folder / "evaluation.json"
    if not path.exists():
        return None
    return detection.DetectionMetrics.from_dict(files.read_json(path)).short_s


def write_round(
    fitted: Fitted,
    found: Results,
    predictions: dict[str, RecordingPredictions],
    dataset: Dataset,
    workdir: Path,
    report: Callable[[str], None],
    *,
    short_s: float | None = None,
) -> None:
    """Writes the last round's predictions, detections and evaluation, and those of all rounds.

    `fitted` are the networks of all rounds so far, `found` the last one's detections in the test
    recordings, made from `predictions`. `short_s` is what the round lengthened actions below.
    """
    config, number = fitted.config, len(fitted.params) - 1
    folder = round_folder(workdir, number)
    write_predictions(folder / "scores_test.npz", predictions)
    log = open_log(workdir)
    write_results(folder / "detections_test.json", found)
    metrics = evaluate(found, dataset.ground_truth, config, short_s=short_s)
    report(f"round {number}\n{detection.format_table(metrics)}")
    log_metrics(log, metrics, number, "evaluation")
    # Read from files, so that a run that continues needs no network for it.
    paths = [round_folder(workdir, one) / "scores_test.npz" for one in range(number + 1)]
    mean = mean_predictions(map(read_predictions, paths))
    write_predictions(workdir / "scores_test.npz", mean)
    found = localize_predictions(mean, config.localization, fitted.classes)
    write_results(workdir / "detections.json", found)
    of_all = evaluate(found, dataset.ground_truth, config, short_s=short_s)
    if number:
        report(f"all rounds, 0 to {number}\n{detection.format_table(of_all)}")
        log_metrics(log, of_all, number, "evaluation_of_all_rounds")
    files.write_json(workdir / "evaluation.json", of_all.to_dict())
    # Last: it marks the round as done.
    files.write_json(folder / "evaluation.json", metrics.to_dict())


def open_log(workdir: Path) -> metrics_log.MetricsLog:
    """The log of a run."""
    return metrics_log.MetricsLog(workdir / "metrics.jsonl")


# What the training points get as segments: `[N, 2]` in seconds, NaN where there is none, and `[N]`
# True for those whose true segment training uses, which is no pseudo segment.
OfPoints = tuple[np.ndarray, np.ndarray]


def write_quality(
    dataset: Dataset,
    find: Callable[[], OfPoints],
    number: int,
    workdir: Path,
    report: Callable[[str], None],
    *,
    stage: str = "",
) -> None:
    """Logs and prints the quality of pseudo segments, once, where the truth is known.

    For evaluation only: nothing of it is read again, except by the report.

    Args:
      dataset: the data set; without `train_truth` nothing is written.
      find: returns the segments, called only where they are needed.
      number: of the round; of a stage after the rounds, how many of these there are.
      workdir: the run's work directory.
      report: prints a line.
      stage: name of a stage after the rounds.
    """
    log, event = open_log(workdir), "pseudo_segments"
    if dataset.train_truth is None or log.has(number, event):
        return
    pseudo, used = find()
    truth = np.where(used[:, None], np.nan, _true_segments(dataset))
    if np.isnan(truth).any(axis=1).all():
        return  # training uses all segments that are known
    quality = pseudo_segments.quality_of(pseudo, truth)
    title = f"{stage or f'round {number}'}, pseudo segments of the training points"
    report(f"{title}\n{pseudo_segments.format_table(quality)}")
    place = {"stage": stage} if stage else {}
    log.put(number, event, **place, **quality.to_dict())


def segments_of_proposals(dataset: Dataset, config: Config, proposals: Results) -> OfPoints:
    """What the training points get from the proposals of a round."""
    timeline = pseudo_instances(dataset, config, proposals)
    instances = np.asarray(timeline.instances, np.float64)
    instances[~np.asarray(timeline.instance_where)] = np.nan
    known = np.asarray(timeline.known)
    pseudo, used = [], []
    for recording, segments, own in zip(dataset.train, instances, known, strict=True):
        size = len(recording.points)
        pseudo.append(recording.grid.to_seconds(segments[:size]))
        used.append(own[:size])
    return np.concatenate(pseudo), np.concatenate(used)


def segments_of_document(dataset: Dataset, document: Mapping[str, Any]) -> OfPoints:
    """What the training points got in an annotation file of `training.pseudo_segments`."""
    entries = [
        entry
        for recording in dataset.train
        for entry in document["database"][recording.name]["annotations"]
    ]
    segments = np.array([entry["segment"] for entry in entries], np.float64).reshape(-1, 2)
    # One without a source is a person's.
    sources = [entry.get("source", ANNOTATED) for entry in entries]
    return segments, np.array([source == ANNOTATED for source in sources], bool)


def _true_segments(dataset: Dataset) -> np.ndarray:
    """`[N, 2]` in seconds, of all training points; NaN where it is not known."""
    truth = dataset.train_truth or {}
    found = [
        one or (np.nan, np.nan)
        for recording in dataset.train
        for one in truth.get(recording.name, [None] * len(recording.points))
    ]
    return np.array(found, np.float64).reshape(-1, 2)


def log_metrics(
    log: metrics_log.MetricsLog, metrics: detection.DetectionMetrics, number: int, event: str
) -> None:
    """Adds an evaluation to the log, as what came after a number of rounds."""
    middle = int(np.argmin(np.abs(metrics.tious - 0.5)))
    values = metrics.to_dict()
    recalls = {name: values[name][middle] for name in ("short_recall", "long_recall")}
    whole = {name: values[name] for name in ("average_map", "map", "tious")}
    log.put(number, event, **whole, **recalls)
