"""Draws `report.png`: detections in a test recording, and the mAP, of each round and stage."""

import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tal_jax._errors import InputError
from tal_jax.data.annotations import RecordingAnnotation
from tal_jax.data.files import write_bytes
from tal_jax.data.predictions import RecordingPredictions
from tal_jax.evaluation.matching import found_instances
from tal_jax.report.pages import FLAT_CURVE
from tal_jax.report.palette import class_colours
from tal_jax.report.workdir import Round, Work, read_workdir, thresholds_of, truth_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN, _DPI = 10.0, 160
_WINDOW_S = 180.0  # in a longer window, short instances are too thin to see
_CHARACTERS = 90  # this many characters of a class name fit across the window
_TIOU = 0.5

Window = tuple[float, float]
Entry = Mapping[str, Any]  # ActivityNet: {"label", "segment", "score"}


def write_picture(
    workdir: str | os.PathLike, path: str | os.PathLike | None = None, recording: str | None = None
) -> Path:
    """Draws a test recording: ground truth, detections of each round and stage, score sequences.

    Args:
      workdir: the folder of a run.
      path: the PNG to write; `report.png` in the folder by default.
      recording: name of the test recording; by default that with the most classes in a short time.

    Returns:
      The path of the picture, 1600 pixels wide.

    Raises:
      InputError: if the folder has no test recording, or none of this name, or matplotlib is
        missing.
      OSError: if the picture cannot be written.
    """
    work = read_workdir(workdir)
    name = _pick_recording(work, recording)
    path = Path(path) if path is not None else work.path / "report.png"
    content = io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack the script of a name.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        _draw(work, name).savefig(content, format="png")
    write_bytes(path, content.getvalue())
    return path


def _pick_recording(work: Work, name: str | None) -> str:
    if not work.test:
        raise InputError(
            f"no test recordings in {str(work.path)!r}: expected ground_truth.json or detections"
        )
    if name is None:
        return max(work.test, key=lambda name: _interest(work.test[name], _window(work.test[name])))
    if name not in work.test:
        raise InputError(
            f"no test recording {name!r} in {str(work.path)!r}, "
            f"expected a name like {next(iter(work.test))!r}"
        )
    return name


def _window(recording: RecordingAnnotation) -> Window:
    """The interval of at most `_WINDOW_S` with the most classes, then the most instances."""
    duration_s = recording.duration_s or 0.0
    length_s = min(max(duration_s, 1.0), _WINDOW_S)
    latest = max(duration_s - length_s, 0.0)
    starts = {0.0}
    for one in truth_of(recording):
        starts.add(min(max(one["segment"][0] - 2.0, 0.0), latest))
    start = max(sorted(starts), key=lambda at: _interest(recording, (at, at + length_s)))
    return start, start + length_s


def _interest(recording: RecordingAnnotation, window: Window) -> tuple[int, int]:
    inside = [
        one["label"]
        for one in truth_of(recording)
        if window[0] <= one["segment"][0] and one["segment"][1] <= window[1]
    ]
    return len(set(inside)), len(inside)


def _draw(work: Work, name: str) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "pictures need matplotlib: install it, or tal_jax with its extra, tal_jax[demo]"
        ) from error
    window = _window(work.test[name])
    evaluated = [one for one in work.rounds if one.evaluation and one.evaluation.get("map")]
    scores = work.scores.get(name)
    colours = dict(zip(work.classes, class_colours(len(work.classes)), strict=True))

    num_rows = len(work.rounds) + bool(truth_of(work.test[name]))
    heights = [0.45 * max(num_rows, 2)] + ([1.15] if scores else [])
    rows = [["timeline"], ["scores"]][: len(heights)]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights) + 1.6), dpi=_DPI, layout="constrained")
    mosaic: Any = [row + ["map"] * bool(evaluated) for row in rows]
    axes = figure.subplot_mosaic(
        mosaic,
        height_ratios=heights,
        width_ratios=[5, 2] if evaluated else [1],
    )
    labels = _draw_timeline(axes["timeline"], work, name, window, colours)
    lowest = axes["timeline"]
    if scores is not None:
        lowest = axes["scores"]
        lowest.sharex(axes["timeline"])
        axes["timeline"].tick_params(labelbottom=False)
        columns = {label: work.classes.index(label) for label in labels}
        _draw_scores(lowest, scores, columns, colours)
    _style_time(lowest, window)
    if evaluated:
        _draw_map(axes["map"], evaluated)
    title = f"{_short(work.name)}: test recording {_short(name)}, "
    title += " – ".join(map(_clock, window))
    if work.rounds and truth_of(work.test[name]):
        title += f"; dashed: missed at tIoU {_TIOU}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left").set_parse_math(False)
    _draw_legend(figure, {label: colours[label] for label in labels})
    return figure


