"""Features of body pose: what does not change them, and what they are."""

import dataclasses
import itertools

import numpy as np
import pytest
from extraction.skeletons import KINECT, person
from mice import JOINTS as MOUSE
from mice import mouse

from tal_jax import extraction
from tal_jax._errors import InputError
from tal_jax.data.keypoints import Keypoints
from tal_jax.data.manifest import read_manifest
from tal_jax.extraction import pose
from tal_jax.extraction.body import choose_body, parse_direction, words_of

FPS = 30.0


def _keypoints(positions, joints, fps=FPS, animals=("animal",), confidence=1.0):
    positions = positions if positions.ndim == 4 else positions[:, None]
    return Keypoints(
        np.arange(len(positions)) / fps,
        positions,
        np.broadcast_to(confidence, positions.shape[:3]),
        tuple(joints),
        animals,
    )


def _signals(positions, joints, **options):
    keypoints = _keypoints(positions, joints)
    body, _ = choose_body(keypoints, **options)
    return pose.body_signals(keypoints, body, FPS)[0]


def _turned(positions, angle, plane):
    """Turns positions by an angle in the plane of two coordinates."""
    out = np.array(positions)
    a, b = plane
    out[..., a] = np.cos(angle) * positions[..., a] - np.sin(angle) * positions[..., b]
    out[..., b] = np.sin(angle) * positions[..., a] + np.cos(angle) * positions[..., b]
    return out


NAMELESS = tuple(f"joint_{i}" for i in range(20))


@pytest.mark.parametrize("joints", [KINECT, NAMELESS])
@pytest.mark.parametrize("vertical", range(3))
def test_place_heading_and_unit_of_a_person_do_not_matter(joints, vertical):
    positions = person()
    expected = _signals(positions, joints)
    moved = 100 * _turned(positions, 2.0, (2, 0)) + np.array([3000, -20, 500])
    moved = np.roll(moved, vertical - 1, axis=-1)  # y upwards becomes x or z
    np.testing.assert_allclose(_signals(moved, joints), expected, atol=1e-6)


def test_place_heading_and_unit_of_an_animal_do_not_matter():
    body, _ = choose_body(_keypoints(mouse(600), MOUSE))
    moved = 0.01 * _turned(mouse(600), 2.0, (0, 1)) + np.array([7.0, -3.0])
    signals, expected = (
        pose.body_signals(_keypoints(positions, MOUSE), body, FPS)[0]
        for positions in (moved, mouse(600))
    )
    np.testing.assert_allclose(signals, expected, atol=1e-6)


@pytest.mark.parametrize("axis", range(3))
def test_a_hand_may_be_turned_in_any_way(axis):
    rng = np.random.default_rng(0)
    joints = ("palm", "index_base", "index_tip", "middle_base", "pinky_base", "pinky_tip")
    shape = rng.normal(size=(6, 3))
    positions = shape + 0.1 * np.cumsum(rng.normal(size=(90, 6, 3)), 0)
    expected = _signals(positions, joints)
    turned = _turned(positions, 1.0, ((axis + 1) % 3, (axis + 2) % 3))
    np.testing.assert_allclose(_signals(turned, joints), expected, atol=1e-6)


def test_a_mirrored_recording_differs_in_sign_alone():
    positions = person(200)
    expected = np.abs(_signals(positions, KINECT)[:, :60])
    mirrored = positions * np.array([-1, 1, 1])
    np.testing.assert_allclose(np.abs(_signals(mirrored, KINECT)[:, :60]), expected, atol=1e-6)


def test_the_body_frame_is_the_known_one():
    """A body that walks ahead at 2 of its sizes per second and turns left by 0.5 rad/s."""
    time = np.arange(120) / FPS
    heading = 0.5 * time
    ahead = np.stack([np.cos(heading), np.sin(heading)], 1)
    left = np.stack([-np.sin(heading), np.cos(heading)], 1)
    tail = np.cumsum(ahead, 0) * 2 * 10 / FPS  # the body is 10 long
    joints = np.stack([tail, tail + 10 * ahead, tail + 5 * ahead + 3 * left], 1)
    keypoints = _keypoints(joints, ("tail", "nose", "paw"))
    body, _ = choose_body(keypoints, center="tail", axis="tail>nose")
    signals, notes = pose.body_signals(keypoints, body, FPS)
    middle = signals[10:-10]
    np.testing.assert_allclose(
        middle[:, :6], np.broadcast_to([0, 0, 1, 0, 0.5, 0.3], (100, 6)), atol=1e-3
    )
    np.testing.assert_allclose(middle[:, 6:8], np.broadcast_to([2, 0], (100, 2)), atol=0.02)
    np.testing.assert_allclose(middle[:, 8], 0.5, rtol=1e-6)
    assert notes == ()


