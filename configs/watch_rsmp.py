"""RSMP (point-supervised) on the embedded smartwatch recordings.

Command:   tal-jax train --config watch_rsmp --workdir runs/watch
Hardware:  2 cores of an Intel Xeon at 2.5 GHz, no GPU
Time:      about 2 minutes a seed on one core
Result:    average mAP (.1-.7) 82.2 +- 4.6 over 3 seeds, both stages; all rounds without the
           detector 76.1 +- 4.4 over 5 seeds; see docs/results.md

Needs `pip install "tal_jax[demo]"`, which includes the recordings. `watch_rsmp:quick` is a run of
two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.config import data_config, parse_switches, rsmp_config


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    switches = parse_switches(arg, known=["quick"])
    config = rsmp_config()
    config.data = data_config("watch", shuffles=2, stride_s=0.5, window_s=1.5)

    config.sampling.tau_s = 12.0
    config.sampling.keep_original = True
    config.sampling.test_compensation = True
    config.model.widths = (64, 64, 64)
    config.model.dilations = (1, 2, 4)
    config.model.dropout = 0.2
    # More prototypes than exercises, with sharp assignments: with 8 soft ones, reassignment blurs
    # the exercises.
    config.model.num_prototypes = 32
    config.model.gamma = 20.0
    # Neighbouring bouts touch: there is no background between different exercises.
    config.seeds.force_between = "same"
    config.seeds.action_threshold = 0.0
    # The shortest bouts last 1.5 s in streams of one to four minutes.
    config.loss.topk_ratio = 30
    config.loss.select = "best"
    config.loss.action_weight = 1.0
    config.train.steps = 200
    config.train.batch_size = 8
    config.train.learning_rate = 3e-3
    config.train.l2 = 1e-4
    config.train.length = 640
    config.train.search_every = 20
    config.train.log_every = 20
    config.train.checkpoint_every = 200
    config.localization.class_threshold = 0.2
    config.localization.thresholds = tuple(round(0.1 * i, 1) for i in range(10))
    config.stages = ("rounds", "detector")

    if "quick" in switches:
        config.stages = ("rounds",)
        config.data.shuffles = 1
        config.train.rounds = 2
        config.train.steps = 60
        config.train.checkpoint_every = 60
    return config
