"""One run over several processes, each with a device of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from tal_jax._errors import InputError
from tal_jax.data import files
from tal_jax.data.projection import principal_components
from tal_jax.runs import detector_stage
from tal_jax.runs.fit import fit
from tal_jax.runs.workdir import load_run
from tal_jax.training import processes


def test_a_single_process_is_told_nothing():
    assert processes.is_primary() and processes.host_shard("abc") == ["a", "b", "c"]
    assert processes.on_primary(lambda value: value + 1, 1) == 2
    assert processes.all_gather({"a": 1}) == {"a": 1}
    assert processes.all_gather_bytes(b"x") == [b"x"]


@pytest.fixture
def two(monkeypatch):
    """Runs a function as each of two processes; the second hears what the first one sends."""
    sent = []

    def gather(payload):
        sent.append(payload)
        return [sent[0], payload]

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "all_gather_bytes", gather)

    def run(function):
        sent.clear()
        for index in range(2):
            monkeypatch.setattr(processes.jax, "process_index", lambda index=index: index)
            yield function

    return run


def test_the_projection_of_a_second_stage_is_the_same_in_all(two, tmp_path, monkeypatch):
    config = toy.config()
    config.detector.components = 3
    recordings = toy.dataset(toy.write(tmp_path / "data", num_train=2, num_test=1))
    member = detector_stage.Member(recordings, config, tmp_path / "run", "", None)
    want, given = principal_components(recordings.train, 3), []
    monkeypatch.setattr(detector_stage, "_pseudo_segments", lambda *_: {})
    monkeypatch.setattr(detector_stage, "_prepare", lambda *parts: given.extend(parts[2]) or [])
    monkeypatch.setattr(detector_stage, "_train", lambda *_: [])
    for call in two(lambda: detector_stage.train_stage([member], print)):
        with pytest.raises(ValueError, match="zip"):  # of no networks
            call()
    assert len(given) == 2
    for found in given:
        np.testing.assert_array_equal(found.mean, want.mean)
        np.testing.assert_array_equal(found.components, want.components)


def _fail():
    raise KeyError("what no user can mend")


def _refuse():
    raise InputError("refused")


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        (_fail, (KeyError, RuntimeError)),
        (_refuse, (InputError, InputError)),
        (object, (TypeError, RuntimeError)),  # which JSON does not hold
    ],
)
def test_an_exception_of_the_first_process_ends_all(two, function, kinds):
    calls = two(lambda: processes.on_primary(function))
    for call, kind in zip(calls, kinds, strict=True):
        with pytest.raises(Exception, match="refused|mend|not iterable") as caught:
            call()
        assert caught.type is kind


@pytest.mark.parametrize(
    "where", ["", "localhost:1", "localhost:1,2", "localhost:1,2,x", "h:1,2,2"]
)
def test_wrong_addresses_are_refused(where):
    with pytest.raises(ValueError, match="expected auto, or such as 10.0.0.1:1234,4,0"):
        processes.initialize(where)


_SCRIPT = """
import sys
from tal_jax import cli
sys.path.insert(0, sys.argv.pop(1))
sys.exit(cli.main(sys.argv[1:]))
"""

_CONFIG = """
import toy
def get_config(arg=None):
    config = toy.config({data!r})
    config.train.rounds, config.train.steps = 1, 30
    config.stages = ("rounds", "detector")
    config.detector.update(components=4, width=8, steps=15, batch_size=2)
    return config
"""


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _begin(folder, workdir, *, count):
    """Starts the processes of a run; their output goes to files beside the work directory."""
    address = f"127.0.0.1:{_free_port()}"
    started = []
    for index in range(count):
        arguments = ["train", "--config", str(folder / "config.py"), "--workdir", str(workdir)]
        arguments += ["--processes", f"{address},{count},{index}"] if count > 1 else []
        log = open(f"{workdir}.{index}.log", "ab")  # noqa: SIM115 (the child's)
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", _SCRIPT, os.path.dirname(toy.__file__), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()
    return started


def _end(started, workdir):
    for index, process in enumerate(started):
        assert process.wait(900) == 0, open(f"{workdir}.{index}.log").read()[-3000:]


def _results(workdir):
    proposals = files.read_json(workdir / "round_0" / "proposals_train.json")["results"]
    detections = files.read_json(workdir / "all_rounds" / "detections_test.json")["results"]
    return load_run(workdir), proposals, detections


@pytest.mark.slow
def test_two_processes_and_a_kill(tmp_path):
    """Both stages in two processes, killed and begun again, find what this one finds alone."""
    data = toy.write(tmp_path / "data")
    (tmp_path / "config.py").write_text(_CONFIG.format(data=str(data)))
    workdir, alone = tmp_path / "killed", tmp_path / "alone"
    started = _begin(tmp_path, workdir, count=2)
    while not (workdir / "round_0" / "checkpoints" / "15").exists():
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)
    began = time.monotonic()
    started[1].send_signal(signal.SIGKILL)
    # The other one cannot go on, and does not wait for ever.
    assert started[0].wait(200) != 0
    assert time.monotonic() - began < 30
    output = Path(f"{workdir}.0.log").read_text()
    assert output.endswith("another process of this run ended; begin all of them again to go on\n")
    assert "Traceback" not in output
    started[1].wait()
    assert not (workdir / "evaluation.json").exists()
    _end(_begin(tmp_path, workdir, count=2), workdir)

    config = toy.config(data)
    config.train.rounds, config.train.steps = 1, 30
    config.stages = ("rounds", "detector")
    config.detector.update(components=4, width=8, steps=15, batch_size=2)
    fit(toy.dataset(data), config, workdir=alone, report=lambda line: None)
    got, want = _results(workdir), _results(alone)
    params = [(found[0].params, found[0].detector.params) for found in (got, want)]
    for ours, theirs in zip(*map(jax.tree.leaves, params), strict=True):
        # The same but for rounding, which depends on how a sum is shared out.
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    for found, expected in zip(got[1:], want[1:], strict=True):
        assert found.keys() == expected.keys()
        for name in found:
            scores, others = ([one["score"] for one in r[name]] for r in (found, expected))
            np.testing.assert_allclose(scores, others, rtol=1e-3, atol=1e-4)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len((alone / "metrics.jsonl").read_text().splitlines())
