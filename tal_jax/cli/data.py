"""`tal-jax doctor`, `tal-jax convert` and `tal-jax info`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal_jax._errors import InputError
from tal_jax.cli import common

if TYPE_CHECKING:
    from tal_jax.training.automatic import Decision
    from tal_jax.training.costs import Costs

LABEL_KINDS = (
    *("activitynet", "csv", "elan", "label-studio", "via", "audacity"),
    *("boris", "raven", "webvtt"),
)

_DOCTOR = """\
Validates a folder of features and annotations before training, in the layout of LACP, HR-Pro,
ASM-Loc, W-TALC or ActivityNet codebases, or of this project. Reads every file once and reports the
clock, missing and broken files, misplaced points and segments, and the settings that training
would decide from the data. Exits with 1 if training would fail or use wrong data.

  tal-jax doctor ~/data/THUMOS14
  tal-jax doctor ~/data/THUMOS14 --config thumos14_rsmp --set data.points=file --json
"""

_CONVERT = f"""\
Converts a folder into the layout of this project: <recording>.npy with all streams (or --shards),
grid.json, and annotations.json with the points of the folder. Converts a file of detections into a
submission to the ActivityNet server, and label files of any of these kinds into any other:
{", ".join(LABEL_KINDS)}.
The kind of the input is detected from its content, that of the output from its suffix or --to.
Existing files are not replaced, except unchanged .eaf files of an earlier call; --overwrite
replaces them.

  tal-jax convert ~/data/THUMOS14 --output ~/data/thumos14
  tal-jax convert ~/data/thumos14 --output ~/data/thumos14_shards --shards 16
  tal-jax convert runs/anet/detections.json --output submission.json
  tal-jax convert session1.eaf session2.eaf --recordings videos --output annotations.json
  tal-jax convert annotations.json --to audacity --output labels
  tal-jax convert runs/mine/detections.json --to label-studio --output tasks.json
"""

_INFO = """\
Compiles the training programs, that of the rounds and that of a detector, and prints parameters,
FLOPs, bytes and memory, without training. The detector has at most as many levels as counted. The
sizes are those of the data set (--data, or the embedded recordings), else those of --recordings,
--dim, ...

  tal-jax info --config hapt_rsmp --data ~/data
  tal-jax info --config thumos14_rsmp --set train.batch_size=32
