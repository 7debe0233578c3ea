"""Where to label next."""

import itertools

import numpy as np
import pytest

from tal_jax._errors import InputError
from tal_jax.data.annotations import merge_stretches
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import Predictions
from tal_jax.data.recordings import Point, Recording
from tal_jax.inference.suggestions import askable, labelled_stretches, suggest

CLASSES = ("jump", "run")
GRID = Grid(fps=10, stride_frames=5, window_frames=10)  # snippets of half a second


def _recording(name="r", duration_s=60.0, points=(), background_s=(), done_s=()):
    length = GRID.num_snippets(duration_s)
    features = np.zeros((length, 2), np.float32)
    return Recording(name, features, GRID, duration_s, points, None, background_s, done_s)


def _scores(rng, recording, rounds=2):
    shape = len(recording.features), len(CLASSES)
    return [
        Predictions(rng.random(shape).astype(np.float32), rng.random(shape[0]), np.ones(2))
        for _ in range(rounds)
    ]


def _random(seed):
    """Recordings with labels of all kinds, scores and detections."""
    rng = np.random.default_rng(seed)
    recordings, scores, detections = [], {}, {}
    for number in range(3):
        duration_s = float(rng.integers(20, 90))
        times_s = np.sort(rng.uniform(0, duration_s, 6))
        points = tuple(Point(float(time_s), int(rng.integers(2))) for time_s in times_s[:3])
        segment = (float(times_s[3]) * 0.99, float(times_s[3]) + 0.001)
        points += (Point(float(times_s[3]), 1, segment),)
        done_s = ((0.0, 3.0),) if number else ()
        name = f"r{number}"
        recording = _recording(name, duration_s, points, (float(times_s[5]),), done_s)
        recordings.append(recording)
        scores[name] = _scores(rng, recording)
        starts = rng.uniform(0, duration_s - 5, 8)
        detections[name] = [
            {
                "label": CLASSES[int(rng.integers(2))],
                "score": float(rng.random()),
                "segment": [float(start), float(start + rng.uniform(0.5, 5))],
            }
            for start in starts
        ]
    return recordings, scores, detections


@pytest.mark.parametrize("seed", range(10))
def test_places_are_ranked_open_apart_and_always_the_same(seed):
    recordings, scores, detections = _random(seed)
    options = {"scores": scores, "detections": detections, "threshold": 0.2, "spacing_s": 2.0}
    places = suggest(recordings, CLASSES, **options, count=40)
    assert places == suggest(recordings, CLASSES, **options, count=40)
    assert places[:7] == suggest(recordings, CLASSES, **options, count=7)
    assert 0 < len(places) <= 40
    priorities = [place.priority for place in places]
    assert priorities == sorted(priorities, reverse=True) and priorities[0] == 1
    kinds = [place.reason for place in places]
    assert kinds[:2] == ["unconfirmed", "complete"]
    # The others come when these are used up.
    others = [kind for kind in kinds if kind not in ("unconfirmed", "complete")]
    assert kinds[len(kinds) - len(others) :] == others
    del options["detections"]
    others = [place.reason for place in suggest(recordings, CLASSES, **options, count=40)]
    assert others[:3] == ["uncertain", "disagreement", "far"]
    by_name = {recording.name: recording for recording in recordings}
    for place in places:
        recording = by_name[place.recording]
        assert 0 <= place.time_s < recording.duration_s
        for start_s, end_s in recording.done_s:
            assert not start_s <= place.time_s < end_s
        assert place.label in (None, *CLASSES)
        assert (place.segment_s is not None) == (place.reason in ("unconfirmed", "complete"))
        if place.reason == "complete":
            _check_stretch(place, recording, detections[place.recording], places)
            continue
        labels_s = [*(point.time_s for point in recording.points), *recording.background_s]
        assert min(abs(place.time_s - time_s) for time_s in labels_s) >= 1.0 - 1e-9  # a window
        for point in recording.points:
            if point.segment_s is not None:
                assert not point.segment_s[0] <= place.time_s < point.segment_s[1]
        if place.segment_s is not None:
            same = {"label": place.label, "segment": list(place.segment_s)}
            assert any(same.items() <= entry.items() for entry in detections[place.recording])
            assert not any(place.segment_s[0] <= t < place.segment_s[1] for t in labels_s)
    for one, other in itertools.combinations(places, 2):
        assert one.recording != other.recording or abs(one.time_s - other.time_s) >= 2.0


