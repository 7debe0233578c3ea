"""The command `tal-jax`.

What it does is done by library functions; this module reads arguments, prints, and turns what a
user can mend into one line.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import sys
import time
import traceback
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import logging

from tal_jax import extraction, formats, report, studio
from tal_jax.config import check_config, config_names, load_config, override, rsmp_config
from tal_jax.data import files, point_sets
from tal_jax.data.annotation_files import read_annotations
from tal_jax.data.annotations import Annotations
from tal_jax.data.point_distributions import POINT_DISTRIBUTIONS, generate_points
from tal_jax.data.point_files import compare_points, format_comparison, read_points, write_points
from tal_jax.data.recordings import Dataset, labels_of
from tal_jax.datasets import convert
from tal_jax.datasets.doctor import format_diagnosis
from tal_jax.datasets.load import examine, load_dataset, open_layout
from tal_jax.inference import export
from tal_jax.inference.predict_file import predict_file
from tal_jax.methods import method_of
from tal_jax.report import prediction
from tal_jax.runs import evaluate
from tal_jax.runs import workdir as work
from tal_jax.runs.fit import fit, fit_many
from tal_jax.runs.tuning import tune_run
from tal_jax.training import processes
from tal_jax.training.costs import Sizes, timeline_shapes, training_costs
from tal_jax.training.prepare import prepare_round

# Whole lines at once, so that a run that writes into a pipe or a file can be watched.
_say = functools.partial(print, flush=True)

_EPILOG = """\
a first run, on recordings that come with tal_jax[demo]:
  tal-jax quickstart --workdir runs/quickstart

a data set of your own, or one of the field's as it lies on your disk:
  tal-jax doctor my_folder
  tal-jax train --config thumos14_rsmp --data my_folder --workdir runs/mine

then, with the networks of that run:
  tal-jax predict new_recording.npy --workdir runs/mine

A run that was stopped goes on when the same command is given again.
`tal-jax COMMAND --help` tells more about each command.
"""

_QUICKSTART = """\
The recordings are real, worn on a wrist and cut into streams; training sees one clicked instant an
action, never a start or an end. Prints the mAP of each round and writes report.html.

  tal-jax quickstart --workdir runs/quickstart
  tal-jax quickstart --workdir runs/try --set data.points=center --set seed=1
  tal-jax quickstart --workdir runs/hamnet --method hamnet
"""

# Of HAM-Net's two variants the one that finds more on these recordings.
_QUICKSTARTS = {"rsmp": "quickstart", "hamnet": "watch_hamnet:document"}

_TRAIN = """\
configs: {configs}, or the path of a .py file with get_config(arg=None). What stands behind a colon
is its argument: `hapt_rsmp:quick` is a short run that only shows that everything works.

  tal-jax train --config hapt_rsmp --data ~/data --workdir runs/hapt
  tal-jax train --config hapt_rsmp --data ~/data --workdir runs/hapt1 --set seed=1
  tal-jax train --config configs/hapt_rsmp.py:quick --data ~/data --workdir runs/try \\
      --set "model.widths=(64, 64)" --set model.dilations=1,2
  tal-jax train --config hapt_rsmp --data ~/data --workdir runs/seeds --seeds 0,1,2,3,4

The work directory gets config.json, run.json, metrics.jsonl, one folder a round (proposals,
detections, checkpoints), the detections of all rounds together, and report.html. Give the same
command again to go on where it stopped.
"""

_EVALUATE = """\
Scores round_*/detections_test.json, and detections.json of all rounds together, against
ground_truth.json, so that detections that were edited or made elsewhere can be put in their place.
Rewrites evaluation.json and the report.

  tal-jax evaluate --workdir runs/hapt

With --scores it localizes again in saved scores, of all rounds or of one in its folder, without
the networks, and only prints the result; nothing in the run changes.

  tal-jax evaluate --scores runs/hapt/scores_test.npz --thresholds 0.1,0.2,0.3
  tal-jax evaluate --scores runs/hapt/round_3/scores_test.npz --set localization.delta=0.5 \\
      --output detections.json
