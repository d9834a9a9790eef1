"""Segments -> HDF5 tables: rows are appended to the columns of an open file, inside a `transaction`.

Finished chunks are appended as they are; numbers are collected, and written when the transaction ends. Every chunk's CRC-32 is
recorded beside the lineage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib

from h5dat_lib.columns import SCALAR_CHUNK_BYTES
from h5dat_lib.commit.column_writers import (
    CategoryWriter,
    ColumnWriter,
    Encoded,
    ScalarWriter,
    as_written,
    changed_column,
    create_column,
    open_column,
)
from h5dat_lib.config import Compression
from h5dat_lib.lineage import CHECKSUMS
from h5dat_lib.plan.layout import PixelLayout
from h5dat_lib.read.chunked import Rows
from h5dat_lib.read.format import attribute
from h5dat_lib.stage.pack import compressed
from h5dat_lib.stage.staged import Chunks, Segment, StagedColumn, StagedFile, StagedScalars

_COMING = 8
"""Parts of columns, of some 256 KiB, that are being deflated or wait to be written."""


class Table:
    """A group of columns with one row count. Columns that a segment lacks get rows without a value."""

    def __init__(self, writer: Writer, group: h5py.Group, name: str) -> None:
        self.name = name
        self.rows = int(attribute(group, "rows", 0))
        self._writer = writer
        self._group = group
        self._columns: dict[str, ColumnWriter] = {}
        self._order: list[str] = list(attribute(group, "columns", ()))
        for link in self._order:
            self._columns[link] = open_column(writer, f"{name}/{link}")

    def append(self, segment: Segment, staged: Chunks, bases: Mapping[str, int]) -> None:
        """Appends the rows of a segment."""
        for link, column in segment.columns.items():
            base = bases[column.reference] if isinstance(column, StagedScalars) and column.reference else 0
            writer, column = self._column(link, column)
            writer.append(column, staged, base)
        for link in self._order:
            if link not in segment.columns:
                self._columns[link].pad(segment.rows)
        self.rows += segment.rows
        self._group.attrs.update(segment.attributes)

    def set(self, rows: int | Sequence[int], values: Mapping[str, Any]) -> None:
        """Changes numbers or fixed-length strings of rows, all to the same, such as the end of a run."""
        for link, value in values.items():
            column = self._columns[link]
            if not isinstance(column, ScalarWriter):
                raise TypeError(f"{self.name}/{link} is not a column of numbers or fixed-length strings")
            column.set(np.atleast_1d(np.asarray(rows, np.int64)), value)

    def add_to_last(self, segment: Segment, link: str) -> None:
        """Adds the count of a segment's one row to that of the last row."""
        counts, column = self._columns[link], segment.columns[link]
        if not isinstance(counts, ScalarWriter) or not isinstance(column, StagedScalars):
            raise TypeError(f"{self.name}/{link} is not a column of numbers")
        counts.set(np.array([self.rows - 1]), counts.value(self.rows - 1) + column.values.sum())

    def flush(self) -> None:
        """Writes what is held, the row count, and the attributes by which AnnData reads the table as a dataframe."""
        for column in self._columns.values():
            column.flush()
        self._group.attrs["rows"] = np.uint64(self.rows)
        self._group.attrs["columns"] = np.array(self._order, h5py.string_dtype())
        plain = [
            link for link in self._order if isinstance(self._columns[link], ScalarWriter | CategoryWriter) and not link.startswith("_")
        ]
        self._group.attrs["column-order"] = np.array(plain, h5py.string_dtype())
        self._group.attrs["encoding-type"] = "dataframe"
        self._group.attrs["encoding-version"] = "0.2.0"
        if "_member" in self._columns:
            self._group.attrs["_index"] = "_member"

    def _column(self, link: str, column: StagedColumn) -> tuple[ColumnWriter, StagedColumn]:
        """The column that takes these values: as it is, new with rows without a value before, or rewritten as another type; and the
        values as it takes them."""
        path = f"{self.name}/{link}"
        if link not in self._columns:
            self._columns[link] = create_column(self._writer, path, column, self._writer.layouts.get(self.name))
            self._order.append(link)
            self._columns[link].pad(self.rows)
        elif not self._columns[link].fits(column) and not self._columns[link].fits(column := as_written(column)):
            self._columns[link].flush()
            self._columns[link] = changed_column(self._writer, path, self._columns[link], column)
        return self._columns[link], column