def _check_stretch(place, recording, detections, places):
    """Nothing of it is done, every detection in it has a label, and nothing else is asked in it."""
    start_s, end_s = place.segment_s
    assert 0 <= start_s < end_s <= recording.duration_s and end_s - start_s >= 1.0  # a window
    assert all(end_s <= done_s[0] or done_s[1] <= start_s for done_s in recording.done_s)
    points = [point.time_s for point in recording.points]
    for entry in detections:
        low_s, high_s = entry["segment"]
        if entry["score"] < 0.2 or high_s <= start_s or end_s <= low_s:
            continue
        labels = [*points, *recording.background_s]
        known = labelled_stretches(recording)
        middle_s = (low_s + high_s) / 2
        assert any(low_s <= time_s < high_s for time_s in labels) or any(
            known_s[0] <= middle_s < known_s[1] for known_s in known
        )
    others = [one for one in places if one.recording == place.recording and one is not place]
    assert not any(start_s <= one.time_s < end_s for one in others)


def test_stretches_that_may_be_complete():
    """Between what is done and what is predicted without a label, and cut outside of events."""

    def found(label, start_s, end_s):
        return {"label": label, "score": 0.9, "segment": [start_s, end_s]}

    # Events of four seconds, so that stretches have twelve at most. The second has no label.
    entries = [found("jump", 9.0, 13.0), found("run", 40.0, 44.0)]
    recording = _recording(points=(Point(10.0, 0),), done_s=((55.0, 60.0),))
    places = suggest([recording], CLASSES, detections={"r": entries}, count=100)
    stretches = [one.segment_s for one in places if one.reason == "complete"]
    assert stretches == [(9.0, 21.0), (21.0, 33.0), (44.0, 55.0), (0.0, 9.0), (33.0, 40.0)]
    assert all(one.label is None for one in places if one.reason == "complete")
    assert [one.time_s for one in places[:3]] == [42.0, 15.0, 27.0]
    # Of what is all done, and without a prediction, nothing is asked like that.
    done = _recording(done_s=None)
    assert suggest([done], CLASSES, detections={"r": entries}) == []
    assert {one.reason for one in suggest([recording], CLASSES)} == {"spread"}


def test_an_event_longer_than_a_stretch_is_not_cut():
    entry = {"label": "run", "score": 0.9, "segment": [0.0, 31.0]}
    short = {"label": "run", "score": 0.9, "segment": [32.0, 33.0]}
    recording = _recording(points=(Point(5.0, 1), Point(32.5, 1)))
    found = {"r": [entry, short, short]}
    places = suggest([recording], CLASSES, detections=found, count=100)
    stretches = sorted(one.segment_s for one in places if one.reason == "complete")
    # Two windows are longer than the events' median: six seconds at most.
    assert stretches[0] == (0.0, 31.0) and stretches[1] == (31.0, 37.0)


def test_the_first_round_spreads_over_everything():
    recordings = [_recording("a", 40.0), _recording("b", 80.0)]
    places = suggest(recordings, CLASSES, count=6)
    assert {place.reason for place in places} == {"spread"}
    assert all(place.label is None for place in places)
    # Six windows around each, within what has no label.
    assert all(place.segment_s == (place.time_s - 3, place.time_s + 3) for place in places)
    (place,) = suggest([_recording(duration_s=4.0, done_s=((0.0, 1.0),))], CLASSES, count=1)
    assert place.segment_s == (1.0, 4.0)
    assert [(one.recording, one.time_s) for one in places] == [
        ("b", 40.0),
        ("a", 20.0),
        ("b", 20.0),
        ("b", 60.0),
        ("a", 10.0),
        ("a", 30.0),
    ]
    done = [_recording("a", 40.0, done_s=None)]
    assert suggest(done, CLASSES) == []


