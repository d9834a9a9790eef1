"""A file object whose writes can be rolled back: HDF5 writes through it, so that a transaction is in the file whole or not at all.

What lies behind the old end of the file is written at once. A page before it is held in memory, and overwritten only after its
old bytes are safe in the journal, a file beside it:

1. begin      the journal is made durable with the old size and the first page; then the file is marked as being written.
2. overwrite  the old bytes of the held pages go into the journal, which is made durable; then the pages are written.
3. commit     everything is made durable, then the superblock without the mark, then the journal is removed.

So the file is whole exactly when its superblock carries no mark, and every HDF5 reader refuses it from begin to commit, and after
a kill until `recover` has written the old bytes back. A journal beside a file without the mark has done its duty, or belongs to
another file that had this name; it is only removed.

Journal: `_HEADER` (magic, old size of the file, nonce, CRC-32), then records: `_RECORD` (page number, CRC-32 of nonce, number and
page) and the page. What is behind the first record that does not check was not durable, so nothing was overwritten for it.
"""

from __future__ import annotations

import fcntl
import io
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from isal import isal_zlib

from h5dat_lib.errors import OutputError
from h5dat_lib.superblock import SUPERBLOCK_BYTES, is_whole, marked

__all__ = ["Disk", "JournaledFile", "journal_of", "recover"]

PAGE = 4096
"""Bytes of a page: what file systems and disks write in one piece."""
_HELD_PAGES = (32 << 20) // PAGE
"""Pages that are held before they are overwritten: bounds memory; each round costs two waits for the disk."""
_MAGIC = b"H5DJRN1\n"
_HEADER = struct.Struct("<8sQ16sI")
_RECORD = struct.Struct("<QI")
_POLL_SECONDS = 0.1


class Disk:
    """Every call that changes a file or makes it durable, in one place, so that a test can cut between any two of them."""

    def open(self, path: Path) -> int:
        return os.open(path, os.O_RDWR)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, size: int, at: int) -> bytes:
        """``size`` bytes, fewer only at the end of the file."""
        return os.pread(descriptor, size, at)

    def write(self, descriptor: int, data: bytes | bytearray | memoryview, at: int) -> None:
        """Writes all of ``data``."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, path: Path) -> None:
        """Makes durable which files a folder has."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, descriptor: int) -> bool:
        """Takes the file for itself, as HDF5 locks files (flock), so that HDF5 elsewhere refuses it; False when another has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


_DISK = Disk()


def journal_of(path: Path) -> Path:
    """Where the journal of a file lies: beside it, hidden; beside what a symbolic link leads to."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}.journal")


def recover(path: Path, wait: float = 0.0, disk: Disk = _DISK) -> bool:
    """Takes back the transaction that a dead writer left; False when there is none.

    Waits up to ``wait`` seconds for a living one to end. May itself be cut at any point and called again. Raises OutputError
    when the file is in use, or cannot be written.
    """
    if not disk.exists(journal_of(path)):
        return False
    try:
        return _recover(path, wait, disk)
    except FileNotFoundError:  # whoever was at it has ended its transaction, or recovered it
        return False
    except OSError as exc:
        raise OutputError(
            f"{path}: a run that died while writing it left it unfinished, and it cannot be recovered: {exc.strerror or exc}; "
            f"run `h5dat recover {path}` where it can be written"
        ) from exc


def _recover(path: Path, wait: float, disk: Disk) -> bool:
    if not disk.exists(path):
        return _drop_first(path, wait, disk)
    descriptor = disk.open(path)
    try:
        _lock(path, descriptor, wait, disk)
        if not disk.exists(journal_of(path)):  # whoever had the lock has ended its transaction, or recovered it
            return False
        _roll_back(path, descriptor, disk)
    finally:
        disk.close(descriptor)
    return True


def _drop_first(path: Path, wait: float, disk: Disk) -> bool:
    """Removes the journal of a writer that died before it had made the file; one that is alive has it locked."""
    journal = disk.open(journal_of(path))
    try:
        _lock(path, journal, wait, disk)
        if disk.exists(path):
            return _recover(path, wait, disk)
        _drop(journal_of(path), disk)
    finally:
        disk.close(journal)
    return True


