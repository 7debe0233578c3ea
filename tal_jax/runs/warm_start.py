"""Retraining: a new run that begins from the networks of another one, after labels changed.

A work directory is bound to its data, so that a retraining has its own. The folder `start` in it
has all that it takes from the other run, which is read only once. Networks that saw few labels at
first learn worse from many later ones than new networks do. Where there are many more labels than
at the last training from new parameters (`ANEW`), a retraining is another such one::

    start.json            the run it began from, its threshold, what of the labels changed
    network.npz           the parameters of the last round, with rows for all classes of now
    detector.npz          those of the detector, if there was one, and
    projection.npz        the principal components that it reads the features by
    proposals_train.json  what the networks propose for the labels as they are now
    detections_all.json   what they detect in all recordings (this alone, with new parameters)

At its end the work directory has

    scores_all.npz        score sequences of all recordings, of training and of test
    detections_all.json   detections in all recordings
    changes.json          events gained and lost by class, and warnings
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from ml_collections import config_dict

from tal_jax import methods
from tal_jax._errors import InputError
from tal_jax.config import NULLABLE, Config, detector_config, flatten, nest
from tal_jax.data import files
from tal_jax.data.detections import Results, read_results, with_names, write_results
from tal_jax.data.fingerprint import Fingerprint, fingerprint
from tal_jax.data.manifest import Manifest, check_same_backbone
from tal_jax.data.predictions import write_predictions
from tal_jax.data.projection import Projection
from tal_jax.data.recordings import Dataset, labels_of, restandardize
from tal_jax.evaluation.changes import (
    ClassChanges,
    collapse_warnings,
    compare_events,
    format_table,
)
from tal_jax.inference.events import select_all
from tal_jax.inference.forward import Fitted
from tal_jax.inference.predict import predict, predict_mean, predict_stages, propose
from tal_jax.methods.detector import make_model as make_detector
from tal_jax.runs import workdir as work
from tal_jax.runs.round_folders import (
    ALL_DETECTIONS,
    ALL_SCORES,
    CHANGES,
    DETECTOR,
    DETECTOR_FOLDER,
)
from tal_jax.training import automatic, processes, update
from tal_jax.training.automatic import Decision
from tal_jax.training.prepare import hold_out, prepare_round

START_FOLDER = "start"
PROPOSALS = "proposals_train.json"

# The least part of a round's updates that a retraining makes.
LEAST_PART = 0.25
# How many times the labels of the last training from new parameters ask for another such one.
ANEW = 1.2
# The least tIoU of an event that is the same as before.
SAME_TIOU = 0.5
# Settings that fix the shapes of parameters: they stay, whatever the data are now.
_SHAPES = ("model.widths", "model.dilations")
# Settings that a retraining decides from how many of the labels changed.
SHORTENED = ("train.rounds", "train.warm_start", "train.steps", "detector.steps")
# The classes that were renamed since the run that a retraining begins from.
_NONE: Mapping[str, str] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """What a retraining begins with; None where it begins from new parameters."""

    params: Any | None  # of the first round
    proposals: Results | None
    detector: Any | None  # parameters
    projection: Projection | None  # of the detector's features


# --- settings ---


def retraining_config(source: str | Path) -> ml_collections.ConfigDict:
    """The config of a retraining: that of a run, for one round of few updates.

    What was decided from the data is decided again, but for what fixes the shapes of the network.
    `fit` decides the number of rounds and updates (None), from how many of the labels changed.
    Where there are many more of them it trains all rounds, from new parameters, unless
    `train.rounds` is given.

    Args:
      source: work directory of the run to begin from.

    Returns:
      A config for `fit(..., start_from=source)`; any setting may be changed that keeps shapes.

    Raises:
      InputError: if the run cannot be read.
    """
    source = Path(source)
    config: Config = ml_collections.ConfigDict(work.read(source)[0].to_dict())
    for key, kind in NULLABLE.items():
        section, name = key.split(".")
        if config[section][name] is None:
            config[section][name] = config_dict.placeholder(kind)
    for key in {*_decided(source), *SHORTENED} - {*_SHAPES, "detector.steps"}:
        _leave_open(config, key)
    detector = source / DETECTOR_FOLDER / "config.json"
    if DETECTOR in config.stages and detector.exists():
        config.detector.num_levels = files.read_json(detector)["model"]["num_levels"]
        _leave_open(config, "detector.steps")
    return config


def _leave_open(config: Config, key: str) -> None:
    section, name = key.split(".")
    config[section][name] = config_dict.placeholder(config[section].get_type(name))


def _decided(source: Path) -> list[str]:
    """The settings that a run decided from its data; none for runs of earlier versions."""
    return list(files.read_json(source / "run.json").get("decided", ()))


def still_decided(source: Path, config: Config) -> list[str]:
    """Which of these a retraining decides, too: those of its config that are not given."""
    own = {*automatic.undecided(config), *_SHAPES}
    return [key for key in _decided(source) if key in own]


def decide(
    config: Config, source: Path, dataset: Dataset, renamed: Mapping[str, str] = _NONE
) -> tuple[ml_collections.ConfigDict, tuple[Decision, ...]]:
    """Fills in the settings that `retraining_config` left open; see `automatic.decide`."""
    given: Config = ml_collections.ConfigDict(config.to_dict())
    whole, open_steps = _whole_training(source), given.train.steps is None
    if open_steps and "train.steps" not in _decided(source):
        given.train.steps = whole["steps"]
    anew = begins_anew(config, source, dataset)
    of_rounds = _decide_rounds(given, whole, anew)
    found, decisions = automatic.decide(given, dataset)
    decided: Config = found
    decisions = [*of_rounds, *(one for one in decisions if one.key != "train.steps" or anew)]
    changed, count = changed_labels(source, dataset, renamed)
    share = 1.0 if anew else min(max(changed / count if count else 1.0, LEAST_PART), 1.0)
    labels = f"{changed:,} of {count:,} labels changed" if count else "labels without a time"

    def shorten(section: str, whole_steps: int) -> None:
        every = decided.train.search_every
        steps = math.ceil(whole_steps * share / every) * every
        decided[section].steps = steps
        why = f"{share:.0%} of {whole_steps}: {labels}"
        decisions.append(Decision(f"{section}.steps", steps, why))

    if open_steps and not anew:
        shorten("train", decided.train.steps)
    if decided.detector.steps is None:
        shorten("detector", whole["detector_steps"])
    return decided, tuple(decisions)


def begins_anew(config: Config, source: Path, dataset: Dataset) -> bool:
    """Whether a retraining is one from new parameters, see the module's description.

    Args:
      config: before settings were decided; a given number of rounds continues the networks.
      source: work directory of the run to begin from.
      dataset: with the labels of now.
    """
    now = _labels(work.labels_document(dataset)).total()
    return config.train.rounds is None and now >= ANEW * _whole_training(source)["labels"] > 0


def reopened(config: Config, source: Path, workdir: Path, dataset: Dataset) -> Config:
    """The config of a retraining, without shapes where it begins, or began, from new parameters."""
    if work.begun_settings(workdir):
        source, about = workdir, files.read_json(workdir / START_FOLDER / "start.json")
        anew = config.train.rounds is None and about.get("anew", False)
    else:
        anew = begins_anew(config, source, dataset)
    if not anew:
        return config
    opened: Config = ml_collections.ConfigDict(config.to_dict())
    for key in {*_SHAPES} & {*_decided(source)}:
        _leave_open(opened, key)
    opened.detector.num_levels = _whole_training(source)["num_levels"]
    return opened


def _decide_rounds(given: Config, whole: Mapping[str, Any], anew: bool) -> list[Decision]:
    """Fills in rounds, and whether a round begins from the one before."""
    settings = {"rounds": whole["rounds"], "warm_start": whole["warm_start"]}
    why = f"new parameters: {whole['labels']:,} labels at the last training from new ones"
    if not anew:
        settings, why = {"rounds": 1, "warm_start": True}, "begins from the networks of the run"
    decisions = []
    for name, value in settings.items():
        if given.train[name] is None:
            given.train[name] = value
            decisions.append(Decision(f"train.{name}", value, why))
    return decisions


def _whole_training(source: Path) -> dict[str, Any]:
    """Of the last training from new parameters, however long ago: its size and its labels."""
    started = source / START_FOLDER / "start.json"
    if started.exists():
        # Earlier versions did not write the number of labels: with none, networks are continued.
        unknown = {"rounds": 1, "warm_start": True, "num_levels": 0, "labels": 0}
        return unknown | files.read_json(started)["whole_updates"]
    config, _ = work.read(source)
    labels = _labels(files.read_json(source / "train_points.json")).total()
    return _size(config, labels)


def _size(config: Config, labels: int) -> dict[str, Any]:
    return {
        "rounds": config.train.rounds,
        "warm_start": config.train.warm_start,
        "steps": config.train.steps,
        "detector_steps": config.detector.steps,
        "num_levels": config.detector.num_levels,
        "labels": labels,
    }


def changed_labels(
    source: Path, dataset: Dataset, renamed: Mapping[str, str] = _NONE
) -> tuple[int, int]:
    """How many labels with a time were added or moved since a run, or removed; and how many are.

    A label is a point with its class and segment, a background point, or a done stretch.
    """
    before = _labels(files.read_json(source / "train_points.json"), renamed)
    now = _labels(work.labels_document(dataset))
    changed = max((now - before).total(), (before - now).total())
    return min(changed, now.total()), now.total()


def _labels(document: Mapping[str, Any], renamed: Mapping[str, str] = _NONE) -> collections.Counter:
    """The labels of a document from `workdir.labels_document`."""
    found = collections.Counter()
    for name, recording in document["database"].items():
        for one in recording["annotations"]:
            label = renamed.get(one["label"], one["label"])
            found[name, label, one["point"], *one.get("segment", ())] += 1
        found.update((name, time_s) for time_s in recording.get("background", ()))
        found.update((name, "done", *stretch) for stretch in recording.get("done", ()))
    return found


# --- the start ---


def standardized_as(dataset: Dataset, workdir: Path, source: Path) -> Dataset:
    """The data set standardised as for the networks that it is trained further with.

    Raises:
      InputError: if only one of both is standardised.
    """
    origin = workdir if (workdir / "config.json").exists() else source
    scaling = work.read_scaling(origin)
    if (scaling is None) != (dataset.scaling is None):
        state = "not standardised" if scaling is None else "standardised"
        raise InputError(f"{origin}: its features are {state}; expected the same of the data set")
    if scaling is None or dataset.scaling is None:
        return dataset
    if len(scaling.mean) != dataset.train[0].features.shape[1]:
        dim = dataset.train[0].features.shape[1]
        raise InputError(f"{origin}: features of D = {len(scaling.mean)}; the data have D = {dim}")
    return restandardize(dataset, scaling)


def check_continued(workdir: Path, source: Path | None) -> None:
    """Refuses to continue a run that began otherwise.

    Raises:
      InputError: naming what it began from.
    """
    if not (workdir / "config.json").exists():
        return
    path = workdir / START_FOLDER / "start.json"
    began = files.read_json(path)["from"] if path.exists() else None
    given = None if source is None else str(source.resolve())
    if began == given:
        return
    if began is None:
        raise InputError(
            f"{workdir} holds a run that did not begin from another one; choose another work "
            f"directory to begin from {source}"
        )
    raise InputError(
        f"{workdir} holds a run that began from {began}, not {source}; continue it with the same "
        "--from (start_from), or choose another work directory"
    )


def begin(
    workdir: Path,
    source: Path,
    config: Config,
    dataset: Dataset,
    renamed: Mapping[str, str],
    report: Callable[[str], None],
    *,
    anew: bool = False,
) -> None:
    """Writes what a retraining takes from the run that it begins from; once.

    A class that was renamed keeps its rows of the networks. A training from new parameters takes
    only what that run detects, to tell what changed.

    Raises:
      InputError: if that run cannot be read, or its networks do not fit the data or the config.
      OSError: if a file cannot be written.
    """
    if (workdir / "config.json").exists():
        return
    if workdir.resolve() == source.resolve():
        raise InputError(f"{workdir}: a run cannot begin from itself; choose another folder")
    if processes.count() > 1:
        raise InputError("start_from: a retraining runs in one process, expected no --processes")
    fitted, (_, data) = _with_names(work.load_run(source), renamed), work.read(source)
    _check_features(source, data, dataset)
    classes, folder = tuple(dataset.classes), workdir / START_FOLDER
    arrays = {} if anew else _networks(source, fitted, config, classes)
    for note in _class_notes(fitted.classes, classes):
        report(f"note: {note}")
    report(f"begins {'anew, after' if anew else 'from'} {source}: what its networks detect now")
    before = _detections_of(source, fitted, renamed, dataset)
    proposals = None
    if not anew:
        params = nest(arrays["network"])
        proposals = _propose(params, config, dataset, {*classes} - {*fitted.classes})

    for name, values in arrays.items():
        files.write_npz(folder / f"{name}.npz", values)
    write_results(folder / ALL_DETECTIONS, before)
    if proposals is not None:
        write_results(folder / PROPOSALS, proposals)
    changed, count = changed_labels(source, dataset, renamed)
    about = {
        "from": str(source.resolve()),
        "anew": anew,
        "rounds": len(fitted.params),
        "classes": list(fitted.classes),
        "threshold": work.threshold_of_run(source),
        "whole_updates": _size(config, count) if anew else _whole_training(source),
        "changed_labels": changed,
        "labels": count,
    }
    files.write_json(folder / "start.json", about)


def _networks(
    source: Path, fitted: Fitted, config: Config, classes: tuple[str, ...]
) -> dict[str, dict[str, np.ndarray]]:
    """The parameters to go on with, by their file; an InputError if they do not fit."""
    key = jax.random.key(config.seed)
    change = functools.partial(with_classes, before=fitted.classes, now=classes, key=key)
    network = functools.partial(methods.method_of(config).make_model, config)
    params = change(fitted.params[-1], network, fitted.dim, source=f"{source}: its network")
    arrays = {"network": flatten(params)}
    if DETECTOR in config.stages and (second := fitted.detector) is not None:
        projection = second.projection
        arrays["projection"] = {"mean": projection.mean, "components": projection.components}
        dim = projection.components.shape[1]
        _check_levels(source, second.config, config)
        second_config = detector_config(config, config.detector.num_levels)
        detector = functools.partial(make_detector, second_config)
        title = f"{source}: its detector"
        arrays["detector"] = flatten(change(second.params, detector, dim, source=title))
    return arrays


def read_start(workdir: Path) -> Start | None:
    """What a retraining begins with; None for other runs.

    Raises:
      InputError: if a file of it cannot be read.
    """
    folder = workdir / START_FOLDER
    if not (folder / "start.json").exists():
        return None
    if files.read_json(folder / "start.json").get("anew"):
        return Start(None, None, None, None)
    detector, projection = None, None
    if (folder / "detector.npz").exists():
        detector = nest(files.read_npz(folder / "detector.npz"))
        projection = work.read_projection(folder)
    return Start(
        nest(files.read_npz(folder / "network.npz")),
        read_results(folder / PROPOSALS),
        detector,
        projection,
    )


def with_classes(
    params: Any,
    model_of: Callable[[int], Any],
    dim: int,
    *,
    before: Sequence[str],
    now: Sequence[str],
    key: jax.Array,
    source: str = "network",
) -> Any:
    """The parameters of a network for other classes: rows of new ones are initialised.

    All other parameters are as they were, so that logits of classes that there were stay the same.

    Args:
      params: nested dictionary of arrays.
      model_of: `(number of classes) -> network`.
      dim: D of its features.
      before: the classes of `params`.
      now: those to have.
      key: to initialise new rows with.
      source: what the parameters are of, for messages.

    Raises:
      InputError: if the parameters are not those of such a network.
    """

    def shapes(count: int) -> dict[str, Any]:
        init = functools.partial(update.init_params, model_of(count), dim)
        return flatten(jax.eval_shape(init, key))

    one, two, expected = shapes(1), shapes(2), shapes(len(before))
    old = {name: np.asarray(array) for name, array in flatten(params).items()}
    for name in sorted(old.keys() | expected.keys()):
        has, wants = (
            None if name not in those else tuple(those[name].shape) for those in (old, expected)
        )
        if has != wants:
            raise InputError(
                f"{source} has {name} of shape {has}, the config describes {wants}; expected the "
                "settings of its run in the sections model and detector"
            )
    fresh = flatten(jax.device_get(update.init_params(model_of(len(now)), dim, key)))
    kept = [label for label in now if label in set(before)]
    to, of = ([names.index(label) for label in kept] for names in (list(now), list(before)))
    for name, array in old.items():
        if one[name].shape == two[name].shape:
            fresh[name] = array
            continue
        # The last axis has the classes, and perhaps the background after them.
        rows = np.array(fresh[name])
        rows[..., to] = array[..., of]
        rows[..., len(now) :] = array[..., len(before) :]
        fresh[name] = rows
    return nest(fresh)


def _check_features(source: Path, data: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuses features that the run's networks do not read."""
    first = dataset.train[0]
    for what, old, new in (
        ("features of D =", data["dim"], first.features.shape[1]),
        ("a clock of", data["grid"], first.grid.to_dict()),
    ):
        if old != new:
            raise InputError(f"{source}: {what} {old}; the data have {new}, expected the same")
    if data.get("manifest") and dataset.manifest is not None:
        check_same_backbone(dataset.manifest, Manifest.from_dict(data["manifest"]), str(source))


