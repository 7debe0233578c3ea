"""`tal-jax extract`."""

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tal_jax._errors import InputError
from tal_jax.cli import common

BACKBONES = ("signal", "pose", "motion", "transformers", "videoprism")

_TERMINATED = 128 + signal.SIGTERM  # the exit code, as shells have it

_EXTRACT = """\
Computes snippet features of recordings, for `tal-jax train` and `tal-jax predict`. FILE is a video,
a table of sensor samples with a time column (.csv, .npy, .parquet), or a table of tracked joints of
DeepLabCut, SLEAP, Anipose, ... (.csv, .h5, .npy, .parquet). To resume, or after adding
files, repeat the command. Exits with 1 if a file failed; the others are extracted. With an
annotations.json in DIR or beside the recordings, a note proposes stride and window for its labels.
A line gives the cost of a minute of recording, measured, and of all, before the work begins.

  signal        tables: statistics and spectra of sliding windows
  pose          tables of joints, or videos of people (path= of MediaPipe's networks): pose and
                motion relative to the body
  motion        videos: colours and motion, without a network; for a first try
  transformers  videos: VideoMAE, V-JEPA 2, ... by a name on the Hugging Face hub or in a folder
  videoprism    videos: Google's VideoPrism, in JAX, with weights on disk

  tal-jax extract ~/recordings --output ~/data/mine --backbone signal \\
      --set fps=50 --set channels=acc_x,acc_y,acc_z
  tal-jax extract log.csv --output ~/data/mine --backbone signal \\
      --set time=clock --set time_unit=ms
  tal-jax extract ~/clips --output ~/data/mine --backbone pose \\
      --set path=pose_landmarker_full.task
  tal-jax extract tracks/*.csv --output ~/data/mine --backbone pose --set source_fps=30
  tal-jax extract a.mp4 b.mp4 --output ~/data/mine --backbone motion
  tal-jax extract ~/videos --output ~/data/mine --backbone transformers \\
      --set model=facebook/vjepa2-vitl-fpc64-256 --set window=16
  tal-jax extract ~/100_000_videos --output ~/data/large --backbone motion --shards 256
  tal-jax extract s3://videos/2026 --output /shared/features --backbone motion --shards 256 \\
      --engine ray
"""


def add_commands(commands: Any) -> None:
    """Adds `extract`."""
    title = "compute features of videos and sensor tables"
    extract = common.add_parser(commands, "extract", title, _EXTRACT, _extract)
    extract.add_argument(
        "files",
        metavar="FILE_OR_FOLDER",
        nargs="+",
        help="recordings, or folders; or addresses of them, such as s3://BUCKET/FOLDER",
    )
    extract.add_argument("--output", metavar="DIR", type=Path, required=True, help="a folder")
    extract.add_argument(
        "--backbone", choices=BACKBONES, help="see below; without it, the command recommends one"
    )
    options = (
        "set an option of the backbone: fps, window and stride (frames), model, path, ...; of "
        "tables channels, time (its column) and time_unit (s, ms, us, ns, days); of joints "
        "source_fps, center, axis, side, up, turn"
    )
    common.add_shared(extract, "--set", help=options)
    common.add_engine(extract, "number of processes; default one a core, for networks one in total")
    extract.add_argument(
        "--shards",
        metavar="N",
        type=int,
        help="write features into N files; default: a file a recording, or as in DIR already",
    )


def _extract(arguments: argparse.Namespace) -> int:
    if threading.current_thread() is not threading.main_thread():
        return _extract_and_report(arguments)  # where Python takes no signals
    # As batch systems and `kill` end a command: its processes end first, and no file is left over.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        return _extract_and_report(arguments)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _propose_clock(arguments: argparse.Namespace, backbone: Any, options: dict[str, str]) -> None:
    """Prints a stride and a window that suit labels better, where neither was chosen.

    Features do not follow labels by themselves: the same command on the same recordings would give
    others once more is labelled.
    """
    from tal_jax.extraction import label_density

    annotations = label_density.find_annotations(arguments.files, arguments.output)
    if annotations is None or {"stride", "window"} & options.keys():
        return
    if line := label_density.propose_clock(annotations, backbone):
        common.echo(f"note: {line}")


def _extract_and_report(arguments: argparse.Namespace) -> int:
    from tal_jax import extraction

    if arguments.backbone is None:
        raise InputError(extraction.recommend(arguments.files, arguments.output))
    options, ray = common.backbone_options(arguments), common.read_engine(arguments)
    backbone = extraction.open_backbone(arguments.backbone, **options)
    _propose_clock(arguments, backbone, options)
    pace = common.Pace()
    with common.progress_line() as show:

        def report(line: str) -> None:
            show("")
            common.echo(line)

        show(f"{backbone.name}: measures the cost of its first windows")
        found = extraction.extract_folder(
            arguments.files,
            arguments.output,
            backbone,
            workers=arguments.workers,
            ray=ray,
            shards=arguments.shards,
            progress=lambda name, done, total: show(
                pace.with_recording(f"{name}: {done} of {total} snippets")
            ),
            counted=lambda done, total: show(pace(done, total)),
            report=report,
        )
    for note in found.notes:
        common.echo(f"note: {note}")
    common.echo(
        f"{arguments.output}: {len(found.done)} recordings extracted, {len(found.skipped)} "
        f"unchanged, {len(found.failed)} failed"
    )
    for _, reason in found.failed:
        print(f"tal-jax: error: {reason}", file=sys.stderr)
    return int(bool(found.failed))
