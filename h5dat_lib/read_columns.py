"""HDF5 column -> values: one class a layout, found in one table. A row number gives one value, a slice or a list several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import h5py
import numpy as np

from h5dat_lib.columns import Array


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
        self._values = item

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Any) -> Any:
        return self._values[_normal(rows, len(self))]

    def describe(self) -> dict[str, Any]:
        values = self._values
        return {"layout": self.layout, "shape": values.shape[1:], "dtype": str(values.dtype), "bytes": values.id.get_storage_size()}


class Plain(_Dataset):
    """Numbers and booleans as numpy values, fixed-length strings as str."""

    def __init__(self, item: h5py.Dataset, layout: str) -> None:
        super().__init__(item, layout)
        self._is_text = item.dtype.kind == "S"

    def __getitem__(self, rows: Any) -> Any:
        values = super().__getitem__(rows)
        if not self._is_text:
            return values
        return values.decode() if isinstance(values, bytes) else [value.decode() for value in values.tolist()]

    def describe(self) -> dict[str, Any]:
        return super().describe() | ({"dtype": "string"} if self._is_text else {})


class Nullable:
    """A column in which values are missing: None for one row; a masked array, or a list with None for strings."""

    layout = "nullable"

    def __init__(self, item: h5py.Group, layout: str) -> None:
        self._values = Plain(item["values"], "plain")
        self._mask = item["mask"]

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
        return values | {"layout": self.layout, "bytes": values["bytes"] + self._mask.id.get_storage_size()}


class _Ranges:
    """What columns of bytes share: values one after the other, and where each row's start and how long they are."""

    def __init__(self, item: h5py.Group, layout: str) -> None:
        self.layout = layout
        self._item = item
        self._values = item["values"]
        self._offset = item["offset"]
        self._length = item["length"]

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, rows: Any) -> Any:
        rows = _normal(rows, len(self))
        if isinstance(rows, int):
            return self._value(rows, self._bytes(int(self._offset[rows]), int(self._length[rows])))
        numbers = np.arange(len(self))[rows].tolist()
        offsets, lengths = self._offset[rows].tolist(), self._length[rows].tolist()
        return [self._value(row, self._bytes(at, size)) for row, at, size in zip(numbers, offsets, lengths, strict=True)]

    def _bytes(self, at: int, size: int) -> Array:
        values: Array = self._values[at : at + size]
        return values

    def _value(self, row: int, data: Array) -> Any:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        size = sum(part.id.get_storage_size() for part in self._item.values())
        return {"layout": self.layout, "shape": None, "dtype": self._dtype(), "bytes": size}

    def _dtype(self) -> str:
        return "string"


class Text(_Ranges):
    """UTF-8 text as str; None where a value is missing."""

    def __init__(self, item: h5py.Group, layout: str) -> None:
        super().__init__(item, layout)
        self._mask = item.get("mask")

    def _value(self, row: int, data: Array) -> str | None:
        if self._mask is not None and self._mask[row]:
            return None
        return data.tobytes().decode()

    def __getitem__(self, rows: Any) -> Any:
        rows = _normal(rows, len(self))
        if not isinstance(rows, slice) or self._mask is not None:
            return super().__getitem__(rows)
        return self._slice(rows)

    def _slice(self, rows: slice) -> list[str]:
        """Neighbouring rows by one read: their bytes lie in row order."""
        offsets, lengths = self._offset[rows].tolist(), self._length[rows].tolist()
        if not offsets:
            return []
        first = offsets[0]
        data = self._bytes(first, offsets[-1] + lengths[-1] - first).tobytes()
        return [data[at - first : at - first + size].decode() for at, size in zip(offsets, lengths, strict=True)]


class Ragged(_Ranges):
    """Arrays of any shape: (height, width, channels) of the row's own dtype."""

    def _value(self, row: int, data: Array) -> Array:
        kind = self._item["dtype"][row].decode()
        pixels: Array = data.view(kind).reshape(self._item["shape"][row])
        return pixels

    def _dtype(self) -> str:
        return ", ".join(sorted({str(np.dtype(kind.decode())) for kind in np.unique(self._item["dtype"][:])}))


class Encoded(_Ranges):
    """Files kept as they were; a row is decoded when it is read, as the configuration of the run asked for."""

    def __init__(self, item: h5py.Group, layout: str, attributes: Mapping[str, Any]) -> None:
        super().__init__(item, layout)
        self._color = attributes.get("color", "keep")
        self._resize = json.loads(attributes.get("resize") or "null")

    def encoded(self, row: int) -> bytes:
        """The row's file, byte for byte as it was in the archive."""
        row = checked_row(row, len(self))
        return self._bytes(int(self._offset[row]), int(self._length[row])).tobytes()

    def _value(self, row: int, data: Array) -> Array:
        # Imported here because listing a file must not pay for loading decoders and settings.
        from h5dat_lib.config import ImageOptions
        from h5dat_lib.convert.image import decode

        return decode(data.tobytes(), ImageOptions(color=self._color, resize=self._resize))

    def _dtype(self) -> str:
        return "file"


def open_column(item: Any, attributes: Mapping[str, Any]) -> Column:
    """The column behind a dataset or a group; ``attributes`` are those of its table."""
    layout = item.attrs.get("layout", "plain")
    return Encoded(item, layout, attributes) if layout == "encoded" else _READERS[layout](item, layout)


_READERS: dict[str, Callable[[Any, str], Column]] = {
    "plain": Plain,
    "nullable": Nullable,
    "dense": _Dataset,
    "ragged": Ragged,
    "text": Text,
}


def checked_row(row: int, rows: int) -> int:
    """A row number counted from the start; raises IndexError when there is no such row."""
    if not -rows <= row < rows:
        raise IndexError(f"row {row} of {rows}: expected {-rows} to {rows - 1}")
    return int(row) % rows


def _normal(rows: Any, count: int) -> Any:
    return rows if isinstance(rows, slice | list | np.ndarray) else checked_row(int(rows), count)


def python_value(value: Any) -> Any:
    """A numpy scalar as the Python value that JSON knows."""
    return value.item() if isinstance(value, np.generic) else value
