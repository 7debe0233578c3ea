"""The losses of the point-supervised system on a batch, against loops in float64."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tal_jax.data.timeline import Batch, MostPoints
from tal_jax.losses import rsmp
from tal_jax.losses.rsmp import PseudoLabels
from tal_jax.models.rsmp import RSMPOutput, pool
from tal_jax.ops.resampling import Resampled

LENGTH, PADDED, WIDTH = 400, 410, 6
# Instances of each class: one class has many times as many as the others.
STARTS = (np.arange(4, 386, 4), np.arange(30, 390, 80), np.array([5, 200, 350]))
LENGTHS = (2, 9, 20)
COUNTS = tuple(map(len, STARTS))


def _batch(**changes):
    """One recording of three classes with 96, 5 and 3 instances, clicked at their starts."""
    points, where = np.zeros((1, PADDED, 3), bool), np.arange(PADDED)[None] < LENGTH
    for index, starts in enumerate(STARTS):
        points[0, starts, index] = True
    times = np.arange(PADDED + 1, dtype=np.float32)[None]
    batch = Batch(
        features=np.zeros((1, PADDED, 1), np.float32),
        where=where,
        points=points,
        instances=np.zeros((1, PADDED, 3), bool),
        segments=np.zeros((1, 1, 2), np.float32),
        segment_class_index=np.zeros((1, 1), np.int32),
        segment_where=np.zeros((1, 1), bool),
        video_classes=np.array([[2, 0, 1]], np.int32),
        video_class_where=np.ones((1, 3), bool),
        video_class_clicked=np.ones((1, 3), bool),
        background=np.zeros_like(where),
        done=where,
        negative_classes=~np.eye(3, dtype=bool)[None],
        resampled=Resampled(None, None, times, where),
        cut=np.zeros(1, bool),
        most_points=MostPoints(max(COUNTS), sum(COUNTS)),
    )
    return dataclasses.replace(batch, **changes)


def _pseudo():
    sequences = np.zeros((1, 3, PADDED), bool)
    best = np.zeros((1, 3, PADDED, 2), np.int32)
    contrasts = np.full((1, 3, PADDED), -np.inf, np.float32)
    rng = np.random.default_rng(1)
    for index, (starts, length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
        for start in starts:
            sequences[0, index, start : start + length] = True
            best[0, index, start] = start, start + length
            contrasts[0, index, start] = rng.uniform()
    ready, background = np.ones(1, bool), np.zeros((1, PADDED), bool)
    return PseudoLabels(background, sequences, best, contrasts, ready)


def _branches():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 1, PADDED, 4)).astype(np.float32)
    return RSMPOutput(rng.normal(size=(1, PADDED, WIDTH)).astype(np.float32), logits)


def _losses(outputs, batch, pseudo, **settings):
    options = dict(topk_ratio=8.0, delta=0.25, temperature=0.1, select="all") | settings
    segments = rsmp.sequence_segments(batch, pseudo)
    compared = rsmp.compared_segments(batch, segments)
    embeddings = pool(outputs, compared.weights)
    return rsmp.rsmp_losses(
        outputs.logits, embeddings, batch, pseudo, segments, compared, **options
    )


@functools.cache
def _compiled(settings, most_compared):
    """The losses with these settings; the number, which a test changes, is read while tracing."""
    return jax.jit(lambda *given: _losses(*given, **dict(settings)))


def _parts(batch=None, pseudo=None, branches=None, **settings):
    losses = _compiled(tuple(settings.items()), rsmp._MOST_COMPARED)
    given = branches or _branches(), batch or _batch(), pseudo or _pseudo()
    return jax.tree.map(float, losses(*given))


# ---- references


def _runs(index):
    """`(start, end, is action)` of a class's sequence."""
    bounds = [0]
    for start in STARTS[index]:
        bounds += [start, start + LENGTHS[index]]
    bounds.append(LENGTH)
    return [(a, b, i % 2 == 1) for i, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))]


def _fused(label):
    logits = np.asarray(_branches().logits[0, 0], np.float64)
    probabilities = 1 / (1 + np.exp(-logits))
    return (probabilities[:, label] * (1 - probabilities[:, 3]))[:LENGTH]


def _contrast(scores, start, end, delta=0.25):
    width = int(np.ceil(delta * (end - start) - 1e-4))
    outside = np.concatenate([scores[max(start - width, 0) : start], scores[end : end + width]])
    return scores[start:end].mean() - (outside.mean() if len(outside) else 0)


