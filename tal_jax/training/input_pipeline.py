"""The input pipeline: features on the device, or read block by block where they do not fit.

Both give bitwise the same network. A block of updates needs few recordings, and which ones is
known in advance, so a thread reads the next block's files while a block computes.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tal_jax.config import Config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.recordings import Recording
from tal_jax.methods import Metrics
from tal_jax.training import sharding, update
from tal_jax.training.update import TrainState

# (state, number of updates made, blocks to make) -> state and the means over the new updates.
Advance = Callable[[TrainState, int, int], tuple[TrainState, Metrics]]

# Features that need more of the device's memory are streamed: the rest is for the network.
_RESIDENT_SHARE = 0.6


# --- which way ---


def streams(config: Config, recordings: Sequence[Recording]) -> bool:
    """Whether the features of training recordings stay in their files, by `train.features`."""
    if config.train.features == "auto":
        return num_bytes(config, recordings) > _RESIDENT_SHARE * _device_bytes()
    return config.train.features == "streamed"


def num_bytes(config: Config, recordings: Sequence[Recording]) -> int:
    """Memory that the features of recordings take as they are packed."""
    dtype = packing.feature_dtype(recordings, config.model.precision)
    dim = recordings[0].features.shape[1]
    return sum(packing.snippet_counts(recordings)) * dim * dtype.itemsize


def _device_bytes() -> int:
    """Memory of the device, or of the machine where the device has none of its own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- training ---


