"""The flow that ingests what lies below a prefix: lists the archives, and has each ingested by a run of its own, a few at a time."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, cast
from uuid import UUID, uuid5

from prefect import flow, runtime
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.types._datetime import now
from pydantic import Field

from flows.credentials import use_credentials
from flows.ingest_archives import ingest_archives
from flows.unattended import final_failures, refuse_relative
from h5dat_lib.config import Config
from h5dat_lib.errors import InputError
from h5dat_lib.landing.destined import Destined, destined, lacking
from h5dat_lib.storage import aws

INGEST_ARCHIVE = "ingest archives/ingest-archive"
"""The deployment whose runs ingest one archive each."""
_DEFAULTS = Config()
_POLL_SECONDS = 2.0
_REVIVED = timedelta(seconds=90)
"""How long a crashed run may take to be scheduled again, by the automation that does so."""
_MOST_SHOWN = 1000
"""Archives in the artifact; those that failed come first."""


@dataclass(frozen=True)
class Ingested:
    """What became of an archive: the name of the state that its run ended in, and its message."""

    archive: str
    output: str
    state: str
    message: str = ""

    @property
    def done(self) -> bool:
        """Whether it is in."""
        return self.state in _DONE


_IN_ALREADY = "in already"
_DONE = (_IN_ALREADY, "Completed")


@flow(name="ingest prefix", flow_run_name="{prefix}", persist_result=False, retries=1, retry_delay_seconds=60)
def ingest_prefix(
    prefix: str, output: str, pattern: str = "**", config: Config = _DEFAULTS, at_once: Annotated[int, Field(ge=1)] = 2
) -> State[Any]:
    """Ingests every archive below a prefix that is not in its output yet, each by a run of `ingest archives`.

    The runs are those of the deployment `ingest-archive`, so that any worker takes them; where it is not deployed they run here, one
    after the other. Fails when one of them did not complete, after all have ended.

    Args:
        prefix: Where archives lie: an absolute path of a folder, or `s3://bucket/prefix/`. Folders below it are looked into, too.
        output: The HDF5 file for all of them; or, with {stem} (name of the archive) and {prefix} (its folders) in it, one for each.
        pattern: Which archives, by their path below the prefix. `*` stays within a folder, `**` crosses folders.
        config: How members become rows. What is left as it is has the default.
        at_once: How many runs go on at the same time. Those into the same output wait for each other.
    """
    with final_failures():
        refuse_relative(prefix, output)
        use_credentials(config.s3)
        aws.use(config.s3)
        found = destined(prefix, output, pattern)
        wanted = lacking(found, config)
        get_run_logger().info("%d archives below %s, %d of them are in already", len(found), prefix, len(found) - len(wanted))
        there = [Ingested(each.archive, each.output, _IN_ALREADY) for each in found if each not in set(wanted)]
        return _told(prefix, there + _ingested(wanted, config, at_once))


def _ingested(wanted: list[Destined], config: Config, at_once: int) -> list[Ingested]:
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(INGEST_ARCHIVE)
        except ObjectNotFound:
            return [_ingested_here(each, config) for each in wanted]
        return _ingested_by_runs(client, wanted, config, at_once)


def _ingested_here(each: Destined, config: Config) -> Ingested:
    return _outcome(each, ingest_archives([each.archive], each.output, config, return_state=True))


def _ingested_by_runs(client: SyncPrefectClient, wanted: list[Destined], config: Config, at_once: int) -> list[Ingested]:
    todo, under_way, ended = deque(wanted), dict[UUID, Destined](), list[Ingested]()
    while todo or under_way:
        while todo and len(under_way) < at_once:
            each = todo.popleft()
            under_way[_run_of(each, config)] = each
        time.sleep(_POLL_SECONDS)
        ended += [_outcome(under_way.pop(run), state) for run, state in _ended(client, under_way).items()]
    return ended


def _run_of(each: Destined, config: Config) -> UUID:
    """The run of an archive. The same when this flow run asks again, because it is retried or was continued after a crash."""
    key = uuid5(UUID(runtime.flow_run.id), f"{each.archive}\n{each.output}")
    parameters = {"archives": [each.archive], "output": each.output, "config": json.loads(config.to_json())}
    return cast(FlowRun, run_deployment(INGEST_ARCHIVE, parameters=parameters, timeout=0, idempotency_key=str(key))).id


def _ended(client: SyncPrefectClient, runs: Iterable[UUID]) -> dict[UUID, State[Any]]:
    """The states of those that have ended, for good."""
    found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(runs))))
    return {run.id: run.state for run in found if run.state and _for_good(run.state)}


def _for_good(state: State[Any]) -> bool:
    return state.is_final() and not (state.is_crashed() and now("UTC") - state.timestamp < _REVIVED)


def _outcome(each: Destined, state: State[Any]) -> Ingested:
    return Ingested(each.archive, each.output, state.name or str(state.type.value), state.message or "")


def _told(prefix: str, all_: list[Ingested]) -> State[Any]:
    """Publishes what became of each archive. Raises InputError when one is not in."""
    all_.sort(key=lambda each: (each.done, each.archive))
    table = [{"archive": each.archive, "output": each.output, "state": each.state, "message": each.message} for each in all_[:_MOST_SHOWN]]
    create_table_artifact(table, key="h5dat-prefix", description=f"What became of {len(all_)} archives below {prefix}")
    failed = [each for each in all_ if not each.done]
    if failed:
        raise InputError(f"{len(failed)} of {len(all_)} archives are not in; the first: {failed[0].archive}: {failed[0].message}")
    return Completed(message=f"{len(all_)} archives are in, {sum(each.state != _IN_ALREADY for each in all_)} of them by this run")
