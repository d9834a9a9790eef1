"""Blocks of rows -> segments of finished chunks: the heavy half of writing, done in the workers.

Bytes and pictures are cut and compressed here; numbers are collected as arrays, because only the writer knows where in a
chunk the next row falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import numpy as np
from isal import isal_zlib

from h5dat_lib.columns import (
    ARRAY_CHUNK_BYTES,
    CHUNK_BYTES,
    MOST_CATEGORIES,
    STRING_BYTES,
    TEXT_CHUNK_BYTES,
    Array,
    Arrays,
    Block,
    Bytes,
    Categories,
    Column,
    Pairs,
    Pieces,
    References,
    Scalars,
    Strings,
    Untyped,
    link_name,
)
from h5dat_lib.config import Compression
from h5dat_lib.errors import MemberError
from h5dat_lib.plan.layout import PixelLayout
from h5dat_lib.stage.staged import CHUNK, Blobs, Segment, StagedCategories, StagedChunks, StagedColumn, StagedScalars, StageWriter

SEGMENT_BYTES = 1 << 20
"""Memory that the numbers of a class may take before they are written to the staged file as a segment."""
# What Python holds for a value until then: list entries, integers, tuples.
_SCALAR_BYTES, _CODE_BYTES, _UNTYPED_BYTES, _VALUE_BYTES, _PICTURE_BYTES, _PAIR_BYTES = 16, 16, 64, 100, 450, 64


_MANY_STRINGS = 4096
"""Strings that are worth to load Arrow for."""


class ChunkPacker:
    """Cuts bytes into chunks of one size, compresses them and writes them to where they are staged.

    A chunk that deflate does not make smaller is stored as it is, which HDF5's filter mask says of it. ``raw`` does not
    even try, for bytes that are compressed already.
    """

    def __init__(self, out: Blobs, chunk_bytes: int, compression: Compression, raw: bool = False) -> None:
        self.chunk_bytes = chunk_bytes
        self._out = out
        self._compression = compression
        self._raw = raw
        self._skip_filter = 1 if compression.filter == "deflate" else 0
        self._open = bytearray()
        self._chunks: list[tuple[int, int, int, int]] = []

    @property
    def position(self) -> int:
        """Bytes added so far, with what filled up chunks."""
        return len(self._chunks) * self.chunk_bytes + len(self._open)

    def add(self, data: bytes | memoryview) -> None:
        """Appends bytes behind the ones before."""
        if len(self._open) + len(data) < self.chunk_bytes:
            self._open += data
            return
        rest = memoryview(data)
        if self._open:
            missing = self.chunk_bytes - len(self._open)
            self._emit(memoryview(bytes(self._open) + rest[:missing]), self._raw)
            self._open.clear()
            rest = rest[missing:]
        self._open += self._emit_whole(rest)

    def _emit_whole(self, data: memoryview) -> memoryview:
        """Writes all whole chunks of ``data`` without copying them, and returns what is left of it."""
        whole = len(data) // self.chunk_bytes * self.chunk_bytes
        for at in range(0, whole, self.chunk_bytes):
            self._emit(data[at : at + self.chunk_bytes], self._raw)
        return data[whole:]

    def add_aligned(self, data: memoryview) -> None:
        """Appends bytes that start on a chunk of their own; the last chunk is filled up with zeros."""
        self._open += self._emit_whole(data)
        self.fill()

    def fill(self) -> None:
        """Fills up the open chunk with zeros, if there is one."""
        if self._open:
            full = bytes(self._open).ljust(self.chunk_bytes, b"\0")
            self._open.clear()
            self._emit(memoryview(full), raw=False)

    def finish(self) -> Array:
        """All chunks, as a table of `CHUNK`s."""
        self.fill()
        chunks = np.array(self._chunks, CHUNK)
        self._chunks = []
        return chunks

    def _emit(self, data: memoryview, raw: bool) -> None:
        stored, mask = (data, self._skip_filter) if raw else compressed(data, self._compression)
        self._chunks.append((self._out.blob(stored), len(stored), mask, isal_zlib.crc32(stored)))


def compressed(data: memoryview, compression: Compression) -> tuple[bytes | memoryview, int]:
    """Bytes as one chunk stores them, and HDF5's filter mask (1: the first filter was left out)."""
    if compression.filter == "none":
        return data, 0
    deflated = isal_zlib.compress(data, compression.level)
    return (deflated, 0) if len(deflated) < len(data) else (data, 1)


