"""Fit, predict, evaluate: the whole system as a loop over rounds that reads on one screen.

A round trains a network on the timeline that the previous round's proposals make, and proposes
segments on the training recordings. Between rounds nothing travels but those proposals, a JSON file
in the work directory that a person can read, edit or replace.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax import methods
from tal_jax.config import check_config
from tal_jax.data import files, packing, sliding_window
from tal_jax.data import timeline as timelines
from tal_jax.data.predictions import RecordingScores, ScoreSequence, read_scores, write_scores
from tal_jax.data.recordings import (
    Dataset,
    Recording,
    check_dataset,
    check_recording,
    labels_of,
    read_features,
)
from tal_jax.evaluation import detection
from tal_jax.inference import ensemble, localization
from tal_jax.inference.localization import Results
from tal_jax.ops import resampling
from tal_jax.runs import run_card
from tal_jax.training import (
    checkpoints,
    input_pipeline,
    metrics_log,
    processes,
    rounds,
    sharding,
    together,
    update,
)

# Lengths are rounded up to a multiple of this, so that few shapes are compiled.
_LENGTH_STEP = 64
# Recordings that are predicted, and held in memory, at once.
_CHUNK = 16
# Snippets of a recording that are: of a longer one so many at a time.
_MOST_AT_ONCE = 8192

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The trained networks of all rounds with what is needed to use them."""

    params: tuple[Any, ...]  # of each round's network; from round 1 on they met lengthened actions
    config: ml_collections.FrozenConfigDict
    classes: tuple[str, ...]
    dim: int  # D of the features
    overlapping: tuple[tuple[int, int], ...] = ()


def fit(
    dataset: Dataset,
    config: ml_collections.ConfigDict,
    *,
    workdir: str | Path,
    report: Callable[[str], None] = print,
) -> Fitted:
    """Trains all rounds on a data set, evaluating each on its test recordings.

    A run that was stopped goes on from its work directory, in the middle of a round too, and ends
    with bitwise the same parameters.

    Args:
      dataset: recordings with points, and maybe test recordings with ground truth.
      config: see `tal_jax.config`.
      workdir: the run's work directory.
      report: prints a line.

    Returns:
      The networks of all rounds.

    Raises:
      ValueError: for a config or data set that cannot be trained on, a work directory of another
        run, or a loss that is no longer finite.
      OSError: if the work directory cannot be written.
    """
    config, workdir = check_config(config), Path(workdir)
    _check_data(dataset)
    report = report if processes.is_first() else lambda line: None
    processes.once(run_card.start, workdir, config, dataset)
    for note in dataset.notes:
        report(f"note: {note}")
    dataset, held_out = hold_out(dataset, config)
    proposals, params = None, ()
    for number in range(config.train.rounds):
        began = time.monotonic()
        processes.once(_refuse_orphans, workdir, number)
        packed = pack_training(dataset, config, proposals)
        report(_describe_round(number, packed, dataset.train, config))
        state = rounds.train_round(
            methods.method_of(config).make_model(config, len(dataset.classes)),
            config,
            packed.timeline,
            dataset.train,
            number=number,
            lengths=packed.lengths,
            workdir=workdir,
            params=params[-1] if params and config.train.warm_start else None,
            criterion=_criterion(held_out, config, dataset, params),
            report=report,
        )
        params = (*params, state.params)
        fitted = _fitted(params, config, dataset)
        proposals = _propose(fitted, dataset, packed, workdir)
        del packed  # neither the test recordings nor the next round need room beside it
        if _test_round(fitted, dataset, workdir, report):
            report(f"round {number}: {time.monotonic() - began:.0f} s")
    return fitted