"""

_TUNE = """\
For runs that were trained with `--set train.holdout=5` or so. Chooses the thresholds of
localization by the points of those training recordings, never by a start or an end, where that
gains more than twice its standard error; prints all that was tried, and writes tuned.json.

  tal-jax tune --workdir runs/hapt --data ~/data
  tal-jax tune --workdir runs/hapt --data ~/data --set localization.iou_threshold=0.5
"""

_PREDICT = """\
FILE is a video, or a table of sensor samples with a column of time, where the run was trained on
what `tal-jax extract` made; it is described in the same way. Or it is an .npy file [T, D] of the
features that the run was trained on, on the same clock. They are standardised as in training.

Writes the detections as ActivityNet's JSON ({"results": {NAME: [{"label", "score", "segment":
[start, end] in seconds}, ...]}}, best first), and beside it a page that plays the video along the
timeline (.html), a table (.csv) and subtitles (.srt). Existing files are not replaced, except the
one that --output names and those of an earlier prediction that were not changed since; --overwrite
replaces all.

  tal-jax predict clip.mp4 --workdir runs/mine
  tal-jax predict walk.csv --workdir runs/quickstart --output found/walk.json
  tal-jax predict stream7.npy --workdir runs/mine
"""

_EXPORT = """\
Writes model.jax_export (features in, mean scores of all rounds' networks out; any number of
recordings of any length; for cpu, cuda and tpu), params.npz, and card.json, which tells where they
come from. `tal-jax predict` takes the folder as --workdir.

  tal-jax export --workdir runs/mine --output exported
  tal-jax predict clip.mp4 --workdir exported
"""

_LABEL = """\
Serves one page to the browser of this machine: play, and press the number of a class once within
every action. Every change is saved at once, in ActivityNet's JSON with a "point" an action; start
it again to go on. What the file holds of other recordings stays. Nothing leaves the machine.

  tal-jax label clip.mp4 --classes jump,run,fall
  tal-jax label videos/ sensors.csv --output annotations.json --subset train
"""

_POINTS = """\
ANNOTATIONS is a file as the field publishes them: ActivityNet's JSON, LACP's gt.json, BMN's
anet_anno_action.json, or a folder of W-TALC's arrays (with --allow-pickle). Points are in
ActivityNet's JSON (the key "point"), a .csv in frames of the original videos, or a .txt of lines
`video,seconds,label`. `tal-jax points COMMAND --help` tells more.

  tal-jax points make gt_full.json --law uniform --seed 0 --output annotations.json
  tal-jax points convert point_labels.csv --annotations gt.json --fps-file fps_dict.json \\
      --output annotations.json
  tal-jax points compare THUMOS1.txt THUMOS2.txt --annotations gt_full.json
"""

_POINTS_MAKE = """\
The point of an instance depends on the law, the seed, the recording's name and the instance's place
in it, and on nothing else. A .json tells the law and the seed; a .csv and a .txt have no place for
them and hold the points alone. Instances outside their recording get no point.

  tal-jax points make gt_full.json --law uniform --seed 0 --output annotations.json
  tal-jax points make gt_full.json --law gaussian --seed 1 --subset Validation --output points.csv
"""

_POINTS_CONVERT = """\
Each point goes into the instance of its recording and class that contains it, at most one into
each; points in no instance are kept without a segment.

  tal-jax points convert point_labels.csv --annotations gt.json --fps-file fps_dict.json \\
      --output annotations.json
  tal-jax points convert THUMOS1.txt --annotations gt_full.json --output points.csv
"""

_POINTS_COMPARE = """\
Pairs the points of each recording and class, one to one and as near as can be. With --annotations,
or segments in A and B, also tells where in their instances the points lie.

  tal-jax points compare THUMOS1.txt THUMOS2.txt --annotations gt_full.json
