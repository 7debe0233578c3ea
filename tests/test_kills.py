"""`kill -9` at random moments: the same command again ends with the same files and nothing else.

Each command is killed `TAL_JAX_KILLS` times (once by default), at moments drawn from a seed over
the time that it takes undisturbed. docs/reliability.md reports 20 times:

    TAL_JAX_KILLS=20 python -m pytest -m slow tests/test_kills.py
"""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import toy

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("TAL_JAX_KILLS", "1"))
# Of files that hold times of day or rates: everything but these is compared.
CLOCKS = {"steps_per_s", "eta_s", "elapsed_s", "seconds"}


class Command:
    """A command line in a folder of its own, which can be killed with all that it started."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = [sys.executable, "-m", "tal_jax.cli", *map(str, arguments)]

    def start(self, cwd: Path) -> subprocess.Popen:
        return subprocess.Popen(
            self.arguments,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, cwd: Path) -> None:
        process = self.start(cwd)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output

    def kill(self, cwd: Path, after_s: float) -> bool:
        """Kills the process that was started, not its children; whether it was still at work."""
        process = self.start(cwd)
        time.sleep(after_s)
        process.kill()
        process.communicate(timeout=600)
        _wait_for_group(process.pid)
        return process.returncode == -signal.SIGKILL


def _wait_for_group(group: int) -> None:
    """Processes that a killed one started end by themselves."""
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a process is left over")


def _contents(folder: Path) -> dict[str, object]:
    """Every file below, without clocks; of checkpoints and pages only that they are there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or "/checkpoints/" in f"/{name}" or "/params/" in f"/{name}":
            continue
        if path.suffix in (".html", ".png") or path.name == "run.json":
            found[name] = None
        elif path.suffix == ".jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            found[name] = [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]
        else:
            found[name] = path.read_bytes()
    return found


def _moments(seed: str, longest_s: float) -> list[float]:
    drawn = random.Random(seed)
    return [drawn.uniform(0.0, longest_s) for _ in range(COUNT)]


def _check(command: Command, template: Path, tmp_path: Path, result: str) -> None:
    """Runs the command in copies of a folder: undisturbed, and killed once at each moment."""
    whole = tmp_path / "whole"
    shutil.copytree(template, whole)
    command.finish(whole)  # compiles
    shutil.rmtree(whole)
    shutil.copytree(template, whole)
    began = time.monotonic()
    command.finish(whole)
    took_s, want = time.monotonic() - began, _contents(whole / result)
    assert want
    killed = 0
    for number, moment_s in enumerate(_moments(str(command.arguments[3:]), took_s)):
        folder = tmp_path / f"killed_{number}"
        shutil.copytree(template, folder)
        killed += command.kill(folder, moment_s)
        command.finish(folder)
        got = _contents(folder / result)
        print(f"killed after {moment_s:.3f} of {took_s:.3f} s")  # shown where the test fails
        assert list(got) == list(want)
        for name in want:
            assert got[name] == want[name], name
        shutil.rmtree(folder)
    assert killed > 0


# --- commands ---


def test_train(tmp_path, monkeypatch):
    monkeypatch.delenv("TAL_JAX_DATA", raising=False)
    template = tmp_path / "template"
    toy.write(template / "data", num_train=4, num_test=2)
    text = "import toy\n\ndef get_config():\n    return toy.config('data')\n"
    (template / "config.py").write_text(text)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(toy.__file__).parent), os.environ.get("PYTHONPATH")])
    )
    settings = ["--set", "train.steps=30", "--set", "train.checkpoint_every=5"]
    command = Command("train", "--config", "config.py", "--workdir", "run", *settings)
    _check(command, template, tmp_path, "run")


