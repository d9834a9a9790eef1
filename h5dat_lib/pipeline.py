"""The whole path in one loop: archives -> batches -> staged by workers -> committed in archive order.

`ingest` runs it in a pool of processes. Whoever has other workers, such as a Prefect flow, prepares an `Ingest` and runs it
with its own way of submitting a batch and of calling the commit.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from h5dat_lib.archive import open_archive
from h5dat_lib.archive.member import Archive
from h5dat_lib.commit.transaction import Committed, Output
from h5dat_lib.config import Config
from h5dat_lib.errors import BudgetExceeded, H5datError, InputError, Interrupted, OutputError
from h5dat_lib.lineage import ArchiveRecord, RunRecord
from h5dat_lib.plan.batches import Batch, Done, Plan
from h5dat_lib.read.history import member_hashes
from h5dat_lib.stage.batch import Staged, restaged
from h5dat_lib.stage.known import save_known
from h5dat_lib.stage.workers import Convert, Pending, direct_workers
from h5dat_lib.storage import aws, is_remote, sha256_of
from h5dat_lib.sync import Synced, SyncedOutput

_POLL_SECONDS = 0.2
"""How often a waiting run looks whether it has been asked to stop."""


Commit = Callable[[list[Staged]], Committed]


@dataclass
class Progress:
    """How far a run is: members and archive bytes done and in all (None while a streamed archive has not been read).

    ``skipped`` members were in before; the counts of members and rows are of this run alone. ``requests`` to S3 that read, and the
    bytes ``received`` by them, are those of the workers, and of this process since the run began. ``synced`` is of an output in S3.
    """

    members: int = 0
    members_total: int | None = None
    stored: int = 0
    stored_total: int = 0
    batches: int = 0
    skipped: int = 0
    rows: int = 0
    rejects: int = 0
    duplicates: int = 0
    bytes: int = 0
    seconds: float = 0.0
    requests: int = 0
    received: int = 0
    synced: Synced | None = None


@dataclass(frozen=True)
class Start:
    """How a run begins on an output that is there, where it does not simply go on.

    ``wait``: until another run on it has ended. ``restart``: make the output anew. ``new_run``: with another configuration.
    """

    wait: bool = False
    restart: bool = False
    new_run: bool = False


@dataclass(frozen=True)
class Report:
    """How a run ended. ``bytes`` are decompressed bytes of the converted members, ``skipped`` members that were in before.

    ``duplicates`` members have the same bytes as members of other archives that came in before.
    ``damaged`` says what is wrong with archives that end early, ``changed`` names those that are in as another version.
    ``unlabelled`` says which labels were not found for all members, and which files of labels have several for a key.
    ``requests`` were sent to S3 to read the archives, by which ``received`` bytes came in.
    ``path`` is the local file: ``output`` itself, or its working copy when it is in S3. ``synced`` is what syncing that has taken.
    """

    output: str
    run: str
    members: int
    rows: int
    rejects: int
    bytes: int
    batches: int
    skipped: int
    duplicates: int
    seconds: float
    damaged: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    requests: int = 0
    received: int = 0
    path: str = ""
    synced: Synced | None = None


def ingest(
    archives: str | Path | Sequence[str | Path],
    output: str | Path,
    config: Config | None = None,
    observe: Callable[[Progress], None] | None = None,
    start: Start | None = None,
) -> Report:
    """Converts archives into an HDF5 file and returns what was done.

    Goes on where an earlier run on the same archives ended, however it ended. ``observe`` is called after every commit.
    Memory does not grow with the archives: each worker holds one member at a time; as many batches as twice the workers are
    under way, and up to ``commit_bytes`` are staged.

    Raises InputError, ConfigError or OutputError for what cannot be used, BudgetExceeded for too many rejects, Interrupted
    when the user stopped it; what was committed stays.
    """
    with Ingest(archives, output, config or Config(), start or Start()) as run, direct_workers(run.config, run.folder) as convert:
        return run.run(convert, run.commit, observe)


class Ingest:
    """One run, prepared: output locked, archives planned. A context manager; leaving it removes what it worked with."""

    def __init__(self, archives: str | Path | Sequence[str | Path], output: str | Path, config: Config, start: Start | None = None) -> None:
        self.config = config
        self._given = [str(archive) for archive in ([archives] if isinstance(archives, str | Path) else archives)]
        self.record = RunRecord(str(uuid.uuid4()), config, time.time())
        aws.use(config.s3)
        self._traffic = aws.traffic()
        self._staged_traffic = (0, 0)
        self._start = start or Start()
        self.output = str(output)
        """Where the result goes: a path or, in S3, a URI."""
        self._in_s3 = SyncedOutput(self.output, config.s3) if is_remote(self.output) else None
        self.path = self._in_s3.path if self._in_s3 else Path(output)
        """The local file: the output, or its working copy."""
        self._output = Output(self.path, config, self._start.wait, self._start.restart, self._in_s3)
        self._hashing = ThreadPoolExecutor(1, "sha256")
        self._ready: list[tuple[Batch, Staged]] = []
        self._last_commit = 0.0  # so the first batch is committed when it is there, and the output can be looked at
        self._forget_plans()

    def _forget_plans(self) -> None:
        self.uris = list(self._given)
        self.progress = Progress()
        self.plans: list[Plan] = []
        """Of the archives that are not in yet."""
        self._records: dict[int, ArchiveRecord] = {}
        self._done: dict[int, int] = {}
        self._changed: list[str] = []
        self._unusable: list[str] = []
        self._hashes: dict[int, Future[str]] = {}

    def __enter__(self) -> Ingest:
        self._output.__enter__()
        try:
            self._prepare()
        except BaseException as exc:
            self._output.__exit__(type(exc), exc, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._hashing.shutdown(wait=False, cancel_futures=True)
        self._output.__exit__(kind, exc, trace)

    @property
    def folder(self) -> Path:
        """Where the run keeps what it works with."""
        return self._output.folder

    @property
    def took_over(self) -> bool:
        """Whether a run of this machine on the same output was killed before."""
        return self._output.took_over

    def _prepare(self) -> None:
        """Plans every archive before anything is converted, so that an unusable one is found at once."""
        if not self.uris:
            raise InputError("no archive given, expected at least one")
        self._refuse_other_configuration()
        seen: set[str] = set()
        for number, uri in enumerate(self.uris):
            archive = open_archive(uri, self.config.limits, self._output.own_paths)
            fingerprint = self._fingerprint(archive)
            known = self._output.history.find(fingerprint, self.config.digest())
            if fingerprint in seen or (known and known.complete):
                self.progress.skipped += known.members - known.further if known else 0
                archive.close()
                continue
            seen.add(fingerprint)
            self._plan(archive, number, Done(fingerprint, known.members, known.batches) if known else Done(fingerprint))
        self._count_plans()

    def _count_plans(self) -> None:
        self.progress.stored_total = sum(plan.stored for plan in self.plans)
        self._count_members()

    def _refuse_other_configuration(self) -> None:
        differences = self._output.history.differences(self.config)
        fixed = [line for line in differences if line.startswith("compression.filter")]  # of all chunks of a dataset
        if fixed or (differences and not self._start.new_run):
            way = "choose another output" if fixed else "choose another output, or say --new-run to add rows made in another way"
            raise OutputError(f"{self.output}: was made with another configuration ({'; '.join(fixed or differences)}); use that, {way}")

    def _fingerprint(self, archive: Archive) -> str:
        """The archive's fingerprint, or the one under which the same bytes came in: a copy is the same archive."""
        fingerprint, digest = archive.fingerprint(), self.config.digest()
        known = self._output.history.archives
        if archive.kind == "folder" or any(entry.fingerprint == fingerprint for entry in known):
            return fingerprint
        if any(entry.uri == archive.uri and entry.config_digest == digest for entry in known):
            self._changed.append(archive.uri)
        alike = {entry.sha256: entry.fingerprint for entry in known if entry.sha256 and entry.size == archive.size}
        return alike.get(sha256_of(archive.uri, archive.pin), fingerprint) if alike else fingerprint

    def _plan(self, archive: Archive, number: int, done: Done, only: Collection[str] | None = None) -> None:
        plan = Plan(archive, number, self.config, self._output.folder, done, only)
        self.plans.append(plan)
        self.progress.skipped += plan.members_of(done.members)
        self._done[number] = done.members
        self._records[number] = ArchiveRecord(archive.uri, archive.kind, archive.size, done.fingerprint, self.config.digest())
        if archive.kind != "folder":
            self._hashes[number] = self._hashing.submit(sha256_of, archive.uri, archive.pin)

    def _count_members(self) -> None:
        counts = [plan.members and plan.members_of(plan.members) - plan.members_of(plan.done.members) for plan in self.plans]
        self.progress.members_total = None if None in counts else sum(count or 0 for count in counts)

    def run(self, convert: Convert, commit: Commit, observe: Callable[[Progress], None] | None = None) -> Report:
        """Submits batches to ``convert``, a bounded number at a time, and gives what is staged to ``commit`` in archive order."""
        started = time.monotonic()
        if self._output.renew():  # while this run waited for its turn, another machine has synced
            self._forget_plans()
            self._prepare()
        with self._synced():
            self._run(convert, commit, observe or (lambda progress: None), started)
        return self._report(time.monotonic() - started)

    def _run(self, convert: Convert, commit: Commit, observe: Callable[[Progress], None], started: float) -> None:
        status = "failed"
        try:
            with _stop_on_interrupt() as stop:
                for _ in self._committed(convert, commit, stop):
                    self.progress.seconds = time.monotonic() - started
                    self.progress.synced = self._in_s3.took if self._in_s3 else None
                    observe(self.progress)
            status = "done"
        except Interrupted:
            status = "interrupted"
            if self._ready:
                self._commit_ready(commit)
            raise
        finally:
            self._end(status)

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """Syncs at the end what is committed, also when the run fails; that is then what is raised, and a failing sync noted with it."""
        try:
            yield
        except H5datError as exc:
            try:
                self._sync()
            except OutputError as unsynced:
                exc.add_note(str(unsynced))
            raise
        self._sync()

    def _sync(self) -> None:
        if self._in_s3:
            self._in_s3.finish()
            self.progress.synced = self._in_s3.took

    def commit(self, staged: list[Staged]) -> Committed:
        """Commits staged batches in one transaction; called again with the same, it adds nothing."""
        return self._output.commit(staged, self.record, self._records)

    def _committed(self, convert: Convert, commit: Commit, stop: threading.Event) -> Iterator[None]:
        """The loop: keeps a window of batches under way, and commits what is staged now and then, yielding after each commit."""
        window = 2 * self.config.worker_count + 2
        pending: deque[tuple[Batch, Pending]] = deque()
        for plan in self.plans:
            if self.config.duplicates == "skip":  # all that came before must be in, to be known
                yield from self._drained(pending, commit, stop)
            for batch in plan.batches(self._output.forms, self._known(plan)):
                pending.append((batch, _staged_before(batch) or convert(batch)))
                if len(pending) < window:
                    continue
                if self._is_due:  # now, that the workers have a full window to work on meanwhile
                    self._commit_ready(commit)
                    yield
                self._take_ready(pending, stop)
            self._count_members()
        yield from self._drained(pending, commit, stop)
        self._check_budget(at_end=True)

    def _drained(self, pending: deque[tuple[Batch, Pending]], commit: Commit, stop: threading.Event) -> Iterator[None]:
        while pending or self._ready:
            if self._is_due or not pending:
                self._commit_ready(commit)
                yield
            if pending:
                self._take_ready(pending, stop)

    def _known(self, plan: Plan) -> Path:
        """The file of what is in of other archives, by which duplicates are told; what an archive has twice in itself are none.

        To be counted, it is enough to know what was in before the run; to be left out, all that came before.
        """
        path = self.folder / f"{plan.number if self.config.duplicates == 'skip' else 0:05}.known"
        if self.config.duplicates == "skip" or not path.exists():
            own = {plan.done.fingerprint} if self.config.duplicates == "skip" else {each.done.fingerprint for each in self.plans}
            save_known(path, member_hashes(self.path, own) if self.path.exists() else ())
        return path

    def _take_ready(self, pending: deque[tuple[Batch, Pending]], stop: threading.Event) -> None:
        """Waits for the oldest batch, and takes it with those behind it that are ready."""
        batch, under_way = pending[0]
        staged: Staged | None = _wait(under_way, stop)
        while staged:
            self._ready.append((batch, staged))
            pending.popleft()
            if not pending:
                return
            batch, under_way = pending[0]
            staged = _result_now(under_way)

    @property
    def _is_due(self) -> bool:
        """Whether what is ready is worth a commit, whose cost does not depend on how much it is."""
        if not self._ready:
            return False
        size = sum(Path(path).stat().st_size for _, staged in self._ready for path in staged.paths)
        is_time = time.monotonic() - self._last_commit >= self.config.commit_seconds and not (self._in_s3 and self._in_s3.is_busy)
        return size >= self.config.commit_bytes or is_time

    def _commit_ready(self, commit: Commit) -> None:
        before = dict(self._done)
        for _, staged in self._ready:
            self._done[staged.archive] += staged.members
        self._note_complete()
        try:
            commit([staged for _, staged in self._ready])
        except BaseException:
            self._done = before
            self._note_complete()
            raise
        for batch, staged in self._ready:
            self._count(staged)
            _remove(batch, staged)
        self._ready.clear()
        self._last_commit = time.monotonic()
        self._check_budget()

    def _note_complete(self) -> None:
        """To be recorded in the same transaction as the last batch of an archive."""
        for plan in self.plans:
            self._records[plan.number].complete = plan.members == self._done[plan.number]

    def _count(self, staged: Staged) -> None:
        progress = self.progress
        progress.members += staged.members - bool(staged.continues)
        progress.stored += staged.stored
        progress.rows += staged.rows
        progress.rejects += staged.rejects
        progress.duplicates += staged.duplicates
        progress.bytes += staged.bytes
        progress.batches += 1
        self._staged_traffic = (self._staged_traffic[0] + staged.requests, self._staged_traffic[1] + staged.received)
        self._count_traffic()

    def _count_traffic(self) -> None:
        own = aws.traffic(self._traffic)
        self.progress.requests, self.progress.received = (sum(counts) for counts in zip(own, self._staged_traffic, strict=True))

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
        """Records the end of the run."""
        self._count_traffic()
        progress = self.progress
        self.record.status, self.record.end = status, time.time()
        self.record.counts = {name: getattr(progress, name) for name in self.record.counts}
        for number, digest in self._hashes.items():
            if status == "done" and digest.exception() is None:
                self._records[number].sha256 = digest.result()
        self._output.end_run(self.record, self._records)

    def _report(self, seconds: float) -> Report:
        progress = self.progress
        damaged = (*self._unusable, *(plan.damage for plan in self.plans if plan.damage))
        return Report(
            self.output, self.record.run_id, progress.members, progress.rows, progress.rejects,
            progress.bytes, progress.batches, progress.skipped, progress.duplicates, seconds, damaged, tuple(self._changed),
            tuple(remark for plan in self.plans for remark in plan.planner.labeller.remarks()), progress.requests, progress.received,
            str(self.path), progress.synced,
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


def _staged_before(batch: Batch) -> Pending | None:
    """The batch as a run that died had staged it; None when it had not."""
    if not Path(batch.stage).exists():
        return None
    try:
        staged = restaged(batch)
    except OutputError:
        return None  # the disk lost a part of it
    future: Future[Staged] = Future()
    future.set_result(staged)
    return future


def _remove(batch: Batch, staged: Staged) -> None:
    """Removes what only this batch needed: its staged files, and its spool."""
    for path in staged.paths:
        Path(path).unlink(missing_ok=True)
    if batch.spool:
        Path(batch.source).unlink(missing_ok=True)
        Path(batch.plan).unlink(missing_ok=True)


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
