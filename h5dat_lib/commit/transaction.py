"""Staged files -> HDF5, in one transaction: the only place that opens HDF5 for writing.

HDF5 writes through a journal, so a transaction is in the file whole or not at all, whatever happens. Which batches are in is
recorded in the same transaction as their rows, so a batch is in exactly once.
"""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from h5dat_lib.columns import Block
from h5dat_lib.commit.writer import Writer
from h5dat_lib.config import Config
from h5dat_lib.errors import FormatError, OutputError
from h5dat_lib.journal import JournaledFile, journal_of, recover
from h5dat_lib.lineage import ARCHIVES, BATCHES, MEMBERS, REJECTS, RUNS, ArchiveRecord, RunRecord
from h5dat_lib.lock import STAGED, WorkFolder
from h5dat_lib.plan.layout import Forms
from h5dat_lib.read.format import FORMAT, FORMAT_VERSION
from h5dat_lib.read.history import History, LastBatch, history
from h5dat_lib.stage.batch import Staged
from h5dat_lib.stage.pack import TablePacker
from h5dat_lib.stage.staged import StagedFile, StageWriter
from h5dat_lib.sync import SPAN, SyncedOutput

PAGE_BYTES = 1 << 20
"""Page of the paged file space: all metadata lies in few pages, which a reader over a network fetches in few requests."""
_CACHE_BYTES = 128 << 10
"""Chunk cache of one dataset: only its open last chunk is ever read, of 64 KiB."""
_LIBVER = ("v110", "v110")
_FILLED = {"fs_strategy": "page", "fs_page_size": PAGE_BYTES, "fs_persist": True}
"""Free space is kept on record from one commit to the next, so that half-filled pages are filled up."""
_TOGETHER = {"fs_strategy": "aggregate"}
"""In S3 each place that is filled up costs a part of 5 MiB: what a commit adds lies together at the end, metadata by blocks of a page."""


@dataclass(frozen=True)
class Committed:
    """What one transaction added; ``skipped`` batches were in already."""

    batches: int
    skipped: int
    rows: int
    rejects: int