class Writer:
    """Appends staged batches to an open HDF5 file; `flush` writes what is still held in memory."""

    def __init__(
        self, file: h5py.File, compression: Compression, layouts: Mapping[str, PixelLayout], check: Callable[[], None], thread: Executor
    ) -> None:
        """``check`` is called before each chunk, and may raise. ``thread`` deflates numbers while others are written."""
        self.file = file
        self._check = check
        self._thread = thread
        self._coming: deque[tuple[Future[Encoded], Callable[[Encoded], None]]] = deque()
        self.layouts = layouts
        self._compression = compression
        self._tables: dict[str, Table] = {}
        self._checksums: dict[str, dict[int, int]] = {}

    def append(self, staged: StagedFile, bases: Mapping[str, int], joined: Mapping[str, str] | None = None) -> None:
        """Appends a staged batch. ``bases`` gives the rows that references into archives and runs point at.

        In the tables of ``joined`` the batch goes on with the last row: its own one only adds to the count in that column.
        Raises OutputError when a column cannot take the batch's values, such as encoded pictures in a decoded column.
        """
        joined = joined or {}
        rows = {table: self.table(table).rows - (table in joined) for table in staged.tables - bases.keys()}
        for segment in staged.segments():
            if segment.table in joined:
                self.table(segment.table).add_to_last(segment, joined[segment.table])
            else:
                self.table(segment.table).append(segment, staged, {**rows, **bases})

    def table(self, name: str) -> Table:
        """The table of that name; made when it is not there."""
        if name not in self._tables:
            self._tables[name] = Table(self, self.file.require_group(name), name)
        return self._tables[name]

    def flush(self) -> None:
        """Writes everything that is held: numbers, row counts, checksums."""
        for table in self._tables.values():
            table.flush()
        for path, chunks in self._checksums.items():
            self._write_checksums(path, chunks)
        self._checksums.clear()
        self.file.flush()

    def create(self, path: str, tail: tuple[int, ...], dtype: Any, chunks: tuple[int, ...], shuffle: bool) -> h5py.Dataset:
        """An empty dataset that grows along its first axis, with the filters of this output."""
        filters: dict[str, Any] = {}
        if self._compression.filter == "deflate":
            # The level is what HDF5 would use if another program rewrote a chunk; ours come compressed by ISA-L.
            filters = {"compression": "gzip", "compression_opts": 1, "shuffle": shuffle}
        return self.file.create_dataset(path, (0, *tail), dtype, maxshape=(None, *tail), chunks=chunks, **filters)

    def write_chunk(self, dataset: h5py.Dataset, number: int, at: tuple[int, ...], data: Any, mask: int, crc: int | None = None) -> None:
        """Writes one finished chunk, the ``number``-th of its dataset in file order, and notes its checksum."""
        self._check()
        dataset.id.write_direct_chunk(at, data, mask)
        self._checksums.setdefault(dataset.name.lstrip("/"), {})[number] = isal_zlib.crc32(data) if crc is None else crc

    def compress(self, data: bytes) -> tuple[Any, int]:
        """Bytes as a chunk stores them, and the filter mask for a pipeline with one filter."""
        return compressed(memoryview(data), self._compression)

    def write_later(self, encode: Callable[[], Encoded], write: Callable[[Encoded], None]) -> None:
        """Has chunks encoded in another thread, and written here: in the order of the calls, the last of them when all is settled."""
        self._coming.append((self._thread.submit(encode), write))
        if len(self._coming) > _COMING:
            self._write_next()

    def settle(self) -> None:
        """Writes what is still being encoded."""
        while self._coming:
            self._write_next()

    def _write_next(self) -> None:
        encoded, write = self._coming.popleft()
        write(encoded.result())

    def move(self, source: str, target: str) -> None:
        """Renames a column or a dataset, with its checksums. Nothing may be held for it."""
        for prefix in ("", f"{CHECKSUMS}/"):
            if prefix + source in self.file:
                self._rename(prefix + source, prefix + target)
        for path in [path for path in self._checksums if path == source or path.startswith(source + "/")]:
            self._checksums[target + path[len(source) :]] = self._checksums.pop(path)

    def _rename(self, source: str, target: str) -> None:
        # A name may become a folder of itself (x -> x/values), which HDF5 can only do by way of another name.
        self.file.move(source, source + " moving")
        self.file.move(source + " moving", target)

    def remove(self, path: str) -> None:
        """Deletes a column, with its checksums."""
        for prefix in ("", f"{CHECKSUMS}/"):
            if prefix + path in self.file:
                del self.file[prefix + path]
        for pending in [pending for pending in self._checksums if pending == path or pending.startswith(path + "/")]:
            del self._checksums[pending]

    def _write_checksums(self, path: str, chunks: dict[int, int]) -> None:
        name = f"{CHECKSUMS}/{path}"
        if name not in self.file:
            self.create(name, (), "<u4", (SCALAR_CHUNK_BYTES // 4,), shuffle=False)
        dataset = self.file[name]
        numbers, values = np.fromiter(chunks, "<i8", len(chunks)), np.fromiter(chunks.values(), "<u4", len(chunks))
        before, step = len(dataset), dataset.chunks[0]
        dataset.resize(max(int(numbers.max()) + 1, before), axis=0)
        rows = Rows(dataset)
        for first in (np.unique(numbers // step) * step).tolist():
            held = np.zeros(step, "<u4")
            held[: max(before - first, 0)] = rows[first : min(first + step, before)]
            inside = (numbers >= first) & (numbers < first + step)
            held[numbers[inside] - first] = values[inside]
            dataset.id.write_direct_chunk((first,), *self.compress(held.tobytes()))
