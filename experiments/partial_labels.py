"""What a partly labelled training set is worth: mAP with a share of each recording labelled.

    python experiments/partial_labels.py --config auto:hapt --data DIR --workdir /tmp/partial \
        --set stages=rounds --set train.rounds=1 --seeds 0,1

One stretch of each training recording, drawn with the seed, is labelled; it goes on at the start
where it would pass the end, so that no part of a recording is labelled more often than others. Its
points are trained on by two rules: unlabelled time is unknown (the stretch is a done stretch), or
it is background, as if the recording were wholly done. Both are compared with all points. Finished
trainings are kept; a repeated call trains the others and prints the table.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from tal_jax import fit
from tal_jax.config import load_config, override
from tal_jax.data.recordings import Dataset, Recording
from tal_jax.datasets.load import load_dataset
from tal_jax.runs import evaluate

ALL, UNKNOWN, BACKGROUND = "all", "unknown", "background"


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="name of a config, or path of a .py file")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the trainings")
    parser.add_argument("--data", help="folder of data sets; default $TAL_JAX_DATA")
    parser.add_argument("--set", action="append", default=[], help="section.key=value; repeatable")
    parser.add_argument("--seeds", default="0,1", help="seeds of trainings, points and stretches")
    parser.add_argument("--share", type=float, default=1 / 3, help="labelled share of a recording")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    for assignment in arguments.set:
        override(config, assignment)

    # Seed by seed, so that a stopped call has compared something.
    for seed in map(int, arguments.seeds.split(",")):
        config = ml_collections.ConfigDict(config.to_dict())
        config.seed = seed
        whole = load_dataset(config, arguments.data)
        for rule in (ALL, UNKNOWN, BACKGROUND):
            workdir = arguments.workdir / rule / f"seed_{seed}"
            if not (workdir / "evaluation.json").exists():
                dataset = whole if rule == ALL else partly(whole, arguments.share, seed, rule)
                points = sum(len(recording.points) for recording in dataset.train)
                print(f"== {rule}, seed {seed}: {points} points", flush=True)
                fit(dataset, config, workdir=workdir)
                # The programs of many trainings are more memory maps than a process may have.
                jax.clear_caches()

    titles = {
        ALL: "everything labelled",
        UNKNOWN: f"{arguments.share:.0%} of each recording, the rest unknown",
        BACKGROUND: f"{arguments.share:.0%} of each recording, the rest background",
    }
    rows = {
        title: sorted((arguments.workdir / rule).glob("seed_*/evaluation.json"))
        for rule, title in titles.items()
    }
    print(evaluate.format_seeds(rows))


def partly(dataset: Dataset, share: float, seed: int, rule: str) -> Dataset:
    """The data set with the points of one stretch of each training recording."""

    def one(recording: Recording) -> Recording:
        rng = np.random.default_rng([seed, *recording.name.encode()])
        whole_s = recording.duration_s
        start_s = rng.uniform(0, whole_s)
        end_s = start_s + share * whole_s
        stretches = [(start_s, min(end_s, whole_s))]
        if end_s > whole_s:
            stretches.insert(0, (0.0, end_s - whole_s))
        points = tuple(
            point
            for point in recording.points
            if any(start_s <= point.time_s < end_s for start_s, end_s in stretches)
        )
        done_s = tuple(stretches) if rule == UNKNOWN else None
        return dataclasses.replace(recording, points=points, done_s=done_s)

    return dataclasses.replace(dataset, train=tuple(map(one, dataset.train)), train_truth=None)


if __name__ == "__main__":
    main()