def test_distances_and_angles_against_loops():
    positions = person(40)
    keypoints = _keypoints(positions, KINECT)
    body, _ = choose_body(keypoints)
    signals, _ = pose.body_signals(keypoints, body, FPS)
    at = {name: positions[:, i] for i, name in enumerate(KINECT)}
    shoulders = (at["ShoulderLeft"] + at["ShoulderRight"]) / 2
    size = np.median(np.linalg.norm(shoulders - at["HipCenter"], axis=1))
    pairs = list(itertools.combinations(body.ends, 2))
    for column, (a, b) in enumerate(pairs, start=60 + 3 + 3):
        expected = np.linalg.norm(at[a] - at[b], axis=1) / size
        np.testing.assert_allclose(signals[:, column], expected, atol=1e-9)
    elbow = [b for b in body.bones if "ElbowLeft" in b]
    assert {name for bone in elbow for name in bone} == {"ShoulderLeft", "ElbowLeft", "WristLeft"}
    upper, lower = (at[n] - at["ElbowLeft"] for n in ("ShoulderLeft", "WristLeft"))
    cosine = (upper * lower).sum(1) / np.linalg.norm(upper, axis=1) / np.linalg.norm(lower, axis=1)
    close = np.isclose(signals[:, 66 + len(pairs) :], np.arccos(cosine)[:, None], atol=1e-6)
    assert close.all(0).any()


def test_features_do_not_depend_on_the_rate_of_the_camera():
    backbone = pose.Pose(fps=25, window=25, stride=5).settle(_keypoints(person(30), KINECT))
    smooth = person(400, noise=0)
    whole, half = (
        backbone.signals(_keypoints(smooth[::step], KINECT, 60 / step))[0][:160, 60:66]
        for step in (1, 2)
    )
    assert np.linalg.norm(whole - half) < 0.15 * np.linalg.norm(whole)


