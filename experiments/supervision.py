r"""What each kind of label buys: mAP and minutes of annotation, from video labels to segments.

    python experiments/supervision.py --config auto:watch --labels watch_hamnet:document \
        --workdir /tmp/supervision
    python experiments/supervision.py --config auto:hapt --labels hapt_hamnet:document --data DIR \
        --workdir /tmp/supervision

The same training recordings, with labels of one kind after another: which classes a recording has
(trained by the config of --labels), clicks, segments of a share of the recordings and clicks in the
others, segments. Clicks are drawn uniformly in their instances, around the middle (Gaussian) or in
it; *as people click* has uniform ones of which 3 % lie beside their instance and 4 % are missing.
Minutes are those of a person who takes a second for a class of a recording, 3 for a click and 12
for a segment. Finished trainings are kept; a repeated call trains the others and prints the table.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from tal_jax import fit
from tal_jax.config import load_config, override
from tal_jax.data import files
from tal_jax.data.recordings import Dataset, Point, Recording, Segment, labels_of
from tal_jax.datasets.load import load_dataset
from tal_jax.runs import evaluate

LABEL_S, CLICK_S, SEGMENT_S = 1.0, 3.0, 12.0
OUTSIDE, MISSING = 0.03, 0.04

# Titles of the table, and the settings of `data` that they stand for.
LABELS, AS_PEOPLE = "labels", "clicks_as_people"
KINDS: dict[str, tuple[str, dict]] = {
    LABELS: ("video labels", {}),
    "clicks": ("clicks, uniform", {"points": "uniform"}),
    "clicks_gaussian": ("clicks, Gaussian", {"points": "gaussian"}),
    "clicks_center": ("clicks in the middle", {"points": "center"}),
    AS_PEOPLE: ("clicks, uniform, as people click", {"points": "uniform"}),
    "mixed_10": ("segments of 10 %, else clicks", {"supervision": "mixed", "segments_share": 0.1}),
    "mixed_30": ("segments of 30 %, else clicks", {"supervision": "mixed", "segments_share": 0.3}),
    "segments": ("segments", {"supervision": "segments"}),
}


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="config of the trainings with points")
    parser.add_argument("--labels", help="config of the training with video labels; default none")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the trainings")
    parser.add_argument("--data", help="folder of data sets; default $TAL_JAX_DATA")
    parser.add_argument("--set", action="append", default=[], help="section.key=value; repeatable")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="default %(default)s")
    parser.add_argument("--kinds", help=f"some of {', '.join(KINDS)}; default all")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",") if arguments.kinds else list(KINDS)
    kinds = [kind for kind in kinds if kind != LABELS or arguments.labels]

    # Seed by seed, so that a stopped call has compared something.
    for seed in map(int, filter(None, arguments.seeds.split(","))):
        for kind in kinds:
            config = load_config(arguments.labels if kind == LABELS else arguments.config)
            for assignment in [] if kind == LABELS else arguments.set:
                override(config, assignment)
            config.seed = seed
            train(config, kind, arguments.workdir / kind / f"seed_{seed}", arguments.data)
    table = format_table(arguments.workdir)
    files.write_bytes(arguments.workdir / "table.md", table.encode())
    print(table)


def train(config: ml_collections.ConfigDict, kind: str, workdir: Path, data: str | None) -> None:
    """Trains with labels of a kind, unless that is finished."""
    if (workdir / "minutes.json").exists():
        return
    config.data.update(KINDS[kind][1])
    dataset = load_dataset(config, data)
    if kind == AS_PEOPLE:
        dataset = as_people_click(dataset, config.seed)
    minutes = labels_minutes(dataset) if kind == LABELS else points_minutes(dataset)
    print(f"== {KINDS[kind][0]}, seed {config.seed}: {minutes:.0f} minutes of labels", flush=True)
    fit(dataset, config, workdir=workdir)
    jax.clear_caches()  # of many trainings, programs are more memory maps than a process may have
    files.write_json(workdir / "minutes.json", {"minutes": minutes})  # the run is finished


def labels_minutes(dataset: Dataset) -> float:
    """Minutes to list the classes of the training recordings."""
    return sum(len(labels_of(recording)) for recording in dataset.train) * LABEL_S / 60


def points_minutes(dataset: Dataset) -> float:
    """Minutes to place the points and segments of the training recordings."""
    points = [point for recording in dataset.train for point in recording.points]
    return sum(CLICK_S if point.segment_s is None else SEGMENT_S for point in points) / 60


def as_people_click(dataset: Dataset, seed: int) -> Dataset:
    """Some points missing, and some beside their instance, at most half its length away.

    A recording's only point is not left out.
    """

    def beside(point: Point, segment: Segment, whole_s: float, rng) -> Point:
        start_s, end_s = segment
        away_s = rng.uniform(0, 0.5) * (end_s - start_s)
        time_s = start_s - away_s if rng.random() < 0.5 else end_s + away_s
        # Short of the end, which is in no snippet.
        return dataclasses.replace(point, time_s=float(np.clip(time_s, 0, whole_s - 1e-3)))

    def one(recording: Recording) -> tuple[Recording, tuple[Segment | None, ...]]:
        rng = np.random.default_rng([seed, *recording.name.encode()])
        unknown = (None,) * len(recording.points)
        segments = (dataset.train_truth or {}).get(recording.name, unknown)
        kept = []
        for point, segment in zip(recording.points, segments, strict=True):
            fate = rng.random()
            if fate < MISSING and len(recording.points) > 1:
                continue
            if fate > 1 - OUTSIDE and segment is not None:
                point = beside(point, segment, recording.duration_s, rng)
            kept.append((point, segment))
        kept.sort(key=lambda pair: pair[0].time_s)
        points = tuple(point for point, _ in kept)
        return dataclasses.replace(recording, points=points), tuple(pair[1] for pair in kept)

    pairs = [one(recording) for recording in dataset.train]
    truth = {recording.name: segments for recording, segments in pairs}
    return dataclasses.replace(
        dataset, train=tuple(recording for recording, _ in pairs), train_truth=truth
    )


def format_table(root: Path) -> str:
    """mAP of the finished trainings, and the minutes of their labels."""
    rows = {}
    for kind, (title, _) in KINDS.items():
        finished = sorted((root / kind).glob("seed_*/minutes.json"))
        if finished:
            minutes = np.mean([files.read_json(path)["minutes"] for path in finished])
            title = f"{title} ({minutes:.0f} min)"
            rows[title] = [path.with_name("evaluation.json") for path in finished]
    return evaluate.format_seeds(rows)


if __name__ == "__main__":
    main()
