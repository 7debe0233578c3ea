r"""The time of the second stage's updates and predictions, beside the same network in PyTorch.

    python experiments/benchmarks/detector_time.py --json detector_time.json

PyTorch runs the network alone, forward and backward, with the sum of its outputs as the loss: what
an update costs there at least. Medians of runs that take turns.
"""

import argparse
import importlib.util
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
from step_time import machine, time_in_turns

from tal_jax.config import detector_config, rsmp_config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Point, Recording
from tal_jax.inference.detector import _detect
from tal_jax.methods import detector
from tal_jax.training import update

REPEATS = 4  # updates of a compiled loop
LEVELS = 5


def main() -> None:
    """Parses the sizes, times everything in turns, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("length", 1024), ("batch", 4), ("classes", 12), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default, help="%(default)s")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    config = rsmp_config()
    config.train.search_every = REPEATS
    config.detector.batch_size = options.batch
    config = detector_config(config, LEVELS)
    things = {
        "an update": training(config, options),
        "prediction of a batch": prediction(config, options),
    }
    if importlib.util.find_spec("torch") is not None:
        forward, both = torch_network(config, options)
        things |= {"PyTorch, both directions": both, "PyTorch, forward": forward}
    seconds = time_in_turns(things, options.runs, REPEATS)
    for name, value in seconds.items():
        print(f"{name:28s} {1000 * value:8.1f} ms")
    if options.json:
        figures = {"seconds": seconds, "machine": machine(), "sizes": vars(options)}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


def training(config, options):
    """Runs `REPEATS` updates on made-up recordings."""
    timeline = made_up(config, options)
    lengths = timelines.Lengths(options.length, (options.length,))
    model = detector.make_model(config, options.classes)
    run = update.make_run(model, update.compiled_config(config), lengths)
    key, settings = jax.random.key(0), update.settings_of(config)
    rows = jnp.arange(len(timeline.counts), dtype=jnp.int32)
    state = update.init_state(model, config, timeline.features.shape[1], key)

    def block():
        given = jax.tree.map(jnp.copy, state)
        jax.block_until_ready(run(given, timeline, rows, settings, key, jnp.int32(1)))

    return block


def prediction(config, options):
    """Detects in `REPEATS` batches."""
    model = detector.make_model(config, options.classes)
    features, where = inputs(config, options)
    params = model.init(jax.random.key(0), features, where=where)["params"]

    def run():
        for _ in range(REPEATS):
            found = _detect(params, features, where, model=model, most=options.length)
            jax.block_until_ready(found)

    return run


def inputs(config, options):
    """Features and mask of a batch."""
    shape = options.batch, options.length, config.model.width
    features = np.random.default_rng(0).standard_normal(shape, np.float32)
    return features, np.ones(shape[:2], bool)


def made_up(config, options) -> timelines.Timeline:
    """Noise with an instance in every 40 snippets."""
    rng, grid = np.random.default_rng(0), Grid(fps=2, stride_frames=1, window_frames=1)
    recordings = []
    for number in range(2 * options.batch):
        features = rng.standard_normal((options.length, config.model.width), np.float32)
        times = np.arange(20, options.length, 40) / 2
        points = tuple(
            Point(float(t), i % options.classes, (float(t) - 4, float(t) + 4))
            for i, t in enumerate(times)
        )
        recordings.append(Recording(f"r{number}", features, grid, options.length / 2, points))
    timeline = packing.pack_timeline(recordings, length=options.length)
    features = packing.pack_features(recordings)
    return jax.tree.map(jnp.asarray, timelines.with_features(timeline, features))


def torch_network(config, options):
    """The same layers in PyTorch: forward alone, and forward and backward."""
    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    width, dropout = config.model.width, config.model.dropout

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv1d(width, width, 3, padding=1)
            self.norm = nn.LayerNorm(width)

        def forward(self, hidden):
            hidden = self.convolution(hidden)
            return torch.relu(self.norm(hidden.mT)).mT

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Sequential(Layer(), Layer())
            self.coarser = nn.ModuleList(Layer() for _ in range(config.model.num_levels - 1))
            self.heads = nn.ModuleList(nn.Sequential(Layer(), Layer()) for _ in range(2))
            self.ends = nn.ModuleList(
                nn.Conv1d(width, outputs, 1) for outputs in (options.classes, 2)
            )
            self.dropout = nn.Dropout(dropout)

        def forward(self, features):
            levels = [self.base(self.dropout(features))]
            for layer in self.coarser:
                halved = torch.max_pool1d(levels[-1], 2)
                levels.append(halved + layer(halved))
            return [
                end(self.dropout(head(level)))
                for head, end in zip(self.heads, self.ends, strict=True)
                for level in levels
            ]

    network = Network()
    features = torch.from_numpy(inputs(config, options)[0]).mT.contiguous()

    def both():
        for _ in range(REPEATS):
            network.zero_grad()
            sum(output.sum() for output in network(features)).backward()

    def forward():
        with torch.no_grad():
            for _ in range(REPEATS):
                network(features)

    return forward, both


if __name__ == "__main__":
    main()
