"""The whole loop of the studio on small signals, by its command; and `kill -9` in the middle of it.

`TAL_JAX_KILLS` is the number of seeds of the moments of the kills, as for tests/test_kills.py.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import live_page
import numpy as np
import pytest

from tal_jax.data.annotations import load_annotations
from tal_jax.data.detections import read_results

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("TAL_JAX_KILLS", "1"))
RATE, SECONDS = 20, 60
CLASSES = ("flat", "wave")
SETTINGS = ("fps=20", "window=20", "stride=10")  # of the features
SETTINGS += ("stages=rounds", "train.rounds=1", "train.steps=20", "model.widths=(16,)")

# As from a terminal: a background job of a shell ignores SIGINT.
COMMAND = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
from tal_jax import cli; cli.run()
"""


def _write(folder, name, generator):
    """A signal with actions of two classes; returns them."""
    times_s = np.arange(SECONDS * RATE) / RATE
    samples = generator.normal(0, 0.3, (len(times_s), 3))
    actions, at_s = [], 2.0
    while at_s < SECONDS - 8:
        end_s, wave = at_s + generator.uniform(3, 5), bool(generator.integers(2))
        within = (times_s >= at_s) & (times_s < end_s)
        samples[within] += 2 * np.sin(19 * times_s[within])[:, None] if wave else 2.0
        actions.append((CLASSES[wave], at_s, end_s))
        at_s = end_s + generator.uniform(2, 5)
    np.save(folder / f"{name}.npy", np.column_stack([times_s, samples]))
    return actions


class Studio:
    """The command, in a process of its own, and a page of it."""

    def __init__(self, folder: Path) -> None:
        arguments = ["studio", folder, "--no-browser", "--classes", ",".join(CLASSES)]
        arguments += [part for one in SETTINGS for part in ("--set", one)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Most of the time goes into compiling, which its quality makes no difference for here.
            env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        )
        assert self.process.stdout is not None
        address = urlsplit(self.process.stdout.readline().strip())
        self.page = live_page.Page(address.netloc, address.path)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)

    def end(self) -> None:
        """Ctrl+C."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0 and "the same command goes on from here" in output


@contextlib.contextmanager
def _studio(folder):
    studio = Studio(folder)
    try:
        yield studio
    finally:
        studio.kill()


def _points(actions, *, before_s):
    return [
        {"label": label, "point": round((start_s + end_s) / 2, 3)}
        for label, start_s, end_s in actions
        if end_s < before_s
    ]


def _label(page, actions, index, *, before_s=40.0):
    """Clicks what ends before a time, and marks the time until then as done."""
    points = _points(actions[index], before_s=before_s)
    end_s = max(end_s for _, _, end_s in actions[index] if end_s < before_s)
    page.save(index, annotations=points, done=[[0.0, round(end_s + 0.5, 3)]])
    return points


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of recordings, a finished first run, and its labels."""
    folder, generator = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    actions = [_write(folder, f"rec{index}", generator) for index in range(3)]
    with _studio(folder) as studio:
        page = studio.page
        # Labels can be saved while the features are extracted.
        clicked = [_label(page, actions, index) for index in range(2)]
        state = page.wait()
        assert [row["features"] for row in state["recordings"]] == ["ready"] * 3, state
        assert state["can_train"] is None and state["answers"] == sum(map(len, clicked)) + 2
        page.post("train", {})
        state = page.wait()
        assert state["error"] is None and state["run"]["number"] == 1 and state["answers"] == 0
        studio.end()
    return folder, actions, clicked


