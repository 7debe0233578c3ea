"""The page, in a real browser: clicks and keys, and what then stands in the file."""

import errno
import json
import os
import re
import threading

import browsing
import filming
import live_page
import numpy as np
import pytest
from browsing import until

from tal_jax import extraction, studio
from tal_jax.data.annotations import load_annotations

av = pytest.importorskip("av", reason="making the test video needs PyAV")
pytestmark = browsing.needs_browser

RATE, SECONDS = 25, 4


@pytest.fixture(scope="module")
def browser():
    with browsing.open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A video whose brightness tells the frame, and a signal."""
    folder = tmp_path_factory.mktemp("media")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "10"}
        for index in range(RATE * SECONDS):
            image = np.full((120, 160, 3), 20 + 2 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    times_s = np.arange(3000) / 50
    np.save(folder / "watch.npy", np.stack([times_s, np.sin(times_s), times_s**2], 1))
    return folder


@pytest.fixture
def server(media, tmp_path):
    paths = [media / "clip.mp4", media / "watch.npy"]
    server = studio.open_server(paths, tmp_path / "a.json", classes=["jump", "run"])
    with live_page.serving(server):
        yield server


@pytest.fixture
def page(browser, server):
    with browsing.open_page(browser, width=1200, height=900) as page:
        _open(page, server)
        yield page


def _open(page, server):
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")


def _file(server):
    """Label and point of each instance of each recording, as they stand in the file."""
    if not server.store.path.exists():
        return {}
    return {
        name: [(one.label, one.point_s) for one in recording.instances]
        for name, recording in load_annotations(server.store.path).recordings.items()
    }


GUTTER = 172  # the names of the lanes, left of a timeline


def _x(page, part, name="#timeline"):
    """The place of a part of the visible time on a timeline."""
    box = page.locator(name).bounding_box()
    return box["x"] + GUTTER + part * (box["width"] - GUTTER)


def _click(page, part, name="#timeline", dy=70):
    """Clicks a timeline at a part of the visible time, below the heads of the points."""
    page.mouse.click(_x(page, part, name), page.locator(name).bounding_box()["y"] + dy)


def _now(page):
    """The time that the page shows, in seconds."""
    minutes, seconds = page.inner_text("#now").split(":")
    return 60 * int(minutes) + float(seconds)


def _points(page):
    return page.locator("#points li:not(.empty)").all_inner_texts()


def test_click_key_undo_reload(page, server):
    _click(page, 0.25)
    page.keyboard.press("1")
    _click(page, 0.75)
    page.keyboard.press("2")
    until(page, lambda: len(_file(server).get("clip", [])) == 2)
    (jump, at), (run, later) = _file(server)["clip"]
    assert (jump, run) == ("jump", "run")
    assert at == pytest.approx(1.0, abs=0.02) and later == pytest.approx(3.0, abs=0.02)
    assert at == round(at, 3)
    page.wait_for_selector("#saved[data-state=saved]")
    assert re.fullmatch(r"saved \d\d:\d\d:\d\d", page.inner_text("#saved"))

    page.keyboard.press("Control+z")
    until(page, lambda: _file(server)["clip"] == [("jump", at)])
    page.keyboard.press("Control+Shift+Z")
    until(page, lambda: len(_file(server)["clip"]) == 2)

    before = server.store.path.read_bytes()
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert [text.split()[0] for text in _points(page)] == ["jump", "run"]
    assert server.store.path.read_bytes() == before

    # A click on a point selects it, wherever the playhead is.
    _click(page, later / SECONDS, dy=32)
    page.keyboard.press("Delete")
    until(page, lambda: _file(server)["clip"] == [("jump", at)])
    recording = load_annotations(server.store.path).recordings["clip"]
    assert recording.subset == "train" and recording.duration_s == pytest.approx(SECONDS)


def test_a_later_session_goes_on(browser, media, server, page, tmp_path):
    page.keyboard.press("2")
    until(page, lambda: _file(server) == {"clip": [("run", 0.0)]})
    other = studio.open_server([media / "clip.mp4"], tmp_path / "a.json", classes=["new"])
    with other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        fresh = browser.new_page()
        _open(fresh, other)
        assert [text.split()[0] for text in _points(fresh)] == ["run"]
        # The numbers of classes stay those of the file.
        fresh.keyboard.press("Shift+ArrowRight")
        fresh.keyboard.press("3")
        until(fresh, lambda: _file(other)["clip"][-1] == ("new", 1.0))
        fresh.close()
        other.shutdown()
        thread.join()


def test_frames_and_seconds(page, server):
    def shown():
        return page.inner_text("#now")

    page.keyboard.press("ArrowRight")
    until(page, lambda: shown() == "0:00.060")  # the middle of frame 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    until(page, lambda: shown() == "0:00.100")
    page.keyboard.press("Shift+ArrowRight")
    until(page, lambda: shown() == "0:01.100")
    until(page, lambda: page.evaluate("!video.seeking && video.readyState >= 2"))
    grey = page.evaluate(
        """() => { const context = document.createElement("canvas").getContext("2d");
        context.drawImage(video, 0, 0, 8, 8); return context.getImageData(2, 2, 1, 1).data[0]; }"""
    )
    assert grey == pytest.approx(20 + 2 * 27, abs=2)  # frame 27 is on screen from 1.08 s on
    page.keyboard.press("End")
    page.keyboard.press("1")
    until(page, lambda: _file(server).get("clip") == [("jump", SECONDS - 0.001)])
    page.keyboard.press("Home")
    until(page, lambda: shown() == "0:00.000")


def test_playing(page):
    page.keyboard.press("+")
    assert page.inner_text("#speed") == "1.5×"
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Pause"
    until(page, lambda: _now(page) > 0.3)
    page.click("#play")
    assert page.inner_text("#play") == "Play"
    # The button that was clicked does not keep the keys.
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Pause"


def test_two_recordings_and_the_walk_between_points(page, server):
    for key in ("1", "Shift+ArrowRight", "2", "Shift+ArrowRight", "1"):
        page.keyboard.press(key)
    page.keyboard.press("n")
    until(page, lambda: page.inner_text("#name") == "watch")
    page.wait_for_selector("#signal[data-drawn]")
    _click(page, 0.5, "#signal")
    page.keyboard.press("2")
    until(page, lambda: len(_file(server).get("watch", [])) == 1)
    label, at = _file(server)["watch"][0]
    assert label == "run" and at == pytest.approx(30.0, abs=0.1)
    page.keyboard.press("Control+z")
    until(page, lambda: _file(server)["watch"] == [])
    page.keyboard.press("p")
    until(page, lambda: page.inner_text("#name") == "clip")
    assert _file(server)["clip"] == [("jump", 0.0), ("run", 1.0), ("jump", 2.0)]
    assert page.inner_text("#now") == "0:02.000"  # where it was left
    page.keyboard.press("Home")
    for key, shown in (("]", "0:01.000"), ("]", "0:02.000"), ("[", "0:01.000"), ("[", "0:00.000")):
        page.keyboard.press(key)
        until(page, lambda shown=shown: page.inner_text("#now") == shown)
    # What was done in this recording can still be undone.
    page.keyboard.press("Control+z")
    until(page, lambda: _file(server)["clip"] == [("jump", 0.0), ("run", 1.0)])


def test_a_new_class_and_typing(page, server):
    page.click("#add-name")
    page.keyboard.type("1 <b>跳</b> n")
    assert _points(page) == []
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    until(page, lambda: _file(server).get("clip") == [("1 <b>跳</b> n", 0.0)])
    assert load_annotations(server.store.path).classes == ("jump", "run", "1 <b>跳</b> n")
    assert page.inner_text("#name") == "clip" and page.locator("#points b").count() == 1


def test_a_known_segment_gets_its_point(browser, server):
    annotations = [
        {"label": "run", "segment": [0.5, 2.0]},
        {"label": "jump", "segment": [0.5, 2.0], "point": 1.0},
    ]
    revision = server.store.entry("clip")[1]
    labels = {"annotations": annotations}
    server.store.save("clip", labels, revision=revision, classes=[], duration_s=SECONDS)
    page = browser.new_page()
    _open(page, server)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("2")
    until(page, lambda: sorted(_file(server)["clip"]) == [("jump", 1.0), ("run", 1.0)])
    page.locator("[aria-label^='Remove jump']").click()
    until(page, lambda: ("jump", None) in _file(server)["clip"])
    kept = json.loads(server.store.path.read_text())["database"]["clip"]["annotations"]
    assert sorted(one["label"] for one in kept if one["segment"] == [0.5, 2.0]) == ["jump", "run"]
    page.close()


def test_a_save_that_fails_is_told_and_tried_again(page, server, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        page.keyboard.press("1")
        page.wait_for_selector("#saved[data-state=failed]")
        line = page.inner_text("#saved")
        assert line.startswith("could not save: cannot write ") and "No space left" in line
        assert "the labels are still here" in line
        assert not server.store.path.exists() and len(_points(page)) == 1
    page.wait_for_selector("#saved[data-state=saved]")
    assert _file(server) == {"clip": [("jump", 0.0)]}


def test_two_pages(browser, page, server):
    other = browser.new_page()
    other.route("**/events", lambda route: route.abort())  # it does not hear of the first page
    _open(other, server)
    page.keyboard.press("1")
    until(page, lambda: _file(server) == {"clip": [("jump", 0.0)]})
    other.keyboard.press("Shift+ArrowRight")
    other.keyboard.press("2")
    other.wait_for_selector("#saved[data-state=failed]")
    assert "was changed by another page or program" in other.inner_text("#saved")
    assert _file(server) == {"clip": [("jump", 0.0)]}
    other.click("text=Take theirs")
    until(other, lambda: [text.split()[0] for text in _points(other)] == ["jump"])
    other.keyboard.press("2")
    until(other, lambda: _file(server)["clip"] == [("jump", 0.0), ("run", 1.0)])
    # The first page hears of it, and takes it over, as nothing was changed there.
    until(page, lambda: [text.split()[0] for text in _points(page)] == ["jump", "run"])
    for key in ("Shift+ArrowRight", "Shift+ArrowRight", "1"):
        page.keyboard.press(key)
    until(page, lambda: _file(server)["clip"][-1] == ("jump", 2.0))
    for key in ("Shift+ArrowRight", "Shift+ArrowRight", "2"):
        other.keyboard.press(key)
    other.wait_for_selector("#saved[data-state=failed]")
    other.click("text=Keep mine")
    until(other, lambda: _file(server)["clip"] == [("jump", 0.0), ("run", 1.0), ("run", 3.0)])
    until(page, lambda: [text.split()[0] for text in _points(page)] == ["jump", "run", "run"])
    # Undo would take back what the other page has saved; only there it brings back what it had.
    until(page, lambda: page.is_disabled("#undo"))
    page.keyboard.press("Control+z")
    other.keyboard.press("Control+z")
    until(other, lambda: _file(server)["clip"] == [("jump", 0.0), ("run", 1.0)])
    other.close()


def test_undo_leaves_what_another_page_has_saved(browser, page, server):
    other = browser.new_page()
    _open(other, server)

    def shown(one):
        return [text.split()[0] for text in _points(one)]

    other.keyboard.press("1")
    until(page, lambda: shown(page) == ["jump"])
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("2")
    until(other, lambda: shown(other) == ["jump", "run"])
    other.keyboard.press("Control+z")
    page.wait_for_timeout(300)
    assert len(_file(server)["clip"]) == 2
    # A revision that this page has saved before can come again from the other one.
    other.keyboard.press("Shift+ArrowRight")
    other.keyboard.press("Shift+ArrowRight")
    other.keyboard.press("1")
    until(page, lambda: shown(page) == ["jump", "run", "jump"])
    other.keyboard.press("Control+z")
    until(page, lambda: shown(page) == ["jump", "run"])
    page.keyboard.press("End")
    page.keyboard.press("1")
    until(page, lambda: len(_file(server)["clip"]) == 3)
    page.wait_for_selector("#saved[data-state=saved]")
    other.close()


def test_undo_opens_the_recording_of_the_last_change(page, server):
    page.keyboard.press("1")
    until(page, lambda: "clip" in _file(server))
    page.keyboard.press("n")
    page.wait_for_selector("#signal[data-drawn]")
    page.keyboard.press("2")
    until(page, lambda: "watch" in _file(server))
    page.keyboard.press("p")
    until(page, lambda: page.inner_text("#name") == "clip")
    page.keyboard.press("Control+z")
    until(page, lambda: page.inner_text("#name") == "watch")
    until(page, lambda: _file(server) == {"clip": [("jump", 0.0)], "watch": []})
    page.keyboard.press("Control+z")
    until(page, lambda: page.inner_text("#name") == "clip")
    until(page, lambda: _file(server)["clip"] == [])
    for _ in range(2):
        page.keyboard.press("Control+Shift+Z")
    until(page, lambda: _file(server) == {"clip": [("jump", 0.0)], "watch": [("run", 0.0)]})
    assert page.inner_text("#name") == "watch" and page.is_disabled("#redo")


def test_a_key_that_is_held_answers_once(page, server):
    page.keyboard.press("Space")
    for _ in range(8):
        page.keyboard.down("Enter")
        page.wait_for_timeout(30)
    page.keyboard.up("Enter")
    page.keyboard.press("Space")
    until(page, lambda: len(_file(server).get("clip", [])) == 1)
    page.keyboard.press("Home")
    for _ in range(5):
        page.keyboard.down("ArrowRight")  # these go on
    page.keyboard.up("ArrowRight")
    assert _now(page) == pytest.approx(5.5 / RATE, abs=1e-3)
    assert len(_file(server)["clip"]) == 1


def test_a_class_is_saved_without_a_label(page, server):
    page.fill("#add-name", "sit")
    page.press("#add-name", "Enter")
    until(page, lambda: server.store.path.exists() and "sit" in server.store.classes())
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#classes b").all_inner_texts() == ["jump", "run", "sit"]


def test_labels_that_were_not_saved_are_saved_by_the_next_program(browser, media, tmp_path):
    def program(**options):
        return studio.open_server(
            [media / "watch.npy"], tmp_path / "a.json", classes=["jump"], **options
        )

    page = browser.new_page()
    with live_page.serving(program()) as server:
        _open(page, server)
        port = server.server_port
        page.keyboard.press("1")
        page.wait_for_selector("#saved[data-state=saved]")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("1")
    page.wait_for_selector("#saved[data-state=failed]")
    assert "trying again" in page.inner_text("#saved")
    with live_page.serving(program()) as server:
        page.wait_for_selector("#saved[data-state=saved]")
        assert [time_s for _, time_s in _file(server)["watch"]] == [0.0, 1.0]
    # Under the address of a program that nobody knows, the page stops trying.
    (tmp_path / ".a.json.address").unlink()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("1")
    page.wait_for_selector("#saved[data-state=failed]")
    with live_page.serving(program(port=port)):
        until(page, lambda: "has another address" in page.inner_text("#saved"))
    page.close()


def test_nothing_is_loaded_from_elsewhere(browser, server):
    from playwright.sync_api import Error

    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    _open(page, server)
    page.keyboard.press("1")
    until(page, lambda: _file(server) != {})
    assert {url for url in asked if not url.startswith(server.url)} <= {"data:,"}
    with pytest.raises(Error, match="Content Security Policy|Failed to fetch"):
        page.evaluate("fetch('http://127.0.0.1:1/')")
    page.close()


@pytest.mark.parametrize("first, sound_first_s", [(50, 0.0), (150, 4.0), (100, None), (-10, None)])
def test_pictures_that_begin_later_than_the_sound(browser, tmp_path, first, sound_first_s):
    """The frame at a time on the page is the one that features of that time are computed from."""
    if sound_first_s is None:
        path = filming.film(
            tmp_path / ("late.webm" if first > 0 else "early.mp4"),
            range(40),
            ticks=range(first, first + 40),
            codec="libvpx-vp9" if first > 0 else "libx264",
            container={"avoid_negative_ts": "disabled"},
        )
    else:
        path = filming.film_with_sound(
            tmp_path / "late.webm", range(40), first=first, sound_first_s=sound_first_s, sound_s=4
        )
    times_s = [0.5, 1.22, 2.02, 2.62] if sound_first_s is not None else [0.02, 0.5, 1.14]
    want = [filming.number_of(pixels) for pixels in extraction.read_frames(path, times_s)]
    got = []
    with studio.open_server([path], tmp_path / "a.json", classes=["jump"]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = browser.new_context().new_page()
        try:
            _open(page, server)
            until(page, lambda: page.evaluate("video.readyState >= 2 && !video.seeking"))
            for time_s in times_s:
                page.evaluate(f"video.currentTime = {time_s}")
                until(page, lambda: page.evaluate("!video.seeking && video.readyState >= 2"))
                assert page.evaluate("video.currentTime") == pytest.approx(time_s, abs=0.02)
                got.append(page.evaluate(filming.NUMBER_SHOWN))
        finally:
            page.context.close()
            server.shutdown()
            thread.join()
    assert got == want
