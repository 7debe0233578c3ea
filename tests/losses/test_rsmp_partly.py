"""The RSMP loss on partly done recordings, against float64 loops over the snippets that count."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from rsmp_loss import DELTA, TEMPERATURE, TOPK_RATIO, compiled, losses

from tal_jax.data.timeline import Batch, MostPoints
from tal_jax.losses.rsmp import PseudoLabels
from tal_jax.ops.resampling import Resampled

# Half a minute of compilation each; test_rsmp.py has the assembled loss among the quick tests.
pytestmark = pytest.mark.slow

ROWS, PADDED, WIDTH, NUM_CLASSES = 3, 120, 4, 3
LENGTHS = (110, 90, 60)
# Two stretches, the second up to the end; one; none: a recording of points alone.
DONE = ([(10, 50), (70, 110)], [(0, 60)], [])
VIDEO_CLASSES = ((2, 0), (0, 2), (1, 0))
# Points of each video class. In row 0 class 0 and in row 1 class 2 have none in a done stretch.
POINTS = (((15, 47, 80), (60,)), ((22, 57), (80,)), ((5,), (50,)))
BACKGROUND_POINTS = ((30, 64), (85,), (20,))
SEEDS = ((11, 12, 30, 64, 72), (0, 1, 40, 85), (20,))
# Actions of the optimal sequences: one ends with its done stretch, one is near its beginning.
ACTIONS = (([(14, 20), (46, 50), (75, 85)], []), ([(2, 6), (20, 30), (55, 60)], []), ([], []))
# Pseudo instances reach into unknown time.
INSTANCES = (([(13, 21), (45, 53)], [(58, 62)]), ([(20, 31)], [(78, 82)]), ([(4, 7)], []))
BEST = {(0, 0, 15): (14, 20), (0, 0, 47): (46, 50), (1, 0, 22): (21, 33), (1, 0, 57): (55, 60)}
BEST_CONTRASTS = {(0, 0, 15): 0.2, (0, 0, 47): 0.4, (1, 0, 22): 0.1, (1, 0, 57): 0.05}


def _spans(spans):
    filled = np.zeros(PADDED, bool)
    for start, end in spans:
        filled[start:end] = True
    return filled


def _flags(snippets):
    filled = np.zeros(PADDED, bool)
    filled[list(snippets)] = True
    return filled


def _batch():
    where = np.arange(PADDED) < np.array(LENGTHS)[:, None]
    by_class = functools.partial(np.stack, axis=-1)
    times = np.broadcast_to(np.arange(PADDED + 1, dtype=np.float32), (ROWS, PADDED + 1))
    return Batch(
        features=np.zeros((ROWS, PADDED, 1), np.float32),
        where=where,
        points=np.stack([by_class([_flags(one) for one in row]) for row in POINTS]),
        instances=np.stack([by_class([_spans(one) for one in row]) for row in INSTANCES])
        & ~np.stack([_flags(row) for row in BACKGROUND_POINTS])[..., None],
        segments=np.zeros((ROWS, 1, 2), np.float32),
        segment_class_index=np.zeros((ROWS, 1), np.int32),
        segment_where=np.ones((ROWS, 1), bool),
        video_classes=np.array(VIDEO_CLASSES, np.int32),
        video_class_where=np.ones((ROWS, 2), bool),
        video_class_clicked=np.ones((ROWS, 2), bool),
        background=np.stack([_flags(row) for row in BACKGROUND_POINTS]),
        done=np.stack([_spans(row) for row in DONE]),
        negative_classes=np.broadcast_to(~np.eye(2, dtype=bool), (ROWS, 2, 2)),
        resampled=Resampled(None, None, times, where),
        cut=np.ones(ROWS, bool),
        most_points=MostPoints(3, 4, 2),
    )


def _pseudo():
    best = np.zeros((ROWS, 2, PADDED, 2), np.int32)
    contrasts = np.full((ROWS, 2, PADDED), -np.inf, np.float32)
    for at, segment in BEST.items():
        best[at], contrasts[at] = segment, BEST_CONTRASTS[at]
    return PseudoLabels(
        background=np.stack([_flags(row) for row in SEEDS]),
        sequences=np.stack([[_spans(one) for one in row] for row in ACTIONS]),
        best=best,
        contrasts=contrasts,
        ready=np.ones(ROWS, bool),
    )


def _outputs():
    rng = np.random.default_rng(7)
    logits = 2 * rng.normal(size=(1, ROWS, PADDED, NUM_CLASSES + 1))
    features = rng.normal(size=(1, ROWS, PADDED, WIDTH))
    return logits.astype(np.float32), features.astype(np.float32)


@functools.cache
def _got(select):
    return jax.tree.map(float, compiled(*_outputs(), _batch(), _pseudo(), select))


# --- references ---


def _probabilities(row):
    return 1 / (1 + np.exp(-np.asarray(_outputs()[0][0, row], np.float64)))


def _entropy(probability, target):
    return -target * np.log(probability) - (1 - target) * np.log(1 - probability)


def _done_snippets(row):
    return [at for start, end in DONE[row] for at in range(start, end)]


def _video(row):
    """A class that is clicked beside the done stretches alone is neither there nor absent."""
    done, values = _done_snippets(row), []
    for label in range(NUM_CLASSES):
        column = sorted((_probabilities(row)[at, label] for at in done), reverse=True)
        clicked = dict(zip(VIDEO_CLASSES[row], POINTS[row], strict=True)).get(label, ())
        if set(clicked) & set(done):
            values.append(-np.log(np.mean(column[: max(int(len(done) // TOPK_RATIO), 1)])))
        elif not clicked and done:
            values.append(-np.log(1 - np.mean(column)))
    return np.mean(values) if values else 0.0


def _focal(row, targets):
    values = [
        sum(
            abs(probability - (channel in classes)) ** 2 * _entropy(probability, channel in classes)
            for channel, probability in enumerate(_probabilities(row)[at])
        )
        for at, classes in targets.items()
    ]
    return np.mean(values)


def _point_action(row):
    pairs = zip(VIDEO_CLASSES[row], POINTS[row], strict=True)
    return _focal(row, {at: {label} for label, snippets in pairs for at in snippets})


def _point_background(row, seeds=SEEDS):
    return _focal(row, {at: {NUM_CLASSES} for at in {*seeds[row], *BACKGROUND_POINTS[row]}})


def _instances(row):
    values = []
    for at in range(LENGTHS[row]):
        classes = [
            label
            for index, label in enumerate(VIDEO_CLASSES[row])
            if any(start <= at < end for start, end in INSTANCES[row][index])
        ]
        if not classes and at not in {*_done_snippets(row), *BACKGROUND_POINTS[row]}:
            continue
        classes = classes or [NUM_CLASSES]
        values.append(
            sum(
                _entropy(probability, (channel in classes) / len(classes))
                for channel, probability in enumerate(_probabilities(row)[at])
            )
        )
    return np.mean(values)


def _contrast(scores, start, end, stretch):
    """Outside means outside within the done stretch."""
    width = int(np.ceil(DELTA * (end - start) - 1e-4))
    left = scores[max(start - width, stretch[0]) : start]
    right = scores[end : min(end + width, stretch[1])]
    outside = np.concatenate([left, right])
    return scores[start:end].mean() - (outside.mean() if len(outside) else 0)


def _runs(row, index):
    """`(start, end, is action, done stretch)` of the segments of a sequence."""
    runs = []
    for stretch in DONE[row]:
        at = stretch[0]
        for start, end in ACTIONS[row][index]:
            if stretch[0] <= start < stretch[1]:
                runs += [(at, start, False, stretch)] * (at < start)
                runs += [(start, end, True, stretch)]
                at = end
        runs += [(at, stretch[1], False, stretch)] * (at < stretch[1])
    return runs


def _searched():
    return [(row, index) for row in range(ROWS) for index in range(2) if ACTIONS[row][index]]


def _score(row, select):
    values = []
    for index, label in enumerate(VIDEO_CLASSES[row]):
        scores = _probabilities(row)[:, label] * (1 - _probabilities(row)[:, NUM_CLASSES])
        if (row, index) not in _searched():
            continue
        if select == "best":
            own = {at: value for at, value in BEST_CONTRASTS.items() if at[:2] == (row, index)}
            segment = BEST[max(own, key=own.get)]
            stretch = next(s for s in DONE[row] if s[0] <= segment[0] < s[1])
            values.append((1 - _contrast(scores, *segment, stretch)) ** 2)
            continue
        lacks = {True: [], False: []}
        for start, end, action, stretch in _runs(row, index):
            contrast = _contrast(scores if action else 1 - scores, start, end, stretch)
            lacks[action].append(1 - contrast)
        values.append((np.mean(lacks[True]) + np.mean(lacks[False])) ** 2)
    return np.mean(values) if values else 0.0


def _feature():
    embedding, segments = np.asarray(_outputs()[1][0], np.float64), []
    for row, index in _searched():
        for start, end, action, _ in _runs(row, index):
            mean = embedding[row, start:end].mean(axis=0)
            segments.append((mean / np.linalg.norm(mean), VIDEO_CLASSES[row][index], action))
    values = []
    for i, (anchor, label, action) in enumerate(segments):
        others = [one for j, one in enumerate(segments) if j != i and one[1] == label]
        near = sum(np.exp(anchor @ mean / TEMPERATURE) for mean, _, kind in others if kind)
        far = sum(np.exp(anchor @ mean / TEMPERATURE) for mean, _, kind in others if not kind)
        if action and near:
            values.append(-np.log(near / (near + far)))
    return np.mean(values)


@pytest.mark.parametrize("select", ["all", "best"])
def test_parts(select):
    got = _got(select)
    want = {
        "vid": np.mean([_video(row) for row in range(ROWS)]),
        "point_action": np.mean([_point_action(row) for row in range(ROWS)]),
        "point_background": np.mean([_point_background(row) for row in range(ROWS)]),
        "ins": np.mean([_instances(row) for row in range(ROWS)]),
        "score": np.mean([_score(row, select) for row in range(ROWS)]),
        "feat": _feature(),
    }
    for part, value in want.items():
        assert got[part] == pytest.approx(value, rel=2e-5), part
    assert got["segment_overflow"] == got["feature_overflow"] == 0


def test_background_points_count_before_the_first_search():
    pseudo = dataclasses.replace(_pseudo(), ready=np.zeros(ROWS, bool))
    got = compiled(*_outputs(), _batch(), pseudo, "all")
    nothing = [()] * ROWS
    want = np.mean([_point_background(row, nothing) for row in range(ROWS)])
    assert float(got["point_background"]) == pytest.approx(want, rel=2e-5)
    assert got["score"] == got["feat"] == 0


@pytest.mark.parametrize("select", ["all", "best"])
def test_unknown_time_has_no_part(select):
    """Neither in the losses, nor in their gradients, whatever its scores are."""
    logits, features = _outputs()
    batch = _batch()
    unknown = ~(batch.done | batch.background | (batch.points | batch.instances).any(axis=-1))
    assert unknown[batch.where].any()

    @jax.jit
    def total(logits, features):
        parts = losses(logits, features, _batch(), _pseudo(), select)
        return sum(parts[name] for name in ("vid", "point_action", "point_background", "ins")) + (
            parts["score"] + parts["feat"]
        )

    gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    want, (of_logits, of_features) = gradients(logits, features)
    assert not np.any(np.asarray(of_logits)[0, unknown])
    assert not np.any(np.asarray(of_features)[0, ~batch.done])
    assert np.any(np.asarray(of_logits)[0, ~unknown], axis=-1).all()
    spoilt = np.where(unknown[None, :, :, None], 50.0, logits)
    got, again = gradients(spoilt, features)
    assert got == want
    np.testing.assert_array_equal(again[0], of_logits)
