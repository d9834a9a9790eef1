"""Batches -> staged batches, whatever a decoder does to the process that it runs in.

A pool of processes converts batches. A worker that dies, or has to be killed, breaks the pool: it is opened anew, and gets back
what was lost. The batch that the worker died at is converted in pieces, in a process of its own, until each member that
kills is alone and becomes a reject.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from h5dat_lib.config import Config
from h5dat_lib.errors import H5datError
from h5dat_lib.plan.batches import Batch
from h5dat_lib.stage.batch import Staged, out_of_memory, stage, start_worker
from h5dat_lib.stage.marks import NOWHERE, Place
from h5dat_lib.stage.pieces import Died, Pieces, stage_forked
from h5dat_lib.stage.watch import Death, Watch

_WAIT_SECONDS = 0.2
"""How long a batch is waited for before it is looked after the others."""
_MOST_BREAKS = 3
"""How often workers may die before they begin, one after the other, before the run is given up."""
_TRY = stage_forked if sys.platform == "linux" else stage
"""Converts a piece that may kill; macOS may end a process that goes on after a fork, so that there the worker itself dies."""


class Pending(Protocol):
    """A batch under way in a worker."""

    def result(self, timeout: float | None = None) -> Staged:
        """What was staged; raises TimeoutError when it is not there yet, and whatever the worker raised."""
        ...


Convert = Callable[[Batch], Pending]
StartWorker = Callable[[], None]
"""What a worker process calls before its first batch."""
OpenPool = Callable[[StartWorker], AbstractContextManager[Convert]]
"""Opens a pool of processes; the way of sending batches to it. Leaving it waits for the processes to end."""


@contextmanager
def direct_workers(config: Config, folder: Path) -> Iterator[Convert]:
    """Processes that convert, or threads, which share the fate of this process."""
    if config.task_runner == "threads":
        with ThreadPoolExecutor(config.worker_count) as threads:
            yield lambda batch: threads.submit(stage, batch)
        return
    with Workers(partial(process_pool, config.worker_count), config, folder) as workers:
        yield workers.submit


@contextmanager
def process_pool(count: int, start: StartWorker, work: Callable[[Batch], Staged] = stage) -> Iterator[Convert]:
    """The standard library's pool of processes."""
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), start) as pool:
        try:
            yield lambda batch: pool.submit(work, batch)
        finally:
            leave_to_workers(pool)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches no process that is started within: it would say where it was interrupted, before `start_worker` has it heed none."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_workers(pool: Any) -> None:
    """Closes this process's end of the pipe that workers read batches from, before the pool is left; nothing more may be sent to it.

    CPython before 3.11.5 keeps it open, so that a pool whose workers were ended while a batch was being sent to them waits for ever for
    somebody to read it (its issue 94777). Later ones close it themselves.
    """
    if sys.version_info < _MENDED and pool is not None:
        pool._call_queue._reader.close()


_MENDED = (3, 11, 5)


class _Crew:
    """A pool, opened when it is needed, and the marks of its workers."""

    def __init__(self, marks: str, open_pool: OpenPool, folder: Path, watch: Watch) -> None:
        self._marks = marks
        self._open_pool = open_pool
        self._folder = folder
        self._watch = watch
        self._stack = ExitStack()
        self._convert: Convert | None = None

    def open(self) -> Convert:
        """The way of sending batches to the pool, which is opened if it is not."""
        if self._convert is None:
            start = partial(start_worker, os.getpid(), str(self._folder / self._marks))
            self._convert = self._stack.enter_context(self._open_pool(start))
        return self._convert

    def submit(self, batch: Batch) -> Pending:
        """Sends a batch to a worker; never raises BrokenProcessPool, which is left to the result."""
        convert = self.open()
        try:
            with interrupts_held_back():  # the pool starts a process when a batch is sent and all others are busy
                return convert(batch)
        except BrokenProcessPool as exc:
            lost: Future[Staged] = Future()
            lost.set_exception(exc)
            return lost
        finally:
            self._watch.see()

    def close(self) -> list[Death]:
        """Ends the pool; of what its workers had died, if they had."""
        self._stack.close()
        self._convert = None
        return self._watch.deaths(self._marks)


@dataclass
class _Job:
    """A batch on its way: in the pool (``pending``), in pieces, or staged."""

    batch: Batch
    wait: Callable[[_Job, float | None], Staged] = field(repr=False)
    pending: Pending | None = None
    pieces: Pieces | None = None
    staged: Staged | None = None

    def result(self, timeout: float | None = None) -> Staged:
        """See `Pending`. Called in the thread that submits: it is what makes the workers go on."""
        return self.wait(self, timeout)


