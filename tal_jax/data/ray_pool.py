"""Workers of a Ray cluster that call functions, such as one that extracts a recording.

Plain actors rather than Ray Data: a call that kills its worker has to fail alone after a few tries,
while the loss of a machine must not count as one. Ray Data repeats a task of several recordings
either way, and ends all after some. Calls write their results to a disk that all machines share;
through this process pass arguments and small outcomes.
"""

import collections
import contextlib
import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data import files, locks

_TRIES = 3  # of a call whose worker dies
_STARTS = 3  # of workers in a row of which none gets ready
_POLL_S = 1.0
_SLOW_START_S = 60.0
_OBJECTS_BYTES = 2**27  # of Ray's object store, which is hardly used
# The places of JAX's compiled programs; what else the environment holds is of this machine.
_CARRIED = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
# The share of a GPU's memory that JAX takes by default.
_JAX_MEMORY = 0.75


@dataclasses.dataclass(frozen=True)
class Death:
    """In place of what a call returns, where its process ended."""

    reason: str


@dataclasses.dataclass(frozen=True)
class RayWorkers:
    """What to run on a Ray cluster: the one of `RAY_ADDRESS`, one on this machine, else a new one.

    Attributes:
      count: number of workers; by default as many as the cluster has room for.
      cpus: processors that each takes, in parts too; by default 1 beside a GPU or for a backbone
        that is no network, 2 to predict, and all of a machine for a backbone that is a network.
      gpus: GPUs that each takes, in parts too; by default 1 for networks where there are any, else
        0.
    """

    count: int | None = None
    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise InputError(f"workers is {self.count}, expected 1 or more")
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus)):
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"{name} of a worker is {value}, expected a number from 0")
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise InputError(f"gpus of a worker is {self.gpus:g}, expected a whole number above 1")


