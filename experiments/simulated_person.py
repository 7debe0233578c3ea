r"""What the order of questions is worth: a simulated person answers them from the true segments.

    python experiments/simulated_person.py --config auto:hapt --data DIR --workdir /tmp/person
    python experiments/simulated_person.py --config auto --set data.folder=FOLDER \
        --set data.points=uniform --workdir /tmp/person --answers 200 --every 20

Nothing is labelled at first. Every `--every` answers the networks are trained, at first from the
beginning and then from the last ones (`retraining_config`), and asked about the next places.

- Orders: `suggested` asks what `inference.suggestions` proposes, `random` about random times.
- Answers: at a time within an action, a click (a point); elsewhere, a background point. A detection
  with a tIoU of at least .75 is confirmed: it becomes a segment. One that overlaps an action of its
  class less is nudged to the true segment, and any other is answered like a time, its middle.
  A stretch that may be complete is done; or there is a click in the first action that was missed,
  at a time drawn uniformly in what of it lies in the stretch.
- `all` is trained once on a point in every action, everything done: what there is to reach.

Writes answers.csv (a row for each training), table.md and, with matplotlib, curve.png into the
work directory. Finished trainings are kept, so that a repeated call continues.
"""

import argparse
import collections
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import ml_collections
import numpy as np

from tal_jax import fit, load_dataset, retraining_config
from tal_jax._errors import InputError
from tal_jax.config import load_config, override
from tal_jax.data import files
from tal_jax.data.annotations import merge_stretches
from tal_jax.data.recordings import Dataset, Point, Recording, Segment
from tal_jax.evaluation.matching import iou_of
from tal_jax.inference.forward import Fitted, predict_recordings
from tal_jax.inference.predict import mean_predictions, predict_stages
from tal_jax.inference.suggestions import (
    Place,
    labelled_stretches,
    stretches_between,
    suggest,
)
from tal_jax.runs.workdir import threshold_of_run

ALL, SUGGESTED, RANDOM = "all", "suggested", "random"
ORDERS = (ALL, SUGGESTED, RANDOM)
COLUMNS = (
    *("order", "seed", "answers", "average_map", "seconds"),
    *("confirm", "nudge", "click", "background", "done"),
)
ENOUGH = 0.95  # of the mAP of all clicks
SAME_TIOU = 0.75  # of a detection whose ends a person leaves as they are

Truth = dict[str, list[tuple[int, Segment]]]  # of each recording, class and segment of its actions


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="name of a config, or path of a .py file")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the trainings")
    parser.add_argument("--data", help="folder of data sets; default $TAL_JAX_DATA")
    parser.add_argument("--set", action="append", default=[], help="section.key=value; repeatable")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="default %(default)s")
    parser.add_argument("--orders", default=",".join(ORDERS), help="default %(default)s")
    parser.add_argument("--answers", type=int, default=200, help="in all; default %(default)s")
    parser.add_argument("--every", type=int, default=20, help="answers between two trainings")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    for assignment in arguments.set:
        override(config, assignment)
    orders = arguments.orders.split(",")
    if unknown := set(orders) - set(ORDERS):
        raise SystemExit(f"--orders {min(unknown)}; expected some of {', '.join(ORDERS)}")

    rows = []
    # Seed by seed, so that a stopped call has compared something.
    for seed in map(int, arguments.seeds.split(",")):
        config = ml_collections.ConfigDict(config.to_dict())
        config.seed = seed
        dataset = load_dataset(config, arguments.data)
        for order in orders:
            folder = arguments.workdir / order / f"seed_{seed}"
            if order == ALL:
                trainings = [_train_all(dataset, config, folder)]
            else:
                given = arguments.answers, arguments.every
                trainings = label(dataset, config, folder, order, *given)
            for row in trainings:
                rows.append({"order": order, "seed": seed, **row})
                print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
                write(arguments.workdir, rows)
    print(format_table(rows))


# --- one person ---


def label(
    dataset: Dataset, config, folder: Path, order: str, answers: int, every: int
) -> Iterator[dict]:
    """Asks, trains and asks again; yields a row for each training.

    Args:
      dataset: of which the training recordings are labelled.
      config: of the first training.
      folder: of the trainings.
      order: "suggested" or "random".
      answers: how many to give in all.
      every: how many between two trainings.
    """
    truth = true_actions(dataset)
    labelled = {
        one.name: dataclasses.replace(one, points=(), labels=None, background_s=(), done_s=())
        for one in dataset.train
    }
    counts: collections.Counter = collections.Counter()
    fitted: list[Fitted] = []
    before, last = None, None  # work directories
    while counts.total() < answers:
        recordings = list(labelled.values())
        wanted = min(every, answers - counts.total())
        rng = np.random.default_rng([config.seed, counts.total()])
        if order == RANDOM:
            places = _random_places(recordings, wanted, rng)
        else:
            places = _suggested(recordings, dataset.classes, fitted, last, wanted)
        if not places:
            return  # nothing is left to ask about
        for place in places:
            recording = labelled[place.recording]
            # Another answer to this queue may have labelled it since.
            kind, recording = answer(place, recording, truth[place.recording], dataset.classes)
            labelled[place.recording] = recording
            counts[kind] += 1
        if not any(recording.points for recording in labelled.values()):
            continue  # nothing to learn from yet
        before, last = last, folder / f"answers_{counts.total():04}"
        trained = _labelled_part(dataset, labelled)
        began = time.monotonic()
        own = config if before is None else retraining_config(before)
        options = {} if before is None else {"start_from": before}
        found = fit(trained, own, workdir=last, report=lambda line: None, **options)
        fitted = [*fitted[-1:], found]
        # The programs of some twenty trainings are more memory maps than a process may have.
        jax.clear_caches()
        yield _row(last, counts.total(), time.monotonic() - began) | dict(counts)


