"""Features by workers of a Ray cluster: the files of the local engine, whatever dies."""

import dataclasses
import os
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import on_ray
import pytest

from tal_jax import cli
from tal_jax.data.manifest import read_manifest
from tal_jax.data.ray_pool import RayWorkers
from tal_jax.data.shards import open_shards
from tal_jax.extraction import backbones, extract_folder

pytestmark = [on_ray.quiet, pytest.mark.slow]
pytest.importorskip("ray")
upath = pytest.importorskip("upath")


@dataclasses.dataclass(frozen=True)
class Waits(backbones.Signal):
    """`signal`, which waits once to be killed in the middle of a recording."""

    place: str = ""
    name = "waits"

    @property
    def options(self):
        return {key: v for key, v in super().options.items() if key != "place"}

    def __call__(self, windows):
        waiting, machine = Path(self.place, "waiting"), Path(self.place, "machine")
        if len(windows) == 16 and not waiting.exists():  # no measurement of the cost
            if machine.exists() and not _is_on(machine.read_text()):
                while not waiting.exists():  # until the machine that is to be lost has begun
                    time.sleep(0.1)
            elif _is_first(waiting):
                time.sleep(300)
        return backbones.Signal.__call__(self, windows)


def _is_on(machine):
    import ray

    return ray.get_runtime_context().get_node_id() == machine


def _is_first(waiting):
    """Whether this process is the one that is to be killed, whose number the file gets."""
    try:
        with open(waiting, "x") as file:
            file.write(f"{os.getpid()}")
    except FileExistsError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Deadly(backbones.Signal):
    """`signal`, which ends its process at large values, as a fault of a decoder does."""

    name = "deadly"

    def __call__(self, windows):
        if windows.max() > 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return backbones.Signal.__call__(self, windows)


def write_tables(folder, count=6, offsets=()):
    folder.mkdir()
    for number in range(count):
        values = np.random.default_rng(number).normal(size=(900 + 50 * number, 3))
        values += dict(offsets).get(number, 0)
        table = np.column_stack([np.arange(len(values)) / 50, values])
        header = "time_s,ax,ay,az"
        path = folder / f"r{number}.csv"
        np.savetxt(path, table, delimiter=",", header=header, comments="", fmt="%.9g")
    return folder


@pytest.fixture(scope="module")
def ray():
    with on_ray.cluster(__name__) as ray:
        yield ray


@pytest.fixture
def waits(tmp_path):
    """A backbone that waits to be killed, and the files that it should make."""
    source, place = write_tables(tmp_path / "in"), tmp_path / "place"
    place.mkdir()
    backbone = Waits(fps=50.0, window=50, stride=25.0, place=str(place))
    (place / "waiting").touch()
    for shards in (None, 2):
        extract_folder([source], tmp_path / f"wanted{shards}", backbone, workers=1, shards=shards)
    (place / "waiting").unlink()
    return backbone, place


