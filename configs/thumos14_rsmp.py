"""RSMP (point-supervised) on THUMOS14, with the published hyper-parameters.

Command:   tal-jax train --config thumos14_rsmp --data DIR --workdir runs/thumos14_rsmp
Hardware:  not yet measured on a GPU
Time:      not yet measured
Result:    not yet measured here, for lack of the I3D features. The command prints the table and
           writes it to evaluation.json in the work directory.
           Published by others with one point per instance: HR-Pro (AAAI 2024) mAP .1-.7
           85.1 81.1 73.9 64.0 53.1 40.5 25.3, average 60.4

DIR is a folder in the layout of LACP, HR-Pro, ASM-Loc, W-TALC or this project; `tal-jax doctor DIR
--config thumos14_rsmp` validates it. Points come from the folder's file (clicks near the middle of
each instance); report uniform ones (`--set data.points=uniform`) as well. `thumos14_rsmp:quick` is
a run of two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.config import folder_config, parse_switches, rsmp_config


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    switches = parse_switches(arg, known=["quick"])
    config = rsmp_config()
    config.data = folder_config()
    config.data.points = "file"

    # Action compensation: 7.68 s are 12 snippets, so originals under 3.84 s are short.
    config.sampling.tau_s = 7.68
    config.sampling.delta = 0.5
    config.sampling.alpha = 0.7

    # Network and feature reassignment.
    config.model.widths = (2048,)
    config.model.dropout = 0.7
    config.model.num_prototypes = 8
    config.model.gamma = 5.0
    config.model.omega = 0.5
    config.model.num_iters = 2

    # Representative segments.
    config.seeds.action_threshold = 0.1
    config.seeds.background_threshold = 0.95
    config.loss.delta = 0.25
    config.loss.temperature = 0.1

    # Joint loss and refinement.
    config.loss.lambda_vid = 1.0
    config.loss.lambda_point = 1.0
    config.loss.lambda_pres = 1.0
    config.loss.lambda_ins = 1.0
    config.loss.action_weight = 0.5
    config.loss.topk_ratio = 8
    config.train.rounds = 4
    config.train.steps = 2000
    config.train.batch_size = 16
    config.train.learning_rate = 1e-4
    config.train.l2 = 5e-4
    config.train.search_every = 10
    config.train.length = 750

    if "quick" in switches:
        config.train.rounds = 2
        config.train.steps = 20
        config.train.log_every = 10
        config.train.checkpoint_every = 20
    return config