def test_roles_by_the_names_of_trackers():
    expected = {
        "LHip": ["left", "hip"],
        "RIGHT_FOOT_INDEX": ["right", "foot", "index"],
        "ShoulderLeft": ["shoulder", "left"],
        "l_ear": ["left", "ear"],
        "MidHip": ["mid", "hip"],
        "mid_hip": ["mid", "hip"],
        "spine1": ["spine", "1"],
    }
    assert {name: words_of(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("joints", "center", "axis", "side"),
    [
        ("nose left_shoulder right_shoulder left_hip right_hip left_knee", "left_hip,right_hip",
         "left_hip,right_hip>left_shoulder,right_shoulder",
         "left_hip,left_shoulder>right_hip,right_shoulder"),
        ("Nose RShoulder LShoulder MidHip RHip LHip REye", "MidHip", "MidHip>LShoulder,RShoulder",
         "LHip,LShoulder>RHip,RShoulder"),
        ("Hip RHip RKnee LHip LKnee Spine Thorax Head LShoulder RShoulder", "Hip",
         "Hip>LShoulder,RShoulder", "LHip,LShoulder>RHip,RShoulder"),
        ("pelvis left_hip right_hip spine1 neck head left_shoulder right_shoulder", "pelvis",
         "pelvis>left_shoulder,right_shoulder", "left_hip,left_shoulder>right_hip,right_shoulder"),
        ("SpineBase SpineMid Neck ShoulderLeft ShoulderRight HipLeft HipRight", "SpineBase",
         "SpineBase>ShoulderLeft,ShoulderRight", "HipLeft,ShoulderLeft>HipRight,ShoulderRight"),
        (" ".join(f"landmark_{i}" for i in range(33)), "landmark_23,landmark_24",
         "landmark_23,landmark_24>landmark_11,landmark_12",
         "landmark_23,landmark_11>landmark_24,landmark_12"),
        ("snout leftear rightear tailbase", "tailbase,snout", "tailbase>snout", "leftear>rightear"),
        ("Nose Ear_left Ear_right Center Tail_base Tail_end", "Center", "Tail_base>Nose",
         "Ear_left>Ear_right"),
        ("head thorax abdomen wingL wingR", "thorax", "abdomen>head", "none"),
        ("WRIST THUMB_TIP INDEX_FINGER_MCP MIDDLE_FINGER_MCP PINKY_MCP PINKY_TIP", "WRIST",
         "WRIST>MIDDLE_FINGER_MCP", "INDEX_FINGER_MCP>PINKY_MCP"),
    ],
)  # fmt: skip
def test_the_frame_by_names(joints, center, axis, side):
    joints = joints.split()
    positions = np.random.default_rng(0).normal(size=(20, len(joints), 3))
    body, (note,) = choose_body(_keypoints(positions, joints))
    assert body.center == tuple(center.split(","))
    assert body.axis == parse_direction(axis, "axis")
    assert body.side == parse_direction(side, "side")
    assert f"center={center} axis={axis} side={side}" in note


@pytest.mark.parametrize("seed", range(3))
def test_the_frame_of_joints_without_names(seed):
    """The longest rigid connection across the vertical is that between the shoulders."""
    body, _ = choose_body(_keypoints(np.roll(person(seed=seed), 1, -1), NAMELESS))
    shoulders = {f"joint_{KINECT.index(name)}" for name in ("ShoulderLeft", "ShoulderRight")}
    assert {name for end in body.side for name in end} == shoulders
    assert body.up == "z"


def test_short_gaps_and_low_confidence_are_interpolated():
    positions = mouse(120)
    expected = _signals(positions, MOUSE)
    confidence = np.ones((120, 1, 4))
    confidence[50:53, 0, 0] = 0.1
    wrong = positions[:, None].copy()
    wrong[50:53, 0, 0] = -1000
    keypoints = _keypoints(wrong, MOUSE, confidence=confidence)
    body, _ = choose_body(_keypoints(positions, MOUSE))
    signals, notes = pose.body_signals(keypoints, body, FPS, min_confidence=0.3)
    np.testing.assert_allclose(signals[:, :8], expected[:, :8], atol=0.05)
    assert notes == ("joints missing or of low confidence, interpolated: snout 3%",)


def test_an_animal_that_is_gone_has_no_features():
    positions = mouse(300)
    positions[90:180] = np.nan
    keypoints = _keypoints(positions, MOUSE)
    body, _ = choose_body(keypoints)
    signals, notes = pose.body_signals(keypoints, body, FPS)
    zero = (signals == 0).all(1)
    assert zero[91:178].all()
    assert not zero[:89].any()
    assert not zero[181:].any()
    assert "features are 0 there: 3.0 to 6.0 s" in notes[-1]
    assert np.isfinite(signals).all()


def test_a_joint_that_is_gone_for_long_follows_its_body():
    positions = mouse(300)
    body, _ = choose_body(_keypoints(positions, MOUSE), center="tailbase", axis="tailbase>rightear")
    positions[60:240, 1] = np.nan
    signals, _ = pose.body_signals(_keypoints(positions, MOUSE), body, FPS)
    # Neither ear moves in the body.
    np.testing.assert_allclose(
        signals[:, 2:4], np.broadcast_to(signals[:1, 2:4], (300, 2)), atol=0.06
    )


def test_two_animals():
    one = mouse(200, seed=1)
    other = np.array(one)
    other += np.array([0, 90.0])
    keypoints = _keypoints(np.stack([one, other], 1), MOUSE, animals=("a", "b"))
    body, _ = choose_body(keypoints)
    signals, notes = pose.body_signals(keypoints, body, FPS)
    alone = _signals(one, MOUSE)
    width = alone.shape[1]
    np.testing.assert_allclose(signals[:, :width], alone, atol=1e-9)
    np.testing.assert_allclose(signals[:, width : 2 * width], alone, atol=1e-9)
    distance, approach, *_, facing = signals[:, 2 * width :].T
    size = np.median(np.linalg.norm(one[:, 0] - one[:, 3], axis=1))
    np.testing.assert_allclose(distance, 90 / size, rtol=1e-6)
    np.testing.assert_allclose(approach, 0, atol=1e-6)
    np.testing.assert_allclose(facing, 1, atol=1e-9)
    assert notes == ()


def test_animals_that_swap_places_are_noted():
    both = np.stack([mouse(200, seed=1), mouse(200, seed=2) + np.array([150.0, 0])], 1)
    both[120:] = both[120:, ::-1]
    keypoints = _keypoints(both, MOUSE, animals=("a", "b"))
    body, _ = choose_body(keypoints)
    _, notes = pose.body_signals(keypoints, body, FPS)
    assert notes == ("a and b seem to swap places at 4.00 s",)


def test_features_are_statistics_of_windows():
    windows = np.random.default_rng(0).normal(size=(3, 7, 2))
    features = pose.describe_pose(windows)
    for n, s in np.ndindex(3, 2):
        one = windows[n, :, s]
        expected = [one.mean(), one.std(), one[-3:].mean() - one[:3].mean()]
        np.testing.assert_allclose(features[n, s::2], expected, rtol=1e-5, atol=1e-6)


def test_joints_are_found_by_name_in_any_order():
    keypoints = _keypoints(mouse(60), MOUSE)
    backbone = pose.Pose().settle(keypoints)
    expected, _ = backbone.signals(keypoints)
    shuffled = pose.select(keypoints, MOUSE[::-1], ())
    np.testing.assert_allclose(backbone.signals(shuffled)[0], expected)
    renamed = dataclasses.replace(keypoints, joints=("snout", "leftear", "rightear", "tail_base"))
    with pytest.raises(InputError, match=r"no joint 'tailbase'.*'tail_base' may be its new name"):
        backbone.signals(renamed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"center": "nose"}, "center names the joint 'nose'"),
        ({"axis": "tailbase"}, "axis is 'tailbase'; expected joints as in axis=tail>nose"),
        ({"up": "z"}, "up is 'z'; expected one of none"),
        ({"turn": "left"}, "turn is 'left'; expected one of body, recording, none"),
    ],
)
def test_options_that_name_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        choose_body(_keypoints(mouse(20), MOUSE), **options)


