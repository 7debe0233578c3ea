"""Reports: pages and a picture of a run; the page, table and subtitles of a prediction."""

import importlib.util
from collections.abc import Callable
from pathlib import Path


def write_reports(workdir: str | Path, *, print_line: Callable[[str], None] = print) -> None:
    """Writes `report.html` and, if there are test detections and matplotlib, `report.png`.

    Args:
      workdir: the work directory of a run.
      print_line: called with a line for each file.

    Raises:
      InputError: if there is nothing to show, or a file is broken.
      OSError: if a file cannot be written.
    """
    # Imported here, so that the palette can be used without JAX.
    from tal_jax.report.html import write_report
    from tal_jax.report.pictures import write_picture

    print_line(f"report: {write_report(workdir)}")
    if not any(Path(workdir).glob("round_*/detections_test.json")):
        return
    if importlib.util.find_spec("matplotlib") is None:
        print_line('picture: skipped, needs matplotlib; run pip install "tal_jax[demo]"')
        return
    print_line(f"picture: {write_picture(workdir)}")
