"""Pixels in, pixels of the size that was asked for out."""

from __future__ import annotations

import numpy as np

from h5dat_lib.config import Resize
from h5dat_lib.convert.picture import Pixels, short
from h5dat_lib.errors import MemberError


def resized(height: int, width: int, how: Resize | None) -> tuple[int, int]:
    """(height, width) that `resize` gives of a picture of this size."""
    if how is None:
        return height, width
    return (how.height, how.width) if how.mode != "fit" else _fit(height, width, how)


def seen(height: int, width: int, how: Resize) -> tuple[int, int]:
    """(height, width) of the part in the centre of a picture of this size that will be seen."""
    if how.mode != "fill":
        return height, width
    scale = max(how.height / height, how.width / width)
    return _covering(height, how.height / scale), _covering(width, how.width / scale)


def wanted(height: int, width: int, how: Resize) -> tuple[int, int]:
    """(height, width) that the part that is seen is brought to."""
    return (how.height, how.width) if how.mode == "fill" else _fit(height, width, how)


def resize(pixels: Pixels, how: Resize | None, full: tuple[int, int] | None = None) -> Pixels:
    """Pixels (height, width, channels) brought to a size, dtype kept. Raises MemberError when OpenCV cannot.

    ``full`` is the (height, width) of the picture where it was decoded to fewer pixels than it has.
    """
    if how is None or (how.mode != "pad" and pixels.shape[:2] == (how.height, how.width)):
        return pixels
    if how.mode == "fill":
        return _fill(pixels, how)
    height, width = full or (pixels.shape[0], pixels.shape[1])
    inner = _scaled(pixels, *_fit(height, width, how), how.interpolation)
    return _padded(inner, how) if how.mode == "pad" else inner


def _fit(height: int, width: int, how: Resize) -> tuple[int, int]:
    scale = min(how.height / height, how.width / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fill(pixels: Pixels, how: Resize) -> Pixels:
    """Covers the target and cuts what sticks out; what will not be seen is cut before scaling, so that memory stays bounded."""
    scale = max(how.height / pixels.shape[0], how.width / pixels.shape[1])
    part = _centre(pixels, *seen(pixels.shape[0], pixels.shape[1], how))
    height, width = max(how.height, round(part.shape[0] * scale)), max(how.width, round(part.shape[1] * scale))
    return np.ascontiguousarray(_centre(_scaled(part, height, width, how.interpolation), how.height, how.width))


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
        raise MemberError(f"cannot be resized to {width} x {height}: found {pixels.dtype} pixels: {short(exc)}") from exc
    if pixels.dtype == np.int32:
        scaled = np.clip(np.rint(scaled), -(1 << 31), (1 << 31) - 1).astype(np.int32)
    return np.asarray(scaled).reshape(height, width, pixels.shape[2])
