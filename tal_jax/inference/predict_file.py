"""Detections in one file: a video, a table of sensor samples or keypoints, or features."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax import extraction
from tal_jax._errors import InputError
from tal_jax.data.addresses import Source, fetch, is_local, locate
from tal_jax.data.clock import Grid
from tal_jax.data.detections import Entries
from tal_jax.data.identity import FileIdentity
from tal_jax.data.lazy_features import LazyFeatures, load_npy, open_features
from tal_jax.data.manifest import Entry, Manifest, check_same_backbone, read_manifest
from tal_jax.data.predictions import RecordingPredictions
from tal_jax.data.recordings import Recording, Scaling, check_recording
from tal_jax.data.shards import ShardFeatures, find_in_shards
from tal_jax.datasets.own_layout import GRID_FILE, load_grid
from tal_jax.extraction import keypoint_tables
from tal_jax.inference.events import Events, PerClass, for_all, select_events


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained network with all that predicting a file needs."""

    source: Path  # for messages
    predict: Callable[[Recording], tuple[Entries, RecordingPredictions]]
    classes: tuple[str, ...]
    dim: int  # D of the features
    grid: Grid  # their clock
    manifest: Manifest | None  # what made them; None where that is not known
    scaling: Scaling | None  # how they are standardized; None if they are not, or by `predict`
    threshold: float | None  # hides detections of a lower score at first; None if unknown
    digest: str = ""  # of all of these: another one may detect something else


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Detections in one recording, and what they are shown with."""

    name: str  # of the recording
    source: Source  # the file that was read
    duration_s: float
    detections: Entries  # best first
    predictions: RecordingPredictions
    threshold: float  # hides detections of a lower score at first
    classes: tuple[str, ...]
    media: Path | None = None  # the video
    media_origin_s: float = 0.0  # its timestamp that is time 0
    signals: extraction.Table | None = None  # the samples of a table
    notes: tuple[str, ...] = ()  # such as which column was taken for which channel
    identity: FileIdentity | None = None  # of the file; None where features were not hashed
    steps: Mapping[str, Any] | None = None  # by which the detections were made events


def select_in_prediction(
    prediction: Prediction, steps: Mapping[str, PerClass]
) -> tuple[Prediction, Events]:
    """A prediction of events instead of detections.

    Args:
      prediction: from `predict_file`.
      steps: arguments of `select_events`; without a threshold, or for classes that it leaves out,
        that of the prediction counts.
    """
    threshold = for_all(steps.get("threshold"), prediction.classes, prediction.threshold)
    steps = {**steps, "threshold": threshold}
    events = select_events(prediction.detections, **steps)
    lowest = min(threshold.values()) if isinstance(threshold, Mapping) else threshold
    selected = dataclasses.replace(
        prediction,
        detections=events.entries,
        threshold=prediction.threshold if lowest is None else lowest,
        steps=steps,
    )
    return selected, events


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """A recording with its features, and what its detections are shown with."""

    recording: Recording  # the features may be in a file of the folder that was given
    source: Source  # the file that was read
    media: Path | None  # the video
    media_origin_s: float  # its timestamp that is time 0
    signals: extraction.Table | None  # the samples of a table
    notes: tuple[str, ...]
    identity: FileIdentity | None  # None of an `.npy` of features, which was not hashed


def predict_file(
    path: str | Path | Source,
    network: Network,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prediction:
    """Detects actions in a recording.

    A video or a table is described by the backbone that the network was trained on, window by
    window into a temporary file; neither frames nor features are ever held as a whole.

    Args:
      path: a video; a table of sensor samples with a column of time, or of keypoints; or an `.npy`
        file `[T, D]` of features, which may be in the shards of its folder. A recording may be on
        another machine, at an address that fsspec opens.
      network: from `runs.workdir.open_run` or `export.open_export`.
      options: of the backbone, where a path differs from training; for a table `time`, `time_unit`
        and `channels`, its columns in the order of the network's channels.
      progress: called with the number of snippets done, and of all.

    Raises:
      InputError: if the file cannot be read, its features are not those of the network, another
        backbone or clock made them, or there are options for a file that holds features already.
    """
    with tempfile.TemporaryDirectory(prefix="tal_jax_") as scratch:
        return detect(describe(path, network, Path(scratch), options, progress), network)


def describe(
    path: str | Path | Source,
    network: Network,
    scratch: Path,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Described:
    """The features of a recording: the part of `predict_file` before the network.

    Those of a video or a table are written into the folder `scratch`, which `detect` reads.
    """
    source = locate(path)
    if is_local(source):
        return _describe_local(source, source, network, scratch, options, progress)
    copy = fetch(source, scratch)
    try:
        return _describe_local(source, copy, network, scratch, options, progress)
    except InputError as error:
        raise InputError(str(error).replace(str(copy), str(source))) from error


def _describe_local(
    source: Source,
    path: Path,
    network: Network,
    scratch: Path,
    options: Mapping[str, Any] | None,
    progress: Callable[[int, int], None],
) -> Described:
    """As `describe`; `path` is the recording, or what was fetched of another machine."""
    sharded = find_in_shards(path)
    if not path.is_file() and sharded is None:
        raise InputError(f"{path}: no such file, expected a video, a table or features")
    media, origin_s, signals, notes = None, 0.0, None, ()
    identity = None if sharded is None else sharded.identity
    if _holds_features(path, network):
        if source is not path:
            raise InputError(
                f"{path}: features without the {GRID_FILE} and manifest.json beside them; expected "
                "a recording, or a folder on this machine"
            )
        if options:
            raise InputError(
                f"{path} holds features already; expected no setting of a backbone, "
                f"got {', '.join(options)}"
            )
        recording = _open_features(path, network)
    else:
        backbone, signals, notes = _open_backbone(path, network, options or {})
        media = path if extraction.is_video(path) else _video_beside(path, backbone)
        if media is not None:
            origin_s = extraction.probe(media).origin_s
        if media is not None and source is not path:
            media, notes = None, (*notes, "the page plays no video, which is on another machine")
        recording, entry = _describe(path, backbone, scratch, progress)
        notes = (*notes, *entry.notes)
        identity = FileIdentity(entry.sha256, entry.bytes, entry.modified_ns)
    # Features of a wrong shape, or not of real numbers, are left as they are, to be refused.
    shape, numbers = recording.features.shape, recording.features.dtype.kind in "fiu"
    fitting = numbers and len(shape) == 2 and shape[1] == network.dim
    if network.scaling is not None and fitting:
        scaled = network.scaling.apply(recording.features)
        recording = dataclasses.replace(recording, features=scaled)
    check_recording(recording, dim=network.dim)
    return Described(recording, source, media, origin_s, signals, notes, identity)


def detect(described: Described, network: Network) -> Prediction:
    """Detects actions in a recording with features: the rest of `predict_file`."""
    recording = described.recording
    detections, predictions = network.predict(recording)
    threshold = network.threshold
    if threshold is None:
        threshold = detections[0]["score"] / 2 if detections else 0.0
    return Prediction(
        recording.name,
        described.source,
        recording.duration_s,
        detections,
        predictions,
        threshold,
        network.classes,
        described.media,
        described.media_origin_s,
        described.signals,
        described.notes,
        described.identity,
    )


# --- what a file is ---


def reads_tables(network: Network) -> bool:
    """Whether a network was trained on tables, of sensor samples or of keypoints."""
    made = network.manifest
    # With the path of networks, `pose` finds the joints in videos.
    of_videos = made is not None and bool(made.options.get("path"))
    return made is not None and made.backbone in ("signal", "pose") and not of_videos


def _holds_features(path: Path, network: Network) -> bool:
    """Whether an `.npy` file holds features rather than a table of samples.

    A manifest beside it lists files of features; else, for a network on tables, a width other than
    the network's is that of a table.
    """
    if path.suffix != ".npy":
        return False
    if not path.exists():
        return True  # in a shard
    beside = read_manifest(path.parent)
    if beside is not None and path.stem in beside.recordings:
        return True
    array = load_npy(path)
    table = array.dtype.names is not None or array.ndim > 2
    table = table or (array.ndim == 2 and array.shape[1] != network.dim)
    return not (reads_tables(network) and table)


def _open_features(path: Path, network: Network) -> Recording:
    """Features from a file, on the network's clock; files beside them must agree."""
    beside = read_manifest(path.parent)
    if beside is not None and network.manifest is not None:
        check_same_backbone(beside, network.manifest, str(path))
    if (path.parent / GRID_FILE).exists():
        grid = load_grid(path.parent / GRID_FILE)
        for name, value in grid.to_dict().items():
            wanted = getattr(network.grid, name)
            if value != wanted:
                raise InputError(
                    f"{path}: {name} is {value:g} in the {GRID_FILE} beside it; expected "
                    f"{wanted:g}, which the network in {network.source} was trained on"
                )
    features = _load(path)
    duration_s = network.grid.to_seconds(float(len(features))) if features.ndim else 0.0
    entry = beside.recordings.get(path.stem) if beside is not None else None
    if isinstance(features, ShardFeatures):
        entry = features.entry
    if entry is not None:
        duration_s = entry.duration_s
    return Recording(path.stem, features, network.grid, duration_s)


