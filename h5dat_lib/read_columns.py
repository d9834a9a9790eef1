"""HDF5 column -> values: one class a layout, found in one table. A row number gives one value, a slice or a list several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from itertools import pairwise
from typing import Any, Protocol

import h5py
import numpy as np

from h5dat_lib.chunked import Rows, fault
from h5dat_lib.columns import Array
from h5dat_lib.format import attribute


class Column(Protocol):
    """Values of one column."""

    layout: str

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any: ...

    def describe(self) -> dict[str, Any]:
        """layout, shape of one value (None where it varies), dtype, and bytes on disk."""
        ...


class _Dataset:
    """What plain and dense columns share: one dataset, a row a value."""

    def __init__(self, item: h5py.Dataset, layout: str) -> None:
        self.layout = layout
        self._values = Rows(item)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Any) -> Any:
        return self._values[_normal(rows, len(self))]

    def describe(self) -> dict[str, Any]:
        values = self._values
        return {"layout": self.layout, "shape": values.shape[1:], "dtype": str(values.dtype), "bytes": values.stored}


class Plain(_Dataset):
    """Numbers, booleans and dates as numpy values, fixed-length strings as str."""

    def __init__(self, item: h5py.Dataset, layout: str) -> None:
        super().__init__(item, layout)
        self._is_text = self._values.dtype.kind == "S"
        self._date = _date_type(item)

    def __getitem__(self, rows: Any) -> Any:
        values = super().__getitem__(rows)
        if self._date:
            return values.view(self._date)
        if not self._is_text:
            return values
        try:
            return values.decode() if isinstance(values, bytes) else [value.decode() for value in values.tolist()]
        except UnicodeDecodeError as exc:
            raise fault(self._values.dataset, f"a string that is not UTF-8 ({exc})", "UTF-8") from exc

    def describe(self) -> dict[str, Any]:
        dtype = "string" if self._is_text else str(self._date or self._values.dtype)
        return super().describe() | {"dtype": dtype}


def _date_type(item: h5py.Dataset) -> np.dtype[Any] | None:
    """numpy's type of a column of dates, which are stored as integers; None of another."""
    unit = attribute(item, "unit")
    if unit is None:
        return None
    if unit not in _UNITS or item.dtype != np.dtype("<i8"):
        raise fault(item, f"dates of unit {unit!r} as {item.dtype}", f"integers of 8 bytes, in one of {', '.join(_UNITS)}")
    return np.dtype(f"<M8[{unit}]")


_UNITS = ("D", "s", "ms", "us", "ns")
"""What a date counts, from 1970-01-01, by numpy's names."""


class Categorical:
    """Strings of which few are distinct: a str, or None where there is none; several as a list. ``codes`` are numbers of `categories`."""

    layout = "categorical"

    def __init__(self, item: h5py.Group, layout: str) -> None:
        self.codes = _part(item, "codes")
        """(rows,) int32, -1 where there is no value."""
        self.categories: list[str] = open_column(_item(item, "categories"), None)[:]
        """The distinct strings, in the order of their codes."""
        self._item = item
        self._bytes = sum(Rows(part).stored for part in item.values() if isinstance(part, h5py.Dataset))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Any:
        codes = self.codes[_normal(rows, len(self))]
        if np.min(codes, initial=0) < -1 or np.max(codes, initial=-1) >= len(self.categories):
            raise fault(self._item, f"codes {np.min(codes)} to {np.max(codes)}", f"-1 to {len(self.categories) - 1}")
        names: list[str | None] = [*self.categories, None]
        return names[int(codes)] if np.ndim(codes) == 0 else [names[code] for code in codes.tolist()]

    def describe(self) -> dict[str, Any]:
        return {"layout": self.layout, "shape": (), "dtype": f"{len(self.categories)} categories", "bytes": self._bytes}


class Nullable:
    """A column in which values are missing: None for one row; a masked array, or a list with None for strings."""

    layout = "nullable"

    def __init__(self, item: h5py.Group, layout: str) -> None:
        self._mask = _part(item, "mask")
        self._values = Plain(_item(item, "values"), "plain")
        _check_rows(item, len(self._mask), self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Any) -> Any:
        values, mask = self._values[rows], self._mask[_normal(rows, len(self))]
        if np.ndim(mask) == 0:
            return None if mask else values
        if isinstance(values, list):
            return [None if gone else value for value, gone in zip(values, mask, strict=True)]
        return np.ma.MaskedArray(values, mask)

    def describe(self) -> dict[str, Any]:
        values = self._values.describe()
        return values | {"layout": self.layout, "bytes": values["bytes"] + self._mask.stored}


