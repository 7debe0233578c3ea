r"""Where the time of a training update goes, by default at the size of THUMOS14.

    python experiments/benchmarks/step_time.py --json step_time.json

An update with all losses, with and without a search, is held against the matrix products of its
embedding alone (features times weights, and the gradient of the weights: the input needs none), in
three ways of writing them, of which the network takes the last one on a CPU, and against PyTorch's
forward and backward pass through the bare network, where PyTorch is installed. Everything runs
inside compiled loops, as it does in training; medians of runs that take turns. The last row is the
memory that it takes to train on a recording of 10,000 snippets.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax.config import rsmp_config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Point, Recording
from tal_jax.methods import rsmp
from tal_jax.training import update

REPEATS = 2  # updates of a compiled loop


def main() -> None:
    """Parses the sizes, times everything in turns, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("length", 750), ("batch", 16), ("dim", 2048), ("classes", 20)):
        parser.add_argument(f"--{name}", type=int, default=default, help="%(default)s")
    parser.add_argument("--width", type=int, default=2048, help="%(default)s")
    parser.add_argument("--points", type=int, default=15, help="a recording; %(default)s")
    parser.add_argument(
        "--most", type=int, default=125, help="points that lists have room for; %(default)s"
    )
    parser.add_argument("--recordings", type=int, default=48, help="at hand; %(default)s")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--runs", type=int, default=3, help="%(default)s")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    seconds = time_all(options)
    update = seconds["one update, all losses"]
    for name, value in seconds.items():
        print(f"{name:48s} {1000 * value:10.1f} ms {100 * value / update:6.1f} %")
    size = memory(options, length=10_000, batch=1)
    print(f"{'memory at batch 1 and 10,000 snippets':48s} {size / 2**30:10.2f} GiB")
    if options.json:
        figures = {"seconds": seconds, "bytes_of_10000": size, "machine": machine()}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures | {"sizes": vars(options)}, file, indent=1)


def time_all(options) -> dict[str, float]:
    """Median seconds of an update and of what it is held against."""
    things = {f"products alone, {name}": fn for name, fn in products(options).items()}
    without, within = updates(options)
    things |= {"one update, all losses": without, "one update and a search": within}
    if importlib.util.find_spec("torch") is not None:
        things["PyTorch, bare network, both directions"] = torch_network(options)
    return time_in_turns(things, options.runs, REPEATS)


def time_in_turns(things: dict, runs: int, repeats: int) -> dict[str, float]:
    """Median seconds of each function, which repeats what it does; the first run compiles."""
    times = {name: [] for name in things}
    for run in range(runs + 1):
        for name, function in things.items():
            begin = time.perf_counter()
            function()
            if run:
                times[name].append((time.perf_counter() - begin) / repeats)
    return {name: statistics.median(values) for name, values in times.items()}


