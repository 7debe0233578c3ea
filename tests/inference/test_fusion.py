"""Fused detections against plain Python loops."""

import jax
import numpy as np
import pytest
import toy

from tal_jax.inference.fusion import fuse_results, fuse_stages


def _iou(a, b):
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared) if shared > 0 else 0.0


def _reference(sources, threshold, sigma, trust=(1, 1, 1)):
    """Class by class, in float64."""
    found = {}
    for name in {name for source in sources for name in source}:
        entries = []
        for label in "ab":
            rows = [
                (entry["segment"], entry["score"], number)
                for number, source in enumerate(sources)
                for entry in source.get(name, [])
                if entry["label"] == label
            ]
            left, fused = sorted(rows, key=lambda row: -row[1]), []
            while left:
                own = [r for r in left if r is left[0] or _iou(r[0], left[0][0]) >= threshold]
                left = [r for r in left if not any(r is one for one in own)]
                total = sum(score * trust[source] for _, score, source in own)
                mean = sum(s * trust[source] * np.array(segment) for segment, s, source in own)
                mean = mean / total
                best = [
                    max((score for _, score, source in own if source == number), default=0.0)
                    for number in range(len(sources))
                ]
                fused.append([np.mean(best), mean])
            kept = []
            while fused:
                best = max(fused, key=lambda one: one[0])
                fused = [one for one in fused if one is not best]
                kept.append(best)
                if sigma > 0:
                    for one in fused:
                        one[0] *= np.exp(-(_iou(best[1], one[1]) ** 2) / sigma)
            entries += [(score, label, *segment) for score, segment in kept]
        best = max((entry[0] for entry in entries), default=0.0)
        found[name] = sorted([e for e in entries if e[0] >= 0.005 * best], key=lambda e: -e[0])
    return found


def _random(rng, names, count=20, shift_s=0.0):
    def entry():
        start = shift_s + rng.uniform(0, 20)
        return {
            "label": "ab"[rng.integers(2)],
            "score": float(rng.uniform(0.01, 1)),
            "segment": [start, start + rng.uniform(1, 8)],
        }

    return {name: [entry() for _ in range(count)] for name in names}


def _assert_same(got, want):
    assert set(got) == set(want)
    for name, entries in want.items():
        rows = [(e["score"], e["label"], *e["segment"]) for e in got[name]]
        assert [row[1] for row in rows] == [entry[1] for entry in entries]
        for one, other in zip(rows, entries, strict=True):
            np.testing.assert_allclose(one[0], other[0], rtol=1e-4)
            np.testing.assert_allclose(one[2:], other[2:], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("num_sources, sigma", [(1, 0.0), (2, 0.5), (3, 0.3)])
def test_fused_against_loops(num_sources, sigma):
    rng = np.random.default_rng(num_sources)
    sources = [_random(rng, ["x", "y", "z"]) for _ in range(num_sources)]
    sources[-1]["z"] = []
    got = fuse_results(sources, iou_threshold=0.6, soft_sigma=sigma)
    _assert_same(got, _reference(sources, 0.6, sigma))


def test_many_recordings_are_fused_once():
    """More groups than are processed at once, and no multiple of these."""
    sources = [_random(np.random.default_rng(i), map(str, range(19)), 6) for i in range(2)]
    got = fuse_results(sources, iou_threshold=0.6, soft_sigma=0.5)
    _assert_same(got, _reference(sources, 0.6, 0.5))


@pytest.mark.slow
def test_one_program_for_few_detections_and_many_and_for_one_source_and_two():
    """Of one recording, whose classes are padded alike."""
    rng = np.random.default_rng(0)
    many, few = _random(rng, ["x"], 150), _random(rng, ["x"], 3)
    for entry in many["x"]:
        entry["label"] = "a"
    sources = [{"x": many["x"] + few["x"]}, _random(rng, ["x"], 2)]
    jax.clear_caches()
    with toy.compilations() as compiled:
        one = fuse_results(sources[:1], iou_threshold=0.7, soft_sigma=0.5)
        two = fuse_results(sources, iou_threshold=0.6, soft_sigma=0.5, trust=(1, 2))
    assert compiled.count("jit(_fuse)") == 1
    _assert_same(one, _reference(sources[:1], 0.7, 0.5))
    _assert_same(two, _reference(sources, 0.6, 0.5, (1, 2)))


def test_recordings_that_only_one_source_has():
    rng = np.random.default_rng(0)
    sources = [_random(rng, ["x", "y"]), _random(rng, ["y", "z"])]
    _assert_same(fuse_stages(*sources, soft_sigma=0.5), _reference(sources, 0.6, 0.5, (1, 2)))
    assert fuse_results([{"x": []}], iou_threshold=0.6, soft_sigma=0.5) == {"x": []}


def test_times_of_ten_hours_are_exact():
    """A millisecond, all over the recording, whatever float32 makes of its times."""
    rng, hour_s = np.random.default_rng(0), 3600.0
    parts = [_random(rng, ["x"], 6, shift_s=hour * hour_s)["x"] for hour in (0, 5, 10)]
    sources = [{"x": [entry for part in parts for entry in part]}]
    got = fuse_results(sources, iou_threshold=0.6, soft_sigma=0.0)["x"]
    want = _reference(sources, 0.6, 0.0)["x"]
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one["segment"], other[2:], rtol=0, atol=1e-6)
