"""The studio's answers: labels of all kinds, runs and what they found, jobs, exports."""

import base64
import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import filming
import live_page
import numpy as np
import projects
import pytest
from projects import entry, found

from tal_jax import formats, studio
from tal_jax.data.annotations import load_annotations, parse_annotations
from tal_jax.data.identity import identify
from tal_jax.data.manifest import write_manifest
from tal_jax.inference.events import select_events
from tal_jax.report.event_tables import summarize
from tal_jax.studio import exports
from tal_jax.studio.review import new_point_criterion
from tal_jax.studio.runner import Busy, Runner

JUMP = {"label": "jump", "point": 10.0}


@pytest.fixture
def project(tmp_path):
    return projects.make(tmp_path / "films")


@contextlib.contextmanager
def _page(project, **options):
    """A page of a server that starts no job by itself."""
    server = studio.open_studio(project, classes=projects.CLASSES, **options)
    server.session.begin = lambda: None
    with live_page.serving(server):
        yield live_page.Page.of(server)


def _add_run(project, **options):
    """Scores that rise and fall, and detections; of rec0 and rec1 only."""
    generator = np.random.default_rng(0)
    scores = {name: generator.uniform(0, 1, (120, 2)) for name in ("rec0", "rec1")}
    detections = {
        "rec0": [found("jump", 0.9, 8.0, 12.0), found("run", 0.3, 20.0, 21.0)],
        "rec1": [found("run", 0.8, 30.0, 31.0), found("run", 0.6, 31.4, 33.0)],
    }
    projects.add_features(project, ["rec0", "rec1"])
    return projects.add_run(project, scores, detections, **options), scores, detections


# --- labels ---


def test_unlabelled_is_not_background(project):
    """A new recording begins with nothing done, and ends as it was saved."""
    with _page(project) as page:
        assert page.get("recording/0")["done"] == []
        assert page.get("state")["recordings"][0]["done_share"] == 0
        page.save(0, annotations=[JUMP | {"source": {"by": "me", "kind": "click"}}])
        page.save(1, background=[5.0, 2.0], done=[[0.0, 30.0]])
        page.save(2, done=None)
        rows = page.get("state")["recordings"]
    database = json.loads(project.annotations.read_text())["database"]
    assert database["rec0"]["annotations"][0]["source"] == {"by": "me", "kind": "click"}
    assert database["rec0"]["done"] == [] and "background" not in database["rec0"]
    assert database["rec1"]["background"] == [5.0, 2.0]
    assert "done" not in database["rec2"]
    assert [row["done_share"] for row in rows] == [0, 0.5, 1]
    assert [row["background"] for row in rows] == [0, 2, 0]
    assert [row["points"] for row in rows] == [1, 0, 0]


def test_parts_that_are_left_out_stay(project):
    with _page(project) as page:
        page.save(0, annotations=[JUMP], background=[5.0], done=[[0.0, 30.0]])
        page.save(0, annotations=[])
        told = page.get("recording/0")
        assert (told["background"], told["done"]) == ([5.0], [[0.0, 30.0]])
        page.save(0, background=[], done=[])
        assert "background" not in json.loads(project.annotations.read_text())["database"]["rec0"]
        status, told = page.try_post(
            "save/0",
            {
                "annotations": [],
                "classes": [],
                "revision": page.get("recording/0")["revision"],
                "done": [[5.0, 90.0]],
            },
        )
        assert status == 422 and "done stretch is [5.0, 90.0] s, expected" in told["error"]


def test_classes_are_added_and_renamed(project):
    project.annotations.write_text(
        json.dumps(
            {
                "classes": ["jump", "run"],
                "overlapping": [["jump", "run"]],
                "database": {"rec0": entry(JUMP), "elsewhere": entry(JUMP), "rec1": entry()},
            }
        )
    )
    with _page(project) as page:
        page.post("settings", {"threshold": {"jump": 0.7}})
        before = page.get("recording/1")["revision"]
        assert page.post("classes", {"add": "fall"}) == {"classes": ["jump", "run", "fall"]}
        assert page.post("classes", {"rename": ["jump", "leap"]})["classes"][0] == "leap"
        assert page.get("recording/1")["revision"] == before
        for change, message in (
            ({"rename": ["jump", "x"]}, "no class 'jump', expected one of leap, run, fall"),
            ({"rename": ["leap", "run"]}, "there is a class 'run' already"),
            ({"add": "  "}, "expected a name"),
            ({"remove": "run"}, 'expected {"add": name}'),
        ):
            status, told = page.try_post("classes", change)
            assert status == 422 and message in told["error"]
        assert page.get("state")["settings"]["threshold"] == {"leap": 0.7}
    labels = load_annotations(project.annotations)
    assert labels.overlapping == (("leap", "run"),)
    assert {one.label for one in labels.instances} == {"leap"} and len(labels.instances) == 2


