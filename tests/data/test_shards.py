"""Features in shards: what is read is what was written, whatever else happens to the files."""

import dataclasses
import os

import msgspec
import numpy as np
import pyarrow
import pytest

from tal_jax._errors import InputError
from tal_jax.data import shards
from tal_jax.data.clock import Grid
from tal_jax.data.fingerprint import fingerprint
from tal_jax.data.lazy_features import digest_of, open_features
from tal_jax.data.manifest import Entry
from tal_jax.data.recordings import Dataset, Recording
from tal_jax.data.shards import (
    open_shard,
    open_shards,
    pack_shard,
    shard_path,
    split_names,
    write_shard,
)

ENTRY = Entry("/videos/b.mp4", "0" * 64, 5, 6, 7.5, 3, 4, ("a note",))


def arrays(count=3, dim=4, dtype=np.float32):
    rng = np.random.default_rng(count)
    return {f"r{i}": rng.normal(size=(i + 1, dim)).astype(dtype) for i in range(count)}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reads_like_the_arrays_that_were_written(tmp_path, dtype):
    values = arrays(5, dtype=dtype)
    write_shard(tmp_path / "a.arrow", values, {"r2": ENTRY})
    found = open_shard(tmp_path / "a.arrow")
    assert list(found) == sorted(values)
    for name, one in found.items():
        assert (one.shape, one.dtype, one.ndim) == (values[name].shape, dtype, 2)
        assert one.digest == digest_of(values[name])
        np.testing.assert_array_equal(one, values[name])
        np.testing.assert_array_equal(one[1:3], values[name][1:3])
        assert np.asarray(one).flags.owndata and np.asarray(one, np.float64).dtype == np.float64
    assert found["r2"].entry == ENTRY and found["r1"].entry is None


def test_any_reader_of_arrow_reads_it(tmp_path):
    values = arrays()
    write_shard(tmp_path / "a.arrow", values)
    table = pyarrow.ipc.open_file(tmp_path / "a.arrow").read_all()
    rows = np.stack(table.column("features").to_numpy())
    np.testing.assert_array_equal(rows, np.concatenate([values[name] for name in sorted(values)]))


def test_the_order_of_writing_does_not_matter(tmp_path):
    values = arrays(6)
    write_shard(tmp_path / "a.arrow", values, {"r2": ENTRY})
    np.save(tmp_path / "r3.npy", values["r3"])
    mixed = open_shard(tmp_path / "a.arrow") | {"r3": open_features([tmp_path / "r3.npy"])}
    write_shard(tmp_path / "b.arrow", dict(reversed(mixed.items())), {"r2": ENTRY})
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_moving_files_into_a_shard_goes_on_where_it_was_stopped(tmp_path):
    values = arrays(4)
    write_shard(shard_path(tmp_path, 0, 1), {"r3": values["r3"]}, {"r3": ENTRY})
    for name in ("r0", "r1"):
        np.save(tmp_path / f"{name}.npy", values[name])
    entries = {name: dataclasses.replace(ENTRY, notes=(name,)) for name in ("r0", "r1")}
    pack_shard(tmp_path, 0, 1, entries)
    wanted = shard_path(tmp_path, 0, 1).read_bytes()
    np.save(tmp_path / "r1.npy", values["r1"])  # r0 was removed already
    pack_shard(tmp_path, 0, 1, entries)
    assert shard_path(tmp_path, 0, 1).read_bytes() == wanted
    assert os.listdir(tmp_path) == [shard_path(tmp_path, 0, 1).name]
    with pytest.raises(InputError, match="cannot read .*r2.npy"):
        pack_shard(tmp_path, 0, 1, {"r2": ENTRY})


def test_names_are_distributed_evenly_and_completely():
    names = [f"video_{i}" for i in range(4000)]
    split = split_names(names, 16)
    assert sorted(name for part in split for name in part) == sorted(names)
    assert 180 < min(map(len, split)) and max(map(len, split)) < 320


def test_a_folder_of_shards(tmp_path):
    values = arrays(9)
    assert open_shards(tmp_path) == {}
    for number, names in enumerate(split_names(values, 4)):
        write_shard(shard_path(tmp_path, number, 4), {name: values[name] for name in names})
    assert open_shards(tmp_path).keys() == values.keys()
    lost = shard_path(tmp_path, 2, 4)
    gone = set(split_names(values, 4)[2])
    lost.unlink()
    with pytest.raises(
        InputError, match="1 of 4 shards are missing, such as features-0002-of-0004"
    ):
        open_shards(tmp_path)
    assert open_shards(tmp_path, complete=False).keys() == values.keys() - gone
    write_shard(shard_path(tmp_path, 0, 3), {})
    with pytest.raises(InputError, match="shards of 3 and of 4, expected those of one number"):
        open_shards(tmp_path)


