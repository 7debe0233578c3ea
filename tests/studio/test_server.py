"""The server of the page: who is answered, what is sent, and what a save leaves in the file."""

import errno
import http.client
import json
import os
import socket
import threading

import live_page
import numpy as np
import pytest

from tal_jax import studio
from tal_jax.data.annotations import load_annotations
from tal_jax.extraction.tables import Table
from tal_jax.studio.recordings import Envelope, find_sources
from tal_jax.studio.store import Conflict, Store

OTHER = {
    "version": "theirs",
    "note": {"kept": True},
    "database": {
        "other": {
            "subset": "test",
            "duration": 9.0,
            "fps": 30,
            "annotations": [{"label": "sit", "segment": [1.0, 2.0], "id": 7}],
        }
    },
}


def _fill(folder):
    """Two tables of samples, and an annotation file of somebody else."""
    times_s = np.arange(500) / 50
    for name, speed in (("walk", 1.0), ("run", 2.0)):
        np.save(folder / f"{name}.npy", np.stack([times_s, np.sin(speed * times_s)], 1))
    (folder / "a.json").write_text(json.dumps(OTHER))
    return folder


@pytest.fixture
def folder(tmp_path):
    return _fill(tmp_path)


def _serving(*paths, **options):
    return live_page.serving(studio.open_server(*paths, **options))


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """A server that many tests ask for what it refuses."""
    folder = _fill(tmp_path_factory.mktemp("refusing"))
    with _serving([folder / "walk.npy", folder / "run.npy"], folder / "a.json") as server:
        yield server


@pytest.fixture
def server(folder):
    with _serving([folder / "walk.npy", folder / "run.npy"], folder / "a.json") as server:
        yield server


def _save(server, index, **values):
    values = {"annotations": [], "classes": [], "revision": "", **values}
    path = f"/{server.token}/save/{index}"
    body = json.dumps(values)
    status, _, content = live_page.ask(
        server, path, method="POST", body=body, Content_Type="application/json"
    )
    return status, json.loads(content)


def _recording(server, index):
    return json.loads(live_page.ask(server, f"/{server.token}/recording/{index}")[2])


# --- who is answered ---


