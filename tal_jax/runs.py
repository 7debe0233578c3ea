"""Work directories of runs: score their rounds again, compare them, show them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections

from tal_jax import evaluation, pipeline, report
from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.features import load_features
from tal_jax.data.recordings import Recording


def evaluate_run(workdir: str | Path, *, print_line: Callable[[str], None] = print) -> None:
    """Scores the saved detections of every finished round again, and writes the scores.

    Args:
      workdir: of a run.
      print_line: prints a line.

    Raises:
      ValueError: if the directory holds no finished round, or a file in it cannot be read.
      OSError: if a file cannot be written.
    """
    workdir = Path(workdir)
    config = ml_collections.ConfigDict(files.read_json(workdir / "config.json"))
    ground_truth = files.read_json(workdir / "ground_truth.json")
    rounds = _rounds_with(workdir, "detections_test.json")
    if not rounds:
        raise ValueError(f"{workdir}: no round with detections_test.json; nothing to evaluate")
    for number, folder in rounds.items():
        results = _read_results(folder / "detections_test.json")
        metrics = pipeline.evaluate(results, ground_truth, config)
        print_line(f"round {number}\n{evaluation.format_table(metrics)}")
        files.write_json(folder / "evaluation.json", metrics.to_dict())
    files.write_json(workdir / "evaluation.json", metrics.to_dict())


def compare_rounds(workdir: str | Path) -> str:
    """A table with the mAP of each evaluated round, in percent; empty where there is none."""
    rows = []
    for number, folder in _rounds_with(Path(workdir), "evaluation.json").items():
        metrics = evaluation.DetectionMetrics.from_dict(files.read_json(folder / "evaluation.json"))
        if not rows:
            thresholds = "".join(f"{f'@{tiou:g}':>7}" for tiou in metrics.tious.round(6))
            rows.append(f"{'mAP in %':10}{thresholds}{'average':>10}")
        values = "".join(f"{100 * value:7.1f}" for value in metrics.map)
        rows.append(f"{f'round {number}':10}{values}{100 * metrics.average_map:10.1f}")
    return "\n".join(rows)


def write_reports(workdir: str | Path, *, print_line: Callable[[str], None] = print) -> None:
    """Writes `report.html` and, where there is a test recording to draw, `report.png`.

    Args:
      workdir: of a run.
      print_line: prints a line.

    Raises:
      ValueError: if there is nothing to show, or a file is broken.
      OSError: if a file cannot be written.
    """
    print_line(f"report: {report.write_report(workdir)}")
    if not _rounds_with(Path(workdir), "detections_test.json"):
        return
    if importlib.util.find_spec("matplotlib") is None:
        print_line('picture: none without matplotlib; run pip install "tal_jax[demo]"')
        return
    print_line(f"picture: {report.write_picture(workdir)}")


def read_recording(path: str | Path, workdir: str | Path) -> Recording:
    """Maps a file of features as a recording on the clock of a run.

    Raises:
      ValueError: if the file or the run card cannot be read; the features are not checked.
    """
    card = files.read_json(Path(workdir) / "run.json")
    grid = Grid.from_dict(card["data"]["grid"])
    features = load_features(path)
    duration_s = grid.to_seconds(float(len(features))) if features.ndim else 0.0
    return Recording(Path(path).stem, features, grid, duration_s)


def _read_results(path: Path) -> dict[str, Any]:
    values = files.read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("results"), dict):
        raise ValueError(f"{path}: no ActivityNet detections, expected an object with 'results'")
    return values["results"]


def _rounds_with(workdir: Path, name: str) -> dict[int, Path]:
    """The folders of the rounds that have a file, in order."""
    numbers = [
        int(path.parent.name.removeprefix("round_")) for path in workdir.glob(f"round_*/{name}")
    ]
    return {number: workdir / f"round_{number}" for number in sorted(numbers)}
