"""Shapes of a class's first pictures -> how its pixel column is cut into chunks.

Every picture starts on a chunk of its own, and a chunk holds the same number of bytes whether the column is dense or
ragged. So a worker can finish its chunks before it is known whether a later picture has another shape, and a dense column
becomes a ragged one by moving its chunks, without inflating them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from h5dat_lib.columns import CHUNK_BYTES
from h5dat_lib.config import ImageOptions, VideoOptions

_LEAST_CHUNK = 4096


@dataclass(frozen=True)
class PixelLayout:
    """How pictures of a class are cut: ``chunk_bytes`` each, the last piece of a picture filled up with zeros.

    ``shape`` (height, width, channels) and ``dtype`` are those of a dense column, () and "" of a ragged one.
    ``strict`` rejects a picture of another shape instead of making the column ragged.
    """

    chunk_bytes: int
    shape: tuple[int, ...] = ()
    dtype: str = ""
    strict: bool = False

    @property
    def chunk_height(self) -> int:
        """Pixel rows of one chunk of a dense column."""
        row_bytes = self.chunk_bytes // (self.shape[1] * self.shape[2])
        return row_bytes // int(self.dtype[2:])


Keys = dict[str, Literal["auto", "category", "text"]]
"""Dotted paths to what of the documents of a class become columns, and what becomes of them."""


@dataclass
class Forms:
    """What is decided of the rows of classes before any of them is made, by the name of their table; planning adds to it."""

    layouts: dict[str, PixelLayout] = field(default_factory=dict)
    keys: dict[str, Keys] = field(default_factory=dict)

    def copy(self) -> Forms:
        """As it is now."""
        return Forms(dict(self.layouts), dict(self.keys))

    def text(self) -> str:
        """The same for the same decisions."""
        return repr((sorted(self.layouts.items()), sorted(self.keys.items())))


def pixel_layout(probes: Sequence[tuple[tuple[int, ...], str]], options: ImageOptions | VideoOptions) -> PixelLayout:
    """The layout for a class whose first pictures have these (shape, dtype string such as ``|u1``)."""
    if not probes:
        return PixelLayout(_LEAST_CHUNK * 16)
    if options.layout == "dense" or (options.layout == "auto" and len(set(probes)) == 1):
        return dense_layout(*probes[0], strict=options.layout == "dense")
    sizes = sorted(math.prod(shape) * int(dtype[2:]) for shape, dtype in probes)
    median = sizes[len(sizes) // 2]
    return PixelLayout(min(max(1 << (median - 1).bit_length(), _LEAST_CHUNK), CHUNK_BYTES))


def dense_layout(shape: tuple[int, ...], dtype: str, most: int = CHUNK_BYTES, strict: bool = False) -> PixelLayout:
    """Chunks of whole pixel rows: the fewest equal pieces of a picture of at most ``most`` bytes, the last filled up."""
    row_bytes = shape[1] * shape[2] * int(dtype[2:])
    pieces = math.ceil(shape[0] / max(most // row_bytes, 1))
    return PixelLayout(math.ceil(shape[0] / pieces) * row_bytes, shape, dtype, strict)
