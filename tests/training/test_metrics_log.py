"""The log of measurements, and the line of progress."""

import json

from tal_jax.training import metrics_log


def test_a_round_has_one_line_of_an_event(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = metrics_log.MetricsLog(path)
    assert not log.has(0, "evaluation")
    log.put(0, "evaluation", average_map=0.5)
    log.append(round=1, step=5, loss=2.0)
    log.put(1, "evaluation", average_map=0.6)
    log.put(0, "pseudo_segments", total=3)
    with open(path, "a") as file:
        file.write('{"round": 1, "event": "eval')  # what a kill leaves
    log.put(1, "evaluation", average_map=0.75)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"round": 0, "event": "evaluation", "average_map": 0.5},
        {"round": 1, "step": 5, "loss": 2.0},
        {"round": 0, "event": "pseudo_segments", "total": 3},
        {"round": 1, "event": "evaluation", "average_map": 0.75},
    ]
    assert log.has(0, "pseudo_segments") and not log.has(1, "pseudo_segments")
    log.rewind(0, 60)  # events come after all of a round's updates
    assert path.read_text() == ""


def test_a_stage_comes_after_all_rounds(tmp_path):
    """A resumed stage forgets what it will log again; the last round's evaluation stays."""
    path = tmp_path / "metrics.jsonl"
    log = metrics_log.MetricsLog(path)
    log.append(round=1, step=60, loss=1.0)
    log.put(1, "pseudo_segments", total=3)
    log.put(1, "evaluation", average_map=0.5)
    of_rounds = path.read_text()
    for step in (5, 10, 15):
        log.append(round=2, stage="detector", step=step, loss=1.0 / step)
    log.put(2, "pseudo_segments", stage="detector", total=4)
    assert log.has(2, "pseudo_segments") and not log.has(2, "evaluation")
    log.rewind(2, 10)
    assert path.read_text() == of_rounds + (
        '{"round": 2, "stage": "detector", "step": 5, "loss": 0.2}\n'
        '{"round": 2, "stage": "detector", "step": 10, "loss": 0.1}\n'
    )
    log.put(2, "pseudo_segments", stage="detector", total=5)
    log.put(2, "pseudo_segments", stage="detector", total=6)
    assert json.loads(path.read_text().splitlines()[-1])["total"] == 6
    assert len(path.read_text().splitlines()) == 6
    log.rewind(2, 0)  # a stage that begins again
    assert path.read_text() == of_rounds


def test_what_is_not_finite_is_null(tmp_path):
    """Standard JSON has no NaN, and other readers refuse it."""
    path = tmp_path / "metrics.jsonl"
    log = metrics_log.MetricsLog(path)
    log.append(round=0, step=5, loss=2.0, loss_vid=float("nan"))
    path.write_text(path.read_text() + '{"round": 0, "event": "old", "map": [NaN]}\n')
    log.put(0, "evaluation", average_map=float("nan"), map=[0.5, float("inf")])
    assert path.read_text() == (
        '{"round": 0, "step": 5, "loss": 2.0, "loss_vid": null}\n'
        '{"round": 0, "event": "old", "map": [null]}\n'
        '{"round": 0, "event": "evaluation", "average_map": null, "map": [0.5, null]}\n'
    )


def test_what_losses_leave_out_is_printed():
    values = {"loss": 2.5, "loss_vid": 0.5, "steps_per_s": 4.0, "eta_s": 75.0}
    place = dict(title="round 1 of 3", step=20, steps=200)
    shown = {"vid": "video"}
    line = metrics_log.progress_line(values, shown, **place)
    assert (
        line == "round 1 of 3  update    20/200  loss 2.500 (video 0.500)  4.0 updates/s  1:15 left"
    )
    none = values | {"segment_overflow": 0.0, "feature_overflow": 0.0}
    assert metrics_log.progress_line(none, shown, **place) == line
    some = none | {"segment_overflow": 3.0, "feature_overflow": 12.25}
    assert metrics_log.progress_line(some, shown, **place) == (
        f"{line}; 3.0 segments an update are left out of the contrast loss; "
        "12.2 segments an update are left out of the feature contrast loss"
    )
