"""What several processes of one run tell each other.

Each process of `jax.distributed` holds its own devices and reads what it needs of the data. Only
the first one touches the work directory; here all learn what it found there. With a single process
everything here is a plain call.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import numpy as np

_T = TypeVar("_T")


def start(where: str) -> None:
    """Joins the other processes; to be called before anything touches a device.

    Args:
      where: `"HOST:PORT,COUNT,INDEX"`, the address of the first process, how many there are and
        which one this is; or `"auto"` on a cluster that tells (Slurm, TPU).

    Raises:
      ValueError: if it is neither, or they cannot be reached.
    """
    parts = where.split(",")
    known = where == "auto" or (len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit())
    if not known or (where != "auto" and not int(parts[2]) < int(parts[1])):
        raise ValueError(f"processes {where!r}; expected auto, or such as 10.0.0.1:1234,4,0")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        if where == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(parts[0], int(parts[1]), int(parts[2]))
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"processes {where!r}: they cannot be joined ({line})") from error


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def count() -> int:
    """How many processes there are."""
    return jax.process_count()


def mine(items: Iterable[_T]) -> list[_T]:
    """This process's share of some work: every n-th piece, for n processes."""
    return list(items)[jax.process_index() :: count()]


def once(function: Callable[..., _T], *args: Any) -> _T:
    """Calls a function in the first process and returns its result in all of them.

    Args:
      function: may read and write files; returns values that JSON can hold.
      *args: its arguments.

    Raises:
      ValueError: in every process, if the function raised it in the first.
      OSError: likewise.
    """
    if count() == 1:
        return function(*args)
    told, error = {}, None
    if is_first():
        try:
            told = {"result": function(*args)}
        except (ValueError, OSError) as raised:
            error = raised
            told = {"error": str(raised), "of_files": isinstance(raised, OSError)}
    told = json.loads(gather_bytes(json.dumps(told).encode())[0])
    if "error" in told:
        kind = OSError if told["of_files"] else ValueError
        raise error or kind(told["error"])
    return told["result"]


def gather(parts: dict[str, Any]) -> dict[str, Any]:
    """The union of what the processes hold, dictionaries of values that JSON can hold."""
    if count() == 1:
        return parts
    merged = {}
    for part in gather_bytes(json.dumps(parts).encode()):
        merged |= json.loads(part)
    return merged


def gather_bytes(payload: bytes) -> list[bytes]:
    """What every process holds, in their order."""
    if count() == 1:
        return [payload]
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32)).ravel()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(payload)] = np.frombuffer(payload, np.uint8)
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def share_arrays(tree: _T) -> _T:
    """The first process's host arrays, in all processes."""
    if count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)
