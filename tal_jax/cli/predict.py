"""`tal-jax predict` and `tal-jax export`."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal_jax._errors import InputError
from tal_jax.cli import common

if TYPE_CHECKING:
    from tal_jax.data.addresses import Source
    from tal_jax.data.ray_pool import RayWorkers
    from tal_jax.inference.predict_file import Network
    from tal_jax.report.predict_folder import Task

_PREDICT = """\
FILE is an .npy array [T, D] of features with the clock of the training features; it is standardised
as in training. Where the run was trained on features of `tal-jax extract`, FILE may also be a video
or a table of sensor samples with a time column; its features are computed by the same backbone.

Of a run with a detector, the detections are those of the rounds and of the detector, fused.

Writes the detections as ActivityNet JSON ({"results": {NAME: [{"label", "score", "segment":
[start, end] in seconds}, ...]}}, highest score first), and beside it a page that plays the video
above its timeline (.html), a table (.csv) and subtitles (.srt). Replaces only the file that
--output names and unchanged files of an earlier prediction; --overwrite replaces any file.

With --threshold, --merge-gap or --min-duration, these files hold events instead of all detections:
those of the threshold (by default the score that keeps as many proposals on the training recordings
as there were clicks), merged, then without the short ones.

Of several files, or of the recordings in folders, --output is a folder. It gets these four files
for each, NAME.detections.json, ..., and detections.json and detections.csv with the detections of
all. To resume, or after adding files, repeat the command: files whose results exist, from this
network and the same recording, are skipped. Exits with 1 if a file failed; the others are done.

  tal-jax predict clip.mp4 --workdir runs/mine
  tal-jax predict walk.csv --workdir runs/quickstart --output found/walk.json
  tal-jax predict log.csv --workdir runs/quickstart --set channels=ax,ay,az,gx,gy,gz
  tal-jax predict stream7.npy --workdir runs/mine
  tal-jax predict clip.mp4 --workdir runs/mine --merge-gap 1 --min-duration 0.5 \\
      --min-duration jump=0.2
  tal-jax predict videos/ more/clip7.mp4 --workdir runs/mine --output found
  tal-jax predict s3://videos/2026 --workdir runs/mine --output /shared/found --engine ray
"""

_EXPORT = """\
Writes model.jax_export (input: features; output: mean scores over the networks of all rounds, and
what a detector predicts at each anchor; any number of recordings of any length; for cpu, cuda and
tpu), params.npz, and card.json, which describes the run. `tal-jax predict` accepts the folder as
--workdir, and detects what it does with the run.

  tal-jax export --workdir runs/mine --output exported
  tal-jax predict clip.mp4 --workdir exported
