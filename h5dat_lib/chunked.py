"""A dataset -> its rows: each chunk is inflated here, to exactly the bytes of a chunk.

HDF5's own deflate filter trusts the file: it inflates a chunk to any size, and reads behind the end of one that is too short. It
also takes twice as long.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
from h5py import h5z
from isal import isal_zlib

from h5dat_lib.audit import PIPELINES, filters
from h5dat_lib.columns import SCALAR_CHUNK_BYTES, Array
from h5dat_lib.errors import FormatError

_KEPT_BYTES = 8 << 20
"""Inflated chunks of a dataset that are kept, as much as HDF5 2.0 keeps."""


class Rows:
    """The rows of a dataset of numbers, booleans or fixed-length strings: (rows, ...) of its dtype.

    Taken by a number from 0, a slice, or a list or array of numbers or booleans. Raises IndexError for a row that is not there,
    FormatError for anything else. Holds `_KEPT_BYTES` or one chunk, besides what it gives.
    """

    def __init__(self, dataset: Any) -> None:
        if not isinstance(dataset, h5py.Dataset):
            raise fault(dataset, type(dataset).__name__, "a dataset")
        self.dataset = dataset
        self.dtype: np.dtype[Any] = dataset.dtype
        self.shape: tuple[int, ...] = dataset.shape or ()
        if not self.shape or self.dtype.kind not in "biufS" or dataset.id.get_type().get_size() != self.dtype.itemsize:
            raise fault(dataset, f"{self.dtype} {self.shape}", "rows of numbers, booleans or fixed-length strings")
        self._filters = filters(dataset.id.get_create_plist())
        self._is_ours = dataset.chunks is not None and self._filters in PIPELINES
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._chunks: tuple[int, ...] = dataset.chunks or (
            SCALAR_CHUNK_BYTES // max(row_bytes, 1) or 1,
            *(max(size, 1) for size in self.shape[1:]),
        )
        self._size = math.prod(self._chunks) * self.dtype.itemsize
        self._chunk = lru_cache(max(_KEPT_BYTES // max(self._size, 1), 1))(self._read)

    @property
    def stored(self) -> int:
        """Bytes on disk."""
        try:
            size: int = self.dataset.id.get_storage_size()
        except RuntimeError as exc:
            raise fault(self.dataset, f"a damaged index of chunks ({exc})", "it whole") from exc
        return size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            return self._range(first, max(first, last)) if step == 1 else self._gathered(np.arange(first, last, step))
        if isinstance(rows, list | np.ndarray):
            return self._gathered(self._numbers(np.asarray(rows)))
        if not 0 <= rows < len(self):
            raise IndexError(f"{self.dataset.name}: row {rows} of {len(self)}")
        return self._range(rows, rows + 1)[0]

    def _numbers(self, rows: Array) -> Array:
        """Rows from 0, of numbers that may count from the end or of a boolean for each row."""
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "biu") or (rows.dtype == bool and len(rows) != len(self)):
            raise IndexError(f"{self.dataset.name}: found rows of {rows.dtype} {rows.shape}, expected numbers or {len(self)} booleans")
        numbers = np.flatnonzero(rows) if rows.dtype == bool else rows.astype("i8")
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"{self.dataset.name}: rows {rows.min()} to {rows.max()} of {len(self)}")
        return numbers

    def _range(self, first: int, last: int) -> Array:
        """Neighbouring rows."""
        found = np.empty((last - first, *self.shape[1:]), self.dtype)
        step = self._chunks[0]
        for start in range(first - first % step, last, step):
            begin, end = max(first, start), min(last, start + step)
            self._copy(start, slice(begin - start, end - start), found, slice(begin - first, end - first))
        return found

    def _gathered(self, rows: Array) -> Array:
        """Rows in any order."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        starts = rows - rows % self._chunks[0]
        for start in np.unique(starts).tolist():
            places = np.flatnonzero(starts == start)
            self._copy(start, rows[places] - start, found, places)
        return found

    def _copy(self, start: int, source: Any, found: Array, target: Any) -> None:
        """Rows ``source`` of the chunks that begin with row ``start``, as rows ``target`` of what was found."""
        if found.ndim == 1:
            found[target] = self._chunk(start)[source]
            return
        sizes, steps = self.shape[1:], self._chunks[1:]
        for numbers in np.ndindex(*(-(-size // step) for size, step in zip(sizes, steps, strict=True))):
            begins = [number * step for number, step in zip(numbers, steps, strict=True)]
            lengths = [min(step, size - begin) for begin, step, size in zip(begins, steps, sizes, strict=True)]
            part = self._chunk(start, *begins)[(source, *map(slice, lengths))]
            found[(target, *(slice(begin, begin + length) for begin, length in zip(begins, lengths, strict=True)))] = part

    def _read(self, *place: int) -> Array:
        """The chunk that begins there. HDF5 itself reads what is of another make, opened by somebody who trusts it."""
        if not self._is_ours:
            of_other_make: Array = self.dataset[tuple(slice(at, at + size) for at, size in zip(place, self._chunks, strict=True))]
            return of_other_make
        try:
            mask, data = self.dataset.id.read_direct_chunk(place)
        except (OSError, RuntimeError, MemoryError) as exc:  # h5py says MemoryError of a chunk that is not there
            raise fault(self.dataset, f"no chunk that can be read at {place}", "one") from exc
        if len(data) == self._size:  # HDF5 2.0 gives mask 0 for the chunk that was written last in this session; its index knows better
            mask = self.dataset.id.get_chunk_info_by_coord(place).filter_mask
        deflated = h5z.FILTER_DEFLATE in self._filters and not mask >> len(self._filters) - 1 & 1
        data = self._inflated(data, place) if deflated else data
        if len(data) != self._size:
            raise fault(self.dataset, f"a chunk of {len(data)} bytes at {place}", f"{self._size} bytes")
        if h5z.FILTER_SHUFFLE in self._filters and not mask & 1:
            data = np.frombuffer(data, "u1").reshape(self.dtype.itemsize, -1).T.tobytes()
        return np.frombuffer(data, self.dtype).reshape(self._chunks)

    def _inflated(self, data: bytes, place: tuple[int, ...]) -> bytes:
        inflater = isal_zlib.decompressobj()
        try:
            inflated: bytes = inflater.decompress(data, self._size + 1)
        except isal_zlib.error as exc:  # type: ignore[misc]  # its stub takes it for an instance
            raise fault(self.dataset, f"a chunk at {place} that is not deflated ({exc})", "deflated bytes") from exc
        if not inflater.eof:
            raise fault(self.dataset, f"a chunk at {place} that does not end", f"{self._size} bytes, deflated")
        return inflated


def fault(item: h5py.Dataset | h5py.Group, found: str, expected: str) -> FormatError:
    """The error for a dataset or a group that is not as this format has it."""
    return FormatError(f"{item.file.filename}, {item.name}: found {found}, expected {expected}; make the file anew")