def open_pipeline(
    model: Any,
    config: Config,
    timeline: timelines.Timeline,
    recordings: Sequence[Recording],
    lengths: timelines.Lengths,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> contextlib.AbstractContextManager[Advance]:
    """A context that yields the `Advance` of a round with this key.

    Args:
      model: the network.
      config: of the run.
      timeline: with features on the device, or on the host without features.
      recordings: that the timeline is made of, once or several times one after the other.
      lengths: see `update.make_block`.
      key: of the round.
      mesh: of the devices.

    Raises:
      InputError: from `Advance`, if features that are read from files hold NaN or infinity, or
        cannot be read any more.
    """
    if timeline.features is None:
        return _streamed(model, config, timeline, recordings, lengths, key, mesh)
    return _resident(model, config, timeline, lengths, key, mesh)


@contextlib.contextmanager
def _resident(model, config, timeline, lengths, key, mesh) -> Iterator[Advance]:
    """Features on the device, each of which gets the whole timeline: one call for all blocks."""
    run = update.make_run(model, update.compiled_config(config), lengths, mesh)
    given = timeline, packing.rows_to_draw(timeline, lengths), update.settings_of(config), key
    given = sharding.replicate(given, mesh)

    def advance(state, step, num_blocks):
        del step  # part of the state
        num_blocks = sharding.replicate(np.int32(num_blocks), mesh)
        return run(state, *given, num_blocks)

    yield advance


@contextlib.contextmanager
def _streamed(model, config, timeline, recordings, lengths, key, mesh) -> Iterator[Advance]:
    """Features that stay in their files: those of two blocks at most are on the device.

    A thread reads the next block's while a block computes; it ends with the context. Each device
    reads the recordings of its own part of the batches only.
    """
    compiled, every = update.compiled_config(config), config.train.search_every
    precision = config.model.precision
    run = _make_block(model, compiled, lengths, mesh)
    starts = jnp.arange(0, config.train.steps, every, dtype=jnp.int32)
    drawn_from = jnp.asarray(packing.rows_to_draw(timeline, lengths))
    rows = np.asarray(_rows_of_blocks(key, starts, drawn_from, compiled))
    # [blocks, U, B] as [blocks, shards, U, B of a shard]: each shard reads its own rows.
    rows = np.stack(np.split(rows, sharding.num_shards(mesh), axis=-1), axis=1)
    # One shape for all blocks of the round, so that they share a program.
    num_chosen = min(len(timeline.counts), rows[0, 0].size)
    num_rows = packing.spacious(
        max(_num_snippets(recordings, shard) for block in rows for shard in block)
    )
    settings, key = sharding.replicate((update.settings_of(config), key), mesh)

    def load_shard(rows):
        chosen, places = np.unique(rows, return_inverse=True)
        chosen = np.pad(chosen, (0, num_chosen - chosen.size), mode="edge")
        block = _read_rows(timeline, recordings, chosen, num_rows, precision)
        return block, places.reshape(rows.shape).astype(np.int32)

    def load(start, before):
        shards = [load_shard(rows[start // every, shard]) for shard in sharding.local_shards(mesh)]
        block = jax.tree.map(lambda *parts: np.concatenate(parts), *(shard[0] for shard in shards))
        places = np.concatenate([shard[1] for shard in shards], axis=1)
        # Only now is there room for it: a block computes, and this one is the next.
        jax.block_until_ready(before)
        return sharding.split(block, mesh), sharding.split(places, mesh, axis=1)

    with futures.ThreadPoolExecutor(max_workers=1) as reader:
        awaited: dict[int, futures.Future] = {}  # by the block's first update; at most one
        before = None  # metrics of the last block: ready when it is done

        def advance(state, step, num_blocks):
            nonlocal before
            totals = None
            for start in range(step, step + num_blocks * every, every):
                if start not in awaited:
                    awaited[start] = reader.submit(load, start, before)
                block, places = awaited.pop(start).result()
                if start + every < config.train.steps:
                    awaited[start + every] = reader.submit(load, start + every, before)
                state, before = run(state, block, places, settings, key)
                totals = before if totals is None else jax.tree.map(jnp.add, totals, before)
            return state, jax.tree.map(lambda total: total / num_blocks, totals)

        yield advance


@functools.lru_cache(maxsize=8)
def _make_block(model, config, lengths, mesh):
    """The compiled block; the state is donated."""
    block = update.make_block(model, config, lengths, mesh, split=True)
    return jax.jit(block, donate_argnums=0)


@functools.partial(jax.jit, static_argnames="config")
def _rows_of_blocks(key, starts, rows, config):
    """`[len(starts), U, B]`, what `choose_rows` gives for each block."""
    return jax.lax.map(lambda step: update.choose_rows(key, step, rows, config), starts)


# --- features of some recordings ---


def take(timeline: timelines.Timeline, rows: Any) -> timelines.Timeline:
    """`timelines.take` for a timeline on the device: one program instead of one for each array."""
    rest = _take(timelines.with_features(timeline, None), rows)
    return timelines.with_features(rest, timeline.features)


_take = jax.jit(timelines.take)


def chunks(
    timeline: timelines.Timeline, recordings: Sequence[Recording], precision: str
) -> Callable[[np.ndarray], timelines.Timeline]:
    """`chunk_of(rows)`: rows `[B]` of a timeline with features, from the device or from files.

    Equally many rows have features of the same shape. Files are read, and fail, as in
    `read_features`.
    """
    mesh = sharding.local_mesh()
    if timeline.features is not None:
        placed = sharding.replicate(timeline, mesh)
        every = np.arange(len(timeline.counts))
        # All of them are no program of their own.
        return lambda rows: placed if np.array_equal(rows, every) else take(placed, rows)
    longest_first = sorted(packing.snippet_counts(recordings), reverse=True)

    def chunk_of(rows):
        num_rows = packing.spacious(sum(longest_first[: len(rows)]))
        return sharding.replicate(_read_rows(timeline, recordings, rows, num_rows, precision), mesh)

    return chunk_of


def _read_rows(timeline, recordings, rows, num_rows, precision):
    """The rows of a timeline without features, on the host, with features `[num_rows, D]`."""
    # Timelines of the same recordings may follow each other; they share its features.
    own, places = np.unique(rows % len(recordings), return_inverse=True)
    wanted = [recordings[index] for index in own]
    ends = np.cumsum(packing.snippet_counts(wanted), dtype=np.int32)
    return dataclasses.replace(
        timelines.take(timeline, rows),
        features=packing.pack_features(wanted, num_rows=num_rows, precision=precision),
        first=np.concatenate([[0], ends[:-1]]).astype(np.int32)[places],
    )


def _num_snippets(recordings, rows):
    """Snippets of the recordings among the rows of their timelines, each counted once."""
    own = np.unique(rows % len(recordings))
    return sum(len(recordings[index].features) for index in own)
