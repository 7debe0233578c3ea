r"""The compiled ops beside plain NumPy and PyTorch versions of the same, in one run.

    python experiments/benchmarks/ops.py --json ops.json
    python experiments/benchmarks/ops.py --sections search,evaluation --runs 5

Each section first checks that both versions find the same, then times them in turns; compilation
does not count. The published versions are in `field_versions.py`. PyTorch and pandas are
optional.
"""

import argparse
import dataclasses
import functools
import json
import os
import platform
import time
from collections.abc import Callable, Sequence

import field_versions
import jax
import jax.numpy as jnp
import numpy as np

import tal_jax as tal
from tal_jax.data.predictions import Predictions
from tal_jax.inference.localize import localize_compiled
from tal_jax.ops import pseudo_labels, reassignment

try:
    import torch
except ImportError:
    torch = None
try:
    import pandas
except ImportError:
    pandas = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    field: str  # what stands on the side of published code
    field_s: float
    ours_s: float
    wanted: str

    @property
    def ratio(self) -> float:
        return self.field_s / self.ours_s


def main() -> None:
    """Parses the sections, runs them, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which, with commas between")
    parser.add_argument("--runs", type=int, default=3, help="of which the median counts")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    sections = options.sections.split(",")
    unknown = sorted(set(sections).difference(SECTIONS))
    if unknown:
        parser.error(f"unknown sections {unknown}; expected some of {list(SECTIONS)}")
    on = machine()
    print(", ".join(f"{name} {value}" for name, value in on.items()) + "\n")
    for name, module in (("PyTorch", torch), ("pandas", pandas)):
        if module is None:
            print(f"{name} is not installed: its rows are left out.\n")
    rows = {name: SECTIONS[name](runs=options.runs) for name in sections}
    print(as_table([row for listed in rows.values() for row in listed]))
    if options.json:
        figures = {
            name: [dataclasses.asdict(row) | {"ratio": row.ratio} for row in listed]
            for name, listed in rows.items()
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": on, "rows": figures}, file, indent=1)


def as_table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | field's way | ours | ratio | wanted |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row.what} | {row.field}: {_duration(row.field_s)} | {_duration(row.ours_s)} "
            f"| {row.ratio:.3g}× | {row.wanted} |"
        )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    kinds = sorted({device.device_kind for device in jax.devices()})
    versions = {"cpu": model, "cores": str(len(os.sched_getaffinity(0))), "device": kinds[0]}
    versions |= {"jax": jax.__version__, "numpy": np.__version__}
    return versions | ({"torch": torch.__version__} if torch else {})


def in_turns(functions: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """Median seconds of each function, called in turns so that all meet the same machine."""
    seconds = [[] for _ in functions]
    for _ in range(runs):
        for times, function in zip(seconds, functions, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(function())
            times.append(time.perf_counter() - begin)
    return [float(np.median(times)) for times in seconds]


def repeated(function: Callable[[], object], times: int) -> Callable[[], None]:
    """Calls a short function several times, so that a clock can tell."""

    def call():
        for _ in range(times):
            jax.block_until_ready(function())

    return call


# --- made-up recordings ---


@dataclasses.dataclass(frozen=True)
class Video:
    """Scores as a network gives them, and points."""

    scores: np.ndarray  # [T, C]
    background: np.ndarray  # [T]
    points: np.ndarray  # [T, C] bool

    @property
    def video(self) -> np.ndarray:
        """`[C]` mean of the best eighth."""
        best = np.sort(self.scores, axis=0)[-max(1, len(self.scores) // 8) :]
        return best.mean(axis=0)


def make_video(
    rng, length: int, num_classes: int, present: int, actions: int = 15, sure: float = 1.0
) -> Video:
    """Actions of some snippets each, as on THUMOS14, seen through smooth noise.

    The surer the scores of background, the more seeds there are.
    """

    def noise(columns):
        white = rng.normal(size=(length + 4, columns))
        return sum(white[i : i + length] for i in range(5)) / 5**0.5

    labels = rng.choice(num_classes, present, replace=False)
    truth, points = np.zeros((length, num_classes)), np.zeros((length, num_classes), bool)
    centres = np.sort(rng.choice(length, min(actions, length // 6), replace=False))
    for centre in centres:
        half = min(int(rng.lognormal(1.2, 0.6)), length // 12)
        label = rng.choice(labels)
        truth[max(centre - half, 0) : centre + half + 1, label] = 1
        points[centre, label] = not points[centre].any()
    kernel = np.array([0.2, 0.6, 1, 0.6, 0.2]) / 2.6
    smooth = np.apply_along_axis(np.convolve, 0, truth, kernel, mode="same")

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    background = sigmoid(sure * (2.2 - 5 * smooth.max(axis=1) + 0.8 * noise(1)[:, 0]))
    scores = sigmoid(6 * smooth - 3 + noise(num_classes)) * (1 - background[:, None])
    return Video(scores.astype(np.float32), background.astype(np.float32), points)


# --- sections ---


def search(
    *, runs: int, videos: int = 60, shortest: int = 100, longest: int = 1200, chunk: int = 16
) -> list[Row]:
    """The exact optimal sequence against a beam search, late and early in training."""
    sizes = (videos, shortest, longest, chunk)
    return [
        _search(runs, "many seeds", 1.0, *sizes),
        _search(runs, "few seeds, as early in training", 0.4, *sizes),
    ]


def _search(runs, when, sure, videos, shortest, longest, chunk):
    rng = np.random.default_rng(0)
    lengths = np.linspace(shortest, longest, videos).astype(int)
    rng.shuffle(lengths)
    slots = []  # scores, action seeds, background seeds of one labelled class
    for length in lengths:
        one = make_video(rng, length, num_classes=3, present=rng.integers(1, 4), sure=sure)
        seeds = _seeds(one, longest)
        own = []
        for label in np.flatnonzero(one.points.any(axis=0)):
            negative_classes = one.points.any(axis=1) & ~one.points[:, label]
            own.append(
                (one.scores[:, label], seeds.action[:, label], seeds.background | negative_classes)
            )
        slots.append(own)

    # Whole chunks of recordings with three slots each, as in training.
    shape = (-(-videos // chunk), chunk, 3, longest)
    arrays = [np.zeros(shape, kind) for kind in (np.float32, bool, bool)]
    where = np.zeros(shape, bool)
    for index, own in enumerate(slots):
        for slot, values in enumerate(own):
            for array, value in zip(arrays, values, strict=True):
                array[index // chunk, index % chunk, slot, : len(value)] = value
            where[index // chunk, index % chunk, slot, : len(values[0])] = True

    batch = [jnp.asarray(array) for array in (*arrays, where)]

    def field():
        return [[field_versions.beam_search(*slot) for slot in own] for own in slots]

    exact = np.asarray(_each_sequence(*batch).score).reshape(-1, 3)
    margins = [
        exact[index, slot] - score
        for index, own in enumerate(field())
        for slot, score in enumerate(own)
    ]
    assert min(margins) > -1e-5, f"a beam search found better by {-min(margins)}"
    field_s, ours_s = in_turns([field, lambda: _optimal_labels(*batch)], runs)
    better = sum(margin > 1e-5 for margin in margins)
    return Row(
        f"labels of optimal sequences, {videos} videos of {shortest}–{longest} snippets, "
        f"{len(margins)} classes, {when} (exact is better in {better}, worse in none)",
        "beam search of 25, NumPy",
        field_s,
        ours_s,
        "≥ 200×",
    )


@jax.jit
def _each_sequence(*batch):
    """Of chunk after chunk of recordings with their slots, as training goes through them."""

    def one_slot(scores, action, background, where):
        return pseudo_labels.optimal_sequence(scores, action, background, where=where)

    def of_each(function):
        if jax.default_backend() == "cpu":
            return lambda arrays: jax.lax.map(function, arrays)
        return lambda arrays: jax.vmap(function)(arrays)

    each_slot = of_each(lambda slot: one_slot(*slot))
    return jax.lax.map(of_each(each_slot), batch)


@jax.jit
def _optimal_labels(*batch):
    """What training reads of the sequences."""
    return _each_sequence(*batch).labels


_mine_seeds = jax.jit(tal.mine_seeds)


def _seeds(video: Video, size: int) -> pseudo_labels.Seeds:
    """Its seeds, found at one padded size so that one program serves all."""
    length = len(video.points)
    pad = ((0, size - length), (0, 0))
    seeds = _mine_seeds(
        np.pad(video.background, pad[0]), np.pad(video.points, pad), where=np.arange(size) < length
    )
    return jax.tree.map(lambda array: np.asarray(array)[:length], seeds)


def localize(
    *,
    runs: int,
    videos: int = 16,
    length: int = 750,
    classes: int = 20,
    many_classes: int = 200,
    levels: int = 20,
) -> list[Row]:
    """Scores to detections, times a video."""
    thresholds = np.linspace(0.025, 0.5, levels).astype(np.float32)
    settings = {
        "thresholds": thresholds,
        "foreground_thresholds": np.zeros(0, np.float32),
        "video_weight": np.float32(0.2),
        "delta": np.float32(0.25),
        "min_outer": np.float32(0),
        "iou_threshold": np.float32(0.7),
        "soft_sigma": np.float32(0),
        "class_threshold": np.float32(0.5),
    }
    settings = jax.tree.map(jnp.asarray, settings)
    rows = []
    for num_classes, some in ((classes, 2), (classes, classes), (many_classes, 2)):
        rng = np.random.default_rng(0)
        batch = [make_video(rng, length, num_classes, present=2) for _ in range(videos)]
        wanted = np.zeros((videos, num_classes), bool)
        for one, row in zip(batch, wanted, strict=True):
            row[np.argsort(-one.video)[:some]] = True
        timeline = np.arange(length + 1, dtype=np.float32), np.ones(length, bool)
        predictions = jax.tree.map(
            lambda *leaves: jnp.asarray(np.stack(leaves)),
            *[Predictions(one.scores, 1 - one.background, one.video, *timeline) for one in batch],
        )
        locate = functools.partial(
            localize_compiled,
            predictions,
            settings,
            jnp.asarray(wanted),
            max_runs=512,
        )

        def field(upsampling=None, batch=batch, wanted=wanted):
            return [
                field_versions.localize(
                    one.scores, one.video, np.flatnonzero(row), thresholds, upsampling=upsampling
                )
                for one, row in zip(batch, wanted, strict=True)
            ]

        _check_detections(locate(), field(), wanted)
        field_s, fine_s, ours_s = in_turns([field, lambda: field(24), locate], runs)
        what = f"detections of a video, T={length}, {some} of {num_classes} classes present"
        for name, seconds in (("exact crossings", field_s), ("curves read 24 times finer", fine_s)):
            rows.append(Row(what, f"{name}, NumPy", seconds / videos, ours_s / videos, "≥ 10×"))
    return rows


def _check_detections(found, expected, wanted):
    """The same detections: ends to 1e-3 snippets, scores to 1e-3 (those of crumbs cancel digits).

    One in a thousand may be missing on either side: where an overlap lies within a rounding of the
    threshold, float32 and float64 decide differently.
    """
    assert not np.any(found.overflow)
    segments, scores, where = (np.asarray(x) for x in (found.segments, found.scores, found.where))
    assert not where[~wanted].any()
    alone = total = 0
    for row, by_class in enumerate(expected):
        for label, theirs in by_class.items():
            keep = where[row, label]
            ours = np.concatenate([segments[row, label][keep], scores[row, label][keep, None]], 1)
            same = (np.abs(ours[:, None] - theirs[None]) < 1e-3).all(axis=2)
            alone += (~same.any(axis=0)).sum() + (~same.any(axis=1)).sum()
            total += len(theirs)
    assert alone <= total / 1000, f"{alone} of {total} detections have no counterpart"


def evaluate(
    *, runs: int, videos: int = 210, detections: int = 200, classes: int = 20
) -> list[Row]:
    """mAP at seven thresholds."""
    rng = np.random.default_rng(0)
    names = [f"class_{i}" for i in range(classes)]
    database, results = {}, {}
    for number in range(videos):
        labels = rng.choice(classes, rng.integers(1, 3), replace=False)
        starts = np.sort(rng.uniform(0, 200, rng.integers(5, 25)))
        truth = [
            {"label": names[rng.choice(labels)], "segment": [s, s + rng.uniform(1, 10)]}
            for s in starts.tolist()
        ]
        database[f"video_{number}"] = {"subset": "test", "annotations": truth}
        found = []
        for _ in range(detections):
            near = truth[rng.integers(len(truth))]
            right = rng.random() < 0.9
            start, end = np.array(near["segment"]) + rng.normal(0, 1.5, 2)
            found.append(
                {
                    "label": near["label"] if right else names[rng.integers(classes)],
                    "score": float(rng.random()),
                    "segment": [float(start), float(max(end, start + 0.1))],
                }
            )
        results[f"video_{number}"] = found
    truth, predictions = {"database": database}, {"results": results}
    tious = np.arange(1, 8) / 10

    def field():
        return field_versions.mean_average_precision(truth, predictions, tious, "test")

    def ours():
        return tal.evaluate_detections(truth, predictions, tious=tious, subset="test")

    np.testing.assert_allclose(ours().map, field(), atol=1e-6)
    field_s, ours_s = in_turns([field, ours], runs)
    what = f"mAP at 7 tIoUs, {videos} videos × {detections} detections, {classes} classes"
    wanted = "≥ 50×, ≤ 0.5 s"
    rows = [Row(what, "loop over classes and detections, NumPy", field_s, ours_s, wanted)]
    if pandas:  # takes minutes, so it is timed while it is checked
        begin = time.perf_counter()
        theirs = field_versions.mean_average_precision_in_tables(
            pandas, truth, predictions, tious, "test"
        )
        seconds = time.perf_counter() - begin
        np.testing.assert_allclose(ours().map, theirs, atol=1e-6)
        rows.append(Row(what, "the same on tables, pandas, once", seconds, ours_s, wanted))
    return rows


def reassign(
    *, runs: int, length: int = 750, dim: int = 2048, prototypes: int = 8, times: int = 8
) -> list[Row]:
    """Feature reassignment against the memory traffic that it needs, and against other ways.

    With every product of [T, D] by a few columns as one pass over the [T, D] array, two iterations
    need forward: `F mu'` with the norms on the way, and `N' F`, in both iterations (4 reads), and
    the mix (a read, a write). Backward, G being the cotangent of the output: `G M'` and `Z' G` (2
    reads); in each iteration `F dM'` for the shares and `dP' F` for the prototypes (4 reads); and
    dF, a sum of G, of F times its norms' part, and of products with K rows (2 reads, a write).
    """
    passes = 6 + 9
    rng = np.random.default_rng(0)
    features = rng.normal(size=(length, dim)).astype(np.float32)
    cotangent = rng.normal(size=(length, dim)).astype(np.float32)
    mu = rng.normal(size=(prototypes, dim)).astype(np.float32)
    shape = f"[{length}, {dim}], K={prototypes}"

    @jax.jit
    def both(features, mu, cotangent):
        def output(features, mu):
            return reassignment.reassign(features, mu).features

        mixed, backward = jax.vjp(output, features, mu)
        return mixed, *backward(cotangent)

    @jax.jit
    def closed(features, prototypes):
        # Assigns once and goes to the limit; the other ways are given these assignments.
        return reassignment.reassign(features, prototypes, num_iters=0, closed_form=True)

    ours = [jnp.asarray(array) for array in (features, mu, cotangent)]
    traffic = memory_passes((length, dim), passes)
    field_s, ours_s = in_turns(
        [repeated(traffic, times), repeated(lambda: both(*ours), times)], runs
    )
    wanted = "≥ 0.5×"
    what = f"reassignment, forward and backward, {shape}"
    rows = [Row(what, f"{passes} passes over memory", field_s / times, ours_s / times, wanted)]

    start = ours[0], tal.reassign(*ours[:2]).prototypes
    limit = closed(*start)
    shares = np.asarray(limit.assignments)

    def by_time(linalg=np.linalg, convert=np.asarray):
        arrays = [convert(np.array(x)) for x in (*start, shares)]
        return field_versions.fixed_point_by_time(*arrays, linalg=linalg)

    np.testing.assert_allclose(limit.features, by_time(), atol=1e-3)
    solve_s, closed_s = in_turns([by_time, repeated(lambda: closed(*start), times)], runs)
    what = f"its limit in closed form, {shape}"
    rows.append(Row(what, "inverse of [T, T], NumPy", solve_s, closed_s / times, "≥ 10×"))
    if torch:
        rows += _reassign_in_torch(runs, times, both, closed, by_time, ours, start, shape)
    return rows


def _reassign_in_torch(runs, times, both, closed, by_time, ours, start, shape):
    features, mu, cotangent = (torch.from_numpy(np.array(array)) for array in ours)
    features.requires_grad_()
    mu.requires_grad_()

    def em():
        mixed = field_versions.em_attention(torch, features, mu)
        return mixed, *torch.autograd.grad(mixed, (features, mu), cotangent)

    for got, want in zip(both(*ours), em(), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-3)
    solve = functools.partial(by_time, torch.linalg, torch.from_numpy)
    em_s, both_s = in_turns([repeated(em, times), repeated(lambda: both(*ours), times)], runs)
    solve_s, closed_s = in_turns([solve, repeated(lambda: closed(*start), times)], runs)
    forward = f"reassignment, forward and backward, {shape}"
    limit = f"its limit in closed form, {shape}"
    return [
        Row(forward, "the same in PyTorch", em_s / times, both_s / times, ""),
        Row(limit, "inverse of [T, T], PyTorch", solve_s, closed_s / times, "≥ 10×"),
    ]


def resample(*, runs: int, length: int = 750, dim: int = 2048, times: int = 16) -> list[Row]:
    """Inverse-transform sampling against one read and one write of the features."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(length, dim)).astype(np.float32)
    weights = (1 + 3 * (rng.random(length) < 0.2)).astype(np.float32)
    ours = [jnp.asarray(array) for array in (features, weights)]
    compiled = jax.jit(functools.partial(tal.resample, num_samples=length))

    def field():
        return field_versions.resample(features, weights, length)

    np.testing.assert_allclose(compiled(*ours).features, field(), atol=1e-3)
    functions = [memory_passes((length, dim), 2), field, lambda: compiled(*ours)]
    copy_s, field_s, ours_s = in_turns([repeated(one, times) for one in functions], runs)
    what = f"inverse-transform sampling, [{length}, {dim}]"
    return [
        Row(what, "a read and a write", copy_s / times, ours_s / times, "≥ 0.5×"),
        Row(what, "NumPy", field_s / times, ours_s / times, ""),
    ]


def memory_passes(shape: tuple[int, int], passes: int) -> Callable[[], jax.Array]:
    """A function that reads and writes arrays as often as said, one pass being a read or a write.

    A compiled copy on the same device, so that threads, caches and fresh pages are those of the
    ops.
    """
    copy = jax.jit(jnp.negative)
    array = jnp.ones(shape)

    def call():
        result = array
        for _ in range(passes // 2):
            result = copy(result)
        if passes % 2:
            result.sum()
        return result

    return call


SECTIONS = {
    "search": search,
    "localize": localize,
    "evaluate": evaluate,
    "reassign": reassign,
    "resample": resample,
}


if __name__ == "__main__":
    main()
