"""SVG and SVGZ: a drawing's bytes in, its size and a way to draw its pixels out.

resvg draws it: static SVG 1.1 and most of 2 as browsers show it, without scripts, animation and foreign content. Text is drawn with
the fonts of the machine. Nothing outside of the member is opened: a drawing that asks for other files is refused.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.parsers import expat

from h5dat_lib.archive.member import EVEN_BYTES
from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.encoding import detect
from h5dat_lib.convert.jpeg import open_jpeg
from h5dat_lib.convert.picture import Decoded, Opener, Picture, check_pixels, short
from h5dat_lib.convert.pillow import open_pillow
from h5dat_lib.convert.png import open_png
from h5dat_lib.convert.webp import open_webp
from h5dat_lib.errors import MemberError

__all__ = ["open_svg"]

LEVELS = 100
"""Most elements within one another: resvg 0.48 overflows its stack between 200 and 400."""
_SVG = "http://www.w3.org/2000/svg "
_HREFS = ("href", "http://www.w3.org/1999/xlink href")
_LINKS = {_SVG + name for name in ("a", "script", "style")}
"""Elements whose references are not drawn."""
_UNITS = {"": 1, "px": 1, "pt": 4 / 3, "pc": 16, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96, "em": 16, "ex": 8}
"""Pixels of each unit: CSS Values 4, 6.2; ``em`` and ``ex`` as resvg takes them, with a font of 16 pixels."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_LENGTH = re.compile(rf"({_NUMBER})({'|'.join(_UNITS)}|%)")
_VIEW_BOX = re.compile(rf"\s*{_NUMBER}[\s,]+{_NUMBER}[\s,]+({_NUMBER})[\s,]+({_NUMBER})\s*")
_GZIP = b"\x1f\x8b"
_EMBEDDED: dict[str, Opener] = {
    "image/png": open_png,
    "image/jpeg": open_jpeg,
    "image/jpg": open_jpeg,
    "image/gif": partial(open_pillow, "GIF"),
    "image/webp": open_webp,
}
"""What resvg draws of the pictures in a drawing, by the type they are said to have."""


