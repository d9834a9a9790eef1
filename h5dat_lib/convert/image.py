"""Pictures: a member's bytes in, one row of pixels and their description out.

The pixels are Pillow's: what ``ImageOps.exif_transpose(Image.open(...))`` gives after palettes, CMYK and the like have become
RGB(A). JPEG takes a shorter way to the same pixels, three times as fast.
"""

from __future__ import annotations

import importlib
import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile

from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Arrays, Block, Bytes, Column, Scalars
from h5dat_lib.config import ImageOptions, Limits, MediumOptions, Resize
from h5dat_lib.convert import frames
from h5dat_lib.errors import MemberError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # without any, Python prints what it logs into the user's progress bar

Pixels = NDArray[Any]
Signature = tuple[tuple[int, bytes], ...]

SIGNATURES: dict[str, tuple[Signature, ...]] = {
    "JPEG": (((0, b"\xff\xd8\xff"),),),
    "PNG": (((0, b"\x89PNG\r\n\x1a\n"),),),
    # "BM" alone would take a text that starts with BMW: the size of the second header says more.
    "BMP": tuple(((0, b"BM"), (14, bytes((size, 0, 0, 0)))) for size in (12, 16, 40, 52, 56, 64, 108, 124)),
    "GIF": (((0, b"GIF87a"),), ((0, b"GIF89a"),)),
    "TIFF": tuple(((0, mark),) for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    "WEBP": (((0, b"RIFF"), (8, b"WEBP")),),
    # A bitmap without its file header; too weak to recognise a member by, so it has no handler of its own.
    "DIB": tuple(((0, bytes((size, 0, 0, 0))), (12, b"\x01\0")) for size in (40, 52, 56, 64, 108, 124)),
}
"""Groups of (offset, bytes) by Pillow's name of the format."""

_OPENERS = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "DIB": ("PIL.BmpImagePlugin", "DibImageFile"),
}
_OPAQUE = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"} | dict.fromkeys(
    ("CMYK", "YCbCr", "LAB", "HSV"), "RGB"
)
_TRANSPARENT = _OPAQUE | {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}
_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}
_DTYPES = {"I": "<i4", "F": "<f4"}
_MODES = (None, "L", "LA", "RGB", "RGBA")
_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # TIFF 6.0, section 15
_ORIENTATIONS = range(1, 9)
_DAMAGE = ("Premature end", "premature end", "bad Huffman code", "found marker", "Inconsistent progression")
"""What libjpeg says of damaged pixels. Of its other complaints, such as stray bytes between markers, Pillow is the judge."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a picture tells: its size as stored, and the pixels it decodes to.

    ``mode`` is Pillow's for the source, ``target`` its mode of the pixels. ``orientation`` is EXIF's (1 to 8), ``turned`` whether
    applying it swaps width and height. ``image`` is the picture as Pillow has opened it, if it had to.
    """

    kind: str
    mode: str
    target: str
    width: int
    height: int
    orientation: int
    turned: bool
    image: ImageFile.ImageFile | None = None

    def shape(self, options: ImageOptions) -> tuple[int, int, int]:
        """(height, width, channels) of the pixels after orientation, colour and resizing."""
        height, width = (self.width, self.height) if self.turned else (self.height, self.width)
        channels = _CHANNELS.get(self.target if options.color == "keep" else options.color, 1)
        return (*_resized(height, width, options.resize), channels)

    def dtype(self, options: ImageOptions) -> str:
        """numpy's dtype string of the pixels: colours other than ``keep`` have 8 bit."""
        if options.color != "keep":
            return "|u1"
        return "<u2" if self.target.startswith("I;16") else _DTYPES.get(self.target, "|u1")


def convert(kind: str, content: Content, options: MediumOptions) -> Iterator[Block]:
    """One block of one row. ``kind`` is a name in `SIGNATURES`.

    Columns: ``pixels`` (height, width, channels), uint8, uint16, int32 or float32, or the member's own bytes when they are stored
    encoded; ``height``, ``width`` uint32 and ``channels`` uint8 of the pixels; ``orientation`` uint8, the EXIF orientation that
    has been applied; ``format`` S8 and ``mode`` S8, Pillow's names of the source's format and mode.
    Raises MemberError when the picture is damaged, is not of that kind, or has more pixels or frames than the limits allow.
    """
    data = content.read()
    if kind == "BMP" and not data.startswith(b"BM"):
        kind = "DIB"
    header = _header(data, kind)
    _check_size(header, data, content.limits)
    if options.image.storage == "encoded":
        yield _block(header, Bytes([data], "encoded"), header.shape(options.image), attributes(options.image))
    else:
        pixels = _decoded(data, header, options.image)
        yield _block(header, Arrays([pixels]), pixels.shape, {})


