"""Points are in their instances, follow their distribution, depend on seed and place alone."""

import dataclasses

import numpy as np
import pytest

from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.data.point_distributions import POINT_DISTRIBUTIONS, generate_points


def make(num_recordings=3, num_instances=4):
    instances = tuple(Instance("run", 2.0 * i, 2.0 * i + 1.0) for i in range(num_instances))
    recordings = {
        f"r{i}": RecordingAnnotation("train", 2.0 * num_instances, instances)
        for i in range(num_recordings)
    }
    return Annotations(("run",), recordings)


def positions(annotations):
    return np.array(
        [
            (instance.point_s - instance.start_s) / (instance.end_s - instance.start_s)
            for recording in annotations.recordings.values()
            for instance in recording.instances
        ]
    )


@pytest.mark.parametrize("distribution", POINT_DISTRIBUTIONS)
def test_points_lie_in_their_instances(distribution):
    annotations = generate_points(make(20, 20), distribution=distribution, seed=0)
    assert ((positions(annotations) >= 0) & (positions(annotations) < 1)).all()
    assert annotations.point_distribution == {"law": distribution, "seed": 0}
    # Everything but the points is as it was.
    assert generate_points(make(20, 20), distribution=distribution, seed=0) == annotations
    assert annotations.recordings.keys() == make(20, 20).recordings.keys()


def test_distributions():
    drawn = {
        distribution: positions(generate_points(make(50, 40), distribution=distribution, seed=1))
        for distribution in POINT_DISTRIBUTIONS
    }
    # 2,000 draws: four standard errors of the mean and of the deviation.
    assert drawn["uniform"].mean() == pytest.approx(0.5, abs=4 * 0.289 / 2000**0.5)
    np.testing.assert_allclose(np.histogram(drawn["uniform"], 4, (0, 1))[0], 500, atol=80)
    assert drawn["gaussian"].mean() == pytest.approx(0.48, abs=4 * 0.035 / 2000**0.5)
    assert drawn["gaussian"].std() == pytest.approx(0.035, rel=4 / 4000**0.5)
    np.testing.assert_array_equal(drawn["center"], 0.5)


def test_seeds_and_places_differ():
    first = positions(generate_points(make(), distribution="uniform", seed=0))
    second = positions(generate_points(make(), distribution="uniform", seed=1))
    assert len(set(first.tolist() + second.tolist())) == 24


def test_independent_of_other_recordings():
    annotations = make()
    backwards = dict(reversed(annotations.recordings.items()))
    del backwards["r1"]
    some = generate_points(
        dataclasses.replace(annotations, recordings=backwards), distribution="uniform", seed=0
    )
    everything = generate_points(annotations, distribution="uniform", seed=0)
    for name, recording in some.recordings.items():
        assert recording == everything.recordings[name]


def test_known_value():
    """A point that moves between versions would change every published number."""
    annotations = generate_points(make(1, 1), distribution="uniform", seed=0)
    assert annotations.recordings["r0"].instances[0].point_s == 0.9836330009884006


def test_half_open_where_rounding_reaches_the_end():
    tiny = np.nextafter(1.0, 2.0)
    recording = RecordingAnnotation("train", 2.0, (Instance("run", 1.0, float(tiny)),) * 50)
    annotations = generate_points(
        Annotations(("run",), {"r": recording}), distribution="uniform", seed=0
    )
    assert {i.point_s for i in annotations.recordings["r"].instances} == {1.0}


def test_refuses():
    with pytest.raises(
        ValueError, match="unknown distribution 'middle', expected one of uniform, gaussian"
    ):
        generate_points(make(), distribution="middle", seed=0)
    for seed in (-1, 0.5, None, True):
        with pytest.raises(ValueError, match="seed is .* expected a whole number"):
            generate_points(make(), distribution="uniform", seed=seed)
    recording = RecordingAnnotation("train", 2.0, (Instance("run", point_s=1.0),))
    with pytest.raises(ValueError, match="r: instance of 'run' has no segment"):
        generate_points(Annotations(("run",), {"r": recording}), distribution="uniform", seed=0)
