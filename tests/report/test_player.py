"""The page of a prediction: what is in it, and what a browser makes of it."""

import base64
import json
import re
import urllib.parse

import browsing
import numpy as np
import pytest
from browsing import until

from tal_jax.extraction.tables import Table
from tal_jax.report import player
from tal_jax.report.player import write_player

CLASSES = ["jump", "run", "sit"]
HOSTILE = "</script><b>&amp; <!-- 走る\u2028 {{data}} {{common.js}}"
DETECTIONS = [
    {"label": "jump", "score": 0.9, "segment": [1.0, 2.0]},
    {"label": "run", "score": 0.6, "segment": [1.5, 3.25]},
    {"label": "jump", "score": 0.2, "segment": [3.0, 3.5]},
]


def _write(path, **changes):
    arguments = {
        "name": "clip",
        "classes": CLASSES,
        "detections": DETECTIONS,
        "duration_s": 4.0,
        "threshold": 0.5,
    }
    write_player(path, **arguments | changes)
    return path


def _data(path):
    text = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def _bytes(packed, *shape):
    return np.frombuffer(base64.b64decode(packed), np.uint8).reshape(shape)


def _table(count, channels, rate=100.0):
    times_s = np.arange(count) / rate
    values = np.random.default_rng(0).normal(size=(count, channels))
    return Table(times_s, values, tuple(f"c{i}" for i in range(channels)))


# ---------------------------------------------------------------- the file


def test_page_holds_the_prediction(tmp_path):
    data = _data(_write(tmp_path / "new" / "report.html"))
    assert data["detections"][:8] == [0, 1.0, 2.0, 0.9, 1, 1.5, 3.25, 0.6]
    assert data["duration"] == 4.0 and data["threshold"] == 0.5
    assert len(data["colours"]) == 3 and data["leftOut"] == []
    assert data["media"] is data["signals"] is data["curves"] is None


def test_page_needs_no_network_and_no_name_leaves_its_place(tmp_path):
    detections = [{"label": HOSTILE, "score": 1.0, "segment": [0, 1]}]
    path = _write(
        tmp_path / "a.html",
        name=HOSTILE,
        classes=[HOSTILE],
        detections=detections,
        media=tmp_path / "</script>.mp4",
    )
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("{{", ""))
    assert text.count("</script>") == 2 and text.isascii() is False
    data = _data(path)
    assert data["name"] == data["classes"][0] == HOSTILE
    assert data["media"] == "%3C/script%3E.mp4"


@pytest.mark.parametrize(
    "media, url",
    [
        ("clip.mp4", "../clip.mp4"),
        ("run/a b.mp4", "a%20b.mp4"),
        ("run/a:b #1?'\"%20走.mp4", "a%3Ab%20%231%3F%27%22%2520%E8%B5%B0.mp4"),
    ],
)
def test_url_of_the_video(tmp_path, media, url):
    assert _data(_write(tmp_path / "run" / "a.html", media=tmp_path / media))["media"] == url


@pytest.mark.parametrize("name", ["ü“'\".mp4", "-x&y<z>.mp4", "100%.mp4"])
def test_url_leads_back_to_the_video(tmp_path, name):
    path = _write(tmp_path / "found" / "a.html", media=tmp_path / "films" / name)
    url = urllib.parse.urljoin("file:///x/found/a.html", _data(path)["media"])
    assert urllib.parse.unquote(url) == f"file:///x/films/{name}"
    assert not set(url) & set(" #?\"'&<>")