class RayPool(contextlib.AbstractContextManager):
    """Calls `function(state, progress, *args)` in actors, each of which has its own state.

    A call whose worker dies is made again, by another worker, up to three times; the loss of a
    whole machine does not count.
    """

    def __init__(
        self,
        start: Callable[[], Any],
        wanted: RayWorkers,
        folder: Path,
        *,
        cpus: float | None,
        gpu: bool,
        report: Callable[[str], None],
    ) -> None:
        """Connects to the cluster, and reports what is used of it. Workers start with calls.

        Args:
          start: makes the state in a worker.
          wanted: number and size of workers.
          folder: where calls write, which this process has locked and all machines share.
          cpus: by default, of a worker without a GPU; None for all of a machine.
          gpu: whether a worker takes a GPU by default, where there are any.
          report: called with lines for the user.

        Raises:
          InputError: if Ray is missing, or no machine has room for a worker.
        """
        self._ray, self._own = connect()
        self._report, self._folder = report, folder
        self._begin = _Begin(start, os.getcwd(), folder.absolute(), locks.read_holder(folder))
        self._queue: collections.deque[_Call] = collections.deque()
        self._running: dict[Any, tuple[_Worker, _Call | None]] = {}
        self._idle: list[_Worker] = []
        self._failed_starts, self._last_s, self._waited = 0, time.monotonic(), False
        try:
            machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._cpus, self._gpus, self.workers = _settle(wanted, machines, cpus, gpu=gpu)
            report(_describe(self.workers, self._cpus, self._gpus, machines))
        except BaseException:
            self.__exit__()
            raise

    def put(self, key: Hashable, function: Callable, *args: Any) -> None:
        """Enqueues a call of a function, which is made once or, if its worker dies, again."""
        self._queue.append(_Call(key, function, args))

    def results(self) -> Iterator[tuple[Hashable, Any]]:
        """Yields keys and what their calls returned, or a `Death`, until the queue is empty.

        Raises whatever a call raises.
        """
        while self._queue or any(call for _, call in self._running.values()):
            self._hire()
            while self._queue and self._idle:
                worker, call = self._idle.pop(), self._queue.popleft()
                self._running[worker.actor.run.remote(call.function, call.args)] = worker, call
            ready, _ = self._ray.wait(list(self._running), timeout=_POLL_S)
            for reference in ready:
                yield from self._finish(reference)
            self._note_waiting(bool(ready))

    def __exit__(self, *_: Any) -> None:
        """Ends the workers, also in the middle of calls, and removes what these left."""
        for worker in (*self._idle, *(worker for worker, _ in self._running.values())):
            self._kill(worker)
        if self._running:  # until they are gone
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=5.0)
        if self._own:
            self._ray.shutdown()
        with contextlib.suppress(OSError):
            files.remove_temporary(self._folder)

    def _hire(self) -> None:
        """Starts workers for the calls that wait, as long as there is room for more."""
        present = len(self._idle) + len(self._running)
        starting = sum(call is None for _, call in self._running.values())
        missing = min(self.workers - present, len(self._queue) - len(self._idle) - starting)
        for _ in range(missing):
            actor = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus)(_Actor).remote()
            self._running[actor.begin.remote(self._begin, self._gpus)] = _Worker(actor), None

    def _finish(self, reference: Any) -> Iterator[tuple[Hashable, Any]]:
        worker, call = self._running.pop(reference)
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:  # raised by the function
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except errors.RayError as error:
            yield from self._lose(worker, call, error)
            return
        self._idle.append(worker)
        if call is None:
            worker.machine, self._failed_starts = value, 0
        else:
            yield call.key, value

    def _lose(
        self, worker: "_Worker", call: "_Call | None", error: Exception
    ) -> Iterator[tuple[Hashable, Any]]:
        """Makes a call again whose worker died, unless that happened too often."""
        self._kill(worker)  # it may only be out of reach
        reason = _reason_of(error)
        if call is None:
            self._note_failed_start(reason)
            return
        call.died_on.append(worker.machine)
        # A worker may be found dead before its machine is; so all are counted again each time.
        machines = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if sum(one in machines for one in call.died_on) < _TRIES:
            self._report(f"ray: a worker died: {reason}; {call.key} is done again by another one")
            self._queue.appendleft(call)
        else:
            yield call.key, Death(f"{_TRIES} processes died with it, the last one so: {reason}")

    def _note_failed_start(self, reason: str) -> None:
        """Goes on with fewer workers where others start, as on a machine that lacks something."""
        self._failed_starts += 1
        if self._failed_starts % _STARTS:
            return
        if not self._idle and not any(call for _, call in self._running.values()):
            raise InputError(f"ray: no worker starts: {reason}")
        self.workers = max(self.workers - 1, 1)
        self._report(f"ray: a worker does not start: {reason}; goes on with {self.workers}")

    def _kill(self, worker: "_Worker") -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(worker.actor)

    def _note_waiting(self, progressed: bool) -> None:
        """Prints a line, once, if no worker starts for a minute and nothing else is done."""
        busy = any(call for _, call in self._running.values())
        if progressed or busy:
            self._last_s = time.monotonic()
        elif not self._waited and time.monotonic() - self._last_s > _SLOW_START_S:
            self._waited = True
            free = self._ray.available_resources()
            self._report(
                f"ray: no worker has started for {_SLOW_START_S:.0f} s; each takes "
                f"{_share(self._cpus, self._gpus)}, free are {free.get('CPU', 0):g} CPUs and "
                f"{free.get('GPU', 0):g} GPUs"
            )