"""


def add_commands(commands: Any) -> None:
    """Adds `predict` and `export`."""
    title = "localize actions in recordings"
    predict = common.add_parser(commands, "predict", title, _PREDICT, _predict)
    predict.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="a video, a table, an .npy of features, or a folder of these; or the address of one",
    )
    common.add_shared(predict, "--workdir", help="folder of a run or an export")
    predict.add_argument(
        "--output",
        metavar="OUT",
        type=Path,
        help="of one file a .json, default NAME.detections.json; of several a folder, default the "
        "current one",
    )
    common.add_shared(predict, "--overwrite")
    options = (
        "set an option of the backbone: a new path of its weights; of a table time, time_unit "
        "(s, ms, us, ns, days) and channels, the columns in the order of training"
    )
    common.add_shared(predict, "--set", help=options)
    common.add_steps(predict)
    common.add_engine(predict, "number of workers of Ray; default as many as there is room for")

    title = "write the networks as files that run without this library"
    export = common.add_parser(commands, "export", title, _EXPORT, _export)
    common.add_shared(export, "--workdir")
    export.add_argument("--output", metavar="DIR", type=Path, required=True, help="a folder")
    common.add_shared(export, "--overwrite", help="replace files that are no export's")


def _predict(arguments: argparse.Namespace) -> int:
    from tal_jax.data import addresses

    arguments.files = [addresses.locate(file) for file in arguments.files]
    if len(arguments.files) > 1 or addresses.is_folder(arguments.files[0]):
        return _predict_many(arguments)
    if arguments.engine == "ray":
        raise InputError(
            f"{arguments.files[0]}: a single file; expected several, or a folder, for --engine ray"
        )
    _predict_one(arguments, arguments.files[0])
    return 0


def _predict_one(arguments: argparse.Namespace, file: "Source") -> None:
    from tal_jax.data import files
    from tal_jax.inference.predict_file import predict_file, select_in_prediction
    from tal_jax.report import prediction as report
    from tal_jax.report.predict_folder import open_network

    output, overwrite = arguments.output, arguments.overwrite
    # Checked before the prediction, which may take an hour.
    files.check_writable(report.output_files(output, file, overwrite=overwrite))
    network = open_network(arguments.workdir)
    steps = common.read_steps(arguments, network.classes)
    with common.progress_line() as show:
        prediction = predict_file(
            file,
            network,
            options=common.backbone_options(arguments),
            progress=lambda done, total: show(f"features of {done} of {total} snippets"),
        )
    for note in prediction.notes:
        common.echo(f"note: {note}")
    kind = "detections"
    if steps:
        prediction, events = select_in_prediction(prediction, steps)
        kind = "events"
        common.echo(common.describe_events(events))
    written = report.write_prediction(prediction, output, overwrite=overwrite)
    for entry in prediction.detections[:10]:
        start_s, end_s = entry["segment"]
        common.echo(f"{start_s:9.2f} – {end_s:9.2f} s  {entry['score']:6.3f}  {entry['label']}")
    paths = ", ".join(map(str, written))
    common.echo(f"{len(prediction.detections)} {kind}, at most 10 listed above, in {paths}")


def _predict_many(arguments: argparse.Namespace) -> int:
    from tal_jax.data import locks
    from tal_jax.data.addresses import is_local
    from tal_jax.data.shards import find_in_shards

    ray = common.read_engine(arguments, ("--workers", "--worker-cpus", "--worker-gpus"))
    for path in filter(is_local, arguments.files):
        if not path.exists() and find_in_shards(path) is None:
            raise InputError(f"{path}: no such file or folder, expected recordings")
    folder: Path = arguments.output or Path()
    if folder.suffix == ".json" or folder.is_file():
        raise InputError(f"{folder}: expected a folder, for the results of several recordings")
    with contextlib.ExitStack() as stack:
        stack.enter_context(locks.one_writer(folder, "predicting"))
        if ray is not None:
            stack.enter_context(_beside_ray())
        show = stack.enter_context(common.progress_line())
        return _predict_into(folder, arguments, ray, show)


@contextlib.contextmanager
def _beside_ray() -> Iterator[None]:
    """Connects to a cluster, and leaves the GPUs of this machine to its workers."""
    import jax

    from tal_jax.data import ray_pool

    with ray_pool.connected():
        jax.config.update("jax_platforms", "cpu")
        yield


def _predict_into(
    folder: Path,
    arguments: argparse.Namespace,
    ray: "RayWorkers | None",
    show: Callable[[str], None],
) -> int:
    """Predicts what the folder, which is locked, does not have yet; returns the exit code."""
    from tal_jax.data import files
    from tal_jax.inference.predict_files import find_files
    from tal_jax.report import prediction as report
    from tal_jax.report import summary
    from tal_jax.report.predict_folder import Task, open_network

    network, overwrite = open_network(arguments.workdir), arguments.overwrite
    options = common.backbone_options(arguments)
    steps = common.read_steps(arguments, network.classes)
    task = Task(arguments.workdir, network.digest, folder, options, steps, overwrite)
    found, notes = find_files(arguments.files, network)
    skipped = {path for path in found if report.is_done(path, folder, task.made_from)}
    rest = [path for path in found if path not in skipped]
    # All are checked before the first prediction.
    outputs = [report.output_files(None, path, folder=folder, overwrite=overwrite) for path in rest]
    of_all = summary.summary_files(folder, overwrite=overwrite)
    files.check_writable([*of_all, *(path for paths in outputs for path in paths)])
    for note in notes:
        common.echo(f"note: {note}")
    done = _predict_rest(rest, network, task, ray, show) if rest else set()
    have = [path for path in found if path in done or path in skipped]
    summary.write_summary(have, folder, overwrite=overwrite)
    common.echo(
        f"{folder}: {len(done)} recordings predicted, {len(skipped)} unchanged, "
        f"{len(rest) - len(done)} failed; all {_kind(task)} in {' and '.join(map(str, of_all))}"
    )
    return int(len(done) < len(rest))


def _predict_rest(
    rest: "Sequence[Source]",
    network: "Network",
    task: "Task",
    ray: "RayWorkers | None",
    show: Callable[[str], None],
) -> "set[Source]":
    """Predicts recordings, and prints a line on each; returns those that are done."""
    from tal_jax.report.predict_folder import predict_folder

    pace, done, noted = common.Pace(), set(), set()

    def progress(path: "Source", snippets: int, total: int) -> None:
        show(pace.with_recording(f"{path.name}: features of {snippets} of {total} snippets"))

    results = predict_folder(rest, network, task, ray=ray, progress=progress, report=common.echo)
    for number, (path, result) in enumerate(results, 1):
        show("")
        if isinstance(result, str):
            print(f"tal-jax: error: {result}", file=sys.stderr)
        else:
            done.add(path)
            # Recordings of one kind have the same notes, which are printed once.
            notes_of = "".join(f" ({note})" for note in result.notes if note not in noted)
            noted.update(result.notes)
            length = f"{result.duration_s:.1f} s, {result.count} {_kind(task)}"
            common.echo(f"{path}: {length}{notes_of}")
        show(pace(number, len(rest)))
    return done


def _kind(task: "Task") -> str:
    return "events" if task.steps else "detections"


def _export(arguments: argparse.Namespace) -> None:
    from tal_jax.inference import export
    from tal_jax.runs import workdir as work

    card = work.export_run(arguments.workdir, arguments.output, overwrite=arguments.overwrite)
    for note in work.note_changes(arguments.workdir):
        common.echo(f"note: {note}")
    common.echo(
        f"{arguments.output}: {', '.join(card['sha256'])} and {export.CARD_FILE}; runs on "
        f"{', '.join(card['platforms'])}"
    )
