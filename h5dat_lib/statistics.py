"""An open file -> figures of each class: rows, bytes of each column, brightness of pictures, how often each category is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.read import File, Table
from h5dat_lib.read_columns import Categorical, Column

_BATCH = 32
"""Pictures in memory at a time."""


@dataclass(frozen=True)
class Brightness:
    """Mean and standard deviation of each channel over all pixels of so many ``pictures``, in the units of the pixels.

    Pictures of other numbers of channels than the first are left out.
    """

    pictures: int
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class ColumnFigures:
    """A column: ``shape`` of a value, None where it varies; bytes ``stored`` on disk, and ``decoded``, None when that is not recorded."""

    name: str
    layout: str
    dtype: str
    shape: tuple[int, ...] | None
    stored: int
    decoded: int | None
    brightness: Brightness | None
    balance: dict[str, int] | None
    """How many rows each category has, most first; None for other columns."""


@dataclass(frozen=True)
class ClassFigures:
    """A class: its rows and columns."""

    name: str
    rows: int
    columns: list[ColumnFigures]


def statistics(file: File, pictures: int | None = 1000) -> list[ClassFigures]:
    """Figures of all tables; of pictures at most so many of each, spread evenly over its rows, or all of them.

    `_BATCH` pictures are in memory at a time. Raises FormatError for damage.
    """
    return [_of_table(name, file[name], pictures) for name in file.tables]


def _of_table(name: str, table: Table, pictures: int | None) -> ClassFigures:
    return ClassFigures(str(name), len(table), [_of_column(table, column, pictures) for column in table.columns])


def _of_column(table: Table, name: str, pictures: int | None) -> ColumnFigures:
    column: Column = table[name]
    about = column.describe()
    brightness = _brightness(table, pictures) if name == "pixels" else None
    balance = _balance(column) if isinstance(column, Categorical) else None
    return ColumnFigures(
        name, about["layout"], about["dtype"], about["shape"], about["bytes"], _decoded(table, name, about), brightness, balance
    )


def _decoded(table: Table, name: str, about: dict[str, Any]) -> int | None:
    """Bytes of all values as arrays; of encoded pictures by the height, width and channels that are recorded."""
    column = table[name]
    if column.nbytes is not None:
        return int(column.nbytes)
    if about["layout"] == "encoded" and {"height", "width", "channels"} <= {*table.columns}:
        sizes = [np.asarray(table[side][:], "i8") for side in ("height", "width", "channels")]
        return int(np.sum(sizes[0] * sizes[1] * sizes[2]))
    return None


def _brightness(table: Table, most: int | None) -> Brightness | None:
    """Sums of values and of their squares, which float64 holds well enough for 8 and 16 bit."""
    count, channels, total, squares, pixels = 0, 0, np.zeros(0), np.zeros(0), 0
    for picture in _pictures(table, most):
        if not count:
            channels = picture.shape[2]
            total, squares = np.zeros(channels), np.zeros(channels)
        if picture.shape[2] != channels:
            continue
        flat = picture.reshape(-1, channels).astype("f8")
        total, squares = total + flat.sum(0), squares + np.einsum("ij,ij->j", flat, flat)
        count, pixels = count + 1, pixels + len(flat)
    if not count:
        return None
    mean = total / pixels
    return Brightness(count, mean.tolist(), np.sqrt(np.maximum(squares / pixels - mean**2, 0)).tolist())


def _pictures(table: Table, most: int | None) -> Iterator[Array]:
    rows = np.arange(len(table)) if most is None else np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).astype("i8"))
    for first in range(0, len(rows), _BATCH):
        yield from (picture for picture in table["pixels"].rows(rows[first : first + _BATCH]) if picture is not None)


def _balance(column: Categorical) -> dict[str, int]:
    counts = np.bincount(column.codes[:] + 1, minlength=len(column.categories) + 1)[1:]
    order = np.argsort(-counts, kind="stable")
    return {column.categories[code]: int(counts[code]) for code in order.tolist()}