def _write_tables(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        rows = np.column_stack([np.arange(3000) / 50, rng.normal(size=(3000, 3))])
        np.savetxt(
            folder / f"rec{number}.csv", rows, delimiter=",", header="time_s,x,y,z", comments=""
        )


def test_extract(tmp_path):
    template = tmp_path / "template"
    _write_tables(template / "tables", 6)
    arguments = ["--output", "features", "--backbone", "signal", "--workers", "2"]
    # Entries name their sources by absolute paths: so the same folder, again and again.
    command = Command("extract", "tables", *arguments)
    work = tmp_path / "work"
    shutil.copytree(template, work)
    began = time.monotonic()
    command.finish(work)
    took_s, want = time.monotonic() - began, _contents(work / "features")
    for moment_s in _moments("extract", took_s):
        shutil.rmtree(work / "features")
        command.kill(work, moment_s)
        command.finish(work)
        assert _contents(work / "features") == want, moment_s


def test_convert(tmp_path):
    template = tmp_path / "template"
    template.mkdir()
    rows = [f"rec{i % 40},{i % 3},{i}.5,{i + 1}.25" for i in range(4000)]
    (template / "labels.csv").write_text("recording,label,start,end\n" + "\n".join(rows))
    _check(Command("convert", "labels.csv", "--output", "a.json"), template, tmp_path, "")


def test_predict(toy_run, tmp_path):
    template = tmp_path / "template"
    template.mkdir()
    shutil.copy(toy_run.data / "test_0.npy", template / "new.npy")
    command = Command("predict", "new.npy", "--workdir", toy_run.workdir, "--output", "found.json")
    _check(command, template, tmp_path, "")


# --- labelling: what the page was told is saved is in the file ---


class Page:
    """The requests that the page sends."""

    def __init__(self, folder: Path) -> None:
        arguments = ["rec0.csv", "--output", "a.json", "--no-browser", "--classes", "jump"]
        self.process = Command("label", *arguments).start(folder)
        address = urlsplit(self.process.stdout.readline().strip())
        self.host, self.root = address.netloc, address.path
        state = self._ask("GET", "recording/0")
        self.revision, self.annotations = state["revision"], state["annotations"]

    def _ask(self, method: str, path: str, values: object = None) -> dict:
        body = None if values is None else json.dumps(values)
        headers = {"Content-Type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection(self.host, timeout=30)) as connection:
            connection.request(method, self.root + path, body, headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return json.loads(answer.read())

    def click(self, time_s: float) -> None:
        annotations = [*self.annotations, {"label": "jump", "point": time_s, "segment": None}]
        values = {"annotations": annotations, "classes": [], "revision": self.revision}
        self.revision = self._ask("POST", "save/0", values)["revision"]
        self.annotations = annotations

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


def _clicked(folder: Path) -> list[float]:
    path = folder / "a.json"
    if not path.exists():
        return []
    entry = json.loads(path.read_text())["database"].get("rec0", {"annotations": []})
    return [one["point"] for one in entry["annotations"]]


@pytest.mark.parametrize("seed", range(COUNT))
def test_label(tmp_path, seed):
    """Killed while a save is under way, again and again, until 30 clicks are in the file."""
    _write_tables(tmp_path / "w", 1)
    folder, drawn, clicks = tmp_path / "w", random.Random(seed), [i + 0.25 for i in range(30)]
    while len(_clicked(folder)) < len(clicks):
        page, saved = Page(folder), _clicked(folder)
        alarm = time.monotonic() + drawn.uniform(0.0, 0.2)
        killer = subprocess.Popen(
            ["sh", "-c", f"sleep {alarm - time.monotonic():.4f}; kill -9 {page.process.pid}"]
        )
        try:
            for time_s in clicks[len(saved) :]:
                page.click(time_s)
                saved.append(time_s)
        except (OSError, http.client.HTTPException):
            pass  # killed
        killer.wait()
        page.kill()
        # All that was acknowledged, and at most the one that was on its way.
        assert _clicked(folder) in (saved, clicks[: len(saved) + 1])
    assert _clicked(folder) == clicks
    left = {re.sub(r"\W*lock$", "", path.name) for path in folder.iterdir()}
    # The address stays, for the next start to listen under.
    assert left <= {"rec0.csv", "a.json", ".a.json", ".a.json.address"}, left
