"""A Netpbm picture's bytes in (PBM, PGM, PPM, plain or raw, and PFM), its pixels out, of 16 bit where it has them.

Facts of the formats: netpbm's pbm(5), pgm(5) and ppm(5): samples above 255 have two bytes, the higher first.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.picture import Decoded, Picture, marked
from h5dat_lib.convert.pillow import Source, borrowed, picture_of, plugin
from h5dat_lib.errors import MemberError

_PLAIN = (b"P1", b"P2", b"P3")


def open_pnm(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A Netpbm picture. Samples are brought to the full range of 8 or 16 bit, as Pillow does.

    Raises MemberError when the header is damaged or above ``limits.pixels``. In strict mode plain samples must end in white space:
    of a number that ends with the file nobody knows whether it has been cut.
    """
    damage = "may be cut: found no white space behind the last number" if data.startswith(_PLAIN) and not data[-1:].isspace() else ""
    if damage and options.damaged == "strict":
        raise MemberError(f"cannot be decoded as PPM: {damage}")
    return marked(_open(Source("PPM", data, options, limits, may_turn=False)), damage)


def _open(source: Source) -> Picture:
    with borrowed("PPM", source.limits):
        image = plugin("PPM", source.data)
        picture = picture_of(image, source)
        if picture.mode == "I":
            return replace(picture, mode="I;16", dtype="<u2", decode=partial(_deep, picture, 1))
        name, _, offset, arguments = image.tile[0]
    if picture.mode != "RGB" or not isinstance(arguments, tuple) or arguments[1] <= 255:
        return picture
    # Pillow reads colours of 16 bit as 8, but grey as it is: three times as many grey samples in each row.
    kind = b"P2" if name == "ppm_plain" else b"P5"
    grey = b"%s %d %d %d\n" % (kind, 3 * picture.width, picture.height, arguments[1]) + source.data[offset:]
    wide = source.limits.model_copy(update={"pixels": 3 * source.limits.pixels})
    return replace(picture, mode="RGB;16", dtype="<u2", decode=partial(_deep, _open(replace(source, data=grey, limits=wide)), 3))


def _deep(picture: Picture, channels: int) -> Decoded:
    decoded = picture.decode()
    pixels = decoded.pixels.astype(np.uint16, copy=False)
    return replace(decoded, pixels=pixels.reshape(picture.height, -1, channels))
