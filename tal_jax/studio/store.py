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
from tal_jax.data.annotations import Annotations, RecordingAnnotation, parse_annotations

Entry = Mapping[str, Any]
# The labels of a recording that a save may replace; what it leaves out stays. Background points are
# numbers; who placed them, when and how stands beside them, by the number.
PARTS = ("annotations", "background", "background_sources", "done")


class Conflict(Exception):
    """The recording has changed in the file since it was read."""


class Store:
    """An annotation file in which recordings are replaced one by one.

    The file is read before every change, so that changes of other programs are kept.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        classes: Sequence[str] = (),
        subset: str = "train",
        begin_done: bool = True,
    ):
        """Reads the file, if it exists.

        Args:
          path: the file, in the format of `tal_jax.data.annotations`.
          classes: names of classes, in addition to those of the file.
          subset: of recordings that are not in the file.
          begin_done: whether a recording that is not in the file counts as wholly done; otherwise
            nothing of it is done until a done stretch is saved.

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
        self._begin_done = begin_done
        self._lock = threading.Lock()
        self._read_from: tuple[int, ...] | None = None
        self._known: tuple[Mapping[str, Any], Annotations] | None = None
        self._read()

    def classes(self) -> list[str]:
        """Returns the classes of the file, then the additional ones."""
        return list(dict.fromkeys((*self._read()[1].classes, *self._classes)))

    def entry(self, name: str) -> tuple[Entry | None, str]:
        """Returns the entry of a recording in the file, and its revision."""
        entry = self._read()[0]["database"].get(name)
        return entry, _revision(entry)

    def annotations(self) -> Annotations:
        """Returns all that is in the file."""
        return self._read()[1]

    def document(self) -> Mapping[str, Any]:
        """Returns the content of the file, which must not be changed."""
        return self._read()[0]

    def begun(self) -> RecordingAnnotation:
        """Returns the labels of a recording that is not in the file."""
        return RecordingAnnotation(self._subset, done_s=None if self._begin_done else ())

    def save(
        self,
        name: str,
        labels: Entry,
        *,
        revision: str,
        classes: Sequence[str],
        duration_s: float,
    ) -> str:
        """Replaces the labels of a recording in the file.

        Args:
          name: of the recording.
          labels: "annotations", a list of `{"label", "point", "segment"}`; "background", a list of
            times; and "done", a list of stretches, or None where all of it is done. What is left
            out stays as it is.
          revision: of the entry that the labels were edited from.
          classes: to be listed in the file, in addition to those of the labels.
          duration_s: of the recording, used if the file has none.

        Returns:
          The new revision.

        Raises:
          Conflict: if the entry has another revision in the file.
          InputError: if the file cannot be read, or would become invalid.
          OSError: if it cannot be written; it is then unchanged.
        """
        with self._lock:
            document, annotations = self._read()
            before = document["database"].get(name)
            if _revision(before) != revision:
                raise Conflict(f"{self.path}: {name} was changed by another page or program")
            begun = {} if self._begin_done else {"done": []}
            entry = {"subset": self._subset, "duration": duration_s, **begun, **(before or {})}
            entry |= {key: labels[key] for key in PARTS if key in labels}
            for key in ("background", "background_sources"):
                if not entry.get(key):
                    entry.pop(key, None)
            if entry.get("done", ()) is None:
                del entry["done"]
            # Last, where a person who reads the file looks for them.
            entry["annotations"] = entry.pop("annotations", [])
            offered = (*annotations.classes, *self._classes, *classes)
            self._write(
                document,
                {**document["database"], name: entry},
                [*offered, *_labels(entry["annotations"])],
            )
            return _revision(entry)

    def add_class(self, label: str) -> None:
        """Adds a class to the file; raises as `save`."""
        with self._lock:
            document, annotations = self._read()
            classes = [*annotations.classes, *self._classes, _checked(label)]
            self._write(document, document["database"], classes)

    def rename_class(self, before: str, now: str) -> dict[str, tuple[str, str]]:
        """Renames a class in all of its labels.

        Returns:
          The revisions before and after of each recording that has labels of it.

        Raises:
          InputError: if there is no such class, or the new name is that of another one; or as
            `save`.
        """
        with self._lock:
            document, annotations = self._read()
            classes = list(dict.fromkeys((*annotations.classes, *self._classes)))
            if before not in classes:
                raise InputError(f"no class {before!r}, expected one of {', '.join(classes)}")
            if _checked(now) in classes:
                raise InputError(f"there is a class {now!r} already; expected another name")
            database, changed = dict(document["database"]), {}
            for name, entry in database.items():
                if any(one["label"] == before for one in entry["annotations"]):
                    renamed = [
                        {**one, "label": now} if one["label"] == before else one
                        for one in entry["annotations"]
                    ]
                    database[name] = {**entry, "annotations": renamed}
                    changed[name] = _revision(entry), _revision(database[name])
            if overlapping := document.get("overlapping"):
                pairs = [[now if one == before else one for one in pair] for pair in overlapping]
                document = {**document, "overlapping": pairs}
            self._write(document, database, [now if one == before else one for one in classes])
            self._classes = tuple(now if one == before else one for one in self._classes)
            return changed

    def _write(
        self, document: Mapping[str, Any], database: Mapping[str, Any], classes: Sequence[str]
    ) -> None:
        listed = list(dict.fromkeys(classes))
        values = {**document, "classes": listed, "database": database}
        parse_annotations(values, source=str(self.path))
        files.write_json(self.path, values)

    def _read(self) -> tuple[Mapping[str, Any], Annotations]:
        """The content of the file, and what it means; kept until the file is another one."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            empty = {"version": "VERSION 1.3", "classes": [], "database": {}}
            return empty, parse_annotations(empty, source=str(self.path))
        read_from = status.st_ino, status.st_size, status.st_mtime_ns
        if self._known is None or self._read_from != read_from:
            document = files.read_json(self.path)
            self._known = document, parse_annotations(document, source=str(self.path))
            self._read_from = read_from
        return self._known


def _checked(label: str) -> str:
    if not label.strip():
        raise InputError(f"class {label!r}; expected a name")
    return label


def _labels(instances: Sequence[Any]) -> list[str]:
    found = (one.get("label") for one in instances if isinstance(one, Mapping))
    return [label for label in found if isinstance(label, str)]


def _revision(entry: Entry | None) -> str:
    text = json.dumps(entry, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
