"""Costs of an update: parameters, FLOPs, bytes and memory, read from the compiled program."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from tal_jax import methods
from tal_jax.config import MOST_LEVELS, Config, detector_config
from tal_jax.data import timeline as timelines
from tal_jax.training import update


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a training set; the defaults are about those of THUMOS14."""

    recordings: int = 200
    snippets: int = 750  # of the longest recording
    dim: int = 2048
    classes: int = 20
    points: int = 64  # most points of a recording
    video_classes: int = 3  # most labelled classes of a recording


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of training; those of an update include its share of the search for pseudo labels."""

    parameters: int
    flops: float  # of an update
    bytes_accessed: float  # of an update
    peak_bytes: int  # memory of the training program, the training set included


def timeline_shapes(sizes: Sizes) -> timelines.Timeline:
    """The shapes of a training set's timeline, without its arrays."""
    rows = sizes.recordings

    def shape(*rest, dtype):
        return jax.ShapeDtypeStruct((rows, *rest), dtype)

    points, classes = sizes.points, sizes.video_classes
    return timelines.Timeline(
        features=jax.ShapeDtypeStruct((rows * sizes.snippets, sizes.dim), jnp.float32),
        first=shape(dtype=jnp.int32),
        where=shape(sizes.snippets, dtype=bool),
        point_times=shape(points, dtype=jnp.float32),
        point_class_index=shape(points, dtype=jnp.int32),
        point_where=shape(points, dtype=bool),
        video_classes=shape(classes, dtype=jnp.int32),
        video_class_where=shape(classes, dtype=bool),
        negative_classes=shape(classes, classes, dtype=bool),
        weights=shape(sizes.snippets, dtype=jnp.float32),
        counts=shape(dtype=jnp.int32),
        instances=shape(points, 2, dtype=jnp.float32),
        instance_where=shape(points, dtype=bool),
        known=shape(points, dtype=bool),
        number=shape(dtype=jnp.int32),
        background_times=shape(1, dtype=jnp.float32),
        background_where=shape(1, dtype=bool),
        done=shape(sizes.snippets, dtype=bool),
        labelled=shape(sizes.snippets, dtype=bool),
        # All points may be of one class.
        most_points=timelines.MostPoints(points, points),
    )


def training_costs(config: Config, timeline: timelines.Timeline, num_classes: int) -> Costs:
    """Compiles the training program and reads its costs; of the timeline, shapes are enough.

    XLA counts the body of a loop once. That is corrected here for the loop over updates and for the
    search's loop over recordings; the loops inside the search, whose length depends on the data,
    remain counted once.
    """
    length, key = config.train.length, jax.random.key(0)
    method, compiled = methods.trainable_of(config), update.compiled_config(config)
    model = method.make_model(config, num_classes)
    timeline = jax.eval_shape(lambda values: values, timeline)
    state = jax.eval_shape(
        lambda key: update.init_state(model, config, timeline.features.shape[-1], key),
        key,
    )
    recordings, updates = timeline.counts.shape[0], config.train.search_every
    run = update.make_run(model, compiled, timelines.Lengths(length, (length,)))
    rows = jax.ShapeDtypeStruct((recordings,), jnp.int32)
    run = run.lower(state, timeline, rows, update.settings_of(config), key, jnp.int32(1)).compile()

    def search_chunk(params, timeline):
        batch = timelines.resample_batch(timeline, length)
        return method.search(model, compiled, params, batch)

    batch = min(config.train.batch_size, recordings)
    rows = jax.eval_shape(lambda t: timelines.take(t, jnp.zeros(batch, jnp.int32)), timeline)
    searching = _costs(jax.jit(search_chunk).lower(state.params, rows).compile())
    # The mean number of different recordings of the updates between two searches.
    visited = recordings * (1 - (1 - batch / recordings) ** updates)
    chunks = math.ceil(visited / batch)

    def of_an_update(name: str) -> float:
        # A method without a search compiles to nothing, which costs nothing.
        whole, part = _costs(run)[name], searching.get(name, 0.0)
        return whole - part + part * chunks / updates

    memory = run.memory_analysis()
    return Costs(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        flops=of_an_update("flops"),
        bytes_accessed=of_an_update("bytes accessed"),
        peak_bytes=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,  # outputs that take the place of arguments
    )


def detector_costs(
    config: Config, timeline: timelines.Timeline, num_recordings: int, num_classes: int
) -> Costs:
    """`training_costs` of the second stage, with as many levels as it may get.

    Args:
      config: of the run.
      timeline: of a round, or its shapes.
      num_recordings: of the training set; the timelines of a round may be more.
      num_classes: C.
    """
    levels = config.detector.num_levels or MOST_LEVELS
    own = jax.eval_shape(
        lambda values: jax.tree.map(lambda array: array[:num_recordings], values),
        timelines.with_features(timeline, None),
    )
    snippets, dim = timeline.features.shape
    components = min(config.detector.components, dim)
    features = jax.ShapeDtypeStruct((snippets, components), jnp.float32)
    own = timelines.with_features(own, features)
    return training_costs(detector_config(config, levels), own, num_classes)


def _costs(compiled: jax.stages.Compiled) -> dict[str, float]:
    return compiled.cost_analysis() or {}
