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
from typing import Any, Literal

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
    """(rows,) numbers or fixed-length strings, to be appended by the writer. ``reference`` names the table they point into."""

    values: Array
    missing: Array | None
    reference: str


@dataclass(frozen=True)
class StagedChunks:
    """Finished chunks of ``chunk_bytes`` each, and for each row where its bytes start in them and how many they are.

    ``shape`` (rows, 3) and ``dtype`` (rows,) are given for the layout ``pixels``, where each row starts on a chunk.
    """

    layout: Literal["text", "encoded", "pixels"]
    chunk_bytes: int
    chunks: Array
    offset: Array
    length: Array
    shape: Array | None
    dtype: Array | None
    missing: Array | None


StagedColumn = StagedScalars | StagedChunks


@dataclass(frozen=True)
class Segment:
    """Rows of a table whose columns are all of one kind from the first to the last row."""

    table: str
    rows: int
    columns: Mapping[str, StagedColumn]
    attributes: Mapping[str, Any]


class StageWriter:
    """Writes a staged file under a temporary name; `finish` gives it its own. Leaving without `finish` removes it.

    Raises OutputError when the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_suffix(".partial")
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

    def finish(self) -> int:
        """Writes the index and makes the file appear under its name; returns its size in bytes."""
        index = json.dumps(self._segments).encode()
        at = self.blob(index)
        self._write(_FOOTER.pack(at, len(index), isal_zlib.crc32(index), MAGIC))
        try:
            self._file.close()
        except OSError as exc:
            raise OutputError(f"{self._path}: a batch cannot be staged: {exc.strerror}; free some space or set work_dir") from exc
        self._partial.replace(self._path)
        return self._at

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as exc:
            raise OutputError(f"{self._path}: a batch cannot be staged: {exc.strerror}; free some space or set work_dir") from exc
        self._at += len(data)

    def _described(self, column: StagedColumn) -> dict[str, Any]:
        return {key: self._array(value) if isinstance(value, np.ndarray) else value for key, value in vars(column).items()}

    def _array(self, values: Array) -> list[Any]:
        raw = np.ascontiguousarray(values)
        dtype = raw.dtype.descr if raw.dtype.names else raw.dtype.str
        return [self.blob(raw.tobytes()), raw.nbytes, dtype, list(raw.shape)]


class StagedFile:
    """A staged file that is there, opened for reading: its segments, one at a time, and the bytes of their chunks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self._entries = self._index()

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)

    @property
    def tables(self) -> set[str]:
        """Names of the tables that have rows here."""
        return {entry["table"] for entry in self._entries}

    def segments(self, table: str | None = None) -> Iterator[Segment]:
        """All segments, or those of a table, in the order of their rows; one is in memory at a time."""
        return (self._segment(entry) for entry in self._entries if table in (None, entry["table"]))

    def chunk(self, at: int, size: int) -> memoryview:
        """A chunk's bytes, good until the next call: all chunks are read into one buffer."""
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        view = self._buffer[:size]
        if os.preadv(self._descriptor, [view], at) != size:
            raise OutputError(f"{self._path}: found the end of the file within a chunk; run the same command again to stage it anew")
        return view

    def _read(self, at: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, at)

    def _index(self) -> list[dict[str, Any]]:
        end = os.fstat(self._descriptor).st_size - _FOOTER.size
        footer = self._read(max(end, 0), _FOOTER.size)
        at, size, crc, magic = _FOOTER.unpack(footer) if len(footer) == _FOOTER.size else (0, 0, 0, b"")
        index = self._read(at, size) if magic == MAGIC else b""
        if magic != MAGIC or isal_zlib.crc32(index) != crc:
            raise OutputError(f"{self._path}: not a complete staged batch; run the same command again to stage it anew")
        segments: list[dict[str, Any]] = json.loads(index)
        return segments

    def _segment(self, entry: dict[str, Any]) -> Segment:
        columns = {name: self._column(column) for name, column in entry["columns"].items()}
        return Segment(entry["table"], entry["rows"], columns, entry["attributes"])

    def _column(self, entry: dict[str, Any]) -> StagedColumn:
        fields: dict[str, Any] = {key: self._array(value) if isinstance(value, list) else value for key, value in entry.items()}
        return StagedScalars(**fields) if "values" in fields else StagedChunks(**fields)

    def _array(self, entry: list[Any]) -> Array:
        at, size, dtype, shape = entry
        kind = np.dtype([tuple(field) for field in dtype] if isinstance(dtype, list) else dtype)
        return np.frombuffer(self._read(at, size), kind).reshape(shape)