class _Ranges:
    """What columns of bytes share: values one after the other, and where each row's start and how long they are."""

    def __init__(self, item: h5py.Group, layout: str) -> None:
        self.layout = layout
        self._item = item
        self._values = _part(item, "values")
        self._offset = _part(item, "offset")
        self._length = _part(item, "length")
        self._mask = _part(item, "mask") if "mask" in item else None
        _check_rows(item, len(self._offset), self._length, *(() if self._mask is None else (self._mask,)))

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, rows: Any) -> Any:
        rows = _normal(rows, len(self))
        if isinstance(rows, int):
            return self._present(rows, int(self._offset[rows]), int(self._length[rows]))
        numbers = np.arange(len(self))[rows].tolist()
        offsets, lengths = self._offset[rows].tolist(), self._length[rows].tolist()
        if isinstance(rows, slice) and sum(lengths) > len(self._values):
            raise fault(self._item, f"{sum(lengths)} bytes of {len(numbers)} rows", f"at most {len(self._values)}")
        return [self._present(row, at, size) for row, at, size in zip(numbers, offsets, lengths, strict=True)]

    def _present(self, row: int, at: int, size: int) -> Any:
        """A row's value; None where it is missing."""
        if self._mask is not None and self._mask[row]:
            return None
        return self._value(row, self._bytes(at, size))

    def _bytes(self, at: int, size: int) -> Array:
        if at + size > len(self._values):
            raise fault(self._item, f"a row of bytes {at} to {at + size}", f"it within {len(self._values)}")
        values: Array = self._values[at : at + size]
        return values

    def _value(self, row: int, data: Array) -> Any:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        size = sum(Rows(part).stored for part in self._item.values())
        return {"layout": self.layout, "shape": None, "dtype": self._dtype(), "bytes": size}

    def _dtype(self) -> str:
        return "string"


class Text(_Ranges):
    """UTF-8 text as str; None where a value is missing."""

    def _value(self, row: int, data: Array) -> str:
        return self._decoded(data.tobytes(), [(0, len(data))])[0]

    def __getitem__(self, rows: Any) -> Any:
        rows = _normal(rows, len(self))
        if not isinstance(rows, slice) or self._mask is not None or (rows.step or 1) < 0:
            return super().__getitem__(rows)
        return self._slice(rows)

    def _slice(self, rows: slice) -> list[str]:
        """Rows by few reads: their bytes lie in row order. What lies between them, up to a chunk for each batch, is left out."""
        offsets, lengths = self._offset[rows], self._length[rows]
        ends, most = offsets + lengths, len(self._values)
        if (lengths > most).any() or (offsets > most).any() or (offsets[1:] < ends[:-1]).any():
            raise fault(self._item, "rows whose bytes overlap or lie outside", f"them in order within {most}")
        if not len(ends):
            return []
        gaps = (np.flatnonzero(offsets[1:] != ends[:-1]) + 1).tolist()
        runs = pairwise((0, *gaps, len(ends)))
        data = b"".join(self._bytes(int(offsets[a]), int(ends[b - 1] - offsets[a])).tobytes() for a, b in runs)
        return self._decoded(data, pairwise([0, *np.cumsum(lengths).tolist()]))

    def _decoded(self, data: bytes, places: Iterable[tuple[int, int]]) -> list[str]:
        try:
            return [data[at:end].decode() for at, end in places]
        except UnicodeDecodeError as exc:
            raise fault(self._item, f"a text that is not UTF-8 ({exc})", "UTF-8") from exc


class Raw(_Ranges):
    """Bytes as they were; None where a value is missing."""

    def _value(self, row: int, data: Array) -> bytes:
        return data.tobytes()

    def _dtype(self) -> str:
        return "bytes"


class Ragged(_Ranges):
    """Arrays of any shape, such as (height, width, channels) or (samples, channels), of the row's own dtype; None where one is missing."""

    def __init__(self, item: h5py.Group, layout: str) -> None:
        super().__init__(item, layout)
        self._shape = _part(item, "shape")
        self._kind = _part(item, "dtype")
        _check_rows(item, len(self), self._shape, self._kind)

    def _value(self, row: int, data: Array) -> Array:
        kind, shape = self._type(self._kind[row]), self._shape[row].tolist()
        try:
            pixels: Array = data.view(kind).reshape(shape)
        except (TypeError, ValueError) as exc:
            raise fault(self._item, f"{len(data)} bytes in row {row}", f"{shape} of {kind}") from exc
        return pixels

    def _type(self, name: bytes) -> np.dtype[Any]:
        try:
            return np.dtype(name.decode())
        except (TypeError, ValueError, SyntaxError) as exc:  # numpy parses it as Python
            raise fault(self._item, f"type {name!r}", "one of numpy's, such as |u1") from exc

    def _dtype(self) -> str:
        return ", ".join(sorted({str(self._type(name)) for name in np.unique(self._kind[:]) if name}))