def test_what_a_run_found_has_the_new_name_of_a_class(project):
    labels = {"rec0": entry(JUMP)}
    project.annotations.write_text(json.dumps({"classes": ["jump", "run"], "database": labels}))
    run, _, detections = _add_run(project, labels=labels)
    one = {"before": 1, "now": 1, "gained": [], "lost": [], "time_share": 0.1}
    (run.path / "changes.json").write_text(json.dumps({"classes": {"jump": one, "run": one}}))
    with _page(project) as page:
        before = page.get("prediction/0")
        page.post("settings", {"threshold": {"jump": 0.95}})
        page.post("classes", {"rename": ["jump", "leap"]})
        told, state = page.get("prediction/0"), page.get("state")
        assert told["labels"] == state["run"]["classes"] == ["leap", "run"]
        assert told["data"] == before["data"]
        assert [one["label"] for one in told["detections"]] == ["leap", "run"]
        assert told["detections"][0] == detections["rec0"][0] | {"label": "leap"}
        assert state["answers"] == 0  # no new answer
        assert [one["label"] for one in page.get("changes")["classes"]] == ["leap", "run"]
        assert page.get("changes")["curve"][0]["new_points"] == 0
        preview = page.post("preview", {"recording": 0, "settings": state["settings"]})
        assert preview["below"] == 2  # by the threshold of the class
        assert {one["label"] for one in page.get("queue")} <= {"leap", "run", None}
        assert {row["label"] for row in page.get("summary")} == {"leap", "run"}
        page.post("classes", {"rename": ["leap", "jump"]})
        assert page.get("prediction/0")["detections"] == before["detections"]
    assert json.loads((run.path / "studio.json").read_text())["classes"] == ["jump", "run"]


def test_two_pages(project):
    with _page(project) as page:
        revision = page.get("recording/0")["revision"]
        values = {"annotations": [JUMP], "classes": [], "revision": revision}
        page.post("save/0", values)
        status, told = page.try_post("save/0", {**values, "annotations": []})
        assert status == 409 and "changed by another page" in told["error"]


def test_a_full_disk(project, monkeypatch):
    """Nothing is lost or half-written; the next try succeeds."""
    with _page(project) as page:
        page.save(0, annotations=[JUMP])
        before = project.annotations.read_bytes(), (project.folder / "project.json").read_bytes()
        revision = page.get("recording/0")["revision"]

        def full(fd):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        values = {"annotations": [], "classes": [], "revision": revision}
        posts = [("save/0", values), ("classes", {"add": "x"}), ("settings", {"threshold": 0.1})]
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            for path, content in posts:
                status, told = page.try_post(path, content)
                assert (
                    status == 500
                    and "No space left on device; nothing was changed" in told["error"]
                )
        after = project.annotations.read_bytes(), (project.folder / "project.json").read_bytes()
        assert after == before
        for path, content in posts:
            page.post(path, content)


def test_a_project_that_was_moved_away(project):
    """Labels do not go into a new folder of the same name; they can be saved when it is back."""
    with _page(project) as page:
        page.save(0, annotations=[JUMP])
        values = {"annotations": [JUMP], "classes": []}
        values["revision"] = page.get("recording/1")["revision"]
        project.folder.rename(project.folder.with_name("elsewhere"))
        for status, told in (page.try_get("state"), page.try_post("save/1", values)):
            assert status == 422 and "project.json: No such file or directory" in told["error"]
        assert not project.folder.exists()
        project.folder.with_name("elsewhere").rename(project.folder)
        page.post("save/1", values)
    assert set(load_annotations(project.annotations).recordings) == {"rec0", "rec1"}


