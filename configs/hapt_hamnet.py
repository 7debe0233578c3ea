"""HAM-Net (video-level labels) on HAPT, with the classes of 30 to 45 s windows as labels.

Command:   tal-jax train --config hapt_hamnet:document --data DIR --workdir runs/hapt_hamnet
Hardware:  2 cores of an Intel Xeon at 2.5 GHz, no GPU
Time:      65 s of updates a seed on one core
Result:    average mAP (.1-.7) 46.4 +- 4.8 over 5 seeds; the mended variant 32.7 +- 5.8

DIR as for `hapt_rsmp`. Whole recordings contain nearly every class, so that their labels would not
be informative; training recordings are cut into windows. `hapt_hamnet` is the published variant,
`hapt_hamnet:mended` the one with its guide loss mended, `hapt_hamnet:quick` a short run that checks
the installation.
"""

import ml_collections

from tal_jax.config import (
    HAMNET_SWITCHES,
    data_config,
    hamnet_config,
    hamnet_variant,
    parse_switches,
)


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the config; `arg` may be "quick", "document" or "mended", comma-separated."""
    switches = parse_switches(arg, known=HAMNET_SWITCHES)
    config = hamnet_config(hamnet_variant(switches))
    document = config.model.variant == "document"
    config.data = data_config("hapt", stride_s=0.5, window_s=1.5, cut_s=(30.0, 45.0))
    config.sampling.tau_s = 12.0
    config.model.widths = (128, 128)
    config.model.attention_width = 64
    config.model.dropout = 0.2
    # There is hardly any background here: only snippets with a very low actionness are hidden.
    config.model.low = 0.05
    config.model.high = 0.5
    # A transition covers about 10 % of a window; the top k should be a small part of it.
    config.loss.topk_ratio = 40.0 if document else 20.0
    config.train.steps = 400
    config.train.batch_size = 32
    config.train.learning_rate = 1e-3
    config.train.l2 = 1e-4
    # No window is longer: every snippet is used, at a fixed position.
    config.train.length = 144
    config.train.jitter = config.train.nearest = False
    config.train.search_every = 20
    config.train.log_every = 100
    config.train.checkpoint_every = 400
    # A test recording contains nearly all twelve classes, so a softmax cannot select them.
    config.localization.class_threshold = 0.0
    if not document:
        # Between adjacent actions the attention stays high, but the logits of a class drop.
        config.localization.thresholds = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)

    if "quick" in switches:
        config.train.steps = config.train.log_every = config.train.checkpoint_every = 60
    return config