def _score(index, label):
    scores = _fused(label)
    lacks = {True: [], False: []}
    for start, end, action in _runs(index):
        lacks[action].append(1 - _contrast(scores if action else 1 - scores, start, end))
    return (np.mean(lacks[True]) + np.mean(lacks[False])) ** 2


def _feature_loss(segments, temperature=0.1):
    """Of `(index, start, end, action)`: every pair in turn."""
    embedding = np.asarray(_branches().embedding[0], np.float64)
    means = [embedding[start:end].mean(axis=0) for _, start, end, _ in segments]
    means = [mean / np.linalg.norm(mean) for mean in means]
    values = []
    for i, (index, _, _, action) in enumerate(segments):
        mates = background = 0
        for j, (other, _, _, other_action) in enumerate(segments):
            if i == j or other != index or not action:
                continue
            similar = np.exp(means[i] @ means[j] / temperature)
            mates += similar * other_action
            background += similar * (not other_action)
        if mates:
            values.append(-np.log(mates / (mates + background)))
    return np.mean(values)


def _all_segments():
    return [(index, *run) for index in range(3) for run in _runs(index)]


# ---- no instance is left out


def test_every_instance_is_in_both_losses():
    """96 instances of one class beside two others."""
    parts = _parts()
    assert parts["segment_overflow"] == parts["feature_overflow"] == 0
    want = np.mean([_score(index, label) for index, label in enumerate((2, 0, 1))])
    assert parts["score"] == pytest.approx(want, rel=1e-4)
    assert parts["feat"] == pytest.approx(_feature_loss(_all_segments()), rel=1e-4)


def test_the_last_instance_of_each_class_is_learnt_from():
    """By the gradients, as far as the recording goes and no further."""
    branches, batch, pseudo = _branches(), _batch(), _pseudo()

    @jax.jit
    @jax.grad
    def gradient(given):
        embedding, logits = given
        changed = dataclasses.replace(branches, embedding=embedding, logits=logits)
        parts = _losses(changed, batch, pseudo, select="all")
        return parts["score"] + parts["feat"]

    of_embedding, of_logits = gradient((branches.embedding, branches.logits))
    for index, label in enumerate((2, 0, 1)):
        start = STARTS[index][-1]
        inside = slice(start, start + LENGTHS[index])
        assert np.abs(of_logits[0, 0, inside, label]).min() > 0
        assert np.abs(of_embedding[0, inside]).min() > 0
    assert not np.any(np.asarray(of_logits)[0, 0, LENGTH:])


def test_what_is_too_much_to_compare_is_of_all_classes_alike(monkeypatch):
    """Counted, and taken in turns: not the last class alone is left out."""
    monkeypatch.setattr(rsmp, "_MOST_COMPARED", 8)
    parts = _parts(select="all")
    assert parts["segment_overflow"] == 0
    assert parts["feature_overflow"] == (sum(COUNTS) - 8) + (sum(COUNTS) + 3 - 8)
    turns = {True: (3, 3, 2), False: (3, 3, 2)}
    kept = [
        (index, *run)
        for index in range(3)
        for action in (True, False)
        for run in [one for one in _runs(index) if one[2] == action][: turns[action][index]]
    ]
    assert parts["feat"] == pytest.approx(_feature_loss(kept), rel=1e-4)


# ---- the best segment


def test_the_best_segment_of_each_class():
    parts, pseudo = _parts(select="best"), _pseudo()
    want = []
    for index, label in enumerate((2, 0, 1)):
        start, end = pseudo.best[0, index, pseudo.contrasts[0, index].argmax()]
        want.append((1 - _contrast(_fused(label), start, end)) ** 2)
    assert parts["score"] == pytest.approx(np.mean(want), rel=1e-4)


def test_segments_that_leave_the_window_do_not_count():
    """The best of those inside does; a class without any is left out of the mean."""
    pseudo, index = _pseudo(), 0
    pseudo.contrasts[0, index, STARTS[index][[2, 5]]] = 3, 2
    pseudo.best[0, index, STARTS[index][2], 0] = -1
    pseudo.best[0, 1, :, 1] += LENGTH
    start, end = pseudo.best[0, index, STARTS[index][5]]
    want = [(1 - _contrast(_fused(2), start, end)) ** 2]
    start, end = pseudo.best[0, 2, pseudo.contrasts[0, 2].argmax()]
    want.append((1 - _contrast(_fused(1), start, end)) ** 2)
    assert _parts(pseudo=pseudo, select="best")["score"] == pytest.approx(np.mean(want), rel=1e-4)


