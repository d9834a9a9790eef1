"""HDF5 column -> values: one class a layout, found in one table. A row number gives one value, a slice or a list several."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence, Sized
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Protocol

import h5py
import numpy as np

from h5dat_lib.columns import Array
from h5dat_lib.errors import FormatError, MemberError
from h5dat_lib.read.chunked import Reader, Rows, checked_out, fault, no_row, row_numbers
from h5dat_lib.read.format import attribute

_HELD_BYTES = 4 << 20
"""Most bytes of a part of a column, such as the places of its rows, that are kept in memory whole: half a million rows."""
_U1 = np.dtype("u1")
_SHARED_BYTES = 16 << 10
"""So many bytes of files are decoded by several threads: starting them takes about as long as decoding one small picture."""

_Range = tuple[int, int, int, int]
"""Where the bytes of a row begin, how many they are, its number, and its place among those asked for."""


class Home(Protocol):
    """The table that a column is of; it can be pickled, and names a row for a message."""

    def __getitem__(self, name: str) -> Any: ...

    def named(self, row: int) -> str: ...


class Column:
    """Values of one column. A number gives the value of a row, a slice or a list those of several, as `rows` does."""

    layout: str

    def __init__(self) -> None:
        self._home: tuple[Home, str] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, rows: Any) -> Any:
        try:
            if isinstance(rows, int):
                return self._one(checked_row(rows, len(self)))
            if isinstance(rows, slice):
                return self._slice(rows)
            if isinstance(rows, list | np.ndarray):
                return self._take(row_numbers(rows, len(self)))
            return self._one(checked_row(rows, len(self)))
        except FormatError as exc:
            raise self._located(exc, rows) from exc

    def rows(self, rows: Any, out: Array | None = None, stack: bool = False) -> Any:
        """Values of several rows, in the order asked for; read chunk by chunk, each chunk once, by several threads where that pays.

        ``rows`` are numbers (from the end when negative), booleans (one a row) or a slice. Columns of numbers, dates and dense pictures
        give an array (n, ...), masked where values may be missing; all others a list of n values. ``out``, (n, ...) of their shape
        and dtype, takes arrays and pictures, also from ragged and encoded columns when all have that shape; it is what is returned.
        With ``stack`` these columns, too, give an array where all values have one shape and dtype, each written there at once.

        Raises IndexError for a row that is not there, ValueError when ``out`` does not fit, FormatError, which names the row, for damage.
        """
        numbers = row_numbers(rows, len(self))
        try:
            return self._stacked(numbers) if stack and out is None else self._take(numbers, out)
        except FormatError as exc:
            raise self._located(exc, rows) from exc

    def describe(self) -> dict[str, Any]:
        """layout, shape of one value (None where it varies), dtype, and bytes on disk."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int | None:
        """Bytes of all values in memory; None where only decoding would tell."""
        return None

    def sizes(self, rows: Array) -> Array:
        """Bytes (n,) that the values of these rows are in the file once they are inflated."""
        raise NotImplementedError

    def belongs_to(self, home: Home, name: str) -> None:
        """Says which column of which table it is, for messages and to be pickled."""
        self._home = home, name

    def __reduce__(self) -> tuple[Any, ...]:
        if self._home is None:
            raise TypeError(f"a part of a column cannot be pickled: {self.layout}")
        return operator.getitem, self._home

    def _one(self, row: int) -> Any:
        raise NotImplementedError

    def _slice(self, rows: slice) -> Any:
        return self._take(row_numbers(rows, len(self)))

    def _take(self, rows: Array, out: Array | None = None) -> Any:
        raise NotImplementedError

    def _stacked(self, rows: Array) -> Any:
        """The same; one array where all values have one shape and dtype."""
        return self._take(rows)

    def _located(self, exc: FormatError, rows: Any) -> FormatError:
        """The error with the first row that has it, and its member."""
        if self._home is None:
            return exc
        numbers = row_numbers([rows] if isinstance(rows, int | np.integer) else rows, len(self))
        while len(numbers) > 1:
            half = len(numbers) // 2
            numbers = numbers[:half] if self._is_faulty(numbers[:half]) else numbers[half:]
        if not len(numbers) or not self._is_faulty(numbers):  # only several rows together are wrong
            return exc
        home, _ = self._home
        return FormatError(f"{exc}; needed for {home.named(int(numbers[0]))}")

    def _is_faulty(self, rows: Array) -> bool:
        try:
            self._take(rows)
        except FormatError:
            return True
        return False


