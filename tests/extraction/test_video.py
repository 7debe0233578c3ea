"""Videos written here, whose pictures tell which frame was taken."""

import shutil
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av")

import filming  # noqa: E402

from tal_jax.extraction import probe, read_frames  # noqa: E402


def numbers_at(path, times_s):
    return [filming.number_of(pixels) for pixels in read_frames(path, times_s)]


def shown_at(starts_s, times_s):
    """The rule, by brute force: the last frame that is shown at that time or before."""
    return [max([i for i, start in enumerate(starts_s) if start <= t] or [0]) for t in times_s]


NTSC = Fraction(1001, 30000)


@pytest.mark.parametrize(
    "name, tick, settings",
    [
        ("a.mp4", Fraction(1, 25), {}),  # with B-frames
        ("b.mp4", NTSC, {}),
        ("c.mkv", Fraction(1, 25), {}),
        ("d.webm", Fraction(1, 25), {"codec": "libvpx-vp9"}),
        ("e.avi", Fraction(1, 25), {"codec": "mpeg4"}),
        ("f.avi", Fraction(1, 25), {"codec": "mpeg4", "options": {"bf": "2"}}),
        ("g.ts", Fraction(1, 25), {}),
        ("h.mov", Fraction(1, 25), {"pixels": "yuv420p10le"}),
        ("i.mp4", Fraction(1, 25), {"pixels": "yuv444p", "size": (49, 67)}),
        ("j.mp4", Fraction(1, 25), {"codec": "mpeg4", "size": (49, 67)}),
        ("k.mp4", Fraction(1, 25), {"container": {"movflags": "frag_keyframe+empty_moov"}}),
        ("l.mp4", Fraction(1, 25), {"sound": True}),
        ("ビデオ 🎬 é.mp4", Fraction(1, 25), {}),
        ("http: at 12:30:01.mp4", Fraction(1, 25), {}),
    ],
)
def test_frames_at_their_times(tmp_path, name, tick, settings):
    path = filming.film(tmp_path / name, range(40), tick=tick, **settings)
    info = probe(path)
    assert info.num_frames == 40
    assert info.duration_s == pytest.approx(40 * float(tick), abs=1e-3)
    assert info.frame_rate == pytest.approx(1 / float(tick), rel=1e-3)
    assert next(read_frames(path, [0])).shape[:2] == settings.get("size", (48, 64))

    rng = np.random.default_rng(0)
    times_s = np.sort(rng.uniform(-0.1, 40 * float(tick) + 0.3, 60))
    starts_s = np.arange(40) * float(tick)
    # A clock of 1 ms tells the time no better; elsewhere it is exact.
    times_s = times_s[np.abs(times_s[:, None] - starts_s).min(1) > 1e-3]
    assert numbers_at(path, times_s) == shown_at(starts_s, times_s)
    assert numbers_at(path, starts_s) == list(range(40))


def test_a_steady_video_gives_every_frame_once_whatever_its_clock_rounds(tmp_path):
    """At 30 frames a second Matroska writes 0, 33, 67, 100 ms."""
    path = filming.film(tmp_path / "a.mkv", range(60), tick=Fraction(1, 30))
    assert numbers_at(path, np.arange(60) / 30) == list(range(60))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_rate_that_varies(tmp_path, name):
    ticks = np.cumsum([0, *np.random.default_rng(0).integers(5, 400, 50)]).tolist()
    path = filming.film(tmp_path / name, range(51), ticks=ticks, tick=Fraction(1, 1000))
    starts_s = np.array(ticks) / 1000
    times_s = np.arange(0, starts_s[-1] + 0.2, 0.04)
    assert numbers_at(path, times_s) == shown_at(starts_s, times_s)
    info = probe(path)
    assert info.num_frames == 51
    assert starts_s[-1] < info.duration_s < starts_s[-1] + 0.4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_time_begins_with_the_first_frame(tmp_path, name):
    path = filming.film(tmp_path / name, range(20), ticks=range(100, 120))
    assert numbers_at(path, [0, 0.05, 0.4]) == [0, 1, 10]
    assert probe(path).duration_s == pytest.approx(0.8, abs=2e-3)


def test_an_edit_list_cuts_the_beginning(tmp_path):
    path = filming.film(tmp_path / "a.mp4", range(30))
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12  # after version, flags and the count of edits
    length, media_time = struct.unpack_from(">Ii", content, at)
    # Lengths are in ticks of the film (1 ms), times in those of the stream: 512 a frame.
    struct.pack_into(">Ii", content, at, length - 200, media_time + 5 * 512)
    path.write_bytes(content)
    assert numbers_at(path, [0, 0.05, 0.4]) == [5, 6, 15]
    info = probe(path)
    assert info.num_frames == 25 and info.duration_s == pytest.approx(1.0)


