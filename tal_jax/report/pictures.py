"""Draws `report.png`: one test recording, what each round found in it, and the mAP of each round."""

import colorsys
import dataclasses
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tal_jax.data.files import write_bytes
from tal_jax.report.workdir import Curves, Recording, Round, Span, Work, match_detections, read_workdir, shown_threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Chosen by a search for the largest least distance of any two in OKLab, as seen with normal, red-blind and green-blind
# eyes, among colours that stand out from white and from near black; ordered so that the first few differ most.
_PALETTE = (
    *("#3e75f5", "#9bd05f", "#e5425f", "#6ecff1", "#785d10", "#ba91ff"),
    *("#3d5789", "#d09019", "#faa0b1", "#bc44bd", "#9c295a", "#158e73"),
)
_GOLDEN_ANGLE = 0.5 * (3 - math.sqrt(5))  # as a part of the whole circle

_WIDTH_PX, _DPI = 1600, 160
_WINDOW_S = 180.0  # more than this of a recording makes its short instances too thin to see
_INK, _MUTED, _LINE = "#161b22", "#5b6573", "#dfe3e9"
_AT_LANE = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
_CHARACTER_PX = 9  # at 7 points
_FIRST_ROUND, _LAST_ROUND = (0.66, 0.73, 0.89), (0.11, 0.27, 0.72)


def class_colours(count: int) -> list[str]:
    """Picks a colour for each class, for light and dark backgrounds alike.

    Args:
      count: the number of classes.

    Returns:
      `count` colours as `#rrggbb`. Up to 12 are told apart by colour-blind readers; those beyond step around the hues
      by the golden angle, so that neighbours differ.

    >>> class_colours(2)
    ['#3e75f5', '#9bd05f']
    """
    further = (
        colorsys.hls_to_rgb(i * _GOLDEN_ANGLE % 1, (0.42, 0.62, 0.52)[i % 3], 0.6) for i in range(len(_PALETTE), count)
    )
    return [*_PALETTE[:count], *("#" + "".join(f"{round(255 * part):02x}" for part in rgb) for rgb in further)]


def write_picture(
    workdir: str | os.PathLike, path: str | os.PathLike | None = None, recording: str | None = None
) -> Path:
    """Draws one test recording with the ground truth, the detections of every round and the scores.

    Args:
      workdir: the folder of a run.
      path: the PNG to write; `report.png` in the folder by default.
      recording: the test recording to draw; by default the one in which most different classes lie close together.

    Returns:
      The path of the picture, 1600 pixels wide.

    Raises:
      ValueError: if the folder has no test recordings or not this one, or matplotlib is not installed.
      OSError: if the picture cannot be written.
    """
    work = read_workdir(workdir)
    shown = _pick_recording(work, recording)
    window = _pick_window(shown)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("pictures need matplotlib: install it, or tal_jax with its extra, tal_jax[demo]") from error
    scene = _Scene(work, shown, window, _shown_rounds(work, shown))
    content = io.BytesIO()
    _draw(scene, Figure, FigureCanvasAgg).savefig(content, format="png", dpi=_DPI)
    path = Path(path) if path is not None else work.path / "report.png"
    write_bytes(path, content.getvalue())
    return path


@dataclasses.dataclass(frozen=True)
class _Scene:
    """What the picture shows: a window of a recording, and each round's detections above the threshold."""

    work: Work
    recording: Recording
    window: tuple[float, float]
    rounds: tuple[tuple[str, tuple[Span, ...]], ...]

    @property
    def labels(self) -> list[int]:
        spans = [*self.recording.instances, *(span for _, spans in self.rounds for span in spans)]
        return sorted({span.label for span in _inside(spans, self.window)})


def _pick_recording(work: Work, name: str | None) -> Recording:
    if not work.test:
        raise ValueError(f"no test recordings to draw in {str(work.path)!r}: expected ground_truth.json or detections")
    if name is None:
        return max(work.test, key=lambda one: _interest(one, _pick_window(one)))
    found = next((one for one in work.test if one.name == name), None)
    if found is None:
        raise ValueError(f"no test recording {name!r} in {str(work.path)!r}, expected one like {work.test[0].name!r}")
    return found


def _pick_window(recording: Recording) -> tuple[float, float]:
    """The stretch of at most `_WINDOW_S` with the most to see, from just before an instance on."""
    length_s = min(recording.duration_s, _WINDOW_S)
    latest = recording.duration_s - length_s
    starts = {0.0} | {min(max(span.start_s - 2.0, 0.0), latest) for span in recording.instances}
    start = max(sorted(starts), key=lambda at: _interest(recording, (at, at + length_s)))
    return start, start + length_s


