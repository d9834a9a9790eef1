"""Pictures that the tests of the converters share: made by Pillow, and what plain Pillow says that they show."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from h5dat_lib.columns import Block
from h5dat_lib.config import ImageOptions, MediumOptions
from tests.convert.conftest import converted

SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp"}


def picture(mode: str = "RGB", width: int = 37, height: int = 23) -> Image.Image:
    """A gradient with a little noise, or noise of 16 bit."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 5 % 256, y * 9 % 256, (x + y) * 3 % 256], axis=2) + rng.integers(0, 9, (height, width, 3))
    rgb = Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
    if mode in ("LA", "RGBA"):
        rgb.putalpha(Image.fromarray(rng.integers(0, 256, (height, width)).astype(np.uint8)))
    return rgb.convert(mode)


def deep(channels: int, height: int = 9, width: int = 13) -> NDArray[np.uint16]:
    """Noise of 16 bit."""
    return np.random.default_rng(channels).integers(0, 65536, (height, width, channels)).astype(np.uint16)


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def reference(data: bytes) -> NDArray[Any]:
    """The pixels by plain Pillow."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "RGB" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("1", "L") and "transparency" in image.info:
        image = image.convert("LA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def png(pixels: NDArray[Any], color: int, *chunks: bytes, stream: bytes | None = None) -> bytes:
    """A PNG of plain rows, written by hand: ``chunks`` lie before the pixels, ``stream`` stands for them."""
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    header = struct.pack(">LLBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, color, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)) if stream is None else stream
    parts = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", packed), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rows(data: bytes, path: str, **options: Any) -> list[Block]:
    """The rows of a picture with these `ImageOptions`."""
    blocks = converted(data, path, MediumOptions(image=ImageOptions(**options)))
    assert all(isinstance(block, Block) for block in blocks)
    return blocks  # type: ignore[return-value]


def value(block: Block, name: str) -> Any:
    """The value of a column of one row."""
    return block.columns[name].values[0]  # type: ignore[union-attr]


def pixels_of(data: bytes, path: str, **options: Any) -> NDArray[Any]:
    """The pixels of the first row."""
    found: NDArray[Any] = value(rows(data, path, **options)[0], "pixels")
    return found
