"""What a server works on: recordings, labels, and in the studio a project with its jobs."""

import base64
import contextlib
import dataclasses
import functools
import getpass
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import RecordingAnnotation
from tal_jax.data.keypoints import Keypoints
from tal_jax.extraction import body, keypoint_tables
from tal_jax.report.palette import class_colours
from tal_jax.studio import exports
from tal_jax.studio.broker import Broker
from tal_jax.studio.project import (
    Project,
    check_settings,
    counts_of,
    done_share,
    has_labels,
)
from tal_jax.studio.recordings import Details, Source, find_sources, list_files, read_details
from tal_jax.studio.review import Review, durations
from tal_jax.studio.runner import Busy, Outcome, Runner
from tal_jax.studio.store import Store

_NUM_COLOURS = 60
_PUBLISH_EVERY_S = 0.25  # the progress of a job
_LOOK_EVERY_S = 3.0  # into the folders of recordings
_MOST_FRAMES = 2000  # of a skeleton in an answer
_BONE_FRAMES = 500  # from which the skeleton's bones are found


def _user() -> str:
    """The name that answers are signed with."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry of the user
        return "person"


def _fault_of(name: str) -> str:
    """Why labels of a recording of this name cannot be saved, one line; empty if they can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"the file name {ascii(name)} is not UTF-8; rename the file to label it"
    return ""


class Absent(Exception):
    """What was asked for is not there."""


