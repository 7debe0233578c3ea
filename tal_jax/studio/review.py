"""What the trainings of a project found: predictions, changes, a learning curve, where to click.

All of it is read from the files of runs, with NumPy.
"""

import dataclasses
import functools
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import Annotations, RecordingAnnotation, load_annotations
from tal_jax.data.clock import Grid
from tal_jax.data.detections import Results, read_results, with_names
from tal_jax.data.recordings import Point, Recording
from tal_jax.evaluation.point_criterion import point_scores
from tal_jax.inference.events import Events, select_events
from tal_jax.inference.suggestions import askable, suggest
from tal_jax.report.event_tables import Summary, summarize
from tal_jax.report.pages import Curves, pack_curves
from tal_jax.runs.round_folders import ALL_DETECTIONS, ALL_SCORES, CHANGES
from tal_jax.studio.project import Project, Run, Settings, rename_labels

_MOST_DETECTIONS = 2000
_MOST_CURVE_BYTES = 2 << 20
# The clock of recordings without features, before there is one of a backbone.
_ANY_GRID = Grid(fps=1, stride_frames=1, window_frames=2)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Score sequences of one recording."""

    grid: Grid
    cas: np.ndarray  # [T, C]
    actionness: np.ndarray  # [T]


class Review:
    """The results of a project's runs; those of the last ones are kept in memory."""

    def __init__(self, project: Project):
        """Reads nothing yet."""
        self._project = project
        self._reading = threading.Lock()
        # Of a run and the one before it: their files do not change once they are finished.
        # Names of classes, which may change, are a part of the keys.
        self._detections = functools.lru_cache(maxsize=2)(_read_detections)
        self._scores = functools.lru_cache(maxsize=2)(_read_scores)
        # Few of all: the queue is asked for after every answer.
        self._shown = functools.lru_cache(maxsize=1)(
            lambda path, names, threshold: askable(self._detections(path, names), threshold)
        )

    def last(self) -> Run:
        """The last finished run; raises InputError where there is none."""
        finished = self._project.finished()
        if not finished:
            raise InputError("no training has ended yet")
        return finished[-1]

    def detections(self, run: Run) -> Results:
        """What a run detects in each recording."""
        with self._reading:
            return self._detections(run.path, tuple(run.names.items()))

    # --- one recording ---

    def prediction(self, name: str) -> dict[str, Any]:
        """The score curves and the best detections of a recording, for the page.

        Raises:
          InputError: if no training has ended, or it had no features of this recording.
        """
        run = self.last()
        found = self.detections(run).get(name)
        scores = _read_one(run.path / ALL_SCORES, name)
        if found is None or scores is None:
            raise InputError(f"run {run.number} had no features of {name}; train again")
        classes, left_out = run.classes, []
        shown = list(found[:_MOST_DETECTIONS])
        grid = scores.grid
        always = {classes.index(one["label"]) for one in shown}
        start_s = float(grid.to_seconds(0.5))
        curves = Curves(scores.cas, scores.actionness, start_s, grid.stride_s, always)
        return {
            "run": run.number,
            "threshold": run.card.threshold,
            "labels": classes,
            **pack_curves({name: curves}, _MOST_CURVE_BYTES, "classes", left_out)[name],
            "detections": shown,
            "left_out": len(found) - len(shown),
            "notes": left_out,
        }

    def preview(self, name: str, settings: Settings) -> dict[str, Any]:
        """The events of a recording with other settings, and what became of other detections."""
        run = self.last()
        events = _select(run, self.detections(run).get(name, ()), settings)
        return {
            "events": events.entries,
            "below": events.below,
            "merged": events.merged,
            "short": events.short,
        }

    # --- all recordings ---

    def events(self, settings: Settings) -> dict[str, Events]:
        """The events of all recordings."""
        run = self.last()
        return {name: _select(run, found, settings) for name, found in self.detections(run).items()}

    def summary(self, settings: Settings, durations_s: Mapping[str, float | None]) -> list[Summary]:
        """The summary of each recording and class."""
        events = {name: one.entries for name, one in self.events(settings).items()}
        return summarize(events, self.last().classes, durations_s)

    def changes(self, labels: Annotations) -> dict[str, Any]:
        """Events gained and lost since the run before, warnings, and the learning curve.

        Args:
          labels: as they are now; those that are newer than the last run are its criterion.
        """
        runs = self._project.finished()
        curve = self._curve(runs, labels)
        if not runs:
            return {"run": None, "before": None, "classes": [], "warnings": [], "curve": curve}
        last = runs[-1]
        path = last.path / CHANGES
        compared = files.read_json(path)["classes"] if path.exists() else {}
        classes = [
            {
                "label": last.names.get(label, label),
                "gained": one["gained"],
                "lost": one["lost"],
                "kept": one["now"] - len(one["gained"]),
                "events": one["now"],
                "time_share": one["time_share"],
            }
            for label, one in compared.items()
        ]
        return {
            "run": last.number,
            "before": runs[-2].number if compared and len(runs) > 1 else None,
            "classes": classes,
            "warnings": last.card.warnings,
            "curve": curve,
        }

    def _curve(self, runs: Sequence[Run], labels: Annotations) -> list[dict[str, Any]]:
        """For each run its clicks, and the criterion on those that it was not trained on."""
        following = [(run.card.criterion, run.card.new_points) for run in runs[1:]]
        if runs:
            before = labels_of_run(runs[-1])
            following.append(new_point_criterion(before, labels, self.detections(runs[-1])))
        return [
            {
                "run": run.number,
                "clicks": run.card.labels.get("points", 0),
                "criterion": criterion,
                "new_points": count,
            }
            for run, (criterion, count) in zip(runs, following, strict=True)
        ]

    def queue(
        self,
        recordings: Sequence[tuple[str, RecordingAnnotation, float]],
        classes: Sequence[str],
        count: int,
    ) -> list[dict[str, Any]]:
        """Places to label next, most useful first.

        Args:
          recordings: name, labels and duration in seconds of each.
          classes: names of the classes.
          count: the most places.
        """
        finished = self._project.finished()[-2:]
        detections, threshold, scores = None, None, {}
        if finished:
            run = finished[-1]
            threshold = run.card.threshold
            with self._reading:
                detections = self._shown(run.path, tuple(run.names.items()), threshold)
            classes = [*run.classes, *(one for one in classes if one not in run.classes)]
            scores = self._of_runs(finished, len(classes))
        manifest = self._project.manifest
        grid = _ANY_GRID if manifest is None else manifest.grid
        found = [
            self._recording(name, annotation, duration_s, classes, grid, scores.get(name))
            for name, annotation, duration_s in recordings
        ]
        names = {one.name for one in found}
        places = suggest(
            found,
            classes,
            scores={name: those for name, those in scores.items() if name in names},
            detections=detections,
            threshold=threshold,
            count=count,
        )
        return [
            {
                "name": place.recording,
                "time": place.time_s,
                "segment": place.segment_s,
                "label": place.label,
                "reason": place.reason,
                "priority": place.priority,
            }
            for place in places
        ]

    def _of_runs(self, runs: Sequence[Run], num_classes: int) -> dict[str, list[Scores]]:
        """Scores of each recording by a run and the one before it, classes that are new as 0.

        The run before disagrees where the last one has learned something.
        """
        with self._reading:
            now = self._scores(runs[-1].path)
            same = len(runs) > 1 and runs[0].classes == runs[-1].classes
            before = self._scores(runs[0].path) if same else {}
        found = {}
        for name, one in now.items():
            other = before.get(name)
            agree = other is not None and other.cas.shape == one.cas.shape
            rounds = [one, other] if agree and other is not None else [one]
            missing = num_classes - one.cas.shape[1]
            found[name] = [
                dataclasses.replace(each, cas=np.pad(each.cas, [(0, 0), (0, missing)]))
                for each in rounds
            ]
        return found

    def _recording(
        self,
        name: str,
        annotation: RecordingAnnotation,
        duration_s: float,
        classes: Sequence[str],
        grid: Grid,
        scores: Sequence[Scores] | None,
    ) -> Recording:
        """A recording as `suggest` reads it: the length of its features, and its labels."""
        length = 0 if not scores else len(scores[0].cas)
        points = []
        for one in annotation.instances:
            segment_s, time_s = one.segment, one.point_s
            if time_s is None and segment_s is not None:
                time_s = sum(segment_s) / 2
            if time_s is not None and one.label in classes:
                points.append(Point(time_s, classes.index(one.label), segment_s))
        return Recording(
            name,
            np.zeros((length, 0), np.float32),
            grid,
            duration_s,
            tuple(points),
            background_s=annotation.background_s,
            done_s=annotation.done_s,
        )