def attributes(options: ImageOptions) -> dict[str, str]:
    """How pictures that are stored encoded are to be decoded: ``color``, and ``resize`` as JSON or empty."""
    return {"color": options.color, "resize": options.resize.model_dump_json() if options.resize else ""}


def decode(data: bytes, options: ImageOptions) -> Pixels:
    """The pixels of an encoded picture, (height, width, channels), as `convert` gives them. Raises MemberError."""
    return _decoded(data, _header(data, _kind(data)), options)


def probe(data: bytes, options: ImageOptions, limits: Limits) -> tuple[tuple[int, int, int], str]:
    """Shape (height, width, channels) and dtype that `decode` will give, from the header alone. Raises MemberError."""
    header = _header(data, _kind(data))
    _check_size(header, data, limits)
    return header.shape(options), header.dtype(options)


def _kind(data: bytes) -> str:
    for kind, groups in SIGNATURES.items():
        for group in groups:
            if all(data.startswith(mark, at) for at, mark in group):
                return kind
    raise MemberError(f"not a picture: found {data[:8]!r}, expected the start of {', '.join(SIGNATURES)}")


def _block(header: Header, pixels: Column, shape: tuple[int, ...], how: dict[str, str]) -> Block:
    columns: dict[str, Column] = {
        "pixels": pixels,
        "height": Scalars([shape[0]], "<u4"),
        "width": Scalars([shape[1]], "<u4"),
        "channels": Scalars([shape[2]], "|u1"),
        "orientation": Scalars([header.orientation], "|u1"),
        "format": Scalars([header.kind.encode()], "|S8"),
        "mode": Scalars([header.mode.encode()], "|S8"),
    }
    return Block(1, columns, attributes=how)


def _check_size(header: Header, data: bytes, limits: Limits) -> None:
    for width, height, what in ((header.width, header.height, "pixels"), (*_tile(header), "pixels in a tile")):
        if width * height > limits.pixels:
            raise MemberError(f"too large: found {width} x {height} {what}, expected at most {limits.pixels} (limits.pixels)")
    if frames.count(data, header.kind, limits.frames) > limits.frames:
        raise MemberError(f"too large: found more than {limits.frames} frames (limits.frames)")


def _tile(header: Header) -> tuple[int, int]:
    """Width and height of the tiles of a TIFF, each of which is decoded whole however small the picture; else 0."""
    tags = getattr(header.image, "tag_v2", {})
    width, height = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
    return (width, height) if isinstance(width, int) and isinstance(height, int) else (0, 0)


# Headers


def _header(data: bytes, kind: str) -> Header:
    if not data:
        raise MemberError("empty: found 0 bytes, expected a picture")
    header = _jpeg_header(data) if kind == "JPEG" else None
    if header is None:
        with _pillow(kind):
            header = _pillow_header(_open(data, kind), data, kind)
    return header


