"""The data set types: recordings with features, a clock and point labels, and their checks.

Every loader returns a `Dataset`. Its training recordings hold points or labels only: the segments
of their instances are kept apart, in `Dataset.train_truth`, so that training code cannot use them
by mistake. `datasets.supervision` copies those into the points that a run may learn from.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation, cut_labels
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import LazyFeatures
from tal_jax.data.manifest import Manifest

# Feature extractors drop or pad the end of a recording; a larger difference means a wrong clock.
MAX_DRIFT_SNIPPETS = 2

Segment = tuple[float, float]  # start and end in seconds

_PARTS = ("train", "test", "unlabelled")  # of a data set


@dataclasses.dataclass(frozen=True)
class Point:
    """A point label: one time inside one action instance.

    Attributes:
      time_s: the time.
      label: index into the data set's classes.
      segment_s: annotated start and end of the instance, where training may use them; else None.
    """

    time_s: float
    label: int
    segment_s: Segment | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """The features of one untrimmed recording.

    Attributes:
      name: its name in annotations and detections.
      features: `[T, D]`, float32 or float16; an array, a memory map, or `LazyFeatures`, which
        are read when needed.
      grid: the clock of the features.
      duration_s: duration of the recording in seconds; `T` differs from
        `grid.num_snippets(duration_s)` by at most `MAX_DRIFT_SNIPPETS`.
      points: its point labels in order of time; empty in test recordings.
      labels: its video classes in order, for methods that learn from video-level labels; None for
        the classes of its points.
      background_s: its background points in order: times without an action of any class.
      done_s: its done stretches in order, within which every action is labelled; time outside of
        them and of points is unknown. None for the whole recording.
    """

    name: str
    features: Any
    grid: Grid
    duration_s: float
    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] | None = None
    background_s: tuple[float, ...] = ()
    done_s: tuple[Segment, ...] | None = None


def labels_of(recording: Recording) -> tuple[int, ...]:
    """Returns the video classes of a training recording, in order."""
    if recording.labels is not None:
        return recording.labels
    return tuple(sorted({point.label for point in recording.points}))


def centres_of(recording: Recording) -> np.ndarray:
    """`[T]` the centres of the snippets in seconds; of those beyond the end, its last time.

    Features may be longer than their recording.
    """
    centres_s = recording.grid.to_seconds(np.arange(len(recording.features)) + 0.5)
    return np.minimum(centres_s, math.nextafter(recording.duration_s, 0.0))


def snippets_within(recording: Recording, stretches_s: Iterable[Segment]) -> np.ndarray:
    """`[T]` True for the snippets whose centre is in one of the stretches."""
    centres_s = centres_of(recording)
    within = np.zeros(len(centres_s), bool)
    for start_s, end_s in stretches_s:
        within |= (start_s <= centres_s) & (centres_s < end_s)
    return within


def done_snippets(recording: Recording) -> np.ndarray:
    """`[T]` True for the snippets in done stretches."""
    if recording.done_s is None:
        return np.ones(len(recording.features), bool)
    return snippets_within(recording, recording.done_s)


def labelled_snippets(recording: Recording) -> np.ndarray:
    """`[T]` True for the snippets that are done or hold a point of an action or of background."""
    labelled = done_snippets(recording)
    times_s = [*(point.time_s for point in recording.points), *recording.background_s]
    at = np.floor(recording.grid.to_snippets(np.array(times_s, np.float64))).astype(int)
    labelled[np.minimum(at, len(labelled) - 1)] = True
    return labelled


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """Standardisation of the features of a data set: `(features - mean) / scale`."""

    mean: np.ndarray  # [D] float64
    scale: np.ndarray  # [D] float64, above 0

    def apply(self, features: Any) -> Any:
        """Standardises `[T, D]` to float32; features in files are standardised when read."""
        if not isinstance(features, np.ndarray):
            return ScaledFeatures(features, self)
        return ((features - self.mean) / self.scale).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class ScaledFeatures(LazyFeatures):
    """Features in files, standardised when they are read."""

    features: LazyFeatures
    scaling: Scaling

    dtype = np.dtype(np.float32)
    shape = property(lambda self: self.features.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.scaling.apply(self.features[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Training recordings with points or labels, test recordings, and their ground truth.

    Attributes:
      classes: names of the classes; a label is an index into them.
      train: training recordings, with points.
      test: test recordings, without points.
      ground_truth: ActivityNet dictionary of the test recordings; every `"subset"` is `"test"`.
      overlapping: pairs of labels whose instances may overlap: a point of one is no negative of the
        other.
      notes: one line for each thing that was left out or looks odd, to be printed.
      scaling: standardisation to apply to other recordings; None if features were not standardised.
      manifest: manifest of the features, without recordings; None where unknown.
      root: absolute path of the folder that it was loaded from; None where there is none.
      train_truth: for evaluation only, never for training: of training recordings by name, the true
        `(start_s, end_s)` of each of their points, in the order of the points; None where unknown.
        A recording may be missing; None where no segment is known at all.
      unlabelled: recordings of the training subset in which nothing is labelled or done. There is
        nothing to learn from in them; a retraining predicts them, too.
    """

    classes: tuple[str, ...]
    train: tuple[Recording, ...]
    test: tuple[Recording, ...]
    ground_truth: dict[str, Any]
    overlapping: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    scaling: Scaling | None = None
    manifest: Manifest | None = None
    root: str | None = None
    train_truth: Mapping[str, tuple[Segment | None, ...]] | None = None
    unlabelled: tuple[Recording, ...] = ()

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """All recordings: of training, of test and unlabelled ones."""
        return (*self.train, *self.test, *self.unlabelled)