def when_waiting(place, act):
    """Calls a function with the process that waits, in a thread."""

    def watch():
        waiting = place / "waiting"
        while not (waiting.exists() and waiting.read_text()):
            time.sleep(0.05)
        act(int(waiting.read_text()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("shards", [None, 2])
def test_a_killed_worker_costs_time_only(ray, waits, tmp_path, shards):
    (backbone, place), lines = waits, []
    killed = []
    thread = when_waiting(place, lambda process: killed.append(os.kill(process, signal.SIGKILL)))
    summary = extract_folder(
        [tmp_path / "in"],
        tmp_path / "out",
        backbone,
        ray=RayWorkers(),
        shards=shards,
        report=lines.append,
    )
    thread.join(10)
    assert killed and not summary.failed and len(summary.done) == 6
    assert on_ray.files_of(tmp_path / "out") == on_ray.files_of(tmp_path / f"wanted{shards}")
    assert sum("is done again by another one" in line for line in lines) == 1


def test_a_recording_that_kills_its_workers_fails_alone(ray, tmp_path):
    source, backbone = write_tables(tmp_path / "in", offsets={2: 200}.items()), Deadly()
    summary = extract_folder([source], tmp_path / "out", backbone, ray=RayWorkers())
    [(path, reason)] = summary.failed
    assert path == str(source / "r2.csv") and reason.startswith(f"{path}: 3 processes died with it")
    assert sorted(summary.done) == ["r0", "r1", "r3", "r4", "r5"]
    assert sorted(read_manifest(tmp_path / "out").recordings) == sorted(summary.done)


def test_a_stopped_extraction_is_resumed(ray, waits, tmp_path):
    backbone, place = waits
    (place / "waiting").touch()

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    command = {"ray": RayWorkers(), "shards": 2}
    with pytest.raises(KeyboardInterrupt):
        extract_folder([tmp_path / "in"], tmp_path / "out", backbone, counted=stop, **command)
    begun = {path.name for path in (tmp_path / "out").iterdir()}
    assert not any(name.endswith((".tmp", ".lock")) for name in begun)
    summary = extract_folder([tmp_path / "in"], tmp_path / "out", backbone, **command)
    assert len(summary.skipped) >= 2 and len(summary.done) + len(summary.skipped) == 6
    assert on_ray.files_of(tmp_path / "out") == on_ray.files_of(tmp_path / "wanted2")
    lines = []
    again = extract_folder(
        [tmp_path / "in"], tmp_path / "out", backbone, report=lines.append, **command
    )
    assert len(again.skipped) == 6 and not lines  # not even a worker


def test_the_command_with_an_archive_and_a_poisoned_file(ray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = write_tables(Path("in"), 3)
    (source / "bad.csv").write_text("rubbish")
    with zipfile.ZipFile("all.zip", "w") as archive:
        archive.write(write_tables(Path("more"), 5) / "r4.csv", "far/r4.csv")
    address = f"zip://far::{tmp_path}/all.zip"
    options = [address, "--backbone", "signal", "--shards", "2"]
    for engine, output in (("local", "one"), ("ray", "other")):
        arguments = ["extract", "in", *options, "--output", output, "--engine", engine]
        assert cli.main(arguments) == 1
        out, err = capsys.readouterr()
        assert f"{output}: 4 recordings extracted, 0 unchanged, 1 failed" in out
        assert err.count("\n") == 1 and err.startswith("tal-jax: error: in/bad.csv: no column")
        assert ("ray: 2 workers" in out) == (engine == "ray")
    assert on_ray.files_of(Path("one")) == on_ray.files_of(Path("other"))
    far = open_shards("one")["r4"].entry
    assert far.source == f"zip://far/r4.csv::{tmp_path}/all.zip"
    assert cli.main(["extract", "in", *options, "--output", "other", "--engine", "ray"]) == 1
    assert "0 recordings extracted, 4 unchanged, 1 failed" in capsys.readouterr().out
    refused = ["extract", "in", "--output", "x", "--backbone", "signal", "--worker-cpus", "1"]
    assert cli.main(refused) == 2
    assert "--worker-cpus is of workers of Ray" in capsys.readouterr().err
    assert cli.main([*refused[:-1], "9", "--engine", "ray"]) == 2
    assert "a worker takes 9 CPUs" in capsys.readouterr().err and not Path("x").exists()


def test_a_killed_machine_costs_time_only(waits, tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    backbone, place = waits
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    size = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=size)
    del size["include_dashboard"]
    try:
        lost = cluster.add_node(**size)
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        (place / "machine").write_text(lost.node_id)
        thread = when_waiting(place, lambda _: cluster.remove_node(lost, allow_graceful=False))
        lines = []
        summary = extract_folder(
            [tmp_path / "in"],
            tmp_path / "out",
            backbone,
            ray=RayWorkers(),
            shards=2,
            report=lines.append,
        )
        thread.join(10)
        assert not thread.is_alive() and not ray.is_initialized()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lines[0] == "ray: 2 workers, each with 1 CPU; in all 2 machines, 2 CPUs, 0 GPUs"
    assert sum("is done again by another one" in line for line in lines) == 1, lines
    assert not summary.failed and len(summary.done) == 6
    assert on_ray.files_of(tmp_path / "out") == on_ray.files_of(tmp_path / "wanted2")
