"""HAM-Net on ActivityNet 1.2 with I3D features (2048-d, 25 fps, 16 frames a snippet).

Command:   tal-jax train --config activitynet12_hamnet --data DIR --workdir runs/anet12_hamnet
Hardware:  to be measured on a GPU
Time:      to be measured
Result:    to be measured with the features. Published for this method (Islam, Long and Radke, AAAI
           2021): mAP at .5 / .75 / .95 41.0 / 24.8 / 5.3, average (.5-.95) 25.1

The hyper-parameters are the published ones: 20 epochs of 4,819 recordings, 20 an update; attention
and logits averaged over 17 snippets. DIR is a folder as for `activitynet12_rsmp`; points
are not needed. `activitynet12_hamnet:document` is the document's variant,
`activitynet12_hamnet:quick` a short run that only shows that everything works.
"""

import ml_collections

from tal_jax.config import folder_config, hamnet_config, parse_switches


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The settings of the run; `arg` may be "quick", "document" or both with a comma."""
    switches = parse_switches(arg, known=["quick", "document"])
    variant = "document" if "document" in switches else "published"
    config = hamnet_config(variant)
    config.data = folder_config()
    config.data.points = "none"
    config.model.dropout = 0.5
    config.model.smoothing = 17
    config.loss.topk_ratio = 20.0
    if variant == "published":
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
