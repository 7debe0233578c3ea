"""The point-supervised system on recordings of one's own, described by `signal` or `motion`.

Command:   tal-jax train --config own_rsmp --data FOLDER --workdir runs/mine
Hardware:  any; a laptop's CPU for some hours of recordings
Time:      see docs/own_recordings.md
Result:    average mAP (.1-.7) 83.7 +- 1.4 over 5 seeds on SHREC'21, unchanged, all rounds; see
           docs/results.md

FOLDER is what `tal-jax extract` wrote, with the `annotations.json` that `tal-jax label` wrote. A
small network on standardised features; for features of a large network on many recordings take
thumos14_rsmp. What depends most on the recordings:

    sampling.tau_s      widened proposals shorter than this (seconds) are lengthened: about three
                        times the typical short action
    loss.topk_ratio     a recording's length over that of its rarest class, about
    train.length        snippets that an update reads of a recording: a random window of longer ones
    train.steps         of each of the four rounds
"""

import ml_collections

from tal_jax.config import folder_config, parse_switches, rsmp_config


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    switches = parse_switches(arg, known=["quick"])
    config = rsmp_config()
    config.data = folder_config(points="file", standardize=True)

    config.sampling.tau_s = 10.0
    config.sampling.keep_original = True
    config.model.widths = (64, 64)
    config.model.dilations = (1, 2)
    config.model.dropout = 0.2
    config.model.num_prototypes = 16
    config.model.gamma = 20.0
    # Different actions of one's own may touch.
    config.seeds.force_between = "same"
    config.seeds.action_threshold = 0.0
    config.loss.topk_ratio = 20
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

    if "quick" in switches:
        config.train.rounds = 2
        config.train.steps = 100
        config.train.checkpoint_every = 100
    return config
