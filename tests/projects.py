"""Projects of the studio with finished runs, written by hand, so that every number is known."""

import dataclasses
import json
from collections.abc import Sequence
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
CLASSES, NAMES = ("jump", "run"), ("rec0", "rec1", "rec2")


def write_tables(folder: Path, names: Sequence[str]) -> None:
    """Sensor tables of two channels."""
    times_s = np.arange(int(SECONDS * RATE)) / RATE
    for name in names:
        np.save(folder / f"{name}.npy", np.stack([times_s, np.sin(times_s), times_s % 7], 1))


def make(folder: Path, *, names: Sequence[str] = NAMES, **options) -> Project:
    """A new project of tables in a folder."""
    folder.mkdir(exist_ok=True)
    write_tables(folder, names)
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


def entry_of(project: Project, name: str) -> dict:
    """What the annotation file has on a recording."""
    return json.loads(project.annotations.read_text())["database"].get(name, {})


# --- a project with two runs ---

# Of each recording, best first; the threshold of the run is 0.5.
DETECTIONS = {
    "walk": [
        found("jump", 0.9, 10.0, 14.0),
        found("run", 0.8, 30.0, 36.0),
        found("run", 0.7, 36.5, 37.0),
        found("jump", 0.3, 50.0, 52.0),
    ],
    "yard": [found("jump", 0.6, 5.0, 9.0)],
}
EARLIER = {**DETECTIONS, "walk": DETECTIONS["walk"][1:]}


def add_run_of(project: Project, detections, *, seconds=SECONDS, classes=CLASSES, **card) -> Run:
    """A finished run whose score curves are as high as its detections."""
    scores = {}
    for name, entries in detections.items():
        scores[name] = np.full((int(seconds / GRID.stride_s), len(classes)), 0.05, np.float32)
        for one in entries:
            start, end = (int(time_s / GRID.stride_s) for time_s in one["segment"])
            scores[name][start : max(end, start + 1), classes.index(one["label"])] = one["score"]
    return add_run(project, scores, detections, classes=list(classes), **card)


def make_trained(folder: Path) -> Project:
    """A project of two recordings, a click, and two runs; the second one gained an event."""
    project = make(folder, names=("walk", "yard"))
    database = {"walk": entry({"label": "jump", "point": 11.0})}
    document = {"version": "VERSION 1.3", "classes": list(CLASSES), "database": database}
    files.write_json(project.annotations, document)
    add_run_of(project, EARLIER, labels=database)
    gained = {"recording": "walk", "segment": [10.0, 14.0], "score": 0.9}
    changes = {
        "jump": {"before": 1, "now": 2, "gained": [gained], "lost": [], "time_share": 0.07},
        "run": {"before": 2, "now": 2, "gained": [], "lost": [], "time_share": 0.95},
    }
    # The new points are held out from the run before, whose criterion this is.
    new = {"criterion": 0.25, "new_points": 3, "warnings": ["run fills 95 % of the time"]}
    run = add_run_of(project, DETECTIONS, labels=database, **new)
    files.write_json(run.path / "changes.json", {"classes": changes})
    return project
