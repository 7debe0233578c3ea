"""The losses of both systems, one function each; those of HAM-Net come last.

All take one recording's arrays (batch with `jax.vmap`), except `feature_contrast_loss`, which
compares segments across a batch. Masks are called `where`; nothing valid gives 0.
"""

import functools

import jax
import jax.numpy as jnp

from tal_jax.ops import pooling

_EPSILON = 1e-6  # keeps the logarithms of pooled probabilities finite
_TINY = 1e-30  # keeps powers with exponents below 1 finite


def video_loss(
    scores: jax.Array,
    labels: jax.Array,
    *,
    topk_ratio: jax.typing.ArrayLike = 8,
    where: jax.Array | None = None,
    counted: jax.Array | None = None,
) -> jax.Array:
    """Binary cross-entropy of the recording's class scores, mean over classes (`L_vid`).

    A labelled class is judged by the mean of its top `max(1, ⌊T_valid / topk_ratio⌋)` scores, any
    other by its mean over time.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[0.5, 0.0], [1.0, 0.0], [0.0, 0.0]])
    >>> print(f"{video_loss(scores, jnp.array([True, False]), topk_ratio=1.5):.4f}")
    0.1438

    Args:
      scores: `[T, C]` probabilities.
      labels: `[C]` True for the classes of the recording.
      topk_ratio: the share of a recording that its rarest class fills, inverted.
      where: `[T]` True on the valid snippets; default all.
      counted: `[C]` True for the classes that are known to be there or not; default all.

    Returns:
      `[]` the loss.
    """
    where = jnp.ones(scores.shape[0], bool) if where is None else where
    count = where.sum(dtype=jnp.int32)
    pooled = topk_pool(scores, topk_ratio=topk_ratio, where=where)
    mean = jnp.where(where[:, None], scores, 0).sum(axis=0) / jnp.maximum(count, 1).astype(
        scores.dtype
    )
    score = jnp.clip(jnp.where(labels, pooled, mean), _EPSILON, 1 - _EPSILON)
    loss = _mean_over_time(-jnp.where(labels, jnp.log(score), jnp.log1p(-score)), counted)
    return jnp.where(count > 0, loss, 0)


def topk_pool(
    scores: jax.Array, *, topk_ratio: jax.typing.ArrayLike, where: jax.Array | None = None
) -> jax.Array:
    """A recording's scores or logits `[C]` from those of its snippets `[T, C]`.

    Each channel's mean of its top `max(1, ⌊T_valid / topk_ratio⌋)` valid snippets.
    """
    where = jnp.ones(scores.shape[0], bool) if where is None else where
    count = topk_count(where.sum(dtype=jnp.int32), topk_ratio)
    return pooling.topk_mean(scores, count, where=where)


def topk_count(length: jax.Array, topk_ratio: jax.typing.ArrayLike) -> jax.Array:
    """How many snippets stand for a class in a recording of `length` valid ones (int32)."""
    share = length.astype(jnp.float32) / jnp.asarray(topk_ratio, jnp.float32)
    return jnp.maximum(jnp.floor(share).astype(jnp.int32), 1)


