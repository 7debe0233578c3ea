"""Files become features: the windows that are cut, what is kept, and what is refused."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tal_jax import cli
from tal_jax.data.annotations import Annotations, Instance, RecordingAnnotation, annotations_to_dict
from tal_jax.data.clock import Grid
from tal_jax.data.locks import one_writer
from tal_jax.data.manifest import Manifest, check_same_backbone, read_manifest
from tal_jax.data.shards import open_shards, pack_shard, shard_of
from tal_jax.data.signals import window_features
from tal_jax.datasets.own_layout import load_folder
from tal_jax.extraction import (
    extract_file,
    extract_folder,
    grid_of,
    is_video,
    open_backbone,
    stream_features,
)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A backbone that tells which frames it saw."""

    fps: float = 25.0
    window: int = 4
    stride: float = 2.0
    name = "numbers"
    version = "1"
    kind = "video"
    size = None

    @property
    def dim(self):
        return self.window

    @property
    def options(self):
        return dataclasses.asdict(self)

    def __call__(self, windows):
        import filming

        return np.array([[filming.number_of(pixels) for pixels in window] for window in windows])


class Deadly(Numbers):
    """Ends its process at a recording of exactly five frames, as the system does without memory."""

    def __call__(self, windows):
        found = super().__call__(windows)
        if found.max() == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        if found.max() == 5:
            raise RuntimeError("a fault\nof the code")
        return found


def write_table(path, samples=200, fps=50, names=("ax", "ay", "az"), seed=0):
    values = np.random.default_rng(seed).normal(size=(samples, len(names)))
    np.savetxt(
        path,
        np.column_stack([np.arange(samples) / fps, values]),
        delimiter=",",
        header=",".join(["time_s", *names]),
        comments="",
        fmt="%.17g",
    )
    return values


# --- one recording ---


