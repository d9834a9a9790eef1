"""EPS: a drawing's bytes in, its bounding box and a way to have Ghostscript draw its pixels out.

PostScript is a program. Ghostscript runs it in a process of its own that can open no file but Ghostscript's own, with the drawing on
its standard input, no longer than a time limit, and it is ended once it has given the pixels of one page.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from functools import partial
from typing import IO

import numpy as np

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.picture import Decoded, Picture, Pixels, check_pixels
from h5dat_lib.errors import MemberError

__all__ = ["open_eps"]

POINTS = 72
"""Points an inch, and the pixels an inch that a drawing has by itself."""
_BOUNDED = ("sh", "-c", 'ulimit -t "$0" && exec "$@"')
"""Runs a program with a limit on the processor's time: who waits for it may be killed, and then nobody else would end it."""
_GHOSTSCRIPT = (
    *("-q", "-dSAFER", "-dBATCH", "-dNOPAUSE", "-sstdout=%stderr"),
    *("-sDEVICE=ppmraw", "-dTextAlphaBits=4", "-dGraphicsAlphaBits=4", "-sOutputFile=%stdout"),
    "-sBandListStorage=memory",  # of large pages, which would be kept in temporary files
)
_NO_FOLDER = {"TMPDIR": os.devnull, "TEMP": os.devnull}
"""``-dSAFER`` lets a drawing read, write and delete what is in the folder for temporary files: there must be none."""
_DOS = b"\xc5\xd0\xd3\xc6"
"""Starts the binary file header in which Windows wraps a drawing and its preview (Adobe TN 5002, 5.2)."""
_NUMBER = rb"[+-]?(?:\d+\.?\d*|\.\d+)"
_FOUR = rb"[ \t]+".join([rb"(%s)" % _NUMBER] * 4)
_BOX = re.compile(rb"(?:^|[\r\n])%%BoundingBox:[ \t]*(?:\(atend\)|" + _FOUR + rb")[ \t]*(?=[\r\n]|$)")
_END = re.compile(rb"[\r\n]%%(?:Trailer|EOF)\b|(?:showpage|grestore end|\x04)\s*\0*$")
"""What a whole drawing has behind its last picture: a comment of the Document Structuring Conventions, or its end as programs without
them write it."""


def open_eps(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A drawing: uint8 RGB on white, (height, width, 3).

    A point of its bounding box is a pixel, or ``options.vector_size`` is the longer side. Edges are smoothed, pictures are not.
    Raises MemberError when it is no EPS or is cut, and when there is no Ghostscript.
    """
    drawing = _postscript(data)
    if not drawing.startswith(b"%!"):
        raise MemberError(f"not EPS: found {drawing[:8]!r}, expected %!PS")
    damage = _damage(drawing)
    if damage and options.damaged == "strict":
        raise MemberError(f"damaged: {damage}")
    box = _bounding_box(drawing)
    longer = max(box[2] - box[0], box[3] - box[1])
    scale = 1.0 if options.vector_size is None else options.vector_size / longer
    width, height = (max(1, math.ceil(round(side * scale, 6))) for side in (box[2] - box[0], box[3] - box[1]))
    check_pixels(width, height, limits)
    page = [f"-g{width}x{height}", f"-r{POINTS * scale:.9f}", "-c", f"{-box[0]:.9f} {-box[1]:.9f} translate"]
    draw = partial(_drawn, drawing, page, (height, width, 3), limits.member_seconds / 2)  # the worker, which waits for it, has all of them
    return Picture("EPS", "RGB", height, width, 3, "|u1", lambda: Decoded(draw(), damage))


def _postscript(data: bytes) -> bytes:
    """The drawing without the binary header and preview of Windows, if it has them."""
    if not data.startswith(_DOS):
        return data
    if len(data) < 30:
        raise MemberError(f"damaged: found {len(data)} bytes, expected a header of 30")
    start, size = struct.unpack_from("<2L", data, 4)
    if start + size > len(data):
        raise MemberError(f"damaged: found {len(data)} bytes, expected a drawing up to byte {start + size}")
    return data[start : start + size]


def _damage(drawing: bytes) -> str:
    """Why a drawing is not whole: PostScript does not complain when the samples of a picture end early, and leaves the rest white."""
    if drawing.count(b"%%BeginDocument") > drawing.count(b"%%EndDocument"):
        return "ends within a drawing in it"
    return "" if _END.search(drawing, drawing.rfind(b"%%EndDocument") + 1) else "ends without %%EOF or showpage"


def _bounding_box(drawing: bytes) -> tuple[float, float, float, float]:
    """Left, bottom, right and top in points, of the comment in the header or, when that says ``(atend)``, in the trailer."""
    found = _BOX.search(drawing)
    if found and found[1] is None:
        *_, found = _BOX.finditer(drawing)  # its own is the last, behind those of drawings within it
    if found is None or found[1] is None:
        raise MemberError("not EPS: found no %%BoundingBox with four numbers")
    left, bottom, right, top = (float(number) for number in found.groups())
    if not (left < right and bottom < top):
        raise MemberError(f"empty: found a bounding box from {left:g}, {bottom:g} to {right:g}, {top:g}")
    return left, bottom, right, top


def _drawn(drawing: bytes, page: list[str], shape: tuple[int, int, int], seconds: float) -> Pixels:
    program = shutil.which("gs")
    if program is None:
        raise MemberError("EPS needs Ghostscript: found no `gs` on the PATH; install it, and `h5dat retry` takes the drawing in")
    command = [*_BOUNDED, str(math.ceil(seconds) + 1), program, *_GHOSTSCRIPT, *page, "-f", "-_", "-c", "showpage"]
    size = math.prod(shape)
    with tempfile.TemporaryFile() as source:
        source.write(drawing)
        source.seek(0)
        header, pixels = _first_page(command, source, size, seconds)
    if len(pixels) != size or header[0] != b"P6\n" or header[2].split() != [b"%d" % shape[1], b"%d" % shape[0]]:
        raise MemberError(f"cannot be drawn as EPS: found {len(pixels)} bytes of pixels, expected {size} within {seconds:g} s")
    return np.frombuffer(pixels, np.uint8).reshape(shape)


def _first_page(command: list[str], source: IO[bytes], size: int, seconds: float) -> tuple[list[bytes], bytes]:
    """The four lines of a PPM's header and its pixels, or what there is of them when the program ends before or its time is up."""
    environment = os.environ | _NO_FOLDER
    with subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        limit = threading.Timer(seconds, process.kill)
        limit.start()
        try:
            return [process.stdout.readline(80) for _ in range(4)], process.stdout.read(size)
        finally:
            limit.cancel()
            process.kill()