def _jpeg_header(data: bytes) -> Header | None:
    """The header by libjpeg, or None for what Pillow should look at: CMYK, 12 bit, stray bytes."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    mode = {"Gray": "L", "YCbCr": "RGB", "RGB": "RGB"}.get(space)
    if mode is None:
        return None
    orientation = _jpeg_orientation(data)
    return Header("JPEG", mode, mode, width, height, orientation, orientation > 4)


def _pillow_header(image: ImageFile.ImageFile, data: bytes, kind: str) -> Header:
    mode = image.mode
    target = (_TRANSPARENT if image.has_transparency_data else _OPAQUE).get(mode, mode)
    width, height = image.size
    orientation = 1 if kind == "PNG" and not _png_may_turn(data) else _orientation(image)
    # Pillow has already swapped the size of a TIFF whose tag (not its XMP) turns it.
    swapped = kind == "TIFF" and getattr(image, "tag_v2", {}).get(_ORIENTATION) in (5, 6, 7, 8)
    return Header(kind, mode, target, width, height, orientation, orientation > 4 and not swapped, image)


def _jpeg_orientation(data: bytes) -> int:
    """The orientation in the Exif or XMP segments before the scan; most pictures have neither and cost a few microseconds."""
    info: dict[str | tuple[int, int], Any] = {}
    at = 2
    while data[at : at + 1] == b"\xff" and (marker := data[at + 1 : at + 2]) not in (b"", b"\xda", b"\xd9"):
        if marker == b"\xff":
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == b"\xe1":
            _note_app1(info, data[at + 4 : end])
        at = end
    tag = _exif_tag(info["exif"]) if "exif" in info else 0
    if tag == 0 and b"tiff:Orientation" not in info.get("xmp", b""):
        return 1
    if tag in _ORIENTATIONS:
        return tag
    bearer = Image.Image()
    bearer.info = info
    return _orientation(bearer)


def _exif_tag(exif: bytes) -> int:
    """The orientation in Exif, 0 when it has none and -1 when that is not plain: Pillow's own parser takes ten times as long."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[6:10])
    try:
        start = 6 + struct.unpack_from(f"{order}L", exif, 10)[0]
        count = struct.unpack_from(f"{order}H", exif, start)[0]
        entries = [
            entry for entry in struct.iter_unpack(f"{order}HHLHH", exif[start + 2 : start + 2 + 12 * count]) if entry[0] == _ORIENTATION
        ]
    except struct.error:
        return -1
    if not entries:
        return 0
    return int(entries[0][3]) if len(entries) == 1 and entries[0][1:3] == (3, 1) else -1


def _note_app1(info: dict[str | tuple[int, int], Any], segment: bytes) -> None:
    """Adds Exif and XMP under the names, and in the way, that Pillow does."""
    if segment.startswith(b"Exif\0\0"):
        info["exif"] = info["exif"] + segment[6:] if "exif" in info else segment
    elif segment.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        info["xmp"] = segment.split(b"\0", 1)[1]


def _png_may_turn(data: bytes) -> bool:
    """Whether a chunk could hold an orientation. Asking Pillow without one would make it decode the picture."""
    at = 8
    while len(name := data[at + 4 : at + 8]) == 4:
        if name == b"eXIf" or (name in (b"tEXt", b"zTXt", b"iTXt") and data[at + 8 : at + 30].startswith((b"Raw profile", b"XML:com"))):
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; Exif that cannot be read says nothing about it."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata must not cost the picture; damaged pixels are found when they are decoded
        return 1
    return value if isinstance(value, int) and value in _ORIENTATIONS else 1


# Pixels


def _decoded(data: bytes, header: Header, options: ImageOptions) -> Pixels:
    pixels = _jpeg_pixels(data, header) if header.image is None else None
    if pixels is None:
        with _pillow(header.kind):
            pixels = _pillow_pixels(header.image or _open(data, header.kind), header)
    return resize(_recoloured(_upright(pixels, header), options.color), options.resize)


def _jpeg_pixels(data: bytes, header: Header) -> Pixels | None:
    """Pixels by libjpeg, or None when it complains of something that Pillow may get over."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if header.mode == "L" else "RGB")
    except ValueError as exc:
        if any(mark in str(exc) for mark in _DAMAGE):
            raise MemberError(f"cannot be decoded as JPEG: {exc}") from exc
        return None
    return pixels


def _pillow_pixels(image: ImageFile.ImageFile, header: Header) -> Pixels:
    image.load()
    pixels = np.asarray(image if image.mode == header.target else image.convert(header.target))
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"))
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def _upright(pixels: Pixels, header: Header) -> Pixels:
    """The pixels turned as the orientation asks; Pillow has already turned a TIFF."""
    if header.orientation == 1 or header.kind == "TIFF":
        return pixels
    if header.orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if header.orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if header.orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _recoloured(pixels: Pixels, color: str) -> Pixels:
    """Pixels in the channels of ``color``, with 8 bit, by Pillow's conversions; ``keep`` leaves them as they are."""
    if color == "keep":
        return pixels
    wanted, pixels = _CHANNELS.get(color, 1), _in_8_bit(pixels)
    if wanted == pixels.shape[2]:
        return pixels
    if pixels.shape[2] == 1:
        return np.repeat(pixels, wanted, axis=2)
    source = Image.fromarray(pixels, _MODES[pixels.shape[2]])
    return np.asarray(source.convert(color)).reshape(*pixels.shape[:2], wanted)


