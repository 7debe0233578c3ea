"""What a run is, written into its work directory: config, versions, machine, data."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import ml_collections

from tal_jax.config import DEFAULTS, check_config
from tal_jax.data import files
from tal_jax.data.manifest import Manifest
from tal_jax.data.recordings import Dataset, Scaling, labels_of

_SCALING_FILE = "scaling.npz"

# A run may go on with another value of these: not a bit of its results depends on them.
_FREE = {"train.features"}


def start(workdir: Path, config: ml_collections.FrozenConfigDict, dataset: Dataset) -> None:
    """Writes `config.json`, `run.json`, `ground_truth.json` and `train_points.json`.

    Where the features were standardised, `scaling.npz` keeps how, for recordings to come.

    Raises:
      ValueError: if the work directory holds a run of another config or data set.
      OSError: if it cannot be written.
    """
    if (workdir / "config.json").exists():
        check_same(workdir, config, dataset)
        return
    files.write_json(workdir / "run.json", _card(config, dataset))
    files.write_json(workdir / "ground_truth.json", dataset.ground_truth)
    files.write_json(workdir / "train_points.json", _points(dataset))
    if dataset.scaling is not None:
        scaling = {"mean": dataset.scaling.mean, "scale": dataset.scaling.scale}
        files.write_npz(workdir / _SCALING_FILE, scaling)
    # Last, since it marks the directory as a run's.
    files.write_json(workdir / "config.json", _plain(config.to_dict()))


def check_same(workdir: Path, config: ml_collections.FrozenConfigDict, dataset: Dataset) -> None:
    """Refuses a config or data set other than the run's.

    Raises:
      ValueError: naming what differs, or if a file of the run cannot be read.
    """
    settings = _plain(config.to_dict())
    before = files.read_json(workdir / "config.json")
    for key in sorted((_flat(before) | _flat(settings)).keys() - _FREE):
        old, new = _flat(before).get(key), _flat(settings).get(key)
        if old != new:
            raise ValueError(
                f"{workdir} holds a run with {key} = {old!r}, not {new!r}; continue it with its "
                "own config or choose another work directory"
            )
    data = files.read_json(workdir / "run.json")["data"]
    for key, value in _card(config, dataset)["data"].items():
        if data.get(key) != value:
            raise ValueError(
                f"{workdir} holds a run on other data: {key} was {data.get(key)!r}, now {value!r}"
            )


def read(workdir: Path) -> tuple[ml_collections.FrozenConfigDict, dict[str, Any]]:
    """Reads the config of a run, and what its card says of the data.

    Raises:
      ValueError: if a file is missing, broken, or of another version of this package.
    """
    settings = files.read_json(workdir / "config.json")
    card = files.read_json(workdir / "run.json")
    _expect_keys(workdir / "config.json", settings, {"method"})
    if settings["method"] not in DEFAULTS:
        raise ValueError(f"{workdir}/config.json: unknown method {settings['method']!r}")
    expected = _flat(DEFAULTS[settings["method"]]().to_dict())
    expected = {key for key in expected if not key.startswith("data.")}
    _expect_keys(workdir / "config.json", settings, expected)
    described = {"data.classes", "data.overlapping", "data.dim", "data.grid.fps"}
    _expect_keys(workdir / "run.json", card, described)
    return check_config(ml_collections.ConfigDict(settings)), card["data"]


def manifest_of(data: dict[str, Any]) -> Manifest | None:
    """What made the features of a run, from what its card says of the data; None if unknown."""
    return Manifest.from_dict(data["manifest"]) if data.get("manifest") else None


def read_scaling(workdir: Path) -> Scaling | None:
    """How the run's features were standardised; None if they were not.

    Raises:
      ValueError: if the file of it cannot be read.
    """
    path = workdir / _SCALING_FILE
    if not path.exists():
        return None
    arrays = files.read_npz(path)
    missing = {"mean", "scale"} - set(arrays)
    if missing:
        raise ValueError(f"{path}: no array {min(missing)!r}; expected mean and scale of a run")
    return Scaling(arrays["mean"], arrays["scale"])


def _expect_keys(path: Path, values: Any, keys: set[str]) -> None:
    missing = sorted(keys - set(_flat(values))) if isinstance(values, dict) else ["all"]
    if missing:
        raise ValueError(
            f"{path}: missing {missing[0]}; expected a file that this version of tal_jax wrote"
        )


def _card(config: ml_collections.FrozenConfigDict, dataset: Dataset) -> dict[str, Any]:
    packages = ("tal_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    instances = [len(video["annotations"]) for video in dataset.ground_truth["database"].values()]
    return {
        "versions": {name: metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
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
        },
    }


def _points(dataset: Dataset) -> dict[str, Any]:
    """The training points as annotations without segments."""
    database = {
        recording.name: {
            "subset": "train",
            "duration": recording.duration_s,
            "annotations": [
                {"label": dataset.classes[point.label], "point": point.time_s}
                for point in recording.points
            ],
        }
        for recording in dataset.train
    }
    return {"version": "tal_jax", "classes": list(dataset.classes), "database": database}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


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
    import jax

    return ", ".join(sorted({device.device_kind for device in jax.devices()}))