class _OneDataset(Column):
    """What columns share whose values, or their codes, are one dataset, a row each."""

    _values: Rows

    def __len__(self) -> int:
        return len(self._values)

    @property
    def nbytes(self) -> int | None:
        return self._values.nbytes

    def sizes(self, rows: Array) -> Array:
        return np.full(len(rows), self._values.row_bytes)


class _Dataset(_OneDataset):
    """What plain and dense columns share: one dataset, a row a value."""

    def __init__(self, item: h5py.Dataset, layout: str, reader: Reader | None = None) -> None:
        super().__init__()
        self.layout = layout
        self._values = Rows(item, reader)

    def _one(self, row: int) -> Any:
        return self._values[row]

    def _slice(self, rows: slice) -> Any:
        return self._values[rows]

    def _take(self, rows: Array, out: Array | None = None) -> Any:
        return self._values.take(rows, out)

    def describe(self) -> dict[str, Any]:
        values = self._values
        return {"layout": self.layout, "shape": values.shape[1:], "dtype": str(values.dtype), "bytes": values.stored}


class Plain(_Dataset):
    """Numbers, booleans and dates as numpy values, fixed-length strings as str."""

    def __init__(self, item: h5py.Dataset, layout: str, reader: Reader | None = None) -> None:
        super().__init__(item, layout, reader)
        self._is_text = self._values.dtype.kind == "S"
        self._date = _date_type(item)
        self.form = str(attribute(item, "form", ""))
        """How dates were written, see docs/format.md."""

    def _one(self, row: int) -> Any:
        return self._typed(super()._one(row))

    def _slice(self, rows: slice) -> Any:
        return self._typed(super()._slice(rows))

    def _take(self, rows: Array, out: Array | None = None) -> Any:
        return self._typed(super()._take(rows, out if out is None or not self._date else out.view("<i8")))

    def _typed(self, values: Any) -> Any:
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


def date_strings(values: Array, form: str) -> Array:
    """Dates as (rows,) fixed-length strings in their form, "NaT" where there is none; other values as they are."""
    if values.dtype.kind != "M":
        return values
    texts = np.datetime_as_string(values)
    if form:
        texts = np.char.add(np.char.replace(texts, "T", form[0]), form[1:])
    return np.char.encode(texts, "ascii")


class Categorical(_OneDataset):
    """Strings of which few are distinct: a str, or None where there is none; several as a list. ``codes`` are numbers of `categories`."""

    layout = "categorical"

    def __init__(self, item: h5py.Group, layout: str, reader: Reader | None = None) -> None:
        super().__init__()
        self.codes = self._values = _part(item, "codes", reader)
        """(rows,) int32, -1 where there is no value."""
        self.categories: list[str] = open_column(_item(item, "categories"), None, reader)[:]
        """The distinct strings, in the order of their codes."""
        self._names: list[str | None] = [*self.categories, None]
        self._item = item
        self._bytes = sum(Rows(part).stored for part in item.values() if isinstance(part, h5py.Dataset))

    def _one(self, row: int) -> str | None:
        return self._named(self.codes[row : row + 1])[0]

    def _slice(self, rows: slice) -> list[str | None]:
        return self._named(self.codes[rows])

    def _take(self, rows: Array, out: Array | None = None) -> list[str | None]:
        _no_out(self, out)
        return self._named(self.codes.take(rows))

    def _named(self, codes: Array) -> list[str | None]:
        if np.min(codes, initial=0) < -1 or np.max(codes, initial=-1) >= len(self.categories):
            raise fault(self._item, f"codes {np.min(codes)} to {np.max(codes)}", f"-1 to {len(self.categories) - 1}")
        return [self._names[code] for code in codes.tolist()]

    def describe(self) -> dict[str, Any]:
        return {"layout": self.layout, "shape": (), "dtype": f"{len(self.categories)} categories", "bytes": self._bytes}


