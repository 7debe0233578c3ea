"""The point-supervised system on GTEA: 21 recordings to train on, 7 to test on, 7 classes.

Command:   tal-jax train --config gtea_rsmp --data DIR --workdir runs/gtea_rsmp
Hardware:  to be measured on a GPU
Time:      to be measured
Result:    ours to be measured: I3D features could not be fetched where this is developed. The
           command above ends with the table, and leaves it in evaluation.json of the workdir.
           Published by others with one point an instance: LACP (ICCV 2021)
           average mAP (.1-.7) 43.5

DIR is a folder as the field's codes lay it out; `tal-jax doctor DIR --config gtea_rsmp` tells what
is found in it. Points are those of its point_labels/ (clicks near the middle). Nobody published
hyper-parameters of this method for this data set: these are THUMOS14's, but for what follows from
how little of a recording its classes fill.
`gtea_rsmp:quick` is a run of two short rounds that only shows that everything works.
"""

import ml_collections

from tal_jax.configs import thumos14_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    config = thumos14_rsmp.get_config(arg)
    # A quarter of the classes fill less than 1/15 of their recording; on THUMOS14 it is 1/8.
    config.loss.topk_ratio = 15.0
    # Most of the 21 recordings at once would leave little to chance.
    config.train.batch_size = 8
    return config
