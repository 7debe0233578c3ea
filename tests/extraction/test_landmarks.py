"""Landmarks of videos: a detector that is no network finds squares, and MediaPipe a real person."""

import contextlib
import importlib.util
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tal_jax.extraction import landmarks
from tal_jax.extraction.keypoint_tables import read_keypoints

TASK = landmarks.Task("fake.task", "body")
JOINTS = len(landmarks.BODY)


def body(x, y, size=10.0):
    """Joints around a place, on a line of some length."""
    steps = np.linspace(-0.5, 0.5, JOINTS)
    return np.stack([x + size * steps, y + size * steps, np.full(JOINTS, 0.9)], axis=1)


def _centers(found):
    return [[None if np.isnan(c).any() else tuple(np.round(c, 6)) for c in row] for row in found]


def follow(bodies_of_frames, people, frames=None):
    """Follows given bodies; a frame is an array with its number."""
    frames = (
        [np.full((4, 4, 3), k) for k in range(len(bodies_of_frames))]
        if frames is None
        else (frames)
    )
    times_ms = []

    def detect(pixels, time_ms):
        times_ms.append(time_ms)
        return bodies_of_frames[pixels[0, 0, 0]]

    found = np.stack(list(landmarks.follow(frames, 25.0, detect, joints=JOINTS, people=people)))
    return found, times_ms


def test_bodies_keep_their_places_when_their_order_changes():
    paths = [[body(10 + k, 50), body(90 - k, 50)][:: 1 if k % 2 else -1] for k in range(6)]
    found, times_ms = follow(paths, 2)
    centers = found[..., :2].mean(2)
    first = centers[0, :, 0]
    np.testing.assert_allclose(np.sort(first), [10, 90])
    for place in range(2):
        sign = 1 if first[place] < 50 else -1
        np.testing.assert_allclose(centers[:, place, 0], first[place] + sign * np.arange(6))
    assert times_ms == [0, 40, 80, 120, 160, 200]


def test_the_largest_come_first_and_the_others_have_no_place():
    found, _ = follow([[body(10, 10, 5), body(50, 50, 30), body(90, 90, 20)]], 2)
    assert _centers(found[..., :2].mean(2)) == [[(50, 50), (90, 90)]]
    # Whoever is nearest goes on, however large another one is by then.
    found, _ = follow([[body(50, 50, 30)], [body(52, 50, 5), body(90, 90, 60)]], 1)
    assert _centers(found[..., :2].mean(2)) == [[(50, 50)], [(52, 50)]]


def test_frames_without_a_body_are_missing_and_the_place_is_kept():
    found, _ = follow([[body(10, 10)], [], [body(14, 10)]], 2)
    assert _centers(found[..., :2].mean(2)) == [[(10, 10), None], [None, None], [(14, 10), None]]


def test_a_frame_that_stays_on_screen_is_detected_once():
    one, two = (np.full((4, 4, 3), k) for k in range(2))
    found, times_ms = follow([[body(10, 10)], [body(20, 10)]], 1, [one, one, one, two])
    assert times_ms == [0, 120]
    np.testing.assert_allclose(found[:, 0, :, 0].mean(1), [10, 10, 10, 20])


def test_keypoints_and_their_table(tmp_path):
    found, _ = follow([[body(10, 10)], [], [body(14, 10), body(70, 20, 40)]], 2)
    keypoints = landmarks.to_keypoints("a.mp4", np.arange(3) / 25, found, TASK)
    assert keypoints.animals == ("body_1", "body_2") and len(keypoints.joints) == 33
    assert keypoints.notes == ("bodies found in 2 of 3 frames",)
    assert np.isnan(keypoints.positions[1]).all() and not keypoints.confidence[1].any()
    landmarks.write_table(tmp_path / "a_keypoints.csv", keypoints)
    again = read_keypoints(tmp_path / "a_keypoints.csv")
    assert (again.animals, again.joints) == (keypoints.animals, keypoints.joints)
    np.testing.assert_allclose(again.times_s, keypoints.times_s, atol=1e-6)
    np.testing.assert_allclose(again.positions, keypoints.positions, atol=0.051)
    np.testing.assert_allclose(again.confidence, keypoints.confidence, atol=6e-4)