def test_only_loopback_is_listened_on(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    assert len(server.token) >= 32


def test_pages_and_what_they_may_load(server):
    status, headers, content = live_page.ask(server, f"/{server.token}/")
    assert status == 200 and content.startswith(b"<!doctype html>") and b"{{" not in content
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy and "http" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert b"http://" not in content and b"https://" not in content


@pytest.mark.parametrize(
    "path", ["/", "", "/wrong/", "/wrong/state", "/%C3%A9/", "/../a.json", "//", "/wrong/media/0"]
)
def test_wrong_token(refusing, path):
    for method in ("GET", "POST", "HEAD"):
        status, _, content = live_page.ask(refusing, path or "/", method=method)
        assert status == 403 and refusing.token.encode() not in content


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
@pytest.mark.parametrize("path", ["", "state", "recording/0", "save/0", "events", "train"])
def test_other_hosts_and_origins(refusing, headers, path):
    headers = {key: text.format(port=refusing.server_port) for key, text in headers.items()}
    method = "POST" if path in ("save/0", "train") else "GET"
    before = refusing.store.path.read_bytes()
    status, _, content = live_page.ask(
        refusing, f"/{refusing.token}/{path}", method=method, **headers
    )
    assert status == 403 and "requested by another" in json.loads(content)["error"]
    assert refusing.store.path.read_bytes() == before


def test_our_own_origins(refusing):
    for host in ("127.0.0.1", "localhost"):
        name = f"{host}:{refusing.server_port}"
        status, *_ = live_page.ask(
            refusing, f"/{refusing.token}/", Host=name, Origin=f"http://{name}"
        )
        assert status == 200


@pytest.mark.parametrize(
    "path",
    [
        *("x", "recording", "recording/2", "recording/-1", "recording/0/0", "recording/%C2%B2"),
        *(
            "media/../a.json",
            "static/../server.py",
            "static/%2e%2e/server.py",
            "static/",
            "..",
            "0",
        ),
        *("prediction/0", "queue", "changes", "summary"),  # of the studio
    ],
)
def test_nothing_else_is_there(refusing, path):
    assert live_page.ask(refusing, f"/{refusing.token}/{path}")[0] == 404


# --- media ---


@pytest.mark.parametrize(
    ("header", "status", "span"),
    [
        (None, 200, (0, 1000)),
        ("bytes=0-99", 206, (0, 100)),
        ("bytes=100-", 206, (100, 1000)),
        ("bytes=-10", 206, (990, 1000)),
        ("bytes=-5000", 206, (0, 1000)),
        ("bytes=990-5000", 206, (990, 1000)),
        ("bytes=5-5", 206, (5, 6)),
        ("bytes=1000-", 416, None),
        ("bytes=9-5", 400, None),
        ("lines=0-1", 400, None),
        ("bytes=-", 400, None),
    ],
)
def test_ranges(folder, header, status, span):
    content = bytes(np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8))
    (folder / "clip.mp4").write_bytes(content)
    with _serving([folder / "walk.npy", folder / "clip.mp4"], folder / "a.json") as server:
        headers = {} if header is None else {"Range": header}
        found, told, body = live_page.ask(server, f"/{server.token}/media/1", **headers)
        assert found == status and told["Content-Length"] == str(len(body))
        if span is not None:
            assert body == content[slice(*span)] and told["Accept-Ranges"] == "bytes"
            assert told["Content-Type"] == "video/mp4"
        if status == 206:
            assert told["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/1000"
        if status == 416:
            assert told["Content-Range"] == "bytes */1000"
        assert live_page.ask(server, f"/{server.token}/media/1", method="HEAD", **headers)[2] == b""
        (folder / "clip.mp4").unlink()
        status, _, body = live_page.ask(server, f"/{server.token}/media/1", **headers)
        assert status == 500 and json.loads(body) == {"error": "No such file or directory"}


def test_a_broken_recording_is_told_on_its_page(folder):
    (folder / "clip.mp4").write_bytes(b"no video")
    with _serving([folder / "walk.npy", folder / "clip.mp4"], folder / "a.json") as server:
        status, _, content = live_page.ask(server, f"/{server.token}/recording/1")
        assert status == 422 and "clip.mp4" in json.loads(content)["error"]


def test_requests_on_one_connection_and_one_that_is_dropped(folder):
    (folder / "clip.mp4").write_bytes(bytes(20_000_000))
    with _serving([folder / "walk.npy", folder / "clip.mp4"], folder / "a.json") as server:
        sent = (
            f"GET /{server.token}/media/1 HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.server_port)) as dropped:
            dropped.sendall(sent.encode())
            dropped.recv(1000)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        for _ in range(3):
            connection.request("GET", f"/{server.token}/state")
            assert len(json.loads(connection.getresponse().read())["recordings"]) == 2
        connection.close()


# --- signals ---


def _envelope(values, rate=50.0):
    values = np.asarray(values, np.float32)
    return Envelope(Table(np.arange(len(values)) / rate, values, tuple("ab")[: values.shape[1]]))


def test_envelopes_hold_every_sample():
    """Held against a search through all samples, in windows of every size and place."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(70_000, 2)).cumsum(0).astype(np.float32)
    envelope = _envelope(values)
    np.testing.assert_allclose(envelope.ranges, np.stack([values.min(0), values.max(0)], 1))
    for _ in range(200):
        start_s, end_s = np.sort(generator.uniform(-10, 1410, 2))
        bins = int(generator.integers(1, 900))
        times_s, low, high = envelope.window(start_s, end_s, bins)
        assert len(times_s) <= 2 * bins and np.all(np.diff(times_s) > 0)
        inside = values[(np.arange(70_000) / 50 >= start_s) & (np.arange(70_000) / 50 <= end_s)]
        if len(inside):
            assert np.all(low.min(0) <= inside.min(0)) and np.all(high.max(0) >= inside.max(0))
        # Each piece holds the samples up to the next one.
        first = np.round(times_s * 50).astype(int)
        for piece in range(0, len(first) - 1, 37):
            block = values[first[piece] : first[piece + 1]]
            if len(times_s) < len(inside):
                np.testing.assert_array_equal(low[piece], block.min(0))
                np.testing.assert_array_equal(high[piece], block.max(0))


def test_signals_are_sent_as_numbers(server):
    status, _, content = live_page.ask(server, f"/{server.token}/signal/0?start=2&end=4&bins=500")
    times_s, low, high = np.frombuffer(content, "<f8").reshape(3, -1)
    np.testing.assert_allclose(times_s, np.arange(100, 201) / 50)
    np.testing.assert_allclose(low, np.sin(times_s), atol=1e-6)
    assert status == 200 and np.array_equal(low, high)
    for query in ("", "?start=0&end=1", "?start=0&end=nan&bins=9", "?start=0&end=1&bins=9e9"):
        assert live_page.ask(server, f"/{server.token}/signal/0{query}")[0] == 400


def test_what_a_recording_tells(server):
    told = _recording(server, 1)
    assert told["name"] == "run" and told["kind"] == "signal" and told["annotations"] == []
    assert told["duration"] == pytest.approx(10.0) and told["frame_rate"] == pytest.approx(50.0)
    state = json.loads(live_page.ask(server, f"/{server.token}/state")[2])
    assert state["classes"] == ["sit"] and len(set(state["colours"])) >= 50
    assert [one["name"] for one in state["recordings"]] == ["walk", "run"]
    assert [one["points"] for one in state["recordings"]] == [0, 0]
    assert state["project"] is state["job"] is state["run"] is None


# --- saving ---

JUMP = {"label": "jump", "point": 1.25}


def test_other_recordings_stay_untouched(server):
    revision = _recording(server, 0)["revision"]
    status, told = _save(server, 0, annotations=[JUMP], classes=["sit", "jump"], revision=revision)
    assert status == 200 and told["revision"] != revision
    values = json.loads(server.store.path.read_text())
    assert values["database"]["other"] == OTHER["database"]["other"]
    assert values["note"] == OTHER["note"] and values["version"] == "theirs"
    assert values["classes"] == ["sit", "jump"]
    walk = values["database"]["walk"]
    assert walk == {"subset": "train", "duration": pytest.approx(10.0), "annotations": [JUMP]}
    assert load_annotations(server.store.path).recordings["walk"].instances[0].point_s == 1.25
    assert _save(server, 0, revision=told["revision"])[0] == 200
    assert json.loads(server.store.path.read_text())["database"]["walk"]["annotations"] == []


def test_background_points_and_done_stretches_stay(server):
    values = json.loads(server.store.path.read_text())
    labels = {"background": [4.5], "done": [[0.0, 5.0]]}
    values["database"]["walk"] = {"subset": "train", "duration": 10.0, "annotations": [], **labels}
    server.store.path.write_text(json.dumps(values))
    revision = _recording(server, 0)["revision"]
    assert _save(server, 0, annotations=[JUMP], revision=revision)[0] == 200
    walk = json.loads(server.store.path.read_text())["database"]["walk"]
    assert walk["annotations"] == [JUMP] and labels.items() <= walk.items()
    over = [{"label": "jump", "segment": [4.0, 5.0]}]
    revision = _recording(server, 0)["revision"]
    status, told = _save(server, 0, annotations=over, revision=revision)
    assert status == 422 and "background point at 4.5 s is in the instance" in told["error"]


def test_two_pages_do_not_overwrite_each_other(server):
    revision = _recording(server, 0)["revision"]
    assert _save(server, 0, annotations=[JUMP], revision=revision)[0] == 200
    before = server.store.path.read_bytes()
    status, told = _save(server, 0, annotations=[], revision=revision)
    assert status == 409 and "walk was changed by another page or program" in told["error"]
    assert server.store.path.read_bytes() == before
    # Another recording is another matter, and so is the same one once it was read again.
    assert _save(server, 1, revision=_recording(server, 1)["revision"])[0] == 200
    assert _save(server, 0, revision=_recording(server, 0)["revision"])[0] == 200


def test_what_another_program_wrote_is_kept(server):
    revision = _recording(server, 0)["revision"]
    values = json.loads(server.store.path.read_text())
    values["database"]["new"] = {"subset": "x", "duration": 3, "annotations": []}
    server.store.path.write_text(json.dumps(values))
    assert _save(server, 0, annotations=[JUMP], revision=revision)[0] == 200
    assert set(json.loads(server.store.path.read_text())["database"]) == {"other", "new", "walk"}
    server.store.path.write_text("{")
    status, told = _save(server, 0, annotations=[JUMP], revision=revision)
    assert status == 422 and "a.json" in told["error"]
    assert server.store.path.read_text() == "{"


def test_many_at_once(tmp_path):
    """Each of many threads adds a recording; none is lost."""
    store = Store(tmp_path / "a.json")
    empty = store.entry("none")[1]

    def save(name):
        store.save(name, [JUMP], revision=empty, classes=[], duration_s=9.0)

    threads = [threading.Thread(target=save, args=(f"r{index}",)) for index in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_annotations(tmp_path / "a.json").recordings) == 20
    with pytest.raises(Conflict):
        save("r0")


@pytest.mark.parametrize(
    ("values", "status", "message"),
    [
        ({"annotations": [{"label": "jump", "point": 10.5}]}, 422, "point of 'jump' is 10.5 s"),
        ({"annotations": [{"label": "jump", "point": "1"}]}, 422, "expected a finite number"),
        ({"annotations": [{"point": 1.0}]}, 422, "missing key 'label'"),
        ({"annotations": {}}, 400, "expected annotations, classes and a revision"),
        ({"classes": [1]}, 422, "expected a string"),
        ({"classes": ["jump", 3]}, 422, "is 3, expected a string"),
    ],
)
def test_labels_that_are_refused(server, values, status, message):
    before = server.store.path.read_bytes()
    revision = _recording(server, 0)["revision"]
    found, told = _save(server, 0, **{"revision": revision, **values})
    assert found == status and message in told["error"]
    assert server.store.path.read_bytes() == before


def test_bodies_that_are_refused(server):
    path = f"/{server.token}/save/0"
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert live_page.ask(server, path, method="POST", body="a=1", **form)[0] == 415
    plain = {"Content_Type": "application/json"}
    assert live_page.ask(server, path, method="POST", body="{", **plain)[0] == 400
    assert live_page.ask(server, path, method="POST", body="[" * 100_000, **plain)[0] == 400
    assert (
        live_page.ask(server, path, method="POST", Content_Length=str(1 << 40), **plain)[0] == 413
    )
    assert live_page.ask(server, path, method="PUT", body="{}", **plain)[0] == 405
    assert live_page.ask(server, path)[0] == 405


def test_a_full_disk(server, monkeypatch):
    before = server.store.path.read_bytes()
    revision = _recording(server, 0)["revision"]

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        status, told = _save(server, 0, annotations=[JUMP], revision=revision)
    assert status == 500 and "a.json: No space left on device; nothing was changed" in told["error"]
    assert server.store.path.read_bytes() == before
    assert _save(server, 0, annotations=[JUMP], revision=revision)[0] == 200


# --- beginning ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a.json: Expecting property name"),
        ("[]", "a.json: got \\[\\], expected an object"),
        ('{"database": {"walk": {"subset": "x", "duration": 3}}}', "walk: missing key 'annot"),
    ],
)
def test_a_broken_annotation_file_is_not_touched(folder, content, message):
    (folder / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        studio.open_server([folder / "walk.npy"], folder / "a.json")
    assert (folder / "a.json").read_text() == content


def test_recordings_are_found(folder):
    (folder / "clip.MP4").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    assert [source.name for source in find_sources([folder])] == ["clip", "run", "walk"]
    assert [source.kind for source in find_sources([folder])] == ["video", "signal", "signal"]
    (folder / "walk.csv").write_text("")
    with pytest.raises(ValueError, match=r"walk.csv and .*walk.npy would both be the recording"):
        find_sources([folder])
    with pytest.raises(ValueError, match=r"notes.txt: unknown suffix, expected videos"):
        find_sources([folder / "notes.txt"])
    with pytest.raises(ValueError, match=r"cannot read .*none.mp4: No such file"):
        find_sources([folder / "none.mp4"])
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no recordings in it"):
        find_sources([folder / "empty"])


def test_a_port_in_use(folder, server):
    with pytest.raises(OSError, match=f"cannot listen on port {server.server_port}: Address alre"):
        studio.open_server([folder / "walk.npy"], folder / "b.json", port=server.server_port)


def test_an_address_is_that_of_the_last_start(folder):
    path = folder / ".a.json.address"

    def start(**options):
        with studio.open_server([folder / "walk.npy"], folder / "a.json", **options) as server:
            assert path.stat().st_mode & 0o777 == 0o600
            return server.server_port, server.token

    before = start()
    assert start() == before
    assert start(port=before[0]) == before
    # Another program has the port: a token that it may have heard is not used again.
    with socket.socket() as other:
        other.bind(("127.0.0.1", before[0]))
        other.listen()
        port, token = start()
        assert port != before[0] and token != before[1]
    path.chmod(0o644)  # others could read it
    assert start()[1] != token
    token = start()[1]
    for content in (b"", b"[]", b'{"port": 99999, "token": "short"}', b"\xff"):
        path.write_bytes(content)
        assert start()[1] != token
    kept = path.rename(folder / "kept")
    path.symlink_to(kept)
    assert start()[1] not in kept.read_text() and not path.is_symlink()


def test_an_address_is_not_kept_where_there_is_no_folder(folder):
    with studio.open_server([folder / "walk.npy"], folder / "new" / "a.json"):
        assert not (folder / "new").exists()


def test_the_first_recording_must_be_readable(folder):
    (folder / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="bad.csv"):
        studio.open_server([folder / "bad.csv"], folder / "b.json")


@pytest.mark.parametrize("place", ["file/a.json", "."])
def test_no_place_to_save_is_told_at_once(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="labels cannot be saved there, expected the name of a"):
        Store(tmp_path / place)
    with pytest.raises(ValueError, match="subset ' '; expected a name, such as train or test"):
        Store(tmp_path / "a.json", subset=" ")
