"""Recordings many times as long as what an update reads."""

import collections
import json

import numpy as np
import pytest
import toy

from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.datasets.load import load_dataset
from tal_jax.datasets.own_layout import write_folder
from tal_jax.runs.fit import fit

LENGTH, WINDOW = 10_000, 640


def _recording(rng, length, subset):
    """Noise with actions of three to six snippets, as weak as in the toy problem."""
    features = rng.normal(0, 0.3, (length, toy.DIM)).astype(np.float32)
    instances, at = [], 5
    while at + 10 < length:
        label, end = int(rng.integers(2)), at + int(rng.integers(3, 7))
        features[at:end, 4 * label : 4 * label + 4] += 1
        segment = toy.GRID.to_seconds(at), toy.GRID.to_seconds(end)
        instances.append(Instance(toy.CLASSES[label], *segment))
        at = end + int(rng.integers(20, 80))
    return features, RecordingAnnotation(subset, toy.GRID.to_seconds(length), tuple(instances))


def _config(folder):
    config = toy.config(folder)
    # One recording has to teach everything, so that nothing but its windows fills a batch.
    config.train.update(length=WINDOW, steps=60, batch_size=8, search_every=20)
    config.train.update(log_every=20, checkpoint_every=60)
    config.loss.topk_ratio = 40
    config.localization.class_threshold = 0.2
    return config


@pytest.mark.slow
def test_short_actions_of_a_long_recording_are_learnt(tmp_path):
    """Sampled at 640 of its 10,000 snippets, most of its actions would not be read at all."""
    rng, features, recordings = np.random.default_rng(0), {}, {}
    for name, length, subset in (("long", LENGTH, "train"), ("other", 2500, "test")):
        features[name], recordings[name] = _recording(rng, length, subset)
    annotations = Annotations(toy.CLASSES, recordings)
    write_folder(tmp_path / "data", features, grid=toy.GRID, annotations=annotations)
    config = _config(tmp_path / "data")
    dataset, lines = load_dataset(config), []
    with toy.compilations() as compiled:
        fit(dataset, config, workdir=tmp_path / "run", report=lines.append)
    assert any("2 timelines exceed train.length=640" in line for line in lines)
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in log]
    assert not any(
        line.get("segment_overflow", 0) + line.get("feature_overflow", 0) for line in log
    )
    counts = collections.Counter(compiled)
    assert counts["jit(run)"] <= 2  # one a length of the timeline that a round lengthens
    # Proposals cover the whole recording, and of (nearly) every action.
    proposals = json.loads((tmp_path / "run" / "round_1" / "proposals_train.json").read_text())
    found = [one for one in proposals["results"]["long"] if one["score"] > 0.5]
    instances = recordings["long"].instances
    hit = [
        any(
            one["label"] == instance.label and _iou(one["segment"], instance) >= 0.5
            for one in found
        )
        for instance in instances
    ]
    assert len(instances) > 180 and np.mean(hit) > 0.9
    assert np.mean(hit[-20:]) > 0.8 and np.mean(hit[:20]) > 0.8
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["map"][evaluation["tious"].index(0.5)] > 0.85


def _iou(segment, instance):
    shared = min(segment[1], instance.end_s) - max(segment[0], instance.start_s)
    total = segment[1] - segment[0] + instance.end_s - instance.start_s - shared
    return max(shared, 0) / total
