"""A batch split over devices gives the same losses and the same network, in other processes."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from tal_jax.training import sharding

# Trains two blocks on fake CPU devices; prints losses, norms of the parameters and collectives.
_SCRIPT = """
import json, re, sys
import jax, numpy as np
import toy
from tal_jax.training.prepare import prepare_round
from tal_jax.config import check_config
from tal_jax import methods
from tal_jax.training import input_pipeline, sharding, update

data, layer_shards, features = sys.argv[1], int(sys.argv[2]), sys.argv[3]
config = toy.config(data)
config.train.update(batch_size=8, rounds=1, steps=10, jitter=True, features=features)
config.train.layer_shards = layer_shards
config.model.widths = (256,)
dataset, config = toy.dataset(data), check_config(config)
packed = prepare_round(dataset, config, None)
mesh = sharding.make_mesh(8, layer_shards=layer_shards)
model = methods.method_of(config).make_model(config, 2)
state = jax.device_get(update.init_state(model, config, toy.DIM, jax.random.key(1)))
state = sharding.place_layers(state, mesh)
options = dict(lengths=packed.lengths, key=jax.random.key(2), mesh=mesh)
losses = []
given = model, config, packed.timeline, dataset.train
with input_pipeline.open_pipeline(*given, **options) as advance:
    for step in (0, 5):
        state, metrics = advance(state, step, 1)
        losses.append({name: float(value) for name, value in metrics.items()})
specs = [str(tuple(leaf.sharding.spec)) for leaf in jax.tree.leaves(state.params)] if mesh else []
params = [np.asarray(leaf).ravel()[::37].tolist() for leaf in
          jax.tree.leaves(sharding.fetch(state.params, mesh))]
print(json.dumps({"losses": losses, "params": params, "specs": specs}))
"""


def _train(data, *, count, layer_shards=1, features="resident"):
    flags = f"--xla_force_host_platform_device_count={count}"
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(data), str(layer_shards), features],
        env=os.environ
        | {"XLA_FLAGS": flags, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _assert_close(got, want):
    for ours, theirs in zip(got["losses"], want["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    for ours, theirs in zip(got["params"], want["params"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="module")
def single(data):
    return _train(data, count=1)


@pytest.mark.slow
def test_devices_share_a_batch(data, single):
    _assert_close(_train(data, count=8), single)


@pytest.mark.slow
def test_devices_share_layers_and_read_their_own_recordings(data, single):
    got = _train(data, count=4, layer_shards=2, features="streamed")
    _assert_close(got, single)
    assert "(None, 'layer')" in got["specs"]


def _mesh_of(monkeypatch, count, *, batch_size=8, layer_shards=1):
    made = []
    monkeypatch.setattr(jax, "devices", lambda: list(range(count)))
    monkeypatch.setattr(sharding, "_mesh", lambda shape, chosen: made.append((shape, len(chosen))))
    sharding.make_mesh(batch_size, layer_shards=layer_shards)
    return made[0] if made else None


def test_devices_are_shared_out(monkeypatch):
    assert _mesh_of(monkeypatch, 1) is None
    assert _mesh_of(monkeypatch, 4) == ((4, 1), 4)
    assert _mesh_of(monkeypatch, 6) == ((4, 1), 4)  # what splits a batch of eight evenly
    assert _mesh_of(monkeypatch, 8, layer_shards=2) == ((4, 2), 8)
    with pytest.raises(ValueError, match="train.layer_shards=3; expected a divisor of the 4"):
        _mesh_of(monkeypatch, 4, layer_shards=3)


def test_a_batch_that_processes_cannot_share(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match="train.batch_size=8; expected a multiple of 6"):
        _mesh_of(monkeypatch, 6)


def test_without_a_mesh_nothing_is_split():
    tree = {"a": np.arange(3)}
    for place in (sharding.replicate, sharding.place_layers, sharding.split):
        np.testing.assert_array_equal(place(tree, None)["a"], tree["a"])
    assert sharding.local_shards(None) == [0] and sharding.num_shards(None) == 1
    assert sharding.map_shards(len, None, None, None) is len
