"""One member of each format: the same photograph, film, sound or text, encoded by the libraries at hand; bytes out."""

from __future__ import annotations

import io
import math
import random
import struct
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
from astropy.io import fits
from PIL import Image

from tests.benchmarks import data

FILM_RATE = 25
SOUND_SECONDS = 180
_SAMPLE = Path(__file__).parents[1] / "data/images/picture.bufr"


def picture(kind: str, width: int = 1440, height: int = 1080, **options: object) -> bytes:
    """A photograph, as Pillow saves it."""
    return _saved(_photo(width, height), kind, **options)


def _photo(width: int = 1440, height: int = 1080) -> Image.Image:
    return Image.fromarray(data.pixels(np.random.default_rng(7), width, height))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def palette(kind: str, width: int = 1440, height: int = 1080) -> bytes:
    """A photograph of 256 colours."""
    return _saved(_photo(width, height).quantize(256), kind)


def cursor() -> bytes:
    """An icon of type 2 with a hot spot where an icon has planes and bits."""
    icon = picture("ICO", 256, 256, bitmap_format="bmp")
    return icon[:2] + b"\2\0" + icon[4:10] + struct.pack("<2H", 8, 6) + icon[14:]


def pages() -> bytes:
    """A DCX of one PCX: its mark, where the picture starts, no further one."""
    head = struct.pack("<3L", 0x3ADE68B1, 12, 0)
    return head + picture("PCX")


def pixar() -> bytes:
    """A header of 1024 bytes with height, width and those of its one tile at 416, channels at 424; then the rows."""
    pixels = np.asarray(_photo())
    head = bytearray(1024)
    head[:4] = b"\x80\xe8\0\0"
    struct.pack_into("<6H", head, 416, 1080, 1440, 1080, 1440, 14, 2)
    return bytes(head) + pixels.tobytes()


def layers() -> bytes:
    """A PSD of the flat picture alone, not compressed: channel by channel."""
    pixels = np.asarray(_photo())
    head = b"8BPS" + struct.pack(">H6xH2L2H", 1, 3, 1080, 1440, 8, 3)
    return head + bytes(12) + bytes(2) + pixels.transpose(2, 0, 1).tobytes()


def heif() -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(_photo()).save(out, quality=85)
    return out.getvalue()


def stars() -> bytes:
    """A FITS of 16-bit numbers without a sign."""
    out = io.BytesIO()
    fits.PrimaryHDU(np.asarray(_photo().convert("L")).astype(np.uint16) * 257).writeto(out)
    return out.getvalue()


def drawing() -> bytes:
    """An SVG of 400 circles and curves."""
    source = random.Random(9)
    place = partial(source.randint, 0, 1440)
    shapes = [
        f'<circle cx="{place()}" cy="{place()}" r="{place() // 16}" fill="{_colour(source)}" fill-opacity="0.6"/>'
        f'<path d="M{place()} {place()} q 80 -60 {place() // 8} 90 t 90 30" stroke="{_colour(source)}" stroke-width="4" fill="none"/>'
        for _ in range(200)
    ]
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="1440" height="1080">{"".join(shapes)}</svg>'.encode()


def _colour(source: random.Random) -> str:
    return f"#{source.randrange(1 << 24):06x}"


def messages() -> bytes:
    """A BUFR of 1,000 messages."""
    return _SAMPLE.read_bytes() * 500


def text() -> bytes:
    """A megabyte of words, one in some thirty with a letter that is not ASCII."""
    source = random.Random(10)
    words = (
        "shirt",
        "trousers",
        "striped",
        "navy",
        "Größe",
        "cotton",
        "watch",
        "casual",
        "formal",
        "running",
        "in",
        "the",
        "of",
        "a",
        "and",
    )
    block = "".join(f"{' '.join(source.choices(words, k=12))}.\n" for _ in range(2000)).encode()
    return block * (1_000_000 // len(block) + 1)


def film(container: str, codec: str, width: int = 640, height: int = 360, seconds: int = 4, **options: str) -> bytes:
    """A photograph that moves under sensor noise, 25 frames a second at 0.1 bits a pixel. ``audio`` is the codec of a sound track."""
    scene = data.pixels(np.random.default_rng(11), width, height) // 2 + 60
    grain = np.random.default_rng(12).integers(0, 8, (5, *scene.shape), np.uint8)
    sound_codec = options.pop("audio", "")
    out = io.BytesIO()
    with av.open(out, "w", container) as file:
        stream: Any = file.add_stream(codec, rate=FILM_RATE, options=options)
        stream.width, stream.height, stream.bit_rate = width, height, width * height * FILM_RATE // 10
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        track: Any = file.add_stream(sound_codec, rate=44_100, layout="stereo") if sound_codec else None
        for number in range(seconds * FILM_RATE):
            moved = np.roll(scene, 4 * number, 1) + grain[number % 5]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(moved, "rgb24")))
        file.mux(stream.encode(None))
        if track:
            _add_sound(file, track, 44_100, seconds)
    return out.getvalue()


def sound(container: str, codec: str, rate: int = 44_100) -> bytes:
    """Three minutes of stereo: tones that rise and fall, with noise."""
    out = io.BytesIO()
    with av.open(out, "w", container) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout="stereo", options={"strict": "experimental"})
        stream.bit_rate = 128_000
        _add_sound(file, stream, rate, SOUND_SECONDS)
    return out.getvalue()


def _add_sound(file: av.container.OutputContainer, stream: av.AudioStream, rate: int, seconds: int) -> None:
    noise = np.random.default_rng(13).normal(0, 300, (rate, 2))
    for second in range(seconds):
        time = second + np.arange(rate)[:, None] / rate
        tones = sum(3000 * np.sin(2 * math.pi * (220 * step * time + np.array([3, 5]) * np.sin(time))) for step in (1, 2, 3, 5))
        frame = av.AudioFrame.from_ndarray((tones + noise).astype(np.int16).reshape(1, -1), "s16", "stereo")
        frame.sample_rate, frame.pts = rate, second * rate
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
