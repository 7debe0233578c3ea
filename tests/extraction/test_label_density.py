"""The clock that labels ask for."""

import dataclasses
import json

import numpy as np
import pytest

from tal_jax import cli
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation
from tal_jax.extraction import grid_of, label_density, open_backbone


def _annotations(*rows, subset="train"):
    recordings = {
        f"r{number}": RecordingAnnotation(subset, 1000.0, tuple(row))
        for number, row in enumerate(rows)
    }
    return Annotations(("a",), recordings)


def _points(*times_s):
    return [Instance("a", point_s=time_s) for time_s in times_s]


def test_segments_give_their_own_length():
    lengths = np.arange(1, 12)
    row = [Instance("a", 50.0 * n, 50.0 * n + length) for n, length in enumerate(lengths)]
    assert label_density.short_action_s(_annotations(row))[0] == pytest.approx(2.0)


def test_points_bound_it_by_half_the_gap():
    found = label_density.short_action_s(_annotations(_points(1, 5, 9), _points(100, 104, 204)))
    assert found[0] == 2.0 and "up to" in found[1]
    assert label_density.short_action_s(_annotations(_points(1), _points(3))) is None


def test_test_recordings_are_not_read():
    recordings = dict(_annotations(_points(0, 8, 16)).recordings)
    recordings["t"] = RecordingAnnotation("test", 9.0, (Instance("a", 0.0, 0.1),))
    assert label_density.short_action_s(Annotations(("a",), recordings))[0] == 4.0


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    rows = "".join(f"{i / 50},{i % 7},0,1\n" for i in range(1000))
    (folder / "r0.csv").write_text(f"time_s,x,y,z\n{rows}")
    return folder


def _extract(capsys, folder, *settings):
    given = [part for one in settings for part in ("--set", one)]
    command = ["extract", folder, "--output", folder.parent / "out", "--backbone", "signal"]
    assert cli.main([*map(str, command), *given, "--workers", "1"]) == 0
    grid = json.loads((folder.parent / "out" / "grid.json").read_text())
    return capsys.readouterr().out, grid


@pytest.mark.parametrize("beside", [True, False])
def test_extract_proposes_and_changes_nothing(capsys, recordings, beside):
    """Points 2 s apart: actions of up to 1 s, so 12 samples at 50 Hz and windows of 24 (even)."""
    target = recordings if beside else recordings.parent / "out"
    target.mkdir(exist_ok=True)
    entries = [{"label": "a", "point": time_s} for time_s in (1.0, 3.0, 5.0)]
    row = {"subset": "train", "duration": 20.0, "annotations": entries}
    (target / "annotations.json").write_text(json.dumps({"database": {"r0": row}}))
    out, grid = _extract(capsys, recordings)
    assert "up to 1 s; --set stride=12 --set window=24 would make" in out
    assert grid == {"fps": 50.0, "stride_frames": 25.0, "window_frames": 75.0}


def test_a_chosen_clock_gets_no_proposal(capsys, recordings):
    row = {"subset": "train", "duration": 20.0}
    row["annotations"] = [{"label": "a", "point": time_s} for time_s in (1.0, 3.0, 5.0)]
    (recordings / "annotations.json").write_text(json.dumps({"database": {"r0": row}}))
    out, _ = _extract(capsys, recordings, "stride=20")
    assert "would make" not in out


def test_a_clock_that_suits_or_labels_that_cannot_be_read_get_none(tmp_path):
    path, backbone = tmp_path / "annotations.json", open_backbone("signal")
    path.write_text("{")
    assert label_density.propose_clock(path, backbone) is None
    row = {"subset": "train", "duration": 20.0}
    row["annotations"] = [{"label": "a", "segment": [n, n + 2.5]} for n in (0, 4, 8)]
    path.write_text(json.dumps({"database": {"r0": row}}))
    # 2.5 s: 31 and 62 samples, where the backbone has 25 and 75.
    assert label_density.propose_clock(path, backbone) is None
    assert "stride=31" in label_density.propose_clock(path, open_backbone("signal", stride=50))


@dataclasses.dataclass(frozen=True)
class _Network:
    """The clock of a network whose number of frames is fixed; it computes nothing."""

    fps: float = 8.0
    window: int = 16
    stride: float = 4.0
    fixed_window = True


def _propose(tmp_path, backbone, action_s):
    path = tmp_path / "annotations.json"
    row = {"subset": "train", "duration": 100.0}
    row["annotations"] = [{"label": "a", "segment": [20 * n, 20 * n + action_s]} for n in range(3)]
    path.write_text(json.dumps({"database": {"r0": row}}))
    return label_density.propose_clock(path, backbone)


@pytest.mark.parametrize("action_s", [0.3, 0.5, 1.0, 2.7, 9.0, 15.0])
@pytest.mark.parametrize(
    "backbone",
    [open_backbone("signal"), open_backbone("motion"), open_backbone("motion", fps=8), _Network()],
    ids=["signal", "motion", "slow motion", "network"],
)
def test_what_is_proposed_fits_the_actions_in_the_units_of_each_backbone(
    tmp_path, backbone, action_s
):
    line = _propose(tmp_path, backbone, action_s)
    if line is not None:
        settings = dict(part.split("=") for part in line.split() if "=" in part)
        kinds = {"fps": float, "stride": float, "window": int}
        changes = {key: kinds[key](value) for key, value in settings.items()}
        assert "window" not in changes or not isinstance(backbone, _Network)
        backbone = dataclasses.replace(backbone, **changes)
        assert _propose(tmp_path, backbone, action_s) is None  # it suits now
    grid = grid_of(backbone)
    assert grid.to_seconds(1.0) <= action_s / 2 + 1e-9
    # Except where the frames of most videos would repeat, and up to the tolerance.
    if grid.fps < 30 or not isinstance(backbone, _Network):
        assert grid.window_frames / grid.fps <= 1.5 * action_s


def test_a_network_of_fixed_frames_gets_a_rate_instead_of_a_window(tmp_path):
    """16 frames at 8 a second are 2 s; at 16 a second they are the 1 s of an action."""
    line = _propose(tmp_path, _Network(), 1.0)
    assert "--set fps=16 --set stride=4 would make snippets 0.25 s long and windows 1 s" in line
    assert "now 0.5 s and 2 s (stride 4, window 16 at 8 a second)" in line
    # A window that lies inside the actions stays.
    assert "fps=" not in _propose(tmp_path, _Network(), 6.0)