def _interest(recording: Recording, window: tuple[float, float]) -> tuple[int, int]:
    """Different classes first, then the number of instances: many in one window are short ones."""
    inside = _inside(recording.instances, window)
    return len({span.label for span in inside}), len(inside)


def _inside(spans: Iterable[Span], window: tuple[float, float]) -> list[Span]:
    return [span for span in spans if span.end_s > window[0] and span.start_s < window[1]]


def _shown_rounds(work: Work, recording: Recording) -> tuple[tuple[str, tuple[Span, ...]], ...]:
    """Each round's detections above the score that leaves as many in the last round as there are instances."""
    count = sum(len(one.instances) for one in work.test)
    threshold = shown_threshold(work.rounds[-1].detections, count) if work.rounds else 0.0
    return tuple(
        (one.name, tuple(span for span in one.detections.get(recording.name, ()) if span.score >= threshold))
        for one in work.rounds
    )


def _draw(scene: _Scene, figure_type: type["Figure"], canvas_type: Any) -> "Figure":
    """Places the panels; all sizes in inches."""
    evaluated = [one for one in scene.work.rounds if one.evaluation and one.evaluation.get("map")]
    curves = scene.work.curves.get(scene.recording.name)
    lanes = 0.43 * (len(scene.rounds) + bool(scene.recording.instances))
    scores = 1.15 if curves is not None else 0.0
    columns = 6
    legend = 0.23 * math.ceil(len(scene.labels) / columns) + 0.1
    top, gap, axis = 0.62, 0.12 if scores else 0.0, 0.5
    height = top + lanes + gap + scores + axis + legend
    left, right = 1.2, 2.55 if evaluated else 0.2
    width = _WIDTH_PX / _DPI - left - right

    figure = figure_type(figsize=(_WIDTH_PX / _DPI, height), dpi=_DPI, facecolor="white")
    canvas_type(figure)

    def panel(x: float, y: float, panel_width: float, panel_height: float) -> "Axes":
        total = _WIDTH_PX / _DPI
        return figure.add_axes((x / total, y / height, panel_width / total, panel_height / height))

    lowest = legend + axis
    lane_axes = panel(left, lowest + scores + gap, width, lanes)
    _draw_lanes(lane_axes, scene, pixels_a_second=width * _DPI / (scene.window[1] - scene.window[0]))
    if curves is not None:
        score_axes = panel(left, lowest, width, scores)
        _draw_scores(score_axes, scene, curves)
        lane_axes.tick_params(labelbottom=False)
    if evaluated:
        chart_height = min(2.6, lanes + gap + scores - 0.05)
        chart = panel(left + width + 0.62, lowest + lanes + gap + scores - chart_height, right - 0.62 - 0.2, chart_height)
        _draw_map(chart, evaluated)
    _draw_title(figure, scene, left, height)
    _draw_legend(figure, scene, left, height, columns)
    return figure


def _draw_lanes(axes: "Axes", scene: _Scene, *, pixels_a_second: float) -> None:
    colours = class_colours(len(scene.work.classes))
    instances = _inside(scene.recording.instances, scene.window)
    labels = []
    if scene.recording.instances:
        labels.append(("ground truth", f"{len(instances)} instances"))
        for span in instances:
            _bar(axes, span, 0, colours[span.label], 1.0)
            _name_bar(axes, scene, span, pixels_a_second)
    best = max((span.score for _, spans in scene.rounds for span in spans), default=1.0)
    for name, spans in scene.rounds:
        found = match_detections(instances, spans)
        for span in sorted(_inside(spans, scene.window), key=lambda span: span.score):
            _bar(axes, span, len(labels), colours[span.label], 0.25 + 0.7 * max(0.0, min(1.0, span.score / best)))
        for i, span in enumerate(instances):
            if i not in found:
                _bar(axes, span, len(labels), "none", 1.0, edge="#c92a3e", linestyle=(0, (2, 1.5)), linewidth=1.1)
        labels.append((name, f"{len(found)} of {len(instances)} found" if instances else f"{len(spans)} detections"))
    axes.set_ylim(max(len(labels), 1), 0)
    axes.set_yticks([])
    for i, (name, note) in enumerate(labels):
        axes.annotate(name, (0, i + 0.38), (-9, 0), **_AT_LANE, va="bottom", fontsize=9.5, weight="bold", color=_INK)
        axes.annotate(note, (0, i + 0.5), (-9, 0), **_AT_LANE, va="top", fontsize=7.5, color=_MUTED)
        axes.axhline(i + 1, color=_LINE, linewidth=0.8)
    _style_time(axes, scene.window)


