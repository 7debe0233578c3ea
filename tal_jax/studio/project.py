"""The project folder of the studio, which a person can read, copy and move.

Its files::

    project.json      the recordings, the backbone, the settings of events
    annotations.json  the labels, see `tal_jax.data.annotations`
    features/         of `tal-jax extract`; its annotations.json has the labels of the last training
    runs/0001/        the work directory of the first training; 0002 began from it, and so on;
                      studio.json of each has what the studio keeps of it
    exports/          what was exported

Nothing in it needs the studio: `tal-jax train --data features --from runs/0001` does the same.
"""

import dataclasses
import datetime
import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import (
    Annotations,
    RecordingAnnotation,
    labels_of_time,
    load_annotations,
)
from tal_jax.data.identity import identify
from tal_jax.data.manifest import MANIFEST_FILE, Manifest, read_manifest
from tal_jax.datasets.own_layout import ANNOTATION_FILE, recording_path
from tal_jax.extraction.recommendation import CHOICES, KEYPOINTS, SENSORS, VIDEOS
from tal_jax.inference.events import PerClass, for_all, select_events
from tal_jax.studio.recordings import Source, find_sources

PROJECT_FILE, CARD_FILE = "project.json", "studio.json"
_FORMAT = 1
# For videos where the recommended network is not installed.
_WITHOUT_NETWORK = "motion"

