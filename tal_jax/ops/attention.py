"""The attentions of HAM-Net: how surely there is an action, and what training hides because of it.

The network exists in two readings. In the *document's*, attention weighs features, which are then
classified again; in the *published* one (Islam, Long and Radke, AAAI 2021) it weighs logits. Each
attention of each reading is a function of its own.
"""

import jax
import jax.numpy as jnp

from tal_jax.ops import _cumsum


def soft_attention(logits: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """The document's soft attention: `1 − P_bg`, P being the softmax over classes and background.

    >>> import jax.numpy as jnp
    >>> print(soft_attention(jnp.log(jnp.array([[1.0, 1.0, 2.0], [3.0, 4.0, 1.0]]))))
    [0.5   0.875]

    Args:
      logits: `[T, C + 1]`, the last channel is the background.
      where: `[T]` bool, any mask; default all.

    Returns:
      `[T]` in [0, 1]; 0 where masked.
    """
    where = _cumsum.mask_or_all(where, logits.shape[0])
    logits = jnp.where(where[:, None], logits, 0)
    # The classes' own share: 1 − P_bg would round small attentions off.
    return jnp.where(where, jax.nn.softmax(logits, axis=-1)[:, :-1].sum(axis=-1), 0)


def semi_soft_attention(
    attention: jax.Array,
    *,
    low: jax.typing.ArrayLike = 0.2,
    high: jax.typing.ArrayLike = 0.8,
    where: jax.Array | None = None,
) -> jax.Array:
    """The document's semi-soft attention: sure snippets become 0 or 1, the others stay.

    >>> import jax.numpy as jnp
    >>> print(semi_soft_attention(jnp.array([0.1, 0.2, 0.5, 0.8, 0.9])))
    [0.  0.  0.5 1.  1. ]

    Args:
      attention: `[T]`.
      low: up to this, a snippet is background.
      high: from this on, it is action.
      where: `[T]` bool, any mask; default all.

    Returns:
      `[T]`; 0 where masked. Gradients pass through the snippets that stay.
    """
    where = _cumsum.mask_or_all(where, attention.shape[0])
    sure = jnp.where(attention >= high, 1.0, attention).astype(attention.dtype)
    return jnp.where(where & (attention > low), sure, 0)


def hard_attention(
    attention: jax.Array,
    key: jax.Array,
    *,
    low: jax.typing.ArrayLike = 0.2,
    drop_rate: jax.typing.ArrayLike = 0.8,
    where: jax.Array | None = None,
) -> jax.Array:
    """The document's hard attention: hides at random what is not surely background.

    >>> import jax, jax.numpy as jnp
    >>> attention = jnp.array([0.1, 0.9, 0.9, 0.9])
    >>> print(hard_attention(attention, jax.random.key(0), drop_rate=1.0))
    [1. 0. 0. 0.]

    Args:
      attention: `[T]`.
      key: of the draw; another one each update.
      low: a snippet with less is surely background, and stays.
      drop_rate: how likely each of the others is hidden.
      where: `[T]` bool, any mask; default all.

    Returns:
      `[T]` 1 for snippets that are seen, 0 for hidden and masked ones. It carries no gradient.
    """
    where = _cumsum.mask_or_all(where, attention.shape[0])
    stays = ~jax.random.bernoulli(key, drop_rate, attention.shape)
    return ((stays | (attention < low)) & where).astype(attention.dtype)


def published_semi_soft_attention(
    attention: jax.Array, *, gamma: jax.typing.ArrayLike = 0.2, where: jax.Array | None = None
) -> jax.Array:
    """The published semi-soft attention: the soft one with its strong snippets erased.

    >>> import jax.numpy as jnp
    >>> print(published_semi_soft_attention(jnp.array([0.1, 0.25, 0.5, 1.0]), gamma=0.5))
    [0.1  0.25 0.   0.  ]

    Args:
      attention: `[T]`.
      gamma: snippets that reach this share of the recording's largest attention are erased.
      where: `[T]` bool, any mask; default all.

    Returns:
      `[T]`; 0 where masked. Gradients pass through the snippets that stay.
    """
    return published_hard_attention(attention, gamma=gamma, where=where) * jnp.where(
        _cumsum.mask_or_all(where, attention.shape[0]), attention, 0
    )


def published_hard_attention(
    attention: jax.Array, *, gamma: jax.typing.ArrayLike = 0.2, where: jax.Array | None = None
) -> jax.Array:
    """The published hard attention: 1 for the weak snippets, 0 for the strong ones.

    >>> import jax.numpy as jnp
    >>> print(published_hard_attention(jnp.array([0.1, 0.25, 0.5, 1.0]), gamma=0.5))
    [1. 1. 0. 0.]

    Args:
      attention: `[T]`, 0 or more.
      gamma: see `published_semi_soft_attention`.
      where: `[T]` bool, any mask; default all.

    Returns:
      `[T]`; 0 where masked. It carries no gradient.
    """
    where = _cumsum.mask_or_all(where, attention.shape[0])
    attention = jax.lax.stop_gradient(jnp.where(where, attention, 0))
    largest = attention.max(initial=0)
    return (where & (attention < gamma * largest)).astype(attention.dtype)


def attend(logits: jax.Array, attention: jax.Array) -> jax.Array:
    """Weighs logits so that an erased snippet falls to its lowest class logit, not to 0.

    >>> import jax.numpy as jnp
    >>> print(attend(jnp.array([[4.0, -2.0], [4.0, -2.0]]), jnp.array([0.5, 0.0])))
    [[ 1. -2.]
     [-2. -2.]]

    Args:
      logits: `[T, C + 1]`.
      attention: `[T]`, semi-soft or hard.

    Returns:
      `[T, C + 1]` `attention · (s − m) + m`, m being the snippet's lowest logit.
    """
    lowest = logits.min(axis=-1, keepdims=True)
    return attention[:, None] * (logits - lowest) + lowest
