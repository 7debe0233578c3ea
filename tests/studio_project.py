"""A project with two runs that are written by hand, so that every number on the page is known."""

import json

import numpy as np
import projects
from projects import CLASSES, RATE, found

from tal_jax.data import files
from tal_jax.studio.project import open_project

SECONDS, STRIDE_S = 60, 0.5
NAMES = ("walk", "yard")

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


def write_recordings(folder):
    """Writes tables of two channels at 50 Hz."""
    times_s = np.arange(SECONDS * RATE) / RATE
    for name in NAMES:
        np.save(folder / f"{name}.npy", np.stack([times_s, np.sin(times_s), times_s % 7], 1))


def write_run(project, detections, *, seconds=SECONDS, classes=CLASSES, **card):
    """Writes a run whose score curves are as high as its detections."""
    scores = {}
    for name, entries in detections.items():
        scores[name] = np.full((int(seconds / STRIDE_S), len(classes)), 0.05, np.float32)
        for one in entries:
            start, end = (int(time_s / STRIDE_S) for time_s in one["segment"])
            scores[name][start : max(end, start + 1), classes.index(one["label"])] = one["score"]
    return projects.add_run(project, scores, detections, classes=list(classes), **card)


def write_project(folder):
    """A folder of two recordings, and a project with two runs; returns the project."""
    write_recordings(folder)
    project, _ = open_project(folder / "studio", [folder / f"{name}.npy" for name in NAMES])
    database = {"walk": projects.entry({"label": "jump", "point": 11.0})}
    document = {"version": "VERSION 1.3", "classes": list(CLASSES), "database": database}
    files.write_json(project.annotations, document)
    write_run(project, EARLIER, labels=database)
    gained = {"recording": "walk", "segment": [10.0, 14.0], "score": 0.9}
    changes = {
        "jump": {"before": 1, "now": 2, "gained": [gained], "lost": [], "time_share": 0.07},
        "run": {"before": 2, "now": 2, "gained": [], "lost": [], "time_share": 0.95},
    }
    # The new points are held out from the run before, whose criterion this is.
    new = {"criterion": 0.25, "new_points": 3, "warnings": ["run fills 95 % of the time"]}
    run = write_run(project, DETECTIONS, labels=database, **new)
    files.write_json(run.path / "changes.json", {"classes": changes})
    return project


def entry_of(project, name):
    """What the file has on a recording."""
    return json.loads(project.annotations.read_text())["database"].get(name, {})
