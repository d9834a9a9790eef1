"""A Windows bitmap's bytes in, with or without its file header, a picture out."""

from __future__ import annotations

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.picture import Picture
from h5dat_lib.convert.pillow import open_pillow


def open_bitmap(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A BMP, or a DIB, which is one without its first 14 bytes. Raises MemberError when it is neither, damaged or above a limit."""
    return open_pillow("BMP" if data.startswith(b"BM") else "DIB", data, options, limits)
