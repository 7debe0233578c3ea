"""The config of `tal-jax quickstart`: RSMP on the smartwatch recordings, four short rounds.

Command:   tal-jax quickstart --workdir runs/quickstart
Hardware:  2 cores of an Intel Xeon at 2.5 GHz, no GPU
Time:      128 s, compilation included; see docs/results.md
Result:    average mAP (.1-.7) 80.0, seed 0, all rounds; see docs/results.md

`quickstart:quick` is a run of two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.configs import watch_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    config = watch_rsmp.get_config(arg)
    config.train.steps = min(config.train.steps, 100)
    # The second stage would more than double the time.
    config.stages = ("rounds",)
    return config
