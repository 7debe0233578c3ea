"""RSMP on smartwatch recordings, two short rounds and the second stage: `tal-jax quickstart`.

Command:   tal-jax quickstart --workdir runs/quickstart
Hardware:  2 cores of an AMD EPYC, no GPU
Time:      37 s, compilation included; 18 s with its programs cached
Result:    average mAP (.1-.7) of both stages 76.4 +- 5.4 over 5 seeds, 83.5 with seed 0;
           see docs/results.md

`quickstart:quick` is a run of two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.configs import watch_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    config = watch_rsmp.get_config(arg)
    # As short as shows what rounds and the second stage add.
    config.train.rounds = 2
    config.train.steps = min(config.train.steps, 100)
    config.detector.steps = 160
    # Compilation is most of the time. Timelines fit when lengthened, too, so that both rounds share
    # their programs; and test recordings are read once, as in the results of all rounds and stages.
    config.train.length = 800
    config.sampling.test_compensation = False
    return config
