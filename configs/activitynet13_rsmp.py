"""The point-supervised system on ActivityNet 1.3, 200 classes, tested on its validation set.

Command:   tal-jax train --config activitynet13_rsmp --data DIR --workdir runs/activitynet13_rsmp
Hardware:  to be measured on a GPU
Time:      to be measured
Result:    ours to be measured: I3D features could not be fetched where this is developed. The
           command above ends with the table, and leaves it in evaluation.json of the workdir.
           Published by others with one point an instance: LACP (ICCV 2021)
           mAP at .5 40.4, average (.5-.95) 25.1

DIR is a folder as the field's codes lay it out; `tal-jax doctor DIR --config activitynet13_rsmp`
tells what is found in it. Points are those of its point_labels/. Nobody published hyper-parameters
of this method for this data set: these are THUMOS14's, but for what follows from its length.
`activitynet13_rsmp:quick` is a run of two short rounds that only shows that everything works.
"""

import ml_collections

from tal_jax.configs import activitynet12_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    return activitynet12_rsmp.get_config(arg)
