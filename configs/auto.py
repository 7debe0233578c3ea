"""RSMP (point-supervised) on any data set: settings that depend on the data are decided from it.

Command:   tal-jax train --data FOLDER --workdir runs/mine
Hardware:  any; a laptop's CPU for some hours of recordings
Time:      depends on the recordings; see docs/speed.md
Result:    average mAP (.1-.7) of both stages: SHREC'21 88.8 +- 0.8 and watch 80.9 +- 5.0 over 5
           seeds, HAPT 95.7 +- 0.7 over 2; see docs/results.md

FOLDER holds features and annotations, such as the output of `tal-jax extract` with the
`annotations.json` of `tal-jax label`. What is None here is decided before training, from the
training recordings and their points (`tal_jax.training.automatic`), and printed with the reason;
`--set train.length=512` decides it instead. `sampling.tau_s` stays None: every round decides it
from the proposals before it. `auto:hapt` and `auto:watch` read those data sets instead of a folder,
`auto:quick` is two short rounds that check the installation.
"""

import ml_collections
from ml_collections import config_dict

from tal_jax.config import data_config, folder_config, parse_switches, rsmp_config

_DATA = {
    "hapt": lambda: data_config("hapt", stride_s=0.5, window_s=1.5),
    "watch": lambda: data_config("watch", shuffles=2, stride_s=0.5, window_s=1.5),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick", "hapt" or "watch", or "quick" and one of these."""
    switches = parse_switches(arg, known=["quick", *_DATA])
    config = rsmp_config()
    # Always standardised: it does no harm to features of a network, and sensors need it.
    config.data = folder_config(points="file", standardize=True)
    for name in sorted(switches & _DATA.keys()):
        config.data = _DATA[name]()

    config.sampling.tau_s = config_dict.placeholder(float)
    config.sampling.keep_original = True
    config.model.widths = config_dict.placeholder(tuple)
    config.model.dilations = config_dict.placeholder(tuple)
    config.model.dropout = config_dict.placeholder(float)
    config.model.num_prototypes = 16
    config.model.gamma = 20.0
    # Different actions may touch: no background separates them, and the background probability does
    # not indicate the boundary between them.
    config.seeds.force_between = "same"
    config.seeds.action_threshold = 0.0
    config.loss.topk_ratio = config_dict.placeholder(float)
    config.loss.select = "best"
    config.loss.action_weight = 1.0
    config.train.length = config_dict.placeholder(int)
    config.train.batch_size = config_dict.placeholder(int)
    config.train.learning_rate = config_dict.placeholder(float)
    config.train.l2 = 1e-4
    config.train.steps = config_dict.placeholder(int)
    config.train.search_every = 20
    config.train.log_every = 20
    config.train.checkpoint_every = config_dict.placeholder(int)
    # A low video-level score is enough, and thresholds over the whole range of the scores, since
    # these are nearly binary.
    config.localization.class_threshold = 0.2
    config.localization.thresholds = tuple(round(0.1 * i, 1) for i in range(10))
    config.localization.min_outer = config_dict.placeholder(float)
    config.stages = ("rounds", "detector")

    if "quick" in switches:
        config.stages = ("rounds",)
        config.train.rounds = 2
        config.train.steps = 100
        config.train.checkpoint_every = 100
    return config
