"""The files of a prediction: ActivityNet's JSON, a page, a table and subtitles."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax.data import files
from tal_jax.data.predictions import activitynet_json
from tal_jax.inference.predict_file import Prediction
from tal_jax.report import player, subtitles


def output_files(
    path: str | Path | None, source: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """The files that `write_prediction` writes: JSON, page, table and subtitles.

    An existing file is replaced if `path` names it, or if it was written by an earlier prediction
    and not changed since, which the digests in that prediction's JSON show.

    Args:
      path: of the JSON file, after which the others are named; `NAME.detections.json` in the
        current folder by default.
      source: the recording, which none of them may replace.
      overwrite: whether any other existing file is replaced too.

    Raises:
      ValueError: if the name does not end in `.json`, or one of them is the recording, a folder,
        or a file that must not be replaced.
    """
    results = Path(f"{Path(source).stem}.detections.json" if path is None else path)
    if results.suffix != ".json":
        raise ValueError(f"{results}: expected a name that ends in .json")
    outputs = [results.with_suffix(suffix) for suffix in (".json", ".html", ".csv", ".srt")]
    for output in outputs:
        if output.is_dir():
            raise ValueError(f"{output}: a folder, expected the name of a file to write")
        if output.exists() and output.samefile(source):
            raise ValueError(
                f"{output}: the recording itself, which {results} and the files beside it would "
                "replace; expected another name or folder"
            )
    if not overwrite:
        unnamed = outputs if path is None else outputs[1:]
        files.refuse_replacing(unnamed, ours=lambda output: _is_unchanged(output, results))
    return outputs


def write_prediction(
    prediction: Prediction, path: str | Path | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Writes detections as ActivityNet's JSON, and beside it a page, a table and subtitles.

    The sha256 of each is in the JSON's "files", by which a later call recognises them.

    Args:
      prediction: from `predict_file`.
      path: as for `output_files`.
      overwrite: as for `output_files`.

    Returns:
      The files.

    Raises:
      ValueError: if a name is refused by `output_files`.
      OSError: if a file cannot be written.
    """
    one = prediction
    outputs = output_files(path, one.source, overwrite=overwrite)
    results, page, table, srt = outputs
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
        signals=one.signals,
        curves=(
            grid.to_seconds(np.arange(len(predictions.cas)) + 0.5),
            predictions.cas,
            predictions.actionness,
        ),
    )
    content = activitynet_json({one.name: one.detections})
    digests = {output.name: _file_digest(output) for output in outputs[1:]}
    content["files"] = {results.name: _digest(content), **digests}
    # Last: it marks the other files as whole.
    files.write_json(results, content)
    return outputs


# --- what was written before ---


def _is_unchanged(output: Path, results: Path) -> bool:
    """Whether a file has the digest that `results` records: the JSON beside it, or the file."""
    try:
        content = files.read_json(results)
        digests = files.convert_each(content["files"], str, str(results))
        if output == results:
            return digests[output.name] == _digest(content)
        return digests[output.name] == _file_digest(output)
    except (ValueError, KeyError, TypeError):  # a JSON that is broken, or somebody else's
        return False


def _digest(content: Mapping[str, Any]) -> str:
    """The digest of a prediction's JSON without the digests in it."""
    own = {key: value for key, value in content.items() if key != "files"}
    return hashlib.sha256(files.json_bytes(own)).hexdigest()


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
