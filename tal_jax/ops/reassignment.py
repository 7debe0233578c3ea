# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Feature reassignment: expectation-maximisation (EM) attention over a few prototypes.

Snippets are assigned softly to prototypes, prototypes move towards the snippets assigned to them,
and the features are mixed with their prototypes. So the discriminative and the weak snippets of one
action, which share a prototype, come closer to each other.

Leading axes of features, prototypes and masks are batch axes; prototypes may be shared by a batch.
All is computed in float32, products of float16 and bfloat16 features with inputs of that type.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Mask, Real
from tal_jax.ops import _axes, _check
from tal_jax.ops._static import static


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reassigned:
    """Reassigned features, from `reassign`.

    Attributes:
      features: the features mixed with their prototypes; masked snippets are 0.
      prototypes: the prototypes of each recording, float32.
      assignments: the shares of each snippet, float32, which sum to 1; masked snippets are 0.
    """

    features: Float[Array, "*batch T D"]
    prototypes: Float[Array, "*batch K D"]
    assignments: Float[Array, "*batch T K"]


def assign_prototypes(
    features: Real[ArrayLike, "*#batch T D"],
    prototypes: Real[ArrayLike, "*#batch K D"],
    *,
    gamma: Real[ArrayLike, ""] = 5.0,
    where: Mask[ArrayLike, "*#batch T"] | None = None,
) -> Float[Array, "*batch T K"]:
    r"""Returns the share of each prototype in each snippet, the E-step of EM attention.

    $$Z_{tk} = \operatorname{softmax}_k \left( \gamma \,
      \frac{f_t \cdot \mu_k}{\lVert f_t \rVert \lVert \mu_k \rVert} \right)$$

    >>> features = jnp.array([[2.0, 0.0], [0.0, 0.0]])
    >>> shares = assign_prototypes(features, jnp.eye(2), gamma=jnp.log(3.0))
    >>> (100 * shares).round()
    Array([[75., 25.],
           [50., 50.]], dtype=float32)

    Args:
      features: of snippets. A row of zeros has no direction and belongs to all prototypes alike.
      prototypes: points in the space of the features.
      gamma: γ, the factor on the cosines; larger is sharper.
      where: any mask over snippets; the shares of a masked snippet are 0.

    Returns:
      float32 shares; each valid row sums to 1.

    Raises:
      ValueError: if shapes or types do not fit.

    Source: the E-step of expectation-maximisation attention.
    """
    features, prototypes, where = _checked(features, prototypes, where)
    gamma = _check.setting(gamma, "gamma")

    def assign(
        features: Float[Array, "T D"], prototypes: Float[Array, "K D"], where: Bool[Array, " T"]
    ) -> Float[Array, "T K"]:
        features = _masked(features, where)
        return _assign(features, _inverse_norms(features), prototypes, gamma, where)

    return _axes.over_leading_axes(assign, (features, prototypes, where), (2, 2, 1))


def update_prototypes(
    features: Real[ArrayLike, "*#batch T D"],
    assignments: Real[ArrayLike, "*#batch T K"],
    prototypes: Real[ArrayLike, "*#batch K D"],
    *,
    omega: Real[ArrayLike, ""] = 0.5,
    where: Mask[ArrayLike, "*#batch T"] | None = None,
) -> Float[Array, "*batch K D"]:
    r"""Returns prototypes moved towards the mean of their snippets, the M-step of EM attention.

    $$\mu_k \leftarrow \omega \frac{\sum_t Z_{tk} f_t}{\sum_t Z_{tk}} + (1 - \omega) \mu_k$$

    >>> features, assignments = jnp.array([[4.0], [8.0], [9.0]]), jnp.array([[0.5], [0.5], [1.0]])
    >>> valid = jnp.array([True, True, False])
    >>> update_prototypes(features, assignments, jnp.array([[2.0]]), omega=0.75, where=valid)
    Array([[5.]], dtype=float32)

    Args:
      features: of snippets.
      assignments: shares, from `assign_prototypes`.
      prototypes: the prototypes so far.
      omega: ω, the weight of the mean, from 0 to 1; `1 - omega` of the old prototype stays.
      where: any mask over snippets. The mean of nothing counts 0.

    Returns:
      float32 prototypes.

    Raises:
      ValueError: if shapes or types do not fit, or an `omega` that is not traced is out of range.

    Source: the M-step of expectation-maximisation attention; a part of the old prototypes stays.
    """
    sizes: dict[str, int] = {}
    features, prototypes, where = _checked(features, prototypes, where, sizes)
    assignments = _check.numbers(assignments, "assignments", "... T K", sizes)
    omega = _check.setting(omega, "omega", least=0, most=1)

    def update(
        features: Float[Array, "T D"],
        assignments: Float[Array, "T K"],
        prototypes: Float[Array, "K D"],
        where: Bool[Array, " T"],
    ) -> Float[Array, "K D"]:
        shares = jnp.where(where[:, None], assignments, 0.0)
        means = _means(_masked(features, where), shares)
        return _update(means, prototypes.astype(jnp.float32), omega)

    arrays = (features, assignments, prototypes, where)
    return _axes.over_leading_axes(update, arrays, (2, 2, 2, 1))


