"""The program that is a Prefect server of ours: serves the socket that it is given, on the migrated database, until it is told to stop.

Run as ``python -P server_process.py --fd N``, in the environment and the folder that :func:`flows.server.spawn` gives it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.home import locked, prefect_home, write
from flows.server_state import STOP_SECONDS

DRAIN_SECONDS = 10.0
"""How long a stopping server may write what it has received: 1 s after 200 task runs that ended at once."""

CONTENT_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob: http://{0} ws://{0}"
"""What a browser may load for the UI: this server and nothing else. Both UIs run under it."""


def _main() -> None:
    """The server process: one uvicorn with Prefect's application, no supervisor above it."""
    import argparse
    import gc

    gc.disable()  # until all is imported, and what was imported is never looked at again: 0.5 to 1.3 s less
    options = argparse.ArgumentParser()
    options.add_argument("--fd", type=int, required=True)
    options.add_argument("--detached", action="store_true")
    arguments = options.parse_args()
    if not arguments.detached:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.ExitStack() as migrating:
        app = _application(migrating)
        gc.freeze()
        gc.enable()
        _serve(app, socket.socket(fileno=arguments.fd))


def _end_with_parent() -> None:
    """Ends this process when the other end of its standard input is gone, which is when the parent is, however it ended.

    Unlike PR_SET_PDEATHSIG this works on macOS, too, and does not mistake the end of the launching thread for the end of its process.
    """
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def _application(migrating: contextlib.ExitStack) -> Any:
    """Prefect's application, with its database migrated once for each version of Prefect, and nothing fetched from elsewhere.

    *migrating* holds a lock from here until the application has started, if it has to migrate: two first runs at once must not.
    """
    if not _migrated():
        migrating.enter_context(locked(prefect_home() / "migrate.lock"))
    os.environ["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = str(not _migrated())
    from prefect.server.api import collections
    from prefect.server.api.server import create_app

    # The lists of known blocks and workers come from the copy that Prefect ships: a URL that cannot be asked for makes it fall back.
    collections.KNOWN_VIEWS.update(dict.fromkeys(collections.KNOWN_VIEWS, "none:"))
    app = create_app()
    app.add_middleware(_ContentPolicy, address=urlsplit(os.environ["PREFECT_SERVER_UI_API_URL"]).netloc)
    app.router.lifespan_context = _recorded(app.router.lifespan_context, migrating)
    return app


def _serve(app: Any, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[listener])


def _recorded(lifespan: Any, migrating: contextlib.ExitStack) -> Any:
    """Prefect's lifespan, which notes that the database is migrated, and whose services stop only when they have written what came in."""

    @contextlib.asynccontextmanager
    async def recorded(app: Any) -> AsyncIterator[None]:
        async with lifespan(app):
            write(_marker(), _prefect_version())
            migrating.close()
            yield
            await _drain()

    return recorded


async def _drain() -> None:
    """Waits until the services have handled every event; Prefect drops what is queued when they are stopped, and with it task runs."""
    import asyncio

    from prefect.server.utilities.messaging import memory

    end = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < end and any(topic["published"] > topic["consumed"] for topic in memory.METRICS.values()):
        await asyncio.sleep(0.02)


def _marker() -> Path:
    return prefect_home() / "migrated"


def _prefect_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("prefect")


def _migrated() -> bool:
    """Whether this version of Prefect has migrated the database: asking alembic takes 0.25 s and 13 MB."""
    database = prefect_home() / "prefect.db"
    return database.exists() and _marker().exists() and _marker().read_text() == _prefect_version()


class _ContentPolicy:
    """ASGI middleware: sends CONTENT_POLICY with every page."""

    def __init__(self, app: Any, address: str) -> None:
        self.app = app
        self.header = (b"content-security-policy", CONTENT_POLICY.format(address).encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self.header]
            await send(message)

        await self.app(scope, receive, send_with_policy)


if __name__ == "__main__":
    _main()
