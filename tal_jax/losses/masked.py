# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Masked losses of one recording; the last three belong to HAM-Net.

Batch them with `jax.vmap`; `feature_contrast_loss` alone compares segments across a batch. All of
them share these conventions:

- `where` marks the valid elements. A masked element changes neither the value nor any gradient, and
  nothing valid at all gives 0.
- `weights` multiplies each element's loss; the mean still divides by the number of valid elements.
- `reduce_fn(values, where=where)` reduces the elements' losses, by default as the formula does.
  `jnp.sum` and `jnp.max` with `initial=` fit as well; `None` returns the values, 0 where masked.
- Inputs may be float16, bfloat16, float32, float64 or integers; losses are computed and returned in
  float32, or in float64 where the scores are float64.
- Derivatives of any order exist in forward and in reverse mode. Labels, targets and weights are
  constants: no derivative is taken with respect to labels and targets.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real, Shaped
from tal_jax.ops import _check, pooling

_EPSILON = 1e-6  # keeps the logarithms of pooled probabilities finite
# Below it a base counts as 0 in the derivatives of its powers. Its square is a normal float32.
_TINY = 1e-18


# Reduces the losses of single elements, as `reduce_fn(values, where=where)`; None marks all.
ReduceFn = Callable[..., Array]


def masked_mean(
    values: Float[Array, "..."], /, *, where: Bool[Array, "..."] | None = None
) -> Float[Array, ""]:
    """Masked mean, the default reduction: 0 with zero gradient where nothing is valid.

    >>> import jax.numpy as jnp
    >>> print(masked_mean(jnp.array([1.0, 2.0, 9.0]), where=jnp.array([True, True, False])))
    1.5

    Args:
      values: floating-point numbers of any shape.
      where: True on the valid ones, in the same shape; default all.

    Returns:
      `[]` the mean, in the type of `values`.
    """
    if where is None:
        return values.mean()
    total = jnp.where(where, values, 0).sum()
    return total / jnp.maximum(where.sum(dtype=values.dtype), 1)


