"""Work directories of runs: score their rounds again, compare them, show them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tal_jax import evaluation, pipeline, report, run_card
from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.feature_files import load_npy
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
    config, _ = run_card.read(workdir)
    ground_truth = files.read_json(workdir / "ground_truth.json")
    rounds = _rounds_with(workdir, "detections_test.json")
    if not rounds:
        raise ValueError(f"{workdir}: no round with detections_test.json; nothing to evaluate")
    scored = {
        folder: pipeline.evaluate(
            read_results(folder / "detections_test.json"), ground_truth, config
        )
        for folder in rounds
    }
    for folder, metrics in scored.items():
        print_line(f"{_title(folder)}\n{evaluation.format_table(metrics)}")
        files.write_json(folder / "evaluation.json", metrics.to_dict())
    files.write_json(workdir / "evaluation.json", metrics.to_dict())


def compare_rounds(workdir: str | Path) -> str:
    """A table with the mAP of each evaluated round, in percent; empty where there is none."""
    rows = []
    for folder in _rounds_with(Path(workdir), "evaluation.json"):
        metrics = evaluation.DetectionMetrics.from_dict(files.read_json(folder / "evaluation.json"))
        if not rows:
            thresholds = "".join(f"{f'@{tiou:g}':>7}" for tiou in metrics.tious.round(6))
            rows.append(f"{'mAP in %':10}{thresholds}{'average':>10}")
        values = "".join(f"{100 * value:7.1f}" for value in metrics.map)
        rows.append(f"{_title(folder):10}{values}{100 * metrics.average_map:10.1f}")
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
    """Reads a file of features as a recording on the clock of a run, standardised as its data.

    Raises:
      ValueError: if the file or the run card cannot be read; the features are not checked.
    """
    _, data = run_card.read(Path(workdir))
    scaling = run_card.read_scaling(Path(workdir))
    grid = Grid.from_dict(data["grid"])
    features = load_npy(path)
    # Features of a wrong shape are left as they are, for `predict` to refuse.
    if scaling is not None and features.ndim == 2 and features.shape[1] == len(scaling.mean):
        features = scaling.apply(features)
    duration_s = grid.to_seconds(float(len(features))) if features.ndim else 0.0
    return Recording(Path(path).stem, features, grid, duration_s)


def read_results(path: str | Path) -> dict[str, Any]:
    """Reads detections, `{recording: [{label, score, segment}]}`, from an ActivityNet file.

    Raises:
      ValueError: if it is none.
    """
    values = files.read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("results"), dict):
        raise ValueError(f"{path}: no ActivityNet detections, expected an object with 'results'")
    return values["results"]


def _rounds_with(workdir: Path, name: str) -> list[Path]:
    """The folders of the rounds that have a file, in order."""
    folders = [folder for folder in workdir.glob("round_*") if (folder / name).exists()]
    return sorted(
        (folder for folder in folders if folder.name[6:].isdecimal()),
        key=lambda folder: int(folder.name[6:]),
    )


def _title(folder: Path) -> str:
    return folder.name.replace("_", " ")