def test_features_of_another_kind_are_refused(tmp_path):
    for name, odd in (
        ("D = 5", np.zeros((2, 5), np.float32)),
        ("float16", np.zeros((2, 4), np.float16)),
        ("float64", np.zeros((2, 4))),
        ("expected finite numbers", np.full((2, 4), np.nan, np.float32)),
    ):
        with pytest.raises(InputError, match=name):
            write_shard(tmp_path / "a.arrow", arrays() | {"zz": odd})
    assert not any(tmp_path.iterdir())


def test_no_file_stays_open(tmp_path):
    write_shard(tmp_path / "a.arrow", arrays(200))
    before = len(os.listdir("/proc/self/fd"))
    found = open_shard(tmp_path / "a.arrow")
    kept = [one[:] for one in found.values()]
    assert len(kept) == 200 and len(os.listdir("/proc/self/fd")) == before


def test_a_shard_replaced_since_it_was_opened(tmp_path):
    path = tmp_path / "a.arrow"
    write_shard(path, arrays())
    found = open_shard(path)["r2"]
    write_shard(path, {"r9": arrays()["r2"], **arrays(2)})
    with pytest.raises(InputError, match="was changed since it was opened: 'r2' moved"):
        found[:]


@pytest.mark.parametrize("cut", [0, 7, 100, -200, -1])
def test_a_shard_cut_short(tmp_path, cut):
    path = tmp_path / "a.arrow"
    write_shard(path, arrays())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"^cannot read .*a\.arrow: .*expected a shard") as caught:
        open_shard(path)
    assert "\n" not in str(caught.value)


def test_other_arrow_files(tmp_path):
    path = tmp_path / "a.arrow"
    table = pyarrow.table({"x": [1.0]})
    for metadata, message in (
        (None, "no index"),
        ({"tal_jax": b"{"}, "its index is damaged"),
        ({"tal_jax": b'{"version": 1, "recordings": [{"name": 3}]}'}, "its index is damaged"),
        ({"tal_jax": b'{"version": 9, "recordings": []}'}, "version 9, expected 1"),
        ({"tal_jax": b'{"version": 1, "recordings": []}'}, "1 recordings and 0 in the index"),
    ):
        changed = table.replace_schema_metadata(metadata)
        with pyarrow.ipc.new_file(path, changed.schema) as writer:
            writer.write_table(changed)
        with pytest.raises(InputError, match=message):
            open_shard(path)


def test_damage_anywhere_is_an_input_error_or_another_digest(tmp_path):
    """Bytes of a shard, flipped: an error in one line, or values that the digest refutes."""
    path, values = tmp_path / "a.arrow", arrays(2, dim=2)
    write_shard(path, values)
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            for name, one in open_shard(path).items():
                if name in values and one.digest == digest_of(values[name]):
                    same = np.array_equal(one[:], values[name])
                    assert same or digest_of(one[:]) != one.digest
        except InputError as error:
            assert "\n" not in str(error)


def test_the_fingerprint_is_that_of_the_arrays(tmp_path):
    values = arrays()
    write_shard(tmp_path / "a.arrow", values)

    def of(features):
        grid = Grid(1.0, 1.0, 1.0)
        recordings = (Recording("r2", features, grid, float(len(features))),)
        return fingerprint(Dataset(("c",), (), recordings, {"database": {"r2": {}}}))

    found = open_shard(tmp_path / "a.arrow")["r2"]
    assert of(found) == of(values["r2"])
    # Without reading: the file may be gone.
    (tmp_path / "a.arrow").unlink()
    assert of(found) == of(values["r2"])
    assert of(dataclasses.replace(found, digest="0")) != of(values["r2"])


def test_the_index_is_plain_json(tmp_path):
    write_shard(tmp_path / "a.arrow", arrays(1), {"r0": ENTRY})
    metadata = pyarrow.ipc.open_file(tmp_path / "a.arrow").schema.metadata
    index = msgspec.json.decode(metadata[b"tal_jax"])
    assert index["recordings"][0]["entry"]["source"] == "/videos/b.mp4"
    assert shards.check_count(3) == 3
    for count in (0, 10_000):
        with pytest.raises(InputError, match=f"shards is {count}, expected 1 to 9999"):
            shards.check_count(count)
