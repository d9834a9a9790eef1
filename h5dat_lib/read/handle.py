"""A path -> an HDF5 file that is open in whatever process asks for it: through HDF5, and its bytes by their place.

What is bound to a process (HDF5's handle, the cache, threads) is made anew in a child, so that a handle may be forked, or pickled and
opened again by its path. Threads share it: HDF5 works under h5py's lock, bytes are read without.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import h5py

from h5dat_lib.columns import Array
from h5dat_lib.errors import FormatError, InputError
from h5dat_lib.lineage import RUNS
from h5dat_lib.read.cache import ChunkCache
from h5dat_lib.read.chunked import Rows, recorded
from h5dat_lib.read.format import has_mark, open_readonly
from h5dat_lib.storage import BlockFile, aws, is_remote

if TYPE_CHECKING:
    from h5dat_lib.config import S3Options

T = TypeVar("T")

CACHE_BYTES = 32 << 20
"""Inflated chunks that a handle keeps."""
_MOST_THREADS = 4


_child = 0
"""How many forks lie between the first process and this one. Asking the system for the process would cost a call for each read."""


def _count_fork() -> None:
    global _child
    _child += 1


os.register_at_fork(after_in_child=_count_fork)


class _Descriptor:
    """A descriptor of an open file; closed once nobody reads from it any more, so that no other file can take its number meanwhile."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


@dataclass(frozen=True)
class How:
    """How a file is opened and read, see `files.open`."""

    trusted: bool = False
    verify: bool = False
    cache_bytes: int = CACHE_BYTES
    threads: int | None = None
    memory_map: bool = False
    s3: S3Options | None = None


class _Here:
    """What of a handle is bound to one process."""

    def __init__(self, hdf5: h5py.File, blocks: BlockFile | None, how: How) -> None:
        self.child = _child
        self.hdf5 = hdf5
        self.blocks = blocks
        self.cache = ChunkCache(how.cache_bytes)
        self.threads = how.threads or _usable_cores()
        self.descriptor = _Descriptor(os.dup(hdf5.id.get_vfd_handle())) if hdf5.driver == "sec2" else None
        self.mapped = memoryview(mmap.mmap(self.descriptor.number, 0, prot=mmap.PROT_READ)) if how.memory_map and self.descriptor else None

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "h5dat-read")

    def close(self) -> None:
        self.descriptor = self.mapped = None  # a thread that still reads keeps it
        self.hdf5.close()
        if self.blocks:
            self.blocks.close()
        if "pool" in self.__dict__:
            self.pool.shutdown(wait=False, cancel_futures=True)


