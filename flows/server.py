"""What a run needs of Prefect: the URL of an API that is up, and the environment that its client is to start with.

Three ways, tried in this order: the API that the user has configured; the server that ``h5dat up`` left running; a server of our own on
SQLite, started for one run and stopped after it. All servers of ours keep their history in one database below :func:`home`, so that a run
made without ``h5dat up`` can be looked at later.

    with running_server() as api:                       # returns at once, the server is starting
        plan = ...                                      # whatever needs no Prefect
        os.environ.update(client_environment(api.url))  # before the first import of prefect
        api.wait_until_healthy()
        ingest_flow(...)

Importing this module imports neither Prefect nor anything slow: the command line starts with it. Run as a program it *is* the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from h5dat_lib.errors import H5datError

__all__ = ["Api", "ServerError", "client_environment", "configured_api_url", "down", "home", "launch", "running_server", "up"]

HOST = "127.0.0.1"
PREFERRED_PORT = 4200
START_SECONDS = 180.0
"""A first start migrates the database: 8 s more on two quiet cores, and a busy machine takes many times that."""
STOP_SECONDS = 25.0
FLUSH_SECONDS = 30.0
DRAIN_SECONDS = 10.0
"""How long a stopping server may write what it has received: 1 s after 200 task runs that ended at once."""

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

CLIENT = {
    "DO_NOT_TRACK": "1",
    # Without an API a run fails with one clear line; it must not start a server of its own in every worker of the pool.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    # The console belongs to the progress display. Records still reach the API: its handler has a level of its own.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # Nor does it belong to the threads that send events: they print each one that they cannot deliver.
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    # One request less at the start; the server is the same installation.
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # No CPU and memory sampling of each flow run.
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
}

CONTENT_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob: http://{0} ws://{0}"
"""What a browser may load for the UI: this server and nothing else. Both UIs run under it."""


class ServerError(H5datError):
    """A Prefect server that does not start, or is not ours to stop."""


# ---------------------------------------------------------------------------------------------------------------- places


def home() -> Path:
    """The folder of what outlives a run: ``$H5DAT_HOME``, or ``h5dat`` where the platform keeps a user's data."""
    if chosen := os.environ.get("H5DAT_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "h5dat"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "h5dat"


def _prefect_home() -> Path:
    """Where our servers keep their database; private, since a flow's parameters are in it."""
    path = home() / "prefect"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds *path*'s advisory lock; the kernel releases it when the holder dies."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ------------------------------------------------------------------------------------- what the user has configured


def configured_api_url() -> str | None:
    """The URL of the Prefect API that the user has chosen, or None.

    Looked for where Prefect looks, in its order: environment, ``.env``, ``prefect.toml``, ``pyproject.toml``, active profile. Read here
    because ``prefect.settings`` takes 1.5 s to import, and reads the environment only once, which :func:`client_environment` comes before.
    """
    return _configured("PREFECT_API_URL", os.environ) or None


def _configured(name: str, environment: Mapping[str, str]) -> str | None:
    for settings in (environment, _dotenv(), _toml_settings(), _profile()):
        if value := settings.get(name):
            return str(value)
    return None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or not for us to complain about: Prefect warns
        return {}


def _dotenv() -> Mapping[str, str]:
    if not Path(".env").is_file():
        return {}
    from dotenv import dotenv_values  # Prefect's own reader

    return {key: value for key, value in dotenv_values(".env").items() if value}


def _tables() -> tuple[dict[str, Any], dict[str, Any]]:
    return _toml(Path("prefect.toml")), _toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {})


def _toml_settings() -> dict[str, str]:
    """The nested tables of prefect.toml and pyproject.toml as PREFECT_* names; the first file wins."""
    prefect_toml, pyproject = _tables()
    return _flat(pyproject) | _flat(prefect_toml)


def _flat(table: Mapping[str, Any], prefix: str = "PREFECT") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        flat |= _flat(value, name) if isinstance(value, dict) else {name: str(value)}
    return flat


