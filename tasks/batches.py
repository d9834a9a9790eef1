"""The two steps of an ingest as Prefect tasks: convert a batch (in the pool), commit staged batches (in the flow, one at a time)."""

from __future__ import annotations

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.logging import get_run_logger

from h5dat_lib.commit.transaction import Committed
from h5dat_lib.errors import OutputError
from h5dat_lib.pipeline import Commit
from h5dat_lib.plan.batches import Batch
from h5dat_lib.stage.batch import Staged, stage
from h5dat_lib.storage import aws


def may_pass(task: Task[..., object], run: TaskRun, state: State[object]) -> bool:
    """Whether a failure is worth another try: reading may fail for a moment, as S3 may be away; a full disk or a wrong setting stays."""
    try:
        state.result()
    except OutputError:
        return False
    except Exception as exc:
        return isinstance(exc, OSError) or isinstance(exc.__cause__, OSError) or aws.is_passing(exc.__cause__)
    return False


@task(
    name="convert batch",
    task_run_name="batch {batch.archive}-{batch.number}",
    retries=3,
    retry_delay_seconds=[1, 5, 25],
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def convert_batch(batch: Batch) -> Staged:
    """Converts a batch into its staged file; runs in a worker."""
    staged = stage(batch)
    get_run_logger().info(
        "batch %d-%d: %d members, %d rows, %d rejects, %.1f MB in %.1f s",
        batch.archive, batch.number, staged.members, staged.rows, staged.rejects, staged.bytes / 1e6, staged.seconds,
    )  # fmt: skip
    return staged


@task(name="commit batches", task_run_name="commit", cache_policy=NO_CACHE, persist_result=False)
def commit_batches(commit: Commit, staged: list[Staged]) -> Committed:
    """Commits staged batches in one transaction; runs in the flow's own thread, so there is one writer."""
    committed = commit(staged)
    batches = ", ".join(f"{batch.archive}-{batch.number}" for batch in staged)
    get_run_logger().info("committed batches %s: %d rows, %d rejects", batches, committed.rows, committed.rejects)
    return committed