class _ScalarPacker:
    """Collects numbers; those that come one by one as plain values, which take an eighth of the memory of arrays of one."""

    def __init__(self, first: Scalars | References) -> None:
        self._dtype = first.dtype
        self._reference = first.table if isinstance(first, References) else ""
        self._form = first.form if isinstance(first, Scalars) else ""
        self._loose: list[Any] = []
        self._values: list[Array] = []
        self._missing: list[Array | None] = []

    def add(self, column: Any) -> int:
        missing = getattr(column, "missing", None)
        if missing is None and not isinstance(column.values, np.ndarray):
            self._loose.extend(column.values)
            return _SCALAR_BYTES * len(column.values)
        self._settle()
        values = np.asarray(column.values, self._dtype)
        self._values.append(values)
        self._missing.append(missing)
        return values.nbytes

    def _settle(self) -> None:
        if self._loose:
            self._values.append(np.array(self._loose, self._dtype))
            self._missing.append(None)
            self._loose.clear()

    def finish(self) -> StagedColumn:
        self._settle()
        values = np.concatenate(self._values) if self._values else np.empty(0, self._dtype)
        return StagedScalars(values, _joined_masks(self._missing, self._values), self._reference, self._form)


class _StringPacker:
    """Collects strings; fixed-length when they are short, text when one is long or holds a NUL."""

    def __init__(self, text: ChunkPacker) -> None:
        self._text = text
        self._data: list[bytes] = []
        self._lengths: list[Array] = []
        self._missing: list[Array | None] = []

    def add(self, column: Any) -> int:
        self._data.append(column.data)
        self._lengths.append(np.asarray(column.lengths, "<u8"))
        self._missing.append(column.missing)
        return len(column.data) + self._lengths[-1].nbytes

    def finish(self) -> StagedColumn:
        data, lengths = b"".join(self._data), np.concatenate(self._lengths)
        missing = _joined_masks(self._missing, self._lengths)
        width = int(lengths.max(initial=1))
        if width <= STRING_BYTES and b"\0" not in data:
            return StagedScalars(_fixed_strings(data, lengths, width), missing)
        self._text.add(data)
        return StagedChunks("text", self._text.chunk_bytes, self._text.finish(), _starts(lengths), lengths, None, None, missing)


class _CategoryPacker:
    """Collects strings as codes, and the names of this segment; strings after all when they are no names."""

    def __init__(self, text: ChunkPacker) -> None:
        self._text = text
        self._codes: list[int] = []
        self._names: dict[str, int] = {}

    def add(self, column: Any) -> int:
        names = self._names
        self._codes.extend(-1 if value is None else names.setdefault(value, len(names)) for value in column.values)
        return _CODE_BYTES * len(column.values)

    def finish(self) -> StagedColumn:
        codes, names = np.array(self._codes, "<i4"), [name.encode("utf-8", "backslashreplace") for name in self._names]
        width = max(map(len, names), default=1)
        if width <= STRING_BYTES and len(names) <= MOST_CATEGORIES and not any(b"\0" in name for name in names):
            return StagedCategories(codes, np.array(names, f"S{max(width, 1)}"))
        values = [names[code] if code >= 0 else b"" for code in self._codes]
        strings = _StringPacker(self._text)
        strings.add(Strings(b"".join(values), np.fromiter(map(len, values), "<u8", len(values)), codes < 0))
        return strings.finish()