def labels_of_run(run: Run) -> Annotations:
    """The training labels of a run, as they were but for the names of classes."""
    return rename_labels(load_annotations(run.path / "train_points.json"), run.names)


def detections_of_run(run: Run) -> Results:
    """What a run detects in all recordings."""
    return _read_detections(run.path, tuple(run.names.items()))


def _read_detections(path: Path, names: tuple[tuple[str, str], ...]) -> Results:
    found, renamed = read_results(path / ALL_DETECTIONS), dict(names)
    return {name: with_names(entries, renamed) for name, entries in found.items()}


def new_point_criterion(
    before: Annotations, now: Annotations, detections: Results
) -> tuple[float | None, int]:
    """The point criterion of detections on points that they were not trained on.

    Args:
      before: the training labels of the run that detected.
      now: newer labels.
      detections: of that run.

    Returns:
      The criterion, None without a new point; and the number of new points.
    """
    scores = []
    for name, annotation in now.recordings.items():
        if name not in detections:
            continue
        known = before.recordings.get(name, RecordingAnnotation())
        old = {(one.label, one.point_s) for one in known.instances}
        timed = sorted(
            (one.point_s, one.label) for one in annotation.instances if one.point_s is not None
        )
        new = np.array([(label, time_s) not in old for time_s, label in timed], bool)
        if not new.any():
            continue
        classes = sorted({label for _, label in timed} | {e["label"] for e in detections[name]})
        recording = Recording(
            name,
            np.zeros((0, 0), np.float32),
            _ANY_GRID,
            annotation.duration_s or 0.0,
            tuple(Point(time_s, classes.index(label)) for time_s, label in timed),
            background_s=annotation.background_s,
        )
        scores.append(point_scores(detections, [recording], classes)[new])
    if not scores:
        return None, 0
    joined = np.concatenate(scores)
    return float(joined.mean()), len(joined)