T = TypeVar("T")


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How events are made of detections, see `inference.events`; None: left out, or the default.

    Attributes:
      threshold: by default that of the run.
      min_duration_s: minimum duration of an event.
      merge_gap_s: largest gap between two detections that become one.
    """

    threshold: float | dict[str, float] | None = None
    min_duration_s: float | dict[str, float] | None = None
    merge_gap_s: float | dict[str, float] | None = None

    def steps(self, classes: Sequence[str], threshold: float | None) -> dict[str, PerClass]:
        """The arguments of `select_events`, with the threshold of a run as the default."""
        return {
            "threshold": for_all(self.threshold, classes, threshold),
            "min_duration_s": self.min_duration_s,
            "merge_gap_s": self.merge_gap_s,
        }


class ProjectFile(msgspec.Struct, kw_only=True):
    """The content of `project.json`.

    Attributes:
      format: of the file.
      recordings: files and folders, relative to the project folder where they lie around it.
      backbone: its name.
      options: of the backbone.
      training: settings of the config of the first training, as `KEY: VALUE`.
      settings: of events.
      auto: training starts after so many new answers; None: only when asked to.
      renamed: names of classes before and after each time that one was renamed, in order: runs keep
        the names of their time.
    """

    format: int = _FORMAT
    recordings: list[str]
    backbone: str
    options: dict[str, str] = {}
    training: dict[str, str] = {}
    settings: Settings = msgspec.field(default_factory=Settings)
    auto: int | None = None
    renamed: list[tuple[str, str]] = []


class Card(msgspec.Struct, kw_only=True):
    """The content of `studio.json` in a work directory.

    Attributes:
      number: of the run.
      started_at: ISO time.
      labels: counts of the labels at its start.
      renames: how many times a class had been renamed when its labels were read.
      criterion: of the run before, on the points that were added since; None without any.
      new_points: how many these are.
      finished_at: ISO time; None before its end.
      failed: why it ended early, one line; such a run is not continued.
      classes: of the run.
      threshold: that of the run, which leaves as many detections as there are points.
      warnings: lines on classes that vanished or are everywhere.
    """

    number: int
    started_at: str
    labels: dict[str, float] = {}
    renames: int = 0
    criterion: float | None = None
    new_points: int = 0
    finished_at: str | None = None
    failed: str | None = None
    classes: list[str] = []
    threshold: float | None = None
    warnings: list[str] = []


@dataclasses.dataclass(frozen=True)
class Run:
    """A work directory, and what the studio keeps of it.

    Attributes:
      path: of the work directory.
      card: what is kept.
      names: the names that classes have now, by those that they have in the files of the run; of
        classes that were renamed since.
    """

    path: Path
    card: Card
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return self.card.number

    @property
    def classes(self) -> list[str]:
        """Its classes, by the names that they have now."""
        return [self.names.get(label, label) for label in self.card.classes]

    def write(self) -> None:
        """Writes the card."""
        files.write_json(self.path / CARD_FILE, msgspec.to_builtins(self.card))


class Project:
    """A project folder.

    Attributes:
      folder: its path.
    """

    def __init__(self, folder: str | os.PathLike):
        """Opens an existing folder.

        Raises:
          InputError: if its `project.json` cannot be read.
        """
        self.folder = Path(folder)
        self._manifest = Cached(self.features / MANIFEST_FILE, lambda: read_manifest(self.features))
        self._cards: dict[Path, Cached[Card]] = {}
        path = self.labels_of_training
        self._trained_on = Cached(path, lambda: load_annotations(path))
        self._labels_by_names: dict[tuple, Annotations] = {}  # those, with other names
        self._file = Cached(self.folder / PROJECT_FILE, self._read_file)
        self._writing = threading.Lock()
        _ = self.file  # that it can be read

    annotations = property(lambda self: self.folder / ANNOTATION_FILE)
    features = property(lambda self: self.folder / "features")
    exports = property(lambda self: self.folder / "exports")
    labels_of_training = property(lambda self: self.features / ANNOTATION_FILE)

    @property
    def file(self) -> ProjectFile:
        """What is in `project.json`, which must not be changed."""
        return self._file.get() or self._read_file()

    def write(self, **changes: Any) -> None:
        """Changes parts of `project.json`."""
        with self._writing:
            changed = msgspec.structs.replace(self.file, **changes)
            files.write_json(self.folder / PROJECT_FILE, msgspec.to_builtins(changed))

    def rename_class(self, before: str, now: str) -> None:
        """Renames a class in the settings of events, and in what is read of runs.

        To be called after the labels were written: see `Card.renames`.
        """
        content = self.file
        settings = msgspec.to_builtins(content.settings)
        for key, value in settings.items():
            if isinstance(value, dict):
                settings[key] = {now if one == before else one: n for one, n in value.items()}
        self.write(
            settings=msgspec.convert(settings, Settings),
            renamed=[*content.renamed, (before, now)],
        )

    def names_since(self, run: "Run", until: "Run") -> dict[str, str]:
        """What classes of a run were called at the start of a later one, where this differs."""
        return _follow(self.file.renamed[run.card.renames : until.card.renames])

    def _read_file(self) -> ProjectFile:
        path = self.folder / PROJECT_FILE
        found = files.convert(files.read_json(path), ProjectFile, str(path))
        if found.format != _FORMAT:
            raise InputError(f"{path}: format {found.format}, expected {_FORMAT}")
        return found

    def sources(self) -> tuple[Source, ...]:
        """The recordings; raises InputError as `find_sources`."""
        return find_sources(self.places)

    @property
    def places(self) -> list[Path]:
        """The files and folders that the recordings are in."""
        return [self.folder / path for path in self.file.recordings]

    # --- features ---

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the features; None before there are any."""
        return self._manifest.get()

    def has_features(self, name: str) -> bool:
        """Whether the features of a recording are there."""
        manifest = self.manifest
        return (
            manifest is not None
            and name in manifest.recordings
            and recording_path(self.features, name).exists()
            and not self.is_replaced(name)
        )

    def is_replaced(self, name: str) -> bool:
        """Whether features of a recording are there, and its file is another one since.

        A file that is no longer where it was read is not: the folders may have been moved.
        """
        manifest = self.manifest
        if manifest is None or (entry := manifest.recordings.get(name)) is None:
            return False
        try:
            now = os.stat(entry.source)
            if now.st_size != entry.bytes:
                return True
            if now.st_mtime_ns == entry.modified_ns:
                return False
            return _sha256(entry.source, now.st_size, now.st_mtime_ns) != entry.sha256
        except OSError:
            return False

    def count_answers(self, labels: Annotations) -> int:
        """How many labels are new or changed since the last training began.

        Of recordings with features: others cannot be trained on.
        """
        ready = {name: one for name, one in labels.recordings.items() if self.has_features(name)}
        return count_changes(
            self.trained_on or dataclasses.replace(labels, recordings={}),
            dataclasses.replace(labels, recordings=ready),
        )

    def file_to_extract(self, source: Source) -> Path | None:
        """The file of a recording that the backbone reads; None where it reads none of it."""
        kind = _kind_read(self.file)
        if kind == KEYPOINTS:
            return source.keypoints
        wanted = "video" if kind == VIDEOS else "signal"
        return source.path if source.kind == wanted else None

    # --- runs ---

    @property
    def trained_on(self) -> Annotations | None:
        """The labels of the last training; None before the first one."""
        runs, found = self.runs(), self._trained_on.get()
        if not runs or found is None:
            return None
        key = id(found), *runs[-1].names.items()
        if key not in self._labels_by_names:
            self._labels_by_names = {key: rename_labels(found, runs[-1].names)}
        return self._labels_by_names[key]

    def runs(self) -> list[Run]:
        """All runs in order; folders without a card are none."""
        found = []
        for path in sorted((self.folder / "runs").glob("[0-9]*")):
            if path not in self._cards:
                self._cards[path] = Cached(path / CARD_FILE, functools.partial(_read_card, path))
            if (content := self._cards[path].get()) is not None:
                names = _follow(self.file.renamed[content.renames :])
                found.append(Run(path, content, names))
        return sorted(found, key=lambda run: run.number)

    def finished(self) -> list[Run]:
        """The runs that ended well."""
        return [run for run in self.runs() if run.card.finished_at is not None]

    def unfinished(self) -> Run | None:
        """The run to continue: the last one, if it was stopped."""
        runs = self.runs()
        if not runs or runs[-1].card.finished_at is not None or runs[-1].card.failed is not None:
            return None
        return runs[-1]

    def next_run(self) -> Run:
        """A run after all others, which is not written yet."""
        number = max((run.number for run in self.runs()), default=0) + 1
        path = self.folder / "runs" / f"{number:04d}"
        return Run(path, Card(number=number, started_at=now(), renames=len(self.file.renamed)))