@static("num_iters", "closed_form")
def reassign(
    features: Real[ArrayLike, "*#batch T D"],
    prototypes: Real[ArrayLike, "*#batch K D"],
    *,
    gamma: Real[ArrayLike, ""] = 5.0,
    omega: Real[ArrayLike, ""] = 0.5,
    num_iters: int = 2,
    closed_form: bool = False,
    where: Mask[ArrayLike, "*#batch T"] | None = None,
) -> Reassigned:
    r"""Returns features reassigned to prototypes by a few iterations of EM attention.

    Each iteration assigns the original features F to the prototypes μ (`assign_prototypes`) and
    updates the prototypes (`update_prototypes`). With the assignments Z of the last iteration the
    output is

    $$F' = \omega Z \mu + (1 - \omega) F$$

    >>> result = reassign(jnp.array([[4.0], [8.0]]), jnp.array([[2.0]]), num_iters=1)
    >>> result.prototypes
    Array([[4.]], dtype=float32)
    >>> result.features
    Array([[4.],
           [6.]], dtype=float32)

    Args:
      features: of snippets.
      prototypes: learned, and shared by all recordings.
      gamma: the factor on the cosines of the assignments.
      omega: ω, the weight of the new against the old, in the prototypes and in the output; from 0
        to 1.
      num_iters: the number of E/M iterations (static). 0 assigns to the given prototypes and mixes.
      closed_form: after the iterations assign once more, and return the limit of updating
        prototypes and features from each other for ever, with these assignments (static). It needs
        `omega < 1`.
      where: any mask over snippets.

    Returns:
      The result as `Reassigned`; its features have the floating type of `features` (float32 for
      integers), the rest is float32.

    Raises:
      ValueError: if shapes or types do not fit, `num_iters` is negative, or an `omega` that is not
        traced is out of range.

    Source: expectation-maximisation attention; its fixed point by the Woodbury identity.
    """
    features, prototypes, where = _checked(features, prototypes, where)
    num_iters = _check.static_size(num_iters, "num_iters", least=0)
    gamma = _check.setting(gamma, "gamma")
    if closed_form and not isinstance(omega, jax.Array) and omega == 1:
        raise ValueError(f"closed_form needs omega < 1, got {omega}")
    omega = _check.setting(omega, "omega", least=0, most=1)
    one = functools.partial(
        _reassign, gamma=gamma, omega=omega, num_iters=num_iters, closed_form=closed_form
    )
    return _axes.over_leading_axes(one, (features, prototypes, where), (2, 2, 1))


