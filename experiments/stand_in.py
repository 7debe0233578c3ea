"""Writes made-up features for the recordings of an annotation file, in a layout of the field.

    python experiments/stand_in.py --annotations gt_full.json --layout joined --out DIR

The features show that a system runs at full size; nothing measured on them is a result.
`synthetic.py` says what they are made of, and which files each layout has. They lie
on the grid of the field's I3D features: 25 frames a second, 16 frames a snippet.
"""

import time

import numpy as np
import synthetic
from absl import app, flags

from tal_jax.data import files
from tal_jax.data.annotations import parse_annotations
from tal_jax.data.clock import Grid

_ANNOTATIONS = flags.DEFINE_string("annotations", None, "ActivityNet JSON.", required=True)
_LAYOUT = flags.DEFINE_enum("layout", None, synthetic.LAYOUTS, "Which files.", required=True)
_OUT = flags.DEFINE_string("out", None, "A new or an empty folder.", required=True)
_DIM = flags.DEFINE_integer("dim", 2048, "Features of a snippet.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the features and the points.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Type of the features.")

_GRID = Grid(fps=25, stride_frames=16, window_frames=16)


def main(argv: list[str]) -> None:
    """Runs the script."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    began = time.monotonic()
    values = files.read_json(_ANNOTATIONS.value)
    for line in drop_late_instances(values):
        print(line)
    annotations = parse_annotations(values, source=_ANNOTATIONS.value)
    synthetic.write_stand_in(
        _OUT.value,
        annotations,
        layout=_LAYOUT.value,
        grid=_GRID,
        dim=_DIM.value,
        seed=_SEED.value,
        dtype=np.dtype(_DTYPE.value),
    )
    print(f"{_OUT.value}: {_LAYOUT.value}, {time.monotonic() - began:.0f} s")
    print("These features are made up: a stand-in that shows that a system runs, and no result.")


def drop_late_instances(values: dict) -> list[str]:
    """Takes out instances that begin after their recording's end; returns a line on each recording.

    THUMOS14's published file has 30 of them, in five recordings.
    """
    lines = []
    for name, recording in values.get("database", {}).items():
        if "duration" not in recording:
            continue  # refused when it is read
        end_s, instances = recording["duration"], recording["annotations"]
        kept = [i for i in instances if "segment" not in i or i["segment"][0] < end_s]
        if len(kept) < len(instances):
            dropped = f"{len(instances) - len(kept)} of {len(instances)} instances"
            lines.append(f"{name}: left out {dropped}, which begin after its end at {end_s:g} s")
            recording["annotations"] = kept
    return lines


if __name__ == "__main__":
    app.run(main)
