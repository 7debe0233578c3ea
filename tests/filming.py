"""Small videos whose frames tell their number, in the picture."""

from fractions import Fraction

import numpy as np

HEIGHT, WIDTH = 48, 64
# The number of the frame that a page shows, for playwright.
NUMBER_SHOWN = """() => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [64, 48];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0, 64, 48);
    const bit = (i) => context.getImageData(i * 8 + 4, 8, 1, 1).data[0] > 128;
    return [0, 1, 2, 3, 4, 5, 6, 7].reduce((sum, i) => sum + (bit(i) ? 1 << i : 0), 0);
}"""


def picture(number, height=HEIGHT, width=WIDTH):
    """Eight bits, the lowest to the left, in black and white above grey."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    for bit in range(8):
        pixels[: height // 2, bit * 8 : bit * 8 + 8] = 255 * (number >> bit & 1)
    return pixels


def number_of(pixels):
    """Which frame a picture of the size that it was taken in is."""
    pixels = pixels.astype(int)
    assert abs(pixels[HEIGHT // 2 + 4 :, :WIDTH].mean() - 128) < 12, "not as it was taken"
    return sum(int(pixels[8, bit * 8 + 4].mean() > 128) << bit for bit in range(8))


def film(
    path,
    numbers,
    *,
    ticks=None,
    tick=Fraction(1, 25),
    codec="libx264",
    pixels="yuv420p",
    size=(HEIGHT, WIDTH),
    rotation=None,
    options=None,
    container=None,
    sound=False,
):
    """Writes the frames of these numbers, at these times in ticks."""
    import av

    with av.open(f"file:{path}", "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=round(1 / tick))
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = tick
        # Frames of high quality, so that their numbers can be read.
        stream.options = {"crf": "10"} | (options or {}) if codec == "libx264" else options or {}
        stream.bit_rate = 4_000_000
        if rotation is not None:
            stream.set_display_rotation(rotation)
        voice = file.add_stream("aac", rate=8000, layout="mono") if sound else None
        numbers = list(numbers)
        for number, at in zip(numbers, ticks or range(len(numbers)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = at, tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if voice is not None:
            file.mux(_silence(voice))
    return path


def film_with_sound(path, numbers, *, first=0, sound_first_s=0.0, sound_s=1.0, rate=25):
    """Writes frames from the time of number `first` on, and silence from another time on."""
    import av

    codecs = ("libvpx-vp9", "libopus") if str(path).endswith(".webm") else ("libx264", "aac")
    packets = []
    with av.open(str(path), "w") as file:
        stream, voice = file.add_stream(codecs[0], rate=rate), file.add_stream(codecs[1], 48_000)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.time_base, stream.bit_rate = Fraction(1, rate), 4_000_000
        voice.layout = "mono"
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = first + place, Fraction(1, rate)
            packets += stream.encode(frame)
        kind = "fltp" if codecs[1] == "aac" else "flt"
        for part in range(round(sound_s * 50)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), kind, "mono")
            frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
            frame.pts = round(sound_first_s * 48_000) + 960 * part
            packets += voice.encode(frame)
        packets += [*stream.encode(), *voice.encode()]
        file.mux(sorted(packets, key=lambda one: one.dts * one.time_base))
    return path


def record_sound(path, codec="aac"):
    """Writes a second of silence, and no picture."""
    import av

    with av.open(str(path), "w") as file:
        file.mux(_silence(file.add_stream(codec, rate=8000, layout="mono")))
    return path


def _silence(stream):
    import av

    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
    return [*stream.encode(frame), *stream.encode()]
