"""The compiled part of training: updates and searches for pseudo labels, of any method."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from tal_jax.training import methods
from tal_jax.training import timeline as timelines
from tal_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam with L2 added to the gradient, before the moments."""
    return optax.chain(
        optax.add_decayed_weights(config.train.l2), optax.adam(config.train.learning_rate)
    )


def init_state(
    model: Any,
    config: ml_collections.ConfigDict,
    timeline: timelines.Timeline,
    num_samples: int,
    key: jax.Array,
    params: Any = None,
) -> TrainState:
    """A fresh state for a round; `params` are given for a warm start."""
    if params is None:
        features = jnp.zeros((1, 1, timeline.recordings.features.shape[-1]), jnp.float32)
        params = jax.jit(model.init)(key, features, where=jnp.ones((1, 1), bool))["params"]
    return TrainState(
        params=params,
        opt_state=make_optimizer(config).init(params),
        step=jnp.zeros((), jnp.int32),
        pseudo=methods.method_of(config).no_pseudo_labels(timeline, num_samples),
    )


def loss_weights(config: ml_collections.ConfigDict) -> Metrics:
    """The weights of the loss parts as arrays, which change without another compilation."""
    names = methods.method_of(config).WEIGHTS
    return {name: jnp.asarray(config.loss[name], jnp.float32) for name in names}


def compiled_config(config: ml_collections.ConfigDict) -> ml_collections.FrozenConfigDict:
    """What compiled programs depend on: runs that differ elsewhere share them."""
    values = config.to_dict()
    sections = ("method", "model", "seeds", "loss", "localization")
    kept = {name: values[name] for name in sections if name in values}
    for name in methods.method_of(config).WEIGHTS:
        del kept["loss"][name]
    train = ("batch_size", "learning_rate", "l2", "search_every", "jitter")
    kept["train"] = {name: values["train"][name] for name in train}
    return ml_collections.FrozenConfigDict(kept)


# --- the compiled block ---


@functools.lru_cache(maxsize=8)
def make_block(
    model: Any, config: ml_collections.FrozenConfigDict, num_samples: int
) -> Callable[[TrainState, timelines.Timeline, Metrics, jax.Array], tuple[TrainState, Metrics]]:
    """Compiles `search_every` updates followed by one search.

    Args:
      model: the network.
      config: from `compiled_config`.
      num_samples: padded length of the timeline.

    Returns:
      `block(state, timeline, weights, key) -> (state, metrics)` with the weights from
      `loss_weights`; the state is donated, the metrics are means over the block's updates.
    """
    method, optimizer = methods.method_of(config), make_optimizer(config)

    def loss_fn(params, batch, pseudo, weights, key):
        parts = method.loss(model, config, params, batch, pseudo, weights, key)
        return parts["loss"], parts

    def update(state, timeline, weights, key):
        key = jax.random.fold_in(key, state.step)
        choose_key, sample_key, dropout_key = jax.random.split(key, 3)
        num_recordings = timeline.counts.shape[0]
        rows = jax.random.permutation(choose_key, num_recordings)[: config.train.batch_size]
        batch = timelines.resample_batch(
            timelines.take(timeline, rows),
            num_samples,
            key=sample_key if config.train.jitter else None,
        )
        pseudo = jax.tree.map(lambda x: x[rows] if x.ndim else x, state.pseudo)
        gradients, parts = jax.grad(loss_fn, has_aux=True)(
            state.params, batch, pseudo, weights, dropout_key
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1, state.pseudo), parts

    def block(state, timeline, weights, key):
        state, metrics = jax.lax.scan(
            lambda state, _: update(state, timeline, weights, key),
            state,
            length=config.train.search_every,
        )
        pseudo = method.search(model, config, state.params, timeline, num_samples)
        state = TrainState(state.params, state.opt_state, state.step, pseudo)
        return state, jax.tree.map(jnp.mean, metrics)

    return jax.jit(block, donate_argnums=0)
