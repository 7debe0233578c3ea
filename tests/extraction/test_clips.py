"""Clips of videos that show the number of each frame: what they hold, against the video."""

import random
import resource
import signal
from fractions import Fraction

import filming
import numpy as np
import pytest

from tal_jax._errors import InputError
from tal_jax.extraction import video
from tal_jax.extraction.clips import Clip, cut_clips

av = pytest.importorskip("av")

FILMS = {
    "a.mp4": {"options": {"g": "30", "bf": "2"}},
    "b.mkv": {"options": {"g": "25"}},
    "c.mov": {"codec": "libx265", "options": {"x265-params": "keyint=30:open-gop=1:log-level=0"}},
    "d.webm": {"codec": "libvpx-vp9", "options": {"g": "20"}},
    "e.avi": {"codec": "mpeg4", "options": {"g": "15"}},
    "f.ts": {"options": {"g": "30"}},
    "g.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "h.flv": {"options": {"g": "30"}},
    "i.wmv": {"codec": "wmv2", "options": {"g": "12"}},
    "j.3gp": {"options": {"g": "12"}},
    "one_keyframe.mp4": {"options": {"g": "1000", "sc_threshold": "0"}},
}


def _numbers(path, times_s):
    return [filming.number_of(pixels) for pixels in video.read_frames(path, times_s)]


def _same_pictures(source, clip, found_s, rounding_s=2e-3):
    """The clip shows at each time what the video shows at that time after the clip's start."""
    start_s, end_s = found_s
    assert video.probe(clip).duration_s == pytest.approx(end_s - start_s, abs=rounding_s)
    times_s = np.arange(0.0103, end_s - start_s - 0.01, 0.02)
    assert _numbers(clip, times_s) == _numbers(source, times_s + start_s)


@pytest.mark.parametrize("name", FILMS)
def test_pictures_are_those_of_the_video(tmp_path, name):
    source = filming.film(tmp_path / name, range(150), **FILMS[name])
    before = source.read_bytes()
    wanted = [(3.1, 4.6), (0.0, 0.1), (5.9, 99.0)]
    clips = [
        Clip(tmp_path / "clips" / f"{number}{source.suffix}", *times_s)
        for number, times_s in enumerate(wanted)
    ]
    found = cut_clips(source, clips)
    duration_s = video.probe(source).duration_s
    for clip, found_s in zip(clips, found, strict=True):
        assert found_s[0] <= clip.start_s + 1e-9
        # A frame that began before the end is complete.
        assert found_s[1] >= min(clip.end_s, duration_s) - 1e-6
        _same_pictures(source, clip.target, found_s)
    # Without keyframes a clip has to begin with the video.
    assert (found[0][0] == 0) == name.startswith("one_keyframe")
    assert source.read_bytes() == before
    assert len(list((tmp_path / "clips").iterdir())) == 3


def test_frames_of_varying_length(tmp_path):
    """A clock of a phone: keyframes and ends of frames lie anywhere."""
    rng = random.Random(0)
    ticks = np.cumsum([rng.randint(20, 90) for _ in range(120)]).tolist()
    source = filming.film(
        tmp_path / "a.mp4", range(120), ticks=ticks, tick=Fraction(1, 1000), options={"g": "17"}
    )
    info = video.probe(source)
    for number in range(6):
        start_s = rng.uniform(0, info.duration_s - 0.5)
        clip = Clip(tmp_path / f"{number}.mp4", start_s, start_s + rng.uniform(0.01, 2))
        (found_s,) = cut_clips(source, [clip])
        assert found_s[0] <= clip.start_s and found_s[1] >= min(clip.end_s, info.duration_s) - 1e-6
        # A container's length of the last frame is that of another one.
        _same_pictures(source, clip.target, found_s, rounding_s=0.09)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_is_kept_in_its_place(tmp_path, suffix):
    # Pictures from 0.4 s on, sound from 0 s on: the clock of the video begins with the sound.
    source = filming.film_with_sound(
        tmp_path / f"a{suffix}", range(150), first=10, sound_first_s=0.0, sound_s=6.0
    )
    clip = Clip(tmp_path / f"clip{suffix}", 2.0, 4.0)
    (found_s,) = cut_clips(source, [clip])
    with av.open(str(clip.target)) as container:
        sound, pictures = container.streams.audio[0], container.streams.video[0]
        packets = [one for one in container.demux(sound, pictures) if one.size]
        heard = [float(one.pts * one.time_base) for one in packets if one.stream is sound]
        shown = [float(one.pts * one.time_base) for one in packets if one.stream is pictures]
    assert 0 <= min(heard) - min(shown) < 0.05
    length_s = found_s[1] - found_s[0]
    assert abs(max(heard) - min(heard) - length_s) < 0.3
    info = video.probe(clip.target)
    times_s = np.arange(0.01, length_s - 0.01, 0.04)
    assert _numbers(clip.target, times_s + info.first_s) == _numbers(source, times_s + found_s[0])


def test_a_turned_video_stays_turned(tmp_path):
    source = filming.film(tmp_path / "a.mp4", range(50), rotation=90)
    cut_clips(source, [Clip(tmp_path / "b.mp4", 1.0, 1.5)])
    for path in (source, tmp_path / "b.mp4"):
        assert next(video.read_frames(path, [0.0])).shape == (filming.WIDTH, filming.HEIGHT, 3)


def test_refused(tmp_path):
    source = filming.film(tmp_path / "a.mp4", range(25))
    before = source.read_bytes()
    with pytest.raises(InputError, match=r"a clip from 1 s, expected a start within the video's 1"):
        cut_clips(source, [Clip(tmp_path / "b.mp4", 1.0, 2.0)])
    (tmp_path / "link.mp4").symlink_to(source)
    for path in (source, tmp_path / "link.mp4"):
        with pytest.raises(InputError, match="the video itself"):
            cut_clips(source, [Clip(path, 0.0, 0.5)])
    assert source.read_bytes() == before
    # A codec that the container of this suffix cannot hold.
    vp9 = filming.film(tmp_path / "b.webm", range(25), codec="libvpx-vp9")
    vp9.rename(wrong := tmp_path / "b.3gp")
    with pytest.raises(InputError, match=r"b\.3gp: cannot be cut without encoding it again"):
        cut_clips(wrong, [Clip(tmp_path / "c" / "c.3gp", 0.0, 0.5)])
    assert not list((tmp_path / "c").iterdir())


def test_a_full_disk(tmp_path, capfd):
    """No half-written clip is left, and nothing but the error."""
    source = filming.film(tmp_path / "a.mp4", range(100))
    whole = Clip(tmp_path / "b.mp4", 0.5, 3.0)
    cut_clips(source, [whole])
    length = whole.target.stat().st_size
    whole.target.unlink()
    _, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    capfd.readouterr()
    try:
        for size in (0, 100, length - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit))
            with pytest.raises(OSError, match=r"cannot write .*b\.mp4: File too large; nothing"):
                cut_clips(source, [whole])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, before)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