def _in_8_bit(pixels: Pixels) -> Pixels:
    """The upper 8 of 16 bit; 32-bit numbers have no known range and are cut off at 0 and 255, as Pillow does."""
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    return pixels if pixels.dtype == np.uint8 else np.clip(np.nan_to_num(pixels), 0, 255).astype(np.uint8)


# Sizes


def _resized(height: int, width: int, how: Resize | None) -> tuple[int, int]:
    if how is None:
        return height, width
    return (how.height, how.width) if how.mode != "fit" else _fit(height, width, how)


def _fit(height: int, width: int, how: Resize) -> tuple[int, int]:
    scale = min(how.height / height, how.width / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(pixels: Pixels, how: Resize | None) -> Pixels:
    """Pixels (height, width, channels) brought to a size, dtype kept. Raises MemberError when OpenCV cannot."""
    if how is None or (how.mode != "pad" and pixels.shape[:2] == (how.height, how.width)):
        return pixels
    if how.mode == "fill":
        return _fill(pixels, how)
    inner = _scaled(pixels, *_fit(pixels.shape[0], pixels.shape[1], how), how.interpolation)
    return _padded(inner, how) if how.mode == "pad" else inner


def _fill(pixels: Pixels, how: Resize) -> Pixels:
    """Covers the target and cuts what sticks out; what will not be seen is cut before scaling, so that memory stays bounded."""
    scale = max(how.height / pixels.shape[0], how.width / pixels.shape[1])
    seen = _centre(pixels, _covering(pixels.shape[0], how.height / scale), _covering(pixels.shape[1], how.width / scale))
    height, width = max(how.height, round(seen.shape[0] * scale)), max(how.width, round(seen.shape[1] * scale))
    return np.ascontiguousarray(_centre(_scaled(seen, height, width, how.interpolation), how.height, how.width))


def _covering(length: int, needed: float) -> int:
    """The least whole number of pixels that covers ``needed`` and can lie in the centre of ``length`` exactly."""
    whole = int(np.ceil(round(needed, 6)))
    return min(length, whole + (length - whole) % 2)


def _centre(pixels: Pixels, height: int, width: int) -> Pixels:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _padded(pixels: Pixels, how: Resize) -> Pixels:
    canvas = np.full((how.height, how.width, pixels.shape[2]), how.color, pixels.dtype)
    top, left = (how.height - pixels.shape[0]) // 2, (how.width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _scaled(pixels: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    import cv2  # 0.2 s, and only who resizes needs it

    if pixels.shape[:2] == (height, width):
        return pixels
    flag = getattr(cv2, "INTER_LANCZOS4" if interpolation == "lanczos" else f"INTER_{interpolation.upper()}")
    # OpenCV has no resize of int32; float64 holds every one of them exactly.
    source = pixels.astype(np.float64) if pixels.dtype == np.int32 else pixels
    try:
        scaled = cv2.resize(np.ascontiguousarray(source), (width, height), interpolation=flag)
    except cv2.error as exc:
        raise MemberError(f"cannot be resized to {width} x {height}: {_short(exc)}") from exc
    if pixels.dtype == np.int32:
        scaled = np.clip(np.rint(scaled), -(1 << 31), (1 << 31) - 1).astype(np.int32)
    return np.asarray(scaled).reshape(height, width, pixels.shape[2])


# Pillow's border


def _open(data: bytes, kind: str) -> ImageFile.ImageFile:
    """The plugin of that format, no other, on the bytes; Image.open would load all plugins and guess among them."""
    module, name = _OPENERS[kind]
    image: ImageFile.ImageFile = getattr(importlib.import_module(module), name)(io.BytesIO(data))
    return image


@contextmanager
def _pillow(kind: str) -> Iterator[None]:
    """Pillow's failures, of any type, become MemberErrors, and its warnings are not shown."""
    with _QUIET:
        try:
            yield
        except Exception as exc:
            raise MemberError(f"cannot be decoded as {kind}: {_short(exc)}") from exc


def _short(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0][:200]


class _Quiet:
    """Warnings ignored while any thread is inside: the filters are the process's own, so the last one out restores them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_QUIET = _Quiet()
