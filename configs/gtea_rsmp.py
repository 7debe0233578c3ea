"""RSMP (point-supervised) on GTEA: 21 training and 7 test recordings, 7 classes.

Command:   tal-jax train --config gtea_rsmp --data DIR --workdir runs/gtea_rsmp
Hardware:  not yet measured on a GPU
Time:      not yet measured
Result:    not yet measured here, for lack of the I3D features. The command prints the table and
           writes it to evaluation.json in the work directory.
           Published by others with one point per instance: LACP (ICCV 2021)
           average mAP (.1-.7) 43.5

DIR is a folder in a layout of public codebases; `tal-jax doctor DIR --config gtea_rsmp` validates
it. Points come from its point_labels/ (clicks near the middle). No hyper-parameters of this method
were published for this data set: these are those of THUMOS14, except what depends on the lengths of
actions. `gtea_rsmp:quick` is a run of two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.configs import thumos14_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    config = thumos14_rsmp.get_config(arg)
    # A quarter of the classes cover less than 1/15 of their recording; on THUMOS14, 1/8.
    config.loss.topk_ratio = 15.0
    # A larger batch would contain most of the 21 recordings.
    config.train.batch_size = 8
    return config