# --- in a folder ---


def _write_deeplabcut(path, positions, joints=MOUSE):
    rows = ["scorer" + ",DLC" * 3 * len(joints)]
    rows.append("bodyparts" + "".join(f",{joint}" * 3 for joint in joints))
    rows.append("coords" + ",x,y,likelihood" * len(joints))
    for number, frame in enumerate(positions):
        rows.append(f"{number}" + "".join(f",{x:.4f},{y:.4f},0.99" for x, y in frame))
    path.write_text("\n".join(rows))


def test_a_folder_of_deeplabcut(tmp_path):
    for number in range(2):
        name = f"m{number}DLC_resnet50_mouseJan1shuffle1_100.csv"
        _write_deeplabcut(tmp_path / name, mouse(90, seed=number))
    _write_deeplabcut(tmp_path / "m0DLC_resnet50_mouseJan1shuffle1_100_filtered.csv", mouse(90))
    _write_deeplabcut(tmp_path / "other.csv", mouse(90), ("snout", "ear_l", "ear_r", "tailbase"))
    backbone = extraction.open_backbone("pose", source_fps="30")
    lines = []
    out = tmp_path / "features"
    summary = extraction.extract_folder([tmp_path], out, backbone, workers=1, report=lines.append)
    assert set(summary.done) == {"m0", "m1"}
    assert "no joint 'leftear'" in summary.failed[0][1]
    assert any("m0: read from" in note and "_filtered" in note for note in summary.notes)
    assert lines[0].startswith("body (an animal): center=tailbase,snout axis=tailbase>snout")
    manifest = read_manifest(out)
    assert manifest.options["joints"] == list(MOUSE)
    assert np.load(out / "m0.npy").shape == (9, manifest.dim)
    again = extraction.extract_folder([tmp_path], out, backbone, workers=1)
    assert set(again.skipped) == {"m0", "m1"}
    other = extraction.open_backbone("pose", source_fps="30", center="snout")
    with pytest.raises(InputError, match="center is tailbase,snout, not snout|center is snout"):
        extraction.extract_folder([tmp_path], out, other, workers=1)
