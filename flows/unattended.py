"""What holds for runs that nobody watches: which failures are tried again, which paths mean something, and what is told to whom asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy
from prefect.events import emit_event

from h5dat_lib.errors import BudgetExceeded, H5datError, InputError
from h5dat_lib.pipeline import Ingest
from h5dat_lib.storage import aws, is_remote

__all__ = ["OVER_BUDGET", "final_failures", "refuse_relative", "tell_of_rejects"]

OVER_BUDGET = "h5dat.rejects.over_budget"
"""The event of a run that ended because more was rejected than `max_rejects` allows."""
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


@contextmanager
def final_failures() -> Iterator[None]:
    """A run that fails for a reason that lasts (a setting, an archive, an output that cannot be used) is not tried again by Prefect."""
    try:
        yield
    except H5datError as exc:
        if not _may_pass(exc.__cause__) and runtime.flow_run.id:
            with get_client(sync_client=True) as client:
                client.update_flow_run(runtime.flow_run.id, empirical_policy=FlowRunPolicy(retries=0, retry_delay=0))
        raise


def _may_pass(cause: BaseException | None) -> bool:
    return (isinstance(cause, OSError) and not isinstance(cause, _LASTING)) or aws.is_passing(cause)


def refuse_relative(*places: str) -> None:
    """Raises InputError for a relative path in a run of a deployment: its worker runs in a folder that is gone afterwards."""
    for place in places:
        if runtime.deployment.id and not is_remote(place) and not PurePath(place).is_absolute():
            raise InputError(f"{place}: found a relative path, expected an absolute one or s3://bucket/key; give it from / on")


def tell_of_rejects(run: Ingest, exc: BudgetExceeded) -> None:
    """Sends the event OVER_BUDGET, for the automation `h5dat: tell of rejects`."""
    resource = {"prefect.resource.id": f"h5dat.output.{run.output}", "prefect.resource.name": str(run.output)}
    payload = {"message": str(exc), "members": run.progress.members, "rejects": run.progress.rejects}
    emit_event(OVER_BUDGET, resource, payload=payload)