def focal_loss(
    logits: jax.Array,
    targets: jax.Array,
    *,
    exponent: jax.typing.ArrayLike = 2.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Focal binary cross-entropy, summed over channels, mean over snippets (`L_point`).

    >>> import jax.numpy as jnp
    >>> print(f"{focal_loss(jnp.zeros((3, 2)), jnp.ones((3, 2))):.4f}")
    0.3466

    Args:
      logits: `[T, C + 1]`.
      targets: `[T, C + 1]` in [0, 1].
      exponent: how strongly what is already right is played down.
      where: `[T]` True on the snippets that count; default all.

    Returns:
      `[]` the loss; gradients reach the logits alone.
    """
    exponent = jnp.asarray(exponent, logits.dtype)
    logits = _without_masked(logits, where)
    losses = _focal_entropy(logits, targets.astype(logits.dtype), exponent)
    return _mean_over_time(losses.sum(axis=-1), where)


def dense_loss(
    logits: jax.Array, targets: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Binary cross-entropy, summed over channels, mean over snippets (`L_ins`).

    >>> import jax.numpy as jnp
    >>> print(f"{dense_loss(jnp.zeros((3, 2)), jnp.ones((3, 2))):.4f}")
    1.3863

    Args:
      logits: `[T, C + 1]`.
      targets: `[T, C + 1]` in [0, 1], rows of sum 1.
      where: `[T]` True on the snippets that count; default all.

    Returns:
      `[]` the loss.
    """
    return focal_loss(logits, targets, exponent=0.0, where=where)


def sequence_contrast_loss(
    contrasts: jax.Array, action: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """`(mean_action(1 − R) + mean_background(1 − R))²` over a sequence (`select="all"`).

    >>> import jax.numpy as jnp
    >>> action = jnp.array([True, False, False])
    >>> print(f"{sequence_contrast_loss(jnp.array([0.5, 0.9, 0.7]), action):.4f}")
    0.4900

    Args:
      contrasts: `[N]` inner-outer contrasts of the segments.
      action: `[N]` True for action segments.
      where: `[N]` True for the segments that exist; default all.

    Returns:
      `[]` the loss.
    """
    where = jnp.ones(contrasts.shape, bool) if where is None else where
    lack = 1 - contrasts
    action_part = _mean_over_time(lack, where & action)
    background_part = _mean_over_time(lack, where & ~action)
    return (action_part + background_part) ** 2


def best_contrast_loss(contrasts: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """`1/Σy Σ_c y_c (1 − R(F_c^best))²` (`select="best"`).

    >>> import jax.numpy as jnp
    >>> print(best_contrast_loss(jnp.array([0.5, 1.0])))
    0.125

    Args:
      contrasts: `[C]` contrast of each class's best segment.
      where: `[C]` True for the labelled classes; default all.

    Returns:
      `[]` the loss.
    """
    contrasts = _without_masked(contrasts, where)
    return _mean_over_time((1 - contrasts) ** 2, where)


def feature_contrast_loss(
    embeddings: jax.Array,
    labels: jax.Array,
    action: jax.Array,
    *,
    temperature: jax.typing.ArrayLike = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """InfoNCE over segments: a class's actions attract each other, its background repels.

    Every action segment with a same-class mate is an anchor of
    `−log Σ_mates / (Σ_mates + Σ_background)`, the sums over `exp(cos / temperature)`.

    >>> import jax.numpy as jnp
    >>> embeddings = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> action = jnp.array([True, True, False])
    >>> loss = feature_contrast_loss(embeddings, jnp.zeros(3, int), action, temperature=1.0)
    >>> print(f"{loss:.4f}")
    0.3133

    Args:
      embeddings: `[N, W]` mean embeddings of segments of a whole batch.
      labels: `[N]` the class whose sequence the segment belongs to.
      action: `[N]` True for action, False for that sequence's background.
      temperature: of the softmax.
      where: `[N]` True for the segments that exist; default all.

    Returns:
      `[]` mean over the anchors.
    """
    where = jnp.ones(labels.shape, bool) if where is None else where
    squares = (jnp.where(where[:, None], embeddings, 0) ** 2).sum(axis=-1, keepdims=True)
    norms = jnp.sqrt(jnp.maximum(squares, 1e-12))
    unit = jnp.where(where[:, None], embeddings, 0) / norms
    losses_of = functools.partial(
        _anchor_losses,
        unit=unit,
        labels=labels,
        action=action & where,
        background=~action & where,
        temperature=jnp.asarray(temperature, unit.dtype),
    )
    size = labels.shape[0]
    at = jnp.arange(size, dtype=jnp.int32)
    if size <= _MOST_AT_ONCE:
        total, count = losses_of(at)
        return total / jnp.maximum(count, 1)
    # Lists have room for the fullest recordings, and most of it is empty: the cost follows the
    # number of actions, which come first.
    order = at[jnp.argsort(~(action & where), stable=True)]
    order = jnp.pad(order, (0, -size % _ANCHORS_AT_ONCE), constant_values=size)
    exists = jnp.pad(action & where, (0, 1))

    def add(sums, rows):
        some = jax.lax.cond(
            exists[rows].any(),
            jax.checkpoint(losses_of),
            lambda rows: (jnp.zeros((), unit.dtype),) * 2,
            rows,
        )
        return jax.tree.map(jnp.add, sums, some), None

    zeros = (jnp.zeros((), unit.dtype),) * 2
    (total, count), _ = jax.lax.scan(add, zeros, order.reshape(-1, _ANCHORS_AT_ONCE))
    return total / jnp.maximum(count, 1)


# Segments that are compared with each other in one matrix; of more, so many rows at a time.
_MOST_AT_ONCE, _ANCHORS_AT_ONCE = 1024, 256


def _anchor_losses(rows, *, unit, labels, action, background, temperature):
    """The sum of the losses of the anchors among the segments `rows` `[R]`, and their number.

    Rows beyond the last segment are none.
    """
    size = labels.shape[0]
    valid = rows < size
    chosen = jnp.minimum(rows, size - 1)
    own = chosen[:, None] == jnp.arange(size, dtype=rows.dtype)[None, :]
    similar = (unit[chosen] @ unit.T) / temperature
    is_action = (action[chosen] & valid)[:, None]
    same = is_action & (labels[chosen][:, None] == labels[None, :])
    mates = same & action[None, :] & ~own
    anchors = mates.any(axis=1)
    rivals = mates | (same & background[None, :])
    # Rows without mates get one harmless entry, so that their unused logarithms stay finite.
    spare = own & ~anchors[:, None]
    loss = _masked_logsumexp(similar, rivals | spare) - _masked_logsumexp(similar, mates | spare)
    return jnp.where(anchors, loss, 0).sum(), anchors.sum(dtype=unit.dtype)


# --- HAM-Net ---


def classification_loss(
    logits: jax.Array,
    labels: jax.Array,
    *,
    background: jax.typing.ArrayLike,
    topk_ratio: jax.typing.ArrayLike = 10,
    where: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of the recording's softmax with its labels, in equal shares.

    >>> import jax.numpy as jnp
    >>> labels = jnp.array([True, False])
    >>> print(f"{classification_loss(jnp.zeros((5, 3)), labels, background=1.0):.4f}")
    1.0986

    Args:
      logits: `[T, C + 1]`, the last channel is the background.
      labels: `[C]` True for the classes of the recording.
      background: 1 if this branch is to see background in every recording, 0 if in none.
      topk_ratio: see `topk_pool`.
      where: `[T]` True on the valid snippets; default all.

    Returns:
      `[]` the loss; 0 where there is no label at all, or nothing valid.
    """
    where = jnp.ones(logits.shape[0], bool) if where is None else where
    pooled = topk_pool(_without_masked(logits, where), topk_ratio=topk_ratio, where=where)
    background = jnp.asarray(background, logits.dtype)[None]
    target = jnp.concatenate([labels.astype(logits.dtype), background])
    shares = target / jnp.maximum(target.sum(), 1)
    loss = -(shares * jax.nn.log_softmax(pooled)).sum()
    return jnp.where(where.any() & (target.sum() > 0), loss, 0)


def guide_loss(
    attention: jax.Array, background: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """`mean |1 − a − P_bg|`: attention is to be where the background is not.

    >>> import jax.numpy as jnp
    >>> print(f"{guide_loss(jnp.array([0.9, 0.5]), jnp.array([0.1, 0.1])):.2f}")
    0.20

    Args:
      attention: `[T]`.
      background: `[T]` probability of the background. It guides and is not guided: no gradient
        reaches it, else the classifier follows an attention that is still untrained.
      where: `[T]` True on the valid snippets; default all.

    Returns:
      `[]` the loss.
    """
    off = 1 - attention - jax.lax.stop_gradient(background)
    return _mean_over_time(jnp.abs(_without_masked(off, where)), where)


def sparsity_loss(attention: jax.Array, *, where: jax.Array | None = None) -> jax.Array:
    """`mean a`: attention is to be scarce.

    >>> import jax.numpy as jnp
    >>> print(sparsity_loss(jnp.array([0.5, 1.0, 9.0]), where=jnp.array([True, True, False])))
    0.75

    Args:
      attention: `[T]`, 0 or more.
      where: `[T]` True on the valid snippets; default all.

    Returns:
      `[]` the loss.
    """
    return _mean_over_time(_without_masked(attention, where), where)


# --- shared ---


def _entropy_parts(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, ...]:
    """The probability, the cross-entropy, and how far the probability is off.

    What optax computes, in one exponential and one logarithm. Its gradient goes through
    `logaddexp`, which on a CPU makes these losses cost as much as the network.
    """
    small = jnp.exp(-jnp.abs(logits))  # in (0, 1]: nothing overflows
    probabilities = jnp.where(logits >= 0, 1, small) / (1 + small)
    entropies = jnp.maximum(logits, 0) - logits * targets + jnp.log1p(small)
    return probabilities, entropies, probabilities + targets - 2 * probabilities * targets


@jax.custom_vjp
def _focal_entropy(logits: jax.Array, targets: jax.Array, exponent: jax.Array) -> jax.Array:
    """Elementwise focal cross-entropy; its gradient in closed form is several times faster."""
    _, entropies, off = _entropy_parts(logits, targets)
    return off**exponent * entropies


def _focal_gradient(residuals, cotangent):
    logits, targets, exponent = residuals
    probabilities, entropies, off = _entropy_parts(logits, targets)
    slope = probabilities * (1 - probabilities) * (1 - 2 * targets)  # of `off`
    # `off` is 0 only where the logit saturates; there its power's slope is 0 as well.
    falling = exponent * jnp.maximum(off, _TINY) ** (exponent - 1) * slope * entropies
    gradient = falling + off**exponent * (probabilities - targets)
    return cotangent * gradient, None, None


_focal_entropy.defvjp(lambda *args: (_focal_entropy(*args), args), _focal_gradient)


def _masked_logsumexp(values: jax.Array, where: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(jnp.where(where, values, -jnp.inf), axis=-1)


def _without_masked(values: jax.Array, where: jax.Array | None) -> jax.Array:
    """Zeros in place of masked entries, so that not even their gradient can be NaN."""
    if where is None:
        return values
    return jnp.where(where.reshape(where.shape + (1,) * (values.ndim - where.ndim)), values, 0)


def _mean_over_time(values: jax.Array, where: jax.Array | None) -> jax.Array:
    """Mean of the valid entries; 0, with zero gradient, where there is none."""
    if where is None:
        return values.mean()
    total = jnp.where(where, values, 0).sum()
    return total / jnp.maximum(where.sum(dtype=values.dtype), 1)