def check_recording(
    recording: Recording, *, dim: int | None = None, num_classes: int | None = None
) -> None:
    """Checks that a recording can be used for training or prediction.

    Args:
      recording: the recording.
      dim: the required `D` of its features, if any.
      num_classes: the number of classes, of which its labels are indices, if known.

    Raises:
      InputError: if its features, its clock, or its points and labels cannot be used.
    """
    name, features, duration_s = recording.name, recording.features, recording.duration_s
    check_features(name, features, dim=dim)
    if isinstance(features, np.ndarray):  # files are checked as they are read
        check_finite(name, features)
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise InputError(f"{name}: duration_s is {duration_s!r}, expected a finite number above 0")
    if not fits_clock(len(features), duration_s, recording.grid):
        raise InputError(
            f"{name}: {len(features)} snippets of {recording.grid.stride_s:g} s for a duration of "
            f"{duration_s:g} s, expected {recording.grid.num_snippets(duration_s)}: a wrong clock, "
            "or features of another recording"
        )
    for point in recording.points:
        if not 0 <= point.time_s < duration_s:
            raise InputError(
                f"{name}: point at {point.time_s!r} s, expected a time within [0, {duration_s:g}) s"
            )
        start_s, end_s = point.segment_s or (0.0, duration_s)
        if not 0 <= start_s <= point.time_s < end_s <= duration_s:
            raise InputError(
                f"{name}: segment {[start_s, end_s]} s of the point at {point.time_s!r} s, "
                f"expected one around it, within [0, {duration_s:g}] s"
            )
    _check_labels(recording, num_classes)
    _check_background(recording)
    for start_s, end_s in recording.done_s or ():
        if not 0 <= start_s < end_s <= duration_s:
            raise InputError(
                f"{name}: done stretch {[start_s, end_s]} s, expected 0 <= start < end <= "
                f"{duration_s:g} s"
            )


_DTYPES = np.dtype(np.float32), np.dtype(np.float16)


def check_features(name: str, features: Any, *, dim: int | None = None) -> None:
    """Checks the shape and the type of features, without reading them; see `check_recording`."""
    if features.ndim != 2:
        raise InputError(f"{name}: features have shape {list(features.shape)}, expected [T, D]")
    if 0 in features.shape:
        raise InputError(
            f"{name}: features are empty, of shape {list(features.shape)}, expected [T, D] with "
            "T, D > 0"
        )
    if features.dtype not in _DTYPES:
        raise InputError(f"{name}: features are {features.dtype}, expected float32 or float16")
    if dim is not None and features.shape[1] != dim:
        raise InputError(f"{name}: features have D = {features.shape[1]}, expected {dim}")


def check_dataset(dataset: Dataset) -> None:
    """Checks every recording of a data set, and their consistency.

    Raises:
      InputError: if a recording is refused by `check_recording`, a name occurs twice, the
        recordings' `D` differ, there is no training recording, the ground truth is not that of the
        test recordings, or the true segments of training points are not as many as these.
    """
    if not dataset.train:
        raise InputError("data set: no training recording, expected at least one")
    recordings = dataset.recordings
    name, count = Counter(recording.name for recording in recordings).most_common(1)[0]
    if count > 1:
        raise InputError(f"data set: recording {name!r} occurs {count} times, expected once")
    dim = None
    for recording in recordings:
        check_recording(recording, dim=dim, num_classes=len(dataset.classes))
        dim = recording.features.shape[1]
    odd = set(dataset.ground_truth["database"]) ^ {recording.name for recording in dataset.test}
    if odd:
        raise InputError(
            f"data set: {min(odd)!r} is only one of test recording and ground truth, expected "
            "to be both"
        )
    if dataset.train_truth is not None:
        _check_truth(dataset.train_truth, dataset.train)


