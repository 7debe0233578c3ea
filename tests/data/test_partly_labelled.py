"""Background points and done stretches: from the annotation file to the batch of an update."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tal_jax._errors import InputError
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.annotations import (
    Annotations,
    Instance,
    RecordingAnnotation,
    annotations_to_dict,
    cut_labels,
    parse_annotations,
)
from tal_jax.data.clock import Grid
from tal_jax.data.fingerprint import differences, fingerprint
from tal_jax.data.point_distributions import generate_points
from tal_jax.data.point_sets import place_points
from tal_jax.data.recordings import (
    Dataset,
    Point,
    Recording,
    assemble,
    check_recording,
    done_snippets,
    labelled_snippets,
)
from tal_jax.datasets.supervision import Supervision, supervise

GRID = Grid(fps=2, stride_frames=1, window_frames=1)  # snippets of half a second
JUMP = {"label": "jump", "segment": [1.0, 2.5], "point": 1.5}


def _document(*instances, duration=10.0, **more):
    recording = {"subset": "train", "duration": duration, "annotations": [*instances], **more}
    return {"database": {"r": recording}}


def _recording(size=20, name="r", points=((1.5, 0),), **more):
    features = np.random.default_rng(size).normal(size=(size, 2)).astype(np.float32)
    points = tuple(Point(*point) for point in points)
    return Recording(name, features, GRID, size / 2, points=points, **more)


# --- the annotation file ---


def test_they_are_read_sorted_and_merged_and_written_again():
    given = {"background": [7, 0.5, 7.0], "done": [[5, 9], [0, 2.0], [2.0, 3]], "other": 1}
    read = parse_annotations(_document(JUMP, **given)).recordings["r"]
    assert read.background_s == (0.5, 7.0)
    assert read.done_s == ((0.0, 3.0), (5.0, 9.0))
    assert read.extras == {"other": 1}
    written = annotations_to_dict(Annotations(("jump",), {"r": read}))
    assert written["database"]["r"]["background"] == [0.5, 7.0]
    assert written["database"]["r"]["done"] == [[0.0, 3.0], [5.0, 9.0]]
    assert parse_annotations(written).recordings["r"] == read


def test_without_the_keys_a_recording_is_wholly_done():
    read = parse_annotations(_document(JUMP))
    assert read.recordings["r"].done_s is None and read.recordings["r"].background_s == ()
    written = annotations_to_dict(read)["database"]["r"]
    assert "done" not in written and "background" not in written
    nothing = parse_annotations(_document(JUMP, done=[]))
    assert nothing.recordings["r"].done_s == ()
    assert annotations_to_dict(nothing)["database"]["r"]["done"] == []


@pytest.mark.parametrize(("keys", "message"), [
    ({"background": [10.0]}, r"background point is 10.0 s, expected a time within \[0, 10\)"),
    ({"background": [-1]}, "background point is -1.0 s"),
    ({"background": [float("nan")]}, "background"),
    ({"background": [1.0]}, "background point at 1.0 s is in the instance of 'jump' at 1 s"),
    ({"background": ["x"]}, "background"),
    ({"done": [[3, 3]]}, r"done stretch is \[3.0, 3.0\] s, expected 0 <= start < end"),
    ({"done": [[3, 11]]}, r"done stretch is \[3.0, 11.0\] s, .* within the recording's 10 s"),
    ({"done": [[-1, 3]]}, "done stretch"),
    ({"done": [[3]]}, "done"),
    ({"done": True}, "done"),
])  # fmt: skip
def test_contradictions_are_refused(keys, message):
    with pytest.raises(InputError, match=f"r.*{message}"):
        parse_annotations(_document(JUMP, **keys))


def test_at_the_edges():
    """Half-open, and an end may be off by rounding."""
    read = parse_annotations(_document(JUMP, background=[2.5, 0.0], done=[[0, 10.05]]))
    assert read.recordings["r"].done_s == ((0.0, 10.0),)
    with pytest.raises(InputError, match="background point at 1.5 s is in the instance of 'jump'"):
        parse_annotations(_document({"label": "jump", "point": 1.5}, background=[1.5]))


def test_they_are_cut_to_another_duration():
    annotation = RecordingAnnotation("train", 10.0, (), None, (1.0, 8.0), ((0.0, 3.0), (5.0, 9.0)))
    cut = cut_labels(annotation, 6.0)
    assert (cut.duration_s, cut.background_s) == (6.0, (1.0,))
    assert cut.done_s == ((0.0, 3.0), (5.0, 6.0))
    assert cut_labels(dataclasses.replace(annotation, done_s=None), 6.0).done_s is None


def test_points_that_are_drawn_or_placed_leave_them():
    given = parse_annotations(_document(JUMP, background=[5.0], done=[[0, 6]]))
    drawn = generate_points(given, distribution="center", seed=0).recordings["r"]
    assert (drawn.background_s, drawn.done_s) == ((5.0,), ((0.0, 6.0),))
    clicks = RecordingAnnotation(
        instances=(Instance("jump", point_s=2.0),), background_s=(7.0,), done_s=((0.0, 8.0),)
    )
    placed = place_points(Annotations(("jump",), {"r": clicks}), given).recordings["r"]
    assert (placed.background_s, placed.done_s) == ((5.0, 7.0), ((0.0, 8.0),))
    placed = place_points(Annotations(("jump",), {}), given).recordings["r"]
    assert (placed.background_s, placed.done_s) == ((5.0,), ((0.0, 6.0),))


# --- recordings ---


def test_snippets_are_done_by_their_centre():
    done = done_snippets(_recording(done_s=((0.0, 1.2), (4.3, 5.0))))
    assert np.flatnonzero(done).tolist() == [0, 1, 9]
    assert done_snippets(_recording()).all()
    assert not done_snippets(_recording(done_s=())).any()
    # Features may be longer than the recording.
    longer = dataclasses.replace(_recording(done_s=((0.0, 9.4),)), duration_s=9.4)
    assert done_snippets(longer).all()


def test_snippets_of_points_are_labelled():
    labelled = labelled_snippets(_recording(done_s=((0.0, 1.0),), background_s=(6.2,)))
    assert np.flatnonzero(labelled).tolist() == [0, 1, 3, 12]


@pytest.mark.parametrize(("more", "message"), [
    ({"background_s": (10.0,)}, "background point at 10.0 s, expected a time within"),
    ({"background_s": (1.9,)}, "background point at 1.9 s is in the snippet of the point at 1.5 s"),
    ({"points": ((1.5, 0, (1.0, 4.0)),), "background_s": (3.0,)}, "background point at 3.0 s is"),
    ({"done_s": ((3.0, 10.5),)}, r"done stretch \[3.0, 10.5\] s, expected"),
    ({"done_s": ((3.0, 3.0),)}, "done stretch"),
])  # fmt: skip
def test_recordings_that_contradict_themselves_are_refused(more, message):
    with pytest.raises(InputError, match=f"r: {message}"):
        check_recording(_recording(**more))
    check_recording(_recording(background_s=(2.0,), done_s=((0.0, 10.0),)))


def test_recordings_without_any_label_are_left_out():
    entries = {
        "r": RecordingAnnotation("train", 10.0, (Instance("jump", point_s=1.5),), None, (4.0,), ()),
        "empty": RecordingAnnotation("train", 10.0, done_s=()),
    }
    bare = [dataclasses.replace(_recording(name=name), points=()) for name in entries]
    dataset = assemble(Annotations(("jump",), entries), bare, [], {"database": {}})
    assert [recording.name for recording in dataset.train] == ["r"]
    assert dataset.train[0].background_s == (4.0,) and dataset.train[0].done_s == ()
    assert any("left out of training: 1 recording (empty)" in note for note in dataset.notes)
    # They can be predicted, and may come and go between two calls of a training.
    assert [recording.name for recording in dataset.unlabelled] == ["empty"]
    assert [recording.name for recording in dataset.recordings] == ["r", "empty"]
    fewer = dataclasses.replace(dataset, unlabelled=())
    assert differences(fingerprint(dataset), fingerprint(fewer)) == []
    assert set(fingerprint(dataset).unlabelled) == {"empty"}


def test_video_classes_are_those_of_the_done_stretches():
    instances = (
        Instance("a", point_s=1.0),
        Instance("b", 4.0, 6.0),
        Instance("c", point_s=8.0),
        Instance("d"),
    )
    entries = {"r": RecordingAnnotation("train", 10.0, instances, done_s=((0.0, 5.0),))}
    bare = [dataclasses.replace(_recording(), points=())]
    classes = Annotations(("a", "b", "c", "d"), entries)
    dataset = assemble(classes, bare, [], {"database": {}}, labels_only=True)
    assert dataset.train[0].labels == (0, 1, 3)
    recording = _recording(points=((1.5, 0), (8.0, 1)), done_s=((0.0, 5.0),))
    dataset = Dataset(("a", "b"), (recording,), (), {"database": {}})
    assert supervise(dataset, Supervision("labels")).train[0].labels == (0,)


def test_fingerprints_cover_them():
    def of(**more):
        recording = _recording(**more)
        return fingerprint(Dataset(("jump",), (recording,), (), {"database": {}}))

    whole = of()
    for more in ({"background_s": (5.0,)}, {"done_s": ((0.0, 10.0),)}, {"done_s": ()}):
        assert differences(whole, of(**more)) == ["other labels in training: 1 recording (r)"]


# --- timelines ---


def _timeline(*recordings, **sizes):
    packed = packing.pack_timeline(recordings, length=24, **sizes)
    packed = timelines.with_features(packed, packing.pack_features(recordings))
    return jax.tree.map(jnp.asarray, packed)


_resample = jax.jit(timelines.resample_batch, static_argnums=1)


def test_masks_of_a_batch():
    partly = _recording(done_s=((0.0, 3.0),), background_s=(2.2, 8.0), name="s")
    batch = _resample(_timeline(_recording(), partly, num_background=4), 30)
    np.testing.assert_array_equal(batch.done[0], batch.where[0])
    assert np.flatnonzero(batch.done[1]).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.flatnonzero(batch.background[1]).tolist() == [4, 16]
    assert not batch.background[0].any()
    assert batch.cut.tolist() == [False, True]


def test_masks_follow_a_lengthened_timeline():
    """Every new snippet is what its old snippet was."""
    timeline = _timeline(_recording(done_s=((0.0, 3.0),), background_s=(2.2,)))
    weights = jnp.where(timeline.where, 1.0, 0.0).at[0, 4].set(3.0)
    timeline = dataclasses.replace(timeline, weights=weights, counts=jnp.array([22], jnp.int32))
    batch = _resample(timeline, 30)
    assert np.flatnonzero(batch.done[0]).tolist() == list(range(8))
    assert np.flatnonzero(batch.background[0]).tolist() == [4, 5, 6]


def test_proposals_with_a_background_point_are_no_instances():
    timeline = _timeline(_recording(points=((1.5, 0), (6.0, 0)), background_s=(3.0,)))
    listed = [(2, 8, 0.9), (2, 5, 0.3), (10, 15, 0.8), (5, 14, 0.7)]  # in snippets
    proposals = timelines.Proposals(
        jnp.array([[one[:2] for one in listed]], jnp.float32),
        jnp.array([[one[2] for one in listed]], jnp.float32),
        jnp.zeros((1, 4), jnp.int32),
        jnp.ones((1, 4), bool),
    )
    kept = timelines.with_own_point(proposals, timeline)
    assert kept.where.tolist() == [[False, True, True, False]]
    assigned = timelines.assign_instances(timeline, proposals)
    np.testing.assert_allclose(assigned.instances[0, :2], [[2, 5], [10, 15]])
    fused = timelines.fuse_instances(timeline, proposals)
    np.testing.assert_allclose(fused.instances[0, :2], [[2, 5], [10, 15]], atol=1e-5)
    # Where nothing else contains a point, the proposal stays, but not at the background point.
    only = dataclasses.replace(proposals, where=jnp.array([[True, False, True, False]]))
    batch = _resample(timelines.assign_instances(timeline, only), 24)
    assert np.flatnonzero(batch.instances[0, :, 0]).tolist() == [2, 3, 4, 5, 7, *range(10, 15)]


def test_windows_are_drawn_around_labelled_snippets():
    size, window, draws = 1000, 20, 2000
    partly = _recording(size, points=((400.0, 0),), done_s=((100.0, 150.0),))
    whole = _recording(size, name="s")
    packed = packing.pack_timeline([partly, whole], length=1024)
    rows = timelines.take(jax.tree.map(jnp.asarray, packed), jnp.repeat(jnp.arange(2), draws))
    keys = jax.random.split(jax.random.key(0), 2 * draws)
    draw = jax.jit(timelines.draw_windows, static_argnums=1)
    first = np.asarray(draw(rows.counts, window, keys, rows)).reshape(2, -1)
    middles = first[0] + window // 2
    inside = (199 <= middles) & (middles <= 300)
    assert np.mean(inside) == pytest.approx(100 / 101, abs=0.01)
    assert np.all(np.abs(middles[~inside] - 800.5) < 1)
    assert np.ptp(middles[inside]) > 95
    # Bitwise as ever where all is done.
    plain = np.asarray(draw(rows.counts, window, keys)).reshape(2, -1)
    np.testing.assert_array_equal(first[1], plain[1])
    lengths = timelines.Lengths(window, (1024,))
    assert np.bincount(packing.rows_to_draw(packed, lengths)).tolist() == [5, 50]


def test_most_stretches_of_unknown_time():
    recording = _recording(done_s=((0.0, 1.0), (2.0, 3.0), (4.0, 5.0), (9.0, 10.0)))
    assert packing.most_points_of([recording], 20).unknown == 3
    assert packing.most_points_of([recording], 6).unknown == 2
    assert packing.most_points_of([_recording()], 20).unknown == 0


def test_a_key_that_covers_everything_changes_nothing():
    whole, covered = _timeline(_recording()), _timeline(_recording(done_s=((0.0, 10.0),)))
    jax.tree.map(np.testing.assert_array_equal, whole, covered)
