"""The page with much in it: two hours of six channels at 50 Hz with 5,000 labels, 200 recordings.

`TAL_JAX_TIMES=1` adds an hour of video, and how long a key press takes, on a machine that does
nothing else:

    TAL_JAX_TIMES=1 python -m pytest -m slow -s tests/studio/test_page_size.py
"""

import os

import browsing
import live_page
import numpy as np
import projects
import pytest

from tal_jax import studio
from tal_jax.data import files
from tal_jax.studio.project import open_project
from tal_jax.studio.session import Session

pytestmark = [browsing.needs_browser, pytest.mark.slow]

TIMES = bool(os.environ.get("TAL_JAX_TIMES"))
HOURS_S, RATE, LABELS, RECORDINGS, CLASSES = 7200, 50, 5000, 200, 8
VIDEO_S, FRAME_RATE = 3600, 25
MOST_MS, MOST_MB, MOST_ROWS = 100, 500, 80
NAMES = tuple(f"class {i}" for i in range(CLASSES))


def _write_long_video(path):
    av = pytest.importorskip("av", reason="writing the video needs PyAV")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "250"}
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        for index in range(VIDEO_S * FRAME_RATE):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("size"), np.random.default_rng(0)
    recordings = folder / "recordings"
    recordings.mkdir()
    times_s = np.arange(HOURS_S * RATE) / RATE
    np.save(
        recordings / "a_hours.npy", np.column_stack([times_s, rng.normal(size=(len(times_s), 6))])
    )
    if TIMES:
        _write_long_video(recordings / "b_video.mp4")
    for index in range(RECORDINGS - 1 - TIMES):
        np.save(recordings / f"c_{index:03d}.npy", np.column_stack([times_s[:500]] * 2))
    project, _ = open_project(folder / "project", [recordings])
    at_s = np.sort(rng.uniform(1, HOURS_S - 1, LABELS)).round(3)
    annotations = [
        {"label": NAMES[i % CLASSES], "point": time_s}
        | ({"segment": [time_s - 0.5, time_s + 0.5]} if i % 4 == 0 else {})
        for i, time_s in enumerate(at_s.tolist())
    ]
    entry = {"subset": "train", "duration": HOURS_S, "done": [[0, 600]], "annotations": annotations}
    labels = {"version": "VERSION 1.3", "classes": list(NAMES), "database": {"a_hours": entry}}
    files.write_json(project.annotations, labels)
    starts_s, scores = rng.uniform(0, HOURS_S - 5, 2000), np.sort(rng.random(2000))[::-1]
    found = [
        {"label": NAMES[i % CLASSES], "score": float(scores[i]), "segment": [start, start + 3.0]}
        for i, start in enumerate(starts_s.tolist())
    ]
    detections = {"a_hours": found}
    database = labels["database"]
    projects.add_run_of(project, detections, seconds=HOURS_S, classes=NAMES, labels=database)
    return project


# The time from a key press to the next picture on the screen, as the browser measures it.
_WATCH = """
window.durations = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (one.name === "keydown") durations.push(one.duration);
}).observe({ type: "event", durationThreshold: 16, buffered: true });
"""


def _memory_mb(browser):
    """The memory of the page's process that it shares with no other."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    ids = [one["id"] for one in processes if one["type"] == "renderer"]

    def private_mb(number):
        with open(f"/proc/{number}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private")) / 1024

    return max(map(private_mb, ids))


def _until(page, condition):
    """Waits for a condition; the page's own rules keep the browser from waiting by itself."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(condition)


def _press(page, keys, count=24, rounds=6):
    """Presses keys in turn; returns the durations in ms, sorted, those below 16 ms as 16.

    Of the quickest of some rounds, as tests share their machine with others.
    """
    best = None
    for _ in range(rounds):
        took = _press_once(page, keys, count)
        best = took if best is None or _median(took) < _median(best) else best
        if _median(best) < MOST_MS:
            break
    return best


