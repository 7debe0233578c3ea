r"""Where the time of a training update goes, by default at the size of THUMOS14.

    python experiments/benchmarks/step_time.py --json step_time.json

Every part is compiled and timed on its own inside a compiled loop, as it runs in training; the
median of several runs is printed, with each part's share of the whole update.
"""

import argparse
import functools
import json
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from tal_jax.config import rsmp_config
from tal_jax.data import batches
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Point, Recording
from tal_jax.training import rsmp, steps
from tal_jax.training import timeline as timelines


def main() -> None:
    """Parses the sizes, times the parts, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("length", 750), ("batch", 16), ("dim", 2048), ("classes", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--points", type=int, default=15, help="points a recording")
    parser.add_argument("--recordings", type=int, default=200, help="that a search covers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    seconds = time_parts(options)
    update = seconds["one update, with its share of a search"]
    for name, value in seconds.items():
        print(f"{name:45s} {1000 * value:10.1f} ms {100 * value / update:6.1f} %")
    if options.json:
        figures = {"seconds": seconds, "sizes": vars(options), "machine": machine()}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


def time_parts(options) -> dict[str, float]:
    """Median seconds of each part of an update."""
    config = rsmp_config()
    config.model.widths = (options.width,)
    config.train.batch_size, config.train.length = options.batch, options.length
    fixed = steps.compiled_config(config)
    model = rsmp.make_model(config, options.classes)
    timeline = made_up(options)
    key = jax.random.key(0)
    state = steps.init_state(model, config, timeline, options.length, key)
    weights = steps.loss_weights(config)
    batch = jax.jit(functools.partial(timelines.resample_batch, num_samples=options.length))(
        timeline
    )

    def apply(model, params, features):
        return model.apply(
            {"params": params},
            features,
            where=batch.where,
            deterministic=False,
            rngs={"dropout": key},
        )

    def network(model):
        def gradient(params):
            return jax.grad(lambda p: (apply(model, p, batch.features).logits ** 2).sum())(params)

        return gradient

    pseudo = rsmp.search(model, fixed, state.params, timeline, options.length)
    branches = jax.jit(functools.partial(apply, model))(state.params, batch.features)

    def losses(branches):
        def total(branches):
            parts = rsmp.batch_losses(branches, batch, pseudo, fixed)
            return rsmp.total_loss(parts, weights)["loss"]

        return jax.grad(total)(branches)

    def search(scores):
        return jax.vmap(functools.partial(rsmp.search_recording, config=fixed))(*scores, batch)

    def adam(params):
        return steps.make_optimizer(config).update(params, state.opt_state, params)

    config_plain = rsmp_config()
    config_plain.model.widths, config_plain.model.num_prototypes = (options.width,), 0
    plain = rsmp.make_model(config_plain, options.classes)
    bare = {name: value for name, value in state.params.items() if name != "prototypes"}
    scores = rsmp.fuse(branches.logits[0])
    timed = functools.partial(median_seconds, runs=options.runs)
    seconds = {
        "① resampling of a batch": timed(
            lambda t: timelines.resample_batch(t, options.length).features, timeline
        ),
        "embedding and classifier, both directions": timed(network(plain), bare),
        "② reassignment, both directions": timed(network(model), state.params),
        "losses, both directions": timed(losses, branches),
        "③ search": timed(search, scores),
        "③ network's scores for the search": timed(
            lambda p: rsmp.read_scores(model, fixed, p, batch), state.params
        ),
        "Adam": timed(adam, state.params),
    }
    seconds["② reassignment, both directions"] -= seconds[
        "embedding and classifier, both directions"
    ]
    # Timed on a batch; a search covers all recordings, once in `search_every` updates.
    one_batch = sum(seconds[name] for name in seconds if name.startswith("③"))
    for name in seconds:
        if name.startswith("③"):
            seconds[name] *= options.recordings / options.batch / config.train.search_every
    block = steps.make_block(model, fixed, options.length)
    state, _ = block(state, timeline, weights, key)
    times = []
    for _ in range(options.runs):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(block(state, timeline, weights, key))
        times.append((time.perf_counter() - begin) / config.train.search_every)
    # The block's own search covers a batch as well.
    beyond = (options.recordings / options.batch - 1) * one_batch / config.train.search_every
    return seconds | {"one update, with its share of a search": float(np.median(times)) + beyond}


def median_seconds(function, argument, *, runs: int, repeats: int = 2) -> float:
    """Median time of one call inside a compiled loop, which keeps dispatch out of it."""

    @jax.jit
    def loop(argument):
        def body(carry, _):
            # Each call depends on the one before, so none can be left out or moved.
            shifted = jax.tree.map(
                lambda x: x + carry.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
                argument,
            )
            result = function(shifted)
            total = sum(leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(result))
            return 1e-30 * total, None

        return jax.lax.scan(body, jnp.zeros(()), length=repeats)[0]

    jax.block_until_ready(loop(argument))
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        jax.block_until_ready(loop(argument))
        times.append((time.perf_counter() - begin) / repeats)
    return float(np.median(times))


def made_up(options) -> timelines.Timeline:
    """Noise of the wanted size with evenly spread points; the time is that of any values."""
    rng = np.random.default_rng(0)
    grid = Grid(fps=25, stride_frames=16, window_frames=16)
    recordings = []
    for number in range(options.batch):
        features = rng.normal(size=(options.length, options.dim)).astype(np.float32)
        times = grid.to_seconds(np.linspace(0, options.length, options.points + 2)[1:-1])
        labels = [number % options.classes, (number + 1) % options.classes]
        points = tuple(Point(float(t), labels[i % 2]) for i, t in enumerate(times))
        duration_s = float(grid.to_seconds(options.length))
        recordings.append(Recording(f"noise_{number}", features, grid, duration_s, points))
    packed = jax.tree.map(jnp.asarray, batches.pack(recordings, length=options.length))
    return timelines.identity_timeline(packed, jnp.zeros((options.classes,) * 2, bool))


def machine() -> str:
    """What the figures were measured on."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{platform.machine()}, {', '.join(kinds)}, jax {jax.__version__}"


if __name__ == "__main__":
    main()
