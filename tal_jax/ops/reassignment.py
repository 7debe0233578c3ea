"""Feature reassignment: expectation-maximisation attention over a few prototypes.

Snippets are assigned softly to prototypes, prototypes move towards the snippets assigned to them,
and the features are mixed with the prototypes that they are made of. So the discriminative and the
weak snippets of one action, which share a prototype, come closer to each other.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tal_jax.ops import _cumsum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reassigned:
    """The result of `reassign`.

    Attributes:
      features: the features mixed with their prototypes; masked snippets are 0.
      prototypes: the prototypes of this recording.
      assignments: the shares of each snippet, which sum to 1; masked snippets are 0.
    """

    features: jax.Array  # [T, D]
    prototypes: jax.Array  # [K, D] float32
    assignments: jax.Array  # [T, K] float32


def assign_prototypes(
    features: jax.Array,
    prototypes: jax.Array,
    *,
    gamma: jax.typing.ArrayLike = 5.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Returns the share of each prototype in each snippet: a softmax of cosine similarities.

    >>> features = jnp.array([[2.0, 0.0], [0.0, 0.0]])
    >>> shares = assign_prototypes(features, jnp.eye(2), gamma=jnp.log(3.0))
    >>> (100 * shares).round()
    Array([[75., 25.],
           [50., 50.]], dtype=float32)

    Args:
      features: `[T, D]`. A row of zeros has no direction and belongs to all prototypes alike.
      prototypes: `[K, D]`.
      gamma: the factor on the cosines; larger is sharper.
      where: `[T]` bool, any mask; the shares of a masked snippet are 0.

    Returns:
      `[T, K]` float32; each valid row sums to 1.

    Raises:
      ValueError: if the shapes do not fit.

    Source: the E-step of expectation-maximisation attention.
    """
    features, prototypes, where = _checked(features, prototypes, where)
    return _assign(features, _inverse_norms(features), prototypes, gamma, where)


def update_prototypes(
    features: jax.Array,
    assignments: jax.Array,
    prototypes: jax.Array,
    *,
    omega: jax.typing.ArrayLike = 0.5,
    where: jax.Array | None = None,
) -> jax.Array:
    """Returns prototypes moved towards the weighted mean of the snippets assigned to them.

    >>> features, assignments = jnp.array([[4.0], [8.0], [9.0]]), jnp.array([[0.5], [0.5], [1.0]])
    >>> valid = jnp.array([True, True, False])
    >>> update_prototypes(features, assignments, jnp.array([[2.0]]), omega=0.75, where=valid)
    Array([[5.]], dtype=float32)

    Args:
      features: `[T, D]`.
      assignments: `[T, K]` shares, from `assign_prototypes`.
      prototypes: `[K, D]`.
      omega: the weight of the mean; `1 - omega` of the old prototype stays.
      where: `[T]` bool, any mask. The mean of nothing counts 0.

    Returns:
      `[K, D]` float32.

    Raises:
      ValueError: if the shapes do not fit.

    Source: the M-step of expectation-maximisation attention; a part of the old prototypes stays.
    """
    features, prototypes, where = _checked(features, prototypes, where)
    expected = (features.shape[0], prototypes.shape[0])
    assignments = jnp.asarray(assignments, jnp.float32)
    if assignments.shape != expected:
        raise ValueError(f"assignments must have shape {expected}, got {assignments.shape}")
    assignments = jnp.where(where[:, None], assignments, 0.0)
    means = _means(features, assignments)
    return _update(means, prototypes.astype(jnp.float32), jnp.asarray(omega, jnp.float32))


