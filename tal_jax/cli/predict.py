"""`tal-jax predict` and `tal-jax export`."""

import argparse
from pathlib import Path
from typing import Any

from tal_jax.cli import common

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

  tal-jax predict clip.mp4 --workdir runs/mine
  tal-jax predict walk.csv --workdir runs/quickstart --output found/walk.json
  tal-jax predict log.csv --workdir runs/quickstart --set channels=ax,ay,az,gx,gy,gz
  tal-jax predict stream7.npy --workdir runs/mine
  tal-jax predict clip.mp4 --workdir runs/mine --merge-gap 1 --min-duration 0.5 \\
      --min-duration jump=0.2
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
    title = "localize actions in a recording"
    predict = common.add_parser(commands, "predict", title, _PREDICT, _predict)
    predict.add_argument(
        "file", metavar="FILE", type=Path, help="a video, a table, or an .npy of features"
    )
    common.add_shared(predict, "--workdir", help="folder of a run or an export")
    predict.add_argument("--output", metavar="JSON", type=Path, help="default NAME.detections.json")
    common.add_shared(predict, "--overwrite")
    options = (
        "set an option of the backbone: a new path of its weights; of a table time, time_unit "
        "(s, ms, us, ns, days) and channels, the columns in the order of training"
    )
    common.add_shared(predict, "--set", help=options)
    common.add_steps(predict)

    title = "write the networks as files that run without this library"
    export = common.add_parser(commands, "export", title, _EXPORT, _export)
    common.add_shared(export, "--workdir")
    export.add_argument("--output", metavar="DIR", type=Path, required=True, help="a folder")
    common.add_shared(export, "--overwrite", help="replace files that are no export's")


def _predict(arguments: argparse.Namespace) -> None:
    from tal_jax.data import files
    from tal_jax.inference import export
    from tal_jax.inference.predict_file import predict_file, select_in_prediction
    from tal_jax.report import prediction as report
    from tal_jax.runs import workdir as work

    output, overwrite = arguments.output, arguments.overwrite
    # Checked before the prediction, which may take an hour.
    files.check_writable(report.output_files(output, arguments.file, overwrite=overwrite))
    exported = export.is_export(arguments.workdir)
    network = (export.open_export if exported else work.open_run)(arguments.workdir)
    steps = common.read_steps(arguments, network.classes)
    with common.progress_line() as show:
        prediction = predict_file(
            arguments.file,
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
