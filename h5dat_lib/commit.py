"""Staged files -> HDF5, in one transaction: the only place that opens HDF5 for writing.

An output is written as a working copy beside it, and takes its name when a run ends, well or not, after its last whole commit.
Which batches are in is recorded in the same transaction as their rows, so a batch is in exactly once.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from h5dat_lib.columns import Block
from h5dat_lib.config import Config
from h5dat_lib.errors import OutputError
from h5dat_lib.format import FORMAT, FORMAT_VERSION, check_format
from h5dat_lib.layout import PixelLayout
from h5dat_lib.lineage import ARCHIVES, BATCHES, RUNS, ArchiveRecord, RunRecord
from h5dat_lib.lock import WorkFolder
from h5dat_lib.pack import TablePacker
from h5dat_lib.stage import Staged
from h5dat_lib.staged import StagedFile, StageWriter
from h5dat_lib.writer import Writer

PAGE_BYTES = 1 << 20
"""Page of the paged file space: all metadata lies in few pages, which a reader over a network fetches in few requests."""
_CACHE_BYTES = 128 << 10
"""Chunk cache of one dataset: only its open last chunk is ever read, of 64 KiB."""
_LIBVER = ("v110", "v110")


@dataclass(frozen=True)
class Committed:
    """What one transaction added; ``skipped`` batches were in already."""

    batches: int
    skipped: int
    rows: int
    rejects: int


class Output:
    """The output of one run: its lock, its working copy, and the transactions on it.

    Raises OutputError when the path is a folder, is not an H5DAT file, cannot be written, or is being written by another run.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.layouts: dict[str, PixelLayout] = {}
        """Pixel layout of each class of pictures: those of the file, and those that planning adds."""
        self.committed: set[str] = set()
        """Keys of the batches that are in."""
        self._config = config
        self._folder = WorkFolder(path, config.work_dir)
        self._working = path.with_name(f".{path.name}.partial")
        self._opened = self._torn = False
        self._write_back = ThreadPoolExecutor(1, "write back")
        self._written_back: list[Future[None]] = []
        self._rows: dict[str, int] = {}

    def __enter__(self) -> Output:
        if self.path.is_dir():
            raise OutputError(f"{self.path}: found a folder, expected a file name such as {self.path / 'output.h5'}")
        self._folder.__enter__()
        try:
            # Under the lock: a run that ended just before has added to what is in.
            if self.path.exists():
                self._read_existing()
        except BaseException:
            self._folder.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._write_back.shutdown()
        self._working.unlink(missing_ok=True)
        self._folder.__exit__(kind, exc, trace)

    @property
    def folder(self) -> Path:
        """Where the run keeps plans, spools and staged files."""
        return self._folder.path

    @property
    def own_paths(self) -> frozenset[str]:
        """Real paths of the output and of what it is made with: no members of a folder that they lie in."""
        return frozenset(os.path.realpath(path) for path in (self.path, self._working, self.folder))

    def _read_existing(self) -> None:
        if not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path}: cannot be written: permission denied")
        try:
            file = h5py.File(self.path, "r")
        except OSError as exc:
            raise OutputError(f"{self.path}: found a file that is not HDF5, expected none or an H5DAT file; choose another output") from exc
        with file:
            check_format(file, self.path)
            self.committed = {key.decode() for key in file[f"{BATCHES}/key"][:]} if BATCHES in file else set()
            self.layouts = {name: layout for name in file if (layout := _layout_of(file, name))}

    def commit(self, staged: Iterable[Staged], run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> Committed:
        """Appends staged batches in one transaction. A batch whose key is in is left out, so a repeated call adds nothing.

        Raises OutputError when the disk is full or the batches do not fit the columns that are there; the file under the
        final name is then as it was.
        """
        skipped = rows = rejects = batches = 0
        with self._transaction() as writer:
            for batch in staged:
                if not self._append(writer, batch, run, archives):
                    skipped += 1
                    continue
                batches, rows, rejects = batches + 1, rows + batch.rows, rejects + batch.rejects
        return Committed(batches, skipped, rows, rejects)

    def _append(self, writer: Writer, batch: Staged, run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> bool:
        """Appends the files of a batch, which have its key in common; False when the batch is in already."""
        key = ""
        for path in batch.paths:
            with StagedFile(Path(path)) as file:
                key = _batch_key(file)
                if key in self.committed:
                    return False
                writer.append(file, self._bases(writer, batch.archive, run, archives))
        self.committed.add(key)
        return True

    def end_run(self, run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> None:
        """Records how the run ended and what its archives were; does nothing when it committed nothing."""
        if not self._opened or self._torn:
            return
        with self._transaction() as writer:
            writer.table(RUNS).set(self._rows[RUNS], run.ending())
            for number, archive in archives.items():
                if f"{ARCHIVES}/{number}" in self._rows:
                    writer.table(ARCHIVES).set(self._rows[f"{ARCHIVES}/{number}"], archive.ending())

    def publish(self) -> None:
        """Gives the working copy the output's name, durably; does nothing when nothing was committed.

        Raises OutputError when the disk did not take what was written; the file under the final name is then as it was.
        """
        if not self._opened or self._torn:
            return
        try:
            for written in self._written_back:  # the kernel tells of a failed write once, to whoever asks first
                written.result()
            _sync(self._working)
            self._working.replace(self.path)
            _sync(self.path.parent)
        except OSError as exc:
            raise OutputError(f"{self.path}: {_reason(exc)}") from exc

    @contextmanager
    def _transaction(self) -> Iterator[Writer]:
        """The one place where HDF5 is opened for writing. What is written between opening and closing is one unit."""
        try:
            with self._open() as file:
                writer = Writer(file, self._config.compression, self.layouts)
                yield writer
                writer.flush()
            # The disk works while the workers do, so that little is left to wait for at the end.
            self._written_back.append(self._write_back.submit(_sync, self._working))
        except (OSError, RuntimeError) as exc:  # h5py raises either, according to the call in which HDF5 failed
            self._torn = True
            raise OutputError(f"{self.path}: {_reason(exc)}; the output is as it was before this run") from exc
        except BaseException:
            self._torn = True
            raise

    def _open(self) -> h5py.File:
        if not self._opened and self.path.exists():
            shutil.copyfile(self.path, self._working)
        elif not self._opened:
            self._create()
        self._opened = True
        return h5py.File(self._working, "r+", libver=_LIBVER, rdcc_nbytes=_CACHE_BYTES)

    def _create(self) -> None:
        # Free space is kept on record from one commit to the next, so that half-filled pages are filled up.
        with h5py.File(self._working, "w", libver=_LIBVER, fs_strategy="page", fs_page_size=PAGE_BYTES, fs_persist=True) as file:
            file.attrs["format"] = FORMAT
            file.attrs["format_version"] = np.uint32(FORMAT_VERSION)

    def _bases(self, writer: Writer, number: int, run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> dict[str, int]:
        """The rows of the run and of the archive, which are added with the first batch that refers to them."""
        if RUNS not in self._rows:
            self._rows[RUNS] = self._add_row(writer, RUNS, run.block(), {})
        archive = f"{ARCHIVES}/{number}"
        if archive not in self._rows:
            self._rows[archive] = self._add_row(writer, ARCHIVES, archives[number].block(), {RUNS: self._rows[RUNS]})
        return {RUNS: self._rows[RUNS], ARCHIVES: self._rows[archive]}

    def _add_row(self, writer: Writer, table: str, block: Block, bases: Mapping[str, int]) -> int:
        """Stages one row of lineage and appends it, the way all rows come in; returns its number."""
        row = writer.table(table).rows
        path = self.folder / "lineage.stage"
        with StageWriter(path) as out:
            packer = TablePacker(table, out, self._config.compression)
            packer.add(block)
            packer.seal()
            out.finish()
        with StagedFile(path) as staged:
            writer.append(staged, bases)
        return row


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _batch_key(file: StagedFile) -> str:
    """The key of a staged batch, from the row that records it."""
    [segment] = file.segments(BATCHES)
    key: bytes = segment.columns["key"].values[0]  # type: ignore[union-attr]
    return key.decode()


def _layout_of(file: h5py.File, name: str) -> PixelLayout | None:
    """The pixel layout of a class that is in the file; None when it holds no decoded pictures."""
    pixels = file.get(f"{name}/pixels")
    layout = pixels.attrs.get("layout") if pixels is not None else None
    if layout == "dense":
        size = int(np.prod(pixels.chunks)) * pixels.dtype.itemsize
        return PixelLayout(size, pixels.shape[1:], pixels.dtype.str)
    return PixelLayout(pixels["values"].chunks[0]) if layout == "ragged" else None


def _reason(exc: OSError | RuntimeError) -> str:
    """What HDF5 hit, from the error number that it puts in its message."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if getattr(exc, "errno", None) == number or f"errno = {number}" in str(exc):
            return f"the disk is full ({os.strerror(number)}); free some space and run the same command again"
    return f"cannot be written: {exc}"
