"""The config of `tal-jax quickstart`: RSMP on smartwatch recordings, short rounds and stage two.

Command:   tal-jax quickstart --workdir runs/quickstart
Hardware:  2 cores of an AMD EPYC, no GPU
Time:      171 s on a slow day, compilation included; see docs/results.md
Result:    average mAP (.1-.7) 75.4 +- 6.0 over 5 seeds, both stages; seed 0: 82.2; see
           docs/results.md

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
    return config
