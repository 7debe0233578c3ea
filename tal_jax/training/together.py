"""One round of several runs together: one compiled program serves them all.

Members differ in their seeds, their points and the settings that need no compilation of their own.
Each keeps its own work directory, as if it were alone.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax.data.packing import snippet_counts
from tal_jax.data.recordings import Dataset
from tal_jax.data.timeline import Lengths, Timeline, num_windows, rows_to_draw, with_features
from tal_jax.training import checkpoints, metrics_log, rounds, update
from tal_jax.training.state import TrainState

# Settings that no compiled program depends on, but the loop around it or the number of its rows.
_COMMON = (
    *("train.rounds", "train.steps", "train.log_every", "train.checkpoint_every", "train.length"),
    "sampling.keep_original",
)


def check_members(
    configs: Sequence[ml_collections.FrozenConfigDict], workdirs: Sequence[Path]
) -> None:
    """Refuses runs that cannot be trained in one program.

    Raises:
      ValueError: naming the setting that differs or that only a single run may have, or the work
        directory that two runs have.
    """
    if not configs or len(configs) != len(workdirs):
        raise ValueError(
            f"{len(configs)} configs and {len(workdirs)} work directories; expected one or more, "
            "and as many of the one as of the other"
        )
    for workdir in workdirs:
        if workdirs.count(workdir) > 1:
            raise ValueError(f"{workdir}: the work directory of two runs; expected one for each")
    first = _shared_settings(configs[0])
    for config, workdir in zip(configs, workdirs, strict=True):
        for key in ("holdout", "patience"):
            if config.train[key]:
                raise ValueError(
                    f"{workdir}: train.{key}={config.train[key]}; expected 0, since runs that are "
                    "trained together all end at the same update"
                )
        own = _shared_settings(config)
        for key in sorted(first.keys() | own.keys()):
            if first.get(key) != own.get(key):
                raise ValueError(
                    f"{key} is {first.get(key)!r} for {workdirs[0]} and {own.get(key)!r} for "
                    f"{workdir}; expected the same for runs that are trained together"
                )


def _shared_settings(config: ml_collections.FrozenConfigDict) -> dict[str, Any]:
    """All settings that members have in common, flat."""
    values = {key: config[key.split(".")[0]][key.split(".")[1]] for key in _COMMON}
    return values | _flat(update.compiled_config(config).to_dict())


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def check_datasets(datasets: Sequence[Dataset], workdirs: Sequence[Path], window: int) -> None:
    """Refuses data sets whose arrays cannot lie beside one another.

    Args:
      datasets: M data sets.
      workdirs: of the M runs, for messages.
      window: snippets of an update, `config.train.length`.

    Raises:
      ValueError: naming what differs.
    """

    def described(dataset: Dataset) -> dict[str, Any]:
        return {
            "classes": dataset.classes,
            "the number of training recordings": len(dataset.train),
            "the number D of features": dataset.train[0].features.shape[1],
            "the type of features": str(np.result_type(*{r.features.dtype for r in dataset.train})),
            "the number of windows in training recordings": int(
                num_windows(np.array(snippet_counts(dataset.train)), window).sum()
            ),
        }

    first = described(datasets[0])
    for dataset, workdir in zip(datasets, workdirs, strict=True):
        for name, value in described(dataset).items():
            if value != first[name]:
                raise ValueError(
                    f"data: {name} differ, {first[name]!r} for {workdirs[0]} and {value!r} for "
                    f"{workdir}; expected the same for runs that are trained together"
                )


def same_features(datasets: Sequence[Dataset]) -> bool:
    """Whether the training recordings of all data sets have the same names, clocks and features."""

    def same(one, other):
        if (one.name, one.grid, one.duration_s) != (other.name, other.grid, other.duration_s):
            return False
        ours, theirs = one.features, other.features
        if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
            return ours is theirs or np.array_equal(ours, theirs)
        return type(ours) is type(theirs) and ours == theirs  # files, told apart by their paths

    first = datasets[0].train
    return all(
        same(one, own) for other in datasets for one, own in zip(first, other.train, strict=True)
    )


def train_round(
    model: Any,
    configs: Sequence[ml_collections.FrozenConfigDict],
    timelines: Sequence[Timeline],
    *,
    number: int,
    lengths: Lengths,
    workdirs: Sequence[Path],
    params: Sequence[Any],
    share_features: bool,
    side_by_side: bool | None = None,
    report: Callable[[str], None] = print,
) -> list[TrainState]:
    """Trains one round of M runs, or what is left of it.

    Every member draws the numbers that it would draw alone, and writes what it would write alone.
    Members that were stopped behind the others first catch up with them.

    Args:
      model: the network.
      configs: M configs, accepted by `check_members`.
      timelines: M timelines of the same shapes.
      number: of the round, from 0.
      lengths: of windows and of longer timelines, see `steps.make_block`.
      workdirs: M work directories.
      params: M parameters to start from; None starts fresh.
      share_features: whether all members' features are those of the first, see `same_features`.
      side_by_side: make each update of all members at once; else they take turns in the program of
        a single run. By default wherever there is an accelerator: a single member does not fill it,
        but it does fill a CPU, where batched updates are slower.
      report: prints a line.

    Returns:
      The M states after the last update.

    Raises:
      ValueError: if the loss of a member is no longer finite, naming its work directory; all last
        checkpoints stay.
    """
    dim = timelines[0].recordings.features.shape[-1]
    if side_by_side is None:
        side_by_side = jax.default_backend() != "cpu"
    with contextlib.ExitStack() as stack:
        members = []
        for config, timeline, workdir, start in zip(
            configs, timelines, workdirs, params, strict=True
        ):
            folder = rounds.checkpoint_folder(workdir, number)
            saved = stack.enter_context(checkpoints.open_checkpoints(folder))
            key, state = rounds.begin_round(model, config, dim, number=number, params=start)
            state = saved.restore(jax.device_get(state)) or state
            log = metrics_log.MetricsLog(workdir / "metrics.jsonl")
            members.append(_Member(config, timeline, key, state, saved, log, folder))
        while behind := [one for one in members if one.step < one.config.train.steps]:
            begun = min(one.step for one in behind)
            group = [one for one in behind if one.step == begun]
            ahead = [one.step for one in behind if one.step > begun]
            end = min(ahead, default=group[0].config.train.steps)
            if side_by_side:
                run = _side_by_side(model, group, lengths, share_features)
            else:
                run = _in_turns(model, group, lengths)
            _advance(run, group, end, number=number, report=report)
        return [one.state for one in members]


@dataclasses.dataclass
class _Member:
    """One run among those that are trained together."""

    config: ml_collections.FrozenConfigDict
    timeline: Timeline
    key: jax.Array
    state: TrainState
    saved: checkpoints.Checkpoints
    log: metrics_log.MetricsLog
    folder: Path

    @property
    def step(self) -> int:
        return int(self.state.step)


# Trains the members of a group: `(states, num_blocks) -> (states, metrics)`, a list each.
_Run = Callable[[Sequence[TrainState], jax.Array], tuple[Sequence[TrainState], Sequence[Any]]]


def _side_by_side(
    model: Any, group: Sequence[_Member], lengths: Lengths, share_features: bool
) -> _Run:
    """Every update of all members at once."""
    config = update.compiled_config(group[0].config)
    run = update.make_many_runs(model, config, lengths, share_features=share_features)
    features = [one.timeline.recordings.features for one in group]
    timeline = with_features(
        _stack([with_features(one.timeline, None) for one in group]),
        features[0] if share_features else _stack(features),
    )
    rows = _stack([jnp.asarray(rows_to_draw(one.timeline, lengths)) for one in group])
    settings = _stack([update.settings_of(one.config) for one in group])
    keys = _stack([one.key for one in group])

    def train(states, num_blocks):
        results = run(_stack(states), timeline, rows, settings, keys, num_blocks)
        return tuple(_unstack(result, len(group)) for result in results)

    return train


def _in_turns(model: Any, group: Sequence[_Member], lengths: Lengths) -> _Run:
    """One member after another, in the program of a single run."""
    run = update.make_run(model, update.compiled_config(group[0].config), lengths)
    given = [
        (
            one.timeline,
            jnp.asarray(rows_to_draw(one.timeline, lengths)),
            update.settings_of(one.config),
            one.key,
        )
        for one in group
    ]

    def train(states, num_blocks):
        results = [run(state, *one, num_blocks) for state, one in zip(states, given, strict=True)]
        return tuple(zip(*results, strict=True))

    return train


def _advance(
    run: _Run,
    group: Sequence[_Member],
    end: int,
    *,
    number: int,
    report: Callable[[str], None],
) -> None:
    """Trains members that are at the same update up to update `end`, where checkpoints are due."""
    config, step = group[0].config, group[0].step
    for member in group:
        member.log.rewind(number, step)
    train, rate = config.train, rounds.Rate(step)
    while step < end:
        begun, step = step, rounds.next_stop(step, train)
        num_blocks = jnp.int32((step - begun) // train.search_every)
        states, metrics = run([member.state for member in group], num_blocks)
        said = [{name: float(value) for name, value in one.items()} for one in metrics]
        for member, state, values in zip(group, states, said, strict=True):
            member.state = state
            place = dict(number=number, updates=(begun, step), folder=member.folder)
            rounds.check_loss(values, member.config, **place)
        if step % train.log_every == 0 or step >= train.steps:
            speed = rate.at(step, train.steps)
            for member, values in zip(group, said, strict=True):
                member.log.append(round=number, step=step, **rounds.logged(values), **speed)
            mean = {name: sum(one[name] for one in said) / len(said) for name in said[0]}
            shown = rounds.logged(mean) | speed
            line = rounds.progress_line(shown, config, number=number, step=step)
            report(f"mean of {len(group)}  {line}")
        if step % train.checkpoint_every == 0 or step >= train.steps:
            for member in group:
                member.saved.save(step, jax.device_get(member.state))


@jax.jit
def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@functools.partial(jax.jit, static_argnums=1)
def _unstack(tree: Any, count: int) -> list[Any]:
    leaves, structure = jax.tree.flatten(tree)
    rows = [[leaf[row] for leaf in leaves] for row in range(count)]
    return [jax.tree.unflatten(structure, row) for row in rows]
