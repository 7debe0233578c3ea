"""Tests that streaming changes where features lie, and nothing that training makes of them."""

import collections
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from tal_jax.config import check_config, hamnet_config
from tal_jax.data import packing
from tal_jax.data import timeline as timelines
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import open_features
from tal_jax.data.recordings import Dataset, Point, Recording
from tal_jax.methods import hamnet
from tal_jax.runs.fit import fit
from tal_jax.training import input_pipeline, sharding, update
from tal_jax.training.prepare import prepare_round

GRID = Grid(fps=1, stride_frames=1, window_frames=1)
LENGTHS = (5, 9, 7, 12, 8, 6, 11)
DIM = 3


def _dataset(folder):
    """Recordings in files, one point each of the first two labels."""
    rng, recordings = np.random.default_rng(0), []
    for number, length in enumerate(LENGTHS):
        path = folder / f"{number}.npy"
        np.save(path, rng.normal(size=(length, DIM)).astype(np.float16))
        points = (Point(1.5, number % 2),)
        recordings.append(Recording(path.stem, open_features([path]), GRID, length, points))
    return Dataset(("a", "b"), tuple(recordings), (), {"version": "", "database": {}})


def _config(features="streamed"):
    """HAM-Net, since it compiles quickly; 4 of the 14 timelines a block."""
    config = hamnet_config("document")
    config.model.widths, config.model.attention_width = (4,), 4
    config.sampling.update(compensate=True, keep_original=True)
    config.train.update(steps=10, batch_size=2, search_every=2, length=8, jitter=True)
    config.train.max_speed = 1.5
    config.train.update(log_every=2, checkpoint_every=10, features=features, learning_rate=0.1)
    return check_config(config)


PROPOSALS = {
    str(number): [{"label": "ab"[number % 2], "score": 1.0, "segment": [1.0, 3.0]}]
    for number in range(len(LENGTHS))
}


def _open(config, dataset):
    packed = prepare_round(dataset, config, PROPOSALS)
    return input_pipeline.open_pipeline(
        hamnet.make_model(config, 2),
        config,
        packed.timeline,
        dataset.train,
        lengths=packed.lengths,
        key=jax.random.key(3),
    )


def _first_state(config):
    return update.init_state(hamnet.make_model(config, 2), config, DIM, jax.random.key(0))


def _assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def _rows(config):
    """The timelines of each block."""
    compiled, num_timelines = update.compiled_config(config), 2 * len(LENGTHS)
    starts = range(0, config.train.steps, config.train.search_every)
    choose = jax.jit(update.choose_rows, static_argnums=3)
    return [
        np.asarray(choose(jax.random.key(3), jnp.int32(step), jnp.arange(num_timelines), compiled))
        for step in starts
    ]


# --- the same network ---


@pytest.mark.slow
def test_run_is_the_same_wherever_features_lie(toy_run, tmp_path):
    """Two rounds, stopped in the middle of each, and continued the other way."""

    def stop_at(text):
        def report(line):
            lines.append(line)
            if line.startswith(text):
                raise KeyboardInterrupt

        return report

    dataset, config, lines = toy.dataset(toy_run.data), toy.config(toy_run.data), []
    jax.clear_caches()
    with toy.compilations() as compiled:
        for features, text in (
            ("streamed", "round 0 of 1  update    25/60"),
            ("resident", "round 1 of 1  update    25/60"),
            ("streamed", "never"),
        ):
            config.train.features = features
            try:
                fitted = fit(dataset, config, workdir=tmp_path, report=stop_at(text))
            except KeyboardInterrupt:
                assert text != "never"
    _assert_same(fitted.params, toy_run.fitted.params)
    for name in ("round_0/proposals_train.json", "round_1/proposals_train.json", "detections.json"):
        assert (tmp_path / name).read_bytes() == (toy_run.workdir / name).read_bytes()
    assert _losses(tmp_path) == _losses(toy_run.workdir)
    begun = [line for line in lines if "12 timelines" in line]
    places = [line.split("; features ")[1].split(" (")[0] for line in begun]
    assert places == ["streamed", *["on the device"] * 2, *["streamed"] * 2]
    # One program of an update for streamed features and one for resident ones, in both rounds; one
    # each for training and for test recordings of what both share.
    count = collections.Counter(compiled)
    names = ("jit(block)", "jit(run)", "jit(forward)", "jit(localize_compiled)")
    assert [count[name] for name in names] == [1, 1, 2, 2], count