@pytest.mark.parametrize("segment", [(0, 4), (LENGTH - 4, LENGTH)])
def test_segments_that_touch_the_ends_of_the_window_count(segment):
    pseudo, index = _pseudo(), 0
    winner = pseudo.contrasts[0, index].argmax()
    pseudo.best[0, index, winner] = segment
    want = [(1 - _contrast(_fused(2), *segment)) ** 2]
    for index, label in ((1, 0), (2, 1)):
        start, end = pseudo.best[0, index, pseudo.contrasts[0, index].argmax()]
        want.append((1 - _contrast(_fused(label), start, end)) ** 2)
    assert _parts(pseudo=pseudo, select="best")["score"] == pytest.approx(np.mean(want), rel=1e-4)


# ---- instances


def _background_only():
    """Every snippet is background: binary cross entropy of the channels, mean over snippets."""
    logits = np.asarray(_branches().logits[0, 0, :LENGTH], np.float64)
    targets = np.array([0, 0, 0, 1])
    return (np.logaddexp(0, logits) - targets * logits).sum(axis=1).mean()


def test_a_window_beside_all_instances_is_background():
    """Once there are proposals; before, nobody knows what the window holds."""
    assert _parts()["ins"] == 0
    beside = _batch(cut=np.ones(1, bool), segment_where=np.ones((1, 1), bool))
    assert _parts(beside)["ins"] == pytest.approx(_background_only(), rel=1e-5)


def test_a_recording_without_labelled_classes_is_background():
    nothing = np.zeros((1, 3), bool)
    empty = _batch(points=np.zeros((1, PADDED, 3), bool), video_class_where=nothing)
    assert _parts(empty)["ins"] == pytest.approx(_background_only(), rel=1e-5)
    unknown = dataclasses.replace(empty, done=np.zeros((1, PADDED), bool))
    assert _parts(unknown)["ins"] == 0


# ---- classes of a window


def _video(present, counted, topk_ratio=8):
    logits = np.asarray(_branches().logits[0, 0, :LENGTH, :3], np.float64)
    probabilities, values = 1 / (1 + np.exp(-logits)), []
    for label in counted:
        column = np.sort(probabilities[:, label])[::-1]
        if label in present:
            values.append(-np.log(column[: LENGTH // topk_ratio].mean()))
        else:
            values.append(-np.log(1 - column.mean()))
    return np.mean(values)


def test_classes_of_a_window():
    """A click proves a class; a pseudo label that reaches in neither proves it nor rules it out."""
    whole, pseudo = _batch(), _pseudo()
    # Slots 0, 1 and 2 are the classes 2, 0 and 1.
    assert _parts()["vid"] == pytest.approx(_video({0, 1, 2}, {0, 1, 2}), rel=1e-5)
    points = whole.points.copy()
    points[0, :, 1:] = False
    window = _batch(points=points, cut=np.ones(1, bool))
    assert _parts(window)["vid"] == pytest.approx(_video({2}, {2}), rel=1e-5)
    pseudo.sequences[0, 1] = False  # class 0 is elsewhere in the recording
    assert _parts(window, pseudo)["vid"] == pytest.approx(_video({2}, {2, 0}), rel=1e-5)
    instances = whole.instances.copy()
    instances[0, :3, 1] = True  # a pseudo instance of the round before reaches in
    reached = dataclasses.replace(window, instances=instances)
    assert _parts(reached, pseudo)["vid"] == pytest.approx(_video({2}, {2}), rel=1e-5)
    # Of a label without any click nobody knows where it is.
    clicked = np.array([[True, False, True]])
    unclicked = dataclasses.replace(window, video_class_clicked=clicked)
    assert _parts(unclicked, pseudo)["vid"] == pytest.approx(_video({2}, {2}), rel=1e-5)
    # Whatever is clicked: of a whole recording all labels hold.
    assert _parts(_batch(points=points))["vid"] == pytest.approx(
        _video({0, 1, 2}, {0, 1, 2}), rel=1e-5
    )
