"""One writer at a time, also among processes and after one of them was killed."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from tal_jax._errors import InputError
from tal_jax.data import locks


def _other(path, lock="one_writer"):
    """Another process that holds the lock."""
    code = f"""
        from tal_jax.data import locks
        with locks.{lock}({str(path)!r}, "training"):
            print("held", flush=True)
            input()
    """
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], **pipes)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("name, lock", [
    ("run.v2", "one_writer"),
    ("run/annotations.json", "one_writer_of_file"),
])  # fmt: skip
def test_a_second_writer_is_refused_with_the_first_ones_name(tmp_path, name, lock):
    path, hold = tmp_path / name, getattr(locks, lock)
    with _other(path, lock) as process:
        expected = f"{path} is in use by training, process {process.pid} on {socket.gethostname()}"
        with pytest.raises(InputError, match=expected), hold(path, "predicting"):
            pass
        process.communicate("\n", timeout=60)
    with hold(path, "predicting"):
        assert len(list(path.parent.rglob("*.lock"))) == 1
    assert not list(tmp_path.rglob("*.lock"))


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with _other(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
    assert list(tmp_path.rglob("*.lock"))
    with locks.one_writer(tmp_path, "training"):
        pass
    assert not list(tmp_path.rglob("*.lock"))


def test_it_is_released_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.one_writer(tmp_path, "training"):
        _ = 1 / 0
    with locks.one_writer(tmp_path, "training"):
        pass


def test_folders_and_files_have_locks_of_their_own(tmp_path):
    with (
        locks.one_writer(tmp_path, "extracting"),
        locks.one_writer_of_file(tmp_path / "a.json", "labelling"),
        locks.one_writer_of_file(tmp_path / "b.json", "labelling"),
        locks.one_writer(tmp_path / "folder", "training"),
    ):
        assert len(list(tmp_path.rglob("*.lock"))) == 4


def test_never_two_at_a_time(tmp_path):
    """Many threads take it in turns, each with a file of its own opened."""
    inside, most, entered = [], [0], [0]

    def work():
        for _ in range(200):
            try:
                with locks.one_writer(tmp_path, "training"):
                    inside.append(1)
                    most[0], entered[0] = max(most[0], len(inside)), entered[0] + 1
                    inside.pop()
            except InputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and entered[0] > 10


def test_a_file_system_without_locks_says_so(tmp_path, monkeypatch, capsys):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_):
        raise OSError(locks._UNSUPPORTED[0], "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locks.one_writer(tmp_path, "training"):
        pass
    assert "has no locks" in capsys.readouterr().err
