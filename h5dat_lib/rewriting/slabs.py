"""Tables of a finished file -> slabs of rows as segments, which `new_file` appends to another file.

Chunks that fit there are taken as they are stored; others are inflated, cut anew and deflated. Each is compared with its recorded
checksum before. In memory are a slab and one picture or piece of a row; chunks of a large row wait on the disk.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import h5py
import numpy as np
from h5py import h5z
from isal import isal_zlib

from h5dat_lib.columns import ARRAY_CHUNK_BYTES, CHUNK_BYTES, FRAMES, TEXT_CHUNK_BYTES, Array
from h5dat_lib.config import Compression
from h5dat_lib.errors import FormatError, OutputError
from h5dat_lib.lineage import ARCHIVES, BATCHES, CHECKSUMS, LINEAGE, MEMBERS, REJECTS, RUNS
from h5dat_lib.plan.layout import PixelLayout
from h5dat_lib.read import browse
from h5dat_lib.read.audit import filters
from h5dat_lib.read.chunked import Rows, fault, recorded
from h5dat_lib.read.columns import Categorical, open_column
from h5dat_lib.read.files import File
from h5dat_lib.read.format import attribute, table_attributes
from h5dat_lib.read.verification import located
from h5dat_lib.stage.pack import ChunkPacker
from h5dat_lib.stage.staged import CHUNK, Segment, StagedCategories, StagedChunks, StagedColumn, StagedScalars

SLAB_BYTES = 8 << 20
"""Bytes of a slab, inflated; one of a single row may be larger."""
_SLAB_ROWS = 1 << 16
_PIECE = 1 << 20
"""Bytes of a row that are in memory at a time when it is cut anew."""
_SPOOL_BYTES = 32 << 20
"""Chunks of a slab that are kept in memory."""
_LINEAGE_TABLES = (RUNS, ARCHIVES, BATCHES, MEMBERS, REJECTS)
ENCODED = ("color", "resize", "profile", "damaged", "vector_size")
"""Attributes of a table that say how its encoded pictures are decoded."""
_WRITTEN = ("rows", "columns", "column-order", "encoding-type", "encoding-version", "_index")
"""Attributes of a table that the writer gives by itself."""

Renumber = Callable[[Array], Array]
Ranges = Sequence[tuple[int, int]]
"""Rows from the first to before the second, in order."""


class Spool:
    """The finished chunks of one slab; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(folder))  # noqa: SIM115  # closed on leaving
        self._at = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self._at

    def blob(self, data: bytes | memoryview) -> int:
        at = self._at
        self._file.seek(at)
        self._file.write(data)
        self._at += len(data)
        return at

    def chunk(self, at: int, size: int) -> memoryview:
        self._file.seek(at)
        return memoryview(self._file.read(size))

    def clear(self) -> None:
        """Forgets all chunks."""
        self._at = 0
        if self._file.tell() > _SPOOL_BYTES:
            self._file.truncate(0)


@dataclass(frozen=True)
class Target:
    """What becomes of columns: the filter, the layouts of pixels by table, and the tables whose encoded pictures are decoded.

    ``texts_anew`` joins texts that lie apart. With ``all_anew`` every chunk is deflated again.
    """

    compression: Compression
    layouts: Mapping[str, PixelLayout]
    decoded: frozenset[str] = frozenset()
    texts_anew: bool = False
    all_anew: bool = False


def tables(file: File) -> list[str]:
    """All tables of a file: lineage, classes, and what lies below them. Raises FormatError for datasets that are of no table."""
    parts = ("", f"/{FRAMES}", "/_pairs", "/_keys")
    found = [*_LINEAGE_TABLES, *(f"{name}{part}" for name in file.classes for part in parts)]
    names = [name for name in found if name in file]
    _refuse_others(file, names)
    return names


def _refuse_others(file: File, names: Sequence[str]) -> None:
    """What others have put into a file would be lost unseen."""
    own = {f"{name}/{link}" for name in names for link in table_attributes(file.hdf5[name])[1]} | {CHECKSUMS}
    for item in browse.items(file.hdf5):
        parts = item.path.strip("/").split("/")
        if item.kind == "dataset" and not any("/".join(parts[:depth]) in own for depth in range(1, len(parts) + 1)):
            raise FormatError(
                f"{file.path}: found the dataset {item.path}, expected columns of tables only; copy it elsewhere and delete it"
            )