# --- pictures that begin later than the sound, or than the file ---


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.ts", "a.mov"])
@pytest.mark.parametrize("first, sound_first_s", [(50, 0.0), (13, 0.0), (150, 4.0)])
def test_time_begins_with_the_sound(tmp_path, name, first, sound_first_s):
    path = filming.film_with_sound(
        tmp_path / name, range(40), first=first, sound_first_s=sound_first_s, sound_s=3
    )
    info, late_s = probe(path), first / 25 - sound_first_s
    # Encoders of sound begin a few samples earlier, which some files keep.
    assert info.first_s == pytest.approx(late_s, abs=0.03)
    assert info.origin_s + info.first_s == pytest.approx(
        first / 25, abs=0.03 if name != "a.ts" else 2.0
    )
    assert info.duration_s == pytest.approx(late_s + 1.6, abs=0.03)
    assert info.num_frames == 40 and info.frame_rate == pytest.approx(25)
    assert f"first frame {info.first_s:.3f} s after the start of the sound" in info.notes
    times_s = [0, *(info.first_s + np.array([-0.1, 0.06, 0.46, 1.58])), 99]
    assert numbers_at(path, times_s) == [0, 0, 1, 11, 39, 39]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.mov"])
def test_sound_that_begins_with_the_pictures_or_later_changes_nothing(tmp_path, name):
    for sound_first_s in (0.0, 1.0):
        path = filming.film_with_sound(tmp_path / name, range(40), sound_first_s=sound_first_s)
        info = probe(path)
        assert (info.first_s, info.origin_s, info.notes) == (0.0, 0.0, ())
        assert info.duration_s == pytest.approx(1.6, abs=2e-3)
        assert numbers_at(path, [0, 0.06, 0.46]) == [0, 1, 11]


def test_timestamps_that_begin_late_are_noted(tmp_path):
    path = filming.film(tmp_path / "a.mkv", range(20), ticks=range(100, 120))
    assert probe(path).notes == ("time 0 is 4.000 s in the file's timestamps",)


@pytest.mark.parametrize("name, codec", [("a.webm", "libvpx-vp9"), ("a.mp4", "libx264")])
def test_frames_before_the_files_own_time_0(tmp_path, name, codec):
    """As a cut without encoding leaves them: players begin at 0, an edit list says so."""
    path = filming.film(
        tmp_path / name,
        range(30),
        ticks=range(-10, 20),
        codec=codec,
        options={"bf": "0"} if codec == "libx264" else {},
        container={"avoid_negative_ts": "disabled"},
    )
    info = probe(path)
    assert info.duration_s == pytest.approx(0.8) and info.origin_s == 0
    assert numbers_at(path, [0.02, 0.42]) == [10, 20]
    hidden = name == "a.mp4"
    assert info.num_frames == (20 if hidden else 30) and info.frame_rate == pytest.approx(25)
    assert info.notes == (() if hidden else ("first frame 0.400 s before time 0 of the file",))


# --- what a frame looks like ---


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
def test_rotation(tmp_path, degrees):
    path = filming.film(tmp_path / "a.mp4", range(5), rotation=degrees)
    turns = degrees % 360 // 90
    for number, pixels in enumerate(read_frames(path, np.arange(5) / 25)):
        assert pixels.shape == ((64, 48, 3) if turns % 2 else (48, 64, 3))
        # Turned counterclockwise for display; clockwise gives back what was taken.
        assert filming.number_of(np.rot90(pixels, -turns)) == number
    small = next(read_frames(path, [0], size=(32, 16)))
    assert small.shape == (32, 16, 3) and small.flags["C_CONTIGUOUS"]


