"""The second stage of a run: a detector that learns from the pseudo segments of all rounds.

Its folder `detector` in the work directory::

    pseudo_segments.json   what it learns from, as annotations
    config.json            its settings, those that depend on the pseudo segments included
    projection.npz         the principal components that it reads the features by
    checkpoints/           its network
    params.npz             the parameters alone that it ended with
    proposals_train.json   detections of both stages in the training recordings
    detections_test.json   detections of the detector alone in the test recordings
    evaluation.json        their evaluation

What the rounds detect without it moves to the folder `all_rounds`; the work directory itself then
has the detections of both stages.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tal_jax.config import MOST_LEVELS, Config, detector_config
from tal_jax.data import files, packing
from tal_jax.data import timeline as timelines
from tal_jax.data.detections import Results, read_results, write_results
from tal_jax.data.predictions import read_predictions
from tal_jax.data.projection import Projection, principal_components
from tal_jax.data.recordings import Dataset, labels_of
from tal_jax.evaluation import detection
from tal_jax.inference.detector import FittedDetector, detect
from tal_jax.inference.forward import Fitted
from tal_jax.inference.fusion import fuse_stages
from tal_jax.inference.localize import localize_predictions
from tal_jax.methods.detector import make_model
from tal_jax.runs import results
from tal_jax.runs.round_folders import ALL_ROUNDS_FOLDER, DETECTOR_FOLDER, round_folders
from tal_jax.runs.warm_start import Start
from tal_jax.runs.workdir import read_projection
from tal_jax.training import loop, processes, pseudo_segments
from tal_jax.training.prepare import common_sizes
from tal_jax.training.update import TrainState

Report = Callable[[str], None]

# A segment whose farther end is this many strides of the coarsest level away fits that level.
_STRIDES = 4


@dataclasses.dataclass(frozen=True)
class Member:
    """One run's part in the stage."""

    dataset: Dataset
    config: Config
    workdir: Path
    title: str
    fitted: Fitted
    start: Start | None = None  # of a retraining


def train_stage(members: Sequence[Member], report: Report) -> list[Fitted]:
    """Trains the detectors of several runs, or what is left of it, and evaluates both stages."""
    documents = [_pseudo_segments(member, report) for member in members]
    projections = [_projection(member) for member in members]
    parts = _prepare(members, documents, projections)
    states = _train(members, parts, report)
    fitted = []
    for member, document, projection, part, state in zip(
        members, documents, projections, parts, states, strict=True
    ):
        _measure(member, document, report)
        classes = tuple(member.dataset.classes)
        detector = FittedDetector(state.params, part.config, projection, classes)
        fitted.append(dataclasses.replace(member.fitted, detector=detector))
        _propose(member, fitted[-1])
        _evaluate(member, fitted[-1], report)
    return fitted


def _prepare(
    members: Sequence[Member],
    documents: Sequence[dict[str, Any]],
    projections: Sequence[Projection],
) -> list[loop.Member]:
    """The timelines that the detectors learn from; features that runs share are placed once."""
    sizes = common_sizes([member.dataset for member in members], members[0].config)
    parts: list[loop.Member] = []
    packed, placed = None, None
    for member, document, projection in zip(members, documents, projections, strict=True):
        config = detector_config(member.config, _num_levels(document, member))
        path = member.workdir / DETECTOR_FOLDER / "config.json"
        processes.on_primary(files.write_json, path, config.to_dict())
        recordings = projection.apply_to(member.dataset.train)
        plain = packing.pack_timeline(recordings, overlapping=member.dataset.overlapping, **sizes)
        timeline = pseudo_segments.with_segments(plain, document, recordings)
        features = packing.pack_features(recordings)
        if packed is None or not np.array_equal(features, packed):
            packed, placed = features, jax.device_put(features)
        timeline = timelines.with_features(jax.device_put(timeline), placed)
        params = None if member.start is None else member.start.detector
        parts.append(loop.Member(config, timeline, recordings, member.workdir, params))
    return parts


def _train(
    members: Sequence[Member], parts: Sequence[loop.Member], report: Report
) -> list[TrainState]:
    """Networks of one number of levels are trained at once, each as it would be alone."""
    train = members[0].config.train
    counts = np.concatenate([np.asarray(part.timeline.counts) for part in parts])
    lengths = packing.lengths_of(counts, train.length)
    levels = [part.config.model.num_levels for part in parts]
    states: dict[int, TrainState] = {}
    for num_levels in sorted(set(levels)):
        alike = [index for index, own in enumerate(levels) if own == num_levels]
        trained = loop.train_round(
            make_model(parts[alike[0]].config, len(members[0].dataset.classes)),
            [parts[index] for index in alike],
            number=train.rounds,
            lengths=lengths,
            stage=DETECTOR_FOLDER,
            report=report,
        )
        states |= dict(zip(alike, trained, strict=True))
    return [states[index] for index in range(len(parts))]


# --- what it learns from ---


