"""Decides settings from the training recordings: what a config leaves open (None) is filled in.

Only what a person who labels knows enters: lengths of recordings, the clock and the number of
features, the points, and which stretches are done. Neither starts and ends nor test recordings are
read, so a decision cannot favour a score. The same data set always gets the same decisions.

Two lengths of time, in snippets, stand for that of actions, which is unknown. Neighbouring points
are an action and some background apart, so the *gap* between them bounds an action from above, and
most gaps hold more than one action's worth of time. Features are computed from windows that should
fit twice into the shortest action, so two windows bound a *short* action from below.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from tal_jax._errors import InputError
from tal_jax.config import Config, flatten
from tal_jax.data.packing import bucket, labelled_counts, num_windows, snippet_counts
from tal_jax.data.recordings import Dataset, Recording, done_snippets
from tal_jax.training.prepare import hold_out

# Windows of updates: whole recordings where they fit, and several actions in any case.
_LENGTHS = (64, 1024, 4096)  # step, usual limit, limit where actions are far apart
_GAPS_IN_WINDOW = 8
# Compensation lengthens a timeline, hardly by more than this.
_ROOM = 1.25
_SNIPPETS_OF_UPDATE = 8192
_BATCH_SIZES = (4, 16)
_WIDTHS = (64, 2048)
# Widths up to this train well at the learning rate for it.
_BASE_WIDTH, _BASE_RATE = 128, 3e-3
_EPOCHS = 20
_STEPS = (100, 400)
# Updates that each read most of the windows are alike: smaller ones, and at least so many of them.
_FEW_STEPS = 200
_DILATIONS = ((1, 2), (1, 2, 4), (1, 2, 4, 8))


@dataclasses.dataclass(frozen=True)
class Decision:
    """A setting that was decided, and why."""

    key: str  # such as "train.length"
    value: Any
    reason: str


def undecided(config: Config) -> tuple[str, ...]:
    """The settings that a config leaves to the data."""
    values = flatten(config.to_dict())
    return tuple(key for key in _RULES if key in values and values[key] is None)


def decide(
    config: Config, dataset: Dataset
) -> tuple[ml_collections.ConfigDict, tuple[Decision, ...]]:
    """Fills in the settings that a config leaves open, from the training recordings.

    Args:
      config: see `tal_jax.config`; not changed.
      dataset: of which the training recordings are used that are not held out, and their
        features' shapes only.

    Returns:
      The config without open settings, and the decisions in the order in which they were made.

    Raises:
      InputError: if there are settings to decide, but no training recording or no point, or all
        recordings are held out.
    """
    decided: Config = ml_collections.ConfigDict(config.to_dict())
    keys, decisions = undecided(config), []
    facts = None
    if keys:
        holdout = config.train.holdout
        facts = _measure(hold_out(dataset, config)[0] if holdout else dataset, holdout)
    for key in keys:
        value, reason = _RULES[key](decided, facts)
        section, name = key.split(".")
        decided[section][name] = value
        decisions.append(Decision(key, value, reason))
    return decided, tuple(decisions)


def with_values(
    config: Config, values: Mapping[str, Any], keys: Collection[str] | None = None
) -> ml_collections.ConfigDict:
    """The config with the settings that it leaves open taken from the nested `values`.

    Of `keys` only, by default of all but those of the data: some may stay open.
    """
    filled: Config = ml_collections.ConfigDict(config.to_dict())
    for key, given in flatten(config.to_dict()).items():
        section, _, name = key.partition(".")
        if given is not None or section == "data" or not name:
            continue
        if keys is not None and key not in keys:
            continue
        value = (values.get(section) or {}).get(name)
        filled[section][name] = tuple(value) if isinstance(value, list) else value
    return filled


def format_decisions(decisions: Sequence[Decision]) -> str:
    """A line for each decision, in columns; empty without any."""
    rows = [(one.key, f"{one.value}".replace(" ", ""), one.reason) for one in decisions]
    first, second = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return "\n".join(f"{key:{first}} = {value:{second}}  {why}" for key, value, why in rows)


# --- what the rules read ---


@dataclasses.dataclass(frozen=True, eq=False)
class _Facts:
    """Measures of training recordings; lengths in snippets."""

    recordings: Sequence[Recording]
    sizes: np.ndarray  # [R]
    labelled: np.ndarray  # [R] labelled snippets: done, or of points
    dim: int
    points: int
    window: float  # what the features of one snippet are computed from
    gap: float  # median time from a point to the next one of any class, where all of it is done
    near: float  # 10 % quantile of it
    nearest: float  # 5 % quantile of it

    @property
    def short(self) -> float:
        """A short action: between two windows and the nearest neighbours, on a scale of ratios."""
        return max(min(float(np.sqrt(2 * self.window * self.near)), self.near), 1.0)


def _measure(dataset: Dataset, holdout: int) -> _Facts:
    recordings = dataset.train
    points = sum(len(recording.points) for recording in recordings)
    if not points:
        but = f" but those of train.holdout={holdout}" if holdout else ""
        raise InputError(
            f"data set: no training recording with points{but}, which settings are decided from; "
            "expected at least one point, or a config that decides nothing, such as hapt_hamnet"
        )
    sizes, grid = np.array(snippet_counts(recordings)), recordings[0].grid
    labelled = np.array(labelled_counts(recordings))
    gaps = np.concatenate([_gaps(recording) for recording in recordings])
    # Where no recording has two points, these are as far apart as it is long, or labelled.
    near, nearest, gap = np.quantile(gaps if len(gaps) else labelled, (0.1, 0.05, 0.5))
    window = grid.window_frames / grid.stride_frames
    dim = recordings[0].features.shape[1]
    lengths = float(gap), float(near), float(nearest)
    return _Facts(recordings, sizes, labelled, dim, points, window, *lengths)


def _gaps(recording: Recording) -> np.ndarray:
    """Snippets from each point to the next one; between others there may be unlabelled actions."""
    times_s = np.sort(np.array([point.time_s for point in recording.points], np.float64))
    gaps = np.diff(recording.grid.to_snippets(times_s))
    if recording.done_s is None:
        return gaps
    within = np.zeros(len(gaps), bool)
    for start_s, end_s in recording.done_s:
        within |= (start_s <= times_s[:-1]) & (times_s[1:] < end_s)
    return gaps[within]


# --- the rules: a value, and why ---


def _length(config: Config, facts: _Facts) -> tuple[int, str]:
    """Whole recordings where they fit, since context is worth more than variety; else windows."""
    step, usual, most = _LENGTHS
    limit = min(max(usual, bucket(round(_GAPS_IN_WINDOW * facts.gap), step)), most)
    longest = int(facts.sizes.max())
    whole = bucket(round(_ROOM * longest), step)
    if whole <= limit:
        return whole, f"all recordings fit: the longest has {longest:,} snippets"
    return limit, f"updates read windows of recordings of up to {longest:,} snippets"


def _batch_size(config: Config, facts: _Facts) -> tuple[int, str]:
    """About equally many snippets in every update, but of few windows only about half.

    With one recording of 8,256 snippets, in 8 windows, 200 updates of 4 windows learned in the
    first round what 100 of 8 did not.
    """
    windows, usual = _windows(config, facts), _usual_batch(config)
    copies = 2 if config.sampling.keep_original else 1
    size, why = usual, ""
    if _are_few(windows, config):
        half = 1 << round(np.log2(max(windows, 2) / 2))
        size, why = min(max(half, _BATCH_SIZES[0]), usual), f", of {windows} windows"
    size = min(size, copies * windows)
    return size, f"{size * config.train.length:,} snippets in an update{why}"


def _dilations(config: Config, facts: _Facts) -> tuple[tuple[int, ...], str]:
    """The receptive field nearest to two windows: the shortest action that these suit.

    It grows with the rate of snippets. A network that looks farther than an action lasts learns
    that a point is near instead of where its action ends. Gaps are no measure of that where actions
    are rare, but limit it.
    """
    if config.model.widths is not None:
        chosen = tuple(1 << layer for layer in range(len(config.model.widths)))
        return chosen, f"for the {len(chosen)} layers of model.widths"
    fields = np.array([1 + 2 * sum(dilations) for dilations in _DILATIONS])
    wanted = max(min(2 * facts.window, facts.gap), 1)
    nearest = int(np.abs(np.log(fields) - np.log(wanted)).argmin())
    why = f"{fields[nearest]} snippets of context, of windows of {facts.window:.3g} each"
    return _DILATIONS[nearest], why


def _widths(config: Config, facts: _Facts) -> tuple[tuple[int, ...], str]:
    """Half the geometric mean of features and points, in powers of two, hardly more than D.

    More features need wider layers to be combined, and more points are needed to fit these.
    """
    low, high = _WIDTHS
    mean = np.sqrt(facts.dim * facts.points) / 2
    most = max(low, 1 << (facts.dim - 1).bit_length())
    width = min(max(1 << round(np.log2(mean)), low), most, high)
    return (width,) * len(config.model.dilations), f"D {facts.dim}, {facts.points:,} points"


def _dropout(config: Config, facts: _Facts) -> tuple[float, str]:
    """More where a network can tell the training points apart by few of its many features."""
    if facts.dim >= 1024:
        return 0.7, f"D {facts.dim:,}: features of a large network"
    if facts.dim > facts.points:
        return 0.5, f"more features ({facts.dim}) than points ({facts.points})"
    return 0.2, f"D {facts.dim}, {facts.points:,} points"


def _topk_ratio(config: Config, facts: _Facts) -> tuple[float, str]:
    """Top-k pooling averages as many snippets as the rarest class of a window has, about.

    Windows are those of updates; a class has a short action's length for each of its points. Only
    what is done is pooled, and only its points count.
    """
    ratios = []
    for recording, size in zip(facts.recordings, facts.sizes, strict=True):
        done = np.flatnonzero(done_snippets(recording))
        points = [point for point in recording.points if _is_done(point.time_s, recording)]
        labels = np.array([point.label for point in points], int)
        times = recording.grid.to_snippets(np.array([point.time_s for point in points]))
        count = int(num_windows(size, config.train.length))
        of_window, of_snippet = ((at * count / size).astype(int) for at in (times, done))
        for number in np.unique(of_window):
            rarest = np.unique(labels[of_window == number], return_counts=True)[1].min()
            pooled = size / count
            if len(done) < size:
                pooled = max((of_snippet == number).sum(), 1)
            ratios.append(pooled / (rarest * facts.short))
    ratio = float(max(np.round(np.median(ratios)), 2.0)) if ratios else 2.0
    return ratio, f"a short action has about {facts.short:.2g} snippets"


def _learning_rate(config: Config, facts: _Facts) -> tuple[float, str]:
    """Falls with the width: an Adam step moves an output by about the rate times the width."""
    width = max(config.model.widths)
    rate = float(f"{_BASE_RATE * min(1, _BASE_WIDTH / width):.2g}")
    return rate, f"for layers {width} wide"


def _steps(config: Config, facts: _Facts) -> tuple[int, str]:
    """Twenty passes over all windows, within bounds; more of both where steps are small."""
    windows, every = _windows(config, facts), config.train.search_every
    slower = max(np.sqrt(_BASE_RATE / config.train.learning_rate), 1)
    low, high = _STEPS
    if _are_few(windows, config):
        low = _FEW_STEPS
    wanted = slower * min(max(_EPOCHS * windows / config.train.batch_size, low), high)
    steps = max(round(wanted / every), 1) * every
    passes = steps * config.train.batch_size / windows
    return steps, f"{passes:.0f} passes over {windows:,} windows of train.length"


def _checkpoint_every(config: Config, facts: _Facts) -> tuple[int, str]:
    """Once a round, oftener in long ones; always after a search."""
    return min(config.train.steps, 25 * config.train.search_every), "a multiple of search_every"


def _min_outer(config: Config, facts: _Facts) -> tuple[float, str]:
    """Windows that overlap spread an action over its neighbours: contrast starts beyond them.

    Where neighbouring points are nearer than that, the outer region would cover other actions.
    """
    smear = round(2 * facts.window, 3)
    if facts.window <= 1:
        return 0.0, "windows of snippets do not overlap"
    if smear > facts.nearest:
        return 0.0, f"points are as near as {facts.nearest:.2g} snippets, two windows are {smear:g}"
    return smear, "two feature windows, since windows of snippets overlap"


def _are_few(windows: int, config: Config) -> bool:
    """Whether a usual update would read more than two thirds of all windows."""
    return 3 * _usual_batch(config) > 2 * windows


def _usual_batch(config: Config) -> int:
    """Windows of an update where there are many: a power of two."""
    low, high = _BATCH_SIZES
    fitting = 1 << (max(_SNIPPETS_OF_UPDATE // config.train.length, 1).bit_length() - 1)
    return min(max(fitting, low), high)


def _windows(config: Config, facts: _Facts) -> int:
    return int(num_windows(facts.labelled, config.train.length).sum())


def _is_done(time_s: float, recording: Recording) -> bool:
    stretches = recording.done_s
    return stretches is None or any(start_s <= time_s < end_s for start_s, end_s in stretches)


# In this order: later rules read earlier settings.
_RULES: dict[str, Callable[[Config, Any], tuple[Any, str]]] = {
    "train.length": _length,
    "train.batch_size": _batch_size,
    "model.dilations": _dilations,
    "model.widths": _widths,
    "model.dropout": _dropout,
    "train.learning_rate": _learning_rate,
    "train.steps": _steps,
    "train.checkpoint_every": _checkpoint_every,
    "loss.topk_ratio": _topk_ratio,
    "localization.min_outer": _min_outer,
}
