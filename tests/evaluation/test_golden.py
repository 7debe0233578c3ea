"""The mAP of made-up detections as ActivityNet's public evaluation computes it.

`activitynet_golden.json` holds 14 recordings with 62 instances and 117 detections of 5 classes, and
the average precision from `Evaluation/eval_detection.py` of github.com/activitynet/ActivityNet
(commit 2795199f, in Python 3 and pandas): no code of this project took part. Scores are distinct:
that code leaves the order of equal ones to its sort.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tal_jax.evaluation import detection

GOLDEN = json.loads((Path(__file__).parent / "activitynet_golden.json").read_text())


def _metrics():
    truth, found = GOLDEN["ground_truth"], GOLDEN["predictions"]
    return detection.evaluate_detections(
        truth, found, tious=GOLDEN["tious"], subset=GOLDEN["subset"]
    )


def test_average_precision_of_each_class():
    metrics = _metrics()
    assert set(metrics.classes) == set(GOLDEN["ap"])
    want = np.stack([GOLDEN["ap"][label] for label in metrics.classes], axis=1)
    np.testing.assert_allclose(metrics.ap, want, rtol=1e-9, atol=1e-12)
    assert len(np.unique(want)) > 30  # no trivial file


def test_mean():
    np.testing.assert_allclose(_metrics().map, GOLDEN["map"], rtol=1e-9)
    assert _metrics().average_map == pytest.approx(np.mean(GOLDEN["map"]), rel=1e-9)
    assert _metrics().num_ground_truth == 62
