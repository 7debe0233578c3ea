"""RSMP (point-supervised) on new recordings with features of `signal` or `motion`.

Command:   tal-jax train --config own_rsmp --data FOLDER --workdir runs/mine
Hardware:  any; a laptop's CPU for some hours of recordings
Time:      see docs/own_recordings.md
Result:    average mAP (.1-.7) 83.7 +- 1.4 over 5 seeds on SHREC'21, unchanged, all rounds; see
           docs/results.md

FOLDER is the output of `tal-jax extract`, with the `annotations.json` of `tal-jax label`. A small
network on standardised features; for features of a large network on many recordings use
thumos14_rsmp. Settings that depend most on the recordings:

    sampling.tau_s      widened proposals shorter than this (seconds) are lengthened: about three
                        times the typical short action
    loss.topk_ratio     about the length of a recording divided by that of its rarest class
    train.length        snippets of a recording in an update: a random window of a longer recording
    train.steps         updates of each of the four rounds
"""

import ml_collections

from tal_jax.config import folder_config, parse_switches, rsmp_config


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
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
    # Different actions may touch.
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