def _lock(path: Path, descriptor: int, wait: float, disk: Disk) -> None:
    if not _wait_for_lock(descriptor, wait, disk):
        raise OutputError(f"{path}: is being written by another process, or open in one; try again when that has ended")


def _wait_for_lock(descriptor: int, wait: float, disk: Disk) -> bool:
    end = time.monotonic() + wait
    while not disk.lock(descriptor):
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _roll_back(path: Path, descriptor: int, disk: Disk, certain: bool = False) -> None:
    """Writes the old bytes back and removes the journal; only removes it beside a whole file, unless it is ``certain`` to be hot."""
    journal = disk.open(journal_of(path))
    try:
        header = _header(disk.read(journal, _HEADER.size, 0))
        # A journal that is not whole was not yet durable, so the file was not touched.
        if header and (certain or not is_whole(disk.read(descriptor, SUPERBLOCK_BYTES, 0))):
            _restore(path, descriptor, journal, header, disk)
    finally:
        disk.close(journal)
    _drop(journal_of(path), disk)


def _restore(path: Path, descriptor: int, journal: int, header: tuple[int, bytes], disk: Disk) -> None:
    """Writes the old bytes back under the mark, and the superblock without it last."""
    size, nonce = header
    if not size:
        disk.unlink(path)  # it was not there before
        disk.sync_folder(path.parent)
        return
    superblock = b""
    for page, data in _records(journal, nonce, disk):
        if page == 0:  # the first record
            superblock, data = data[:SUPERBLOCK_BYTES], marked(data) + data[SUPERBLOCK_BYTES:]
            disk.write(descriptor, marked(superblock), 0)
            disk.sync(descriptor)
        disk.write(descriptor, data, page * PAGE)
    disk.truncate(descriptor, size)
    disk.sync(descriptor)
    disk.write(descriptor, superblock, 0)
    disk.sync(descriptor)


def _drop(journal: Path, disk: Disk) -> None:
    disk.unlink(journal)
    disk.sync_folder(journal.parent)


def _header(data: bytes) -> tuple[int, bytes] | None:
    """Old size and nonce; None when the header is not whole."""
    if len(data) < _HEADER.size:
        return None
    magic, size, nonce, crc = _HEADER.unpack(data)
    return (size, nonce) if magic == _MAGIC and crc == isal_zlib.crc32(data[:-4]) else None


def _records(journal: int, nonce: bytes, disk: Disk) -> Iterator[tuple[int, bytes]]:
    """Page numbers and old bytes, up to the first record that is not whole."""
    for at in range(_HEADER.size, disk.size(journal), _RECORD.size + PAGE):
        record = disk.read(journal, _RECORD.size + PAGE, at)
        if len(record) < _RECORD.size + PAGE:
            return
        page, crc = _RECORD.unpack_from(record)
        if crc != _checked(nonce, page, record[_RECORD.size :]):
            return
        yield page, record[_RECORD.size :]


def _checked(nonce: bytes, page: int, data: bytes | bytearray) -> int:
    """The nonce tells records from those of an older journal that lay in the same place of the disk."""
    return isal_zlib.crc32(data, isal_zlib.crc32(nonce + page.to_bytes(8, "little")))