def _profile() -> dict[str, str]:
    """The active profile's settings; empty if there is none, as in Prefect's built-in default profile."""
    profiles = _toml(_profiles_path())
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    settings: dict[str, str] = profiles.get("profiles", {}).get(active, {})
    return settings


def _profiles_path() -> Path:
    for settings in (os.environ, _dotenv(), *_tables()):
        if path := settings.get("PREFECT_PROFILES_PATH") or settings.get("profiles_path"):
            return Path(path)
    return Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser() / "profiles.toml"


def client_environment(url: str) -> dict[str, str]:
    """The environment for a flow process that talks to the API at *url*, and for its workers, which inherit it.

    To be set before ``prefect`` is imported. Nothing that the user has set, in the environment or in a profile, is in it.
    """
    wanted = CLIENT | {"PREFECT_API_URL": url}
    address = urlsplit(url)
    if address.scheme == "http":
        wanted["PREFECT_API_SSL_CERT_FILE"] = str(_one_certificate())
    environment = {name: value for name, value in wanted.items() if _configured(name, os.environ) is None}
    if address.hostname == HOST:
        environment |= _no_proxy()
    return environment


def _one_certificate() -> Path:
    """A file with one root certificate, for an API without TLS.

    Prefect builds two TLS contexts for each task run even for ``http://``, and loads all of certifi's roots into both: 110 of the 200 ms of
    CPU that a task run costs in a process pool.
    """
    path = home() / "one-certificate.pem"
    if not path.exists():
        import certifi

        end = "-----END CERTIFICATE-----\n"
        _write(path, Path(certifi.where()).read_text(encoding="utf-8").split(end)[0] + end)
    return path


def _no_proxy() -> dict[str, str]:
    """A proxy that the user needs for the world must not be asked for this machine."""
    if not any(name.lower() in ("http_proxy", "all_proxy") for name in os.environ):
        return {}
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(filter(None, (known, HOST)))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def _write(path: Path, text: str) -> None:
    """Writes *path* so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


# ------------------------------------------------------------------------------------------------- a server for one run


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
        if self.process is not None and not _answers(self.url, self.process, timeout):
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
    if (standing := _Standing.read()) and standing.healthy():
        return Api(standing.url)
    log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the server
    process, url = _spawn(_listen(0), log, ONE_RUN)
    return Api(url, process, log)


@contextlib.contextmanager
def running_server() -> Iterator[Api]:
    """The API for a run; a server that was started for it is stopped at the end, however it ends."""
    api = launch()
    try:
        yield api
    finally:
        api.stop()


def _listen(*ports: int) -> socket.socket:
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


def _spawn(
    listener: socket.socket, log: IO[bytes], settings: dict[str, str], *, detached: bool = False
) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a server on *listener* and gives its API's URL.

    The child inherits the socket: no other program can take the port between, and a request made too early waits instead of being refused.
    Its standard input is a pipe from us, so that it sees us die, by whatever signal. A session of its own keeps the terminal's Ctrl-C away.
    """
    port = listener.getsockname()[1]
    command = [sys.executable, "-P", str(Path(__file__).absolute()), "--fd", str(listener.fileno())]
    with listener:
        process = subprocess.Popen(
            command + ["--detached"] * detached,
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(),),
            cwd=_prefect_home(),  # away from the user's prefect.toml, and from a folder that may have to be unmounted
            env=_server_environment(port, settings),
            start_new_session=True,
        )
    return process, f"http://{HOST}:{port}/api"


