"""Validates a data set on disk before training; every feature file is read once."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import ROUNDING_S, RecordingAnnotation
from tal_jax.data.clock import Grid
from tal_jax.data.lazy_features import LazyFeatures, digest_of
from tal_jax.data.point_distributions import POINTS_OF_FILE
from tal_jax.data.recordings import check_features, check_finite, fits_clock
from tal_jax.data.shards import ShardFeatures
from tal_jax.datasets import benchmarks
from tal_jax.datasets.layouts import Layout
from tal_jax.datasets.selection import Finding, select_recordings

# Clocks of published features: frames per second, frames from snippet to snippet.
_RATES = (10.0, 15.0, 24.0, 25.0, 29.97, 30.0)
_STRIDES = (4.0, 8.0, 16.0, 32.0)
# Test recordings of THUMOS14 that some codebases leave out for broken labels or files.
_LEFT_OUT_BY_SOME = ("video_test_0000270", "video_test_0001292", "video_test_0001496")
_SEVERAL = 3


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    layout: str  # in a line; "" if none is known
    counts: dict[str, dict[str, float]]  # recordings, hours, ... of "train" and "test"
    features: str
    clock: str
    findings: tuple[Finding, ...]  # errors first

    @property
    def wrong(self) -> bool:
        """Whether training would be wrong."""
        return any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content for JSON."""
        return dataclasses.asdict(self) | {"wrong": self.wrong}


