"""The demonstration, from the command to the numbers, and the notebook that shows it."""

import json
from pathlib import Path

import pytest
from absl import logging

from tal_jax import cli

NOTEBOOK = Path(__file__).parents[1] / "experiments" / "quickstart.ipynb"
# mAP at tIoU .5 of all stages, in the README.
README_MAP = 0.836


@pytest.mark.slow
def test_quickstart(capsys, tmp_path):
    verbosity = logging.get_verbosity()
    assert cli.main(["quickstart", "--workdir", str(tmp_path)]) == 0
    logging.set_verbosity(verbosity)
    folders = {"round 0": "round_0", "round 1": "round_1", "all rounds": "all_rounds"}
    folders |= {"detector": "detector", "all stages": "."}
    parts = {
        name: json.loads((tmp_path / folder / "evaluation.json").read_text())
        for name, folder in folders.items()
    }
    together = parts["all stages"]
    assert together["average_map"] > parts["round 0"]["average_map"]
    reached = dict(zip(together["tious"], together["map"], strict=True))
    assert reached[0.5] >= 0.9 * README_MAP
    out = capsys.readouterr().out
    for name, evaluation in parts.items():
        average = f"{100 * evaluation['average_map']:.1f}"
        line = next(line for line in out.splitlines()[-6:] if line.startswith(f"{name} "))
        assert line.split()[-1] == average
    # All four parts ran: longer timelines, prototypes, representative segments, instances.
    assert "lengthened to" in out and "pseudo instances" in out
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["round"] == 1 and "step" in line][-1]
    assert all(last[f"loss_{part}"] > 0 for part in ("vid", "point", "score", "feat", "ins"))
    assert (tmp_path / "report.html").exists() and (tmp_path / "report.png").exists()


def test_notebook_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
def test_notebook_runs(tmp_path, monkeypatch):
    """After the test above, in the same worker: it finds the same programs compiled."""
    import nbclient
    import nbformat

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=500, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 6
    printed = "".join(output.get("text", "") for output in outputs)
    assert "round 1 of 1" in printed
    assert not [output for output in outputs if output.get("name") == "stderr"]
