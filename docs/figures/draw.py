"""Draws the figures of the site with the operations of the library.

Run `python docs/figures/draw.py [FOLDER]` after changing one; it rewrites all of them.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import tal_jax as tal
from tal_jax.ops import attention

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

BLUE, ORANGE, GREEN, GREY, PURPLE = "#3f51b5", "#e67300", "#2e7d32", "#8a8a8a", "#8e24aa"
plt.rcParams.update(
    {
        # The same bytes each time, and text that can be searched and scaled.
        "svg.hashsalt": "tal_jax",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
)


def _actions(length: int, segments: list[tuple[int, int]], *, seed: int, noise: float = 0.05):
    """A made-up class activation sequence: high inside the segments, smooth and noisy."""
    truth = np.zeros(length, bool)
    for start, end in segments:
        truth[start:end] = True
    rng = np.random.default_rng(seed)
    curve = np.convolve(0.08 + 0.8 * truth, [0.25, 0.5, 0.25], mode="same")
    return truth, jnp.asarray(np.clip(curve + rng.normal(0, noise, length), 0, 1), jnp.float32)


def clock():
    """Snippets, positions and seconds at 25 fps, stride 16, and a window wider than the stride."""
    figure, panels = plt.subplots(2, 1, figsize=(7.5, 3.4))
    cases = [
        (
            panels[0],
            tal.Grid(fps=25, stride_frames=16, window_frames=16),
            "fps 25, stride 16, window 16",
        ),
        (
            panels[1],
            tal.Grid(fps=50, stride_frames=25, window_frames=75),
            "fps 50, stride 25, window 75",
        ),
    ]
    for panel, grid, title in cases:
        stride = grid.stride_frames
        for i in range(5):
            panel.axvspan(i * stride, (i + 1) * stride, 0.35, 0.7, alpha=0.15 + 0.15 * (i % 2))
            panel.text((i + 0.5) * stride, 0.38, f"snippet {i}", ha="center", va="center")
        middle = 2.5 * stride
        half = grid.window_frames / 2
        panel.annotate(
            "",
            (middle - half, 0.2),
            (middle + half, 0.2),
            arrowprops={"arrowstyle": "<->", "color": ORANGE},
        )
        panel.plot([middle], [0.2], "o", color=ORANGE)
        label = f"window of snippet 2; its centre is position 2, {2.5 * grid.stride_s:g} s"
        panel.text(middle, 0.04, label, ha="center", color=ORANGE)
        edges = np.arange(6) * stride
        panel.set_xticks(edges, [f"{edge:g}\n{edge / grid.fps:g} s" for edge in edges])
        panel.set(ylim=(0, 0.72), yticks=[], xlim=(0, 5 * stride))
        panel.set_title(title, loc="left")
        panel.spines["left"].set_visible(False)
    return figure


def resampling():
    """Inverse-transform sampling gives a short proposal as many samples as `tau` snippets."""
    proposals = jnp.array([[10.0, 13.0], [20.0, 34.0]])
    _, curve = _actions(40, [(10, 13), (20, 34)], seed=3)
    weights = tal.compensation_weights(proposals, 40, tau=12.0)
    count = round(float(weights.sum()))
    longer = tal.resample(curve[:, None], weights, count)
    moved = tal.new_times(proposals, longer)

    figure, panels = plt.subplots(1, 3, figsize=(9, 2.7))
    old, warped, new = panels
    old.plot(np.arange(40) + 0.5, curve, ".-", color=BLUE, ms=4)
    old.set(title="old timeline: 40 snippets", xlabel="snippet")
    warped.plot(np.arange(41), longer.cumulative, color=BLUE)
    for position in np.asarray(longer.positions)[::2]:
        height = float(tal.warp(jnp.float32(position + 0.5), longer.cumulative))
        warped.plot([0, position + 0.5, position + 0.5], [height, height, 0], color=GREY, lw=0.4)
    warped.set(title="equal steps of the cumulative weight C", xlabel="old time", ylabel="C")
    warped.set(xlim=(0, 40), ylim=(0, count))
    new.plot(np.arange(count) + 0.5, longer.features[:, 0], ".-", color=BLUE, ms=4)
    new.set(title=f"new timeline: {count} snippets", xlabel="new snippet")
    for panel, segments in ((old, proposals), (warped, proposals), (new, moved)):
        for (start, end), colour in zip(np.asarray(segments), (ORANGE, GREEN), strict=True):
            panel.axvspan(start, end, color=colour, alpha=0.2, lw=0)
    return figure


def reassignment():
    """Two kinds of snippets: cosine similarities before and after EM attention."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(0, 1, (3, 16))
    order = np.repeat([0, 1, 0, 2, 1, 0], [12, 6, 10, 8, 6, 8])
    features = jnp.asarray(kinds[order] + rng.normal(0, 1.1, (len(order), 16)), jnp.float32)
    prototypes = jnp.asarray(kinds[[0, 1, 2, 0]] + rng.normal(0, 1.5, (4, 16)), jnp.float32)
    result = tal.reassign(features, prototypes, gamma=10.0, omega=0.7, num_iters=4)

    def similarity(rows):
        rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    figure, panels = plt.subplots(1, 3, figsize=(9, 2.9))
    panels[0].imshow(similarity(features), vmin=-1, vmax=1, cmap="RdBu_r")
    panels[0].set(title="cosine similarity of F", xlabel="snippet", ylabel="snippet")
    panels[1].imshow(result.assignments.T, aspect="auto", interpolation="nearest", cmap="Greys")
    panels[1].set(
        title="assignments Z (E step)", xlabel="snippet", ylabel="prototype", yticks=range(4)
    )
    image = panels[2].imshow(similarity(result.features), vmin=-1, vmax=1, cmap="RdBu_r")
    panels[2].set(title="cosine similarity of F' (after M)", xlabel="snippet")
    figure.colorbar(image, ax=panels[2], shrink=0.8)
    return figure


