"""Draws `report.png`: one test recording, what each round found in it, and each round's mAP."""

import colorsys
import dataclasses
import io
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tal_jax.data.files import write_bytes
from tal_jax.report.workdir import (
    FLAT_CURVE,
    Curves,
    Recording,
    Round,
    Span,
    Work,
    match_detections,
    read_workdir,
    shown_threshold,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Chosen by a search for the largest least distance of any two in OKLab, as seen with normal,
# red-blind and green-blind eyes, among colours that stand out from white and from near black;
# ordered so that the first few differ most.
_PALETTE = (
    *("#3e75f5", "#9bd05f", "#e5425f", "#6ecff1", "#785d10", "#ba91ff"),
    *("#3d5789", "#d09019", "#faa0b1", "#bc44bd", "#9c295a", "#158e73"),
)
_GOLDEN_ANGLE = 0.5 * (3 - math.sqrt(5))  # as a part of the whole circle

_WIDTH_PX, _DPI = 1600, 160
_WINDOW_S = 180.0  # more than this of a recording makes its short instances too thin to see
_INK, _MUTED, _LINE = "#161b22", "#5b6573", "#dfe3e9"
_MISSED, _DASHED = "#c92a3e", (0, (2.5, 1.5))
_CHARACTER_PX = 10  # at 8 points
_FIRST_ROUND, _LAST_ROUND = np.array([0.66, 0.73, 0.89]), np.array([0.11, 0.27, 0.72])


def class_colours(count: int) -> list[str]:
    """Picks a colour for each class, for light and dark backgrounds alike.

    Args:
      count: the number of classes.

    Returns:
      `count` colours as `#rrggbb`. Colour-blind readers tell the first 12 apart; those beyond
      step around the hues by the golden angle, so that neighbours differ.

    >>> class_colours(2)
    ['#3e75f5', '#9bd05f']
    """
    further = (
        colorsys.hls_to_rgb(i * _GOLDEN_ANGLE % 1, (0.42, 0.62, 0.52)[i % 3], 0.6)
        for i in range(len(_PALETTE), count)
    )
    return [
        *_PALETTE[:count],
        *("#" + "".join(f"{round(255 * part):02x}" for part in rgb) for rgb in further),
    ]


def write_picture(
    workdir: str | os.PathLike, path: str | os.PathLike | None = None, recording: str | None = None
) -> Path:
    """Draws one test recording with the ground truth, the detections of every round and the scores.

    Args:
      workdir: the folder of a run.
      path: the PNG to write; `report.png` in the folder by default.
      recording: the test recording to draw; by default the one in which most different classes
        lie close together.

    Returns:
      The path of the picture, 1600 pixels wide.

    Raises:
      ValueError: if the folder has no test recording, or not this one, or matplotlib is missing.
      OSError: if the picture cannot be written.
    """
    work = read_workdir(workdir)
    shown = _pick_recording(work, recording)
    window = _pick_window(shown)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "pictures need matplotlib: install it, or tal_jax with its extra, tal_jax[demo]"
        ) from error
    scene = _Scene(work, shown, window, _shown_rounds(work, shown))
    content = io.BytesIO()
    with warnings.catch_warnings():
        # a name may be in a script that the font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing")
        _draw(scene, Figure, FigureCanvasAgg).savefig(content, format="png", dpi=_DPI)
    path = Path(path) if path is not None else work.path / "report.png"
    write_bytes(path, content.getvalue())
    return path


@dataclasses.dataclass(frozen=True)
class _Scene:
    """What the picture shows: a window of a recording, and the detections of each round in it."""

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
        raise ValueError(
            f"no test recordings in {str(work.path)!r}: expected ground_truth.json or detections"
        )
    if name is None:
        return max(work.test, key=lambda one: _interest(one, _pick_window(one)))
    found = next((one for one in work.test if one.name == name), None)
    if found is None:
        raise ValueError(
            f"no test recording {name!r} in {str(work.path)!r}, "
            f"expected a name like {work.test[0].name!r}"
        )
    return found


def _pick_window(recording: Recording) -> tuple[float, float]:
    """The stretch of at most `_WINDOW_S` with the most to see, from just before an instance on."""
    length_s = min(max(recording.duration_s, 1.0), _WINDOW_S)
    latest = max(recording.duration_s - length_s, 0.0)
    starts = {0.0} | {min(max(span.start_s - 2.0, 0.0), latest) for span in recording.instances}
    start = max(sorted(starts), key=lambda at: _interest(recording, (at, at + length_s)))
    return start, start + length_s


def _interest(recording: Recording, window: tuple[float, float]) -> tuple[int, int]:
    """Different classes first, then the number of instances: many in one window are short ones."""
    inside = [
        span
        for span in recording.instances
        if window[0] <= span.start_s and span.end_s <= window[1]
    ]
    return len({span.label for span in inside}), len(inside)


def _inside(spans: Iterable[Span], window: tuple[float, float]) -> list[Span]:
    return [span for span in spans if span.end_s > window[0] and span.start_s < window[1]]