def test_a_recording_that_vanished(project, tmp_path):
    with _page(project) as page:
        (tmp_path / "films" / "rec1.npy").unlink()
        row = page.get("state")["recordings"][1]
        assert row["note"].endswith("rec1.npy is no longer there")
        status, told = page.try_get("recording/1")
        assert status == 422 and "rec1.npy" in told["error"] and "\n" not in told["error"]
        page.save(0, annotations=[JUMP])


def test_recordings_come_and_go_while_it_runs(project, tmp_path, monkeypatch):
    """A file is taken up when it no longer grows; what is gone stays, marked; each by an event."""
    films, server = tmp_path / "films", studio.open_studio(project, classes=projects.CLASSES)
    with server:
        session, told, started = server.session, [], []
        monkeypatch.setattr(session.broker, "publish", lambda event, data: told.append(event))
        monkeypatch.setattr(session, "start", started.append)

        def look():
            told.clear()
            session.look()
            return "state" in told, [source.name for source in session.sources]

        names = ["rec0", "rec1", "rec2"]
        assert look() == (False, names)
        content = (films / "rec0.npy").read_bytes()
        (films / "a_new.npy").write_bytes(content[:5000])  # sorts before the others
        assert look() == (False, names)
        (films / "a_new.npy").write_bytes(content)
        assert look() == (False, names) and not started
        assert look() == (True, [*names, "a_new"]) and started == ["extract"]
        assert session.recording(0)["name"] == "rec0" and session.recording(3)["name"] == "a_new"
        assert session.state()["recordings"][3]["duration"] == pytest.approx(60)
        assert look() == (False, [*names, "a_new"]) and started == ["extract"]

        session.save(1, {"annotations": [JUMP]}, session.recording(1)["revision"], [])
        (films / "rec1.npy").unlink()
        assert look() == (True, [*names, "a_new"])
        rows = session.state()["recordings"]
        assert [row["gone"] for row in rows] == [False, True, False, False]
        assert rows[1]["note"].endswith("rec1.npy is no longer there") and rows[1]["points"] == 1

        (films / "rec2.csv").write_text("time,x\n0,1\n1,2\n")
        look()
        assert look() == (True, [*names, "a_new"])
        assert "would both be the recording 'rec2'" in session.state()["error"]
        (films / "rec2.csv").unlink()
        assert look()[0] and session.state()["error"] is None
        (films / "rec1.npy").write_bytes(content)
        look()
        assert look()[0] and not any(row["gone"] for row in session.state()["recordings"])
        assert started == ["extract"] * 2  # it may be another one


def test_a_file_that_is_replaced_is_extracted_again(project, tmp_path, monkeypatch):
    path = tmp_path / "films" / "rec0.npy"
    projects.add_features(project, ["rec0", "rec1", "rec2"])
    identity, manifest = identify(path), project.manifest
    entry = dataclasses.replace(
        manifest.recordings["rec0"],
        **{"source": str(path), "sha256": identity.sha256},
        **{"bytes": identity.bytes, "modified_ns": identity.modified_ns},
    )
    entries = {**manifest.recordings, "rec0": entry}
    write_manifest(project.features, dataclasses.replace(manifest, recordings=entries))
    server, started = studio.open_studio(project, classes=projects.CLASSES), []
    with server:
        session = server.session
        monkeypatch.setattr(session, "start", started.append)

        def row():
            found = session.state()["recordings"][0]
            return found["features"], found["duration"], found["note"]

        assert row() == ("ready", 60, "") and not session._to_extract()
        assert session.recording(0)["duration"] == pytest.approx(60)
        os.utime(path, ns=(0, 0))  # with the same content
        session.look()
        session.look()
        assert row() == ("ready", 60, "") and not started
        np.save(path, np.load(path)[: 30 * projects.RATE])
        assert row()[0] == "none" and session._to_extract()  # also at the next start
        session.look()
        assert not started  # it may still grow
        session.look()
        assert started == ["extract"]
        assert row() == ("none", pytest.approx(30), "its file was replaced")
        assert session.recording(0)["duration"] == pytest.approx(30)
        assert session.state()["recordings"][1]["features"] == "ready"


