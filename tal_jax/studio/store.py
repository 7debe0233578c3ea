"""The annotation file that labels are saved in, shared with whoever else writes it."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tal_jax.data import files
from tal_jax.data.annotations import parse_annotations


class Conflict(Exception):
    """The file says something else of a recording than what a change was made to."""


class Store:
    """An annotation file, of which some recordings are changed and all else stays.

    Nothing of the file is kept in memory: it is read before every change, so that what other
    programs write is never lost.
    """

    def __init__(
        self, path: str | os.PathLike, *, classes: Sequence[str] = (), subset: str = "train"
    ):
        """Reads the file, where there is one.

        Args:
          path: the file, as `tal_jax.data.annotations` describes it.
          classes: names of classes to offer beside those of the file.
          subset: of recordings that the file does not have.

        Raises:
          ValueError: if the file cannot be read, or is refused by `parse_annotations`; if no file
            can be there, or the subset has no name.
        """
        self.path = Path(path)
        if any(parent.is_file() for parent in self.path.parents) or self.path.is_dir():
            raise ValueError(f"{path}: labels cannot be saved there, expected the name of a file")
        if not subset.strip():
            raise ValueError(f"subset {subset!r}; expected a name, such as train or test")
        self._classes, self._subset = tuple(classes), subset
        self._lock = threading.Lock()
        self._read()

    def classes(self) -> list[str]:
        """Returns the classes of the file, then those to offer beside them."""
        return list(dict.fromkeys((*self._read()["classes"], *self._classes)))

    def entry(self, name: str) -> tuple[Mapping[str, Any] | None, str]:
        """Returns what the file says of a recording, and the revision of that."""
        entry = self._read()["database"].get(name)
        return entry, _revision(entry)

    def counts(self, names: Sequence[str]) -> list[int]:
        """Returns how many points each recording has."""
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
        """Puts instances in the place of those that the file has of a recording.

        Args:
          name: of the recording.
          instances: `{"label", "point", "segment"}` of each.
          revision: what the instances were made from.
          classes: those that are to be among the file's, beside those of the instances.
          duration_s: of the recording, where the file does not tell it.

        Returns:
          The new revision.

        Raises:
          Conflict: if the revision is not that of the file.
          ValueError: if the file cannot be read, or would be refused afterwards.
          OSError: if it cannot be written; it is then as it was.
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
        # Without a list of its own, a file's classes are those that occur.
        return {**values, "classes": list(annotations.classes)}


_EMPTY: Mapping[str, Any] = {"annotations": []}


def _labels(instances: Sequence[Any]) -> list[str]:
    found = (one.get("label") for one in instances if isinstance(one, Mapping))
    return [label for label in found if isinstance(label, str)]


def _revision(entry: Mapping[str, Any] | None) -> str:
    text = json.dumps(entry, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
