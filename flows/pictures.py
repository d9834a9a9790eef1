"""Pixels -> coloured half blocks in a terminal, or a PNG."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from h5dat_lib.errors import InputError, OutputError
from h5dat_lib.reporting.contact_sheet import in_rgb

_MOST_COLUMNS = 100


def shows_pictures() -> bool:
    """Whether standard output is a terminal with colours."""
    return sys.stdout.isatty() and Console().color_system is not None


def show_picture(pixels: Any) -> None:
    """Prints a picture, two pixels a character, where standard output is a terminal with colours; nothing elsewhere."""
    console = Console()
    if not shows_pictures():
        return
    columns, lines = shutil.get_terminal_size()
    image = in_rgb(pixels)
    image.thumbnail((min(columns, _MOST_COLUMNS), max(2 * (lines - 4), 2)))
    console.print(half_blocks(np.asarray(image)), soft_wrap=True)


def half_blocks(pixels: Any) -> Text:
    """(height, width, 3) uint8 as lines of upper half blocks: the colour of one pixel in front, of the one below behind it."""
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    text = Text(end="")
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for front, back in zip(upper, lower, strict=True):
            text.append("\u2580", f"rgb({','.join(map(str, front))}) on rgb({','.join(map(str, back))})")
        text.append("\n")
    return text


def save_picture(pixels: Any, path: Path, row: str) -> None:
    """Writes a picture as PNG: 8 bit as it is, others scaled to their own range. Raises InputError for a row without one."""
    if pixels is None:
        raise InputError(f"{row}: found no picture, expected a row with pixels for --save")
    save_image(Image.fromarray(pixels.squeeze()) if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3, 4) else in_rgb(pixels), path)


def save_image(image: Image.Image, path: Path) -> None:
    """Writes a PNG. Raises OutputError."""
    try:
        image.save(path, "PNG")
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