def _median(took):
    return took[len(took) // 2]


def _press_once(page, keys, count):
    page.evaluate("durations.length = 0")
    for index in range(count):
        page.keyboard.press(keys[index % len(keys)])
        page.wait_for_timeout(150)
    page.wait_for_timeout(500)
    slow = page.evaluate("durations")
    return sorted([*slow, *[16] * (count - len(slow))])


def _open(browser, server):
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.add_init_script(_WATCH)
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")
    page.wait_for_selector("#predictions:not([hidden])")
    page.wait_for_selector("#signal[data-drawn]")
    return page


def test_much_is_shown_and_changed(project, monkeypatch):
    """Of long lists the rows in sight are made; every label can be reached; memory is bounded."""
    monkeypatch.setattr(Session, "_to_extract", lambda self: False)
    with (
        live_page.serving(studio.open_studio(project)) as server,
        browsing.open_browser() as browser,
    ):
        page, errors = _open(browser, server), []
        page.on("pageerror", lambda error: errors.append(str(error)))

        def shows(points, segments=LABELS // 4):
            text = f"{points:,} points, {segments:,} segments"
            _until(page, f"document.getElementById('points-count').textContent === '{text}'")

        def press(*keys):
            for key in keys:
                page.keyboard.press(key)

        assert page.inner_text("#recordings-count") == f"1 of {RECORDINGS}"
        shows(LABELS)
        for name, count in (("points", LABELS), ("recordings", RECORDINGS)):
            rows = page.locator(f"#{name} li")
            assert 10 < rows.count() < MOST_ROWS, name
            page.evaluate(f"document.getElementById('{name}').scrollTop = 1e9")
            page.wait_for_selector(f"#{name} [aria-posinset='{count}']")
            assert 10 < rows.count() < MOST_ROWS, name
        press("Home", "1")
        shows(LABELS + 1)
        press("Control+z")
        shows(LABELS)
        press("Home", "k", "a", "r")  # an event, accepted and nudged
        shows(LABELS, LABELS // 4 + 1)
        press("Control+z", "Control+z")
        shows(LABELS)
        page.click("#zoom-all")
        press("]", "k", "j")
        page.wait_for_selector("#saved[data-state=saved]")
        entry = projects.entry_of(project, "a_hours")
        assert len(entry["annotations"]) == LABELS
        assert _memory_mb(browser) < MOST_MB and errors == []


@pytest.mark.skipif(not TIMES, reason="takes a quiet machine; TAL_JAX_TIMES is not set")
def test_a_key_press_is_quick_and_memory_bounded(project, monkeypatch):
    monkeypatch.setattr(Session, "_to_extract", lambda self: False)
    with (
        live_page.serving(studio.open_studio(project)) as server,
        browsing.open_browser() as browser,
    ):
        page = _open(browser, server)
        page.wait_for_timeout(2000)
        kinds = {
            "place, undo": ("1", "2", "3", "4", *["Control+z"] * 4),
            "select": ("]", "]", "[", "k", "j"),
            "accept, nudge, undo": ("k", "a", "r", "Control+z", "Control+z"),
        }
        took = {name: _press(page, keys) for name, keys in kinds.items()}
        page.click("#zoom-all")
        took["all of it in view"] = _press(page, kinds["select"])
        page.click("#zoom-in", click_count=1)
        used = {"two hours of signal": _memory_mb(browser)}
        page.locator("#recordings li button").nth(1).click()
        _until(page, "video.readyState >= 2")
        page.keyboard.press(" ")
        page.wait_for_timeout(3000)
        took["an hour of video, playing"] = _press(page, ("1", "2", "Control+z"))
        page.keyboard.press(" ")
        page.mouse.move(700, 700)
        for time_s in range(0, VIDEO_S, 300):
            page.evaluate(f"video.currentTime = {time_s}")
            _until(page, "!video.seeking")
        used["and an hour of video"] = _memory_mb(browser)
    lines = [
        f"{name}: median {_median(ms):.0f} ms, greatest {ms[-1]:.0f} ms"
        for name, ms in took.items()
    ]
    lines += [f"{name}: {mb:.0f} MB" for name, mb in used.items()]
    print(*lines, f"load {os.getloadavg()[0]:.1f}", sep="\n")
    assert all(_median(ms) < MOST_MS for ms in took.values()), lines
    assert max(used.values()) < MOST_MB, lines
