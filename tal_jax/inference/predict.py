"""One recording in, timeline out: a video, a table of sensor samples, or features."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from tal_jax import extraction, pipeline
from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import FeatureFiles, load_npy, open_features
from tal_jax.data.manifest import Manifest, check_same_backbone, read_manifest
from tal_jax.data.predictions import RecordingScores
from tal_jax.data.recordings import Recording, Scaling, check_recording
from tal_jax.datasets.own_layout import GRID_FILE, load_grid
from tal_jax.ops import segments as segment_ops
from tal_jax.report import player, subtitles
from tal_jax.runs import run_card

Entries = list[dict[str, Any]]  # ActivityNet: [{label, score, segment in seconds}], best first


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained network with all that a recording needs to be read by it.

    Attributes:
      source: where it comes from, for messages.
      predict: a recording's detections, and what the network says of it.
      classes: names of the classes.
      dim: D of the features.
      grid: their clock.
      manifest: what made them; None where that is not known.
      scaling: how they are standardised; None if they are not, or by `predict`.
      threshold: the score from which on detections are shown at first; None where nothing tells.
    """

    source: Path
    predict: Callable[[Recording], tuple[Entries, RecordingScores]]
    classes: tuple[str, ...]
    dim: int
    grid: Grid
    manifest: Manifest | None
    scaling: Scaling | None
    threshold: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What is found in one recording.

    Attributes:
      name: of the recording.
      source: the file that was read.
      duration_s: how long it is.
      detections: best first.
      scores: what the network says, snippet by snippet.
      threshold: the score from which on detections are shown at first.
      classes: names of the classes.
      media: the video.
      signals: the samples of a table.
    """

    name: str
    source: Path
    duration_s: float
    detections: Entries
    scores: RecordingScores
    threshold: float
    classes: tuple[str, ...]
    media: Path | None = None
    signals: extraction.Table | None = None


def open_run(workdir: str | Path) -> Network:
    """Opens the networks of a run's finished rounds.

    Raises:
      ValueError: if there is none, or a file of the run cannot be read.
    """
    workdir = Path(workdir)
    fitted = pipeline.load_run(workdir)
    _, data = run_card.read(workdir)

    def predict(recording: Recording) -> tuple[Entries, RecordingScores]:
        scores: dict[str, RecordingScores] = {}
        found = pipeline.predict(fitted, [recording], scores=scores)
        return found[recording.name], scores[recording.name]

    return Network(
        source=workdir,
        predict=predict,
        classes=fitted.classes,
        dim=fitted.dim,
        grid=Grid.from_dict(data["grid"]),
        manifest=run_card.manifest_of(data),
        scaling=run_card.read_scaling(workdir),
        threshold=shown_threshold(workdir, len(fitted.params) - 1, fitted.config.localization),
    )


def shown_threshold(
    workdir: Path, round_number: int, options: ml_collections.FrozenConfigDict
) -> float | None:
    """The score that leaves as many proposals on the training recordings as they have points.

    Duplicates among the proposals are lowered as they are among detections. None where a run has no
    points.
    """
    proposals = files.read_json(workdir / f"round_{round_number}" / "proposals_train.json")
    points = files.read_json(workdir / "train_points.json")
    count = sum(len(one["annotations"]) for one in points["database"].values())
    scores = np.sort(_ranked(proposals["results"].values(), options.soft_sigma))[::-1]
    return float(scores[min(count, len(scores)) - 1]) if count and len(scores) else None


def _ranked(recordings: Iterable[Entries], soft_sigma: float) -> np.ndarray:
    """Scores of entries after soft-NMS among those of one recording and class."""
    groups: dict[tuple[int, str], Entries] = {}
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


def predict_file(
    path: str | Path,
    network: Network,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prediction:
    """Finds actions in a recording.

    A video or a table is described by the backbone that the network was trained on, window by
    window into a temporary file; neither frames nor features are ever held as a whole.

    Args:
      path: a video; a table of sensor samples with a column of time; or an `.npy` file `[T, D]` of
        features.
      network: from `open_run` or `export.open_export`.
      options: of the backbone, where something lies elsewhere than in training (`path`).
      progress: is told how many snippets are described, and of how many.

    Raises:
      ValueError: if the file cannot be read, its features are not those of the network, they are
        made by another backbone or on another clock, naming what differs, or there are options for
        a file that holds features already.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a video, a table or features")
    media = signals = None
    with tempfile.TemporaryDirectory(prefix="tal_jax_") as scratch:
        if _holds_features(path, network):
            if options:
                raise ValueError(
                    f"{path} holds features already; expected no setting of a backbone, "
                    f"got {', '.join(options)}"
                )
            recording = _open_features(path, network)
        else:
            recording = _describe(path, network, options or {}, Path(scratch), progress)
            if extraction.is_video(path):
                media = path
            else:
                signals = extraction.read_table(path)
        # Features of a wrong shape, or not of real numbers, are left as they are, to be refused.
        shape, numbers = recording.features.shape, recording.features.dtype.kind in "fiu"
        fitting = numbers and len(shape) == 2 and shape[1] == network.dim
        if network.scaling is not None and fitting:
            scaled = network.scaling.apply(recording.features)
            recording = dataclasses.replace(recording, features=scaled)
        check_recording(recording, dim=network.dim)
        detections, scores = network.predict(recording)
    threshold = network.threshold
    if threshold is None:
        threshold = detections[0]["score"] / 2 if detections else 0.0
    return Prediction(
        recording.name,
        path,
        recording.duration_s,
        detections,
        scores,
        threshold,
        network.classes,
        media,
        signals,
    )


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
    said, grid = one.scores.original, one.scores.grid
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
            grid.to_seconds(np.arange(len(said.scores)) + 0.5),
            said.scores,
            said.foreground,
        ),
    )
    content = pipeline.activitynet({one.name: one.detections})
    digests = {output.name: _file_digest(output) for output in outputs[1:]}
    content["files"] = {results.name: _digest(content), **digests}
    # Last, since it tells that the others are whole.
    files.write_json(results, content)
    return outputs


