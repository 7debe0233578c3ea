"""What training costs, against counts by hand."""

import dataclasses

import jax
import pytest
import toy

from tal_jax.config import check_config, hamnet_config
from tal_jax.data import timeline as timelines
from tal_jax.training import costs
from tal_jax.training.prepare import prepare_round


def _shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_shapes_are_those_of_a_data_set(toy_run):
    dataset = toy.dataset(toy_run.data)
    timeline = prepare_round(dataset, check_config(toy.config()), None).timeline
    sizes = costs.Sizes(
        recordings=12,  # six, each compensated and as it is
        snippets=256,
        dim=toy.DIM,
        classes=2,
        points=max(len(recording.points) for recording in dataset.train),
        video_classes=2,
    )
    shapes = costs.timeline_shapes(sizes)
    # Of sizes alone it is not known that some recordings are shorter, or repeated.
    rows = shapes.features.shape[0]
    assert rows == 12 * 256 > timeline.features.shape[0]
    # Nor that a class has fewer points than all together.
    assert shapes.most_points == timelines.MostPoints(sizes.points, sizes.points)
    assert timeline.most_points.of_all == sizes.points > timeline.most_points.of_class
    shapes = dataclasses.replace(shapes, most_points=timeline.most_points)
    shown = timelines.with_features(shapes, None), timelines.with_features(timeline, None)
    assert _shapes(shown[0]) == _shapes(shown[1])


@pytest.mark.slow
def test_costs_by_hand(toy_run):
    config = check_config(toy.config())
    dataset = toy.dataset(toy_run.data)
    timeline = prepare_round(dataset, config, None).timeline
    found = costs.training_costs(config, timeline, 2)
    width, outputs, prototypes, length = 16, 3, 4, config.train.length
    weights = (3 * toy.DIM + 1) * width + width * outputs + prototypes * width
    assert found.parameters == weights
    # The matrix products alone: two branches, forward and twice as much backward.
    products = 2 * 4 * length * (3 * toy.DIM * width + 2 * width * outputs + 4 * prototypes * width)
    assert 2 * products < found.flops < 30 * products
    features = timeline.features.nbytes
    assert features < found.peak_bytes < 1e8
    assert found.bytes_accessed > 3 * features * 4 / 6


@pytest.mark.slow
def test_a_method_without_a_search_has_costs(toy_run):
    config = hamnet_config("document")
    config.model.widths, config.train.length = (16,), 224
    dataset = toy.dataset(toy_run.data)
    config = check_config(config)
    timeline = prepare_round(dataset, config, None).timeline
    found = costs.training_costs(config, timeline, 2)
    assert found.parameters == (3 * toy.DIM + 1) * 16 + 17 * 3
    # Three passes through both layers, forward and twice as much backward, but none to the input.
    products = 2 * 20 * 224 * 3 * (3 * toy.DIM * 16 * 2 + 16 * 3 * 3)
    assert 0.5 * products < found.flops < 10 * products


@pytest.mark.slow
def test_costs_of_the_second_stage():
    """With as many levels as it may get; of the data's timelines, those before compensation."""
    config = toy.config()
    config.stages = ("rounds", "detector")
    config.detector.update(components=6, width=16, steps=60)
    timeline = costs.timeline_shapes(costs.Sizes(12, 256, toy.DIM, 2, 9, 2))
    found = costs.detector_costs(check_config(config), timeline, 6, 2)

    def layer(dim):
        return (3 * dim + 1) * 16 + 2 * 16

    # Two layers, one for each coarser level of 8, two in each head; classes, ends and scales.
    weights = layer(6) + layer(16) + 7 * layer(16) + 2 * 2 * layer(16) + 17 * 2 + 17 * 2 + 8
    assert found.parameters == weights
    # The products of four recordings, forward and twice as much backward; the heads run on all
    # levels.
    length = config.train.length
    products = 3 * 4 * length * 3 * (6 * 16 + 2 * 16 * 16 + 2 * 2 * 2 * 16 * 16)
    assert products < found.flops < 20 * products
    features = 12 * 256 * 6 * 4
    assert features < found.peak_bytes < 1e8


def test_default_sizes_can_be_shown():
    timeline = costs.timeline_shapes(costs.Sizes())
    assert timeline.features.shape == (200 * 750, 2048)
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(timeline))
    with pytest.raises(TypeError):
        costs.Sizes(snippet=3)
