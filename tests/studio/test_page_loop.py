"""The whole loop in a real browser, on rendered scenes with known actions.

Open, click, train, look, accept, nudge, reject, retrain, export, with a reload in between. With
`TAL_JAX_SCREENSHOTS=docs/figures` the pictures of docs/studio.md are made anew.
"""

import io
import json
import os
import time
from pathlib import Path

import browsing
import live_page
import pytest
import scenes
from projects import entry_of

from tal_jax import studio
from tal_jax.studio.project import open_project

av = pytest.importorskip("av", reason="rendering the scenes needs PyAV")
Image = pytest.importorskip("PIL.Image", reason="matplotlib brings Pillow")
pytestmark = [browsing.needs_browser, pytest.mark.slow]

GUTTER = 172
SECONDS, RECORDINGS, CLICKED = 60.0, 5, 3
CLASSES = ["blink", "jump", "slide"]
# The shortest training that finds these actions.
TRAINING = {"train.rounds": "1", "train.steps": "100", "stages": "rounds"}
# Afterwards a prediction is right if it overlaps an action by so much.
FOUND_TIOU = 0.5


class Person:
    """Somebody who knows the true actions, and works on the page by mouse and keys."""

    def __init__(self, page, project, truth, pictures):
        self.page, self.project, self.truth, self.pictures = page, project, truth, pictures

    def until(self, condition, seconds=20):
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.page.inner_text("body")
            self.page.wait_for_timeout(50)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def open(self, index):
        self.page.locator("#recordings li button").nth(index).click()
        self.until(lambda: self.page.inner_text("#name") == f"train_{index}")
        self.until(lambda: self.page.evaluate("video.readyState >= 2 && !video.seeking"))

    def seek(self, time_s):
        """Clicks the timeline, which shows all of the recording, beside every label."""
        self.page.click("#zoom-all")
        box = self.page.locator("#timeline").bounding_box()
        x = box["x"] + GUTTER + time_s / SECONDS * (box["width"] - GUTTER)
        self.page.mouse.click(x, box["y"] + 70)

    def actions(self, index):
        return self.truth[f"train_{index}"]["annotations"]

    def action_at(self, index, time_s):
        around = (
            one for one in self.actions(index) if one["segment"][0] <= time_s < one["segment"][1]
        )
        return next(around, None)

    def now(self):
        minutes, seconds = self.page.inner_text("#now").split(":")
        return 60 * int(minutes) + float(seconds)

    def saved(self):
        self.page.wait_for_selector("#saved[data-state=saved]")

    def picture(self, name):
        self.page.wait_for_timeout(400)
        picture = Image.open(io.BytesIO(self.page.screenshot()))
        picture.quantize(256, dither=Image.Dither.NONE).save(
            self.pictures / f"studio_{name}.png", optimize=True
        )

    def run(self):
        text = self.page.inner_text("#last-run")
        return int(text.split()[1].rstrip(",")) if text.startswith("Run") else 0

    def train(self, picture=None):
        """Trains, and waits for the predictions."""
        before, begun = self.run(), time.monotonic()
        self.press("t")
        self.page.wait_for_selector("#progress:not([hidden])")
        if picture:
            self.page.wait_for_selector("#losses path", timeout=200_000)
            self.picture(picture)
        self.until(lambda: self.run() > before, seconds=400)
        self.page.wait_for_selector("#predictions:not([hidden])")
        return time.monotonic() - begun


def _iou(one, other):
    inside = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, inside) / (max(one[1], other[1]) - min(one[0], other[0]))


@pytest.fixture
def person(tmp_path):
    scenes.write_scenes(tmp_path / "films", num_train=RECORDINGS, num_test=0, seconds=SECONDS)
    truth = json.loads((tmp_path / "films" / "truth.json").read_text())["database"]
    (tmp_path / "films" / "truth.json").unlink()
    project, _ = open_project(tmp_path / "project", [tmp_path / "films"], training=TRAINING)
    pictures = Path(os.environ.get("TAL_JAX_SCREENSHOTS", tmp_path))
    server = studio.open_studio(project, classes=CLASSES)
    with live_page.serving(server), browsing.open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
        yield Person(page, project, truth, pictures)
        assert errors == []