def test_a_file_name_that_is_not_utf8(tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    projects.write_tables(films, ["walk"])
    odd = os.fsencode(films) + b"/caf\xe9.npy"
    try:
        with open(odd, "wb") as file:
            file.write((films / "walk.npy").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    with _page(studio.open_project(films / "studio", [films])[0]) as page:
        rows = page.get("state")["recordings"]
        assert [row["name"].isascii() for row in rows] == [False, True]
        assert rows[0]["note"] == (
            r"the file name 'caf\udce9' is not UTF-8; rename the file to label it"
        )
        values = {"revision": page.get("recording/0")["revision"], "annotations": [JUMP]}
        status, told = page.try_post("save/0", {**values, "classes": []})
        assert status == 422 and told["error"] == rows[0]["note"]
        page.save(1, annotations=[JUMP])


# --- what a run found ---


def test_without_a_run(project):
    with _page(project) as page:
        for path in ("prediction/0", "summary"):
            assert page.try_get(path) == (404, {"error": "no training has ended yet"})
        assert page.get("changes") == {
            **{"run": None, "before": None},
            **{"classes": [], "warnings": [], "curve": []},
        }
        state = page.get("state")
        assert [one["name"] for one in state["formats"]] == list(exports.FORMATS)
        assert state["can_train"] == "nothing is clicked yet; click at least one action"
        assert page.try_post("train", {}) == (422, {"error": state["can_train"]})
        page.save(0, annotations=[JUMP])
        state = page.get("state")
        assert state["can_train"] == "no features yet of a recording with clicks"
        assert "nothing is labelled as background" in state["advice"]
        projects.add_features(project, ["rec0"])
        state = page.get("state")
        assert state["can_train"] is None and state["recordings"][0]["features"] == "ready"


def test_predictions(project):
    """Curves are the scores to a 255th; detections are those of the run."""
    run, scores, detections = _add_run(project)
    with _page(project) as page:
        told = page.get("prediction/0")
        assert page.get("state")["run"]["number"] == told["run"] == run.number
        curves = np.frombuffer(base64.b64decode(told["data"]), np.uint8).reshape(3, -1) / 255
        assert told["classes"] == [0, 1, -1] and told["labels"] == ["jump", "run"]
        np.testing.assert_allclose(curves[:2].T, scores["rec0"], atol=0.5 / 255 + 1e-6)
        np.testing.assert_allclose(curves[2], scores["rec0"].max(axis=1), atol=0.5 / 255 + 1e-6)
        assert (told["start"], told["stride"]) == (0.25, 0.5)
        assert told["detections"] == detections["rec0"] and told["left_out"] == 0
        assert told["threshold"] == 0.5
        assert told["revision"] == page.get("recording/0")["revision"]
        status, told = page.try_get("prediction/2")
        assert status == 422 and "run 1 had no features of rec2" in told["error"]


def test_many_detections_are_bounded(project):
    many = [found("run", 1 - i / 4000, i * 0.01, i * 0.01 + 1) for i in range(2500)]
    projects.add_features(project, ["rec0"])
    projects.add_run(project, {"rec0": np.zeros((120, 2))}, {"rec0": many})
    with _page(project) as page:
        told = page.get("prediction/0")
    assert told["detections"] == many[:2000] and told["left_out"] == 500


def test_settings_make_events(project):
    """Previewed, then applied; as `select_events` does it."""
    _, _, detections = _add_run(project)
    settings = {"threshold": {"run": 0.55}, "merge_gap_s": 0.5, "min_duration_s": {"run": 2.0}}
    with _page(project) as page:
        told = page.post("preview", {"recording": 1, "settings": settings})
        steps = settings | {"threshold": {"jump": 0.5, "run": 0.55}}
        expected = select_events(detections["rec1"], **steps)
        assert told["events"] == expected.entries == [found("run", 0.8, 30.0, 33.0)]
        assert (told["below"], told["merged"], told["short"]) == (0, 1, 0)
        assert page.get("state")["settings"]["merge_gap_s"] is None
        assert page.post("preview", {"recording": 1, "settings": {}})["merged"] == 0
        page.post("settings", settings)
        rows = page.get("summary")
        assert page.get("state")["settings"] == settings
        assert page.try_post("settings", {"threshold": "high"})[0] == 422
        page.post("settings", {"auto": 7})
        state = page.get("state")
        assert state["auto"] == 7 and state["settings"] == settings
        assert page.try_post("settings", {"auto": 0})[0] == 422
    events = {name: select_events(those, **steps).entries for name, those in detections.items()}
    summary = summarize(events, projects.CLASSES, {"rec0": 60.0, "rec1": 60.0})
    assert [row["count"] for row in rows] == [one.count for one in summary] == [1, 0, 0, 1]
    assert [row["total_s"] for row in rows] == [one.total_s for one in summary]


def test_the_criterion_of_new_points():
    """By hand: of three new points one is found alone, one with another point, one not at all."""
    old, new = {"label": "jump", "point": 1.0}, [10.0, 20.0, 40.0]
    instances = [old, *({"label": "jump", "point": time_s} for time_s in new)]
    before = parse_annotations({"database": {"a": entry(old)}})
    now = parse_annotations({"database": {"a": entry(*instances, background=[21.0])}})
    detections = {
        "a": [
            found("jump", 0.8, 9.0, 11.0),
            found("jump", 0.9, 19.0, 22.0),  # holds a background point
            found("run", 0.7, 39.0, 41.0),
        ]
    }
    assert new_point_criterion(before, now, detections) == (pytest.approx(0.8 / 3), 3)
    assert new_point_criterion(now, now, detections) == (None, 0)
    assert new_point_criterion(before, now, {}) == (None, 0)


def test_changes_and_the_curve(project):
    labels = {"rec0": entry(JUMP)}
    run, *_ = _add_run(project, labels=labels)
    run.card.labels = {"points": 1}
    run.write()
    with _page(project) as page:
        told = page.get("changes")
        assert (told["run"], told["before"], told["classes"]) == (1, None, [])
        assert told["curve"] == [{"run": 1, "clicks": 1, "criterion": None, "new_points": 0}]
        page.save(1, annotations=[{"label": "run", "point": 30.5}])
        told = page.get("changes")
        assert told["curve"] == [{"run": 1, "clicks": 1, "criterion": 0.8, "new_points": 1}]
        # The run's point is not in the file, so that this one counts as that one moved.
        assert page.get("state")["answers"] == 1
        second, _, detections = _add_run(project, criterion=0.8, new_points=1, warnings=["odd"])
        gained = [{"recording": "rec1", "segment": [30.0, 31.0], "score": 0.8}]
        one = {"before": 1, "now": 3, "gained": gained, "lost": [], "time_share": 0.1}
        content = {"classes": {"run": one}, "warnings": ["odd"]}
        (second.path / "changes.json").write_text(json.dumps(content))
        told = page.get("changes")
    (change,) = told["classes"]
    assert (told["run"], told["before"], told["warnings"]) == (2, 1, ["odd"])
    assert change["kept"] == 2 and change["events"] == 3 and change["time_share"] == 0.1
    assert change["gained"] == [gained[0] | {"index": 1}]
    assert [one["criterion"] for one in told["curve"]] == [0.8, 0.8]


def test_the_queue(project):
    """First a spread sample of recordings that were read; then what is unsure comes, too."""
    server = studio.open_studio(project, classes=projects.CLASSES)
    with server:
        session = server.session
        session._survey()
        spread = session.queue(6)
        assert [one["reason"] for one in spread] == ["spread"] * 6
        assert {one["recording"] for one in spread} == {0, 1, 2}
        assert {one["time"] for one in spread[:3]} == {30.0}
    _add_run(project)
    with _page(project) as page:
        page.save(0, annotations=[{"label": "jump", "segment": [8.0, 12.0]}], done=[[40, 60]])
        places = page.get("queue?count=20")
        assert {"unconfirmed", "complete"} <= {one["reason"] for one in places}
        confirm = [one for one in places if one["reason"] == "unconfirmed"]
        # One of two that are near each other, and then the one below the threshold.
        first, second = ((one["recording"], *one["segment"]) for one in confirm)
        assert first in {(1, 30.0, 31.0), (1, 31.4, 33.0)} and second == (0, 20.0, 21.0)
        for one in places:
            if one["recording"] == 0:
                assert not 8 <= one["time"] < 12 and one["time"] < 40
        assert len(page.get("queue?count=3")) == 3
        assert page.try_get("queue?count=x")[0] == 400


# --- what goes out ---


def test_exports_can_be_read_back(project):
    _, _, detections = _add_run(project)
    with _page(project) as page:
        told = page.post("export", {"formats": list(exports.FORMATS), "clips": False})
        again = page.post("export", {"formats": ["csv"], "clips": False})
        assert page.try_post("export", {"formats": ["docx"], "clips": False})[0] == 422
        assert page.try_post("export", {"formats": [], "clips": False})[0] == 422
    assert again["folder"] != told["folder"]
    folder = Path(told["folder"])
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert {Path(name).relative_to("exports").parts[0] for name in told["files"]} == {folder.name}
    assert {"srt/rec0.srt", "events.summary.csv", "elan/rec1.eaf"} <= written
    names = ["events.json", "labels.csv", "events.csv", "via.json"]
    names += ["events.boris", "elan/rec1.eaf", "audacity/rec1.txt", "webvtt/rec1.vtt"]
    names += [next(name for name in written if name.startswith("raven/rec1"))]
    for name in names:
        labels = formats.read_labels(folder / name)
        segments = sorted(one.segment for one in labels.recordings["rec1"].instances)
        np.testing.assert_allclose(segments, [[30, 31], [31.4, 33]], atol=2e-3, err_msg=name)
        assert {one.label for one in labels.recordings["rec1"].instances} == {"run"}
    rows = (folder / "events.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(one["score"] >= 0.5 for row in detections.values() for one in row)
    # Read by Label Studio as predictions.
    tasks = json.loads((folder / "label-studio.json").read_text())
    assert sorted(len(task["predictions"][0]["result"]) for task in tasks) == [1, 2]


def test_labels_are_exported_before_a_run(project):
    with _page(project) as page:
        page.save(0, annotations=[JUMP, {"label": "run", "segment": [20.0, 22.0]}])
        told = page.post("export", {"formats": ["csv"], "clips": False})
    assert "no training has ended yet: these are the labels" in told["notes"]
    labels = formats.read_labels(Path(told["folder"]) / "labels.csv")
    assert {one.label for one in labels.instances} == {"jump", "run"}


def test_exported_points(project):
    with _page(project) as page:
        page.save(0, annotations=[JUMP | {"point": 0.0}, {"label": "run", "segment": [20.0, 22.0]}])
        told = page.post("export", {"formats": ["events", "srt"], "clips": False})
    assert "srt: points have no duration and are left out: 1" in told["notes"]
    rows = (Path(told["folder"]) / "events.csv").read_text()
    assert "rec0,jump,0.0" in rows and "rec0,run,20.0" in rows


def test_answers_that_are_not_in_the_events(project):
    _add_run(project)
    with _page(project) as page:
        ask = {"formats": ["csv"], "clips": False}
        assert not any("answers" in note for note in page.post("export", ask)["notes"])
        page.save(0, annotations=[JUMP], background=[20.5])
        notes = page.post("export", ask)["notes"]
    assert "answers since the last training that are not in these events: 2; train again" in notes


def test_exports_of_recordings_in_several_folders(tmp_path):
    for name in ("mon", "tue"):
        (tmp_path / name).mkdir()
        projects.write_tables(tmp_path / name, [name])
    places = [tmp_path / "mon", tmp_path / "tue"]
    with _page(studio.open_project(tmp_path / "project", places)[0]) as page:
        page.save(0, annotations=[JUMP])
        notes = page.post("export", {"formats": ["elan", "csv"], "clips": False})["notes"]
    assert "elan: without the files of the recordings, which are in several folders" in notes
    assert not any(note.startswith("csv: without") for note in notes)


def test_clips_of_events(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    folder = tmp_path / "films"
    folder.mkdir()
    filming.film(folder / "rec0.mp4", range(100))
    project, _ = studio.open_project(folder / "studio", [folder], backbone="motion")
    projects.add_features(project, ["rec0"], seconds=4.0)
    manifest = json.loads((project.features / "manifest.json").read_text())
    manifest["backbone"]["name"] = "motion"
    (project.features / "manifest.json").write_text(json.dumps(manifest))
    detections = {"rec0": [found("jump", 0.9, 1.0, 2.0)]}
    projects.add_run(project, {"rec0": np.zeros((8, 2))}, detections)
    with _page(project) as page:
        told = page.post("export", {"formats": [], "clips": True})
    clips = [name for name in told["files"] if name.endswith(".mp4")]
    assert len(clips) == 1 and "/clips/jump/rec0_" in clips[0]
    assert (project.folder / clips[0]).stat().st_size > 0


# --- jobs and events ---


class _Heard:
    """What a runner reports."""

    def __init__(self, folder):
        self.jobs, self.messages, self.outcomes = [], [], []
        self.runner = Runner(
            folder,
            changed=self.jobs.append,
            heard=self.messages.append,
            ended=self.outcomes.append,
        )

    def run(self, program):
        self.runner.start("train", [sys.executable, "-u", "-c", program])
        return self

    def wait(self):
        until = time.monotonic() + 30
        while not self.outcomes:
            assert time.monotonic() < until
            time.sleep(0.01)
        return self.outcomes[-1]


def test_progress_of_a_job(tmp_path):
    lines = [
        {"progress": {"phase": "round 1", "done": i, "losses": [[i, 1.0]]}} for i in range(999)
    ]
    program = f"import json\nfor one in {lines!r}: print(json.dumps(one))\nprint('a line')\n"
    heard = _Heard(tmp_path).run(program + "print(json.dumps({'run': 3}))")
    outcome = heard.wait()
    assert (outcome.kind, outcome.stopped, outcome.error) == ("train", False, None)
    last = heard.jobs[-1]
    assert last["done"] == 998 and last["phase"] == "round 1" and last["line"] == "a line"
    steps = [step for step, _ in last["losses"]]
    # Thinned, in order, from the beginning to the end.
    assert len(steps) <= 400 and steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 998)
    assert heard.messages == [{"run": 3}] and heard.runner.job is None


def test_a_job_that_fails_and_one_that_is_stopped(tmp_path):
    heard = _Heard(tmp_path).run("print('Traceback ...'); raise SystemExit('KeyError: x')")
    assert heard.wait().error == "KeyError: x"
    heard = _Heard(tmp_path).run("import time\nprint('begun')\ntime.sleep(60)")
    with pytest.raises(Busy, match="a training is at work; wait for its end, or stop it"):
        heard.runner.start("extract")
    assert heard.runner.stop(wait=True)
    outcome = heard.wait()
    assert outcome.stopped and outcome.error is None
    assert not heard.runner.stop()
    heard = _Heard(tmp_path).run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert heard.wait().error == f"the process ended with {-signal.SIGKILL}"


def _events(server, *, until, seconds=20):
    """The server-sent events of a page, until one of a kind has come."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=seconds) as stream:
        host = f"Host: 127.0.0.1:{server.server_port}"
        stream.sendall(f"GET /{server.token}/events HTTP/1.1\r\n{host}\r\n\r\n".encode())
        content = b""
        while f"event: {until}\n".encode() not in content:
            received = stream.recv(1 << 16)
            assert received, content
            content += received
            yield content.decode()


def test_events_reach_every_page(project):
    server = studio.open_studio(project, classes=projects.CLASSES)
    server.session.begin = lambda: None
    with live_page.serving(server):
        page, streams = live_page.Page.of(server), []
        for _ in range(2):
            streams.append(_events(server, until="saved"))
            while ": open" not in (begun := next(streams[-1])):
                pass
            assert "text/event-stream" in begun
        revision = page.save(1, annotations=[JUMP])["revision"]
        for stream in streams:
            *_, content = stream
            assert json.dumps({"recording": 1, "revision": revision}) in content


def test_training_starts_by_itself(project, monkeypatch):
    project.write(auto=3)
    projects.add_features(project, ["rec0"])
    server = studio.open_studio(project, classes=projects.CLASSES)
    with server:
        session, started = server.session, []
        monkeypatch.setattr(session, "start", started.append)
        revision = session.recording(0)["revision"]
        labels = {"annotations": [JUMP], "background": [3.0]}
        # Answers in a recording without features do not count.
        points = [{"label": "run", "point": float(second)} for second in range(1, 9)]
        session.save(1, {"annotations": points}, session.recording(1)["revision"], [])
        revision = session.save(0, labels, revision, [])
        assert not started
        session.save(0, {**labels, "done": [[0.0, 2.0]]}, revision, [])
        assert started == ["train"]
