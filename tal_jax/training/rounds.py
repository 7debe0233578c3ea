"""One round of training: compiled blocks in a plain loop that can be stopped anywhere."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from tal_jax import processes
from tal_jax.data.recordings import Recording
from tal_jax.training import checkpoints, devices, feeding, methods, metrics_log, steps
from tal_jax.training.state import TrainState
from tal_jax.training.timeline import Timeline


def train_round(
    model: Any,
    config: ml_collections.FrozenConfigDict,
    timeline: Timeline,
    recordings: Sequence[Recording],
    *,
    number: int,
    num_samples: int,
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
      num_samples: padded length of the new timeline.
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
    key, init_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), number))
    dim = recordings[0].features.shape[1]
    state = jax.device_get(steps.init_state(model, config, dim, init_key, params))
    mesh = devices.make_mesh(config.train.batch_size, layer_shards=config.train.layer_shards)
    feed = feeding.streamed if timeline.recordings.features is None else feeding.resident
    fed = feed(model, config, timeline, recordings, num_samples=num_samples, key=key, mesh=mesh)
    log = metrics_log.MetricsLog(workdir / "metrics.jsonl")
    train = config.train
    folder = workdir / f"round_{number}" / "checkpoints"
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(fed)
        if processes.is_first():
            keep_best = criterion is not None
            saved = stack.enter_context(checkpoints.open_checkpoints(folder, keep_best=keep_best))

        def restore(which=checkpoints.LATEST):
            nonlocal state
            state = saved.restore(state, which=which) or state
            return int(state.step), saved.latest_metrics()

        step, measured = processes.once(restore)
        state = devices.place_layers(processes.share_arrays(state), mesh)
        first, begin = step, time.monotonic()
        best, waited = measured.get("best", -math.inf), measured.get("waited", 0)

        def goes_on():
            return step < train.steps and not 0 < train.patience <= waited

        if goes_on():
            processes.once(log.rewind, number, step)
        while goes_on():
            begun, step = step, _next_stop(step, train)
            state, metrics = advance(state, begun, (step - begun) // train.search_every)
            values = {name: float(value) for name, value in metrics.items()}
            if not math.isfinite(values["loss"]):
                raise ValueError(
                    f"round {number}: the loss became {values['loss']} within updates "
                    f"{begun}–{step}; the last good state is in {folder}. A lower "
                    f"train.learning_rate (now {train.learning_rate:g}) usually helps"
                )
            if step % train.log_every == 0 or step >= train.steps:
                rate = (step - first) / (time.monotonic() - begin)
                values = _logged(values) | {
                    "steps_per_s": rate,
                    "eta_s": (train.steps - step) / rate,
                }
                line = {"round": number, "step": step, **values}
                processes.once(lambda line=line: log.append(**line))
                place = dict(round_number=number, rounds=train.rounds, step=step, steps=train.steps)
                shown = methods.method_of(config).SHOWN
                report(metrics_log.progress_line(values, shown, **place))
            if step % train.checkpoint_every == 0 or step >= train.steps:
                measured = None
                host = devices.fetch(state, mesh)
                if criterion is not None:
                    score = criterion(host.params)
                    best, waited = max(best, score), 0 if score > best else waited + 1
                    # All that stopping depends on, so that a resumed round stops at the same step.
                    measured = {"criterion": score, "best": best, "waited": waited}
                processes.once(lambda *given: saved.save(*given), step, host, measured)
        if step < train.steps:
            report(f"round {number}: no better on the held-out points; stopped early")
        if train.patience:
            state = devices.fetch(state, mesh)
            processes.once(restore, checkpoints.BEST)
            return processes.share_arrays(state)
    return devices.fetch(state, mesh)


def _next_stop(step: int, train: ml_collections.FrozenConfigDict) -> int:
    """Up to which update the device goes on by itself: where there is something to write."""
    return min(
        train.steps,
        *((step // every + 1) * every for every in (train.log_every, train.checkpoint_every)),
    )


def _logged(values: dict[str, float]) -> dict[str, float]:
    """Names of the log: `loss` for the total, `loss_…` for its parts; counts keep their names."""
    plain = {name for name in values if name == "loss" or name.endswith("overflow")}
    return {name if name in plain else f"loss_{name}": value for name, value in values.items()}
