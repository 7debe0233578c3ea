"""The compiled part of training: updates, and searches for pseudo labels, of any method."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tal_jax import methods
from tal_jax.config import Config
from tal_jax.data import timeline as timelines
from tal_jax.methods import Metrics
from tal_jax.ops import _platform
from tal_jax.training import sharding

if TYPE_CHECKING:
    import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer, and the number of updates made."""

    params: Any
    opt_state: Any
    step: jax.Array  # [] int32


# Settings of `config.train` that are traced, like the weights of the loss's parts.
_RATES = ("learning_rate", "l2")


def make_optimizer(settings: Metrics) -> "optax.GradientTransformation":
    """Adam with L2 added to the gradient, before the moments.

    With `steps` the learning rate falls to 0 in a half cosine over as many updates.
    """
    import optax  # what only predicts does without

    rate = settings["learning_rate"]

    def falling(count: Any) -> jax.Array:
        share = jnp.minimum(count / settings["steps"], 1.0)
        return rate * 0.5 * (1.0 + jnp.cos(jnp.pi * share))

    schedule = falling if "steps" in settings else rate
    return optax.chain(optax.add_decayed_weights(settings["l2"]), optax.adam(schedule))


def init_state(
    model: Any, config: Config, dim: int, key: jax.Array, params: Any = None
) -> TrainState:
    """The state that a round starts from, on features of `dim`; `params` for a warm start."""
    if params is None:
        params = init_params(model, dim, key)
    opt_state = make_optimizer(settings_of(config)).init(params)
    return TrainState(params, opt_state, step=jnp.zeros((), jnp.int32))


def init_params(model: Any, dim: int, key: jax.Array) -> Any:
    """The parameters of a network for features of `dim`, before any training."""
    features = jnp.zeros((1, 1, dim), jnp.float32)
    return _make_init(model)(key, features, where=jnp.ones((1, 1), bool))["params"]


@functools.lru_cache(maxsize=8)
def _make_init(model: Any) -> Callable:
    """The compiled initialisation, kept, since every round and every seed begins with it."""
    return jax.jit(model.init)


def settings_of(config: Config) -> Metrics:
    """The numbers that may change without another compilation, as arrays."""
    names = methods.trainable_of(config).loss_weights
    numbers = {name: config.loss[name] for name in names}
    numbers |= {name: config.train[name] for name in _RATES}
    if config.train.schedule == "cosine":
        numbers["steps"] = config.train.steps
    # Host arrays that are placed, not converted: that would compile a program for each call.
    return jax.device_put({name: np.float32(number) for name, number in numbers.items()})


def compiled_config(config: Config) -> Config:
    """What compiled programs depend on: runs that differ elsewhere share them."""
    values = config.to_dict()
    sections = ("method", "model", "seeds", "loss")
    kept = {name: values[name] for name in sections if name in values}
    for name in methods.trainable_of(config).loss_weights:
        del kept["loss"][name]
    train = ("batch_size", "search_every", "jitter", "nearest", "max_speed")
    kept["train"] = {name: values["train"][name] for name in train}
    return ml_collections.FrozenConfigDict(kept)


def choose_rows(key: jax.Array, step: jax.Array, rows: jax.Array, config: Config) -> jax.Array:
    """The recordings that each update of a block learns from, drawn without replacement.

    Args:
      key: of the round.
      step: number of updates before the block.
      rows: `[S]` the rows to draw from, from `packing.rows_to_draw`.
      config: from `compiled_config`.

    Returns:
      `[U, B]` int32, U being `search_every`.
    """

    def one_update(step):
        choose_key = _keys(key, step)[0]
        return rows[jax.random.permutation(choose_key, len(rows))[: config.train.batch_size]]

    return jax.vmap(one_update)(step + jnp.arange(config.train.search_every))


def _search_batches() -> int:
    """How many batches are searched at once.

    The loops of a search are as long as its longest recording needs. On a CPU they cost by their
    contents, so few recordings should wait for the longest; on an accelerator by their steps.
    """
    return 1 if jax.default_backend() == "cpu" else 8


def _keys(key: jax.Array, step: jax.Array) -> jax.Array:
    """An update's own keys: to choose recordings, to move samples, for dropout."""
    return jax.random.split(jax.random.fold_in(key, step), 3)


# --- the compiled programs ---


