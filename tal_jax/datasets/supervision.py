"""What training may use of the annotations: labels, points, segments, or points with some segments.

Loaders give training recordings points, and keep the segments of these apart, in
`Dataset.train_truth`. From there this module copies those that a config allows into the points.
"""

import dataclasses
import hashlib
import math

from tal_jax._errors import InputError
from tal_jax.data.point_distributions import NO_POINTS
from tal_jax.data.recordings import Dataset, Recording, labels_of

LABELS, POINTS, SEGMENTS, MIXED = "labels", "points", "segments", "mixed"
SUPERVISIONS = (LABELS, POINTS, SEGMENTS, MIXED)


@dataclasses.dataclass(frozen=True)
class Supervision:
    """What training uses, from `data.supervision` and `data.segments_share`.

    Attributes:
      kind: "labels": video classes alone. "points". "segments": every training instance needs one.
        "mixed": segments where there are any, points elsewhere.
      segments_share: in "mixed", the share of the training recordings with segments that keep them,
        rounded up to whole recordings; for experiments.
      seed: of the choice of these recordings.
    """

    kind: str = POINTS
    segments_share: float = 1.0
    seed: int = 0

    @property
    def segments_suffice(self) -> bool:
        """Whether a training instance may have a segment without a point."""
        return self.kind in (SEGMENTS, MIXED)


def check_supervision(supervision: Supervision, points: str) -> None:
    """Checks the settings, and that they agree with `data.points`.

    Raises:
      InputError: if a value is unknown, or two settings contradict each other.
    """
    kind, share = supervision.kind, supervision.segments_share
    if kind not in SUPERVISIONS:
        raise InputError(
            f"config: data.supervision={kind!r}; expected one of {', '.join(SUPERVISIONS)}"
        )
    if supervision.segments_suffice and points == NO_POINTS:
        raise InputError(
            f"config: data.supervision={kind!r} with data.points={NO_POINTS!r}, which is for "
            f"data.supervision={LABELS!r}; choose one of them"
        )
    if not 0 <= share <= 1:
        raise InputError(f"config: data.segments_share={share!r}; expected a number from 0 to 1")
    if share != 1 and kind != MIXED:
        raise InputError(
            f"config: data.segments_share={share!r} with data.supervision={kind!r}; expected 1, or "
            f"data.supervision={MIXED!r}"
        )


def supervise(dataset: Dataset, supervision: Supervision) -> Dataset:
    """Gives a data set with points the supervision of a config.

    Raises:
      InputError: with "segments", if an instance has none.
    """
    if supervision.kind == POINTS:
        return dataset
    if supervision.kind == LABELS:
        train = tuple(
            dataclasses.replace(recording, points=(), labels=_labels_of(recording))
            for recording in dataset.train
        )
        return dataclasses.replace(dataset, train=train, train_truth=None)
    return _with_segments(dataset, supervision)


def _labels_of(recording: Recording) -> tuple[int, ...]:
    """The video classes that learning from labels may use: those in the done stretches."""
    if recording.done_s is None:
        return labels_of(recording)
    inside = {
        point.label
        for point in recording.points
        if any(start_s <= point.time_s < end_s for start_s, end_s in recording.done_s)
    }
    return tuple(sorted(inside))


def _with_segments(dataset: Dataset, supervision: Supervision) -> Dataset:
    truth = dataset.train_truth or {}
    annotated = [name for name, segments in truth.items() if any(segments)]
    kept = _drawn(annotated, supervision)
    train, total, known = [], 0, 0
    for recording in dataset.train:
        segments = truth.get(recording.name, (None,) * len(recording.points))
        pairs = list(zip(recording.points, segments, strict=True))
        for point, segment in pairs:
            if segment is None and supervision.kind == SEGMENTS:
                raise InputError(
                    f"{recording.name}: the instance of {dataset.classes[point.label]!r} at "
                    f"{point.time_s:g} s has no segment, expected one in every training instance; "
                    f"data.supervision={MIXED!r} uses those that there are"
                )
        if recording.name in kept:
            points = tuple(dataclasses.replace(point, segment_s=one) for point, one in pairs)
            recording = dataclasses.replace(recording, points=points)
        total += len(recording.points)
        known += sum(point.segment_s is not None for point in recording.points)
        train.append(recording)
    note = (
        f"supervision: {known} of {total} training instances have a segment, in {len(kept)} of "
        f"{len(train)} recordings"
    )
    return dataclasses.replace(dataset, train=tuple(train), notes=(*dataset.notes, note))


def _drawn(names: list[str], supervision: Supervision) -> set[str]:
    """The recordings that keep their segments: with a larger share, the same and others."""
    # A margin for rounding: 0.07 of 100 are 7.
    count = math.ceil(supervision.segments_share * len(names) - 1e-9)

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{supervision.seed}/{name}".encode()).digest()

    return set(sorted(names, key=place)[:count])