"""

_SIZES = {
    "recordings": "training recordings",
    "snippets": "snippets of the longest recording",
    "dim": "features of a snippet",
    "classes": "classes",
    "points": "most points of a recording",
    "video_classes": "most labelled classes of a recording",
}


def add_commands(commands: Any) -> None:
    """Adds `doctor`, `convert` and `info`."""
    title = "validate a data set before training"
    doctor = common.add_parser(commands, "doctor", title, _DOCTOR, _doctor)
    doctor.add_argument("folder", metavar="DIR", help="folder of features and annotations")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")

    title = "convert a data set, labels or detections"
    convert = common.add_parser(commands, "convert", title, _CONVERT, _convert)
    convert.add_argument(
        "source", metavar="SOURCE", type=Path, nargs="+", help="a folder, or label files"
    )
    convert.add_argument(
        "--output", metavar="OUT", type=Path, required=True, help="a file or a folder"
    )
    common.add_shared(convert, "--overwrite")
    convert.add_argument("--to", choices=LABEL_KINDS, help="kind of the output")
    convert.add_argument(
        "--shards",
        metavar="N",
        type=int,
        help="of a folder: write features into N files; default: a file a recording",
    )
    convert.add_argument(
        "--recordings",
        metavar="DIR",
        help="folder of the videos or tables; default: beside the file",
    )
    convert.add_argument(
        "--fps", metavar="N", type=float, help="frames per second, where labels are in frames"
    )
    convert.add_argument(
        "--subset",
        metavar="S",
        default="train",
        help="of labels without a subset; default %(default)s",
    )
    convert.add_argument(
        "--tier",
        metavar="NAME",
        action="append",
        default=[],
        help="tier of ELAN, observation of BORIS; repeatable; default: all",
    )
    title = "config with the settings of the data"
    default = {"default": common.CONFIG, "help": f"{title}; default %(default)s, as in training"}
    common.add_shared(doctor, "--config", required=False, **default)
    common.add_shared(convert, "--config", required=False, help=title)
    for sub in (doctor, convert):
        common.add_shared(sub, "--set")

    info = common.add_parser(commands, "info", "print the cost of training a config", _INFO, _info)
    common.add_shared(info, "--config", "--data", "--set")
    for name, title in _SIZES.items():
        # The older name stays valid.
        flags = ["--video-classes", "--slots"] if name == "video_classes" else [f"--{name}"]
        info.add_argument(*flags, type=int, metavar="N", help=f"{title}; default: THUMOS14")


def _doctor(arguments: argparse.Namespace) -> int:
    from tal_jax.datasets.doctor import format_diagnosis
    from tal_jax.datasets.load import examine
    from tal_jax.training.automatic import format_decisions

    with common.progress_line() as show:
        config = common.load_config(arguments)
        found = examine(
            config,
            arguments.folder,
            progress=lambda done, total: show(f"reading {done} of {total}"),
        )
    decisions = () if found.wrong else _decisions(config, arguments)
    if arguments.json:
        settings = {one.key: one.value for one in decisions}
        common.echo(json.dumps(found.to_dict() | {"decisions": settings}, indent=1))
        return int(found.wrong)
    common.echo(format_diagnosis(found))
    if decisions:
        chosen = " without --config" if arguments.config == common.CONFIG else ""
        common.echo(f"training{chosen} would decide\n{format_decisions(decisions)}")
    return int(found.wrong)


def _decisions(config: Any, arguments: argparse.Namespace) -> "tuple[Decision, ...]":
    """What a config that leaves settings open decides from a folder; nothing if that is refused."""
    from tal_jax.datasets.load import load_dataset
    from tal_jax.training.automatic import decide

    config.data.standardize = False  # which would read all features
    try:
        return decide(config, load_dataset(config, arguments.folder))[1]
    except InputError:
        return ()


def _convert(arguments: argparse.Namespace) -> None:
    from tal_jax.datasets import convert
    from tal_jax.datasets.load import open_layout

    for source in arguments.source:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder, expected labels or a data set")
    if len(arguments.source) > 1 or arguments.source[0].is_file():
        if arguments.shards is not None:
            raise InputError("--shards is for the features of a folder, and these are label files")
        _convert_labels(arguments)
        return
    config = common.load_config(arguments)
    layout = open_layout(config, arguments.source[0])
    notes = convert.to_own_layout(
        layout,
        arguments.output,
        overlapping=config.data.overlapping,
        shards=arguments.shards,
        report=common.echo,
    )
    for note in notes:
        common.echo(f"note: {note}")
    common.echo(f"{arguments.output}: features, grid.json and annotations.json")


def _convert_labels(arguments: argparse.Namespace) -> None:
    from tal_jax import formats
    from tal_jax.data import files, locks
    from tal_jax.datasets import convert

    kind = arguments.to or formats.kind_of(arguments.output)
    options = {"recordings": arguments.recordings, "frame_rate": arguments.fps}
    labels = formats.merge_labels(
        [
            formats.read_labels(
                path,
                subset=arguments.subset,
                tiers=arguments.tier,
                features=arguments.output.parent,
                **options,
            )
            for path in arguments.source
        ]
    )
    if kind == "activitynet" and labels.detections:
        formats.refuse_videos(arguments.output)
        submission = convert.to_submission(formats.labels_to_results(labels))
        submission |= {key: one for key, one in labels.extras.items() if key != "version"}
        content = files.kept_bytes(arguments.output, submission, labels.source)
        if not arguments.overwrite:
            formats.refuse_replacing({arguments.output: content})
        with locks.one_writer_of_file(arguments.output, "converting"):
            files.write_bytes(arguments.output, content)
        for note in labels.notes:
            common.echo(f"note: {note}")
        count = sum(map(len, submission["results"].values()))
        common.echo(f"{count} detections in {arguments.output}, a submission to ActivityNet")
        return
    with locks.one_writer_of_file(arguments.output, "converting"):
        notes = formats.write_labels(
            arguments.output, labels, kind=kind, overwrite=arguments.overwrite, **options
        )
    for note in (*labels.notes, *notes):
        common.echo(f"note: {note}")
    count, recordings = len(labels.instances), len(labels.recordings)
    common.echo(f"{arguments.output}: {count} labels in {recordings} recordings, {kind}")


def _info(arguments: argparse.Namespace) -> None:
    from tal_jax.config import Config, check_config
    from tal_jax.datasets.load import load_dataset
    from tal_jax.training.automatic import decide
    from tal_jax.training.costs import Sizes, detector_costs, timeline_shapes, training_costs
    from tal_jax.training.prepare import prepare_round

    config: Config = common.load_config(arguments)
    if arguments.data or config.data.name == "watch":
        dataset = load_dataset(config, arguments.data)
        config = check_config(decide(config, dataset)[0])
        timeline = prepare_round(dataset, config, None).timeline
        recordings, num_classes = len(dataset.train), len(dataset.classes)
        dim = dataset.train[0].features.shape[1]
    else:
        config = check_config(config)
        given = {name: getattr(arguments, name) for name in _SIZES}
        sizes = Sizes(**{name: size for name, size in given.items() if size is not None})
        timeline, recordings, num_classes = timeline_shapes(sizes), sizes.recordings, sizes.classes
        dim = sizes.dim
    common.echo(
        f"training set:       {recordings} recordings of up to "
        f"{timeline.weights.shape[1]} snippets, D {dim}, {num_classes} classes"
    )
    common.echo(
        f"an update:          {config.train.batch_size} recordings of {config.train.length}"
    )
    _echo_costs(training_costs(config, timeline, num_classes))
    if "detector" in config.stages:
        own = config.detector
        common.echo(
            f"detector:           {own.steps} updates of {own.batch_size} recordings of "
            f"{config.train.length}, after {config.train.rounds} rounds of {config.train.steps}"
        )
        _echo_costs(detector_costs(config, timeline, recordings, num_classes))


def _echo_costs(found: "Costs") -> None:
    common.echo(f"parameters:         {found.parameters:,}")
    common.echo(f"FLOPs:              {found.flops / 1e9:,.2f} G an update")
    common.echo(f"bytes accessed:     {found.bytes_accessed / 1e9:,.2f} GB an update")
    common.echo(f"peak memory:        {found.peak_bytes / 1e6:,.0f} MB, including the training set")
