"""The point-supervised system on the embedded smartwatch recordings.

Command:   tal-jax train --config watch_rsmp --workdir runs/watch
Hardware:  to be measured
Time:      to be measured
Result:    to be measured

Needs `pip install "tal_jax[demo]"`, which brings the recordings. `watch_rsmp:quick` is a run of two
short rounds that only shows that everything works.
"""

import ml_collections

from tal_jax.config import data_config, parse_switches, rsmp_config


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    switches = parse_switches(arg, known=["quick"])
    config = rsmp_config()
    config.data = data_config("watch", shuffles=2, stride_s=0.5, window_s=1.5)

    config.sampling.tau_s = 6.0
    config.model.widths = (64, 64)
    config.model.dilations = (1, 2)
    config.model.dropout = 0.5
    config.seeds.force_between = "same"
    config.loss.topk_ratio = 20
    config.loss.select = "best"
    config.train.steps = 300
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3
    config.train.l2 = 1e-4
    config.train.length = 640
    config.train.checkpoint_every = 100

    if "quick" in switches:
        config.data.shuffles = 1
        config.train.rounds = 2
        config.train.steps = 50
        config.train.checkpoint_every = 50
    return config
