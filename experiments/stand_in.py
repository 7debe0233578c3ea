"""Writes synthetic features for the recordings of an annotation file, in a public layout.

    python experiments/stand_in.py --annotations gt_full.json --layout joined --out DIR

The features test a system at full size; no result can be measured on them. `synthetic.py` describes
them and the files of each layout. Their clock is that of public I3D features: 25 frames a second,
16 frames a snippet.
"""

import argparse
import time

import numpy as np
import synthetic

from tal_jax.data import files
from tal_jax.data.annotations import parse_annotations
from tal_jax.data.clock import Grid

_GRID = Grid(fps=25, stride_frames=16, window_frames=16)


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", required=True, help="ActivityNet JSON")
    parser.add_argument("--layout", required=True, choices=synthetic.LAYOUTS)
    parser.add_argument("--out", required=True, help="a new or an empty folder")
    parser.add_argument("--dim", type=int, default=2048, help="features of a snippet")
    parser.add_argument("--seed", type=int, default=0, help="of the features and the points")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    arguments = parser.parse_args()
    began = time.monotonic()
    values = files.read_json(arguments.annotations)
    for line in drop_late_instances(values):
        print(line)
    synthetic.write_stand_in(
        arguments.out,
        parse_annotations(values, source=arguments.annotations),
        layout=arguments.layout,
        grid=_GRID,
        dim=arguments.dim,
        seed=arguments.seed,
        dtype=np.dtype(arguments.dtype),
    )
    print(f"{arguments.out}: {arguments.layout}, {time.monotonic() - began:.0f} s")
    print(
        "These features are synthetic: they test a system, and no result can be measured on them."
    )


def drop_late_instances(values: dict) -> list[str]:
    """Removes instances that begin after the end of their recording; returns a line for each.

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
    main()