"""

_DOCTOR = """\
Looks at a folder of features and annotations as LACP, HR-Pro, ASM-Loc, W-TALC or codes for
ActivityNet lay it out, or in this project's own layout. Reads every file once and tells what
training would meet: the clock, missing and broken files, points and segments out of place. Exits
with 1 where training would be wrong.

  tal-jax doctor ~/data/THUMOS14
  tal-jax doctor ~/data/THUMOS14 --config thumos14_rsmp --set data.points=file --json
"""

_CONVERT = """\
A folder becomes one in this project's own layout: <recording>.npy with all streams, grid.json, and
annotations.json with the points that came with it. A file of detections becomes a submission for
ActivityNet's server. Label files of any of these tools become those of any other: {kinds}.
What a file is is told by what is in it, what it becomes by its suffix or by --to. Existing files in
a folder that --output names are not replaced, except .eaf that were written by this command and not
changed since; --overwrite replaces all.

  tal-jax convert ~/data/THUMOS14 --output ~/data/thumos14
  tal-jax convert runs/anet/detections.json --output submission.json
  tal-jax convert session1.eaf session2.eaf --recordings videos --output annotations.json
  tal-jax convert annotations.json --to audacity --output labels
  tal-jax convert runs/mine/detections.json --to label-studio --output tasks.json
"""

_EXTRACT = """\
Describes recordings by features on a clock of snippets, for `tal-jax train` and `tal-jax predict`.
FILE is a video, or a table of sensor samples with a column of time (.csv, .npy, .parquet). Give the
same command again to go on where it stopped, or after adding files. Exits with 1 where a file could
not be described; the others are done.

  signal        tables: statistics and spectra of sliding windows
  motion        videos: colours and movement, without a network; for a first try
  transformers  videos: a VideoMAE, V-JEPA 2 ... in a folder on disk
  videoprism    videos: Google's VideoPrism, in JAX, with weights on disk

  tal-jax extract ~/recordings --output ~/data/mine --backbone signal \\
      --set fps=50 --set channels=acc_x,acc_y,acc_z
  tal-jax extract a.mp4 b.mp4 --output ~/data/mine --backbone motion
  tal-jax extract ~/videos --output ~/data/mine --backbone transformers \\
      --set path=~/models/videomae-base --workers 1
