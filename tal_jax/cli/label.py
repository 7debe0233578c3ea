"""`tal-jax label` and `tal-jax studio`."""

import argparse
import contextlib
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal_jax._errors import InputError
from tal_jax.cli import common
from tal_jax.cli.extract import BACKBONES

if TYPE_CHECKING:
    from tal_jax.studio import StudioServer

_LABEL = """\
Serves a page to the browser of this machine: play a recording, and press the number of a class once
within each action. Every change is saved at once, as ActivityNet JSON with a "point" for each
action. Labels of other recordings in the file are kept. To continue, repeat the command. No data
leave the machine. `tal-jax studio` is this page with training.

  tal-jax label clip.mp4 --classes jump,run,fall
  tal-jax label videos/ sensors.csv --output annotations.json --subset train
"""

_STUDIO = """\
Serves a page to the browser of this machine: label some actions, train, look at what is found in
all recordings, correct it, and train again, in seconds to a minute, until it is good; then export
it. Features are extracted in the background, and training is a process of its own. What is not
labelled is unknown, not background. Everything is in the project folder, and every change is saved
at once. To continue, also after a crash, repeat the command. No data leave the machine.

  tal-jax studio ~/videos --classes jump,run,fall
  tal-jax studio ~/recordings --project ~/projects/watch --backbone signal --set fps=50
  tal-jax studio ~/videos --auto 10

KEY=VALUE is an option of the backbone (see `tal-jax extract --help`) or, where KEY has a dot or is
stages or seed, a setting of the first training (see `tal-jax train --help`).
"""

_AUTO = 20  # answers
_SETTINGS = ("seed", "stages")  # of a training; all others have a dot


def add_commands(commands: Any) -> None:
    """Adds `label` and `studio`."""
    title = "click one point label for each action, in the browser"
    label = common.add_parser(commands, "label", title, _LABEL, _label)
    label.add_argument(
        "recordings", metavar="FILE", type=Path, nargs="+", help="videos, tables, or folders"
    )
    label.add_argument(
        "--output",
        metavar="JSON",
        type=Path,
        default="annotations.json",
        help="default %(default)s",
    )

    title = "label, train, look, correct and export, in the browser"
    studio = common.add_parser(commands, "studio", title, _STUDIO, _studio)
    studio.add_argument(
        "recordings", metavar="FOLDER", type=Path, nargs="+", help="of videos or tables, or files"
    )
    studio.add_argument(
        "--project", metavar="DIR", type=Path, help="default: `studio` in the first FOLDER"
    )
    studio.add_argument(
        "--backbone", choices=BACKBONES, help="of a new project; default: the recommended one"
    )
    common.add_shared(studio, "--set", help="of the backbone or the training, see below")
    studio.add_argument(
        "--auto",
        metavar="N",
        type=int,
        nargs="?",
        const=_AUTO,
        help=f"train whenever N answers are new; default {_AUTO}",
    )
    for sub in (label, studio):
        sub.add_argument(
            "--classes", metavar="A,B,...", default="", help="in addition to those of the file"
        )
        title = "of new recordings; default %(default)s"
        sub.add_argument("--subset", metavar="S", default="train", help=title)
        title = "default: that of the last start, or a free one"
        sub.add_argument("--port", metavar="N", type=int, default=0, help=title)
        sub.add_argument("--no-browser", action="store_true", help="only print the address")


def _label(arguments: argparse.Namespace) -> None:
    from tal_jax.data import locks

    with locks.one_writer_of_file(arguments.output, "labelling"):
        from tal_jax import studio

        server = studio.open_server(
            arguments.recordings,
            arguments.output,
            classes=_classes(arguments),
            subset=arguments.subset,
            port=arguments.port,
        )
        ended = f"labels are in {arguments.output}; the same command goes on from here"
        _serve(server, arguments, ended)


def _studio(arguments: argparse.Namespace) -> None:
    if arguments.auto is not None and arguments.auto < 1:
        raise InputError(f"--auto {arguments.auto}, expected a number of answers above 0")
    options, training = {}, {}
    for assignment in arguments.set:
        key, _, value = assignment.partition("=")
        (training if "." in key or key in _SETTINGS else options)[key] = value
    first: Path = arguments.recordings[0]
    folder = arguments.project or (first if first.is_dir() else first.parent) / "studio"
    from tal_jax import studio

    with _one_studio(folder):
        project, notes = studio.open_project(
            folder,
            arguments.recordings,
            backbone=arguments.backbone,
            options=options,
            training=training,
            auto=arguments.auto,
        )
        server = studio.open_studio(
            project, classes=_classes(arguments), subset=arguments.subset, port=arguments.port
        )
        for note in notes:
            common.echo(f"note: {note}")
        ended = f"the project is in {folder}; the same command goes on from here"
        _serve(server, arguments, ended)


@contextlib.contextmanager
def _one_studio(folder: Path) -> Iterator[None]:
    """One studio in a project, and nothing else that writes its labels."""
    from tal_jax.data import locks
    from tal_jax.studio.project import ANNOTATION_FILE

    with (
        locks.one_writer(folder, "the studio"),
        locks.one_writer_of_file(folder / ANNOTATION_FILE, "the studio"),
    ):
        yield


def _classes(arguments: argparse.Namespace) -> list[str]:
    return [label.strip() for label in arguments.classes.split(",") if label.strip()]


def _serve(server: "StudioServer", arguments: argparse.Namespace, ended: str) -> None:
    common.echo(
        f"{server.url}\n{len(server.sources)} recordings; labels are saved at once, Ctrl+C stops "
        "the server"
    )
    if not arguments.no_browser:
        webbrowser.open(server.url)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            common.echo(f"\n{ended}")