def open_project(
    folder: str | os.PathLike,
    recordings: Sequence[str | os.PathLike],
    *,
    backbone: str | None = None,
    options: Mapping[str, str] | None = None,
    training: Mapping[str, str] | None = None,
    auto: int | None = None,
) -> tuple[Project, list[str]]:
    """Creates a project folder, or opens it with other recordings or settings.

    Args:
      folder: of the project.
      recordings: files, and folders of these.
      backbone: by default that of the project, else the recommended one.
      options: of the backbone, changed.
      training: settings of the config of the first training, changed.
      auto: training starts after so many new answers.

    Returns:
      The project, and notes.

    Raises:
      InputError: if there is no recording, `project.json` cannot be read, or there are features of
        another backbone.
      OSError: if the folder cannot be written.
    """
    folder = Path(folder)
    path = folder / PROJECT_FILE
    sources, notes = find_sources(recordings), []
    places = [_relative(place, folder) for place in recordings]
    if path.exists():
        before = Project(folder).file
        content = msgspec.structs.replace(before, recordings=places)
        if backbone is not None and backbone != before.backbone:
            content = msgspec.structs.replace(content, backbone=backbone, options={})
    else:
        _refuse_other_folder(folder)
        if backbone is None:
            backbone, recommended, note = _recommended(sources)
            options = {**recommended, **(options or {})}
            notes += [note] if note else []
        content = ProjectFile(recordings=places, backbone=backbone)
    content = msgspec.structs.replace(
        content,
        options=content.options | dict(options or {}),
        training=content.training | dict(training or {}),
        auto=content.auto if auto is None else auto,
    )
    manifest = read_manifest(folder / "features")
    if manifest is not None and manifest.recordings and manifest.backbone != content.backbone:
        raise InputError(
            f"{folder / 'features'}: features of the backbone {manifest.backbone}, not "
            f"{content.backbone}; expected another --project for another backbone"
        )
    files.write_json(path, msgspec.to_builtins(content))
    return Project(folder), notes