class _BytesPacker:
    def __init__(self, first: Bytes, chunks: ChunkPacker) -> None:
        self._layout = first.layout
        self._chunks = chunks
        self._lengths: list[int] = []

    def add(self, column: Any) -> int:
        for value in column.values:
            self._chunks.add(value)
            self._lengths.append(len(value))
        return _VALUE_BYTES * len(column.values)

    def finish(self) -> StagedColumn:
        lengths = np.array(self._lengths, "<u8")
        return StagedChunks(self._layout, self._chunks.chunk_bytes, self._chunks.finish(), _starts(lengths), lengths, None, None, None)


class _ArrayPacker:
    """Cuts arrays into chunks, each array starting on one of its own; ``layout`` is that of pictures, None for others."""

    def __init__(self, layout: PixelLayout | None, chunks: ChunkPacker) -> None:
        self._layout = layout
        self._chunks = chunks
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._dtypes: list[str] = []

    def check(self, column: Arrays) -> None:
        """Raises MemberError for a picture that a strictly dense column cannot hold."""
        layout = self._layout
        if layout is None or not layout.strict:
            return
        for value in column.values:
            if not isinstance(value, Pieces) and (value.shape, value.dtype.str) != (layout.shape, layout.dtype):
                raise MemberError(
                    f"other shape: found {value.shape} {value.dtype}, expected {layout.shape} {np.dtype(layout.dtype)} as in the dense "
                    "column; set resize, color or layout = ragged",
                    "stage",
                )

    def add(self, column: Any) -> int:
        for value in column.values:
            start = self._chunks.position
            dtype, shape = self._add_pieces(value) if isinstance(value, Pieces) else self._add_whole(value)
            self._offsets.append(start)
            self._lengths.append(math.prod(shape) * np.dtype(dtype).itemsize)
            self._shapes.append(shape)
            self._dtypes.append(dtype)
        return _PICTURE_BYTES * len(column.values)

    def _add_whole(self, value: Array) -> tuple[str, tuple[int, ...]]:
        self._chunks.add_aligned(np.ascontiguousarray(value).reshape(-1).view("u1").data)
        return value.dtype.str, value.shape

    def _add_pieces(self, value: Pieces) -> tuple[str, tuple[int, ...]]:
        rows = 0
        try:
            for part in value.parts:
                self._chunks.add(np.ascontiguousarray(part, value.dtype).reshape(-1).view("u1").data)
                rows += len(part)
        finally:
            self._chunks.fill()
        return value.dtype, (rows, *value.tail)

    def finish(self) -> StagedColumn:
        return StagedChunks(
            "pixels" if self._layout else "arrays",
            self._chunks.chunk_bytes,
            self._chunks.finish(),
            np.array(self._offsets, "<u8"),
            np.array(self._lengths, "<u8"),
            np.array(self._shapes, "<u4").reshape(len(self._shapes), -1),
            np.array(self._dtypes, "S4"),
            None,
        )


class _PairPacker:
    """Key/value pairs of a table, as two tables beside it: the distinct keys of the batch, and the pairs."""

    def __init__(self, table: str, values: ChunkPacker, keys: ChunkPacker) -> None:
        self._table = table
        self._values = values
        self._keys = keys
        self._codes: dict[str, int] = {}
        self._written_keys = 0
        self._rows: list[Array] = []
        self._code_parts: list[Array] = []
        self._types: list[Array] = []
        self._lengths: list[int] = []

    def add(self, pairs: Pairs, first_row: int) -> int:
        codes = self._codes
        self._rows.append((np.asarray(pairs.rows, "<i8") + first_row).astype("<u8"))
        self._code_parts.append(np.array([codes.setdefault(key, len(codes)) for key in pairs.keys], "<u8"))
        self._types.append(np.asarray(pairs.types, "|u1"))
        self._values.add(b"".join(pairs.values))
        self._lengths.extend(map(len, pairs.values))
        return _PAIR_BYTES * len(pairs.keys)

    def segments(self) -> Iterator[Segment]:
        if not self._rows:
            return
        lengths = np.array(self._lengths, "<u8")
        columns: dict[str, StagedColumn] = {
            "row": StagedScalars(np.concatenate(self._rows), None, self._table),
            "key": StagedScalars(np.concatenate(self._code_parts), None, f"{self._table}/_keys"),
            "value": _text_column(self._values, lengths),
            "type": StagedScalars(np.concatenate(self._types), None),
        }
        yield Segment(f"{self._table}/_pairs", len(lengths), columns, {})
        yield from self._new_keys()
        self._rows, self._code_parts, self._types, self._lengths = [], [], [], []

    def _new_keys(self) -> Iterator[Segment]:
        last_first = islice(reversed(self._codes), len(self._codes) - self._written_keys)  # all others are not gone through again
        new = [key.encode("utf-8", "backslashreplace") for key in last_first][::-1]
        self._written_keys = len(self._codes)
        if new:
            self._keys.add(b"".join(new))
            lengths = np.array([len(key) for key in new], "<u8")
            yield Segment(f"{self._table}/_keys", len(new), {"key": _text_column(self._keys, lengths)}, {})