@pytest.mark.parametrize("rate, fps", [(25, 25.0), (50, 25.0), (25, 10.0), (10, 25.0)])
@pytest.mark.parametrize("window, stride", [(4, 2.0), (3, 3.0), (2, 5.0), (8, 1.0), (4, 2.5)])
@pytest.mark.parametrize("batch", [3, 100])
def test_windows_of_a_video_by_hand(film, rate, fps, window, stride, batch):
    path = film("a.mp4", 43, rate)
    backbone = Numbers(fps, window, stride)
    parts = list(stream_features(path, backbone, batch=batch))
    assert all(len(part) <= batch for part in parts)
    got = np.concatenate(parts)
    want = []
    for snippet in range(int(np.ceil(43 / rate * fps / stride - 1e-9))):
        first = round((snippet + 0.5) * stride - window / 2)
        times_s = (first + np.arange(window)) / fps
        want.append(np.clip(np.floor(times_s * rate + 1e-6), 0, 42))
    np.testing.assert_array_equal(got, want)
    assert len(got) == grid_of(backbone).num_snippets(43 / rate)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Makes each video once."""
    pytest.importorskip("av")
    import filming

    folder, made = tmp_path_factory.mktemp("films"), {}

    def make(name, frames, rate):
        key = name, frames, rate
        if key not in made:
            path = folder / f"{len(made)}_{name}"
            made[key] = filming.film(path, range(frames), tick=filming.Fraction(1, rate))
        return made[key]

    return make


@pytest.mark.slow
def test_a_long_video_takes_no_more_memory_than_a_short_one(film):
    def peak(frames):
        path = film("a.mp4", frames, 25)
        tracemalloc.start()
        for _ in stream_features(path, Numbers(), batch=4):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(500) < peak(50) + 200_000  # 450 frames more are 4 MB


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_a_table_gives_what_the_loaders_of_sensors_compute(tmp_path, batch):
    values = write_table(tmp_path / "a.csv", names=tuple("abcdef"))
    want, _ = window_features(values, fps=50, stride_s=0.5, window_s=1.5)
    got = np.concatenate(
        list(stream_features(tmp_path / "a.csv", open_backbone("signal"), batch=batch))
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_channels_are_found_by_their_names(tmp_path):
    values = write_table(tmp_path / "a.csv", names=("az", "heart", "ax", "ay"))
    want, _ = window_features(values[:, [2, 3, 0]], fps=50, stride_s=0.5, window_s=1.5)
    backbone = open_backbone("signal", channels="ax,ay,az")
    entry = extract_file(tmp_path / "a.csv", tmp_path / "out" / "a.npy", backbone)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), want, rtol=1e-5, atol=1e-5)
    assert entry.notes == ("columns left out: heart",)
    assert (entry.snippets, entry.dim, entry.duration_s) == (8, 44, 4.0)


def test_progress_and_entry(film, tmp_path):
    import hashlib

    path, told = film("a.mp4", 43, 25), []
    entry = extract_file(path, tmp_path / "a.npy", Numbers(), progress=lambda *n: told.append(n))
    assert told == [(16, 22), (22, 22)]
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry.bytes == path.stat().st_size and entry.source == str(path)
    array = np.load(tmp_path / "a.npy")
    assert array.shape == (22, 4) and array.dtype == np.float32
    assert os.listdir(tmp_path) == ["a.npy"]


@pytest.mark.parametrize(
    "result, message",
    [
        (
            lambda n: np.zeros((n, 5)),
            r"returned features of shape \[16, 5\], expected .* \[16, 4\]",
        ),
        (lambda n: np.zeros((n + 1, 4)), r"shape \[17, 4\]"),
        (lambda n: np.full((n, 4), np.nan), "expected finite ones"),
    ],
)
def test_a_backbone_that_gives_nonsense(film, tmp_path, result, message):
    class Wrong(Numbers):
        def __call__(self, windows):
            return result(len(windows))

    with pytest.raises(ValueError, match=message):
        extract_file(film("a.mp4", 43, 25), tmp_path / "a.npy", Wrong())
    assert os.listdir(tmp_path) == []


def test_a_full_disk(film, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*a.npy: No space left on device"):
        extract_file(film("a.mp4", 43, 25), tmp_path / "a.npy", Numbers())
    assert os.listdir(tmp_path) == []


def test_a_table_for_a_backbone_of_videos_and_the_other_way_round(film, tmp_path):
    write_table(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="cannot read .*a.csv.*expected a whole video"):
        list(stream_features(tmp_path / "a.csv", Numbers()))
    with pytest.raises(ValueError, match="a.mp4: not a table"):
        list(stream_features(film("a.mp4", 43, 25), open_backbone("signal")))


def test_is_video(film, tmp_path):
    path = film("a.mp4", 43, 25)
    assert is_video(path) and is_video("not/there.MKV")
    assert not is_video("not/there.csv") and not is_video("not/there.doc")
    (tmp_path / "strange.name").write_bytes(path.read_bytes())
    assert is_video(tmp_path / "strange.name")


# --- many recordings, in processes ---


def test_a_folder_of_tables_from_the_command_line_to_a_data_set(tmp_path, capsys):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = ["b", "a ü", "ж" * 90]
    for seed, name in enumerate(names):
        write_table(source / f"{name}.csv", seed=seed, samples=150 + 50 * seed)
    (source / "broken.csv").write_text("time_s,ax,ay,az\n0,1,2,3\n9,1,2,3\n8,1,2,3\n")
    write_table(source / "other.csv", names=("ax", "ay", "gz"))
    write_table(source / "more.csv", names=("ax", "ay", "az", "heart"))
    (source / "x:y.csv").write_text("no name")
    (source / "notes.txt").write_text("not a table")
    (source / "._b.csv").write_text("what macOS leaves")
    command = ["extract", str(source), "--output", str(output), "--backbone", "signal"]
    command += ["--workers", "2", "--set", "channels=ax,ay,az"]
    assert cli.main(command) == 1
    shown = capsys.readouterr()
    assert "4 recordings extracted, 0 unchanged, 3 failed" in shown.out
    assert "1 other files are no tables by their names: notes.txt" in shown.out
    assert "more: 4.0 s, 8 snippets (columns left out: heart)" in shown.out
    errors = sorted(shown.err.splitlines())
    assert len(errors) == 3 and all(line.startswith("tal-jax: error: ") for line in errors)
    assert any("broken.csv: the time decreases by 1 s" in line for line in errors)
    assert any("other.csv: no column 'az' among ax, ay, gz" in line for line in errors)
    assert any("x:y" in line for line in errors)
    assert sorted(p.name for p in output.iterdir()) == sorted(
        ["grid.json", "manifest.json", "more.npy", *(f"{name}.npy" for name in names)]
    )

    manifest = read_manifest(output)
    assert set(manifest.recordings) == {*names, "more"}
    assert manifest.recordings["b"].source == str(source / "b.csv")
    backbone = open_backbone(manifest.backbone, **manifest.options)
    assert (manifest.grid, manifest.dim) == (grid_of(backbone), backbone.dim)

    # What is there and unchanged is kept; a changed file is described again.
    (source / "broken.csv").unlink()
    (source / "x:y.csv").unlink()
    (source / "other.csv").unlink()
    kept = (output / "b.npy").stat().st_mtime_ns
    write_table(source / "a ü.csv", seed=9, samples=400)
    (source / "b.csv").touch()
    assert cli.main(command) == 0
    assert "1 recordings extracted, 3 unchanged, 0 failed" in capsys.readouterr().out
    assert (output / "b.npy").stat().st_mtime_ns == kept
    assert np.load(output / "a ü.npy").shape == (16, 44)

    # The folder is a data set as soon as it has annotations.
    recordings = {
        name: RecordingAnnotation(
            subset, entry.duration_s, (Instance("wave", 0.5, 1.5, point_s=1.0),)
        )
        for (name, entry), subset in zip(
            read_manifest(output).recordings.items(),
            ["train", "train", "test", "test"],
            strict=True,
        )
    }
    annotations = annotations_to_dict(Annotations(("wave",), recordings))
    (output / "annotations.json").write_text(json.dumps(annotations))
    dataset = load_folder(output)
    assert len(dataset.train) == len(dataset.test) == 2 and not dataset.notes

    # Another clock would make features that do not belong together.
    assert cli.main([*command, "--set", "stride=10"]) == 2
    assert "stride is 25.0, not 10.0" in capsys.readouterr().err


def test_a_process_that_dies_and_a_fault_cost_one_recording_each(film, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name, frames in {"a": 12, "b": 5, "c": 13, "d": 6, "e": 14}.items():
        (source / f"{name}.mp4").symlink_to(film("a.mp4", frames, 25))
    lines, told = [], []
    found = extract_folder(
        [source],
        tmp_path / "out",
        Deadly(),
        workers=1,
        report=lines.append,
        progress=lambda *n: told.append(n),
    )
    assert sorted(found.done) == ["a", "c", "e"]
    failed = {Path(path).stem: reason for path, reason in found.failed}
    assert "b.mp4: its process was killed (signal 9)" in failed["b"]
    assert "d.mp4: RuntimeError: a fault of the code" in failed["d"]
    assert sum(line.startswith("FAILED ") for line in lines) == 2 and len(lines) == 6
    assert ("a", 6, 6) in told
    assert set(read_manifest(tmp_path / "out").recordings) == {"a", "c", "e"}
    for name, frames in (("a", 12), ("e", 14)):
        assert np.load(tmp_path / "out" / f"{name}.npy").max() == frames - 1


def test_channels_of_the_first_good_table_go_for_all(tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.csv").write_text("")
    write_table(source / "b.csv", names=("x", "y", "z"))
    write_table(source / "c.csv", names=("z", "x", "y"))
    found = extract_folder([source], output, open_backbone("signal"), workers=2)
    assert sorted(found.done) == ["b", "c"] and len(found.failed) == 1
    assert read_manifest(output).options["channels"] == ["x", "y", "z"]
    # Later tables are held against these, not against the first one of then.
    write_table(source / "0.csv", names=("u", "v", "w"))
    (source / "a.csv").unlink()
    found = extract_folder([source], output, open_backbone("signal"), workers=1)
    assert found.skipped == ("b", "c")
    assert "0.csv: no column 'x' among u, v, w" in found.failed[0][1]


# --- shards ---


def _bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _tables(source, count=7):
    source.mkdir()
    for number in range(count):
        write_table(source / f"r{number}.csv", seed=number, samples=150 + 10 * number)


def test_shards_hold_the_features_of_files_in_whatever_order_they_come(tmp_path, monkeypatch):
    source = tmp_path / "in"
    _tables(source)
    backbone = open_backbone("signal")
    extract_folder([source], tmp_path / "files", backbone, workers=1)
    found = extract_folder([source], tmp_path / "shards", backbone, workers=2, shards=3)
    assert len(found.done) == 7 and not list((tmp_path / "shards").glob("*.npy"))
    opened = open_shards(tmp_path / "shards")
    files_ = read_manifest(tmp_path / "files")
    assert {name: one.entry for name, one in opened.items()} == dict(files_.recordings)
    for name, one in opened.items():
        np.testing.assert_array_equal(one, np.load(tmp_path / "files" / f"{name}.npy"))
    wanted = _bytes_of(tmp_path / "shards")

    # Nothing to do; the number of shards is that of the folder.
    again = extract_folder([source], tmp_path / "shards", backbone, workers=1)
    assert len(again.skipped) == 7 and not again.done
    assert _bytes_of(tmp_path / "shards") == wanted
    with pytest.raises(ValueError, match="has 3 shards; expected --shards 3"):
        extract_folder([source], tmp_path / "shards", backbone, workers=1, shards=4)

    # A folder of files becomes one of shards.
    moved = extract_folder([source], tmp_path / "files", backbone, workers=1, shards=3)
    assert len(moved.skipped) == 7
    assert _bytes_of(tmp_path / "files") == wanted

    # Interrupted after a few recordings, and between a shard and what it replaces.
    def stop(done, total):
        assert total == 7 and done == 1
        raise KeyboardInterrupt

    late = tmp_path / "late"
    with pytest.raises(KeyboardInterrupt):
        extract_folder([source], late, backbone, workers=1, shards=3, counted=stop)
    [(first, entry)] = read_manifest(late).recordings.items()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            pack_shard(late, shard_of(first, 3), 3, {first: entry})
    assert (late / f"{first}.npy").exists() and first in open_shards(late, complete=False)
    with pytest.raises(ValueError, match="shards are missing"):
        open_shards(late)
    extract_folder([source], late, backbone, workers=1, shards=3)
    assert _bytes_of(late) == wanted

    # New, changed and broken recordings.
    write_table(source / "r3.csv", seed=33)
    write_table(source / "r9.csv", seed=9)
    (source / "r4.csv").write_text("broken")
    found = extract_folder([source], tmp_path / "late", backbone, workers=1)
    assert sorted(found.done) == ["r3", "r9"] and len(found.failed) == 1
    after = open_shards(tmp_path / "late")
    assert sorted(after) == sorted([*opened, "r9"])
    assert after["r3"].shape == (8, 44) and after["r3"].entry.snippets == 8
    np.testing.assert_array_equal(after["r4"], opened["r4"])  # as a file, it stays until replaced


def test_features_of_another_kind_do_not_get_into_shards(tmp_path):
    source = tmp_path / "in"
    _tables(source, 3)
    extract_folder([source], tmp_path / "out", open_backbone("signal"), workers=1, shards=2)
    with pytest.raises(ValueError, match="stride is 25.0, not 10.0"):
        extract_folder([source], tmp_path / "out", open_backbone("signal", stride=10), workers=1)
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="contains features without a manifest.json"):
        extract_folder([source], tmp_path / "out", open_backbone("signal"), workers=1)
    with pytest.raises(ValueError, match="shards is 0, expected 1 to 9999"):
        extract_folder([source], tmp_path / "new", open_backbone("signal"), shards=0)
    assert not (tmp_path / "new").exists()


# --- refused before anything is written ---


def test_two_recordings_of_one_name(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_table(tmp_path / folder / "a.csv")
    paths = [tmp_path / "one", tmp_path / "two" / "a.csv"]
    with pytest.raises(ValueError, match="one/a.csv and .*two/a.csv: two recordings of one name"):
        extract_folder(paths, tmp_path / "out", open_backbone("signal"))
    assert not (tmp_path / "out").exists()


def test_an_input_is_not_overwritten(tmp_path):
    np.save(tmp_path / "a.npy", np.column_stack([np.arange(9), np.ones((9, 3))]))
    with pytest.raises(ValueError, match="a.npy would be overwritten"):
        extract_folder([tmp_path / "a.npy"], tmp_path, open_backbone("signal"))


def test_features_of_others_are_not_mixed_in(tmp_path):
    write_table(tmp_path / "a.csv")
    output = tmp_path / "out"
    output.mkdir()
    np.save(output / "b.npy", np.ones((3, 4)))
    with pytest.raises(ValueError, match="out: contains features without a manifest.json"):
        extract_folder([tmp_path / "a.csv"], output, open_backbone("signal"))


def test_nothing_to_describe(tmp_path):
    (tmp_path / "letter.txt").write_text("")
    with pytest.raises(ValueError, match="no video in .*; expected files .mp4"):
        extract_folder([tmp_path], tmp_path / "out", Numbers())
    with pytest.raises(ValueError, match="no table in nothing"):
        extract_folder([], tmp_path / "out", open_backbone("signal"))
    with pytest.raises(ValueError, match="workers is 0"):
        extract_folder([tmp_path], tmp_path / "out", Numbers(), workers=0)


def test_names_that_are_no_text(tmp_path):
    path = os.fsdecode(bytes(tmp_path) + b"/b\xe9b\xe9.csv")
    with open(path, "w") as file:
        file.write("time_s,x,y,z\n")
    found = extract_folder([path], tmp_path / "out", open_backbone("signal"), workers=1)
    assert len(found.failed) == 1
    found.failed[0][1].encode()  # can be printed
    assert "b\\udce9b" in found.failed[0][1]


def test_a_name_too_long_for_the_features(tmp_path):
    path = tmp_path / f"{'n' * 251}.csv"
    write_table(path)
    extract_file(path, tmp_path / f"{path.stem}.npy", open_backbone("signal"))
    with pytest.raises(OSError, match="cannot write .*nnn.npy: File name too long"):
        extract_file(path, tmp_path / f"{path.stem}n.npy", open_backbone("signal"))


def test_manifests(tmp_path):
    assert read_manifest(tmp_path) is None
    for content in ('{"version": 2}', "[]", '{"version": 1, "backbone": {}}', "{"):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(ValueError, match="manifest.json"):
            read_manifest(tmp_path)


def test_what_differs_between_backbones():
    options = {"fps": 50.0, "channels": ["ax", "ay", "az"], "path": "here"}
    one = Manifest("signal", "1", options, 44, Grid(50, 25, 75))
    check_same_backbone(one, one, "run")
    moved = dataclasses.replace(one, options={**options, "path": "elsewhere"})
    check_same_backbone(one, moved, "run")
    other = dataclasses.replace(
        one, version="2", options={**options, "channels": ["x"]}, grid=Grid(50, 25, 50)
    )
    message = "run: features of another kind: .*channels is .*; version is 1, not 2; .*window is"
    with pytest.raises(ValueError, match=message):
        check_same_backbone(one, other, "run")


def test_stopped_from_the_keyboard(tmp_path):
    """Nothing unfinished stays behind, and no process goes on."""
    # So long that it is never done when the signal comes.
    write_table(tmp_path / "a.csv", samples=200_000)
    # Whoever runs the tests in the background ignores the signal, and so would the child.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from tal_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "extract", str(tmp_path / "a.csv")]
    command += ["--output", str(tmp_path / "out"), "--backbone", "signal", "--set", "stride=1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not list((tmp_path / "out").glob(".a.npy.*")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on from here" in errors, errors
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["grid.json", "manifest.json"]


def test_the_command_tells_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    command = ["extract", str(tmp_path), "--output", str(tmp_path / "out")]
    options = ["--backbone", "transformers", "--set", f"path={tmp_path}"]
    assert cli.main([*command, *options]) == 2
    assert 'run pip install "tal_jax[transformers]"' in capsys.readouterr().err
    for assignment, message in (("fps", "fps is ''"), ("rate=3", "option 'rate'")):
        assert cli.main([*command, "--backbone", "motion", "--set", assignment]) == 2
        assert message in capsys.readouterr().err


# --- one writer, and processes that end ---


def test_a_second_writer_is_refused(tmp_path, capsys):
    write_table(tmp_path / "a.csv")
    command = ["extract", str(tmp_path / "a.csv"), "--output", str(tmp_path / "out")]
    command += ["--backbone", "signal", "--workers", "1"]
    with one_writer(tmp_path / "out", "extracting features"):
        assert cli.main(command) == 2
        message = capsys.readouterr().err
        assert f"out is in use by extracting features, process {os.getpid()} on " in message
    assert not list((tmp_path / "out").glob("*.npy"))
    assert cli.main(command) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["a.npy", "grid.json", "manifest.json"]


def test_a_refused_command_leaves_no_folder(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(OSError, match="cannot write .*out/manifest.json: Not a directory"):
        (tmp_path / "out").write_text("in the way")
        extract_folder([tmp_path / "a.csv"], tmp_path / "out", open_backbone("signal"))
    assert (tmp_path / "out").read_text() == "in the way"


def test_an_output_in_the_way_is_found_before_the_work(tmp_path):
    write_table(tmp_path / "a.csv")
    (tmp_path / "out" / "a.npy").mkdir(parents=True)
    with pytest.raises(OSError, match="cannot write .*out/a.npy: Is a directory"):
        extract_folder([tmp_path / "a.csv"], tmp_path / "out", open_backbone("signal"))
    assert os.listdir(tmp_path / "out") == ["a.npy"]


def test_a_full_disk_is_found_before_the_work(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_table(tmp_path / "a.csv")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*manifest.json: No space left on device"):
        extract_folder([tmp_path / "a.csv"], tmp_path / "out", open_backbone("signal"))
    assert not (tmp_path / "out").exists()


def test_the_line_names_the_channels(tmp_path):
    write_table(tmp_path / "a.csv", names=tuple("abcdef"))
    lines = []
    paths, output = [tmp_path / "a.csv"], tmp_path / "out"
    extract_folder(paths, output, open_backbone("signal"), workers=1, report=lines.append)
    assert lines[0].startswith("1 recording of 4 s: about ")
    assert lines[1:] == ["a: 4.0 s, 8 snippets of (a, b, c), (d, e, f)"]


def test_another_unit_of_time_makes_the_features_again(tmp_path):
    values = np.random.default_rng(0).normal(size=(400, 3))
    rows = np.column_stack([np.arange(400) * 200, values])
    path, output = tmp_path / "a.csv", tmp_path / "out"
    np.savetxt(path, rows, delimiter=",", header="time,x,y,z", comments="")
    failed = extract_folder([path], output, open_backbone("signal"), workers=1).failed
    assert "plausible are ms (5) and us (5000)" in failed[0][1]
    for unit, duration_s in (("ms", 79.82), ("us", 0.08)):
        backbone = open_backbone("signal", time_unit=unit)
        assert extract_folder([path], output, backbone, workers=1).done == ("a",)
        manifest = read_manifest(output)
        assert manifest.recordings["a"].duration_s == pytest.approx(duration_s)
        assert manifest.options["time_unit"] == unit
        assert extract_folder([path], output, backbone, workers=1).skipped == ("a",)


def _wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_command_ends_its_processes(tmp_path, number):
    write_table(tmp_path / "a.csv", samples=200_000)
    command = [sys.executable, "-m", "tal_jax.cli", "extract", str(tmp_path / "a.csv")]
    command += ["--output", str(tmp_path / "out"), "--backbone", "signal", "--set", "stride=1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _wait_for(lambda: list((tmp_path / "out").glob(".a.npy.*")))
    process.send_signal(number)  # not to the others
    _, errors = process.communicate(timeout=30)
    if number == signal.SIGTERM:
        assert process.returncode == 143 and errors == ""
    else:  # Python tells of its semaphores
        assert process.returncode == -number and "Traceback" not in errors

    def is_over():
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    _wait_for(is_over)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    left = [".tal_jax.lock"] * (number == signal.SIGKILL)  # which the next command takes over
    assert names == [*left, "grid.json", "manifest.json"]
