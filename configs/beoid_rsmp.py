"""The point-supervised system on BEOID: 46 recordings to train on, 12 to test on, 34 classes.

Command:   tal-jax train --config beoid_rsmp --data DIR --workdir runs/beoid_rsmp
Hardware:  to be measured on a GPU
Time:      to be measured
Result:    ours to be measured: I3D features could not be fetched where this is developed. The
           command above ends with the table, and leaves it in evaluation.json of the workdir.
           Published by others with one point an instance: LACP (ICCV 2021)
           mAP at .5 42.7, average (.1-.7) 51.8

DIR is a folder as the field's codes lay it out; `tal-jax doctor DIR --config beoid_rsmp` tells what
is found in it. Points are those of its point_labels/ (clicks near the middle). Nobody published
hyper-parameters of this method for this data set: these are THUMOS14's, but for what follows from
how little of a recording its classes fill.
`beoid_rsmp:quick` is a run of two short rounds that only shows that everything works.
"""

import ml_collections

from tal_jax.configs import thumos14_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick"."""
    config = thumos14_rsmp.get_config(arg)
    # A quarter of the classes fill less than 1/36 of their recording; on THUMOS14 it is 1/8.
    config.loss.topk_ratio = 36.0
    return config
