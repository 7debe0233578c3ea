"""Loads the data set of a config."""

import contextlib
import dataclasses
import gc
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from tal_jax._errors import InputError
from tal_jax.config import folder_config, nearest
from tal_jax.data import recordings
from tal_jax.data.clock import Grid
from tal_jax.data.point_distributions import NO_POINTS, POINT_DISTRIBUTIONS, POINTS_OF_FILE
from tal_jax.data.recordings import Dataset
from tal_jax.datasets import doctor, hapt, layouts, own_layout, watch
from tal_jax.datasets.benchmarks import load_benchmark
from tal_jax.datasets.selection import Finding
from tal_jax.datasets.supervision import (
    LABELS,
    POINTS,
    Supervision,
    check_supervision,
    supervise,
)

DATA_VARIABLE = "TAL_JAX_DATA"


def load_dataset(
    config: ml_collections.ConfigDict | ml_collections.FrozenConfigDict,
    data: str | os.PathLike | None = None,
) -> Dataset:
    """Loads the data set of a config.

    Args:
      config: of a run; its section `data` has the data set's name and settings.
      data: the folder of data sets; the environment variable `TAL_JAX_DATA` by default.

    Raises:
      InputError: if the data set or a setting of it is unknown, it cannot be found, or a file of it
        is refused.
    """
    settings: Any = config.data
    settings = settings.to_dict()
    name, own_seed = settings.pop("name"), settings.pop("seed")
    if name not in LOADERS:
        raise InputError(f"config: data.name={name!r}; did you mean {nearest(name, LOADERS)!r}?")
    seed: Any = config.seed if own_seed is None else own_seed
    if seed < 0:
        key = "seed" if own_seed is None else "data.seed"
        raise InputError(f"config: {key}={seed}; expected at least 0")
    # Configs of earlier versions have neither: points alone.
    kind, share = settings.pop("supervision", POINTS), settings.pop("segments_share", 1.0)
    load = LOADERS[name]
    _check_settings(name, set(settings), inspect.signature(load).parameters)
    supervision = Supervision(kind, share, seed)
    check_supervision(supervision, settings["points"])
    data = data or os.environ.get(DATA_VARIABLE) or None
    with _uncollected():
        dataset = load(
            None if data is None else Path(data), seed=seed, supervision=supervision, **settings
        )
        return supervise(dataset, supervision)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pauses Python's garbage collection.

    Of 10⁵ recordings nearly all objects stay, and looking for others takes half of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load_watch(
    data: Path | None,
    *,
    seed: int,
    supervision: Supervision,
    points: str,
    shuffles: int,
    stride_s: float,
    window_s: float,
) -> Dataset:
    """Loads the embedded recordings, which need no folder."""
    del data, supervision  # every bout has a segment and a point
    return watch.load(
        seed=seed, points=points, shuffles=shuffles, stride_s=stride_s, window_s=window_s
    )


def _load_hapt(
    data: Path | None,
    *,
    seed: int,
    supervision: Supervision,
    points: str,
    stride_s: float,
    window_s: float,
    cut_s: tuple[float, ...] = (),
) -> Dataset:
    """Loads HAPT, in `data/hapt` or `data` itself."""
    if cut_s and supervision.segments_suffice:
        raise InputError(
            f"config: data.cut_s={tuple(cut_s)} with data.supervision={supervision.kind!r}; "
            "expected (), since cuts go through instances"
        )
    if data is None:
        raise InputError(
            f"hapt: no folder given, expected the one that contains `hapt` as --data or "
            f"{DATA_VARIABLE}; it is available at https://archive.ics.uci.edu/dataset/341"
        )
    folder = data if (data / "RawData").is_dir() else data / "hapt"
    return hapt.load(
        folder, seed=seed, points=points, stride_s=stride_s, window_s=window_s, cut_s=cut_s
    )


def _load_folder(
    data: Path | None,
    *,
    seed: int,
    supervision: Supervision,
    points: str,
    folder: str,
    train_subset: str,
    test_subset: str,
    annotations: str,
    point_file: str,
    split: str,
    overlapping: tuple[str, ...],
    fps: float,
    stride_frames: float,
    window_frames: float,
    standardize: bool,
    allow_pickle: bool,
) -> Dataset:
    """A folder of features with annotations; `folder` is read from `data` on."""
    path = _folder_path(data, folder)
    if points not in (*POINT_DISTRIBUTIONS, POINTS_OF_FILE, NO_POINTS):
        raise InputError(
            f"config: data.points={points!r}; expected one of {', '.join(POINT_DISTRIBUTIONS)}, "
            f"{POINTS_OF_FILE!r} for the points in the annotations or a point file, or "
            f"{NO_POINTS!r} for video-level labels alone"
        )
    points = NO_POINTS if supervision.kind == LABELS else points  # which need not be there
    clock = Grid(fps, stride_frames, window_frames)
    if not annotations and own_layout.is_own(path):
        _check_unused(path, point_file, split, clock)
        dataset = own_layout.load_folder(
            path,
            points=points,
            seed=seed,
            train_subset=train_subset,
            test_subset=test_subset,
            overlapping=overlapping,
            segments_suffice=supervision.segments_suffice,
        )
    else:
        dataset = load_benchmark(
            layouts.find_layout(
                path,
                grid=clock,
                annotations=annotations,
                point_file=point_file,
                train_subset=train_subset,
                test_subset=test_subset,
                split=split,
                allow_pickle=allow_pickle,
            ),
            points=points,
            seed=seed,
            overlapping=overlapping,
            segments_suffice=supervision.segments_suffice,
        )
    dataset = dataclasses.replace(dataset, root=os.path.abspath(path))
    return recordings.standardize(dataset) if standardize else dataset