def numbers_of(file: File, table: str, link: str) -> Rows:
    """The rows of a column of numbers that every such table has. Raises FormatError when it is not there."""
    if link not in file.hdf5[table]:
        raise fault(file.hdf5[table], f"no column {link!r}", "one")
    return Rows(file.hdf5[table][link], file.handle)


def table_of_references(file: File, table: str, link: str) -> str | None:
    """The table whose rows the numbers of a column are; None where they are just numbers."""
    if link == "_member":
        return MEMBERS
    if table.startswith(f"{LINEAGE}/"):
        return {"archive": ARCHIVES, "retry_of": ARCHIVES, "run": RUNS, "batch": BATCHES}.get(link)
    owner, _, last = table.rpartition("/")
    if last == "_pairs":
        return {"row": owner, "key": f"{owner}/_keys"}.get(link)
    if last == FRAMES and owner in file and link == "video":
        return owner
    return f"{table}/{FRAMES}" if link == "first" and f"{table}/{FRAMES}" in file else None


def attributes_of(file: File, table: str) -> dict[str, Any]:
    """What is said of the rows of a table, by whomever; not what the writer notes of any table."""
    return {name: attribute(file.hdf5[table], name) for name in file.hdf5[table].attrs if name not in _WRITTEN}


def undecoded(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a table without those of encoded pictures."""
    return {name: value for name, value in attributes.items() if name not in ENCODED}


class Slabs:
    """The rows of one table, to be gone through once, in order."""

    def __init__(self, file: File, name: str, target: Target, renumber: Mapping[str, Renumber], attributes: Mapping[str, Any]) -> None:
        """``renumber`` gives new numbers for the rows of the tables that are referred to; ``attributes`` are those of the new table."""
        self._name, self._attributes = name, attributes
        self.rows, links = table_attributes(file.hdf5[name])
        self._columns = {link: _column(file, name, link, target, renumber) for link in links}

    def segments(self, ranges: Ranges, spool: Spool) -> Iterator[Segment]:
        """Segments of the rows in some ranges; the chunks of each are in the spool until the next is asked for."""
        for first, last in self._cut(ranges):
            spool.clear()
            yield Segment(
                self._name,
                last - first,
                {link: column.staged(first, last, spool) for link, column in self._columns.items()},
                self._attributes,
            )

    def _cut(self, ranges: Ranges) -> Iterator[tuple[int, int]]:
        most = min(_SLAB_ROWS, max(SLAB_BYTES // max(sum(column.row_bytes for column in self._columns.values()), 1), 1))
        if not self.rows:  # its columns are there all the same
            yield 0, 0
        for first, last in ranges:
            while first < last:
                end = min(column.end(first, min(first + most, last)) for column in self._columns.values())
                yield first, end
                first = end


class _Column(Protocol):
    row_bytes: int
    """Bytes of a value, where all have as many."""

    def end(self, first: int, last: int) -> int:
        """The row before which a slab that begins with ``first`` has to end."""
        ...

    def staged(self, first: int, last: int, spool: Spool) -> StagedColumn: ...


class _Stored:
    """The chunks of a dataset as they are stored, in order, each compared with its recorded checksum when it is first read."""

    def __init__(self, file: File, path: str) -> None:
        self.rows = Rows(file.hdf5[path], file.handle)
        self.dataset: h5py.Dataset = self.rows.dataset
        self.filters = filters(self.dataset.id.get_create_plist())
        self._file, self._path = file, path
        self._recorded = recorded(file.hdf5, path)
        self._next = 0
        if self.dataset.chunks is None:
            raise fault(self.dataset, "no chunks", "a dataset that is chunked")
        self.grid = tuple(-(-size // step) for size, step in zip(self.dataset.shape, self.dataset.chunks, strict=True))
        if len(self._recorded) != math.prod(self.grid):
            raise fault(self.dataset, f"{len(self._recorded)} checksums", f"one for each of {math.prod(self.grid)} chunks")

    @property
    def chunk_bytes(self) -> int:
        return int(math.prod(self.dataset.chunks) * self.dataset.dtype.itemsize)

    def take(self, number: int) -> tuple[int, bytes, int]:
        """Filter mask, bytes and CRC-32 of a chunk."""
        grid = np.unravel_index(number, self.grid)
        place = tuple(int(at) * step for at, step in zip(grid, self.dataset.chunks, strict=True))
        try:
            mask, data = self.dataset.id.read_direct_chunk(place)
        except (OSError, RuntimeError, ValueError, MemoryError) as exc:  # h5py says MemoryError of a chunk that is not there
            raise self._damaged(place[0], f"cannot be read: {exc}") from exc
        crc, expected = isal_zlib.crc32(data), int(self._recorded[number])
        if crc != expected:
            raise self._damaged(place[0], f"found CRC {crc:08x}, expected {expected:08x}")
        return mask, data, crc

    def checked(self, first: int, last: int) -> Array:
        """Rows, from chunks that are as they were written."""
        pieces = math.prod(self.grid[1:])
        self.check(first // self.dataset.chunks[0] * pieces, -(-last // self.dataset.chunks[0]) * pieces)
        values: Array = self.rows[first:last]
        return values

    def check(self, first: int, last: int) -> None:
        """Compares chunks by their numbers, ``last`` not included. Raises FormatError for one that is damaged, with its row and member."""
        for number in range(max(first, self._next), last):
            self.take(number)
        self._next = max(self._next, last)

    def copy(self, first: int, last: int, spool: Spool) -> Array:
        """Puts chunks into the spool as they are; a table of `CHUNK`s."""
        chunks = [(spool.blob(data), len(data), mask, crc) for mask, data, crc in map(self.take, range(first, last))]
        return np.array(chunks, CHUNK)

    def _damaged(self, row: int, reason: str) -> FormatError:
        found = located(self._file, self._path, self.dataset, row, reason)
        rows = f"row {found.first}" if found.first == found.last else f"rows {found.first} to {found.last}"
        member = f" ({found.member})" if found.member else ""
        return FormatError(
            f"{self._file.path}: {found.table}, column {found.column!r}, {rows}{member}: {reason}; nothing is written: "
            "make the file anew, or take it from where it is whole"
        )


@dataclass(frozen=True)
class _Goal:
    """How the values of a column are to be cut into chunks.

    Nothing is copied that is to be made ``anew``. ``pixels`` is the layout of the column, of pictures.
    """

    layout: Literal["text", "bytes", "encoded", "pixels", "arrays"]
    chunk_bytes: int
    compression: Compression
    anew: bool
    pixels: PixelLayout | None = None

    @property
    def aligned(self) -> bool:
        return self.layout in ("pixels", "arrays")

    @property
    def pieces(self) -> int:
        """Chunks of each value, in a dense column."""
        return -(-self.pixels.shape[0] // self.pixels.chunk_height) if self.pixels and self.pixels.shape else 0

    def takes(self, stored: _Stored) -> bool:
        """Whether chunks fit as they are."""
        pipeline = (h5z.FILTER_DEFLATE,) if self.compression.filter == "deflate" else ()
        return not self.anew and (stored.chunk_bytes, stored.filters) == (self.chunk_bytes, pipeline)

    def packer(self, spool: Spool) -> ChunkPacker:
        return ChunkPacker(spool, self.chunk_bytes, self.compression, raw=self.layout == "encoded")


class _Fixed:
    """What columns whose values are all of one size share."""

    row_bytes = 0

    def end(self, first: int, last: int) -> int:
        return last


class _Scalars(_Fixed):
    """Numbers, dates and short strings."""

    def __init__(self, file: File, path: str, renumber: Renumber | None) -> None:
        item = file.hdf5[path]
        nullable = isinstance(item, h5py.Group)
        self._values = _Stored(file, f"{path}/values" if nullable else path)
        self._mask = _Stored(file, f"{path}/mask") if nullable else None
        self._renumber = renumber
        stored = self._values.dataset
        unit = attribute(stored, "unit")
        self._date = np.dtype(f"<M8[{unit}]") if unit else None
        self._form = str(attribute(stored, "form", ""))
        self.row_bytes = self._values.rows.row_bytes

    def staged(self, first: int, last: int, spool: Spool) -> StagedScalars:
        values = self._values.checked(first, last)
        missing = self._mask.checked(first, last) if self._mask else None
        if self._renumber:
            values = values if missing is None else np.where(missing, 0, values)
            new = self._renumber(values).astype(values.dtype)
            values = new if missing is None else np.where(missing, 0, new).astype(values.dtype)
        return StagedScalars(values.view(self._date) if self._date else values, missing, "", self._form)


class _Categories(_Fixed):
    """Codes, and of the names those that the slab uses."""

    row_bytes = 4

    def __init__(self, file: File, path: str, column: Categorical) -> None:
        self._codes = _Stored(file, f"{path}/codes")
        self._item = file.hdf5[path]
        names = [name.encode() for name in column.categories]
        self._names = np.array(names, f"S{max(map(len, names), default=1) or 1}")
        for part in ("", "/values", "/offset", "/length"):  # as they lie plain or as text
            if isinstance(found := self._item.get(f"categories{part}"), h5py.Dataset):
                _Stored(file, f"{path}/categories{part}").checked(0, len(found))

    def staged(self, first: int, last: int, spool: Spool) -> StagedCategories:
        codes = self._codes.checked(first, last)
        if np.min(codes, initial=0) < -1 or np.max(codes, initial=-1) >= len(self._names):
            raise fault(self._item, f"codes {np.min(codes)} to {np.max(codes)}", f"-1 to {len(self._names) - 1}")
        used, places = np.unique(codes, return_inverse=True)
        skipped = int(bool(len(used)) and used[0] < 0)
        return StagedCategories((places - skipped).astype("<i4"), self._names[used[skipped:]])


class _Bytes:
    """Values one after the other: texts, files, arrays of any shape."""

    row_bytes = 0

    def __init__(self, file: File, path: str, goal: _Goal) -> None:
        item = file.hdf5[path]
        self._item, self._goal = item, goal
        self._values = _Stored(file, f"{path}/values")
        self._parts = {name: _Stored(file, f"{path}/{name}") for name in ("offset", "length", "shape", "dtype", "mask") if name in item}
        self._size = len(self._values.rows)
        self._copies = goal.takes(self._values)
        self._last = -1
        """The row before which the last slab ended, when its chunks were copied..."""
        self._floor = 0
        """...the byte before which its values ended..."""
        self._chunk = 0
        """...and the chunk that comes next."""

    def end(self, first: int, last: int) -> int:
        lengths = self._parts["length"].checked(first, last)
        if (lengths > self._size).any():
            raise fault(self._item, f"a row of {lengths.max()} bytes", f"at most {self._size}")
        return first + max(int(np.searchsorted(np.cumsum(lengths), SLAB_BYTES, "right")), 1)

    def staged(self, first: int, last: int, spool: Spool) -> StagedChunks:
        parts = {name: part.checked(first, last) for name, part in self._parts.items()}
        missing, lengths = parts.get("mask"), parts["length"]
        offsets = self._in_order(first, parts["offset"], lengths, missing)
        lengths = lengths if missing is None else np.where(missing, 0, lengths).astype("<u8")
        staged = self._copied(first, last, offsets, lengths, spool) or self._packed(offsets, lengths, spool)
        return StagedChunks(self._goal.layout, self._goal.chunk_bytes, *staged, lengths, parts.get("shape"), parts.get("dtype"), missing)

    def _in_order(self, first: int, offsets: Array, lengths: Array, missing: Array | None) -> Array:
        """Where rows start, a missing one where the one before does. Raises FormatError for rows that overlap, or end behind the values."""
        present = np.ones(len(offsets), bool) if missing is None else ~missing
        starts, ends = offsets[present], (offsets + lengths)[present]
        floor = np.uint64(self._floor if first == self._last else 0)
        if (starts[1:] < ends[:-1]).any() or (starts[:1] < floor).any() or (starts > self._size).any() or (ends > self._size).any():
            raise fault(self._item, "rows whose bytes overlap or lie outside", f"them in order within {self._size}")
        return np.maximum.accumulate(np.where(present, offsets, max(floor, starts[0] if len(starts) else floor))).astype("<u8")

    def _copied(self, first: int, last: int, offsets: Array, lengths: Array, spool: Spool) -> tuple[Array, Array] | None:
        """The chunks as they are, and where rows start in them; None where they do not begin with a chunk, or do not fit."""
        size, goes_on = self._goal.chunk_bytes, first == self._last
        held = np.flatnonzero(lengths)
        if not self._copies or not len(held):
            return None
        begin, end = int(offsets[held[0]]), int(offsets[held[-1]] + lengths[held[-1]])
        if not goes_on:
            if begin % size:
                return None
            self._chunk = begin // size
        if self._goal.pieces and (offsets != begin + np.arange(len(offsets), dtype="<u8") * np.uint64(self._goal.pieces * size)).any():
            return None
        start, stop = self._chunk, -(-end // size)
        chunks = self._values.copy(start, stop, spool)
        self._last, self._floor, self._chunk = last, end, stop
        # A row that begins in a chunk of the slab before lies before this slab's first: by the wrap of uint64, the writer's sum is right.
        return chunks, np.clip(offsets, np.uint64(begin), np.uint64(stop * size)) - np.uint64(start * size)

    def _packed(self, offsets: Array, lengths: Array, spool: Spool) -> tuple[Array, Array]:
        """The bytes cut anew, those of neighbours at once where rows need not begin with a chunk."""
        self._last = -1
        packer, starts = self._goal.packer(spool), np.empty(len(offsets), "<u8")
        ends = offsets + lengths
        begins = np.ones(len(offsets), bool)
        if not self._goal.aligned:
            begins[1:] = (offsets[1:] != ends[:-1]) & (lengths[1:] > 0)
            ends = np.maximum.accumulate(ends)
        rows = np.flatnonzero(begins).tolist()
        for row, after in zip(rows, [*rows[1:], len(offsets)], strict=True):
            at, end = int(offsets[row]), int(ends[after - 1])
            starts[row:after] = np.maximum(offsets[row:after], np.uint64(at)) - np.uint64(at) + np.uint64(packer.position)
            self._check(at, end)
            for begin in range(at, end, _PIECE):
                packer.add(self._values.rows.span(begin, min(_PIECE, end - begin)))
            if self._goal.aligned:
                packer.fill()
        return packer.finish(), starts

    def _check(self, begin: int, end: int) -> None:
        size = self._values.chunk_bytes
        self._values.check(begin // size, -(-end // size) if end > begin else 0)

    def check(self, first: int, last: int) -> None:
        """Raises FormatError when a chunk of these rows is damaged."""
        parts = {name: part.checked(first, last) for name, part in self._parts.items()}
        offsets = self._in_order(first, parts["offset"], parts["length"], parts.get("mask"))
        for at, size in zip(offsets.tolist(), parts["length"].tolist(), strict=True):
            self._check(at, at + size)


class _Dense(_Fixed):
    """Pictures of one shape."""

    def __init__(self, file: File, path: str, goal: _Goal) -> None:
        self._values = _Stored(file, path)
        self._goal = goal
        self.row_bytes = self._values.rows.row_bytes
        self._copies = goal.takes(self._values)

    def staged(self, first: int, last: int, spool: Spool) -> StagedChunks:
        rows, shape = last - first, self._values.dataset.shape[1:]
        pieces = math.prod(self._values.grid[1:])
        if self._copies:
            chunks = self._values.copy(first * pieces, last * pieces, spool)
            starts = np.arange(rows, dtype="<u8") * np.uint64(pieces * self._goal.chunk_bytes)
        else:
            chunks, starts = _cut(self._values.checked(first, last), self._goal.packer(spool))
        return _pictures(self._goal, chunks, starts, [shape] * rows, [self._values.dataset.dtype.str] * rows)


class _Decoded:
    """Encoded pictures, as pixels."""

    row_bytes = 0

    def __init__(self, file: File, table: str, goal: _Goal) -> None:
        self._stored = _Bytes(file, f"{table}/pixels", goal)
        self._file, self._table, self._goal = file, table, goal
        self._column = file[table]["pixels"]

    def end(self, first: int, last: int) -> int:
        return self._stored.end(first, last)

    def staged(self, first: int, last: int, spool: Spool) -> StagedChunks:
        self._stored.check(first, last)
        packer, starts, shapes, dtypes = self._goal.packer(spool), [], [], []
        for row in range(first, last):
            pixels: Array | None = self._column[row]
            starts.append(packer.position)
            shapes.append(pixels.shape if pixels is not None else (0, 0, 0))
            dtypes.append(pixels.dtype.str if pixels is not None else "")
            if pixels is not None:
                self._check_shape(row, pixels)
                packer.add_aligned(np.ascontiguousarray(pixels).reshape(-1).view("u1").data)
        return _pictures(self._goal, packer.finish(), np.array(starts, "<u8"), shapes, dtypes)

    def _check_shape(self, row: int, pixels: Array) -> None:
        layout = self._goal.pixels
        if layout and layout.strict and (pixels.shape, pixels.dtype.str) != (layout.shape, layout.dtype):
            raise other_shape(self._file, self._table, row, pixels.shape, pixels.dtype.str, layout)


def other_shape(file: File, table: str, row: int, shape: tuple[int, ...], dtype: str, layout: PixelLayout) -> OutputError:
    """The error for a picture that does not fit a dense column."""
    return OutputError(
        f"{file.path}: {file[table].named(row)}: found {shape} {np.dtype(dtype)}, expected {layout.shape} {np.dtype(layout.dtype)} as of "
        "the others in a dense column; use layout ragged"
    )


def _cut(values: Array, packer: ChunkPacker) -> tuple[Array, Array]:
    starts = []
    for value in values:
        starts.append(packer.position)
        packer.add_aligned(np.ascontiguousarray(value).reshape(-1).view("u1").data)
    return packer.finish(), np.array(starts, "<u8")


def _pictures(goal: _Goal, chunks: Array, starts: Array, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> StagedChunks:
    shape, dtype = np.array(shapes, "<u4").reshape(len(shapes), 3), np.array(dtypes, "S4")
    lengths = [math.prod(shape) * (np.dtype(name).itemsize if name else 0) for shape, name in zip(shapes, dtypes, strict=True)]
    missing = dtype == b""
    return StagedChunks(
        "pixels", goal.chunk_bytes, chunks, starts, np.array(lengths, "<u8"), shape, dtype, missing if missing.any() else None
    )


def _column(file: File, name: str, link: str, target: Target, renumber: Mapping[str, Renumber]) -> _Column:
    group, path = file.hdf5[name], f"{name}/{link}"
    if link not in group:
        raise fault(group, f"no column {link!r}", "one, as its attribute `columns` says")
    column = open_column(group[link], group)  # which checks that it is as docs/format.md has it
    if isinstance(column, Categorical):
        return _Categories(file, path, column)
    if column.layout in ("plain", "nullable"):
        return _Scalars(file, path, renumber.get(table_of_references(file, name, link) or ""))
    goal = _goal(name, link, column.layout, target)
    if column.layout == "dense":
        return _Dense(file, path, goal)
    return _Decoded(file, name, goal) if (column.layout, goal.layout) == ("encoded", "pixels") else _Bytes(file, path, goal)


def _goal(name: str, link: str, layout: str, target: Target) -> _Goal:
    how = target.compression
    if layout == "text":
        return _Goal("text", TEXT_CHUNK_BYTES, how, target.texts_anew or target.all_anew)
    if layout == "bytes":
        return _Goal("bytes", CHUNK_BYTES, how, target.all_anew)
    if layout == "encoded" and name not in target.decoded:
        return _Goal("encoded", CHUNK_BYTES, how, target.all_anew)
    pixels = target.layouts.get(name)
    if link != "pixels" or pixels is None:
        return _Goal("arrays", ARRAY_CHUNK_BYTES, how, target.all_anew)
    return _Goal("pixels", pixels.chunk_bytes, how, target.all_anew, pixels)
