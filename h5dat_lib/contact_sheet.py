"""The first pictures of an output -> one JPEG to look at."""

from __future__ import annotations

import io
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from PIL import Image

from h5dat_lib.columns import Array
from h5dat_lib.read import File
from h5dat_lib.read import open_tables as open_file

_CELL = 96
_PER_ROW = 8


def contact_sheet(path: str | Path, count: int = 24) -> bytes | None:
    """A JPEG of the first ``count`` pictures of all classes, 96 pixels a cell; None when the file holds no pictures."""
    with open_file(path) as file:
        cells = [_thumbnail(pixels) for pixels in islice(_pictures(file), count)]
    if not cells:
        return None
    rows = -(-len(cells) // _PER_ROW)
    sheet = Image.new("RGB", (min(len(cells), _PER_ROW) * _CELL, rows * _CELL), "white")
    for number, cell in enumerate(cells):
        left, top = number % _PER_ROW * _CELL, number // _PER_ROW * _CELL
        sheet.paste(cell, (left + (_CELL - cell.width) // 2, top + (_CELL - cell.height) // 2))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=80)
    return out.getvalue()


def _pictures(file: File) -> chain[Array]:
    tables = [file[name] for name in file.tables if "pixels" in file[name].columns]
    return chain.from_iterable((table.pixels[row] for table, row in zip(repeat(table), range(len(table)))) for table in tables)


def _thumbnail(pixels: Array) -> Image.Image:
    image = in_rgb(pixels)
    image.thumbnail((_CELL - 4, _CELL - 4))
    return image


def in_rgb(pixels: Array) -> Image.Image:
    """A picture of any dtype and number of channels in RGB of 8 bit; other than 8 bits are scaled to their own range."""
    if pixels.dtype != np.uint8:
        low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
        pixels = np.nan_to_num((pixels - low) * (255 / max(high - low, 1e-9))).astype("u1")
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).convert("RGB")
