"""The timeline of a round, by hand."""

import numpy as np

from tal_jax.config import rsmp_config
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation, ground_truth_of
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Recording, assemble
from tal_jax.training.prepare import prepare_round


def _dataset():
    """One recording of 20 snippets of a second, with a click at 3.5 s."""
    grid = Grid(fps=1, stride_frames=1, window_frames=1)
    recording = Recording("r", np.ones((20, 2), np.float32), grid, 20.0)
    annotation = RecordingAnnotation("train", 20.0, (Instance("run", point_s=3.5),))
    annotations = Annotations(("run",), {"r": annotation})
    return assemble(annotations, [recording], [], ground_truth_of(annotations, []))


def test_proposals_without_a_point_lengthen_only_if_asked():
    """The share of 1 and no widening: all short proposals count, as they are."""
    segments = ([3.0, 5.0], [10.0, 12.0], [13.0, 19.0])
    entries = [{"label": "run", "score": 0.5, "segment": segment} for segment in segments]
    config = rsmp_config()
    config.sampling.update(tau_s=4.0, delta=0.0, alpha=1.0)
    for own_point, places in ((True, [3, 4]), (False, [3, 4, 10, 11])):
        config.sampling.own_point = own_point
        timeline = prepare_round(_dataset(), config, {"r": entries}).timeline
        want = np.ones(20)
        want[places] = 2.0
        np.testing.assert_array_equal(timeline.weights[0, :20], want)
        assert timeline.counts[0] == want.sum()
        # The pseudo instance is the proposal around the click in either case.
        instances = np.asarray(timeline.instances)[np.asarray(timeline.instance_where)]
        np.testing.assert_array_equal(instances, [[3, 5]])
