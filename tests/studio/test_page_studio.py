"""The page of the studio in a real browser: predictions, corrections, queue, training, export.

The runs are written by hand, so that every number on the page is known.
"""

import json
import re
import sys

import browsing
import live_page
import numpy as np
import projects
import pytest
from browsing import until
from projects import SECONDS, entry_of

from tal_jax import studio
from tal_jax.inference.events import select_events
from tal_jax.studio.session import Session

pytestmark = browsing.needs_browser

GUTTER = 172  # the names of the lanes


@pytest.fixture(scope="module")
def browser():
    with browsing.open_browser() as browser:
        yield browser


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "_to_extract", lambda self: False)
    return projects.make_trained(tmp_path)


@pytest.fixture
def server(project):
    with live_page.serving(studio.open_studio(project)) as server:
        yield server


@pytest.fixture
def page(browser, server):
    with browsing.open_page(browser, width=1500, height=1000) as page:
        _open(page, server)
        yield page


def _open(page, server):
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")
    page.wait_for_selector("#predictions:not([hidden])")
    until(page, lambda: "3 events" in page.inner_text("#settings-text"))


def _press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def _saved(page, project, condition, name="walk"):
    """The entry in the file when it holds and the page has heard that it was saved."""
    until(page, lambda: condition(entry_of(project, name)))
    page.wait_for_selector("#saved[data-state=saved]")
    return entry_of(project, name)


def _segments(entry):
    return [one for one in entry["annotations"] if "segment" in one]


def _place(page, time_s, name="#timeline", dy=70):
    """The place of a time on a timeline that shows all of it."""
    box = page.locator(name).bounding_box()
    return box["x"] + GUTTER + time_s / SECONDS * (box["width"] - GUTTER), box["y"] + dy


def _seek(page, time_s):
    page.mouse.click(*_place(page, time_s))


