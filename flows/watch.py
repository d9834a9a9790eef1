"""The service that watches buckets, with Prefect: each archive that lands is an event, and a flow run ingests it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from httpx import HTTPError, HTTPStatusError
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events import Event, Resource
from prefect.exceptions import ObjectNotFound, PrefectException, TerminationSignal
from prefect.logging import get_run_logger

from flows.display import synced_in_words
from flows.home import home
from flows.ingest_archives import ingest_archives
from h5dat_lib.errors import ConfigError, Interrupted, Unavailable
from h5dat_lib.landing.deliveries import Deliveries, FromListing, FromQueue, Outcome
from h5dat_lib.landing.landed import EVENT, Landed
from h5dat_lib.landing.loop import Ingest, Landing
from h5dat_lib.landing.rules import Goal, Rules, Via, Watched
from h5dat_lib.landing.seen import Seen
from h5dat_lib.pipeline import Report
from h5dat_lib.storage import aws
from h5dat_lib.storage.queue import Queue

_INGEST = ingest_archives.with_options(retries=0, timeout_seconds=0)
"""Tried again by the service itself."""
_PASSING = (401, 408, 409, 429)
"""Answers after which the same again may work; the password of a server is changed while it runs."""
DEPLOYMENT = "ingest archives/ingest-archive"
_NAMESPACE = uuid.UUID("6a1f0f0e-1c7a-5d0e-9a63-0d9f3b6f7c11")
"""Of the ids of events: the same object gives the same event, however often it is told of."""


@flow(name="watch", persist_result=False)
def watch(rules: Rules, watched: Watched) -> dict[str, int]:
    """Ingests what lands in buckets, until it is stopped; returns how many deliveries ended in which way."""
    logger = get_run_logger()
    counts = serve(rules, watched, logger.info, _publish)
    logger.info("stopped: %s", _said(counts))
    return dict(counts)


def serve(
    rules: Rules, watched: Watched, tell: Callable[[str], None], observe: Callable[[Mapping[str, int]], None] = lambda counts: None
) -> Mapping[str, int]:
    """The service without a flow run around it. Raises ConfigError and InputError for what cannot be watched."""
    landing = Landing(rules, _sources(rules, watched), ingest_via(watched.via), tell, observe, watched.heartbeat)
    landing.run()
    return landing.counts


def _sources(rules: Rules, watched: Watched) -> list[Deliveries]:
    sources: list[Deliveries] = [FromQueue(Queue(watched.queue, watched.dead_letter))] if watched.queue else []
    for uri in watched.prefixes:
        bucket, prefix = aws.split(uri)
        sources.append(FromListing(bucket, prefix, watched.every, rules, Seen(home() / "seen.sqlite")))
    return sources


def _publish(counts: Mapping[str, int]) -> None:
    create_table_artifact([dict(counts)], key="h5dat-watch", description="Deliveries that were answered for, by what came of them")


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing landed"


# The two ways in which an archive is ingested


def ingest_via(via: Via | None) -> Ingest:
    """What ingests archives in a way, or in the one that the server has, found out when the first archive lands."""
    found: list[Ingest] = []

    def ingest(goal: Goal, some: Sequence[Landed]) -> Outcome:
        if not found:
            found.append(_WAYS[via or _via_of_server()])
        return found[0](goal, some)

    return ingest


def _via_of_server() -> Via:
    with _server() as client:
        return "deployment" if _deployment(client) else "direct"


def by_deployment(goal: Goal, some: Sequence[Landed]) -> Outcome:
    """Has the server make a flow run for each archive, once for good: the same archive into the same output gives the run that there is."""
    with _server() as client:
        deployment = _deployment(client)
        if deployment is None:
            raise ConfigError(f"watch: found no deployment {DEPLOYMENT!r} on the server, expected one; make it with `h5dat deploy`")
        for landed in some:
            _emit(client, goal, landed, "deployment")
            parameters = {"archives": [landed.archive], "output": goal.output, "config": _plain(goal)}
            client.create_flow_run_from_deployment(deployment.id, parameters=parameters, idempotency_key=_key(goal, landed))
    return Outcome("handed over", f"to {DEPLOYMENT!r}")


def directly(goal: Goal, some: Sequence[Landed]) -> Outcome:
    """Runs the flow in this process on archives of one output; they are in, and synced, when it returns."""
    with _server() as client:
        for landed in some:
            _emit(client, goal, landed, "direct")
        try:
            state = _INGEST([landed.archive for landed in some], goal.output, goal.config, return_state=True)
        except TerminationSignal as exc:  # how Prefect takes SIGTERM while a flow run begins or ends
            raise Interrupted("stopped; what is committed is kept, and what landed comes again") from exc
    if state.is_cancelled():
        raise Interrupted(state.message)
    with _answered():
        report = cast(Report, state.result())
    return Outcome("ingested" if report.batches else "known", "; ".join([_told(report, len(some)), *report.damaged]))


def _told(report: Report, archives: int) -> str:
    """What a run did, in a few words."""
    synced = [synced_in_words(report.synced)] if report.synced else []
    return ", ".join([f"{report.rows:,} rows, {report.rejects:,} rejects of {archives} archives", *synced])


_WAYS: dict[Via, Ingest] = {"deployment": by_deployment, "direct": directly}


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """A client of the server; what it cannot do now is Unavailable, what it will never do ConfigError."""
    with _answered(RuntimeError), get_client(sync_client=True) as client:  # that is what it raises when it finds no server
        yield client


@contextmanager
def _answered(*kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (HTTPError, PrefectException, *kinds) as exc:  # type: ignore[misc]
        line = f"Prefect: found {type(exc).__name__} ({str(exc).splitlines()[0]}), expected it to do as asked; look at the server"
        status = exc.response.status_code if isinstance(exc, HTTPStatusError) else 500
        raise (Unavailable if status >= 500 or status in _PASSING else ConfigError)(line) from exc


def _deployment(client: SyncPrefectClient) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(DEPLOYMENT)
    except ObjectNotFound:
        return None


def _emit(client: SyncPrefectClient, goal: Goal, landed: Landed, via: Via) -> None:
    """Posts the event of an object. An automation can tell by `h5dat.via` that somebody sees to its ingest already."""
    labels = {"prefect.resource.id": landed.uri, "prefect.resource.name": landed.key, "h5dat.via": via, "h5dat.rule": goal.rule}
    payload = {
        "bucket": landed.bucket, "key": landed.key, "version": landed.version, "etag": landed.etag, "size": landed.size,
        "output": goal.output, "archive": landed.archive, "config": _plain(goal),
    }  # fmt: skip
    identity = json.dumps([*landed.identity, goal.output])
    event = Event(event=EVENT, resource=Resource(labels), payload=payload, id=uuid.uuid5(_NAMESPACE, identity))
    client.request("POST", "/events", json=[event.model_dump(mode="json")])


def _key(goal: Goal, landed: Landed) -> str:
    return hashlib.sha256(json.dumps([*landed.identity, goal.output]).encode()).hexdigest()


def _plain(goal: Goal) -> dict[str, Any]:
    """A configuration as a parameter: what is not as by default."""
    return goal.config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
