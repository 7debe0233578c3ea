"""A job of the studio: the labels it trains on, the run it continues, and what it reports."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import projects
import pytest
from projects import entry, found

from tal_jax.data import files
from tal_jax.data.annotations import annotations_to_dict, load_annotations
from tal_jax.data.detections import write_results
from tal_jax.studio import job
from tal_jax.studio.project import count_changes, now
from tal_jax.studio.store import Store

JUMP, RUN = {"label": "jump", "point": 10.0}, {"label": "run", "point": 30.0}


@pytest.fixture
def project(tmp_path):
    project = projects.make(tmp_path / "films")
    projects.add_features(project, ["rec0", "rec1"])
    return project


def _write_labels(project, **entries):
    document = {"classes": ["fall", "jump", "run"], "database": entries}
    document["overlapping"] = [["jump", "run"], ["jump", "fall"]]
    project.annotations.write_text(json.dumps(document))


@pytest.fixture
def fits(monkeypatch):
    """Replaces the training; the numbers of the runs that were trained."""
    trained = []

    def fit(project, run):
        labels = load_annotations(project.labels_of_training)
        trained.append((run.number, len(labels.instances)))
        files.write_json(run.path / "train_points.json", annotations_to_dict(labels))
        write_results(run.path / "detections_all.json", {"rec0": [found("jump", 0.7, 9.0, 12.0)]})
        for name in ("round_0/checkpoints/100/x", "detector/checkpoints/9/x", "start/network.npz"):
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).write_bytes(b"")
        run.card.finished_at = now()
        run.write()

    monkeypatch.setattr(job, "_fit", fit)
    return trained


def test_which_labels_are_trained_on(project):
    """Of recordings with features, and of classes that occur; the others are only predicted."""
    _write_labels(project, rec0=entry(JUMP, RUN), rec2=entry(JUMP))
    labels = job.training_labels(project)
    assert labels.classes == ("jump", "run") and labels.overlapping == (("jump", "run"),)
    assert set(labels.recordings) == {"rec0", "rec1"}
    assert labels.recordings["rec1"].done_s == () and not labels.recordings["rec1"].instances
    assert labels.recordings["rec1"].duration_s == 60.0
    _write_labels(project, rec1=entry(), rec2=entry(JUMP))
    with pytest.raises(ValueError, match="no features of a recording with labels"):
        job.training_labels(project)


def test_runs_follow_each_other(project, fits):
    """Each keeps the counts of its labels, and the criterion of the run before on the new ones."""
    _write_labels(project, rec0=entry(RUN, done=[(0, 30)]))
    job.train(project)
    _write_labels(project, rec0=entry(RUN, JUMP, done=[(0, 30)], background=[5.0]))
    job.train(project)
    job.train(project)  # asked for once more, though nothing changed
    assert fits == [(1, 1), (2, 2), (3, 2)]
    first, second, third = (run.card for run in project.runs())
    assert (first.criterion, first.new_points) == (None, 0)
    assert (second.criterion, second.new_points) == (0.7, 1)
    assert (third.criterion, third.new_points) == (None, 0)
    assert second.labels == {"points": 2, "background": 1, "segments": 0, "done_share": 0.25}


def _stop(project, monkeypatch, error):
    """A training that ends in its middle."""

    def fit(project, run):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(job, "_fit", fit)
        with pytest.raises(type(error)):
            job.train(project)


def test_a_stopped_first_run_goes_on(project, fits, monkeypatch):
    """With its own labels; then those that came meanwhile are trained on."""
    _write_labels(project, rec0=entry(RUN))
    _stop(project, monkeypatch, OSError(28, "No space left on device"))
    assert project.unfinished().number == 1 and not project.finished()
    job.train(project)
    assert fits == [(1, 1)] and project.unfinished() is None
    fits.clear()
    (project.folder / "runs" / "0001" / "studio.json").unlink()
    _stop(project, monkeypatch, KeyboardInterrupt())
    _write_labels(project, rec0=entry(RUN, JUMP))
    job.train(project)
    assert fits == [(1, 1), (2, 2)]


def test_a_stopped_retraining_is_left_for_newer_labels(project, fits, monkeypatch):
    _write_labels(project, rec0=entry(RUN))
    job.train(project)
    _stop(project, monkeypatch, KeyboardInterrupt())
    job.train(project)
    assert fits == [(1, 1), (2, 1)]
    _stop(project, monkeypatch, KeyboardInterrupt())
    _write_labels(project, rec0=entry(RUN, JUMP))
    job.train(project)
    assert fits == [(1, 1), (2, 1), (4, 2)]
    assert "left, since labels changed" in project.runs()[2].card.failed


def test_a_retraining_continues_in_a_moved_project(project, fits, monkeypatch):
    """By the name of the run that it began from, which is not read again."""
    _write_labels(project, rec0=entry(RUN))
    job.train(project)
    _stop(project, monkeypatch, KeyboardInterrupt())
    run = project.unfinished()
    assert job._source(project, run) == (project.runs()[0].path, {})
    files.write_json(run.path / "start" / "start.json", {"from": "/was/here/runs/0001"})
    assert job._source(project, run) == (Path("/was/here/runs/0001"), {})


def test_networks_of_earlier_runs_are_removed(project, fits, monkeypatch):
    """Of those before the last two that ended well; all that is read of them stays."""

    def with_networks():
        return [
            run.number
            for run in project.runs()
            if all((run.path / name).exists() for name in ("round_0/checkpoints/100", network))
        ]

    network = "start/network.npz"
    _write_labels(project, rec0=entry(RUN))
    job.train(project)
    job.train(project)
    assert with_networks() == [1, 2]
    _stop(project, monkeypatch, ValueError("the loss is nan"))  # run 3, without a network
    job.train(project)
    assert with_networks() == [2, 4]
    _stop(project, monkeypatch, KeyboardInterrupt())
    assert with_networks() == [2, 4]
    job.train(project)
    assert with_networks() == [4, 5] and fits[-1] == (5, 1)
    first = project.runs()[0].path
    assert {path.name for path in first.rglob("*") if path.is_file()} == {
        *("studio.json", "train_points.json", "detections_all.json")
    }


def test_a_class_that_is_renamed_stays_the_same_class(project, fits, monkeypatch):
    """Its labels are no new ones, and a run takes it from the one before by its name of then."""
    store = Store(project.annotations)
    _write_labels(project, rec0=entry(RUN, JUMP))
    job.train(project)
    _stop(project, monkeypatch, KeyboardInterrupt())  # before it has begun
    assert job._source(project, project.unfinished())[1] == {}
    for before, after in (("jump", "leap"), ("run", "jump")):
        store.rename_class(before, after)
        project.rename_class(before, after)
    names = {"jump": "leap", "run": "jump"}
    assert [run.names for run in project.runs()] == [names, names]
    labels = job.training_labels(project)
    assert labels.classes == ("leap", "jump") and count_changes(project.trained_on, labels) == 0
    job.train(project)  # the stopped one, by the names that its labels have
    assert fits == [(1, 2), (2, 2)]
    job.train(project)
    third = project.runs()[2]
    assert third.names == {} and third.card.renames == 2 and third.card.new_points == 0
    assert job._source(project, third) == (project.runs()[1].path, names)
    trained = load_annotations(project.labels_of_training)
    assert {one.label: one.point_s for one in trained.instances} == {"leap": 10.0, "jump": 30.0}
    # Back again, as if it had never been renamed.
    for before, after in (("jump", "run"), ("leap", "jump")):
        project.rename_class(before, after)
    assert [run.names for run in project.runs()] == [{}, {}, {"leap": "jump", "jump": "run"}]


def test_a_run_that_cannot_be_trained_is_not_tried_again(project, fits, monkeypatch):
    _write_labels(project, rec0=entry(RUN))
    _stop(project, monkeypatch, ValueError("the loss is nan"))
    assert project.unfinished() is None and project.runs()[0].card.failed == (
        "ValueError: the loss is nan"
    )
    job.train(project)
    assert fits == [(2, 1)]


def test_progress_is_read_from_the_log(tmp_path, capsys):
    """Also of a log whose last line is being written, and of one that was rewound."""
    config = {"train": {"rounds": 2, "steps": 40}, "stages": ["rounds", "detector"]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"detector": {"steps": 20}}))
    log = tmp_path / "metrics.jsonl"
    lines = [
        {"round": 0, "step": 20, "loss": 2.0, "steps_per_s": 5.0},
        {"round": 0, "event": "pseudo_segments", "mean": 0.5},
        {"round": 1, "step": 40, "loss": 1.0, "steps_per_s": 4.0},
        {"round": 2, "stage": "detector", "step": 10, "loss": 0.5, "steps_per_s": 2.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    log.write_text(text[:-20])
    told = job._Log(tmp_path)

    def progress():
        told.report("a line\nand another")
        return json.loads(capsys.readouterr().out)["progress"]

    first, log_whole = progress(), log.write_text(text)
    assert log_whole == len(text)
    assert first["losses"] == [[20, 2.0], [80, 1.0]] and first["phase"] == "round 2 of 2"
    assert (first["done"], first["total"], first["left_s"]) == (80, 100, 5.0)
    second = progress()
    assert second["losses"] == [[90, 0.5]] and second["phase"] == "detector"
    assert second["line"] == "a line" and second["left_s"] == 5.0
    assert "done" not in progress()
    log.write_text(json.dumps(lines[0]) + "\n")
    assert progress()["losses"] == [[20, 2.0]]


def test_what_is_wrong_is_one_line(project, capsys, monkeypatch):
    monkeypatch.setattr(job, "_end_with_server", lambda: None)
    assert job.main(["train", str(project.folder)]) == 2
    told = json.loads(capsys.readouterr().out)
    assert "annotations.json: No such file" in told["error"] and "\n" not in told["error"]
    assert not (project.folder / "runs").exists()


def test_a_full_disk_begins_no_run(project, fits, monkeypatch):
    _write_labels(project, rec0=entry(RUN))

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="features/annotations.json: No space left on device"):
            job.train(project)
    assert not project.runs() and project.trained_on is None
    job.train(project)
    assert fits == [(1, 1)]


@pytest.mark.slow
def test_features_of_a_folder_with_faults(tmp_path, monkeypatch, capsys):
    """One recording is broken, and one vanished; the other is extracted, and a line is of each."""
    project = projects.make(tmp_path / "films")
    sources = project.sources()
    times_s = np.arange(500) / 50
    np.save(sources[0].path, np.stack([times_s, *np.sin(times_s * [[1], [2], [3]])], axis=1))
    sources[1].path.unlink()
    np.save(sources[2].path, np.zeros((3, 4)))  # times that do not increase
    monkeypatch.setattr(type(project), "sources", lambda self: sources)
    with pytest.raises(ValueError, match=r"rec[12].npy.*, and 1 more"):
        job.extract(project)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    failed = {one["recording"]: one["note"] for one in told if one.get("state") == "failed"}
    assert set(failed) == {"rec1", "rec2"} and "No such file" in failed["rec1"]
    assert {"recording": "rec0", "state": "ready"} in told
    assert project.has_features("rec0") and not project.has_features("rec1")
