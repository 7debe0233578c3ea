"""One round of training, for one run or for several runs in one compiled program.

Runs that are trained at once differ in their seeds, their points and the settings that need no
compilation. Each has its own work directory, as if it were trained alone.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tal_jax import methods
from tal_jax._errors import InputError
from tal_jax.config import Config
from tal_jax.data import packing
from tal_jax.data.recordings import Recording
from tal_jax.data.timeline import Lengths, Timeline, with_features
from tal_jax.training import (
    checkpoints,
    input_pipeline,
    metrics_log,
    processes,
    sharding,
    update,
)
from tal_jax.training.update import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One run's part in a round."""

    config: Config
    timeline: Timeline  # without features where these are read block by block
    recordings: Sequence[Recording]  # that the timeline is made of
    workdir: Path
    params: Any = None  # to start from; None starts fresh
    criterion: Callable[[Any], float] | None = None  # the best checkpoint maximizes it


def train_round(
    model: Any,
    members: Sequence[Member],
    *,
    number: int,
    lengths: Lengths,
    stage: str = "",
    vectorize: bool | None = None,
    report: Callable[[str], None] = print,
) -> list[TrainState]:
    """Trains one round of M runs, or what is left of it.

    Randomness comes from the seed, the round and the number of updates made, so a round that is
    stopped and continued ends with bitwise the same parameters. Every run draws the numbers that it
    would draw alone. Runs that were stopped behind the others first catch up with them.

    Args:
      model: the network.
      members: M runs; more than one have timelines of the same shapes, features on the device, no
        criterion and no early stopping (see `members.check_configs`), and use a single device.
      number: of the round, from 0; for a stage after the rounds, how many of these there are.
      lengths: of windows and of longer timelines, see `update.make_block`.
      stage: name of a stage after the rounds, and of its folder.
      vectorize: make each update of all runs at once; else they take turns in the program of a
        single run. By default on accelerators only: a single run does not fill one, but it fills a
        CPU, where vectorized updates are slower.
      report: prints a line.

    Returns:
      On the host, each run's state after the last update, or the best one where
      `config.train.patience` is set.

    Raises:
      InputError: if the loss of a run is no longer finite, naming the last checkpoint, which stays.
    """
    train = members[0].config.train
    mesh = None
    if len(members) == 1:
        mesh = sharding.make_mesh(train.batch_size, layer_shards=train.layer_shards)
    if vectorize is None:
        vectorize = len(members) > 1 and jax.default_backend() != "cpu"
    with contextlib.ExitStack() as stack:
        runs = [_begin(stack, model, member, number, stage, mesh) for member in members]
        while behind := [run for run in runs if not run.finished]:
            begun = min(run.step for run in behind)
            group = [run for run in behind if run.step == begun]
            end = min((run.step for run in behind if run.step > begun), default=train.steps)
            if vectorize:
                advancing = _vectorized(model, group, lengths)
            else:
                advancing = _in_turns(model, group, lengths, mesh)
            with advancing as advance:
                _train_until(end, advance, group, report=report)
        return [run.result() for run in runs]


# --- runs of a round ---


