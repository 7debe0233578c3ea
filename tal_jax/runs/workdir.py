"""Work directories: the card of a run (config, versions, machine, data) and its rounds."""

import dataclasses
import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from tal_jax._errors import InputError
from tal_jax.config import DEFAULTS, Config, check_config, flatten
from tal_jax.data import files
from tal_jax.data.annotations import labels_of_time
from tal_jax.data.clock import Grid
from tal_jax.data.detections import Entries, read_results
from tal_jax.data.fingerprint import Fingerprint, differences, fingerprint
from tal_jax.data.manifest import Manifest
from tal_jax.data.predictions import RecordingPredictions
from tal_jax.data.projection import Projection
from tal_jax.data.recordings import Dataset, Recording, Scaling, labels_of
from tal_jax.datasets.load import load_dataset
from tal_jax.inference import export
from tal_jax.inference.detector import FittedDetector
from tal_jax.inference.forward import Fitted
from tal_jax.inference.predict import predict_mean, predict_stages
from tal_jax.inference.predict_file import Network
from tal_jax.ops import segments as segment_ops
from tal_jax.runs.round_folders import DETECTOR_FOLDER
from tal_jax.training import checkpoints
from tal_jax.training.loop import checkpoint_folder

_SCALING_FILE = "scaling.npz"
_FINGERPRINT_FILE = "fingerprint.json"

# What a run writes at the top of its folder.
_WRITTEN = (
    *("run.json", "fingerprint.json", "ground_truth.json", "train_points.json", "scaling.npz"),
    *("metrics.jsonl", "detections.json", "evaluation.json", "scores_test.npz", "tuned.json"),
    *("report.html", "report.png"),
)
# A run may continue with another value of these: its results do not depend on them.
_FREE = {"train.features"}
# What of the data's card may differ: a moved folder is the same data.
_FREE_OF_DATA = {"root"}


# --- the card ---


def start(
    workdir: Path, config: Config, dataset: Dataset, decided: Iterable[str] = ()
) -> list[str]:
    """Writes the files of a run that come before its first round.

    Where the features were standardised, `scaling.npz` keeps how, for recordings to come.

    Args:
      workdir: of the run.
      config: of the run.
      dataset: of the run.
      decided: the settings that were decided from the data.

    Returns:
      Notes on a run that goes on.

    Raises:
      InputError: if the work directory holds a run of another config or data set.
      OSError: if it cannot be written.
    """
    if (workdir / "config.json").exists():
        check_same(workdir, config, dataset)
        # It may have a second stage now.
        files.write_json(workdir / "config.json", _plain(config.to_dict()))
        return _other_versions(workdir)
    _refuse_foreign_files(workdir)
    card = _card(config, dataset) | {"decided": list(decided)}
    files.write_json(workdir / "run.json", card)
    files.write_json(workdir / _FINGERPRINT_FILE, fingerprint(dataset).to_dict())
    files.write_json(workdir / "ground_truth.json", dataset.ground_truth)
    files.write_json(workdir / "train_points.json", labels_document(dataset))
    if dataset.scaling is not None:
        scaling = {"mean": dataset.scaling.mean, "scale": dataset.scaling.scale}
        files.write_npz(workdir / _SCALING_FILE, scaling)
    # Last, since it marks the directory as a run's.
    files.write_json(workdir / "config.json", _plain(config.to_dict()))
    return []


def begun_settings(workdir: Path) -> dict[str, Any]:
    """The settings that the run in a work directory began with; empty where there is none."""
    path = workdir / "config.json"
    return files.read_json(path) if path.exists() else {}


def check_same(workdir: Path, config: Config, dataset: Dataset) -> None:
    """Refuses a config or data set other than the run's.

    A second stage that has not begun may be added, changed or left out.

    Raises:
      InputError: naming what differs, or if a file of the run cannot be read.
    """
    settings = _plain(config.to_dict())
    before = _settings_of(workdir)
    free = set(_FREE)
    if not (workdir / DETECTOR_FOLDER).exists():
        free |= {"stages", *flatten({"detector": settings["detector"]})}
    for key in sorted((flatten(before) | flatten(settings)).keys() - free):
        old, new = flatten(before).get(key), flatten(settings).get(key)
        if old != new:
            raise InputError(
                f"{workdir} holds a run with {key} = {old!r}, not {new!r}; continue it with its "
                "own config or choose another work directory"
            )
    changes = changes_of_data(workdir, dataset)
    data = files.read_json(workdir / "run.json")["data"]
    for key, value in _card(config, dataset)["data"].items():
        if not changes and data.get(key) != value and key not in _FREE_OF_DATA:
            changes = [f"{key} was {data.get(key)!r}, now {value!r}"]
    if changes:
        raise InputError(
            f"{workdir} holds a run on other data: {'; '.join(changes)}. Choose another work "
            "directory for the data as they are now, or delete this one"
        )