def products(options) -> dict:
    """The embedding's matrix products, forward and for the weights' gradient, nothing else."""
    rng = np.random.default_rng(0)
    batch, length, dim, width = options.batch, options.length, options.dim, options.width
    dtype = jnp.dtype(options.precision)

    def noise(*shape):
        return jnp.asarray(rng.standard_normal(shape, np.float32), dtype)

    def gathered(taps, weights):
        return taps.T @ (taps @ weights)

    def shifted(padded, weights):
        kernels = weights.reshape(3, dim, width)
        views = [padded[:, tap : tap + length].reshape(-1, dim) for tap in range(3)]
        out = sum(view @ kernel for view, kernel in zip(views, kernels, strict=True))
        return jnp.concatenate([view.T @ out for view in views])

    def paired(sums, weights):
        kernels = weights.reshape(4, dim, width)
        return (sums.transpose(0, 2, 1) @ (sums @ kernels)).reshape(-1, width)

    def looped(function, features, taps=3):
        @jax.jit
        def run(features, weights):
            def body(weights, _):
                # Each product depends on the one before, so that none can be left out or moved;
                # the gradient of half the squared outputs is as good as any.
                return weights - dtype.type(1e-30) * function(features, weights), None

            return jax.lax.scan(body, weights, length=REPEATS)[0]

        weights = noise(taps * dim, width)
        return lambda: jax.block_until_ready(run(features, weights))

    return {
        "one gathered product": looped(gathered, noise(batch * length, 3 * dim)),
        "three shifted products": looped(shifted, noise(batch, length + 2, dim)),
        "four products of pairs": looped(paired, noise(4, -(-batch * length // 2), dim), taps=4),
    }


def updates(options):
    """Runs a block of updates before the first search, and one that begins with a search."""
    config, model, timeline = setting(options, options.length, options.batch)
    run = update.make_run(model, update.compiled_config(config), whole(options.length))
    rows = jnp.arange(len(timeline.counts), dtype=jnp.int32)
    settings, key = update.settings_of(config), jax.random.key(0)
    fresh = update.init_state(model, config, options.dim, key)

    def block(step):
        state = dataclasses.replace(jax.tree.map(jnp.copy, fresh), step=jnp.int32(step))
        return lambda: jax.block_until_ready(
            run(jax.tree.map(jnp.copy, state), timeline, rows, settings, key, jnp.int32(1))
        )

    return block(0), block(REPEATS)


def setting(options, length: int, batch: int):
    """A config, its network and a timeline of made-up recordings."""
    config = rsmp_config()
    config.model.widths, config.model.precision = (options.width,), options.precision
    config.train.update(batch_size=batch, length=length, search_every=REPEATS)
    model = rsmp.make_model(config, options.classes)
    return config, model, made_up(options, length, max(options.recordings, batch))


def whole(length: int) -> timelines.Lengths:
    """Recordings of so many snippets, read as a whole."""
    return timelines.Lengths(length, (length,))


def memory(options, *, length: int, batch: int) -> int:
    """Bytes of the compiled training program: parameters, optimiser, features, everything."""
    config, model, timeline = setting(
        argparse.Namespace(**(vars(options) | {"recordings": batch})), length, batch
    )
    state = update.init_state(model, config, options.dim, jax.random.key(0))
    run = update.make_run(model, update.compiled_config(config), whole(length))
    rows = jnp.arange(len(timeline.counts), dtype=jnp.int32)
    arguments = state, timeline, rows, update.settings_of(config), jax.random.key(0), jnp.int32(1)
    used = run.lower(*arguments).compile().memory_analysis()
    total = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
    return total - used.alias_size_in_bytes


def torch_network(options):
    """The bare network in PyTorch: convolution, ReLU, classifier; forward and backward."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    inputs = torch.randn(options.batch, options.dim, options.length)
    network = torch.nn.Sequential(
        torch.nn.Conv1d(options.dim, options.width, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv1d(options.width, options.classes + 1, 1, bias=False),
    )

    def run():
        for _ in range(REPEATS):
            network.zero_grad()
            network(inputs).square().mean().backward()

    return run


def made_up(options, length: int, recordings: int) -> timelines.Timeline:
    """Noise of the wanted size with evenly spread points; the time is that of any values."""
    rng = np.random.default_rng(0)
    grid = Grid(fps=25, stride_frames=16, window_frames=16)
    made = []
    for number in range(recordings):
        features = rng.standard_normal((length, options.dim), np.float32)
        times = grid.to_seconds(np.linspace(0, length, options.points + 2)[1:-1])
        labels = [number % options.classes, (number + 1) % options.classes]
        points = tuple(Point(float(t), labels[i % 2]) for i, t in enumerate(times))
        duration_s = float(grid.to_seconds(length))
        made.append(Recording(f"noise_{number}", features, grid, duration_s, points))
    # As many as one class has in 750 snippets of a recording of THUMOS14.
    most_points = timelines.MostPoints(options.most, options.most)
    timeline = packing.pack_timeline(made, length=length, most_points=most_points)
    timeline = timelines.with_features(timeline, packing.pack_features(made))
    return jax.tree.map(jnp.asarray, timeline)


def machine() -> str:
    """What the figures were measured on."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, {', '.join(kinds)}, jax {jax.__version__}"


if __name__ == "__main__":
    main()