def fit_many(
    datasets: Sequence[Dataset],
    configs: Sequence[ml_collections.ConfigDict],
    *,
    workdirs: Sequence[str | Path],
    report: Callable[[str], None] = print,
) -> list[Fitted]:
    """Trains several runs together, in one compiled program: what `fit` does, for each of them.

    The runs may differ in their seeds, their points, the weights of the loss's parts, the rates of
    `config.train`, and all that comes after the network. Features that are the same for all lie on
    the device once. Every work directory is that of a single run, which `fit` may end, and which
    may have been begun by it.

    An accelerator makes each update of all runs at once, and its numbers differ from those of `fit`
    by rounding. On a CPU, which one run fills, they take turns, and the numbers are the same where
    the runs' data need no more padding together than alone.

    Args:
      datasets: M data sets, one a run, since points depend on the seed.
      configs: M configs, without `train.holdout`.
      workdirs: M work directories.
      report: prints a line.

    Returns:
      The networks of all rounds, of each of the M runs.

    Raises:
      ValueError: as `fit` does, or if runs differ in what is compiled or in the shape of their
        data, naming what differs.
      OSError: if a work directory cannot be written.
    """
    configs, workdirs = [check_config(config) for config in configs], list(map(Path, workdirs))
    together.check_members(configs, workdirs)
    for dataset in datasets:
        _check_data(dataset)
    together.check_datasets(datasets, workdirs, configs[0].train.length)
    if processes.count() > 1 or any(
        map(input_pipeline.streams, configs, [d.train for d in datasets])
    ):
        raise ValueError(
            "runs are trained together in one process, on features that fit on its device; train "
            "them one after another instead"
        )
    for dataset, config, workdir in zip(datasets, configs, workdirs, strict=True):
        run_card.start(workdir, config, dataset)
    for note in dict.fromkeys(note for dataset in datasets for note in dataset.notes):
        report(f"note: {note}")
    share, sizes = together.same_features(datasets), _common_sizes(datasets, configs[0])
    config, num_classes = configs[0], len(datasets[0].classes)
    proposals, params = [None] * len(configs), [()] * len(configs)
    for number in range(config.train.rounds):
        began = time.monotonic()
        packed = []
        for row, (dataset, own) in enumerate(zip(datasets, configs, strict=True)):
            _refuse_orphans(workdirs[row], number)
            features = packed[0].timeline.recordings.features if share and packed else None
            packed.append(
                pack_training(dataset, own, proposals[row], sizes=sizes, features=features)
            )
            report(
                f"{workdirs[row].name}: {_describe_round(number, packed[-1], dataset.train, own)}"
            )
        states = together.train_round(
            methods.method_of(config).make_model(config, num_classes),
            configs,
            [one.timeline for one in packed],
            number=number,
            lengths=_lengths(config, [one.timeline for one in packed]),
            workdirs=workdirs,
            params=[
                earlier[-1] if earlier and own.train.warm_start else None
                for earlier, own in zip(params, configs, strict=True)
            ],
            share_features=share,
            report=report,
        )
        params = [(*earlier, state.params) for earlier, state in zip(params, states, strict=True)]
        fitted = list(map(_fitted, params, configs, datasets))
        proposals = list(map(_propose, fitted, datasets, packed, workdirs))
        del packed
        for one, dataset, workdir in zip(fitted, datasets, workdirs, strict=True):
            report(f"{workdir}:")
            _test_round(one, dataset, workdir, report)
        report(f"round {number}: {time.monotonic() - began:.0f} s")
    return fitted


def predict(
    fitted: Fitted,
    recordings: Sequence[Recording],
    *,
    scores: dict[str, RecordingScores] | None = None,
) -> Results:
    """Detects actions in recordings, by the mean of what the networks of all rounds predict.

    Args:
      fitted: trained networks.
      recordings: features with their clocks; points are ignored.
      scores: filled with the mean scores of each recording, for `relocalize`, if given.

    Returns:
      For each recording its detections, best first, with times in seconds.

    Raises:
      ValueError: if features are bad or of another D than the networks were trained on.
    """
    of_rounds = (
        _read_round(fitted, number, recordings, lengthen=False)
        for number in range(len(fitted.params))
    )
    mean = ensemble.mean_scores(of_rounds)
    if scores is not None:
        scores |= mean
    return _relocalize_shared(mean, fitted.config.localization, fitted.classes)


def predict_round(
    fitted: Fitted,
    number: int,
    recordings: Sequence[Recording],
    *,
    scores: dict[str, RecordingScores] | None = None,
) -> Results:
    """Detects actions in recordings by the network of one round.

    As `predict` does; where the config compensates test recordings, and the network met lengthened
    actions in training, from a second reading that lengthens short ones.
    """
    read = _read_round(fitted, number, recordings, lengthen=compensates_test(fitted, number))
    if scores is not None:
        scores |= read
    return _relocalize_shared(read, fitted.config.localization, fitted.classes)