@dataclasses.dataclass
class _Run:
    """One run's progress in a round."""

    member: Member
    number: int
    stage: str
    mesh: Mesh | None
    key: jax.Array
    state: TrainState
    saved: checkpoints.Checkpoints | None  # in the primary process
    log: metrics_log.MetricsLog
    step: int = 0
    best: float = -math.inf  # criterion
    waited: int = 0  # checkpoints since then

    @property
    def folder(self) -> Path:
        return checkpoint_folder(self.member.workdir, self.stage or self.number)

    @property
    def title(self) -> str:
        return self.stage or f"round {self.number}"

    @property
    def stopped_early(self) -> bool:
        return 0 < self.member.config.train.patience <= self.waited

    @property
    def finished(self) -> bool:
        return self.step >= self.member.config.train.steps or self.stopped_early

    def restore(self, which: str) -> tuple[int, dict[str, float]]:
        """In the primary process: reads a checkpoint, if there is one."""
        assert self.saved is not None
        self.state = self.saved.restore(self.state, which=which) or self.state
        return int(self.state.step), self.saved.latest_metrics()

    def save(self) -> None:
        """Writes a checkpoint, with the criterion if there is one."""
        host, measured = sharding.fetch(self.state, self.mesh), None
        if self.member.criterion is not None:
            score = self.member.criterion(host.params)
            self.waited = 0 if score > self.best else self.waited + 1
            self.best = max(self.best, score)
            # All that stopping depends on, so that a resumed round stops at the same step.
            measured = {"criterion": score, "best": self.best, "waited": self.waited}
        processes.on_primary(self._write, host, measured)

    def _write(self, host: TrainState, measured: dict[str, float] | None) -> None:
        assert self.saved is not None
        self.saved.save(self.step, host, metrics=measured)

    def result(self) -> TrainState:
        """The state that the round ends with, on the host; writes its parameters."""
        self.state = sharding.fetch(self.state, self.mesh)
        if self.member.config.train.patience:
            processes.on_primary(self.restore, checkpoints.BEST)
            self.state = processes.share_arrays(self.state)
        processes.on_primary(checkpoints.write_params, self.folder, self.state.params)
        return self.state


def _begin(
    stack: contextlib.ExitStack,
    model: Any,
    member: Member,
    number: int,
    stage: str,
    mesh: Mesh | None,
) -> _Run:
    """A run at its latest checkpoint, or at the beginning of the round."""
    key, init_key = jax.random.split(jax.random.fold_in(jax.random.key(member.config.seed), number))
    dim = member.recordings[0].features.shape[1]
    state = update.init_state(model, member.config, dim, init_key, member.params)
    log = metrics_log.MetricsLog(member.workdir / "metrics.jsonl")
    run = _Run(member, number, stage, mesh, key, jax.device_get(state), None, log)
    if processes.is_primary():
        opened = checkpoints.open_checkpoints(run.folder, keep_best=member.criterion is not None)
        run.saved = stack.enter_context(opened)
    run.step, measured = processes.on_primary(run.restore, checkpoints.LATEST)
    run.best, run.waited = measured.get("best", -math.inf), int(measured.get("waited", 0))
    run.state = sharding.place_layers(processes.share_arrays(run.state), mesh)
    return run


def checkpoint_folder(workdir: Path, part: int | str) -> Path:
    """The checkpoints of a round, or of a stage after the rounds."""
    folder = f"round_{part}" if isinstance(part, int) else part
    return workdir / folder / "checkpoints"


# --- updates of a group of runs ---

# (states, number of updates made, blocks to make) -> states and means over the new updates.
_Advance = Callable[[Sequence[TrainState], int, int], Sequence[Any]]


@contextlib.contextmanager
def _in_turns(
    model: Any, group: Sequence[_Run], lengths: Lengths, mesh: Mesh | None
) -> Iterator[_Advance]:
    """One run after another, in the program of a single run."""
    with contextlib.ExitStack() as stack:
        advances = []
        for run in group:
            given = run.member.config, run.member.timeline, run.member.recordings
            pipeline = input_pipeline.open_pipeline(model, *given, lengths, run.key, mesh)
            advances.append(stack.enter_context(pipeline))

        def advance(states, step, num_blocks):
            each = zip(advances, states, strict=True)
            results = [one(state, step, num_blocks) for one, state in each]
            return tuple(zip(*results, strict=True))

        yield advance


