"""Quality of pseudo segments: the segments that points get, against the true ones.

For evaluation only. The table by length shows what the average hides: pseudo segments of short
instances are mostly too long.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tal_jax._errors import InputError

EDGES_S = (1.5, 3.0, 6.0, 12.0)


@dataclasses.dataclass(frozen=True)
class QualityOfLength:
    """Quality among instances with a true length of `[shortest_s, longest_s)`.

    Shares and means are NaN without an instance.
    """

    shortest_s: float
    longest_s: float  # infinite in the last bin and for all lengths
    instances: int
    missing: int  # instances without a pseudo segment, which count as tIoU 0
    mean_iou: float
    recall_50: float  # share of instances with tIoU >= 0.5
    recall_70: float
    length_ratio: float  # median of pseudo length / true length, of those that have one


@dataclasses.dataclass(frozen=True)
class Quality:
    """Quality of pseudo segments in each bin of lengths, and of all."""

    bins: tuple[QualityOfLength, ...]
    total: QualityOfLength

    def to_dict(self) -> dict[str, Any]:
        """As JSON: NaN and infinity become None."""
        return {
            "bins": [_row_to_dict(one) for one in self.bins],
            "total": _row_to_dict(self.total),
        }


def quality_of(
    pseudo: np.ndarray, truth: np.ndarray, *, edges_s: Sequence[float] = EDGES_S
) -> Quality:
    """Compares one pseudo segment of each instance with the true one.

    Args:
      pseudo: `[N, 2]` start and end of each pseudo segment in seconds; NaN where there is none.
      truth: `[N, 2]` of the same instances; those with NaN are left out.
      edges_s: rising lengths between the bins, in seconds.

    Raises:
      ValueError: if the shapes differ or are not `[N, 2]`.
      InputError: if a segment ends before it starts, or a true one has no length.

    >>> nan = float("nan")
    >>> quality = quality_of([[0.0, 2.0], [nan, nan]], [[0.0, 1.0], [4.0, 8.0]])
    >>> quality.total.mean_iou, quality.total.missing, quality.bins[0].length_ratio
    (0.25, 1, 2.0)
    """
    pseudo, truth = np.asarray(pseudo, np.float64), np.asarray(truth, np.float64)
    if pseudo.shape != truth.shape or truth.ndim != 2 or truth.shape[1] != 2:
        raise ValueError(f"shapes {pseudo.shape} and {truth.shape}; expected [N, 2] twice")
    known = ~np.isnan(truth).any(axis=1)
    pseudo, truth = pseudo[known], truth[known]
    lengths_s = truth[:, 1] - truth[:, 0]
    if not (lengths_s > 0).all() or (pseudo[:, 1] < pseudo[:, 0]).any():
        raise InputError("pseudo segments: a segment ends before it starts, or a true one is empty")
    inner = np.minimum(pseudo, truth)[:, 1] - np.maximum(pseudo, truth)[:, 0]
    outer = np.maximum(pseudo, truth)[:, 1] - np.minimum(pseudo, truth)[:, 0]
    # Where the two are apart, `outer` also spans the gap between them, but the tIoU is 0.
    ious = np.maximum(inner, 0) / outer  # NaN where missing
    ratios = (pseudo[:, 1] - pseudo[:, 0]) / lengths_s

    def between(shortest_s: float, longest_s: float) -> QualityOfLength:
        chosen = (lengths_s >= shortest_s) & (lengths_s < longest_s)
        return _row(shortest_s, longest_s, ious[chosen], ratios[chosen])

    edges = [0.0, *edges_s, math.inf]
    bins = tuple(between(low, high) for low, high in zip(edges[:-1], edges[1:], strict=True))
    return Quality(bins, between(0.0, math.inf))


def format_table(quality: Quality) -> str:
    """The quality as an aligned text table, without a newline at the end."""
    header = ["true length", "instances", "missing", "mean tIoU", "R@.5", "R@.7", "length ratio"]
    rows = [header]
    for one in (*quality.bins, quality.total):
        values = (one.mean_iou, one.recall_50, one.recall_70, one.length_ratio)
        name = "all" if one is quality.total else _range(one)
        rows.append([name, str(one.instances), str(one.missing), *map(_number, values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _row(
    shortest_s: float, longest_s: float, ious: np.ndarray, ratios: np.ndarray
) -> QualityOfLength:
    missing = np.isnan(ious)
    ious, ratios = np.where(missing, 0, ious), ratios[~missing]

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if values.size else math.nan

    return QualityOfLength(
        shortest_s,
        longest_s,
        instances=len(ious),
        missing=int(missing.sum()),
        mean_iou=mean(ious),
        recall_50=mean(ious >= 0.5),
        recall_70=mean(ious >= 0.7),
        length_ratio=float(np.median(ratios)) if ratios.size else math.nan,
    )


def _row_to_dict(row: QualityOfLength) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _range(row: QualityOfLength) -> str:
    if math.isinf(row.longest_s):
        return f">= {row.shortest_s:g} s"
    if row.shortest_s == 0:
        return f"< {row.longest_s:g} s"
    return f"{row.shortest_s:g} to {row.longest_s:g} s"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