def connect() -> tuple[Any, bool]:
    """Returns the module `ray`, connected to a cluster, and whether this call connected it."""
    # Ray sends reports on its use to its makers; by default nothing leaves the machine here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError('--engine ray needs Ray; run pip install "tal_jax[ray]"') from error
    if ray.is_initialized():
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    main = threading.current_thread() is threading.main_thread()
    before, address = signal.getsignal(signal.SIGTERM), os.environ.get("RAY_ADDRESS")
    try:
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address:
                raise
            new = {"include_dashboard": False, "object_store_memory": _OBJECTS_BYTES}
            ray.init(address="local", **new, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"ray: no connection: {' '.join(str(error).split())}") from error
    finally:
        if main:  # Ray's own handler ends the process with another exit code
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    return ray, True


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Holds a connection to a cluster, for what comes before a pool.

    Ray forks this process to start a cluster, which has to come before JAX starts its threads.
    """
    ray, own = connect()
    try:
        yield
    finally:
        if own:
            ray.shutdown()


def _settle(
    wanted: RayWorkers,
    machines: Sequence[dict[str, float]],
    default_cpus: float | None,
    *,
    gpu: bool,
) -> tuple[float, float, int]:
    """CPUs and GPUs of a worker, and the number of workers."""
    gpus, cpus = wanted.gpus, wanted.cpus
    if gpus is None:
        gpus = float(gpu and any(one.get("GPU", 0) >= 1 for one in machines))
    if cpus is None:
        least = min((one["CPU"] for one in machines if one.get("CPU", 0) >= 1), default=1.0)
        cpus = 1.0 if gpus else min(default_cpus or least, least)
    room = sum(_room(one, cpus, gpus) for one in machines)
    if not room:
        most = [f"{one.get('CPU', 0):g} CPUs and {one.get('GPU', 0):g} GPUs" for one in machines]
        raise InputError(
            f"ray: a worker takes {_share(cpus, gpus)}; expected no more than one machine has: "
            f"{', '.join(sorted(set(most)))}"
        )
    return cpus, gpus, wanted.count or room


def _room(machine: dict[str, float], cpus: float, gpus: float) -> int:
    """How many workers fit on a machine; those that take nothing are as many as it has CPUs."""
    shares = [(machine.get("CPU", 0), cpus), (machine.get("GPU", 0), gpus)]
    fitting = [int(have / take + 1e-6) for have, take in shares if take]
    return min(fitting, default=int(machine.get("CPU", 0)))


def _share(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU{'' if cpus == 1 else 's'}" + (
        f" and {gpus:g} GPU{'' if gpus == 1 else 's'}" if gpus else ""
    )


def _describe(count: int, cpus: float, gpus: float, machines: Sequence[dict[str, float]]) -> str:
    totals = [sum(one.get(kind, 0) for one in machines) for kind in ("CPU", "GPU")]
    return (
        f"ray: {count} worker{'' if count == 1 else 's'}, each with {_share(cpus, gpus)}; in all "
        f"{len(machines)} machine{'' if len(machines) == 1 else 's'}, {totals[0]:g} CPUs, "
        f"{totals[1]:g} GPUs"
    )


def _reason_of(error: Exception) -> str:
    """A line of the long texts of Ray."""
    text = " ".join(str(error).split())
    if "ModuleNotFoundError" in text:
        return "ModuleNotFoundError" + text.rpartition("ModuleNotFoundError")[2][:200]
    if "Unavailable" in type(error).__name__:
        return "it is out of reach"
    if "memory" in type(error).__name__.lower():
        return "it was ended for lack of memory"
    if "connection error code 2" in text:
        return "it was killed, possibly for lack of memory"
    return f"{type(error).__name__}: {text[:200]}"


@dataclasses.dataclass
class _Call:
    key: Hashable
    function: Callable
    args: tuple
    died_on: list[str] = dataclasses.field(default_factory=list)  # machines of dead workers


@dataclasses.dataclass
class _Worker:
    actor: Any
    machine: str = ""  # where it is, once it is ready


# --- in a worker ---


@dataclasses.dataclass(frozen=True)
class _Begin:
    start: Callable[[], Any]
    home: str  # the folder that relative paths begin in
    folder: Path
    holder: str  # what the lock's file of the folder contains
    environment: dict[str, str] = dataclasses.field(
        default_factory=lambda: {key: os.environ[key] for key in _CARRIED if key in os.environ}
    )


class _Actor:
    """A process of the cluster."""

    state: Any

    def begin(self, begin: _Begin, gpus: float) -> str:
        """Makes the state; returns the machine."""
        import ray  # pyright: ignore[reportMissingImports]

        with contextlib.suppress(OSError):
            os.chdir(begin.home)
        if locks.read_holder(begin.folder) != begin.holder:
            raise InputError(
                f"{begin.folder} is not on the disk of {socket.gethostname()}; expected a folder "
                "that all machines of the cluster share"
            )
        for key, value in begin.environment.items():
            os.environ.setdefault(key, value)
        if 0 < gpus < 1:  # before JAX takes the GPU
            share = str(round(_JAX_MEMORY * gpus, 3))
            os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", share)
        self.state = begin.start()
        return ray.get_runtime_context().get_node_id()

    def run(self, function: Callable, args: tuple) -> Any:
        """Makes a call."""
        return function(self.state, _no_progress, *args)


def _no_progress(*_: int) -> None:
    pass
