"""Writes a prediction: ActivityNet JSON, and beside it a page, a table and subtitles."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.addresses import Source, is_local, locate
from tal_jax.data.detections import activitynet_json
from tal_jax.data.identity import FileIdentity, is_same
from tal_jax.data.shards import find_in_shards
from tal_jax.inference.predict_file import Prediction
from tal_jax.report import player, subtitles

# In place of the digests of files that are being written.
_BEGUN = "begun"


def output_files(
    path: str | Path | None,
    source: str | Path | Source,
    *,
    folder: str | Path = "",
    overwrite: bool = False,
) -> list[Path]:
    """Returns the paths that `write_prediction` writes: JSON, page, table and subtitles.

    An existing file is replaced only if `path` names it, or if it is an unchanged file of an
    earlier prediction, according to the digests in the JSON of that prediction.

    Args:
      path: the JSON file, whose name the others share; `NAME.detections.json` in `folder` by
        default.
      source: the recording, which is never replaced.
      folder: of the default name; the current one by default.
      overwrite: whether to replace any existing file.

    Raises:
      InputError: if the name does not end in `.json`, or a path is the recording, a folder, or an
        existing file that must not be replaced.
    """
    recording = locate(source)
    default = Path(folder) / f"{recording.stem}.detections.json"
    results = default if path is None else Path(path)
    if results.suffix != ".json":
        raise InputError(f"{results}: expected a name that ends in .json")
    outputs = [results.with_suffix(suffix) for suffix in (".json", ".html", ".csv", ".srt")]
    for output in outputs:
        if output.is_dir():
            raise InputError(f"{output}: a folder, expected the name of a file to write")
        at_risk = is_local(recording) and output.exists() and recording.exists()
        if at_risk and output.samefile(recording):
            raise InputError(
                f"{output}: the recording itself, which would be replaced; expected another name "
                "or folder"
            )
    if not overwrite:
        unnamed = outputs if path is None else outputs[1:]
        files.refuse_replacing(unnamed, ours=lambda output: _is_unchanged(output, results))
    return outputs


def write_prediction(
    prediction: Prediction,
    path: str | Path | None = None,
    *,
    folder: str | Path = "",
    made_from: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Writes detections as ActivityNet JSON, and beside it a page, a table and subtitles.

    In the JSON, "threshold" is the score that hides detections at first, "steps" how events were
    made of detections, if they were, and "files" has the sha256 of each file, by which a later call
    recognises unchanged ones.

    Args:
      prediction: from `inference.predict_file.predict_file`.
      path: as in `output_files`.
      folder: as in `output_files`.
      made_from: what `is_done` compares, kept in the JSON.
      overwrite: as in `output_files`.

    Returns:
      The paths of the files.

    Raises:
      InputError: as `output_files`.
      OSError: if a file cannot be written.
    """
    one = prediction
    outputs = output_files(path, one.source, folder=folder, overwrite=overwrite)
    results, page, table, srt = outputs
    content = activitynet_json({one.name: one.detections}) | {"threshold": one.threshold}
    if one.steps is not None:
        content["steps"] = dict(one.steps)
    if made_from is not None and one.identity is not None:
        content["made_from"] = {**made_from, "file": msgspec.to_builtins(one.identity)}
    # First, so that the other files are known even if this call is stopped among them.
    files.write_json(results, content | {"files": {path.name: _BEGUN for path in outputs}})
    subtitles.write_csv(table, one.detections)
    subtitles.write_srt(srt, one.detections, threshold=one.threshold)
    predictions, grid = one.predictions.original, one.predictions.grid
    player.write_player(
        page,
        name=one.name,
        classes=one.classes,
        detections=one.detections,
        duration_s=one.duration_s,
        threshold=one.threshold,
        media=one.media,
        media_origin_s=one.media_origin_s,
        signals=one.signals,
        curves=(
            grid.to_seconds(np.arange(len(predictions.cas)) + 0.5),
            predictions.cas,
            predictions.actionness,
        ),
    )
    digests = {output.name: _file_digest(output) for output in outputs[1:]}
    content["files"] = {results.name: _digest(content), **digests}
    files.write_json(results, content)
    return outputs


def is_done(source: Source, folder: str | Path, made_from: Mapping[str, Any]) -> bool:
    """Whether `write_prediction` wrote all files for this recording, and nothing changed since.

    Neither the recording, nor what the prediction was made from, nor a file of it.
    """
    outputs = output_files(None, source, folder=folder, overwrite=True)
    try:
        before = dict(files.read_json(outputs[0])["made_from"])
        identity = files.convert(before.pop("file"), FileIdentity, str(outputs[0]))
        return (
            before == made_from
            and _is_same(source, identity)
            and all(_is_unchanged(output, outputs[0], begun=False) for output in outputs)
        )
    except (ValueError, KeyError, TypeError, OSError):  # not, or not all of it
        return False


def _is_same(source: Source, before: FileIdentity) -> bool:
    sharded = find_in_shards(source)
    return is_same(source, before) if sharded is None else sharded.identity == before


def _is_unchanged(output: Path, results: Path, *, begun: bool = True) -> bool:
    """Whether a file still has the digest that the JSON file `results` records for it.

    `begun` is the answer for a file that was being written when its call ended.
    """
    try:
        content = files.read_json(results)
        digests = files.convert_each(content["files"], str, str(results))
        if digests[output.name] == _BEGUN:
            return begun
        if output == results:
            return digests[output.name] == _digest(content)
        return digests[output.name] == _file_digest(output)
    except (ValueError, KeyError, TypeError):  # not the JSON of a prediction
        return False


def _digest(content: Mapping[str, Any]) -> str:
    """The digest of the JSON of a prediction, without the key "files"."""
    rest = {key: value for key, value in content.items() if key != "files"}
    return hashlib.sha256(files.json_bytes(rest)).hexdigest()


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
