"""The line of progress."""

from tal_jax.training import metrics_log


def test_what_losses_leave_out_is_printed():
    values = {"loss": 2.5, "loss_vid": 0.5, "steps_per_s": 4.0, "eta_s": 75.0}
    place = dict(round_number=1, rounds=4, step=20, steps=200)
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