def _check_truth(
    truth: Mapping[str, tuple[Segment | None, ...]], recordings: Sequence[Recording]
) -> None:
    for recording in recordings:
        segments = truth.get(recording.name)
        if segments is not None and len(segments) != len(recording.points):
            raise InputError(
                f"data set: train_truth has {len(segments)} segments for the "
                f"{len(recording.points)} points of {recording.name!r}, expected one each, or None"
            )


def points_of(
    name: str, annotation: RecordingAnnotation, index: Mapping[str, int]
) -> tuple[tuple[Point, ...], tuple[Segment | None, ...]]:
    """Returns the points of a training recording's annotation in order of time, and their segments.

    The segments are None where the annotation has none.

    Raises:
      InputError: if an instance has no point.
    """
    pairs = []
    for instance in annotation.instances:
        if instance.point_s is None:
            raise InputError(
                f"{name}: instance of {instance.label!r} at "
                f"[{instance.start_s}, {instance.end_s}) s has no point to train on; add it, train "
                "on segments, too (data.supervision='mixed'), draw points in the segments "
                "(data.points='uniform'; in Python, generate_points), or learn from labels alone "
                "(data.points='none')"
            )
        point = Point(instance.point_s, index[instance.label])
        pairs.append((point, instance.segment))
    pairs.sort(key=lambda pair: (pair[0].time_s, pair[0].label))
    return tuple(point for point, _ in pairs), tuple(segment for _, segment in pairs)


def assemble(
    annotations: Annotations,
    given: Iterable[Recording],
    test: Iterable[Recording],
    ground_truth: dict[str, Any],
    *,
    labels_only: bool = False,
    notes: Iterable[str] = (),
) -> Dataset:
    """Makes a data set of recordings, and checks it.

    Args:
      annotations: annotations of the training recordings, and the classes.
      given: training recordings, which get their point labels, or their video classes; the segments
        of the points become `train_truth`.
      test: test recordings.
      ground_truth: ActivityNet dictionary of the test recordings.
      labels_only: give training recordings video classes, without points.
      notes: of the data set; those of `class_notes` follow.
    """
    classes = annotations.classes
    index = {name: label for label, name in enumerate(classes)}
    truth: dict[str, tuple[Segment | None, ...]] = {}

    def supervised(recording: Recording) -> Recording:
        annotation = cut_labels(annotations.recordings[recording.name], recording.duration_s)
        points, labels = (), None
        if labels_only:
            done = (one.label for one in annotation.instances if _is_done(one, annotation))
            labels = tuple(sorted({index[label] for label in done}))
        else:
            points, truth[recording.name] = points_of(recording.name, annotation, index)
        return Recording(
            recording.name,
            recording.features,
            recording.grid,
            recording.duration_s,
            points,
            labels,
            annotation.background_s,
            annotation.done_s,
        )

    train, empty = [], []
    for recording in given:
        recording = supervised(recording)
        learnable = recording.done_s != () or recording.points or recording.background_s
        (train if learnable else empty).append(recording)
    if empty:
        names = count_names([recording.name for recording in empty])
        notes = (*notes, f"nothing is labelled or done, left out of training: {names}")
    truth = {recording.name: truth[recording.name] for recording in train if truth}
    dataset = Dataset(
        classes=classes,
        train=tuple(train),
        test=tuple(test),
        ground_truth=ground_truth,
        overlapping=tuple((index[one], index[other]) for one, other in annotations.overlapping),
        unlabelled=tuple(empty),
    )
    known = any(segment is not None for segments in truth.values() for segment in segments)
    dataset = dataclasses.replace(dataset, train_truth=truth if known else None)
    check_dataset(dataset)
    return dataclasses.replace(dataset, notes=(*notes, *class_notes(dataset)))


def _is_done(instance: Instance, annotation: RecordingAnnotation) -> bool:
    """Whether an instance is in a done stretch; one without a time may be anywhere."""
    times_s = instance.segment or (instance.point_s, instance.point_s)
    if annotation.done_s is None or times_s[0] is None or times_s[1] is None:
        return True
    return any(
        start_s < max(times_s[1], math.nextafter(times_s[0], math.inf)) and times_s[0] < end_s
        for start_s, end_s in annotation.done_s
    )


def class_notes(dataset: Dataset) -> tuple[str, ...]:
    """Returns a line for every class without a training point, or without a test instance."""
    trained = {dataset.classes[one] for recording in dataset.train for one in labels_of(recording)}
    tested = {
        instance["label"]
        for video in dataset.ground_truth["database"].values()
        for instance in video["annotations"]
    }
    notes = []
    for label in dataset.classes:
        if label not in trained:
            notes.append(f"class {label!r} is in no training recording: it cannot be learned")
        if dataset.test and label not in tested:
            notes.append(f"class {label!r} has no test instance: it is left out of the mAP")
    return tuple(notes)


