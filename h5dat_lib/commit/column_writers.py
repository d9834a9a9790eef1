"""The layouts of columns, open for appending: one class a layout, found in one table.

A column takes finished chunks as they are. Numbers are appended to the open last chunk of their dataset, which is read, filled
up, compressed and written again. A column whose type cannot hold what comes is rewritten as one that holds both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import h5py
import numpy as np

from h5dat_lib.columns import MOST_CATEGORIES, SCALAR_CHUNK_BYTES, STRING_BYTES, TEXT_CHUNK_BYTES, Array
from h5dat_lib.errors import OutputError
from h5dat_lib.plan.layout import PixelLayout
from h5dat_lib.read.chunked import Rows
from h5dat_lib.read.columns import date_strings
from h5dat_lib.read.format import attribute
from h5dat_lib.stage.staged import Chunks, StagedCategories, StagedChunks, StagedColumn, StagedScalars

_HELD_BYTES = 256 << 10
"""Numbers of one dataset that are collected before they are written, within a transaction."""
_SLAB_ROWS = 1 << 16
"""Rows of a column that are read at a time when it has to be rewritten as another type."""
_MOVED_CHUNKS = 64
"""Chunks in memory while a dense column is made ragged: 16 MiB at most."""
_EXACT = 1 << 53
"""Integers up to here are exact as float64 (IEEE 754)."""


Encoded = list[tuple[Any, int]]
"""Chunks as they are stored, each with its filter mask."""


class ChunkWriter(Protocol):
    """What column writers need of the output they belong to; the writer of the file offers it."""

    @property
    def file(self) -> h5py.File: ...

    def create(self, path: str, tail: tuple[int, ...], dtype: Any, chunks: tuple[int, ...], shuffle: bool) -> h5py.Dataset: ...

    def write_chunk(
        self, dataset: h5py.Dataset, number: int, at: tuple[int, ...], data: Any, mask: int, crc: int | None = None
    ) -> None: ...

    def compress(self, data: bytes) -> tuple[Any, int]: ...

    def write_later(self, encode: Callable[[], Encoded], write: Callable[[Encoded], None]) -> None: ...

    def settle(self) -> None: ...

    def move(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None: ...


class ColumnWriter(Protocol):
    """One column of a table, open for appending."""

    def fits(self, column: StagedColumn) -> bool:
        """Whether the values can be appended without changing the column's type."""
        ...

    def append(self, column: Any, staged: Chunks, base: int) -> None: ...

    def pad(self, rows: int) -> None:
        """Appends rows without a value."""
        ...

    def flush(self) -> None: ...