class Session:
    """The recordings, their labels, and a project if there is one.

    Attributes:
      sources: the recordings; those that come later are at the end, and none is taken out.
      store: the annotation file.
      project: None where there is no training.
      broker: of the pages' events.
    """

    def __init__(self, sources: Sequence[Source], store: Store, project: Project | None = None):
        """Raises InputError if there is no project, and the first recording cannot be read."""
        self.sources, self.store, self.project = tuple(sources), store, project
        self.broker = Broker()
        self._index = {source.name: index for index, source in enumerate(self.sources)}
        self._reading = threading.Lock()
        # Bounded, since tables of long recordings are large.
        self._read = functools.lru_cache(maxsize=8)(self._read_details)
        self._keypoints = functools.lru_cache(maxsize=2)(self._read_keypoints)
        self._durations_s: dict[str, float] = {}  # of files that were read
        self._broken: dict[str, str] = {}
        self._colours = class_colours(_NUM_COLOURS)
        self._review = None if project is None else Review(project)
        self._runner = None
        self._extracting: dict[str, tuple[str, str]] = {}  # state and note by recording
        self._next_publish_s = 0.0
        self._error: str | None = None  # of the last job
        self._trouble: str | None = None  # with what is in the folders now
        self._files: dict[Path, tuple[int, int]] = {}  # in the folders, at the last look
        self._settled: set[Path] = set()  # those that no longer grow
        self._taken: dict[Path, tuple[int, int]] = {}  # those that were read, as they were then
        self._arrived = False  # something whose features are to be extracted
        self._counted: tuple[Any, Any, int, int] | None = None
        self._closing = threading.Event()
        if project is None:
            self.details(0)
        else:
            self._files = list_files(project.places)
            self._settled = set(self._files)
            self._taken = dict(self._files)
            self._runner = Runner(
                project.folder,
                changed=self._publish_job,
                heard=self._hear,
                ended=self._end_job,
            )

    def begin(self) -> None:
        """Begins what needs no page: durations, extraction, and a look at what comes and goes."""
        if self.project is None:
            return
        threading.Thread(target=self._watch, daemon=True).start()
        if self._to_extract():
            self.start("extract")

    def close(self) -> None:
        """Stops the job at work, and ends the streams of events."""
        self._closing.set()
        self.broker.close()
        if self._runner is not None:
            self._runner.stop(wait=True)

    # --- recordings ---

    def look(self) -> None:
        """Takes up recordings that came into the folders or were replaced, and their features.

        A file is taken up when it no longer grows.
        """
        project, runner, _ = self._studio()
        files = list_files(project.places)
        settled = [path for path, status in files.items() if self._files.get(path) == status]
        self._files = files
        replaced = {path for path in settled if self._taken.get(path, files[path]) != files[path]}
        self._taken |= {path: files[path] for path in settled}
        if set(settled) != self._settled or replaced:
            self._settled = set(settled)
            try:
                self._take_up(find_sources(settled), replaced)
                self._trouble = None
            except InputError as error:
                self._trouble = str(error)
            self.broker.publish("state", {})
        if self._arrived and runner.job is None:
            if self._to_extract():
                with contextlib.suppress(Busy):  # a page was faster; at the next look
                    self.start("extract")
                    self._arrived = False
            else:
                self._arrived = False

    def _take_up(self, found: Iterable[Source], replaced: Set[Path] = frozenset()) -> None:
        sources, index = list(self.sources), dict(self._index)
        for source in found:
            at = index.setdefault(source.name, len(sources))
            sources[at : at + 1] = [source]  # or with other files, such as one of keypoints
        if sources == list(self.sources) and not replaced:
            return
        with self._reading:
            self.sources, self._index, self._arrived = tuple(sources), index, True
            self._read.cache_clear()
            self._keypoints.cache_clear()
        for source in sources:
            if replaced & {source.path, source.keypoints}:
                for known in (self._durations_s, self._broken, self._extracting):
                    known.pop(source.name, None)
        self._survey()

    def details(self, index: int) -> Details:
        """Returns the properties of a recording; raises InputError if it cannot be read."""
        with self._reading:  # otherwise two requests read a long table twice
            return self._read(index)

    def recording(self, index: int) -> dict[str, Any]:
        """A recording's properties and labels."""
        source, details = self.sources[index], self.details(index)
        stored, revision = self.store.entry(source.name)
        begun = self.store.begun()
        entry = stored or {"annotations": [], "done": begun.done_s}
        known_s = entry.get("duration", entry.get("duration_second"))
        notices = [*details.notes]
        if known_s is not None and abs(known_s - details.duration_s) > 0.5:
            notices.append(
                f"the duration of this recording is {known_s:g} s in "
                f"{self.store.path.name}, and {details.duration_s:.3f} s in its file"
            )
        envelope = details.envelope
        return {
            "name": source.name,
            "kind": source.kind,
            "duration": details.duration_s if known_s is None else known_s,
            "frame_rate": details.frame_rate,
            "origin": details.origin_s,
            "channels": [] if envelope is None else envelope.names,
            "ranges": [] if envelope is None else envelope.ranges,
            "skeleton": source.keypoints is not None,
            "revision": revision,
            "annotations": entry["annotations"],
            "background": entry.get("background", []),
            "background_sources": entry.get("background_sources", {}),
            "done": entry.get("done"),
            "notice": "; ".join(notices),
        }

    def skeleton(self, index: int, start_s: float, end_s: float) -> dict[str, Any]:
        """The joints of a recording within a window, at most some thousand frames of it.

        Of coordinates in space, x and y.
        """
        source = self.sources[index]
        if source.keypoints is None:
            raise Absent("this recording has no table of keypoints")
        with self._reading:
            keypoints, edges = self._keypoints(index)
        times_s = keypoints.times_s
        first = max(int(np.searchsorted(times_s, start_s, "right")) - 1, 0)
        last = max(int(np.searchsorted(times_s, end_s, "left")) + 1, first + 1)
        step = -(-(min(last, len(times_s)) - first) // _MOST_FRAMES)
        rows = slice(first, last, step)
        joints = [
            joint if len(keypoints.animals) == 1 else f"{animal} {joint}"
            for animal in keypoints.animals
            for joint in keypoints.joints
        ]
        points = keypoints.positions[rows, ..., :2].astype("<f4")
        return {
            "times": times_s[rows].tolist(),
            "joints": joints,
            "edges": edges,
            "points": base64.b64encode(points.tobytes()).decode(),
            "bounds": [
                [float(np.nanmin(axis)), float(np.nanmax(axis))]
                if np.isfinite(axis).any()
                else [0, 1]
                for axis in np.moveaxis(keypoints.positions[..., :2], -1, 0)
            ],
        }

    def save(self, index: int, labels: Mapping[str, Any], revision: str, classes: list[str]) -> str:
        """Saves the labels of a recording; returns the new revision. Raises as `Store.save`."""
        name = self.sources[index].name
        if fault := _fault_of(name):
            raise InputError(fault)
        if self.project is not None:
            _ = self.project.file  # a folder that was moved is not made anew
        revision = self.store.save(
            name,
            labels,
            revision=revision,
            classes=classes,
            duration_s=self._duration_s(index),
        )
        self.broker.publish("saved", {"recording": index, "revision": revision})
        self._start_by_itself()
        return revision

    def change_classes(self, values: Mapping[str, Any]) -> None:
        """Adds or renames a class; raises InputError if it cannot."""
        match values:
            case {"add": str(label)}:
                self.store.add_class(label)
            case {"rename": [str(before), str(now)]}:
                changed = self.store.rename_class(before, now)
                if self.project is not None:
                    self.project.rename_class(before, now)
                known = {
                    self._index[name]: two for name, two in changed.items() if name in self._index
                }
                self.broker.publish("renamed", {"before": before, "now": now, "revisions": known})
            case _:
                raise InputError('expected {"add": name} or {"rename": [old, new]}')
        self.broker.publish("state", {})

    # --- the state of all ---

    def state(self) -> dict[str, Any]:
        """What a page shows of all recordings, the project and its job."""
        project, annotations = self.project, self.store.annotations()
        state: dict[str, Any] = {
            "file": str(self.store.path),
            "user": _user(),
            "formats": [{"name": one, "title": exports.TITLES[one]} for one in exports.FORMATS],
            "project": None,
            "classes": self.store.classes(),
            "colours": self._colours,
            "recordings": [self._row(source, annotations.recordings) for source in self.sources],
            "run": None,
            "job": None,
            "can_train": "labelling only; `tal-jax studio` trains",
            "advice": None,
            "auto": None,
            "grid": None,
            "answers": 0,
            "stopped": None,
            "error": None,
            "settings": None,
        }
        if project is None or self._runner is None:
            return state
        finished, unfinished = project.finished(), project.unfinished()
        content, job = project.file, self._runner.job
        state |= {
            "project": str(project.folder),
            "job": job,
            "auto": content.auto,
            "settings": msgspec.to_builtins(content.settings),
            "backbone": {"name": content.backbone, "options": content.options},
            "can_train": self._why_not(),
            "advice": self._advice(),
            "grid": None if project.manifest is None else project.manifest.grid.to_dict(),
            "answers": self._answers(),
            "error": self._error or self._trouble,
            "stopped": unfinished.number if unfinished is not None and job is None else None,
        }
        if finished:
            run, card = finished[-1], finished[-1].card
            state["run"] = {
                "number": card.number,
                "finished_at": card.finished_at,
                "threshold": card.threshold,
                "classes": run.classes,
                "warnings": card.warnings,
            }
        return state

    def _row(self, source: Source, labelled: Mapping[str, RecordingAnnotation]) -> dict[str, Any]:
        name = source.name
        one = labelled.get(name, self.store.begun())
        features, note = self._features(source)
        if gone := not source.path.exists():
            note = f"{source.path} is no longer there"
        return {
            "name": name,
            "kind": source.kind,
            "duration": one.duration_s or self._known_duration_s(name),
            **counts_of(one),
            "done_share": done_share(one),
            "features": features,
            "gone": gone,
            "note": note or self._broken.get(name, "") or _fault_of(name),
        }

    def _features(self, source: Source) -> tuple[str, str]:
        """Where the features of a recording are: none, waiting, running, ready or failed."""
        project = self.project
        if project is None or self._runner is None:
            return "none", ""
        if project.has_features(source.name):
            return "ready", ""
        if project.file_to_extract(source) is None:
            backbone = project.file.backbone
            return "none", f"the backbone {backbone} reads no file of this recording"
        replaced = "its file was replaced" if project.is_replaced(source.name) else ""
        state, note = self._extracting.get(source.name, ("none", ""))
        if state == "ready" and replaced:
            state = "none"  # that was the file before
        job = self._runner.job
        if state == "none" and job is not None and job["kind"] == "extract":
            state = "waiting"
        return state, note or replaced

    def _known_duration_s(self, name: str) -> float | None:
        project = self.project
        manifest = None if project is None else project.manifest
        if project is not None and manifest is not None and name in manifest.recordings:
            if not project.is_replaced(name):
                return manifest.recordings[name].duration_s
        return self._durations_s.get(name)

    def _duration_s(self, index: int) -> float:
        known_s = self._durations_s.get(self.sources[index].name)
        return self.details(index).duration_s if known_s is None else known_s

    # --- jobs ---

    def start(self, kind: str) -> dict[str, Any]:
        """Starts a job.

        Raises:
          Busy: if one is at work.
          InputError: if there is nothing to train on.
        """
        _, runner, _ = self._studio()
        if kind == "train" and (reason := self._why_not(busy=False)):
            raise InputError(reason)
        if kind == "extract":
            self._extracting = {}
        self._error = None
        job = runner.start(kind)
        self.broker.publish("state", {})
        return job

    def stop(self) -> bool:
        """Stops the job at work, if there is one."""
        return self._studio()[1].stop()

    def _why_not(self, *, busy: bool = True) -> str | None:
        """Why no training can start, one line."""
        project, runner, _ = self._studio()
        if busy and (job := runner.job) is not None:
            return (
                "a training is at work"
                if job["kind"] == "train"
                else "features are being extracted; training can start when that ends"
            )
        recordings = self.store.annotations().recordings
        points = [
            name
            for name, one in recordings.items()
            if any(i.point_s is not None or i.segment is not None for i in one.instances)
        ]
        if not points:
            return "nothing is clicked yet; click at least one action"
        if not any(map(project.has_features, points)):
            return "no features yet of a recording with clicks"
        return None

    def _advice(self) -> str | None:
        """What labels would help most, one line."""
        recordings = self.store.annotations().recordings.values()
        labelled = [one for one in recordings if has_labels(one)]
        if labelled and not any(one.background_s or one.done_s != () for one in labelled):
            return (
                "nothing is labelled as background; place background points, or mark a stretch "
                "as done where every action is clicked"
            )
        return None

    def _answers(self) -> int:
        """`Project.count_answers`, counted again when something has changed."""
        project, _, _ = self._studio()
        before, now = project.trained_on, self.store.annotations()
        ready, known = sum(map(project.has_features, now.recordings)), self._counted
        if known is None or known[0] is not before or known[1] is not now or known[2] != ready:
            self._counted = known = (before, now, ready, project.count_answers(now))
        return known[3]

    def _start_by_itself(self) -> None:
        """Starts training after enough new answers, where the project has it so."""
        if self.project is None or (auto := self.project.file.auto) is None:
            return
        if self._why_not() is None and self._answers() >= auto:
            with contextlib.suppress(Busy):  # another page was faster
                self.start("train")

    def _publish_job(self, job: dict[str, Any]) -> None:
        if time.monotonic() >= self._next_publish_s:
            self._next_publish_s = time.monotonic() + _PUBLISH_EVERY_S
            self.broker.publish("job", job)

    def _hear(self, message: dict[str, Any]) -> None:
        """Takes the messages of a job that are not progress."""
        match message:
            case {"recording": str(name), "state": str(state)}:
                self._extracting[name] = state, message.get("note", "")
                self.broker.publish("state", {})
            case {"run": int(number)}:
                self.broker.publish("run", {"run": number})

    def _end_job(self, outcome: Outcome) -> None:
        self._error = outcome.error
        self._extracting = {
            name: (state, note)
            for name, (state, note) in self._extracting.items()
            if state == "failed"
        }
        self.broker.publish("job", None)
        self.broker.publish("ended", dataclasses.asdict(outcome))
        self.broker.publish("state", {})
        if not self._closing.is_set() and not outcome.stopped and outcome.error is None:
            self._start_by_itself()

    def _to_extract(self) -> bool:
        project, _, _ = self._studio()
        return any(
            not project.has_features(source.name) and project.file_to_extract(source) is not None
            for source in self.sources
        )

    # --- results ---

    def prediction(self, index: int) -> dict[str, Any]:
        """The prediction of a recording, with the revision of its labels."""
        name = self.sources[index].name
        found = self._found(lambda review: review.prediction(name))
        return {**found, "revision": self.store.entry(name)[1]}

    def changes(self) -> dict[str, Any]:
        """Events gained and lost, warnings, and the learning curve."""
        found = self._studio()[2].changes(self.store.annotations())
        for one in found["classes"]:
            for key in ("gained", "lost"):
                one[key] = [
                    {**event, "index": self._index.get(event["recording"])} for event in one[key]
                ]
        return found

    def queue(self, count: int) -> list[dict[str, Any]]:
        """Places to label next."""
        _, _, review = self._studio()
        labelled = self.store.annotations().recordings
        recordings = [
            (source.name, labelled.get(source.name, self.store.begun()), duration_s)
            for source in self.sources
            if (duration_s := self._known_duration_s(source.name)) is not None
        ]
        places = review.queue(recordings, self.store.classes(), count)
        return [{"recording": self._index[place.pop("name")], **place} for place in places]

    def preview(self, index: int, values: Any) -> dict[str, Any]:
        """The events of a recording with other settings."""
        name, settings = self.sources[index].name, check_settings(values)
        return self._found(lambda review: review.preview(name, settings))

    def change_settings(self, values: Any) -> None:
        """Saves the settings of events; "auto" beside them changes when training starts."""
        project, _, _ = self._studio()
        values = dict(values) if isinstance(values, Mapping) else values
        changes: dict[str, Any] = {}
        if isinstance(values, dict) and "auto" in values:
            changes["auto"] = values.pop("auto")
            if changes["auto"] is not None and not (
                type(changes["auto"]) is int and changes["auto"] > 0
            ):
                raise InputError(f"auto is {changes['auto']!r}, expected a whole number above 0")
        if values or not changes:
            changes["settings"] = check_settings(values)
        project.write(**changes)
        self.broker.publish("state", {})

    def summary(self) -> list[dict[str, Any]]:
        """The summary of events by recording and class."""
        project, _, _ = self._studio()
        settings, names = project.file.settings, [source.name for source in self.sources]
        lengths_s = durations(project, names, self.store.annotations())
        rows = self._found(lambda review: review.summary(settings, lengths_s))
        return [dataclasses.asdict(one) for one in rows]

    def export(self, formats: Sequence[str], clips: bool) -> dict[str, Any]:
        """Writes events, or labels before there is a training; returns files and notes."""
        project, _, review = self._studio()
        return exports.export(project, review, self.store, self.sources, formats, clips=clips)

    def _found(self, find: Callable[[Review], Any]) -> Any:
        """Results of the last training; Absent where there is none of it."""
        _, _, review = self._studio()
        try:
            review.last()
        except InputError as error:
            raise Absent(str(error)) from error
        return find(review)

    # --- parts ---

    def _studio(self) -> tuple[Project, Runner, Review]:
        if self.project is None or self._runner is None or self._review is None:
            raise Absent("labelling only; `tal-jax studio` trains")
        return self.project, self._runner, self._review

    def _read_details(self, index: int) -> Details:
        found = read_details(self.sources[index], source_fps=self._source_fps())
        self._durations_s[self.sources[index].name] = found.duration_s
        return found

    def _read_keypoints(self, index: int) -> tuple[Keypoints, list[list[int]]]:
        """A table of keypoints, and the pairs of joints to connect."""
        path = self.sources[index].keypoints
        assert path is not None
        found = keypoint_tables.read_keypoints(path, source_fps=self._source_fps())
        step = max(len(found.times_s) // _BONE_FRAMES, 1)
        bones = body.find_bones(found.positions[::step, 0], found.joints)
        count = len(found.joints)
        edges = [
            [animal * count + found.joints.index(joint) for joint in bone]
            for animal in range(len(found.animals))
            for bone in bones
        ]
        return found, edges

    def _source_fps(self) -> float:
        """The rate that the project gives to tables of keypoints without times."""
        options = {} if self.project is None else self.project.file.options
        try:
            return float(options.get("source_fps", 0))
        except ValueError:
            return 0.0  # refused by the extraction

    def _watch(self) -> None:
        self._survey()
        while not self._closing.wait(_LOOK_EVERY_S):
            with contextlib.suppress(InputError, OSError):  # the project was moved away
                self.look()

    def _survey(self) -> None:
        """Reads the durations of all recordings without features."""
        for index, source in enumerate(self.sources):
            if self._closing.is_set():
                return
            if self._known_duration_s(source.name) is not None:
                continue
            try:
                found = read_details(self.sources[index], source_fps=self._source_fps())
                self._durations_s[source.name] = found.duration_s
            except (InputError, OSError) as error:
                self._broken[source.name] = " ".join(str(error).split())
        self.broker.publish("state", {})
