"""RSMP (point-supervised) on BEOID: 46 training and 12 test recordings, 34 classes.

Command:   tal-jax train --config beoid_rsmp --data DIR --workdir runs/beoid_rsmp
Hardware:  not yet measured on a GPU
Time:      not yet measured
Result:    not yet measured here, for lack of the I3D features. The command prints the table and
           writes it to evaluation.json in the work directory.
           Published by others with one point per instance: LACP (ICCV 2021)
           mAP at .5 42.7, average (.1-.7) 51.8

DIR is a folder in a layout of public codebases; `tal-jax doctor DIR --config beoid_rsmp` validates
it. Points come from its point_labels/ (clicks near the middle). No hyper-parameters of this method
were published for this data set: these are those of THUMOS14, except what depends on the lengths of
actions. `beoid_rsmp:quick` is a run of two short rounds that checks the installation.
"""

import ml_collections

from tal_jax.configs import thumos14_rsmp


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick"."""
    config = thumos14_rsmp.get_config(arg)
    # A quarter of the classes cover less than 1/36 of their recording; on THUMOS14, 1/8.
    config.loss.topk_ratio = 36.0
    return config
