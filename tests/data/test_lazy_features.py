"""Features that stay in their files."""

import numpy as np
import pytest

from tal_jax._errors import InputError
from tal_jax.data.lazy_features import load_npy, open_features


def write(path, length, dim, dtype=np.float32):
    values = np.random.default_rng(dim).normal(size=(length, dim)).astype(dtype)
    np.save(path, values)
    return values


def test_reads_like_the_array_in_the_file(tmp_path):
    values = write(tmp_path / "a.npy", 9, 3)
    found = open_features([tmp_path / "a.npy"])
    assert (found.shape, found.dtype, found.ndim, len(found)) == ((9, 3), np.float32, 2, 9)
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(found[2:5], values[2:5])
    assert np.asarray(found).dtype == np.float32
    assert np.asarray(found, np.float64).dtype == np.float64


def test_streams_lie_side_by_side(tmp_path):
    rgb, flow = write(tmp_path / "rgb.npy", 9, 3), write(tmp_path / "flow.npy", 7, 2, np.float16)
    found = open_features([tmp_path / "rgb.npy", tmp_path / "flow.npy"])
    assert (found.shape, found.dtype) == ((7, 5), np.float32)
    np.testing.assert_array_equal(found, np.concatenate([rgb[:7], flow], axis=1))
    np.testing.assert_array_equal(found[6:9], np.concatenate([rgb[6:7], flow[6:]], axis=1))


def test_half_precision_stays_half(tmp_path):
    write(tmp_path / "a.npy", 9, 3, np.float16)
    assert np.asarray(open_features([tmp_path / "a.npy"])).dtype == np.float16


def test_no_file_stays_open(tmp_path):
    write(tmp_path / "a.npy", 3, 2)
    # More than a process may have open; each listed, none held.
    found = [open_features([tmp_path / "a.npy"]) for _ in range(3000)]
    assert sum(map(len, found)) == 9000


def test_what_is_no_recording(tmp_path):
    write(tmp_path / "rgb.npy", 9, 3)
    write(tmp_path / "flow.npy", 6, 3)
    np.save(tmp_path / "flat.npy", np.zeros(4))
    with pytest.raises(ValueError, match=r"rgb.npy \(9\) and .*flow.npy \(6\): streams of one"):
        open_features([tmp_path / "rgb.npy", tmp_path / "flow.npy"])
    with pytest.raises(ValueError, match=r"flat.npy: shape \[4\], expected \[T, D\]"):
        open_features([tmp_path / "flat.npy"])
    with pytest.raises(ValueError, match="cannot read .*none.npy: No such file"):
        open_features([tmp_path / "none.npy"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (12345, 3), (7, 2048)])
def test_headers_of_every_kind(tmp_path, dtype, order, shape):
    np.save(tmp_path / "a.npy", np.ones(shape, dtype, order=order))
    found = open_features([tmp_path / "a.npy"])
    assert (found.shape, found.dtype) == (shape, np.dtype(dtype).newbyteorder("="))


def test_a_file_cut_short_is_found_by_its_size(tmp_path):
    write(tmp_path / "a.npy", 9, 3)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"cannot read .*a.npy: .* expected an .npy file"):
        open_features([tmp_path / "a.npy"])


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': \xc3\xa9 8), }",  # a bracket too many
        b"{'descr': '<f4', 'shape': (3, 2",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2L), }",
        b"{'descr': '<q9', 'fortran_order': False, 'shape': (3, 2), }",
        b"{'descr': [('x', '<f4'", b"x = ('", b"\x00", b"1 +", b"[" * 110, b"    x\n  y",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, -2), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 9), }",
        b"{'descr': ',', 'fortran_order': False, 'shape': (3, 2), }",
    ],
)  # fmt: skip
def test_damaged_headers(tmp_path, header):
    content = b"\x93NUMPY\x01\x00v\x00" + header.ljust(117)[:117] + b"\n" + bytes(24)
    (tmp_path / "a.npy").write_bytes(content)
    for read in (load_npy, lambda path: open_features([path])):
        with pytest.raises(InputError, match="cannot read .*a.npy: .*expected an .npy") as error:
            read(tmp_path / "a.npy")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed",
    [np.ones((4, 3), "f4"), np.ones((6, 3), "f4"), np.ones((5, 2), "f4"), np.ones((5, 3), "f2")],
)
def test_files_that_change_while_in_use_are_refused(tmp_path, changed):
    for name in ("rgb.npy", "flow.npy"):
        np.save(tmp_path / name, np.zeros((5, 3), "f4"))
    streams = open_features([tmp_path / "rgb.npy", tmp_path / "flow.npy"])
    alone = open_features([tmp_path / "rgb.npy"])
    assert streams[1:3].shape == (2, 6)
    np.save(tmp_path / "rgb.npy", changed)
    with pytest.raises(
        ValueError, match=r"rgb.npy: was changed since .*, expected float32 \[5, 3\]"
    ):
        alone[0:2]
    if changed.shape[0] < 6 and changed.dtype == np.float32:
        with pytest.raises(ValueError, match=r"flow.npy: was changed since it was opened"):
            streams[0:2]


def test_files_that_become_another_kind_of_array_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 3), "f4"))
    features = open_features([tmp_path / "a.npy"])
    np.save(tmp_path / "a.npy", np.zeros(5, "f4"))
    with pytest.raises(ValueError, match="a.npy: was changed since it was opened"):
        np.asarray(features)
