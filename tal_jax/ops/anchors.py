# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
"""Anchor-free detection of segments on a temporal feature pyramid: anchors, targets and decoding.

Level l of a pyramid has a position for every $2^l$ snippets: the anchors of a recording are the
positions of all levels, the finest first. An anchor predicts class scores and its distances to the
start and the end of the action that it lies in, in units of its stride.

Source: the anchor-free heads of FCOS (Tian et al. 2019) over time, as in ActionFormer (Zhang et al.
2022).
"""

import dataclasses

import jax
import jax.numpy as jnp

from tal_jax._typing import Array, ArrayLike, Bool, Float, Int, Mask, Real
from tal_jax.ops import _check
from tal_jax.ops._static import static

# An anchor learns from actions whose middle is nearer than this many strides.
_CENTRE_RADIUS = 1.5
# Level l learns from actions whose farther end is 2 to 4 strides away from the anchor; the first
# level also from shorter, the last one also from longer ones.
_NEAREST, _FARTHEST = 2.0, 4.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Anchors:
    """The anchors of a pyramid over T snippets.

    Attributes:
      times: in snippets.
      strides: snippets from one anchor of a level to the next.
      nearest: distance in snippets of the farther end from which on an anchor learns an action.
      farthest: the distance up to which it does.
    """

    times: Float[Array, " A"]
    strides: Float[Array, " A"]
    nearest: Float[Array, " A"]
    farthest: Float[Array, " A"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Targets:
    """What the anchors of one recording learn.

    Attributes:
      index: of the segment that each anchor learns, int32; 0 for those that learn none.
      positive: True for the anchors that learn a segment.
    """

    index: Int[Array, " A"]
    positive: Bool[Array, " A"]


@static("length", "num_levels")
def pyramid_anchors(length: int, *, num_levels: int) -> Anchors:
    """Returns the anchors of a pyramid, the positions of all its levels.

    >>> anchors = pyramid_anchors(4, num_levels=2)
    >>> print(anchors.times, anchors.strides)
    [0.5 1.5 2.5 3.5 1.  3. ] [1. 1. 1. 1. 2. 2.]

    Args:
      length: T, a multiple of 2 ** (num_levels - 1) (static).
      num_levels: number of levels (static).

    Returns:
      `Anchors`, A = T + T / 2 + ….

    Raises:
      ValueError: if the length is no such multiple.
    """
    length = _check.static_size(length, "length", least=1)
    num_levels = _check.static_size(num_levels, "num_levels", least=1)
    if length % (1 << (num_levels - 1)):
        raise ValueError(f"length must be a multiple of {1 << (num_levels - 1)}, got {length}")
    parts: list[tuple[Array, ...]] = []
    for level in range(num_levels):
        stride, size = float(1 << level), length >> level
        times = (jnp.arange(size, dtype=jnp.float32) + 0.5) * stride
        least = _NEAREST * stride if level else 0.0
        most = _FARTHEST * stride if level < num_levels - 1 else jnp.inf
        others = (jnp.full(size, value, jnp.float32) for value in (stride, least, most))
        parts.append((times, *others))
    return Anchors(*(jnp.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@static("num_levels")
def all_of_strides(flags: Mask[ArrayLike, "*batch T"], *, num_levels: int) -> Bool[Array, "..."]:
    """Returns whether a flag holds for all snippets in the stride of each anchor of a pyramid.

    >>> flags = jnp.array([True, True, True, False])
    >>> print(all_of_strides(flags, num_levels=2).astype(int))
    [1 1 1 0 1 0]

    Args:
      flags: of the snippets, T a multiple of 2 ** (num_levels - 1); leading axes are batch axes.
      num_levels: number of levels (static).

    Returns:
      `[..., A]` in the order of `pyramid_anchors`.

    Raises:
      ValueError: if the shape or the type does not fit.
    """
    num_levels = _check.static_size(num_levels, "num_levels", least=1)
    level = _check.mask(flags, "flags", "... T", {})
    if level.shape[-1] % (1 << (num_levels - 1)):
        raise ValueError(f"T must be a multiple of {1 << (num_levels - 1)}, got {level.shape[-1]}")
    parts = [level]
    for _ in range(num_levels - 1):
        parts.append(parts[-1].reshape(*level.shape[:-1], -1, 2).all(axis=-1))
    return jnp.concatenate(parts, axis=-1)


def assign_anchors(
    anchors: Anchors,
    segments: Real[ArrayLike, "P 2"],
    *,
    where: Mask[ArrayLike, " P"] | None = None,
) -> Targets:
    """Returns which segment each anchor learns: centre sampling on the level that fits its length.

    An anchor learns the shortest of the segments that it lies in, whose middle is within 1.5
    strides, and whose farther end is at a distance that the anchor's level is for. A segment is
    also learnt by the anchor in whose stride its middle lies, on the level that fits half its
    length: that anchor may lie outside of a segment shorter than a snippet. So every segment whose
    middle lies in the recording, or the window of it, is learnt by an anchor, unless one that is no
    longer takes the same anchors.

    >>> anchors = pyramid_anchors(4, num_levels=1)
    >>> targets = assign_anchors(anchors, jnp.array([[0.0, 3.0]]))
    >>> print(targets.positive)
    [ True  True  True False]

    Args:
      anchors: of the recording.
      segments: starts and ends in snippets, of any classes.
      where: any mask, True for the segments that exist; default all.

    Returns:
      `Targets`.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    sizes: dict[str, int] = {}
    segments = _check.numbers(segments, "segments", "P 2", sizes)
    where = _check.mask(where, "where", "P", sizes)
    times, strides = anchors.times[:, None], anchors.strides[:, None]
    if not sizes["P"]:
        shape = anchors.times.shape
        return Targets(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))
    segments = jnp.where(where[:, None], segments, 0.0)
    starts, ends = segments[None, :, 0], segments[None, :, 1]
    lengths, middles = ends - starts, (starts + ends) / 2
    off_middle = jnp.abs(times - middles)
    farther = off_middle + lengths / 2
    inside = off_middle < lengths / 2
    fits = (anchors.nearest[:, None] <= farther) & (farther < anchors.farthest[:, None])
    learns = inside & fits & (off_middle < _CENTRE_RADIUS * strides)
    # The level for a segment's half length, and its anchor whose stride the middle lies in.
    half = jnp.maximum(lengths / 2, 0.0)
    level = (anchors.nearest[:, None] <= half) & (half < anchors.farthest[:, None])
    first = times - strides / 2
    holds = (first <= middles) & (middles < first + strides)
    learns = (learns | (level & holds)) & where[None, :]
    index = jnp.where(learns, lengths, jnp.inf).argmin(axis=1).astype(jnp.int32)
    positive = learns.any(axis=1)
    return Targets(jnp.where(positive, index, 0), positive)


def decode_segments(
    anchors: Anchors, offsets: Real[ArrayLike, "*batch A 2"]
) -> Float[Array, "*batch A 2"]:
    """Returns the segments that anchors predict: their times minus and plus scaled distances.

    >>> anchors = pyramid_anchors(2, num_levels=1)
    >>> print(decode_segments(anchors, jnp.array([[0.5, 1.0], [1.0, 0.25]])))
    [[0.   1.5 ]
     [0.5  1.75]]

    Args:
      anchors: of the recordings.
      offsets: distances to start and end in strides; leading axes are batch axes.

    Returns:
      Starts and ends in snippets, float32, not clipped to the recording.

    Raises:
      ValueError: if shapes or types do not fit.
    """
    offsets = _check.numbers(offsets, "offsets", "... A 2", {"A": anchors.times.shape[0]})
    shape = offsets.shape[:-1]
    times = jnp.broadcast_to(anchors.times, shape)
    before, after = jnp.moveaxis(offsets, -1, 0) * jnp.broadcast_to(anchors.strides, shape)[None]
    return jnp.stack([times - before, times + after], axis=-1)


def segment_diou(
    a: Real[ArrayLike, "*#batch 2"], b: Real[ArrayLike, "*#batch 2"]
) -> Float[Array, "..."]:
    r"""Returns the distance-IoU (DIoU) of pairs of segments, in [-1, 1].

    $$\mathrm{tIoU} - \frac{(m_a - m_b)^2}{u^2}$$

    with the middles m and the length u of the smallest segment that covers both: where segments do
    not overlap, its gradient still moves their middles together.

    >>> print(segment_diou(jnp.array([0.0, 2.0]), jnp.array([[0.0, 2.0], [2.0, 4.0]])))
    [ 1.   -0.25]

    Args:
      a: starts and ends that are not before them; leading axes are batch axes.
      b: starts and ends, broadcast against `a`.

    Returns:
      float32.

    Raises:
      ValueError: if shapes or types do not fit.

    Source: distance-IoU loss (Zheng et al. 2020), equation 7, on a line.
    """
    a, b = jnp.broadcast_arrays(_check.numbers(a, "a", "... 2"), _check.numbers(b, "b", "... 2"))
    low, high = jnp.minimum(a, b), jnp.maximum(a, b)
    shared = jnp.maximum(low[..., 1] - high[..., 0], 0.0)
    hull = high[..., 1] - low[..., 0]
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    apart = (a.sum(axis=-1) - b.sum(axis=-1)) / 2
    return _share(shared, union) - jnp.square(_share(apart, hull))


def _share(part: Float[Array, "*batch"], whole: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A quotient, 0 where the denominator is: of segments without length."""
    some = whole > 0
    return jnp.where(some, part / jnp.where(some, whole, 1.0), 0.0)