class Workers:
    """A pool of processes that survives what decoders do; a context manager, used from one thread.

    ``folder`` holds the marks of the workers. When left by an exception, what still runs is ended at once.
    Raises H5datError when workers die again and again without having begun a batch.
    """

    def __init__(self, open_pool: OpenPool, config: Config, folder: Path) -> None:
        self._config = config
        self._watch = Watch(folder)
        self._pool = _Crew("pool-", open_pool, folder, self._watch)
        self._alone = _Crew("alone-", partial(process_pool, 1, work=_TRY), folder, self._watch)
        self._jobs: dict[tuple[int, int], _Job] = {}
        self._apart: deque[_Job] = deque()
        self._trial: Pending | None = None
        self._breaks = 0

    def __enter__(self) -> Workers:
        self._watch.start()
        self._pool.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._watch.stop()
        if kind is not None:
            _end_workers()
        self._alone.close()
        self._pool.close()

    def submit(self, batch: Batch) -> Pending:
        """Sends a batch on its way. Its result raises neither BrokenProcessPool nor MemoryError."""
        job = _Job(batch, self._wait, self._pool.submit(batch))
        self._jobs[batch.archive, batch.number] = job
        return job

    def _wait(self, job: _Job, timeout: float | None) -> Staged:
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            self._go_on(job, max(min(left, _WAIT_SECONDS), 0))
            if job.staged:
                self._jobs.pop((job.batch.archive, job.batch.number), None)
                return job.staged
            if left <= 0:
                raise TimeoutError

    def _go_on(self, job: _Job, seconds: float) -> None:
        """Waits so long for a batch, or for one in pieces that comes before it."""
        self._try_apart(seconds if job.pieces else 0)
        if job.pending is None:
            return
        try:
            self._end(job, job.pending.result(seconds))
        except TimeoutError:
            pass
        except MemoryError:
            self._set_apart(job, self._memory_death())
        except (BrokenProcessPool, CancelledError):
            self._mend()

    def _end(self, job: _Job, staged: Staged) -> None:
        job.staged, job.pending, job.pieces = staged, None, None
        self._breaks = 0

    def _mend(self) -> None:
        """Replaces the broken pool. Batches that a worker died of are set apart, others that were lost sent again."""
        deaths = self._blamed(self._pool.close())
        for job in list(self._jobs.values()):
            if job.pending is None or self._has_ended(job, job.pending):
                continue
            if death := deaths.get((job.batch.archive, job.batch.number)):
                self._set_apart(job, death)
            else:
                job.pending = self._pool.submit(job.batch)

    def _has_ended(self, job: _Job, pending: Pending) -> bool:
        try:
            self._end(job, pending.result(0))
        except (BrokenProcessPool, CancelledError, TimeoutError):
            return False
        except MemoryError:
            self._set_apart(job, self._memory_death())
        return True

    def _blamed(self, deaths: list[Death]) -> dict[tuple[int, int], Death]:
        """Deaths by batch. Raises H5datError when workers die before they begin: that is no member's doing."""
        self._breaks = 0 if deaths else self._breaks + 1
        if self._breaks == _MOST_BREAKS:
            raise H5datError(
                f"found worker processes that died {_MOST_BREAKS} times before they had begun, expected them to run; look for what ends "
                "them (memory? a script without `if __name__ == '__main__':`?), and run the same command again"
            )
        return {(death.place.archive, death.place.batch): death for death in deaths}

    def _memory_death(self) -> Death:
        """Stands for a MemoryError behind the decoder, which costs the batch that it came from, but no worker."""
        return Death(Place(NOWHERE, NOWHERE, NOWHERE), out_of_memory(self._config.limits))

    def _set_apart(self, job: _Job, death: Death) -> None:
        job.pending, job.pieces = None, Pieces(job.batch, death)
        self._apart.append(job)

    def _try_apart(self, seconds: float) -> None:
        """Goes on with the first of the batches in pieces: waits so long for the piece that is being tried, and sends the next."""
        if not self._apart:
            return
        job = self._apart[0]
        assert job.pieces
        if job.pieces.next:
            self._try_piece(job.pieces, job.pieces.next, seconds)
        if not job.pieces.next:
            self._end(job, job.pieces.result())
            self._apart.popleft()
        if not self._apart:
            self._alone.close()

    def _try_piece(self, pieces: Pieces, piece: Batch, seconds: float) -> None:
        self._trial = self._trial or self._alone.submit(piece)
        try:
            pieces.add(self._trial.result(seconds))
        except TimeoutError:
            return
        except MemoryError:
            pieces.died(self._memory_death())
        except Died as exc:
            pieces.died(exc.args[0])
        except BrokenProcessPool:
            for death in self._blamed(self._alone.close()).values():
                pieces.died(death)
        self._trial = None


def _end_workers() -> None:
    """Ends the worker processes of this process at once; what they had not staged is staged anew by the next run."""
    for process in multiprocessing.active_children():
        process.terminate()
