"""Tuning on points, where the best levels are known by construction."""

import ml_collections
import numpy as np
import pytest

from tal_jax.config import rsmp_config
from tal_jax.data.clock import Grid
from tal_jax.data.predictions import (
    Predictions,
    RecordingPredictions,
    read_predictions,
    write_predictions,
)
from tal_jax.data.recordings import Point, Recording
from tal_jax.evaluation.point_criterion import point_criterion
from tal_jax.inference import localize
from tal_jax.inference.localize import localize_predictions
from tal_jax.runs import tuning

GRID = Grid(fps=2, stride_frames=1, window_frames=1)  # half a second a snippet
CLASSES = ("high", "low")


def _recording(name, label, background, peak):
    """Three actions of one class, four snippets each, on a background of some confidence."""
    curve = np.full(40, background, np.float32)
    for start in (5, 17, 29):
        curve[start : start + 4] = peak
    scores = np.zeros((40, 2), np.float32)
    scores[:, label] = curve
    sequence = Predictions(
        scores, curve, np.eye(2, dtype=np.float32)[label], np.arange(41, dtype=np.float32)
    )
    points = tuple(Point(GRID.to_seconds(start + 2.2), label) for start in (5, 17, 29))
    recording = Recording(name, np.zeros((40, 1), np.float32), GRID, 20.0, points)
    return recording, RecordingPredictions(GRID, 20.0, sequence, sequence)


def _options(**changes):
    options = rsmp_config().localization
    options.update(changes)
    return ml_collections.FrozenConfigDict(options)


@pytest.fixture
def problem(tmp_path):
    """Only a level at .5 parts the actions of one class, only one at .2 those of the other."""
    made = [_recording("a", 0, 0.35, 0.6), _recording("b/c", 1, 0.15, 0.25)]
    recordings = [recording for recording, _ in made]
    write_predictions(tmp_path / "scores.npz", {one.name: scores for one, scores in made})
    return recordings, read_predictions(tmp_path / "scores.npz")


@pytest.mark.slow
def test_the_only_levels_that_part_the_actions_are_chosen(problem):
    recordings, scores = problem
    options = _options(thresholds=(0.0, 0.9), foreground_thresholds=(0.95,))
    tuned = tuning.tune(scores, recordings, options, CLASSES)
    assert tuned.options.thresholds == (0.2, 0.5)
    assert tuned.options.foreground_thresholds == (0.95,)  # nothing is left to gain
    changed = dict(thresholds=(0.2, 0.5), foreground_thresholds=(0.95,))
    assert tuned.options == _options(**changed)
    # Before, every run held all three points.
    assert tuned.criterion_before == 0
    proposals = localize.proposal_options(tuned.options)
    found = localize_predictions(scores, proposals, CLASSES)
    assert tuned.criterion == point_criterion(found, recordings, CLASSES) > 0.3
    first, *others = tuned.trials
    assert (first.setting, first.value, first.gain) == ("thresholds", (0.0, 0.9), 0)
    assert [trial.value for trial in tuned.trials if trial.chosen] == [(0.2, 0.5), (0.95,)]
    # Always as many levels as there were, none twice.
    values = [(trial.setting, trial.value) for trial in tuned.trials]
    assert len(set(values)) == len(values)
    assert {len(trial.value) for trial in tuned.trials} == {2, 1}
    assert all(first.criterion + trial.gain == trial.criterion for trial in others[:20])
    assert tuning.tune(scores, recordings, options, CLASSES) == tuned

    lines = tuning.format_table(tuned).splitlines()
    assert len(lines) == 1 + len(tuned.trials)
    chosen = [line for line in lines if line.endswith("chosen")]
    assert [line.split()[:4] for line in chosen] == [
        ["thresholds", "2:", "0.2", "to"],
        ["foreground_thresholds", "1:", "0.95", "to"],
    ]


@pytest.mark.parametrize(("loss", "stays"), [(-0.25, False), (0.05, True), (0.25, True)])
def test_a_gain_within_chance_changes_nothing(problem, monkeypatch, loss, stays):
    """One point gains 0.3, the other gains as well or loses; all other levels are worse."""
    recordings, scores = problem
    monkeypatch.setattr(
        tuning, "localize_predictions", lambda _, options, classes: {"a": [options]}
    )

    def point_scores(found, recordings, classes):
        (options,) = found["a"]
        if options.thresholds == (0.1, 0.7):
            return np.array([0.8, 0.5 - loss])
        return np.array([0.5, 0.5]) if options.thresholds == (0.0, 0.9) else np.zeros(2)

    monkeypatch.setattr(tuning, "point_scores", point_scores)
    options = _options(thresholds=(0.0, 0.9), foreground_thresholds=())
    tuned = tuning.tune(scores, recordings, options, CLASSES)
    assert tuned.options.thresholds == ((0.0, 0.9) if stays else (0.1, 0.7))
    best = max(tuned.trials, key=lambda trial: trial.criterion)
    assert best.value == (0.1, 0.7) and best.gain == pytest.approx((0.3 - loss) / 2)
    assert best.gain_error == pytest.approx((0.3 + loss) / 2)
    assert tuned.criterion == (0.5 if stays else best.criterion)


def test_a_single_point_changes_nothing(problem, monkeypatch):
    """However much it gains: nothing is known of its spread."""
    recordings, scores = problem
    monkeypatch.setattr(
        tuning, "localize_predictions", lambda _, options, classes: {"a": [options]}
    )

    def point_scores(found, recordings, classes):
        return np.array([0.9 if found["a"][0].thresholds == (0.1, 0.7) else 0.1])

    monkeypatch.setattr(tuning, "point_scores", point_scores)
    options = _options(thresholds=(0.0, 0.9), foreground_thresholds=())
    tuned = tuning.tune(scores, recordings, options, CLASSES)
    assert tuned.options.thresholds == (0.0, 0.9) and tuned.criterion == 0.1
    assert "± inf" in tuning.format_table(tuned)


def test_without_points_there_is_nothing_to_tune_by(problem):
    _, scores = problem
    recording = Recording("a", np.zeros((40, 1), np.float32), GRID, 20.0)
    with pytest.raises(ValueError, match="the held-out recordings have no points"):
        tuning.tune(scores, [recording], _options(), CLASSES)