def _server_environment(port: int, settings: dict[str, str]) -> dict[str, str]:
    """Ours alone decides: a PREFECT_* of the user's is meant for the user's own server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    source = str(Path(__file__).absolute().parent.parent)
    return kept | ALL_SERVERS | settings | {
        "PREFECT_HOME": str(_prefect_home()),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
    }  # fmt: skip


def _answers(url: str, process: subprocess.Popen[bytes] | _Standing, timeout: float) -> bool:
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


# ------------------------------------------------------------------------------------------------- a server that stays


@dataclass(frozen=True)
class _Standing:
    """The server of ``h5dat up`` as its state file describes it. ``born`` tells its process from a later one of the same number."""

    pid: int
    born: str
    port: int
    url: str

    @classmethod
    def read(cls) -> _Standing | None:
        """The recorded server if its process is still there, else None."""
        try:
            standing = cls(**json.loads(_state_file().read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return standing if standing.poll() is None else None

    def poll(self) -> int | None:
        """None while the process is there, as :class:`subprocess.Popen` says it."""
        return None if _born(self.pid) == self.born else 0

    def healthy(self, timeout: float = 2.0) -> bool:
        return _healthy(self.url, timeout)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        if not self._gone(STOP_SECONDS):
            self._signal(signal.SIGKILL)
            self._gone(5)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _gone(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return self.poll() is not None


def _state_file() -> Path:
    return home() / "server.json"


def _born(pid: int) -> str | None:
    """When process *pid* started, in the system's own words; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _born_by_ps(pid) if sys.platform != "linux" else None
    return None if fields[0] in "ZX" else fields[19]  # state; starttime, field 22 of proc(5)


def _born_by_ps(pid: int) -> str | None:
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


@dataclass(frozen=True)
class Up:
    """What :func:`up` found or made."""

    ui_url: str
    started: bool

    def __str__(self) -> str:
        return f"Prefect is {'up' if self.started else 'already up'}: {self.ui_url}"


def up() -> Up:
    """Sees to a server that stays when we go, with its UI and all of its services. Raises ServerError.

    Two at once start one: the second waits for the first one's lock, and finds its server.
    """
    _prefect_home()
    with _locked(home() / "server.lock"):
        if standing := _Standing.read():
            return _already_up(standing)
        return _start_standing()


def _already_up(standing: _Standing) -> Up:
    if not _answers(standing.url, standing, START_SECONDS):
        raise ServerError(f"Prefect server at {standing.url}, process {standing.pid}: found it silent, stop it with `h5dat down`")
    return Up(Api(standing.url).ui_url, started=False)


def _start_standing() -> Up:
    log_file = home() / "server.log"
    with log_file.open("w+b") as log:
        process, url = _spawn(_listen(PREFERRED_PORT, 0), log, {}, detached=True)
        # Before it is healthy: if we are killed now, the next `up` still finds it.
        _record(_Standing(process.pid, _born(process.pid) or "", urlsplit(url).port or 0, url))
        api = Api(url, process, log)
        try:
            api.wait_until_healthy()
        except BaseException:
            api.stop()
            _state_file().unlink(missing_ok=True)
            raise
    process.returncode = 0  # it is not ours to wait for: no ResourceWarning when this object goes
    return Up(api.ui_url, started=True)


def _record(standing: _Standing) -> None:
    _write(_state_file(), json.dumps(asdict(standing), indent=2) + "\n")


def down() -> str:
    """Stops the server of :func:`up`, and says what it did."""
    _prefect_home()
    with _locked(home() / "server.lock"):
        standing = _Standing.read()
        if standing is not None:
            standing.stop()
        _state_file().unlink(missing_ok=True)
    return f"Stopped Prefect at {Api(standing.url).ui_url}" if standing else "Nothing to stop: no Prefect server of ours is running"


# --------------------------------------------------------------------------------------------------- the server process


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
        migrating.enter_context(_locked(_prefect_home() / "migrate.lock"))
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
            _write(_marker(), _prefect_version())
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
    return _prefect_home() / "migrated"


def _prefect_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("prefect")


def _migrated() -> bool:
    """Whether this version of Prefect has migrated the database: asking alembic takes 0.25 s and 13 MB."""
    database = _prefect_home() / "prefect.db"
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
