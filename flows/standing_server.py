"""The Prefect server that stays: `h5dat up` starts it, with its UI and all of its services, and `h5dat down` stops it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from flows.home import home, locked, prefect_home
from flows.prefect_client import configured_api_url
from flows.server import START_SECONDS, Api, ServerError, answers, listen, spawn
from flows.server_state import Standing, born, record, state_file

__all__ = ["Up", "down", "lasting", "up"]

PREFERRED_PORT = 4200


@dataclass(frozen=True)
class Up:
    """What :func:`up` found or made."""

    api: Api
    started: bool

    @property
    def ui_url(self) -> str:
        return self.api.ui_url

    def __str__(self) -> str:
        return f"Prefect is {'up' if self.started else 'already up'}: {self.ui_url}"


def up() -> Up:
    """Sees to a server that stays when we go, with its UI and all of its services. Raises ServerError.

    Two at once start one: the second waits for the first one's lock, and finds its server.
    """
    prefect_home()
    with locked(home() / "server.lock"):
        if standing := Standing.read():
            return _already_up(standing)
        return _start_standing()


def _already_up(standing: Standing) -> Up:
    if not answers(standing.url, standing, START_SECONDS):
        raise ServerError(f"Prefect server at {standing.url}, process {standing.pid}: found it silent, stop it with `h5dat down`")
    return Up(Api(standing.url), started=False)


def _start_standing() -> Up:
    log_file = home() / "server.log"
    with log_file.open("w+b") as log:
        process, url = spawn(listen(PREFERRED_PORT, 0), log, {}, detached=True)
        # Before it is healthy: if we are killed now, the next `up` still finds it.
        record(Standing(process.pid, born(process.pid) or "", urlsplit(url).port or 0, url))
        api = Api(url, process, log)
        try:
            api.wait_until_healthy()
        except BaseException:
            api.stop()
            state_file().unlink(missing_ok=True)
            raise
    process.returncode = 0  # it is not ours to wait for: no ResourceWarning when this object goes
    return Up(Api(url), started=True)


def lasting() -> Api:
    """The API for what outlives a run: the one that the user has configured, or that of :func:`up`."""
    configured = configured_api_url()
    return Api(configured) if configured else up().api


def down() -> str:
    """Stops the server of :func:`up`, and says what it did."""
    prefect_home()
    with locked(home() / "server.lock"):
        standing = Standing.read()
        if standing is not None:
            standing.stop()
        state_file().unlink(missing_ok=True)
    return f"Stopped Prefect at {Api(standing.url).ui_url}" if standing else "Nothing to stop: no Prefect server of ours is running"