class JournaledFile(io.RawIOBase):
    """One transaction on a file, as the file object that h5py's ``fileobj`` driver asks for; `commit` or `roll_back` ends it.

    Waits up to ``wait`` seconds for readers to close the file. Raises OutputError when they do not, OSError when the disk fails.
    A file that is not there is made, and is gone again after `roll_back`.

    HDF5 does not hear of a write that fails: 2.0.0 forgets some, and crashes on others in H5Fflush. What it writes from then on is
    held in memory, and `commit` raises the error.
    """

    def __init__(self, path: Path, wait: float = 0.0, disk: Disk = _DISK) -> None:
        self._path = path
        self._disk = disk
        self._at = 0
        self._held: dict[int, bytearray] = {}
        self._journaled: set[int] = set()
        self._nonce = os.urandom(16)
        self._journal = self._file = -1
        self._old = self._size = 0
        self._failure: OSError | None = None
        try:
            self._begin(wait)
        except BaseException:
            with suppress(OSError):  # what cannot be taken back now is taken back by `recover`
                self.roll_back()
            raise

    def __repr__(self) -> str:
        return str(self._path)  # h5py takes it for the name of the file

    def _begin(self, wait: float) -> None:
        recover(self._path, wait, self._disk)  # a transaction that a failing disk did not let us roll back
        if self._disk.exists(self._path):
            self._file = self._locked(self._disk.open(self._path), wait)
            self._old = self._size = self._disk.size(self._file)
            self._held[0] = self._page(0)
        else:
            self._held[0] = bytearray(PAGE)
        self._start_journal()
        if self._file < 0:
            self._file = self._locked(self._disk.create(self._path), wait)
        else:
            self._disk.write(self._file, marked(bytes(self._held[0])), 0)
            self._disk.sync(self._file)

    def _locked(self, descriptor: int, wait: float) -> int:
        if not _wait_for_lock(descriptor, wait, self._disk):
            self._disk.close(descriptor)
            raise OutputError(f"{self._path}: is open in another program; close it there and run the same command again")
        return descriptor

    def _start_journal(self) -> None:
        self._journal = self._disk.create(journal_of(self._path))
        if not self._disk.lock(self._journal) or not self._disk.exists(journal_of(self._path)):
            raise OutputError(f"{self._path}: is being recovered by another process; run the same command again")
        header = _HEADER.pack(_MAGIC, self._old, self._nonce, 0)[:-4]
        self._disk.write(self._journal, header + isal_zlib.crc32(header).to_bytes(4, "little"), 0)
        self._journal_end = _HEADER.size
        if self._old:
            self._note(0)
        self._disk.sync(self._journal)
        self._disk.sync_folder(self._path.parent)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    @property
    def size(self) -> int:
        """Bytes of the file as HDF5 sees it; 0 for one that was not there."""
        return self._size

    def changed(self, span: int) -> set[int]:
        """Which spans of so many bytes may differ from what they were: the first, those of overwritten pages, all from the old end on."""
        overwritten = {page * PAGE // span for page in self._journaled}
        return {0} | overwritten | set(range(self._old // span, -(-max(self._old, self._size) // span)))

    @property
    def _old_end(self) -> int:
        """Where the old pages end, of which the first is always one."""
        return max(_pages(self._old), 1) * PAGE

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer from here on, with held pages in the place of those on the disk; 0 at the end."""
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._size - self._at))]
        data = self._read(len(view), self._at)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        for page, start, piece in _pieces(self._at, view):
            if page in self._held:
                piece[:] = self._held[page][start : start + len(piece)]
        self._at += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        """Writes here; before the old end of the file in memory, until the old bytes are safe."""
        view = memoryview(data).cast("B")
        if self._file < 0:
            return len(view)  # HDF5 still closes a file whose transaction was rolled back
        self._attempt(self._write, view)
        if self._failure:
            self._hold(view)
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def _attempt(self, change: Callable[..., None], *given: Any) -> None:
        """Changes the file, as long as the disk has not failed."""
        try:
            if not self._failure:
                change(*given)
        except OSError as exc:
            self._failure = exc

    def _write(self, view: memoryview) -> None:
        kept = max(0, min(len(view), self._old_end - self._at))
        self._hold(view[:kept])
        if kept < len(view):
            self._disk.write(self._file, view[kept:], self._at + kept)
        if len(self._held) > _HELD_PAGES:
            self._write_held()

    def _hold(self, view: memoryview) -> None:
        for page, start, piece in _pieces(self._at, view):
            self._overwrite(page, start, piece)

    def truncate(self, size: int | None = None) -> int:
        """Cuts or extends the file; what is cut off of the old bytes is overwritten, so that it is in the journal."""
        size = self._at if size is None else size
        if self._file < 0:
            return size
        at, self._at = self._at, size
        end = self._size if self._failure else min(self._size, self._old_end)
        while self._at < end:
            self.write(bytes(min(_HELD_PAGES * PAGE, end - self._at)))
        self._at, self._size = at, size
        self._attempt(self._disk.truncate, self._file, max(size, self._old))
        return size

    def check(self) -> None:
        """Raises the error of a write that failed: what HDF5 still writes is in vain, and takes memory."""
        if self._failure:
            raise self._failure

    def commit(self) -> None:
        """Makes the transaction part of the file, durably: when this returns it is in, whatever happens."""
        self.check()
        self._write_held()
        first = bytes(self._held[0])
        self._disk.write(self._file, marked(first) + first[SUPERBLOCK_BYTES:], 0)
        self._disk.truncate(self._file, self._size)
        self._disk.sync(self._file)
        if not self._old:
            self._disk.sync_folder(self._path.parent)
        self._disk.write(self._file, first[:SUPERBLOCK_BYTES], 0)
        self._disk.sync(self._file)
        self._close_journal()
        with suppress(OSError):  # it is in: a journal that cannot be removed is, by whoever comes next
            _drop(journal_of(self._path), self._disk)
        self._release()

    def roll_back(self) -> None:
        """Leaves the file as it was before, unless the transaction has ended. What HDF5 writes after this goes nowhere."""
        try:
            if self._journal >= 0 and self._file >= 0:
                _roll_back(self._path, self._file, self._disk, certain=True)
            elif self._journal >= 0:
                _drop(journal_of(self._path), self._disk)
        finally:
            self._release()

    def _release(self) -> None:
        """Closes what is open, and by that unlocks the file."""
        self._close_journal()
        if self._file >= 0:
            self._disk.close(self._file)
        self._file = -1

    def _close_journal(self) -> None:
        if self._journal >= 0:
            self._disk.close(self._journal)
        self._journal = -1

    def _page(self, page: int) -> bytearray:
        return bytearray(self._read(PAGE, page * PAGE)).ljust(PAGE, b"\0")

    def _read(self, size: int, at: int) -> bytes:
        """Bytes of the file on the disk; none once that has failed, or the transaction has ended: nothing comes of them any more."""
        try:
            return self._disk.read(self._file, size, at) if self._file >= 0 else b""
        except OSError as exc:
            if self._failure:
                return b""
            self._failure = exc
            raise

    def _overwrite(self, page: int, start: int, piece: memoryview) -> None:
        """Writes within a page: at once when its old bytes are safe, else, and always for the first page, in memory."""
        if page in self._journaled and page and not self._failure:
            self._disk.write(self._file, piece, page * PAGE + start)
            return
        if page not in self._held:
            self._held[page] = self._page(page) if len(piece) < PAGE else bytearray(PAGE)
        self._held[page][start : start + len(piece)] = piece

    def _note(self, page: int) -> None:
        """Appends the bytes that a page has on the disk to the journal."""
        data = self._page(page)
        self._disk.write(self._journal, _RECORD.pack(page, _checked(self._nonce, page, data)) + data, self._journal_end)
        self._journal_end += _RECORD.size + PAGE
        self._journaled.add(page)

    def _write_held(self) -> None:
        """Overwrites the held pages, all but the first, once their old bytes are durable."""
        held = sorted(page for page in self._held if page)
        if not held:
            return
        for page in held:
            self._note(page)
        self._disk.sync(self._journal)
        for page in held:
            self._disk.write(self._file, self._held[page], page * PAGE)
            del self._held[page]


def _pages(size: int) -> int:
    """Pages that so many bytes begin."""
    return -(-size // PAGE)


def _pieces(at: int, view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """A range of bytes cut at the page borders: page, start within it, bytes."""
    done = 0
    while done < len(view):
        page, start = divmod(at + done, PAGE)
        size = min(PAGE - start, len(view) - done)
        yield page, start, view[done : done + size]
        done += size
