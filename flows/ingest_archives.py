"""The flow that ingests archives: batches to a pool of workers, commits one after the other, and what the UI shows of it.

`carry_out` is the same for every run on an output, whatever prepared it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, cast
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.exceptions import PrefectHTTPStatusError
from prefect.futures import PrefectConcurrentFuture
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Crashed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.credentials import use_credentials
from flows.display import synced_in_words
from flows.prefect_client import worker_environment
from flows.unattended import final_failures, refuse_relative, tell_of_rejects
from h5dat_lib.config import Config
from h5dat_lib.errors import BudgetExceeded, Interrupted
from h5dat_lib.pipeline import Ingest, Progress, Report, Start
from h5dat_lib.plan.batches import Batch
from h5dat_lib.stage.batch import Staged
from h5dat_lib.stage.workers import Convert, Pending, StartWorker, Workers, leave_to_workers
from h5dat_lib.storage import is_remote
from tasks.artifacts import ProgressArtifact, publish_result
from tasks.batches import commit_batches, convert_batch

_LEASE_SECONDS = 60
"""How long the limit of an output stays taken after its holder was killed."""

_DEFAULTS = Config()

Observe = Callable[[Progress], None]

_prepared: ContextVar[tuple[Ingest, Observe] | None] = ContextVar("prepared", default=None)
"""A run that was prepared while the server started, and who else wants its progress; a deployment prepares its own."""


def run_prepared(run: Ingest, observe: Observe) -> Report:
    """Runs the flow on an ingest that is prepared already. Raises what the flow raised, and Interrupted when it was stopped."""
    token = _prepared.set((run, observe))
    try:
        # A prepared ingest runs once; only a flow run that prepares its own can be retried.
        state = ingest_archives.with_options(retries=0)(run.uris, run.output, run.config, return_state=True)
    finally:
        _prepared.reset(token)
    if state.is_cancelled():
        raise Interrupted(state.message)
    return cast(Report, state.result())


@flow(name="ingest archives", flow_run_name="{output}", persist_result=False, retries=2, retry_delay_seconds=60)
def ingest_archives(archives: list[str], output: str, config: Config = _DEFAULTS) -> Report | State[Any]:
    """Converts archives into an HDF5 file; a run that was stopped ends as Cancelled.

    Batches run in a pool of workers, at most twice as many at once as workers; the flow commits them in archive order.
    Across flow runs one writer an output is kept by a concurrency limit of the server, under it by a lock on the machine.

    Args:
        archives: Zip, tar, tar.gz/bz2/xz/zst, gz, folder or single file each: an absolute path, or `s3://bucket/key`.
        output: The HDF5 file; new archives are added to one that is there. An absolute path, or `s3://bucket/key.h5`.
        config: How members become rows. What is left as it is has the default.
    """
    with final_failures(), _run_of(archives, output, config) as (run, observe):
        return carry_out(run, observe)


def carry_out(run: Ingest, observe: Observe | None = None) -> Report | State[Any]:
    """Runs a prepared ingest in the current flow run, as the only writer of its output, and publishes what it made."""
    with _one_writer(run):
        logger = get_run_logger()
        logger.info("%d archives into %s, %d workers", len(run.plans), run.output, run.config.worker_count)
        try:
            report = _run(run, observe or (lambda progress: None))
        except Interrupted as exc:
            return Cancelled(message=str(exc))
        except BudgetExceeded as exc:
            tell_of_rejects(run, exc)
            raise
        logger.info("%d members, %d rows, %d rejects in %.1f s", report.members, report.rows, report.rejects, report.seconds)
        if report.synced:
            logger.info("%s: %s", report.output, synced_in_words(report.synced))
    if report.batches:
        publish_result(report)
    return report


def _run(run: Ingest, observe: Observe) -> Report:
    artifact = ProgressArtifact(run.output)

    def show(progress: Progress) -> None:
        artifact(progress)
        observe(progress)

    with _RUNNERS[run.config.task_runner](run) as convert:
        report = run.run(convert, lambda staged: commit_batches(run.commit, staged), show)
    artifact.finish(run.progress)
    return report


@contextmanager
def _in_threads(run: Ingest) -> Iterator[Convert]:
    runner: TaskRunner[PrefectConcurrentFuture[Staged]] = ThreadPoolTaskRunner(run.config.worker_count)
    with runner as pool:
        yield lambda batch: pool.submit(convert_batch, {"batch": batch})


@contextmanager
def _in_processes(run: Ingest) -> Iterator[Convert]:
    lost: list[UUID] = []
    os.environ.update(worker_environment())
    try:
        with Workers(partial(_process_pool, run.config.worker_count, lost), run.config, run.folder) as workers:
            yield workers.submit
    finally:
        if lost:
            _record_crashed(lost)


@contextmanager
def _process_pool(count: int, lost: list[UUID], start: StartWorker) -> Iterator[Convert]:
    """Prefect's pool of processes. The task runs that it loses are added to ``lost``: they would be Running for good."""

    def submit(batch: Batch) -> Pending:
        future = pool.submit(convert_batch, {"batch": batch})
        future.wrapped_future.add_done_callback(partial(note, future.task_run_id))
        return future

    def note(task_run: UUID, future: Future[Staged]) -> None:
        if isinstance(future.exception(), BrokenProcessPool | CancelledError):
            lost.append(task_run)

    with ProcessPoolTaskRunner(count, initializer=start) as pool:
        # A worker that dies while it sends a log record keeps the lock of this queue: nobody may wait for it at the end.
        cast(Any, pool)._subprocess_message_queue.cancel_join_thread()
        try:
            yield submit
        finally:
            leave_to_workers(cast(Any, pool)._executor)


def _record_crashed(task_runs: list[UUID]) -> None:
    state: State[Any] = Crashed(message="its worker process has ended; the batch is converted anew, or by the next run")
    with get_client(sync_client=True) as client:
        for task_run in task_runs:
            with suppress(PrefectHTTPStatusError):  # the worker had not said yet that it has begun
                client.set_task_run_state(task_run, state, force=True)


_RUNNERS: dict[str, Callable[[Ingest], AbstractContextManager[Convert]]] = {"processes": _in_processes, "threads": _in_threads}
"""What runs the batches, by its name in the configuration. Threads share the fate of the flow's process, whatever a decoder does to it."""


@contextmanager
def _run_of(archives: list[str], output: str, config: Config) -> Iterator[tuple[Ingest, Observe]]:
    found = _prepared.get()
    if found:
        yield found
        return
    refuse_relative(*archives, output)
    use_credentials(config.s3)
    with Ingest(archives, output, config, Start(wait=True)) as run:
        yield run, lambda progress: None


@contextmanager
def _one_writer(run: Ingest) -> Iterator[None]:
    """Holds the server's limit of one for this output; waits while a flow run on another machine has it.

    A run that was killed on this machine, whose lock we took over, would keep it until its lease ends.
    """
    output = run.output if is_remote(run.output) else os.path.abspath(run.output)
    name = f"h5dat-writer-{output}".replace("/", "-")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
        if run.took_over:
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))
    with concurrency(name, occupy=1, strict=True, lease_duration=_LEASE_SECONDS):
        yield
