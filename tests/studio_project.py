"""A project whose run is written by hand, so that tests of the page need no training."""

import json

import numpy as np

from tal_jax.data import files
from tal_jax.studio.project import open_project

CLASSES = ("jump", "run")
SECONDS, RATE, STRIDE_S = 60, 50, 0.5
NAMES = ("walk", "yard")

# Of each recording, best first; the threshold of the run is 0.5.
DETECTIONS = {
    "walk": [
        {"label": "jump", "score": 0.9, "segment": [10.0, 14.0]},
        {"label": "run", "score": 0.8, "segment": [30.0, 36.0]},
        {"label": "run", "score": 0.7, "segment": [36.5, 37.0]},
        {"label": "jump", "score": 0.3, "segment": [50.0, 52.0]},
    ],
    "yard": [{"label": "jump", "score": 0.6, "segment": [5.0, 9.0]}],
}
EARLIER = {**DETECTIONS, "walk": DETECTIONS["walk"][1:]}


def write_recordings(folder, names=NAMES, seconds=SECONDS):
    """Writes tables of two channels at 50 Hz."""
    times_s = np.arange(seconds * RATE) / RATE
    for name in names:
        values = np.stack([times_s, np.sin(times_s), times_s % 7], 1)
        np.save(folder / f"{name}.npy", values)


def write_run(
    project,
    number,
    detections,
    *,
    labels,
    warnings=(),
    changes=None,
    seconds=SECONDS,
    classes=CLASSES,
):
    """Writes what the studio reads of a finished training."""
    path = project.folder / "runs" / f"{number:04d}"
    path.mkdir(parents=True)
    arrays = {}
    for name, found in detections.items():
        count = int(seconds / STRIDE_S)
        scores = np.full((count, len(classes)), 0.05, np.float32)
        for one in found:
            start, end = (int(time_s / STRIDE_S) for time_s in one["segment"])
            scores[start : max(end, start + 1), classes.index(one["label"])] = one["score"]
        arrays[f"{name}/clock"] = np.array([RATE, STRIDE_S * RATE, STRIDE_S * RATE, seconds])
        arrays[f"{name}/scores"], arrays[f"{name}/foreground"] = scores, scores.max(1)
    files.write_npz(path / "scores_all.npz", arrays)
    document = {"version": "VERSION 1.3", "results": detections, "external_data": {}}
    files.write_json(path / "detections_all.json", document)
    files.write_json(path / "train_points.json", labels)
    if changes is not None:
        files.write_json(path / "changes.json", {"classes": changes})
    card = {
        "number": number,
        "started_at": "2026-01-01T10:00:00+00:00",
        "finished_at": f"2026-01-01T10:0{number}:00+00:00",
        "labels": {"points": 3 * number},
        "criterion": None if number == 1 else 0.25,
        "new_points": 0 if number == 1 else 3,
        "classes": list(classes),
        "threshold": 0.5,
        "warnings": list(warnings),
    }
    files.write_json(path / "studio.json", card)


def write_project(folder):
    """A folder of two recordings, and a project with two runs; returns the project."""
    write_recordings(folder)
    project, _ = open_project(folder / "studio", [folder / f"{name}.npy" for name in NAMES])
    point = {"label": "jump", "point": 11.0}
    entry = {"subset": "train", "duration": SECONDS, "done": [], "annotations": [point]}
    labels = {"version": "VERSION 1.3", "classes": list(CLASSES), "database": {"walk": entry}}
    files.write_json(project.annotations, labels)
    write_run(project, 1, EARLIER, labels=labels)
    gained = {"recording": "walk", "segment": [10.0, 14.0], "score": 0.9}
    changes = {
        "jump": {"before": 1, "now": 2, "gained": [gained], "lost": [], "time_share": 0.07},
        "run": {"before": 2, "now": 2, "gained": [], "lost": [], "time_share": 0.95},
    }
    warning = "run fills 95 % of the time"
    write_run(project, 2, DETECTIONS, labels=labels, warnings=[warning], changes=changes)
    return project


def entry_of(project, name):
    """What the file has on a recording."""
    return json.loads(project.annotations.read_text())["database"].get(name, {})
