"""The deployments and automations, registered on the Prefect server: for the workers of a work pool, or served by this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterEndTime
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.runner import Runner
from prefect.states import Cancelled

from deployments import automations
from deployments.definitions import POOL, Places, deployments

__all__ = ["deploy", "serve"]

WATCH = "watch/watch"
"""The deployment that ingests what lands in buckets."""


def deploy(places: Places, pool: str = POOL, notify: str | None = None) -> list[str]:
    """Registers all deployments for a work pool, which is made when there is none, and the automations. Says what it did.

    Doing so again gives the same. Raises ConfigError for a block that is not there.
    """
    with get_client(sync_client=True) as client:
        done = _with_pool(client, pool)
        for deployment in deployments(client, places, pool):
            deployment.apply()
            done.append(f"deployed `{deployment.full_name}`")
        return done + automations.apply(client, notify)


def _with_pool(client: SyncPrefectClient, pool: str) -> list[str]:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        return [f"made work pool `{pool}`"]
    return []


def serve(places: Places, notify: str | None, watching: Mapping[str, Any] | None, announce: Callable[[], None]) -> None:
    """Registers all deployments and the automations, calls ``announce``, and runs what is to be run until it is told to stop.

    ``watching`` are the parameters of a run of the flow `watch`, which takes the place of one that there is. As many runs go on at once as
    the limits of the deployments allow in all, so that none waits for the place of one that waits for it.
    """
    with get_client(sync_client=True) as client:
        served = deployments(client, places)
        runner = Runner(name="h5dat-serve", pause_on_shutdown=False, limit=sum(each.concurrency_limit or 1 for each in served))
        for deployment in served:
            runner.add_deployment(deployment)
        automations.apply(client, notify)
        if watching:
            _watch(client, watching)
    announce()
    try:
        asyncio.run(runner.start())
    except (KeyboardInterrupt, TerminationSignal):
        return


def _watch(client: SyncPrefectClient, parameters: Mapping[str, Any]) -> None:
    deployment = client.read_deployment_by_name(WATCH).id
    going_on = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]), end_time=FlowRunFilterEndTime(is_null_=True))
    for former in client.read_flow_runs(flow_run_filter=going_on):
        client.set_flow_run_state(former.id, Cancelled(message="another one watches now"), force=True)
    client.create_flow_run_from_deployment(deployment, parameters=dict(parameters))