"""

_INFO = """\
Compiles the training program, without training. The sizes are those of the data set where it is at
hand (--data, or the embedded recordings), else those of --recordings, --dim and so on.

  tal-jax info --config hapt_rsmp --data ~/data
  tal-jax info --config thumos14_rsmp --set train.batch_size=32
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    Args:
      argv: arguments without the program's name; those of the process by default.
    """
    arguments = _parser().parse_args(argv)
    try:
        _prepare_jax()
        return arguments.run(arguments) or 0
    except (ValueError, OSError) as error:
        if not _is_the_users(error):
            raise
        print(f"tal-jax: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntal-jax: stopped; the same command goes on from here", file=sys.stderr)
        return 130


# --- commands ---


def _quickstart(arguments: argparse.Namespace) -> None:
    arguments.config = _QUICKSTARTS[arguments.method]
    arguments.data = arguments.seeds = arguments.processes = None
    _train(arguments)


def _train(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    config = _load_config(arguments)
    if arguments.processes is not None:
        processes.initialize(arguments.processes)
    say = _say if processes.is_primary() else lambda line: None
    if arguments.seeds is None:
        dataset = _load_data(config, arguments, say)
        fit(dataset, config, workdir=arguments.workdir, report=say)
        if processes.is_primary():
            _show(arguments.workdir)
    else:
        _train_seeds(config, arguments)
    say(f"{time.monotonic() - began:.0f} s in all")


def _train_seeds(config: ml_collections.ConfigDict, arguments: argparse.Namespace) -> None:
    """Trains all seeds at once, each into a folder of its own."""
    configs = []
    for seed in _parse_seeds(arguments.seeds):
        configs.append(ml_collections.ConfigDict(config.to_dict()))
        configs[-1].seed = seed
    datasets = [_load_data(config, arguments, _say) for config in configs]
    workdirs = [arguments.workdir / f"seed_{config.seed}" for config in configs]
    fit_many(datasets, configs, workdirs=workdirs, report=_say)
    for workdir in workdirs:
        _say(f"{workdir}:")
        _show(workdir)
    evaluations = [workdir / "evaluation.json" for workdir in workdirs]
    table = evaluate.format_seeds({arguments.config: evaluations})
    files.write_bytes(arguments.workdir / "table.md", table.encode())
    _say(table)


def _parse_seeds(text: str) -> list[int]:
    seeds = [int(seed) if seed.strip().isdecimal() else None for seed in text.split(",")]
    if None in seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {text}; expected different whole numbers, such as 0,1,2")
    return seeds


def _load_data(
    config: ml_collections.ConfigDict,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
) -> Dataset:
    dataset = load_dataset(config, arguments.data)
    say(
        f"{config.data.name}: {len(dataset.train)} recordings to train on with "
        f"{_taught(config, dataset)}, "
        f"{len(dataset.test)} to test on, {len(dataset.classes)} classes"
    )
    return dataset


def _taught(config: ml_collections.ConfigDict, dataset: Dataset) -> str:
    """What training learns from, in words."""
    supervision = method_of(config).supervision
    of = {"points": lambda recording: recording.points, "labels": labels_of}[supervision]
    return f"{sum(len(of(recording)) for recording in dataset.train)} {supervision}"


def _evaluate(arguments: argparse.Namespace) -> None:
    assignments = list(arguments.set)
    for key in ("thresholds", "foreground_thresholds"):
        levels = getattr(arguments, key)
        if levels is not None:
            assignments.append(f"localization.{key}=({levels}{',' if levels else ''})")
    if arguments.scores is not None:
        evaluate.evaluate_scores(
            arguments.scores, assignments, output=arguments.output, print_line=_say
        )
        return
    if assignments or arguments.output is not None:
        raise ValueError(
            "the detections of a run stand as they are: settings and --output go with --scores, "
            "not with --workdir"
        )
    evaluate.evaluate_run(arguments.workdir, print_line=_say)
    _show(arguments.workdir)


def _tune(arguments: argparse.Namespace) -> None:
    tune_run(arguments.workdir, arguments.set, data=arguments.data, print_line=_say)


def _predict(arguments: argparse.Namespace) -> None:
    output, overwrite = arguments.output, arguments.overwrite
    # Before what may take an hour.
    prediction.output_files(output, arguments.file, overwrite=overwrite)
    exported = export.is_export(arguments.workdir)
    network = (export.open_export if exported else work.open_run)(arguments.workdir)
    with _progress_line() as show:
        found = predict_file(
            arguments.file,
            network,
            options=_backbone_options(arguments),
            progress=lambda done, total: show(f"{done} of {total} snippets described"),
        )
    written = prediction.write_prediction(found, output, overwrite=overwrite)
    for entry in found.detections[:10]:
        start_s, end_s = entry["segment"]
        _say(f"{start_s:9.2f} – {end_s:9.2f} s  {entry['score']:6.3f}  {entry['label']}")
    paths = ", ".join(map(str, written))
    _say(f"{len(found.detections)} detections, the best ones above, in {paths}")


def _export(arguments: argparse.Namespace) -> None:
    card = work.export_run(arguments.workdir, arguments.output)
    _say(
        f"{arguments.output}: {', '.join(card['sha256'])} and {export.CARD_FILE}; runs on "
        f"{', '.join(card['platforms'])}"
    )


def _info(arguments: argparse.Namespace) -> None:
    config = check_config(_load_config(arguments))
    if arguments.data or config.data.name == "watch":
        dataset = load_dataset(config, arguments.data)
        timeline = prepare_round(dataset, config, None).timeline
        recordings, num_classes = len(dataset.train), len(dataset.classes)
    else:
        fields = dataclasses.fields(Sizes)
        sizes = Sizes(*(getattr(arguments, field.name) for field in fields))
        timeline, recordings, num_classes = timeline_shapes(sizes), sizes.recordings, sizes.classes
    snippets, dim = timeline.weights.shape[1], timeline.features.shape[1]
    _say(
        f"training set:       {recordings} recordings of up to {snippets} snippets, D {dim}, "
        f"{num_classes} classes"
    )
    _say(f"an update:          {config.train.batch_size} recordings of {config.train.length}")
    found = training_costs(config, timeline, num_classes)
    _say(f"parameters:         {found.parameters:,}")
    _say(f"FLOPs:              {found.flops / 1e9:,.2f} G an update")
    _say(f"bytes accessed:     {found.bytes_accessed / 1e9:,.2f} GB an update")
    _say(f"peak memory:        {found.peak_bytes / 1e6:,.0f} MB, the training set included")


def _doctor(arguments: argparse.Namespace) -> int:
    with _progress_line() as show:
        found = examine(
            _load_config(arguments),
            arguments.folder,
            progress=lambda done, total: show(f"reading {done} of {total}"),
        )
    _say(json.dumps(found.to_dict(), indent=1) if arguments.json else format_diagnosis(found))
    return int(found.wrong)


def _convert(arguments: argparse.Namespace) -> None:
    for source in arguments.source:
        if not source.exists():
            raise ValueError(f"{source}: no such file or folder, expected labels or a data set")
    if len(arguments.source) > 1 or arguments.source[0].is_file():
        _convert_labels(arguments)
        return
    config = _load_config(arguments)
    layout = open_layout(config, arguments.source[0])
    for note in convert.to_own_layout(layout, config.data, arguments.output, report=_say):
        _say(f"note: {note}")
    _say(f"{arguments.output}: features, grid.json and annotations.json")


def _convert_labels(arguments: argparse.Namespace) -> None:
    kind = arguments.to or formats.kind_of(arguments.output)
    options = {"recordings": arguments.recordings, "frame_rate": arguments.fps}
    labels = formats.merge_labels(
        [
            formats.read_labels(path, subset=arguments.subset, tiers=arguments.tier, **options)
            for path in arguments.source
        ]
    )
    if kind == "activitynet" and labels.detections:
        formats.refuse_videos(arguments.output)
        submission = convert.to_submission(formats.labels_to_results(labels))
        files.write_json(arguments.output, submission)
        count = sum(map(len, submission["results"].values()))
        _say(f"{count} detections in {arguments.output}, as ActivityNet's server takes them")
        return
    notes = formats.write_labels(
        arguments.output, labels, kind=kind, overwrite=arguments.overwrite, **options
    )
    for note in (*labels.notes, *notes):
        _say(f"note: {note}")
    _say(
        f"{arguments.output}: {len(labels.instances)} labels in {len(labels.recordings)} "
        f"recordings, {kind}"
    )


def _label(arguments: argparse.Namespace) -> None:
    classes = [label.strip() for label in arguments.classes.split(",") if label.strip()]
    server = studio.open_server(
        arguments.recordings,
        arguments.output,
        classes=classes,
        subset=arguments.subset,
        port=arguments.port,
    )
    _say(
        f"{server.url}\n{len(server.sources)} recordings; Ctrl+C ends it, labels are saved already"
    )
    if not arguments.no_browser:
        webbrowser.open(server.url)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            _say(f"\nlabels are in {arguments.output}; the same command goes on from here")


def _extract(arguments: argparse.Namespace) -> int:
    backbone = extraction.open_backbone(arguments.backbone, **_backbone_options(arguments))

    with _progress_line() as show:

        def report(line: str) -> None:
            show("")
            _say(line)

        found = extraction.extract_folder(
            arguments.files,
            arguments.output,
            backbone,
            workers=arguments.workers,
            progress=lambda name, done, total: show(f"{name}: {done} of {total} snippets"),
            report=report,
        )
    for note in found.notes:
        _say(f"note: {note}")
    _say(
        f"{arguments.output}: {len(found.done)} recordings described, {len(found.skipped)} were "
        f"there, {len(found.failed)} failed"
    )
    for _, reason in found.failed:
        print(f"tal-jax: error: {reason}", file=sys.stderr)
    return int(bool(found.failed))


def _backbone_options(arguments: argparse.Namespace) -> dict[str, str]:
    """What `--set` says, in commands whose settings are those of a backbone."""
    return dict(assignment.partition("=")[::2] for assignment in arguments.set)


@contextlib.contextmanager
def _progress_line() -> Iterator[Callable[[str], None]]:
    """Gives what shows a line that the next one takes away; nothing in files and pipes."""

    def show(line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        show("")


def _points_make(arguments: argparse.Namespace) -> None:
    raw = _read_raw(arguments)
    annotations = generate_points(
        raw,
        distribution=arguments.law,
        seed=arguments.seed,
        subset=arguments.subset,
        strict=False,
    )
    write_points(arguments.output, annotations, _frame_rates(arguments, raw))
    _tell_points(arguments.output, annotations)


def _points_convert(arguments: argparse.Namespace) -> None:
    raw = _read_raw(arguments)
    rates = _frame_rates(arguments, raw)
    points, _ = read_points(arguments.points, frame_rates=rates, annotations=raw)
    annotations = point_sets.convert_points(points, raw)
    write_points(arguments.output, annotations, rates)
    _tell_points(arguments.output, annotations)


def _points_compare(arguments: argparse.Namespace) -> None:
    raw = _read_raw(arguments) if arguments.annotations else None
    rates = _frame_rates(arguments, raw)
    paths = (arguments.first, arguments.second)
    found = [read_points(path, frame_rates=rates, annotations=raw)[0] for path in paths]
    if raw is not None:
        found = [point_sets.place_points(points, raw) for points in found]
    for points in found:
        for note in points.notes:
            _say(note)
    comparison = compare_points(*found)
    _say(format_comparison(comparison, tuple(path.name for path in paths)))


def _read_raw(arguments: argparse.Namespace) -> Annotations:
    return read_annotations(arguments.annotations, allow_pickle=arguments.allow_pickle)


def _frame_rates(
    arguments: argparse.Namespace, annotations: Annotations | None
) -> dict[str, float]:
    return point_sets.known_frame_rates(annotations, arguments.fps_file)


def _tell_points(output: Path, annotations: Annotations) -> None:
    for note in annotations.notes:
        _say(note)
    instances = annotations.instances
    points = sum(instance.point_s is not None for instance in instances)
    _say(f"{output}: {points} of {len(instances)} instances have a point")


def _show(workdir: Path) -> None:
    """Writes the report and prints where it is, and how the rounds compare."""
    report.write_reports(workdir, print_line=_say)
    _say(evaluate.compare_rounds(workdir))


def _load_config(arguments: argparse.Namespace) -> ml_collections.ConfigDict:
    config = load_config(arguments.config) if arguments.config else rsmp_config()
    for assignment in arguments.set:
        override(config, assignment)
    return config


# --- the process ---


def _prepare_jax() -> None:
    """Keeps compiled programs between runs, and errors to one account of each."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "tal_jax"))
    # `_is_the_users` wants to see where an error was raised.
    jax.config.update("jax_traceback_filtering", "off")
    # Orbax logs, traceback and all, what it then raises and we tell in a line.
    logging.set_verbosity(logging.FATAL)