def test_the_loop(films):
    """Look, correct, train again, see what changed, export."""
    folder, actions, clicked = films
    project = folder / "studio"
    with _studio(folder) as studio:
        page = studio.page
        state = page.get("state")
        assert state["job"] is None and state["run"]["number"] == 1  # nothing left to extract
        for index in range(3):  # also the one that nothing is labelled in
            told = page.get(f"prediction/{index}")
            assert told["run"] == 1 and told["labels"] == list(CLASSES)
        assert page.get("changes")["curve"][0]["criterion"] is None

        label, start_s, end_s = actions[2][0]
        accepted = {"label": label, "segment": [start_s, end_s], "source": {"kind": "accept"}}
        missed = _points(actions[2][1:2], before_s=SECONDS)
        page.save(2, annotations=[accepted, *missed], background=[0.5])
        assert page.get("state")["answers"] == 3
        (point,) = page.get("changes")["curve"]
        assert point["new_points"] == 1 and 0 <= point["criterion"] <= 1
        places = page.get("queue")
        assert places and all(
            not start_s <= one["time"] < end_s for one in places if one["recording"] == 2
        )

        page.post("train", {})
        assert page.try_post("train", {})[0] == page.try_post("extract", {})[0] == 409
        state = page.wait()
        assert state["error"] is None and state["run"]["number"] == 2 and state["answers"] == 0
        changes = page.get("changes")
        assert (changes["run"], changes["before"]) == (2, 1)
        assert [one["label"] for one in changes["classes"]] == list(CLASSES)
        first, second = changes["curve"]
        assert first == point and second["criterion"] is None
        assert second["clicks"] == sum(map(len, clicked)) + 1

        found = read_results(project / "runs" / "0002" / "detections_all.json")
        assert set(found) == {"rec0", "rec1", "rec2"}
        told = page.post("export", {"formats": ["activitynet", "csv", "elan"], "clips": False})
        assert len(told["files"]) >= 3
        studio.end()
    # It began from the first run, with the accepted segment; labels are as they were saved.
    start = json.loads((project / "runs" / "0002" / "start" / "start.json").read_text())
    assert start["from"] == str((project / "runs" / "0001").resolve())
    trained = load_annotations(project / "runs" / "0002" / "train_points.json")
    assert (start_s, end_s) in [one.segment for one in trained.recordings["rec2"].instances]
    database = json.loads((project / "annotations.json").read_text())["database"]
    assert database["rec0"]["annotations"] == clicked[0]
    assert database["rec2"]["annotations"] == [accepted, *missed]


def _kill(studio, victim, folder):
    """Kills the server, or the job that it has at work; returns the studio to go on with."""
    job = studio.page.get("state")["job"]
    if victim == "job":
        os.kill(job["pid"], signal.SIGKILL)
        state = studio.page.wait()
        # It may have been done, but for its end.
        assert state["run"] is not None or "ended with -9" in state["error"]
        return studio
    studio.kill()
    until = time.monotonic() + 20
    with contextlib.suppress(ProcessLookupError):
        while True:  # the job ends with the server
            os.kill(job["pid"], 0)
            assert time.monotonic() < until
            time.sleep(0.1)
    return Studio(folder)


@pytest.mark.parametrize("seed", range(COUNT))
def test_kills(films, tmp_path, seed):
    """Of the server and of its jobs: no label is lost, and the run ends as an undisturbed one."""
    films, actions, clicked = films
    folder, drawn, kills = tmp_path / "films", random.Random(seed), 0
    folder.mkdir()
    for path in films.glob("*.npy"):
        (folder / path.name).write_bytes(path.read_bytes())
    project, studio = folder / "studio", Studio(folder)
    try:
        assert [_label(studio.page, actions, index) for index in range(2)] == clicked
        time.sleep(drawn.uniform(0, 2))
        if studio.page.get("state")["job"] is not None:  # features are being extracted
            studio, kills = _kill(studio, "server", folder), kills + 1
        # The first one while the job is imported: a quick machine trains within seconds.
        victims = drawn.sample(["server", "job", "server", "job"], 3)
        for victim, longest_s in zip(victims, (1.5, 8, 8), strict=True):
            if studio.page.wait()["run"] is not None:
                break
            studio.page.post("train", {})
            time.sleep(drawn.uniform(0.2, longest_s))
            if studio.page.get("state")["job"] is not None:
                studio, kills = _kill(studio, victim, folder), kills + 1
        database = json.loads((project / "annotations.json").read_text())["database"]
        assert [database[f"rec{index}"]["annotations"] for index in range(2)] == clicked
        if studio.page.wait()["run"] is None:
            studio.page.post("train", {})
            state = studio.page.wait()
            assert state["error"] is None and state["run"]["number"] == 1
    finally:
        studio.kill()
    assert kills
    run = project / "runs" / "0001"
    assert [path.name for path in run.parent.iterdir() if path.is_dir()] == ["0001"]
    undisturbed = films / "studio" / "runs" / "0001" / "detections_all.json"
    assert (run / "detections_all.json").read_bytes() == undisturbed.read_bytes()
    assert not [path for path in project.rglob("*tmp*") if "checkpoint" not in str(path)]
