"""Runs a flow on the Prefect server there is: the configured one, the one of `h5dat up`, or one started for the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from flows.prefect_client import client_environment
from flows.server import running_server
from h5dat_lib.config import Config
from h5dat_lib.pipeline import Ingest, Progress, Report, Start
from h5dat_lib.retrying import Retry

if TYPE_CHECKING:
    from h5dat_lib.landing.rules import Rules, Watched


def ingest(
    archives: str | Path | Sequence[str | Path],
    output: str | Path,
    config: Config | None = None,
    observe: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
    start: Start | None = None,
) -> Report:
    """Converts archives into an HDF5 file as a Prefect flow run: `h5dat_lib.ingest`, watched in the Prefect UI.

    ``announce`` is called with the address of the UI once it can be opened. Planning goes on while the server starts.
    To be called in a program's main thread, under ``if __name__ == "__main__":``, because the workers import the main
    module. Raises what `h5dat_lib.ingest` raises, and ServerError.
    """
    return _run(Ingest(archives, output, config or Config(), start), observe, announce)


def retry(
    output: str | Path,
    config: Config | None = None,
    observe: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Report:
    """Converts the rejects of an output again as a Prefect flow run: `h5dat_lib.retry`; see `ingest`."""
    return _run(Retry(output, config), observe, announce)


def _run(prepared: Ingest, observe: Callable[[Progress], None] | None, announce: Callable[[str], None] | None) -> Report:
    with running_server() as api, ExitStack() as stack:
        os.environ.update(client_environment(api.url))
        if prepared.config.s3.credentials_block:  # to plan it needs the server, and what is on it
            api.wait_until_healthy()
            from flows.credentials import use_credentials

            use_credentials(prepared.config.s3)
        run = stack.enter_context(prepared)
        # Prefect reads its settings when it is imported, and takes 2 s to import while the server is starting anyway.
        from flows.ingest_archives import run_prepared

        api.wait_until_healthy()
        if announce:
            announce(api.ui_url)
        return run_prepared(run, observe or (lambda progress: None))


def watch(rules: Rules, watched: Watched, tell: Callable[[str], None]) -> Mapping[str, int]:
    """Ingests what lands in buckets, until SIGTERM or Ctrl-C; ``tell`` is called with each line of what happens.

    Returns how many deliveries ended in which way. Raises ConfigError or InputError for what cannot be watched, and ServerError.
    """
    with running_server() as api:
        os.environ.update(client_environment(api.url))
        from flows.watch import serve

        api.wait_until_healthy()
        tell(f"watch it in the Prefect UI: {api.ui_url}")
        return serve(rules, watched, tell)
