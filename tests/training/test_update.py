"""A block of training against the same block written as plain loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from tal_jax import methods
from tal_jax.config import check_config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.training import update
from tal_jax.training.prepare import prepare_round


@pytest.fixture(scope="module", params=[240, 96])
def given(tmp_path_factory, request):
    """All that a block takes, after five updates, when there is something to search with.

    Updates read whole recordings, or windows of less than half of each.
    """
    dataset = toy.dataset(toy.write(tmp_path_factory.mktemp("toy") / "data"))
    config = toy.config()
    config.train.length = request.param
    config = check_config(config)
    packed = prepare_round(dataset, config, None)
    model = methods.method_of(config).make_model(config, 2)
    run = update.make_run(model, update.compiled_config(config), packed.lengths)
    assert packed.lengths.windowed == (request.param == 96)
    rows = jnp.asarray(packing.rows_to_draw(packed.timeline, packed.lengths))
    run = functools.partial(_run_on, run, rows)
    key, settings = jax.random.key(3), update.settings_of(config)
    state = update.init_state(model, config, toy.DIM, jax.random.key(4))
    state, _ = run(state, packed.timeline, settings, key, jnp.int32(1))
    return config, model, run, state, packed, settings, key


def _run_on(run, rows, state, timeline, *rest):
    return run(state, timeline, rows, *rest)


def _copy(state):
    return jax.tree.map(jnp.copy, state)  # a run takes its state's memory


def _plain_block(config, model, state, packed, settings, key):
    """Searches all recordings, one batch of them all, then makes the updates one by one."""
    method, compiled = methods.method_of(config), update.compiled_config(config)
    timeline, lengths = packed.timeline, packed.lengths

    @jax.jit
    def read(rows):
        return timelines.resample_batch(timelines.take(timeline, rows), lengths.whole[-1])

    @jax.jit
    def read_windows(rows, key):
        keys = jax.random.split(jax.random.fold_in(key, 1), len(rows))
        first = timelines.draw_windows(timeline.counts[rows], lengths.window, keys)
        own = timelines.take(timeline, rows)
        return timelines.resample_batch(own, lengths.window, first=first), first

    def see(pseudo, first):
        """The pseudo labels of a window, recording by recording."""
        ends = first + lengths.window
        spans = list(zip(first.tolist(), ends.tolist(), strict=True))
        cut = {
            name: jnp.stack([values[row][..., begin:end] for row, (begin, end) in enumerate(spans)])
            for name, values in (
                ("background", pseudo.background),
                ("sequences", pseudo.sequences),
                ("contrasts", pseudo.contrasts),
            )
        }
        best = jnp.stack(
            [pseudo.best[row][:, begin:end] - begin for row, (begin, end) in enumerate(spans)]
        )
        return dataclasses.replace(pseudo, best=best, **cut)

    @jax.jit
    def gradient(params, batch, pseudo, key):
        def loss(params):
            return method.loss(model, compiled, params, batch, pseudo, settings, key)["loss"]

        return jax.value_and_grad(loss)(params)

    everything = read(jnp.arange(len(timeline.counts)))
    found = jax.jit(lambda p, b: method.search(model, compiled, p, b))(state.params, everything)
    params, opt_state, losses = state.params, state.opt_state, []
    optimizer = optax.chain(
        optax.add_decayed_weights(config.train.l2), optax.adam(config.train.learning_rate)
    )
    for step in range(int(state.step), int(state.step) + config.train.search_every):
        choose_key, sample_key, dropout_key = jax.random.split(jax.random.fold_in(key, step), 3)
        drawn = packing.rows_to_draw(timeline, lengths)
        rows = drawn[np.asarray(jax.random.permutation(choose_key, len(drawn)))]
        rows = jnp.asarray(rows[: config.train.batch_size])
        pseudo = jax.tree.map(lambda values, rows=rows: values[rows], found)
        batch = read(rows)
        if lengths.windowed:
            batch, first = read_windows(rows, sample_key)
            pseudo = see(pseudo, first)
        value, gradients = gradient(params, batch, pseudo, dropout_key)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    return params, np.mean(losses)


@pytest.mark.slow
def test_a_block_is_a_search_of_everything_and_its_updates(given):
    config, model, run, state, packed, settings, key = given
    params, loss = _plain_block(config, model, state, packed, settings, key)
    got, metrics = run(_copy(state), packed.timeline, settings, key, jnp.int32(1))
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)
    assert int(got.step) == int(state.step) + config.train.search_every
    for ours, theirs in zip(jax.tree.leaves(got.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_blocks_follow_each_other(given):
    """Two in one dispatch are two dispatches of one; metrics are means over all updates."""
    _, _, run, state, packed, settings, key = given
    first, metrics_a = run(_copy(state), packed.timeline, settings, key, jnp.int32(1))
    second, metrics_b = run(first, packed.timeline, settings, key, jnp.int32(1))
    both, metrics = run(_copy(state), packed.timeline, settings, key, jnp.int32(2))
    jax.tree.map(np.testing.assert_array_equal, both, second)
    for name, value in metrics.items():
        mean = (metrics_a[name] + metrics_b[name]) / 2
        np.testing.assert_allclose(value, mean, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_nothing_crosses_to_the_host_in_a_block(given):
    _, _, run, state, packed, settings, key = given
    state, num_blocks = _copy(state), jnp.int32(3)
    with jax.transfer_guard("disallow"):
        state, metrics = run(state, packed.timeline, settings, key, num_blocks)
        jax.block_until_ready((state, metrics))


def test_rows_are_drawn_without_replacement():
    config = update.compiled_config(check_config(toy.config()))
    rows = update.choose_rows(jax.random.key(0), jnp.int32(0), jnp.arange(9), config)
    assert rows.shape == (config.train.search_every, config.train.batch_size)
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    assert rows.min() >= 0 and rows.max() < 9 and len(np.unique(rows)) > config.train.batch_size
    later = update.choose_rows(jax.random.key(0), jnp.int32(3), jnp.arange(9), config)
    np.testing.assert_array_equal(later[0], rows[3])


def test_settings_are_traced_and_shapes_are_not():
    config = toy.config()
    before = update.compiled_config(check_config(config))
    config.train.update(learning_rate=0.5, l2=0.1, steps=120)
    config.loss.lambda_vid, config.localization.delta, config.seed = 3.0, 0.1, 7
    assert update.compiled_config(check_config(config)) == before
    assert float(update.settings_of(config)["learning_rate"]) == 0.5
    config.train.batch_size = 3
    assert update.compiled_config(check_config(config)) != before


# ---- the schedule of the learning rate


def test_learning_rate_falls_in_a_half_cosine():
    """At the first, the middle and the last update, as optax has it: by what Adam moves."""
    config = toy.config()
    config.train.update(schedule="cosine", steps=20, l2=0.0, learning_rate=0.25)
    settings = update.settings_of(check_config(config))
    want_rate = optax.cosine_decay_schedule(0.25, 20)
    optimizer = update.make_optimizer(settings)
    params = {"x": jnp.zeros(())}
    state = optimizer.init(params)
    step = jax.jit(lambda state: optimizer.update({"x": jnp.ones(())}, state, params))
    for number in range(25):
        moved, state = step(state)
        # Adam moves by the learning rate where all gradients are the same.
        np.testing.assert_allclose(moved["x"], -want_rate(number), rtol=1e-4, atol=1e-7)
    rates = [want_rate(number) for number in (0, 10, 20)]
    np.testing.assert_allclose(rates, [0.25, 0.125, 0], rtol=1e-6, atol=1e-9)


def test_constant_learning_rate():
    settings = update.settings_of(check_config(toy.config()))
    assert "steps" not in settings
    optimizer = update.make_optimizer(settings)
    state = optimizer.init({"x": jnp.zeros(())})
    for _ in range(3):
        moved, state = optimizer.update({"x": jnp.ones(())}, state, {"x": jnp.zeros(())})
        np.testing.assert_allclose(moved["x"], -toy.config().train.learning_rate, rtol=1e-4)


@pytest.mark.slow
def test_the_search_and_the_loss_are_traced_once(given, monkeypatch):
    """Tracing takes seconds in every process, whatever the cache of compiled programs holds."""
    config, model, _, state, packed, settings, key = given
    traced = []
    method = methods.method_of(config)

    def counted(name):
        function = getattr(method, name)

        def count(*given):
            traced.append(name)
            return function(*given)

        return count

    counting = dataclasses.replace(method, search=counted("search"), loss=counted("loss"))
    monkeypatch.setattr(methods, "trainable_of", lambda config: counting)
    run = update.make_run.__wrapped__(model, update.compiled_config(config), packed.lengths)
    rows = jnp.asarray(packing.rows_to_draw(packed.timeline, packed.lengths))
    run.lower(state, packed.timeline, rows, settings, key, jnp.int32(1))
    lengths = len(packed.lengths.whole)
    assert sorted(traced) == ["loss", *["search"] * lengths]