class _Appender:
    """A dataset of numbers that grows by arrays. Its last chunk may be open: it is written when all is, and then written again."""

    def __init__(self, writer: ChunkWriter, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self._writer = writer
        self._held: list[Array] = []
        self._held_rows = 0
        # Asked of h5py once: each of these goes to the file.
        self._shuffled = bool(dataset.shuffle)
        self._dtype: np.dtype[Any] = dataset.dtype
        self._chunk_rows: int = dataset.chunks[0]
        self._rows = len(dataset)

    @classmethod
    def create(cls, writer: ChunkWriter, path: str, dtype: np.dtype[Any], tail: tuple[int, ...] = ()) -> _Appender:
        row_bytes = dtype.itemsize * int(np.prod(tail, dtype=int))
        rows = 1 << max((SCALAR_CHUNK_BYTES // row_bytes).bit_length() - 1, 0)
        kind: Any = h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype
        shuffle = dtype.kind in "iuf" and dtype.itemsize > 1
        return cls(writer, writer.create(path, tail, kind, (rows, *tail), shuffle))

    def __len__(self) -> int:
        return self._rows + self._held_rows

    def append(self, values: Array) -> None:
        values = np.asarray(values, self._dtype)
        self._held.append(values)
        self._held_rows += len(values)
        if self._held_rows * values.dtype.itemsize > _HELD_BYTES:
            self._write_whole()

    def flush(self) -> None:
        self._writer.settle()
        if self._held_rows:
            first, values = self._take_held()
            self._write(first, len(values), self._encoded(values))

    def _write_whole(self) -> None:
        """Has what fills chunks written, once it is deflated; the rest stays held."""
        first, values = self._take_held()
        whole = len(values) - len(values) % self._chunk_rows
        self._held, self._held_rows = [values[whole:].copy()], len(values) - whole
        self._rows = first + whole
        self._writer.write_later(partial(self._encoded, values[:whole]), partial(self._write, first, whole))

    def _take_held(self) -> tuple[int, Array]:
        """The row at which the open chunk starts, and the values from there on."""
        first = self._rows - self._rows % self._chunk_rows
        written = [Rows(self.dataset)[first : self._rows]] if first < self._rows else []
        # The dtype is given again because h5py reads fixed-length UTF-8 as plain bytes, and concatenate would widen.
        values = np.concatenate([*written, *self._held], dtype=self._dtype, casting="unsafe")
        self._held, self._held_rows = [], 0
        return first, values

    def set(self, rows: Array, value: Any) -> None:
        self.flush()
        step = self._chunk_rows
        for first in (np.unique(rows // step) * step).tolist():
            values = Rows(self.dataset)[first : first + step]
            values[rows[(rows >= first) & (rows < first + step)] - first] = value
            self._write(first, len(values), self._encoded(values))

    def _write(self, first: int, rows: int, chunks: Encoded) -> None:
        """Writes so many rows from ``first`` on, with which a chunk begins."""
        if first + rows > len(self.dataset):
            self.dataset.resize(first + rows, axis=0)
            self._rows = max(self._rows, first + rows)
        tail = (0,) * (self.dataset.ndim - 1)
        for number, (data, mask) in enumerate(chunks, first // self._chunk_rows):
            self._writer.write_chunk(self.dataset, number, (number * self._chunk_rows, *tail), data, mask)

    def _encoded(self, values: Array) -> Encoded:
        """The chunks of some rows, as they are stored. Asks nothing of HDF5, so that any thread may do it."""
        return [self._chunk(values[at : at + self._chunk_rows]) for at in range(0, len(values), self._chunk_rows)]

    def _chunk(self, values: Array) -> tuple[Any, int]:
        full = values
        if len(values) < self._chunk_rows:
            full = np.zeros((self._chunk_rows, *values.shape[1:]), values.dtype)
            full[: len(values)] = values
        if not self._shuffled:
            return self._writer.compress(full.tobytes())
        # HDF5's shuffle filter: first bytes of all values, then second bytes, ... (H5Z_FILTER_SHUFFLE).
        data, mask = self._writer.compress(full.view("u1").reshape(-1, full.dtype.itemsize).T.tobytes())
        return data, mask << 1


class ScalarWriter:
    """A column of numbers, booleans or fixed-length strings; a group of values and mask once a value is missing."""

    def __init__(self, writer: ChunkWriter, path: str) -> None:
        self._writer = writer
        self._path = path
        found = writer.file[path]
        self.nullable = isinstance(found, h5py.Group)
        self._values = _Appender(writer, found["values"] if self.nullable else found)
        self._mask = _Appender(writer, found["mask"]) if self.nullable else None
        stored = self._values.dataset
        self.form = str(attribute(stored, "form", ""))
        """How dates were written."""
        self.dtype: np.dtype[Any] = np.dtype(f"<M8[{stored.attrs['unit']}]") if "unit" in stored.attrs else stored.dtype
        """The type of the values; of dates, which are stored as integers, numpy's."""

    @classmethod
    def create(cls, writer: ChunkWriter, path: str, dtype: np.dtype[Any], form: str = "") -> ScalarWriter:
        appender = _Appender.create(writer, path, np.dtype("<i8") if dtype.kind == "M" else dtype)
        if dtype.kind == "M":
            appender.dataset.attrs.update({"unit": np.datetime_data(dtype)[0], "form": form})
        column = cls(writer, path)
        column._describe()
        return column

    def fits(self, column: StagedColumn) -> bool:
        if not isinstance(column, StagedScalars):
            return False
        found, mine = column.values.dtype, self.dtype
        if "M" in (found.kind, mine.kind):
            return (found, column.form) == (mine, self.form)
        if found.kind == mine.kind:
            return found.itemsize <= mine.itemsize
        if mine.kind == "S":
            return _width(column.values, column.missing) <= mine.itemsize
        return mine.kind == "f" and _is_exact_as_float(column.values)

    def append(self, column: StagedScalars, staged: Chunks, base: int) -> None:
        values = column.values + np.uint64(base) if base else column.values
        missing = _no_numbers(values) if column.missing is None and self.dtype.kind == "S" else column.missing
        self.extend(_cast(values, missing, self.dtype), missing)

    def extend(self, values: Array, missing: Array | None) -> None:
        """Appends values; ``missing`` marks those that are none."""
        if missing is not None and missing.any() and self.dtype.kind != "f":
            self._make_nullable()
        if self._mask is not None:
            self._mask.append(np.zeros(len(values), bool) if missing is None else missing)
        self._values.append(values.view("<i8") if values.dtype.kind == "M" else values)

    def pad(self, rows: int) -> None:
        if rows:
            empty = np.full(rows, _EMPTY.get(self.dtype.kind, 0), self.dtype)
            self.extend(empty, np.ones(rows, bool))

    def flush(self) -> None:
        self._values.flush()
        if self._mask is not None:
            self._mask.flush()

    def set(self, rows: Array, value: Any) -> None:
        self._values.set(rows, value)

    def value(self, row: int) -> Any:
        """One value."""
        self._values.flush()
        return Rows(self._values.dataset)[row]

    def slabs(self) -> Iterator[tuple[Array, Array]]:
        """Values, dates as strings, and mask, some rows at a time."""
        values, mask = Rows(self._values.dataset), Rows(self._mask.dataset) if self._mask is not None else None
        for first in range(0, len(values), _SLAB_ROWS):
            part = date_strings(values[first : first + _SLAB_ROWS].view(self.dtype), self.form)
            yield part, mask[first : first + len(part)] if mask is not None else _no_numbers(part)

    def _make_nullable(self) -> None:
        if self._mask is not None:
            return
        self.flush()
        rows = len(self._values)
        for name in ("encoding-type", "encoding-version"):
            del self._writer.file[self._path].attrs[name]
        self._writer.move(self._path, f"{self._path}/values")
        self._values = _Appender(self._writer, self._writer.file[f"{self._path}/values"])
        self._mask = _Appender.create(self._writer, f"{self._path}/mask", np.dtype(bool))
        self._mask.append(np.zeros(rows, bool))
        self.nullable = True
        self._describe()

    def _describe(self) -> None:
        """AnnData's encodings, so that its reader and pandas take the column as what it is."""
        kind = {"b": "boolean", "S": "string-array"}.get(self.dtype.kind, "integer")
        plain = "string-array" if self.dtype.kind == "S" else "array"
        found = self._writer.file[self._path]
        if self.nullable:
            found.attrs.update({"layout": "nullable", "encoding-type": f"nullable-{kind}", "encoding-version": "0.1.0"})
            found["values"].attrs.update({"encoding-type": plain, "encoding-version": "0.2.0"})
            found["mask"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        else:
            found.attrs.update({"encoding-type": plain, "encoding-version": "0.2.0"})


_EMPTY = {"f": np.nan, "M": "NaT", "S": b""}
"""What stands where a value is missing, by the kind of the type."""


class CategoryWriter:
    """A column of strings of which few are distinct: ``codes``, -1 where there is none, and the ``categories`` that they count."""

    def __init__(self, writer: ChunkWriter, path: str) -> None:
        self._codes = _Appender(writer, writer.file[f"{path}/codes"])
        self._writer = writer
        self._path = f"{path}/categories"
        self._names: ColumnWriter = open_column(writer, self._path)
        self._known = {name: code for code, name in enumerate(self.names.tolist())}

    @classmethod
    def create(cls, writer: ChunkWriter, path: str, width: int) -> CategoryWriter:
        group = writer.file.create_group(path)
        group.attrs.update({"layout": "categorical", "encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        codes = _Appender.create(writer, f"{path}/codes", np.dtype("<i4"))
        codes.dataset.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        ScalarWriter.create(writer, f"{path}/categories", _stored_type(np.dtype(f"S{width}")))
        return cls(writer, path)

    @property
    def names(self) -> Array:
        """The categories, (names,) fixed-length strings, in the order of their codes."""
        assert isinstance(self._names, ScalarWriter)
        return np.concatenate([np.empty(0, self._names.dtype), *(values for values, _ in self._names.slabs())])

    def fits(self, column: StagedColumn) -> bool:
        return isinstance(column, StagedCategories) and len(self._known.keys() | set(column.names.tolist())) <= MOST_CATEGORIES

    def append(self, column: StagedCategories, staged: Chunks, base: int) -> None:
        new = [name for name in column.names.tolist() if name not in self._known]
        if new:
            self._add_names(np.array(new, column.names.dtype), staged)
        # One more, so that -1, which counts from the end, stands for itself.
        codes = np.array([*map(self._known.__getitem__, column.names.tolist()), -1], "<i4")
        self._codes.append(codes[column.codes])

    def _add_names(self, names: Array, staged: Chunks) -> None:
        added = StagedScalars(names, None)
        if not self._names.fits(added):
            self._names.flush()
            self._names = changed_column(self._writer, self._path, self._names, added)
        self._names.append(added, staged, 0)
        self._known.update({name: code for code, name in enumerate(names.tolist(), len(self._known))})

    def pad(self, rows: int) -> None:
        if rows:
            self._codes.append(np.full(rows, -1, "<i4"))

    def flush(self) -> None:
        self._codes.flush()
        self._names.flush()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the strings."""
        return self.names.dtype

    def slabs(self) -> Iterator[tuple[Array, Array]]:
        """Strings and mask, some rows at a time."""
        names, codes = self.names, Rows(self._codes.dataset)
        for first in range(0, len(codes), _SLAB_ROWS):
            strings = StagedCategories(codes[first : first + _SLAB_ROWS], names).strings()
            yield strings.values, np.zeros(len(strings.values), bool) if strings.missing is None else strings.missing


class BytesWriter:
    """A column of bytes of any length: text, files, or arrays of any shape (ragged)."""

    def __init__(self, writer: ChunkWriter, path: str) -> None:
        self._writer = writer
        self._path = path
        group = writer.file[path]
        self.layout: str = group.attrs["layout"]
        self._values: h5py.Dataset = group["values"]
        self._parts = {name: _Appender(writer, group[name]) for name in ("offset", "length", "shape", "dtype", "mask") if name in group}

    @classmethod
    def create(cls, writer: ChunkWriter, path: str, layout: str, chunk_bytes: int, axes: int = 0) -> BytesWriter:
        """``axes`` is the number of axes of the arrays of a ragged column."""
        group = writer.file.create_group(path)
        group.attrs["layout"] = layout
        writer.create(f"{path}/values", (), "|u1", (chunk_bytes,), shuffle=False)
        parts = {"offset": ("<u8", ()), "length": ("<u8", ())} | ({"shape": ("<u4", (axes,)), "dtype": ("S4", ())} if axes else {})
        for name, (dtype, tail) in parts.items():
            _Appender.create(writer, f"{path}/{name}", np.dtype(dtype), tail)
        return cls(writer, path)

    def fits(self, column: StagedColumn) -> bool:
        if self.layout == "text" and isinstance(column, StagedScalars):
            return True
        if not isinstance(column, StagedChunks):
            return False
        if column.shape is None:
            return self.layout == column.layout
        return self.layout == "ragged" and self._parts["shape"].dataset.shape[1:] == column.shape.shape[1:]

    def append(self, column: StagedScalars | StagedChunks, staged: Chunks, base: int) -> None:
        if isinstance(column, StagedScalars):
            missing = _no_numbers(column.values) if column.missing is None else column.missing
            self.extend_text(*_texts(column.values, missing), missing)
            return
        start = len(self._values)
        self._append_chunks(staged, column)
        self._append_mask(len(column.length), column.missing)
        self._parts["offset"].append(column.offset + np.uint64(start))
        self._parts["length"].append(column.length)
        if column.shape is not None and column.dtype is not None:
            self._parts["shape"].append(column.shape)
            self._parts["dtype"].append(column.dtype)

    def _append_chunks(self, staged: Chunks, column: StagedChunks) -> None:
        size = self._values.chunks[0]
        first = len(self._values) // size
        self._values.resize((first + len(column.chunks)) * size, axis=0)
        for number, (at, stored, mask, crc) in enumerate(column.chunks.tolist(), first):
            self._writer.write_chunk(self._values, number, (number * size,), staged.chunk(at, stored), mask, crc)

    def extend_text(self, data: bytes, lengths: Array, missing: Array | None) -> None:
        """Appends strings that come as bytes end to end: a column of short strings that has become text."""
        size, start = self._values.chunks[0], len(self._values)
        self._values.resize(start + -(-len(data) // size) * size, axis=0)
        for at in range(0, len(data), size):
            stored, mask = self._writer.compress(data[at : at + size].ljust(size, b"\0"))
            self._writer.write_chunk(self._values, (start + at) // size, (start + at,), stored, mask)
        self._append_mask(len(lengths), missing)
        self._parts["offset"].append(np.cumsum(lengths) - lengths + np.uint64(start))
        self._parts["length"].append(lengths)

    def take_dense(self, dense: h5py.Dataset, pieces: int) -> None:
        """Takes over the pictures of a dense dataset, the last first: each few that leave it make room for those before them."""
        rows, size, shape = len(dense), self._values.chunks[0], dense.shape[1:]
        self._values.resize(rows * pieces * size, axis=0)
        step = max(_MOVED_CHUNKS // pieces, 1)
        for first in reversed(range(0, rows, step)):
            numbers = range(first * pieces, min(first + step, rows) * pieces)
            places = [(number // pieces, number % pieces * dense.chunks[1], 0, 0) for number in numbers]
            # HDF5 2.0 reads the chunk that was written last with mask 0, whatever it has; its index knows better
            chunks = [(dense.id.get_chunk_info_by_coord(place).filter_mask, dense.id.read_direct_chunk(place)[1]) for place in places]
            dense.resize(first, axis=0)
            for number, (mask, data) in zip(numbers, chunks, strict=True):
                self._writer.write_chunk(self._values, number, (number * size,), data, mask)
        self._parts["offset"].append(np.arange(rows, dtype="<u8") * np.uint64(pieces * size))
        self._parts["length"].append(np.full(rows, math.prod(shape) * dense.dtype.itemsize, "<u8"))
        self._parts["shape"].append(np.tile(np.array(shape, "<u4"), (rows, 1)))
        self._parts["dtype"].append(np.full(rows, dense.dtype.str.encode(), "S4"))

    def _append_mask(self, rows: int, missing: Array | None) -> None:
        """Called before the other parts grow, so that a mask made now covers the rows before."""
        if missing is not None and missing.any() and "mask" not in self._parts:
            self._parts["mask"] = _Appender.create(self._writer, f"{self._path}/mask", np.dtype(bool))
            self._parts["mask"].append(np.zeros(len(self._parts["offset"]), bool))
        if "mask" in self._parts:
            self._parts["mask"].append(np.zeros(rows, bool) if missing is None else missing)

    def pad(self, rows: int) -> None:
        if rows:
            self._append_mask(rows, np.ones(rows, bool))
            for name in self._parts.keys() - {"mask"}:
                part = self._parts[name].dataset
                self._parts[name].append(np.zeros((rows, *part.shape[1:]), part.dtype))

    def flush(self) -> None:
        for part in self._parts.values():
            part.flush()


class DenseWriter:
    """A column of pictures of one shape and dtype: (rows, height, width, channels)."""

    def __init__(self, writer: ChunkWriter, path: str) -> None:
        self._writer = writer
        self.path = path
        self.dataset: h5py.Dataset = writer.file[path]

    @classmethod
    def create(cls, writer: ChunkWriter, path: str, layout: PixelLayout) -> DenseWriter:
        _, width, channels = layout.shape
        dataset = writer.create(path, layout.shape, layout.dtype, (1, layout.chunk_height, width, channels), shuffle=False)
        dataset.attrs["layout"] = "dense"
        dataset.attrs.update(_image_attributes(channels))
        return cls(writer, path)

    @property
    def chunk_bytes(self) -> int:
        size: int = math.prod(self.dataset.chunks) * self.dataset.dtype.itemsize
        return size

    @property
    def pieces(self) -> int:
        """Chunks of one picture."""
        pieces: int = math.ceil(self.dataset.shape[1] / self.dataset.chunks[1])
        return pieces

    def fits(self, column: StagedColumn) -> bool:
        if not isinstance(column, StagedChunks) or column.layout != "pixels" or column.shape is None or column.dtype is None:
            return False
        return bool((column.shape == self.dataset.shape[1:]).all() and (column.dtype == self.dataset.dtype.str.encode()).all())

    def append(self, column: StagedChunks, staged: Chunks, base: int) -> None:
        row = len(self.dataset)
        self.dataset.resize(row + len(column.length), axis=0)
        pieces, height = self.pieces, self.dataset.chunks[1]
        for number, (at, stored, mask, crc) in enumerate(column.chunks.tolist(), row * pieces):
            place = (number // pieces, number % pieces * height, 0, 0)
            self._writer.write_chunk(self.dataset, number, place, staged.chunk(at, stored), mask, crc)

    def pad(self, rows: int) -> None:
        """Pictures of a class are all of one medium, so none is ever without pixels, but the rows before the first."""
        if rows:
            raise OutputError(f"{self.path}: found {rows} rows without a picture, expected one a row; use another class for other media")

    def flush(self) -> None:
        pass

    def to_ragged(self) -> BytesWriter:
        """The same pictures as a ragged column: their chunks are moved as they are, because both cut them alike."""
        old = f"{self.path} dense"
        self._writer.move(self.path, old)
        dense = self._writer.file[old]
        ragged = BytesWriter.create(self._writer, self.path, "ragged", self.chunk_bytes, axes=3)
        ragged.take_dense(dense, self.pieces)
        self._writer.remove(old)
        return ragged


def open_column(writer: ChunkWriter, path: str) -> ColumnWriter:
    layout = attribute(writer.file[path], "layout", "plain")
    return _OPENERS[layout](writer, path)


_OPENERS: dict[str, Callable[[ChunkWriter, str], ColumnWriter]] = {
    "plain": ScalarWriter,
    "nullable": ScalarWriter,
    "dense": DenseWriter,
    "categorical": CategoryWriter,
    "ragged": BytesWriter,
    "text": BytesWriter,
    "bytes": BytesWriter,
    "encoded": BytesWriter,
}


def create_column(writer: ChunkWriter, path: str, column: StagedColumn, layout: PixelLayout | None) -> ColumnWriter:
    if isinstance(column, StagedScalars):
        return ScalarWriter.create(writer, path, _stored_type(column.values.dtype), column.form)
    if isinstance(column, StagedCategories):
        return CategoryWriter.create(writer, path, column.names.dtype.itemsize)
    if column.shape is None:
        return BytesWriter.create(writer, path, column.layout, column.chunk_bytes)
    if column.layout == "pixels" and layout and layout.shape:
        dense = DenseWriter.create(writer, path, layout)
        return dense if dense.fits(column) else dense.to_ragged()
    return BytesWriter.create(writer, path, "ragged", column.chunk_bytes, column.shape.shape[1])


def _stored_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Strings get room to grow, to a power of two, so that longer ones later seldom rewrite the column."""
    return np.dtype(f"S{max(8, 1 << (dtype.itemsize - 1).bit_length())}") if dtype.kind == "S" else dtype


def changed_column(writer: ChunkWriter, path: str, old: ColumnWriter, column: StagedColumn) -> ColumnWriter:
    """The column rewritten as a type that takes both what it holds and what comes.

    Dense pictures become ragged; integers become floats while that is exact, anything else becomes strings, and strings text.
    Raises OutputError for other changes.
    """
    if isinstance(old, DenseWriter) and isinstance(column, StagedChunks) and column.layout == "pixels":
        return old.to_ragged()
    if not isinstance(old, ScalarWriter | CategoryWriter) or (isinstance(column, StagedChunks) and column.layout != "text"):
        found = column.layout if isinstance(column, StagedChunks) else str(as_written(column).values.dtype)
        raise OutputError(f"{path}: found {found} values, expected what the column holds; use another output or its configuration")
    target = _common_type(old, column)
    temporary = f"{path} changing"
    new: ColumnWriter
    if target is None:
        new = text = BytesWriter.create(writer, temporary, "text", TEXT_CHUNK_BYTES)
        for values, missing in old.slabs():
            text.extend_text(*_texts(values, missing), missing)
    else:
        new = scalars = ScalarWriter.create(writer, temporary, target)
        for values, missing in old.slabs():
            scalars.extend(_cast(values, missing, target), missing)
    new.flush()
    writer.remove(path)
    writer.move(temporary, path)
    return open_column(writer, path)


def as_written(column: Any) -> Any:
    """Categories and dates as the strings that they were, for a column that holds others; other staged columns as they are."""
    if isinstance(column, StagedCategories):
        return column.strings()
    if isinstance(column, StagedScalars) and column.values.dtype.kind == "M":
        return StagedScalars(date_strings(column.values, column.form), np.isnat(column.values))
    return column


def _common_type(old: ScalarWriter | CategoryWriter, column: StagedColumn) -> np.dtype[Any] | None:
    """The type that takes both without loss; None for text."""
    if not isinstance(column, StagedScalars):
        return None
    found, mine, parts = column.values.dtype, old.dtype, [(column.values, column.missing), *old.slabs()]
    if found.kind == mine.kind:
        return _stored_type(np.promote_types(found, mine))
    if found.kind in "iuf" and mine.kind in "iuf" and all(_is_exact_as_float(values) for values, _ in parts):
        return np.dtype("<f8")
    width = max(_width(values, missing) for values, missing in parts)
    return _stored_type(np.dtype(f"S{width}")) if width <= STRING_BYTES else None


def _no_numbers(values: Array) -> Array:
    """Where a column without a mask has no value: NaN among floats."""
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)


def _is_exact_as_float(values: Array) -> bool:
    return values.dtype.kind == "f" or (values.dtype.kind in "iu" and bool((np.abs(values) <= _EXACT).all()))


def _cast(values: Array, missing: Array | None, dtype: np.dtype[Any]) -> Array:
    """Values as another type; numbers become the strings that CSV would write, and missing ones become empty or NaN."""
    if dtype.kind == "S" and values.dtype.kind != "S":
        return np.array(_strings(values, missing), dtype)
    cast = values.astype(dtype, copy=False)
    return np.where(missing, np.nan, cast) if dtype.kind == "f" and missing is not None else cast


def _strings(values: Array, missing: Array | None) -> list[bytes]:
    texts = [_STRINGS[values.dtype.kind](value) for value in values.tolist()]
    if missing is None:
        return texts
    return [b"" if gone else text for text, gone in zip(texts, missing, strict=True)]


_STRINGS: dict[str, Callable[[Any], bytes]] = {
    "S": bytes,
    "b": lambda value: b"true" if value else b"false",
    "i": lambda value: str(value).encode(),
    "u": lambda value: str(value).encode(),
    "f": lambda value: repr(value).encode(),
}


def _texts(values: Array, missing: Array | None) -> tuple[bytes, Array]:
    """Strings end to end, and their lengths."""
    texts = _strings(values, missing)
    return b"".join(texts), np.fromiter(map(len, texts), "<u8", len(texts))


def _width(values: Array, missing: Array | None) -> int:
    return max(map(len, _strings(values, missing)), default=1)


def _image_attributes(channels: int) -> dict[str, Any]:
    """HDF5 Image and Palette Specification 1.2, section 2: by these viewers show the last axes as pictures."""
    colour = {"IMAGE_SUBCLASS": np.bytes_(b"IMAGE_TRUECOLOR"), "INTERLACE_MODE": np.bytes_(b"INTERLACE_PIXEL")}
    grey = {"IMAGE_SUBCLASS": np.bytes_(b"IMAGE_GRAYSCALE")}
    return {"CLASS": np.bytes_(b"IMAGE"), "IMAGE_VERSION": np.bytes_(b"1.2"), **(colour if channels >= 3 else grey)}
