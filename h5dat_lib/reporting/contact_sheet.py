"""Pictures -> one to look at, such as the first of an output."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from h5dat_lib.columns import Array
from h5dat_lib.read.files import File
from h5dat_lib.read.files import open_tables as open_file
from h5dat_lib.read.pictures import has_pictures, pictures

_CELL = 96
_PER_ROW = 8


def contact_sheet(path: str | Path, count: int = 24) -> bytes | None:
    """A JPEG of the first ``count`` pictures of all classes, 96 pixels a cell; None when the file holds no pictures."""
    with open_file(path) as file:
        whole = sheet(islice(_pictures(file), count))
    if whole is None:
        return None
    out = io.BytesIO()
    whole.save(out, "JPEG", quality=80)
    return out.getvalue()


def sheet(found: Iterable[Array]) -> Image.Image | None:
    """Pictures of any size in rows of eight, 96 pixels a cell; None of none. One of them is in memory at a time."""
    cells = [thumbnail(pixels, _CELL - 4) for pixels in found]
    if not cells:
        return None
    rows = -(-len(cells) // _PER_ROW)
    whole = Image.new("RGB", (min(len(cells), _PER_ROW) * _CELL, rows * _CELL), "white")
    for number, cell in enumerate(cells):
        left, top = number % _PER_ROW * _CELL, number // _PER_ROW * _CELL
        whole.paste(cell, (left + (_CELL - cell.width) // 2, top + (_CELL - cell.height) // 2))
    return whole


def _pictures(file: File) -> chain[Array]:
    tables = [file[name] for name in file.tables if has_pictures(file[name])]
    return chain.from_iterable(pictures(table, range(len(table))) for table in tables)


def thumbnail(pixels: Array, side: int) -> Image.Image:
    """A picture within a square of so many pixels, in RGB."""
    step = max(1, min(pixels.shape[:2]) // (4 * side))  # what is much larger is not scaled from every pixel
    image = in_rgb(np.ascontiguousarray(pixels[::step, ::step]))
    image.thumbnail((side, side))
    return image


def in_rgb(pixels: Array) -> Image.Image:
    """A picture of any dtype and number of channels in RGB of 8 bit; other than 8 bits are scaled to their own range."""
    if pixels.dtype != np.uint8:
        pixels = _scaled(pixels.astype("f8"))
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).convert("RGB")


def _scaled(pixels: Array) -> Array:
    """From the lowest to the highest finite value; all others are black."""
    there = np.isfinite(pixels)
    low, high = pixels.min(where=there, initial=np.inf), pixels.max(where=there, initial=-np.inf)
    half = high / 2 - low / 2  # high - low may be infinite
    scaled = (np.where(there, pixels, low) / 2 - low / 2) * (255 / half) if half > 0 else np.zeros_like(pixels)
    return scaled.astype("u1")
