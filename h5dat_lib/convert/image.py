"""Pictures: a member's bytes in, rows of pixels and their description out.

A format is a row in `OPENERS`, and in `SIGNATURES` where it can be told by its first bytes. What its opener gives is turned upright,
brought to the colours and the size that are asked for, and described, here and in one way for all formats.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from h5dat_lib import phash
from h5dat_lib.archive.member import Content
from h5dat_lib.columns import Array, Arrays, Block, Bytes, Column, Fault, Scalars, Untyped
from h5dat_lib.config import ImageOptions, Limits, MediumOptions
from h5dat_lib.convert.bitmap import open_bitmap
from h5dat_lib.convert.colours import CHANNELS, in_8_bit, recoloured, to_srgb
from h5dat_lib.convert.eps import open_eps
from h5dat_lib.convert.fits import open_fits
from h5dat_lib.convert.handler import Signature, carries
from h5dat_lib.convert.heif import open_heif
from h5dat_lib.convert.icon import open_cursor, open_icon, open_icons
from h5dat_lib.convert.jpeg import open_jpeg, small_grey
from h5dat_lib.convert.jpeg2000 import open_jpeg2000
from h5dat_lib.convert.orientation import upright
from h5dat_lib.convert.picture import Decoded, Opener, Picture, Pixels
from h5dat_lib.convert.pillow import open_pillow
from h5dat_lib.convert.png import open_png
from h5dat_lib.convert.pnm import open_pnm
from h5dat_lib.convert.qoi import open_qoi
from h5dat_lib.convert.sizes import resize, resized
from h5dat_lib.convert.svg import open_svg
from h5dat_lib.convert.tiff import open_tiff
from h5dat_lib.convert.webp import open_webp
from h5dat_lib.errors import MemberError

SIGNATURES: dict[str, tuple[Signature, ...]] = {
    "JPEG": (((0, b"\xff\xd8\xff"),),),
    "PNG": (((0, b"\x89PNG\r\n\x1a\n"),),),
    # "BM" alone would take a text that starts with BMW: the size of the second header says more.
    "BMP": tuple(((0, b"BM"), (14, bytes((size, 0, 0, 0)))) for size in (12, 16, 40, 52, 56, 64, 108, 124)),
    "GIF": (((0, b"GIF87a"),), ((0, b"GIF89a"),)),
    "TIFF": tuple(((0, mark),) for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    "WEBP": (((0, b"RIFF"), (8, b"WEBP")),),
    # ISO/IEC 23008-12, 10.2.1: a file of any codec may start as mif1, and names its codec among the compatible brands from byte 16 on.
    "AVIF": (((4, b"ftypavif"),), ((4, b"ftypavis"),), *(((4, b"ftypmif1"), (at, b"avif")) for at in range(16, 32, 4))),
    "ICO": (((0, b"\0\0\1\0"), (5, b"\0"), (9, b"\0")),),
    "ICNS": (((0, b"icns\0"),),),
    # Version, run lengths, bits: a text has no such controls.
    "PCX": tuple(((0, bytes((10, version, 1, bits))),) for version in (0, 2, 3, 4, 5) for bits in (1, 2, 4, 8)),
    "DCX": (((0, b"\xb1\x68\xde\x3a"),),),
    "PIXAR": (((0, b"\x80\xe8\0\0"),),),
    "PPM": tuple(((0, mark),) for mark in (b"P4\n", b"P5\n", b"P6\n")),
    "SGI": tuple(((0, bytes((1, 0xDA, packed, size))),) for packed in (0, 1) for size in (1, 2)),
    "BLP": (((0, b"BLP1"),), ((0, b"BLP2"),)),
    "JPEG2000": (((0, b"\0\0\0\x0cjP  \r\n\x87\n"),), ((0, b"\xff\x4f\xff\x51"),)),
    "QOI": (((0, b"qoif"),),),
    "DDS": (((0, b"DDS \x7c\0\0\0"),),),
    "PSD": (((0, b"8BPS\0\1"),),),
    "HEIF": tuple(((4, b"ftyp" + brand),) for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1")),
    "FITS": (((0, b"SIMPLE  =                    T"),),),
    "SVG": (((0, b"<svg "),), ((0, b"<svg\n"),)),
    "EPS": (((0, b"%!PS-Adobe-"), (14, b" EPSF-")), ((0, b"\xc5\xd0\xd3\xc6"),)),
}
"""Groups of (offset, bytes) by the name of the format; strong enough to take a member by, whatever it is called."""

WEAK_SIGNATURES: dict[str, tuple[Signature, ...]] = {
    "BMP": tuple(((0, bytes((size, 0, 0, 0))), (12, b"\x01\0")) for size in (40, 52, 56, 64, 108, 124)),  # without its file header
    "CUR": (((0, b"\0\0\2\0"), (5, b"\0"), (9, b"\0")),),
    "PPM": tuple(((0, b"P%d" % number),) for number in range(1, 7)),
    "TGA": tuple(((1, bytes((mapped, kind))),) for mapped in (0, 1) for kind in (1, 2, 3, 9, 10, 11)),
    "EPS": (((0, b"%!"),),),
    "SVG": ((),),  # starts with a declaration, a comment or white space, or is compressed
}
"""The same of what is known to be a picture, by its name or because it has been stored as one, and has none of the `SIGNATURES`."""

OPENERS: dict[str, Opener] = {
    "JPEG": open_jpeg,
    "PNG": open_png,
    "BMP": open_bitmap,
    "GIF": partial(open_pillow, "GIF"),
    "TIFF": open_tiff,
    "WEBP": open_webp,
    "AVIF": partial(open_pillow, "AVIF"),
    "ICO": open_icon,
    "CUR": open_cursor,
    "ICNS": open_icons,
    "PCX": partial(open_pillow, "PCX"),
    "DCX": partial(open_pillow, "DCX"),
    "PIXAR": partial(open_pillow, "PIXAR"),
    "PPM": open_pnm,
    "SGI": partial(open_pillow, "SGI"),
    "TGA": partial(open_pillow, "TGA"),
    "BLP": partial(open_pillow, "BLP"),
    "JPEG2000": open_jpeg2000,
    "QOI": open_qoi,
    "DDS": partial(open_pillow, "DDS"),
    "PSD": partial(open_pillow, "PSD"),
    "HEIF": open_heif,
    "FITS": open_fits,
    "SVG": open_svg,
    "EPS": open_eps,
}
"""What reads the header of each format."""

_STORED = Limits(pixels=1 << 62, frames=1 << 62)
"""What has been stored was within the limits of its run."""
_DAMAGE_BYTES = 64
_GLANCE = 64
"""Pixels that a side has at least when a JPEG is decoded for its hash alone."""


def convert(kind: str, content: Content, options: MediumOptions) -> Iterator[Block | Fault]:
    """A block of one row for the picture, or for each of its frames. ``kind`` is a name in `OPENERS`.

    Columns: ``pixels`` (height, width, channels), uint8, uint16, int32 or float32 and of FITS any type of number, or the member's own
    bytes when they are stored encoded, which are always one row; ``height``, ``width`` uint32 and ``channels`` uint8 of the pixels;
    ``orientation`` uint8, the EXIF orientation that has been applied; ``format`` S8 and ``mode`` S8, the source's format and mode;
    ``frames`` uint32, how many the file has. When all frames are asked for also ``frame`` uint32, its number, and ``duration``
    float32, seconds, 0 where the file has none. In tolerant mode also ``damage`` S64, what is wrong with the pixels, empty when
    nothing is. ``phash`` uint64, the perceptual hash, where it is asked for. Pairs are what a header says.

    Raises MemberError when the picture is damaged, is not of that kind, or has more pixels or frames than the limits allow; in
    tolerant mode only when nothing of it can be decoded, and a frame that cannot be, behind others, is a Fault.
    """
    data = content.read()
    picture = OPENERS[kind](data, options.image, content.limits)
    if options.image.storage == "encoded":
        yield _encoded(data, picture, options.image)
    elif options.image.frames == "first":
        yield _row(picture, options.image)
    else:
        yield from _all_rows(picture, options.image)


def probe(data: bytes, options: ImageOptions, limits: Limits) -> tuple[tuple[int, int, int], str]:
    """Shape (height, width, channels) and dtype of what `convert` gives first, from the header alone. Raises MemberError."""
    picture = _open(data, options, limits)
    return _shape(picture, options), picture.dtype if options.color == "keep" else "|u1"


def decode(data: bytes, options: ImageOptions) -> Pixels:
    """The pixels of an encoded picture, (height, width, channels), as `convert` gives them first. Raises MemberError."""
    picture = _open(data, options, _STORED)
    return _finished(picture, _upright(picture).pixels, options)


def fingerprint(data: bytes) -> int | None:
    """The perceptual hash of a picture's file, of its first frame; None where it has none. Raises MemberError when it is no picture."""
    return phash.phash(_upright(_open(data, ImageOptions(damaged="tolerant"), Limits())).pixels)