def _read_round(
    fitted: Fitted, number: int, recordings: Sequence[Recording], *, lengthen: bool
) -> dict[str, RecordingScores]:
    """What a round's network predicts for recordings, also on a lengthened timeline if wanted."""
    for recording in recordings:
        check_recording(recording, dim=fitted.dim)
    bare = [dataclasses.replace(recording, points=()) for recording in recordings]
    scores = {}
    long = [recording for recording in bare if len(recording.features) > _MOST_AT_ONCE]
    for recording in processes.mine(long):
        scores[recording.name] = _read_long(fitted, number, recording, lengthen=lengthen)
    groups = _groups(
        [recording for recording in bare if len(recording.features) <= _MOST_AT_ONCE],
        lambda recording: len(recording.features),
    )
    for length, group in processes.mine(groups):
        scores |= _read_group(fitted, number, group, length, lengthen=lengthen)
    scores = _gather_scores(scores)
    return {recording.name: scores[recording.name] for recording in recordings}


def _read_group(fitted, number, recordings, length, *, lengthen) -> dict[str, RecordingScores]:
    """`_read_round` for recordings that are padded to one length."""
    packed = _pack_plain(recordings, length, fitted)
    original = _read(fitted, number, recordings, packed)
    scores = {
        one.name: RecordingScores(one.grid, one.duration_s, original[one.name], original[one.name])
        for one in recordings
    }
    if not lengthen:
        return scores
    options = localization.proposal_options(fitted.config.localization)
    found = relocalize(scores, options, fitted.classes)
    packed = _compensate_by(packed, recordings, found, fitted.config.sampling, fitted.classes)
    last = _read(fitted, number, recordings, packed)
    return {name: dataclasses.replace(one, last=last[name]) for name, one in scores.items()}


