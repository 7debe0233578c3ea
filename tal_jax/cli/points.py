"""`tal-jax points`: `make`, `convert` and `compare`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal_jax.cli import common

if TYPE_CHECKING:
    from tal_jax.data.annotations import Annotations

DISTRIBUTIONS = ("uniform", "gaussian", "center")

_POINTS = """\
ANNOTATIONS is ActivityNet JSON, LACP's gt.json, BMN's anet_anno_action.json, or a folder of
W-TALC's arrays (with --allow-pickle). Points are in ActivityNet JSON (key "point"), a .csv in
frames of the original videos, or a .txt of lines `video,seconds,label`. See
`tal-jax points COMMAND --help`.

  tal-jax points make gt_full.json --law uniform --seed 0 --output annotations.json
  tal-jax points convert point_labels.csv --annotations gt.json --fps-file fps_dict.json \\
      --output annotations.json
  tal-jax points compare THUMOS1.txt THUMOS2.txt --annotations gt_full.json
"""

_MAKE = """\
Draws one point label in each instance. It depends on the point distribution, the seed, the
recording's name and the index of the instance in the recording only. A .json records the
distribution and the seed; a .csv or a .txt holds the points alone. Instances outside their
recording get no point.

  tal-jax points make gt_full.json --law uniform --seed 0 --output annotations.json
  tal-jax points make gt_full.json --law gaussian --seed 1 --subset Validation --output points.csv
"""

_CONVERT = """\
Assigns each point to the instance of its recording and class that contains it, at most one to each;
points outside all instances are kept without a segment.

  tal-jax points convert point_labels.csv --annotations gt.json --fps-file fps_dict.json \\
      --output annotations.json
  tal-jax points convert THUMOS1.txt --annotations gt_full.json --output points.csv
"""

_COMPARE = """\
Pairs the nearest points of each recording and class, one to one. With --annotations, or segments in
A and B, also shows the positions of the points within their instances.

  tal-jax points compare THUMOS1.txt THUMOS2.txt --annotations gt_full.json
"""


def add_commands(commands: Any) -> None:
    """Adds `points` and its commands."""
    title = "make, convert and compare point labels"
    points = common.add_parser(commands, "points", title, _POINTS)
    commands = points.add_subparsers(metavar="COMMAND", required=True)

    make = common.add_parser(commands, "make", "draw a point in each instance", _MAKE, _make)
    make.add_argument("annotations", metavar="ANNOTATIONS", type=Path, help="a file or a folder")
    make.add_argument("--law", choices=DISTRIBUTIONS, required=True, help="point distribution")
    make.add_argument("--seed", metavar="N", type=int, required=True, help="0 or more")
    make.add_argument("--subset", metavar="S", help="only recordings of this subset")

    title = "assign points to the instances that contain them"
    convert = common.add_parser(commands, "convert", title, _CONVERT, _convert)
    convert.add_argument("points", metavar="POINTS", type=Path, help="a .json, .csv or .txt")

    compare = common.add_parser(
        commands, "compare", "compare two files of points", _COMPARE, _compare
    )
    compare.add_argument("first", metavar="A", type=Path, help="a .json, .csv or .txt")
    compare.add_argument("second", metavar="B", type=Path, help="another")

    for sub in (convert, compare):
        sub.add_argument(
            "--annotations",
            metavar="ANNOTATIONS",
            type=Path,
            required=sub is convert,
            help="a file or a folder",
        )
    for sub in (make, convert):
        sub.add_argument(
            "--output", metavar="FILE", type=Path, required=True, help="a .json, .csv or .txt"
        )
        common.add_shared(sub, "--overwrite", help="replace an existing file")
    for sub in (make, convert, compare):
        sub.add_argument(
            "--fps-file",
            metavar="JSON",
            type=Path,
            help="{video: frames a second}, for a .csv where the annotations have no 'fps'",
        )
        sub.add_argument(
            "--allow-pickle",
            action="store_true",
            help="read W-TALC's pickled arrays, which can execute arbitrary code",
        )


def _make(arguments: argparse.Namespace) -> None:
    from tal_jax.data.point_distributions import generate_points

    given, rates = _read_annotations(arguments)
    annotations = generate_points(
        given,
        distribution=arguments.law,
        seed=arguments.seed,
        subset=arguments.subset,
        strict=False,
    )
    _write_points(arguments, annotations, rates)


def _convert(arguments: argparse.Namespace) -> None:
    from tal_jax.data.point_files import read_points
    from tal_jax.data.point_sets import convert_points

    given, rates = _read_annotations(arguments)
    points, _ = read_points(arguments.points, frame_rates=rates, annotations=given)
    annotations = convert_points(points, given)
    _write_points(arguments, annotations, rates)


def _compare(arguments: argparse.Namespace) -> None:
    from tal_jax.data.point_files import compare_points, format_comparison, read_points
    from tal_jax.data.point_sets import place_points

    given, rates = _read_annotations(arguments)
    paths = (arguments.first, arguments.second)
    found = [read_points(path, frame_rates=rates, annotations=given)[0] for path in paths]
    if given is not None:
        found = [place_points(points, given) for points in found]
    for points in found:
        for note in points.notes:
            common.echo(note)
    comparison = compare_points(found[0], found[1])
    common.echo(format_comparison(comparison, (paths[0].name, paths[1].name)))


def _read_annotations(arguments: argparse.Namespace) -> tuple[Any, dict[str, float]]:
    """The annotations, None where `compare` has none, and the frame rates."""
    from tal_jax.data.annotation_files import read_annotations
    from tal_jax.data.point_sets import known_frame_rates

    given, path = None, arguments.annotations
    if path is not None:
        given = read_annotations(path, allow_pickle=arguments.allow_pickle)
    return given, known_frame_rates(given, arguments.fps_file)


def _write_points(
    arguments: argparse.Namespace, annotations: "Annotations", rates: dict[str, float]
) -> None:
    from tal_jax.data import locks
    from tal_jax.data.annotations import lost_labels
    from tal_jax.data.point_files import write_points

    output: Path = arguments.output
    with locks.one_writer_of_file(output, "writing points"):
        write_points(output, annotations, rates, overwrite=arguments.overwrite)
    for note in annotations.notes:
        common.echo(note)
    if output.suffix != ".json":
        for note in lost_labels(annotations):
            common.echo(f"{output}: left out, since the format cannot hold it: {note}")
    points = sum(instance.point_s is not None for instance in annotations.instances)
    common.echo(f"{output}: {points} of {len(annotations.instances)} instances have a point")