def contrast():
    """The inner and the outer region of a segment on a class activation sequence."""
    _, curve = _actions(40, [(14, 26)], seed=1)
    start, end = 14, 26
    score = float(tal.inner_outer_contrast(curve, jnp.array([[start, end]]))[0])
    short = float(tal.inner_outer_contrast(curve, jnp.array([[17, 22]]))[0])
    width = int(np.ceil(0.25 * (end - start) - 1e-4))
    outer = np.r_[start - width : start, end : end + width]
    inside, outside = float(curve[start:end].mean()), float(curve[outer].mean())

    figure, panel = plt.subplots(figsize=(7.5, 2.6))
    panel.bar(np.arange(40) + 0.5, curve, width=0.9, color="#c5cae9")
    panel.bar(np.arange(start, end) + 0.5, curve[start:end], width=0.9, color=GREEN, alpha=0.7)
    panel.bar(outer + 0.5, curve[outer], width=0.9, color=ORANGE, alpha=0.8)
    panel.hlines(inside, start, end, color=GREEN, lw=2)
    panel.hlines(outside, start - width, end + width, color=ORANGE, lw=2, ls="--")
    panel.text(end + width + 0.5, inside - 0.06, f"inner mean {inside:.2f}", color=GREEN)
    panel.text(end + width + 0.5, outside + 0.08, f"outer mean {outside:.2f}", color=ORANGE)
    panel.set(
        title=f"segment [14, 26): R = {inside:.2f} − {outside:.2f} = {score:.2f};"
        f"   for comparison, segment [17, 22): R = {short:.2f}",
        xlabel="snippet", ylabel="class activation", ylim=(0, 1.05), xlim=(0, 40),
    )  # fmt: skip
    return figure