def _bar(axes: "Axes", span: Span, lane: int, colour: str, alpha: float, *, edge: str | None = None, **line: Any) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (span.start_s, lane + 0.14),
            span.end_s - span.start_s,
            0.72,
            facecolor=colour if colour == "none" else to_rgba(colour, alpha),
            edgecolor=edge or to_rgba(colour, min(1.0, alpha + 0.3)),
            **({"linewidth": 0.8} | line),
        )
    )


def _name_bar(axes: "Axes", scene: _Scene, span: Span, pixels_a_second: float) -> None:
    """Writes the class into a ground-truth bar that is long enough for it."""
    start, end = max(span.start_s, scene.window[0]), min(span.end_s, scene.window[1])
    name, colour = scene.work.classes[span.label], class_colours(len(scene.work.classes))[span.label]
    if len(name) * _CHARACTER_PX > (end - start) * pixels_a_second - 8:
        return
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 150 else _INK
    axes.text((start + end) / 2, 0.5, name, fontsize=7, ha="center", va="center", color=ink)


def _draw_scores(axes: "Axes", scene: _Scene, curves: Curves) -> None:
    colours = class_colours(len(scene.work.classes))
    times_s = (np.arange(len(curves.background)) + 0.5) * curves.stride_s
    for label in scene.labels:
        if label < curves.classes.shape[1]:
            axes.fill_between(times_s, curves.classes[:, label], color=colours[label], alpha=0.2, linewidth=0)
            axes.plot(times_s, curves.classes[:, label], color=colours[label], linewidth=1.1)
    axes.plot(times_s, curves.background, color="#8a94a3", linewidth=0.8, linestyle=(0, (3, 1.5)))
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 1], ["0", "1"])
    axes.annotate("scores", (0, 0.62), (-9, 0), **_AT_LANE, va="bottom", fontsize=9.5, weight="bold", color=_INK)
    axes.annotate("background dashed", (0, 0.52), (-9, 0), **_AT_LANE, va="top", fontsize=7.5, color=_MUTED)
    axes.tick_params(axis="y", labelsize=7.5, colors=_MUTED, length=0, pad=2)
    _style_time(axes, scene.window)


def _style_time(axes: "Axes", window: tuple[float, float]) -> None:
    step = next((step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600) if (window[1] - window[0]) / step <= 10), 1800)
    ticks = np.arange(math.ceil(window[0] / step), math.floor(window[1] / step) + 1) * step
    axes.set_xlim(*window)
    axes.set_xticks(ticks, [f"{int(tick) // 60}:{int(tick) % 60:02d}" for tick in ticks])
    axes.tick_params(axis="x", labelsize=8.5, colors=_MUTED, length=0, pad=5)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(_LINE)


def _draw_map(axes: "Axes", rounds: Sequence[Round]) -> None:
    for i, one in enumerate(rounds):
        part = i / (len(rounds) - 1) if len(rounds) > 1 else 1.0
        colour = [a + part * (b - a) for a, b in zip(_FIRST_ROUND, _LAST_ROUND, strict=True)]
        label = f"{one.name}, average {one.evaluation['average_map']:.3f}".replace(" 0.", " .")
        axes.plot(one.evaluation["tious"], one.evaluation["map"], "o-", color=colour, linewidth=1.8, markersize=3.5, label=label)
    axes.set_title("mAP per temporal IoU", fontsize=9.5, weight="bold", color=_INK, loc="left", pad=8)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(labelsize=8.5, colors=_MUTED, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.2g}".replace("0.", "."))
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.06, -0.1), fontsize=8, frameon=False, labelcolor=_INK, handlelength=1.4, labelspacing=0.35
    )


def _draw_title(figure: "Figure", scene: _Scene, left: float, height: float) -> None:
    total = _WIDTH_PX / _DPI
    figure.text(0.2 / total, 1 - 0.2 / height, scene.work.name, fontsize=14, weight="bold", color=_INK, va="top")
    start, end = (f"{int(time) // 60}:{int(time) % 60:02d}" for time in scene.window)
    text = f"test recording {scene.recording.name}, {start} – {end}"
    figure.text(left / total, 1 - 0.24 / height, text, fontsize=10, color=_MUTED, va="top")


def _draw_legend(figure: "Figure", scene: _Scene, left: float, height: float, columns: int) -> None:
    from matplotlib.patches import Patch

    colours = class_colours(len(scene.work.classes))
    handles = [Patch(color=colours[label], label=scene.work.classes[label]) for label in scene.labels]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(left / 10, 0.06 / height), ncols=columns, fontsize=8,
        frameon=False, handlelength=0.9, handleheight=0.9, columnspacing=1.2, labelcolor=_INK, borderaxespad=0)