def test_a_gap_is_halved_until_places_are_near():
    """As many places as fit, and no endless loop."""
    places = suggest([_recording(duration_s=16.0)], CLASSES, count=1000, spacing_s=4.0)
    assert sorted(place.time_s for place in places) == [4.0, 8.0, 12.0]
    everywhere = suggest([_recording(duration_s=16.0)], CLASSES, count=1000, spacing_s=0.0)
    assert len(everywhere) == 5  # none in the stretch of another one
    covered = merge_stretches(place.segment_s for place in everywhere)
    assert covered == ((0.0, 16.0),)


def test_uncertain_and_disagreeing_snippets():
    recording = _recording(duration_s=20.0)
    sure = np.full(40, 0.999)
    cas = np.tile([0.9, 0.0], (40, 1))
    sure[12] = 0.5  # action or background
    cas[30] = [0.45, 0.45]  # which class
    rounds = [Predictions(cas, sure, np.ones(2))]
    places = suggest([recording], CLASSES, scores={"r": rounds}, count=3, spacing_s=1.0)
    assert [place.reason for place in places] == ["uncertain", "far", "uncertain"]
    assert places[0].time_s == 6.25 and places[2].time_s == 15.25
    assert places[2].label == "jump"
    other = Predictions(np.where(np.arange(40)[:, None] == 25, [0.0, 0.9], cas), sure, np.ones(2))
    places = suggest([recording], CLASSES, scores={"r": [*rounds, other]}, spacing_s=1.0)
    first = next(place for place in places if place.reason == "disagreement")
    assert first.time_s == 12.75
    assert sum(place.reason == "disagreement" for place in places) == 1  # where they differ


def test_rare_classes_are_confirmed_first():
    """A class without labels, then alternately; of a class what is nearest to the threshold."""

    def found(label, score, start):
        return {"label": label, "score": score, "segment": [start, start + 2.0]}

    points = (Point(50.0, 0), Point(55.0, 0))
    entries = [found("jump", 0.9, 2), found("run", 0.95, 10), found("run", 0.6, 20)]
    entries += [found("run", 0.7, 30), found("jump", 0.4, 40), found("run", 0.55, 49.5)]
    recording = _recording(points=points)
    places = suggest(
        [recording], CLASSES, detections={"r": entries}, threshold=0.5, spacing_s=1.0, count=100
    )
    asked = [place.segment_s[0] for place in places if place.reason == "unconfirmed"]
    assert asked == [20, 30, 2, 10, 40]  # below the threshold at last


def test_the_best_below_the_threshold_may_be_asked_about():
    rng = np.random.default_rng(0)
    scores = rng.permutation(1000) / 1000
    found = {
        name: [
            {"label": CLASSES[index % 2], "score": float(score), "segment": [0.0, 1.0]}
            for index, score in enumerate(part)
        ]
        for name, part in zip("ab", np.split(scores, 2), strict=True)
    }
    kept = askable(found, 0.9)
    for label in CLASSES:
        of_class = [one for name in "ab" for one in found[name] if one["label"] == label]
        expected = sorted((one["score"] for one in of_class), reverse=True)
        above = sum(score >= 0.9 for score in expected)
        mine = [one["score"] for name in "ab" for one in kept[name] if one["label"] == label]
        assert sorted(mine, reverse=True) == expected[: above + 100]
    assert askable(found, None) is found


def test_labelled_time():
    points = (Point(10.0, 0), Point(20.0, 1, (18.0, 26.0)))
    recording = _recording(points=points, background_s=(0.5,), done_s=((30.0, 40.0),))
    assert labelled_stretches(recording) == ((0.0, 1.5), (9.0, 11.0), (18.0, 26.0), (30.0, 40.0))


def test_scores_of_other_snippets_are_refused():
    recording = _recording(duration_s=10.0)
    rounds = [Predictions(np.zeros((19, 2)), np.zeros(19), np.zeros(2))]
    with pytest.raises(InputError, match=r"r: scores of shape \[19, 2\], expected \[20, 2\]"):
        suggest([recording], CLASSES, scores={"r": rounds})
    with pytest.raises(InputError, match="count=-1"):
        suggest([recording], CLASSES, count=-1)
