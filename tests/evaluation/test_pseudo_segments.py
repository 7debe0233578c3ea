"""Quality of pseudo segments: values by hand, and against loops in plain Python."""

import json
import math
import statistics

import numpy as np
import pytest

from tal_jax.evaluation.pseudo_segments import format_table, quality_of

NONE = (math.nan, math.nan)
TRUTH = [(10.0, 11.0), (20.0, 21.0), (30.0, 34.0), (40.0, 46.0), (50.0, 62.0)]
# Twice as long around, none, half of it, an end that is 1 s late, and right.
PSEUDO = [(9.5, 11.5), NONE, (31.0, 33.0), (40.0, 47.0), (50.0, 62.0)]


def test_values_by_hand():
    quality = quality_of(np.array(PSEUDO), np.array(TRUTH))
    short, _, middle, long, longest = quality.bins
    assert (short.instances, short.missing) == (2, 1)
    assert (short.mean_iou, short.recall_50, short.recall_70) == (0.25, 0.5, 0.0)
    assert short.length_ratio == 2.0  # of the one that has a pseudo segment
    assert (middle.instances, middle.mean_iou, middle.length_ratio) == (1, 0.5, 0.5)
    assert middle.recall_50 == 1.0  # tIoU .5 counts
    assert long.mean_iou == pytest.approx(6 / 7) and long.recall_70 == 1.0  # 6 s is in [6, 12)
    assert (longest.instances, longest.mean_iou) == (1, 1.0)  # and 12 s in the last
    total = quality.total
    assert (total.instances, total.missing) == (5, 1)
    assert total.mean_iou == pytest.approx((0.5 + 0 + 0.5 + 6 / 7 + 1) / 5)
    assert (total.recall_50, total.recall_70) == (0.8, 0.4)
    assert total.length_ratio == pytest.approx((7 / 6 + 1) / 2)


def test_empty_bins_are_unknown():
    empty = quality_of(np.array(PSEUDO), np.array(TRUTH)).bins[1]
    assert (empty.instances, empty.missing) == (0, 0)
    assert math.isnan(empty.mean_iou) and math.isnan(empty.length_ratio)
    nothing = quality_of(np.zeros((0, 2)), np.zeros((0, 2)))
    assert nothing.total.instances == 0 and math.isnan(nothing.total.recall_50)
    missing = quality_of([NONE], [(0.0, 1.0)]).total
    assert (missing.missing, missing.mean_iou) == (1, 0.0) and math.isnan(missing.length_ratio)


def test_unknown_truth_is_left_out():
    more = quality_of([*PSEUDO, (1.0, 2.0)], [*TRUTH, NONE])
    assert more.to_dict() == quality_of(PSEUDO, TRUTH).to_dict()


def test_against_a_loop():
    rng = np.random.default_rng(0)
    starts, lengths = rng.uniform(0, 100, (2, 300)), rng.exponential(6, (2, 300)) + 0.01
    truth = np.stack([starts[0], starts[0] + lengths[0]], axis=1)
    near = truth + rng.normal(0, 1, truth.shape)
    pseudo = np.sort(np.where(rng.random(300)[:, None] < 0.8, near, starts[1][:, None] + near))
    pseudo[rng.random(300) < 0.2] = np.nan
    edges = (0.5, 2.0, 9.0)
    quality = quality_of(pseudo, truth, edges_s=edges)
    assert len(quality.bins) == 4
    for row in (*quality.bins, quality.total):
        ious, ratios = [], []
        for (start, end), (low, high) in zip(pseudo.tolist(), truth.tolist(), strict=True):
            if not row.shortest_s <= high - low < row.longest_s:
                continue
            inner = max(min(end, high) - max(start, low), 0) if start == start else 0.0
            ious.append(inner / (end - start + high - low - inner) if inner else 0.0)
            ratios += [(end - start) / (high - low)] if start == start else []
        assert (row.instances, row.missing) == (len(ious), len(ious) - len(ratios))
        assert row.mean_iou == pytest.approx(statistics.mean(ious))
        assert row.recall_50 == pytest.approx(statistics.mean(one >= 0.5 for one in ious))
        assert row.recall_70 == pytest.approx(statistics.mean(one >= 0.7 for one in ious))
        assert row.length_ratio == pytest.approx(statistics.median(ratios))
    assert sum(row.instances for row in quality.bins) == quality.total.instances == 300


def test_json_and_table():
    quality = quality_of(PSEUDO, TRUTH)
    values = json.loads(json.dumps(quality.to_dict(), allow_nan=False))
    assert values["total"]["longest_s"] is None and values["bins"][1]["mean_iou"] is None
    assert values["bins"][0]["length_ratio"] == 2.0
    lines = format_table(quality).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["<", "1.5", "s", "2", "1", "0.25", "0.50", "0.00", "2.00"]
    assert lines[2].split() == "1.5 to 3 s 0 0 - - - -".split()
    assert lines[5].startswith(">= 12 s") and lines[6].split()[:3] == ["all", "5", "1"]


@pytest.mark.parametrize(
    ("pseudo", "truth", "says"),
    [
        ([(0.0, 1.0)], [], "shapes"),
        ([(0.0, 1.0, 2.0)], [(0.0, 1.0, 2.0)], "shapes"),
        ([(2.0, 1.0)], [(0.0, 1.0)], "ends before it starts"),
        ([(0.0, 1.0)], [(1.0, 1.0)], "a true one is empty"),
    ],
)
def test_wrong_arrays(pseudo, truth, says):
    with pytest.raises(ValueError, match=says):
        quality_of(pseudo, truth)
