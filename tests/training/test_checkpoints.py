"""Checkpoints: the latest and the best, and a disk that is full."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax._errors import InputError
from tal_jax.training import checkpoints


def _steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_latest_alone(tmp_path):
    with checkpoints.open_checkpoints(tmp_path) as saved:
        assert saved.restore({"params": jnp.zeros(3)}) is None
        assert saved.restore_params() is None and saved.latest_metrics() == {}
        for step in (1, 2, 3):
            saved.save(step, {"params": jnp.full(3, step)})
    assert _steps(tmp_path) == [3]
    with checkpoints.open_checkpoints(tmp_path) as saved:
        np.testing.assert_array_equal(saved.restore_params(), [3, 3, 3])
        np.testing.assert_array_equal(saved.restore({"params": jnp.zeros(3, int)})["params"], 3)


def test_latest_and_best(tmp_path):
    with checkpoints.open_checkpoints(tmp_path, keep_best=True) as saved:
        for step, criterion in ((1, 0.1), (2, 0.7), (3, 0.3), (4, 0.2)):
            saved.save(step, {"params": jnp.full(3, step)}, metrics={"criterion": criterion})
    assert _steps(tmp_path) == [2, 4]
    with checkpoints.open_checkpoints(tmp_path, keep_best=True) as saved:
        assert saved.restore_params(which=checkpoints.BEST).tolist() == [2, 2, 2]
        assert saved.restore_params(which=checkpoints.LATEST).tolist() == [4, 4, 4]
        assert saved.latest_metrics() == {"criterion": 0.2}


def test_parameters_alone(tmp_path):
    """What a round ended with, whatever its checkpoints are; of older rounds from these."""
    folder = tmp_path / "round_0" / "checkpoints"
    params = {"b": {"kernel": np.ones((2, 3), np.float32)}, "a": np.zeros(2, np.float32)}
    with checkpoints.open_checkpoints(folder) as saved:
        saved.save(1, {"params": params})
    older = checkpoints.read_params(folder, which=checkpoints.LATEST)
    np.testing.assert_array_equal(older["b"]["kernel"], params["b"]["kernel"])
    checkpoints.write_params(folder, jax.tree.map(lambda array: array + 1, params))
    found = checkpoints.read_params(folder, which=checkpoints.LATEST)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    np.testing.assert_array_equal(found["b"]["kernel"], np.full((2, 3), 2))
    (tmp_path / "round_0" / "params.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"params\.npz"):
        checkpoints.read_params(folder, which=checkpoints.LATEST)


_FULL = """
import pathlib, resource, signal, sys
import numpy as np
from tal_jax.training import checkpoints
folder = pathlib.Path(sys.argv[1])
state = {"params": np.random.default_rng(0).normal(size=100_000)}
with checkpoints.open_checkpoints(folder) as saved:
    saved.save(1, {"params": np.zeros(3)})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        saved.save(2, state)
    except OSError as error:
        print(error)
with checkpoints.open_checkpoints(folder) as saved:
    print(saved.restore_params())
"""


def test_full_disk(tmp_path):
    """A limit on the size of files stands for it: writing fails in the middle."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    message, params = done.stdout.splitlines()
    assert message.startswith(f"cannot write checkpoint 2 in {tmp_path}: ")
    assert "File too large" in message and "continues from the checkpoint before" in message
    assert params == "[0. 0. 0.]"
