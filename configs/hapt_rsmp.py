"""The point-supervised system on HAPT: a phone at the waist, activities and postural transitions.

Command:   tal-jax train --config hapt_rsmp --data DIR --workdir runs/hapt
Hardware:  to be measured
Time:      to be measured
Result:    to be measured

DIR holds the data set's folder `hapt` (or is it), with `RawData` in it: "Smartphone-Based
Recognition of Human Activities and Postural Transitions" v2.1 from the UCI repository. Other points
with `--set data.points=center`. `hapt_rsmp:quick` is a run of two short rounds that only shows that
everything works.
"""

import ml_collections

from tal_jax.config import data_config, parse_switches, rsmp_config


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    switches = parse_switches(arg, known=["quick"])
    config = rsmp_config()
    config.data = data_config("hapt", stride_s=0.5, window_s=1.5)

    config.sampling.tau_s = 12.0
    config.model.widths = (128, 128, 128)
    config.model.dilations = (1, 2, 4)
    config.model.dropout = 0.5
    # Half of the neighbouring instances touch: no background between different actions.
    config.seeds.force_between = "same"
    config.seeds.action_threshold = 0.0
    # The rarest class of a recording, a transition, fills about 1 % of it.
    config.loss.topk_ratio = 100
    config.loss.select = "best"
    config.train.steps = 300
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3
    config.train.l2 = 1e-4
    config.train.search_every = 10
    config.train.length = 960
    config.train.checkpoint_every = 100

    if "quick" in switches:
        config.train.rounds = 2
        config.train.steps = 50
        config.train.checkpoint_every = 50
    return config
