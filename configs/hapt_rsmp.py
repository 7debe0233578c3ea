"""The point-supervised system on HAPT: a phone at the waist, activities and postural transitions.

Command:   tal-jax train --config hapt_rsmp --data DIR --workdir runs/hapt
Hardware:  2 cores of an Intel Xeon at 2.5 GHz, no GPU
Time:      about 4 minutes a seed on one core, another run on the other
Result:    average mAP (.1-.7) 92.9 +- 0.9 over 5 seeds, all rounds; see docs/results.md

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
    # A first pass over a test recording as it is finds what to lengthen for the second pass, so the
    # network has to know actions at both speeds.
    config.sampling.keep_original = True
    config.sampling.test_compensation = True
    config.model.widths = (128, 128, 128)
    config.model.dilations = (1, 2, 4)
    config.model.dropout = 0.2
    # Half of the neighbouring instances touch: no background between different actions, and the
    # background probability says nothing about where one action ends and the next begins.
    config.seeds.force_between = "same"
    config.seeds.action_threshold = 0.0
    # The rarest class of a recording, a transition, fills about 1 % of it.
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
    # Almost every recording holds almost every class, so presence need not be certain; and the
    # scores are nearly binary, so thresholds over their whole range draw tighter segments.
    config.localization.class_threshold = 0.2
    config.localization.thresholds = tuple(round(0.1 * i, 1) for i in range(10))
    # A snippet's window of 1.5 s smears a transition over its neighbours; the outer region has to
    # reach beyond that to see what lies outside: two windows.
    config.localization.min_outer = 6.0

    if "quick" in switches:
        config.train.rounds = 2
        config.train.steps = 60
        config.train.checkpoint_every = 60
    return config
