"""Annotations of arrays by dtype and shape, for the functions of ops, losses and models.

`Float[Array, "T D"]` is a floating-point array of shape `[T, D]`; the letters are those of the
package's docstring, and one letter has one size in one call. `edges` is T + 1, the number of times
at which snippets begin or end. Names stand for what callers pass:

    Float, Int, Bool   arrays of that kind, any width
    Real               floating-point or integer numbers
    Mask               bool or 0/1 integers, see `tal_jax.ops._check.mask`
    Shaped             any dtype
    PRNGKeyArray       a random key, new-style or raw
    Array              a JAX array or tracer
    ArrayLike          also NumPy arrays and Python numbers, as public functions accept them

jaxtyping is a tool of the tests, where beartype checks every call (tests/conftest.py), and of type
checkers. Without it the annotations are `Any`. A one-letter shape begins with a space
(`Float[Array, " T"]`), so that linters do not take it for a name.
"""

from typing import TYPE_CHECKING, Any

from jax import Array
from jax.typing import ArrayLike

if TYPE_CHECKING:
    from typing import Annotated as Mask

    from jaxtyping import Bool, Float, PRNGKeyArray, Real, Shaped
    from jaxtyping import Integer as Int
else:
    try:
        from jaxtyping import AbstractDtype, Bool, Float, PRNGKeyArray, Real, Shaped
        from jaxtyping import Integer as Int
    except ImportError:

        class Shaped:
            """Stands for every annotation: subscription gives `Any`."""

            def __class_getitem__(cls, item: Any) -> Any:
                return Any

        Bool = Float = Int = Mask = Real = Shaped
        PRNGKeyArray = Any
    else:

        class Mask(AbstractDtype):
            """Bool or integers; that they are 0 or 1 is the caller's promise."""

            dtypes = [*Bool.dtypes, *Int.dtypes]


__all__ = [
    "Array",
    "ArrayLike",
    "Bool",
    "Float",
    "Int",
    "Mask",
    "PRNGKeyArray",
    "Real",
    "Shaped",
]