def test_no_body_at_all():
    found, _ = follow([[], []], 1)
    with pytest.raises(ValueError, match="a.mp4: no bodies found in 2 frames"):
        landmarks.to_keypoints("a.mp4", np.arange(2) / 25, found, TASK)


def test_files_that_hold_no_networks(tmp_path):
    with pytest.raises(ValueError, match="no such file; expected .*curl -LO https"):
        landmarks.open_task(tmp_path / "none.task")
    (tmp_path / "a.task").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="a.task: no networks .*expected pose_landmarker_full"):
        landmarks.open_task(tmp_path / "a.task")
    with zipfile.ZipFile(tmp_path / "b.task", "w") as file:
        file.writestr("other.tflite", b"")
    with pytest.raises(ValueError, match="b.task: holds other.tflite; expected"):
        landmarks.open_task(tmp_path / "b.task")
    for network, kind in (("pose", "body"), ("hand", "hand")):
        with zipfile.ZipFile(tmp_path / "c.task", "w") as file:
            file.writestr(f"{network}_landmarks_detector.tflite", b"")
        assert landmarks.open_task(tmp_path / "c.task").kind == kind


def test_the_times_of_a_video(tmp_path, monkeypatch):
    """The frames asked for are those of the clock, as for every backbone."""
    pytest.importorskip("av")
    import filming

    path = filming.film(tmp_path / "a.mp4", range(50), tick=filming.Fraction(1, 25))

    @contextlib.contextmanager
    def open_detector(task, most):
        yield lambda pixels, time_ms: [body(filming.number_of(pixels), 10)]

    monkeypatch.setattr(landmarks, "open_detector", open_detector)
    steps = []
    keypoints = landmarks.find_landmarks(
        path, TASK, fps=10.0, people=1, progress=lambda *n: steps.append(n)
    )
    assert steps == [(n + 1, 20) for n in range(20)]
    np.testing.assert_allclose(keypoints.times_s, np.arange(20) / 10)
    numbers = np.floor(keypoints.times_s * 25 + 1e-6)
    np.testing.assert_allclose(keypoints.positions[:, 0, :, 0].mean(1), numbers)


# --- MediaPipe itself ---


@pytest.fixture(scope="module")
def networks():
    """A `.task`, or the wheel of 0.10.21, that TAL_JAX_POSE names."""
    if importlib.util.find_spec("mediapipe") is None or "TAL_JAX_POSE" not in os.environ:
        pytest.skip("needs mediapipe, and networks named by TAL_JAX_POSE")
    return landmarks.open_task(os.environ["TAL_JAX_POSE"])


@pytest.fixture(scope="module")
def picture():
    """The picture of an astronaut, by scikit-image."""
    skimage = importlib.util.find_spec("skimage")
    if skimage is None or skimage.origin is None:
        pytest.skip("needs scikit-image")
    image = Path(skimage.origin).parent / "data" / "astronaut.png"
    return pytest.importorskip("PIL.Image").open(image).convert("RGB")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_person_who_moves_across_the_picture(networks, picture, tmp_path):
    """The nose follows the shift of the picture; MediaPipe's smoothing lags by a little."""
    av = pytest.importorskip("av")
    shifts = np.concatenate([np.zeros(10), np.arange(0, 100, 4)]).astype(int)
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 512, 640, "yuv420p"
        for shift in shifts:
            pixels = np.zeros((512, 640, 3), np.uint8)
            pixels[:, shift : shift + 512] = np.asarray(picture)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    keypoints = landmarks.find_landmarks(tmp_path / "a.mp4", networks, fps=25.0, people=1)
    assert keypoints.notes == (f"bodies found in {len(shifts)} of {len(shifts)} frames",)
    nose = keypoints.positions[:, 0, keypoints.joints.index("nose")]
    np.testing.assert_allclose(nose[9], [223, 128], atol=12)
    np.testing.assert_allclose(nose[-1] - nose[9], [96, 0], atol=12)


def test_a_file_that_mediapipe_refuses(networks, tmp_path):
    path = tmp_path / "a.task"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("pose_landmarks_detector.tflite", b"no network")
        file.writestr("pose_detector.tflite", b"no network")
    refused = pytest.raises(ValueError, match="a.task: refused by MediaPipe")
    with refused as error, landmarks.open_detector(landmarks.open_task(path), 1):
        pass
    assert "\n" not in str(error.value)