def test_url_on_another_drive(tmp_path, monkeypatch):
    def other_drive(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(player.os.path, "relpath", other_drive)
    data = _data(_write(tmp_path / "a.html", media=tmp_path / "a b.mp4"))
    assert data["media"] == (tmp_path / "a b.mp4").as_uri()


def test_curves_are_those_of_what_rises(tmp_path):
    times_s = np.array([0.5, 1.5, 2.5])
    scores = np.array([[0, 0.2, 0], [0, 0.4, 0], [0, 1.0, 0]], np.float32)
    foreground = np.array([0, 0.5, np.nan], np.float32)
    data = _data(_write(tmp_path / "a.html", curves=(times_s, scores, foreground)))
    assert data["curves"]["start"] == 0.5 and data["curves"]["stride"] == 1.0
    assert data["curves"]["classes"] == [0, 1, -1]  # jump was detected, sit never rises
    assert _bytes(data["curves"]["data"], 3, 3).tolist() == [[0, 0, 0], [51, 102, 255], [0, 128, 0]]
    assert data["leftOut"] == ["1 score curves of classes without a detection that stay below 0.05"]


def test_signals_keep_every_peak(tmp_path, monkeypatch):
    monkeypatch.setattr(player, "_MOST_SIGNAL_BYTES", 400)
    table = _table(5000, 2)
    table.values[1234, 0] = 50.0
    table.values[:, 1] = 3.0
    data = _data(_write(tmp_path / "a.html", signals=table))["signals"]
    steps = 100
    packed = _bytes(data["data"], 2, 2, steps).astype(int)
    assert data["names"] == ["c0", "c1"] and data["ranges"][1] == [3.0, 3.0]
    assert data["step"] == pytest.approx(table.times_s[-1] / steps)
    assert (packed[1] == 128).all()
    low, high = data["ranges"][0]
    assert packed[0, 1].argmax() == int(12.34 / data["step"]) and packed[0, 1].max() == 255
    for step in range(steps - 1):
        inside = table.values[
            (table.times_s >= step * data["step"]) & (table.times_s < (step + 1) * data["step"]), 0
        ]
        expected = (np.array([inside.min(), inside.max()]) - low) / (high - low) * 255
        assert np.abs(packed[0, :, step] - expected).max() <= 0.51


def test_large_page_stays_below_3_mb_and_says_what_is_left_out(tmp_path):
    count, rng = 4 * 3600 * 100, np.random.default_rng(0)
    starts = rng.uniform(0, 14000, 12_000)
    detections = [
        {"label": f"class {i % 200}", "score": 1 / (i + 1.1), "segment": [start, start + 3.3]}
        for i, start in enumerate(starts)
    ]
    path = _write(
        tmp_path / "a.html",
        classes=[f"class {i}" for i in range(200)],
        detections=detections,
        duration_s=14400.0,
        signals=_table(count, 3),
        curves=(np.arange(20_000) * 0.72, rng.random((20_000, 200), np.float32), np.ones(20_000)),
    )
    assert path.stat().st_size < 3_000_000
    left_out = "\n".join(_data(path)["leftOut"])
    assert "2,000 of 12,000 detections, those with the lowest scores" in left_out
    assert "samples, except the minimum and maximum of each" in left_out
    assert "score curves, except the maximum of every 9 snippets" in left_out


def test_bad_input_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="unknown class 'swim'"):
        _write(tmp_path / "a.html", detections=[DETECTIONS[0] | {"label": "swim"}])
    with pytest.raises(ValueError, match=r"expected \[T\], \[T, 3\] and \[T\]"):
        _write(tmp_path / "a.html", curves=(np.zeros(2), np.zeros((2, 4)), np.zeros(2)))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- in a browser

GUTTER, ROW = 172, 28


@pytest.fixture(scope="module")
def chromium():
    with browsing.open_browser() as started:
        yield started


@pytest.fixture
def show(chromium):
    """Opens a page, and fails where a script of it does."""
    context, errors = chromium.new_context(viewport={"width": 1300, "height": 900}), []

    def open_page(path):
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.extend(_elsewhere(request.url)))
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    context.close()
    assert errors == []


