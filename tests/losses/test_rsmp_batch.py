"""Every part of the RSMP loss on a batch of two recordings, against float64 loops over snippets."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rsmp_loss import DELTA, TEMPERATURE, TOPK_RATIO, compiled

from tal_jax.data.timeline import Batch, MostPoints
from tal_jax.losses import rsmp
from tal_jax.losses.rsmp import PseudoLabels
from tal_jax.ops.resampling import Resampled

# Half a minute of compilation each; test_rsmp.py has the assembled loss among the quick tests.
pytestmark = pytest.mark.slow

PADDED, WIDTH, BRANCHES, NUM_CLASSES = 300, 5, 2, 3
LENGTHS = (290, 170)
# Video classes of each recording, in an order of their own; class 1 is in neither.
VIDEO_CLASSES = ((2, 0), (0, 2))
# Action segments of each video class: 40 of one class, two long ones that overlap some of them;
# then two classes of which one lies inside the other.
ACTIONS = (
    ([(5 + 7 * i, 8 + 7 * i) for i in range(40)], [(50, 75), (200, 260)]),
    ([(20, 90), (120, 150)], [(30, 60), (100, 110), (140, 160)]),
)
# Pseudo instances of the round before: one end off, and one missing.
INSTANCES = (
    ([(5 + 7 * i, 9 + 7 * i) for i in range(40)], [(48, 75)]),
    ([(20, 92), (118, 150)], [(30, 60), (100, 110), (140, 160)]),
)
BACKGROUND_SEEDS = ((0, 1, 2, 47, 288), (0, 95, 96, 169))
WEIGHTS = {
    "lambda_vid": 0.7,
    "lambda_point": 1.3,
    "lambda_pres": 0.9,
    "lambda_ins": 1.7,
    "action_weight": 0.4,
    "feat_weight": 0.6,
}


def _spans(spans, length=PADDED):
    filled = np.zeros(length, bool)
    for start, end in spans:
        filled[start:end] = True
    return filled


def _point(start, end):
    return start + (end - start) // 3


def _batch():
    points = np.zeros((2, PADDED, 2), bool)
    instances = np.zeros((2, PADDED, 2), bool)
    for row in range(2):
        for index in range(2):
            for span in ACTIONS[row][index]:
                points[row, _point(*span), index] = True
            instances[row, :, index] = _spans(INSTANCES[row][index])
    where = np.arange(PADDED) < np.array(LENGTHS)[:, None]
    times = np.broadcast_to(np.arange(PADDED + 1, dtype=np.float32), (2, PADDED + 1))
    return Batch(
        features=np.zeros((2, PADDED, 1), np.float32),
        where=where,
        points=points,
        instances=instances,
        segments=np.zeros((2, 1, 2), np.float32),
        segment_class_index=np.zeros((2, 1), np.int32),
        segment_where=np.ones((2, 1), bool),
        video_classes=np.array(VIDEO_CLASSES, np.int32),
        video_class_where=np.ones((2, 2), bool),
        video_class_clicked=np.ones((2, 2), bool),
        background=np.zeros_like(where),
        done=where,
        negative_classes=np.broadcast_to(~np.eye(2, dtype=bool), (2, 2, 2)),
        resampled=Resampled(None, None, times, where),
        cut=np.zeros(2, bool),
        most_points=MostPoints(40, 42),
    )


def _pseudo():
    sequences = np.stack([[_spans(spans) for spans in of_classes] for of_classes in ACTIONS])
    best = np.zeros((2, 2, PADDED, 2), np.int32)
    contrasts = np.full((2, 2, PADDED), -np.inf, np.float32)
    rng = np.random.default_rng(4)
    background = np.zeros((2, PADDED), bool)
    for row in range(2):
        background[row, list(BACKGROUND_SEEDS[row])] = True
        for index in range(2):
            for start, end in ACTIONS[row][index]:
                at = _point(start, end)
                best[row, index, at] = start - 1, end + 1
                contrasts[row, index, at] = rng.uniform(-1, 1)
    return PseudoLabels(background, sequences, best, contrasts, np.ones(2, bool))


def _outputs():
    rng = np.random.default_rng(5)
    logits = 2 * rng.normal(size=(BRANCHES, 2, PADDED, NUM_CLASSES + 1))
    features = rng.normal(size=(BRANCHES, 2, PADDED, WIDTH))
    return logits.astype(np.float32), features.astype(np.float32)


def _losses(pseudo, select):
    return jax.tree.map(float, compiled(*_outputs(), _batch(), pseudo, select))


def _weighted_sum(parts, weights):
    parts, weights = jax.tree.map(jnp.float32, (parts, weights))
    return jax.tree.map(float, rsmp.weighted_sum(parts, weights))


@functools.cache
def _got(select):
    return _weighted_sum(_losses(_pseudo(), select), WEIGHTS)


# --- references: one branch, one recording, one snippet after the other ---


def _probabilities(branch, row):
    logits = np.asarray(_outputs()[0][branch, row, : LENGTHS[row]], np.float64)
    return 1 / (1 + np.exp(-logits))


def _mean_over_batch(loss_of):
    return np.mean([loss_of(branch, row) for branch in range(BRANCHES) for row in range(2)])


def _entropy(probability, target):
    return -target * np.log(probability) - (1 - target) * np.log(1 - probability)


def _video(branch, row):
    probabilities, values = _probabilities(branch, row), []
    for label in range(NUM_CLASSES):
        column = sorted(probabilities[:, label], reverse=True)
        if label in VIDEO_CLASSES[row]:
            values.append(-np.log(np.mean(column[: int(LENGTHS[row] // TOPK_RATIO)])))
        else:
            values.append(-np.log(1 - np.mean(column)))
    return np.mean(values)


def _focal(branch, row, targets):
    """Of `{snippet: classes}`."""
    probabilities, values = _probabilities(branch, row), []
    for at, classes in targets.items():
        total = 0.0
        for channel, probability in enumerate(probabilities[at]):
            target = float(channel in classes)
            total += abs(probability - target) ** 2 * _entropy(probability, target)
        values.append(total)
    return np.mean(values)


def _point_action(branch, row):
    targets = {}
    for index, label in enumerate(VIDEO_CLASSES[row]):
        for span in ACTIONS[row][index]:
            targets.setdefault(_point(*span), set()).add(label)
    return _focal(branch, row, targets)


def _point_background(branch, row):
    return _focal(branch, row, {at: {NUM_CLASSES} for at in BACKGROUND_SEEDS[row]})


def _instances(branch, row):
    values = []
    for at, probabilities in enumerate(_probabilities(branch, row)):
        classes = [
            label
            for index, label in enumerate(VIDEO_CLASSES[row])
            if any(start <= at < end for start, end in INSTANCES[row][index])
        ] or [NUM_CLASSES]
        for channel, probability in enumerate(probabilities):
            target = (channel in classes) / len(classes)
            values.append(_entropy(probability, target))
    return np.sum(values) / LENGTHS[row]


def _contrast(scores, start, end):
    width = int(np.ceil(DELTA * (end - start) - 1e-4))
    outside = np.concatenate([scores[max(start - width, 0) : start], scores[end : end + width]])
    return scores[start:end].mean() - (outside.mean() if len(outside) else 0)


def _runs(row, index):
    """`(start, end, is action)` of an optimal sequence, background before, between and after."""
    runs, at = [], 0
    for start, end in ACTIONS[row][index]:
        runs += [(at, start, False)] * (at < start) + [(start, end, True)]
        at = end
    return runs + [(at, LENGTHS[row], False)] * (at < LENGTHS[row])


def _score(branch, row, select):
    probabilities, values = _probabilities(branch, row), []
    for index, label in enumerate(VIDEO_CLASSES[row]):
        scores = probabilities[:, label] * (1 - probabilities[:, NUM_CLASSES])
        if select == "best":
            pseudo = _pseudo()
            at = max(range(LENGTHS[row]), key=lambda at: pseudo.contrasts[row, index, at])
            values.append((1 - _contrast(scores, *pseudo.best[row, index, at])) ** 2)
        else:
            lacks = {True: [], False: []}
            for start, end, action in _runs(row, index):
                curve = scores if action else 1 - scores
                lacks[action].append(1 - _contrast(curve, start, end))
            values.append((np.mean(lacks[True]) + np.mean(lacks[False])) ** 2)
    return np.mean(values)


def _feature(branch):
    """Of the segments of both recordings together: a mate may be in the other one."""
    embedding, segments = np.asarray(_outputs()[1][branch], np.float64), []
    for row in range(2):
        for index, label in enumerate(VIDEO_CLASSES[row]):
            for start, end, action in _runs(row, index):
                mean = embedding[row, start:end].mean(axis=0)
                segments.append((mean / np.linalg.norm(mean), label, action))
    values = []
    for i, (anchor, label, action) in enumerate(segments):
        if not action:
            continue
        others = [one for j, one in enumerate(segments) if j != i and one[1] == label]
        near = sum(np.exp(anchor @ mean / TEMPERATURE) for mean, _, kind in others if kind)
        far = sum(np.exp(anchor @ mean / TEMPERATURE) for mean, _, kind in others if not kind)
        values.append(-np.log(near / (near + far)))
    return np.mean(values)


@functools.cache
def _want(select):
    return {
        "vid": _mean_over_batch(_video),
        "point_action": _mean_over_batch(_point_action),
        "point_background": _mean_over_batch(_point_background),
        "score": _mean_over_batch(functools.partial(_score, select=select)),
        "feat": np.mean([_feature(branch) for branch in range(BRANCHES)]),
        "ins": _mean_over_batch(_instances),
    }


def _total(want, weights):
    point = weights["action_weight"] * want["point_action"] + want["point_background"]
    pres = want["score"] + weights["feat_weight"] * want["feat"]
    return (
        weights["lambda_vid"] * want["vid"]
        + weights["lambda_point"] * point
        + weights["lambda_pres"] * pres
        + weights["lambda_ins"] * want["ins"]
    )


@pytest.mark.parametrize("select", ["all", "best"])
@pytest.mark.parametrize(
    "part", ["vid", "point_action", "point_background", "score", "feat", "ins"]
)
def test_parts(part, select):
    assert _got(select)[part] == pytest.approx(_want(select)[part], rel=2e-5)


@pytest.mark.parametrize("select", ["all", "best"])
def test_total(select):
    got, want = _got(select), _want(select)
    assert got["loss"] == pytest.approx(_total(want, WEIGHTS), rel=2e-5)
    assert got["segment_overflow"] == got["feature_overflow"] == 0


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_weight(name):
    """Each weight multiplies its own part and no other."""
    parts = _want("all")
    base = _weighted_sum(parts, WEIGHTS)["loss"]
    changed = WEIGHTS | {name: WEIGHTS[name] + 1}
    want = _total(parts, changed) - _total(parts, WEIGHTS)
    assert _weighted_sum(parts, changed)["loss"] - base == pytest.approx(want, rel=1e-4)
    assert want > 0.01


def test_nothing_but_points_before_the_first_search():
    """Sequences and background seeds count from the first search on."""
    pseudo = dataclasses.replace(_pseudo(), ready=np.zeros(2, bool))

    parts = _losses(pseudo, "all")
    assert parts["score"] == parts["feat"] == parts["point_background"] == 0
    for name in ("vid", "point_action", "ins"):
        assert parts[name] == pytest.approx(_want("all")[name], rel=2e-5)