def true_actions(dataset: Dataset) -> Truth:
    """The actions of the training recordings; an InputError if one has no true segment."""
    known = dataset.train_truth or {}
    truth: Truth = {}
    for recording in dataset.train:
        segments = known.get(recording.name, (None,) * len(recording.points))
        for point, segment in zip(recording.points, segments, strict=True):
            if segment is None:
                raise InputError(
                    f"{recording.name}: the action at {point.time_s:g} s has no true segment; "
                    "expected one of every training action, to answer from"
                )
            truth.setdefault(recording.name, []).append((point.label, segment))
        truth.setdefault(recording.name, [])
    return truth


def answer(
    place: Place, recording: Recording, actions: Sequence[tuple[int, Segment]], classes
) -> tuple[str, Recording]:
    """The answer to a question, and the recording with the label that it gives."""
    if place.segment_s is not None and place.label is None:
        return _complete(place, recording, actions)
    if place.segment_s is not None:
        own = [segment for label, segment in actions if classes[label] == place.label]
        tious = iou_of(np.array(own).reshape(-1, 2), np.array(place.segment_s))
        if tious.any():
            kind = "confirm" if tious.max() >= SAME_TIOU else "nudge"
            segment = place.segment_s if kind == "confirm" else own[tious.argmax()]
            return kind, _with_segment(recording, classes.index(place.label), segment)
    for label, (start_s, end_s) in actions:
        if start_s <= place.time_s < end_s:
            return "click", _with_point(recording, Point(place.time_s, label))
    times_s = sorted({*recording.background_s, place.time_s})
    return "background", dataclasses.replace(recording, background_s=tuple(times_s))


def _complete(
    place: Place, recording: Recording, actions: Sequence[tuple[int, Segment]]
) -> tuple[str, Recording]:
    """A stretch is done, or an action in it is clicked that has no label yet."""
    for label, (start_s, end_s) in actions:
        low_s, high_s = max(start_s, place.segment_s[0]), min(end_s, place.segment_s[1])
        labels = (point.time_s for point in recording.points if point.label == label)
        if low_s < high_s and not any(start_s <= time_s < end_s for time_s in labels):
            rng = np.random.default_rng([int(1000 * low_s), *recording.name.encode()])
            return "click", _with_point(recording, Point(rng.uniform(low_s, high_s), label))
    done_s = merge_stretches([*recording.done_s, place.segment_s])
    return "done", dataclasses.replace(recording, done_s=done_s)


def _with_segment(recording: Recording, label: int, segment: Segment) -> Recording:
    """A segment label replaces the points of its class in it, and what contradicts it."""
    start_s, end_s = segment
    kept = [
        point
        for point in recording.points
        if point.label != label or not start_s <= point.time_s < end_s
    ]
    point = Point((start_s + end_s) / 2, label, segment)
    snippet = int(recording.grid.to_snippets(point.time_s))
    background_s = tuple(
        time_s
        for time_s in recording.background_s
        if not start_s <= time_s < end_s and int(recording.grid.to_snippets(time_s)) != snippet
    )
    recording = dataclasses.replace(recording, points=tuple(kept), background_s=background_s)
    return _with_point(recording, point)


def _with_point(recording: Recording, point: Point) -> Recording:
    points = sorted([*recording.points, point], key=lambda one: (one.time_s, one.label))
    return dataclasses.replace(recording, points=tuple(points))


# --- what is asked ---


def _suggested(
    recordings: Sequence[Recording],
    classes: Sequence[str],
    fitted: Sequence[Fitted],
    workdir: Path | None,
    count: int,
) -> list[Place]:
    if workdir is None:
        return suggest(recordings, classes, count=count)
    now = fitted[-1]
    rounds = [
        predict_recordings(now, number, recordings, lengthen=False)
        for number in range(len(now.params))
    ]
    found = predict_stages(now, recordings, mean_predictions(rounds))
    if len(fitted) > 1:  # the training before disagrees where this one has learned something
        one = fitted[0]
        rounds.append(predict_recordings(one, len(one.params) - 1, recordings, lengthen=False))
    scores = {
        recording.name: [one[recording.name].original for one in rounds] for recording in recordings
    }
    threshold = threshold_of_run(workdir)
    return suggest(
        recordings, classes, scores=scores, detections=found, threshold=threshold, count=count
    )


