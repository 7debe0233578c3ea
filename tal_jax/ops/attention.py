# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Soft, semi-soft and hard attention of HAM-Net, an actionness of each snippet and masks from it.

Two variants exist. In the *document's*, attention weighs features, which are then classified again;
in the *published* one (Islam, Long and Radke, AAAI 2021) it weighs logits. Each attention of each
variant is a function. All return the floating type of their input (float32 for integers).
"""

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Mask, PRNGKeyArray, Real
from tal_jax.ops import _check


def soft_attention(
    logits: Real[ArrayLike, "T channels"], *, where: Mask[ArrayLike, " T"] | None = None
) -> Float[Array, " T"]:
    r"""Returns the document's soft attention, the actionness of each snippet.

    $$a_t = 1 - P_{bg}(t) = \sum_{c=1}^{C} \operatorname{softmax}(s_t)_c$$

    >>> import jax.numpy as jnp
    >>> print(soft_attention(jnp.log(jnp.array([[1.0, 1.0, 2.0], [3.0, 4.0, 1.0]]))))
    [0.5   0.875]

    Args:
      logits: of the classes, the last channel of the background.
      where: any mask over snippets; default all.

    Returns:
      Attention in [0, 1]; 0 where masked.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    sizes: dict[str, int] = {}
    logits = _check.numbers(logits, "logits", "T C+1", sizes, dtype=None, split=True)
    where = _check.mask(where, "where", "T", sizes, split=True)
    wide = logits.astype(_check.wide(logits.dtype))
    wide = jnp.where(where[:, None], wide, 0)
    # The sum over classes: 1 − P_bg would round small attentions off.
    shares = jax.nn.softmax(wide, axis=-1)[:, :-1].sum(axis=-1)
    return jnp.where(where, shares, 0).astype(logits.dtype)


