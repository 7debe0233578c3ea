# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""The checks of arguments that all ops share. What is wrong is a ValueError, before much is traced.

Shapes are strings of the package's shape letters, such as `"T C"`. Arguments of one call share a
dictionary `sizes`, in which a letter gets its size where it is first met.
"""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from tal_jax._typing import Array, ArrayLike, Bool, Real, Shaped


def numbers(
    value: ArrayLike,
    name: str,
    shape: str,
    sizes: dict[str, int] | None = None,
    *,
    dtype: Any = jnp.float32,
    split: bool = False,
) -> Real[Array, "..."]:
    """Returns an argument that holds floating-point numbers or integers as an array of a type.

    With `dtype=None` a floating-point type stays, and integers become float32.

    >>> numbers(np.array([1, 2]), "scores", "T")
    Array([1., 2.], dtype=float32)

    Args:
      value: the argument.
      name: of the argument, for messages.
      shape: its axes; `"... T C"` allows leading batch axes.
      sizes: sizes of the letters that are known; letters that are new are added.
      dtype: the type of the result.
      split: whether the axis T may be split over an axis of an explicit mesh.

    Raises:
      ValueError: if the shape does not fit or the type holds no numbers, or if T is split.
    """
    array = _of_shape(value, name, shape, sizes, split)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if not floating and not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} must hold numbers, got {array.dtype}")
    if dtype is None:
        dtype = array.dtype if floating else jnp.float32
    return array.astype(dtype)


def mask(
    value: ArrayLike | None,
    name: str,
    shape: str,
    sizes: dict[str, int] | None = None,
    *,
    split: bool = False,
) -> Bool[Array, "..."]:
    """Returns a mask or seeds, bool or 0/1 integers, as bool; all True in place of None.

    Arguments are those of `numbers`. In place of None all sizes are known, without leading axes.

    >>> print(mask(np.array([0, 1]), "where", "T"), mask(None, "where", "T", {"T": 2}))
    [False  True] [ True  True]

    Raises:
      ValueError: if the shape does not fit, or the type is neither bool nor an integer.
    """
    if value is None:
        assert sizes is not None
        return jnp.ones([sizes[letter] for letter in shape.split() if letter != "..."], bool)
    array = _of_shape(value, name, shape, sizes, split)
    if array.dtype == bool:
        return array
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} must be bool or 0/1 integers, got {array.dtype}")
    return array != 0


def setting(
    value: ArrayLike,
    name: str,
    *,
    least: float = -np.inf,
    most: float = np.inf,
    above: float = -np.inf,
) -> Real[Array, ""]:
    """Returns a hyper-parameter as a float32 scalar, checked if it is a number of Python or NumPy.

    Arrays of JAX are not looked into: they may be traced, or on their way from another device.

    >>> setting(np.float64(0.25), "delta", least=0)
    Array(0.25, dtype=float32)

    Raises:
      ValueError: if it is no scalar number, below `least`, over `most`, or not above `above`.
    """
    scalar = numbers(value, name, "")
    if not isinstance(value, jax.Array):
        number = float(np.asarray(value))
        if not (least <= number <= most and number > above):
            bounds = f"from {least:g} to {most:g}" if most < np.inf else f"at least {least:g}"
            bounds = f"above {above:g}" if above > -np.inf else bounds
            raise ValueError(f"{name} must be {bounds}, got {value}")
    return scalar


def static_size(value: Any, name: str, *, least: int) -> int:
    """Returns a size that fixes shapes, as an int.

    >>> static_size(np.int64(3), "max_runs", least=1)
    3

    Raises:
      ValueError: if it is traced, no integer, or too small.
    """
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"{name} is static: compile with tal_jax.jit, or name it static_argnames")
    if not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value}")
    return int(value)


def wide(dtype: Any) -> Any:
    """Returns the type in which numbers of a floating-point type are summed: float32 at least.

    >>> wide(jnp.bfloat16), wide(jnp.float64)
    (dtype('float32'), dtype('float64'))
    """
    return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)


def _of_shape(
    value: ArrayLike, name: str, shape: str, sizes: dict[str, int] | None, split: bool
) -> Shaped[Array, "..."]:
    array = jnp.asarray(value)
    letters = shape.split()
    leading = 0
    if letters[:1] == ["..."]:
        letters = letters[1:]
        leading = max(array.ndim - len(letters), 0)
    known = {} if sizes is None else sizes
    expected = [int(letter) if letter.isdigit() else known.get(letter) for letter in letters]
    found = array.shape[leading:]
    if len(found) != len(letters) or any(
        size not in (None, other) for size, other in zip(expected, found, strict=True)
    ):
        given = [letter for letter in letters if letter in known]
        so_far = ", ".join(f"{letter} = {known[letter]}" for letter in given)
        raise ValueError(
            f"{name} must have shape [{', '.join(shape.split())}]"
            f"{f' with {so_far}' if so_far else ''}, got {list(array.shape)}"
        )
    known.update(zip(letters, found, strict=True))
    if not split and "T" in letters:
        # Axes of meshes whose type is not explicit do not stand in an array's type.
        axis = jax.typeof(array).sharding.spec[leading + letters.index("T")]
        if axis is not None:
            raise ValueError(
                f"{name} is split over mesh axis {axis!r} along T; an op needs whole recordings: "
                "split the axis of recordings instead, or use jax.sharding.reshard before"
            )
    return array
