"""A disk that fills up: one line that names the file, and nothing half-written.

`RLIMIT_FSIZE` ends every write at a size, as a full disk does. Each command is run under several
limits, so that every file it writes is once the first that does not fit; then without any.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy

from tal_jax.data.predictions import read_predictions

# Ignored signal: EFBIG instead.
_LIMITED = """
import os, resource, signal, sys
limit = int(sys.argv.pop(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.executable, [sys.executable, "-m", "tal_jax.cli", *sys.argv[1:]])
"""


def _run(cwd: Path, limit: int | None, *arguments: object) -> subprocess.CompletedProcess:
    command = ["-m", "tal_jax.cli"] if limit is None else ["-c", _LIMITED, str(limit)]
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        # The cache of programs would be the first to fill up; JAX goes on without.
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0" if limit is not None else "1"},
    )


def _contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _check(cwd: Path, limits: tuple[int, ...], *arguments: object) -> None:
    before = _contents(cwd)
    for limit in limits:
        done = _run(cwd, limit, *arguments)
        assert done.returncode == 2, (limit, done.stdout, done.stderr)
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("tal-jax: error: cannot write "), line
        assert "File too large" in line or "No space" in line, line
        after = _contents(cwd)
        assert not [name for name in after if "tmp" in name], (limit, sorted(after))
        # Files that were there are unchanged; new ones are whole (they could be read below).
        assert {name: after[name] for name in before} == before
    done = _run(cwd, None, *arguments)
    assert done.returncode == 0, done.stderr


def _write_labels(folder: Path) -> None:
    rows = [f"rec{i % 40},{i % 3},{i}.5,{i + 1}.25" for i in range(400)]
    (folder / "labels.csv").write_text("recording,label,start,end\n" + "\n".join(rows))


def test_convert(tmp_path):
    _write_labels(tmp_path)
    _check(tmp_path, (0, 100, 10_000), "convert", "labels.csv", "--output", "a.json")
    assert len(json.loads((tmp_path / "a.json").read_text())["database"]) == 40


def test_an_existing_file_is_kept(tmp_path):
    _write_labels(tmp_path)
    assert _run(tmp_path, None, "convert", "labels.csv", "--output", "a.json").returncode == 0
    kept = (tmp_path / "a.json").read_bytes()
    (tmp_path / "labels.csv").write_text("recording,label,start,end\nrec0,x,1,2\n")
    arguments = ("convert", "labels.csv", "--output", "a.json", "--overwrite")
    assert _run(tmp_path, 50, *arguments).returncode == 2
    assert (tmp_path / "a.json").read_bytes() == kept


def test_extract(tmp_path):
    (tmp_path / "tables").mkdir()
    for number, samples in enumerate((500, 3000)):
        rng = np.random.default_rng(number)
        rows = np.column_stack([np.arange(samples) / 50, rng.normal(size=(samples, 3))])
        path = tmp_path / "tables" / f"rec{number}.csv"
        np.savetxt(path, rows, delimiter=",", header="time_s,x,y,z", comments="")
    arguments = ("extract", "tables", "--output", "features", "--backbone", "signal")
    # Recordings fail one by one: the longer one does not fit, the shorter one does.
    done = _run(tmp_path, 6_000, *arguments)
    assert done.returncode == 1 and "cannot write" in done.stderr, done.stderr
    names = {path.name for path in (tmp_path / "features").iterdir()}
    assert names == {"rec0.npy", "grid.json", "manifest.json"}
    done = _run(tmp_path, None, *arguments)
    assert done.returncode == 0 and "1 recordings extracted, 1 unchanged" in done.stdout
    lengths = [len(np.load(tmp_path / "features" / f"rec{number}.npy")) for number in (0, 1)]
    assert lengths[0] < lengths[1]


@pytest.mark.slow
def test_predict(toy_run, tmp_path):
    shutil.copy(toy_run.data / "test_0.npy", tmp_path / "new.npy")
    arguments = ("predict", "new.npy", "--workdir", toy_run.workdir, "--output", "found.json")
    _check(tmp_path, (100, 1000, 20_000), *arguments)


@pytest.mark.slow
def test_train(tmp_path, monkeypatch):
    monkeypatch.delenv("TAL_JAX_DATA", raising=False)
    toy.write(tmp_path / "data", num_train=4, num_test=2)
    text = f"import sys\nsys.path.insert(0, {str(Path(toy.__file__).parent)!r})\nimport toy\n\n"
    text += "def get_config():\n    return toy.config('data')\n"
    (tmp_path / "config.py").write_text(text)
    settings = ["--set", "train.steps=15", "--set", "train.rounds=1"]
    arguments = ("train", "--config", "config.py", "--workdir", "run", *settings)
    for limit in (0, 1500, 10_000):
        done = _run(tmp_path, limit, *arguments)
        assert done.returncode == 2, (limit, done.stdout, done.stderr)
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("tal-jax: error: cannot write "), line
    done = _run(tmp_path, None, *arguments)
    assert done.returncode == 0, done.stderr
    undisturbed = _run(tmp_path, None, *arguments[:3], "--workdir", "other", *settings)
    assert undisturbed.returncode == 0
    for name in ("detections.json", "round_0/proposals_train.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert read_predictions(tmp_path / "run" / "scores_test.npz")
