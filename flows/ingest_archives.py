"""The flow that ingests archives: batches to a pool of workers, commits one after the other, and what the UI shows of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger
from prefect.states import Cancelled
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from h5dat_lib.config import Config
from h5dat_lib.errors import Interrupted
from h5dat_lib.pipeline import Ingest, Progress, Report, end_workers
from h5dat_lib.stage import start_worker
from tasks.artifacts import ProgressArtifact, publish_result
from tasks.batches import commit_batches, convert_batch

_LEASE_SECONDS = 60
"""How long the limit of an output stays taken after its holder was killed."""

Observe = Callable[[Progress], None]

_prepared: ContextVar[tuple[Ingest, Observe] | None] = ContextVar("prepared", default=None)
"""A run that was prepared while the server started, and who else wants its progress; a deployment prepares its own."""


def run_prepared(run: Ingest, observe: Observe) -> Report:
    """Runs the flow on an ingest that is prepared already. Raises what the flow raised, and Interrupted when it was stopped."""
    token = _prepared.set((run, observe))
    try:
        state = ingest_archives(run.uris, str(run.output), run.config, return_state=True)
    finally:
        _prepared.reset(token)
    if state.is_cancelled():
        raise Interrupted(state.message)
    return cast(Report, state.result())


@flow(name="ingest archives", flow_run_name="{output}", persist_result=False)
def ingest_archives(archives: list[str], output: str, config: Config) -> Report | State[Any]:
    """Converts archives into an HDF5 file; a run that was stopped ends as Cancelled.

    Batches run in a pool of workers, at most twice as many at once as workers; the flow commits them in archive order.
    Across flow runs one writer an output is kept by a concurrency limit of the server, under it by a lock on the machine.
    """
    with _one_writer(output), _run_of(archives, output, config) as (run, observe):
        logger = get_run_logger()
        logger.info("%d archives into %s, %d workers", len(run.plans), output, config.worker_count)
        try:
            report = _run(run, observe)
        except Interrupted as exc:
            return Cancelled(message=str(exc))
        logger.info("%d members, %d rows, %d rejects in %.1f s", report.members, report.rows, report.rejects, report.seconds)
    if report.batches:
        publish_result(report)
    return report


def _run(run: Ingest, observe: Observe) -> Report:
    artifact = ProgressArtifact(run.output)

    def show(progress: Progress) -> None:
        artifact(progress)
        observe(progress)

    with _RUNNERS[run.config.task_runner](run.config) as pool:
        try:
            report = run.run(
                lambda batch: pool.submit(convert_batch, {"batch": batch}),
                lambda staged: commit_batches(run.commit, staged),
                show,
            )
        except BaseException:
            end_workers()
            raise
    artifact.finish(run.progress)
    return report


_RUNNERS: dict[str, Callable[[Config], TaskRunner[Any]]] = {
    "processes": lambda config: ProcessPoolTaskRunner(config.worker_count, initializer=start_worker, initargs=(os.getpid(),)),
    "threads": lambda config: ThreadPoolTaskRunner(config.worker_count),
}
"""What runs the batches, by its name in the configuration."""


@contextmanager
def _run_of(archives: list[str], output: str, config: Config) -> Iterator[tuple[Ingest, Observe]]:
    found = _prepared.get()
    if found:
        yield found
        return
    with Ingest(archives, output, config) as run:
        yield run, lambda progress: None


@contextmanager
def _one_writer(output: str) -> Iterator[None]:
    """Holds the server's limit of one for this output; waits while another flow run has it."""
    name = f"h5dat-writer-{os.path.abspath(output)}".replace("/", "-")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
    with concurrency(name, occupy=1, strict=True, lease_duration=_LEASE_SECONDS):
        yield
