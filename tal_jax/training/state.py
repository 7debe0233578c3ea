"""The state of training."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer, and the number of updates made."""

    params: Any
    opt_state: Any
    step: jax.Array  # [] int32
