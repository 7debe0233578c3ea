"""Writes the streams of `watch` joined end to end: one recording to train on, one to test on.

    python experiments/joined.py --output joined
    tal-jax train --data joined --workdir runs/joined --seeds 0,1,2

Data of someone who recorded once, for an hour, look like this. docs/auto.md has what such a
recording needs.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from tal_jax.data.annotations import Annotations
from tal_jax.data.signals import window_features
from tal_jax.datasets import watch
from tal_jax.datasets.own_layout import write_folder

STRIDE_S, WINDOW_S = 0.5, 1.5  # as in `watch_rsmp`


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, type=Path, help="a new folder")
    parser.add_argument("--shuffles", type=int, default=2, help="as in `watch_rsmp`; %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of cuts, orders and points")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True)
    write(arguments.output, shuffles=arguments.shuffles, seed=arguments.seed)


def write(folder: Path, *, shuffles: int, seed: int) -> None:
    """Writes the folder: the recordings `train` and `test`, their clock and their annotations."""
    recorded = watch.read_recordings()
    features, recordings = {}, {}
    for subset, people, count in (
        ("train", watch.TRAIN_PEOPLE, shuffles),
        ("test", watch.TEST_PEOPLE, 1),
    ):
        streams = watch.compose(recorded, people, seed=seed, distribution="uniform", shuffles=count)
        joined = list(itertools.chain.from_iterable(streams.values()))
        features[subset], grid = window_features(
            np.concatenate([bout.signal for bout in joined]),
            fps=watch.FPS,
            stride_s=STRIDE_S,
            window_s=WINDOW_S,
        )
        annotations = watch.annotate({subset: joined}, subset=subset)
        recordings |= annotations.recordings
        duration_s = recordings[subset].duration_s
        print(f"{subset}: {duration_s / 60:.0f} min, {len(annotations.instances)} instances")
    annotations = Annotations(watch.CLASSES, recordings)
    write_folder(folder, features, grid=grid, annotations=annotations)


if __name__ == "__main__":
    main()