def now() -> str:
    """The time of day as an ISO string, to a second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def check_settings(values: Any) -> Settings:
    """Parses settings of events.

    Raises:
      InputError: if a key is unknown, or a value no finite number, or negative where it is a time.
    """
    settings = files.convert(values, Settings, "settings")
    select_events([], **settings.steps((), None))
    return settings


def label_counts(annotations: Annotations) -> dict[str, float]:
    """How many points, background points and segments there are, and the share that is done."""
    recordings = list(annotations.recordings.values())
    total_s = sum(one.duration_s or 0.0 for one in recordings)
    done_s = sum(done_share(one) * (one.duration_s or 0.0) for one in recordings)
    counts = [counts_of(one) for one in recordings]
    return {
        **{key: sum(one[key] for one in counts) for key in ("points", "background", "segments")},
        "done_share": done_s / total_s if total_s else 0.0,
    }


def counts_of(recording: RecordingAnnotation) -> dict[str, int]:
    """How many points, background points and segments a recording has."""
    return {
        "points": sum(one.point_s is not None for one in recording.instances),
        "background": len(recording.background_s),
        "segments": sum(one.segment is not None for one in recording.instances),
    }


def done_share(recording: RecordingAnnotation) -> float:
    """The share of a recording that is done."""
    if recording.done_s is None or not recording.duration_s:
        return float(recording.done_s is None)
    return sum(end_s - start_s for start_s, end_s in recording.done_s) / recording.duration_s


def has_labels(recording: RecordingAnnotation) -> bool:
    """Whether anything is labelled in a recording."""
    return bool(recording.instances or recording.background_s or recording.done_s != ())


def label_set(annotations: Annotations) -> Counter:
    """The labels of all recordings, to be compared with those of another time."""
    found: Counter = Counter()
    for name, recording in annotations.recordings.items():
        for one in recording.instances:
            found[name, one.label, one.point_s, one.segment] += 1
        times = labels_of_time(recording.background_s, recording.done_s)
        found.update((name, time_s) for time_s in times.get("background", ()))
        found.update((name, "done", *stretch) for stretch in times.get("done", ()))
        if recording.done_s is None:
            found[name, "done"] += 1
    return found


def rename_labels(annotations: Annotations, names: Mapping[str, str]) -> Annotations:
    """Labels with other names of their classes."""
    if not names:
        return annotations
    recordings = {
        name: dataclasses.replace(
            recording,
            instances=tuple(
                dataclasses.replace(one, label=names.get(one.label, one.label))
                for one in recording.instances
            ),
        )
        for name, recording in annotations.recordings.items()
    }
    return dataclasses.replace(
        annotations,
        classes=tuple(names.get(label, label) for label in annotations.classes),
        recordings=recordings,
        overlapping=tuple(
            (names.get(one, one), names.get(two, two)) for one, two in annotations.overlapping
        ),
    )


@functools.lru_cache(maxsize=1024)
def _sha256(path: str, size: int, modified_ns: int) -> str:
    """The hash of a file of that size and time, which is read once."""
    return identify(path).sha256


def _follow(renamed: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The last names of classes, by their first ones."""
    names: dict[str, str] = {}
    for before, now in renamed:
        if before not in names.values():
            names.setdefault(before, now)  # another class may have taken the name since
        else:
            names = {first: now if last == before else last for first, last in names.items()}
    return {first: last for first, last in names.items() if first != last}


def count_changes(before: Annotations, now: Annotations) -> int:
    """How many labels were added or moved, or removed."""
    old, new = label_set(before), label_set(now)
    return max((new - old).total(), (old - new).total())


class Cached(Generic[T]):
    """What a file contains, read again when it is another file; None where there is none."""

    def __init__(self, path: Path, read: Callable[[], T | None]):
        self._path, self._read = path, read
        self._of: tuple[int, ...] | None = None
        self._value: T | None = None

    def get(self) -> T | None:
        """The content."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        of = status.st_ino, status.st_size, status.st_mtime_ns
        if of != self._of:
            self._value, self._of = self._read(), of
        return self._value


def _read_card(path: Path) -> Card:
    return files.convert(files.read_json(path / CARD_FILE), Card, str(path / CARD_FILE))


def _kind_read(content: ProjectFile) -> str:
    """The kind of file that a backbone reads, by its name: opening it may load a network."""
    if content.backbone == "signal":
        return SENSORS
    if content.backbone == "pose" and "path" not in content.options:
        return KEYPOINTS
    return VIDEOS


def _recommended(sources: Sequence[Source]) -> tuple[str, Mapping[str, str], str | None]:
    """The backbone for most recordings, its options, and a note where it is not the best one."""
    kinds = Counter(
        KEYPOINTS if source.keypoints else VIDEOS if source.kind == "video" else SENSORS
        for source in sources
    )
    most = max(CHOICES, key=lambda kind: kinds[kind])
    choice = CHOICES[most]
    if most == VIDEOS and choice.missing:
        note = (
            f"the backbone is {_WITHOUT_NETWORK}, colours and motion, since the packages of "
            f"{choice.backbone} are missing, which is better: pip install "
            f'"tal_jax[{choice.extra}]", then a new --project with --backbone {choice.flags}'
        )
        return _WITHOUT_NETWORK, {}, note
    return choice.backbone, choice.options, None


def _relative(place: str | os.PathLike, folder: Path) -> str:
    """A path from the project folder where that lies within it, so that both can be moved."""
    path, folder = Path(os.path.abspath(place)), Path(os.path.abspath(folder))
    around = path if path.is_dir() else path.parent
    return os.path.relpath(path, folder) if folder.is_relative_to(around) else str(path)


def _refuse_other_folder(folder: Path) -> None:
    """Refuses a folder with the files of something else."""
    names = ("features", "runs", ANNOTATION_FILE, "exports")
    taken = [name for name in names if (folder / name).exists()]
    if taken and taken != [ANNOTATION_FILE]:
        raise InputError(
            f"{folder}: holds {', '.join(taken)} without a {PROJECT_FILE}; expected a new folder, "
            "or one of the studio, as --project"
        )