def open_svg(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A drawing, compressed or not: uint8 RGBA with straight alpha, (height, width, 4).

    Its size is its own, at 96 pixels an inch, or ``options.vector_size`` for the longer side and the other rounded up.
    Raises MemberError when it is no well-formed SVG, states no size, nests deeper than `LEVELS`, or asks for other files.
    """
    data = _inflated(data, limits) if data.startswith(_GZIP) else data
    outline = _outline(data)
    width, height = _whole(outline.size())
    settings: dict[str, Any] = {"skip_system_fonts": not outline.has_text}
    if options.vector_size is not None:
        settings["width" if width >= height else "height"] = options.vector_size
        width, height = _scaled(width, height, options.vector_size)
    check_pixels(width, height, limits)
    if outline.has_text and not _has_fonts():
        raise MemberError("cannot be drawn as SVG: found text, and no font on this machine to draw it with")
    text = _text(data, outline.encoding)
    draw = partial(_drawn, text, (height, width, 4), settings, limits)
    return Picture("SVG", "RGBA", height, width, 4, "|u1", partial(_decode, outline.pictures, draw, limits))


def _inflated(data: bytes, limits: Limits) -> bytes:
    most = min(limits.whole_bytes, max(EVEN_BYTES, int(limits.ratio * len(data))))
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        text = inflate.decompress(data, most)
    except zlib.error as exc:
        raise MemberError(f"damaged: found a gzip stream that does not inflate ({short(exc)})") from exc
    if inflate.unconsumed_tail:
        raise MemberError(f"too large: found more than {most} bytes when inflated (limits.whole_bytes, limits.ratio)")
    if not inflate.eof or inflate.unused_data:
        raise MemberError("damaged: found a gzip stream that does not end where the member does")
    return text


class _Outline:
    """What has to be known of a drawing before it is drawn, gathered element by element."""

    def __init__(self) -> None:
        self.encoding: str | None = None
        self.has_text = False
        self.pictures: list[str] = []
        self._root: dict[str, str] | None = None
        self._level = 0

    def declare(self, version: str, encoding: str | None, standalone: int) -> None:
        self.encoding = encoding

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._level += 1
        if self._level > LEVELS:
            raise MemberError(f"nested too deeply: found more than {LEVELS} elements within one another")
        if self._root is None:
            self._root = attributes
            if name != _SVG + "svg":
                raise MemberError(f"not SVG: found the element {name[:80]!r}, expected svg")
        self.has_text |= name == _SVG + "text"
        for key in _HREFS:
            if key in attributes and name not in _LINKS:
                self._refer(attributes[key].strip())

    def end(self, name: str) -> None:
        self._level -= 1

    def _refer(self, target: str) -> None:
        if target.startswith("data:"):
            self.pictures.append(target)
        elif not target.startswith("#"):
            raise MemberError(f"not whole: found a reference to {target[:80]!r}, expected nothing from outside of the member")

    def size(self) -> tuple[float, float]:
        """Width and height in pixels, from those that are stated and the view box, as SVG 2 in 8.2 has it."""
        root = self._root or {}
        box = _VIEW_BOX.fullmatch(root.get("viewBox", ""))
        whole = (float(box[1]), float(box[2])) if box else (0.0, 0.0)
        width, height = _length(root.get("width"), whole[0]), _length(root.get("height"), whole[1])
        if "width" not in root and "height" in root and whole[1]:
            width = height * whole[0] / whole[1]
        if "height" not in root and "width" in root and whole[0]:
            height = width * whole[1] / whole[0]
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise MemberError(f"no size: found width {width:g} and height {height:g} pixels, expected both, or a viewBox")
        return width, height


def _outline(data: bytes) -> _Outline:
    """Reads a document through. expat opens nothing outside, and bounds what entities make of it."""
    outline = _Outline()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.XmlDeclHandler, parser.StartElementHandler, parser.EndElementHandler = outline.declare, outline.start, outline.end
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as exc:
        raise MemberError(f"not SVG: {short(exc)}") from exc
    return outline


def _length(text: str | None, whole: float) -> float:
    """A length in pixels, 0 when there is none; ``whole`` is what percentages are of."""
    found = _LENGTH.fullmatch("100%" if text is None else text)
    if found is None:
        return 0.0
    return float(found[1]) * (whole / 100 if found[2] == "%" else _UNITS[found[2]])


def _whole(size: tuple[float, float]) -> tuple[int, int]:
    """Whole pixels, rounded half up as resvg does."""
    return max(1, math.floor(size[0] + 0.5)), max(1, math.floor(size[1] + 0.5))


def _scaled(width: int, height: int, longer: int) -> tuple[int, int]:
    """The size with that longer side; resvg rounds the other up."""
    return (longer, -(-longer * height // width)) if width >= height else (-(-longer * width // height), longer)


def _decode(embedded: list[str], draw: Callable[[], Decoded], limits: Limits) -> Decoded:
    for picture in embedded:
        _check_embedded(picture, limits)
    return draw()


def _check_embedded(target: str, limits: Limits) -> None:
    """Raises MemberError for a picture in a ``data:`` URL (RFC 2397) that cannot be decoded: resvg would leave it out in silence."""
    description, _, payload = target.removeprefix("data:").partition(",")
    kind, *parameters = description.split(";")
    if kind not in _EMBEDDED:
        raise MemberError(f"cannot be drawn as SVG: found an embedded {kind[:80]!r}, expected {', '.join(_EMBEDDED)}")
    data = unquote_to_bytes(payload)
    try:
        data = base64.b64decode(data) if "base64" in parameters else data
    except binascii.Error as exc:
        raise MemberError(f"damaged: found an embedded picture that is not base64 ({exc})") from exc
    _EMBEDDED[kind](data, ImageOptions(), limits).decode()


def _text(data: bytes, declared: str | None) -> str:
    """A document that expat has read, as text; a byte order mark outweighs what it declares."""
    codec = detect(data[:4], declared if declared and not declared.lower().startswith("utf-16") else "utf-8")
    try:
        return data[codec.bom :].decode(codec.name)
    except UnicodeDecodeError as exc:
        raise MemberError(f"not SVG: {short(exc)}, expected {codec.name}") from exc


@cache
def _has_fonts() -> bool:
    """Whether there are any: without, resvg leaves text out in silence. Looking for them takes 0.1 s."""
    letter = '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"><text y="16">H</text></svg>'
    return bool(_drawn(letter, (16, 16, 4), {}, Limits()).pixels.any())


def _drawn(text: str, shape: tuple[int, int, int], settings: dict[str, Any], limits: Limits) -> Decoded:
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=text, dpi=96.0, **settings)
    except ValueError as exc:
        raise MemberError(f"cannot be drawn as SVG: {short(exc)}") from exc
    decoded = open_png(png, ImageOptions(), limits).decode()
    if decoded.pixels.shape != shape:
        raise MemberError(f"cannot be drawn as SVG: found an array of {decoded.pixels.shape}, expected {shape}")
    return decoded