def _check_source(source, kind):
    assert source["kind"] == kind and source["by"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", source["at"])


# --- labels that say more than a point ---


def test_background_points_and_done_stretches(page, project):
    _seek(page, 20)
    _press(page, "0")
    entry = _saved(page, project, lambda one: one.get("background"))
    (at_s,) = entry["background"]
    assert at_s == pytest.approx(20, abs=0.1) and entry["done"] == []
    _check_source(entry["background_sources"][json.dumps(at_s)], "click")

    _press(page, "Escape", "d")
    assert "done from 0:" in page.inner_text("#selection")
    _press(page, "Shift+ArrowRight", "Shift+ArrowRight", "d")
    entry = _saved(page, project, lambda one: one["done"])
    assert entry["done"] == [[pytest.approx(at_s), pytest.approx(at_s + 2)]]
    # Backwards, and over the first one: they are joined.
    _press(page, "Escape", "d", *["Shift+ArrowLeft"] * 3, "d")
    entry = _saved(page, project, lambda one: one["done"][0][0] < at_s - 0.5)
    assert entry["done"] == [[pytest.approx(at_s - 1), pytest.approx(at_s + 2)]]
    assert "5 %" in page.inner_text("#recordings li[aria-current]")

    # Its end, dragged by the mouse.
    lane = 24 + 62 + 8
    page.mouse.move(*_place(page, at_s + 2, dy=lane))
    page.mouse.down()
    page.mouse.move(*_place(page, 40, dy=lane), steps=4)
    page.mouse.up()
    entry = _saved(page, project, lambda one: one["done"][0][1] > 30)
    assert entry["done"][0][1] == pytest.approx(40, abs=0.15)
    _press(page, "Delete")
    _saved(page, project, lambda one: one["done"] == [])

    _press(page, "Shift+D")
    _saved(page, project, lambda one: "done" not in one)
    _press(page, "Control+z", "Control+z")
    _saved(page, project, lambda one: one.get("done") and one["done"][0][1] > 30)


def test_a_background_point_is_refused_inside_a_segment_and_goes_where_one_is_accepted(
    page, project
):
    _seek(page, 12)
    _press(page, "0")
    _saved(page, project, lambda one: one.get("background"))
    _press(page, "Home", "k", "a")  # the jump around it
    entry = _saved(page, project, _segments)
    assert "background" not in entry and "background_sources" not in entry
    _seek(page, 12)
    _press(page, "0")
    assert "jump is labelled here" in page.inner_text("#said")
    assert page.get_attribute("#saved", "data-state") == "saved"


# --- corrections ---


def test_accept_nudge_class_and_undo(page, project):
    _press(page, "k")
    assert "score .90" in page.inner_text("#selection")
    _press(page, "a")
    entry = _saved(page, project, _segments)
    # The click at 11 s is in it: the same instance.
    (jump,) = entry["annotations"]
    assert (jump["label"], jump["point"], jump["segment"]) == ("jump", 11.0, [10.0, 14.0])
    _check_source(jump["source"], "accept")

    _press(page, "r", "r", "q")  # the end later, twice; the start earlier
    entry = _saved(page, project, lambda one: _segments(one)[0]["segment"][0] < 10)
    assert _segments(entry)[0]["segment"] == [9.9, 14.2]
    _check_source(_segments(entry)[0]["source"], "nudge")
    _press(page, "c", "2")
    entry = _saved(page, project, lambda one: _segments(one)[0]["label"] == "run")
    _check_source(_segments(entry)[0]["source"], "class")
    _press(page, *["Control+z"] * 4)
    _saved(page, project, lambda one: _segments(one) and _segments(one)[0]["segment"] == [10, 14])
    _press(page, "Control+z")
    entry = _saved(page, project, lambda one: not _segments(one))
    assert entry["annotations"] == [{"label": "jump", "point": 11.0}]
    _press(page, *["Control+Shift+Z"] * 5)
    _saved(page, project, lambda one: _segments(one) and _segments(one)[0]["label"] == "run")

    # What was accepted stands there after a reload.
    page.reload()
    page.wait_for_selector("body[data-ready]")
    _press(page, "]")
    assert "point and segment" in page.inner_text("#selection")


def test_another_class_for_a_prediction_and_no_second_label(page, project):
    _press(page, "k", "k")
    page.select_option("#selection select", "jump")
    entry = _saved(page, project, _segments)
    assert [(one["label"], one["segment"]) for one in _segments(entry)] == [("jump", [30.0, 36.0])]
    _check_source(_segments(entry)[0]["source"], "class")
    _press(page, "Home", "k", "a", "k", "k")
    _saved(page, project, lambda one: len(_segments(one)) == 2)
    _press(page, "Home", "k", "a")
    assert page.inner_text("#said") == "labelled already"
    assert len(_segments(entry_of(project, "walk"))) == 2


def test_wrong_here_and_missed_here(page, project):
    _press(page, "k", "k", "x")
    entry = _saved(page, project, lambda one: one.get("background"))
    assert entry["background"] == [33.0]  # the middle of 30 s to 36 s
    _check_source(entry["background_sources"]["33"], "wrong")
    _press(page, "Control+z")
    _saved(page, project, lambda one: "background" not in one)

    _seek(page, 20)
    page.click("text=missed jump")
    entry = _saved(page, project, lambda one: len(one["annotations"]) == 2)
    missed = entry["annotations"][1]
    assert missed["point"] == pytest.approx(20, abs=0.1)
    _check_source(missed["source"], "missed")
    # Where it is predicted, a point is a click.
    _seek(page, 32)
    _press(page, "2")
    entry = _saved(page, project, lambda one: len(one["annotations"]) == 3)
    _check_source(entry["annotations"][2]["source"], "click")


def test_an_edge_is_dragged(page, project):
    lane = 48 + 1 + 30  # the second lane, below its line of the threshold
    x, y = _place(page, 36, "#predictions", lane)
    page.mouse.move(x, y)
    until(page, lambda: page.evaluate("predictions.style.cursor") == "ew-resize")
    page.mouse.down()
    page.mouse.move(*_place(page, 34, "#predictions", lane), steps=5)
    assert entry_of(project, "walk")["annotations"] == [{"label": "jump", "point": 11.0}]
    page.mouse.up()
    entry = _saved(page, project, _segments)
    (run,) = _segments(entry)
    assert run["label"] == "run" and run["segment"] == [30.0, pytest.approx(34, abs=0.1)]
    _check_source(run["source"], "nudge")
    page.click("#undo")
    _saved(page, project, lambda one: not _segments(one))


def test_a_class_is_renamed_by_the_keyboard(page, project, browser, server):
    """On every page, in what can be undone, in predictions; and back again."""
    other = browser.new_page(viewport={"width": 1500, "height": 1000})
    _open(other, server)

    def rename(before, now):
        page.focus(f"#classes [aria-label='Rename {before}']")
        _press(page, "Enter")
        assert page.input_value("#rename-name") == before
        page.keyboard.type(now)
        _press(page, "Enter")

    def names(of):
        return of.locator("#classes b").all_inner_texts()

    _press(page, "k", "a", "End", "1", "Control+z")  # a label that can come back
    _saved(page, project, lambda one: len(one["annotations"]) == 1)
    rename("jump", "run")
    until(page, lambda: "there is a class 'run' already" in page.inner_text("#rename-trouble"))
    page.fill("#rename-name", "leap")
    _press(page, "Enter")
    for one in (page, other):
        until(one, lambda one=one: names(one) == ["leap", "run"])
        until(one, lambda one=one: "3 events" in one.inner_text("#settings-text"))
    entry = _saved(page, project, lambda one: one["annotations"][0]["label"] == "leap")
    _press(page, "Control+Shift+Z")
    entry = _saved(page, project, lambda one: len(one["annotations"]) == 2)
    assert [one["label"] for one in entry["annotations"]] == ["leap", "leap"]
    # Not before it has what was saved, which would be a conflict.
    until(other, lambda: other.locator("#points li:not(.empty)").count() == 2)
    other.keyboard.press("Home")
    for key in ("k", "k", "a"):  # the second event; the first one is accepted
        other.keyboard.press(key)
    entry = _saved(page, project, lambda one: len(one["annotations"]) == 3)
    rename("leap", "jump")
    for one in (page, other):
        until(one, lambda one=one: names(one) == ["jump", "run"])
    _saved(page, project, lambda one: one["annotations"][0]["label"] == "jump")
    _press(page, "Escape", "Home", "k")
    until(page, lambda: "jump" in page.inner_text("#selection"))
    document = json.loads(project.annotations.read_text())
    assert document["classes"] == ["jump", "run"]
    other.close()


def test_keys_are_the_pages_again_after_a_class_is_chosen_from_the_list(page, project):
    _press(page, "k", "a")
    _saved(page, project, _segments)
    page.focus("#selection select")
    _press(page, "ArrowDown")
    _saved(page, project, lambda one: _segments(one)[0]["label"] == "run")
    assert page.evaluate("document.activeElement.tagName") == "BODY"
    _press(page, "j", "ArrowLeft")
    page.wait_for_timeout(300)
    assert _segments(entry_of(project, "walk"))[0]["label"] == "run"


def test_labels_do_not_contradict_each_other(page, project, server):
    _press(page, "Home", "Shift+ArrowRight", "0")
    _saved(page, project, lambda one: one.get("background"))
    _press(page, "1")  # at the same time: the later decision holds
    entry = _saved(page, project, lambda one: "background" not in one)
    assert entry["annotations"][0]["point"] == 1.0
    # With features, within the same snippet of half a second.
    projects.add_features(project, ("walk", "yard"))
    page.reload()
    page.wait_for_selector("body[data-ready]")
    _press(page, "Home", "Shift+ArrowRight", "ArrowRight", "0")
    assert "jump is labelled here" in page.inner_text("#said")
    _press(page, "Escape", "Shift+ArrowRight", "ArrowRight", "0")
    entry = _saved(page, project, lambda one: one.get("background"))
    _press(page, "Escape", "ArrowRight", "2")
    entry = _saved(page, project, lambda one: "background" not in one)
    assert len(entry["annotations"]) == 3


def test_labels_read_before_a_save_do_not_replace_it(page, project):
    """The event of an earlier save may come late, and the answer to it after the next save."""
    held = []
    page.route("**/recording/0", lambda route: held.append((route, route.fetch())))
    page.evaluate(
        "() => { import('./static/saving.js').then((saving) =>"
        " saving.adopt({recording: 0, revision: 'earlier'})); }"
    )
    until(page, lambda: held)
    _seek(page, 20)
    _press(page, "0")
    _saved(page, project, lambda one: one.get("background"))
    ((route, answer),) = held
    route.fulfill(response=answer)
    page.wait_for_timeout(200)
    assert "1 background" in page.inner_text("#points-count")
    _press(page, "Control+z")
    _saved(page, project, lambda one: "background" not in one)


def test_undo_after_an_answer_of_the_queue(page, project):
    """The next place may be in another recording."""
    page.click("#recordings li:nth-child(2) button")
    until(page, lambda: page.inner_text("#name") == "yard")
    _press(page, "Shift+ArrowRight", "1")
    _saved(page, project, lambda one: one.get("annotations"), "yard")
    page.click("#recordings li:nth-child(1) button")
    until(page, lambda: page.inner_text("#name") == "walk")
    _press(page, "0")
    _saved(page, project, lambda one: one.get("background"))
    page.click("#recordings li:nth-child(2) button")
    until(page, lambda: page.inner_text("#name") == "yard")
    _press(page, "Control+z")
    _saved(page, project, lambda one: "background" not in one)
    assert page.inner_text("#name") == "walk"
    assert len(entry_of(project, "yard")["annotations"]) == 1


def test_a_held_key_answers_one_place_of_the_queue(page, project):
    until(page, lambda: page.locator("#queue li").count() > 3)
    _press(page, "g")
    page.wait_for_selector("#queue li[aria-current]")
    for _ in range(10):
        page.keyboard.down("x")
        page.wait_for_timeout(30)
    page.keyboard.up("x")
    page.wait_for_selector("#saved[data-state=saved]")
    page.wait_for_timeout(300)
    marked = [len(entry_of(project, name).get("background", [])) for name in ("walk", "yard")]
    assert sum(marked) == 1


def _ask_for(page, reason):
    """Goes to the first place of the queue that is asked about for a reason."""
    until(page, lambda: page.locator("#queue li").count() > 3)
    for _ in range(40):
        _press(page, "g")
        page.wait_for_timeout(100)
        if reason in page.inner_text("#queue-reason"):
            return
    raise AssertionError(f"nothing is asked about because of: {reason}")


def test_a_number_answers_an_unconfirmed_event_within_it(page, project):
    _ask_for(page, "confirmed by nobody")
    name, label = page.inner_text("#name"), page.inner_text("#selection b")
    before = len(entry_of(project, name).get("annotations", []))
    _press(page, str(1 + projects.CLASSES.index(label)))
    entry = _saved(page, project, lambda one: len(one.get("annotations", [])) > before, name)
    new = max(entry["annotations"], key=lambda one: one.get("source", {}).get("at", ""))
    starts = [one["segment"][0] for one in projects.DETECTIONS[name]]
    assert new["point"] not in starts


# --- settings ---


def _preview(page):
    return [int(one) for one in re.findall(r"\d+", page.inner_text("#settings-text"))]


def _expected(**settings):
    found = select_events(projects.DETECTIONS["walk"], **settings)
    return [len(found.entries), found.below, found.merged, found.short]


def test_settings_are_shown_before_they_are_applied(page, project):
    def stored():
        return json.loads((project.folder / "project.json").read_text())["settings"]

    before = stored()
    assert _preview(page) == _expected(threshold=0.5)
    page.click("text=Threshold, merge gap and minimum duration")
    page.fill("[aria-label='merge gap, s of all classes']", "1")
    until(page, lambda: _preview(page) == _expected(threshold=0.5, merge_gap_s=1.0))
    page.fill("[aria-label='threshold of all classes']", "0.2")
    page.fill("[aria-label='minimum duration, s of jump']", "3")
    wanted = {"threshold": 0.2, "merge_gap_s": 1.0, "min_duration_s": {"jump": 3.0}}
    until(page, lambda: _preview(page) == _expected(**wanted))
    assert stored() == before  # nothing is applied
    page.click("#settings-discard")
    until(page, lambda: _preview(page) == _expected(threshold=0.5))
    page.fill("[aria-label='merge gap, s of all classes']", "1")
    page.fill("[aria-label='threshold of run']", "0.75")
    page.click("#settings-apply")
    until(page, lambda: stored()["merge_gap_s"] == 1)
    assert stored()["threshold"]["run"] == 0.75
    page.wait_for_selector("#settings-bar", state="hidden")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    wanted = {"threshold": {"jump": 0.5, "run": 0.75}, "merge_gap_s": 1.0}
    until(page, lambda: _preview(page) == _expected(**wanted))


def test_the_line_of_a_threshold_is_dragged(page, project):
    height = page.locator("#predictions").bounding_box()["height"] / 2 - 1
    assert height == 48

    def y(score):  # of a score in the first lane, whose upper 5 pixels are above a score of 1
        return height - score * (height - 5)

    page.mouse.move(*_place(page, 25, "#predictions", y(0.5)))
    until(page, lambda: page.evaluate("predictions.style.cursor") == "ns-resize")
    page.mouse.down()
    page.mouse.move(*_place(page, 25, "#predictions", y(0.2)), steps=4)
    page.mouse.up()
    wanted = {"threshold": {"jump": 0.2, "run": 0.5}}
    until(page, lambda: _preview(page) == _expected(**wanted))
    assert page.is_visible("#settings-bar")


def test_a_dragged_threshold_leaves_those_of_other_classes(page, project):
    def y(score):
        return 48 - score * 43

    page.mouse.move(*_place(page, 25, "#predictions", y(0.5)))
    page.mouse.down()
    page.mouse.move(*_place(page, 25, "#predictions", y(0.2)), steps=4)
    page.mouse.up()
    page.click("#settings-apply")
    path = project.folder / "project.json"
    until(page, lambda: json.loads(path.read_text())["settings"]["threshold"] is not None)
    assert json.loads(path.read_text())["settings"]["threshold"] == {
        "jump": pytest.approx(0.2, abs=0.03)
    }


def test_events_are_of_the_settings_at_hand(page, browser, server):
    """Also in another page, and in a recording that was shown before."""
    other = browser.new_page(viewport={"width": 1500, "height": 1000})
    _open(other, server)
    for index, name in ((2, "yard"), (1, "walk")):
        page.click(f"#recordings li:nth-child({index}) button")
        until(page, lambda name=name: page.inner_text("#name") == name)
        until(page, lambda: _preview(page))
    page.click("text=Threshold, merge gap and minimum duration")
    page.fill("[aria-label='threshold of all classes']", "0.2")
    until(page, lambda: _preview(page) == _expected(threshold=0.2))
    page.click("#settings-apply")
    until(other, lambda: _preview(other) == _expected(threshold=0.2))
    page.fill("[aria-label='threshold of all classes']", "0.95")
    until(page, lambda: _preview(page) == _expected(threshold=0.95))
    page.click("#recordings li:nth-child(2) button")
    until(page, lambda: page.inner_text("#settings-text").startswith("0 events"))
    other.close()


def test_settings_that_cannot_be_say_so(page, project):
    page.click("text=Threshold, merge gap and minimum duration")
    page.fill("[aria-label='merge gap, s of all classes']", "-1")
    until(page, lambda: "expected" in page.inner_text("#settings-text"))
    page.click("#settings-apply")
    page.wait_for_timeout(300)
    assert "nothing is applied" in page.inner_text("#settings-text")
    assert page.is_visible("#settings-bar")
    page.click("#settings-discard")
    until(page, lambda: _preview(page) == _expected(threshold=0.5))


# --- the queue ---


def test_the_queue_takes_one_key_for_each_answer(page, project):
    until(page, lambda: page.locator("#queue li").count() > 3)
    asked, done = [], 0
    for _ in range(3):
        if not page.locator("#queue li[aria-current]").count():
            _press(page, "g")
        page.wait_for_selector("#queue li[aria-current]")
        current = page.inner_text("#queue li[aria-current]")
        asked.append((page.inner_text("#name"), current))
        has_guess = "accept" in page.inner_text("#selection")
        before = json.loads(project.annotations.read_text())
        complete = "all is labelled" in page.inner_text("#selection")
        done += complete
        _press(page, "a" if has_guess else "d" if complete else "0")
        until(page, lambda before=before: json.loads(project.annotations.read_text()) != before)
        until(
            page,
            lambda current=current: (
                page.locator("#queue li[aria-current]").count() == 1
                and page.inner_text("#queue li[aria-current]") != current
            ),
        )
    assert len(set(asked)) == 3
    database = json.loads(project.annotations.read_text())["database"]
    answers = [
        one["source"]["kind"]
        for entry in database.values()
        for one in [
            *entry["annotations"],
            *({"source": s} for s in entry.get("background_sources", {}).values()),
        ]
        if "source" in one
    ]
    assert len(answers) == 3 - done and set(answers) <= {"accept", "click", "wrong"}
    _press(page, "Escape", "Escape")
    assert page.locator("#queue li[aria-current]").count() == 0


def _ask_for_a_stretch(page):
    """The first place of the queue that asks whether all of a stretch is labelled."""
    _ask_for(page, "Is every action in this stretch labelled?")
    return page.inner_text("#name")


def test_a_stretch_in_which_nothing_is_missing_is_done(page, project):
    name = _ask_for_a_stretch(page)
    row = page.inner_text("#queue li[aria-current]")
    assert row.startswith("complete?")
    _press(page, "d")
    entry = _saved(page, project, lambda one: one.get("done"), name)
    ((start_s, end_s),) = entry["done"]
    points = [one["point"] for one in entry["annotations"]]
    for one in projects.DETECTIONS[name]:
        low_s, high_s = one["segment"]
        outside = high_s <= start_s or end_s <= low_s
        assert outside or one["score"] < 0.5 or any(low_s <= time_s < high_s for time_s in points)
    until(page, lambda: row not in page.locator("#queue li").all_inner_texts())
    _press(page, "Escape", "Escape", "Control+z")
    _saved(page, project, lambda one: one.get("done") == [], name)


def test_what_is_missing_in_a_stretch_is_clicked(page, project):
    name = _ask_for_a_stretch(page)
    before = len(entry_of(project, name).get("annotations", []))
    _press(page, "1")
    entry = _saved(page, project, lambda one: len(one.get("annotations", [])) > before, name)
    assert not entry["done"] and entry["annotations"][0]["source"]["kind"] in ("click", "missed")


# --- training ---

_JOB = """
import json, sys, time
for step in range(1, 200):
    loss = [step, 2 / step]
    told = {"phase": "updates", "done": step, "total": 200, "loss": 2 / step}
    told |= {"left_s": 200 - step, "losses": [loss]}
    print(json.dumps({"progress": told}), flush=True)
    time.sleep(0.05)
"""


def _train_with(script, page, server, monkeypatch):
    """Makes a script the training."""
    runner = server.session._runner
    start, command = runner.start, [sys.executable, "-c", script]
    monkeypatch.setattr(server.session, "_why_not", lambda **_: None)
    monkeypatch.setattr(runner, "start", lambda kind: start(kind, command))
    page.reload()
    page.wait_for_selector("body[data-ready]")


def test_a_training_is_followed_and_stopped(page, server, monkeypatch):
    _train_with(_JOB, page, server, monkeypatch)
    _press(page, "t")
    page.wait_for_selector("#progress:not([hidden])")
    until(
        page,
        lambda: re.search(
            r"updates, [1-9]\d* of 200, \d:\d\d left, loss 0\.", page.inner_text("#progress-text")
        ),
    )
    page.wait_for_selector("#losses path")
    assert 0 < page.evaluate("document.getElementById('progress-bar').value") < 1
    _press(page, "1")  # the page stays usable
    page.wait_for_selector("#saved[data-state=saved]")
    assert page.inner_text("#train") == "Stop"
    page.click("#train")
    until(page, lambda: page.inner_text("#train") == "Train again")
    assert page.is_hidden("#progress") and page.is_hidden("#train-trouble")


def test_a_training_that_fails_says_why(page, server, monkeypatch):
    _train_with("import sys; sys.exit('no space left')", page, server, monkeypatch)
    page.click("#train")
    page.wait_for_selector("#train-trouble:not([hidden])")
    assert page.inner_text("#train-trouble") == "no space left"


def test_changes_warnings_and_the_learning_curve(page):
    rows = page.locator("#changes tr").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["jump", "2", "+1", "−0", "7", "%"],
        ["run", "2", "+0", "−0", "95", "%"],
    ]
    assert page.inner_text("#warnings") == "run fills 95 % of the time"
    assert page.locator("#curve path").count() == 1
    page.click("#changes button")
    until(page, lambda: page.inner_text("#now") == "0:10.000")
    assert "jump score .90" in " ".join(page.inner_text("#selection").split())


