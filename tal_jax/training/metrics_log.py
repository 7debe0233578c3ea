"""The log of a run: one JSON object a line in `metrics.jsonl`, and a line of progress to read."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tal_jax.data import files


class MetricsLog:
    """Appends measurements to `metrics.jsonl`; a line is written whole or not at all."""

    def __init__(self, path: Path):
        self._path = path

    def append(self, **values: Any) -> None:
        """Adds one line."""
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self._path}: {error.strerror}") from error

    def rewind(self, round_number: int, step: int) -> None:
        """Forgets what comes after a step of a round, which a resumed run measures again.

        What was logged without a step (the round's evaluation) comes after all of its steps.
        """
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the run was stopped
            if (values["round"], values.get("step", math.inf)) <= (round_number, step):
                kept.append(line + "\n")
        files.write_bytes(self._path, "".join(kept).encode())


def progress_line(
    values: dict[str, float],
    shown: Mapping[str, str],
    *,
    round_number: int,
    rounds: int,
    step: int,
    steps: int,
) -> str:
    """One line: the progress, the loss and its parts, the time left, and what losses leave out."""
    parts = ", ".join(f"{title} {values[f'loss_{name}']:.3f}" for name, title in shown.items())
    minutes, seconds = divmod(round(values["eta_s"]), 60)
    return (
        f"round {round_number} of {rounds - 1}  update {step:>5}/{steps}  "
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