class TablePacker:
    """Packs the blocks of one table into segments; a new one starts where the kind of a column changes.

    ``rows`` counts what was added, for references to this batch's rows. The members a segment is of are added by ``add``'s
    caller as an ordinary column.
    """

    def __init__(self, table: str, out: StageWriter, compression: Compression, layout: PixelLayout | None = None) -> None:
        self.rows = 0
        self._table = table
        self._out = out
        self._compression = compression
        self._layout = layout or PixelLayout(TEXT_CHUNK_BYTES)
        self._packers: dict[str, Any] = {}
        self._signature: tuple[Any, ...] = ()
        self._attributes: dict[str, Any] = {}
        self._pairs = _PairPacker(table, self._chunks(TEXT_CHUNK_BYTES), self._chunks(TEXT_CHUNK_BYTES))
        self._sealed = 0
        self._blocks = 0
        self._held = 0
        self._untyped: list[Untyped] = []

    def add(self, block: Block) -> None:
        """Appends a block's rows. Raises MemberError, and adds nothing, when a picture does not fit a dense column, or pieces fail."""
        kinds = ((name, type(column), _KIND[type(column)](column)) for name, column in block.columns.items())
        signature = (*kinds, block.untyped and block.untyped.columns)
        if signature != self._signature:
            self.seal()
            self._packers = {name: self._packer(column) for name, column in block.columns.items()}
            self._signature = signature
        arrays = [(name, column) for name, column in block.columns.items() if isinstance(column, Arrays)]
        for name, column in arrays:
            self._packers[name].check(column)
        # First what comes in pieces, which may fail.
        for name, column in sorted(arrays, key=lambda entry: not _is_in_pieces(entry[1])):
            self._held += self._packers[name].add(column)
        for name, other in block.columns.items():
            if not isinstance(other, Arrays):
                self._held += self._packers[name].add(other)
        if block.untyped is not None:
            self._untyped.append(block.untyped)
            self._held += _UNTYPED_BYTES * sum(map(len, block.untyped.rows))
        if block.pairs is not None and block.pairs.keys:
            self._held += self._pairs.add(block.pairs, self.rows)
        self.rows += block.rows
        self._blocks += 1
        self._attributes.update(block.attributes)
        if self._held > SEGMENT_BYTES:
            self.seal()

    def seal(self) -> None:
        """Writes what was collected as a segment."""
        if self._blocks and self._packers and (self.rows > self._sealed or not self.rows):  # a first block may name columns only
            self._decide_types()
            columns = {link_name(name) if name != "_member" else name: packer.finish() for name, packer in self._packers.items()}
            self._out.add(Segment(self._table, self.rows - self._sealed, columns, self._attributes))
        for segment in self._pairs.segments():
            self._out.add(segment)
        self._packers, self._signature, self._sealed, self._blocks, self._held = {}, (), self.rows, 0, 0

    def take_back(self, rows: int) -> None:
        """Forgets all rows but the first so many, at which the table was sealed; they had no pairs."""
        self._packers, self._signature, self._blocks, self._held = {}, (), 0, 0
        self._untyped.clear()
        self.rows = self._sealed = rows

    def _decide_types(self) -> None:
        if not self._untyped:
            return
        columns = self._untyped[0].columns([row for untyped in self._untyped for row in untyped.rows])
        self._untyped.clear()
        for name, column in columns.items():
            self._packers[name] = self._packer(column)
            self._packers[name].add(column)

    def _packer(self, column: Column) -> Any:
        return _PACKERS[type(column)](self, column)

    def _chunks(self, chunk_bytes: int, raw: bool = False) -> ChunkPacker:
        return ChunkPacker(self._out, chunk_bytes, self._compression, raw)

    def _bytes_packer(self, column: Bytes) -> _BytesPacker:
        encoded = column.layout == "encoded"
        return _BytesPacker(column, self._chunks(TEXT_CHUNK_BYTES if column.layout == "text" else CHUNK_BYTES, raw=encoded))

    def _array_packer(self, column: Arrays) -> _ArrayPacker:
        layout = self._layout if column.pictures else None
        return _ArrayPacker(layout, self._chunks(layout.chunk_bytes if layout else ARRAY_CHUNK_BYTES))

    def _string_packer(self, _: Strings) -> _StringPacker:
        return _StringPacker(self._chunks(TEXT_CHUNK_BYTES))


