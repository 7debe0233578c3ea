"""Multi-process (multi-host) communication.

Each process of `jax.distributed` has its own devices and reads its share of the data. The primary
process alone reads and writes the work directory and broadcasts the results. With a single process
everything here is a plain call.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import numpy as np

from tal_jax._errors import InputError

_T = TypeVar("_T")


def initialize(where: str) -> None:
    """Joins the other processes; call it before anything uses a device.

    `where` is `"HOST:PORT,COUNT,INDEX"`, the address of the first process, how many there are and
    which one this is; or `"auto"` on a cluster that JAX detects (Slurm, TPU).

    Raises:
      InputError: if it is neither, or they cannot be reached.
    """
    parts = where.split(",")
    known = where == "auto" or (len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit())
    if not known or (where != "auto" and not int(parts[2]) < int(parts[1])):
        raise InputError(f"processes {where!r}; expected auto, or such as 10.0.0.1:1234,4,0")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        if where == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(parts[0], int(parts[1]), int(parts[2]))
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"processes {where!r}: they cannot be joined ({line})") from error


def is_death_of_another(error: Exception) -> bool:
    """Whether an error comes from another process of the run that ended."""
    return count() > 1 and any(name in str(error) for name in _LOST)


def is_primary() -> bool:
    """Whether this is the process that reads and writes the work directory."""
    return jax.process_index() == 0


def count() -> int:
    """How many processes there are."""
    return jax.process_count()


def host_shard(items: Iterable[_T]) -> list[_T]:
    """This process's share of some items: every n-th, for n processes."""
    return list(items)[jax.process_index() :: count()]


# In errors of communication: of Gloo on CPUs, NCCL on GPUs, and of JAX's coordination service.
_LOST = ("Gloo", "NCCL", "coordination service", "heartbeat")
# Exceptions of the primary process that are raised in all processes.
_SHARED = {"OSError": OSError, "InputError": InputError, "ValueError": ValueError}


def on_primary(function: Callable[..., _T], *args: Any) -> _T:
    """Calls a function in the primary process and returns its result in all of them.

    The function may read and write files, and returns values that JSON can hold. What it raises is
    raised in every process, so that none of them waits for ever: errors of a user as they are,
    others in the other processes as a `RuntimeError`.
    """
    if count() == 1:
        return function(*args)
    payload, error = b"{}", None
    if is_primary():
        try:
            payload = json.dumps({"result": function(*args)}, default=list).encode()
        except Exception as raised:
            error = raised
            payload = json.dumps(_described(raised)).encode()
    reply = json.loads(all_gather_bytes(payload)[0])
    if error is not None:
        raise error
    if "error" in reply:
        raise _SHARED.get(reply["kind"], RuntimeError)(reply["error"])
    return reply["result"]


def _described(error: Exception) -> dict[str, str]:
    """An exception for the other processes."""
    for name, kind in _SHARED.items():
        if isinstance(error, kind):
            return {"error": str(error), "kind": name}
    return {"error": f"in the first process: {error!r}", "kind": ""}


def all_gather(parts: dict[str, Any]) -> dict[str, Any]:
    """The union of all processes' dictionaries, whose values JSON can hold as lists."""
    if count() == 1:
        return parts
    merged = {}
    for part in all_gather_bytes(json.dumps(parts, default=list).encode()):
        merged |= json.loads(part)
    return merged


def all_gather_bytes(payload: bytes) -> list[bytes]:
    """The payload of every process, in their order."""
    if count() == 1:
        return [payload]
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32)).ravel()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(payload)] = np.frombuffer(payload, np.uint8)
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def share_arrays(tree: _T) -> _T:
    """The primary process's host arrays, in all processes."""
    if count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)
