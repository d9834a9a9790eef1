"""A Prefect server for one run: the API that is up already, or a server of our own, started for the run and stopped after it.

Three ways, tried in this order: the API that the user has configured; the server that ``h5dat up`` left running; a server of our own on
SQLite. All servers of ours keep their history in one database below :func:`flows.home.home`, so that a run made without ``h5dat up`` can be
looked at later.

    with running_server() as api:                       # returns at once, the server is starting
        plan = ...                                      # whatever needs no Prefect
        os.environ.update(client_environment(api.url))  # before the first import of prefect
        api.wait_until_healthy()
        ingest_flow(...)

Importing this module imports neither Prefect nor anything slow: the command line starts with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from flows.home import prefect_home
from flows.prefect_client import HOST, configured_api_url
from flows.server_state import STOP_SECONDS, Standing
from h5dat_lib.errors import H5datError

__all__ = ["START_SECONDS", "Api", "ServerError", "answers", "launch", "listen", "running_server", "spawn"]

START_SECONDS = 180.0
"""A first start migrates the database: 8 s more on two quiet cores, and a busy machine takes many times that."""
FLUSH_SECONDS = 30.0
PROGRAM = Path(__file__).absolute().with_name("server_process.py")

ALL_SERVERS = {
    # Nothing is sent to anybody: without these the server reports to sens-o-matic.prefect.io every ten minutes.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The older UI is what opens: the newer one asks amplitude.com for its configuration on every load (CONTENT_POLICY stops that, too).
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # Leases kept in memory die with the server, and a limit whose holder died as well would stay taken for good.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # One transaction for up to 50 task run events instead of one for each; what the UI shows is at most a second old.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_LOGGING_COLORS": "false",
    # A profile with an API of its own would make the server a client of that API.
    "PREFECT_PROFILE": "ephemeral",
}

ONE_RUN = {
    f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
    for service in ("SCHEDULER", "LATE_RUNS", "FOREMAN", "TRIGGERS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "CLEANUP_RECONCILER")
}
"""What serves deployments and workers, of which a single run has none. What records runs, events and leases stays on."""


class ServerError(H5datError):
    """A Prefect server that does not start, or is not ours to stop."""


@dataclass
class Api:
    """A Prefect API that a run may use. ``process`` and ``log`` are there only if the server is this run's own."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None

    @property
    def ui_url(self) -> str:
        """Where a browser looks at it; right for every server of ours, and for others that keep Prefect's paths."""
        return self.url.removesuffix("/").removesuffix("/api")

    def wait_until_healthy(self, timeout: float = START_SECONDS) -> None:
        """Returns when our own server answers; a server that is not ours was up before us. Raises ServerError."""
        if self.process is not None and not answers(self.url, self.process, timeout):
            raise ServerError(f"Prefect server at {self.url}: found {self._fate(timeout)}")

    def _fate(self, timeout: float) -> str:
        assert self.process is not None
        assert self.log is not None
        code = self.process.poll()
        found = f"no answer after {timeout:.0f} s" if code is None else f"it ended with code {code}"
        return f"{found}, its last line: {_last_line(self.log)}"

    def stop(self) -> None:
        """Stops our own server after it has written all that it received; leaves any other alone."""
        if self.process is None:
            return
        if self.process.poll() is None:
            _flush_client()
        _end(self.process)
        if self.log is not None:
            self.log.close()
        self.process = self.log = None


def launch() -> Api:
    """The API for a run, at once: a server of our own may still be starting."""
    if url := configured_api_url():
        return Api(url)
    if (standing := Standing.read()) and _healthy(standing.url, timeout=2.0):
        return Api(standing.url)
    log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the server
    process, url = spawn(listen(0), log, ONE_RUN)
    return Api(url, process, log)


@contextlib.contextmanager
def running_server() -> Iterator[Api]:
    """The API for a run; a server that was started for it is stopped at the end, however it ends."""
    api = launch()
    try:
        yield api
    finally:
        api.stop()


def listen(*ports: int) -> socket.socket:
    """A listening socket on the first port that is free; 0 is any."""
    for port in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(128)
        except OSError:
            listener.close()
            continue
        return listener
    raise ServerError(f"{HOST}: found no free port among {', '.join(map(str, ports))}")


def spawn(
    listener: socket.socket, log: IO[bytes], settings: dict[str, str], *, detached: bool = False
) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a server on *listener* and gives its API's URL.

    The child inherits the socket: no other program can take the port between, and a request made too early waits instead of being refused.
    Its standard input is a pipe from us, so that it sees us die, by whatever signal. A session of its own keeps the terminal's Ctrl-C away.
    """
    port = listener.getsockname()[1]
    command = [sys.executable, "-P", str(PROGRAM), "--fd", str(listener.fileno())]
    with listener:
        process = subprocess.Popen(
            command + ["--detached"] * detached,
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(),),
            cwd=prefect_home(),  # away from the user's prefect.toml, and from a folder that may have to be unmounted
            env=_server_environment(port, settings),
            start_new_session=True,
        )
    return process, f"http://{HOST}:{port}/api"


def _server_environment(port: int, settings: dict[str, str]) -> dict[str, str]:
    """Ours alone decides: a PREFECT_* of the user's is meant for the user's own server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    source = str(PROGRAM.parent.parent)
    return kept | ALL_SERVERS | settings | {
        "PREFECT_HOME": str(prefect_home()),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
    }  # fmt: skip


def answers(url: str, process: subprocess.Popen[bytes] | Standing, timeout: float) -> bool:
    """Whether the server says within *timeout* seconds that it is healthy; False at once when its process ends."""
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0 and process.poll() is None:
        if _healthy(url, left):  # the request waits in the socket that we gave the server, so this is no polling
            return True
        time.sleep(0.02)
    return False


def _healthy(url: str, timeout: float) -> bool:
    """One request, past any proxy."""
    import http.client  # 30 ms

    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or HOST, address.port, timeout=timeout)
    try:
        connection.request("GET", f"{address.path}/health")
        return connection.getresponse().read() == b"true"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_line(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "(none)")


def _flush_client() -> None:
    """Has Prefect's client in this process send the events and log records that it still holds.

    They are sent by threads that outlive the flow. Were the server gone first, they would try again for 7 s with each event, and hold up
    the end of the process all that time.
    """
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=FLUSH_SECONDS, at_exit=False)
    APILogWorker.drain_all(timeout=FLUSH_SECONDS, at_exit=False)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
