"""From a folder of films to a timeline beside the film, by the commands that a person types."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from tal_jax import cli, extraction
from tal_jax.data.annotations import load_annotations

SCENES = Path(__file__).parents[1] / "experiments" / "scenes.py"
# Half a second a snippet, each seen by itself.
_CLOCK = ["--set", "fps=20", "--set", "window=10", "--set", "stride=10"]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Films at 29.97, at 25 and at varying rates; points; features; a run; predictions."""
    folder = tmp_path_factory.mktemp("story")
    runpy.run_path(str(SCENES))["write_scenes"](
        folder / "films", num_train=16, num_test=3, seconds=60
    )
    features, workdir = folder / "features", folder / "run"
    films = folder / "films"
    _run("extract", films, "--output", features, "--backbone", "motion", *_CLOCK)
    _run(
        *("points", "make", films / "truth.json", "--law", "uniform", "--seed", 0),
        *("--output", features / "annotations.json"),
    )
    _run("train", "--config", "auto:quick", "--data", features, "--workdir", workdir)
    for number in range(3):
        _run(
            *("predict", films / f"test_{number}.mp4", "--workdir", workdir),
            *("--output", folder / "found" / f"test_{number}.json"),
        )
    return folder


def _run(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def _iou(segment, other):
    overlap = min(segment[1], other[1]) - max(segment[0], other[0])
    return max(overlap, 0) / (max(segment[1], other[1]) - min(segment[0], other[0]))


@pytest.mark.slow
def test_detections_are_where_the_actions_are(story):
    """Within a snippet, for every way to keep time; counted frames would be seconds off."""
    truth = load_annotations(story / "films" / "truth.json").recordings
    errors_s, total = [], 0
    for number in range(3):
        name = f"test_{number}"
        detections = json.loads((story / "found" / f"{name}.json").read_text())["results"][name]
        of_film = []
        for instance in truth[name].instances:
            want = instance.start_s, instance.end_s
            same = [one["segment"] for one in detections if one["label"] == instance.label]
            best = max(same, key=lambda segment: _iou(segment, want), default=(0, 1e-9))
            total += 1
            if _iou(best, want) > 0.3:
                of_film.append(np.subtract(best, want))
        # Actions may be found too long or too short, but not too early or too late; a clock that
        # runs wrong shows at the end of a film more than at its start.
        shifts_s = np.mean(of_film, axis=1)
        late = shifts_s[len(shifts_s) // 2 :]
        assert abs(np.median(shifts_s)) < 0.25 and abs(np.median(late)) < 0.25
        errors_s += of_film
    assert np.median(np.abs(errors_s)) < 0.5
    assert len(errors_s) >= 0.8 * total


@pytest.mark.slow
def test_a_film_that_varies_has_other_frames_than_time(story):
    """The third film is what tells times from counted frames."""
    info = extraction.probe(story / "films" / "test_2.mp4")
    assert info.duration_s == pytest.approx(60, abs=0.3)
    assert info.num_frames / 30 < 45


@pytest.mark.slow
def test_everything_lies_beside_the_detections(story):
    names = {path.name for path in (story / "found").iterdir()}
    assert names == {
        f"test_{n}.{kind}" for n in range(3) for kind in ("json", "html", "csv", "srt")
    }
    page = (story / "found" / "test_1.html").read_text()
    assert "../films/test_1.mp4" in page