def _losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(line["round"], line["step"], line["loss"]) for line in lines if "step" in line]


@pytest.mark.slow
def test_every_block_is_the_same(tmp_path):
    """Compensated and original timelines, moved samples, states and metrics after any block."""
    dataset, states, metrics = _dataset(tmp_path), {}, {}
    for features in ("resident", "streamed"):
        config = _config(features)
        with _open(config, dataset) as advance:
            state, first = advance(_first_state(config), 0, 1)
            state, middle = advance(state, 2, 3)
            kept = jax.tree.map(np.asarray, state)
        with _open(config, dataset) as advance:  # as after a stop
            states[features], last = advance(jax.device_put(kept), 8, 1)
        metrics[features] = first, middle, last
    assert int(states["streamed"].step) == 10
    _assert_same(states["streamed"], states["resident"])
    _assert_same(metrics["streamed"], metrics["resident"])


@pytest.mark.parametrize("features", ["resident", "streamed"])
def test_chunks(tmp_path, features):
    """As many rows have the features that their files hold, in the same shapes."""
    dataset = _dataset(tmp_path)
    timeline = prepare_round(dataset, _config(features), PROPOSALS).timeline
    chunk_of, shapes = input_pipeline.chunks(timeline, dataset.train, "float32"), set()
    for rows in (np.array([6, 0, 6]), np.array([3, 10, 13])):
        chunk = chunk_of(rows)
        shapes.add(chunk.features.shape)
        for place, row in enumerate(rows):
            want = np.asarray(dataset.train[row % len(LENGTHS)].features)
            first = int(chunk.first[place])
            np.testing.assert_array_equal(chunk.features[first : first + len(want)], want)
            assert chunk.counts[place] == timeline.counts[row]
    assert shapes == {((sum(LENGTHS) if features == "resident" else 12 + 11 + 9), DIM)}


# --- what is where, and when ---


class _Metric:
    """A block's result that tells when it is awaited."""

    def __init__(self, number, events):
        self.number, self.events = number, events

    def block_until_ready(self):
        self.events.append(("done", self.number))
        return self

    def __truediv__(self, count):
        return self


def _replace_block(monkeypatch, run):
    monkeypatch.setattr(input_pipeline, "_make_block", lambda *given: run)


def test_next_block_is_read_while_one_computes(tmp_path, monkeypatch):
    config, dataset, events = _config(), _dataset(tmp_path), []
    num_blocks = config.train.steps // config.train.search_every
    begun = [threading.Event() for _ in range(num_blocks + 1)]
    begun[num_blocks].set()  # there is no block after the last one
    read_rows, split = input_pipeline._read_rows, sharding.split
    shapes, numbers = [], iter(range(num_blocks))

    def reading(*given):
        events.append(("read", number := next(numbers)))
        begun[number].set()
        return read_rows(*given)

    def putting(values, mesh, *, axis=0):
        if axis == 0:  # the features; their places follow
            events.append(("put", sum(kind == "put" for kind, _ in events)))
        return split(values, mesh, axis=axis)

    def run(state, timeline, places, settings, key):
        shapes.append((timeline.features.shape, timeline.counts.shape, places.shape))
        # Would wait in vain if the next block were read after this one.
        assert begun[state + 1].wait(timeout=30)
        events.append(("run", state))
        return state + 1, _Metric(state, events)

    _replace_block(monkeypatch, run)
    with _open(config, dataset) as advance:
        monkeypatch.setattr(input_pipeline, "_read_rows", reading)
        monkeypatch.setattr(sharding, "split", putting)
        state = 0
        for step in range(0, config.train.steps, config.train.search_every):
            state, _ = advance(state, step, 1)
    assert state == num_blocks
    assert [event for event in events if event[0] == "read"] == [
        ("read", number) for number in range(num_blocks)
    ]
    for number in range(num_blocks - 2):
        # Room on the device is for two blocks: the next but one waits for this one's end.
        assert events.index(("done", number)) < events.index(("put", number + 2))
        assert events.index(("run", number)) < events.index(("read", number + 2))
    sizes = [sum(LENGTHS[row] for row in np.unique(rows % len(LENGTHS))) for rows in _rows(config)]
    # One shape for all blocks: that of the largest, which is far from all.
    assert set(shapes) == {((packing.spacious(max(sizes)), DIM), (4,), (2, 2))}
    assert max(sizes) < 0.8 * sum(LENGTHS)


