"""HAM-Net (video-level labels) on THUMOS14 with I3D features (2048-d, 25 fps, 16 frames a snippet).

Command:   tal-jax train --config thumos14_hamnet --data DIR --workdir runs/thumos14_hamnet
Hardware:  not yet measured on a GPU
Time:      not yet measured
Result:    not yet measured, for lack of the features. Published for this method (Islam, Long and
           Radke, AAAI 2021): mAP .1-.7 65.9 59.6 52.2 43.1 32.6 21.9 12.5, average 41.1

The hyper-parameters are the published ones: 100 epochs of 200 recordings in batches of 20, one
random snippet from each of 500 equal parts of a recording; at test the full length. DIR is a folder
as for `thumos14_rsmp`; points are not needed. `thumos14_hamnet:document` is the document's variant,
`thumos14_hamnet:quick` a short run that checks the installation.
"""

import ml_collections

from tal_jax.config import (
    HAMNET_SWITCHES,
    folder_config,
    hamnet_config,
    hamnet_variant,
    parse_switches,
)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick", "document" or "mended", comma-separated."""
    switches = parse_switches(arg, known=HAMNET_SWITCHES)
    config = hamnet_config(hamnet_variant(switches))
    config.data = folder_config()
    config.data.points = "none"
    if "quick" in switches:
        config.train.steps = config.train.log_every = config.train.checkpoint_every = 20
    return config