@functools.lru_cache(maxsize=8)
def make_run(
    model: Any, config: Config, lengths: timelines.Lengths, mesh: Mesh | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Compiles training on features that are on every device.

    Args:
      model: the network.
      config: from `compiled_config`.
      lengths: see `make_block`.
      mesh: from `sharding.make_mesh`; the results do not depend on it but for rounding.

    Returns:
      `run(state, timeline, rows, settings, key, num_blocks) -> (state, metrics)`: `num_blocks`
      (traced) times a search and `search_every` updates, with `rows` from `packing.rows_to_draw`,
      the numbers from `settings_of` and the key of the round. The state is donated; the metrics are
      means over all these updates.
    """
    return jax.jit(_run_of(model, config, lengths, mesh), donate_argnums=0)


@functools.lru_cache(maxsize=8)
def make_many_runs(
    model: Any, config: Config, lengths: timelines.Lengths, *, share_features: bool
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Compiles training of several members at once, each with its own seed, points and settings.

    What `make_run` returns, with a leading axis of members on every argument and result but
    `num_blocks`, and but the timeline's features where `share_features` is True.
    """
    run = _run_of(model, config, lengths)

    def one(state, timeline, features, rows, settings, key, num_blocks):
        timeline = timelines.with_features(timeline, features)
        return run(state, timeline, rows, settings, key, num_blocks)

    members = jax.vmap(one, in_axes=(0, 0, None if share_features else 0, 0, 0, 0, None))

    def many(state, timeline, rows, settings, key, num_blocks):
        bare, features = timelines.with_features(timeline, None), timeline.features
        return members(state, bare, features, rows, settings, key, num_blocks)

    return jax.jit(many, donate_argnums=0)


def _run_of(model, config, lengths, mesh=None):
    """The function that `make_run` compiles."""
    block = make_block(model, config, lengths, mesh)

    @jax.jit  # traced once for its shapes and for the loop
    def one_block(state, timeline, rows, settings, key):
        chosen = choose_rows(key, state.step, rows, config)
        return block(state, timeline, chosen, settings, key)

    def run(state, timeline, rows, settings, key, num_blocks):
        given = timeline, rows, settings, key

        def add_block(_, carry):
            state, totals = carry
            state, metrics = one_block(state, *given)
            return state, jax.tree.map(jnp.add, totals, metrics)

        _, metrics = jax.eval_shape(one_block, state, *given)
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), metrics)
        state, totals = jax.lax.fori_loop(0, num_blocks, add_block, (state, zeros))
        return state, jax.tree.map(lambda total: total / num_blocks, totals)

    return run