def test_places_lead_to_the_rows(tmp_path, monkeypatch):
    """Each update of a block finds the timelines that it would find among all of them."""
    config, dataset = _config(), _dataset(tmp_path)
    timeline = prepare_round(dataset, config, PROPOSALS).timeline
    found = []

    def run(state, block, places, settings, key):
        found.append(jax.tree.map(np.asarray, timelines.take(block, places)))
        return state, {"loss": jnp.float32(0)}

    _replace_block(monkeypatch, run)
    with _open(config, dataset) as advance:
        advance(None, 0, 5)
    for block, rows in zip(found, _rows(config), strict=True):
        np.testing.assert_array_equal(block.counts, timeline.counts[rows])
        np.testing.assert_array_equal(block.weights, timeline.weights[rows])
        first = block.first
        for index, row in np.ndenumerate(rows):
            want = np.asarray(dataset.train[row % len(LENGTHS)].features)
            begin = first[index]
            got = block.features[begin : begin + len(want)]
            np.testing.assert_array_equal(got, want)


# --- what goes wrong ---


@pytest.mark.parametrize("broken", ["nan", "gone"])
def test_a_file_that_breaks_meanwhile(tmp_path, monkeypatch, broken):
    config, dataset = _config(), _dataset(tmp_path)
    first, *_, last = (set((rows % len(LENGTHS)).ravel()) for rows in _rows(config))
    name = str(min(last - first))
    path = tmp_path / f"{name}.npy"
    before, made = set(threading.enumerate()), []

    def run(state, *given):
        made.append(given)
        return state, {"loss": jnp.float32(0)}

    _replace_block(monkeypatch, run)
    message = (
        f"^{name}: feature 1 of snippet 2 is nan" if broken == "nan" else f"cannot read {path}"
    )
    with pytest.raises(ValueError, match=message), _open(config, dataset) as advance:
        if broken == "nan":
            features = np.load(path)
            features[2, 1] = np.nan
            np.save(path, features)
        else:
            path.unlink()
        advance(None, 0, 5)
    assert 1 <= len(made) < 5
    assert set(threading.enumerate()) == before


# --- which way ---


def test_large_features_are_streamed(tmp_path, monkeypatch):
    dataset = _dataset(tmp_path)
    size = sum(LENGTHS) * DIM * 2  # float16
    assert input_pipeline.num_bytes(_config("auto"), dataset.train) == size
    for device_bytes, expected in ((size / 0.61, True), (size / 0.59, False)):
        monkeypatch.setattr(input_pipeline, "_device_bytes", lambda answer=device_bytes: answer)
        assert input_pipeline.streams(_config("auto"), dataset.train) == expected
        assert input_pipeline.streams(_config("streamed"), dataset.train)
        assert not input_pipeline.streams(_config("resident"), dataset.train)


def test_memory_of_the_device():
    assert input_pipeline._device_bytes() > 2**28