# --- what was written before ---


def _is_unchanged(output: Path, results: Path) -> bool:
    """Whether a file has the digest that `results` records: the JSON beside it, or the file."""
    try:
        content = files.read_json(results)
        digests = files.get_value(content, "files", Mapping, str(results))
        if output == results:
            return digests[output.name] == _digest(content)
        return digests[output.name] == _file_digest(output)
    except (ValueError, KeyError):  # a JSON that is broken, or somebody else's
        return False


def _digest(content: Mapping[str, Any]) -> str:
    """The digest of a prediction's JSON without the digests in it."""
    own = {key: value for key, value in content.items() if key != "files"}
    return hashlib.sha256(files.json_bytes(own)).hexdigest()


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what a file is ---


def _holds_features(path: Path, network: Network) -> bool:
    """Whether an `.npy` file holds features; where tables are read, another width tells one.

    Unless a manifest beside it says that it holds features.
    """
    if path.suffix != ".npy":
        return False
    beside = read_manifest(path.parent)
    if beside is not None and path.stem in beside.recordings:
        return True
    reads_tables = network.manifest is not None and network.manifest.backbone == "signal"
    array = load_npy(path)
    table = array.dtype.names is not None or (array.ndim == 2 and array.shape[1] != network.dim)
    return not (reads_tables and table)


def _open_features(path: Path, network: Network) -> Recording:
    """Features as they are, on the network's clock unless what lies beside them tells otherwise."""
    beside = read_manifest(path.parent)
    if beside is not None and network.manifest is not None:
        check_same_backbone(beside, network.manifest, str(path))
    if (path.parent / GRID_FILE).exists():
        grid = load_grid(path.parent / GRID_FILE)
        for name, value in grid.to_dict().items():
            wanted = getattr(network.grid, name)
            if value != wanted:
                raise ValueError(
                    f"{path}: {name} is {value:g} in the {GRID_FILE} beside it; expected "
                    f"{wanted:g}, which the network in {network.source} was trained on"
                )
    features = _load(path)
    duration_s = network.grid.to_seconds(float(len(features))) if features.ndim else 0.0
    if beside is not None and path.stem in beside.recordings:
        duration_s = beside.recordings[path.stem].duration_s
    return Recording(path.stem, features, network.grid, duration_s)


def _load(path: Path) -> np.ndarray | FeatureFiles:
    """Features that stay in their file, or whatever array it holds, to be refused with its name."""
    array = load_npy(path)
    usual = array.ndim == 2 and array.dtype in (np.float32, np.float16)
    return open_features([path]) if usual else array


def _describe(
    path: Path,
    network: Network,
    options: Mapping[str, Any],
    scratch: Path,
    progress: Callable[[int, int], None],
) -> Recording:
    """Describes a video or a table as the training recordings were."""
    wanted = network.manifest
    if wanted is None:
        raise ValueError(
            f"{path}: the network in {network.source} was trained on features without a "
            f"manifest.json, so that nothing tells how to describe a recording; expected an .npy "
            f"file [T, {network.dim}] of such features"
        )
    backbone = extraction.open_backbone(wanted.backbone, **{**wanted.options, **options})
    is_video = extraction.is_video(path)
    if is_video != (backbone.kind == "video"):
        raise ValueError(
            f"{path}: {'a video' if is_video else 'no video'}; the network in {network.source} "
            f"was trained on {backbone.kind}s, described by {wanted.backbone!r}"
        )
    now = Manifest(
        backbone.name,
        backbone.version,
        backbone.options,
        # A table's channels decide it, which are not known yet.
        wanted.dim if backbone.dim is None else backbone.dim,
        extraction.grid_of(backbone),
    )
    check_same_backbone(now, wanted, str(path))
    target = scratch / "features.npy"
    entry = extraction.extract_file(path, target, backbone, progress=progress)
    grid = extraction.grid_of(backbone)
    return Recording(path.stem, open_features([target]), grid, entry.duration_s)
