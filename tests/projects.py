"""A project of the studio with a finished run, written by hand."""

import dataclasses
import json
from pathlib import Path

import msgspec
import numpy as np

from tal_jax import studio
from tal_jax.data import files
from tal_jax.data.clock import Grid
from tal_jax.data.detections import write_results
from tal_jax.data.manifest import Entry, Manifest, write_manifest
from tal_jax.studio.project import Card, Project, Run

SECONDS, RATE = 60.0, 50
GRID = Grid(fps=50, stride_frames=25, window_frames=75)
CLASSES = ("jump", "run")


def write_tables(folder: Path, count: int, *, seconds: float = SECONDS) -> None:
    """Sensor tables rec0.npy, rec1.npy, ..."""
    times_s = np.arange(int(seconds * RATE)) / RATE
    for number in range(count):
        np.save(folder / f"rec{number}.npy", np.stack([times_s, *3 * [np.sin(times_s)]], 1))


def make(folder: Path, count: int = 3, *, seconds: float = SECONDS, **options) -> Project:
    """A new project of tables in a folder."""
    folder.mkdir(exist_ok=True)
    write_tables(folder, count, seconds=seconds)
    return studio.open_project(folder / "studio", [folder], **options)[0]


def add_features(project: Project, names, *, seconds: float = SECONDS) -> None:
    """Features as `extract` leaves them."""
    snippets = GRID.num_snippets(seconds)
    entries = {}
    for name in names:
        files.write_npy(project.features / f"{name}.npy", np.zeros((snippets, 6), np.float32))
        entries[name] = Entry(f"/there/{name}.npy", "0" * 64, 1, 1, seconds, snippets, 6)
    before = project.manifest
    known = {} if before is None else dict(before.recordings)
    write_manifest(
        project.features, Manifest("signal", "1", {}, 6, GRID, recordings=known | entries)
    )
    files.write_json(project.features / "grid.json", GRID.to_dict())


def add_run(project: Project, scores, detections, *, labels=None, threshold=0.5, **card) -> Run:
    """A finished run: `[T, C]` scores and detections by recording, and its training labels."""
    run = project.next_run()
    card = {"finished_at": "2026-01-01T00:00:00+00:00", "classes": list(CLASSES)} | card
    changed = msgspec.structs.replace(run.card, threshold=threshold, **card)
    run = dataclasses.replace(run, card=Card(**msgspec.structs.asdict(changed)))
    arrays = {}
    for name, cas in scores.items():
        length = len(cas)
        arrays[f"{name}/clock"] = np.array([50, 25, 75, length / 2], np.float64)
        arrays[f"{name}/scores"] = np.asarray(cas, np.float32)
        arrays[f"{name}/foreground"] = np.asarray(cas, np.float32).max(axis=1)
        arrays[f"{name}/video"] = np.asarray(cas, np.float32).max(axis=0)
    run.path.mkdir(parents=True)
    files.write_npz(run.path / "scores_all.npz", arrays)
    write_results(run.path / "detections_all.json", detections)
    document = {"classes": card["classes"], "database": labels or {}}
    (run.path / "train_points.json").write_text(json.dumps(document))
    project.labels_of_training.parent.mkdir(exist_ok=True)
    project.labels_of_training.write_text(json.dumps(document))
    run.write()
    return run


def found(label: str, score: float, start_s: float, end_s: float) -> dict:
    """A detection."""
    return {"label": label, "score": score, "segment": [start_s, end_s]}


def entry(*instances, background=(), done=(), seconds: float = SECONDS) -> dict:
    """The labels of a recording, as they are in a file."""
    values = {"subset": "train", "duration": seconds, "annotations": list(instances)}
    values |= {"background": list(background)} if background else {}
    return values | ({} if done is None else {"done": [list(one) for one in done]})