_PACKERS: dict[type, Callable[[TablePacker, Any], Any]] = {
    Scalars: lambda _, column: _ScalarPacker(column),
    References: lambda _, column: _ScalarPacker(column),
    Strings: TablePacker._string_packer,
    Categories: lambda table, _: _CategoryPacker(table._chunks(TEXT_CHUNK_BYTES)),
    Bytes: TablePacker._bytes_packer,
    Arrays: TablePacker._array_packer,
}
_KIND: dict[type, Callable[[Any], Any]] = {
    Scalars: attrgetter("dtype", "form"),
    References: attrgetter("dtype"),
    Strings: lambda _: None,
    Categories: lambda _: None,
    Bytes: attrgetter("layout"),
    Arrays: attrgetter("pictures"),
}
"""What of a column makes it another kind than one of the same type."""


def _is_in_pieces(column: Arrays) -> bool:
    return any(isinstance(value, Pieces) for value in column.values)


def _fixed_strings(data: bytes, lengths: Array, width: int) -> Array:
    """Strings laid end to end -> (rows,) ``S<width>``."""
    return (_padded_by_arrow if len(lengths) >= _MANY_STRINGS else _padded)(data, lengths, width)


def _padded(data: bytes, lengths: Array, width: int) -> Array:
    """As many bytes as the longest are taken of each, and what is not its own multiplied by zero: four times as fast as a mask."""
    taken = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data + bytes(width), "u1"), width)[_starts(lengths)]
    taken *= np.tri(width + 1, width, -1, "u1")[lengths]
    return taken.view(f"S{width}").reshape(-1)


def _padded_by_arrow(data: bytes, lengths: Array, width: int) -> Array:
    """Ten times as fast, once Arrow is loaded. What it calls ASCII is any bytes, of which it looks at none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
    strings = pa.LargeStringArray.from_buffers(len(lengths), pa.py_buffer(ends), pa.py_buffer(data))
    padded = pc.ascii_rpad(strings, width, padding="\0")
    return np.frombuffer(padded.buffers()[2], f"S{width}", len(lengths))


def _text_column(chunks: ChunkPacker, lengths: Array) -> StagedChunks:
    return StagedChunks("text", chunks.chunk_bytes, chunks.finish(), _starts(lengths), lengths, None, None, None)


def _starts(lengths: Array) -> Array:
    """Where each value starts when they lie end to end."""
    starts: Array = np.cumsum(lengths, dtype="<u8") - lengths
    return starts


def _joined_masks(masks: Sequence[Array | None], values: Sequence[Array]) -> Array | None:
    if all(mask is None for mask in masks):
        return None
    return np.concatenate([np.zeros(len(part), bool) if mask is None else mask for mask, part in zip(masks, values, strict=True)])