def video_loss(
    scores: Real[ArrayLike, "T C"],
    labels: Mask[ArrayLike, " C"],
    *,
    topk_ratio: ArrayLike = 8,
    where: Mask[ArrayLike, " T"] | None = None,
    counted: Mask[ArrayLike, " C"] | None = None,
    weights: Real[ArrayLike, " C"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""Video-level binary cross-entropy of top-k pooled scores, a multiple-instance learning loss.

    $$L_{vid} = -\frac{1}{C} \sum_c y_c \log \hat p_c + (1 - y_c) \log(1 - \hat p_c)$$

    The pooled score $\hat p_c$ of a labelled class is the mean of its top
    $k = \max(1, \lfloor T_{valid} / topk\_ratio \rfloor)$ snippets, that of any other class its
    mean over time; both are clipped to $[10^{-6}, 1 - 10^{-6}]$. The gradient is that at the
    clipped value: it does not vanish where a labelled class has lost its score.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[0.5, 0.0], [1.0, 0.0], [0.0, 0.0]])
    >>> print(f"{video_loss(scores, jnp.array([True, False]), topk_ratio=1.5):.4f}")
    0.1438

    Args:
      scores: `[T, C]` probabilities, a class activation sequence (CAS).
      labels: `[C]` True for the video classes.
      topk_ratio: sets k; may be traced.
      where: `[T]` True on the valid snippets; default all.
      counted: `[C]` True for the classes whose presence or absence is certain; default all.
      weights: `[C]` of the classes.
      reduce_fn: over the classes that count.

    Returns:
      `[]` the loss; `[C]` with `reduce_fn=None`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: `L_vid` of RSMP's joint training; top-k pooling as in W-TALC (Paul et al. 2018).
    """
    sizes: dict[str, int] = {}
    scores = _floats(scores, "scores", "T C", sizes)
    labels = _check.mask(labels, "labels", "C", sizes)
    counted = _check.mask(counted, "counted", "C", sizes)
    where = _mask(where, "T", sizes)
    count = where.sum(dtype=jnp.int32)
    pooled = topk_pool(scores, topk_ratio=topk_ratio, where=where)
    mean = jnp.where(where[:, None], scores, 0).sum(axis=0) / jnp.maximum(count, 1).astype(
        scores.dtype
    )
    score = _clip_straight_through(jnp.where(labels, pooled, mean))
    values = -jnp.where(labels, jnp.log(score), jnp.log1p(-score))
    loss = _reduce(values, counted, weights, reduce_fn)
    return jnp.where(count > 0, loss, 0)


def topk_pool(
    scores: Real[ArrayLike, "T C"],
    *,
    topk_ratio: ArrayLike,
    where: Mask[ArrayLike, " T"] | None = None,
) -> Float[Array, " C"]:
    """Temporal top-k mean pooling: video-level scores from per-snippet scores.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[0.5, 0.0], [1.0, 0.0], [0.0, 0.25], [0.0, 0.25]])
    >>> print(topk_pool(scores, topk_ratio=2))
    [0.75 0.25]

    Args:
      scores: `[T, C]` scores or logits.
      topk_ratio: the mean is that of the top `topk_count(T_valid, topk_ratio)` snippets.
      where: `[T]` True on the valid snippets; default all.

    Returns:
      `[C]` mean of each class's top scores; 0 if no snippet is valid.
    """
    sizes: dict[str, int] = {}
    scores = _floats(scores, "scores", "T C", sizes)
    where = _mask(where, "T", sizes)
    count = topk_count(where.sum(dtype=jnp.int32), topk_ratio)
    return pooling.topk_mean(scores, count, where=where)


def topk_count(length: Int[ArrayLike, ""], topk_ratio: ArrayLike) -> Int[Array, ""]:
    r"""Number of snippets k of top-k pooling, $\max(1, \lfloor length / topk\_ratio \rfloor)$.

    >>> print(topk_count(750, 8))
    93

    Args:
      length: `[]` valid snippets of a recording.
      topk_ratio: a positive number.

    Returns:
      `[]` int32.
    """
    share = jnp.asarray(length, jnp.float32) / jnp.asarray(topk_ratio, jnp.float32)
    return jnp.maximum(jnp.floor(share).astype(jnp.int32), 1)


def focal_loss(
    logits: Real[ArrayLike, "T C1"],
    targets: Shaped[ArrayLike, "T C1"],
    *,
    exponent: ArrayLike = 2.0,
    where: Mask[ArrayLike, " T"] | None = None,
    weights: Real[ArrayLike, " T"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""Focal loss on sigmoid logits, summed over channels, mean over snippets (`L_point`).

    $$L = \frac{1}{T} \sum_t \sum_c |p_{tc} - y_{tc}|^\gamma \, \mathrm{BCE}(p_{tc}, y_{tc}),
    \qquad p = \sigma(x)$$

    A soft target y is off by $p + y - 2 p y$.

    >>> import jax.numpy as jnp
    >>> print(f"{focal_loss(jnp.zeros((3, 2)), jnp.ones((3, 2))):.4f}")
    0.3466

    Args:
      logits: `[T, C + 1]` logits, the class activation sequence (CAS) with background.
      targets: `[T, C + 1]` in [0, 1].
      exponent: the focusing parameter $\gamma \ge 0$.
      where: `[T]` True on the snippets with a point label or seed; default all.
      weights: `[T]` of the snippets.
      reduce_fn: over the snippets.

    Returns:
      `[]` the loss; `[T]` with `reduce_fn=None`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: Lin et al. 2017 (RetinaNet), without the balance factor α; `L_point` of RSMP.
    """

    def losses(logits: Array, targets: Array) -> Array:
        return _focal_entropy(logits, targets, jnp.asarray(exponent, logits.dtype))

    return _snippet_loss(losses, logits, targets, where, weights, reduce_fn)


