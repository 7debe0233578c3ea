"""Scores a run's detections again: `python experiments/evaluate.py --workdir runs/hapt`.

The same as `tal-jax evaluate`, with the errors of the last round by kind.
"""

from pathlib import Path

from absl import app, flags

from tal_jax.data import files
from tal_jax.evaluation import detection
from tal_jax.runs import seeds

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
TIOU = flags.DEFINE_float("tiou", 0.5, "The threshold at which errors are explained.")


def main(argv: list[str]) -> None:
    """Runs the script."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    workdir = Path(WORKDIR.value)

    # --- every round, with the tables ---
    seeds.evaluate_run(workdir)

    # --- what goes wrong in the last one ---
    ground_truth = files.read_json(workdir / "ground_truth.json")
    detections = files.read_json(workdir / "detections.json")
    short_s = files.read_json(workdir / "evaluation.json")["short_s"]
    errors = detection.explain_errors(ground_truth, detections, tiou=TIOU.value, short_s=short_s)
    for kind, count in errors.items():
        print(f"{kind:16}{count:6}")

    # --- report ---
    seeds.write_reports(workdir)
    print(seeds.compare_rounds(workdir))


if __name__ == "__main__":
    app.run(main)
