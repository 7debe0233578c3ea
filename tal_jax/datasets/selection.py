"""Selects the recordings of a folder to train and to test on, and reports on the others."""

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from tal_jax._errors import InputError
from tal_jax.data.annotations import Annotations
from tal_jax.data.recordings import count_names

# Parts of a data set by the names of subsets and folders.
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
PARTS |= {"val": "validation", "validation": "validation"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A problem of a folder: loading notes or refuses it, the doctor lists it.

    As text, with the number and the first few of its recordings.
    """

    # "error" where training or its evaluation would be wrong, "warning" where scores would not be
    # comparable with published ones, "note" where there is a choice
    level: str
    text: str  # the problem, and what to do about it
    names: tuple[str, ...] = ()  # the recordings concerned

    def __str__(self) -> str:
        return f"{self.text}: {count_names(self.names)}" if self.names else self.text


def notes_of(folder: Path, findings: Iterable[Finding]) -> list[str]:
    """Returns findings as notes of a data set; raises an InputError for the first error."""
    notes = []
    for finding in findings:
        if finding.level == "error":
            raise InputError(f"{folder}: {finding}")
        notes.append(str(finding))
    return notes


def select_recordings(
    names: Mapping[str, Sequence[str]],
    *,
    annotated: Container[str],
    features: Iterable[str],
    required: Container[str],
) -> tuple[dict[str, list[str]], list[Finding]]:
    """Selects the recordings that have both features and annotations, with findings on the others.

    Args:
      names: of the recordings to "train" and to "test" on.
      annotated: names of recordings with annotations.
      features: names of recordings with features.
      required: parts that must not be empty.
    """
    selected, findings, features = {}, [], set(features)
    for part, listed in names.items():
        selected[part] = [name for name in listed if name in features and name in annotated]
        for what, having in (("features", features), ("annotations", annotated)):
            missing = tuple(name for name in listed if name not in having)
            if missing:
                findings.append(Finding("warning", f"{part}: left out, without {what}", missing))
        if part in required and not selected[part]:
            text = (
                f"none of the {len(listed)} recordings to {part} on has both features and "
                "annotations"
            )
            findings.append(Finding("error", text))
    unused = tuple(sorted(features - {name for listed in names.values() for name in listed}))
    if unused:
        text = "left out, features of no recording to train or test on"
        findings.append(Finding("note", text, unused))
    return selected, findings


def overlapping_classes(
    annotations: Annotations, pairs: Iterable[str]
) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of classes that occur at once: the annotations', and those of a config.

    >>> overlapping_classes(Annotations(("dive", "jump", "run"), {}, (("run", "jump"),)),
    ...                     ["jump/run", "dive/jump", "dive/swim"])
    (('run', 'jump'), ('dive', 'jump'))

    Args:
      annotations: of the data set.
      pairs: "class/class"; those of other data sets' classes are ignored.

    Raises:
      InputError: if a pair is not of two classes.
    """
    found = {frozenset(pair): pair for pair in annotations.overlapping}
    for pair in pairs:
        names = tuple(pair.split("/"))
        if len(names) != 2 or names[0] == names[1]:
            raise InputError(f"config: data.overlapping has {pair!r}; expected 'class/class'")
        if set(names) <= set(annotations.classes):
            found.setdefault(frozenset(names), names)
    return tuple(found.values())


def choose_subsets(present: Sequence[str], train: str = "", test: str = "") -> tuple[str, str]:
    """Chooses, where they are "", the subsets to train on and to test on from those present.

    With a "train" or "training", the test subset is "test" or "validation", as for ActivityNet,
    whose test labels are secret. Without one, as for THUMOS14, the training subset is "validation"
    and the test subset "test".

    >>> choose_subsets(["training", "validation"])
    ('training', 'validation')
    >>> choose_subsets(["Test", "Validation"])
    ('Validation', 'Test')

    Raises:
      InputError: if there is none to train on, or both are the same.
    """
    known = {PARTS.get(name.casefold(), name.casefold()): name for name in present}
    order = ("train", "validation")
    if not train:
        train = next((known[name] for name in order if name in known), "")
    if not test:
        others = [known[name] for name in ("test", "validation") if name in known]
        test = next((name for name in others if name != train), "")
    if not train:
        raise InputError(
            f"subsets {', '.join(map(repr, present)) or 'none'}: none to train on, expected "
            "'train', 'training' or 'validation'; name it by data.train_subset"
        )
    if train == test:
        raise InputError(f"subset {train!r} is both trained and tested on, expected two")
    return train, test