def _check_levels(source: Path, before: Config, config: Config) -> None:
    """Refuses settings of a detector that is not that of the run."""
    old, new = before.model.num_levels, config.detector.num_levels
    if old != new:
        raise InputError(f"{source}: detector.num_levels is {old}, not {new}; expected the same")


def _class_notes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    notes = []
    if added := [label for label in now if label not in before]:
        notes.append(f"classes that are new to the network: {', '.join(added)}")
    if gone := [label for label in before if label not in now]:
        notes.append(f"classes that the data no longer have, dropped: {', '.join(gone)}")
    return notes


def _with_names(fitted: Fitted, renamed: Mapping[str, str]) -> Fitted:
    """Networks whose classes have other names."""
    classes = tuple(renamed.get(label, label) for label in fitted.classes)
    detector = fitted.detector and dataclasses.replace(fitted.detector, classes=classes)
    return dataclasses.replace(fitted, classes=classes, detector=detector)


def _detections_of(
    source: Path, fitted: Fitted, renamed: Mapping[str, str], dataset: Dataset
) -> Results:
    """What a run detects in recordings; from its file where that has them, of the same features."""
    known: Results = {}
    recordings, now = dataset.recordings, fingerprint(dataset)
    if (source / ALL_DETECTIONS).exists():
        before = Fingerprint.from_dict(files.read_json(source / "fingerprint.json"))
        known = read_results(source / ALL_DETECTIONS)
        old, new = ({**one.train, **one.test, **one.unlabelled} for one in (before, now))
        known = {
            name: with_names(entries, renamed)
            for name, entries in known.items()
            if name in old and name in new and old[name].features == new[name].features
        }
    rest = [recording for recording in recordings if recording.name not in known]
    known |= predict(fitted, rest) if rest else {}
    return {recording.name: known[recording.name] for recording in recordings}


