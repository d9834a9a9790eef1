"""A dataset -> its rows: each chunk is inflated here, to exactly the bytes of a chunk.

HDF5's own deflate filter trusts the file: it inflates a chunk to any size, and reads behind the end of one that is too short. It
also takes twice as long, under a lock that all threads share; here several threads inflate at once.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any, Protocol, TypeVar

import h5py
import numpy as np
from h5py import h5z
from isal import isal_zlib

from h5dat_lib.columns import SCALAR_CHUNK_BYTES, Array
from h5dat_lib.errors import FormatError
from h5dat_lib.lineage import CHECKSUMS
from h5dat_lib.read.audit import PIPELINES, filters
from h5dat_lib.read.cache import ChunkCache

T = TypeVar("T")
_Task = tuple[int, int, Any, Any]
"""First row of a chunk, number of its piece, the rows of it that are wanted, and where they go."""

_Known = tuple["array[int]", "array[int]", "array[int]"]
"""Place in the file, size in bytes and filter mask of each chunk."""

_KEPT_BYTES = 8 << 20
"""Inflated chunks of a dataset that are kept, as much as HDF5 2.0 keeps."""
_SHARED_BYTES = 128 << 10
"""So much is worth more threads than one: starting them takes about as long as inflating a tenth of it."""
_BARE_BYTES = 4 << 20
"""The same of bytes that are only copied."""
_INDEX_SHARE = 8
"""Once so many times as many chunks have been read as there are, all places are looked up at once: 1 us each, which saves 2.5 us of
reading one, and 6.5 us in a batch.
"""

_GROUP = 4096
"""Chunks that are gone through at a time, whatever number of rows a file claims to have."""
_MOST_PARTS = 1 << 16
"""Most chunks of one row; of 256 KiB each they are a picture of 17 GB."""
_DAMAGE = (OSError, RuntimeError, UnicodeDecodeError)
"""What h5py raises of it: HDF5's message, which it may not be able to decode when bytes of the file stand in it."""


class Reader(Protocol):
    """What the rows of one file are read through."""

    @property
    def hdf5(self) -> h5py.File: ...

    @property
    def cache(self) -> ChunkCache: ...

    def read_at(self, offset: int, size: int) -> bytes | None:
        """Bytes of the file by their place, fewer at its end; None when only HDF5 can read them."""
        ...

    def read_into(self, parts: Iterable[tuple[int, memoryview]]) -> bool:
        """Fills buffers, each from its place, where `read_at` gives bytes; False when the file ends before one is full."""
        ...

    def each(self, do: Callable[[T], None], tasks: Sequence[T]) -> None:
        """Does all tasks, in any order, maybe several at a time."""
        ...

    def checksums(self, name: str) -> Array | None:
        """What `recorded` has of a dataset; None when chunks are not compared with it."""
        ...