def make_block(
    model: Any,
    config: Config,
    lengths: timelines.Lengths,
    mesh: Mesh | None = None,
    *,
    split: bool = False,
) -> Callable[
    [TrainState, timelines.Timeline, jax.Array, Metrics, jax.Array], tuple[TrainState, Metrics]
]:
    """A block of training: one search for pseudo labels, then `search_every` updates.

    Only the recordings of these updates are searched, each once, so the cost of a search does not
    grow with the data set.

    A search covers whole timelines. An update reads a window of each that is longer, drawn anew.

    Args:
      model: the network.
      config: from `compiled_config`.
      lengths: what the update's windows and whole timelines are padded to. Of timelines that do not
        fit into the longest, as many places are read.
      mesh: see `make_run`.
      split: each shard of the mesh has its own timeline, and its part of `rows` indexes into that.

    Returns:
      `block(state, timeline, rows, settings, key) -> (state, metrics)`, to be compiled, with `rows`
      from `choose_rows`; the metrics are means over the updates.
    """
    import optax

    method, search_batches = methods.trainable_of(config), _search_batches()

    def loss_fn(params, batch, pseudo, settings, key):
        parts = method.loss(model, config, params, batch, pseudo, settings, key)
        return parts["loss"], parts

    def update(state, batch, pseudo, settings, key):
        gradients, parts = jax.grad(loss_fn, has_aux=True)(
            state.params, batch, pseudo, settings, key
        )
        optimizer = make_optimizer(settings)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = TrainState(params, opt_state, state.step + 1)
        return sharding.constrain_layers(state, mesh), parts

    def search(params, timeline, rows, wanted):
        """Pseudo labels of the recordings among `rows`, and the place of each row among them."""
        size = min(rows.shape[1] * search_batches, rows.size)
        num_chunks = -(-min(rows.size, timeline.counts.shape[0]) // size)
        chosen, places = jnp.unique(
            rows, size=num_chunks * size, fill_value=rows[0, 0], return_inverse=True
        )
        num_chosen = places.max() + 1
        chosen, places, ends = _by_length(
            chosen, places, timeline.counts, num_chosen, lengths.whole
        )
        found = method.no_pseudo_labels(timeline, chosen.size, lengths.whole[-1])

        def search_length(found, length, begin, end, size):
            def search_chunk(index, found):
                begins = begin + index * size
                chunk = jax.lax.dynamic_slice_in_dim(chosen, begins, size)
                batch = timelines.resample_batch(timelines.take(timeline, chunk), length)
                new = method.search(model, config, params, batch)
                return jax.tree.map(
                    lambda whole, part: jax.lax.dynamic_update_slice(
                        whole, part, (begins, *[0] * (whole.ndim - 1))
                    ),
                    found,
                    new,
                )

            needed = jnp.where(wanted, -(-(end - begin) // size), 0)
            return jax.lax.fori_loop(0, needed, search_chunk, found)

        # From short to long: the last chunk of one length also covers some longer timelines, whose
        # results are wrong, and overwritten by the next length.
        begin = jnp.int32(0)
        for length, end in zip(lengths.whole, ends, strict=True):
            # As much at once as in an update.
            fitting = max(size * lengths.window // length, 1) if lengths.windowed else size
            found = search_length(found, length, begin, end, fitting)
            begin = end
        return found, places

    def read(timeline, rows, keys, window_keys, found, places):
        """A batch, and the pseudo labels of its recordings."""
        own = timelines.take(timeline, rows)
        pseudo = jax.tree.map(lambda values: values[places], found)
        first = None
        if lengths.windowed:
            first = timelines.draw_windows(own.counts, lengths.window, window_keys, own)
            pseudo = pseudo.window(first, lengths.window) if pseudo else pseudo
        batch = timelines.resample_batch(
            own, lengths.window, keys=keys, nearest=config.train.nearest, first=first
        )
        return batch, pseudo

    shard, shards = P(sharding.DATA), P(None, sharding.DATA)
    known = shard if split else P()
    search = sharding.map_shards(search, mesh, (P(), known, shards, P()), (shard, shards))
    read = sharding.map_shards(read, mesh, (known, shard, shard, shard, shard, shard), shard)

    @_platform.known(on_cpu=sharding.on_cpu(mesh))
    def block(state, timeline, rows, settings, key):
        if config.train.max_speed > 1:
            # The same for the search and its updates: pseudo labels are found on this timeline.
            timeline = timelines.at_random_speeds(
                timeline,
                jax.random.fold_in(_keys(key, state.step)[1], 2),
                max_speed=config.train.max_speed,
                longest=lengths.whole[-1],
            )
        # Without pseudo labels there is nothing to search for, nor to compile.
        found, places = (), rows
        if jax.tree.leaves(method.no_pseudo_labels(timeline, 1, lengths.whole[-1])):
            found, places = search(state.params, timeline, rows, state.step > 0)

        def one_update(state, given):
            rows, places = given
            _, sample_key, dropout_key = _keys(key, state.step)
            keys = jax.random.split(sample_key, rows.size) if config.train.jitter else None
            window_keys = None
            if lengths.windowed:
                window_keys = jax.random.split(jax.random.fold_in(sample_key, 1), rows.size)
            batch, pseudo = read(timeline, rows, keys, window_keys, found, places)
            return update(state, batch, pseudo, settings, dropout_key)

        state, metrics = jax.lax.scan(one_update, state, (rows, places))
        return state, jax.tree.map(lambda values: values.mean(axis=0), metrics)

    return block


def _by_length(chosen, places, counts, num_chosen, lengths):
    """Sorts rows `[M]`, of which `num_chosen` are valid, by the length that they are padded to.

    Also returns the places among them in the new order, and how many rows there are up to each
    length. `counts` `[R]` are the snippets of the timelines.
    """
    if len(lengths) == 1:
        return chosen, places, [num_chosen]
    size = chosen.size
    kind = jnp.searchsorted(jnp.asarray(lengths, jnp.int32), counts[chosen], side="left")
    kind = jnp.where(jnp.arange(size, dtype=jnp.int32) < num_chosen, kind, len(lengths))
    order = jnp.argsort(kind, stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(size, dtype=order.dtype))
    ends = [(kind <= index).sum(dtype=jnp.int32) for index in range(len(lengths))]
    return chosen[order], rank[places], ends
