"""The whole path in one loop: archives -> batches -> staged by workers -> committed in archive order.

`ingest` runs it in a pool of processes. Whoever has other workers, such as a Prefect flow, prepares an `Ingest` and runs it
with its own way of submitting a batch and of calling the commit.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol

from h5dat_lib.commit import Committed, Output
from h5dat_lib.config import Config
from h5dat_lib.errors import BudgetExceeded, H5datError, InputError, Interrupted
from h5dat_lib.lineage import ArchiveRecord, RunRecord
from h5dat_lib.plan import Batch, Plan
from h5dat_lib.stage import Staged, stage, start_worker

_POLL_SECONDS = 0.2
"""How often a waiting run looks whether it has been asked to stop."""
_HASH_STEP = 1 << 20


class Pending(Protocol):
    """A batch under way in a worker."""

    def result(self, timeout: float | None = None) -> Staged:
        """What was staged; raises TimeoutError when it is not there yet, and whatever the worker raised."""
        ...


Convert = Callable[[Batch], Pending]
Commit = Callable[[list[Staged]], Committed]


@dataclass
class Progress:
    """How far a run is: members and archive bytes done and in all (None while a streamed archive has not been read)."""

    members: int = 0
    members_total: int | None = None
    stored: int = 0
    stored_total: int = 0
    batches: int = 0
    skipped: int = 0
    rows: int = 0
    rejects: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """How a run ended. ``bytes`` are decompressed bytes of the converted members, ``skipped`` batches that were in before."""

    output: str
    run: str
    members: int
    rows: int
    rejects: int
    bytes: int
    batches: int
    skipped: int
    seconds: float
    damaged: tuple[str, ...] = field(default_factory=tuple)


def ingest(
    archives: str | Path | Sequence[str | Path],
    output: str | Path,
    config: Config | None = None,
    observe: Callable[[Progress], None] | None = None,
) -> Report:
    """Converts archives into an HDF5 file and returns what was done.

    ``observe`` is called after every commit. Memory does not grow with the archives: each worker holds one member at a
    time, and at most twice as many batches as workers are staged.

    Raises InputError, ConfigError or OutputError for what cannot be used, BudgetExceeded for too many rejects, Interrupted
    when the user stopped it; what was committed stays.
    """
    with Ingest(archives, output, config or Config()) as run, worker_pool(run.config) as pool:
        return run.run(lambda batch: pool.submit(stage, batch), run.commit, observe)


@contextmanager
def worker_pool(config: Config) -> Iterator[Executor]:
    """Processes that convert, or threads; at the end what still runs is not waited for."""
    if config.task_runner == "threads":
        with ThreadPoolExecutor(config.worker_count) as threads:
            yield threads
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(config.worker_count, context, start_worker, (os.getpid(),))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_workers()
        raise


def end_workers() -> None:
    """Ends the worker processes of this process at once; what they had not staged is staged anew by the next run."""
    for process in multiprocessing.active_children():
        process.terminate()


class Ingest:
    """One run, prepared: output locked, archives planned. A context manager; leaving it removes what it worked with."""

    def __init__(self, archives: str | Path | Sequence[str | Path], output: str | Path, config: Config) -> None:
        self.config = config
        self.uris = [str(archive) for archive in ([archives] if isinstance(archives, str | Path) else archives)]
        self.record = RunRecord(str(uuid.uuid4()), config, time.time())
        self.progress = Progress()
        self.plans: list[Plan] = []
        self._output = Output(Path(output), config)
        self._records: dict[int, ArchiveRecord] = {}
        self._hashes: dict[int, Future[str]] = {}
        self._hashing = ThreadPoolExecutor(1, "sha256")

    def __enter__(self) -> Ingest:
        if not self.uris:
            raise InputError("no archive given, expected at least one")
        self._output.__enter__()
        try:
            self._prepare()
        except BaseException:
            self._output.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._hashing.shutdown(wait=False, cancel_futures=True)
        self._output.__exit__(kind, exc, trace)

    @property
    def output(self) -> Path:
        """Where the result goes."""
        return self._output.path

    def _prepare(self) -> None:
        """Plans every archive before anything is converted, so that an unusable one is found at once."""
        folder = self._output.folder
        (folder / "config.json").write_text(self.config.to_json())
        self.plans = [Plan(uri, number, self.config, folder, self._output.own_paths) for number, uri in enumerate(self.uris)]
        for plan in self.plans:
            archive = plan.archive
            self._records[plan.number] = ArchiveRecord(archive.uri, archive.kind, archive.size, plan.fingerprint, self.config.digest())
            if archive.kind != "folder":
                self._hashes[plan.number] = self._hashing.submit(_sha256, archive.uri)
        self.progress.stored_total = sum(plan.stored for plan in self.plans)
        self._count_members()

    def _count_members(self) -> None:
        counts = [plan.members for plan in self.plans]
        self.progress.members_total = None if None in counts else sum(count or 0 for count in counts)

    def run(self, convert: Convert, commit: Commit, observe: Callable[[Progress], None] | None = None) -> Report:
        """Submits batches to ``convert``, a bounded number at a time, and gives what is staged to ``commit`` in archive order."""
        started = time.monotonic()
        status = "failed"
        try:
            with _stop_on_interrupt() as stop:
                for _ in self._committed(convert, commit, stop):
                    self.progress.seconds = time.monotonic() - started
                    if observe:
                        observe(self.progress)
            status = "done"
        except Interrupted:
            status = "interrupted"
            raise
        except BrokenProcessPool as exc:
            raise H5datError("a worker process died, so the batches it had are lost; run the same command again") from exc
        finally:
            self._end(status)
        return self._report(time.monotonic() - started)

    def commit(self, staged: list[Staged]) -> Committed:
        """Commits staged batches in one transaction; called again with the same, it adds nothing."""
        return self._output.commit(staged, self.record, self._records)

    def _committed(self, convert: Convert, commit: Commit, stop: threading.Event) -> Iterator[None]:
        """The loop: keeps a window of batches under way and commits those that are ready, yielding after each commit."""
        window = 2 * self.config.worker_count + 2
        pending: deque[tuple[Batch, Pending]] = deque()
        for batch in self._batches():
            if batch.key in self._output.committed:
                self._skip(batch)
                yield
                continue
            pending.append((batch, convert(batch)))
            while len(pending) >= window:
                self._commit_ready(pending, commit, stop, least=self.config.worker_count)
                yield
        while pending:
            self._commit_ready(pending, commit, stop, least=1)
            yield
        self._check_budget(at_end=True)

    def _batches(self) -> Iterator[Batch]:
        for plan in self.plans:
            yield from plan.batches(self._output.layouts)
            self._count_members()

    def _commit_ready(self, pending: deque[tuple[Batch, Pending]], commit: Commit, stop: threading.Event, least: int) -> None:
        """Waits for the oldest ``least`` batches, since each commit has a cost, and commits them with those behind that are ready."""
        ready = [_wait(under_way, stop) for _, under_way in islice(pending, least)]
        while len(ready) < len(pending) and (staged := _result_now(pending[len(ready)][1])):
            ready.append(staged)
        commit(ready)
        for staged in ready:
            self._count(staged)
            _remove(pending.popleft()[0])
        self._check_budget()

    def _count(self, staged: Staged) -> None:
        progress = self.progress
        progress.members += staged.members
        progress.stored += staged.stored
        progress.rows += staged.rows
        progress.rejects += staged.rejects
        progress.bytes += staged.bytes
        progress.batches += 1

    def _skip(self, batch: Batch) -> None:
        self.progress.skipped += 1
        self.progress.members += batch.members
        self.progress.stored += batch.stored
        _remove(batch)

    def _check_budget(self, at_end: bool = False) -> None:
        """Raises BudgetExceeded as soon as it is certain; a share of a streamed archive only at its end."""
        most, rejects = self.config.max_rejects, self.progress.rejects
        members = self.progress.members_total or self.progress.members
        if most is None or (isinstance(most, float) and self.progress.members_total is None and not at_end):
            return
        allowed = most if isinstance(most, int) else int(most * members)
        if rejects > allowed:
            raise BudgetExceeded(
                f"{self.output}: found {rejects} rejects, expected at most {allowed} (max_rejects = {most}); what was committed "
                f"stays, `h5dat rejects {self.output}` lists them"
            )

    def _end(self, status: str) -> None:
        """Records the end of the run and gives the output its name."""
        progress = self.progress
        self.record.status, self.record.end = status, time.time()
        self.record.counts = {name: getattr(progress, name) for name in self.record.counts}
        for number, digest in self._hashes.items():
            if status == "done" and digest.exception() is None:
                self._records[number].sha256 = digest.result()
        self._output.end_run(self.record, self._records)
        self._output.publish()

    def _report(self, seconds: float) -> Report:
        progress = self.progress
        damaged = tuple(plan.damage for plan in self.plans if plan.damage)
        return Report(
            str(self.output), self.record.run_id, progress.members, progress.rows, progress.rejects,
            progress.bytes, progress.batches, progress.skipped, seconds, damaged,
        )  # fmt: skip


def _wait(pending: Pending, stop: threading.Event) -> Staged:
    while not stop.is_set():
        try:
            return pending.result(_POLL_SECONDS)
        except TimeoutError:
            continue
    raise Interrupted("stopped; what was committed is kept, and the same command goes on from there")


def _result_now(pending: Pending) -> Staged | None:
    try:
        return pending.result(0)
    except TimeoutError:
        return None


def _remove(batch: Batch) -> None:
    """Removes what only this batch needed: its staged file, and its spool."""
    Path(batch.stage).unlink(missing_ok=True)
    if batch.spool:
        Path(batch.source).unlink(missing_ok=True)
        Path(batch.plan).unlink(missing_ok=True)


def _sha256(uri: str) -> str:
    digest = hashlib.sha256()
    with open(uri, "rb") as file:
        while data := file.read(_HASH_STEP):
            digest.update(data)
    return digest.hexdigest()


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C (or SIGTERM) into an event, so that no transaction is cut; a second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
