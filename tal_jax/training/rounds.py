"""One round of training: compiled blocks in a plain loop that can be stopped anywhere."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from tal_jax import methods
from tal_jax.data.recordings import Recording
from tal_jax.data.timeline import Lengths, Timeline
from tal_jax.training import (
    checkpoints,
    input_pipeline,
    metrics_log,
    processes,
    sharding,
    update,
)
from tal_jax.training.state import TrainState


def train_round(
    model: Any,
    config: ml_collections.FrozenConfigDict,
    timeline: Timeline,
    recordings: Sequence[Recording],
    *,
    number: int,
    lengths: Lengths,
    workdir: Path,
    params: Any = None,
    criterion: Callable[[Any], float] | None = None,
    report: Callable[[str], None] = print,
) -> TrainState:
    """Trains one round, or what is left of it.

    Randomness comes from the seed, the round and the number of updates made, so a round that is
    stopped and continued ends with bitwise the same parameters.

    Args:
      model: the network.
      config: the run's config.
      timeline: the round's training data; without features where these do not fit on the device.
      recordings: that it is made of.
      number: of the round, from 0.
      lengths: of windows and of longer timelines, see `steps.make_block`.
      workdir: the run's work directory.
      params: to start from; None starts fresh.
      criterion: maps parameters to the score that the best checkpoint maximises.
      report: prints a line.

    Returns:
      On the host, the state after the last update, or the best one if `config.train.patience` is
      set.

    Raises:
      ValueError: if the loss is no longer finite; the last checkpoint stays.
    """
    dim = recordings[0].features.shape[1]
    key, state = begin_round(model, config, dim, number=number, params=params)
    state = jax.device_get(state)
    mesh = sharding.make_mesh(config.train.batch_size, layer_shards=config.train.layer_shards)
    feed = (
        input_pipeline.streamed if timeline.recordings.features is None else input_pipeline.resident
    )
    fed = feed(model, config, timeline, recordings, lengths=lengths, key=key, mesh=mesh)
    log = metrics_log.MetricsLog(workdir / "metrics.jsonl")
    train = config.train
    folder = checkpoint_folder(workdir, number)
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(fed)
        if processes.is_first():
            keep_best = criterion is not None
            saved = stack.enter_context(checkpoints.open_checkpoints(folder, keep_best=keep_best))

        def restore(which=checkpoints.LATEST):
            nonlocal state
            state = saved.restore(state, which=which) or state
            return int(state.step), saved.latest_metrics()

        def save(step, state, measured):
            saved.save(step, state, metrics=measured)

        step, measured = processes.once(restore)
        state = sharding.place_layers(processes.share_arrays(state), mesh)
        rate = Rate(step)
        best, waited = measured.get("best", -math.inf), measured.get("waited", 0)

        def goes_on():
            return step < train.steps and not 0 < train.patience <= waited

        if goes_on():
            processes.once(log.rewind, number, step)
        while goes_on():
            begun, step = step, next_stop(step, train)
            state, metrics = advance(state, begun, (step - begun) // train.search_every)
            values = {name: float(value) for name, value in metrics.items()}
            check_loss(values, config, number=number, updates=(begun, step), folder=folder)
            if step % train.log_every == 0 or step >= train.steps:
                values = logged(values) | rate.at(step, train.steps)
                line = {"round": number, "step": step, **values}
                processes.once(lambda line=line: log.append(**line))
                report(progress_line(values, config, number=number, step=step))
            if step % train.checkpoint_every == 0 or step >= train.steps:
                measured = None
                host = sharding.fetch(state, mesh)
                if criterion is not None:
                    score = criterion(host.params)
                    best, waited = max(best, score), 0 if score > best else waited + 1
                    # All that stopping depends on, so that a resumed round stops at the same step.
                    measured = {"criterion": score, "best": best, "waited": waited}
                processes.once(save, step, host, measured)
        if step < train.steps:
            report(f"round {number}: no better on the held-out points; stopped early")
        if train.patience:
            state = sharding.fetch(state, mesh)
            processes.once(restore, checkpoints.BEST)
            return processes.share_arrays(state)
    return sharding.fetch(state, mesh)


def begin_round(
    model: Any,
    config: ml_collections.FrozenConfigDict,
    dim: int,
    *,
    number: int,
    params: Any = None,
) -> tuple[jax.Array, TrainState]:
    """The key of a round, and the state that it starts from on features of `dim`."""
    key, init_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), number))
    return key, update.init_state(model, config, dim, init_key, params)


def checkpoint_folder(workdir: Path, number: int) -> Path:
    """Where a round keeps its checkpoints."""
    return workdir / f"round_{number}" / "checkpoints"


def next_stop(step: int, train: ml_collections.FrozenConfigDict) -> int:
    """Up to which update the device goes on by itself: where there is something to write."""
    return min(
        train.steps,
        *((step // every + 1) * every for every in (train.log_every, train.checkpoint_every)),
    )


def check_loss(
    values: dict[str, float],
    config: ml_collections.FrozenConfigDict,
    *,
    number: int,
    updates: tuple[int, int],
    folder: Path,
) -> None:
    """Raises a ValueError that tells where to go on from, unless the loss is finite."""
    if not math.isfinite(values["loss"]):
        begun, step = updates
        raise ValueError(
            f"round {number}: the loss became {values['loss']} within updates "
            f"{begun}–{step}; the last good state is in {folder}. A lower "
            f"train.learning_rate (now {config.train.learning_rate:g}) usually helps"
        )


class Rate:
    """How fast training is, from now on."""

    def __init__(self, step: int):
        self._first, self._begin = step, time.monotonic()

    def at(self, step: int, steps: int) -> dict[str, float]:
        """Updates a second so far, and the seconds that are left, as they are logged."""
        rate = (step - self._first) / (time.monotonic() - self._begin)
        return {"steps_per_s": rate, "eta_s": (steps - step) / rate}


def progress_line(
    values: dict[str, float], config: ml_collections.FrozenConfigDict, *, number: int, step: int
) -> str:
    """A line of progress from what `logged` and `Rate.at` give."""
    return metrics_log.progress_line(
        values,
        methods.method_of(config).SHOWN,
        round_number=number,
        rounds=config.train.rounds,
        step=step,
        steps=config.train.steps,
    )


def logged(values: dict[str, float]) -> dict[str, float]:
    """Names of the log: `loss` for the total, `loss_…` for its parts; counts keep their names."""
    plain = {name for name in values if name == "loss" or name.endswith("overflow")}
    return {name if name in plain else f"loss_{name}": value for name, value in values.items()}
