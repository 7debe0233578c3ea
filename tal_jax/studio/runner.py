"""The job that a server has at work: a process of its own, its progress, its end.

`tal_jax.studio.job` prints a line of JSON for each step of its progress. The process has its own
session, so that Ctrl+C in the server's terminal does not reach it, and it ends with the server:
its input ends then.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_PATIENCE_S = 10.0  # from SIGTERM to SIGKILL
_MOST_LOSSES = 400


class Busy(Exception):
    """Another job is at work."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
      kind: "extract" or "train".
      stopped: whether it was stopped.
      error: why it failed, one line; None if it did not.
    """

    kind: str
    stopped: bool
    error: str | None


class Runner:
    """Runs one job at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        changed: Callable[[dict[str, Any]], None],
        heard: Callable[[dict[str, Any]], None],
        ended: Callable[[Outcome], None],
    ):
        """Nothing is at work yet.

        Args:
          folder: of the project.
          changed: called with the job when its progress has changed.
          heard: called with a message of the job that is not progress.
          ended: called at its end.
        """
        self._folder = folder
        self._changed, self._heard, self._ended = changed, heard, ended
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._job: dict[str, Any] | None = None
        self._stopped = False
        self._reader: threading.Thread | None = None

    @property
    def job(self) -> dict[str, Any] | None:
        """The job at work, as pages show it; None where there is none."""
        with self._lock:
            return None if self._job is None else dict(self._job)

    def start(self, kind: str, command: Sequence[str] | None = None) -> dict[str, Any]:
        """Starts a job.

        Args:
          kind: "extract" or "train".
          command: to run in its place.

        Raises:
          Busy: if one is at work.
          OSError: if the process cannot be started.
        """
        with self._lock:
            if self._job is not None:
                raise Busy(_describe(self._job))
            command = command or [
                *(sys.executable, "-m", "tal_jax.studio.job", kind, str(self._folder))
            ]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._stopped = False
            self._job = {
                "kind": kind,
                "pid": self._process.pid,
                "phase": "begins",
                "done": 0,
                "total": 0,
                "loss": None,
                "rate": None,
                "left_s": None,
                "started_at": time.time(),
                "line": "",
                "losses": [],
            }
            job = dict(self._job)
            self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
            self._reader.start()
        self._changed(job)
        return job

    def stop(self, *, wait: bool = False) -> bool:
        """Stops the job at work, if there is one; returns whether there was.

        Args:
          wait: return only at its end.
        """
        with self._lock:
            process, reader = self._process, self._reader
            if process is None:
                return False
            self._stopped = True
        _signal(process, signal.SIGTERM, group=False)
        timer = threading.Timer(_PATIENCE_S, _end, (process,))
        timer.daemon = True
        timer.start()
        if wait and reader is not None:
            reader.join(_PATIENCE_S + 5)
            timer.cancel()
        return True

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            message = _parse(line)
            if message is None:
                last = line.strip() or last
                self._progress({"line": line.strip()})
            elif "progress" in message:
                self._progress(message["progress"])
            elif "error" in message:
                last = message["error"]
            else:
                self._heard(message)
        code = process.wait()
        # Processes of an extraction that outlived it.
        _signal(process, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with self._lock:
            job, self._job, self._process = self._job, None, None
            stopped = self._stopped
        assert job is not None
        error = None if code == 0 or stopped else last or f"the process ended with {code}"
        self._ended(Outcome(job["kind"], stopped, error))

    def _progress(self, values: dict[str, Any]) -> None:
        with self._lock:
            if self._job is None:
                return
            losses = [*self._job["losses"], *values.pop("losses", ())]
            while len(losses) > _MOST_LOSSES:  # every second one of the older half
                half = len(losses) // 2
                losses = [*losses[:half:2], *losses[half:]]
            self._job |= {key: one for key, one in values.items() if key in self._job}
            self._job["losses"] = losses
            job = dict(self._job)
        self._changed(job)


def _describe(job: dict[str, Any]) -> str:
    what = "features are being extracted" if job["kind"] == "extract" else "a training is at work"
    return f"{what}; wait for its end, or stop it"


def _parse(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[str], number: int, *, group: bool = True) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(process.pid, number)
