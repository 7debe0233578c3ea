"""The trained networks of a run as files that need nothing of this library to run.

What `export_run` writes::

    model.jax_export   (features [b, t, D] float32, where [b, t] bool) -> {scores [b, t, C],
                       foreground [b, t], video [b, C]}: the mean over the networks of all rounds;
                       b and t are free; for cpu, cuda and tpu
    params.npz         the parameters by round and path,
                       "round_0/Embedding_0/TemporalConv_0/Dense_0/kernel"
    card.json          classes, clock, backbone, config, data, scores, sha256 of both files

The features are those that the backbone makes: standardising them is part of the model.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax import methods, pipeline
from tal_jax.data import files, packing
from tal_jax.data.clock import Grid
from tal_jax.data.manifest import Manifest
from tal_jax.data.predictions import RecordingScores, ScoreSequence
from tal_jax.data.recordings import Recording, Scaling, check_finite
from tal_jax.inference.predict import Entries, Network, shown_threshold
from tal_jax.runs import run_card
from tal_jax.training import update

MODEL_FILE, PARAMS_FILE, CARD_FILE = "model.jax_export", "params.npz", "card.json"
PLATFORMS = ("cpu", "cuda", "tpu")
_VERSION = 2
# What `open_export` needs of a card.
_READ_KEYS = set("classes dim grid manifest threshold localization sha256".split())
# Lengths are rounded up to a multiple of this, so that few shapes are compiled.
_LENGTH_STEP = 256


def export_run(
    workdir: str | Path, output: str | Path, *, platforms: tuple[str, ...] = PLATFORMS
) -> dict[str, Any]:
    """Writes the networks of a run's finished rounds; see the module for the files.

    Args:
      workdir: of a run.
      output: a folder; made where missing.
      platforms: that the model is to run on.

    Returns:
      The card.

    Raises:
      ValueError: if the run has no finished round, a file of it cannot be read, or a package is
        missing.
      OSError: if a file cannot be written.
    """
    _import_flatbuffers()
    workdir, output = Path(workdir), Path(output)
    fitted = pipeline.load_run(workdir)
    config, data = run_card.read(workdir)
    params = jax.device_get(fitted.params)
    files.write_bytes(
        output / MODEL_FILE, _serialize(fitted, params, run_card.read_scaling(workdir), platforms)
    )
    by_round = {f"round_{number}": one for number, one in enumerate(params)}
    files.write_npz(output / PARAMS_FILE, _flat(by_round))
    card = {
        "version": _VERSION,
        "classes": list(fitted.classes),
        "dim": fitted.dim,
        "grid": data["grid"],
        "manifest": data.get("manifest"),
        "threshold": shown_threshold(workdir, len(params) - 1, config.localization),
        "localization": config.localization.to_dict(),
        "platforms": list(platforms),
        "rounds": len(params),
        "seed": config.seed,
        "config": config.to_dict(),
        "data": data,
        "scores": _scores_of(workdir),
        "sha256": {
            name: hashlib.sha256((output / name).read_bytes()).hexdigest()
            for name in (MODEL_FILE, PARAMS_FILE)
        },
    }
    # Last, since it tells that the files are whole.
    files.write_json(output / CARD_FILE, card)
    return card


def is_export(folder: str | Path) -> bool:
    """Whether a folder is one that `export_run` wrote."""
    return (Path(folder) / CARD_FILE).exists()


def open_export(folder: str | Path) -> Network:
    """Opens what `export_run` wrote; no config and no training code is needed.

    A recording is read at once, however long it is.

    Raises:
      ValueError: if a file is missing, is not what the card says, or a package is missing.
    """
    _import_flatbuffers()
    folder = Path(folder)
    card = files.read_json(folder / CARD_FILE)
    if not isinstance(card, dict) or not _READ_KEYS <= card.keys():
        raise ValueError(f"{folder / CARD_FILE}: no card of an exported network")
    if card.get("version") != _VERSION:
        raise ValueError(
            f"{folder / CARD_FILE}: version {card.get('version')!r}, expected {_VERSION}; export "
            "the run again with this version of tal_jax"
        )
    try:
        serialized = (folder / MODEL_FILE).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {folder / MODEL_FILE}: {error.strerror}") from error
    if hashlib.sha256(serialized).hexdigest() != card["sha256"][MODEL_FILE]:
        raise ValueError(
            f"{folder / MODEL_FILE}: not the file that {CARD_FILE} tells of; export the run again"
        )
    classes, manifest = tuple(card["classes"]), card["manifest"]
    options = ml_collections.ConfigDict(card["localization"])
    call = jax.jit(jax.export.deserialize(bytearray(serialized)).call)

    def predict(recording: Recording) -> tuple[Entries, RecordingScores]:
        sequence = _read(call, recording)
        scores = RecordingScores(recording.grid, recording.duration_s, sequence, sequence)
        found = pipeline.relocalize({recording.name: scores}, options, classes)
        return found[recording.name], scores

    return Network(
        source=folder,
        predict=predict,
        classes=classes,
        dim=card["dim"],
        grid=Grid.from_dict(card["grid"]),
        manifest=None if manifest is None else Manifest.from_dict(manifest),
        scaling=None,
        threshold=card["threshold"],
    )


def _read(call: Callable[..., Any], recording: Recording) -> ScoreSequence:
    """What an exported model predicts for one recording."""
    total = len(recording.features)
    length = packing.bucket(total, _LENGTH_STEP)
    values = np.asarray(recording.features[:], np.float32)
    check_finite(recording.name, values)
    padded = np.pad(values, ((0, length - total), (0, 0)))
    where = np.arange(length) < total
    found = jax.device_get(call(padded[None], where[None]))
    return ScoreSequence(
        found["scores"][0, :total],
        found["foreground"][0, :total],
        found["video"][0],
        np.arange(total + 1, dtype=np.float32),
    )


def _serialize(
    fitted: pipeline.Fitted, params: Any, scaling: Scaling | None, platforms: tuple[str, ...]
) -> bytes:
    method, config = methods.method_of(fitted.config), update.compiled_config(fitted.config)
    model = method.make_model(config, len(fitted.classes))

    def run(features, where):
        if scaling is not None:
            features = (features - np.float32(scaling.mean)) / np.float32(scaling.scale)

        def read(one):
            logits = method.read_logits(model, config, one, features, where)
            return method.scores_of(config, logits, where)

        mean = jax.tree.map(lambda *values: sum(values) / len(values), *map(read, params))
        return {"scores": mean.scores, "foreground": mean.foreground, "video": mean.video}

    sizes = jax.export.symbolic_shape("b, t")
    features = jax.ShapeDtypeStruct((*sizes, fitted.dim), jnp.float32)
    where = jax.ShapeDtypeStruct(sizes, jnp.bool_)
    exported = jax.export.export(jax.jit(run), platforms=platforms)(features, where)
    return bytes(exported.serialize())


def _flat(params: Any) -> dict[str, np.ndarray]:
    """Parameters by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _scores_of(workdir: Path) -> dict[str, Any] | None:
    """What the networks reached together on the run's test recordings."""
    path = workdir / "evaluation.json"
    return files.read_json(path) if path.exists() else None


def _import_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ValueError('exported networks need pip install "tal_jax[export]"') from error
