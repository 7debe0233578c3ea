"""`tal-jax label`."""

import argparse
import webbrowser
from pathlib import Path
from typing import Any

from tal_jax.cli import common

_LABEL = """\
Serves a page to the browser of this machine: play a recording, and press the number of a class once
within each action. Every change is saved at once, as ActivityNet JSON with a "point" for each
action. Labels of other recordings in the file are kept. To continue, repeat the command. No data
leave the machine.

  tal-jax label clip.mp4 --classes jump,run,fall
  tal-jax label videos/ sensors.csv --output annotations.json --subset train
"""


def add_commands(commands: Any) -> None:
    """Adds `label`."""
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
    label.add_argument(
        "--classes", metavar="A,B,...", default="", help="in addition to those of the file"
    )
    label.add_argument(
        "--subset", metavar="S", default="train", help="of new recordings; default %(default)s"
    )
    label.add_argument("--port", metavar="N", type=int, default=0, help="default: a free port")
    label.add_argument("--no-browser", action="store_true", help="only print the address")


def _label(arguments: argparse.Namespace) -> None:
    from tal_jax.data import locks

    with locks.one_writer_of_file(arguments.output, "labelling"):
        _serve(arguments)


def _serve(arguments: argparse.Namespace) -> None:
    from tal_jax import studio

    classes = [label.strip() for label in arguments.classes.split(",") if label.strip()]
    server = studio.open_server(
        arguments.recordings,
        arguments.output,
        classes=classes,
        subset=arguments.subset,
        port=arguments.port,
    )
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
            common.echo(f"\nlabels are in {arguments.output}; the same command goes on from here")