class Handle:
    """An HDF5 file, open for reading in this process and in its children. Raises as `format.open_readonly` does."""

    def __init__(self, path: Path | str, how: How | None = None, expected: str | None = None) -> None:
        self.path = str(path) if is_remote(str(path)) else Path(path)
        self._how = how or How()
        self._expected = expected
        self._closed = False
        self._here = self._open()
        self.is_ours = has_mark(self._here.hdf5)
        """Whether it is an H5DAT file; one of another make can be looked through, but has no tables."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Handle, (self.path, self._how, self._expected)

    def _open(self) -> _Here:
        s3 = self._how.s3
        if s3:
            aws.use(s3)
        kept = (s3.blocks_dir, s3.blocks_bytes) if s3 else ()
        blocks = BlockFile(self.path, *kept) if isinstance(self.path, str) else None
        hdf5 = open_readonly(blocks or Path(self.path), self._how.trusted)
        found = _first_run(hdf5)
        if self._expected not in (None, found):
            hdf5.close()
            raise FormatError(
                f"{self.path}: found another file than the one that was opened (its first run is {found or 'none'}, expected "
                f"{self._expected or 'none'}); it has been replaced: open it anew"
            )
        self._expected = found
        return _Here(hdf5, blocks, self._how)

    @property
    def here(self) -> _Here:
        """What is open in this process. Raises InputError when the handle has been closed."""
        self.check_open()
        here = self._here
        if here.child != _child:
            self._here = here = self._open()
        return here

    def check_open(self) -> None:
        """Raises InputError when the handle has been closed."""
        if self._closed:
            raise InputError(f"{self.path}: has been closed, or refreshed; open it again, or take the column from its table again")

    @property
    def cache(self) -> ChunkCache:
        """Inflated chunks of this process."""
        return self.here.cache

    @property
    def hdf5(self) -> h5py.File:
        """The h5py file of this process."""
        return self.here.hdf5

    @property
    def requests(self) -> int:
        """Sent to S3 for the file by this process."""
        return self._here.blocks.requests if self._here.blocks else 0

    @property
    def closed(self) -> bool:
        return self._closed

    def reopened(self) -> Handle:
        """The file as it is now. Raises FormatError when another one has taken its place; this handle is closed all the same."""
        self.close()
        return Handle(self.path, self._how, self._expected)

    def close(self) -> None:
        """Closes the file in this process."""
        if not self._closed:
            self._closed = True
            self._here.close()

    def read_at(self, offset: int, size: int) -> bytes | None:
        """Bytes of the file by their place, fewer at its end; None when only HDF5 can read them, under whose lock those in S3 are read."""
        here = self._here
        if self._closed or here.child != _child:
            here = self.here
        if here.mapped is not None:
            return bytes(here.mapped[offset : offset + size])
        descriptor = here.descriptor
        return os.pread(descriptor.number, size, offset) if descriptor else None

    def read_into(self, parts: Iterable[tuple[int, memoryview]]) -> bool:
        """Fills buffers with bytes of a local file, each from its place; False when it ends before one is full."""
        here = self.here
        if here.mapped is not None:
            return all(_is_copied(here.mapped[offset : offset + len(buffer)], buffer) for offset, buffer in parts)
        descriptor = here.descriptor
        if descriptor is None:
            return False
        number, read = descriptor.number, os.preadv
        return all(read(number, (buffer,), offset) == len(buffer) for offset, buffer in parts)

    def checksums(self, name: str) -> Array | None:
        """The CRC-32 of each chunk of a dataset as it was written; None when they are not to be compared."""
        return recorded(self.hdf5, name.lstrip("/")) if self._how.verify else None

    def each(self, do: Callable[[T], None], tasks: Sequence[T]) -> None:
        """Does all tasks, in several threads, of which the caller's is one. Raises what the first of them that fails raises."""
        here = self.here
        todo = iter(tasks)
        others = [here.pool.submit(_drain, do, todo) for _ in range(min(here.threads, len(tasks)) - 1)]
        try:
            _drain(do, todo)
        finally:
            running = [other for other in others if not other.cancel()]
            for other in running:
                other.result()


def _is_copied(source: memoryview, buffer: memoryview) -> bool:
    """Fills a buffer; False when there are fewer bytes than it takes, and it is left as it is."""
    if len(source) != len(buffer):
        return False
    buffer[:] = source
    return True


def _first_run(hdf5: h5py.File) -> str:
    """What a file has in common with what it will be after further commits, and with no other file; "" without a run."""
    try:
        if f"{RUNS}/run_id" not in hdf5 or not len(runs := Rows(hdf5[f"{RUNS}/run_id"])):
            return ""
        return str(runs[0].decode("ascii", "backslashreplace"))
    except (FormatError, KeyError, OSError, RuntimeError):  # damaged there: whoever reads it is told, whoever verifies it goes on
        return ""


def _drain(do: Callable[[T], None], todo: Iterable[T]) -> None:
    """Does what is left; several threads take from one iterator."""
    try:
        for task in todo:
            do(task)
    except BaseException:
        for _ in todo:  # nobody need go on
            pass
        raise


def _usable_cores() -> int:
    """Threads that pay: none beside the own in a worker process, which has the other cores' workers beside it."""
    if multiprocessing.parent_process() is not None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)