def _reassign(
    features: Float[Array, "T D"],
    prototypes: Float[Array, "K D"],
    where: Bool[Array, " T"],
    *,
    gamma: Float[Array, ""],
    omega: Float[Array, ""],
    num_iters: int,
    closed_form: bool,
) -> Reassigned:
    # The features are large beside all else: they are masked and measured once.
    dtype, features = features.dtype, _masked(features, where)
    inverse_norms = _inverse_norms(features)
    prototypes = prototypes.astype(jnp.float32)
    assignments = _assign(features, inverse_norms, prototypes, gamma, where)
    for iteration in range(num_iters):
        if iteration > 0:
            assignments = _assign(features, inverse_norms, prototypes, gamma, where)
        prototypes = _update(_means(features, assignments), prototypes, omega)
    if closed_form and num_iters > 0:
        assignments = _assign(features, inverse_norms, prototypes, gamma, where)
    if closed_form:
        shares = _normalise_over_time(assignments)
        overlap = _overlap(shares, assignments)
        prototypes = _fixed_point(_means(features, assignments), overlap, prototypes, omega)
    # The factor goes to the small side of the product, whose gradient then needs no copy of [T, D].
    mixed = _product("tk,kd->td", omega * assignments, prototypes, features.dtype)
    mixed = mixed + (1.0 - omega) * features.astype(jnp.float32)
    return Reassigned(mixed.astype(dtype), prototypes, assignments)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over a piece of a recording from which prototypes are updated; pieces add up.

    Attributes:
      assignments: sums of the shares.
      features: sums of the snippets, weighted by their shares.
      overlap: sums of the products of shares.
    """

    assignments: Float[Array, " K"]
    features: Float[Array, "K D"]
    overlap: Float[Array, "K K"]


def sum_piece(
    features: Real[ArrayLike, "T D"],
    prototypes: Real[ArrayLike, "K D"],
    *,
    gamma: Real[ArrayLike, ""] = 5.0,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Sums:
    """Returns the sums of EM attention over a piece of a recording that does not fit in memory.

    Added up over all pieces, they give the prototypes of the whole recording: `update_from_sums`
    those of an iteration of `reassign`, `limit_from_sums` those of its closed form.

    >>> features, prototypes = jnp.array([[4.0], [8.0], [6.0]]), jnp.array([[2.0]])
    >>> pieces = [sum_piece(piece, prototypes) for piece in (features[:2], features[2:])]
    >>> sums = jax.tree.map(jnp.add, *pieces)
    >>> update_from_sums(sums, prototypes, omega=0.5), update_prototypes(
    ...     features, jnp.ones((3, 1)), prototypes, omega=0.5
    ... )
    (Array([[4.]], dtype=float32), Array([[4.]], dtype=float32))

    Args:
      features: of the snippets of the piece.
      prototypes: the same for all pieces.
      gamma: see `assign_prototypes`.
      where: any mask over snippets.

    Returns:
      float32 sums.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    features, prototypes, where = _checked(features, prototypes, where)
    features = _masked(features, where)
    gamma = _check.setting(gamma, "gamma")
    assignments = _assign(features, _inverse_norms(features), prototypes, gamma, where)
    return Sums(
        assignments.sum(axis=0),
        _product("tk,td->kd", assignments, features, features.dtype),
        _overlap(assignments, assignments),
    )


def update_from_sums(
    sums: Sums, prototypes: Real[ArrayLike, "K D"], *, omega: Real[ArrayLike, ""] = 0.5
) -> Float[Array, "K D"]:
    """Returns the float32 prototypes after an iteration of EM, from the sums of all pieces."""
    means, _ = _means_of_sums(sums)
    prototypes = _check.numbers(prototypes, "prototypes", "K D")
    return _update(means, prototypes, _check.setting(omega, "omega", least=0, most=1))


def limit_from_sums(
    sums: Sums, prototypes: Real[ArrayLike, "K D"], *, omega: Real[ArrayLike, ""] = 0.5
) -> Float[Array, "K D"]:
    """Returns the float32 prototypes of the closed form, from the sums of all pieces."""
    means, overlap = _means_of_sums(sums)
    prototypes = _check.numbers(prototypes, "prototypes", "K D")
    omega = _check.setting(omega, "omega", least=0, most=1)
    return _fixed_point(means, overlap, prototypes, omega)


def _means_of_sums(sums: Sums) -> tuple[Float[Array, "K D"], Float[Array, "K K"]]:
    total = jnp.where(sums.assignments > 0, sums.assignments, 1.0)[:, None]
    return sums.features / total, sums.overlap / total