def instance_loss(
    logits: Real[ArrayLike, "T C1"],
    targets: Shaped[ArrayLike, "T C1"],
    *,
    where: Mask[ArrayLike, " T"] | None = None,
    weights: Real[ArrayLike, " T"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""Binary cross-entropy with dense pseudo-instance labels, mean over snippets (`L_ins`).

    $$L_{ins} = -\frac{1}{T} \sum_t \sum_c y_{tc} \log \sigma(x_{tc})
    + (1 - y_{tc}) \log(1 - \sigma(x_{tc}))$$

    >>> import jax.numpy as jnp
    >>> print(f"{instance_loss(jnp.zeros((3, 2)), jnp.ones((3, 2))):.4f}")
    1.3863

    Args:
      logits: `[T, C + 1]` logits, the class activation sequence (CAS) with background.
      targets: `[T, C + 1]` in [0, 1], rows of sum 1.
      where: `[T]` True on the valid snippets; default all.
      weights: `[T]` of the snippets.
      reduce_fn: over the snippets.

    Returns:
      `[]` the loss; `[T]` with `reduce_fn=None`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: `L_ins` of RSMP's joint training.
    """
    return _snippet_loss(_cross_entropy, logits, targets, where, weights, reduce_fn)


def sequence_contrast_loss(
    contrasts: Real[ArrayLike, " N"],
    action: Mask[ArrayLike, " N"],
    *,
    where: Mask[ArrayLike, " N"] | None = None,
    weights: Real[ArrayLike, " N"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""Score contrast loss of an optimal sequence from its outer-inner contrast (OIC) scores.

    $$L_{score} = \left( \frac{1}{N_a} \sum_{n \in a} (1 - R_n)
    + \frac{1}{N_b} \sum_{n \in b} (1 - R_n) \right)^2$$

    over the action segments a and the background segments b (`select="all"`).

    >>> import jax.numpy as jnp
    >>> action = jnp.array([True, False, False])
    >>> print(f"{sequence_contrast_loss(jnp.array([0.5, 0.9, 0.7]), action):.4f}")
    0.4900

    Args:
      contrasts: `[N]` OIC scores R of the segments; those of background segments are taken on
        inverted scores.
      action: `[N]` True for action segments.
      where: `[N]` True for the segments that exist; default all.
      weights: `[N]` of the segments.
      reduce_fn: over the segments of one kind, before the sum is squared.

    Returns:
      `[]` the loss; with `reduce_fn=None` the terms `1 − R`, `[N]`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: Lee & Byun 2021 (LACP), the score contrastive loss.
    """
    sizes: dict[str, int] = {}
    contrasts = _floats(contrasts, "contrasts", "N", sizes)
    action = _check.mask(action, "action", "N", sizes)
    where = _mask(where, "N", sizes)
    lack = 1 - _zero_masked(contrasts, where)
    if reduce_fn is None:
        return _reduce(lack, where, weights, None)
    action_part = _reduce(lack, where & action, weights, reduce_fn)
    background_part = _reduce(lack, where & ~action, weights, reduce_fn)
    return (action_part + background_part) ** 2


def best_contrast_loss(
    contrasts: Real[ArrayLike, " C"],
    *,
    where: Mask[ArrayLike, " C"] | None = None,
    weights: Real[ArrayLike, " C"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""Score contrast loss of each class's best segment by outer-inner contrast (OIC).

    $$L_{score} = \frac{1}{\sum_c y_c} \sum_c y_c \left(1 - R(F_c^{best})\right)^2$$

    >>> import jax.numpy as jnp
    >>> print(best_contrast_loss(jnp.array([0.5, 1.0])))
    0.125

    Args:
      contrasts: `[C]` OIC score R of each class's best segment (`select="best"`).
      where: `[C]` True for the video classes; default all.
      weights: `[C]` of the classes.
      reduce_fn: over the classes.

    Returns:
      `[]` the loss; `[C]` with `reduce_fn=None`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: `L_score` of RSMP's representative segments.
    """
    sizes: dict[str, int] = {}
    contrasts = _floats(contrasts, "contrasts", "C", sizes)
    where = _mask(where, "C", sizes)
    return _reduce((1 - _zero_masked(contrasts, where)) ** 2, where, weights, reduce_fn)


def feature_contrast_loss(
    embeddings: Real[ArrayLike, "N W"],
    labels: Int[ArrayLike, " N"],
    action: Mask[ArrayLike, " N"],
    *,
    temperature: ArrayLike = 0.1,
    where: Mask[ArrayLike, " N"] | None = None,
    weights: Real[ArrayLike, " N"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""Supervised contrastive loss (InfoNCE, NT-Xent) over segment embeddings (`L_feat`).

    $$L_{feat} = -\frac{1}{|A|} \sum_{i \in A} \log
    \frac{\sum_{j \in P_i} e^{\cos_{ij} / \tau}}{\sum_{j \in P_i \cup B_i} e^{\cos_{ij} / \tau}}$$

    Positives $P_i$ are the other action segments of the class of i, negatives $B_i$ the background
    segments of its sequences. Anchors A are the action segments with at least one positive. The
    cost grows with the square of N; more than 1,024 segments are compared block by block.

    >>> import jax.numpy as jnp
    >>> embeddings = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> action = jnp.array([True, True, False])
    >>> loss = feature_contrast_loss(embeddings, jnp.zeros(3, int), action, temperature=1.0)
    >>> print(f"{loss:.4f}")
    0.3133

    Args:
      embeddings: `[N, W]` mean embeddings of the segments of a whole batch.
      labels: `[N]` class index of each segment's sequence.
      action: `[N]` True for action segments, False for background segments.
      temperature: the temperature τ of the softmax, positive.
      where: `[N]` True for the segments that exist; default all.
      weights: `[N]` of the segments as anchors.
      reduce_fn: over the anchors.

    Returns:
      `[]` the loss; with `reduce_fn=None` the anchors' losses `[N]`, 0 for other segments.

    Raises:
      ValueError: if the shapes do not fit.

    Source: Khosla et al. 2020, the sum inside the logarithm, with negatives as in Lee & Byun 2021;
    `L_feat` of RSMP.
    """
    sizes: dict[str, int] = {}
    embeddings = _floats(embeddings, "embeddings", "N W", sizes)
    labels = _check.numbers(labels, "labels", "N", sizes, dtype=jnp.int32)
    action = _check.mask(action, "action", "N", sizes)
    where = _mask(where, "N", sizes)
    size = sizes["N"]
    squares = (_zero_masked(embeddings, where) ** 2).sum(axis=-1, keepdims=True)
    some = squares > 1e-12
    # An embedding of zeros has no direction, and gradient 0.
    unit = jnp.where(some, embeddings, 0) / jnp.sqrt(jnp.where(some, squares, 1))
    losses_of = functools.partial(
        _anchor_losses,
        unit=unit,
        labels=labels,
        action=action & where,
        background=~action & where,
        temperature=jnp.asarray(temperature, unit.dtype),
    )
    at = jnp.arange(size, dtype=jnp.int32)
    if size <= _MOST_AT_ONCE:
        return _reduce(*losses_of(at), weights, reduce_fn)
    # Lists have room for the fullest recordings, and most of it is empty: the cost follows the
    # number of actions, which come first.
    order = at[jnp.argsort(~(action & where), stable=True)]
    order = jnp.pad(order, (0, -size % _ANCHORS_AT_ONCE), constant_values=size)
    exists = jnp.pad(action & where, (0, 1))

    def block(rows: Array) -> tuple[Array, Array]:
        none = jnp.zeros(rows.shape, unit.dtype), jnp.zeros(rows.shape, bool)
        return jax.lax.cond(exists[rows].any(), jax.checkpoint(losses_of), lambda rows: none, rows)

    blocks = jax.lax.map(block, order.reshape(-1, _ANCHORS_AT_ONCE))
    losses, anchors = (
        jnp.zeros(size, values.dtype).at[order].set(values.ravel(), mode="drop")
        for values in blocks
    )
    return _reduce(losses, anchors, weights, reduce_fn)


# Segments that are compared with each other in one matrix; of more, so many rows at a time.
_MOST_AT_ONCE, _ANCHORS_AT_ONCE = 1024, 256


def _anchor_losses(
    rows: Array,
    *,
    unit: Array,
    labels: Array,
    action: Array,
    background: Array,
    temperature: Array,
) -> tuple[Array, Array]:
    """The loss of each segment of `rows` `[R]` as an anchor, and whether it is one.

    Rows beyond the last segment are none.
    """
    size = labels.shape[0]
    valid = rows < size
    chosen = jnp.minimum(rows, size - 1)
    itself = chosen[:, None] == jnp.arange(size, dtype=rows.dtype)[None, :]
    similar = (unit[chosen] @ unit.T) / temperature
    is_action = (action[chosen] & valid)[:, None]
    same = is_action & (labels[chosen][:, None] == labels[None, :])
    positives = same & action[None, :] & ~itself
    anchors = positives.any(axis=1)
    compared = positives | (same & background[None, :])
    # Rows without positives get one harmless entry, so that their unused logarithms stay finite.
    spare = itself & ~anchors[:, None]
    losses = _masked_logsumexp(similar, compared | spare) - _masked_logsumexp(
        similar, positives | spare
    )
    return jnp.where(anchors, losses, 0), anchors


# --- HAM-Net ---


def video_mil_loss(
    logits: Real[ArrayLike, "T C1"],
    labels: Mask[ArrayLike, " C"],
    *,
    background: ArrayLike,
    topk_ratio: ArrayLike = 10,
    where: Mask[ArrayLike, " T"] | None = None,
    weights: Real[ArrayLike, " C1"] | None = None,
    reduce_fn: ReduceFn | None = jnp.sum,
) -> Float[Array, "..."]:
    r"""Multiple-instance learning (MIL) loss: softmax cross-entropy of top-k pooled logits.

    $$L = -\sum_c \frac{y_c}{\sum_j y_j} \log \mathrm{softmax}(\hat x)_c$$

    over the classes and the background channel; $\hat x$ is the top-k mean over time.

    >>> import jax.numpy as jnp
    >>> labels = jnp.array([True, False])
    >>> print(f"{video_mil_loss(jnp.zeros((5, 3)), labels, background=1.0):.4f}")
    1.0986

    Args:
      logits: `[T, C + 1]` a class activation sequence (CAS); the last channel is the background.
      labels: `[C]` True for the video classes.
      background: the background's label y: 1 for a branch in which every recording contains
        background, 0 for one whose attention suppresses it.
      topk_ratio: see `topk_pool`.
      where: `[T]` True on the valid snippets; default all.
      weights: `[C + 1]` of the classes and the background.
      reduce_fn: over the terms of the sum; `jnp.sum` by default, as the labels' shares sum to 1.

    Returns:
      `[]` the loss, 0 without any label or any valid snippet; `[C + 1]` with `reduce_fn=None`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: the classification losses of HAM-Net (Islam, Long & Radke, AAAI 2021).
    """
    sizes: dict[str, int] = {}
    logits = _floats(logits, "logits", "T C+1", sizes)
    labels = _check.mask(labels, "labels", "C", {"C": sizes["C+1"] - 1})
    where = _mask(where, "T", sizes)
    pooled = topk_pool(_zero_masked(logits, where), topk_ratio=topk_ratio, where=where)
    target = jnp.concatenate(
        [labels.astype(logits.dtype), jnp.asarray(background, logits.dtype)[None]]
    )
    shares = target / jnp.maximum(target.sum(), 1)
    values = -(shares * jax.nn.log_softmax(pooled))
    loss = _reduce(values, jnp.ones_like(values, bool), weights, reduce_fn)
    return jnp.where(where.any() & (target.sum() > 0), loss, 0)


def guide_loss(
    attention: Real[ArrayLike, " T"],
    background: Real[ArrayLike, " T"],
    *,
    stop_gradient: bool = False,
    where: Mask[ArrayLike, " T"] | None = None,
    weights: Real[ArrayLike, " T"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""Guide loss: ties the attention to the complement of the background probability.

    $$L_{guide} = \frac{1}{T} \sum_t |1 - a_t - p^{bg}_t|$$

    >>> import jax.numpy as jnp
    >>> print(f"{guide_loss(jnp.array([0.9, 0.5]), jnp.array([0.1, 0.1])):.2f}")
    0.20

    Args:
      attention: `[T]` actionness in [0, 1].
      background: `[T]` background probability.
      stop_gradient: whether no gradient reaches `background`, so that the classifier does not
        follow an attention that is still untrained (static).
      where: `[T]` True on the valid snippets; default all.
      weights: `[T]` of the snippets.
      reduce_fn: over the snippets.

    Returns:
      `[]` the loss; `[T]` with `reduce_fn=None`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: the guide loss of HAM-Net (Islam, Long & Radke, AAAI 2021), which does not stop it.
    """
    sizes: dict[str, int] = {}
    attention = _floats(attention, "attention", "T", sizes)
    background = _floats(background, "background", "T", sizes).astype(attention.dtype)
    where = _mask(where, "T", sizes)
    if stop_gradient:
        background = jax.lax.stop_gradient(background)
    off = 1 - attention - background
    return _reduce(jnp.abs(_zero_masked(off, where)), where, weights, reduce_fn)


def sparsity_loss(
    attention: Real[ArrayLike, " T"],
    *,
    where: Mask[ArrayLike, " T"] | None = None,
    weights: Real[ArrayLike, " T"] | None = None,
    reduce_fn: ReduceFn | None = masked_mean,
) -> Float[Array, "..."]:
    r"""L1 sparsity loss of the attention, its mean over snippets.

    $$L_{sparse} = \frac{1}{T} \sum_t a_t$$

    >>> import jax.numpy as jnp
    >>> print(sparsity_loss(jnp.array([0.5, 1.0, 9.0]), where=jnp.array([True, True, False])))
    0.75

    Args:
      attention: `[T]` actionness, 0 or more.
      where: `[T]` True on the valid snippets; default all.
      weights: `[T]` of the snippets.
      reduce_fn: over the snippets.

    Returns:
      `[]` the loss; `[T]` with `reduce_fn=None`.

    Raises:
      ValueError: if the shapes do not fit.

    Source: the sparsity loss of HAM-Net (Islam, Long & Radke, AAAI 2021).
    """
    sizes: dict[str, int] = {}
    attention = _floats(attention, "attention", "T", sizes)
    where = _mask(where, "T", sizes)
    return _reduce(_zero_masked(attention, where), where, weights, reduce_fn)


# --- cross-entropy, differentiable any number of times ---
#
# What optax computes, in one exponential and one logarithm. Autodiff of its formula goes through
# `logaddexp`, which makes these losses on a CPU as expensive as the network.


@jax.custom_jvp
def _sigmoid(logits: Array) -> Array:
    small = jnp.exp(-jnp.abs(logits))  # in (0, 1]: nothing overflows
    return jnp.where(logits >= 0, 1, small) / (1 + small)


@_sigmoid.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    probabilities = _sigmoid(*primals)
    return probabilities, probabilities * (1 - probabilities) * tangents[0]


@jax.custom_jvp
def _cross_entropy(logits: Array, targets: Array) -> Array:
    small = jnp.exp(-jnp.abs(logits))
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(small)


@_cross_entropy.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    logits, targets = primals
    return _cross_entropy(logits, targets), (_sigmoid(logits) - targets) * tangents[0]


@jax.custom_jvp
def _focal_entropy(logits: Array, targets: Array, exponent: Array) -> Array:
    """Elementwise focal loss; its derivative in closed form is several times faster."""
    return _distance(_sigmoid(logits), targets) ** exponent * _cross_entropy(logits, targets)


@_focal_entropy.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    logits, targets, exponent = primals
    probabilities, entropies = _sigmoid(logits), _cross_entropy(logits, targets)
    off = _distance(probabilities, targets)
    power = _power(off, exponent)
    slope = probabilities * (1 - probabilities) * (1 - 2 * targets)  # of `off`
    gradient = _power_slope(off, exponent) * slope * entropies + power * (probabilities - targets)
    return power * entropies, gradient * tangents[0]


def _distance(probabilities: Array, targets: Array) -> Array:
    """|p − y| for hard targets, and its bilinear interpolation for soft ones."""
    return probabilities + targets - 2 * probabilities * targets


@jax.custom_jvp
def _power(base: Array, exponent: Array) -> Array:
    return base**exponent


@_power.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return _power(*primals), _power_slope(*primals) * tangents[0]


def _power_slope(base: Array, exponent: Array) -> Array:
    """Derivative of a power of a base in [0, 1], taken as 0 where the base is (almost) 0.

    A base is 0 only where a logit saturates, and then its own derivative is 0 as well.
    """
    usable = base > _TINY
    lower = jnp.where(exponent == 0, 1, exponent - 1)
    return jnp.where(usable, exponent * _power(jnp.where(usable, base, 1), lower), 0)


# --- shared ---


@jax.custom_jvp
def _clip_straight_through(scores: Array) -> Array:
    """Clips probabilities to where logarithms are finite; the gradient passes unchanged."""
    return jnp.clip(scores, _EPSILON, 1 - _EPSILON)


@_clip_straight_through.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _clip_straight_through(*primals), tangents[0]


def _snippet_loss(
    losses_of: Callable[[Array, Array], Array],
    logits: ArrayLike,
    targets: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    reduce_fn: ReduceFn | None,
) -> Array:
    """A loss of single logits and their targets `[T, C + 1]`, summed over channels, reduced."""
    sizes: dict[str, int] = {}
    logits = _floats(logits, "logits", "T C+1", sizes)
    targets = jnp.asarray(targets).astype(logits.dtype)
    targets = _floats(targets, "targets", "T C+1", sizes)
    where = _mask(where, "T", sizes)
    targets = jax.lax.stop_gradient(_zero_masked(targets, where))
    losses = losses_of(_zero_masked(logits, where), targets)
    return _reduce(losses.sum(axis=-1), where, weights, reduce_fn)


def _masked_logsumexp(values: Array, where: Array) -> Array:
    return jax.nn.logsumexp(jnp.where(where, values, -jnp.inf), axis=-1)


def _zero_masked(values: Array, where: Array) -> Array:
    """Zeros in place of masked entries, so that not even their gradient can be NaN."""
    return jnp.where(where.reshape(where.shape + (1,) * (values.ndim - where.ndim)), values, 0)


def _reduce(
    values: Array, where: Array, weights: ArrayLike | None, reduce_fn: ReduceFn | None
) -> Array:
    """Weighs and reduces the losses of single elements."""
    if weights is not None:
        weights = jnp.asarray(weights).astype(values.dtype)
        if weights.shape != values.shape:
            raise ValueError(f"weights must have shape {values.shape}, got {weights.shape}")
        values = values * _zero_masked(weights, where)
    if reduce_fn is None:
        return _zero_masked(values, where)
    return reduce_fn(values, where=where)


def _floats(value: ArrayLike, name: str, shape: str, sizes: dict[str, int]) -> Array:
    """`_check.numbers` in float32 at least; the elements of a loss may be split over devices."""
    array = _check.numbers(value, name, shape, sizes, dtype=None, split=True)
    return array.astype(_check.wide(array.dtype))


def _mask(where: ArrayLike | None, shape: str, sizes: dict[str, int]) -> Array:
    return _check.mask(where, "where", shape, sizes, split=True)
