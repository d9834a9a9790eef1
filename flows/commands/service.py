"""The commands that have Prefect run things by itself: `h5dat deploy`, `h5dat serve`, `h5dat watch`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from flows.server import Api

Prefix = Annotated[
    str,
    typer.Option("--prefix", envvar="H5DAT_PREFIX", metavar="PREFIX", help="Ingest what comes in here every night: a folder, or s3://..."),
]
Into = Annotated[
    str,
    typer.Option("--output", "-o", envvar="H5DAT_OUTPUT", metavar="FILE", help="Into this file; {stem} and {prefix} in it make several."),
]
Pool = Annotated[str, typer.Option("--pool", metavar="NAME", help="The work pool; it is made when there is none.")]
Notify = Annotated[
    str | None, typer.Option("--notify", metavar="TYPE/NAME", help="Tell of failures by this Prefect block, such as slack-webhook/ops.")
]


def deploy(prefix: Prefix = "", output: Into = "", pool: Pool = "h5dat", notify: Notify = None) -> None:
    """Register the flows on a Prefect server, with schedules and automations; workers of the pool run them. Again gives the same."""
    with _registering() as api:
        from deployments.definitions import Places
        from deployments.deploying import deploy as register

        for line in register(Places(_absolute(prefix), _absolute(output)), pool, notify):
            typer.echo(line)
    typer.echo(f"Look at it: {api.ui_url}/deployments\nRun it: prefect worker start --pool {pool}")


def serve(
    prefix: Prefix = "",
    output: Into = "",
    notify: Notify = None,
    rules: Annotated[Path | None, typer.Option("--rules", "-r", metavar="FILE", help="Also watch buckets, by these rules.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="URL", help="With --rules: the SQS queue; listings without one.")] = None,
) -> None:
    """Do all of it on this machine: register the flows, and run what is scheduled, asked for or lands, until interrupted."""
    watching = _watching(rules, queue) if rules else None
    with _registering() as api:
        from deployments.definitions import Places
        from deployments.deploying import serve as register_and_run

        register_and_run(
            Places(_absolute(prefix), _absolute(output)),
            notify,
            watching,
            lambda: typer.echo(f"Serving; look at it: {api.ui_url}/deployments"),
        )


def watch(
    rules: Annotated[Path, typer.Option("--rules", "-r", metavar="FILE", help="A JSON file: which archives go to which outputs.")],
    queue: Annotated[str | None, typer.Option("--queue", metavar="URL", help="An SQS queue that gets the bucket's notifications.")] = None,
    dead_letter: Annotated[
        str | None,
        typer.Option("--dead-letter", metavar="URL", help="Where messages go that cannot be used; else as the redrive policy says."),
    ] = None,
    prefix: Annotated[
        list[str] | None, typer.Option("--prefix", metavar="S3URI", help="List s3://bucket/folder/ again and again; may be repeated.")
    ] = None,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds from one listing to the next.")] = 30.0,
    via: Annotated[
        Literal["deployment", "direct"] | None,
        typer.Option("--via", help="Ingest by the server's deployment, or in this process; by the deployment if there is one."),
    ] = None,
    heartbeat: Annotated[
        Path | None, typer.Option("--heartbeat", metavar="FILE", help="Touched while the service lives, for health checks.")
    ] = None,
) -> None:
    """Ingest the archives that land in buckets, until it is stopped. Each goes in once, however often it is told of."""
    from flows.local import watch as run
    from h5dat_lib.config import checked
    from h5dat_lib.landing.rules import Watched, load_rules

    words = {"queue": queue, "dead_letter": dead_letter, "prefixes": prefix or (), "every": every, "via": via, "heartbeat": heartbeat}
    watched = checked(Watched, words, "watch")
    counts = run(load_rules(rules), watched, lambda line: typer.echo(line, err=True))
    typer.echo(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing landed")


def _watching(rules_file: Path, queue: str | None) -> dict[str, Any]:
    """The parameters of the flow `watch`; without a queue, what the rules are about is listed again and again."""
    from h5dat_lib.landing.rules import Watched, load_rules

    rules = load_rules(rules_file)
    prefixes = () if queue else tuple(dict.fromkeys(f"s3://{rule.bucket}/{rule.prefix}" for rule in rules.rules))
    found = {"rules": rules, "watched": Watched(queue=queue, prefixes=prefixes, via="deployment")}
    return {name: settings.model_dump(mode="json", by_alias=True, exclude_defaults=True) for name, settings in found.items()}


@contextmanager
def _registering() -> Iterator[Api]:
    """The API that stays, and this process as its client. Raises ServerError for one that does not answer, or says no."""
    from flows.prefect_client import service_environment
    from flows.server import ServerError
    from flows.standing_server import lasting

    api = lasting()
    os.environ.update(service_environment(api.url))
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError  # reads the environment

    try:
        yield api
    except (httpx.TransportError, PrefectHTTPStatusError) as exc:
        raise ServerError(f"Prefect server at {api.url}: found {type(exc).__name__} ({exc}); look at PREFECT_API_URL and its log") from exc


def _absolute(place: str) -> str:
    """Workers have other working folders than whoever says this."""
    from h5dat_lib.storage import is_remote

    return place if not place or is_remote(place) else os.path.abspath(place) + "/" * place.endswith("/")