def _is_the_users(error: Exception) -> bool:
    """Whether an error tells of input or of the file system, rather than of a fault in the code.

    Our own code raises ValueError for the former alone; other packages also for the latter.
    """
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, OSError) or Path(raised_in).is_relative_to(Path(__file__).parent)


# --- arguments ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tal-jax",
        description="Finds actions in untrimmed recordings; learns without starts and ends.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = functools.partial(_add_command, commands)

    quickstart = command(_quickstart, "train on the embedded smartwatch recordings", _QUICKSTART)
    _add_workdir(quickstart)
    quickstart.add_argument(
        "--method",
        choices=_QUICKSTARTS,
        default="rsmp",
        help="rsmp learns from one instant an action, hamnet from the classes of each recording",
    )
    _add_set(quickstart)

    known = _TRAIN.format(configs=", ".join(config_names()))
    train = command(_train, "train all rounds of a config", known)
    _add_config(train)
    _add_workdir(train)
    train.add_argument(
        "--processes",
        metavar="WHERE",
        help="one of several processes of this run: HOST:PORT,COUNT,INDEX, or auto on a cluster "
        "that JAX knows (Slurm, TPU)",
    )
    train.add_argument(
        "--seeds",
        metavar="N,N,...",
        help="train these seeds at once, each into its own folder W/seed_N",
    )

    evaluate = command(_evaluate, "score the detections of a run again", _EVALUATE)
    source = evaluate.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", metavar="W", type=Path, help="the folder of the run")
    source.add_argument("--scores", metavar="NPZ", type=Path, help="a scores_test.npz of a run")
    for name in ("thresholds", "foreground-thresholds"):
        evaluate.add_argument(
            f"--{name}", metavar="A,B,...", help=f"short for --set localization.{name}"
        )
    _add_set(evaluate)
    evaluate.add_argument(
        "--output", metavar="JSON", type=Path, help="write the detections of --scores here"
    )

    tune = command(_tune, "choose thresholds by held-out points", _TUNE)
    _add_workdir(tune)
    _add_data(tune)
    _add_set(tune)

    predict = command(_predict, "find actions in a recording", _PREDICT)
    predict.add_argument(
        "file", metavar="FILE", type=Path, help="a video, a table, or features in an .npy"
    )
    predict.add_argument(
        "--workdir", metavar="W", type=Path, required=True, help="of a run, or of an export"
    )
    predict.add_argument(
        "--output", metavar="JSON", type=Path, help="default: NAME.detections.json, here"
    )
    predict.add_argument(
        "--overwrite", action="store_true", help="replace any file that is there already"
    )
    _add_set(predict, "an option of the backbone, such as the path of weights that were moved")

    title = "write a network as files that run without this library"
    exporting = command(_export, title, _EXPORT)
    _add_workdir(exporting)
    exporting.add_argument("--output", metavar="DIR", type=Path, required=True, help="where to")

    doctor = command(_doctor, "tell what is wrong with a data set", _DOCTOR)
    doctor.add_argument("folder", metavar="DIR", help="where features and annotations lie")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")

    known = _CONVERT.format(kinds=", ".join(formats.KINDS))
    rewrite = command(_convert, "write a data set, labels or detections anew", known)
    rewrite.add_argument(
        "source", metavar="SOURCE", type=Path, nargs="+", help="a folder, or files of labels"
    )
    rewrite.add_argument("--output", metavar="OUT", type=Path, required=True, help="where to")
    rewrite.add_argument(
        "--overwrite", action="store_true", help="replace label files that a folder holds already"
    )
    rewrite.add_argument("--to", choices=formats.KINDS, help="what labels are to become")
    rewrite.add_argument(
        "--recordings", metavar="DIR", help="where their videos lie; by default beside the file"
    )
    rewrite.add_argument("--fps", metavar="N", type=float, help="of the videos, for Label Studio")
    rewrite.add_argument(
        "--subset", metavar="S", default="train", help="of labels that tell none: %(default)s"
    )
    rewrite.add_argument(
        "--tier", metavar="NAME", action="append", default=[], help="of ELAN; all by default"
    )
    for sub in (doctor, rewrite):
        sub.add_argument("--config", metavar="C", help="whose settings of the data to use")
        _add_set(sub)

    extract = command(_extract, "describe videos and sensor tables by features", _EXTRACT)
    extract.add_argument(
        "files", metavar="FILE_OR_FOLDER", nargs="+", type=Path, help="recordings, or folders"
    )
    extract.add_argument("--output", metavar="DIR", type=Path, required=True, help="where to")
    extract.add_argument(
        "--backbone", choices=extraction.BACKBONES, required=True, help="what describes them"
    )
    _add_set(extract, "an option of the backbone: fps, window and stride (frames), path ...")
    extract.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help="processes; one a processor by default, one in all for networks",
    )

    info = command(_info, "tell what training a config costs", _INFO)
    _add_config(info)
    for field in dataclasses.fields(Sizes):
        # The most labelled classes of a recording used to be called slots.
        flags = (
            ["--video-classes", "--slots"] if field.name == "video_classes" else [f"--{field.name}"]
        )
        info.add_argument(*flags, type=int, default=field.default, metavar="N", help="%(default)s")

    label = command(_label, "click one instant an action, in the browser", _LABEL)
    label.add_argument(
        "recordings", metavar="FILE", type=Path, nargs="+", help="videos, tables, folders of such"
    )
    label.add_argument(
        "--output", metavar="JSON", type=Path, default="annotations.json", help="%(default)s"
    )
    label.add_argument("--classes", metavar="A,B,...", default="", help="beside those of the file")
    label.add_argument(
        "--subset", metavar="S", default="train", help="of new recordings; %(default)s"
    )
    label.add_argument("--port", metavar="N", type=int, default=0, help="a free one by default")
    label.add_argument("--no-browser", action="store_true", help="only print the address")

    _add_points(commands)
    return parser