def count_names(names: Sequence[str]) -> str:
    """Formats a number of recordings and the first few names, for notes and messages."""
    plural = "recording" if len(names) == 1 else "recordings"
    more = ", ..." if len(names) > 3 else ""
    # Names of files may be no Unicode.
    shown = ", ".join(names[:3]).encode(errors="backslashreplace").decode()
    return f"{len(names)} {plural} ({shown}{more})"


def standardize(dataset: Dataset) -> Dataset:
    """Standardises every feature by its mean and standard deviation over the training snippets.

    A feature that is constant over the training set is only shifted. Test recordings do not enter
    the statistics. Features become float32; those in files stay there, and those of training
    recordings are read twice.
    """

    def mean_of(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        sums = (function(read_features(r).astype(np.float64)).sum(axis=0) for r in dataset.train)
        total = sum(sums, start=np.float64(0))
        return np.asarray(total) / sum(len(recording.features) for recording in dataset.train)

    mean = mean_of(lambda features: features)
    std = np.sqrt(mean_of(lambda features: (features - mean) ** 2))
    # Below this a feature is constant but for float32 rounding.
    scaling = Scaling(mean, np.where(std > 1e-6 * np.abs(mean), std, 1.0))

    def apply(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
        return tuple(
            dataclasses.replace(recording, features=scaling.apply(recording.features))
            for recording in recordings
        )

    parts = {name: apply(getattr(dataset, name)) for name in _PARTS}
    return dataclasses.replace(dataset, **parts, scaling=scaling)


def restandardize(dataset: Dataset, scaling: Scaling) -> Dataset:
    """Standardises a data set anew, by the mean and scale of another one that it extends.

    The features of `standardize` become those of `scaling.apply`, up to rounding where they are in
    memory; nothing changes where both are the same.
    """
    old = dataset.scaling
    assert old is not None
    if np.array_equal(old.mean, scaling.mean) and np.array_equal(old.scale, scaling.scale):
        return dataset

    def apply(features: Any) -> Any:
        if isinstance(features, ScaledFeatures):
            return ScaledFeatures(features.features, scaling)
        return scaling.apply(np.asarray(features, np.float64) * old.scale + old.mean)

    parts = {
        name: tuple(
            dataclasses.replace(one, features=apply(one.features)) for one in getattr(dataset, name)
        )
        for name in _PARTS
    }
    return dataclasses.replace(dataset, **parts, scaling=scaling)


def read_features(recording: Recording) -> np.ndarray:
    """Returns a recording's features as an array; raises an InputError for NaN or infinity."""
    features = np.asarray(recording.features)
    check_finite(recording.name, features)
    return features


def check_finite(name: str, features: np.ndarray, *, first: int = 0) -> None:
    """Raises an InputError if features contain NaN or infinity; `first` is their first snippet."""
    finite = np.isfinite(features)
    if not finite.all():
        snippet, feature = np.argwhere(~finite)[0]
        value = features[snippet, feature]
        raise InputError(
            f"{name}: feature {feature} of snippet {first + snippet} is {value}, expected finite "
            "numbers"
        )


def fits_clock(length: int, duration_s: float, grid: Grid) -> bool:
    """Whether `length` snippets match a duration up to `MAX_DRIFT_SNIPPETS`."""
    return abs(length - grid.num_snippets(duration_s)) <= MAX_DRIFT_SNIPPETS


def _check_background(recording: Recording) -> None:
    """Checks that background points are in the recording and contradict no point."""
    name, grid = recording.name, recording.grid
    for time_s in recording.background_s:
        if not 0 <= time_s < recording.duration_s:
            raise InputError(
                f"{name}: background point at {time_s!r} s, expected a time within "
                f"[0, {recording.duration_s:g}) s"
            )
        for point in recording.points:
            start_s, end_s = point.segment_s or (math.inf, math.inf)
            alike = math.floor(grid.to_snippets(time_s)) == math.floor(
                grid.to_snippets(point.time_s)
            )
            if alike or start_s <= time_s < end_s:
                raise InputError(
                    f"{name}: background point at {time_s!r} s is in the "
                    f"{'snippet' if alike else 'segment'} of the point at {point.time_s!r} s, "
                    "which is an action; remove one of them"
                )


def _check_labels(recording: Recording, num_classes: int | None) -> None:
    most = math.inf if num_classes is None else num_classes
    if recording.labels is None and all(0 <= point.label < most for point in recording.points):
        return  # those of its points
    labels = labels_of(recording)
    if list(labels) != sorted(set(labels)) or not all(0 <= label < most for label in labels):
        count = "" if num_classes is None else f" below {num_classes}"
        raise InputError(
            f"{recording.name}: labels {labels}, expected increasing indices from 0{count}"
        )
    missing = {point.label for point in recording.points} - set(labels)
    if missing:
        raise InputError(
            f"{recording.name}: a point of class {min(missing)}, which is not among its labels"
        )
