"""RSMP (point-supervised) on ActivityNet 1.2: 100 classes, tested on the validation set.

Command:   tal-jax train --config activitynet12_rsmp --data DIR --workdir runs/activitynet12_rsmp
Hardware:  not yet measured on a GPU
Time:      not yet measured
Result:    not yet measured here, for lack of the I3D features. The command prints the table and
           writes it to evaluation.json in the work directory.
           Published by others with one point per instance: LACP (ICCV 2021)
           mAP at .5 44.0, average (.5-.95) 26.8

DIR is a folder in a layout of public codebases; `tal-jax doctor DIR --config activitynet12_rsmp`
validates it. Points come from its point_labels/. No hyper-parameters of this method were published
for this data set: these are those of THUMOS14, except what depends on the lengths of recordings and
actions. `activitynet12_rsmp:quick` is a run of two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.configs import thumos14_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    config = thumos14_rsmp.get_config(arg)
    # Three quarters of the classes cover more than 1/2.5 of their recording; on THUMOS14, 1/8.
    config.loss.topk_ratio = 2.5
    # Nearly all recordings have at most 375 snippets (four minutes), so that no window is drawn.
    config.train.length = 384
    config.evaluation.tious = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
    return config