def _shown_rounds(work: Work, recording: Recording) -> tuple[tuple[str, tuple[Span, ...]], ...]:
    """The detections of each round, from the score on that leaves as many as annotated."""
    count = sum(len(one.instances) for one in work.test)
    threshold = shown_threshold(work.rounds[-1].detections, count) if work.rounds else 0.0
    return tuple(
        (
            one.name,
            tuple(
                span for span in one.detections.get(recording.name, ()) if span.score >= threshold
            ),
        )
        for one in work.rounds
    )


def _draw(scene: _Scene, figure_type: type["Figure"], canvas_type: type) -> "Figure":
    """Places the panels; all sizes in inches."""
    evaluated = [one for one in scene.work.rounds if one.evaluation and one.evaluation.get("map")]
    curves = scene.work.curves.get(scene.recording.name)
    total, left, right = _WIDTH_PX / _DPI, 1.42, 2.55 if evaluated else 0.2
    width = total - left - right
    longest = max((len(scene.work.classes[label]) for label in scene.labels), default=1)
    columns = max(1, int((total - left) / (0.4 + 0.082 * longest)))
    lanes = 0.45 * max(len(scene.rounds) + bool(scene.recording.instances), 1)
    scores, gap = (1.15, 0.12) if curves is not None else (0.0, 0.0)
    lowest = 0.44 + 0.22 * math.ceil(len(scene.labels) / columns)  # the time axis and the legend
    height = lowest + scores + gap + lanes + 0.62

    figure = figure_type(figsize=(total, height), dpi=_DPI, facecolor="white")
    canvas_type(figure)

    def panel(x: float, y: float, panel_width: float, panel_height: float) -> "Axes":
        return figure.add_axes((x / total, y / height, panel_width / total, panel_height / height))

    lane_axes = panel(left, lowest + scores + gap, width, lanes)
    _draw_lanes(
        lane_axes, scene, pixels_a_second=width * _DPI / (scene.window[1] - scene.window[0])
    )
    if curves is not None:
        _draw_scores(panel(left, lowest, width, scores), scene, curves)
        lane_axes.tick_params(labelbottom=False)
    if evaluated:
        tall = scores + gap + lanes
        chart = min(2.5, max(tall - 0.25 * len(evaluated), 1.0))
        _draw_map(panel(left + width + 0.62, lowest + tall - chart, right - 0.82, chart), evaluated)
    _draw_title(figure, scene, left, height)
    _draw_legend(figure, scene, left / total, 0.08 / height, columns)
    return figure


def _draw_lanes(axes: "Axes", scene: _Scene, *, pixels_a_second: float) -> None:
    colours = class_colours(len(scene.work.classes))
    instances = _inside(scene.recording.instances, scene.window)
    labels = []
    if scene.recording.instances:
        labels.append(("ground truth", f"{len(instances)} instances"))
        for span in instances:
            _draw_bar(
                axes, span, 0, facecolor=colours[span.label], edgecolor="white", linewidth=0.8
            )
            _name_bar(axes, scene, span, colours[span.label], pixels_a_second)
    best = max((span.score for _, spans in scene.rounds for span in spans), default=1.0)
    for name, spans in scene.rounds:
        matched = match_detections(scene.recording.instances, spans)
        found = {scene.recording.instances[i] for i in matched}
        for span in sorted(_inside(spans, scene.window), key=lambda span: span.score):
            strength = 0.25 + 0.7 * max(0.0, span.score / best) if best > 0 else 0.25
            colour = colours[span.label]
            _draw_bar(
                axes,
                span,
                len(labels),
                facecolor=_paled(colour, strength),
                edgecolor=colour,
                linewidth=0.8,
            )
        missed = [span for span in instances if span not in found]
        for span in missed:
            _draw_bar(
                axes,
                span,
                len(labels),
                facecolor="none",
                edgecolor=_MISSED,
                linewidth=1.1,
                linestyle=_DASHED,
            )
        labels.append(
            (
                name,
                f"{len(instances) - len(missed)} of {len(instances)} found"
                if instances
                else f"{len(spans)} detections",
            )
        )
    axes.set_ylim(max(len(labels), 1), 0)
    axes.set_yticks([])
    for i, (name, note) in enumerate(labels):
        _label_lane(axes, i + 0.45, name, note)
        axes.axhline(i + 1, color=_LINE, linewidth=0.8)
    _style_time(axes, scene.window)


def _draw_bar(axes: "Axes", span: Span, lane: int, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((span.start_s, lane + 0.14), span.end_s - span.start_s, 0.72, **style))


def _name_bar(axes: "Axes", scene: _Scene, span: Span, colour: str, pixels_a_second: float) -> None:
    """Writes the class into a ground-truth bar that is long enough for it."""
    start, end = max(span.start_s, scene.window[0]), min(span.end_s, scene.window[1])
    name = scene.work.classes[span.label]
    if len(name) * _CHARACTER_PX <= (end - start) * pixels_a_second - 8:
        ink = "white" if np.dot((0.299, 0.587, 0.114), _parts(colour)) < 0.6 else _INK
        axes.text(
            (start + end) / 2,
            0.5,
            name,
            fontsize=8,
            ha="center",
            va="center",
            color=ink,
            parse_math=False,
        )


