"""HAM-Net (video-level labels) on ActivityNet 1.2 with I3D features (2048-d, 16 frames at 25 fps).

Command:   tal-jax train --config activitynet12_hamnet --data DIR --workdir runs/anet12_hamnet
Hardware:  not yet measured on a GPU
Time:      not yet measured
Result:    not yet measured, for lack of the features. Published for this method (Islam, Long and
           Radke, AAAI 2021): mAP at .5 / .75 / .95 41.0 / 24.8 / 5.3, average (.5-.95) 25.1

The hyper-parameters are the published ones: 20 epochs of 4,819 recordings in batches of 20;
attention and logits are averaged over 17 snippets. DIR is a folder as for `activitynet12_rsmp`;
points are not needed. `activitynet12_hamnet:document` is the document's variant,
`activitynet12_hamnet:quick` a short run that checks the installation.
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
    config.model.dropout = 0.5
    config.model.smoothing = 17
    config.loss.topk_ratio = 20.0
    if config.model.variant == "published":
        config.loss.lambda_base = config.loss.lambda_hard = 0.125
        config.loss.lambda_soft = config.loss.lambda_semi = 1.0
        config.loss.lambda_sparse, config.loss.lambda_guide = 0.5, 0.1
    config.train.length = 80
    config.train.steps = 4820
    config.train.log_every = 100
    config.train.checkpoint_every = 1000
    config.evaluation.tious = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
    if "quick" in switches:
        config.train.steps = config.train.log_every = config.train.checkpoint_every = 20
    return config
