"""Trains a config and prints detections of a test recording: a script to read and to change.

    python experiments/train.py --config hapt_rsmp --data DIR --workdir runs/hapt --set seed=1

`tal-jax train` does the same for any number of seeds and processes.
"""

import argparse

from tal_jax import fit, predict, report
from tal_jax.config import load_config, override
from tal_jax.datasets.load import load_dataset
from tal_jax.runs import evaluate


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="name of a config, or path of a .py file")
    parser.add_argument("--workdir", required=True, help="folder of the run; resumed if it exists")
    parser.add_argument("--data", help="folder of data sets; default $TAL_JAX_DATA")
    parser.add_argument("--set", action="append", default=[], help="section.key=value; repeatable")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    for assignment in arguments.set:
        override(config, assignment)

    # --- data ---
    dataset = load_dataset(config, arguments.data)
    for recording in dataset.train[:3]:
        print(f"{recording.name}: {len(recording.features)} snippets, {recording.points[:2]} …")

    # --- all rounds, each evaluated on the test recordings ---
    fitted = fit(dataset, config, workdir=arguments.workdir)

    # --- detections of the ensemble of all rounds in one recording, highest score first ---
    if dataset.test:
        name = dataset.test[0].name
        print(name, predict(fitted, dataset.test[:1])[name][:3])

    # --- report ---
    report.write_reports(arguments.workdir)
    print(evaluate.compare_rounds(arguments.workdir))


if __name__ == "__main__":
    main()
