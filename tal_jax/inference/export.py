"""The trained networks of a run as files that run without this library.

`write_export` writes::

    model.jax_export   (features [b, t, D] float32, where [b, t] bool) -> {scores [b, t, C],
                       foreground [b, t], video [b, C]}: the mean over the networks of all rounds;
                       b and t are free; for cpu, cuda and tpu
    params.npz         the parameters by round and path,
                       "round_0/Embedding_0/TemporalConv_0/Dense_0/kernel"
    card.json          classes, clock, backbone, config, data, scores, sha256 of both files

The features are those of the backbone: standardizing them is part of the model.

Of a run with a detector, the model also returns its {logits [b, A, C], offsets [b, A, 2],
anchor_where [b, A]}: per anchor the logits of the classes, the distances to start and end in
strides, and whether it lies within the recording. The anchors are those of
`ops.pyramid_anchors(T, num_levels=L)` with L = card["detector"]["num_levels"] and T, the least
multiple of 2^(L - 1) that is at least t. Projecting the features is part of the model. params.npz
then has "detector/..." and "projection/...".
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tal_jax import methods
from tal_jax._errors import InputError
from tal_jax.config import Config
from tal_jax.data import files, locks, packing
from tal_jax.data.clock import Grid
from tal_jax.data.detections import Entries
from tal_jax.data.manifest import Manifest
from tal_jax.data.predictions import Predictions, RecordingPredictions
from tal_jax.data.recordings import Recording, Scaling, check_finite
from tal_jax.inference import detector
from tal_jax.inference.detector import FittedDetector
from tal_jax.inference.forward import Fitted
from tal_jax.inference.fusion import fuse_stages
from tal_jax.inference.localize import localize_predictions
from tal_jax.inference.predict_file import Network
from tal_jax.models.detector import Detector
from tal_jax.training import update

MODEL_FILE, PARAMS_FILE, CARD_FILE = "model.jax_export", "params.npz", "card.json"
PLATFORMS = ("cpu", "cuda", "tpu")
_VERSION = 3
# What `open_export` needs of a card.
_READ_KEYS = set("classes detector dim grid manifest threshold localization sha256".split())
# The outputs of the detector, and their names beside those of the rounds.
_OF_DETECTOR = {"logits": "logits", "offsets": "offsets", "where": "anchor_where"}


def write_export(
    fitted: Fitted,
    output: str | Path,
    scaling: Scaling | None,
    description: Mapping[str, Any],
    *,
    platforms: tuple[str, ...] = PLATFORMS,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes the networks of all rounds, see the module for the files, and returns the card.

    Args:
      fitted: trained networks.
      output: a folder; made where missing.
      scaling: how features are standardized; None if they are not.
      description: of the data and the results, for the card: at least grid, manifest, threshold.
      platforms: that the model is to run on.
      overwrite: whether to replace files in a folder without such a card.

    Raises:
      InputError: if a package is missing, or files must not be replaced.
      OSError: if a file cannot be written.
    """
    check_installed()
    output, config = Path(output), fitted.config
    if not overwrite:
        names = (MODEL_FILE, PARAMS_FILE, CARD_FILE)
        files.refuse_replacing([output / name for name in names], ours=_is_ours)
    contents = {
        MODEL_FILE: _serialize(fitted, scaling, platforms),
        PARAMS_FILE: files.npz_bytes(_by_path(_params(fitted))),
    }
    card = {
        "version": _VERSION,
        "classes": list(fitted.classes),
        "dim": fitted.dim,
        "localization": config.localization.to_dict(),
        "platforms": list(platforms),
        "rounds": len(fitted.params),
        "detector": _describe(fitted.detector),
        "seed": config.seed,
        "config": config.to_dict(),
        **description,
        "sha256": {name: hashlib.sha256(one).hexdigest() for name, one in contents.items()},
    }
    with locks.one_writer(output, "exporting"):
        # First: it marks the folder as one of exports. Its hashes show whether the rest is whole.
        files.write_json(output / CARD_FILE, card)
        for name, content in contents.items():
            files.write_bytes(output / name, content)
    return card


def _is_ours(path: Path) -> bool:
    """Whether a file is in a folder with the card of an export."""
    try:
        card = files.read_json(path.with_name(CARD_FILE))
    except InputError:
        return False
    return isinstance(card, dict) and _READ_KEYS <= card.keys()


def is_export(folder: str | Path) -> bool:
    """Whether a folder is one that `write_export` wrote."""
    return (Path(folder) / CARD_FILE).exists()