def _random_places(
    recordings: Sequence[Recording], count: int, rng: np.random.Generator
) -> list[Place]:
    """Random times of which nothing is known, uniformly over all of it."""
    gaps = []
    for recording in recordings:
        between = stretches_between(labelled_stretches(recording), recording.duration_s)
        gaps += [(recording.name, *gap) for gap in between]
    if not gaps:
        return []
    lengths_s = np.array([end_s - start_s for _, start_s, end_s in gaps])
    # More than needed, since some are near others.
    chosen = rng.choice(len(gaps), 10 * count, p=lengths_s / lengths_s.sum())
    places = []
    windows_s = {one.name: one.grid.window_frames / one.grid.fps for one in recordings}
    for index in chosen:
        name, start_s, end_s = gaps[index]
        place = Place(name, float(rng.uniform(start_s, end_s)), None, None, RANDOM, 1.0)
        near = (abs(one.time_s - place.time_s) for one in places if one.recording == name)
        if min(near, default=np.inf) >= windows_s[name]:
            places.append(place)
    return places[:count]


# --- trainings ---


def _train_all(dataset: Dataset, config, folder: Path) -> dict:
    began = time.monotonic()
    fit(dataset, config, workdir=folder, report=lambda line: None)
    count = sum(len(recording.points) for recording in dataset.train)
    return _row(folder, count, time.monotonic() - began) | {"click": count}


def _labelled_part(dataset: Dataset, labelled: dict[str, Recording]) -> Dataset:
    """The recordings with any label, as `load_dataset` would have them."""
    train = tuple(one for one in labelled.values() if one.points or one.background_s or one.done_s)
    return dataclasses.replace(dataset, train=train, train_truth=None)


def _row(workdir: Path, answers: int, seconds: float) -> dict:
    score = files.read_json(workdir / "evaluation.json")["average_map"]
    return {"answers": answers, "average_map": round(score, 4), "seconds": round(seconds, 1)}


# --- results ---


def write(workdir: Path, rows: Sequence[dict]) -> None:
    """Writes the rows so far, their table and, with matplotlib, the curve."""
    lines = [COLUMNS, *([row.get(name, 0) for name in COLUMNS] for row in rows)]
    files.write_csv(workdir / "answers.csv", lines)
    files.write_bytes(workdir / "table.md", format_table(rows).encode())
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for order in ORDERS:
        curve = _means(rows, order)
        if order == ALL and curve:
            axes.axhline(
                *[100 * mean for mean, _, _ in curve.values()], ls="--", c="gray", label=ALL
            )
        elif curve:
            means, deviations = (np.array([one[i] for one in curve.values()]) for i in (0, 1))
            line = axes.plot(list(curve), 100 * means, marker=".", label=order)[0]
            band = 100 * (means - deviations), 100 * (means + deviations)
            axes.fill_between(list(curve), *band, color=line.get_color(), alpha=0.2, lw=0)
    axes.set(xlabel="answers", ylabel="average mAP in %")
    axes.legend()
    files.write_filled(workdir / "curve.png", lambda file: figure.savefig(file, format="png"))


def _means(rows: Sequence[dict], order: str) -> dict[int, tuple[float, float, int]]:
    """Mean, standard deviation and number of the seeds at each number of answers."""
    scores: dict[int, list[float]] = {}
    for row in rows:
        if row["order"] == order:
            # All clicks are as many with every seed.
            scores.setdefault(row["answers"], []).append(row["average_map"])
    return {
        answers: (float(np.mean(own)), float(np.std(own, ddof=min(1, len(own) - 1))), len(own))
        for answers, own in sorted(scores.items())
    }


def format_table(rows: Sequence[dict]) -> str:
    """A Markdown table of the mean mAP by number of answers, and when it is enough."""
    curves = {order: _means(rows, order) for order in ORDERS}
    asked = sorted({answers for curve in curves.values() for answers in curve})
    lines = ["average mAP in %, mean ± standard deviation (seeds)", ""]
    lines += [f"| answers | {' | '.join(ORDERS)} |", "|---" * (len(ORDERS) + 1) + "|"]
    for answers in asked:
        cells = []
        for order in ORDERS:
            mean, deviation, count = curves[order].get(answers, (None, 0.0, 0))
            cells.append(
                "-" if mean is None else f"{100 * mean:.1f} ± {100 * deviation:.1f} ({count})"
            )
        lines.append(f"| {answers} | {' | '.join(cells)} |")
    if curves[ALL]:
        clicks, (goal, _, _) = next(iter(curves[ALL].items()))
        lines.append("")
        for order in (SUGGESTED, RANDOM):
            enough = [n for n, (mean, _, _) in curves[order].items() if mean >= ENOUGH * goal]
            share = f"{enough[0]} answers, {enough[0] / clicks:.0%}" if enough else "not reached"
            lines.append(f"{ENOUGH:.0%} of the mAP of all {clicks} clicks, {order}: {share}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
