"""Evaluates a run and counts the errors of its detections by kind.

    python experiments/evaluate.py --workdir runs/hapt

`tal-jax evaluate` does the same without the errors.
"""

import argparse
from pathlib import Path

from tal_jax import report
from tal_jax.data import files
from tal_jax.evaluation import errors
from tal_jax.runs import evaluate


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--tiou", type=float, default=0.5, help="of the errors; default 0.5")
    arguments = parser.parse_args()
    workdir = arguments.workdir

    # --- tables of every round ---
    evaluate.evaluate_run(workdir)

    # --- errors of the ensemble ---
    ground_truth = files.read_json(workdir / "ground_truth.json")
    detections = files.read_json(workdir / "detections.json")
    short_s = files.read_json(workdir / "evaluation.json")["short_s"]
    counts = errors.explain_errors(ground_truth, detections, tiou=arguments.tiou, short_s=short_s)
    for kind, count in counts.items():
        print(f"{kind:16}{count:6}")

    # --- report ---
    report.write_reports(workdir)
    print(evaluate.compare_rounds(workdir))


if __name__ == "__main__":
    main()
