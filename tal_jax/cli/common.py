"""Parsers, arguments and output that several commands share."""

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tal_jax._errors import InputError

if TYPE_CHECKING:
    from tal_jax.data.ray_pool import RayWorkers
    from tal_jax.inference.events import Events

# Flushed, so that a run that writes into a pipe or a file can be watched.
echo = functools.partial(print, flush=True)


CONFIG = "auto"  # of a training, where none is named

_SHARED: dict[str, dict[str, Any]] = {
    "--workdir": {
        "metavar": "W",
        "type": Path,
        "required": True,
        "help": "the work directory of the run",
    },
    "--config": {
        "metavar": "C",
        "required": True,
        "help": "name of a config, or path of a .py file",
    },
    "--data": {"metavar": "DIR", "help": "folder of data sets; default $TAL_JAX_DATA"},
    "--set": {
        "metavar": "KEY=VALUE",
        "action": "append",
        "default": [],
        "help": "change a setting of the config; repeatable",
    },
    "--overwrite": {"action": "store_true", "help": "replace existing files"},
}

# Steps from detections to events, in their order: argument of `select_events`, unit and title.
_STEPS = {
    "--threshold": ("threshold", "S", "leave out detections of a lower score"),
    "--merge-gap": ("merge_gap_s", "S", "merge detections at most so many seconds apart"),
    "--min-duration": ("min_duration_s", "S", "leave out events of fewer seconds"),
}


def add_parser(
    commands: Any, name: str, title: str, epilog: str, run: Callable | None = None
) -> argparse.ArgumentParser:
    """Adds a command: its title, the text below its options, and the function that runs it."""
    parser = commands.add_parser(
        name,
        help=title,
        description=title[0].upper() + title[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_shared(parser: Any, *flags: str, **changes: Any) -> None:
    """Adds arguments that several commands share, with changes to their usual settings."""
    for flag in flags:
        parser.add_argument(flag, **_SHARED[flag] | changes)


def add_steps(parser: Any) -> None:
    """Adds the steps from detections to events."""
    for flag, (name, metavar, title) in _STEPS.items():
        parser.add_argument(
            flag,
            dest=name,
            metavar=metavar,
            action="append",
            default=[],
            help=f"{title}; {metavar}, or CLASS={metavar} for one class; repeatable",
        )


def add_engine(parser: Any, what: str) -> None:
    """Adds where recordings are worked on: in this machine, or by the workers of a Ray cluster."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: on the cluster of $RAY_ADDRESS or of this machine, whose machines share the "
        "output's disk; without a cluster, on this machine",
    )
    parser.add_argument("--workers", metavar="N", type=int, help=what)
    for flag, kind in (("--worker-cpus", "processors"), ("--worker-gpus", "GPUs")):
        title = f"{kind} of each worker of Ray, in parts too; default printed"
        parser.add_argument(flag, metavar="X", type=float, help=title)


def read_engine(
    arguments: argparse.Namespace, of_ray: Sequence[str] = ("--worker-cpus", "--worker-gpus")
) -> "RayWorkers | None":
    """Returns the workers of Ray; None for this machine, where `of_ray` have no meaning.

    Raises:
      InputError: if they are out of range, or set for this machine.
    """
    from tal_jax.data.ray_pool import RayWorkers

    values = vars(arguments)
    if arguments.engine == "ray":
        return RayWorkers(arguments.workers, arguments.worker_cpus, arguments.worker_gpus)
    for flag in of_ray:
        if values[flag.strip("-").replace("-", "_")] is not None:
            raise InputError(f"{flag} is of workers of Ray; expected --engine ray")
    return None


class Pace:
    """How many recordings are done, how fast, and how long the others take."""

    def __init__(self) -> None:
        """Begins to count the time."""
        self.begin_s, self.line = time.monotonic(), ""

    def __call__(self, done: int, total: int) -> str:
        """A line on the recordings that are done, of all."""
        rate = done / max(time.monotonic() - self.begin_s, 1e-3)
        left_s = (total - done) / rate if done else 0.0
        left = f", {rate:.3g} a second, {duration(left_s)} left" if done else ""
        self.line = f"{done} of {total} recordings{left}"
        return self.line

    def with_recording(self, line: str) -> str:
        """The last line, with one on the recording that is worked on."""
        return "; ".join(filter(None, [self.line, line]))


def duration(seconds: float) -> str:
    """A time in a unit that suits it.

    >>> duration(7), duration(300), duration(9000)
    ('7 s', '5 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.3g} hours"


def read_steps(arguments: argparse.Namespace, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of `select_events`, without steps that are not asked for.

    Raises:
      InputError: if a value is no number, or names another class.
    """
    from tal_jax.inference.events import select_events

    steps = {}
    for flag, (name, metavar, _) in _STEPS.items():
        default, of_classes = None, {}
        for text in getattr(arguments, name):
            label, equals, number = text.rpartition("=")
            try:
                value = float(number)
            except ValueError:
                raise InputError(f"{flag} {text}: expected a number, or CLASS={metavar}") from None
            if not equals:
                default = value
            elif label in classes:
                of_classes[label] = value
            else:
                known = ", ".join(classes[:20])
                raise InputError(f"{flag} {text}: no class {label!r}, expected one of {known}")
        if of_classes and default is not None:
            of_classes = dict.fromkeys(classes, default) | of_classes
        if of_classes or default is not None:
            steps[name] = of_classes or default
    select_events([], **steps)  # checks the ranges
    return steps


def describe_events(events: "Events") -> str:
    """What became of the detections, in one line."""
    parts = [
        f"{count} {what}"
        for count, what in (
            (events.below, "below the threshold"),
            (events.merged, "merged into others"),
            (events.short, "too short"),
        )
        if count
    ]
    became = f"; detections {', '.join(parts)}" if parts else ""
    return f"{len(events.entries)} events{became}"


def load_config(arguments: argparse.Namespace) -> Any:
    """Returns the `ConfigDict` of `--config` and `--set`, whose attributes have no static types."""
    from tal_jax import config

    found = config.load_config(arguments.config) if arguments.config else config.rsmp_config()
    for assignment in arguments.set:
        config.override(found, assignment)
    return found


def backbone_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns the backbone options of `--set`."""
    return dict(assignment.partition("=")[::2] for assignment in arguments.set)


def show_run(workdir: Path) -> None:
    """Writes the report of a run and prints its path and the mAP of each round."""
    from tal_jax import report
    from tal_jax.runs import evaluate

    report.write_reports(workdir, print_line=echo)
    echo(evaluate.compare_rounds(workdir))


@contextlib.contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Yields a function that replaces the last line of a terminal; silent in files and pipes."""

    def show(line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        show("")
