"""Predictions by workers of a Ray cluster: the files of the local engine."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import on_ray
import pytest

from tal_jax import cli
from tal_jax.data import files

pytestmark = [on_ray.quiet, pytest.mark.slow]
pytest.importorskip("ray")


@pytest.fixture(scope="session")  # before the run is trained
def ray():
    with on_ray.cluster(__name__) as ray:
        yield ray


def _run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command(ray, toy_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    features = np.load(toy_run.data / "test_0.npy")
    for number, size in ((3, 190), (0, 140), (2, 60), (1, 170)):
        files.write_npy(Path("in", f"r{number}.npy"), features[:size])
    Path("in/bad.npy").write_bytes(b"no array")
    command = ["predict", "in", "--workdir", os.path.relpath(toy_run.workdir)]
    code, _, err = _run(capsys, *command, "--output", "one")
    assert code == 1
    by_ray = [*command, "--output", "other", "--engine", "ray"]
    code, out, err_of_ray = _run(capsys, *by_ray)
    assert (code, err_of_ray) == (1, err) and err.count("\n") == 1
    assert "ray: 1 worker, each with 2 CPUs" in out
    assert "other: 4 recordings predicted, 0 unchanged, 1 failed" in out
    wanted = on_ray.files_of(Path("one"))
    assert on_ray.files_of(Path("other")) == wanted and len(wanted) == 4 * 4 + 2

    # A killed worker, whose recording is done again; only what is missing is.
    for path in Path("other").glob("r[12].*"):
        path.unlink()
    Path("in/bad.npy").unlink()
    killed = []
    watch = threading.Thread(target=_kill_first_worker, args=(killed,), daemon=True)
    watch.start()
    code, out, _ = _run(capsys, *by_ray, "--worker-cpus", "1")
    watch.join(10)
    assert killed and code == 0 and "other: 2 recordings predicted, 2 unchanged, 0 failed" in out
    assert on_ray.files_of(Path("other")) == wanted

    code, out, _ = _run(capsys, *by_ray, "--merge-gap", "1", "--workers", "1")
    assert code == 0 and "4 recordings predicted, 0 unchanged" in out and " events" in out
    assert _run(capsys, *command, "--output", "one", "--merge-gap", "1")[0] == 0
    assert on_ray.files_of(Path("other")) == on_ray.files_of(Path("one"))

    code, _, err = _run(capsys, "predict", "in/r0.npy", *command[2:], "--engine", "ray")
    assert code == 2 and "in/r0.npy: a single file; expected several" in err
    code, _, err = _run(capsys, *command, "--workers", "2", "--output", "one")
    assert code == 2 and "--workers is of workers of Ray; expected --engine ray" in err


def _kill_first_worker(killed):
    """Kills a worker once it is there, when it opens the network or later."""
    while True:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "cmdline").read_bytes().startswith(b"ray::_Actor") and _is_ours(
                    folder
                ):
                    killed.append(int(folder.name))
                    os.kill(killed[0], signal.SIGKILL)
                    return
        time.sleep(0.02)


def _is_ours(process):
    """Whether a process, a folder in /proc, was started by this one or by one that it started."""
    number = int(process.name)
    while number not in (0, 1, os.getpid()):
        status = Path(f"/proc/{number}/status").read_text()
        number = int(status.partition("PPid:")[2].split()[0])
    return number == os.getpid()
