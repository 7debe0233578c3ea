"""Sharding of one program over all devices, of one process or of several.

Devices form a mesh of two axes: `DATA` splits the recordings of a batch, `LAYER` the widths of the
layers if `train.layer_shards` is set. A single device has no mesh.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tal_jax._errors import InputError

DATA, LAYER = "data", "layer"


def make_mesh(batch_size: int, *, layer_shards: int = 1) -> Mesh | None:
    """The mesh of a training run, None for a single device.

    Of one process's devices as many are used as split a batch evenly; of several processes' all.
    The widths of the layers are split over `layer_shards` devices.

    Raises:
      InputError: if the devices cannot be shared out like that.
    """
    devices = jax.devices()
    if len(devices) % layer_shards:
        raise InputError(
            f"train.layer_shards={layer_shards}; expected a divisor of the {len(devices)} devices"
        )
    shards = len(devices) // layer_shards
    fitting = max(size for size in range(1, shards + 1) if batch_size % size == 0)
    if jax.process_count() > 1 and fitting < shards:
        raise InputError(
            f"train.batch_size={batch_size}; expected a multiple of {shards}, since "
            f"{len(devices)} devices of {jax.process_count()} processes split a batch"
        )
    size = fitting * layer_shards
    return None if size == 1 else _mesh((fitting, layer_shards), devices[:size])


def local_mesh() -> Mesh | None:
    """All devices of this process on the axis `DATA`, None for a single one."""
    devices = jax.local_devices()
    return None if len(devices) == 1 else _mesh((len(devices), 1), devices)


def _mesh(shape: tuple[int, int], devices: list[Any]) -> Mesh:
    # Auto axes: under the newer default, gathers and scatters on sharded batches fail.
    return jax.make_mesh(shape, (DATA, LAYER), axis_types=(AxisType.Auto,) * 2, devices=devices)


def num_shards(mesh: Mesh | None) -> int:
    """The number of data shards: devices that the recordings of a batch are split over."""
    return 1 if mesh is None else mesh.shape[DATA]


def local_shards(mesh: Mesh | None) -> list[int]:
    """The data shards on this process's devices."""
    if mesh is None:
        return [0]
    first = mesh.devices[:, 0]
    return [shard for shard, one in enumerate(first) if one.process_index == jax.process_index()]


def split(tree: Any, mesh: Mesh | None, *, axis: int = 0) -> Any:
    """Puts host arrays onto the devices, split over the data shards along an axis.

    Every process passes the parts of its `local_shards`, one after another.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, P(*[None] * axis, DATA))
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree
    )


def map_shards(function: Callable, mesh: Mesh | None, in_specs: Any, out_specs: Any) -> Callable:
    """Runs a function on each data shard with no cross-device communication (`shard_map`).

    For loops whose length depends on the data: split by the compiler, every iteration would wait
    for all devices.
    """
    if mesh is None:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def layer_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    """How a parameter is split: the width of a layer, which is its last axis or else its first.

    >>> mesh = _mesh((1, 1), jax.devices()[:1])
    >>> tuple(layer_spec((6144, 2048), mesh))
    ()
    """
    shards = mesh.shape[LAYER]
    # Narrower pieces cost more in communication than they save.
    splits = [size % shards == 0 and size >= 128 * shards for size in shape]
    if shards == 1 or not any(splits):
        return P()
    if splits[-1]:
        return P(*[None] * (len(shape) - 1), LAYER)
    return P(LAYER) if splits[0] else P()


def constrain_layers(tree: Any, mesh: Mesh | None) -> Any:
    """Keeps parameters, inside a compiled program, split as `place_layers` puts them."""
    if mesh is None:
        return tree

    def one(leaf):
        return jax.lax.with_sharding_constraint(
            leaf, NamedSharding(mesh, layer_spec(leaf.shape, mesh))
        )

    return jax.tree.map(one, tree)


def place_layers(tree: Any, mesh: Mesh | None) -> Any:
    """Puts parameters, the same in every process, onto the mesh."""
    return _place(tree, mesh, lambda leaf: P() if mesh is None else layer_spec(leaf.shape, mesh))


def on_cpu(mesh: Mesh | None) -> bool:
    """Whether a program that is compiled for the mesh runs on CPUs."""
    if mesh is not None:
        return mesh.devices.flat[0].platform == "cpu"
    # A device, the name of a platform, or None.
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return getattr(device, "platform", device or jax.default_backend()) == "cpu"


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Puts arrays, the same in every process, onto every device."""
    return _place(tree, mesh, lambda leaf: P())


def _place(tree: Any, mesh: Mesh | None, spec_of: Callable) -> Any:
    if mesh is None:
        return jax.device_put(tree)

    def one(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)))
        sharding = NamedSharding(mesh, spec_of(leaf))
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(one, tree)


def fetch(tree: Any, mesh: Mesh | None) -> Any:
    """Host copies of arrays on a mesh, whole in every process."""
    if mesh is not None:
        tree = _gather(NamedSharding(mesh, P()))(tree)
        tree = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
    return jax.device_get(tree)


@functools.lru_cache(maxsize=8)
def _gather(sharding):
    return jax.jit(lambda tree: tree, out_shardings=sharding)
