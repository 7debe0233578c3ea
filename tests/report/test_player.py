"""The page of a prediction: what is in it, and what it does in a browser."""

import base64
import json
import re
import time
import urllib.parse

import browsing
import numpy as np
import pytest

from tal_jax.extraction.tables import Table
from tal_jax.report import player

CLASSES = ("jump", "run", "sit")
FOUND = [
    {"label": "run", "score": 0.9, "segment": [2.0, 3.0]},
    {"label": "jump", "score": 0.6, "segment": [1.5, 2.5]},
    {"label": "run", "score": 0.2, "segment": [0.0, 4.0]},
]


def _write(path, **changes):
    arguments = {
        **{"name": "clip", "classes": CLASSES, "detections": FOUND},
        **{"duration_s": 4.0, "threshold": 0.5},
        **changes,
    }
    player.write_player(path, **arguments)
    return path


def _data(path):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
    return json.loads(text[1])


def _table(count, channels=3, fps=50):
    times_s = np.arange(count) / fps
    values = np.sin(times_s[:, None] * np.arange(1, channels + 1))
    return Table(times_s, values, tuple(f"c{i}" for i in range(channels)), "0")


def _film(path, seconds=4, rate=25):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(seconds * rate):
            pixels = np.full((64, 96, 3), 2 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


# ---- what is in it


def test_data_of_the_page(tmp_path):
    data = _data(_write(tmp_path / "p.html"))
    assert data["detections"] == [1, 2, 3, 0.9, 0, 1.5, 2.5, 0.6, 1, 0, 4, 0.2]
    assert (data["threshold"], data["duration"], data["media"]) == (0.5, 4.0, None)
    assert data["classes"] == list(CLASSES) and data["leftOut"] == []


def test_names_cannot_leave_the_data(tmp_path):
    evil = "</script><script>alert(1)</script><!--"
    path = _write(tmp_path / "p.html", name=evil, classes=(*CLASSES, evil))
    assert evil not in path.read_text()
    assert _data(path)["name"] == evil and _data(path)["classes"][3] == evil


@pytest.mark.parametrize("name", ["a b.mp4", "a#b?c%20.mp4", "ü“'\".mp4", "-x&y.mp4"])
def test_the_video_is_told_from_the_page_on(tmp_path, name):
    path = _write(tmp_path / "found" / "p.html", media=tmp_path / "films" / name)
    url = _data(path)["media"]
    assert urllib.parse.urljoin("file:///x/found/p.html", url).startswith("file:///x/films/")
    assert urllib.parse.unquote(url) == f"../films/{name}"
    assert not set(url) & set(" #?\"'&<>")


def test_signals_keep_their_extremes(tmp_path):
    table = _table(5 * 3600 * 100, channels=6, fps=100)
    table.values[123_456, 2] = 9.0
    path = _write(tmp_path / "p.html", signals=table, duration_s=18_000.0)
    assert path.stat().st_size < 3e6
    data = _data(path)
    signals = data["signals"]
    assert signals["ranges"][2][1] == 9.0 and "the lowest and the highest" in data["leftOut"][0]
    rows = np.frombuffer(base64.b64decode(signals["data"]), np.uint8).reshape(6, 2, -1)
    at = rows[2, 1].argmax()
    assert rows[2, 1, at] == 255
    assert at * signals["step"] == pytest.approx(1234.56, abs=signals["step"])


def test_curves_by_hand(tmp_path):
    times_s = np.arange(4) + 0.5
    scores = np.array([[0, 0.2, 0], [1, 0.4, 0], [0, 0.6, 0], [0, 0.8, 0]], np.float32)
    path = _write(tmp_path / "p.html", curves=(times_s, scores, np.ones(4, np.float32)))
    curves = _data(path)["curves"]
    assert (curves["start"], curves["stride"]) == (0.5, 1.0)
    assert curves["classes"] == [0, 1, -1]  # a flat one is left out
    values = np.frombuffer(base64.b64decode(curves["data"]), np.uint8).reshape(3, 4) / 255
    np.testing.assert_allclose(values, [*scores.T[:2], np.ones(4)], atol=1 / 255)


def test_what_does_not_fit_is_refused_or_told(tmp_path):
    path = tmp_path / "p.html"
    with pytest.raises(ValueError, match="of the class 'fly', which is not known"):
        _write(path, detections=[{"label": "fly", "score": 1, "segment": [0, 1]}])
    with pytest.raises(ValueError, match=r"curves of shapes \(4,\), \(3, 3\)"):
        _write(path, curves=(np.arange(4), np.zeros((3, 3)), np.zeros(3)))
    assert not path.exists()
    data = _data(_write(path, detections=FOUND[:1] * 12_000))
    assert data["leftOut"] == ["2,000 of 12,000 detections, those with the lowest scores"]


# ---- what it does


@pytest.fixture(scope="module")
def browser():
    with browsing.open_browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    errors = []

    def open_path(path):
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_path
    context.close()
    assert errors == []


def _until(page, condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, page.inner_text("body")
        page.wait_for_timeout(20)


def _time(page):
    return page.evaluate("document.querySelector('video').currentTime")


@browsing.needs_browser
def test_a_click_plays_a_detection(open_page, tmp_path):
    page = open_page(_write(tmp_path / "p.html", media=_film(tmp_path / "a b#.mp4")))
    _until(page, lambda: page.evaluate("document.querySelector('video').readyState") == 4)
    assert page.inner_text("#count").endswith("2 of 3 detections")
    page.click("#list button >> text=run")
    _until(page, lambda: _time(page) >= 1.0)
    assert _time(page) < 2.0 and not page.evaluate("document.querySelector('video').paused")
    page.keyboard.press("Space")
    _until(page, lambda: page.evaluate("document.querySelector('video').paused"))
    # A bar begins where its detection does: half a pixel of the timeline is 2 ms.
    box = page.locator("#timeline").bounding_box()
    gutter = 172
    x = gutter + (2.7 / 4) * (box["width"] - gutter)
    page.mouse.click(box["x"] + x, box["y"] + 0.75 * box["height"])
    _until(page, lambda: abs(_time(page) - 2.0) < 0.01)
    assert page.inner_text("#chips").split() == ["run", "jump"]  # what goes on then


@browsing.needs_browser
def test_keys_and_the_threshold(open_page, tmp_path):
    page = open_page(_write(tmp_path / "p.html", signals=_table(200)))
    assert page.locator("#signals").is_visible() and page.locator("video").count() == 0
    page.keyboard.press("n")
    _until(page, lambda: "1.5" in page.inner_text("#time"))
    page.keyboard.press("n")
    _until(page, lambda: "2.0" in page.inner_text("#time"))
    page.keyboard.press("p")
    _until(page, lambda: "1.5" in page.inner_text("#time"))
    for value, shown in ((0.1, 3), (0.7, 1), (0.95, 0)):
        page.evaluate(
            "value => { const s = document.querySelector('#threshold'); s.value = value; "
            "s.dispatchEvent(new Event('input')); }",
            value,
        )
        shows = f"{shown} of 3 detections" if value < 0.9 else "of 3 detections"
        assert shows in page.inner_text("#count")


@browsing.needs_browser
def test_a_video_that_is_not_there(open_page, tmp_path):
    page = open_page(_write(tmp_path / "p.html", media=tmp_path / "gone.mp4"))
    page.wait_for_selector("#trouble")
    assert "The video gone.mp4 cannot be played" in page.inner_text("#trouble")
    page.click("#list button >> text=run")
    _until(page, lambda: "1." in page.inner_text("#time"))


@browsing.needs_browser
@pytest.mark.parametrize("count", [0, 1])
def test_nothing_found_and_many_classes(open_page, tmp_path, count):
    classes = tuple(f"a class with a rather long name, number {i}" for i in range(200))
    found = [
        {"label": label, "score": 0.8, "segment": [0.01 * i, 0.01 * i + 1]}
        for i, label in enumerate(classes)
    ]
    page = open_page(_write(tmp_path / "p.html", classes=classes, detections=found * count))
    said = page.inner_text("body")
    assert ("Nothing was detected in this recording" in said) == (count == 0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