def _add_points(commands: Any) -> None:
    """Adds the commands that stand behind `points`."""
    title = "make, convert and compare points, one an action"
    points = _add_parser(commands, "points", title, _POINTS)
    commands = points.add_subparsers(metavar="COMMAND", required=True)

    make = _add_command(commands, _points_make, "draw a point in every instance", _POINTS_MAKE)
    make.add_argument("annotations", metavar="ANNOTATIONS", type=Path, help="a file or a folder")
    make.add_argument(
        "--law", choices=POINT_DISTRIBUTIONS, required=True, help="where in the instance"
    )
    make.add_argument("--seed", metavar="N", type=int, required=True, help="0 or more")
    make.add_argument("--subset", metavar="S", help="draw in the recordings of this one alone")

    title = "put points into the instances that they lie in"
    convert = _add_command(commands, _points_convert, title, _POINTS_CONVERT)
    convert.add_argument("points", metavar="POINTS", type=Path, help="a .json, .csv or .txt")

    title = "tell how two files of points differ"
    compare = _add_command(commands, _points_compare, title, _POINTS_COMPARE)
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
            help="read W-TALC's arrays although they can run code of whoever made them",
        )


def _add_command(commands: Any, run: Callable, title: str, epilog: str) -> argparse.ArgumentParser:
    """Adds the command that is the last word of a function's name."""
    parser = _add_parser(commands, run.__name__.rpartition("_")[2], title, epilog)
    parser.set_defaults(run=run)
    return parser


def _add_parser(commands: Any, name: str, title: str, epilog: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=title,
        description=title[0].upper() + title[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", metavar="W", type=Path, required=True, help="the folder of the run"
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="C", required=True, help="a name or a .py file")
    _add_data(parser)
    _add_set(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", metavar="DIR", help="where data sets lie; $TAL_JAX_DATA by default"
    )


def _add_set(
    parser: argparse.ArgumentParser,
    what: str = "change a setting of the config; may be given several times",
) -> None:
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=what)


if __name__ == "__main__":
    sys.exit(main())
