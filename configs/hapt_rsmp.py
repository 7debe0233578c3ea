"""RSMP (point-supervised) on HAPT: activities and postural transitions, a phone at the waist.

Command:   tal-jax train --config hapt_rsmp --data DIR --workdir runs/hapt
Hardware:  2 cores of an Intel Xeon at 2.5 GHz, no GPU
Time:      about 4 minutes a seed on one core, another run on the other
Result:    average mAP (.1-.7) 95.4 +- 0.5 over 5 seeds, both stages; all rounds without the
           detector 93.0 +- 0.9; see docs/results.md

DIR contains the data set's folder `hapt` (or is it), with `RawData` in it: "Smartphone-Based
Recognition of Human Activities and Postural Transitions" v2.1 from the UCI repository. Other points
with `--set data.points=center`. `hapt_rsmp:quick` is a run of two short rounds that checks the
installation.
"""

import ml_collections

from tal_jax.config import data_config, parse_switches, rsmp_config


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    switches = parse_switches(arg, known=["quick"])
    config = rsmp_config()
    config.data = data_config("hapt", stride_s=0.5, window_s=1.5)

    config.sampling.tau_s = 12.0
    # The first pass over a test recording uses its original timeline, and the second a lengthened
    # one, so training needs both.
    config.sampling.keep_original = True
    config.sampling.test_compensation = True
    config.model.widths = (128, 128, 128)
    config.model.dilations = (1, 2, 4)
    config.model.dropout = 0.2
    # Half of the neighbouring instances touch: no background separates different actions, and the
    # background probability does not indicate the boundary between them.
    config.seeds.force_between = "same"
    config.seeds.action_threshold = 0.0
    # The rarest class of a recording, a transition, covers about 1 % of it.
    config.loss.topk_ratio = 100
    config.loss.select = "best"
    config.loss.action_weight = 1.0
    config.train.steps = 100
    config.train.batch_size = 8
    config.train.learning_rate = 3e-3
    config.train.l2 = 1e-4
    config.train.length = 1152
    config.train.search_every = 20
    config.train.log_every = 20
    config.train.checkpoint_every = 100
    # Almost every recording contains almost every class, so a low video-level score is enough; the
    # scores are nearly binary, so thresholds over their whole range give tighter segments.
    config.localization.class_threshold = 0.2
    config.localization.thresholds = tuple(round(0.1 * i, 1) for i in range(10))
    # The 1.5 s window of a snippet spreads a transition over its neighbours; the outer region of
    # the OIC score has to extend beyond them: two windows.
    config.localization.min_outer = 6.0
    config.stages = ("rounds", "detector")

    if "quick" in switches:
        config.stages = ("rounds",)
        config.train.rounds = 2
        config.train.steps = 60
        config.train.checkpoint_every = 60
    return config