class Encoded(_Ranges):
    """Files kept as they were; a row is decoded when it is read, as the configuration of the run asked for."""

    def __init__(self, item: h5py.Group, layout: str, table: h5py.Group) -> None:
        super().__init__(item, layout)
        self._how = {name: attribute(table, name) for name in ("color", "resize", "profile", "damaged", "vector_size")}

    def encoded(self, row: int) -> bytes:
        """The row's file, byte for byte as it was in the archive."""
        row = checked_row(row, len(self))
        return self._bytes(int(self._offset[row]), int(self._length[row])).tobytes()

    def _value(self, row: int, data: Array) -> Array:
        # Imported here because listing a file must not pay for loading decoders and settings.
        from h5dat_lib.convert.image import decode, from_attributes

        try:
            options = from_attributes(self._how)
        except (TypeError, ValueError) as exc:
            found = ", ".join(f"{name} {value!r}" for name, value in self._how.items())
            raise fault(self._item, f"{found} of its table", "those of a configuration") from exc
        return decode(data.tobytes(), options)

    def _dtype(self) -> str:
        return "file"


def open_column(item: Any, table: h5py.Group | None) -> Column:
    """The column of a table behind a dataset or a group; None for a part of a column, which has rows of its own.

    Raises FormatError when it is not as docs/format.md has its layout, or has other rows than its table.
    """
    layout = attribute(item, "layout", "plain")
    if not isinstance(layout, str) or layout not in (*_READERS, "encoded"):
        raise fault(item, f"layout {layout!r}", "one of " + ", ".join((*_READERS, "encoded")))
    if table is None:
        return _READERS[layout](item, layout)
    column = Encoded(item, layout, table) if layout == "encoded" else _READERS[layout](item, layout)
    _check_rows(item, int(attribute(table, "rows", len(column))), column)
    return column


_READERS: dict[str, Callable[[Any, str], Column]] = {
    "plain": Plain,
    "nullable": Nullable,
    "categorical": Categorical,
    "dense": _Dataset,
    "ragged": Ragged,
    "text": Text,
    "bytes": Raw,
}


_PARTS = {
    "values": ("|u1", 1),
    "codes": ("<i4", 1),
    "offset": ("<u8", 1),
    "length": ("<u8", 1),
    "shape": ("<u4", 2),
    "dtype": ("|S4", 1),
    "mask": ("|b1", 1),
}
"""Type and number of axes of the datasets that a column is made of."""


def _part(column: Any, name: str) -> Rows:
    """One of the datasets that a column is made of."""
    part, expected = Rows(_item(column, name)), _PARTS[name]
    if (part.dtype.str, len(part.shape)) != expected:
        raise fault(part.dataset, f"{part.dtype.str} of {len(part.shape)} axes", f"{expected[0]} of {expected[1]}")
    return part


def _item(column: Any, name: str) -> Any:
    if not isinstance(column, h5py.Group) or name not in column:
        raise fault(column, f"no {name!r} in it", f"a column of layout {column.attrs.get('layout')!r}")
    return column[name]


def _check_rows(item: Any, rows: int, *parts: Sized) -> None:
    """What has a value a row has as many as it says."""
    for part in parts:
        if len(part) != rows:
            raise fault(item, f"values of {len(part)} rows", f"{rows}")


def checked_row(row: int, rows: int) -> int:
    """A row number counted from the start; raises IndexError when there is no such row."""
    if not -rows <= row < rows:
        raise IndexError(f"row {row} of {rows}: expected {-rows} to {rows - 1}")
    return int(row) % rows


def _normal(rows: Any, count: int) -> Any:
    return rows if isinstance(rows, slice | list | np.ndarray) else checked_row(int(rows), count)


def python_value(value: Any) -> Any:
    """A numpy scalar as the Python value that JSON knows; None for one that is missing."""
    if value is np.ma.masked:
        return None
    return value.item() if isinstance(value, np.generic) else value
