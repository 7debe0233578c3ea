# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Arguments of ops that fix shapes or the program, and compilation that knows them."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

Op = TypeVar("Op", bound=Callable[..., Any])


def static(*names: str) -> Callable[[Op], Op]:
    """Marks the static arguments of an op: they are its attribute `static_argnames`."""

    def mark(op: Op) -> Op:
        setattr(op, "static_argnames", names)  # noqa: B010  (functions have no such attribute)
        return op

    return mark


def jit(op: Callable[..., Any], **options: Any) -> Any:
    """Returns `jax.jit(op)` with the op's static arguments as such.

    >>> import jax.numpy as jnp
    >>> import tal_jax as tal
    >>> tal.reassign.static_argnames
    ('num_iters', 'closed_form')
    >>> tal.jit(tal.reassign)(jnp.ones((2, 1)), jnp.ones((1, 1)), num_iters=1).prototypes
    Array([[1.]], dtype=float32)

    Args:
      op: a public function of this package, or any other function.
      **options: of `jax.jit`.

    Returns:
      The compiled function; static arguments are to be passed as Python values.
    """
    return jax.jit(op, static_argnames=getattr(op, "static_argnames", None), **options)
