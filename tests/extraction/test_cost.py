"""What features cost is measured before the work, and near what it then takes."""

import dataclasses
import re
import time

import numpy as np
import pytest

from tal_jax.extraction import cost, extract_folder, open_backbone
from tal_jax.extraction.backbones import TABLE, VIDEO


class _Clock:
    """A clock that parts of features move on."""

    def __init__(self, monkeypatch):
        self.now_s = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now_s)

    def parts(self, *seconds, snippets=4):
        for one in seconds:
            self.now_s += one
            yield np.zeros((snippets, 3))


def test_loading_a_network_does_not_count(monkeypatch):
    parts = _Clock(monkeypatch).parts(30.0, *[0.4] * 100)
    assert cost.time_snippet(parts) == pytest.approx(0.1)
    assert len(list(parts)) == 97  # a second was enough


def test_a_recording_of_one_part_counts_with_all_that_it_takes(monkeypatch):
    assert cost.time_snippet(_Clock(monkeypatch).parts(2.0)) == pytest.approx(0.5)


def test_slow_windows_are_timed_once(monkeypatch):
    parts = _Clock(monkeypatch).parts(90.0, 40.0, 40.0)
    assert cost.time_snippet(parts) == pytest.approx(10.0) and len(list(parts)) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".ts"])
def test_the_length_of_videos_by_their_headers(tmp_path, suffix):
    pytest.importorskip("av")
    import filming

    codec = {".webm": "libvpx-vp9"}.get(suffix, "libx264")
    path = filming.film(tmp_path / f"a{suffix}", range(50), codec=codec)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    found = cost.durations_s([path, tmp_path / "b.mp4"], VIDEO, (path, 2.0))
    assert found == pytest.approx([2.0, 0.0], abs=0.1)


def test_the_length_of_tables_by_their_sizes(tmp_path):
    for name, size in (("a", 1000), ("b", 3000)):
        (tmp_path / f"{name}.csv").write_bytes(bytes(size))
    paths = [tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "gone.csv"]
    assert cost.durations_s(paths, TABLE, (paths[0], 60.0)) == [60.0, 180.0, 0.0]


def test_the_line(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.csv").write_bytes(bytes(1000))
    jobs = {name: tmp_path / f"{name}.csv" for name in "abc"}
    line = cost.describe(jobs, TABLE, (jobs["a"], 3600.0), 40.0, 2)
    assert line == (
        "3 recordings of 3 hours: about 40 s per minute of recording, 60 minutes in all with 2 "
        "processes"
    )
    alone = cost.describe({"a": jobs["a"]}, TABLE, (jobs["a"], 90.0), 0.02, 1)
    assert alone == "1 recording of 2 minutes: about 0.02 s per minute of recording, 0.03 s in all"


@dataclasses.dataclass(frozen=True)
class Slow:
    """Takes 20 ms a window, and half a second to load."""

    fps: float = 25.0
    window: int = 4
    stride: float = 5.0
    dim: int = 2
    name = "slow"
    version = "1"
    kind = "video"
    size = (4, 4)
    options = property(dataclasses.asdict)

    def __call__(self, windows):
        if not hasattr(self, "_loaded"):
            time.sleep(0.5)
            object.__setattr__(self, "_loaded", True)
        time.sleep(0.02 * len(windows))
        return np.zeros((len(windows), 2))


def test_measured_before_the_work_of_what_is_left(tmp_path):
    pytest.importorskip("av")
    import filming

    for name in "ab":
        filming.film(tmp_path / f"{name}.mp4", range(250))
    (tmp_path / "0.mp4").write_bytes(b"no video")
    lines = []
    paths = [tmp_path / "0.mp4", tmp_path / "a.mp4", tmp_path / "b.mp4"]
    extract_folder(paths, tmp_path / "out", Slow(), workers=1, report=lines.append)
    # 5 snippets a second of 20 ms each: 6 s for a minute, and the decoding of a small picture.
    number = re.fullmatch(r"3 recordings of 20 s: about (\S+) s per minute of .*", lines[0])
    assert number and 6.0 <= float(number[1]) < 18.0, lines
    lines.clear()
    filming.film(tmp_path / "c.mp4", range(50))
    paths[0] = tmp_path / "c.mp4"
    extract_folder(paths, tmp_path / "out", Slow(), workers=1, report=lines.append)
    assert lines[0].startswith("1 recording of 2 s: ")
    lines.clear()
    extract_folder(paths, tmp_path / "out", Slow(), workers=1, report=lines.append)
    assert lines == []


def test_every_backbone_of_tables_is_measured(tmp_path):
    rows = "".join(f"{i / 50},{i % 7},0,1\n" for i in range(3000))
    (tmp_path / "a.csv").write_text(f"time_s,x,y,z\n{rows}")
    lines = []
    output, backbone = tmp_path / "out", open_backbone("signal")
    extract_folder([tmp_path / "a.csv"], output, backbone, workers=1, report=lines.append)
    assert lines[0].startswith("1 recording of 60 s: about ")
