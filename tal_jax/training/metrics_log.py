"""The log of a run: one JSON object a line in `metrics.jsonl`, and a line of progress to read."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tal_jax.data import files


class MetricsLog:
    """Appends measurements to `metrics.jsonl`; a line is written whole or not at all.

    What is not finite is null in it.
    """

    def __init__(self, path: Path):
        self._path = path

    def append(self, **values: Any) -> None:
        """Adds one line."""
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(_to_json(values))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self._path}: {error.strerror}") from error

    def has(self, round_number: int, event: str) -> bool:
        """Whether there is a line of this event of a round."""
        return any(map(_is_of(round_number, event), self._lines()))

    def put(self, round_number: int, event: str, **values: Any) -> None:
        """Adds the line of an event, of which a round has one: an earlier one is replaced."""
        is_same = _is_of(round_number, event)
        others = [line for line in self._lines() if not is_same(line)]
        self._write([*others, {"round": round_number, "event": event} | values])

    def rewind(self, round_number: int, step: int) -> None:
        """Forgets what comes after a step of a round, which a resumed run measures again.

        What was logged without a step (an event of the round) comes after all of its steps.
        """
        if not self._path.exists():
            return
        last = (round_number, step)
        self._write(
            line for line in self._lines() if (line["round"], line.get("step", math.inf)) <= last
        )

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the run was stopped

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        content = "".join(map(_to_json, lines))
        files.write_bytes(self._path, content.encode())


def _to_json(line: Mapping[str, Any]) -> str:
    return json.dumps(files.without_nan(line), allow_nan=False) + "\n"


def _is_of(round_number: int, event: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda line: (line["round"], line.get("event")) == (round_number, event)


def progress_line(
    values: dict[str, float],
    shown: Mapping[str, str],
    *,
    title: str,
    step: int,
    steps: int,
) -> str:
    """One line: the progress, the loss and its parts, the time left, and what losses leave out."""
    parts = ", ".join(f"{title} {values[f'loss_{name}']:.3f}" for name, title in shown.items())
    minutes, seconds = divmod(round(values["eta_s"]), 60)
    return (
        f"{title}  update {step:>5}/{steps}  "
        f"loss {values['loss']:.3f} ({parts})  {values['steps_per_s']:.1f} updates/s  "
        f"{minutes}:{seconds:02d} left{_left_out(values)}"
    )


# Counts of segments that fit into no list, a mean over updates, and which loss misses them.
_OVERFLOWS = {
    "segment_overflow": "contrast loss",
    "feature_overflow": "feature contrast loss",
}


def _left_out(values: dict[str, float]) -> str:
    return "".join(
        f"; {values[name]:.1f} segments an update are left out of the {loss}"
        for name, loss in _OVERFLOWS.items()
        if values.get(name)
    )
