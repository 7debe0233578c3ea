"""Tables of keypoints, as the programs write them."""

import pickle

import numpy as np
import pytest
from filming import film

from tal_jax._errors import InputError
from tal_jax.extraction import keypoint_h5
from tal_jax.extraction.keypoint_columns import find_joints, split_name
from tal_jax.extraction.keypoint_tables import read_keypoints, recording_name

DEEPLABCUT = """\
scorer,DLC_resnet50_openfieldOct30shuffle1_1030000,DLC_resnet50_openfieldOct30shuffle1_1030000,\
DLC_resnet50_openfieldOct30shuffle1_1030000,DLC_resnet50_openfieldOct30shuffle1_1030000,\
DLC_resnet50_openfieldOct30shuffle1_1030000,DLC_resnet50_openfieldOct30shuffle1_1030000
bodyparts,snout,snout,snout,tailbase,tailbase,tailbase
coords,x,y,likelihood,x,y,likelihood
0,10.5,20.5,0.99,30.0,40.0,0.5
1,11.5,21.5,0.98,31.0,41.0,0.25
2,12.5,22.5,0.97,32.0,42.0,0.125
"""

SEVERAL = """\
scorer,DLC,DLC,DLC,DLC,DLC,DLC,DLC,DLC,DLC
individuals,m1,m1,m1,m2,m2,m2,single,single,single
bodyparts,snout,snout,snout,snout,snout,snout,corner,corner,corner
coords,x,y,likelihood,x,y,likelihood,x,y,likelihood
0,1.0,2.0,0.9,3.0,4.0,0.8,0.1,0.2,1.0
1,,,,3.5,4.5,0.7,0.1,0.2,1.0
"""

SLEAP = """\
track,frame_idx,instance.score,head.x,head.y,head.score,tail.x,tail.y,tail.score
track_0,2,0.9,1.0,2.0,0.8,3.0,4.0,0.7
track_10,2,0.9,11.0,12.0,0.8,13.0,14.0,0.7
track_2,2,0.9,21.0,22.0,0.8,23.0,24.0,0.7
track_0,5,0.9,1.5,2.5,0.8,,,
"""


