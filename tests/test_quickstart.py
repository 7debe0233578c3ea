"""The demonstration, from the command to the numbers."""

import json

import jax
import pytest
from absl import logging

from tal_jax import cli

# mAP at tIoU .5 of the last round, in the README.
README_MAP = 0.692


@pytest.mark.slow
def test_quickstart(capsys, tmp_path):
    filtering, verbosity = jax.config.jax_traceback_filtering, logging.get_verbosity()
    assert cli.main(["quickstart", "--workdir", str(tmp_path)]) == 0
    jax.config.update("jax_traceback_filtering", filtering)
    logging.set_verbosity(verbosity)
    rounds = [
        json.loads((tmp_path / f"round_{i}" / "evaluation.json").read_text()) for i in range(4)
    ]
    reached = dict(zip(rounds[-1]["tious"], rounds[-1]["map"], strict=True))
    assert reached[0.5] >= 0.8 * README_MAP
    out = capsys.readouterr().out
    for number, evaluation in enumerate(rounds):
        average = f"{100 * evaluation['average_map']:.1f}"
        line = next(line for line in out.splitlines()[-6:] if line.startswith(f"round {number} "))
        assert line.split()[-1] == average
    # All four parts ran: longer timelines, prototypes, representative segments, instances.
    assert "lengthened to" in out and "pseudo instances" in out
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "step" in line][-1]
    assert all(last[f"loss_{part}"] > 0 for part in ("vid", "point", "score", "feat", "ins"))
    assert (tmp_path / "report.html").exists() and (tmp_path / "report.png").exists()
