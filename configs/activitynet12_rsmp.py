"""The point-supervised system on ActivityNet 1.2, 100 classes, tested on its validation set.

Command:   tal-jax train --config activitynet12_rsmp --data DIR --workdir runs/activitynet12_rsmp
Hardware:  to be measured on a GPU
Time:      to be measured
Result:    ours to be measured: I3D features could not be fetched where this is developed. The
           command above ends with the table, and leaves it in evaluation.json of the workdir.
           Published by others with one point an instance: LACP (ICCV 2021)
           mAP at .5 44.0, average (.5-.95) 26.8

DIR is a folder as the field's codes lay it out; `tal-jax doctor DIR --config activitynet12_rsmp`
tells what is found in it. Points are those of its point_labels/. Nobody published hyper-parameters
of this method for this data set: these are THUMOS14's, but for what follows from its length.
`activitynet12_rsmp:quick` is a run of two short rounds that only shows that everything works.
"""

import ml_collections

from tal_jax.configs import thumos14_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    config = thumos14_rsmp.get_config(arg)
    # Three quarters of the classes fill more than 1/2.5 of their recording; on THUMOS14 it is 1/8.
    config.loss.topk_ratio = 2.5
    # Nearly all recordings last four minutes at most, 375 snippets, all of which are read.
    config.train.length = 384
    config.evaluation.tious = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
    return config
