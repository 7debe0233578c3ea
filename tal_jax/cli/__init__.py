"""The command line, `tal-jax`: one module for each command or pair of related commands.

A module adds the parsers of its commands in `add_commands` and imports the library inside the
functions that run them, so that `--help` does not load JAX.
"""

import argparse
import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tal_jax._errors import InputError, one_line
from tal_jax.cli import (
    data,
    evaluate,
    events,
    extract,
    interrupts,
    label,
    points,
    predict,
    train,
)

_DESCRIPTION = "Weakly supervised temporal action localization."
_EPILOG = """\
quickstart, on smartwatch recordings that come with tal_jax[demo]:
  tal-jax quickstart --workdir runs/quickstart

train on a folder of features and annotations, with settings decided from the data:
  tal-jax doctor my_folder
  tal-jax train --data my_folder --workdir runs/mine

predict with the networks of that run:
  tal-jax predict new_recording.npy --workdir runs/mine

To resume a stopped run, repeat the command.
`tal-jax COMMAND --help` shows the options and examples of a command.
"""


_BUG = """\
tal-jax: this is a fault in tal_jax, not in the input. Please report it with the lines above, the
command, and the output of `pip list`."""


def run() -> NoReturn:
    """The program `tal-jax`: `main` in a process of its own."""
    interrupts.watch()
    # Imports and tracing make hundreds of thousands of objects that stay. By default the collector
    # looks through them again after every 700, an eighth of the time of predicting one recording.
    gc.set_threshold(50_000)
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        print(_BUG, file=sys.stderr)
        sys.exit(1)
    if code == interrupts.EXIT_CODE:
        interrupts.end()
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments without the program's name; those of the process by default.

    Returns:
      The exit code: 0; 1 if `doctor`, `extract` or `predict` found errors in the data; 2, after one
      line on stderr, for invalid input and for files that cannot be read or written; 130 after
      Ctrl+C.
      Other exceptions are bugs and are not caught.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that is not UTF-8 shows what it lacks as "?" instead of failing.
            stream.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    _prepare_libraries()
    try:
        return arguments.run(arguments) or 0
    except (InputError, OSError) as error:
        print(f"tal-jax: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupts.STOPPED, file=sys.stderr)
        return interrupts.EXIT_CODE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tal-jax",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (train, evaluate, predict, events, data, extract, label, points):
        module.add_commands(commands)
    return parser


def _prepare_libraries() -> None:
    """Sets what JAX and Orbax read when they are imported or used."""
    from absl import logging

    try:
        # Keeps compiled programs between runs.
        cache = str(Path.home() / ".cache" / "tal_jax")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        # By default programs that compile within a second are compiled in every process.
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    except RuntimeError:
        pass  # neither HOME nor an entry of the user: programs are compiled anew
    # Orbax logs the traceback of an error and then raises it.
    logging.set_verbosity(logging.FATAL)
