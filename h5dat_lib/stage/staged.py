"""The staged file: blobs, then an index of what they are. It is complete or not there, and nothing in it is ever unpickled.

Layout: `MAGIC`; blobs, one after the other (finished HDF5 chunks, and arrays of numbers); a JSON index of the segments the
blobs belong to; a footer with place, size and CRC-32 of the index, and `MAGIC` again.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
from isal import isal_zlib

from h5dat_lib.columns import CHUNK_BYTES, Array
from h5dat_lib.errors import OutputError

MAGIC = b"H5DSTG1\n"
_BUFFER_BYTES = 64 << 10
"""Blobs that are larger go to the file without being copied into the buffer."""
_FOOTER = struct.Struct("<QQI8s")
CHUNK = np.dtype([("at", "<u8"), ("size", "<u4"), ("mask", "<u4"), ("crc", "<u4")])
"""A finished chunk in a staged file: its place and size in bytes, HDF5's filter mask, and the CRC-32 of its bytes."""


@dataclass(frozen=True)
class StagedScalars:
    """(rows,) numbers, dates or fixed-length strings, to be appended by the writer. ``reference`` names the table they point into,
    ``form`` says how dates were written."""

    values: Array
    missing: Array | None
    reference: str = ""
    form: str = ""


@dataclass(frozen=True)
class StagedCategories:
    """(rows,) int32 codes, -1 where there is no value, and the (names,) fixed-length strings that they count from 0."""

    codes: Array
    names: Array

    def strings(self) -> StagedScalars:
        """The same values as strings."""
        missing = self.codes < 0
        names = self.names if len(self.names) else np.zeros(1, "S1")
        return StagedScalars(np.where(missing, names.dtype.type(), names[self.codes]), missing if missing.any() else None)


@dataclass(frozen=True)
class StagedChunks:
    """Finished chunks of ``chunk_bytes`` each, and for each row where its bytes start in them and how many they are.

    ``shape`` (rows, axes) and ``dtype`` (rows,) are given for the layouts ``pixels`` and ``arrays``, where each row starts on a chunk.
    """

    layout: Literal["text", "bytes", "encoded", "pixels", "arrays"]
    chunk_bytes: int
    chunks: Array
    offset: Array
    length: Array
    shape: Array | None
    dtype: Array | None
    missing: Array | None


StagedColumn = StagedScalars | StagedCategories | StagedChunks


@dataclass(frozen=True)
class Segment:
    """Rows of a table whose columns are all of one kind from the first to the last row."""

    table: str
    rows: int
    columns: Mapping[str, StagedColumn]
    attributes: Mapping[str, Any]


class Blobs(Protocol):
    """What finished chunks are written to; `blob` returns where they start there."""

    def blob(self, data: bytes | memoryview) -> int: ...


class Chunks(Protocol):
    """What finished chunks are read from again."""

    def chunk(self, at: int, size: int) -> memoryview: ...