def test_export(page, project):
    projects.add_features(project, ("walk", "yard"))
    _press(page, "k", "x")
    note = "answers since the last training that are not in these events: 1; train again"
    until(page, lambda: "1 new answer" in page.inner_text("#train-why"))
    page.click("#export-open")
    assert note in page.inner_text("#export-result")
    rows = page.locator("#export-summary tbody tr")
    page.click("text=Events per recording and class")
    until(page, lambda: rows.count() == 4)
    assert rows.nth(0).inner_text().split() == ["walk", "jump", "1", "4.0", "4.00"]
    for box in page.locator("#export-formats input").all():
        box.check()
    page.click("#export-go")
    page.wait_for_selector("#export-result li")
    names = page.locator("#export-result li").all_inner_texts()
    assert len(names) >= 11 and all((project.folder / name).is_file() for name in names)
    assert note in page.inner_text("#export-result")
    events = next(name for name in names if name.endswith("events.json"))
    results = json.loads((project.folder / events).read_text())["results"]
    assert [one["label"] for one in results["walk"]].count("run") == 2
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('export').open")


# --- for everyone ---


def _faults(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [
        (one["id"], one["impact"], [node["target"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_for_assistive_technology(browser, server, scheme):
    context = browser.new_context(viewport={"width": 1500, "height": 1000}, color_scheme=scheme)
    page = context.new_page()
    _open(page, server)
    _press(page, "0", "1", "k")
    assert _faults(page) == []
    page.click("text=Threshold, merge gap and minimum duration")
    _press(page, "g")
    page.wait_for_selector("#queue li[aria-current]")
    assert _faults(page) == []
    for opener in ("#help-open", "#export-open"):
        page.click(opener)
        assert _faults(page) == []
        page.keyboard.press("Escape")
    context.close()


def test_the_keyboard_alone(page, project):
    def reach(selector):
        for _ in range(120):
            if page.evaluate("(s) => document.activeElement.matches(s)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"no way to {selector}")

    reach("#recordings li:nth-child(2) button")
    _press(page, "Enter")
    until(page, lambda: page.inner_text("#name") == "yard")
    reach("#add-name")
    page.keyboard.type("sit")
    _press(page, "Enter", "3")
    _saved(page, project, lambda one: one.get("annotations"), "yard")
    _press(page, "Escape", "k", "a", "q", "Escape", "End", "0", "d", "Home", "d")
    entry = _saved(page, project, lambda one: one.get("done"), "yard")
    assert [one.get("segment") for one in entry["annotations"]] == [None, [4.9, 9.0]]
    reach("#selection button")
    reach("summary")
    _press(page, "Enter")
    reach("#settings input")
    page.keyboard.type("0.7")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    reach("#settings-apply")
    _press(page, "Enter")
    path = project.folder / "project.json"
    until(page, lambda: json.loads(path.read_text())["settings"]["threshold"] == 0.7)
    reach("#export-open")
    _press(page, "Enter")
    reach("#export-go")
    _press(page, "Enter")
    page.wait_for_selector("#export-result li")


def test_twice_as_large(browser, server, project):
    context = browser.new_context(viewport={"width": 640, "height": 450}, device_scale_factor=2)
    page = context.new_page()
    _open(page, server)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for selector in (
        "#train",
        "#play",
        "#place",
        "#queue-next",
        "#export-open",
        "#help-open",
        "#undo",
    ):
        page.locator(selector).scroll_into_view_if_needed()
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 640, selector
    _press(page, "k", "a")
    _saved(page, project, _segments)
    context.close()


def test_recordings_come_and_go(page, server, tmp_path):
    rows = page.locator("#recordings li")
    until(page, lambda: "1:00 · 1" in rows.all_inner_texts()[0])  # length and labels
    projects.write_tables(tmp_path, ["zoo"])
    (tmp_path / "yard.npy").unlink()
    until(page, lambda: rows.count() == 3)
    assert rows.all_inner_texts()[2].startswith("zoo")
    until(page, lambda: "gone" in rows.all_inner_texts()[1])
    assert page.inner_text("#recordings-count") == "1 of 3, 1 gone"
    rows.nth(1).locator("button").click()
    until(page, lambda: "yard.npy" in page.inner_text("#notice"))
    rows.nth(2).locator("button").click()
    until(page, lambda: page.inner_text("#name") == "zoo")
    page.wait_for_selector("#signal[data-drawn]")


def test_labelling_alone_hides_training(browser, tmp_path):
    projects.write_tables(tmp_path, ["walk"])
    server = studio.open_server([tmp_path / "walk.npy"], tmp_path / "a.json", classes=["jump"])
    with live_page.serving(server):
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
        for name in ("train-card", "queue-card", "settings-card", "changes-card", "export-open"):
            assert page.is_hidden(f"#{name}"), name
        assert page.title() == "walk – tal_jax label"
        page.keyboard.press("?")
        assert "train, or stop" not in page.inner_text("#keys")
        page.keyboard.press("Escape")
        assert _faults(page) == []
        page.keyboard.press("1")
        page.wait_for_selector("#saved[data-state=saved]")
        (entry,) = json.loads((tmp_path / "a.json").read_text())["database"].values()
        assert "done" not in entry and entry["annotations"][0]["label"] == "jump"
        page.close()


# The first and the last column of a canvas with something on it, and its width.
_COLUMNS = """() => {
  const { width, height } = skeleton, context = skeleton.getContext("2d"), found = [];
  const { data } = context.getImageData(0, 0, width, height);
  for (let i = 0; i < width * height; i++) if (data[4 * i + 3] > 127) found.push(i % width);
  return [found.reduce((a, b) => Math.min(a, b)), found.reduce((a, b) => Math.max(a, b)), width];
}"""


def test_joints_are_drawn_at_their_time(browser, tmp_path):
    times_s = np.arange(0, 50, 0.1)
    nose_x = np.where(times_s < 25, 100.0, 300.0)  # right of the tail from 25 s on
    nothing = nose_x * 0
    columns = [times_s, nose_x, nothing + 50, nothing + 0.9, nothing + 200, nothing + 80]
    head = "time,nose_x,nose_y,nose_likelihood,tail_x,tail_y"
    np.savetxt(tmp_path / "mouse.csv", np.stack(columns, 1), "%.3f", ",", header=head, comments="")
    server = studio.open_server([tmp_path / "mouse.csv"], tmp_path / "a.json", classes=["jump"])
    with live_page.serving(server):
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(server.url)
        page.wait_for_selector("#skeleton[data-time='0.000']")
        first, last, width = page.evaluate(_COLUMNS)
        assert (first, last) == (pytest.approx(16, abs=5), pytest.approx(width / 2, abs=5))
        page.keyboard.press("End")
        page.wait_for_selector("#skeleton[data-time='49.900']")
        first, last, width = page.evaluate(_COLUMNS)
        assert (first, last) == (pytest.approx(width / 2, abs=5), pytest.approx(width - 16, abs=5))
        page.close()
