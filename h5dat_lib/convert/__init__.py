"""The table of formats: what a member starts with, or how it is named, in; the handler that converts it out.

A new format is a file beside this one, or a function in one of them, and a row in `HANDLERS`. docs/formats.md says of each what
decodes it, what it was checked against, and how fast it is.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from h5dat_lib.config import Medium
from h5dat_lib.convert import document, file, image, table, text
from h5dat_lib.convert.handler import Handler

__all__ = ["HANDLERS", "Handler", "by_extension", "handler_for", "single_threaded"]


# Seconds were measured on one core of a 2-core server: each member of 80 x 60 pixels, 3 KB of JSON, two CSV records; each megabyte
# of 1440 x 1080 photos, JSON and CSV, with 1/300 s for every megabyte of pixels that is compressed afterwards.


def _picture(name: str, extensions: tuple[str, ...], megabyte_seconds: float) -> Handler:
    kind = name.upper()
    return Handler(name, 1, "images", extensions, image.SIGNATURES[kind], partial(image.convert, kind), 0.0002, megabyte_seconds)


HANDLERS: tuple[Handler, ...] = (
    _picture("jpeg", (".jpg", ".jpeg", ".jpe", ".jfif"), 0.15),
    _picture("png", (".png",), 0.045),
    _picture("bmp", (".bmp", ".dib"), 0.004),
    _picture("gif", (".gif",), 0.032),
    _picture("tiff", (".tif", ".tiff"), 0.01),
    _picture("webp", (".webp",), 0.65),
    Handler("json", 1, "documents", (".json",), (), document.convert, 0.0001, 0.025),
    Handler("jsonl", 1, "documents", (".jsonl", ".ndjson"), (), document.convert_lines, 0.0001, 0.03),
    Handler("csv", 1, "tables", (".csv", ".tsv", ".tab"), (), table.convert, 0.001, 0.02),
    Handler("txt", 1, "texts", (".txt",), (), text.convert, 0.0001, 0.006),
)
"""Every format. Of several that a member could be of, the first is taken, or the first of the medium that its class asks for."""

FILE = Handler("file", 1, "files", (), (), file.convert, 0.0001, 0.004)
"""Takes whatever has no other handler, when the configuration wants such members kept."""

_ANY: dict[Medium, Handler] = {"files": FILE, "texts": next(handler for handler in HANDLERS if handler.name == "txt")}
"""Media that a class may ask for whatever the member is."""
_BY_EXTENSION = {
    extension: tuple(handler for handler in HANDLERS if extension in handler.extensions)
    for extension in {extension for handler in HANDLERS for extension in handler.extensions}
}
_BY_FIRST_BYTE = {
    bytes((first,)): tuple(handler for handler in HANDLERS if any(handler.may_start(group, first) for group in handler.signatures))
    for first in range(256)
}
"""Most members need no more than one comparison."""


def handler_for(head: bytes, path: str, medium: Medium | None = None) -> Handler | None:
    """The handler of a member by its first bytes, or by its extension when they carry no known signature.

    ``medium`` is that of the member's class, where it has one: a GIF may be a picture or a video, and anything a file.
    A ``.jpg`` that starts like no known format is given to its handler all the same: converting it says what is wrong.
    """
    if medium in _ANY:
        return _ANY[medium]
    found = tuple(handler for handler in _BY_FIRST_BYTE.get(head[:1], ()) if handler.recognises(head)) or _of_extension(path)
    return next((handler for handler in found if handler.medium == medium), found[0] if found else None)


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