def _refuse_foreign_files(workdir: Path) -> None:
    """Refuses a folder that is no run's but holds files with the names of those of a run."""
    written = (path for name in _WRITTEN for path in workdir.glob(name))
    try:
        begun = "versions" in files.read_json(workdir / "run.json")
    except (InputError, TypeError):
        begun = False
    if foreign := [] if begun else sorted(written):
        names = ", ".join(path.name for path in foreign)
        raise InputError(f"{workdir} is not the folder of a run, but has {names}; choose another")


def changes_of_data(workdir: Path, dataset: Dataset) -> list[str]:
    """How a data set differs from the one that a run was trained on, see `differences`.

    Raises:
      InputError: if the run's fingerprint cannot be read.
    """
    path = workdir / _FINGERPRINT_FILE
    try:
        before = Fingerprint.from_dict(files.read_json(path))
    except InputError as error:
        message = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise InputError(f"{message}; expected a file that this version of tal_jax wrote") from None
    return differences(before, fingerprint(dataset))


def note_changes(workdir: Path) -> list[str]:
    """Notes for results of a run whose folder of data changed since.

    Only where that folder is still there, and holds the data set: other runs travel alone.
    """
    config, data = read(workdir)
    if config.data.name != "folder" or not Path(data.get("root") or "").is_dir():
        return []
    settings = config.to_dict()
    settings["data"]["folder"] = data["root"]
    try:
        dataset = load_dataset(ml_collections.ConfigDict(settings))
        changes = changes_of_data(workdir, dataset)
    except (InputError, OSError) as error:
        return [f"the data in {data['root']} cannot be compared with this run's: {error}"]
    if not changes:
        return []
    return [
        f"the data in {data['root']} changed since this run: {'; '.join(changes)}. The results are "
        "of the run's own data; train into another work directory for the data as they are now"
    ]


def _other_versions(workdir: Path) -> list[str]:
    """A note for a run that goes on with other versions of packages."""
    before = files.read_json(workdir / "run.json").get("versions", {})
    changes = [
        f"{name} {before.get(name)} before, {now} now"
        for name, now in _versions().items()
        if before.get(name) != now
    ]
    return [f"{workdir} began with other versions: {', '.join(changes)}"] if changes else []


def read(workdir: Path) -> tuple[Config, dict[str, Any]]:
    """Reads the config of a run, and the data section of its card.

    Raises:
      InputError: if a file is missing, broken, or of another version of this package.
    """
    settings = _settings_of(workdir)
    card = files.read_json(workdir / "run.json")
    _expect_keys(workdir / "config.json", settings, {"method"})
    if settings["method"] not in DEFAULTS:
        raise InputError(f"{workdir}/config.json: unknown method {settings['method']!r}")
    expected = flatten(DEFAULTS[settings["method"]]().to_dict())
    expected = {key for key in expected if not key.startswith("data.")}
    _expect_keys(workdir / "config.json", settings, expected)
    described = {"data.classes", "data.overlapping", "data.dim", "data.grid.fps"}
    _expect_keys(workdir / "run.json", card, described)
    return check_config(ml_collections.ConfigDict(settings)), card["data"]


def _settings_of(workdir: Path) -> Any:
    """The content of `config.json`, with what earlier versions did before there was a setting."""
    settings = files.read_json(workdir / "config.json")
    if isinstance(settings, dict) and isinstance(settings.get("sampling"), dict):
        settings["sampling"].setdefault("own_point", True)
    return settings


def read_scaling(workdir: Path) -> Scaling | None:
    """How the run's features were standardised; None if they were not.

    Raises:
      InputError: if the file of it cannot be read.
    """
    path = workdir / _SCALING_FILE
    if not path.exists():
        return None
    arrays = files.read_npz(path)
    missing = {"mean", "scale"} - set(arrays)
    if missing:
        raise InputError(f"{path}: no array {min(missing)!r}; expected mean and scale of a run")
    return Scaling(arrays["mean"], arrays["scale"])


def _expect_keys(path: Path, values: Any, keys: set[str]) -> None:
    missing = sorted(keys - set(flatten(values))) if isinstance(values, dict) else ["all"]
    if missing:
        raise InputError(
            f"{path}: missing {missing[0]}; expected a file that this version of tal_jax wrote"
        )