def _propose(params: Any, config: Config, dataset: Dataset, new: set[str]) -> Results:
    """Proposals of the network that training begins with, for the labels as they are now.

    None for recordings with a class that is new to it: as in the first round of any run, these have
    no pseudo instances, outside of which everything would be background.
    """
    dataset, _ = hold_out(dataset, config)
    dim = dataset.train[0].features.shape[1]
    fitted = Fitted((), config, tuple(dataset.classes), dim).with_round(params)
    prepared = prepare_round(dataset, config, None)
    rows, lengths = range(len(dataset.train)), prepared.lengths
    found = propose(fitted, 0, dataset.train, rows, prepared.timeline, lengths)
    unknown = {dataset.classes.index(label) for label in new}
    return {
        one.name: [] if unknown & set(labels_of(one)) else found[one.name] for one in dataset.train
    }


# --- what changed ---


def predict_all(workdir: Path, fitted: Fitted, dataset: Dataset) -> None:
    """Writes the score sequences of all recordings, and what is detected in them; once.

    Args:
      workdir: of a run.
      fitted: its networks.
      dataset: with all recordings.
    """
    if (workdir / ALL_DETECTIONS).exists():
        return
    recordings = dataset.recordings
    predictions = predict_mean(fitted, recordings)
    write_predictions(workdir / ALL_SCORES, predictions)
    # Last: it marks both as written.
    write_results(workdir / ALL_DETECTIONS, predict_stages(fitted, recordings, predictions))