def _label_lane(axes: "Axes", y: float, name: str, note: str) -> None:
    place: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "ha": "right",
    }
    axes.annotate(
        name, (0, y), (-10, 0), va="bottom", fontsize=10, weight="bold", color=_INK, **place
    )
    axes.annotate(note, (0, y), (-10, -2), va="top", fontsize=8, color=_MUTED, **place)


def _draw_scores(axes: "Axes", scene: _Scene, curves: Curves) -> None:
    colours = class_colours(len(scene.work.classes))
    times_s = (np.arange(len(curves.background)) + 0.5) * curves.stride_s
    for label in scene.labels:
        if label < curves.classes.shape[1] and curves.classes[:, label].max() >= FLAT_CURVE:
            axes.fill_between(
                times_s, curves.classes[:, label], color=colours[label], alpha=0.2, linewidth=0
            )
            axes.plot(times_s, curves.classes[:, label], color=colours[label], linewidth=1.1)
    axes.plot(times_s, curves.background, color="#8a94a3", linewidth=0.8, linestyle=_DASHED)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 1], ["0", "1"])
    axes.tick_params(axis="y", labelsize=8, colors=_MUTED, length=0, pad=2)
    _label_lane(axes, 0.5, "scores", "dashed: background")
    _style_time(axes, scene.window)


def _style_time(axes: "Axes", window: tuple[float, float]) -> None:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
    step = next((step for step in steps if (window[1] - window[0]) / step <= 10), 1800)
    ticks = np.arange(math.ceil(window[0] / step), math.floor(window[1] / step) + 1) * step
    axes.set_xlim(*window)
    axes.set_xticks(ticks, [_clock(tick) for tick in ticks])
    axes.tick_params(axis="x", labelsize=9, colors=_MUTED, length=0, pad=5)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(_LINE)


def _draw_map(axes: "Axes", rounds: Sequence[Round]) -> None:
    for i, one in enumerate(rounds):
        evaluation = one.evaluation or {}
        part = i / (len(rounds) - 1) if len(rounds) > 1 else 1.0
        colour = (1 - part) * _FIRST_ROUND + part * _LAST_ROUND
        values = np.array(evaluation["map"], float)  # None, which is JSON's NaN, becomes NaN
        average = float(np.nan_to_num(np.array(evaluation.get("average_map", np.nan), float)))
        label = f"{one.name}, average " + f"{average:.3f}".removeprefix("0")
        axes.plot(
            evaluation["tious"],
            values,
            "o-",
            color=colour,
            linewidth=1.8,
            markersize=3.5,
            label=label,
        )
    axes.set_title(
        "mAP per temporal IoU", fontsize=10, weight="bold", color=_INK, loc="left", pad=8
    )
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(labelsize=9, colors=_MUTED, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.3g}".replace("0.", "."))
    below = axes.get_position().height * axes.figure.get_figheight()
    place = {"loc": "upper left", "bbox_to_anchor": (-0.08, -0.25 / below)}
    axes.legend(
        **place, fontsize=8.5, frameon=False, labelcolor=_INK, handlelength=1.4, labelspacing=0.35
    )


def _draw_title(figure: "Figure", scene: _Scene, left: float, height: float) -> None:
    style: dict[str, Any] = {"va": "baseline", "parse_math": False}
    total, y = _WIDTH_PX / _DPI, 1 - 0.36 / height
    title = figure.text(
        0.2 / total, y, _short(scene.work.name), fontsize=15, weight="bold", color=_INK, **style
    )
    end = title.get_window_extent().x1 / _WIDTH_PX
    window = " – ".join(map(_clock, scene.window))
    text = f"test recording {_short(scene.recording.name)}, {window}"
    if scene.rounds and scene.recording.instances:
        text += "; dashed red: missed at IoU .5"
    figure.text(max(left / total, end + 0.02), y, text, fontsize=10, color=_MUTED, **style)


def _draw_legend(figure: "Figure", scene: _Scene, x: float, y: float, columns: int) -> None:
    from matplotlib.patches import Patch

    colours = class_colours(len(scene.work.classes))
    handles = [
        Patch(color=colours[label], label=scene.work.classes[label]) for label in scene.labels
    ]
    place = {
        "loc": "lower left",
        "bbox_to_anchor": (x, y),
        "ncols": columns,
        "borderaxespad": 0,
        "borderpad": 0,
    }
    size = {"fontsize": 9, "handlelength": 0.9, "handleheight": 0.9, "columnspacing": 1.4}
    legend = figure.legend(handles=handles, frameon=False, labelcolor=_INK, **place, **size)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _parts(colour: str) -> np.ndarray:
    """Red, green and blue of `#rrggbb`, 0 to 1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def _paled(colour: str, strength: float) -> np.ndarray:
    """The colour mixed with white, so that what lies behind a bar does not change it."""
    return np.clip(1 - strength * (1 - _parts(colour)), 0, 1)


def _short(name: str) -> str:
    return name if len(name) <= 32 else name[:31] + "…"


def _clock(time_s: float) -> str:
    return f"{int(time_s) // 60}:{int(time_s) % 60:02d}"
