"""HAM-Net (video-level labels) on the embedded smartwatch recordings.

Command:   tal-jax train --config watch_hamnet:document --workdir runs/watch_hamnet
Hardware:  2 cores of an Intel Xeon at 2.5 GHz, no GPU
Time:      52 s of updates a seed on one core
Result:    average mAP (.1-.7) 56.2 +- 6.4 over 5 seeds; mended 46.1 +- 6.9, published
           21.9 +- 5.2

The same as `tal-jax quickstart --method hamnet`. `watch_hamnet` is the published variant,
`watch_hamnet:mended` the one with its guide loss mended, `watch_hamnet:quick` a short run that
checks the installation.
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
    config.data = data_config("watch", shuffles=2, stride_s=0.5, window_s=1.5)
    config.sampling.tau_s = 12.0
    config.model.widths = (64, 64)
    config.model.attention_width = 32
    config.model.dropout = 0.2
    # The shortest bouts last 1.5 s in streams of one to four minutes.
    config.loss.topk_ratio = 30.0 if document else 10.0
    config.train.steps = 400
    config.train.batch_size = 14
    config.train.learning_rate = 1e-3
    config.train.l2 = 1e-4
    # No stream is longer: every snippet is used, at a fixed position.
    config.train.length = 640
    config.train.jitter = config.train.nearest = False
    config.train.search_every = 20
    config.train.log_every = 100
    config.train.checkpoint_every = 400
    config.localization.class_threshold = 0.0
    if not document:
        # Between adjacent bouts the attention stays high, but the logits of a class drop.
        config.localization.thresholds = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)

    if "quick" in switches:
        config.train.steps = config.train.log_every = config.train.checkpoint_every = 60
    return config
