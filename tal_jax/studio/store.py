"""The annotation file of labelling, which other programs may change at the same time."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.annotations import parse_annotations


class Conflict(Exception):
    """The recording has changed in the file since it was read."""


class Store:
    """An annotation file in which recordings are replaced one by one.

    The file is read before every change, so that changes of other programs are kept.
    """

    def __init__(
        self, path: str | os.PathLike, *, classes: Sequence[str] = (), subset: str = "train"
    ):
        """Reads the file, if it exists.

        Args:
          path: the file, in the format of `tal_jax.data.annotations`.
          classes: names of classes, in addition to those of the file.
          subset: of recordings that are not in the file.

        Raises:
          InputError: if the file cannot be read, or is invalid for `parse_annotations`; if the path
            cannot be a file, or the subset is empty.
        """
        self.path = Path(path)
        if any(parent.is_file() for parent in self.path.parents) or self.path.is_dir():
            raise InputError(f"{path}: labels cannot be saved there, expected the name of a file")
        if not subset.strip():
            raise InputError(f"subset {subset!r}; expected a name, such as train or test")
        self._classes, self._subset = tuple(classes), subset
        self._lock = threading.Lock()
        self._read()

    def classes(self) -> list[str]:
        """Returns the classes of the file, then the additional ones."""
        return list(dict.fromkeys((*self._read()["classes"], *self._classes)))

    def entry(self, name: str) -> tuple[Mapping[str, Any] | None, str]:
        """Returns the entry of a recording in the file, and its revision."""
        entry = self._read()["database"].get(name)
        return entry, _revision(entry)

    def counts(self, names: Sequence[str]) -> list[int]:
        """Returns the number of points of each recording."""
        database = self._read()["database"]
        return [
            sum(one.get("point") is not None for one in database.get(name, _EMPTY)["annotations"])
            for name in names
        ]

    def save(
        self,
        name: str,
        instances: Sequence[Mapping[str, Any]],
        *,
        revision: str,
        classes: Sequence[str],
        duration_s: float,
    ) -> str:
        """Replaces the instances of a recording in the file.

        Args:
          name: of the recording.
          instances: `{"label", "point", "segment"}` of each.
          revision: of the entry that the instances were edited from.
          classes: to be listed in the file, in addition to those of the instances.
          duration_s: of the recording, used if the file has none.

        Returns:
          The new revision.

        Raises:
          Conflict: if the entry has another revision in the file.
          InputError: if the file cannot be read, or would become invalid.
          OSError: if it cannot be written; it is then unchanged.
        """
        with self._lock:
            values = self._read()
            entry = values["database"].get(name)
            if _revision(entry) != revision:
                raise Conflict(f"{self.path}: {name} was changed by another page or program")
            entry = {"subset": self._subset, "duration": duration_s, **(entry or {})}
            entry["annotations"] = list(instances)
            values["database"][name] = entry
            offered = (*values["classes"], *self._classes, *classes, *_labels(instances))
            values["classes"] = list(dict.fromkeys(offered))
            parse_annotations(values, source=str(self.path))
            files.write_json(self.path, values)
            return _revision(entry)

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"version": "VERSION 1.3", "classes": [], "database": {}}
        values = files.read_json(self.path)
        annotations = parse_annotations(values, source=str(self.path))
        # Without a list of classes, these are the labels of the file.
        return {**values, "classes": list(annotations.classes)}


_EMPTY: Mapping[str, Any] = {"annotations": []}


def _labels(instances: Sequence[Any]) -> list[str]:
    found = (one.get("label") for one in instances if isinstance(one, Mapping))
    return [label for label in found if isinstance(label, str)]


def _revision(entry: Mapping[str, Any] | None) -> str:
    text = json.dumps(entry, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
