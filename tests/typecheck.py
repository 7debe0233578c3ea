"""The checker of annotations that tests/conftest.py gives to jaxtyping's import hook."""

import contextlib

import beartype
import jaxtyping

# An int is a float, as PEP 484 has it.
_beartype = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def checked(function):
    """`beartype.beartype`, but for the constructors of dataclasses.

    Results are pytrees: `jax.vmap` rebuilds them with leading axes, and `jax.tree.map` with other
    leaves.
    """
    return function if function.__name__ == "__init__" else _beartype(function)


@contextlib.contextmanager
def unchecked():
    """Calls as an installed package takes them, for the errors that it raises itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
