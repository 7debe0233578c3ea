"""Fits networks: rounds of preparing, training, proposing and evaluating, for one run or several.

Between rounds nothing is carried over but proposals on the training recordings: a JSON file in the
work directory that a person can read, edit or replace.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax import methods
from tal_jax._errors import InputError
from tal_jax.config import Config, check_config
from tal_jax.data import locks
from tal_jax.data.detections import Results, read_results, write_results
from tal_jax.data.recordings import Dataset, Recording, check_dataset, read_features
from tal_jax.data.shards import ShardFeatures
from tal_jax.evaluation.point_criterion import point_criterion
from tal_jax.inference import localize
from tal_jax.inference.forward import Fitted, lengthens, predict_recordings
from tal_jax.inference.predict import predict_round, propose
from tal_jax.runs import detector_stage, members, results, warm_start
from tal_jax.runs import workdir as work
from tal_jax.runs.round_folders import DETECTOR
from tal_jax.training import automatic, input_pipeline, loop, processes
from tal_jax.training.prepare import Prepared, common_sizes, hold_out, prepare_round, round_lengths

Report = Callable[[str], None]


def fit(
    dataset: Dataset,
    config: Config,
    *,
    workdir: str | Path,
    start_from: str | Path | None = None,
    renamed: Mapping[str, str] | None = None,
    report: Report = print,
) -> Fitted:
    """Trains all rounds on a data set, evaluating each on its test recordings.

    A run that was stopped continues from its work directory, in the middle of a round too, and ends
    with bitwise the same parameters.

    With `start_from` it is a retraining, after labels or classes changed: it begins from the
    networks of another run, reads its features as that did, and reports the events gained and lost.

    Args:
      dataset: recordings with points or video-level labels, and test recordings with ground truth
        if there are any.
      config: see `tal_jax.config`; for a retraining from `retraining_config`.
      workdir: the run's work directory.
      start_from: work directory of the run to begin from, which must be there at the start only.
      renamed: the names that classes of that run have now, where these differ.
      report: prints a line.

    Returns:
      The networks of all rounds.

    Raises:
      InputError: for a config or data set that cannot be trained on, a work directory of another
        run, or a loss that is no longer finite.
      OSError: if the work directory cannot be written.
    """
    options: dict[str, Any] = {"start_from": start_from, "renamed": renamed, "report": report}
    return fit_many([dataset], [config], workdirs=[workdir], **options)[0]


def fit_many(
    datasets: Sequence[Dataset],
    configs: Sequence[Config],
    *,
    workdirs: Sequence[str | Path],
    start_from: str | Path | None = None,
    renamed: Mapping[str, str] | None = None,
    report: Report = print,
) -> list[Fitted]:
    """Trains several runs in one compiled program: what `fit` does, for each of them.

    The runs may differ in their seeds, their points, the weights of the loss's parts, the rates of
    `config.train`, and all that comes after the network. Features that are the same for all are on
    the device once. Every work directory is that of a single run, which `fit` can continue.

    An accelerator makes each update of all runs at once, and its numbers differ from those of `fit`
    by rounding. On a CPU, which one run fills, they take turns, and the numbers are the same where
    the runs' data have the same padding as alone.

    Args:
      datasets: M data sets, one a run, since points depend on the seed.
      configs: M configs; without `train.holdout` where there are several.
      workdirs: M work directories.
      start_from: see `fit`; for all of the runs.
      renamed: see `fit`.
      report: prints a line.

    Returns:
      The networks of all rounds, of each of the M runs.

    Raises:
      InputError: as `fit` does, or if runs differ in what is compiled or in the shape of their
        data, naming what differs.
      OSError: if a work directory cannot be written.
    """
    folders, source = list(map(Path, workdirs)), None if start_from is None else Path(start_from)
    report = report if processes.is_primary() else lambda line: None
    for folder in folders:
        processes.on_primary(warm_start.check_continued, folder, source)
    if source is not None:
        datasets = [
            warm_start.standardized_as(dataset, folder, source)
            for dataset, folder in zip(datasets, folders, strict=True)
        ]
    given, renamed = configs, renamed or {}
    configs = _decide(datasets, configs, folders, source, renamed, report)
    configs = _check(datasets, configs, folders)
    with contextlib.ExitStack() as stack:
        for folder in folders:
            processes.on_primary(stack.enter_context, locks.one_writer(folder, "training"))
        runs = _begin(datasets, configs, given, folders, source, renamed, report)
        return _fit_rounds(runs, report)


def _fit_rounds(runs: Sequence["_Run"], report: Report) -> list[Fitted]:
    for number in range(runs[0].config.train.rounds):
        began = time.monotonic()
        prepared = _prepare(runs, number, report)
        _train(runs, prepared, number, report)
        for run, data in zip(runs, prepared, strict=True):
            run.proposals = _propose(run, data, number)
            _measure(run, number, report)
        del prepared, data  # neither the test recordings nor the next round need room beside it
        if any([_evaluate(run, number, report) for run in runs]):
            report(f"round {number}: {time.monotonic() - began:.0f} s")
    if DETECTOR in runs[0].config.stages:
        _fit_detectors(runs, report)
    for run in runs:
        if run.start is not None:
            own = results.titled(report, run.title)
            warm_start.measure(run.workdir, run.fitted, run.whole, own)
    return [run.fitted for run in runs]


def _fit_detectors(runs: Sequence["_Run"], report: Report) -> None:
    """The second stage of all runs."""
    began = time.monotonic()
    members = [
        detector_stage.Member(
            run.dataset, run.config, run.workdir, run.title, run.fitted, run.start
        )
        for run in runs
    ]
    for run, fitted in zip(runs, detector_stage.train_stage(members, report), strict=True):
        run.fitted = fitted
    report(f"detector: {time.monotonic() - began:.0f} s")


@dataclasses.dataclass
class _Run:
    """One run between its rounds."""

    dataset: Dataset
    held_out: tuple[Recording, ...]
    config: Config
    workdir: Path
    title: str  # before its lines; empty for a single run
    fitted: Fitted  # of the rounds so far
    whole: Dataset  # with the recordings that were held out
    start: warm_start.Start | None  # of a retraining
    proposals: Results | None = None  # of the round before, or of the run that it begins from
    short_s: float | None = None  # what the last round lengthened actions below


def _decide(
    datasets: Sequence[Dataset],
    configs: Sequence[Config],
    folders: list[Path],
    source: Path | None,
    renamed: Mapping[str, str],
    report: Report,
) -> list[Config]:
    """The configs without settings that are left to the data.

    A run that goes on keeps what it began with, where other points or another version of this
    package would decide otherwise. Runs that are trained at once share a program, so the data of
    the first one decide for all.
    """
    matching = len(datasets) == len(configs) == len(folders)
    if not matching or (source is None and not any(map(automatic.undecided, configs))):
        return list(configs)
    if source is not None:
        configs = [
            warm_start.reopened(config, source, folder, datasets[0])
            for config, folder in zip(configs, folders, strict=True)
        ]
    begun = [processes.on_primary(work.begun_settings, folder) for folder in folders]
    configs = [
        automatic.with_values(config, values) for config, values in zip(configs, begun, strict=True)
    ]
    check_dataset(datasets[0])
    if source is not None and not begun[0]:
        decided, decisions = warm_start.decide(configs[0], source, datasets[0], renamed)
    else:
        decided, decisions = automatic.decide(configs[0], datasets[0])
    for line in automatic.format_decisions(decisions).splitlines():
        report(line)
    return [
        automatic.with_values(
            config,
            decided.to_dict(),
            keys={*automatic.undecided(config), *warm_start.SHORTENED},
        )
        for config in configs
    ]


def _check(
    datasets: Sequence[Dataset], configs: Sequence[Config], folders: list[Path]
) -> list[Config]:
    """Checks all that was given before anything is written."""
    configs = [check_config(config) for config in configs]
    for dataset, config in zip(datasets, configs, strict=False):  # counted below, by `members`
        check_dataset(dataset)
        _check_held_out(dataset, config)
    for dataset in datasets:
        pointless = not any(recording.points for recording in dataset.train)
        if pointless and any(DETECTOR in config.stages for config in configs):
            raise InputError(
                "stages: the detector learns from points, of which the training recordings have "
                "none; expected stages=('rounds',)"
            )
        # Now: a broken test file would show only after the first round. What is in shards was
        # checked when they were written.
        for recording in processes.host_shard(dataset.recordings):
            if not isinstance(recording.features, ShardFeatures):
                read_features(recording)
    if len(configs) != 1 or len(folders) != 1:
        members.check_configs(configs, folders)
        members.check_datasets(datasets, folders, configs[0].train.length)
        if processes.count() > 1 or any(
            input_pipeline.streams(config, dataset.train)
            for config, dataset in zip(configs, datasets, strict=True)
        ):
            raise InputError(
                "several runs are trained in one process, on features that fit on its device; "
                "train them one after another instead"
            )
    return configs


def _check_held_out(dataset: Dataset, config: Config) -> None:
    """Refuses to hold out what is needed, or to stop by recordings that say nothing."""
    kept, held_out = hold_out(dataset, config)
    of_kept, of_held_out = (
        sum(len(recording.points) for recording in recordings)
        for recordings in (kept.train, held_out)
    )
    train = config.train
    if train.patience and not of_held_out:
        raise InputError(
            f"train.patience={train.patience}: the recordings that train.holdout={train.holdout} "
            "holds out, the last ones, have no points to stop by; expected at least one, or "
            "train.patience=0"
        )
    if of_held_out and not of_kept and methods.method_of(config).supervision == "points":
        raise InputError(
            f"train.holdout={train.holdout}: the recordings that are left have no points to learn "
            "from; expected at least one in all but the last recordings"
        )


def _begin(
    datasets: Sequence[Dataset],
    configs: Sequence[Config],
    given: Sequence[Config],
    folders: list[Path],
    source: Path | None,
    renamed: Mapping[str, str],
    report: Report,
) -> list[_Run]:
    """Starts or continues the runs; `given` are their configs before anything was decided."""
    runs, notes = [], []
    for dataset, config, before, folder in zip(datasets, configs, given, folders, strict=True):
        decided = automatic.undecided(before)
        if source is not None and not work.begun_settings(folder):
            anew = warm_start.begins_anew(before, source, dataset)
            warm_start.begin(folder, source, config, dataset, renamed, report, anew=anew)
            decided = warm_start.still_decided(source, before)
        notes += [
            *processes.on_primary(work.start, folder, config, dataset, decided),
            *dataset.notes,
        ]
        title = folder.name if len(folders) > 1 else ""
        dim = dataset.train[0].features.shape[1]
        fitted = Fitted((), config, tuple(dataset.classes), dim)
        start = warm_start.read_start(folder)
        proposals = None if start is None else start.proposals
        held = hold_out(dataset, config)
        runs.append(_Run(*held, config, folder, title, fitted, dataset, start, proposals))
    for note in dict.fromkeys(notes):
        report(f"note: {note}")
    return runs


def _prepare(runs: Sequence[_Run], number: int, report: Report) -> list[Prepared]:
    """The data of a round; features that all runs share are packed once."""
    datasets = [run.dataset for run in runs]
    sizes = common_sizes(datasets, runs[0].config)
    share = len(runs) > 1 and members.same_features(datasets)
    prepared: list[Prepared] = []
    for run in runs:
        processes.on_primary(work.refuse_orphans, run.workdir, number)
        features = prepared[0].timeline.features if share and prepared else None
        prepared.append(
            prepare_round(run.dataset, run.config, run.proposals, sizes=sizes, features=features)
        )
        run.short_s = prepared[-1].short_s
        results.titled(report, run.title)(_describe(number, prepared[-1], run))
    return prepared


def _train(runs: Sequence[_Run], prepared: Sequence[Prepared], number: int, report: Report) -> None:
    """Trains a round's network of each run."""
    timelines = [data.timeline for data in prepared]
    round_members = []
    for run, timeline in zip(runs, timelines, strict=True):
        params = run.fitted.params[-1] if number and run.config.train.warm_start else None
        if run.start is not None and not number:
            params = run.start.params
        recordings, criterion = run.dataset.train, _criterion(run)
        round_members.append(
            loop.Member(run.config, timeline, recordings, run.workdir, params, criterion)
        )
    lengths = round_lengths(runs[0].config, timelines)
    states = loop.train_round(
        runs[0].fitted.model, round_members, number=number, lengths=lengths, report=report
    )
    for run, state in zip(runs, states, strict=True):
        run.fitted = run.fitted.with_round(state.params)


