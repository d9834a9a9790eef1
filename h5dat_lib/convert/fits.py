"""FITS: a member's bytes in, its images as the numbers they are and its header cards out.

Facts of the format: FITS Standard 4.0. Rows come in the order of the file and are not flipped, though many programs show the first
one at the bottom. An image of more than two axes is a row of planes, (height, width), with the leading axes counted through.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from h5dat_lib.columns import Pairs, PairType
from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.picture import Decoded, Picture, check_frames, check_pixels, with_channels
from h5dat_lib.convert.pillow import borrowed
from h5dat_lib.errors import MemberError

__all__ = ["open_fits"]

_TEXTS = ("COMMENT", "HISTORY")
"""Cards that hold a text line by line (4.4.2.4)."""
_TYPES = {
    str: PairType.STRING, complex: PairType.STRING, int: PairType.INTEGER, float: PairType.NUMBER, bool: PairType.BOOLEAN,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Plane:
    """A plane of an image: its astropy HDU, its place in the leading axes, its (height, width), and the cards of the image."""

    hdu: Any
    index: tuple[int, ...]
    shape: tuple[int, int]
    cards: Pairs


@dataclass(frozen=True, slots=True)
class _File:
    """The planes of a file, and what is wrong with it that still lets them be read."""

    planes: list[_Plane]
    damage: str
    limits: Limits


def open_fits(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """The planes of all images that have data, image by image, as frames: (height, width, 1) each.

    The dtype is the stored one, with BZERO and BSCALE applied as astropy does: unsigned integers where they stand for those, floats
    where they scale. ``mode`` is BITPIX. The cards of its image are each row's pairs; COMMENT and HISTORY are one pair each.
    Raises MemberError when the file is damaged or has no image with data, such as one with tables only.
    """
    with borrowed("FITS", limits):
        file = _read(data, limits)
    if file.damage and options.damaged == "strict":
        raise MemberError(f"damaged: {file.damage}")
    if not file.planes:
        raise MemberError("no picture: found headers or tables only in this FITS file, expected an image with data")
    return _picture(file, 0)


def _read(data: bytes, limits: Limits) -> _File:
    from astropy.io import fits

    planes: list[_Plane] = []
    damage, end = "", 0
    stored = fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=False, disable_image_compression=True)
    shown = fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=False)
    for hdu, raw in zip(shown, stored, strict=True):
        if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU)) and not isinstance(hdu, fits.GroupsHDU) and math.prod(hdu.shape or (0,)):
            planes += _planes_of(hdu, limits, len(planes))
        end = _end(raw, data)
        damage = damage or _wrong_sum(raw)
    if data[end:].strip(b"\0 "):
        damage = damage or f"{len(data) - end} bytes behind the last HDU"
    return _File(planes, damage, limits)


def _end(raw: Any, data: bytes) -> int:
    """Where the next header starts. Raises MemberError when the data end early."""
    place = raw.fileinfo()
    end = place["datLoc"] + raw.size
    if end > len(data):
        raise MemberError(f"damaged: found {len(data)} bytes, expected data up to byte {end}")
    return int(place["datLoc"] + place["datSpan"])


def _wrong_sum(raw: Any) -> str:
    """What is wrong when header or data have another checksum than is recorded of them (4.4.2.7)."""
    if raw.verify_datasum() == 0:
        return "data do not sum up to DATASUM"
    return "header and data do not sum up to CHECKSUM" if raw.verify_checksum() == 0 else ""


def _planes_of(hdu: Any, limits: Limits, before: int) -> Iterator[_Plane]:
    *leading, height, width = hdu.shape if len(hdu.shape) > 1 else (1, *hdu.shape)
    check_pixels(width, height, limits)
    check_pixels(math.prod(getattr(hdu, "tile_shape", (1,))), 1, limits, "pixels in a tile")
    check_frames(before + math.prod(leading), limits)
    cards = _cards(hdu.header)
    for index in np.ndindex(*(leading if len(hdu.shape) > 1 else ())):
        yield _Plane(hdu, index, (height, width), cards)


def _picture(file: _File, number: int) -> Picture:
    plane = file.planes[number]
    first_pixel = [slice(0, 1)] * (len(plane.hdu.shape) - len(plane.index))
    with borrowed("FITS", file.limits):
        dtype = plane.hdu.section[(*plane.index, *first_pixel)].dtype.newbyteorder("<")
    return Picture(
        "FITS", str(plane.hdu.header["BITPIX"]), *plane.shape, 1, dtype.str, partial(_decoded, file, plane),
        frames=len(file.planes), frame=partial(_picture, file), pairs=plane.cards,
    )  # fmt: skip


def _decoded(file: _File, plane: _Plane) -> Decoded:
    with borrowed("FITS", file.limits):
        pixels = plane.hdu.section[(*plane.index, ...)]
    return Decoded(with_channels(pixels.reshape(plane.shape)), file.damage)


def _cards(header: Any) -> Pairs:
    """The cards of a header in their order; those of one text are one pair, at the place of the first. Blank ones are left out."""
    texts_so_far: dict[str, list[Any]] = {}
    cards: list[tuple[str, list[Any]]] = []
    for card in header.cards:
        if card.keyword in texts_so_far:
            texts_so_far[card.keyword].append(card.value)
        elif card.keyword:
            cards.append((card.keyword, [card.value]))
        if card.keyword in _TEXTS:
            texts_so_far.setdefault(card.keyword, cards[-1][1])
    kinds, texts = zip(*(_typed(found) for _, found in cards), strict=True)
    return Pairs([0] * len(cards), [key for key, _ in cards], texts, kinds)


def _typed(found: list[Any]) -> tuple[int, bytes]:
    """The type and text of a card's value, or of the lines of several; a card without one is null."""
    value = found[0] if len(found) == 1 else "\n".join(map(str, found))
    kind = _TYPES.get(type(value), PairType.NULL)
    text = "" if kind == PairType.NULL else str(value)
    return kind, (text.lower() if kind == PairType.BOOLEAN else text).encode()
