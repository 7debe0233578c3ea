"""Fingerprints of a data set: whether a run, or a page of results, is of the data at hand.

Labels count by their values, features by their bytes. A copied or moved folder has the same
fingerprint.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tal_jax.data import files
from tal_jax.data.lazy_features import digest_of
from tal_jax.data.recordings import Dataset, Recording, ScaledFeatures, count_names
from tal_jax.data.shards import ShardFeatures


class RecordingFingerprint(msgspec.Struct, frozen=True):
    """Hashes of one recording."""

    features: str
    # Duration, points, segments, video classes, background points, done stretches; of a test
    # recording its ground truth.
    labels: str


class Fingerprint(msgspec.Struct, frozen=True):
    """Hashes of a data set's recordings by name."""

    classes: list[str]
    train: dict[str, RecordingFingerprint]
    test: dict[str, RecordingFingerprint]
    # Those that nothing is labelled in, which may come and go.
    unlabelled: dict[str, RecordingFingerprint] = {}
    # Pairs of classes that may overlap, sorted; None of runs that did not record them.
    overlapping: list[tuple[str, str]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Fingerprint":
        """Parses what `to_dict` returned; raises InputError if it is no such dictionary."""
        return files.convert(values, cls, "fingerprint")


def fingerprint(dataset: Dataset) -> Fingerprint:
    """Hashes a data set; reads all features but those in shards; large ones in part."""
    truth = dataset.ground_truth["database"]
    return Fingerprint(
        list(dataset.classes),
        {
            recording.name: RecordingFingerprint(
                _of_features(recording.features), _of_labels(recording, dataset.classes)
            )
            for recording in dataset.train
        },
        {
            recording.name: RecordingFingerprint(
                _of_features(recording.features), _hash_json(truth.get(recording.name))
            )
            for recording in dataset.test
        },
        {
            recording.name: RecordingFingerprint(_of_features(recording.features), "")
            for recording in dataset.unlabelled
        },
        sorted(_named(pair, dataset.classes) for pair in dataset.overlapping),
    )


def differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What changed, a phrase for each kind of change; empty where nothing did.

    >>> one = Fingerprint(["jump"], {"a": RecordingFingerprint("1", "2")}, {})
    >>> other = Fingerprint(["jump"], {"a": RecordingFingerprint("1", "3")}, {})
    >>> differences(one, other)
    ['other labels in training: 1 recording (a)']
    """
    found = []
    if before.classes != after.classes:
        found.append(f"classes were {', '.join(before.classes)}, now {', '.join(after.classes)}")
    if before.overlapping is not None and after.overlapping is not None:
        pairs = _listed(before.overlapping), _listed(after.overlapping)
        if pairs[0] != pairs[1]:
            found.append(f"overlapping classes were {pairs[0]}, now {pairs[1]}")
    for subset in ("train", "test"):
        found += _differences(getattr(before, subset), getattr(after, subset), subset)
    return found


def _named(pair: tuple[int, int], classes: tuple[str, ...]) -> tuple[str, str]:
    first, second = sorted(pair)  # its order is of no importance
    return classes[first], classes[second]


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(map("/".join, pairs)) or "none"


def _differences(
    before: Mapping[str, RecordingFingerprint],
    after: Mapping[str, RecordingFingerprint],
    subset: str,
) -> list[str]:
    kind = "training" if subset == "train" else "test"

    def changed(part: Callable[[RecordingFingerprint], str]) -> list[str]:
        both = (name for name in before if name in after)
        return [name for name in both if part(before[name]) != part(after[name])]

    kinds = {
        f"added to {kind}": [name for name in after if name not in before],
        f"left out of {kind}": [name for name in before if name not in after],
        f"other labels in {kind}": changed(lambda one: one.labels),
        f"other features in {kind}": changed(lambda one: one.features),
    }
    return [f"{what}: {count_names(names)}" for what, names in kinds.items() if names]


def _of_labels(recording: Recording, classes: tuple[str, ...]) -> str:
    labels = recording.labels
    # Without either as ever, like points without a segment.
    partly = {} if recording.done_s is None else {"done": recording.done_s}
    partly |= {"background": recording.background_s} if recording.background_s else {}
    return _hash_json({
        "duration_s": recording.duration_s,
        "grid": recording.grid.to_dict(),
        # Without a segment as ever: so are runs that were begun before there were any.
        "points": [
            [classes[point.label], point.time_s, *(point.segment_s or ())]
            for point in recording.points
        ],
        "labels": None if labels is None else [classes[label] for label in labels],
        **partly,
    })  # fmt: skip


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _of_features(features: Any) -> str:
    if isinstance(features, ScaledFeatures):
        features = features.features
    # Shards hold what was computed when they were written.
    return features.digest if isinstance(features, ShardFeatures) else digest_of(features)