def durations(
    project: Project, names: Iterable[str], annotations: Annotations
) -> dict[str, float | None]:
    """The durations of recordings in seconds, by the labels or the features; None where unknown."""
    manifest = project.manifest
    entries = {} if manifest is None else manifest.recordings
    found: dict[str, float | None] = {}
    for name in names:
        labelled = annotations.recordings.get(name)
        found[name] = None if labelled is None else labelled.duration_s
        if found[name] is None and name in entries:
            found[name] = entries[name].duration_s
    return found


def _select(run: Run, found: Sequence[Mapping[str, Any]], settings: Settings) -> Events:
    return select_events(found, **settings.steps(run.classes, run.card.threshold))


def _read_scores(path: Path) -> dict[str, Scores]:
    """The scores of all recordings of a run, see `data.predictions`."""
    arrays = files.read_npz(path / ALL_SCORES)
    names = [key.removesuffix("/clock") for key in arrays if key.endswith("/clock")]
    return {name: _scores_of(arrays, name) for name in names}


def _read_one(path: Path, name: str) -> Scores | None:
    """Those of one recording, without reading the others."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _scores_of(arrays, name) if f"{name}/clock" in arrays.files else None
    except OSError as error:
        raise InputError(f"cannot read {path}: {files.reason_of(error)}") from error


def _scores_of(arrays: Mapping[str, np.ndarray], name: str) -> Scores:
    grid = Grid(*arrays[f"{name}/clock"][:3].tolist())
    return Scores(grid, arrays[f"{name}/scores"], arrays[f"{name}/foreground"])
