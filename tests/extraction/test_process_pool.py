"""Processes that call functions: results, progress, deaths and faults."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tal_jax.data.ray_pool import Death
from tal_jax.extraction.process_pool import ProcessPool


def _add(state, progress, value):
    progress(1, 2)
    time.sleep(0.3)
    return state + value


def _die(state, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(state, progress):
    raise OSError(28, "full")


def test_calls_deaths_and_faults():
    seen = []
    with ProcessPool(10, 2, lambda *one: seen.append(one)) as pool:
        for number in range(9):  # more than are given to the processes at once
            pool.put(number, _add, number)
        pool.put("dead", _die)
        found = dict(pool.results())
        assert isinstance(found.pop("dead"), Death)
        assert found == {number: 10 + number for number in range(9)}
        assert {one[1:] for one in seen} <= {(1, 2), (0, 0)} and seen
        assert list(pool.results()) == []
        pool.put("fault", _fail)
        with pytest.raises(OSError, match="full"):
            list(pool.results())


def test_a_process_that_is_told_to_end_while_it_ends(tmp_path):
    """As the pool does when the command ends: jax has functions of its own for that moment."""
    program = (
        "import atexit, os, signal, time\n"
        "from tal_jax.extraction import process_pool\n"
        "process_pool._start(None, None)\n"
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(5)))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("", "")
