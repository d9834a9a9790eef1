"""Encoded pictures in, pixels by OpenCV out: faster than Pillow's for some formats, and with 16 bit where Pillow has 8."""

from __future__ import annotations

import numpy as np

from h5dat_lib.convert.picture import Pixels


def decode(data: bytes, channels: int, deep: bool = False, page: int = 0) -> Pixels | None:
    """Pixels (height, width, channels): uint8, or as they are stored when ``deep``. None when OpenCV cannot, or gives another
    number of channels. EXIF's orientation is not applied. ``page`` is that of a TIFF.
    """
    import cv2  # 0.2 s, and only who needs it

    flags = cv2.IMREAD_UNCHANGED if deep or channels == 4 else cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    buffer = np.frombuffer(data, np.uint8)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it would print what it gets over
    try:
        if page:
            _, pages = cv2.imdecodemulti(buffer, flags, range=(page, page + 1))
            pixels = pages[0] if pages else None
        else:
            pixels = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        return None
    pixels = np.atleast_3d(pixels)
    if pixels.shape[2] == 4 and channels == 2:  # grey with alpha comes as BGRA
        pixels = np.ascontiguousarray(pixels[:, :, (0, 3)])
    if pixels.shape[2] != channels:
        return None
    turn = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(channels if flags == cv2.IMREAD_UNCHANGED else 0)
    return pixels if turn is None else cv2.cvtColor(pixels, turn, dst=pixels)