def reassign(
    features: jax.Array,
    prototypes: jax.Array,
    *,
    gamma: jax.typing.ArrayLike = 5.0,
    omega: jax.typing.ArrayLike = 0.5,
    num_iters: int = 2,
    closed_form: bool = False,
    where: jax.Array | None = None,
) -> Reassigned:
    """Returns features mixed with the prototypes that a few E/M iterations find in them.

    Each iteration assigns the original features to the prototypes and updates the prototypes. The
    output is `omega * assignments @ prototypes + (1 - omega) * features` with the assignments of
    the last iteration.

    >>> result = reassign(jnp.array([[4.0], [8.0]]), jnp.array([[2.0]]), num_iters=1)
    >>> result.prototypes
    Array([[4.]], dtype=float32)
    >>> result.features
    Array([[4.],
           [6.]], dtype=float32)

    Args:
      features: `[T, D]`.
      prototypes: `[K, D]`; learned, and shared by all recordings.
      gamma: the factor on the cosines of the assignments.
      omega: the weight of the new against the old, in the prototypes and in the output; from 0 to
        1.
      num_iters: the number of E/M iterations; static. 0 assigns to the given prototypes and mixes.
      closed_form: after the iterations assign once more, and return the limit of updating
        prototypes and features from each other for ever, with these assignments; static. It needs
        `omega < 1`.
      where: `[T]` bool, any mask.

    Returns:
      The result as `Reassigned`; its features have the type of `features`.

    Raises:
      ValueError: if the shapes do not fit, `num_iters` is negative, or an `omega` that is not
        traced is out of range.

    Source: expectation-maximisation attention; its fixed point by the Woodbury identity.
    """
    features, prototypes, where = _checked(features, prototypes, where)
    if num_iters < 0:
        raise ValueError(f"num_iters must be at least 0, got {num_iters}")
    if isinstance(omega, int | float) and not 0 <= omega <= 1:
        raise ValueError(f"omega must be from 0 to 1, got {omega}")
    if isinstance(omega, int | float) and closed_form and omega == 1:
        raise ValueError(f"closed_form needs omega < 1, got {omega}")
    omega = jnp.asarray(omega, jnp.float32)

    # The features are large beside all else: they are masked and measured once.
    inverse_norms = _inverse_norms(features)
    prototypes = prototypes.astype(jnp.float32)
    for _ in range(num_iters):
        assignments = _assign(features, inverse_norms, prototypes, gamma, where)
        prototypes = _update(_means(features, assignments), prototypes, omega)
    if num_iters == 0 or closed_form:
        assignments = _assign(features, inverse_norms, prototypes, gamma, where)
    if closed_form:
        shares = _normalise_over_time(assignments)
        overlap = _overlap(shares, assignments)
        prototypes = _fixed_point(_means(features, assignments), overlap, prototypes, omega)
    # The factor goes to the small side of the product, whose gradient then needs no copy of [T, D].
    mixed = _product("tk,kd->td", omega * assignments, prototypes, features.dtype)
    mixed = mixed + (1.0 - omega) * features.astype(jnp.float32)
    return Reassigned(mixed.astype(features.dtype), prototypes, assignments)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """All that updating prototypes needs of a piece of a recording; pieces are added up.

    Attributes:
      assignments: sums of the shares.
      features: sums of the snippets, weighted by their shares.
      overlap: sums of the products of shares.
    """

    assignments: jax.Array  # [K]
    features: jax.Array  # [K, D]
    overlap: jax.Array  # [K, K]


def sum_piece(
    features: jax.Array,
    prototypes: jax.Array,
    *,
    gamma: jax.typing.ArrayLike = 5.0,
    where: jax.Array | None = None,
) -> Sums:
    """Sums of a piece of a recording that is too long to be held at once.

    Added up over all pieces, they make of the prototypes what the whole recording would:
    `update_from_sums` as an iteration of `reassign` does, `limit_from_sums` as its closed form.

    >>> features, prototypes = jnp.array([[4.0], [8.0], [6.0]]), jnp.array([[2.0]])
    >>> pieces = [sum_piece(piece, prototypes) for piece in (features[:2], features[2:])]
    >>> sums = jax.tree.map(jnp.add, *pieces)
    >>> update_from_sums(sums, prototypes, omega=0.5), update_prototypes(
    ...     features, jnp.ones((3, 1)), prototypes, omega=0.5
    ... )
    (Array([[4.]], dtype=float32), Array([[4.]], dtype=float32))

    Args:
      features: `[T, D]` of the piece.
      prototypes: `[K, D]`, the same for all pieces.
      gamma: see `assign_prototypes`.
      where: `[T]` bool, any mask.

    Raises:
      ValueError: if the shapes do not fit.
    """
    features, prototypes, where = _checked(features, prototypes, where)
    assignments = _assign(features, _inverse_norms(features), prototypes, gamma, where)
    return Sums(
        assignments.sum(axis=0),
        _product("tk,td->kd", assignments, features, features.dtype),
        _overlap(assignments, assignments),
    )