def _load(path: Path) -> np.ndarray | LazyFeatures:
    """Features that stay in their file, or whatever array it holds, to be refused with its name."""
    sharded = find_in_shards(path)
    if sharded is not None:
        return sharded
    array = load_npy(path)
    usual = array.ndim == 2 and array.dtype in (np.float32, np.float16)
    return open_features([path]) if usual else array


def _open_backbone(
    path: Path, network: Network, options: Mapping[str, Any]
) -> tuple[extraction.Backbone, extraction.Table | None, tuple[str, ...]]:
    """Opens the backbone of the training recordings; with the table, if it is one, and notes."""
    wanted = network.manifest
    if wanted is None:
        raise InputError(
            f"{path}: the network in {network.source} was trained on features without a "
            f"manifest.json, so that the backbone is unknown; expected an .npy "
            f"file [T, {network.dim}] of such features"
        )
    backbone = extraction.reopen_backbone(wanted.backbone, wanted.options, options)
    is_video = extraction.is_video(path)
    if is_video != (backbone.kind == "video"):
        raise InputError(
            f"{path}: {'a video' if is_video else 'no video'}; the network in {network.source} "
            f"was trained on {backbone.kind}s, described by {wanted.backbone!r}"
        )
    table, notes = None, ()
    if backbone.kind == "table":
        backbone, table = _read_all_columns(path, backbone, set(wanted.options) - set(options))
        backbone, notes = _match_channels(path, backbone, table, wanted, options)
    now = Manifest(
        backbone.name,
        backbone.version,
        # Columns that are taken for the network's channels are those by other names.
        {**backbone.options, "channels": wanted.options.get("channels")}
        if _has_channels(backbone)
        else backbone.options,
        # A table's channels decide it, which are not known yet.
        wanted.dim if backbone.dim is None else backbone.dim,
        extraction.grid_of(backbone),
    )
    check_same_backbone(now, wanted, str(path))
    return backbone, table, notes


