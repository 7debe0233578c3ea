"""Workers of a Ray cluster: results, tries, refusals, and how many there are."""

import functools
import os
import signal
import sys
import time
from pathlib import Path

import on_ray
import pytest

from tal_jax._errors import InputError
from tal_jax.data import locks, ray_pool
from tal_jax.data.ray_pool import Death, RayPool, RayWorkers

MACHINES = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}]


# --- without Ray ---


@pytest.mark.parametrize("wanted, cpus, gpu, machines, found", [
    (RayWorkers(), 1.0, False, MACHINES, (1, 0, 24)),
    (RayWorkers(), None, True, MACHINES, (1, 1, 2)),  # a network: a GPU each
    (RayWorkers(), None, True, MACHINES[1:], (8, 0, 1)),  # or all of a machine
    (RayWorkers(), 2.0, True, [{"CPU": 1.0}], (1, 0, 1)),
    (RayWorkers(gpus=0.25), None, True, MACHINES, (1, 0.25, 8)),
    (RayWorkers(cpus=0.1), 1.0, False, [{"CPU": 1.0}], (0.1, 0, 10)),
    (RayWorkers(3, cpus=5), 1.0, False, MACHINES, (5, 0, 3)),
    (RayWorkers(cpus=0), 1.0, False, MACHINES, (0, 0, 24)),
    (RayWorkers(cpus=8, gpus=0), None, True, MACHINES, (8, 0, 3)),
])  # fmt: skip
def test_how_many_workers_there_are(wanted, cpus, gpu, machines, found):
    assert ray_pool._settle(wanted, machines, cpus, gpu=gpu) == found


@pytest.mark.parametrize("wanted, message", [
    (RayWorkers(cpus=17), "a worker takes 17 CPUs; expected .* 16 CPUs and 2 GPUs, 8 CPUs and 0"),
    (RayWorkers(gpus=3), "a worker takes 1 CPU and 3 GPUs; expected"),
    (RayWorkers(cpus=9, gpus=2, count=5), None),
])  # fmt: skip
def test_workers_that_do_not_fit_are_refused(wanted, message):
    if message is None:
        assert ray_pool._settle(wanted, MACHINES, 1.0, gpu=False) == (9, 2, 5)
        return
    with pytest.raises(InputError, match=message):
        ray_pool._settle(wanted, MACHINES, 1.0, gpu=False)


@pytest.mark.parametrize("values, message", [
    ({"count": 0}, "workers is 0, expected 1 or more"),
    ({"cpus": -1}, "cpus of a worker is -1, expected a number from 0"),
    ({"gpus": float("nan")}, "gpus of a worker is nan, expected a number from 0"),
    ({"gpus": 1.5}, "gpus of a worker is 1.5, expected a whole number above 1"),
])  # fmt: skip
def test_sizes_out_of_range(values, message):
    with pytest.raises(InputError, match=message):
        RayWorkers(**values)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'needs Ray; run pip install "tal_jax\[ray\]"'):
        ray_pool.connect()


# --- on a cluster of this process ---


def _add(state, progress, value):
    progress(1, 2)
    return state["offset"] + value, os.getpid()


def _die(state, progress, place):
    with open(place, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(state, progress):
    raise OSError(28, "full")


def _start():
    return {"offset": 10}


def _refuse():
    raise InputError("no weights here")


@pytest.fixture(scope="module")
def ray():
    with on_ray.cluster(__name__) as ray:
        yield ray


@pytest.fixture
def pool(ray, tmp_path):
    """Opens pools that write into a folder with a lock."""
    lines = []

    def opened(start=_start, wanted=RayWorkers()):  # noqa: B008
        return RayPool(start, wanted, tmp_path, cpus=1.0, gpu=False, report=lines.append)

    with locks.one_writer(tmp_path, "testing"):
        opened.lines = lines
        yield opened


@on_ray.quiet
@pytest.mark.slow
def test_calls_deaths_and_faults(pool, tmp_path):
    left_over = tmp_path / f".a.npy.{0:08x}.{1:08x}.123.tmp"  # of a process of another machine
    left_over.write_text("half")
    with pool() as one:
        assert one.workers == 2
        for number in range(9):
            one.put(number, _add, number)
        one.put("dead", _die, tmp_path / "tries")
        found = dict(one.results())
        death = found.pop("dead")
        assert isinstance(death, Death) and "3 processes died with it" in death.reason
        assert "\n" not in death.reason and (tmp_path / "tries").read_text() == "xxx"
        assert {key: value for key, (value, _) in found.items()} == {n: 10 + n for n in range(9)}
        one.put("later", _add, 1)
        assert [key for key, _ in one.results()] == ["later"] and list(one.results()) == []
        one.put("fault", _fail)
        with pytest.raises(OSError, match="full"):
            list(one.results())
    assert pool.lines[0] == "ray: 2 workers, each with 1 CPU; in all 1 machine, 2 CPUs, 0 GPUs"
    assert len(pool.lines) == 3 and all("dead is done again" in line for line in pool.lines[1:])
    assert sorted(os.listdir(tmp_path)) == [".tal_jax.lock", "tries"]


@on_ray.quiet
@pytest.mark.slow
def test_workers_that_do_not_start(pool):
    with pool(_refuse) as one:
        one.put("a", _add, 1)
        with pytest.raises(InputError, match="no weights here"):
            list(one.results())
    # A folder of a disk that the worker's machine does not have.
    with pool() as one:
        one._begin = ray_pool._Begin(_start, os.getcwd(), Path("/nowhere"), "a holder")
        one.put("a", _add, 1)
        with pytest.raises(InputError, match="/nowhere is not on the disk of .*; expected"):
            list(one.results())
    with pool(lambda: os.kill(os.getpid(), signal.SIGKILL)) as one:
        one.put("a", _add, 1)
        begin_s = time.monotonic()
        with pytest.raises(InputError, match="no worker starts: it was killed"):
            list(one.results())
        assert time.monotonic() - begin_s < 60
    with pytest.raises(InputError, match="a worker takes 3 CPUs; expected no more than .*: 2 CPUs"):
        pool(wanted=RayWorkers(cpus=3))


def _start_once(place):
    try:
        (place / "first").touch(exist_ok=False)
    except FileExistsError:
        with open(place / "others", "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"offset": 10}


def _add_later(state, progress, place, value):
    others, end_s = place / "others", time.monotonic() + 60
    while time.monotonic() < end_s and not (others.exists() and len(others.read_text()) == 3):
        time.sleep(0.1)
    time.sleep(2)  # until the third death is found
    return state["offset"] + value


@on_ray.quiet
@pytest.mark.slow
def test_a_machine_on_which_workers_do_not_start_costs_its_workers(pool, tmp_path):
    with pool(functools.partial(_start_once, tmp_path)) as one:
        for number in range(3):
            one.put(number, _add_later, tmp_path, number)
        assert dict(one.results()) == {0: 10, 1: 11, 2: 12}
        assert one.workers == 1
    [line] = pool.lines[1:]
    assert line == (
        "ray: a worker does not start: it was killed, possibly for lack of memory; goes on with 1"
    )