def update_from_sums(
    sums: Sums, prototypes: jax.Array, *, omega: jax.typing.ArrayLike = 0.5
) -> jax.Array:
    """The prototypes after an iteration, from the sums of all pieces; `[K, D]` float32."""
    means, _ = _means_of_sums(sums)
    return _update(means, prototypes.astype(jnp.float32), jnp.asarray(omega, jnp.float32))


def limit_from_sums(
    sums: Sums, prototypes: jax.Array, *, omega: jax.typing.ArrayLike = 0.5
) -> jax.Array:
    """The prototypes of the closed form, from the sums of all pieces; `[K, D]` float32."""
    means, overlap = _means_of_sums(sums)
    return _fixed_point(
        means, overlap, prototypes.astype(jnp.float32), jnp.asarray(omega, jnp.float32)
    )


def _means_of_sums(sums):
    total = jnp.where(sums.assignments > 0, sums.assignments, 1.0)[:, None]
    return sums.features / total, sums.overlap / total


def _assign(features, inverse_norms, prototypes, gamma, where):
    """`assign_prototypes` of masked features with known norms."""
    # The norms are divided out after the product, which saves a normalised copy of the features.
    products = _product("td,kd->tk", features, prototypes, features.dtype)
    cosines = products * inverse_norms[:, None] * _inverse_norms(prototypes)[None, :]
    shares = jax.nn.softmax(jnp.asarray(gamma, jnp.float32) * cosines, axis=1)
    return jnp.where(where[:, None], shares, 0.0)


def _means(features, assignments):
    """Means of the snippets `[K, D]`, weighted by masked assignments."""
    shares = _normalise_over_time(assignments)
    return _product("tk,td->kd", shares, features, features.dtype)


def _update(means, prototypes, omega):
    return omega * means + (1.0 - omega) * prototypes


def _overlap(left, right):
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("tk,tl->kl", left, right, precision=exact)


def _fixed_point(
    means: jax.Array, overlap: jax.Array, prototypes: jax.Array, omega: jax.Array
) -> jax.Array:
    """Returns the prototypes at which updating from the output, and the output, no longer change.

    With Z the assignments and N the same with columns that sum to 1, the pair
        M = omega N'F* + (1 - omega) mu,   F* = omega Z M + (1 - omega) F
    has the fixed point (I - omega^2 N'Z) M = (1 - omega) (omega N'F + mu), a system of size K. The
    rows of the overlap N'Z sum to 1, so it is diagonally dominant for omega < 1.
    """
    system = jnp.eye(prototypes.shape[0], dtype=jnp.float32) - omega**2 * overlap
    return jnp.linalg.solve(system, (1.0 - omega) * (omega * means + prototypes))


def _normalise_over_time(assignments: jax.Array) -> jax.Array:
    """Returns the assignments with columns that sum to 1; a column of zeros stays."""
    total = jnp.sum(assignments, axis=0, keepdims=True)
    return assignments / jnp.where(total > 0, total, 1.0)


def _product(subscripts: str, left: jax.Array, right: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns the einsum of two arrays in a type, accumulated in float32."""
    return jnp.einsum(
        subscripts, left.astype(dtype), right.astype(dtype), preferred_element_type=jnp.float32
    )


def _inverse_norms(rows: jax.Array) -> jax.Array:
    """Returns 1 over the norm of each row in float32; for a row of zeros 0, with gradient 0."""
    squares = jnp.sum(jnp.square(rows.astype(jnp.float32)), axis=1)
    positive = squares > 1e-30
    return jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, squares, 1.0)), 0.0)


def _checked(features, prototypes, where):
    """Returns the arguments as arrays, with masked features set to 0."""
    features, prototypes = jnp.asarray(features), jnp.asarray(prototypes)
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(f"features must be floating-point numbers, got {features.dtype}")
    if features.ndim != 2 or prototypes.ndim != 2 or features.shape[1] != prototypes.shape[1]:
        raise ValueError(
            "features must have shape [T, D] and prototypes [K, D], "
            f"got {features.shape} and {prototypes.shape}"
        )
    where = _cumsum.mask_or_all(where, features.shape[0])
    return jnp.where(where[:, None], features, jnp.zeros_like(features)), prototypes, where
