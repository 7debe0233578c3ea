"""Pages and pictures of a run: one page to explore, one picture for a README."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from tal_jax.report.html import write_report
from tal_jax.report.pictures import write_picture


def write_reports(workdir: str | Path, *, print_line: Callable[[str], None] = print) -> None:
    """Writes `report.html` and, where there is a test recording to draw, `report.png`.

    Args:
      workdir: of a run.
      print_line: prints a line.

    Raises:
      ValueError: if there is nothing to show, or a file is broken.
      OSError: if a file cannot be written.
    """
    print_line(f"report: {write_report(workdir)}")
    if not any(Path(workdir).glob("round_*/detections_test.json")):
        return
    if importlib.util.find_spec("matplotlib") is None:
        print_line('picture: none without matplotlib; run pip install "tal_jax[demo]"')
        return
    print_line(f"picture: {write_picture(workdir)}")


__all__ = ["write_picture", "write_report", "write_reports"]