def _read_long(fitted, number, recording, *, lengthen) -> RecordingScores:
    """`_read_round` for a recording that only the scores of are held as a whole."""
    config = fitted.config
    model = methods.method_of(config).make_model(config, len(fitted.classes))
    dtype = packing.feature_dtype([recording], config.model.precision)
    total = len(recording.features)

    def read(features, cumulative):
        return localization.read_windows(
            fitted.params[number],
            sliding_window.Windows(recording.name, features, _MOST_AT_ONCE, model.reach, dtype),
            cumulative,
            model=model,
            config=update.compiled_config(config),
            num_samples=packing.bucket(len(features), _MOST_AT_ONCE // 4),
        )

    original = read(recording.features, np.arange(total + 1, dtype=np.float32))
    scores = RecordingScores(recording.grid, recording.duration_s, original, original)
    if not lengthen:
        return scores
    options = localization.proposal_options(config.localization)
    found = relocalize({recording.name: scores}, options, fitted.classes)
    resampled = _lengthened(recording, found, config.sampling, fitted.classes)
    features = sliding_window.Interpolated(recording.features, resampled.positions[resampled.where])
    return dataclasses.replace(scores, last=read(features, resampled.cumulative[: total + 1]))


def _lengthened(recording, found, sampling, classes) -> resampling.Resampled:
    """Where the timeline that a recording's own detections lengthen is read, on the host."""
    length = packing.bucket(len(recording.features), _LENGTH_STEP)
    packed = _packed(_identity([recording], (), len(classes), length=length), length)
    packed = _compensate_by(packed, [recording], found, sampling, classes)
    timeline = timelines.take(packed.timeline, 0)
    num_samples = packed.lengths.window
    return jax.device_get(
        jax.jit(resampling.sample_times, static_argnums=1)(
            timeline.weights,
            num_samples,
            count=jnp.minimum(timeline.counts, num_samples),
            where=timeline.recordings.where,
        )
    )


def relocalize(
    scores: Mapping[str, RecordingScores],
    options: ml_collections.FrozenConfigDict | ml_collections.ConfigDict,
    classes: Sequence[str],
) -> Results:
    """Detects actions in the scores of networks, without these networks.

    With the settings of the run these are its detections. Where a network read a lengthened
    timeline, that stays the one that the run's own settings made, whatever `options` are.

    Args:
      scores: from `predict`, or read from a file by `score_files.read_scores`.
      options: the section `localization` of a config.
      classes: names of the classes.

    Returns:
      For each recording its detections, best first, with times in seconds.
    """

    def length_of(name):
        return len(scores[name].last.cumulative) - 1

    results, max_runs = {}, localization.MAX_RUNS
    for length, names in _groups(list(scores), length_of):
        longest = max(len(scores[name].last.scores) for name in names)
        found, max_runs = localization.locate_scores(
            {name: scores[name] for name in names},
            options=options,
            classes=classes,
            length=length,
            num_samples=_num_samples(longest, length),
            max_runs=max_runs,
        )
        results |= found
    return {name: results[name] for name in scores}


def _relocalize_shared(
    scores: Mapping[str, RecordingScores],
    options: ml_collections.FrozenConfigDict,
    classes: Sequence[str],
) -> Results:
    """`relocalize` in all processes, each its share."""
    mine = {name: scores[name] for name in processes.mine(scores)}
    results = processes.gather(relocalize(mine, options, classes))
    return {name: results[name] for name in scores}


def load_run(workdir: str | Path) -> Fitted:
    """Reads the networks of a work directory's finished rounds.

    Raises:
      ValueError: if there is none, or one cannot be read.
    """
    workdir = Path(workdir)
    config, data = run_card.read(workdir)
    params = []
    while len(params) < config.train.rounds:
        folder = workdir / f"round_{len(params)}"
        if not (folder / "proposals_train.json").exists():
            break
        params.append(_load_params(folder / "checkpoints", config))
    if not params:
        raise ValueError(f"{workdir}: no round is finished yet; let `tal-jax train` end first")
    overlapping = tuple(tuple(pair) for pair in data["overlapping"])
    return Fitted(tuple(params), config, tuple(data["classes"]), data["dim"], overlapping)


def _load_params(folder: Path, config: ml_collections.FrozenConfigDict) -> Any:
    """The parameters that a round ended with."""
    which = checkpoints.BEST if config.train.patience else checkpoints.LATEST
    with checkpoints.open_checkpoints(folder, keep_best=which == checkpoints.BEST) as saved:
        params = saved.restore_params(which=which)
    if params is None:
        raise ValueError(f"{folder}: no checkpoint; expected the one that the round ended with")
    return sharding.replicate(params, sharding.local_mesh())


def _check_data(dataset: Dataset) -> None:
    """Checks all, once, before anything is trained: a broken test file would show only later."""
    check_dataset(dataset)
    for recording in processes.mine((*dataset.train, *dataset.test)):
        read_features(recording)


def _refuse_orphans(workdir: Path, number: int) -> None:
    """Refuses rounds that came from proposals that are gone: they would be taken for new ones."""
    later = workdir / f"round_{number + 1}"
    if later.exists() and not (workdir / f"round_{number}" / "proposals_train.json").exists():
        raise ValueError(
            f"{later} is there, but round {number} has no proposals_train.json, which it came "
            f"from; put that back, or delete round_{number + 1} and all later rounds"
        )


# --- timelines ---


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Recordings on a timeline, and what its length is padded to."""

    timeline: timelines.Timeline
    lengths: timelines.Lengths


def _packed(timeline: timelines.Timeline, length: int) -> Packed:
    """A timeline that is read as a whole."""
    return Packed(timeline, timelines.Lengths(length, (length,)))


def pack_training(
    dataset: Dataset,
    config: ml_collections.FrozenConfigDict,
    proposals: Results | None,
    *,
    sizes: Mapping[str, Any] | None = None,
    features: jax.Array | None = None,
) -> Packed:
    """The timeline of a round: compensated by the proposals of the previous one, if there is one.

    Where the features are to be streamed it lies on the host, without them.

    With `sampling.keep_original` every recording follows once more as it is, so that the network
    meets actions at the speed that they have in test recordings, too.

    Args:
      dataset: the data set.
      config: of the run.
      proposals: of the previous round.
      sizes: see `_common_sizes`; those that the data set itself needs by default.
      features: the features that `batches.pack` would make, where they are on the device already.
    """
    sizes = sizes or _common_sizes([dataset], config)
    plain = _identity(dataset.train, dataset.overlapping, len(dataset.classes), **sizes)
    if proposals is not None:
        found, plain = _with_instances(plain, proposals, dataset)
    timeline = plain
    if config.sampling.compensate and proposals is not None:
        timeline = _compensate(plain, found, dataset.train, config.sampling)
    if config.sampling.keep_original:
        # Where nothing is compensated, too: all rounds and settings then share compiled programs.
        timeline = timelines.join(timeline, plain)
    lengths = _lengths(config, [timeline])
    if input_pipeline.streams(config, dataset.train):
        return Packed(jax.device_get(timeline), lengths)
    if features is None:
        num_rows = packing.spacious(sum(packing.snippet_counts(dataset.train)))
        features = _read_features(dataset.train, num_rows, config)
    return Packed(timelines.with_features(timeline, features), lengths)


def _lengths(
    config: ml_collections.FrozenConfigDict, of_runs: Sequence[timelines.Timeline]
) -> timelines.Lengths:
    """The lengths to train on timelines with, the same for all runs.

    A window is known to hold the actions that were clicked in it. A recording's classes are known
    of the whole alone, so that what learns from them samples long recordings instead.
    """
    window = config.train.length
    if methods.method_of(config).SUPERVISION != "points":
        return timelines.Lengths(window, (window,))
    counts = np.concatenate([np.asarray(timeline.counts) for timeline in of_runs])
    return timelines.lengths_of(counts, window)


def _with_instances(
    timeline: timelines.Timeline, proposals: Results, dataset: Dataset
) -> tuple[timelines.Proposals, timelines.Timeline]:
    """The proposals as arrays, and the timeline with the pseudo instances that they make."""
    found = timelines.proposals_of(
        proposals,
        dataset.train,
        np.asarray(timeline.recordings.slot_labels),
        np.asarray(timeline.recordings.slot_where),
        dataset.classes,
    )
    found = jax.jit(timelines.with_own_point)(found, timeline.recordings)
    return found, jax.jit(timelines.assign_instances)(timeline, found)


def _pack_plain(recordings: Sequence[Recording], length: int, fitted: Fitted) -> Packed:
    """The recordings as they are, padded to `length`."""
    timeline = _identity(recordings, fitted.overlapping, len(fitted.classes), length=length)
    features = _read_features(recordings, length * len(recordings), fitted.config)
    return _packed(timelines.with_features(timeline, features), length)


def _compensate_by(
    packed: Packed,
    recordings: Sequence[Recording],
    found: Results,
    sampling: ml_collections.FrozenConfigDict | ml_collections.ConfigDict,
    classes: Sequence[str],
) -> Packed:
    """Lengthens the short ones among the recordings' own detections."""
    labels = [
        sorted({classes.index(entry["label"]) for entry in found[r.name]}) for r in recordings
    ]
    size = max(1, *map(len, labels))
    slot_labels = np.zeros((len(recordings), size), np.int32)
    slot_where = np.zeros((len(recordings), size), bool)
    for row, present in enumerate(labels):
        slot_labels[row, : len(present)] = present
        slot_where[row, : len(present)] = True
    proposals = timelines.proposals_of(found, recordings, slot_labels, slot_where, classes)
    arrays = dataclasses.replace(
        packed.timeline.recordings, slot_labels=slot_labels, slot_where=slot_where
    )
    timeline = dataclasses.replace(packed.timeline, recordings=arrays)
    proposals = jax.jit(timelines.best_of_each_place)(proposals)
    timeline = _compensate(timeline, proposals, recordings, sampling)
    # Test recordings have no slots of their own: the network must not be told what was found.
    timeline = dataclasses.replace(timeline, recordings=packed.timeline.recordings)
    length = timeline.weights.shape[1]
    return _packed(timeline, _num_samples(int(timeline.counts.max()), length))


def _num_samples(longest: int, length: int) -> int:
    """Padded length of lengthened timelines of recordings that are padded to `length`."""
    # Coarsely, since every other length is another program.
    return max(length, packing.bucket(longest, max(length // 4, _LENGTH_STEP)))


def _identity(
    recordings: Sequence[Recording],
    overlapping: Sequence[tuple[int, int]],
    num_classes: int,
    *,
    most_points: timelines.MostPoints = timelines.NO_POINTS,
    **sizes: int,
) -> timelines.Timeline:
    """The untouched timeline, without features."""
    pairs = np.zeros((num_classes, num_classes), bool)
    for first, second in overlapping:
        pairs[first, second] = pairs[second, first] = True
    packed = jax.tree.map(jnp.asarray, packing.pack_labels(recordings, **sizes))
    return timelines.identity_timeline(packed, jnp.asarray(pairs), most_points=most_points)


def _read_features(
    recordings: Sequence[Recording], num_rows: int, config: ml_collections.FrozenConfigDict
) -> jax.Array:
    """All features of recordings, on the device."""
    precision = config.model.precision
    return jnp.asarray(packing.pack_features(recordings, num_rows=num_rows, precision=precision))


def _compensate(timeline, proposals, recordings, sampling):
    tau = [sampling.tau_s / recording.grid.stride_s for recording in recordings]
    return jax.jit(timelines.compensate)(
        timeline,
        proposals,
        tau=jnp.asarray(tau, jnp.float32),
        delta=sampling.delta,
        alpha=sampling.alpha,
    )


def _common_sizes(
    datasets: Sequence[Dataset], config: ml_collections.FrozenConfigDict
) -> dict[str, Any]:
    """Sizes that the training recordings of each data set fit in, see `_identity`."""
    recordings = [recording for dataset in datasets for recording in dataset.train]
    return {
        "length": _bucket_of(recordings),
        "num_points": max(len(recording.points) for recording in recordings),
        "num_slots": max(len(labels_of(recording)) for recording in recordings),
        "most_points": timelines.most_points_of(recordings, config.train.length),
    }


def _bucket_of(recordings: Sequence[Recording]) -> int:
    return packing.bucket(max(len(recording.features) for recording in recordings), _LENGTH_STEP)


def _groups(
    recordings: Sequence[_T], length_of: Callable[[_T], int]
) -> Iterator[tuple[int, list[_T]]]:
    """Groups of at most `_CHUNK` recordings, and the length to pad each to.

    Lengths double from one kind of group to the next, so that padding stays small; below 1,024
    snippets another compilation would cost more than it saves.
    """
    kinds: dict[int, list[_T]] = {}
    for recording in recordings:
        size = max(length_of(recording), 1023)
        kinds.setdefault(size.bit_length(), []).append(recording)
    for alike in kinds.values():
        length = packing.bucket(max(map(length_of, alike)), _LENGTH_STEP)
        for group in _equal_parts(alike):
            yield length, group


def _equal_parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Parts of at most `_CHUNK`, so that one program serves all."""
    size = min(_CHUNK, len(items))
    for first in range(0, len(items), size):
        # The last part is filled up with some of the part before it.
        first = min(first, len(items) - size)
        yield items[first : first + size]


# --- rounds ---


def _fitted(
    params: Sequence[Any], config: ml_collections.FrozenConfigDict, dataset: Dataset
) -> Fitted:
    dim = dataset.train[0].features.shape[1]
    params = tuple(sharding.replicate(one, sharding.local_mesh()) for one in params)
    return Fitted(params, config, tuple(dataset.classes), dim, tuple(dataset.overlapping))


def compensates_test(fitted: Fitted, number: int) -> bool:
    """Whether a round's network reads recordings once more, lengthened where it found actions."""
    sampling = fitted.config.sampling
    return sampling.compensate and sampling.test_compensation and number > 0


def _read(fitted: Fitted, number: int, recordings, packed: Packed) -> dict[str, ScoreSequence]:
    return localization.read_recordings(
        fitted.params[number],
        recordings,
        input_pipeline.chunks(packed.timeline, recordings, fitted.config.model.precision),
        model=methods.method_of(fitted.config).make_model(fitted.config, len(fitted.classes)),
        config=update.compiled_config(fitted.config),
        num_samples=packed.lengths.whole[-1],
    )


def hold_out(
    dataset: Dataset, config: ml_collections.FrozenConfigDict
) -> tuple[Dataset, tuple[Recording, ...]]:
    """Sets the last `config.train.holdout` training recordings aside."""
    holdout = config.train.holdout
    if holdout >= len(dataset.train):
        raise ValueError(
            f"train.holdout={holdout}; expected fewer than the {len(dataset.train)} training "
            "recordings"
        )
    cut = len(dataset.train) - holdout
    return dataclasses.replace(dataset, train=dataset.train[:cut]), dataset.train[cut:]


def point_criterion(results: Results, recordings: Sequence[Recording], classes) -> float:
    """How well proposals explain points alone: the only criterion that sees no start and no end.

    The mean over points of the score of the best proposal of its class that contains the point and
    no other point; 0 where there is none.
    """
    scores = point_scores(results, recordings, classes)
    return float(scores.mean()) if len(scores) else 0.0


def point_scores(results: Results, recordings: Sequence[Recording], classes) -> np.ndarray:
    """What `point_criterion` is the mean of: `[P]`, for all points of the recordings in order."""
    scores = [np.zeros(0)]
    for recording in recordings:
        entries, points = results[recording.name], recording.points
        segments = np.array([entry["segment"] for entry in entries]).reshape(-1, 2)
        labels = np.array([classes.index(entry["label"]) for entry in entries], int)
        values = np.array([entry["score"] for entry in entries])
        times_s = np.array([point.time_s for point in points])
        inside = (segments[:, :1] <= times_s) & (times_s < segments[:, 1:])
        alone = inside.sum(axis=1, keepdims=True) == 1
        own = labels[:, None] == np.array([point.label for point in points], int)
        best = np.where(inside & alone & own, values[:, None], 0).max(axis=0, initial=0)
        scores.append(best)
    return np.concatenate(scores)


def _criterion(
    held_out: Sequence[Recording],
    config: ml_collections.FrozenConfigDict,
    dataset: Dataset,
    earlier: tuple[Any, ...],
) -> Callable[[Any], float] | None:
    """Scores the parameters of the round that comes after the `earlier` ones."""
    if not held_out:
        return None
    options = localization.proposal_options(config.localization)

    def criterion(params):
        fitted, number = _fitted((*earlier, params), config, dataset), len(earlier)
        lengthen = compensates_test(fitted, number)
        scores = _read_round(fitted, number, held_out, lengthen=lengthen)
        found = _relocalize_shared(scores, options, fitted.classes)
        return point_criterion(found, held_out, dataset.classes)

    return criterion


def _propose(fitted: Fitted, dataset: Dataset, packed: Packed, workdir: Path) -> Results:
    """What the last round's network proposes on the training recordings, found once."""
    number = len(fitted.params) - 1
    path = workdir / f"round_{number}" / "proposals_train.json"
    if not processes.once(path.exists):
        rows = np.array(processes.mine(range(len(dataset.train))), np.int32)
        found = processes.gather(_propose_in(fitted, number, dataset, packed, rows))
        found = {recording.name: found[recording.name] for recording in dataset.train}
        processes.once(files.write_json, path, activitynet(found))
    # Read back from the file even when just written: it is the only way to the next round.
    return processes.once(files.read_json, path)["results"]


def _propose_in(
    fitted: Fitted, number: int, dataset: Dataset, packed: Packed, rows: np.ndarray
) -> Results:
    """Proposals on some of the training recordings, each as a whole, in their own classes."""
    counts = np.asarray(packed.timeline.counts)[rows]
    lengths = packed.lengths.whole
    kinds = np.searchsorted(lengths[:-1], counts)
    results, max_runs = {}, localization.MAX_RUNS
    for kind, length in enumerate(lengths):
        alike = rows[kinds == kind]
        if not len(alike):
            continue
        timeline = packed.timeline
        if len(alike) < len(dataset.train):
            timeline = timelines.take(timeline, alike)
        recordings = [dataset.train[row] for row in alike]
        read = _read(fitted, number, recordings, _packed(timeline, length))
        for part in _equal_parts(recordings):
            # In the same shapes in all rounds.
            found, max_runs = localization.locate_scores(
                {
                    one.name: RecordingScores(one.grid, one.duration_s, *[read[one.name]] * 2)
                    for one in part
                },
                options=localization.proposal_options(fitted.config.localization),
                classes=fitted.classes,
                length=packed.timeline.weights.shape[1],
                num_samples=length,
                wanted={one.name: labels_of(one) for one in part},
                max_runs=max_runs,
            )
            results |= found
    return results


def _test_round(
    fitted: Fitted, dataset: Dataset, workdir: Path, report: Callable[[str], None]
) -> bool:
    """Writes what the last round's network detects in the test recordings, and how good that is.

    Then the same of all rounds so far. False where there is nothing to do.
    """
    number = len(fitted.params) - 1
    done = workdir / f"round_{number}" / "evaluation.json"
    if not dataset.test or processes.once(done.exists):
        return False
    scores: dict[str, RecordingScores] = {}
    found = predict_round(fitted, number, dataset.test, scores=scores)
    processes.once(_write_test_round, fitted, found, scores, dataset, workdir, report)
    return True


def _write_test_round(
    fitted: Fitted,
    found: Results,
    scores: dict[str, RecordingScores],
    dataset: Dataset,
    workdir: Path,
    report: Callable[[str], None],
) -> None:
    config, number = fitted.config, len(fitted.params) - 1
    folder = workdir / f"round_{number}"
    write_scores(folder / "scores_test.npz", scores)
    log = metrics_log.MetricsLog(workdir / "metrics.jsonl")
    log.rewind(number, config.train.steps)
    metrics = _write_detections(folder / "detections_test.json", found, dataset, config)
    report(f"round {number}\n{detection.format_table(metrics)}")
    _log_evaluation(log, metrics, round=number, event="evaluation")
    # Read from files, so that a run that goes on needs no network for it.
    paths = [workdir / f"round_{one}" / "scores_test.npz" for one in range(number + 1)]
    mean = ensemble.mean_scores(map(read_scores, paths))
    write_scores(workdir / "scores_test.npz", mean)
    found = relocalize(mean, config.localization, fitted.classes)
    of_all = _write_detections(workdir / "detections.json", found, dataset, config)
    if number:
        report(f"all rounds, 0 to {number}\n{detection.format_table(of_all)}")
        _log_evaluation(log, of_all, round=number, event="evaluation_of_all_rounds")
    files.write_json(workdir / "evaluation.json", of_all.to_dict())
    # Last, since it marks the round as done.
    files.write_json(folder / "evaluation.json", metrics.to_dict())


def _write_detections(
    path: Path, found: Results, dataset: Dataset, config: ml_collections.FrozenConfigDict
) -> detection.DetectionMetrics:
    files.write_json(path, activitynet(found))
    return evaluate(found, dataset.ground_truth, config)


def _log_evaluation(
    log: metrics_log.MetricsLog, metrics: detection.DetectionMetrics, **place: Any
) -> None:
    middle = int(np.argmin(np.abs(metrics.tious - 0.5)))
    log.append(
        **place,
        average_map=float(metrics.average_map),
        map=metrics.map.tolist(),
        tious=metrics.tious.tolist(),
        short_recall=_number(metrics.short_recall[middle]),
        long_recall=_number(metrics.long_recall[middle]),
    )


def _gather_scores(said: dict[str, RecordingScores]) -> dict[str, RecordingScores]:
    """The union of what the processes hold."""
    if processes.count() == 1:
        return said
    merged = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.npz"
        write_scores(path, said)
        for payload in processes.gather_bytes(path.read_bytes()):
            path.write_bytes(payload)
            merged |= read_scores(path)
    return merged


def evaluate(
    results: Results,
    ground_truth: dict[str, Any],
    config: ml_collections.FrozenConfigDict | ml_collections.ConfigDict,
) -> detection.DetectionMetrics:
    """Scores detections as a config asks; "short" is what compensation sampling would lengthen."""
    if config.evaluation.drop_ambiguous:
        results = detection.without_ambiguous(results, ground_truth.get("ambiguous", {}))
    return detection.evaluate_detections(
        ground_truth,
        activitynet(results),
        tious=config.evaluation.tious,
        short_s=config.sampling.tau_s / (2 * config.sampling.delta + 1),
    )


def activitynet(results: Results) -> dict[str, Any]:
    """Detections as ActivityNet's JSON has them."""
    return {"version": "tal_jax", "results": results, "external_data": {"used": False}}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _describe_round(
    number: int,
    packed: Packed,
    recordings: Sequence[Recording],
    config: ml_collections.FrozenConfigDict,
) -> str:
    timeline = packed.timeline
    before = int(timeline.recordings.where.sum())
    after = int(timeline.counts.sum())
    window = config.train.length
    long = int((timeline.counts > window).sum())
    line = f"round {number}: {len(timeline.counts)} timelines, {before} snippets"
    if after != before:
        line += f", lengthened to {after}"
    if packed.lengths.windowed:
        line += f"; {long} timelines exceed train.length={window}, updates read windows of them"
    elif long:
        line += f"; {long} timelines exceed train.length={window}, updates read that many places"
    points = int(timeline.instance_where.sum())
    line += f", {points} pseudo instances" if points else ""
    place = "streamed" if timeline.recordings.features is None else "on the device"
    return (
        f"{line}; features {place} ({input_pipeline.num_bytes(config, recordings) / 1e6:,.1f} MB)"
    )