class _Plain:
    """One thread, through HDF5 alone, as while the file is written."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.hdf5 = dataset.file
        self.cache = ChunkCache(_KEPT_BYTES)

    def read_at(self, offset: int, size: int) -> bytes | None:
        return None

    def read_into(self, parts: Iterable[tuple[int, memoryview]]) -> bool:
        return False

    def each(self, do: Callable[[T], None], tasks: Sequence[T]) -> None:
        for task in tasks:
            do(task)

    def checksums(self, name: str) -> Array | None:
        return None


@dataclass(frozen=True)
class _Piece:
    """Where in a row a chunk lies: ``begins`` along all axes but the first, and which part of the chunk is within the row."""

    begins: tuple[int, ...]
    source: tuple[slice, ...]
    target: tuple[slice, ...]


class Rows:
    """The rows of a dataset of numbers, booleans or fixed-length strings: (rows, ...) of its dtype.

    Taken by a number from 0, a slice, or a list or array of numbers or booleans. Raises IndexError for a row that is not there,
    FormatError for anything else. Holds one chunk a thread, besides what it gives and what the reader's cache keeps.
    """

    def __init__(self, dataset: Any, reader: Reader | None = None) -> None:
        if not isinstance(dataset, h5py.Dataset):
            raise fault(dataset, type(dataset).__name__, "a dataset")
        self.dataset = dataset
        self.dtype: np.dtype[Any] = dataset.dtype
        self.shape: tuple[int, ...] = dataset.shape or ()
        if not self.shape or self.dtype.kind not in "biufS" or dataset.id.get_type().get_size() != self.dtype.itemsize:
            raise fault(dataset, f"{self.dtype} {self.shape}", "rows of numbers, booleans or fixed-length strings")
        self._reader: Reader = reader or _Plain(dataset)
        self._hdf5 = self._reader.hdf5
        self._name = str(dataset.name)
        self._filters = filters(dataset.id.get_create_plist())
        self._is_ours = dataset.chunks is not None and self._filters in PIPELINES
        self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._chunks: tuple[int, ...] = dataset.chunks or (
            SCALAR_CHUNK_BYTES // max(self.row_bytes, 1) or 1,
            *(max(size, 1) for size in self.shape[1:]),
        )
        self._size = math.prod(self._chunks) * self.dtype.itemsize
        self._most = self._size + self._size // 8 + 64  # deflate makes nothing larger by more than an eighth (RFC 1951, 3.2.6)
        parts = math.prod(-(-size // step) for size, step in zip(self.shape[1:], self._chunks[1:], strict=True))
        if parts > _MOST_PARTS:
            raise fault(dataset, f"rows of {parts} chunks", f"at most {_MOST_PARTS}")
        self._pieces = tuple(_pieces(self.shape[1:], self._chunks[1:]))
        chunks = -(-len(self) // self._chunks[0]) * parts
        self._places = _Places(self._here, chunks, reader) if self._is_ours and reader else None
        self._checksums = self._reader.checksums(self._name)
        self._runs = self._bare_runs()

    @property
    def stored(self) -> int:
        """Bytes on disk."""
        try:
            size: int = self._here().id.get_storage_size()
        except RuntimeError as exc:
            raise fault(self.dataset, f"a damaged index of chunks ({exc})", "it whole") from exc
        return size

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory."""
        return int(len(self) * self.row_bytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            return self._range(first, max(first, last)) if step == 1 else self._gathered(np.arange(first, last, step))
        if isinstance(rows, list | np.ndarray):
            return self._gathered(row_numbers(rows, len(self)))
        if not 0 <= rows < len(self):
            raise no_row(rows, len(self))
        return self._one(rows)

    def _one(self, row: int) -> Any:
        at = row % self._chunks[0]
        start = row - at
        if len(self.shape) == 1:
            return self._chunk(start, 0)[at]
        found = np.empty((1, *self.shape[1:]), self.dtype)
        if self._is_filled_bare(found, range(row, row + 1)):
            return found[0]
        source, target = slice(at, at + 1), slice(0, 1)
        self._copy_all(found, [(start, part, source, target) for part in range(len(self._pieces))])
        return found[0]

    def take(self, rows: Array, out: Array | None = None) -> Array:
        """Rows by their numbers from 0, in any order, in one array: ``out`` where it is given, of the shape and dtype of what is read."""
        return self._gathered(rows, out)

    def span(self, first: int, size: int) -> bytes:
        """Neighbouring rows of a dataset of bytes. What is stored without a filter is read without the rest of its chunk."""
        if not size:
            return b""  # there may be no chunk at all
        step, last = self._chunks[0], first + size
        number, at = divmod(first, step)
        if at + size <= step:
            return self._part(number, at, at + size)
        starts = range(first - at, last, step)
        parts = [self._part(start // step, max(first - start, 0), min(last - start, step)) for start in starts]
        return b"".join(parts)

    def _part(self, number: int, begin: int, end: int) -> bytes:
        place = self._places.find(number) if self._places and self._checksums is None else None
        if place and place[1] == self._size and not self._is_deflated(place[2]):
            data = self._reader.read_at(place[0] + begin, end - begin)
            if data is not None and len(data) == end - begin:
                return data
        part: bytes = self._chunk(number * self._chunks[0], 0)[begin:end].tobytes()  # or the error that says what is wrong with it
        return part

    def read_into(self, first: int, out: Array) -> None:
        """Fills ``out`` with neighbouring rows, of which it has the shape and the dtype."""
        self._neighbours(first, first + len(out), out)

    def _range(self, first: int, last: int) -> Array:
        """Neighbouring rows."""
        found = np.empty((last - first, *self.shape[1:]), self.dtype)
        self._neighbours(first, last, found)
        return found

    def _neighbours(self, first: int, last: int, found: Array) -> None:
        if self._is_filled_bare(found, range(first, last)):
            return
        step, parts = self._chunks[0], range(len(self._pieces))
        starts = ((start, max(first, start), min(last, start + step)) for start in range(first - first % step, last, step))
        self._fill(
            found,
            (
                (start, part, slice(begin - start, end - start), slice(begin - first, end - first))
                for start, begin, end in starts
                for part in parts
            ),
        )

    def _gathered(self, rows: Array, out: Array | None = None) -> Array:
        """Rows in any order, chunk by chunk."""
        shape = (len(rows), *self.shape[1:])
        found = np.empty(shape, self.dtype) if out is None else checked_out(out, shape, self.dtype)
        if self._runs and self._is_filled_bare(found, rows.tolist()):
            return found
        starts = rows - rows % self._chunks[0]
        order = np.argsort(starts, kind="stable")
        ends = [*(np.flatnonzero(np.diff(starts[order])) + 1).tolist(), len(rows)]
        self._fill(found, self._tasks(rows, starts, order, ends if len(rows) else []))
        return found

    def _bare_runs(self) -> tuple[tuple[int, int], ...]:
        """Where in a row each piece begins, and its bytes, when they lie in the file as they do in an array; () when they do not."""
        whole = self._chunks[2:] == self.shape[2:] and len(self.shape) > 1
        if self._checksums is not None or not (whole and self._is_ours and not self._filters and self._chunks[0] == 1):
            return ()
        line = math.prod(self.shape[2:]) * self.dtype.itemsize
        return tuple((piece.begins[0] * line, (piece.target[0].stop - piece.begins[0]) * line) for piece in self._pieces)

    def _is_filled_bare(self, found: Array, rows: Sequence[int]) -> bool:
        """Reads rows from where they lie straight into ``found``; False when they do not lie there as in an array, and nothing is read."""
        known = self._places.all(len(rows)) if self._runs and self._places and len(rows) and found.flags.c_contiguous else None
        if known is None:
            return False
        read = partial(self._read_bare, memoryview(found.reshape(-1).view("u1").data), known)
        wanted, step = list(enumerate(rows)), max(_BARE_BYTES // max(self.row_bytes, 1), 1)
        if len(wanted) <= step:
            read(wanted)
        else:
            self._reader.each(read, [wanted[first : first + step] for first in range(0, len(wanted), step)])
        return True

    def _read_bare(self, out: memoryview, known: _Known, wanted: Sequence[tuple[int, int]]) -> None:
        """Rows by their place in ``out`` and their number."""
        offsets, sizes, _ = known
        runs, whole = self._runs, self._size
        parts = [
            (offsets[number], out[at * self.row_bytes + begin :][:size])
            for at, row in wanted
            for number, (begin, size) in enumerate(runs, row * len(runs))
            if sizes[number] == whole
        ]
        if len(parts) < len(wanted) * len(runs) or not self._reader.read_into(parts):
            raise fault(self.dataset, "chunks that are not in the file whole", f"{whole} bytes each")

    def _tasks(self, rows: Array, starts: Array, order: Array, ends: list[int]) -> Iterable[_Task]:
        begin, parts = 0, range(len(self._pieces))
        for end in ends:
            places = order[begin:end]
            start = int(starts[places[0]])
            source: Any = rows[places] - start
            target: Any = places
            if end - begin == 1:  # a slice costs less
                at, to = int(source[0]), int(places[0])
                source, target = slice(at, at + 1), slice(to, to + 1)
            for part in parts:
                yield start, part, source, target
            begin = end

    def _fill(self, found: Array, tasks: Iterable[_Task]) -> None:
        """Copies parts of chunks into what was found; by several threads when much has to be inflated."""
        tasks = iter(tasks)
        while group := list(islice(tasks, _GROUP)):
            self._copy_all(found, group if self._chunks[0] == 1 else [task for task in group if not self._is_kept(task, found)])

    def _copy_all(self, found: Array, tasks: Sequence[_Task]) -> None:
        if len(tasks) > 1 and len(tasks) * self._size >= _SHARED_BYTES:
            self._reader.each(partial(self._copy, found), tasks)
        else:
            for task in tasks:
                self._copy(found, task)

    def _is_kept(self, task: _Task, found: Array) -> bool:
        """Whether the chunk is in the cache; then its rows are copied."""
        start, part, source, target = task
        chunk = self._reader.cache.get((self._name, self._number(start, part)))
        if chunk is not None:
            piece = self._pieces[part]
            found[(target, *piece.target)] = chunk[(source, *piece.source)]
        return chunk is not None

    def _copy(self, found: Array, task: _Task) -> None:
        start, part, source, target = task
        piece = self._pieces[part]
        found[(target, *piece.target)] = self._chunk(start, part)[(source, *piece.source)]

    def _number(self, start: int, part: int) -> int:
        """Chunks in the order of their rows."""
        return start // self._chunks[0] * len(self._pieces) + part

    def _chunk(self, start: int, part: int) -> Array:
        """The chunk that begins with row ``start``; kept unless it is of one row, which is not soon asked for again."""
        number, cache = self._number(start, part), self._reader.cache
        if self._chunks[0] == 1:
            return self._read(number, (start, *self._pieces[part].begins))
        chunk: Array | None = cache.get((self._name, number))
        if chunk is None:
            chunk = self._read(number, (start, *self._pieces[part].begins))
            cache.put((self._name, number), chunk)
        return chunk

    def _read(self, number: int, place: tuple[int, ...]) -> Array:
        """The chunk that begins there. HDF5 itself reads what is of another make, opened by somebody who trusts it."""
        if not self._is_ours:
            of_other_make: Array = self._here()[tuple(slice(at, at + size) for at, size in zip(place, self._chunks, strict=True))]
            return of_other_make
        mask, data = self._stored(number, place)
        if self._checksums is not None:
            self._compare(self._checksums, number, place, data)
        data = self._inflated(data, place) if self._is_deflated(mask) else data
        if len(data) != self._size:
            raise fault(self.dataset, f"a chunk of {len(data)} bytes at {place}", f"{self._size} bytes")
        if h5z.FILTER_SHUFFLE in self._filters and not mask & 1:
            data = np.frombuffer(data, "u1").reshape(self.dtype.itemsize, -1).T.tobytes()
        return np.frombuffer(data, self.dtype).reshape(self._chunks)

    def _compare(self, checksums: Array, number: int, place: tuple[int, ...], data: bytes) -> None:
        expected = int(checksums[number]) if number < len(checksums) else None
        if (found := isal_zlib.crc32(data)) != expected:
            written = "none" if expected is None else f"{expected:08x}"
            raise fault(self.dataset, f"CRC {found:08x} of the chunk at {place}", f"{written}, as it was written")

    def _is_deflated(self, mask: int) -> bool:
        return h5z.FILTER_DEFLATE in self._filters and not mask >> len(self._filters) - 1 & 1

    def _stored(self, number: int, place: tuple[int, ...]) -> tuple[int, bytes]:
        """The filter mask of a chunk, and its bytes as they are stored."""
        found = self._places.find(number) if self._places else None
        if found is None:
            return self._stored_by_hdf5(place)
        offset, size, mask = found
        return mask, self._read_at(offset, size, place)

    def _stored_by_hdf5(self, place: tuple[int, ...]) -> tuple[int, bytes]:
        dataset = self._here()
        try:
            mask, data = dataset.id.read_direct_chunk(place)
        except (*_DAMAGE, MemoryError) as exc:  # h5py says MemoryError of a chunk that is not there
            raise fault(self.dataset, f"no chunk that can be read at {place}", "one") from exc
        if len(data) == self._size and self._places is None:
            # HDF5 2.0 gives mask 0 for the chunk that was written last in this session; its index knows better
            mask = dataset.id.get_chunk_info_by_coord(place).filter_mask
        return mask, data

    def _read_at(self, offset: int, size: int, place: tuple[int, ...]) -> bytes:
        data = self._reader.read_at(offset, size) if size <= self._most else None
        if data is None or len(data) != size:
            raise fault(self.dataset, f"a chunk at {place} of {size} bytes that the file has not", f"at most {self._most} bytes within it")
        return data

    def _inflated(self, data: bytes, place: tuple[int, ...]) -> bytes:
        import imagecodecs  # not for a file that is only listed

        try:  # by libdeflate, in 0.83 of ISA-L's time; stops where more would come
            return bytes(imagecodecs.deflate_decode(data, out=self._size))
        except imagecodecs.DeflateError as exc:
            reason = str(exc).rpartition(" ")[2]
            raise fault(self.dataset, f"a chunk at {place} that cannot be inflated ({reason})", f"{self._size} bytes, deflated") from exc

    def _here(self) -> h5py.Dataset:
        """The dataset as this process has it open."""
        if self._reader.hdf5 is not self._hdf5:
            self._hdf5 = self._reader.hdf5
            self.dataset = self._hdf5[self._name]
        return self.dataset


class _Places:
    """Where the chunks of a dataset lie in the file. All are looked up once a share of them has been asked for; until then, and where
    it cannot be done, HDF5 finds each.
    """

    def __init__(self, dataset: Callable[[], h5py.Dataset], chunks: int, reader: Reader) -> None:
        self._dataset = dataset
        self._chunks = chunks
        self._reader = reader
        self._asked = 0
        self._known: _Known | None = None
        self._is_hopeless = False

    def find(self, number: int) -> tuple[int, int, int] | None:
        """Place in the file, size in bytes and filter mask of a chunk; None when HDF5 must be asked."""
        known = self._known
        if known is None:
            self._asked += 1
            known = self.all(0)
        return (known[0][number], known[1][number], known[2][number]) if known else None

    def all(self, asked: int) -> _Known | None:
        """The same of all chunks, when it is worth it with so many more that are about to be asked for."""
        return self._known if self._known is not None or self._is_worth_it(asked) else None

    def _is_worth_it(self, asked: int) -> bool:
        if self._is_hopeless or (self._asked + asked) * _INDEX_SHARE < self._chunks:
            return False
        self._known = self._looked_up()
        self._is_hopeless = self._known is None
        return not self._is_hopeless

    def _looked_up(self) -> _Known | None:
        if self._reader.read_at(0, 1) is None:  # what is not on a local disk
            return None
        dataset = self._dataset()
        begins, offsets, sizes, masks = array("Q"), array("Q"), array("Q"), array("Q")

        def note(chunk: Any) -> None:
            begins.extend(chunk.chunk_offset)
            offsets.append(chunk.byte_offset)
            sizes.append(chunk.size)
            masks.append(chunk.filter_mask)

        try:
            dataset.id.chunk_iter(note)
        except _DAMAGE:  # of the index; what of it can be read is read chunk by chunk
            return None
        if (
            not offsets
            or len(offsets) != self._chunks
            or not self._is_as_hdf5_reads(dataset, offsets[0], sizes[0], tuple(begins[: dataset.ndim]))
        ):
            return None
        order = np.lexsort(np.frombuffer(begins, "u8").reshape(-1, dataset.ndim).T[::-1])
        offsets, sizes, masks = (array("Q", np.frombuffer(found, "u8")[order].tobytes()) for found in (offsets, sizes, masks))
        return offsets, sizes, masks

    def _is_as_hdf5_reads(self, dataset: h5py.Dataset, offset: int, size: int, place: tuple[int, ...]) -> bool:
        """Whether places are counted from the start of the file: they are not where something lies before the HDF5 in it."""
        stored: bytes = dataset.id.read_direct_chunk(place)[1]
        return self._reader.read_at(offset, size) == stored


def _pieces(sizes: tuple[int, ...], steps: tuple[int, ...]) -> Iterable[_Piece]:
    """The chunks that a row lies in, in order."""
    for begins in product(*(range(0, size, step) for size, step in zip(sizes, steps, strict=True))):
        lengths = [min(step, size - begin) for begin, step, size in zip(begins, steps, sizes, strict=True)]
        target = tuple(slice(begin, begin + length) for begin, length in zip(begins, lengths, strict=True))
        yield _Piece(begins, tuple(map(slice, lengths)), target)


def recorded(file: h5py.File, name: str) -> Array:
    """The CRC-32 of each chunk of a dataset; none for one that never had a chunk, such as the bytes of empty texts."""
    path = f"{CHECKSUMS}/{name}"
    found: Array = Rows(file[path])[:] if path in file else np.empty(0, "<u4")
    return found


def row_numbers(rows: Any, count: int) -> Array:
    """Rows (n,) int64 from 0, of numbers that may count from the end, of a boolean for each row, or of a slice.

    Raises IndexError for what is none of these, or a row that is not there.
    """
    if isinstance(rows, slice):
        return np.arange(*rows.indices(count))
    rows = np.asarray(rows)
    rows = rows if rows.size else rows.astype("i8")
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "biu") or (rows.dtype == bool and len(rows) != count):
        raise IndexError(f"found rows of {rows.dtype} {rows.shape}, expected numbers or {count} booleans")
    if rows.dtype == bool:
        return np.flatnonzero(rows)
    outside = (rows < -count) | (rows >= count)
    if outside.any():
        raise no_row(rows[outside][0], count)
    numbers: Array = rows.astype("i8")
    numbers[numbers < 0] += count
    return numbers


def checked_out(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that rows are read into. Raises ValueError when they do not fit it."""
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"found out of {out.dtype} {out.shape}, expected {dtype} {shape}, as the rows are")
    return out


def no_row(row: int, count: int) -> IndexError:
    """The error for a row that is not there."""
    return IndexError(f"row {row} of {count}: expected {f'{-count} to {count - 1}' if count else 'none, there are no rows'}")


def fault(item: h5py.Dataset | h5py.Group, found: str, expected: str) -> FormatError:
    """The error for a dataset or a group that is not as this format has it."""
    return FormatError(f"{item.file.filename}, {item.name}: found {found}, expected {expected}; make the file anew")
