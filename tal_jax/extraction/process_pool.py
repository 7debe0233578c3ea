"""Processes of this machine that call functions, such as one that extracts a recording.

`tal_jax.data.ray_pool` has the same interface for the machines of a cluster.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from tal_jax._errors import InputError
from tal_jax.data.ray_pool import Death

_AHEAD = 4  # calls that are given to each process at once
_POLL_S = 0.2  # between two queries of the progress
_PATIENCE_S = 2.0  # for a process to leave what it does


class ProcessPool(contextlib.AbstractContextManager):
    """Calls `function(state, progress, *args)` in processes, which are started by "spawn".

    A process makes one call after the other, so that a model is loaded once. If one dies, its call
    fails, and another process takes its place.
    """

    def __init__(
        self, state: Any, workers: int, progress: Callable[[Hashable, int, int], None]
    ) -> None:
        """Starts no process yet.

        Args:
          state: the first argument of all calls, which can be pickled.
          workers: number of processes.
          progress: called with a key, and the two numbers that its call reported.
        """
        try:
            import pebble
        except ImportError as error:
            raise InputError(
                'extracting needs pebble; run pip install "tal_jax[video]" or "tal_jax[tables]"'
            ) from error
        context: Any = multiprocessing.get_context("spawn")
        self.workers, places = workers, _AHEAD * workers
        # Two numbers of each call: shared memory has no lock to die with.
        self._counts = context.RawArray("q", 2 * places)
        self._places = list(range(places))
        self._progress, self._died = progress, pebble.ProcessExpired
        self._queue: collections.deque[tuple[Hashable, Callable, tuple]] = collections.deque()
        self._futures: dict[concurrent.futures.Future, tuple[Hashable, int]] = {}
        self._shown: dict[int, tuple[int, int]] = {}
        self._pool = pebble.ProcessPool(
            workers, initializer=_start, initargs=(state, self._counts), context=context
        )

    def put(self, key: Hashable, function: Callable, *args: Any) -> None:
        """Enqueues a call of a function of a module."""
        self._queue.append((key, function, args))

    def results(self) -> Iterator[tuple[Hashable, Any]]:
        """Yields keys and what their calls returned, or a `Death`, until the queue is empty.

        Raises whatever a call raises.
        """
        while self._queue or self._futures:
            while self._queue and self._places:  # a few: to wait for all takes as long for each
                self._schedule(*self._queue.popleft())
            done, _ = concurrent.futures.wait(self._futures, _POLL_S, "FIRST_COMPLETED")
            self._show()
            for future in done:
                key, place = self._futures.pop(future)
                self._places.append(place)
                error = future.exception()
                yield key, future.result() if error is None else self._death(error)

    def __exit__(self, *_: Any) -> None:
        """Ends the processes, also in the middle of calls."""
        self._pool.stop()
        self._pool.join()

    def _schedule(self, key: Hashable, function: Callable, args: tuple) -> None:
        place = self._places.pop()
        self._counts[2 * place : 2 * place + 2] = self._shown[place] = (0, 0)
        future = self._pool.schedule(_call, args=(place, function, args))
        self._futures[future] = key, place

    def _show(self) -> None:
        for key, place in self._futures.values():
            done, total = self._counts[2 * place : 2 * place + 2]
            if self._shown[place] != (done, total):
                self._shown[place] = done, total
                self._progress(key, done, total)

    def _death(self, error: BaseException) -> Death:
        if not isinstance(error, self._died):
            raise error
        code = error.exitcode
        if code is not None and code < 0:
            return Death(f"its process was killed (signal {-code}), possibly for lack of memory")
        return Death(f"its process failed ({error}, exit code {code})")


# --- in a process ---

_state: tuple[Any, Any]  # of this process: the first argument of calls, and the shared numbers
_busy = False  # whether this process is in a call


def _start(state: Any, counts: Any) -> None:
    global _state
    _state = state, counts
    # Ctrl+C reaches all processes of a terminal; the one that was started there ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _stop(*_: Any) -> None:
    """Leaves the call, which then removes its unfinished file; else ends the process."""
    if not _busy:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def _follow_parent() -> None:
    """Ends the process when the one that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    multiprocessing.connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_S)
    os._exit(1)


def _call(place: int, function: Callable, args: tuple) -> Any:
    global _busy
    state, counts = _state

    def progress(*numbers: int) -> None:
        counts[2 * place : 2 * place + 2] = numbers

    try:
        _busy = True
        return function(state, progress, *args)
    except SystemExit:
        os._exit(1)
    finally:
        _busy = False
