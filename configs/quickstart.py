"""What `tal-jax quickstart` runs: the smartwatch recordings, all four rounds, a few minutes.

Command:   tal-jax quickstart --workdir runs/quickstart
Hardware:  to be measured
Time:      to be measured
Result:    to be measured

`quickstart:quick` is a run of two short rounds that only shows that everything works.
"""

import ml_collections

from tal_jax.configs import watch_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    config = watch_rsmp.get_config(arg)
    config.train.steps = min(config.train.steps, 100)
    return config
