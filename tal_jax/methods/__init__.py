"""The methods: what is particular to each, behind functions that all share.

A method is a module with

    SUPERVISION       what it learns from, "points" or "labels"
    WEIGHTS           names of the values in `config.loss` that weigh the loss's parts
    SHOWN             parts of the loss that the line of progress shows, with their names there
    make_model        (config, num_classes) -> network
    no_pseudo_labels  (timeline, num_recordings, num_samples) -> those before the first search
    search            (model, config, params, batch) -> pseudo labels, a row for each recording
    loss              (model, config, params, batch, pseudo, weights, key) -> parts, and "loss"
    read_logits       (model, config, params, features, where) -> what the network says of every
                      snippet of a batch: arrays [B, N, …]
    stream_logits     (model, config, params, windows) -> the same of one recording that is read
                      window by window: host arrays [N, …]
    scores_of         (config, said, where) -> the `state.Scores` that this means

A network has a `reach`: so many snippets on each side are all that one depends on, but for what
`stream_logits` adds up over the recording.

Everything else (batches, updates, checkpoints, rounds, localization, evaluation, the report) is one
for all. A further method takes such a module, its network, its config, and an entry here.
"""

from types import ModuleType

import ml_collections

from tal_jax.methods import hamnet, rsmp

METHODS: dict[str, ModuleType] = {"rsmp": rsmp, "hamnet": hamnet}


def method_of(config: ml_collections.ConfigDict) -> ModuleType:
    """The method of a config."""
    return METHODS[config.method]