def test_a_phone_held_upright(tmp_path):
    """The matrix in the file of a phone's portrait video: (x, y) of a pixel becomes (-y, x)."""
    path = filming.film(tmp_path / "a.mp4", range(2))
    content = bytearray(path.read_bytes())
    one = 1 << 16
    at = content.index(
        struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30), content.index(b"tkhd")
    )
    struct.pack_into(">9i", content, at, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    pixels = next(read_frames(path, [0.04]))
    assert pixels.shape == (64, 48, 3)
    taken = filming.picture(1).astype(int)
    shown = np.zeros((64, 48, 3), int)
    for y in range(48):
        for x in range(64):
            shown[x, 47 - y] = taken[y, x]  # y points down; the picture is moved back into view
    assert np.abs(pixels - shown).mean() < 8


def test_scaling_and_colours(tmp_path):
    path = filming.film(tmp_path / "a.mp4", [255, 0])
    pixels = next(read_frames(path, [0], size=(12, 16)))
    assert pixels.dtype == np.uint8 and pixels.shape == (12, 16, 3)
    assert pixels[:5].min() > 230 and abs(int(pixels[8].mean()) - 128) < 10


def test_a_frame_that_stays_is_the_same_array(tmp_path):
    path = filming.film(tmp_path / "a.mp4", range(3))
    first, again, other = read_frames(path, [0, 0.03, 0.05])
    assert first is again and first is not other


def test_times_may_be_endless(tmp_path):
    path = filming.film(tmp_path / "a.mp4", range(10))
    frames = read_frames(path, (n / 25 for n in iter(int, 1)))
    assert filming.number_of(next(frames)) == 0


def noise(path, **container):
    """A video that takes bytes, so that there is something to cut off."""
    import av

    rng = np.random.default_rng(0)
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    with av.open(str(path), "w", options=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(100):
            pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    "name, container",
    [
        ("end.mp4", {}),  # the index lies at the end
        ("front.mp4", {"movflags": "faststart"}),
        ("parts.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", {}),
        ("a.avi", {}),
    ],
)
@pytest.mark.parametrize("part", [0.02, 0.6, 0.9])
def test_cut_short(tmp_path, name, container, part):
    path = noise(tmp_path / name, **container)
    assert probe(path).num_frames == 100
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=name) as error:
        probe(path)
    assert "\n" not in str(error.value)
    if part > 0.5 and name != "end.mp4":
        assert "cut short, it ends after" in str(error.value)
        assert len(str(error.value)) < 100 + len(str(path))
    if name in ("front.mp4", "a.mkv"):
        with pytest.raises(ValueError, match="broken|cut short|cannot read"):
            list(read_frames(path, [0, 99]))


def write(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    "name, make, message",
    [
        ("missing.mp4", lambda path: None, "No such file"),
        ("folder.mp4", lambda path: path.mkdir(), "Is a directory"),
        ("empty.mp4", write(b""), "Invalid data.*expected a whole video"),
        ("text.mp4", write(b"no video, but a letter\n" * 99), "Invalid data"),
        ("zeros.mkv", write(bytes(9999)), "Invalid data"),
        ("sound.m4a", filming.record_sound, "no video in it, only sound"),
        ("sound.mp4", filming.record_sound, "no video in it, only sound"),
    ],
)
def test_what_is_no_video(tmp_path, name, make, message):
    make(tmp_path / name)
    for read in (probe, lambda path: list(read_frames(path, [0]))):
        with pytest.raises(ValueError, match=f"{name}.*{message}") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.mkv", "none.mp4"])
def test_zero_frames(tmp_path, name):
    import av

    path, options = tmp_path / name, {"movflags": "empty_moov"} if name[-1] == "4" else {}
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()
    for read in (probe, lambda path: list(read_frames(path, [0]))):
        with pytest.raises(ValueError, match=f"{name}: (a video without frames|End of file)"):
            read(path)


def test_frames_without_times(tmp_path):
    path = filming.film(tmp_path / "raw.h264", range(9))
    with pytest.raises(ValueError, match="raw.h264: a video without presentation times"):
        probe(path)


def test_all_frames_at_one_instant(tmp_path):
    path = filming.film(tmp_path / "a.mp4", range(9), options={"bf": "0"})
    content = bytearray(path.read_bytes())
    at = content.index(b"stts") + 8
    assert struct.unpack_from(">III", content, at) == (1, 9, 512)
    struct.pack_into(">III", content, at, 1, 9, 0)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its 9 frames are shown at one instant, expected a rate"):
        probe(path)


def test_damage_in_the_middle(tmp_path):
    path = noise(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.mp4: broken \d\.\d+ s after its first frame"):
        list(read_frames(path, [99]))


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r'pip install "tal_jax\[video\]"'):
        probe(tmp_path / "a.mp4")


def test_no_program_is_called(tmp_path, monkeypatch):
    """PyAV brings what it needs; nothing of the machine is looked for."""
    path = filming.film(tmp_path / "a.mp4", range(3))
    monkeypatch.setenv("PATH", "")
    assert shutil.which("ffmpeg") is None
    assert numbers_at(path, [0.04]) == [1]
