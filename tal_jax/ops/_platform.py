# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The form of a computation that suits the platform which runs it.

JAX decides when a program is lowered, so both forms are traced, and an exported program has the
right one for each of its platforms. Forms inside of forms would be traced two, four, eight times;
here a choice inside of another follows it.
"""

import contextlib
import contextvars
from collections.abc import Callable, Generator
from typing import TypeVar

import jax

Tree = TypeVar("Tree")

# What is traced now runs on a CPU (True), elsewhere (False), or either (None).
_on_cpu: contextvars.ContextVar[bool | None] = contextvars.ContextVar("on_cpu", default=None)


def choose(*args: object, cpu: Callable[..., Tree], default: Callable[..., Tree]) -> Tree:
    """Returns `cpu(*args)` on a CPU, `default(*args)` on other platforms.

    >>> float(choose(2.0, cpu=lambda x: x + 1, default=lambda x: 1 + x))
    3.0
    """
    on_cpu = _on_cpu.get()
    if on_cpu is not None:
        return cpu(*args) if on_cpu else default(*args)

    def cpu_form(*args: object) -> Tree:
        with known(on_cpu=True):
            return cpu(*args)

    def default_form(*args: object) -> Tree:
        with known(on_cpu=False):
            return default(*args)

    return jax.lax.platform_dependent(*args, cpu=cpu_form, default=default_form)


@contextlib.contextmanager
def known(*, on_cpu: bool) -> Generator[None]:
    """While a program is traced that will run there and nowhere else: one form is traced.

    >>> def function(x):
    ...     return choose(x, cpu=jax.numpy.sin, default=jax.numpy.cos)
    >>> with known(on_cpu=True):
    ...     print(jax.make_jaxpr(function)(1.0))
    { lambda ; a:f32[]. let b:f32[] = sin a in (b,) }
    """
    token = _on_cpu.set(on_cpu)
    try:
        yield
    finally:
        _on_cpu.reset(token)