def sequence():
    """Seeds from points and background probabilities, and the optimal sequence that they allow."""
    truth, scores = _actions(80, [(10, 22), (40, 44), (55, 75)], seed=0, noise=0.07)
    points = jnp.zeros(80, bool).at[jnp.array([13, 42, 70])].set(True)
    seeds = tal.mine_seeds(
        1 - scores, points[:, None], action_threshold=0.1, background_threshold=0.8
    )
    found = tal.optimal_sequence(scores, seeds.action[:, 0], seeds.background)

    figure, panel = plt.subplots(figsize=(9, 2.9))
    time = np.arange(80) + 0.5
    panel.fill_between(
        time, 1.1 * truth, step="mid", color=GREY, alpha=0.2, lw=0, label="true actions"
    )
    panel.plot(time, scores, color=BLUE, label="class activation sequence")
    panel.step(time, 1.06 * found.labels, where="mid", color=ORANGE, lw=2, label="optimal sequence")
    panel.plot(time[points], scores[points], "k^", ms=8, label="points")
    action = np.asarray(seeds.action[:, 0] & ~points)
    panel.plot(time[action], 0 * time[action] - 0.05, "s", ms=4, color=GREEN, label="action seeds")
    background = np.asarray(seeds.background)
    panel.plot(
        time[background],
        0 * time[background] - 0.05,
        "s",
        ms=4,
        color=PURPLE,
        label="background seeds",
    )
    panel.set(xlabel="snippet", ylim=(-0.12, 1.45), xlim=(0, 80))
    panel.legend(ncols=3, loc="upper center", fontsize=8)
    return figure


def attentions():
    """HAM-Net's soft, semi-soft and hard attention in both variants."""
    _, soft = _actions(40, [(6, 12), (20, 34)], seed=5, noise=0.03)
    soft = soft * jnp.where(jnp.arange(40) < 16, 0.6, 1.1)
    soft = jnp.clip(soft, 0, 0.97)
    document = {
        "semi-soft (τ .2, .8)": attention.semi_soft_attention(soft),
        "hard (drop 0.8)": attention.hard_attention(soft, jax.random.key(2)),
    }
    published = {
        "semi-soft (γ .2)": attention.published_semi_soft_attention(soft),
        "hard (γ .2)": attention.published_hard_attention(soft),
    }
    figure, rows = plt.subplots(2, 3, figsize=(9, 3.2), sharex=True, sharey=True)
    for panels, name, kinds in zip(
        rows, ("document", "published"), (document, published), strict=True
    ):
        curves = {"soft": soft} | kinds
        for panel, (title, curve) in zip(panels, curves.items(), strict=True):
            panel.fill_between(np.arange(40) + 0.5, curve, step="mid", color=BLUE, alpha=0.6, lw=0)
            panel.plot(np.arange(40) + 0.5, soft, color=ORANGE, lw=0.8)
            panel.set(title=f"{name}: {title}", ylim=(0, 1.05))
    for panel in rows[1]:
        panel.set_xlabel("snippet")
    return figure


def _box(panel, x, y, text, *, width, height=0.62, colour=BLUE):
    style = {"boxstyle": "round,pad=0.02", "fc": "white", "ec": colour, "lw": 1.3}
    panel.add_patch(matplotlib.patches.FancyBboxPatch((x, y), width, height, **style))
    panel.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def _arrow(panel, start, end, text="", *, curve=0.0, colour="black", dx=0.0, dy=0.1):
    style = {"arrowstyle": "-|>", "color": colour, "connectionstyle": f"arc3,rad={curve}"}
    panel.annotate("", end, start, arrowprops=style)
    if text:
        middle = ((start[0] + end[0]) / 2 + dx, (start[1] + end[1]) / 2 + dy)
        panel.text(*middle, text, ha="center", fontsize=8, color=colour)


def _blank(figsize, xlim, ylim):
    figure, panel = plt.subplots(figsize=figsize)
    panel.set(xlim=xlim, ylim=ylim, xticks=[], yticks=[])
    for spine in panel.spines.values():
        spine.set_visible(False)
    return figure, panel


