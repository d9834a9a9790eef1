"""A picture's metadata in, the EXIF orientation that it asks for out, and pixels turned as it says.

Facts of the format: Exif 2.32, 4.6.4 (tag 0x0112, one SHORT, 1 to 8) and 4.5.4 (TIFF header behind ``Exif\\0\\0``); where both have
an orientation, Exif counts and XMP does not, as in Pillow.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from h5dat_lib.convert.picture import Pixels

TAG = 0x0112
_VALUES = range(1, 9)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels (height, width, channels) turned and mirrored as the orientation asks."""
    if orientation == 1:
        return pixels
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def of_image(image: Image.Image) -> int:
    """1 to 8; Exif that cannot be read says nothing about it."""
    try:
        value = image.getexif().get(TAG, 1)
    except Exception:  # damaged metadata must not cost the picture; damaged pixels are found when they are decoded
        return 1
    return value if isinstance(value, int) and value in _VALUES else 1


def of_metadata(info: Mapping[str | tuple[int, int], Any]) -> int:
    """1 to 8, of Exif and XMP as Pillow keeps them: under ``exif`` (with ``Exif\\0\\0`` before it) and ``xmp``."""
    tag = _exif_tag(info["exif"]) if "exif" in info else 0
    if tag == 0 and b"tiff:Orientation" not in info.get("xmp", b""):
        return 1
    if tag in _VALUES:
        return tag
    bearer = Image.Image()
    bearer.info = dict(info)
    return of_image(bearer)


def _exif_tag(exif: bytes) -> int:
    """The orientation in Exif, 0 when it has none and -1 when that is not plain: Pillow's own parser takes ten times as long."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[6:10])
    try:
        start = 6 + struct.unpack_from(f"{order}L", exif, 10)[0]
        count = struct.unpack_from(f"{order}H", exif, start)[0]
        entries = [entry for entry in struct.iter_unpack(f"{order}HHLHH", exif[start + 2 : start + 2 + 12 * count]) if entry[0] == TAG]
    except struct.error:
        return -1
    if not entries:
        return 0
    return int(entries[0][3]) if len(entries) == 1 and entries[0][1:3] == (3, 1) else -1