class Nullable(Column):
    """A column in which values are missing: None for one row; a masked array, or a list with None for strings."""

    layout = "nullable"

    def __init__(self, item: h5py.Group, layout: str, reader: Reader | None = None) -> None:
        super().__init__()
        self._mask = _part(item, "mask", reader)
        self._values = Plain(_item(item, "values"), "plain", reader)
        self.form = self._values.form
        _check_rows(item, len(self._mask), self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def nbytes(self) -> int | None:
        return self._values.nbytes

    def sizes(self, rows: Array) -> Array:
        return self._values.sizes(rows)

    def _one(self, row: int) -> Any:
        return None if self._mask[row] else self._values[row]

    def _slice(self, rows: slice) -> Any:
        return self._masked(self._values[rows], self._mask[rows])

    def _take(self, rows: Array, out: Array | None = None) -> Any:
        return self._masked(self._values.rows(rows, out), self._mask.take(rows))

    @staticmethod
    def _masked(values: Any, mask: Array) -> Any:
        if isinstance(values, list):
            return [None if gone else value for value, gone in zip(values, mask.tolist(), strict=True)]
        return np.ma.MaskedArray(values, mask)

    def describe(self) -> dict[str, Any]:
        values = self._values.describe()
        return values | {"layout": self.layout, "bytes": values["bytes"] + self._mask.stored}


class _Ranges(Column):
    """What columns of bytes share: values one after the other, and where each row's start and how long they are."""

    def __init__(self, item: h5py.Group, layout: str, reader: Reader | None = None) -> None:
        super().__init__()
        self.layout = layout
        self._item = item
        self._reader = reader
        self._values = _part(item, "values", reader)
        self._offset = _part(item, "offset", reader)
        self._length = _part(item, "length", reader)
        self._mask = _part(item, "mask", reader) if "mask" in item else None
        _check_rows(item, len(self._offset), self._length, *(() if self._mask is None else (self._mask,)))

        self._rows, self._size = len(self._offset), len(self._values)

    def __len__(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int | None:
        return int(sum(self._length[:].tolist()))

    def sizes(self, rows: Array) -> Array:
        return np.asarray(self._places[1][rows])

    @cached_property
    def _places(self) -> tuple[Rows | Array, Rows | Array]:
        """Where each row starts, and how long it is; in memory where that is little."""
        return _held(self._offset), _held(self._length)

    @cached_property
    def _one_place(self) -> tuple[Any, Any]:
        """The same for one row at a time: of what is in memory a view that gives Python's integers, in a third of the time."""
        offset, length = (part if isinstance(part, Rows) else part.data for part in self._places)
        return offset, length

    def _place(self, row: int) -> tuple[int, int]:
        offset, length = self._one_place
        return self._checked(int(offset[row]), int(length[row]))

    def _one(self, row: int) -> Any:
        if self._mask is not None and self._mask[row]:
            return None
        return self._value(row, *self._place(row))

    def _slice(self, rows: slice) -> Any:
        size = sum(self._length[rows].tolist())
        if size > len(self._values):
            raise fault(self._item, f"{size} bytes of neighbouring rows", f"at most {len(self._values)}")
        return super()._slice(rows)

    def _take(self, rows: Array, out: Array | None = None) -> Any:
        tasks = self._tasks(rows)
        places: list[Any] = [None] * len(rows) if out is None else _checked_list(out, len(rows), len(tasks))
        found = self._found(tasks, places)
        if out is None:
            return found
        for value, place in zip(found, places, strict=True):
            if value is not place:
                checked_out(place, value.shape, value.dtype)
        return out

    def _found(self, tasks: Sequence[_Range], places: Sequence[Any]) -> list[Any]:
        """The values, each at its place, and in the array that lies there where one does and it fits it; None where there is none."""
        found = list(places)
        self._each(partial(self._put, found), tasks)
        return found

    def _tasks(self, rows: Array) -> list[_Range]:
        """The rows that have a value, in the order in which their bytes lie."""
        offsets, lengths = (part[rows].tolist() for part in self._places)
        tasks = zip(offsets, lengths, rows.tolist(), range(len(rows)), strict=True)
        if self._mask is None:
            return sorted(tasks)
        is_missing = self._mask[rows].tolist()
        return sorted(task for task in tasks if not is_missing[task[3]])

    def _put(self, found: list[Any], task: _Range) -> None:
        offset, length, row, place = task
        found[place] = self._value(row, *self._checked(offset, length), found[place])

    def _each(self, do: Callable[[_Range], None], tasks: Sequence[_Range]) -> None:
        """Does a task for each row."""
        for task in tasks:
            do(task)

    def _checked(self, at: int, size: int) -> tuple[int, int]:
        if at + size > self._size:
            raise fault(self._item, f"a row of bytes {at} to {at + size}", f"it within {self._size}")
        return at, size

    def _bytes(self, row: int) -> bytes:
        """The bytes of a row, whether it has a value or not."""
        return self._values.span(*self._place(row))

    def _value(self, row: int, at: int, size: int, out: Array | None = None) -> Any:
        """The value of a row whose bytes lie there: ``out`` itself where one is given that it fits."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        size = sum(Rows(part).stored for part in self._item.values())
        return {"layout": self.layout, "shape": None, "dtype": self._dtype(), "bytes": size}

    def _dtype(self) -> str:
        return "string"


class Text(_Ranges):
    """UTF-8 text as str; None where a value is missing."""

    def _value(self, row: int, at: int, size: int, out: Array | None = None) -> str:
        _no_out(self, out)
        return self._decoded(self._values.span(at, size), [(0, size)])[0]

    def _slice(self, rows: slice) -> Any:
        if self._mask is not None or (rows.step or 1) < 0:
            return super()._slice(rows)
        return self._neighbours(rows)

    def _neighbours(self, rows: slice) -> list[str]:
        """Rows by few reads: their bytes lie in row order. What lies between them, up to a chunk for each batch, is left out."""
        offsets, lengths = self._offset[rows], self._length[rows]
        ends, most = offsets + lengths, len(self._values)
        if (lengths > most).any() or (offsets > most).any() or (offsets[1:] < ends[:-1]).any():
            raise fault(self._item, "rows whose bytes overlap or lie outside", f"them in order within {most}")
        if not len(ends):
            return []
        gaps = (np.flatnonzero(offsets[1:] != ends[:-1]) + 1).tolist()
        runs = pairwise((0, *gaps, len(ends)))
        places = (self._checked(int(offsets[a]), int(ends[b - 1] - offsets[a])) for a, b in runs)
        data = b"".join(self._values[at : at + size].tobytes() for at, size in places)
        return self._decoded(data, pairwise([0, *np.cumsum(lengths).tolist()]))

    def _decoded(self, data: bytes, places: Iterable[tuple[int, int]]) -> list[str]:
        try:
            return [data[at:end].decode() for at, end in places]
        except UnicodeDecodeError as exc:
            raise fault(self._item, f"a text that is not UTF-8 ({exc})", "UTF-8") from exc


class Raw(_Ranges):
    """Bytes as they were; None where a value is missing."""

    def _value(self, row: int, at: int, size: int, out: Array | None = None) -> bytes:
        _no_out(self, out)
        return self._values.span(at, size)

    def _dtype(self) -> str:
        return "bytes"


class _Arrays(_Ranges):
    """What columns of arrays share: several of one shape are read into one array."""

    def _stacked(self, rows: Array) -> Any:
        tasks = self._tasks(rows)
        nowhere = [None] * len(rows)
        if not tasks or len(tasks) < len(rows):
            return self._found(tasks, nowhere)
        offset, length, row, first = tasks[0]
        value = self._value(row, *self._checked(offset, length))
        try:
            whole = np.empty((len(rows), *value.shape), value.dtype)
        except MemoryError:  # a large one among small ones
            return self._found(tasks, nowhere)
        whole[first] = value
        places = list(whole)
        found = self._found(tasks[1:], places)
        return whole if all(value is place for value, place in zip(found, places, strict=True)) else found


class Ragged(_Arrays):
    """Arrays of any shape, such as (height, width, channels) or (samples, channels), of the row's own dtype; None where one is missing."""

    def __init__(self, item: h5py.Group, layout: str, reader: Reader | None = None) -> None:
        super().__init__(item, layout, reader)
        self._shape = _part(item, "shape", reader)
        self._kind = _part(item, "dtype", reader)
        _check_rows(item, len(self), self._shape, self._kind)

    @cached_property
    def _forms(self) -> tuple[Rows | Array, Rows | Array]:
        """The type and the shape of each row."""
        return _held(self._kind), _held(self._shape)

    def _value(self, row: int, at: int, size: int, out: Array | None = None) -> Array:
        kind, shape = self._type(self._forms[0][row]), tuple(self._forms[1][row].tolist())
        if size != math.prod(shape) * kind.itemsize or kind.hasobject:
            raise fault(self._item, f"{size} bytes in row {row}", f"{shape} of {kind}")
        found = out if out is not None and _fits(out, shape, kind) else np.empty(shape, kind)
        self._values.read_into(at, found.reshape(-1).view("u1"))
        return found

    def _type(self, name: bytes) -> np.dtype[Any]:
        try:
            return np.dtype(name.decode())
        except (TypeError, ValueError, SyntaxError) as exc:  # numpy parses it as Python
            raise fault(self._item, f"type {name!r}", "one of numpy's, such as |u1") from exc

    def _dtype(self) -> str:
        return ", ".join(sorted({str(self._type(name)) for name in np.unique(self._kind[:]) if name}))


class Encoded(_Arrays):
    """Files kept as they were; a row is decoded when it is read, as the configuration of the run asked for."""

    def __init__(self, item: h5py.Group, layout: str, table: h5py.Group, reader: Reader | None = None) -> None:
        super().__init__(item, layout, reader)
        self._how = {name: attribute(table, name) for name in ("color", "resize", "profile", "damaged", "vector_size")}
        self._table = str(table.name)

    @property
    def nbytes(self) -> int | None:
        return None

    def encoded(self, row: int) -> bytes:
        """The row's file, byte for byte as it was in the archive."""
        return self._bytes(checked_row(row, len(self)))

    def files(self, rows: Any) -> list[bytes]:
        """The same of several rows."""
        return [self._bytes(row) for row in row_numbers(rows, len(self)).tolist()]

    @cached_property
    def _options(self) -> Any:
        # Imported here because listing a file must not pay for loading decoders and settings.
        from h5dat_lib.convert.image import from_attributes

        try:
            return from_attributes(self._how)
        except (TypeError, ValueError) as exc:
            found = ", ".join(f"{name} {value!r}" for name, value in self._how.items())
            raise fault(self._item, f"{found} of its table", "those of a configuration") from exc

    @cached_property
    def _modes(self) -> Callable[[int], bytes]:
        """The mode of a JPEG whose pixels are as the decoder gives them, as what is recorded of it says; of any other row b""."""
        if self._reader is None or (self._options.color, self._options.resize, self._options.profile) != ("keep", None, "ignore"):
            return lambda _: b""
        table = self._reader.hdf5[self._table]
        found = [table.get(name) for name in ("orientation", "format", "mode")]
        if not all(isinstance(mark, h5py.Dataset) and mark.shape == (len(self),) for mark in found):
            return lambda _: b""
        orientation, format, mode = (_held(Rows(mark, self._reader)) for mark in found)
        if isinstance(mode, Rows):
            return lambda row: mode[row] if orientation[row] == 1 and format[row] == b"JPEG" else b""
        return np.where((orientation[:] == 1) & (format[:] == b"JPEG"), mode, b"").__getitem__

    @cached_property
    def _plain_pixels(self) -> Callable[..., Array | None]:
        from h5dat_lib.convert.jpeg import plain_pixels

        return plain_pixels

    def _value(self, row: int, at: int, size: int, out: Array | None = None) -> Array:
        data, mode = self._values.span(at, size), self._modes(row)
        if out is not None and out.dtype == _U1:
            pixels = self._plain_pixels(data, mode, out)
            if pixels is not None:
                return out if pixels.shape == out.shape else pixels
        pixels = self._plain_pixels(data, mode)  # also of one that ``out`` is too small for
        if pixels is None:
            pixels = self._decoded(data)
        if out is None or not _fits(out, pixels.shape, pixels.dtype):
            return pixels
        out[...] = pixels
        return out

    def _decoded(self, data: bytes) -> Array:
        from h5dat_lib.convert.image import decode

        try:
            return decode(data, self._options)
        except MemberError as exc:
            raise fault(self._item, f"a picture that cannot be decoded ({exc})", "a member's file as it was") from exc

    def _each(self, do: Callable[[_Range], None], tasks: Sequence[_Range]) -> None:
        if self._reader and len(tasks) > 1 and sum(task[1] for task in tasks) >= _SHARED_BYTES:
            self._reader.each(do, tasks)
        else:
            super()._each(do, tasks)

    def _dtype(self) -> str:
        return "file"


def _fits(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return out.shape == shape and out.dtype == dtype


def _no_out(column: Column, out: Array | None) -> None:
    if out is not None:
        raise ValueError(f"a column of layout {column.layout} gives a list, expected no out")


def _checked_list(out: Array, rows: int, present: int) -> list[Array]:
    """The places in ``out`` of so many rows, none of which is missing."""
    if len(out) != rows or not out.flags.c_contiguous or present != rows:
        raise ValueError(f"found out of {len(out)} rows and {present} values, expected {rows} of both, contiguous")
    return list(out)


def _held(part: Rows) -> Rows | Array:
    """All rows of a part in memory, where they are few bytes; otherwise they are read as they are asked for."""
    whole: Rows | Array = part[:] if part.nbytes <= _HELD_BYTES else part
    return whole


def open_column(item: Any, table: h5py.Group | None, reader: Reader | None = None) -> Column:
    """The column of a table behind a dataset or a group; None for a part of a column, which has rows of its own.

    Raises FormatError when it is not as docs/format.md has its layout, or has other rows than its table.
    """
    layout = attribute(item, "layout", "plain")
    if not isinstance(layout, str) or layout not in (*_READERS, "encoded"):
        raise fault(item, f"layout {layout!r}", "one of " + ", ".join((*_READERS, "encoded")))
    if table is None:
        return _READERS[layout](item, layout, reader)
    column = Encoded(item, layout, table, reader) if layout == "encoded" else _READERS[layout](item, layout, reader)
    _check_rows(item, int(attribute(table, "rows", len(column))), column)
    return column


_READERS: dict[str, Callable[[Any, str, Reader | None], Column]] = {
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


def _part(column: Any, name: str, reader: Reader | None) -> Rows:
    """One of the datasets that a column is made of."""
    part, expected = Rows(_item(column, name), reader), _PARTS[name]
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


def checked_row(row: Any, rows: int) -> int:
    """A row number counted from the start; raises IndexError when there is no such row, or it is no number."""
    try:
        number = operator.index(row)
    except TypeError as exc:
        raise IndexError(f"found {row!r}, expected the number of a row, a slice, or a list of numbers or of {rows} booleans") from exc
    if not -rows <= number < rows:
        raise no_row(number, rows)
    return number % rows


def python_value(value: Any) -> Any:
    """A numpy scalar as the Python value that JSON knows; None for one that is missing."""
    if value is np.ma.masked:
        return None
    return value.item() if isinstance(value, np.generic) else value
