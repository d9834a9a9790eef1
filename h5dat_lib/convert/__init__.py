"""The table of formats: what a member starts with, or how it is named, in; the handler that converts it out.

A new format is a file beside this one, or a function in one of them, and a row in `HANDLERS`. docs/formats.md says of each what
decodes it, what it was checked against, and how fast it is.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from h5dat_lib.config import Medium
from h5dat_lib.convert import audio, bufr, document, file, image, table, text, video
from h5dat_lib.convert.handler import Handler

__all__ = ["HANDLERS", "Handler", "by_extension", "formats", "handler_for", "single_threaded"]


# Seconds were measured on one core of a 2-core server: each member of 80 x 60 pixels, 3 KB of JSON, two CSV records; each megabyte
# of 1440 x 1080 photos, JSON and CSV, with 1/300 s for every megabyte of pixels that is compressed afterwards.


def _picture(name: str, extensions: tuple[str, ...], megabyte_seconds: float) -> Handler:
    kind = name.upper()
    return Handler(name, 3, "images", extensions, image.SIGNATURES.get(kind, ()), partial(image.convert, kind), 0.0002, megabyte_seconds)


def _video(name: str, extensions: tuple[str, ...]) -> Handler:
    return Handler(name, 1, "videos", extensions, video.SIGNATURES[name], partial(video.convert, name), 0.005, 1.5)


def _audio(name: str, extensions: tuple[str, ...], megabyte_seconds: float) -> Handler:
    return Handler(name, 1, "audio", extensions, audio.SIGNATURES[name], partial(audio.convert, name), 0.001, megabyte_seconds)


_FILMS = tuple(group for name, groups in video.SIGNATURES.items() if name != "gif-video" for group in groups)
"""Signatures of what may have a sound track."""

HANDLERS: tuple[Handler, ...] = (
    _picture("jpeg", (".jpg", ".jpeg", ".jpe", ".jfif"), 0.15),
    _picture("png", (".png",), 0.045),
    _picture("bmp", (".bmp", ".dib"), 0.004),
    _picture("gif", (".gif",), 0.032),
    _picture("tiff", (".tif", ".tiff"), 0.01),
    _picture("webp", (".webp",), 0.65),
    _picture("avif", (".avif",), 1.2),
    _picture("jpeg2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf"), 1.2),
    _picture("ico", (".ico",), 0.05),
    _picture("cur", (".cur",), 0.05),
    _picture("icns", (".icns",), 0.05),
    _picture("pcx", (".pcx",), 0.01),
    _picture("dcx", (".dcx",), 0.01),
    _picture("pixar", (".pxr",), 0.005),
    _picture("ppm", (".ppm", ".pgm", ".pbm", ".pnm"), 0.005),
    _picture("sgi", (".sgi", ".rgb"), 0.005),
    _picture("tga", (".tga",), 0.005),
    _picture("blp", (".blp",), 0.5),
    _picture("qoi", (".qoi",), 0.02),
    _picture("dds", (".dds",), 0.3),
    _picture("psd", (".psd",), 0.01),
    _picture("heif", (".heic", ".heif"), 1.0),
    _picture("fits", (".fits",), 0.02),
    _picture("svg", (".svg", ".svgz"), 0.5),
    _picture("eps", (".eps",), 1.0),
    Handler("bufr", 1, "documents", (".bufr",), (((0, b"BUFR"),),), bufr.convert, 0.005, 10.0),
    Handler("json", 2, "documents", (".json",), (), document.convert, 0.0001, 0.025),
    Handler("jsonl", 2, "documents", (".jsonl", ".ndjson"), (), document.convert_lines, 0.0001, 0.03),
    Handler("csv", 2, "tables", (".csv", ".tsv", ".tab", ".del", ".psv"), (), table.convert, 0.002, 0.02),
    *(Handler(name, 2, "texts", named, (), partial(text.convert, name), 0.0001, 0.006) for name, named in text.EXTENSIONS.items()),
    # Behind the pictures: a GIF is one as long as no class says otherwise, and AVIF and HEIF are in the container of MP4.
    _video("mp4", (".mp4", ".m4v", ".mov")),
    _video("mkv", (".mkv", ".webm")),
    _video("avi", (".avi",)),
    _video("mpeg", (".mpg", ".mpeg")),
    _video("m2v", (".m2v",)),
    _video("ts", (".ts",)),
    _video("wmv", (".wmv", ".asf")),
    _video("gif-video", ()),
    # Behind the videos: M4A, MKA and WMA start like them, and go by their extension. A class of sound takes that of a video, too.
    Handler("soundtrack", 1, "audio", (), _FILMS, partial(audio.convert, "soundtrack"), 0.001, 0.02),
    _audio("mp3", (".mp3",), 0.11),
    _audio("wav", (".wav", ".wave"), 0.006),
    _audio("flac", (".flac",), 0.02),
    _audio("ogg", (".ogg", ".oga", ".opus"), 0.28),
    _audio("m4a", (".m4a", ".m4b"), 0.1),
    _audio("aac", (".aac",), 0.1),
    _audio("aiff", (".aif", ".aiff", ".aifc"), 0.006),
    _audio("wma", (".wma",), 0.08),
    _audio("mka", (".mka", ".weba"), 0.1),
)
"""Every format. Of several that a member could be of, that of its extension is taken, or the first, or that of the medium that its
class asks for."""

FILE = Handler("file", 1, "files", (), (), file.convert, 0.0001, 0.004)
"""Takes whatever has no other handler, when the configuration wants such members kept."""

_ANY: dict[Medium, Handler] = {"files": FILE, "texts": next(handler for handler in HANDLERS if handler.name == "txt")}
"""Media that a class may ask for whatever the member is."""
_BY_EXTENSION = {
    extension: tuple(handler for handler in HANDLERS if extension in handler.extensions)
    for extension in {extension for handler in HANDLERS for extension in handler.extensions}
}


def _by_mark() -> dict[tuple[int, int], dict[bytes, list[Handler]]]:
    """The handlers by where the first mark of a signature lies, and by the mark; of one that lies at the start, by its first byte."""
    places: dict[tuple[int, int], dict[bytes, list[Handler]]] = {}
    for handler in HANDLERS:
        marks = {(at, mark if at else mark[:1]) for (at, mark), *_ in handler.signatures}
        for at, mark in marks:
            places.setdefault((at, at + len(mark)), {}).setdefault(mark, []).append(handler)
    return places


_BY_MARK = _by_mark()
"""Most members are of none of them, which a look at each of the few places tells."""


def handler_for(head: bytes, path: str, medium: Medium | None = None) -> Handler | None:
    """The handler of a member by its first bytes, or by its extension when they carry no known signature.

    ``medium`` is that of the member's class, where it has one: a GIF may be a picture or a video, and anything a file.
    A ``.jpg`` that starts like no known format is given to its handler all the same: converting it says what is wrong.
    """
    if medium in _ANY:
        return next((handler for handler in _of_extension(path) if handler.medium == medium), _ANY[medium])
    for handler in _of_extension(path):
        if medium in (None, handler.medium) and handler.recognises(head):
            return handler  # no other comes before it
    found = formats(head, path)
    return next((handler for handler in found if handler.medium == medium), found[0] if found else None)


def formats(head: bytes, path: str) -> tuple[Handler, ...]:
    """All handlers that a member may have: by its first bytes, those of its extension first; by that alone when they carry no known
    signature."""
    named = _of_extension(path)
    likely = [handler for (at, end), alike in _BY_MARK.items() for handler in alike.get(head[at:end], ())]
    found = [handler for handler in likely if handler.recognises(head)]
    if len(found) > 1:
        found = sorted({*found}, key=lambda handler: (handler not in named, HANDLERS.index(handler)))
    return tuple(found) or named


def by_extension(path: str) -> Handler | None:
    """The handler of a path by its extension, in any case; about 0.2 us."""
    return next(iter(_of_extension(path)), None)


def _of_extension(path: str) -> tuple[Handler, ...]:
    return _BY_EXTENSION.get(path[path.rfind(".") :].lower(), ())


def single_threaded() -> None:
    """Keeps the native libraries of this process to one thread each; workers are what uses the cores.

    Imports none of them: those that are not loaded yet read it from the environment when they are.
    """
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1", "ARROW_IO_THREADS": "1"})
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].set_cpu_count(1)
        sys.modules["pyarrow"].set_io_thread_count(1)