def _criterion(run: _Run) -> Callable[[Any], float] | None:
    """Scores the parameters of the next round on the points of the held-out recordings."""
    if not run.held_out:
        return None
    options = localize.proposal_options(run.config.localization)

    def criterion(params):
        fitted, number = run.fitted.with_round(params), len(run.fitted.params)
        found = predict_recordings(fitted, number, run.held_out, lengthen=lengthens(fitted, number))
        proposals = localize.localize_in_processes(found, options, fitted.classes)
        return point_criterion(proposals, run.held_out, fitted.classes)

    return criterion


def _propose(run: _Run, data: Prepared, number: int) -> Results:
    """The round's proposals on the training recordings, computed once."""
    path = work.round_folder(run.workdir, number) / "proposals_train.json"
    recordings = run.dataset.train
    if not processes.on_primary(path.exists):
        rows = processes.host_shard(range(len(recordings)))
        found = processes.all_gather(
            propose(run.fitted, number, recordings, rows, data.timeline, data.lengths)
        )
        found = {recording.name: found[recording.name] for recording in recordings}
        processes.on_primary(write_results, path, found)
    # Read back from the file even when just written: it is the only way to the next round.
    return processes.on_primary(read_results, path)


def _measure(run: _Run, number: int, report: Report) -> None:
    """Evaluates the pseudo segments that the points get from the round's proposals."""
    assert run.proposals is not None
    find = functools.partial(results.segments_of_proposals, run.dataset, run.config, run.proposals)
    own = results.titled(report, run.title)
    processes.on_primary(results.write_quality, run.dataset, find, number, run.workdir, own)