def _draw_timeline(
    axes: "Axes", work: Work, name: str, window: Window, colours: dict[str, str]
) -> list[str]:
    """Draws ground truth and detections above the default threshold; returns their labels."""
    truth = truth_of(work.test[name])
    count = sum(len(truth_of(one)) for one in work.test.values())
    thresholds = thresholds_of({one.name: one.detections for one in work.rounds}, count)
    visible, titles = [one for one in truth if _is_inside(one, window)], []
    if truth:
        _draw_bars(axes, 0, truth, facecolors=[colours[one["label"]] for one in truth])
        _name_bars(axes, visible, window, colours)
        titles.append(f"ground truth\n{len(visible)} instances")
    drawn = list(visible)
    for one, threshold in zip(work.rounds, thresholds, strict=True):
        shown = [entry for entry in one.detections.get(name, ()) if entry["score"] >= threshold]
        _draw_detections(axes, len(titles), shown, colours)
        missed = [entry for entry in _missed(truth, shown) if _is_inside(entry, window)]
        style = {"facecolors": "none", "edgecolors": "black", "linestyle": "--"}
        _draw_bars(axes, len(titles), missed, **style)
        found = f"{len(visible) - len(missed)} of {len(visible)} found"
        titles.append(f"{one.name}\n{found if truth else f'{len(shown)} detections'}")
        drawn += [entry for entry in shown if _is_inside(entry, window)]
    axes.set_yticks(np.arange(len(titles)) + 0.5, titles)
    axes.set_ylim(max(len(titles), 1), 0)
    return sorted({one["label"] for one in drawn}, key=work.classes.index)


def _draw_detections(
    axes: "Axes", row: int, detections: Iterable[Entry], colours: dict[str, str]
) -> None:
    """Draws detections, paler the lower their score, the highest score on top."""
    rising = sorted(detections, key=lambda one: one["score"])
    best = rising[-1]["score"] if rising and rising[-1]["score"] > 0 else 1.0
    edges = [colours[one["label"]] for one in rising]
    strengths = [0.2 + 0.5 * max(one["score"] / best, 0) for one in rising]
    shades = [_pale(*pair) for pair in zip(edges, strengths, strict=True)]
    _draw_bars(axes, row, rising, facecolors=shades, edgecolors=edges)


def _missed(truth: Sequence[Entry], detections: Sequence[Entry]) -> list[Entry]:
    """The instances that the evaluation does not match at `_TIOU`."""
    database, results = {"": {"annotations": truth}}, {"": detections}
    found = found_instances({"database": database}, {"results": results}, tiou=_TIOU)[""]
    return [one for one, matched in zip(truth, found, strict=True) if not matched]


def _is_inside(one: Entry, window: Window) -> bool:
    return one["segment"][1] > window[0] and one["segment"][0] < window[1]


def _draw_bars(axes: "Axes", row: int, entries: Iterable[Entry], **style: Any) -> None:
    ranges = [(one["segment"][0], one["segment"][1] - one["segment"][0]) for one in entries]
    axes.broken_barh(ranges, (row + 0.14, 0.72), **{"edgecolors": "white", **style})


def _name_bars(
    axes: "Axes", truth: Iterable[Entry], window: Window, colours: dict[str, str]
) -> None:
    """Writes the class into the ground-truth bars that are long enough."""
    for one in truth:
        start_s, end_s = max(one["segment"][0], window[0]), min(one["segment"][1], window[1])
        if len(one["label"]) <= _CHARACTERS * (end_s - start_s) / (window[1] - window[0]):
            dark = np.dot((0.299, 0.587, 0.114), _rgb(colours[one["label"]])) < 0.6
            style: dict[str, Any] = {"color": "white" if dark else "black", "parse_math": False}
            style |= {"ha": "center", "va": "center", "fontsize": 8}
            axes.text((start_s + end_s) / 2, 0.5, one["label"], **style)


def _draw_scores(
    axes: "Axes", scores: RecordingPredictions, columns: dict[str, int], colours: dict[str, str]
) -> None:
    cas, background = scores.original.cas, 1 - scores.original.actionness
    times_s = scores.grid.to_seconds(np.arange(len(background)) + 0.5)
    for label, column in columns.items():
        if column < cas.shape[1] and cas[:, column].max() >= FLAT_CURVE:
            axes.fill_between(times_s, cas[:, column], color=colours[label], alpha=0.2, linewidth=0)
            axes.plot(times_s, cas[:, column], color=colours[label], linewidth=1.1)
    axes.plot(times_s, background, color="grey", linewidth=0.8, linestyle="--")
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("scores (dashed:\nbackground)", fontsize=9)


def _style_time(axes: "Axes", window: Window) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(*window)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 1.5, 2, 3, 6, 10], integer=True))
    axes.xaxis.set_major_formatter(lambda time_s, _: _clock(time_s))


def _draw_map(axes: "Axes", rounds: Sequence[Round]) -> None:
    import matplotlib

    shades = matplotlib.colormaps["Blues"](np.linspace(0.4, 1, len(rounds)))
    for one, shade in zip(rounds, shades, strict=True):
        evaluation = one.evaluation or {}
        values = np.array(evaluation["map"], float)  # null becomes NaN
        average = float(np.array(evaluation.get("average_map", np.nan), float))
        label = f"{one.name}, average {average:.3f}"
        axes.plot(evaluation["tious"], values, "o-", color=shade, markersize=3.5, label=label)
    axes.set_title("mAP at each tIoU", fontsize=10)
    axes.legend(fontsize=8)


def _draw_legend(figure: "Figure", colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=label) for label, colour in colours.items()]
    columns = max(1, int(120 / (6 + max(map(len, colours), default=1))))
    place = {"loc": "outside lower left", "ncols": columns, "frameon": False}
    legend = figure.legend(handles=handles, fontsize=9, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _rgb(colour: str) -> np.ndarray:
    """Red, green and blue of `#rrggbb`, 0 to 1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def _pale(colour: str, strength: float) -> np.ndarray:
    """The colour mixed with white; opaque, so that bars behind it do not show."""
    return np.clip(1 - strength * (1 - _rgb(colour)), 0, 1)


def _short(name: str) -> str:
    return name if len(name) <= 32 else name[:31] + "…"


def _clock(time_s: float) -> str:
    return f"{int(time_s) // 60}:{int(time_s) % 60:02d}"