def rounds():
    """The loop of rounds of the point-supervised system."""
    figure, panel = _blank((9, 3.3), (0, 10.2), (0, 3.5))
    _box(panel, 0.1, 1.4, "features F\npoints", width=1.3)
    _box(panel, 1.95, 1.4, "① compensation\nsampling", width=1.6)
    _box(panel, 4.1, 1.4, "network with\n② reassignment", width=1.6)
    _box(panel, 6.25, 1.4, "scores\n(CAS, actionness)", width=1.6)
    _box(panel, 8.4, 1.4, "proposals\n$S_z$ (JSON)", width=1.6, colour=ORANGE)
    _box(panel, 6.25, 0.1, "③ seeds, optimal sequence,\nbest segments", width=2.4, colour=GREEN)
    _box(panel, 2.9, 0.1, "④ $L_{vid}+L_{point}+L_{pres}+L_{ins}$", width=2.6, colour=GREEN)
    for left, right in ((1.45, 1.9), (3.6, 4.05), (5.75, 6.2), (7.9, 8.35)):
        _arrow(panel, (left, 1.71), (right, 1.71))
    _arrow(panel, (7.05, 1.36), (7.05, 0.78), "every 10 updates", colour=GREEN, dx=0.75, dy=-0.02)
    _arrow(panel, (6.2, 0.41), (5.57, 0.41), colour=GREEN)
    _arrow(panel, (4.5, 0.76), (4.85, 1.36), "gradient", colour=GREEN, dx=-0.55, dy=-0.03)
    _arrow(panel, (9.2, 2.08), (2.75, 2.08), curve=0.2, colour=ORANGE)
    lines = (
        "round z trains a fresh network; the proposals of round z − 1",
        "lengthen short actions (①) and become pseudo instances ($L_{ins}$)",
    )
    for line, height in zip(lines, (3.05, 2.8), strict=True):
        panel.text(6, height, line, ha="center", fontsize=8, color=ORANGE)
    return figure


def rooms():
    """The way of the data through the rooms of the package."""
    figure, panel = _blank((9, 4.3), (0, 11), (0, 4.7))
    stages = {
        "prepared": {
            "extraction": "recordings → features",
            "formats": "label files of other tools",
            "datasets": "folders → Dataset",
            "data": "types, clock, packing",
        },
        "trained": {
            "runs": "rounds, work directory",
            "training": "compiled updates",
            "methods": "rsmp, hamnet",
            "models": "Flax networks",
        },
        "predicted": {
            "inference": "scores → detections",
            "ops.localization": "threshold runs, OIC, NMS",
        },
        "evaluated": {"evaluation": "mAP, errors", "report": "pages, pictures"},
    }
    for column, (name, parts) in enumerate(stages.items()):
        x = 0.1 + 2.8 * column
        panel.text(x + 1.1, 4.2, name, ha="center", fontsize=11, weight="bold", color=BLUE)
        for row, (room, what) in enumerate(parts.items()):
            _box(panel, x, 3.4 - 0.78 * row, f"{room}\n{what}", width=2.1)
    for x, what in ((2.25, "Dataset"), (5.05, "networks"), (7.85, "detections")):
        _arrow(panel, (x, 3.71), (x + 0.6, 3.71))
        panel.text(x + 0.3, 4.08, what, ha="center", fontsize=7.5)
    shared = "ops, losses: pure functions of arrays, used by all of these rooms"
    _box(panel, 0.1, 0.2, shared, width=10.5, height=0.5, colour=GREEN)
    return figure


FIGURES = (clock, resampling, reassignment, contrast, sequence, attentions, rounds, rooms)


def main(folder: Path) -> None:
    """Writes every figure as FOLDER/<name>.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw in FIGURES:
        figure = draw()
        figure.savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