def _evaluate(run: _Run, number: int, report: Report) -> bool:
    """Evaluates the round and all rounds so far; False where there is nothing to do."""
    if run.title:
        report(f"{run.workdir}:")
    done = work.round_folder(run.workdir, number) / "evaluation.json"
    if not run.dataset.test or processes.on_primary(done.exists):
        return False
    found, predictions = predict_round(run.fitted, number, run.dataset.test)
    write = functools.partial(results.write_round, short_s=run.short_s)
    processes.on_primary(write, run.fitted, found, predictions, run.dataset, run.workdir, report)
    return True


def _describe(number: int, data: Prepared, run: _Run) -> str:
    """The line that a round begins with."""
    timeline, window = data.timeline, run.config.train.length
    before, after = int(timeline.where.sum()), int(timeline.counts.sum())
    long = int((timeline.counts > window).sum())
    line = f"round {number}: {len(timeline.counts)} timelines, {before} snippets"
    if after != before:
        line += f", lengthened to {after}"
        line += f" (actions under {data.short_s:.3g} s)" if data.short_s else ""
    if data.lengths.windowed:
        line += f"; {long} timelines exceed train.length={window}, updates read windows of them"
    elif long:
        line += f"; {long} timelines exceed train.length={window}, updates sample that many places"
    unknown = int((timeline.where & ~timeline.labelled).sum())
    if unknown:
        line += f", {before - unknown} of them labelled"
    known = int(timeline.known.sum())
    pseudo = int((timeline.instance_where & ~timeline.known).sum())
    line += f", {known} known instances" if known else ""
    line += f", {pseudo} pseudo instances" if pseudo else ""
    place = "streamed" if timeline.features is None else "on the device"
    size = input_pipeline.num_bytes(run.config, run.dataset.train) / 1e6
    return f"{line}; features {place} ({size:,.1f} MB)"
