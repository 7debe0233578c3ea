"""Recordings of other machines: fetched as they are, compared without being fetched."""

import functools
import http.server
import os
import pickle
import threading
import zipfile
from pathlib import Path

import pytest

from tal_jax._errors import InputError
from tal_jax.data import addresses
from tal_jax.data.identity import identify, is_same


def test_paths_stay_paths(tmp_path):
    assert addresses.locate("a/b.mp4") == Path("a/b.mp4")
    assert addresses.locate(Path("a/b.mp4")) == Path("a/b.mp4")
    assert addresses.is_local(addresses.locate("a:b.mp4"))
    with addresses.on_disk(tmp_path / "a.mp4") as path:
        assert path == tmp_path / "a.mp4"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(InputError, match=r's3://b/a.mp4: .*pip install "tal_jax\[ray\]"'):
        addresses.locate("s3://b/a.mp4")


def test_files_of_this_machine_are_not_fetched(tmp_path):
    pytest.importorskip("upath")
    (tmp_path / "a b.csv").write_text("x")
    assert addresses.locate(f"file://{tmp_path}/a b.csv") == tmp_path / "a b.csv"


@pytest.fixture
def packed(tmp_path):
    """The address of a folder in an archive."""
    pytest.importorskip("upath")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("in/a.csv", "time_s,x\n0,1\n")
        archive.writestr("in/b.csv", "more")
    return f"zip://in::{tmp_path}/all.zip"


def test_what_is_fetched_is_what_is_there(packed):
    folder = addresses.locate(packed)
    assert addresses.is_folder(folder) and not addresses.is_local(folder)
    source = pickle.loads(pickle.dumps(folder / "a.csv"))
    assert not addresses.is_folder(source) and source == folder / "a.csv"
    with addresses.on_disk(source) as path:
        assert path.name == "a.csv" and path.read_text() == "time_s,x\n0,1\n"
        identity = identify(path)
    assert not path.exists()
    assert is_same(source, identity) and not is_same(folder / "b.csv", identity)
    with pytest.raises(InputError, match="cannot read zip://in/c.csv.*") as error:
        with addresses.on_disk(folder / "c.csv"):
            pass
    assert "\n" not in str(error.value)


def test_a_transfer_that_ends_early(packed, tmp_path, monkeypatch):
    source = addresses.locate(packed) / "a.csv"
    monkeypatch.setattr(
        type(source.fs), "get_file", lambda _, __, target, **___: Path(target).write_text("time")
    )
    with pytest.raises(InputError, match="a.csv.*: 4 bytes were fetched, expected 13"):
        addresses.fetch(source, tmp_path)


def test_a_server(tmp_path):
    pytest.importorskip("upath")
    pytest.importorskip("aiohttp")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "a.csv").write_text("hello")
    os.utime(tmp_path / "a.csv", (10**9, 10**9))
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = addresses.locate(f"http://127.0.0.1:{server.server_port}/a.csv")
        assert addresses.status(source) == (5, 10**18)  # by its header
        with addresses.on_disk(source) as path:
            identity = identify(path)
        assert identity.modified_ns == 10**18 and is_same(source, identity)
        with pytest.raises(InputError, match="cannot read http://.*/b.csv"):
            addresses.fetch(source.parent / "b.csv", tmp_path)
        server.shutdown()


def test_a_kind_of_address_that_nothing_opens():
    pytest.importorskip("upath")
    with pytest.raises(InputError, match="cannot read nowhere://a/b.mp4: "):
        addresses.status(addresses.locate("nowhere://a/b.mp4"))