class StageWriter:
    """Writes a staged file under a temporary name; `finish` gives it its own. Leaving without `finish` removes it.

    Raises OutputError when the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_suffix(f".{os.getpid()}.partial")  # a worker that outlives a killed run is not in our way
        self._segments: list[dict[str, Any]] = []
        self._at = 0
        try:
            self._file = self._partial.open("wb", buffering=_BUFFER_BYTES)
        except OSError as exc:
            raise OutputError(f"{path}: a batch cannot be staged: {exc.strerror}") from exc
        self._write(MAGIC)

    def __enter__(self) -> StageWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):  # what is still in the buffer may not fit on the disk, and is thrown away
                self._file.close()
            self._partial.unlink(missing_ok=True)

    def blob(self, data: bytes | memoryview) -> int:
        """Appends bytes and returns where they start."""
        at = self._at
        self._write(data)
        return at

    def add(self, segment: Segment) -> None:
        """Appends the arrays of a segment, whose chunks are already in the file, and notes it in the index."""
        columns = {name: self._described(column) for name, column in segment.columns.items()}
        self._segments.append({"table": segment.table, "rows": segment.rows, "columns": columns, "attributes": dict(segment.attributes)})

    def mark(self) -> tuple[int, int]:
        """Where the file and its index are."""
        return self._at, len(self._segments)

    def take_back(self, mark: tuple[int, int]) -> None:
        """Forgets what was written behind a mark."""
        try:
            self._file.seek(mark[0])
            self._file.truncate()
        except OSError as exc:
            raise self._full(exc) from exc
        self._at = mark[0]
        del self._segments[mark[1] :]

    def finish(self) -> int:
        """Writes the index and makes the file appear under its name; returns its size in bytes."""
        index = json.dumps(self._segments).encode()
        at = self.blob(index)
        self._write(_FOOTER.pack(at, len(index), isal_zlib.crc32(index), MAGIC))
        try:
            self._file.close()
        except OSError as exc:
            raise self._full(exc) from exc
        self._partial.replace(self._path)
        return self._at

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as exc:
            raise self._full(exc) from exc
        self._at += len(data)

    def _full(self, exc: OSError) -> OutputError:
        return OutputError(f"{self._path}: a batch cannot be staged: {exc.strerror}; free some space or set work_dir")

    def _described(self, column: StagedColumn) -> dict[str, Any]:
        return {key: self._array(value) if isinstance(value, np.ndarray) else value for key, value in vars(column).items()}

    def _array(self, values: Array) -> list[Any]:
        raw = np.ascontiguousarray(values)
        dtype = raw.dtype.descr if raw.dtype.names else raw.dtype.str
        return [self.blob(raw.tobytes()), raw.nbytes, dtype, list(raw.shape)]


_KINDS: dict[str, type[StagedScalars] | type[StagedCategories] | type[StagedChunks]] = {
    "values": StagedScalars,
    "codes": StagedCategories,
    "chunks": StagedChunks,
}
"""Kinds of staged columns, by a field that no other has."""


class StagedFile:
    """A staged file that is there, opened for reading: its segments, one at a time, and the bytes of their chunks.

    Raises OutputError when it is not complete, or its index says what cannot be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._descriptor).st_size
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            self._entries = self._index()
        except OutputError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    @property
    def tables(self) -> set[str]:
        """Names of the tables that have rows here, or that rows here refer to."""
        with self._trusting_nothing():
            columns = [column for entry in self._entries for column in entry["columns"].values()]
            return {entry["table"] for entry in self._entries} | {str(column["reference"]) for column in columns if column.get("reference")}

    def segments(self, table: str | None = None) -> Iterator[Segment]:
        """All segments, or those of a table, in the order of their rows; one is in memory at a time."""
        return (self._segment(entry) for entry in self._entries if table in (None, entry["table"]))

    def chunk(self, at: int, size: int) -> memoryview:
        """A chunk's bytes, good until the next call: all chunks are read into one buffer."""
        self._check_range(at, size)
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        view = self._buffer[:size]
        os.preadv(self._descriptor, [view], at)
        return view

    def _read(self, at: int, size: int) -> bytes:
        self._check_range(at, size)
        return os.pread(self._descriptor, size, at)

    def _check_range(self, at: int, size: int) -> None:
        if not 0 <= at <= at + size <= self._size:
            raise self._unusable(f"found bytes {at} to {at + size} of {self._size}")

    def _unusable(self, found: str) -> OutputError:
        return OutputError(f"{self._path}: not a complete staged batch: {found}; run the same command again to stage it anew")

    @contextlib.contextmanager
    def _trusting_nothing(self) -> Iterator[None]:
        """What an index that is not ours makes Python and numpy raise; numpy refuses to take objects from bytes."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, SyntaxError) as exc:
            raise self._unusable(f"its index is not as expected ({exc})") from exc

    def _index(self) -> list[dict[str, Any]]:
        at, size, crc, magic = _FOOTER.unpack(self._read(self._size - _FOOTER.size, _FOOTER.size))
        index = self._read(at, size) if magic == MAGIC else b""
        if magic != MAGIC or isal_zlib.crc32(index) != crc:
            raise self._unusable("its end is not as expected")
        with self._trusting_nothing():
            return [{**entry, "table": str(entry["table"])} for entry in json.loads(index)]

    def _segment(self, entry: dict[str, Any]) -> Segment:
        with self._trusting_nothing():
            columns = {name: self._column(column, entry["rows"]) for name, column in entry["columns"].items()}
            return Segment(entry["table"], entry["rows"], columns, entry["attributes"])

    def _column(self, entry: dict[str, Any], rows: int) -> StagedColumn:
        fields: dict[str, Any] = {key: self._array(value) if isinstance(value, list) else value for key, value in entry.items()}
        found = {key: len(value) for key, value in fields.items() if isinstance(value, np.ndarray) and key not in ("chunks", "names")}
        if set(found.values()) != {rows} or ("chunks" in fields and (fields["chunks"].dtype, fields["chunks"].ndim) != (CHUNK, 1)):
            raise ValueError(f"{found} of {rows} rows")
        [kind] = (kind for key, kind in _KINDS.items() if key in fields)
        return kind(**fields)

    def _array(self, entry: list[Any]) -> Array:
        at, size, dtype, shape = entry
        kind = np.dtype([tuple(field) for field in dtype] if isinstance(dtype, list) else dtype)
        return np.frombuffer(self._read(at, size), kind).reshape(shape)