def semi_soft_attention(
    attention: Real[ArrayLike, " T"],
    *,
    low: Real[ArrayLike, ""] = 0.2,
    high: Real[ArrayLike, ""] = 0.8,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Float[Array, " T"]:
    """Returns the document's semi-soft attention: confident snippets become 0 or 1.

    >>> import jax.numpy as jnp
    >>> print(semi_soft_attention(jnp.array([0.1, 0.2, 0.5, 0.8, 0.9])))
    [0.  0.  0.5 1.  1. ]

    Args:
      attention: from `soft_attention`.
      low: up to this, a snippet is background.
      high: from this on, it is action.
      where: any mask over snippets; default all.

    Returns:
      Attention; 0 where masked. Gradients pass through the snippets that keep their value.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    attention, where = _checked(attention, where)
    low, high = _check.setting(low, "low"), _check.setting(high, "high")
    kept = jnp.where(attention >= high.astype(attention.dtype), 1, attention)
    return jnp.where(where & (attention > low.astype(attention.dtype)), kept, 0)


def hard_attention(
    attention: Real[ArrayLike, " T"],
    key: PRNGKeyArray,
    *,
    low: Real[ArrayLike, ""] = 0.2,
    drop_rate: Real[ArrayLike, ""] = 0.8,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Float[Array, " T"]:
    """Returns the document's hard attention: hides foreground snippets at random.

    >>> import jax, jax.numpy as jnp
    >>> attention = jnp.array([0.1, 0.9, 0.9, 0.9])
    >>> print(hard_attention(attention, jax.random.key(0), drop_rate=1.0))
    [1. 0. 0. 0.]

    Args:
      attention: from `soft_attention`.
      key: a random key; another one each update.
      low: a snippet with less is background and always stays.
      drop_rate: probability with which each of the others is hidden, 0 to 1.
      where: any mask over snippets; default all.

    Returns:
      1 for visible snippets, 0 for hidden and masked ones. It carries no gradient.

    Raises:
      ValueError: if shapes or types do not fit, or a `drop_rate` that is not traced is out of
        range.
    """
    attention, where = _checked(attention, where)
    low = _check.setting(low, "low").astype(attention.dtype)
    drop_rate = _check.setting(drop_rate, "drop_rate", least=0, most=1)
    stays = ~jax.random.bernoulli(key, drop_rate, attention.shape)
    return ((stays | (attention < low)) & where).astype(attention.dtype)


def published_semi_soft_attention(
    attention: Real[ArrayLike, " T"],
    *,
    gamma: Real[ArrayLike, ""] = 0.2,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Float[Array, " T"]:
    """Returns the published semi-soft attention: the soft one with strong snippets erased.

    >>> import jax.numpy as jnp
    >>> print(published_semi_soft_attention(jnp.array([0.1, 0.25, 0.5, 1.0]), gamma=0.5))
    [0.1  0.25 0.   0.  ]

    Args:
      attention: soft attention of the network, 0 or more.
      gamma: snippets that reach this fraction of the recording's largest attention are erased.
      where: any mask over snippets; default all.

    Returns:
      Attention; 0 where masked. Gradients pass through the snippets that keep their value.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    attention, where = _checked(attention, where)
    hard = published_hard_attention(attention, gamma=gamma, where=where)
    return hard * jnp.where(where, attention, 0)


def published_hard_attention(
    attention: Real[ArrayLike, " T"],
    *,
    gamma: Real[ArrayLike, ""] = 0.2,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Float[Array, " T"]:
    """Returns the published hard attention: 1 for weak snippets, 0 for strong ones.

    >>> import jax.numpy as jnp
    >>> print(published_hard_attention(jnp.array([0.1, 0.25, 0.5, 1.0]), gamma=0.5))
    [1. 1. 0. 0.]

    Args:
      attention: soft attention of the network, 0 or more.
      gamma: see `published_semi_soft_attention`.
      where: any mask over snippets; default all.

    Returns:
      1 and 0; 0 where masked. It carries no gradient.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    attention, where = _checked(attention, where)
    gamma = _check.setting(gamma, "gamma").astype(attention.dtype)
    attention = jax.lax.stop_gradient(jnp.where(where, attention, 0))
    largest = attention.max(initial=0)
    return (where & (attention < gamma * largest)).astype(attention.dtype)


def attend(
    logits: Real[ArrayLike, "T channels"], attention: Real[ArrayLike, " T"]
) -> Float[Array, "T channels"]:
    r"""Returns logits weighed by attention, between a snippet's logits and its lowest one.

    $$\hat s_t = a_t (s_t - m_t) + m_t, \qquad m_t = \min_c s_{t,c}$$

    An erased snippet falls to its lowest logit, not to 0.

    >>> import jax.numpy as jnp
    >>> print(attend(jnp.array([[4.0, -2.0], [4.0, -2.0]]), jnp.array([0.5, 0.0])))
    [[ 1. -2.]
     [-2. -2.]]

    Args:
      logits: of the classes and the background.
      attention: semi-soft or hard attention.

    Returns:
      Logits in their floating type.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    sizes: dict[str, int] = {}
    logits = _check.numbers(logits, "logits", "T C+1", sizes, dtype=None, split=True)
    attention = _check.numbers(attention, "attention", "T", sizes, dtype=logits.dtype, split=True)
    # Not `min`, whose gradient divides by the number of equal logits: see `models.detector`.
    place = logits.argmin(axis=-1, keepdims=True)
    lowest = jnp.take_along_axis(logits, place, axis=-1)
    return attention[:, None] * (logits - lowest) + lowest


def _checked(
    attention: Real[ArrayLike, " T"], where: Mask[ArrayLike, " T"] | None
) -> tuple[Float[Array, " T"], Bool[Array, " T"]]:
    sizes: dict[str, int] = {}
    attention = _check.numbers(attention, "attention", "T", sizes, dtype=None, split=True)
    return attention, _check.mask(where, "where", "T", sizes, split=True)
