"""RSMP (point-supervised) on ActivityNet 1.3: 200 classes, tested on the validation set.

Command:   tal-jax train --config activitynet13_rsmp --data DIR --workdir runs/activitynet13_rsmp
Hardware:  not yet measured on a GPU
Time:      not yet measured
Result:    not yet measured here, for lack of the I3D features. The command prints the table and
           writes it to evaluation.json in the work directory.
           Published by others with one point per instance: LACP (ICCV 2021)
           mAP at .5 40.4, average (.5-.95) 25.1

DIR is a folder in a layout of public codebases; `tal-jax doctor DIR --config activitynet13_rsmp`
validates it. Points come from its point_labels/. No hyper-parameters of this method were published
for this data set: these are those of THUMOS14, except what depends on the lengths of recordings and
actions. `activitynet13_rsmp:quick` is a run of two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.configs import activitynet12_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    return activitynet12_rsmp.get_config(arg)
