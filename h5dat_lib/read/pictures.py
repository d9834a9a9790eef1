"""A table -> the pictures of its rows, as many in memory at a time as fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.errors import FormatError
from h5dat_lib.read.tables import Table

_BYTES = 32 << 20
"""Most bytes of neighbouring pictures in memory; one picture may be larger."""
_LAYOUTS = ("dense", "ragged", "encoded")


def has_pictures(table: Table) -> bool:
    """Whether rows have pictures; a column of a CSV may have the same name."""
    return "pixels" in table.columns and table["pixels"].layout in _LAYOUTS


def spread(rows: int, most: int | None) -> Sequence[int]:
    """Numbers of at most so many of these rows, spread evenly over them, the first and the last among them; None: all."""
    if most is None or rows <= most:
        return range(rows)
    return [round(place) for place in np.linspace(0, rows - 1, most).tolist()]


def pictures(table: Table, rows: Sequence[int]) -> Iterator[Array]:
    """Pixels (height, width, channels) of these rows in order, without those that are missing or empty.

    How many are read at a time is judged by those before. Raises FormatError for damage, and for what is no picture.
    """
    largest, done, step = 1, 0, 1
    while done < len(rows):
        part = rows[done : done + step]
        for row, picture in zip(part, table["pixels"].rows(part), strict=True):
            if picture is None or not picture.size:
                continue
            if picture.ndim != 3 or not 1 <= picture.shape[2] <= 4:
                found = f"pixels of shape {picture.shape}, expected height, width and 1 to 4 channels"
                raise FormatError(f"{table.named(row)}: found {found}; make the file anew")
            largest = max(largest, picture.nbytes)
            yield picture
        done, step = done + step, max(1, min(2 * step, _BYTES // largest))