def _write(folder, text, name="a.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_deeplabcut_csv(tmp_path):
    keypoints = read_keypoints(_write(tmp_path, DEEPLABCUT), source_fps=2)
    assert keypoints.joints == ("snout", "tailbase")
    assert keypoints.times_s.tolist() == [0, 0.5, 1]
    assert keypoints.positions[1, 0].tolist() == [[11.5, 21.5], [31, 41]]
    assert keypoints.confidence[:, 0, 1].tolist() == [0.5, 0.25, 0.125]


def test_deeplabcut_csv_of_several_animals(tmp_path):
    keypoints = read_keypoints(_write(tmp_path, SEVERAL), source_fps=30)
    assert (keypoints.animals, keypoints.joints) == (("m1", "m2"), ("snout",))
    assert keypoints.positions[0, :, 0].tolist() == [[1, 2], [3, 4]]
    assert np.isnan(keypoints.positions[1, 0]).all()
    assert keypoints.confidence[1, :, 0].tolist() == [0, 0.7]
    assert "left out, since they belong to no animal: corner" in keypoints.notes


def test_sleap_csv_has_a_row_for_each_track(tmp_path):
    keypoints = read_keypoints(_write(tmp_path, SLEAP), source_fps=10)
    assert keypoints.animals == ("track_0", "track_2", "track_10")
    assert keypoints.times_s.tolist() == [0.2, 0.5]
    assert keypoints.positions[0, :, 1, 0].tolist() == [3, 23, 13]
    assert keypoints.positions[1, 0, 0].tolist() == [1.5, 2.5]
    missing = np.isnan(keypoints.positions[1]).all(-1)
    assert missing.tolist() == [[False, True], [True, True], [True, True]]
    assert "time 0 is that of frame 0" in keypoints.notes[0]


def test_untracked_instances_are_refused(tmp_path):
    header = SLEAP.splitlines()[0]
    path = _write(tmp_path, f"{header}\n,0,1,1,2,1,3,4,1\n,0,1,5,6,1,7,8,1\n")
    with pytest.raises(InputError, match="frame 0 has 2 instances of track ''.*track the animals"):
        read_keypoints(path, source_fps=30)


@pytest.mark.parametrize("reverse", [True, False])
def test_sleap_h5_in_both_orders_of_axes(tmp_path, reverse):
    h5py = pytest.importorskip("h5py")
    tracks = np.random.default_rng(0).normal(size=(7, 3, 2, 2))  # frames, nodes, 2, tracks
    scores = np.random.default_rng(1).uniform(size=(7, 3, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        order = (lambda a: a.T) if reverse else (lambda a: a)
        file["tracks"], file["point_scores"] = order(tracks), order(scores)
        file["node_names"] = [b"head", b"thorax", b"tail"]
        file["track_names"] = [b"female", b"male"]
        file["track_occupancy"] = order(np.ones((2, 7), np.uint8))
    keypoints = read_keypoints(tmp_path / "a.h5", source_fps=30)
    assert keypoints.joints == ("head", "thorax", "tail")
    assert keypoints.animals == ("female", "male")
    np.testing.assert_array_equal(keypoints.positions[4, 1, 2], tracks[4, 2, :, 1])
    np.testing.assert_array_equal(keypoints.confidence[4, 1, 2], scores[4, 2, 1])


def _columns(scorer="DLC", individuals=()):
    animals = individuals or (None,)
    return [
        tuple(level for level in (scorer, animal, joint, coord) if level is not None)
        for animal in animals
        for joint in ("snout", "tailbase")
        for coord in ("x", "y", "likelihood")
    ]


@pytest.mark.parametrize("individuals", [(), ("m1", "m2")])
def test_deeplabcut_h5_as_pytables_writes_it(tmp_path, individuals):
    """`to_hdf(format="table")`: names as text of pickle's protocol 0, rows as a compound."""
    h5py = pytest.importorskip("h5py")
    columns = _columns(individuals=individuals)
    values = np.random.default_rng(0).uniform(size=(4, len(columns)))
    rows = np.zeros(4, [("index", "<i8"), ("values_block_0", "<f8", (len(columns),))])
    rows["index"], rows["values_block_0"] = np.arange(4), values
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        table = group.create_dataset("table", data=rows)
        table.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, protocol=0))
    keypoints = read_keypoints(tmp_path / "a.h5", source_fps=30)
    assert keypoints.animals == (individuals or ("animal",))
    last = values.reshape(4, -1, 2, 3)
    np.testing.assert_array_equal(keypoints.positions, last[..., :2])
    np.testing.assert_array_equal(keypoints.confidence, last[..., 2])


def test_deeplabcut_h5_of_the_fixed_format(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).uniform(size=(4, 6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("tracks")
        group.attrs["pandas_type"], group.attrs["nblocks"] = np.bytes_(b"frame"), 1
        group.attrs["block0_items_nlevels"] = 3
        levels = [b"DLC"], [b"snout", b"tailbase"], [b"likelihood", b"x", b"y"]
        labels = [0] * 6, [0, 0, 0, 1, 1, 1], [1, 2, 0, 1, 2, 0]
        for level, (texts, own) in enumerate(zip(levels, labels, strict=True)):
            group[f"block0_items_level{level}"] = np.array(texts)
            group[f"block0_items_label{level}"] = np.array(own, np.int8)
        group["block0_values"], group["axis1"] = values, np.arange(4)
    keypoints = read_keypoints(tmp_path / "a.h5", source_fps=30)
    np.testing.assert_array_equal(keypoints.positions[:, 0], values.reshape(4, 2, 3)[..., :2])


class _Trap:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_read_without_running_anything(protocol, capsys):
    names = [("DLC", "snout", "x"), ("DLC", "tail", "y")]
    assert keypoint_h5.read_literal(pickle.dumps(names, protocol)) == names
    with pytest.raises(ValueError, match="token"):
        keypoint_h5.read_literal(pickle.dumps([_Trap()], protocol))
    assert capsys.readouterr().out == ""


def test_h5_of_another_program(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["something"] = np.zeros(3)
    with pytest.raises(InputError, match="holds something; expected a table of DeepLabCut"):
        read_keypoints(tmp_path / "a.h5", source_fps=30)
    _write(tmp_path, "no hdf5", "b.h5")
    with pytest.raises(InputError, match="expected HDF5"):
        read_keypoints(tmp_path / "b.h5", source_fps=30)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nose_x", ("nose", "x")),
        ("nose.y", ("nose", "y")),
        ("x_nose", ("nose", "x")),
        ("Head X", ("Head", "x")),
        ("HipCenter_Z", ("HipCenter", "z")),
        ("SpineBaseX", ("SpineBase", "x")),
        ("landmark_0_x", ("landmark_0", "x")),
        ("landmark_0_visibility", ("landmark_0", "visibility")),
        ("x0", ("joint_0", "x")),
        ("v32", ("joint_32", "v")),
        ("0_x", ("joint_0", "x")),
        ("left_ear_likelihood", ("left_ear", "likelihood")),
        ("nose (x)", ("nose", "x")),
        ("nose_error", None),
        ("nose_ncams", None),
        ("M_00", None),
        ("fnum", None),
        ("box", None),
        ("HipCenter_rot_x", None),
        ("index", None),
    ],
)
def test_names_of_columns(name, expected):
    assert split_name(name) == expected


def test_anipose_columns():
    parts = ("x", "y", "z", "error", "ncams", "score")
    names = [f"{joint}_{part}" for joint in ("base1", "tip1") for part in parts]
    found = find_joints([*names, *(f"M_{i}{j}" for i in range(3) for j in range(3)), "center_0"])
    assert (found.joints, found.dims) == (("base1", "tip1"), 3)
    assert found.columns["animal", "tip1", "confidence"] == "tip1_score"
    assert "tip1_error" in found.others
    assert "center_0" in found.others


def test_numbered_animals_have_the_same_joints():
    names = [
        f"mouse{i}_{joint}_{axis}" for i in (1, 2) for joint in ("nose", "tail") for axis in "xy"
    ]
    found = find_joints(names)
    assert (found.animals, found.joints) == (("mouse1", "mouse2"), ("nose", "tail"))
    assert find_joints(names[:-2]).animals == ("animal",)


def test_a_plain_table_with_times(tmp_path):
    text = "timestamp_ms,nose_x,nose_y,nose_conf,tail_x,tail_y,tail_conf,comment\n"
    rows = [f"{1000 + 40 * i},{i + 1},{2 * i},{90 + i},,,0,ok" for i in range(5)]
    keypoints = read_keypoints(_write(tmp_path, text + "\n".join(rows)))
    np.testing.assert_allclose(keypoints.times_s, np.arange(5) * 0.04)
    assert keypoints.positions[3, 0, 0].tolist() == [4, 6]
    assert np.isnan(keypoints.positions[:, 0, 1]).all()
    np.testing.assert_allclose(keypoints.confidence[:, 0, 0], [0.9, 0.91, 0.92, 0.93, 0.94])
    assert "confidence is in percent" in keypoints.notes
    assert any("comment" in note for note in keypoints.notes)


def test_numbers_of_frames_need_a_rate(tmp_path):
    path = _write(tmp_path, "frame,nose_x,nose_y\n1,1,2\n2,3,4\n4,5,6\n")
    with pytest.raises(InputError, match="frames without times.*source_fps=30"):
        read_keypoints(path)
    keypoints = read_keypoints(path, source_fps=10)
    np.testing.assert_allclose(keypoints.times_s, [0, 0.1, 0.3])
    assert keypoints.notes == ("frames count from 1", "no confidence: every position counts")


def test_arrays_of_positions(tmp_path):
    positions = np.random.default_rng(0).normal(size=(6, 2, 4, 3))
    np.save(tmp_path / "a.npy", positions)
    keypoints = read_keypoints(tmp_path / "a.npy", source_fps=30)
    np.testing.assert_array_equal(keypoints.positions, positions)
    np.save(tmp_path / "b.npy", np.c_[np.arange(6) / 30, positions[:, 0].reshape(6, -1)])
    keypoints = read_keypoints(tmp_path / "b.npy")
    np.testing.assert_array_equal(keypoints.positions, positions[:, :1])


def test_zeros_are_missing_unless_always(tmp_path):
    text = "time_s,hip_x,hip_y,nose_x,nose_y\n0,0,0,1,1\n0.1,0,0,0,0\n0.2,0,0,2,2\n"
    keypoints = read_keypoints(_write(tmp_path, text))
    assert np.isfinite(keypoints.positions[:, 0, 0]).all()
    assert np.isnan(keypoints.positions[1, 0, 1]).all()
    assert "positions of 0 count as missing: 16.7%" in keypoints.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_s,speed,mass\n0,1,2\n0.1,1,2\n", "no joints among the columns.*nose_x"),
        ("time_s,nose_x,nose_y\n0,1,2\n0.1,1,2\n0.1,1,2\n", "row 3; expected increasing"),
        ("frame,nose_x,nose_y\n0,1,2\n2,1,2\n1,1,2\n", "number of the frame is 1 after 2"),
        ("frame,nose_x,nose_y\n0,1,2\n1,one,2\n", "'nose_x', row 2 is 'one'"),
        ("frame,nose_x,nose_y,nose_conf\n0,1,2,500\n1,1,2,3\n", "confidence from 3 to 500"),
        (DEEPLABCUT.replace("31.0", "here"), "line 5, field 5 is 'here', expected a number"),
        (DEEPLABCUT + "3,1,2\n", "line 7 has 3 fields, expected 7"),
        ("nose_x,nose_y\n1,2\n,\n3,4\n", "rows without values"),
    ],
)
def test_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_keypoints(_write(tmp_path, text), source_fps=30)
    assert "\n" not in str(caught.value)
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m3DLC_resnet50_openfieldOct30shuffle1_1030000.csv", "m3"),
        ("m3DLC_dlcrnetms5_maOct1shuffle1_50000_el.h5", "m3"),
        ("m3DLC_resnet50_openfieldOct30shuffle1_1030000_filtered.csv", "m3"),
        ("clip.analysis.h5", "clip"),
        ("walk_01.csv", "walk_01"),
    ],
)
def test_names_of_recordings(name, expected):
    assert recording_name(name) == expected


def test_the_rate_of_a_video_beside_the_table(tmp_path):
    pytest.importorskip("av")
    film(tmp_path / "m3.mp4", range(3))
    name = "m3DLC_resnet50_openfieldOct30shuffle1_1030000.csv"
    keypoints = read_keypoints(_write(tmp_path, DEEPLABCUT, name))
    np.testing.assert_allclose(keypoints.times_s, [0, 0.04, 0.08])
    assert keypoints.notes[0] == "25 frames per second, as in m3.mp4 beside it"
    keypoints = read_keypoints(tmp_path / name, source_fps=50)
    np.testing.assert_allclose(keypoints.times_s, [0, 0.02, 0.04])
    assert keypoints.notes == ("source_fps is 50, where m3.mp4 has 25 frames per second",)