def _card(config: Config, dataset: Dataset) -> dict[str, Any]:
    instances = [len(video["annotations"]) for video in dataset.ground_truth["database"].values()]
    return {
        "versions": _versions(),
        "machine": f"{platform.machine()}, {_processor()}",
        "seed": config.seed,
        "git_commit": _git_commit(),
        "data": {
            "name": config.data.name,
            "classes": list(dataset.classes),
            "overlapping": [list(pair) for pair in dataset.overlapping],
            "dim": int(dataset.train[0].features.shape[1]),
            "grid": dataset.train[0].grid.to_dict(),
            "manifest": dataset.manifest and _plain(dataset.manifest.to_dict()),
            "train_recordings": len(dataset.train),
            "train_seconds": sum(recording.duration_s for recording in dataset.train),
            "points": sum(len(recording.points) for recording in dataset.train),
            "labels": sum(len(labels_of(recording)) for recording in dataset.train),
            "test_recordings": len(dataset.test),
            "test_seconds": sum(recording.duration_s for recording in dataset.test),
            "test_instances": sum(instances),
            "notes": list(dataset.notes),
            "root": dataset.root,
        },
    }


def _versions() -> dict[str, str]:
    packages = ("tal_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    return versions | {"python": platform.python_version()}


def labels_document(dataset: Dataset) -> dict[str, Any]:
    """The training points as annotations, with the segments that training uses."""
    database = {
        recording.name: {
            "subset": "train",
            "duration": recording.duration_s,
            **labels_of_time(recording.background_s, recording.done_s),
            "annotations": [
                {"label": dataset.classes[point.label], "point": point.time_s}
                | ({} if point.segment_s is None else {"segment": list(point.segment_s)})
                for point in recording.points
            ],
        }
        for recording in dataset.train
    }
    return {"version": "tal_jax", "classes": list(dataset.classes), "database": database}


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON reads them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _git_commit() -> str | None:
    """The commit of the source tree that runs, marked where files differ from it."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    return ", ".join(sorted({device.device_kind for device in jax.devices()}))


# --- rounds ---


def round_folder(workdir: Path, number: int) -> Path:
    """The folder of a round."""
    return workdir / f"round_{number}"


def refuse_orphans(workdir: Path, number: int) -> None:
    """Refuses what came from a round whose proposals are gone: it would be taken for new.

    Raises:
      InputError: naming the folder and the missing file.
    """
    folder = round_folder(workdir, number)
    for later in (round_folder(workdir, number + 1), workdir / DETECTOR_FOLDER):
        if later.exists() and not (folder / "proposals_train.json").exists():
            rest = "" if later.name == DETECTOR_FOLDER else " and all later rounds"
            raise InputError(
                f"{later} is there, but round {number} has no proposals_train.json, which it came "
                f"from; put that back, or delete {later.name}{rest}"
            )


def load_run(workdir: str | Path) -> Fitted:
    """Reads the networks of a work directory's finished rounds.

    Raises:
      InputError: if there is none, or one cannot be read.
    """
    return _load(Path(workdir))[0]


def _load(workdir: Path) -> tuple[Fitted, dict[str, Any]]:
    """The networks of a run, and the data section of its card."""
    config, data = read(workdir)
    fitted = Fitted((), config, tuple(data["classes"]), data["dim"])
    for number in range(_finished_rounds(workdir, config)):
        fitted = fitted.with_round(_load_params(checkpoint_folder(workdir, number), config))
    if (workdir / DETECTOR_FOLDER / "proposals_train.json").exists():
        fitted = dataclasses.replace(fitted, detector=_load_detector(workdir, fitted.classes))
    return fitted, data


def _finished_rounds(workdir: Path, config: Config) -> int:
    """The number of a run's finished rounds, at least one."""
    number = 0
    while number < config.train.rounds:
        if not (round_folder(workdir, number) / "proposals_train.json").exists():
            break
        number += 1
    if not number:
        raise InputError(f"{workdir}: no round is finished yet; let `tal-jax train` end first")
    return number


def _load_detector(workdir: Path, classes: tuple[str, ...]) -> FittedDetector:
    """The network of a finished second stage."""
    folder = workdir / DETECTOR_FOLDER
    config = ml_collections.FrozenConfigDict(files.read_json(folder / "config.json"))
    params = _load_params(checkpoint_folder(workdir, DETECTOR_FOLDER), config)
    return FittedDetector(params, config, read_projection(folder), classes)


def read_projection(folder: Path) -> Projection:
    """The projection of features in the folder of a second stage.

    Raises:
      InputError: if its file cannot be read.
    """
    arrays = files.read_npz(folder / "projection.npz")
    return Projection(arrays["mean"], arrays["components"])


def _load_params(folder: Path, config: Config) -> Any:
    """The parameters that a round ended with."""
    which = checkpoints.BEST if config.train.patience else checkpoints.LATEST
    return checkpoints.read_params(folder, which=which)


def open_run(workdir: str | Path) -> Network:
    """Opens the networks of a run's finished rounds, to predict files with.

    Raises:
      InputError: if there is none, or a file of the run cannot be read.
    """
    workdir = Path(workdir)
    fitted, data = _load(workdir)
    scaling = read_scaling(workdir)
    threshold = shown_threshold(workdir, len(fitted.params) - 1, fitted.config.localization)

    def predict(recording: Recording) -> tuple[Entries, RecordingPredictions]:
        found = predict_mean(fitted, [recording])
        results = predict_stages(fitted, [recording], found)
        return list(results[recording.name]), found[recording.name]

    return Network(
        source=workdir,
        predict=predict,
        classes=fitted.classes,
        dim=fitted.dim,
        grid=Grid.from_dict(data["grid"]),
        manifest=Manifest.from_dict(data["manifest"]) if data.get("manifest") else None,
        scaling=scaling,
        threshold=threshold,
        digest=_digest(fitted, data, scaling, threshold),
    )


def _digest(
    fitted: Fitted, data: Mapping[str, Any], scaling: Scaling | None, threshold: float | None
) -> str:
    """A hash of all that decides what a run detects in a file."""
    settings = {"config": fitted.config.to_dict(), "data": data, "threshold": threshold}
    digest = hashlib.sha256(files.json_bytes(settings))
    arrays = [fitted.params]
    if scaling is not None:
        arrays += [scaling.mean, scaling.scale]
    if (second := fitted.detector) is not None:
        digest.update(files.json_bytes(second.config.to_dict()))
        arrays += [second.params, second.projection.mean, second.projection.components]
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def export_run(
    workdir: str | Path,
    output: str | Path,
    *,
    platforms: tuple[str, ...] = export.PLATFORMS,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Exports the networks of a run's finished rounds, see `inference.export`; returns the card.

    Raises:
      InputError: if the run has no finished round, a file of it cannot be read, or a package is
        missing.
      OSError: if a file cannot be written.
    """
    export.check_installed()
    workdir = Path(workdir)
    fitted, data = _load(workdir)
    evaluated = workdir / "evaluation.json"
    description = {
        "grid": data["grid"],
        "manifest": data.get("manifest"),
        "threshold": shown_threshold(workdir, len(fitted.params) - 1, fitted.config.localization),
        "data": data,
        "scores": files.read_json(evaluated) if evaluated.exists() else None,
    }
    return export.write_export(
        fitted,
        output,
        read_scaling(workdir),
        description,
        platforms=platforms,
        overwrite=overwrite,
    )


# --- which detections to show ---


def threshold_of_run(workdir: Path) -> float | None:
    """The threshold of a run's detections, see `shown_threshold`.

    Raises:
      InputError: if no round is finished, or a file of the run cannot be read.
    """
    config, _ = read(workdir)
    return shown_threshold(workdir, _finished_rounds(workdir, config) - 1, config.localization)


def shown_threshold(workdir: Path, round_number: int, options: Config) -> float | None:
    """The score that leaves as many proposals on the training recordings as they have points.

    Recordings that were held out have no proposals, and their points do not count. Duplicates among
    the proposals are lowered as they are among detections. None where a run has no points.
    """
    of_stages = workdir / DETECTOR_FOLDER / "proposals_train.json"
    if of_stages.exists():
        # Fused, which lowered duplicates already.
        proposals, soft_sigma = read_results(of_stages), 0.0
    else:
        path = round_folder(workdir, round_number) / "proposals_train.json"
        proposals, soft_sigma = read_results(path), options.soft_sigma
    points = files.read_json(workdir / "train_points.json")["database"]
    count = sum(len(one["annotations"]) for name, one in points.items() if name in proposals)
    scores = np.sort(_ranked(proposals.values(), soft_sigma))[::-1]
    return float(scores[min(count, len(scores)) - 1]) if count and len(scores) else None


def _ranked(recordings: Iterable[Entries], soft_sigma: float) -> np.ndarray:
    """Scores of entries after soft-NMS among those of one recording and class."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for number, entries in enumerate(recordings):
        for entry in entries:
            groups.setdefault((number, entry["label"]), []).append(entry)
    if not groups:
        return np.zeros(0)
    shape = len(groups), max(map(len, groups.values()))
    segments, scores = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32)
    where = np.zeros(shape, bool)
    for row, entries in enumerate(groups.values()):
        segments[row, : len(entries)] = [entry["segment"] for entry in entries]
        scores[row, : len(entries)] = [entry["score"] for entry in entries]
        where[row, : len(entries)] = True
    if soft_sigma:
        scores = np.asarray(_lower(segments, scores, where, soft_sigma))
    return scores[where]


@jax.jit
def _lower(segments, scores, where, sigma):
    """`ops.soft_nms` for each row."""

    def one(segments, scores, where):
        return segment_ops.soft_nms(segments, scores, sigma=sigma, where=where)

    return jax.vmap(one)(segments, scores, where)