def measure(workdir: Path, fitted: Fitted, dataset: Dataset, report: Callable[[str], None]) -> None:
    """Predicts all recordings, and compares their events with those before; once.

    Args:
      workdir: of the retraining.
      fitted: its networks.
      dataset: with all recordings.
      report: prints a line.
    """
    if (workdir / CHANGES).exists():
        return
    predict_all(workdir, fitted, dataset)
    start = files.read_json(workdir / START_FOLDER / "start.json")
    before = read_results(workdir / START_FOLDER / ALL_DETECTIONS)
    threshold = work.threshold_of_run(workdir)
    changes, warnings = _compare(workdir, dataset, select_all(before, start["threshold"]))
    report(f"events before, in {start['from']}, and now\n{format_table(changes)}")
    for line in warnings:
        report(f"warning: {line}")
    # Last: it marks the rest as written.
    content = {
        "from": start["from"],
        "tiou": SAME_TIOU,
        "thresholds": [start["threshold"], threshold],
        "classes": {label: dataclasses.asdict(one) for label, one in changes.items()},
        "warnings": warnings,
    }
    files.write_json(workdir / CHANGES, content)


def warnings_of(workdir: Path, dataset: Dataset) -> list[str]:
    """Lines on classes that vanished or are everywhere, by what `predict_all` wrote."""
    if (workdir / CHANGES).exists():
        return files.read_json(workdir / CHANGES)["warnings"]
    return _compare(workdir, dataset, {})[1]


def _compare(
    workdir: Path, dataset: Dataset, before: Results
) -> tuple[dict[str, ClassChanges], list[str]]:
    """Events before and now, and warnings."""
    changes = compare_events(
        before,
        select_all(read_results(workdir / ALL_DETECTIONS), work.threshold_of_run(workdir)),
        classes=dataset.classes,
        durations_s={one.name: one.duration_s for one in dataset.recordings},
        tiou=SAME_TIOU,
    )
    labelled = {dataset.classes[label] for one in dataset.train for label in labels_of(one)}
    return changes, collapse_warnings(changes, labelled=labelled)
