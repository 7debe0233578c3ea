"""The benchmarks of the ops run, and the ops keep to memory that does not grow as time squared."""

import argparse
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tal_jax as tal
from tal_jax.data.predictions import Predictions
from tal_jax.inference.localize import localize_compiled
from tal_jax.ops import pseudo_labels

sys.path.append(str(Path(__file__).parents[1] / "experiments" / "benchmarks"))
import field_versions  # noqa: E402
import ops  # noqa: E402
import scale  # noqa: E402
import serving  # noqa: E402

SIZES = {
    "search": {"videos": 3, "shortest": 60, "longest": 100, "chunk": 2},
    "localize": {"videos": 2, "length": 60, "classes": 3, "many_classes": 3, "levels": 4},
    "evaluate": {"videos": 6, "detections": 20, "classes": 3},
    "reassign": {"length": 20, "dim": 16, "prototypes": 3, "times": 1},
    "resample": {"length": 20, "dim": 16, "times": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("section", ops.SECTIONS)
def test_sections_check_what_they_time(section):
    rows = ops.SECTIONS[section](runs=1, **SIZES[section])
    assert rows and all(row.field_s > 0 and row.ours_s > 0 for row in rows)
    table = ops.as_table(rows)
    assert table.count("\n") == len(rows) + 1 and "nan" not in table


@pytest.mark.slow
def test_script(monkeypatch, tmp_path, capsys):
    path = tmp_path / "ops.json"
    monkeypatch.setitem(ops.SECTIONS, "resample", functools.partial(ops.resample, length=9, dim=4))
    arguments = ["--sections", "resample", "--runs", "1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["ops.py", *arguments])
    ops.main()
    figures = json.loads(path.read_text())
    assert {"cpu", "cores", "device", "jax", "numpy"} <= set(figures["machine"])
    for row in figures["rows"]["resample"]:
        assert row["ratio"] == row["field_s"] / row["ours_s"]
    assert "| what |" in capsys.readouterr().out


@pytest.mark.slow
def test_serving(monkeypatch, tmp_path, capsys):
    path = tmp_path / "serving.json"
    sizes = "--seconds 8 --recordings 3 --dim 8 --width 8".split()
    monkeypatch.setattr(sys, "argv", ["serving.py", *sizes, "--json", str(path)])
    serving.main()
    figures = json.loads(path.read_text())
    assert set(figures["kinds"]) == set(serving.KINDS) and "jax" in figures["machine"]
    for one in figures["kinds"].values():
        assert sum(one["shares"].values()) == pytest.approx(1, abs=0.3)  # medians, one by one
        assert 8 / one["first_cpu_s"] == pytest.approx(one["first"])
        assert one["first_cpu_s"] > one["steady_cpu_s"] > 0
    # Features are read, not computed.
    assert figures["kinds"]["features"]["shares"]["features"] == 0
    assert figures["kinds"]["videos"]["shares"]["features"] > 0
    assert capsys.readouterr().out.count("\n| ") == 4


def test_beam_search_is_exact_where_the_beam_holds_everything():
    rng = np.random.default_rng(0)
    shape, length = (2, 2, 3, 100), 30  # those of the section, whose program serves here too
    scores = rng.random(shape).astype(np.float32)
    action, background, where = np.zeros((3, *shape), bool)
    action[..., [6, 20]], background[..., [1, 13, 27]], where[..., :length] = True, True, True
    exact = ops._each_sequence(*map(jnp.asarray, (scores, action, background, where))).score
    for index in np.ndindex(2, 2, 1):
        one = [array[index][:length] for array in (scores, action, background)]
        wide = field_versions.beam_search(*one, beam=10**6)
        narrow = field_versions.beam_search(*one, beam=2)
        assert wide == pytest.approx(float(exact[index]), abs=1e-6) and narrow <= wide


def _temporary_bytes(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in shapes]
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


F, B = jnp.float32, jnp.bool_


def _sequence(t):
    return _temporary_bytes(tal.optimal_sequence, *((((t,), kind)) for kind in (F, B, B)))


def _segment(t):
    return _temporary_bytes(pseudo_labels.best_segment, *((((t,), kind)) for kind in (F, B, B)))


def _reassignment(t):
    def loss(features, prototypes):
        return tal.reassign(features, prototypes, closed_form=True).features.sum()

    return _temporary_bytes(jax.grad(loss, (0, 1)), ((t, 16), F), ((4, 16), F))


def _resampling(t):
    return _temporary_bytes(
        lambda x, w: tal.resample(x, w, x.shape[0]).features, ((t, 16), F), ((t,), F)
    )


@pytest.mark.slow
@pytest.mark.parametrize("temporary", [_sequence, _segment, _reassignment, _resampling])
def test_no_array_of_time_by_time(temporary):
    # One such array of single bytes would take 64 MB; all of these ops stay under 1 kB a snippet.
    assert temporary(8000) < 8000**2 / 8


@pytest.mark.slow
def test_localization_takes_the_memory_of_a_few_classes_at_once():
    videos, length, classes, max_runs = 4, 8000, 200, 512
    predictions = Predictions(
        jax.ShapeDtypeStruct((videos, length, classes), F),
        jax.ShapeDtypeStruct((videos, length), F),
        jax.ShapeDtypeStruct((videos, classes), F),
        jax.ShapeDtypeStruct((videos, length + 1), F),
        jax.ShapeDtypeStruct((videos, length), B),
    )
    names = ("video_weight", "delta", "min_outer", "iou_threshold", "class_threshold")
    names += ("soft_sigma",)
    settings = {name: jax.ShapeDtypeStruct((), F) for name in names}
    settings |= {
        "thresholds": jax.ShapeDtypeStruct((20,), F),
        "foreground_thresholds": jax.ShapeDtypeStruct((0,), F),
    }
    lowered = localize_compiled.lower(predictions, settings, max_runs=max_runs)
    memory = lowered.compile().memory_analysis()
    # All classes at once took 6 GB. No array of time by time either.
    assert memory.temp_size_in_bytes < length**2 / 2


def test_scale_measures_how_parts_grow(monkeypatch, tmp_path, capsys):
    sizes = ["--recordings", "6,60", "--classes", "3", "--detections", "5", "--shards", "2"]
    path = tmp_path / "scale.json"
    arguments = [*sizes, "--parts", "open,load,fingerprint,evaluation", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["scale.py", *arguments])
    monkeypatch.setattr(scale, "in_a_process", scale.measure)  # which would import all again
    scale.main()
    figures = json.loads(path.read_text())
    assert figures["figures"]["evaluation"]["60"]["detections"] == 300
    assert set(figures["exponents"]["open"]) == {"cpu_s", "peak_gb"}
    assert "| load | " in capsys.readouterr().out


@pytest.mark.slow
def test_scale_trains_proposes_and_localizes(monkeypatch, tmp_path):
    options = argparse.Namespace(dim=4, width=4, classes=3, detections=5, shards=2)
    scale.measure("write", 24, options, tmp_path)
    assert scale.measure("block", 24, options, tmp_path)["block_s"] > 0
    for part in ("prepare", "proposals", "localization"):
        found = scale.measure(part, 24, options, tmp_path)
        assert found["cpu_s"] > 0 and found.get("segments", 1) > 0


def test_exponents_by_hand():
    figures = {"a": {10: {"cpu_s": 2.0, "peak_gb": 1.0}, 1000: {"cpu_s": 200.0, "peak_gb": 1.0}}}
    assert scale.exponents(figures) == {"a": {"cpu_s": pytest.approx(1.0), "peak_gb": 0.0}}