def attributes(options: ImageOptions) -> dict[str, str]:
    """How pictures that are stored encoded are to be decoded; `from_attributes` makes options of it again."""
    how = options.model_dump(include={"color", "profile", "damaged", "vector_size"}, exclude_none=True)
    return {"resize": options.resize.model_dump_json() if options.resize else ""} | {name: str(value) for name, value in how.items()}


def from_attributes(how: Mapping[str, str]) -> ImageOptions:
    """The inverse of `attributes`; what is missing or empty is as by default. Raises ValueError when there are no such options."""
    given = {name: json.loads(value) if name == "resize" else value for name, value in how.items() if value}
    return ImageOptions.model_validate(given)


def _open(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """What is known to be a picture but not of which format. Raises MemberError when it is of none."""
    known = next(_kinds(data, SIGNATURES), None)
    if known is not None:
        return OPENERS[known](data, options, limits)
    for kind in _kinds(data, WEAK_SIGNATURES):
        with suppress(MemberError):
            return OPENERS[kind](data, options, limits)
    raise MemberError(f"not a picture: found {data[:8]!r}, expected the start of {', '.join(OPENERS)}")


def _kinds(data: bytes, signatures: Mapping[str, tuple[Signature, ...]]) -> Iterator[str]:
    for kind, groups in signatures.items():
        if carries(data, groups):
            yield kind


# Rows


def _encoded(data: bytes, picture: Picture, options: ImageOptions) -> Block:
    """The file itself; in tolerant mode it is decoded, too, to find what is wrong with it."""
    decoded = _upright(picture) if options.damaged == "tolerant" else None
    marks = _marks(decoded.damage if decoded else "", options)
    hashed = None
    if options.phash == "always" or (options.phash == "auto" and decoded):
        hashed = _hashed(phash.frequencies(decoded.pixels) if decoded else _glance(data, picture))
    columns = {"pixels": Bytes([data], "encoded"), **_described(picture, _shape(picture, options)), **marks}
    return Block(1, columns, picture.pairs, attributes(options), untyped=hashed)


def _row(picture: Picture, options: ImageOptions, number: int | None = None) -> Block:
    decoded = _upright(picture)
    pixels = _finished(picture, decoded.pixels, options)
    marks = _marks(decoded.damage, options)
    if number is not None:
        marks |= {"frame": Scalars([number], "<u4"), "duration": Scalars([decoded.duration], "<f4")}
    columns = {"pixels": Arrays([pixels]), **_described(picture, pixels.shape), **marks}
    hashed = None if options.phash == "never" else _hashed(phash.frequencies(decoded.pixels))
    return Block(1, columns, picture.pairs, untyped=hashed)


def _all_rows(picture: Picture, options: ImageOptions) -> Iterator[Block | Fault]:
    yield _row(picture, options, 0)
    for number in range(1, picture.frames):
        try:
            yield _row(picture.frame(number), options, number)
        except MemberError as exc:
            if options.damaged == "strict":
                raise
            yield Fault(f"frames from {number} on: {exc.reason}")
            return


def _described(picture: Picture, shape: tuple[int, ...]) -> dict[str, Column]:
    return {
        "height": _value(shape[0], "<u4"),
        "width": _value(shape[1], "<u4"),
        "channels": _value(shape[2], "|u1"),
        "orientation": _value(picture.orientation, "|u1"),
        "format": _value(picture.format.encode(), "|S8"),
        "mode": _value(picture.mode.encode(), "|S8"),
        "frames": _value(picture.frames, "<u4"),
    }


@lru_cache(maxsize=256)
def _value(value: int | bytes, dtype: str) -> Scalars:
    """One value: pictures have most of theirs in common, and making them again would take longer than all else of a row."""
    return Scalars((value,), dtype)


def _marks(damage: str, options: ImageOptions) -> dict[str, Column]:
    if options.damaged == "strict":
        return {}
    return {"damage": Scalars([damage.encode("ascii", "replace")[:_DAMAGE_BYTES]], f"|S{_DAMAGE_BYTES}")}


def _hashed(frequencies: Array | None) -> Untyped:
    """The column of the perceptual hash; those of many pictures are made at once."""
    return Untyped(((frequencies,),), _hashes)


def _hashes(rows: Sequence[Sequence[Any]]) -> dict[str, Column]:
    return {"phash": phash.hashes([frequencies for (frequencies,) in rows])}


# Pixels


def _shape(picture: Picture, options: ImageOptions) -> tuple[int, int, int]:
    """(height, width, channels) of the pixels after orientation, colour and size."""
    channels = picture.channels if options.color == "keep" else CHANNELS.get(options.color, 1)
    return (*resized(*picture.upright, options.resize), channels)


def _upright(picture: Picture) -> Decoded:
    """The frame, turned upright."""
    decoded = picture.decode()
    if picture.turned or picture.orientation == 1:
        return decoded
    return replace(decoded, pixels=upright(decoded.pixels, picture.orientation))


def _glance(data: bytes, picture: Picture) -> Array | None:
    """What a hash is made of, of a picture whose pixels nobody needs: of a JPEG by an eighth of them. None when they cannot be decoded."""
    small = small_grey(data, _GLANCE, _GLANCE) if picture.format == "JPEG" and picture.dtype == "|u1" else None
    with suppress(MemberError):
        return phash.frequencies(_upright(picture).pixels if small is None else upright(small, picture.orientation))
    return None


def _finished(picture: Picture, pixels: Pixels, options: ImageOptions) -> Pixels:
    """Upright pixels of the frame, in the colours and of the size that are asked for."""
    if options.profile == "srgb" and picture.profile:
        pixels = to_srgb(pixels if options.color == "keep" else in_8_bit(pixels), picture.profile)
    return resize(recoloured(pixels, options.color), options.resize, picture.upright)