def diagnose(
    layout: Layout,
    *,
    points: str,
    progress: Callable[[int, int], None],
    segments_suffice: bool = False,
) -> Diagnosis:
    """Validates the data set of a layout.

    Of `points`, `data.points` of a config, only "file" requires points, unless `segments_suffice`.
    `progress` is called with the number of recordings read, and of all.
    """
    known, names = layout.annotations.recordings, layout.names
    opened, findings = _open(layout, [*names["train"], *names["test"]])
    _, about_names = select_recordings(
        names,
        annotated=known,
        features={*opened, *layout.features},
        required=("train", *(["test"] if names["test"] else ())),
    )
    findings += [*about_names, *(Finding("note", note) for note in layout.notes)]
    findings += _check_parts(layout)
    required = points == POINTS_OF_FILE and not segments_suffice
    clicks, about_points = _clicks(layout, required=required)
    findings += about_points
    findings += _check_values(opened, progress)
    lengths = {name: len(array) for name, array in opened.items() if name in known}
    clock, about_clock = _check_clock(layout, lengths)
    findings += about_clock
    ends_s = {name: float(layout.grid.to_seconds(float(size))) for name, size in lengths.items()}
    findings += _check_clicks(layout, clicks, ends_s)
    findings += _check_instances(layout, ends_s)
    findings += _check_labelled(layout)
    findings += _check_classes(layout, clicks if required else {})
    findings += _choices(layout)
    order = {"error": 0, "warning": 1, "note": 2}
    return Diagnosis(
        layout=layout.description,
        counts={part: _counts(names[part], known, clicks, ends_s) for part in ("train", "test")},
        features=_describe(opened),
        clock=clock,
        findings=tuple(sorted(findings, key=lambda finding: order[finding.level])),
    )


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Formats a diagnosis as lines of text."""
    lines = [
        f"{name:10}{getattr(diagnosis, name)}"
        for name in ("layout", "features", "clock")
        if getattr(diagnosis, name)
    ]
    columns = ("recordings", "hours", "segments", "points", "classes")
    if diagnosis.counts:
        lines.append(f"{'':10}" + "".join(f"{column:>12}" for column in columns))
    for part, counts in diagnosis.counts.items():
        cells = (f"{counts[c]:.1f}" if c == "hours" else f"{counts[c]:,}" for c in columns)
        lines.append(f"{part:10}" + "".join(f"{cell:>12}" for cell in cells))
    for finding in diagnosis.findings:
        lines.append(f"{finding.level:10}{finding}")
    lines.append("training on this would be wrong" if diagnosis.wrong else "ready to train")
    return "\n".join(lines)


def fit_clock(lengths: Mapping[str, int], durations_s: Mapping[str, float]) -> tuple[Grid, float]:
    """Returns the common clock that explains the most lengths of features, and their share.

    Of equal shares, the clock whose differences vary least comes first: an extractor may drop an
    incomplete last window, but always in the same way.

    >>> fit_clock({"a": 94, "b": 157}, {"a": 60.0, "b": 100.0})
    (Grid(fps=25.0, stride_frames=16.0, window_frames=16.0), 1.0)
    """
    names = [name for name in lengths if name in durations_s]
    found = []
    for fps in _RATES:
        for stride in _STRIDES:
            grid = Grid(fps, stride, stride)
            off = [lengths[n] - grid.to_snippets(durations_s[n]) for n in names]
            fits = [fits_clock(lengths[n], durations_s[n], grid) for n in names]
            found.append((grid, float(np.mean(fits)), float(np.std(off))))
    grid, share, _ = min(found, key=lambda one: (-one[1], one[2]))
    return grid, share


# --- checks ---


def _open(layout: Layout, names: Sequence[str]) -> tuple[dict[str, Any], list[Finding]]:
    opened, findings = {}, []
    # W-TALC's single array is read as a whole.
    for group in [names] if layout.array is not None else [[name] for name in names]:
        try:
            opened |= benchmarks.open_all(layout, group)
        except InputError as error:
            findings.append(Finding("error", str(error), tuple(group)))
    return opened, _shortened(findings)


def _shortened(findings: list[Finding]) -> list[Finding]:
    """Shortens many findings of a kind to the first few, and one with the names of the rest."""
    if len(findings) <= _SEVERAL:
        return findings
    rest = tuple(name for finding in findings[_SEVERAL:] for name in finding.names)
    return [*findings[:_SEVERAL], Finding("error", "and as many others", rest)]


def _check_parts(layout: Layout) -> Iterator[Finding]:
    for part, listed in layout.names.items():
        if part == "test" and not listed:
            yield Finding("note", "test: no recordings, so there is no evaluation")
        misplaced = [n for n in listed if layout.parts.get(n) in {"train", "test"} - {part}]
        if misplaced:
            text = f"used to {part}, but the features are in another part's folder"
            yield Finding("warning", text, tuple(misplaced))


def _check_values(opened: Mapping[str, Any], progress) -> Iterator[Finding]:
    """Reads every recording, and compares its features with those of the others."""
    dims = Counter(array.shape[1] for array in opened.values() if array.ndim == 2)
    usual = dims.most_common(1)[0][0] if dims else None
    refused, constant = [], []
    for done, (name, array) in enumerate(opened.items()):
        progress(done, len(opened))
        try:
            check_features(name, array, dim=usual)
            values = np.asarray(array)
            check_finite(name, values)
            if isinstance(array, ShardFeatures) and digest_of(values) != array.digest:
                raise InputError(f"{name}: features in {array.path} are damaged: another digest")
        except ValueError as error:
            refused.append(Finding("error", str(error), (name,)))
            continue
        if len(values) > 1 and (values == values[0]).all():
            constant.append(name)
    progress(len(opened), len(opened))
    yield from _shortened(refused)
    if constant:
        text = "the same features in every snippet: extraction failed"
        yield Finding("error", text, tuple(constant))


def _check_clock(layout: Layout, lengths: Mapping[str, int]) -> tuple[str, list[Finding]]:
    known, grid = layout.annotations.recordings, layout.grid
    durations_s = {n: known[n].duration_s or 0.0 for n in lengths}
    durations_s = {name: duration_s for name, duration_s in durations_s.items() if duration_s > 0}
    clock = f"{grid.fps:g} fps, {grid.stride_frames:g} frames a snippet"
    if not durations_s:
        line = f"{clock}; the annotations have no durations to check it"
        return line, [Finding("warning", "no durations: the clock cannot be checked")]
    odd = tuple(
        n for n, duration_s in durations_s.items() if not fits_clock(lengths[n], duration_s, grid)
    )
    line = f"{clock}: explains {len(durations_s) - len(odd)} of {len(durations_s)} recordings"
    if not odd:
        return line, []
    best, share = fit_clock(lengths, durations_s)
    vary = max(durations_s.values()) > 1.1 * min(durations_s.values())
    if vary and len(set(lengths.values())) == 1:
        text = (
            f"every recording has {next(iter(lengths.values()))} snippets, whatever its "
            "duration: features that were rescaled to one length have no clock"
        )
        return line, [Finding("error", text)]
    if len(odd) > benchmarks.MAX_ODD_SHARE * len(durations_s):
        text = (
            f"lengths do not fit the clock; best of those tried: data.fps={best.fps:g} and "
            f"data.stride_frames={best.stride_frames:g}, which explain {100 * share:.0f} %"
        )
        return line, [Finding("error", text, odd)]
    text = "lengths do not fit the durations; durations are taken from the features"
    return line, [Finding("warning", text, odd)]


def _clicks(layout: Layout, *, required: bool) -> tuple[benchmarks.Clicks, list[Finding]]:
    """Returns the points of the training recordings, from the annotations or a point file."""
    names = [name for name in layout.names["train"] if name in layout.annotations.recordings]
    try:
        clicks, findings = benchmarks.read_clicks(layout, names)
    except InputError as error:
        clicks, findings = {}, [Finding("error", str(error))]
    pointless = tuple(n for n, r in clicks.items() if any(one.point_s is None for one in r))
    if pointless:
        findings.append(Finding("error", "train: instances without a point", pointless))
    if not required:
        findings = [dataclasses.replace(finding, level="note") for finding in findings]
    clicks = {n: tuple(one for one in r if one.point_s is not None) for n, r in clicks.items()}
    return clicks, findings


def _check_clicks(layout: Layout, clicks, ends_s: Mapping[str, float]) -> Iterator[Finding]:
    known = layout.annotations.recordings
    outside, astray, total = [], [], 0
    for name, instances in clicks.items():
        end_s = max(ends_s.get(name, 0.0), known[name].duration_s or 0.0)
        segments = [one for one in known[name].instances if one.start_s is not None]
        if len(segments) < len(known[name].instances):
            segments = []  # some instances are points alone, which lie in no segment
        for one in instances:
            total += 1
            if end_s and not 0 <= one.point_s < end_s:
                outside.append(name)
            elif segments and not any(
                s.label == one.label and s.start_s <= one.point_s <= s.end_s for s in segments
            ):
                astray.append(name)
    if outside:
        text = f"{len(outside)} of {total} points are outside their recording"
        yield Finding("error", text, tuple(sorted(set(outside))))
    if astray:
        # A few points next to their segment are rounding; many are a wrong frame rate.
        level = "error" if len(astray) > benchmarks.MAX_ODD_SHARE * total else "warning"
        text = f"{len(astray)} of {total} points are in no segment of their class"
        yield Finding(level, text, tuple(sorted(set(astray))))


def _check_instances(layout: Layout, ends_s: Mapping[str, float]) -> Iterator[Finding]:
    known = layout.annotations.recordings
    for part, listed in layout.names.items():
        found = {"beyond": [], "reversed": [], "empty": [], "twice": [], "none": []}
        for name in listed:
            if name not in known:
                continue
            segments = [(one.label, *one.segment) for one in known[name].instances if one.segment]
            end_s = ends_s.get(name, known[name].duration_s or np.inf)
            found["beyond"] += [name for _, start_s, _ in segments if start_s >= end_s]
            found["reversed"] += [name for _, start_s, stop_s in segments if stop_s < start_s]
            found["empty"] += [name for _, start_s, stop_s in segments if stop_s == start_s]
            found["twice"] += [name] * (len(segments) - len(set(segments)))
            found["none"] += [] if known[name].instances else [name]
        missed = "cannot be detected, and count as missed" if part == "test" else "are not used"
        for key, text in (
            ("beyond", f"segments begin after the end of their recording: they {missed}"),
            ("reversed", "segments end before they start"),
            ("empty", "segments are empty"),
            ("twice", "segments occur twice"),
            ("none", "recordings without an annotation"),
        ):
            if found[key]:
                level = "error" if key == "reversed" else "warning"
                unique = tuple(dict.fromkeys(found[key]))
                yield Finding(level, f"{part}: {len(found[key])} {text}", unique)


def _check_labelled(layout: Layout) -> Iterator[Finding]:
    """Counts background points and done stretches, and those that lie outside their recording."""
    known = layout.annotations.recordings
    for part, listed in layout.names.items():
        own = {name: known[name] for name in listed if name in known}
        partly = {name: one for name, one in own.items() if one.done_s is not None}
        background = tuple(name for name, one in own.items() if one.background_s)
        if partly:
            done_s = sum(
                end_s - start_s for r in partly.values() for start_s, end_s in r.done_s or ()
            )
            if part == "test":
                text = "partly done: detections in the rest of them count as wrong"
                yield Finding("warning", f"test: {text}", tuple(partly))
            else:
                count = sum(len(one.done_s or ()) for one in partly.values())
                text = f"partly done, {count} done stretches of {done_s:.1f} s; the rest is unknown"
                yield Finding("note", f"train: {text}", tuple(partly))
        if background and part == "train":
            count = sum(len(own[name].background_s) for name in background)
            yield Finding("note", f"train: {count} background points", background)
        cut = [name for name, one in own.items() if _leaves(one)]
        if cut:
            text = "background points or done stretches reach outside their recording: they are cut"
            yield Finding("warning", f"{part}: {text}", tuple(cut))


def _leaves(annotation: RecordingAnnotation) -> bool:
    end_s = annotation.duration_s or np.inf
    times = [*annotation.background_s, *(time for pair in annotation.done_s or () for time in pair)]
    return any(not 0 <= time <= end_s + ROUNDING_S for time in times)


def _check_classes(layout: Layout, clicks: benchmarks.Clicks) -> Iterator[Finding]:
    known = layout.annotations.recordings

    def labels(part):
        return {o.label for n in layout.names[part] if n in known for o in known[n].instances}

    pointed = {one.label for instances in clicks.values() for one in instances}
    trained = pointed if clicks else labels("train")
    untaught = sorted(labels("test") - trained)
    if untaught:
        text = f"classes of test recordings without a training instance: {', '.join(untaught)}"
        yield Finding("error", text)
    untested = sorted(trained - labels("test"))
    if untested and labels("test"):
        yield Finding("note", f"classes without a test instance: {', '.join(untested)}")


def _choices(layout: Layout) -> Iterator[Finding]:
    """Notes what codebases treat differently."""
    known, names = layout.annotations.recordings, layout.names
    some = tuple(name for name in _LEFT_OUT_BY_SOME if name in known)
    if some:
        kept = [name for name in some if name in names["test"]]
        text = (
            f"some codebases leave these out, here {len(kept)} of {len(some)} are tested on; "
            "choose by data.split=files or subsets"
        )
        yield Finding("note", text, some)
    ambiguous = tuple(name for name in names["test"] if name in layout.ambiguous)
    if ambiguous:
        text = (
            "have ambiguous segments; detections that overlap them count, unless "
            "evaluation.drop_ambiguous=True"
        )
        yield Finding("note", text, ambiguous)
    pair, listed = {"CliffDiving", "Diving"}, map(set, layout.annotations.overlapping)
    if pair <= set(layout.annotations.classes) and pair not in listed:
        text = (
            "every CliffDiving is a Diving as well: both are kept, and neither is a negative of "
            "the other; data.overlapping=() makes them negatives"
        )
        yield Finding("note", text)


# --- counting ---


def _counts(listed: Sequence[str], known, clicks, ends_s) -> dict[str, float]:
    instances = [one for name in listed if name in known for one in known[name].instances]
    return {
        "recordings": sum(name in ends_s for name in listed),
        "hours": sum(ends_s.get(name, 0.0) for name in listed) / 3600,
        "segments": sum(one.start_s is not None for one in instances),
        "points": sum(len(clicks.get(name, ())) for name in listed),
        "background_points": sum(len(known[name].background_s) for name in listed if name in known),
        "partly_done": sum(known[name].done_s is not None for name in listed if name in known),
        "classes": len({one.label for one in instances}),
    }


def _describe(opened: Mapping[str, Any]) -> str:
    if not opened:
        return "none"
    dims = sorted({array.shape[-1] for array in opened.values()})
    types = sorted({str(array.dtype) for array in opened.values()})
    lengths = [len(array) for array in opened.values()]
    size = sum(np.prod(array.shape) * array.dtype.itemsize for array in opened.values())
    files = all(isinstance(array, LazyFeatures) for array in opened.values())
    return (
        f"{len(opened)} recordings of {min(lengths)} to {max(lengths)} snippets, D "
        f"{', '.join(map(str, dims))}, {', '.join(types)}, {size / 1e9:.2f} GB"
        f"{'' if files else ' held in memory'}"
    )
