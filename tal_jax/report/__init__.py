"""Reports: pages and a picture of a run; the page, table and subtitles of a prediction."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tal_jax.report.html import write_report
    from tal_jax.report.pictures import write_picture

__all__ = ["write_picture", "write_report", "write_reports"]

# Imported when they are first used, so that the palette can be used without JAX.
_LAZY = {"write_picture": "tal_jax.report.pictures", "write_report": "tal_jax.report.html"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tal_jax.report' has no attribute {name!r}")


def write_reports(workdir: str | Path, *, print_line: Callable[[str], None] = print) -> None:
    """Writes `report.html` and, if there are test detections and matplotlib, `report.png`.

    Args:
      workdir: the work directory of a run.
      print_line: called with a line for each file.

    Raises:
      InputError: if there is nothing to show, or a file is broken.
      OSError: if a file cannot be written.
    """
    from tal_jax.report import write_picture, write_report

    print_line(f"report: {write_report(workdir)}")
    if not any(Path(workdir).glob("round_*/detections_test.json")):
        return
    if importlib.util.find_spec("matplotlib") is None:
        print_line('picture: skipped, needs matplotlib; run pip install "tal_jax[demo]"')
        return
    print_line(f"picture: {write_picture(workdir)}")