@contextlib.contextmanager
def _vectorized(model: Any, group: Sequence[_Run], lengths: Lengths) -> Iterator[_Advance]:
    """Every update of all runs at once; features that are the same arrays are not copied."""
    configs = [run.member.config for run in group]
    timelines = [run.member.timeline for run in group]
    features = [timeline.features for timeline in timelines]
    share = all(one is features[0] for one in features)
    train = update.make_many_runs(
        model, update.compiled_config(configs[0]), lengths, share_features=share
    )
    timeline = with_features(
        _stack([with_features(one, None) for one in timelines]),
        features[0] if share else _stack(features),
    )
    rows = _stack([packing.rows_to_draw(one, lengths) for one in timelines])
    settings = _stack([update.settings_of(config) for config in configs])
    keys = _stack([run.key for run in group])

    def advance(states, step, num_blocks):
        del step  # part of the states
        results = train(_stack(states), timeline, rows, settings, keys, jnp.int32(num_blocks))
        return tuple(_unstack(result, len(group)) for result in results)

    yield advance


@jax.jit
def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@functools.partial(jax.jit, static_argnums=1)
def _unstack(tree: Any, count: int) -> list[Any]:
    leaves, structure = jax.tree.flatten(tree)
    rows = [[leaf[row] for leaf in leaves] for row in range(count)]
    return [jax.tree.unflatten(structure, row) for row in rows]


def _train_until(
    end: int, advance: _Advance, group: Sequence[_Run], *, report: Callable[[str], None]
) -> None:
    """Trains runs that are at the same update up to update `end`, where checkpoints are due."""
    config, step, number = group[0].member.config, group[0].step, group[0].number
    train, first, began = config.train, step, time.monotonic()
    for run in group:
        processes.on_primary(run.log.rewind, number, step)
    while step < end and not group[0].finished:
        begun, step = step, _next_stop(step, train)
        states, metrics = advance(
            [run.state for run in group], begun, (step - begun) // train.search_every
        )
        values = [
            {name: float(value) for name, value in one.items()} for one in jax.device_get(metrics)
        ]
        for run, state, own in zip(group, states, values, strict=True):
            run.state, run.step = state, step
            if not math.isfinite(own["loss"]):
                raise InputError(
                    f"{run.title}: the loss became {own['loss']} within updates {begun}–{step}; "
                    f"the last good state is in {run.folder}. A lower train.learning_rate (now "
                    f"{run.member.config.train.learning_rate:g}) usually helps"
                )
        if step % train.log_every == 0 or step >= train.steps:
            rate = (step - first) / (time.monotonic() - began)
            speed = {"steps_per_s": rate, "eta_s": (train.steps - step) / rate}
            _log(values, group, speed, report=report)
        if step % train.checkpoint_every == 0 or step >= train.steps:
            for run in group:
                run.save()
    if group[0].stopped_early and step < train.steps:
        report(f"{group[0].title}: no better on the held-out points; stopped early")


def _next_stop(step: int, train: Config) -> int:
    """The update up to which the device runs without the host: where something is written."""
    return min(
        train.steps,
        *((step // every + 1) * every for every in (train.log_every, train.checkpoint_every)),
    )


def _log(
    values: Sequence[dict[str, float]],
    group: Sequence[_Run],
    speed: dict[str, float],
    *,
    report: Callable[[str], None],
) -> None:
    """Writes what was measured to each run's log, and prints the mean."""
    config, number, step = group[0].member.config, group[0].number, group[0].step
    stage = group[0].stage
    place = {"round": number} | ({"stage": stage} if stage else {})
    for run, own in zip(group, values, strict=True):
        line = place | {"step": step, **_logged(own), **speed}
        processes.on_primary(functools.partial(run.log.append, **line))
    mean = {name: sum(own[name] for own in values) / len(values) for name in values[0]}
    line = metrics_log.progress_line(
        _logged(mean) | speed,
        methods.trainable_of(config).progress_terms,
        title=stage or f"round {number} of {config.train.rounds - 1}",
        step=step,
        steps=config.train.steps,
    )
    report(f"mean of {len(group)}  {line}" if len(group) > 1 else line)


def _logged(values: dict[str, float]) -> dict[str, float]:
    """Names of the log: `loss` for the total, `loss_…` for its parts; counts keep their names."""
    plain = {name for name in values if name == "loss" or name.endswith("overflow")}
    return {name if name in plain else f"loss_{name}": value for name, value in values.items()}