def _pseudo_segments(member: Member, report: Report) -> dict[str, Any]:
    path = member.workdir / DETECTOR_FOLDER / "pseudo_segments.json"
    if not processes.on_primary(path.exists):
        folders = round_folders(member.workdir, "proposals_train.json")
        rounds = [
            processes.on_primary(read_results, folder / "proposals_train.json")
            for folder in folders
        ]
        found = pseudo_segments.fuse_rounds(member.dataset, member.config, rounds)
        document = pseudo_segments.to_json(found, member.dataset)
        processes.on_primary(files.write_json, path, document)
    # Read back even when just written: a person may edit it before the stage goes on.
    document = processes.on_primary(files.read_json, path)
    pseudo_segments.check(document, member.dataset.train, path)
    sources = [
        entry.get("source", pseudo_segments.ANNOTATED)
        for recording in document["database"].values()
        for entry in recording["annotations"]
    ]
    counts = {source: sources.count(source) for source in pseudo_segments.SOURCES}
    parts = ", ".join(f"{count} {source}" for source, count in counts.items() if count)
    line = f"detector: {len(sources)} segments to learn from ({parts})"
    results.titled(report, member.title)(line)
    return document


def _projection(member: Member) -> Projection:
    arrays = processes.on_primary(_projection_arrays, member)
    # Other processes have them as lists of JSON, which are exact.
    return Projection(**{name: np.asarray(values) for name, values in arrays.items()})


def _projection_arrays(member: Member) -> dict[str, Any]:
    """The arrays of a member's projection, computed and written once."""
    folder = member.workdir / DETECTOR_FOLDER
    if not (folder / "projection.npz").exists():
        found = None if member.start is None else member.start.projection
        if found is None:
            most = member.config.detector.components
            found = principal_components(member.dataset.train, most)
        arrays = {"mean": found.mean, "components": found.components}
        files.write_npz(folder / "projection.npz", arrays)
    read = read_projection(folder)
    return {"mean": read.mean, "components": read.components}


def _num_levels(document: dict[str, Any], member: Member) -> int:
    """As many levels as the longest segments need, but for one in twenty."""
    if member.config.detector.num_levels:
        return member.config.detector.num_levels
    lengths = [
        (entry["segment"][1] - entry["segment"][0]) / recording.grid.stride_s
        for recording in member.dataset.train
        for entry in document["database"][recording.name]["annotations"]
    ]
    half = float(np.quantile(lengths, 0.95)) / 2 if lengths else 1.0
    return int(np.clip(math.ceil(math.log2(max(half, 1) / _STRIDES)) + 1, 3, MOST_LEVELS))


# --- results ---


def _measure(member: Member, document: dict[str, Any], report: Report) -> None:
    """Evaluates the pseudo segments; like a round's, after the updates, as the log has it."""
    find = functools.partial(results.segments_of_document, member.dataset, document)
    number = member.config.train.rounds
    write = functools.partial(results.write_quality, stage=DETECTOR_FOLDER)
    own = results.titled(report, member.title)
    processes.on_primary(write, member.dataset, find, number, member.workdir, own)


def _propose(member: Member, fitted: Fitted) -> None:
    """Detections of both stages in the training recordings, in their own classes, once."""
    path = member.workdir / DETECTOR_FOLDER / "proposals_train.json"
    if processes.on_primary(path.exists):
        return
    recordings, sigma = member.dataset.train, member.config.localization.soft_sigma
    wanted = {one.name: labels_of(one) for one in recordings}
    assert fitted.detector is not None
    found = detect(fitted.detector, recordings, soft_sigma=sigma, wanted=wanted)
    folders = round_folders(member.workdir, "proposals_train.json")
    if folders:
        rounds = processes.on_primary(read_results, folders[-1] / "proposals_train.json")
        found = fuse_stages(rounds, found, soft_sigma=sigma)
    processes.on_primary(write_results, path, found)


def _evaluate(member: Member, fitted: Fitted, report: Report) -> None:
    done = member.workdir / DETECTOR_FOLDER / "evaluation.json"
    if not member.dataset.test or processes.on_primary(done.exists):
        return
    assert fitted.detector is not None
    sigma = member.config.localization.soft_sigma
    found = detect(fitted.detector, member.dataset.test, soft_sigma=sigma)
    if member.title:
        report(f"{member.workdir}:")
    processes.on_primary(_write, member, found, report)


def _write(member: Member, found: Results, report: Report) -> None:
    """Writes the results of the rounds, of the detector, and of both."""
    workdir, config = member.workdir, member.config
    predictions = read_predictions(workdir / "scores_test.npz")
    rounds = localize_predictions(predictions, config.localization, member.dataset.classes)
    both = fuse_stages(rounds, found, soft_sigma=config.localization.soft_sigma)
    log, truth = results.open_log(workdir), member.dataset.ground_truth
    # What the last round lengthened actions below.
    short_s = results.evaluated_short_s(round_folders(workdir, "evaluation.json")[-1])

    def write(folder: Path, name: str, title: str, event: str, own: Results) -> None:
        write_results(folder / name, own)
        metrics = results.evaluate(own, truth, config, short_s=short_s)
        report(f"{title}\n{detection.format_table(metrics)}")
        results.log_metrics(log, metrics, config.train.rounds, event)
        # Last: it marks the results as written.
        files.write_json(folder / "evaluation.json", metrics.to_dict())

    test = "detections_test.json"
    before = workdir / ALL_ROUNDS_FOLDER
    write_results(before / test, rounds)
    metrics = results.evaluate(rounds, truth, config, short_s=short_s)
    files.write_json(before / "evaluation.json", metrics.to_dict())
    write(workdir, "detections.json", "all stages", "evaluation_of_all_stages", both)
    write(workdir / DETECTOR_FOLDER, test, "detector", "evaluation_of_detector", found)
