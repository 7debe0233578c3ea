"""Ctrl+C in the command line, inside compiled code too, and what else ends a process well."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tal_jax import cli
from tal_jax.cli import interrupts

# A command whose work is one call into C, which holds Python's handler back.
_IN_C = """
    import hashlib, sys, time
    from tal_jax import cli

    def work(arguments):
        print("begun", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", {iterations})
        time.sleep(60)  # KeyboardInterrupt arrives here

    cli.train._train = work
    sys.argv = ["tal-jax", "train", "--config", "quickstart", "--workdir", "w"]
    cli.run()
"""
# A compilation of half a minute.
_COMPILING = """
    import sys
    import jax, jax.numpy as jnp
    from tal_jax import cli

    def work(arguments):
        def slow(x):
            for i in range(700):
                x = jnp.sort(jnp.sin(x @ x + i), axis=i % 2)
            return x

        lowered = jax.jit(slow).lower(jnp.ones((64, 64)))
        print("begun", flush=True)
        lowered.compile()

    cli.train._train = work
    sys.argv = ["tal-jax", "train", "--config", "quickstart", "--workdir", "w"]
    cli.run()
"""


def _start(code, **environment):
    # As from a terminal: a background job of a shell ignores SIGINT.
    reset = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-c", reset + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def _interrupt(process, *after_s):
    assert process.stdout.readline() == "begun\n"
    for pause_s in after_s:
        time.sleep(pause_s)
        process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=120)
    return process.returncode, time.monotonic() - began, errors


def test_once_waits_for_the_call_under_way():
    process = _start(_IN_C.format(iterations=8_000_000))  # some seconds
    code, _, errors = _interrupt(process, 0.2)
    assert code == interrupts.EXIT_CODE
    assert errors == f"{interrupts.WAITING}\n{interrupts.STOPPED}\n"


def test_twice_stops_at_once():
    process = _start(_IN_C.format(iterations=2**31 - 1))  # far longer than the test
    code, took_s, errors = _interrupt(process, 0.2, 1.5)
    assert code == interrupts.EXIT_CODE and took_s < 5
    assert errors == f"{interrupts.WAITING}\n{interrupts.STOPPED}\n"


def test_python_code_stops_at_once():
    process = _start(_IN_C.format(iterations=1))
    code, took_s, errors = _interrupt(process, 0.2)
    assert code == interrupts.EXIT_CODE and took_s < 5
    assert errors == f"{interrupts.STOPPED}\n"


@pytest.mark.slow
def test_while_xla_compiles(tmp_path):
    """XLA goes on in its threads, and the end of the interpreter would free what they use."""
    process = _start(_COMPILING, JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    code, _, errors = _interrupt(process, 1.0)
    assert code == interrupts.EXIT_CODE
    assert errors.endswith(f"{interrupts.STOPPED}\n")


def test_a_fault_keeps_its_traceback_and_says_what_to_do():
    code = """
        import sys
        from tal_jax import cli
        cli.train._train = lambda arguments: [][1]
        sys.argv = ["tal-jax", "train", "--config", "quickstart", "--workdir", "w"]
        cli.run()
    """
    process = _start(code)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "IndexError: list index out of range\ntal-jax: this is a fault in tal_jax" in errors


def _info(**environment):
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    given = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-m", "tal_jax.cli", "doctor", "missing–folder"]
    return subprocess.run(command, capture_output=True, env=kept | given, timeout=60)


def test_a_terminal_that_is_not_utf8():
    done = _info(PYTHONIOENCODING="latin-1")
    assert done.returncode == 2
    assert done.stderr.startswith(b"tal-jax: error: ") and b"missing?folder" in done.stderr


def test_a_user_without_a_home(monkeypatch):
    """Containers with a user id that the system does not know: programs are compiled anew."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    cli._prepare_libraries()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
