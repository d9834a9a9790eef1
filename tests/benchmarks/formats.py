"""The table of what the handlers are compared on: for each, members, and the decoders that give the same values by themselves."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import av
import cv2
import eccodes
import imagecodecs
import numpy as np
import pillow_heif
import resvg_py
import simplejpeg
from astropy.io import fits
from av.video.reformatter import VideoReformatter
from PIL import Image
from pyarrow import csv

from h5dat_lib.config import Config, ImageOptions, Medium, MediumOptions, Resize
from h5dat_lib.convert import text
from tests.benchmarks import data, members

Decode = Callable[[bytes], float]
"""Decodes a member with one thread; returns how much that was, in the unit of its medium."""

UNITS: dict[Medium, str] = {"images": "MB/s of pixels", "videos": "frames/s", "audio": "x real time"}
"""The others: MB/s of the member."""


_PLAIN = Config()


@dataclass(frozen=True)
class Case:
    """A member, how it is made, and what decodes it without H5DAT; the fastest of several counts."""

    name: str
    make: Callable[[], bytes]
    decoders: dict[str, Decode]
    options: MediumOptions = _PLAIN


# Decoders


def _of(array: Any) -> float:
    return float(array.nbytes / 1e6)


def _pillow(member: bytes) -> float:
    image = Image.open(io.BytesIO(member))
    return _of(np.asarray(image.convert("RGB") if image.mode == "P" else image))


def _with_alpha(member: bytes) -> float:
    return _of(np.asarray(Image.open(io.BytesIO(member)).convert("RGBA")))


def _cursor(member: bytes) -> float:
    """As an icon: of a cursor Pillow leaves out what is transparent."""
    return _pillow(b"\0\0\1\0" + member[4:])


def _opencv(member: bytes) -> float:
    return _of(cv2.imdecode(np.frombuffer(member, np.uint8), cv2.IMREAD_COLOR_RGB))


def _simplejpeg(member: bytes) -> float:
    return _of(simplejpeg.decode_jpeg(member))


def _resized(member: bytes) -> float:
    """All pixels, then their averages; counted are the pixels of the photograph."""
    photo = simplejpeg.decode_jpeg(member)
    cv2.resize(photo, (512, 341), interpolation=cv2.INTER_AREA)
    return _of(photo)


def _imagecodecs(decode: Callable[..., Any], **options: int) -> Decode:
    return lambda member: _of(decode(member, **options))


def _libheif(member: bytes) -> float:
    return _of(np.asarray(pillow_heif.open_heif(io.BytesIO(member))))


def _astropy(member: bytes) -> float:
    with fits.open(io.BytesIO(member)) as file:
        return _of(np.array(file[0].data))


def _resvg(member: bytes) -> float:
    """It gives the pixels as PNG."""
    return _of(cv2.imdecode(np.frombuffer(resvg_py.svg_to_bytes(svg_string=member.decode(), skip_system_fonts=True), np.uint8), -1))


def _ghostscript(member: bytes) -> float:
    options = (
        "-q",
        "-dSAFER",
        "-dBATCH",
        "-dNOPAUSE",
        "-dGraphicsAlphaBits=4",
        "-dTextAlphaBits=4",
        "-sDEVICE=ppmraw",
        "-g720x540",
        "-r72",
    )
    page = subprocess.run(["gs", *options, "-sOutputFile=-", "-_"], input=member, capture_output=True, check=True).stdout
    return _of(np.frombuffer(page, np.uint8))


def _eccodes(member: bytes) -> float:
    start = 0
    while (start := member.find(b"BUFR", start)) >= 0:
        end = start + int.from_bytes(member[start + 4 : start + 7], "big")
        handle = eccodes.codes_new_from_message(member[start:end])
        eccodes.codes_set(handle, "unpack", 1)
        eccodes.codes_get_array(handle, "numericValues")
        eccodes.codes_release(handle)
        start = end
    return len(member) / 1e6


def _json(member: bytes) -> float:
    json.loads(member)
    return len(member) / 1e6


def _json_lines(member: bytes) -> float:
    for line in member.splitlines():
        json.loads(line)
    return len(member) / 1e6


def _arrow(member: bytes) -> float:
    """As a stream, with the types that its first megabyte has."""
    for _ in csv.open_csv(io.BytesIO(member), csv.ReadOptions(use_threads=False)):
        pass
    return len(member) / 1e6


def _text(member: bytes) -> float:
    member.decode()
    return len(member) / 1e6


def _frames(member: bytes) -> float:
    with av.open(io.BytesIO(member), "r") as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        return float(sum(frame.to_ndarray(format="rgb24").ndim == 3 for frame in file.decode(stream)))


def _reformatted(member: bytes) -> float:
    """As `_frames`, but the conversion to RGB is set up once."""
    reformatter = VideoReformatter()
    with av.open(io.BytesIO(member), "r") as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        return float(sum(reformatter.reformat(frame, format="rgb24").to_ndarray().ndim == 3 for frame in file.decode(stream)))


def _seconds(member: bytes, joined: int | None = None) -> float:
    """An array for each frame, or for each so many samples, which of short frames is less work."""
    resampler, samples = av.AudioResampler("s16", frame_size=joined), 0
    with av.open(io.BytesIO(member), "r") as file:
        stream = file.streams.audio[0]
        for frame in chain(file.decode(stream), [None]):
            for piece in resampler.resample(frame):
                samples += piece.to_ndarray().size // 2
        return samples / stream.rate


_FRAMES: dict[str, Decode] = {"PyAV": _frames, "PyAV, one reformatter": _reformatted}
_SOUND: dict[str, Decode] = {"PyAV": _seconds, "PyAV, frames joined": partial(_seconds, joined=1 << 16)}
_JSON: dict[str, Decode] = {"json.loads": _json}
_CSV: dict[str, Decode] = {"pyarrow": _arrow}


# Members


def _pictures(kind: str, decoders: dict[str, Decode]) -> tuple[Case, ...]:
    """At the sizes of an icon, a web page, a screen and a camera."""
    sizes = ((80, 60), (640, 480), (1920, 1080), (6000, 4000))
    return tuple(Case(f"{width}x{height}", partial(members.picture, kind, width, height, quality=85), decoders) for width, height in sizes)


def _picture(make: Callable[[], bytes], size: str = "1440x1080", **decoders: Decode) -> tuple[Case, ...]:
    return (Case(size, make, decoders),)


def _film(container: str, codec: str, name: str, **options: Any) -> Case:
    return Case(f"{name} 640x360, 4 s", partial(members.film, container, codec, **options), _FRAMES)


def _sound(container: str, codec: str, name: str, rate: int = 44_100) -> tuple[Case, ...]:
    return (Case(f"{name} 3 min", partial(members.sound, container, codec, rate), _SOUND),)


def _documents(count: int) -> bytes:
    source = random.Random(7)
    return json.dumps([json.loads(data.document(source, number)) for number in range(count)], indent=1).encode()


def _lines() -> bytes:
    source = random.Random(7)
    return b"".join(json.dumps(json.loads(data.document(source, number))).encode() + b"\n" for number in range(5000))


_RESIZE = Config(image=ImageOptions(resize=Resize(width=512, height=512)))
_X264: dict[str, Any] = {"preset": "veryfast"}

CASES: dict[str, tuple[Case, ...]] = {
    "jpeg": (
        *_pictures("JPEG", {"simplejpeg": _simplejpeg}),
        Case(
            "6000x4000 to 512",
            partial(members.picture, "JPEG", 6000, 4000, quality=85),
            {"all pixels, then resized": _resized},
            _RESIZE,
        ),
    ),
    "png": _pictures("PNG", {"Pillow": _pillow, "OpenCV": _opencv, "imagecodecs": _imagecodecs(imagecodecs.png_decode)}),
    "bmp": _picture(partial(members.picture, "BMP"), Pillow=_pillow, OpenCV=_opencv),
    "gif": _picture(partial(members.palette, "GIF"), Pillow=_pillow),
    "tiff": _picture(partial(members.picture, "TIFF", compression="tiff_lzw"), Pillow=_pillow, OpenCV=_opencv),
    "webp": _picture(partial(members.picture, "WEBP"), Pillow=_pillow, OpenCV=_opencv, imagecodecs=_imagecodecs(imagecodecs.webp_decode)),
    "avif": _picture(partial(members.picture, "AVIF"), Pillow=_pillow, imagecodecs=_imagecodecs(imagecodecs.avif_decode, numthreads=1)),
    "jpeg2000": _picture(
        partial(members.picture, "JPEG2000"),
        Pillow=_pillow,
        OpenCV=_opencv,
        imagecodecs=_imagecodecs(imagecodecs.jpeg2k_decode, numthreads=1),
    ),
    "ico": _picture(partial(members.picture, "ICO", 256, 256, bitmap_format="bmp"), "256x256", Pillow=_pillow),
    "cur": _picture(members.cursor, "256x256", Pillow=_cursor),
    "icns": _picture(partial(members.picture, "ICNS", 512, 512), "1024x1024", Pillow=_with_alpha),
    "pcx": _picture(partial(members.picture, "PCX"), Pillow=_pillow),
    "dcx": _picture(members.pages, Pillow=_pillow),
    "pixar": _picture(members.pixar, Pillow=_pillow),
    "ppm": _picture(partial(members.picture, "PPM"), Pillow=_pillow, OpenCV=_opencv),
    "sgi": _picture(partial(members.picture, "SGI"), Pillow=_pillow),
    "tga": _picture(partial(members.picture, "TGA", compression="tga_rle"), Pillow=_pillow),
    "blp": _picture(partial(members.palette, "BLP", 720, 540), "720x540", Pillow=_pillow),
    "qoi": _picture(partial(members.picture, "QOI"), imagecodecs=_imagecodecs(imagecodecs.qoi_decode)),
    "dds": _picture(partial(members.picture, "DDS", pixel_format="DXT1"), Pillow=_pillow),
    "psd": _picture(members.layers, Pillow=_pillow),
    "heif": _picture(members.heif, pillow_heif=_libheif),
    "fits": _picture(members.stars, astropy=_astropy),
    "svg": _picture(members.drawing, resvg=_resvg),
    "eps": _picture(partial(members.picture, "EPS", 720, 540), "720x540", Ghostscript=_ghostscript) if shutil.which("gs") else (),
    "bufr": (Case("1,000 messages", members.messages, {"ecCodes": _eccodes}),),
    "json": (
        Case("3 KB", lambda: data.document(random.Random(7), 1), _JSON),
        Case("array, 17 KB", partial(_documents, 6), _JSON),
        Case("array, 14 MB", partial(_documents, 5000), _JSON),
    ),
    "jsonl": (Case("10 MB", _lines, {"json.loads a line": _json_lines}),),
    "csv": (Case("10 KB", lambda: data.table(100)[:10_000].rpartition(b"\n")[0], _CSV), Case("100 MB", partial(data.table, 100), _CSV)),
    **{name: (Case("1 MB", members.text, {"bytes.decode": _text}),) for name in text.EXTENSIONS},
    "mp4": (
        Case("H.264 1920x1080, 10 s", partial(members.film, "mp4", "libx264", 1920, 1080, 10, **_X264), _FRAMES),
        _film("mp4", "libx264", "H.264", **_X264),
        _film("mp4", "libx265", "HEVC", preset="veryfast", **{"x265-params": "log-level=error"}),
    ),
    "mkv": (_film("matroska", "libvpx-vp9", "VP9", deadline="realtime"),),
    "avi": (_film("avi", "mpeg4", "MPEG-4"),),
    "mpeg": (_film("mpeg", "mpeg2video", "MPEG-2"),),
    "m2v": (_film("mpeg2video", "mpeg2video", "MPEG-2"),),
    "ts": (_film("mpegts", "libx264", "H.264", **_X264),),
    "wmv": (_film("asf", "wmv2", "WMV 2"),),
    "gif-video": (_film("gif", "gif", "GIF"),),
    "soundtrack": (
        Case(
            "AAC in H.264 640x360, 60 s",
            partial(members.film, "mp4", "libx264", seconds=60, audio="aac", preset="veryfast"),
            _SOUND,
        ),
    ),
    "mp3": _sound("mp3", "libmp3lame", "MP3"),
    "wav": _sound("wav", "pcm_s16le", "PCM"),
    "flac": _sound("flac", "flac", "FLAC"),
    "ogg": (*_sound("ogg", "vorbis", "Vorbis"), *_sound("ogg", "libopus", "Opus", 48_000)),
    "m4a": _sound("ipod", "aac", "AAC"),
    "aac": _sound("adts", "aac", "AAC"),
    "aiff": _sound("aiff", "pcm_s16be", "PCM"),
    "wma": _sound("asf", "wmav2", "WMA 2"),
    "mka": _sound("matroska", "libopus", "Opus", 48_000),
}
"""By the name of the handler; every one has a case. EPS needs Ghostscript."""
