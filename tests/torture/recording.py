"""Scenario -> its transactions, recorded, with the output before and after each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from h5dat_lib import journal
from h5dat_lib.commit import transaction as commit
from h5dat_lib.commit.transaction import Committed, Output
from h5dat_lib.journal import JournaledFile
from h5dat_lib.lineage import ArchiveRecord, RunRecord
from h5dat_lib.pipeline import Ingest
from h5dat_lib.plan.batches import Batch
from h5dat_lib.plan.layout import Forms
from h5dat_lib.stage.batch import Staged, stage
from tests.simulated_disk import Change, Image, RecordingDisk
from tests.torture.scenarios import Scenario

OUTPUT = "out.h5"


@dataclass(frozen=True)
class Call:
    """A commit as it was called, or the end of a run when nothing is ``staged``: all that it takes to call it once more."""

    staged: list[Staged]
    run: RunRecord
    archives: dict[int, ArchiveRecord]
    forms: Forms
    rows: dict[str, int]
    committed: set[str]

    def on(self, output: Output) -> None:
        """Calls it, on an output that knows what the one knew on which it was called."""
        output.forms, output._rows, output.committed = self.forms.copy(), dict(self.rows), set(self.committed)
        self.again(output)

    def again(self, output: Output) -> None:
        """Calls it, on an output that went through it before."""
        if self.staged:
            output.commit(self.staged, self.run, self.archives)
        else:
            output.end_run(self.run, self.archives)


@dataclass(frozen=True)
class Transaction:
    """What one transaction did to the disk. ``archives`` had been given before it ended, counted from the first."""

    before: Image
    after: Image
    changes: list[Change]
    archives: int
    call: Call


@contextmanager
def journaled_on(make: Callable[..., JournaledFile], held_pages: int) -> Iterator[None]:
    """Commits go through what ``make`` makes of a path, and hold so few pages."""
    with patch.object(commit, "JournaledFile", make), patch.object(journal, "_HELD_PAGES", held_pages):
        yield


def ingest(archive: Path, folder: Path, scenario: Scenario) -> None:
    """One archive into the output, in this process."""
    with Ingest(archive, folder / OUTPUT, scenario.config()) as run:
        run.run(staged_at_once, run.commit)


def staged_at_once(batch: Batch) -> Future[Staged]:
    """A worker that is always done."""
    future: Future[Staged] = Future()
    future.set_result(stage(batch))
    return future


def image(folder: Path) -> Image:
    """The output and its journal, as far as they are there."""
    path = folder / OUTPUT
    return {found.name: found.read_bytes() for found in (path, journal.journal_of(path)) if found.exists()}


def put(folder: Path, held: Image) -> None:
    """Makes a folder hold the output and the journal of an image, and no work folder."""
    path = folder / OUTPUT
    shutil.rmtree(folder / f".{OUTPUT}.h5dat", ignore_errors=True)
    for found in (path, journal.journal_of(path)):
        found.unlink(missing_ok=True)
    for name, data in held.items():
        (folder / name).write_bytes(data)


class _Recorder:
    """Stands in for the journaled files and the outputs of a run, and notes what becomes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archives = 0
        self.begun: list[tuple[Image, RecordingDisk, int]] = []
        self.calls: list[Call] = []

    def journaled(self, path: Path, wait: float = 0.0) -> JournaledFile:
        disk = RecordingDisk()
        self.begun.append((image(self.folder), disk, self.archives))
        return JournaledFile(path, wait, disk)

    def note(self, output: Output, staged: list[Staged], run: RunRecord, archives: Mapping[int, ArchiveRecord]) -> None:
        """Keeps a call, with copies of the staged files, which the run removes."""
        kept = [replace(batch, paths=tuple(map(self._kept, batch.paths))) for batch in staged]
        known = (output.forms.copy(), dict(output._rows), set(output.committed))
        self.calls.append(Call(kept, copy(run), {number: copy(archive) for number, archive in archives.items()}, *known))

    def _kept(self, path: str) -> str:
        target = self.folder / f"kept-{len(self.calls)}-{Path(path).name}"
        return str(shutil.copy(path, target))


def record(scenario: Scenario, archives: list[Path], folder: Path) -> list[Transaction]:
    """Ingests the archives, undisturbed."""
    recorder = _Recorder(folder)
    commit_, end_run = Output.commit, Output.end_run

    def noted_commit(output: Output, staged: list[Staged], run: RunRecord, known: Mapping[int, ArchiveRecord]) -> Committed:
        recorder.note(output, staged, run, known)
        return commit_(output, staged, run, known)

    def noted_end(output: Output, run: RunRecord, known: Mapping[int, ArchiveRecord]) -> None:
        recorder.note(output, [], run, known)
        end_run(output, run, known)

    with journaled_on(recorder.journaled, scenario.held_pages), patch.multiple(Output, commit=noted_commit, end_run=noted_end):
        for recorder.archives, archive in enumerate(archives, 1):
            ingest(archive, folder, scenario)
    afters = [before for before, _, _ in recorder.begun[1:]] + [image(folder)]
    recorded = zip(recorder.begun, afters, recorder.calls, strict=True)
    return [Transaction(before, after, disk.changes, given, call) for (before, disk, given), after, call in recorded]