class Output:
    """The output of one run: its lock, what is in it already, and the transactions on it.

    Raises OutputError when the path is a folder, is not an H5DAT file, cannot be written, or is being written by another run.
    """

    def __init__(self, path: Path, config: Config, wait: bool = False, restart: bool = False, in_s3: SyncedOutput | None = None) -> None:
        """``wait`` waits for another run on this output to end; ``restart`` begins the output anew. ``path`` is its working copy when
        it is ``in_s3``."""
        self.path = path
        self._in_s3 = in_s3
        self.forms = Forms()
        """What is decided of the rows of each class: as the file has it, and as planning adds."""
        self.history = History()
        """What was in before this run."""
        self.committed: set[str] = set()
        """Keys of the batches that are in."""
        self.rejected: dict[int, Mapping[str, Sequence[int]]] = {}
        """Rows of the rejects that are tried again, by archive and member path."""
        self._config = config
        self._restart = restart
        self._folder = WorkFolder(path, config.work_dir, wait)
        self._rows: dict[str, int] = {}
        self._endings: dict[int, Mapping[str, Any]] = {}
        self._last: LastBatch | None = None
        self._taken_back = True

    def __enter__(self) -> Output:
        if self.path.is_dir():
            raise OutputError(f"{self.path}: found a folder, expected a file name such as {self.path / 'output.h5'}")
        self._folder.__enter__()
        try:
            # Under the lock: a run that ended just before has added to what is in.
            recover(self.path, self._config.reader_seconds)
            if self._restart:
                self._folder.clear()
            if self._in_s3:
                self._in_s3.restore(anew=self._restart)
            if self.path.exists():
                self._read_existing()
        except BaseException as exc:
            self._folder.__exit__(type(exc), exc, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._in_s3:
            self._in_s3.close()
        self._folder.__exit__(kind, exc, trace)

    @property
    def folder(self) -> Path:
        """Where the run keeps plans, spools and staged files."""
        return self._folder.path

    @property
    def took_over(self) -> bool:
        """Whether a run of this machine was killed before it had ended."""
        return self._folder.took_over

    @property
    def own_paths(self) -> frozenset[str]:
        """Real paths of the output and of what it is made with: no members of a folder that they lie in."""
        return frozenset(os.path.realpath(path) for path in (self.path, journal_of(self.path), self.folder, self._folder.lock))

    def renew(self) -> bool:
        """Reads what is in again, when an output in S3 has been replaced since; returns whether it has. To be called before any commit."""
        if not self._in_s3 or not self._in_s3.is_outdated():
            return False
        self._folder.clear(keep=STAGED)
        self._in_s3.restore(anew=self._restart)
        if self.path.exists():
            self._read_existing()
        return True

    def _read_existing(self) -> None:
        if not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path}: cannot be written: permission denied")
        self.history = history(self.path)
        if self._restart:
            self.history = History()
        self.committed, self._last = set(self.history.keys), self.history.last
        self.forms = self.history.forms.copy()

    def commit(self, staged: Iterable[Staged], run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> Committed:
        """Appends staged batches in one transaction. A batch whose key is in is left out, so a repeated call adds nothing.

        Raises OutputError when the disk is full, the file is open elsewhere, or the batches do not fit the columns that are
        there; the file is then as it was.
        """
        skipped = rows = rejects = 0
        keys: set[str] = set()
        with self.transaction() as writer:
            for batch in staged:
                key = _batch_key(batch)
                if key in self.committed | keys:
                    skipped += 1
                    continue
                self._append(writer, batch, run, archives)
                keys.add(key)
                rows, rejects = rows + batch.rows, rejects + batch.rejects
            self._note_archives(writer, archives)
        self.committed |= keys
        return Committed(len(keys), skipped, rows, rejects)

    def _append(self, writer: Writer, batch: Staged, run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> None:
        bases = self._bases(writer, batch.archive, run, archives)
        joined = self._joined(batch, archives[batch.archive].fingerprint)
        for path in batch.paths:
            with StagedFile(Path(path)) as file:
                writer.append(file, bases, joined)
        self._last = LastBatch(archives[batch.archive].fingerprint, batch.number, batch.continued)
        self._resolve(writer, batch)

    def _joined(self, batch: Staged, fingerprint: str) -> dict[str, str]:
        """The tables whose last row the batch goes on with, and what counts its rows there: when the part before came in just before."""
        if not batch.continues or self._last != LastBatch(fingerprint, batch.number - 1, True):
            return {}
        return {batch.continues: "count", MEMBERS: "rows"}

    def _resolve(self, writer: Writer, batch: Staged) -> None:
        """Marks the rejects that have come in with a batch."""
        rejects = self.rejected.get(batch.archive, {})
        if rows := [row for member in batch.resolved for row in rejects[member]]:
            writer.table(REJECTS).set(rows, {"resolved": True})

    def end_run(self, run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> None:
        """Records how the run ended and what its archives were; does nothing when it committed nothing."""
        if RUNS not in self._rows:
            return
        with self.transaction() as writer:
            writer.table(RUNS).set(self._rows[RUNS], run.ending())
            self._note_archives(writer, archives)

    def _note_archives(self, writer: Writer, archives: Mapping[int, ArchiveRecord]) -> None:
        """Records what is known of the archives by now, where that is more than is recorded."""
        for number, archive in archives.items():
            ending = archive.ending()
            if f"{ARCHIVES}/{number}" in self._rows and ending != self._endings.get(number):
                writer.table(ARCHIVES).set(self._rows[f"{ARCHIVES}/{number}"], ending)
                self._endings[number] = ending

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        """The one place where HDF5 is opened for writing. What is written between opening and closing is one unit.

        Raises OutputError when that cannot be done, FormatError when the file is damaged; it is then as it was.
        """
        self._refuse_unknown()
        rows, endings, last = dict(self._rows), dict(self._endings), self._last
        try:
            with self._journaled() as writer:
                yield writer
                writer.flush()
        except BaseException as exc:
            self._rows, self._endings, self._last = rows, endings, last
            if isinstance(exc, (OSError, RuntimeError)):  # h5py raises either, according to the call in which HDF5 failed
                left = "the output is as it was after the last commit" if self._taken_back else f"run `h5dat recover {self.path}`"
                raise OutputError(f"{self.path}: {_reason(exc)}; {left}") from exc
            if isinstance(exc, (KeyError, UnicodeError)):  # what h5py raises for names that are not there, or no names
                raise FormatError(f"{self.path}: found a damaged table or column, expected it whole ({exc}); make the file anew") from exc
            raise

    def _refuse_unknown(self) -> None:
        """After a commit that failed and could not be taken back nobody knows what is in, without reading it again."""
        if not self._taken_back:
            raise OutputError(f"{self.path}: a commit that failed could not be taken back; run `h5dat recover {self.path}`")

    @contextmanager
    def _journaled(self) -> Iterator[Writer]:
        if self._in_s3:
            self._in_s3.before_commit()
        if self._restart:
            self.path.unlink(missing_ok=True)
            self._restart = False
        journaled = JournaledFile(self.path, self._config.reader_seconds)
        file: h5py.File | None = None
        collected = gc.isenabled()
        # HDF5 calls our file object in the middle of its own work: first to seek, then to read or write. A collection in between that
        # finds a dataset of this file closes it, by which HDF5 reads elsewhere, and then goes on there.
        gc.disable()
        try:
            file = self._open(journaled)
            with ThreadPoolExecutor(1, "deflate") as thread:
                yield Writer(file, self._config.compression, self.forms.layouts, journaled.check, thread)
            file.close()
            journaled.commit()
        except BaseException as exc:
            self._taken_back = False
            try:
                if file is not None:
                    file.close()
            finally:
                journaled.roll_back()
            self._taken_back = True
            if isinstance(exc, Exception):
                journaled.check()  # the disk's own error says more than what came of it
            raise
        finally:
            if collected:
                gc.enable()
        if self._in_s3:
            self._in_s3.after_commit(journaled.changed(SPAN))

    def _open(self, journaled: JournaledFile) -> h5py.File:
        options = {"libver": _LIBVER, "meta_block_size": PAGE_BYTES}
        if journaled.size:
            return h5py.File(journaled, "r+", rdcc_nbytes=_CACHE_BYTES, **options)
        file = h5py.File(journaled, "w", **(_TOGETHER if self._in_s3 else _FILLED), **options)
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = np.uint32(FORMAT_VERSION)
        return file

    def _bases(self, writer: Writer, number: int, run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> dict[str, int]:
        """The rows of the run and of the archive, which are added with the first batch that refers to them."""
        if RUNS not in self._rows:
            if self.history.killed:  # we hold the lock, so whoever was running is not any more
                writer.table(RUNS).set(self.history.killed, {"status": b"killed"})
            self._rows[RUNS] = self._add_row(writer, RUNS, run.block(), {})
        archive = f"{ARCHIVES}/{number}"
        if archive not in self._rows:
            self._endings[number] = archives[number].ending()
            self._rows[archive] = self._add_row(writer, ARCHIVES, archives[number].block(), {RUNS: self._rows[RUNS]})
        return {RUNS: self._rows[RUNS], ARCHIVES: self._rows[archive]}

    def _add_row(self, writer: Writer, table: str, block: Block, bases: Mapping[str, int]) -> int:
        """Stages one row of lineage and appends it, the way all rows come in; returns its number."""
        row = writer.table(table).rows
        path = self.folder / "lineage.rows"
        with StageWriter(path) as out:
            packer = TablePacker(table, out, self._config.compression)
            packer.add(block)
            packer.seal()
            out.finish()
        with StagedFile(path) as staged:
            writer.append(staged, bases)
        return row


def _batch_key(batch: Staged) -> str:
    """The key of a staged batch, from the row that records it; all its files have it in common."""
    with StagedFile(Path(batch.paths[0])) as file:
        [segment] = file.segments(BATCHES)
    key: bytes = segment.columns["key"].values[0]  # type: ignore[union-attr]
    return key.decode()


def _reason(exc: OSError | RuntimeError) -> str:
    """What HDF5 hit, from the error number that it puts in its message."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if getattr(exc, "errno", None) == number or f"errno = {number}" in str(exc):
            return f"the disk is full ({os.strerror(number)}); free some space and run the same command again"
    return f"cannot be written: {exc}"
