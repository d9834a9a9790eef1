"""Some frames of a video in, one picture of it out: its colours over time, or the frames side by side."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from h5dat_lib.config import Resize
from h5dat_lib.convert.picture import Pixels
from h5dat_lib.convert.sizes import resize

__all__ = ["Summary"]

_TILE_WIDTH = 320


class Summary:
    """Gathers frames and makes the picture. Holds of each frame what the picture needs of it.

    ``barcode``: (height, frames, channels), each frame averaged along its width to one column, from left to right.
    ``contact_sheet``: the frames in rows, each at most 320 pixels wide, in a grid as square as can be; places left over are black.
    Frames of another size than the first are brought to its size. Without any frame the picture is (0, 0, channels).
    """

    def __init__(self, kind: str, channels: int) -> None:
        self._shrink, self._arrange = _KINDS[kind]
        self._channels = channels
        self._size: Resize | None = None
        self._tiles: list[Pixels] = []

    def add(self, pixels: Pixels) -> None:
        """Adds a frame, (height, width, channels) uint8; frames come in order."""
        self._size = self._size or Resize(width=pixels.shape[1], height=pixels.shape[0], mode="pad")
        self._tiles.append(self._shrink(resize(pixels, self._size)))

    def picture(self) -> Pixels:
        """The picture of the frames so far."""
        return self._arrange(self._tiles) if self._tiles else np.zeros((0, 0, self._channels), np.uint8)


def _average(pixels: Pixels) -> Pixels:
    column: Pixels = np.rint(pixels.mean(axis=1, keepdims=True)).astype(np.uint8)
    return column


def _thumbnail(pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    if width <= _TILE_WIDTH:
        return pixels.copy()
    return resize(pixels, Resize(width=_TILE_WIDTH, height=max(1, round(height * _TILE_WIDTH / width)), mode="pad"))


def _side_by_side(tiles: list[Pixels]) -> Pixels:
    return np.concatenate(tiles, axis=1)


def _grid(tiles: list[Pixels]) -> Pixels:
    height, width, channels = tiles[0].shape
    columns = math.ceil(math.sqrt(len(tiles)))
    sheet = np.zeros((math.ceil(len(tiles) / columns), height, columns, width, channels), np.uint8)
    for number, tile in enumerate(tiles):
        sheet[number // columns, :, number % columns] = tile
    return sheet.reshape(-1, columns * width, channels)


_KINDS: dict[str, tuple[Callable[[Pixels], Pixels], Callable[[list[Pixels]], Pixels]]] = {
    "barcode": (_average, _side_by_side),
    "contact_sheet": (_thumbnail, _grid),
}