def _assign(
    features: Float[Array, "T D"],
    inverse_norms: Float[Array, " T"],
    prototypes: Float[Array, "K D"],
    gamma: Float[Array, ""],
    where: Bool[Array, " T"],
) -> Float[Array, "T K"]:
    """`assign_prototypes` of masked features with known norms."""
    # The norms are divided out after the product, which saves a normalised copy of the features.
    products = _product("td,kd->tk", features, prototypes, features.dtype)
    cosines = products * inverse_norms[:, None] * _inverse_norms(prototypes)[None, :]
    shares = jax.nn.softmax(gamma * cosines, axis=1)
    return jnp.where(where[:, None], shares, 0.0)


def _means(features: Float[Array, "T D"], assignments: Float[Array, "T K"]) -> Float[Array, "K D"]:
    """Means of the snippets, weighted by masked assignments."""
    shares = _normalise_over_time(assignments)
    return _product("tk,td->kd", shares, features, features.dtype)


def _update(
    means: Float[Array, "K D"], prototypes: Float[Array, "K D"], omega: Float[Array, ""]
) -> Float[Array, "K D"]:
    return omega * means + (1.0 - omega) * prototypes


def _overlap(left: Float[Array, "T K"], right: Float[Array, "T K"]) -> Float[Array, "K K"]:
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("tk,tl->kl", left, right, precision=exact)


def _fixed_point(
    means: Float[Array, "K D"],
    overlap: Float[Array, "K K"],
    prototypes: Float[Array, "K D"],
    omega: Float[Array, ""],
) -> Float[Array, "K D"]:
    """Returns the prototypes at which updating from the output, and the output, no longer change.

    With Z the assignments and N the same with columns that sum to 1, the pair
        M = omega N'F* + (1 - omega) mu,   F* = omega Z M + (1 - omega) F
    has the fixed point (I - omega^2 N'Z) M = (1 - omega) (omega N'F + mu), a system of size K. The
    rows of the overlap N'Z sum to 1, so it is diagonally dominant for omega < 1.
    """
    system = jnp.eye(prototypes.shape[0], dtype=jnp.float32) - omega**2 * overlap
    return jnp.linalg.solve(system, (1.0 - omega) * (omega * means + prototypes))


def _normalise_over_time(assignments: Float[Array, "T K"]) -> Float[Array, "T K"]:
    """Returns the assignments with columns that sum to 1; a column of zeros stays."""
    total = jnp.sum(assignments, axis=0, keepdims=True)
    return assignments / jnp.where(total > 0, total, 1.0)


def _product(
    subscripts: str,
    left: Float[Array, "rows columns"],
    right: Float[Array, "..."],
    dtype: jnp.dtype,
) -> Float[Array, "..."]:
    """Returns the einsum of two arrays in a type, accumulated in float32."""
    return jnp.einsum(
        subscripts, left.astype(dtype), right.astype(dtype), preferred_element_type=jnp.float32
    )


def _inverse_norms(rows: Float[Array, "N D"]) -> Float[Array, " N"]:
    """Returns 1 over the norm of each row in float32; for a row of zeros 0, with gradient 0."""
    squares = jnp.sum(jnp.square(rows.astype(jnp.float32)), axis=1)
    positive = squares > 1e-30
    return jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, squares, 1.0)), 0.0)


def _masked(features: Float[Array, "T D"], where: Bool[Array, " T"]) -> Float[Array, "T D"]:
    """The features, 0 where masked, in the type of products: float32, float16 or bfloat16."""
    if features.dtype == jnp.float64:
        features = features.astype(jnp.float32)
    return jnp.where(where[:, None], features, jnp.zeros_like(features))


def _checked(
    features: Real[ArrayLike, "*#batch T D"],
    prototypes: Real[ArrayLike, "*#batch K D"],
    where: Mask[ArrayLike, "*#batch T"] | None,
    sizes: dict[str, int] | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."], Bool[Array, "..."]]:
    sizes = {} if sizes is None else sizes
    features = _check.numbers(features, "features", "... T D", sizes, dtype=None)
    prototypes = _check.numbers(prototypes, "prototypes", "... K D", sizes, dtype=None)
    return features, prototypes, _check.mask(where, "where", "... T", sizes)