def _check_unused(folder: Path, point_file: str, split: str, clock: Grid) -> None:
    """Refuses settings that a folder in this project's layout leaves without effect."""
    layouts.check_split(split)
    if point_file:
        raise InputError(
            f"{folder}: data.point_file={point_file!r}, but points are read from "
            f"{own_layout.ANNOTATION_FILE}; put them there by `tal-jax points convert`, or set "
            f"data.annotations={own_layout.ANNOTATION_FILE}, too"
        )
    default, there = folder_config(), own_layout.load_grid(folder / own_layout.GRID_FILE)
    for key, value in clock.to_dict().items():
        if value not in (default[key], there.to_dict()[key]):
            raise InputError(
                f"{folder}: data.{key}={value:g}, but {own_layout.GRID_FILE} has "
                f"{there.to_dict()[key]:g}; expected one clock"
            )


def _folder_path(data: str | os.PathLike | None, folder: str) -> Path:
    """Returns the path of a folder of features: `folder`, relative to `data` if given."""
    data = data or os.environ.get(DATA_VARIABLE)
    if not data and not folder:
        raise InputError(
            f"folder: none given, expected the folder of features as --data, {DATA_VARIABLE} or "
            "data.folder"
        )
    return Path(data or ".") / folder


def examine(
    config: ml_collections.ConfigDict | ml_collections.FrozenConfigDict,
    data: str | os.PathLike | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> doctor.Diagnosis:
    """Validates the folder of features of a config, see `doctor.diagnose`.

    What `load_dataset` refuses is an error in the diagnosis.
    """
    settings: Any = config.data
    try:
        layout = open_layout(config, data)
    except InputError as error:
        # An existing folder without a known layout is a finding, not an error of the call.
        if settings.name != "folder" or not _folder_path(data, settings.folder).is_dir():
            raise
        return doctor.Diagnosis("", {}, "", "", (Finding("error", str(error)),))
    supervision = Supervision(settings.get("supervision", POINTS))
    diagnosis = doctor.diagnose(
        layout,
        points=NO_POINTS if supervision.kind == LABELS else settings.points,
        segments_suffice=supervision.segments_suffice,
        progress=progress,
    )
    if not diagnosis.wrong:
        unread = ml_collections.ConfigDict(config.to_dict())
        unread.update(data={"standardize": False})  # which would read all features again
        try:
            load_dataset(unread, data)
        except InputError as error:  # such as what only this project's layout is refused for
            refused = Finding("error", str(error))
            return dataclasses.replace(diagnosis, findings=(refused, *diagnosis.findings))
    return diagnosis


def open_layout(
    config: ml_collections.ConfigDict | ml_collections.FrozenConfigDict,
    data: str | os.PathLike | None = None,
) -> layouts.Layout:
    """Detects the layout of a config's folder, see `layouts.find_layout`."""
    settings: Any = config.data
    if settings.name != "folder":
        raise InputError(f"config: data.name={settings.name!r}; expected 'folder'")
    return layouts.find_layout(
        _folder_path(data, settings.folder),
        grid=Grid(settings.fps, settings.stride_frames, settings.window_frames),
        annotations=settings.annotations,
        point_file=settings.point_file,
        train_subset=settings.train_subset,
        test_subset=settings.test_subset,
        split=settings.split,
        allow_pickle=settings.allow_pickle,
    )


LOADERS: dict[str, Callable[..., Dataset]] = {
    "watch": _load_watch,
    "hapt": _load_hapt,
    "folder": _load_folder,
}


def _check_settings(
    name: str, given: set[str], parameters: Mapping[str, inspect.Parameter]
) -> None:
    expected = set(parameters) - {"data", "seed", "supervision"}
    for key in sorted(given - expected):
        raise InputError(
            f"config: data.{key} is no setting of the data set {name!r}; did you mean "
            f"data.{nearest(key, sorted(expected))}?"
        )
    for key in sorted(expected - given):
        if parameters[key].default is inspect.Parameter.empty:
            raise InputError(f"config: data.{key} is missing; the data set {name!r} needs it")