def _elsewhere(url):
    return [] if url.startswith(("file:", "data:", "blob:")) else [url]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of 4 s with a name that has to be quoted."""
    pytest.importorskip("av", reason="making the test video needs PyAV")
    import filming

    folder = tmp_path_factory.mktemp("a #folder")
    return filming.film(folder / "clip 走 #1?.mp4", range(100), size=(120, 160))


def _now(page):
    return page.evaluate("player.currentTime")


def _click(page, time_s, row, duration_s=4.0):
    box = page.locator("#timeline").bounding_box()
    x = GUTTER + time_s / duration_s * (box["width"] - GUTTER)
    page.mouse.click(box["x"] + x, box["y"] + (row + 0.5) * ROW)


def _video(page):
    until(page, lambda: page.evaluate("video.readyState") >= 2)
    assert page.locator("#trouble").count() == 0


@browsing.needs_browser
def test_a_click_on_a_detection_goes_there(show, clip, tmp_path):
    page = show(_write(tmp_path / "report.html", media=clip))
    _video(page)
    _click(page, 2.0, 1)
    assert page.evaluate("video.currentTime") == pytest.approx(1.5)
    assert page.inner_text("#chips").split() == ["jump", "run"]
    assert page.evaluate("video.paused")
    page.click("#list li:nth-child(2) button")
    until(page, lambda: not page.evaluate("video.paused") and 0.5 < _now(page) < 1.5)
    # The clicked button does not keep the keys.
    page.keyboard.press(" ")
    until(page, lambda: page.evaluate("video.paused"))
    _click(page, 3.6, 1)  # beside the bars
    assert _now(page) == pytest.approx(3.6, abs=0.02)
    assert page.inner_text("#chips") == ""


@browsing.needs_browser
def test_a_detection_in_a_loop(show, clip, tmp_path):
    page = show(_write(tmp_path / "report.html", media=clip))
    _video(page)
    page.check("#loop")
    page.click("#list li:nth-child(1) button")
    assert 0.9 <= _now(page) <= 2.1  # it plays on from there
    page.evaluate("video.currentTime = 1.9")
    until(page, lambda: _now(page) < 1.5)
    assert not page.evaluate("video.paused")


@browsing.needs_browser
def test_keys(show, clip, tmp_path):
    page = show(_write(tmp_path / "report.html", media=clip, threshold=0.0))
    _video(page)
    for key, now in (
        *(("n", 1.0), ("n", 1.5), ("n", 3.0), ("n", 3.0), ("p", 1.5), ("ArrowLeft", 0.5)),
        *(("Shift+ArrowRight", 0.54), ("ArrowLeft", 0.0), ("End", 4.0), ("p", 3.0), ("Home", 0.0)),
    ):
        page.keyboard.press(key)
        assert _now(page) == pytest.approx(now, abs=0.001), key
    page.keyboard.press("+")
    assert page.evaluate("state.view.end - state.view.start") == pytest.approx(4 * 0.6)
    page.keyboard.press("0")
    assert page.evaluate("state.view") == {"start": 0, "end": 4}


@browsing.needs_browser
def test_slider_and_classes(show, tmp_path):
    page = show(_write(tmp_path / "report.html"))
    assert page.inner_text("#count") == ".500: 2 of 3 detections"
    assert page.locator("#list button").count() == 2
    assert page.inner_text(".folded") == "Folded: 1 class without a shown detection."
    page.fill("#threshold", "0.1")
    assert page.inner_text("#count") == ".100: 3 of 3 detections"
    page.click(".legend >> text=jump")
    assert page.locator("#list button").count() == 1
    page.fill("#threshold", "0.9")
    assert "No detection of these classes" in page.inner_text("#list")
    page.click("text=show all")
    assert page.locator("#list button").count() == 1  # exactly at the threshold


@browsing.needs_browser
@pytest.mark.parametrize("content", [None, b"no video"])
def test_a_video_that_cannot_be_played(show, tmp_path, content):
    if content is not None:
        (tmp_path / "gone.mp4").write_bytes(content)
    page = show(_write(tmp_path / "report.html", media=tmp_path / "gone.mp4"))
    page.wait_for_selector("#trouble")
    assert page.inner_text("#trouble").startswith("The video gone.mp4 cannot be played")
    _click(page, 2.0, 1)
    assert _now(page) == 1.5 and page.inner_text("#chips").split() == ["jump", "run"]
    page.keyboard.press(" ")
    until(page, lambda: _now(page) > 1.6)


@browsing.needs_browser
def test_signals_and_a_playhead_without_media(show, tmp_path):
    curves = (np.arange(8) / 2 + 0.25, np.random.default_rng(0).random((8, 3)), np.ones(8))
    page = show(_write(tmp_path / "report.html", signals=_table(400, 2), curves=curves))
    assert page.get_attribute("#signals", "aria-label") == "Signals: c0, c1"
    drawn = """() => { const { width, height } = signalRows;
        const { data } = signalRows.getContext("2d").getImageData(width / 2, 0, width / 2, height);
        return data.some((value, i) => i % 4 === 3 && value > 0); }"""
    assert page.evaluate(drawn)
    _click(page, 1.2, 0)
    assert _now(page) == 1.0
    page.click("#play")
    until(page, lambda: _now(page) > 1.1)


@browsing.needs_browser
@pytest.mark.parametrize("num_classes, num_detections", [(200, 2000), (3, 0), (1, 1)])
def test_many_and_none(show, tmp_path, num_classes, num_detections):
    classes = [f"{'long ' * 30}{i}" for i in range(num_classes)]
    detections = [
        {"label": classes[i % num_classes], "score": 0.9, "segment": [i / 500, i / 500 + 0.1]}
        for i in range(num_detections)
    ]
    page = show(_write(tmp_path / "a.html", classes=classes, detections=detections))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#list button").count() == min(num_detections, 1000)
    if not num_detections:
        assert page.inner_text(".folded") == "Nothing was detected in this recording."


@browsing.needs_browser
def test_hostile_names_are_text(show, tmp_path):
    detections = [{"label": HOSTILE, "score": 1.0, "segment": [0, 4]}]
    page = show(_write(tmp_path / "a.html", name=HOSTILE, classes=[HOSTILE], detections=detections))
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("#chips").text_content() == HOSTILE


@browsing.needs_browser
@pytest.mark.parametrize("first, sound_first_s", [(50, 0.0), (150, 4.0)])
def test_pictures_that_begin_later_than_the_sound(show, tmp_path, first, sound_first_s):
    pytest.importorskip("av", reason="making the test video needs PyAV")
    import filming

    from tal_jax import extraction

    path = filming.film_with_sound(
        tmp_path / "late.webm", range(40), first=first, sound_first_s=sound_first_s, sound_s=4
    )
    origin_s = extraction.probe(path).origin_s
    page = show(_write(tmp_path / "r.html", media=path, media_origin_s=origin_s))
    _video(page)
    until(page, lambda: page.evaluate("!video.seeking"))
    for time_s in (0.5, 1.22, 2.02, 2.62):
        page.evaluate(f"seek({time_s})")
        until(page, lambda: page.evaluate("!video.seeking"))
        assert _now(page) == pytest.approx(time_s, abs=0.02)
        # The timestamps that the browser counts; tests/studio compares the frames.
        prototype = "Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'currentTime')"
        counted_s = page.evaluate(f"{prototype}.get.call(video)")
        assert counted_s == pytest.approx(time_s + origin_s, abs=0.02)