def _video_beside(path: Path, backbone: extraction.Backbone) -> Path | None:
    """The video that a table of keypoints was computed from, if it is in the same folder."""
    if backbone.kind != "keypoint table":
        return None
    return keypoint_tables.video_beside(path)


def _read_all_columns(
    path: Path, backbone: Any, inherited: set[str]
) -> tuple[Any, extraction.Table]:
    """Reads a table for the page; the backbone reads its own columns when they are described.

    How the time of training tables was read is left aside where it does not fit this one.
    """
    every = dataclasses.replace(backbone, channels=()) if _has_channels(backbone) else backbone
    try:
        return backbone, extraction.read_samples(path, every)
    except InputError:
        without = dict.fromkeys(inherited & {"time", "time_unit"}, "")
        if not without:
            raise
    table = extraction.read_samples(path, dataclasses.replace(every, **without))
    return dataclasses.replace(backbone, **without), table


def _has_channels(backbone: Any) -> bool:
    return hasattr(backbone, "channels") and dataclasses.is_dataclass(backbone)


def _match_channels(
    path: Path,
    backbone: Any,
    table: extraction.Table,
    wanted: Manifest,
    options: Mapping[str, Any],
) -> tuple[Any, tuple[str, ...]]:
    """Finds the columns for the network's channels by name; without names, by their places.

    Returns the backbone with these channels, and a note where names do not decide.
    """
    if not _has_channels(backbone):
        return backbone, ()
    named = tuple(wanted.options.get("channels") or ())
    usual = named or wanted.channels
    every = (*table.names, *(name for name, _ in table.left_out))
    if options.get("channels"):
        return backbone, _pairs(path, usual, backbone.channels)
    missing = [name for name in usual if name not in every]
    if usual and not missing:
        return dataclasses.replace(backbone, channels=usual), ()
    if usual and (named or len(missing) < len(usual)):
        raise InputError(
            f"{path}: no column {missing[0]!r} among {', '.join(every)}; the network was trained "
            f"on {', '.join(usual)}: expected these names, or the columns for them in this order "
            "with --set channels=NAME,NAME,NAME"
        )
    return dataclasses.replace(backbone, channels=table.names), _pairs(path, usual, table.names)


def _pairs(path: Path, usual: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """A line with the column of each channel; more or fewer columns are refused."""
    if usual and len(usual) != len(columns):
        raise InputError(
            f"{path}: {len(columns)} columns, {', '.join(columns)}; the network was trained on "
            f"{len(usual)}, {', '.join(usual)}: expected the columns for them in this order with "
            "--set channels=NAME,NAME,NAME"
        )
    names = usual or [f"channel {number}" for number in range(1, len(columns) + 1)]
    pairs = ", ".join(f"{column} as {name}" for column, name in zip(columns, names, strict=True))
    return (f"takes columns by their order: {pairs}",)


def _describe(
    path: Path,
    backbone: extraction.Backbone,
    scratch: Path,
    progress: Callable[[int, int], None],
) -> tuple[Recording, Entry]:
    """Describes a video or a table as the training recordings were; with its entry."""
    target = scratch / "features" / "features.npy"  # not beside what was fetched
    entry = extraction.extract_file(path, target, backbone, progress=progress)
    grid = extraction.grid_of(backbone)
    name = extraction.recording_name(path, backbone.kind)
    recording = Recording(name, open_features([target]), grid, entry.duration_s)
    return recording, entry