def test_the_whole_loop(person):
    page, project = person.page, person.project

    # Click, while features are extracted: one point in each action of some recordings.
    for index in range(CLICKED):
        person.open(index)
        for one in person.actions(index):
            person.seek(sum(one["segment"]) / 2)
            person.press(str(CLASSES.index(one["label"]) + 1))
        person.press("Escape", "Shift+D")
        person.saved()
        if index == 1:
            person.picture("click")
    for index in range(CLICKED):
        entry = entry_of(project, f"train_{index}")
        labels = [one["label"] for one in person.actions(index)]
        assert [one["label"] for one in entry["annotations"]] == labels and "done" not in entry
    ready = "#recordings [data-features=ready]"
    person.until(lambda: page.locator(ready).count() == RECORDINGS, seconds=200)

    # Train; the page stays usable.
    person.train(picture="train")

    # Look, in a recording without a click.
    person.open(CLICKED)
    page.wait_for_selector("#predictions:not([hidden])")
    person.until(lambda: "event" in page.inner_text("#settings-text"))
    person.picture("look")

    # Correct: accept what is right, nudge its end to the truth, reject what is wrong.
    accepted = rejected = 0
    person.press("Home")
    for _ in range(20):
        before = page.inner_text("#selection"), page.inner_text("#now")
        person.press("k")
        if "accept" not in page.inner_text("#selection"):
            break
        if (page.inner_text("#selection"), page.inner_text("#now")) == before:
            break
        label = page.input_value("#selection select")
        action = person.action_at(CLICKED, person.now() + 1)
        if action is not None and action["label"] == label:
            person.press("a")
            accepted += 1
            if accepted == 1:
                person.press("r", "r", "w")
                person.picture("correct")
            person.seek(action["segment"][1] + 0.2)
        else:
            person.press("x")
            said = page.inner_text("#said")
            # Two classes may be predicted around the same middle.
            rejected += "is labelled here" not in said and "already" not in said
            page.wait_for_timeout(50)
    person.saved()
    entry = entry_of(project, f"train_{CLICKED}")
    kinds = [one["source"]["kind"] for one in entry["annotations"]]
    assert accepted >= 1 and len(kinds) == accepted and kinds.count("nudge") == 1
    assert len(entry.get("background", [])) == rejected

    # Nothing is lost by a reload.
    page.reload()
    page.wait_for_selector("body[data-ready]")
    person.until(lambda: page.inner_text("#name") == f"train_{CLICKED}")
    assert page.locator("#points li:not(.empty)").count() == accepted + rejected

    # The queue, one key for each answer.
    person.until(lambda: page.locator("#queue li:not(.empty)").count() > 0)
    person.press("g")
    for answer in range(6):
        page.wait_for_selector("#queue li[aria-current]")
        at = page.inner_text("#queue li[aria-current]").split()[-1]
        person.until(lambda at=at: f"at {at}: " in page.inner_text("#said"))
        if answer == 2:
            person.picture("queue")
        index, row = (
            int(page.inner_text("#name").removeprefix("train_")),
            page.inner_text("#queue li[aria-current]"),
        )
        before = project.annotations.read_text()
        action = person.action_at(index, person.now())
        if "all is labelled" in page.inner_text("#selection"):
            person.press("d")
        else:
            person.press(str(CLASSES.index(action["label"]) + 1) if action else "0")
        person.until(lambda before=before: project.annotations.read_text() != before)
        person.until(
            lambda row=row: (
                page.locator("#queue li[aria-current]").count()
                and page.inner_text("#queue li[aria-current]") != row
            )
        )
    person.press("Escape", "Escape")
    person.saved()

    # Retrain: what changed, and how well the last training predicted the new clicks.
    took_s = person.train()
    person.until(lambda: page.inner_text("#changes-title").startswith("Since run 1"))
    assert page.locator("#changes tr").count() == len(CLASSES)
    page.locator("#changes-card").scroll_into_view_if_needed()
    person.picture("changes")
    card = json.loads((project.folder / "runs" / "0002" / "studio.json").read_text())
    assert card["labels"]["segments"] == accepted

    # Out.
    page.click("#export-open")
    page.locator("#export-formats input[value=elan]").check()
    page.click("#export-go")
    page.wait_for_selector("#export-result li", timeout=60_000)
    person.picture("export")
    names = page.locator("#export-result li").all_inner_texts()
    assert all((project.folder / name).is_file() for name in names)
    written = next(name for name in names if name.endswith("events.json"))
    results = json.loads((project.folder / written).read_text())["results"]
    true = [(name, one) for name, entry in person.truth.items() for one in entry["annotations"]]
    found = [
        any(
            event["label"] == one["label"] and _iou(event["segment"], one["segment"]) >= FOUND_TIOU
            for event in results.get(name, [])
        )
        for name, one in true
    ]
    print(f"retrained in {took_s:.0f} s; {sum(found)} of {len(found)} actions are among the events")
    assert sum(found) >= len(found) / 2