def open_export(folder: str | Path) -> Network:
    """Opens what `write_export` wrote; no config and no training code is needed.

    A recording is read at once, however long it is.

    Raises:
      InputError: if a file is missing, does not match the card, or a package is missing.
    """
    check_installed()
    folder = Path(folder)
    card = files.read_json(folder / CARD_FILE)
    if not isinstance(card, dict) or not _READ_KEYS <= card.keys():
        raise InputError(f"{folder / CARD_FILE}: no card of an exported network")
    if card.get("version") != _VERSION:
        raise InputError(
            f"{folder / CARD_FILE}: version {card.get('version')!r}, expected {_VERSION}; export "
            "the run again with this version of tal_jax"
        )
    try:
        serialized = (folder / MODEL_FILE).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {folder / MODEL_FILE}: {error.strerror}") from error
    if hashlib.sha256(serialized).hexdigest() != card["sha256"][MODEL_FILE]:
        raise InputError(
            f"{folder / MODEL_FILE}: not the file that {CARD_FILE} describes; export the run again"
        )
    classes, manifest = tuple(card["classes"]), card["manifest"]
    options: Config = ml_collections.ConfigDict(card["localization"])
    levels = (card["detector"] or {}).get("num_levels")
    model = levels and Detector(num_classes=len(classes), num_levels=levels)
    call = jax.jit(jax.export.deserialize(bytearray(serialized)).call)

    def predict(recording: Recording) -> tuple[Entries, RecordingPredictions]:
        outputs = _call(call, recording)
        one = _predictions(outputs, len(recording.features))
        predictions = RecordingPredictions(recording.grid, recording.duration_s, one, one)
        found = localize_predictions({recording.name: predictions}, options, classes)
        if model:
            sigma = options.soft_sigma
            of_detector = detector.decode(
                model,
                {name: outputs[key] for name, key in _OF_DETECTOR.items()},
                recording,
                classes,
                soft_sigma=sigma,
            )
            found = fuse_stages(found, {recording.name: of_detector}, soft_sigma=sigma)
        return list(found[recording.name]), predictions

    return Network(
        source=folder,
        predict=predict,
        classes=classes,
        dim=card["dim"],
        grid=Grid.from_dict(card["grid"]),
        manifest=None if manifest is None else Manifest.from_dict(manifest),
        scaling=None,
        threshold=card["threshold"],
        digest=hashlib.sha256(files.json_bytes(card)).hexdigest(),
    )


def _call(call: Callable[..., Any], recording: Recording) -> dict[str, np.ndarray]:
    """An exported model's outputs for one recording, padded."""
    total = len(recording.features)
    length = packing.serving_length(total)
    values = np.asarray(recording.features[:], np.float32)
    check_finite(recording.name, values)
    padded = np.pad(values, ((0, length - total), (0, 0)))
    where = np.arange(length) < total
    return jax.device_get(call(padded[None], where[None]))


def _predictions(outputs: Mapping[str, np.ndarray], total: int) -> Predictions:
    """The rounds' part of the outputs for one recording of so many snippets."""
    return Predictions(
        outputs["scores"][0, :total],
        outputs["foreground"][0, :total],
        outputs["video"][0],
        np.arange(total + 1, dtype=np.float32),
    )


def _serialize(fitted: Fitted, scaling: Scaling | None, platforms: tuple[str, ...]) -> bytes:
    method, config = methods.method_of(fitted.config), update.compiled_config(fitted.config)
    model, params = fitted.model, jax.device_get(fitted.params)
    detect = None if fitted.detector is None else _detector_outputs(fitted.detector)

    def run(features, where):
        if scaling is not None:
            features = (features - np.float32(scaling.mean)) / np.float32(scaling.scale)

        def predict(one):
            logits = method.logits(model, config, one, features, where)
            return method.predictions(config, logits, where)

        mean = jax.tree.map(lambda *values: sum(values) / len(values), *map(predict, params))
        outputs = {"scores": mean.cas, "foreground": mean.actionness, "video": mean.video_scores}
        return outputs if detect is None else outputs | detect(features, where)

    sizes = _symbolic_sizes(fitted.detector)
    features = jax.ShapeDtypeStruct((*sizes, fitted.dim), jnp.float32)
    where = jax.ShapeDtypeStruct(sizes, jnp.bool_)
    exported = jax.export.export(jax.jit(run), platforms=platforms)(features, where)
    return bytes(exported.serialize())


def _symbolic_sizes(fitted: FittedDetector | None) -> Any:
    """b and t, with what tracing cannot find out alone: rounding up leaves nothing out."""
    if fitted is None:
        return jax.export.symbolic_shape("b, t")
    multiple = fitted.model.multiple
    rounded = f"{multiple}*floordiv(t + {multiple - 1}, {multiple})"
    return jax.export.symbolic_shape("b, t", constraints=[f"{rounded} >= t"])


def _detector_outputs(fitted: FittedDetector) -> Callable[..., dict[str, jax.Array]]:
    """The detector's part of the exported model, with the names of its outputs."""
    model, params = fitted.model, jax.device_get(fitted.params)
    multiple, projection = model.multiple, fitted.projection

    def run(features, where):
        length = features.shape[1]
        room = multiple * ((length + multiple - 1) // multiple) - length
        hidden = jnp.matmul(
            features - np.float32(projection.mean),
            np.float32(projection.components),
            precision=jax.lax.Precision.HIGHEST,
        )
        hidden = jnp.pad(hidden, ((0, 0), (0, room), (0, 0)))
        inside = jnp.pad(where, ((0, 0), (0, room)))
        outputs = model.apply({"params": params}, hidden, where=inside)
        return {key: getattr(outputs, name) for name, key in _OF_DETECTOR.items()}

    return run


def _params(fitted: Fitted) -> dict[str, Any]:
    """All that the model computes with, by its origin."""
    found = {f"round_{number}": one for number, one in enumerate(jax.device_get(fitted.params))}
    if fitted.detector is not None:
        projection = fitted.detector.projection
        found["detector"] = jax.device_get(fitted.detector.params)
        found["projection"] = {"mean": projection.mean, "components": projection.components}
    return found


def _describe(fitted: FittedDetector | None) -> dict[str, Any] | None:
    """What the card has of the detector; None without one."""
    if fitted is None:
        return None
    model, components = fitted.model, fitted.projection.components.shape[1]
    return {"num_levels": model.num_levels, "width": model.width, "components": components}


def _by_path(params: Any) -> dict[str, np.ndarray]:
    """Parameters by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def check_installed() -> None:
    """Raises an InputError where a package that exports need is missing."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise InputError('exported networks need pip install "tal_jax[export]"') from error
